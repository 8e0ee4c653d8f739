"""Attention: every query asks every key. Twice: readable, from the small ops; and fused, one tile at a time.

B batch, h heads, q query tokens, k key tokens, d head size.
"""

import math

import numpy as np

from .. import threads
from ..autograd import differentiable, is_grad_enabled
from ..errors import MinivitError, ShapeError
from .dropout import dropout
from .einsum import einsum, matmul
from .softmax import softmax

TILE = 2**18  # scores in one tile, 1 MB in float32: smaller ones fit the cache better, and threads less
KEEP = 2**22  # probabilities, 16 MB in float32, that forward keeps for backward; where there are more, none
SAFE = 60.0  # a score this far from 0 needs no shift: exp(60) = 1e26, and float32 goes to 1e38


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
    A tile is some heads and some of their queries against all keys. Where tokens are many, forward keeps only y and,
    for each query, the logarithm of softmax's denominator; backward makes each tile of probabilities p again from it:
    dv = p^T dy, dp = dy v^T, ds = p * (dp - sum(dp * p)), dq = ds k / sqrt(d), dk = ds^T q / sqrt(d),
    where sum(dp * p) = sum(dy * y) over d.
    Source: Dao et al. 2022, "FlashAttention", section 3.1 and appendix B.
    """
    _check(q, k, v)
    if dropout_p and rng is None:
        raise MinivitError("attention", "dropout_p without rng.", rule="chance comes from a Generator or a seed.")
    seed = np.random.default_rng(rng).integers(2**63) if dropout_p else None
    shapes, dtype = (q.shape, k.shape, v.shape), np.result_type(q, k, v, np.float32)
    q, k, v = (x.astype(dtype, copy=False).reshape(_four(x.shape)) for x in (q, k, v))  # (B, h, tokens, d)
    scale = 1 / math.sqrt(q.shape[3])
    keeps = is_grad_enabled() and math.prod(q.shape[:3]) * k.shape[2] <= KEEP
    groups, rows, columns = _tiles(*q.shape[:3], k.shape[2], keeps)
    y = np.zeros_like(q, shape=(*q.shape[:3], v.shape[3]))  # lies in memory as q does, whose heads may be side by side
    log_sum = np.empty((*q.shape[:3], 1), dtype)  # (B, h, q, 1)
    kept = {}

    def mask(p, *place):  # of the dropout in a tile, the same in both directions without being stored
        return dropout.__wrapped__(np.ones_like(p), dropout_p, [seed, *place])[0]

    def forward(number):
        heads = groups[number]
        for row, some in enumerate(rows):
            at = (*heads, some)
            q_scaled = q[at] * scale
            denominator, shift = np.zeros_like(log_sum[at]), np.zeros_like(log_sum[at])
            for column, keys in enumerate(columns):
                p = q_scaled @ k[(*heads, keys)].swapaxes(2, 3)  # (B, h, q, k)
                if shift.any():
                    p -= shift
                if p.max() > SAFE or (column == 0 and p.min() < -SAFE):  # a row of zeros alone would be lost, too
                    more = p.max(-1, keepdims=True)
                    if column:
                        more = np.maximum(more, 0)
                        y[at] *= np.exp(-more)
                        denominator *= np.exp(-more)
                    p -= more
                    shift += more
                np.exp(p, out=p)
                denominator += p @ np.ones((p.shape[3], 1), dtype)  # a sum: BLAS is fast at that
                y[at] += (p * mask(p, number, row, column) if dropout_p else p) @ v[(*heads, keys)]
            y[at] /= denominator
            log_sum[at] = np.log(denominator) + shift
            if keeps:
                kept[number, row] = np.divide(p, denominator, out=p)

    threads.run(forward, range(len(groups)))

    def backward(dy):
        dy = dy.reshape(y.shape)
        delta = np.vecdot(dy, y)[..., None]  # (B, h, q, 1)
        dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)

        def of_group(number):
            heads = groups[number]
            for row, some in enumerate(rows):
                at = (*heads, some)
                q_scaled = q[at] * scale
                for column, keys in enumerate(columns):
                    of = (*heads, keys)
                    if keeps:
                        p = kept[number, row]  # (B, h, q, k)
                    else:
                        p = q_scaled @ k[of].swapaxes(2, 3)
                        np.exp(np.subtract(p, log_sum[at], out=p), out=p)
                    dp = dy[at] @ v[of].swapaxes(2, 3)  # (B, h, q, k)
                    if dropout_p:
                        m = mask(p, number, row, column)
                        dv[of] += (p * m).swapaxes(2, 3) @ dy[at]
                        dp *= m
                    else:
                        dv[of] += p.swapaxes(2, 3) @ dy[at]
                    dp -= delta[at]
                    dp *= p  # now ds
                    dq[at] += dp @ k[of]
                    dk[of] += dp.swapaxes(2, 3) @ q_scaled
                dq[at] *= scale

        threads.run(of_group, range(len(groups)))
        return tuple(x.reshape(shape) for x, shape in zip((dq, dk, dv), shapes, strict=True))

    return y.reshape(*shapes[0][:-1], y.shape[3]), backward


def _four(shape):
    """The shape (..., tokens, d) as (B, h, tokens, d), whatever the leading axes."""
    leading = (1, 1, *shape[:-2])
    return (math.prod(leading[:-1]), leading[-1], *shape[-2:])


def _tiles(B, h, queries, keys, whole_rows=False):
    """Groups of images and heads, a pair of slices each; slices of queries; slices of keys. One of each is a tile.

    A tile has about TILE scores: those of many heads, where each has few, or of some queries and some keys of one head.
    A group is worked off by one thread, which alone adds to the gradients of its keys and values.
    whole_rows: a tile has all keys.
    """
    if not B * h * queries:
        return [], [], []
    side = max(1, math.isqrt(TILE))
    length = max(1, min(keys, side if keys * queries > TILE and not whole_rows else keys))  # keys in a tile
    rows = threads.cut(queries, -(-queries // max(1, TILE // length)))
    columns = threads.cut(keys, -(-keys // length))
    several = max(1, TILE // (length * -(-queries // len(rows)))) if len(columns) == 1 else 1  # heads in a tile
    if several < h:
        return [(slice(b, b + 1), heads) for b in range(B) for heads in threads.cut(h, -(-h // several))], rows, columns
    return [(images, slice(None)) for images in threads.cut(B, -(-B // (several // h)))], rows, columns


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
