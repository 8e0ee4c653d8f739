"""Dropout: while training, some numbers, by chance, become 0, and the rest makes up for them."""

import numpy as np

from ..autograd import differentiable
from ..machinery.shapes import check_dropout


@differentiable
def dropout(x, p, rng, training=True):
    """y = x * mask / (1 - p), each number's mask 0 with probability p; y = x unless training.

    x: any shape, p: in [0, 1], rng: an np.random.Generator (which moves on) or a seed.
    Returns y of x's shape.
    Backward: dx = dy * mask / (1 - p), with the same mask.
    Source: Srivastava et al. 2014, in the "inverted" form that needs no scaling later.
    """
    check_dropout(p, rng, training)
    if not training or p == 0:
        return x, lambda dy: dy
    keep = np.random.default_rng(rng).random(x.shape, dtype=np.float32) >= p
    mask = keep * x.dtype.type(1 / (1 - p) if p < 1 else 0)

    def backward(dy):
        return dy * mask

    return x * mask, backward
