"""Exercise 13: write the backward of ridge regression, the linear head of ten photos a class.

w = (x^T x + strength I)^-1 x^T y: the w that makes |x w - y|^2 + strength |w|^2 smallest.
x: (n, D) features, n photos.  y: (n, K) targets.  strength: a number above 0, which gets no gradient.  w: (D, K).
dw, the gradient that arrives, has the shape of w; dx and dy have the shapes of x and y.

Hint: nobody differentiates an inverse. Write it as a w = b, with a = x^T x + strength I and b = x^T y. A small change
gives da w + a dw = db, so what reaches b is db = a^-1 dw (a is its own transpose), and what reaches a is -db w^T.
Then mind that x stands in b once, and in a twice.
"""

import numpy as np

from minivit import differentiable


@differentiable
def ridge(x, y, strength=1.0):
    """The weights of a linear head on frozen features: x (n, D), y (n, K) -> w (D, K)."""
    a = x.T @ x + strength * np.eye(x.shape[1])  # (D, D)
    w = np.linalg.solve(a, x.T @ y)  # (D, K)

    def backward(dw):
        ...  # your code here
        return dx, dy

    return w, backward


# ---- how it is graded (not part of the stub)

from minivit.course.exercises.judge import Case

OP, VALUE = "ridge", "(x^T x + strength I)^-1 x^T y"


def cases(rng):
    """What a learner's ridge is asked."""
    yield Case([rng.standard_normal(shape) for shape in ((5, 3), (5, 2))], options={"strength": 0.5})
