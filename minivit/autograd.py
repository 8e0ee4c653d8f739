"""The engine: a Tensor remembers the op that made it, and backward() walks those ops in reverse.

An op is a function on arrays that returns its value and a function that carries a gradient back (see minivit/ops).
`@differentiable` makes such a function work on Tensors and records each call as a Node. Nodes, not Tensors, form the
graph: it keeps alive only what some backward needs.

There are no gradients of gradients: a backward computes on plain arrays and records nothing.
"""

import contextlib
import functools
import inspect
import math
import threading
import warnings
import weakref

import numpy as np

from .errors import GraphError, MinivitError, ShapeError

REGISTRY = {}  # "module.function" -> op, for every @differentiable function: the gradient-check test walks it

_mode = threading.local()  # recording is switched off for one thread at a time
_adding = threading.Lock()  # two threads may add to the gradient of one parameter


class Tensor:
    """An array, and the memory of how it was computed.

    data: anything np.asarray takes; it is shared, not copied, and keeps its dtype.
    requires_grad: record what happens to this tensor, so that backward() can fill its `.grad`.

    A tensor made by the user is a leaf: each backward() adds to its `.grad` (set it to None to start afresh). A
    tensor made by an op keeps a gradient only after `retain_grad()`. The operators and methods (`+`, `@`, `.sum()`,
    ...) are ops: see minivit/ops/__init__.py.
    """

    __slots__ = ("__weakref__", "_node", "_version", "data", "grad", "requires_grad")
    __array_ufunc__ = None  # so that array + tensor is left to Tensor.__radd__

    def __init__(self, data, requires_grad=False):
        try:
            self.data = np.asarray(data)
        except ValueError as error:  # a ragged list
            raise ShapeError("Tensor", f"these numbers do not form an array ({error}).") from error
        if self.data.dtype.kind not in "fiub":
            raise ShapeError("Tensor", f"cannot hold data of dtype {self.data.dtype}.", hint="use numbers.")
        if requires_grad and self.data.dtype not in (np.float32, np.float64):
            raise ShapeError(
                "Tensor",
                f"requires_grad=True, but the data are {self.data.dtype}.",
                rule="only float32 and float64 numbers have gradients.",
                hint="convert first: np.asarray(data, dtype=np.float32).",
            )
        if isinstance(data, (list, tuple)) and not requires_grad and is_grad_enabled() and any(map(_waits, data)):
            warnings.warn(
                "a list of tensors gives their numbers, through which no gradient comes back.\n"
                "  hint: ops.concatenate([t[None] for t in tensors]); where no gradient is wanted, take t.detach().",
                stacklevel=2,
            )
        self.grad = None
        self.requires_grad = requires_grad
        self._node = None
        self._version = 0  # how many steps of an optimiser have changed it

    shape = property(lambda self: self.data.shape)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    dtype = property(lambda self: self.data.dtype)

    def numpy(self):
        """The array itself, shared with the tensor."""
        return self.data

    def item(self):
        """The one number in this tensor, as a Python number."""
        if self.size != 1:
            raise ShapeError("Tensor.item", f"a tensor of shape {self.shape} is not one number.")
        return self.data.item()

    def detach(self):
        """The same array in a new tensor that has no past."""
        return Tensor(self.data)

    def retain_grad(self):
        """Keep the gradient of this inner tensor too: backward() will fill its `.grad`."""
        if not self.requires_grad:
            raise GraphError("Tensor.retain_grad", "this tensor does not depend on anything that requires a gradient.")
        if self._node is not None:
            self._node.retained = weakref.ref(self)  # a circle would keep it alive where nobody calls backward()

    def backward(self, grad=None):
        """Add d(self)/d(leaf) to the `.grad` of every leaf this tensor was computed from, then free the graph.

        grad: an array of this tensor's shape, the gradient that arrives from above; without it the tensor must be
        one number (a loss), and 1 arrives. GraphError when there is nothing to walk, or when it was walked before.
        """
        if not self.requires_grad:
            raise GraphError(
                "backward",
                "this tensor does not depend on anything that requires a gradient.",
                hint="make a leaf with Tensor(data, requires_grad=True), and do not compute under no_grad().",
            )
        if grad is None and self.size != 1:
            raise ShapeError(
                "backward",
                f"a tensor of shape {self.shape} is not one number.",
                rule="the gradient is that of one number, a loss.",
                hint="call .sum() or .mean() first, or pass the gradient that arrives: t.backward(grad).",
            )
        dy = np.ones_like(self.data) if grad is None else np.array(grad, dtype=self.dtype)
        if dy.shape != self.shape:
            raise ShapeError("backward", f"grad has shape {dy.shape}, the tensor {self.shape}.")
        if self._node is None:
            _accumulate(self, dy)
        else:
            _walk(self._node, dy)

    def __array__(self, dtype=None, copy=None):
        if copy is False and dtype is not None and dtype != self.dtype:
            raise ValueError(f"cannot view {self.dtype} as {np.dtype(dtype)} without a copy")
        array = self.data if dtype is None else self.data.astype(dtype, copy=False)
        return array.copy() if copy else array

    def __len__(self):
        return len(self.data)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __bool__(self):
        return bool(self.data)

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __format__(self, form):
        return format(self.item(), form) if form else str(self)

    def __repr__(self):
        array = np.array2string(self.data, prefix="Tensor(", separator=", ", threshold=100)
        op = f", op={self._node.op}" if self._node else ""
        return f"Tensor({array}, shape={self.shape}, dtype={self.dtype}{op}, requires_grad={self.requires_grad})"


class Node:
    """One op that was called: its name, the shape and dtype it made, where its gradients go and how to get them.

    parents: for each array argument a Node (an inner tensor), a Tensor (a leaf) or None (needs no gradient).
    backward: dy -> the gradients of the array arguments; None once the graph is freed.
    versions: of the leaves among the parents, when forward had their numbers.
    """

    __slots__ = ("backward", "dtype", "op", "parents", "retained", "shape", "versions")

    def __init__(self, op, value, parents, backward):
        self.op, self.shape, self.dtype = op, value.shape, value.dtype
        self.parents, self.backward, self.retained = parents, backward, None
        self.versions = self.versions_now()

    def versions_now(self):
        """The versions of the leaves as they are now."""
        return [parent._version for parent in self.parents if isinstance(parent, Tensor)]


def is_grad_enabled():
    """Whether ops are being recorded in this thread."""
    return getattr(_mode, "recording", True)


@contextlib.contextmanager
def no_grad():
    """`with no_grad():` (or `@no_grad()` on a function): compute without recording; nothing is kept for backward."""
    before = is_grad_enabled()
    _mode.recording = False
    try:
        yield
    finally:
        _mode.recording = before


def differentiable(fn):
    """Make an op of fn: arrays in, `(value, backward)` out.

    fn takes arrays (and lists of arrays) and options; the op takes Tensors or arrays in their place. `backward(dy)`
    returns one gradient for each array argument, in their order, each of its argument's shape and dtype, and None for
    what has no gradient, such as integer labels. A single gradient needs no tuple.
    """
    signature = inspect.signature(fn)

    @functools.wraps(fn)
    def op(*args, **kwargs):
        if kwargs:  # a tensor may come by its name
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{fn.__name__}{signature}: {error}") from None
            bound.apply_defaults()
            args, kwargs = bound.args, bound.kwargs
        inputs = []
        arrays = [unwrap(argument, inputs) for argument in args]
        for name in kwargs:  # of fn(x, *, weight)
            kwargs[name] = unwrap(kwargs[name], inputs)
        try:
            result = fn(*arrays, **kwargs)
        except MinivitError:
            raise
        except (ValueError, IndexError) as error:
            shapes = ", ".join(str(x.shape) for x in inputs)
            raise ShapeError(fn.__name__, str(error), rule=f"the operands have shapes {shapes}.") from error
        except TypeError as error:
            if error.__traceback__.tb_next is None:  # fn was called with too few or too many arguments
                raise
            raise MinivitError(fn.__name__, f"{error}.", hint="look at the types of its arguments.") from error
        except AttributeError as error:
            if not isinstance(error.obj, (list, tuple, int, float, str, type(None))):
                raise
            came = f"needs an array, and a {type(error.obj).__name__} came."
            raise ShapeError(fn.__name__, came, hint="convert it first: np.asarray(data).") from error
        if not (isinstance(result, tuple) and len(result) == 2 and callable(result[1])):
            raise GraphError(fn.__name__, "an op returns (value, backward), an array and a function of dy.")
        value, backward = result
        out = Tensor(value)
        if is_grad_enabled():
            parents = tuple([_origin(x) for x in inputs])  # lists are quicker than generators
            if any([parent is not None for parent in parents]):
                out.requires_grad = True
                out._node = Node(fn.__name__, out, parents, backward)
        return out

    REGISTRY[f"{fn.__module__}.{fn.__qualname__}"] = op
    return op


def unwrap(argument, inputs):
    """The argument as fn takes it: arrays for Tensors, in lists too. Adds every array to `inputs`."""
    if isinstance(argument, (Tensor, np.ndarray)):
        inputs.append(argument)
        return argument.data if isinstance(argument, Tensor) else argument
    if isinstance(argument, (list, tuple)):
        items = [unwrap(item, inputs) for item in argument]
        return tuple(items) if isinstance(argument, tuple) else items
    return argument


def _origin(x):
    """Where the gradient of an array argument goes: a Node, a leaf Tensor, or nowhere."""
    if isinstance(x, Tensor) and x.requires_grad:
        return x if x._node is None else x._node
    return None


def _waits(x):
    """Whether a backward() may still come through x: a leaf that is learned, or a tensor whose graph is not freed."""
    origin = _origin(x)
    return origin is not None and (isinstance(origin, Tensor) or origin.backward is not None)


def _walk(root, dy):
    """Carry dy from root back to the leaves: every node once, after all that use it, freed as soon as it was used."""
    order = _topological_order(root)
    pending = {root: (dy, False)}  # node -> its gradient so far, and whether that array is ours to add to
    while order:
        node = order.pop()
        dy, _ = pending.pop(node, (None, False))
        retained = node.retained and node.retained()
        if retained is not None and dy is not None:
            _accumulate(retained, dy.copy())
        gradients = [] if dy is None else _gradients(node, dy)
        for parent, gradient in zip(node.parents, gradients, strict=False):
            if gradient is None:
                continue
            if isinstance(parent, Tensor):  # a leaf keeps the array, unless somebody else may hold it too
                shared = gradient.base is not None or sum(gradient is other for other in gradients) > 1
                shared = shared or any(gradient is leaf.data for leaf in node.parents if isinstance(leaf, Tensor))
                _accumulate(parent, gradient.copy() if shared else gradient)
            elif parent in pending:
                total, ours = pending[parent]
                pending[parent] = (np.add(total, gradient, out=total if ours else np.empty_like(total)), True)
            else:
                pending[parent] = (gradient, False)
        node.backward, node.parents, node.retained = None, (), None


def _accumulate(tensor, gradient):
    with _adding:
        tensor.grad = gradient if tensor.grad is None else np.asarray(tensor.grad + gradient)


def _topological_order(root):
    """Every node that root was computed from, each after all of its parents. A stack, since recursion has a limit.

    GraphError, before anything is computed, for a node whose backward cannot be right any more.
    """
    order, seen, stack = [], set(), [(root, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            if node.backward is None:
                raise GraphError(
                    "backward",
                    f"the graph behind this tensor (at op {node.op!r}) was already walked and freed.",
                    rule="backward() frees the graph, so each forward pass has one backward pass.",
                    hint="run the forward pass again, or add the losses up and call backward() once.",
                )
            if node.versions != node.versions_now():
                raise GraphError(
                    node.op,
                    "a parameter was changed by an optimiser between forward and backward.",
                    rule="backward computes with the numbers that forward had.",
                    hint="in each step: forward, backward, then step(); of two losses, both backwards before the step.",
                )
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents if isinstance(parent, Node))
    return order


def _gradients(node, dy):
    """The gradients of the node's array arguments, each checked to be of its argument's shape and dtype."""
    dy = dy.view()
    dy.flags.writeable = False  # another node may get the same array
    try:
        gradients = node.backward(dy)
    except MinivitError:
        raise
    except (ValueError, IndexError, TypeError) as error:
        hint = "dy is not the op's to change: make a new array." if "read-only" in str(error) else None
        raise MinivitError(node.op, f"backward, with dy {dy.shape}: {error}.", hint=hint) from error
    if not isinstance(gradients, (tuple, list)):
        gradients = (gradients,)
    while len(gradients) > len(node.parents) and gradients[-1] is None:  # of options: a list of labels, an index
        gradients = gradients[:-1]
    if len(gradients) != len(node.parents):
        raise GraphError(
            node.op,
            f"backward returned {len(gradients)} gradients for {len(node.parents)} array arguments.",
            rule="one gradient for each array argument, in their order; None for what has no gradient.",
        )
    checked = []
    for position, (parent, gradient) in enumerate(zip(node.parents, gradients, strict=True)):
        if parent is None or gradient is None:
            checked.append(None)
            continue
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
        checked.append(gradient)
    return checked


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
