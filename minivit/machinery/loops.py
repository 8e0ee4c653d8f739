"""Some formulas of ops/ as loops over their numbers, compiled by numba: fast.py says which.

A loop has the name and the arguments of its formula; before them come the arrays that it writes its results into.
F is the dtype, float32 or float64: a Python number beside a float32 would make a float64 of both.
"""

import math

import numba
import numpy as np
from numba.extending import overload

from .normal import POWERS, POWERS_FLOAT32


def compiled(function):
    """The function, compiled when it is first called with a dtype, and kept on disk for the next process.

    nogil: threads run it at the same time. error_model: x / 0 is infinity, as in NumPy, and no exception, whose check
    would stand in the way of the processor's vectors. contract: a product and a sum may round once; unlike the rest of
    fastmath it changes nothing of what becomes of infinity and NaN.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither this folder nor the user's cache can be written to
        return numba.njit(**options)(function)


@compiled
def exp_float32(x):
    """e^x to 3e-7 of itself, for x <= 88, in steps that a processor does to eight numbers at once; 0 below 1e-38.

    x = n log 2 + r with a whole number n, so e^x = 2^n e^r, and of e^r Taylor's series is enough.
    """
    F = np.float32
    # so large a number has no digits behind the point, and its last bits are n + 127: as a float's exponent has it
    shifted = F(x * F(1 / math.log(2)) + F(3 * 2**22 + 127))
    n = shifted - F(3 * 2**22 + 127)
    r = x - n * F(0.693145751953125) - n * F(1.428606765330187e-06)  # log 2 in two parts: the first times n is exact
    power = F(1 / 720)
    for coefficient in (F(1 / 120), F(1 / 24), F(1 / 6), F(1 / 2), F(1), F(1)):  # Horner
        power = power * r + coefficient
    two_to_n = np.int32(shifted.view(np.int32) << 23).view(np.float32)
    return F(0) if x < F(-87.3) else power * two_to_n


def exp(x):
    """e^x in a loop: of a float64 it is the C library's."""
    return math.exp(x)


@overload(exp)
def _exp(x):
    return (lambda x: exp_float32(x)) if x == numba.float32 else exp


def erfc_polynomial(t):
    """The polynomial of normal.py in a loop, with as many terms as the dtype has use for."""
    return np.polyval(POWERS, t)


@overload(erfc_polynomial)
def _erfc_polynomial(t):
    powers = np.array(POWERS_FLOAT32 if t == numba.float32 else POWERS, t.name)

    def horner(t):
        y = powers[0]
        for i in range(1, len(powers)):
            y = y * t + powers[i]
        return y

    return horner


@compiled
def gelu(y, slope, x, learning):
    """y = x * Phi(x), slope = Phi(x) + x * phi(x), with Phi and phi as normal.py has them."""
    F = x.dtype.type
    x, y = x.ravel(), y.ravel()
    if slope is not None:
        slopes = slope.ravel()
    for i in range(len(x)):
        z = abs(x[i])
        r = F(math.sqrt(8)) / (z + F(math.sqrt(8)))
        density = exp(F(-0.5) * z * z)
        tail = erfc_polynomial(F(1) - F(2) * r) * r * density
        cdf = F(1) - tail if x[i] >= 0 else tail
        y[i] = x[i] * cdf
        if slope is not None:
            slopes[i] = cdf + x[i] * density * F(1 / math.sqrt(2 * math.pi))
