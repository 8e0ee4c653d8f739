"""Which formula has a compiled loop, and whether it is used: where the extra `fast` (numba) is installed.

NumPy takes a formula of ten steps ten times over its arrays; a loop does all ten to one number while it is at hand. The
formulas stay the definition: a loop of loops.py says the same, to rounding, and blocks.py calls it in their place.
MINIVIT_FAST=0 in the environment of Python switches them off. numba is imported by the first formula that has a loop.
"""

import contextlib
import functools
import os

import numpy as np

# Each of them takes a tenth or more off the time of some row of the benchmark; what does not has no loop.
LOOPS = {
    "minivit.ops.gelu.gelu.<locals>.forward": "gelu",
    "minivit.ops.layer_norm.layer_norm.<locals>.forward": "layer_norm",
    "minivit.ops.layer_norm.layer_norm.<locals>.backward.<locals>.of_tokens": "layer_norm_backward",
}
DTYPES = {np.dtype(np.float32), np.dtype(np.float64)}


@functools.cache
def loops():
    """The module of the loops; None where numba is not installed, or MINIVIT_FAST=0."""
    if os.environ.get("MINIVIT_FAST") != "0":
        with contextlib.suppress(ImportError):
            from . import loops

            return loops
    return None


def loop_of(formula, arrays, given=None):
    """The loop in the place of a formula on these arrays, with what else it is given (a dict); or None.

    It takes the arrays to write its results into, then what the formula takes: all C-contiguous, of one dtype.
    """
    name = LOOPS.get(f"{formula.__module__}.{formula.__qualname__}") if hasattr(formula, "__qualname__") else None
    if name is None or loops() is None:
        return None
    dtypes = {x.dtype for x in (*arrays, *(given or {}).values()) if isinstance(x, np.ndarray)}
    return getattr(loops(), name) if len(dtypes) == 1 and dtypes <= DTYPES else None


def settled(x):
    """x; an array with its numbers one after the other, writeable: for each other kind numba would compile anew."""
    return x.copy() if isinstance(x, np.ndarray) and not x.flags.carray else x
