"""Arithmetic beside NumPy, on shapes that broadcast. Its gradients: test_gradcheck.py."""

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


def test_sigmoid_and_silu_at_both_ends():
    x = np.array([-1000.0, -100.0, -1.0, 0.0, 1.0, 100.0, 1000.0])
    exact = [0.0, np.exp(-100.0), 1 / (1 + np.e), 0.5, np.e / (1 + np.e), 1.0, 1.0]
    np.testing.assert_allclose(ops.sigmoid(x).data, exact, rtol=1e-13)  # no warning of an overflow either
    np.testing.assert_allclose(ops.silu(x).data, x * exact, rtol=1e-13)
    assert ops.silu(Tensor(x.astype(np.float32))).dtype == np.float32


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((4, 1, 3), (2, 1)), ((), (1, 2)), ((0, 3), (1, 3))])
def test_maximum_minimum_and_where(shapes, rng):
    x, y = (rng.standard_normal(shape) for shape in shapes)
    for a, b in ((Tensor(x), Tensor(y)), (Tensor(x), y), (x, Tensor(y))):
        np.testing.assert_array_equal(ops.maximum(a, b).data, np.maximum(x, y))
        np.testing.assert_array_equal(ops.minimum(a, b).data, np.minimum(x, y))
        np.testing.assert_array_equal(ops.where(a > b, a, b).data, np.maximum(x, y))
        np.testing.assert_array_equal(ops.where(Tensor(x > y), a, b).data, np.maximum(x, y))


def test_two_that_are_equal_share_the_gradient_of_maximum_and_minimum():
    for op, expected in ((ops.maximum, [0, 2, 1]), (ops.minimum, [2, 0, 1])):
        x, y = leaf([1.0, 5.0, 3.0]), leaf([2.0, 4.0, 3.0])
        op(x, y).backward([2, 2, 2])
        np.testing.assert_array_equal(x.grad, expected)
        np.testing.assert_array_equal(y.grad, 2 - np.array(expected))


def test_where_sends_the_gradient_to_the_source_that_was_taken():
    x, y = leaf([[1.0, 2.0, 3.0]]), leaf([[4.0], [5.0]])
    z = ops.where([[True, False, True], [True, True, False]], x, y)
    np.testing.assert_array_equal(z.data, [[1, 4, 3], [1, 2, 5]])
    z.backward([[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(x.grad, [[5, 5, 3]])
    np.testing.assert_array_equal(y.grad, [[2], [6]])
    x = leaf([np.inf, 1.0])
    ops.where([False, True], x, 0.0).sum().backward()
    np.testing.assert_array_equal(x.grad, [0, 1])


def test_masked_fill_fills_where_the_mask_is_true():
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    y = x.masked_fill(np.array([False, True]), -np.inf)
    np.testing.assert_array_equal(y.data, [[1, -np.inf], [3, -np.inf]])
    y.backward(np.ones((2, 2)))
    np.testing.assert_array_equal(x.grad, [[1, 0], [1, 0]])


def test_clip_keeps_the_gradient_within_and_on_the_limits():
    x = leaf([-2.0, -1.0, 0.0, 1.0, 2.0])
    for y in (ops.clip(x, -1, 1), x.clamp(-1, 1), x.clamp(min=-1.0).clip(max=1.0)):
        np.testing.assert_array_equal(y.data, [-1, -1, 0, 1, 1])
        x.grad = None
        y.sum().backward()
        np.testing.assert_array_equal(x.grad, [0, 1, 1, 1, 0])
    assert ops.clip(x) is x
    limit = leaf(0.5)
    ops.clip(x.data, limit).sum().backward()
    assert limit.grad == 3  # the three numbers below it are the limit now


@pytest.mark.parametrize("op", [ops.maximum, ops.minimum, lambda x, y: ops.where([True, False], x, y), ops.clip])
def test_float32_stays_float32_beside_a_choice(op):
    x = leaf([1.0, 2.0], np.float32)
    y = op(x, 1.5)
    assert y.dtype == np.float32
    y.sum().backward()
    assert x.grad.dtype == np.float32
