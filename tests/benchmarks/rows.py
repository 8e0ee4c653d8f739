"""What the benchmark measures: the rows, the layers, the growth; and how many FLOPs each row's matrix products take.

Shapes: B batch, C channels, P patch side, N patches, T = N + 1 tokens, D hidden size, h heads, d = D / h head size,
F MLP size, L blocks, K classes. A task is a dict that travels to a worker as JSON.
"""

from dataclasses import dataclass

import numpy as np

TORCH = ("torch eager", "torch sdpa")
ONE = ("minivit", "minivit fast", *TORCH)
BATCH = ("minivit", "minivit fast", "minivit xN", "minivit fast xN", *TORCH, "torch DDP xN", "HIPS autograd")
# a process and N processes, which scaling measures with one thread each
SCALED = (("minivit", "minivit xN"), ("minivit fast", "minivit fast xN"), ("torch sdpa", "torch DDP xN"))


@dataclass(frozen=True)
class Row:
    """name: for the command line; title: for the reader; task: what each of the peers computes.

    peers: their names, the reference first; N in a name stands for the number of processes. least: rounds at least.
    """

    name: str
    title: str
    task: dict
    peers: tuple
    least: int = 5


def config(image, patch, D, L, h, F, channels=3, classes=10):
    """The sizes of a Vision Transformer, by the names that minivit and transformers give them."""
    return {
        "image_size": image,
        "patch_size": patch,
        "num_channels": channels,
        "hidden_size": D,
        "num_hidden_layers": L,
        "num_attention_heads": h,
        "intermediate_size": F,
        "num_labels": classes,
    }


def vit_task(sizes, batch, train=True):
    """A training step, or a forward pass, of a Vision Transformer, on square pictures of its size."""
    return {"kind": "vit", "config": sizes, "side": sizes["image_size"], "batch": batch, "train": train}


def dinov2_task(side):
    """A forward pass of the trained network in the box, without a head, on one square picture of any size."""
    return vit_task(DINOV2, 1, train=False) | {"kind": "dinov2", "side": side}


DIGITS = config(8, 2, 64, 4, 4, 128, channels=1)
CIFAR = config(32, 4, 64, 4, 8, 128)
TINY = config(224, 16, 192, 12, 3, 768, classes=1000)
BASE = config(224, 16, 768, 12, 12, 3072, classes=1000)
TOY = config(4, 2, 8, 1, 2, 16, channels=1)
DINOV2 = config(518, 14, 384, 12, 6, 1536, classes=0) | {"layer_norm_eps": 1e-6}
NOTEBOOK = {"kind": "notebook", "tokens": 5477, "width": 512, "heads": 8, "encoders": 4}

ROWS = [
    Row("digits", "digits 8x8 p2 D64 L4 h4 F128, B 64: training step", vit_task(DIGITS, 64), BATCH),
    Row("cifar", "CIFAR 32x32 p4 D64 L4 h8 F128, B 50: training step", vit_task(CIFAR, 50), BATCH),
    Row("tiny", "ViT-Ti/16 224, B 8: training step", vit_task(TINY, 8), BATCH),
    Row("base-forward", "ViT-B/16 224, B 1: forward only", vit_task(BASE, 1, train=False), ONE),
    Row("base", "ViT-B/16 224, B 1: training step", vit_task(BASE, 1), ONE),
    Row("dinov2-224", "DINOv2 ViT-S/14 224, B 1: forward only", dinov2_task(224), (*ONE, "onnxruntime")),
    Row("dinov2-448", "DINOv2 ViT-S/14 448, B 1: forward only", dinov2_task(448), (*ONE, "onnxruntime")),
    Row("notebook", "notebook 5477 x 512, 4 encoders: forward + backward", NOTEBOOK, ONE, least=3),
]
ALONE = [
    Row("dinov2-load", "weights.dinov2_small()", {"kind": "load"}, ()),
    Row("tour", "minivit tour", {"kind": "command", "argv": ["tour"]}, ()),
]
TOY_ROW = Row("toy", "4x4 p2 D8 L1 h2 F16, B 2: training step", vit_task(TOY, 2), BATCH)
QUICK = ("digits", "cifar", "layers")  # seconds, not minutes
LAYER_SIZES = {"digits": (DIGITS, 64), "Ti/16": (TINY, 8)}


def flops(task):
    """FLOPs of a task's matrix products, vit, dinov2 or notebook: two for each multiply-add, as lesson 07 counts them.

    A product (m, k) @ (k, n) takes 2 m k n, and backward as much again for each operand that needs a gradient: pixels
    need none. What a peer computes twice to save memory is not counted: it is the useful work. Nor are positions that
    are interpolated, which PyTorch does without a product.
    """
    if task["kind"] == "notebook":
        T, D, d = task["tokens"], task["width"], task["width"] // task["heads"]
        return 2 * 3 * task["encoders"] * (3 * T * D * d + 2 * T * T * D + 2 * T * D * D)
    sizes = task["config"]
    P, C, K = sizes["patch_size"], sizes["num_channels"], sizes["num_labels"]
    D, L, F = sizes["hidden_size"], sizes["num_hidden_layers"], sizes["intermediate_size"]
    N = (task["side"] // P) ** 2
    T = N + 1
    patches = N * C * P * P * D
    others = L * (T * (4 * D * D + 2 * D * F) + 2 * T * T * D) + D * K
    return 2 * task["batch"] * (2 * patches + 3 * others if task["train"] else patches + others)


def needed_memory(task, peer):
    """Bytes that a peer surely needs, as far as it is foreseen: the notebook's scores; else 0.

    Naive attention keeps the scores (T, h, T) of every encoder for the backward pass, and holds about four more arrays
    of that shape while it computes.
    """
    if task["kind"] != "notebook" or peer != "torch eager":
        return 0
    return (task["encoders"] + 4) * 4 * task["heads"] * task["tokens"] ** 2


def layers(names):
    """(title, mode, task) of every layer at the sizes of the named models, forward and forward + backward."""
    found = []
    for name in names:
        sizes, B = LAYER_SIZES[name]
        side, P, C = sizes["image_size"], sizes["patch_size"], sizes["num_channels"]
        D, h, F = sizes["hidden_size"], sizes["num_attention_heads"], sizes["intermediate_size"]
        T = (side // P) ** 2 + 1
        heads = {letter: (B, h, T, D // h) for letter in "qkv"}
        shapes = {
            "linear": {"x": (B, T, D), "weight": (F, D), "bias": (F,)},
            "layer_norm": {"x": (B, T, D), "weight": (D,), "bias": (D,)},
            "gelu": {"x": (B, T, F)},
            "softmax": {"x": (B, h, T, T)},
            "attention, fused": heads,
            "attention, step by step": heads,
            "patch conv": {"pixels": (B, C, side, side), "weight": (D, C, P, P), "bias": (D,)},
            "cross_entropy": {"logits": (B, sizes["num_labels"])},
        }
        for layer, arrays in shapes.items():
            task = {"kind": "layer", "layer": layer, "shapes": arrays}
            found += [(f"{name} {layer}", "forward", task | {"backward": False})]
            found += [(f"{name} {layer}", "forward + backward", task | {"backward": True})]
        found += [(f"{name} AdamW", "step", {"kind": "adamw", "shapes": parameter_shapes(sizes)})]
    return found


def scaling():
    """(name, kind, task): training steps for 1 and N processes. Strong: they share a batch; weak: each has its own.

    In a weak step all take the same images, so that the result is that of one.
    """
    found = []
    for name, sizes, B in (("CIFAR", CIFAR, 50), ("Ti/16", TINY, 8)):
        task = vit_task(sizes, B)
        found += [(f"{name}, B {B}", "strong", task), (f"{name}, B {B} each", "weak", task | {"each": True})]
    return found


def growth(quick=False):
    """{axis: [(size, task)]}: a training step of two blocks, in which one size grows."""
    image, D, B = 32, 128, 16

    def task(image=image, D=D, B=B):
        return vit_task(config(image, 4, D, 2, D // 64, 4 * D), B)

    points = {
        "batch": [(B, task(B=B)) for B in (2, 4, 8, 16, 32, 64)],
        "tokens": [((image // 4) ** 2 + 1, task(image=image, B=4)) for image in (16, 32, 64, 128)],
        "width": [(D, task(D=D)) for D in (64, 128, 256, 512)],
    }
    return {axis: found[:3] if quick else found for axis, found in points.items()}


def parameter_shapes(sizes):
    """{name on the hub: shape} of every parameter. Not asked of minivit, which changes how its process gets memory."""
    C, P, D, F = (sizes[key] for key in ("num_channels", "patch_size", "hidden_size", "intermediate_size"))
    T = (sizes["image_size"] // P) ** 2 + 1
    shapes = {"vit.embeddings.cls_token": (1, 1, D), "vit.embeddings.position_embeddings": (1, T, D)}

    def layer(name, *shape):
        shapes.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})

    layer("vit.embeddings.patch_embeddings.projection", D, C, P, P)
    for i in range(sizes["num_hidden_layers"]):
        name = f"vit.encoder.layer.{i}"
        for part in ("attention.query", "attention.key", "attention.value", "output.dense"):
            layer(f"{name}.attention.{part}", D, D)
        layer(f"{name}.intermediate.dense", F, D)
        layer(f"{name}.output.dense", D, F)
        layer(f"{name}.layernorm_before", D)
        layer(f"{name}.layernorm_after", D)
    layer("vit.layernorm", D)
    layer("classifier", sizes["num_labels"], D)
    return shapes


def numbers(name, shape, mean=0.0, std=1.0):
    """The same normally distributed float32 numbers in every process: the name is the seed."""
    array = np.random.default_rng(list(name.encode())).standard_normal(shape, dtype=np.float32)
    array *= std
    array += mean
    return array


def weight(name, shape):
    """A model's parameter, drawn by its name, so that every peer has the same weights without being handed them."""
    norm = "norm" in name.split(".")[-2] and name.endswith("weight")
    fan_in = int(np.prod(shape[1:]))
    return numbers(name, shape, mean=float(norm), std=fan_in**-0.5 if len(shape) in (2, 4) else 0.02)


def passes(task, layer, inputs, dy, no_grad, array):
    """(step, results) of a layer task, as build() gives them; inputs: {name: tensor}, array: tensor -> NumPy array."""

    def forward():
        with no_grad():
            return layer(*inputs.values())

    def both():
        for x in inputs.values():
            x.grad = None
        y = layer(*inputs.values())
        y.backward(dy)
        return y

    step = both if task["backward"] else forward

    def results():
        y = array(step())
        return {"y": y} | {name: np.asarray(x.grad) for name, x in inputs.items() if x.grad is not None}

    return step, results


def pixels(task):
    """pixel_values (B, C, H, W) of a vit or dinov2 task."""
    return numbers("pixels", (task["batch"], task["config"]["num_channels"], task["side"], task["side"]))


def batch(task, group):
    """pixel_values (B, C, H, W) and labels (B,) of a vit task: one process's part of them, all of them if "each"."""
    B, labels = task["batch"], np.arange(task["batch"]) % task["config"]["num_labels"]
    ends = (0, B) if task.get("each") else (B * group.rank // group.size, B * (group.rank + 1) // group.size)
    return pixels(task)[slice(*ends)], labels[slice(*ends)]


def gathered(task, group, logits, loss):
    """{name: array} of a vit task's whole batch: logits (B, K), and the mean loss, of those of each process's part."""
    parts = group.gather((logits, loss * len(logits)))
    parts = parts[:1] if task.get("each") else parts  # all did the same
    logits = np.concatenate([part for part, _ in parts])
    return {"logits": logits, "loss": sum(loss for _, loss in parts) / len(logits)}


def images(task, processes=1):
    """How many images a step takes."""
    return task.get("batch", 1) * (processes if task.get("each") else 1)


# Small, so that the hundreds of steps on one batch all do the same work: a loss learned down to 0 would end in
# denormal numbers, which slow one peer and not another.
LR = 1e-5


def gradients(named):
    """What is compared of a model's gradients {name: array}: the norm of each, and the first matrix whole."""
    names = sorted(named)
    first = next(name for name in names if named[name].ndim in (2, 4))
    return {"gradient norms": np.array([np.linalg.norm(named[name].ravel()) for name in names]), first: named[first]}


def changes(after, before):
    """What is compared of AdamW: matrices and filters. minivit lets nothing else decay, PyTorch everything."""
    pairs = [(a - b).ravel() for a, b in zip(after, before, strict=True) if a.ndim in (2, 4)]
    return {"changes": np.concatenate(pairs)}
