"""Handlers from hell, each with how its job must end; as a script, what forks them at work.

A job that is bad stands between good ones.  `here` is the calling process, `pool` has one worker
process, `two` has two, `loop` runs four async handlers side by side, `inner` does so in a pool.
"""

import asyncio
import atexit
import builtins
import contextlib
import ctypes
import fcntl
import gc
import json
import locale
import logging
import mmap
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from typing import NamedTuple

import filelock

import dbbasic_queue.held
from dbbasic_queue import Discard, Queue, Retry, Snooze, current_job

MODES = {
    "here": {},
    "pool": {"processes": 1},
    "two": {"processes": 2},
    "loop": {"concurrency": 4},
    "inner": {"processes": 1, "concurrency": 4},
}
POOLS = ("pool", "two", "inner")
LOOPS = ("loop", "inner")
CUT_OFF = 0.3  # seconds from a time-out to the end of the process, in place of 5
LIMIT = 0.3  # the timeout of the jobs that need one
LATE = f"timed out after {LIMIT} s"
FOREVER = 3600
ANY = None  # exit status: the handler has spoilt what Python does at its end


class End(NamedTuple):
    """How a bad job and its process end."""

    status: str
    attempts: int
    error: str  # how it begins; "" is none
    exit: object = 0
    deaths: int = 0  # of processes that ran jobs
    beside: int = 0  # extra runs that it may cost each of the others


class Case(NamedTuple):
    handler: object
    ends: dict  # of mode -> those that are right
    timeout: object
    memory: object
    freezes: bool  # so that only somebody else can end the process
    stays: bool  # something that it has started may outlive the call
    noisy: bool  # what it prints is its own


CASES = {}


def hell(ends, *, timeout=None, memory=None, freezes=False, stays=False, noisy=False):
    """Enter a handler into the table."""

    def enter(handler):
        name = handler.__name__
        CASES[name] = Case(handler, ends, timeout, memory, freezes, stays, noisy)
        return handler

    return enter


def all_modes(end, *pool, loop=None, inner=None):
    """One end for all modes, but for those that are given; who dies in a loop is not alone."""
    pooled = pool[0] if pool else end._replace(exit=0)
    loop, inner = loop or end, inner or pooled
    ends = {"here": [end], "pool": [pooled], "loop": [loop._replace(beside=loop.deaths)]}
    two = [pooled]
    if "worker died (" in pooled.error:  # the other worker may be there before the supervisor
        two.append(pooled._replace(error="worker died"))
    return ends | {"two": two, "inner": [inner._replace(beside=inner.deaths)]}


def only(ends, *modes):
    """These modes alone, where there are no others."""
    return {mode: ends[mode] for mode in modes}


def any_of(*many):
    """Several ends are right, in each mode."""
    return {mode: [end for ends in many for end in ends.get(mode, ())] for mode in MODES}


def completes(exit=0):
    return all_modes(End("completed", 1, "", exit))


def raises(error, exit=0):
    """A failed attempt, after which the tick goes on; the job waits for its next one."""
    return all_modes(End("pending", 1, error, exit))


def dies(how, exit):
    """The process ends; in a pool the next worker tries once more."""
    return all_modes(
        End("pending", 1, "worker died", exit, 1), End("failed", 2, f"worker died ({how})", 0, 2)
    )


def hangs():
    """Deaf to its time-out, so its process is ended for it."""
    here = End("pending", 1, f"{LATE}, and did not end within {CUT_OFF} s", 75, 1)
    return all_modes(here, End("failed", 2, LATE, 0, 2))


def freezes():
    """In the calling process nothing of ours can run any more."""
    return all_modes(End("pending", 1, "worker died", -9, 1), End("failed", 2, LATE, 0, 2))


def without_its_loop(ends):
    """In a loop whose descriptors are closed the tick ends, and the job is charged."""
    loop, inner = End("pending", 1, "worker died", ANY), End("failed", 2, "worker died")
    return ends | only(beside(all_modes(loop, inner)), *LOOPS)


def beside(ends, *modes):
    """What runs beside it is hit too, once."""
    hit = {mode: [end._replace(beside=1) for end in ends[mode]] for mode in modes or LOOPS}
    return ends | hit


def seen_as_dead(ends):
    """It has let go of its worker's lock, so that the other worker may take it for dead."""
    again = End("completed", 2, "", beside=1)
    return ends | {"two": [*ends["two"], again, again._replace(attempts=1)]}


def stops(exit, attempts=0):
    """The job goes back uncharged, and no further one begins."""
    return all_modes(End("pending", attempts, "", exit))


# --- it does not come back


@hell(raises(LATE) | only(hangs(), "loop") | only(hangs(), "inner"), timeout=LIMIT)
def endless_loop(payload):
    while True:
        pass


@hell(hangs(), timeout=LIMIT)
def endless_loop_that_catches_all(payload):
    while True:
        with contextlib.suppress(BaseException):
            while True:
                pass


@hell(freezes(), timeout=LIMIT, freezes=True)
def sleep_in_c_with_the_interpreters_lock(payload):
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    ctypes.PyDLL(None).sleep(FOREVER)


@hell(hangs(), timeout=LIMIT)
def sleep_in_c(payload):
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    ctypes.CDLL(None).sleep(FOREVER)


@hell(freezes(), timeout=LIMIT, freezes=True)
def keep_the_interpreters_lock(payload):
    sys.setswitchinterval(1e6)
    while True:
        pass


@hell(freezes(), timeout=LIMIT, freezes=True)
def stop_itself(payload):
    os.kill(os.getpid(), signal.SIGSTOP)


@hell(hangs(), timeout=LIMIT)
def wait_for_a_thread_that_never_ends(payload):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    threading.Event().wait()


@hell(hangs(), timeout=LIMIT)
def ignore_the_alarm(payload):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(FOREVER)


@hell(dies("signal 14", -14) | only(hangs(), "loop", "inner"), timeout=LIMIT)
def let_the_alarm_kill(payload):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    time.sleep(FOREVER)


@hell(only(hangs(), "pool", "two", "inner"), timeout=LIMIT)
def hide_in_another_process_group(payload):
    os.setpgid(0, os.getpgid(os.getppid()))
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    ctypes.PyDLL(None).sleep(FOREVER)


@hell(
    only(hangs(), "pool", "inner")
    | {"two": [End("failed", 2, LATE), End("failed", 2, "worker d")]},
    timeout=LIMIT,
)
def become_a_program_that_sleeps(payload):
    os.execv("/bin/sleep", ["sleep", str(FOREVER)])


# --- memory


@hell(raises("MemoryError"))
def ask_for_more_than_there_is(payload):
    b"x" * (1 << 60)


@hell(
    only(all_modes(End("pending", 1, "MemoryError")), "pool", "two", "inner"),
    memory=200,
)
def eat_memory(payload):
    eaten = []
    while True:
        eaten.append(bytearray(10 << 20))


@hell(
    only(
        all_modes(End("failed", 2, "used more than 200 MB of memory", 0, 2)),
        "pool", "two", "inner",
    ),
    memory=200,
)  # fmt: skip
def eat_shared_memory(payload):
    eaten = mmap.mmap(-1, 400 << 20)
    for at in range(0, 400 << 20, 4096):
        eaten[at] = 1
    time.sleep(FOREVER)


@hell(raises("RecursionError"))
def recurse(payload):
    return recurse(payload)


# --- it ends the process


def _without_a_core():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@hell(dies("exit status 7", 7))
def leave(payload):
    os._exit(7)


@hell(dies("exit status 0", 0))
def leave_as_if_all_were_well(payload):
    os._exit(0)


@hell(dies("signal 11", -11))
def segfault(payload):
    _without_a_core()
    ctypes.string_at(0)


@hell(dies("signal 6", -6))
def abort(payload):
    _without_a_core()
    os.abort()


@hell(dies("signal 9", -9))
def kill_its_own_process_group(payload):
    os.killpg(0, signal.SIGKILL)


@hell(dies("signal 1", -1))
def hang_up(payload):
    os.kill(os.getpid(), signal.SIGHUP)


@hell(dies("exit status 0", 0))
def become_another_program(payload):
    os.execv("/bin/true", ["true"])


@hell(completes(exit=143))
def terminate_itself(payload):
    os.kill(os.getpid(), signal.SIGTERM)


@hell(completes(exit=-2))
def interrupt_itself(payload):
    os.kill(os.getpid(), signal.SIGINT)


@hell({mode: [End("completed", 1, "", 143)] for mode in POOLS})
def terminate_its_supervisor(payload):
    os.kill(os.getppid(), signal.SIGTERM)


@hell({mode: [End("completed", 1, "", -9)] for mode in POOLS})
def kill_its_supervisor(payload):
    os.kill(os.getppid(), signal.SIGKILL)


# --- forks


@hell(completes(), stays=True)
def fork_and_stay(payload):
    if not os.fork():
        time.sleep(FOREVER)


@hell(completes(), stays=True)
def leave_a_daemon(payload):
    pid = os.fork()
    if not pid:
        if not os.fork():
            os.setpgid(0, 0)
            time.sleep(FOREVER)
        os._exit(0)
    os.waitpid(pid, 0)


@hell(dies("signal 9", -9), stays=True)
def fork_and_die(payload):
    if not os.fork():
        time.sleep(FOREVER)
    os.kill(os.getpid(), signal.SIGKILL)


@hell(beside(completes()), noisy=True)
def fork_and_both_come_back(payload):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)


@hell(hangs(), timeout=LIMIT, noisy=True)
def fork_and_hang_when_the_child_comes_back(payload):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        time.sleep(FOREVER)


@hell(completes())
def leave_a_zombie(payload):
    if not os.fork():
        os._exit(3)


@hell(raises("ChildProcessError"))
def reap_whoever_ends(payload):
    while True:
        os.waitpid(-1, 0)


@hell(completes())
def ignore_the_end_of_children(payload):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    subprocess.run(["true"])


# --- descriptors and streams


@hell(seen_as_dead(without_its_loop(completes())))
def close_all_descriptors_but_three(payload):
    os.closerange(3, 4096)


@hell(seen_as_dead(without_its_loop(completes(ANY))), noisy=True)
def close_all_descriptors(payload):
    os.closerange(0, 4096)


@hell(completes(ANY), noisy=True)
def close_the_three_descriptors(payload):
    for fd in range(3):
        os.close(fd)


@hell(completes(ANY), noisy=True)
def close_stderr_when_there_is_something_to_warn_of(payload):
    os.close(2)
    current_queue().enqueue("nobody")


@hell(completes(ANY), noisy=True)
def close_the_streams(payload):
    sys.stdin.close()
    sys.stdout.close()
    sys.stderr.close()


@hell(completes(), noisy=True)
def lose_the_streams(payload):
    sys.stdin = sys.stdout = sys.stderr = None


@hell(completes(ANY), noisy=True)
def put_nonsense_in_the_place_of_the_streams(payload):
    sys.stdin = sys.stdout = sys.stderr = 5


@hell(raises("BrokenPipeError", ANY), noisy=True)
def print_into_a_broken_pipe(payload):
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    print("x" * 100_000)


@hell(completes(ANY), noisy=True)
def leave_something_for_a_broken_pipe(payload):
    sys.stdout.flush()
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    print("not flushed yet")


@hell(completes())
def print_50_megabytes(payload):
    for _ in range(50):
        print("x" * (1 << 20))


@hell(completes())
def log_a_lot(payload):
    logging.getLogger("bad").warning("x" * (1 << 20))
    logging.getLogger().handlers.clear()


@hell(completes())
def shut_logging_down(payload):
    logging.disable(logging.CRITICAL)
    logging.shutdown()


class _Refusing(logging.Filter):
    def filter(self, record):
        raise RuntimeError("no line passes")


@hell(raises("ValueError: x"))
def install_a_log_filter_that_raises(payload):
    logging.getLogger("dbbasic_queue").addFilter(_Refusing())
    raise ValueError("x")


# --- what it raises


class Silent(Exception):
    def __str__(self):
        raise RuntimeError("not even this")

    __repr__ = __str__


class Deadly(Exception):
    def __str__(self):
        raise SystemExit(3)


class Slow(Exception):
    def __str__(self):
        time.sleep(FOREVER)


@hell(raises("BaseException: x"))
def raise_base_exception(payload):
    raise BaseException("x")


@hell(raises("SystemExit: 3"))
def raise_system_exit(payload):
    sys.exit(3)


@hell(stops(exit=-2))
def raise_keyboard_interrupt(payload):
    raise KeyboardInterrupt


@hell(raises("GeneratorExit"))
def raise_generator_exit(payload):
    raise GeneratorExit


@hell(raises("asyncio.exceptions.CancelledError"))
def raise_cancelled_error(payload):
    raise asyncio.CancelledError


@hell(raises("Silent: (its text cannot be read)"))
def raise_what_has_no_text(payload):
    raise Silent


@hell(raises("Deadly: (its text cannot be read)"))
def raise_what_exits_when_it_is_printed(payload):
    raise Deadly


@hell(raises("Slow: (its text cannot be read)"), timeout=LIMIT)
def raise_what_takes_for_ever_to_print(payload):
    raise Slow


@hell(all_modes(End("failed", 1, "Discard: (its text cannot be read)")))
def discard_for_a_reason_that_cannot_be_read(payload):
    raise Discard(Silent())


class _HalfMade(Snooze):
    def __init__(self):
        pass


@hell(raises("AttributeError: '_HalfMade' object has no attribute 'seconds'"))
def raise_half_a_snooze(payload):
    raise _HalfMade


@hell(raises("TypeError"))
def retry_at_no_time(payload):
    retry = Retry("later")
    retry.after = "soon"
    raise retry


@hell(raises("ValueError: x"))
def raise_five_megabytes(payload):
    raise ValueError("x" * (5 << 20))


@hell(raises(r"A\n\x1b[31mB: \x1b]0;title\x07\x9b\u2028"))
def raise_what_steers_a_terminal(payload):
    raise type("A\n\x1b[31mB", (Exception,), {"__module__": "builtins"})(
        "\x1b]0;title\x07\x9b\u2028\n2030-01-01 INFO all is well"
    )


@hell(raises("ValueError: first"))
def raise_what_causes_itself(payload):
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


# --- what it returns


class _Mapping(dict):
    def __init__(self, problem):
        super().__init__(a=1)
        self.problem = problem

    def items(self):
        raise self.problem


class _Text(str):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


@hell(raises("dbbasic_queue.errors.BadArgument: the result is not JSON"))
def return_what_is_no_json(payload):
    return object()


@hell(raises("dbbasic_queue.errors.BadArgument: the result is not JSON"))
def return_not_a_number(payload):
    return float("nan")


@hell(raises("dbbasic_queue.errors.BadArgument: the result is not JSON"))
def return_what_holds_itself(payload):
    result = []
    result.append(result)
    return result


@hell(raises("dbbasic_queue.errors.BadArgument: the result is not JSON: nested too deeply"))
def return_what_is_deep(payload):
    result = []
    for _ in range(100_000):
        result = [result]
    return result


@hell(raises("dbbasic_queue.errors.BadArgument: the result is 52428802 bytes of JSON"))
def return_50_megabytes(payload):
    return "x" * (50 << 20)


@hell(completes())
def return_text_that_cannot_be_printed(payload):
    return _Text("x")


@hell(raises("KeyError: 'no items'"))
def return_what_raises_when_it_is_read(payload):
    return _Mapping(KeyError("no items"))


@hell(raises("SystemExit: 4"))
def return_what_exits_when_it_is_read(payload):
    return _Mapping(SystemExit(4))


class _Endless(dict):
    def items(self):
        time.sleep(FOREVER)


@hell(raises(LATE), timeout=LIMIT)
def return_what_takes_for_ever_to_read(payload):
    return _Endless(a=1)


class _Remains:
    def __del__(self):
        raise ValueError("from the grave")


@hell(completes(), noisy=True)
def leave_what_raises_when_it_goes(payload):
    remains = _Remains()
    remains.itself = remains
    del remains
    gc.collect()


# --- the process around it


@hell(completes())
def change_the_folder(payload):
    os.mkdir("elsewhere")
    os.chdir("elsewhere")


@hell(completes())
def remove_the_folder_it_is_in(payload):
    os.mkdir("elsewhere")
    os.chdir("elsewhere")
    os.rmdir("../elsewhere")


@hell(completes())
def allow_all_modes(payload):
    os.umask(0)


@hell(completes())
def forbid_all_modes(payload):
    os.umask(0o777)


@hell(completes())
def ignore_signals(payload):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)


@hell(completes())
def take_the_signals(payload):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, lambda *_: os._exit(9))


@hell(completes())
def block_signals(payload):
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))


@hell(completes(exit=-14))
def leave_an_alarm(payload):
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)


@hell(completes())
def leave_a_wakeup_descriptor(payload):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    os.close(reader)


@hell(completes())
def clear_the_environment(payload):
    os.environ.clear()


@hell(completes())
def change_the_locale(payload):
    for name in ("de_DE.UTF-8", "tr_TR.UTF-8", "C"):
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_ALL, name)
            return


@hell(completes())
def trace(payload):
    seen = []
    sys.settrace(lambda *event: seen.append(1))
    threading.settrace(lambda *event: seen.append(1))
    sys.setprofile(lambda *event: seen.append(1))


@hell(any_of(raises("ZeroDivisionError"), completes()))
def trace_with_a_function_that_raises(payload):
    sys.settrace(lambda *event: 1 / 0)


@hell(any_of(raises("ZeroDivisionError"), completes()))
def profile_with_a_function_that_raises(payload):
    sys.setprofile(lambda *event: 1 / 0)


@hell(completes())
def turn_off_the_collector(payload):
    gc.disable()
    gc.freeze()


@hell(completes(), noisy=True)
def disturb_the_collector(payload):
    gc.callbacks.append(lambda *_: 1 / 0)
    gc.set_threshold(1)
    gc.collect()


@hell(completes())
def make_warnings_errors(payload):
    warnings.simplefilter("error")


@hell(completes())
def forget_the_package(payload):
    for name in list(sys.modules):
        if name.startswith("dbbasic_queue"):
            del sys.modules[name]


@hell(all_modes(End("completed", 1, "", 5), End("completed", 1, "")), noisy=True)
def leave_something_for_the_end(payload):
    atexit.register(lambda: os._exit(5))
    atexit.register(lambda: 1 / 0)


# --- threads


@hell(completes())
def leave_a_thread(payload):
    threading.Thread(target=time.sleep, args=(FOREVER,), daemon=True).start()


@hell(completes())
def leave_a_thread_that_must_end(payload):
    threading.Thread(target=time.sleep, args=(0.5,)).start()


@hell(completes(), noisy=True)
def exit_in_a_thread(payload):
    for leave in (sys.exit, lambda: 1 / 0):
        threading.Thread(target=leave).start()


@hell(completes())
def leave_a_thread_that_enqueues(payload):
    queue = current_queue()

    def add():
        for _ in range(20):
            queue.enqueue("nobody")

    threading.Thread(target=add).start()


# --- the queue


def current_queue():
    return Queue(os.path.join(_folder, "data", "queue.tsv"), lock_timeout=1, sync="off")


@hell(completes())
def enqueue_thousands(payload):
    current_queue().enqueue_many([("nobody", number) for number in range(5000)])


@hell(completes())
def enqueue_its_own_type(payload):
    if not isinstance(payload, int) or payload < 30:
        current_queue().enqueue("bad", (payload if isinstance(payload, int) else 0) + 1)


@hell(beside(completes(), "two", *LOOPS))
def delete_the_side_folder(payload):
    shutil.rmtree("data/queue.tsv.d")


@hell(completes())
def delete_the_lock_file(payload):
    os.unlink("data/queue.tsv.lock")


@hell(all_modes(End("completed", 1, "", 1), End("completed", 1, "", 0, 1)))
def take_the_lock_and_keep_it(payload):
    kept = filelock.FileLock("data/queue.tsv.lock")
    kept.acquire()
    sys.kept = kept


@hell(all_modes(End("completed", 1, "", 1), End("completed", 1, "", 0, 1)))
def begin_an_edit_and_never_end_it(payload):
    sys.kept = current_queue().edit()
    sys.kept.__enter__()


@hell(all_modes(End("completed", 1, "", 1), End("completed", 1, "", 0, 1)))
def begin_an_edit_in_a_thread_and_never_end_it(payload):
    sys.kept = current_queue().edit()
    thread = threading.Thread(target=sys.kept.__enter__)
    thread.start()
    thread.join()


@hell(completes())
def lock_the_queue_file_elsewhere(payload):
    command = "exec 9>>data/queue.tsv.lock; flock 9; sleep 0.2"
    subprocess.Popen(["sh", "-c", command])
    time.sleep(0.05)


@hell(completes())
def empty_its_workers_file(payload):
    folder = "data/queue.tsv.d/workers"
    for name in os.listdir(folder):
        os.truncate(os.path.join(folder, name), 0)


@hell(any_of(raises("IndexError"), completes()))
def empty_its_job(payload):
    current_job().cells.clear()


@hell(all_modes(
    End("cancelled", 1, "ended on request"), loop=End("cancelled", 1, "ended on request", 75, 1),
    inner=End("cancelled", 1, "ended on request", 0, 1),
))  # fmt: skip
def end_itself_on_request(payload):
    current_queue().kill(current_job().id)
    for _ in range(1000):
        time.sleep(0.01)


@hell(completes())
def stop_all_workers(payload):
    current_queue().stop()


# --- limits and rights


@hell(any_of(dies("exit status 1", ANY), completes(ANY)))
def limit_the_size_of_files(payload):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


@hell(all_modes(End("completed", 1, "", 1), End("completed", 1, "", 0, 1)))
def limit_the_number_of_descriptors(payload):
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))


@hell(any_of(raises("MemoryError"), completes(), completes(1)), noisy=True)
def limit_the_memory(payload):
    resource.setrlimit(resource.RLIMIT_AS, (1 << 20, 1 << 20))


@hell(all_modes(End("completed", 1, "", 1), End("completed", 1, "", 0, 1)))
def give_up_its_rights(payload):
    if os.geteuid():
        raise ValueError("only root can")
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def _fails(*args, **named):
    raise OSError(28, "no room, says a patch")


BROKEN = [
    End("pending", 1, "Error: "),
    End("completed", 1, ""),
    End("completed", 1, "", 1),
    End("completed", 1, "", 0, 1),
    End("pending", 1, "worker died", 1, 1),
    End("pending", 1, "", 1),
    End("failed", 2, "worker died", 0, 2),
]
# The process is beyond help; the queue is not.
SABOTAGE = beside(dict.fromkeys(MODES, BROKEN), *MODES)


@hell(SABOTAGE, noisy=True)
def break_os_write(payload):
    os.write = os.pwrite = _fails


@hell(SABOTAGE, noisy=True)
def break_os_open(payload):
    os.open = builtins.open = _fails


@hell(SABOTAGE, noisy=True)
def break_os_rename(payload):
    os.rename = os.unlink = _fails


@hell(SABOTAGE, noisy=True)
def break_the_clock(payload):
    time.time = time.clock_gettime = lambda *_: 1 / 0


@hell(SABOTAGE, noisy=True)
def break_json(payload):
    json.loads = json.dumps = json.JSONEncoder.encode = _fails


@hell(SABOTAGE, noisy=True)
def break_the_stack(payload):
    frames, frame = 0, sys._getframe()
    while frame:
        frames, frame = frames + 1, frame.f_back
    sys.setrecursionlimit(frames + 3)


# --- async


@hell(completes())
async def block_the_loop(payload):
    time.sleep(0.3)


@hell(hangs(), timeout=LIMIT)
async def swallow_cancellation(payload):
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(FOREVER)


@hell(raises("RuntimeError: Event loop stopped") | only(completes(), "loop", "inner"))
async def stop_the_loop(payload):
    asyncio.get_event_loop().stop()
    await asyncio.sleep(0)


@hell(raises("RuntimeError"))
async def close_the_loop(payload):
    asyncio.get_event_loop().close()


@hell(beside(raises("asyncio.exceptions.CancelledError")))
async def cancel_all_tasks(payload):
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(0)


async def _numbers():
    try:
        yield 1
    finally:
        await asyncio.sleep(FOREVER)


@hell(raises(LATE) | only(completes(), "loop", "inner"), timeout=LIMIT)
async def leave_a_generator_that_never_closes(payload):
    numbers = _numbers()
    await numbers.asend(None)
    sys.kept = numbers


async def _never():
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(FOREVER)


@hell(raises(LATE) | only(completes(), "loop", "inner"), timeout=LIMIT)
async def leave_a_task_that_never_ends(payload):
    sys.kept = asyncio.create_task(_never())
    await asyncio.sleep(0)


async def _exit():
    sys.exit(6)


@hell(raises("SystemExit: 6") | only(completes(), "loop", "inner"), noisy=True)
async def leave_a_task_that_exits(payload):
    sys.kept = asyncio.create_task(_exit())
    await asyncio.sleep(0.05)


@hell(raises("SystemExit: 6") | only(completes(), "loop", "inner"), noisy=True)
async def leave_a_callback_that_exits(payload):
    asyncio.get_running_loop().call_soon(sys.exit, 6)
    await asyncio.sleep(0.05)


@hell(raises(LATE) | only(completes(), "loop", "inner"), timeout=LIMIT)
async def leave_a_thread_of_the_loop(payload):
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 2)


@hell(raises("RuntimeError"))
async def run_a_loop_in_the_loop(payload):
    coroutine = asyncio.sleep(0)
    try:
        asyncio.run(coroutine)
    finally:
        coroutine.close()


@hell(completes())
async def return_a_generator_that_is_never_read(payload):
    _numbers()


# --- at work

_folder = ""
_effects = -1
_own = None
_os = {name: getattr(os, name) for name in ("open", "write", "fstat", "close")}


def note(text):
    """Write down an effect where nobody's sabotage reaches it."""
    global _effects, _own
    try:
        there = _effects >= 0 and _identity() == _own
    except OSError:
        there = False
    if not there:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        opened = _os["open"](f"{_folder}/effects", flags)
        _effects = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 100)  # where nobody prints
        _os["close"](opened)
        _own = _identity()
    _os["write"](_effects, f"{text}\n".encode())


def _identity():
    st = _os["fstat"](_effects)
    return st.st_dev, st.st_ino


def good(payload):
    note(f"good {payload}")
    if hasattr(sys.stdout, "closed") and not sys.stdout.closed:
        with contextlib.suppress(OSError):
            print(f"good {payload}", flush=payload > 1)
    return payload


async def good_beside(payload):
    await asyncio.sleep(0.01)
    return good(payload)


def handlers_of(name, mode):
    handler = CASES[name].handler

    def bad(payload):
        note("bad")
        return handler(payload)

    async def bad_beside(payload):
        await asyncio.sleep(0.03)
        note("bad")
        result = handler(payload)
        return await result if hasattr(result, "__await__") else result

    if mode in LOOPS:
        return {"good": good_beside, "bad": bad_beside}
    return {"good": good, "bad": bad_beside if asyncio.iscoroutinefunction(handler) else bad}


def main(folder, name, mode):
    """Make one call of process_jobs; what a fork lets out of it is noted."""
    global _folder
    _folder = folder
    pid = os.getpid()
    dbbasic_queue.held.CUT_OFF = CUT_OFF
    queue = Queue("data/queue.tsv", lock_timeout=1, sync="off")
    print("begin")  # stays in the buffer: nobody may write it a second time
    try:
        queue.process_jobs(handlers_of(name, mode), memory=CASES[name].memory, **MODES[mode])
    finally:
        if os.getpid() != pid:
            note("escaped")
    print("end")
    if mode in POOLS:
        with contextlib.suppress(ChildProcessError):
            print("left behind", os.waitpid(-1, os.WNOHANG))


def serve():
    """For each line on stdin, `folder name mode`, fork a process, and say its pid and its end.

    Return what the line says in that process, None in the end.
    """
    while line := os.read(0, 4096).decode():
        pid = os.fork()
        if not pid:
            return become(*line.rstrip("\n").split("\t"))
        os.write(1, b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))
    return None


def become(folder, name, mode):
    """Be a process as a shell starts it: a session, a folder and three streams of its own."""
    os.setsid()
    os.chdir(folder)
    for fd, (path, flags) in enumerate(
        ((os.devnull, os.O_RDONLY), ("out", os.O_WRONLY), ("err", os.O_WRONLY))
    ):
        opened = os.open(path, flags | os.O_CREAT)
        os.dup2(opened, fd)
        os.close(opened)
    return folder, name, mode


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s %(message)s")
    if asked := serve():
        main(*asked)
