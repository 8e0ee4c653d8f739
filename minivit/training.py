"""Training: fit a model to a dataset, measure it, and stop and go on without losing a bit. Knows nothing of ViT.

A model is a Module that takes pixel_values (B, C, H, W) and gives logits (B, K), or an object that has them. A dataset
has `len()`, `labels`, `class_names` and `batch(indices) -> (pixel_values, labels)`.

Started by mpiexec, N processes share each batch (see machinery/communication.py): each takes its rows, and the mean
gradient is that of one process with the whole batch, but for rounding.
"""

import contextlib
import copy
import csv
import functools
import math
import signal
import time
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import ops
from .autograd import no_grad
from .errors import FileError, MinivitError, ShapeError, check_whole, shortened
from .machinery.communication import world
from .machinery.files import regular, replacing
from .machinery.lock import locked
from .machinery.progress import Line
from .machinery.random import Share, shared_out
from .machinery.signals import deferred_signals
from .optim import clip_grad_norm
from .weights.state import check_progress, read_state, write_state

HISTORY = "history.csv"
SAVE_EVERY = 5.0  # seconds of work that a kill may cost: a disk takes up to a tenth of one to make sure of a file
SAVE_SHARE = 0.1  # of the time, at most, for saving: a large model on a slow disk is saved less often


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or another signal during fit, after the state was saved. number: of the signal."""

    agreed = True  # all processes stop with it

    def __init__(self, text, number=signal.SIGINT):
        super().__init__(text)
        self.number = number


@dataclass
class Evaluation:
    """How a model does on a dataset of N examples: mean loss in nats, and accuracy, 0 to 1.

    confusion[label, prediction]: counts, (K, K). predictions: the class with the highest logit, (N,).
    """

    loss: float
    accuracy: float
    confusion: np.ndarray
    predictions: np.ndarray


def classification(model, pixel_values, labels, rng, label_smoothing=0.0):
    """The loss of one batch, (B, C, H, W) and (B,), and how many of its labels came out right. rng: not used here."""
    _check_task("fit", model)
    output = model(pixel_values)
    logits = getattr(output, "logits", output)  # (B, K)
    loss = ops.cross_entropy(logits, labels, label_smoothing)
    return loss, int((logits.data.argmax(-1) == labels).sum())


def _check_task(where, model):
    """Refuse class numbers for a model whose config has another problem_type: its answers are no choice of a class."""
    task = getattr(getattr(model, "config", None), "task", "single_label_classification")
    if task != "single_label_classification":
        rule = 'class numbers are labels for problem_type "single_label_classification"; num_labels=1 is a regression.'
        hint = "set model.config.problem_type, or give a loss."
        raise MinivitError(where, f"the model's task is {task}.", rule, hint)


def evaluate(model, dataset, batch_size=256):
    """Measure a model on a dataset, in evaluation mode. Returns an Evaluation; MinivitError for an empty dataset."""
    check_whole("evaluate", "batch_size", batch_size, most=math.inf)
    if not len(dataset):
        raise MinivitError("evaluate", "there are no examples to measure the model on.")
    _check_task("evaluate", model)
    K, processes = len(dataset.class_names), world()
    loss, predictions = 0.0, np.zeros(len(dataset), np.int64)
    with processes.together(), model.evaluating(), no_grad():
        for start in range(0, len(dataset), batch_size):
            rows = np.arange(start, min(start + batch_size, len(dataset)))
            rows = rows[processes.rows(len(rows))]
            if not len(rows):
                continue
            pixel_values, labels = dataset.batch(rows)
            output = model(pixel_values)
            logits = getattr(output, "logits", output)
            if logits.shape[1] != K:
                raise ShapeError(
                    "evaluate",
                    f"the model has {logits.shape[1]} classes, the data {K}.",
                    rule="the model's classes are the data's.",
                    hint="finetune the model on this data: it gets a new head.",
                )
            loss += ops.cross_entropy(logits, labels).item() * len(labels)
            predictions[rows] = logits.data.argmax(-1)
        loss = processes.agree(loss)[0] / len(dataset)
        processes.all_reduce(predictions)
    confusion = np.zeros((K, K), np.int64)
    np.add.at(confusion, (dataset.labels, predictions), 1)
    return Evaluation(float(loss), float((predictions == dataset.labels).mean()), confusion, predictions)


def fit(
    model,
    train,
    test=None,
    *,
    epochs,
    batch_size,
    optimizer,
    schedule=None,
    augment=None,
    label_smoothing=0.0,
    rng=0,
    checkpoint=None,
    resume=False,
    loss=None,
    max_norm=None,
    average=None,
    verbose=True,
):
    """Train a model for `epochs` passes over `train`, measuring it on `test` after each. Returns the history.

    train: a Dataset; test: another, or None or an empty one to measure nothing;
    batch_size: examples a step, the last step of an epoch taking what is left; optimizer: of this model's parameters;
    schedule: step -> factor on the optimizer's lr (None: always 1); augment: (pixel_values, rng) -> pixel_values;
    label_smoothing: of the cross-entropy; rng: a Generator or seed for the order, the augmentation and the loss;
    loss: (model, pixel_values, labels, rng) -> (loss, correct or None), instead of the classification loss;
    max_norm: clip the global norm of the gradients that the optimizer uses; average: an ExponentialMovingAverage of
    the parameters, which then are what is tested and what the model ends with; verbose: print a line for each epoch
    (see progress.py).
    checkpoint: path of the training state (.npz), with history.csv beside it, in a folder of which one training at a
    time has the lock; written after the first step that ends SAVE_EVERY seconds after the last time (later where
    saving takes more than a tenth of that), and in the end. resume: go on from that file, bit for bit as if it had
    never stopped, with the generators that are attributes of the model's modules; refused for another model, other
    data or other settings.
    The history is a list with a dict for each epoch: epoch, lr, train_loss, train_accuracy, test_loss, test_accuracy,
    seconds. Ctrl-C and the signals that end a process (SIGTERM, SIGHUP, Windows' SIGBREAK) finish the step, save and
    raise Interrupted. A loss that is not finite raises MinivitError.

    Where N processes share the batches, each calls fit with the same arguments; the first prints and writes, and a
    file that it wrote is gone on from with any N. augment and loss get some rows of a batch, and an rng whose numbers
    for a row are those that one process would draw, where rows are the first axis; loss is a mean over the rows. What
    stops one process stops all of them after the same step.
    """
    check_whole("fit", "epochs", epochs, most=math.inf)
    check_whole("fit", "batch_size", batch_size, most=math.inf)
    if not len(train):
        raise MinivitError("fit", "there are no examples to learn from.")
    if not {id(p) for p in optimizer.parameters} <= {id(p) for p in model.parameters()}:
        raise MinivitError(
            "fit",
            "the optimizer changes parameters that the model does not have.",
            rule="the optimizer was made of this model's parameters.",
            hint="make it anew after the model: optim.AdamW(model.parameters(), lr=1e-3).",
        )
    processes, share = world(), Share(0, 0, 0)
    run = _Run(model, optimizer, average, np.random.default_rng(rng), processes)
    run.settings = _settings(train, epochs, batch_size, optimizer, label_smoothing, schedule, max_norm, average)
    run.counts = loss is None
    loss = loss or functools.partial(classification, label_smoothing=label_smoothing)

    def rate(step):
        return run.lr * (1.0 if schedule is None else schedule(step))

    if resume and checkpoint is None:
        raise MinivitError("fit", "resume=True, but no checkpoint is given.", hint="name the file to go on from.")
    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.together())
        if not processes.is_first:
            checkpoint, resume, verbose = None, False, False
        if checkpoint is not None:
            run.lock = stack.enter_context(locked(Path(checkpoint).parent))
            if resume:
                run.restore(checkpoint)
            elif (history := Path(checkpoint).with_name(HISTORY)).exists() and not is_history(history):
                raise FileError(history, "is not the history of a training.", hint="choose another folder.")
        if processes.size > 1:
            run.join()
            stack.enter_context(shared_out([run, *model.modules()], share))
        asked = stack.enter_context(deferred_signals())
        line = Line(epochs, len(train), run.epoch * len(train) + run.done, verbose)
        stack.enter_context(contextlib.closing(line))
        stack.enter_context(run.rate_put_back())
        model.train()
        run.saved = run.started = time.perf_counter()
        while run.epoch < epochs:
            if run.order is None:
                run.order, run.done, run.sums = run.rng.permutation(len(train)), 0, np.zeros(2)
                run.check_generators()
            while run.done < len(train):
                indices = run.order[run.done : run.done + batch_size]
                rows = processes.rows(len(indices))
                count = rows.stop - rows.start
                if not count:  # it goes along with a row of another, which counts as nothing
                    rows = slice(0, 1)
                share.start, share.stop, share.total = rows.start, rows.stop, len(indices)
                pixel_values, labels = train.batch(indices[rows])
                if augment is not None:
                    pixel_values = augment(pixel_values, run.rng)
                optimizer.lr = rate(run.step)
                value, correct = loss(model, pixel_values, labels, run.rng)
                stop = run.learn(value, correct, count, len(indices), max_norm, asked)
                if stop:
                    run.stop(checkpoint, epochs, asked)
                line.step(run, len(indices))
                if checkpoint is not None and run.is_due():
                    run.save(checkpoint)
            row = {"epoch": run.epoch + 1, "lr": rate(run.step - 1)}
            row["train_loss"], correct = (run.sums / len(train)).tolist()
            row["train_accuracy"] = None if math.isnan(correct) else correct
            if test is not None and len(test):
                with run.averaged():
                    measured = evaluate(model, test)
                row["test_loss"], row["test_accuracy"] = measured.loss, measured.accuracy
            run.check_weights()
            row["seconds"] = run.spent()
            run.history.append(row)
            run.epoch, run.order, run.seconds = run.epoch + 1, None, 0.0
            line.epoch(row)
            if checkpoint is not None and (run.epoch == epochs or run.is_due()):
                run.save(checkpoint)
            if processes.agree(bool(asked))[0] and run.epoch < epochs:
                run.stop(checkpoint, epochs, asked)
        processes.agree()  # that the last state was saved
    if average is not None:
        with average.applied():
            weights = model.state_dict()
        model.load_state_dict(weights, assign=True)
    return run.history


class _Run:
    """Everything that changes while fit runs, so that it can be saved and put back."""

    def __init__(self, model, optimizer, average, rng, processes):
        self.model, self.optimizer, self.average, self.rng = model, optimizer, average, rng
        self.processes = processes
        self.lr = optimizer.lr  # the base rate: the schedule changes optimizer.lr in each step
        self.epoch = self.step = self.done = 0  # epochs, steps, and examples of this epoch that are done
        self.order = None  # the order of the examples in this epoch
        self.sums = np.zeros(2)  # over the examples done: loss, and correct answers
        self.seconds = 0.0  # of this epoch, until `started`
        self.started = self.saved = time.perf_counter()
        self.cost = 0.0  # seconds that the last save took
        self.history = []
        self.settings = {}
        self.lock = None  # of the checkpoint's folder
        self.counts = True  # whether the loss is sure to count the right answers

    def _parts(self):
        parts = {"model": self.model, "optimizer": self.optimizer, "average": self.average}
        return {name: part for name, part in parts.items() if part is not None}

    def _generators(self):
        """The generators that are drawn from: fit's own and those of the model's modules, of dropout say, each once."""
        own = [x for m in self.model.modules() for x in vars(m).values() if isinstance(x, np.random.Generator)]
        return list({id(rng): rng for rng in [self.rng, *own]}.values())

    def spent(self):
        """Seconds of this epoch, those before an interruption too."""
        now = time.perf_counter()
        self.seconds, self.started = self.seconds + now - self.started, now
        return self.seconds

    def is_due(self):
        """Whether it is time to save."""
        return time.perf_counter() - self.saved > max(SAVE_EVERY, self.cost / SAVE_SHARE)

    def save(self, path):
        """Write the state, and history.csv beside it. FileError where the folder is not the one of the start."""
        self.check_weights()
        began = time.perf_counter()
        self.spent()
        state = self._state()
        self.lock.check()
        try:
            write_state(path, *state)
        except FileError:
            self.lock.check()  # it may have gone in between
            raise
        try:
            write_history(Path(path).with_name(HISTORY), self.history)
        except FileError as error:  # a spreadsheet has it open: what it would say is in the state, too
            warnings.warn(f"{error}", stacklevel=4)
        self.saved = time.perf_counter()
        self.cost = self.saved - began

    def _state(self):
        """(arrays, meta), as a file holds them."""
        arrays = {
            f"{name}/{key}": array for name, part in self._parts().items() for key, array in part.state_dict().items()
        }
        arrays["run/sums"] = self.sums
        if self.order is not None:
            arrays["run/order"] = self.order
        meta = {
            "settings": self.settings,
            "generators": [_plain(rng.bit_generator.state) for rng in self._generators()],
            "history": self.history,
            **{name: getattr(self, name) for name in ("lr", "epoch", "step", "done", "seconds")},
        }
        return arrays, meta

    def join(self):
        """Begin as the first of the processes does. MinivitError where this one has other data or settings."""
        first = self.processes.broadcast(self.settings)
        differ = [f"{k}: {first[k]} in the first, {own} in this" for k, own in self.settings.items() if first[k] != own]
        if differ:
            raise MinivitError(
                "fit",
                "\n    ".join(["the processes do not train the same:", *shortened(differ)]),
                rule="all processes of a training have the same model, data and settings.",
                hint="see that each machine has the same files, and the same minivit.",
            )
        arrays, meta = self._state() if self.processes.is_first else ({}, None)
        names, meta = self.processes.broadcast((list(arrays), meta))
        arrays = {name: self.processes.broadcast(arrays.get(name)) for name in names}
        if not self.processes.is_first:
            self._restore("the first process", arrays, meta)

    def check_generators(self):
        """Refuse to go on where the processes' generators are not alike any more."""
        if self.processes.size == 1:
            return
        copies = [np.random.Generator(copy.deepcopy(rng.bit_generator)) for rng in self._generators()]
        following = [rng.random(3, np.float32).tolist() for rng in copies]
        if any(numbers != following for numbers in self.processes.gather(following)):
            raise MinivitError(
                "fit",
                "the processes have not drawn as many random numbers as one another.",
                rule="augment, loss and modules draw arrays with a row for each example, or the same in each process.",
                hint="rng.normal(0, 1, (len(x), 3)) rather than (3, len(x)); or train with one process.",
            )

    def restore(self, path):
        """Go on from a state; FileError, with nothing changed, where it belongs to another run."""
        arrays, meta = read_state(path)
        if not meta:
            raise FileError(path, "holds weights only, no training to go on with.", hint="finetune from it instead.")
        before = {name: part.state_dict() for name, part in self._parts().items()}
        try:
            self._restore(path, arrays, meta)
        except Exception as error:
            for name, part in self._parts().items():
                part.load_state_dict(before[name])
            if isinstance(error, FileError):
                raise
            raise FileError(path, f"is damaged: {error!r:.300}.", hint="start anew in another folder.") from error

    def _restore(self, path, arrays, meta):
        then, now = meta["settings"], self.settings
        differ = [f"{name}: {then.get(name)} then, {now[name]} now" for name in now if then.get(name) != now[name]]
        drawn = [state["bit_generator"] for state in meta["generators"]]
        own = [type(rng.bit_generator).__name__ for rng in self._generators()]
        if drawn != own:
            differ.append(f"generators of the model's modules, and fit's: {drawn} then, {own} now")
        if differ:
            raise FileError(
                path,
                "\n    ".join(["belongs to another training:", *differ]),
                rule="a resumed training has the same model, data and settings as the one that was stopped.",
                hint="give the options of the first run, or start anew in another folder.",
            )
        if meta["lr"] != self.lr:
            raise ValueError(f"lr {meta['lr']!r:.50}")
        check_progress(arrays, meta, now["examples"], now["batch_size"], now["epochs"], self.counts)
        states = [_state_of(rng, state) for rng, state in zip(self._generators(), meta["generators"], strict=True)]
        for name, part in self._parts().items():
            part.load_state_dict({k.partition("/")[2]: a for k, a in arrays.items() if k.startswith(f"{name}/")})
        for rng, state in zip(self._generators(), states, strict=True):
            rng.bit_generator.state = state
        self.sums, self.order, self.history = arrays["run/sums"], arrays.get("run/order"), meta["history"]
        vars(self).update({name: meta[name] for name in ("lr", "epoch", "step", "done", "seconds")})

    def learn(self, loss, correct, count, total, max_norm, asked):
        """Backward and one step of the optimiser, for the mean over `total` examples, `count` of them of this process.

        Returns whether somebody asked one of the processes to stop. A loss that is not a number stops all of them
        before it spoils the weights.
        """
        value = loss.item()
        if math.isfinite(value):
            self.model.zero_grad()
            loss.backward(np.full_like(loss.data, count / total))
        learned, flat = self._gradients()
        right = np.nan if correct is None else correct if count else 0
        *sums, stop = self.processes.agree(value * count, right, bool(asked))
        if not math.isfinite(sums[0]):
            raise MinivitError(
                "fit",
                f"the loss became {sums[0] / total} in epoch {self.epoch + 1}, step {self.step + 1}.",
                rule="the loss is a finite number; after NaN every weight would be NaN too.",
                hint="use a lower lr, a warm-up, or max_norm=1 to clip gradients; look for NaN in the data. "
                "What was saved last is whole.",
            )
        self._add_up(learned, flat)
        if max_norm is not None:
            clip_grad_norm(self.optimizer.parameters, max_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        self.step += 1
        self.done += total
        self.sums += sums
        return stop

    def _gradients(self):
        """(parameters, their gradients as one array): one message, since each costs time however short it is."""
        learned = [parameter for parameter in self.optimizer.parameters if parameter.grad is not None]
        if self.processes.size == 1 or not learned:
            return [], None
        return learned, np.concatenate([parameter.grad.ravel() for parameter in learned])

    def _add_up(self, learned, flat):
        """Each gradient is the sum of the processes'."""
        if learned:
            self.processes.all_reduce(flat)
        place = 0
        for parameter in learned:
            part, place = flat[place : place + parameter.size], place + parameter.size
            parameter.grad = part.reshape(parameter.shape).astype(parameter.dtype, copy=False)

    def check_weights(self):
        """Refuse to keep weights that are not numbers: the last step may have spoiled them."""
        if not all(np.isfinite(parameter.data).all() for parameter in self.model.parameters()):
            raise MinivitError(
                "fit",
                f"weights became NaN or infinite in epoch {self.epoch + 1}.",
                hint="use a lower lr, a warm-up, or max_norm=1. What was saved last is whole.",
            )

    @contextlib.contextmanager
    def rate_put_back(self):
        """The schedule changes the optimiser's lr; after the block it is the base rate again, for the next call."""
        try:
            yield
        finally:
            self.optimizer.lr = self.lr

    def averaged(self):
        """`with run.averaged():` the model has the average of its weights, where one is kept."""
        return contextlib.nullcontext() if self.average is None else self.average.applied()

    def stop(self, checkpoint, epochs, asked):
        """After Ctrl-C or another signal, in one of the processes: save, and say how to go on."""
        number = max(self.processes.gather(asked[0] if asked else 0))
        if checkpoint is None:
            text = f"stopped in epoch {self.epoch + 1} of {epochs}; nothing was saved: no checkpoint is set."
        else:
            self.save(checkpoint)
            text = f"stopped in epoch {self.epoch + 1} of {epochs}, after step {self.step}; saved in {checkpoint}.\n"
            text += "  hint: the same call with resume=True (--resume on the command line) goes on from there."
        raise Interrupted(self.processes.broadcast(text), number)


def _state_of(rng, state):
    """A saved state of a generator, tried on a copy of it: what comes back must be what was put in."""
    copied = copy.deepcopy(rng.bit_generator)
    copied.state = state
    places = state["state"].get("pos", 0), state.get("buffer_pos", 0)  # into arrays of 624 and 4: NumPy does not look
    if _plain(copied.state) != state or not (0 <= places[0] <= 624 and 0 <= places[1] <= 4):
        raise ValueError(f"generators {state!r:.100}")
    return state


def _plain(state):
    """The state of a generator with lists for its arrays, as JSON holds it."""
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, (np.ndarray, np.generic)) else state


def _settings(train, epochs, batch_size, optimizer, label_smoothing, schedule, max_norm, average):
    """What a resumed training must have in common with the one it goes on with (the weights check themselves)."""
    numbers = {name: x for name, x in vars(optimizer).items() if isinstance(x, (float, tuple))}  # lr, betas, ...
    few, _ = train.batch(np.linspace(0, len(train) - 1, 8).astype(int))  # enough to tell other pictures apart
    return {
        "examples": len(train),
        "class_names": list(train.class_names),
        "labels": zlib.crc32(np.ascontiguousarray(train.labels)),
        "pictures": zlib.crc32(np.ascontiguousarray(few)),
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": f"{type(optimizer).__name__}, {', '.join(f'{k} {x}' for k, x in numbers.items())}",
        "learned": f"{sum(parameter.size for parameter in optimizer.parameters)} parameters",
        "label_smoothing": label_smoothing,
        "schedule": None if schedule is None else [float(f"{schedule(step):.6g}") for step in (0, 1, 10, 100)],
        "max_norm": max_norm,
        "average": None if average is None else average.decay,
    }


COLUMNS = ("epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds")


def write_history(path, history):
    """The history as a CSV file, one line an epoch."""
    with replacing(Path(path)) as (temporary,), temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def is_history(path):
    """Whether a file is one that write_history() wrote."""
    try:
        with open(regular(path), "rb") as file:
            return file.read(200).startswith(",".join(COLUMNS).encode())
    except OSError:
        return False
