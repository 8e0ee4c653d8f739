"""Exercise 04: the backward of adding position embeddings.

positions (1, T, D) are added to the tokens (B, T, D) of every image, and then the sum is scaled by a number for each
token, scale (T, 1): y = (tokens + positions) * scale. (A scale of 0 hides a token.) The forward pass is written.
Write its backward: dy (B, T, D) comes in, and out go, in this order,

    dtokens     (B, T, D)   the gradient of tokens
    dpositions  (1, T, D)   the gradient of positions
    dscale      (T, 1)      the gradient of scale

Hint: whatever was repeated forward is summed backward. Over which axes was positions repeated? Over which was scale?
"""

from minivit import differentiable


@differentiable
def add_positions(tokens, positions, scale):
    """y = (tokens + positions) * scale: tokens (B, T, D), positions (1, T, D), scale (T, 1) -> y (B, T, D)."""
    placed = tokens + positions  # (B, T, D)

    def backward(dy):
        # your code: begin
        dtokens = dy * scale  # (B, T, D)
        dpositions = dtokens.sum(axis=0, keepdims=True)  # (1, T, D)
        dscale = (dy * placed).sum(axis=(0, 2))[:, None]  # (T, 1)
        return dtokens, dpositions, dscale
        # your code: end

    return placed * scale, backward


# ---- how it is graded (not part of the stub)

import numpy as np  # noqa: E402

from minivit import gradcheck  # noqa: E402
from minivit.errors import MinivitError  # noqa: E402

_DSCALE = "dscale = (dy * placed).sum(axis=(0, 2))[:, None]\n"
WRONG = {
    "no sum over the batch": _DSCALE + "return dy * scale, dy * scale, dscale",
    "a mean where a sum belongs": _DSCALE + "return dy * scale, (dy * scale).mean(axis=0, keepdims=True), dscale",
    "the gradient of the sum is scaled too": _DSCALE + "return dy, dy.sum(axis=0, keepdims=True), dscale",
    "scale multiplied the positions too": (
        "dscale = (dy * tokens).sum(axis=(0, 2))[:, None]\n"
        "return dy * scale, (dy * scale).sum(axis=0, keepdims=True), dscale"
    ),
}


def check(work):
    """Grade a learner's module: add_positions' value, then its gradients."""
    rng = np.random.default_rng(0)
    tokens, positions, scale = (rng.standard_normal(shape) for shape in ((3, 4, 2), (1, 4, 2), (4, 1)))
    y = np.asarray(work.add_positions(tokens, positions, scale))
    expected = np.stack([(image + positions[0]) * scale for image in tokens])  # (B, T, D)
    if y.shape != expected.shape or not np.allclose(y, expected):
        raise MinivitError(
            "add_positions",
            f"y, {y.shape}, is not (tokens + positions) * scale.",
            rule="y[b, t] == (tokens[b, t] + positions[0, t]) * scale[t], of shape (B, T, D).",
            hint="the forward pass was right in the stub: write it anew and change only backward.",
        )
    gradcheck(work.add_positions, tokens, positions, scale)
