"""Optimisers: how gradients change parameters; and the learning-rate schedule, clipping and averaging beside them.

All of it reads `parameter.grad` and changes `parameter.data` in place; of the model it knows nothing. "parameters"
is a list, as model.parameters() gives it.
"""

import contextlib
import math
import sys
from collections.abc import Iterable
from numbers import Real

import numpy as np

from .autograd import Tensor
from .errors import MinivitError, ShapeError, shortened
from .machinery.blocks import in_blocks
from .machinery.vocabulary import GROUPS, OPTIMISERS, explains, unknown


def __getattr__(name):
    raise unknown(sys.modules[__name__], "optim", name, OPTIMISERS)


class _Stateful:
    """A list of parameters, and the arrays that are remembered about them from one step to the next."""

    def __init__(self, parameters):
        self.parameters = _checked(type(self).__name__, parameters)
        self._state = {}

    def __getattr__(self, name):
        raise unknown(self, type(self).__name__, name, GROUPS)

    def __repr__(self):
        numbers = [f"{name}={x!r}" for name, x in vars(self).items() if name[0] != "_" and name != "parameters"]
        return f"{type(self).__name__}({', '.join(numbers)})"

    def _remember(self, name, make):
        """One array beside each parameter, make(its array): name.0, name.1, ... of the state. Returns their list."""
        arrays = [make(parameter.data) for parameter in self.parameters]
        self._state |= {f"{name}.{number}": array for number, array in enumerate(arrays)}
        return arrays

    def state_dict(self):
        """Copies of the arrays to go on from, by name; what belongs to the third parameter ends in ".2"."""
        return {name: array.copy() for name, array in self._state.items()}

    def load_state_dict(self, state_dict):
        """Go on from what state_dict() gave. A ShapeError lists all that does not fit, and then nothing was changed."""
        arrays = {name: np.asarray(array) for name, array in state_dict.items()}
        own, given = _forms(self._state), _forms(arrays)
        names = [name for name in own | given if own.get(name) != given.get(name)]
        if names:
            lines = [f"{name}: expected {own.get(name)}, found {given.get(name)}" for name in names]
            raise ShapeError(
                f"{type(self).__name__}.load_state_dict",
                "\n    ".join([f"{len(names)} entries of the state do not fit:", *shortened(lines)]),
                rule="a state goes back to the class that wrote it, with the same parameters in the same order.",
                hint="build model and optimiser as they were when the state was saved, then load it.",
            )
        for name, array in self._state.items():
            array[...] = arrays[name]


class _Optimizer(_Stateful):
    """lr: the learning rate, a plain attribute that a schedule may set before each step.

    step() refuses a number or a gradient that does not fit before it changes anything.
    """

    def __init__(self, parameters, lr):
        super().__init__(parameters)
        self.lr = _number(type(self).__name__, "lr", lr)

    @explains
    def zero_grad(self):
        """Forget the gradients: every .grad is None again."""
        for parameter in self.parameters:
            parameter.grad = None

    def _learning(self):
        """(number, parameter) of each that has a gradient. All gradients are checked before the first is given."""
        _check_gradients(type(self).__name__, self.parameters)
        for number, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                parameter.data = np.asarray(parameter.data)  # of rank 0, p.data * 2 is a number, not to be written to
                yield number, parameter
                parameter._version += 1


class SGD(_Optimizer):
    """Stochastic gradient descent: buffer = momentum * buffer + grad, p -= lr * buffer, as torch.optim.SGD.

    A parameter whose .grad is None is passed over. The state holds the buffers, not lr and momentum.
    """

    def __init__(self, parameters, lr, momentum=0.0):
        super().__init__(parameters, lr)
        self.momentum = momentum
        self._numbers()
        self._buffers = self._remember("momentum_buffer", np.zeros_like) if self.momentum else []

    def _numbers(self):
        """(lr, momentum), checked: both may have been set since the last step."""
        return _number("SGD", "lr", self.lr), _number("SGD", "momentum", self.momentum, below=1)

    def step(self):
        """Change every parameter that has a gradient."""
        lr, momentum = self._numbers()
        for number, parameter in self._learning():
            buffer = self._buffers[number] if momentum else parameter.grad
            in_blocks(self._change, parameter.data, parameter.grad, buffer, lr=lr, momentum=momentum)

    @staticmethod
    def _change(p, g, buffer, lr, momentum):
        """The formula above for some rows of a parameter, in place."""
        if momentum:
            buffer *= momentum
            buffer += g
        p -= lr * buffer


class AdamW(_Optimizer):
    """Adam with decoupled weight decay. Step t with gradient g changes a parameter p in this order:

    p *= 1 - lr * weight_decay                  only where p is a matrix, see below
    m += (1 - beta1) * (g - m)                  m: running average of g
    v += (1 - beta2) * (g * g - v)              v: running average of g squared
    p -= lr * m' / (sqrt(v') + eps)             m' = m / (1 - beta1^t), v' = v / (1 - beta2^t)

    Only parameters of rank 2 (linear weights) and 4 (convolution filters) decay: biases, norms (rank 1), the CLS and
    mask tokens (1, 1, D) and positions (1, T, D) do not. torch.optim.AdamW decays all that it is given.
    A parameter whose .grad is None is passed over, as in PyTorch: it does not decay, and its own t stays.
    The state holds t ("step", one number per parameter), m ("exp_avg") and v ("exp_avg_sq"), not lr and the rest.
    Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2, in PyTorch's form.
    """

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(parameters, lr)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self._numbers()
        self._steps = self._state["step"] = np.zeros(len(self.parameters), np.int64)
        self._averages = self._remember("exp_avg", np.zeros_like)
        self._squares = self._remember("exp_avg_sq", np.zeros_like)

    def _numbers(self):
        """(lr, betas, eps, weight_decay), checked: each may have been set since the last step."""
        if np.shape(self.betas) != (2,):
            raise MinivitError("AdamW", f"betas={self.betas!r}.", rule="betas is a pair (beta1, beta2).")
        betas = [_number("AdamW", f"betas[{i}]", beta, below=1) for i, beta in enumerate(self.betas)]
        lr, eps, decay = (_number("AdamW", name, getattr(self, name)) for name in ("lr", "eps", "weight_decay"))
        return lr, betas, eps, decay

    def step(self):
        """Change every parameter that has a gradient."""
        lr, betas, least, decay = self._numbers()
        beta1, beta2 = betas
        for number, parameter in self._learning():
            self._steps[number] = t = int(self._steps[number]) + 1
            # the fraction's two sides are multiplied by root, which is one pass over the arrays less
            root = math.sqrt(1 - beta2**t)
            step_size, eps = lr * root / (1 - beta1**t), least * root
            keep = 1 - lr * decay if parameter.ndim in (2, 4) else 1
            arrays = parameter.data, parameter.grad, self._averages[number], self._squares[number]
            in_blocks(self._change, *arrays, betas=betas, keep=keep, step_size=step_size, eps=eps)

    @staticmethod
    def _change(p, g, m, v, betas, keep, step_size, eps):
        """The four lines above for some rows of a parameter, in place."""
        p *= keep
        change = np.empty_like(p)
        _move(m, g, betas[0], change)
        np.multiply(g, g, out=change)
        _move(v, change, betas[1], change)
        np.sqrt(v, out=change)
        change += eps
        np.divide(m, change, out=change)
        change *= step_size
        p -= change


class ExponentialMovingAverage(_Stateful):
    """A running average of the weights, which often classifies better than the weights of the last step.

    It starts as a copy of them. Each update(): average += (1 - d) * (p - average), d = min(decay, (1 + t) / (10 + t))
    with t the updates before this one, so that the random start is soon forgotten.
    The state holds t ("updates") and the averages ("average.0", ...), not decay.
    Source: tf.train.ExponentialMovingAverage with num_updates.
    """

    def __init__(self, parameters, decay=0.999):
        super().__init__(parameters)
        self.decay = _number("ExponentialMovingAverage", "decay", decay, below=1)
        self._updates = self._state["updates"] = np.zeros((), np.int64)
        self._averages = self._remember("average", np.copy)

    def update(self):
        """Take the parameters as they are now into the average."""
        decay = _number("ExponentialMovingAverage", "decay", self.decay, below=1)
        t = int(self._updates)
        self._updates += 1
        keep = min(decay, (1 + t) / (10 + t))
        for parameter, average in zip(self.parameters, self._averages, strict=True):
            in_blocks(self._change, parameter.data, average, keep=keep)

    @staticmethod
    def _change(p, average, keep):
        _move(average, p, keep, np.empty_like(average))

    @contextlib.contextmanager
    def applied(self):
        """`with ema.applied():` the model has the averages, read-only, to evaluate or save; then its own weights."""
        trained = [parameter.data for parameter in self.parameters]
        try:
            for parameter, average in zip(self.parameters, self._averages, strict=True):
                parameter.data = np.broadcast_to(average, average.shape)  # a read-only view
            yield
        finally:
            for parameter, data in zip(self.parameters, trained, strict=True):
                parameter.data = data


def _move(average, value, keep, spare):
    """average += (1 - keep) * (value - average), in place; the last array may be written to.

    It starts from the one that counts more: of a large number, no digits are left for the small one beside it.
    """
    if keep < 0.5:
        average -= value
        average *= keep
        average += value
    else:
        np.subtract(value, average, out=spare)
        spare *= 1 - keep
        average += spare


def warmup_cosine(total_steps, warmup_steps=0, final=0.0):
    """A learning-rate schedule: straight up for warmup_steps, then half a cosine down to `final`.

    Returns schedule(step), the factor on the base learning rate in step 0, 1, ..., total_steps - 1. With w warm-up
    steps: 1 / (w + 1), 2 / (w + 1), ..., 1 in step w, and `final` only after the last step: no step has a rate of 0.
    The factor depends on the step alone: to resume, go on counting.
    Source: Loshchilov and Hutter 2017, "SGDR", equation 5, without restarts.
    """
    _number("warmup_cosine", "total_steps", total_steps, least=1)
    _number("warmup_cosine", "warmup_steps", warmup_steps, below=total_steps)
    _number("warmup_cosine", "final", final, below=1)

    def schedule(step):
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        done = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

    return schedule


def clip_grad_norm(parameters, max_norm):
    """Scale all gradients down together, in place, so that their norm is at most max_norm (math.inf: only measure).

    The norm is that of all gradients as one vector, summed in float64; the factor max_norm / (norm + 1e-6) is used
    where it is below 1, as in PyTorch. Returns the norm before clipping, a float: if NaN or infinite, nothing was
    scaled, and a step would spoil the weights.
    """
    if max_norm != math.inf:
        _number("clip_grad_norm", "max_norm", max_norm)
    gradients = [p.grad for p in _checked("clip_grad_norm", parameters) if p.grad is not None]
    norm = math.sqrt(sum(np.einsum("i,i", g.ravel(), g.ravel(), dtype=np.float64) for g in gradients))
    scale = max_norm / (norm + 1e-6)
    if scale < 1 and math.isfinite(norm):
        for gradient in gradients:
            np.multiply(gradient, scale, out=gradient)
    return norm


def _number(where, name, value, least=0, below=math.inf):
    """The value as a Python float, if it is a number with least <= value < below."""
    if not (isinstance(value, Real) and least <= value < below):
        raise MinivitError(where, f"{name} is {value!r}.", rule=f"{name} is a number, {least} <= {name} < {below}.")
    return float(value)


def _check_gradients(where, parameters):
    """Refuse gradients that NumPy would broadcast or convert: each is an array of its parameter's shape and dtype."""
    given = [(n, p.data, p.grad) for n, p in enumerate(parameters) if p.grad is not None]
    problems = [
        f"number {n}: the parameter is {_kind(p)}, its gradient {_kind(g)}."
        for n, p, g in given
        if not (isinstance(g, (np.ndarray, np.generic)) and g.shape == p.shape and g.dtype == p.dtype)
    ]
    if problems:
        what = f"{len(problems)} of {len(given)} gradients do not fit:"
        rule = "a gradient is an array with the shape and dtype of its parameter."
        raise ShapeError(where, "\n    ".join([what, *shortened(problems)]), rule, "p.grad is what backward() made.")


def _kind(x):
    """What came for an array, for a message."""
    return f"{x.shape} {x.dtype}" if isinstance(x, (np.ndarray, np.generic)) else f"a {type(x).__name__}"


def _checked(where, parameters):
    """The parameters as a list: at least one, all of them Tensors that a step can change."""
    parameters = list(parameters) if isinstance(parameters, Iterable) else [parameters]
    first = {id(p): n for n, p in reversed(list(enumerate(parameters)))}
    problems = [f"number {n} {fault}" for n, p in enumerate(parameters) if (fault := _fault(p, first[id(p)] < n))]
    if problems or not parameters:
        what = f"{len(problems)} of {len(parameters)} parameters cannot be learned:" if parameters else "no parameters."
        raise MinivitError(where, "\n    ".join([what, *shortened(problems)]), "a list of Tensors: model.parameters().")
    return parameters


def _fault(parameter, again):
    """Why a step could not change this parameter, or None; again: it was in the list before."""
    if not isinstance(parameter, Tensor):
        return f"is a {type(parameter).__name__}, not a Tensor."
    if parameter._node is not None:  # its .grad would stay None for ever, without a word
        return f"{parameter.shape} was computed by {parameter._node.op}: pass what it was computed from."
    if not np.asarray(parameter.data).flags.writeable:
        return f"{parameter.shape} is read-only: a model built under nn.meta() needs load_state_dict() first."
    return f"{parameter.shape} is in the list twice." if again else None


def _forms(arrays):
    """What an array must have in common with the one it is copied into: shape and float or int, as text."""
    return {name: f"{array.shape} {array.dtype.name.rstrip('0123456789')}" for name, array in arrays.items()}
