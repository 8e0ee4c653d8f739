"""The forward pass of the trained network in ONNX Runtime, as a graph of ONNX's standard operators.

It has what an exported network has: the patches by Conv, the positions by Resize, and LayerNormalization, Softmax and
Gelu whole. When ONNX Runtime reads it, it fuses what it can, and computes once what depends on no picture: positions.
"""

import math

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from . import rows

OPSET = 20  # the first with Gelu


options = onnxruntime.SessionOptions()


def prepare(kind, threads):
    """Use so many threads, if not 0. Returns how many there are, None where that is the library's own choice."""
    options.intra_op_num_threads = threads
    return threads or None


class Graph:
    """A graph that is written line by line: each operator gets arrays or the names of earlier values."""

    def __init__(self):
        self.nodes, self.constants = [], {}

    def constant(self, array):
        name = f"constant {len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def __call__(self, operator, *inputs, **attributes):
        """The name of an operator's value. inputs: names, arrays, "" for one left out."""
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        name = f"{operator} {len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [name], **attributes))
        return name


def forward(task, w):
    """The serialised graph pixels (B, C, H, W) -> tokens (B, T, D). w: {name on the hub: array}."""
    sizes, side = task["config"], task["side"] // task["config"]["patch_size"]
    D, h, eps = sizes["hidden_size"], sizes["num_attention_heads"], sizes["layer_norm_eps"]
    op = Graph()

    def layer_norm(name, x):
        return op("LayerNormalization", x, w[f"{name}.weight"], w[f"{name}.bias"], epsilon=eps)

    def linear(name, x):
        return op("Add", op("MatMul", x, np.ascontiguousarray(w[f"{name}.weight"].T)), w[f"{name}.bias"])

    def heads(name, x, order):
        x = op("Reshape", linear(name, x), np.array([0, 0, h, D // h]))  # (B, T, h, d)
        return op("Transpose", x, perm=order)

    positions = w["embeddings.position_embeddings"]  # (1, 1 + N, D)
    own = math.isqrt(positions.shape[1] - 1)
    grid = np.ascontiguousarray(positions[:, 1:].reshape(1, own, own, D).transpose(0, 3, 1, 2))
    grid = op("Resize", grid, "", "", np.array([1, D, side, side]), mode="cubic", cubic_coeff_a=-0.75)
    grid = op("Transpose", op("Reshape", grid, np.array([1, D, -1])), perm=(0, 2, 1))  # (1, N, D)
    name = "embeddings.patch_embeddings.projection"
    x = op("Conv", "pixels", w[f"{name}.weight"], w[f"{name}.bias"], strides=[sizes["patch_size"]] * 2)
    x = op("Transpose", op("Reshape", x, np.array([0, D, -1])), perm=(0, 2, 1))  # (B, N, D)
    cls = np.repeat(w["embeddings.cls_token"] + positions[:, :1], task["batch"], axis=0)
    x = op("Concat", cls, op("Add", x, grid), axis=1)  # (B, T, D)
    for i in range(sizes["num_hidden_layers"]):
        name = f"encoder.layer.{i}"
        normed = layer_norm(f"{name}.layernorm_before", x)
        q = heads(f"{name}.attention.attention.query", normed, (0, 2, 1, 3))  # (B, h, T, d)
        k = heads(f"{name}.attention.attention.key", normed, (0, 2, 3, 1))  # (B, h, d, T)
        v = heads(f"{name}.attention.attention.value", normed, (0, 2, 1, 3))
        scores = op("Mul", op("MatMul", q, k), np.float32((D // h) ** -0.5))
        context = op("MatMul", op("Softmax", scores, axis=-1), v)
        context = op("Reshape", op("Transpose", context, perm=(0, 2, 1, 3)), np.array([0, 0, D]))  # (B, T, D)
        x = op("Add", x, linear(f"{name}.attention.output.dense", context))
        hidden = op("Gelu", linear(f"{name}.intermediate.dense", layer_norm(f"{name}.layernorm_after", x)))
        x = op("Add", x, linear(f"{name}.output.dense", hidden))
    layer_norm("layernorm", x)
    pixels, tokens = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("pixels", op.nodes[-1].output[0])
    )
    graph = helper.make_graph(op.nodes, "dinov2", [pixels], [tokens], list(op.constants.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    return model.SerializeToString()


def build(task, variant, group):
    """(step, results) of a forward pass, which are one function here: it gives {name: array}."""
    with np.load(task["weights"]) as file:
        graph = forward(task, dict(file))
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    pixels = rows.pixels(task)

    def step():
        return {"tokens": session.run(None, {"pixels": pixels})[0]}

    return step, step
