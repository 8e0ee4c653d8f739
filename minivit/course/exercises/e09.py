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
        ...  # your code here

    return -np.log(p[np.arange(B), labels]).mean(), backward


# ---- how it is graded (not part of the stub)

from minivit.course.exercises.judge import Case

OP, VALUE = "cross_entropy", "the mean of -log softmax(logits)[label]"


def cases(rng):
    """What a learner's cross_entropy is asked."""
    yield Case([rng.standard_normal((5, 3))], [np.array([2, 0, 1, 1, 2])])
