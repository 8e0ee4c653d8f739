# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 3. The token that stands for the whole image
#
# The question: 196 tokens know one patch each. Which of them says what the image shows?
#
# Builds: the CLS token of `ViTEmbeddings`, in front of the patches of every image, its
# gradient, and a task that shows where it looks.
#
# New ideas: (1) the class token, CLS; (2) broadcasting without a copy; (3) the gradient
# of what was repeated is a sum; (4) CLS is filled by attention; (5) what the last block
# throws away; (6) the attention weight as evidence, and its limits.
#
# Teach: 40 minutes. Run: 3 seconds.
#
# Axes: B batch, C channels, H W pixels, P patch side, N patches, T = N + 1 tokens,
# D hidden size, h heads, L blocks, q k query and key tokens

# %%
import matplotlib.pyplot as plt
import numpy as np

from minivit import images, lessons, nn, no_grad, ops, optim, plots, training, vit
from minivit.datasets import Dataset

photo = lessons.photo()

# %% [markdown]
# ## 196 tokens, and none of them is the image
#
# Take the photo three times: as it is, as a mirror shows it, and as a negative: a batch
# of B = 3. Lesson 2 makes N = 196 tokens of D = 768 numbers of each. Patch 0 is the top
# left corner, patch 195 the bottom right. If the class is "cat", whom do we ask?
#
# BERT, a language model, has a trick for it (Devlin et al. 2019), and the Vision
# Transformer took it over: one more token that belongs to no patch. It is computed from
# no image. It is D numbers that are learned, like a bias: the *class token*, CLS.

# %%
x = images.pixel_values(photo, 224)  # (C, H, W)
batch = np.stack([x, x[:, :, ::-1], -x])  # (B, C, H, W)
B, N, D = 3, 196, 768
rng = np.random.default_rng(0)
patches = vit.PatchEmbeddings(224, 16, embed_dim=D, rng=0)(batch)  # (B, N, D)
cls_token = nn.Parameter(0.02 * rng.standard_normal((1, 1, D)))  # (1, 1, D)
print("pixels", batch.shape, "-> patches", patches.shape, "and CLS", cls_token.shape)

# %% [markdown]
# ## One CLS, three images
#
# Every image needs CLS in front, and there is only one. `expand` repeats it along the
# batch; `-1` means "leave this axis as it is". This is *broadcasting*, without a copy:
# from one image to the next it is 0 bytes in memory. One CLS, three uses.

# %%
cls = cls_token.expand(B, -1, -1)  # (B, 1, D)
print("CLS", cls.shape, "bytes to the next image:", cls.data.strides[0])
assert cls.data.strides[0] == 0

# %% [markdown]
# Put it in front. Token 0 is CLS, so the code says `x[:, 0]`; patch n is token n + 1.

# %%
tokens = ops.concatenate([cls, patches], axis=1)  # (B, T, D)
print(f"{N} patches -> {tokens.shape[1]} tokens:", tokens.shape)
assert np.array_equal(tokens.data[:, 1:], patches.data)

# %% [markdown]
# `ViTEmbeddings` does exactly this, and then adds the positions of lesson 4.

# %%
part = vit.ViTEmbeddings(vit.ViTConfig.base(), rng=1)
in_front = [part.cls_token.expand(B, -1, -1), part.patch_embeddings(batch)]
by_hand = ops.concatenate(in_front, axis=1) + part.position_embeddings  # (B, T, D)
difference = abs(part(batch).data - by_hand.data).max()
print("by hand and ViTEmbeddings:", by_hand.shape, "largest difference", difference)
assert difference == 0

# %% [markdown]
# ## Forward repeated, backward summed
#
# Now backwards. From above comes `dtokens`, one slope for each number of `tokens`. Take
# one number of CLS. It went into images 0, 1 and 2. Move it a little, and the loss
# changes in three ways at once. Changes add up:
#
# - forward: `tokens[b, 0] = cls[0, 0]` for every b
# - backward: `dcls[0, 0] = dtokens[0, 0] + dtokens[1, 0] + dtokens[2, 0]`
#
# This holds for everything that broadcasts. What is used once hands its gradient back.

# %%
dtokens = rng.standard_normal(tokens.shape)  # (B, T, D), as if a model had sent it
tokens.backward(dtokens)
dcls = dtokens[:, 0].sum(axis=0)  # (D,)
print("by hand", dcls[:3].round(3), "engine", cls_token.grad[0, 0, :3].round(3))
assert np.allclose(cls_token.grad[0, 0], dcls, atol=1e-5)

# %% [markdown]
# The sum grows with the batch. A loss that is the mean over the batch brings its own
# 1 / B, so that one learning rate serves 3 images and 300. (A sum, with the learning
# rate divided by B, is the same step: the mean is a good habit, not a law.)
#
# ## CLS starts empty
#
# Before block 0, CLS is the same for a cat and for a pagoda. Only *attention* can fill
# it: there each token takes a weighted mean of what all tokens say (lesson 5). Send the
# batch through L = 4 untrained blocks. How much does CLS differ between the images?

# %%
config = vit.ViTConfig(
    hidden_size=48, num_hidden_layers=4, num_attention_heads=3, intermediate_size=96,
    num_labels=10, initializer_range=0.1,
)
model = vit.ViTForImageClassification(config, rng=0)
output = model(batch, labels=np.array([0, 1, 2]), output_hidden_states=True)
spread = [np.ptp(x.data[:, 0], axis=0).mean() for x in output.hidden_states]
for blocks, value in enumerate(spread):  # largest - smallest of the three images
    print(f"after {blocks} of 4 blocks CLS differs between images by {value:.4f}")
assert spread[0] == 0 < min(spread[1:])

# %% [markdown]
# ## What the last block throws away
#
# The classifier reads token 0 and drops 196 tokens. A waste? Ask the gradient: send the
# loss back, and count the patches at which it is not zero.

# %%
for x in output.hidden_states:
    x.retain_grad()
output.loss.backward()
felt = [np.count_nonzero(x.grad[0, 1:].any(axis=-1)) for x in output.hidden_states]
for blocks, count in enumerate(felt):
    print(f"after {blocks} of 4 blocks the loss feels CLS and {count} of {N} patches")
assert felt == [N] * 4 + [0]

# %% [markdown]
# One block before the end every patch counts, after the last block none. In the last
# block a patch is only heard: CLS needs its *key* and *value*. What the patch asks
# and hears, and its own MLP are thrown away: 84% of that block of ViT-Base/16 (lesson
# 3b leaves them out). In all blocks before, the patches' work arrives in CLS.
#
# ## A needle in a haystack
#
# Does CLS find what matters? Here all evidence is in one patch: fifteen are noise, one
# is black with a white quarter, and the class is which quarter.


# %%
QUARTERS = ["top left", "top right", "bottom left", "bottom right"]


def needles(count, rng, side=4, P=4):
    """`count` pictures of side x side patches, and the patch that holds each needle."""
    rng = np.random.default_rng(rng)
    labels, places = rng.integers(4, size=count), rng.integers(side**2, size=count)
    marks = np.zeros((4, P, P), np.uint8)  # one for each class
    for label in range(4):
        r, c = label // 2 * 2, label % 2 * 2
        marks[label, r : r + 2, c : c + 2] = 255
    cut = rng.integers(256, size=(count, side, side, P, P)).astype(np.uint8)
    cut[np.arange(count), places // side, places % side] = marks[labels]
    pictures = cut.transpose(0, 1, 3, 2, 4).reshape(count, 1, side * P, side * P)
    return Dataset(pictures, labels, QUARTERS), places


(train, _), (test, places) = needles(600, rng=0), needles(300, rng=1)

# %% [markdown]
# One block, D = 32, learns by plain gradient descent, `parameter -= lr * gradient`
# (`training.fit`: lesson 9). It is told the class, and never where the needle lies.

# %%
config = vit.ViTConfig(
    hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
    image_size=16, patch_size=4, num_channels=1, num_labels=4, initializer_range=0.2,
)
finder = vit.ViTForImageClassification(config, rng=0)
sgd = optim.SGD(finder.parameters(), lr=0.1)
training.fit(finder, train, epochs=6, batch_size=50, optimizer=sgd, verbose=False)
accuracy = training.evaluate(finder, test).accuracy
print(f"the right quarter in {accuracy:.1%} of 300 new pictures; guessing: 25%")
assert accuracy > 0.9

# %% [markdown]
# Now ask CLS. Its row of the attention holds the shares that it took from every token,
# the *attention weights*. They are at least 0 and sum to 1.


# %%
def look(pictures):
    """CLS's attention weights (B, N), mean over the heads, and the answers (B,)."""
    with no_grad():
        output = finder(pictures, output_attentions=True)
    row = output.attentions[0].data[:, :, 0].mean(axis=1)  # (B, k)
    return row[:, 1:], output.logits.data.argmax(axis=1)


pictures = test.batch(slice(None))[0]  # (B, C, H, W)
weights, answer = look(pictures)
found, share = weights.argmax(axis=1), weights[np.arange(300), places].mean()
print(f"most weight is on the needle in {np.mean(found == places):.0%}; chance: 6%")
print(f"the needle gets {share:.0%} of the weight; an even share: {1 / 17:.0%}")
assert np.mean(found == places) > 0.5

# %%
titles = [f"{QUARTERS[test.labels[i]]},\nin patch {places[i]}" for i in range(6)]
for i in range(6):  # in pink where it is not the needle
    titles.append(f"{'!' if found[i] != places[i] else ''}looks at patch {found[i]}")
maps = (weights / weights.max(axis=1, keepdims=True)).reshape(-1, 4, 4)

# %%
plots.pictures(
    [*test.images[:6, 0], *maps[:6]], titles, columns=6, name="cls_finds_the_needle",
    caption="Above noise and one needle, below the weights that CLS gives the 16"
    " patches: the whiter, the more of its attention a patch got.",
)
plt.show()

# %% [markdown]
# A warning: weights say where CLS looked, not that it *used* what it saw (lesson 11).
# And must it be CLS? Lesson 3b reads the mean of the patches, *global average pooling*.
#
# ## Your turn
#
# In test picture 0, `pictures[0, 0]`, patch 0 is `[:4, :4]`. (a) Cover its needle with
# another patch. (b) Instead, add a second needle of another class. Predict: where will
# CLS look, what will it answer? Then change a copy and call `look(copy[:1])`.
#
# ## What you can say now
#
# - CLS is D learned numbers, the same for every image: 196 patches become 197 tokens.
# - `expand` repeats without a copy. What is repeated forward is summed backward.
# - Attention fills CLS. Of the patches, the last block needs keys and values only.
# - Told only the class, CLS learns to look at the patch that decides it.
#
# ## Exercises
#
# 1. **Exercise 03**, write the backward: `minivit exercise 03 --out DIR` writes a stub,
#    and `minivit check FILE` grades what you make of it.
# 2. A larger haystack: `needles(600, 0, side=6)`, `image_size=24`. How many epochs does
#    CLS need now? Guess first.
#
# Sources: Devlin et al. 2019, Dosovitskiy et al. 2021.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=3](../explore.html#lesson=3)
