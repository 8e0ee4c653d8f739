"""Lessons open and run as notebooks, unchanged, through the extra `notebook`; .ci/run installs it for this file."""

import os
import subprocess
import sys

import pytest

from minivit import lessons

pytest.importorskip("jupytext", reason='needs the extra: pip install -e ".[notebook]"')


@pytest.mark.slow
@pytest.mark.parametrize("number", ["01", "05", "08"])
def test_a_lesson_runs_as_a_notebook(number, tmp_path):
    import nbformat

    lesson = next(lesson for lesson in lessons.lessons() if lesson.number == number)
    out = tmp_path / f"{number}.ipynb"
    command = [sys.executable, "-m", "jupytext", "--to", "ipynb", "--execute"]
    command += ["--output", str(out), str(lesson.path)]
    # the kernel python3 is whichever python comes first
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stderr
    cells = nbformat.read(out, as_version=4).cells
    assert {cell.cell_type for cell in cells} == {"markdown", "code"}
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_every_lesson_reads_as_a_notebook_and_back():
    import jupytext

    for lesson in lessons.lessons():
        notebook = jupytext.read(lesson.path)
        text = "".join(cell.source for cell in notebook.cells)
        assert len(notebook.cells) > 8 and jupytext.writes(notebook, fmt="py:percent").count("# %%") > 8
        assert notebook.cells[0].cell_type == "markdown" and lesson.title in text
