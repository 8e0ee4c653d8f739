"""Cross-entropy: how surprised the model is by the right labels; the loss of classification."""

import numpy as np

from ..autograd import differentiable
from ..errors import ShapeError


@differentiable
def cross_entropy(logits, labels, label_smoothing=0.0):
    """Mean over the examples of -sum_k t_k log softmax(logits)_k.

    logits: (B, K) scores, labels: (B,) integers in 0..K-1, label_smoothing: s in [0, 1].  Returns a number, in nats.
    The target t is 1 at the label; smoothing gives s of it in equal parts to all K classes (Szegedy et al. 2016).
    Backward: dlogits = (softmax(logits) - t) / B.
    """
    labels = np.asarray(labels)
    _check(logits, labels, label_smoothing)
    B, K = logits.shape
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))  # (B, K)
    target = np.full_like(log_p, label_smoothing / K)
    target[np.arange(B), labels] += 1 - label_smoothing

    def backward(dy):
        return (np.exp(log_p) - target) * (dy / B), None

    surprise = np.where(target == 0, 0, log_p)  # a class that is impossible, log p = -inf, counts only where it is due
    return -(target * surprise).sum() / B, backward


def _check(logits, labels, label_smoothing):
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not logits.size:
        raise ShapeError(
            "cross_entropy",
            f"logits {logits.shape} and labels {labels.shape} do not fit.",
            rule="logits (B, K) and labels (B,), one class number for each example, at least one example.",
        )
    if labels.dtype.kind not in "iu":
        raise ShapeError(
            "cross_entropy",
            f"labels are {labels.dtype}.",
            rule="labels are class numbers: integers.",
            hint="np.asarray(labels, dtype=np.int64), or scores.argmax(-1) where there are scores or one-hot rows.",
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= logits.shape[1]))
    if wrong.size:
        raise ShapeError(
            "cross_entropy",
            f"labels[{wrong[0]}] = {labels[wrong[0]]} is no class ({wrong.size} of {labels.size} labels are not).",
            rule=f"0 <= label < K, and the logits have K = {logits.shape[1]} classes.",
            hint="class numbers start at 0; a model for more classes has a larger num_labels.",
        )
    if not 0 <= label_smoothing <= 1:
        raise ShapeError("cross_entropy", f"label_smoothing={label_smoothing}.", rule="0 <= label_smoothing <= 1")
