"""Reductions: one number of many, over all axes or over some, from sum to logsumexp."""

import numpy as np

from ..autograd import Tensor, differentiable
from ..machinery.shapes import check_correction
from .arithmetic import add, divide, exp, log, multiply, sqrt, subtract
from .shape import squeeze


@differentiable
def sum(x, axis=None, keepdims=False):
    """Sum over `axis` (an int, a tuple, or None for all).

    Backward: dx = dy, repeated along the summed axes.
    """
    y = x.sum(axis, keepdims=True)
    shape, kept = x.shape, y.shape

    def backward(dy):
        return np.broadcast_to(dy.reshape(kept), shape)

    return y if keepdims else y.squeeze(axis), backward


@differentiable
def mean(x, axis=None, keepdims=False):
    """Mean over `axis` (an int, a tuple, or None for all).

    Backward: dx = dy / n, repeated along those axes.
    """
    y = x.mean(axis, keepdims=True)
    shape, kept, n = x.shape, y.shape, x.size // (y.size or 1)

    def backward(dy):
        return np.broadcast_to(dy.reshape(kept) / n, shape)

    return y if keepdims else y.squeeze(axis), backward


@differentiable
def max(x, axis=None, keepdims=False):
    """Largest element over `axis` (an int, a tuple, or None for all).

    Backward: dy goes to the largest element; several that are equally large share it evenly.
    """
    y = x.max(axis, keepdims=True)

    def backward(dy):
        largest = x == y
        return dy.reshape(y.shape) / largest.sum(axis, keepdims=True, dtype=x.dtype) * largest

    return y if keepdims else y.squeeze(axis), backward


@differentiable
def min(x, axis=None, keepdims=False):
    """Smallest element over `axis` (an int, a tuple, or None for all).

    Backward: dy goes to the smallest element; several that are equally small share it evenly.
    """
    y = x.min(axis, keepdims=True)

    def backward(dy):
        smallest = x == y
        return dy.reshape(y.shape) / smallest.sum(axis, keepdims=True, dtype=x.dtype) * smallest

    return y if keepdims else y.squeeze(axis), backward


def var(x, axis=None, *, correction=None, keepdims=False):
    """Variance over `axis`: sum((x - mean(x))^2) / (n - correction), of the n numbers there.

    correction: 0 or 1, and to be given. NumPy and layer norm divide by n (0), PyTorch by n - 1
    where nothing is said (1): whichever were the default here, the readers of the other would get a
    number of 1/n more or less, and no message. `correction` is the one word for it that both have
    (NumPy 2's np.var, PyTorch 2's x.var); unbiased=False and ddof=0 are understood too.
    MinivitError without it. Its backward is that of the ops it is made of.
    """
    check_correction("var", correction)
    x = x if isinstance(x, Tensor) else Tensor(x)
    centred = subtract(x, mean(x, axis, keepdims=True))
    squares = sum(multiply(centred, centred), axis, keepdims)
    return divide(squares, x.size / (squares.size or 1) - correction)


def std(x, axis=None, *, correction=None, keepdims=False):
    """Standard deviation over `axis`: the square root of var(x, axis, correction=...), which see.

    Where all numbers are equal it is 0 and has no slope: the gradient there is not a number.
    """
    check_correction("std", correction)
    return sqrt(var(x, axis, correction=correction, keepdims=keepdims))


def logsumexp(x, axis, keepdims=False):
    """y = log(sum(exp(x))) over `axis`, shifted by the maximum, so that exp cannot overflow.

    Its backward, that of the ops it is made of, is dx = dy * softmax(x).
    """
    largest = np.max(np.asarray(x), axis, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, 0)  # inf - inf is not a number
    y = add(log(sum(exp(subtract(x, largest)), axis, keepdims=True)), largest)
    return y if keepdims else squeeze(y, axis)
