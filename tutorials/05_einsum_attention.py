# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 5. Every patch asks every patch
#
# The question: a patch is 16 pixels wide. How does it find out what the rest of the photo holds?
#
# Builds: attention, three times (loops, einsum, matrix product), its scale, its softmax, its heads and its
# backward; and a picture of what the published notebook's einsum does instead.
#
# Teach: 40 minutes. Run: 6 seconds.
#
# Axes: C channels, H W pixels, P patch side, N patches, T tokens (here T = N), q query tokens, k key tokens, D hidden
# size, h heads, d head size, B batch

# %%
import math
import time

import matplotlib.pyplot as plt
import numpy as np

from minivit import Tensor, differentiable, gradcheck, images, lessons, no_grad, notebook, ops, plots, vit, weights
from minivit.gradcheck import GradientError

photo = lessons.photo()
rng = np.random.default_rng(0)

# %% [markdown]
# ## Tokens
#
# We take the patches of a photo as they are: 16 x 16 pixels of 3 colours are 768 numbers, and those are the token.
# Each token is brought to mean 0 and variance 1. Lesson 6 says why a transformer does that. Here it helps us read
# the numbers: the dot product of two such tokens is 768 times their correlation.

# %%
P, grid = 16, (14, 14)
pixels = images.pixel_values(photo, 224).astype(np.float64)  # (C, H, W)
patches = images.patchify(pixels, P).reshape(-1, 3 * P * P)  # (T, D)
x = patches - patches.mean(1, keepdims=True)  # (T, D)
x /= np.sqrt(x.var(1, keepdims=True) + 1e-5)
T, D = x.shape
print(f"{T} tokens of {D} numbers each")

# %% [markdown]
# ## A question, an offer, an answer
#
# Each token says three things, and each of them is one linear map of the token:
#
# - the query: what am I looking for?
# - the key: what do I have to offer?
# - the value: what do I hand over when somebody picks me?
#
# Query times key is the score. Softmax turns a row of scores into shares that sum to 1. The answer is the sum of
# all values, each times its share.
#
# Training finds the three maps. We have no training yet, so we make them by hand. Query and key are *the same*
# map, 64 random directions: every patch then asks "who looks like me?". The value is the patch itself, its
# pixels from 0 to 1, so that we can look at the answer.

# %%
d = 64
directions = rng.standard_normal((d, D)) / math.sqrt(D)
q = x @ directions.T  # (T, d)
k = x @ directions.T  # (T, d)
v = patches * 0.5 + 0.5  # (T, D), pixels 0..1
print("q", q.shape, " k", k.shape, " v", v.shape)

# %% [markdown]
# ## First with loops
#
# Nothing is hidden here. For each patch that asks: one score for each patch that is asked, an exponential, a
# share, and a weighted sum.

# %%
def attention_loops(q, k, v):
    context = np.zeros((len(q), v.shape[1]))
    for i in range(len(q)):
        scores = [sum(a * b for a, b in zip(q[i], k[j], strict=True)) / math.sqrt(q.shape[1]) for j in range(len(k))]
        largest = max(scores)
        weights = [math.exp(score - largest) for score in scores]
        total = sum(weights)
        for j in range(len(k)):
            context[i] += weights[j] / total * v[j]
    return context


# %% [markdown]
# ## Then with letters, then with matrices
#
# `qd,kd->qk`, read aloud: for each query q and each key k, multiply along d and add up, since d is missing on the
# right. `qk,kD->qD`: for each query, add up over the keys. The letter that disappears is the letter that is summed.
# (Our values are D numbers wide, and not d, because they are whole patches.)
#
# Two sums of products with one shared letter: those are two matrix products.

# %%
def softmax(scores):
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def attention_einsum(q, k, v):
    scores = np.einsum("qd,kd->qk", q, k) / math.sqrt(q.shape[1])  # (q, k)
    return np.einsum("qk,kD->qD", softmax(scores), v)


def attention_matmul(q, k, v):
    return softmax(q @ k.T / math.sqrt(q.shape[1])) @ v

# %%
answers = []
for method in (attention_loops, attention_einsum, attention_matmul):
    start = time.perf_counter()
    answers.append(method(q, k, v))
    print(f"{method.__name__:18} {1000 * (time.perf_counter() - start):9.1f} ms")
for answer in [*answers, ops.scaled_dot_product_attention(q, k, v).data]:
    assert np.allclose(answer, answers[0], rtol=1e-10, atol=1e-12)
print("loops == einsum == matmul == minivit.ops.scaled_dot_product_attention")

# %%
p = softmax(q @ k.T / math.sqrt(d))  # (q, k)
context = p @ v  # (T, D)
assert np.allclose(p.sum(1), 1)
assert (context >= v.min(0) - 1e-9).all() and (context <= v.max(0) + 1e-9).all()
print("each row of p sums to 1, so the answer is an average: between the smallest and the largest value")

# %% [markdown]
# ## Why two maps and not one
#
# With one map for query and key the scores are symmetric: if I interest you, you interest me, exactly as much. A
# nose may want to find the eyes without the eyes caring about the nose. With two maps it can.

# %%
other = rng.standard_normal((d, D)) / math.sqrt(D)
one_map, two_maps = q @ k.T, q @ (x @ other.T).T  # (q, k) both
assert np.allclose(one_map, one_map.T)
between = directions.T @ other  # (D, D): a score with two maps is x between x^T
assert not np.allclose(between, between.T)
print(f"score of 6 asking 10 and of 10 asking 6: one map {one_map[5, 9]:.3f} {one_map[9, 5]:.3f},", end=" ")
print(f"two maps {two_maps[5, 9]:.3f} {two_maps[9, 5]:.3f}")

# %% [markdown]
# ## The scale, and why
#
# A score is a sum of d products. If the numbers in q and k are independent with mean 0 and variance 1, each product
# has variance 1, and their sum has variance d. So scores are about sqrt(d) large. We divide by sqrt(d), and they are
# about 1 large, whatever the head size.
#
# Why care? Softmax of large scores gives everything to one key. Its gradient is `y * (dy - sum(dy * y))`. When one
# y is 1 and all others are 0, that is 0 everywhere. The head has chosen, and it can no longer change its mind. The
# table shows the gradient of a typical query (the median of 1000).

# %%
sizes, keys = [4, 16, 64, 256, 1024], 196
rows = []
for size in sizes:
    raw = rng.standard_normal((1000, size)) @ rng.standard_normal((keys, size)).T  # (1000, keys)
    dy = rng.standard_normal(raw.shape)
    for scores in (raw, raw / math.sqrt(size)):
        y = softmax(scores)
        slope = y * (dy - (dy * y).sum(1, keepdims=True))
        rows.append((scores.std(), y.max(1).mean(), np.median(np.linalg.norm(slope, axis=1))))
rows = np.array(rows).reshape(len(sizes), 2, 3)  # (size, raw or scaled, measure)

# %%
print(f"{'':6}{'std of scores':>18}{'largest share':>18}{'size of gradient':>20}")
print("   d     raw   scaled      raw   scaled       raw    scaled")
for size, (raw, scaled) in zip(sizes, rows, strict=True):
    print(f"{size:4d} {raw[0]:7.2f} {scaled[0]:8.2f} {raw[1]:8.3f} {scaled[1]:8.3f} {raw[2]:9.4f} {scaled[2]:9.4f}")
(raw_std, scaled_std), (raw_share, scaled_share), (raw_slope, scaled_slope) = rows.T  # (size,) each
assert np.allclose(raw_std, np.sqrt(sizes), rtol=0.15) and np.allclose(scaled_std, 1, atol=0.15)
assert raw_share[-1] > 0.9 and (scaled_share < 0.2).all()
assert (raw_slope[:3] > scaled_slope[:3]).all() and raw_slope[-1] < scaled_slope[-1] / 50
assert scaled_slope.max() < 1.3 * scaled_slope.min()

# %% [markdown]
# Read the last column but one from top to bottom. A small head can live without the scale, and up to d = 64 it even
# has the larger gradient. But from 16 on it falls, and at 1024 almost nothing is left. With the scale, the head size
# makes hardly any difference.

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), dpi=100, layout="constrained")
figure.set_label("scale")
for measure, panel in enumerate(axes):
    panel.plot(sizes, rows[:, 0, measure], "o-", color="tab:red", label="q k")
    panel.plot(sizes, rows[:, 1, measure], "o-", color="tab:blue", label="q k / sqrt(d)")
    panel.set_xscale("log")
    panel.set_xticks(sizes, sizes)
    panel.set_xlabel("head size d")
    panel.grid(alpha=0.3)
    panel.legend()
axes[0].set(title="How large are the scores?", ylabel="standard deviation")
axes[1].set(title=f"The favourite of {keys} keys", ylabel="share that it gets", ylim=(0, 1.02))
axes[2].set(title="How much gradient is left?", ylabel="size of the gradient of a typical query", ylim=(0, None))
for panel in axes:
    panel.minorticks_off()
plt.show()

# %% [markdown]
# ## A softmax that does not overflow
#
# Our tokens, multiplied with each other without any map and scale, score 768 with themselves. The exponential of 768
# has 334 digits. A float64 has room for 309, up to exp(709); a float32 for 39, up to exp(88). Beyond it is infinity,
# and infinity divided by infinity is not a number.
#
# The way out costs one subtraction. Add the same number to all scores of a row, and numerator and denominator grow
# by the same factor: softmax does not notice. So subtract the largest. Then the largest exponent is 0.

# %%
row = np.array([768.0, 767.0, 0.0])  # a patch with itself, with its twin, and with a stranger
with np.errstate(over="ignore", invalid="ignore"):
    naive = np.exp(row) / np.exp(row).sum()
print("largest score of this photo's tokens without maps and scale:", f"{(x @ x.T).max():.1f}")
print("naive ", naive)
print("stable", softmax(row))
assert np.isnan(naive[0]) and np.isfinite(softmax(row)).all()
assert np.allclose(softmax(row), softmax(row - 1000)) and np.allclose(softmax(row), ops.softmax(row).data)

# %% [markdown]
# ## The published einsum, and what it does to the photo
#
# The notebook that this course follows made the context with `nhn,nhd->nhd`. It wanted `qhk,khd->qhd`.
#
# A letter that stands twice in one operand does not name two axes. It walks along both of them at once: the
# diagonal. So `nhn,nhd->nhd` reads the share that a token gives *itself*, and multiplies its own value with it.
# Nothing is summed. No token ever sees the value of another one.

# %%
PUBLISHED, CORRECTED = "nhn,nhd->nhd", "qhk,khd->qhd"
shares, values = p[:, None], v[:, None]  # (q, h, k) and (k, h, d): one head, and all D numbers are its d
published = np.einsum(PUBLISHED, shares, values)  # (q, h, d)
corrected = np.einsum(CORRECTED, shares, values)  # (q, h, d)
assert np.allclose(published[:, 0], np.diag(p)[:, None] * v)
assert np.allclose(corrected[:, 0], context)
print("published: own share x own value       corrected: sum over keys of share x value")

# %% [markdown]
# Both have the same shape, and no error is raised. Here is an experiment that tells them apart: hand over something
# else in *one* patch, and count the patches whose context notices.

# %%
changed = values.copy()
changed[90] = 1 - changed[90]  # the negative of that patch
counts = {}
for equation in (PUBLISHED, CORRECTED):
    before, after = np.einsum(equation, shares, values), np.einsum(equation, shares, changed)
    counts[equation] = int((before != after).any((1, 2)).sum())
    print(f"{equation:14} patch 91 hands over its negative: {counts[equation]:3d} of {T} contexts change")
assert counts == {PUBLISHED: 1, CORRECTED: T}

# %% [markdown]
# Since the values are pixels, the contexts are pictures. Left the photo. In the middle the published einsum: each
# patch is itself, only darker, by the share that it keeps. Right the corrected one: each patch is an average of all
# the patches that look like it. What is rare (an eye, a spire) stays sharp; what is common melts together.

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 3.8), dpi=100, layout="constrained")
figure.set_label("published_and_corrected")
titles = ("the values: the photo", f'published "{PUBLISHED}"', f'corrected "{CORRECTED}"')
for panel, picture, title in zip(axes, (values, published, corrected), titles, strict=True):
    picture = images.unpatchify(picture.reshape(T, 3, P, P), 224, 224)  # (C, H, W)
    panel.imshow(picture.transpose(1, 2, 0).clip(0, 1))
    panel.set(title=title, xticks=[], yticks=[])
axes[1].set_xlabel("own share x own patch: nobody is asked")
axes[2].set_xlabel("sum of share x patch: everybody is asked")
plt.show()

# %% [markdown]
# ## Heads are a reshape and a transpose
#
# One softmax has one opinion. Several heads have several. They need no maps of their own: one map D -> D makes the
# queries of all heads, and cutting its output into h pieces of d gives each head its part. d is D / h now.
#
# (T, D) -> reshape (T, h, d) -> transpose (h, T, d). Then the same two products run once for each head.

# %%
T_, D_, h = 5, 12, 3
d_ = D_ // h
tokens = rng.standard_normal((T_, D_))
wq, wk, wv, wo = rng.standard_normal((4, D_, D_)) / math.sqrt(D_)


def split(y):
    return y.reshape(T_, h, d_).transpose(1, 0, 2)  # (h, T, d)


queries = split(tokens @ wq.T)  # (h, T, d)
for head in range(h):
    block = wq[head * d_ : (head + 1) * d_]  # (d, D)
    assert np.allclose(queries[head], tokens @ block.T)
    print(f"the queries of head {head + 1} come from rows {head * d_} to {head * d_ + d_ - 1} of the one matrix")

# %% [markdown]
# Can the reshape go to (h, T, d) at once? It gives the right shape and the wrong numbers: "head 1" then holds pieces
# of the first tokens, and no whole axis of tokens at all.

# %%
at_once = (tokens @ wq.T).reshape(h, T_, d_)  # (h, T, d), and wrong
assert at_once.shape == queries.shape and not np.allclose(at_once, queries)
numbers = np.repeat(np.arange(T_), D_).reshape(h, T_, d_)
print("whose numbers does head 1 hold? with the transpose: tokens 0 1 2 3 4, one row each;")
print("without it, row by row: tokens", *numbers[0, :, 0])

# %% [markdown]
# ## Where the output matrix is
#
# The heads' answers are put side by side again: (h, T, d) -> (T, h, d) -> (T, D). Now the first d numbers come from
# head 1, the next d from head 2. One more matrix, the *output matrix*, mixes them. It can be read in two ways:
# side by side and then one matrix; or each head through its own columns, and the sum of all.

# %%
probabilities = softmax(queries @ split(tokens @ wk.T).transpose(0, 2, 1) / math.sqrt(d_))  # (h, q, k)
heads = probabilities @ split(tokens @ wv.T)  # (h, T, d)
side_by_side = heads.transpose(1, 0, 2).reshape(T_, D_)  # (T, D)
output = side_by_side @ wo.T  # (T, D)
each = sum(heads[i] @ wo[:, i * d_ : (i + 1) * d_].T for i in range(h))  # (T, D)
assert np.allclose(output, each)
print("one matrix on all heads side by side == the sum of each head through its own columns")

# %% [markdown]
# In minivit, as in transformers, the output matrix is not in `ViTSelfAttention`. It is `ViTSelfOutput.dense`, and
# `ViTAttention` is both together. With our numbers in them, they give our numbers.

# %%
config = vit.ViTConfig(hidden_size=D_, num_attention_heads=h, intermediate_size=7, qkv_bias=False)
layer = vit.ViTAttention(config).to(np.float64)
for part, weight in zip(("query", "key", "value"), (wq, wk, wv), strict=True):
    getattr(layer.attention, part).weight.data = weight
layer.output.dense.weight.data = wo
by_class, [by_class_p] = layer(Tensor(tokens[None]), output_attentions=True)
assert np.allclose(by_class.data[0], output) and np.allclose(by_class_p.data, probabilities)
for name, parameter in layer.named_parameters():
    print(f"{name:24} {parameter.shape}")

# %% [markdown]
# The notebook has no output matrix, and all its heads share one small map. Then a head reads only its own slice of
# the token and writes only into its own slice. Change the first slice of every token: in the notebook the other
# heads never hear of it. Here everything changes.

# %%
shared = notebook.MultiheadSelfAttention(D_, h, rng=0).to(np.float64)
moved = tokens.copy()
moved[:, :d_] += rng.standard_normal((T_, d_))
in_notebook = (shared(tokens, tokens, tokens).data != shared(moved, moved, moved).data).any(0)  # (D,)
in_vit = (layer(Tensor(tokens[None]))[0].data != layer(Tensor(moved[None]))[0].data).any((0, 1))  # (D,)
print("numbers of a token that notice: notebook", in_notebook.astype(int), " ViT", in_vit.astype(int))
assert in_notebook[:d_].all() and not in_notebook[d_:].any() and in_vit.all()

# %% [markdown]
# ## How to see attention
#
# Ask the model for it: `model(pixel_values, output_attentions=True).attentions` has one array (B, h, q, k) for each
# block. Choose a block, a picture, a head and a token that asks, and a row is left: one share for each token. Drop
# the first number if there is a CLS. Fold the rest into the grid of patches. Lay it over the photo.
#
# We ask two models of one shape. The first is untrained. The second is DINOv2's smallest, which learned from photos
# without labels (lesson 13). It takes the photo at its own ratio, in patches of 14 pixels. The patch in the middle
# asks, in block 4.

# %%
eye = weights.dinov2_small()
blank = vit.ViTModel(eye.config, add_pooling_layer=False, rng=0).eval()
picture = images.fit_patches(photo, 14, patches=384)
rows, columns = picture.height // 14, picture.width // 14
middle = 1 + rows // 2 * columns + columns // 2  # 0 is CLS
seen = images.pixel_values(picture, picture.size[::-1], **images.IMAGENET)[None]  # (B, C, H, W)
asked = {}
for name, model in (("untrained", blank), ("trained", eye)):
    with no_grad():
        attentions = model(seen, output_attentions=True, interpolate_pos_encoding=True).attentions
    asked[name] = attentions[3].data[0, :, middle]  # block 4, picture 1, all heads: (h, k)
    one = asked[name][2]  # head 3: (k,)
    folded = one[1:].reshape(rows, columns)
    print(f"{name:9}: {len(attentions)} blocks, each {attentions[0].shape}; a row {one.shape}, its map {folded.shape}")
    largest = asked[name].max(1) * len(one)
    print("  largest share of each head, in even shares:", *(f"{share:.1f}" for share in largest))
    assert np.allclose(asked[name].sum(1), 1, atol=1e-5)
assert asked["untrained"].max() * len(one) < 3 and asked["trained"].max() > 4 * asked["untrained"].max()

# %%
figure = plots.attention_over_photo(picture, asked["trained"], (rows, columns), middle)
figure.suptitle("Six trained heads of block 4: what one patch asks for")
figure.set_label("trained_heads")
plt.show()

# %% [markdown]
# An untrained model asks nothing in particular: its shares are nearly even. The trained heads differ. Most often some
# ask for the nearest patches, others for what looks alike far away, and some for CLS.
#
# To see what heads *can* ask, we write three by hand: who has my colour, who is near me, and who has my colour and
# is not too far. "Near" is a distance, and a score is a dot product. But `-|a - b|^2 = 2 a b - |b|^2 - |a|^2`, and
# `|a|^2` is the same along the whole row, so softmax does not notice it. Query `(2 a, -1)` and key `(b, |b|^2)`: a
# distance is one dot product.

# %%
def near(a):
    query = np.concatenate([2 * a, -np.ones((T, 1))], axis=1)  # (T, n + 1)
    key = np.concatenate([a, (a * a).sum(1, keepdims=True)], axis=1)  # (T, n + 1)
    return softmax(query @ key.T)  # (q, k)


colour = v.reshape(T, 3, -1).mean(2) / 0.08  # (T, 3), 1 is a difference of 0.08 in one colour
place = np.stack(np.divmod(np.arange(T), grid[1]), axis=1) / 2.0  # (T, 2), 1 is a distance of 2 patches
both = np.concatenate([colour * 0.7, place * 0.5], axis=1)  # (T, 5), each of the two a little less strict
maps = np.stack([near(colour), near(place), near(both)])  # (h, q, k)
distance = ((place[:, None] - place) ** 2).sum(2)  # (q, k)
assert np.allclose(maps[1], softmax(-distance)) and np.allclose(maps.sum(2), 1)

# %%
asking = int((np.ptp(colour, axis=1) + v.std(1)).argmax())  # the patch furthest from grey; in a grey photo, of contrast
figure = plots.attention_over_photo(images.to_image(pixels), maps[:, asking], grid, asking + 1)
figure.suptitle("Three heads by hand: 1 asks for my colour, 2 for my neighbours, 3 for both, less strictly")
figure.set_label("attention_maps")
plt.show()

# %% [markdown]
# ## Backward, line by line
#
# Forward has three steps. Backward walks them upwards. `dy` comes in; it means: how much does the loss change when y
# changes a little?
#
# 1. `y = p v` is a matrix product. Each factor's gradient is `dy` times the other factor: `dp = dy v^T` and
#    `dv = p^T dy`. With unequal sizes the shapes leave no other choice. In self-attention p is square, and `p dy`
#    would fit as well: so we check with unequal ones.
# 2. `p = softmax(s)`. Raising one score raises its own share and lowers all others in the row: a small step of s_i
#    moves p_j by p_j ((i == j) - p_i) times that step. So s_i gets `ds_i = sum_j dp_j p_j ((i == j) - p_i)`, and that
#    is `p_i (dp_i - sum_j dp_j p_j)`. In words: what this key earns, less what the average key earns, times its share.
# 3. `s = q k^T / sqrt(d)`, a matrix product again, and the scale: `dq = ds k / sqrt(d)`, `dk = ds^T q / sqrt(d)`.

# %%
@differentiable
def attend(q, k, v):
    scale = 1 / math.sqrt(q.shape[-1])
    p = softmax(q @ k.T * scale)  # (q, k)
    y = p @ v  # (q, d)

    def backward(dy):
        dp, dv = dy @ v.T, p.T @ dy  # (q, k) and (k, d)
        ds = p * (dp - (dp * p).sum(1, keepdims=True))  # (q, k)
        return ds @ k * scale, ds.T @ q * scale, dv

    return y, backward


sizes = (3, 4), (5, 4), (5, 2)  # three queries, five keys, and nothing equal: a swapped axis cannot pass
assert gradcheck(attend, *(rng.standard_normal(size) for size in sizes))
print("attend: backward agrees with finite differences in every entry")

# %% [markdown]
# Now on the photo, against minivit: once from its small ops, where the tape finds the way back, and once with its
# fused op. On many tokens that one never holds all scores at once; our 196 x 196 fit into its first tile (lesson 12).

# %%
ways = {"by hand": attend, "small ops": lambda *a: ops.attention(*a)[0], "fused": ops.scaled_dot_product_attention}
dy = rng.standard_normal((T, D))
gradients = {}
for name, way in ways.items():
    leaves = [Tensor(a, requires_grad=True) for a in (x @ directions.T, x @ other.T, v)]
    way(*leaves).backward(dy)
    gradients[name] = [leaf.grad for leaf in leaves]
    print(f"{name:9}", *(f" |d{n}| = {np.linalg.norm(g):.6f}" for n, g in zip("qkv", gradients[name], strict=True)))
    for ours, theirs in zip(gradients["by hand"], gradients[name], strict=True):
        assert np.allclose(ours, theirs, rtol=1e-8, atol=1e-10)

# %% [markdown]
# And two mistakes, so that we have seen them caught: a scale that backward forgot, and a softmax whose keys do not
# know of each other.

# %%
def mistaken(forget_scale):
    @differentiable
    def scores_to_shares(q, k):
        scale = 1 / math.sqrt(q.shape[-1])
        p = softmax(q @ k.T * scale)  # (q, k)

        def backward(dp):
            ds = p * (dp - (dp * p).sum(1, keepdims=True)) if forget_scale else p * dp
            back = 1 if forget_scale else scale
            return ds @ k * back, ds.T @ q * back

        return p, backward

    return scores_to_shares


# %%
for forget_scale in (True, False):
    try:
        gradcheck(mistaken(forget_scale), rng.standard_normal((3, 4)), rng.standard_normal((5, 4)))
    except GradientError as error:
        print(error, end="\n\n")
    else:
        raise AssertionError("a wrong backward was not caught")

# %% [markdown]
# ## What you can say now
#
# - Attention is two matrix products with a softmax between them. Loops, einsum and matrix products give the same
#   numbers.
# - We divide by sqrt(d) because a sum of d products is sqrt(d) large, and a softmax of very large scores stops
#   learning.
# - Subtracting the largest score changes nothing, and saves the exponential from infinity.
# - Heads are a reshape and a transpose; the output matrix mixes them, and it stands in `ViTSelfOutput`.
# - A letter twice in one operand of einsum is a diagonal. In the published notebook no token saw another's value.
# - To see attention, take one row, `attentions[block][b, head, query]`, and fold it into the grid of patches.
#
# ## Exercises
#
# - Exercise 05: write the backward of a head that uses one map for query and key, `softmax(x x^T / sqrt(d)) v`. Its
#   x goes two roads. `minivit exercise 05 --out DIR` writes the stub, `minivit check FILE` grades it.
# - Write a fourth head by hand: "who is in my row?". Then one for "who looks least like me?".
# - Leave out the scale in "who looks like me?" and draw the three pictures again. What happened to the right one,
#   and why does it now resemble the photo?
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=5](../explore.html#lesson=5)
