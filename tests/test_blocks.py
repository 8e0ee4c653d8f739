"""A formula in blocks gives what the formula gives at once, whatever the shapes, the blocks and the threads."""

import math

import numpy as np
import pytest

from minivit.errors import ShapeError
from minivit.machinery import blocks


@pytest.fixture(params=[1, 7, 60, 2**18], ids=lambda size: f"block {size}")
def block(request, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", request.param)
    monkeypatch.setattr(blocks, "QUERIES", 1)


@pytest.mark.parametrize("leading", [(), (5,), (3, 4), (2, 3, 7), (0,), (4, 0)])
def test_by_rows_is_the_formula(leading, block, number, rng):
    x, y = rng.standard_normal((*leading, 5)), rng.standard_normal((*leading, 3)).astype(np.float32)

    def formula(x, y):
        return x[:, :2] + y[:, :1], None, (y * 2).astype(np.float32), x.sum(0), y.T @ x

    stacked, nothing, doubled, added, outer = blocks.by_rows(formula, x, y, sums=2)
    assert nothing is None and doubled.dtype == np.float32
    np.testing.assert_array_equal(stacked, x[..., :2] + y[..., :1])
    np.testing.assert_array_equal(doubled, y * 2)
    np.testing.assert_allclose(added, x.reshape(-1, 5).sum(0), atol=1e-12)
    np.testing.assert_allclose(outer, y.reshape(-1, 3).T @ x.reshape(-1, 5), atol=1e-12)


def test_by_rows_of_a_number(block):
    y, twice = blocks.by_rows(lambda x: (x + 1, 2 * x), np.array(3.0))
    assert y.shape == twice.shape == () and (y, twice) == (4, 6)


def test_what_the_formula_needs_besides_rows_is_given_whole(block, rng):
    x, weight = rng.standard_normal((6, 5)), rng.standard_normal(5)
    (y,) = blocks.by_rows(lambda x, weight, eps: (x * weight + eps,), x, weight=weight, eps=0.5)
    np.testing.assert_array_equal(y, x * weight + 0.5)


@pytest.mark.parametrize(
    ("formula", "sums", "came"),
    [
        (lambda x: x * 2, 0, "a ndarray"),
        (lambda x: (x * 2, x.sum(0)), 0, r"an array \(5,\) for \d+ rows"),
        (lambda x: (x * 2, x.sum()), 0, r"an array \(\) for \d+ rows"),
        (lambda x: (x * 2, x.sum(0), x.sum(0)), 1, r"an array \(5,\) for \d+ rows"),
    ],
    ids=["no tuple", "sums forgotten", "a number", "one of two forgotten"],
)
def test_a_formula_that_returns_something_else_is_told(formula, sums, came, block):
    with pytest.raises(ShapeError, match=rf"^by_rows: the formula returned {came}\.\n(?s:.*)sums=1"):
        blocks.by_rows(formula, np.ones((3, 4, 5)), sums=sums)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (2, 2, 3), (0, 3), (2, 0)])
@pytest.mark.parametrize("tokens", [(1, 1), (4, 5), (11, 2), (3, 17), (0, 4)])
def test_by_queries_is_the_formula(leading, tokens, block, number, rng):
    q, k = rng.standard_normal((*leading, tokens[0], 3)), rng.standard_normal((*leading, tokens[1], 3))
    w = rng.standard_normal((*leading, tokens[1], 2))
    places, scores = [], []

    def formula(place, q, k, w):
        assert q.ndim == k.ndim == w.ndim == 4 and k.shape[2] == w.shape[2] == tokens[1]
        places.append(place)
        scores.append((place, (q @ k.mT).ravel()))
        return (q @ k.mT @ w,), (k * q.sum(2, keepdims=True), w + q.shape[2])

    (y,), (dk, dw) = blocks.by_queries(formula, (q,), (k, w))
    first = places.copy()
    assert len(set(places)) == len(places)
    for place, few in scores:
        np.testing.assert_allclose((q @ k.mT).ravel()[place : place + few.size], few, atol=1e-12)
    np.testing.assert_allclose(y, q @ k.mT @ w, atol=1e-12)
    if math.prod(leading) * tokens[0]:
        np.testing.assert_allclose(dk, k * q.sum(-2, keepdims=True), atol=1e-12)
        assert dw.shape == w.shape
    else:
        assert not dk.any() and dk.shape == k.shape
    blocks.by_queries(formula, (q, q)[:1], (k, w))
    assert sorted(places[len(first) :]) == sorted(first)


@pytest.mark.parametrize(("dtypes", "wanted"), [("fd", "d"), ("f", "f"), ("l", "d"), ("ef", "f"), ("e", "e")])
def test_in_dtype(dtypes, wanted):
    found = blocks.in_dtype(*(np.ones(2, dtype) for dtype in dtypes))
    assert {x.dtype for x in (found if len(dtypes) > 1 else [found])} == {np.dtype(wanted)}
