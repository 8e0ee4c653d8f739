"""The tape: a Tensor remembers the op that made it, and backward() walks those ops in reverse.

An op is a function on arrays that returns its value and a function that carries a gradient back
(see minivit/ops). `@differentiable` makes such a function work on Tensors and records each call as
a Node. Nodes, not Tensors, form the graph: it keeps alive only what some backward needs. Where two
roads leave a tensor, two gradients come back to it, and are added.

There are no gradients of gradients: a backward computes on plain arrays and records nothing. What
can go wrong with a graph is looked for in machinery/guards.py.
"""

import contextlib
import functools
import inspect
import operator
import threading
import weakref

import numpy as np

from .machinery import guards
from .machinery.arraylike import ArrayLike

REGISTRY = {}  # "module.function" -> op, every one: the gradient-check test walks it

_mode = threading.local()  # recording is switched off for one thread at a time
_adding = threading.Lock()  # two threads may add to the gradient of one parameter


class Tensor(ArrayLike):
    """An array, and the memory of how it was computed.

    data: anything np.asarray takes; it is shared, not copied, and keeps its dtype.
    requires_grad: record what happens to this tensor, so that backward() can fill its `.grad`.

    A tensor made by the user is a leaf: each backward() adds to its `.grad` (set it to None to
    start afresh). A tensor made by an op keeps a gradient only after `retain_grad()`. The operators
    and methods (`+`, `@`, `.sum()`, ...) are ops, set in minivit/ops/methods.py; the looks of an
    array are in machinery/arraylike.py.
    """

    __slots__ = ("__weakref__", "_node", "_requires_grad", "_version", "data", "grad")
    requires_grad = property(operator.attrgetter("_requires_grad"), guards.set_requires_grad)

    def __init__(self, data, requires_grad=False):
        self.data = guards.array(data, requires_grad, is_grad_enabled())
        self.grad = None
        self._requires_grad = requires_grad
        self._node = None  # the op that made it; a leaf has none
        self._version = 0  # how many steps of an optimiser have changed it

    def detach(self):
        """The same array in a new tensor that has no past."""
        return Tensor(self.data)

    def retain_grad(self):
        """Keep the gradient of this inner tensor too: backward() will fill its `.grad`."""
        guards.has_past("Tensor.retain_grad", self)
        if self._node is not None:
            self._node.retained = weakref.ref(self)  # a circle would outlive them both

    def backward(self, grad=None):
        """Add d(self)/d(leaf) to the `.grad` of every leaf behind this tensor, then free the graph.

        grad: an array of this tensor's shape, the gradient that arrives from above; without it the
        tensor must be one number (a loss), and 1 arrives. GraphError when there is nothing to walk,
        or when it was walked before.
        """
        dy = guards.arriving(self, grad)
        if self._node is None:
            _accumulate(self, dy)
        else:
            _walk(self._node, dy)


class Node:
    """One op that was called: its name, the shape and dtype it made, and the way back from it.

    parents: for each array argument a Node (an inner tensor), a Tensor (a leaf) or None (needs no
    gradient): where the gradients go.
    backward: dy -> the gradients of the array arguments; None once the graph is freed.
    retained: a weak reference to the tensor, where it keeps its gradient.
    versions: of the leaves among the parents, when forward had their numbers.
    """

    __slots__ = ("backward", "dtype", "op", "parents", "retained", "shape", "versions")

    def __init__(self, op, value, parents, backward):
        self.op, self.shape, self.dtype = op, value.shape, value.dtype
        self.parents, self.backward, self.retained = parents, backward, None
        self.versions = guards.versions(parents)


def is_grad_enabled():
    """Whether ops are being recorded in this thread."""
    return getattr(_mode, "recording", True)


@contextlib.contextmanager
def no_grad():
    """`with no_grad():` or `@no_grad()`: compute without recording, and keep nothing."""
    before = is_grad_enabled()
    _mode.recording = False
    try:
        yield
    finally:
        _mode.recording = before


def differentiable(fn):
    """Make an op of fn: arrays in, `(value, backward)` out.

    fn takes arrays (and lists of arrays) and options; the op takes Tensors or arrays in their
    place. `backward(dy)` returns one gradient for each array argument, in their order, each of its
    argument's shape and dtype, and None for what has no gradient, such as integer labels. A single
    gradient needs no tuple.
    """
    signature = inspect.signature(fn)

    @functools.wraps(fn)
    def op(*args, **kwargs):
        if kwargs:  # a tensor may come by its name
            args, kwargs = guards.bound(fn.__name__, signature, args, kwargs)
        inputs = []
        arrays = [unwrap(argument, inputs) for argument in args]
        options = {name: unwrap(argument, inputs) for name, argument in kwargs.items()}
        try:
            value, backward = guards.value_and_backward(fn.__name__, fn(*arrays, **options))
        except Exception as error:
            guards.explain(error, fn.__name__, inputs)
            raise
        out = Tensor(value)
        if is_grad_enabled():
            parents = tuple([_origin(x) for x in inputs])  # lists are quicker than generators
            if any([parent is not None for parent in parents]):
                out._requires_grad, out._node = True, Node(fn.__name__, out, parents, backward)
        return out

    REGISTRY[f"{fn.__module__}.{fn.__qualname__}"] = op
    return op


def unwrap(argument, inputs):
    """The argument with arrays for Tensors, in lists too. Adds every array to `inputs`."""
    if isinstance(argument, (Tensor, np.ndarray)):
        inputs.append(argument)
        return argument.data if isinstance(argument, Tensor) else argument
    if isinstance(argument, (list, tuple)):
        items = [unwrap(item, inputs) for item in argument]
        return tuple(items) if isinstance(argument, tuple) else items
    return argument


def _origin(x):
    """Where the gradient of an array argument goes: a Node, a leaf Tensor, or nowhere."""
    if isinstance(x, Tensor) and x._requires_grad:
        return x if x._node is None else x._node
    return None


def _walk(root, dy):
    """Carry dy from root back to the leaves: every node once, after all that use it, then freed."""
    order = _topological_order(root)
    guards.walkable(order)
    arriving = {root: dy}  # node -> the sum of the gradients that came to it so far
    while order:
        node = order.pop()
        dy = arriving.pop(node, None)
        if dy is not None:
            if node.retained is not None and (tensor := node.retained()) is not None:
                _accumulate(tensor, dy.copy())
            gradients = guards.gradients(node, dy)
            for parent, gradient in zip(node.parents, gradients, strict=True):
                if isinstance(parent, Tensor) and gradient is not None:
                    shared = guards.is_shared(gradient, gradients, node)
                    _accumulate(parent, gradient.copy() if shared else gradient)
                elif gradient is not None:
                    before = arriving.get(parent)
                    arriving[parent] = gradient if before is None else np.asarray(before + gradient)
        node.backward, node.parents, node.retained = None, (), None


def _topological_order(root):
    """Every node behind root, each after all of its parents. A stack: recursion has a limit."""
    order, seen, stack = [], set(), [(root, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents if isinstance(parent, Node))
    return order


def _accumulate(tensor, gradient):
    with _adding:
        tensor.grad = gradient if tensor.grad is None else np.asarray(tensor.grad + gradient)
