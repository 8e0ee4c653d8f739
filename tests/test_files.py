"""What lies where a file is read: pipes, devices, and files that are too long or nested too deeply."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minivit import datasets, vit, weights
from minivit.__main__ import main
from minivit.config import ViTConfig
from minivit.errors import FileError, MinivitError
from minivit.machinery import files

ROOT = Path(__file__).parents[1]


@pytest.fixture
def model(tmp_path):
    """A folder of a small model, with its preprocessor."""
    config = ViTConfig(8, 1, 2, 8, image_size=8, patch_size=4, num_channels=1)
    vit.ViTForImageClassification(config).save_pretrained(tmp_path / "model", weights.preprocessor(8, 0.5, 0.5, 1))
    return tmp_path / "model"


def put(path, what):
    """A pipe without a writer, or a link to a device, in the place of a file."""
    path.unlink(missing_ok=True)
    os.mkfifo(path) if what == "pipe" else path.symlink_to(what)


@pytest.mark.parametrize("what", ["pipe", "/dev/zero", "/dev/null"])
@pytest.mark.parametrize(
    "name",
    ["config.json", "preprocessor_config.json", "model.safetensors", "training.npz", "model.safetensors.index.json"],
)
def test_a_model_s_file_that_is_no_regular_file_is_refused_at_once(name, what, model, tmp_path, capsys):
    if name in ("training.npz", "model.safetensors.index.json"):
        (model / "model.safetensors").unlink()
    put(model / name, what)
    for command in (("export", model, tmp_path / "out"), ("predict", model, ROOT / "images" / "cat.jpg")):
        assert main(list(map(str, command))) == 2
        message = capsys.readouterr().err
        assert name in message and "this is not a regular file." in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["pipe", "/dev/zero"])
def test_other_files_that_are_no_regular_files(what, tmp_path, capsys):
    path = tmp_path / "exercise_05.py"
    put(path, what)
    for command in (("check", path), ("tour", path, "--out", tmp_path / "out"), ("run", "01", path)):
        assert main(list(map(str, command))) == 2
        assert "this is not a regular file." in capsys.readouterr().err
    with pytest.raises(FileError, match="cannot be read: this is not a regular file"):
        ViTConfig.from_json_file(path)
    with pytest.raises(FileError, match="cannot be read: this is not a regular file"):
        weights.read_state(path)


@pytest.mark.parametrize("what", ["pipe", "/dev/zero"])
def test_files_of_data_sets_that_are_no_regular_files(what, tmp_path):
    names = [f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    for name in names:
        put(tmp_path / name, what)
    with pytest.raises(FileError, match=r"train-images-idx3-ubyte: cannot be read: this is not a regular file"):
        datasets.mnist(tmp_path)
    batches = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    for name in batches:
        put(tmp_path / name, what)
    with pytest.raises(FileError, match=r"data_batch_1.bin: cannot be read: this is not a regular file"):
        datasets.cifar10(tmp_path)
    for name in batches:
        (tmp_path / name).unlink()
        (tmp_path / name).write_bytes(bytes(3073))
    put(tmp_path / "batches.meta.txt", what)
    with pytest.raises(FileError, match=r"batches.meta.txt: cannot be read: this is not a regular file"):
        datasets.cifar10(tmp_path)
    (tmp_path / "batches.meta.txt").unlink()
    assert len(datasets.cifar10(tmp_path)[0]) == 5


def test_a_file_that_is_longer_than_the_system_says_is_refused():
    """In /proc are files of 0 bytes that hold some, and some that never end."""
    with pytest.raises(OSError, match="has not the size that the system tells"):
        files.read_regular("/proc/self/status")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's peak there")
def test_sizes_are_checked_before_reading_under_500_mb_of_memory(model, tmp_path):
    """In one process: the peak of its memory is that of the worst."""
    cases = {}

    def case(name, file, *parts):
        folder = shutil.copytree(model, tmp_path / name)
        if file == "training.npz":
            (folder / "model.safetensors").unlink()
        with open(folder / file, "wb") as out:
            for part in parts:
                out.write(part)
        cases[name] = folder
        return folder / file

    fields = (model / "config.json").read_bytes().strip()[:-1]
    os.truncate(case("json", "config.json"), 100 * 2**20)
    os.truncate(case("preprocessor", "preprocessor_config.json"), 100 * 2**20)
    case("names", "config.json", fields, b',"id2label":{', b'"0":"a",' * 10**7, b'"0":"a"}}')
    case("count", "config.json", fields, b',"num_labels":10000000,"id2label":null}')
    count = (2**22 - len(fields) - 40) // 3
    case("values", "config.json", fields, b',"hidden_size":9,"x":[', b"{}," * count, b"{}]}")
    empty = b'"t":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = b"{" + (empty + b",") * 10**6 + empty + b"}"
    case("tensors", "model.safetensors", struct.pack("<Q", len(header)), header)
    header = b"{" + b",".join(empty.replace(b"t", b"%d" % n, 1) for n in range(2**23 // 64)) + b"}"
    case("fewer", "model.safetensors", struct.pack("<Q", len(header)), header)
    member = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0) + b"a.npy"
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 10**6 * len(member), 0, 0)
    case("arrays", "training.npz", member * 10**6, end)
    code = "import json, re, sys\nfrom pathlib import Path\nfrom minivit.__main__ import main\n"
    code += "for folder in json.loads(sys.argv[1]):\n"
    code += "    print(main(['export', folder, folder + '/out']))\n"
    code += "print(re.search(r'VmHWM:\\s*(\\d+) kB', Path('/proc/self/status').read_text())[1])"
    run = [sys.executable, "-c", code, json.dumps(list(map(str, cases.values())))]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    *codes, peak = done.stdout.split()
    assert codes == ["2"] * len(cases), done.stderr
    assert int(peak) < 500 * 1024  # kB; unlike getrusage's, without what the process that started this one held
    for message in (
        "json/config.json: cannot be read as JSON: it has 104,857,600 bytes, more than 4,194,304.",
        "preprocessor_config.json: cannot be read as JSON: it has 104,857,600 bytes, more than 4,194,304.",
        "names/config.json: cannot be read as JSON: it has 80,000",
        "num_labels=10000000",
        "hidden_size=9 cannot be split over num_attention_heads=2.",
        "tensors/model.safetensors: cannot be read: its header has 53,000,054 bytes, more than 8,388,608.",
        "131072 unexpected",
        "arrays/training.npz: cannot be read: its list of arrays has 51,000,000 bytes, more than 8,388,608.",
    ):
        assert message in done.stderr, message


def test_a_state_with_too_much_text_is_refused(tmp_path):
    np.savez(tmp_path / "training.npz", **{"meta.json": "[" * (2**23 + 1)})
    with pytest.raises(FileError, match=r"meta.json.npy has 33,5\d\d,\d\d\d bytes of text, more than 33,554,432"):
        weights.read_state(tmp_path / "training.npz")


def nested(depth, mapping=False):
    """JSON of a config with so many levels, one of them the config itself."""
    begin, end = ('{"x":', "}") if mapping else ("[", "]")
    return '{"model_type": "vit", "kept": ' + begin * (depth - 1) + "1" + end * (depth - 1) + "}"


@pytest.mark.parametrize("mapping", [False, True])
@pytest.mark.parametrize("depth", [51, 400, 900, 100_000])
def test_json_that_is_nested_too_deeply_is_one_message(depth, mapping, model, tmp_path, capsys):
    text = nested(depth, mapping)
    for name in ("config.json", "preprocessor_config.json", "model.safetensors.index.json"):
        folder = shutil.copytree(model, tmp_path / name)
        if "index" in name:
            (folder / "model.safetensors").unlink()
        (folder / name).write_text(text, encoding="utf-8")
        assert main(["export", str(folder), str(tmp_path / "out")]) == 2
        assert f"{name}: cannot be read as JSON: it is nested" in capsys.readouterr().err
    with pytest.raises(MinivitError, match="cannot be read as JSON: it is nested"):
        ViTConfig.from_json_string(text)
    np.savez(tmp_path / "training.npz", **{"meta.json": text})
    with pytest.raises(FileError, match="is not a training state"):
        weights.read_state(tmp_path / "training.npz")


def test_fifty_levels_go_there_and_back(tmp_path):
    for mapping in (False, True):
        config = ViTConfig.from_json_string(nested(50, mapping))
        assert ViTConfig.from_json_string(config.to_json_string()) == config


def test_what_a_program_nests_too_deeply_cannot_be_written(tmp_path):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(FileError, match=r"x.json: cannot be written as JSON: maximum recursion depth"):
        files.write_json(tmp_path / "x.json", {"deep": deep})
    config = ViTConfig(deep=deep)
    for write in (config.to_json_string, lambda: config.to_json_file(tmp_path / "x.json"), config.to_dict):
        with pytest.raises(MinivitError, match="ViTConfig: a kept key is nested too deeply"):
            write()
    assert not list(tmp_path.iterdir())
