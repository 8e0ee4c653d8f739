"""A linear head on frozen features: its formula against ridge regression solved anew, and the command that uses it."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from minivit import datasets, images, vit, weights
from minivit.__main__ import main
from minivit.cli import folders, probe
from minivit.errors import FileError


def drawn(rng, count=30, size=7, classes=3):
    labels = np.arange(count) % classes
    return rng.standard_normal((count, size)) + labels[:, None] * [2.0, -1, 0, 0, 0, 0, 0][:size], labels


def ridge(x, labels, count, strength, asked):
    """Centred ridge regression solved as a system of equations: the scores of `asked`."""
    one_hot = np.eye(count)[labels]
    mean, share = x.mean(0), one_hot.mean(0)
    centred = x - mean
    w = np.linalg.solve(centred.T @ centred + strength * np.eye(x.shape[1]), centred.T @ (one_hot - share))
    return (asked - mean) @ w + share


@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize("strength", [0.01, 1.0, 50.0])
def test_the_answers_left_out_are_those_of_a_ridge_on_all_others(size, strength, rng):
    """The penalty is on the slopes of centred features, so that the mean of the others is another: nearly the same."""
    x, labels = drawn(rng, size=size)
    x = x - x.mean(0)
    targets = np.eye(3)[labels]
    u, lengths, _ = np.linalg.svd(x, full_matrices=False)
    found = probe._left_out(u, lengths, targets - targets.mean(0), strength) + targets.mean(0)
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        with_ones = np.column_stack([x, np.ones(len(x))])
        penalty = strength * np.diag([1.0] * x.shape[1] + [0])  # the constant is not held back
        a = with_ones[others]
        w = np.linalg.solve(a.T @ a + penalty, a.T @ targets[others])
        np.testing.assert_allclose(found[i], with_ones[i] @ w, rtol=1e-9, atol=1e-12)


def test_the_head_is_the_ridge_of_its_strength(rng):
    x, labels = drawn(rng)
    head = probe.fit_head(x, labels, 3)
    strength = head.strength * ((x - x.mean(0)) ** 2).sum() / len(x)
    scores = ridge(x, labels, 3, strength, x)
    logits = x @ head.weight.T + head.bias
    sharp = (logits[0, 0] - logits[0, 1]) / (scores[0, 0] - scores[0, 1])
    assert min(abs(probe.SHARPNESS - sharp)) < 1e-4
    np.testing.assert_allclose(logits, sharp * scores, rtol=1e-4, atol=1e-5)
    assert head.weight.dtype == head.bias.dtype == np.float32 and 0.5 < head.accuracy <= 1


def test_the_strength_is_the_one_that_answers_best_for_pictures_left_out(rng):
    x, labels = drawn(rng, 24)
    x[:, 2:] *= 5  # five features that mean nothing, and are loud
    unit, losses = ((x - x.mean(0)) ** 2).sum() / len(x), []
    for strength in probe.STRENGTHS:
        scores = np.empty((len(x), 3))
        for i in range(len(x)):
            a = np.column_stack([x - x.mean(0), np.ones(len(x))])
            others = a[np.arange(len(x)) != i]
            system = others.T @ others + strength * unit * np.diag([1.0] * 7 + [0])
            scores[i] = a[i] @ np.linalg.solve(system, others.T @ np.delete(np.eye(3)[labels], i, axis=0))
        losses.append(min(probe._loss(sharp * scores, labels) for sharp in probe.SHARPNESS))
    assert probe.fit_head(x, labels, 3).strength == probe.STRENGTHS[np.argmin(losses)]


def test_a_class_of_one_picture_of_copies_and_a_single_class(rng):
    x, labels = drawn(rng, 3)
    head = probe.fit_head(x, labels, 3)
    assert np.isnan(head.accuracy) and ((x @ head.weight.T + head.bias).argmax(1) == labels).all()
    copies = np.repeat(x, 4, axis=0)
    head = probe.fit_head(copies, np.repeat(labels, 4), 3)
    assert head.accuracy == 1 and np.isfinite(head.weight).all()
    same = probe.fit_head(np.ones((6, 4)), np.arange(6) % 2, 2)  # nothing tells the classes apart
    assert np.isfinite(same.weight).all() and np.isfinite(same.bias).all()


def test_wilson_s_interval():
    np.testing.assert_allclose(probe.interval(8, 10), (0.4901, 0.9433), atol=2e-4)  # Wilson's, to four digits
    low, high = probe.interval(10, 10)
    assert 0.7 < low < 0.73 and high == pytest.approx(1)


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    """A small ViTModel in a folder: 12 numbers for each picture."""
    folder = tmp_path_factory.mktemp("body")
    config = vit.ViTConfig(12, 1, 3, 16, image_size=16, patch_size=8, initializer_range=0.3)
    vit.ViTModel(config, add_pooling_layer=False, rng=0).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 30, 30)), ("green", (30, 200, 30)), ("blue", (30, 30, 200))):
        (folder / name).mkdir()
        for i in range(6):
            pixels = np.clip(np.array(colour) + rng.normal(0, 20, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def run(capsys, *args):
    code = main([str(arg) for arg in args])
    return code, *capsys.readouterr()


def test_finetune_with_a_frozen_body(body, photos, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    code, printed, message = run(capsys, "finetune", body, photos, "--out", out, "--freeze")
    assert code == 0 and not message
    assert "18 pictures are looked at" in printed and "100.00% right" in printed
    assert re.search(r"test accuracy 100\.00% \((\d) of \1; 95 % interval \d\d% to 100%\)", printed)
    files = {"config.json", "preprocessor_config.json", "training.npz", "features.npz", "mistakes.png"}
    assert {path.name for path in out.iterdir()} == files
    before = vit.ViTModel.from_pretrained(body).state_dict()
    after = vit.ViTForImageClassification.from_pretrained(out).vit.state_dict()
    assert all(np.array_equal(after[name], before[name]) for name in after)  # the body stays

    looked = []
    monkeypatch.setattr(vit.ViTModel, "forward", lambda *args, **kwargs: looked.append(args) or 1 / 0)
    code, again, _ = run(capsys, "finetune", body, photos, "--out", out, "--freeze", "--resume")
    assert code == 0 and not looked and again == printed  # nothing is looked at twice


def test_what_it_makes_is_predicted_evaluated_and_exported(body, photos, tmp_path, capsys):
    assert run(capsys, "finetune", body, photos, "--out", tmp_path / "out", "--freeze")[0] == 0
    photo = photos / "green" / "0.png"
    code, printed, _ = run(capsys, "predict", tmp_path / "out", photo, "--top", 1)
    assert code == 0 and printed.splitlines()[1].split()[1] == "green"
    assert "100.00%" in run(capsys, "evaluate", tmp_path / "out", photos)[1]
    assert run(capsys, "export", tmp_path / "out", tmp_path / "hf")[0] == 0
    x = images.pixel_values(photo, 16)[None]
    models = (vit.ViTForImageClassification.from_pretrained(tmp_path / name) for name in ("out", "hf"))
    one, other = (model(x).logits.data for model in models)
    np.testing.assert_array_equal(one, other)
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["id2label"]["1"] == "green"


def test_new_photos_are_looked_at_and_known_ones_are_not(body, photos, tmp_path):
    model = vit.ViTModel.from_pretrained(body, add_pooling_layer=False)
    data, _ = datasets.image_folder(photos, size=16)
    (first,) = probe.look(model, [data.subset([0, 1, 2])], tmp_path)
    seen = []
    forward = model.forward
    model.forward = lambda x: seen.append(len(x)) or forward(x)
    (more,) = probe.look(model, [data.subset([2, 3, 0, 1, 4])], tmp_path)
    assert sum(seen) == 2
    np.testing.assert_array_equal(more[[2, 3, 0]], first)
    np.testing.assert_allclose(more[1], forward(data.batch([3])[0]).last_hidden_state.data[0, 0], rtol=1e-5, atol=1e-6)
    other = vit.ViTModel(model.config, add_pooling_layer=False, rng=5).eval()  # another model sees something else
    (others,) = probe.look(other, [data.subset([0])], tmp_path)
    assert not np.allclose(others[0], first[0])


def test_a_stop_keeps_what_was_seen(body, photos, tmp_path):
    model = vit.ViTModel.from_pretrained(body, add_pooling_layer=False)
    data, _ = datasets.image_folder(photos, size=16)
    forward, calls = model.forward, []

    def stopped(x):
        calls.append(len(x))
        if len(calls) > 1:
            raise KeyboardInterrupt
        return forward(x)

    model.forward = stopped
    with pytest.raises(KeyboardInterrupt, match=r"what was seen is kept in .*features\.npz"):
        probe.look(model, [data], tmp_path)
    with np.load(tmp_path / "features.npz") as file:
        assert len(file["features"]) == calls[0] == probe.BATCH
    assert folders._is_own(tmp_path / "features.npz", False)


def test_features_of_another_program_are_refused_and_kept(body, photos, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    np.savez(tmp_path / "out" / "features.npz", mine=np.arange(3))
    code, _, message = run(capsys, "finetune", body, photos, "--out", tmp_path / "out", "--freeze")
    assert code == 2 and "holds files that minivit did not write" in message and "features.npz" in message
    with np.load(tmp_path / "out" / "features.npz") as file:
        assert file["mine"].tolist() == [0, 1, 2]
    (tmp_path / "broken.npz").write_bytes(b"PK")
    assert not probe.is_own_features(tmp_path / "broken.npz")
    with pytest.raises(FileError, match="holds no features that minivit wrote"):
        probe._read(tmp_path / "out" / "features.npz", "")


def test_options_of_training_by_steps_do_not_go_with_a_frozen_body(body, photos, tmp_path, capsys):
    for options, named in ((("--epochs", 3), "epochs"), (("--fast",), "fast"), (("--lr", 0.1), "lr")):
        code, _, message = run(capsys, "finetune", body, photos, "--out", tmp_path / "out", "--freeze", *options)
        assert code == 2 and f"{named} given, and the body is frozen" in message and "--no-freeze" in message
    assert not (tmp_path / "out").exists()


def test_the_trained_eye_is_frozen_unless_it_is_said_otherwise(photos, tmp_path, monkeypatch):
    from minivit.cli import commands

    calls = []
    monkeypatch.setattr(commands, "_fit_head", lambda *args: calls.append("head"))
    monkeypatch.setattr(commands, "_fit", lambda *args: calls.append("steps"))
    main(["finetune", "dinov2-small", str(photos), "--out", str(tmp_path / "a")])
    main(["finetune", "dinov2-small", str(photos), "--out", str(tmp_path / "b"), "--no-freeze"])
    assert calls == ["head", "steps"]


def test_few_photos_from_scratch_are_told_of_the_better_way(photos, tmp_path, capsys):
    sizes = ("--image-size", 16, "--patch-size", 8, "--epochs", 1)
    code, printed, _ = run(capsys, "train", photos, "--out", tmp_path / "out", *sizes)
    assert code == 0 and f"minivit finetune dinov2-small {photos} --out DIR" in printed


def test_a_folder_with_one_photo_a_class(body, tmp_path, capsys):
    for name, value in (("a", 20), ("b", 220)):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), (value,) * 3).save(tmp_path / "data" / name / "one.png")
    code, printed, _ = run(capsys, "finetune", body, tmp_path / "data", "--out", tmp_path / "out", "--freeze")
    assert code == 0 and "each class has one picture" in printed and "there were no test pictures" in printed
    assert (tmp_path / "out" / weights.STATE).is_file()
