"""A class: the exercises in a folder, as a learning platform hands them over, each graded in a process of its own."""

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

from ..errors import FileError, MinivitError, shortened, shown
from ..machinery.files import read_regular, replacing
from . import exercises

SECONDS = 10  # for one file
WIDTH = 100  # letters of a line of the table
_EXERCISE = r"exercise[ _-]?(\d{1,2})(?!\d)"
# Moodle: Anna Smith_12345_assignsubmission_file_...; Canvas: smithanna_LATE_12345_67890_...
_PLATFORM = r"(_LATE)?(_\d{3,})+(_assignsubmission_[a-z]+)?_*$"
_FORMULA = tuple("=+-@")  # with which begins what a table program computes, and may fetch from elsewhere


class Grade(NamedTuple):
    """One file: whose, which exercise, whether it is right, what is to be said of it, and where in the folder it is."""

    name: str
    exercise: str
    passed: bool
    message: str
    file: str


def grade_class(folder, out=None, seconds=SECONDS):
    """Grade every exercise in a folder, print a table, and write it to the CSV file `out`.

    seconds: for each file. Who stops it by Ctrl-C leaves the CSV as it was. FileError for a folder without exercises,
    and for a file at `out` that is none of these tables.
    """
    folder = Path(folder)
    if out is not None:
        _check_own(Path(out))
    found, others = _handed_in(folder)
    if not found:
        rule = 'an exercise is a file *.py with a line "# minivit exercise NN".'
        raise FileError(folder, "there is no exercise in this folder.", rule)
    grades = []
    try:
        print(f"{'name':24}  exercise         message", flush=True)
        for name, exercise, path in found:
            passed, message = _graded(path, seconds)
            grades.append(Grade(name, exercise, passed, message, path.relative_to(folder).as_posix()))
            print(_line(name, exercise, "right" if passed else "no", message), flush=True)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped after {len(grades)} of {len(found)} files; no table is written.") from None
    print(f"{sum(grade.passed for grade in grades)} of {len(grades)} are right.")
    if others:
        print(f"note: no exercises, and not graded: {', '.join(shortened(others, 5, 60))}")
    if out is not None:
        _write(Path(out), grades)
        print(shown(out))


def _handed_in(folder):
    """[(name, exercise, path)] in order, and the names of the files that are no exercises."""
    found, others = [], []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        inside = path.relative_to(folder)
        if any(part.startswith((".", "__")) for part in inside.parts) or path.suffix == ".csv":
            continue
        named = re.search(_EXERCISE, path.stem, re.I)
        number = exercises.marked(path) or (named and f"{int(named[1]):02d}")
        if path.suffix == ".py" and number:
            found.append((student(inside) or folder.absolute().name, number, path))
        else:
            others.append(inside.as_posix())
    return sorted(found), others


def student(path):
    """Whose file this is, by its path in the folder: that of the first folder that is no exercise's, or of the file.

    "anna/exercise_05.py", "anna_exercise_05.py" and "05_exercise/anna_123_assignsubmission_file_/work.py" are anna's.
    """
    names = [part for part in path.parts[:-1] if not re.search(_EXERCISE, part, re.I)]
    text = names[0] if names else path.stem
    parts = re.split(_EXERCISE, text, maxsplit=1, flags=re.I)  # before, number, behind
    texts = (re.sub(_PLATFORM, "", part.rstrip("_")).strip(" _-.") for part in parts[::2])
    return next((text for text in texts if text), "")


def _graded(path, seconds):
    """(whether it is right, what is to be said)"""
    try:
        return True, exercises.grade(path, seconds, rng=None)
    except MinivitError as error:
        return False, str(error)


def _line(name, exercise, passed, message):
    told = re.sub(rf"^exercise {exercise}(: |, .*(?=line \d+: ))", "", message).splitlines()
    if message.startswith("gradcheck"):  # two numbers in one line say nothing
        told = [line.removeprefix("  hint: ") for line in told if line.startswith("  hint: ")]
    text = f"{shown(name, 24):24}  {exercise:8}  {passed:5}  " + ("" if passed == "right" else shown(told[0], 500))
    return text.rstrip() if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."


def _check_own(path):
    """Refuse to replace what is no table of grades."""
    if path.exists():
        try:
            own = read_regular(path).decode("utf-8-sig").startswith(",".join(Grade._fields))
        except (OSError, ValueError):
            own = False
        if not own:
            raise FileError(path, "is there already, and is no table of grades.", hint="give another --csv.")


def _write(path, grades):
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(Grade._fields)
    for grade in grades:
        told = grade._replace(passed="yes" if grade.passed else "no", message=" ".join(grade.message.split()))
        cells = [shown(cell, 2000) for cell in told]
        rows.writerow([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells])
    with replacing(path) as (temporary,):
        temporary.write_text(text.getvalue(), encoding="utf-8-sig", newline="")  # by its BOM Excel knows the letters
