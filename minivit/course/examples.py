"""A small example of every op, layer and part of the models: `minivit show` runs it and checks its gradients.

Those of the ops are the first of their gradient-check cases; what is no op has its example in EXAMPLES.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .. import nn, notebook, ops, vit
from ..autograd import Tensor
from ..gradcheck import compare
from .cases import CASES, errors

ALLOWED = 1e-6  # relative error of backward against finite differences, in float64
DIRECTIONS = 3  # random ones, where an example has parameters
SHOWN = {"output_attentions": True, "output_scores": True}  # set when shapes are shown: there is more to see


class Example(NamedTuple):
    """make() gives a function of Tensors or a Module; shapes are those of its inputs, given are its other arguments."""

    make: Callable
    shapes: tuple
    given: dict


def example(make, *shapes, **given):
    """The Example of these."""
    return Example(make, shapes, given)


def _on_the_tape(x, weight):
    """y = x @ weight, which is used three times: loss = (y * y + y).mean()"""
    y = x @ weight
    loss = (y * y + y).mean()
    return loss


def _expanded(x):
    """y = expand(x, (4, 2, 3)), whose backward is unbroadcast"""
    return ops.expand(x, (4, 2, 3))


def _dropped(x):
    """y = Dropout(0.4, rng=1)(x), the layer made anew each time, so that it always drops the same numbers"""
    return nn.Dropout(0.4, rng=1)(x)


CONFIG = vit.ViTConfig(
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    image_size=(8, 16),
    patch_size=4,
    encoder_stride=4,
    num_labels=5,
    initializer_range=0.3,  # near 0 all attention is alike, and the gradients of queries and keys vanish
)
_PIXELS, _TOKENS, _INNER = (2, 3, 8, 16), (2, 9, 12), (2, 9, 20)  # (B, C, H, W), (B, T, D), (B, T, F)
_QKV = (2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 7)


def _of_config(name, *shapes, **given):
    """The Example of a class of vit.py that is made from a config."""
    return example(lambda: getattr(vit, name)(CONFIG, rng=0), *shapes, **given)


EXAMPLES = {
    "ops.attention": example(lambda: ops.attention, *_QKV),
    **{f"ops.{op}": example(lambda op=op: getattr(ops, op), (2, 3, 5)) for op in ("quick_gelu", "silu")},
    "ops.unbroadcast": example(lambda: _expanded, (2, 1)),
    "nn.Linear": example(lambda: nn.Linear(5, 4, rng=0), (2, 3, 5)),
    "nn.Conv2d": example(lambda: nn.Conv2d(3, 5, (3, 2), stride=(3, 2), rng=0), (2, 3, 6, 4)),
    "nn.LayerNorm": example(lambda: nn.LayerNorm(5), (2, 3, 5)),
    "nn.Dropout": example(lambda: _dropped, (2, 3, 5)),
    "nn.GELU": example(nn.GELU, (2, 3, 5)),
    **{f"nn.{layer.__name__}": example(layer, (2, 3, 5)) for layer in (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.SiLU)},
    **{f"nn.{layer.__name__}": example(layer, (2, 3, 5)) for layer in (nn.Softmax, nn.Identity, nn.Flatten)},
    "nn.CrossEntropyLoss": example(nn.CrossEntropyLoss, (3, 5), labels=np.array([4, 0, 4])),
    "nn.PixelShuffle": example(lambda: nn.PixelShuffle(2), (2, 8, 3, 5)),
    "nn.Sequential": example(lambda: nn.Sequential(nn.Linear(5, 4, rng=0), nn.GELU(), nn.Linear(4, 3, rng=1)), (2, 5)),
    "vit.PatchEmbeddings": example(lambda: vit.PatchEmbeddings((8, 16), 4, 3, 12, rng=0), _PIXELS),
    "vit.ViTEmbeddings": _of_config("ViTEmbeddings", _PIXELS),
    "vit.ViTSelfAttention": _of_config("ViTSelfAttention", _TOKENS),
    "vit.ViTSelfOutput": _of_config("ViTSelfOutput", _TOKENS, _TOKENS),
    "vit.ViTAttention": _of_config("ViTAttention", _TOKENS),
    "vit.ViTIntermediate": _of_config("ViTIntermediate", _TOKENS),
    "vit.ViTOutput": _of_config("ViTOutput", _INNER, _TOKENS),
    "vit.ViTLayer": _of_config("ViTLayer", _TOKENS),
    "vit.ViTEncoder": _of_config("ViTEncoder", _TOKENS),
    "vit.ViTPooler": _of_config("ViTPooler", _TOKENS),
    "vit.ViTModel": _of_config("ViTModel", _PIXELS),
    "vit.ViTForImageClassification": _of_config("ViTForImageClassification", _PIXELS, labels=np.array([4, 0])),
    "vit.ViTForMaskedImageModeling": _of_config(
        "ViTForMaskedImageModeling", _PIXELS, bool_masked_pos=np.arange(16).reshape(2, 8) % 3 == 0
    ),
    "notebook.PatchEmbeddings": example(
        lambda: notebook.PatchEmbeddings(np.zeros((3, 7, 10)), 5, kernel_size=3, rng=0), (3, 7, 10)
    ),
    "notebook.Embedding": example(
        lambda: notebook.Embedding(np.zeros((3, 7, 10)), 5, kernel_size=3, rng=0), (3, 7, 10)
    ),
    "notebook.MultiheadSelfAttention": example(
        lambda: notebook.MultiheadSelfAttention(6, 2, rng=0), *3 * [(9, 6)]
    ),
    "notebook.EncoderBlock": example(lambda: notebook.EncoderBlock(5, 6, 2, rng=0), (9, 5)),
    "notebook.Vit": example(lambda: notebook.Vit(5, 6, 2, 2, rng=0), (9, 5)),
    **dict.fromkeys(
        ("autograd.Tensor", "autograd.Tensor.backward", "autograd.differentiable"),
        example(lambda: _on_the_tape, (2, 3), (3, 4)),
    ),
}


class Run:
    """An example that is run: path as in "vit.ViTLayer"; KeyError for what has no example.

    arrays: the inputs by name; note: what is computed, where inputs and outputs do not tell.
    """

    def __init__(self, path):
        rng, name = np.random.default_rng(0), path.rpartition(".")[2]
        self.op = name if path == f"ops.{name}" and name in CASES else None
        if self.op:
            case = CASES[name][0]
            self.fn, arrays, self.given = case.fn, case.inputs(rng), {}
            called = case.label.partition(", (")[0]  # with the equation, where there is one
            self.note = "" if called == name else called
        else:
            made = EXAMPLES[path]
            self.fn, self.given = made.make(), made.given
            arrays = [rng.standard_normal(shape) for shape in made.shapes]
            self.note = self.fn.__doc__ if self.fn.__module__ == __name__ else ""
        self.parameters = []
        if isinstance(self.fn, nn.Module):
            self.parameters = self.fn.eval().to(np.float64).parameters()
        self._accepted = list(inspect.signature(getattr(self.fn, "forward", self.fn)).parameters)
        self.arrays = dict(zip(self._accepted, arrays, strict=False))

    def outputs(self, names, *tensors, **more):
        """What comes out, by name: the fields of a dataclass, or `names`; without what is None."""
        value = self.fn(*tensors, **self.given, **more)
        if dataclasses.is_dataclass(value):
            named = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
        else:
            named = zip(names, value if isinstance(value, tuple) else (value,), strict=False)
        return {name: value for name, value in named if value is not None}

    def shapes(self, names):
        """The shapes of one run as text; names: of the outputs, where they have none of their own."""
        came = self.arrays | getattr(self.fn, "keywords", {}) | self.given
        names = ["output" if name in came else name for name in names]
        more = {name: value for name, value in SHOWN.items() if name in self._accepted}
        out = self.outputs(names, *map(Tensor, self.arrays.values()), **more)
        return " -> ".join(", ".join(map(_shaped, each.items())) for each in (came, out))

    def check(self):
        """(worst relative error of backward against finite differences, what was nudged for it)"""
        if self.op:
            found = errors(self.op, np.random.default_rng(0))
            return max(found.values()), f"each number of {', '.join(found)} nudged, {len(CASES[self.op])} examples"
        count, size = len(self.arrays), sum(parameter.size for parameter in self.parameters)

        def everything(*tensors):
            out = self.outputs(map(str, range(count + 9)), *tensors[:count]).values()
            return ops.concatenate([x.reshape(-1) for x in out])

        directions = DIRECTIONS if size else None
        inputs = [*self.arrays.values(), *self.parameters]
        found = compare(everything, *inputs, rtol=ALLOWED, directions=directions)
        names = ", ".join(self.arrays)
        how = f"{names} and {size} parameters nudged, {DIRECTIONS} random directions"
        return max(each.worst for each in found), how if size else f"each number of {names} nudged"


def _shaped(item):
    """A name with its shape or value; of several Tensors, their number and the shape of one."""
    name, value = item
    if isinstance(value, tuple) and value and isinstance(value[0], Tensor):
        return f"{name} {len(value)} x {value[0].shape}"
    return f"{name} {value.shape}" if isinstance(value, (Tensor, np.ndarray)) else f"{name}={value}"
