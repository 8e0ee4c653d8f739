"""Exercise 11: write the backward of one step of rollout, normalised over the right axis.

p = (a + I) / s with s the sum of each row of a + I, and y = p below.
a: (T, T) shares, rows ask and columns are asked; not every row sums to 1, as some shares were dropped.  I: identity.
s: (T, 1).  p: (T, T), each row sums to 1.  below: (T, T), the rollout of the layers below.
dy, the gradient that arrives, has the shape of y, (T, T); da and dbelow have the shapes of a and below.

Hint: first the product, dp and dbelow. Then mind that s was made from a, too: raise one share, and the others of its
row fall. It is softmax's backward once more, with a division where the exponential was.
"""

import numpy as np

from minivit import differentiable


@differentiable
def rollout_step(a, below):
    """One layer of rollout: a (T, T), below (T, T) -> y (T, T)."""
    mixed = a + np.eye(len(a))  # (T, T)
    s = mixed.sum(axis=-1, keepdims=True)  # (T, 1)
    p = mixed / s  # (T, T)
    y = p @ below  # (T, T)

    def backward(dy):
        ...  # your code here
        return da, dbelow

    return y, backward


# ---- how it is graded (not part of the stub)

from minivit.course.exercises.judge import Case

OP, VALUE = "rollout_step", "(a + I) / s below"


def cases(rng):
    """What a learner's rollout_step is asked."""
    yield Case([rng.random((4, 4)), rng.standard_normal((4, 4))])


def look(case, y, dy, right, came):
    """What cannot change the output, and backward says that it does."""
    a, _ = case.inputs
    if not np.allclose((came[0] * (a + np.eye(4))).sum(1), 0, atol=1e-8):
        what = "backward says that twice a whole row of a + I changes the output, and it does not:"
        return [f"{what} s is the sum of that row, so what comes back through it?"]
    return []
