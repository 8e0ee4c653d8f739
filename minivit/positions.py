"""Position embeddings on another grid of patches: bicubic interpolation, as one matrix a direction."""

import numpy as np

from . import ops


def interpolate_positions(positions, old_grid, new_grid):
    """The position embeddings of another grid of patches: bicubic, CLS's row unchanged.

    positions: (1, 1 + rows * columns, D), old_grid and new_grid: (rows, columns).  Returns a Tensor (1, T, D).
    Source: as torch.nn.functional.interpolate(mode="bicubic", align_corners=False) does it.
    """
    (rows, columns), D = old_grid, positions.shape[-1]
    down, across = (_bicubic(old, new).astype(positions.dtype) for old, new in zip(old_grid, new_grid, strict=True))
    grid = positions[0, 1:].reshape(rows, columns, D)
    grid = ops.einsum("xc,ycd->yxd", across, ops.einsum("yr,rcd->ycd", down, grid))  # (rows', columns', D)
    return ops.concatenate([positions[:, :1], grid.reshape(1, -1, D)], axis=1)  # (1, T, D)


def _bicubic(old, new):
    """The (new, old) matrix that resamples `old` numbers on a line to `new`: Keys' cubic with a = -0.75."""
    a = -0.75
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centre).astype(int) - 1
    matrix = np.zeros((new, old))
    for tap in range(4):
        distance = abs(centre - (first + tap))
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = a * (((distance - 5) * distance + 8) * distance - 4)
        edge = np.clip(first + tap, 0, old - 1)
        np.add.at(matrix, (np.arange(new), edge), np.where(distance <= 1, near, far))
    return matrix
