"""Arithmetic and reductions beside NumPy, on shapes that broadcast. Their gradients: test_gradcheck.py."""

import numpy as np
import pytest

from minivit import Tensor, ops
from minivit.ops import unbroadcast


def leaf(data, dtype=np.float64):
    return Tensor(np.array(data, dtype=dtype), requires_grad=True)


BINARY = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y,
    "**": lambda x, y: x**y,
}


@pytest.mark.parametrize("fn", BINARY.values(), ids=BINARY)
@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((4, 1, 3), (2, 1)), ((), (1, 2)), ((0, 3), (1, 3))])
def test_binary_operators(fn, shapes, rng):
    x, y = (rng.uniform(0.5, 2, shape) for shape in shapes)
    for a, b in ((Tensor(x), Tensor(y)), (Tensor(x), y), (x, Tensor(y)), (Tensor(x), 1.5), (1.5, Tensor(y))):
        expected = fn(*(t.data if isinstance(t, Tensor) else t for t in (a, b)))
        np.testing.assert_array_equal(fn(a, b).data, expected)


UNARY = {
    "negative": np.negative,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "relu": lambda x: np.where(x > 0, x, 0),
}


@pytest.mark.parametrize(("name", "formula"), UNARY.items(), ids=UNARY)
@pytest.mark.parametrize("shape", [(3, 5), (), (0,)])
def test_unary(name, formula, shape, rng):
    x = rng.uniform(0.5, 2, shape)
    if name in ("negative", "relu", "tanh", "exp"):
        x -= 1
    np.testing.assert_array_equal(getattr(ops, name)(x).data, formula(x))
    if name != "relu":
        method = -Tensor(x) if name == "negative" else getattr(Tensor(x), name)()
        np.testing.assert_array_equal(method.data, formula(x))


AXES = [None, 0, 1, -1, (0, 2), (-1, 1), (0, 1, 2), ()]


@pytest.mark.parametrize("name", ["sum", "mean", "max"])
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


def test_equally_large_elements_share_the_gradient_of_max():
    x = leaf([[1.0, 5.0, 5.0], [2.0, 2.0, 2.0]])
    x.max(1).backward([6, 6])
    np.testing.assert_array_equal(x.grad, [[0, 3, 3], [2, 2, 2]])


def test_the_gradient_of_relu_at_zero_is_zero():
    x = leaf([-1.0, 0.0, 2.0])
    ops.relu(x).backward([1, 1, 1])
    np.testing.assert_array_equal(x.grad, [0, 0, 1])


def test_powers_at_zero():
    x, y = leaf([0.0, 0.0, 0.0, -2.0]), leaf([0.0, 1.0, 2.0, 3.0])
    (x**y).backward(np.ones(4))
    np.testing.assert_array_equal(x.grad, [0, 1, 0, 12])
    np.testing.assert_array_equal(y.grad, [0, 0, 0, 0])  # log of what is not positive counts as 0
    x, y = leaf([0.0]), leaf([-1.0])
    with np.errstate(divide="ignore"):  # x^-1 itself and its slope are infinite
        (x**y).sum().backward()
    assert x.grad == -np.inf and y.grad == 0


@pytest.mark.parametrize(
    ("shape", "stretched", "axes"),
    [((3, 1), (2, 3, 5), (0, 2)), ((), (2, 3), (0, 1)), ((1, 1, 4), (3, 2, 4), (0, 1)), ((2, 3), (2, 3), ())],
)
def test_unbroadcast_sums_what_was_stretched(shape, stretched, axes, rng):
    gradient = rng.standard_normal(stretched)
    back = unbroadcast(gradient, shape)
    assert back.shape == shape
    np.testing.assert_allclose(back, gradient.sum(axes).reshape(shape), rtol=1e-13)


@pytest.mark.parametrize("other", [np.arange(3), Tensor([1, 2, 3]), Tensor(2.0), np.float64(2), [1, 2, 3], 2])
def test_float32_stays_float32_beside_integers_and_numbers(other):
    x = Tensor(np.ones(3, np.float32), requires_grad=True)
    for y in (x * other, other + x, x - other, x / 3 / (x + other)):
        assert y.dtype == np.float32
