# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 11. What it learned
#
# The question: a trained model gives the right answer. What did it look at, and how would we know?
#
# Builds: six looks into one small model that reads digits, and beside it a trained eye on the photo. Attention
# rollout, right and wrong; how far each head looks; what the positions became; the answer layer by layer; what
# is missed when a patch is hidden; and what each head is worth.
#
# Teach: 40 minutes. Run: 7 seconds.
#
# Axes: B batch, C channels, H W pixels, P patch side, N patches, T = N + 1 tokens with CLS first, h heads, L
# layers, K classes; q k tokens that ask and that are asked.

# %%
import dataclasses

import matplotlib.pyplot as plt
import numpy as np

from minivit import Tensor, datasets, images, lens, lessons, no_grad, ops, plots, training, vit, weights
from minivit.cli.recipes import recipe

photo = lessons.photo()

# %% [markdown]
# ## First, a model that has learned nothing
#
# A Vision Transformer, fresh from the random numbers, looks at the photo. Its shape is that of the trained one
# that will stand beside it. We draw what CLS attends to in the last block, the mean of its heads.

# %%
eye = weights.dinov2_small()
blank = vit.ViTModel(eye.config, add_pooling_layer=False, rng=0).eval()
picture = images.fit_patches(photo, 14, patches=384)  # at its own ratio, cut to whole patches
photo_grid = picture.height // 14, picture.width // 14
pixels = images.pixel_values(picture, picture.size[::-1], **images.IMAGENET)  # (C, H, W)
looked, rows = {}, {}
for name, network in (("untrained", blank), ("trained", eye)):
    with no_grad():
        output = network(pixels[None], output_attentions=True, interpolate_pos_encoding=True)
    looked[name] = output.attentions
    rows[name] = row = output.attentions[-1].data[0, :, 0].mean(0)  # (T,): CLS asks
    print(f"{name:>9}: shares of CLS from {row.min() * len(row):.2f} to {row.max() * len(row):.1f} of an even share")
assert rows["untrained"].min() * len(row) > 0.5 and rows["untrained"].max() * len(row) < 2

# %%
figure = plots.attention_over_photo(picture, rows["untrained"], photo_grid, query=0)
figure.suptitle("Untrained: read the numbers, not only the colours")
figure.set_label("untrained")
plt.show()

# %% [markdown]
# It looks like something! Perhaps even like the photo: patches that look alike get like shares, whatever the
# weights. But read the colour bar. All shares are nearly even. The colours run from the smallest share to the
# largest (the top hundredth has one colour), however close the two are. So here is the first rule of this
# lesson: every map is compared with the map of a model that knows nothing, on one scale.
#
# Now beside it DINOv2's smallest, which learned from photos without labels (lesson 13). How far from even is a
# map? We count the share that one would have to move to make it even.

# %%
moved = {name: abs(row - 1 / len(row)).sum() / 2 for name, row in rows.items()}
print(*(f"{name} {share:.2f}" for name, share in moved.items()))
assert moved["trained"] > 2 * moved["untrained"]
figure = plots.attention_over_photo(picture, np.stack([*rows.values()]), photo_grid, 0, [*rows])
figure.suptitle("One scale for both")
figure.set_label("trained")
plt.show()

# %% [markdown]
# ## Now one that we train ourselves
#
# Digits, 8 x 8 pixels. With P = 2 there are 16 patches, so there is something to look at. We start the
# positions at zero: whatever we find in them later was learned, not drawn. The model is small, and to be
# quick we leave out all that makes lesson 9's reader better: augmentation, dropout, soft labels. Four epochs.

# %%
train, test = datasets.digits()
plan = dataclasses.replace(recipe("digits"), epochs=4, lr=0.01, decay=0.97, affine={}, label_smoothing=0.0)
sizes = {"patch_size": 2, "hidden_size": 40, "num_attention_heads": 4, "intermediate_size": 80}
sizes = plan.model | sizes | {"hidden_dropout_prob": 0.0}
config = vit.ViTConfig(**sizes, image_size=8, num_channels=1, num_labels=10)


def new_model():
    model = vit.ViTForImageClassification(config, rng=0)
    model.vit.embeddings.position_embeddings.data[...] = 0
    return model


fresh, model = new_model().eval(), new_model()
plan.fit(model, train)
right = training.evaluate(model, test).accuracy
print(f"fresh {training.evaluate(fresh, test).accuracy:.1%}, trained {right:.1%} of {len(test)} unseen digits right")
assert right > 0.7

# %%
x, labels = test.batch(np.arange(200))  # (B, C, H, W), (B,): the digits that we look at
grid = model.vit.embeddings.patch_embeddings.grid
with no_grad():
    before = fresh(x, output_attentions=True)
    after = model.eval()(x, output_attentions=True, output_hidden_states=True)
predictions = after.logits.data.argmax(1)
one = int(after.logits.data[np.arange(200), labels].argmax())  # the digit that it reads most easily
label = int(labels[one])
L, h, T = len(after.attentions), *after.attentions[0].shape[1:3]
print(f"{L} layers of {h} heads, {T} tokens; our digit: number {one}, label {label}, read as {predictions[one]}")
assert (grid, T) == ((4, 4), 17) and predictions[one] == label

# %% [markdown]
# ## Attention rollout
#
# One row of one layer says: this token took so much of that token. But in layer 3, "that token" is no longer
# a patch. It is a mixture already, of what layers 1 and 2 had brought. So we follow the flow all the way
# down.
#
# In each layer: take the mean over the heads. Half of a token is its old self, which went past on the
# residual connection, so mix with the identity. Make each row sum to 1: a row is a token that *asks*, and
# what it took is a whole. Then multiply. The last layer asks the layer below it, so it stands leftmost.

# %%
def over_keys(mixed):
    return mixed / mixed.sum(axis=-1, keepdims=True)  # (q, k)


def rollout(layers, normalised):
    arrived = np.eye(T)
    for layer in layers:  # the first layer first
        arrived = normalised(0.5 * np.eye(T) + 0.5 * layer) @ arrived  # (q, k)
    return arrived


layers = [attention.data[one].mean(0) for attention in after.attentions]  # L of (q, k)
flow = rollout(layers, over_keys)
assert np.allclose(flow.sum(1), 1)  # whatever arrives in a token came from somewhere
assert np.allclose(flow, lens.attention_rollout(after.attentions)[one], atol=1e-5)
print(f"rollout {flow.shape}: every row sums to 1; CLS is {flow[0, 0]:.1%} itself and {flow[0, 1:].sum():.1%} patches")

# %% [markdown]
# ## The wrong axis
#
# Here are two mistakes. The first divides by the sums of the *columns*. The second is published and much
# copied. It forgets `keepdims`: then NumPy, and PyTorch, lays the row sums along the columns, and column j is
# divided by the sum of row j.
#
# The second mistake sleeps. As long as all rows sum to 1, it divides by 1. It wakes up when small shares are
# dropped, as that code does to make the picture cleaner. We drop the smaller half of each row.

# %%
def over_queries(mixed):
    return mixed / mixed.sum(axis=-2, keepdims=True)


def keepdims_forgotten(mixed):
    return mixed / mixed.sum(axis=-1)


dropped = [np.where(layer >= np.median(layer, axis=-1, keepdims=True), layer, 0) for layer in layers]
sums = {}
for way in (over_keys, over_queries, keepdims_forgotten):
    for name, given in (("all shares", layers), ("half dropped", dropped)):
        sums[way, name] = rollout(given, way).sum(1)
        low, high = sums[way, name].min(), sums[way, name].max()
        print(f"{way.__name__:<20} {name:<13} rows sum to {low:.3f} ... {high:.3f}")
assert all(np.allclose(sums[over_keys, name], 1) for name in ("all shares", "half dropped"))
assert np.ptp(sums[over_queries, "all shares"]) > 0.05
assert np.allclose(sums[keepdims_forgotten, "all shares"], 1, atol=1e-5)  # asleep
assert np.ptp(sums[keepdims_forgotten, "half dropped"]) > 0.01  # awake

# %% [markdown]
# And the order? A product of matrices read from the wrong end is another matrix. Its rows sum to 1 as well:
# the sums do not catch this one. What catches it is a case that you can do by hand. Two tokens: first layer,
# both take from token 1; second layer, both take from token 2. Token 2 holds token 1 by then. So all comes
# from token 1.

# %%
from_1, from_2 = np.array([[1, 0], [1, 0]]), np.array([[0, 1], [0, 1]])
by_hand = lens.attention_rollout([from_1[None, None], from_2[None, None]], residual=0)[0]
assert np.array_equal(by_hand, from_1) and not np.array_equal(by_hand, from_2)
backwards = rollout(layers[::-1], over_keys)
print(f"wrong order: rows sum to 1, and yet up to {abs(backwards - flow).max():.3f} away")
assert np.allclose(backwards.sum(1), 1) and abs(backwards - flow).max() > 1e-3

# %%
shown = {
    "over keys: right": flow,
    "over queries: wrong": rollout(layers, over_queries),
    "half dropped: right": rollout(dropped, over_keys),
    "keepdims forgotten: wrong": rollout(dropped, keepdims_forgotten),
}
figure, axes = plt.subplots(1, 5, figsize=(10, 3.2), dpi=100, layout="constrained")
figure.set_label("rollout")
axes[0].imshow(images.to_image(x[one]), cmap="gray")
axes[0].set_title(f"the digit, label {label}", fontsize=10)
for ax, (name, way) in zip(axes[1:], shown.items(), strict=True):
    drawn = ax.imshow(way[0, 1:].reshape(grid), "viridis", vmin=0, vmax=max(w[0, 1:].max() for w in shown.values()))
    ax.set_title(f"{name}\nCLS row sums to {way[0].sum():.2f}", fontsize=9)
for ax in axes:
    ax.set(xticks=[], yticks=[])
figure.colorbar(drawn, ax=list(axes), location="bottom", shrink=0.5, label="what CLS has of each patch")
plt.show()

# %% [markdown]
# The wrong maps do not look broken. That is the trouble with pictures: check the sums first, then look.
#
# ## How far does a head look?
#
# For each patch that asks: the distance to each patch, weighted by its share, in patches. A head that attends
# evenly gets the mean distance of all pairs. A head that looks at its neighbours gets less.

# %%
place = np.stack(np.divmod(np.arange(16), 4), axis=1)  # (N, 2)
distance = np.sqrt(((place[:, None] - place) ** 2).sum(2))  # (N, N)
even = distance.mean()
share = after.attentions[0].data[:, :, 1:, 1:]  # (B, h, q, k), without CLS: it has no place
share = share / share.sum(-1, keepdims=True)
by_head = np.einsum("bhqk,qk->h", share, distance) / (len(x) * 16)
assert np.allclose(by_head, lens.attention_distance(after.attentions[0], grid), atol=1e-5)
near = {
    name: np.stack([lens.attention_distance(a, grid) for a in output.attentions])  # (L, h)
    for name, output in (("untrained", before), ("trained", after))
}
for name, values in near.items():
    for layer, of_layer in enumerate(values, start=1):
        print(f"{name:>9}, layer {layer}:", *(f"{v:.2f}" for v in np.sort(of_layer)))
print(f"an even head: {even:.2f} patches")
assert near["trained"][0].mean() < near["untrained"][0].mean() - 0.02
assert near["trained"][0].mean() < near["trained"][1:].mean()

# %%
figure, ax = plt.subplots(figsize=(10, 4.2), dpi=100, layout="constrained")
figure.set_label("attention_distance")
for shift, (name, values) in zip((-0.12, 0.12), near.items(), strict=True):
    layer = np.repeat(np.arange(1, L + 1) + shift, h)
    ax.scatter(layer, values.ravel(), label=name, color="0.6" if name == "untrained" else "tab:blue")
ax.axhline(even, color="black", linestyle=":", label="an even share for all")
ax.set(xticks=range(1, L + 1), xlabel="layer", ylabel="mean distance in patches", title="Each dot is one head")
ax.legend(loc="lower right")
plt.show()

# %% [markdown]
# In the first layer, training has turned the heads to what is near, some of them more than others. Above, nearly
# all look everywhere. The effect is small, as our digits are. Dosovitskiy et al. (2021, figure 7) saw it clearly,
# in models thousands of times larger.
#
# And the trained eye on your photo? There it is: some heads look at what is near, others far away, and its untrained
# twin's heads all look equally far.

# %%
far = {name: np.stack([lens.attention_distance(a, photo_grid) for a in each]) for name, each in looked.items()}
for name, values in far.items():  # (L, h)
    print(f"{name:>9} on the photo: {values.min():.2f} to {values.max():.2f} patches, all heads of all blocks")
assert np.ptp(far["untrained"]) < 0.2 * far["untrained"].mean()
assert np.ptp(far["trained"]) > 0.5 * far["trained"].mean()

# %% [markdown]
# ## What did the positions become?
#
# The positions started as zeros. Now they are something. Do we find the famous picture, where each position
# is most like its neighbours? And does the model need them? Give the patches each other's positions, and see.

# %%
positions = model.vit.embeddings.position_embeddings
learned = positions.data[0, 1:].copy()  # (N, D)
unit = learned / np.linalg.norm(learned, axis=1, keepdims=True)
alike = unit @ unit.T  # (N, N)
neighbours, others = alike[distance == 1].mean(), alike[distance > 1].mean()
print(f"length {np.linalg.norm(learned, axis=1).mean():.2f}; neighbours {neighbours:+.2f}, others {others:+.2f} alike")
positions.data[0, 1:] = learned[np.random.default_rng(0).permutation(16)]
with no_grad():
    mixed_up = (model(x).logits.data.argmax(1) == labels).mean()
positions.data[0, 1:] = learned
in_place = (predictions == labels).mean()
print(f"{in_place:.1%} of the {len(x)} digits right; with the positions mixed up {mixed_up:.1%}")
assert mixed_up < in_place - 0.2
assert abs(neighbours) < 0.3

# %%
figure = plots.position_similarity(positions.data, grid)
figure.set_label("position_similarity")
plt.show()

# %% [markdown]
# No. The model needs its positions, that is plain: mixed up, it is lost. But neighbours are hardly more alike
# than others. The famous picture came from millions of photos, where neighbouring patches look alike. 900
# digits and four epochs teach something simpler: sixteen places, each with a name of its own. That is enough
# to tell them apart. Report what you found, not what the paper found. The eye that learned from photos has
# it (lesson 4 draws it):

# %%
place_alike = lens.position_similarity(eye.embeddings.position_embeddings.data, (37, 37))
beside = np.einsum("rcrd->rcd", place_alike)[:, np.arange(36), np.arange(1, 37)].mean()  # right neighbours
print(f"trained on photos: neighbours {beside:+.2f} alike, all {place_alike.mean():+.2f}")
assert beside > 0.8 and place_alike.mean() < 0.3

# %% [markdown]
# ## The answer, layer by layer
#
# Every layer only adds to the CLS token. So we can stop after any layer, and ask the classifier at once:
# final norm, classifier, done. This is called the logit lens.

# %%
cls = after.hidden_states[1].data[:, 0]  # (B, D), after layer 1
norm, head = model.vit.layernorm, model.classifier
centred = cls - cls.mean(1, keepdims=True)
n = centred / np.sqrt(cls.var(1, keepdims=True) + config.layer_norm_eps)
after_one = (n * norm.weight.data + norm.bias.data) @ head.weight.data.T + head.bias.data  # (B, K)
by_layer = lens.logit_lens(model, after.hidden_states)  # (L + 1, B, K)
assert np.allclose(after_one, by_layer[1], atol=1e-3)
assert np.allclose(by_layer[-1], after.logits.data, atol=1e-4)  # after the last layer: the answer itself
accuracy = (by_layer.argmax(-1) == labels).mean(1)  # (L + 1,)
p = np.stack([ops.softmax(logits).data for logits in by_layer])  # (L + 1, B, K)
for layer, (right_here, shares) in enumerate(zip(accuracy, p, strict=True)):
    surest = shares[np.arange(len(labels)), labels].mean()
    print(f"after layer {layer}: {right_here:6.1%} right, the right class gets {surest:.2f}")
assert np.ptp(by_layer[0], axis=0).max() < 1e-4  # before layer 1, CLS has seen no picture
assert accuracy[0] < 0.2 < accuracy[1] < accuracy[-1]

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), dpi=100, layout="constrained")
figure.set_label("logit_lens")
axes[0].plot(range(L + 1), accuracy, "o-")
axes[0].set(xticks=range(L + 1), ylim=(0, 1), xlabel="after layer", ylabel="share of right answers", title="200 digits")
drawn = axes[1].imshow(p[:, one], "viridis", vmin=0, vmax=1, aspect="auto")
axes[1].set(xticks=range(10), yticks=range(L + 1), xlabel="class", ylabel="after layer", title=f"digit, label {label}")
figure.colorbar(drawn, ax=axes[1], label="probability")
plt.show()

# %% [markdown]
# ## Which patch made the difference? Three answers
#
# - Occlusion: paint one patch grey, and see how far the logit of the class falls. It is an experiment.
# - Gradient: how steeply does the logit change with the pixels? An experiment, too, but with a tiny change.
# - Rollout: where did CLS get its mixture from? It never asks about a class: for every class it is the same
#   map.
#
# The background of our digits is black, -1. Grey is 0, and so a grey patch is a patch with some ink. We hide
# with black as well. "Hidden" is a choice, and the answer depends on it.

# %%
def looks(picture, label):
    """Four maps (rows, columns): what in a picture (C, H, W) made the model say this label?"""
    pixels_in = Tensor(picture[None], requires_grad=True)
    output = model(pixels_in, output_attentions=True)
    output.logits[0, label].backward()
    return {
        "grey": lens.occlusion(model, picture, label, 0.0),
        "black": lens.occlusion(model, picture, label, -1.0),
        "gradient": abs(pixels_in.grad[0, 0]).reshape(4, 2, 4, 2).sum((1, 3)),
        "rollout": lens.attention_rollout(output.attentions)[0, 0, 1:].reshape(grid),
    }


of_digit = looks(x[one], label)
hidden = x[one].copy()  # (C, H, W)
hidden[:, 2:4, 4:6] = 0  # row 1, column 2
with no_grad():
    fall = (model(x[one][None]).logits.data - model(hidden[None]).logits.data)[0, label]
assert np.isclose(of_digit["grey"][1, 2], fall, atol=1e-4)
empty = (x[one, 0] == -1).reshape(4, 2, 4, 2).all((1, 3))  # (rows, columns)
assert abs(of_digit["black"][empty]).max(initial=0) < 1e-4  # black on black changes nothing
assert np.allclose(of_digit["rollout"], flow[0, 1:].reshape(grid), atol=1e-5)

# %%
together = np.corrcoef([look.ravel() for look in of_digit.values()])  # (4, 4)
print(" " * 10, *(f"{name:>9}" for name in of_digit))
for name, line in zip(of_digit, together, strict=True):
    print(f"{name:>10}", *(f"{value:9.2f}" for value in line))
other = (label + 1) % 10
for_other = lens.occlusion(model, x[one], other)
print(f"for class {other} instead, grey falls by {for_other.round(1)[1]} in row 1")
assert (together < 0.999).sum() == 12  # no two of them are the same map
assert not np.allclose(for_other, of_digit["grey"], atol=0.1)

# %% [markdown]
# And now your photo, grey, in 8 x 8 pixels. The model reads it as a digit; it knows nothing else. Which patch made it
# say so? Every one of the four looks has an answer to that.

# %%
small = images.pixel_values(np.asarray(images.open_image(photo).convert("L")), size=8)  # (C, H, W)
with no_grad():
    said = int(model(small[None]).logits.data.argmax())
of_photo = looks(small, said)
print(f"the photo is read as {said}; hiding one patch changes that logit by up to {abs(of_photo['grey']).max():.1f}")

# %%
figure, axes = plt.subplots(2, 5, figsize=(10, 5.6), dpi=100, layout="constrained")
figure.set_label("three_answers")
rows = (x[one], f"the digit, label {label}", of_digit), (small, f"the photo, read as {said}", of_photo)
for (first, *others), (picture, title, four) in zip(axes, rows, strict=True):
    first.imshow(images.to_image(picture), cmap="gray", vmin=0, vmax=255, extent=(0, 4, 4, 0))
    first.set_title(title, fontsize=10)
    limit = max(abs(four["grey"]).max(), abs(four["black"]).max()) or 1
    for ax, (name, look) in zip(others, four.items(), strict=True):
        signed = name in ("grey", "black")
        style = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if signed else {"cmap": "viridis", "vmin": 0}
        drawn = ax.imshow(look, extent=(0, 4, 4, 0), **style)
        ax.set_title(f"hidden with {name}" if signed else name, fontsize=10)
        what = {"gradient": "sum of |gradient|", "rollout": "share of CLS"}.get(name, "fall of the logit")
        figure.colorbar(drawn, ax=ax, location="bottom", label=what)
for ax in axes.ravel():
    ax.set(xticks=range(5), yticks=range(5), xticklabels=[], yticklabels=[])
    ax.grid(color="0.5", linewidth=0.5)
    ax.set_anchor("N")
plt.show()

# %% [markdown]
# Red: the patch spoke for the class. Blue: against it. Only occlusion can be blue: a share of attention and a
# length cannot be negative. If you need one answer, trust the experiment whose change you can name.
#
# And the maps of the photo look no worse than those of the digit. A map says where an answer came from. It
# does not say that the question made sense.
#
# ## What is a head worth?
#
# `head_mask` silences heads: 1 keeps one, 0 takes it out. We take each out alone, and watch the loss. Then a
# whole layer at once.

# %%
worth = lens.head_importance(model, x, labels)  # (L, h)
mask = np.ones((L, h))
mask[0, 2] = 0
all_out = np.empty(L)
with no_grad():
    whole = model(x, labels).loss.item()
    assert np.isclose(model(x, labels, head_mask=mask).loss.item() - whole, worth[0, 2], atol=1e-5)
    for layer in range(L):
        mask = np.ones((L, h))
        mask[layer] = 0
        all_out[layer] = model(x, labels, head_mask=mask).loss.item() - whole
        print(f"layer {layer + 1}: one by one {worth[layer].sum():+.2f} in all, together {all_out[layer]:+.2f}")
print(f"loss {whole:.3f}; the dearest head costs {worth.max():+.3f}, the cheapest {worth.min():+.3f}")
assert worth.argmax() < h and all_out[0] > 3 * all_out[1:].max()  # the first layer is the dearest
assert all_out[0] > 1.3 * worth[0].sum()

# %%
figure, ax = plt.subplots(figsize=(10, 3.6), dpi=100, layout="constrained")
figure.set_label("head_importance")
drawn = ax.imshow(worth, "RdBu_r", vmin=-abs(worth).max(), vmax=abs(worth).max(), aspect="auto")
for layer, of_head in np.ndindex(worth.shape):
    color = "white" if abs(worth[layer, of_head]) > 0.7 * abs(worth).max() else "black"
    ax.text(of_head, layer, f"{worth[layer, of_head]:+.2f}", ha="center", va="center", color=color)
ax.set(xticks=range(h), xticklabels=range(1, h + 1), yticks=range(L), yticklabels=range(1, L + 1))
ax.set(xlabel="head", ylabel="layer", title="How much the loss rises without this head")
figure.colorbar(drawn, ax=ax, label="nats", shrink=0.8)
plt.show()

# %% [markdown]
# In the upper layers any head can go, and hardly anything happens. In the first layer each one is missed. And
# all of its heads at once are missed far more than one by one: the others stand in for one that is missing;
# nobody stands in for all. So the sum of the small losses is not the loss of the sum.
#
# ## What you can say now
#
# - A map of an untrained model looks like something, too. Compare, and read the colour bar.
# - Rollout: mean over heads, half identity, rows sum to 1, last layer leftmost. The sums find a wrong axis;
#   only a case by hand finds a wrong order.
# - Training turns heads of the first layer to what is near.
# - Every layer adds to CLS, so the classifier can be asked after any of them.
# - Rollout says where CLS looked; occlusion says what changed the answer. They are not the same question, and
#   both have an answer for a photo that is no digit at all.
# - A head's worth depends on which other heads are there.
#
# ## Exercises
#
# - Exercise 11: write the backward of one step of rollout, a row divided by its sum and a matrix product.
#   `minivit exercise 11 --out DIR` writes the stub, `minivit check FILE` grades it.
# - Find a digit that the model gets wrong. Occlude for the class that it said, and for the right one. Which
#   patch misled it?
# - Silence heads one after the other, the cheapest first, measuring anew each time. How many can go before
#   the accuracy falls by 5 %?
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=11](../explore.html#lesson=11)
