"""The same numbers in another arrangement, beside NumPy. Their gradients: test_gradcheck.py."""

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
    with pytest.raises(ShapeError, match=r"axes \(1, 2\) for an array of shape \(4, 3, 5\)(?s:.*)x\.swapaxes\(1, 2\)"):
        x.transpose((1, 2))
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


# ---- by the names of PyTorch


def test_swapaxes(x):
    for y in (x.swapaxes(0, -1), ops.swapaxes(x, 0, 2), x.transpose(2, 0), x.transpose(-1, 0)):
        np.testing.assert_array_equal(y.data, x.data.swapaxes(0, 2))
    np.testing.assert_array_equal(x.mT.data, x.data.swapaxes(1, 2))
    with pytest.raises(ShapeError, match="swapaxes: axis2: axis 3 is out of bounds"):
        x.transpose(0, 3)


def test_two_axes_of_a_matrix_that_numpy_and_pytorch_read_otherwise(rng):
    matrix = Tensor(rng.standard_normal((2, 3)))
    for axes in ((0, 1), (-2, -1), (0, -1)):
        with pytest.raises(ShapeError, match=r"of a matrix \(2, 3\)(?s:.*)x\.T, or x\.swapaxes\("):
            matrix.transpose(*axes)
    for y in (matrix.transpose(1, 0), matrix.transpose(-1, -2), matrix.t(), matrix.swapaxes(0, 1), matrix.mT):
        np.testing.assert_array_equal(y.data, matrix.data.T)
    np.testing.assert_array_equal(matrix.transpose((0, 1)).data, matrix.data)  # a tuple is NumPy's
    np.testing.assert_array_equal(matrix.permute(0, 1).data, matrix.data)


def test_view_and_permute_are_reshape_and_transpose(x):
    np.testing.assert_array_equal(x.view(5, -1).data, x.data.reshape(5, 12))
    y = x.transpose(1, 2).contiguous().view((4, -1))
    np.testing.assert_array_equal(y.data, x.data.swapaxes(1, 2).reshape(4, -1))
    for y in (x.permute(2, 0, 1), x.permute((2, 0, -2))):
        np.testing.assert_array_equal(y.data, x.data.transpose(2, 0, 1))


def test_flatten(x):
    shapes = {(): (60,), (1,): (4, 15), (0, 1): (12, 5), (-2, -1): (4, 15), (1, 1): (4, 3, 5)}
    for dims, shape in shapes.items():
        for y in (x.flatten(*dims), ops.flatten(x, *dims)):
            np.testing.assert_array_equal(y.data, x.data.reshape(shape))
    assert Tensor(1.0).flatten().shape == (1,) and Tensor(np.zeros((0, 3, 2))).flatten(1).shape == (0, 6)
    with pytest.raises(ShapeError, match=r"flatten: there is no axis 3 in \(4, 3, 5\)"):
        x.flatten(3)
    with pytest.raises(ShapeError, match="flatten: cannot reshape"):
        x.flatten(2, 0)


def test_squeeze_and_unsqueeze(rng):
    x = rng.standard_normal((1, 3, 1, 2))
    assert Tensor(x).squeeze().shape == (3, 2)
    for axis in (0, -2, (0, 2)):
        np.testing.assert_array_equal(Tensor(x).squeeze(axis).data, np.squeeze(x, axis))
    for axis in (0, 4, -1, 2):
        np.testing.assert_array_equal(Tensor(x).unsqueeze(axis).data, np.expand_dims(x, axis))
    with pytest.raises(ShapeError, match="squeeze: cannot select an axis"):
        Tensor(x).squeeze(1)
    with pytest.raises(ShapeError, match="unsqueeze: axis 5 is out of bounds"):
        Tensor(x).unsqueeze(5)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_stack(axis, rng):
    parts = [rng.standard_normal((2, 3)) for _ in range(3)]
    tensors = [Tensor(parts[0], requires_grad=True), parts[1], Tensor(parts[2], requires_grad=True)]
    y = ops.stack(tensors, axis)
    np.testing.assert_array_equal(y.data, np.stack(parts, axis))
    dy = rng.standard_normal(y.shape)
    y.backward(dy)
    np.testing.assert_array_equal(tensors[2].grad, dy.take(2, axis))
    with pytest.raises(ShapeError, match=r"shapes \(1, 2, 3\), \(1, 3\)"):
        ops.stack([Tensor(parts[0]), Tensor(parts[0][0])])


def test_split_and_chunk(x):
    pieces = x.split([1, 0, 4], -1)
    for piece, expected in zip(pieces, np.split(x.data, [1, 1], -1), strict=True):
        np.testing.assert_array_equal(piece.data, expected)
    for pieces in (x.chunk(2), ops.chunk(x, 2, 0), ops.split(x.data, (2, 2))):
        assert isinstance(pieces, tuple)
        for piece, expected in zip(pieces, np.split(x.data, 2), strict=True):
            np.testing.assert_array_equal(piece.data, expected)
    first, last = x.chunk(2, dim=0)
    (first * 2 + last).sum().backward()
    np.testing.assert_array_equal(x.grad[:2], np.full((2, 3, 5), 2))
    np.testing.assert_array_equal(x.grad[2:], np.ones((2, 3, 5)))


def test_what_cannot_be_split(x):
    with pytest.raises(ShapeError, match=r"split: into 2 pieces, or into pieces of 2\?(?s:.*)chunk\(x, 2, axis\)"):
        x.split(2)
    for sizes in ([1, 2], [5, -1], []):
        with pytest.raises(ShapeError, match=r"split: sizes .* for an axis of 4"):
            x.split(sizes)
    for chunks in (3, 0):
        with pytest.raises(ShapeError, match=f"chunk: an axis of 4 cannot be cut into {chunks} equal pieces"):
            x.chunk(chunks)
    for cut in (lambda: x.chunk(2, 3), lambda: x.split([1], -4)):
        with pytest.raises(ShapeError, match=r"there is no axis (3|-4) in \(4, 3, 5\)"):
            cut()


def test_clone_and_astype_copy_and_let_the_gradient_through(x):
    y = x.clone()
    y.data[...] = 0
    assert x.data.any()
    for y, dtype in ((x.float(), np.float32), (x.double(), np.float64), (x.astype("float32"), np.float32)):
        assert y.dtype == dtype and not np.shares_memory(y.data, x.data)
        x.grad = None
        (y * 3).sum().backward()
        assert x.grad.dtype == np.float64
        np.testing.assert_array_equal(x.grad, np.full(x.shape, 3))
    assert x.float()._node.backward(np.ones(x.shape, np.float32)).dtype == np.float64
    for dtype in (int, np.float16, bool):
        with pytest.raises(ShapeError, match=r"astype: a gradient cannot come back through (?s:.*)t\.data\.astype"):
            x.astype(dtype)
