"""What is right: the answers to an exercise's cases, judged by arrays alone.

Whoever answers, a file in this process or one in another, only computes: the inputs are drawn here, and here the value
is compared with the reference's and the gradients with the reference's finite differences.
"""

import inspect
import re
from typing import NamedTuple

import numpy as np

from ...autograd import differentiable
from ...errors import MinivitError
from ...gradcheck import gradcheck


class Case(NamedTuple):
    """Arguments of an op: arrays with a gradient, arrays without one, and options."""

    inputs: list
    constants: tuple = ()
    options: dict = {}  # noqa: RUF012  read only


def judge(name, ask, exercise, solution, mistakes, rng):
    """Judge what `ask(op, case, dy)` answers, as Work.ask does: GradientError or another MinivitError if it is wrong.

    name: as in "exercise 05"; exercise: the module eNN; solution: a Work; mistakes: pairs (what to say, a Work).
    """
    for case in exercise.cases(rng):
        _judge(name, ask, exercise, case, solution, mistakes, rng)


def _judge(name, ask, exercise, case, solution, mistakes, rng):
    op = exercise.OP
    formula = inspect.unwrap(getattr(solution.module, op))
    _check_value(op, exercise.VALUE, ask(op, case)[0], formula(*case.inputs, *case.constants, **case.options)[0])
    asked = {}

    def reference(*inputs):
        value, _ = formula(*inputs, *case.constants, **case.options)

        def backward(dy):
            asked["dy"] = dy.astype(case.inputs[0].dtype)
            _, gradients = ask(op, case, asked["dy"])
            _check_kinds(op, gradients, case)
            asked["came"] = [np.zeros_like(x) if g is None else g for g, x in zip(gradients, case.inputs, strict=True)]
            return tuple(gradient.astype(np.float64) for gradient in asked["came"])

        return value, backward

    reference.__name__, reference.__module__, reference.__signature__ = op, name, inspect.signature(formula)
    precise = all(x.dtype == np.float64 for x in case.inputs)
    try:
        gradcheck(differentiable(reference), *case.inputs, rng=rng, rtol=1e-5 if precise else 1e-3)
    except MinivitError as error:
        told, _, hint = str(error).partition("\n  hint: ")
        seen = _seen(exercise, case, str(error), solution, mistakes, **asked)
        where, _, what = told.partition(": ")
        raise type(error)(where, what, hint=seen[0] if seen else hint or None) from None


def _check_value(op, formula, y, expected):
    if y.shape != expected.shape or y.dtype.kind != "f" or not np.allclose(y, expected, rtol=1e-6, atol=1e-9):
        came = "" if y.shape == expected.shape else f", {y.shape} for {expected.shape},"
        hint = "forward was right in the stub: write it anew and change only backward."
        raise MinivitError(op, f"the value{came} is not {formula}.", hint=hint)


def _check_kinds(op, gradients, case):
    """Refuse gradients that are not of their inputs' shapes and dtypes: the engine has seen to that, if it was let."""
    came = [x if g is None else g for g, x in zip(gradients, case.inputs, strict=True)]
    if [(g.shape, g.dtype) for g in came] != [(x.shape, x.dtype) for x in case.inputs]:
        raise MinivitError(op, "a gradient has not the shape and dtype of its argument.")


def _seen(exercise, case, told, solution, mistakes, dy, came=None):
    """What is seen in wrong gradients, none or one: the mistake that gives the same numbers, or is refused with the
    same words; or what the exercise looks for.
    """
    y, right = solution.ask(exercise.OP, case, dy)
    if came is None:
        return [says for says, mistake in mistakes if _tried(mistake, exercise.OP, case, dy) == told][:1]
    if not all(np.isfinite(gradient).all() for gradient in came):
        return []
    names = list(inspect.signature(getattr(solution.module, exercise.OP)).parameters)
    named = names.index(re.search(r'argument "(\w+)"', told)[1])
    tried = [(says, _tried(mistake, exercise.OP, case, dy)) for says, mistake in mistakes]
    wrong = [i for i in range(len(right)) if not _same(came[i], right[i])]
    seen = [says for says, theirs in tried if isinstance(theirs, list) and all(map(_same, theirs, came))]
    for i in sorted(wrong, key=lambda i: i != named):  # where there are two mistakes, the worse one comes first
        place = "" if i == named else f'argument "{names[i]}": '
        seen += [place + says for says, theirs in tried if isinstance(theirs, list) and _same(theirs[i], came[i])]
    if not seen and hasattr(exercise, "look"):
        seen = exercise.look(case, y, dy, right, came)
    return seen[:1]


def _tried(mistake, op, case, dy):
    """The gradients that a mistake gives, or the words with which it is refused."""
    try:
        return [np.zeros(1) if gradient is None else gradient for gradient in mistake.ask(op, case, dy)[1]]
    except MinivitError as error:
        return str(error)


def _same(one, other):
    return np.allclose(one, other, rtol=1e-6, atol=1e-9)
