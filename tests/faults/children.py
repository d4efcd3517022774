"""Forked processes that say lines to the test, are waited for, and outlive no test."""

import os
import pwd
import select
import signal
import time
import traceback

SECONDS = 30  # that a child may take for what is asked of it


class Child:
    """A forked process that runs `function(say, *args)` and ends."""

    def __init__(self, function, *args):
        self._rest = b""
        self._status = None
        self._hear, say = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(say)
            return
        status = 1
        try:
            os.close(self._hear)
            function(lambda text: os.write(say, f"{text}\n".encode()), *args)
            status = 0
        except BaseException:
            os.write(say, traceback.format_exc().encode())
        finally:
            os._exit(status)

    def hear(self, seconds=SECONDS):
        """Return the next line that the child says; "" when it has ended."""
        until = time.monotonic() + seconds
        while b"\n" not in self._rest:
            if not select.select([self._hear], [], [], max(0.0, until - time.monotonic()))[0]:
                raise AssertionError(f"the child says nothing for {seconds} s")
            block = os.read(self._hear, 65536)
            if not block:
                break
            self._rest += block
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def hear_all(self, seconds=SECONDS):
        """Return the rest of what the child says until it ends."""
        return list(iter(lambda: self.hear(seconds), ""))

    @property
    def ended(self):
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status is not None

    def wait(self, seconds=SECONDS):
        """Return the exit status, -9 of a killed one."""
        until = time.monotonic() + seconds
        while not self.ended:
            assert time.monotonic() < until, f"the child has not ended after {seconds} s"
            time.sleep(0.001)
        return self._status

    def send(self, number):
        if not self.ended:
            os.kill(self.pid, number)

    def kill(self):
        self.send(signal.SIGKILL)
        return self.wait()

    def close(self):
        self.send(signal.SIGCONT)
        self.kill()
        if self._hear >= 0:
            os.close(self._hear)
            self._hear = -1


class Children:
    """`with Children() as children:` ends with all of them dead."""

    def __init__(self):
        self.all = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self.all:
            child.close()

    def start(self, function, *args):
        child = Child(function, *args)
        self.all.append(child)
        return child

    def finish(self, seconds=SECONDS):
        """Wait for all; each must have ended well."""
        for child in self.all:
            said = child.hear_all(seconds)
            assert child.wait(seconds) == 0, "\n".join(said)


def become(name):
    """Give up root for the rights of another user, for good."""
    user = pwd.getpwnam(name)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def until(condition, seconds=SECONDS):
    """Ask again and again until the answer is true, and return it."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.002)
    return answer
