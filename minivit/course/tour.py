"""The tour: one photo walked through a trained Vision Transformer by hand, from the pixels to the loss and back.

Every step uses the network's own parameters, is printed with its einsum or formula, and the results are compared with
what the model itself gives. Then it is drawn what the network sees; with untrained weights, what there is to see
without learning.
"""

import math
import time

import matplotlib.pyplot as plt
import numpy as np

from .. import images, ops, plots
from ..autograd import Tensor
from ..config import ViTConfig, to_2tuple
from ..errors import MinivitError, shortened, shown
from ..gradcheck import GradientError, compare
from ..lens import similarity
from ..machinery.files import writable_folder
from ..ops.positions import interpolate_positions
from ..vit import ViTModel
from . import three
from .three import which_of_three

PATCHES = 384  # about so many is a photo cut into, and each of the three into two thirds of it
CHECKED = 5  # patches a side of the piece of photo on which the gradients are checked
DIRECTIONS = 3
ALLOWED = 1e-5  # relative error of backward against finite differences, in float64


def tour(photo, out, patch=None, untrained=False, seed=0, config=None):
    """Walk a photo through the trained eye of the box, print every stage, and draw six figures into a folder.

    photo: path of a picture; its sides keep their ratio, and positions are interpolated. out: folder for the PNG files,
    made if missing. patch: (row, column), from 0, of the patch whose view is drawn; None takes the one that the class
    token looks at most. untrained: random weights, of `seed`. config: a ViTConfig for another, untrained model.
    Returns the paths of the figures. FileError, before any work, for a bad photo and for a folder that cannot be
    written to; MinivitError for a patch that is not there; GradientError if in the end the model's gradients and finite
    differences differ.
    """
    P, Q = to_2tuple(config.patch_size) if config else (14, 14)
    picture = images.fit_patches(photo, (P, Q), PATCHES)
    grid = picture.height // P, picture.width // Q
    _check_patch(patch, grid)
    out = writable_folder(out)
    if config or untrained:
        config = config or ViTConfig.from_pretrained("dinov2-small")
        model = ViTModel(config, add_pooling_layer=False, rng=seed).eval()
    else:
        model = ViTModel.from_pretrained("dinov2-small", add_pooling_layer=False)
    told = f"drawn at random with seed {seed}: untrained" if config else "trained on photos without labels (DINOv2)"
    print(f"A Vision Transformer of {model.num_parameters():,} parameters, {told}.\n  photo {shown(photo)}")
    few = PATCHES * 2 // 3
    classifier = three.classifier(model, lambda photo: _pixels(images.fit_patches(photo, (P, Q), few)))
    x, states, attentions = _walk(picture, model, grid, classifier)
    if patch is None:
        patch = divmod(int(attentions[-1][0, :, 0, 1:].mean(0).argmax()), grid[1])
    query, note = 1 + patch[0] * grid[1] + patch[1], "untrained" if config else ""
    paths = _draw(out, x, grid, (P, Q), states, attentions, query, note)
    print(f"\nFigures; the pink patch is --patch {patch[0]},{patch[1]}")
    for path in paths:
        print(f"  {shown(path)}")
    print()
    _check_gradients(model, x.data[:, :, : CHECKED * P, : CHECKED * Q], classifier)
    return paths


def _check_patch(patch, grid):
    if patch is not None and not all(0 <= place < count for place, count in zip(patch, grid, strict=True)):
        raise MinivitError(
            "tour",
            f"there is no patch {patch[0]},{patch[1]}.",
            rule=f"this photo has rows 0 to {grid[0] - 1} and columns 0 to {grid[1] - 1} of patches.",
        )


def _pixels(picture):
    """A picture as the network wants it: (1, 3, H, W)."""
    return images.pixel_values(picture, picture.size[::-1], **images.IMAGENET)[None]


def _walk(picture, model, grid, classifier):
    """Print the table of all stages, forward by hand, then back.

    Returns pixel_values, a Tensor (B, C, H, W) with its gradient, the hidden states, L + 1 arrays (B, T, D), and the
    attentions, L arrays (B, h, q, k).
    """
    embeddings, encoder = model.embeddings, model.encoder
    block, cut = encoder.layer[0], embeddings.patch_embeddings
    query, key, value = (getattr(block.attention.attention, name) for name in ("query", "key", "value"))
    B, C, (W, H), (P, Q), (Y, X) = 1, cut.num_channels, picture.size, cut.patch_size, grid
    N, D, d, K = Y * X, query.weight.shape[1], block.attention.attention.attention_head_size, len(three.BOX)
    print(f"  B = {B} photo, C = {C} channels, H x W = {H} x {W} pixels, cut into Y x X patches of P x Q = {P} x {Q}")
    print(f"  N = Y * X = {Y} * {X} = {N} patches, T = N + 1 = {N + 1} tokens, D = {D} hidden size")
    print(f"  h = {D // d} heads, d = D / h = {d} head size; q are the tokens that ask, k those that are asked\n")
    row = _Table()

    row("01", "photo, at its own ratio", "resize; cut to whole patches", np.asarray(picture))
    x = Tensor(_pixels(picture), requires_grad=True)  # (B, C, H, W)
    row("01", "pixel_values", "(x / 255 - mean) / std", x)

    patches = ops.einsum("BCYPXQ->BYXCPQ", x.reshape(B, C, Y, P, X, Q)).reshape(B, N, C * P * Q)  # (B, N, CPQ)
    row("01", "patches", "BCYPXQ->BYXCPQ; (CPQ) = p", patches)
    kernel = cut.projection.weight.reshape(D, C * P * Q)  # (D, CPQ)
    tokens = ops.einsum("BNp,Dp->BND", patches, kernel) + cut.projection.bias  # (B, N, D)
    row("02", "patch embeddings", "BNp,Dp->BND, + bias", tokens, cut.num_parameters())
    tokens = ops.concatenate([embeddings.cls_token, tokens], axis=1)  # (B, T, D)
    row("03", "CLS in front", "concatenate(CLS, patches)", tokens, embeddings.cls_token.size)
    positions = interpolate_positions(embeddings.position_embeddings, cut.grid, grid)  # (1, T, D)
    row("04", "positions", f"{cut.grid[0]} x {cut.grid[1]} -> {Y} x {X}, bicubic", positions)
    tokens = tokens + positions
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

    encoded = encoder(tokens, output_attentions=True, output_hidden_states=True)
    blocks = f"encoder: {len(encoder.layer)} blocks"
    row("06", blocks, "x + att(norm(x)), x + mlp(norm(x))", encoded.last_hidden_state, encoder.num_parameters())
    normed = model.layernorm(encoded.last_hidden_state)  # (B, T, D)
    row("06", "final layer norm", "(x - mean) / sqrt(var + eps) * w + b", normed, model.layernorm.num_parameters())
    logits = which_of_three(normed[:, 0], classifier)  # (B, K)
    row("07", "which of three: logits", f"BD,KD->BK, {three.TEMPERATURE} cos(CLS - m, row)", logits)
    label = logits.data.argmax(1)
    loss = ops.cross_entropy(logits, label)
    row("09", "loss", f"-log softmax(logits)[{label[0]}]", loss)
    loss.backward()
    row("08", "gradient", "loss.backward(): d loss / d pixels", x.grad)
    total = f"{model.num_parameters():,}"
    print(row.LINE.format("", "all parameters", "(): part of the encoder's", "", total, "").rstrip())

    print("\nThe number before each stage is its lesson: minivit list, minivit run NN.")
    answers = zip(three.BOX, logits.data[0], ops.softmax(logits).data[0], strict=True)
    answers = ", ".join(f"{name} {logit:+.2f} ({chance:.0%})" for name, logit, chance in answers)
    print(f"which of three is it most like? {answers}")
    print(f"loss {loss.item():.4f}; to guess evenly among {K} costs log K = {math.log(K):.4f}")
    print(f"norm of the gradient at the pixels: {np.linalg.norm(x.grad):.4e}")
    own = Tensor(x.data, requires_grad=True)
    output = model(own, interpolate_pos_encoding=True)
    by_model = which_of_three(output.last_hidden_state[:, 0], classifier)
    ops.cross_entropy(by_model, label).backward()
    _equal("hand-walked attention of head 1 == attentions[0][:, 0]", attention, encoded.attentions[0][:, 0])
    _equal("hand-walked logits == those of model(pixel_values)", logits, by_model)
    _equal("hand-walked gradient at the pixels == the model's own", x.grad, own.grad)
    return x, [state.data for state in encoded.hidden_states], [each.data for each in encoded.attentions]


def _first_head(x, layer, d):
    """One head's q, k or v: (B, T, D) -> (B, T, d), by the first d rows of the layer's weight and bias."""
    y = ops.einsum("BTD,dD->BTd", x, layer.weight[:d])
    return y if layer.bias is None else y + layer.bias[:d]


class _Table:
    """One line for each stage, after the number of its lesson; its time counts from the line before."""

    LINE = "{:<3} {:<23} {:<37} {:<16} {:>10} {:>6}"

    def __init__(self):
        print(self.LINE.format("", "stage", "einsum or formula", "shape", "parameters", "ms"))
        print("-" * 100)
        self.start = time.perf_counter()

    def __call__(self, lesson, name, formula, value, parameters=0, form="{:,}"):
        spent = f"{1000 * (time.perf_counter() - self.start):.0f}"
        print(self.LINE.format(lesson, name, formula, str(value.shape), form.format(parameters), spent), flush=True)
        self.start = time.perf_counter()


def _equal(claim, by_hand, by_model):
    """Print the largest difference of two results that are the same but for float32's rounding."""
    by_hand, by_model = np.asarray(by_hand), np.asarray(by_model)
    difference = abs(by_hand - by_model).max()
    print(f"{claim}: max difference {difference:.1e}")
    assert difference <= 1e-4 * abs(by_model).max(), claim


def _draw(out, x, grid, patch_size, states, attentions, query, note):
    """Draw what the model sees into the folder, each file whole or not there. Returns the paths.

    query: the token of the patch whose view is drawn. note: what to say of the weights.
    """
    photo = images.to_image(x.data[0], **images.IMAGENET)
    L = len(attentions)
    early, late = L // 6, L - 1  # blocks, from 0
    shown = sorted({1, round(L / 3), round(2 * L / 3), L})  # hidden states after so many blocks
    patch = f"patch {query - 1}"

    def read(sentence):
        return sentence + (f" ({note})" if note else "")

    figures = {
        "01_patch_grid.png": lambda: plots.patch_grid(
            photo, patch_size, caption=read("What the network gets: each square becomes one token.")
        ),
        "02_cls_attention.png": lambda: plots.attention_over_photo(
            photo,
            attentions[-1][0, :, 0],
            grid,
            0,
            caption=read("Where the class token looks in the last block, head by head: bright patches count most."),
        ),
        "03_patch_attention.png": lambda: plots.attention_over_photo(
            photo,
            np.stack([attentions[i][0, :, query].mean(0) for i in (early, late)]),
            grid,
            query,
            [f"block {i}, mean of its heads" for i in (early, late)],
            caption=read(f"Where {patch}, outlined, looks: bright patches are those that it takes the most from."),
        ),
        "04_components.png": lambda: plots.token_colours(
            photo,
            [states[n][0] for n in shown],
            grid,
            [f"after {n} block{'s' * (n > 1)}" for n in shown],
            caption=read("Patches of one colour are alike to the network; each map has colours of its own."),
        ),
        "05_similarity.png": lambda: plots.similarity_over_photo(
            photo,
            np.stack([similarity(states[n][0], query) for n in (shown[0], shown[-1])]),
            grid,
            query,
            [f"after {n} block{'s' * (n > 1)}" for n in (shown[0], shown[-1])],
            caption=read(
                f"How alike each token is to that of {patch}: 1 points the same way, 0 has nothing in common."
            ),
        ),
        "06_pixel_gradient.png": lambda: plots.pixel_gradient(
            photo,
            x.grad,
            caption=read("Where a small change of a pixel would change the loss most: what the answer hangs on."),
        ),
    }
    paths = []
    for name, draw in figures.items():
        figure = draw()
        try:
            plots.save(figure, out / name)
        finally:
            plt.close(figure)
        paths.append(out / name)
    return paths


def _check_gradients(model, pixel_values, classifier):
    """Compare backward with finite differences, for the pixels and all parameters together, in float64."""
    inputs = [pixel_values, *model.parameters()]
    names = {f"input {i}": name for i, (name, _) in enumerate(model.named_parameters(), start=1)}

    def logits(pixel_values, *_):
        return which_of_three(model(pixel_values, interpolate_pos_encoding=True).last_hidden_state[:, 0], classifier)

    # a smaller step than for one number, since each moves all of them at once
    found = compare(logits, *inputs, eps=1e-7, rtol=ALLOWED, directions=DIRECTIONS)
    error = max(comparison.worst for comparison in found)
    print(
        f"gradient check of the whole model: relative error {error:.1e} over {DIRECTIONS} directions "
        f"of {sum(x.size for x in inputs) / 1e6:.2g} million numbers (allowed {ALLOWED:.0e})"
    )
    if not error <= ALLOWED:
        wrong = [f"{names.get(c.argument, c.argument)} ({c.worst:.1e})" for c in found if not c.worst <= ALLOWED]
        raise GradientError("tour", f"backward and finite differences differ for {', '.join(shortened(wrong, 5))}.")
