"""Exercise 09: the backward of the cross-entropy.

logits (B, K) are scores, labels (B,) the right classes, and the loss is the mean over the images of -log of the
probability that softmax gives to the label. The forward pass is written. Write its backward: dy, one number, comes in;
out go dlogits (B, K), and None for the labels, which are integers.

Hint: one image's loss is log(sum_k exp(logits_k)) - logits_label. What is the derivative of each half? Its sum over
the classes is 0: what one class gains the others lose.
"""

import numpy as np

from minivit import differentiable


@differentiable
def cross_entropy(logits, labels):
    """Mean of -log softmax(logits)[label]: logits (B, K), labels (B,) integers -> one number."""
    B = len(logits)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))  # (B, K)
    p = e / e.sum(axis=1, keepdims=True)  # (B, K)

    def backward(dy):
        # your code: begin
        dlogits = p.copy()  # (B, K)
        dlogits[np.arange(B), labels] -= 1
        return dlogits * dy / B, None
        # your code: end

    return -np.log(p[np.arange(B), labels]).mean(), backward


# ---- how it is graded (not part of the stub)

from minivit import gradcheck  # noqa: E402
from minivit.errors import MinivitError  # noqa: E402

_TARGET = "target = np.eye(p.shape[1])[labels]\n"
WRONG = {
    "not divided by the batch": _TARGET + "return (p - target) * dy, None",
    "the label is forgotten": "return p * dy / B, None",
    "the sign is turned around": _TARGET + "return (target - p) * dy / B, None",
    "only the label's score": _TARGET + "return target * (p - 1) * dy / B, None",
}


def check(work):
    """Grade a learner's module: the value of the loss, then the gradient of the logits."""
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((5, 3)), np.array([2, 0, 1, 1, 2])
    y = float(np.asarray(work.cross_entropy(logits, labels)))
    expected = np.mean([np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, labels, strict=True)])
    if not np.isclose(y, expected):
        raise MinivitError(
            "cross_entropy",
            f"the loss is {y:.6f}, and should be {expected:.6f}.",
            rule="the mean of -log softmax(logits)[label].",
            hint="the forward pass was right in the stub: write it anew and change only backward.",
        )

    def cross_entropy(logits):
        return work.cross_entropy(logits, labels)

    gradcheck(cross_entropy, logits)
