"""Attention: every query asks every key. Twice: readable, and fused, without holding every score.

B batch, h heads, q query tokens, k key tokens, d head size.
"""

import math

import numpy as np

from ..autograd import differentiable, is_grad_enabled
from ..machinery.blocks import by_queries, in_dtype
from ..machinery.random import first_row, generator_at
from ..machinery.shapes import check_attention
from .dropout import dropout
from .einsum import einsum, matmul
from .softmax import softmax

KEEP = 2**22  # probabilities, 16 MB in float32, that forward keeps for backward; of more, none
SAFE = 60.0  # so near to 0, scores need no shift: exp(60) = 1e26 leaves 1e12 for the sum over v


def attention(q, k, v, dropout_p=0.0, rng=None, head_mask=None):
    """softmax(q k^T / sqrt(d)) v, step by step.

    q: (..., q, d), k and v: (..., k, d), dropout_p: chance to drop a probability, rng: for the
    dropout, head_mask: broadcasts against the probabilities and multiplies them, 0 for a head to
    leave out.  Returns (context, probabilities): (..., q, d) and (..., q, k).
    Source: Vaswani et al. 2017, section 3.2.1.
    """
    check_attention(q, k, v)
    q = q / math.sqrt(q.shape[-1])  # q is smaller than the scores, and division keeps what it gives
    scores = einsum("...qd,...kd->...qk", q, k)  # (..., q, k)
    probabilities = dropout(softmax(scores), dropout_p, rng)
    if head_mask is not None:
        probabilities = probabilities * head_mask
    return matmul(probabilities, v), probabilities


@differentiable
def scaled_dot_product_attention(q, k, v, dropout_p=0.0, rng=None):
    """y = p v, p = softmax(s), s = q k^T / sqrt(d); some queries at a time: p is never there whole.

    q: (..., q, d), k and v: (..., k, d), the leading axes (batch, heads) alike; dropout_p: chance
    to drop a probability, rng: for the dropout.  Returns the context y: (..., q, d).
    Backward: dv = p^T dy, dp = dy v^T, ds = p * (dp - sum(dp * p)), where sum(dp * p) is also
    sum(dy * y) over d; dq = ds k / sqrt(d), dk = ds^T q / sqrt(d).
    Where there are more than KEEP of them, p = exp(s - log(sum(exp(s)))) is made again.
    Source: Dao et al. 2022, "FlashAttention", section 3.1 and appendix B.
    """
    check_attention(q, k, v, dropout_p, rng)
    # q is q / sqrt(d) from here on: so dk = ds^T q has its sqrt(d) already, and dq needs one yet
    q, k, v = in_dtype(q / math.sqrt(q.shape[-1]), k, v)
    drop = _dropout_again(dropout_p, rng, math.prod(q.shape[1:-1]) * k.shape[-2])
    kept = {} if is_grad_enabled() and math.prod(q.shape[:-1]) * k.shape[-2] <= KEEP else None
    bounded = _longest(q) * _longest(k) <= SAFE  # Cauchy-Schwarz: no score is farther from 0

    def forward(place, q, k, v):
        p, log_sum = _softmax(q @ k.mT, bounded)  # (B, h, q, k), (B, h, q, 1)
        if kept is not None:
            kept[place] = p
        return (drop(p, place)[0] @ v, log_sum), ()

    (y, log_sum), () = by_queries(forward, (q,), (k, v))

    def backward(dy):
        def of_queries(place, q, dy, y, log_sum, k, v):
            p = _exp(q @ k.mT, log_sum) if kept is None else kept[place]
            dropped, undrop = drop(p, place)
            ds = undrop(dy @ v.mT)  # dp, (B, h, q, k)
            ds -= np.vecdot(dy, y)[..., None]
            ds *= p
            return (ds @ k,), (ds.mT @ q, dropped.mT @ dy)

        (dq,), (dk, dv) = by_queries(of_queries, (q, dy, y, log_sum), (k, v))
        return dq / math.sqrt(q.shape[-1]), dk, dv

    return y, backward


def _softmax(scores, bounded):
    """(softmax(scores), log(sum(exp(scores)))), in the place of the scores; bounded: see SAFE."""
    largest = 0 if bounded else scores.max(-1, keepdims=True)
    p = np.exp(scores, out=scores) if bounded else _exp(scores, largest)
    total = p @ np.ones((p.shape[-1], 1), p.dtype)  # a sum: BLAS is fast at that
    p /= total
    return p, largest + np.log(total)


def _exp(scores, shift):
    """exp(scores - shift), in the place of the scores."""
    scores -= shift
    return np.exp(scores, out=scores)


def _dropout_again(p, rng, scores):
    """Dropout with a mask for each place: backward draws forward's again, which nobody stored.

    scores: how many an example has; a place is how many come before it.
    """
    if not p:
        return lambda x, place: (x, lambda dy: dy)
    before = first_row(rng) * scores
    seed = np.random.default_rng(rng).integers(2**63)
    return lambda x, place: dropout.__wrapped__(x, p, generator_at(seed, before + place))


def _longest(x):
    """The length of the longest vector of a (..., d) array."""
    return math.sqrt(np.vecdot(x, x).max(initial=0))
