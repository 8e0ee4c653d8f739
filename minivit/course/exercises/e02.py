"""Exercise 02: write the backward of the patch embeddings, one matrix product and a bias.

patches: (B, N, I) floats, I = C * P * P numbers in each patch.  weight: (D, I).  bias: (D,).
y: (B, N, D), the vectors: y[b, n, k] = sum over i of patches[b, n, i] * weight[k, i], + bias[k].
dy, the gradient that arrives, has the shape of y; dpatches, dweight and dbias have the shapes of the arguments.

Hint: the shapes nearly write it for you. The batch B and the patches N are one long list of B * N rows, as the lesson's
196 were. What every row used, the weight and the bias, collects a gradient from every row.
"""

from minivit import differentiable


@differentiable
def patch_embeddings(patches, weight, bias):
    """Each patch through the same linear map: (B, N, I) -> (B, N, D)."""
    y = patches @ weight.T + bias  # (B, N, D)

    def backward(dy):
        D, I = weight.shape
        dy_rows, rows = dy.reshape(-1, D), patches.reshape(-1, I)  # (B * N, D), (B * N, I)
        # your code: begin
        dpatches = (dy_rows @ weight).reshape(patches.shape)
        dweight = dy_rows.T @ rows
        dbias = dy_rows.sum(0)
        # your code: end
        return dpatches, dweight, dbias

    return y, backward


# ---- how it is graded (not part of the stub)

import numpy as np  # noqa: E402

from minivit import gradcheck, ops  # noqa: E402
from minivit.errors import MinivitError  # noqa: E402

_DPATCHES = "dpatches = (dy_rows @ weight).reshape(patches.shape)\n"
_DWEIGHT = "dweight = dy_rows.T @ rows\n"
WRONG = {
    "the mean over the rows": _DPATCHES + "dweight = dy_rows.T @ rows / len(rows)\ndbias = dy_rows.mean(0)",
    "the bias's gradient of the last row only": _DPATCHES + _DWEIGHT + "dbias = dy_rows[-1]",
    "the weight's gradient transposed": _DPATCHES + "dweight = rows.T @ dy_rows\ndbias = dy_rows.sum(0)",
    "the transposed weight": (
        "dpatches = (dy_rows @ weight.T).reshape(patches.shape)\n" + _DWEIGHT + "dbias = dy_rows.sum(0)"
    ),
    "the bias forgotten": _DPATCHES + _DWEIGHT + "dbias = None",
}


def check(work):
    """Grade a learner's module."""
    rng = np.random.default_rng(2)
    sizes = (2, 3, 4), (5, 4), (5,)
    square = (2, 3, 4), (4, 4), (4,)  # ViT-Base is square, 768 x 768: there a transposed gradient has the right shape
    for shapes in (square, sizes):
        patches, weight, bias = (rng.standard_normal(shape) for shape in shapes)
        value = np.asarray(work.patch_embeddings(patches, weight, bias))
        if not np.allclose(value, ops.linear(patches, weight, bias).data, rtol=1e-12, atol=1e-12):
            raise MinivitError(
                "patch_embeddings", "the value is not that of the stub.", hint="only backward is yours to write."
            )
        gradcheck(work.patch_embeddings, patches, weight, bias, rng=rng)
