"""What PyTorch and NumPy call otherwise is understood, or told how it is written here."""

import inspect
import re

import numpy as np
import pytest

from minivit import Tensor, nn, ops
from minivit.errors import MinivitError, UnknownNameError
from minivit.machinery.vocabulary import FUNCTIONS, LAYERS, METHODS, MODULES

WITH_AXIS = {name: op for name in ops.__all__ if "axis" in inspect.signature(op := getattr(ops, name)).parameters}
ARGUMENTS = {"concatenate": [[np.ones((2, 3))] * 2], "stack": [[np.ones((2, 3))] * 2], "unsqueeze": [np.ones((2, 3))]}
ARGUMENTS |= {"split": [np.ones((2, 4)), [1, 3]], "chunk": [np.ones((2, 4)), 2], "squeeze": [np.ones((2, 1))]}


@pytest.mark.parametrize("name", WITH_AXIS)
def test_every_op_with_an_axis_takes_dim(name):
    op, options = WITH_AXIS[name], {"correction": 0} if name in ("var", "std") else {}
    args = ARGUMENTS.get(name, [np.arange(6.0).reshape(2, 3)])
    expected = op(*args, axis=1, **options)
    if name in ("max", "min"):
        with pytest.raises(MinivitError, match=rf"{name}\(dim=\.\.\.\) gives two tensors(?s:.*)x\.arg{name}\(axis\)"):
            op(*args, dim=1)
        return
    for one, other in zip(op(*args, dim=1, **options), expected, strict=True):
        np.testing.assert_array_equal(one.data, other.data)
    with pytest.raises(MinivitError, match=f"{name}: dim= is axis=, and both came"):
        op(*args, dim=1, axis=1, **options)


def test_keepdim_is_keepdims():
    x = Tensor(np.arange(6.0).reshape(2, 3))
    for name, options in (("sum", {}), ("mean", {}), ("std", {"unbiased": False}), ("logsumexp", {})):
        assert getattr(x, name)(dim=1, keepdim=True, **options).shape == (2, 1)
    assert x.max(1, keepdim=True).shape == (2, 1)
    with pytest.raises(MinivitError, match="sum: keepdim= is keepdims=, and both came"):
        x.sum(keepdim=True, keepdims=True)


def test_dim_records_as_axis_does():
    x = Tensor(np.array([[1.0, 2.0], [3.0, 5.0]]), requires_grad=True)
    (x.sum(dim=0) * [1, 2]).sum().backward()
    np.testing.assert_array_equal(x.grad, [[1, 2], [1, 2]])


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("cat", "ops.concatenate(tensors, axis)"),
        ("bmm", "ops.matmul(x, y), or x @ y"),
        ("clamp", "ops.clip(x, min, max)"),
        ("sin", "np.sin, which gives an array and is not recorded"),
        ("mse_loss", "((x - y) ** 2).mean()"),
    ],
)
def test_an_op_of_another_name(name, way):
    with pytest.raises(UnknownNameError) as told:
        getattr(ops, name)
    assert str(told.value) == f"ops.{name}: there is no such name.\n  hint: {way}."


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("cuda", "leave it out: all numbers lie in the memory of the CPU, which computes with them"),
        ("add", "x + y"),
        ("norm", "(x * x).sum().sqrt()"),
        ("median", "np.median(x.data), which is not recorded"),
        ("zero_", "none changes x: x = ... is a new one, x.data[...] = numbers not recorded"),
    ],
)
def test_a_method_of_another_name(name, way):
    x = Tensor([1.0])
    with pytest.raises(UnknownNameError) as told:
        getattr(x, name)
    assert str(told.value) == f"Tensor.{name}: there is no such name.\n  hint: {way}."
    assert not hasattr(x, name) and name not in dir(x)
    assert getattr(Tensor, name).__doc__ == f"Not here: {way}."


def test_modules_and_layers_of_another_name():
    layer = nn.Linear(2, 3)
    with pytest.raises(UnknownNameError, match=r"^Linear\.cuda: there is no such name\.\n  hint: leave it out"):
        layer.cuda()
    with pytest.raises(UnknownNameError, match=r"^nn\.functional: (?s:.*)import minivit\.ops as F\.$"):
        nn.functional.relu(np.ones(3))
    with pytest.raises(UnknownNameError, match=r"^nn\.MSELoss: (?s:.*)\(\(x - y\) \*\* 2\)\.mean\(\)"):
        nn.MSELoss()


@pytest.mark.parametrize(
    ("owner", "name"), [(Tensor([1.0]), "summ"), (ops, "sofmax"), (nn, "Lineer"), (nn.GELU(), "evla")]
)
def test_a_name_that_nobody_has_is_pythons_own_error(owner, name):
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'$") as told:
        getattr(owner, name)
    assert not isinstance(told.value, MinivitError)
    assert told.value.name == name and told.value.obj is owner  # by which Python finds "Did you mean: 'sum'?"
    assert not hasattr(owner, "_repr_html_")  # what notebooks ask for


def test_no_entry_is_in_the_way_of_a_name_that_is_there():
    assert [name for name in FUNCTIONS if name in ops.__all__] == []
    assert [name for name in METHODS if not getattr(Tensor, name).__doc__.startswith("Not here: ")] == []
    assert [name for name in MODULES if hasattr(nn.Module, name)] == []
    assert [name for name in LAYERS if hasattr(nn, name)] == []


@pytest.mark.parametrize("way", [way for table in (FUNCTIONS, METHODS, MODULES, LAYERS) for way in table.values()])
def test_what_an_entry_names_is_there(way):
    here = {"ops": ops, "nn": nn, "x": Tensor(np.ones(1)), "model": nn.Linear(1, 1), "np": np}
    for owner, name in re.findall(r"\b(ops|nn|x|model|np)\.(\w+)(?! =)\b", way):
        assert hasattr(here[owner], name)
