"""What a trained model looks at: numbers in, arrays out. The figures are in plots.

B batch, C channels, H W pixels, N patches, T = N + 1 tokens with CLS first, D hidden size, h heads, d head size,
F MLP size, L layers, K classes. All is numbered from 0; the token of patch n is n + 1, as CLS is token 0.
Models are ViTForImageClassification, or its body ViTModel where no class is asked for; each function measures in
evaluation mode, and leaves the mode, the parameters and their gradients as they were.
"""

import contextlib
import math
from typing import NamedTuple

import numpy as np

from . import nn, ops
from .autograd import Tensor, no_grad
from .config import to_2tuple
from .errors import MinivitError, ShapeError
from .ops.positions import interpolate_positions

BATCH = 64  # pictures that occlusion shows the model at once


class Stage(NamedTuple):
    """One stage of a trace: its value, and the gradient that arrives there, of the same shape, or None."""

    value: np.ndarray
    gradient: np.ndarray | None


def trace(model, pixel_values, gradient_of=None):
    """Every number on the way from the pixels to the answer, by name: {name: Stage(value, gradient)}, in their order.

    pixel_values: (B, C, H, W); H and W need not be the model's image_size, positions are interpolated. The names:

        pixel_values (B, C, H, W)
        embeddings.patches (B, N, D), .cls (1, 1, D), .positions (1, T, D), .output (B, T, D), the sum
        layer.0.layernorm_before (B, T, D)
        layer.0.query, .key, .value (B, h, T, d)
        layer.0.scores, .probabilities (B, h, q, k), before and after softmax
        layer.0.context (B, h, q, d), .attention_output (B, T, D), the heads mixed
        layer.0.attention_sum (B, T, D), with the residual
        layer.0.layernorm_after (B, T, D)
        layer.0.mlp_pre_activation, .mlp_activation (B, T, F)
        layer.0.mlp_output (B, T, D)
        layer.0.output (B, T, D), with the residual; so for each of the L layers
        last_hidden_state (B, T, D), after the final norm
        pooler_output (B, D), logits (B, K), if the model has them

    gradient_of: a class, for the gradient of its logit (summed over B: the pictures do not meet), or a function that
    takes {name: Tensor} of these stages and returns the one number to go back from, such as
    `lambda stages: ops.cross_entropy(stages["logits"], labels)`. A stage that the number does not depend on has 0.
    Without it every gradient is None. There is no dropout. Everything is kept: scores and probabilities alone are
    8 L B h T^2 bytes in float32, and as much again for their gradients. MinivitError for a class of a model that has
    none.
    """
    backward = gradient_of is not None
    pixels = np.asarray(pixel_values)
    pixels = pixels.astype(model.dtype, copy=False) if pixels.dtype.kind == "f" else pixels
    with _frozen(model), contextlib.nullcontext() if backward else no_grad():
        stages = _walk(model, Tensor(pixels, requires_grad=backward))
        if not backward:
            return {name: Stage(stage.data, None) for name, stage in stages.items()}
        if not callable(gradient_of) and "logits" not in stages:
            came = f"gradient_of={gradient_of!r} is a class, and {type(model).__name__} has no classifier."
            raise MinivitError("trace", came, hint='a function: lambda stages: stages["last_hidden_state"][0, 0, 5]')
        for stage in stages.values():
            stage.retain_grad()
        number = gradient_of(stages) if callable(gradient_of) else stages["logits"][:, gradient_of].sum()
        number.backward()
    gradients = [np.zeros_like(stage.data) if stage.grad is None else stage.grad for stage in stages.values()]
    return {name: Stage(x.data, dx) for (name, x), dx in zip(stages.items(), gradients, strict=True)}


@contextlib.contextmanager
def _frozen(model):
    """Inside, the parameters need no gradient: backward() goes past them, and what they have in .grad stays."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in learned:
            parameter.requires_grad = False
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad = True


def _walk(model, pixel_values):
    """The stages of trace as Tensors: the model, walked by its parts."""
    body, stages = getattr(model, "vit", model), {}
    cut, positions = body.embeddings.patch_embeddings, body.embeddings.position_embeddings

    def keep(name, x):
        stages[name] = x
        return x

    patches = cut(keep("pixel_values", pixel_values), interpolate_pos_encoding=True)
    patches = keep("embeddings.patches", patches)  # (B, N, D)
    grid = tuple(side // patch for side, patch in zip(pixel_values.shape[2:], cut.patch_size, strict=True))
    if grid != cut.grid:
        positions = interpolate_positions(positions, cut.grid, grid)
    start = pixel_values.requires_grad  # the model is frozen: for these two the graph starts here
    cls = keep("embeddings.cls", Tensor(body.embeddings.cls_token.data, start))  # (1, 1, D)
    positions = keep("embeddings.positions", Tensor(positions.data, start))  # (1, T, D)
    tokens = ops.concatenate([cls.expand(len(patches), -1, -1), patches], axis=1)  # (B, T, D)
    x = keep("embeddings.output", tokens + positions)
    for i, layer in enumerate(body.encoder.layer):
        activation = nn.ACTIVATIONS[body.config.hidden_act]
        x = _walk_layer(layer, x, activation, lambda name, x, i=i: keep(f"layer.{i}.{name}", x))
    x = keep("last_hidden_state", body.layernorm(x))
    if body.pooler is not None:
        keep("pooler_output", body.pooler(x))  # (B, D)
    if hasattr(model, "classifier"):
        keep("logits", model.classifier(x[:, 0]))  # (B, K)
    return stages


def _walk_layer(layer, x, activation, keep):
    """One block, (B, T, D) -> (B, T, D), each of its stages kept."""
    attention = layer.attention.attention
    B, T, _ = x.shape
    h, d = attention.num_attention_heads, attention.attention_head_size

    def heads(name):
        y = getattr(attention, name)(normed).reshape(B, T, h, d)
        return keep(name, y.transpose(0, 2, 1, 3))  # (B, h, T, d)

    normed = keep("layernorm_before", layer.layernorm_before(x))
    q, k, v = heads("query"), heads("key"), heads("value")
    scores = keep("scores", ops.einsum("Bhqd,Bhkd->Bhqk", q, k) / math.sqrt(d))
    probabilities = keep("probabilities", ops.softmax(scores))
    context = keep("context", ops.einsum("Bhqk,Bhkd->Bhqd", probabilities, v))
    context = context.transpose(0, 2, 1, 3).reshape(B, T, h * d)
    x = keep("attention_sum", x + keep("attention_output", layer.attention.output.dense(context)))
    normed = keep("layernorm_after", layer.layernorm_after(x))
    wide = keep("mlp_pre_activation", layer.intermediate.dense(normed))  # (B, T, F)
    narrow = keep("mlp_output", layer.output.dense(keep("mlp_activation", activation(wide))))
    return keep("output", x + narrow)


def attention_rollout(attentions, residual=0.5):
    """Attention followed down through all layers: how much of each input token arrives in each output token.

    attentions: L arrays (B, h, T, T), as the model's output_attentions gives them. residual: the share of a token that
    goes past attention, on the residual connection, 0 to 1.
    Returns (B, T, T): rows are output tokens, columns input tokens, and each row sums to 1; [:, 0, 1:] is what CLS has
    of the patches. A layer is the mean of its heads, mixed with the identity; the last layer stands leftmost.
    ShapeError for attentions that do not fit together.
    Source: Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3.
    """
    if not 0 <= residual <= 1:
        raise MinivitError("attention_rollout", f"residual={residual}.", rule="a share, 0 to 1.")
    layers = [np.asarray(attention) for attention in (() if attentions is None else attentions)]
    without_heads = {layer.shape[:1] + layer.shape[2:] for layer in layers}  # heads may be pruned, the rest is equal
    if len(without_heads) != 1 or layers[0].ndim != 4 or layers[0].shape[2] != layers[0].shape[3]:
        raise ShapeError(
            "attention_rollout",
            f"attentions have the shapes {[layer.shape for layer in layers]}.",
            rule="one (B, h, T, T) for each layer, B and T the same in all.",
            hint="model(pixel_values, output_attentions=True).attentions",
        )
    identity = np.eye(layers[0].shape[2], dtype=layers[0].dtype)
    arrived = identity
    for layer in layers:
        mixed = residual * identity + (1 - residual) * layer.mean(1)  # (B, T, T)
        mixed = mixed / mixed.sum(-1, keepdims=True)  # over keys: dropout leaves rows that do not sum to 1
        arrived = mixed @ arrived
    return arrived


def attention_distance(attention, grid):
    """How far each head looks: the mean distance from the patch that asks to those it attends to, in patches.

    attention: (B, h, T, T) of one layer, with T = N, or N + 1 with CLS first. CLS has no place: it is left out, and
    each row's patches share its attention anew. grid: (rows, columns) of the patches. Returns (h,).
    ShapeError for attention that does not fit the grid.
    Source: Dosovitskiy et al. 2021, figure 7 (right), there in pixels.
    """
    attention = np.asarray(attention)
    rows, columns = grid
    N = rows * columns
    if attention.ndim != 4 or attention.shape[2] != attention.shape[3] or attention.shape[3] not in (N, N + 1):
        raise ShapeError(
            "attention_distance",
            f"attention has the shape {attention.shape}.",
            rule=f"(B, h, T, T) with T = {rows} * {columns} = {N}, or {N + 1} with CLS.",
            hint="one layer of output.attentions; the grid is model.vit.embeddings.patch_embeddings.grid.",
        )
    place = np.stack(np.divmod(np.arange(N), columns), axis=1)  # (N, 2), row and column of each patch
    distance = np.sqrt(((place[:, None] - place) ** 2).sum(-1))  # (N, N)
    among_patches = attention[:, :, -N:, -N:]  # (B, h, N, N)
    share = among_patches / among_patches.sum(-1, keepdims=True)
    return (share * distance).sum(-1).mean((0, 2))  # (h,)


class Components(NamedTuple):
    """Principal components of R tokens.

    coordinates: (R, n), where each token lies on each axis, 0 being the mean token. axes: (n, D), orthogonal, of
    length 1. mean: (D,). shares: (n,) of the tokens' variance, the largest first.
    """

    coordinates: np.ndarray
    axes: np.ndarray
    mean: np.ndarray
    shares: np.ndarray


def principal_components(tokens, n=3):
    """The n directions in which tokens differ most, and where each token lies on them: Components, in float64.

    tokens: (R, D) or (1, R, D): the patches of one photo, say, or of several photos one behind the other, which then
    share their axes. Leave CLS out: it is like no patch. The sign of an axis means nothing; it is set so that the
    largest of its D numbers is positive. plots.token_colours turns three coordinates into a colour.
    MinivitError unless 1 <= n <= min(R, D).
    Source: Pearson 1901; for tokens as colours Oquab et al. 2023, "DINOv2", figure 1.
    """
    x = as_vectors("principal_components", "tokens", tokens).astype(np.float64)
    if not 1 <= n <= min(x.shape):
        raise MinivitError("principal_components", f"n={n}.", rule=f"1 to min(R, D) = {min(x.shape)} components.")
    mean = x.mean(0)  # (D,)
    _, lengths, axes = np.linalg.svd(x - mean, full_matrices=False)  # (min(R, D),), (min(R, D), D)
    largest = abs(axes).argmax(1)[:, None]
    axes = (axes * np.sign(np.take_along_axis(axes, largest, axis=1)))[:n]  # (n, D)
    variance = lengths**2
    return Components((x - mean) @ axes.T, axes, mean, variance[:n] / max(variance.sum(), np.finfo(float).tiny))


def similarity(tokens, patch, among=None):
    """Cosine similarity of one patch's token to each token: 1 for the same direction, 0 for unrelated, -1 at most.

    tokens: (T, D) or (1, T, D), CLS first. patch: its token, n + 1 for patch n, or 0 for CLS. among: the tokens
    (T', D) to compare with, of another photo, say; None for the same ones. Returns (T',); [1:] are the patches, row by
    row. ShapeError for a patch that is not there.
    """
    rows = as_vectors("similarity", "tokens", tokens)
    if not 0 <= patch < len(rows):
        raise ShapeError("similarity", f"there is no patch {patch}.", rule=f"1 to {len(rows) - 1}, or 0 for CLS.")
    others = rows if among is None else as_vectors("similarity", "among", among)
    return _cosines(rows[patch : patch + 1], others)[0]


def position_similarity(positions, grid):
    """Cosine similarity of each position embedding to each: (rows, columns, rows, columns), one map of the grid each.

    positions: (T, D) or (1, T, D), with T = N, or N + 1 with CLS first, which is left out. grid: (rows, columns) of the
    patches. ShapeError for positions that do not fit the grid.
    Source: Dosovitskiy et al. 2021, figure 7 (centre).
    """
    rows, columns = grid
    N = rows * columns
    fits = f"(T, D) or (1, T, D) with T = {rows} * {columns} = {N}, or {N + 1} with CLS"
    vectors = as_vectors("position_similarity", "positions", positions, (N, N + 1), fits)[-N:]  # (N, D)
    return _cosines(vectors, vectors).reshape(rows, columns, rows, columns)


def as_vectors(where, name, array, counts=None, rule="(T, D) or (1, T, D), of one picture."):
    """One picture's tokens or positions, (R, D) or (1, R, D), as an array (R, D). ShapeError unless R is in counts."""
    vectors = np.asarray(array)
    vectors = vectors[0] if vectors.ndim == 3 and len(vectors) == 1 else vectors
    if vectors.ndim != 2 or len(vectors) not in (counts or [len(vectors)]):
        raise ShapeError(where, f"{name} have the shape {np.shape(array)}.", rule=rule)
    return vectors


def _cosines(one, other):
    """(R, D), (S, D) -> (R, S); 0 for a vector of zeros."""
    one, other = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (one, other))
    return one @ other.T


def logit_lens(model, hidden_states):
    """What the model would answer if it stopped after each layer: the CLS token through final norm and classifier.

    hidden_states: L + 1 arrays or Tensors (B, T, D), the embeddings and each layer's output, as output_hidden_states
    gives them. Returns (L + 1, B, K); the last row is the model's logits.
    Source: nostalgebraist 2020, "interpreting GPT: the logit lens", for language models.
    """
    with model.evaluating(), no_grad():
        cls = [Tensor(np.asarray(states)[:, 0]) for states in hidden_states]  # L + 1 of (B, D)
        return np.stack([model.classifier(model.vit.layernorm(x)).data for x in cls])  # (L + 1, B, K)


def occlusion(model, pixel_values, label, grey=0.0):
    """What the model misses when a patch is hidden: the fall of the class's logit, for each patch.

    pixel_values: (C, H, W) or (1, C, H, W), one picture of any size, positions are interpolated. label: the class, 0 to
    K - 1; or, of a model without classes, a function of the class tokens (B, D) after the final norm that gives (B,)
    numbers, arrays or Tensors. grey: the value that the hidden patch's pixels get; 0 is mid-grey for
    images.pixel_values. Returns (rows, columns) of the patches; above 0 the patch spoke for the class, below 0 against
    it. ShapeError for more than one picture.
    Source: Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2.
    """
    picture = np.asarray(pixel_values)
    picture = picture[0] if picture.ndim == 4 and len(picture) == 1 else picture  # (C, H, W)
    if picture.ndim != 3:
        raise ShapeError(
            "occlusion", f"pixel_values have the shape {picture.shape}.", rule="one picture: (C, H, W) or (1, C, H, W)."
        )
    K = model.config.num_labels
    if not callable(label) and not 0 <= label < K:
        raise MinivitError("occlusion", f"there is no class {label}.", rule=f"classes are numbered 0 to {K - 1}.")
    body = getattr(model, "vit", model)

    def answer(pictures):
        cls = body(pictures, interpolate_pos_encoding=True).last_hidden_state[:, 0]  # (B, D)
        return np.asarray(label(cls) if callable(label) else model.classifier(cls)[:, label])  # (B,)

    ph, pw = to_2tuple(model.config.patch_size)
    rows, columns = grid = picture.shape[1] // ph, picture.shape[2] // pw
    pictures = np.repeat(picture[None], rows * columns + 1, axis=0)  # (N + 1, C, H, W); the last stays whole
    for patch, (row, column) in enumerate(np.ndindex(grid)):
        pictures[patch, :, row * ph : (row + 1) * ph, column * pw : (column + 1) * pw] = grey
    with model.evaluating(), no_grad():
        number = np.concatenate([answer(pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)])  # (N + 1,)
    return (number[-1] - number[:-1]).reshape(grid)


def head_importance(model, pixel_values, labels):
    """What each head is worth: the rise of the loss, in nats, when head_mask silences it and no other.

    pixel_values: (B, C, H, W), labels: (B,). Returns (L, h); below 0 the model does better without the head.
    Source: Michel et al. 2019, "Are Sixteen Heads Really Better than One?", section 3.
    """
    layers = model.vit.encoder.layer
    whole = np.ones((len(layers), layers[0].attention.attention.num_attention_heads))
    rise = np.zeros_like(whole)  # (L, h)
    with model.evaluating(), no_grad():

        def loss(mask):
            return ops.cross_entropy(model(pixel_values, head_mask=mask).logits, labels).item()

        before = loss(whole)
        for head in np.ndindex(whole.shape):
            mask = whole.copy()
            mask[head] = 0
            rise[head] = loss(mask) - before
    return rise


class Answer(NamedTuple):
    """What a model makes of B pictures: cls (B, D) after the final norm, and logits (B, K), or None without classes.

    looks: where it was asked for, {layer: (B, h, T)}, what CLS attends to in the head's layer and in those after it.
    """

    cls: np.ndarray
    logits: np.ndarray | None
    looks: dict | None = None


def knock_out(model, pixel_values, heads=None, output_attentions=False):
    """The model's answers without each of these heads, one head at a time: {(layer, head): Answer}.

    pixel_values: (B, C, H, W) of any size, positions are interpolated. heads: a list of (layer, head); None is every
    one. Heads are counted as head_mask counts them: of a layer that was pruned, those that are left. The answer of the
    whole model is there too, under None. What comes before a head's layer is computed once for all heads.
    output_attentions: with what CLS attends to (see Answer); the head that is out attends to nothing, all 0.
    MinivitError for a head that is not there.
    Source: Michel et al. 2019, section 3, there by the score; what the answers differ in is for the caller to measure.
    """
    body = getattr(model, "vit", model)
    layers = list(body.encoder.layer)
    counts = [layer.attention.attention.num_attention_heads for layer in layers]
    every = [(i, head) for i, count in enumerate(counts) for head in range(count)]
    heads = every if heads is None else [tuple(np.atleast_1d(head).tolist()) for head in heads]
    unknown = [head for head in heads if head not in every]
    if unknown:
        raise MinivitError(
            "knock_out",
            f"there is no head {unknown[0]}.",
            rule=f"(layer, head), layers 0 to {len(layers) - 1} of {', '.join(map(str, sorted(set(counts))))} heads.",
        )

    def onward(first, tokens, mask=None):
        """The tokens (B, T, D) before layer `first` and after each from there on, and what CLS attends to in them."""
        states, looks = [tokens], {}
        for i, layer in enumerate(layers[first:], first):
            tokens, *attention = layer(states[-1], mask if i == first else None, output_attentions)
            states.append(tokens)
            if output_attentions:
                looks[i] = attention[0].data[:, :, 0]  # (B, h, T)
        return states, looks or None

    def answer(states, looks):
        cls = body.layernorm(states[-1][:, 0])  # (B, D)
        return Answer(cls.data, model.classifier(cls).data if hasattr(model, "classifier") else None, looks)

    with model.evaluating(), no_grad():
        states, looks = onward(0, body.embeddings(pixel_values, interpolate_pos_encoding=True))  # L + 1 of (B, T, D)
        answers = {None: answer(states, looks)}
        for i, head in heads:
            mask = np.ones((counts[i], 1, 1), model.dtype)
            mask[head] = 0
            answers[i, head] = answer(*onward(i, states[i], mask))
    return answers
