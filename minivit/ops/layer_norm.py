"""Layer norm: each token to mean 0 and variance 1, then a learned scale and shift."""

import math

import numpy as np

from ..autograd import differentiable
from ..errors import ShapeError
from ..machinery import threads


@differentiable
def layer_norm(x, weight, bias, eps=1e-5):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, mean and (biased) variance over the last axis.

    x: (..., D), weight and bias: (D,), eps: keeps a constant token from dividing by 0.  Returns y: (..., D).
    Backward, with n = (x - mean) / sqrt(var + eps) and dn = dy * weight: mean and variance depend on x too, and give
    dx = (dn - mean(dn) - n * mean(dn * n)) / sqrt(var + eps).
    Sums are products with ones or with weight: sum(x) = x @ 1, sum(dy * weight) = dy @ weight; BLAS is fast at those.
    Source: Ba, Kiros and Hinton 2016, "Layer Normalization".
    """
    if x.ndim == 0 or not x.shape[-1:] == weight.shape == bias.shape:
        came = f"x {x.shape}, weight {weight.shape}, bias {bias.shape}"
        raise ShapeError("layer_norm", f"{came} do not fit.", rule="x (..., D), weight (D,), bias (D,)")
    shape, D, dtype = x.shape, len(weight), np.result_type(x, weight, bias)
    rows = x.reshape(math.prod(shape[:-1]), D).astype(dtype, copy=False)
    n, rstd, y = np.empty_like(rows), np.empty((len(rows), 1), dtype), np.empty_like(rows)
    parts = threads.blocks(*rows.shape)

    def forward(part):
        mean = rows[part] @ np.ones((D, 1), dtype) / D
        np.subtract(rows[part], mean, out=n[part])
        variance = np.vecdot(n[part], n[part])[:, None] / D
        rstd[part] = 1 / np.sqrt(variance + dtype.type(eps))
        n[part] *= rstd[part]
        np.multiply(n[part], weight, out=y[part])
        y[part] += bias

    threads.run(forward, parts)

    def backward(dy):
        dy = dy.reshape(n.shape)
        dx, dweight, dbias = np.empty_like(n), np.empty((len(parts), D), dtype), np.empty((len(parts), D), dtype)

        def of_part(i):
            part = parts[i]
            product = dy[part] * n[part]
            ones = np.ones(len(product), dtype)
            dweight[i], dbias[i] = ones @ product, ones @ dy[part]
            mean_dn, mean_dn_n = dy[part] @ weight[:, None] / D, product @ weight[:, None] / D
            np.multiply(dy[part], weight, out=dx[part])  # dn
            dx[part] -= mean_dn
            dx[part] -= np.multiply(n[part], mean_dn_n, out=product)
            dx[part] *= rstd[part]

        threads.run(of_part, range(len(parts)))
        return dx.reshape(shape), dweight.sum(0), dbias.sum(0)

    return y.reshape(shape), backward
