#!/usr/bin/env python3
"""Resize pictures with ffmpeg, or with Pillow where there is no ffmpeg.

    python image_resize.py photo.jpg    add a job for each size, then run a tick
    python image_resize.py              the same with a picture made here

The small picture appears when it is whole, never half; a second run just makes it again.
"""

import os
import shutil
import subprocess
import sys

from dbbasic_queue import current_job, enqueue, get_job, process_jobs


def resize_image(payload):
    """Write the picture `width` pixels wide, as high as it must be to keep its shape."""
    source, output, width = payload["image_path"], payload["output_path"], int(payload["width"])
    folder, name = os.path.split(output)
    part = os.path.join(folder, f"{current_job().id}.{name}")  # ends in the same .png or .jpg
    if shutil.which("ffmpeg"):
        command = ["ffmpeg", "-nostdin", "-y", "-loglevel", "error", "-i", "file:" + source]
        command += ["-vf", f"scale={width}:-1", "-frames:v", "1", "-update", "1", "file:" + part]
        subprocess.run(command, check=True)
    else:
        from PIL import Image

        with Image.open(source) as image:
            image.resize((width, round(image.height * width / image.width))).save(part)
    os.replace(part, output)
    return {"output_path": output}


HANDLERS = {"resize_image": resize_image}


def draw(path):
    """Write a picture of 320 by 240 pixels, in PPM: a short header, then three bytes a pixel."""
    pixels = bytes(byte for y in range(240) for x in range(320) for byte in (x % 256, y, 128))
    with open(path, "wb") as picture:
        picture.write(b"P6 320 240 255\n" + pixels)


if __name__ == "__main__":
    source = os.path.abspath(sys.argv[1] if sys.argv[1:] else "picture.ppm")
    if not sys.argv[1:]:
        draw(source)
    stem = os.path.splitext(source)[0]
    ids = [
        enqueue(
            "resize_image",
            {
                "image_path": source,
                "output_path": f"{stem}-{width}.png",
                "width": width,
            },
        )
        for width in (160, 80)
    ]
    process_jobs(HANDLERS)
    for job in map(get_job, ids):
        print(job["status"], job["error"] or job["result"]["output_path"])
