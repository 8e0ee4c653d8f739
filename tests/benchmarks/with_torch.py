"""The benchmark's tasks in PyTorch: transformers' Vision Transformer, the notebook's model, and single layers.

variant: "eager" writes attention as products and a softmax, "sdpa" is torch's fused scaled_dot_product_attention.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from . import rows

# transformers 5 has shorter names in memory than in the files of the hub, which minivit's are; version 4 has the hub's.
# minivit/weights/spellings.py knows them too, but is not imported: minivit changes how its process gets memory.
HUB_NAMES = {
    "layers.": "encoder.layer.",
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def prepare(kind, threads):
    """Import what a task of this kind needs, so that the baseline of the memory has it. Returns torch's threads."""
    if threads:
        torch.set_num_threads(threads)
    if kind in ("vit", "dinov2"):
        import transformers

        transformers.ViTForImageClassification  # noqa: B018  transformers imports a model when it is first named
    return torch.get_num_threads()


def build(task, variant, group):
    """(step, results) of a task: a function that does it once, and one that does it and gives {name: array}."""
    if task["kind"] == "vit":
        return _vit(task, variant, group)
    kinds = {"dinov2": _dinov2, "notebook": _notebook, "layer": _layer, "adamw": _adamw}
    return kinds[task["kind"]](task, variant)


def _model(name, task, variant, **parts):
    """A model of transformers, by the name of its class, whose attention is the variant."""
    import transformers

    settings = transformers.ViTConfig(
        **task["config"], attn_implementation=variant, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    model = getattr(transformers, name)(settings, **parts).train(task["train"])
    if model.config._attn_implementation != variant:
        raise RuntimeError(f"transformers chose {model.config._attn_implementation} attention, not {variant}")
    return model


def _vit(task, variant, group):
    model = _model("ViTForImageClassification", task, variant)
    _load(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rows.LR) if task["train"] else None
    pixels, labels = (torch.from_numpy(array) for array in rows.batch(task, group))
    shared = nn.parallel.DistributedDataParallel(model) if group.size > 1 else model
    # DistributedDataParallel takes the mean over processes, whose parts may be of other lengths by one
    weight = len(labels) * group.size / sum(group.gather(len(labels)))

    def forward():
        with torch.no_grad():
            return {"logits": model(pixels).logits.numpy()}

    def gradients():
        model.zero_grad(set_to_none=True)
        output = shared(pixels, labels=labels)
        output.loss.backward(torch.full_like(output.loss, weight))
        return output

    def train():
        gradients()
        optimizer.step()

    def results():
        output = gradients()
        found = (tensor.detach().numpy() for tensor in (output.logits, output.loss))
        return rows.gathered(task, group, *found) | _gradients(model)

    return (train, results) if task["train"] else (forward, forward)


def _dinov2(task, variant):
    model = _model("ViTModel", task, variant, add_pooling_layer=False)
    with np.load(task["weights"]) as file:
        _load(model, lambda name, shape: file[name])
    pixels = torch.from_numpy(rows.pixels(task))

    def forward():
        with torch.no_grad():
            return {"tokens": model(pixels, interpolate_pos_encoding=True).last_hidden_state.numpy()}

    return forward, forward


class Attention(nn.Module):
    """The notebook's attention: the heads share one d x d map for each of query, key and value. (T, D) -> (T, D)."""

    def __init__(self, width, heads, variant):
        super().__init__()
        self.heads, self.variant = heads, variant
        d = width // heads
        self.wq, self.wk, self.wv = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)

    def forward(self, x):
        T, D = x.shape
        x = x.reshape(T, self.heads, -1)  # (T, h, d)
        q, k, v = self.wq(x), self.wk(x), self.wv(x)
        if self.variant == "eager":
            scores = torch.einsum("qhd,khd->qhk", q, k) / math.sqrt(q.shape[-1])
            return torch.einsum("qhk,khd->qhd", scores.softmax(-1), v).reshape(T, D)
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))  # (1, h, T, d): only with a batch is it fused
        return functional.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).reshape(T, D)


class EncoderBlock(nn.Module):
    """The notebook's block: n = norm1(x), m = norm2(n + attention(n)), m + mlp(m). (T, D) -> (T, D)."""

    def __init__(self, width, heads, variant):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn_layer = Attention(width, heads, variant)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.2), nn.Linear(width, width))

    def forward(self, x):
        x = self.norm1(x)
        x = self.norm2(self.attn_layer(x) + x)
        return self.mlp(x) + x


def _notebook(task, variant):
    blocks = [EncoderBlock(task["width"], task["heads"], variant) for _ in range(task["encoders"])]
    model = nn.Module()
    model.encoder_blocks = nn.Sequential(*blocks)
    model.eval()  # eval: no dropout
    _load(model)
    x = torch.from_numpy(rows.numbers("tokens", (task["tokens"], task["width"]))).requires_grad_()
    dy = torch.from_numpy(rows.numbers("dy", tuple(x.shape)))

    def step():
        model.zero_grad(set_to_none=True)
        x.grad = None
        y = model.encoder_blocks(x)
        y.backward(dy)
        return y

    def results():
        return {"y": step().detach().numpy(), "dx": x.grad.numpy(), **_gradients(model)}

    return step, results


def _attention(q, k, v):
    return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v


LAYERS = {
    "linear": functional.linear,
    "layer_norm": lambda x, weight, bias: functional.layer_norm(x, weight.shape, weight, bias),
    "gelu": functional.gelu,
    "softmax": lambda x: x.softmax(-1),
    "attention, fused": functional.scaled_dot_product_attention,
    "attention, step by step": _attention,
    "patch conv": lambda x, weight, bias: functional.conv2d(x, weight, bias, stride=weight.shape[-1]),
    "cross_entropy": lambda logits: functional.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1]),
}


def _layer(task, variant):
    layer = LAYERS[task["layer"]]
    inputs = {name: torch.from_numpy(rows.numbers(name, shape)) for name, shape in task["shapes"].items()}
    for name, x in inputs.items():
        x.requires_grad_(name != "pixels")
    dy = torch.from_numpy(np.asarray(rows.numbers("dy", tuple(layer(*inputs.values()).shape))))
    return rows.passes(task, layer, inputs, dy, torch.no_grad, lambda y: y.detach().numpy())


def _adamw(task, variant):
    parameters = [nn.Parameter(torch.from_numpy(rows.numbers(name, shape))) for name, shape in task["shapes"].items()]
    for name, parameter in zip(task["shapes"], parameters, strict=True):
        parameter.grad = torch.from_numpy(rows.numbers("d" + name, tuple(parameter.shape)))
    step = torch.optim.AdamW(parameters, lr=0.01).step

    def results():
        before = [p.detach().numpy().copy() for p in parameters]
        step()
        return rows.changes([p.detach().numpy() for p in parameters], before)

    return step, results


def _named(model):
    """{name on the hub: parameter}."""
    found = {}
    for name, parameter in model.named_parameters():
        for short, hub in HUB_NAMES.items():
            name = name.replace(short, hub)
        found[name] = parameter
    return found


def _load(model, weight=rows.weight):
    """Give a model its numbers. weight: a function of a parameter's name on the hub and its shape."""
    with torch.no_grad():
        for name, parameter in _named(model).items():
            parameter.copy_(torch.from_numpy(weight(name, tuple(parameter.shape))))


def _gradients(model):
    return rows.gradients({name: parameter.grad.numpy() for name, parameter in _named(model).items()})
