# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 8. The engine itself, rebuilt in 60 lines
#
# The question: a model has millions of numbers. How does *one* walk from the loss back to the pixels tell
# every single one of them which way to move?
#
# Builds: an engine like minivit's, in 60 lines of NumPy: a tape, a walk, and eight ops. On a small Vision
# Transformer it has the same gradients. Then gradcheck gets five wrong backwards, and we read what it says.
#
# Teach: 45 minutes. Run: 3 seconds.
#
# Axes: N patches, C channels, H W pixels, P patch side, d hidden size (one head, so it is the head size, too), F MLP
# size, K classes

# %%
import functools
import inspect

import matplotlib.pyplot as plt
import numpy as np

import minivit
from minivit import differentiable, gradcheck, images, lessons, ops, plots
from minivit.errors import ShapeError
from minivit.gradcheck import GradientError, compare
from minivit.machinery.normal import normal

photo = lessons.photo()
rng = np.random.default_rng(0)

# %% [markdown]
# ## The slow way
#
# What is a gradient? Move one number a little, and see how much the loss moves. That needs no theory at
# all. So why not do it like that?

# %%
w, x, wanted = 3.0, 2.0, 5.0


def loss_of_w(w):
    return (w * x - wanted) ** 2


moved = (loss_of_w(w + 1e-6) - loss_of_w(w - 1e-6)) / 2e-6
by_hand = 2 * (w * x - wanted) * x  # the chain rule: the slope of the square, times the slope of w * x
print(f"by moving w: {moved:.6f}   by the chain rule: {by_hand:.6f}")
assert abs(moved - by_hand) < 1e-6

parameters = 5_717_416  # of a ViT-Tiny
print(f"to move every number of a ViT-Tiny up and down: {2 * parameters:,} forward passes, for one step of training")

# %% [markdown]
# Eleven million forward passes for a single step. That is why not. The chain rule needs one forward pass
# and one walk back. All we need is a record of what was computed.
#
# ## An op writes down how to go back
#
# Our tensor is an array that remembers three things: which op made it, from which parents, and how a
# gradient is carried back through that op.

# %%
class Tensor:
    def __init__(self, data, op="leaf", parents=(), carry_back=None):
        self.data, self.grad = np.asarray(data, dtype=np.float64), None
        self.op, self.parents, self.carry_back = op, parents, carry_back


# %% [markdown]
# An op is a function on plain arrays. It returns two things: its value, and a function that takes the
# gradient of its output and returns the gradients of its inputs. `op` wraps it, so that it takes tensors
# and keeps the record. This is what `@differentiable` does in minivit.

# %%
def op(fn):
    @functools.wraps(fn)
    def call(*inputs):
        parents = [x for x in inputs if isinstance(x, Tensor)]  # a plain number needs no gradient
        value, carry_back = fn(*(x.data if isinstance(x, Tensor) else x for x in inputs))
        return Tensor(value, fn.__name__, parents, carry_back)

    return call


# %%
@op
def add(x, y):
    return x + y, lambda dz: (dz, dz)


@op
def multiply(x, y):
    return x * y, lambda dz: (dz * y, dz * x)


Tensor.__add__, Tensor.__mul__ = add, multiply

# %% [markdown]
# `multiply` in words: if y is 5, then a step of x moves the product five times as far. So the gradient of x
# is dz times y, and the other way round.

# %%
a = Tensor(2.0)
b = a + a
c = b * b
end = b + c
print(f"end = {end.data}, made by {end.op!r} from {[parent.op for parent in end.parents]}")
dx, dy = c.carry_back(1.0)
print(f"a gradient of 1 at c = b * b, carried back: {dx:.0f} for its first factor, {dy:.0f} for its second")
assert end.parents == [b, c] and (dx, dy) == (4, 4)

# %% [markdown]
# ## The tape
#
# Now line all tensors up, each *after* the tensors it was made from. Think of a tape recorder: nothing can
# be used before it was made, so the order in which we computed is such an order. We get it back from `end`
# alone: before a tensor writes itself down, it lets its parents do so. This is called a topological order.

# %%
def tape(end):
    order = {}  # a dict, as a set that keeps its order

    def visit(tensor):
        if tensor not in order:
            for parent in tensor.parents:
                visit(parent)
            order[tensor] = None

    visit(end)
    return list(order)


names = {a: "a", b: "b", c: "c", end: "end"}
for line, tensor in enumerate(tape(end)):
    call = f"{tensor.op}({', '.join(names[parent] for parent in tensor.parents)})"
    print(f"{line}  {names[tensor]:3} = {call:14} = {tensor.data}")
assert tape(end) == [a, b, c, end]

# %% [markdown]
# ## Play it backwards
#
# The gradient of `end` with respect to itself is 1. Then we go from tensor to tensor. Each one takes what
# has arrived, carries it back through its op, and *adds* it to what its parents have. (A plain number, as the
# 5 in `x * 5`, is no parent: `zip` stops before its gradient.)

# %%
def unbroadcast(gradient, shape):
    return gradient  # not needed yet: we come back to it


def walk(order):
    order[0].grad = np.ones_like(order[0].data)
    for tensor in order:
        gradients = tensor.carry_back(tensor.grad) if tensor.parents else ()
        for parent, gradient in zip(tensor.parents, gradients, strict=False):
            gradient = unbroadcast(gradient, parent.data.shape)
            parent.grad = gradient if parent.grad is None else parent.grad + gradient


def backward(end):
    walk(tape(end)[::-1])


backward(end)
print(f"a = 2, b = a + a = 4, end = b + b * b = {end.data:.0f};  d end / da = {a.grad}")
assert a.grad == 2 * (1 + 2 * 4)  # d end / db = 1 + 2 b, and b moves twice as far as a

# %% [markdown]
# That is the whole engine. Three questions are left: why this order, why *add*, and what is `unbroadcast`?
#
# ## Why topological order? First answer: a wrong number
#
# Suppose somebody has no patience for a tape. A gradient arrives, and it is handed on at once. The smallest
# graph that shows the trouble is b = a + a; c = b + b. The answer must be 4.

# %%
def impatient(tensor, gradient):
    tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient
    if tensor.parents:
        for parent, piece in zip(tensor.parents, tensor.carry_back(tensor.grad), strict=False):
            impatient(parent, piece)


a = Tensor(1.0)
b = a + a
c = b + b
impatient(c, 1.0)
print("impatient: d(4a) / da =", a.grad)
assert a.grad == 6

# %% [markdown]
# Six! c hands a 1 to b, and b passes 1 on along both of its roads: 2 in a. Then c's *second* 1 arrives: b
# now has 2, and passes 2 on along both roads: 4 more. The first 1 was counted twice.
#
# A repair: pass on only the new piece. Then the number is right. But count the steps.

# %%
def count_steps(tensor, gradient):
    tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient
    pieces = tensor.carry_back(gradient) if tensor.parents else ()
    return 1 + sum(count_steps(parent, piece) for parent, piece in zip(tensor.parents, pieces, strict=False))


print("doublings   steps without a tape   steps with one")
for doublings in (1, 2, 4, 8, 12):
    a = chain = Tensor(1.0)
    for _ in range(doublings):
        chain = chain + chain
    steps, entries = count_steps(chain, 1.0), len(tape(chain))
    print(f"{doublings:9}   {steps:20}   {entries:14}")
    assert a.grad == 2**doublings and steps == 2 ** (doublings + 1) - 1 and entries == doublings + 1

# %% [markdown]
# Right, and useless. Every layer of a Vision Transformer is used by two roads, `x + attention(x)` and then
# `x + mlp(x)`. Twelve layers are 24 forks, that is 16 million roads, and every op on them would be done
# anew for each. The tape does each op once.
#
# ## Why topological order? Second answer: a number that is wrong only sometimes
#
# A more careful person makes a list: first the end, then its parents, then theirs, and so on: breadth
# first. Each op is done once. Is it the same thing?

# %%
def breadth_first(end):
    order = [end]
    for tensor in order:  # the list grows while we walk along it
        order += [parent for parent in dict.fromkeys(tensor.parents) if parent not in order]
    return order


def tape_backwards(end):
    return tape(end)[::-1]


# %%
found = {}
for put_in_order, turned in ((breadth_first, False), (breadth_first, True), (tape_backwards, False)):
    a = Tensor(2.0)
    b = a + a
    c = b * b
    end = c + b if turned else b + c
    order = put_in_order(end)
    walk(order)
    names = {a: "a", b: "b", c: "c", end: "end"}
    title = f"{put_in_order.__name__}, {'c + b' if turned else 'b + c'}"
    found[title] = [(names[tensor], float(tensor.grad)) for tensor in order]
    print(f"{title:22} walks {' '.join(names[tensor] for tensor in order)}   d end / da = {a.grad}")
assert [order[-1][1] for order in found.values()] == [2, 18, 18]

# %% [markdown]
# The worst kind of bug: `b + c` is wrong and `c + b` is right. In the first, b handed on what it had before
# c had its say. And look at the shape: b goes straight to the end, and it goes through c. That is the road
# around a block, the `x + f(x)` of every Vision Transformer.
#
# The rule: a tensor hands on its gradient when *everything that used it* has handed on its own. The tape,
# played backwards, is such an order.

# %%
places = {"a": (0, 0), "b": (0, 1), "c": (1, 2), "end": (0, 3)}
made = {"a": "a = 2", "b": "b = a + a = 4", "c": "c = b * b = 16", "end": "end = b + c = 20"}
roads = [("a", "b", 0.25), ("a", "b", -0.25), ("b", "c", 0.15), ("b", "c", -0.15), ("b", "end", 0), ("c", "end", 0)]
figure, axes = plt.subplots(1, 2, figsize=(10, 5.2), dpi=100, layout="constrained")
figure.set_label("order_of_the_walk")
for ax, title in zip(axes, ("breadth_first, b + c", "tape_backwards, b + c"), strict=True):
    boxes = {}
    for turn, (name, gradient) in enumerate(found[title], 1):
        late = title.startswith("breadth") and name in "ab"
        box = {"boxstyle": "round,pad=0.5", "facecolor": "#ffd0d0" if late else "#d6ecff"}
        text = f"walked as no. {turn}\n{made[name]}\ngradient {gradient:g}"
        boxes[name] = ax.text(*places[name], text, ha="center", va="center", bbox=box).get_bbox_patch()
    for start, stop, bend in roads:
        arrow = {"arrowstyle": "->", "connectionstyle": f"arc3,rad={bend}", "shrinkA": 2, "shrinkB": 2}
        arrow |= {"patchA": boxes[start], "patchB": boxes[stop]}
        ax.annotate("", places[stop], places[start], arrowprops=arrow)
    verdict = "wrong" if title.startswith("breadth") else "right"
    ax.set(xlim=(-0.5, 1.5), ylim=(-0.4, 3.4), title=f"{title.split(',')[0]}: d end / da = {gradient:g}, {verdict}")
    ax.set_axis_off()
axes[0].text(0.42, 0.85, "its turn came before c's:\nit handed on 1, and not 1 + 8", color="#b00020")
plt.show()

# %% [markdown]
# ## Why `+=`?
#
# Because a number that is used twice moves the loss along two roads, and the two effects add up. Replace
# "add" by "set", and every road but the last is forgotten.

# %%
def walk_and_set(order):
    order[0].grad = np.ones_like(order[0].data)
    for tensor in order:
        gradients = tensor.carry_back(tensor.grad) if tensor.parents else ()
        for parent, gradient in zip(tensor.parents, gradients, strict=False):
            parent.grad = gradient


for method in (walk_and_set, walk):
    x = Tensor(3.0)
    y = x * x + x
    method(tape(y)[::-1])
    print(f"{method.__name__:13} d(x*x + x)/dx at 3: {x.grad}")
    assert x.grad == (3 if method is walk_and_set else 7)

# %% [markdown]
# There is a price. The gradient of the next forward pass is added to that of the first. In training you set the
# gradients back before each step: that is what `zero_grad` is for. And one graph is walked once. A second walk would
# find the gradients of the first in the inner tensors, and carry them down again. minivit frees a graph that it has
# walked, and refuses a second `backward`.
#
# And there is a trap in NumPy. We wrote `grad = grad + gradient`, which makes a new array. `grad += gradient`
# changes the array itself, and in `add` both parents got *the same* array.

# %%
dz = np.array([1.0, 1.0])
grad_of_x, grad_of_y = dz, dz  # what add's carry_back returns: one array, twice
grad_of_x += 10  # x was used somewhere else too
print("the gradient of y, which nobody touched:", grad_of_y)
assert (grad_of_y == 11).all()

# %% [markdown]
# ## What is copied on the way forward is summed on the way back
#
# Add one number for each colour to a photo, to make it redder, greener, bluer. The shift has 3 numbers, the
# photo has thousands. NumPy stretches the shift: that is broadcasting. So each of the 3 numbers is used in
# every pixel, and the last section says what to do with a number that is used many times: add up.

# %%
pixels = images.pixel_values(photo, 32).astype(np.float64)  # (C, H, W)
shift = np.array([0.1, 0.0, -0.1]).reshape(3, 1, 1)  # (C, 1, 1)


def contrast(shift):
    return ((pixels + shift) ** 2).mean()


arriving = 2 * (pixels + shift) / pixels.size  # (C, H, W): d contrast / d(pixels + shift)
summed = arriving.sum((1, 2), keepdims=True)  # (C, 1, 1)
step = np.array([1e-6, 0, 0]).reshape(3, 1, 1)
moved = (contrast(shift + step) - contrast(shift - step)) / 2e-6
print("arrives:", arriving.shape, "  shift:", shift.shape, "  summed:", summed.shape)
print(f"d contrast / d red: {summed[0, 0, 0]:+.8f}   by moving it: {moved:+.8f}")
assert np.isclose(summed[0, 0, 0], moved, rtol=1e-6, atol=1e-9)

# %% [markdown]
# In general: sum over every axis that broadcasting put in front, and over every axis of size 1. Three lines
# of code.
#
# Mathematicians say: the sum is the *adjoint* of the copy. The test of an adjoint is a dot product, and it
# needs no derivative: copy(x) . dy must equal x . sum(dy), for any x and any dy.

# %%
def unbroadcast(gradient, shape):  # noqa: F811
    added = gradient.ndim - len(shape)
    axes = tuple(i for i in range(gradient.ndim) if i < added or shape[i - added] == 1)
    return gradient.sum(axes, keepdims=True).reshape(shape)


print("before       after        copy(x) . dy   x . sum(dy)")
for before, after in (((3, 1, 1), (3, 5, 4)), ((4,), (2, 3, 4)), ((), (2, 5)), ((1, 5), (3, 5)), ((2, 3), (2, 3))):
    x, dy = rng.standard_normal(before), rng.standard_normal(after)
    left, right = (np.broadcast_to(x, after) * dy).sum(), (x * unbroadcast(dy, before)).sum()
    print(f"{before!s:12} {after!s:12} {left:+12.8f}   {right:+11.8f}")
    assert np.isclose(left, right, atol=1e-12)

# %% [markdown]
# And if you forget it? NumPy does not complain about `p = p - g`: a bias (1, 5) minus a gradient (3, 5) is an array
# (3, 5), and the parameter has *grown* in the first step of training. minivit's engine does complain.

# %%
@differentiable
def forgetful(x, y):
    return x + y, lambda dz: (dz, dz)


try:
    forgetful(np.ones((3, 5)), minivit.Tensor(np.zeros((1, 5)), requires_grad=True)).sum().backward()
    raise AssertionError("the engine let it pass")
except ShapeError as error:
    print(error)

# %% [markdown]
# Our `walk` calls `unbroadcast` for every gradient: one place, few lines. minivit's ops call it themselves, and
# the engine only checks. So a wrong shape there is an error, and never quietly summed.
#
# ## Six more ops
#
# Power, matrix product, exp, log, sum, transpose. Each is one line forward and one line back.

# %%
@op
def power(x, n):
    return x**n, lambda dy: (dy * n * x ** (n - 1),)


@op
def matmul(x, y):
    return x @ y, lambda dz: (dz @ y.T, x.T @ dz)


@op
def transpose(x):
    return x.T, lambda dy: (dy.T,)


# %%
@op
def exp(x):
    return np.exp(x), lambda dy: (dy * np.exp(x),)


@op
def log(x):
    return np.log(x), lambda dy: (dy / x,)


@op
def total(x, axis):
    return x.sum(axis, keepdims=True), lambda dy: (np.broadcast_to(dy, x.shape),)


Tensor.__pow__, Tensor.__matmul__, Tensor.T = power, matmul, property(transpose)
Tensor.exp, Tensor.log, Tensor.sum = exp, log, lambda x, axis, keepdims: total(x, axis)

# %% [markdown]
# See how `total` and `unbroadcast` mirror each other. Forward copies: back sums. Forward sums: back copies.
#
# Is it sixty lines? Let the machine count.

# %%
engine = [Tensor.__init__, op, tape, walk, backward, unbroadcast]
engine += [add, multiply, power, matmul, transpose, exp, log, total]
lines = [line for part in engine for line in inspect.getsource(part).splitlines() if line.strip()]
count = len(lines) + 4  # `class Tensor:`, and the three lines that attach operators and methods
print(f"the engine with its eight ops: {count} lines")
assert count <= 60

# %% [markdown]
# ## Does it hold beside minivit's engine?
#
# Here is a small Vision Transformer: patch embedding, attention, MLP, both roads around, classifier,
# cross-entropy. No norms, to keep it short. It is written with `+ * ** @` and a few methods. So it does not
# know whose tensors it is given.

# %%
def small_vit(x, embed, query, key, value, up, down, head, answer):
    """The loss (1, 1) of patches x (N, C P P); answer (1, K) is 1 at the right class, 0 elsewhere."""
    N, d = x.data.shape[0], embed.data.shape[1]
    x = x @ embed  # (N, d)
    shares = ((x @ query) @ (x @ key).T * d**-0.5).exp()  # (N, N)
    shares = shares * shares.sum(-1, keepdims=True) ** -1  # (N, N), rows that sum to 1
    x = x + shares @ (x @ value)  # (N, d)
    hidden = x @ up  # (N, F)
    hidden = hidden * ((hidden * -1.702).exp() + 1.0) ** -1  # (N, F), nearly GELU: x * sigmoid(1.702 x)
    x = x + hidden @ down  # (N, d)
    logits = x.sum(0, keepdims=True) * (1 / N) @ head  # (1, K)
    return logits.exp().sum(-1, keepdims=True).log() + (logits * answer).sum(-1, keepdims=True) * -1.0


# %% [markdown]
# The photo in 16 patches of 8 x 8 pixels. The pixels get a gradient as well, as every leaf does.

# %%
P, d, F, K = 8, 12, 20, 5
sizes = {"embed": (3 * P * P, d), "query": (d, d), "key": (d, d), "value": (d, d), "up": (d, F), "down": (F, d)}
arrays = {"pixels": images.patchify(pixels, P).reshape(-1, 3 * P * P)}  # (N, C P P)
arrays |= {name: rng.standard_normal(shape) * shape[0] ** -0.5 for name, shape in (sizes | {"head": (d, K)}).items()}
answer = np.eye(K)[[3]]  # (1, K)

ours = {name: Tensor(array) for name, array in arrays.items()}
theirs = {name: minivit.Tensor(array, requires_grad=True) for name, array in arrays.items()}
our_loss, their_loss = small_vit(*ours.values(), answer), small_vit(*theirs.values(), answer)
backward(our_loss)
their_loss.backward()
print(f"loss: ours {our_loss.data.item():.12f}   minivit {their_loss.item():.12f}")
print(f"our tape has {len(tape(our_loss))} tensors")
assert np.isclose(our_loss.data, their_loss.data, rtol=1e-13)

# %%
print("gradient of   shape       length, ours      minivit's       largest difference")
for name in arrays:
    mine, other = ours[name].grad, theirs[name].grad
    difference = abs(mine - other).max()
    lengths = f"{np.linalg.norm(mine):.12f}    {np.linalg.norm(other):.12f}"
    print(f"{name:12}  {mine.shape!s:10}  {lengths}  {difference:.1e}")
    assert mine.shape == other.shape and difference <= 1e-13 * max(1, abs(other).max())

# %% [markdown]
# The same to twelve digits, for every weight and for every pixel. What does minivit have on top? It skips
# what needs no gradient, works in float32, uses a stack where `tape` calls itself (Python allows about a
# thousand calls), frees the tape as it goes, checks every shape, and has ops that do several steps at once.
# The idea is the one you saw.
#
# And here is what arrived at the other end of the walk: for each pixel of the photo, how it moves the loss. The
# model is untrained, so the picture knows nothing of the photo. But look for the 16 patches: much the same pattern
# of 8 x 8 pixels in each. All of them went through the same matrices, and in the end each counts 1 / 16.

# %%
arrived = ours["pixels"].grad  # (N, C P P)
directions = arrived / np.linalg.norm(arrived, axis=1, keepdims=True)
print(f"mean cosine of two patches' gradients: {(directions @ directions.T).mean():.2f}")
assert (directions @ directions.T).mean() > 0.6
arrived = images.unpatchify(arrived.reshape(-1, 3, P, P), 32, 32)  # (C, H, W)
figure = plots.pixel_gradient(images.to_image(pixels), arrived)
figure.suptitle("Our 60 lines walked from the loss back to the pixels")
figure.set_label("gradient_at_the_pixels")
plt.show()

# %% [markdown]
# ## What gradcheck does: how do you know that a backward is right?
#
# A model with a wrong gradient often still learns, only worse. So do not ask the loss curve. Ask the slow
# way from the start: it is too slow to train with, and just right for a test. Move each number up and down
# by eps, and compare.
#
# How small is eps? Too large, and we measure the curve instead of the slope: an error like eps * eps. Too
# small, and the two losses agree in nearly all their digits, and the difference is rounding noise: an error like
# 1e-16 / eps. In float32, which has half the digits, the noise is so large that no step is a good one.

# %%
x = pixels[0, 12:16, 12:16].reshape(-1)  # 16 pixels of the photo
v = rng.standard_normal(16)
y = np.exp(x) / np.exp(x).sum()
right = y * (v - (y * v).sum())  # the gradient of softmax(x) . v


def error_of(eps, dtype):
    def f(x):
        return (np.exp(x) / np.exp(x).sum() * v.astype(dtype)).sum(dtype=dtype)

    steps = np.eye(16, dtype=dtype) * dtype(eps)
    slopes = [(f(x.astype(dtype) + step) - f(x.astype(dtype) - step)) / dtype(2 * eps) for step in steps]
    return np.linalg.norm(np.array(slopes) - right) / np.linalg.norm(right)


errors = {}
print("eps        relative error in float64   in float32")
for eps in (1e-1, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12):
    errors[eps] = error_of(eps, np.float64), error_of(eps, np.float32)
    print(f"{eps:5.0e} {errors[eps][0]:27.0e} {errors[eps][1]:14.0e}")
in_float64, in_float32 = zip(*errors.values(), strict=True)
assert errors[1e-6][0] < 1e-7 and in_float64[0] > 1e-5 and in_float64[-1] > 1e-5
assert min(in_float32) > 1e-6

# %% [markdown]
# So gradcheck computes in float64, with eps = 1e-6, and allows a relative error of 1e-5. A wrong formula is
# off by much more than that.
#
# One thing more. A loss is one number, an op returns many. To sum them would hide mistakes: under a sum, a softmax
# is constant and the gradient of a layer norm is zero (lesson 6), so a backward of zeros would pass. gradcheck gives
# each output a random weight of its own, the *random cotangent*.
#
# ## Five wrong backwards, caught live
#
# All five run. None of them crashes. In each, the shape is right. Find the mistake yourself before you read
# what gradcheck says.

# %%
caught = {}


def catch(fn, *inputs):
    """Print what gradcheck says, and keep the worst of its comparisons for a picture."""
    try:
        gradcheck(fn, *inputs)
    except GradientError as error:
        print(error)
        caught[fn.__name__] = max(compare(fn, *inputs), key=lambda comparison: comparison.worst)
    assert fn.__name__ in caught, "gradcheck let it pass"


# %% [markdown]
# One: the mean over the patches, as a summary of the photo.

# %%
@differentiable
def mean_of_patches(x):
    y = x.mean(0)  # (d,)
    return y, lambda dy: np.broadcast_to(dy, x.shape)


catch(mean_of_patches, rng.standard_normal((5, 4)))
assert np.allclose(caught["mean_of_patches"].backward, 5 * caught["mean_of_patches"].numeric, atol=1e-6)

# %% [markdown]
# The 1 / n is missing, and gradcheck even tells us n: all entries are off by the factor 5.
#
# Two: a difference, copied from `add`.

# %%
@differentiable
def difference(x, y):
    return x - y, lambda dz: (dz, dz)


catch(difference, rng.standard_normal((4, 4)), rng.standard_normal((4, 4)))
assert caught["difference"].argument == "y"

# %% [markdown]
# It names the argument: x is right, y has the wrong sign.
#
# Three: a linear layer, x @ weight.T, with weights of shape (out, in). Here both are 4, so every shape
# fits.

# %%
@differentiable
def project(x, weight):
    return x @ weight.T, lambda dy: (dy @ weight, x.T @ dy)


catch(project, rng.standard_normal((6, 4)), rng.standard_normal((4, 4)))
assert caught["project"].argument == "weight"

# %% [markdown]
# It is dy.T @ x. With 4 inputs and 3 outputs the engine would have refused the shape. That is why the tests
# of this project use odd, unequal sizes.
#
# Four: take the mean away, the first half of a layer norm. "The mean is only a number", somebody thought.

# %%
@differentiable
def centre(x):
    return x - x.mean(), lambda dy: dy


catch(centre, rng.standard_normal(12))

# %% [markdown]
# But the mean depends on x. There is a second road, and its gradient is missing. It is the same number
# everywhere, and gradcheck sees that.
#
# Five, the meanest. Forward is the tanh approximation of GELU. Backward is the derivative of the exact one.

# %%
@differentiable
def nearly_gelu(x):
    y = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    cdf, density = normal(x)
    return y, lambda dy: dy * (cdf + x * density)


catch(nearly_gelu, np.linspace(-3, 3, 24))
worst = abs(caught["nearly_gelu"].backward - caught["nearly_gelu"].numeric).max()
print(f"\nlargest difference: {worst:.1e}; to three decimals it would have passed")
np.testing.assert_almost_equal(caught["nearly_gelu"].backward, caught["nearly_gelu"].numeric, decimal=3)

# %% [markdown]
# Forward and backward are both good functions. They are just not each other's. A library has published a close
# relative, tanh in one term of the derivative and the exact bell curve in the other; its test compared three
# decimals.
#
# One picture of all five: what backward says against what really happens. A right backward lies on the
# dashed line.

# %%
titles = ("a factor is missing", "the sign is wrong", "transposed", "a term is missing", "nearly right")
figure, axes = plt.subplots(1, 5, figsize=(10, 3), dpi=100, layout="constrained")
figure.set_label("five_wrong_backwards")
for ax, (name, found), title in zip(axes, caught.items(), titles, strict=True):
    limit = 1.1 * max(abs(found.numeric).max(), abs(found.backward).max())
    ax.plot([-limit, limit], [-limit, limit], "--", color="0.6")
    ax.scatter(found.numeric, found.backward, s=18, color="tab:blue")
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[0], yticks=[0], box_aspect=1)
    ax.set_title(f"{title}\n{name}: {found.argument}", fontsize=10)
    ax.set_xlabel("finite difference")
axes[0].set_ylabel("what backward says")
plt.show()

# %% [markdown]
# The last one lies on the line, to the eye. A picture does not replace the number.
#
# ## What gradcheck cannot find
#
# It asks one thing: do backward and forward belong together? If *forward* is wrong, and backward agrees
# with it, all is well for gradcheck. Here attention's softmax goes over the wrong axis.

# %%
def softmax_over_queries(scores):
    return ops.softmax(scores, axis=0)


scores = rng.standard_normal((4, 3))
print("gradcheck of the wrong softmax:", gradcheck(softmax_over_queries, scores))
print("its rows sum to", ops.softmax(scores, axis=0).data.sum(1).round(3), "and not to 1")
assert not np.allclose(ops.softmax(scores, axis=0).data.sum(1), 1)

# %% [markdown]
# So we need both: the values against a plain version, and the gradients against finite differences.
#
# And a whole model? Not each number, but a few random directions through all of them together. Each costs
# two forward passes, however many numbers there are. A mistake in a formula makes many numbers wrong, and shows. A
# small error in one number of many may drown in the others, so each op is checked number by number before.

# %%
def whole_model(*tensors):
    return small_vit(*tensors, answer)


numbers = sum(array.size for array in arrays.values())
assert gradcheck(whole_model, *arrays.values(), directions=3)
print(f"small_vit: {numbers:,} numbers, right along 3 random directions: 6 forward passes instead of {2 * numbers:,}")

# %% [markdown]
# ## What you can say now
#
# - A tape is the list of all that was computed, each after what it was made from. Backpropagation plays it
#   backwards once, each op once. That is why it costs about as much as a few forward passes, and not
#   millions.
# - A tensor hands its gradient on only after everything that used it has: in any other order `b + b * b`
#   can give 2 where 18 is right.
# - A number that is used twice gets the sum of two gradients: hence `+=`, and hence `zero_grad`.
# - What is copied on the way forward is summed on the way back, and what is summed is copied.
# - gradcheck compares backward with forward, in float64, with a random cotangent. It does not know whether
#   forward is what you wanted.
#
# ## Exercises
#
# - **Exercise 08, write the backward** of `take`, the op that looks rows up in a table. The same row may be
#   asked for twice, and you have just seen what follows from that. `minivit exercise 08 --out DIR` writes
#   its stub, `minivit check FILE` grades it.
# - Let `chain = chain + chain` run 5000 times, and call `tape`. Python gives up: a RecursionError. Rewrite
#   `tape` with a list as a stack. Then compare with `_topological_order` in minivit/autograd.py.
# - Give our engine a ninth op, `tanh`, and use it in `small_vit` in place of the nearly-GELU. Do minivit's
#   gradients still agree? Then move a weight of `head` by hand, and see whether the loss moves as its gradient says.
#
# In the explorer, a page that `minivit explore --model digits --out digits.html` writes:
# [digits.html#lesson=8](../digits.html#lesson=8)
