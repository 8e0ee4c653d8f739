"""What a trained model looks at: numbers in, arrays out. The figures are in plots.

B batch, C channels, H W pixels, N patches, T = N + 1 tokens with CLS first, h heads, L layers, K classes.
Models are ViTForImageClassification; each function measures in evaluation mode, and leaves the mode as it was.
"""

import numpy as np

from . import ops
from .autograd import Tensor, no_grad
from .config import to_2tuple
from .errors import MinivitError, ShapeError

BATCH = 64  # pictures that occlusion shows the model at once


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

    pixel_values: (C, H, W) or (1, C, H, W), one picture. label: the class, 0 to K - 1. grey: the value that the hidden
    patch's pixels get; 0 is mid-grey for images.pixel_values. Returns (rows, columns) of the patches; above 0 the
    patch spoke for the class, below 0 against it. ShapeError for more than one picture.
    Source: Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2.
    """
    picture = np.asarray(pixel_values)
    picture = picture[0] if picture.ndim == 4 and len(picture) == 1 else picture  # (C, H, W)
    if picture.ndim != 3:
        raise ShapeError(
            "occlusion", f"pixel_values have the shape {picture.shape}.", rule="one picture: (C, H, W) or (1, C, H, W)."
        )
    K = model.config.num_labels
    if not 0 <= label < K:
        raise MinivitError("occlusion", f"there is no class {label}.", rule=f"classes are numbered 0 to {K - 1}.")
    ph, pw = to_2tuple(model.config.patch_size)
    rows, columns = grid = picture.shape[1] // ph, picture.shape[2] // pw
    pictures = np.repeat(picture[None], rows * columns + 1, axis=0)  # (N + 1, C, H, W); the last stays whole
    for patch, (row, column) in enumerate(np.ndindex(grid)):
        pictures[patch, :, row * ph : (row + 1) * ph, column * pw : (column + 1) * pw] = grey
    with model.evaluating(), no_grad():
        logits = [model(pictures[i : i + BATCH]).logits.data[:, label] for i in range(0, len(pictures), BATCH)]
    logit = np.concatenate(logits)  # (N + 1,)
    return (logit[-1] - logit[:-1]).reshape(grid)


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
