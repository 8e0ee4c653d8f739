"""cross_entropy: the formula, its extremes, label smoothing, and labels that are none."""

import numpy as np
import pytest

from minivit import Tensor, ops
from minivit.errors import ShapeError

LABELS = np.array([4, 0, 4])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_fused_is_composed(smoothing, rng, assert_same):
    def composed(logits):
        log_p = ops.log_softmax(logits)
        return -(log_p[np.arange(3), LABELS].mean() * (1 - smoothing) + log_p.mean() * smoothing)

    assert_same(lambda x: ops.cross_entropy(x, LABELS, smoothing), composed, rng.standard_normal((3, 5)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_knowing_nothing_costs_the_logarithm_of_the_number_of_classes(dtype):
    loss = ops.cross_entropy(np.full((2, 7), 3, dtype), [1, 6])
    assert loss.shape == () and loss.dtype == dtype
    assert loss.item() == pytest.approx(np.log(7), rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_logits_do_not_overflow(dtype):
    logits = Tensor(np.array([[1e4, 0, -1e4]], dtype), requires_grad=True)
    assert ops.cross_entropy(logits, [0]).item() == 0
    loss = ops.cross_entropy(logits, [2])
    assert loss.item() == 2e4
    loss.backward()
    np.testing.assert_array_equal(logits.grad, [[1, 0, -1]])


@pytest.mark.parametrize("labels", [LABELS.astype(np.uint8), LABELS.tolist(), tuple(LABELS), Tensor(LABELS)])
def test_labels_of_any_integer_kind(labels, rng):
    logits = Tensor(rng.standard_normal((3, 5)), requires_grad=True)
    loss = ops.cross_entropy(logits, labels)
    assert loss.item() == ops.cross_entropy(logits, LABELS).item()
    loss.backward()
    np.testing.assert_allclose(logits.grad, (ops.softmax(logits).data - np.eye(5)[LABELS]) / 3, atol=1e-15)


@pytest.mark.parametrize(
    ("shape", "labels", "smoothing", "message"),
    [
        ((3, 5), [0, 1], 0, r"logits \(3, 5\) and labels \(2,\) do not fit(?s:.*)logits \(B, K\) and labels \(B,\)"),
        ((3, 5), np.zeros((3, 5), int), 0, r"logits \(3, 5\) and labels \(3, 5\) do not fit"),
        ((5,), 1, 0, r"logits \(5,\) and labels \(\) do not fit"),
        ((0, 5), np.zeros(0, int), 0, "at least one example"),
        ((3, 5), [0.0, 1.0, 2.0], 0, r"labels are float64(?s:.*)class numbers: integers(?s:.*)np\.int64"),
        ((3, 5), [True, False, True], 0, "labels are bool"),
        ((3, 5), [0, 5, -1], 0, r"labels\[1\] = 5 is no class \(2 of 3 labels are not\)(?s:.*)have K = 5 classes"),
        ((3, 5), [0, 4, -1], 0, r"labels\[2\] = -1 is no class \(1 of 3 labels are not\)"),
        ((3, 5), LABELS, 1.5, r"label_smoothing=1.5(?s:.*)0 <= label_smoothing <= 1"),
        ((3, 5), LABELS, -0.1, "label_smoothing=-0.1"),
    ],
)
def test_what_is_wrong_with_labels(shape, labels, smoothing, message):
    with pytest.raises(ShapeError, match=message):
        ops.cross_entropy(np.zeros(shape), labels, smoothing)


def test_an_impossible_class_costs_nothing_unless_it_is_the_label():
    logits = np.array([[1.0, -np.inf, 2.0]])
    np.testing.assert_allclose(ops.cross_entropy(logits, [0]).item(), np.log(1 + np.e), rtol=1e-12)
    assert ops.cross_entropy(logits, [1]).item() == np.inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("logits", "label", "smoothing", "loss", "gradient"),  # PyTorch's numbers
    [
        ([np.inf, 0, 1], 0, 0, np.nan, [np.nan] * 3),
        ([np.inf, 0, 1], 1, 0, np.nan, [np.nan] * 3),
        ([-np.inf] * 3, 0, 0, np.nan, [np.nan] * 3),
        ([-np.inf, 0, 1], 0, 0, np.inf, [-1, 0.26894143, 0.7310586]),
        ([-np.inf, 0, 1], 1, 0, 1.31326162815094, [0, -0.7310586, 0.7310586]),
        ([-np.inf, 0, 1], 1, 0.1, np.inf, [-0.03333334, -0.6643919, 0.69772524]),
        ([1e30, -1e30, 0], 1, 0, 2e30, [1, -1, 0]),
        ([3e38, -3e38, 0], 0, 0, 0, [0, 0, 0]),
    ],
    ids=str,
)
def test_infinite_and_huge_logits_are_as_in_pytorch(logits, label, smoothing, loss, gradient, dtype):
    x = Tensor(np.array([logits], dtype), requires_grad=True)
    with np.errstate(invalid="ignore", over="ignore"):
        y = ops.cross_entropy(x, [label], smoothing)
        y.backward()
    np.testing.assert_allclose(y.item(), loss, rtol=1e-6)
    np.testing.assert_allclose(x.grad, [gradient], rtol=1e-5)


def test_yes_or_no_questions_are_cross_entropies_of_two_classes(rng):
    """-log softmax of the logits (x, 0): the same number, and no overflow at either end."""
    x = np.concatenate([rng.standard_normal((2, 3)), [[1e4, -1e4, 0.0]]])
    for answer, label in ((1.0, 0), (0.0, 1)):
        logits = Tensor(x, requires_grad=True)
        loss = ops.binary_cross_entropy(logits, np.full_like(x, answer))
        pairs = Tensor(np.stack([x, np.zeros_like(x)], -1).reshape(-1, 2), requires_grad=True)  # (B * K, 2)
        expected = ops.cross_entropy(pairs, np.full(x.size, label))
        assert loss.item() == pytest.approx(expected.item(), rel=1e-14)
        loss.backward()
        expected.backward()
        np.testing.assert_allclose(logits.grad.reshape(-1), pairs.grad[:, 0], rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("op", [ops.binary_cross_entropy, ops.mean_squared_error])
def test_labels_that_are_no_scores_are_refused(op):
    for labels, message in (
        ([1, 0], "labels are int64"),
        ([True, False], "labels are bool"),
        ([0.5, 1.0, 0.0], r"logits \(2, 3\) and labels \(3,\) do not fit"),
        ([[0.5, 1.0, 0.0]], r"labels \(1, 3\) do not fit"),
        ([[0.5, 1.0, np.nan]] * 2, "not all finite"),
    ):
        with pytest.raises(ShapeError, match=f"^{op.__name__}: .*{message}"):
            op(np.ones((2, 3)), labels)
