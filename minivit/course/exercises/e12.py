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
        ...  # your code here
        return dtokens, dcls_token, dweight, dbias

    return y, backward


# ---- how it is graded (not part of the stub)

from minivit.course.exercises.judge import Case

OP, VALUE = "embed", "CLS and the tokens with positions 1..N"


def cases(rng):
    """What a learner's embed is asked."""
    yield Case([rng.standard_normal(shape) for shape in ((5, 3), (1, 3), (3, 1), (3,))])
