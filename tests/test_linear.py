"""linear beside NumPy, and equal to the small ops it is made of."""

import numpy as np
import pytest

from minivit import ops
from minivit.errors import ShapeError


@pytest.mark.parametrize("leading", [(), (1,), (3,), (2, 3), (2, 1, 4), (0,), (2, 0)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_matmul_and_add(leading, bias, rng, assert_same):
    x, weight = rng.standard_normal((*leading, 5)), rng.standard_normal((4, 5))
    arrays = [x, weight, rng.standard_normal(4)][: 3 if bias else 2]
    expected = x @ weight.T + (arrays[2] if bias else 0)
    np.testing.assert_allclose(ops.linear(*arrays).data, expected, rtol=1e-13, atol=1e-13)
    if x.size:
        assert_same(ops.linear, lambda x, weight, *bias: sum(bias, x @ weight.T), *arrays)


def test_the_bias_counts_for_the_dtype():
    ones = [np.ones(shape, np.int64) for shape in ((2, 3), (4, 3))]
    np.testing.assert_array_equal(ops.linear(*ones, np.full(4, 0.5)).data, np.full((2, 4), 3.5))
    assert ops.linear(*(x.astype(np.float32) for x in ones), np.ones(4)).dtype == np.float64


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 3), (4, 5)], r"linear: x \(2, 3\), weight \(4, 5\) do not fit\.\n  rule: x \(\.\.\., in\), weight"),
        ([(2, 3), (3,)], r"x \(2, 3\), weight \(3,\) do not fit"),
        ([(), (4, 5)], r"x \(\), weight \(4, 5\) do not fit"),
        ([(2, 3), (4, 3), (3,)], r"x \(2, 3\), weight \(4, 3\), bias \(3,\) do not fit"),
    ],
)
def test_shapes_that_do_not_fit(shapes, message):
    with pytest.raises(ShapeError, match=message):
        ops.linear(*map(np.ones, shapes))
