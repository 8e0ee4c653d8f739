# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 4. Attention cannot see order
#
# The question: cut the photo into patches and shuffle them. Does a transformer notice?
#
# Builds: position embeddings, and a task that is impossible without them.
#
# New ideas: (1) permutation equivariant; (2) permutation invariant; (3) a task that
# cannot be learned, and why; (4) learned position embeddings; (5) sinusoidal position
# embeddings; (6) a step is a rotation, the same everywhere; (7) inductive bias.
#
# Teach: 45 minutes. Run: 7 seconds.
#
# Axes: B batch, C channels, H W pixels, P patch side, N patches, T = N + 1 tokens,
# D hidden size

# %%
import math

import matplotlib.pyplot as plt
import numpy as np

from minivit import images, lessons, no_grad, optim, plots, training, vit, weights
from minivit.datasets import Dataset
from minivit.lens import position_similarity
from minivit.ops.positions import sine_cosine_positions

# %% [markdown]
# ## Shuffle the patches
#
# Four untrained blocks see the photo, and its patches shuffled: first with positions.

# %%
rng = np.random.default_rng(0)
x = images.pixel_values(lessons.photo(), 224)  # (C, H, W)
order = rng.permutation(196)
shuffled = images.unpatchify(images.patchify(x, 16)[order], 224, 224)  # (C, H, W)
config = vit.ViTConfig(
    hidden_size=48, num_hidden_layers=4, num_attention_heads=3, initializer_range=0.2
)
model = vit.ViTModel(config, rng=0).to(np.float64)
positions = model.embeddings.position_embeddings  # (1, T, D)


def encode():
    with no_grad():
        return model(np.stack([x, shuffled])).last_hidden_state.data  # (2, T, D)


one, other = encode()  # the photo, and its patches shuffled
print(f"with positions CLS changes by {abs(other[0] - one[0]).max():.2f}")
positions.data[:] = 0
one, other = encode()
change = other - one[[0, *order + 1]]  # (T, D): the photo's tokens in the new order
print(f"without, CLS and the reordered patches change by {abs(change).max():.1e}")
assert abs(change).max() < 1e-8

# %% [markdown]
# Attention sums over all tokens, and a sum has no order. Shuffle what goes in, and what
# comes out is shuffled alike: attention is *permutation equivariant*. Norm and MLP look
# at one token at a time, so they are, too. For CLS, which stays in its place, nothing
# changes at all: its answer is *permutation invariant*.

# %%
plots.pictures(
    [images.to_image(x), images.to_image(shuffled)], name="shuffled_photo",
    caption="The photo and its patches shuffled: to an encoder without positions both"
    " are the same bag of patches.",
)
plt.show()

# %% [markdown]
# ## A task that cannot be learned without positions
#
# Is the square to the left of the ring, or to the right? We make pictures in pairs. The
# twin has square and ring exchanged: the same 16 patches, and the opposite answer.


# %%
def pairs(count, side, rng, P=4):
    """`count` pictures of side x side patches, each with its twin: left, then right."""
    rng = np.random.default_rng(rng)
    marks = np.full((2, P, P), 255, np.uint8)  # a square
    marks[1, 1:-1, 1:-1] = 0  # a ring
    cells = np.zeros((count, 2, side, side, P, P), np.uint8)
    for pair in cells:
        (r, s), places = rng.integers(side, size=2), rng.choice(side, 2, replace=False)
        left, right = sorted(places)
        for twin in (0, 1):
            pair[twin, r, left], pair[twin, s, right] = marks[twin], marks[1 - twin]
    pictures = cells.transpose(0, 1, 2, 4, 3, 5).reshape(-1, 1, side * P, side * P)
    return Dataset(pictures, np.tile([0, 1], count), ["left", "right"])


train, test = pairs(1000, 4, rng=0), pairs(100, 4, rng=1)

# %%
plots.pictures(
    [*train.images[:10:2, 0], *train.images[1:10:2, 0]], ["left"] * 5 + ["right"] * 5,
    columns=5, name="twins",
    caption="Is the square left or right of the ring? Below each picture is its twin.",
)
plt.show()

# %% [markdown]
# ## Your turn
#
# On paper, before you read on: what do the outputs of a model without positions for a
# picture and its twin have in common? How many of 200 test answers will be right, at
# best and at worst? How small can the loss be? (An answer with probability p: -log p.)
#
# Then train: one block, plain gradient descent (lesson 9). Only the positions differ.

# %%
config = vit.ViTConfig(
    hidden_size=32, num_hidden_layers=1, num_attention_heads=8, intermediate_size=32,
    initializer_range=0.2, image_size=16, patch_size=4, num_channels=1, num_labels=2,
)


def learn(positions, learned):
    """A model that starts with these positions (1, T, D), and its test accuracies."""
    model = vit.ViTForImageClassification(config, rng=0)
    table = model.vit.embeddings.position_embeddings  # (1, T, D)
    table.data[:], table.requires_grad = positions, learned
    sgd = optim.SGD([x for x in model.parameters() if x.requires_grad], lr=0.1)
    how = dict(epochs=8, batch_size=50, optimizer=sgd, verbose=False)
    history = training.fit(model, train, test, **how)
    return model, [row["test_accuracy"] for row in history]


blind, curve_without = learn(0, learned=False)
measured = training.evaluate(blind, test)
print(f"without positions {measured.accuracy:.1%} right, loss {measured.loss:.4f}")
assert abs(measured.accuracy - 0.5) < 0.02 and measured.loss > math.log(2) - 1e-4

# %% [markdown]
# Both twins get the same logits, whatever the weights are: one of them is right, 50%.
# With p for "left" the pair costs (-log p - log(1 - p)) / 2, never below ln 2 = 0.6931.
#
# ## Learned position embeddings
#
# The Vision Transformer's way: a table, one row of D numbers for each token, added to
# the tokens, a parameter like any other. Ours starts one wide (near zero: lesson 4b).

# %%
start = rng.standard_normal((1, 17, 32))  # (1, T, D)
model, curve_learned = learn(start, learned=True)
moved = abs(model.vit.embeddings.position_embeddings.data - start).mean()
print(f"learned positions: {curve_learned[-1]:.1%} right, numbers moved by {moved:.2f}")
assert curve_learned[-1] > 0.9

# %% [markdown]
# The table hardly moved: random rows tell the places apart, and the task wants no more.
#
# ## Sinusoidal position embeddings
#
# The first transformer had fixed waves (Vaswani et al. 2017). Place a becomes sin(a w)
# and cos(a w) for several frequencies w: quick waves tell neighbours apart, slow ones
# near from far. In photos, half of the D numbers tell the row, half the column.

# %%
w = 10000 ** (-np.arange(8) / 8)  # (D / 4,)
waves = np.zeros((17, 32))  # (T, D); CLS has no place: zeros
for n in range(16):
    r, c = divmod(n, 4)
    waves[n + 1] = [*np.sin(r * w), *np.cos(r * w), *np.sin(c * w), *np.cos(c * w)]
_, curve_waves = learn(waves, learned=False)
print(f"sinusoidal positions: {curve_waves[-1]:.1%} right")
assert np.allclose(waves, sine_cosine_positions((4, 4), 32)[0], atol=1e-6)
curves = {"none": curve_without, "learned": curve_learned, "sinusoidal": curve_waves}
lines = {name: (np.arange(1, 9), curve) for name, curve in curves.items()}

# %%
plots.curves(
    dict(lines=lines, xlabel="epochs done", ylabel="right answers", ylim=(0.4, 1.03)),
    name="with_and_without_positions",
    caption="Share of right test answers: without positions it stays at one half.",
)
plt.show()

# %% [markdown]
# Why waves? One frequency makes an arrow e(a) = (sin(a w), cos(a w)). A step turns it
# by the angle step * w, wherever it starts: e(a + step) is a *linear* map of e(a). So
# the paper argues: a matrix can learn it. And e . e' tells only the distance of two
# places; with query and key matrices in between that is gone, unless they learn it.

# %%
step, w = 2, 0.3
sin, cos = np.sin(step * w), np.cos(step * w)
turn = np.array([[cos, sin], [-sin, cos]])
e = np.array([[np.sin(a * w), np.cos(a * w)] for a in range(14)])  # (14, 2)
print("place 5 turned", (turn @ e[5]).round(3), "place 7", e[7].round(3))
Wq, Wk = rng.standard_normal((2, 2, 2))
for name, dot in ("e . e'", e @ e.T), ("(Wq e) . (Wk e')", (e @ Wq) @ (e @ Wk).T):
    print(f"{name:16} from 1 to 3 {dot[1, 3]:+.3f}, from 8 to 10 {dot[8, 10]:+.3f}")
assert np.allclose(e[:-step] @ turn.T, e[step:])

# %% [markdown]
# ## What a table learns from photos
#
# What a model assumes before the first picture is its *inductive bias*. A convolution
# has much: neighbours belong together, a pattern means the same anywhere. Waves have
# some: near places are alike. A random table has none, it must learn that a photo has
# rows and columns (Dosovitskiy et al. 2021, section 3.1). Does it? DINOv2 learned its
# 37 x 37 positions from photos without labels (Oquab et al. 2023).

# %%
learned = weights.dinov2_small().embeddings.position_embeddings.data[0, 1:]  # (N, D)
alike = position_similarity(learned - learned.mean(axis=0), (37, 37))
y, x = np.mgrid[:37, :37]
down, right = abs(y[..., None, None] - y), abs(x[..., None, None] - x)
near, far = alike[down + right == 1].mean(), alike[(down > 8) & (right > 8)].mean()
row = alike[(down == 0) & (right > 8)].mean()
print(f"alike: neighbours {near:+.2f}, far {far:+.2f}, far but in one row {row:+.2f}")
assert near > row > far

# %%
plots.position_similarity(
    learned, (37, 37), name="trained_on_photos",
    caption="Each small map compares one position of DINOv2 with all others, red is"
    " alike: a cross says that the table found rows and columns.",
)
plt.show()

# %% [markdown]
# ## What you can say now
#
# - Attention is permutation equivariant, CLS's answer permutation invariant.
# - Without positions left and right stay at 50%, and the loss at ln 2 or above.
# - Positions are a table (1, T, D), added to the tokens: learned, or sinusoidal. With
#   waves a step of k places is one rotation, the same everywhere.
# - An inductive bias is what a model assumes before it has seen data.
#
# ## Exercises
#
# 1. **Exercise 04**, the backward: `minivit exercise 04 --out DIR`. With pencil and
#    paper, from the pixels to the tokens and back: [sheets/image.md](sheets/image.md).
# 2. Number the patches: row n + 1 is n / 16 times one random vector, not learned. Try
#    left or right, then above or below (`images.transpose(0, 1, 3, 2)`).
#
# Sources: Vaswani et al. 2017, Dosovitskiy et al. 2021, Oquab et al. 2023.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=4](../explore.html#lesson=4)
