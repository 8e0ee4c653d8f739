# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 6. Norm, attention, MLP, and two roads around
#
# The question: attention has mixed the patches. What else is in a block, and why can it
# be stacked?
#
# Builds: layer norm and its backward, GELU, the MLP, and the whole encoder block.
#
# New ideas: (1) *layer norm*; (2) its *vector-Jacobian product*: what is forgotten gets
# no gradient; (3) the *random cotangent*, by which a backward is tested; (4) GELU, a
# *nonlinearity*; (5) the *MLP*, each token on its own; (6) the *residual stream* of a
# *pre-norm* block; (7) *post-norm*, the older place of the norm.
#
# Teach: 45 minutes. Run: 2 seconds.
#
# Axes: B batch, C channels, H W pixels, P patch side, T tokens, D hidden, F MLP size

# %%
import math

import matplotlib.pyplot as plt
import numpy as np

from minivit import Tensor, differentiable, gradcheck, images, lessons, ops, plots, vit
from minivit.gradcheck import GradientError

photo = lessons.photo()
rng, P = np.random.default_rng(0), 16
pixels = images.pixel_values(photo, 224).astype(np.float64) * 0.5 + 0.5  # (C, H, W)
x = images.patchify(pixels, P).reshape(-1, 3 * P * P)  # (T, D)
T, D = x.shape

# %% [markdown]
# ## Layer norm
#
# Take one token, and no other. Subtract its mean, divide by its standard deviation.
# Then a learned scale and shift, one for each place. `eps`, tiny, keeps a token of
# equal numbers from a division by zero.

# %%
def mean(a):
    return a.mean(-1, keepdims=True)

def normalise(x, eps=1e-12):
    c = x - mean(x)
    return c / np.sqrt(mean(c * c) + eps)

n = normalise(x)
weight, bias = rng.standard_normal((2, D))
assert np.allclose(n * weight + bias, ops.layer_norm(x, weight, bias, eps=1e-12).data)
print(f"patch 0: variance {x[0].var():.3f} before, {n[0].var():.3f} after")

# %% [markdown]
# A brighter token, `x + 1`: the mean takes it away. More contrast, `3 x`: the deviation
# takes it away. Dim the right half of the photo to a third, and look again.

# %%
dimmed = pixels.copy()
dimmed[:, :, 112:] /= 3  # 112 = 7 * 16: whole patches
n_dimmed = normalise(images.patchify(dimmed, P).reshape(T, D))  # (T, D)
assert np.allclose(n_dimmed, n, rtol=1e-3, atol=1e-3)  # not exact: there is eps
flat = [images.unpatchify(a.reshape(T, 3, P, P), 224, 224) for a in (n_dimmed, n)]
shown = [a.transpose(1, 2, 0) for a in (dimmed, *(a / 5 + 0.5 for a in flat))]
# / 5 + 0.5: numbers of both signs, to be seen as colours

# %%
plots.pictures(
    shown, ["right half dimmed to a third", "its patches, normed", "undimmed, normed"],
    name="layer_norm", caption="The norm forgets the dimming: middle and right are the "
    "same, though they were made of different photos.",
)
plt.show()

# %% [markdown]
# ## Its backward, a vector-Jacobian product
#
# Forward down the left column, then back up the right one, 1 to 4; `dn` is the loss's
# gradient with respect to n. The trap: x goes two ways. It is divided, and it makes the
# number we divide by.
#
# | forward | backward |
# |---|---|
# | `c = x - mean(x)` | 4. `dx = dc - mean(dc)` |
# | `v = mean(c * c)` | 3. `dc = dc + 2 / D * c * dv`, for c was used twice |
# | `r = (v + eps) ** -0.5` | 2. `dv = -0.5 * r ** 3 * dr` |
# | `n = c * r` | 1. `dc = dn * r`, `dr = sum(dn * c)`: one r for all D |
#
# 1, 2 into 3 (c * r is n): `dc = r * (dn - n * mean(dn * n))`. Then 4 (n has mean 0):
# `dx = r * (dn - mean(dn) - n * mean(dn * n))`, dn less its mean, less its part along n
# (n . n is D, but for eps). Along (1, ..., 1) x gets brighter, along n more contrast;
# there dx is 0: what is forgotten gets no gradient.

# %%
def layer_norm_with(backward):
    @differentiable  # makes an op of a function that returns output and backward
    def norm(x):
        c = x - mean(x)
        r = mean(c * c) ** -0.5
        return c * r, lambda dn: backward(dn, c * r, r)

    return norm

def right(dn, n, r):
    return r * (dn - mean(dn) - n * mean(dn * n))

small, dn = rng.standard_normal((2, 3, 7))  # three tokens of seven numbers
leaf = Tensor(small, requires_grad=True)
out = layer_norm_with(right)(leaf)
out.backward(dn)
ones, along_n = abs(leaf.grad.sum(1)).max(), abs((leaf.grad * out.data).sum(1)).max()
print(f"dx along (1, ..., 1): {ones:.0e}, along n: {along_n:.0e}")
assert gradcheck(layer_norm_with(right), small)

# %% [markdown]
# ## A test that a wrong backward passes
#
# `layer_norm(x).sum().backward()` gives zero. Is it broken? No: n has the mean 0, so
# its sum is always 0, and what never changes has the slope 0. But a backward that does
# nothing passes this test. Give each output a random weight, the *random cotangent*, as
# gradcheck (lesson 2: nudge and compare) does. Below are four backwards, one right; two
# take deviation or mean from `x.data`, through which no gradient flows. A sum sends
# back dn = 1. Put that in: which of the four give 0, and pass? Predict, then run.

# %%
backwards = {
    "right": right,
    "zero": lambda dn, n, r: dn * 0,
    "deviation taken as constant": lambda dn, n, r: r * (dn - mean(dn)),
    "mean taken as constant": lambda dn, n, r: r * (dn - n * mean(dn * n)),
}

def passes(f):
    try:
        return gradcheck(f, small)  # the random weights are inside
    except GradientError:
        return False

found = {}
for name, backward in backwards.items():
    f = layer_norm_with(backward)
    found[name] = passes(lambda x, f=f: f(x).sum()), passes(f)
    print(f"{name:28} passes a sum: {found[name][0]}, a random test: {found[name][1]}")
assert [honest for _, honest in found.values()] == [True, False, False, False]

# %% [markdown]
# dn = 1: dn - mean(dn) is 0, so the third passes. The fourth gives r * (1 - n * 0) = r.
#
# ## GELU, a nonlinearity
#
# The MLP is two linear layers, D -> F -> D, on each token on its own, and between them
# a *nonlinearity*: without it two matrices are one, `W2 (W1 x) = (W2 W1) x`. ReLU is x
# or 0, a switch. GELU (Hendrycks and Gimpel 2016) is x times a probability, the chance
# that a *standard* normal number (mean 0, variance 1) lies below x.

# %%
points = np.linspace(-4, 4, 801)
chance = (1 + np.vectorize(math.erf)(points / math.sqrt(2))) / 2
exact = points * chance
assert np.allclose(exact, ops.gelu(points).data, rtol=1e-13, atol=1e-15)

# %%
plots.curves(
    dict(lines={"ReLU": (points, np.maximum(points, 0)), "GELU": (points, exact)},
         xlabel="x", ylim=(-0.4, 3)),
    name="gelu", caption="GELU is ReLU with a soft bend and a small dip below 0.",
)
plt.show()

# %% [markdown]
# ## The block, twice
#
# *Pre-norm*, as in the Vision Transformer (Dosovitskiy et al. 2021): on the main road,
# the *residual stream*, are only two plus signs: each part reads a normalised copy, and
# adds to it. *Post-norm*, as in the first Transformer (Vaswani et al. 2017) and BERT
# (Devlin et al. 2019): `norm(x + f(x))`, the norm on the main road.
#
#     x ---+----------------------(+)---+----------------(+)--- y         pre-norm
#          +--- norm - attention --+    +--- norm - MLP --+
#     x ---+---------------(+)-- norm ---+---------(+)-- norm --- y       post-norm
#          +--- attention --+            +--- MLP --+
#
# Then switch attention and MLP off (their last matrices become 0): what is left?

# %%
sizes = dict(hidden_size=64, num_attention_heads=4, intermediate_size=256)  # D, h, F
config = vit.ViTConfig(**sizes, initializer_range=1 / 8)  # large weights, to be seen
block = vit.ViTLayer(config, rng=1)
norm_1, norm_2 = block.layernorm_before, block.layernorm_after

def mlp(x):
    return block.output.dense(ops.gelu(block.intermediate.dense(x)))  # (B, T, D)

def pre_norm(x):
    x = x + block.attention(norm_1(x))[0]  # (B, T, D); the parts return tuples
    return x + mlp(norm_2(x))

def post_norm(x):
    x = norm_1(x + block.attention(x)[0])  # (B, T, D)
    return norm_2(x + mlp(x))

tokens = Tensor(np.float32(rng.standard_normal((1, 9, 64))))  # (B, T, D)
assert np.allclose(pre_norm(tokens).data, block(tokens)[0].data, atol=1e-5)

# %%
for part in (block.attention.output, block.output):
    part.dense.weight.data = 0 * part.dense.weight.data
dy, came = np.float32(rng.standard_normal(tokens.shape)), {}
for road in (pre_norm, post_norm):
    leaf = Tensor(tokens.data, requires_grad=True)
    y = road(leaf)
    y.backward(dy)
    came[road] = dx = leaf.grad
    print(f"{road.__name__}: x changes by {abs((y - tokens).data).max():.2f}", end=", ")
    print(f"gradient by {abs(dx - dy).max():.2f}, its sum: {abs(dx.sum(-1)).max():.2f}")
assert (came[pre_norm] == dy).all() and abs(came[post_norm].sum(-1)).max() < 1e-4

# %% [markdown]
# Pre-norm keeps the road free: x and gradient pass unchanged, so blocks can be stacked.
# Post-norm puts two norms on it. They alone change x here, and what they forget gets no
# gradient: each token's sums to 0, but for rounding. 6b stacks both.
#
# ## Your turn
#
# Pencil and paper: normalise (1, 1, 4), (10, 10, 40) and (5, 5, 5), without eps where
# you can. Predict first which will be alike. What does eps do for the third? For home:
# a sheet with the backward, [sheets/layer_norm.md](sheets/layer_norm.md).
#
# ## What you can say now
#
# - Layer norm looks at each token alone, and forgets its brightness and contrast.
# - What is forgotten gets no gradient. A random cotangent finds what a sum does not.
# - Without a nonlinearity two linear layers are one.
# - Pre-norm keeps the residual stream free; post-norm puts the norm on it.
#
# ## Exercises
#
# - `minivit exercise 06 --out DIR`: layer norm's backward for x, weight and bias.
# - GELU's derivative, by the product rule: chance + x * bell, where bell is
#   exp(-x * x / 2) / sqrt(2 pi). Let gradcheck judge it.
#
# Sources: Ba et al. 2016; Hendrycks and Gimpel 2016; Vaswani et al. 2017; Devlin et al.
# 2019; Dosovitskiy et al. 2021.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=6](../explore.html#lesson=6)
