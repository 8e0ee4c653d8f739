"""Every lesson runs on a photo, without a warning and without an open figure left; conftest prints the seconds."""

import ast
import re
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from minivit import images, lessons, plots
from minivit.__main__ import main
from minivit.errors import FileError, MinivitError

SLOW = {"01b", "03b", "04b", "09", "09b", "10", "10b", "11", "12b", "13", "13b"}  # they train, or look at many crops
ALL = lessons.lessons()
SLOWLY = pytest.mark.slow
# the slow ones on one photo: the book, which test_book.py wants to be whole, runs every lesson on the cat
RUNS = [pytest.param(x, "pagoda.jpg", id=x.number, marks=SLOWLY if x.number in SLOW else ()) for x in ALL]
RUNS += [pytest.param(x, "cat.jpg", id=f"{x.number}-cat") for x in ALL if x.number not in SLOW]


@pytest.mark.parametrize("lesson, photo", RUNS)
def test_a_lesson_runs_and_its_figures_show_something(lesson, photo, tmp_path, capsys, monkeypatch):
    captions, save = [], plots.save
    monkeypatch.setattr(
        plots, "save", lambda figure, path: (captions.append(figure.get_supxlabel()), save(figure, path))
    )
    paths = lessons.run(lesson.number, images.photo(photo), tmp_path)
    printed = capsys.readouterr().out
    assert printed.isascii() and len(printed) > 200
    assert paths and plt.get_fignums() == []
    assert len(captions) == len(paths) and all(re.search(r"[.?]$", caption) for caption in captions)
    for path in paths:
        assert re.fullmatch(rf"{lesson.number}_[a-z0-9_]+\.png", path.name)
        with Image.open(path) as picture:
            assert picture.width >= 600 and np.asarray(picture.convert("L")).std() > 5


@pytest.mark.parametrize("lesson", ALL, ids=lambda lesson: lesson.number)
def test_a_lesson_fits_a_projector_and_a_session(lesson):
    lines = lesson.path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 250 and max(map(len, lines)) <= 88
    assert lesson.minutes <= 45
    numbered = re.search(r"^# New ideas: (.+?)\n#\n", "\n".join(lines), re.M | re.S)[1]
    ideas = [int(n) for n in re.findall(r"\((\d)\) ", numbered)]
    assert ideas == [*range(1, len(ideas) + 1)] and (3 if lesson.number.endswith("b") else 5) <= len(ideas) <= 7


@pytest.mark.parametrize("lesson", ALL, ids=lambda lesson: lesson.number)
def test_a_lesson_asserts_asks_and_ends_as_every_lesson_does(lesson):
    text, number = lesson.path.read_text(encoding="utf-8"), lesson.number
    cells = [cell for cell in re.split(r"^# %%", text, flags=re.M)[1:]]
    kernel = "# ---\n# jupyter:\n#   kernelspec: {display_name: Python 3, name: python3}\n# ---\n\n"
    assert text.startswith(f"{kernel}# %% [markdown]\n# # {number.lstrip('0')}. ")
    told = [cell for cell in cells if cell.startswith(" [markdown]")]
    for cell in told:
        lines = cell.splitlines()[1:]
        assert all(line.startswith("#") or not line for line in lines), lines
    for heading in ("Your turn", "What you can say now", "Exercises"):
        assert len(re.findall(rf"^# ## {heading}", text, re.M)) == 1, heading
    assert "# Axes: " in text and "# Sources: " in text
    assert number.endswith("b") or f"minivit exercise {number}" in text
    assert re.search(rf"html#lesson={int(number[:2])}\)\n\Z", text)  # its view in the explorer


@pytest.mark.parametrize("lesson", ALL, ids=lambda lesson: lesson.number)
def test_a_cell_tells_one_claim_or_draws_one_figure(lesson):
    text = lesson.path.read_text(encoding="utf-8")
    cells = [ast.parse(cell).body for cell in re.split(r"^# %%(?: \[markdown\])?$", text, flags=re.M)[1:]]
    claims = [sum(isinstance(node, ast.Assert) for part in cell for node in ast.walk(part)) for cell in cells]
    assert max(claims) == 1 and sum(claims) >= 3
    figures = [cell for cell in cells if any("plt." in ast.unparse(part) for part in cell)]
    assert figures and text.count("plt.") == len(figures)
    for cell in figures:
        call, show = (ast.unparse(part) for part in cell)
        assert show == "plt.show()" and call.startswith("plots.") and "name=" in call and "caption=" in call


def test_no_two_lessons_name_a_figure_alike():
    names = [name for lesson in ALL for name in re.findall(r'\bname="(\w+)"', lesson.path.read_text(encoding="utf-8"))]
    assert len(names) == len({*names}) > 30


def test_the_list(capsys):
    assert main(["list"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == [lesson.number for lesson in ALL]
    assert all(re.search(r"\d+ min +\d+ s  \S", row) for row in rows)


def test_bad_numbers_photos_and_folders(tmp_path, capsys):
    with pytest.raises(MinivitError, match="there is no lesson 99"):
        lessons.run(99)
    with pytest.raises(MinivitError, match="there is no lesson one"):
        lessons.run("one")
    with pytest.raises(FileError, match="there is no such file"):
        lessons.run(1, tmp_path / "none.jpg")
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="a file is in the way of this folder"):
        lessons.run(12, out=tmp_path / "file")  # at once, not after its 16 seconds
    assert main(["run", "99"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_lesson_leaves_the_command_line_and_show_as_they_were(tmp_path):
    before = list(sys.argv), plt.show
    lessons.run(2, out=tmp_path)
    assert (sys.argv, plt.show) == before


def test_figures_without_a_name_are_all_kept(tmp_path):
    paths = []
    with lessons._figures("01", tmp_path, paths):
        for _ in range(2):
            plt.figure()
            plt.figure()
            plt.show()
    assert len({*paths}) == 4 and {*tmp_path.iterdir()} == {*paths}


def test_the_contents_page_lists_every_lesson_with_its_minutes_a_figure_and_its_teachers_page():
    page = (ALL[0].path.parent / "README.md").read_text(encoding="utf-8")
    parts = re.split(r"^## ", page, flags=re.M)[1:]
    assert len(parts) == sum(lesson.number.isdecimal() for lesson in ALL)
    for lesson in ALL:
        part = parts[int(lesson.number[:2]) - 1]
        assert f"[{lesson.number.lstrip('0')}. {lesson.title}]({lesson.path.name})" in part
        extra = lesson.number.endswith("b")
        assert (f"Extra, {lesson.minutes} minutes" if extra else f"{lesson.minutes} minutes to teach") in part
        assert extra or f"](teacher/{lesson.number}.md)" in part
        name = re.search(r"!\[.+?\]\(figures/(.+?)\.png\)", part)[1]
        assert name.startswith(lesson.number[:2]) and (lesson.path.parent / "figures" / f"{name}.png").exists()
