"""The exercises, one file a lesson: eNN.py holds the task, its solution and how it is graded.

What a learner gets, the stub, is the part of eNN.py above `# ---- how it is graded`, with `...` where the solution was.
"""

import re
import traceback
import types
from pathlib import Path

from ...errors import FileError, MinivitError
from ...machinery.files import read_regular, replacing, writable_folder

_BEGIN_TO_END = re.compile(r"^( *)# your code: begin\n.*?# your code: end$", re.M | re.S)
_TO_DO = re.compile(r"^ *\.\.\. *# your code here", re.M)
_MARKER = re.compile(r"^# minivit exercise (\d+)", re.M)


def numbers():
    """The numbers of the exercises there are, those of their lessons."""
    return sorted(int(path.stem[1:]) for path in Path(__file__).parent.glob("e[0-9][0-9].py"))


def stub(number):
    """The text of the learner's file. FileError for a number that no exercise has."""
    path = _path(number)
    task, _, _ = path.read_text(encoding="utf-8").partition("# ---- how it is graded")
    name = f"{int(number):02d}"
    head = f"# minivit exercise {name}\n"
    head += f'# Write yours where "your code here" stands, then: minivit check exercise_{name}.py\n'
    return head + _BEGIN_TO_END.sub(r"\1...  # your code here", task).rstrip() + "\n"


def write_stub(number, out):
    """Write the learner's file out/exercise_NN.py. Returns its path. FileError if there is such a file already."""
    text = stub(number)
    path = writable_folder(out) / f"exercise_{int(number):02d}.py"
    if path.exists():
        raise FileError(
            path, "is there already, and is kept.", hint=f"grade it with minivit check {path}, or give another --out."
        )
    with replacing(path) as (temporary,):
        temporary.write_text(text, encoding="utf-8")
    return path


def grade(path):
    """Grade a learner's file, whatever its name. Returns "exercise NN: right. ..." if it is.

    Raises FileError for a file that is no exercise, GradientError for a wrong gradient, and another MinivitError for
    anything else that is wrong with the solution: unfinished, not Python, a name that is missing, an exception.
    """
    path = Path(path)
    try:
        source = read_regular(path, 2**20)
    except OSError as error:
        reason = str(error.strerror or error).rstrip(".")
        raise FileError(path, f"cannot be read: {reason}.", hint="minivit exercise NN writes one.") from error
    text = source.decode("utf-8-sig", errors="replace")
    marker = _MARKER.search(text)
    if not marker:
        raise FileError(
            path,
            "is not an exercise.",
            rule='an exercise has a line "# minivit exercise NN", with its number.',
            hint="minivit exercise NN writes one; keep its first line, and save the file as UTF-8.",
        )
    name = f"exercise {int(marker[1]):02d}"
    graded = _path(marker[1])
    to_do = _TO_DO.search(text)
    if to_do:
        line = text.count("\n", 0, to_do.start()) + 1
        raise MinivitError(name, f'line {line} still says "...".', hint="write your code in its place.")
    check = _load(name, graded, graded.read_bytes()).check
    work = None
    try:
        work = _load(name, path, source)
        check(work)
    except SyntaxError as error:
        code = (error.text or "").strip()
        raise _fault(name, path, error.lineno, f"this is not Python: {error.msg}", code) from error
    except (Exception, SystemExit) as error:
        inner = error.__cause__ or error  # of an op that is the learner's: where in it
        lines = [frame for frame in traceback.extract_tb(inner.__traceback__) if frame.filename == str(path)]
        if isinstance(error, MinivitError) and (inner is error or not lines):
            raise
        if isinstance(error, AttributeError) and error.obj is work:
            hint = "keep the names that the stub gave."
            raise MinivitError(name, f"there is no {error.name!r} in {path}.", hint=hint) from error
        last = lines[-1] if lines else None
        what = f"{type(inner).__name__}: {inner}"
        raise _fault(name, path, last and last.lineno, what, last and last.line) from error
    return f"{name}: right. The values agree with the reference, and the gradients with finite differences."


def _path(number):
    name = str(number).lstrip("0").zfill(2)
    if name not in [f"{known:02d}" for known in numbers()]:
        known = ", ".join(f"{known:02d}" for known in numbers())
        raise FileError("exercise", f"there is no exercise {number}.", rule=f"exercises are numbered {known}.")
    return Path(__file__).with_name(f"e{name}.py")


def _load(name, path, source):
    """Run a file as a module of its own: not imported, so that it is neither cached nor counted as minivit's own op."""
    module = types.ModuleType(name)
    exec(compile(source, path, "exec", dont_inherit=True), vars(module))
    return module


def _fault(name, path, line, what, code):
    """The MinivitError of an exception; line and code are those of the learner's file, where it got that far."""
    if line is None:
        return MinivitError(name, what, hint="what a function returned cannot be used: compare with its docstring.")
    return MinivitError(f"{name}, {path.name}, line {line}", what, hint=f"look at: {code}")
