"""Reshape, transpose, indexing, concatenate and expand beside NumPy. Their gradients: test_gradcheck.py."""

import numpy as np
import pytest

from minivit import Tensor, ops
from minivit.errors import ShapeError


@pytest.fixture
def x(rng):
    return Tensor(rng.standard_normal((4, 3, 5)), requires_grad=True)


def test_sizes_and_axes_one_by_one_or_as_a_tuple(x):
    for y in (x.reshape(5, -1), x.reshape((5, -1)), x.reshape([5, -1]), ops.reshape(x, (5, -1))):
        np.testing.assert_array_equal(y.data, x.data.reshape(5, 12))
    assert x.reshape(-1).shape == (60,)
    for y in (x.transpose(2, 0, -2), x.transpose((2, 0, 1)), ops.transpose(x, [2, 0, 1])):
        np.testing.assert_array_equal(y.data, x.data.transpose(2, 0, 1))
    for y in (x.T, x.transpose(), ops.transpose(x)):
        np.testing.assert_array_equal(y.data, x.data.T)
    column = Tensor(np.array([[1.0], [2.0]]))
    for y in (column.expand(3, -1, 4), column.expand((3, 2, 4)), ops.expand(column, (3, -1, 4))):
        np.testing.assert_array_equal(y.data, np.broadcast_to(column.data, (3, 2, 4)))


def test_wrong_sizes_and_axes(x):
    with pytest.raises(ShapeError, match=r"reshape: cannot reshape array of size 60(?s:.*)shapes \(4, 3, 5\)"):
        x.reshape(7, -1)
    with pytest.raises(ShapeError, match=r"axes \(1, 2\) for an array of shape \(4, 3, 5\)(?s:.*)write x\.transpose"):
        x.transpose(1, 2)
    with pytest.raises(ShapeError, match="transpose: repeated axis"):
        x.transpose(0, 1, 1)
    with pytest.raises(ShapeError, match="transpose: axis 3 is out of bounds"):
        x.transpose(0, 1, 3)
    for shape in ((2, 3, 5), (3, 5), (-1, 4, 3, 5)):
        with pytest.raises(ShapeError, match=r"expand: "):
            x.expand(shape)


INDICES = [
    2,
    -1,
    np.int64(1),
    slice(1, None, 2),
    slice(None, None, -1),
    None,
    ...,
    (0, slice(None), -2),
    (..., 0),
    (slice(None), None, slice(2, 0, -1), ..., None),
    [1, 1, -1],
    (slice(None), [0, 2], [1, 1]),
    np.array([[0, 3], [3, 3]]),
    (np.array([0, 1]), np.array([2, 2])),
    np.zeros((0,), int),
    np.array([True, False, True, True]),
    np.arange(60).reshape(4, 3, 5) % 7 == 0,
    (slice(None), np.array([False, True, True]), 0),
    ((0, 0), 1),
    np.array(2),
]


@pytest.mark.parametrize("index", INDICES, ids=lambda index: " ".join(repr(index).split()))
def test_indexing_and_its_gradient(x, index, rng):
    y = x[index]
    np.testing.assert_array_equal(y.data, x.data[index])
    dy = rng.standard_normal(y.shape)
    y.backward(dy)
    expected = np.zeros(x.shape)
    np.add.at(expected, index, dy)  # what is taken several times gets the sum
    np.testing.assert_array_equal(x.grad, expected)


@pytest.mark.parametrize(
    "index",
    [Tensor([0, 3, 3]), (Tensor([0, 1]), np.array([2, 2])), (slice(None), Tensor(np.array([True, False, True])), 0)],
    ids=["integers", "tensor and array", "mask"],
)
def test_indexing_by_tensors(x, index):
    parts = index if isinstance(index, tuple) else (index,)
    as_arrays = tuple(part.data if isinstance(part, Tensor) else part for part in parts)
    y = x[index]
    np.testing.assert_array_equal(y.data, x.data[as_arrays])
    y.sum().backward()
    expected = np.zeros(x.shape)
    np.add.at(expected, as_arrays, 1)
    np.testing.assert_array_equal(x.grad, expected)


def test_an_index_that_is_changed_after_the_forward_pass():
    x, index = Tensor(np.zeros(4), requires_grad=True), np.array([0, 1])
    for chosen in (index, (index,)):
        y = x[chosen].sum()
        index += 2
        y.backward()
    np.testing.assert_array_equal(x.grad, [1, 1, 1, 1])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (4, r"getitem: index 4 is out of bounds for axis 0 with size 4(?s:.*)shapes \(4, 3, 5\)"),
        ((0, 0, 0, 0), "getitem: too many indices"),
        (1.5, "getitem: only integers"),
        ("cls", "getitem: only integers"),
        (np.array([True]), "getitem: boolean index did not match"),
    ],
)
def test_wrong_indices(x, index, message):
    with pytest.raises(ShapeError, match=message):
        x[index]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concatenate(axis, rng):
    shapes = [[2, 3, 4], [2, 3, 4], [2, 3, 4]]
    for size, shape in zip((1, 5, 0), shapes, strict=True):
        shape[axis] = size
    parts = [rng.standard_normal(shape) for shape in shapes]
    tensors = [Tensor(parts[0], requires_grad=True), parts[1], Tensor(parts[2], requires_grad=True)]
    y = ops.concatenate(tensors, axis)
    np.testing.assert_array_equal(y.data, np.concatenate(parts, axis))
    dy = rng.standard_normal(y.shape)
    y.backward(dy)
    np.testing.assert_array_equal(tensors[0].grad, dy.take([0], axis))
    assert tensors[2].grad.shape == parts[2].shape
    assert not ops.concatenate(tuple(parts), axis).requires_grad  # arrays alone do as well


@pytest.mark.parametrize(
    ("shapes", "axis", "message"),
    [
        ([(2, 3), (2, 4)], 0, r"must match exactly(?s:.*)shapes \(2, 3\), \(2, 4\)"),
        ([(2, 3), (2,)], 0, "same number of dimensions"),
        ([(2, 3)], 2, "concatenate: "),
        ([], 0, "need at least one array"),
    ],
)
def test_what_cannot_be_concatenated(shapes, axis, message):
    with pytest.raises(ShapeError, match=message):
        ops.concatenate([Tensor(np.ones(shape)) for shape in shapes], axis)
