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
        # your code: begin
        dbelow = p.T @ dy  # (T, T)
        dp = dy @ below.T  # (T, T)
        da = (dp - (dp * p).sum(axis=-1, keepdims=True)) / s  # (T, T)
        # your code: end
        return da, dbelow

    return y, backward


# ---- how it is graded (not part of the stub)

from minivit import Tensor, gradcheck  # noqa: E402
from minivit.errors import MinivitError  # noqa: E402
from minivit.gradcheck import GradientError  # noqa: E402

_PRODUCT = "dbelow = p.T @ dy\ndp = dy @ below.T\n"
WRONG = {
    "the sum taken as constant": _PRODUCT + "da = dp / s",
    "the sum over the wrong axis": _PRODUCT + "da = (dp - (dp * p).sum(axis=0, keepdims=True)) / s",
    "each column divided, not each row": _PRODUCT + "da = (dp - (dp * p).sum(axis=-1, keepdims=True)) / s.T",
    "the division forgotten": _PRODUCT + "da = dp - (dp * p).sum(axis=-1, keepdims=True)",
    "p not transposed": _PRODUCT.replace("p.T", "p") + "da = (dp - (dp * p).sum(axis=-1, keepdims=True)) / s",
}


def check(work):
    """Grade a learner's module: rollout_step's value, then what it forgets of s, then all its gradients."""
    rng = np.random.default_rng(11)
    a, below = rng.random((4, 4)), rng.standard_normal((4, 4))
    leaf = Tensor(a, requires_grad=True)
    y = work.rollout_step(leaf, below)
    mixed = a + np.eye(4)
    if y.shape != (4, 4) or not np.allclose(y.data, mixed @ below / mixed.sum(1)[:, None]):
        raise MinivitError("rollout_step", "the value is not (a + I) / s below.", hint="it was right in the stub.")
    y.backward(rng.standard_normal((4, 4)))
    if leaf.grad is not None and not np.allclose((leaf.grad * mixed).sum(1), 0, atol=1e-8):
        what = 'argument "a": backward says that twice a whole row of a + I changes the output, and it does not.'
        raise GradientError("rollout_step", what, hint="s is the sum of that row: what comes back through it?")
    gradcheck(work.rollout_step, a, below)
