"""minivit: the Vision Transformer from pixels to gradients, in NumPy, for a class to read."""

import importlib

from . import autograd, checkpoint, errors, nn, notebook, ops, optim, threads, vit
from .autograd import Tensor, differentiable, no_grad
from .gradcheck import gradcheck
from .threads import get_num_threads, set_num_threads

__version__ = "0.1.0"

# they bring Pillow, matplotlib and more, which not every program needs
_LAZY = ("augment", "commands", "datasets", "exercises", "images", "lens", "lessons", "plots", "recipes", "training")

__all__ = [
    "Tensor",
    "__version__",
    "autograd",
    "checkpoint",
    "differentiable",
    "errors",
    "get_num_threads",
    "gradcheck",
    "nn",
    "no_grad",
    "notebook",
    "ops",
    "optim",
    "set_num_threads",
    "threads",
    "vit",
    *_LAZY,
]


def __getattr__(name):
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__
