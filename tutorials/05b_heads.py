# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 5b. Heads, the matrix behind them, and the way back
#
# The question: one softmax has one opinion. How does a token ask several questions? And
# how does an error find its way back through a softmax?
#
# Builds: heads and their output matrix; a look at six trained heads; attention's
# backward by hand, checked against finite differences.
#
# New ideas: (1) two maps, so that interest need not be mutual; (2) *heads*: each has
# rows of its own in one matrix; (3) the *output matrix*, where each head has columns of
# its own; (4) what trained heads ask; (5) softmax's *Jacobian*; (6) the
# *vector-Jacobian product*, which is all that a backward needs; (7) attention's
# backward.
#
# Teach: 45 minutes. Run: 4 seconds.
#
# Axes: B batch, C channels, H W pixels, N patches, T tokens, D hidden size, h heads,
# d = D / h head size, q query tokens, k key tokens

# %%
import math

import matplotlib.pyplot as plt
import numpy as np

from minivit import gradcheck, images, lessons, plots, weights
from minivit.autograd import differentiable
from minivit.gradcheck import GradientError

photo = lessons.photo()
rng = np.random.default_rng(0)
T, D, h = 5, 12, 3
d = D // h
x = rng.standard_normal((T, D))
wq, wk, wv, wo = rng.standard_normal((4, D, D)) / math.sqrt(D)  # (out, in) each


def softmax(s):
    p = np.exp(s - s.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


# %% [markdown]
# ## Why two maps and not one
#
# With one map for query and key the *scores* are symmetric: what 0 scores with 1, 1
# scores with 0. (The *weights* are not: each row is divided by its own sum.) But a nose
# may want to find the eyes without the eyes caring about the nose. With two maps the
# scores themselves differ.

# %%
one_map = (x @ wq.T) @ (x @ wq.T).T  # (q, k)
two_maps = (x @ wq.T) @ (x @ wk.T).T  # (q, k)
for name, s in (("one map", one_map), ("two maps", two_maps)):
    p = softmax(s / math.sqrt(D))
    print(f"{name:8}  scores {s[0, 1]:5.2f} {s[1, 0]:5.2f}", end="   ")
    print(f"weights {p[0, 1]:.3f} {p[1, 0]:.3f}")
assert np.allclose(one_map, one_map.T) and not np.allclose(two_maps, two_maps.T)

# %% [markdown]
# ## Heads are a reshape and a transpose
#
# Several heads have several opinions. Each has maps of its own, D -> d with d = D / h.
# All of them together are one matrix D -> D: head 0 has its first d rows, head 1 the
# next d. So one product makes the queries of all heads, and cutting its output gives
# each head its part: (T, D) -> reshape (T, h, d) -> transpose (h, T, d).

# %%
def split(y):
    return y.reshape(T, h, d).transpose(1, 0, 2)  # (h, T, d)


query, key, value = (split(x @ weight.T) for weight in (wq, wk, wv))  # (h, T, d)
rows = [wq[head * d : (head + 1) * d] for head in range(h)]  # (d, D) each
assert all(np.allclose(query[head], x @ rows[head].T) for head in range(h))
print("the queries of head 1 come from rows", *range(d, 2 * d), "of wq")

# %% [markdown]
# Can the reshape go to (h, T, d) at once? The shape is right, the numbers are not: head
# 0 would hold pieces of the first tokens, and no axis of tokens.

# %%
owner = np.repeat(np.arange(T), D)  # (T * D,), which token each number belongs to
print("rows of head 0, with the transpose: tokens", *split(owner)[0, :, 0])
print("rows of head 0, without it:         tokens", *owner.reshape(h, T, d)[0, :, 0])

# %% [markdown]
# ## The output matrix
#
# The heads' answers are put side by side, (h, T, d) -> (T, h, d) -> (T, D), and the
# *output matrix* mixes them. Read it in two ways: one matrix on all of it; or each head
# through its own columns, and the sum. Without it a head could write only into its own
# slice of the token. In minivit, `ViTSelfAttention` has the three maps and the heads,
# `ViTSelfOutput` the output matrix, and `ViTAttention` is both: a `ViTSelfAttention`,
# then a `ViTSelfOutput`. (These are the names in the files of the Hugging Face hub;
# transformers 5 says `q_proj`, `k_proj`, `v_proj`, `o_proj` in memory.)

# %%
p = softmax(query @ key.transpose(0, 2, 1) / math.sqrt(d))  # (h, q, k)
context = p @ value  # (h, T, d)
output = context.transpose(1, 0, 2).reshape(T, D) @ wo.T  # (T, D)
columns = [wo[:, head * d : (head + 1) * d] for head in range(h)]  # (D, d)
assert np.allclose(output, sum(context[i] @ columns[i].T for i in range(h)))
print("one matrix on all heads == the sum of each head through its columns")

# %% [markdown]
# ## What trained heads ask
#
# `model(pixel_values, output_attentions=True).attentions` has one array (B, h, q, k) a
# block. Choose a block, a picture, a head and a token that asks: a row of attention
# weights is left. Drop CLS, its first number, fold the rest, lay it over the photo.
#
# We ask the smallest DINOv2 (Oquab et al. 2023), which learned from photos without
# labels (lesson 13). The patch in the middle asks, in block 3.

# %%
eye = weights.dinov2_small()
picture = images.fit_patches(photo, 14, patches=384)
grid = picture.height // 14, picture.width // 14
token = 1 + grid[0] // 2 * grid[1] + grid[1] // 2  # 0 is CLS
pixels = images.pixel_values(picture, picture.size[::-1], **images.IMAGENET)[None]
maps = eye(pixels, output_attentions=True, interpolate_pos_encoding=True).attentions
asked = maps[3].data[0, :, token]  # (h, k)
assert np.allclose(asked.sum(1), 1, atol=1e-5)
print(f"{len(maps)} blocks, each {maps[3].shape}; one token's rows: {asked.shape}")

# %%
plots.attention_over_photo(
    picture, asked, grid, query=token, name="trained_heads", caption="Six trained "
    "heads of block 3: each has its own opinion of what the outlined patch needs.",
)
plt.show()

# %% [markdown]
# Often some heads ask for the nearest patches, others for what looks alike far away,
# and some for CLS, whose weight stands above each map.
#
# ## The way back through softmax
#
# How does each weight move when one score moves a little? The table of these slopes is
# the *Jacobian*: `J[i, j] = dp_j / ds_i = p_j ((i == j) - p_i)`, where (i == j) is 1 if
# i is j, else 0. Raising a score raises its own weight and lowers all others. Where
# softmax has saturated, all is near 0.

# %%
flat = softmax(np.array([0.5, 0.0, -0.5, 1.0]))  # (k,)
sharp = softmax(np.array([4.0, 0.0, -4.0, 8.0]))  # (k,), eight times as far apart
jacobians = [np.diag(p) - np.outer(p, p) for p in (flat, sharp)]  # (k, k) each
dp = rng.standard_normal(4)
ds = flat * (dp - (dp * flat).sum())  # (k,)
assert np.allclose(ds, jacobians[0] @ dp)

# %%
plots.heatmaps(
    jacobians, ["scores near each other", "far apart: saturated"], signed=True,
    numbers=".2f", xlabel="weight that moves", ylabel="score that is raised",
    name="jacobian", caption="Read a row: so much does each weight move as this score "
    "is raised; where softmax has saturated, little moves.",
)
plt.show()

# %% [markdown]
# For each query the table has k * k numbers. Backward never needs it: a gradient dp
# comes in, and dp through the table goes out, the *vector-Jacobian product*:
# `ds = p * (dp - sum(dp * p))`: what this key earns, less what the average key earns,
# times its weight.
#
# ## Attention's backward, line by line
#
# 1. `y = p value`, a matrix product: each factor's gradient is dy times the other
#    factor, so `dp = dy value^T` and `dvalue = p^T dy`.
# 2. `p = softmax(s)`: the line above.
# 3. `s = query key^T / sqrt(d)`, a product and the scale: `dquery = ds key / sqrt(d)`
#    and `dkey = ds^T query / sqrt(d)`.

# %%
def attention(forget=None):
    @differentiable
    def attend(query, key, value):
        scale = 1 / math.sqrt(query.shape[-1])
        p = softmax(query @ key.T * scale)  # (q, k)

        def backward(dy):
            dp, dvalue = dy @ value.T, p.T @ dy  # (q, k), (k, d)
            average = 0 if forget == "keys" else (dp * p).sum(1, keepdims=True)
            ds = p * (dp - average)  # (q, k)
            back = 1 if forget == "scale" else scale
            return ds @ key * back, ds.T @ query * back, dvalue

        return p @ value, backward

    return attend


arrays = [rng.standard_normal(shape) for shape in ((3, 4), (5, 4), (5, 2))]
assert gradcheck(attention(), *arrays)

# %% [markdown]
# Two mistakes, to see them caught: a forgotten scale, and keys that do not compete.

# %%
caught = []
for forget in ("scale", "keys"):
    try:
        gradcheck(attention(forget), *arrays)
    except GradientError as error:
        caught.append(forget)
        print(error, end="\n\n")
assert caught == ["scale", "keys"]

# %% [markdown]
# ## Your turn
#
# Pencil and paper: one query, two keys with the weights .5 and .5, and dp = (1, 0).
# What is ds? Then with the weights 1 and 0. Then .5 and .5 with dp = (1, 1). Two of the
# three are 0: why?

# %% [markdown]
# ## What you can say now
#
# - One map makes symmetric scores, not symmetric weights; two maps free both.
# - Heads are a reshape and a transpose of one matrix's output: each head has rows of
#   its own in it, and columns of its own in the output matrix.
# - Softmax's Jacobian is p_j ((i == j) - p_i); backward needs only dp through it.
# - The scale stands in backward, too.
#
# ## Exercises
#
# - `minivit exercise 05 --out DIR`: the backward where one map makes query and key.
# - A head by hand, "who is near me?": query (2 a, -1) and key (b, |b|^2) score -|a -
#   b|^2, up to a number that the whole row shares. Why is that allowed?
#
# Sources: Vaswani et al. 2017, section 3.2; Oquab et al. 2023.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=5](../explore.html#lesson=5)
