"""NumPy's functions of a tensor: refused where a gradient would be lost in them, and silent elsewhere."""

import numpy as np
import pytest

from minivit import Tensor, no_grad
from minivit.errors import GraphError


@pytest.fixture
def t():
    return Tensor(np.arange(1.0, 7.0).reshape(2, 3), requires_grad=True)


LOSING = {
    "np.exp": (lambda t: np.exp(t), "ops.exp(x)"),
    "np.sqrt": (lambda t: np.sqrt(t), "ops.sqrt(x)"),
    "np.sin": (lambda t: np.sin(t), "no op for it, and @differentiable makes one"),
    "np.absolute": (lambda t: np.abs(t), "ops.abs(x)"),
    "np.maximum": (lambda t: np.maximum(0, t), "ops.maximum(x, y)"),
    "np.square": (lambda t: np.square(t), "x * x"),
    "np.remainder": (lambda t: np.ones(3) % t, "no op for it"),
    "np.divmod": (lambda t: np.divmod(t, 2), "no op for it"),
    "np.add.reduce": (lambda t: np.add.reduce(t), "ops.sum(x, axis)"),
    "np.multiply.outer": (lambda t: np.multiply.outer(t, t), "no op for it"),
    "np.mean": (lambda t: np.mean(t), "ops.mean(x, axis=None, keepdims=False)"),
    "np.var": (lambda t: np.var(t), "ops.var(x, axis=None, *, correction=None"),
    "np.std": (lambda t: np.std(t, axis=0), "ops.std("),
    "np.median": (lambda t: np.median(t), "no op for it"),
    "np.amax": (lambda t: np.amax(t), "ops.max(x, axis)"),
    "np.cumsum": (lambda t: np.cumsum(t), "ops.matmul(x, np.triu("),
    "np.linalg.norm": (lambda t: np.linalg.norm(t), "(x * x).sum().sqrt()"),
    "np.linalg.svd": (lambda t: np.linalg.svd(t), "no op for it"),
    "np.concatenate": (lambda t: np.concatenate([np.asarray(t), t]), "ops.concatenate(tensors, axis=0)"),
    "np.stack": (lambda t: np.stack([t, t]), "ops.stack(tensors, axis=0)"),
    "np.column_stack": (lambda t: np.column_stack([t, t]), "ops.stack(tensors, axis=1)"),
    "np.split": (lambda t: np.split(t, 2), "ops.split(x, sizes, axis=0)"),
    "np.where": (lambda t: np.where(np.asarray(t) > 2, t, 0), "ops.where(condition, x, y)"),
    "np.einsum": (lambda t: np.einsum("ij->j", t * 2), "ops.einsum(equation, *operands)"),
    "np.tensordot": (lambda t: np.tensordot(t, t), "ops.einsum(equation, x, y)"),
    "np.dot": (lambda t: np.dot(np.ones(2), t), "ops.matmul(x, y), or x @ y"),
    "np.reshape": (lambda t: np.reshape(t, -1), "ops.reshape(x, shape)"),
    "np.sort": (lambda t: np.sort(t), "no op for it"),
    "np.gradient": (lambda t: np.gradient(t, axis=1), "no op for it"),
    "np.apply_along_axis": (lambda t: np.apply_along_axis(np.sum, 0, t), "no op for it"),
}


@pytest.mark.parametrize(("name", "call", "way"), [(name, *pair) for name, pair in LOSING.items()], ids=LOSING)
def test_a_function_in_which_a_gradient_would_be_lost_is_refused(name, call, way, t):
    with pytest.raises(GraphError) as told:
        call(t)
    lines = str(told.value).splitlines()
    assert lines[0] == f"{name}: gives numbers, through which no gradient comes back to the tensor."
    assert way in lines[2] and lines[2].endswith("Where no gradient is wanted, take the tensor's .data.")


@pytest.mark.parametrize("call", [call for call, _ in LOSING.values()], ids=LOSING)
def test_the_same_functions_take_the_numbers_where_nothing_is_lost(call, t):
    expected = call(t.data)
    with no_grad():
        results = [call(t)]
    for result in (*results, call(Tensor(t.data))):
        for one, other in zip(_parts(result), _parts(expected), strict=True):
            assert isinstance(one, (np.ndarray, np.generic))
            np.testing.assert_array_equal(one, other)


def _parts(result):
    return result if isinstance(result, (tuple, list)) else [result]


SILENT = {
    "argmax": lambda t: np.argmax(t),
    "argsort": lambda t: np.argsort(t, axis=1),
    "isfinite": lambda t: np.isfinite(t),
    "allclose": lambda t: np.allclose(t, np.asarray(t)),
    "array_equal": lambda t: np.array_equal(t, np.asarray(t)),
    "isclose": lambda t: np.isclose(t, 2),
    "greater": lambda t: np.full(3, 2.0) < t,
    "equal": lambda t: np.full(3, 2.0) == t,
    "count_nonzero": lambda t: np.count_nonzero(t),
    "nonzero": lambda t: np.nonzero(t),
    "searchsorted": lambda t: np.searchsorted(np.asarray(t)[0], t),
    "shape": lambda t: np.shape(t),
    "ndim": lambda t: np.ndim(t),
    "result_type": lambda t: np.result_type(t, np.float32),
    "array_str": lambda t: np.array_str(t),
    "round": lambda t: np.round(t / 3, 2),
    "sign": lambda t: np.sign(t),
    "floor_divide": lambda t: np.full(3, 7.0) // t,
    "zeros_like": lambda t: np.zeros_like(t),
    "histogram": lambda t: np.histogram(t, 3)[0],
    "copy": lambda t: np.copy(t),
    "asarray": lambda t: np.asarray(t),
    "array": lambda t: np.array(t, dtype=np.float32),
}


@pytest.mark.parametrize("call", SILENT.values(), ids=SILENT)
def test_what_has_no_gradient_to_lose_takes_the_numbers(call, t):
    result = call(t)
    assert not isinstance(result, Tensor)
    np.testing.assert_array_equal(result, call(t.data))


def test_checking_printing_and_saving_take_the_numbers(t, tmp_path):
    np.testing.assert_allclose(t, t.data)
    np.testing.assert_array_equal(t.data, t)
    np.testing.assert_array_almost_equal(t, t.data)
    np.testing.assert_array_less(t, t.data + 1)
    np.save(tmp_path / "t.npy", t)
    np.savez(tmp_path / "t.npz", t=t)
    np.savetxt(tmp_path / "t.txt", t)
    np.testing.assert_array_equal(np.load(tmp_path / "t.npy"), t.data)
    np.testing.assert_array_equal(np.load(tmp_path / "t.npz")["t"], t.data)
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "t.txt"), t.data)
    target = np.zeros((2, 3))
    np.copyto(target, t)
    np.testing.assert_array_equal(target, t.data)


def test_after_backward_nothing_is_left_to_lose(t):
    loss = (t * t).sum()
    with pytest.raises(GraphError):
        np.exp(loss)
    loss.backward()
    assert np.exp(loss) == np.exp(91.0)
    with pytest.raises(GraphError):
        np.exp(t)  # a leaf is there for the next step


def test_an_array_on_the_left_of_an_operator_is_no_function_of_numpy(t):
    for y, expected in ((np.ones(3) + t, 1), (np.ones((3, 2)) @ t, 3), (np.add(2.0, t), 1), (np.float64(2) * t, 2)):
        assert isinstance(y, Tensor)
        t.grad = None
        y.sum().backward()
        np.testing.assert_array_equal(t.grad, np.full((2, 3), expected))


def test_a_tensor_is_not_added_into_an_array(t):
    total = np.zeros((2, 3))
    with pytest.raises(GraphError, match=r"^np\.add: gives numbers"):
        total += t
    total = np.zeros((2, 3))
    total += Tensor(t.data)
    assert type(total) is np.ndarray
    np.testing.assert_array_equal(total, t.data)


def test_an_error_of_numpy_stays_its_own(t):
    with pytest.raises(ValueError, match="all input arrays must have the same shape"):
        np.stack([t, t.data[0]])
