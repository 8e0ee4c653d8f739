"""Lessons open as notebooks, unchanged, through the extra `notebook`; the book runs them so: test_book.py."""

import pytest

from minivit import lessons

pytest.importorskip("jupytext", reason='needs the extra: pip install -e ".[notebook]"')


def test_every_lesson_reads_as_a_notebook_and_back():
    import jupytext

    for lesson in lessons.lessons():
        notebook = jupytext.read(lesson.path)
        text = "".join(cell.source for cell in notebook.cells)
        assert len(notebook.cells) > 8 and jupytext.writes(notebook, fmt="py:percent").count("# %%") > 8
        assert notebook.cells[0].cell_type == "markdown" and lesson.title in text
