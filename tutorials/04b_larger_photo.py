# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 4b. Where positions start, and a larger photo
#
# The question: why do positions start near zero? And what becomes of a table of 14 x 14
# places when somebody brings a photo of 24 x 24 patches?
#
# Builds: four sizes of start, each trained four times; bicubic interpolation by hand.
#
# New ideas: (1) initialisation: the size of a position beside that of a patch;
# (2) several starts before a claim; (3) interpolating a table like a picture; (4) a
# resize is a matrix; (5) cubic weights, some of them negative.
#
# Teach: 35 minutes. Run: 16 seconds.
#
# Axes: B batch, C channels, H W pixels, P patch side, N patches, T = N + 1 tokens,
# D hidden size; R the matrix of a resize

# %%
import math

import matplotlib.pyplot as plt
import numpy as np

from minivit import images, lessons, no_grad, optim, plots, training, vit
from minivit.datasets import Dataset
from minivit.errors import ShapeError
from minivit.ops.positions import interpolate_positions, sine_cosine_positions

# %% [markdown]
# The task of lesson 4: is the square left or right of the ring?


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

# %% [markdown]
# ## Four sizes of start, four times each
#
# A token is patch + position. Vision Transformers draw the table with a standard
# deviation of 0.02. Why not 0, or 1, or 10? One training proves nothing: luck. So each
# is trained four times. (AdamW, warm-up: lesson 9 builds them. One fact for now: a
# step of AdamW moves a number by about the learning rate, whatever its gradient.)


# %%
def learn(start, seed):
    """A model whose table has that size at first, how far it moved, its accuracies."""
    config = vit.ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=8, num_labels=2,
        intermediate_size=32, initializer_range=0.2, image_size=16, patch_size=4,
        num_channels=1,
    )
    model = vit.ViTForImageClassification(config, rng=seed)
    table = model.vit.embeddings.position_embeddings.data  # (1, T, D)
    table *= start / 0.2
    before = table.copy()
    adam, schedule = optim.AdamW(model.parameters(), 4e-3), optim.warmup_cosine(160)
    how = dict(epochs=4, batch_size=50, optimizer=adam, schedule=schedule, rng=seed)
    history = training.fit(model, train, test, **how, verbose=False)
    return model, abs(table - before).mean(), [row["test_accuracy"] for row in history]


STARTS = 0, 0.02, 1, 10
runs = {start: [learn(start, seed) for seed in range(4)] for start in STARTS}
curves = {start: np.array([run[2] for run in runs[start]]) for start in STARTS}
for start in STARTS:
    ends = " ".join(f"{share:4.0%}" for share in curves[start][:, -1])
    moved = np.mean([run[1] for run in runs[start]])
    print(f"start {start:4}: {ends} right; numbers moved by {moved:.3f} in the mean")
assert min(curves[start].mean(0)[-1] for start in STARTS[:3]) > curves[10].mean(0)[-1]

# %%
lines = {}
for start, each in curves.items():
    lines[f"start {start}"] = np.arange(1, 5), each.mean(0), each.min(0), each.max(0)

# %%
plots.curves(
    dict(lines=lines, xlabel="epochs done", ylabel="right answers", ylim=(0.4, 1.03)),
    name="start_of_positions",
    caption="Each line is the mean of four trainings, and its band reaches from the"
    " worst of them to the best.",
)
plt.show()

# %% [markdown]
# From 0, 0.02 and 1 it is learned, or nearly, from 10 it is not. Compare lengths.

# %%
model = runs[0.02][0][0]
with no_grad():
    patch = model.vit.embeddings.patch_embeddings(train.batch(slice(50))[0]).data
longest = np.linalg.norm(patch, axis=-1).max()
lengths = [f"{start * math.sqrt(32):.1f}" for start in STARTS]  # D = 32 numbers
print(f"length of the longest patch {longest:.1f}, of positions", *lengths)
assert 10 * math.sqrt(32) > 5 * longest

# %% [markdown]
# At 10 a patch is a whisper beside its position. And 160 steps, whose rates sum to
# 0.32, move a number by about that at most: too little to take it back. At 1 both are
# heard. Near zero is not the only good start, but the safe one: a short patch is heard.
#
# Safe with AdamW. By plain gradient descent, as in lesson 4, 0.02 stayed at 50% in
# three trainings of eight epochs, and 1 learned in all three.
#
# ## A larger photo
#
# A model for 224 x 224 pixels has 14 x 14 patches. Somebody brings 384 x 384, which is
# 24 x 24. The convolution does not mind, attention does not. The table does.

# %%
embeddings = vit.ViTEmbeddings(vit.ViTConfig(hidden_size=64, num_attention_heads=4))
table = embeddings.position_embeddings.data  # (1, T, D)
table[:] = sine_cosine_positions((14, 14), 64)
large = images.pixel_values(lessons.photo(), 384)[None]  # (1, C, H, W)
try:
    embeddings(large)
except ShapeError as error:
    print(error)

# %% [markdown]
# The way out: treat each of the D numbers as a picture of 14 x 14 pixels and enlarge
# it, like a photo. CLS has no place, so row 0 stays. To enlarge is a matrix: each new
# place is a weighted sum of four old ones, by a smooth curve (Keys 1981).
# One matrix does the rows, the same one the columns: "bicubic".


# %%
def curve(t):
    """Weight at distance t up to 2: Keys' cubic, PyTorch's a = -0.75 (his is -0.5)."""
    near, far = 1.25 * t**3 - 2.25 * t**2 + 1, -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
    return near if t <= 1 else far


def enlarge(old, new):
    """The matrix (new, old) that makes `new` places of `old` ones."""
    matrix = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * old / new - 0.5  # of place i, among the old ones
        for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[i, min(max(j, 0), old - 1)] += curve(abs(centre - j))
    return matrix


R = enlarge(14, 24)  # (24, 14)
print("place 11 of 24 =", *(f"{w:+.3f} * old {j}" for j, w in enumerate(R[11]) if w))
assert np.allclose(R.sum(axis=1), 1)

# %% [markdown]
# The weights sum to 1, but two are *negative*. So it is no mean: a new number may lie
# outside the old ones. On the whole table, by hand and by minivit:

# %%
old = table[0, 1:].reshape(14, 14, 64)  # (rows, columns, D)
new = np.einsum("yr,xc,rcd->yxd", R, R, old)  # (24, 24, D)
library = interpolate_positions(embeddings.position_embeddings, (14, 14), (24, 24))
again = np.resize(old, (24, 24, 64))  # the lazy way: in reading order, again and again
print("positions", table.shape, "->", library.shape)
print("tokens", embeddings(large, interpolate_pos_encoding=True).shape)
assert np.allclose(new.reshape(576, 64), library.data[0, 1:], atol=1e-5)

# %%
plots.heatmaps(
    [old[..., 33], new[..., 33], again[..., 33]], signed=True, name="enlarged_table",
    titles=["14 x 14", "24 x 24, interpolated", "24 x 24, read in order"],
    caption="One of the 64 numbers of each position: interpolated it tells the column"
    " as before, read in order it does not.",
)
plt.show()

# %% [markdown]
# Does it help? The model that learned left and right on 4 x 4 patches sees larger
# pictures, up to 8 x 8, and is not trained again.


# %%
def right_answers(side, lazy):
    """Share of right answers on pictures of side x side patches."""
    pixels, labels = pairs(100, side, rng=2).batch(slice(None))
    config = vit.ViTConfig.from_dict(model.config.to_dict(), image_size=4 * side)
    bigger = vit.ViTForImageClassification(config)
    state, name = model.state_dict(), "vit.embeddings.position_embeddings"
    cls, rows = state[name][:, :1], state[name][0, 1:]  # (1, 1, D), (16, D)
    grown = interpolate_positions(state[name], (4, 4), (side, side)).data[:, 1:]
    rows = np.resize(rows, (1, side * side, 32)) if lazy else grown
    bigger.load_state_dict(state | {name: np.concatenate([cls, rows], axis=1)})
    with no_grad():
        return (bigger(pixels).logits.data.argmax(axis=1) == labels).mean()


sides = np.arange(4, 9)
interpolated = [right_answers(side, lazy=False) for side in sides]
in_order = [right_answers(side, lazy=True) for side in sides]
for side, good, bad in zip(sides, interpolated, in_order, strict=True):
    print(f"{side} x {side}: interpolated {good:.0%}, read in order {bad:.0%}")
assert min(interpolated) > max(in_order[1:])

# %%
plots.curves(
    dict(
        lines={"interpolated": (sides, interpolated), "in order": (sides, in_order)},
        xlabel="patches a side", ylabel="right answers", ylim=(0, 1.03),
    ),
    name="larger_pictures",
    caption="Trained on 4 x 4 patches, tested on more: one half is guessing.",
)
plt.show()

# %% [markdown]
# ## Your turn
#
# Row 0 of the table belongs to CLS, which has no place. What is it for? Predict how the
# gradients of `cls_token` and of row 0 differ, then send one back and compare:
# `embeddings(large, interpolate_pos_encoding=True).sum().backward()`.
#
# ## What you can say now
#
# - Starts from 0 to 1 are learned; positions much longer than patches drown them.
# - At another resolution the table is enlarged like a picture; CLS's row stays.
# - Cubic weights sum to 1, and some are negative.
#
# ## Exercises
#
# 1. Enlarge with the nearest old place. How do the right answers change?
# 2. Interpolate the learned table of another start, 1. Is it as good on 8 x 8? Why?
#
# Sources: Keys 1981, Dosovitskiy et al. 2021.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=4](../explore.html#lesson=4)
