# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 3. The token that stands for the whole image
#
# The question: 196 tokens know one patch each. Which of them says what the image shows?
#
# Builds: the CLS token of `ViTEmbeddings`, prepended to the patches of every image, and its gradient. Then two ways
# to read the answer are trained against each other: from CLS, and from the mean of the patches.
#
# Teach: 25 minutes. Run: 5 seconds.
#
# Axes: B batch, C channels, H W pixels, P patch side, N patches, T = N + 1 tokens, D hidden size, K classes

# %%
import textwrap

import matplotlib.pyplot as plt
import numpy as np

from minivit import datasets, differentiable, gradcheck, images, lessons, nn, no_grad, ops, optim, training, vit
from minivit.errors import ShapeError
from minivit.gradcheck import GradientError

photo = lessons.photo()

# %% [markdown]
# ## 196 tokens, and none of them is the image
#
# We take the photo three times: as it is, as a mirror shows it, and as a negative. That is a batch of B = 3.
# Lesson 2 turns each image into N = 196 tokens of D = 768 numbers.

# %%
x = images.pixel_values(photo, 224)  # (C, H, W)
batch = np.stack([x, x[:, :, ::-1], -x])  # (B, C, H, W)
B, N, D = 3, 196, 768

cut = vit.PatchEmbeddings(image_size=224, patch_size=16, num_channels=3, embed_dim=D, rng=0)
patches = cut(batch)  # (B, N, D)
print("pixels", batch.shape, "-> patches", patches.shape)
assert patches.shape == (B, N, D)

# %% [markdown]
# Token 1 is the top left corner. Token 196 is the bottom right corner. If the class is "cat", whom do we ask?
#
# The trick comes from language models. Add one token that belongs to no patch. It is not computed from any image: it
# is simply D numbers that are learned, like a bias. It is called CLS, for "class".

# %%
rng = np.random.default_rng(0)
cls_token = nn.Parameter(0.02 * rng.standard_normal((1, 1, D)).astype(np.float32))  # (1, 1, D)
print("CLS", cls_token.shape, "the first numbers:", cls_token.data[0, 0, :4].round(3))

# %% [markdown]
# ## Prepend: one CLS, three images
#
# Prepend means: put in front. There is one CLS, and there are three images. Concatenate refuses that, and says so.

# %%
try:
    ops.concatenate([cls_token, patches], axis=1)
except ShapeError as error:
    print(textwrap.fill(str(error), 96))
    refused = True
assert refused

# %% [markdown]
# Every image needs its CLS in front. `expand` repeats it along the batch, and `-1` means "leave this axis as it is".
#
# Nothing is copied for that. Look at the strides, the number of bytes from one entry to the next: along the batch it
# is 0. All three images look at the same numbers in memory. Remember this: one CLS, used three times.

# %%
cls = cls_token.expand(B, -1, -1)  # (B, 1, D)
print("expanded", cls.shape, "strides in bytes:", cls.data.strides)
assert cls.shape == (B, 1, D) and cls.data.strides[0] == 0
assert np.shares_memory(cls.data, cls_token.data)

tokens = ops.concatenate([cls, patches], axis=1)  # (B, T, D)
print(f"{N} -> {tokens.shape[1]} tokens:", tokens.shape)
assert tokens.shape == (B, N + 1, D)

# %% [markdown]
# The first row of every image is CLS, and the others are the patches, untouched. So patch number n is token number n,
# counted from 1, and CLS is token 0. That is why the code says `x[:, 0]`.

# %%
for b in range(B):
    assert np.array_equal(tokens.data[b, 0], cls_token.data[0, 0])
    assert np.array_equal(tokens.data[b, 1:], patches.data[b])
print("token 0 is CLS, tokens 1 to", N, "are the patches, in every image")

# %% [markdown]
# `ViTEmbeddings` does exactly this, and then adds the positions of lesson 4. We compare.

# %%
embeddings = vit.ViTEmbeddings(vit.ViTConfig.base(), rng=1)
by_hand = ops.concatenate(
    [embeddings.cls_token.expand(B, -1, -1), embeddings.patch_embeddings(batch)], axis=1
)  # (B, T, D)
by_hand = by_hand + embeddings.position_embeddings
difference = abs(embeddings(batch).data - by_hand.data).max()
print("by hand and ViTEmbeddings:", by_hand.shape, "largest difference", difference)
assert difference == 0

# %% [markdown]
# ## The gradient of CLS is a sum over the batch
#
# Now backwards. From above comes `dtokens`, one slope for each number of `tokens`. We want `dcls`.
#
# Take one number of CLS, c. It went into image 1, into image 2 and into image 3. Move c a little, and the loss changes
# in three ways at once. Changes add up. So:
#
# forward: `tokens[b, 0, d] = cls[0, 0, d]` for every b
#
# backward: `dcls[0, 0, d] = dtokens[0, 0, d] + dtokens[1, 0, d] + dtokens[2, 0, d]`
#
# Forward, one thing was repeated. Backward, its gradients are summed. This holds for everything that broadcasts.
# A patch was used once, so its gradient is just handed back.

# %%
dtokens = rng.standard_normal(tokens.shape).astype(np.float32)  # (B, T, D), as if a model had sent it
patches.retain_grad()
tokens.backward(dtokens)

dcls = dtokens[0, 0] + dtokens[1, 0] + dtokens[2, 0]  # (D,)
print("gradient of CLS", cls_token.grad.shape)
print("by hand", dcls[:4].round(4), "engine", cls_token.grad[0, 0, :4].round(4))
assert np.allclose(cls_token.grad[0, 0], dcls, atol=1e-5)
assert np.array_equal(patches.grad, dtokens[:, 1:])

# %% [markdown]
# The sum grows with the batch. That is why losses are means: the mean brings its own 1 / B, and the gradient keeps
# its size whether we train on 3 images or on 300.
#
# Do not believe a gradient. Check it, on small odd sizes, against finite differences. And see a wrong one fail. This
# op takes the gradient of the first image only. Its shape is right, so nothing complains until we check.


# %%
def prepend(cls, patches):
    return ops.concatenate([cls.expand(len(patches), -1, -1), patches], axis=1)  # (B, T, D)


@differentiable
def prepend_wrong(cls, patches):
    first = np.broadcast_to(cls, (len(patches), *cls.shape[1:]))  # (B, 1, D)

    def backward(dtokens):
        return dtokens[:1, :1], dtokens[:, 1:]  # of cls, of patches

    return np.concatenate([first, patches], axis=1), backward  # (B, T, D)


# %%
small = rng.standard_normal((1, 1, 5)), rng.standard_normal((3, 2, 5))
print("right:", gradcheck(prepend, *small))
try:
    gradcheck(prepend_wrong, *small)
except GradientError as error:
    print("wrong:", error)
    caught = True
assert caught

# %% [markdown]
# ## CLS starts empty
#
# Before the first block, CLS is the same for a cat and for a pagoda. It knows nothing. Only attention can tell it
# something: there each token asks all the others, and takes a weighted mean of what they say (lesson 5). We send the
# batch through an untrained encoder and watch row 0: how much does it differ between our three images?

# %%
config = vit.ViTConfig(
    hidden_size=48, num_hidden_layers=4, num_attention_heads=3, intermediate_size=96, num_labels=10,
    initializer_range=0.1,
)
model = vit.ViTForImageClassification(config, rng=0)
output = model(batch, labels=np.array([0, 1, 2]), output_hidden_states=True)

spread = [np.ptp(state.data[:, 0], axis=0).mean() for state in output.hidden_states]  # largest - smallest
for layer, value in enumerate(spread):
    print(f"after {layer} of 4 blocks CLS differs between the images by {value:.6f}")
assert spread[0] == 0 and all(value > 0 for value in spread[1:])

# %% [markdown]
# ## Why only `x[:, 0]`?
#
# The classifier reads token 0 and throws 196 tokens away. Is that not a waste?
#
# Ask the gradient. We send the loss back and look at each token of each layer: how much does the loss care?

# %%
for state in output.hidden_states:
    state.retain_grad()
output.loss.backward()
cares = [np.linalg.norm(state.grad[0], axis=-1) for state in output.hidden_states]  # each (T,)
for layer, slopes in enumerate(cares):
    felt = np.count_nonzero(slopes[1:])
    print(f"after {layer} of 4 blocks the loss feels CLS by {slopes[0]:.4f}, and {felt} of the {N} patches")

assert cares[-1][0] > 0 and not cares[-1][1:].any()  # after the last block: CLS alone
assert all(slopes.all() for slopes in cares[:-1])  # one block earlier: every token

# %% [markdown]
# Look at the last two lines. After the last block nobody needs the patches. One block earlier every patch counts, for
# CLS read them all, by attention. So nothing is thrown away: the 196 tokens have done their work, and their news has
# arrived in row 0. Taking `x[:, 0]` just picks it up.
#
# In the picture, each map shows how much the loss cares for each patch of the first image. The last map is empty.

# %%
figure, axes = plt.subplots(
    1, len(cares) + 1, figsize=(10, 2.9), dpi=100, layout="constrained"
)
figure.set_label("who_the_loss_feels")
axes[0].imshow(images.to_image(x))
axes[0].set_title("the photo")
for layer, (ax, slopes) in enumerate(zip(axes[1:], cares, strict=True)):
    ax.imshow(slopes[1:].reshape(14, 14), "viridis", vmin=0, vmax=max(slopes[1:].max(), 1e-9))
    ax.set_title(f"after {layer} block{'s' * (layer != 1)}")
    ax.set_xlabel(f"largest patch {slopes[1:].max():.4f}\nCLS {slopes[0]:.4f}")
for ax in axes:
    ax.set(xticks=[], yticks=[])
figure.suptitle("How much the loss feels each patch: yellow is the map's largest. After the last block, none")
plt.show()

# %% [markdown]
# ## CLS or the mean?
#
# There is an obvious rival. No extra token: take the mean of all patches, `x[:, 1:].mean(axis=1)`. It is fair, simple
# and without parameters. Which one is better?
#
# First a thought. Attention is a mean too, with weights that are computed: a token's query meets the key of each token,
# that makes a score, and the softmax turns the scores into weights. Give CLS a blind query, all zeros: every score is
# 0, the softmax gives everybody the same, and what CLS takes is the plain mean of all values, its own among them. So
# CLS can do what the mean does. The mean by itself cannot do what CLS does: look at one patch and not at the others.

# %%
keys, values = (rng.standard_normal((7, 4)) for _ in range(2))  # (T, d) each
blind = ops.softmax(ops.matmul(np.zeros((1, 4)), keys.T) / np.sqrt(4))  # (1, T)
print("weights of a blind query:", blind.data.round(4))
assert np.allclose(ops.matmul(blind, values).data, values.mean(axis=0))

# %% [markdown]
# Now measure. One model, three ways to read it: CLS, the mean of the patches, and, to be bold, just patch 1, the
# corner. If attention carries news to CLS, it carries news to the corner too.

# %%
READ = {
    "CLS": lambda x: x[:, 0],  # (B, D)
    "mean": lambda x: x[:, 1:].mean(axis=1),  # (B, D)
    "patch 1": lambda x: x[:, 1],  # (B, D)
}


class Classifier(nn.Module):
    """A Vision Transformer whose answer is read in one of the three ways. (B, C, H, W) -> (B, K)."""

    def __init__(self, config, read, rng=0):
        rng = np.random.default_rng(rng)
        self.vit = vit.ViTModel(config, add_pooling_layer=False, rng=rng)
        self.head = nn.Linear(config.hidden_size, config.num_labels, std=0.1, rng=rng)
        self.read = READ[read]

    def forward(self, pixel_values):
        x = self.vit(pixel_values).last_hidden_state  # (B, T, D)
        return self.head(self.read(x))  # (B, K)


# %% [markdown]
# Training is lesson 9. Here it is one function, the same for all: one block, D = 32, patches of 4 x 4 pixels.


# %%
def learn(read, train, test, epochs, lr):
    """Train a Classifier. Returns it and its test accuracies, one an epoch."""
    config = vit.ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, num_channels=1,
        image_size=train.image_size, patch_size=4, num_labels=len(train.class_names), initializer_range=0.1,
    )
    model = Classifier(config, read)
    steps = -(-len(train) // 50)  # in one epoch
    adam, schedule = optim.AdamW(model.parameters(), lr), optim.warmup_cosine(epochs * steps, steps)
    print(f"training: {len(train)} pictures, {epochs} epochs, learning rate {lr}, read {read}")
    history = training.fit(
        model, train, test, epochs=epochs, batch_size=50, optimizer=adam, schedule=schedule, verbose=False
    )
    return model, [row["test_accuracy"] for row in history]


# %% [markdown]
# ### Task one: handwritten digits
#
# Four patches, and the evidence is spread over all of them: every patch holds a piece of the stroke.

# %%
digits = {read: learn(read, *datasets.digits(), epochs=4, lr=0.01)[1] for read in READ}
for read, accuracies in digits.items():
    print(f"digits, read {read:8} {accuracies[-1]:.1%} right")

final = [accuracies[-1] for accuracies in digits.values()]
assert min(final) > 0.8 and max(final) - min(final) < 0.06

# %% [markdown]
# All three work, even the corner! What is left between them is a few answers in a hundred. So "only `x[:, 0]`" is not a
# law of nature. Any token that attends to all others can stand for the image. CLS is the tidy choice, for it has no
# patch of its own to look after.
#
# ### Task two: a needle in a haystack
#
# Here all evidence is in one patch. Fifteen patches are noise. One patch is black with a white quarter, and the class
# is which quarter: top left, top right, bottom left, bottom right.


# %%
def needles(count, rng, side=4, P=4):
    """A Dataset of `count` images of side x side patches, and the token number of each needle."""
    rng = np.random.default_rng(rng)
    labels, places = rng.integers(4, size=count), rng.integers(side * side, size=count)  # (count,) each
    marks = np.zeros((4, P, P), np.uint8)  # one for each class
    for k in range(4):
        marks[k, k // 2 * 2 : k // 2 * 2 + 2, k % 2 * 2 : k % 2 * 2 + 2] = 255
    pieces = rng.integers(256, size=(count, side, side, 1, P, P)).astype(np.uint8)
    pieces[np.arange(count), places // side, places % side, 0] = marks[labels]
    pictures = pieces.transpose(0, 3, 1, 4, 2, 5).reshape(count, 1, side * P, side * P)  # (count, C, H, W)
    return datasets.Dataset(pictures, labels, ["top left", "top right", "bottom left", "bottom right"]), places + 1


(train, _), (test, needle) = needles(600, 0), needles(300, 1)

# %%
slow, fast, trained = {}, {}, {}
for read in ("CLS", "mean"):
    _, slow[read] = learn(read, train, test, epochs=3, lr=0.002)
    trained[read], fast[read] = learn(read, train, test, epochs=3, lr=0.008)
for read in slow:
    print(f"needle, read {read:5} {slow[read][-1]:.1%} right at the small rate, {fast[read][-1]:.1%} at the large one")

assert slow["CLS"][-1] > slow["mean"][-1] + 0.1
assert fast["CLS"][-1] > 0.95 and fast["mean"][-1] > 0.9

# %% [markdown]
# Read the table slowly. At the small learning rate the mean is far behind CLS. At a rate four times as large it gets
# there as well.
#
# The paper has a story like it (Dosovitskiy et al. 2021, appendix D.3). Its first attempt with the mean did very
# poorly. The reason was neither the missing token nor the mean: it wanted another learning rate, there a smaller one.
# So which one? Each is fine. The models that we load were trained with CLS, and so we read CLS.

# %%
figure, panels = plt.subplots(1, 3, figsize=(10, 3.6), dpi=100, layout="constrained", sharey=True)
figure.set_label("cls_or_mean")
titles = "digits: evidence everywhere", "needle, learning rate 0.002", "needle, learning rate 0.008"
for ax, curves, title in zip(panels, (digits, slow, fast), titles, strict=True):
    for read, accuracies in curves.items():
        ax.plot(range(1, len(accuracies) + 1), accuracies, "o-", label=f"{read}: {accuracies[-1]:.1%}")
    ax.set(title=title, xlabel="epoch", xticks=range(1, len(accuracies) + 1), ylim=(0, 1.03))
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right")
panels[0].set_ylabel("share of right test answers")
plt.show()

# %% [markdown]
# ## Does CLS really look at the needle?
#
# We can ask it. Its row of the attention says how much it took from every token. No label ever told it where the
# needle lies: it was only told which class. And where the mean was read and learned the task, who looked then? The
# patches themselves: many of them look at the needle, and their mean has what they saw.

# %%
pictures, _ = test.batch(slice(None))
with no_grad():
    attention = trained["CLS"].vit(pictures, output_attentions=True).attentions[0]  # (B, h, q, k)
row = attention.data[:, :, 0].mean(axis=1)  # (B, k): CLS asks, mean over the heads
found = (row[:, 1:].argmax(axis=1) + 1 == needle).mean()
share = row[np.arange(len(row)), needle].mean()
print(f"CLS looks at the needle most of all in {found:.0%} of the images; chance would be {1 / 16:.0%}")
print(f"of its attention, the needle gets {share:.0%}; an even share is {1 / 17:.0%}")
assert found > 0.5 and share > 3 / 17

with no_grad():
    attention = trained["mean"].vit(pictures, output_attentions=True).attentions[0].data  # (B, h, q, k)
asked = attention[:, :, 1:].mean(axis=(1, 2))  # (B, k): the patches ask, mean over them and the heads
share = asked[np.arange(len(asked)), needle].mean()
print(f"of what the patches look at, where their mean is read, the needle gets {share:.0%}")
assert share > 2 / 17

# %%
figure, axes = plt.subplots(2, 6, figsize=(10, 3.9), dpi=100, layout="constrained")
figure.set_label("cls_finds_the_needle")
for i, (above, below) in enumerate(axes.T):
    r, c = divmod(needle[i] - 1, 4)
    above.imshow(test.images[i, 0], "gray", extent=(0, 4, 4, 0))
    above.set_title(test.class_names[test.labels[i]], fontsize=10)
    heat = below.imshow(row[i, 1:].reshape(4, 4), "viridis", vmin=0, vmax=row[:6].max(), extent=(0, 4, 4, 0))
    for ax in (above, below):
        ax.add_patch(plt.Rectangle((c, r), 1, 1, fill=False, color="#ff3fa4", linewidth=2.5))
        ax.set(xticks=range(5), yticks=range(5), xticklabels=[], yticklabels=[])
        ax.tick_params(length=0)
        ax.grid(alpha=0.4)
figure.colorbar(heat, ax=axes, label="attention", shrink=0.8)
figure.suptitle("Above: noise, and one needle (outlined). Below: where CLS looks")
plt.show()

# %% [markdown]
# ## What you can say now
#
# - CLS is D learned numbers, the same for every image, put in front of the patches: 196 tokens become 197.
# - `expand` repeats it along the batch without a copy; backward sums its gradient over the batch.
# - CLS starts empty and is filled by attention. After the last block the loss feels it alone, one block earlier all.
# - `x[:, 0]` is a habit and not a law: mean and even the corner patch work on the digits.
# - CLS picks the patch that matters. Where the mean is read, the patches must pick it, which took a larger learning
#   rate here.
#
# ## Exercises
#
# 1. **Exercise 03**, write the backward: `minivit exercise 03 --out DIR` writes its stub, with the forward pass of
#    prepending, and `minivit check FILE` grades what you make of it.
# 2. Read CLS and the mean side by side: `ops.concatenate([x[:, 0], x[:, 1:].mean(axis=1)], axis=1)`, and a head with
#    twice the inputs. Is it better on the needle at the small rate?
# 3. Make the haystack larger: `needles(600, 0, side=6)`. Who suffers more, CLS or the mean? Guess before you run it.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=3](../explore.html#lesson=3)
