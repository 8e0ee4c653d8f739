"""What can go wrong with a graph: looked for, and told. Nothing here changes a number that is right.

These functions know a Tensor by its attributes (data, requires_grad, _node, _version), since autograd.py is above them.
"""

import contextlib
import math
import warnings

import numpy as np

from ..errors import GraphError, MinivitError, ShapeError
from .vocabulary import CALLS, refuse_options


def array(data, requires_grad, recording):
    """The data of a Tensor as an array of numbers, of floats where a gradient is wanted."""
    if not isinstance(requires_grad, (bool, np.bool_)):
        raise MinivitError(
            "Tensor",
            f"requires_grad is {requires_grad!r}.",
            rule="Tensor(data, requires_grad=False): all numbers come as one argument.",
            hint="Tensor([2.0, 3.0]) of two numbers; Tensor(np.zeros((2, 3))) of a shape.",
        )
    try:
        made = np.asarray(data)
    except ValueError as error:  # a ragged list
        raise ShapeError("Tensor", f"these numbers do not form an array ({error}).") from error
    if made.dtype.kind not in "fiub":
        raise ShapeError("Tensor", f"cannot hold data of dtype {made.dtype}.", hint="use numbers.")
    if requires_grad:
        _learnable(made)
    if isinstance(data, (list, tuple)) and not requires_grad and recording and any(map(waits, data)):
        warnings.warn(
            "a list of tensors gives their numbers, through which no gradient comes back.\n"
            "  hint: ops.stack(tensors); where no gradient is wanted, take t.detach().",
            stacklevel=3,
        )
    return made


def _learnable(array):
    """Refuse an array that cannot have a gradient."""
    if array.dtype not in (np.float32, np.float64):
        raise ShapeError(
            "Tensor",
            f"requires_grad=True, but the data are {array.dtype}.",
            rule="only float32 and float64 numbers have gradients.",
            hint="convert first: np.asarray(data, dtype=np.float32).",
        )


def set_requires_grad(tensor, value):
    """What `tensor.requires_grad = value` does; of an inner tensor it stays True."""
    if not value:
        leaf("Tensor.requires_grad = False", tensor)
    else:
        _learnable(tensor.data)
    tensor._requires_grad = value


def leaf(where, tensor):
    """Refuse an inner tensor where only a leaf will do."""
    if tensor._node is not None:
        raise GraphError(
            where,
            f"this tensor {tensor.shape} was computed by {tensor._node.op}.",
            rule="only a leaf will do, a tensor that has no past.",
            hint="t.detach() has the same numbers and no past; or compute under no_grad().",
        )


def waits(x):
    """Whether a backward() may still come through x: a leaf that is learned, or a tensor whose graph is not freed."""
    node = getattr(x, "_node", None)
    return getattr(x, "requires_grad", False) and (node is None or node.backward is not None)


def has_past(where, tensor, hint=None):
    """Refuse a tensor through which no gradient comes back."""
    if not tensor.requires_grad:
        raise GraphError(where, "this tensor does not depend on anything that requires a gradient.", hint=hint)


def arriving(tensor, grad):
    """The gradient that arrives at the tensor whose backward() is called: an array of its shape and dtype."""
    hint = "make a leaf with Tensor(data, requires_grad=True), and do not compute under no_grad()."
    has_past("backward", tensor, hint)
    if grad is None and tensor.size != 1:
        raise ShapeError(
            "backward",
            f"a tensor of shape {tensor.shape} is not one number.",
            rule="the gradient is that of one number, a loss.",
            hint="call .sum() or .mean() first, or pass the gradient that arrives: t.backward(grad).",
        )
    dy = np.ones_like(tensor.data) if grad is None else np.array(grad, dtype=tensor.dtype)
    if dy.shape != tensor.shape:
        raise ShapeError("backward", f"grad has shape {dy.shape}, the tensor {tensor.shape}.")
    return dy


def bound(name, signature, args, kwargs):
    """The arguments of a call by position, as far as they have one: (args, kwargs)."""
    try:
        found = signature.bind(*args, **kwargs)
    except TypeError as error:
        refuse_options(name, signature, kwargs)
        if name in CALLS:
            raise MinivitError(name, f"{error}.", hint=f"{CALLS[name]}.") from None
        raise TypeError(f"{name}{signature}: {error}") from None
    found.apply_defaults()
    return found.args, found.kwargs


def value_and_backward(name, result):
    """What an op returned, refused if it is not that pair."""
    if not (isinstance(result, tuple) and len(result) == 2 and callable(result[1])):
        raise GraphError(name, "an op returns (value, backward), an array and a function of dy.")
    return result


def explain(error, name, inputs):
    """Raise what Python or NumPy raised in an op as an error with the op's name and shapes; return if it is clear."""
    if isinstance(error, MinivitError):
        return
    if isinstance(error, (ValueError, IndexError)):
        shapes = ", ".join(str(x.shape) for x in inputs)
        raise ShapeError(name, str(error), rule=f"the operands have shapes {shapes}.") from error
    if isinstance(error, TypeError) and error.__traceback__.tb_next is not None:  # else it was called wrongly
        raise MinivitError(name, f"{error}.", hint="look at the types of its arguments.") from error
    if isinstance(error, TypeError) and name in CALLS:
        raise MinivitError(name, f"{error}.", hint=f"{CALLS[name]}.") from error
    if isinstance(error, AttributeError) and isinstance(error.obj, (list, tuple, int, float, str, type(None))):
        came = f"needs an array, and a {type(error.obj).__name__} came."
        raise ShapeError(name, came, hint="convert it first: np.asarray(data).") from error


def versions(parents):
    """How often each of the leaves among a node's parents was changed by an optimiser."""
    return [parent._version for parent in parents if hasattr(parent, "_version")]


def walkable(order):
    """GraphError, before anything is computed, for a node whose backward cannot be right any more."""
    for node in reversed(order):
        if node.backward is None:
            raise GraphError(
                "backward",
                f"the graph behind this tensor (at op {node.op!r}) was already walked and freed.",
                rule="backward() frees the graph, so each forward pass has one backward pass.",
                hint="run the forward pass again, or add the losses up and call backward() once.",
            )
        if node.versions != versions(node.parents):
            raise GraphError(
                node.op,
                "a parameter was changed by an optimiser between forward and backward.",
                rule="backward computes with the numbers that forward had.",
                hint="in each step: forward, backward, then step(); of two losses, both backwards before the step.",
            )


def is_shared(gradient, gradients, node):
    """Whether somebody else may hold the same array as this gradient of the node: a leaf must not keep it then."""
    if gradient.base is not None or sum(gradient is other for other in gradients) > 1:
        return True
    return any(gradient is getattr(parent, "data", None) for parent in node.parents)


def gradients(node, dy):
    """The gradients of the node's array arguments, each checked to be of its argument's shape and dtype."""
    dy = dy.view()
    dy.flags.writeable = False  # another node may get the same array
    try:
        made = node.backward(dy)
    except MinivitError:
        raise
    except (ValueError, IndexError, TypeError) as error:
        hint = "dy is not the op's to change: make a new array." if "read-only" in str(error) else None
        raise MinivitError(node.op, f"backward, with dy {dy.shape}: {error}.", hint=hint) from error
    if not isinstance(made, (tuple, list)):
        made = (made,)
    while len(made) > len(node.parents) and made[-1] is None:  # of options: a list of labels, an index
        made = made[:-1]
    if len(made) != len(node.parents):
        raise GraphError(
            node.op,
            f"backward returned {len(made)} gradients for {len(node.parents)} array arguments.",
            rule="one gradient for each array argument, in their order; None for what has no gradient.",
        )
    return [_fitting(node, *each) for each in enumerate(zip(node.parents, made, strict=True))]


def _fitting(node, position, pair):
    """One gradient of a node in its argument's dtype, refused where its shape is not the argument's."""
    parent, gradient = pair
    if parent is None or gradient is None:
        return None
    gradient = np.asarray(gradient)
    if parent.dtype.kind == "f" and gradient.dtype == node.dtype:  # float32 met float64: each gets its own
        gradient = gradient.astype(parent.dtype, copy=False)
    if gradient.shape != parent.shape or gradient.dtype != parent.dtype:
        raise ShapeError(
            node.op,
            f"backward made a gradient {gradient.shape} {gradient.dtype} for array argument {position}, "
            f"which is {parent.shape} {parent.dtype}.",
            rule="a gradient has the shape and dtype of what it is the gradient of.",
            hint=_hint(gradient, parent),
        )
    return gradient


def _hint(gradient, parent):
    """What most often makes a gradient of a wrong dtype or shape."""
    came, wanted = gradient.shape, parent.shape
    if parent.dtype.kind != "f":
        return "whole numbers cannot be learned: give the tensor's data a dtype of floats."
    if came == wanted:
        return "a plain np.zeros or np.ones is float64; make new arrays with dtype=dy.dtype."
    if sorted(came) == sorted(wanted):
        return "a transpose is missing or one too many, or two gradients are in each other's place."
    if gradient.size == math.prod(wanted):
        return f"the numbers are as many: a reshape to {wanted} is missing."
    with contextlib.suppress(ValueError):  # they do not broadcast
        if np.broadcast_shapes(came, wanted) == wanted:
            return "the adjoint of a sum is broadcasting: np.broadcast_to(dy, x.shape)."
        if np.broadcast_shapes(came, wanted) == came:
            return "the adjoint of broadcasting is a sum: see unbroadcast in minivit/ops/arithmetic.py."
    return "take forward's steps in reverse: what it left out has the gradient 0, what it copied adds up."
