# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 2. A patch becomes a vector
#
# The question: how does a little square of pixels become a token, and how does a
# gradient find its way back to the pixels?
#
# Builds: the patch embedding, as one matrix product and as a convolution; its backward
# by hand; filters that learn with it, until you can see what they look for.
#
# New ideas: (1) a filter is a question, the dot product its answer; (2) normalisation,
# cosine similarity; (3) linear layer; (4) gradient and backward, a vector-Jacobian
# product; (5) finite differences; (6) gradient descent; (7) the gradient in the pixels.
#
# Teach: 45 minutes. Run: 2 seconds.
#
# Axes: C channels, H W pixels, P patch side, N patches, I = C * P * P numbers in a
# patch, D hidden size; n, i, j one of the N, I, D.

# %%
import matplotlib.pyplot as plt
import numpy as np

from minivit import Tensor, gradcheck, images, lessons, ops, plots

pixels = images.pixel_values(lessons.photo(), size=224)  # (C, H, W), from -1 to 1
C, P, N, I, D = 3, 16, 14 * 14, 3 * 16 * 16, 768
patches = images.patchify(pixels, P).reshape(-1, I)  # (N, I)

# %% [markdown]
# ## A question to a patch
#
# A patch is a vector already, but each of its 768 numbers is only a brightness. Better
# numbers are answers: is there an edge? Is it reddish? A question is a second patch,
# the *filter*. Lay it over the patch, multiply number by number, add up: the *dot
# product*. It is large where the patch looks like the filter. Where will it find this
# edge, dark on the left and bright on the right?

# %%
edge = np.arange(I) % P >= P // 2  # number i lies in column i % P of the patch
answers, brightness = patches @ edge, patches.mean(1)  # (N,) each
print(f"correlation with the brightness {np.corrcoef(answers, brightness)[0, 1]:.2f}")

# %% [markdown]
# We asked for an edge, and were told what is bright! To a filter of positive numbers
# every bright patch gives a large product. So first take each patch's mean colour away,
# and divide by its length: *normalisation*. The dot product is then the *cosine
# similarity*: 1 for the same pattern, 0 for nothing in common, -1 for the negative.

# %%
def normalised(patches):
    channels = patches.reshape(-1, C, P * P)
    pattern = (channels - channels.mean(2, keepdims=True)).reshape(-1, I)
    length = np.linalg.norm(pattern, axis=1, keepdims=True)
    return pattern / np.maximum(length, 1e-3)  # a patch of one colour has no pattern


cosines = normalised(patches) @ normalised(edge)[0]  # (N,)
print(f"correlation with the brightness {np.corrcoef(cosines, brightness)[0, 1]:.2f}")
assert np.all(abs(cosines) < 1 + 1e-6)

# %%
plots.heatmaps(
    [y.reshape(14, 14) for y in (brightness, answers, cosines)], ["brightness",
    "dot product with the edge", "cosine with the edge"], signed=True, share=False,
    name="edge_question", caption="A square is a patch, red above 0, blue below: left "
    "and middle are nearly one picture; the right one tells where it is darker left.",
)
plt.show()

# %% [markdown]
# A Vision Transformer does not normalise its patches: it may learn filters that sum to
# 0, to which brightness is nothing. But remember: a large answer may say *like the
# filter*, and it may say *bright*.
#
# ## All questions to all patches
#
# D filters give D answers, and these are the *token*. Every row with every row is a
# matrix product. So the *patch embedding* is one line, a *linear layer*.

# %%
rng = np.random.default_rng(0)
weight = 0.02 * rng.standard_normal((D, I), dtype=np.float32)  # one filter a row
bias = 0.02 * rng.standard_normal(D, dtype=np.float32)


def embed(patches, weight, bias):
    return patches @ weight.T + bias  # (N, I) @ (I, D) -> (N, D)


tokens = embed(patches, weight, bias)
print(f"{patches.shape} @ {weight.T.shape} + {bias.shape} -> {tokens.shape}")

# %% [markdown]
# 768 numbers go in, because 3 * 16 * 16 = 768, and 768 come out, because ViT-Base has
# chosen so. ViT-Tiny has chosen 192. Lesson 1 promised that a convolution whose stride
# is its kernel does the same. Its filters are our rows, folded to little pictures:

# %%
by_convolution = ops.conv2d(pixels[None], weight.reshape(D, C, P, P), bias, stride=P)
difference = abs(by_convolution.data.reshape(D, N).T - tokens).max()
print(f"answers up to {abs(tokens).max():.2f}, largest difference {difference:.1e}")
print(f"{0.1 + (0.2 + 0.3) = }, {(0.1 + 0.2) + 0.3 = }")
assert difference < 1e-4

# %% [markdown]
# Why not 0? A computer rounds after each addition, to 7 digits in float32, and the two
# add in another order. (Where both happen to use one order, you read 0.0e+00.)
#
# ## The way back
#
# Learning asks: which way with each number, for the *loss* to fall? Its *gradient* says
# how much the loss grows when the number grows a little. From above comes `dtokens`,
# the gradient of each answer. We want it for all that the answers are made of:
#
#     tokens[n, j] = sum over i of patches[n, i] * weight[j, i]  +  bias[j]
#
# Which answers does each of them touch, and how strongly?
#
# - `bias[j]` touches answer j of *every* patch, with strength 1: add up over n.
# - `weight[j, i]` touches answer j of every patch, with the strength `patches[n, i]`.
# - `patches[n, i]` touches *all* answers of its patch, with strength `weight[j, i]`.
#
# ## Your turn
#
# Two of the three are products of two of `dtokens` (N, D), `patches` (N, I), `weight`
# (D, I). Cover the next cell and write them: the letter that is summed stands in the
# middle. (D and I are both 768: a wrong transpose has the right shape!)

# %%
def embed_backward(dtokens, patches, weight):
    dbias = dtokens.sum(0)  # (D,)
    dweight = dtokens.T @ patches  # (D, N) @ (N, I) -> (D, I)
    dpatches = dtokens @ weight  # (N, D) @ (D, I) -> (N, I)
    return dpatches, dweight, dbias


dtokens = rng.standard_normal((N, D))  # made up, for now
dpatches, dweight, dbias = embed_backward(dtokens, patches, weight)
print(f"the Jacobian would have {tokens.size:,} * {patches.size:,} numbers")
assert np.allclose(dpatches, np.einsum("nj,ji->ni", dtokens, weight))

# %% [markdown]
# The derivatives of all answers by all pixels are the *Jacobian*. Nobody builds its 22
# billion numbers: a backward gives `dtokens` times the Jacobian, the *vector-Jacobian
# product*, in one matrix product.
#
# ## Is it right? Nudge and see
#
# Nudge one number up and down, see how far the loss moves, divide: a *finite
# difference*. With `sum(tokens * dtokens)` as the loss, `dtokens` is its gradient.
# `gradcheck` nudges every number, here of small photos in the library's convolution.

# %%
nudge = np.zeros((D, I))
nudge[7, 300] = 1e-3
up, down = (embed(patches, weight + by, bias) * dtokens for by in (nudge, -nudge))
print(f"backward {dweight[7, 300]:+.5f}, nudged {(up - down).sum() / 2e-3:+.5f}")
small = [rng.standard_normal(shape) for shape in ((2, 3, 4, 9), (5, 3, 2, 3), (5,))]
assert gradcheck(lambda *arrays: ops.conv2d(*arrays, stride=(2, 3)), *small)

# %% [markdown]
# ## Let the filters learn
#
# A task without labels: from 16 answers, draw the patch again. That is two of our
# layers, 16 filters that ask and 16 brushes that draw; the loss is the squared
# difference. *Gradient descent*: move each number a little against its gradient, 300
# times. We take patches of your photo and of the three in the box, normalised.

# %%
box = [lessons.photo(), *map(images.photo, ("cat.jpg", "coffee.jpg", "pagoda.jpg"))]
many = [images.patchify(images.pixel_values(photo, size=448), P) for photo in box]
many = normalised(np.concatenate(many))  # (3136, I)
filters, brushes = (0.01 * rng.standard_normal(shape) for shape in ((16, I), (I, 16)))
before, lr = filters.copy(), 1.0
for step in range(301):
    some = many[rng.integers(len(many), size=256)]
    tokens = embed(some, filters, 0)  # (256, 16)
    drawn = embed(tokens, brushes, 0)  # (256, I)
    lost = ((drawn - some) ** 2).sum() / (some**2).sum()
    ddrawn = 2 * (drawn - some) / len(some)
    dtokens, dbrushes, _ = embed_backward(ddrawn, tokens, brushes)
    _, dfilters, _ = embed_backward(dtokens, some, filters)
    filters, brushes = filters - lr * dfilters, brushes - lr * dbrushes
    if step % 100 == 0:
        print(f"step {step:>3}: {lost:.0%} of the patches is lost")
shown = [f.reshape(C, P, P).transpose(1, 2, 0) for f in (*before[:8], *filters[:8])]
shown = [0.5 + 0.5 * f / abs(f).max() for f in shown]  # 0 is grey
assert lost < 0.5

# %%
plots.pictures(
    shown, ["before"] * 8 + ["after"] * 8, columns=8, name="filters",
    caption="Eight of the filters before and after learning: out of the noise came "
    "soft edges, spots, one colour against another, and nobody told them to.",
)
plt.show()

# %% [markdown]
# The first principal components of a large ViT's filters look alike (Dosovitskiy et al.
# 2021, figure 7). Lesson 2b asks how good 16 filters can be. And look at the two lines
# of the backward: what the second layer calls `dpatches` is `dtokens` to the first.
# That is *backpropagation*: lesson 8.
#
# ## The gradient in the pixels
#
# Take one answer as loss: of patch 100 to filter 3. `dtokens` is a single 1, so
# `dtokens @ weight` is filter 3 in patch 100, and 0 in the other 195: the gradient in
# the pixels shows what was looked for. Now all answers: with half the sum of their
# squares as the loss, `dtokens` is the tokens. At the end, `unpatchify`.

# %%
dpatches, _, _ = embed_backward(embed(patches, filters, 0), patches, filters)
dpixels = images.unpatchify(dpatches.reshape(N, C, P, P), 224, 224)  # (C, H, W)
x = Tensor(pixels[None].astype(float), requires_grad=True)
y = ops.conv2d(x, filters.reshape(16, C, P, P), stride=P)
((y**2).sum() / 2).backward()  # the library's way back
print(f"gradient in the pixels {dpixels.shape}")
assert np.allclose(x.grad[0], dpixels)

# %%
plots.pixel_gradient(
    images.to_image(pixels), dpixels, name="pixel_gradient",
    caption="The photo as 16 filters see it: the seams are the patches, and where it "
    "is dark on the right this loss, here and now, is flat: it may still be heard.",
)
plt.show()

# %% [markdown]
# ## What you can say now
#
# - A patch embedding is one matrix product, and a convolution with stride = kernel.
# - A dot product says "looks like it" and "is bright"; normalised, it is a cosine.
# - The backward is two matrix products and a sum; finite differences check it.
# - A filter is a picture of what is looked for; the gradient in the pixels shows it.
#
# ## Exercises
#
# 1. Exercise 02, the backward for a batch: `minivit exercise 02` writes the stub, and
#    `minivit check 02` grades it.
# 2. Learn on patches that are not normalised, `lr` 0.001. What comes first, and why?
#
# Sources: Dosovitskiy et al. 2021.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=2](../explore.html#lesson=2)
