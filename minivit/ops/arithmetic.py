"""Arithmetic, number by number: + - * / **, roots and logarithms, simple activations, choices."""

import functools

import numpy as np

from ..autograd import Tensor, differentiable


def unbroadcast(gradient, shape):
    """Adjoint of broadcasting, which is a sum: over every axis that broadcasting stretched.

    gradient: an array of the broadcast shape.  Returns an array of `shape`, the shape before.
    """
    added = gradient.ndim - len(shape)
    ones = [axis for axis, n in enumerate(shape, added) if n == 1]
    axes = (*range(added), *(axis for axis in ones if gradient.shape[axis] != 1))
    if axes:
        gradient = gradient.sum(axes, keepdims=True)
    return gradient.reshape(shape)


def _with_numbers(op):
    """Let a binary op take plain numbers and lists too."""

    @functools.wraps(op)
    def binary(x, y):
        if isinstance(x, Tensor) and isinstance(y, Tensor) and x.data.dtype is y.data.dtype:
            return op(x, y)
        return op(_like(x, y), _like(y, x))

    return binary


def _like(x, other):
    """A number, a list, integers or a 0-d array in the dtype of what it meets: float32 stays so."""
    if isinstance(x, Tensor) and x.requires_grad:
        return x
    if type(x) in (float, int) and isinstance(other, Tensor) and other.data.dtype.kind == "f":
        return np.asarray(x, other.data.dtype)
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
    """x ** y, broadcast.

    Backward: dx = dz * y * x^(y - 1), dy = dz * x^y * log(x), taken as 0 where x <= 0.
    """
    z = x**y

    def backward(dz):
        lower = np.where(y == 0, y, y - 1)  # x^0 is constant, at x = 0 too
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
def abs(x):
    """|x|.  Backward: dx = dy * sign(x), 0 at x = 0."""

    def backward(dy):
        return dy * np.sign(x)

    return np.abs(x), backward


@differentiable
def sigmoid(x):
    """y = 1 / (1 + e^-x), as e^-log(1 + e^-x), which cannot overflow.

    Backward: dx = dy * y * (1 - y).
    """
    y = np.exp(-np.logaddexp(0, -x))

    def backward(dy):
        return dy * y * (1 - y)

    return y, backward


def silu(x):
    """x * sigmoid(x), also called swish; its backward is that of the two ops.

    Source: Hendrycks and Gimpel 2016, "Gaussian Error Linear Units", section 2.
    """
    return multiply(x, sigmoid(x))


@_with_numbers
@differentiable
def maximum(x, y):
    """The larger of x and y, broadcast.

    Backward: dz goes to the larger; two that are equal share it evenly.
    """

    def backward(dz):
        shared = dz / 2 * (x == y)
        dx, dy = dz * (x > y) + shared, dz * (x < y) + shared
        return unbroadcast(dx, x.shape), unbroadcast(dy, y.shape)

    return np.maximum(x, y), backward


@_with_numbers
@differentiable
def minimum(x, y):
    """The smaller of x and y, broadcast.

    Backward: dz goes to the smaller; two that are equal share it evenly.
    """

    def backward(dz):
        shared = dz / 2 * (x == y)
        dx, dy = dz * (x < y) + shared, dz * (x > y) + shared
        return unbroadcast(dx, x.shape), unbroadcast(dy, y.shape)

    return np.minimum(x, y), backward


def _with_condition(op):
    """Let `where` take a list or a tensor as its condition, and numbers and lists as sources."""

    @functools.wraps(op)
    def choose(condition, x, y):
        return op(np.asarray(condition), _like(x, y), _like(y, x))

    return choose


@_with_condition
@differentiable
def where(condition, x, y):
    """x where the condition is true, else y, all three broadcast.

    Backward: dx = dz where the condition is true, else 0; dy the other way round. The condition has
    no gradient.
    """

    def backward(dz):
        dx, dy = np.where(condition, dz, 0), np.where(condition, 0, dz)
        return None, unbroadcast(dx, x.shape), unbroadcast(dy, y.shape)

    return np.where(condition, x, y), backward


def masked_fill(x, mask, value):
    """x with `value` in the places where the mask is true: where(mask, value, x)."""
    return where(mask, value, x)


def clip(x, min=None, max=None):
    """x, no less than min and no more than max; None is no limit.

    Made of `where`: the gradient of a number within the limits, or on one, is its own; beyond, it
    is the limit's.
    """
    x = x if min is None else where(x < min, min, x)
    return x if max is None else where(x > max, max, x)
