"""The pages keep their size: an op fits on a projector's screen, the tape on one page, the house on one floor."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "minivit"
OPS = sorted((PACKAGE / "ops").glob("*.py"))


def functions(path):
    """Every function that is not inside another one, or a class, with its source."""
    text = path.read_text(encoding="utf-8")
    return [(node, text) for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]


def code_lines(node, text):
    """How many lines of a function are code: no blank line, no comment alone, no docstring."""
    docstring = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef) and ast.get_docstring(inner) is not None:
            docstring |= set(range(inner.body[0].lineno, inner.body[0].end_lineno + 1))
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    lines = list(enumerate(text.splitlines(), 1))[first - 1 : node.end_lineno]
    return sum(number not in docstring and line.strip()[:1] not in ("", "#") for number, line in lines)


def test_code_lines_counts_what_a_reader_reads():
    text = 'def f(x):\n    """Two\n    lines."""\n    # why\n    y = 1  # counted\n\n'
    text += '    def g():\n        """One."""\n        return y\n'
    assert code_lines(ast.parse(text).body[0], text) == 4


@pytest.mark.parametrize("path", OPS, ids=lambda path: path.stem)
def test_an_op_is_at_most_25_lines_of_code(path):
    assert [node.name for node, text in functions(path) if code_lines(node, text) > 25] == []


@pytest.mark.parametrize("path", [*OPS, PACKAGE / "autograd.py"], ids=lambda path: path.stem)
def test_no_line_of_a_formula_is_wider_than_a_projector(path):
    wide = [line for line in path.read_text(encoding="utf-8").splitlines() if len(line) > 100]
    assert wide == []


@pytest.mark.parametrize("path", OPS, ids=lambda path: path.stem)
def test_no_op_speaks_of_how_the_work_is_cut(path):
    text = re.sub(r"(?m)^from .*$", "", path.read_text(encoding="utf-8"))
    assert re.findall(r"(?i)\b(?:thread|block|tile|buffer)\w*", text) == []


FORMULAS = [path for path in OPS if path.stem not in ("__init__", "methods")]  # methods.py: Tensor's, and no formula


@pytest.mark.parametrize("path", FORMULAS, ids=lambda path: path.stem)
def test_the_checks_of_an_op_stand_elsewhere(path):
    """One line that names a guard; a formula with `raise` in it is not one."""
    raising = [node.name for node, _ in functions(path) if any(isinstance(n, ast.Raise) for n in ast.walk(node))]
    assert raising == []


def test_the_tape_is_one_page():
    text = (PACKAGE / "autograd.py").read_text(encoding="utf-8")
    held = {node.name for node in ast.parse(text).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    assert {"Tensor", "Node", "differentiable", "no_grad", "_walk"} <= held
    assert len(text.splitlines()) < 200
    assert not any(isinstance(node, ast.Raise) for node in ast.walk(ast.parse(text)) if getattr(node, "exc", None))


def test_the_first_floor_holds_16_files_at_most():
    assert len(list(PACKAGE.glob("*.py"))) <= 16
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms >= {"ops", "machinery", "weights", "course", "cli"}


def test_every_op_says_its_formula_its_shapes_and_its_backward():
    from minivit.autograd import REGISTRY

    ops = {name: op for name, op in REGISTRY.items() if name.startswith("minivit.ops.")}
    assert ops and [name for name, op in ops.items() if "Backward" not in (op.__doc__ or "")] == []
