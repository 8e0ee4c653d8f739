"""Exercise 10: the backward of positions brought to another grid.

grid (R, C, D) holds one position embedding for each patch of R rows and C columns. A larger image has more patches:
down (Y, R) and across (X, C) are the matrices that resample its rows and its columns, and
y[i, j] = sum over r and c of down[i, r] * across[j, c] * grid[r, c]. The forward pass is written.
Write its backward: dy (Y, X, D) comes in, and out goes dgrid (R, C, D); down and across are constants: None, None.

Hint: swap the subscripts. The letters of what you look for stand behind the arrow.
"""

import numpy as np

from minivit import differentiable


@differentiable
def resample(grid, down, across):
    """Positions on another grid: grid (R, C, D), down (Y, R), across (X, C) -> (Y, X, D)."""

    def backward(dy):
        ...  # your code here

    rows = np.einsum("yr,rcd->ycd", down, grid)  # (Y, C, D)
    return np.einsum("xc,ycd->yxd", across, rows), backward  # (Y, X, D)


# ---- how it is graded (not part of the stub)

from minivit.course.exercises.judge import Case

OP, VALUE = "resample", "the grid resampled by down and across"


def cases(rng):
    """What a learner's resample is asked."""
    grid, down, across = (rng.standard_normal(shape) for shape in ((2, 3, 4), (5, 2), (7, 3)))
    yield Case([grid], [down, across])
