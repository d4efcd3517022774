"""One command as a process, with a session of its own.

Whatever ends the handler ends the whole process group.  When the worker itself is killed, the
kernel kills the command with it (Linux); what that has forked is found by its environment, and
killed, before the same job runs again.  Elsewhere it goes on until it ends.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time

from ..lock import Undisturbed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .command import Command

MOMENT = 2.0  # seconds between SIGTERM and SIGKILL
_LOOK = 0.2  # seconds until an exception that another thread throws comes up
_LATE = 1 << 20  # bytes that are still read when the command has ended
_SET_PDEATHSIG = 1


def run(
    command: "Command", env: "dict[str, str]", take: "Callable[[bytes], None]", moment: float
) -> int:
    """Run a command until it ends and return its status, negative for a signal.

    What it prints goes to `take`.  OSError when it cannot be started.
    """
    _hear_of_children()
    process: subprocess.Popen[bytes] | None = None
    try:
        with Undisturbed():  # else nobody would know of the process
            process = subprocess.Popen(
                command.argv,
                bufsize=0,
                cwd=command.cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent(),
            )
        return _until_it_ends(process, take)
    except BaseException:
        with Undisturbed():
            if process is not None:
                _end(process, take, moment)
        raise
    finally:
        if process is not None and process.stdout is not None:
            process.stdout.close()


def _die_with_parent() -> "Callable[[], None] | None":
    """Return what lets the kernel kill the child when the thread that forked it has gone.

    It is called between fork and exec, so all is made before: in the child there is one C call
    that takes no lock.  (fork(), by which Popen starts a child with such a function, leaves the
    interpreter and malloc usable there, also when other threads ran.)
    """
    if sys.platform != "linux":
        return None
    import ctypes

    prctl, parent, kill = ctypes.CDLL(None).prctl, os.getpid(), int(signal.SIGKILL)
    prctl.argtypes = [ctypes.c_int, ctypes.c_ulong]

    def prepare() -> None:
        prctl(_SET_PDEATHSIG, kill)
        if os.getppid() != parent:
            os._exit(1)  # it died meanwhile

    return prepare


def _hear_of_children() -> None:
    """Where SIGCHLD is ignored, as some parents leave it, the kernel keeps no exit status."""
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("SIGCHLD is ignored here: no exit status would be known")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _until_it_ends(process: "subprocess.Popen[bytes]", take: "Callable[[bytes], None]") -> int:
    """Read what a process prints until it has ended; what it has forked may keep the pipe."""
    pipe = process.stdout.fileno() if process.stdout else -1
    look = select.poll()
    look.register(pipe, select.POLLIN)
    with contextlib.ExitStack() as stack:
        pause = _LOOK
        try:
            end = os.pidfd_open(process.pid)
            stack.callback(os.close, end)
            look.register(end, select.POLLIN)
        except (AttributeError, OSError):
            pause = 0.02
        while process.poll() is None:
            for fd, _ in look.poll(pause * 1000):
                if fd == pipe:
                    data = os.read(pipe, 1 << 16)
                    take(data)
                    if not data:
                        look.unregister(pipe)
    _read_rest(pipe, take)
    return int(process.returncode)


def _read_rest(pipe: int, take: "Callable[[bytes], None]") -> None:
    """Read what is in a pipe now; others may write to it for ever."""
    os.set_blocking(pipe, False)
    late = _LATE
    with contextlib.suppress(BlockingIOError):
        while late > 0 and (data := os.read(pipe, 1 << 16)):
            late -= len(data)
            take(data)


def _end(
    process: "subprocess.Popen[bytes]", take: "Callable[[bytes], None]", moment: float
) -> None:
    """End the group of a process: SIGTERM, a moment, in which it may say more, SIGKILL."""
    pipe = process.stdout.fileno() if process.stdout else -1
    until = time.monotonic() + moment
    for number in (signal.SIGTERM, signal.SIGCONT):
        _signal(process, number)
    while process.returncode is None and time.monotonic() < until and not _is_over(process):
        _read_rest(pipe, take)
        time.sleep(0.01)
    _read_rest(pipe, take)
    _signal(process, signal.SIGKILL)  # before it is waited for: until then its number is its own
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def _is_over(process: "subprocess.Popen[bytes]") -> bool:
    try:
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, process.pid, options) is not None
    except ChildProcessError:
        return True


# --- what an attempt has left that was cut off


def kill_left(marks: "dict[str, str]") -> int:
    """Kill each process that has these variables in its environment; return how many.

    Only Linux shows them.  A process is held by a descriptor before it is looked at, so that no
    other one can have its number.
    """
    wanted = {f"{name}={value}".encode(errors="surrogateescape") for name, value in marks.items()}
    count = 0
    if not hasattr(os, "pidfd_open") or not os.path.isdir("/proc/self"):
        return 0
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid() or not _has(name, wanted):
            continue
        with contextlib.suppress(OSError):
            fd = os.pidfd_open(int(name))
            try:
                if _has(name, wanted):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                    count += 1
                    select.select([fd], [], [], 1)
            finally:
                os.close(fd)
    return count


def _has(pid: str, wanted: "set[bytes]") -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return wanted <= set(file.read().split(b"\0"))
    except OSError:  # it has gone, or is another user's
        return False
