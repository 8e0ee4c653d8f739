"""Exercise 14: write the backward of a linear layer whose weight is kept in parts by M machines.

Each machine keeps F / M rows of the weight, and has its own examples. Forward, an all-gather brings the parts together,
and each machine multiplies its examples by the whole weight: y_i = x_i weight^T.
x: (M, B, D), x[i] is machine i's.  parts: (M, F / M, D), parts[i] is what machine i keeps.  y: (M, B, F).
dy, the gradient that arrives, has the shape of y; dx and dparts have the shapes of x and parts.

Hint: machine i knows the gradient of the *whole* weight, as far as its own examples go: dy_i^T x_i. Every machine has
used every part, so these are added up over the machines; and each keeps the sum for its own part only. The adjoint of
an all-gather is a reduce-scatter.
"""

import numpy as np

from minivit import differentiable


@differentiable
def sharded_linear(x, parts):
    """Linear with a weight in parts: x (M, B, D), parts (M, F / M, D) -> y (M, B, F)."""
    weight = np.concatenate(parts)  # (F, D), the all-gather
    y = x @ weight.T  # (M, B, F)

    def backward(dy):
        ...  # your code here
        return dx, dparts

    return y, backward


# ---- how it is graded (not part of the stub)

from minivit.course.exercises.judge import Case

OP, VALUE = "sharded_linear", "x weight^T"


def cases(rng):
    """What a learner's sharded_linear is asked: of three machines, and of one."""
    yield Case([rng.standard_normal(shape) for shape in ((3, 2, 4), (3, 2, 4))])
    yield Case([rng.standard_normal(shape) for shape in ((1, 3, 2), (1, 5, 2))])
