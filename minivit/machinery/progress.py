"""How a training goes, for somebody who watches: loss, accuracy, pictures a second and the time that is left."""

import contextlib
import math
import os
import shutil
import sys
import time

# no training is lost for its line: the terminal may be closed meanwhile, or the disk full that the lines are written to
_AS_FAR_AS_POSSIBLE = contextlib.suppress(OSError, ValueError)


class Line:
    """How it goes: a live line on a terminal (tqdm's where it is installed), one plain line an epoch elsewhere.

    epochs: of the whole training; examples: in an epoch; done: examples before this start; verbose: False is silent.
    """

    BAR = "{desc}  |{bar}| {rate_fmt}  {remaining} left"
    BESIDE = 40  # columns that all but {desc} takes, with a rate of 1234.56 and hours that are left

    def __init__(self, epochs, examples, done, verbose=True):
        self.epochs, self.total, self.first, self.done = epochs, epochs * examples, done, done
        self.started = self.shown = time.perf_counter()
        self.tested, self.bar, self.width = "", None, 0
        self.verbose = verbose
        self.live = verbose and getattr(sys.stderr, "isatty", bool)() and _columns() >= 40
        if self.live:
            with contextlib.suppress(ImportError), _AS_FAR_AS_POSSIBLE:
                from tqdm import tqdm

                self.bar = tqdm(
                    total=self.total, initial=done, unit=" images", bar_format=self.BAR, ncols=_columns() - 1
                )

    def step(self, run, count):
        """After each step."""
        self.done += count
        now = time.perf_counter()
        if not self.live or (now - self.shown < 0.1 and self.done < self.total):
            return
        self.shown = now
        loss, correct = run.sums / run.done
        parts = [f"epoch {run.epoch + 1}/{self.epochs}", f"loss {loss:.4f}", _percent("accuracy", correct), self.tested]
        room = _columns() - 1  # a full line would make some terminals begin the next
        if self.bar is not None:
            with _AS_FAR_AS_POSSIBLE:
                self.bar.ncols = room
                self.bar.set_description_str(_joined(parts, room - self.BESIDE), refresh=False)
                self.bar.update(self.done - self.bar.n)
            return
        self._write(*parts)

    def _write(self, *parts):
        """The live line, with rate and time left behind what fits of the parts."""
        room, seconds = _columns() - 1, max(time.perf_counter() - self.started, 1e-9)
        rate = (self.done - self.first) / seconds
        end = f"  {rate:.{0 if rate >= 10 else 1}f} images/s  {(self.total - self.done) / rate:.0f} s left"
        text = _joined(parts, room - len(end)) + end
        with _AS_FAR_AS_POSSIBLE:
            sys.stderr.write("\r" + text.ljust(min(self.width, room)))
            sys.stderr.flush()
        self.width = len(text)

    def looked(self, count):
        """After each pictures that are only looked at, once."""
        self.done += count
        now = time.perf_counter()
        if not self.live or (now - self.shown < 0.1 and self.done < self.total):
            return
        self.shown = now
        if self.bar is not None:
            with _AS_FAR_AS_POSSIBLE:
                self.bar.update(self.done - self.bar.n)
            return
        self._write(f"picture {self.done} of {self.total}")

    def epoch(self, row):
        """After each epoch."""
        self.tested = _percent("test accuracy", row.get("test_accuracy"))
        if self.verbose and not self.live:
            parts = [f"epoch {row['epoch']}/{self.epochs}", f"loss {row['train_loss']:.4f}"]
            parts += [_percent("accuracy", row["train_accuracy"]), self.tested, f"{row['seconds']:.1f} s"]
            with _AS_FAR_AS_POSSIBLE:
                print(*filter(None, parts), sep="  ", flush=True)

    def close(self):
        """Leave the live line."""
        with _AS_FAR_AS_POSSIBLE:
            if self.bar is not None:
                self.bar.close()
            elif self.live:
                sys.stderr.write("\n")


def _columns():
    """Those of the terminal that stderr is; standard output may be another one, or a file."""
    with contextlib.suppress(OSError, ValueError):
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
        if columns:
            return columns
    return shutil.get_terminal_size().columns


def _joined(parts, width):
    """What fits of (epoch, loss, accuracy, test accuracy): the accuracy goes first, the epoch last."""
    parts = [part for part in parts if part]
    while parts and len("  ".join(parts)) > width:
        del parts[min(2, len(parts) - 1)]
    return "  ".join(parts)


def _percent(name, share):
    return "" if share is None or math.isnan(share) else f"{name} {share:.2%}"
