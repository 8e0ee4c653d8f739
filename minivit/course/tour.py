"""The tour: one photo walked through a Vision Transformer by hand, from the pixels to the loss and back.

Every step uses the model's own parameters, is printed with its einsum or formula, and the results are compared with
what the model itself gives. The weights are drawn at random: the shapes and the gradients are the lesson.
"""

import math
import time

import matplotlib.pyplot as plt
import numpy as np

from .. import images, ops, plots
from ..autograd import Tensor
from ..errors import shortened, shown
from ..gradcheck import GradientError, compare
from ..machinery.files import writable_folder
from ..vit import ViTConfig, ViTForImageClassification

FIGURES = ("01_patch_grid.png", "02_attention.png", "03_position_similarity.png", "04_pixel_gradient.png")
LABEL = np.array([0])  # any class will do for an untrained model
DIRECTIONS = 3
ALLOWED = 1e-5  # relative error of backward against finite differences, in float64


def tour(photo, out, seed=0, config=None):
    """Walk a photo through a Vision Transformer, print every stage, and draw four figures into a folder.

    photo: path of a picture. out: folder for the PNG files, made if missing. seed: of the random weights.
    config: a ViTConfig; None takes ViT-Tiny/16 with 1000 classes. Returns the paths of the figures.
    FileError, before any work, for a bad photo and for a folder that cannot be written to; GradientError if in the end
    the model's gradients and finite differences differ.
    """
    images.open_image(photo)
    out = writable_folder(out)
    model = ViTForImageClassification(config or ViTConfig.tiny(num_labels=1000), rng=seed).eval()
    pixel_values, attentions = _walk(photo, model, seed)
    paths = _draw(out, model, pixel_values, attentions)
    print("\nFigures")
    for path in paths:
        print(f"  {shown(path)}")
    print()
    model.zero_grad()
    _check_gradients(model, pixel_values.data)
    return paths


def _walk(photo, model, seed):
    """Print the table of all stages, forward by hand, then back.

    Returns pixel_values, a Tensor (B, C, H, W) with its gradient, and the first block's attentions (B, h, q, k).
    """
    vit, embeddings, encoder = model.vit, model.vit.embeddings, model.vit.encoder
    block, cut = encoder.layer[0], embeddings.patch_embeddings
    query, key, value = (getattr(block.attention.attention, name) for name in ("query", "key", "value"))
    B, C, (H, W), (P, Q), (Y, X) = 1, cut.num_channels, cut.image_size, cut.patch_size, cut.grid
    N, D, d, K = Y * X, query.weight.shape[1], block.attention.attention.attention_head_size, model.config.num_labels

    print(f"A Vision Transformer of {model.num_parameters():,} parameters, drawn at random with seed {seed}.")
    print("It is untrained: what it says about the photo means nothing yet; its shapes and gradients are real.")
    print(f"  photo {shown(photo)}")
    print(f"  B = {B} photo, C = {C} channels, H x W = {H} x {W} pixels, cut into Y x X patches of P x Q = {P} x {Q}")
    print(f"  N = Y * X = {Y} * {X} = {N} patches, T = N + 1 = {N + 1} tokens, D = {D} hidden size, K = {K} classes")
    print(f"  h = {D // d} heads, d = D / h = {d} head size; q are the tokens that ask, k those that are asked\n")
    row = _Table()

    picture = images.open_image(photo)
    row("01", "photo", "file -> upright RGB (H, W, C)", np.asarray(picture))
    x = Tensor(images.pixel_values(picture, (H, W))[None], requires_grad=True)  # (B, C, H, W)
    row("01", "pixel_values", "resize; (x / 255 - 0.5) / 0.5", x)

    patches = ops.einsum("BCYPXQ->BYXCPQ", x.reshape(B, C, Y, P, X, Q)).reshape(B, N, C * P * Q)  # (B, N, CPQ)
    row("01", "patches", "BCYPXQ->BYXCPQ; (YX) = N, (CPQ) = p", patches)
    kernel = cut.projection.weight.reshape(D, C * P * Q)  # (D, CPQ)
    tokens = ops.einsum("BNp,Dp->BND", patches, kernel) + cut.projection.bias  # (B, N, D)
    row("02", "patch embeddings", "BNp,Dp->BND, + bias", tokens, cut.num_parameters())
    tokens = ops.concatenate([embeddings.cls_token, tokens], axis=1)  # (B, T, D)
    row("03", "CLS in front", "concatenate(CLS, patches)", tokens, embeddings.cls_token.size)
    tokens = tokens + embeddings.position_embeddings
    row("04", "position embeddings", "tokens + positions", tokens, embeddings.position_embeddings.size)

    normed = block.layernorm_before(tokens)
    count = block.layernorm_before.num_parameters()
    row("06", "block 1: layer norm", "(x - mean) / sqrt(var + eps) * w + b", normed, count, "({:,})")
    q, k, v = (_first_head(normed, layer, d) for layer in (query, key, value))  # (B, T, d) each
    count = sum(layer.num_parameters() for layer in (query, key, value)) * d // D
    row("05", "  head 1: q, k, v", "BTD,dD->BTd, + bias, three times", q, count, "({:,})")
    scores = ops.einsum("Bqd,Bkd->Bqk", q, k) / math.sqrt(d)  # (B, q, k)
    row("05", "  scores", "Bqd,Bkd->Bqk, / sqrt(d)", scores)
    attention = ops.softmax(scores)
    row("05", "  attention", "softmax over k", attention)
    context = ops.einsum("Bqk,Bkd->Bqd", attention, v)  # (B, q, d)
    row("05", "  context", "Bqk,Bkd->Bqd", context)

    encoded = encoder(tokens, output_attentions=True)
    blocks = f"encoder: {len(encoder.layer)} blocks"
    row("06", blocks, "x + att(norm(x)), x + mlp(norm(x))", encoded.last_hidden_state, encoder.num_parameters())
    normed = vit.layernorm(encoded.last_hidden_state)  # (B, T, D)
    row("06", "final layer norm", "(x - mean) / sqrt(var + eps) * w + b", normed, vit.layernorm.num_parameters())
    logits = ops.einsum("BD,KD->BK", normed[:, 0], model.classifier.weight) + model.classifier.bias  # (B, K)
    row("07", "logits", "CLS only: BD,KD->BK, + bias", logits, model.classifier.num_parameters())
    loss = ops.cross_entropy(logits, LABEL)
    row("09", "loss", f"-log softmax(logits)[class {LABEL[0]}]", loss)
    loss.backward()
    row("08", "gradient", "loss.backward(): d loss / d pixel_values", x.grad)
    total = f"{model.num_parameters():,}"
    print(row.LINE.format("", "all parameters", "those in () are part of the encoder's", "", total, "").rstrip())

    print("\nThe number before each stage is its lesson: minivit list, minivit run NN.")
    print(f"loss {loss.item():.4f}; to guess evenly among {K} classes costs log K = {math.log(K):.4f}")
    print(f"norm of the gradient at the pixels: {np.linalg.norm(x.grad):.4e}")
    own = Tensor(x.data, requires_grad=True)
    output = model(own, labels=LABEL)
    output.loss.backward()
    _equal("hand-walked attention of head 1 == attentions[0][:, 0]", attention, encoded.attentions[0][:, 0])
    _equal("hand-walked logits == model(pixel_values).logits", logits, output.logits)
    _equal("hand-walked gradient at the pixels == the model's own", x.grad, own.grad)
    return x, encoded.attentions[0]


def _first_head(x, layer, d):
    """One head's q, k or v: (B, T, D) -> (B, T, d), by the first d rows of the layer's weight and bias."""
    y = ops.einsum("BTD,dD->BTd", x, layer.weight[:d])
    return y if layer.bias is None else y + layer.bias[:d]


class _Table:
    """One line for each stage, after the number of its lesson; its time counts from the line before."""

    LINE = "{:<3} {:<22} {:<41} {:<18} {:>11} {:>10}"

    def __init__(self):
        print(self.LINE.format("", "stage", "einsum or formula", "shape", "parameters", "time"))
        print("-" * 110)
        self.start = time.perf_counter()

    def __call__(self, lesson, name, formula, value, parameters=0, form="{:,}"):
        spent = f"{1000 * (time.perf_counter() - self.start):.1f} ms"
        print(self.LINE.format(lesson, name, formula, str(value.shape), form.format(parameters), spent), flush=True)
        self.start = time.perf_counter()


def _equal(claim, by_hand, by_model):
    """Print the largest difference of two results that are the same but for float32's rounding."""
    by_hand, by_model = np.asarray(by_hand), np.asarray(by_model)
    difference = abs(by_hand - by_model).max()
    print(f"{claim}: max difference {difference:.1e}")
    assert difference <= 1e-4 * abs(by_model).max(), claim


def _draw(out, model, pixel_values, attentions):
    """Draw the figures of the model into the folder, each file whole or not there. Returns their paths."""
    cut = model.vit.embeddings.patch_embeddings
    photo, (rows, columns) = images.to_image(pixel_values.data[0]), cut.grid
    query = rows // 2 * columns + columns // 2 + 1  # the patch in the middle
    figures = [
        (None, plots.patch_grid(photo, cut.patch_size)),
        ("Attention in block 1", plots.attention_over_photo(photo, attentions.data[0, :, query], cut.grid, query)),
        ("Positions", plots.position_similarity(model.vit.embeddings.position_embeddings, cut.grid)),
        ("Gradient of the loss", plots.pixel_gradient(photo, pixel_values.grad)),
    ]
    paths = [out / name for name in FIGURES]
    try:
        for (subject, figure), path in zip(figures, paths, strict=True):
            if subject:
                figure.suptitle(f"{subject}, untrained: the weights are random")
            plots.save(figure, path)
    finally:
        for _, figure in figures:
            plt.close(figure)
    return paths


def _check_gradients(model, pixel_values):
    """Compare backward with finite differences, for the pixels and all parameters together, in float64."""
    inputs = [pixel_values, *model.parameters()]
    names = {f"input {i}": name for i, (name, _) in enumerate(model.named_parameters(), start=1)}

    def loss(pixel_values, *_):
        return model(pixel_values, labels=LABEL).loss

    # a smaller step than for one number, since each moves all of them at once
    found = compare(loss, *inputs, eps=1e-7, rtol=ALLOWED, directions=DIRECTIONS)
    error = max(comparison.worst for comparison in found)
    print(
        f"gradient check of the whole model: relative error {error:.1e} over {DIRECTIONS} directions "
        f"of {sum(x.size for x in inputs) / 1e6:.2g} million numbers (allowed {ALLOWED:.0e})"
    )
    if not error <= ALLOWED:
        wrong = [f"{names.get(c.argument, c.argument)} ({c.worst:.1e})" for c in found if not c.worst <= ALLOWED]
        raise GradientError("tour", f"backward and finite differences differ for {', '.join(shortened(wrong, 5))}.")
