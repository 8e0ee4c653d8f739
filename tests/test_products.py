"""Matrix products, cut or not, are NumPy's; sums over rows are sums."""

import numpy as np
import pytest

from minivit.machinery import products


@pytest.mark.parametrize(
    ("m", "k", "n"), [(1, 1, 1), (2000, 64, 64), (197, 768, 1000), (5, 0, 3), (0, 4, 2), (3, 4, 0)]
)
def test_product_is_the_product(m, k, n, number, rng):
    x, y, bias = rng.standard_normal((m, k)), rng.standard_normal((k, n)), rng.standard_normal(n)
    np.testing.assert_allclose(products.product(x, y), x @ y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(products.product(x, y, bias), x @ y + bias, rtol=1e-12, atol=1e-12)
    assert products.product(x.astype(np.float32), y).dtype == np.float64


@pytest.mark.parametrize("least", [1, products.PRODUCT])
def test_products_at_once_are_each_the_product(least, number, rng, monkeypatch):
    """Cut along rows, along columns, and not at all; with a bias and without."""
    monkeypatch.setattr(products, "PRODUCT", least)
    shapes = (700, 5, 3), (3, 5, 700), (40, 7, 40), (1, 9, 1)
    factors = [(rng.standard_normal((m, k)), rng.standard_normal((k, n)), None) for m, k, n in shapes]
    factors += [(x, y, rng.standard_normal(y.shape[1])) for x, y, _ in factors]
    results = products.products(*factors)
    assert len(results) == 8
    for result, (x, y, bias) in zip(results, factors, strict=True):
        np.testing.assert_allclose(result, x @ y + (0 if bias is None else bias), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 4), (2, 5, 3), (7,), (0, 4), (2, 0, 3)])
def test_rows_and_total(shape, rng):
    x = rng.standard_normal(shape)
    count = int(np.prod(shape[:-1]))
    assert products.rows(x).shape == (count, shape[-1])
    np.testing.assert_allclose(products.total(x), x.sum(tuple(range(x.ndim - 1))), rtol=1e-12)


def test_product_of_any_leading_axes(rng):
    x, y, bias = rng.standard_normal((2, 3, 5)), rng.standard_normal((5, 4)), rng.standard_normal(4)
    np.testing.assert_allclose(products.product(x, y, bias), x @ y + bias, rtol=1e-12)
    np.testing.assert_allclose(products.product(x[0, 0], y), x[0, 0] @ y, rtol=1e-12)
