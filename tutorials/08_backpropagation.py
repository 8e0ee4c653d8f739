# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 8. The engine itself, rebuilt in 41 lines
#
# The question: a model has millions of numbers. How does *one* walk from the loss back
# to the pixels tell every single one of them which way to move?
#
# Builds: an engine like minivit's: a tensor that remembers, eight ops, a tape, a walk.
# On a small Vision Transformer it has minivit's gradients. (8b: is a backward right?)
#
# New ideas: (1) a backward is a *vector-Jacobian product*; (2) *broadcasting's adjoint
# is a sum*; (3) the tape, a *topological order*; (4) where two roads meet, gradients
# add up; (5) why that order; (6) one walk for all: *reverse-mode differentiation*.
#
# Teach: 45 minutes. Run: 2 seconds.
#
# Axes: N patches, C channels, H W pixels, P patch side, D hidden size, F MLP size, K
# classes. An op's inputs are x and y, its output z; d before a name: a gradient.

# %%
import matplotlib.pyplot as plt
import numpy as np

import minivit
from minivit import images, lessons, plots

pixels = images.pixel_values(lessons.photo(), 32).astype(np.float64)  # (C, H, W)
rng = np.random.default_rng(0)

# %% [markdown]
# Move one number a little, see how much the loss moves: a gradient. For the 5,717,416
# numbers of a ViT-Tiny, up and down, that is eleven million forward passes, for one
# step of training. The chain rule needs one, and one walk back along a record of it.
#
# ## An op writes down how to go back
#
# Our tensor is an array that remembers its parents, and how a gradient is carried back
# to them. What is no tensor, the 5.0 in `5.0 * x`, becomes one: so each gradient has a
# place to go. `op` makes an op of two functions, forward and backward. Read `multiply`
# first, then `op`; that of `matmul` is lesson 2's. The loop at the end makes `x * y`
# call `multiply`, and `5.0 * x`, too, where Python asks what stands right (`fn=fn`: the
# op of this round).

# %%
class Tensor:
    __array_ufunc__ = None  # so that NumPy leaves array * tensor to us
    def __init__(self, data, parents=(), carry_back=lambda dz: ()):
        self.data, self.grad = np.asarray(data, dtype=np.float64), 0.0
        self.parents, self.carry_back = parents, carry_back

def op(forward, backward):
    def call(*inputs):
        parents = [x if isinstance(x, Tensor) else Tensor(x) for x in inputs]
        arrays = [parent.data for parent in parents]
        return Tensor(forward(*arrays), parents, lambda dz: backward(dz, *arrays))
    return call  # so multiply(x, y) computes, and remembers how to go back

add = op(lambda x, y: x + y, lambda dz, x, y: (dz, dz))
subtract = op(lambda x, y: x - y, lambda dz, x, y: (dz, -dz))
multiply = op(lambda x, y: x * y, lambda dz, x, y: (dz * y, dz * x))
divide = op(lambda x, y: x / y, lambda dz, x, y: (dz / y, -dz * x / y**2))
matmul = op(lambda x, y: x @ y, lambda dz, x, y: (dz @ y.T, x.T @ dz))
transpose = op(lambda x: x.T, lambda dz, x: (dz.T,))  # one gradient for each parent
exp = op(np.exp, lambda dz, x: (dz * np.exp(x),))
log = op(np.log, lambda dz, x: (dz / x,))
signs = ("add", add), ("sub", subtract), ("mul", multiply), ("truediv", divide)
for sign, fn in (*signs, ("matmul", matmul)):
    setattr(Tensor, f"__{sign}__", fn)  # x * 5.0
    setattr(Tensor, f"__r{sign}__", lambda y, x, fn=fn: fn(x, y))  # 5.0 * x
Tensor.T, Tensor.exp, Tensor.log = property(transpose), exp, log  # x.T, x.exp()

# %% [markdown]
# ## A backward is a vector-Jacobian product
#
# Move each input of an op a little, see how each output moves: a table, a row for each
# output, a column for each input, the *Jacobian*. If dz arrives at the outputs, then
# dz @ Jacobian goes to the inputs: a *vector-Jacobian product*. A backward is that
# product without the table: for two photos times each other 3 * 32 * 32 = 3072 rows, as
# many columns. Below, x is the three colours of one pixel, `x @ y` two numbers.

# %%
x, y = pixels[None, :, 16, 16], np.array([[5.0, 1.0], [-1.0, 0.0], [2.0, 3.0]])
columns = [((x + step) @ y - (x - step) @ y)[0] / 2e-6 for step in np.eye(3) * 1e-6]
jacobian = np.stack(columns, axis=1)  # (outputs, inputs) = (2, 3)
print("Jacobian of x @ y, for x:", *jacobian.round(3).tolist())
dz = rng.standard_normal((1, 2))  # one number for each output
assert np.allclose(dz @ jacobian, matmul(x, y).carry_back(dz)[0])

# %% [markdown]
# ## What is copied on the way forward is summed on the way back
#
# Add 3 numbers to a photo, one a colour. NumPy *broadcasts*: each is used 1024 times,
# and moves the loss each time. So sum over the stretched axes: the *adjoint* of the
# copy, which is the copy written as a matrix, transposed. Its test needs no slope:
# copy(x) . dz must be x . sum(dz), for any x and dz.

# %%
def unbroadcast(gradient, shape):
    added = gradient.ndim - len(shape)  # axes that broadcasting put in front
    axes = [i for i in range(gradient.ndim) if i < added or shape[i - added] == 1]
    return gradient.sum(tuple(axes), keepdims=True).reshape(shape)  # as (3, 1, 1)

shift, dz = rng.standard_normal((3, 1, 1)), rng.standard_normal(pixels.shape)
left = (np.broadcast_to(shift, pixels.shape) * dz).sum()
right = (shift * unbroadcast(dz, shift.shape)).sum()
print(f"copy(x) . dz = {left:.10f}   x . sum(dz) = {right:.10f}")
assert np.isclose(left, right)

# %% [markdown]
# ## The tape, played backwards
#
# Line all tensors up, the *tape*, each *after* those it was made from: a *topological
# order*. The end alone gives it: a tensor first lets its parents write themselves down.
# Then walk the line backwards. Each tensor carries back what has arrived, and *adds* it
# to what its parents have: a number used twice moves the loss along two roads.

# %%
def tape(z, order):
    if z not in order:
        for x in z.parents:
            tape(x, order)
        order[z] = None  # a dict, as a set that keeps its order
    return order

def hand_on(z):
    for x, dx in zip(z.parents, z.carry_back(z.grad), strict=True):
        x.grad = x.grad + unbroadcast(dx, x.data.shape)

def backward(end):
    end.grad = np.ones_like(end.data)  # the end moves by 1 as it moves by 1
    for z in [*tape(end, {})][::-1]:
        hand_on(z)

three = Tensor(3.0)
backward(5.0 * three + three * 2.0 + (2 - three) + 6 / three)
print("slope of 5 x + x 2 + (2 - x) + 6 / x at 3:", three.grad.round(4))
assert np.isclose(three.grad, 5 + 2 - 1 - 6 / 9)

# %% [markdown]
# ## Does the order matter? A number that is wrong only sometimes
#
# That was the engine. But somebody has no patience for a tape, and lists the end, its
# parents, then theirs: *breadth first*, each tensor once. With a = 2, b = a + a and
# c = b * b: is the slope of `b + c` right? Is that of `c + b`?

# %%
def breadth_first(end):
    order = [end]
    for z in order:  # the list grows while we walk along it
        order += [x for x in dict.fromkeys(z.parents) if x not in order]
    return order

walks = {}
for title in ("breadth first, b + c", "breadth first, c + b", "the tape, b + c"):
    a = Tensor(2.0)
    b = a + a
    c = b * b
    end = c + b if "c + b" in title else b + c
    order = breadth_first(end) if "first" in title else [*tape(end, {})][::-1]
    end.grad, handed = np.ones(()), {}
    for z in order:
        handed[z] = z.grad  # at its turn; more may arrive later
        hand_on(z)
    last = f"end = {title[-5:]} = 20"
    names = {a: "a = 2", b: "b = a + a = 4", c: "c = b * b = 16", end: last}
    parents = {z: [names[x] for x in z.parents] for z in order}
    walks[title] = [(names[z], handed[z], z.grad, parents[z]) for z in order]
    print(f"{title}: d end / da = {a.grad}")
caption = "The walk goes against the arrows; pink handed on 1, and 8 came later."
assert [steps[-1][2] for steps in walks.values()] == [2, 18, 18]

# %%
plots.walks(walks, name="order_of_the_walk", caption=caption)
plt.show()

# %% [markdown]
# The worst kind of bug: `b + c` is wrong, `c + b` is right. In the first, b handed on
# its 1 before c's turn came. Then c handed it 4, the other b, on each of its two roads:
# 8, too late. And b's two roads to the end are those of a block, `x + f(x)`. The rule:
# a tensor hands on when *everything that used it* has handed on.
#
# ## Beside minivit's engine
#
# A small Vision Transformer, without norms. Lesson 5's maxima go in as plain numbers:
# softmax does not change with them, so (unlike with lesson 6's mean) no gradient is
# lost. No op of ours sums: a product with ones does.

# %%
def small_vit(x, embed, query, key, value, up, down, head):
    x = x @ embed  # (N, D)
    s = (x @ query) @ (x @ key).T / D**0.5  # (N, N)
    p = (s - s.data.max(-1, keepdims=True)).exp()
    p = p / (p @ np.ones((N, 1)))  # by each row's sum: (N, N), attention weights
    x = x + p @ (x @ value)  # (N, D)
    hidden = x @ up  # (N, F), then nearly GELU: x * sigmoid(1.702 x)
    x = x + hidden / (1 + (-1.702 * hidden).exp()) @ down  # (N, D)
    logits = np.full((1, N), 1 / N) @ x @ head  # of the tokens' mean: (1, K)
    logits = logits - logits.data.max()
    return (logits.exp() @ np.ones((K, 1))).log() - logits @ label  # (1, 1), -log p

N, P, D, F, K, label = 16, 8, 12, 20, 5, np.eye(5)[:, [3]]  # one head: d = D
shapes = [(3 * P * P, D), (D, D), (D, D), (D, D), (D, F), (F, D), (D, K)]
arrays = [images.patchify(pixels, P).reshape(N, -1)]  # (N, C P P)
arrays += [rng.standard_normal(shape) / shape[0] ** 0.5 for shape in shapes]
ours = [Tensor(array) for array in arrays]
theirs = [minivit.Tensor(array, requires_grad=True) for array in arrays]
backward(small_vit(*ours))
small_vit(*theirs).backward()
apart = max(abs(x.grad - y.grad).max() for x, y in zip(ours, theirs, strict=True))
print(f"{sum(x.size for x in arrays)} gradients, largest difference {apart:.0e}")
assert apart < 1e-12

# %% [markdown]
# One walk for every weight and pixel: *reverse-mode differentiation*, at the price of a
# few forward passes (Griewank and Walther 2008).
#
# ## Your turn
#
# Play `b * c` on paper, coins for gradients: breadth first, then by the tape. The end
# hands 16 to b and 4 to c; for each coin that it has, c hands 4 to b, twice, and b 1 to
# a, twice. How many lie in a? And `c * b`?
#
# ## What you can say now
#
# - A backward is a vector-Jacobian product, and never makes the Jacobian.
# - What is copied on the way forward is summed on the way back, and the reverse.
# - The tape, a topological order, does each op once, after all that used its output.
# - A number that is used twice gets two gradients, added. So does a weight, of two
#   forward passes with a walk each: lesson 9 sets them to 0 before a step, `zero_grad`.
#
# ## Exercises
#
# - `minivit exercise 08 --out DIR`: the backward of `take`, which looks up rows; the
#   same row may be asked for twice. `minivit check 08` grades it.
# - `x = x + 1`, 5000 times, then `backward`: RecursionError. Write `tape` with a stack.
# - No tape: whenever something arrives, a tensor hands on at once all that it has. With
#   two = one + one and four = two + two: why is the slope of `four` 6 then, not 4? And
#   if it hands on only what is new: how many roads are 12 blocks, with 24 forks?
#
# Sources: Rumelhart et al. 1986, Griewank and Walther 2008, Baydin et al. 2018.
#
# In the explorer, a page that `minivit explore --model digits --out digits.html`
# writes: [digits.html#lesson=8](../digits.html#lesson=8)
