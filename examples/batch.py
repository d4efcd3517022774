"""Many jobs with a common end: thumbnails of ten pictures, of which one may go wrong.

What follows are jobs too: `then` when no more than that has failed, `catch` as soon as more have,
`finally_` at the end in any case. The last part is a graph: tests, a build, and a release of both.
"""

from dbbasic_queue import process_jobs
from dbbasic_queue.batch import (
    append,
    enqueue_batch,
    enqueue_workflow,
    failed_jobs,
    get_batch,
    results,
)


def thumbnail(payload: dict) -> str:
    if payload["name"] == "broken.png":
        raise ValueError("no picture")
    return payload["name"].replace(".png", ".small.png")


def gallery(payload: None) -> str:
    without = [job.payload["name"] for job in failed_jobs()]
    return f"{len(list(results()))} pictures, without {without}"


def step(payload: str) -> None:
    print("runs", payload)


HANDLERS = {"thumbnail": thumbnail, "gallery": gallery, "tidy": print, "step": step}

if __name__ == "__main__":
    names = [f"{number}.png" for number in range(9)] + ["broken.png"]
    batch = enqueue_batch(
        [("thumbnail", {"name": name}) for name in names],
        name="pictures of Ana",
        allow_failures=1,
        then=("gallery",),
        finally_=("tidy", "tidied up"),
    )
    process_jobs(HANDLERS, max_jobs=4, max_attempts=1)
    now = get_batch(batch.id)
    print(f"{now.name}: {now.progress} %, {now.pending} pending")
    append(batch.id, [("thumbnail", {"name": "late.png"})])
    process_jobs(HANDLERS, max_attempts=1)
    now = get_batch(batch.id)
    print(f"{now.name}: {now.progress} %, {now.completed} completed, {now.failed} failed")

    jobs = {name: ("step", name) for name in ("release", "test", "build", "checkout")}
    release = enqueue_workflow(
        jobs,
        {"release": ["test", "build"], "test": ["checkout"], "build": ["checkout"]},
        name="release",
    )
    process_jobs(HANDLERS)
    print("released" if get_batch(release.id).ok else "not released")
