"""Every figure: the numbers that it draws, its labels and its size, and what it refuses."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from minivit import Tensor, images, plots
from minivit.errors import ShapeError
from minivit.gradcheck import compare
from minivit.machinery import files

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def drawn(figure):
    """The pixels of the figure (height, width, 4), which is checked to be 1000 wide, known to pyplot and not blank."""
    assert figure.number in plt.get_fignums()
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())
    assert pixels.shape[1] == 1000 and 300 <= pixels.shape[0] <= 1500
    assert len(np.unique(pixels.view(np.uint32))) > 20  # colours
    return pixels


def outlines(ax):
    """(x, y, width, height) of every outlined patch."""
    return [(*p.get_xy(), p.get_width(), p.get_height()) for p in ax.patches if isinstance(p, Rectangle)]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_every_figure_of_a_photo(rng):
    photo = images.to_image(images.pixel_values(images.photo()))
    drawn(plots.patch_grid(photo, 16))
    drawn(plots.attention_over_photo(photo, rng.random((3, 197)), (14, 14), query=106))
    drawn(plots.similarity_over_photo(photo, rng.random((2, 197)) - 0.5, (14, 14), patch=106))
    drawn(plots.token_colours(photo, rng.standard_normal((4, 197, 9)), (14, 14)))
    drawn(plots.position_similarity(rng.standard_normal((1, 197, 5)), (14, 14)))
    drawn(plots.pixel_gradient(photo, rng.standard_normal((1, 3, 224, 224))))


def test_patch_grid_shows_the_patches_it_names(rng):
    image = rng.integers(0, 256, (12, 20, 3), dtype=np.uint8)
    whole, beside = (figure := plots.patch_grid(image, (4, 5), patches=[1, 11])).axes
    drawn(figure)
    assert whole.get_title() == "12 x 20 pixels: 3 x 4 = 12 patches of 4 x 5"
    assert np.array_equal(whole.images[0].get_array(), image)
    assert outlines(whole) == [(5, 0, 5, 4), (15, 8, 5, 4)]
    assert texts(whole) == ["1", "11"] and texts(beside) == ["patch 1", "patch 11"]
    assert np.array_equal(beside.images[0].get_array(), image[:4, 5:10])
    assert np.array_equal(beside.images[1].get_array(), image[8:, 15:])
    down, across = {x for lines in whole.collections for (x, _), (end, _) in lines.get_segments() if x == end}, set()
    across = {y for lines in whole.collections for (_, y), (_, end) in lines.get_segments() if y == end}
    assert down == {0, 5, 10, 15, 20} and across == {0, 4, 8, 12}


def test_patch_grid_chooses_the_patches_with_the_most_contrast():
    grey = np.full((9, 12), 100, np.uint8)
    grey[4, 7] = 255  # in patch 6, row 1 and column 2
    grey[0, 0] = 0  # in patch 0
    figure = plots.patch_grid(grey, 3, patches=2)
    assert texts(figure.axes[1]) == ["patch 0", "patch 6"]
    assert np.array_equal(figure.axes[1].images[1].get_array(), np.stack([grey[3:6, 6:9]] * 3, -1))


def test_patch_grid_takes_a_path_and_any_sides():
    drawn(plots.patch_grid(images.photo("coffee.jpg"), 100))
    drawn(plots.patch_grid(np.zeros((2, 300), np.uint8), (1, 100)))
    drawn(plots.attention_over_photo(np.zeros((300, 2), np.uint8), np.ones(6), (3, 2), query=6))
    drawn(plots.similarity_over_photo(np.zeros((2, 300), np.uint8), np.ones((9, 4)), (1, 4), patch=4))
    drawn(plots.token_colours(np.zeros((300, 2), np.uint8), np.eye(7), (3, 2)))
    drawn(plots.token_colours(images.photo("pagoda.jpg"), np.ones((1, 5)), (1, 1)))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"patch_size": 5}, r"picture of 12x20 cannot be cut into patches of 5x5"),
        ({"patch_size": 4, "patches": [-1]}, r"there is no patch -1\.\n  rule: patches are numbered 0 to 14"),
        ({"patch_size": 4, "patches": [15]}, "there is no patch 15"),
        ({"patch_size": 4, "patches": 0}, "no patch is to be shown"),
    ],
)
def test_patch_grid_refuses(options, message):
    with pytest.raises(ShapeError, match=message):
        plots.patch_grid(np.zeros((12, 20, 3), np.uint8), **options)


def test_attention_is_drawn_over_the_photo_without_cls(rng):
    image, row = Image.new("RGB", (40, 24), "red"), rng.random(16)
    photo, heat, bar = (figure := plots.attention_over_photo(image, Tensor(row), (3, 5), query=7)).axes
    drawn(figure)
    assert photo.get_title() == "patch 6 asks\n" and heat.get_title() == f"attention\n(CLS gets {row[0]:.4f})"
    under, over = heat.images
    assert np.array_equal(over.get_array(), row[1:].reshape(3, 5)) and over.get_cmap().name == "viridis"
    assert over.get_extent() == under.get_extent() == [0, 40, 24, 0]
    seen = over.get_alpha()  # of the least the photo shows, of the most the colour
    assert (
        seen.min() <= 0.2 and 0.7 <= seen.max() < 1 and np.array_equal(seen.argmin(1), row[1:].reshape(3, 5).argmin(1))
    )
    assert outlines(photo) == outlines(heat) == [(8, 8, 8, 8)]  # the second column of the second row
    assert bar.get_xlabel() == "attention; an even share is 1 / 16 = 0.062"


def test_attention_of_every_head_has_one_scale(rng):
    image, rows = np.zeros((24, 40), np.uint8), rng.random((6, 15))
    figure = plots.attention_over_photo(image, rows, (3, 5), query=0)
    drawn(figure)
    photo, *panels = figure.axes[:7]
    assert photo.get_title() == "CLS asks" and not outlines(photo)
    assert [ax.get_title() for ax in panels] == [f"head {head}" for head in range(6)]
    for ax, row in zip(panels, rows, strict=True):
        assert np.array_equal(ax.images[1].get_array(), row.reshape(3, 5))
        assert ax.images[1].get_clim() == (rows.min(), np.quantile(rows, 0.99))
    assert not figure.axes[7].axison and not figure.axes[8].axison  # the last places of the 3 x 3 are empty


@pytest.mark.parametrize("shape, query", [((17,), 1), ((14,), 1), ((2, 3, 16), 1), ((16,), 16), ((16,), -1)])
def test_attention_refuses(shape, query):
    with pytest.raises(ShapeError, match=r"attention_row has the shape|there is no patch"):
        plots.attention_over_photo(np.zeros((24, 40), np.uint8), np.ones(shape), (3, 5), query)


def test_attention_in_several_blocks_has_their_names(rng):
    rows = rng.random((2, 16))
    photo, *panels = plots.attention_over_photo(
        np.zeros((24, 40), np.uint8), rows, (3, 5), query=7, names=["block 2", "block 12"]
    ).axes[:3]
    assert [ax.get_title() for ax in panels] == [
        f"block 2\n(CLS gets {rows[0, 0]:.4f})",
        f"block 12\n(CLS gets {rows[1, 0]:.4f})",
    ]
    assert outlines(photo) == outlines(panels[0]) == outlines(panels[1])


def test_similarity_is_drawn_over_the_photo_around_zero(rng):
    image, cosines = Image.new("RGB", (40, 24), "red"), rng.uniform(-1, 1, (2, 16))
    photo, *heats, bar = (figure := plots.similarity_over_photo(image, cosines, (3, 5), 7, ["early", "late"])).axes
    drawn(figure)
    assert photo.get_title() == "patch 6\n" and outlines(photo) == [(8, 8, 8, 8)]
    for heat, name, row in zip(heats, ("early", "late"), cosines, strict=True):
        assert heat.get_title() == f"{name}\n(CLS {row[0]:+.2f})" and outlines(heat) == outlines(photo)
        over = heat.images[1]
        assert np.array_equal(over.get_array(), row[1:].reshape(3, 5))
        assert over.get_cmap().name == "RdBu_r" and over.get_clim() == (-1, 1)
        assert np.array_equal(np.argsort(over.get_alpha(), None), np.argsort(abs(row[1:])))
    assert bar.get_xlabel() == "cosine similarity"
    of_cls = plots.similarity_over_photo(image, cosines[0, 1:], (3, 5), 0).axes
    assert [ax.get_title() for ax in of_cls[:2]] == ["CLS", "like CLS"] and not outlines(of_cls[0])


def test_token_colours_are_the_three_components(rng):
    tokens = rng.standard_normal((15, 4)) * [9, 1, 3, 0.1] + 5
    tokens[:, 0] = np.linspace(-40, 60, 15)
    photo, panel = (figure := plots.token_colours(np.zeros((24, 40), np.uint8), tokens, (3, 5))).axes
    drawn(figure)
    (over,) = panel.images[1:]
    colours = over.get_array().reshape(15, 3)
    assert colours.min() == 0 and colours.max() == 1 and over.get_extent() == [0, 40, 24, 0]
    values, vectors = np.linalg.eigh(np.cov(tokens.T))
    for axis in range(3):
        component = (tokens - tokens.mean(0)) @ vectors[:, -1 - axis]
        component *= np.sign(component @ (colours[:, axis] - 0.5))
        low, high = np.quantile(component, [0.01, 0.99])
        np.testing.assert_allclose(colours[:, axis], np.clip((component - low) / (high - low), 0, 1), atol=1e-9)
    assert (np.diff(colours[:, 0]) > 0).all()  # the largest number of the first axis is positive
    assert panel.get_title() == f"3 components: {values[1:].sum() / values.sum():.0%} of variance"
    assert photo.get_title() == "photo"


def test_token_colours_of_several_blocks(rng):
    states = [Tensor(rng.standard_normal((1, 7, 5))) for _ in range(4)]
    figure = plots.token_colours(np.zeros((20, 30, 3), np.uint8), states, (2, 3), names=["a", "b", "c", "d"])
    assert [ax.get_title().partition("\n")[0] for ax in figure.axes] == ["photo", "a", "b", "c", "d", ""]
    for ax, state in zip(figure.axes[1:], states, strict=False):  # CLS has no colour and no say in the axes
        alone = plots.token_colours(np.zeros((20, 30, 3), np.uint8), state.data[0, 1:], (2, 3)).axes[1]
        assert np.array_equal(alone.images[1].get_array(), ax.images[1].get_array())


def test_maps_refuse_what_does_not_fit():
    photo = np.zeros((24, 40), np.uint8)
    with pytest.raises(
        ShapeError, match=r"token_colours: tokens have the shape \(14, 9\)\.\n  rule: .* 3 \* 5 = 15, or 16"
    ):
        plots.token_colours(photo, np.ones((14, 9)), (3, 5))
    with pytest.raises(ShapeError, match=r"similarity_over_photo: similarity has the shape \(17,\)"):
        plots.similarity_over_photo(photo, np.ones(17), (3, 5), 1)
    for token in (-1, 16):
        with pytest.raises(ShapeError, match=f"there is no patch {token - 1}"):
            plots.similarity_over_photo(photo, np.ones(16), (3, 5), token)
    assert not plt.get_fignums()


@pytest.mark.parametrize("cls", [0, 1])
def test_position_similarity_is_the_cosine(rng, cls):
    vectors = rng.standard_normal((cls + 6, 4))
    ax, bar = (figure := plots.position_similarity(vectors[None] if cls else vectors, (2, 3))).axes
    drawn(figure)
    mosaic, last = ax.images[0].get_array(), vectors[cls:]
    assert mosaic.shape == (5, 11) and np.ma.getmaskarray(mosaic)[2].all() and np.ma.getmaskarray(mosaic)[:, 3].all()
    cosine = last[4] @ last[2] / np.linalg.norm(last[4]) / np.linalg.norm(last[2])
    assert mosaic[3 + 0, 4 + 2] == pytest.approx(cosine)  # in the map of (row 1, column 1), at (row 0, column 2)
    assert mosaic[3 + 1, 4 + 1] == pytest.approx(1)
    assert ax.images[0].get_clim() == (-1, 1) and ax.images[0].get_cmap().name == "RdBu_r"
    assert bar.get_ylabel() == "cosine similarity"


def test_position_similarity_shows_some_rows_of_a_large_grid(rng):
    (ax, _) = plots.position_similarity(rng.standard_normal((14 * 9, 3)), (14, 9)).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "2", "4", "6", "9", "11", "13"]
    assert ax.images[0].get_array().shape == (7 * 15 - 1, 7 * 10 - 1)


def test_position_similarity_of_zeros_is_zero():
    (ax, _) = plots.position_similarity(np.zeros((4, 3)), (2, 2)).axes
    assert not np.ma.compressed(ax.images[0].get_array()).any()


@pytest.mark.parametrize("shape", [(5, 3), (8, 3), (2, 6, 3), (6,)])
def test_position_similarity_refuses(shape):
    with pytest.raises(ShapeError, match=r"positions have the shape .*\n  rule: .* T = 2 \* 3 = 6, or 7 with CLS"):
        plots.position_similarity(np.ones(shape), (2, 3))


def test_pixel_gradient_is_signed_around_zero_and_has_a_length(rng):
    slopes = rng.standard_normal((3, 10, 20)) / 1000
    photo, signed, length, *bars = (figure := plots.pixel_gradient(np.zeros((10, 20, 3), np.uint8), slopes[None])).axes
    drawn(figure)
    assert photo.images[0].get_array().shape == (10, 20, 3)
    for ax, expected, cmap, bar in (
        (signed, slopes.sum(0), "RdBu_r", bars[0]),
        (length, np.sqrt((slopes**2).sum(0)), "viridis", bars[1]),
    ):
        unit = float(bar.get_xlabel().removeprefix("in units of "))
        np.testing.assert_allclose(ax.images[0].get_array() * unit, expected)
        low, high = ax.images[0].get_clim()
        assert ax.images[0].get_cmap().name == cmap and 1 <= high < 10
        assert high * unit == pytest.approx(np.quantile(abs(expected), 0.99))
        assert low == (-high if cmap == "RdBu_r" else 0)


def test_pixel_gradient_that_is_zero_or_has_one_channel(rng):
    drawn(plots.pixel_gradient(np.zeros((10, 20), np.uint8), np.zeros((1, 10, 20))))
    one = np.zeros((1, 10, 20))
    one[0, 3, 4] = -2  # less than a hundredth of the pixels
    signed = plots.pixel_gradient(np.zeros((10, 20), np.uint8), one).axes[1].images[0]
    assert signed.get_array()[3, 4] == -2 and signed.get_clim() == (-2, 2)


@pytest.mark.parametrize("shape", [(3, 20, 10), (10, 20), (2, 3, 10, 20)])
def test_pixel_gradient_refuses(shape):
    with pytest.raises(ShapeError, match=r"the gradient has the shape .*\n  rule: .* H = 10 and W = 20"):
        plots.pixel_gradient(np.zeros((10, 20, 3), np.uint8), np.ones(shape))


def test_pixel_gradient_refuses_nan():
    with pytest.raises(ShapeError, match="the gradient holds NaN or infinity"):
        plots.pixel_gradient(np.zeros((1, 2, 3), np.uint8), np.array([[[0, np.nan]]]))


@pytest.mark.parametrize("image", [np.zeros((3, 8, 8), np.float32), np.zeros((3, 8, 8), np.uint8), None])
def test_what_is_no_picture_is_refused_by_each_figure(image):
    for call in (
        lambda: plots.patch_grid(image, 4),
        lambda: plots.attention_over_photo(image, np.ones(4), (2, 2)),
        lambda: plots.similarity_over_photo(image, np.ones(4), (2, 2), 1),
        lambda: plots.token_colours(image, np.eye(4), (2, 2)),
        lambda: plots.pixel_gradient(image, np.ones((3, 8, 8))),
    ):
        with pytest.raises(ShapeError, match="image is a"):
            call()
    assert not plt.get_fignums()


def test_patches_are_counted_from_zero():
    ax = plots.position_similarity(np.eye(6), (2, 3)).axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1", "2"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["0", "1"]


def test_the_patch_that_asks_is_outlined_on_a_wide_photo():
    attention = np.full((1, 9), 1 / 9)
    outline = plots.attention_over_photo(np.zeros((20, 80, 3), np.uint8), attention, (2, 4), query=6).axes[0].patches[0]
    assert (outline.get_xy(), outline.get_width(), outline.get_height()) == ((20, 10), 20, 10)


def test_a_class_name_with_dollars_is_no_formula():
    figure = plots.confusion(np.eye(2), ["$x^$", "$5-$10"])
    drawn(figure)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [r"\$x^\$", r"\$5-\$10"]


def test_a_grey_photo_is_as_bright_as_the_photo():
    shown = plots.patch_grid(np.full((8, 12), 100, np.uint8), 4).axes[0].images[0]
    assert shown.to_rgba(shown.get_array(), bytes=True)[..., :3].max() == 100


def test_the_number_of_a_patch_stands_in_its_middle():
    ax = plots.patch_grid(np.zeros((8, 12, 3), np.uint8), 4, [4]).axes[0]
    assert ax.texts[0].get_position() == (6, 6)


def test_confusion_shows_each_count_in_the_row_of_its_label():
    counts = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    figure = plots.confusion(counts, ["ant", "bee", "cat"])
    drawn(figure)
    panel = figure.axes[0]
    shown = {text.get_position(): text.get_text() for text in panel.texts}
    assert shown == {(0, 0): "3", (1, 0): "1", (0, 1): "2", (1, 1): "4"}  # (prediction, label)
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("prediction", "label")
    nan = np.nan  # the right ones: grey
    wrong = np.ma.filled(panel.images[0].get_array(), nan)
    np.testing.assert_allclose(wrong, [[nan, 0.25, 0], [1 / 3, nan, 0], [0, 0, nan]])
    assert panel.get_title() == "7 of 10 right: 70.00%"
    for ticks in (panel.get_xticklabels(), panel.get_yticklabels()):
        assert [tick.get_text() for tick in ticks] == ["ant", "bee", "cat"]


def test_training_curves_show_the_history():
    rows = [(1, 2.0, 0.25, 2.5, 0.125), (2, 1.0, 0.5, 1.5, 0.25), (3, 0.5, 0.75, 1.25, 0.5)]
    names = ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
    history = [dict(zip(names, row, strict=True)) for row in rows]
    figure = plots.training_curves(history)
    drawn(figure)
    for panel, name in zip(figure.axes, ("loss", "accuracy"), strict=True):
        assert panel.get_title() == name
        for line, part in zip(panel.lines, ("train", "test"), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
            np.testing.assert_array_equal(line.get_ydata(), [row[f"{part}_{name}"] for row in history])
            assert line.get_label() == f"{part}: {history[-1][f'{part}_{name}']:.4f} in the end"
    without = plots.training_curves([{"epoch": 1, "train_loss": 2.0, "train_accuracy": None}]).axes
    assert [panel.get_title() for panel in without] == ["loss"] and len(without[0].lines) == 1


def test_a_figure_of_minivit_is_known_by_its_mark(tmp_path):
    figure = plots.training_curves([{"epoch": 1, "train_loss": 1.0}])
    plots.save(figure, tmp_path / "own.png")
    figure.savefig(tmp_path / "other.png")
    plt.close(figure)
    (tmp_path / "text.png").write_text("tEXt")
    known = [files.is_own_figure(tmp_path / name) for name in ("own.png", "other.png", "text.png", "none.png", ".")]
    assert known == [True, False, False, False, False]


def test_a_figure_has_its_name_and_its_caption_below_and_grows_for_it(rng):
    image, caption = np.zeros((8, 12, 3), np.uint8), "Read it from left to right: " + "what stands there is so. " * 8
    plain, said = plots.patch_grid(image, 4), plots.patch_grid(image, 4, name="grid", caption=caption)
    assert said.get_label() == "grid" and " ".join(said.get_supxlabel().split()) == caption.strip()
    assert plain.get_supxlabel() == "" and said.get_figheight() > plain.get_figheight() + 0.3
    lowest = min(ax.get_tightbbox().y0 for ax in said.axes if drawn(said) is not None)
    assert said._supxlabel.get_window_extent().y1 <= lowest + 1
    assert " ".join(plots.take_caption(said).split()) == caption.strip() and plots.take_caption(plain) == ""
    assert said.get_supxlabel() == "" and said.get_figheight() == pytest.approx(plain.get_figheight(), abs=1e-12)


def test_curves_draw_each_line_with_marker_and_dashes_of_its_own():
    x, y = [1, 10, 100], np.array([3.0, 2.0, 1.0])
    scale = {"lines": {"a": (x, y), "b": (x, y + 1, y, y + 2)}, "title": "t", "xscale": "log", "xticks": x}
    figure = plots.curves(scale, {"lines": {"c": y}, "marks": {"d": ([0, 2], [5, 6])}, "ylabel": "loss"})
    drawn(figure)
    left, right = figure.axes
    assert [(line.get_label(), line.get_marker(), line.get_linestyle()) for line in left.lines] == [
        ("a", "o", "-"),
        ("b", "s", "--"),
    ]
    np.testing.assert_array_equal(left.lines[1].get_xydata(), [[1, 4], [10, 3], [100, 2]])
    assert left.collections[0].get_datalim(left.transData).bounds[1::2] == (1, 4)  # the band, from 1 to 5
    assert (left.get_title(), left.get_xscale()) == ("t", "log")
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["1", "10", "100"]
    np.testing.assert_array_equal(right.lines[0].get_xydata(), [[0, 3], [1, 2], [2, 1]])
    assert right.lines[1].get_linestyle() == "None" and right.lines[1].get_marker() == "s"
    assert right.get_ylabel() == "loss"


def test_pictures_show_bytes_and_floats_and_what_is_wrong_in_pink(rng):
    grey, colour = rng.integers(0, 256, (4, 6), dtype=np.uint8), rng.uniform(-0.5, 1.5, (4, 6, 3))
    figure = plots.pictures([grey, colour, Image.new("RGB", (6, 4), "red")], ["a", "!b", ""], columns=2)
    drawn(figure)
    shown = [ax.images[0].get_array() for ax in figure.axes[:3]]
    assert np.array_equal(shown[0][..., 0] if shown[0].ndim == 3 else shown[0], grey)
    assert np.array_equal(shown[1], (colour.clip(0, 1) * 255).round()) and (shown[2] == [255, 0, 0]).all()
    assert [ax.get_title() for ax in figure.axes] == ["a", "b", "", ""]
    assert [ax.title.get_color() for ax in figure.axes[:2]] == ["black", plots.OUTLINE]


def test_heatmaps_share_one_scale_unless_each_has_its_own():
    first, second = np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([[-6.0, 4.0]])
    one, other, bar = (figure := plots.heatmaps([first, second], ["a", "b"], label="score", numbers=".1f")).axes
    drawn(figure)
    assert one.images[0].get_clim() == other.images[0].get_clim() == (-6, 4)
    assert texts(one) == ["0.0", "1.0", "2.0", "3.0"] and bar.get_xlabel() == "score"
    assert texts(plots.heatmaps([[[-0.004, -0.006]]], numbers=".2f").axes[0]) == ["0.00", "-0.01"]
    signed = plots.heatmaps([first, second], signed=True, share=False)
    assert [ax.images[0].get_clim() for ax in signed.axes[:2]] == [(-3, 3), (-6, 6)] and len(signed.axes) == 4
    assert signed.axes[0].images[0].get_cmap().name == "RdBu_r"


def test_bars_of_a_group_share_colour_and_hatching():
    figure = plots.bars({"a": {"x": 1.0, "y": 2.0}, "b": {"y": 4.0}}, ylabel="seconds", log=True)
    drawn(figure)
    (ax,) = figure.axes
    bars = [(round(bar.get_x() + bar.get_width() / 2, 3), bar.get_height(), bar.get_hatch()) for bar in ax.patches]
    assert bars == [(-0.2, 1, ""), (0.8, 2, ""), (1.2, 4, "//")]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["x", "y"]
    assert (ax.get_ylabel(), ax.get_yscale()) == ("seconds", "log")


def test_walks_mark_what_was_handed_on_too_early():
    steps = {"end": (1, 1, ["b", "c"]), "b": (1, 9, ["a", "a"]), "c": (1, 1, ["b", "b"]), "a": (2, 2, [])}
    early = [(label, *steps[label]) for label in ("end", "b", "c", "a")]
    steps |= {"b": (9, 9, ["a", "a"]), "a": (18, 18, [])}
    right = [(label, *steps[label]) for label in ("end", "c", "b", "a")]
    figure = plots.walks({"early": early, "right": right}, name="order", caption="Pink is early.")
    drawn(figure)
    for ax, pink in zip(figure.axes, (["step 1: b\nhanded on 1, in the end 9"], []), strict=True):
        boxes = [text for text in ax.texts if text.get_text()]
        colours = {text.get_text(): text.get_bbox_patch().get_facecolor() for text in boxes}
        assert len(colours) == 4 and [text for text, (r, g, b, _) in colours.items() if r > g + 0.2] == pink
        places = {text.get_text()[8:].partition("\n")[0]: text.get_position() for text in boxes}
        assert [places[label][1] for label in ("a", "b", "c", "end")] == [0, 1, 2, 3]
        assert places["c"][0] > places["b"][0] == places["a"][0] == places["end"][0]  # b's arrow to the end passes c
        assert len(ax.texts) == 4 + 6  # arrows
    assert "step 2: b\ngradient 9" in [text.get_text() for text in figure.axes[1].texts]


def test_agreement_draws_each_entry_beside_the_diagonal(rng):
    def wrong(x):
        return x * x.data  # forgets one of its two roads

    (one,) = compare(wrong, rng.standard_normal((2, 3)))
    figure = plots.agreement({"wrong": one, "right": one._replace(backward=one.numeric)}, name="a", caption="So.")
    drawn(figure)
    for ax, title, factor in zip(figure.axes, ("wrong: x", "right: x"), (0.5, 1), strict=True):
        diagonal, entries = ax.lines
        np.testing.assert_array_equal(*diagonal.get_data())
        np.testing.assert_allclose(entries.get_ydata(), factor * entries.get_xdata(), rtol=1e-6)
        assert len(entries.get_xdata()) == 6 and ax.get_xlim() == ax.get_ylim() and ax.get_title() == title


@pytest.mark.parametrize("share", [True, False])
def test_no_title_is_cut_off_at_the_top(share, rng):
    caption, table = (
        "One sentence that is long enough to need two lines below the figure, as many of them are. " * 2,
        rng.random((4, 5)),
    )
    for figure in (
        plots.pictures([rng.random((9, 9))] * 3, ["a", "b\nc", "d"], caption=caption),
        plots.heatmaps([table, table], ["a", "b"], numbers=".2f", xlabel="key", share=share, caption=caption),
        plots.heatmaps([table[:3]] * 4, [*"abcd"], columns=2, label="score", share=share, caption=caption),
    ):
        drawn(figure)
        tops = [ax.title.get_window_extent().y1 for ax in figure.axes if ax.get_title()]
        assert max(tops) <= figure.bbox.height


def test_found_patches_lie_on_the_patches_of_their_number(rng):
    pictures = rng.integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    figure = plots.found_patches(pictures, [[0, 5], [4, 4]], 4, ["one", "other"], name="found", caption="Here.")
    drawn(figure)
    places = [[(text.get_text(), *text.get_position()) for text in ax.texts] for ax in figure.axes]
    assert places == [[("0", 2, 2), ("1", 10, 6)], [("0", 6, 6), ("1", 6, 6)]]
    assert [ax.get_title() for ax in figure.axes] == ["one", "other"] and figure.get_label() == "found"
    with pytest.raises(ShapeError, match="there is no patch 6"):
        plots.found_patches(pictures, [[0], [6]], 4, ["one", "other"])
