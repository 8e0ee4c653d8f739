"""The benchmark's tasks in minivit."""

import contextlib

import numpy as np

import minivit
from minivit import Tensor, nn, notebook, ops, optim, vit, weights
from minivit.__main__ import main

from . import rows


def prepare(kind, threads):
    """Use so many threads, if not 0, and import what a task of this kind needs. Returns how many threads there are."""
    if threads:
        minivit.set_num_threads(threads)
    if kind != "product":  # NumPy's own products have one thread from the first op on
        ops.gelu(np.zeros((1, 1), np.float32))  # which imports numba where it is used
    return minivit.get_num_threads()


def build(task, variant, group):
    """(step, results) of a task: a function that does it once, and one that does it and gives {name: array}."""
    return _vit(task, group) if task["kind"] == "vit" else KINDS[task["kind"]](task)


def _vit(task, group):
    model = vit.ViTForImageClassification(vit.ViTConfig(**task["config"])).train(task["train"])
    _load(model)
    optimizer = optim.AdamW(model.parameters(), lr=rows.LR) if task["train"] else None
    pixels, labels = rows.batch(task, group)
    share = len(labels) / sum(group.gather(len(labels)))  # of the mean's gradient

    def forward():
        with minivit.no_grad():
            return {"logits": model(pixels).logits.data}

    def gradients():
        model.zero_grad()
        output = model(pixels, labels=labels)
        output.loss.backward(np.full_like(output.loss.data, share))
        if group.size > 1:
            _add_up(optimizer.parameters)
        return output

    def train():
        gradients()
        optimizer.step()

    def results():
        output = gradients()
        return rows.gathered(task, group, output.logits.data, output.loss.data) | _gradients(model)

    return (train, results) if task["train"] else (forward, forward)


def _dinov2(task):
    model = weights.dinov2_small()
    pixels = rows.pixels(task)

    def forward():
        with minivit.no_grad():
            return {"tokens": model(pixels, interpolate_pos_encoding=True).last_hidden_state.data}

    return forward, forward


def _notebook(task):
    model = notebook.Vit(task["width"], task["width"], task["heads"], task["encoders"]).eval()  # eval: no dropout
    _load(model)
    x = Tensor(rows.numbers("tokens", (task["tokens"], task["width"])), requires_grad=True)
    dy = rows.numbers("dy", x.shape)

    def step():
        model.zero_grad()
        x.grad = None
        y = model(x)
        y.backward(dy)
        return y

    def results():
        return {"y": step().data, "dx": x.grad, **_gradients(model)}

    return step, results


LAYERS = {
    "linear": ops.linear,
    "layer_norm": ops.layer_norm,
    "gelu": ops.gelu,
    "softmax": ops.softmax,
    "attention, fused": ops.scaled_dot_product_attention,
    "attention, step by step": lambda q, k, v: ops.attention(q, k, v)[0],
    "patch conv": lambda x, weight, bias: ops.conv2d(x, weight, bias, stride=weight.shape[-1]),
    "cross_entropy": lambda logits: ops.cross_entropy(logits, np.arange(len(logits)) % logits.shape[1]),
}


def _layer(task):
    layer = LAYERS[task["layer"]]
    inputs = {name: Tensor(rows.numbers(name, shape), name != "pixels") for name, shape in task["shapes"].items()}
    dy = rows.numbers("dy", layer(*inputs.values()).shape)
    return rows.passes(task, layer, inputs, dy, minivit.no_grad, lambda y: y.data)


def _adamw(task):
    parameters = [nn.Parameter(rows.numbers(name, shape)) for name, shape in task["shapes"].items()]
    for name, parameter in zip(task["shapes"], parameters, strict=True):
        parameter.grad = rows.numbers("d" + name, parameter.shape)
    step = optim.AdamW(parameters, lr=0.01).step

    def results():
        before = [p.data.copy() for p in parameters]
        step()
        return rows.changes([p.data for p in parameters], before)

    return step, results


def _product(task):
    """NumPy's own matrix product, n by n: what the machine can do."""
    a, b = (rows.numbers(name, (task["n"], task["n"])) for name in "ab")
    y = np.empty_like(a)
    return lambda: np.matmul(a, b, out=y), lambda: {"y": a[:1] @ b}


def _box(task):
    return weights.dinov2_small, dict


def _command(task):
    """A command of minivit, with all its imports."""

    def step():
        with contextlib.chdir(task["folder"]):
            code = main(task["argv"])
        if code:
            raise RuntimeError(f"minivit {' '.join(task['argv'])} ended with exit code {code}")

    return step, dict


KINDS = {
    "dinov2": _dinov2,
    "notebook": _notebook,
    "layer": _layer,
    "adamw": _adamw,
    "product": _product,
    "load": _box,
    "command": _command,
}


def _add_up(parameters):
    """Each gradient is the sum of all processes': what training.fit does between backward and the optimiser's step."""
    from minivit.machinery.communication import world

    world().agree()
    flat = world().all_reduce(np.concatenate([parameter.grad.ravel() for parameter in parameters]))
    ends = np.cumsum([parameter.size for parameter in parameters])
    for parameter, part in zip(parameters, np.split(flat, ends[:-1]), strict=True):
        parameter.grad = part.reshape(parameter.shape)


def _load(model):
    for name, parameter in model.named_parameters():
        parameter.data[...] = rows.weight(name, parameter.shape)


def _gradients(model):
    return rows.gradients({name: parameter.grad for name, parameter in model.named_parameters()})
