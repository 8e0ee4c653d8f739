"""Attention: every query asks every key. Twice: readable, from the small ops; and fused, one tile at a time.

B batch, h heads, q query tokens, k key tokens, d head size.
"""

import math

import numpy as np

from ..autograd import differentiable
from ..errors import MinivitError, ShapeError
from .dropout import dropout
from .einsum import einsum, matmul
from .softmax import softmax

TILE = 2**20  # numbers in one tile of scores: 4 MB in float32, about what the caches of one core hold


def attention(q, k, v, dropout_p=0.0, rng=None, head_mask=None):
    """softmax(q k^T / sqrt(d)) v, step by step.

    q: (..., q, d), k and v: (..., k, d), dropout_p: chance to drop a probability, rng: for the dropout, head_mask:
    broadcasts against the probabilities and multiplies them, 0 for a head to leave out.
    Returns (context, probabilities): (..., q, d) and (..., q, k).
    Source: Vaswani et al. 2017, section 3.2.1.
    """
    _check(q, k, v)
    scores = einsum("...qd,...kd->...qk", q, k) / math.sqrt(q.shape[-1])  # (..., q, k)
    probabilities = dropout(softmax(scores), dropout_p, rng)
    if head_mask is not None:
        probabilities = probabilities * head_mask
    return matmul(probabilities, v), probabilities


@differentiable
def scaled_dot_product_attention(q, k, v, dropout_p=0.0, rng=None):
    """softmax(q k^T / sqrt(d)) v without ever holding all the scores.

    q: (..., q, d), k and v: (..., k, d), the leading axes (batch, heads) alike; dropout_p: chance to drop a
    probability, rng: for the dropout.  Returns the context y: (..., q, d).
    A tile is some heads and some of their queries against all keys. Forward keeps only y and, for each query, the
    logarithm of softmax's denominator; backward computes each tile of probabilities p again from it:
    dv = p^T dy, dp = dy v^T, ds = p * (dp - sum(dp * p)), dq = ds k / sqrt(d), dk = ds^T q / sqrt(d),
    where sum(dp * p) = sum(dy * y) over d.
    Source: Dao et al. 2022, "FlashAttention", section 3.1 and appendix B.
    """
    _check(q, k, v)
    shapes = q.shape, k.shape, v.shape
    q, k, v = (x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:]) for x in (q, k, v))  # (heads, tokens, d)
    scale = 1 / math.sqrt(q.shape[-1])
    tiles = _tiles(len(q), q.shape[1], k.shape[1])
    if dropout_p and rng is None:
        raise MinivitError("attention", "dropout_p without rng.", rule="chance comes from a Generator or a seed.")
    seed = np.random.default_rng(rng).integers(2**63) if dropout_p else None
    dtype = np.result_type(q, k, v, np.float32)
    y = np.empty((*q.shape[:2], v.shape[2]), dtype)  # (heads, q, d)
    log_sum = np.empty((*q.shape[:2], 1), dtype)  # (heads, q, 1)

    def keep(number, p):  # the dropout mask of a tile, the same in both directions without being stored
        return dropout.__wrapped__(np.ones_like(p), dropout_p, [seed, number])[0]

    for number, (heads, rows) in enumerate(tiles):
        p = (q[heads, rows] * dtype.type(scale)) @ k[heads].swapaxes(1, 2)  # (heads, q, k)
        largest = p.max(-1, keepdims=True)
        np.exp(np.subtract(p, largest, out=p), out=p)
        denominator = p.sum(-1, keepdims=True)
        log_sum[heads, rows] = largest + np.log(denominator)
        if dropout_p:
            p *= keep(number, p)
        y[heads, rows] = p @ v[heads] / denominator

    def backward(dy):
        dy = dy.reshape(y.shape)
        delta = (dy * y).sum(-1, keepdims=True)  # (heads, q, 1)
        dq, dk, dv = np.empty(q.shape, dtype), np.zeros(k.shape, dtype), np.zeros(v.shape, dtype)
        for number, (heads, rows) in enumerate(tiles):
            q_scaled = q[heads, rows] * dtype.type(scale)
            p = q_scaled @ k[heads].swapaxes(1, 2)  # (heads, q, k)
            np.exp(np.subtract(p, log_sum[heads, rows], out=p), out=p)
            dp = dy[heads, rows] @ v[heads].swapaxes(1, 2)  # (heads, q, k)
            if dropout_p:
                mask = keep(number, p)
                dv[heads] += (p * mask).swapaxes(1, 2) @ dy[heads, rows]
                dp *= mask
            else:
                dv[heads] += p.swapaxes(1, 2) @ dy[heads, rows]
            dp -= delta[heads, rows]
            dp *= p  # now ds
            dq[heads, rows] = dp @ k[heads] * scale
            dk[heads] += dp.swapaxes(1, 2) @ q_scaled
        return tuple(x.reshape(shape) for x, shape in zip((dq, dk, dv), shapes, strict=True))

    return y.reshape(*shapes[0][:-1], y.shape[-1]), backward


def _tiles(heads, queries, keys):
    """Slices of heads and of queries, so that each tile has about TILE scores: whole heads where they fit."""
    rows = max(1, min(queries, TILE // max(keys, 1)))
    several = max(1, TILE // max(queries * keys, 1)) if rows == queries else 1
    return [
        (slice(i, i + several), slice(j, j + rows)) for i in range(0, heads, several) for j in range(0, queries, rows)
    ]


def _check(q, k, v):
    if min(q.ndim, k.ndim, v.ndim) < 2 or not (
        q.shape[:-2] == k.shape[:-2] == v.shape[:-2] and q.shape[-1] == k.shape[-1] and k.shape[-2] == v.shape[-2]
    ):
        raise ShapeError(
            "attention",
            f"q {q.shape}, k {k.shape}, v {v.shape} do not fit.",
            rule="q (..., q, d), k (..., k, d), v (..., k, d) with the same leading axes.",
            hint="split the heads first: x.reshape(B, T, h, d).transpose(0, 2, 1, 3).",
        )
