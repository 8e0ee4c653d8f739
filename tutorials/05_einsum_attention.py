# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 5. Every patch asks every patch
#
# The question: a patch is 16 pixels wide. How does it find out what the rest of the
# photo holds?
#
# Builds: attention by loops, einsum and matrix products, its scale and its softmax; and
# a picture of what one repeated letter does to a photo.
#
# New ideas: (1) query, key and value; (2) scores, and the *attention weights* made of
# them; (3) einsum: the letter that disappears is summed; (4) the scale 1 / sqrt(d),
# which keeps softmax from *saturating*; (5) a softmax that does not overflow; (6) a
# letter twice is a diagonal.
#
# Teach: 45 minutes. Run: 4 seconds.
#
# Axes: C channels, H W pixels, P patch side, T tokens (here the patches, no CLS), q
# query tokens, k key tokens, D hidden size, h heads, d head size

# %%
import math

import matplotlib.pyplot as plt
import numpy as np

from minivit import Tensor, images, lessons, ops, plots

photo = lessons.photo()
rng = np.random.default_rng(0)
P = 16
grid = 224 // P, 224 // P  # (rows, columns)
pixels = images.pixel_values(photo, 224).astype(np.float64)  # (C, H, W), from -1 to 1
patches = images.patchify(pixels * 0.5 + 0.5, P).reshape(-1, 3 * P * P)  # (T, D), 0..1
x = patches - patches.mean(1, keepdims=True)  # (T, D)
x /= np.sqrt(x.var(1, keepdims=True) + 1e-5)  # lesson 6 says why
T, D = x.shape
print(f"{T} tokens of {D} numbers each, brought to mean 0 and variance 1")


def picture(y):  # tokens (T, D) as a picture (H, W, C)
    return images.unpatchify(y.reshape(T, 3, P, P), 224, 224).transpose(1, 2, 0)

# %% [markdown]
# ## A question, an offer, an answer
#
# Each token says three things, and each of them is one linear map of the token:
#
# - the *query*: what am I looking for?
# - the *key*: what do I have to offer?
# - the *value*: what do I hand over when somebody picks me?
#
# Query times key, a dot product, is the *score*. Softmax turns a row of scores into
# shares that sum to 1, the *attention weights*. The answer is the sum of all values,
# each times its weight: a weighted mean.
#
# Training finds the three maps. We make them by hand: query and key are *the same* map,
# 64 random directions: each patch asks "who looks like me?". All get one length, or
# long keys would win, whoever asks. The value is the patch itself, to be looked at.

# %%
d = 64
directions = rng.standard_normal((d, D)) / math.sqrt(D)
query = x @ directions.T  # (T, d)
length = np.linalg.norm(query, axis=1, keepdims=True) + 1e-9  # a white patch has 0
query *= math.sqrt(d) / length
key, value = query, patches  # (T, d), (T, D)
print("query", query.shape, " key", key.shape, " value", value.shape)

# %% [markdown]
# ## Three times the same
#
# First with loops, where nothing is hidden. Then with letters. `qd,kd->qk`, read aloud:
# for each query q and each key k, multiply along d and add up. The letter that
# disappears on the right is summed. One shared letter, summed, is a matrix product:
# attention is two of them, and a softmax between.

# %%
def softmax(s):
    p = np.exp(s - s.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def attention_loops(query, key, value):
    y = np.zeros((len(query), value.shape[1]))
    for q in range(len(query)):
        s = [sum(query[q] * key[k]) / math.sqrt(d) for k in range(len(key))]
        p = [math.exp(score - max(s)) for score in s]  # - max(s): see below
        for k in range(len(key)):
            y[q] += p[k] / sum(p) * value[k]
    return y


def attention_einsum(query, key, value):
    s = np.einsum("qd,kd->qk", query, key) / math.sqrt(d)  # (q, k)
    return np.einsum("qk,kD->qD", softmax(s), value)  # (q, D)


def attention_matmul(query, key, value):
    return softmax(query @ key.T / math.sqrt(d)) @ value  # (q, D)

# %%
ways = attention_loops, attention_einsum, attention_matmul
answers = [way(query, key, value) for way in ways]
answers.append(ops.scaled_dot_product_attention(query, key, value).data)
assert all(np.allclose(y, answers[0], rtol=1e-10, atol=1e-12) for y in answers)
print("loops == einsum == matmul == ops.scaled_dot_product_attention")

# %% [markdown]
# ## One row of weights is a map of the photo
#
# Row q says how query q spreads its attention over the keys. Fold its 196 numbers into
# 14 x 14, and lay them over the photo. Itself a patch likes best. Like means here like
# in pixels, brightness taken out: a pattern of light. A nose, training must teach.

# %%
p = softmax(query @ key.T / math.sqrt(d))  # (q, k)
asks = int(np.ptp(patches.reshape(T, 3, -1).mean(2), axis=1).argmax())  # most coloured
least, *_, second, first = np.sort(p[asks])
print(f"patch {asks}: itself {first:.3f}, the next {second:.3f}, the last {least:.5f}")
assert np.allclose(p.max(1), p.diagonal())

# %%
plots.attention_over_photo(
    images.to_image(pixels), p[asks], grid, query=asks + 1,  # there 0 is CLS
    name="one_row", caption="The outlined patch asks in 64 random directions: the "
    "brighter, the more weight; beyond the arrow all are yellow, itself the most.",
)
plt.show()

# %% [markdown]
# ## The scale, and why
#
# A score is a sum of d products. If the numbers in query and key are independent with
# mean 0 and variance 1, each product has variance 1, and variances add: the sum has
# variance d. Scores are about sqrt(d) large; divided by sqrt(d), about 1, at any d.
#
# Why care? Softmax of large scores gives nearly everything to one key. It *saturates*:
# a small step of the scores then changes almost nothing. Let an error come back: which
# gradient arrives at a typical query, the median of 1000 (`backward`: lesson 8)?

# %%
def arrives(d, scale):
    query = Tensor(rng.standard_normal((1000, d)), requires_grad=True)
    p = ops.softmax(query @ rng.standard_normal((196, d)).T * scale)  # (q, k)
    p.backward(rng.standard_normal(p.shape))  # as if a random error arrived
    slope = np.linalg.norm(query.grad, axis=1)  # (q,), how large each gradient is
    return p.data.max(1).mean(), np.median(slope)


sizes = [4, 16, 64, 256, 1024]
rows = np.array([[arrives(d, 1), arrives(d, 1 / math.sqrt(d))] for d in sizes])
raw, scaled = rows.transpose(1, 2, 0)  # (size, way, measure): (measure, size) each
print("         largest weight  typical gradient")
print("   d       raw  scaled      raw  scaled")
for i, size in enumerate(sizes):
    print(f"{size:4}", *(f"{a:9.3f} {b:7.3f}" for a, b in rows[i].T))
assert scaled[1].max() < 1.3 * scaled[1].min() and raw[1, -1] < scaled[1, -1] / 3

# %% [markdown]
# Scaled, the gradient is .1 at any d. Raw, it is *larger* at first, for the factor is
# missing on the way back, too. Then softmax saturates: half of the queries get next to
# nothing. Vaswani et al.'s reason (2017) is the saturation.

# %%
plots.curves(
    dict(lines={"raw": (sizes, raw[0]), "scaled": (sizes, scaled[0])}, xscale="log",
         title="largest of 196 weights", xlabel="head size d", xticks=sizes),
    dict(lines={"raw": (sizes, raw[1]), "scaled": (sizes, scaled[1])}, xscale="log",
         title="median gradient", xlabel="head size d", xticks=sizes, yscale="log"),
    name="scale", caption="Scaled is flat, the head size does not matter; raw, one key "
    "takes nearly all, and the gradient first rises, then goes to nothing.",
)
plt.show()

# %% [markdown]
# ## A softmax that does not overflow
#
# Without maps and scale, a token scores 768 with itself (768 squares, mean 1). exp(768)
# is infinity (in float32 exp(89) is), infinity by infinity is not a number. But what is
# added to all scores is one factor above and below the line: so subtract the largest.

# %%
row = np.array([768.0, 767.0, 0.0])  # with itself, with its twin, with a stranger
with np.errstate(over="ignore", invalid="ignore"):
    print("naive ", np.exp(row) / np.exp(row).sum())
print("stable", softmax(row))
assert np.allclose(softmax(row), softmax(row - 1000))

# %% [markdown]
# ## A letter twice is a diagonal
#
# Several attentions side by side are called heads, letter h (5b; here one). The
# weighted mean is then `qhk,khd->qhd`. What if both token axes are called n, as in
# `nhn,nhd->nhd`? A letter twice in one operand does not name two axes. It walks along
# both at once: the diagonal, the weight a token gives *itself*, times its own value.
# The shape is right, nothing is summed: no token receives the *value* of another. Let
# *one* patch hand over something else, and count the answers that notice.

# %%
weights, values = p[:, None], value[:, None]  # (q, h, k), (k, h, 768): one head
changed = values.copy()
changed[40] = 1 - changed[40]  # patch 40 hands over its negative
answer, notice = {}, {}
for letters in ("nhn,nhd->nhd", "qhk,khd->qhd"):
    answer[letters] = np.einsum(letters, weights, values)  # (q, h, 768)
    after = np.einsum(letters, weights, changed)
    notice[letters] = int((answer[letters] != after).any((1, 2)).sum())
    print(f"{letters}: {notice[letters]:3} of {T} answers notice")
assert notice == {"nhn,nhd->nhd": 1, "qhk,khd->qhd": T}, "a weight too small to see"

# %%
plots.pictures(
    [picture(y) for y in (values, *answer.values(), 8 * answer["nhn,nhd->nhd"])],
    ["values: the photo", *answer, "nhn,nhd->nhd, times 8"],
    name="diagonal", caption="Second: each patch times the weight it gives itself, "
    "dark if that is small; third: each is a mean of its likes, rare ones are sharper.",
)
plt.show()

# %% [markdown]
# ## Your turn
#
# Once more "who looks like me?": `y = softmax(query @ key.T * scale) @ value` with
# `scale = 0`, and with `scale = 1`. Write down first what each makes of the photo. Then
# draw `plots.pictures([picture(y)])` in a new cell, shown as above; or at the end of a
# copy, and `python my05.py PHOTO` (in a window). Which is nearly the photo, and why?

# %% [markdown]
# ## What you can say now
#
# - Attention is two matrix products and a softmax: means of values, by weights.
# - 1 / sqrt(d) keeps softmax from saturating, and the gradient of one size at any d.
# - Subtracting the largest score changes nothing, and saves exp from infinity.
# - A letter twice in one operand of einsum is a diagonal.
#
# ## Exercises
#
# - Pencil sheet: [sheets/attention.md](sheets/attention.md), 1 to 3; after 5b 4 to 8.
# - After 5b: `minivit exercise 05 --out DIR`, "who looks like me?", backward.
# - Scores are symmetric here, weights not: find the pair with the largest `p - p.T`.
#
# Sources: Vaswani et al. 2017, section 3.2.1.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=5](../explore.html#lesson=5)
