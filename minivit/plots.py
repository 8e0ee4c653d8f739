"""Every figure, one function each: numbers in, a matplotlib Figure out.

A figure is 1000 pixels wide and belongs to pyplot: a lesson ends in plt.show(), a program in save(figure, path) and
plt.close(figure). Magnitudes are drawn in viridis, signed numbers in RdBu_r with white at 0.

Wherever an image is wanted, it is a path, a PIL image or a uint8 array (H, W), (H, W, 1) or (H, W, 3); what a model saw
is images.to_image(pixel_values). H W pixels, P patch side, C channels, N patches, T tokens, h heads, D hidden size.
Patches are numbered 1 to N, row by row from the top left, as the tokens behind CLS, token 0.
"""

import math
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from . import images, lens
from .config import to_2tuple
from .errors import ShapeError
from .machinery.files import replacing

MAGNITUDE, SIGNED = "viridis", "RdBu_r"
OUTLINE = "#ff3fa4"  # a pink that neither of the two holds


def save(figure, path):
    """Write the figure as a PNG, 1000 pixels wide. The file is whole, or as it was before. Raises FileError."""
    with replacing(Path(path)) as (temporary,), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font lacks is drawn as boxes
        figure.savefig(temporary, format="png", dpi="figure")


def patch_grid(image, patch_size, patches=9):
    """A photo under the grid that cuts it, and beside it some of its patches, numbered.

    patch_size: P or (ph, pw), in pixels. patches: a list of patch numbers, or how many: those with the most contrast.
    ShapeError for a patch that does not divide the photo and for a number that no patch has.
    """
    picture = images.as_picture("patch_grid", image)
    cut = images.crop_patches(picture, patch_size)  # (N, P, P, 3)
    (ph, pw), (W, H), N = to_2tuple(patch_size), picture.size, len(cut)
    if np.ndim(patches) == 0:
        patches = np.sort(np.argsort(-cut.std((1, 2)).sum(-1), kind="stable")[:patches] + 1)
    if len(patches) == 0:
        raise ShapeError("patch_grid", "no patch is to be shown.", rule="patches is a number above 0 or a list.")
    side = math.ceil(math.sqrt(len(patches)))

    figure, (whole, beside) = _panels(1, 2, 5.4)
    _show(whole, picture, f"{H} x {W} pixels: {H // ph} x {W // pw} = {N} patches of {ph} x {pw}")
    grid_lines = ((1.8, "black"), (0.6, "white"))  # two lines, so that one of them is seen on any photo
    for width, color in grid_lines if W // pw <= 40 else ():  # of more patches the lines would hide the photo
        whole.vlines(np.arange(0, W + 1, pw), 0, H, color, linewidth=width)
        whole.hlines(np.arange(0, H + 1, ph), 0, W, color, linewidth=width)
    down = 1.15 * ph + 0.1 * pw  # from one enlarged patch to the next below, with room for its number
    shadow = withStroke(linewidth=2, foreground="black")
    centred = {"ha": "center", "va": "center", "fontsize": 9}
    for place, number in enumerate(patches):
        row, column = _place("patch_grid", number, (H // ph, W // pw))
        _outline(whole, row, column, ph, pw)
        whole.text((column + 0.5) * pw, (row + 0.5) * ph, number, **centred, color="white", path_effects=[shadow])
        y, x = (place // side + 1) * down, place % side * 1.1 * pw
        beside.imshow(cut[number - 1], extent=(x, x + pw, y, y - ph))
        beside.text(x + pw / 2, y - ph - 0.01 * down, f"patch {number}", ha="center", va="bottom")
    beside.set(xlim=(0, (1.1 * side - 0.1) * pw), ylim=(y, 0), title=f"{len(patches)} of the patches")
    beside.set_axis_off()
    return figure


def attention_over_photo(image, attention_row, grid, query=None):
    """How one token spreads its attention: the photo with that token's patch outlined, and a heat map for each head.

    attention_row: (T,) or, one row for each head, (h, T): output.attentions[layer][b, head, query]; T = N, or N + 1
    with CLS first, whose share is then written above the map. grid: (rows, columns) of the patches.
    query: the token that asks, 0 for CLS; None outlines nothing.
    ShapeError for a row that does not fit the grid, and for a query that it has not.
    """
    where = "attention_over_photo"
    picture = images.as_picture(where, image)
    (W, H), (rows, columns) = picture.size, grid
    N = rows * columns
    attention = np.atleast_2d(np.asarray(attention_row))  # (h, T)
    if attention.ndim != 2 or attention.shape[1] not in (N, N + 1):
        raise ShapeError(
            where,
            f"attention_row has the shape {np.shape(attention_row)}.",
            rule=f"(T,) or (h, T) with T = {rows} * {columns} = {N}, or {N + 1} with CLS",
            hint="take one query token's row: attentions[layer][b, :, query].",
        )
    maps = attention[:, -N:].reshape(-1, rows, columns)  # (h, rows, columns)
    names = ["attention"] if len(maps) == 1 else [f"head {head + 1}" for head in range(len(maps))]
    if attention.shape[1] > N:
        names = [f"{name} (CLS gets {share:.4f})" for name, share in zip(names, attention[:, 0], strict=True)]

    across = 2 if len(maps) <= 3 else 4
    down = math.ceil((len(maps) + 1) / across)
    figure, axes = _panels(down, across, 0.1 + down * (0.4 + 8.3 / across * H / W))
    _show(axes[0], picture, "photo" if query is None else "CLS asks" if query == 0 else f"patch {query} asks")
    for ax, heat, name in zip(axes[1:], maps, names, strict=False):
        _show(ax, picture.convert("L"), name, black=-50)
        shown = ax.imshow(heat, MAGNITUDE, extent=(0, W, H, 0), alpha=0.6, vmin=maps.min(), vmax=maps.max())
    for ax in axes[: len(maps) + 1]:
        if query:
            _outline(ax, *_place(where, query, grid), H / rows, W / columns)
    for ax in axes[len(maps) + 1 :]:
        ax.set_axis_off()
    figure.colorbar(shown, ax=list(axes), label=f"attention; an even share is 1 / {attention.shape[1]}", shrink=0.8)
    return figure


def position_similarity(positions, grid, show=7):
    """Cosine similarity of position embeddings: one small map of the grid for each position, at its place in the grid.

    positions: (T, D) or (1, T, D), with T = N, or N + 1 with CLS first, which is left out. grid: (rows, columns) of the
    patches. show: at most so many rows and columns of maps, evenly spread, the outermost among them.
    ShapeError for positions that do not fit the grid.
    Source: Dosovitskiy et al. 2021, figure 7 (centre).
    """
    rows, columns = grid
    similarity = lens.position_similarity(positions, grid)  # (rows, columns, rows, columns)
    down, right = (np.linspace(0, n - 1, min(n, show)).round().astype(int) for n in grid)
    gap = 1
    mosaic = np.full((len(down), rows + gap, len(right), columns + gap), np.nan)
    mosaic[:, :rows, :, :columns] = similarity[np.ix_(down, right)].transpose(0, 2, 1, 3)
    mosaic = mosaic.reshape(len(down) * (rows + gap), -1)[:-gap, :-gap]

    figure, (ax,) = _panels(1, 1, 8.6)
    ax.set_facecolor("0.6")  # seen in the gaps
    shown = ax.imshow(mosaic, SIGNED, vmin=-1, vmax=1, interpolation="nearest")
    ax.set_xticks(np.arange(len(right)) * (columns + gap) + (columns - 1) / 2, right + 1)
    ax.set_yticks(np.arange(len(down)) * (rows + gap) + (rows - 1) / 2, down + 1)
    ax.set(xlabel="column of the patch", ylabel="row of the patch")
    ax.set_title(f"Each small map: one position, compared with all {rows} x {columns}")
    figure.colorbar(shown, ax=ax, label="cosine similarity", shrink=0.8)
    return figure


def pixel_gradient(image, gradient):
    """The gradient of the loss at the pixels, beside the photo: signed, and its magnitude.

    gradient: (C, H, W) or (1, C, H, W). Signed is the sum over the channels, the slope of the loss as a pixel turns
    brighter; the magnitude is the Euclidean length over the channels. The hundredth of the pixels with the largest
    values share the last colour. ShapeError for a gradient that does not fit the photo.
    """
    picture = images.as_picture("pixel_gradient", image)
    W, H = picture.size
    slopes = np.asarray(gradient)
    slopes = slopes[0] if slopes.ndim == 4 and len(slopes) == 1 else slopes  # (C, H, W)
    if slopes.ndim != 3 or slopes.shape[1:] != (H, W):
        raise ShapeError(
            "pixel_gradient",
            f"the gradient has the shape {np.shape(gradient)}.",
            rule=f"(C, H, W) or (1, C, H, W), for this photo H = {H} and W = {W}",
            hint="images.to_image(pixel_values) is the photo in the size that the model saw.",
        )
    if not np.isfinite(slopes).all():
        raise ShapeError("pixel_gradient", "the gradient holds NaN or infinity.")
    signed, magnitude = slopes.sum(0), np.sqrt((slopes**2).sum(0))  # (H, W)

    figure, axes = _panels(1, 3, 1.4 + 3.2 * H / W)
    _show(axes[0], picture, "photo\n")
    for ax, values, cmap, title in (
        (axes[1], signed, SIGNED, "gradient, summed over channels\nred: brighter here, higher loss"),
        (axes[2], magnitude, MAGNITUDE, "length of the gradient\nyellow: the loss feels this pixel"),
    ):
        limit = np.quantile(abs(values), 0.99) or abs(values).max() or 1
        unit = 10.0 ** math.floor(math.log10(limit))
        low, ends = (-limit, "both") if cmap == SIGNED else (0, "max")
        shown = ax.imshow(values / unit, cmap, vmin=low / unit, vmax=limit / unit, extent=(0, W, H, 0))
        ax.set(xticks=[], yticks=[], title=title)
        label = f"in units of {unit:.0e}" if unit != 1 else ""
        figure.colorbar(shown, ax=ax, location="bottom", extend=ends, label=label, aspect=30)
    for ax in axes:
        ax.set_anchor("N")
    return figure


def _panels(rows, columns, height):
    """A figure of 10 x `height` inches, that is 1000 pixels wide and no higher than 1500, and its axes in a row."""
    size = 10, min(max(height, 3), 15)
    figure, axes = plt.subplots(rows, columns, figsize=size, dpi=100, layout="constrained", squeeze=False)
    return figure, axes.ravel()


def _show(ax, picture, title, black=0):
    """A PIL image without ticks; x runs from 0 to W and y from 0 to H, so that the edge of patch n lies at n * P.

    black: the grey value that is drawn black; below 0 all is lighter, for a heat map above to keep its colours.
    """
    ax.imshow(picture, cmap="gray", vmin=black, vmax=255, extent=(0, picture.width, picture.height, 0))
    ax.set(xticks=[], yticks=[], title=title)


def _place(where, number, grid):
    """Row and column of patch `number` in the grid, from 0."""
    rows, columns = grid
    if not 1 <= number <= rows * columns:
        raise ShapeError(where, f"there is no patch {number}.", rule=f"patches are numbered 1 to {rows * columns}.")
    return divmod(number - 1, columns)


def _outline(ax, row, column, ph, pw):
    """Draw the edge of the patch in that row and column, above all else."""
    ax.add_patch(Rectangle((column * pw, row * ph), pw, ph, fill=False, color=OUTLINE, linewidth=2.5, zorder=3))


def training_curves(history):
    """Loss and accuracy by epoch. history: a list of dicts, as training.fit returns it."""
    names = ["loss", "accuracy"] if history[-1].get("train_accuracy") is not None else ["loss"]
    figure, panels = _panels(1, len(names), 4.5)
    epochs = [row["epoch"] for row in history]
    for panel, name in zip(panels, names, strict=True):
        for part, color in (("train", "tab:blue"), ("test", "tab:orange")):
            values = [row.get(f"{part}_{name}") for row in history]
            if None not in values:
                label = f"{part}: {values[-1]:.4f} in the end"
                panel.plot(epochs, values, "." if len(epochs) == 1 else "-", color=color, label=label)
                panel.legend()
        panel.set(title=name, xlabel="epoch", ylabel=name if name == "loss" else "share of right answers")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
    return figure


def confusion(counts, class_names):
    """Which label was taken for which. counts: (K, K), counts[label, prediction]; class_names: K names."""
    counts = np.asarray(counts)
    K, names = len(class_names), [name.replace("$", r"\$") for name in class_names]  # between two $ stands a formula
    figure, (panel,) = _panels(1, 1, 8)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)  # (K, K)
    drawn = panel.imshow(shares, cmap=MAGNITUDE, vmin=0, vmax=1)
    figure.colorbar(drawn, ax=panel, label="share of the label's pictures", shrink=0.8)
    if K <= 20:  # more would not be readable
        for label, prediction in np.argwhere(counts):
            color = "black" if shares[label, prediction] > 0.5 else "white"
            panel.text(prediction, label, counts[label, prediction], ha="center", va="center", color=color)
    ticks = np.arange(0, K, max(1, K // 20))
    panel.set_xticks(ticks, [names[k] for k in ticks], rotation=45 if max(map(len, class_names)) > 2 else 0)
    panel.set_yticks(ticks, [names[k] for k in ticks])
    right, total = int(np.trace(counts)), int(counts.sum())
    panel.set(title=f"{right} of {total} right: {right / max(total, 1):.2%}", xlabel="prediction", ylabel="label")
    return figure
