"""Exercise 01: write the backward of patchify, which cuts a batch of images into patches.

x: (B, C, H, W) floats.  patch_size: (ph, pw), which divide H and W.
y: (B, N, C, ph, pw), the N = (H / ph) * (W / pw) patches of each image, row by row from the top left.
dy, the gradient that arrives, has the shape of y; dx has the shape of x.

New? Read dy as patches of numbers, and dx as the image: put each number where its pixel was cut. `backward` is a
function that you fill, and the lines around it, `@differentiable` too, stay as they are: lesson 8 explains them.

Hint: nothing was computed, the numbers only moved. Undo forward's three lines, the last one first. The transpose that
undoes axes (0, 2, 4, 1, 3, 5) says where each axis has to go back to.
"""

import numpy as np

from minivit import differentiable


@differentiable
def patchify(x, patch_size):
    """The patches of each image: (B, C, H, W) -> (B, N, C, ph, pw)."""
    (B, C, H, W), (ph, pw) = x.shape, patch_size
    Y, X = H // ph, W // pw
    grid = x.reshape(B, C, Y, ph, X, pw)  # (B, C, Y, ph, X, pw)
    moved = grid.transpose(0, 2, 4, 1, 3, 5)  # (B, Y, X, C, ph, pw)
    y = moved.reshape(B, Y * X, C, ph, pw)  # (B, N, C, ph, pw)

    def backward(dy):
        ...  # your code here
        return dx

    return y, backward


# ---- how it is graded (not part of the stub)

from minivit.course.exercises.judge import Case

OP, VALUE = "patchify", "the patches, row by row from the top left"


def cases(rng):
    """What a learner's patchify is asked."""
    yield Case([rng.standard_normal((2, 3, 6, 4))], options={"patch_size": (3, 1)})


def look(case, y, dy, right, came):
    """Which number of dy went astray, where all of them are there."""
    lost = np.argwhere(came[0] != right[0])
    if len(lost) and np.array_equal(np.sort(came[0], axis=None), np.sort(right[0], axis=None)):
        due, got = (np.argwhere(dy == dx[tuple(lost[0])])[0].tolist() for dx in (right[0], came[0]))
        where = f"x{lost[0].tolist()} became y{due}, but it got the gradient of y{got}"
        return [f"{where}: {len(lost)} of {dy.size} gradients arrive at a wrong pixel."]
    return []
