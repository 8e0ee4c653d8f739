"""conv2d: the same as cutting every window out and multiplying, whether the windows touch, overlap or leave gaps."""

import numpy as np
import pytest

from minivit import Tensor, ops
from minivit.errors import ShapeError


def window_by_window(x, weight, bias=None, stride=1):
    """The same convolution by a loop over the windows, of small ops."""
    down, right = (stride, stride) if isinstance(stride, int) else stride
    (B, _, H, W), (O, _, kh, kw) = x.shape, weight.shape
    pixels = [
        ops.einsum("bcij,ocij->bo", x[:, :, i : i + kh, j : j + kw], weight).reshape(B, O, 1)
        for i in range(0, H - kh + 1, down)
        for j in range(0, W - kw + 1, right)
    ]
    y = ops.concatenate(pixels, axis=2).reshape(B, O, (H - kh) // down + 1, (W - kw) // right + 1)
    return y if bias is None else y + bias.reshape(1, O, 1, 1)


@pytest.mark.parametrize(
    ("image", "kernel", "stride"),
    [
        ((2, 3, 6, 8), (5, 3, 3, 4), (3, 4)),  # patches
        ((1, 2, 7, 9), (3, 2, 2, 2), 2),  # patches, and pixels left over
        ((2, 3, 5, 7), (4, 3, 3, 2), 1),  # overlapping windows
        ((1, 1, 9, 8), (2, 1, 4, 3), (3, 2)),
        ((2, 2, 8, 7), (1, 2, 2, 1), (3, 4)),  # gaps between the windows
        ((1, 3, 4, 5), (2, 3, 4, 5), 1),  # one window, all of the image
        ((1, 1, 6, 6), (2, 1, 3, 3), (3, 1)),  # touching downwards, overlapping to the right
        ((3, 1, 1, 1), (1, 1, 1, 1), 2),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_conv2d_window_by_window(image, kernel, stride, bias, rng, assert_same):
    arrays = [rng.standard_normal(shape) for shape in (image, kernel, kernel[:1])][: 3 if bias else 2]
    assert_same(
        lambda *tensors: ops.conv2d(*tensors, stride=stride),
        lambda *tensors: window_by_window(*tensors, stride=stride),
        *arrays,
    )


def test_patches_are_read_row_by_row(rng):
    image = rng.standard_normal((1, 3, 4, 6))
    pick = np.zeros((1, 3, 2, 2))
    pick[0, 2, 1, 0] = 1  # the lower left pixel of the blue channel of every patch
    np.testing.assert_array_equal(ops.conv2d(image, pick, stride=2).data, image[:, 2:, 1::2, 0::2])


def test_no_image_is_a_batch_too():
    assert ops.conv2d(np.ones((0, 3, 4, 4)), np.ones((5, 3, 2, 2)), stride=2).shape == (0, 5, 2, 2)


@pytest.mark.parametrize(
    ("shapes", "stride", "message"),
    [
        ([(3, 4, 4), (5, 3, 2, 2)], 2, r"conv2d: x \(3, 4, 4\) and weight \(5, 3, 2, 2\) do not fit(?s:.*)x \(B, C"),
        ([(1, 3, 4, 4), (5, 12)], 2, "do not fit"),
        ([(1, 1, 4, 4), (5, 3, 2, 2)], 2, "do not fit"),
        ([(1, 3, 4, 4), (5, 3, 2, 2), (3,)], 2, r"bias \(3,\) does not fit weight \(5, 3, 2, 2\)"),
        ([(1, 3, 4, 4), (5, 3, 5, 2)], 2, r"kernel \(5, 2\) with stride \(2, 2\) on an image of \(4, 4\) pixels"),
        ([(1, 3, 4, 4), (5, 3, 2, 5)], (2, 1), r"kernel \(2, 5\) with stride \(2, 1\) on an image"),
        ([(1, 3, 4, 4), (5, 3, 2, 2)], 0, "the kernel fits into the image, and the stride is at least 1"),
        ([(1, 3, 4, 4), (5, 3, 2, 2)], (2, -1), "the stride is at least 1"),
    ],
)
def test_what_does_not_fit(shapes, stride, message):
    with pytest.raises(ShapeError, match=message):
        ops.conv2d(*(Tensor(np.ones(shape)) for shape in shapes), stride=stride)
