"""The exercises, one file a lesson: eNN.py holds the task and what is asked of its solution.

What a learner gets, the stub, is the part of eNN.py above `# ---- how it is graded`. Solutions, hints and the mistakes
that are known are in answers.py, judge.py says what is right, work.py and apart.py run a learner's file.
"""

import functools
import re
import textwrap
import types
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np

from ...errors import FileError, MinivitError, shortened
from ...machinery.files import read_regular, replacing, writable_folder
from . import answers
from .apart import Apart
from .judge import judge
from .work import Work

MOST = 2**20  # bytes of a learner's file
_GRADED = "# ---- how it is graded"
_TO_DO = re.compile(r"^( *)\.\.\. *# your code here", re.M)
_MARKER = re.compile(r"^# minivit exercise (\d+)", re.M)


def numbers():
    """The numbers of the exercises there are, those of their lessons."""
    return sorted(int(path.stem[1:]) for path in Path(__file__).parent.glob("e[0-9][0-9].py"))


def stub(number):
    """The text of the learner's file. FileError for a number that no exercise has."""
    path = _path(number)
    task, _, _ = path.read_text(encoding="utf-8").partition(_GRADED)
    name = path.stem[1:]
    head = f"# minivit exercise {name}\n"
    head += f'# Write yours where "your code here" stands, then: minivit check {name}\n'
    return head + task.rstrip() + "\n"


def write_stub(number, out):
    """Write the learner's file out/exercise_NN.py. Returns its path. FileError if there is such a file already."""
    text = stub(number)
    path = writable_folder(out) / f"exercise_{_path(number).stem[1:]}.py"
    if path.exists():
        raise FileError(
            path, "is there already, and is kept.", hint=f"grade it with minivit check {path}, or give another --out."
        )
    with replacing(path) as (temporary,):
        temporary.write_text(text, encoding="utf-8")
    return path


def completed(number, lines):
    """The stub with these lines in the place of its "..."."""
    return _TO_DO.sub(lambda found: textwrap.indent(lines.strip("\n"), found[1]), stub(number))


def find(number, folder="."):
    """The one file in the folder, or one below, that is this exercise. FileError if there are several or none."""
    name, folder = _path(number).stem[1:], Path(folder)
    paths = [path for pattern in ("*.py", "[!.]*/*.py") for path in sorted(folder.glob(pattern))]
    found = [path for path in paths if marked(path) == name]
    if len(found) == 1:
        return found[0]
    rule = f'it is the file with a line "# minivit exercise {name}", in this folder or in one that lies in it.'
    if not found:
        what = f"there is none in {folder.absolute()}."
        raise FileError(f"exercise {name}", what, rule, hint=f"minivit exercise {name} writes it.")
    which = "\n    ".join([f"there are {len(found)}:", *shortened([str(path) for path in found])])
    raise FileError(f"exercise {name}", which, rule, hint="name the file: minivit check FILE")


def marked(path):
    """The number, "05" or so, that a file names as its exercise; None if it names none, or cannot be read."""
    with suppress(OSError):
        found = _MARKER.search(_text(read_regular(path, MOST)))
        return found and f"{int(found[1]):02d}"


def opened(path):
    """(number, source) of a learner's file, "05" or so and bytes. FileError for a file that is no exercise."""
    try:
        source = read_regular(path, MOST)
    except OSError as error:
        reason = str(error.strerror or error).rstrip(".")
        raise FileError(path, f"cannot be read: {reason}.", hint="minivit exercise NN writes one.") from error
    marker = _MARKER.search(_text(source))
    if not marker:
        raise FileError(
            path,
            "is not an exercise.",
            rule='an exercise has a line "# minivit exercise NN", with its number.',
            hint="minivit exercise NN writes one; keep its first line, and save the file as UTF-8.",
        )
    return _path(marker[1]).stem[1:], source


def grade(path, seconds=None, rng=0):
    """Grade a learner's file, whatever its name. Returns "exercise NN: right. ..." if it is.

    seconds: run it in a process of its own, for so long; None runs it in this one. rng: seed of what is asked, or None.
    Raises FileError for a file that is no exercise, GradientError for a wrong gradient, and another MinivitError for
    anything else that is wrong with the solution: unfinished, not Python, a name that is missing, an exception.
    """
    path = Path(path)
    number, source = opened(path)
    name, text = f"exercise {number}", _text(source)
    to_do = _TO_DO.search(text)
    if to_do:
        line = text.count("\n", 0, to_do.start()) + 1
        raise MinivitError(name, f'line {line} still says "...".', hint="write your code in its place.")
    work = nullcontext(Work(name, source, path)) if seconds is None else Apart(name, source, path, seconds)
    with work as running:
        judge(name, running.ask, *_reference(number), np.random.default_rng(rng))
    return f"{name}: right. The values agree with the reference, and the gradients with finite differences."


def stronger_hint(number):
    """What to do, nearly said."""
    return answers.known(number)["hint"].strip()


def passed(number):
    """Remember for the user of this machine that an exercise was right, if there is a place to write that."""
    with suppress(OSError, RuntimeError):
        path, names = _record(), sorted({*_remembered(), number})
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def solution(number, teacher=False):
    """A right file. MinivitError where no check of this user has passed yet, unless it is for a teacher."""
    name = _path(number).stem[1:]
    if not teacher and name not in _remembered():
        raise MinivitError(
            f"exercise {name}",
            "its solution opens when yours is right.",
            rule="minivit check passed once, for this user of this machine.",
            hint=f"minivit check {name} --hint says more; --teacher opens it at once.",
        )
    return completed(number, answers.known(name)["solution"])


def _record():
    return Path.home() / ".minivit" / "passed.txt"


def _remembered():
    with suppress(OSError, RuntimeError):  # a user without a home
        return read_regular(_record()).decode("utf-8", errors="replace").split()
    return []


def _path(number):
    name = str(number).lstrip("0").zfill(2)
    if name not in [f"{known:02d}" for known in numbers()]:
        known = ", ".join(f"{known:02d}" for known in numbers())
        raise FileError("exercise", f"there is no exercise {number}.", rule=f"exercises are numbered {known}.")
    return Path(__file__).with_name(f"e{name}.py")


def _text(source):
    return source.decode("utf-8-sig", errors="replace")


@functools.cache
def _reference(number):
    """(the module eNN, its solution at work, pairs of what is to be said and a mistake at work)"""
    path, known = _path(number), answers.known(number)
    name = f"exercise {number}"
    exercise = types.ModuleType(name)  # not imported: its op is none of minivit's own
    exec(compile(path.read_text(encoding="utf-8"), path, "exec", dont_inherit=True), vars(exercise))
    mistakes = [(wrong["says"].strip(), wrong["code"]) for wrong in known["wrong"].values()]
    works = [(says, Work(name, completed(number, code), path)) for says, code in mistakes]
    return exercise, Work(name, completed(number, known["solution"]), path), works
