"""Modules: parameters with names, and the layers that the Vision Transformer is built from, named as in PyTorch.

What draws numbers takes `rng`. None: the package's own generator, which minivit.manual_seed(n) restarts, so that two
layers made one after the other differ and a run still repeats. A Generator: its next numbers. A seed: the same numbers
each time, so two layers of one shape and one seed are equal. A class of your own that takes rng begins with
`rng = nn.generator(rng)` and hands that Generator to each of its layers.
"""

import contextlib
import inspect
import math
import sys

import numpy as np

from . import ops
from .autograd import Tensor
from .errors import MinivitError, ShapeError, check_names, check_whole
from .machinery.random import generator
from .machinery.vocabulary import LAYERS, MODULES, OPTIONS, explains, refuse_options, unknown

# by the names that Hugging Face configs use
ACTIVATIONS = {
    "gelu": ops.gelu,
    "gelu_new": ops.gelu_tanh,
    "gelu_pytorch_tanh": ops.gelu_tanh,
    "relu": ops.relu,
    "tanh": ops.tanh,
    "gelu_python": ops.gelu,
    "gelu_python_tanh": ops.gelu_tanh,
    "gelu_fast": ops.gelu_tanh,
    "gelu_accurate": ops.gelu_tanh,
    "quick_gelu": ops.quick_gelu,
    "sigmoid": ops.sigmoid,
    "silu": ops.silu,
    "swish": ops.silu,
}


class Parameter(Tensor):
    """A Tensor that a Module learns: a leaf that requires a gradient.

    data: floats. float64, as np.ones(D) is, stays float64, and so does all that the model computes from it;
    nn.constant((D,), 1) is float32, as the layers are.
    """

    __slots__ = ()

    def __init__(self, data):
        super().__init__(data, requires_grad=True)


_meta = False  # inside `with meta():`


@contextlib.contextmanager
def meta():
    """Inside `with meta():` parameters get a shape and no memory, as on PyTorch's meta device.

    Each is a read-only 0 of its shape: for counting the parameters of a model too large for this machine, and for
    building one whose numbers load_state_dict brings.
    """
    global _meta
    before, _meta = _meta, True
    try:
        yield
    finally:
        _meta = before


def normal(shape, std, rng=None):
    """A float32 Parameter drawn from a normal distribution of mean 0."""
    if _meta:
        return constant(shape, 0)
    data = generator(rng).standard_normal(shape, dtype=np.float32)
    data *= std
    return Parameter(data)


def uniform(shape, bound, rng=None):
    """A float32 Parameter drawn evenly from -bound to bound."""
    if _meta:
        return constant(shape, 0)
    return Parameter(generator(rng).uniform(-bound, bound, shape).astype(np.float32))


def constant(shape, value):
    """A float32 Parameter that starts as one value."""
    return Parameter(np.broadcast_to(np.float32(0), shape) if _meta else np.full(shape, value, np.float32))


def __getattr__(name):
    raise unknown(sys.modules[__name__], "nn", name, LAYERS)


class Module:
    """A part of a model. Its attributes that are Parameters or Modules are found by their names, in their order.

    A subclass sets them in __init__ and defines forward(); calling the module calls forward.
    """

    training = True
    device = "cpu"

    def __new__(cls, *args, **options):
        if not OPTIONS.keys().isdisjoint(options):
            refuse_options(cls.__name__, inspect.signature(cls.__init__), options)
        return super().__new__(cls)

    def __init__(self):  # object's, beside a __new__, would take whatever comes
        pass

    def __setattr__(self, name, value):
        if isinstance(vars(self).get(name), Parameter) and not isinstance(value, Parameter):
            raise MinivitError(
                type(self).__name__,
                f"{name} is a Parameter and would be lost.",
                hint=f"change its array: module.{name}.data = array; or set another nn.Parameter(array).",
            )
        if isinstance(value, (list, tuple, dict, Tensor)) and not isinstance(value, Parameter):
            self._refuse_lost(name, value)
        super().__setattr__(name, value)

    def _refuse_lost(self, name, value):
        """MinivitError if Modules, Parameters or leaves to be learned are in value, and not among this module's own."""
        items = [value] if isinstance(value, Tensor) else value.values() if isinstance(value, dict) else value
        learned = [x for x in items if isinstance(x, (Module, Parameter)) or _is_learned(x)]
        own = {id(x) for x in (*self.modules(), *self.parameters())} if learned else ()
        lost = [type(x).__name__ for x in learned if id(x) not in own]
        if lost:
            holds = "that requires a gradient" if isinstance(value, Tensor) else f"of {lost[0]}"
            raise MinivitError(
                type(self).__name__,
                f"{name} is a {type(value).__name__} {holds} and would be lost: neither learned nor saved.",
                rule="found are the attributes that are themselves a Module or an nn.Parameter.",
                hint=f"self.{name} = nn.ModuleList(modules), or nn.Parameter(array) of an array.",
            )

    def __getattr__(self, name):
        raise unknown(self, type(self).__name__, name, MODULES)

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)

    def forward(self, *args, **kwargs):
        raise MinivitError(type(self).__name__, "has no forward().", hint="define forward(self, x) in the class.")

    def named_children(self):
        """The modules directly inside, as (name, module)."""
        return [(name, value) for name, value in vars(self).items() if isinstance(value, Module)]

    def modules(self):
        """This module and every one inside it, at any depth."""
        return [self, *(inner for _, child in self.named_children() for inner in child.modules())]

    def named_modules(self, prefix=""):
        """This module (as prefix) and every one inside it, as (dotted name, module); a shared one by its first name."""
        found = {id(self): (prefix, self)}
        for name, child in self.named_children():
            for inner in child.named_modules(f"{prefix}.{name}" if prefix else name):
                found.setdefault(id(inner[1]), inner)
        return list(found.values())

    def named_parameters(self, prefix=""):
        """Every Parameter as (dotted name, Parameter), in order of definition; a shared one by its first name."""
        found = [(prefix + name, value) for name, value in vars(self).items() if isinstance(value, Parameter)]
        for name, child in self.named_children():
            found += child.named_parameters(f"{prefix}{name}.")
        first = {id(parameter): (name, parameter) for name, parameter in reversed(found)}
        return [(name, parameter) for name, parameter in found if first[id(parameter)][0] == name]

    def parameters(self):
        """Every Parameter, as a list, in the order of named_parameters; a shared one once.

        PyTorch's next(model.parameters()) is model.parameters()[0].
        """
        found = (value for module in self.modules() for value in vars(module).values() if isinstance(value, Parameter))
        return list({id(parameter): parameter for parameter in found}.values())

    def num_parameters(self):
        """How many numbers the parameters hold."""
        return sum(parameter.size for parameter in self.parameters())

    def state_dict(self):
        """Copies of the parameters' arrays by name: they stay as they are while training goes on."""
        return {name: parameter.data.copy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state_dict, strict=True, assign=False):
        """Set the parameters to the arrays of a state dict, each in its parameter's dtype.

        strict: refuse missing and unexpected names, too. assign: take the arrays themselves instead of copies.
        A ShapeError lists everything that does not fit, and then nothing was changed.
        Returns (missing, unexpected), two lists of names.
        """
        parameters = dict(self.named_parameters())
        shapes = {name: parameter.shape for name, parameter in parameters.items()}
        tensors = {name: x if isinstance(x, Tensor) else Tensor(x) for name, x in state_dict.items()}
        given = {name: x.shape for name, x in tensors.items()}
        missing, unexpected = check_names(shapes, given, type(self).__name__, strict)
        for name, parameter in parameters.items():
            if name in tensors:
                parameter.data = np.array(tensors[name].data, parameter.dtype, copy=None if assign else True)
        return missing, unexpected

    def train(self, mode=True):
        """Training mode: dropout drops. Returns the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self):
        """Evaluation mode: dropout does nothing. Returns the module."""
        return self.train(False)

    @contextlib.contextmanager
    def evaluating(self):
        """`with model.evaluating():` evaluation mode; then each module is in the mode that it was in."""
        modes = [(module, module.training) for module in self.modules()]
        try:
            yield self.eval()
        finally:
            for module, mode in modes:
                module.training = mode

    @explains
    def zero_grad(self):
        """Forget all gradients: every parameter's .grad is None again."""
        for parameter in self.parameters():
            parameter.grad = None

    def requires_grad_(self, requires_grad=True):
        """Learn the parameters, or freeze them where it is False. Returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    @explains
    def to(self, dtype):
        """Convert every parameter to float32 or float64, and forget the gradients. Returns the module.

        "cpu" is where they are.
        """
        if isinstance(dtype, str) and dtype == "cpu":
            return self
        if dtype not in (np.float32, np.float64, "float32", "float64"):
            hint = "a device: leave it out." if isinstance(dtype, str) else None
            raise MinivitError(f"{type(self).__name__}.to", f"{dtype!r} is not float32 or float64.", hint=hint)
        for parameter in self.parameters():
            parameter.data, parameter.grad = parameter.data.astype(dtype, copy=False), None
        return self

    def extra_repr(self):
        """What stands in the brackets of this module's repr."""
        return ""

    def __repr__(self):
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        return "\n  ".join([f"{type(self).__name__}({self.extra_repr()}", *lines]) + "\n)"


class Linear(Module):
    """y = x @ weight^T + bias: (..., in_features) -> (..., out_features).

    std: of the normal distribution that the weight is drawn from, bias then 0; None draws both evenly from
    +-1 / sqrt(in_features), as PyTorch does.
    """

    def __init__(self, in_features, out_features, bias=True, std=None, rng=None):
        _check_sizes("Linear", in_features=in_features, out_features=out_features)
        self.weight, self.bias = _weight_and_bias((out_features, in_features), bias, std, rng)

    def forward(self, x):
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self):
        out_features, in_features = self.weight.shape
        return f"in_features={in_features}, out_features={out_features}, bias={self.bias is not None}"


class Conv2d(Module):
    """Convolution without padding: (B, in_channels, H, W) -> (B, out_channels, h, w); see ops.conv2d.

    kernel_size, stride: a number or (down, right); std: as in Linear.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, *, bias=True, std=None, rng=None):
        if np.shape(kernel_size) not in ((), (2,)):
            raise MinivitError("Conv2d", f"kernel_size={kernel_size!r}.", rule="a number, or a pair (down, right).")
        kh, kw = np.broadcast_to(kernel_size, 2).tolist()
        _check_sizes("Conv2d", in_channels=in_channels, out_channels=out_channels, kernel_size=kh)
        _check_sizes("Conv2d", kernel_size=kw)
        self.stride = stride
        self.weight, self.bias = _weight_and_bias((out_channels, in_channels, kh, kw), bias, std, rng)

    def forward(self, x):
        return ops.conv2d(x, self.weight, self.bias, self.stride)

    def extra_repr(self):
        out_channels, in_channels, *kernel = self.weight.shape
        return f"{in_channels}, {out_channels}, kernel_size={tuple(kernel)}, stride={self.stride}"


def _is_learned(x):
    return isinstance(x, Tensor) and x.requires_grad and x.is_leaf


def _check_sizes(where, **sizes):
    for name, size in sizes.items():
        check_whole(where, name, size, most=2**31)


def _weight_and_bias(shape, bias, std, rng):
    """The first parameters of a Linear or Conv2d (no bias: None)."""
    rng = generator(rng)
    if std is None:
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        return uniform(shape, bound, rng), uniform(shape[:1], bound, rng) if bias else None
    return normal(shape, std, rng), constant(shape[:1], 0) if bias else None


class LayerNorm(Module):
    """Layer norm over the last axis, of size normalized_shape, with a learned scale (1 at first) and shift (0)."""

    def __init__(self, normalized_shape, eps=1e-5):
        _check_sizes("LayerNorm", normalized_shape=normalized_shape)
        self.eps = eps
        self.weight = constant((normalized_shape,), 1)
        self.bias = constant((normalized_shape,), 0)

    def forward(self, x):
        return ops.layer_norm(x, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return f"{self.weight.size}, eps={self.eps}"


class Dropout(Module):
    """While training, drop each number with probability p; rng: a Generator (shared and moved on), a seed or None."""

    def __init__(self, p=0.5, rng=None):
        self.p, self.rng = p, generator(rng)

    def forward(self, x):
        return ops.dropout(x, self.p, self.rng, self.training)

    def extra_repr(self):
        return f"p={self.p}"


class GELU(Module):
    """GELU; approximate="tanh" is the formula that some checkpoints were trained with."""

    def __init__(self, approximate="none"):
        if approximate not in ("none", "tanh"):
            raise MinivitError("GELU", f"approximate={approximate!r}.", rule='it is "none" or "tanh"')
        self.approximate = approximate

    def forward(self, x):
        return ops.gelu_tanh(x) if self.approximate == "tanh" else ops.gelu(x)

    def extra_repr(self):
        return f"approximate={self.approximate!r}"


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x):
        return ops.relu(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x):
        return ops.tanh(x)


class Sigmoid(Module):
    """1 / (1 + e^-x)."""

    def forward(self, x):
        return ops.sigmoid(x)


class SiLU(Module):
    """x * sigmoid(x)."""

    def forward(self, x):
        return ops.silu(x)


class Softmax(Module):
    """Scores to numbers that sum to 1 along the axis `dim`."""

    def __init__(self, dim=-1):
        self.dim = dim

    def forward(self, x):
        return ops.softmax(x, self.dim)

    def extra_repr(self):
        return f"dim={self.dim}"


class Identity(Module):
    """x as it is: in the place of a layer that is left out. Arguments are those of that layer, and do nothing."""

    def __init__(self, *args, **kwargs):
        pass

    def forward(self, x):
        return x


class Flatten(Module):
    """The axes start_dim to end_dim as one: (B, C, H, W) -> (B, C * H * W)."""

    def __init__(self, start_dim=1, end_dim=-1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x):
        return ops.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self):
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class CrossEntropyLoss(Module):
    """Mean cross-entropy of logits (B, K) and labels (B,), class numbers; see ops.cross_entropy."""

    def __init__(self, *, label_smoothing=0.0):
        self.label_smoothing = label_smoothing

    def forward(self, logits, labels):
        return ops.cross_entropy(logits, labels, self.label_smoothing)

    def extra_repr(self):
        return f"label_smoothing={self.label_smoothing}"


class PixelShuffle(Module):
    """Channels to pixels, the way back from patches: (B, C * r * r, h, w) -> (B, C, h * r, w * r), r = upscale_factor.

    Channel c * r * r + i * r + j becomes pixel (i, j) of channel c in each r x r square.
    Source: Shi et al. 2016, section 2.2; as torch.nn.PixelShuffle.
    """

    def __init__(self, upscale_factor):
        self.upscale_factor = upscale_factor

    def forward(self, x):
        B, channels, h, w = x.shape
        r = self.upscale_factor
        if channels % (r * r):
            raise ShapeError(
                "PixelShuffle",
                f"x {x.shape} has {channels} channels.",
                rule=f"channels % (r * r) == 0, but {channels} % {r * r} = {channels % (r * r)}",
            )
        x = x.reshape(B, channels // (r * r), r, r, h, w)  # (B, C, r, r, h, w)
        return x.transpose(0, 1, 4, 2, 5, 3).reshape(B, -1, h * r, w * r)  # (B, C, h * r, w * r)

    def extra_repr(self):
        return f"{self.upscale_factor}"


class ModuleList(Module):
    """Modules in a row, by number: a list whose parameters are found."""

    def __init__(self, modules=()):
        for module in modules:
            self.append(module)

    def append(self, module):
        """Put one more at the end. Returns the list."""
        self._put(str(len(self)), module)
        return self

    def _put(self, name, module):
        if not isinstance(module, Module):
            raise MinivitError(
                type(self).__name__, f"entry {name} is {module!r}.", rule="entries are Modules, as nn.GELU() is."
            )
        setattr(self, name, module)

    def __setitem__(self, index, module):
        self._put(list(dict(self.named_children()))[index], module)

    def __getitem__(self, index):
        return [module for _, module in self.named_children()][index]

    def __len__(self):
        return len(self.named_children())

    def __iter__(self):
        return iter([module for _, module in self.named_children()])


class Sequential(ModuleList):
    """Modules in a row, each fed with what the one before it gave."""

    def __init__(self, *modules):
        super().__init__(modules)

    def forward(self, x):
        for module in self:
            x = module(x)
        return x
