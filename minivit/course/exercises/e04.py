"""Exercise 04: the backward of adding position embeddings.

positions (1, T, D) are added to the tokens (B, T, D) of every image, and then the sum is scaled by a number for each
token, scale (T, 1): y = (tokens + positions) * scale. (A scale of 0 hides a token.) The forward pass is written.
Write its backward: dy (B, T, D) comes in, and out go, in this order,

    dtokens     (B, T, D)   the gradient of tokens
    dpositions  (1, T, D)   the gradient of positions
    dscale      (T, 1)      the gradient of scale

Hint: whatever was repeated forward is summed backward. Over which axes was positions repeated? Over which was scale?
"""

import numpy as np

from minivit import differentiable


@differentiable
def add_positions(tokens, positions, scale):
    """y = (tokens + positions) * scale: tokens (B, T, D), positions (1, T, D), scale (T, 1) -> y (B, T, D)."""
    placed = tokens + positions  # (B, T, D)

    def backward(dy):
        ...  # your code here

    return placed * scale, backward


# ---- how it is graded (not part of the stub)

from minivit.course.exercises.judge import Case

OP, VALUE = "add_positions", "(tokens + positions) * scale"


def cases(rng):
    """What a learner's add_positions is asked."""
    yield Case([rng.standard_normal(shape) for shape in ((3, 4, 2), (1, 4, 2), (4, 1))])
