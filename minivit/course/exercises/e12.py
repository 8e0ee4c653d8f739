"""Exercise 12: write the backward of embed, the notebook's positions and CLS.

The numbers 1, 2, ..., N go through a linear layer 1 -> D: position n is n * weight[:, 0] + bias. They are added to the
tokens, and then the CLS token comes in front. CLS gets no position.
tokens: (N, D).  cls_token: (1, D).  weight: (D, 1) and bias: (D,), of the linear layer.
y: (T, D), T = N + 1.  dy, the gradient that arrives, has the shape of y.

Hint: first take dy apart, as forward put y together. Each number of weight and bias touched every patch, so its
gradient is a sum over the patches. With which factor did weight enter the token of patch n?
"""

import numpy as np

from minivit import differentiable


@differentiable
def embed(tokens, cls_token, weight, bias):
    """Positions 1..N through a linear layer, added to the tokens; then CLS in front: (N, D) -> (T, D)."""
    positions = np.arange(1, len(tokens) + 1, dtype=tokens.dtype)[:, None]  # (N, 1)
    y = np.concatenate([cls_token, tokens + positions @ weight.T + bias])  # (T, D)

    def backward(dy):
        # your code: begin
        dcls_token, dtokens = dy[:1], dy[1:]
        dweight = dtokens.T @ positions  # (D, 1)
        dbias = dtokens.sum(0)
        # your code: end
        return dtokens, dcls_token, dweight, dbias

    return y, backward


# ---- how it is graded (not part of the stub)

from minivit import gradcheck  # noqa: E402
from minivit.errors import MinivitError  # noqa: E402

RIGHT = "dcls_token, dtokens = dy[:1], dy[1:]\ndweight = dtokens.T @ positions\ndbias = dtokens.sum(0)"
WRONG = {
    "CLS gets a position, too": RIGHT.replace("dbias = dtokens", "dbias = dy"),
    "positions from 0": RIGHT.replace("positions", "(positions - 1)"),
    "the positions are forgotten": RIGHT.replace("dtokens.T @ positions", "dtokens.sum(0)[:, None]"),
    "CLS is the last row": RIGHT.replace("dy[:1], dy[1:]", "dy[-1:], dy[:-1]"),
    "the other way round": RIGHT.replace("dtokens.T @ positions", "positions.T @ dtokens"),
}


def check(work):
    """Grade a learner's module."""
    rng = np.random.default_rng(12)
    tokens, cls_token, weight, bias = (rng.standard_normal(shape) for shape in ((5, 3), (1, 3), (3, 1), (3,)))
    expected = [cls_token[0], *(token + n * weight[:, 0] + bias for n, token in enumerate(tokens, start=1))]
    if not np.allclose(work.embed(tokens, cls_token, weight, bias), expected):
        hint = "embed and its @differentiable were right in the stub."
        raise MinivitError("embed", "the value is not CLS and the tokens with positions 1..N.", hint=hint)
    gradcheck(work.embed, tokens, cls_token, weight, bias, rng=rng)
