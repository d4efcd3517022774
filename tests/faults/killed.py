"""Kills that come where they are wanted: in a forked child, at one of its calls."""

import json
import os
import signal
import traceback

from dbbasic_queue import Discard, Retry, Snooze, current_job

DIE_AT = "write pwrite fsync fdatasync rename link unlink ftruncate mkdir rmdir open".split()
REAL = {name: getattr(os, name) for name in DIE_AT if hasattr(os, name)}
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where a sync costs nothing


def handlers_of(folder):
    """A handler for each way in which a run ends; each first leaves the id of its job."""

    def note():
        fd = REAL["open"](folder / "effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        REAL["write"](fd, f"{current_job().id}\n".encode())
        os.close(fd)

    def good(payload):
        note()
        return payload

    def record(payload):
        note()
        current_job().record(noted=str(current_job().attempts))
        return payload

    def raises(error):
        def handler(payload):
            note()
            raise error

        return handler

    def kill(payload):
        note()
        os.kill(os.getpid(), signal.SIGKILL)

    return {
        "good": good,
        "record": record,
        "bad": raises(ValueError("no")),
        "discard": raises(Discard("no use")),
        "snooze": raises(Snooze(30)),
        "again": raises(Snooze(0)),
        "busy": raises(Retry("busy", after=90)),
        "kill": kill,
    }


def in_a_child(does, die_at, how):
    """Do it in a forked child that is killed at a call; return whether it was, and its answer."""
    hear, say = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            if die_at:
                arm(die_at, how)
            answer = json.dumps([does()])
            REAL["write"](say, answer.encode())
            status = 0
        except BaseException:
            REAL["write"](say, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(say)
    with open(hear, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or not status, said.decode()
    return killed, None if killed else json.loads(said)[0]


def arm(die_at, how):
    """Let this process be killed at a call that changes the disk: before, after, or half done."""
    left = die_at

    def wrap(name, real):
        def call(*args, **named):
            nonlocal left
            left -= name != "open" or bool(args[1] & os.O_CREAT)
            if left:
                return real(*args, **named)
            if how == "after":
                real(*args, **named)
            elif how == "half" and name in ("write", "pwrite"):
                real(args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:])
            os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name, real in REAL.items():
        setattr(os, name, wrap(name, real))
