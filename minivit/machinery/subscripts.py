"""Einsum's letters: read, checked, and worked off as one matrix product."""

import math
import string

import numpy as np

from ..errors import ShapeError
from .products import batched


def unique(letters):
    """The letters, each once, in their order."""
    return "".join(dict.fromkeys(letters))


def subscripts(equation, operands):
    """The letters of each operand and of the output, with "..." and a missing "->" spelled out, and all checked."""

    def refuse(what, rule=None):
        shapes = ", ".join(str(x.shape) for x in operands)
        raise ShapeError(f'einsum "{equation}"', f"{what} (operands: {shapes}).", rule)

    if not isinstance(equation, str):
        refuse("the equation comes first, a string")
    left, arrow, output = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(operands):
        refuse(f"{len(inputs)} operands are named and {len(operands)} came")
    if len(operands) not in (1, 2):
        refuse(f"{len(operands)} operands", "one operand or two; of three, take two first")
    if any(part.count("...") > 1 for part in (*inputs, output)):
        refuse('"..." stands twice in one place')
    named = [letters.replace("...", "") for letters in inputs]
    if not all(c in string.ascii_letters for c in "".join(named) + output.replace("...", "")):
        refuse("axes are named by single letters a-z and A-Z")

    unnamed = [x.ndim - len(letters) for x, letters in zip(operands, named, strict=True)]
    if any(n < 0 or (n > 0 and "..." not in letters) for n, letters in zip(unnamed, inputs, strict=True)):
        refuse("each operand needs one letter for each of its axes")
    free = "".join(c for c in string.ascii_letters if c not in equation)[: max(unnamed)]
    inputs = [x.replace("...", free[len(free) - n :]) for x, n in zip(inputs, unnamed, strict=True)]
    once = "".join(sorted(c for c in set(left) if c in string.ascii_letters and left.count(c) == 1))
    output = output.replace("...", free) if arrow else free * ("..." in left) + once

    sizes = {}
    for letters, x in zip(inputs, operands, strict=True):
        own = {}
        for letter, size in zip(letters, x.shape, strict=True):
            known = own.get(letter, sizes.get(letter, size))
            if known != size and (letter in own or 1 not in (known, size)):  # a diagonal's axes are alike
                refuse(f'axis "{letter}" has size {known} in one place and {size} in another')
            own[letter], sizes[letter] = size, max(known, size)
    if len(set(output)) != len(output) or not set(output) <= set(sizes):
        refuse(f'the output "{output}" names an axis twice, or one that no operand has')
    return *inputs, output


def contract(inputs, operands, output):
    """Einsum by one matrix product: the axes are sorted into batch, rows, inner (summed over) and columns."""
    if len(operands) == 1:
        return np.einsum(f"{inputs[0]}->{output}", operands[0])
    (a, x), (b, y) = (_reduce(inputs, operands, output, i) for i in (0, 1))
    batch = [c for c in a if c in b and c in output]
    inner = [c for c in a if c in b and c not in output]
    rows = [c for c in a if c not in b]
    columns = [c for c in b if c not in a]
    sizes = dict(zip([*a, *b], [*x.shape, *y.shape], strict=True))

    def shape(*groups):
        return [sizes[c] for c in batch] + [math.prod(sizes[c] for c in group) for group in groups]

    x = x.transpose([a.index(c) for c in batch + rows + inner]).reshape(shape(rows, inner))
    y = y.transpose([b.index(c) for c in batch + inner + columns]).reshape(shape(inner, columns))
    z = batched(x, y) if inner else x * y  # (*batch, rows, columns)
    order = batch + rows + columns
    return z.reshape([sizes[c] for c in order]).transpose([order.index(c) for c in output])


def _reduce(inputs, operands, output, i):
    """Operand i with only the axes that matter outside it.

    Diagonals are taken, axes that it alone has are summed, and those of size 1 that the other stretches are dropped.
    """
    letters, x = inputs[i], operands[i]
    other = dict(zip(inputs[1 - i], operands[1 - i].shape, strict=True))
    sizes = dict(zip(letters, x.shape, strict=True))
    kept = [c for c, n in sizes.items() if n == other.get(c) or (c in output and (c not in other or n != 1))]
    return kept, np.einsum(f"{letters}->{''.join(kept)}", x)
