"""Several processes train as one does: the same numbers, and all of them stop where one of them does.

What needs mpiexec is skipped where the extra `mpi` is not installed; .ci/run installs it.
"""

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
from PIL import Image

from minivit import optim, training, vit
from minivit.__main__ import main
from minivit.augment import random_affine, random_crop, random_flip
from minivit.datasets import Dataset
from minivit.errors import MinivitError
from minivit.machinery import communication
from minivit.machinery.threads import get_num_threads

try:
    MPIEXEC = communication.mpiexec()
except MinivitError:
    MPIEXEC = None
with_mpi = pytest.mark.skipif(MPIEXEC is None, reason="the extra mpi is not installed: pip install -e '.[mpi]'")


@pytest.fixture(autouse=True)
def waiting_for_others_leaves_them_the_core(monkeypatch):
    """MPICH would keep it busy: slow where the processes, or the tests beside them, are more than the cores."""
    monkeypatch.setenv("MPIR_CVAR_ENABLE_HEAVY_YIELD", "1")


def data(count=21, seed=0):
    """Pictures (N, 1, 4, 4) whose brightest row tells the class. Of steps of 5 the last has one: too few to share."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    images = rng.integers(0, 90, (count, 1, 4, 4), dtype=np.uint8)
    images[np.arange(count), 0, labels] += 150
    return Dataset(images, labels, "abc")


def model():
    """A Vision Transformer in float64, with dropout in every place."""
    config = vit.ViTConfig(8, 1, 2, 12, image_size=4, patch_size=2, num_channels=1, num_labels=3)
    config.hidden_dropout_prob, config.attention_probs_dropout_prob = 0.1, 0.3
    return vit.ViTForImageClassification(config, rng=0).to(np.float64)


def changed(x, rng):
    """Each picture changed by draws of every kind."""
    x = random_flip(random_crop(random_affine(x, rng, degrees=9, shift=1, scale=0.1), 1, rng), rng)
    return x + rng.normal(0, 0.1, (len(x), 1, 1, 1)) + rng.beta(2, 2, size=(len(x), 1, 1, 1))


def options(learner, **changes):
    """What fit needs, with everything switched on."""
    return {
        "epochs": 3,
        "batch_size": 5,
        "optimizer": optim.AdamW(learner.parameters(), lr=0.01),
        "schedule": optim.warmup_cosine(15, 3),
        "augment": changed,
        "rng": 3,
        "max_norm": 1.0,
        "average": optim.ExponentialMovingAverage(learner.parameters(), 0.9),
        "verbose": False,
        **changes,
    }


def plain(learner, **changes):
    """What is left for the question of rounding alone: 100 steps of SGD."""
    bare = {"epochs": 20, "optimizer": optim.SGD(learner.parameters(), 0.1), "schedule": None, "average": None}
    return options(learner, **bare, **changes)


def weights(learner):
    return np.concatenate([parameter.data.ravel() for parameter in learner.parameters()])


def processes(count, script, *arguments):
    """The command that runs a script, which may use all names of this file, in so many processes."""
    head = f"import sys; sys.path[:0] = [{os.path.dirname(__file__)!r}]\n"
    head += "from pathlib import Path; from test_communication import *\n"
    return [MPIEXEC, "-n", str(count), sys.executable, "-c", head + script, *map(str, arguments)]


def launch(count, script, *arguments):
    """What such a script prints."""
    done = subprocess.run(processes(count, script, *arguments), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_one_process_is_a_world_of_its_own():
    alone = communication.world()
    assert (alone.rank, alone.size, alone.is_first, alone.rows(7)) == (0, 1, True, slice(0, 7))
    array = np.arange(3.0)
    assert alone.all_reduce(array) is array and alone.broadcast("x") == "x" and alone.gather(2) == [2]
    assert alone.agree(1.5, np.nan).tolist()[::2] == [1.5, 0] and np.isnan(alone.agree(1.5, np.nan)[1])


@pytest.mark.parametrize(("count", "size"), [(7, 3), (2, 3), (0, 2), (8, 2), (1, 1)])
def test_every_row_is_one_process_s(count, size):
    class Comm:
        COMM_WORLD = None

    parts = []
    for rank in range(size):
        Comm.COMM_WORLD = type("", (), {"rank": rank, "size": size})
        parts += range(count)[communication.World(Comm).rows(count)]
    assert parts == list(range(count))


def test_nobody_imports_mpi4py_who_was_not_started_by_mpiexec(tmp_path):
    code = "import sys, minivit, minivit.training; from minivit.__main__ import main; "
    code += f"main(['evaluate', {str(tmp_path)!r}, 'digits']); print('mpi4py' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("False\n"), done


@pytest.mark.parametrize(("there", "missing"), [({"mpi4py"}, "mpiexec"), ({"mpiexec"}, "mpi4py")])
def test_processes_without_the_extra_are_refused_by_its_name(there, missing, monkeypatch):
    monkeypatch.setattr(communication, "find_spec", lambda name: name in there)
    monkeypatch.setattr(communication.shutil, "which", lambda name, path=None: "mpiexec" if name in there else None)
    with pytest.raises(MinivitError, match=rf"--processes: {missing} cannot be found(.|\n)*pip install .*\[mpi\]"):
        communication.start(2, ["train"])


def test_one_of_many_without_mpi4py_is_refused(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "4")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(MinivitError, match=r"mpiexec: this is one of 4 processes, and mpi4py cannot be used"):
        communication.world.__wrapped__()


def test_one_of_many_that_mpi4py_knows_nothing_of_is_refused(monkeypatch):
    """The mpiexec of another MPI: each process would train by itself, into one folder."""
    alone = type("MPI", (), {"COMM_WORLD": type("Comm", (), {"size": 1})})
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", type("mpi4py", (), {"MPI": alone}))
    with pytest.raises(MinivitError, match=r"one of 2 processes, and mpi4py knows of no other"):
        communication.world.__wrapped__()


TRAIN = """
found = {}
for name in ("sgd", "full", "again"):
    learner = model()
    history = training.fit(learner, data(), data(9, 1), **(plain if name == "sgd" else options)(learner))
    found[name] = weights(learner)
    found[name + " rows"] = [[row["train_loss"], row["train_accuracy"], row["test_loss"], row["test_accuracy"]]
                             for row in history]
measured = training.evaluate(learner, data(7), batch_size=2)
found["predictions"] = measured.predictions
found["threads"] = communication.world().gather(get_num_threads())
alike = communication.world().gather(found["full"].tobytes())
found["alike"] = [one == alike[0] for one in alike]
if communication.world().is_first:
    np.savez(sys.argv[1], **found)
"""


@with_mpi
@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_are_one_but_for_rounding(count, tmp_path):
    launch(count, TRAIN, tmp_path / "found.npz")
    found = np.load(tmp_path / "found.npz")
    for name, chosen in (("sgd", plain), ("full", options)):
        learner = model()
        history = training.fit(learner, data(), data(9, 1), **chosen(learner))
        columns = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
        rows = [[row[name] for name in columns] for row in history]
        np.testing.assert_allclose(found[name], weights(learner), rtol=0, atol=2e-15 if name == "sgd" else 1e-12)
        np.testing.assert_allclose(found[f"{name} rows"], rows, rtol=1e-12)
    np.testing.assert_array_equal(found["predictions"], training.evaluate(learner, data(7)).predictions)
    np.testing.assert_array_equal(found["again"], found["full"])
    assert found["alike"].all() and len(set(found["threads"])) == 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert found["threads"][0] == min(get_num_threads(), max(1, cores // count))


STOP = """
def press(x, rng):
    press.steps += 1
    if press.steps == 8 and communication.world().rank == 1:
        signal.raise_signal(signal.SIGTERM)
    return changed(x, rng)
press.steps = 0
learner = model()
try:
    training.fit(learner, data(), data(9, 1), **options(learner, augment=press, checkpoint=sys.argv[1]))
except training.Interrupted as stopped:
    told = communication.world().gather([stopped.number, press.steps, str(stopped)])
    if communication.world().is_first:
        print(json.dumps(told))
"""
GO_ON = """
learner = model() if communication.world().is_first else vit.ViTForImageClassification(model().config).to(np.float64)
training.fit(learner, data(), data(9, 1), **options(learner, checkpoint=sys.argv[1], resume=True))
if communication.world().is_first:
    np.save(sys.argv[2], weights(learner))
"""


@with_mpi
def test_a_signal_stops_all_at_one_step_and_another_number_of_processes_goes_on(tmp_path):
    path, whole, resumed = tmp_path / "training.npz", model(), model()
    training.fit(whole, data(), data(9, 1), **options(whole))
    told = json.loads(launch(2, STOP, path))
    assert told[0] == told[1] and told[0][:2] == [signal.SIGTERM, 8]
    assert "after step 8; saved in" in told[0][2] and training.read_state(path)[1]["step"] == 8
    shutil.copy(path, tmp_path / "three.npz")
    training.fit(resumed, data(), data(9, 1), **options(resumed, checkpoint=path, resume=True))
    np.testing.assert_allclose(weights(resumed), weights(whole), rtol=0, atol=1e-12)
    launch(3, GO_ON, tmp_path / "three.npz", tmp_path / "weights.npy")
    np.testing.assert_allclose(np.load(tmp_path / "weights.npy"), weights(whole), rtol=0, atol=1e-12)


FAIL = """
training.SAVE_EVERY, training.SAVE_SHARE = 0.0, float("inf")
processes, told = communication.world(), {}

def case(name, train=None, patch=None, **changes):
    learner = model()
    path = Path(sys.argv[1], name, "training.npz")
    before = training.write_state
    if patch:
        training.write_state = patch
    try:
        training.fit(learner, train or data(), **options(learner, checkpoint=path, **changes))
        text = "no error"
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    training.write_state = before
    steps = training.read_state(path)[1]["step"] if path.exists() else None
    told[name] = [*processes.gather(text), steps]

def spoiling(what):
    def augment(x, rng):
        augment.steps += 1
        return what(changed(x, rng)) if augment.steps == 7 and processes.rank == 1 else changed(x, rng)
    augment.steps = 0
    return augment

def infinite(model, x, labels, rng):
    infinite.steps += 1
    value, correct = training.classification(model, x, labels, rng)
    return (value * np.inf if infinite.steps == 7 and processes.rank == 1 else value), correct
infinite.steps = 0

def full(path, arrays, meta):
    if meta["step"] == 4:
        raise MinivitError(path, "No space left on device.")
    return write_state(path, arrays, meta)

write_state = training.write_state
case("fault", augment=spoiling(lambda x: x.nothing))
case("nan", loss=infinite)
case("disk", patch=full)
case("data", train=data(seed=processes.rank))
case("draws", augment=lambda x, rng: x + rng.normal(0, 1, (1, 4, len(x), 1)).mean())
case("fine")
try:
    training.evaluate(model(), Dataset(data().images, data().labels % 2, "ab" if processes.rank else "abc"))
except MinivitError as error:
    told["evaluate"] = processes.gather(f"{type(error).__name__}: {error}")
if processes.is_first:
    print(json.dumps(told))
"""


@with_mpi
def test_what_stops_one_process_stops_all_and_the_state_is_that_of_the_step_before(tmp_path):
    told = json.loads(launch(2, FAIL, tmp_path))
    first, second, steps = told["fault"]
    assert second.startswith("AttributeError") and steps == 6
    assert first.startswith("OtherProcess: process 2 of 2: AttributeError: 'numpy.ndarray' object has no attribute")
    assert told["nan"][0] == told["nan"][1] and "the loss became inf in epoch 2, step 7" in told["nan"][0]
    assert told["nan"][2] == 6
    first, second, steps = told["disk"]
    assert first.startswith("MinivitError") and "No space left" in first and steps == 3
    assert second.startswith("OtherProcess: process 1 of 2") and "No space left" in second
    first, second, steps = told["data"]
    assert first.startswith("OtherProcess: process 2 of 2: fit: the processes do not train the same:")
    assert re.search(r"labels: \d+ in the first, \d+ in this", second) and steps is None
    first, second, _ = told["draws"]
    assert first == second and "have not drawn as many random numbers" in first
    assert told["fine"] == ["no error", "no error", 15]
    first, second = told["evaluate"]
    assert first.startswith("OtherProcess: process 2 of 2: evaluate: the model has 3 classes, the data 2")
    assert second.startswith("ShapeError")


@pytest.fixture
def photos(tmp_path):
    """A folder of five pictures a class: two colours."""
    for name, colour in (("blue", (20, 30, 200)), ("red", (210, 40, 30))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(5):
            picture = np.full((16, 16, 3), colour, np.uint8) + np.uint8(5 * i)
            Image.fromarray(picture).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def minivit(*arguments):
    return [sys.executable, "-m", "minivit", *map(str, arguments)]


@with_mpi
def test_the_commands_with_two_processes_print_and_write_what_one_does(photos, tmp_path, capfd):
    small = ["--hidden-size", "8", "--num-hidden-layers", "1", "--intermediate-size", "8", "--image-size", "16"]
    printed = {}
    for name, given in (("one", []), ("two", ["--processes", "2"])):
        out, head = tmp_path / name / "whole", tmp_path / name / "head"
        for command in (
            ["train", photos, *small, "--epochs", "2", "--batch-size", "3", "--out", out],
            ["evaluate", out, photos],
            ["finetune", out, photos, "--freeze", "--out", head],
        ):
            assert main([*map(str, command), *given]) == 0
        text = "".join(capfd.readouterr()).replace(str(tmp_path / name), "")
        printed[name] = re.sub(r"  \d+\.\d s\n", "\n", text)  # the seconds
    assert printed["two"] == printed["one"] and "epoch 2/2  loss" in printed["one"]
    for path in (tmp_path / "one").glob("*/*"):
        assert (tmp_path / "two" / path.relative_to(tmp_path / "one")).is_file()
    one, two = (dict(np.load(tmp_path / name / "whole" / "training.npz")) for name in ("one", "two"))
    for key, array in one.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(two[key], array, rtol=1e-3, atol=1e-5, err_msg=key)
    command = ["train", str(photos), "--out", str(tmp_path / "two" / "whole"), "--processes", "2"]
    assert main(command) == 2
    out, err = capfd.readouterr()
    assert err.count("holds a model already") == 1 and err.count("\n") == 2


def running(command, path):
    """The process of a command that trains, when it has saved for the first time."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 40
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


LONG = """
training.SAVE_EVERY, training.SAVE_SHARE = 0.0, float("inf")
Path(sys.argv[1], f"{communication.world().rank}.pid").write_text(str(os.getpid()))
from minivit.__main__ import main
sys.exit(main(["train", "digits", "--epochs", "1000", "--out", sys.argv[1] + "/out"]))
"""


@with_mpi
@pytest.mark.skipif(os.name == "nt", reason="Windows knows no kill -9")
def test_a_process_that_is_killed_ends_the_others_and_the_state_is_whole(tmp_path):
    path = tmp_path / "out" / "training.npz"
    process = running(processes(2, LONG, tmp_path), path)
    pids = [int((tmp_path / f"{rank}.pid").read_text()) for rank in (0, 1)]
    os.kill(pids[1], signal.SIGKILL)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode != 0, printed
    arrays, meta = training.read_state(path)
    assert meta["step"] >= 1 and np.isfinite(arrays["model/classifier.weight"]).all()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


@with_mpi
@pytest.mark.skipif(os.name == "nt", reason="a console of Windows sends its Ctrl-C itself")
def test_ctrl_c_ends_processes_with_one_message_and_a_state_to_go_on_from(tmp_path):
    path = tmp_path / "out" / "history.csv"
    command = minivit("train", "digits", "--epochs", "1000", "--out", tmp_path / "out", "--processes", "2")
    process = running(command, path)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == 130, printed
    assert len(re.findall(r"stopped in epoch \d+ of 1000, after step \d+; saved in", printed)) == 1
    assert "mpiexec" not in printed and training.read_state(tmp_path / "out" / "training.npz")[1]["step"] >= 1
