# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 13b. Which heads matter?
#
# The question: the trained eye has L x h = 72 heads. What does each do, and who would
# miss it?
#
# Builds: the maps of the last block's heads on your photo, a distance between heads,
# and the knock-out of every head, one by one and together.
#
# New ideas: (1) *attention map*: the attention weights that CLS gives the patches;
# (2) *total variation*, a distance between two of them; (3) *ablation*: what a part is
# worth, by leaving it out; (4) *redundancy*: one by one and together differ.
#
# Teach: 25 minutes. Run: 6 seconds.
#
# Axes: B pictures, N patches, T = N + 1 tokens with CLS at 0, D hidden size, h heads, L
# blocks.

# %%
import matplotlib.pyplot as plt
import numpy as np

from minivit import images, lens, lessons, no_grad, plots, vit, weights

picture = images.fit_patches(lessons.photo(), 14, patches=256)  # at its own ratio
grid = picture.height // 14, picture.width // 14
eye = weights.dinov2_small()
fresh = vit.ViTModel(eye.config, add_pooling_layer=False, rng=0).eval()
L, h = eye.config.num_hidden_layers, eye.config.num_attention_heads
print(f"{L} blocks of {h} heads, {grid[0]} x {grid[1]} patches")

# %% [markdown]
# ## Heads look at parts
#
# For the heads of the last block: which share of its attention does CLS give each
# patch? These shares over the patches are a head's *attention map*. Two maps differ by
# what one would have to move to become the other, their *total variation* distance: 0
# if they are the same, 1 if no patch is in both.


# %%
def pixels(picture):
    return images.pixel_values(picture, picture.size[::-1], **images.IMAGENET)[None]


def maps_of_last_block(model):
    """The attention weights (h, T) that CLS gives, and how far apart two heads are."""
    with no_grad():
        given = {"interpolate_pos_encoding": True, "output_attentions": True}
        out = model(pixels(picture), **given)
    row = out.attentions[-1].data[0, :, 0]  # (h, T)
    shares = row[:, 1:] / row[:, 1:].sum(1, keepdims=True)  # (h, N)
    moved = abs(shares[:, None] - shares).sum(2) / 2  # (h, h)
    return row, moved.sum() / (h * (h - 1))


rows, apart = maps_of_last_block(eye)
_, apart_fresh = maps_of_last_block(fresh)
print(f"two heads differ by {apart:.2f}; of the untrained network by {apart_fresh:.2f}")
assert apart > 2 * apart_fresh

# %%
plots.attention_over_photo(
    picture, rows, grid, query=0, name="heads",
    caption="Each map is one head of the last block: bright is where CLS looks.",
)
plt.show()

# %% [markdown]
# The untrained heads all look everywhere. Of the trained ones each has its own parts,
# and nobody told them what a part is (Caron et al. 2021, figure 3).
#
# ## Your turn
#
# A map shows where a head looks, not what it is good for. *Ablation*: knock out one
# head, and see how far CLS turns, 1 - cosine. Predict, before you run: how many of the
# 72 turn it by more than 0.05? In which blocks are they? And all heads of the last
# block together: less than the sum of them one by one, as much, or more?
#
# A small copy of the photo will do. `lens.knock_out` does all of them; one we do by
# hand, with `head_mask`, an array (L, h) of 1 and, for who is silent, 0.


# %%
def unit(x):
    return x / np.linalg.norm(x)


small = pixels(images.fit_patches(picture, 14, patches=64))  # (B, C, H, W)
answers = lens.knock_out(eye, small)
whole = unit(answers[None].cls[0])  # (D,)
turned = np.zeros((L, h))
for head in np.ndindex(turned.shape):
    turned[head] = 1 - whole @ unit(answers[head].cls[0])


def without(heads):
    mask = np.ones((L, h))
    mask[heads] = 0
    with no_grad():
        out = eye(small, interpolate_pos_encoding=True, head_mask=mask)
    return 1 - whole @ unit(out.last_hidden_state.data[0, 0])


most = np.unravel_index(turned.argmax(), turned.shape)
print(f"{(turned > 0.05).sum()} of {L * h} turn CLS by more than 0.05")
print(f"median {np.median(turned):.3f}; the most: {turned[most]:.3f}, ", end="")
print(f"block {most[0]}, head {most[1]}")
assert np.isclose(without(most), turned[most], atol=1e-4)

# %%
plots.heatmaps(
    [turned.T], xlabel="block", ylabel="head", label="1 - cosine", name="knocked_out",
    caption="Bright heads are missed: without them CLS points elsewhere.",
)
plt.show()

# %% [markdown]
# Most heads can go, and a few cannot (Michel et al. 2019 found so in models of
# translation and language). More of those are in the upper half, where CLS gathers its
# answer. And together?

# %%
lower, upper = turned[: L // 2].sum(), turned[L // 2 :].sum()
last, together = turned[-1].sum(), without((-1, slice(None)))
print(f"the lower half of the blocks {lower:.2f}, the upper half {upper:.2f}")
print(f"the last block: one by one {last:.2f} in all, together {together:.2f}")
assert together > last

# %% [markdown]
# One alone is hardly missed where another says the same: *redundancy*. So "this head
# does nothing" cannot be read from one knock-out (lesson 11 met it, too).
#
# ## What you can say now
#
# - The heads of a trained model have maps that differ; those of an untrained one, not.
# - Where a head looks and whether it is missed are two questions.
# - Most heads can be knocked out one at a time; those that matter are more often in the
#   upper blocks. All at once are missed more than the sum of them.
#
# ## Exercises
#
# - Knock out heads one after the other, always the one that turns CLS least. How many
#   can go before it turns by 0.1? Is the order that of the table?
# - Take another query than CLS: are the heads of a patch as different?
#
# Sources: Caron et al. 2021, Michel et al. 2019, Oquab et al. 2023.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=13](../explore.html#lesson=13)
