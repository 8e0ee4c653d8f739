"""Cross-entropy: how surprised the model is by the right labels; the loss of classification."""

import numpy as np

from ..autograd import differentiable
from ..machinery.shapes import check_cross_entropy


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
