"""The command line: what each command prints, its exit codes, and that a mistake is explained without a traceback."""

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from PIL import Image

from minivit import __version__, images
from minivit.__main__ import main

ROOT = Path(__file__).parents[1]


def run(*arguments, code=None, **options):
    """python -m minivit ARGUMENTS, or python -c CODE, in a process of its own."""
    what = ["-m", "minivit", *map(str, arguments)] if code is None else ["-c", code]
    return subprocess.run([sys.executable, *what], cwd=ROOT, capture_output=True, text=True, check=False, **options)


def test_a_lesson_without_a_screen_says_how_to_see_its_figures(monkeypatch, capsys):
    monkeypatch.setattr("minivit.course.lessons.run", lambda *args: [])
    assert main(["run", "05"]) == 0
    assert "--out DIR saves the figures" in capsys.readouterr().err
    assert main(["run", "05", "--out", "figures"]) == 0
    assert not capsys.readouterr().err


def test_tour_of_the_cat_with_the_trained_eye(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["tour"]) == 0
    out, err = capsys.readouterr()
    assert not err and out.replace(str(ROOT), "").isascii()
    for shape in (
        *("(224, 336, 3)", "(1, 3, 224, 336)", "(1, 384, 588)", "(1, 384, 384)", "(1, 385, 384)"),
        *("(1, 385, 64)", "(1, 385, 385)", "(1, 3)"),
    ):
        assert f" {shape} " in out
    for count in ("226,176", "526,080", "21,293,568", "22,046,976"):
        assert re.search(rf" {count}( |\n)", out)
    error = re.search(r"relative error (\S+) over 3 directions of 22 million numbers", out)
    assert float(error[1]) < 1e-5
    figures = sorted((tmp_path / "tour").iterdir())
    assert [path.suffix for path in figures] == [".png"] * 6
    for path in figures:
        with Image.open(path) as image:
            assert image.width == 1000


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["photo.png", "--out", "folder", "--patch", "4,9"], ("photo.png", "folder", (4, 9), False, 0)),
        (["--untrained", "--seed", "7"], (images.photo("cat.jpg"), "tour", None, True, 7)),
    ],
)
def test_tour_takes_its_arguments(arguments, expected, monkeypatch):
    calls = []
    monkeypatch.setattr("minivit.course.tour.tour", lambda *given: calls.append(given))
    matplotlib.use("svg")
    assert main(["tour", *arguments]) == 0
    assert calls == [expected] and matplotlib.get_backend().lower() == "agg"  # it opens no window


def test_bad_input_is_explained_without_a_traceback(tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("not a picture", encoding="utf-8")
    for arguments, message in (
        ((tmp_path / "none.jpg",), "none.jpg: there is no such file."),
        ((text,), "text.jpg: this is not a picture that Pillow can read."),
        (("--out", text), "text.jpg: a file is in the way of this folder."),
    ):
        done = run("tour", "--out", tmp_path / "new", *arguments)
        assert done.returncode == 2 and not done.stdout
        assert message in done.stderr and "hint: " in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [text]


@pytest.mark.parametrize("seed", ["-1", "1.5", "cat"])
def test_a_bad_seed(seed, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["tour", "--seed", seed])
    assert stop.value.code == 2
    assert f"'{seed}' is not a whole number, 0 or more" in capsys.readouterr().err


def test_gradcheck_prints_the_table(capsys):
    assert main(["gradcheck"]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert re.search(r"^layer_norm +weight +\d\.\de-\d\d$", out, re.MULTILINE)
    last = r"\d+ gradients compared with finite differences, 0 above the allowed 1e-06\."
    assert re.fullmatch(last, out.splitlines()[-1])


@pytest.mark.parametrize("error, code", [(1e-6, 0), (1.1e-6, 1), (float("nan"), 1)])
def test_gradcheck_exits_1_when_a_gradient_is_wrong(error, code, capsys, monkeypatch):
    monkeypatch.setattr("minivit.course.cases.table", lambda rng=0: [("add", "x", 0.0), ("long_name", "y", error)])
    assert main(["gradcheck"]) == code
    *_, good, bad, _, last = capsys.readouterr().out.splitlines()
    assert good.split() == ["add", "x", "0.0e+00"] and len(good) == len(bad.removesuffix("  too large"))
    assert bad.endswith("too large") == (code == 1)
    assert last == f"2 gradients compared with finite differences, {code} above the allowed 1e-06."


def test_help_names_every_command_and_imports_neither_matplotlib_nor_pillow():
    done = run(
        code="import sys, minivit.__main__ as m\n"
        "try:\n    m.main(['--help'])\n"
        "except SystemExit as stop:\n"
        "    print(stop.code, [x for x in ('matplotlib', 'PIL', 'json') if x in sys.modules])"
    )
    assert done.stdout.splitlines()[-1] == "0 ['json']"  # json is one that is imported
    for words in ("tour", "gradcheck", "minivit tour images/cat.jpg --out figures"):
        assert words in done.stdout


def test_version_and_help_of_one_command(capsys):
    version = f"minivit {__version__}\n"
    for arguments, words in ((["--version"], version), (["tour", "--help"], "example: minivit tour")):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0 and words in capsys.readouterr().out


def test_no_command_prints_the_help(capsys):
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("usage: minivit ")


def _raise(error):
    def table(rng=0):
        raise error

    return table


def test_faults_of_the_system_are_messages(capsys, monkeypatch):
    monkeypatch.setattr("minivit.course.cases.table", _raise(OSError(28, "No space left on device")))
    assert main(["gradcheck"]) == 2
    assert capsys.readouterr().err == "[Errno 28] No space left on device\n"
    monkeypatch.setattr("minivit.course.cases.table", _raise(KeyboardInterrupt()))
    assert main(["gradcheck"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["gradcheck", "--help"])
def test_a_closed_pipe_is_no_error(command):
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as pipe:
        what = [sys.executable, "-m", "minivit", command]
        done = subprocess.run(what, cwd=ROOT, env=env, stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert done.stderr == b"" and done.returncode == 0


def test_a_console_that_lacks_a_letter():
    done = run(
        code="import sys, minivit.__main__ as m, minivit.course.cases as cases\n"
        "cases.table = lambda rng=0: [('K\\xe4tzchen', 'x', 0.0)]\n"
        "sys.exit(m.main(['gradcheck']))",
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0 and "\nK\\xe4tzchen  x" in done.stdout


def test_the_photos_in_the_examples_of_help_are_in_the_clone(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    photos = re.findall(r"\S+\.jpg", capsys.readouterr().out.partition("examples:")[2])
    assert len(photos) >= 4 and [photo for photo in photos if not (ROOT / photo).is_file()] == []
