"""The exercises: a stub has no solution, the solution is right, typical mistakes are named, bad files explained."""

import ast
import base64
import math
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from minivit import Tensor, lessons
from minivit.__main__ import main
from minivit.course import exercises
from minivit.course.exercises import answers
from minivit.errors import FileError, MinivitError

ROOT = Path(__file__).parents[1]
FOLDER = Path(exercises.__file__).parent
NUMBERS = exercises.numbers()
MISTAKES = [(number, name) for number in NUMBERS for name in answers.known(f"{number:02d}")["wrong"]]


def right(number):
    """The stub with its solution."""
    return exercises.completed(number, answers.known(f"{number:02d}")["solution"])


def wrong(number, name):
    """The stub with a mistake in it, and what is said of that."""
    mistake = answers.known(f"{number:02d}")["wrong"][name]
    return exercises.completed(number, mistake["code"]), mistake["says"].strip()


def refused(text, write):
    """The message of the error with which a file of this text is refused."""
    with pytest.raises(MinivitError) as caught:
        exercises.grade(write(text))
    assert not isinstance(caught.value, FileError) and str(caught.value).isascii()
    return str(caught.value)


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """A home of the test's own, where nothing is remembered."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(folder))
    return folder


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
    return right(8)


# ---- every exercise


def test_every_lesson_has_its_exercise():
    assert NUMBERS == [int(lesson.number) for lesson in lessons.lessons() if lesson.number.isdecimal()]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_stub_is_python_without_the_solution_and_unfinished(number, write):
    text = exercises.stub(number)
    assert text.startswith(f"# minivit exercise {number:02d}\n") and f"minivit check {number:02d}\n" in text
    assert ast.get_docstring(ast.parse(text)) and len(re.findall(r"^ *\.\.\.  # your code here$", text, re.M)) == 1
    assert "import numpy as np\n" in text  # what a learner writes may need it, wherever forward does not
    given = {line.strip() for line in text.splitlines()}
    solution = answers.known(f"{number:02d}")["solution"]
    assert not given & {line.strip() for line in solution.splitlines() if line.strip()}
    assert "how it is graded" not in text and "def cases(" not in text
    assert re.search(rf'^exercise {number:02d}: line \d+ still says "\.\.\."', refused(text, write))


@pytest.mark.parametrize("number", NUMBERS)
def test_the_solution_is_right(number, write):
    path = write(right(number))
    for rng in (0, 1, None):
        assert exercises.grade(path, rng=rng).startswith(f"exercise {number:02d}: right. ")


@pytest.mark.parametrize("number, name", MISTAKES)
def test_a_typical_mistake_is_named(number, name, write):
    text, says = wrong(number, name)
    ast.parse(text)  # the mistake is one of thought
    assert refused(text, write).endswith(f"\n  hint: {says}")


@pytest.mark.parametrize("number", NUMBERS)
def test_there_are_mistakes_and_a_hint_that_says_more_than_the_stub(number):
    known = answers.known(f"{number:02d}")
    assert len(known["wrong"]) >= 4 and len(known["hint"]) > 100
    assert known["hint"].strip() not in exercises.stub(number)
    assert max(map(len, (mistake["says"] for mistake in known["wrong"].values()))) < 140


_CUT = "dcls_token, dtokens = dy[:1], dy[1:]\n"
_DS = "ds = p * (dy @ v.T - (dy @ v.T * p).sum(1, keepdims=True))\n"


@pytest.mark.parametrize(
    "number, code, said",
    [
        (8, "dtable = np.zeros_like(table)\ndtable[index] += dy", "a repeated index"),
        (12, f"{_CUT}dweight = dtokens.sum(0)[:, None]\ndbias = dtokens.sum(0)", "positions are forgotten"),
        (12, f"{_CUT}dweight = dtokens.T @ positions\ndbias = dy.sum(0)", "CLS is in the bias's sum"),
        (12, f"{_CUT}dtokens = dy[:-1]\ndweight = dtokens.T @ positions\ndbias = dtokens.sum(0)", "a wrong slice"),
        (9, "target = np.eye(p.shape[1])[labels]\nreturn (p - target) / len(p), None", "dy is missing"),
        (5, f"dv = p.T @ dy\n{_DS}dx = ds @ x + ds.T @ x", "the scale is forgotten"),
    ],
)
def test_a_trap_is_named_however_it_is_written(number, code, said, write):
    message = refused(exercises.completed(number, code), write)
    assert message.startswith("gradcheck: ") and said in message.rpartition("hint: ")[2]


def test_of_two_mistakes_the_worse_one_is_named_and_an_unknown_one_is_shown_by_its_numbers(write):
    lines = answers.known("07")["solution"]
    both = lines.replace("dpooled.sum(0)", "dpooled.mean(0)").replace("dy.sum(0)", "7 * dy.sum(0)")
    message = refused(exercises.completed(7, both), write)
    assert 'argument "bias"' in message and "the same factor 7.000" in message
    assert 'hint: argument "pooler_bias": the mean over the batch' in message
    known = answers.known("04")["wrong"]
    means = "dtokens = dy * scale\nreturn dtokens, dtokens.mean(0, keepdims=True), (dy * placed).mean((0, 2))[:, None]"
    message = refused(exercises.completed(4, means), write)
    named = {"positions": "a mean where a sum belongs", "scale": "scale's gradient averaged"}
    worst = re.search('argument "(.*)", worst', message)[1]
    assert message.endswith(f"hint: {known[named[worst]]['says'].strip()}")
    message = refused(exercises.completed(7, lines.replace("dy.sum(0)", "7 * dy.sum(0)")), write)
    assert "hint: a constant factor usually means a scale" in message
    message = refused(exercises.completed(7, lines.replace("dy.sum(0)", "dy.sum(0) * np.nan")), write)
    assert message.endswith("hint: backward made NaN or infinity.")


def test_what_an_exercise_looks_for_itself(write):
    shifted = "dx = np.roll(dy.reshape(B, Y, X, C, ph, pw).transpose(0, 3, 1, 4, 2, 5).reshape(x.shape), 1, 3)"
    message = refused(exercises.completed(1, shifted), write)
    place = r"hint: x\[0, 0, 0, 0\] became y\[0, 0, 0, 0, 0\], but it got the gradient of y\[0, 3, 0, 0, 0\]"
    assert re.search(f"{place}: 144 of 144", message)
    lines = answers.known("06")["solution"]
    message = refused(exercises.completed(6, lines.replace("mean(dn) -", "2 * mean(dn) -")), write)
    assert "a brighter token changes the output" in message
    message = refused(exercises.completed(6, lines.replace("mean(dn * n)", "2 * mean(dn * n)")), write)
    assert "more contrast changes the output" in message
    lines = answers.known("11")["solution"]
    message = refused(exercises.completed(11, lines.replace("(dp * p)", "2 * (dp * p)")), write)
    assert "twice a whole row of a + I changes the output" in message


def _rows(x, weight, bias):
    return np.einsum("...i,ki->...k", x, weight) + bias


def _softmax(s):
    return np.exp(s) / np.exp(s).sum(-1, keepdims=True)


def _least_squares(x, y, strength):
    """As many rows of zeros more as there are numbers: another way to the same weights."""
    D, K = x.shape[1], y.shape[1]
    return np.linalg.lstsq(np.r_[x, np.sqrt(strength) * np.eye(D)], np.r_[y, np.zeros((D, K))], rcond=None)[0]


def _cut(x, patch_size):
    (*_, H, W), (ph, pw) = x.shape, patch_size
    places = [(i, j) for i in range(0, H, ph) for j in range(0, W, pw)]
    return np.stack([x[:, :, i : i + ph, j : j + pw] for i, j in places], axis=1)


FORWARD = {
    1: _cut,
    2: _rows,
    3: lambda cls, patches: np.stack([np.r_[cls[0], image] for image in patches]),
    4: lambda tokens, positions, scale: np.stack([(image + positions[0]) * scale for image in tokens]),
    5: lambda x, v: _softmax(x @ x.T / math.sqrt(x.shape[1])) @ v,
    6: lambda x, w, b, eps: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * w + b,
    7: lambda x, w, b, w2, b2: np.array([w2 @ np.tanh(w @ tokens[0] + b) + b2 for tokens in x]),
    8: lambda table, index: np.array([table[i] for i in index.ravel()]).reshape(*index.shape, -1),
    9: lambda s, labels: -np.mean([np.log(_softmax(row)[label]) for row, label in zip(s, labels, strict=True)]),
    10: lambda grid, down, across: np.stack([down @ grid[..., d] @ across.T for d in range(grid.shape[2])], axis=-1),
    11: lambda a, below: (a + np.eye(4)) @ below / (a + np.eye(4)).sum(1)[:, None],
    12: lambda tokens, cls, w, b: np.array([cls[0], *(t + n * w[:, 0] + b for n, t in enumerate(tokens, start=1))]),
    13: _least_squares,
    14: lambda x, parts: np.einsum("nbd,med->nbme", x, parts).reshape(*x.shape[:2], -1),
}


@pytest.mark.parametrize("number", NUMBERS)
def test_the_reference_has_the_values_of_the_formula_written_in_another_way(number):
    exercise, solution, _ = exercises._reference(f"{number:02d}")
    for case in exercise.cases(np.random.default_rng(3)):
        y, _ = solution.ask(exercise.OP, case)
        expected = FORWARD[number](*case.inputs, *case.constants, **case.options)
        np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)


def test_no_solution_can_be_read_in_a_file_of_the_package_and_the_packed_ones_are_toml():
    packed = answers.PACKED.read_text(encoding="utf-8")
    assert max(map(len, packed.splitlines())) <= 100 and base64.b64decode(packed)
    assert answers.packed(answers.unpacked()) == packed
    assert sorted(tomllib.loads(answers.unpacked())) == [f"{number:02d}" for number in NUMBERS]
    texts = [path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py")]
    for number in NUMBERS:
        lines = [line.split("#")[0].strip() for line in answers.known(f"{number:02d}")["solution"].splitlines()]
        longest = max(lines, key=len)
        assert not any(longest in text for text in texts)


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
        ("@differentiable\n", "", r"take: the value is a tuple, and no Tensor\.\n  hint: keep @differentiable"),
        ("@differentiable\n", "@str\n", r"exercise 08: there is no 'take' in .*hint: keep the names"),
        ("import numpy as np", "import nunpy as np", r"line 12: outside of the function: ModuleNotFoundError: .*nunpy"),
        ("import numpy as np", "raise SystemExit(3)", r"work\.py, line 12: outside of the function: SystemExit: 3"),
        ("import numpy as np", "x = 1\0", "exercise 08"),
        ("import numpy as np", "x = []\nx.y", r"line 13: outside of the function: AttributeError: 'list'"),
        ("import numpy as np", "x = None\nx.shape", r"homework\.py, line 13: outside .*'shape'.*look at: x\.shape"),
        ("import numpy as np", "from numpy import nothing", r"line 12: outside .*: ImportError: .*nothing"),
        ("return table[index], backward", "raise AttributeError('shape')", r"line 26: AttributeError: shape\n"),
        ("return dtable, None", "dy[...] = 0", r"line 24: ValueError: .*read-only\n.*= 0.*; dy is not"),
        ("return dtable, None", "table[0] = 0\n        return dtable, None", r"take: an argument or the value"),
        ("return table[index], backward", "return table[index] // 1, backward", r"take: the value is not table"),
        ("return table[index], backward", "return table[index][:1], backward", r"value, \(1, 3\) for \(3, 3\), is no"),
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


def test_a_function_of_minivits_own_ops_is_no_backward(write, solved):
    text = solved.replace("@differentiable\n", "")
    text = text[: text.index("    def backward")] + "    return table[index]\n"
    assert "take: its gradient comes from minivit's own getitem." in refused(text, write)


def test_a_solution_that_is_judged_leaves_the_inputs_alone(write):
    exercise, solution, _ = exercises._reference("04")
    [case] = exercise.cases(np.random.default_rng(0))
    before = [x.copy() for x in case.inputs]
    _, gradients = solution.ask("add_positions", case, np.ones((3, 4, 2)))
    assert all(map(np.array_equal, before, case.inputs))
    tokens, positions, scale = (Tensor(x, requires_grad=True) for x in case.inputs)
    ((tokens + positions) * scale).sum().backward()
    for gradient, x in zip(gradients, (tokens, positions, scale), strict=True):
        np.testing.assert_allclose(gradient, x.grad)


# ---- the file of a number


def test_the_file_of_a_number_is_found_here_or_a_folder_below_by_any_name(tmp_path, monkeypatch, capsys, solved):
    monkeypatch.chdir(tmp_path)
    for folder in ("work", ".hidden", "work/deeper"):
        Path(folder).mkdir()
    Path("other.py").write_text(right(5), encoding="utf-8")
    Path("work/notes.py").write_text("# about minivit exercise 08\n", encoding="utf-8")
    for hidden in (".hidden/exercise_08.py", "work/deeper/exercise_08.py"):
        Path(hidden).write_text(solved, encoding="utf-8")
    with pytest.raises(FileError, match=r"exercise 08: there is none in .*\n  rule: .*\n  hint: minivit exercise 08"):
        exercises.find("8")
    assert main(["check", "8"]) == 2 and "exercise 08: there is none" in capsys.readouterr().err
    Path("work/mine.py").write_bytes(b"\xef\xbb\xbf" + solved.encode())
    assert exercises.find("08") == Path("work/mine.py")
    assert main(["check", "8"]) == 0 and capsys.readouterr().out.startswith("exercise 08: right. ")
    Path("again.py").write_text(solved, encoding="utf-8")
    with pytest.raises(FileError, match=r"exercise 08: there are 2:\n    again\.py\n    work.mine\.py\n  rule: "):
        exercises.find(8)
    Path("8").write_text(solved, encoding="utf-8")
    assert main(["check", "8"]) == 0  # a file of that name is that file


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
    text, says = wrong(8, "the last one wins")
    path.write_text(text, encoding="utf-8")
    assert main(["check", str(path)]) == 1
    out = capsys.readouterr().out
    assert 'gradcheck: take, argument "table", worst at' in out and says in out
    assert out.endswith(" --hint\n") and "stronger hint: minivit check " in out and "Begin with zeros" not in out
    assert main(["check", str(path), "--hint"]) == 1
    out = capsys.readouterr().out
    assert says in out and max(map(len, out.splitlines())) <= 110
    assert " ".join(out.split()).endswith(f"stronger hint: {answers.known('08')['hint'].strip()}")


def test_check_in_a_process_of_its_own(tmp_path, capsys, solved):
    path = tmp_path / "work.py"
    path.write_text(solved, encoding="utf-8")
    assert main(["check", str(path), "--seconds", "60"]) == 0
    assert capsys.readouterr().out.startswith("exercise 08: right. ")
    path.write_text(solved.replace("import numpy as np", "import numpy as np\nwhile True: pass"), encoding="utf-8")
    assert main(["check", str(path), "--seconds", "1"]) == 1
    assert "exercise 08: the time is up: 1 seconds." in capsys.readouterr().out


def test_a_solution_opens_after_a_check_that_passed_or_for_a_teacher(tmp_path, home, capsys, solved):
    assert main(["solution", "8"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("exercise 08: its solution opens when yours is right.") and "--teacher" in err
    assert main(["solution", "8", "--teacher"]) == 0
    assert capsys.readouterr().out == solved and list(home.iterdir()) == []
    path = tmp_path / "work.py"
    path.write_text(exercises.stub(8), encoding="utf-8")
    assert main(["check", str(path)]) == 1 and main(["solution", "08"]) == 2
    for number in (8, 13, 8):
        path.write_text(right(number), encoding="utf-8")
        assert main(["check", str(path)]) == 0
    assert (home / ".minivit" / "passed.txt").read_text(encoding="utf-8") == "08\n13\n"
    capsys.readouterr()
    assert main(["solution", "08"]) == 0 and capsys.readouterr().out == solved
    assert main(["solution", "05"]) == 2 and main(["solution", "99"]) == 2


def test_where_nothing_can_be_remembered_a_check_passes_all_the_same(tmp_path, home, solved):
    (home / ".minivit").write_text("a file", encoding="utf-8")
    path = tmp_path / "work.py"
    path.write_text(solved, encoding="utf-8")
    assert main(["check", str(path)]) == 0 and main(["solution", "08"]) == 2


def test_the_learners_code_may_print(tmp_path, capsys, solved):
    path = tmp_path / "work.py"
    text = solved.replace("    def backward(dy):", "    print(table.shape)\n\n    def backward(dy):")
    path.write_text(text, encoding="utf-8")
    assert main(["check", str(path)]) == 0 and capsys.readouterr().out.startswith("(5, 3)\n")


@pytest.mark.parametrize(
    "arguments", ["check none.py", "exercise 99", "exercise one", "check 99", "check x.py --csv grades.csv"]
)
def test_bad_input_exits_2(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
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
