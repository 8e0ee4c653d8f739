"""Arithmetic: + - * / ** exp log sqrt tanh relu, and the reductions sum, mean and max."""

import functools

import numpy as np

from ..autograd import Tensor, differentiable


def unbroadcast(gradient, like):
    """Adjoint of broadcasting, which is a sum: add up the gradient over every axis that broadcasting stretched.

    gradient: an array of the broadcast shape.  Returns an array of like's shape.
    """
    added = gradient.ndim - like.ndim
    stretched = [axis for axis, n in enumerate(like.shape, added) if n == 1 and gradient.shape[axis] != 1]
    axes = (*range(added), *stretched)
    if axes:
        gradient = gradient.sum(axes, keepdims=True)
    return gradient.reshape(like.shape)


def _with_numbers(op):
    """Let a binary op take plain numbers and lists: they take the dtype of the tensor that they meet."""

    @functools.wraps(op)
    def binary(x, y):
        if not isinstance(x, (Tensor, np.ndarray)):
            x = _like(x, y)
        elif not isinstance(y, (Tensor, np.ndarray)):
            y = _like(y, x)
        return op(x, y)

    return binary


def _like(number, other):
    array = np.asarray(number)
    dtype = getattr(other, "dtype", array.dtype)
    return array.astype(dtype) if dtype.kind == "f" and array.dtype.kind in "fiub" else array


@_with_numbers
@differentiable
def add(x, y):
    """x + y, broadcast.  Backward: dx = dy = dz, each summed back to its shape."""

    def backward(dz):
        return unbroadcast(dz, x), unbroadcast(dz, y)

    return x + y, backward


@_with_numbers
@differentiable
def subtract(x, y):
    """x - y, broadcast.  Backward: dx = dz, dy = -dz."""

    def backward(dz):
        return unbroadcast(dz, x), unbroadcast(-dz, y)

    return x - y, backward


@_with_numbers
@differentiable
def multiply(x, y):
    """x * y element by element, broadcast.  Backward: dx = dz * y, dy = dz * x."""

    def backward(dz):
        return unbroadcast(dz * y, x), unbroadcast(dz * x, y)

    return x * y, backward


@_with_numbers
@differentiable
def divide(x, y):
    """x / y, broadcast.  Backward: dx = dz / y, dy = -dz * x / y^2."""
    z = x / y

    def backward(dz):
        return unbroadcast(dz / y, x), unbroadcast(-dz * z / y, y)

    return z, backward


@_with_numbers
@differentiable
def power(x, y):
    """x ** y, broadcast.  Backward: dx = dz * y * x^(y - 1), dy = dz * x^y * log(x), taken as 0 where x <= 0."""
    z = x**y

    def backward(dz):
        log_x = np.log(np.where(x > 0, x, 1))
        return unbroadcast(dz * y * x ** (y - 1), x), unbroadcast(dz * z * log_x, y)

    return z, backward


@differentiable
def negative(x):
    """-x.  Backward: dx = -dy."""

    def backward(dy):
        return -dy

    return -x, backward


@differentiable
def exp(x):
    """e^x.  Backward: dx = dy * y."""
    y = np.exp(x)

    def backward(dy):
        return dy * y

    return y, backward


@differentiable
def log(x):
    """Natural logarithm.  Backward: dx = dy / x."""

    def backward(dy):
        return dy / x

    return np.log(x), backward


@differentiable
def sqrt(x):
    """Square root.  Backward: dx = dy / (2 y)."""
    y = np.sqrt(x)

    def backward(dy):
        return dy / (2 * y)

    return y, backward


@differentiable
def tanh(x):
    """Hyperbolic tangent.  Backward: dx = dy * (1 - y^2)."""
    y = np.tanh(x)

    def backward(dy):
        return dy * (1 - y * y)

    return y, backward


@differentiable
def relu(x):
    """max(x, 0).  Backward: dx = dy where x > 0, else 0 (at x = 0 too, as PyTorch takes it)."""

    def backward(dy):
        return dy * (x > 0)

    return np.maximum(x, 0), backward


@differentiable
def sum(x, axis=None, keepdims=False):
    """Sum over `axis` (an int, a tuple, or None for all).  Backward: dx = dy, repeated along the summed axes."""
    y = x.sum(axis, keepdims=True)

    def backward(dy):
        return np.broadcast_to(dy.reshape(y.shape), x.shape)

    return y if keepdims else y.squeeze(axis), backward


@differentiable
def mean(x, axis=None, keepdims=False):
    """Mean over `axis` (an int, a tuple, or None for all).  Backward: dx = dy / n, repeated along those axes."""
    y = x.mean(axis, keepdims=True)

    def backward(dy):
        return np.broadcast_to(dy.reshape(y.shape) * (y.size / x.size), x.shape)

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
