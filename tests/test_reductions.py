"""Reductions beside NumPy. Their gradients: test_gradcheck.py."""

import warnings

import numpy as np
import pytest

from minivit import Tensor, ops
from minivit.errors import MinivitError


def leaf(data, dtype=np.float64):
    return Tensor(np.array(data, dtype=dtype), requires_grad=True)


AXES = [None, 0, 1, -1, (0, 2), (-1, 1), (0, 1, 2), ()]


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions(name, axis, keepdims, rng):
    x = rng.standard_normal((2, 3, 5))
    expected = getattr(np, name)(x, axis=axis, keepdims=keepdims)
    y = getattr(Tensor(x), name)(axis, keepdims=keepdims)
    assert y.shape == np.shape(expected)
    np.testing.assert_allclose(y.data, expected, rtol=1e-15)


def test_reductions_of_integers_and_of_nothing():
    assert Tensor([1, 2, 4]).sum().item() == 7
    assert Tensor([1, 2, 4]).mean().item() == 7 / 3
    assert Tensor(np.zeros((0, 3))).sum(0).shape == (3,)
    assert Tensor(np.zeros((0, 3))).mean(1).shape == (0,)


def test_equally_large_elements_share_the_gradient_of_max_and_min():
    x = leaf([[1.0, 5.0, 5.0], [2.0, 2.0, 2.0]])
    x.max(1).backward([6, 6])
    np.testing.assert_array_equal(x.grad, [[0, 3, 3], [2, 2, 2]])
    x = leaf([[1.0, 5.0, 1.0], [2.0, 2.0, 2.0]])
    x.min(1).backward([6, 6])
    np.testing.assert_array_equal(x.grad, [[3, 0, 3], [2, 2, 2]])


def test_the_smallest_of_whole_numbers():
    assert Tensor(np.array([3, 0, 255], np.uint8)).min().item() == 0


@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("correction", [0, 1])
def test_var_and_std(axis, keepdims, correction, rng):
    x = rng.standard_normal((2, 3, 5))
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one number, which has no variance with correction=1
        for name in ("var", "std"):
            expected = getattr(np, name)(x, axis=axis, ddof=correction, keepdims=keepdims)
            y = getattr(Tensor(x), name)(axis, correction=correction, keepdims=keepdims)
            assert y.shape == np.shape(expected)
            np.testing.assert_allclose(y.data, expected, rtol=1e-13)


def test_var_does_not_choose_between_numpy_and_pytorch():
    x = Tensor([1.0, 2.0, 6.0])
    for wrong in (x.var, x.std, lambda: ops.var(x, 0), lambda: ops.std(x.data)):
        with pytest.raises(MinivitError, match=r"by n, or by n - 1\?(?s:.*)correction=0\) divides by n, "):
            wrong()
    assert x.var(correction=0).item() == 14 / 3 == x.var(ddof=0).item() == x.var(unbiased=False).item()
    assert x.var(correction=1).item() == 7 == x.var(ddof=1).item() == x.var(unbiased=True).item()


def test_std_of_float32_stays_float32(rng):
    x = leaf(rng.standard_normal((3, 4)), np.float32)
    y = x.std(-1, correction=1)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == np.float32


@pytest.mark.parametrize("axis", [0, -1, (0, 2), None], ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
def test_logsumexp(axis, keepdims, rng, assert_same):
    x = rng.standard_normal((2, 3, 5))
    assert_same(lambda x: ops.logsumexp(x, axis, keepdims), lambda x: x.exp().sum(axis, keepdims).log(), x)
    np.testing.assert_allclose(ops.logsumexp(x + 1e4, axis).data, ops.logsumexp(x, axis).data + 1e4, rtol=1e-13)
    assert ops.logsumexp([-np.inf, 0.0, -np.inf], 0).item() == 0
    assert ops.logsumexp([np.inf, 0.0], 0).item() == np.inf


@pytest.mark.parametrize("name", ["var", "std"])
def test_without_a_correction_the_message_has_the_name_that_was_called(name):
    with pytest.raises(MinivitError, match=rf"^{name}: is it to divide by n(?s:.*)hint: {name}\(x, axis, corr"):
        getattr(Tensor(np.ones(3)), name)()
