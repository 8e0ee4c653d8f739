"""How a training goes, for somebody who watches: loss, accuracy, pictures a second and the time that is left."""

import contextlib
import math
import shutil
import sys
import time


class Line:
    """How it goes: a live line on a terminal (tqdm's where it is installed), one plain line an epoch elsewhere.

    epochs: of the whole training; examples: in an epoch; done: examples before this start; verbose: False is silent.
    """

    def __init__(self, epochs, examples, done, verbose=True):
        self.epochs, self.total, self.first, self.done = epochs, epochs * examples, done, done
        self.started = self.shown = time.perf_counter()
        self.tested, self.bar, self.width = "", None, 0
        self.verbose = verbose
        self.live = verbose and sys.stderr.isatty() and shutil.get_terminal_size().columns >= 40
        if self.live:
            with contextlib.suppress(ImportError):
                from tqdm import tqdm

                self.bar = tqdm(total=self.total, initial=done, unit=" images", dynamic_ncols=True)

    def step(self, run, count):
        """After each step."""
        self.done += count
        now = time.perf_counter()
        if not self.live or (now - self.shown < 0.1 and self.done < self.total):
            return
        self.shown = now
        loss, correct = run.sums / run.done
        text = f"epoch {run.epoch + 1}/{self.epochs}  loss {loss:.4f}{_percent('accuracy', correct)}{self.tested}"
        if self.bar is not None:
            self.bar.set_description_str(text, refresh=False)
            self.bar.update(self.done - self.bar.n)
            return
        rate = (self.done - self.first) / max(now - self.started, 1e-9)
        text += f"  {rate:.0f} images/s  {(self.total - self.done) / rate:.0f} s left"
        sys.stderr.write("\r" + text.ljust(self.width))
        self.width = len(text)
        sys.stderr.flush()

    def epoch(self, row):
        """After each epoch."""
        self.tested = _percent("test accuracy", row.get("test_accuracy"))
        if self.verbose and not self.live:
            trained = f"loss {row['train_loss']:.4f}{_percent('accuracy', row['train_accuracy'])}"
            print(f"epoch {row['epoch']}/{self.epochs}  {trained}{self.tested}  {row['seconds']:.1f} s", flush=True)

    def close(self):
        """Leave the live line."""
        if self.bar is not None:
            self.bar.close()
        elif self.live:
            sys.stderr.write("\n")


def _percent(name, share):
    return "" if share is None or math.isnan(share) else f"  {name} {share:.2%}"
