# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 12. The notebook, start to end
#
# The question: here is a Vision Transformer as a notebook. Every cell runs, and every
# shape is right. Does it see? And what has been built on the ViT since?
#
# Builds: each cell as it is typed, and beside it the same by hand; the order of its
# norms, from a paper of 2017; and five later ideas, each with a number.
#
# New ideas: (1) a test by change: alter one token, see who notices; (2) a letter twice
# in one einsum operand, the *diagonal*; (3) a position that grows drowns the patch;
# (4) *post-norm*; (5) two linear layers without a *nonlinearity* are one; (6) learning
# from a teacher or from gaps, *distillation* and *self-supervised* masking; (7) cheaper
# and cleaner attention, *window attention* and *registers*.
#
# Teach: 45 minutes. Run: 7 seconds.
#
# Axes: C channels, H W pixels, P patch side, N patches, T = N + 1 tokens with CLS at 0,
# D hidden size, h heads, d = D / h head size, q k tokens that ask and that are asked.
# There is no batch: one image.

# %%
import matplotlib.pyplot as plt
import numpy as np

from minivit import Tensor, images, lens, lessons, no_grad, ops, plots, vit, weights
from minivit.notebook import Embedding, EncoderBlock, PatchEmbeddings, Vit

from minivit.notebook import MultiheadSelfAttention  # isort: skip

photo = lessons.photo()

# %% [markdown]
# ## Cells 1 to 3: photo, patches, positions
#
# A photo opens as (H, W, C). `transpose(2, 1, 0)` turns all three axes round: W and H
# change places, too. So patch 1 lies *below* patch 0, not beside it. Nothing breaks.
# In a notebook of your own, `from minivit.notebook import *` brings these names.

# %%
opened = images.pixel_values(photo, 224).transpose(1, 2, 0)  # (H, W, C), -1..1
x = opened.transpose(2, 1, 0)  # (C, W, H)
print(PatchEmbeddings(x, out_channels=10, kernel_size=3)().shape)
print(Embedding(x, out_channels=10, kernel_size=3)().shape)
print(Embedding(x, out_channels=512, kernel_size=3)().shape)

# %% [markdown]
# 224 / 3 is no whole number: 74 patches a side, and two rows and columns of pixels are
# never read. A patch is 3 x 3 x 3 = 27 numbers, and one matrix makes a token of them.
# Positions are not learned rows. The numbers 1 ... 5476 go through one linear layer:
# position n is n * w + b. CLS comes in front, without a position. By hand:

# %%
P, side, D, h = 3, 74, 512, 8
embedding = Embedding(x, D, P, rng=1)
conv, linear = embedding.patch_embeddings.Conv, embedding.linear
cut = x[:, : side * P, : side * P].reshape(3, side, P, side, P)  # (C, W/P, P, H/P, P)
rows = cut.transpose(1, 3, 0, 2, 4).reshape(-1, 27)  # (N, 27)
patches = rows @ conv.weight.data.reshape(D, -1).T + conv.bias.data  # (N, D)
n = np.arange(1, len(rows) + 1)[:, None]  # (N, 1)
positions = n * linear.weight.data[:, 0] + linear.bias.data  # (N, D)
by_hand = np.concatenate([embedding.cls_token.data, patches + positions])  # (T, D)
assert np.allclose(by_hand, embedding().data, rtol=1e-5, atol=1e-2)
for patch in (0, 9, 99, 999, 5475):
    two = np.linalg.norm(patches[patch]), np.linalg.norm(positions[patch])
    print(f"patch {patch:4}: length {two[0]:4.1f}, its position {two[1]:8.1f}")

# %% [markdown]
# A norm follows, and divides a token by its length. Patch 5475 is then its position and
# next to nothing of photo. Nothing says so: the shapes are right.
#
# ## Cell 4: attention, with one small map for all heads
#
# The notebook cuts a token into h slices first. One d x d matrix makes the queries of
# all slices, one the keys, one the values, and no output matrix mixes the heads. The
# class takes values, keys and queries, in this order: in self-attention three times the
# same. We take a corner of the photo, 100 patches and CLS.

# %%
block = EncoderBlock(D, D, h, rng=2).eval()
embed_out = block.norm1(Embedding(x[:, :30, :30], D, P, rng=1)())  # (101, D)
sat = MultiheadSelfAttention(D, h, rng=3)
print(sat(embed_out, embed_out, embed_out).shape)
slices, d = embed_out.reshape(-1, h, D // h), D // h
query, key, value = (layer(slices).data for layer in (sat.wq, sat.wk, sat.wv))
p = ops.softmax(np.einsum("qhd,khd->qhk", query / d**0.5, key)).data  # (q, h, k)

# %% [markdown]
# Then comes the context, by one of two equations. "qhk,khd->qhd" sums over k: each
# key's value, times its weight. "nhn,nhd->nhd", as the notebook has it, holds n twice
# in one operand: that is the *diagonal*. Both give (T, h, d).
#
# ## Your turn
#
# We change token 3 and nothing else. Write down, for each equation, which outputs will
# change: (a) output 3 alone, (b) all of them, (c) none. Then run.

# %%
changed = embed_out.data.copy()
changed[3] = changed[3][::-1]
for equation in ("nhn,nhd->nhd", "qhk,khd->qhd"):
    sat = MultiheadSelfAttention(D, h, equation, rng=3)
    before, after = (sat(t, t, t).data for t in (embed_out, changed))
    assert np.allclose(np.einsum(equation, p, value).reshape(-1, D), before, atol=1e-5)
    moved = np.linalg.norm(after - before, axis=1) / np.linalg.norm(before, axis=1)
    print(equation, "outputs 2, 3, 4 move by", *(f"{m:.4f}" for m in moved[2:5]))

# %% [markdown]
# (b), both times! In an einsum written so, token n gets p[n, h, n] times its own value.
# No token receives another's *value*. But that weight is exp(s_nn) / sum_k exp(s_nk),
# and the sum holds every other key. So it does hear the others: one number a head, how
# loud they are together. It cannot hear what they say.
#
# ## Cell 5: the block, and where its norm stands
#
# n = norm1(x); m = norm2(n + attention(n)); m + mlp(m). Lesson 6's block adds to the x
# from *before* the norm: *pre-norm*, a residual stream from end to end. Here each sum
# is normalised in its turn. Stack blocks, move the brackets: norm(x + f(x)), eight
# times. That is *post-norm*, the order of the first Transformer (Vaswani et al. 2017),
# with one norm more in front and one less behind.

# %%
model = Vit(input_dim=D, embed_dim=D, heads=h, num_encoders=4, rng=4).eval()
blocks = model.encoder_blocks
y = blocks[0].norm1(embed_out)  # the norm more in front
for i, here in enumerate(blocks):
    y = here.norm2(y + here.attn_layer(y, y, y))
    y = y + here.mlp(y)
    y = blocks[i + 1].norm1(y) if i < 3 else y  # the norm less behind
apart = abs(y.data - model(embed_out).data).max()
print(f"post-norm by hand and the notebook's encoders: {apart:.0e} apart")
assert apart < 1e-5

# %% [markdown]
# Both are architectures. Pre-norm trains without a warm-up, post-norm needs one (Xiong
# et al. 2020). And the MLP: linear, dropout, linear. No *nonlinearity* between. How
# many matrices are two linear layers in a row?

# %%
first, _, second = block.mlp
weight = second.weight.data @ first.weight.data  # (D, D)
bias = second.weight.data @ first.bias.data + second.bias.data
assert np.allclose(embed_out.data @ weight.T + bias, block.mlp(embed_out), atol=1e-4)
print(f"{block.mlp.num_parameters():,} parameters do what {weight.size + D:,} can do")

# %% [markdown]
# ## Cell 6: four encoders on 5477 tokens
#
# T x h x T attention weights: 960 MB a block. minivit never holds them all (12b).

# %%
with no_grad():
    y = model(embedding()).data  # (T, D)
far = np.linalg.norm(y[1:] - y[-1], axis=1) / np.linalg.norm(y[-1])  # (N,)
print(f"{y.shape}; half the tokens within {np.median(far):.0e} of the last's length")
main = [lens.principal_components(t, 1).coordinates for t in (patches, by_hand[1:])]
seen = main[0], main[1] / 1000, np.log10(far + 1e-6)
seen = [v.reshape(side, side).T for v in seen]
titles = "patches", "with positions, / 1000", "after 4 blocks: log10 of distance"
assert np.median(far) < 1e-2

# %%
plots.heatmaps(
    seen,
    titles,
    share=False,
    name="where_the_photo_went",
    caption="Each patch at its place; the colour is its number along the direction in "
    "which tokens differ most, on the right its distance to the last token.",
)
plt.show()

# %% [markdown]
# The photo is in the patches. With positions there is a ramp; after four encoders all
# late patches are nearly one. To see, it needs learned positions; maps for each head
# and an output matrix; the sum over k; GELU; a last norm and a head; and patches of 16
# pixels: (5477 / 197)^2 = 773 times fewer scores.
#
# ## What came after
#
# **DeiT** (Touvron et al. 2021). The first ViT was best after 300 million photos. DeiT
# needs 1.2 million: strong augmentation, and *distillation*, a second token beside CLS
# that learns the answers of a convolutional network.
#
# **Swin** (Liu et al. 2021). *Window attention*: a token asks only the 7 x 7 window it
# is in; every other block the windows shift by half. The cost grows with T, not T^2.
#
# **MAE** (He et al. 2022). *Self-supervised*: no labels. Hide 75 % of the patches, let
# a small decoder paint them. The encoder works on the quarter that is left.
#
# **DINO** (Caron et al. 2021) and DINOv2 (Oquab et al. 2023): the teacher is a moving
# average of the student itself. Lesson 13 looks through its eyes.
#
# **Registers** (Darcet et al. 2024). In large models a few tokens of dull patches grow
# ten times as long: they store things. Spare tokens, *registers*, take that over. Our
# eye is small; the paper found them in its three largest. How far a
# ViT looks, block by block (Raghu et al. 2021), is lesson 11's.

# %%
deit = vit.ViTForImageClassification(vit.ViTConfig.tiny(num_labels=1000))
more = 2 * 192 + 192 * 1000 + 1000  # a token, its position, a second head
print(f"DeiT-Ti: {deit.num_parameters():,} parameters, to distil {more:,} more")
print(f"Swin, 56 x 56 tokens: {56**4:,} scores a head, in windows {56**2 * 7**2:,}")
print(f"DINO: with m = 0.996 a mean of about {1 / (1 - 0.996):.0f} students")
eye, picture = weights.dinov2_small(), images.fit_patches(photo, 14, patches=256)
N = picture.width * picture.height // 14**2
pixels = images.pixel_values(picture, picture.size[::-1], **images.IMAGENET)
kept, tokens = np.random.default_rng(0).permutation(N)[: N // 4], []
with no_grad():
    start = eye.embeddings(pixels[None], interpolate_pos_encoding=True)  # (B, T, D)
    for some in (np.arange(N), kept):
        x = start[:, np.r_[0, some + 1]]  # CLS and some patches
        for layer in eye.encoder.layer:
            x = layer(x)[0]
        tokens.append(x.data[0])
like = lens.similarity(eye.layernorm(Tensor(np.stack([t[0] for t in tokens]))).data, 0)
lengths = np.linalg.norm(tokens[0][1:], axis=1)  # (N,)
print(f"MAE: {N // 4} of {N} patches, 1/{(N / (N // 4)) ** 2:.0f} of the scores")
print(f"our eye's CLS of these {N // 4}: {like[1]:.2f} like that of all (cosine)")
print(f"registers: longest token {lengths.max() / np.median(lengths):.1f} x the median")
assert deit.num_parameters() == 5_717_416

# %% [markdown]
# ## What you can say now
#
# - Right shapes prove little. Change one token, and see who notices.
# - n twice in one operand is the diagonal: a token's own value, times a weight in which
#   all others appear as one number.
# - norm(x + f(x)) is post-norm, x + f(norm(x)) pre-norm: two architectures.
# - Without a nonlinearity two linear layers are one.
# - Later: learn from less (DeiT), look nearby (Swin), paint what is hidden (MAE),
#   follow one's own average (DINO), keep notes in spare tokens (registers).
#
# ## Exercises
#
# - Exercise 12: the backward of the notebook's `Embedding`. `minivit exercise 12 --out
#   DIR` writes the stub, `minivit check 12` grades it.
# - How does the gradient at the pixels of patch n fall with n, behind one norm? Guess a
#   power of n, then measure it with `Tensor(x, requires_grad=True)`.
#
# Sources: Vaswani et al. 2017, Xiong et al. 2020, Touvron et al. 2021, Liu et al. 2021,
# Caron et al. 2021, He et al. 2022, Oquab et al. 2023, Darcet et al. 2024
#
# In the explorer, on a page of `minivit explore --model digits --out digits.html`:
# [digits.html#lesson=12](../digits.html#lesson=12)
