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
    """[CLS, patch 0, ..., patch N - 1] for every image: cls (1, 1, D), patches (B, N, D) -> tokens (B, T, D)."""
    B, _, D = patches.shape
    tokens = np.concatenate([np.broadcast_to(cls, (B, 1, D)), patches], axis=1)  # (B, T, D)

    def backward(dtokens):
        ...  # your code here

    return tokens, backward


# ---- how it is graded (not part of the stub)

from minivit.course.exercises.judge import Case

OP, VALUE = "prepend_cls", "[CLS, patch 0, ..., patch N - 1] for every image"


def cases(rng):
    """What a learner's prepend_cls is asked."""
    yield Case([rng.standard_normal(shape) for shape in ((1, 1, 5), (3, 2, 5))])
