"""The tour of a small model: its table, its figures, its checks, and what it refuses before any work."""

import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from minivit import Tensor, images, nn
from minivit.course import three, tour
from minivit.errors import FileError, MinivitError
from minivit.gradcheck import GradientError
from minivit.machinery.normal import normal
from minivit.vit import ViTConfig, ViTModel

matplotlib.use("Agg")

CONFIG = ViTConfig(12, 2, 3, 20, image_size=(24, 50), patch_size=(8, 10), qkv_bias=False, initializer_range=0.2)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """(paths, printed text) of one tour."""
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        paths = tour.tour(images.photo("coffee.jpg"), tmp_path_factory.mktemp("a") / "b" / "c", seed=3, config=CONFIG)
    return paths, "\n".join(lines)


def test_the_table_has_every_stage_with_its_shape(walked):
    _, text = walked
    stages = {line[4:27].strip(): line for line in text.splitlines() if re.match(r"\d\d  .*\d$", line)}
    shapes = {name: re.search(r"  (\([\d, ]*\)) ", line)[1] for name, line in stages.items()}
    assert shapes == {
        "photo, at its own ratio": "(136, 210, 3)",  # 400 x 600, in 17 x 21 patches of 8 x 10: 357 of about 384
        "pixel_values": "(1, 3, 136, 210)",
        "patches": "(1, 357, 240)",
        "patch embeddings": "(1, 357, 12)",
        "CLS in front": "(1, 358, 12)",
        "positions": "(1, 358, 12)",
        "position embeddings": "(1, 358, 12)",
        "block 1: layer norm": "(1, 358, 12)",
        "head 1: q, k, v": "(1, 358, 4)",
        "scores": "(1, 358, 358)",
        "attention": "(1, 358, 358)",
        "context": "(1, 358, 4)",
        "encoder: 2 blocks": "(1, 358, 12)",
        "final layer norm": "(1, 358, 12)",
        "which of three: logits": "(1, 3)",
        "loss": "()",
        "gradient": "(1, 3, 136, 210)",
    }
    total = ViTModel(CONFIG, add_pooling_layer=False).num_parameters()
    counts = [line.split()[-2].replace(",", "") for line in stages.values()]
    assert sum(int(count) for count in counts if count.isdecimal()) == total and f" {total:,}\n" in text
    assert "(24)" in stages["block 1: layer norm"] and "(144)" in stages["head 1: q, k, v"]
    assert "Bqd,Bkd->Bqk, / sqrt(d)" in stages["scores"]
    assert "untrained" in text and "seed 3" in text


def test_what_is_printed_is_ascii_and_fits_a_projector(walked):
    paths, text = walked
    for folder in (paths[0].parent, images.photo("coffee.jpg").parent):  # the user's, in any letters
        text = text.replace(str(folder), "")
    assert text.isascii()
    assert max(len(line) for line in text.splitlines() if "  " in line and "photo " not in line) <= 100


def test_by_hand_and_by_the_model_agree(walked):
    found = re.findall(r"hand-walked (\w+) .*: max difference (\S+)", walked[1])
    assert [name for name, _ in found] == ["attention", "logits", "gradient"]
    assert all(float(difference) < 1e-5 for _, difference in found)


def test_a_difference_by_hand_is_an_error(capsys):
    with pytest.raises(AssertionError, match="a == b"):
        tour._equal("a == b", Tensor(np.array([1.0, 2.0])), np.array([1.0, 2.001]))
    assert "a == b: max difference 1.0e-03" in capsys.readouterr().out


def test_the_gradient_check_is_the_last_line(walked):
    last = walked[1].splitlines()[-1]
    error = re.fullmatch(
        r"gradient check of the whole model: relative error (\S+) over 3 directions of 0\.0\d+ million numbers "
        r"\(allowed 1e-05\)",
        last,
    )
    assert float(error[1]) < 1e-6


def test_the_figures_are_png_files_that_show_something(walked):
    paths, text = walked
    assert [path.name for path in paths] == sorted(path.name for path in paths[0].parent.iterdir())
    assert [path.stem[:2] for path in paths] == ["01", "02", "03", "04", "05", "06"]
    for path in paths:
        assert str(path) in text
        with Image.open(path) as image:
            assert image.format == "PNG" and image.width == 1000 and image.height >= 300
            assert len(image.convert("RGB").getcolors(2**24)) > 50
    assert not plt.get_fignums()


def test_another_seed_gives_other_weights(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tour, "_draw", lambda *_: [])
    norms = []
    for seed in (3, 3, 4):
        tour.tour(images.photo(), tmp_path, seed=seed, config=CONFIG)
        norms.append(re.search(r"gradient at the pixels: (\S+)", capsys.readouterr().out)[1])
    assert norms[0] == norms[1] != norms[2]


def test_a_wrong_backward_is_found(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tour, "_draw", lambda *_: [])
    # GELU without the second term of its derivative
    monkeypatch.setitem(nn.ACTIVATIONS, "gelu", lambda x: x * Tensor(normal(x.data)[0]))
    with pytest.raises(GradientError, match=r"differ for .*encoder\.layer\.\S+ \("):
        tour.tour(images.photo(), tmp_path, config=CONFIG)
    assert "gradient check of the whole model: relative error" in capsys.readouterr().out


def test_which_of_three_is_a_cosine(rng):
    mean, rows, cls = rng.standard_normal(4), rng.standard_normal((3, 4)), rng.standard_normal((2, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = [[3 * (c - mean) @ r / np.linalg.norm(c - mean) for r in rows] for c in cls]
    np.testing.assert_allclose(three.which_of_three(Tensor(cls), (mean, rows)).data, expected, rtol=1e-12)
    eye = ViTModel(CONFIG, add_pooling_layer=False, rng=0).eval()
    mean, rows = three.classifier(eye, lambda photo: images.pixel_values(photo, (24, 50))[None])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    assert rows.shape == (3, 12)


@pytest.mark.parametrize("name", three.BOX)
def test_the_trained_eye_knows_the_photos_of_the_box(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tour, "PATCHES", 96)
    with Image.open(images.photo(name)) as photo:  # turned around, with its edges cut, it is still the same thing
        W, H = photo.size
        photo.crop((W // 10, 0, W, H)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mine.png")
    tour.tour(tmp_path / "mine.png", tmp_path / "out")
    text = capsys.readouterr().out
    logits = {key: float(value) for key, value in re.findall(r"(\w+\.jpg) ([-+][\d.]+) \(", text)}
    assert max(logits, key=logits.get) == name and logits[name] > 1
    assert "22,046,976 parameters, trained on photos without labels" in text and "untrained" not in text


def test_the_chosen_patch_is_the_one_that_is_drawn(tmp_path, capsys, monkeypatch):
    queries = []
    monkeypatch.setattr(tour, "_draw", lambda *given: queries.append(given[6]) or [])
    tour.tour(images.photo("coffee.jpg"), tmp_path, patch=(2, 5), config=CONFIG)
    assert queries == [1 + 2 * 21 + 5] and "--patch 2,5" in capsys.readouterr().out


@pytest.mark.parametrize("patch", [(17, 0), (0, 21), (-1, 0)])
def test_a_patch_that_is_not_there(patch, tmp_path, no_work):
    with pytest.raises(MinivitError, match=r"there is no patch .*\n  rule: .*rows 0 to 16 and columns 0 to 20"):
        tour.tour(images.photo("coffee.jpg"), tmp_path / "new", patch=patch, config=CONFIG)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [(1, 10000), (10000, 1), (3, 5), (8, 8), (5000, 60)])
def test_a_photo_of_any_size(size, tmp_path, capsys):
    Image.new("L", size, 90).save(tmp_path / "mine.png")
    paths = tour.tour(tmp_path / "mine.png", tmp_path / "out", config=CONFIG)
    assert len(paths) == 6


def test_untrained_weights_are_those_of_the_seed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tour, "_draw", lambda *_: [])
    monkeypatch.setattr(tour, "PATCHES", 24)
    tour.tour(images.photo(), tmp_path, untrained=True, seed=5)
    assert "22,046,976 parameters, drawn at random with seed 5: untrained" in capsys.readouterr().out


@pytest.fixture
def no_work(monkeypatch):
    """Fails when a model is made."""

    def refuse(*_, **__):
        raise AssertionError("work before the input was checked")

    monkeypatch.setattr(tour, "ViTModel", refuse)


@pytest.mark.parametrize("inside", [(), ("deeper",)])
def test_a_file_in_the_way_of_the_folder(tmp_path, no_work, inside):
    (tmp_path / "taken").write_text("mine", encoding="utf-8")
    with pytest.raises(FileError, match=r"taken.*: a file is in the way of this folder\.\n  hint: "):
        tour.tour(images.photo(), (tmp_path / "taken").joinpath(*inside))
    assert (tmp_path / "taken").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("method", ["mkdir", "touch"])
def test_a_folder_without_permission(tmp_path, no_work, monkeypatch, method):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, method, refuse)
    with pytest.raises(FileError, match="this folder cannot be written to: Permission denied"):
        tour.tour(images.photo(), tmp_path / "new")


def test_a_bad_photo_leaves_no_folder(tmp_path, no_work):
    with pytest.raises(FileError, match="there is no such file"):
        tour.tour(tmp_path / "none.jpg", tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_figure(tmp_path, capsys, monkeypatch):
    def half(figure, path, **_):
        Path(path).write_bytes(b"\x89PNG")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half)
    with pytest.raises(OSError, match="No space left"):
        tour.tour(images.photo(), tmp_path, config=CONFIG)
    assert not list(tmp_path.iterdir()) and not plt.get_fignums()
