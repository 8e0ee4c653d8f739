"""fit and evaluate: what they measure, what they save, and that stopping and going on changes nothing."""

import csv
import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from minivit import nn, ops, optim, training
from minivit.datasets import Dataset
from minivit.errors import FileError, MinivitError, ShapeError


@pytest.fixture(autouse=True)
def save_after_every_epoch(monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(training, "SAVE_SHARE", np.inf)


def data(count=23, classes=3, seed=0):
    """Pictures (N, 1, 4, 4) whose brightest row tells the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    images = rng.integers(0, 90, (4, 4, 1, count), dtype=np.uint8).transpose(3, 2, 0, 1)  # not contiguous
    images[np.arange(count), 0, labels] += 150
    return Dataset(images, labels, [f"row {k}" for k in range(classes)])


class Classifier(nn.Module):
    def __init__(self, classes=3, rng=0):
        rng = np.random.default_rng(rng)
        self.hidden = nn.Linear(16, 7, rng=rng)
        self.dropout = nn.Dropout(0.2, rng)
        self.head = nn.Linear(7, classes, rng=rng)

    def forward(self, x):
        x = x.reshape(len(x), 16)  # (B, 16)
        return self.head(self.dropout(ops.gelu(self.hidden(x))))


def brighten(x, rng):
    return x + rng.normal(0, 0.1, (len(x), 1, 1, 1)).astype(np.float32)


def options(model, epochs=6, lr=0.02, **kwargs):
    """What fit needs, with everything switched on."""
    return {
        "epochs": epochs,
        "batch_size": 5,
        "optimizer": optim.AdamW(model.parameters(), lr=lr),
        "schedule": optim.warmup_cosine(5 * epochs, 3),
        "augment": brighten,
        "label_smoothing": 0.1,
        "rng": 3,
        "max_norm": 1.0,
        "average": optim.ExponentialMovingAverage(model.parameters(), 0.9),
        **kwargs,
    }


def weights(model):
    return np.concatenate([parameter.data.ravel() for parameter in model.parameters()])


def without_seconds(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def test_fit_learns_and_its_history_says_so(capsys):
    model = Classifier()
    settings = options(model, epochs=30, lr=0.005, label_smoothing=0.0)
    history = training.fit(model, data(60), data(40, seed=1), **settings)
    assert history[-1]["test_accuracy"] > 0.9
    assert history[-1]["train_loss"] < 0.3 * history[0]["train_loss"]
    assert [row["epoch"] for row in history] == list(range(1, 31))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 30
    assert re.fullmatch(
        r"epoch 1/30  loss \d\.\d{4}  accuracy \d+\.\d\d%  test accuracy \d+\.\d\d%  \d+\.\d s", lines[0]
    )


def test_each_example_is_seen_once_an_epoch():
    seen = []

    def loss(model, pixel_values, labels, rng):
        seen.append(pixel_values[:, 0, 0, 0])
        return ops.cross_entropy(model(pixel_values), labels), None

    model, train = Classifier(), data(23)
    history = training.fit(
        model, train, epochs=2, batch_size=5, optimizer=optim.SGD(model.parameters(), 0.1), loss=loss
    )
    assert [len(batch) for batch in seen] == [5, 5, 5, 5, 3] * 2
    expected = np.sort(train.batch(np.arange(23))[0][:, 0, 0, 0])
    first, second = np.concatenate(seen[:5]), np.concatenate(seen[5:])
    np.testing.assert_array_equal(np.sort(first), expected)
    np.testing.assert_array_equal(np.sort(second), expected)
    assert (first != second).any()
    assert history[0]["train_accuracy"] is None and "test_accuracy" not in history[0]


def test_a_loop_over_batches_is_fit_to_the_last_bit():
    fitted, looped = Classifier(), Classifier()
    training.fit(fitted, data(), epochs=3, batch_size=5, optimizer=optim.AdamW(fitted.parameters(), 0.02), rng=4)
    optimizer, rng = optim.AdamW(looped.parameters(), 0.02), np.random.default_rng(4)
    for _ in range(3):
        for pixel_values, labels in data().batches(5, rng):
            looped.zero_grad()
            ops.cross_entropy(looped(pixel_values), labels).backward()
            optimizer.step()
    np.testing.assert_array_equal(weights(looped), weights(fitted))


def test_evaluate_counts():
    class Fixed(nn.Module):
        def forward(self, x):
            return ops.reshape(np.eye(3, dtype=np.float32)[[0, 0, 1, 2, 2]][: len(x)] * 5, (len(x), 3))

    labels = np.array([0, 1, 1, 2, 0])
    measured = training.evaluate(Fixed(), Dataset(np.zeros((5, 1, 4, 4), np.uint8), labels, "abc"))
    assert measured.accuracy == 3 / 5
    np.testing.assert_array_equal(measured.confusion, [[1, 0, 1], [1, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(measured.predictions, [0, 0, 1, 2, 2])
    right, wrong = np.log(1 + 2 * np.exp(-5)), 5 + np.log(1 + 2 * np.exp(-5))
    assert measured.loss == pytest.approx((3 * right + 2 * wrong) / 5)


def test_evaluate_leaves_the_mode_and_does_not_depend_on_the_batch_size():
    model = Classifier().train()
    model.dropout.eval()  # as a user may set one module
    a, b = (training.evaluate(model, data(23), batch_size) for batch_size in (4, 100))
    assert model.training and not model.dropout.training
    with pytest.raises(ShapeError):
        training.evaluate(model, data(classes=4))
    assert model.training and not model.dropout.training
    training.evaluate(model.eval(), data(5))
    assert not any(module.training for module in model.modules())
    assert a.loss == pytest.approx(b.loss, rel=1e-5)
    np.testing.assert_array_equal(a.confusion, b.confusion)


def test_evaluate_refuses_data_with_other_classes():
    with pytest.raises(ShapeError, match=r"evaluate: the model has 3 classes, the data 4"):
        training.evaluate(Classifier(), data(classes=4))


def test_six_epochs_are_three_and_three_resumed_bit_for_bit(tmp_path):
    whole, halves = Classifier(), Classifier()
    expected = training.fit(whole, data(), data(9, seed=1), **options(whole))

    class Killed(Exception):
        pass

    def killer(x, rng):  # the sixteenth step is the first of the fourth epoch
        killer.steps += 1
        if killer.steps > 17:
            raise Killed
        return brighten(x, rng)

    killer.steps = 0
    path = tmp_path / "training.npz"
    with pytest.raises(Killed):
        training.fit(halves, data(), data(9, seed=1), **options(halves, checkpoint=path, augment=killer))
    fresh = Classifier(rng=99)  # another start, other dropout: all of it comes from the file
    history = training.fit(fresh, data(), data(9, seed=1), **options(fresh, checkpoint=path, resume=True, rng=5))
    np.testing.assert_array_equal(weights(fresh), weights(whole))
    assert without_seconds(history) == without_seconds(expected)


@pytest.mark.parametrize("kind", [np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_generators_of_every_kind_are_saved(tmp_path, kind):
    path, rng = tmp_path / "training.npz", np.random.Generator(kind(1))
    model = Classifier()
    training.fit(model, data(), **options(model, epochs=1, checkpoint=path, rng=rng))
    expected, resumed = rng.random(3), np.random.Generator(kind(2))
    training.fit(model, data(), **options(model, epochs=1, checkpoint=path, rng=resumed, resume=True))
    np.testing.assert_array_equal(resumed.random(3), expected)


@pytest.mark.parametrize("step", [2, 5, 12])
def test_ctrl_c_saves_in_the_middle_of_an_epoch_and_resumes_bit_for_bit(tmp_path, step):
    whole, stopped, resumed = Classifier(), Classifier(), Classifier(rng=1)
    expected = training.fit(whole, data(), **options(whole))

    def press(x, rng):
        press.steps += 1
        if press.steps == step:
            signal.raise_signal(signal.SIGINT)
        return brighten(x, rng)

    press.steps = 0
    path = tmp_path / "training.npz"
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(
        training.Interrupted, match=rf"stopped in epoch .*after step {step}; saved in (.|\n)*resume=True"
    ):
        training.fit(stopped, data(), **options(stopped, augment=press, checkpoint=path))
    assert press.steps == step and signal.getsignal(signal.SIGINT) is before
    history = training.fit(resumed, data(), **options(resumed, checkpoint=path, resume=True))
    np.testing.assert_array_equal(weights(resumed), weights(whole))
    assert without_seconds(history) == without_seconds(expected)


def pressing(step, number=signal.SIGINT):
    """brighten, with a signal in that step."""

    def press(x, rng):
        press.steps += 1
        if press.steps == step:
            signal.raise_signal(number)
        return brighten(x, rng)

    press.steps = 0
    return press


@pytest.mark.parametrize("name", [name for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)])
def test_what_ends_a_process_saves_as_ctrl_c_does(tmp_path, name):
    number, path = getattr(signal, name), tmp_path / "training.npz"
    whole, stopped, resumed = Classifier(), Classifier(), Classifier(rng=1)
    expected = training.fit(whole, data(), **options(whole))
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(training.Interrupted, match="after step 8; saved in") as caught:
            training.fit(stopped, data(), **options(stopped, augment=pressing(8, number), checkpoint=path))
        assert caught.value.number == number and signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    history = training.fit(resumed, data(), **options(resumed, checkpoint=path, resume=True))
    np.testing.assert_array_equal(weights(resumed), weights(whole))
    assert without_seconds(history) == without_seconds(expected)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a signal of POSIX")
def test_what_is_ignored_as_by_nohup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        model = Classifier()
        assert len(training.fit(model, data(), **options(model, augment=pressing(3, signal.SIGHUP)))) == 6
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_does_not_cut_the_step_but_a_second_ctrl_c_does(tmp_path):
    """A terminal that closes, and its shell, both send SIGHUP; systemd sends SIGTERM and SIGHUP."""

    def press(x, rng):
        for number in press.numbers:
            signal.raise_signal(number)
        return x

    model, path = Classifier(), tmp_path / "training.npz"
    press.numbers = [signal.SIGTERM, signal.SIGTERM, signal.SIGINT]
    with pytest.raises(training.Interrupted) as caught:
        training.fit(model, data(), **options(model, augment=press, checkpoint=path))
    assert caught.value.number == signal.SIGTERM and training.read_state(path)[1]["step"] == 1
    press.numbers = [signal.SIGINT, signal.SIGINT]
    with pytest.raises(KeyboardInterrupt) as caught:
        training.fit(model, data(), **options(model, augment=press, checkpoint=path))
    assert not isinstance(caught.value, training.Interrupted)


class Killed(BaseException):
    """Stands for kill -9: nothing of fit runs after it that could save."""


@pytest.mark.parametrize("step", [2, 4, 5, 6, 9, 13])
def test_what_was_saved_within_an_epoch_goes_on_bit_for_bit(tmp_path, step):
    whole, killed, resumed, path = Classifier(), Classifier(), Classifier(rng=1), tmp_path / "training.npz"
    expected = training.fit(whole, data(), data(9), **options(whole))

    def kill(x, rng):
        kill.steps += 1
        if kill.steps == step:
            raise Killed
        return brighten(x, rng)

    kill.steps = 0
    with pytest.raises(Killed):
        training.fit(killed, data(), data(9), **options(killed, augment=kill, checkpoint=path))
    assert training.read_state(path)[1]["step"] == step - 1
    history = training.fit(resumed, data(), data(9), **options(resumed, checkpoint=path, resume=True))
    np.testing.assert_array_equal(weights(resumed), weights(whole))
    assert without_seconds(history) == without_seconds(expected)


def test_a_kill_while_the_test_set_is_measured_costs_no_step(tmp_path, monkeypatch):
    whole, killed, resumed, path = Classifier(), Classifier(), Classifier(rng=1), tmp_path / "training.npz"
    expected = training.fit(whole, data(), data(9), **options(whole, epochs=2))

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(training, "evaluate", kill)
        training.fit(killed, data(), data(9), **options(killed, epochs=2, checkpoint=path))
    meta = training.read_state(path)[1]
    assert (meta["epoch"], meta["step"], meta["done"]) == (0, 5, 23)
    history = training.fit(resumed, data(), data(9), **options(resumed, epochs=2, checkpoint=path, resume=True))
    np.testing.assert_array_equal(weights(resumed), weights(whole))
    assert without_seconds(history) == without_seconds(expected)


def test_a_slow_disk_is_saved_to_a_tenth_of_the_time(monkeypatch):
    monkeypatch.undo()
    model, now = Classifier(), [100.0]
    run = training._Run(model, optim.SGD(model.parameters(), 0.1), None, np.random.default_rng(0), None)
    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    due = []
    for run.cost, run.saved in ((0.01, 95.1), (0.01, 94.9), (2.0, 80.1), (2.0, 79.9)):
        due.append(run.is_due())
    assert due == [False, True, False, True]


def test_two_trainings_into_one_folder_and_another_s_history(tmp_path):
    model, other = Classifier(), Classifier()

    def second(x, rng):
        thread = threading.Thread(target=try_again)
        thread.start()
        thread.join()
        return x

    def try_again():
        with pytest.raises(FileError, match="another process is writing into this folder"):
            training.fit(other, data(), **options(other, checkpoint=tmp_path / "b.npz"))

    before = weights(other)
    training.fit(model, data(5), **options(model, epochs=1, checkpoint=tmp_path / "a.npz", augment=second))
    np.testing.assert_array_equal(weights(other), before)
    (tmp_path / "history.csv").write_text("day,weight\n")
    with pytest.raises(FileError, match=r"history\.csv: is not the history of a training"):
        training.fit(model, data(), **options(model, checkpoint=tmp_path / "a.npz"))
    assert (tmp_path / "history.csv").read_text() == "day,weight\n"


def test_a_training_that_fails_before_it_saves_leaves_nothing(tmp_path):
    def spoil(x, rng):
        return x * np.float32(np.nan)

    model = Classifier()
    with pytest.raises(MinivitError, match="the loss became nan"):
        training.fit(model, data(), **options(model, checkpoint=tmp_path / "new" / "training.npz", augment=spoil))
    assert list(tmp_path.iterdir()) == []


def test_the_seconds_of_a_resumed_epoch_count_those_before_the_stop(tmp_path):
    def press(x, rng):
        signal.raise_signal(signal.SIGINT)
        return x

    path, model = tmp_path / "training.npz", Classifier()
    settings = options(model, epochs=2, checkpoint=path)
    with pytest.raises(training.Interrupted):
        training.fit(model, data(), **settings | {"augment": press})
    arrays, meta = training.read_state(path)
    assert 0 < meta["seconds"] < 1000
    training.write_state(path, arrays, meta | {"seconds": 1000.0})
    first, second = training.fit(model, data(), **settings, resume=True)
    assert first["seconds"] > 1000 > second["seconds"]


def test_a_module_of_the_user_draws_on_where_it_was_stopped(tmp_path):
    class Noisy(Classifier):
        def __init__(self):
            super().__init__()
            self.noise = np.random.default_rng(5)

        def forward(self, x):
            return super().forward(x + self.noise.normal(0, 0.1, x.shape).astype(np.float32))

    whole, stopped, resumed, path = Noisy(), Noisy(), Noisy(), tmp_path / "training.npz"
    training.fit(whole, data(), **options(whole, epochs=2))

    def press(x, rng):
        signal.raise_signal(signal.SIGINT)
        return brighten(x, rng)

    with pytest.raises(training.Interrupted):
        training.fit(stopped, data(), **options(stopped, epochs=2, augment=press, checkpoint=path))
    training.fit(resumed, data(), **options(resumed, epochs=2, checkpoint=path, resume=True))
    np.testing.assert_array_equal(weights(resumed), weights(whole))


def test_ctrl_c_without_a_checkpoint_says_that_nothing_was_saved():
    model = Classifier()

    def press(x, rng):
        signal.raise_signal(signal.SIGINT)
        return x

    with pytest.raises(training.Interrupted, match="stopped in epoch 1 of 6; nothing was saved"):
        training.fit(model, data(), **options(model, augment=press))


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_training import Classifier, data, options
from minivit import training
training.SAVE_EVERY, training.SAVE_SHARE = 0.0, float("inf")
model = Classifier()
training.fit(model, data(), **options(model, epochs=100000, checkpoint=sys.argv[1]))
"""


def test_a_process_killed_at_any_moment_leaves_a_whole_state(tmp_path):
    path = tmp_path / "training.npz"
    script = SCRIPT.format(tests=os.path.dirname(__file__))
    for wait in (0.0, 0.05, 0.1):
        process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(wait)
        process.kill()
        process.wait()
        arrays, meta = training.read_state(path)
        within = -(-meta["done"] // 5) if "run/order" in arrays else 0
        assert meta["step"] == 5 * meta["epoch"] + within and "model/head.weight" in arrays
        path.unlink()


def test_empty_data(tmp_path):
    model, nothing = Classifier(), data().__class__(np.zeros((0, 1, 4, 4), np.uint8), np.zeros(0, int), "abc")
    with pytest.raises(MinivitError, match="fit: there are no examples to learn from"):
        training.fit(model, nothing, **options(model, epochs=1))
    with pytest.raises(MinivitError, match="evaluate: there are no examples"):
        training.evaluate(model, nothing)
    with pytest.raises(MinivitError, match="evaluate: batch_size=0"):
        training.evaluate(model, data(), batch_size=0)
    history = training.fit(model, data(), nothing, **options(model, epochs=1))
    assert "test_loss" not in history[0]


def test_the_optimizer_has_its_rate_again_after_a_schedule():
    model = Classifier()
    chosen = options(model, epochs=2, schedule=lambda step: 1 / (1 + step))
    history = training.fit(model, data(), **chosen)
    assert history[-1]["lr"] < 0.02 == chosen["optimizer"].lr


def test_the_loss_of_an_epoch_is_the_mean_over_its_examples():
    model = Classifier()  # 23 examples in steps of 5: the last of 3

    def loss(model, pixel_values, labels, rng):
        value = model(pixel_values).sum() * 0 + float(len(labels))
        return value, len(labels)

    row = training.fit(model, data(23), **options(model, epochs=1, average=None), loss=loss)[0]
    assert row["train_loss"] == pytest.approx((4 * 5 * 5 + 3 * 3) / 23) and row["train_accuracy"] == 1


def test_a_resume_with_other_settings_or_data_is_refused(tmp_path):
    model, path = Classifier(), tmp_path / "training.npz"
    training.fit(model, data(), **options(model, epochs=1, checkpoint=path))
    other = Classifier()
    for changes, train, message in [
        ({"batch_size": 4}, data(), "batch_size: 5 then, 4 now"),
        ({"epochs": 2}, data(), "epochs: 1 then, 2 now"),
        (
            {"optimizer": optim.AdamW(other.parameters(), 0.3)},
            data(),
            r"optimizer: AdamW, lr 0.02, .* then, AdamW, lr 0.3, ",
        ),
        (
            {"optimizer": optim.AdamW(other.parameters(), 0.02, weight_decay=50.0)},
            data(),
            r"optimizer: .*weight_decay 0.01 then, .*weight_decay 50.0 now",
        ),
        ({}, data(24), "examples: 23 then, 24 now"),
        ({}, data(seed=5), r"labels: \d+ then, \d+ now"),
        ({"average": None}, data(), "average: 0.9 then, None now"),
        ({"label_smoothing": 0.2}, data(), "label_smoothing: 0.1 then, 0.2 now"),
        ({"max_norm": None}, data(), "max_norm: 1.0 then, None now"),
        ({"schedule": optim.warmup_cosine(5, 2)}, data(), r"schedule: \[.* then, \[.* now"),
    ]:
        start = weights(other)
        with pytest.raises(FileError, match=rf"belongs to another training:\n    {message}"):
            training.fit(other, train, **{**options(other, epochs=1, checkpoint=path, resume=True), **changes})
        np.testing.assert_array_equal(weights(other), start)


def test_a_resume_with_other_generators_is_refused(tmp_path):
    path, model, other = tmp_path / "training.npz", Classifier(), Classifier()
    training.fit(model, data(), **options(model, epochs=1, checkpoint=path))
    other.noise = np.random.Generator(np.random.Philox(0))
    before = weights(other)
    message = r"belongs to another training:\n    generators .*\['PCG64', 'PCG64'\] then, .*'Philox'.* now"
    with pytest.raises(FileError, match=message):
        training.fit(other, data(), **options(other, epochs=1, checkpoint=path, resume=True))
    np.testing.assert_array_equal(weights(other), before)


def test_a_resume_with_another_model_is_refused(tmp_path):
    model, path = Classifier(), tmp_path / "training.npz"
    training.fit(model, data(), **options(model, epochs=1, checkpoint=path))
    wider = Classifier()
    wider.hidden, wider.head = nn.Linear(16, 8), nn.Linear(8, 3)
    with pytest.raises(FileError, match="learned: 143 parameters then, 163 parameters now"):
        training.fit(wider, data(), **options(wider, epochs=1, checkpoint=path, resume=True))


def test_resume_needs_a_checkpoint():
    model = Classifier()
    with pytest.raises(MinivitError, match="resume=True, but no checkpoint"):
        training.fit(model, data(), **options(model, resume=True))


def test_a_loss_that_is_not_a_number_stops_and_the_state_stays_whole(tmp_path):
    model, path = Classifier(), tmp_path / "training.npz"

    def spoil(x, rng):
        spoil.steps += 1
        return x if spoil.steps < 8 else x * np.float32(np.nan)

    spoil.steps = 0
    with pytest.raises(MinivitError, match=r"fit: the loss became nan in epoch 2, step 8(.|\n)*lower lr"):
        training.fit(model, data(), **options(model, checkpoint=path, augment=spoil))
    _, meta = training.read_state(path)
    assert meta["epoch"] == 1 and np.isfinite(weights(model)).all()


def test_the_history_is_a_table_beside_the_state(tmp_path):
    model = Classifier()
    history = training.fit(model, data(), data(9), **options(model, epochs=3, checkpoint=tmp_path / "training.npz"))
    with open(tmp_path / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["train_loss"]) for row in rows] == [row["train_loss"] for row in history]
    assert list(rows[0]) == list(training.COLUMNS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.csv", "training.npz"]


def test_short_epochs_are_not_all_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 60.0)
    saves = []
    monkeypatch.setattr(training._Run, "save", lambda run, path: saves.append(run.epoch))
    model = Classifier()
    training.fit(model, data(), **options(model, checkpoint=tmp_path / "training.npz"))
    assert saves == [6]


def test_a_place_that_cannot_be_written_to_is_found_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    model = Classifier()
    start = weights(model)
    with pytest.raises(FileError, match="file: a file is in the way of this folder"):
        training.fit(model, data(), **options(model, checkpoint=tmp_path / "file" / "training.npz"))
    np.testing.assert_array_equal(weights(model), start)


def test_the_model_ends_with_the_average_of_its_weights():
    plain, averaged = Classifier(), Classifier()
    training.fit(plain, data(), **options(plain, average=None))
    settings = options(averaged)
    training.fit(averaged, data(), **settings)
    state = settings["average"].state_dict()
    np.testing.assert_array_equal(averaged.parameters()[0].data, state["average.0"])
    assert (weights(plain) != weights(averaged)).any()


def test_the_average_takes_the_weights_after_each_step():
    plain, averaged = Classifier(), Classifier()
    start = weights(plain)
    for model, average in ((plain, None), (averaged, optim.ExponentialMovingAverage(averaged.parameters(), 0.9))):
        training.fit(model, data(5), **options(model, epochs=1, average=average))
    expected = start + 0.9 * (weights(plain) - start)  # the first update takes nine tenths
    np.testing.assert_allclose(weights(averaged), expected, rtol=1e-5)


@pytest.mark.parametrize(("epochs", "batch_size"), [(0, 5), (3, 0), (1.5, 5), (3, 2.5)])
def test_no_epochs_and_no_batch_are_refused(epochs, batch_size):
    model = Classifier()
    with pytest.raises(MinivitError, match=r"is a whole number, 1 to"):
        training.fit(model, data(), epochs=epochs, batch_size=batch_size, optimizer=optim.SGD(model.parameters(), 0.1))


@pytest.mark.parametrize("with_tqdm", [True, False])
def test_the_live_line_of_a_terminal(monkeypatch, capsys, with_tqdm):
    class Bar:
        texts, closed = [], False

        def __init__(self, total, initial, **_):
            self.total, self.n = total, initial

        def set_description_str(self, text, refresh):
            self.texts.append(text)

        def update(self, count):
            self.n += count

        def close(self):
            Bar.closed = self.n == self.total

    monkeypatch.setitem(sys.modules, "tqdm", type("tqdm", (), {"tqdm": Bar}) if with_tqdm else None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    model = Classifier()
    training.fit(model, data(), data(9), **options(model, epochs=2))
    printed = capsys.readouterr()
    assert printed.out == ""
    if with_tqdm:
        assert Bar.closed and re.match(r"epoch 2/2  loss .*  accuracy .*  test accuracy", Bar.texts[-1])
    else:
        assert re.search(r"\repoch 2/2  loss .*  accuracy .*  test accuracy .*  \d+ images/s  0 s left", printed.err)
        assert printed.err.endswith("\n")


@pytest.mark.parametrize("live", [True, False])
def test_a_training_that_is_not_verbose_is_silent(live, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: live, raising=False)
    model = Classifier()
    training.fit(model, data(), **options(model, epochs=1, verbose=False))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "damage",
    [
        lambda arrays, meta: arrays.pop("run/sums"),
        lambda arrays, meta: meta.pop("lr"),
        lambda arrays, meta: meta.update(generators=None),
        lambda arrays, meta: meta.update(history=3),
        lambda arrays, meta: meta.update(settings=[]),
        lambda arrays, meta: arrays.update({"run/order": np.arange(5)}),
        lambda arrays, meta: arrays.update({"run/order": np.full(23, 99)}),
        lambda arrays, meta: meta.update(step=None),
        lambda arrays, meta: meta.update(step=-7),
        lambda arrays, meta: meta.update(step=8),
        lambda arrays, meta: meta.update(step=10**400),
        lambda arrays, meta: meta.update(step=7.0),
        lambda arrays, meta: meta.update(done="x"),
        lambda arrays, meta: meta.update(done=-10),
        lambda arrays, meta: meta.update(done=11),
        lambda arrays, meta: meta.update(done=10**9),
        lambda arrays, meta: meta.update(epoch=True),
        lambda arrays, meta: meta.update(epoch=7),
        lambda arrays, meta: meta.update(epoch=[1]),
        lambda arrays, meta: meta.update(lr="0.02"),
        lambda arrays, meta: meta.update(lr=float("nan")),
        lambda arrays, meta: meta.update(lr=1e9),
        lambda arrays, meta: meta.update(seconds=-1.0),
        lambda arrays, meta: meta.update(seconds=float("inf")),
        lambda arrays, meta: meta.update(history=[]),
        lambda arrays, meta: meta.update(history=[3]),
        lambda arrays, meta: meta["history"][0].update(train_loss="low"),
        lambda arrays, meta: meta["history"][0].update(test_accuracy=[1]),
        lambda arrays, meta: meta["history"][0].pop("lr"),
        lambda arrays, meta: meta["history"][0].update(test_lass=0.5),
        lambda arrays, meta: meta["generators"][0].update(state=None),
        lambda arrays, meta: meta["generators"][0]["state"].update(state="x"),
        lambda arrays, meta: meta["generators"][0]["state"].update(state=-1),
        lambda arrays, meta: meta["generators"][1]["state"].update(inc=2**200),
        lambda arrays, meta: meta["generators"][0].pop("uinteger"),
        lambda arrays, meta: arrays.update({"run/order": np.arange(23.0)}),
        lambda arrays, meta: arrays.update({"run/order": np.arange(23).astype(str)}),
        lambda arrays, meta: arrays.update({"run/order": np.arange(23)[None]}),
        lambda arrays, meta: arrays.pop("run/order"),
        lambda arrays, meta: arrays.update({"run/sums": np.array([np.nan, 1])}),
        lambda arrays, meta: arrays.update({"run/sums": np.array([1.0, np.nan])}),
        lambda arrays, meta: arrays.update({"run/sums": np.array([1.0, 99.0])}),
        lambda arrays, meta: arrays.update({"run/sums": np.zeros(3)}),
        lambda arrays, meta: arrays.update({"run/sums": np.array(["a", "b"])}),
        lambda arrays, meta: arrays.update({"optimizer/step": arrays["optimizer/step"] - 10}),
        lambda arrays, meta: arrays.update({"optimizer/step": arrays["optimizer/step"] + 10**9}),
        lambda arrays, meta: arrays["optimizer/exp_avg.0"].fill(np.nan),
        lambda arrays, meta: arrays["optimizer/exp_avg_sq.1"].fill(-1),
        lambda arrays, meta: arrays["average/updates"].fill(-3),
        lambda arrays, meta: arrays.pop("optimizer/exp_avg.2"),
        lambda arrays, meta: arrays.pop("average/average.3"),
        lambda arrays, meta: arrays.update({"model/head.bias": np.zeros(4, np.float32)}),
    ],
)
def test_a_damaged_state_is_refused_whole(tmp_path, damage):
    """A state of step 7, in the middle of the second of three epochs."""
    model, path = Classifier(), tmp_path / "training.npz"
    with pytest.raises(training.Interrupted):
        training.fit(model, data(), **options(model, epochs=3, checkpoint=path, augment=pressing(7)))
    arrays, meta = training.read_state(path)
    assert (meta["epoch"], meta["step"], meta["done"]) == (1, 7, 10)
    damage(arrays, meta)
    training.write_state(path, arrays, meta)
    other, rng = Classifier(rng=1), np.random.default_rng(3)
    settings = options(other, epochs=3, checkpoint=path, resume=True, rng=rng)
    parts = other, settings["optimizer"], settings["average"]
    before, drawn = [part.state_dict() for part in parts], rng.bit_generator.state
    with pytest.raises(FileError, match="is damaged") as caught:
        training.fit(other, data(), **settings)
    assert len(str(caught.value)) < 600
    for part, old in zip(parts, before, strict=True):
        for name, array in part.state_dict().items():
            np.testing.assert_array_equal(array, old[name])
    assert rng.bit_generator.state == drawn


@pytest.mark.parametrize(("kind", "place"), [(np.random.MT19937, "pos"), (np.random.Philox, "buffer_pos")])
def test_a_generator_is_not_sent_beyond_its_array(tmp_path, kind, place):
    path, model = tmp_path / "training.npz", Classifier()
    training.fit(model, data(), **options(model, epochs=1, checkpoint=path, rng=np.random.Generator(kind(1))))
    arrays, meta = training.read_state(path)
    state = meta["generators"][0]
    (state["state"] if place == "pos" else state)[place] = 10**6
    training.write_state(path, arrays, meta)
    with pytest.raises(FileError, match="is damaged"):
        settings = options(model, epochs=1, checkpoint=path, rng=np.random.Generator(kind(1)))
        training.fit(model, data(), **settings, resume=True)


def test_a_resume_with_other_pictures_is_refused(tmp_path):
    model, path = Classifier(), tmp_path / "training.npz"
    training.fit(model, data(), **options(model, epochs=1, checkpoint=path))
    inverted = Dataset(255 - data().images, data().labels, data().class_names)
    with pytest.raises(FileError, match="pictures: "):
        training.fit(model, inverted, **options(model, epochs=1, checkpoint=path, resume=True))


@pytest.mark.parametrize("stopped", [False, True])
def test_weights_that_the_last_step_spoiled_are_not_kept(tmp_path, stopped):
    class Spoiler(optim.SGD):
        def step(self):
            self.parameters[0].data[0] = np.nan
            if stopped:
                signal.raise_signal(signal.SIGINT)

    model, path = Classifier(), tmp_path / "training.npz"
    with pytest.raises(MinivitError, match="weights became NaN or infinite in epoch 1"):
        optimizer = Spoiler(model.parameters(), 0.1)
        count = 10 if stopped else 5  # so that a stop comes in the middle of the epoch
        training.fit(model, data(count), epochs=1, batch_size=5, optimizer=optimizer, checkpoint=path)
    assert not path.exists()


def test_an_optimizer_of_another_model_is_refused():
    old, model = Classifier(), Classifier()
    with pytest.raises(MinivitError, match="the optimizer changes parameters that the model does not have"):
        training.fit(model, data(), **options(model, optimizer=optim.AdamW(old.parameters())))


def test_a_history_that_a_spreadsheet_holds_does_not_end_the_training(tmp_path, monkeypatch):
    def locked(path, history):
        if history:
            raise FileError(path, "cannot be written: it is open.")

    model, path = Classifier(), tmp_path / "training.npz"
    monkeypatch.setattr(training, "write_history", locked)
    with pytest.warns(UserWarning, match=r"history\.csv: cannot be written"):
        history = training.fit(model, data(), **options(model, epochs=2, checkpoint=path))
    assert len(history) == 2 and training.read_state(path)[1]["epoch"] == 2


def test_fit_trains_in_training_mode():
    def loss(model, *batch):
        assert model.dropout.training
        return training.classification(model, *batch)

    model = Classifier().eval()
    training.fit(model, data(), **options(model, epochs=1, loss=loss))


def test_the_schedule_is_asked_for_each_step():
    rates, model = [], Classifier()

    def loss(model, *batch):
        rates.append(settings["optimizer"].lr)
        return training.classification(model, *batch)

    settings = options(model, epochs=1, lr=0.5, schedule=lambda step: 1 / (step + 1), loss=loss)
    training.fit(model, data(), **settings)
    assert rates == pytest.approx([0.5, 0.25, 0.5 / 3, 0.125, 0.1])


def test_max_norm_clips():
    moved = []
    for max_norm in (None, 1e-3):
        model = Classifier()
        before = weights(model)
        sgd = optim.SGD(model.parameters(), 1.0)
        training.fit(model, data(5), epochs=1, batch_size=5, optimizer=sgd, max_norm=max_norm)
        moved.append(np.linalg.norm(weights(model) - before))
    assert moved[1] <= 1.01e-3 < moved[0]


def test_max_norm_counts_what_the_optimizer_learns():
    model = Classifier()
    before, bias = weights(model), model.head.bias
    sgd = optim.SGD([bias], 1.0)
    training.fit(model, data(5), epochs=1, batch_size=5, optimizer=sgd, max_norm=1e-3)
    assert np.linalg.norm(bias.grad) == pytest.approx(1e-3, rel=1e-2)
    assert np.linalg.norm(weights(model) - before) == pytest.approx(1e-3, rel=1e-2)


def test_history_has_the_same_bytes_everywhere(tmp_path):
    training.write_history(tmp_path / "history.csv", [])
    assert (tmp_path / "history.csv").read_bytes() == (",".join(training.COLUMNS) + "\n").encode()
