"""How much of the package the plain tests run: `python tests/covered.py`; coverage is in .[dev].

Child processes count.  Writes COVERAGE.md beside this file; fails where less than 97 % of the
lines and branches of the core is run.  A process that is killed takes its figures with it.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from coverage import Coverage
from test_layers import CORE, ROOT

LEAST = 97
PYTEST = ["-m", "coverage", "run", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
SLOW = "its times are too short for processes that are traced"
IN_A_CHILD = "in a forked child, of whose calls that began in its parent nothing is counted"
LEFT_OUT = {
    "tests/test_processes.py::"
    "test_p16_a_stopped_worker_finishes_its_job_and_gives_back_the_rest_uncharged": SLOW,
    "tests/test_speed.py::test_ten_thousand_jobs_are_run_within_a_second_and_in_few_rewrites": SLOW,
}
CAMPAIGN = "the fault campaign"  # python -m pytest --all
WHY = {
    "beside:make": "100 races lost in a row",
    "beside:dress_folder": "a umask of 777 stops nobody who is root",
    "claim:Look.claimable": "as `_Rows.at`",
    "claim:_Rows.at": "a change in place that leaves the last rows and the length as they were, "
    "while others add rows",
    "claim:Look._scan": "two limits in one block: an order, no behaviour",
    "disk:QueueFile._create": "the way out of `finally` while an error passes",
    "disk:QueueFile._keep_owner": "a second edit by the other user does not warn again",
    "edit:Edit.moves": "no turn of a worker removes rows; for the type checker",
    "files:copy_attributes": "an inherited attribute that is no access list",
    "files:copy_range": "a kernel that copies nothing",
    "files:sync": "macOS",
    "files:sync_path": "a folder above that is not ours to read; root may read all",
    "held:Held._mind_kill_requests": "a request that names an older claim",
    "held:Held.mind_the_time": "no room for the reason, in a process that ends itself",
    "hint:_take_tail": "a rename between a stat and an open",
    "hint:may_be_due": "a file deleted between two looks of an idle supervisor",
    "job:whole": "a number of a row has no exponent and at most 20 digits",
    "journal:WorkerFile.register": "a file made a moment ago is locked by somebody else",
    "journal:WorkerFile.cut": "in a worker that its test kills",
    "lock:Lock._still_there": "a link bent before the neighbour was opened",
    "lock:Lock._take": "a file deleted between its making and its opening",
    "lock:Lock._open": "a link that is put in the file's place between two calls",
    "lookup:_read": CAMPAIGN + ": fstat fails",
    "lookup:get": "a row that changes between two reads of it",
    "lookup:jobs": CAMPAIGN + ": fstat fails",
    "new:_check_type": "more than 1,000 types in one process",
    "run:Attempt.end": "a request for what is ending already",
    "run:Run._come_out": "a time-out that arrives after its handler's end",
    "run:Run._failed": CAMPAIGN + ": exceptions that raise when they are read, and so on",
    "run:Run._take_back": "the exception comes up before the loop, or in its first round",
    "run:Run.interrupt_when_due": "a handler that ended meanwhile",
    "run:Run.on_alarm": "an alarm that arrives after its handler's end",
    "run:_finished": "something awaitable that cannot be closed",
    "stop:Stop._on_signal": "a signal in the microseconds of a lock",
    "tsv:_encoder": "a Python whose json has not what CPython's has",
    "turn:Turns._follow": "a row that was copied by hand",
    "worker:Worker._edit": "a second outcome of a job during the edit of its first; relieved "
    "with listeners",
    "worker:Worker._relieve": "an edit fails while a slow job runs",
    "worker:Worker._watch": CAMPAIGN + ": a call of the watching thread fails",
    "worker:Worker.work": IN_A_CHILD,
    "worker:Worker.turn": "a claim left over by a turn that was cut off",
}


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)  # some children run as another user
        data = os.path.join(folder, "data")
        deselect = [f"--deselect={name}" for name in LEFT_OUT]
        environment = {**os.environ, "COVERAGE_FILE": data}
        tests = subprocess.run([sys.executable, *PYTEST, *deselect], cwd=ROOT, env=environment)
        found = figures(folder, data)
    core = percent(found[room] for room in CORE)
    text = "\n".join([*page(found, core), ""])
    print(text)
    Path(__file__).with_name("COVERAGE.md").write_text(text, encoding="utf-8")
    sys.exit(tests.returncode or (f"the core is below {LEAST} %" if core < LEAST else 0))


def figures(folder, data):
    """What was run of each module, by its name."""
    os.chdir(ROOT)
    both = Coverage(data_file=data, messages=False)
    both.combine([folder])  # warns of the files of killed processes
    report = os.path.join(folder, "report.json")
    both.json_report(outfile=report)
    with open(report, encoding="utf-8") as file:
        files = json.load(file)["files"]
    names = {name: name.partition("/")[2].removesuffix(".py") for name in files}
    return {room: files[name] for name, room in names.items() if name.startswith("dbbasic_queue/")}


def percent(files):
    sums = [one["summary"] for one in files]
    run = sum(one["covered_lines"] + one["covered_branches"] for one in sums)
    return 100 * run / sum(one["num_statements"] + one["num_branches"] for one in sums)


def page(found, core):
    others = [room for room in sorted(found) if room not in CORE]
    yield "# What the plain tests run"
    yield ""
    yield f"**{core:.1f} %** of the lines and branches of the core; at least {LEAST} % is asked."
    yield f"{percent(found[room] for room in others):.1f} % of the features and doors."
    yield ""
    yield f"`python tests/covered.py`, {time.strftime('%Y-%m-%d')}, Python"
    yield f"{platform.python_version()}, {platform.system()} {platform.release()},"
    yield f"{os.cpu_count()} cores.  Child processes count, but for those that are killed."
    yield ""
    for name, why in LEFT_OUT.items():
        yield f"Left out: `{name}`: {why}."
    for title, rooms in (("core", CORE), ("others", others)):
        yield ""
        yield f"| {title} | % | lines not run | branches not taken |"
        yield "|---|---|---|---|"
        for room in rooms:
            one = found[room]["summary"]
            whole = percent([found[room]])
            yield f"| {room} | {whole:.1f} | {one['missing_lines']} | {one['missing_branches']} |"
    yield ""
    yield "## What of the core is not run, and why"
    yield ""
    for room in CORE:
        for function, one in found[room]["functions"].items():
            lines = {*one["missing_lines"], *(line for line, _ in one["missing_branches"])}
            if lines:
                where = f"{room}:{function}"
                at = ", ".join(map(str, sorted(lines)))
                yield f"- `{where}` {at}: {WHY.get(where, '?')}"


if __name__ == "__main__":
    main()
