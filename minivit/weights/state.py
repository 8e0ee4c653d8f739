"""The state of a training: all that is needed to go on, in NumPy's own .npz."""

import math
from pathlib import Path

import numpy as np

from ..errors import FileError, MinivitError
from ..machinery.files import check_weights, json_text, parsed, read_npz, replacing

STATE = "training.npz"
META = "meta.json"
_LEARNED, _MEASURED = ("seconds", "lr", "train_loss"), ("train_accuracy", "test_loss", "test_accuracy")  # of an epoch


def write_state(path, arrays, meta):
    """Write a training state: named arrays and a dict that JSON can hold, as NumPy's own .npz. Raises FileError.

    Killed or out of disk at any moment, the file is whole, the old or the new (see replacing).
    """
    path = Path(path)
    text = json_text(path, meta)
    with replacing(path) as (temporary,), temporary.open("wb") as file:
        np.savez(file, **arrays, **{META: text})


def read_state(path):
    """Read a training state. Returns (arrays, meta); FileError: missing, damaged, not a state, or NaN in weights."""
    path = Path(path)
    arrays = read_npz(path)
    try:
        meta = parsed(str(arrays.pop(META)))
        if not isinstance(meta, dict):
            raise ValueError(f"a {type(meta).__name__}")
    except (KeyError, ValueError) as error:
        raise FileError(path, f"is not a training state: its {META} is missing or damaged.") from error
    check_weights(path, {k: x for k, x in arrays.items() if k.startswith(("model/", "average/average."))})
    return arrays, meta


def check_progress(arrays, meta, examples, batch_size, epochs, counts):
    """Raise a ValueError, TypeError, KeyError or IndexError for what no training of these settings can have come to.

    arrays: run/sums, run/order in an epoch, and those of the optimiser and the average. meta: epoch, step, done,
    seconds and history, as training.fit saves them. counts: the loss is sure to count right answers.
    """
    order, sums, history = arrays.get("run/order"), arrays["run/sums"], meta["history"]
    for name in ("epoch", "step", "done"):
        if type(meta[name]) is not int:
            raise TypeError(f"{name} is {meta[name]!r:.50}")
    epoch, step, done = meta["epoch"], meta["step"], meta["done"]
    within = order is not None  # an epoch is under way
    if not (0 <= epoch <= epochs - within and 0 <= done <= examples and (done % batch_size == 0 or done == examples)):
        raise ValueError(f"epoch {epoch!r:.20} of {epochs}, {done!r:.20} of {examples} examples")
    if step != epoch * -(-examples // batch_size) + (-(-done // batch_size) if within else 0):
        raise ValueError(f"step {step!r:.20} in epoch {epoch}, after {done} examples of {examples}")
    if within and (order.dtype.kind not in "iu" or not np.array_equal(np.sort(order), np.arange(examples))):
        raise ValueError("order is not one of the examples")
    if sums.shape != (2,) or sums.dtype != np.float64:
        raise TypeError(f"sums are {sums.dtype} {sums.shape}")
    right = 0 <= sums[1] <= examples if counts else not math.isinf(sums[1])  # NaN: nothing counts as right
    if not (math.isfinite(sums[0]) and right):
        raise ValueError(f"sums are {sums.tolist()}")
    if not isinstance(history, list) or [row["epoch"] for row in history] != list(range(1, epoch + 1)):
        raise ValueError(f"history of other epochs than {epoch}")
    for row in [meta, *history]:
        numbers = [row["seconds"]] if row is meta else [row[name] for name in _LEARNED]
        if not all(type(x) in (int, float) and math.isfinite(x) for x in numbers) or row["seconds"] < 0:
            raise ValueError(f"seconds, lr or loss of an epoch are {numbers!r:.100}")
        measured = [row.get(name) for name in _MEASURED]
        if not all(x is None or type(x) in (int, float) for x in measured):
            raise TypeError(f"accuracies or loss of an epoch are {measured!r:.100}")
        if row is not meta and (unknown := row.keys() - {"epoch", *_LEARNED, *_MEASURED}):
            raise ValueError(f"an epoch has {sorted(unknown)!r:.100}")
    for name, array in arrays.items():
        if name.startswith(("optimizer/", "average/")):
            good = np.isfinite(array).all() if array.dtype.kind == "f" else ((0 <= array) & (array <= step)).all()
            if not good or (name.startswith("optimizer/exp_avg_sq") and (array < 0).any()):
                raise ValueError(f"{name} holds numbers that no step gives")


def state_weights(arrays):
    """{hub name: array} of a training state: its averaged weights where it has them, or else the model's own.

    optim.ExponentialMovingAverage numbers its arrays in the order of the model's.
    """
    own = [name for name in arrays if name.startswith("model/")]
    average = [f"average/average.{number}" for number in range(len(own))]
    averaged = {name for name in arrays if name.startswith("average/average.")}
    if not own or averaged not in (set(), set(average)):
        raise MinivitError(
            "state_weights",
            f"there are {len(own)} weights of a model and {len(averaged)} averages.",
            rule="a training state has one weight or more, and of all of them an average or of none.",
        )
    chosen = average if averaged else own
    return {name.removeprefix("model/"): arrays[key] for name, key in zip(own, chosen, strict=True)}


def read_state_weights(path):
    """{hub name: array}, read from a training state without the rest of it; see state_weights. Raises FileError."""
    tensors = read_npz(path, state_weights)
    check_weights(path, tensors)
    return tensors
