"""Matrix products, the large ones shared out to all cores, and sums over rows, at which BLAS is faster than NumPy."""

import math

import numpy as np

from .threads import cut, hold_blas, run

PRODUCT = 12 * 10**6  # multiply-adds, 0.3 ms on one core, that a part of a product has; below twice that none is cut


def product(x, y, bias=None):
    """x @ y + bias: the rows of x, whatever its leading axes, times one matrix.

    x: (..., k), y: (k, n), bias: (n,) or None.  Returns (..., n).
    """
    return products((rows(x), y, bias))[0].reshape(*x.shape[:-1], y.shape[1])


def batched(x, y):
    """x @ y as NumPy has it: two matrices as in product, batches of them and vectors on the thread that calls."""
    if x.ndim == y.ndim == 2:
        return product(x, y)
    hold_blas()
    return x @ y


def rows(x):
    """(..., n) -> (rows, n): an array as one matrix, without a copy where its memory allows it."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def total(x):
    """The sum over all rows: (..., n) -> (n,)."""
    x = rows(x)
    hold_blas()
    return np.ones(len(x), x.dtype) @ x


def products(*factors):
    """[x @ y + bias, ...] for matrices (x, y) or (x, y, bias): together they may be large enough for all threads."""
    jobs = []
    for x, y, bias in ((*factor, None)[:3] for factor in factors):
        dtype = np.result_type(x, y) if bias is None else np.result_type(x, y, bias)
        jobs.append((x, y, bias, np.empty((len(x), y.shape[1]), dtype)))
    results = [out for *_, out in jobs]
    if sum(len(x) * y.size for x, y, *_ in jobs) < 2 * PRODUCT:
        run(_multiply, [jobs])
    else:
        run(_multiply, [[part] for job in jobs for part in _parts(*job, len(jobs))])
    return results


def _parts(x, y, bias, out, count):
    """One of `count` products, cut along the longer side of its result into parts as _multiply takes them."""
    m, n = out.shape
    # BLAS packs the other matrix anew for each part: so there are few
    several = cut(max(m, n), min(len(x) * y.size // PRODUCT, max(4, max(m, n) // 384) // count))
    if m >= n:
        return [(x[part], y, bias, out[part]) for part in several]
    return [(x, y[:, part], None if bias is None else bias[part], out[:, part]) for part in several]


def _multiply(jobs):
    """What one thread does without waiting: out = x @ y + bias for each (x, y, bias, out)."""
    for x, y, bias, out in jobs:
        np.matmul(x, y, out=out)
        if bias is not None:
            out += bias
