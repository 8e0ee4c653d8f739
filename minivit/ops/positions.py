"""Position embeddings: fixed ones of sine and cosine, and any ones on another grid of patches.

The other grid is reached by bicubic interpolation, as one matrix a direction.
"""

import numpy as np

from ..machinery.shapes import check_sine_cosine
from .einsum import einsum
from .shape import concatenate


def sine_cosine_positions(grid, embed_dim):
    """Position embeddings that nobody learns: sines and cosines of the row, then of the column.

    grid: (rows, columns); embed_dim: D, a multiple of 4.  Returns (1, 1 + rows * columns, D)
    float32, CLS's row 0. A place p becomes sin(p w), then cos(p w), each for D / 4 frequencies w
    from 1 down towards 1 / 10000.
    ShapeError for another D.
    Source: Vaswani et al. 2017, section 3.5, in two dimensions as transformers' ViTMAE does it.
    """
    rows, columns = grid
    check_sine_cosine(embed_dim)
    row, column = np.divmod(np.arange(rows * columns), columns)  # (N,) each
    frequencies = 10000.0 ** (-np.arange(embed_dim // 4) / (embed_dim // 4))  # (D / 4,)
    angles = [place[:, None] * frequencies for place in (row, column)]  # 2 x (N, D / 4)
    waves = [f(angle) for angle in angles for f in (np.sin, np.cos)]  # 4 x (N, D / 4)
    patches = np.concatenate(waves, axis=1, dtype=np.float32)  # (N, D)
    return np.concatenate([np.zeros((1, embed_dim), np.float32), patches])[None]  # (1, T, D)


def interpolate_positions(positions, old_grid, new_grid):
    """The position embeddings of another grid of patches: bicubic, CLS's row unchanged.

    positions: (1, 1 + rows * columns, D), old_grid and new_grid: (rows, columns).
    Returns a Tensor (1, T, D).
    Source: as torch.nn.functional.interpolate(mode="bicubic", align_corners=False) does it.
    """
    (rows, columns), D = old_grid, positions.shape[-1]
    sides = zip(old_grid, new_grid, strict=True)
    down, across = (_bicubic(old, new).astype(positions.dtype) for old, new in sides)
    grid = positions[0, 1:].reshape(rows, columns, D)
    grid = einsum("xc,ycd->yxd", across, einsum("yr,rcd->ycd", down, grid))  # (rows', columns', D)
    return concatenate([positions[:, :1], grid.reshape(1, -1, D)], axis=1)  # (1, T, D)


def _bicubic(old, new):
    """The (new, old) matrix that resamples `old` numbers on a line: Keys' cubic with a = -0.75."""
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
