"""Attention, twice: the fused one equals the readable one, and holds no T x T matrix for all heads."""

import math
import sys
import tracemalloc

import numpy as np
import pytest

from minivit import Tensor, gradcheck, no_grad, ops
from minivit.errors import MinivitError, ShapeError
from minivit.machinery import blocks
from minivit.machinery.random import Share, SharedGenerator

ROOM = sys.modules["minivit.ops.attention"]  # ops.attention is the function


def drawn(rng, leading, queries, keys, size, value_size=None):
    shapes = (queries, size), (keys, size), (keys, value_size or size)
    return [rng.standard_normal((*leading, *shape)) for shape in shapes]


@pytest.fixture(params=[2**20, 70, 20, 1], ids=lambda block: f"block {block}")
def block(request, monkeypatch):
    """All heads at once; three heads of 4 x 5 and of 23 scores; a few queries; a single query.

    The smaller two keep no probabilities for backward, as where tokens are many.
    """
    monkeypatch.setattr(blocks, "BLOCK", request.param)
    monkeypatch.setattr(blocks, "QUERIES", 1)
    monkeypatch.setattr(ROOM, "KEEP", 0 if request.param < 70 else 2**22)
    return request.param


SHAPES = {
    "one head": ((), 4, 5, 3),
    "heads": ((7,), 4, 5, 3),
    "batch and heads": ((2, 3), 4, 5, 3, 2),
    "queries are many": ((3,), 11, 6, 2, 5),
    "keys are many": ((2, 2), 3, 23, 4),
    "one token": ((2, 3), 1, 1, 4),
    "size 1": ((1, 1), 5, 7, 1),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_fused_is_readable(shape, block, rng, assert_same):
    arrays = drawn(rng, *shape)
    assert_same(ops.scaled_dot_product_attention, lambda q, k, v: ops.attention(q, k, v)[0], *arrays)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_gradient_with_dropout(shape, block, rng):
    q, k, v = drawn(rng, *shape)

    def dropped(q, k, v):
        return ops.scaled_dot_product_attention(q, k, v, 0.4, 3)

    assert gradcheck(dropped, q, k, v, directions=3, rtol=1e-6)


def test_the_blocks_cover_every_score_once(block):
    for B, h, queries, keys in ((1, 1, 1, 1), (2, 7, 4, 5), (5, 3, 11, 6), (4, 4, 3, 23), (50, 2, 2, 3), (1, 2, 40, 3)):
        covered = np.zeros((B, h, queries, keys), int)
        for heads, parts in blocks._groups(B, h, queries, keys):
            for part in parts:
                covered[*heads, part] += 1
                assert covered[*heads, part].size <= max(block, keys)
        assert (covered == 1).all()


def test_the_formula_by_hand(rng):
    q, k, v = drawn(rng, (2,), 3, 4, 5)
    context, probabilities = ops.attention(q, k, v)
    exponentials = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(5))
    expected = exponentials / exponentials.sum(-1, keepdims=True)
    np.testing.assert_allclose(probabilities.data, expected, rtol=1e-13)
    np.testing.assert_allclose(context.data, expected @ v, rtol=1e-12)


def test_large_scores_do_not_overflow(block):
    q = np.array([[300.0, 0], [0, 300]], np.float32)
    for y in (ops.scaled_dot_product_attention(q, q, q), ops.attention(q, q, q)[0]):
        np.testing.assert_array_equal(y.data, q)


def test_nan_in_one_query_stays_there(block, rng):
    """NaN is not above the bound, and not below it either: the scores of the other queries must be shifted."""
    q, k, v = drawn(rng, (), 4, 5, 3)
    q *= 1e4
    expected = ops.attention(q, k, v)[0].data
    q[2] = np.nan
    y = ops.scaled_dot_product_attention(q, k, v).data
    assert np.isnan(y[2]).all()
    np.testing.assert_allclose(np.delete(y, 2, 0), np.delete(expected, 2, 0), rtol=1e-9)


@pytest.mark.parametrize("centre", [-4000, 0, 4000])
@pytest.mark.parametrize("order", [1, -1])
def test_scores_far_from_zero_in_any_order(centre, order, block, rng, assert_same):
    """From tile to tile some rows' scores rise by hundreds, others' fall: exp would overflow, or leave only zeros."""
    q = np.array([1.0, -1, 1, 1, -1]).reshape(1, 5, 1) * np.ones((2, 1, 1))
    k = np.linspace(-2000, 2000, 24)[::order].reshape(1, 24, 1) + centre + rng.standard_normal((2, 24, 1))
    v = rng.standard_normal((2, 24, 3))
    assert_same(ops.scaled_dot_product_attention, lambda q, k, v: ops.attention(q, k, v)[0], q, k, v, tolerance=1e-9)


def test_dropout_drops_probabilities_and_scales_the_rest(block):
    keys = 40
    q, k, v = np.zeros((3, 50, 2)), np.zeros((3, keys, 2)), np.broadcast_to(np.eye(keys), (3, keys, keys))
    y = ops.scaled_dot_product_attention(q, k, v, 0.25, 0).data  # v = 1 shows the probabilities themselves
    kept = y != 0
    np.testing.assert_allclose(y[kept], 1 / keys / 0.75, rtol=1e-6)
    assert abs(kept.mean() - 0.75) < 0.03
    assert len(np.unique(kept.reshape(-1, keys), axis=0)) == 150  # no two queries lose the same keys
    again, other = (ops.scaled_dot_product_attention(q, k, v, 0.25, seed).data for seed in (0, 1))
    np.testing.assert_array_equal(again, y)
    assert (other != y).any()


@pytest.mark.parametrize("keep", [0, 2**22])
def test_a_seed_drops_the_same_whatever_the_scores_and_with_or_without_a_graph(keep, block, rng, monkeypatch):
    monkeypatch.setattr(ROOM, "KEEP", keep)
    q, k = rng.standard_normal((2, 3, 40, 2))
    v = np.broadcast_to(np.eye(40), (3, 40, 40))  # shows the probabilities themselves
    drops = []
    for scale in (1, 30):
        x = Tensor(q * scale, requires_grad=True)
        drops.append(ops.scaled_dot_product_attention(x, k, v, 0.5, 3).data == 0)
        with no_grad():
            drops.append(ops.scaled_dot_product_attention(x, k, v, 0.5, 3).data == 0)
    assert all((one == drops[0]).all() for one in drops) and 0.4 < drops[0].mean() < 0.6


@pytest.mark.parametrize("keep", [0, 2**22])
def test_a_share_of_the_batch_drops_what_one_process_drops_there(keep, block, number, monkeypatch):
    monkeypatch.setattr(ROOM, "KEEP", keep)
    q, v = np.zeros((5, 3, 7, 2)), np.broadcast_to(np.eye(9), (5, 3, 9, 9))  # shows the probabilities themselves
    whole = ops.scaled_dot_product_attention(q, np.zeros((5, 3, 9, 2)), v, 0.5, np.random.default_rng(3)).data
    for rows in (slice(0, 2), slice(2, 5)):
        rng = SharedGenerator(np.random.PCG64(3), Share(rows.start, rows.stop, 5))
        part = ops.scaled_dot_product_attention(q[rows], np.zeros((5, 3, 9, 2))[rows], v[rows], 0.5, rng).data
        np.testing.assert_array_equal(part, whole[rows])


def test_the_same_bits_with_and_without_a_graph(block, rng):
    q, k, v = (Tensor(x, requires_grad=True) for x in drawn(rng, (2, 3), 11, 23, 4))
    recorded = ops.scaled_dot_product_attention(q, k, v).data
    with no_grad():
        np.testing.assert_array_equal(ops.scaled_dot_product_attention(q, k, v).data, recorded)


def test_readable_attention_with_dropout_and_a_head_mask(rng):
    arrays = drawn(rng, (2, 3), 4, 5, 2)
    mask = np.array([1.0, 0.0, 0.5]).reshape(3, 1, 1)

    def masked(q, k, v, mask):
        return ops.attention(q, k, v, head_mask=mask)[0]

    assert gradcheck(masked, *arrays, mask, rtol=1e-6)
    assert gradcheck(lambda q, k, v: ops.attention(q, k, v, 0.4, 3)[1], *arrays, directions=3, rtol=1e-6)
    context = ops.attention(*arrays)[0].data
    np.testing.assert_allclose(masked(*arrays, mask).data, context * mask, rtol=1e-13)


@pytest.mark.parametrize("length", [1, 10], ids=["small scores", "large scores"])
def test_memory_stays_below_half_of_all_scores(length):
    T, heads, d = 1500, 4, 8
    q, k, v = (Tensor(np.full((1, heads, T, d), length, np.float32), requires_grad=True) for _ in range(3))
    tracemalloc.start()
    try:
        y = ops.scaled_dot_product_attention(q, k, v)
        forward = tracemalloc.get_traced_memory()[1]
        y.sum().backward()
        both = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    all_scores = heads * T * T * 4
    assert forward < all_scores / 2 and both < all_scores / 2


@pytest.mark.parametrize("op", [ops.attention, ops.scaled_dot_product_attention])
@pytest.mark.parametrize(
    "shapes",
    [
        [(4, 3), (5, 2), (5, 3)],  # d differs
        [(4, 3), (5, 3), (4, 3)],  # keys without values
        [(2, 4, 3), (5, 3), (5, 3)],  # heads on one side only
        [(2, 4, 3), (1, 5, 3), (1, 5, 3)],
        [(3,), (3,), (3,)],
    ],
)
def test_what_does_not_fit(op, shapes):
    q, k, v = map(np.ones, shapes)
    with pytest.raises(ShapeError, match=r"attention: q \(.*\) do not fit(?s:.*)leading axes(?s:.*)split the heads"):
        op(q, k, v)


@pytest.mark.parametrize("op", [ops.attention, ops.scaled_dot_product_attention])
@pytest.mark.parametrize(("keys", "d"), [(0, 4), (5, 0)])
def test_nothing_to_attend_to(op, keys, d):
    with pytest.raises(ShapeError, match=rf"attention: k \(2, {keys}, {d}\) is empty"):
        op(np.ones((2, 3, d)), np.ones((2, keys, d)), np.ones((2, keys, 3)))


@pytest.mark.parametrize("op", [ops.attention, ops.scaled_dot_product_attention])
def test_dropout_is_a_probability(op):
    with pytest.raises(MinivitError, match=r"dropout: p=1\.5 is not a probability"):
        op(*[np.ones((2, 3))] * 3, 1.5, 0)


@pytest.mark.parametrize("shape", [((2, 0), 4, 5, 3, 2), ((3,), 0, 5, 3)], ids=["no heads", "no queries"])
def test_nothing_to_attend_from(shape, rng):
    q, k, v = (Tensor(x, requires_grad=True) for x in drawn(rng, *shape))
    y = ops.scaled_dot_product_attention(q, k, v)
    y.sum().backward()
    assert y.shape == ops.attention(q, k, v)[0].shape == (*q.shape[:-1], v.shape[-1])
    assert not k.grad.any() and not v.grad.any()


def test_integers_and_mixed_dtypes_are_as_in_the_readable_form(rng):
    q = np.arange(24).reshape(2, 3, 4)
    for arrays in ((q, q, q), (q.astype(np.float32), q / 5, q / 7)):
        fused, readable = ops.scaled_dot_product_attention(*arrays), ops.attention(*arrays)[0]
        assert fused.dtype == readable.dtype == np.float64
        np.testing.assert_allclose(fused.data, readable.data, rtol=1e-6)
    v = Tensor(q / 3, requires_grad=True)
    ops.scaled_dot_product_attention(q, q, v).sum().backward()
    assert v.grad.dtype == np.float64
