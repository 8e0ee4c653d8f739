"""The normal distribution: how likely a number is, and a number below it. NumPy has no erf."""

import math

import numpy as np

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
POWERS = (np.polynomial.chebyshev.cheb2poly(_CHEBYSHEV)[::-1] / 2).tolist()
POWERS_FLOAT32 = (np.polynomial.chebyshev.cheb2poly(_CHEBYSHEV[:9])[::-1] / 2).tolist()


def normal(x):
    """Phi(x) = (1 + erf(x / sqrt 2)) / 2, the chance that a standard normal number is below x, and the density phi(x).

    x: an array, float32 or float64.  Returns two of its shape and dtype; Phi to about 1e-7 and 3e-16.
    phi(x) = exp(-x^2 / 2) / sqrt(2 pi).
    """
    z = np.abs(x)
    r = z + math.sqrt(8)
    r = np.divide(math.sqrt(8), r, out=r)  # 1 / (1 + z/2), with z = |x| / sqrt 2 as erfc has it
    t = 1 - 2 * r
    with np.errstate(over="ignore"):  # exp(-infinity) is the 0 that is meant
        density = np.exp(np.multiply(z, -0.5 * z, out=z), out=z)
    highest, *powers, last = POWERS_FLOAT32 if r.dtype == np.float32 else POWERS
    tail = t * highest
    for coefficient in powers:  # Horner
        tail += coefficient
        tail *= t
    tail += last
    tail *= r
    tail *= density  # the chance that a normal number is above |x|
    tail -= x >= 0
    density *= 1 / math.sqrt(2 * math.pi)
    return np.abs(tail, out=tail), density  # Phi(x): the tail where x < 0, else 1 - tail
