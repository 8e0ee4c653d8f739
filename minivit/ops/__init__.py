"""The ops: one file a topic, forward and backward side by side. Tensor's methods: methods.py.

Whatever takes axis= and keepdims=, NumPy's words, takes PyTorch's dim= and keepdim= for them, too.
"""

# ruff: noqa: F401 (every op that is imported here is offered: __all__ is made of them)

import sys

from ..machinery.vocabulary import FUNCTIONS, speaks, unknown
from .arithmetic import (
    abs,
    add,
    clip,
    divide,
    exp,
    log,
    masked_fill,
    maximum,
    minimum,
    multiply,
    negative,
    power,
    relu,
    sigmoid,
    silu,
    sqrt,
    subtract,
    tanh,
    unbroadcast,
    where,
)
from .attention import attention, scaled_dot_product_attention
from .conv2d import conv2d
from .cross_entropy import binary_cross_entropy, cross_entropy, mean_squared_error
from .dropout import dropout
from .einsum import einsum, matmul
from .gelu import gelu, gelu_tanh, quick_gelu
from .layer_norm import layer_norm
from .linear import linear
from .reductions import logsumexp, max, mean, min, std, sum, var
from .shape import (
    astype,
    chunk,
    clone,
    concatenate,
    expand,
    flatten,
    getitem,
    reshape,
    split,
    squeeze,
    stack,
    swapaxes,
    transpose,
    unsqueeze,
)
from .softmax import log_softmax, softmax

_HERE = f"{__name__}."
_modules = {name: getattr(op, "__module__", "") for name, op in globals().items()}
__all__ = sorted(name for name, module in _modules.items() if module.startswith(_HERE))
globals().update({name: speaks(globals()[name]) for name in __all__})


def __getattr__(name):
    raise unknown(sys.modules[__name__], "ops", name, FUNCTIONS)


from . import methods  # noqa: E402 (it gives Tensor the ops above)
