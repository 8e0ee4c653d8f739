"""The gradient-check cases: every op on odd, unequal and size-1 shapes, with broadcasting and with every option.

`minivit gradcheck` prints their table, and the tests check each of them. An op without a case is an error.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .. import ops
from ..autograd import REGISTRY
from ..errors import MinivitError
from ..gradcheck import compare


class Case(NamedTuple):
    """One call to check: fn's parameters are named as the op's arguments are; inputs(rng) draws their arrays."""

    label: str
    fn: Callable
    inputs: Callable


def normal(rng, shape):
    """Standard normal numbers."""
    return rng.standard_normal(shape)


def positive(rng, shape):
    """Numbers in [0.5, 2), where logarithms, roots, quotients and powers are smooth."""
    return rng.uniform(0.5, 2, shape)


def spaced(rng, shape):
    """Numbers at least 0.125 from each other and from 0: far from the kinks of max and relu."""
    n = math.prod(shape)
    return (rng.permutation(n) - n // 2 + 0.5).reshape(shape) / 4


def case(fn, *shapes, label=None, draw=normal, **options):
    """The Case fn(*arrays of these shapes, **options)."""
    label = ", ".join([label or fn.__name__, *map(str, shapes), *(f"{name}={options[name]}" for name in options)])
    return Case(label, functools.partial(fn, **options), lambda rng: [draw(rng, shape) for shape in shapes])


def _einsum(equation, *shapes):
    def one(x):
        return ops.einsum(equation, x)

    def two(x, y):
        return ops.einsum(equation, x, y)

    return case(one if len(shapes) == 1 else two, *shapes, label=f'einsum "{equation}"')


def _concatenate(*shapes, axis):
    def three(x, y, z):
        return ops.concatenate([x, y, z], axis)

    return case(three, *shapes, label=f"concatenate, axis={axis}")


def _where(condition, *shapes):
    def choose(x, y):
        return ops.where(condition, x, y)

    return case(choose, *shapes, label=f"where {condition}")


def _there_and_back(x):
    return ops.astype(ops.astype(x, np.float64), x.dtype)


def _stack(x, y, axis):
    return ops.stack([x, y], axis)


def _pieces(cut, *args):
    """The pieces weighted, so that a piece in another's place is seen."""

    def weighted(x):
        return ops.concatenate([(i + 1) * piece for i, piece in enumerate(cut(x, *args))], args[-1])

    return weighted


_BROADCAST = [((2, 3), (2, 3)), ((3, 1), (2, 1, 5)), ((4, 1, 3), (3,)), ((), (2,)), ((1, 1), ())]
_REDUCED = [((2, 3, 5), {}), ((2, 3, 5), {"axis": 1}), ((2, 3, 5), {"axis": (0, -1), "keepdims": True}), ((), {})]
_REDUCED += [((1, 4), {"axis": 0}), ((3, 1), {"axis": -1, "keepdims": True})]
_OVER = [{}, {"axis": 1}, {"axis": (0, -1), "keepdims": True}]
_EVERYWHERE = [(3, 5), (1,), ()]  # shapes for the ops that work element by element

CASES = {
    **{op: [case(getattr(ops, op), *shapes) for shapes in _BROADCAST] for op in ("add", "subtract", "multiply")},
    **{op: [case(getattr(ops, op), *shapes) for shapes in _BROADCAST] for op in ("maximum", "minimum")},
    "where": [
        _where([[True, False, True], [False, False, True]], (2, 3), (2, 3)),
        _where(np.array([[True], [False]]), (3,), (2, 1)),
        _where(True, (), (2,)),
    ],
    "masked_fill": [case(ops.masked_fill, (2, 3), mask=np.array([True, False, False]), value=-2.0)],
    "clip": [
        case(ops.clip, (3, 5), draw=spaced, min=-1, max=0.5),
        case(ops.clip, (3, 5), draw=spaced, max=0.25),
        case(ops.clip, (3, 5), (5,), (3, 1), label="clip between tensors"),
    ],
    "divide": [case(ops.divide, *shapes, draw=positive) for shapes in _BROADCAST],
    "power": [
        *(case(ops.power, *shapes, draw=positive) for shapes in _BROADCAST),
        *(case(ops.power, (2, 5), y=y) for y in (0, 1, 2, 3)),  # integer powers of negative numbers
    ],
    **{op: [case(getattr(ops, op), s) for s in _EVERYWHERE] for op in ("negative", "exp", "tanh", "gelu", "gelu_tanh")},
    **{op: [case(getattr(ops, op), s) for s in _EVERYWHERE] for op in ("sigmoid", "silu", "clone")},
    "astype": [case(_there_and_back, s, label="astype, there and back") for s in _EVERYWHERE],
    **{op: [case(getattr(ops, op), s, draw=positive) for s in _EVERYWHERE] for op in ("log", "sqrt")},
    **{op: [case(getattr(ops, op), s, draw=spaced) for s in _EVERYWHERE] for op in ("relu", "abs")},
    **{
        op: [case(getattr(ops, op), shape, draw=spaced, **options) for shape, options in _REDUCED]
        for op in ("sum", "mean", "max", "min")
    },
    **{
        op: [case(getattr(ops, op), (2, 3, 5), correction=n, **options) for n in (0, 1) for options in _OVER]
        for op in ("var", "std")
    },
    "logsumexp": [case(ops.logsumexp, (2, 3, 5), **{"axis": None} | options) for options in _OVER],
    "reshape": [
        case(ops.reshape, before, shape=after)
        for before, after in (((2, 3, 5), (5, 6)), ((2, 3, 5), (3, -1, 1, 2)), ((1, 1), ()), ((), (-1,)))
    ],
    "transpose": [case(ops.transpose, (2, 3, 5), axes=axes) for axes in (None, (0, 2, 1), (2, 0, 1), (-1, 0, -2))],
    "swapaxes": [case(ops.swapaxes, (2, 3, 5), axis1=i, axis2=j) for i, j in ((0, 1), (-1, 0), (1, 1))],
    "flatten": [
        case(ops.flatten, shape, **options)
        for shape, options in (
            ((2, 3, 5), {}),
            ((2, 3, 5), {"start_dim": 1}),
            ((2, 3, 1, 5), {"start_dim": -3, "end_dim": 2}),
            ((), {}),
        )
    ],
    "squeeze": [case(ops.squeeze, (1, 3, 1), axis=axis) for axis in (None, 0, -1, (0, 2))],
    "unsqueeze": [case(ops.unsqueeze, (2, 3), axis=axis) for axis in (0, 1, -1)],
    "stack": [case(_stack, (2, 3), (2, 3), label="stack", axis=axis) for axis in (0, 1, -1)],
    "split": [case(_pieces(ops.split, [1, 0, 4], 1), (2, 5), label="split, sizes=[1, 0, 4], axis=1")],
    "chunk": [case(_pieces(ops.chunk, 3, -2), (2, 6, 3), label="chunk, chunks=3, axis=-2")],
    "getitem": [
        case(ops.getitem, (4, 1, 5), index=index)
        for index in (
            2,
            (slice(None), 0, slice(None, None, -2)),
            (..., None, -1),
            [3, 0, 0, 3],
            np.array([[1, 1], [-1, 3]]),
            (slice(1, 3), np.zeros(2, int), np.array([4, 4])),
            np.array([True, False, False, True]),
            ((1, 1), 0),
        )
    ],
    "concatenate": [
        _concatenate((2, 3), (1, 3), (4, 3), axis=0),
        _concatenate((2, 3, 1), (2, 1, 1), (2, 4, 1), axis=1),
        _concatenate((2, 3), (2, 1), (2, 5), axis=-1),
    ],
    "expand": [
        case(ops.expand, before, shape=after) for before, after in (((3, 1), (2, 3, 5)), ((1, 4), (3, -1)), ((), (2,)))
    ],
    "matmul": [
        case(ops.matmul, *shapes)
        for shapes in (
            ((3, 4), (4, 5)),
            ((2, 3, 4), (4, 1)),
            ((3, 4), (2, 4, 5)),
            ((2, 1, 3, 4), (5, 4, 1)),
            ((4,), (4,)),
            ((4,), (2, 4, 3)),
            ((2, 3, 4), (4,)),
            ((1, 1), (1, 1)),
        )
    ],
    "einsum": [
        _einsum("qhd,khd->qhk", (3, 2, 5), (4, 2, 5)),
        _einsum("qhk,khd->qhd", (3, 2, 4), (4, 2, 5)),
        _einsum("nhn,nhd->nhd", (3, 2, 3), (3, 2, 5)),  # the diagonal of the notebook's scores
        _einsum("...qd,...kd->...qk", (2, 1, 3, 5), (4, 6, 5)),
        _einsum("ij,jk->ik", (3, 1), (5, 4)),  # size 1 is stretched, and summed over
        _einsum("ij,jk->ik", (3, 5), (1, 4)),
        _einsum("aib,cj->ij", (2, 3, 4), (5, 1)),
        _einsum("iij,jj->j", (3, 3, 4), (4, 4)),
        _einsum("i,j", (3,), (4,)),
        _einsum("i,i->", (3,), (3,)),
        _einsum(",ij->ji", (), (2, 3)),
        _einsum("ijk->kij", (2, 3, 4)),
        _einsum("ii->i", (3, 3)),
        _einsum("iijj", (3, 3, 2, 2)),
        _einsum("i...j->...", (2, 3, 4)),
    ],
    "linear": [
        case(ops.linear, (2, 3, 5), (4, 5), (4,)),
        case(ops.linear, (3, 5), (1, 5)),
        case(ops.linear, (5,), (4, 5), (4,)),
        case(ops.linear, (1, 1), (1, 1), (1,)),
    ],
    "conv2d": [
        case(ops.conv2d, (2, 3, 6, 4), (5, 3, 3, 2), (5,), stride=(3, 2)),  # patches
        case(ops.conv2d, (2, 1, 8, 7), (2, 1, 3, 3), (2,), stride=3),  # patches that leave pixels over
        case(ops.conv2d, (1, 2, 5, 7), (3, 2, 2, 3)),  # overlapping windows
        case(ops.conv2d, (2, 2, 7, 6), (3, 2, 3, 2), (3,), stride=(2, 1)),
        case(ops.conv2d, (1, 1, 5, 7), (2, 1, 1, 2), stride=3),  # gaps between the windows
    ],
    "layer_norm": [
        case(ops.layer_norm, (2, 3, 5), (5,), (5,)),
        case(ops.layer_norm, (4,), (4,), (4,), eps=0.5),
        case(ops.layer_norm, (3, 1), (1,), (1,)),
    ],
    **{
        op: [case(getattr(ops, op), shape, axis=axis) for shape, axis in (((2, 3, 5), -1), ((4, 1, 3), 0), ((3, 1), 1))]
        for op in ("softmax", "log_softmax")
    },
    "dropout": [
        case(ops.dropout, (4, 5), p=0.4, rng=1),
        case(ops.dropout, (3,), p=1, rng=1),
        case(ops.dropout, (3, 1), p=0.4, rng=1, training=False),
    ],
    "cross_entropy": [
        case(ops.cross_entropy, (3, 5), labels=np.array([4, 0, 4])),
        case(ops.cross_entropy, (4, 2), labels=np.array([1, 0, 0, 1]), label_smoothing=0.1),
        case(ops.cross_entropy, (1, 3), labels=np.array([2]), label_smoothing=1.0),
        case(ops.cross_entropy, (2, 1), labels=np.array([0, 0])),
    ],
    "binary_cross_entropy": [
        case(ops.binary_cross_entropy, (3, 2), labels=np.array([[1.0, 0.0], [0.25, 1.0], [0.0, 0.0]])),
        case(ops.binary_cross_entropy, (2, 1), labels=np.array([0.0, 1.0])),
    ],
    "mean_squared_error": [
        case(ops.mean_squared_error, (3, 2), labels=np.array([[1.5, 0.0], [0.25, -1.0], [0.0, 7.0]])),
        case(ops.mean_squared_error, (2, 1), labels=np.array([0.5, 1.0])),
    ],
    "scaled_dot_product_attention": [
        case(ops.scaled_dot_product_attention, (2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 7)),
        case(ops.scaled_dot_product_attention, (5, 3), (5, 3), (5, 3), dropout_p=0.4, rng=1),
        case(ops.scaled_dot_product_attention, (2, 1, 3), (2, 4, 3), (2, 4, 1)),
        case(ops.scaled_dot_product_attention, (1, 2, 1), (1, 1, 1), (1, 1, 2)),
    ],
}


def table(rng=0):
    """Check every op of minivit on all its cases: (op, argument, worst relative error) rows, in the registry's order.

    What is made of other ops comes last. The error is gradcheck's, with rtol=1e-6. MinivitError when an op has no case.
    """
    rng = np.random.default_rng(rng)
    names = [name.rpartition(".")[2] for name in REGISTRY if name.startswith("minivit.")]
    without = [name for name in names if name not in CASES]
    if without:
        raise MinivitError("gradcheck", f"no case for {', '.join(without)}.", hint="add one to course/cases.py.")
    ops_in_order = dict.fromkeys([*names, *CASES])  # those of the registry, then those that are made of others
    return [(name, argument, worst) for name in ops_in_order for argument, worst in errors(name, rng).items()]


def errors(op, rng):
    """{argument: its worst relative error in all cases of the op}, as in table."""
    worst = {}
    for each in CASES[op]:
        for found in compare(each.fn, *each.inputs(rng), rtol=1e-6, rng=rng):
            worst[found.argument] = max(found.worst, worst.get(found.argument, 0.0))
    return worst
