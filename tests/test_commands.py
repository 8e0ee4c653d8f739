"""The commands on data, from the command line: what they write, print and refuse."""

import json
import os
import re
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minivit import datasets, images, ops, vit, weights
from minivit.__main__ import main
from minivit.cli import commands, parser


def run(capsys, *args):
    """The exit code of `minivit ARGS`, and what it printed."""
    code = main([str(arg) for arg in args])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def refused(capsys, *args, match):
    """`minivit ARGS` exits with 2 and one message."""
    code, _, message = run(capsys, *args)
    assert code == 2
    assert re.search(match, message), message
    assert "Traceback" not in message


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training folder after two quick epochs on the digits."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "digits", "--out", str(out), "--epochs", "2"]) == 0
    return out


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of small photos, red ones and blue ones; one of the files is no photo."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (folder / name).mkdir()
        for number in range(6):
            pixels = rng.integers(0, 60, (20, 30, 3), dtype=np.uint8)
            pixels[..., channel] += 180
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    (folder / "red" / "broken.jpg").write_bytes(b"no photo")
    return folder


def test_train_writes_a_whole_folder(trained, capsys):
    assert sorted(path.name for path in trained.iterdir()) == [
        "config.json",
        "curves.png",
        "history.csv",
        "preprocessor_config.json",
        "training.npz",
    ]
    config = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["ViTForImageClassification"] and config["id2label"]["9"] == "9"
    assert (config["image_size"], config["num_channels"]) == ([8, 8], 1)
    with Image.open(trained / "curves.png") as picture:
        assert picture.width == 1000 and len(picture.convert("RGB").getcolors(10**6)) > 10


def test_evaluate_counts_what_train_reported(trained, capsys):
    code, printed, _ = run(capsys, "evaluate", trained, "digits")
    assert code == 0
    history = (trained / "history.csv").read_text(encoding="utf-8").splitlines()
    reported = float(dict(zip(history[0].split(","), history[-1].split(","), strict=True))["test_accuracy"])
    assert float(re.search(r"accuracy ([\d.]+)%", printed)[1]) == pytest.approx(100 * reported, abs=0.006)
    rows = re.findall(r"^(\d) +(\d+) +([\d.]+%|-) +([\d.]+%|-)$", printed, re.M)
    assert [row[0] for row in rows] == list("0123456789") and sum(int(row[1]) for row in rows) == 899
    assert (trained / "confusion.png").stat().st_size > 10_000


def test_predict_names_the_likeliest_classes(trained, tmp_path, capsys):
    paths = [tmp_path / "ink on paper.png", tmp_path / "\u6570.png"]
    for path in paths:
        Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(path)
    code, printed, _ = run(capsys, "predict", trained, *paths, "--top", 4)
    assert code == 0
    first, second = printed.split(str(paths[1]))
    assert first.startswith(str(paths[0])) and first.removeprefix(str(paths[0])) == second
    shares = [float(share) for share in re.findall(r"([\d.]+)%  \d", second)]
    assert len(shares) == 4 and shares == sorted(shares, reverse=True) and sum(shares) <= 100.1
    assert run(capsys, "predict", trained, paths[0], "--invert")[1] != run(capsys, "predict", trained, paths[0])[1]


@pytest.mark.parametrize("side", [8, 120])
def test_a_digit_the_wrong_way_round_is_suggested_to_be_inverted(trained, tmp_path, capsys, side):
    train_set, _ = datasets.digits()
    light = Image.fromarray(train_set.images[3, 0]).resize((side, side), Image.Resampling.BILINEAR)
    grey = np.asarray(light)
    dim = 40 + (255 - grey) // 4  # ink on paper in a dark room: 40 to 103
    corners = np.abs(np.linspace(-1, 1, side))
    shaded = ((255 - grey) * (1 - 0.3 * (corners[:, None] + corners) / 2)).astype(np.uint8)
    drawing = np.stack([np.zeros_like(grey)] * 3 + [grey], axis=2)  # black on nothing
    says = r"note: .*png: dark on light\. .* wants it with --invert"
    answers = {}
    for name, pixels in (("light", grey), ("ink", 255 - grey), ("dim", dim), ("shaded", shaded), ("drawing", drawing)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        printed = run(capsys, "predict", trained, tmp_path / f"{name}.png")[1]
        assert bool(re.search(says, printed)) == (name != "light"), (name, printed)
        inverted = run(capsys, "predict", trained, tmp_path / f"{name}.png", "--invert")[1]
        assert bool(re.search("dark on light after --invert.* wants it without", inverted)) == (name == "light")
        answers[name] = (inverted if name != "light" else printed).split("\n", 1)[1]
    assert answers["ink"] == answers["drawing"] == answers["light"]


def test_a_picture_without_ink_and_a_photo_in_colour_are_not_suggested_to_be_inverted(trained, tmp_path, capsys):
    Image.new("L", (20, 20), 255).save(tmp_path / "blank.png")
    assert "note" not in run(capsys, "predict", trained, tmp_path / "blank.png")[1]
    config = vit.ViTConfig(8, 1, 2, 8, image_size=8, patch_size=4)
    vit.ViTForImageClassification(config).save_pretrained(tmp_path / "colour")
    Image.fromarray(np.uint8([[255, 255, 255], [255, 0, 255], [255, 255, 255]])).save(tmp_path / "dot.png")
    assert "note" not in run(capsys, "predict", tmp_path / "colour", tmp_path / "dot.png")[1]
    assert "note" in run(capsys, "predict", trained, tmp_path / "dot.png")[1]


def test_a_scan_of_12_bits_is_a_note_of_predict(trained, tmp_path, capsys):
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(tmp_path / "scan.png")
    code, printed, message = run(capsys, "predict", trained, tmp_path / "scan.png")
    assert code == 0 and not message and re.match("note: .*scan.png: the brightest grey is 4000 of 65535", printed)


@pytest.mark.parametrize("name", [b"\xff\xfe", b"caf\xe9"])
def test_a_class_folder_whose_name_is_not_utf_8_trains_and_is_evaluated(tmp_path, capsys, name):
    for folder, red in ((name, 255), (b"other", 0)):
        folder = os.path.join(os.fsencode(tmp_path), b"photos", folder)
        try:
            os.makedirs(folder)
        except (OSError, UnicodeError):  # macOS and Windows know no such names
            return
        for green in range(2):
            Image.new("RGB", (8, 8), (red, green, 0)).save(os.path.join(folder, b"%d.png" % green))
    sizes = ("--image-size", 8, "--patch-size", 4, "--epochs", 1)
    assert run(capsys, "train", tmp_path / "photos", *sizes, "--out", tmp_path / "model")[0] == 0
    code, printed, message = run(capsys, "evaluate", tmp_path / "model", tmp_path / "photos")
    shown = name.decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace").decode()
    assert code == 0 and not message and re.search(rf"^{re.escape(shown)} +1 ", printed, re.M)
    names = vit.ViTConfig.from_json_file(tmp_path / "model" / "config.json").id2label.values()
    assert sorted(names) == sorted([shown, "other"])
    assert (tmp_path / "model" / "confusion.png").exists()
    photo = os.path.join(tmp_path, "photos", "other", "0.png")
    assert shown in run(capsys, "predict", tmp_path / "model", photo)[1]


def test_a_split_that_lies_in_folders_is_trained_and_evaluated_as_it_is(tmp_path, capsys):
    for part, count in (("train", 3), ("val", 2)):
        for red, name in enumerate(("cat", "dog")):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for green in range(count):
                Image.new("RGB", (8, 8), (red * 200, green, 0)).save(tmp_path / "data" / part / name / f"{green}.png")
    sizes = ("--image-size", 8, "--patch-size", 4, "--epochs", 1)
    code, printed, _ = run(capsys, "train", tmp_path / "data", *sizes, "--out", tmp_path / "model")
    assert code == 0 and "6 pictures to learn from" in printed and "left out" not in printed
    assert "on 4 pictures" in run(capsys, "evaluate", tmp_path / "model", tmp_path / "data")[1]


def test_predict_answers_as_the_problem_type_has_it(tmp_path, capsys):
    """Chances of their own for several labels, a number for a regression; a folder of classes is for neither."""
    path = tmp_path / "photo.png"
    Image.fromarray(np.full((8, 8, 3), 128, np.uint8)).save(path)
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 8}
    sizes |= {"image_size": 8, "patch_size": 4}
    names = {"id2label": {0: "cat", 1: "dog"}}
    cases = [
        (names | {"problem_type": "multi_label_classification"}, ["52.50%  cat", "48.76%  dog"]),
        (names, ["53.73%  cat", "46.27%  dog"]),
        ({"num_labels": 1}, ["0.1000  LABEL_0"]),
        ({"id2label": {0: "x", 1: "y"}, "problem_type": "regression"}, ["0.1000  x", "-0.0496  y"]),
        ({"id2label": {1: "cat", 2: "dog"}}, ["53.73%  LABEL_0", "46.27%  cat"]),
        (names | {"problem_type": "multi_label_classification"}, ["52.56%  cat", "49.00%  dog", "46.15%  bird"]),
        (names, ["37.87%  cat", "32.84%  dog", "29.29%  bird"]),
    ]
    three = 5  # from this case on, of three classes
    for number, (fields, lines) in enumerate(cases):
        if number >= three:
            fields = fields | {"id2label": {0: "cat", 1: "dog", 2: "bird"}}
        model = vit.ViTForImageClassification(vit.ViTConfig(**sizes, **fields))
        model.classifier.weight.data[:] = 0  # the logits are the biases
        biases = [0.1025, -0.04, -0.1543] if number >= three else [0.1, -0.0496]
        model.classifier.bias.data[:] = biases[: model.config.num_labels]
        model.save_pretrained(tmp_path / str(number))
        code, printed, _ = run(capsys, "predict", tmp_path / str(number), path)
        assert code == 0 and [line.strip() for line in printed.splitlines()[1:]] == lines
    (tmp_path / "data").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir()
        for place in range(3):
            shutil.copyfile(path, tmp_path / "data" / name / f"{place}.png")
    refused(capsys, "evaluate", tmp_path / "0", tmp_path / "data", match="the model's task is multi_label_class")
    out = tmp_path / "out"
    assert run(capsys, "finetune", tmp_path / "0", tmp_path / "data", "--out", out, "--epochs", 1)[0] == 0
    assert json.loads((out / "config.json").read_text())["problem_type"] is None


def test_a_model_sees_pictures_as_its_folder_describes_them(tmp_path, photos, capsys):
    """predict, evaluate and finetune crop photos as the folder says; import keeps what timm says."""
    golden = Path(__file__).parent / "golden" / "spellings"
    assert run(capsys, "import", golden / "timm_vit", tmp_path / "timm")[0] == 0
    described = weights.read_preprocessor(tmp_path / "timm")
    assert (described["size"], described["crop_size"]) == ({"shortest_edge": 13}, {"height": 12, "width": 12})
    photo = next((photos / "red").glob("*.png"))
    model = vit.ViTForImageClassification.from_pretrained(golden / "timm_vit")
    x = images.pixel_values(photo, shortest_edge=13, crop=12, resample="bicubic")
    p = ops.softmax(model(x[None]).logits).data[0]
    printed = run(capsys, "predict", tmp_path / "timm", photo, "--top", 1)[1]
    assert printed.splitlines()[1].split() == [f"{p.max():.2%}", f"LABEL_{p.argmax()}"]

    shutil.copytree(golden / "dinov2", tmp_path / "dinov2")
    fields = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 20}, "crop_size": 16}
    (tmp_path / "dinov2" / "preprocessor_config.json").write_text(json.dumps(fields))
    out = tmp_path / "out"
    assert run(capsys, "finetune", tmp_path / "dinov2", photos, "--out", out, "--epochs", 2)[0] == 0
    config, described = (json.loads((out / f"{name}.json").read_text()) for name in ("config", "preprocessor_config"))
    assert config["image_size"] == [16, 16] and config["model_type"] == "vit"
    assert (described["size"], described["crop_size"]) == ({"shortest_edge": 20}, {"height": 16, "width": 16})
    assert run(capsys, "evaluate", out, photos)[0] == 0
    larger = "finetune", tmp_path / "dinov2", photos, "--out", tmp_path / "larger", "--epochs", 1, "--image-size", 32
    assert run(capsys, *larger)[0] == 0
    described = json.loads((tmp_path / "larger" / "preprocessor_config.json").read_text())
    assert (described["size"], described["crop_size"]) == ({"shortest_edge": 40}, {"height": 32, "width": 32})

    fields = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 15}, "do_center_crop": False}
    (out / "preprocessor_config.json").write_text(json.dumps(fields))
    assert run(capsys, "predict", out, photo)[0] == 0  # 15x22 pixels: positions are interpolated
    refused(capsys, "evaluate", out, photos, match="the pictures would keep sizes of their own")


def test_training_is_repeatable_for_a_seed(tmp_path):
    for name in "ab":
        main(["train", "digits", "--out", str(tmp_path / name), "--epochs", "1", "--seed", "3"])
    a, b = (weights.read_state(tmp_path / name / "training.npz")[0] for name in "ab")
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], name)


def test_a_folder_with_a_training_is_not_overwritten(trained, capsys):
    before = (trained / "training.npz").read_bytes()
    refused(capsys, "train", "digits", "--out", trained, match=r"holds a model already \(training.npz\)(.|\n)*--resume")
    refused(capsys, "import", trained, trained, match="holds a model already")
    assert (trained / "training.npz").read_bytes() == before


def test_resume_of_a_finished_or_missing_training(trained, tmp_path, capsys):
    code, printed, _ = run(capsys, "train", "digits", "--out", trained, "--epochs", 2, "--resume")
    assert code == 0 and "epoch" not in printed and "test accuracy" in printed
    refused(capsys, "train", "digits", "--out", trained, "--epochs", 3, "--resume", match="epochs: 2 then, 3 now")
    before = (trained / "config.json").read_bytes()
    again = ("train", "digits", "--out", trained, "--resume")
    refused(capsys, *again, "--hidden-size", 128, match="another model:\n    hidden_size: 64 then, 128 now")
    refused(capsys, *again, "--masked", match="another model:\n    architectures")
    refused(capsys, *again, "--image-size", 12, match="another model:\n    image_size")
    assert (trained / "config.json").read_bytes() == before
    refused(capsys, "train", "digits", "--out", tmp_path / "none", "--resume", match="no training to go on with")


def test_finetune_gives_new_classes_a_new_head_and_another_size_other_positions(trained, photos, tmp_path, capsys):
    code, printed, _ = run(
        capsys, "finetune", trained, "digits", "--out", tmp_path / "large", "--epochs", 1, "--image-size", 12
    )
    assert code == 0 and "new head" not in printed
    model = vit.ViTForImageClassification.from_pretrained(tmp_path / "large")
    assert model.vit.embeddings.position_embeddings.shape[1] == 1 + (12 // model.config.patch_size) ** 2
    written = weights.read_preprocessor(tmp_path / "large")
    assert written["size"] == {"height": 12, "width": 12}


def test_freeze_learns_the_head_only(trained, tmp_path, capsys):
    code, *_ = run(capsys, "finetune", trained, "digits", "--out", tmp_path / "probe", "--freeze")
    assert code == 0
    before, after = (vit.ViTForImageClassification.from_pretrained(folder) for folder in (trained, tmp_path / "probe"))
    for (name, a), (_, b) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        assert (a.data == b.data).all() == (not name.startswith("classifier.")), name


def test_photos_are_learned_and_a_broken_one_is_named(photos, tmp_path, capsys):
    sizes = ("--hidden-size", 16, "--num-hidden-layers", 1, "--num-attention-heads", 2, "--intermediate-size", 16)
    command = ("train", photos, "--image-size", 16, *sizes, "--epochs", 12, "--lr", 0.01)
    code, printed, _ = run(capsys, *command, "--out", tmp_path / "colours")
    assert code == 0
    assert re.search(r"note: (.|\n)*broken.jpg", printed) and "test accuracy 100.00%" in printed
    code, printed, _ = run(capsys, "predict", tmp_path / "colours", photos / "blue" / "0.png", "--top", 1)
    path, answer = printed.splitlines()
    assert path == str(photos / "blue" / "0.png") and answer.split()[1:] == ["blue"]
    refused(capsys, *command, "--out", tmp_path / "strict", "--strict", match="broken.jpg")
    assert not (tmp_path / "strict").exists()
    refused(
        capsys, "finetune", tmp_path / "colours", "digits", "--out", tmp_path / "x", match="1 channels, the model 3"
    )
    refused(capsys, "evaluate", tmp_path / "colours", "digits", match="1 channels, the model 3")


def test_masked_pretraining_and_what_follows_it(tmp_path, capsys):
    masked = tmp_path / "masked"
    code, printed, _ = run(capsys, "train", "digits", "--masked", "--out", masked, "--epochs", 2)
    assert code == 0 and "mean error of a hidden pixel" in printed and "accuracy" not in printed
    assert json.loads((masked / "config.json").read_text())["architectures"] == ["ViTForMaskedImageModeling"]
    refused(capsys, "predict", masked, "x.png", match="without a classifier(.|\n)*minivit finetune")
    refused(capsys, "evaluate", masked, "digits", match="without a classifier")
    code, printed, _ = run(capsys, "finetune", masked, "digits", "--out", tmp_path / "tuned", "--epochs", 1)
    assert code == 0 and "note: a new head was drawn" in printed and "test accuracy" in printed


def test_export_and_import_give_the_same_model_back(trained, tmp_path, capsys):
    hf, back = tmp_path / "hf", tmp_path / "back"
    assert run(capsys, "export", trained, hf)[0] == 0
    assert sorted(path.name for path in hf.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert run(capsys, "import", hf, back)[0] == 0
    x = np.random.default_rng(0).standard_normal((2, 1, 8, 8), dtype=np.float32)
    logits = [vit.ViTForImageClassification.from_pretrained(f)(x).logits.data for f in (trained, hf, back)]
    np.testing.assert_array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(logits[0], logits[2])
    (hf / "preprocessor_config.json").unlink()  # as where only the model was saved
    assert "no preprocessor_config.json; pictures will be scaled" in run(capsys, "import", hf, tmp_path / "bare")[1]
    refused(capsys, "export", trained, hf, match=r"holds a model already \(model.safetensors\)")
    refused(capsys, "export", trained, trained, match="holds a model already")
    refused(capsys, "finetune", back, "digits", "--out", back, match="holds a model already")
    refused(capsys, "train", "digits", "--out", back, "--resume", match="holds weights only")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("train", "nothing", "--out", "OUT"), "no data set and no folder 'nothing'"),
        (("train", "mnist:nowhere", "--out", "OUT"), "nowhere"),
        (("train", "digits", "--out", "OUT", "--patch-size", "3"), "cannot be cut into patches of 3"),
        (("train", "digits", "--out", "OUT", "--hidden-size", "50"), "cannot be split over"),
        (("train", "digits", "--out", "OUT", "--lr", "-1"), "lr"),
        (("train", "digits", "--out", "FILE"), "cannot be written|in the way|is a file"),
        (("finetune", "nowhere", "digits", "--out", "OUT"), "nowhere"),
        (("evaluate", "nowhere", "digits"), "nowhere"),
        (("predict", "nowhere", "x.png"), "nowhere"),
        (("predict", "TRAINED", "nowhere.png"), "nowhere.png: there is no such file"),
        (("export", "nowhere", "OUT"), "nowhere"),
        (("import", "nowhere", "OUT"), "nowhere"),
    ],
)
def test_bad_input_is_explained_and_nothing_is_written(trained, tmp_path, capsys, args, message):
    (tmp_path / "file").write_text("in the way")
    names = {"OUT": tmp_path / "out", "FILE": tmp_path / "file", "TRAINED": trained}
    refused(capsys, *(names.get(arg, arg) for arg in args), match=message)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize(
    "args", [("train", "digits"), ("train", "digits", "--out", "x", "--epochs", "0"), ("predict", "x")]
)
def test_wrong_usage_exits_with_2(args, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(list(args))
    assert stopped.value.code == 2


NUMBER, LONG = "1" * 30, "1" * 5000


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("--epochs", NUMBER, "1 or more, up to 1048576"),
        ("--epochs", LONG, "1 or more, up to 1048576"),
        ("--epochs", "1048577", "1 or more, up to 1048576"),
        ("--epochs", "1e3", "1 or more, up to 1048576"),
        ("--batch-size", NUMBER, "1 or more, up to 1048576"),
        ("--hidden-size", NUMBER, "1 or more, up to 1048576"),
        ("--num-hidden-layers", LONG, "1 or more, up to 1048576"),
        ("--image-size", NUMBER, "1 or more, up to 4096"),
        ("--image-size", "4097", "1 or more, up to 4096"),
        ("--seed", str(10**40), "0 or more, up to 18446744073709551615"),
        ("--seed", str(2**64), "0 or more, up to 18446744073709551615"),
    ],
    ids=lambda text: text[:20],
)
def test_whole_numbers_have_bounds(tmp_path, capsys, option, value, rule):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "digits", "--out", str(tmp_path / "x"), option, value])
    came = repr(value if len(value) <= 40 else value[:40] + "...")
    *_, last = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert last == f"minivit train: error: argument {option}: {came} is not a whole number, {rule}"
    assert not (tmp_path / "x").exists()


def test_the_largest_numbers_are_taken():
    args = ("--seed", str(2**64 - 1), "--epochs", "1048576", "--batch-size", "1048576", "--image-size", "4096")
    found = parser._parser().parse_args(["train", "digits", "--out", "x", *args])
    assert (found.seed, found.epochs, found.batch_size, found.image_size) == (2**64 - 1, 2**20, 2**20, 2**12)


@pytest.mark.parametrize("top", [NUMBER, LONG, "0", "-1"])
def test_top_has_bounds(top, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["predict", "model", "x.png", "--top", top])
    assert stopped.value.code == 2


@pytest.mark.parametrize("lr", ["1e400", "inf", "-inf", "nan", "0", "-0", "-0.0", LONG], ids=lambda text: text[:20])
def test_a_learning_rate_is_above_0_and_finite(lr, tmp_path, capsys):
    refused(capsys, "train", "digits", "--out", tmp_path / "x", f"--lr={lr}", match=r"^Recipe: lr=.*\n  rule: .*finite")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("number", ["0", "-1", "99", NUMBER, LONG, "x", ""], ids=lambda text: text[:20])
def test_a_lesson_or_exercise_of_no_number(number, tmp_path, capsys):
    for command in ("run", "exercise"):
        refused(capsys, command, "--out", tmp_path, "--", number, match=f"^{command}: there is no ")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def damaged(trained, tmp_path):
    """damaged(name, change): the folder of the trained model with one parameter changed."""

    def save(name, change):
        model = vit.ViTForImageClassification.from_pretrained(trained)
        parameter = dict(model.named_parameters())[name]
        parameter.data = change(parameter.data)
        model.save_pretrained(tmp_path / "model")
        Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / "x.png")
        return tmp_path / "model"

    return save


def flipped(x):
    """float32 numbers with the highest bit of their exponents flipped: small ones become huge."""
    return (x.view(np.uint32) ^ np.uint32(2**30)).view(np.float32)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("vit.encoder.layer.0.output.dense.weight", lambda x: x * np.float32(1e30)),
        ("vit.encoder.layer.1.attention.attention.query.weight", flipped),
        ("vit.layernorm.weight", lambda x: np.full_like(x, 3e38)),
        ("classifier.weight", flipped),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_result_that_is_not_finite_is_refused(name, change, damaged, tmp_path, capsys, recwarn):
    model, photo = damaged(name, change), tmp_path / "x.png"
    for command, what in (
        (("predict", model, photo), photo),
        (("evaluate", model, "digits"), "899 pictures of digits"),
    ):
        code, printed, message = run(capsys, *command)
        assert code == 2 and not printed
        assert message.startswith(f"{model}: the ") and str(what) in message and message.count("hint:") == 1
    assert not (model / "confusion.png").exists()
    assert not recwarn.list


def test_a_large_finite_result_is_one(damaged, tmp_path, capsys, recwarn):
    model = damaged("classifier.weight", lambda x: x * np.float32(1e30))
    code, printed, message = run(capsys, "predict", model, tmp_path / "x.png")
    assert code == 0 and not message and not recwarn.list
    assert re.findall(r"([\d.]+)%", printed) == ["100.00", "0.00", "0.00"]


def test_a_training_that_overflows_is_refused_without_warnings_of_numpy(tmp_path, capsys, recwarn):
    refused(capsys, "train", "digits", "--out", tmp_path / "x", "--epochs", 1, "--lr", 1e30, match="^fit: .*(nan|inf)")
    assert not recwarn.list


def test_predict_holds_a_few_photos_at_a_time(tmp_path, capsys, monkeypatch):
    config = vit.ViTConfig(8, 1, 2, 8, image_size=64, patch_size=32, num_labels=2)
    vit.ViTForImageClassification(config).save_pretrained(tmp_path / "model")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "blue.png")
    order = ["red", "blue", "blue"] * 100
    main(["predict", str(tmp_path / "model"), str(tmp_path / "red.png")])
    main(["predict", str(tmp_path / "model"), str(tmp_path / "blue.png")])
    one = capsys.readouterr().out
    peaks = []
    for count in (30, 300):
        tracemalloc.start()
        main(["predict", str(tmp_path / "model"), *(str(tmp_path / f"{name}.png") for name in order[:count])])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        answers = [answer for answer in capsys.readouterr().out.split(str(tmp_path)) if answer]
        red, blue = [answer for answer in one.split(str(tmp_path)) if answer]
        assert answers == [{"red": red, "blue": blue}[name] for name in order[:count]]
    assert peaks[1] - peaks[0] < 20 * 3 * 64 * 64 * 4  # 270 more photos, and not 20 more held


def test_of_a_few_photos_all_are_read_before_the_first_is_answered(trained, tmp_path, capsys):
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "x.png")
    code, printed, message = run(capsys, "predict", trained, tmp_path / "x.png", tmp_path / "none.png")
    assert code == 2 and not printed and "none.png" in message


def test_digits_at_another_size(tmp_path, capsys):
    assert run(capsys, "train", "digits", "--out", tmp_path / "x", "--epochs", 1, "--image-size", 12)[0] == 0
    assert json.loads((tmp_path / "x" / "config.json").read_text(encoding="utf-8"))["image_size"] == [12, 12]


def test_photos_that_do_not_do(trained, tmp_path, capsys):
    for name in ("one", "two"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "data" / name / "a.png")
    data, small = tmp_path / "data", ("--epochs", 1, "--image-size", 8, "--hidden-size", 8, "--num-attention-heads", 1)
    refused(capsys, "train", data, "--out", data / "run", match="lies inside the data")
    code, printed, _ = run(capsys, "train", data, "--out", tmp_path / "out", *small)
    assert code == 0 and "there were no test pictures" in printed
    refused(capsys, "evaluate", tmp_path / "out", data, match="has no test pictures")


def test_evaluate_needs_the_same_classes(trained, tmp_path, capsys):
    config = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    shutil.copytree(trained, tmp_path / "other")
    config["id2label"] = {k: f"class {k}" for k in config["id2label"]}
    config.pop("label2id")
    (tmp_path / "other" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    refused(capsys, "evaluate", tmp_path / "other", "digits", match="the model knows class 0(.|\n)*minivit finetune")


def test_export_and_import_check_the_weights(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "odd")
    config = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "odd" / "config.json").write_text(json.dumps(config | {"hidden_size": 32}), encoding="utf-8")
    refused(capsys, "export", tmp_path / "odd", tmp_path / "hf", match="the weights do not fit the model")
    refused(capsys, "import", tmp_path / "odd", tmp_path / "back", match="the weights do not fit the model")
    assert not (tmp_path / "hf").exists() and not (tmp_path / "back").exists()


def test_a_file_in_the_way_is_found_before_the_work(trained, tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for command in (
        ("train", "digits", "--out", taken),
        ("finetune", trained, "digits", "--out", taken),
        ("evaluate", trained, "digits", "--out", taken),
        ("export", trained, taken),
        ("import", trained, taken),
        ("exercise", "6", "--out", taken),
    ):
        code, printed, message = run(capsys, *command)
        assert code == 2 and "taken: a file is in the way of this folder." in message
        assert "accuracy" not in printed and "epoch" not in printed
    assert taken.read_text() == "mine"


def test_only_a_training_is_told_that_it_may_go_on(trained, tmp_path, capsys):
    for command in (("export", trained, trained), ("import", trained, trained)):
        assert "--resume" not in run(capsys, *command)[2]


def test_class_names_in_letters_that_the_font_lacks(trained, tmp_path, capsys):
    for name in ("\u732b", "$x^$"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for green in range(2):
            Image.new("RGB", (8, 8), (len(name) * 50, green, 0)).save(tmp_path / "photos" / name / f"{green}.png")
    sizes = ("--image-size", 8, "--patch-size", 4, "--epochs", 1)
    assert run(capsys, "train", tmp_path / "photos", *sizes, "--out", tmp_path / "model")[0] == 0
    code, _, message = run(capsys, "evaluate", tmp_path / "model", tmp_path / "photos")
    assert code == 0 and not message and (tmp_path / "model" / "confusion.png").exists()


def test_the_digits_may_be_trained_into_a_folder_of_their_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train = ("train", "digits", "--out", "digits", "--epochs", 1)
    for command in (train, (*train, "--resume")):
        assert run(capsys, *command)[0] == 0


def test_half_of_the_patches_are_painted(monkeypatch):
    config = vit.ViTConfig(image_size=8, patch_size=2, num_channels=1, hidden_size=4, num_attention_heads=1)
    model, seen = vit.ViTForMaskedImageModeling(config), []
    monkeypatch.setattr(model, "forward", lambda x, mask: seen.append(mask) or vit.MaskedImageModelingOutput(None, x))
    commands.paint(model, np.zeros((3, 1, 8, 8)), None, np.random.default_rng(0))
    assert seen[0].sum(1).tolist() == [8, 8, 8] and not (seen[0][0] == seen[0][1]).all()


def test_one_patch_cannot_be_hidden_and_painted(tmp_path, capsys):
    refused(capsys, "train", "digits", "--masked", "--patch-size", 8, "--out", tmp_path / "x", match="smaller patch")


def test_other_classes_of_the_same_number_get_a_new_head_that_learns_gently(tmp_path, capsys):
    for names in ("ab", "cd"):
        for red, name in enumerate(names):
            (tmp_path / names / name).mkdir(parents=True)
            for green in range(2):
                Image.new("RGB", (8, 8), (100 * red, green, 0)).save(tmp_path / names / name / f"{green}.png")
    train = ("--epochs", 1, "--out")
    assert run(capsys, "train", tmp_path / "ab", "--image-size", 8, "--patch-size", 4, *train, tmp_path / "one")[0] == 0
    code, printed, _ = run(capsys, "finetune", tmp_path / "one", tmp_path / "cd", *train, tmp_path / "two")
    assert code == 0 and "a new head was drawn (classifier.weight, classifier.bias)" in printed
    first, second = (weights.read_state(tmp_path / name / "training.npz")[1]["lr"] for name in ("one", "two"))
    assert second == first / 2


def test_a_model_without_names_of_classes_is_evaluated(tmp_path, capsys):
    config = vit.ViTConfig(8, 1, 2, 8, image_size=8, patch_size=4, num_channels=1, num_labels=10)
    vit.ViTForImageClassification(config).save_pretrained(tmp_path)
    assert "on 899 pictures" in run(capsys, "evaluate", tmp_path, "digits")[1]


def test_the_scaling_of_a_model_s_pictures_goes_with_it(tmp_path, capsys, monkeypatch):
    """From a folder of transformers with ImageNet's mean and std: import, predict, evaluate, finetune scale by it."""
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    colours = {"bright": (200, 100, 50), "dark": (30, 60, 90)}
    for name, colour in colours.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8 + number), colour).save(tmp_path / "photos" / name / f"{number}.png")
    config = vit.ViTConfig(8, 1, 2, 8, image_size=8, patch_size=4, id2label=dict(enumerate(sorted(colours))))
    model = vit.ViTForImageClassification(config)
    model.save_pretrained(tmp_path / "hf", weights.preprocessor(8, mean, std, 3))
    seen, forward = [], vit.ViTForImageClassification.forward

    def watched(self, pixel_values, *args, **kwargs):
        if not self.training:
            seen.append(pixel_values)
        return forward(self, pixel_values, *args, **kwargs)

    monkeypatch.setattr(vit.ViTForImageClassification, "forward", watched)
    expected = np.unique([(np.array(colour) / 255 - mean) / std for colour in colours.values()], axis=0)  # (2, C)
    photos, out = tmp_path / "photos", tmp_path / "out"
    for command in (
        ("import", tmp_path / "hf", tmp_path / "model"),
        ("predict", tmp_path / "model", photos / "bright" / "0.png", photos / "dark" / "0.png"),
        ("evaluate", tmp_path / "model", photos),
        ("finetune", tmp_path / "model", photos, "--epochs", 1, "--out", out),
    ):
        assert run(capsys, *command)[0] == 0
        if command[0] != "import":
            values = np.concatenate(seen)  # (B, C, H, W), each picture of one colour
            assert np.ptp(values, axis=(2, 3)).max() < 1e-6
            np.testing.assert_allclose(np.unique(values[:, :, 0, 0], axis=0), expected, atol=1e-5)
        seen.clear()
    for folder in (tmp_path / "model", out):
        kept = weights.read_preprocessor(folder)
        assert (kept["image_mean"], kept["image_std"], kept["size"]) == (mean, std, {"height": 8, "width": 8})


def test_the_table_by_class(capsys):
    commands._print_classes(np.array([[3, 1], [2, 4]]), ["ant", "bee"])
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert table == [
        ["class", "pictures", "found", "right"],
        ["ant", "4", "75.0%", "60.0%"],
        ["bee", "6", "66.7%", "80.0%"],
    ]
