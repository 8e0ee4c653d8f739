# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 4. Attention cannot see order
#
# The question: cut the photo into patches and shuffle them. Does a transformer notice?
#
# Builds: position embeddings, in three kinds (learned, sine and cosine, the notebook's linear one), and their
# interpolation to a larger photo. A task that is impossible without positions is trained with and without them.
#
# Teach: 35 minutes. Run: 14 seconds.
#
# Axes: B batch, C channels, H W pixels, P patch side, N patches, T = N + 1 tokens, D hidden size, d head size

# %%
import math

import matplotlib.pyplot as plt
import numpy as np

from minivit import datasets, images, lessons, nn, no_grad, notebook, ops, optim, plots, training, vit, weights
from minivit.errors import ShapeError
from minivit.lens import position_similarity
from minivit.ops.positions import interpolate_positions, sine_cosine_positions

photo = lessons.photo()

# %% [markdown]
# ## Shuffle the patches
#
# First in the open. The photo becomes 196 tokens: here simply the pixels of each patch. One head of attention, with
# random matrices, in three lines of NumPy. Then the same 196 tokens in another order.

# %%
rng = np.random.default_rng(0)
x = images.pixel_values(photo, 224)  # (C, H, W)
patches = images.patchify(x, 16)  # (N, C, P, P)
tokens = patches.reshape(196, 768).astype(np.float64)  # (N, D)
Wq, Wk, Wv = 0.02 * rng.standard_normal((3, 768, 16))  # (D, d) each


def attention(tokens):
    scores = (tokens @ Wq) @ (tokens @ Wk).T / math.sqrt(16)  # (N, N)
    weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)  # (N, N)
    return weights @ (tokens @ Wv)  # (N, d)


# %%
order = rng.permutation(196)
before, after = attention(tokens), attention(tokens[order])
print("the first patch of the shuffled photo was patch", order[0] + 1)
print("its context then", before[order[0], :4].round(4), "and now", after[0, :4].round(4))
print(f"all 196 contexts, reordered: largest difference {abs(after - before[order]).max():.1e}")
assert np.allclose(after, before[order], rtol=0, atol=1e-10)

# %% [markdown]
# The same rows, in another order. Nothing else happened. And it must be so: a context is a sum over all tokens, and a
# sum does not care about the order of its terms. Every query still finds the same keys, only elsewhere.
#
# And the rest of the encoder? Layer norm, MLP and the residual look at one token at a time. So the whole encoder only
# passes the shuffling on. CLS is not shuffled: for CLS nothing changes at all.
#
# We show it on the library's model: four blocks, in float64, with all positions set to zero.

# %%
config = vit.ViTConfig(
    hidden_size=48, num_hidden_layers=4, num_attention_heads=3, intermediate_size=96, initializer_range=0.2
)
model = vit.ViTModel(config, rng=0).to(np.float64)
positions = model.embeddings.position_embeddings  # (1, T, D)
drawn = positions.data.copy()  # (1, T, D)
shuffled = images.unpatchify(patches[order], 224, 224)  # (C, H, W)
both = np.stack([x, shuffled])  # (2, C, H, W)


def encode(start):
    positions.data[:] = start
    with no_grad():
        return model(both).last_hidden_state.data  # (2, T, D)


# %%
without = encode(0)
print("without positions, photo and shuffled photo, largest difference:")
print(f"  CLS                 {abs(without[1, 0] - without[0, 0]).max():.1e}")
print(f"  patches, reordered  {abs(without[1, 1:] - without[0, 1:][order]).max():.1e}")
assert np.allclose(without[1, 0], without[0, 0], rtol=0, atol=1e-8)  # the same CLS
assert np.allclose(without[1, 1:], without[0, 1:][order], rtol=0, atol=1e-8)  # the same set of patches

seen = encode(drawn)
print(f"with positions, CLS   {abs(seen[1, 0] - seen[0, 0]).max():.1e}")
flat = np.ptp(tokens, axis=0).max() < 0.01  # a photo of one colour stays what it was
assert flat or abs(seen[1, 0] - seen[0, 0]).max() > 1e-3

# %% [markdown]
# To the eye the two photos have little in common. To an encoder without positions they are the same photo, to the
# last digits. It sees a bag of patches.
#
# On the right, each dot is one of CLS's 48 numbers: by how much the shuffling changed it.

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 3.7), dpi=100, layout="constrained")
figure.set_label("shuffled_photo")
for ax, pixels, title in zip(axes, both, ("the photo", "its patches, shuffled"), strict=False):
    ax.imshow(images.to_image(pixels), extent=(0, 14, 14, 0))
    ax.set(title=title, xticks=range(15), yticks=range(15), xticklabels=[], yticklabels=[])
    ax.tick_params(length=0)
    ax.grid(color="white", linewidth=0.5)
for states, name, color in ((seen, "with positions", "tab:orange"), (without, "without: all 0", "tab:blue")):
    axes[2].plot(range(1, 49), states[1, 0] - states[0, 0], "o", color=color, markersize=4, label=name)
axes[2].set(title="CLS: shuffled minus photo", xlabel="number of CLS", ylabel="difference", box_aspect=1)
axes[2].grid(alpha=0.3)
axes[2].legend(fontsize=9)
plt.show()

# %% [markdown]
# ## A task that cannot be learned without positions
#
# A square and a ring on a black ground. The question: is the square to the left of the ring, or to the right?
#
# We make the pictures in pairs. The twin of a picture has square and ring exchanged. It has the same 16 patches, only
# in other places, and the opposite answer.


# %%
def pairs(count, side, rng, P=4):
    """A Dataset of `count` pictures of side x side patches and their twins: square left of ring, or right of it."""
    rng = np.random.default_rng(rng)
    marks = np.full((2, P, P), 255, np.uint8)  # a square
    marks[1, 1:-1, 1:-1] = 0  # a ring
    cells = np.zeros((count, 2, side, side, P, P), np.uint8)
    for i in range(count):
        (r, s), (left, right) = rng.integers(side, size=2), np.sort(rng.choice(side, 2, replace=False))
        for twin in (0, 1):
            cells[i, twin, r, left], cells[i, twin, s, right] = marks[twin], marks[1 - twin]
    pictures = cells.transpose(0, 1, 2, 4, 3, 5).reshape(2 * count, 1, side * P, side * P)  # (B, C, H, W)
    return datasets.Dataset(pictures, np.tile([0, 1], count), ["left", "right"])


train, test = pairs(1000, 4, rng=0), pairs(100, 4, rng=1)
print(len(train), "pictures to learn from,", len(test), "to be tested on, each", train.images.shape[1:])

# %%
figure, axes = plt.subplots(2, 5, figsize=(10, 4.4), dpi=100, layout="constrained")
figure.set_label("twins")
for number, ax in enumerate(axes.T.ravel()):  # a pair in each column
    ax.imshow(train.images[number, 0], "gray", extent=(0, 4, 4, 0))
    ax.set(title=train.class_names[train.labels[number]], xticks=range(5), yticks=range(5))
    ax.set(xticklabels=[], yticklabels=[])
    ax.tick_params(length=0)
    ax.grid(color="0.4")
figure.suptitle("Is the square left or right of the ring? Below each picture its twin: the same patches")
plt.show()

# %% [markdown]
# Without positions the model gives a picture and its twin the same logits, whatever its weights are. It says "left"
# to both or "right" to both, and so it is right exactly once in each pair: 50%, and no training will change that.
#
# The loss has a floor as well. If it says "left" with probability p, the pair costs (-log p - log(1 - p)) / 2, and
# that is never less than ln 2 = 0.6931.
#
# Now train. A small model, one block, D = 32. What differs is only where its positions come from.

# %%
config = vit.ViTConfig(
    hidden_size=32, num_hidden_layers=1, num_attention_heads=8, intermediate_size=32, initializer_range=0.2,
    image_size=16, patch_size=4, num_channels=1, id2label={0: "left", 1: "right"},
)


def learn(name, model, train=train, test=test, epochs=4):
    """Train the parameters that require a gradient. Returns the test accuracy after each epoch."""
    print(f"training with positions {name}: {epochs} epochs ...", end=" ", flush=True)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adam = optim.AdamW(learned, lr=4e-3)
    schedule = optim.warmup_cosine(epochs * len(train) // 50, len(train) // 50)
    history = training.fit(
        model, train, test, epochs=epochs, batch_size=50, optimizer=adam, schedule=schedule, verbose=False
    )
    print(f"{history[-1]['test_accuracy']:.1%} right")
    return [row["test_accuracy"] for row in history]


# %%
blind = vit.ViTForImageClassification(config, rng=0)
positions = blind.vit.embeddings.position_embeddings
positions.data[:], positions.requires_grad = 0, False  # none, and none can be learned
curves = {"none": learn("none", blind)}

measured = training.evaluate(blind, test)
print(f"without positions: {measured.accuracy:.1%} right, loss {measured.loss:.4f}, ln 2 = {math.log(2):.4f}")
assert abs(measured.accuracy - 0.5) < 0.02 and measured.loss > math.log(2) - 1e-4

# %% [markdown]
# Exactly half. (Real photos are kinder: a bag of patches with a beak in it is a bird. See exercise 2.)
#
# Now the Vision Transformer's own way: a table with one row of D numbers for each token, added to the
# tokens. It is a parameter like any other. It starts near zero, and it is learned.


# %%
def with_table(start, rng=0):
    """The model with learnable positions that are drawn at random with standard deviation `start`."""
    model = vit.ViTForImageClassification(config, rng=rng)
    model.vit.embeddings.position_embeddings.data *= start / config.initializer_range
    return model


learnable = with_table(start=0.02)
table = learnable.vit.embeddings.position_embeddings  # (1, T, D)
untrained = table.data.copy()
print("the table of positions:", table.shape)
curves["learnable"] = learn("learnable", learnable)
assert table.shape == (1, 17, 32) and curves["learnable"][-1] > 0.95

# %% [markdown]
# The table takes 17 x 32 numbers, and with them the task is easy.
#
# ## Where are sine and cosine?
#
# Many of you know positions from language models, as waves. Look through `ViTEmbeddings`: there is no sine in it. The
# first transformer (Vaswani et al. 2017) used fixed waves, the Vision Transformer learns its table. Both work. The
# waves are still used where nothing should be learned, in masked autoencoders for instance.
#
# Here they are. A place p becomes sin(p w) and cos(p w), for several frequencies w: quick waves tell neighbours apart,
# slow waves tell near from far. Half of the D numbers are for the row, half for the column.

# %%
rows, columns, D = 4, 4, 32
waves = np.zeros((1, 1 + rows * columns, D), np.float32)  # (1, T, D); CLS has no place: zeros
for r in range(rows):
    for c in range(columns):
        for k in range(D // 4):
            w = 10000 ** (-k / (D // 4))
            numbers = math.sin(r * w), math.cos(r * w), math.sin(c * w), math.cos(c * w)
            waves[0, 1 + r * columns + c, k :: D // 4] = numbers

library = sine_cosine_positions((rows, columns), D)
print("by hand and minivit.ops.positions:", waves.shape, f"largest difference {abs(waves - library).max():.1e}")
assert np.allclose(waves, library, atol=1e-6)

# %% [markdown]
# Why waves? Because sin(a) sin(b) + cos(a) cos(b) = cos(a - b). The dot product of two positions, and attention is
# made of dot products, depends only on how far they are apart. It is the same here and in the other corner.

# %%
grid = sine_cosine_positions((14, 14), 192)[0, 1:].astype(np.float64).reshape(14, 14, 192)  # (rows, columns, D)
here, there = grid[1, 2] @ grid[3, 7], grid[8, 4] @ grid[10, 9]  # both times 2 down and 5 to the right
print(f"two pairs of places, each 2 down and 5 to the right: {here:.6f} and {there:.6f}")
assert abs(here - there) < 1e-4

# %%
figure, axes = plt.subplots(2, 4, figsize=(10, 5.2), dpi=100, layout="constrained")
figure.set_label("sine_cosine")
for ax, number in zip(axes.ravel(), (0, 6, 12, 48, 96, 102, 108, 144), strict=True):
    part, k = divmod(number, 48)
    name = f"{('sin', 'cos')[part % 2]}({('row', 'column')[part // 2]} * {10000 ** (-k / 48):.2f})"
    wave = ax.imshow(grid[:, :, number], "RdBu_r", vmin=-1, vmax=1)
    ax.set(title=f"number {number}: {name}", xticks=[], yticks=[])
    ax.title.set_fontsize(9)
figure.colorbar(wave, ax=axes, shrink=0.7)
figure.suptitle("Eight of the 192 numbers of a position, each on the grid of 14 x 14 patches")
plt.show()

# %%
fixed = vit.ViTForImageClassification(config, rng=0)
positions = fixed.vit.embeddings.position_embeddings
positions.data[:], positions.requires_grad = library, False
curves["sine-cosine"] = learn("sine-cosine", fixed)
assert curves["sine-cosine"][-1] > 0.95

# %% [markdown]
# ## The notebook's positions
#
# The notebook does a third thing. It numbers the patches 1 to N and sends the number through a linear layer from 1 to
# D. So position n is n times one vector, plus another. CLS gets none. By hand, on the photo, with its patches of 3 x 3:

# %%
embedding = notebook.Embedding(x.transpose(0, 2, 1), out_channels=10, kernel_size=3, rng=1)
tokens = embedding.patch_embeddings()  # (N, 10)
weight, bias = embedding.linear.weight.data, embedding.linear.bias.data  # (10, 1), (10,)

numbers = np.arange(1, len(tokens) + 1, dtype=np.float32)[:, None]  # (N, 1)
lines = numbers @ weight.T + bias  # (N, 10)
by_hand = np.concatenate([embedding.cls_token.data, tokens.data + lines])  # (T, 10)
print("by hand and notebook.Embedding:", by_hand.shape)
assert np.allclose(by_hand, embedding().data, rtol=1e-5, atol=1e-4)
assert np.array_equal(embedding().data[0], embedding.cls_token.data[0])  # CLS: no position


# %%
def normed(x):
    return ops.layer_norm(x, np.ones(10), np.zeros(10), 1e-5).data


lengths = np.linalg.norm(lines, axis=1) / np.linalg.norm(tokens.data, axis=1).mean()
for n in (1, 100, 5476):
    print(f"position {n:4} is {lengths[n - 1]:8.1f} times as long as a patch is on average")
late = normed(lines[[5000, 5400]].astype(np.float64))  # the first block begins with a layer norm
print(f"after layer norm, positions 5001 and 5401 differ by {abs(late[0] - late[1]).max():.5f}")
assert lengths[5475] > 100 * lengths[0] and abs(late[0] - late[1]).max() < 0.01

# %% [markdown]
# A late patch is almost nothing but its position. And worse: layer norm forgets lengths, so late positions all become
# the same vector. Let us give this kind its chance on our task. There are only 16 patches, and the layer is learned.


# %%
class LinearPositions(nn.Module):
    """The notebook's positions in place of ViTEmbeddings' table. (B, C, H, W) -> (B, T, D)."""

    def __init__(self, embeddings):
        self.patch_embeddings, self.cls_token = embeddings.patch_embeddings, embeddings.cls_token
        self.linear = nn.Linear(1, embeddings.cls_token.shape[-1], rng=1)

    def forward(self, pixel_values, *_):
        patches = self.patch_embeddings(pixel_values)  # (B, N, D)
        numbers = np.arange(1, patches.shape[1] + 1, dtype=np.float32)[:, None]  # (N, 1)
        cls = self.cls_token.expand(len(patches), -1, -1)  # (B, 1, D)
        return ops.concatenate([cls, patches + self.linear(numbers)], axis=1)  # (B, T, D)


def with_lines():
    model = vit.ViTForImageClassification(config, rng=0)
    model.vit.embeddings = LinearPositions(model.vit.embeddings)
    return model


# %%
linear = with_lines()
curves["linear"] = learn("linear", linear)

turned = []
for part in (train, test):
    pictures = np.ascontiguousarray(part.images.transpose(0, 1, 3, 2))  # rows become columns
    turned.append(datasets.Dataset(pictures, part.labels, ["above", "below"]))
above = learn("linear, above or below", with_lines(), *turned)
print(f"linear positions: left or right {curves['linear'][-1]:.1%}, above or below {above[-1]:.1%}")
assert curves["linear"][-1] < 0.75 and above[-1] > 0.9

# %% [markdown]
# Now that is worth a pause. Above or below: learned. Left or right: little better than chance. A number that counts
# along the rows says "later", and later is lower. But the column is the rest of a division, (n - 1) % 4, and no line
# through the numbers knows the rest of a division.
#
# (Other people turn the photo, as the notebook does: then it is the row that is lost.)

# %% [markdown]
# ## The similarity picture
#
# What does a table of positions look like? Compare each position with all others, by the cosine of their angle, and
# draw one small map for each. In it, red is "similar", and a map stands where its own position stands.

# %%
grid = 4, 4
kinds = {
    "learnable, at the start": untrained[0, 1:],
    "learnable, trained": table.data[0, 1:],
    "sine-cosine": library[0, 1:],
    "linear, trained": linear.vit.embeddings.linear(np.arange(1, 17, dtype=np.float32)[:, None]).data,
}  # each (N, D)
figure, axes = plt.subplots(1, 4, figsize=(10, 3.3), dpi=100, layout="constrained")
figure.set_label("position_similarity")
for ax, (name, vectors) in zip(axes, kinds.items(), strict=True):
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    maps = np.full((4, 5, 4, 5), np.nan)  # a map of 4 x 4 in each cell, and a gap
    maps[:, :4, :, :4] = (vectors @ vectors.T).reshape(4, 4, 4, 4).transpose(0, 2, 1, 3)
    drawing = ax.imshow(maps.reshape(20, 20)[:-1, :-1], "RdBu_r", vmin=-1, vmax=1)
    ax.set(title=name, xticks=[], yticks=[], facecolor="0.6")
figure.suptitle("Each small map: one position, compared with all 4 x 4")
figure.colorbar(drawing, ax=axes, label="cosine similarity", shrink=0.8)
plt.show()

# %% [markdown]
# Nobody told the table about rows and columns. At the start the maps are noise. After training each map is striped:
# positions of one column have become alike, since the task asks about columns and nothing else.
#
# The paper's famous picture (figure 7, centre) is this one, of a table that was trained on millions of photos. We have
# such a table: DINOv2's smallest learned 37 x 37 positions from photos without labels (lesson 13). In each map its own
# place is the most alike, then its neighbours, then its own row and its own column: a cross. (The rim of the photo is
# one place to it: there all around is alike.) The waves, on 14 x 14, have that cross from the start.

# %%
columns_alike = np.corrcoef(table.data[0, 1:]).reshape(4, 4, 4, 4)  # (row, column, row', column')
same = np.mean([columns_alike[r, c, s, c] for r in range(4) for s in range(4) for c in range(4) if r != s])
other = np.mean([columns_alike[r, c, s, 3 - c] for r in range(4) for s in range(4) for c in range(4) if r != s])
print(f"trained table, correlation in one column {same:+.2f}, with the mirrored column {other:+.2f}")
assert same > other + 0.3

learned = weights.dinov2_small().embeddings.position_embeddings.data[0, 1:]  # (N, D)
alike = position_similarity(learned - learned.mean(0), (37, 37))  # what all have in common tells no place
y, x = np.mgrid[:37, :37]
down, right = abs(y[..., None, None] - y), abs(x[..., None, None] - x)  # rows and columns apart
print("trained on photos, cosine similarity without the mean:")
for name, where in {
    "next to each other": down + right == 1,
    "same row, far apart": (down == 0) & (right > 8),
    "same column, far apart": (down > 8) & (right == 0),
    "far apart in both": (down > 8) & (right > 8),
}.items():
    print(f"  {name:23} {alike[where].mean():+.2f}")
assert alike[down + right == 1].mean() > 0.8 and alike[(down > 8) & (right > 8)].mean() < 0
assert min(alike[(down == 0) & (right > 8)].mean(), alike[(down > 8) & (right == 0)].mean()) > 0.2

# %%
figure = plots.position_similarity(learned, (37, 37))
figure.set_label("trained_on_photos")
figure = plots.position_similarity(sine_cosine_positions((14, 14), 192), (14, 14))
figure.set_label("sine_cosine_similarity")
plt.show()

# %% [markdown]
# ## Why start positions near zero?
#
# Tables start with a standard deviation of 0.02. Why not 1, or 10? A token is patch + position. If the position is
# huge, the patch is a whisper beside it.
#
# And learning cannot repair it soon: a step of Adam moves a number by about the learning rate, however large the
# number is. We start one unit wide, then ten, and look.

# %%
tables = {"0.02": (untrained, table.data)}  # {start: the table before and after}
for start in (1, 10):
    model = with_table(start)
    positions = model.vit.embeddings.position_embeddings
    started = positions.data.copy()
    curves[f"learnable, start {start}"] = learn(f"learnable, start {start}", model)
    tables[str(start)] = started, positions.data
patch_length = np.linalg.norm(model.vit.embeddings.patch_embeddings(train.batch(slice(50))[0]).data, axis=-1).max()
print(f"the longest patch has the length {patch_length:.1f}")
moved = {}
for name, (started, trained) in tables.items():
    length, moved[name] = np.linalg.norm(started, axis=-1).mean(), abs(trained - started).mean() / abs(started).mean()
    print(f"start {name:4}: mean length {length:5.2f}, then moved by {moved[name]:7.1%} of its size")
assert moved["0.02"] > 3  # the small start was forgotten
assert moved["10"] < 0.01  # the huge one stayed what it was
assert min(curves["learnable"][-1], curves["learnable, start 1"][-1]) > curves["learnable, start 10"][-1] + 0.1

# %% [markdown]
# From 1 the task is learned as well: those positions are about as long as the patches, and both are heard. From 10 it
# is not. The first table moved by several times its size: its start is forgotten. The last moved by less than a
# hundredth: it is still noise, and the model has to live with it. So near zero is not the only place to start from,
# but the safe one: whatever the length of the patches, they are heard.
#
# Could they start at exactly zero? Yes. Positions are alike then only until the first step, since different patches
# stand on them and send different gradients.

# %%
zero = with_table(start=0)
assert not zero.vit.embeddings.position_embeddings.data.any()
curves["learnable, start 0"] = learn("learnable, start 0", zero)
assert curves["learnable, start 0"][-1] > 0.95

# %%
figure, ax = plt.subplots(figsize=(10, 4.2), dpi=100, layout="constrained")
figure.set_label("with_and_without_positions")
for name, accuracies in curves.items():
    style = "s--" if "start" in name else "o-"
    ax.plot(range(1, len(accuracies) + 1), accuracies, style, label=f"{name}: {accuracies[-1]:.1%}")
ax.set(title="Is the square left or right of the ring?", xlabel="epoch", ylabel="share of right test answers")
ax.set(xticks=range(1, len(accuracies) + 1), ylim=(0.4, 1.03))
ax.grid(alpha=0.3)
ax.legend(title="positions", loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# ## CLS has a row too
#
# The table has T = N + 1 rows. Row 0 is CLS's, which has no place in the photo. What is it for? Honestly, for nothing:
# CLS is a learned vector, and a second learned vector is added to it. Both get the same gradient, always, and act as
# one. It is there because adding one table to all the tokens is simpler than leaving one out.
#
# The gradient of the table is a sum over the batch, for the same reason as CLS's in lesson 3: one row, used by every
# image.

# %%
embeddings = zero.vit.embeddings
zero.zero_grad()
pixels, _ = train.batch(slice(50))  # (B, C, H, W)
tokens = embeddings(pixels)  # (B, T, D)
dtokens = rng.standard_normal(tokens.shape).astype(np.float32)  # (B, T, D)
tokens.backward(dtokens)
assert np.allclose(embeddings.position_embeddings.grad[0], dtokens.sum(axis=0), atol=1e-4)
assert np.allclose(embeddings.position_embeddings.grad[0, 0], embeddings.cls_token.grad[0, 0], atol=1e-4)
print("positions' gradient", embeddings.position_embeddings.grad.shape, "is the sum over", len(pixels), "images")
print("row 0 and CLS get the same gradient:", embeddings.cls_token.grad[0, 0, :4].round(3))

# %% [markdown]
# ## What happens at another resolution?
#
# A model was trained on 224 x 224: 196 patches, 197 rows. Somebody brings a photo of 384 x 384. That makes 24 x 24 =
# 576 patches. The convolution does not mind, attention does not mind. The table minds: it has no row 400.

# %%
config = vit.ViTConfig(hidden_size=64, num_attention_heads=4)
embeddings = vit.ViTEmbeddings(config)
embeddings.position_embeddings.data[:] = sine_cosine_positions((14, 14), 64)
large = images.pixel_values(photo, 384)[None]  # (1, C, H, W)
try:
    embeddings(large)
except ShapeError as error:
    print(error)
    refused = True
assert refused

# %% [markdown]
# The way out: rows 1 to 196 lie on a grid of 14 x 14. Treat each of the D numbers as a little picture of 14 x 14
# pixels, and enlarge it to 24 x 24, as one enlarges a photo. CLS's row has no place, so it stays.
#
# To enlarge is a matrix. Each new place is a mean of the four nearest old ones, with weights from a smooth curve:
# "bicubic". One matrix does the rows, the same one does the columns.


# %%
def curve(t):
    """Keys' cubic with a = -0.75: the weight of a neighbour at distance t."""
    t = abs(t)
    return 1.25 * t**3 - 2.25 * t**2 + 1 if t <= 1 else -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)


def enlarge(old, new):
    """The matrix (new, old) that makes `new` places of `old` ones."""
    matrix = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * old / new - 0.5  # where the middle of the new place lies among the old ones
        for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[i, min(max(j, 0), old - 1)] += curve(centre - j)  # beyond the edge, the edge again
    return matrix


# %%
M = enlarge(14, 24)  # (24, 14)
print("place 12 of 24 is", " ".join(f"{w:+.3f} * place {j + 1}" for j, w in enumerate(M[11]) if w))
assert np.allclose(M.sum(axis=1), 1)  # a mean: the weights of each new place add up to 1

positions = embeddings.position_embeddings.data  # (1, T, D)
old = positions[0, 1:].reshape(14, 14, 64)  # (14, 14, D)
new = np.einsum("yr,rcd->ycd", M, old)  # (24, 14, D)
new = np.einsum("xc,ycd->yxd", M, new)  # (24, 24, D)
by_hand = np.concatenate([positions[0, :1], new.reshape(576, 64)])  # (1 + 576, D)

library = interpolate_positions(embeddings.position_embeddings, (14, 14), (24, 24))
print("positions", positions.shape, "->", library.shape)
assert np.allclose(by_hand, library.data[0], atol=1e-5)
assert np.array_equal(library.data[0, 0], positions[0, 0])  # CLS's row, unchanged

# %% [markdown]
# In the model it is one switch, `interpolate_pos_encoding=True`. The photo need not even be a square.

# %%
by_hand = ops.concatenate(
    [embeddings.cls_token, embeddings.patch_embeddings(large, interpolate_pos_encoding=True)], axis=1
)  # (1, T, D)
by_model = embeddings(large, interpolate_pos_encoding=True)  # (1, T, D)
print("384 x 384 pixels:", by_model.shape)
assert by_model.shape == (1, 577, 64)
assert np.allclose(by_model.data, by_hand.data + library.data, atol=1e-5)

wide = images.pixel_values(photo, (160, 320))[None]  # (1, C, H, W)
print("160 x 320 pixels:", embeddings(wide, interpolate_pos_encoding=True).shape)
assert embeddings(wide, interpolate_pos_encoding=True).shape == (1, 1 + 10 * 20, 64)

# %% [markdown]
# Does it help? We take the model that learned left and right on 4 x 4 patches and show it larger pictures: 5 x 5 and
# up to 8 x 8. It is not trained again. Beside it, the lazy way: read the 16 rows one after the other, and begin anew
# when they are used up.


# %%
def lazy(model, side):
    """The model for side x side patches, its positions repeated in reading order."""
    bigger = vit.ViTForImageClassification(vit.ViTConfig.from_dict(model.config.to_dict(), image_size=4 * side))
    weights = model.state_dict()
    name = "vit.embeddings.position_embeddings"
    rows = np.resize(weights[name][0, 1:], (1, side * side, 32))  # again and again
    weights[name] = np.concatenate([weights[name][:, :1], rows], axis=1)  # (1, T, D)
    bigger.load_state_dict(weights)
    return bigger


def right_answers(model, side):
    pixels, labels = pairs(100, side, rng=2).batch(slice(None))
    with no_grad():
        return (model(pixels, interpolate_pos_encoding=True).logits.data.argmax(axis=1) == labels).mean()


# %%
sides = range(4, 9)
larger = {
    "interpolated": [right_answers(learnable, side) for side in sides],
    "read in order": [right_answers(lazy(learnable, side), side) for side in sides],
}
for name, answers in larger.items():
    print(f"{name:13}", *[f" {side} x {side}: {answer:.0%}" for side, answer in zip(sides, answers, strict=True)])
assert min(larger["interpolated"]) > 0.85
assert min(larger["interpolated"]) > max(larger["read in order"][1:]) + 0.1

# %%
wave = old[:, :, 33]  # one of the 64 numbers: a sine of the column
again = np.resize(wave, (24, 24))
shown = {"14 x 14": wave, "24 x 24, interpolated": new[:, :, 33], "24 x 24, read in order": again}

widths = {"width_ratios": [1, 1, 1, 1.7]}
figure, axes = plt.subplots(
    1, 4, figsize=(10, 3.3), dpi=100, layout="constrained", gridspec_kw=widths
)
figure.set_label("interpolation")
for ax, (title, number) in zip(axes, shown.items(), strict=False):
    ax.imshow(number, "RdBu_r", vmin=-1, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=10)
axes[0].set_ylabel("one number of the positions,\nred above 0, blue below")
for name, answers in larger.items():
    axes[3].plot(sides, answers, "o-", label=name)
axes[3].set(xlabel="patches a side; trained on 4", xticks=sides, ylim=(0, 1.03))
axes[3].set_title("right answers on larger pictures", fontsize=10)
axes[3].legend(fontsize=8, loc="lower left")
axes[3].grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## What you can say now
#
# - Attention sees a set. Shuffle the patches, and the contexts are shuffled; CLS does not change at all.
# - Positions are a table (1, T, D), added to the tokens. Without them left and right stay at 50%, and the loss at ln 2.
# - The Vision Transformer has no sine and no cosine: it learns its table. Fixed waves work as well.
# - Numbers 1 to N through a linear layer know "later" and not "which column".
# - Positions start near zero, so that patches are heard and the start is forgotten.
# - At another resolution the table is enlarged like a picture, and CLS's row stays.
#
# ## Exercises
#
# 1. **Exercise 04**, write the backward: `minivit exercise 04 --out DIR` writes its stub, with the forward pass of
#    adding positions, and `minivit check FILE` grades what you make of it.
# 2. Train the digits (`datasets.digits()`) with and without positions, once with patches of 2 x 2 pixels and once with
#    4 x 4. How much is lost? Why so little with the larger patches?
# 3. Write a task that can be learned without positions, though the pictures have several marks. Predict, then train.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=4](../explore.html#lesson=4)
