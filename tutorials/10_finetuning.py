# %% [markdown]
# # 10. Pretrain, then finetune
#
# The question: here are two pictures each of five digits that the model has never seen. Must it start from
# nothing?
#
# Builds: a body pretrained on the digits 0 to 4; a new head for 5 to 9, learned alone (linear probe), with
# the body (full finetuning), and against a model that starts from scratch; then a reader of small digits that
# is given larger ones.
#
# Teach: 30 minutes. Run: 25 seconds.
#
# Axes: B batch, C channels, H W pixels, P patch side, N patches, T = N + 1 tokens, D hidden size, K classes.

# %%
import dataclasses
import warnings

import matplotlib.pyplot as plt
import numpy as np

from minivit import datasets, images, training, vit
from minivit.autograd import no_grad
from minivit.recipes import recipe

plan = recipe("digits")

# %% [markdown]
# This lesson has its own pictures, the digits in the box; a photo given on the command line is not used.
#
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
# Six epochs, by the recipe of lesson 9. One thing is changed: the labels are hard. On ImageNet softened ones
# were found to press each kind into one point, so that what differs inside a kind, and may serve for other
# kinds, gets lost (Kornblith et al. 2021). Our digits are too few to show that.

# %%
config = vit.ViTConfig(**plan.model, image_size=8, num_channels=1, num_labels=40)
pretrained = vit.ViTForImageClassification(config, rng=0)
dataclasses.replace(plan, epochs=6, label_smoothing=0.0).fit(pretrained, many, rng=0)
accuracy = training.evaluate(pretrained, eight_ways(test.only(range(5)))).accuracy
print(f"which of 40 kinds? {accuracy:.1%} right in the exam; guessing would give {1 / 40:.1%}")
assert accuracy > 0.6

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
        fields, tensors, ignore_mismatched_sizes=True, id2label=dict(enumerate(new.class_names))
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
assert learned == 5 * 64 + 5

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
def start(way, seed):
    """A model for the five new digits."""
    config = vit.ViTConfig(**plan.model, image_size=8, num_channels=1, num_labels=5)
    model = vit.ViTForImageClassification(config, rng=100 + seed)
    if way != "from scratch":
        model.load_state_dict(body, strict=False)  # strict=False: the head is not among them
    if way == "linear probe":
        for parameter in model.vit.parameters():
            parameter.requires_grad = False
    return model


def race(model, few, steps, seed, lr=2e-3):
    """Accuracy in the exam after so many steps, each with all of the few pictures."""
    dataclasses.replace(plan, epochs=steps, batch_size=64, lr=lr).fit(model, few, rng=seed, verbose=False)
    return training.evaluate(model, exam).accuracy


# %% [markdown]
# 20 steps, with 1, 2, 5 and 10 pictures of each digit. Which pictures are drawn matters a lot when they are
# so few, so each race is run three times with other pictures, and the mean counts. 36 trainings: wait six
# seconds.

# %%
WAYS = {"full finetuning": 2e-3, "linear probe": 2e-2, "from scratch": 2e-3}  # and their learning rates
counts, draws = [1, 2, 5, 10], 3
results = {way: np.empty((draws, len(counts))) for way in WAYS}
for draw, place in np.ndindex(draws, len(counts)):
    few = new.few(counts[place], rng=draw)
    for way, lr in WAYS.items():
        results[way][draw, place] = race(start(way, draw), few, 20, draw, lr)
print("pictures of each digit", *(f"{count:6d}" for count in counts))
for way, accuracies in results.items():
    print(f"{way:22}", *(f"{accuracy:6.3f}" for accuracy in accuracies.mean(0)))

# %% [markdown]
# Full finetuning is first with any number of pictures: what the body saw in 0 to 4 helps to see 5 to 9. With
# up to five pictures of each, the probe is second. It learns 325 numbers, the model from scratch 102,341.
# With ten, the model from scratch has caught up.

# %%
full, probe, scratch = (accuracies.mean(0) for accuracies in results.values())  # (counts,) each
assert (full > scratch + 0.02).all() and full.mean() > scratch.mean() + 0.05
assert full.mean() > probe.mean() + 0.02
lead = probe - scratch
assert lead[:3].mean() > 0.01 and lead[3] < lead[1:3].mean()

# %% [markdown]
# ## Where pretraining does not help
#
# Give all three more time with the same five pictures of each digit: 40 steps, then 80.

# %%
budgets = [20, 40, 80]
longer = {way: [results[way][:2, counts.index(5)].mean()] for way in WAYS}  # the first two draws, 20 steps
for steps in budgets[1:]:
    for way, lr in WAYS.items():
        accuracies = [race(start(way, draw), new.few(5, rng=draw), steps, draw, lr) for draw in range(2)]
        longer[way].append(np.mean(accuracies))
print("steps                 ", *(f"{steps:6d}" for steps in budgets))
for way, accuracies in longer.items():
    print(f"{way:22}", *(f"{accuracy:6.3f}" for accuracy in accuracies))
lead = np.subtract(longer["full finetuning"], longer["from scratch"])
print("lead of the pretrained", *(f"{points:6.3f}" for points in lead))
assert lead[0] > 0.05 and lead[-1] < lead[0] - 0.03
probes_lead = np.subtract(longer["linear probe"], longer["from scratch"])
assert probes_lead[-1] < probes_lead[0] - 0.03

# %% [markdown]
# The lead melts, and the probe falls back. Three plain reasons.
#
# - Our digits are easy: 8 x 8 pixels, and augmentation tells the model most of what pretraining would. With
#   time, the model from scratch finds the rest in the 25 pictures. In photographs there is far more to find.
# - The probe cannot grow: what the frozen body does not tell apart, no matrix after it can.
# - What counts in pretraining is many *kinds*. Pretrained for as many steps on the five upright digits alone,
#   the same race (20 steps, five pictures of each) gives full finetuning 0.74, from scratch 0.74, linear
#   probe 0.59: nothing gained. To tell these five apart a body need not see what tells the other five apart.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.8), sharey=True, layout="constrained")
figure.set_label("race")
for (way, accuracies), color in zip(results.items(), ("tab:green", "tab:blue", "tab:orange"), strict=True):
    low, high = accuracies.min(0), accuracies.max(0)
    left.fill_between(counts, low, high, color=color, alpha=0.15, linewidth=0)
    left.plot(counts, accuracies.mean(0), "o-", color=color, label=way)
    right.plot(budgets, longer[way], "o-", color=color, label=way)
left.set(xscale="log", xlabel="pictures of each new digit", ylabel="accuracy", title="20 steps: pretraining leads")
left.set_xticks(counts, counts)
left.minorticks_off()
right.set(xlabel="steps", title="5 pictures of each: the lead melts")
right.set_xticks(budgets)
left.legend(title="mean; shaded: lowest to highest draw", loc="lower right")
for ax in (left, right):
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
small = plan.model | {"patch_size": 2, "num_hidden_layers": 2}
config = vit.ViTConfig(**small, image_size=8, num_channels=1, num_labels=10)
reader = vit.ViTForImageClassification(config, rng=0)
dataclasses.replace(plan, epochs=8, lr=3e-3).fit(reader, train, rng=0)
at_home = training.evaluate(reader, test).accuracy
print(f"8 x 8 pixels: {at_home:.3f}")
assert at_home > 0.85

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


sizes = [8, 10, 12, 14, 16]
mixed, naive = ([reads(size, interpolated) for size in sizes] for interpolated in (True, False))
for size, good, bad in zip(sizes, mixed, naive, strict=True):
    print(f"{size:2d} x {size:2d} pixels: interpolated {good:.3f}, naive {bad:.3f}")
assert mixed[0] == naive[0] == at_home
assert mixed[2] > 0.5 and max(naive[1:]) < 0.3

# %% [markdown]
# Positions that are wrong make it blind, no better than guessing; interpolated ones keep most of its sight.
# Not all: a patch now holds a smaller piece of a thicker stroke, which it has seldom seen. (Why 10 x 10 is
# the worst is left to you.) So one *finetunes* at the new size, and one epoch helps already. A model from
# scratch gets the same epoch.


# %%
def one_epoch(model, lr):
    dataclasses.replace(plan, epochs=1, lr=lr).fit(model, train.resized(12), rng=0)
    return training.evaluate(model, test.resized(12)).accuracy


config = vit.ViTConfig(**small, image_size=12, num_channels=1, num_labels=10)
finetuned = one_epoch(larger, 1.5e-3)
fresh = one_epoch(vit.ViTForImageClassification(config, rng=0), 3e-3)
print(f"12 x 12 pixels, one epoch: interpolated and finetuned {finetuned:.3f}, from scratch {fresh:.3f}")
assert finetuned > mixed[2] and finetuned > fresh + 0.2

# %%
figure, ax = plt.subplots(figsize=(10, 5), layout="constrained")
figure.set_label("larger_input")
ax.plot(sizes, mixed, "o-", color="tab:green", label="positions interpolated, nothing learned")
ax.plot(sizes, naive, "o-", color="0.5", label="rows used again, nothing learned")
ax.plot(12, finetuned, "*", color="tab:green", markersize=16, label="interpolated, then one epoch")
ax.plot(12, fresh, "*", color="tab:orange", markersize=16, label="from scratch, one epoch")
ax.set(xlabel="pixels a side", ylabel="accuracy", ylim=(0, 1), title="A model of 8 x 8 pixels reads larger digits")
ax.set_xticks(sizes)
ax.grid(alpha=0.3)
ax.legend()
plt.show()

# %% [markdown]
# ## What you can say now
#
# - Finetuning keeps the body and draws a new head, one linear map; at first it is learned gently, or alone.
# - A linear probe is one matrix on the final CLS tokens. It measures what the body already tells apart.
# - With few pictures and few steps: full finetuning, then the probe, then from scratch. With more steps the
#   lead melts, and where the pretraining knew few kinds there may be none.
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
# 2. Pretrain on `old` instead of `many` (48 epochs, num_labels=5) and run the race again. Who wins now?
# 3. Between the probe and full finetuning: freeze all but the last block and the head. Where does it land?
