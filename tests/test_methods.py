"""Tensor's methods by the names of PyTorch: each is an op, or what a tensor knows of itself."""

import copy
import json
import pickle

import numpy as np
import pytest

from minivit import Tensor, no_grad, ops
from minivit.errors import GraphError, MinivitError, ShapeError


@pytest.fixture
def x(rng):
    return Tensor(rng.standard_normal((2, 3, 4)), requires_grad=True)


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("abs", ()),
        ("clamp", (-1, 0.5)),
        ("clip", (-1, 0.5)),
        ("exp", ()),
        ("flatten", (1,)),
        ("log_softmax", (1,)),
        ("logsumexp", (-1,)),
        ("masked_fill", (np.array([True, False, False, True]), 0.5)),
        ("matmul", (np.ones((4, 5)),)),
        ("mean", (1, True)),
        ("min", (0,)),
        ("pow", (2,)),
        ("relu", ()),
        ("sigmoid", ()),
        ("softmax", ()),
        ("softmax", (1,)),
        ("squeeze", ()),
        ("swapaxes", (0, 2)),
        ("tanh", ()),
        ("unsqueeze", (1,)),
    ],
    ids=str,
)
def test_a_method_is_the_op_of_its_name(method, args, x):
    op = getattr(ops, {"clamp": "clip", "pow": "power"}.get(method, method))
    y = getattr(x, method)(*args)
    np.testing.assert_array_equal(y.data, op(x, *args).data)
    assert y.requires_grad


def test_operators(x):
    np.testing.assert_array_equal(abs(x).data, np.abs(x.data))
    np.testing.assert_array_equal((2**x).data, 2**x.data)
    (2**x).sum().backward()
    np.testing.assert_allclose(x.grad, 2**x.data * np.log(2), rtol=1e-14)


def test_argmax_and_argmin_are_arrays_of_integers(x):
    for y, expected in (
        (x.argmax(), x.data.argmax()),
        (x.argmax(-1), x.data.argmax(-1)),
        (x.argmin(dim=0), x.data.argmin(0)),
        (x.argmax(axis=1, keepdims=True), x.data.argmax(1, keepdims=True)),
    ):
        assert isinstance(y, (np.ndarray, np.integer))
        np.testing.assert_array_equal(y, expected)


def test_what_a_tensor_knows_of_itself(x):
    assert (x.dim(), x.numel(), x.device) == (3, 24, "cpu")
    assert Tensor([[1.5, 2.0]]).tolist() == [[1.5, 2.0]]
    assert x.is_leaf and x.grad_fn is None
    y = x * 2
    assert not y.is_leaf and y.grad_fn.op == "multiply" and repr(y.grad_fn) == "Node(multiply)"
    assert x.cpu() is x and x.to("cpu") is x and x.to(x.device) is x and x.contiguous() is x
    assert x.to(np.float32).dtype == x.to("float32").dtype == np.float32


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "mps"])
def test_there_is_one_device(device, x):
    with pytest.raises(MinivitError, match=f"Tensor.to: there is no {device!r} here(?s:.*)leave it out"):
        x.to(device)


def test_size_is_a_number_that_says_so_when_it_is_called(x):
    assert x.size == 24 and isinstance(x.size, int) and repr(x.size) == "24" and json.dumps([x.size]) == "[24]"
    assert type(x.size + 1) is int and np.zeros(x.size).shape == (24,)
    for call in (lambda: x.size(), lambda: x.size(0), lambda: x.size(-1)):
        with pytest.raises(MinivitError) as told:
            call()
        assert str(told.value).endswith("hint: PyTorch's x.size() is x.shape, its x.size(0) x.shape[0].")


def test_requires_grad_of_a_leaf_is_set():
    x = Tensor([1.0, 2.0])
    assert x.requires_grad_() is x
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad, [2, 4])
    y = x * 2
    assert y.requires_grad_() is y
    with pytest.raises(GraphError, match=r"was computed by multiply(?s:.*)hint: t\.detach\(\)"):
        y.requires_grad_(False)
    assert not (x.requires_grad_(False) * 2).requires_grad
    with pytest.raises(ShapeError, match=r"the data are int64(?s:.*)only float32 and float64"):
        Tensor(np.array([1, 2])).requires_grad_()


def test_an_item_is_not_assigned(x):
    before = x.data.copy()
    for tensor in (x, x * 2, Tensor(before)):
        with pytest.raises(GraphError, match=r"Tensor: x\[\.\.\.\] = value(?s:.*)ops\.where\(mask, value, x\)"):
            tensor[0] = 1.0
    np.testing.assert_array_equal(x.data, before)


def test_copies_and_pickles_of_a_tensor(x):
    for other in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        np.testing.assert_array_equal(other.data, x.data)
        assert other.requires_grad and other.grad is None
    with no_grad():
        assert not (x * 2).requires_grad
