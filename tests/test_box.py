"""The trained weights in the box: ONNX Runtime's tokens and attentions, a folder like any other, and damaged files."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minivit import no_grad, weights
from minivit.errors import FileError
from minivit.vit import ViTModel
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


def test_it_is_not_opened_at_import():
    code = (
        "import sys; opened = []; "
        "sys.addaudithook(lambda event, args: event == 'open' and opened.append(str(args[0]))); "
        "import minivit, minivit.cli.commands; assert not [name for name in opened if 'weights.npz' in name]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
