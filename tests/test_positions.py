"""Sine-cosine positions: beside the formula in loops, and what makes them positions. (Interpolation: test_vit.py.)"""

import math

import numpy as np
import pytest

from minivit.errors import ShapeError
from minivit.ops.positions import sine_cosine_positions


def test_every_number_is_the_sine_or_cosine_of_the_formula():
    rows, columns, D = 3, 5, 8
    positions = sine_cosine_positions((rows, columns), D)
    assert positions.shape == (1, 1 + rows * columns, D) and positions.dtype == np.float32
    assert not positions[0, 0].any()  # CLS has no place
    for row in range(rows):
        for column in range(columns):
            expected = []
            for place in (row, column):
                for wave in (math.sin, math.cos):
                    expected += [wave(place / 10000 ** (4 * k / D)) for k in range(D // 4)]
            np.testing.assert_allclose(positions[0, 1 + row * columns + column], expected, atol=1e-6)


def test_a_product_of_two_positions_knows_only_how_far_they_are_apart():
    rows, columns = 6, 7
    patches = sine_cosine_positions((rows, columns), 20)[0, 1:].astype(np.float64).reshape(rows, columns, 20)
    products = np.einsum("rcd,yxd->rcyx", patches, patches)
    assert products[0, 1, 2, 4] == pytest.approx(products[3, 2, 5, 5], abs=1e-5)  # 2 down and 3 to the right
    assert products[0, 0, 1, 0] != pytest.approx(products[0, 0, 2, 0], abs=1e-2)


@pytest.mark.parametrize("embed_dim, hint", [(10, "use 8 or 12"), (2, "use 4 or 8"), (0, "use 4 or 8")])
def test_a_width_that_four_does_not_divide_is_refused(embed_dim, hint):
    with pytest.raises(ShapeError, match=rf"embed_dim={embed_dim}\.\n  rule: .*\n  hint: {hint}"):
        sine_cosine_positions((2, 2), embed_dim)


def test_four_numbers_are_the_least():
    assert sine_cosine_positions((2, 2), 4).shape == (1, 5, 4)
