"""Exercise 14: write the backward of a linear layer whose weight is kept in parts by N machines.

Each machine keeps E / N rows of the weight, and has its own examples. Forward, an all-gather brings the parts together,
and each machine multiplies its examples by the whole weight: y_i = x_i weight^T.
x: (N, B, D), x[i] is machine i's.  parts: (N, E / N, D), parts[i] is what machine i keeps.  y: (N, B, E).
dy, the gradient that arrives, has the shape of y; dx and dparts have the shapes of x and parts.

Hint: machine i knows the gradient of the *whole* weight, as far as its own examples go: dy_i^T x_i. Every machine has
used every part, so these are added up over the machines; and each keeps the sum for its own part only. The adjoint of
an all-gather is a reduce-scatter.
"""

import numpy as np

from minivit import differentiable


@differentiable
def sharded_linear(x, parts):
    """Linear with a weight in parts: x (N, B, D), parts (N, E / N, D) -> y (N, B, E)."""
    weight = np.concatenate(parts)  # (E, D), the all-gather
    y = x @ weight.T  # (N, B, E)

    def backward(dy):
        # your code: begin
        dx = dy @ weight  # (N, B, D)
        each = dy.mT @ x  # (N, E, D)
        dparts = each.sum(0).reshape(parts.shape)  # (N, E / N, D)
        # your code: end
        return dx, dparts

    return y, backward


# ---- how it is graded (not part of the stub)

from minivit import Tensor, gradcheck  # noqa: E402
from minivit.errors import MinivitError  # noqa: E402
from minivit.gradcheck import GradientError  # noqa: E402

RIGHT = "dx = dy @ weight\ndparts = (dy.mT @ x).sum(0).reshape(parts.shape)"
WRONG = {
    "the mean over the machines": RIGHT.replace(".sum(0)", ".mean(0)"),
    "its own part from its own examples": RIGHT.replace(
        "(dy.mT @ x).sum(0).reshape(parts.shape)",
        "np.stack([np.split(d, len(parts))[i] for i, d in enumerate(dy.mT @ x)])",
    ),
    "each part the whole": RIGHT.replace(".reshape(parts.shape)", "[None] + 0 * parts[:, :1]"),
    "dx of the own part alone": RIGHT.replace(
        "dx = dy @ weight", "dx = np.stack([np.split(d, len(parts), 1)[i] @ parts[i] for i, d in enumerate(dy)])"
    ),
}


def check(work):
    """Grade a learner's module: the value, then dx, then one machine's part from the others' examples, then all."""
    rng = np.random.default_rng(14)
    x, parts, dy = rng.standard_normal((3, 2, 4)), rng.standard_normal((3, 2, 4)), rng.standard_normal((3, 2, 6))
    leaves = [Tensor(value, requires_grad=True) for value in (x, parts)]
    y = work.sharded_linear(*leaves)
    if y.shape != (3, 2, 6) or not np.allclose(y.data, np.einsum("nbd,ed->nbe", x, parts.reshape(6, 4))):
        raise MinivitError("sharded_linear", "the value is not x weight^T.", hint="it was right in the stub.")
    only_last = dy * (np.arange(3) == 2)[:, None, None]  # of the examples, the last machine's alone arrive
    y.backward(only_last)
    owed = np.einsum("nbe,nbd->ed", only_last, x).reshape(parts.shape)
    found = leaves[1].grad
    if found is not None and found.shape == owed.shape and not np.allclose(found, owed) and not found[0].any():
        what = 'argument "parts": the first machine\'s part gets nothing from the last machine\'s examples.'
        raise GradientError("sharded_linear", what, hint="every machine has used every part: add up, then share out.")
    gradcheck(work.sharded_linear, x, parts)
