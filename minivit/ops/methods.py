"""Tensor's operators and methods: the ops by the names that NumPy and PyTorch have for them."""

import numpy as np

from .. import ops
from ..autograd import Node, Tensor, is_grad_enabled, unwrap
from ..errors import GraphError, MinivitError, ShapeError
from ..machinery.guards import waits
from ..machinery.numpy_functions import protocols
from ..machinery.vocabulary import METHODS, absent, explains, speaks

_OPS = {name: getattr(ops, name) for name in ops.__all__}


def _with_axes(op):
    """Let a method take its axes one by one or as one tuple: x.reshape(2, 3), x.reshape((2, 3))."""

    def method(self, *axes):
        if len(axes) == 1 and isinstance(axes[0], (tuple, list)):
            axes = tuple(axes[0])
        return op(self, axes or None) if op is ops.transpose else op(self, axes)

    method.__name__, method.__doc__ = op.__name__, op.__doc__
    return method


_permute = _with_axes(ops.transpose)


def _transpose(self, *axes):
    """All axes in another order, as in NumPy; two of three or more change places, as in PyTorch.

    Of a matrix, two axes in their own order are refused: NumPy would change nothing, PyTorch would
    swap them.
    """
    if len(axes) == 2 and not isinstance(axes[0], (tuple, list)):
        if self.ndim != 2:
            return ops.swapaxes(self, *axes)
        if [axis % 2 for axis in axes] == [0, 1]:
            raise ShapeError(
                "transpose",
                f"axes {axes} of a matrix {self.shape}.",
                rule="NumPy reads the new order of all axes, which is the old one; PyTorch the two "
                "that change places.",
                hint=f"x.T, or x.swapaxes{axes}, changes them.",
            )
    return _permute(self, *axes)


def _not_on_leaves(op):
    """`x += y` as x = x + y; refused for a leaf that is learned, which would stay as it is."""

    def assign(self, other):
        if self.requires_grad and self._node is None:
            raise GraphError(
                op.__name__,
                "a tensor that requires a gradient is not changed by += and its like.",
                hint="to update a parameter, change its array: p.data -= lr * p.grad.",
            )
        return op(self, other)

    return assign


def _setitem(self, index, value):
    raise GraphError(
        "Tensor",
        "x[...] = value would write over numbers that a backward may need.",
        hint="ops.where(mask, value, x) makes a new tensor; x.data[...] = value changes the "
        "numbers, unrecorded.",
    )


class _Size(int):
    """How many numbers there are: an int, but for what it says when it is called."""

    __slots__ = ()

    def __call__(self, *dim):
        raise MinivitError(
            "Tensor.size",
            "is how many numbers there are, as in NumPy, and no method.",
            hint="PyTorch's x.size() is x.shape, its x.size(0) x.shape[0].",
        )


@explains
def _to(self, dtype):
    """The tensor as float32 or float64. "cpu" is where it is."""
    if isinstance(dtype, str) and dtype.partition(":")[0] in ("cpu", "cuda", "mps", "xpu", "meta"):
        if dtype != "cpu":
            hint = "leave it out: all is on the CPU."
            raise MinivitError("Tensor.to", f"there is no {dtype!r} here.", hint=hint)
        return self
    return ops.astype(self, dtype)


def _requires_grad_(self, requires_grad=True):
    """Make a leaf one that backward() fills, or not. Returns the tensor."""
    self.requires_grad = requires_grad
    return self


def _argmax(self, axis=None, keepdims=False):
    """Where the largest element is, over `axis`: an array of integers, which have no gradient."""
    return self.data.argmax(axis, keepdims=keepdims)


def _argmin(self, axis=None, keepdims=False):
    """Where the smallest element is, over `axis`: an array of integers, which have no gradient."""
    return self.data.argmin(axis, keepdims=keepdims)


def _waiting(x):
    return is_grad_enabled() and waits(x)


Tensor.__add__, Tensor.__radd__ = ops.add, lambda self, other: ops.add(other, self)
Tensor.__sub__, Tensor.__rsub__ = ops.subtract, lambda self, other: ops.subtract(other, self)
Tensor.__mul__, Tensor.__rmul__ = ops.multiply, lambda self, other: ops.multiply(other, self)
Tensor.__truediv__, Tensor.__rtruediv__ = ops.divide, lambda self, other: ops.divide(other, self)
Tensor.__pow__, Tensor.__rpow__ = ops.power, lambda self, other: ops.power(other, self)
Tensor.__matmul__, Tensor.__rmatmul__ = ops.matmul, lambda self, other: ops.matmul(other, self)
Tensor.__neg__, Tensor.__abs__ = ops.negative, ops.abs
Tensor.__iadd__, Tensor.__isub__ = _not_on_leaves(ops.add), _not_on_leaves(ops.subtract)
Tensor.__imul__, Tensor.__itruediv__ = _not_on_leaves(ops.multiply), _not_on_leaves(ops.divide)
Tensor.__ipow__, Tensor.__imatmul__ = _not_on_leaves(ops.power), _not_on_leaves(ops.matmul)
Tensor.__getitem__, Tensor.__setitem__ = ops.getitem, _setitem

# Comparisons give arrays of True and False, which have no gradient; a tensor stays hashable by its
# identity, as in PyTorch.
Tensor.__eq__ = lambda x, y: x.data == np.asarray(y)
Tensor.__ne__ = lambda x, y: x.data != np.asarray(y)
Tensor.__lt__ = lambda x, y: x.data < np.asarray(y)
Tensor.__le__ = lambda x, y: x.data <= np.asarray(y)
Tensor.__gt__ = lambda x, y: x.data > np.asarray(y)
Tensor.__ge__ = lambda x, y: x.data >= np.asarray(y)

# the ops that are methods by their own names
for _name in (
    "abs exp log sqrt tanh relu sigmoid softmax log_softmax sum mean max min var std logsumexp "
    "matmul clip masked_fill swapaxes flatten squeeze unsqueeze split chunk clone astype"
).split():
    setattr(Tensor, _name, _OPS[_name])
Tensor.reshape, Tensor.expand = _with_axes(ops.reshape), _with_axes(ops.expand)
Tensor.view, Tensor.permute, Tensor.transpose = Tensor.reshape, _permute, _transpose
Tensor.pow, Tensor.clamp = ops.power, ops.clip
Tensor.T, Tensor.mT = property(ops.transpose), property(lambda self: ops.swapaxes(self, -1, -2))
Tensor.t = lambda self: ops.transpose(self)
Tensor.argmax, Tensor.argmin = speaks(_argmax), speaks(_argmin)

# what PyTorch's tensors know of themselves
Tensor.dim, Tensor.numel = lambda self: self.ndim, lambda self: self.data.size
Tensor.size = property(lambda self: _Size(self.data.size))
Tensor.tolist = lambda self: self.data.tolist()
Tensor.is_leaf = property(lambda self: self._node is None)
Tensor.grad_fn = property(lambda self: self._node)
Node.__repr__ = lambda self: f"Node({self.op})"
Tensor.backward = explains(Tensor.backward)
Tensor.requires_grad_ = _requires_grad_
Tensor.to, Tensor.device = _to, property(lambda self: "cpu")
Tensor.cpu = Tensor.contiguous = lambda self: self
Tensor.float = lambda self: ops.astype(self, np.float32)
Tensor.double = lambda self: ops.astype(self, np.float64)

# what they have, and Tensor has not: there, though dir() does not list it
for _name in METHODS:
    setattr(Tensor, _name, absent(_name))
Tensor.__dir__ = lambda self: [name for name in object.__dir__(self) if name not in METHODS]

# NumPy's functions of a tensor; the ufuncs here are what an array on the left of an operator calls
_OPERATORS = {
    **{np.add: ops.add, np.subtract: ops.subtract, np.multiply: ops.multiply},
    **{np.divide: ops.divide, np.power: ops.power, np.matmul: ops.matmul},
}
Tensor.__array_ufunc__, Tensor.__array_function__ = protocols(_OPERATORS, _OPS, unwrap, _waiting)
