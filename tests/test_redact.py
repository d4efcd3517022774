"""Sensitive fields: what every view, export and log line leaves out, and where they stay."""

import asyncio
import csv
import io
import json
import logging
import os
import re
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import pytest

from dbbasic_queue import Discard, Queue, Retry, Snooze, cli, redact
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.export import read, spreadsheet_row
from dbbasic_queue.show import document, page, row

ROOT = Path(__file__).resolve().parent.parent
SECRET = 'tulip-4711"ü\\x'
CARD = 4111222233334444
HANDLERS = """
def mail(payload):
    try:
        raise KeyError(payload["password"])
    except KeyError:
        raise ValueError(f"no {payload['password']!r} in {payload}")

def echo(payload):
    return {"password": payload["password"], "again": [payload["password"], payload["n"]]}

ALL = {"mail": mail, "echo": echo}
"""


@pytest.fixture
def queue(tmp_path):
    return Queue("data/queue.tsv", sync="off")  # the default one of this folder


def job_of(queue, payload, *names, **columns):
    more = redact.sensitive(*names) if names else {}
    id = queue.enqueue("mail", payload, columns={**more})
    if columns:
        with queue.edit() as e:
            e.change(e.get(id), **columns)
    return queue.get(id)


def seen(job):
    """Everything that any view tells of a job."""
    header = job.header
    views = [document(job), page(job, 0), row(job, 0), spreadsheet_row(job, header)]
    return json.dumps(views, ensure_ascii=False)


# Which fields


@pytest.mark.parametrize(
    ("names", "payload", "shown"),
    [
        (["password"], {"password": SECRET, "to": "Ana"}, {"password": "***", "to": "Ana"}),
        (["password"], {"a": [{"password": 5}]}, {"a": [{"password": "***"}]}),
        (["password"], {"PassWord": SECRET}, {"PassWord": "***"}),
        (["Password"], {"password": None}, {"password": "***"}),
        (["password"], {"passwords": "some"}, {"passwords": "some"}),
        (["card"], {"card": {"number": CARD, "of": "Ana"}}, {"card": "***"}),
        (
            ["card.number"],
            {"card": {"number": CARD, "of": "Ana"}, "number": 7},
            {"card": {"number": "***", "of": "Ana"}, "number": 7},
        ),
        (
            ["card.number"],
            {"in": {"card": [{"number": CARD}, {"number": 5}]}},
            {"in": {"card": [{"number": "***"}, {"number": "***"}]}},
        ),
        (["args.1"], {"args": ["a", SECRET], "kwargs": {}}, {"args": ["a", "***"], "kwargs": {}}),
        (["password"], [{"password": SECRET}], [{"password": "***"}]),
        (["password"], {"body": json.dumps({"password": SECRET})}, {"body": '{"password": "***"}'}),
        (
            ["password"],
            {"password": SECRET, "url": f"https://x/?p={SECRET}&to=7"},
            {"password": "***", "url": "https://x/?p=***&to=7"},
        ),
        (["pin"], {"pin": 42, "n": [42, 142, "is 42"]}, {"pin": "***", "n": ["***", 142, "***"]}),
        (["ok"], {"ok": True, "b": True}, {"ok": "***", "b": True}),
        (["password"], "plain", "plain"),
        (["password"], None, None),
    ],
)
def test_a_name_means_a_field_at_any_depth(queue, names, payload, shown):
    job = job_of(queue, payload, *names)

    assert redact.redacted(job).payload == shown
    assert queue.get(job.id).payload == payload


@pytest.mark.parametrize("name", ["", "a b", "a,b", "a:b", "a..b", ".a", "x" * 201, None])
def test_a_bad_name_is_refused(name):
    with pytest.raises(BadArgument):
        redact.sensitive(name)
    with pytest.raises(BadArgument):
        redact.sensitive()


def test_names_for_every_job_come_from_the_environment(queue, monkeypatch):
    job = job_of(queue, {"password": SECRET, "token": "some other text", "to": "Ana"})
    before = redact.redacted(job)

    monkeypatch.setenv("DBBASIC_QUEUE_REDACT", "password, token")

    assert before is job
    assert redact.redacted(job).payload == {"password": "***", "token": "***", "to": "Ana"}


def test_without_names_a_job_is_shown_as_it_is(queue):
    job = job_of(queue, {"password": SECRET}, error=SECRET)

    assert document(job)["payload"] == {"password": SECRET}
    assert document(job)["error"] == SECRET


# What else quotes them


@pytest.mark.parametrize(
    "said",
    [
        SECRET,
        repr(SECRET),
        json.dumps(SECRET),
        SECRET.upper(),
        f"{{'password': {SECRET!r}}}"[:25],
        SECRET[:6],
        "x" * 50 + SECRET[:4],
        "tulip-4711%22%C3%BC%5Cx",
        json.dumps({"sent": {"pass": SECRET}}),
    ],
)
def test_an_error_that_quotes_the_value_shows_stars(queue, said):
    job = job_of(queue, {"password": SECRET}, "password", error=f"bad {said}", steps=f"[{said}")

    text = redact.redacted(job).error
    assert text.startswith("bad ")
    assert not re.search(r"tul|lip-|ip-4|-4711", seen(job), re.IGNORECASE)


@pytest.mark.parametrize(
    "written", [ascii, json.dumps, urllib.parse.quote, urllib.parse.quote_plus]
)
def test_a_value_is_known_however_it_is_written(queue, written):
    job = job_of(queue, {"password": "ÄÖÜ äöü"}, "password", error=f"no {written('ÄÖÜ äöü')}")

    assert redact.redacted(job).error.replace('"', "").replace("'", "") == "no ***"


def test_what_stands_before_and_after_is_kept(queue):
    job = job_of(queue, {"password": SECRET}, "password", error=f"login {SECRET} is wrong (3)")

    assert redact.redacted(job).error == "login *** is wrong (3)"


def test_stars_do_not_tell_how_long_a_value_is(queue):
    errors = set()
    for secret in ("tulip", "tulip" * 20, "a b c d e f g h"):
        job = job_of(queue, {"password": secret}, "password", error=f"login {secret} no")
        errors.add(redact.redacted(job).error)
        assert redact.redacted(job).payload == {"password": "***"}

    assert errors == {"login *** no"}


def test_a_short_value_hides_the_whole_text_that_has_it(queue):
    job = job_of(queue, {"pin": "42"}, "pin", error="pin 42 is wrong")
    other = job_of(queue, {"pin": "42"}, "pin", error="at 1422 m")

    assert redact.redacted(job).error == "***"
    assert redact.redacted(other).error == "at 1422 m"


def test_the_result_hides_its_fields_and_the_values_of_the_payload(queue):
    job = job_of(
        queue, {"card": {"number": CARD}}, "card.number", "token",
        result={"token": "of the result", "charged": CARD, "note": f"card {CARD}"},
        error="of the result",
    )  # fmt: skip

    shown = redact.redacted(job)
    assert shown.result == {"token": "***", "charged": "***", "note": "card ***"}
    assert shown.error == "***"


def test_columns_of_features_hide_them_too(queue):
    steps = json.dumps({"charge": {"token": SECRET}, "note": f"by {CARD}"})
    job = job_of(queue, {"card": CARD}, "token", "card", steps=steps, progress=f"50 {SECRET}")

    assert json.loads(redact.redacted(job).cell("steps")) == {
        "charge": {"token": "***"},
        "note": "by ***",
    }
    assert redact.redacted(job).cell("progress") == "50 ***"


def test_a_payload_that_is_not_json_is_hidden_whole_and_so_are_the_texts(queue):
    job = job_of(queue, {"password": SECRET}, "password", error="some words")
    path = Path("data/queue.tsv")
    path.write_text(path.read_text().replace('{"password"', '{password"'))

    shown = redact.redacted(queue.get(job.id))
    assert (shown.payload, shown.error) == ("***", "***")
    assert "tulip" not in seen(queue.get(job.id))


def test_a_very_long_value_hides_whole_texts(queue):
    job = job_of(queue, {"key": "k1" * 100_000}, "key", error="some k1k1k1 words")

    began = time.perf_counter()
    shown = redact.redacted(job)

    assert (shown.payload, shown.error) == ({"***": "***"}, "***")
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("cell", ['{"password": NaN}', '{"a": NaN, "password": 1}', '"x', "{}"])
def test_odd_cells_break_no_view(queue, cell):
    job = job_of(queue, {}, "password", error="x")
    path = Path("data/queue.tsv")
    path.write_text(path.read_text().replace("\t{}\t", f"\t{cell}\t"))

    assert seen(queue.get(job.id))


def test_a_spreadsheet_has_stars_and_the_plain_one_has_not(queue):
    job_of(queue, {"password": SECRET}, "password", error=SECRET)
    header, jobs = read(queue)
    [job] = jobs

    assert "tulip" not in str(spreadsheet_row(job, header))
    assert "tulip" in str(spreadsheet_row(job, header, plain=True))


# Logs


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (ValueError(SECRET), "pending"),
        (Retry(SECRET), "pending"),
        (Snooze(50, SECRET), "pending"),
        (Discard(SECRET), "failed"),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 2])
def test_what_a_handler_raises_is_logged_and_stored_without_it(
    queue, caplog, failure, status, concurrency
):
    caplog.set_level(logging.DEBUG)
    job = job_of(queue, {"password": SECRET}, "password")

    def handler(payload):
        try:
            raise KeyError(SECRET)
        except KeyError:
            raise failure  # noqa: B904

    async def waits(payload):
        await asyncio.sleep(0)
        return handler(payload)

    queue.process_jobs(
        {"mail": handler if concurrency == 1 else waits},
        middleware=[redact.redacting], concurrency=concurrency,
    )  # fmt: skip

    assert queue.get(job.id).status == status
    assert "***" in queue.get(job.id).error
    assert "tulip" not in caplog.text + queue.get(job.id).error


def test_an_exception_that_quotes_nothing_is_left_as_it_is(queue):
    job = job_of(queue, {"password": SECRET}, "password")

    def handler(payload):
        raise OSError("no disk")

    queue.process_jobs({"mail": handler}, middleware=[redact.redacting])

    assert queue.get(job.id).error == "OSError: no disk"


# The whole command line

COMMANDS = [
    "list", "list --json", "list --id {mail} {echo}", "list --newest", "show {mail}",
    "show {mail} --json", "show {echo}", "show {echo} --json", "show {bad}", "show {bad} --json",
    "export", "export --format tsv", "export --format json", "export --format jsonl --archived",
    "export --json", "stats", "stats --json", "workers", "doctor", "doctor --json",
    "doctor", "run {again} handlers:ALL", "run {ok} handlers:ALL", "run {ok2} handlers:ALL --json",
    "history {mail}", "history {mail} --json", "tail {mail}", "wait {mail}",
    "watch --since 1h --timeout 0.1 --json", "watch --since 1h --timeout 0.1",
    "run {again2} handlers:ALL --json -v",
    "work handlers:ALL -v", "work handlers:ALL --json", "edit {mail}", "edit --json {mail}",
    "schedule list --json", "retry {mail}", "cancel {later}", "kill {later}", "archive "
    "--older-than 0", "backup copy.tsv", "show {echo}", "export --archived", "doctor --mend",
    "purge --all --yes", "reseal", "list",
]  # fmt: skip


@pytest.fixture
def shop(queue, monkeypatch):
    """A queue that holds the secret in every way; ids by name."""
    Path("handlers.py").write_text(HANDLERS)
    # What an editor leaves cannot be applied, so both versions of its cells are told.
    Path("spoil").write_text(
        "#!/bin/sh\nsed -i 's/tulip/tulip-tulip/' \"$1\"\n"
        "sed -i 's/tulip/tulip-rose/' data/queue.tsv\n"
    )
    os.chmod("spoil", 0o700)
    monkeypatch.setenv("VISUAL", "./spoil")
    monkeypatch.setenv("DBBASIC_QUEUE_KEY", "A" * 43 + "=")
    hidden = redact.sensitive("password")
    names = "mail echo bad again again2 ok ok2 later left left2".split()
    ids = {}
    for n, name in enumerate(names):
        kind = "echo" if name[:2] in ("ec", "ok") else "mail"
        ids[name] = queue.enqueue(kind, {"password": SECRET, "n": n}, columns=hidden,
                                  run_at=time.time() + 9 ** 4 * (name == "later"))  # fmt: skip
    queue.process_jobs(
        {"mail": lambda payload: 1 / 0, "echo": lambda payload: payload},
        admit=[lambda job, count: job.id in (ids["mail"], ids["echo"]) and None],
        max_attempts=1,
    )
    with queue.edit() as e:
        e.change(e.get(ids["mail"]), error=f"ValueError: {SECRET}", steps=json.dumps([SECRET]))
    path = Path("data/queue.tsv")
    lines = path.read_text().splitlines(keepends=True)
    lines = [line.replace('{"password"', '{password"') if line.startswith(ids["bad"]) else line
             for line in lines]  # fmt: skip
    bad = [f"660d5a9362998c69\tmail\t{SECRET}\t{status}\t1\n" for status in (SECRET, "pending")]
    path.write_text("".join([*lines, *bad]))
    return ids


def clean(words, out, err):
    for text in (out, err):
        assert "tulip" not in text, (words, text)
        assert "-4711" not in text, (words, text)


@pytest.mark.soak
def test_p37_no_command_tells_a_sensitive_value(shop, capfd, monkeypatch):
    monkeypatch.syspath_prepend(os.getcwd())
    logging.getLogger("dbbasic_queue").addHandler(handler := logging.NullHandler())
    for words in COMMANDS:
        status = cli.main(words.format(**shop).split())

        out, err = capfd.readouterr()
        assert status in (0, 1, 2)
        assert "Traceback (most recent call last):\n  File" not in err, (words, err)
        clean(words, out, err)
    logging.getLogger("dbbasic_queue").removeHandler(handler)
    sys.modules.pop("handlers", None)


@pytest.mark.soak
def test_p37_no_command_tells_it_as_a_process_of_its_own(shop):
    words_of = [sys.executable, "-m", "dbbasic_queue"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for words in COMMANDS:
        done = subprocess.run(
            [*words_of, *words.format(**shop).split()], capture_output=True, text=True, env=env
        )

        clean(words, done.stdout, done.stderr)


def test_plain_shows_it_when_it_is_asked_for(shop, capsys):
    answers = []
    for words in ("show {echo} --plain", "show {echo} --plain --json", "export --plain"):
        cli.main(words.format(**shop).split())
        answers.append(capsys.readouterr().out)

    assert all("tulip-4711" in answer for answer in answers)


def test_an_export_is_still_a_table(shop, capsys):
    cli.main(["export"])

    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))

    assert len(rows) == 10
    assert json.loads(rows[0]["payload"]) == {"password": "***", "n": 0}
    assert rows[0]["sensitive"] == "password"


def test_the_editor_gets_the_values_themselves_so_that_no_stars_come_back(queue, monkeypatch):
    job = job_of(queue, {"password": SECRET, "to": "Ana"}, "password")
    monkeypatch.setenv("VISUAL", "sed -i s/Ana/Zoe/")

    assert cli.main(["edit", job.id]) == 0

    assert queue.get(job.id).payload == {"password": SECRET, "to": "Zoe"}


# Sealed too


def test_an_opened_job_still_hides_its_sensitive_fields(queue, monkeypatch, capsys):
    pytest.importorskip("cryptography")
    from dbbasic_queue import crypt

    monkeypatch.setenv("DBBASIC_QUEUE_KEY", crypt.new_key())
    payload = {"password": SECRET, "to": "Ana"}
    id = crypt.enqueue_sealed("mail", payload, columns=redact.sensitive("password"))
    answers = []

    for words in ("show", "show --unseal", "show --unseal --plain"):
        cli.main([*words.split(), id])
        answers.append(capsys.readouterr().out)

    assert ["Ana" in answer for answer in answers] == [False, True, True]
    assert ["tulip" in answer for answer in answers] == [False, False, True]
