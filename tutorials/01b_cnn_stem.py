# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 1b. Why not a CNN for the patches?
#
# The question: each patch is cut without a look at its neighbours. Would a small
# convolutional network, a CNN, in front of the Transformer not be better?
#
# Builds: a CNN *stem* beside the patches; what one vector of each can see; what happens
# to both when the photo moves; what they cost; and a race between them, run fairly.
#
# New ideas: (1) stem; (2) receptive field; (3) equivariant and invariant; (4) inductive
# bias; (5) a fair race: equal size, several seeds, and the spread over them.
#
# Teach: 35 minutes. Run: 8 seconds.
#
# Axes: B batch, C channels, H W pixels, N patches, T tokens, D hidden size, F MLP size.

# %%
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

from minivit import datasets, images, lessons, nn, ops, optim, plots, training, vit

# %% [markdown]
# ## Two ways to 14 x 14 vectors
#
# A *stem* is a stack of small convolutions with overlapping windows. Ours: four of
# 3 x 3 with stride 2, and after each a *nonlinearity*, the GELU of lesson 6. Four times
# half of 224 is 14: as many vectors as there are patches of 16 x 16. All filters are
# random: what a vector can see does not depend on what it looks for.

# %%
rng = np.random.default_rng(0)
widths = 3, 8, 16, 24, 32
kernels = [rng.standard_normal((w, v, 3, 3)) / 3 / v**0.5 for v, w in pairwise(widths)]
patch_filters = rng.standard_normal((32, 3, 16, 16)) / 16 / 3**0.5


def patches(x):
    return ops.conv2d(x, patch_filters, stride=16).data  # (B, 32, H / 16, W / 16)


def stem(x):
    x = np.pad(x, ((0, 0), (0, 0), (7, 8), (7, 8)))  # zeros around: the windows fit
    for kernel in kernels:
        x = ops.gelu(ops.conv2d(x, kernel, stride=2)).data
    return x  # (B, 32, H / 16, W / 16)


pixels = images.pixel_values(lessons.photo(), size=(224, 256)).astype(float)
x = pixels[None, :, :, :224]  # (B, C, H, W)
print(f"patches {patches(x).shape}, stem {stem(x).shape}")

# %% [markdown]
# ## Your turn: what does one vector see?
#
# Its *receptive field*: all pixels that can change it. Predict: how many pixels wide is
# it for a patch's vector, and for the stem's? Draw the stem backwards. One vector sees
# 3 across of the layer before; with stride 2 these see 2 * 3 + 1 = 7 of the one before
# that; and so on, down to the photo.
#
# Then measure. 48 x 48 pixels make 3 x 3 vectors. Nudge one pixel, and see whether the
# vector in the middle moves. Then the next pixel, 2304 times.

# %%
window = pixels[:, 88:136, 88:136]  # (C, 48, 48)


def receptive_field(network):
    moved, before = np.zeros((48, 48)), network(window[None])[0, :, 1, 1]
    for row in range(48):
        nudged = np.repeat(window[None], 48, axis=0)  # one photo for each column
        nudged[np.arange(48), :, row, np.arange(48)] += 1
        moved[row] = np.linalg.norm(network(nudged)[:, :, 1, 1] - before, axis=1)
    return np.where(moved > 1e-9, moved / moved.max(), 0)  # below that it is rounding


fields = {"patches": receptive_field(patches), "stem": receptive_field(stem)}
seen = {name: int(np.count_nonzero(field)) for name, field in fields.items()}
print(f"pixels that the vector in the middle sees: {seen}")
assert seen == {"patches": 16 * 16, "stem": 31 * 31}

# %%
plots.heatmaps(
    list(fields.values()), list(fields), label="how far the vector moves, largest = 1",
    xlabel="column", ylabel="row", name="receptive_field",
    caption="Where it is dark, the vector in the middle sees nothing: a patch "
    "sees its own 16 x 16 pixels, the stem half of each neighbour, too.",
)
plt.show()

# %% [markdown]
# The stem decides beforehand that near pixels belong together: *locality*. The patches
# leave it open: in the first encoder block every patch may look at every other.
#
# ## What if the photo moves?
#
# A layer is *equivariant* to a shift if its answer shifts along: shift in, shift out.
# It is *invariant* if nothing changes. Is a convolution equivariant? And the two of
# ours? We move the photo by 0 to 32 pixels, and compare with the old answer, moved by
# whole vectors.

# %%
def one_convolution(x):
    return ops.conv2d(x, kernels[0], stride=1).data  # 3 x 3, moves by one pixel


def unlike(network, shift, stride):
    before, after = network(x), network(pixels[None, :, :, shift : shift + 224])
    k, edge = round(shift / stride), max(1, 40 // stride)  # the zeros around stay out
    before, after = before[..., edge + k : -edge], after[..., edge : -edge - k]
    before, after = before[:, :, edge:-edge], after[:, :, edge:-edge]
    return np.linalg.norm(after - before) / np.linalg.norm(before)


nets = {"convolution, stride 1": (one_convolution, 1), "stem, 16": (stem, 16)}
nets["patches, 16"] = patches, 16
unlikes = {k: [unlike(net, s, by) for s in range(33)] for k, (net, by) in nets.items()}
for name, y in unlikes.items():
    print(f"{name:<22} moved by 1: {y[1]:.2f}, by 8: {y[8]:.2f}, by 16: {y[16]:.2f}")
assert max(unlikes["convolution, stride 1"]) < 1e-9

# %%
plots.curves(
    dict(lines=unlikes, xlabel="pixels that the photo moves",
         ylabel="difference / length of the answer"), name="equivariance",
    caption="A line at 0 is equivariant: the convolution always is, stem and patches "
    "only where the photo moves by whole strides, 0, 16 or 32 pixels.",
)
plt.show()

# %% [markdown]
# A surprise: the stem breaks the promise, too. A convolution is translation
# equivariant, but each stride throws away the answers in between (Zhang 2019, "Making
# Convolutional Networks Shift-Invariant Again").
#
# What a model takes for granted before it has seen any data is its *inductive bias*. A
# CNN's is locality and translation equivariance, in every layer. A ViT has it only
# where one filter serves all patches. The rest it must learn from data (Dosovitskiy et
# al. 2021, section 3.1). A bias that is right saves data.
#
# ## What do vectors of D = 768 numbers, as in ViT-Base, cost?

# %%
N, D, F = 196, 768, 3072
T, embedding = N + 1, N * D * (3 * 16 * 16)
sizes = {112: (3, 96), 56: (96, 192), 28: (192, 384), 14: (384, 768)}  # of the answers
cnn = sum(side**2 * after * before * 3 * 3 for side, (before, after) in sizes.items())
block = T * (4 * D * D + 2 * D * F) + 2 * T * T * D  # lesson 7 counts it
for name, count in {"patches": embedding, "stem": cnn, "encoder block": block}.items():
    print(f"{name:<14}{count / 1e9:5.2f} billion multiplications")

# %% [markdown]
# A stem costs more than a whole encoder block. Is it worth that? We measure on a small
# scale: digits of 8 x 8 pixels, four patches, one block. How it learns, you need not
# know yet: lesson 7 builds the model, lesson 9 `AdamW` and the schedule.
#
# A fair race: the stem has more parameters, so its MLP gets fewer. And one run proves
# nothing: we run each from six *seeds*, six random starts, and look at the spread.

# %%
class Stem(nn.Module):
    """Two convolutions in place of the patches: (B, 1, 8, 8) -> (B, 4, 32)."""

    image_size = 8, 8

    def __init__(self, rng):
        self.first = nn.Conv2d(1, 8, kernel_size=3, stride=2, rng=rng)
        self.second = nn.Conv2d(8, 32, kernel_size=3, stride=2, rng=rng)

    def forward(self, x, *_):
        x = np.pad(x, ((0, 0), (0, 0), (1, 2), (1, 2)), constant_values=-1)  # empty
        x = self.second(ops.gelu(self.first(x)))  # (B, 32, 2, 2)
        return x.reshape(len(x), 32, 4).transpose(0, 2, 1)


def run(name, count, epochs, seed):
    rng, F = np.random.default_rng(seed), 64 if name == "patches" else 36
    config = vit.ViTConfig(
        image_size=8, patch_size=4, num_channels=1, num_labels=10, hidden_size=32,
        num_hidden_layers=1, num_attention_heads=4, intermediate_size=F,
        initializer_range=0.1,
    )
    model = vit.ViTForImageClassification(config, rng=rng)
    if name == "stem":
        model.vit.embeddings.patch_embeddings = Stem(rng)
    steps = -(-count // 50)  # in one epoch
    training.fit(
        model, digits.few(5, seed) if count == 50 else digits, batch_size=50, rng=seed,
        epochs=epochs, optimizer=optim.AdamW(model.parameters(), 0.01), verbose=False,
        schedule=optim.warmup_cosine(epochs * steps, steps),
    )
    return training.evaluate(model, test).accuracy


digits, test = datasets.digits()
marks = {50: {}, 898: {}}
for count, epochs in ((50, 20), (898, 3)):
    for name in ("patches", "stem"):
        right = np.array([run(name, count, epochs, seed) for seed in range(6)])
        marks[count][name] = np.arange(6), right
        print(f"{count:>3} {name:<8}{right.mean():.1%}, spread {right.std(ddof=1):.1%}")
    ahead = right - marks[count]["patches"][1]
    print(f"stem ahead by {ahead.mean():+.1%} +- {ahead.std(ddof=1) / 6**0.5:.1%}")
    assert abs(ahead.mean()) < 0.06  # far less than more digits are worth

# %%
plots.curves(
    *(dict(marks=points, title=f"{count} digits to learn from", xlabel="seed",
           ylabel="share of right answers", ylim=(0.5, 1))
      for count, points in marks.items()), name="race",
    caption="One point is one run: circles and squares lie among each other, so the "
    "race is a draw, and right lies above left by what more digits are worth.",
)
plt.show()

# %% [markdown]
# Behind +- stands the *standard error*, the spread divided by the root of six. The stem
# is behind by about one and ahead by less than one: a draw, and no single run could
# tell. More digits are worth far more. But this is a toy; on millions of photos:
#
# - Dosovitskiy et al. 2021, section 4.4, put a ResNet in front: slightly better as long
#   as the budget for training is small; for larger models the difference vanishes.
# - Xiao et al. 2021, "Early Convolutions Help Transformers See Better", pay one block
#   for a stem like ours: steadier training, ImageNet 1 to 2 points better.
#
# ## What you can say now
#
# - A patch's receptive field is 16 x 16 pixels, that of our stem 31 x 31.
# - A convolution is translation equivariant; strides break that, for stem and patches
#   alike. Locality and equivariance are a CNN's inductive bias; a ViT has less of it.
# - A stem costs more than an encoder block, can help, and is not needed. That our race
#   is a draw, only the spread over seeds can show.
#
# ## Exercises
#
# 1. Run the race with `patch_size=2`: give `Stem.first` the stride 1, and reshape to 16
#    vectors. Who wins, and by how many standard errors?
# 2. Which stem of three convolutions sees 15 x 15 pixels? Check by nudging.
#
# Sources: Dosovitskiy et al. 2021, Xiao et al. 2021, Zhang 2019.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=1](../explore.html#lesson=1)
