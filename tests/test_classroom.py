"""A class: whose file is whose, the table, and files that do what no exercise should."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minivit.__main__ import main
from minivit.course import classroom, exercises
from minivit.course.exercises import answers, apart
from minivit.errors import FileError, MinivitError

ROOT = Path(__file__).parents[1]
SECONDS = 30  # more than a slow machine needs for what ends


def right(number=8):
    """The stub with its solution."""
    return exercises.completed(number, answers.known(f"{number:02d}")["solution"])


def wrong():
    """Exercise 08 with a mistake."""
    return exercises.completed(8, answers.known("08")["wrong"]["the mean"]["code"])


@pytest.fixture
def hand_in(tmp_path):
    """hand_in(name, text): write a file, in folders if need be, into the folder of the class, which is returned."""

    def hand_in(name, text):
        path = tmp_path / "class" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return tmp_path / "class"

    return hand_in


def rows(path):
    """The table as {(name, exercise): row}."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {(row["name"], row["exercise"]): row for row in csv.DictReader(file)}


# ---- whose file it is


@pytest.mark.parametrize(
    "path, name",
    [
        ("anna/exercise_05.py", "anna"),
        ("anna/week 2/homework.py", "anna"),
        ("anna_exercise_05.py", "anna"),
        ("anna exercise5.py", "anna"),
        ("Exercise-05 Anna M.py", "Anna M"),
        ("exercise_05/anna/exercise_05.py", "anna"),
        ("exercise_05/anna_exercise_05.py", "anna"),
        ("Anna M\xfcller_12345_assignsubmission_file_exercise_08.py", "Anna M\xfcller"),
        ("Anna M\xfcller_12345_assignsubmission_file_/exercise_08.py", "Anna M\xfcller"),
        ("Anna M\xfcller_12345_assignsubmission_file/exercise_08.py", "Anna M\xfcller"),
        ("mulleranna_12345_67890_exercise_08-1.py", "mulleranna"),
        ("mulleranna_LATE_12345_67890_exercise_08.py", "mulleranna"),
        ("123456_exercise_08.py", "123456"),
        ("Anna_Smith_2_exercise_08.py", "Anna_Smith_2"),
        ("anna.py", "anna"),
        ("exercise_05.py", ""),
    ],
)
def test_whose_file_it_is(path, name):
    assert classroom.student(Path(path)) == name


def test_a_folder_of_many_is_graded_into_a_table(hand_in, tmp_path, capsys):
    hand_in("anna/exercise_08.py", right())
    hand_in("anna/exercise_03.py", right(3))
    hand_in("ben_exercise_08.py", wrong())
    hand_in("Cem D\u00f6_12345_assignsubmission_file_exercise_08.py", exercises.stub(8))
    hand_in("=cmd()_exercise_08.py", "".join(right().splitlines(keepends=True)[1:]))
    hand_in("dora/notes.txt", "nothing")
    hand_in("dora/helper.py", "x = 1")
    hand_in("dora/.git/exercise_08.py", right())
    folder = hand_in("dora/__pycache__/exercise_08.py", right())
    table = tmp_path / "grades.csv"
    assert main(["check", str(folder), "--csv", str(table), "--seconds", str(SECONDS)]) == 0
    out, err = capsys.readouterr()
    assert not err and max(map(len, out.replace(str(tmp_path), "").splitlines())) <= 100
    assert "2 of 5 are right." in out and out.endswith(f"{table}\n")
    assert "note: no exercises, and not graded: dora/helper.py, dora/notes.txt" in out
    assert "ben                       08        no     a mean; every time that a row was asked for counts" in out
    found = rows(table)
    assert list(found) == [("'=cmd()", "08"), ("Cem D\u00f6", "08"), ("anna", "03"), ("anna", "08"), ("ben", "08")]
    assert [row["passed"] for row in found.values()] == ["no", "no", "yes", "yes", "no"]
    assert found["anna", "03"]["message"].startswith("exercise 03: right.")
    assert "is not an exercise" in found["'=cmd()", "08"]["message"]
    assert 'still says "..."' in found["Cem D\u00f6", "08"]["message"]
    assert found["ben", "08"]["file"] == "ben_exercise_08.py" and "\n" not in found["ben", "08"]["message"]
    assert main(["check", str(folder), "--csv", str(table)]) == 0 and rows(table) != {}  # its own is replaced
    assert sorted(path.name for path in tmp_path.iterdir()) == ["class", "grades.csv"]


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "=HYPERLINK(...)"])
def test_no_cell_of_the_table_is_computed_by_a_table_program(cell, tmp_path):
    table = tmp_path / "grades.csv"
    classroom._write(table, [classroom.Grade(cell, "08", False, f"{cell}, \"said\"\n  hint: 'x'", cell)])
    [row] = rows(table).values()
    assert row["name"] == row["file"] == f"'{cell}" and row["message"] == f"'{cell}, \"said\" hint: 'x'"


@pytest.mark.parametrize("content", [b"name,grade\nanna,1\n", b"", b"\xff\xfe", None])
def test_another_file_is_not_replaced_and_nothing_is_graded(content, hand_in, tmp_path, capsys):
    folder, table = hand_in("anna/exercise_08.py", right()), tmp_path / "grades.csv"
    table.mkdir() if content is None else table.write_bytes(content)
    assert main(["check", str(folder), "--csv", str(table)]) == 2
    out, err = capsys.readouterr()
    assert not out and "grades.csv: is there already, and is no table of grades." in err
    assert content is None or table.read_bytes() == content


def test_a_folder_without_exercises(tmp_path, capsys):
    assert main(["check", str(tmp_path)]) == 2
    assert "there is no exercise in this folder." in capsys.readouterr().err


def test_help_says_that_the_code_is_run(capsys):
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "whose code is run" in words and "in a process of its own, for N seconds" in words
    assert "no prison for malice" in words and "but for Windows, in 1 GB of memory" in words


# ---- what a file may do

PATCH = "import minivit.gradcheck as g, minivit.course.exercises.judge as j, minivit.course.exercises as e\n"
PATCH += "g.gradcheck = j.gradcheck = e.judge = lambda *a, **k: True"
WRITE = "    try: os.write(n, b'passed' * 9)\n    except OSError: pass"
TRICKS = {  # name: (lines at the beginning of a file, what is said where its solution is right; None: that it is right)
    "ends the process": ("import os; os._exit(0)", "the process ended without an answer"),
    "deletes builtins": ("import builtins; builtins.__dict__.clear()", "the process ended without an answer"),
    "deletes one": ("import builtins; del builtins.len", ""),
    "patches minivit": (PATCH, "the file changes minivit."),
    "patches a class": ("from minivit import Tensor; Tensor.backward = None", "file changes Tensor.backward"),
    "patches NumPy": ("import numpy; numpy.allclose = lambda *a, **k: True", "the file changes numpy.allclose"),
    "starts a copy": ("import multiprocessing as m; m.Process(target=print).start()", "an exercise needs no "),
    "starts a program": ("import subprocess; subprocess.run(['x'])", "an exercise needs no subprocess.Popen"),
    "kills the grader": ("import os; os.kill(os.getppid(), 9)", "an exercise needs no os.kill"),
    "ends Python": ("raise SystemExit(0)", "outside of the function: SystemExit: 0"),
    "ends at the end": ("import atexit, os; atexit.register(os._exit, 0)", None),
    "says that it passed": ("import os; print('exercise 08: right.'); os.write(1, b'passed')", None),
    "writes into all pipes": (f"import os\nfor n in range(3, 20):\n{WRITE}", ""),
    "closes all pipes": ("import os; os.closerange(0, 100)", ""),
    "imports what may write": ("import matplotlib; matplotlib.get_configdir(), matplotlib.get_cachedir()", None),
    "waits for input": ("input()", "EOFError"),
    "writes a file": ("open('x.txt', 'w')", "an exercise writes no file"),
    "deletes a folder": ("import shutil; shutil.rmtree('..')", "an exercise needs no shutil.rmtree"),
    "forgets modules": ("import sys; sys.modules.clear()", ""),
}
if hasattr(os, "fork"):
    TRICKS["forks"] = "import os; os.fork()", "line 13: outside of the function: PermissionError: an exercise"
if sys.platform == "linux":  # where the system counts what a process takes
    TRICKS["takes memory"] = "x = [bytearray(10**8) for _ in range(100)]", "MemoryError"


@pytest.mark.parametrize("name", TRICKS)
def test_no_trick_makes_a_wrong_file_right(name, hand_in):
    trick, said = TRICKS[name]
    for text in (wrong(), right()):
        path = hand_in("work.py", text.replace("import numpy as np", f"import numpy as np\n{trick}", 1)) / "work.py"
        if text == right() and said is None:
            assert exercises.grade(path, SECONDS).startswith("exercise 08: right. ")
            continue
        with pytest.raises(MinivitError) as caught:
            exercises.grade(path, SECONDS)
        if text == right():
            assert said in str(caught.value) and "right." not in str(caught.value)


@pytest.mark.parametrize(
    "trick", ["while True: pass", "import time; time.sleep(1000)", "while True: print('right. ' * 1000)"]
)
def test_what_never_ends_is_ended_when_the_time_is_up_and_what_it_printed_is_cut(trick, hand_in, capsys):
    hand_in("anna/exercise_08.py", right())
    slow = right().replace("    def backward(dy):", f"    {trick}\n\n    def backward(dy):")
    folder = hand_in("ben/exercise_08.py", slow)
    with pytest.raises(MinivitError) as caught:
        exercises.grade(folder / "ben" / "exercise_08.py", 1)
    text, _, printed = str(caught.value).partition("\n  it printed: ")
    assert text.startswith("exercise 08: the time is up: 1 seconds.\n  hint: is there a loop without an end?")
    assert printed.startswith("right. right. ") == ("print" in trick) and len(printed) < 210


def test_what_a_file_prints_before_it_fails_is_shown(hand_in):
    text = right().replace("return dtable", "print('here', dtable.shape)\n        return dtabel")
    path = hand_in("work.py", text) / "work.py"
    with pytest.raises(MinivitError) as caught:
        exercises.grade(path, SECONDS)
    assert "work.py, line 25: NameError" in str(caught.value) and str(caught.value).endswith("it printed: here (5, 3)")


def test_a_file_may_exit_in_the_midst_of_its_backward(hand_in):
    text = right().replace("return dtable", "import os; os._exit(0)\n        return dtable")
    with pytest.raises(MinivitError, match="the process ended without an answer"):
        exercises.grade(hand_in("work.py", text) / "work.py", SECONDS)


def test_one_slow_file_does_not_stop_the_others(hand_in, tmp_path):
    for name in ("anna", "cem"):
        hand_in(f"{name}/exercise_08.py", right())
    folder = hand_in("ben/exercise_08.py", right() + "while True: pass\n")
    classroom.grade_class(folder, tmp_path / "grades.csv", 4)
    found = rows(tmp_path / "grades.csv")
    assert [row["passed"] for row in found.values()] == ["yes", "no", "yes"]


class Stream:
    """What receive reads from: bytes."""

    def __init__(self, data):
        self.data = data

    def read(self, size):
        """The next bytes."""
        first, self.data = self.data[:size], self.data[size:]
        return first

    def write(self, data):
        """Add bytes."""
        self.data += data

    def flush(self):
        """Nothing waits."""


def test_a_message_travels_whole_and_never_by_pickle():
    stream, arrays = Stream(b""), [np.arange(6.0).reshape(2, 3), np.array([True, False]), np.float32(3)]
    apart.send(stream, arrays, op="take", options={"eps": 0.1})
    came, words = apart.receive(stream)
    assert words == {"op": "take", "options": {"eps": 0.1}} and not stream.data
    for one, other in zip(arrays, came, strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other)
    with pytest.raises(ValueError, match="allow_pickle"):
        apart.send(stream, [np.array([object()])])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 10,
        b"passed " * 100,
        (10).to_bytes(8, "little") + (10**12).to_bytes(8, "little"),
        (2).to_bytes(8, "little") + bytes(8) + b"[]",
        (13).to_bytes(8, "little") + bytes(8) + b'{"arrays": 1}',
        (20000).to_bytes(8, "little") + bytes(8) + b"[" * 20000,
    ],
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises(Exception):  # noqa: B017  whatever it is, the file has not answered
        apart.receive(Stream(data))


@pytest.mark.parametrize(
    "answer",
    [
        [],
        [np.array([True])],
        [np.array([True]), np.zeros((3, 3))],
        [np.array([True]), np.array(["right"])],
        [np.float64(1), np.zeros((3, 3)), np.zeros((5, 3))],
        [np.array([True]), np.zeros((3, 3)), np.zeros((5, 3), complex)],
        [np.array([True]), np.zeros((3, 3)), np.zeros((3, 5))],
    ],
)
def test_an_answer_of_another_form_is_wrong(answer, monkeypatch, hand_in):
    """As if the learner's code had written it."""
    path = hand_in("work.py", right()) / "work.py"
    monkeypatch.setattr(apart.Apart, "_answer", lambda self, seconds=None: answer)
    with pytest.raises(MinivitError):
        exercises.grade(path, SECONDS)


def running():
    """{number of a process: that of the one which started it}"""
    lines = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid="], text=True).splitlines()
    return dict(map(str.split, lines))


def children(pid):
    """The numbers of the processes that this one started."""
    return [child for child, parent in running().items() if parent == str(pid)]


@pytest.mark.skipif(os.name == "nt", reason="its Ctrl-C goes to all processes of a console, the tests' too")
def test_ctrl_c_stops_a_class_and_leaves_no_process_and_no_table(hand_in, tmp_path):
    folder = hand_in("anna/exercise_08.py", right())
    hand_in("ben/exercise_08.py", right() + "while True: pass\n")
    words = ["check", str(folder), "--csv", str(tmp_path / "grades.csv"), "--seconds", "500"]
    command, pipe = [sys.executable, "-m", "minivit", *words], subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe)
    with process:
        lines = [process.stdout.readline() for _ in range(2)]
        assert lines[1].startswith(b"anna ")
        while not children(process.pid):
            time.sleep(0.1)
        others = children(process.pid)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == b"stopped after 1 of 2 files; no table is written.\n"
    assert not (tmp_path / "grades.csv").exists()
    end = time.monotonic() + 30  # one that was killed stands in the list until the system has taken note of it
    while (left := [pid for pid in others if pid in running()]) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left


def test_a_file_that_is_gone_meanwhile_is_a_row(hand_in, monkeypatch, tmp_path):
    folder = hand_in("anna/exercise_08.py", right())
    found = classroom._handed_in(folder)
    (folder / "anna" / "exercise_08.py").unlink()
    monkeypatch.setattr(classroom, "_handed_in", lambda folder: found)
    classroom.grade_class(folder, tmp_path / "grades.csv")
    assert "cannot be read" in rows(tmp_path / "grades.csv")["anna", "08"]["message"]


def test_grading_alone_finds_out_what_is_no_exercise(hand_in):
    with pytest.raises(FileError, match="is not an exercise"):
        exercises.grade(hand_in("work.py", "x = 1") / "work.py", SECONDS)
