"""The lessons in tutorials/: which there are, how long they take, and running one on a photo."""

import re
import runpy
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import images
from ..errors import FileError, MinivitError
from ..machinery.files import travelling, writable_folder


@dataclass
class Lesson:
    """One lesson: its number, "05", or "05b" of an extra, its file, title, minutes to teach and seconds to run."""

    number: str
    path: Path
    title: str
    minutes: int
    seconds: int


def lessons():
    """Every Lesson, in order, each extra behind its lesson."""
    files = [*travelling("tutorials").glob("[0-9][0-9]_*.py"), *travelling("tutorials").glob("[0-9][0-9]b_*.py")]
    return sorted(map(_lesson, files), key=lambda lesson: lesson.number)


def _lesson(path):
    head = path.read_text(encoding="utf-8")[:3000]
    title = re.search(r"^# # \d+b?\. (.+)$", head, re.M)
    times = re.search(r"^# Teach: (\d+) minutes\. Run: (\d+) seconds", head, re.M)
    if not (title and times):
        raise FileError(path, "has no title or times.", rule='"# # 1. Title", "# Teach: 20 minutes. Run: 3 seconds."')
    return Lesson(path.name.partition("_")[0], path, title[1], int(times[1]), int(times[2]))


def photo():
    """The photo of the lesson that is running: the first argument of its command line, or the cat.

    In a notebook there is no such argument, and it is the cat.
    """
    given = sys.argv[1:2]
    return images.photo() if not given or given[0].startswith("-") else given[0]


def run(number, photo=None, out=None):
    """Run a lesson on a photo; each of its figures is saved as out/NN_name.png, or shown where `out` is None.

    number: 1, "01" or "1b". Returns the paths of the figures. MinivitError for a number that no lesson has, FileError
    for a bad photo and for a folder that cannot be written to.
    """
    found = [lesson for lesson in lessons() if str(number).lower().lstrip("0") == lesson.number.lstrip("0")]
    if not found:
        known = ", ".join(lesson.number for lesson in lessons())
        raise MinivitError("run", f"there is no lesson {number}.", rule=f"lessons are numbered {known}.")
    if photo is not None:
        images.open_image(photo)  # a bad one is found before the lesson starts
    if out is not None:
        out = writable_folder(out)  # likewise
    arguments = [str(found[0].path), *([] if photo is None else [str(Path(photo).absolute())])]
    paths = []
    with _arguments(arguments), _figures(found[0].number, out, paths):
        runpy.run_path(str(found[0].path), run_name="__main__")
    return paths


@contextmanager
def _arguments(arguments):
    before, sys.argv = sys.argv, arguments
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _figures(number, out, paths):
    """Inside, plt.show() saves the figures that are open, and closes them; with out=None it shows them as ever."""
    import matplotlib.pyplot as plt

    from .. import plots

    show = plt.show

    def save():
        for figure in map(plt.figure, plt.get_fignums()):
            path = out / f"{number}_{figure.get_label() or f'figure{len(paths) + 1}'}.png"
            plots.save(figure, path)
            paths.append(path)
        plt.close("all")

    try:
        if out is not None:
            plt.show = save
        yield
    finally:
        plt.show = show
        if out is not None:
            plt.close("all")
