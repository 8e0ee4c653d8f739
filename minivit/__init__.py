"""minivit: the Vision Transformer from pixels to gradients, in NumPy, for a class to read."""

import importlib
import os
import sys

try:
    from . import autograd, config, errors, nn, notebook, ops, optim, vit, weights
    from .autograd import Tensor, differentiable, no_grad
    from .gradcheck import gradcheck
    from .machinery.random import manual_seed
    from .machinery.threads import get_num_threads, set_num_threads
    from .machinery.vocabulary import FUNCTIONS, recorded, unknown
except (KeyboardInterrupt, RuntimeError) as error:
    # Ctrl-C while the command `minivit` or `python -m minivit` starts: no program of somebody else's is to be asked.
    # Where it comes in the midst of a class, Python 3.11 makes a RuntimeError of it.
    command = os.path.basename(sys.argv[0]).partition(".")[0] in ("minivit", "-m")
    if command and KeyboardInterrupt in (type(error), type(error.__cause__)):
        raise SystemExit(130) from None
    raise

__version__ = "0.1.0"

# they bring Pillow, matplotlib and more, which not every program needs: name -> where it lives
_LAZY = {name: name for name in ("augment", "datasets", "images", "lens", "plots", "training")}
_LAZY["lessons"] = "course.lessons"

__all__ = [
    "Tensor",
    "__version__",
    "autograd",
    "config",
    "differentiable",
    "errors",
    "get_num_threads",
    "gradcheck",
    "manual_seed",
    "nn",
    "no_grad",
    "notebook",
    "ops",
    "optim",
    "set_num_threads",
    "vit",
    "weights",
    *_LAZY,
]


def __getattr__(name):
    if name in _LAZY:
        return importlib.import_module(f".{_LAZY[name]}", __name__)
    table = FUNCTIONS if name not in ops.__all__ else {name: recorded(name, vars(ops))}
    raise unknown(sys.modules[__name__], __name__, name, table)


def __dir__():
    return __all__
