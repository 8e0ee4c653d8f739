"""Convolution as patchify: cut the image into windows, then one matrix product."""

import numpy as np

from ..autograd import differentiable
from ..errors import ShapeError
from ..machinery import threads


@differentiable
def conv2d(x, weight, bias=None, stride=1):
    """Slide O filters over an image, without padding: every output pixel is filter times window, plus bias.

    x: (B, C, H, W), weight: (O, C, kh, kw), bias: (O,) or None, stride: pixels between windows, a number or (down,
    right).  Returns y: (B, O, h, w) with h = (H - kh) // stride + 1. With stride = kernel the windows are the patches
    of a Vision Transformer (Dosovitskiy et al. 2021, section 3.1); pixels that fill no window are not read.
    Backward: dweight = dy^T @ windows, and dx adds dy @ weight where each window was cut.
    """
    down, right = (stride, stride) if np.ndim(stride) == 0 else stride
    _check(x, weight, bias, down, right)
    (B, C, H, W), (O, _, kh, kw) = x.shape, weight.shape
    windows = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), axis=(2, 3))[:, :, ::down, ::right]
    h, w = windows.shape[2:4]
    rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(B * h * w, C * kh * kw)  # one row a window
    filters = weight.reshape(O, C * kh * kw)
    y = threads.matmul(rows, filters.T, bias)  # (B * h * w, O)

    def backward(dy):
        dy = dy.transpose(0, 2, 3, 1).reshape(B * h * w, O)
        dweight, dwindows = threads.products((dy.T, rows, None), (dy, filters, None))
        dwindows = dwindows.reshape(B, h, w, C, kh, kw).transpose(0, 3, 1, 2, 4, 5)  # (B, C, h, w, kh, kw)
        dx = np.zeros((B, C, H, W), dy.dtype)
        if (down, right) == (kh, kw):  # no pixel is in two windows: the cut, undone
            tiles = dwindows.transpose(0, 1, 2, 4, 3, 5).reshape(B, C, h * kh, w * kw)
            dx[:, :, : h * kh, : w * kw] = tiles
        else:  # a pixel adds up over its windows: one offset inside the window at a time
            for i in range(kh):
                for j in range(kw):
                    dx[:, :, i : i + h * down : down, j : j + w * right : right] += dwindows[..., i, j]
        dweight = dweight.reshape(weight.shape)
        return (dx, dweight) if bias is None else (dx, dweight, dy.sum(0))

    return y.reshape(B, h, w, O).transpose(0, 3, 1, 2), backward  # (B, O, h, w)


def _check(x, weight, bias, down, right):
    if x.ndim != 4 or weight.ndim != 4 or x.shape[1] != weight.shape[1]:
        raise ShapeError(
            "conv2d", f"x {x.shape} and weight {weight.shape} do not fit.", rule="x (B, C, H, W), weight (O, C, kh, kw)"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError("conv2d", f"bias {bias.shape} does not fit weight {weight.shape}.", rule="bias (O,)")
    if x.shape[2] < weight.shape[2] or x.shape[3] < weight.shape[3] or min(down, right) < 1:
        raise ShapeError(
            "conv2d",
            f"kernel {weight.shape[2:]} with stride {(down, right)} on an image of {x.shape[2:]} pixels.",
            rule="the kernel fits into the image, and the stride is at least 1.",
        )
