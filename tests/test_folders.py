"""Where the commands write, from the command line: nothing of the user's is lost, and nothing is left for nothing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from minivit import training, vit, weights
from minivit.__main__ import main
from minivit.course import tour
from minivit.machinery import files
from minivit.machinery.lock import LOCK

TINY = ("--hidden-size", 8, "--num-hidden-layers", 1, "--num-attention-heads", 1, "--intermediate-size", 8)
QUICK = ("train", "digits", *TINY, "--epochs", 1, "--batch-size", 128, "--out")
FILES = ["config.json", "curves.png", "history.csv", "preprocessor_config.json", "training.npz"]


def run(capsys, *args):
    """The exit code of `minivit ARGS`, and what it printed."""
    code = main([str(arg) for arg in args])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def refused(capsys, *args, match):
    code, _, message = run(capsys, *args)
    assert code == 2 and re.search(match, message), message


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "digits"
    assert main([str(arg) for arg in (*QUICK, out)]) == 0
    return out


@pytest.fixture
def foreign(tmp_path):
    """Folders that minivit did not write, by what is in them."""
    folders = {
        "config": {"config.json": '{"port": 80}'},
        "history": {"history.csv": "day,weight\n1,70.5\n"},
        "torch": {"config.json": '{"model_type": "vit"}', "pytorch_model.bin": "weights"},
        "tensorflow": {"config.json": '{"model_type": "vit"}', "tf_model.h5": "weights"},
        "thesis": {"thesis.tex": "x", "curves.png": "my own", "a/b/c.txt": "deep"},
        "preprocessor": {"preprocessor_config.json": "{}"},
    }
    for name, texts in folders.items():
        for path, text in texts.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
    return tmp_path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes in folders")
@pytest.mark.parametrize("name", ["history.csv", "curves.png", "config.json"])
def test_a_pipe_in_the_folder_is_not_waited_for(tmp_path, capsys, name):
    os.mkfifo(tmp_path / name)
    refused(capsys, *QUICK, tmp_path, match=f"holds files that minivit did not write:\n    {name}\n")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes in folders")
def test_a_pipe_in_the_place_of_a_picture_or_of_a_description(tmp_path, capsys, trained):
    os.mkfifo(tmp_path / "confusion.png")
    refused(capsys, "evaluate", trained, "digits", "--out", tmp_path, match="did not write:\n    confusion.png")
    os.mkfifo(tmp_path / "config.json")
    assert run(capsys, "export", trained, tmp_path, "--force")[0] == 0
    assert (tmp_path / "config.json").is_file() and (tmp_path / "confusion.png").is_fifo()


@pytest.mark.parametrize("name", ["config", "history", "torch", "tensorflow", "thesis", "preprocessor"])
def test_a_folder_of_other_files_is_not_written_into(trained, foreign, capsys, name):
    before = content(foreign)
    first = min(path.name for path in (foreign / name).iterdir())
    for command in (
        (*QUICK, foreign / name),
        ("finetune", trained, "digits", "--epochs", 1, "--out", foreign / name),
        ("evaluate", trained, "digits", "--out", foreign / name),
        ("export", trained, foreign / name),
        ("import", trained, foreign / name),
    ):
        refused(capsys, *command, match=rf"{name}: holds files that minivit did not write:\n    {first}(.|\n)*--force")
    assert content(foreign) == before


@pytest.mark.parametrize("name", ["config", "history", "torch", "thesis"])
def test_force_writes_and_deletes_nothing(trained, foreign, capsys, name):
    before = content(foreign / name)
    assert run(capsys, *QUICK, foreign / name, "--force")[0] == 0
    after = content(foreign / name)
    assert sorted(after) == sorted(before.keys() | set(FILES))
    for path in before.keys() - set(FILES):
        assert after[path] == before[path]
    code, printed, _ = run(capsys, "evaluate", foreign / name, "digits")
    assert code == 0 and "on 899 pictures" in printed


def test_force_keeps_a_model_that_is_there(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run")
    before = content(tmp_path / "run")
    for command in ((*QUICK, tmp_path / "run"), ("export", trained, tmp_path / "run")):
        refused(capsys, *command, "--force", match=r"holds a model already \(training.npz\)")
    assert content(tmp_path / "run") == before


def test_force_exports_beside_the_weights_of_another_program(trained, foreign, capsys):
    assert run(capsys, "export", trained, foreign / "torch", "--force")[0] == 0
    assert (foreign / "torch" / "pytorch_model.bin").read_text() == "weights"
    model = vit.ViTForImageClassification.from_pretrained(foreign / "torch")
    assert model.config.hidden_size == 8


def test_the_folder_one_stands_in(trained, tmp_path, monkeypatch, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    refused(capsys, *QUICK, ".", match="holds files that minivit did not write:\n    notes.txt")
    (tmp_path / "notes.txt").unlink()
    assert run(capsys, *QUICK, ".")[0] == 0
    assert sorted(content(tmp_path)) == FILES


def test_a_folder_of_minivit_s_figures_and_of_a_system_s_litter_is_free(tmp_path, capsys):
    config = vit.ViTConfig(8, 1, 2, 8, image_size=32, patch_size=16, num_labels=3)
    figures = [path.name for path in tour.tour(tour.images.photo(), tmp_path / "out", config=config)]
    (tmp_path / "out" / ".DS_Store").write_bytes(b"Bud1")
    capsys.readouterr()
    assert run(capsys, *QUICK, tmp_path / "out")[0] == 0
    assert sorted(content(tmp_path / "out")) == sorted([*FILES, ".DS_Store", *figures])


def test_many_files_are_named_by_the_first_few(tmp_path, capsys):
    for number in range(12):
        (tmp_path / f"{number:02d}.txt").touch()
    match = r"write:\n    00.txt\n    01.txt\n    02.txt\n    03.txt\n    04.txt\n    \.\.\. and 7 more\n"
    refused(capsys, *QUICK, tmp_path, match=match)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--lr", "inf"),
        ("--lr", "nan"),
        ("--lr", "-1"),
        ("--patch-size", 3),
        ("--hidden-size", 7, "--num-attention-heads", 2),
        ("--masked", "--patch-size", 8),
    ],
)
def test_what_was_refused_leaves_nothing_behind(tmp_path, capsys, wrong):
    assert run(capsys, *QUICK, tmp_path / "new" / "run", *wrong)[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_what_was_refused_puts_back_what_it_was_forced_to_replace(foreign, capsys):
    before = content(foreign)
    for name in ("config", "history", "preprocessor"):
        assert run(capsys, *QUICK, foreign / name, "--force", "--lr", "inf")[0] == 2
    assert content(foreign) == before


def test_a_first_run_that_was_killed_before_it_saved_may_start_again(trained, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(trained / name, out)
    training.write_history(out / "history.csv", [])
    (out / LOCK).touch()
    (out / f".minivit-{'0' * 32}.tmp").write_bytes(b"half a state")
    assert run(capsys, *QUICK, out)[0] == 0
    assert sorted(content(out)) == FILES


def test_a_model_goes_on_in_another_folder_than_its_own(trained, capsys):
    before = content(trained)
    refused(capsys, "finetune", trained, "digits", "--out", trained, match="holds a model already")
    assert content(trained) == before


def test_save_pretrained_replaces_its_own_config_and_no_other_s(foreign):
    config = vit.ViTConfig(8, 1, 2, 8, image_size=8, patch_size=4, num_labels=2)
    model = vit.ViTForImageClassification(config)
    before = content(foreign)
    for name in ("config", "torch", "tensorflow"):
        with pytest.raises(weights.folder.FileError, match="written by another program, and there is no model"):
            model.save_pretrained(foreign / name)
    assert content(foreign) == before
    for _ in range(2):
        model.save_pretrained(foreign / "new")
    model.save_pretrained(foreign / "torch", force=True)
    assert sorted(content(foreign / "torch")) == ["config.json", "model.safetensors", "pytorch_model.bin"]
    again = vit.ViTForImageClassification.from_pretrained(foreign / "new")
    assert again.config.hidden_size == 8 and not hasattr(again.config, "written_by")


# ---- evaluate's picture


def test_evaluate_of_a_name_on_the_hub_writes_nothing(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minivit.cli.commands.find", lambda name: trained)
    before = content(trained)
    code, printed, _ = run(capsys, "evaluate", "owner/model", "digits")
    assert code == 0 and "on 899 pictures" in printed and "owner/model is no folder that minivit wrote" in printed
    assert list(tmp_path.iterdir()) == [] and content(trained) == before
    assert run(capsys, "evaluate", "owner/model", "digits", "--out", "pictures")[0] == 0
    assert sorted(content(tmp_path)) == ["pictures/confusion.png"]


def test_evaluate_beside_a_model_of_another_program_draws_nothing(trained, tmp_path, capsys):
    vit.ViTForImageClassification.from_pretrained(trained).save_pretrained(tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    config.pop("written_by")
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    code, printed, _ = run(capsys, "evaluate", tmp_path / "hf", "digits")
    assert code == 0 and "--out DIR draws the confusion picture there" in printed
    assert sorted(content(tmp_path / "hf")) == ["config.json", "model.safetensors"]


def test_evaluate_replaces_its_own_picture_and_no_other(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run")
    picture = tmp_path / "run" / "confusion.png"
    for _ in range(2):
        assert run(capsys, "evaluate", tmp_path / "run", "digits")[0] == 0
    assert files.is_own_figure(picture)
    shutil.copy(tour.images.photo(), picture)
    mine = picture.read_bytes()
    refused(capsys, "evaluate", tmp_path / "run", "digits", match=r"confusion.png: was not drawn by minivit")
    assert picture.read_bytes() == mine
    assert run(capsys, "evaluate", tmp_path / "run", "digits", "--force")[0] == 0 and files.is_own_figure(picture)


# ---- two at once, signals and kills


def start(out, *options, epochs=100000):
    """A long training in a process of its own, that has begun."""
    command = ["train", "digits", *TINY, "--out", out, "--epochs", epochs, *options]
    code = "import sys; from minivit import training; from minivit.__main__ import main\n"
    code += "training.SAVE_EVERY = 0.2; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *map(str, command)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()  # how many parameters
    return process


def wait_for(path):
    end = time.monotonic() + 60
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.02)


def test_the_second_training_into_a_folder_is_refused_and_the_first_goes_on(trained, tmp_path, capsys):
    out = tmp_path / "run"
    first = start(out)
    try:
        refused(capsys, *QUICK, out, match="another process is writing into this folder")
        refused(capsys, *QUICK, out, "--force", match="another process")
        refused(capsys, "export", trained, out, match="another process")
        refused(capsys, "import", trained, out, match="another process")
        wait_for(out / "training.npz")
        refused(capsys, *QUICK, out, "--resume", match="another process")
    finally:
        first.kill()
        first.communicate()
    assert weights.read_folder(out)[0]["hidden_size"] == 8
    refused(capsys, *QUICK, out, match="holds a model already")  # the lock is gone with its owner


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM and SIGHUP from another process")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_saves_and_the_training_goes_on_bit_for_bit(tmp_path, capsys, name):
    number, out = getattr(signal, name), tmp_path / "run"
    process = start(out, epochs=60)
    wait_for(out / "training.npz")
    process.send_signal(number)
    _, message = process.communicate()
    assert process.returncode == 128 + number and "saved in" in message and "--resume" in message
    assert sorted(content(out)) == ["config.json", "history.csv", "preprocessor_config.json", "training.npz"]
    long = ("train", "digits", *TINY, "--epochs", 60, "--out")
    assert run(capsys, *long, out, "--resume")[0] == 0
    assert run(capsys, *long, tmp_path / "whole")[0] == 0
    (one, _), (other, _) = (weights.read_state(folder / "training.npz") for folder in (out, tmp_path / "whole"))
    assert list(one) == list(other)
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], key)


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no folder in which a file is open")
@pytest.mark.parametrize("fate", ["deleted", "moved", "replaced"])
def test_a_folder_that_goes_while_a_training_runs_is_said(tmp_path, fate):
    out = tmp_path / "run"
    process = start(out)
    wait_for(out / "training.npz")
    out.rename(tmp_path / "elsewhere")
    if fate == "deleted":
        shutil.rmtree(tmp_path / "elsewhere")
    elif fate == "replaced":
        out.mkdir()
        (out / "config.json").write_text("another's")
    _, message = process.communicate(timeout=60)
    assert process.returncode == 2 and "run: this folder was deleted, moved or replaced" in message
    assert out.exists() == (fate == "replaced")
    if fate == "replaced":
        assert content(out) == {"config.json": b"another's"}
    elif fate == "moved":
        assert weights.read_folder(tmp_path / "elsewhere")[0]["hidden_size"] == 8


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no folder in which a file is open")
def test_a_config_that_was_deleted_meanwhile_is_written_again(tmp_path, monkeypatch, capsys):
    fit = training.fit

    def clumsy(*args, **kwargs):
        (tmp_path / "run" / "config.json").unlink()
        return fit(*args, **kwargs)

    monkeypatch.setattr(training, "fit", clumsy)
    code, printed, _ = run(capsys, *QUICK, tmp_path / "run")
    assert code == 0 and "config.json was deleted meanwhile, and is written again" in printed
    assert run(capsys, "evaluate", tmp_path / "run", "digits")[0] == 0
