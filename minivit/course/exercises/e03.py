"""Exercise 03: the backward of prepending CLS.

One CLS token, cls (1, 1, D), is put in front of the patches (B, N, D) of every image: tokens (B, T, D), T = N + 1.
The forward pass is written. Write its backward: dtokens (B, T, D) comes in, and out go, in this order,

    dcls      (1, 1, D)   the gradient of cls
    dpatches  (B, N, D)   the gradient of patches

Hint: which rows of dtokens belong to CLS? And how many images used the same CLS?
"""

import numpy as np

from minivit import differentiable


@differentiable
def prepend_cls(cls, patches):
    """[CLS, patch 1, ..., patch N] for every image: cls (1, 1, D), patches (B, N, D) -> tokens (B, T, D)."""
    B, _, D = patches.shape
    tokens = np.concatenate([np.broadcast_to(cls, (B, 1, D)), patches], axis=1)  # (B, T, D)

    def backward(dtokens):
        # your code: begin
        dcls = dtokens[:, :1].sum(axis=0, keepdims=True)  # (1, 1, D)
        dpatches = dtokens[:, 1:]  # (B, N, D)
        return dcls, dpatches
        # your code: end

    return tokens, backward


# ---- how it is graded (not part of the stub)

from minivit import gradcheck  # noqa: E402
from minivit.errors import MinivitError  # noqa: E402

WRONG = {
    "CLS was used by every image, not only by the first": "return dtokens[:1, :1], dtokens[:, 1:]",
    "a mean where a sum belongs": "return dtokens[:, :1].mean(axis=0, keepdims=True), dtokens[:, 1:]",
    "no sum over the batch": "return dtokens[:, :1], dtokens[:, 1:]",
    "CLS is the first token, not the last": "return dtokens[:, -1:].sum(axis=0, keepdims=True), dtokens[:, :-1]",
}


def check(work):
    """Grade a learner's module: prepend_cls' value, then its gradients."""
    rng = np.random.default_rng(0)
    cls, patches = rng.standard_normal((1, 1, 5)), rng.standard_normal((3, 2, 5))
    tokens = np.asarray(work.prepend_cls(cls, patches))
    if tokens.shape != (3, 3, 5) or (tokens[:, 0] != cls[0, 0]).any() or (tokens[:, 1:] != patches).any():
        raise MinivitError(
            "prepend_cls",
            f"the tokens, {tokens.shape}, are not [CLS, patch 1, ..., patch N] for every image.",
            rule="tokens[b, 0] == cls[0, 0] and tokens[b, 1:] == patches[b], of shape (B, N + 1, D).",
            hint="the forward pass was right in the stub: write it anew and change only backward.",
        )
    gradcheck(work.prepend_cls, cls, patches)
