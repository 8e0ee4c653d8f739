"""A linear head on frozen features: what a trained model sees in each picture is looked at once, then one formula.

N pictures, D hidden size, K classes, L strengths of regularisation that are tried.
"""

import contextlib
import hashlib
import math
import time
from typing import NamedTuple

import numpy as np

from .. import training
from ..autograd import no_grad
from ..errors import FileError
from ..machinery.communication import world
from ..machinery.files import read_npz, replacing
from ..machinery.progress import Line
from ..machinery.signals import deferred_signals

FEATURES = "features.npz"  # kept in the training folder: another run looks at new pictures only
STRENGTHS = 10.0 ** np.arange(-6, 3)  # (L,) of the ridge, in units of the features' mean square
SHARPNESS = 2.0 ** np.arange(0, 4)  # times scores of about 0 to 1: logits, never surer than few pictures allow
BATCH = 8
SAVE_EVERY = 10  # seconds


class Head(NamedTuple):
    """A linear classifier, logits = x @ weight^T + bias, and how it was chosen.

    weight: (K, D), bias: (K,). strength: of the ridge. accuracy: on the pictures it learned from, each answered without
    itself; NaN where no class has two of them, and then the strength is the middle one.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    accuracy: float


def fit_head(features, labels, count):
    """Ridge regression of the classes on the features, its strength chosen by leave-one-out cross-validation: a Head.

    features: (N, D), labels: (N,) in 0..K-1, count: K. With A the centred features and Y the centred one-hot rows,
    W = A^T (A A^T + s I)^-1 Y, and the answer for picture i of the ridge that learned from all others is
    Y_i - (Y_i - (H Y)_i) / (1 - H_ii), H = A A^T (A A^T + s I)^-1. The strength s and the sharpness of the softmax are
    those with the least cross-entropy of these answers.
    Source: Hastie, Tibshirani and Friedman 2009, "The Elements of Statistical Learning", sections 3.4.1 and 7.10.
    """
    x, one_hot = features.astype(np.float64), np.eye(count)[labels]
    mean, share = x.mean(0), one_hot.mean(0)
    u, lengths, vt = np.linalg.svd(x - mean, full_matrices=False)  # (N, R), (R,), (R, D)
    strengths = STRENGTHS * max((lengths**2).sum() / len(x), np.finfo(float).tiny)  # (L,)
    left_out = [_left_out(u, lengths, one_hot - share, s) + share for s in strengths]  # L of (N, K)
    losses = np.array([[_loss(sharp * scores, labels) for sharp in SHARPNESS] for scores in left_out])
    chosen, sharp = np.unravel_index(losses.argmin(), losses.shape)
    known = np.bincount(labels, minlength=count)[labels] > 1  # a class of one picture is not there without it
    if not known.any():
        chosen, sharp = len(strengths) // 2, len(SHARPNESS) // 2
    right = left_out[chosen].argmax(1) == labels
    pulled = lengths / (lengths**2 + strengths[chosen])  # (R,)
    weight = SHARPNESS[sharp] * (vt.T @ (pulled[:, None] * (u.T @ (one_hot - share)))).T  # (K, D)
    bias = SHARPNESS[sharp] * share - weight @ mean
    accuracy = float(right.mean()) if known.any() else math.nan
    weight = np.ascontiguousarray(weight, np.float32)  # row by row in memory, as it will be read again
    return Head(weight, bias.astype(np.float32), float(STRENGTHS[chosen]), accuracy)


def _left_out(u, lengths, targets, strength):
    """Each row of targets (N, K) as the ridge on all other rows has it."""
    kept = lengths**2 / (lengths**2 + strength)  # (R,)
    hat = (u * u) @ kept + 1 / len(u)  # (N,), the diagonal of H; 1 / N for the mean, which is learned too
    return targets - (targets - u @ (kept[:, None] * (u.T @ targets))) / np.maximum(1 - hat, 1e-9)[:, None]


def _loss(logits, labels):
    """Mean cross-entropy."""
    logits = logits - logits.max(1, keepdims=True)
    return (np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]).mean()


def look(model, datasets, folder):
    """What the model makes of each picture, its final CLS token: one array (N, D) for each of the Datasets.

    model: a ViTModel in evaluation mode. Each picture is looked at once, by one of the processes; what is known is kept
    in FEATURES in the folder, by the bytes of the picture and of the model, as far as it has come when somebody stops
    it.
    """
    known, of_model, processes = {}, _digest(*(parameter.data for parameter in model.parameters())), world()
    path = folder / FEATURES
    if processes.is_first and path.exists():
        known = _read(path, of_model)
    known = processes.broadcast(known)
    total = sum(map(len, datasets))
    line, saved, found = Line(1, total, 0, processes.is_first), time.perf_counter(), []
    try:
        # several processes answer Ctrl-C where they agree, so that none waits for one that is gone
        with deferred_signals() if processes.size > 1 else contextlib.nullcontext(()) as asked:
            for dataset in datasets:
                keys = []
                for start in range(0, len(dataset), BATCH * processes.size):
                    rows = np.arange(start, min(start + BATCH * processes.size, len(dataset)))
                    own = rows[processes.rows(len(rows))]
                    parts = processes.gather((*_seen(model, dataset, own, known), bool(asked)))
                    keys += [key for names, _, _ in parts for key in names]
                    new = {key: token for _, seen, _ in parts for key, token in seen.items()}
                    known |= new
                    line.looked(len(rows))
                    if any(stop for *_, stop in parts):
                        raise KeyboardInterrupt
                    if new and processes.is_first and time.perf_counter() - saved > SAVE_EVERY:
                        _write(path, known, of_model)
                        saved = time.perf_counter()
                found.append(keys)
    except KeyboardInterrupt:
        raise training.Interrupted(f"stopped; what was seen is kept in {path}, for the same command.") from None
    finally:
        line.close()
        if known and processes.is_first:
            _write(path, known, of_model)
    D = model.config.hidden_size
    return [np.array([known[key] for key in keys], np.float32).reshape(-1, D) for keys in found]


def _seen(model, dataset, rows, known):
    """(digests of these pictures, {digest: (D,)} of those that are not known)."""
    keys = [_digest(picture) for picture in dataset.images[rows]]
    new = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
    if not new:
        return keys, {}
    with no_grad():
        tokens = model(dataset.batch(list(new.values()))[0]).last_hidden_state.data[:, 0]  # (B, D)
    return keys, dict(zip(new, tokens, strict=True))


def _digest(*arrays):
    """SHA-256 of arrays, as 64 letters."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{array.shape} {array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def _read(path, of_model):
    """{digest of a picture: (D,)} from a file that _write wrote; nothing if it is of another model."""
    arrays = read_npz(path)
    if arrays.keys() != {"model", "pictures", "features"} or len(arrays["pictures"]) != len(arrays["features"]):
        raise FileError(path, "holds no features that minivit wrote.", hint="delete it, or name another folder.")
    if str(arrays["model"]) != of_model:
        return {}
    return dict(zip(arrays["pictures"].tolist(), arrays["features"], strict=True))


def _write(path, known, of_model):
    features = np.stack(list(known.values()))
    with replacing(path) as (temporary,), temporary.open("wb") as file:
        np.savez(file, model=of_model, pictures=list(known), features=features)


def is_own_features(path):
    """Whether a file is one that look() wrote."""
    try:
        return read_npz(path, lambda names: {"model": names["model"]} if len(names) == 3 else {})["model"].size == 1
    except (FileError, KeyError):
        return False


def interval(right, count):
    """The 95 % interval of a share of right answers, by Wilson's formula: (low, high), both 0 to 1.

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".
    """
    z, share = 1.96, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half
