"""Shape: the same numbers in another arrangement. Each backward is the arrangement undone."""

import copy
import math

import numpy as np

from ..autograd import differentiable
from ..errors import ShapeError
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
    if axes is not None and len(axes) != x.ndim:
        raise ShapeError(
            "transpose",
            f"axes {tuple(axes)} for an array of shape {x.shape}.",
            rule=f"as in NumPy, axes names every axis once: {x.ndim} of them.",
            hint="to swap two axes, x.swapaxes(1, 2).",
        )

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
    """The axes from start_dim to end_dim as one: (2, 3, 5) from 1 on is (2, 15).  Backward: dx = dy in x's shape."""
    shape = x.shape or (1,)
    first, last = (_axis("flatten", shape, axis) for axis in (start_dim, end_dim))

    def backward(dy):
        return dy.reshape(x.shape)

    return x.reshape(*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]), backward


@differentiable
def squeeze(x, axis=None):
    """x without its axes of size 1: all of them, or those of `axis` (an int or a tuple).  Backward: as of reshape.

    ShapeError for an axis of another size, as in NumPy; PyTorch would leave it there and say nothing.
    """
    before = x.shape

    def backward(dy):
        return dy.reshape(before)

    return x.squeeze(axis), backward


@differentiable
def unsqueeze(x, axis):
    """x with a new axis of size 1 at `axis`, np.expand_dims' and x[None]'s.  Backward: dx = dy in x's shape."""
    before = x.shape

    def backward(dy):
        return dy.reshape(before)

    return np.expand_dims(x, axis), backward


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


def stack(tensors, axis=0):
    """Tensors of one shape side by side along a new axis."""
    return concatenate([unsqueeze(x, axis) for x in tensors], axis)


def split(x, sizes, axis=0):
    """x cut along `axis` into pieces of these sizes, which add up: a tuple of tensors. Equal ones: chunk.

    A single number is refused: np.split takes it for how many pieces, PyTorch's split for how long each is.
    """
    n = x.shape[_axis("split", x.shape, axis)]
    if not isinstance(sizes, (tuple, list)):
        raise ShapeError(
            "split",
            f"into {sizes} pieces, or into pieces of {sizes}?",
            rule="NumPy reads a single number as the first, PyTorch as the second; here sizes is a list.",
            hint=f"chunk(x, {sizes}, axis) for {sizes} pieces, split(x, [{sizes}, ...], axis) for pieces of {sizes}.",
        )
    ends = [int(end) for end in np.cumsum(sizes)]
    if not ends or ends[-1] != n or any(size < 0 for size in sizes):
        raise ShapeError("split", f"sizes {list(sizes)} for an axis of {n}.", rule="the sizes add up to the axis.")
    before = (slice(None),) * _axis("split", x.shape, axis)
    return tuple(getitem(x, (*before, slice(end - size, end))) for size, end in zip(sizes, ends, strict=True))


def chunk(x, chunks, axis=0):
    """x cut along `axis` into so many equal pieces: a tuple of tensors."""
    n = x.shape[_axis("chunk", x.shape, axis)]
    if chunks < 1 or n % chunks:
        raise ShapeError(
            "chunk",
            f"an axis of {n} cannot be cut into {chunks} equal pieces.",
            hint="split(x, sizes, axis) cuts pieces of any sizes.",
        )
    return split(x, [n // chunks] * chunks, axis)


def _axis(where, shape, axis):
    """The axis counted from the front. ShapeError where there is none."""
    if not -len(shape) <= axis < len(shape):
        raise ShapeError(where, f"there is no axis {axis} in {shape}.", rule="the first axis is 0.")
    return axis % len(shape)


@differentiable
def clone(x):
    """A copy of the numbers.  Backward: dx = dy."""

    def backward(dy):
        return dy

    return x.copy(), backward


@differentiable
def astype(x, dtype):
    """The numbers as float32 or float64, copied.  Backward: dx = dy, in x's dtype."""
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise ShapeError(
            "astype",
            f"a gradient cannot come back through {np.dtype(dtype)}.",
            rule="only float32 and float64 numbers have gradients.",
            hint="for the numbers alone, t.data.astype(dtype).",
        )
    before = x.dtype

    def backward(dy):
        return dy.astype(before)

    return x.astype(dtype), backward
