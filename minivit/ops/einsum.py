"""Einsum: name the axes, and products, sums and transposes follow; matmul is one case."""

import numpy as np

from ..autograd import differentiable
from ..machinery.products import batched, product, rows
from ..machinery.shapes import check_matmul
from ..machinery.subscripts import contract, subscripts, unique
from .arithmetic import unbroadcast


@differentiable
def matmul(x, y):
    """z = x @ y, the product of matrices, over the last two axes.

    x: (..., m, k), y: (..., k, n), their other axes broadcast.  Returns z: (..., m, n). A vector
    counts as one row on the left and as one column on the right, as in NumPy.
    Backward: dx = dz @ y^T, dy = x^T @ dz.
    """
    check_matmul(x, y)
    if y.ndim == 2:  # one matrix for the whole batch: its gradient adds up over all rows

        def backward(dz):
            return product(dz, y.T), product(rows(x).T, rows(dz))

        return product(x, y), backward

    left = x[None] if x.ndim == 1 else x  # (..., m, k)
    right = y[:, None] if y.ndim == 1 else y  # (..., k, n)

    def backward(dz):
        dz = dz[..., None] if y.ndim == 1 else dz
        dz = np.expand_dims(dz, -2) if x.ndim == 1 else dz  # (..., m, n)
        dx, dy = batched(dz, right.mT), batched(left.mT, dz)
        dx, dy = unbroadcast(dx, left.shape), unbroadcast(dy, right.shape)
        return dx.reshape(x.shape), dy.reshape(y.shape)

    return batched(x, y), backward


@differentiable
def einsum(equation, *operands):
    """"qhd,khd->qhk" is y[q,h,k] = sum over d of x1[q,h,d] * x2[k,h,d].

    equation: for one or two operands. A letter that the output lacks is summed over; a letter twice
    in one operand takes its diagonal; "..." stands for axes without a name, which broadcast;
    without "->" the output has the letters that occur once, in alphabetical order, as NumPy's has.
    Backward swaps the subscripts:
    dx1 = einsum("qhk,khd->qhd", dy, x2), dx2 = einsum("qhk,qhd->khd", dy, x1).
    """
    *inputs, output = subscripts(equation, operands)

    def backward(dy):
        gradients = []
        for i, (x, letters) in enumerate(zip(operands, inputs, strict=True)):
            others, theirs = operands[:i] + operands[i + 1 :], inputs[:i] + inputs[i + 1 :]
            known = "".join(c for c in unique(letters) if c in output + "".join(theirs))
            dx = contract([output, *theirs], [dy, *others], known)  # the subscripts swapped
            gradients.append(summed_adjoint(dx, known, x, letters))
        return tuple(gradients)

    return contract(inputs, operands, output), backward


def summed_adjoint(dx, known, x, letters):
    """A gradient with the axes `known` as one with the axes of x.

    It is constant along the axes that x alone had (they were summed), summed along those where x
    was stretched, and lies on the diagonal where a letter stands twice.
    """
    once = unique(letters)
    diagonal = np.einsum(f"{letters}->{once}", x)
    dx = dx.reshape([dx.shape[known.index(c)] if c in known else 1 for c in once])
    stretched = np.broadcast_shapes(dx.shape, diagonal.shape)
    dx = unbroadcast(np.broadcast_to(dx, stretched), diagonal.shape)
    if once == letters:
        return dx
    full = np.zeros_like(x)
    np.einsum(f"{letters}->{once}", full)[...] = dx  # einsum's diagonal is a view
    return full
