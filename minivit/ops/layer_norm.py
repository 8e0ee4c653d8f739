"""Layer norm: each token to mean 0 and variance 1, then a learned scale and shift."""

import numpy as np

from ..autograd import differentiable
from ..machinery.blocks import by_rows, in_dtype
from ..machinery.products import total
from ..machinery.shapes import check_layer_norm


@differentiable
def layer_norm(x, weight, bias, eps=1e-5):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, mean and biased var over the last axis.

    x: (..., D), weight and bias: (D,), eps: keeps a constant token from dividing by 0.
    Returns y: (..., D).
    Backward, with n = (x - mean) / sqrt(var + eps) and dn = dy * weight; mean and var depend on x:
    dx = (dn - mean(dn) - n * mean(dn * n)) / sqrt(var + eps),
    dweight = sum(dy * n), dbias = sum(dy).
    Source: Ba, Kiros and Hinton 2016, "Layer Normalization".
    """
    check_layer_norm(x, weight, bias)
    x, weight, bias = in_dtype(x, weight, bias)

    def forward(x):  # some tokens, (tokens, D)
        n = x - mean(x)
        var = mean(n, n)  # (tokens, 1)
        rstd = 1 / np.sqrt(var + n.dtype.type(eps)) + 0 * var  # NaN, not 0, where var is infinite
        n *= rstd
        return n * weight + bias, n, rstd

    y, n, rstd = by_rows(forward, x)

    def backward(dy):
        def of_tokens(dy, n, rstd):
            dn = dy * weight
            dx = dn - mean(dn)
            dx -= n * mean(dn, n)
            dx *= rstd
            return dx, total(dy * n), total(dy)

        return by_rows(of_tokens, dy, n, rstd, sums=2)

    return y, backward


def mean(a, b=None):
    """The mean of a, or of a * b, by BLAS, which adds fast: (tokens, D) -> (tokens, 1)."""
    added = a @ np.ones((a.shape[-1], 1), a.dtype) if b is None else np.vecdot(a, b)[:, None]
    return added / a.shape[-1]
