"""Modules: names, state and modes; the layers compute what their formula says and start as they promise."""

import copy
import math
import pickle
import tracemalloc

import numpy as np
import pytest

from minivit import Tensor, gradcheck, nn, ops
from minivit.errors import MinivitError, ShapeError
from minivit.optim import AdamW, ExponentialMovingAverage
from minivit.vit import ViTConfig, ViTForImageClassification


def draw(*shape, seed=7, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


class Block(nn.Module):
    """Parameters and modules in a mixed order, one of each twice."""

    def __init__(self):
        self.second = nn.Linear(3, 5, rng=1)
        self.scale = nn.constant((5,), 2)
        self.first = nn.Sequential(nn.Linear(5, 4, bias=False, rng=2), nn.GELU(), nn.LayerNorm(4))
        self.again = self.scale
        self.same = self.second
        self.number, self.array, self.nothing = 3, np.ones(2), None

    def forward(self, x):
        return self.first(self.second(x) * self.scale)


NAMES = ["scale", "second.weight", "second.bias", "first.0.weight", "first.2.weight", "first.2.bias"]


# ---- finding parameters


def test_parameters_are_found_once_in_order_of_definition():
    block = Block()
    assert [name for name, _ in block.named_parameters()] == NAMES
    assert [name for name, _ in block.named_parameters("block.")] == [f"block.{name}" for name in NAMES]
    assert all(a is b for a, (_, b) in zip(block.parameters(), block.named_parameters(), strict=True))
    assert block.again is block.scale
    assert block.num_parameters() == 5 + 15 + 5 + 20 + 4 + 4


def test_modules_and_children():
    block = Block()
    assert [name for name, _ in block.named_children()] == ["second", "first", "same"]
    assert block.modules()[0] is block
    assert [type(m).__name__ for m in block.first.modules()] == ["Sequential", "Linear", "GELU", "LayerNorm"]


def test_named_modules_have_dotted_names_and_come_once():
    inner = nn.GELU()
    tree = nn.Sequential(nn.Linear(2, 3), nn.Sequential(inner, nn.ModuleList([nn.Dropout()])), inner)
    named = tree.named_modules()
    assert [name for name, _ in named] == ["", "0", "1", "1.0", "1.1", "1.1.0"]
    assert named[0][1] is tree and named[3][1] is inner and dict(named)["1.1.0"] is tree[1][1][0]
    assert tree.named_modules("model")[3][0] == "model.1.0"


def test_requires_grad_freezes_and_frees_every_parameter():
    block = Block()
    assert block.requires_grad_(False) is block
    assert not any(parameter.requires_grad for parameter in block.parameters())
    assert not block(draw(2, 3)).requires_grad
    block.requires_grad_()
    block(draw(2, 3)).sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())


@pytest.mark.parametrize(
    ("value", "came"),
    [
        ([nn.Linear(2, 2) for _ in range(2)], "a list of Linear"),
        ((3, nn.GELU()), "a tuple of GELU"),
        ({"a": None, "b": nn.Parameter(np.ones(2))}, "a dict of Parameter"),
        ([Tensor(np.ones(2), requires_grad=True)], "a list of Tensor"),
        (Tensor(np.ones(2), requires_grad=True), "a Tensor that requires a gradient"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_not_be_found_is_refused(value, came):
    block = Block()
    with pytest.raises(MinivitError) as told:
        block.blocks = value
    assert str(told.value) == (
        f"Block: blocks is {came} and would be lost: neither learned nor saved.\n"
        "  rule: found are the attributes that are themselves a Module or an nn.Parameter.\n"
        "  hint: self.blocks = nn.ModuleList(modules), or nn.Parameter(array) of an array."
    )
    assert "blocks" not in vars(block) and [name for name, _ in block.named_parameters()] == NAMES


def test_what_is_found_already_or_not_to_be_learned_may_be_in_a_list():
    block = Block()
    x = Tensor(np.ones(5, np.float32), requires_grad=True)
    block.path = [block.second, block.first[0], block.scale]
    block.sizes, block.inputs = (3, 4), {"x": np.ones(2), "y": Tensor(np.ones(2))}
    block.kept = [x * block.scale]  # made by ops: what a forward() keeps to be looked at
    block.last = block.kept[0]
    assert [name for name, _ in block.named_parameters()] == NAMES
    block.layers = nn.ModuleList([nn.Linear(2, 2)])
    assert [name for name, _ in block.named_parameters()] == [*NAMES, "layers.0.weight", "layers.0.bias"]


def test_replacing_and_removing():
    block = Block()
    block.second = block.same = nn.Linear(3, 5, bias=False)
    del block.first
    assert [name for name, _ in block.named_parameters()] == ["scale", "second.weight"]


def test_a_shared_parameter_gets_both_gradients():
    layer = nn.Linear(3, 3, bias=False)
    twice = nn.Sequential(layer, layer)
    assert [name for name, _ in twice.named_parameters()] == ["0.weight"]
    gradcheck(lambda x, _: twice(x), draw(2, 3), layer.weight)


def test_parameter():
    parameter = nn.Parameter(draw(3))
    assert parameter.requires_grad and parameter.grad is None
    assert isinstance(parameter, Tensor)
    with pytest.raises(ShapeError, match="only float32 and float64"):
        nn.Parameter([1, 2])


def test_a_float64_parameter_makes_the_results_float64_as_its_docstring_says():
    x = draw(2, 3)
    assert x.dtype == (x * nn.constant((3,), 1)).dtype == np.float32
    assert (x * nn.Parameter(np.ones(3))).dtype == np.float64
    assert "nn.constant((D,), 1) is float32" in nn.Parameter.__doc__


# ---- state


def test_state_dict_holds_copies():
    block = Block()
    state = block.state_dict()
    assert list(state) == NAMES
    block.scale.data[:] = 9
    assert state["scale"].tolist() == [2.0] * 5
    state["scale"][:] = 8
    assert block.scale.data.tolist() == [9.0] * 5


def test_load_state_dict_brings_every_number_back():
    block, other = Block(), Block()
    state = {name: draw(*x.shape, seed=i) for i, (name, x) in enumerate(block.state_dict().items())}
    assert block.load_state_dict(state) == ([], [])
    for name, parameter in block.named_parameters():
        assert np.array_equal(parameter.data, state[name])
        assert not np.shares_memory(parameter.data, state[name])
    other.load_state_dict({name: Tensor(x) for name, x in state.items()})
    x = draw(2, 3)
    assert np.array_equal(block(x).data, other(x).data)


def test_load_state_dict_takes_lists_and_other_dtypes():
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": [[1, 2]], "bias": np.float64([0.5])})
    assert layer.weight.dtype == layer.bias.dtype == np.float32
    assert layer(np.float32([[3, 4]])).data.tolist() == [[11.5]]
    layer.to(np.float64).load_state_dict({"weight": np.float32([[1, 2]]), "bias": np.float32([0.5])})
    assert layer.weight.dtype == layer.bias.dtype == np.float64


def test_assign_takes_the_arrays_themselves():
    layer = nn.Linear(3, 2)
    state = {"weight": draw(2, 3), "bias": draw(2, dtype=np.float64)}
    layer.load_state_dict(state, assign=True)
    assert layer.weight.data is state["weight"]
    assert layer.bias.dtype == np.float32


def test_load_state_dict_lists_everything_that_does_not_fit_and_changes_nothing():
    block = Block()
    before = block.state_dict()
    state = {name: x + 1 for name, x in before.items()}
    del state["scale"], state["first.2.bias"]
    state["extra"] = np.ones(1)
    state["second.weight"] = np.ones((5, 4))
    with pytest.raises(ShapeError) as raised:
        block.load_state_dict(state)
    message = str(raised.value)
    assert message.startswith("Block: the weights do not fit the model: 2 missing, 1 unexpected, 1 mismatched.")
    for line in (
        "missing: scale",
        "missing: first.2.bias",
        "unexpected: extra",
        "mismatched: second.weight: expected (5, 3), found (5, 4)",
    ):
        assert line in message
    with pytest.raises(ShapeError, match=r"expected \(5, 3\), found \(5, 4\)"):
        block.load_state_dict(state, strict=False)
    assert all(np.array_equal(x, before[name]) for name, x in block.state_dict().items())


def test_not_strict_loads_what_fits():
    block = Block()
    before = block.state_dict()
    assert block.load_state_dict({"scale": np.arange(5), "extra": 1}, strict=False) == (NAMES[1:], ["extra"])
    assert block.scale.data.tolist() == [0, 1, 2, 3, 4]
    assert all(np.array_equal(x, before[name]) for name, x in block.state_dict().items() if name != "scale")


@pytest.mark.parametrize("wrong", [["a", "b"], [[1, 2], [3]], np.array([None, None]), np.array([1j, 2])], ids=repr)
def test_what_is_no_array_of_numbers_is_refused_before_anything_changes(wrong):
    layer = nn.Linear(3, 2)
    before = layer.state_dict()
    with pytest.raises(ShapeError, match="Tensor: "):
        layer.load_state_dict({"weight": np.ones((2, 3)), "bias": wrong})
    assert np.array_equal(layer.weight.data, before["weight"])


# ---- modes and dtype


def test_train_and_eval_reach_every_module():
    block = Block()
    assert all(module.training for module in block.modules())
    assert block.eval() is block
    assert not any(module.training for module in block.modules())
    assert block.train() is block
    assert all(module.training for module in block.modules())
    assert Block().training


def test_zero_grad_forgets():
    block = Block()
    block(draw(2, 3)).sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())
    block.zero_grad()
    assert all(parameter.grad is None for parameter in block.parameters())


@pytest.mark.parametrize("dtype", [np.float64, "float64", np.dtype("float64")])
def test_to_converts_every_parameter(dtype):
    block = Block()
    before = block.state_dict()
    block(draw(2, 3)).sum().backward()
    assert block.to(dtype) is block
    for name, parameter in block.named_parameters():
        assert parameter.dtype == np.float64 and parameter.grad is None
        assert np.array_equal(parameter.data, before[name])
    assert block(draw(2, 3, dtype=np.float64)).dtype == np.float64
    assert block.to(np.float32)(draw(2, 3)).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, int, None, "abc", np.dtype("complex64")], ids=repr)
def test_to_refuses_other_dtypes(dtype):
    layer = nn.Linear(2, 2)
    with pytest.raises(MinivitError, match=r"Linear\.to: .* is not float32 or float64\."):
        layer.to(dtype)
    assert layer.weight.dtype == np.float32


def test_there_is_one_device():
    layer = nn.Linear(2, 2)
    assert layer.to("cpu") is layer and layer.to(layer.device) is layer
    assert layer.device == Tensor([1.0]).device == "cpu"
    with pytest.raises(MinivitError, match=r"Linear\.to: 'cuda' is not float32 or float64\.\n  hint: a device: leave"):
        layer.to("cuda")


def test_forward_is_missing():
    class Empty(nn.Module):
        pass

    with pytest.raises(MinivitError, match=r"^Empty: has no forward\(\)\.\n  hint: define forward\(self, x\)"):
        Empty()(1)
    assert (Empty().parameters(), Empty().num_parameters(), Empty().state_dict()) == ([], 0, {})


def test_call_hands_everything_to_forward():
    class Adder(nn.Module):
        def forward(self, x, y, scale=1):
            return (x + y) * scale

    assert Adder()(1, 2) == 3
    assert Adder()(1, y=2, scale=5) == 15


def test_copies_are_independent():
    block = Block()
    other = copy.deepcopy(block)
    x = draw(2, 3)
    assert np.array_equal(block(x).data, other(x).data)
    assert other.again is other.scale and other.scale is not block.scale
    other.scale.data[:] = 0
    assert block.scale.data.tolist() == [2.0] * 5


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_model_its_optimiser_and_its_averages_are_copied_together_and_learn_alike(duplicate):
    """Parameters, generators and the optimiser's arrays are the copy's own, and shared as in the original."""
    config = ViTConfig(8, 1, 2, 8, image_size=4, patch_size=2, num_labels=3, hidden_dropout_prob=0.3)
    model = ViTForImageClassification(config, rng=1)
    parts = model, AdamW(model.parameters()), ExponentialMovingAverage(model.parameters())

    def learn(model, optimizer, average):
        optimizer.zero_grad()
        model(np.ones((2, 3, 4, 4), np.float32), labels=[0, 2]).loss.backward()
        optimizer.step()
        average.update()

    model.train()
    learn(*parts)
    model.vit.layernorm.weight.requires_grad = False
    copies = duplicate(parts)
    mine, own = ({id(p) for p in one.parameters()} for one in (model, copies[0]))
    assert not mine & own and len(mine) == len(own)
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in copies[0].parameters()]
    before = model.state_dict()
    for _ in range(2):
        learn(*copies)
    assert all(np.array_equal(array, before[name]) for name, array in model.state_dict().items())
    for _ in range(2):
        learn(*parts)
    for one, other in zip(parts, copies, strict=True):
        state = other.state_dict()
        assert all(np.array_equal(array, state[name]) for name, array in one.state_dict().items())
    assert not np.array_equal(model.state_dict()["classifier.weight"], before["classifier.weight"])


def test_a_parameter_is_pickled_as_a_parameter():
    found = pickle.loads(pickle.dumps({"w": nn.Parameter(np.ones(2))}))["w"]
    assert type(found) is nn.Parameter and found.requires_grad and found.data.tolist() == [1, 1]


def test_repr_shows_the_tree():
    tree = nn.Sequential(
        nn.Conv2d(3, 4, (5, 2), stride=2),
        nn.Sequential(nn.Linear(4, 7, bias=False), nn.GELU("tanh"), nn.Dropout(0.25)),
        nn.ModuleList([nn.LayerNorm(7, eps=1e-6)]),
        nn.Sequential(),
    )
    assert repr(tree) == (
        "Sequential(\n"
        "  (0): Conv2d(3, 4, kernel_size=(5, 2), stride=2)\n"
        "  (1): Sequential(\n"
        "    (0): Linear(in_features=4, out_features=7, bias=False)\n"
        "    (1): GELU(approximate='tanh')\n"
        "    (2): Dropout(p=0.25)\n"
        "  )\n"
        "  (2): ModuleList(\n"
        "    (0): LayerNorm(7, eps=1e-06)\n"
        "  )\n"
        "  (3): Sequential()\n"
        ")"
    )


# ---- layers


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias):
    layer = nn.Linear(5, 3, bias=bias, rng=1)
    assert layer.weight.shape == (3, 5)
    x = draw(2, 4, 5)
    expected = x @ layer.weight.data.T + (layer.bias.data if bias else 0)
    np.testing.assert_allclose(layer(x).data, expected, rtol=1e-5, atol=1e-6)
    assert len(layer.parameters()) == 1 + bias
    gradcheck(lambda x, *_: layer(x), x, *layer.parameters())
    with pytest.raises(ShapeError, match=r"linear: x \(2, 4\), weight \(3, 5\)"):
        layer(draw(2, 4))


@pytest.mark.parametrize("stride", [2, (3, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_conv2d(stride, bias):
    layer = nn.Conv2d(2, 3, (3, 2), stride=stride, bias=bias, rng=1)
    x = draw(2, 2, 7, 5)
    down, right = (stride, stride) if isinstance(stride, int) else stride
    y = layer(x).data
    assert layer.weight.shape == (3, 2, 3, 2)
    assert y.shape == (2, 3, (7 - 3) // down + 1, (5 - 2) // right + 1)
    window = x[1, :, down : down + 3, right : right + 2]
    expected = (window * layer.weight.data[2]).sum() + (layer.bias.data[2] if bias else 0)
    np.testing.assert_allclose(y[1, 2, 1, 1], expected, rtol=1e-5)
    gradcheck(lambda x, *_: layer(x), x, *layer.parameters())


def test_conv2d_kernel_of_one_number():
    assert nn.Conv2d(2, 3, 4).weight.shape == (3, 2, 4, 4)
    assert nn.Conv2d(2, 3, 4).stride == 1


def test_layer_norm():
    layer = nn.LayerNorm(5, eps=0.1)
    layer.weight.data[:], layer.bias.data[:] = draw(5, seed=1), draw(5, seed=2)
    x = draw(3, 2, 5)
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.1)
    np.testing.assert_allclose(layer(x).data, normal * layer.weight.data + layer.bias.data, rtol=1e-4, atol=1e-6)
    assert nn.LayerNorm(5).eps == 1e-5


def test_dropout_only_while_training():
    layer = nn.Dropout(0.25, rng=3)
    x = np.ones((40, 50), np.float32)
    y = layer(x).data
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert 0.2 < (y == 0).mean() < 0.3
    assert not np.array_equal(layer(x).data, y)
    assert np.array_equal(layer.eval()(x).data, x)
    assert np.array_equal(nn.Dropout(0.25, rng=3)(x).data, y)
    assert np.array_equal(nn.Dropout(0.0)(x).data, x)
    with pytest.raises(MinivitError, match=r"p=1\.5 is not a probability"):
        nn.Dropout(1.5)(x)


def test_dropout_shares_a_generator():
    rng = np.random.default_rng(3)
    first, second = nn.Dropout(0.5, rng), nn.Dropout(0.5, rng)
    assert first.rng is second.rng is rng
    x = np.ones((9, 9), np.float32)
    assert not np.array_equal(first(x).data, second(x).data)


def test_gelu():
    x = draw(5, 7)
    assert np.array_equal(nn.GELU()(x).data, ops.gelu(x).data)
    assert np.array_equal(nn.GELU("tanh")(x).data, ops.gelu_tanh(x).data)
    assert not np.array_equal(nn.GELU()(x).data, nn.GELU("tanh")(x).data)
    with pytest.raises(MinivitError, match="GELU: approximate='erf'"):
        nn.GELU("erf")


def test_activations_have_the_names_of_hugging_face_configs():
    x = draw(7)
    for name, op in {
        "gelu": ops.gelu,
        "gelu_new": ops.gelu_tanh,
        "gelu_pytorch_tanh": ops.gelu_tanh,
        "relu": ops.relu,
        "tanh": ops.tanh,
        "gelu_python": ops.gelu,
        "gelu_fast": ops.gelu_tanh,
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "silu": lambda x: x / (1 + np.exp(-x)),
        "swish": lambda x: x / (1 + np.exp(-x)),
        "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    }.items():
        np.testing.assert_allclose(nn.ACTIVATIONS[name](x).data, np.asarray(op(x)), rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "formula", "text"),
    [
        (nn.ReLU(), lambda x: np.maximum(x, 0), "ReLU()"),
        (nn.Tanh(), np.tanh, "Tanh()"),
        (nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x)), "Sigmoid()"),
        (nn.SiLU(), lambda x: x / (1 + np.exp(-x)), "SiLU()"),
        (nn.Softmax(), lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True), "Softmax(dim=-1)"),
        (nn.Softmax(dim=1), lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True), "Softmax(dim=1)"),
        (nn.Identity(), lambda x: x, "Identity()"),
        (nn.Identity(54, bias=False), lambda x: x, "Identity()"),
        (nn.Flatten(), lambda x: x.reshape(2, 12), "Flatten(start_dim=1, end_dim=-1)"),
        (nn.Flatten(0, 1), lambda x: x.reshape(6, 4), "Flatten(start_dim=0, end_dim=1)"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_layers_without_parameters(layer, formula, text):
    x = draw(2, 3, 4, dtype=np.float64)
    np.testing.assert_allclose(layer(x).data if isinstance(layer(x), Tensor) else layer(x), formula(x), rtol=1e-12)
    assert (repr(layer), layer.parameters()) == (text, [])


def test_cross_entropy_loss_is_the_op():
    logits, labels = Tensor(draw(4, 3), requires_grad=True), [0, 2, 1, 1]
    for smoothing in (0.0, 0.1):
        loss = nn.CrossEntropyLoss(label_smoothing=smoothing)
        assert loss(logits, labels).item() == ops.cross_entropy(logits, labels, smoothing).item()
        assert repr(loss) == f"CrossEntropyLoss(label_smoothing={smoothing})"
    with pytest.raises(TypeError):
        nn.CrossEntropyLoss(0.1)  # PyTorch's first argument is another


def test_sequential_feeds_each_with_the_one_before():
    first, second = nn.Linear(3, 5, rng=1), nn.Linear(5, 2, rng=2)
    x = draw(4, 3)
    assert np.array_equal(nn.Sequential(first, nn.GELU(), second)(x).data, second(ops.gelu(first(x))).data)
    assert nn.Sequential()(x) is x


def test_module_list_is_a_list():
    modules = [nn.Linear(2, 2, rng=i) for i in range(12)]
    row = nn.ModuleList(modules)
    assert len(row) == 12 and list(row) == modules
    assert (row[0], row[-1], row[10:]) == (modules[0], modules[11], modules[10:])
    assert [name for name, _ in row.named_parameters()][20:22] == ["10.weight", "10.bias"]
    with pytest.raises(IndexError):
        row[12]
    assert len(nn.ModuleList()) == 0


@pytest.mark.parametrize("kind", [nn.ModuleList, nn.Sequential])
def test_a_module_in_a_row_is_replaced_and_one_more_is_appended(kind):
    modules = [nn.Linear(2, 2, rng=i) for i in range(12)]
    row = kind(modules) if kind is nn.ModuleList else kind(*modules)
    new, last = nn.Linear(2, 2, bias=False, rng=20), nn.Linear(2, 2, rng=21)
    row[1] = new
    row[-1] = last
    assert list(row) == [modules[0], new, *modules[2:11], last] and row[-1] is last
    assert [name for name, _ in row.named_parameters()][:4] == ["0.weight", "0.bias", "1.weight", "2.weight"]
    assert row.append(modules[1]) is row and len(row) == 13 and row[12] is row[-1] is modules[1]
    assert [name for name, _ in row.named_parameters()][-2:] == ["12.weight", "12.bias"]
    with pytest.raises(IndexError):
        row[13] = new
    with pytest.raises(MinivitError, match="entry 2 is None"):
        row[2] = None
    with pytest.raises(MinivitError, match="entry 13 is "):
        row.append(ops.relu)
    assert len(row) == 13 and row[2] is modules[2]


def test_a_module_list_has_no_forward():
    row = nn.ModuleList([nn.Linear(2, 2)])
    with pytest.raises(MinivitError, match=r"^ModuleList: has no forward"):
        row(draw(2, 2))


@pytest.mark.parametrize("entry", [ops.relu, None, nn.Linear])
def test_entries_that_are_no_modules_are_refused(entry):
    with pytest.raises(MinivitError, match="Sequential: entry 1 is "):
        nn.Sequential(nn.Linear(2, 2), entry)
    with pytest.raises(MinivitError, match="ModuleList: entry 0 is "):
        nn.ModuleList([entry])


# ---- first values


@pytest.mark.parametrize("layer", [nn.Linear(64, 48, rng=5), nn.Conv2d(16, 48, 2, rng=5)], ids=["Linear", "Conv2d"])
def test_pytorch_first_values(layer):
    bound = 1 / 8  # 1 / sqrt(64) for both
    for parameter in layer.parameters():
        assert abs(parameter.data).max() <= bound
        assert abs(parameter.data).max() > 0.9 * bound
        assert parameter.dtype == np.float32
    assert abs(layer.weight.data.std() / (bound / math.sqrt(3)) - 1) < 0.05


@pytest.mark.parametrize(
    "layer", [nn.Linear(64, 48, std=0.3, rng=5), nn.Conv2d(16, 48, 2, std=0.3, rng=5)], ids=["Linear", "Conv2d"]
)
def test_normal_first_values(layer):
    assert abs(layer.weight.data.std() / 0.3 - 1) < 0.05
    assert abs(layer.weight.data.mean()) < 0.03
    assert abs(layer.weight.data).max() > 0.7  # not cut at two deviations
    assert not layer.bias.data.any()
    assert layer.weight.dtype == layer.bias.dtype == np.float32


def test_layer_norm_first_values():
    layer = nn.LayerNorm(5)
    assert layer.weight.data.tolist() == [1.0] * 5 and layer.bias.data.tolist() == [0.0] * 5


def test_random_values_follow_the_seed():
    for make in (
        lambda rng: nn.Linear(5, 3, rng=rng),
        lambda rng: nn.Linear(5, 3, std=1, rng=rng),
        lambda rng: nn.Conv2d(5, 3, 2, rng=rng),
    ):
        one, same, generator, other = make(4), make(4), make(np.random.default_rng(4)), make(5)
        assert np.array_equal(one.weight.data, same.weight.data)
        assert np.array_equal(one.weight.data, generator.weight.data)
        assert not np.array_equal(one.weight.data, other.weight.data)
    for make in (nn.normal, nn.uniform):
        assert np.array_equal(make((3,), 2, 4).data, make((3,), 2, np.random.default_rng(4)).data)
    rng = np.random.default_rng(4)
    assert not np.array_equal(nn.Linear(5, 3, rng=rng).weight.data, nn.Linear(5, 3, rng=rng).weight.data)


# ---- meta


def test_meta_parameters_have_a_shape_and_no_memory():
    tracemalloc.start()
    with nn.meta():
        layer = nn.Linear(10**6, 10**5)
        row = nn.Sequential(nn.Conv2d(3, 10**6, 16, std=1), nn.LayerNorm(10**8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
    assert layer.num_parameters() == 10**11 + 10**5
    assert row.num_parameters() == 768 * 10**6 + 10**6 + 2 * 10**8
    assert layer.weight.dtype == np.float32 and not layer.weight.data.flags.writeable


def test_meta_ends_with_its_block():
    with nn.meta():
        with nn.meta():
            pass
        assert not nn.Linear(2, 2).weight.data.any()
    assert nn.Linear(2, 2).weight.data.any()
    with pytest.raises(KeyError), nn.meta():
        raise KeyError
    assert nn.Linear(2, 2).weight.data.any()


@pytest.mark.parametrize("assign", [True, False])
def test_meta_parameters_take_the_numbers_of_a_state_dict(assign):
    state = nn.Linear(5, 3, rng=2).state_dict()
    with nn.meta():
        layer = nn.Linear(5, 3)
    layer.load_state_dict(state, assign=assign)
    assert np.array_equal(layer.weight.data, state["weight"])
    assert layer.weight.data.flags.writeable


def test_a_parameter_is_not_lost_to_an_array():
    layer = nn.Linear(3, 2)
    with pytest.raises(MinivitError, match=r"weight is a Parameter and would be lost(?s:.*)module.weight.data = array"):
        layer.weight = np.zeros((2, 3))
    layer.weight = nn.Parameter(np.zeros((2, 3), np.float32))
    assert layer.num_parameters() == 8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(0, 4), r"Linear: in_features=0\.\n  rule: in_features is a whole number, 1 to"),
        (lambda: nn.Linear(3, 2.0), r"Linear: out_features=2\.0"),
        (lambda: nn.Conv2d(3, 4, 0), r"Conv2d: kernel_size=0"),
        (lambda: nn.Conv2d(3, 4, (2, -1)), r"Conv2d: kernel_size=-1"),
        (lambda: nn.Conv2d(3, 4, (1, 2, 3)), r"Conv2d: kernel_size=\(1, 2, 3\)\.\n  rule: a number, or a pair"),
        (lambda: nn.LayerNorm((3,)), r"LayerNorm: normalized_shape=\(3,\)"),
    ],
)
def test_sizes_are_whole_numbers(make, message):
    with pytest.raises(MinivitError, match=message):
        make()


def test_dropout_drops_half():
    assert nn.Dropout().p == 0.5
