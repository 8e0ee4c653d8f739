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
        ...  # your code here
        return dx, dv

    return y, backward


# ---- how it is graded (not part of the stub)

from minivit.course.exercises.judge import Case

OP, VALUE = "alike", "softmax(x x^T / sqrt(d)) v"


def cases(rng):
    """What a learner's alike is asked."""
    yield Case([rng.standard_normal(shape) for shape in ((5, 3), (5, 2))])
