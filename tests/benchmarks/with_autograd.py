"""The training step in HIPS autograd, the best-known NumPy engine: a plain function, its gradient, plain Adam.

Written the way that is fastest there: linear maps on (B * T, D), so that a weight's gradient is one product, and erf as
a primitive of its own, since NumPy has none.
"""

import math

import autograd.numpy as anp
import numpy as np
from autograd import value_and_grad
from autograd.extend import defvjp, primitive

from . import rows


def prepare(kind, threads):
    """Nothing: all is imported, and NumPy's matrix products are told their threads by the environment."""


@primitive
def normal_cdf(x):
    """(1 + erf(x / sqrt 2)) / 2, to 1.5e-7. Source: Abramowitz and Stegun 1964, formula 7.1.26."""
    z = np.abs(x) * math.sqrt(0.5)
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = 0.5 * series * np.exp(-z * z)
    return np.where(x < 0, tail, 1 - tail)


defvjp(normal_cdf, lambda y, x: lambda dy: dy * (np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)))


def linear(w, name, x):
    """x: (..., D) -> (..., F)."""
    y = anp.dot(x.reshape((-1, x.shape[-1])), w[f"{name}.weight"].T) + w[f"{name}.bias"]
    return y.reshape((*x.shape[:-1], -1))


def layer_norm(w, name, x):
    """x: (..., D)."""
    centred = x - anp.mean(x, axis=-1, keepdims=True)
    variance = anp.mean(centred * centred, axis=-1, keepdims=True)
    return centred / anp.sqrt(variance + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]


def attention(w, name, x, h):
    """x: (B, T, D)."""
    B, T, D = x.shape
    q, k, v = (
        anp.transpose(linear(w, f"{name}.attention.{part}", x).reshape((B, T, h, D // h)), (0, 2, 1, 3))
        for part in ("query", "key", "value")
    )  # (B, h, T, d)
    scores = anp.matmul(q, anp.swapaxes(k, 2, 3)) / math.sqrt(D // h)  # (B, h, q, k)
    shares = anp.exp(scores - anp.max(scores, axis=-1, keepdims=True))
    shares = shares / anp.sum(shares, axis=-1, keepdims=True)
    context = anp.transpose(anp.matmul(shares, v), (0, 2, 1, 3)).reshape((B, T, D))
    return linear(w, f"{name}.output.dense", context)


def logits_of(w, patches, sizes):
    """patches: (B, N, C * P * P) -> (B, K)."""
    B, D = len(patches), sizes["hidden_size"]
    filters, bias = (w[f"vit.embeddings.patch_embeddings.projection.{part}"] for part in ("weight", "bias"))
    x = anp.dot(patches.reshape((-1, patches.shape[-1])), filters.reshape((D, -1)).T) + bias
    cls = w["vit.embeddings.cls_token"] + np.zeros((B, 1, D), np.float32)
    x = anp.concatenate([cls, x.reshape((B, -1, D))], axis=1) + w["vit.embeddings.position_embeddings"]  # (B, T, D)
    for i in range(sizes["num_hidden_layers"]):
        name = f"vit.encoder.layer.{i}"
        normed = layer_norm(w, f"{name}.layernorm_before", x)
        x = x + attention(w, f"{name}.attention", normed, sizes["num_attention_heads"])
        hidden = linear(w, f"{name}.intermediate.dense", layer_norm(w, f"{name}.layernorm_after", x))
        x = x + linear(w, f"{name}.output.dense", hidden * normal_cdf(hidden))
    return linear(w, "classifier", layer_norm(w, "vit.layernorm", x[:, 0]))


def loss_of(w, patches, labels, sizes):
    """The mean cross-entropy."""
    logits = logits_of(w, patches, sizes)
    shifted = logits - anp.max(logits, axis=1, keepdims=True)
    log_shares = shifted - anp.log(anp.sum(anp.exp(shifted), axis=1, keepdims=True))
    return -anp.mean(log_shares[np.arange(len(labels)), labels])


def build(task, variant, group):
    """(step, results) of a training step: a function that does it once, and one that gives {name: array}."""
    sizes, P = task["config"], task["config"]["patch_size"]
    w = {name: rows.weight(name, shape) for name, shape in rows.parameter_shapes(sizes).items()}
    m, v = ({name: np.zeros_like(array) for name, array in w.items()} for _ in range(2))
    pixels, labels = rows.batch(task, group)
    B, C, H, W = pixels.shape
    patches = pixels.reshape(B, C, H // P, P, W // P, P).transpose(0, 2, 4, 1, 3, 5).reshape(B, -1, C * P * P)
    gradient = value_and_grad(loss_of)
    steps = 0

    def step():
        nonlocal steps
        steps += 1
        _, dw = gradient(w, patches, labels, sizes)
        for name, g in dw.items():  # Adam
            m[name] += 0.1 * (g - m[name])
            v[name] += 0.001 * (g * g - v[name])
            root = np.sqrt(v[name] / (1 - 0.999**steps)) + 1e-8
            w[name] -= rows.LR / (1 - 0.9**steps) * m[name] / root

    def results():
        loss, dw = gradient(w, patches, labels, sizes)
        wrong = [name for name, g in dw.items() if g.dtype != np.float32]
        if wrong:
            raise TypeError(f"not float32: the gradient of {wrong[0]}")
        return {"logits": logits_of(w, patches, sizes), "loss": np.asarray(loss), **rows.gradients(dw)}

    return step, results
