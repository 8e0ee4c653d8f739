"""The lessons on twenty free photos, `python -m tests.photos [05 05b ...]`: which run, and in how many seconds.

Not a test: it takes an hour or more, and needs scikit-image and scikit-learn, in whose wheels the photos travel. They
are colour and grey, tall, wide and square, from 102 to 1411 pixels a side.
"""

import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib

from minivit import images, lessons

CC0, PUBLIC = "CC0 1.0", "public domain"

# where it is: (file, credit, licence), as the packages state it
PHOTOS = {
    "minivit": (
        ("cat.jpg", "Stefan van der Walt", CC0),
        ("coffee.jpg", "Rachel Michetti", CC0),
        ("pagoda.jpg", "danielbuechele", "CC BY 2.0"),
    ),
    "skimage": (
        ("astronaut.png", "NASA", PUBLIC),
        ("brick.png", "CC0Textures, Bricks25", CC0),
        ("camera.png", "Lav Varshney", CC0),
        ("cell.png", "Paul Mueller and others", CC0),
        ("clock_motion.png", "Stefan van der Walt", PUBLIC),
        ("coins.png", "Brooklyn Museum Collection", "no known restrictions"),
        ("grass.png", "linolafett", CC0),
        ("gravel.png", "CC0Textures, Gravel04", CC0),
        ("horse.png", "Andreas Preuss", CC0),
        ("hubble_deep_field.jpg", "NASA", PUBLIC),
        ("ihc.png", "Center for Microscopy and Molecular Imaging", "no known restrictions"),
        ("microaneurysms.png", "Andreas Maier", CC0),
        ("retina.jpg", "Mikael Haggstrom", CC0),
        ("rocket.jpg", "SpaceX", PUBLIC),
        ("text.png", "Wikipedia, Corner.png", PUBLIC),
    ),
    "sklearn": (("flower.jpg", "vultilion", "CC BY 2.0"),),
    "matplotlib": (("grace_hopper.jpg", "US Navy", PUBLIC),),
}
FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}


def photos():
    """The paths of the twenty."""
    for package, files in PHOTOS.items():
        for name, _, _ in files:
            if package == "minivit":
                yield Path(images.photo(name))
            elif package == "matplotlib":
                yield Path(matplotlib.get_data_path(), "sample_data", name)
            else:
                yield Path(importlib.util.find_spec(package).origin).parent / FOLDERS[package] / name


def main(numbers):
    failed = 0
    for lesson in lessons.lessons():
        seconds = []
        for photo in photos() if not numbers or lesson.number in numbers else ():
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-W", "error", "-m", "minivit", "run", lesson.number, photo, "--out", folder]
                start = time.perf_counter()
                done = subprocess.run(command, capture_output=True, text=True)
                seconds.append(time.perf_counter() - start)
            if done.returncode:
                failed += 1
                print(f"{lesson.number} on {photo.name}:\n{done.stderr[-1500:]}", flush=True)
        if seconds:
            told = f"{statistics.median(seconds):5.1f} s, the slowest {max(seconds):5.1f} s, stated {lesson.seconds} s"
            print(f"{lesson.number:4} {len(seconds)} photos {told}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
