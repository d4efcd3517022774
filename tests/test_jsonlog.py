"""Log lines for programs: each is one JSON object, whatever is logged."""

import json
import logging
import re
import sys
from datetime import datetime, timezone

import pytest

from dbbasic_queue.cli import main
from dbbasic_queue.jsonlog import JSONFormatter
from dbbasic_queue.redact import redacting, sensitive


class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.setFormatter(JSONFormatter())
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))

    def found(self):
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def log():
    logger = logging.Logger("shop")
    logger.lines = Lines()
    logger.addHandler(logger.lines)
    return logger


class Odd:
    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __repr__


def test_a_line_has_time_level_logger_and_message(log):
    before = datetime.now(timezone.utc)

    log.warning("sent %d of %s", 3, "ü")

    [line] = log.lines.found()
    assert line.keys() == {"time", "level", "logger", "message"}
    assert (line["level"], line["logger"], line["message"]) == ("WARNING", "shop", "sent 3 of ü")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    at = datetime.fromisoformat(line["time"][:-1] + "+00:00")
    assert abs((at - before).total_seconds()) < 5


def test_a_line_names_the_job_that_runs(log, queue):
    id = queue.enqueue("mail", queue="high")

    queue.process_jobs({"mail": lambda payload: log.info("inside")})
    log.info("outside")

    inside, outside = log.lines.found()
    assert inside["job"] == {"id": id, "type": "mail", "queue": "high", "attempt": 1}
    assert "job" not in outside


def test_an_exception_is_text_and_what_extra_brings_stands_beside(log):
    try:
        raise ValueError("boom\nbang")
    except ValueError:
        log.exception("failed", extra={"order": 7, "parts": [1, None, {"a": 0.5}], "of": {1}})

    [line] = log.lines.found()
    assert line["exc"].startswith("Traceback") and line["exc"].endswith("ValueError: boom\nbang")
    assert (line["order"], line["parts"], line["of"]) == (7, [1, None, {"a": 0.5}], "{1}")


HOSTILE = [
    ("a\nb\r\x00\x1b[31m\x7f\x85\u2028\udcff", ()),
    ("%d", ("no number",)),
    ("%s %s", ("one",)),
    ("100%", ("x",)),
    ("%s", (Odd(),)),
    (Odd(), ()),
    (b"\xff", ()),
    ({"a": 1}, ()),
    ("%(a)s", ({"a": float("nan")},)),
]


@pytest.mark.parametrize(("message", "arguments"), HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_makes_it_raise_or_end_the_line(log, message, arguments):
    deep = []
    deep.append(deep)
    more = {"odd": Odd(), "deep": deep, "nan": float("nan"), "big": 10**5000, "keys": {Odd(): 1}}

    log.error(message, *arguments, extra=more, stack_info=True)

    [line] = log.lines.lines
    assert re.fullmatch(r"[ -~]+", line)
    assert json.loads(line)["message"]
    assert more.keys() <= json.loads(line).keys()
    assert not re.search(r"\b(NaN|Infinity)\b(?!\")", line.replace('"nan"', ""))


def test_a_record_of_odd_parts_is_a_line_too(log):
    class Items(dict):
        def items(self):
            raise RuntimeError("no")

    made = {"msg": "x", "created": float("inf"), "levelname": 5, "name": None, "more": Items()}

    log.lines.emit(logging.makeLogRecord(made))
    log.lines.emit(logging.makeLogRecord({"msg": "x", "exc_info": (ValueError, Odd(), None)}))
    log.lines.emit(logging.makeLogRecord({"msg": "x", "exc_text": "told"}))

    odd, failed, told = log.lines.found()
    assert (odd["time"], odd["message"]) == ("inf", "(cannot be said: RuntimeError)")
    assert "exc" in failed
    assert told["exc"] == "told"


def test_what_is_sensitive_is_not_logged_while_its_job_runs(log, queue):
    queue.enqueue("mail", {"password": "hunter22", "n": 1}, columns=sensitive("password"))

    def handler(payload):
        try:
            raise ValueError(f"bad {payload['password']}")
        except ValueError:
            log.exception("for %s", payload, extra={"given": payload, "of": {"hunter22": 5}})

    queue.process_jobs({"mail": handler})

    [line] = log.lines.lines
    assert "hunter22" not in line
    assert json.loads(line)["given"] == {"password": "***", "n": 1}
    assert json.loads(line)["job"]["type"] == "mail"


def test_the_shells_work_logs_documents(queue, run_python, tmp_path):
    (tmp_path / "shop.py").write_text(
        "import logging\n"
        "def mail(payload):\n"
        "    logging.getLogger('shop').warning('for %s', payload['to'])\n"
        "    raise ValueError('boom')\n"
        "handlers = {'mail': mail}\n"
    )
    id = queue.enqueue("mail", {"to": "ana\n"}, max_attempts=1)

    child = run_python(
        f"""
        import sys
        from dbbasic_queue.cli import main
        sys.exit(main(["--file", {queue.path!r}, "work", "shop:handlers", "--log-json", "-v"]))
        """,
        stderr=-1,
    )
    _, printed = child.communicate(timeout=30)

    lines = [json.loads(line) for line in printed.splitlines()]
    assert child.returncode == 0
    assert [line["message"] for line in lines if line["logger"] == "shop"] == ["for ana\n"]
    assert {line["job"]["id"] for line in lines if "job" in line} == {id}
    [error] = [line for line in lines if line["level"] == "ERROR"]
    assert "ValueError: boom" in error["message"]


def test_handlers_that_cannot_be_imported_are_told_of_in_json_too(queue, tmp_path, capsys):
    (tmp_path / "torn.py").write_text("1 // 0\n")
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        status = main(["--file", queue.path, "work", "torn:handlers", "--log-json"])
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        sys.path[:] = [place for place in sys.path if place != str(tmp_path)]

    first, *_ = capsys.readouterr().err.splitlines()
    assert status == 2
    assert json.loads(first)["exc"].endswith("integer division or modulo by zero")


def test_the_layer_that_hides_what_is_raised_and_this_go_together(log, queue, caplog):
    caplog.handler.setFormatter(JSONFormatter())
    job = queue.enqueue("mail", {"pin": "987654"}, columns=sensitive("pin"), max_attempts=1)

    def handler(payload):
        raise ValueError(f"no {payload['pin']}")

    queue.process_jobs({"mail": handler}, middleware=[redacting])

    assert "987654" not in caplog.text
    assert job in caplog.text
