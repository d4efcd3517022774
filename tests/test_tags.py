"""Tags: words that jobs carry, to find them by."""

import pytest

from dbbasic_queue import current_job
from dbbasic_queue.cli import main
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.expiry import expires
from dbbasic_queue.tags import tagged, tags, tags_of


def test_tags_are_words_in_one_cell_each_once():
    assert tags("red", "big", "red") == {"tags": "red big"}
    assert tags() == {}


@pytest.mark.parametrize("word", ["", "two words", "a:b", "tab\t", None, 3, "failed", "x" * 101])
def test_what_is_no_tag_is_an_error_that_names_it(word):
    with pytest.raises(BadArgument, match="is no tag"):
        tags("red", word)
    with pytest.raises(BadArgument, match="is no tag"):
        tagged(word)


def test_jobs_are_found_by_whole_words_and_status(queue):
    red, both, other = (
        queue.enqueue("red", "red", columns={**tags(*words), **expires(60)})
        for words in (["red"], ["big", "red"], ["redder", "big"])
    )
    queue.enqueue("red", "red big")
    queue.cancel(both)

    assert [job.id for job in tagged("red", queue_file=queue)] == [red, both]
    assert [job.id for job in tagged("red", queue_file=queue, status="cancelled")] == [both]
    assert [job.id for job in tagged("redder", queue_file=queue)] == [other]
    assert list(tagged("blue", queue_file=queue)) == []
    assert tags_of(queue.get(both)) == ("big", "red")


def test_a_status_that_there_is_not_is_an_error_at_once(queue):
    with pytest.raises(BadArgument, match="status='done'"):
        tagged("red", queue_file=queue, status="done")


def test_the_tags_of_a_running_job_are_found_and_the_default_queue_is_the_workers(queue):
    queue.enqueue("t", columns=tags("red"))
    seen = []

    queue.process_jobs({"t": lambda p: seen.extend((j.status, j.id) for j in tagged("red"))})

    assert seen[0][0] == "processing"
    assert tags_of(queue.get(seen[0][1])) == ("red",)


def test_a_handler_sees_its_tags(queue):
    id = queue.enqueue("t", columns=tags("red"))

    queue.process_jobs({"t": lambda payload: tags_of(current_job())})

    assert queue.get(id).result == ["red"]


def test_the_shell_lists_retries_and_deletes_by_tag(queue, capsys):
    red = queue.enqueue("t", columns=tags("red"))
    blue = queue.enqueue("t", columns=tags("blue"))
    queue.process_jobs({"t": lambda payload: 1 / 0}, 1)

    def says(*words):
        status = main([*words, "--tag", "red", "--file", queue.path])
        return status, capsys.readouterr().out

    listed, exported, retried = says("list"), says("export"), says("retry")
    assert (listed[0], red in listed[1], blue in listed[1]) == (0, True, False)
    assert (exported[0], red in exported[1], blue in exported[1]) == (0, True, False)
    assert retried == (0, f"{red}\n")
    assert main(["retry", "--tag", "", "--file", queue.path]) == 1
    queue.cancel(red)
    assert says("purge", "--yes")[0] == 0
    assert [job.id for job in queue.jobs()] == [blue]
