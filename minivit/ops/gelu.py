"""GELU: x times the chance that a normal number falls below x; exact, and in the tanh approximation."""

import math

import numpy as np

from ..autograd import differentiable, is_grad_enabled
from ..machinery import threads

# Chebyshev coefficients of (1 + z/2) exp(z^2) erfc(z), z >= 0, in t = (z - 2) / (z + 2). After Shepherd and Laframboise
# 1981, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc(x) in 0 <= x < infinity", Math. Comp. 36, with a factor that
# costs no division of its own. Computed by Chebyshev interpolation in 40 digits; the tests compare with math.erfc.
_CHEBYSHEV = [
    0.5770337386164696886,
    -0.3554369212704984873,
    0.06509515882878652455,
    -0.003671142395836639166,
    -0.001112844743352632497,
    0.0001607582991537807976,
    0.0000327803157417313706,
    -5.442441645505016033e-6,
    -1.515466555317148162e-6,
    1.429760818116986492e-7,
    8.234608827419493433e-8,
    1.296284685230656254e-9,
    -4.154721631015198304e-9,
    -6.347058278362811181e-10,
    1.432082271225622371e-10,
    6.160390105204585542e-11,
    2.061213855472169631e-12,
    -3.571493148847704445e-12,
    -8.586422843251796476e-13,
    6.145600213790630554e-14,
    7.418725748596617057e-14,
    1.289504275503232562e-14,
    -2.358726385710632357e-15,
    -1.57293493816859114e-15,
    -2.278296623954646517e-16,
    6.312330450756429812e-17,
]


# The same polynomials in powers of t, highest first, halved: of erfc(z) / 2. float32 sees no term after the ninth.
_POWERS = np.polynomial.chebyshev.cheb2poly(_CHEBYSHEV)[::-1] / 2
_POWERS_FLOAT32 = (np.polynomial.chebyshev.cheb2poly(_CHEBYSHEV[:9])[::-1] / 2).astype(np.float32)


def normal_cdf(x):
    """Phi(x) = (1 + erf(x / sqrt 2)) / 2, the chance that a standard normal number is below x.

    x: an array, float32 or float64.  Returns the same shape and dtype, to about 1e-7 and 3e-16.
    """
    return _normal(x.reshape(-1))[0].reshape(x.shape)


def _normal(x):
    """Phi(x), and exp(-x^2 / 2), which the density has too: for an array of rank 1, in place wherever it can be."""
    z = np.abs(x)
    r = z + math.sqrt(8)
    np.divide(math.sqrt(8), r, out=r)  # 1 / (1 + z/2), with z = |x| / sqrt 2 as erfc has it
    t = 1 - 2 * r
    with np.errstate(over="ignore"):  # exp(-infinity) is the 0 that is meant
        bell = np.exp(np.multiply(z, -0.5 * z, out=z), out=z)
    highest, *powers, last = _POWERS_FLOAT32 if r.dtype == np.float32 else _POWERS
    tail = t * highest
    for coefficient in powers:  # Horner
        tail += coefficient
        tail *= t
    tail += last
    tail *= r
    tail *= bell  # the chance that a normal number is above |x|
    tail -= x >= 0
    return np.abs(tail, out=tail), bell  # Phi(x): the tail where x < 0, else 1 - tail


@differentiable
def gelu(x):
    """y = x * Phi(x), with Phi the normal distribution function.

    x: any shape.  Returns y of x's shape.
    Backward: dx = dy * (Phi(x) + x * phi(x)), with phi(x) = exp(-x^2 / 2) / sqrt(2 pi). That slope is made in the
    forward pass, which has both of its parts at hand.
    Source: Hendrycks and Gimpel 2016, "Gaussian Error Linear Units".
    """
    shape = x.shape
    numbers = x.reshape(-1).astype(np.result_type(x, np.float16), copy=False)
    y = np.empty_like(numbers)
    slope = np.empty_like(numbers) if is_grad_enabled() else None

    def forward(part):
        cdf, bell = _normal(numbers[part])
        np.multiply(numbers[part], cdf, out=y[part])
        if slope is not None:
            bell *= 1 / math.sqrt(2 * math.pi)  # phi(x)
            with np.errstate(invalid="ignore"):  # at infinity it is 0 * infinity, NaN
                bell *= numbers[part]
            np.add(cdf, bell, out=slope[part])

    threads.run(forward, threads.blocks(y.size))

    def backward(dy):
        return dy * slope.reshape(shape)

    return y.reshape(shape), backward


@differentiable
def gelu_tanh(x):
    """y = x * (1 + tanh(u)) / 2 with u = sqrt(2 / pi) * (x + 0.044715 x^3): GELU to about 5e-4, without erf.

    x: any shape.  Returns y of x's shape.
    Backward: dx = dy * ((1 + tanh u) / 2 + x * (1 - tanh^2 u) / 2 * du), du = sqrt(2 / pi) * (1 + 3 * 0.044715 x^2):
    the derivative of this formula, not of the exact GELU.
    Source: Hendrycks and Gimpel 2016, section 2.
    """
    slope = math.sqrt(2 / math.pi)
    tanh = np.tanh(slope * (x + 0.044715 * x * x * x))

    def backward(dy):
        du = slope * (1 + 3 * 0.044715 * x * x)
        return dy * (0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * du)

    return 0.5 * x * (1 + tanh), backward
