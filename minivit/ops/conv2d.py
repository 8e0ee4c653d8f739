"""Convolution as patchify: cut the image into windows, one row each, then one matrix product.

Where the stride is the kernel, the windows are the patches of a Vision Transformer: see patches.
"""

import math

import numpy as np

from ..autograd import differentiable
from ..machinery.products import product, products, total
from ..machinery.shapes import check_conv2d


@differentiable
def conv2d(x, weight, bias=None, stride=1):
    """Slide O filters over an image, without padding: y is filter times window, plus bias.

    x: (B, C, H, W), weight: (O, C, kh, kw), bias: (O,) or None, stride: pixels between windows, a
    number or (down, right).  Returns y: (B, O, h, w) with h = (H - kh) // stride + 1; pixels that
    fill no window are not read.
    Backward: dweight = dy^T @ windows, dbias = sum(dy), and dx adds dy @ weight where each window
    was cut.
    Source: Dosovitskiy et al. 2021, section 3.1, for the patches: stride = kernel.
    """
    stride, kernel, O = check_conv2d(x, weight, bias, stride), weight.shape[2:], len(weight)
    cut, uncut = (patches, unpatches) if stride == kernel else (windows, unwindows)
    found = cut(x, kernel, stride)  # (B, h, w, C, kh, kw)
    B, h, w, *window = found.shape
    rows = found.reshape(B * h * w, math.prod(window))  # one row a window
    filters = weight.reshape(O, math.prod(window))
    y = product(rows, filters.T, bias)  # (B * h * w, O)

    def backward(dy):
        dy = dy.transpose(0, 2, 3, 1).reshape(B * h * w, O)
        drows, dfilters = products((dy, filters), (dy.T, rows))
        dx = uncut(drows.reshape(found.shape), x.shape, stride)
        dweight = dfilters.reshape(weight.shape)
        return (dx, dweight) if bias is None else (dx, dweight, total(dy))

    return y.reshape(B, h, w, O).transpose(0, 3, 1, 2), backward  # (B, O, h, w)


def patches(x, kernel, _):
    """Side by side, no pixel in two of them: (B, C, H, W) -> (B, h, w, C, kh, kw)."""
    (B, C, H, W), (kh, kw) = x.shape, kernel
    h, w = H // kh, W // kw
    x = x[:, :, : h * kh, : w * kw].reshape(B, C, h, kh, w, kw)
    return x.transpose(0, 2, 4, 1, 3, 5)


def unpatches(dpatches, shape, _):
    """The adjoint of patches: each back where it was cut, and 0 where none was."""
    B, h, w, C, kh, kw = dpatches.shape
    dx = np.zeros(shape, dpatches.dtype)
    pixels = dpatches.transpose(0, 3, 1, 4, 2, 5)  # (B, C, h, kh, w, kw)
    dx[:, :, : h * kh, : w * kw] = pixels.reshape(B, C, h * kh, w * kw)
    return dx


def windows(x, kernel, stride):
    """Any windows, which may overlap or leave gaps: (B, C, H, W) -> (B, h, w, C, kh, kw)."""
    every = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(2, 3))
    return every[:, :, :: stride[0], :: stride[1]].transpose(0, 2, 3, 1, 4, 5)


def unwindows(dwindows, shape, stride):
    """The adjoint of windows: a pixel adds up over its windows, offset by offset."""
    _, h, w, _, kh, kw = dwindows.shape
    (down, right), dx = stride, np.zeros(shape, dwindows.dtype)
    for i in range(kh):
        for j in range(kw):
            place = slice(i, i + h * down, down), slice(j, j + w * right, right)
            dx[:, :, *place] += dwindows[..., i, j].transpose(0, 3, 1, 2)  # (B, C, h, w)
    return dx
