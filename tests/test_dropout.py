"""dropout: which numbers go, by how much the others grow, and who draws the mask."""

import numpy as np
import pytest

from minivit import Tensor, ops
from minivit.errors import MinivitError


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_numbers_are_dropped_or_scaled_and_the_mean_stays(p, dtype):
    x = Tensor(np.full((200, 500), 3, dtype), requires_grad=True)
    y = ops.dropout(x, p, 0)
    kept = y.data != 0
    assert abs(kept.mean() - (1 - p)) < 0.01
    np.testing.assert_allclose(y.data[kept], 3 / (1 - p), rtol=1e-6)
    y.backward(np.full_like(x.data, 2))
    np.testing.assert_allclose(x.grad, kept * 2 / (1 - p), rtol=1e-6)  # the same mask


def test_a_seed_repeats_the_mask_and_a_generator_moves_on():
    x = np.ones(100)
    np.testing.assert_array_equal(ops.dropout(x, 0.5, 7).data, ops.dropout(x, 0.5, 7).data)
    rng = np.random.default_rng(7)
    first, second = ops.dropout(x, 0.5, rng).data, ops.dropout(x, 0.5, rng).data
    np.testing.assert_array_equal(first, ops.dropout(x, 0.5, 7).data)
    assert (first != second).any()


def test_float32_and_float64_drop_the_same_numbers():
    masks = [ops.dropout(np.ones(1000, dtype), 0.3, 0).data != 0 for dtype in (np.float32, np.float64)]
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("options", [{"p": 0}, {"p": 0.5, "training": False}, {"p": 1, "training": False}])
def test_nothing_is_dropped_and_nothing_drawn(options, rng):
    x = np.arange(5.0)
    before = rng.bit_generator.state
    np.testing.assert_array_equal(ops.dropout(x, rng=rng, **options).data, x)
    assert rng.bit_generator.state == before


def test_everything_is_dropped():
    np.testing.assert_array_equal(ops.dropout(np.ones(50), 1, 0).data, np.zeros(50))


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
@pytest.mark.parametrize("training", [True, False])
def test_p_is_a_probability(p, training):
    with pytest.raises(MinivitError, match=rf"dropout: p={p} is not a probability(?s:.*)0 <= p <= 1"):
        ops.dropout(np.ones(3), p, 0, training)


def test_chance_needs_a_generator_or_a_seed(rng):
    x = rng.standard_normal((2, 3, 4))
    with pytest.raises(MinivitError, match="dropout: rng is None"):
        ops.dropout(x, 0.5, None)
    with pytest.raises(MinivitError, match="attention: dropout_p without rng"):
        ops.scaled_dot_product_attention(x, x, x, dropout_p=0.5)
