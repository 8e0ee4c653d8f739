"""Exercise 01: write the backward of patchify, which cuts a batch of images into patches.

x: (B, C, H, W) floats.  patch_size: (ph, pw), which divide H and W.
y: (B, N, C, ph, pw), the N = (H / ph) * (W / pw) patches of each image, row by row from the top left.
dy, the gradient that arrives, has the shape of y; dx has the shape of x.

Hint: nothing was computed, the numbers only moved. Undo forward's three lines, the last one first. The transpose that
undoes axes (0, 2, 4, 1, 3, 5) says where each axis has to go back to.
"""

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
        # your code: begin
        dmoved = dy.reshape(B, Y, X, C, ph, pw)
        dgrid = dmoved.transpose(0, 3, 1, 4, 2, 5)  # (B, C, Y, ph, X, pw)
        dx = dgrid.reshape(B, C, H, W)
        # your code: end
        return dx

    return y, backward


# ---- how it is graded (not part of the stub)

import numpy as np  # noqa: E402

from minivit import Tensor, gradcheck, images  # noqa: E402
from minivit.errors import MinivitError  # noqa: E402
from minivit.gradcheck import GradientError  # noqa: E402

WRONG = {
    "only a reshape": "dx = dy.reshape(x.shape)",
    "the transpose a second time, not undone": (
        "dmoved = dy.reshape(B, Y, X, C, ph, pw)\ndx = dmoved.transpose(0, 2, 4, 1, 3, 5).reshape(x.shape)"
    ),
    "rows and columns of the patches exchanged": (
        "dmoved = dy.reshape(B, X, Y, C, ph, pw)\ndx = dmoved.transpose(0, 3, 2, 4, 1, 5).reshape(x.shape)"
    ),
    "the shape of y": "dx = dy",
    "half of it": "dx = dy.reshape(B, Y, X, C, ph, pw).transpose(0, 3, 1, 4, 2, 5).reshape(x.shape) / 2",
}


def check(work):
    """Grade a learner's module."""

    def patchify(x):
        return work.patchify(x, (3, 1))

    x = np.random.default_rng(1).standard_normal((2, 3, 6, 4))
    if not np.array_equal(patchify(x), [images.patchify(image, (3, 1)) for image in x]):
        raise MinivitError("patchify", "the value is not that of the stub.", hint="only backward is yours to write.")
    pixels = Tensor(x, requires_grad=True)
    y = patchify(pixels)
    numbered = np.arange(float(y.size)).reshape(y.shape)  # each number of dy says which one it is
    y.backward(numbered)
    right = np.stack([images.unpatchify(patches, 6, 4) for patches in numbered])  # (B, C, H, W)
    lost = np.argwhere(pixels.grad != right)
    if len(lost) and np.array_equal(np.sort(pixels.grad, axis=None), numbered.ravel()):
        at = tuple(lost[0])
        due, came = ([int(i) for i in np.unravel_index(int(dx[at]), y.shape)] for dx in (right, pixels.grad))
        what = f"x{lost[0].tolist()} became y{due}, but it got the gradient of y{came}."
        raise GradientError("patchify", what, hint=f"{len(lost)} of {x.size} gradients arrive at a wrong pixel.")
    gradcheck(patchify, x)
