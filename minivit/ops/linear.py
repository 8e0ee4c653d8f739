"""Linear: x @ W.T + b, the map that every learned matrix of the model is."""

from ..autograd import differentiable
from ..machinery.products import product, products, rows, total
from ..machinery.shapes import check_linear


@differentiable
def linear(x, weight, bias=None):
    """y = x @ weight^T + bias.

    x: (..., in), weight: (out, in), bias: (out,) or None.  Returns y: (..., out).
    Backward: dx = dy @ weight, dweight = dy^T @ x, dbias = sum(dy): sums over the whole batch.
    """
    check_linear(x, weight, bias)
    y = product(x, weight.T, bias)

    def backward(dy):
        dx, dweight = products((rows(dy), weight), (rows(dy).T, rows(x)))
        dx = dx.reshape(x.shape)
        return (dx, dweight) if bias is None else (dx, dweight, total(dy))

    return y, backward
