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
        # your code: begin
        dgrid = np.einsum("yr,yxd->rxd", down, dy)  # (R, X, D)
        dgrid = np.einsum("xc,rxd->rcd", across, dgrid)  # (R, C, D)
        return dgrid, None, None
        # your code: end

    rows = np.einsum("yr,rcd->ycd", down, grid)  # (Y, C, D)
    return np.einsum("xc,ycd->yxd", across, rows), backward  # (Y, X, D)


# ---- how it is graded (not part of the stub)

from minivit import gradcheck  # noqa: E402
from minivit.errors import MinivitError  # noqa: E402

WRONG = {
    "rows only": 'return np.einsum("yr,ycd->rcd", down, dy[:, : across.shape[1]]), None, None',
    "the inverse instead of the transpose": (
        'rows = np.einsum("ry,yxd->rxd", np.linalg.pinv(down), dy)\n'
        'return np.einsum("cx,rxd->rcd", np.linalg.pinv(across), rows), None, None'
    ),
    "a mean where a sum belongs": (
        'dgrid = np.einsum("yr,xc,yxd->rcd", down, across, dy)\nreturn dgrid / len(down), None, None'
    ),
}


def check(work):
    """Grade a learner's module: the resampled grid, then the gradient of the grid."""
    rng = np.random.default_rng(0)
    grid, down, across = (rng.standard_normal(shape) for shape in ((2, 3, 4), (5, 2), (7, 3)))
    y = np.asarray(work.resample(grid, down, across))
    expected = np.stack([down @ grid[..., d] @ across.T for d in range(4)], axis=-1)  # (Y, X, D)
    if y.shape != expected.shape or not np.allclose(y, expected):
        raise MinivitError(
            "resample",
            f"y, {y.shape}, is not the grid resampled by down and across.",
            rule="y[..., d] == down @ grid[..., d] @ across.T, of shape (Y, X, D).",
            hint="the forward pass was right in the stub: write it anew and change only backward.",
        )

    def resample(grid):
        return work.resample(grid, down, across)

    gradcheck(resample, grid)
