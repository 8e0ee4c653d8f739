# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 6. Norm, attention, MLP, and two roads around
#
# The question: attention has mixed the patches. What else is in a block, and why can twelve of them be stacked?
#
# Builds: layer norm with its backward, GELU, the MLP and the whole encoder block; then it stacks 24 of them in two
# ways, and looks at how much gradient comes back.
#
# Teach: 40 minutes. Run: 3 seconds.
#
# Axes: B batch, C channels, H W pixels, P patch side, N patches, T tokens (here T = N), D hidden size, h heads, F MLP
# size, L blocks

# %%
import math

import matplotlib.pyplot as plt
import numpy as np

from minivit import Tensor, differentiable, gradcheck, images, lessons, nn, notebook, ops, vit
from minivit.gradcheck import GradientError

photo = lessons.photo()
rng = np.random.default_rng(0)

# %% [markdown]
# ## Layer norm
#
# Take one token. Subtract its mean. Divide by its standard deviation. That is all: each token on its own, no other
# token and no other picture takes part. Then come a learned scale and a learned shift, one for each place.
#
# `eps` is a tiny number under the root, so that a token whose numbers are all equal does not divide by zero.

# %%
P, grid = 16, (14, 14)
pixels = images.pixel_values(photo, 224).astype(np.float64) * 0.5 + 0.5  # (C, H, W), 0..1
x = images.patchify(pixels, P).reshape(-1, 3 * P * P)  # (T, D)
T, D = x.shape


def normalise(x, eps=1e-12):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)


n = normalise(x)
busiest = np.argsort(-x.var(1))[:3]  # the three patches with the most contrast
for token in busiest:
    before, after = x[token], n[token]
    print(f"patch {token + 1:3}: mean {before.mean():.3f} -> {abs(after.mean()):.3f}", end=",  ")
    print(f"variance {before.var():.3f} -> {after.var():.3f}")

# %%
weight, bias = rng.standard_normal((2, D))
layer = nn.LayerNorm(D, eps=1e-12).to(np.float64)
layer.weight.data, layer.bias.data = weight, bias
assert np.allclose(layer(x).data, n * weight + bias)
assert np.allclose(n.mean(1), 0, atol=1e-8) and (n.var(1) < 1 + 1e-9).all()
print("normalise(x) * weight + bias == nn.LayerNorm")

# %% [markdown]
# ## What it forgets
#
# A brighter token, `x + 1`: the mean takes it away. A token with more contrast, `3 x`: the deviation takes it away.
# So layer norm does not know how large a token is. We dim the right half of the photo to a third, and look at the
# patches after the norm.

# %%
dimmed = pixels.copy()
dimmed[:, :, 112:] = dimmed[:, :, 112:] / 3
n_dimmed = normalise(images.patchify(dimmed, P).reshape(T, D))  # (T, D)
assert np.allclose(n_dimmed, n, rtol=1e-3, atol=1e-3)  # not to the last digit: eps is not forgotten
assert np.allclose(normalise(3 * x + 1), n, rtol=1e-3, atol=1e-3)
print(f"right half at a third of its light: the normalised patches differ by {abs(n_dimmed - n).max():.1e}")

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 3.7), dpi=100, layout="constrained")
figure.set_label("layer_norm")
titles = "right half dimmed to a third", "its patches after the norm", "patches of the undimmed photo"
for panel, tokens, title in zip(axes, (None, n_dimmed, n), titles, strict=True):
    picture = dimmed if tokens is None else images.unpatchify(tokens.reshape(T, 3, P, P), 224, 224) / 5 + 0.5
    panel.imshow(picture.transpose(1, 2, 0).clip(0, 1))
    panel.set(xticks=[], yticks=[], title=title)
plt.show()

# %% [markdown]
# ## Its backward
#
# Write forward in four steps, and walk back. A name with a `d` in front is the gradient of the loss with respect to
# it. The trap: x goes two roads. It is what is divided, and it also makes the number that we divide by.
#
# | forward | backward |
# |---|---|
# | `c = x - mean(x)` | `dx = dc - mean(dc)` |
# | `v = mean(c * c)` | `dc = 2 / D * c * dv`, added to the other `dc` |
# | `r = (v + eps) ** -0.5` | `dv = -0.5 * r ** 3 * dr` |
# | `n = c * r` | `dc = dn * r` and `dr = sum(dn * c)` |
#
# Put the lines into each other. The second road becomes `-r * n * mean(dn * n)`. And since n has the mean 0, the
# last step takes the mean of the first road only:
#
# `dx = r * (dn - mean(dn) - n * mean(dn * n))`

# %%
def mean(a):
    return a.mean(-1, keepdims=True)


def in_four_steps(x, dn, eps):
    c = x - mean(x)
    r = (mean(c * c) + eps) ** -0.5
    dr = (dn * c).sum(-1, keepdims=True)
    dv = -0.5 * r**3 * dr
    dc = dn * r + 2 / x.shape[-1] * c * dv
    return dc - mean(dc)


@differentiable
def norm(x, eps=1e-5):
    c = x - mean(x)
    r = (mean(c * c) + eps) ** -0.5
    n = c * r
    return n, lambda dn: r * (dn - mean(dn) - n * mean(dn * n))


# %%
small, dn = rng.standard_normal((2, 3, 7))  # three tokens of seven numbers
assert gradcheck(norm, small)
leaf = Tensor(small, requires_grad=True)
norm(leaf).backward(dn)
assert np.allclose(leaf.grad, in_four_steps(small, dn, 1e-5))

composed = Tensor(small, requires_grad=True)
c = composed - composed.mean(-1, keepdims=True)
(c / ((c * c).mean(-1, keepdims=True) + 1e-5).sqrt()).backward(dn)
assert np.allclose(leaf.grad, composed.grad)
assert gradcheck(lambda x, weight, bias: ops.layer_norm(x, weight, bias), small, *rng.standard_normal((2, 7)))
print("four steps == one line == the tape of small ops == finite differences")

# %% [markdown]
# Look at that line once more. It takes dn and subtracts two things: its mean, and its share along n. What is left
# is orthogonal to (1, 1, ..., 1) and, if eps is 0, to n. That must be so. Moving x along these two directions makes it
# brighter or gives it more contrast, and layer norm forgets both. What is forgotten gets no gradient.

# %%
exact = Tensor(small, requires_grad=True)
out = norm(exact, eps=0.0)
out.backward(dn)
along_ones, along_n = exact.grad.sum(1), (exact.grad * out.data).sum(1)
print(f"dx along (1, ..., 1): {abs(along_ones).max():.0e}, along n: {abs(along_n).max():.0e}")
assert np.allclose(along_ones, 0, atol=1e-12) and np.allclose(along_n, 0, atol=1e-12)

# %% [markdown]
# ## Why does layer norm's gradient vanish under a sum?
#
# Learners meet this when they test a layer norm of their own, its weight still 1 and its bias 0. They write
# `layer_norm(x).sum().backward()`, and the gradient is zero. Is it broken? No. The normalised token has the mean 0,
# whatever x is. So the sum is always 0, and what never changes has the slope 0. The sum of the squares is always D, so
# it does not help either.
#
# It is a bad test, then: a backward that does nothing at all passes it. Give every output a weight of its own, drawn
# at random. That is the *random cotangent*, and it is what gradcheck does.

# %%
for name, loss in (("sum of n", lambda n: n.sum()), ("sum of n squared", lambda n: (n * n).sum())):
    leaf = Tensor(small, requires_grad=True)
    loss(norm(leaf, eps=0.0)).backward()
    print(f"{name:17} largest gradient {abs(leaf.grad).max():.0e}")
    assert np.allclose(leaf.grad, 0, atol=1e-12)

# %% [markdown]
# Five backwards for layer norm, one right and four wrong. Each is tested twice: under a sum, and under a random
# cotangent. The last two are no joke. Teaching code has been published that takes the mean or the deviation from the
# plain array, where no gradient can follow.

# %%
backwards = {
    "the right one": lambda dn, n, r: r * (dn - mean(dn) - n * mean(dn * n)),
    "zero": lambda dn, n, r: dn * 0,
    "twice too large": lambda dn, n, r: 2 * r * (dn - mean(dn) - n * mean(dn * n)),
    "deviation taken as constant": lambda dn, n, r: r * (dn - mean(dn)),
    "mean taken as constant": lambda dn, n, r: r * (dn - n * mean(dn * n)),
}

# %%
def norm_with(formula):
    @differentiable
    def candidate(x):
        c = x - mean(x)
        r = (mean(c * c)) ** -0.5
        return c * r, lambda dn: formula(dn, c * r, r)

    return candidate


def passes(fn):
    try:
        return gradcheck(fn, small)
    except GradientError:
        return False

# %%
found = {}
print(f"{'backward':30}{'under a sum':>14}{'random cotangent':>20}")
for name, formula in backwards.items():
    candidate = norm_with(formula)
    found[name] = passes(lambda x, candidate=candidate: candidate(x).sum()), passes(candidate)
    said = ["passes" if passed else "caught" for passed in found[name]]
    print(f"{name:30}{said[0]:>14}{said[1]:>20}")
assert [random for _, random in found.values()] == [True, False, False, False, False]
assert [under_sum for under_sum, _ in found.values()] == [True, True, True, True, False]

# %% [markdown]
# ## GELU
#
# Between the two linear layers of the MLP stands a bend. ReLU is `x` or 0: a switch. GELU is x times a probability:
# the chance that a normally distributed number is below x. For large x it is nearly x, for very negative x nearly 0,
# and in between it is smooth, with a small dip below zero.
#
# The chance needs the error function: `Phi(x) = (1 + erf(x / sqrt(2))) / 2`. A cheaper formula with a tanh was
# published beside it, and some checkpoints were trained with that one. They are not the same function.

# %%
points = np.linspace(-5, 5, 2001)
erf = np.vectorize(math.erf)
exact = points * (1 + erf(points / math.sqrt(2))) / 2
u = math.sqrt(2 / math.pi) * (points + 0.044715 * points**3)
approximate = 0.5 * points * (1 + np.tanh(u))
assert np.allclose(exact, ops.gelu(points).data, rtol=1e-13, atol=1e-15)
assert np.allclose(approximate, ops.gelu_tanh(points).data, rtol=1e-13, atol=1e-15)
print(f"largest difference of the two: {abs(exact - approximate).max():.1e}; ", end="")
print(f"deepest point {exact.min():.3f} at x = {points[exact.argmin()]:.2f}")
assert 4e-4 < abs(exact - approximate).max() < 5e-4

# %% [markdown]
# By the product rule, the derivative of `x * Phi(x)` is `Phi(x) + x * phi(x)`, where phi is the bell curve. The tanh
# formula has a derivative of its own. To pair the one with the derivative of the other is a mistake that a loose
# test does not see: it is off by less than a thousandth. gradcheck sees it.

# %%
def derivative(x):
    return (1 + erf(x / math.sqrt(2))) / 2 + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


@differentiable
def mixed_up(x):
    return ops.gelu_tanh(x).data, lambda dy: dy * derivative(x)


slope = derivative(points)
leaf = Tensor(points, requires_grad=True)
ops.gelu_tanh(leaf).backward(np.ones_like(points))
slope_tanh = leaf.grad
print(f"largest difference of the two derivatives: {abs(slope - slope_tanh).max():.1e}")
assert passes(ops.gelu) and passes(ops.gelu_tanh) and not passes(mixed_up)
assert abs(slope - slope_tanh).max() < 1e-3

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), dpi=100, layout="constrained")
figure.set_label("gelu")
left.plot(points, np.maximum(points, 0), "--", color="0.6", label="ReLU")
left.plot(points, exact, color="tab:blue", label="GELU (exact; tanh looks the same)")
left.plot(points, slope, color="tab:orange", label="its derivative")
left.set(title="GELU", xlabel="x", xlim=(-4, 4), ylim=(-0.4, 5))
right.plot(points, 1e3 * (approximate - exact), color="tab:blue", label="value")
right.plot(points, 1e3 * (slope_tanh - slope), color="tab:orange", label="derivative")
right.set(title="tanh formula minus exact", xlabel="x", ylabel="difference, in thousandths")
for panel in (left, right):
    panel.grid(alpha=0.3)
    panel.legend()
plt.show()

# %% [markdown]
# ## The MLP, and why it needs the bend
#
# Two linear layers, D -> F -> D, with GELU between them. It treats each token on its own: attention talks, the MLP
# thinks. Without the bend, two linear layers are one: `W2 (W1 x) = (W2 W1) x`. The notebook's MLP has none, so all
# its numbers make one matrix, which could have been learned directly.

# %%
thinks = notebook.EncoderBlock(10, 10, 2, rng=0).eval().to(np.float64).mlp
first, _, second = thinks
one_matrix = second.weight.data @ first.weight.data  # (D, D)
one_bias = second.weight.data @ first.bias.data + second.bias.data  # (D,)
tokens = rng.standard_normal((5, 10))
assert np.allclose(thinks(tokens).data, tokens @ one_matrix.T + one_bias)
print(f"the notebook's MLP: {first.weight.size + second.weight.size} weights do what {one_matrix.size} could do")

# %% [markdown]
# ## The whole block
#
# Norm, attention, and a road around both. Norm, MLP, and a road around both. The norm comes first, on the side
# street; the main road has nothing on it but two plus signs. That is called *pre-norm*.

# %%
std = 1 / math.sqrt(64)  # of the weights: a matrix then hands on numbers as large as it was given
config = vit.ViTConfig(hidden_size=64, num_attention_heads=4, intermediate_size=256, initializer_range=std)
block = vit.ViTLayer(config, rng=1).to(np.float64)
cut = images.patchify(images.pixel_values(photo, 96), P).reshape(36, -1)  # (T, 768)
x = cut @ rng.standard_normal((cut.shape[1], 64)) / 10  # (T, D), a random map stands in for the patch embedding
x += 0.3 * rng.standard_normal(x.shape)  # and random numbers for the positions


def by_hand(block, x):
    attended = block.attention(block.layernorm_before(x))[0]  # (B, T, D)
    x = x + attended
    inner = ops.gelu(block.intermediate.dense(block.layernorm_after(x)))  # (B, T, F)
    return x + block.output.dense(inner)  # (B, T, D)


assert np.allclose(by_hand(block, Tensor(x[None])).data, block(Tensor(x[None]))[0].data)
print(f"x {x[None].shape} -> block {by_hand(block, Tensor(x[None])).shape}: the same shape, so blocks can be stacked")

# %% [markdown]
# The notebook has a different plan. Its road starts *behind* the norm: `n = norm(x)`, then `n + attention(n)`.
# Nothing passes without being normalised. Two things follow at once, and we can assert both.
#
# First: switch attention and MLP off, by setting their last matrices to 0. The pre-norm block then does nothing: x
# comes out as it went in, and so does the gradient. The notebook's block still does something.

# %%
theirs = notebook.EncoderBlock(64, 64, 4, rng=1).eval().to(np.float64)
switched_off = [block.attention.output.dense, block.output.dense, theirs.attn_layer.wv, theirs.mlp[2]]
kept = [[parameter.data for parameter in part.parameters()] for part in switched_off]
for part in switched_off:
    for parameter in part.parameters():
        parameter.data = np.zeros_like(parameter.data)
leaf = Tensor(x, requires_grad=True)
y = by_hand(block, leaf.reshape(1, *x.shape))[0]  # (T, D)
dy = rng.standard_normal(y.shape)
y.backward(dy)
assert np.allclose(y.data, x) and np.allclose(leaf.grad, dy)
still = abs(theirs(Tensor(x)).data - x).max()
print(f"switched off, pre-norm changes x by {abs(y.data - x).max():.1f}, the notebook's block by {still:.1f}")
assert np.allclose(theirs(Tensor(x)).data, normalise(normalise(x, 1e-5), 1e-5))

# %% [markdown]
# Second: switched on again, the notebook's block can hardly tell `3 x + 5` from `x`. Layer norm forgets the 3 and the
# 5, and no road leads past it. So along (1, 1, ..., 1) no gradient comes back, from any depth.

# %%
for part, arrays in zip(switched_off, kept, strict=True):
    for parameter, array in zip(part.parameters(), arrays, strict=True):
        parameter.data = array
blocks = {"pre-norm": lambda x: by_hand(block, x.reshape(1, *x.shape))[0], "notebook": theirs}
change = {}
for name, f in blocks.items():
    leaf = Tensor(x, requires_grad=True)
    y = f(leaf)
    y.backward(dy)
    change[name] = abs(f(Tensor(3 * x + 5)).data - y.data).max(), abs(leaf.grad.sum(1)).max()
    print(f"{name:9} 3 x + 5 changes the output by {change[name][0]:.1e}; gradient along (1, ..., 1)", end=" ")
    print(f"{change[name][1]:.1e}")
assert change["notebook"][0] < 0.01 < change["pre-norm"][0]
assert change["notebook"][1] < 1e-9 < change["pre-norm"][1]

# %% [markdown]
# ## 24 blocks, and what comes back
#
# We stack 24 untrained blocks on the patches of the photo, send a random gradient in at the top, and measure how
# large it is below each block. Three stacks:
#
# - pre-norm, minivit's `ViTLayer`;
# - the same parts with the same numbers, but the roads laid as in the notebook;
# - the notebook's own block (with the corrected einsum).
#
# We also measure the part of the gradient that differs between tokens: what is left after taking away their mean.
# That part tells a single patch what it alone should change. And we draw how alike the tokens are: the mean cosine
# between all pairs, 1 when all are the same.

# %%
L = 24
rng = np.random.default_rng(2)
parts = [vit.ViTLayer(config, rng) for _ in range(L)]
own = [notebook.EncoderBlock(64, 64, 4, rng=rng).eval() for _ in range(L)]


def pre_norm(part, x):
    return part(x)[0]


def notebook_roads(part, x):
    n = part.layernorm_before(x)
    m = part.layernorm_after(n + part.attention(n)[0])
    return part.output(part.intermediate(m), m)


# %%
def walk(blocks, step, x, seed=3):
    states = [Tensor(x.astype(np.float32), requires_grad=True)]
    for block in blocks:
        states.append(step(block, states[-1]))
        states[-1].retain_grad()
    dy = np.random.default_rng(seed).standard_normal(x.shape)
    states[-1].backward(dy)
    gradients = np.array([state.grad.reshape(36, 64) for state in states])  # (L + 1, T, D)
    different = gradients - gradients.mean(1, keepdims=True)  # without what all tokens have in common
    sizes = [np.linalg.norm(a, axis=(1, 2)) / np.linalg.norm(dy) for a in (gradients, different)]  # (L + 1,) each
    a = np.array([state.data.reshape(36, 64) for state in states])  # (L + 1, T, D)
    a /= np.linalg.norm(a, axis=2, keepdims=True)
    return *sizes, (a @ a.transpose(0, 2, 1)).mean((1, 2))


# %%
stacks = {
    "pre-norm": walk(parts, pre_norm, x[None]),
    "same parts, notebook's roads": walk(parts, notebook_roads, x[None]),
    "the notebook's block": walk(own, lambda block, x: block(x), x),
}

# %%
shown = [0, 1, 6, 12, 18, 23, 24]
print(f"{'gradient below block':29}", *(f"{depth + 1:6}" for depth in shown[:-1]), "   top")
for name, (size, different, _) in stacks.items():
    print(f"{name:29}", *(f"{size[depth]:6.2f}" for depth in shown))
    print(f"{'  what differs by token':29}", *(f"{different[depth]:6.2f}" for depth in shown))

# %%
sizes, differing, alike = ({name: stack[i] for name, stack in stacks.items()} for i in range(3))
assert sizes["pre-norm"].min() > 0.95 and differing["pre-norm"].min() > 0.9
for name in ("same parts, notebook's roads", "the notebook's block"):
    assert differing[name].min() < differing["pre-norm"].min() / 3
    assert 1 - alike[name][-1] < 0.2 * (1 - alike["pre-norm"][-1])
lost_and_found = differing["same parts, notebook's roads"]
assert lost_and_found[0] > 2 * lost_and_found.min()

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), dpi=100, layout="constrained")
figure.set_label("gradient_by_depth")
for name, color in zip(stacks, ("tab:blue", "tab:orange", "tab:red"), strict=True):
    left.plot(sizes[name], color=color, label=name)
    left.plot(differing[name], "--", color=color, linewidth=1)
    right.plot(alike[name], color=color, label=name)
left.axhline(1, color="0.5", linewidth=1, linestyle=":")
left.set(yscale="log", title="How much gradient comes back", ylabel="size, 1 is what was sent in at the top")
left.plot([], [], "--", color="0.4", linewidth=1, label="dashed: what differs by token")
left.set_yticks([0.01, 0.03, 0.1, 0.3, 1, 3, 10], ["0.01", "0.03", "0.1", "0.3", "1", "3", "10"])
left.minorticks_off()
right.set(ylim=(0, 1.03), title="How alike the tokens are", ylabel="mean cosine of all pairs of tokens")
for panel in (left, right):
    panel.set(xlabel="blocks passed, from the pixels up", xlim=(0, L))
    panel.grid(alpha=0.3)
left.legend()
plt.show()

# %% [markdown]
# Read the left picture from right to left, as the gradient goes. With the main road free, all of it passes every
# block, and each block adds its own part: it does not fall below what was sent in. With a norm on the road, each
# block adds, and then divides by the new size. Attention averages, so the gradient that it adds is nearly the same for
# all tokens. That part holds out; the part that differs from token to token (dashed) is divided away. With the same
# parts (orange) some of it comes back in the lowest blocks: there the tokens still differ (on the right), so that the
# backward of norm, attention and MLP does not do the same to all of them, and what they share turns into differences.
#
# The right picture is the same story, forward. Attention averages tokens. On the free road every token also keeps
# itself. Where the road is squeezed by a norm each time, the average wins, and after some blocks all tokens are
# nearly the same. Then there is little left to ask for, and little to learn from.
#
# These are untrained blocks: a start, not a verdict. With much smaller weights, 0.02 in place of our 0.125, attention
# and MLP add so little that all roads look alike at first; the difference comes as the weights grow. Networks with
# the norm on the road can be trained, too, with a slow warm-up. The Vision Transformer of the paper has its norms on
# the side streets, and one more at the very end.

# %% [markdown]
# ## What you can say now
#
# - Layer norm looks at one token at a time, and forgets its brightness and its contrast.
# - Its backward has two terms more than a plain division, because the mean and the deviation depend on x too.
# - The gradient of its sum is zero by right. So gradients are tested with a random cotangent.
# - Exact GELU and the tanh formula differ in the fourth decimal, and each needs its own derivative.
# - In a pre-norm block the main road holds nothing but two plus signs; that is why blocks can be stacked.
#
# ## Exercises
#
# - Exercise 06: write layer norm's backward, for x, weight and bias. `minivit exercise 06 --out DIR` writes the stub,
#   `minivit check FILE` grades it.
# - Build the block of the original Transformer, `norm(x + f(x))`, and add its curve to the last figure.
# - Leave the residual roads out altogether (`f(norm(x))`). How much gradient is left below block 1?
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=6](../explore.html#lesson=6)
