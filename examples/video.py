#!/usr/bin/env python3
"""Convert videos with ffmpeg, one job each, for at most an hour.

    python video.py holiday.avi         add a job, then run a tick
    python video.py                     the same with a test picture of one second

The new file appears when it is whole, never half; a second run just makes it again.
What ffmpeg says goes to the worker's log.
"""

import os
import subprocess
import sys
import tempfile
import time

from dbbasic_queue import enqueue, get_job, process_jobs


def process_video(payload):
    output = payload["output_path"]
    # A folder of our own: the ffmpeg of a killed worker may still be writing in another one.
    with tempfile.TemporaryDirectory(dir=os.path.dirname(output)) as scratch:
        part = os.path.join(scratch, "part.mp4")
        ffmpeg("-i", "file:" + payload["input_path"], "-c:v", "libx264", "-c:a", "aac", part)
        os.replace(part, output)
    return {"output_path": output, "processed_at": time.time()}


def ffmpeg(*arguments):
    """Run it to its end; an error raises, and so the job is tried again later."""
    command = ["ffmpeg", "-nostdin", "-y", "-loglevel", "error", *arguments]
    subprocess.run(command, check=True)


HANDLERS = {"process_video": process_video}

if __name__ == "__main__":
    if sys.argv[1:]:
        source = os.path.abspath(sys.argv[1])  # the worker may run in another folder
    else:
        source = os.path.abspath("test.avi")
        ffmpeg("-f", "lavfi", "-i", "testsrc=size=320x240:rate=10:duration=1", source)
    job_id = enqueue(
        "process_video",
        {"input_path": source, "output_path": os.path.splitext(source)[0] + ".mp4"},
        timeout=3600,
    )
    process_jobs(HANDLERS)
    job = get_job(job_id)
    print(job["status"], job["error"] or job["result"]["output_path"])
