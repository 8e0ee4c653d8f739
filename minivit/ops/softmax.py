"""Softmax: scores to probabilities; and its logarithm, computed without taking one of the other."""

import numpy as np

from ..autograd import differentiable


@differentiable
def softmax(x, axis=-1):
    """y = exp(x) / sum(exp(x)), shifted by the maximum so that exp cannot overflow.

    x: (..., K) scores.  Returns y: (..., K), which sum to 1 along `axis`.
    Backward: dx = y * (dy - sum(dy * y)).
    """
    y = np.exp(x - x.max(axis, keepdims=True))
    y /= y.sum(axis, keepdims=True)

    def backward(dy):
        return y * (dy - (dy * y).sum(axis, keepdims=True))

    return y, backward


@differentiable
def log_softmax(x, axis=-1):
    """y = x - log(sum(exp(x))), shifted by the maximum: exact where softmax would round to 0.

    x: (..., K) scores.  Returns y: (..., K), logarithms of probabilities.
    Backward: dx = dy - softmax(x) * sum(dy).
    """
    shifted = x - x.max(axis, keepdims=True)
    y = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))

    def backward(dy):
        return dy - np.exp(y) * dy.sum(axis, keepdims=True)

    return y, backward
