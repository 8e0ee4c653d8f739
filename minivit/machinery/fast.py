"""Which formula has a compiled loop; it is used where the extra `fast` (numba) is installed.

NumPy takes a formula of ten steps ten times over its arrays; a loop does all ten to one number while it is at hand. The
formulas stay the definition: a loop of loops.py says the same, to rounding, and blocks.py calls it in their place.
MINIVIT_FAST=0 in the environment of Python switches them off. numba is imported by the first formula that has a loop.
"""

import contextlib
import functools
import os

import numpy as np

LOOPS = {"minivit.ops.gelu.gelu.<locals>.forward": "gelu"}  # only what takes a tenth off some row of the benchmark
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


@functools.cache
def loops():
    """The module of the loops; None where numba is not installed, or MINIVIT_FAST=0."""
    if os.environ.get("MINIVIT_FAST") != "0":
        with contextlib.suppress(ImportError):
            from . import loops

            return loops
    return None


def loop_of(formula, arrays):
    """The loop in the place of a formula on these arrays, or None.

    It takes the arrays to write its results into, then what the formula takes. All are of one dtype, C-contiguous and
    writeable: for each other kind of array numba would compile it anew.
    """
    name = LOOPS.get(f"{formula.__module__}.{formula.__qualname__}") if hasattr(formula, "__qualname__") else None
    if name is None or loops() is None or arrays[0].dtype not in DTYPES:
        return None
    return getattr(loops(), name)
