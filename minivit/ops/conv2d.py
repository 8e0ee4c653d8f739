"""Convolution as patchify: cut the image into windows, one row each, then one matrix product.

Where the stride is the kernel, the windows are the patches of a Vision Transformer: see patches and its adjoint.
"""

import math

import numpy as np

from ..autograd import differentiable
from ..machinery.products import product, products, total
from ..machinery.shapes import check_conv2d


@differentiable
def conv2d(x, weight, bias=None, stride=1):
    """Slide O filters over an image, without padding: every output pixel is filter times window, plus bias.

    x: (B, C, H, W), weight: (O, C, kh, kw), bias: (O,) or None, stride: pixels between windows, a number or (down,
    right).  Returns y: (B, O, h, w) with h = (H - kh) // stride + 1. With stride = kernel the windows are the patches
    of a Vision Transformer (Dosovitskiy et al. 2021, section 3.1); pixels that fill no window are not read.
    Backward: dweight = dy^T @ windows, dbias = sum(dy), and dx adds dy @ weight where each window was cut.
    """
    stride, kernel, (O, *_) = check_conv2d(x, weight, bias, stride), weight.shape[2:], weight.shape
    cut, cut_adjoint = (patches, patches_adjoint) if stride == kernel else (windows, windows_adjoint)
    filters = weight.reshape(O, -1)  # (O, C * kh * kw)
    x_cut = cut(x, kernel, stride)  # (B, h, w, C, kh, kw)
    B, h, w, *window = x_cut.shape
    x_rows = x_cut.reshape(B * h * w, math.prod(window))  # one row a window
    y = product(x_rows, filters.T, bias)  # (B * h * w, O)

    def backward(dy):
        dy = dy.transpose(0, 2, 3, 1).reshape(B * h * w, O)
        dfilters, dx_rows = products((dy.T, x_rows), (dy, filters))
        dx = cut_adjoint(dx_rows.reshape(B, h, w, *window), x.shape, stride)
        dweight = dfilters.reshape(weight.shape)
        return (dx, dweight) if bias is None else (dx, dweight, total(dy))

    return y.reshape(B, h, w, O).transpose(0, 3, 1, 2), backward  # (B, O, h, w)


def patches(x, kernel, _):
    """Cut into patches, beside each other and never over each other: (B, C, H, W) -> (B, h, w, C, kh, kw)."""
    (B, C, H, W), (kh, kw) = x.shape, kernel
    h, w = H // kh, W // kw
    x = x[:, :, : h * kh, : w * kw].reshape(B, C, h, kh, w, kw)
    return x.transpose(0, 2, 4, 1, 3, 5)


def patches_adjoint(dpatches, shape, _):
    """Each patch back where it was cut; pixels in no patch get 0: (B, h, w, C, kh, kw) -> (B, C, H, W)."""
    B, h, w, C, kh, kw = dpatches.shape
    dx = np.zeros(shape, dpatches.dtype)
    dx[:, :, : h * kh, : w * kw] = dpatches.transpose(0, 3, 1, 4, 2, 5).reshape(B, C, h * kh, w * kw)
    return dx


def windows(x, kernel, stride):
    """Windows that may overlap, or leave gaps: (B, C, H, W) -> (B, h, w, C, kh, kw)."""
    every = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(2, 3))  # (B, C, H - kh + 1, W - kw + 1, kh, kw)
    return every[:, :, :: stride[0], :: stride[1]].transpose(0, 2, 3, 1, 4, 5)


def windows_adjoint(dwindows, shape, stride):
    """A pixel adds up over its windows, one offset inside them at a time: (B, h, w, C, kh, kw) -> (B, C, H, W)."""
    _, h, w, _, kh, kw = dwindows.shape
    (down, right), dx = stride, np.zeros(shape, dwindows.dtype)
    for i in range(kh):
        for j in range(kw):
            dx[:, :, i : i + h * down : down, j : j + w * right : right] += dwindows[..., i, j].transpose(0, 3, 1, 2)
    return dx
