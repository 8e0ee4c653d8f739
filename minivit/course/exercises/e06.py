"""Exercise 06: write the backward of layer norm, for x, weight and bias.

y = n * weight + bias with n = (x - mean) / sqrt(var + eps), mean and variance over the last axis.
x: (B, T, D) floats.  weight, bias: (D,).  n: (B, T, D).  rstd: (B, T, 1), 1 / sqrt(var + eps).
dy, the gradient that arrives, has the shape of y; dx, dweight and dbias have the shapes of the arguments.

Hint: first dn, the gradient of n. Then mind that mean and rstd were made from x, too: both send a gradient back. And
every token of every picture used the same weight and the same bias.
"""

import numpy as np

from minivit import differentiable


def mean(a):
    """The mean over the last axis, which stays as an axis of size 1."""
    return a.mean(axis=-1, keepdims=True)


@differentiable
def layer_norm(x, weight, bias, eps=1e-5):
    """Each token to mean 0 and variance 1, then scaled and shifted: x (B, T, D), weight and bias (D,) -> (B, T, D)."""
    centred = x - mean(x)
    rstd = 1 / np.sqrt(mean(centred**2) + eps)  # (B, T, 1)
    n = centred * rstd

    def backward(dy):
        ...  # your code here
        return dx, dweight, dbias

    return n * weight + bias, backward


# ---- how it is graded (not part of the stub)

from minivit.course.exercises.judge import Case

OP, VALUE = "layer_norm", "n * weight + bias"


def cases(rng):
    """What a learner's layer_norm is asked."""
    x, weight, bias = (rng.standard_normal(shape) for shape in ((2, 3, 5), (5,), (5,)))
    yield Case([3 * x + 1, weight, bias], options={"eps": 0.0})
    yield Case([x, weight, bias], options={"eps": 0.1})


def look(case, y, dy, right, came):
    """What cannot change the output, and backward says that it does."""
    _, weight, bias = case.inputs
    n = (y - bias) / weight
    for name, direction, change in (("mean", np.ones(5), "a brighter token"), ("rstd", n, "more contrast")):
        if case.options["eps"] == 0 and not np.allclose((came[0] * direction).sum(-1), 0, atol=1e-8):
            what = f"backward says that {change} changes the output, and it does not:"
            return [f"{what} {name} was made from x, so what gradient comes back through it?"]
    return []
