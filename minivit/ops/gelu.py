"""GELU: x times the chance that a normal number is below x; exact, and approximated twice."""

import math

import numpy as np

from ..autograd import differentiable, is_grad_enabled
from ..machinery.blocks import by_rows, in_dtype
from ..machinery.normal import normal
from .arithmetic import multiply, sigmoid


@differentiable
def gelu(x):
    """y = x * Phi(x), with Phi the normal distribution function.

    x: any shape.  Returns y of x's shape.
    Backward: dx = dy * (Phi(x) + x * phi(x)), with the density phi(x) = exp(-x^2 / 2) / sqrt(2 pi).
    That slope is made in the forward pass, which has both of its parts at hand.
    Source: Hendrycks and Gimpel 2016, "Gaussian Error Linear Units".
    """

    def forward(x, learning):
        cdf, density = normal(x)
        with np.errstate(invalid="ignore"):  # at infinity: infinity * 0
            return x * cdf, cdf + x * density if learning else None

    y, slope = by_rows(forward, in_dtype(x), learning=is_grad_enabled())

    def backward(dy):
        return dy * slope

    return y, backward


@differentiable
def gelu_tanh(x):
    """y = x * (1 + tanh(u)) / 2, u = sqrt(2 / pi) * (x + 0.044715 x^3): GELU to about 5e-4.

    x: any shape.  Returns y of x's shape.
    Backward, the derivative of this formula and not of the exact GELU:
    dx = dy * ((1 + tanh u) / 2 + x * (1 - tanh^2 u) / 2 * du),
    du = sqrt(2 / pi) * (1 + 3 * 0.044715 x^2).
    Source: Hendrycks and Gimpel 2016, section 2.
    """
    slope = math.sqrt(2 / math.pi)
    tanh = np.tanh(slope * (x + 0.044715 * x * x * x))

    def backward(dy):
        du = slope * (1 + 3 * 0.044715 * x * x)
        return dy * (0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * du)

    return 0.5 * x * (1 + tanh), backward


def quick_gelu(x):
    """x * sigmoid(1.702 x): GELU to about 0.02, as CLIP's networks have it.

    Source: Hendrycks and Gimpel 2016, section 2; its backward is that of the ops it is made of.
    """
    return multiply(x, sigmoid(multiply(1.702, x)))
