"""gelu against math.erfc on a fine grid, and gelu_tanh as its formula of small ops."""

import math

import numpy as np
import pytest

from minivit import Tensor, ops
from minivit.machinery.normal import normal

GRID = np.concatenate([np.linspace(-12, 12, 20_001), [-40, -1e-8, 0, 1e-300, 40, 1e4, -1e4]])


def exact_cdf(x):
    return np.array([0.5 * math.erfc(-t / math.sqrt(2)) for t in x.tolist()])


def worst(found, exact):
    return float((np.abs(found - exact) / np.maximum(1, np.abs(exact))).max())


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-15), (np.float32, 2e-7)])
def test_gelu_on_a_grid(dtype, bound):
    x = GRID.astype(dtype)
    wide = x.astype(np.float64)
    cdf = exact_cdf(wide)
    tensor = Tensor(x, requires_grad=True)
    y = ops.gelu(tensor)
    y.backward(np.ones_like(x))
    assert y.dtype == tensor.grad.dtype == dtype
    assert worst(normal(x)[0], cdf) <= bound
    assert worst(y.data, wide * cdf) <= bound
    assert worst(tensor.grad, cdf + wide * np.exp(-wide * wide / 2) / math.sqrt(2 * math.pi)) <= bound


def test_the_tails_keep_their_digits():
    x = np.linspace(-8, 0, 801)  # where 1 + erf would have none left
    np.testing.assert_allclose(normal(x)[0], exact_cdf(x), rtol=3e-14)
    np.testing.assert_allclose(normal(x.astype(np.float32))[0], exact_cdf(x.astype(np.float32)), rtol=1e-5)


@pytest.mark.parametrize("x", [np.array(0.7), np.zeros((2, 0)), np.arange(-3, 4), np.ones((2, 1, 3))])
def test_gelu_of_any_shape_and_of_integers(x):
    y = ops.gelu(x)
    assert y.shape == x.shape
    np.testing.assert_allclose(y.data.ravel(), x.ravel() * exact_cdf(x.ravel()), rtol=1e-13)


def test_gelu_of_half_precision():
    y = ops.gelu(np.linspace(-2, 2, 5).astype(np.float16))
    assert y.dtype == np.float16
    np.testing.assert_allclose(y.data, [-0.0455, -0.1587, 0, 0.8413, 1.9545], atol=1e-3)


def test_gelu_tanh_is_its_formula(rng, assert_same):
    def composed(x):
        return x * (((x + x**3 * 0.044715) * math.sqrt(2 / math.pi)).tanh() + 1) * 0.5

    assert_same(ops.gelu_tanh, composed, 3 * rng.standard_normal((4, 5)))


def test_the_two_differ_by_less_than_5e_4_and_not_by_nothing():
    difference = np.abs(ops.gelu_tanh(GRID).data - ops.gelu(GRID).data).max()
    assert 4e-4 < difference < 5e-4


def test_far_from_zero():
    for dtype in (np.float32, np.float64):
        x = np.array([np.inf, 1e30, -1e30, 50, -50], dtype)
        np.testing.assert_array_equal(ops.gelu(x).data, np.array([np.inf, 1e30, 0, 50, 0], dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", [ops.gelu, ops.gelu_tanh])
def test_infinity_and_nan_are_as_in_pytorch(op, dtype):
    x = Tensor(np.array([np.inf, -np.inf, np.nan, 1e12, -1e12], dtype), requires_grad=True)
    with np.errstate(all="ignore"):
        y = op(x)
        y.backward(np.ones(5, dtype))
    np.testing.assert_array_equal(y.data, [np.inf, np.nan, np.nan, dtype(1e12), 0])
    np.testing.assert_array_equal(x.grad, [np.nan, np.nan, np.nan, 1, 0])
