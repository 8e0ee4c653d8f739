# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 12. The notebook, start to end
#
# The question: somebody publishes a Vision Transformer as a notebook. Every cell runs, every shape is right.
# Is it one?
#
# Builds: every cell of the notebook, first by hand and then with minivit's class; the memory that its
# attention asks for, computed and measured; four encoders on 5477 tokens, forward and backward; and a list of
# what to repair.
#
# Teach: 40 minutes. Run: 16 seconds.
#
# Axes: C channels, W H pixels, P patch side, N patches, T = N + 1 tokens, D token width, h heads, d = D / h
# head size; q and k index the tokens that ask and those that are asked. There is no batch: one image.

# %%
import math
import time
import tracemalloc

import matplotlib.pyplot as plt
import numpy as np

from minivit import Tensor, images, lessons, notebook, ops, vit
from minivit.errors import ShapeError
from minivit.machinery.blocks import BLOCK
from minivit.notebook import CORRECTED, PUBLISHED

photo = lessons.photo()

# %% [markdown]
# ## Cell 1: the photo
#
# A photo file opens as (H, W, C). The notebook writes `transpose(2, 1, 0)`, which turns all three axes round:
# C comes to the front, and W and H change places. Lesson 1 shows the picture: it lies on its side, in a
# mirror. Nothing breaks, as long as we remember it when we draw a map.

# %%
pixels = images.pixel_values(photo, 224)  # (C, H, W), -1..1
opened = pixels.transpose(1, 2, 0)  # (H, W, C), as a photo file opens
image = np.ascontiguousarray(opened.transpose(2, 1, 0))  # (C, W, H)
print("opened", opened.shape, "-> transpose(2, 1, 0) ->", image.shape)
assert np.array_equal(image[0], pixels[0].T)

# %% [markdown]
# ## Cell 2: patches of 3 x 3 pixels
#
# `PatchEmbeddings(x, out_channels=10, kernel_size=3)()` is a convolution with kernel 3 and stride 3. So a patch
# is 3 x 3 pixels of 3 colours, 27 numbers, and one matrix turns them into 10. And 224 / 3 is not a whole
# number: 74 patches a side, and the last two rows and columns of pixels are never read.
#
# By hand: cut, bring the 27 numbers of a patch together, one matrix product.

# %%
P, side = 3, 224 // 3
embed_patches = notebook.PatchEmbeddings(image, out_channels=10, kernel_size=P, rng=0)
cut = image[:, : side * P, : side * P].reshape(3, side, P, side, P)  # (C, W / P, P, H / P, P)
rows = cut.transpose(1, 3, 0, 2, 4).reshape(-1, 3 * P * P)  # (N, 27)
by_hand = rows @ embed_patches.Conv.weight.data.reshape(10, -1).T + embed_patches.Conv.bias.data  # (N, 10)

tokens = embed_patches()
print(f"{side} x {side} = {len(rows)} patches: {rows.shape} -> {tokens.shape}; {224 - side * P} pixels a side not read")
assert tokens.shape == (5476, 10) and np.allclose(by_hand, tokens.data, atol=1e-5)

# %% [markdown]
# ## Cell 3: positions and CLS
#
# Our ViT *learns* a row for each position. The notebook takes the numbers 1, 2, 3, ... 5476 and sends each of
# them through one linear layer, 1 -> 10: position n is `n * w + b`. Then the CLS token comes in front. It
# gets no position. `Embedding` is given the image and makes the patches itself.

# %%
embedding = notebook.Embedding(image, out_channels=10, kernel_size=P, rng=1)
tokens = embedding.patch_embeddings()  # (N, 10)
n = np.arange(1, len(rows) + 1)[:, None]  # (N, 1)
w, b = embedding.linear.weight.data[:, 0], embedding.linear.bias.data  # (10,) both
by_hand = np.concatenate([embedding.cls_token.data, tokens.data + (n * w + b)])  # (T, 10)

embedded = embedding()
T = len(embedded)
print("embedding ", embedded.shape)
assert embedded.shape == (5477, 10) and np.allclose(by_hand, embedded.data, rtol=1e-5, atol=1e-4)

wide = notebook.Embedding(image, out_channels=512, kernel_size=P, rng=1)()
print("embedding ", wide.shape, " the same with 512 channels")
assert wide.shape == (5477, 512)

# %% [markdown]
# `n * w` grows with n, and nothing stops it. The patch itself stays as small as its pixels. So how much of a
# token is the patch, and how much is its number?

# %%
patch_part = np.linalg.norm(tokens.data, axis=1)  # (N,)
position_part = np.linalg.norm(n * w + b, axis=1)  # (N,)
print("patch   length of the patch   length of its position")
for number in (1, 10, 100, 1000, 5476):
    print(f"{number:5d} {patch_part[number - 1]:17.2f} {position_part[number - 1]:20.2f}")
assert (position_part[1000:] > 50 * patch_part[1000:]).all()

# %% [markdown]
# ## Cell 4: attention, with one small map for all heads
#
# The notebook cuts a token into h slices of d numbers, first. Then *one* d x d matrix makes the queries of
# all slices, one the keys, one the values. No output matrix mixes the heads afterwards. That is few
# parameters. It also means that what stands in slice 1 stays in slice 1.
#
# We look at it on the upper left corner of the photo, 30 x 30 pixels: 100 patches and CLS, so that a 101 x
# 101 table of scores can be held in full.

# %%
D, h = 512, 8
d = D // h
corner = notebook.Embedding(image[:, :30, :30], D, rng=1)().data  # (101, D)
x = ops.layer_norm(corner, np.ones(D, np.float32), np.zeros(D, np.float32), 1e-5).data  # (101, D)
attention = notebook.MultiheadSelfAttention(D, h, rng=2)


def slices(layer):
    return x.reshape(-1, h, d) @ layer.weight.data.T + layer.bias.data  # (T, h, d)


q, k, v = slices(attention.wq), slices(attention.wk), slices(attention.wv)
scores = ops.softmax(np.einsum("qhd,khd->qhk", q, k) / math.sqrt(d)).data  # (q, h, k)
print("q, k, v", q.shape, " scores", scores.shape)

# %% [markdown]
# Then the context. `nhn,nhd->nhd` is what was published, and lesson 5 shows what it does to a photo: the
# letter n stands twice in one operand, that is the diagonal, so a token multiplies its own value by one
# number. It should be `qhk,khd->qhd`: a sum over the keys. Both give (T, h, d). The class takes either. It is
# called with values, keys and queries, in this order, and in self-attention these are three times the same
# tokens.

# %%
for equation in (PUBLISHED, CORRECTED):
    context = np.einsum(equation, scores, v).reshape(-1, D)  # (T, D)
    by_class = notebook.MultiheadSelfAttention(D, h, equation, rng=2)(x, x, x).data
    print(f"{equation:14} context {context.shape}   by hand == by class")
    assert np.allclose(context, by_class, atol=1e-5)

full = vit.ViTAttention(vit.ViTConfig(hidden_size=D, num_attention_heads=h))
print(f"parameters: notebook {attention.num_parameters():,}, ViT's attention of the same width", end=" ")
print(f"{full.num_parameters():,}: {full.num_parameters() / attention.num_parameters():.0f} times as many")
assert attention.num_parameters() == 3 * (d * d + d) and full.num_parameters() == 4 * (D * D + D)

# %% [markdown]
# ## Cell 5: the encoder block
#
# Norm, attention, a sum; norm, MLP, a sum. But look at *what* is summed: `x = norm1(x)` comes first, and the
# sum adds to that x, the normalised one. In a ViT the sum adds to the x from before the norm, so that a
# straight road leads from the first block to the last. Here there is no such road. Lesson 6 measures what
# that does to the gradient.
#
# And the MLP: linear, dropout, linear. There is no activation between. Two linear maps one after the other
# are one.

# %%
block = notebook.EncoderBlock(D, D, h, rng=3).eval()
first, _, second = block.mlp
n1 = block.norm1(corner)
n2 = block.norm2(block.attn_layer(n1, n1, n1) + n1)
by_hand = second(first(n2)) + n2
assert np.allclose(by_hand.data, block(corner).data, atol=1e-5)

weight = second.weight.data @ first.weight.data + np.eye(D)  # (D, D): both layers, and the residual too
bias = second.weight.data @ first.bias.data + second.bias.data
assert np.allclose(n2.data @ weight.T + bias, by_hand.data, atol=1e-4)
print(f"the MLP's {block.mlp.num_parameters():,} parameters and the residual do what one {D} x {D} matrix does")

# %% [markdown]
# ## What the scores would cost
#
# Every token asks every token, in every head: T x h x T scores of 4 bytes. For 5477 tokens and 8 heads that
# is one array of almost a gigabyte. Backward needs it again, so each block keeps its own until then. Written
# with the plain ops, a block keeps two: the scores before the softmax and after it.
#
# Do not believe "two": measure it. On a corner of 84 x 84 pixels we can afford the plain way. The same
# numbers come out of it, since the letters of an einsum are only names, and minivit goes the plain way for
# any spelling but its own.

# %%
def held(value_einsum):
    """Bytes that wait for backward after the forward pass of one block, and the output."""
    x = notebook.Embedding(image[:, :84, :84], 10, rng=1)()
    model = notebook.Vit(10, D, h, 1, value_einsum, rng=2).eval()
    tracemalloc.start()
    y = model(x)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size, y.data


plain, tiled = held("qhm,mhd->qhd"), held(CORRECTED)
small = 4 * len(plain[1]) ** 2 * h  # bytes
kept = (plain[0] - tiled[0]) / small
print(f"{len(plain[1])} tokens: plain {plain[0] / 1e6:.0f} MB, tiled {tiled[0] / 1e6:.0f} MB", end="; ")
print(f"the difference is {kept:.1f} arrays of scores")
assert np.allclose(plain[1], tiled[1], atol=1e-4) and round(kept) == 2

# %%
encoders = 4
one = 4 * T**2 * h  # bytes
naive = 2 * encoders * one
print(f"one array of scores: 4 x {T} x {T} x {h} bytes = {one / 1e6:.0f} MB")
print(f"four encoders, two arrays each, until backward: {naive / 1e9:.1f} GB")
assert round(one / 1e6) == 960

# %% [markdown]
# ## A tile at a time
#
# Nobody needs all the scores at once. A query's answer is a quotient of two sums over the keys:
# `sum(exp(score) v) / sum(exp(score))`. Sums can be made piece by piece. So take some queries and some keys of
# a head, as many as have their scores in the processor's cache; add to both sums, and forget the scores. When
# the last keys have had their turn, divide.
#
# And backward? It makes them again. What forward keeps is one number for each query: the logarithm of
# softmax's denominator. With it `exp(score - that number)` is the share, at once. A little more arithmetic,
# and the gigabytes are gone. This is the idea of FlashAttention. (Up to four million shares, minivit keeps
# them after all: then they take little room, and making them again takes time.)
#
# ## Cell 6: four encoders on 5477 tokens, forward and backward
#
# 10 channels do not split over 8 heads. So a linear layer brings the tokens to 512 first. (The other way is to
# ask each patch 512 questions at once, and to give `Vit` input_dim=512.)

# %%
try:
    notebook.Vit(10, 10, h, encoders)
except ShapeError as error:
    print(error)
else:
    raise AssertionError("10 channels were split over 8 heads")

# %%
model = notebook.Vit(10, D, h, encoders, rng=2).eval()
source = Tensor(image, requires_grad=True)
tracemalloc.start()
start = time.perf_counter()
x = embedding(source)
y = model(x)
forward = time.perf_counter() - start
waiting, _ = tracemalloc.get_traced_memory()
dy = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)  # a random cotangent, as in gradcheck
y.backward(dy)
backward = time.perf_counter() - start - forward
_, peak = tracemalloc.get_traced_memory()
tracemalloc.stop()

# %%
print(f"photo {source.shape} -> embedding {x.shape} -> four encoders {y.shape}")
print(f"forward  {forward:4.1f} s, {waiting / 1e6:.0f} MB wait for backward")
print(f"backward {backward:4.1f} s, {peak / 1e6:.0f} MB at the highest")
print(f"naive, computed: {naive / 1e6:.0f} MB; tiled, measured: {peak / 1e6:.0f} MB: {naive / peak:.0f} times less")
parameters = [p for part in (embedding, model) for p in part.parameters()]
assert (x.shape, y.shape) == ((5477, 10), (5477, 512))
assert peak < one < naive and all(p.grad is not None and np.isfinite(p.grad).all() for p in parameters)

# %%
bars = {
    f"naive: four encoders\n2 x {encoders} arrays of scores": naive,
    "naive: one encoder\none array of scores": one,
    "tiled: four encoders\neverything, forward and backward": peak,
    "tiled: one tile of scores\nthat fits into the cache": 4 * BLOCK,
}
figure, panel = plt.subplots(figsize=(10, 4), dpi=100, layout="constrained")
figure.set_label("memory")
colours = ["tab:red", "tab:red", "tab:blue", "tab:red"]
drawn = panel.barh(list(bars), [size / 1e9 for size in bars.values()], color=colours)
panel.bar_label(drawn, [f"{size / 1e6:,.0f} MB" for size in bars.values()], padding=4)
panel.invert_yaxis()
panel.set(xlabel="memory in GB: red is computed, blue is measured", xlim=(0, 1.15 * naive / 1e9))
panel.set_title(f"{T} tokens, {h} heads")
plt.show()

# %% [markdown]
# ## Where did the photo go?
#
# It runs, in half a gigabyte. Now look at what comes out. Take the direction in which the tokens differ most
# (the first principal component), and draw each token's share of it at the place of its patch. First for the
# bare patches. Then with positions. Behind the four encoders we draw how far each token is from the very last
# one.

# %%
def main_direction(tokens):
    """Each token's number along the direction in which the tokens differ most: (N, D) -> (N,)."""
    centred = tokens - tokens.mean(0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    return centred @ directions[:, -1]


before, after = main_direction(tokens.data.astype(np.float64)), main_direction(x.data[1:].astype(np.float64))
far = np.linalg.norm(y.data[1:] - y.data[-1], axis=1)  # (N,)
share = far / np.linalg.norm(y.data[-1])  # of a token's length
likeness = abs(np.corrcoef(after, n[:, 0])[0, 1])
print(f"with positions, the main direction of the tokens is the patch number: correlation {likeness:.6f}")
print(f"after four encoders, {(share < 0.01).mean():.0%} of the tokens lie within a hundredth of their length", end=" ")
print(f"of the last one, and half of them within {np.median(share):.0e} of it")
assert likeness > 0.999 and (share[1000:] < 0.01).all() and np.median(share) < 1e-3

# %%
figure, axes = plt.subplots(2, 2, figsize=(10, 9.2), dpi=100, layout="constrained")
figure.set_label("where_the_photo_went")
axes[0, 0].imshow(images.to_image(pixels))
axes[0, 0].set_title("the photo")
shown = (
    (axes[0, 1], before, "5476 patches: their main direction", "RdBu_r"),
    (axes[1, 0], after, "with positions n * w + b: their main direction", "RdBu_r"),
    (axes[1, 1], np.log10(far + 1e-6), "after four encoders: distance to the last token", "viridis"),
)
for panel, values, title, colours in shown:
    limit = max(abs(values).max(), 1e-3)  # of a photo in one colour only rounding is left
    limits = {"vmin": -limit, "vmax": limit} if colours == "RdBu_r" else {"vmin": -3}
    drawn = panel.imshow(values.reshape(side, side).T, colours, **limits)  # patches run down the columns: turn back
    panel.set_title(title)
below = {"location": "bottom", "shrink": 0.5, "aspect": 40}
figure.colorbar(drawn, ax=axes, **below, label="the last picture: log10 of the distance")
for panel in axes.ravel():
    panel.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# The photo is in the patches. Behind the positions there is a ramp, from the left to the right, because the
# patches are numbered down the columns. And a norm that follows divides a token by its size, which is its
# number. So patch 3000 becomes its position plus one 3000th of a photo. Behind the encoders there is a ghost
# of it, fainter than the tokens are long by the share printed above: to the model all late patches are the
# same patch.
#
# The gradient tells the same story. What arrives at a pixel was divided by the same number on its way back.

# %%
slopes = np.linalg.norm(source.grad[:, : side * P, : side * P].reshape(3, side, P, side, P), axis=(2, 4))
slopes = np.sqrt((slopes**2).sum(0)).ravel()  # (N,), the length of the gradient in each patch
power, _ = np.polyfit(np.log(n[:, 0]), np.log(slopes), 1)
print(f"the gradient at the pixels of patch n falls as n to the power {power:.2f}")
assert -1.1 < power < -0.9
assert not source.grad[:, side * P :].any() and not source.grad[:, :, side * P :].any()

# %%
figure, panel = plt.subplots(figsize=(10, 4.5), dpi=100)
figure.set_label("late_patches")
panel.loglog(n, slopes, ".", color="tab:blue", markersize=2, label="measured")
panel.loglog(n, np.exp(np.log(slopes * n[:, 0]).mean()) / n, "--", color="black", label="1 / n")
panel.set(xlabel="number n of the patch", ylabel="length of the gradient at its pixels")
panel.set_title("What backward tells a patch")
panel.grid(alpha=0.3)
panel.legend(loc="upper right")
plt.show()

# %% [markdown]
# ## What to repair
#
# | the notebook | the ViT of lesson 7 | what it changes |
# |---|---|---|
# | `transpose(2, 1, 0)` | `transpose(2, 0, 1)` | patches run along the rows; filters and maps stand upright |
# | `nhn,nhd->nhd` | `qhk,khd->qhd` | tokens hear each other |
# | position `n * w + b`, none for CLS | a learned row each, near zero at first | late patches count, too |
# | one d x d map for all heads, no output matrix | D x D maps and an output matrix | heads read all, and mix |
# | residual around the normalised x | residual around x | a straight road for the gradient |
# | two linear layers | linear, GELU, linear | the MLP is more than one matrix |
# | no final norm, no head | norm, then one linear on CLS | logits |
# | patches of 3 x 3 | patches of 16 x 16 | 197 tokens instead of 5477: 773 times fewer scores |

# %%
fewer = (T / 197) ** 2
print(f"({T} / 197)^2 = {fewer:.0f} times fewer scores")
assert round(fewer) == 773

# %% [markdown]
# ## What you can say now
#
# - Right shapes prove little. Every cell of the notebook had them, and its tokens never heard each other.
# - The scores of T tokens and h heads are 4 h T^2 bytes. Four encoders on 5477 tokens would keep 7.7 GB of
#   them.
# - Tiles never hold them: a little arithmetic again in backward, and half a gigabyte is enough for
#   everything.
# - A position that grows with n drowns the patch, and the gradient of patch n falls as 1 / n.
# - Two linear layers without an activation between them are one matrix.
#
# ## Exercises
#
# - Exercise 12: write the backward of the notebook's `Embedding`: positions through a linear layer, CLS in
#   front. `minivit exercise 12 --out DIR` writes the stub, `minivit check FILE` grades it.
# - Divide the positions by N, so that they run from 0 to 1 (`embedding.linear.weight.data /= 5476` does it).
#   Draw the four pictures again. Where does the photo get to now?
# - Put a GELU between the two linear layers of `block.mlp` and show that no single matrix can do what it
#   does.
#
# In the explorer, a page that `minivit explore --model digits --out digits.html` writes:
# [digits.html#lesson=12](../digits.html#lesson=12)
