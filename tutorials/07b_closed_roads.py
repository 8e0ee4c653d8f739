# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 7b. A larger photo, a closed road, a head less
#
# The question: what in the whole model grows too fast, what can it not do without, and
# what can be taken away?
#
# Builds: the size of photo at which attention costs more than all matrices; the encoder
# without its residual stream, untrained and trained; a measure for what blocks change;
# a head silenced in three ways.
#
# New ideas: (1) attention grows with T * T; (2) *rank collapse*, which the residual
# stream prevents; (3) *linear CKA*, a likeness of hidden states; (4) a *head mask*, and
# *pruning*, which saves what a mask does not.
#
# Teach: 35 minutes. Run: 4 seconds.
#
# Axes: P patch side, N patches, T = N + 1 tokens, D hidden size, h heads, d = D / h
# head size, F MLP size, L blocks

# %%
import copy

import matplotlib.pyplot as plt
import numpy as np

from minivit import images, lessons, no_grad, plots, vit, weights

photo = lessons.photo()

# %% [markdown]
# ## Where does a larger photo hurt?
#
# In lesson 7's ledger the scores are a small thing. But the matrices grow with T, and
# attention's own two products with T * T. In a block each token pays 4 D D + 2 D F for
# the matrices, and 2 T D for attention. They are equal at T = 2 D + F.

# %%
L, D, F = 12, 768, 3072  # ViT-Base/16
sides = np.arange(224, 1537, 32)
T = (sides // 16) ** 2 + 1
matrices = L * T * (4 * D * D + 2 * D * F) / 1e9
attention = L * T * 2 * T * D / 1e9
meeting = 16 * (2 * D + F - 1) ** 0.5
first = sides[np.argmax(attention > matrices)]
print(f"T = 2 D + F = {2 * D + F} tokens: {meeting:.0f} pixels a side")
share = attention / (attention + matrices)
print(f"of all, attention is {share[0]:.0%} at 224 pixels, {share[-1]:.0%} at 1536")
panel = {
    "lines": {
        "matrices, with T": (sides, matrices),
        "attention, with T * T": (sides, attention),
    },
    "marks": {"T = 2 D + F": ([meeting], [np.interp(meeting, sides, matrices)])},
    "xlabel": "photo side, pixels",
    "ylabel": "billion multiply-adds",
}
assert first - 32 <= meeting <= first

# %%
plots.curves(
    panel,
    name="larger_photo",
    caption="Where the lines cross, attention costs Base/16 as much as all matrices.",
)
plt.show()

# %% [markdown]
# ## Close the road
#
# Twelve blocks of random weights know nothing, and stir the tokens twelve times. And
# yet the photo arrives, on the residual stream: each block only *adds*. Is that so? We
# close the road: the same blocks hand on nothing but what attention and MLP made. How
# much of the patches' tokens still tells one from another? Guess: after how many blocks
# is it half? And would *trained* blocks need the road less? We ask DINOv2's smallest,
# which learned from photos without labels (lesson 13). It is this same model.

# %%
def differing(x):
    """Without their mean, how long are the patches' tokens? 0 when all are the same."""
    return np.linalg.norm(x[1:] - x[1:].mean(0)) / np.linalg.norm(x[1:])

def walk(body, x, road):
    """What differs before block 0 and after each block. x: a Tensor (1, T, D)."""
    found = [differing(x.data[0])]
    for layer in body.encoder.layer:
        x = layer.attention(layer.layernorm_before(x))[0] + road * x
        y = layer.intermediate(layer.layernorm_after(x))  # (1, T, F)
        x = layer.output.dense(y) + road * x
        found.append(differing(x.data[0]))
    return found

def untrained(std):
    config = vit.ViTConfig.tiny(num_labels=1000, initializer_range=std)
    return vit.ViTForImageClassification(config, rng=0).to(np.float64).eval()

picture = images.fit_patches(photo, 14, patches=196)  # its own ratio, whole patches
seen = images.pixel_values(picture, picture.size[::-1], **images.IMAGENET)[None]
pixels = images.pixel_values(photo, 224).astype(np.float64)[None]
model, wide, eye = untrained(0.02), untrained(0.2), weights.dinov2_small()
bodies = {"std 0.02": (model.vit, pixels), "std 0.2": (wide.vit, pixels)}
bodies["trained"] = eye, seen
open_road, closed = {}, {}
with no_grad():
    for name, (body, x) in bodies.items():
        x = body.embeddings(x, interpolate_pos_encoding=True)
        open_road[name], closed[name] = walk(body, x, 1), walk(body, x, 0)
        print(f"{name}: {open_road[name][-1]:.2f} with, without after", end=" ")
        print("1, 3, 5, 12 blocks", *(f"{closed[name][i]:.0e}" for i in (1, 3, 5, 12)))
panels = [
    {"lines": lines, "title": title, "xlabel": "blocks done", "yscale": "log"}
    | {"ylim": (1e-7, 2), "ylabel": "share that differs"}
    for lines, title in ((open_road, "with the residual stream"), (closed, "without"))
]
caption = "What is left of the patches without their mean: 0 when all are alike, and "
caption += "1e-6 is the rounding of float32, in which the trained model computes."
assert all(closed[name][-1] < 1e-4 < open_road[name][-1] for name in bodies)

# %%
plots.curves(*panels, name="closed_road", caption=caption)
plt.show()

# %% [markdown]
# With the road closed all patches become one vector. This is *rank collapse* (6b; Dong,
# Cordonnier, Loukas 2021: attention alone loses rank doubly exponentially with depth).
# How soon it comes depends on the weights: with the usual start, of standard deviation
# 0.02, scores are small, attention is nearly even, and about three blocks are enough.
# With 0.2 it takes about six. The trained blocks collapse, too: they learned with the
# road.
#
# ## What do the blocks change?
#
# Two lists of tokens say the same if they hold the same patches for alike. *Linear CKA*
# measures that, from 0 to 1 (Kornblith et al. 2019): with both centred,
# |X^T Y|^2 / (|X^T X| |Y^T Y|). Length and turning do not count.

# %%
def cka(x, y):
    x, y = x - x.mean(0), y - y.mean(0)  # (N, D)
    both = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return np.linalg.norm(x.T @ y) ** 2 / both

options = {"output_hidden_states": True, "interpolate_pos_encoding": True}
likeness = {}
with no_grad():
    for name, (body, x) in bodies.items():
        first, *later = (x.data[0, 1:] for x in body(x, **options).hidden_states)
        likeness[name] = [cka(first, x) for x in (first, *later)]
        print(f"{name}: CKA before block 0 and after the last {likeness[name][-1]:.2f}")
turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((384, 384)))
turned = 3 * first @ turn
panel = {"lines": likeness, "xlabel": "blocks done", "ylabel": "linear CKA"}
panel |= {"ylim": (0, 1.05)}
assert np.isclose(cka(first, turned), 1, atol=1e-4)

# %%
plots.curves(
    panel,
    name="likeness_by_block",
    caption="Each line says how much a hidden state is like the one before block 0.",
)
plt.show()

# %% [markdown]
# Random blocks with the usual start leave the patches as they came: what looked alike
# is alike. Trained ones arrange them anew.
#
# ## A head less
#
# What does one head do for the result? Silence it, and look. There are three ways:
#
# - `head_mask`: its attention weights are multiplied by 0, for one call.
# - By hand: the output matrix reads the head through d of its columns. Make those zero.
# - `prune_heads`: cut its rows out of query, key and value, and its columns out of the
#   output matrix. For good.
#
# Both names are those of transformers up to version 4. Version 5 has neither
# (huggingface/transformers, pull requests 41076, 41417). Michel et al. 2019 cut many
# heads of trained models and lost little.

# %%
D, h, layer, head = 192, 3, 2, 1
d = D // h
mask = np.ones((12, h))
mask[layer, head] = 0
zeroed, pruned = copy.deepcopy(model), copy.deepcopy(model)
output = zeroed.vit.encoder.layer[layer].attention.output.dense
output.weight.data[:, head * d : (head + 1) * d] = 0
pruned.vit.prune_heads({layer: [head]})
with no_grad():
    whole = model(pixels).logits.data
    masked = model(pixels, head_mask=mask).logits.data
    others = [zeroed(pixels).logits.data, pruned(pixels).logits.data]
print(f"head {head} of block {layer} moves a logit by {abs(masked - whole).max():.0e}")
print("the three ways differ by", *(f"{abs(x - masked).max():.0e}" for x in others))
fewer = model.num_parameters() - pruned.num_parameters()
print(f"pruned: {fewer:,} parameters fewer, 4 D d + 3 d = {4 * D * d + 3 * d:,}")
assert all(np.allclose(x, masked, rtol=1e-10, atol=1e-12) for x in others)

# %% [markdown]
# Equal results. But only pruning saves: 4 D d + 3 d parameters, and 4 T D d + 2 T T d
# multiply-adds. A mask computes all, and throws it away.
#
# ## Your turn
#
# Silence *all* heads of all blocks: `head_mask=np.zeros((12, 3))`. Predict: are the
# logits of two photos still different? Run it. Which token reads the photo, and how?
#
# ## What you can say now
#
# - Attention overtakes all matrices of a block at T = 2 D + F tokens.
# - Without the residual stream all patches become one vector, rank collapse, in the
#   trained model as in two untrained ones.
# - CKA compares what two hidden states hold for alike.
# - A masked and a pruned head give the same logits; only the pruned one is cheaper.
#
# ## Exercises
#
# - Start with 0.4 instead of 0.2. After how many blocks has the closed road collapsed?
# - Close only one of the two roads of each block, around attention or around the MLP.
#   Which of them keeps the photo?
#
# Sources: Dong et al. 2021, Kornblith et al. 2019, Michel et al. 2019, Oquab et al.
# 2023.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=7](../explore.html#lesson=7)
