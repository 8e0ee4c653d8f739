"""The state of a training: all that is needed to go on, in NumPy's own .npz."""

from pathlib import Path

import numpy as np

from ..errors import FileError, MinivitError
from ..machinery.files import check_weights, json_text, parsed, read_npz, replacing

STATE = "training.npz"
META = "meta.json"


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
    except (KeyError, ValueError) as error:
        raise FileError(path, f"is not a training state: its {META} is missing or damaged.") from error
    check_weights(path, {k: x for k, x in arrays.items() if k.startswith(("model/", "average/average."))})
    return arrays, meta


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
