"""Linear: x @ W.T + b, the map that every learned matrix of the model is."""

import math

import numpy as np

from ..autograd import differentiable
from ..errors import ShapeError
from ..machinery import threads


@differentiable
def linear(x, weight, bias=None):
    """y = x @ weight^T + bias.

    x: (..., in), weight: (out, in), bias: (out,) or None.  Returns y: (..., out).
    Backward: dx = dy @ weight, dweight = dy^T @ x, dbias = dy summed over all rows, which is 1 @ dy.
    """
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[1:] or (bias is not None and bias.shape != weight.shape[:1]):
        came = f"x {x.shape}, weight {weight.shape}" + ("" if bias is None else f", bias {bias.shape}")
        raise ShapeError("linear", f"{came} do not fit.", rule="x (..., in), weight (out, in), bias (out,)")
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])  # (rows, in): one product for the whole batch
    y = threads.matmul(rows, weight.T, bias)  # (rows, out)

    def backward(dy):
        dy = dy.reshape(len(rows), len(weight))  # (rows, out)
        dx, dweight = threads.products((dy, weight, None), (dy.T, rows, None))
        if bias is None:
            return dx.reshape(x.shape), dweight
        return dx.reshape(x.shape), dweight, threads.matmul(np.ones((1, len(dy)), dy.dtype), dy)[0]

    return y.reshape(*x.shape[:-1], len(weight)), backward
