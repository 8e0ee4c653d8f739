"""A curtain, and not a lock: what a learner should not read by accident lies packed in answers.txt.

That is TOML, compressed and in base64: for each exercise its solution, a stronger hint, and mistakes by name, each with
what to say of it. In a checkout `python -m tests.answers` prints it, and `python -m tests.answers FILE` packs a file.
"""

import base64
import functools
import textwrap
import tomllib
import zlib
from pathlib import Path

PACKED = Path(__file__).with_name("answers.txt")


@functools.cache
def known(name):
    """Of an exercise, "01": {"solution": lines, "hint": text, "wrong": {mistake: {"code": lines, "says": text}}}."""
    return tomllib.loads(unpacked())[name]


def unpacked():
    """The TOML in answers.txt."""
    return zlib.decompress(base64.b64decode(PACKED.read_bytes())).decode()


def packed(text):
    """What answers.txt holds where the TOML is `text`."""
    letters = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    return "\n".join(textwrap.wrap(letters, 100)) + "\n"
