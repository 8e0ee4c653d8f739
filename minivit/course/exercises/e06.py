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
        # your code: begin
        dweight = (dy * n).sum(axis=(0, 1))
        dbias = dy.sum(axis=(0, 1))
        dn = dy * weight
        dx = rstd * (dn - mean(dn) - n * mean(dn * n))
        # your code: end
        return dx, dweight, dbias

    return n * weight + bias, backward


# ---- how it is graded (not part of the stub)

from minivit import Tensor, gradcheck, ops  # noqa: E402
from minivit.errors import MinivitError  # noqa: E402
from minivit.gradcheck import GradientError  # noqa: E402

_SUMS = "dweight = (dy * n).sum(axis=(0, 1))\ndbias = dy.sum(axis=(0, 1))\n"
_DN = _SUMS + "dn = dy * weight\n"
WRONG = {
    "the mean taken as constant": _DN + "dx = rstd * (dn - n * mean(dn * n))",
    "the deviation taken as constant": _DN + "dx = rstd * (dn - mean(dn))",
    "the weight forgotten": _SUMS + "dx = rstd * (dy - mean(dy) - n * mean(dy * n))",
    "not divided by the deviation": _DN + "dx = dn - mean(dn) - n * mean(dn * n)",
    "a mean over the tokens where a sum belongs": (
        _DN.replace(".sum(", ".mean(") + "dx = rstd * (dn - mean(dn) - n * mean(dn * n))"
    ),
    "zero, as under a sum": _SUMS + "dx = 0 * x",
}


def check(work):
    """Grade a learner's module: layer_norm's value, then what it forgets of x, then all its gradients."""
    rng = np.random.default_rng(6)
    x, weight, bias, dy = (rng.standard_normal(shape) for shape in ((2, 3, 5), (5,), (5,), (2, 3, 5)))
    leaf = Tensor(3 * x + 1, requires_grad=True)
    y = work.layer_norm(leaf, weight, bias, 0.0)
    if y.shape != x.shape or not np.allclose(y.data, ops.layer_norm(leaf, weight, bias, 0.0).data):
        raise MinivitError("layer_norm", "the value is not n * weight + bias.", hint="it was right in the stub.")
    y.backward(dy)
    n = (y.data - bias) / weight
    for name, direction, change in (("mean", np.ones(5), "a brighter token"), ("rstd", n, "more contrast")):
        if leaf.grad is not None and not np.allclose((leaf.grad * direction).sum(-1), 0, atol=1e-8):
            what = f'argument "x": backward says that {change} changes the output, and it does not.'
            hint = f"{name} was made from x: what gradient comes back through it?"
            raise GradientError("layer_norm", what, hint=hint)
    gradcheck(work.layer_norm, x, weight, bias)
