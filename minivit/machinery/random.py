"""Chance that repeats: the package's own generator, for whoever is made without one."""

import threading

import numpy as np

from ..errors import check_whole

_lock = threading.Lock()
_package = np.random.SeedSequence(0)


def manual_seed(seed):
    """Start the package's generator anew: what is made after it with rng=None gets the same numbers each time.

    seed: a whole number, 0 to 2**64 - 1; `import minivit` is manual_seed(0). What was made before keeps its own
    generator, and what takes a seed or a Generator of its own does not care.
    """
    global _package
    check_whole("manual_seed", "seed", seed, least=0, most=2**64 - 1)
    with _lock:
        _package = np.random.SeedSequence(int(seed))


def generator(rng=None):
    """The np.random.Generator that `rng` stands for: itself, that of a seed, or for None the package's next child.

    Children are independent streams: two layers made one after the other differ, and a Dropout draws from a generator
    that nobody else moves on, so that its state can be saved. Threads may ask at the same time, and no two get the
    same child; which of them gets which is a matter of who comes first.
    """
    if rng is not None:
        return np.random.default_rng(rng)
    with _lock:
        return np.random.default_rng(_package.spawn(1)[0])
