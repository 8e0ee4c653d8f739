"""Gradient check: what backward says, beside what happens when a number is moved a little.

The function's output is multiplied by a random cotangent v and summed, so that every output counts and none can hide
another: a plain sum would not do, since the gradient of layer_norm(x).sum() is zero whatever its backward does.
"""

import inspect
from typing import NamedTuple

import numpy as np

from .autograd import Tensor, no_grad
from .errors import MinivitError


class GradientError(MinivitError, AssertionError):
    """A backward and its finite difference differ."""


class Comparison(NamedTuple):
    """What was compared for one argument: `backward` and `numeric`, arrays of the same shape, and their error.

    error: at each entry |backward - numeric| / (atol / rtol + the larger of the two), so that an entry passes when
    its error is at most rtol.
    """

    argument: str
    backward: np.ndarray
    numeric: np.ndarray
    error: np.ndarray

    @property
    def worst(self):
        """The largest error of all entries; NaN counts as the worst of all."""
        return float(np.max(self.error, initial=0.0))


def gradcheck(fn, *inputs, eps=1e-6, rtol=1e-5, atol=1e-7, rng=0, directions=None):
    """Compare fn's backward with central differences, in float64.

    fn: takes the inputs as Tensors and returns a Tensor of any shape; it must give the same output each time.
    inputs: arrays or Tensors; each one of floats is checked. fn may also reach a Tensor on its own, as a model does
    its parameters: `gradcheck(lambda *_: model(x, labels=y).loss, *model.parameters(), directions=3)`. Those of them
    that are not among the inputs get a gradient, as from any backward().
    eps: the step; rtol, atol: |backward - numeric| <= atol + rtol * the larger of both; rng: a Generator or seed, for
    the cotangent.
    directions: check that many random directions over all inputs together, instead of each element.
    Returns True, or raises GradientError naming the argument, the worst entry and what kind of mistake it looks like.
    """
    comparisons = compare(fn, *inputs, eps=eps, rtol=rtol, atol=atol, rng=rng, directions=directions)
    worst = max(comparisons, key=lambda comparison: comparison.worst)
    if not worst.worst <= rtol:
        raise _explain(getattr(fn, "__name__", "fn").replace("<lambda>", "fn"), worst, rtol, atol)
    return True


def compare(fn, *inputs, eps=1e-6, rtol=1e-5, atol=1e-7, rng=0, directions=None):
    """The Comparisons that gradcheck judges: one for each input of floats, or one for all with `directions`."""
    # A stream of its own: inputs drawn from the same seed would equal the cotangent, and along x itself the gradient
    # of layer_norm(x) is zero.
    rng = np.random.default_rng(rng).spawn(1)[0]
    if not (eps > 0 and rtol > 0 and atol >= 0 and (directions is None or directions in range(1, 10**6))):
        came = f"eps={eps}, rtol={rtol}, atol={atol}, directions={directions}"
        raise MinivitError("gradcheck", f"{came}.", rule="eps, rtol > 0, atol >= 0; directions is None or 1, 2, ...")
    tensors = [x if isinstance(x, Tensor) and x._node is None else Tensor(x) for x in inputs]
    checked = [(name, t) for name, t in zip(_names(fn, len(tensors)), tensors, strict=True) if t.dtype.kind == "f"]
    if not checked:
        raise MinivitError("gradcheck", "no input holds floating-point numbers, so there is no gradient to check.")
    kept = [(t, t.data, t.grad, t.requires_grad) for _, t in checked]
    try:
        for _, t in checked:  # each a float64 copy, moved in place below and put back in the end
            t.data, t.grad, t.requires_grad = np.array(t.data, dtype=np.float64), None, True
        before = [t.data.copy() for _, t in checked]
        value = fn(*tensors)
        if _changed([t for _, t in checked], before):
            raise MinivitError("gradcheck", "fn changed its input.", rule="an op makes a new array.", hint="y = x * 2")
        if not isinstance(value, Tensor):
            raise MinivitError("gradcheck", f"fn returned a {type(value).__name__}.", rule="fn returns one Tensor.")
        cotangent = rng.standard_normal(value.shape)
        expected = (value.data * cotangent).sum()
        before.append(value.data.copy())
        if value.requires_grad:
            value.backward(cotangent)
        if _changed([*(t for _, t in checked), value], before):
            raise MinivitError(
                "gradcheck",
                f"backward changed an input or the output of {getattr(fn, '__name__', 'fn')}.",
                rule="what forward saved, others may use, too.",
                hint="make a new array: y * dy, and not y *= dy.",
            )

        def loss():
            with no_grad():
                return (fn(*tensors).data * cotangent).sum()

        if not np.isclose(loss(), expected, rtol=1e-9, atol=1e-12, equal_nan=True):
            raise MinivitError(
                "gradcheck",
                "fn gave another output for the same input.",
                rule="finite differences need a function without chance.",
                hint="call model.eval(), or give dropout a seed instead of a Generator.",
            )
        gradients = [np.zeros(t.shape) if t.grad is None else t.grad for _, t in checked]
        names, arrays = [name for name, _ in checked], [t.data for _, t in checked]
        if directions is None:
            numeric = [_by_element(loss, array, eps) for array in arrays]
            return [_comparison(*each, rtol, atol) for each in zip(names, gradients, numeric, strict=True)]

        def along(group, name):
            chosen = [arrays[i] for i in group], [gradients[i] for i in group]
            name = names[group[0]] if len(group) == 1 else name
            return _comparison(name, *_by_direction(loss, *chosen, eps, rng, directions), rtol, atol)

        group = range(len(arrays))
        worst = along(group, f"all {len(arrays)} inputs")
        while len(group) > 1 and not worst.worst <= rtol:  # which is it? The half that is worse, and so on
            halves = group[: len(group) // 2], group[len(group) // 2 :]
            found = [along(half, f"{names[half[0]]} to {names[half[-1]]}") for half in halves]
            group = halves[found[1].worst > found[0].worst]
            worse = max(found, key=lambda comparison: comparison.worst)
            if worse.worst <= rtol:  # only all together are wrong enough
                break
            worst = worse
        return [worst]
    finally:
        for t, data, grad, requires_grad in kept:
            t.data, t.grad, t.requires_grad = data, grad, requires_grad


def _changed(tensors, before):
    return not all(np.array_equal(t.data, b, equal_nan=True) for t, b in zip(tensors, before, strict=True))


def _names(fn, count):
    """The argument names of fn, or input 0, 1, ... where it has none."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        parameters = ()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return (names + [f"input {i}" for i in range(len(names), count)])[:count]


@np.errstate(invalid="ignore")  # infinity - infinity is NaN, which counts as the worst error
def _comparison(name, backward, numeric, rtol, atol):
    error = abs(backward - numeric) / (atol / rtol + np.maximum(abs(backward), abs(numeric)))
    return Comparison(name, backward, numeric, np.nan_to_num(error, nan=np.inf))


def _by_element(loss, array, eps):
    """Central differences of loss() in each element of the array, which is moved in place."""
    numeric = np.empty_like(array)
    for index in np.ndindex(array.shape):
        before = array[index]
        array[index] = before + eps
        above = loss()
        array[index] = before - eps
        numeric[index] = (above - loss()) / (2 * eps)
        array[index] = before
    return numeric


@np.errstate(invalid="ignore")
def _by_direction(loss, arrays, gradients, eps, rng, directions):
    """Along each of some random directions over all the arrays: what the gradients say, and the central difference."""
    said, numeric = np.zeros(directions), np.zeros(directions)
    before = [array.copy() for array in arrays]
    for i in range(directions):
        steps = [rng.standard_normal(array.shape) for array in arrays]
        said[i] = sum((gradient * step).sum() for gradient, step in zip(gradients, steps, strict=True))
        losses = []
        for sign in (eps, -eps):
            for array, start, step in zip(arrays, before, steps, strict=True):
                array[...] = start + sign * step
            losses.append(loss())
        numeric[i] = (losses[0] - losses[1]) / (2 * eps)
    for array, start in zip(arrays, before, strict=True):
        array[...] = start
    return said, numeric


def _explain(fn, comparison, rtol, atol):
    """The GradientError of a failed comparison: where, both numbers, and the mistake that they look like."""
    name, backward, numeric, error = comparison
    index = tuple(int(i) for i in np.unravel_index(error.argmax(), error.shape))
    at = ", ".join(map(str, index))
    lines = [
        f'{fn}, argument "{name}", worst at [{at}]: the gradients differ.',
        f"  backward {backward[index]:+.6e}   finite difference {numeric[index]:+.6e}   "
        f"relative error {error[index]:.1e} (allowed {rtol:g})",
    ]
    counted = abs(numeric) > 100 * atol
    ratios = backward[counted] / numeric[counted]
    hint = f"{(error > rtol).sum()} of {error.size} entries differ: compare backward with forward line by line."
    if not np.isfinite(backward).all():
        hint = "backward made NaN or infinity."
    elif not np.isfinite(numeric).all():
        hint = "forward made NaN or infinity near this input, so there is nothing to compare with."
    elif not backward.any():
        hint = "backward says zero everywhere: does it return this gradient, and is the path to the output recorded?"
    elif ratios.size and np.ptp(ratios) <= 1e-4 * abs(ratios[0]) and counted[error > rtol].all():
        lines.append(f"  {ratios.size} of {backward.size} entries are off by the same factor {ratios.mean():.3f}")
        hint = "a constant factor usually means a scale that backward forgot, or has once too often."
        if abs(ratios.mean() + 1) < 1e-3:
            hint = "the sign is turned around."
    elif backward.ndim == 2 and len(set(backward.shape)) == 1 and np.allclose(backward.T, numeric, rtol, atol):
        hint = "the gradient is the transposed one: which side of the matrix product does it belong on?"
    elif backward.size > 1 and np.ptp(backward - numeric) <= 1e-4 * abs(backward - numeric).max():
        hint = "every entry is off by the same amount: a term of the gradient is missing, a mean or a sum perhaps."
    return GradientError("gradcheck", "\n".join(lines), hint=hint)
