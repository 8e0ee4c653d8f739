"""What PyTorch and NumPy call otherwise is understood, or told how it is written here."""

import inspect
import re

import numpy as np
import pytest

import minivit
from minivit import Tensor, nn, ops, optim, vit
from minivit.errors import MinivitError, UnknownNameError
from minivit.machinery.vocabulary import (
    CALLS,
    FUNCTIONS,
    GROUPS,
    LAYERS,
    METHODS,
    MODELS,
    MODULES,
    OPTIMISERS,
    OPTIONS,
)

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


TABLES = (FUNCTIONS, METHODS, MODULES, LAYERS, OPTIMISERS, GROUPS, MODELS, OPTIONS, CALLS)


@pytest.mark.parametrize("way", [way for table in TABLES for way in table.values()])
def test_what_an_entry_names_is_there(way):
    here = {"ops": ops, "nn": nn, "x": Tensor(np.ones(1)), "model": nn.Linear(1, 1), "np": np, "vit": vit}
    here |= {"optim": optim, "optimizer": optim.SGD(here["model"].parameters(), 0.1), "images": minivit.images}
    for owner, name in re.findall(rf"\b({'|'.join(here)})\.(\w+)(?! =)\b", way):
        assert hasattr(here[owner], name)


def test_names_of_the_package_of_optimisers_and_of_models_of_another_name():
    optimizer = optim.SGD(nn.Linear(2, 3).parameters(), 0.1)
    for call, where, way in (
        (lambda: minivit.exp, "minivit.exp", "ops.exp(x)"),
        (lambda: minivit.softmax, "minivit.softmax", "ops.softmax(x, axis=-1)"),
        (lambda: minivit.cat, "minivit.cat", "ops.concatenate(tensors, axis)"),
        (lambda: minivit.tensor, "minivit.tensor", "minivit.Tensor(data)"),
        (lambda: optim.Adam, "optim.Adam", "optim.AdamW(parameters, lr, weight_decay=0) is Adam"),
        (lambda: optimizer.param_groups, "SGD.param_groups", "optimizer.lr = 1e-4, optimizer.parameters: "),
        (lambda: vit.ViTPatchEmbeddings, "vit.ViTPatchEmbeddings", "vit.PatchEmbeddings(image_size, "),
        (lambda: nn.utils.clip_grad_norm_, "nn.utils", "optim.clip_grad_norm(parameters, max_norm)"),
        (lambda: nn.BatchNorm2d, "nn.BatchNorm2d", "nn.LayerNorm(size), which normalises each token by itself"),
        (lambda: nn.NLLLoss, "nn.NLLLoss", "nn.CrossEntropyLoss(), of the scores themselves"),
        (lambda: Tensor([1.0]).eq(1), "Tensor.eq", "x == y, an array of True and False"),
    ):
        with pytest.raises(UnknownNameError) as told:
            call()
        assert str(told.value).startswith(f"{where}: there is no such name.\n  hint: {way}")
    for owner, name in ((minivit, "zzzz"), (optim, "zzzz"), (optimizer, "zzzz"), (vit, "zzzz")):
        with pytest.raises(AttributeError, match="has no attribute 'zzzz'") as told:
            getattr(owner, name)
        assert not isinstance(told.value, MinivitError)


def test_adamw_without_decay_is_adam_as_its_entry_says():
    """Kingma and Ba 2015, algorithm 1: two steps by hand."""
    weight, m, v = np.array([[1.0, -2.0]]), 0.0, 0.0
    parameter = nn.Parameter(weight.copy())
    optimizer = optim.AdamW([parameter], lr=0.1, weight_decay=0)
    for t, gradient in enumerate(np.array([[[0.5, -1.0]], [[2.0, 0.25]]]), 1):
        parameter.grad = gradient
        optimizer.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        weight = weight - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(parameter.data, weight, rtol=1e-12)


def test_the_places_of_the_largest_as_the_entry_of_topk_says():
    here = {"np": np, "x": Tensor(np.array([[3.0, 9.0, 4.0], [1.0, 0.0, 2.0]])), "n": 2}
    assert eval(METHODS["topk"].partition(" are ")[0], here).tolist() == [[1, 2], [2, 0]]


@pytest.mark.parametrize("name", ["flip", "index_select"])
def test_an_entry_for_an_axis_says_which(name):
    x, index = np.arange(24).reshape(2, 3, 4), np.array([1, 0])
    ways = re.findall(r"x\[.*?\](?= along)", FUNCTIONS[name])
    for axis, way in zip((0, 1, -1), ways, strict=True):
        expected = np.flip(x, axis) if name == "flip" else np.take(x, index, axis)
        np.testing.assert_array_equal(eval(way), expected)


@pytest.mark.parametrize(
    ("call", "where", "way"),
    [
        (lambda x, _: x.sum().backward(retain_graph=True), "Tensor.backward: there is no retain_", "leave it out"),
        (lambda x, _: x.backward(gradient=np.ones(6)), "Tensor.backward: there is no gradient=", "t.backward(grad)"),
        (lambda x, _: x.to(device="cpu"), "to: there is no device=", "leave it out"),
        (lambda _, model: model.to(device="cpu"), "Module.to: there is no device=", "leave it out"),
        (lambda _, model: model.zero_grad(set_to_none=True), "Module.zero_grad: there is no set_to", "leave it out"),
        (
            lambda _, model: optim.AdamW(model.parameters()).zero_grad(set_to_none=True),
            "Optimizer.zero_grad: there is no set_to_none=",
            "leave it out",
        ),
        (lambda *_: nn.ReLU(inplace=True), "ReLU: there is no inplace=", "leave it out"),
        (lambda *_: nn.Dropout(0.1, inplace=True), "Dropout: there is no inplace=", "leave it out"),
        (lambda *_: nn.Conv2d(3, 4, 3, padding=1), "Conv2d: there is no padding=", "np.pad(pixel_values, "),
        (lambda *_: nn.Linear(3, 4, device="cuda"), "Linear: there is no device=", "leave it out"),
        (lambda *_: nn.CrossEntropyLoss(reduction="sum"), "CrossEntropyLoss: there is no reduction=", "leave it out"),
        (lambda x, _: ops.cross_entropy(x, [0, 1], reduction="sum"), "cross_entropy: there is no reduc", "leave it"),
        (lambda x, _: ops.relu(x, inplace=True), "relu: there is no inplace=", "leave it out"),
        (lambda x, _: ops.transpose(x, 0, 1), "transpose: ", "ops.swapaxes(x, 1, 2)"),
        (lambda x, _: ops.reshape(x, 3, 2), "reshape: ", "ops.reshape(x, shape), the shape one tuple"),
        (lambda x, _: ops.expand(x, 2, 3), "expand: ", "ops.expand(x, shape), the shape one tuple"),
        (lambda x, _: ops.dropout(x, 0.1), "dropout: ", "ops.dropout(x, p, rng), rng a Generator or a seed"),
        (lambda x, _: ops.dropout(x, p=0.1, training=True), "dropout: ", "ops.dropout(x, p, rng)"),
    ],
)
def test_a_call_of_pytorch_is_told_the_way(call, where, way):
    x = Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    with pytest.raises(MinivitError) as told:
        call(x, nn.Linear(3, 3))
    first, *_, hint = str(told.value).split("\n")
    assert first.startswith(where) and hint.startswith(f"  hint: {way}")


def test_arguments_that_nobody_has_are_pythons_own_error():
    for call in (lambda: nn.ReLU(3), lambda: nn.ReLU(x=3), lambda: nn.Linear(3, 4, nothing=1), lambda: ops.exp(1, 2)):
        with pytest.raises(TypeError):
            call()

    class Mine(nn.Module):
        def __init__(self, size, padding=0, **others):
            self.size, self.padding, self.others = size, padding, others

    mine = Mine(3, padding=1, device="tpu")  # a class of one's own may have them
    assert (mine.size, mine.padding, mine.others) == (3, 1, {"device": "tpu"})


def test_the_sum_over_the_batch_as_the_entry_of_reduction_says():
    logits, labels = np.array([[1.0, 2.0], [0.5, -1.0], [3.0, 3.0]]), [0, 1, 1]
    by_hand = sum(np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, labels, strict=True))
    loss = ops.cross_entropy(logits, labels)
    np.testing.assert_allclose((loss * len(labels)).item(), by_hand, rtol=1e-14)
