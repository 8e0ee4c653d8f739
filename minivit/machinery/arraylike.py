"""What a Tensor has of an array: its shape, its numbers, and how it looks."""

import numpy as np

from ..errors import ShapeError
from . import guards


class ArrayLike:
    """Something with an array in `.data`."""

    __slots__ = ()
    __array_ufunc__ = None  # so that array + tensor is left to Tensor.__radd__

    shape = property(lambda self: self.data.shape)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    dtype = property(lambda self: self.data.dtype)

    def numpy(self):
        """The array itself, shared with the tensor."""
        return self.data

    def item(self):
        """The one number in this tensor, as a Python number."""
        if self.size != 1:
            raise ShapeError("Tensor.item", f"a tensor of shape {self.shape} is not one number.")
        return self.data.item()

    def __array__(self, dtype=None, copy=None):
        if copy is False and dtype is not None and dtype != self.dtype:
            raise ValueError(f"cannot view {self.dtype} as {np.dtype(dtype)} without a copy")
        array = self.data if dtype is None else self.data.astype(dtype, copy=False)
        return array.copy() if copy else array

    def __reduce_ex__(self, protocol):
        guards.leaf("copy or pickle of a Tensor", self)
        return super().__reduce_ex__(max(protocol, 2))  # the older ones know no __slots__

    def __len__(self):
        return len(self.data)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __bool__(self):
        return bool(self.data)

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __format__(self, form):
        return format(self.item(), form) if form else str(self)

    def __repr__(self):
        array = np.array2string(self.data, prefix="Tensor(", separator=", ", threshold=100)
        op = f", op={self._node.op}" if self._node else ""
        return f"Tensor({array}, shape={self.shape}, dtype={self.dtype}{op}, requires_grad={self.requires_grad})"
