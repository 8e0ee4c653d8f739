"""Exercise 05: write the backward of a head with one map for query and key: "who looks like me?"

y = softmax(x x^T / sqrt(d)) v.
x: (T, d) floats, query and key in one.  v: (T, e) values, e numbers each.  p: (T, T), each row sums to 1.
dy, the gradient that arrives, has the shape of y, (T, e); dx and dv have the shapes of x and v.

Hint: go up line by line: y, p, s. The lesson's backward has the first two steps as they are. In the last one x stands
twice: row i of s asks with x[i], and column i is asked with x[i]. Two roads lead to x, and their gradients add up.
"""

import math

import numpy as np

from minivit import differentiable


@differentiable
def alike(x, v):
    """softmax(x x^T / sqrt(d)) v: x (T, d), v (T, e) -> y (T, e)."""
    scale = 1 / math.sqrt(x.shape[1])
    s = x @ x.T * scale  # (T, T)
    p = np.exp(s - s.max(axis=1, keepdims=True))  # (T, T)
    p /= p.sum(axis=1, keepdims=True)
    y = p @ v  # (T, e)

    def backward(dy):
        # your code: begin
        dv = p.T @ dy  # (T, e)
        dp = dy @ v.T  # (T, T)
        ds = p * (dp - (dp * p).sum(axis=1, keepdims=True))  # (T, T)
        dx = (ds + ds.T) @ x * scale  # (T, d)
        # your code: end
        return dx, dv

    return y, backward


# ---- how it is graded (not part of the stub)

from minivit import Tensor, gradcheck, ops  # noqa: E402
from minivit.errors import MinivitError  # noqa: E402
from minivit.gradcheck import GradientError  # noqa: E402

_DP = "dv = p.T @ dy\ndp = dy @ v.T\n"
_DS = _DP + "ds = p * (dp - (dp * p).sum(axis=1, keepdims=True))\n"
WRONG = {
    "only the road of the query": _DS + "dx = ds @ x * scale",
    "only the road of the key": _DS + "dx = ds.T @ x * scale",
    "the scale forgotten": _DS + "dx = (ds + ds.T) @ x",
    "softmax's keys do not know of each other": _DP + "ds = p * dp\ndx = (ds + ds.T) @ x * scale",
    "the sum over the wrong axis": (
        _DP + "ds = p * (dp - (dp * p).sum(axis=0, keepdims=True))\ndx = (ds + ds.T) @ x * scale"
    ),
    "p not transposed": _DS.replace("p.T @ dy", "p @ dy") + "dx = (ds + ds.T) @ x * scale",
}


def check(work):
    """Grade a learner's module: alike's value, then one road of x forgotten, then all its gradients."""
    rng = np.random.default_rng(5)
    x, v, dy = (rng.standard_normal(shape) for shape in ((5, 3), (5, 2), (5, 2)))
    leaf, q, k = (Tensor(x, requires_grad=True) for _ in range(3))
    expected = ops.attention(q, k, v)[0]
    y = work.alike(leaf, v)
    if y.shape != expected.shape or not np.allclose(y.data, expected.data, rtol=1e-12, atol=1e-12):
        raise MinivitError("alike", "the value is not softmax(x x^T / sqrt(d)) v.", hint="it was right in the stub.")
    expected.backward(dy)
    y.backward(dy)
    for road, other, gradient in (("query", "key", q.grad), ("key", "query", k.grad)):
        if leaf.grad is not None and np.allclose(leaf.grad, gradient):
            hint = f"x is the {other}, too: add the gradient that comes back along that road."
            raise GradientError("alike", f'argument "x" has only the gradient of x as {road}.', hint=hint)
    gradcheck(work.alike, x, v)
