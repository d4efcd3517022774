"""How long each page of the dashboard takes, and the poll: 100,000 rows and a worker that runs.

python tests/benchmarks/dashboard.py [ROWS]
"""

import io
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dbbasic_queue import Queue
from dbbasic_queue.web import dashboard

WORKER = """
import sys, time
from dbbasic_queue import Queue
queue = Queue(sys.argv[1])
queue.process_jobs({"slow": lambda payload: time.sleep(0.3)}, run_for=60, name="live")
"""


def filled(path, rows):
    """Return a queue of jobs, nine of ten of which have finished."""
    queue = Queue(path, sync="off")
    queue.enqueue_many((("mail", "report", "import")[n % 3], {"n": n}) for n in range(rows))
    head, *lines = Path(path).read_bytes().split(b"\n")
    at = {name: place for place, name in enumerate(head.decode().split("\t"))}
    now = time.time()
    for n, line in enumerate(lines[:-1]):
        if n % 10:
            cells = line.split(b"\t")
            cells[at["status"]] = b"completed" if n % 7 else b"failed"
            cells[at["error"]] = b"" if n % 7 else b"ValueError: no"
            cells[at["started_at"]] = b"%.3f" % (now - n % 80_000 - 1)
            cells[at["finished_at"]] = b"%.3f" % (now - n % 80_000)
            lines[n] = b"\t".join(cells)
    Path(path).write_bytes(b"\n".join([head, *lines]))
    return queue


def asked(application, path, query="", tag=""):
    """Return (milliseconds, status, ETag) of one request."""
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "HTTP_HOST": "localhost:8000",
        "HTTP_IF_NONE_MATCH": tag,
        "wsgi.input": io.BytesIO(),
        "wsgi.url_scheme": "http",
    }
    found = []
    begun = time.perf_counter()
    b"".join(application(environ, lambda status, headers: found.extend((status, dict(headers)))))
    return (time.perf_counter() - begun) * 1000, found[0], found[1].get("ETag", "")


def main(rows):
    """Print a line for each page."""
    with tempfile.TemporaryDirectory() as folder:
        queue = filled(f"{folder}/queue.tsv", rows)
        id = next(queue.jobs(newest=True)).id
        middle = next(queue.jobs("failed")).id
        queue.enqueue_many([("slow", n) for n in range(500)])
        application = dashboard(queue)
        worker = subprocess.Popen([sys.executable, "-c", WORKER, queue.path], env={
            "PYTHONPATH": str(Path(__file__).resolve().parents[2])})  # fmt: skip
        begun = time.perf_counter()
        application.warm()
        print(f"{rows:,} rows, a live worker; first look {time.perf_counter() - begun:.2f} s")
        try:
            for path, query in (
                ("/", ""), ("/jobs", ""), ("/jobs", "status=failed"), ("/jobs", "status=due"),
                ("/jobs", "type=report&status=completed"), ("/jobs", "text=%22n%22: 99"),
                ("/jobs", "text=nowhere"), ("/jobs", f"before={middle}"), ("/job", f"id={id}"),
                ("/batches", ""), ("/schedules", ""), ("/workers", ""), ("/metrics", ""),
            ):  # fmt: skip
                query = query.replace(" ", "+")
                times = []
                for _ in range(15):
                    took, status, tag = asked(application, path, query)
                    times.append(took)
                    time.sleep(0.05)
                polls = []
                while len(polls) < 15:
                    took, said, tag = asked(application, path, query, tag)
                    if said.startswith("304"):
                        polls.append(took)
                print(
                    f"{path + ('?' + query if query else ''):<42} {status[:3]}"
                    f"  p50 {statistics.median(times):6.1f} ms  most {max(times):6.1f} ms"
                    f"   304: p50 {statistics.median(polls):5.2f} ms  most {max(polls):5.2f} ms"
                )
        finally:
            worker.kill()
            worker.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
