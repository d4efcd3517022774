"""Signed jobs: what runs, what is refused, and keys that change."""

import asyncio
import time
from pathlib import Path

import pytest

from dbbasic_queue import Discard, Queue, sign
from dbbasic_queue.chain import enqueue_chain, previous_result
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.keys import Keys

OLD, NEW = sign.new_key(), sign.new_key()
ORDER = {"to": "Zürich", "cents": 4200, "of": [1.0, -0.0, None, "\x85"]}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("DBBASIC_QUEUE_KEY", OLD)


@pytest.fixture
def queue(tmp_path):
    return Queue("data/queue.tsv", sync="off")  # the default one of this folder


@pytest.fixture
def run(queue):
    def run(handler=lambda payload: payload, layer=None, **given):
        handlers = handler if isinstance(handler, dict) else {"pay": handler}
        queue.process_jobs(handlers, middleware=[layer or sign.verifying()], **given)

    return run


@pytest.fixture
def refused(queue, run):
    """Run what is due; return why that job was not run, with its payload as it was before."""

    def refused(id, layer=None):
        payload = queue.get(id).cells[2]
        run(broken, layer)
        job = queue.get(id)
        assert (job.status, job.cells[2]) == ("failed", payload)
        return job.error

    return refused


def broken(payload):
    raise AssertionError("it ran")


def vi(old, new):
    """Change a text in the file as an editor does: whole, by another file's name."""
    path = Path("data/queue.tsv")
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.with_suffix(".swp").write_text(text.replace(old, new, 1), encoding="utf-8")
    path.with_suffix(".swp").rename(path)


def test_a_signed_job_is_plain_to_read_and_runs(queue, run):
    id = sign.enqueue_signed("pay", ORDER, queue="night", priority=2)

    row = Path("data/queue.tsv").read_text(encoding="utf-8")
    run()

    assert "Zürich" in row
    assert queue.get(id).result == ORDER
    assert queue.get(id).cell("signature").startswith(Keys(OLD).first.name + " ")
    assert ":" not in queue.get(id).cell("signature")


@pytest.mark.parametrize("payload", [None, 0, "", [], {}, "\ud800", 1e300, {"b": 1, "a": 2}])
def test_any_payload_is_signed(queue, run, payload):
    id = sign.enqueue_signed("pay", payload)

    run()

    assert queue.get(id).status == "completed"


def test_spaces_and_the_order_of_names_may_change(queue, run):
    id = sign.enqueue_signed("pay", {"to": "Ana", "cents": 42})

    vi('{"to": "Ana", "cents": 42}', '{ "cents":42,  "to":"\\u0041na"}')
    run()

    assert queue.get(id).status == "completed"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("4200", "420000"),
        ("4200", '"4200"'),
        ("4200", "4200.0"),
        ("1.0", "1"),
        ("null", "NaN"),
        ("\tpay\t", "\tpays\t"),
        (" signed ", " signed "),
    ],
)
def test_a_change_in_the_file_is_refused(queue, run, refused, old, new):
    id = sign.enqueue_signed("pay", ORDER)
    layer = sign.verifying()
    if old == " signed ":
        old = queue.get(id).cell("signature")
        new = old[:-1] + ("0" if old[-1] != "0" else "1")

    vi(old, new)
    queue.process_jobs({"pay": broken, "pays": broken}, middleware=[layer])

    assert queue.get(id).status == "failed"
    assert queue.get(id).error.startswith("its signature does not fit")


def test_after_the_repair_a_retry_runs_it(queue, run, refused):
    id = sign.enqueue_signed("pay", ORDER)
    vi("4200", "9900")
    refused(id)

    vi("9900", "4200")
    queue.retry(id)
    run()

    assert queue.get(id).status == "completed"


def test_a_missing_signature_is_refused(queue, refused):
    id = queue.enqueue("pay", ORDER)

    assert refused(id) == "it has no signature, and here only signed jobs run"


def test_a_signature_that_was_removed_is_refused(queue, refused):
    id = sign.enqueue_signed("pay", ORDER)

    vi(queue.get(id).cell("signature"), "")

    assert "no signature" in refused(id)


@pytest.mark.parametrize("junk", ["x", "é é", " ", "00000000 aa"])
def test_junk_in_the_column_runs_nothing(queue, run, junk):
    id = sign.enqueue_signed("pay", ORDER)

    vi(queue.get(id).cell("signature"), junk)
    run(broken)

    assert queue.get(id).status in ("pending", "failed")
    assert "it ran" not in queue.get(id).error


def test_a_row_copied_under_another_id_is_refused(queue, run, refused):
    id = sign.enqueue_signed("pay", ORDER)
    signed = queue.get(id).cell("signature")

    copy = queue.enqueue("pay", ORDER, columns={"signature": signed})

    run(lambda payload: payload)
    assert queue.get(id).status == "completed"
    assert "copied under another id" in queue.get(copy).error


def test_a_copy_of_a_signed_job_is_refused_and_a_retry_is_not(queue, run):
    id = sign.enqueue_signed("pay", ORDER)

    def fails(payload):
        raise Discard("no")

    run(fails)
    [copy] = queue.retry(id, copy=True)
    queue.retry(id)
    run()

    assert queue.get(id).status == "completed"
    assert queue.get(copy).status == "failed"


def test_a_row_put_there_once_more_is_refused(queue, run):
    id = sign.enqueue_signed("pay", ORDER)
    row = Path("data/queue.tsv").read_text(encoding="utf-8").splitlines()[1]
    run()
    with open("data/queue.tsv", "a", encoding="utf-8") as file:
        file.write(row + "\n")

    run(broken)

    text = Path("data/queue.tsv").read_text(encoding="utf-8")
    assert [line.split("\t")[3] for line in text.splitlines()[1:]] == ["completed", "failed"]
    assert f"{id}" in text and "another row has its id" in text


def test_the_words_are_framed_so_that_none_moves_into_another():
    one, two = (
        sign.sign(type, payload, id="660d5a9362998c69")["columns"]["signature"]
        for type, payload in (("pay", 11), ("pay1", 1))
    )

    assert one != two


def test_a_missing_key_leaves_the_job_and_says_which(queue, run, monkeypatch):
    id = sign.enqueue_signed("pay", ORDER)
    monkeypatch.setenv("DBBASIC_QUEUE_KEY", NEW)

    run(broken)

    job = queue.get(id)
    assert (job.status, job.attempts) == ("pending", 0)
    assert job.error == f"it is signed with the key '{Keys(OLD).first.name}', which is not here"
    assert job.run_at > time.time() + 30


def test_old_keys_still_verify(queue, run):
    id = sign.enqueue_signed("pay", ORDER)

    run(layer=sign.verifying([NEW, OLD]))

    assert queue.get(id).status == "completed"


def test_without_a_key_nothing_is_signed(queue, monkeypatch):
    monkeypatch.delenv("DBBASIC_QUEUE_KEY")

    with pytest.raises(BadArgument, match="there is no key"):
        sign.enqueue_signed("pay", 1)


def test_not_all_need_to_be_signed(queue, run):
    plain = queue.enqueue("pay", 1)
    changed = sign.enqueue_signed("pay", {"cents": 42})
    vi('{"cents": 42}', '{"cents": 99}')

    run(layer=sign.verifying(all=False))

    assert [queue.get(id).status for id in (plain, changed)] == ["completed", "failed"]


def test_some_types_may_go_without(queue, run):
    plain, other = queue.enqueue("tidy"), queue.enqueue("pay")

    run({"pay": broken, "tidy": str}, sign.verifying(besides=["tidy"]))

    assert [queue.get(id).status for id in (plain, other)] == ["completed", "failed"]


def test_handlers_beside_each_other_are_verified(queue, run):
    ids = [sign.enqueue_signed("pay", {"n": n}) for n in range(4)]
    vi('{"n": 3}', '{"n": 4}')

    async def handler(payload):
        await asyncio.sleep(0)
        return payload["n"]

    run(handler, concurrency=4)

    assert [queue.get(id).result for id in ids] == [0, 1, 2, None]


def test_the_steps_of_a_chain_are_signed(queue, run):
    chain = enqueue_chain([sign.sign("pay", 1), sign.sign("pay", 2)])
    seen = []

    run(lambda payload: seen.append(previous_result()) if payload == 2 else payload)

    assert seen == [1]
    assert next(chain.jobs()).status == "completed"


def test_what_signs_is_not_the_key_itself():
    key = Keys(OLD).first

    purposes = {key.derived(one) for one in ("signing", "fingerprint", "unique")}

    assert len(purposes) == 3
    assert OLD.encode() not in purposes
