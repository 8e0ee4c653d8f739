"""Arithmetic: + - * / ** exp log sqrt tanh relu sigmoid silu abs, and the reductions sum, mean and max."""

import functools

import numpy as np

from ..autograd import Tensor, differentiable


def unbroadcast(gradient, shape):
    """Adjoint of broadcasting, which is a sum: add up the gradient over every axis that broadcasting stretched.

    gradient: an array of the broadcast shape.  Returns an array of `shape`, the shape before.
    """
    added = gradient.ndim - len(shape)
    stretched = [axis for axis, n in enumerate(shape, added) if n == 1 and gradient.shape[axis] != 1]
    axes = (*range(added), *stretched)
    if axes:
        gradient = gradient.sum(axes, keepdims=True)
    return gradient.reshape(shape)


def _with_numbers(op):
    """Let a binary op take plain numbers and lists too."""

    @functools.wraps(op)
    def binary(x, y):
        return op(_like(x, y), _like(y, x))

    return binary


def _like(x, other):
    """A number, a list, integers or a 0-d array in the dtype of what it meets, so that float32 stays float32."""
    if isinstance(x, Tensor) and x.requires_grad:
        return x
    array = (x if isinstance(x, Tensor) else Tensor(x)).data
    dtype = getattr(other, "dtype", array.dtype)
    weak = not isinstance(x, (Tensor, np.ndarray)) or array.ndim == 0 or array.dtype.kind in "iub"
    return array.astype(dtype) if weak and dtype.kind == "f" else array


@_with_numbers
@differentiable
def add(x, y):
    """x + y, broadcast.  Backward: dx = dy = dz, each summed back to its shape."""
    shapes = x.shape, y.shape  # all that backward needs: x and y themselves are not kept

    def backward(dz):
        return tuple(unbroadcast(dz, shape) for shape in shapes)

    return x + y, backward


@_with_numbers
@differentiable
def subtract(x, y):
    """x - y, broadcast.  Backward: dx = dz, dy = -dz."""
    shapes = x.shape, y.shape

    def backward(dz):
        return unbroadcast(dz, shapes[0]), unbroadcast(-dz, shapes[1])

    return x - y, backward


@_with_numbers
@differentiable
def multiply(x, y):
    """x * y element by element, broadcast.  Backward: dx = dz * y, dy = dz * x."""

    def backward(dz):
        return unbroadcast(dz * y, x.shape), unbroadcast(dz * x, y.shape)

    return x * y, backward


@_with_numbers
@differentiable
def divide(x, y):
    """x / y, broadcast.  Backward: dx = dz / y, dy = -dz * x / y^2."""
    z = x / y
    shapes = x.shape, y.shape

    def backward(dz):
        return unbroadcast(dz / y, shapes[0]), unbroadcast(-dz * z / y, shapes[1])

    return z, backward


@_with_numbers
@differentiable
def power(x, y):
    """x ** y, broadcast.  Backward: dx = dz * y * x^(y - 1), dy = dz * x^y * log(x), taken as 0 where x <= 0."""
    z = x**y

    def backward(dz):
        lower = np.where(y == 0, y, y - 1)  # x^0 is constant, at x = 0 too, where x^-1 is not a number
        slope = np.where(x > 0, z, 0) * np.log(np.where(x > 0, x, 1))
        return unbroadcast(dz * y * x**lower, x.shape), unbroadcast(dz * slope, y.shape)

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
def sigmoid(x):
    """y = 1 / (1 + e^-x), as e^-log(1 + e^-x), which cannot overflow.  Backward: dx = dy * y * (1 - y)."""
    y = np.exp(-np.logaddexp(0, -x))

    def backward(dy):
        return dy * y * (1 - y)

    return y, backward


def silu(x):
    """x * sigmoid(x), also called swish (Hendrycks and Gimpel 2016); its backward is that of the two ops."""
    return multiply(x, sigmoid(x))


@differentiable
def abs(x):
    """|x|.  Backward: dx = dy * sign(x), 0 at x = 0."""

    def backward(dy):
        return dy * np.sign(x)

    return np.abs(x), backward


@differentiable
def sum(x, axis=None, keepdims=False):
    """Sum over `axis` (an int, a tuple, or None for all).  Backward: dx = dy, repeated along the summed axes."""
    y = x.sum(axis, keepdims=True)
    shape, kept = x.shape, y.shape

    def backward(dy):
        return np.broadcast_to(dy.reshape(kept), shape)

    return y if keepdims else y.squeeze(axis), backward


@differentiable
def mean(x, axis=None, keepdims=False):
    """Mean over `axis` (an int, a tuple, or None for all).  Backward: dx = dy / n, repeated along those axes."""
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
