"""The ops: one file a topic, forward and backward side by side. Tensor's operators and methods are attached here."""

import warnings

import numpy as np

from ..autograd import Tensor, is_grad_enabled, unwrap
from ..errors import GraphError
from .arithmetic import (
    abs,
    add,
    divide,
    exp,
    log,
    max,
    mean,
    multiply,
    negative,
    power,
    relu,
    sigmoid,
    silu,
    sqrt,
    subtract,
    sum,
    tanh,
    unbroadcast,
)
from .attention import attention, scaled_dot_product_attention
from .conv2d import conv2d
from .cross_entropy import binary_cross_entropy, cross_entropy, mean_squared_error
from .dropout import dropout
from .einsum import einsum, matmul
from .gelu import gelu, gelu_tanh, quick_gelu
from .layer_norm import layer_norm
from .linear import linear
from .shape import concatenate, expand, getitem, reshape, transpose
from .softmax import log_softmax, softmax

__all__ = [
    "abs",
    "add",
    "attention",
    "binary_cross_entropy",
    "concatenate",
    "conv2d",
    "cross_entropy",
    "divide",
    "dropout",
    "einsum",
    "exp",
    "expand",
    "gelu",
    "gelu_tanh",
    "getitem",
    "layer_norm",
    "linear",
    "log",
    "log_softmax",
    "matmul",
    "max",
    "mean",
    "mean_squared_error",
    "multiply",
    "negative",
    "power",
    "quick_gelu",
    "relu",
    "reshape",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "softmax",
    "sqrt",
    "subtract",
    "sum",
    "tanh",
    "transpose",
    "unbroadcast",
]


def _with_axes(op):
    """Let a method take its axes or sizes one by one or as one tuple: x.reshape(2, 3) and x.reshape((2, 3))."""

    def method(self, *axes):
        if len(axes) == 1 and isinstance(axes[0], (tuple, list)):
            axes = tuple(axes[0])
        return op(self, axes or None) if op is transpose else op(self, axes)

    method.__name__, method.__doc__ = op.__name__, op.__doc__
    return method


def _not_on_leaves(op):
    """`x += y` as x = x + y, but refused for a leaf that is learned: it would only give its name to another tensor."""

    def assign(self, other):
        if self.requires_grad and self._node is None:
            raise GraphError(
                op.__name__,
                "a tensor that requires a gradient is not changed by += and its like.",
                hint="to update a parameter, change its array: p.data -= lr * p.grad.",
            )
        return op(self, other)

    return assign


# functions of NumPy that give an array, in which a tensor's past would be lost
_CUT = set(
    "broadcast_to clip concatenate dot einsum expand_dims flip hstack max mean min moveaxis outer pad prod ravel "
    "repeat reshape roll split squeeze stack sum swapaxes take tensordot tile transpose vstack where".split()
)


def _array_function(self, function, types, args, kwargs):
    """What NumPy calls for its functions of a Tensor: they get the array. A warning where a gradient is lost by it."""
    inputs = []
    args, kwargs = unwrap(args, inputs), {key: unwrap(value, inputs) for key, value in kwargs.items()}
    if function.__name__ in _CUT and is_grad_enabled() and any(getattr(x, "requires_grad", False) for x in inputs):
        warnings.warn(
            f"np.{function.__name__} gives an array, through which no gradient comes back.\n"
            "  hint: look for it in minivit.ops and among the methods; where no gradient is wanted, take t.data.",
            stacklevel=3,
        )
    return function(*args, **kwargs)


Tensor.__array_function__ = _array_function
Tensor.__add__, Tensor.__radd__ = add, lambda self, other: add(other, self)
Tensor.__sub__, Tensor.__rsub__ = subtract, lambda self, other: subtract(other, self)
Tensor.__mul__, Tensor.__rmul__ = multiply, lambda self, other: multiply(other, self)
Tensor.__truediv__, Tensor.__rtruediv__ = divide, lambda self, other: divide(other, self)
Tensor.__pow__, Tensor.__rpow__ = power, lambda self, other: power(other, self)
Tensor.__matmul__, Tensor.__rmatmul__ = matmul, lambda self, other: matmul(other, self)
Tensor.__neg__ = negative
Tensor.__iadd__, Tensor.__isub__ = _not_on_leaves(add), _not_on_leaves(subtract)
Tensor.__imul__, Tensor.__itruediv__ = _not_on_leaves(multiply), _not_on_leaves(divide)
Tensor.__ipow__, Tensor.__imatmul__ = _not_on_leaves(power), _not_on_leaves(matmul)
Tensor.__getitem__ = getitem
Tensor.exp, Tensor.log, Tensor.sqrt, Tensor.tanh = exp, log, sqrt, tanh
Tensor.sum, Tensor.mean, Tensor.max = sum, mean, max
Tensor.reshape, Tensor.transpose, Tensor.expand = _with_axes(reshape), _with_axes(transpose), _with_axes(expand)
Tensor.T = property(transpose)

# Comparisons give arrays of True and False, which have no gradient; a tensor stays hashable by its identity, as in
# PyTorch.
Tensor.__eq__, Tensor.__ne__ = lambda x, y: x.data == np.asarray(y), lambda x, y: x.data != np.asarray(y)
Tensor.__lt__, Tensor.__le__ = lambda x, y: x.data < np.asarray(y), lambda x, y: x.data <= np.asarray(y)
Tensor.__gt__, Tensor.__ge__ = lambda x, y: x.data > np.asarray(y), lambda x, y: x.data >= np.asarray(y)
