"""Attention: every query asks every key. Twice: readable, from the small ops; and fused, one tile at a time.

B batch, h heads, q query tokens, k key tokens, d head size.
"""

import math

import numpy as np

from ..autograd import differentiable, is_grad_enabled
from ..errors import MinivitError, ShapeError
from ..machinery import threads
from .dropout import dropout
from .einsum import einsum, matmul
from .softmax import softmax

TILE = 2**18  # scores in one tile, 1 MB in float32: smaller ones fit the cache better, and threads less
KEEP = 2**22  # probabilities, 16 MB in float32, that forward keeps for backward; where there are more, none
SAFE = 60.0  # scores no farther from 0 than this need no shift: exp(60) = 1e26, which leaves 1e12 for the sum over v


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
    """softmax(q k^T / sqrt(d)) v without ever holding more than KEEP scores.

    q: (..., q, d), k and v: (..., k, d), the leading axes (batch, heads) alike; dropout_p: chance to drop a
    probability, rng: for the dropout.  Returns the context y: (..., q, d).
    Tile by tile (see _tiles): y = sum(exp(s) v) / sum(exp(s)), s = q k^T / sqrt(d), both sums over all keys. Where
    tokens are many, forward keeps only y and log(sum(exp(s))), and backward makes p = exp(s - log(sum(exp(s)))) again:
    dv = p^T dy, dp = dy v^T, ds = p * (dp - sum(dp * p)), dq = ds k / sqrt(d), dk = ds^T q / sqrt(d),
    where sum(dp * p) = sum(dy * y) over d.
    Source: Dao et al. 2022, "FlashAttention", section 3.1 and appendix B.
    """
    _check(q, k, v, dropout_p, rng)
    seed = np.random.default_rng(rng).integers(2**63) if dropout_p else None
    shapes, dtype = (q.shape, k.shape, v.shape), np.result_type(q, k, v, np.float32)
    q, k, v = (x.astype(dtype, copy=False).reshape(_four(x.shape)) for x in (q, k, v))  # (B, h, tokens, d)
    scale = 1 / math.sqrt(q.shape[3])
    q = q * scale
    shifts = not _longest(q) * _longest(k) <= SAFE  # Cauchy-Schwarz: no score is larger; "not <=" is true for NaN, too
    few = math.prod(q.shape[:3]) * k.shape[2] <= KEEP
    keeps = few and is_grad_enabled()
    # the largest score and p itself need all keys of a query in one tile; so does a mask that depends on shapes alone
    all_keys = shifts or few or dropout_p > 0
    groups = _tiles(*q.shape[:3], k.shape[2], all_keys)
    y = np.zeros_like(q, shape=(*q.shape[:3], v.shape[3]))  # lies in memory as q does, whose heads may be side by side
    total, largest = np.zeros((2, *q.shape[:3], 1), dtype)  # (B, h, q, 1)
    kept = {}

    def drop(p, *tile):  # p after dropout, and its backward: the same each time, without being stored
        return dropout.__wrapped__(p, dropout_p, [seed, *tile])

    def forward(group):
        for tile, (at, of) in enumerate(groups[group]):
            p = q[at] @ k[of].swapaxes(2, 3)  # scores, (B, h, q, k)
            if shifts:
                largest[at] = p.max(-1, keepdims=True)
                p -= largest[at]
            np.exp(p, out=p)
            total[at] += p @ np.ones((p.shape[3], 1), dtype)  # a sum: BLAS is fast at that
            if all_keys:
                p /= total[at]
            _add(y, at, drop(p, group, tile)[0], v[of], groups[group])
            if keeps:
                kept[group, tile] = p

    threads.run(forward, range(len(groups)))
    if not all_keys:
        y /= total
    log_sum = np.log(total) + largest

    def backward(dy):
        dy = dy.reshape(y.shape)
        delta = np.einsum("bhqd,bhqd->bhq", dy, y)[..., None]  # (B, h, q, 1)
        dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)

        def of_group(group):
            for tile, (at, of) in enumerate(groups[group]):
                if keeps:
                    p = kept[group, tile]  # (B, h, q, k)
                else:
                    p = q[at] @ k[of].swapaxes(2, 3)
                    np.exp(np.subtract(p, log_sum[at], out=p), out=p)
                dropped, undropped = drop(p, group, tile)
                _add(dv, of, dropped.swapaxes(2, 3), dy[at], groups[group])
                ds = undropped(dy[at] @ v[of].swapaxes(2, 3))  # dp, (B, h, q, k)
                ds -= delta[at]
                ds *= p
                _add(dq, at, ds, k[of], groups[group])
                _add(dk, of, ds.swapaxes(2, 3), q[at], groups[group])

        threads.run(of_group, range(len(groups)))
        dq *= scale
        return tuple(x.reshape(shape) for x, shape in zip((dq, dk, dv), shapes, strict=True))

    return y.reshape(*shapes[0][:-1], y.shape[3]), backward


def _tiles(B, h, queries, keys, all_keys=False):
    """The scores cut into tiles. A tile is (at, of): which queries of which images and heads; which keys of the same.

    It has about TILE scores: those of many heads, where each has few, or of some queries and some keys of one head;
    all_keys: of some queries and all keys. Returns groups of tiles. A group is worked off by one thread, which alone
    adds to the contexts of its queries and to the gradients of its keys.
    """
    if not B * h * queries:
        return []
    length = keys if all_keys or keys * queries <= TILE else min(keys, math.isqrt(TILE))  # keys in a tile
    rows = threads.cut(queries, -(-queries // max(1, TILE // length)))
    columns = threads.cut(keys, -(-keys // length))
    heads = max(1, TILE // (keys * queries))  # in a tile
    if heads < h:
        groups = [(slice(b, b + 1), some) for b in range(B) for some in threads.cut(h, -(-h // heads))]
    else:
        groups = [(images, slice(None)) for images in threads.cut(B, -(-B // (heads // h)))]
    return [[((*group, row), (*group, column)) for row in rows for column in columns] for group in groups]


def _add(y, place, a, b, tiles):
    """y[place] += a @ b; where there is one tile, nothing else is added, and the product can be written there."""
    if len(tiles) == 1:
        np.matmul(a, b, out=y[place])
    else:
        y[place] += a @ b


def _longest(x):
    """The length of the longest vector of a (B, h, tokens, d) array."""
    return math.sqrt(np.einsum("bhtd,bhtd->bht", x, x).max(initial=0))


def _four(shape):
    """The shape (..., tokens, d) as (B, h, tokens, d), whatever the leading axes."""
    leading = (1, 1, *shape[:-2])
    return (math.prod(leading[:-1]), leading[-1], *shape[-2:])


def _check(q, k, v, dropout_p=0.0, rng=None):
    if min(q.ndim, k.ndim, v.ndim) < 2 or not (
        q.shape[:-2] == k.shape[:-2] == v.shape[:-2] and q.shape[-1] == k.shape[-1] and k.shape[-2] == v.shape[-2]
    ):
        raise ShapeError(
            "attention",
            f"q {q.shape}, k {k.shape}, v {v.shape} do not fit.",
            rule="q (..., q, d), k (..., k, d), v (..., k, d) with the same leading axes.",
            hint="split the heads first: x.reshape(B, T, h, d).transpose(0, 2, 1, 3).",
        )
    if 0 in k.shape[-2:]:
        raise ShapeError("attention", f"k {k.shape} is empty.", rule="there is a key to attend to, and d is 1 or more.")
    if dropout_p and rng is None:
        raise MinivitError("attention", "dropout_p without rng.", rule="chance comes from a Generator or a seed.")
