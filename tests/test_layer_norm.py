"""layer_norm: every token gets mean 0 and variance 1, and the op equals the small ops it is made of."""

import numpy as np
import pytest

from minivit import Tensor, ops
from minivit.errors import ShapeError


def composed(x, weight, bias, eps=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return centred / (variance + eps).sqrt() * weight + bias


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 4), (2, 1, 1)])
@pytest.mark.parametrize("eps", [1e-5, 1e-12, 0.5])
def test_fused_is_composed(shape, eps, rng, assert_same):
    arrays = rng.standard_normal(shape), rng.standard_normal(shape[-1:]), rng.standard_normal(shape[-1:])
    assert_same(lambda *t: ops.layer_norm(*t, eps), lambda *t: composed(*t, eps), *arrays, tolerance=1e-10)


def test_every_token_has_mean_0_and_variance_1(rng):
    x = 7 + 3 * rng.standard_normal((2, 3, 50))
    y = ops.layer_norm(x, np.ones(50), np.zeros(50), eps=0).data
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-14)
    np.testing.assert_allclose(y.var(-1), 1, rtol=1e-13)


def test_a_constant_token_becomes_the_bias_and_a_large_mean_does_no_harm():
    weight, bias = np.ones(3, np.float32), np.array([1, 2, 3], np.float32)
    np.testing.assert_array_equal(ops.layer_norm(np.full((2, 3), 9, np.float32), weight, bias).data, [bias, bias])
    y = ops.layer_norm(np.array([1e4, 1e4 + 1, 1e4 + 2], np.float32), weight, 0 * bias).data
    np.testing.assert_allclose(y, [-1.2247, 0, 1.2247], atol=1e-4)
    y = ops.layer_norm(np.array([1, 1, 4]), np.ones(3), np.zeros(3), eps=0.5).data  # integers: mean 2, variance 2
    assert y[2] == pytest.approx(2 / 2.5**0.5)


def test_eps_of_any_type_leaves_float32_alone():
    x = Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    y = ops.layer_norm(x, x[0], x[1], eps=np.float64(1e-5))
    y.sum().backward()
    assert y.dtype == x.grad.dtype == np.float32


@pytest.mark.parametrize("shapes", [((2, 3), (2,), (2,)), ((2, 3), (3,), (1,)), ((2, 3), (1, 3), (3,)), ((), (), ())])
def test_shapes_that_do_not_fit(shapes):
    with pytest.raises(ShapeError, match=r"layer_norm: x .* do not fit\.\n  rule: x \(\.\.\., D\), weight \(D,\)"):
        ops.layer_norm(*map(np.ones, shapes))


@pytest.mark.parametrize(
    ("row", "dtype"),
    [
        ([1e20, 0, 0], np.float32),
        ([3e38, 3e38, -3e38], np.float32),
        ([1e200, 0, 0], np.float64),
        ([np.inf, 0, 0], np.float32),
        ([np.nan, 0, 0], np.float64),
    ],
)
def test_a_token_too_large_for_its_dtype_is_nan_as_in_pytorch_and_only_that_one(row, dtype):
    x = Tensor(np.array([row, [3, 0, 0]], dtype), requires_grad=True)
    with np.errstate(all="ignore"):
        y = ops.layer_norm(x, np.ones(3, dtype), np.zeros(3, dtype))
        y.backward(np.array([[1, 2, 4]] * 2, dtype))
    assert np.isnan(y.data[0]).all() and np.isnan(x.grad[0]).all()
    np.testing.assert_allclose(y.data[1], [1.41421, -0.70711, -0.70711], rtol=1e-5)
    assert np.isfinite(x.grad[1]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_token_large_but_not_too_large_is_right(dtype):
    y = ops.layer_norm(np.array([1e18, 0, 0], dtype), np.ones(3, dtype), np.zeros(3, dtype)).data
    np.testing.assert_allclose(y, [2**0.5, -(0.5**0.5), -(0.5**0.5)], rtol=1e-6)


def test_a_token_whose_squares_round_to_0_is_divided_by_the_root_of_eps():
    x = Tensor(np.array([1e-30, 0, 0], np.float32), requires_grad=True)
    y = ops.layer_norm(x, np.ones(3, np.float32), np.zeros(3, np.float32))
    y.backward(np.array([1, 2, 4], np.float32))
    np.testing.assert_allclose(y.data, [2.1081853e-28, -1.0540926e-28, -1.0540926e-28], rtol=1e-6)
    np.testing.assert_allclose(x.grad, [-421.6371, -105.4093, 527.04626], rtol=1e-6)  # PyTorch's numbers
