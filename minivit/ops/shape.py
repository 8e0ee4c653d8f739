"""Shape: the same numbers in another arrangement. Each backward is the arrangement undone."""

import copy
import math

import numpy as np

from ..autograd import differentiable
from ..machinery.shapes import check_astype, check_axis, check_chunks, check_split, check_transpose
from .arithmetic import unbroadcast


@differentiable
def reshape(x, shape):
    """The numbers of x, in order, in another shape (one entry may be -1).

    Backward: dx = dy in x's shape.
    """
    before = x.shape

    def backward(dy):
        return dy.reshape(before)

    return x.reshape(shape), backward


@differentiable
def transpose(x, axes=None):
    """Permute all axes: axis i of y is axis axes[i] of x; None reverses them.

    Backward: the inverse permutation.
    """
    check_transpose(x, axes)
    inverse = None if axes is None else np.argsort([axis % x.ndim for axis in axes])

    def backward(dy):
        return dy.transpose(inverse)

    return x.transpose(axes), backward


@differentiable
def swapaxes(x, axis1, axis2):
    """Two axes in each other's place.  Backward: swapped again."""

    def backward(dy):
        return dy.swapaxes(axis1, axis2)

    return x.swapaxes(axis1, axis2), backward


@differentiable
def flatten(x, start_dim=0, end_dim=-1):
    """The axes from start_dim to end_dim as one: (2, 3, 5) from 1 on is (2, 15).

    Backward: dx = dy in x's shape.
    """
    shape = x.shape or (1,)
    first, last = (check_axis("flatten", shape, axis) for axis in (start_dim, end_dim))

    def backward(dy):
        return dy.reshape(x.shape)

    joined = math.prod(shape[first : last + 1])
    return x.reshape(*shape[:first], joined, *shape[last + 1 :]), backward


@differentiable
def squeeze(x, axis=None):
    """x without its axes of size 1: all of them, or those of `axis` (an int or a tuple).

    Backward: as of reshape.
    ShapeError for an axis of another size, as in NumPy; PyTorch would leave it there, silently.
    """
    before = x.shape

    def backward(dy):
        return dy.reshape(before)

    return x.squeeze(axis), backward


@differentiable
def unsqueeze(x, axis):
    """x with a new axis of size 1 at `axis`, np.expand_dims' and x[None]'s.

    Backward: dx = dy in x's shape.
    """
    before = x.shape

    def backward(dy):
        return dy.reshape(before)

    return np.expand_dims(x, axis), backward


@differentiable
def getitem(x, index):
    """x[index]: integers, slices, None, ..., integer or boolean arrays.

    Backward: dy is added where y came from.
    """
    parts = index if isinstance(index, tuple) else (index,)
    basic = (int, np.integer, slice, type(None), type(...))
    once = all(isinstance(part, basic) for part in parts)  # an array may name an element twice
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
    """The tensors one behind the other along `axis`; their other axes agree.

    Backward: dy cut at the seams.
    """
    seams = np.cumsum([x.shape[axis] for x in tensors])[:-1]

    def backward(dy):
        return tuple(np.split(dy, seams, axis))

    return np.concatenate(tensors, axis), backward


@differentiable
def expand(x, shape):
    """x repeated along its axes of size 1, and along new ones in front, to `shape`; -1 keeps one.

    Backward: dx = dy summed over the repeats.
    """
    before, added = x.shape, len(shape) - x.ndim
    shape = tuple(before[i - added] if n == -1 and i >= added else n for i, n in enumerate(shape))

    def backward(dy):
        return unbroadcast(dy, before)

    return np.broadcast_to(x, shape), backward


def stack(tensors, axis=0):
    """Tensors of one shape side by side along a new axis."""
    return concatenate([unsqueeze(x, axis) for x in tensors], axis)


def split(x, sizes, axis=0):
    """x cut along `axis` into pieces of these sizes: a tuple of tensors. For equal ones, see chunk.

    A single number is refused: np.split takes it for how many pieces, PyTorch's split for how long
    each is.
    """
    axis = check_axis("split", x.shape, axis)
    ends = check_split(sizes, x.shape[axis])
    before = (slice(None),) * axis
    pieces = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    return tuple(getitem(x, (*before, piece)) for piece in pieces)


def chunk(x, chunks, axis=0):
    """x cut along `axis` into so many equal pieces: a tuple of tensors."""
    n = x.shape[check_axis("chunk", x.shape, axis)]
    check_chunks(chunks, n)
    return split(x, [n // chunks] * chunks, axis)


@differentiable
def clone(x):
    """A copy of the numbers.  Backward: dx = dy."""

    def backward(dy):
        return dy

    return x.copy(), backward


@differentiable
def astype(x, dtype):
    """The numbers as float32 or float64, copied.  Backward: dx = dy, in x's dtype."""
    check_astype(dtype)
    before = x.dtype

    def backward(dy):
        return dy.astype(before)

    return x.astype(dtype), backward
