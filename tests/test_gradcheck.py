"""The gradient check: it passes every op of minivit, and it finds what is wrong with a wrong one."""

import functools
import re

import numpy as np
import pytest

from minivit import Tensor, autograd, differentiable, gradcheck, no_grad, ops
from minivit.course import cases
from minivit.errors import MinivitError
from minivit.gradcheck import GradientError, _by_direction, compare

EVERY_CASE = [
    pytest.param(case, id=" ".join(case.label.split())) for several in cases.CASES.values() for case in several
]


# ---- every op


@pytest.mark.parametrize("case", EVERY_CASE)
def test_backward_is_the_finite_difference(case, rng):
    assert gradcheck(case.fn, *case.inputs(rng), rtol=1e-6)


@pytest.mark.parametrize("case", EVERY_CASE)
def test_float32_stays_float32(case, rng):
    arrays = case.inputs(rng)
    exact = [Tensor(x, requires_grad=True) for x in arrays]
    single = [Tensor(x.astype(np.float32), requires_grad=True) for x in arrays]
    values = [case.fn(*tensors) for tensors in (exact, single)]
    cotangent = rng.standard_normal(values[0].shape).astype(np.float32)
    for value in values:
        value.backward(cotangent)
    pairs = [(values[0].data, values[1].data), *((e.grad, s.grad) for e, s in zip(exact, single, strict=True))]
    for wide, narrow in pairs:
        assert isinstance(narrow, np.ndarray) and narrow.dtype == np.float32
        np.testing.assert_allclose(narrow, wide, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", EVERY_CASE)
def test_no_op_changes_its_inputs_or_dy_or_what_it_saved(case, rng):
    arrays = [np.array(x) for x in case.inputs(rng)]
    for x in arrays:
        x.flags.writeable = False
    value = case.fn(*(Tensor(x, requires_grad=True) for x in arrays))
    before = value.data.copy()
    dy = np.array(rng.standard_normal(value.shape))
    dy.flags.writeable = False
    first, second = (value._node.backward(dy) for _ in range(2))
    for one, other in zip(first, second, strict=True) if isinstance(first, tuple) else [(first, second)]:
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(value.data, before)


def test_the_table_has_every_op_and_argument():
    rows = cases.table()
    assert {name for name, _, _ in rows} == set(cases.CASES)
    assert {argument for name, argument, _ in rows if name == "linear"} == {"x", "weight", "bias"}
    assert max(worst for _, _, worst in rows) < 1e-6


def test_an_op_without_a_case_is_named(monkeypatch):
    monkeypatch.setitem(autograd.REGISTRY, "minivit.ops.new.square", ops.exp)
    with pytest.raises(MinivitError, match=r"no case for square\.\n  hint: add one to course/cases.py"):
        cases.table()


# ---- wrong ops


def op_of(forward, backward, name="wrong"):
    """An op made of y = forward(x) and dx = backward(dy, x)."""

    def fn(x):
        return forward(x), lambda dy: backward(dy, x)

    fn.__name__ = name
    return differentiable(fn)


def normalised(x):
    return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)


def layer_norm_without(part):
    """Layer norm whose backward lacks a part: the mean's gradient, the variance's, or the scale 1 / std."""

    def backward(dy, x):
        n = normalised(x)
        mean = 0 if part == "mean" else dy.mean(-1, keepdims=True)
        variance = 0 if part == "variance" else n * (dy * n).mean(-1, keepdims=True)
        return (dy - mean - variance) / (1 if part == "scale" else x.std(-1, keepdims=True))

    return op_of(normalised, backward)


MATRIX = np.arange(9.0).reshape(3, 3) ** 2

WRONG = {
    "scale of 1.001": (op_of(np.square, lambda dy, x: 2.002 * dy * x), "9 of 9 entries.* same factor 1.001\n.*scale"),
    "wrong sign": (op_of(np.sin, lambda dy, x: -dy * np.cos(x)), "same factor -1.000\n  hint: the sign is turned"),
    "transposed": (op_of(lambda x: x @ MATRIX, lambda dy, x: (dy @ MATRIX.T).T), "hint: the gradient is the transp"),
    "missing mean": (op_of(lambda x: x - x.mean(), lambda dy, x: dy), "hint: every entry is off by the same amount"),
    "cut to zero": (op_of(np.exp, lambda dy, x: dy * 0), "hint: backward says zero everywhere"),
    "NaN": (op_of(np.exp, lambda dy, x: dy * np.nan), "hint: backward made NaN or infinity"),
    "infinity": (op_of(np.exp, lambda dy, x: dy * np.inf), "hint: backward made NaN or infinity"),
    "forward NaN": (op_of(lambda x: x * np.nan, lambda dy, x: dy), "hint: forward made NaN or infinity near"),
    "missing term": (op_of(lambda x: x**2 + x**3, lambda dy, x: dy * 2 * x), "hint: 9 of 9 entries differ: compare"),
    "layer norm, mean cut": (layer_norm_without("mean"), "entries differ"),
    "layer norm, variance cut": (layer_norm_without("variance"), "entries differ"),
    "layer norm, unscaled": (layer_norm_without("scale"), "entries differ"),
}


@pytest.mark.parametrize(("op", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("directions", [None, 3])
def test_a_wrong_gradient_is_caught(op, message, directions, rng):
    with pytest.raises(GradientError, match=r'argument "x", worst at \[\d') as caught:
        gradcheck(op, rng.standard_normal((3, 3)), directions=directions)
    assert directions or re.search(message, str(caught.value))


def test_a_single_wrong_entry_is_found_and_counted(rng):
    def backward(dy, x):
        dx = np.array(dy)
        dx[1, 2] += 1e-3
        return dx

    with pytest.raises(GradientError, match=r"worst at \[1, 2\](?s:.*)hint: 1 of 12 entries differ"):
        gradcheck(op_of(np.array, backward), rng.standard_normal((3, 4)))


def test_a_wrong_zero_among_right_ones_is_no_common_factor():
    mask = np.array([1.0, 0.0, 1.0])
    with pytest.raises(GradientError, match=r"worst at \[1\](?s:.*)hint: 1 of 3 entries differ"):
        gradcheck(op_of(lambda x: x * mask, lambda dy, x: dy), np.ones(3))


def test_directions_catch_what_each_argument_alone_hides():
    @differentiable
    def difference(x, y):
        return x - y, lambda dz: (dz * (1 + 8e-6), -dz * (1 - 8e-6))

    x, y = np.ones(1), np.ones(1)
    assert gradcheck(difference, x, y)
    with pytest.raises(GradientError, match='argument "all 2 inputs"'):  # their errors add up where x and y cancel
        gradcheck(difference, x, y, directions=20)


def test_directions_leave_the_arrays_where_they_were():
    array = np.arange(3.0)
    _by_direction(lambda: float(array.sum()), [array], [np.ones(3)], 1e-3, np.random.default_rng(0), 2)
    np.testing.assert_array_equal(array, [0, 1, 2])


def test_the_message_is_the_designs():
    @differentiable
    def scaled(x, weight):
        return x * weight, lambda dy: (dy * weight, 0.95 * dy * x)

    number = r"([+-]\d\.\d{6}e[+-]\d\d)"
    expected = (
        r'gradcheck: scaled, argument "weight", worst at \[1, 0\]: the gradients differ\.\n'
        rf"  backward {number}   finite difference {number}   relative error 5\.0e-02 \(allowed 1e-05\)\n"
        r"  3 of 3 entries are off by the same factor 0\.950\n"
        r"  hint: a constant factor usually means a scale that backward forgot, or has once too often\."
    )
    with pytest.raises(GradientError) as caught:
        gradcheck(scaled, np.array([[1.0], [-1e4], [0.5]]), np.ones((3, 1)))
    backward, numeric = re.fullmatch(expected, str(caught.value)).groups()
    assert float(backward) == pytest.approx(0.95 * float(numeric))


def test_a_plain_sum_would_hide_what_the_random_cotangent_finds(rng):
    x = rng.standard_normal((2, 5))
    unscaled = layer_norm_without("scale")
    assert gradcheck(lambda x: unscaled(x).sum(), x)  # the gradient is 0 whatever its scale
    with pytest.raises(GradientError):
        gradcheck(unscaled, x)


def test_tolerances():
    nearly = op_of(np.array, lambda dy, x: dy * 1.0001)
    x = np.linspace(1, 2, 5)
    assert gradcheck(nearly, x, rtol=1e-3)
    assert gradcheck(nearly, x, atol=1e-2)
    with pytest.raises(GradientError):
        gradcheck(nearly, x)


# ---- what it takes


def test_arguments_are_named_after_the_function_or_counted(rng):
    x, y = rng.standard_normal((2, 3))
    assert [c.argument for c in compare(ops.multiply, x, y)] == ["x", "y"]
    assert [c.argument for c in compare(lambda *tensors: tensors[0] * tensors[1], x, y)] == ["input 0", "input 1"]
    assert [c.argument for c in compare(lambda x, *_: x + y, x, y)] == ["x", "input 1"]
    tanh = functools.partial(ops.tanh)
    tanh.__signature__ = 0  # one that cannot be read
    assert [c.argument for c in compare(tanh, x)] == ["input 0"]
    assert [c.argument for c in compare(ops.multiply, x, y, directions=2)] == ["all 2 inputs"]


def test_integers_are_passed_over(rng):
    comparisons = compare(ops.cross_entropy, rng.standard_normal((2, 3)), np.array([2, 0]))
    assert [c.argument for c in comparisons] == ["logits"]
    with pytest.raises(MinivitError, match="no input holds floating-point numbers"):
        gradcheck(ops.add, 1, np.arange(3))


def test_parameters_that_the_function_reaches_on_its_own(rng):
    weight = Tensor(rng.standard_normal((3, 4)).astype(np.float32), requires_grad=True)
    bias = Tensor(rng.standard_normal(3).astype(np.float32), requires_grad=True)
    x = rng.standard_normal((5, 4))
    for directions in (None, 3):
        assert gradcheck(lambda *_: ops.linear(x, weight, bias).tanh(), weight, bias, directions=directions)
    cut = op_of(np.tanh, lambda dy, x: dy)
    for directions in (None, 3):
        with pytest.raises(GradientError, match='argument "input 1"'):
            gradcheck(lambda *_: ops.linear(x, weight) + cut(bias), weight, bias, directions=directions)


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("directions", [None, 2])
def test_tensors_are_as_they_were_afterwards(right, directions, rng):
    x = Tensor(rng.standard_normal(3).astype(np.float32), requires_grad=True)
    y = Tensor(rng.standard_normal(3).astype(np.float32))
    x.grad = np.ones(3, np.float32)
    before = [(t.data, t.data.copy(), t.grad, t.requires_grad) for t in (x, y)]
    op = ops.multiply if right else differentiable(lambda x, y: (x * y, lambda dz: (dz, dz)))
    if right:
        assert gradcheck(op, x, y, directions=directions)
    else:
        with pytest.raises(GradientError):
            gradcheck(op, x, y, directions=directions)
    for t, (data, copy, grad, requires_grad) in zip((x, y), before, strict=True):
        assert t.data is data and t.grad is grad and t.requires_grad is requires_grad
        np.testing.assert_array_equal(data, copy)


def test_tensors_are_as_they_were_after_an_error_in_the_function():
    x = Tensor(np.ones(3, np.float32))
    with pytest.raises(ZeroDivisionError):
        gradcheck(lambda x: x / (1 // 0), x)
    assert x.dtype == np.float32 and not x.requires_grad


def test_an_inner_tensor_is_checked_as_if_it_were_a_leaf(rng):
    leaf = Tensor(rng.standard_normal(3), requires_grad=True)
    inner = leaf * 2
    assert gradcheck(ops.tanh, inner)
    assert leaf.grad is None
    inner.backward(np.ones(3))  # its graph is still there


def test_a_graph_that_is_not_recorded_is_caught(rng):
    with pytest.raises(GradientError, match="backward says zero everywhere: does it return this gradient"):
        gradcheck(lambda x: Tensor(x.data * 2), rng.standard_normal(3))
    with no_grad(), pytest.raises(GradientError, match="backward says zero everywhere"):
        gradcheck(ops.exp, rng.standard_normal(3))


def test_chance_is_refused(rng):
    with pytest.raises(MinivitError, match="fn gave another output for the same input"):
        gradcheck(lambda x: ops.dropout(x, 0.5, rng), np.ones(20))


def test_one_tensor_must_come_out(rng):
    q = rng.standard_normal((3, 2))
    with pytest.raises(MinivitError, match="fn returned a tuple"):
        gradcheck(ops.attention, q, q, q)


def test_empty_inputs_have_nothing_wrong():
    assert gradcheck(ops.exp, np.zeros((0, 3)))


def test_a_function_that_changes_its_input_is_told_so():
    def doubled(x):
        x.data *= 2
        return x * 1

    with pytest.raises(MinivitError, match="fn changed its input"):
        gradcheck(doubled, np.ones(3))


@pytest.mark.parametrize("wrong", [{"directions": 0}, {"directions": -1}, {"directions": 1.5}, {"rtol": 0}, {"eps": 0}])
def test_options_that_check_nothing_are_refused(wrong):
    with pytest.raises(MinivitError, match="directions is None or 1, 2"):
        gradcheck(lambda x: x * 2, np.ones(3), **wrong)


def test_with_directions_the_worst_of_many_inputs_is_named():
    inputs = [np.ones(3) for _ in range(21)]

    @differentiable
    def doubled(x):
        return 2 * x, lambda dy: 2.1 * dy

    def fn(*tensors):
        return sum((doubled(t) if i == 13 else t * t for i, t in enumerate(tensors)), start=Tensor(0.0))

    with pytest.raises(GradientError, match='argument "input 13"'):
        gradcheck(fn, *inputs, directions=2)


def test_the_absolute_tolerance_is_what_it_says():
    @differentiable
    def offset(x):
        return x * 0.0, lambda dy: dy * 0.0 + 3e-7

    assert gradcheck(offset, np.ones(3), atol=4e-7)
    with pytest.raises(GradientError):
        gradcheck(offset, np.ones(3), atol=2e-7)


def test_a_function_with_a_little_chance_is_refused(rng):
    with pytest.raises(MinivitError, match="another output for the same input"):
        gradcheck(lambda x: x + 1e-6 * rng.standard_normal(3), np.ones(3))


def test_one_changed_input_of_two():
    def spoil(x, y):
        y.data += 1
        return x * y

    with pytest.raises(MinivitError, match="fn changed its input"):
        gradcheck(spoil, np.ones(2), np.ones(2))


def test_a_backward_that_writes_into_what_forward_made_is_told_so():
    @differentiable
    def own(x):
        y = np.exp(x)

        def backward(dy):
            np.multiply(y, dy, out=y)
            return y

        return y, backward

    @differentiable
    def others(x):
        def backward(dy):
            np.multiply(x, 2 * dy, out=x)
            return x

        return x**2, backward

    for op in (own, others):
        with pytest.raises(
            MinivitError, match=rf"changed an input or the output of {op.__name__}(?s:.*)make a new array"
        ):
            gradcheck(op, np.ones(3))
