"""GELU: x times the chance that a normal number falls below x; exact, and in the tanh approximation."""

import math

import numpy as np

from ..autograd import differentiable

# Chebyshev coefficients of (1 + 2z) exp(z^2) erfc(z), z >= 0, in t = (z - 3.75) / (z + 3.75), the form of Shepherd and
# Laframboise 1981, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc(x) in 0 <= x < infinity", Math. Comp. 36.
# Computed by Chebyshev interpolation in 50 digits; the tests compare the result with math.erfc.
_CHEBYSHEV = [
    1.177578934567401754,
    -0.004590054580646477411,
    -0.08424913336651791565,
    0.05920993999819189044,
    -0.02665866843530575232,
    0.009074997670705265075,
    -0.002413163540417608188,
    0.0004907758365258086571,
    -0.00006916973302501201891,
    4.139027986073071622e-6,
    7.740383066199227905e-7,
    -2.188640104922632605e-7,
    1.076499946575278954e-8,
    4.521959811295483436e-9,
    -7.754400208161411836e-10,
    -6.318088335685347717e-11,
    2.868795014264611291e-11,
    1.945586977783706177e-13,
    -9.654696843713994302e-13,
    3.252545084708379582e-14,
    3.347807000030016863e-14,
    -1.864627602529400307e-15,
    -1.25087031820716581e-15,
    7.410198822726963619e-17,
    5.060182272794619376e-17,
]
# The same polynomials in powers of t, highest first; float32 sees no term after the twelfth.
_POWERS = np.polynomial.chebyshev.cheb2poly(_CHEBYSHEV)[::-1]
_POWERS_FLOAT32 = np.polynomial.chebyshev.cheb2poly(_CHEBYSHEV[:12])[::-1].astype(np.float32)


def normal_cdf(x):
    """Phi(x) = (1 + erf(x / sqrt 2)) / 2, the chance that a standard normal number is below x.

    x: an array, float32 or float64.  Returns the same shape and dtype, to about 1e-7 and 3e-16.
    """
    z = np.minimum(np.abs(x) * math.sqrt(0.5), 40)  # from there on the tail is 0
    t = (z - 3.75) / (z + 3.75)
    highest, *powers = _POWERS_FLOAT32 if t.dtype == np.float32 else _POWERS
    series = np.full_like(t, highest)
    for coefficient in powers:  # Horner
        series *= t
        series += coefficient
    tail = series * np.exp(-z * z) / (2 + 4 * z)  # erfc(z) / 2
    return np.where(x < 0, tail, 1 - tail)


@differentiable
def gelu(x):
    """y = x * Phi(x), with Phi the normal distribution function.

    x: any shape.  Returns y of x's shape.
    Backward: dx = dy * (Phi(x) + x * phi(x)), with phi(x) = exp(-x^2 / 2) / sqrt(2 pi).
    Source: Hendrycks and Gimpel 2016, "Gaussian Error Linear Units".
    """
    cdf = normal_cdf(x)

    def backward(dy):
        pdf = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        return dy * (cdf + x * pdf)

    return x * cdf, backward


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
