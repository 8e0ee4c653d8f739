"""Layer norm: each token to mean 0 and variance 1, then a learned scale and shift."""

import numpy as np

from ..autograd import differentiable
from ..errors import ShapeError


@differentiable
def layer_norm(x, weight, bias, eps=1e-5):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, mean and (biased) variance over the last axis.

    x: (..., D), weight and bias: (D,), eps: keeps a constant token from dividing by 0.  Returns y: (..., D).
    Backward, with n = (x - mean) / sqrt(var + eps) and dn = dy * weight: mean and variance depend on x too, and give
    dx = (dn - mean(dn) - n * mean(dn * n)) / sqrt(var + eps).
    Source: Ba, Kiros and Hinton 2016, "Layer Normalization".
    """
    if x.ndim == 0 or not x.shape[-1:] == weight.shape == bias.shape:
        came = f"x {x.shape}, weight {weight.shape}, bias {bias.shape}"
        raise ShapeError("layer_norm", f"{came} do not fit.", rule="x (..., D), weight (D,), bias (D,)")
    n = x - x.mean(-1, keepdims=True)
    rstd = 1 / np.sqrt((n * n).mean(-1, keepdims=True) + n.dtype.type(eps))  # (..., 1)
    n *= rstd
    y = n * weight + bias

    def backward(dy):
        rows = tuple(range(dy.ndim - 1))
        dweight, dbias = (dy * n).sum(rows), dy.sum(rows)
        dn = dy * weight
        dx = (dn - dn.mean(-1, keepdims=True) - n * (dn * n).mean(-1, keepdims=True)) * rstd
        return dx, dweight, dbias

    return y, backward
