"""Chance that repeats: the package's own generator, for whoever is made without one; and one for a share of a batch."""

import contextlib
import functools
import math
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


def generator_at(seed, place):
    """The generator of a seed as it is after `place` float32 numbers of random()."""
    rng = np.random.default_rng(seed)
    rng.bit_generator.advance(place // 2)  # 64 bits are two of them
    if place % 2:
        rng.random(dtype=np.float32)
    return rng


class Share:
    """Rows start to stop of a batch of `total`, those of one process; other ones in each step."""

    def __init__(self, start, stop, total):
        self.start, self.stop, self.total = start, stop, total


class SharedGenerator(np.random.Generator):
    """Draws for the whole batch, and gives the rows of one process.

    So an example gets the same numbers however many processes share the batch, and the generators of all of them move
    on alike. What has as many rows on its first axis as the share is of the batch; all else is drawn as ever.
    """

    def __init__(self, bit_generator, share):
        super().__init__(bit_generator)
        self.share = share

    def random(self, size=None, dtype=np.float64, out=None):
        """As Generator.random. PCG64 skips the numbers of other rows, faster than to draw them: most are dropout's."""
        whole = None if out is not None else self._whole(size)
        if whole is None:
            return super().random(size, dtype, out)
        if not isinstance(self.bit_generator, (np.random.PCG64, np.random.PCG64DXSM)):
            return super().random(whole, dtype)[self.share.start : self.share.stop]
        row = math.prod(whole[1:])
        self._skip(self.share.start * row, dtype)
        drawn = super().random(size, dtype)
        self._skip((self.share.total - self.share.stop) * row, dtype)
        return drawn

    def _skip(self, count, dtype):
        """Leave the bit generator as so many numbers of random() would."""
        bits, state = self.bit_generator, self.bit_generator.state
        if np.dtype(dtype) == np.float64:
            bits.advance(count)  # which forgets the half that is kept of 64 bits after an odd number of float32
            bits.state = bits.state | {name: state[name] for name in ("has_uint32", "uinteger")}
            return
        if count and state["has_uint32"]:  # the other half of 64 bits is next
            super().random(dtype=dtype)
            count -= 1
        if count > 1:
            bits.advance(count // 2)
        if count % 2:
            super().random(dtype=dtype)

    def _whole(self, size):
        """The size for all rows of the batch; None where it is not of the share's rows."""
        share, size = self.share, tuple(np.atleast_1d(size).tolist())
        return (share.total, *size[1:]) if size[:1] == (share.stop - share.start,) else None


def _of_the_batch(name, before):
    """SharedGenerator's method for Generator's of this name, which takes so many arguments before the size."""
    plain = getattr(np.random.Generator, name)

    @functools.wraps(plain)
    def draw(self, *args, **kwargs):
        size = args[before] if len(args) > before else kwargs.pop("size", None)
        whole = self._whole(size)
        if len(args) > before:
            args = (*args[:before], size if whole is None else whole, *args[before + 1 :])
        else:
            kwargs["size"] = size if whole is None else whole
        drawn = plain(self, *args, **kwargs)
        return drawn if whole is None else drawn[self.share.start : self.share.stop]

    return draw


for _before, _names in enumerate((["standard_normal"], ["exponential"], ["beta", "integers", "normal", "uniform"])):
    for _name in _names:
        setattr(SharedGenerator, _name, _of_the_batch(_name, _before))


@contextlib.contextmanager
def shared_out(holders, share):
    """`with shared_out(holders, share):` the generators among these objects' attributes are SharedGenerators."""
    named = [(vars(holder), key, value) for holder in holders for key, value in vars(holder).items()]
    held = [(attributes, key, rng) for attributes, key, rng in named if isinstance(rng, np.random.Generator)]
    made = {id(rng): SharedGenerator(rng.bit_generator, share) for _, _, rng in held}
    for attributes, key, rng in held:
        attributes[key] = made[id(rng)]
    try:
        yield
    finally:
        for attributes, key, rng in held:
            attributes[key] = rng


def first_row(rng):
    """How many rows of the batch come before those that rng draws for."""
    return rng.share.start if isinstance(rng, SharedGenerator) else 0
