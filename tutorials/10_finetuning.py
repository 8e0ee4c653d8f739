# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 10. Pretrain, then finetune
#
# The question: here are two pictures each of five digits that the model has never seen. Must it start from
# nothing?
#
# Builds: a body pretrained on the digits 0 to 4; a new head for 5 to 9, learned alone (linear probe), with
# the body (full finetuning), and against a model that starts from scratch; a body pretrained on your photo
# alone; then a reader of small digits that is given larger ones.
#
# Teach: 30 minutes. Run: 25 seconds.
#
# Axes: B batch, C channels, H W pixels, P patch side, N patches, T = N + 1 tokens, D hidden size, K classes.

# %%
import dataclasses
import warnings

import matplotlib.pyplot as plt
import numpy as np

from minivit import datasets, images, lessons, training, vit
from minivit.autograd import no_grad
from minivit.cli.recipes import recipe

photo = lessons.photo()
plan = recipe("digits")
sizes = plan.model | {"num_hidden_layers": 2}  # a layer less than in lesson 9: there will be many trainings

# %% [markdown]
# ## Two halves of the digits
#
# Lesson 9 ended with a complaint: from scratch, on few pictures, a Vision Transformer learns by heart. So let
# it learn to see on *other* pictures first. The digits 0 to 4 are for that. Of 5 to 9 we shall use a handful.

# %%
train, test = datasets.digits()
old, new, exam = train.only(range(5)), train.only(range(5, 10)), test.only(range(5, 10))
print("pretraining:", len(old), "pictures of", old.class_names)
print("finetuning: a few of the", len(new), "pictures of", new.class_names, "and an exam of", len(exam))
assert not set(old.class_names) & set(new.class_names)

# %% [markdown]
# ## Many kinds
#
# Five kinds of pictures teach five differences, and no more. ImageNet has 1000 or 21,000. We have no more
# digits, but we can turn them by quarters and hold them to a mirror, and call each of that another kind: 5 x
# 8 = 40 of them. (A 0 turned around is still a 0. Such kinds cannot be told apart, and it does not matter:
# nobody will use this head.)


# %%
def eight_ways(data):
    """Each picture turned by 0, 90, 180 and 270 degrees, and the mirror image of each: 8 times as many classes."""
    turned = [np.rot90(data.images, quarters, (2, 3)) for quarters in range(4)]  # (n, C, H, W) each
    turned += [pictures[..., ::-1] for pictures in turned]
    K = len(data.class_names)
    labels = [data.labels + K * way for way in range(8)]
    return datasets.Dataset(np.concatenate(turned), np.concatenate(labels), range(8 * K))


many = eight_ways(old)
print(len(many), "pictures of", len(many.class_names), "kinds")
assert len(many) == 8 * len(old) and len(many.class_names) == 40

# %%
four = np.flatnonzero(old.labels == 4)[0]
figure, axes = plt.subplots(2, 4, figsize=(10, 5.4), layout="constrained")
figure.set_label("eight_ways")
for way, ax in enumerate(axes.ravel()):
    pixel_values, labels = many.batch([way * len(old) + four])
    ax.imshow(images.to_image(pixel_values[0]), cmap="gray")
    ax.set(title=f"kind {labels[0]}", xticks=[], yticks=[])
figure.suptitle("One 4, turned by quarters, and in the mirror: eight kinds")
plt.show()

# %% [markdown]
# ## Pretraining
#
# Five epochs, by the recipe of lesson 9, with two changes. The batches are large: 128 pictures, and a higher
# learning rate with them. And the labels are hard. On ImageNet, softened ones were found to press each kind
# together, so that what differs inside a kind, and may serve for other kinds, gets lost (Kornblith et al.
# 2021). Our digits are too few to show that.


# %%
def pretrain(data, epochs):
    """A model that learned which of `data`'s kinds a picture is."""
    config = vit.ViTConfig(**sizes, image_size=8, num_channels=1, num_labels=len(data.class_names))
    model = vit.ViTForImageClassification(config, rng=0)
    changed = dataclasses.replace(plan, epochs=epochs, batch_size=128, lr=5e-3, label_smoothing=0.0)
    changed.fit(model, data, rng=0)
    return model


pretrained = pretrain(many, epochs=5)
accuracy = training.evaluate(pretrained, eight_ways(test.only(range(5)))).accuracy
print(f"which of 40 kinds? {accuracy:.1%} right in the exam; guessing would give {1 / 40:.1%}")
assert accuracy > 0.5

# %% [markdown]
# ## A new head
#
# The body stays: it turns a picture into D = 64 numbers, the final CLS token. The head goes: its 40 rows
# speak of kinds that are no longer asked for. `from_tensors` builds the model anew, keeps what fits, draws a
# head, and warns.

# %%
fields, tensors = pretrained.fields(), pretrained.state_dict()
with warnings.catch_warnings(record=True) as notes:
    warnings.simplefilter("always")
    model = vit.ViTForImageClassification.from_tensors(
        fields, tensors, ignore_mismatched_sizes=True, rng=0, id2label=dict(enumerate(new.class_names))
    )
print(notes[0].message)
print("head before", tensors["classifier.weight"].shape, "and after", model.classifier.weight.shape)
body = {name: array for name, array in tensors.items() if name.startswith("vit.")}
assert model.classifier.weight.shape == (5, 64)  # (K, D)
assert all(np.array_equal(model.state_dict()[name], array) for name, array in body.items())

# %% [markdown]
# ## Linear probe, full finetuning
#
# Shall the body learn, too? If not, we *freeze* it: its parameters require no gradient. Only the head learns,
# 5 * 64 weights and 5 biases. That is a linear probe: it asks whether the new kinds are already apart in what
# the body sees.

# %%
few = new.few(2, rng=0)
pixel_values, labels = few.batch(slice(None))
for parameter in model.vit.parameters():
    parameter.requires_grad = False
model(pixel_values, labels=labels).loss.backward()
learned = sum(parameter.size for parameter in model.parameters() if parameter.grad is not None)
print(f"frozen: {learned} of {model.num_parameters():,} numbers learn, from {len(few)} pictures")
assert learned == 5 * 64 + 5 and model.num_parameters() == 68_869

# %% [markdown]
# Nothing more is behind it. With the body frozen, its CLS tokens are fixed numbers, and the whole Vision
# Transformer is one matrix after them. Here it is in the open.

# %%
with no_grad():
    cls = model.vit(pixel_values).last_hidden_state.data[:, 0]  # (B, D)
logits = cls @ model.classifier.weight.data.T + model.classifier.bias.data  # (B, K)
assert np.allclose(logits, model(pixel_values).logits.data, atol=1e-5)
y = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)  # (B, K)
dlogits = (y - np.eye(5)[labels]) / len(labels)  # (B, K)
assert np.allclose(dlogits.T @ cls, model.classifier.weight.grad, atol=1e-5)
print("the head's gradient by hand: (softmax - target).T @ cls / B, shape", (dlogits.T @ cls).shape)

# %% [markdown]
# ## The race
#
# Three models learn the same pictures, the same number of steps, with the same augmentation:
#
# - **from scratch**: everything is drawn at random, everything learns;
# - **linear probe**: the pretrained body, frozen; the head alone learns (at ten times the learning rate, which
#   a single matrix bears);
# - **full finetuning**: the pretrained body, and everything learns.


# %%
def start(body, frozen, seed):
    """A model for the five new digits; body: the arrays of a pretrained one, or None."""
    config = vit.ViTConfig(**sizes, image_size=8, num_channels=1, num_labels=5)
    model = vit.ViTForImageClassification(config, rng=100 + seed)
    if body:
        model.load_state_dict(body, strict=False)  # strict=False: the head is not among them
    for parameter in model.vit.parameters():
        parameter.requires_grad = not frozen
    return model


counts, draws = [2, 5, 10], 4


def race(body, frozen=False, lr=2e-3):
    """Accuracy in the exam (draws, counts), each time after 20 steps with all of the few pictures."""
    accuracy = np.empty((draws, len(counts)))
    for draw, place in np.ndindex(accuracy.shape):
        model, few = start(body, frozen, draw), new.few(counts[place], rng=draw)
        dataclasses.replace(plan, epochs=20, batch_size=64, lr=lr).fit(model, few, rng=draw, verbose=False)
        accuracy[draw, place] = training.evaluate(model, exam).accuracy
    return accuracy


# %% [markdown]
# With 2, 5 and 10 pictures of each digit. Which pictures are drawn matters a lot when they are so few, so
# each race is run four times with other pictures, and the mean counts. 36 trainings: wait some seconds.

# %%
results = {
    "full finetuning": race(body),
    "linear probe": race(body, frozen=True, lr=2e-2),
    "from scratch": race(None),
}
print("pictures of each digit", *(f"{count:6d}" for count in counts))
for way, accuracies in results.items():
    print(f"{way:22}", *(f"{accuracy:6.3f}" for accuracy in accuracies.mean(0)))
full, probe, scratch = (accuracies.mean(0) for accuracies in results.values())  # (counts,) each
assert full.mean() > scratch.mean() + 0.01 and full.mean() > probe.mean() + 0.01
assert abs(probe.mean() - scratch.mean()) < 0.1

# %% [markdown]
# Full finetuning is first: what the body saw in 0 to 4 helps to see 5 to 9. The probe learns 325 numbers
# where the model from scratch learns 68,869, and yet the two come out close together. But the probe cannot
# grow: what the frozen body does not tell apart, no matrix after it can.
#
# The lead is not large. Our digits are easy, and augmentation tells a model much of what pretraining would. In
# photographs there is far more to find.
#
# ## Must it be digits?
#
# The body was pretrained on digits, and learns new digits sooner. Is it *digits* that it knows now, or something
# more general: up and down, left and right, edges? Pretrain one on pictures that hold no digit at all, and
# see. Twenty pieces of your photo will do: grey, 8 x 8 pixels, stretched from black to white as the digits
# are. Each piece in eight ways: 160 kinds. Nobody had to label them: which piece it is and how it was turned
# is known to whoever cut it. Learning from such labels is called *self-supervised*.


# %%
def pieces(photo, n, rng):
    """n squares of a photo, a quarter to a half of its shorter side: (n, 1, 8, 8) uint8, and (left, top, side) each."""
    grey = np.asarray(images.open_image(photo).convert("L"))  # (H, W)
    (H, W), short = grey.shape, min(grey.shape)
    cut, squares = [], []
    for side in rng.integers(max(short // 4, 1), max(short // 2, 1), n, endpoint=True):
        top, left = rng.integers(0, (H - side + 1, W - side + 1))
        piece = images.pixel_values(grey[top : top + side, left : left + side], size=8)  # (1, 8, 8)
        piece = piece - piece.min()
        cut.append(np.rint(255 * piece / max(piece.max(), 1 / 255)))  # black to white
        squares.append((left, top, side))
    return np.array(cut, np.uint8), squares


cut, squares = pieces(photo, 20, np.random.default_rng(0))
each = len(old) // len(cut)  # copies; augmentation makes each of them different
own = datasets.Dataset(np.repeat(cut, each, axis=0), np.repeat(np.arange(len(cut)), each), range(len(cut)))
own = eight_ways(own)
print(len(own), "pictures of", len(own.class_names), "kinds, all from", len(cut), "pieces of one photo")
assert cut.shape == (20, 1, 8, 8) and len(own.class_names) == 8 * 20
assert len(own) <= len(many)  # no more pictures than there were of digits

# %%
figure = plt.figure(figsize=(10, 5), layout="constrained")
figure.set_label("pieces_of_the_photo")
left, right = figure.subfigures(1, 2)
ax = left.subplots()
ax.imshow(images.open_image(photo))
for x, y, side in squares:
    for width, color in ((2.5, "black"), (1, "white")):  # two lines, so that one of them is seen on any photo
        ax.add_patch(plt.Rectangle((x - 0.5, y - 0.5), side, side, fill=False, color=color, linewidth=width))
ax.set(title="The photo, and twenty squares", xticks=[], yticks=[])
for piece, ax in zip(cut, right.subplots(4, 5).ravel(), strict=True):
    ax.imshow(piece[0], "gray", vmin=0, vmax=255, extent=(0, 8, 8, 0))
    ax.vlines(4, 0, 8, "deepskyblue", linewidth=0.8)
    ax.hlines(4, 0, 8, "deepskyblue", linewidth=0.8)
    ax.set(xticks=[], yticks=[])
right.suptitle("The pieces: 8 x 8 pixels, 4 patches", fontsize="large")
plt.show()

# %%
seen = pretrain(own, epochs=5)
photo_body = {name: array for name, array in seen.state_dict().items() if name.startswith("vit.")}
results["full finetuning, pretrained on the photo"] = race(photo_body)
for way, accuracies in results.items():
    print(f"{way:41}", *(f"{accuracy:6.3f}" for accuracy in accuracies.mean(0)))
assert photo_body.keys() == body.keys()  # the same body, other numbers in it

# %% [markdown]
# What did *your* photo do? With the cat, such a body was ahead of from scratch with each seed that we tried, by at
# least a quarter of the lead that the digits gave, and once, with this seed, by a little more than all of it. Yet it
# has never seen a digit. So a good part of what is carried over is not "digits". It is more general: which patch lies
# beside which, where an edge runs.
# That fits what was found in convolutional networks: one photo, augmented strongly, is enough to learn their
# first layers (Asano, Rupprecht and Vedaldi 2020).
#
# And a photo in which nothing is to be seen? Then its kinds cannot be told apart, the labels are noise, and
# the body is *worse* than a fresh one. Pretraining is no magic: try a photo of one colour.

# %%
figure, ax = plt.subplots(figsize=(10, 5.2), layout="constrained")
figure.set_label("race")
colors = ("tab:green", "tab:blue", "tab:orange", "tab:purple")
for (way, accuracies), color in zip(results.items(), colors, strict=True):
    if color != "tab:purple":
        ax.fill_between(counts, accuracies.min(0), accuracies.max(0), color=color, alpha=0.13, linewidth=0)
    ax.plot(counts, accuracies.mean(0), "o--" if color == "tab:purple" else "o-", color=color, label=way)
ax.set(xscale="log", xlabel="pictures of each new digit", ylabel="accuracy", title="After 20 steps")
ax.set_xticks(counts, counts)
ax.minorticks_off()
ax.legend(title="mean; shaded, but for the photo's: lowest to highest draw")
ax.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## A larger input
#
# One habit of finetuning is left: take larger pictures than in pretraining. P stays, so there are more
# patches, and the trouble is with the positions: the model has learned one row for each patch of the old
# grid. Which row for a patch of the new one? Those of the old grid that lie around it, mixed: *bicubic
# interpolation*.
#
# For this we need a grid to speak of. Here is a smaller reader with P = 2: 4 x 4 patches, 16 positions and
# CLS.

# %%
small = sizes | {"patch_size": 2, "hidden_dropout_prob": 0.0}
config = vit.ViTConfig(**small, image_size=8, num_channels=1, num_labels=10)
reader = vit.ViTForImageClassification(config, rng=0)
dataclasses.replace(plan, epochs=5, lr=5e-3).fit(reader, train, rng=0)
test = test.subset(np.arange(300))  # enough for what follows
at_home = training.evaluate(reader, test).accuracy
print(f"8 x 8 pixels: {at_home:.3f}")
assert at_home > 0.75

# %% [markdown]
# Now 12 x 12 pixels: 6 x 6 patches. `from_tensors` with another `image_size` interpolates once and for all;
# `interpolate_pos_encoding=True` does the same for one call. CLS has no place in the picture: its row stays.

# %%
larger = vit.ViTForImageClassification.from_tensors(reader.fields(), reader.state_dict(), image_size=12)
before, after = (m.vit.embeddings.position_embeddings.data for m in (reader, larger))
print("positions", before.shape, "->", after.shape)
pixel_values, labels = test.resized(12).batch(np.arange(50))
on_the_fly = reader.eval()(pixel_values, interpolate_pos_encoding=True).logits.data
assert np.allclose(on_the_fly, larger(pixel_values).logits.data, atol=1e-4)
assert after.shape == (1, 1 + 6 * 6, 64) and np.array_equal(before[:, 0], after[:, 0])

# %% [markdown]
# Without one step of learning, how well does it read larger digits? Against it, the naive way: patch 17 takes
# the row of patch 1 again, patch 18 that of patch 2. The weights are the same; only the positions are wrong.


# %%
def reads(size, interpolated):
    model = vit.ViTForImageClassification.from_tensors(reader.fields(), reader.state_dict(), image_size=size)
    positions = model.vit.embeddings.position_embeddings.data  # (1, T, D)
    if not interpolated:
        again = np.arange(positions.shape[1] - 1) % 16
        positions[:, 1:] = before[:, 1:][:, again]
    return training.evaluate(model, test.resized(size)).accuracy


sides = [8, 10, 12, 16]
mixed, naive = ([reads(size, interpolated) for size in sides] for interpolated in (True, False))
for size, good, bad in zip(sides, mixed, naive, strict=True):
    print(f"{size:2d} x {size:2d} pixels: interpolated {good:.3f}, naive {bad:.3f}")
assert mixed[0] == naive[0] == at_home
assert mixed[2] > 0.6 and max(naive[1:]) < 0.3 and mixed[1] < mixed[2]

# %% [markdown]
# Positions that are wrong make it blind, no better than guessing; interpolated ones keep most of its sight.
# Not all: a patch now holds a smaller piece of a thicker stroke, which it has seldom seen. And that is not all
# of it, or 10 x 10 would lose less than 12 x 12: it loses more, with each seed that we tried. So do not guess,
# measure; and *finetune* at the new size, gently. One epoch helps already.

# %%
dataclasses.replace(plan, epochs=1, lr=1.5e-3).fit(larger, train.resized(12), rng=0)
finetuned = training.evaluate(larger, test.resized(12)).accuracy
print(f"12 x 12 pixels: interpolated {mixed[2]:.3f}, and after one epoch {finetuned:.3f}")
assert finetuned > mixed[2]

# %%
figure, ax = plt.subplots(figsize=(10, 5), layout="constrained")
figure.set_label("larger_input")
ax.plot(sides, mixed, "o-", color="tab:green", label="positions interpolated, nothing learned")
ax.plot(sides, naive, "o-", color="0.5", label="rows used again, nothing learned")
ax.plot(12, finetuned, "*", color="tab:green", markersize=16, label="interpolated, then one epoch")
ax.set(xlabel="pixels a side", ylabel="accuracy", ylim=(0, 1), title="A model of 8 x 8 pixels reads larger digits")
ax.set_xticks(sides)
ax.grid(alpha=0.3)
ax.legend()
plt.show()

# %% [markdown]
# ## What you can say now
#
# - Finetuning keeps the body and draws a new head, one linear map; at first it is learned gently, or alone.
# - A linear probe is one matrix on the final CLS tokens. It measures what the body already tells apart.
# - With few pictures and few steps, full finetuning is ahead of the probe and of from scratch.
# - What is carried over is general. A body can get a part of it without labels, from the pieces of one photo.
# - At another resolution P stays, N grows, and the positions are interpolated, CLS's row apart; then one
#   finetunes.
#
# On the command line: `minivit finetune runs/digits DATA --out DIR`, with `--freeze` for the probe and
# `--image-size` for a larger input.
#
# ## Exercises
#
# 1. Exercise 10, write the backward: positions on another grid, an interpolation as two matrix products.
#    `minivit exercise 10 --out DIR` writes its stub, `minivit check FILE` grades it.
# 2. Does what counts lie in the many kinds? Pretrain on `old` instead of `many`, 5 kinds and as many steps
#    (`pretrain(old, epochs=36)`), and run the race again. Who wins now?
# 3. Give the race 80 steps instead of 20. What becomes of the lead?
# 4. Between the probe and full finetuning: freeze all but the last block and the head. Where does it land?
#
# In the explorer, a page that `minivit explore --model digits --out digits.html` writes:
# [digits.html#lesson=10](../digits.html#lesson=10)
