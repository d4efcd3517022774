"""The handlers that worker.py runs: plain functions, from a payload to a result.

Replace them by yours. A worker that was killed in mid-job runs that job again, so a handler
must be safe to run twice: these are, since a second run ends in the same state.
"""

import os
import shutil
import time


def greet(payload):
    """The job of the quickstart: what is returned becomes the job's result."""
    return {"greeting": f"Hello, {payload['name']}!"}


def check_disk(payload):
    """Fail, and so be tried again and be seen, when a disk is nearly full."""
    disk = shutil.disk_usage(payload["path"])
    used = round(100 * disk.used / disk.total)
    if used > payload["limit"]:
        raise RuntimeError(f"{payload['path']} is {used} % full, the limit is {payload['limit']} %")
    return {"used_percent": used}


def generate_report(payload):
    """List a folder's files by size, into a file that is there whole or not at all."""
    folder, output = payload["folder"], payload["output"]
    files = [entry for entry in os.scandir(folder) if entry.is_file()]
    files.sort(key=lambda entry: (-entry.stat().st_size, entry.name))
    with open(output + ".part", "w", encoding="utf-8") as report:
        for entry in files:
            report.write(f"{entry.stat().st_size:12} {entry.name}\n")
    os.replace(output + ".part", output)
    return {"output": output, "files": len(files), "generated_at": int(time.time())}


HANDLERS = {
    "greet": greet,
    "check_disk": check_disk,
    "generate_report": generate_report,
}
