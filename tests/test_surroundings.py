"""Shells that people really have: outputs that fail, backends that are not there, names that are no plain text."""

import contextlib
import io
import json
import os
import re
import struct
import subprocess
import sys
import types
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from minivit import errors, images, plots, vit
from minivit.__main__ import main
from minivit.cli import commands, surroundings
from minivit.machinery import progress

ROOT = Path(__file__).parents[1]


def run(*arguments, shell="", **environment):
    """python -m minivit ARGUMENTS in a shell that ends with `shell`, its output redirected say."""
    command = ["bash", "-c", f'set -o pipefail; "$0" -m minivit "$@" {shell}', sys.executable, *map(str, arguments)]
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONUNBUFFERED", "MPLBACKEND")}
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False, env=env | environment)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder of a small model of the digits, untrained."""
    folder = tmp_path_factory.mktemp("model")
    config = vit.ViTConfig(8, 1, 2, 8, image_size=8, patch_size=4, num_channels=1, num_labels=10)
    vit.ViTForImageClassification(config).save_pretrained(folder)
    return folder


# ---- matplotlib


def test_a_backend_in_the_environment_stops_no_command(model, tmp_path):
    inline = "module://matplotlib_inline.backend_inline"
    done = run("evaluate", model, "digits", "--out", tmp_path, MPLBACKEND=inline)
    assert done.returncode == 0 and not done.stderr, done.stderr
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.width == 1000
    done = run("run", "01", MPLBACKEND="nonsense")
    assert done.returncode == 0
    assert done.stderr == b"note: no window can be opened here. --out DIR saves the figures.\n"


def test_the_backend_is_agg_only_where_no_window_is_wanted_and_the_environment_stays_as_it_was(monkeypatch):
    before = matplotlib.get_backend()
    try:
        for wanted, windows, backend in (
            ("svg", True, "svg"),
            ("svg", False, "agg"),
            ("module://matplotlib_inline.backend_inline", True, "agg"),
            ("nonsense", True, "agg"),
            ("nonsense", False, "agg"),
        ):
            monkeypatch.setenv("MPLBACKEND", wanted)
            matplotlib.use("pdf")
            assert surroundings.matplotlib(windows).get_backend().lower() == backend
            assert os.environ["MPLBACKEND"] == wanted
        monkeypatch.delenv("MPLBACKEND")
        matplotlib.use("pdf")
        assert surroundings.matplotlib(windows=True).get_backend() == "pdf"
    finally:
        matplotlib.use(before)


def test_plots_keeps_the_backend_of_a_notebook():
    code = "import matplotlib; matplotlib.use('svg'); import minivit; minivit.plots\n"
    code += "from matplotlib import pyplot; print(pyplot.get_backend())"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "svg\n"


def test_commands_without_figures_never_import_pyplot(model, tmp_path):
    """In one process, one after the other; so that the first which does is the one that is named."""
    program = "import json, sys\nfrom minivit.__main__ import main\n"
    program += "for arguments in json.loads(sys.argv[1]):\n"
    program += "    try:\n        code = main(arguments)\n    except SystemExit as stop:\n        code = stop.code\n"
    program += "    print('exit code', code, 'matplotlib' in sys.modules)"
    cat, hf = str(images.photo()), str(tmp_path / "hf")
    commands = {
        ("list",): 0,
        ("show", "softmax"): 0,
        ("gradcheck",): 0,
        ("predict", str(model), cat): 0,
        ("export", str(model), hf): 0,
        ("import", hf, str(tmp_path / "back")): 0,
        ("exercise", "05", "--out", str(tmp_path)): 0,
        ("check", str(tmp_path / "exercise_05.py")): 1,
        ("--help",): 0,
        ("--version",): 0,
        ("evaluate", "nowhere", "digits"): 2,
        ("train", "nowhere", "--out", hf): 2,
        ("finetune", str(model), "digits", "--out", hf): 2,
    }
    run = [sys.executable, "-c", program, json.dumps([*commands])]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    found = re.findall(r"^exit code (.*)$", done.stdout, re.M)
    assert dict(zip(commands, found, strict=True)) == {command: f"{code} False" for command, code in commands.items()}


# ---- output


@pytest.mark.parametrize("shell", [">/dev/full", "2>/dev/full", ">&- 2>&-", "| head -c 1", "2>&1 | head -c 1"])
def test_exit_code_and_state_do_not_depend_on_whether_the_output_can_be_written(shell, tmp_path):
    sizes = ("--epochs", 1, "--hidden-size", 8, "--num-hidden-layers", 1, "--batch-size", 200)
    assert run("train", "digits", *sizes, "--out", tmp_path, shell=shell).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"config.json", "curves.png", "history.csv", "training.npz"}
    done = run("check", "nowhere.py", shell=shell)
    assert done.returncode == 2 and b"Traceback" not in done.stderr and b"Exception" not in done.stderr


def test_a_stream_without_a_number_that_fails_is_given_up(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

        def flush(self):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["list"]) == 0
    assert isinstance(sys.stdout, Full)
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["list"]) == 0 and sys.stdout is None


def line(stderr, monkeypatch, columns, live=True, **changes):
    """A Line that writes to `stderr`, as a terminal of so many columns; and a step of a run."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(stderr, "isatty", lambda: live, raising=False)
    made = progress.Line(1200, 1000, 0, **changes)
    made.tested = "test accuracy 100.00%"
    return made, types.SimpleNamespace(epoch=1199, done=10, sums=np.array([123.45678, 10.0]))


class Closed(io.StringIO):
    """A terminal that was closed while the program runs."""

    def write(self, text):
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("with_tqdm", [True, False])
def test_a_training_is_not_lost_for_its_progress_line(with_tqdm, monkeypatch):
    if not with_tqdm:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    row = {"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "seconds": 1.0}
    for live in (True, False):
        for stream in (Closed(), io.StringIO()):
            made, step = line(stream, monkeypatch, 80, live)
            stream.close()  # of the second kind every write raises a ValueError
            monkeypatch.setattr(sys, "stdout", stream)
            for _ in range(1200):
                made.step(step, 1000)
            made.epoch(row)
            made.close()
    monkeypatch.setattr(sys, "stderr", None)
    assert not progress.Line(1, 1, 0).live


@pytest.mark.parametrize("with_tqdm", [True, False])
@pytest.mark.parametrize("columns", [40, 60, 80, 100, 200])
def test_the_live_line_never_wraps_and_shows_rate_and_time_left(with_tqdm, columns, monkeypatch):
    if not with_tqdm:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    stream = io.StringIO()
    made, step = line(stream, monkeypatch, columns)
    made.started -= 100
    if with_tqdm:
        made.bar.start_t -= 100
        made.bar.smoothing = 0  # the rate of all the time, and not of the last moments
    for _ in range(1200):
        made.step(step, 1000)
    made.close()
    shown = [text for text in re.split(r"[\r\n]", stream.getvalue()) if text.strip()]
    assert max(map(len, shown)) < columns
    last = shown[-1]
    assert re.search(r"\b1[12]\d\d\d(\.\d\d)? images/s  (00:00|0 s) left$", last.strip()), last
    for text, needed in (("epoch 1200/1200", 60), ("  loss 12.3457", 80), ("  test accuracy 100.00%", 100)):
        needed -= 0 if with_tqdm or needed == 60 else 20
        assert (text in last) == (columns >= needed), text
    assert ("accuracy 100.00%  test accuracy 100.00%" in last) == (columns >= (200 if with_tqdm else 100))


def test_the_columns_are_those_of_the_terminal_that_the_line_is_written_to(monkeypatch):
    """Standard output goes to a file, and COLUMNS says what was true of another window."""
    from fcntl import ioctl
    from termios import TIOCSWINSZ

    master, slave = os.openpty()
    ioctl(slave, TIOCSWINSZ, struct.pack("HHHH", 24, 57, 0, 0))
    monkeypatch.setenv("COLUMNS", "200")
    with open(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert progress._columns() == 57
        ioctl(slave, TIOCSWINSZ, struct.pack("HHHH", 24, 0, 0, 0))  # a terminal that does not know
        assert progress._columns() == 200
    os.close(master)


# ---- interrupts and faults


@pytest.mark.parametrize("module", ["numpy", "minivit.autograd", "argparse", "minivit.cli.parser", "minivit.course"])
@pytest.mark.parametrize("start", ["runpy.run_module('minivit', run_name='__main__', alter_sys=True)", "script"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["as it is", "in the midst of a class"])
def test_ctrl_c_while_the_imports_run_leaves_no_traceback(module, start, wrapped):
    script = "sys.argv[0] = '/bin/minivit'\nfrom minivit.__main__ import main\nsys.exit(main())"
    code = f"""
import runpy, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            sys.modules.pop("argparse", None)
            {"raise RuntimeError('of a class') from KeyboardInterrupt()" if wrapped else "raise KeyboardInterrupt"}
sys.modules.pop({module!r}, None)
sys.meta_path.insert(0, Finder)
sys.argv = ["-m", "gradcheck"]
{script if start == "script" else start}
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_ctrl_c_while_somebody_elses_program_imports_minivit_is_theirs():
    code = "import sys\nclass Finder:\n    def find_spec(name, path=None, target=None):\n"
    code += "        if name == 'minivit.autograd':\n            raise KeyboardInterrupt\n"
    code += "sys.meta_path.insert(0, Finder)\n"
    code += "try:\n    import minivit\nexcept KeyboardInterrupt:\n    print('theirs')"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "theirs\n"


def raising(error):
    def table(rng=0):
        raise error

    return table


def endless(rng=0):
    return endless(rng)


@pytest.mark.parametrize(
    ("table", "code", "message"),
    [
        (raising(MemoryError("Unable to allocate 3.00 GiB")), 2, "there is not enough memory: Unable to allocate 3.00"),
        (raising(MemoryError()), 2, "there is not enough memory: for Python itself."),
        (endless, 2, "something is nested too deeply: maximum recursion depth exceeded"),
        (raising(OSError(28, "No space left on device")), 2, r"[Errno 28] No space left on device"),
        (raising(KeyError("a bug")), 1, "in what it is installed with: KeyError: 'a bug' (test_surroundings.py, line "),
        (raising(AssertionError()), 1, "a fault in the program, or in what it is installed with: AssertionError"),
        (raising(ImportError("DLL load failed")), 1, "in what it is installed with: ImportError: DLL load failed"),
        (raising(UnicodeError("\x1b[31m\n" * 200)), 1, r"UnicodeError: \x1b[31m\n\x1b[31m\n"),
    ],
)
def test_no_fault_shows_a_traceback(table, code, message, monkeypatch, capsys):
    monkeypatch.setattr("minivit.course.cases.table", table)
    assert main(["gradcheck"]) == code
    out, err = capsys.readouterr()
    assert not out and message in err and "Traceback" not in err
    assert err.count("\n") <= 2 and max(map(len, err.splitlines())) < 600


def test_the_engineer_who_asks_for_a_traceback_gets_it(tmp_path):
    code = "import sys, minivit.course.cases as cases\ncases.table = None\n"
    code += "from minivit.__main__ import main\nsys.exit(main(['gradcheck']))"
    for options, shown in (([], False), (["-X", "dev"], True)):
        run = [sys.executable, *options, "-c", code]
        done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and ("Traceback" in done.stderr) == shown
        assert "TypeError: 'NoneType' object is not callable" in done.stderr


# ---- names and texts from outside


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[31mred.jpg", r"a\x1b[31mred.jpg"),
        ("\x1b]0;pwn\x07", r"\x1b]0;pwn\x07"),
        ("two\nlines\r\tand \x9b2J", r"two\nlines\r\tand \x9b2J"),
        ("\udcff\udcfe", r"\udcff\udcfe"),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),  # which a terminal would turn into photoexe.jpg
        ("K\xe4tzchen \u732b \U0001f431.jpg", "K\xe4tzchen \u732b \U0001f431.jpg"),
        ("10.00.00\u202fAM, n\xb0\xa05, \u732b\u3000\u72ac", "10.00.00\u202fAM, n\xb0\xa05, \u732b\u3000\u72ac"),
        (Path("C:/photos"), str(Path("C:/photos"))),
        ("a" * 5000 + "b" * 5000, "a" * 100 + "..." + "b" * 97),
        ("a" * 200, "a" * 200),
        ("\x00" * 10_000, r"\x00" * 25 + "..." + r"x00" + r"\x00" * 23 + ""),
    ],
)
def test_text_from_outside_is_shown_as_one_line_that_a_terminal_only_shows(text, expected):
    assert errors.shown(text)[:100] == expected[:100]
    assert len(errors.shown(text)) <= 200
    if len(str(text)) < 1000 or "\x00" not in str(text):
        assert errors.shown(text) == expected


def test_every_error_shows_what_came_from_outside_so():
    error = errors.FileError("a\x1b.jpg\nhint: rm", "is \x07bad:\n    " + "x" * 10_000, rule="\x9b", hint="\u202e")
    where, what, rule, hint = str(error).splitlines()
    assert where == r"a\x1b.jpg\nhint: rm: is \x07bad:"
    assert what == "    " + "x" * 246 + "..." + "x" * 247
    assert (rule, hint) == (r"  rule: \x9b", r"  hint: \u202e")
    assert errors.shortened(["\x1b"] * 12) == [r"\x1b"] * 10 + ["... and 2 more"]


NAMES = ("\x1b]0;pwn\x07", "b" * 10_000, "\udcff\udcfe", "four $x^$")


def test_commands_show_names_from_models_and_files_as_they_are(tmp_path, capsys, model):
    """Class names from config.json and a photo's name, in what predict prints and what is refused."""
    config = vit.ViTConfig(8, 1, 2, 8, image_size=8, patch_size=4, num_channels=1, id2label=dict(enumerate(NAMES)))
    vit.ViTForImageClassification(config).save_pretrained(tmp_path / "model")
    photo = tmp_path / "a\x1b[31mred.png"
    Image.new("L", (8, 8)).save(photo)
    assert main(["predict", str(tmp_path / "model"), str(photo), "--top", "4"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.endswith(r"a\x1b[31mred.png")
    expected = {r"\x1b]0;pwn\x07", "b" * 100 + "..." + "b" * 97, r"\udcff\udcfe", "four $x^$"}
    assert {text[11:] for text in lines} == expected
    for arguments in (
        ("evaluate", str(tmp_path / "model"), "digits"),
        ("predict", str(tmp_path / "model"), "none\x1b[31m.png"),
        ("check", "x" * 10_000),
        ("tour", "\x1b.jpg"),
        ("train", "\x07", "--out", str(tmp_path / "x")),
        ("run", "\x1b"),
        ("export", str(model), str(model) + "\x1b", "\x1b[31m"),
    ):
        with contextlib.suppress(SystemExit):  # argparse's
            assert main(arguments) == 2
        err = capsys.readouterr().err
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", err) and max(map(len, err.splitlines())) <= 600


def test_classes_whose_names_are_no_plain_text_are_trained_evaluated_and_exported(tmp_path, capsys):
    for red, name in enumerate((b"\xff\xfe", b"\x1b]0;pwn\x07", b"line\nbreak", b"c" * 250)):
        folder = os.fsencode(tmp_path / "photos") + b"/" + name
        os.makedirs(folder)
        for green in range(2):
            path = os.fsdecode(folder + b"/%d\x1b.png" % green)
            Image.new("RGB", (8, 8), (60 * red, green, 0)).save(path)
    Path(os.fsdecode(folder), "broken\x1b.png").write_bytes(b"no photo")
    sizes = ("--image-size", "8", "--patch-size", "4", "--epochs", "1")
    out = tmp_path / "out"
    assert main(["train", str(tmp_path / "photos"), *sizes, "--out", str(out)]) == 0
    assert r"broken\x1b.png" in capsys.readouterr().out
    assert main(["evaluate", str(out), str(tmp_path / "photos")]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^\\udcff\\udcfe +1 ", printed, re.M) and re.search(r"^line\\nbreak +1 ", printed, re.M)
    assert "\x1b" not in printed and max(map(len, printed.splitlines())) <= 4 + 200 + 4
    assert main(["export", str(out), str(tmp_path / "hf")]) == 0
    names = json.loads((tmp_path / "hf" / "config.json").read_text(encoding="utf-8"))["id2label"].values()
    assert {r"\udcff\udcfe", "\x1b]0;pwn\x07", "line\nbreak", "c" * 250} == set(names)
    assert main(["predict", str(tmp_path / "hf"), str(Path(os.fsdecode(folder), "0\x1b.png"))]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_the_confusion_figure_shows_such_names_too():
    figure = plots.confusion(np.eye(4, dtype=int), NAMES)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [r"\x1b]0;pwn\x07", "b" * 20 + "..." + "b" * 17, r"\udcff\udcfe", r"four \$x^\$"]
    pyplot.close(figure)


def test_the_table_by_class_stays_narrow(capsys):
    commands._print_classes(np.eye(4, dtype=int), NAMES)
    assert max(map(len, capsys.readouterr().out.splitlines())) == 60 + len("         1  100.0%  100.0%")
