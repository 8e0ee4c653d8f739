# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 9. Learning to read digits
#
# The question: a fresh model knows nothing. How does it learn, how do we know that it does, and what does it
# need?
#
# Builds: the training loop in a dozen lines, shown to be `training.fit`; then a Vision Transformer that reads
# handwritten digits, its curves, its confusion matrix, and every kind of mistake it makes.
#
# Teach: 40 minutes. Run: 45 seconds.
#
# Axes: B batch, C channels, H W pixels, P patch side, N patches, T = N + 1 tokens, D hidden size, K classes.

# %%
import dataclasses
import math

import matplotlib.pyplot as plt
import numpy as np

from minivit import datasets, images, lessons, ops, optim, plots, training, vit
from minivit.autograd import no_grad
from minivit.cli.recipes import recipe

photo = lessons.photo()  # it will have to wait until the end

# %% [markdown]
# ## The data
#
# 1797 digits, written by hand and scanned, 8 x 8 pixels each. They are in the box: nothing is downloaded. We
# learn from the first half. The second half is the exam: the model never learns from it.

# %%
train, test = datasets.digits()
pixel_values, labels = train.batch(np.arange(10))
print("train", len(train), "test", len(test))
print("a batch of ten:", pixel_values.shape, "values from", pixel_values.min(), "to", pixel_values.max())
assert (len(train), len(test)) == (898, 899)
assert pixel_values.shape == (10, 1, 8, 8)  # (B, C, H, W)

# %%
figure, axes = plt.subplots(2, 5, figsize=(10, 4.4), layout="constrained")
figure.set_label("digits")
for ax, pixels, label in zip(axes.ravel(), pixel_values, labels, strict=True):
    ax.imshow(images.to_image(pixels), cmap="gray", extent=(0, 8, 8, 0))
    ax.vlines(4, 0, 8, "deepskyblue")
    ax.hlines(4, 0, 8, "deepskyblue")
    ax.set(title=f"label {label}", xticks=[], yticks=[])
figure.suptitle("The first ten digits: 8 x 8 pixels, N = 4 patches of 4 x 4")
plt.show()

# %% [markdown]
# ## The model
#
# A small one: P = 4, so N = 4 patches and T = 5 tokens. `recipe("digits")` holds the sizes that `minivit
# train digits` uses.

# %%
plan = recipe("digits")
for name, value in plan.model.items():
    print(f"  {name:20} {value}")


def new_model(seed, **changes):
    config = vit.ViTConfig(**plan.model | changes, image_size=8, num_channels=1, num_labels=10)
    return vit.ViTForImageClassification(config, rng=seed)


print(f"{new_model(0).num_parameters():,} parameters for {len(train)} pictures")
assert new_model(0).vit.embeddings.patch_embeddings.num_patches == 4

# %% [markdown]
# ## Before the first step: which loss should we see?
#
# Say "I do not know": give each of the K = 10 digits the same share, 1/10. The loss is -ln(1/10) = ln 10 =
# 2.3026, whatever the label. A head of zeros says just that. So this number can be checked before anything is
# learned, and if yours is 7 or 0.3 on the first line, something is wrong: stop there and look.

# %%
pixel_values, labels = train.batch(np.arange(200))
model = new_model(0).eval()
model.classifier.weight.data[...] = 0
loss = model(pixel_values, labels=labels).loss.item()
print(f"head of zeros: loss {loss:.6f}, ln 10 = {math.log(10):.6f}")
assert abs(loss - math.log(10)) < 1e-6

# %% [markdown]
# Weights are not drawn as zeros, but *near* zero: the usual `initializer_range` is 0.02. Then the loss is
# near ln 10. Our recipe draws them from 0.15, because so small a model learns faster like that. Such a model
# starts with an opinion, and an opinion without knowledge costs something. How much? After the final norm the
# CLS token has length sqrt(D). So a logit is a random number of size s = 0.15 * sqrt(64) = 1.2, and for
# random logits of size s the loss is about ln K + s^2 / 2. (For few classes a little less.)


# %%
def first_losses(std):
    fresh = [new_model(seed, initializer_range=std).eval() for seed in range(20)]
    return np.array([model(pixel_values, labels=labels).loss.item() for model in fresh])


first = {std: first_losses(std) for std in (0.02, 0.15)}
for std, losses in first.items():
    rule = math.log(10) + (std * math.sqrt(64)) ** 2 / 2
    print(f"initializer_range {std}: loss {losses.mean():.3f} +- {losses.std():.3f} over 20 seeds, rule {rule:.3f}")
assert abs(first[0.02] - math.log(10)).max() < 0.1
assert math.log(10) + 0.3 < first[0.15].mean() < math.log(10) + 1.2**2 / 2 + 0.1

# %% [markdown]
# ## The loop
#
# All of learning is these lines. Take a batch. Forward: the loss. Backward: the gradient of every parameter.
# A step: each parameter moves a little against its gradient. Again.


# %%
def learn(model, data, epochs, batch_size=32, lr=2e-3, augment=None):
    """Train on `data` and return the loss of each step."""
    optimizer, rng, losses = optim.AdamW(model.parameters(), lr=lr), np.random.default_rng(0), []
    for _ in range(epochs):
        order = rng.permutation(len(data))
        for start in range(0, len(data), batch_size):
            pixel_values, labels = data.batch(order[start : start + batch_size])
            if augment:
                pixel_values = augment(pixel_values, rng)
            loss = model(pixel_values, labels=labels).loss
            model.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


# %% [markdown]
# ## One batch, learned by heart
#
# The second check, before any long training: 32 pictures, again and again. A model with 100,000 parameters
# must get the loss of 32 pictures to almost 0. If it does not, the loop is broken, and more data will not
# repair it.

# %%
one_batch = train.subset(np.arange(32))
model = new_model(0)
losses = learn(model, one_batch, epochs=60)
for step in range(0, 60, 10):
    print(f"step {step:2d}  loss {losses[step]:.4f}")
by_heart, exam = training.evaluate(model, one_batch), training.evaluate(model, test)
print(f"in the end {by_heart.loss:.4f}: {by_heart.accuracy:.0%} of the 32, but {exam.accuracy:.0%} of the exam")
assert by_heart.accuracy == 1 and by_heart.loss < 0.05
assert exam.accuracy < 0.85

# %% [markdown]
# All 32 right, the exam far from it. It has learned 32 pictures by heart. Remember this pair of numbers: it
# comes back.
#
# ## `training.fit` is this loop
#
# It adds measuring, saving and going on after Ctrl-C. The weights it ends with are ours, to the last bit.

# %%
some = train.subset(np.arange(96))
ours, theirs = new_model(1), new_model(1)
learn(ours, some, epochs=3)
training.fit(theirs, some, epochs=3, batch_size=32, optimizer=optim.AdamW(theirs.parameters(), lr=2e-3), rng=0)
for name, array in ours.state_dict().items():
    assert np.array_equal(array, theirs.state_dict()[name]), name
print("the same", len(ours.parameters()), "arrays, bit for bit")

# %% [markdown]
# ## Now in earnest
#
# The recipe adds what helps with 898 pictures: each picture is turned, shifted and slanted a little, anew
# each time (augmentation); the learning rate rises, then falls (warm-up, cosine); the labels are softened;
# and the weights are averaged over the last steps. We take 30 epochs instead of its 120; `minivit train digits` takes
# them all, and ends higher.

# %%
short = dataclasses.replace(plan, epochs=30)
reader = new_model(0)
history = short.fit(reader, train, test, rng=0)
final = training.evaluate(reader, test)
print(f"{final.accuracy:.4f} of the exam")
assert history[-1]["test_accuracy"] == final.accuracy > 0.93

# %% [markdown]
# ## Reading the curves
#
# Two surprises. For most of the way the model is *worse* on what it learns from than on the exam: training
# pictures are bent by the augmentation, and dropout takes part of the model away; the exam has neither, and
# it is taken with the averaged weights. And the training loss does not go to 0: the labels are softened, so
# that being quite sure costs something too. The exam's labels are not; its loss may go lower, and does.

# %%
figure = plots.training_curves(history)
figure.set_label("curves")
plt.show()
worse = [row["train_accuracy"] < row["test_accuracy"] for row in history]
print(f"worse in training than on the exam: {sum(worse)} of {len(worse)} epochs")
assert all(worse[:10])
softened = -(0.91 * math.log(0.91) + 9 * 0.01 * math.log(0.01))
ends = history[-1]
print(f"labels softened by 0.1: no training loss below {softened:.3f}; ours ends at {ends['train_loss']:.3f}", end=", ")
print(f"the exam's at {ends['test_loss']:.3f}")
assert ends["train_loss"] > softened > ends["test_loss"]

# %% [markdown]
# ## What is taken for what
#
# One number hides much. A row of the confusion matrix is what was written, a column what was read. The
# diagonal is right. Look for the largest number beside it.

# %%
figure = plots.confusion(final.confusion, test.class_names)
figure.set_label("confusion")
plt.show()
beside = final.confusion * (1 - np.eye(10, dtype=int))  # (K, K)
label, read = np.unravel_index(beside.argmax(), beside.shape)
found = np.diag(final.confusion) / final.confusion.sum(1)  # (K,)
print(f"the largest: {label} read as {read}, {beside.max()} times")
print(f"hardest: {found.argmin()}, {found.min():.0%} found; easiest: {found.argmax()}, {found.max():.0%} found")
assert np.trace(final.confusion) + beside.sum() == len(test)

# %% [markdown]
# ## The mistakes
#
# Look at them, always. Here are those of which the model was most sure. Some you would have got wrong, too.

# %%
pixel_values, labels = test.batch(slice(None))
with no_grad():
    p = ops.softmax(reader(pixel_values).logits).data  # (899, K)
wrong = np.flatnonzero(final.predictions != labels)
wrong = wrong[np.argsort(-p[wrong].max(1))][:18]
sure = p.max(1)
right = final.predictions == labels
print(f"how sure it is, on average: {sure[right].mean():.2f} where it is right, {sure[~right].mean():.2f} where not")
assert sure[right].mean() > sure[~right].mean()

# %%
figure, axes = plt.subplots(3, 6, figsize=(10, 5.8), layout="constrained")
figure.set_label("mistakes")
for ax in axes.ravel():
    ax.set_axis_off()
for ax, i in zip(axes.ravel(), wrong, strict=False):
    ax.imshow(images.to_image(pixel_values[i]), cmap="gray")
    ax.set_title(f"{labels[i]}, read as {final.predictions[i]} ({p[i].max():.2f})", fontsize=10)
figure.suptitle("The surest mistakes: what was written, what was read, how sure")
plt.show()

# %% [markdown]
# ## Why is accuracy low from scratch on little data?
#
# Everybody who trains a Vision Transformer on a folder of photos asks this. Let us measure it. We learn from
# 1, 3, 10 and 30 pictures of each digit: the recipe, 200 steps, once without augmentation and once with.
# Beside it a method that learns nothing, nearest neighbour: find the training picture whose pixels are most
# like these, and say its label.


# %%
def nearest_neighbour(few):
    x, y = few.batch(slice(None))
    x, q = x.reshape(len(x), -1), pixel_values.reshape(len(pixel_values), -1)  # (n, HW), (899, HW)
    distance = (x**2).sum(1) - 2 * q @ x.T  # (899, n): |q - x|^2, less |q|^2, which is the same for all x
    return (y[distance.argmin(1)] == labels).mean()


def from_scratch(few, affine):
    model = new_model(0)
    epochs = 200 // math.ceil(len(few) / plan.batch_size)
    dataclasses.replace(plan, epochs=epochs, affine=affine).fit(model, few, rng=0, verbose=False)
    return [training.evaluate(model, data).accuracy for data in (few, test)]


# %%
counts = np.array([1, 3, 10, 30])
known, plain, augmented, nearest = [], [], [], []
for count in counts:
    few = train.few(count, rng=0)
    by_heart, exam = from_scratch(few, affine={})
    known.append(by_heart)
    plain.append(exam)
    augmented.append(from_scratch(few, plan.affine)[1])
    nearest.append(nearest_neighbour(few))
print("of each digit  its own pictures  the exam  augmented  nearest neighbour")
for row in zip(counts, known, plain, augmented, nearest, strict=True):
    print("{:13d}  {:16.1%}  {:8.1%}  {:9.1%}  {:17.1%}".format(*row))

# %% [markdown]
# Read the table from the left.
#
# - Its own pictures: all right, however few. The model is not too small, and the training did not fail.
# - The exam: far lower, and it rises with the number of pictures. It is learning by heart, as with the one
#   batch.
# - Nearest neighbour has the same pictures and does better. So the pictures are not to blame: it is the model
#   that makes too little of them.
# - Augmentation closes much of the gap where pictures are few, without one new picture. It *tells* the model
#   that a digit shifted by half a pixel is still the same digit. A convolution knows something like that from
#   the start.

# %%
known, plain, augmented, nearest = map(np.array, (known, plain, augmented, nearest))
assert known.min() > 0.97
assert (np.diff(plain) > 0).all()
assert (nearest - plain).mean() > 0.02 and (augmented - plain).mean() > 0.02
everything = nearest_neighbour(train)
print(f"with all {len(train)} pictures: our reader {final.accuracy:.4f}, nearest neighbour {everything:.4f}")
assert abs(final.accuracy - everything) < 0.03  # about level

# %%
figure, ax = plt.subplots(figsize=(10, 5.5), layout="constrained")
figure.set_label("little_data")
ends = np.append(counts, len(train) / 10)
ax.plot(ends, [*nearest, everything], "s--", color="0.5", label="nearest neighbour: nothing is learned")
ax.plot(ends, [*augmented, final.accuracy], "o-", color="tab:green", label="ViT, augmented (all: 30 epochs)")
ax.plot(counts, plain, "o-", color="tab:orange", label="ViT")
ax.plot(counts, known, ":", color="tab:orange", label="ViT, on the pictures it learned from")
ax.set_xscale("log", base=10)
ax.set_xticks(ends, [*map(str, counts), "all"])
ax.minorticks_off()
ax.set(xlabel="training pictures of each digit", ylabel="accuracy", title="From scratch, little data is not enough")
ax.grid(alpha=0.3)
ax.legend()
plt.show()

# %% [markdown]
# ## What it does not know
#
# Here is the deeper reason, and it can be proved. Shuffle the four patches of every digit, always in the same
# way. To us that is no digit any more. To a *fresh* Vision Transformer it is the same task: give its
# positions, which are random anyhow, the same shuffle, and all logits are equal. That patches side by side
# belong together is not built in, as it is in a convolution. It must be learned, from pictures. More of them
# (the paper took 300 million), bent ones (augmentation), or other people's: that is the next lesson,
# finetuning.

# %%
order = np.array([2, 0, 3, 1])
B = len(pixel_values)
grid = pixel_values.reshape(B, 2, 4, 2, 4).transpose(0, 1, 3, 2, 4).reshape(B, 4, 4, 4)  # (B, N, P, P)
shuffled = grid[:, order].reshape(B, 2, 2, 4, 4).transpose(0, 1, 3, 2, 4).reshape(B, 1, 8, 8)  # (B, C, H, W)
fresh, twin = new_model(0).eval(), new_model(0).eval()
positions = fresh.vit.embeddings.position_embeddings.data  # (1, T, D)
twin.vit.embeddings.position_embeddings.data[:, 1:] = positions[:, 1:][:, order]
difference = abs(fresh(pixel_values).logits.data - twin(shuffled).logits.data).max()
print(f"largest difference of {B} x 10 logits: {difference:.1e}")
assert difference < 1e-4 and not np.array_equal(shuffled, pixel_values)

# %% [markdown]
# ## And the photo?
#
# Make it grey and 8 x 8 pixels, and ask our reader which digit it is. It will answer. Its ten shares add up
# to 1, and "none of these" is not among them. A classifier knows its classes and nothing else; that it is
# sure means little.

# %%
small = images.pixel_values(np.asarray(images.open_image(photo).convert("L")), size=8)[None]  # (B, C, H, W), B = 1
with no_grad():
    p = ops.softmax(reader(small).logits).data[0]  # (K,)
for digit in np.argsort(-p)[:3]:
    print(f"the photo is a {digit}: {p[digit]:.2f}")
assert abs(p.sum() - 1) < 1e-5

# %%
figure, (whole, given, answer) = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
figure.set_label("photo")
whole.imshow(images.open_image(photo))
whole.set_title("the photo")
given.imshow(images.to_image(small[0]), cmap="gray", vmin=0, vmax=255)
given.set_title("what the reader gets")
for ax in (whole, given):
    ax.set(xticks=[], yticks=[])
answer.bar(range(10), p, color="tab:green")
answer.set(xticks=range(10), ylim=(0, 1), xlabel="digit", ylabel="share", title="what it says")
plt.show()

# %% [markdown]
# ## What you can say now
#
# - Before training the loss of K classes is about ln K, and I check that before I wait for anything.
# - A model that cannot learn one batch by heart has a fault in its code, not too little data.
# - Training is four lines: loss, zero_grad, backward, step. The rest of `fit` is bookkeeping.
# - With augmentation, dropout and softened labels the training curve may well look worse than the test curve.
# - From scratch on little data a ViT learns by heart: that neighbouring patches belong together is not built
#   in. Augmentation tells it a part of that; pretraining is the other way.
#
# ## Exercises
#
# 1. Exercise 09, write the backward: softmax and cross-entropy in one, the op that every step above began
#    with. `minivit exercise 09 --out DIR` writes its stub, `minivit check FILE` grades it.
# 2. Leave out `model.zero_grad()` in `learn`. What happens to the 32 pictures, and why? Then put it back and
#    take lr=0.2 instead: how does *that* failure look?
# 3. Train `reader` on shuffled digits (make a `datasets.Dataset` of them, without augmentation). Is the
#    accuracy lower than with digits that are whole, without augmentation? And *with* augmentation after the
#    shuffle?
#
# In the explorer, a page that `minivit explore --model digits --out digits.html` writes:
# [digits.html#lesson=9](../digits.html#lesson=9)
