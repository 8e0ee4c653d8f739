"""What the arrays of an op must be: one check an op, which says what came and what holds."""

import numpy as np

from ..errors import MinivitError, ShapeError


def check_linear(x, weight, bias):
    """Refuse arrays that do not fit in x @ weight^T + bias."""
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[1:] or (bias is not None and bias.shape != weight.shape[:1]):
        came = f"x {x.shape}, weight {weight.shape}" + ("" if bias is None else f", bias {bias.shape}")
        raise ShapeError("linear", f"{came} do not fit.", rule="x (..., in), weight (out, in), bias (out,)")


def check_layer_norm(x, weight, bias):
    """Refuse weight and bias that are not (D,), the last axis of x."""
    if x.ndim == 0 or not x.shape[-1:] == weight.shape == bias.shape:
        came = f"x {x.shape}, weight {weight.shape}, bias {bias.shape}"
        raise ShapeError("layer_norm", f"{came} do not fit.", rule="x (..., D), weight (D,), bias (D,)")


def check_matmul(x, y):
    """Refuse matrices whose inner sizes differ."""
    if 0 in (x.ndim, y.ndim) or x.shape[-1] != y.shape[-2:][0]:
        raise ShapeError("matmul", f"{x.shape} @ {y.shape} do not fit.", rule="(..., m, k) @ (..., k, n): the k agree.")


def check_conv2d(x, weight, bias, stride):
    """Returns the stride as a pair (down, right)."""
    down, right = (stride, stride) if np.ndim(stride) == 0 else stride
    if x.ndim != 4 or weight.ndim != 4 or x.shape[1] != weight.shape[1]:
        raise ShapeError(
            "conv2d", f"x {x.shape} and weight {weight.shape} do not fit.", rule="x (B, C, H, W), weight (O, C, kh, kw)"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError("conv2d", f"bias {bias.shape} does not fit weight {weight.shape}.", rule="bias (O,)")
    if x.shape[2] < weight.shape[2] or x.shape[3] < weight.shape[3] or min(down, right) < 1:
        raise ShapeError(
            "conv2d",
            f"kernel {weight.shape[2:]} with stride {(down, right)} on an image of {x.shape[2:]} pixels.",
            rule="the kernel fits into the image, and the stride is at least 1.",
        )
    return down, right


def check_transpose(x, axes):
    """Refuse axes that do not name every axis once."""
    if axes is not None and len(axes) != x.ndim:
        raise ShapeError(
            "transpose",
            f"axes {tuple(axes)} for an array of shape {x.shape}.",
            rule=f"as in NumPy, axes names every axis once: {x.ndim} of them.",
            hint="to swap two axes, x.swapaxes(1, 2).",
        )


def check_attention(q, k, v, dropout_p=0.0, rng=None):
    """Refuse q, k and v that do not fit together, and dropout without chance."""
    if min(q.ndim, k.ndim, v.ndim) < 2 or not (
        q.shape[:-2] == k.shape[:-2] == v.shape[:-2] and q.shape[-1] == k.shape[-1] and k.shape[-2] == v.shape[-2]
    ):
        raise ShapeError(
            "attention",
            f"q {q.shape}, k {k.shape}, v {v.shape} do not fit.",
            rule="q (..., q, d), k (..., k, d), v (..., k, d) with the same leading axes.",
            hint="split the heads first: x.reshape(B, T, h, d).transpose(0, 2, 1, 3).",
        )
    if 0 in k.shape[-2:]:
        raise ShapeError("attention", f"k {k.shape} is empty.", rule="there is a key to attend to, and d is 1 or more.")
    if dropout_p and rng is None:
        raise MinivitError("attention", "dropout_p without rng.", rule="chance comes from a Generator or a seed.")


def check_dropout(p, rng, training):
    """Refuse a p that is no probability, and dropout without chance."""
    if not 0 <= p <= 1:
        raise MinivitError("dropout", f"p={p} is not a probability.", rule="0 <= p <= 1")
    if training and p and rng is None:
        raise MinivitError("dropout", "rng is None.", rule="chance comes from an np.random.Generator or a seed.")


def check_cross_entropy(logits, labels, label_smoothing):
    """Returns the labels as an array."""
    labels = np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not logits.size:
        raise ShapeError(
            "cross_entropy",
            f"logits {logits.shape} and labels {labels.shape} do not fit.",
            rule="logits (B, K) and labels (B,), one class number for each example, at least one example.",
        )
    if labels.dtype.kind not in "iu":
        raise ShapeError(
            "cross_entropy",
            f"labels are {labels.dtype}.",
            rule="labels are class numbers: integers.",
            hint="np.asarray(labels, dtype=np.int64), or scores.argmax(-1) where there are scores or one-hot rows.",
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= logits.shape[1]))
    if wrong.size:
        raise ShapeError(
            "cross_entropy",
            f"labels[{wrong[0]}] = {labels[wrong[0]]} is no class ({wrong.size} of {labels.size} labels are not).",
            rule=f"0 <= label < K, and the logits have K = {logits.shape[1]} classes.",
            hint="class numbers start at 0; a model for more classes has a larger num_labels.",
        )
    if not 0 <= label_smoothing <= 1:
        raise ShapeError("cross_entropy", f"label_smoothing={label_smoothing}.", rule="0 <= label_smoothing <= 1")
    return labels


def check_scores(where, logits, labels):
    """Returns labels that are scores, one for each logit, in the logits' shape and dtype; class numbers are none."""
    labels = np.asarray(labels)
    if labels.dtype.kind != "f":
        raise ShapeError(
            where,
            f"labels are {labels.dtype}.",
            rule="with this problem_type, or num_labels=1, labels are floats, one for each logit; no class numbers.",
            hint="np.eye(K)[labels] makes rows of 0 and 1 of class numbers.",
        )
    if labels.shape != logits.shape and not (logits.shape[1:] == (1,) and labels.shape == logits.shape[:1]):
        raise ShapeError(
            where, f"logits {logits.shape} and labels {labels.shape} do not fit.", rule="labels (B, K), as the logits."
        )
    if not (labels.size and np.isfinite(labels).all()):
        raise ShapeError(where, "labels are none, or not all finite numbers.", rule="one finite number for each logit.")
    return labels.reshape(logits.shape).astype(logits.dtype, copy=False)


def check_sine_cosine(embed_dim):
    """Refuse a width that sine and cosine of row and column do not share evenly."""
    if embed_dim < 4 or embed_dim % 4:
        raise ShapeError(
            "sine_cosine_positions",
            f"embed_dim={embed_dim}.",
            rule="D is a multiple of 4: sine and cosine, of row and column.",
            hint=f"use {max(embed_dim // 4 * 4, 4)} or {max(embed_dim // 4 * 4, 4) + 4}.",
        )


def check_axis(where, shape, axis):
    """Returns the axis counted from the front."""
    if not -len(shape) <= axis < len(shape):
        raise ShapeError(where, f"there is no axis {axis} in {shape}.", rule="the first axis is 0.")
    return axis % len(shape)


def check_split(sizes, n):
    """Returns where each piece of an axis of size n ends."""
    if not isinstance(sizes, (tuple, list)):
        raise ShapeError(
            "split",
            f"into {sizes} pieces, or into pieces of {sizes}?",
            rule="NumPy reads a single number as the first, PyTorch as the second; here sizes is a list.",
            hint=f"chunk(x, {sizes}, axis) for {sizes} pieces, split(x, [{sizes}, ...], axis) for pieces of {sizes}.",
        )
    ends = [int(end) for end in np.cumsum(sizes)]
    if not ends or ends[-1] != n or any(size < 0 for size in sizes):
        raise ShapeError("split", f"sizes {list(sizes)} for an axis of {n}.", rule="the sizes add up to the axis.")
    return ends


def check_chunks(chunks, n):
    """Refuse a number of pieces that does not divide the axis of size n."""
    if chunks < 1 or n % chunks:
        raise ShapeError(
            "chunk",
            f"an axis of {n} cannot be cut into {chunks} equal pieces.",
            hint="split(x, sizes, axis) cuts pieces of any sizes.",
        )


def check_correction(where, correction):
    """Refuse a variance that does not say whether it divides by n or by n - 1."""
    if correction is None:
        raise MinivitError(
            where,
            "is it to divide by n, or by n - 1?",
            rule="NumPy and layer norm divide by n, PyTorch by n - 1 where nothing is said; here it is said.",
            hint=f"{where}(x, axis, correction=0) divides by n, correction=1 by n - 1.",
        )


def check_astype(dtype):
    """Refuse a dtype that has no gradients."""
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise ShapeError(
            "astype",
            f"a gradient cannot come back through {np.dtype(dtype)}.",
            rule="only float32 and float64 numbers have gradients.",
            hint="for the numbers alone, t.data.astype(dtype).",
        )
