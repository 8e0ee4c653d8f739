"""NumPy's functions of a Tensor: they get its numbers, and are refused where its gradient would be lost in them.

NumPy hands its ufuncs (np.exp, and + of an array on the left) to __array_ufunc__ and its other functions (np.mean,
np.linalg.norm) to __array_function__. Which of them lose a gradient is not a list of names: those whose result holds
floats. Whole numbers, truth values, text and None have no gradient to lose (np.argmax, np.allclose, np.shape,
np.array_str, np.save). Who wants the numbers says so: t.data, np.asarray(t), or under no_grad(). np.array([t, t]) is
not caught: it asks each tensor for its array in the very words of np.asarray(t).
"""

import numpy as np

from ..errors import GraphError
from .vocabulary import recorded

# floats, and still nothing is lost: they are flat, or do not look at the numbers, or are asked for a copy of them
_FLAT = set(
    "around ceil copy empty_like fix floor floor_divide full_like histogram histogram2d ones_like rint round sign "
    "trunc zeros_like".split()
)


def protocols(operators, ops, unwrap, waits):
    """Tensor.__array_ufunc__ and Tensor.__array_function__.

    operators: {ufunc: op}, what an array on the left of an operator hands to NumPy; ops: {name: op}; unwrap:
    autograd's; waits: whether a gradient may still come back through a tensor.
    """

    def array_ufunc(self, ufunc, method, *inputs, **options):
        if method == "__call__":
            if ufunc in operators and not options:
                return operators[ufunc](*inputs)
            return numbers(ufunc, ufunc.__name__, inputs, options)
        return numbers(getattr(ufunc, method), f"{ufunc.__name__}.{method}", inputs, options)

    def array_function(self, function, types, args, options):
        return numbers(function, function.__name__, args, options)

    def numbers(function, name, args, options):
        inputs = []
        args, options = unwrap(args, inputs), {key: unwrap(value, inputs) for key, value in options.items()}
        result = function(*args, **options)
        if name not in _FLAT and _has_floats(result) and any(map(waits, inputs)):
            place = (getattr(function, "__module__", None) or "numpy").replace("numpy", "np", 1)
            way = recorded(name, ops) or "there is no op for it, and @differentiable makes one"
            raise GraphError(
                f"{place}.{name}",
                "gives numbers, through which no gradient comes back to the tensor.",
                rule="recorded are minivit's own ops and methods.",
                hint=f"{way}. Where no gradient is wanted, take the tensor's .data.",
            )
        return result

    return array_ufunc, array_function


def _has_floats(result):
    if isinstance(result, (tuple, list)):
        return any(map(_has_floats, result))
    return np.asarray(result).dtype.kind in "fc"
