"""softmax and log_softmax: probabilities that sum to 1, without overflow, equal to the small ops they are made of."""

import numpy as np
import pytest

from minivit import Tensor, ops
from minivit.errors import ShapeError


@pytest.mark.parametrize(("shape", "axis"), [((5,), -1), ((2, 3, 4), -1), ((2, 3, 4), 0), ((2, 3, 4), 1), ((3, 1), 1)])
def test_fused_is_composed(shape, axis, rng, assert_same):
    x = rng.standard_normal(shape)
    over = {"axis": axis, "keepdims": True}
    assert_same(lambda x: ops.softmax(x, axis), lambda x: x.exp() / x.exp().sum(**over), x)
    assert_same(lambda x: ops.log_softmax(x, axis), lambda x: x - x.exp().sum(**over).log(), x)
    np.testing.assert_allclose(ops.softmax(x, axis).data.sum(axis), 1, rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_scores_neither_overflow_nor_round_to_nothing(dtype):
    x = np.array([[1e4, 0, -1e4], [-1e30, 1e30, 1e30]], dtype)
    np.testing.assert_array_equal(ops.softmax(x).data, [[1, 0, 0], [0, 0.5, 0.5]])
    np.testing.assert_allclose(ops.log_softmax(x).data[0], [0, -1e4, -2e4])
    np.testing.assert_allclose(ops.log_softmax(x).data[1, 1:], np.log(0.5), rtol=1e-7)


def test_a_shift_changes_nothing(rng):
    x = rng.standard_normal((3, 4))
    np.testing.assert_allclose(ops.softmax(x + 100).data, ops.softmax(x).data, rtol=1e-12)


@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax])
def test_an_axis_that_is_not_there(op):
    with pytest.raises(ShapeError, match=r"softmax: axis 2 is out of bounds(?s:.*)shapes \(2, 3\)"):
        op(np.ones((2, 3)), axis=2)
    with pytest.raises(ShapeError, match="softmax: zero-size array"):
        op(np.ones((2, 0)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_infinite_scores_are_as_in_pytorch(dtype):
    inf, nan = np.inf, np.nan
    x = Tensor(np.array([[inf, 0], [inf, inf], [-inf, 0], [-inf, -inf]], dtype), requires_grad=True)
    with np.errstate(invalid="ignore"):
        y, log_y = ops.softmax(x), ops.log_softmax(x)
        log_y.backward(np.array([[1, 2]] * 4, dtype))
    np.testing.assert_array_equal(y.data, [[nan, nan], [nan, nan], [0, 1], [nan, nan]])
    np.testing.assert_array_equal(log_y.data, [[nan, nan], [nan, nan], [-inf, 0], [nan, nan]])
    np.testing.assert_array_equal(x.grad, [[nan, nan], [nan, nan], [1, -1], [nan, nan]])
