"""The trained weights in the box: ONNX Runtime's tokens and attentions, a folder like any other, and damaged files."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minivit import datasets, no_grad, training, weights
from minivit.__main__ import main
from minivit.errors import FileError
from minivit.vit import ViTForImageClassification, ViTModel
from minivit.weights import box

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden" / "dinov2_cat.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def output(golden):
    x = ((golden["picture"] / 255 - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
    model = weights.dinov2_small()
    assert type(model) is ViTModel and not model.training and model.pooler is None
    with no_grad():
        return model(x, interpolate_pos_encoding=True, output_attentions=True)


def test_the_tokens_of_the_cat(output, golden):
    tokens, expected = output.last_hidden_state.data[0], golden["tokens"]
    norms = np.linalg.norm(tokens, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = (tokens * expected).sum(1) / norms
    assert cosines.min() > 0.9985 and cosines.mean() > 0.9997
    np.testing.assert_allclose(np.linalg.norm(tokens, axis=1), np.linalg.norm(expected, axis=1), rtol=0.05)


def test_the_attentions_of_the_cat(output, golden):
    attentions = np.stack([layer.data[0] for layer in output.attentions])  # (L, h, T, T)
    variation = abs(attentions[:, :, 0] - golden["cls_attention"]).sum(-1) / 2  # (L, h)
    assert variation.max() < 0.0125 and variation.mean() < 0.0066
    assert (abs(attentions[11, 0] - golden["attention_11_0"]).sum(-1) / 2).mean() < 0.0125


def test_an_int8_row_times_its_scale():
    with np.load(box.box_folder("dinov2-small") / box.PACKED) as packed:
        arrays = box.read_packed(box.box_folder("dinov2-small") / box.PACKED)
        for name, row in (
            ("encoder.layer.3.output.dense.weight", (5,)),
            ("embeddings.patch_embeddings.projection.weight", (7,)),
            ("embeddings.position_embeddings", (0, 40)),
        ):
            whole = packed[name][row].astype(np.float64) * float(packed[f"{name}.scale"][row[-1]])
            np.testing.assert_allclose(arrays[name][row], whole, rtol=1e-6)
        assert all(array.dtype == np.float32 for array in arrays.values())
        assert arrays["embeddings.cls_token"].ravel()[0] == packed["embeddings.cls_token"].ravel()[0]


def test_it_is_a_folder_that_every_reader_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = weights.find("dinov2-small")
    config, tensors = weights.read_folder(folder)
    assert config["hidden_size"] == 384 and len(tensors) == len(ViTModel.from_pretrained("dinov2-small").parameters())
    Path("dinov2-small").mkdir()  # a folder of that name that the user made comes first
    assert weights.find("dinov2-small") == Path("dinov2-small")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "is not the file that minivit came with"),
        (lambda path: path.write_bytes(b"version https://git-lfs"), "is not the file that minivit came with"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"), "is not the file that minivit came with"),
    ],
    ids=["missing", "cut off", "a pointer", "one byte"],
)
def test_a_file_that_is_not_the_one_in_the_box(change, said, tmp_path, monkeypatch):
    shutil.copytree(box.box_folder("dinov2-small"), tmp_path / "dinov2-small")
    monkeypatch.setattr(box, "FOLDERS", tmp_path)
    change(tmp_path / "dinov2-small" / box.PACKED)
    with pytest.raises(FileError, match=rf"weights\.npz: {said}.*\n  hint: install minivit anew"):
        weights.dinov2_small()


def test_the_digits_model_reads_the_test_digits_as_well_in_8_bits_as_in_float32():
    model = ViTForImageClassification.from_pretrained("digits")
    assert model.config.patch_size == 2 and model.num_parameters() == 102_666
    _, test = datasets.digits()
    measured = training.evaluate(model, test.scaled(0.5, 0.5))
    assert round(measured.accuracy * 899) == 868  # as in its README
    assert measured.loss == pytest.approx(0.1966, abs=1e-4)


def test_rows_of_the_digits_model_fill_their_8_bits():
    with np.load(box.box_folder("digits") / box.PACKED) as packed:
        whole = [name for name in packed if f"{name}.scale" in packed]
        assert len(whole) == 1 + 1 + 3 * 6 + 1  # positions, patches, six matrices a layer, classifier
        for name in whole:
            rows = packed[name].reshape(len(packed[f"{name}.scale"]), -1)
            assert packed[name].dtype == np.int8 and (abs(rows.astype(int)).max(1) >= 126).all()


def test_the_digits_model_stands_wherever_a_models_folder_may(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    digit = datasets.digits()[1].images[0, 0]  # an 8
    Image.fromarray(digit).save("eight.png")
    main(["evaluate", "digits", "digits"])
    assert "accuracy 96.55% on 899 pictures" in capsys.readouterr().out
    main(["predict", "digits", "eight.png", "--top", "1"])
    assert capsys.readouterr().out.split()[-1] == "8"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eight.png"]  # nothing is drawn into the box


def test_the_digits_model_is_finetuned_by_steps(tmp_path, monkeypatch):
    from minivit.cli import commands

    calls = []
    monkeypatch.setattr(commands, "_fit_head", lambda *args: calls.append("head"))
    monkeypatch.setattr(commands, "_fit", lambda *args: calls.append("steps"))
    main(["finetune", "digits", "digits", "--out", str(tmp_path / "a")])
    main(["finetune", "digits", "digits", "--out", str(tmp_path / "b"), "--freeze"])
    assert calls == ["steps", "head"]


def test_it_is_not_opened_at_import():
    code = (
        "import sys; opened = []; "
        "sys.addaudithook(lambda event, args: event == 'open' and opened.append(str(args[0]))); "
        "import minivit, minivit.cli.commands; assert not [name for name in opened if 'weights.npz' in name]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
