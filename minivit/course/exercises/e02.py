"""Exercise 02: write the backward of the patch embeddings, one matrix product and a bias.

patches: (B, N, I) floats, I = C * P * P numbers in each patch.  weight: (D, I).  bias: (D,).
y: (B, N, D), the vectors: y[b, n, j] = sum over i of patches[b, n, i] * weight[j, i], + bias[j].
dy, the gradient that arrives, has the shape of y; dpatches, dweight and dbias have the shapes of the arguments.

Hint: the shapes nearly write it for you. The batch B and the patches N are one long list of B * N rows, as the lesson's
196 were. What every row used, the weight and the bias, collects a gradient from every row.
"""

import numpy as np

from minivit import differentiable


@differentiable
def patch_embeddings(patches, weight, bias):
    """Each patch through the same linear map: (B, N, I) -> (B, N, D)."""
    y = patches @ weight.T + bias  # (B, N, D)

    def backward(dy):
        D, I = weight.shape
        dy_rows, rows = dy.reshape(-1, D), patches.reshape(-1, I)  # (B * N, D), (B * N, I)
        ...  # your code here
        return dpatches, dweight, dbias

    return y, backward


# ---- how it is graded (not part of the stub)

from minivit.course.exercises.judge import Case

OP, VALUE = "patch_embeddings", "patches weight^T + bias"


def cases(rng):
    """What a learner's patch_embeddings is asked."""
    # ViT-Base is square, 768 x 768: there a transposed gradient has the right shape
    for shapes in (((2, 3, 4), (4, 4), (4,)), ((2, 3, 4), (5, 4), (5,))):
        yield Case([rng.standard_normal(shape) for shape in shapes])
