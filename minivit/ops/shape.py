"""Shape: the same numbers in another arrangement. Each backward is the arrangement undone."""

import copy

import numpy as np

from ..autograd import differentiable
from ..machinery.shapes import check_transpose
from .arithmetic import unbroadcast


@differentiable
def reshape(x, shape):
    """The numbers of x, in order, in another shape (one entry may be -1).  Backward: dx = dy in x's shape."""
    before = x.shape

    def backward(dy):
        return dy.reshape(before)

    return x.reshape(shape), backward


@differentiable
def transpose(x, axes=None):
    """Permute all axes: axis i of y is axis axes[i] of x; None reverses them.  Backward: the inverse permutation."""
    check_transpose(x, axes)
    inverse = None if axes is None else np.argsort([axis % x.ndim for axis in axes])

    def backward(dy):
        return dy.transpose(inverse)

    return x.transpose(axes), backward


@differentiable
def getitem(x, index):
    """x[index]: integers, slices, None, ..., integer or boolean arrays.  Backward: dy is added where y came from."""
    parts = index if isinstance(index, tuple) else (index,)
    basic = (int, np.integer, slice, type(None), type(...))
    once = all(isinstance(part, basic) for part in parts)  # whereas an array or a list may name an element twice
    if not once:
        index = copy.deepcopy(index)  # whoever made the arrays may change them before backward
    shape, dtype = x.shape, x.dtype

    def backward(dy):
        dx = np.zeros(shape, dtype)
        if once:
            dx[index] = dy
        else:
            np.add.at(dx, index, dy)
        return dx, *(None for _ in parts)

    return x[index], backward


@differentiable
def concatenate(tensors, axis=0):
    """The tensors one behind the other along `axis`; their other axes agree.  Backward: dy cut at the seams."""
    seams = np.cumsum([x.shape[axis] for x in tensors])[:-1]

    def backward(dy):
        return tuple(np.split(dy, seams, axis))

    return np.concatenate(tensors, axis), backward


@differentiable
def expand(x, shape):
    """x repeated along its axes of size 1, and along new ones in front, to `shape`; -1 keeps an axis as it is.

    Backward: dx = dy summed over the repeats.
    """
    before, added = x.shape, len(shape) - x.ndim
    shape = tuple(before[i - added] if n == -1 and i >= added else n for i, n in enumerate(shape))

    def backward(dy):
        return unbroadcast(dy, before)

    return np.broadcast_to(x, shape), backward
