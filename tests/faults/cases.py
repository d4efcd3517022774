"""Cases in which processes are killed, each in a folder of its own and from a seed of its own."""

import logging
import os
import random
import signal
import time
from typing import NamedTuple


class Result(NamedTuple):
    cases: int
    killed: int  # processes, by SIGKILL
    violations: list[str]


def each(one_case, cases, folder, seed=0):
    """Run so many cases into a Result; `one_case(place, chance)` says (killed, violations)."""
    killed, violations = 0, []
    for number in range(cases):
        place = folder / f"case-{number}"
        place.mkdir()
        more, wrong = one_case(place, random.Random(f"{seed} {number}"))
        killed += more
        violations += [f"case {number}: {text}" for text in wrong]
    return Result(cases, killed, violations)


def start(role, *given):
    """Do it in a forked process, which nobody hears."""
    pid = os.fork()
    if not pid:
        logging.disable()
        random.seed()
        try:
            role(*given)
        finally:
            os._exit(0)
    return pid


def kill_by_chance(begin, roles, chance, seconds, longest, look=None):
    """Begin every role, kill one after the other for so long, then all; return how many that were.

    `begin(role)` starts one in a process and says its pid; who is killed is begun anew.
    """
    living = {begin(role): role for role in roles}
    killed, until = 0, time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            if look is not None:
                look()
            time.sleep(chance.random() * longest)
            pid = chance.choice(list(living))
            kill(pid)
            killed += 1
            role = living.pop(pid)
            living[begin(role)] = role
    finally:
        for pid in living:
            kill(pid)
    return killed + len(living)


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def note(path, text):
    """Append a line by one write: a kill may follow."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def lines(path):
    return path.read_text().split("\n")[:-1] if path.exists() else []
