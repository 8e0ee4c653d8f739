"""A plain formula, worked off in blocks that fit a cache, on all threads; the result is as if it were called once.

NumPy takes a formula of ten steps ten times through memory. Cut into blocks that stay in the cache from the first step
to the last, and given to all cores, it is several times as fast; and an op need not know. How the work is cut depends
on the work alone, never on the number of threads: see threads.py.

To learn how many results a formula has, how wide and of which dtype, it is called on no rows at all.
"""

import math

import numpy as np

from ..errors import ShapeError
from .fast import loop_of
from .products import rows
from .threads import cut, run

BLOCK = 2**18  # numbers in a block, 1 MB in float32: between shorter calls of NumPy, threads wait for each other
QUERIES = 192  # at least so many in a block of scores: adding up the keys' gradients costs the same for fewer


def in_dtype(*arrays):
    """The arrays in one dtype, the one that NumPy gives their sum: float16 at least. One array comes back as itself."""
    dtype = np.result_type(np.float16, *arrays)
    arrays = [x.astype(dtype, copy=False) for x in arrays]
    return arrays if len(arrays) > 1 else arrays[0]


def by_rows(formula, *arrays, sums=0, **given):
    """formula(*arrays, **given), some rows at a time.

    arrays: (..., n) each, with the same leading axes; formula gets them as (rows, n). It returns a tuple of arrays with
    a row for each row, or None; the last `sums` of them are sums over the rows instead. Returns that tuple, with the
    leading axes back.
    """
    leading, axes = arrays[0].shape[:-1], min(arrays[0].ndim, 1)  # a number has no axis to give back
    arrays = [rows(np.atleast_1d(x)) for x in arrays]
    parts = cut(len(arrays[0]), -(-max(x.size for x in arrays) // BLOCK))
    loop = loop_of(formula, arrays)
    if loop is not None:
        results = _looped(formula, loop, arrays, parts, given)
    elif len(parts) == 1:
        results = _checked(formula(*arrays, **given), len(arrays[0]), sums)
    else:
        results = _gathered(formula, arrays, parts, sums, given)
    stacked, added = results[: len(results) - sums], results[len(results) - sums :]
    return (*(x if x is None else x.reshape((*leading, *x.shape[1 : 1 + axes])) for x in stacked), *added)


def _checked(results, count, sums):
    """What a formula gave for so many rows, refused if it is no tuple with a row for each, but for the sums."""
    if not isinstance(results, tuple):
        fault = f"a {type(results).__name__}"
    else:
        stacked = [np.shape(x) for x in results[: len(results) - sums] if x is not None]
        fault = next((f"an array {shape} for {count} rows" for shape in stacked if shape[:1] != (count,)), None)
    if fault:
        raise ShapeError(
            "by_rows",
            f"the formula returned {fault}.",
            rule="it returns a tuple of arrays, each with a row for each row; the last `sums` are sums over the rows.",
            hint="return (y,) for one array; by_rows(formula, x, sums=1) where the last is a sum.",
        )
    return results


def _gathered(formula, arrays, parts, sums, given):
    """What by_rows does with more than one part."""
    kinds = _checked(formula(*(x[:0] for x in arrays), **given), 0, sums)
    count = len(kinds) - sums
    whole = [x if x is None else np.empty((len(arrays[0]), *x.shape[1:]), x.dtype) for x in kinds[:count]]
    added = [None] * len(parts)

    def work(number):
        results = formula(*(x[parts[number]] for x in arrays), **given)
        for x, block in zip(whole, results, strict=False):
            if x is not None:
                x[parts[number]] = block
        added[number] = results[count:]

    run(work, range(len(parts)))
    return (*whole, *(sum(terms) for terms in zip(*added, strict=True)))


def _looped(formula, loop, arrays, parts, given):
    """What by_rows does where the formula has a loop: each part of the results is written where it belongs."""
    kinds = formula(*(x[:0] for x in arrays), **given)
    whole = [x if x is None else np.empty((len(arrays[0]), *x.shape[1:]), x.dtype) for x in kinds]

    def work(part):
        results = [x if x is None else x[part] for x in whole]
        loop(*results, *(x[part] if x[part].flags.carray else x[part].copy() for x in arrays), **given)

    run(work, parts)
    return whole


def by_queries(formula, queries, keys):
    """formula(place, *queries, *keys) for attention: some queries at a time, each with all of its keys.

    queries: arrays (..., q, n), keys: arrays (..., k, n), with the same leading axes, of which the last is the heads.
    formula gets them as (B, h, rows, n): some images and heads, or some of the queries of one head. place is how many
    scores (B, h, q, k) come before those of the call, which follow one another. It returns two tuples: arrays with a
    row for each query, and arrays with a row for each key, which are added up over the queries. Returns two lists.
    """
    leading = queries[0].shape[:-2]
    queries, keys = ([_four(x) for x in arrays] for arrays in (queries, keys))
    (B, h, q, _), k = queries[0].shape, keys[0].shape[2]
    groups = _groups(B, h, q, k)
    if [len(parts) for _, parts in groups] == [1]:
        found = formula(0, *queries, *keys)
    else:
        kinds = formula(B * h * q * k, *(x[:0] for x in (*queries, *keys)))
        make = np.empty_like if groups else np.zeros_like  # of no queries, the keys' sums are 0
        found = [
            [make(like, r.dtype, shape=(*like.shape[:3], r.shape[3])) for r in kind]  # in memory as `like` is
            for kind, (like, *_) in zip(kinds, (queries, keys), strict=True)
        ]

        def work(number):
            heads, parts = groups[number]
            before = heads[0].start * h + heads[1].indices(h)[0]  # heads
            for i, part in enumerate(parts):
                asking, asked = (x[*heads, part] for x in queries), (x[heads] for x in keys)
                of_queries, of_keys = formula((before * q + part.start) * k, *asking, *asked)
                for x, block in zip(found[0], of_queries, strict=True):
                    x[*heads, part] = block
                for x, block in zip(found[1], of_keys, strict=True):
                    if i == 0:
                        x[heads] = block
                    else:
                        x[heads] += block

        run(work, range(len(groups)))
    return [[x.reshape(*leading, *x.shape[2:]) for x in results] for results in found]


def _four(x):
    """(..., rows, n) as (B, h, rows, n), whatever the leading axes."""
    leading = (1, 1, *x.shape[:-2])
    return x.reshape(math.prod(leading[:-1]), *leading[-1:], *x.shape[-2:])


def _groups(B, h, q, k):
    """The work of by_queries: [(heads, [queries, ...]), ...], a group for one thread, about BLOCK scores in a block."""
    if not B * h * q:
        return []
    parts = cut(q, -(-q // max(QUERIES, BLOCK // k)))
    many = max(1, BLOCK // (k * q))  # heads in a block
    if many < h:
        heads = [(slice(b, b + 1), some) for b in range(B) for some in cut(h, -(-h // many))]
    else:
        heads = [(images, slice(None)) for images in cut(B, -(-B // (many // h)))]
    return [(each, parts) for each in heads]


def in_blocks(change, *arrays, **numbers):
    """change(*blocks, **numbers), which writes into its arrays, for arrays of one shape, on all threads."""
    if arrays[0].ndim and arrays[0].size <= BLOCK:  # most are small, and there are many
        return change(*arrays, **numbers)
    # of rank 0 they become rank 1, since NumPy makes numbers of them, which have no place for out=
    arrays = [np.atleast_1d(array) for array in arrays]
    parts = cut(len(arrays[0]), -(-arrays[0].size // BLOCK))
    run(lambda part: change(*(array[part] for array in arrays), **numbers), parts)
