"""Every figure, one function each: numbers in, a matplotlib Figure out.

A figure is 1000 pixels wide and belongs to pyplot: a lesson ends in plt.show(), a program in save(figure, path) and
plt.close(figure). Magnitudes are drawn in viridis, signed numbers in RdBu_r with white at 0; lines differ by marker and
dashes, bars by hatching, not by colour alone. Every figure takes a name, its label, by which `minivit run` saves it,
and a caption, the sentence below it that says how it is read.

Wherever an image is wanted, it is a path, a PIL image or a uint8 array (H, W), (H, W, 1) or (H, W, 3); what a model saw
is images.to_image(pixel_values). H W pixels, P patch side, C channels, N patches, T tokens, h heads, D hidden size.
All is counted from 0. Patch n is the n-th row by row from the top left, and token n + 1, since token 0 is CLS.
"""

import math
import textwrap
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from . import images, lens
from .config import to_2tuple
from .errors import ShapeError, shown
from .machinery.files import replacing

MAGNITUDE, SIGNED = "viridis", "RdBu_r"
OUTLINE = "#ff3fa4"  # a pink that neither of the two holds
WRONG = "#b3006b"  # the same for words, darker: to be read on white
# of the first line or bars, the second, ...: colours of Okabe and Ito 2008, which eyes without red or green tell apart
COLOURS, MARKERS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"), "os^DvPX"
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), "-")
HATCHES = ("", "//", "..", "xx", "\\\\", "oo", "++")


def save(figure, path):
    """Write the figure as a PNG, 1000 pixels wide. The file is whole, or as it was before. Raises FileError."""
    with replacing(Path(path)) as (temporary,), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font lacks is drawn as boxes
        figure.savefig(temporary, format="png", dpi="figure", metadata={"Software": "minivit"})


def patch_grid(image, patch_size, patches=9, *, name=None, caption=None):
    """A photo under the grid that cuts it, and beside it some of its patches, numbered.

    patch_size: P or (ph, pw), in pixels. patches: a list of patch numbers, or how many: those with the most contrast.
    ShapeError for a patch that does not divide the photo and for a number that no patch has.
    """
    picture = images.as_picture("patch_grid", image)
    cut = images.crop_patches(picture, patch_size)  # (N, P, P, 3)
    (ph, pw), (W, H), N = to_2tuple(patch_size), picture.size, len(cut)
    if np.ndim(patches) == 0:
        patches = np.sort(np.argsort(-cut.std((1, 2)).sum(-1), kind="stable")[:patches])
    if len(patches) == 0:
        raise ShapeError("patch_grid", "no patch is to be shown.", rule="patches is a number above 0 or a list.")
    side = math.ceil(math.sqrt(len(patches)))

    figure, (whole, beside) = _panels(2, 2, 5.4)
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
        beside.imshow(cut[number], extent=(x, x + pw, y, y - ph))
        beside.text(x + pw / 2, y - ph - 0.01 * down, f"patch {number}", ha="center", va="bottom")
    beside.set(xlim=(0, (1.1 * side - 0.1) * pw), ylim=(y, 0), title=f"{len(patches)} of the patches")
    beside.set_axis_off()
    return _said(figure, name, caption)


def attention_over_photo(image, attention_row, grid, query=None, names=None, *, name=None, caption=None):
    """How one token spreads its attention: the photo with that token's patch outlined, and a heat map for each head.

    attention_row: (T,) or, one row for each head, (h, T): output.attentions[layer][b, head, query]; T = N, or N + 1
    with CLS first, whose share is then written above the map. grid: (rows, columns) of the patches.
    query: the token that asks, 0 for CLS, n + 1 for patch n; None outlines nothing.
    names: of the maps, where they are no heads: blocks, say. The photo shows where attention is low; the hundredth of
    the shares that are largest have the last colour.
    ShapeError for a row that does not fit the grid, and for a query that it has not.
    """
    rows, columns = grid
    N = rows * columns
    attention, maps = _rows_of_maps("attention_over_photo", "attention_row", attention_row, grid)
    if names is None:
        names = ["attention"] if len(maps) == 1 else [f"head {head}" for head in range(len(maps))]
    if attention.shape[1] > N:
        names = [f"{name}\n(CLS gets {share:.4f})" for name, share in zip(names, attention[:, 0], strict=True)]
    low, high = maps.min(), np.quantile(maps, 0.99)
    seen = 0.1 + 0.75 * np.clip((maps - low) / (high - low or 1), 0, 1)  # of each colour; the rest is photo
    asks = "photo" if query is None else f"{_token(query)} asks"
    colours = {"cmap": MAGNITUDE, "vmin": low, "vmax": high}
    figure = _maps_over_photo("attention_over_photo", image, asks, maps, names, query, seen, **colours)
    _bar(figure, f"attention; an even share is 1 / {attention.shape[1]} = {1 / attention.shape[1]:.2g}", "max")
    return _said(figure, name, caption)


def similarity_over_photo(image, similarity, grid, patch, names=None, *, name=None, caption=None):
    """Which patches are like a chosen one: the photo with that patch outlined, and the cosine similarity to it.

    similarity: (T,) or, for several blocks, say, (M, T), as lens.similarity gives it; T = N, or N + 1 with CLS first,
    whose similarity is then written above the map. grid: (rows, columns) of the patches. patch: its token,
    n + 1 for patch n, or 0 for CLS. names: of the M maps. ShapeError for what does not fit the grid, and for a patch
    that it has not.
    """
    similarity, maps = _rows_of_maps("similarity_over_photo", "similarity", similarity, grid)
    chosen = _token(patch)
    names = [f"like {chosen}"] * len(maps) if names is None else names
    if similarity.shape[1] > maps[0].size:
        names = [f"{name}\n(CLS {share:+.2f})" for name, share in zip(names, similarity[:, 0], strict=True)]
    seen = 0.1 + 0.7 * np.clip(abs(maps), 0, 1)
    colours = {"cmap": SIGNED, "vmin": -1, "vmax": 1}
    figure = _maps_over_photo("similarity_over_photo", image, chosen, maps, names, patch, seen, **colours)
    _bar(figure, "cosine similarity", "neither")
    return _said(figure, name, caption)


def token_colours(image, tokens, grid, names=None, *, name=None, caption=None):
    """Tokens as colours: their first three principal components as red, green and blue, beside the photo.

    tokens: (T, D), or a list of such, of several blocks, say; T = N, or N + 1 with CLS first, which is left out. grid:
    (rows, columns) of the patches. names: of the maps. Each map has components of its own, fitted to its own patches:
    within a map equal colours are like tokens, between two maps colours do not compare. Each component goes from 0 to 1
    over the patches, but for the hundredth at either end. ShapeError for tokens that do not fit the grid.
    Source: Oquab et al. 2023, "DINOv2", figure 1.
    """
    rows, columns = grid
    N = rows * columns
    fits = f"(T, D) or (1, T, D) with T = {rows} * {columns} = {N}, or {N + 1} with CLS, or a list of such"
    tokens = [tokens] if np.ndim(tokens[0]) == 1 else tokens
    maps, shares = np.zeros((len(tokens), N, 3)), []  # of fewer than three patches some colours stay 0
    for colours, of_block in zip(maps, tokens, strict=True):
        x = lens.as_vectors("token_colours", "tokens", of_block, (N, N + 1), fits)[-N:]  # (N, D)
        found = lens.principal_components(x, min(3, *x.shape))
        low, high = np.quantile(found.coordinates, [0.01, 0.99], axis=0)
        colours[:, : len(found.axes)] = np.clip((found.coordinates - low) / np.maximum(high - low, 1e-12), 0, 1)
        shares.append(f"3 components: {found.shares.sum():.0%} of variance")
    if names is not None:
        shares = [f"{name}\n{share}" for name, share in zip(names, shares, strict=True)]
    figure = _maps_over_photo("token_colours", image, "photo", maps.reshape(-1, rows, columns, 3), shares)
    return _said(figure, name, caption)


def position_similarity(positions, grid, show=7, *, name=None, caption=None):
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
    ax.set_xticks(np.arange(len(right)) * (columns + gap) + (columns - 1) / 2, right)
    ax.set_yticks(np.arange(len(down)) * (rows + gap) + (rows - 1) / 2, down)
    ax.set(xlabel="column of the patch", ylabel="row of the patch")
    ax.set_title(f"Each small map: one position, compared with all {rows} x {columns}")
    figure.colorbar(shown, ax=ax, label="cosine similarity", shrink=0.8)
    return _said(figure, name, caption)


def pixel_gradient(image, gradient, *, name=None, caption=None):
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

    figure, axes = _panels(3, 3, 1.4 + 3.2 * H / W)
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
    return _said(figure, name, caption)


def _panels(count, across, height, below=0, layout="constrained"):
    """A figure, 1000 pixels wide and no higher than 1500, and its axes, `count` in rows of `across`.

    height: of a row, below: for what stands below all of them, in inches. layout: "compressed" for panels that keep the
    ratio of their pictures.
    """
    down = math.ceil(count / across)
    size = 10, min(max(down * height + below, 3), 15)
    figure, axes = plt.subplots(down, across, figsize=size, dpi=100, layout=layout, squeeze=False)
    for ax in axes.ravel()[count:]:
        ax.set_axis_off()
    return figure, axes.ravel()[:count]


def _said(figure, name, caption):
    """The figure with its name as label and its caption below, for which it grows. caption: one sentence, or None."""
    if name:
        figure.set_label(name)
    if caption:
        rows = -(-len(caption) // 115)
        lines = textwrap.wrap(caption, max(60, len(caption) // rows + 12))  # of about the same length
        figure.supxlabel("\n".join(lines), fontsize=11)
        figure.set_figheight(figure.get_figheight() + _caption_height(figure))
    return figure


def take_caption(figure):
    """The caption of a figure, "" where it has none; the figure has neither it nor the room for it from then on."""
    caption = figure.get_supxlabel()
    if caption:
        figure.set_figheight(figure.get_figheight() - _caption_height(figure))
        figure.supxlabel("")
    return caption


def _caption_height(figure):
    """In inches."""
    return 0.2 * len(figure.get_supxlabel().split("\n")) + 0.15


def _as_bytes(picture):
    """Floats from 0 to 1 as uint8; all else as it is."""
    array = np.asarray(picture)
    return (array.clip(0, 1) * 255).round().astype(np.uint8) if array.dtype.kind == "f" else picture


def _token(number):
    return f"patch {number - 1}" if number else "CLS"


def _rows_of_maps(where, name, values, grid):
    """Numbers of tokens, (T,) or (M, T), as (M, T) and, without CLS, as maps (M, rows, columns)."""
    rows, columns = grid
    N = rows * columns
    table = np.atleast_2d(np.asarray(values))  # (M, T)
    if table.ndim != 2 or table.shape[1] not in (N, N + 1):
        raise ShapeError(
            where,
            f"{name} has the shape {np.shape(values)}.",
            rule=f"(T,) or (h, T) with T = {rows} * {columns} = {N}, or {N + 1} with CLS",
            hint="take one query token's row: attentions[layer][b, :, query]." if name == "attention_row" else None,
        )
    return table, table[:, -N:].reshape(-1, rows, columns)


def _maps_over_photo(where, image, title, maps, names, patch=None, seen=None, **colours):
    """The photo, and each of M maps (rows, columns) above it in grey, or (rows, columns, 3) beside it. -> the figure.

    patch: the token whose patch is outlined in all of them. seen: (M, rows, columns), how much of the colours is seen.
    """
    picture = images.as_picture(where, image)
    (W, H), grid = picture.size, maps[0].shape[:2]
    outlined = [_place(where, patch - 1, grid)] if patch else []
    panels = len(maps) + 1
    across = 2 if panels in (2, 4) else 3 if panels <= 9 else 4
    lines = max(name.count("\n") for name in names)
    height = 0.4 + 0.2 * lines + 9.8 / across * H / W
    figure, axes = _panels(panels, across, height, 0.9 if colours else 0)  # a colour bar below
    _show(axes[0], picture, title + "\n" * lines)
    for i, (heat, name) in enumerate(zip(maps, names, strict=True)):
        _show(axes[i + 1], picture.convert("L"), name, black=-50)
        axes[i + 1].imshow(heat, extent=(0, W, H, 0), alpha=None if seen is None else seen[i], **colours)
    for ax in axes:
        for row, column in outlined:
            _outline(ax, row, column, H / grid[0], W / grid[1])
    return figure


def _bar(figure, label, extend):
    """The colours of all maps, below them."""
    shown = figure.axes[1].images[1]
    figure.colorbar(shown, ax=figure.axes, location="bottom", label=label, extend=extend, shrink=0.6, aspect=40)


def _show(ax, picture, title, black=0):
    """A PIL image without ticks; x runs from 0 to W and y from 0 to H, so that the edge of patch n lies at n * P.

    black: the grey value that is drawn black; below 0 all is lighter, for a heat map above to keep its colours.
    """
    ax.imshow(picture, cmap="gray", vmin=black, vmax=255, extent=(0, picture.width, picture.height, 0))
    ax.set(xticks=[], yticks=[], title=title)


def _place(where, number, grid):
    """Row and column of patch `number` in the grid, from 0."""
    rows, columns = grid
    if not 0 <= number < rows * columns:
        rule = f"patches are numbered 0 to {rows * columns - 1}; the token of patch n is n + 1, that of CLS 0."
        raise ShapeError(where, f"there is no patch {number}.", rule=rule)
    return divmod(number, columns)


def _outline(ax, row, column, ph, pw):
    """Draw the edge of the patch in that row and column, above all else."""
    ax.add_patch(Rectangle((column * pw, row * ph), pw, ph, fill=False, color=OUTLINE, linewidth=2.5, zorder=3))


def training_curves(history, *, name=None, caption=None):
    """Loss and accuracy by epoch. history: a list of dicts, as training.fit returns it."""
    measures = ["loss", "accuracy"] if history[-1].get("train_accuracy") is not None else ["loss"]
    epochs, panels = [row["epoch"] for row in history], []
    for measure in measures:
        lines = {}
        for part in ("train", "test"):
            values = [row.get(f"{part}_{measure}") for row in history]
            if None not in values:
                lines[f"{part}: {values[-1]:.4f} in the end"] = epochs, values
        ylabel = measure if measure == "loss" else "share of right answers"
        panels.append({"lines": lines, "title": measure, "xlabel": "epoch", "ylabel": ylabel})
    return curves(*panels, name=name, caption=caption)


def answers(dataset, chances, *, name=None, caption=None):
    """Pictures with what they are and what a model took them for: wrong answers in pink, right ones in black.

    dataset: a Dataset of some pictures (up to 12 are drawn), chances: (N, K), the model's probabilities.
    """
    names = [shown(name, 24).replace("$", r"\$") for name in dataset.class_names]
    count = min(len(dataset), 12)
    figure, panels = _panels(count, 4, 3.1)
    for panel in panels:
        panel.set_axis_off()
    pictures = dataset.images[np.arange(count)]
    for panel, picture, label, p in zip(panels, pictures, dataset.labels, chances, strict=False):
        answer = int(np.argmax(p))
        pixels = picture.transpose(1, 2, 0)  # (H, W, C)
        panel.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=255)
        taken = f"taken for {names[answer]}" if answer != label else "right"
        title = f"{names[label]}\n{taken}: {p[answer]:.0%}"
        panel.set_title(title, fontsize=10, color="black" if answer == label else WRONG)
    figure.suptitle("the pictures that the model was least right about")
    return _said(figure, name, caption)


def confusion(counts, class_names, *, name=None, caption=None):
    """Which label was taken for which, right in grey, wrong in pink.

    counts: (K, K), counts[label, prediction]; class_names: K names.
    """
    counts = np.asarray(counts)
    names = [shown(name, 40).replace("$", r"\$") for name in class_names]  # between two $ stands a formula
    K = len(names)
    figure, (panel,) = _panels(1, 1, 8)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)  # (K, K)
    wrong = np.where(np.eye(K, dtype=bool), np.nan, shares)  # the many right ones would pale them
    colours = LinearSegmentedColormap.from_list("wrong", ["white", OUTLINE, "#7a0049"]).with_extremes(bad="0.9")
    most = np.nanmax(wrong, initial=0.01)
    drawn = panel.imshow(wrong, colours, vmin=0, vmax=most)
    figure.colorbar(drawn, ax=panel, label="wrong: share of the label's pictures", shrink=0.8)
    if K <= 20:  # more would not be readable
        for label, prediction in np.argwhere(counts):
            dark = label != prediction and shares[label, prediction] > 0.6 * most
            number = counts[label, prediction]
            panel.text(prediction, label, number, ha="center", va="center", color="white" if dark else "black")
    ticks = np.arange(0, K, max(1, K // 20))
    panel.set_xticks(ticks, [names[k] for k in ticks], rotation=45 if max(map(len, names)) > 2 else 0)
    panel.set_yticks(ticks, [names[k] for k in ticks])
    right, total = int(np.trace(counts)), int(counts.sum())
    panel.set(title=f"{right} of {total} right: {right / max(total, 1):.2%}", xlabel="prediction", ylabel="label")
    return _said(figure, name, caption)


def curves(*panels, name=None, caption=None):
    """Lines, in one panel or in several side by side; each line has a marker and dashes of its own.

    panels: dicts with "lines", {label: y or (x, y) or (x, y, low, high)}, arrays (n,), x from 0 where it is not given,
    low and high the edges of a band around y; or with "marks", {label: (x, y)}, points without a line. Further keys
    are matplotlib's, of Axes.set: title, xlabel, ylabel, xscale, ylim and so on; of xticks all are labelled.
    """
    across = min(len(panels), 3)
    figure, axes = _panels(len(panels), across, 4.8 if across == 1 else 4)
    for ax, panel in zip(axes, panels, strict=True):
        panel = dict(panel)
        lines, marks = panel.pop("lines", {}), panel.pop("marks", {})
        for i, (label, values) in enumerate((lines | marks).items()):
            x, y, *band = values if isinstance(values, tuple) else (np.arange(len(values)), values)
            color, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
            dashes, often = (DASHES[i % len(DASHES)], max(1, len(y) // 10)) if label in lines else ("none", 1)
            ax.plot(x, y, color=color, marker=marker, linestyle=dashes, markevery=(i % often, often), label=label)
            if band:
                ax.fill_between(x, *band, color=color, alpha=0.15)
        ticks = panel.pop("xticks", None)
        ax.set(**panel)
        if ticks is not None:
            ax.set_xticks(ticks, ticks)
            ax.minorticks_off()
        if np.issubdtype(np.asarray(x).dtype, np.integer) and ax.get_xscale() == "linear" and ticks is None:
            ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
        if any(lines | marks):
            ax.legend()
    return _said(figure, name, caption)


def pictures(pictures, titles=None, columns=None, *, name=None, caption=None):
    """Pictures side by side, in rows of `columns`, at most 4 unless it is said.

    pictures: whatever images.as_picture takes, or floats from 0 to 1, (H, W) or (H, W, 3), what lies outside cut off.
    titles: one each; one that begins with "!" is set in pink, without the "!".
    """
    titles = [""] * len(pictures) if titles is None else titles
    arrays = [np.asarray(images.as_picture("pictures", _as_bytes(picture))) for picture in pictures]
    across = columns or min(len(arrays), 4)
    tall = max(array.shape[0] / array.shape[1] for array in arrays)
    lines = 1 + max(title.count("\n") for title in titles)
    height = 9.8 / across * tall + 0.22 * lines + 0.1
    figure, axes = _panels(len(arrays), across, height, layout="compressed")
    for ax, array, title in zip(axes, arrays, titles, strict=True):
        ax.imshow(array, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.set_title(title.removeprefix("!"), color=OUTLINE if title.startswith("!") else "black")
        ax.set(xticks=[], yticks=[])
        ax.set_frame_on(False)
    return _said(figure, name, caption)


def heatmaps(
    maps,
    titles=None,
    columns=None,
    *,
    signed=False,
    label="",
    numbers=False,
    xlabel="",
    ylabel="",
    share=True,
    name=None,
    caption=None,
):
    """Tables of numbers as colours, side by side in rows of `columns`, at most 3 unless it is said.

    maps: arrays (rows, columns); NaN stays white. signed: around 0, red above and blue below. label: what the colours
    mean. numbers: each is written in its cell, or a format for it, such as ".2f". share: one scale for all maps.
    """
    maps = [np.asarray(table) for table in maps]
    titles = [""] * len(maps) if titles is None else titles
    across = columns or min(len(maps), 3)
    tall = max(table.shape[0] / table.shape[1] for table in maps)
    height = min(9 / across, 5.5) * min(tall, 1.2) + (0.75 if share else 1.6)  # with titles, labels and colour bars
    figure, axes = _panels(len(maps), across, height, 0.9 if share else 0, "compressed")
    limits = [(np.nanmin(table), np.nanmax(table)) for table in maps]
    if share:
        limits = [(min(low for low, _ in limits), max(high for _, high in limits))] * len(maps)
    for ax, table, title, (low, high) in zip(axes, maps, titles, limits, strict=True):
        if signed:
            low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
        drawn = ax.imshow(
            table, SIGNED if signed else MAGNITUDE, vmin=low, vmax=high, aspect="equal" if tall <= 1.2 else "auto"
        )
        ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
        for axis in (ax.xaxis, ax.yaxis):
            axis.get_major_locator().set_params(integer=True)
        for (row, column), value in np.ndenumerate(table) if numbers else ():
            dark = abs(value) > 0.6 * high if signed else value < low + 0.6 * (high - low)
            text = f"{value:{'.2g' if numbers is True else numbers}}"
            text = text if text.strip("-0.") else text.lstrip("-")  # no -0.00
            ax.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
        if not share:
            figure.colorbar(drawn, ax=ax, location="bottom", label=label)
    if share:
        figure.colorbar(drawn, ax=list(axes), location="bottom", label=label, shrink=0.6, aspect=40)
    return _said(figure, name, caption)


def bars(groups, *, title="", ylabel="", log=False, name=None, caption=None):
    """Bars, those of one group in one colour and hatching. groups: {label: {name of the bar: height}}, names alike."""
    names = list(dict.fromkeys(bar for heights in groups.values() for bar in heights))
    figure, (ax,) = _panels(1, 1, 4.5)
    width = 0.8 / len(groups)
    for i, (label, heights) in enumerate(groups.items()):
        x = [names.index(bar) + (i - (len(groups) - 1) / 2) * width for bar in heights]
        style = {"color": COLOURS[i % len(COLOURS)], "hatch": HATCHES[i % len(HATCHES)], "edgecolor": "white"}
        ax.bar(x, list(heights.values()), width, label=label, **style)
    slanted = {"rotation": 20, "ha": "right", "rotation_mode": "anchor"} if sum(map(len, names)) > 90 else {}
    ax.set_xticks(range(len(names)), names, **slanted)
    ax.set(title=title, ylabel=ylabel, yscale="log" if log else "linear")
    ax.grid(alpha=0.3, axis="y")
    if len(groups) > 1:
        ax.legend()
    return _said(figure, name, caption)


# ---- lesson 08


def walks(orders, *, name=None, caption=None):
    """Graphs of a few numbers, each as somebody walked it from the end back to the start.

    orders: {title: [(label, what it handed on, its gradient in the end, [labels of its parents]), ...]}, in the order
    of the walk; a parent that was used twice stands there twice. A box is pink when something that used it had its turn
    only later, and then it says both numbers.
    """
    figure, axes = _panels(len(orders), len(orders), 4.4)
    for ax, (title, steps) in zip(axes, orders.items(), strict=True):
        turn = {label: i for i, (label, *_) in enumerate(steps)}
        depth, boxes = {}, {}
        while len(depth) < len(steps):  # each below all that it was made from
            for label, *_, parents in steps:
                if label not in depth and all(parent in depth for parent in parents):
                    depth[label] = 1 + max((depth[parent] for parent in parents), default=-1)
        arrows = [(parent, label) for label, *_, parents in steps for parent in parents]
        for label, handed, gradient, _ in steps:
            aside = any(depth[start] < depth[label] < depth[stop] for start, stop in arrows)  # of an arrow that passes
            early = any(turn[stop] > turn[label] for start, stop in arrows if start == label)
            box = {"boxstyle": "round,pad=0.4", "facecolor": "#ffc4e0" if early else "#d6ecff"}
            numbers = f"handed on {handed:g}, in the end {gradient:g}" if early else f"gradient {gradient:g}"
            text = f"step {turn[label]}: {label}\n{numbers}"
            boxes[label] = ax.text(0.62 * aside, depth[label], text, ha="center", va="center", fontsize=9, bbox=box)
        for i, (start, stop) in enumerate(arrows):
            bend = 0 if arrows.count((start, stop)) == 1 else 0.25 if (start, stop) in arrows[:i] else -0.25
            style = {"arrowstyle": "->", "connectionstyle": f"arc3,rad={bend}", "shrinkA": 2, "shrinkB": 2}
            patches = {"patchA": boxes[start].get_bbox_patch(), "patchB": boxes[stop].get_bbox_patch()}
            ends = boxes[stop].get_position(), boxes[start].get_position()
            ax.annotate("", *ends, arrowprops=style | patches)
        ax.set(xlim=(-0.45, 1.1), ylim=(max(depth.values()) + 0.4, -0.4), title=title)
        ax.set_axis_off()
    return _said(figure, name, caption)


def agreement(comparisons, *, name=None, caption=None):
    """What backward says against the finite difference, entry by entry; what is right lies on the dashed diagonal.

    comparisons: {title: one of gradcheck's Comparisons}, a panel each.
    """
    figure, axes = _panels(len(comparisons), min(len(comparisons), 3), 3.4)
    for ax, (title, one) in zip(axes, comparisons.items(), strict=True):
        limit = 1.1 * max(abs(one.numeric).max(), abs(one.backward).max())
        ax.plot([-limit, limit], [-limit, limit], "--", color="0.5")
        ax.plot(one.numeric.ravel(), one.backward.ravel(), MARKERS[0], color=COLOURS[0], markersize=5)
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), box_aspect=1, title=f"{title}: {one.argument}")
        ax.set(xlabel="finite difference", ylabel="backward")
    return _said(figure, name, caption)


# ---- lesson 13


def found_patches(pictures, patches, patch_size, titles, *, name=None, caption=None):
    """Photos side by side, and in each the same number at the patches that belong together.

    patches: for each photo the patch of number 0, of 1, ...; patch_size: P, in pixels. ShapeError for a patch that is
    not there.
    """
    pictures = [images.as_picture("found_patches", picture) for picture in pictures]
    count, tall = len(pictures), max(picture.height / picture.width for picture in pictures)
    figure, axes = _panels(count, count, 10 / count * tall + 0.4)
    centred = {"ha": "center", "va": "center", "fontsize": 9}
    for ax, picture, found, title in zip(axes, pictures, patches, titles, strict=True):
        _show(ax, picture, title)
        grid = picture.height // patch_size, picture.width // patch_size
        for number, patch in enumerate(found):
            row, column = _place("found_patches", int(patch), grid)
            edge = COLOURS[number % len(COLOURS)]
            spot = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": edge, "linewidth": 2}
            ax.text((column + 0.5) * patch_size, (row + 0.5) * patch_size, number, bbox=spot, **centred)
    return _said(figure, name, caption)
