"""The Hugging Face folder: what comes back is what was written, and what cannot be read is refused in one message."""

import json
import os
import re
import shutil
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from minivit.checkpoint import hub_name, read_folder, replacing, write_folder
from minivit.errors import FileError, MinivitError, ShapeError, check_names

GOLDEN = Path(__file__).parent / "golden" / "hf_tiny"
CONFIG = {"model_type": "vit", "hidden_size": 24}
CLASSIFIER = "classifier.bias"


@pytest.fixture
def folder(tmp_path):
    """A copy of the golden folder that a test may damage."""
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(GOLDEN / name, tmp_path / name)
    return tmp_path


def safetensors_bytes(header, data=b"", length=None):
    """A safetensors file by hand: length of the header, header (a dict or bytes), data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype, shape, start, stop):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def write_config(folder, config=CONFIG):
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def transformers5_name(name):
    """What transformers 5 calls a hub name in memory."""
    new = {
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
    }
    name = name.replace("encoder.layer.", "layers.")
    for hub, part in new.items():
        name = name.replace(hub, part)
    return re.sub(r"(layers\.\d+)\.output\.dense", r"\1.mlp.fc2", name)


# ---- names


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        ("vit.layers.0.attention.q_proj.weight", "vit.encoder.layer.0.attention.attention.query.weight"),
        ("vit.layers.11.attention.k_proj.bias", "vit.encoder.layer.11.attention.attention.key.bias"),
        ("layers.3.attention.v_proj.weight", "encoder.layer.3.attention.attention.value.weight"),
        ("layers.3.attention.o_proj.bias", "encoder.layer.3.attention.output.dense.bias"),
        ("vit.layers.1.mlp.fc1.weight", "vit.encoder.layer.1.intermediate.dense.weight"),
        ("vit.layers.1.mlp.fc2.weight", "vit.encoder.layer.1.output.dense.weight"),
        ("vit.layers.1.layernorm_before.weight", "vit.encoder.layer.1.layernorm_before.weight"),
        ("layernorm.weight", "layernorm.weight"),
        ("vit.embeddings.cls_token", "vit.embeddings.cls_token"),
        ("decoder.0.weight", "decoder.0.weight"),
    ],
)
def test_hub_name(name, hub):
    assert hub_name(name) == hub
    assert hub_name(hub) == hub


@pytest.mark.parametrize("prefix", ["vit.", ""])
def test_both_spellings_of_every_golden_name_are_read(folder, prefix):
    _, tensors = read_folder(GOLDEN)
    hub = {name.replace("vit.", prefix): array for name, array in tensors.items()}
    in_memory = {transformers5_name(name): array for name, array in hub.items()}
    assert len(set(hub) & set(in_memory)) == len(hub) - 2 * 16  # all 16 tensors of both layers are spelled anew
    safetensors.numpy.save_file(in_memory, folder / "model.safetensors")
    _, read = read_folder(folder)
    assert set(read) == set(hub)
    for name, array in read.items():
        np.testing.assert_array_equal(array, hub[name])


def test_a_name_in_both_spellings_is_refused(folder):
    names = ["vit.layers.0.mlp.fc1.bias", "vit.encoder.layer.0.intermediate.dense.bias"]
    safetensors.numpy.save_file({name: np.zeros(3, np.float32) for name in names}, folder / "model.safetensors")
    with pytest.raises(FileError, match=r"intermediate\.dense\.bias a second time"):
        read_folder(folder)


# ---- reading


def test_read_gives_config_and_arrays_of_their_own():
    config, tensors = read_folder(str(GOLDEN))
    expected = safetensors.numpy.load_file(GOLDEN / "model.safetensors")
    assert config["hidden_size"] == 24 and config["id2label"]["4"] == "LABEL_4"
    assert set(tensors) == set(expected)
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, expected[name])
        assert array.dtype == np.float32 and array.flags.writeable and array.flags.owndata


@pytest.mark.parametrize("shape", [(3, 1, 5), (7,), (), (0, 4)])
def test_float16_becomes_float32_and_float64_stays(tmp_path, shape):
    values = np.random.default_rng(0).standard_normal(shape)
    half, double = np.array(values, np.float16), np.array(values)
    write_folder(tmp_path, CONFIG, {"half": half, "double": double})
    _, tensors = read_folder(tmp_path)
    assert tensors["half"].dtype == np.float32 and tensors["half"].shape == shape
    np.testing.assert_array_equal(tensors["half"], half)
    assert tensors["double"].dtype == np.float64 and tensors["double"].shape == shape
    np.testing.assert_array_equal(tensors["double"], double)


@pytest.mark.parametrize("shape", [(2, 3), (6, 1, 1)])
def test_bfloat16_becomes_float32(tmp_path, shape):
    values = np.array([1.0, -2.5, 3.140625, 0.0, 2.0**-133, -(2.0**127)], np.float32)  # all exact in bfloat16
    data = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = {"a": entry("BF16", list(shape), 0, 12), "one": entry("BF16", [], 12, 14)}
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(header, data + b"\x80\x3f"))
    write_config(tmp_path)
    _, tensors = read_folder(tmp_path)
    assert tensors["a"].dtype == np.float32 and tensors["a"].flags.owndata
    np.testing.assert_array_equal(tensors["a"], values.reshape(shape))
    assert tensors["one"].shape == () and tensors["one"] == 1


def test_shards_are_read_as_one(folder):
    _, tensors = read_folder(folder)
    (folder / "model.safetensors").unlink()
    weight_map = {name: f"model-{1 + i % 2:05d}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        part = {name: array for name, array in tensors.items() if weight_map[name] == file}
        safetensors.numpy.save_file(part, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}), encoding="utf-8")
    _, read = read_folder(folder)
    assert set(read) == set(tensors)
    for name, array in read.items():
        np.testing.assert_array_equal(array, tensors[name])

    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileError, match=r"model-00002-of-00002\.safetensors: cannot be read"):
        read_folder(folder)


@pytest.mark.parametrize(
    "index", [{}, {"weight_map": []}, {"weight_map": {}}, {"weight_map": {"a": 1}}, {"weight_map": {"a": "../b"}}]
)
def test_a_shard_index_without_files_of_the_folder_is_refused(tmp_path, index):
    write_config(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(FileError, match=r"index\.json: has no \"weight_map\""):
        read_folder(tmp_path)


def test_reading_needs_little_more_memory_than_the_weights(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {f"part{i}": rng.standard_normal((331, 257), dtype=np.float32) for i in range(12)}
    size = sum(array.nbytes for array in tensors.values())
    write_folder(tmp_path, CONFIG, tensors)
    del tensors
    read_folder(GOLDEN)  # imports what it needs before the counting starts
    tracemalloc.start()
    read = read_folder(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(read[1]) == 12 and size <= peak < 1.3 * size


# ---- writing


def test_what_is_written_is_what_transformers_wrote(tmp_path):
    config, tensors = read_folder(GOLDEN)
    new = tmp_path / "runs" / "first"
    write_folder(str(new), config, tensors)
    assert (new / "model.safetensors").read_bytes() == (GOLDEN / "model.safetensors").read_bytes()
    assert sorted(path.name for path in new.iterdir()) == ["config.json", "model.safetensors"]
    text = (new / "config.json").read_bytes()
    assert text == (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    assert read_folder(new)[0] == config
    assert (new / "model.safetensors").stat().st_mode == (new / "config.json").stat().st_mode


def test_label_names_of_any_alphabet_come_back(tmp_path):
    config = CONFIG | {"id2label": {"0": "K\u00e4se", "1": "\u732b", "2": "\udcff"}}  # the last: a file name not UTF-8
    write_folder(tmp_path, config, {CLASSIFIER: np.zeros(3)})
    assert read_folder(tmp_path)[0] == config


def test_views_are_written_in_their_own_order(tmp_path):
    array = np.arange(30.0).reshape(5, 6)
    write_folder(tmp_path, CONFIG, {"turned": array.T, "every_other": array[:, ::2], "one": np.array(2.5)})
    _, tensors = read_folder(tmp_path)
    np.testing.assert_array_equal(tensors["turned"], array.T)
    np.testing.assert_array_equal(tensors["every_other"], array[:, ::2])
    assert tensors["one"].shape == () and tensors["one"] == 2.5


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(28, "No space left on device"), FileError),
        (safetensors.SafetensorError("I/O error: No space left on device"), FileError),
    ],
)
def test_an_interrupted_save_leaves_the_last_good_files(folder, monkeypatch, fault, raised):
    def save_file(tensors, path, metadata):
        Path(path).write_bytes(b"half of it")
        raise fault

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(safetensors.numpy, "save_file", save_file)
    with pytest.raises(raised):
        write_folder(folder, CONFIG, {CLASSIFIER: np.zeros(3)})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_files_are_synced_before_they_take_their_names(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(os, "fsync", lambda number: events.append("sync"))
    monkeypatch.setattr(os, "replace", lambda source, target: events.append(f"{source.name} -> {target.name}"))
    with replacing(tmp_path / "a", tmp_path / "b") as paths:
        for path in paths:
            path.write_bytes(b"new")
    assert events == ["sync", "sync", "a.tmp -> a", "b.tmp -> b"]


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "taken").write_text("mine", encoding="utf-8")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(FileError, match=r"taken.*: cannot be written"):
            write_folder(folder, CONFIG, {CLASSIFIER: np.zeros(3)})
    assert (tmp_path / "taken").read_text(encoding="utf-8") == "mine"


def test_a_folder_in_the_way_of_a_file_is_refused(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(FileError, match="cannot be written"):
        write_folder(tmp_path, CONFIG, {CLASSIFIER: np.zeros(3)})
    assert not list(tmp_path.glob("*.tmp"))


def test_a_config_that_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(FileError, match=r"config\.json: the config cannot be written as JSON"):
        write_folder(tmp_path / "new", {"hidden_size": object()}, {CLASSIFIER: np.zeros(3)})
    assert not (tmp_path / "new").exists()


# ---- bad input


def test_without_the_extra_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (lambda: read_folder(GOLDEN), lambda: write_folder(tmp_path, CONFIG, {})):
        with pytest.raises(MinivitError, match=r'pip install "minivit\[hub\]"'):
            call()


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(FileError, match="nowhere: there is no such folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(FileError, match=r"config\.json: this is a file, not a folder"):
        read_folder(GOLDEN / "config.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read as JSON.*No such file"),
        (b"", "cannot be read as JSON"),
        (b'{"model_type": "vit"', "cannot be read as JSON"),
        (b'{"model_type": "\xff\xfe"}', "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[1, 2]", "holds a list, not a JSON object"),
        (b'{"model_type": "deit"}', "model_type is 'deit'"),
        (b'{"hidden_size": 24}', "model_type is None"),
    ],
)
def test_a_bad_config_is_refused(folder, text, message):
    (folder / "config.json").unlink()
    if text is not None:
        (folder / "config.json").write_bytes(text)
    with pytest.raises(FileError, match=rf"config\.json: {message}"):
        read_folder(folder)


def test_missing_weights_are_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileError, match=r"has no model\.safetensors"):
        read_folder(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(FileError, match=r"pytorch_model\.bin: refused: it is a pickle[\s\S]*hint: .*save_pretrained"):
        read_folder(folder)


@pytest.mark.parametrize("size", [0, 5, 8, 1000, 45299])
def test_a_truncated_file_is_refused(folder, size):
    whole = (folder / "model.safetensors").read_bytes()
    assert len(whole) == 45300
    (folder / "model.safetensors").write_bytes(whole[:size])
    with pytest.raises(FileError, match=r"model\.safetensors: cannot be read[\s\S]*hint: .*download it again"):
        read_folder(folder)


@pytest.mark.parametrize(
    "content",
    [
        safetensors_bytes({}, length=2**62),
        safetensors_bytes({}, length=99_999_999),
        safetensors_bytes(b'{"a":'),
        safetensors_bytes(b"[]"),
        safetensors_bytes({"a": entry("F32", [2], 0, 8)}, b"1234"),
        safetensors_bytes({"a": entry("F32", [2], 0, 8)}, b"123456789"),
        safetensors_bytes({"a": entry("F32", [2], 400, 408)}, b"12345678"),
        safetensors_bytes({"a": entry("F32", [3], 0, 8)}, b"12345678"),
        safetensors_bytes({"a": entry("F32", [2**62, 8], 0, 8)}, b"12345678"),
        safetensors_bytes({"a": entry("F32", [0, 2**62, 8], 0, 0)}),
        safetensors_bytes({"a": entry("F32", [1] * 70, 0, 4)}, b"1234"),
        safetensors_bytes({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, b"123456789012"),
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 346293856\n",
    ],
)
def test_a_damaged_file_is_refused_without_taking_memory(tmp_path, content):
    write_config(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(FileError, match=r"model\.safetensors: cannot be read"):
        read_folder(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_tensors_that_cannot_be_weights_are_listed_together(tmp_path):
    bad = {"count": np.arange(3), "flag": np.ones(2, bool), "nan": np.array([1, np.nan]), "inf": np.float16([np.inf])}
    write_folder(tmp_path, CONFIG, {"good": np.ones(5), **bad})
    with pytest.raises(FileError) as caught:
        read_folder(tmp_path)
    message = str(caught.value)
    assert f"{tmp_path / 'model.safetensors'}: 4 of 5 tensors cannot be weights" in message
    for line in ("count (I64)", "flag (BOOL)", "nan (NaN or inf)", "inf (NaN or inf)"):
        assert f"\n    {line}" in message
    assert "good" not in message


# ---- names and shapes


def test_names_that_fit_pass():
    assert check_names({"a": (2, 3), "b": ()}, {"b": (), "a": [2, 3]}, "Model") == ([], [])


def test_all_problems_come_in_one_report():
    expected = {"same": (1,), "gone": (4,), "head.weight": (5, 24), "head.bias": (5,)}
    found = {"same": (1,), "extra": (7,), "head.weight": (3, 24), "head.bias": (3,)}
    for strict in (True, False):
        with pytest.raises(ShapeError) as caught:
            check_names(expected, found, "Model", strict=strict)
        assert str(caught.value).splitlines()[:5] == [
            "Model: the weights do not fit the model: 1 missing, 1 unexpected, 2 mismatched.",
            "  missing: gone",
            "  unexpected: extra",
            "  mismatched: head.weight: expected (5, 24), found (3, 24)",
            "  mismatched: head.bias: expected (5,), found (3,)",
        ]


def test_missing_and_unexpected_names_pass_only_when_not_strict():
    expected, found = {"a": (2,), "b": (3,)}, {"a": (2,), "c": (3,)}
    assert check_names(expected, found, "Model", strict=False) == (["b"], ["c"])
    with pytest.raises(ShapeError, match=r"missing: b\n  unexpected: c"):
        check_names(expected, found, "Model")
    with pytest.raises(ShapeError, match="1 missing, 0 unexpected"):
        check_names(expected, {"a": (2,)}, "Model")
    with pytest.raises(ShapeError, match="0 missing, 1 unexpected"):
        check_names({"a": (2,)}, found, "Model")


def test_a_long_list_is_cut_with_a_count():
    with pytest.raises(ShapeError) as caught:
        check_names({f"name{i}": (1,) for i in range(12)}, {f"other{i}": (1,) for i in range(10)}, "Model")
    message = str(caught.value)
    assert "12 missing, 10 unexpected, 0 mismatched" in message
    assert "missing: name9\n  missing: ... and 2 more\n" in message and "name10" not in message
    assert "unexpected: other9" in message and "mismatched: " not in message
