"""Make the two pictures of the README from a real dashboard: python tests/screenshots.py

They land in examples/ as dashboard-overview.png (light) and dashboard-job.png (dark).  It needs
Chromium with its driver, selenium and pillow: pip install '.[dev]'.
"""

import io
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from test_browser import TOKEN, browser, dashboard, python  # noqa: E402

from dbbasic_queue import Queue  # noqa: E402
from dbbasic_queue.batch import enqueue_workflow  # noqa: E402
from dbbasic_queue.schedule import add_schedule  # noqa: E402

LARGEST = 150_000  # bytes of a picture

TYPES = {  # how many of a hundred, seconds that one takes, what goes wrong with how many of 1,000
    "send_mail": (62, 0.3, 9, "SMTPServerDisconnected: Connection unexpectedly closed"),
    "resize_image": (25, 1.1, 4, "UnidentifiedImageError: cannot identify image file 'scan.heic'"),
    "charge_card": (8, 0.9, 15, "CardDeclined: insufficient funds"),
    "sync_inventory": (5, 7.0, 3, "TimeoutError: warehouse did not answer within 30 s"),
}

WORKER = """
import sys, time
from dbbasic_queue import current_job, process_jobs
from dbbasic_queue.steps import progress, step

def transcode_video(payload):
    step("probe", lambda: {"frames": 4200, "codec": "h264"})
    step("fetch", lambda: "2.1 GB")
    for n in range(1, 4000):
        progress(n + 1500, 4200, "frames")
        time.sleep(0.02)

def quick(payload):
    time.sleep(0.05)
    return "good"

handlers = {"transcode_video": transcode_video, "fetch_feed": quick, "parse_feed": quick}
process_jobs(handlers, run_for=600, name="web1", processes=2)
"""


def fill(queue, now, dice):
    """Put a day of a shop into a queue file."""
    names = [name for name, (share, *_) in TYPES.items() for _ in range(share)]
    made = [dice.choice(names) for _ in range(9000)]
    queue.enqueue_many((name, {"order": 41_000 + n}) for n, name in enumerate(made))
    lines = Path(queue.path).read_bytes().split(b"\n")
    at = {name: place for place, name in enumerate(lines[0].decode().split("\t"))}
    for n, name in enumerate(made):
        cells = lines[n + 1].split(b"\t")
        _, takes, wrong, error = TYPES[name]
        if n >= 8600:  # to come
            hour = dice.triangular(0, 24, 9) * 3600
            cells[at["run_at"]] = b"%d" % (now + 60 + hour)
        else:
            part = dice.random()
            age = dice.random() * 3600 if part < 0.5 else dice.random() * 86_000
            wave = 1.4 + 0.9 * ((age // 600) % 3)
            finished, waited = now - age, dice.expovariate(1 / wave)
            fails = dice.randrange(1000) < wrong
            cells[at["status"]] = b"failed" if fails else b"completed"
            cells[at["error"]] = error.encode() if fails else b""
            cells[at["attempts"]] = b"3" if fails else b"1"
            started = finished - dice.expovariate(1 / takes)
            for column in ("created_at", "run_at"):
                cells[at[column]] = b"%d" % (started - waited)
            cells[at["started_at"]] = b"%.3f" % started
            cells[at["finished_at"]] = b"%.3f" % finished
        lines[n + 1] = b"\t".join(cells)
    Path(queue.path).write_bytes(b"\n".join(lines))


def note_ticks(queue, now, dice):
    """Write the minutes of the last hours as cron's ticks would have."""
    side = Path(queue.path + ".d")
    side.mkdir(exist_ok=True)
    ring = bytearray(b" " * 31 + b"\n") * 1440
    for ago in range(1, 300):
        at = int(now) // 60 * 60 - ago * 60
        jobs = dice.choice([0, 0, 31, 74, 120, 8])
        place = at // 60 % 1440 * 32
        ring[place : place + 32] = b"%-15d%16d\n" % (at + 1, jobs)
    (side / "tick").write_bytes(ring)


def main():
    dice, now = random.Random(7), time.time()
    with tempfile.TemporaryDirectory() as folder:
        queue = Queue(Path(folder, "data", "queue.tsv"))
        fill(queue, now, dice)
        note_ticks(queue, now, dice)
        add_schedule("nightly", "nightly_report", cron="30 2 * * *", queue_file=queue)
        flow = enqueue_workflow(
            {
                "feed": ("fetch_feed", {"supplier": "nordwind"}),
                "parse": ("parse_feed", {"supplier": "nordwind"}),
                "video": ("transcode_video", {"file": "nordwind/autumn.mov", "height": 1080}),
                "index": ("update_index", {"supplier": "nordwind"}),
                "publish": ("publish", {"supplier": "nordwind"}),
            },
            {
                "parse": ["feed"],
                "video": ["feed"],
                "index": ["parse"],
                "publish": ["video", "index"],
            },
            name="autumn collection",
            queue_file=queue,
        )
        video = list(flow.jobs())[2]
        env = {"DBBASIC_QUEUE": queue.path}
        with (
            python("-c", WORKER, env=env, stderr=subprocess.DEVNULL),
            dashboard(queue, "--token", TOKEN) as url,
            browser(
                Path(folder, "profile"), "--window-size=1280,1400", "--hide-scrollbars"
            ) as shown,
        ):
            while not queue.get(video.id).cell("progress"):
                time.sleep(0.1)
            time.sleep(5)
            shown.get(f"{url}?token={TOKEN}")
            picture(shown, url, "dashboard-overview.png", "light", 1280, 1290)
            picture(shown, f"{url}job?id={video.id}", "dashboard-job.png", "dark", 1280, 1010)


def picture(shown, url, name, scheme, wide, high):
    seen = [{"name": "prefers-color-scheme", "value": scheme}]
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": seen})
    size = {"width": wide, "height": high, "deviceScaleFactor": 1, "mobile": False}
    shown.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    shown.get(url)
    time.sleep(1)
    with Image.open(io.BytesIO(shown.get_screenshot_as_png())) as full:
        small = full.convert("RGB").quantize(200, dither=Image.Dither.NONE)
    path = ROOT / "examples" / name
    small.save(path, optimize=True)
    assert path.stat().st_size < LARGEST, f"{path} has {path.stat().st_size} bytes"
    print(json.dumps({"made": name, "bytes": path.stat().st_size}))


if __name__ == "__main__":
    main()
