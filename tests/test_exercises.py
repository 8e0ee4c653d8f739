"""The exercises: a stub has no solution, the solution is right, typical mistakes are explained, bad files too."""

import ast
import re
import textwrap
from pathlib import Path

import pytest

from minivit import lessons
from minivit.__main__ import main
from minivit.course import exercises
from minivit.errors import FileError, MinivitError

FOLDER = Path(exercises.__file__).parent
NUMBERS = exercises.numbers()
BLOCK = re.compile(r"^ *# your code: begin\n(.*?)^ *# your code: end\n", re.M | re.S)


def source(number):
    return (FOLDER / f"e{number:02d}.py").read_text(encoding="utf-8")


def wrong(number):
    """The WRONG of an exercise: {name of the mistake: lines in place of the solution}."""
    names = {}
    exec(compile(source(number), f"e{number:02d}.py", "exec"), names)
    return names["WRONG"]


def completed(number, solution):
    """The stub with these lines where its "..." was."""

    def lines(found):
        return textwrap.indent(textwrap.dedent(solution).strip("\n"), found[1])

    text, places = re.subn(r"^( *)\.\.\.  # your code here$", lines, exercises.stub(number), flags=re.M)
    assert places == 1
    return text


@pytest.fixture
def write(tmp_path):
    """write(text): the path of a new file of that text, whose name says nothing."""

    def write(text):
        path = tmp_path / "homework.py"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def solved():
    """Exercise 08 with its solution."""
    return completed(8, BLOCK.search(source(8))[1])


# ---- every exercise


def test_every_lesson_has_its_exercise():
    assert NUMBERS == [int(lesson.number) for lesson in lessons.lessons()]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_stub_is_python_without_the_solution_and_unfinished(number, write):
    text = exercises.stub(number)
    assert text.startswith(f"# minivit exercise {number:02d}\n")
    assert ast.get_docstring(ast.parse(text))
    solution = BLOCK.findall(source(number))
    assert len(solution) == 1 and "..." not in solution[0]
    given = {line.strip() for line in text.splitlines()}
    assert not given & {line.strip() for line in solution[0].splitlines() if line.strip()}
    assert "how it is graded" not in text and "WRONG" not in text and "def check(" not in text
    with pytest.raises(MinivitError, match=rf'^exercise {number:02d}: line \d+ still says "\.\.\."'):
        exercises.grade(write(text))


@pytest.mark.parametrize("number", NUMBERS)
def test_the_solution_is_right(number, write):
    text = completed(number, BLOCK.search(source(number))[1])
    assert exercises.grade(write(text)).startswith(f"exercise {number:02d}: right. ")


@pytest.mark.parametrize("number, name", [(number, name) for number in NUMBERS for name in wrong(number)])
def test_a_typical_mistake_is_explained(number, name, write):
    text = completed(number, wrong(number)[name])
    ast.parse(text)  # the mistake is one of thought
    with pytest.raises(MinivitError) as caught:
        exercises.grade(write(text))
    message = str(caught.value)
    assert not isinstance(caught.value, FileError) and message.isascii()
    assert len(message.splitlines()) >= 2 and ("hint: " in message or "rule: " in message)


@pytest.mark.parametrize("number", NUMBERS)
def test_there_are_at_least_two_mistakes(number):
    assert len(wrong(number)) >= 2


# ---- files that learners have


def test_the_stub_is_written_once(tmp_path):
    path = exercises.write_stub("8", tmp_path / "new" / "folder")
    assert path.name == "exercise_08.py" and path.read_text(encoding="utf-8") == exercises.stub(8)
    path.write_text("my work", encoding="utf-8")
    with pytest.raises(FileError, match="is there already, and is kept"):
        exercises.write_stub(8, path.parent)
    assert path.read_text(encoding="utf-8") == "my work" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("number", [99, 0, "one", "-1", ""])
def test_a_number_that_no_exercise_has(number, tmp_path):
    for ask in (exercises.stub, lambda number: exercises.write_stub(number, tmp_path)):
        with pytest.raises(FileError, match=rf"there is no exercise {number}\.\n  rule: .* \d\d"):
            ask(number)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_exercise(write, tmp_path, solved):
    for path, message in (
        (tmp_path / "none.py", "cannot be read"),
        (tmp_path, "cannot be read"),
        (write(solved.replace("# minivit exercise", "# my exercise")), "is not an exercise"),
    ):
        with pytest.raises(FileError, match=message):
            exercises.grade(path)
    with pytest.raises(FileError, match="there is no exercise 99"):
        exercises.grade(write(solved.replace("exercise 08", "exercise 99")))


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("def backward(dy):", "def backward(dy:", r"exercise 08, homework\.py, line 21: this is not Python: .*look at"),
        ("def take", "def get", r"exercise 08: there is no 'take' in .*homework\.py\.\n  hint: keep the names"),
        ("return dtable, None", "return dtabel, None", r"homework\.py, line 24: NameError: .*look at: return dtabel"),
        ("return dtable, None", "return dtable", r"take: backward returned 1 gradients for 2 array"),
        ("table[index], backward", "table[index]", r"take: an op returns \(value, backward\)"),
        ("table[index], backward", "table[index] + 1, backward", r"take: the value is not table\[index\]"),
        ("table[index], backward", "table.T @ index, backward", r"line 26: ValueError: matmul.*look at: return"),
        ("table[index], backward", "table[index] + None, backward", r"line 26: TypeError: .*look at: return"),
        ("@differentiable\n", "", r"take: the value is not .*hint: the stub was right there"),
        ("@differentiable\n", "@str\n", r"exercise 08: TypeError: .*hint: what a function returned cannot be used"),
        ("import numpy as np", "import nunpy as np", r"homework\.py, line 12: ModuleNotFoundError: .*nunpy"),
        ("import numpy as np", "raise SystemExit(3)", r"homework\.py, line 12: SystemExit: 3"),
        ("import numpy as np", "x = 1\0", "exercise 08"),
        ("import numpy as np", "x = []\nx.y", r"line 13: AttributeError: 'list' object has no attribute 'y'"),
    ],
)
def test_what_goes_wrong_in_a_solution(old, new, message, write, solved):
    assert old in solved
    with pytest.raises(MinivitError) as caught:
        exercises.grade(write(solved.replace(old, new)))
    assert re.search(message, str(caught.value), re.S) and not isinstance(caught.value, FileError)


def test_a_file_is_read_anew_each_time_and_need_not_be_in_utf_8(write, solved):
    path = write(solved)
    assert exercises.grade(path)
    path.write_text(solved.replace("np.add.at(dtable, index, dy)", "np.add.at(dtable, index, dx)"), encoding="utf-8")
    with pytest.raises(MinivitError, match="'dx' is not defined"):  # a cached module of the same second was right
        exercises.grade(path)
    path.write_bytes(b"\xef\xbb\xbf" + solved.replace("\n", "\r\n").encode())  # as Windows' editor saves it
    assert exercises.grade(path)
    path.write_bytes(b"# coding: latin-1\n# \xe4\n" + solved.encode())
    assert exercises.grade(path)


# ---- the commands


def test_exercise_and_check(tmp_path, capsys, solved):
    assert main(["exercise", "08", "--out", str(tmp_path)]) == 0
    path = tmp_path / "exercise_08.py"
    assert capsys.readouterr().out == f"{path}\n"
    assert main(["check", str(path)]) == 1
    assert 'still says "..."' in capsys.readouterr().out
    path.write_text(solved, encoding="utf-8")
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out.startswith("exercise 08: right. ")
    path.write_text(completed(8, wrong(8)["the last one wins"]), encoding="utf-8")
    assert main(["check", str(path)]) == 1
    assert 'gradcheck: take_some_twice, argument "table", worst at' in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["check", "none.py"], ["exercise", "99"], ["exercise", "one"]])
def test_bad_input_exits_2(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out and "Traceback" not in err and re.search(r"\n  (hint|rule): ", err)
    assert list(tmp_path.iterdir()) == []


def test_the_deepest_line_is_named(write, solved):
    helper = "def helper():\n    return undefined\n\n\n@differentiable"
    text = solved.replace("@differentiable", helper, 1).replace("table[index], backward", "helper(), backward")
    with pytest.raises(MinivitError, match="look at: return undefined"):
        exercises.grade(write(text))


def test_the_line_that_waits_for_code_is_named(write):
    text = exercises.stub(8)
    line = 1 + next(n for n, code in enumerate(text.splitlines()) if code.strip().startswith("...  #"))
    with pytest.raises(MinivitError, match=rf"line {line} still says"):
        exercises.grade(write(text))
