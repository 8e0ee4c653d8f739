"""Einsum: name the axes, and products, sums, transposes and diagonals follow; matmul is its best-known case."""

import math
import string

import numpy as np

from ..autograd import differentiable
from ..errors import ShapeError
from ..machinery import threads
from .arithmetic import unbroadcast


@differentiable
def matmul(x, y):
    """Matrix product over the last two axes, the others broadcast: (..., m, k) @ (..., k, n) -> (..., m, n).

    A vector counts as one row on the left and as one column on the right, as in NumPy.
    Backward: dx = dz @ y^T, dy = x^T @ dz.
    """
    if 0 in (x.ndim, y.ndim) or x.shape[-1] != y.shape[-2:][0]:
        raise ShapeError("matmul", f"{x.shape} @ {y.shape} do not fit.", rule="(..., m, k) @ (..., k, n): the k agree.")
    if y.ndim == 2:  # one matrix for the whole batch: one product, on all threads where it is large
        rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])

        def backward(dz):
            dz = dz.reshape(len(rows), y.shape[1])
            return threads.matmul(dz, y.T).reshape(x.shape), threads.matmul(rows.T, dz)

        return threads.matmul(rows, y).reshape(*x.shape[:-1], y.shape[1]), backward

    left = x[None] if x.ndim == 1 else x  # (..., m, k)
    right = y[:, None] if y.ndim == 1 else y  # (..., k, n)

    def backward(dz):
        dz = dz[..., None] if y.ndim == 1 else dz
        dz = np.expand_dims(dz, -2) if x.ndim == 1 else dz  # (..., m, n)
        dx = threads.batched_matmul(dz, right.swapaxes(-1, -2))
        dy = threads.batched_matmul(left.swapaxes(-1, -2), dz)
        return unbroadcast(dx, left.shape).reshape(x.shape), unbroadcast(dy, right.shape).reshape(y.shape)

    return threads.batched_matmul(x, y), backward


@differentiable
def einsum(equation, *operands):
    """Sum of products over named axes: "qhd,khd->qhk" is y[q,h,k] = sum over d of x1[q,h,d] * x2[k,h,d].

    equation: for one or two operands. A letter that the output lacks is summed over; a letter twice in one operand
    takes its diagonal; "..." stands for axes without a name, which broadcast; without "->" the output has the letters
    that occur once, in alphabetical order, as in numpy.einsum.
    Backward swaps the subscripts: dx1 = einsum("qhk,khd->qhd", dy, x2), dx2 = einsum("qhk,qhd->khd", dy, x1).
    """
    *inputs, output = _subscripts(equation, operands)

    def backward(dy):
        gradients = []
        for i, (x, letters) in enumerate(zip(operands, inputs, strict=True)):
            others = [j for j in range(len(operands)) if j != i]
            known = "".join(c for c in _unique(letters) if c in output or any(c in inputs[j] for j in others))
            dx = _contract([output, *(inputs[j] for j in others)], [dy, *(operands[j] for j in others)], known)
            gradients.append(_lay_out(dx, known, x, letters))
        return tuple(gradients)

    return _contract(inputs, operands, output), backward


def _unique(letters):
    return "".join(dict.fromkeys(letters))


def _subscripts(equation, operands):
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
        for letter, size in zip(letters, x.shape, strict=True):
            known = sizes.setdefault(letter, size)
            if known != size and (letters.count(letter) > 1 or 1 not in (known, size)):
                refuse(f'axis "{letter}" has size {known} in one place and {size} in another')
            sizes[letter] = max(known, size)
    if len(set(output)) != len(output) or not set(output) <= set(sizes):
        refuse(f'the output "{output}" names an axis twice, or one that no operand has')
    return *inputs, output


def _contract(inputs, operands, output):
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
    z = threads.batched_matmul(x, y) if inner else x * y  # (*batch, rows, columns)
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


def _lay_out(dx, known, x, letters):
    """A gradient with the axes `known` as one with the axes of x.

    It is constant along the axes that x alone had (they were summed), summed along those where x was stretched, and
    lies on the diagonal where a letter stands twice.
    """
    unique = _unique(letters)
    diagonal = np.einsum(f"{letters}->{unique}", x)
    dx = dx.reshape([dx.shape[known.index(c)] if c in known else 1 for c in unique])
    dx = unbroadcast(np.broadcast_to(dx, np.broadcast_shapes(dx.shape, diagonal.shape)), diagonal.shape)
    if unique == letters:
        return dx
    full = np.zeros_like(x)
    np.einsum(f"{letters}->{unique}", full)[...] = dx  # einsum's diagonal is a view
    return full
