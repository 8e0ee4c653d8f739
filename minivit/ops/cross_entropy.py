"""Losses: cross-entropy, how surprised the model is by the right labels, of one class in K and of
K yes-or-no questions; and which loss belongs to which labels."""

import numpy as np

from ..autograd import differentiable
from ..machinery.shapes import check_cross_entropy, check_scores


@differentiable
def cross_entropy(logits, labels, label_smoothing=0.0):
    """Mean over the examples of -sum_k t_k log softmax(logits)_k.

    logits: (B, K) scores, labels: (B,) integers in 0..K-1, label_smoothing: s in [0, 1].
    Returns a number, in nats.
    The target t is 1 at the label; smoothing gives s of it in equal parts to all K classes.
    Backward: dlogits = (softmax(logits) - t) / B.
    Source: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.
    """
    labels = check_cross_entropy(logits, labels, label_smoothing)
    B, K = logits.shape
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))  # log softmax, (B, K)
    target = np.full_like(log_p, label_smoothing / K)  # (B, K)
    target[np.arange(B), labels] += 1 - label_smoothing
    surprise = np.where(target == 0, 0, log_p)  # log p may be -inf, where nothing is due

    def backward(dy):
        return (np.exp(log_p) - target) * (dy / B), None

    return -(target * surprise).sum() / B, backward


@differentiable
def binary_cross_entropy(logits, labels):
    """Mean over all numbers of -t log sigmoid(x) - (1 - t) log sigmoid(-x): yes-or-no questions.

    x: logits (B, K), t: labels (B, K), 1 for yes and 0 for no, or shares between.
    Returns a number, in nats, made as log(1 + exp(x)) - x t.
    Backward: dx = (sigmoid(x) - t) / (B K).
    """
    target = check_scores("binary_cross_entropy", logits, labels)

    def backward(dy):
        return (np.exp(-np.logaddexp(0, -logits)) - target) * (dy / logits.size), None

    return np.mean(np.logaddexp(0, logits) - logits * target, dtype=logits.dtype), backward


@differentiable
def mean_squared_error(logits, labels):
    """Mean over all numbers of (x - t)^2, x: logits (B, K), t: labels (B, K), or (B,) with K = 1.

    Backward: dx = 2 (x - t) / (B K).
    """
    error = logits - check_scores("mean_squared_error", logits, labels)

    def backward(dy):
        return error * (2 * dy / error.size), None

    return np.mean(error * error, dtype=error.dtype), backward


LOSSES = {
    "single_label_classification": cross_entropy,
    "multi_label_classification": binary_cross_entropy,
    "regression": mean_squared_error,
}  # by the problem_type of a config, as in transformers
