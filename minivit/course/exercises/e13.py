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
        # your code: begin
        db = np.linalg.solve(a, dw)  # (D, K)
        da = -db @ w.T  # (D, D)
        dx = y @ db.T + x @ (da + da.T)  # (n, D)
        dy = x @ db  # (n, K)
        # your code: end
        return dx, dy

    return w, backward


# ---- how it is graded (not part of the stub)

from minivit import Tensor, gradcheck  # noqa: E402
from minivit.errors import MinivitError  # noqa: E402
from minivit.gradcheck import GradientError  # noqa: E402

RIGHT = "db = np.linalg.solve(a, dw)\nda = -db @ w.T\ndx = y @ db.T + x @ (da + da.T)\ndy = x @ db"
WRONG = {
    "a taken as constant": RIGHT.replace(" + x @ (da + da.T)", ""),
    "x is in a only once": RIGHT.replace("(da + da.T)", "da"),
    "the sign of da": RIGHT.replace("-db", "db"),
    "the inverse forgotten": RIGHT.replace("np.linalg.solve(a, dw)", "dw"),
    "twice the first road": RIGHT.replace("da + da.T", "2 * da"),
}


def check(work):
    """Grade a learner's module: ridge's value, then the road of y, then what x owes to a, then all the gradients."""
    rng = np.random.default_rng(13)
    x, y, dw = rng.standard_normal((5, 3)), rng.standard_normal((5, 2)), rng.standard_normal((3, 2))
    leaves = [Tensor(value, requires_grad=True) for value in (x, y)]
    w = work.ridge(*leaves, 0.5)
    # the same as least squares with one more row of zeros for each number
    expected = np.linalg.lstsq(np.r_[x, np.sqrt(0.5) * np.eye(3)], np.r_[y, np.zeros((3, 2))], rcond=None)[0]
    if w.shape != (3, 2) or not np.allclose(w.data, expected):
        raise MinivitError("ridge", "the value is not (x^T x + strength I)^-1 x^T y.", hint="it was right in the stub.")
    w.backward(dw)
    dy = x @ np.linalg.solve(x.T @ x + 0.5 * np.eye(3), dw)
    if leaves[1].grad is not None and not np.allclose(leaves[1].grad, dy):
        what = 'argument "y": y stands in b alone, and its gradient is not x db.'
        raise GradientError("ridge", what, hint="is db = a^-1 dw?")
    gradcheck(lambda x, y: work.ridge(x, y, 0.5), x, y)
