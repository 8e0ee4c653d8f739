# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 2. A patch becomes a vector
#
# The question: how does a little square of pixels become a token, and how does the gradient find the way
# back?
#
# Builds: the patch embedding, as one matrix product and as a convolution; its backward by hand; and filters
# that learn with it, until you can see what they look for.
#
# Teach: 30 minutes. Run: 4 seconds.
#
# Axes: B batch, C channels, H W pixels, P patch side, N patches, I = C * P * P numbers in a patch, D hidden
# size.

# %%
import matplotlib.pyplot as plt
import numpy as np

from minivit import Tensor, gradcheck, images, lessons, nn, notebook, ops, optim, plots, vit

photo = lessons.photo()

# %% [markdown]
# ## First a small helper: `to_2tuple`
#
# You meet it in every published Vision Transformer. Sizes may come as one number, 16, or as a pair, height
# and width. Inside the model we always want the pair. So: a number is doubled, a pair stays as it is.

# %%
def to_2tuple(x):
    return tuple(x) if isinstance(x, (tuple, list)) else (x, x)


for given in (224, 16, (224, 112), [16, 8]):
    print(f"to_2tuple({given}) = {to_2tuple(given)}")
    assert to_2tuple(given) == vit.to_2tuple(given)

image_size, patch_size = to_2tuple(224), to_2tuple(16)
Y, X = (size // patch for size, patch in zip(image_size, patch_size, strict=True))
print(f"{image_size} in patches of {patch_size}: {Y} x {X} = {Y * X} patches")
assert Y * X == 196

# %% [markdown]
# ## A patch is already a vector. Why another one?
#
# From lesson 1 we have 196 patches of 3 x 16 x 16 pixels. Write the pixels of a patch in one row, and it is a
# vector of 768 numbers. But these numbers are brightnesses, and a brightness says little. Better numbers
# would be answers: is this bright? Is there an edge? Is it reddish?
#
# A question to a patch is a second patch, the filter. Lay it over the patch, multiply pixel by pixel, add up.
# A large sum says: the patch looks like the filter. D filters give D answers, and the D answers are the
# token.

# %%
B, C, P, D = 1, 3, 16, 768
I = C * P * P
pixel_values = images.pixel_values(photo, size=224)[None]  # (B, C, H, W)
patches = images.patchify(pixel_values[0], P).reshape(-1, I)  # (N, I)
N = len(patches)

rng = np.random.default_rng(0)
weight = rng.standard_normal((D, I), dtype=np.float32) * np.float32(0.02)  # one filter a row
bias = rng.standard_normal(D, dtype=np.float32) * np.float32(0.02)

n, k = 100, 7
answer = sum(patches[n, i] * weight[k, i] for i in range(I)) + bias[k]
print(f"patches[{n}], filter {k}: {answer:+.6f}")

# %% [markdown]
# That is one patch and one filter. We need all 196 patches and all 768 filters. But "multiply and add up, for
# every row with every row" is what a matrix product is. So the whole layer is one line.

# %%
tokens = patches @ weight.T + bias  # (N, D)
print(f"patches {patches.shape} @ weight.T {weight.T.shape} + bias {bias.shape} -> tokens {tokens.shape}")
assert tokens.shape == (196, 768)
assert np.isclose(tokens[n, k], answer, rtol=1e-4, atol=1e-4)

# %% [markdown]
# Do not be misled by two equal numbers. 768 numbers go in, because 3 * 16 * 16 = 768. 768 answers come out,
# because ViT-Base has chosen so. ViT-Tiny takes the same 768 numbers and gives 192 answers.
#
# ## The same as a convolution
#
# Lesson 1 promised it: a convolution whose stride is its kernel cuts the patches and multiplies, in one call.
# Its filters are the rows of our matrix, folded back to little pictures, (3, 16, 16).
#
# It answers with 768 pictures of 14 x 14. The model wants a list of tokens. So we flatten the grid to 196,
# row by row, and put the tokens before the channels.

# %%
filters = weight.reshape(D, C, P, P)  # (D, C, P, P)
answers = ops.conv2d(pixel_values, filters, bias, stride=P).data  # (B, D, Y, X)
flat = answers.reshape(B, D, N)  # (B, D, N)
by_convolution = flat.transpose(0, 2, 1)  # (B, N, D)
for step in (pixel_values, answers, flat, by_convolution):
    print(step.shape)
difference = abs(by_convolution[0] - tokens).max()
print(f"convolution and matrix product: largest difference {difference:.1e}")
assert np.allclose(by_convolution[0], tokens, rtol=1e-4, atol=1e-4)

# %% [markdown]
# Now the class of the library. We hand it our filters, and it must give our tokens.

# %%
embeddings = vit.PatchEmbeddings(image_size=224, patch_size=16, num_channels=3, embed_dim=768)
embeddings.load_state_dict({"projection.weight": filters, "projection.bias": bias})
print(embeddings)
print(f"{embeddings.num_patches} patches, {embeddings.num_parameters():,} parameters = 768 * 768 + 768")
assert embeddings.num_patches == 196 and embeddings.num_parameters() == 590_592 == D * I + D
assert embeddings(pixel_values).shape == (1, 196, 768)
assert np.allclose(embeddings(pixel_values).data[0], tokens, rtol=1e-4, atol=1e-4)

# %% [markdown]
# ## The notebook: kernel 3, stride 3, 10 channels
#
# The notebook does the same with tiny patches of 3 x 3 pixels, and asks them 10 questions. 224 does not
# divide by 3: 74 * 3 = 222. The last two rows and columns of the photo are never read.

# %%
image = pixel_values[0].transpose(0, 2, 1)  # (C, W, H), as the notebook's transpose(2, 1, 0) leaves it
layer = notebook.PatchEmbeddings(image, out_channels=10, kernel_size=3, rng=0)
small = layer()  # (5476, 10)
read = image[:, :222, :222]  # (C, 222, 222)
by_hand = images.patchify(read, 3).reshape(-1, 27) @ layer.Conv.weight.data.reshape(10, 27).T + layer.Conv.bias.data
print(f"224 // 3 = {224 // 3}, 74 * 74 = {74 * 74} patches of 27 numbers -> tokens {small.shape}")
assert small.shape == (5476, 10) and np.allclose(small.data, by_hand, rtol=1e-4, atol=1e-4)

# %% [markdown]
# | patch | patches | numbers in | numbers out | parameters | pairs that attention compares |
# |---|---|---|---|---|---|
# | 16 x 16 | 196 | 768 | 768 | 590,592 | 197 * 197 = 38,809 |
# | 3 x 3 | 5476 | 27 | 10 | 280 | 5477 * 5477 = 29,997,529 |
#
# Small patches make a long sequence. (One token is added in lesson 3.) And attention compares each token with
# each.

# %%
assert layer.Conv.num_parameters() == 280 == 10 * 27 + 10
assert (197**2, 5477**2) == (38_809, 29_997_529)
print(f"3 x 3 patches make {5477**2 / 197**2:.0f} times as many pairs")

# %% [markdown]
# ## The way back, line by line
#
# Training needs to know: if the loss is to fall, where should each weight go, and each pixel? From above
# arrives `dtokens`, (N, D): how much the loss grows when token n's answer k grows a little. We want three
# things from it.
#
# One entry of the forward, written out:
#
#     tokens[n, k] = sum over i of patches[n, i] * weight[k, i]  +  bias[k]
#
# Now ask of each letter on the right: which answers does it touch, and how strongly?
#
# - `bias[k]` touches answer k of *every* patch, with strength 1. So add up over the patches.
# - `weight[k, i]` touches answer k of every patch, with the strength of that patch's pixel i.
# - `patches[n, i]` touches *all* answers of its own patch, with the strength of the filter at i.
#
# As formulas, and to their right the same in NumPy:
#
#     dbias[k]       = sum over n of dtokens[n, k]                     dtokens.sum(0)
#     dweight[k, i]  = sum over n of dtokens[n, k] * patches[n, i]     dtokens.T @ patches
#     dpatches[n, i] = sum over k of dtokens[n, k] * weight[k, i]      dtokens @ weight
#
# If you forget which side the transpose is on, look at the letters: the one that is summed stands in the
# middle. (Here D and I are both 768, so a wrong transpose would have the right shape. Do not trust shapes
# alone.)

# %%
def embed(patches, weight, bias):
    return patches @ weight.T + bias  # (N, D)


def embed_backward(dtokens, patches, weight):
    dbias = dtokens.sum(0)  # (D,)
    dweight = dtokens.T @ patches  # (D, N) @ (N, I) -> (D, I)
    dpatches = dtokens @ weight  # (N, D) @ (D, I) -> (N, I)
    return dpatches, dweight, dbias


dtokens = rng.standard_normal((N, D))  # made up, for now
dpatches, dweight, dbias = embed_backward(dtokens, patches, weight)
assert np.allclose(dbias, np.einsum("nk->k", dtokens))
assert np.allclose(dweight, np.einsum("nk,ni->ki", dtokens, patches))
assert np.allclose(dpatches, np.einsum("nk,ki->ni", dtokens, weight))
print(f"dtokens {dtokens.shape} -> dpatches {dpatches.shape}, dweight {dweight.shape}, dbias {dbias.shape}")

# %% [markdown]
# Before the patches there was the cut. Cutting only moved the pixels, so its backward moves the gradients
# back, as lesson 1 has shown: `unpatchify`. That is the whole backward of the layer. Two matrix
# products, one sum, and some glue.
#
# ## Is it right? Nudge and see
#
# The definition of a gradient needs no calculus: nudge one number, and see how much the loss moves. As a loss
# we take the sum of all tokens, each times a random number; then `dtokens` is those random numbers. We nudge
# one number of each kind up and down, and divide.

# %%
exact = patches.astype(np.float64), weight.astype(np.float64), bias.astype(np.float64)
gradients = embed_backward(dtokens, exact[0], exact[1])
eps = 1e-4
for name, array, gradient, at in zip(
    ("patches", "weight", "bias"), exact, gradients, ((100, 300), (7, 300), (7,)), strict=True
):
    losses = []
    for nudge in (+eps, -eps):
        array[at] += nudge
        losses.append((embed(*exact) * dtokens).sum())
        array[at] -= nudge
    nudged = (losses[0] - losses[1]) / (2 * eps)
    print(f"d{name:<8}{at!s:<11} backward {gradient[at]:+.6f}   nudged {nudged:+.6f}")
    assert np.isclose(gradient[at], nudged, rtol=1e-5, atol=1e-5)

# %% [markdown]
# Three numbers of 741,120 agree. `gradcheck` nudges every single one, so we give it a smaller photo. We check
# the library's convolution with it, whose backward has the same three lines.

# %%
def small_embedding(pixels, weight, bias):
    return ops.conv2d(pixels, weight, bias, stride=(2, 3))


assert sum(array.size for array in exact) == 741_120
shapes = (2, 3, 4, 9), (5, 3, 2, 3), (5,)
assert gradcheck(small_embedding, *(rng.standard_normal(shape) for shape in shapes))
print("gradcheck: every pixel, weight and bias of a small photo, right")

# %% [markdown]
# And on the real photo: send the same `dtokens` back through the library's class. It must arrive as in our
# three lines.

# %%
x = Tensor(pixel_values.astype(np.float64), requires_grad=True)
embeddings.to(np.float64)(x).backward(dtokens[None])
dpatches, dweight, dbias = gradients
dpixels = images.unpatchify(dpatches.reshape(N, C, P, P), 224, 224)  # (C, H, W)
assert np.allclose(embeddings.projection.bias.grad, dbias)
assert np.allclose(embeddings.projection.weight.grad.reshape(D, I), dweight)
assert np.allclose(x.grad[0], dpixels)
print(f"dpixels {x.grad.shape}, dweight {dweight.shape}, dbias {dbias.shape}: the library's are ours")

# %% [markdown]
# ## Let the filters learn
#
# Our filters are random, and so are their answers. Let us give them a task that needs no labels: from 16
# answers, the patch is to be drawn again, with the same filters. A filter that asks useful questions makes a
# better drawing.
#
# The patches come from the three photos in the box. The learning uses the backward we have just written.

# %%
box = [images.pixel_values(images.photo(name), size=448) for name in ("cat.jpg", "coffee.jpg", "pagoda.jpg")]
many = np.concatenate([images.patchify(pixels, P).reshape(-1, I) for pixels in box])  # (2352, I)
learned = nn.normal((16, I), std=0.001, rng=0)
start = learned.data.copy()
optimizer, steps = optim.AdamW([learned], lr=0.01, weight_decay=0), 200
for step in range(steps):
    some = many[rng.integers(len(many), size=256)]  # (256, I)
    answers = embed(some, learned.data, 0)  # (256, 16)
    ddrawn = 2 * (answers @ learned.data - some) / some.size  # of the mean squared difference
    _, dweight, _ = embed_backward(ddrawn @ learned.data.T, some, learned.data)
    learned.grad = dweight + answers.T @ ddrawn  # the filters were used twice: for the answers and for the drawing
    optimizer.lr = 0.01 * (1 - step / steps)
    optimizer.step()

# %% [markdown]
# How good can 16 filters be? That is known: the best are the principal components, here around 0, which is
# mid-grey: the directions in which the patches are largest. No 16 filters can draw better. Ours had 200 steps.

# %%
_, components = np.linalg.eigh(many.T @ many)
best = components[:, ::-1].T  # (I, I), one filter a row, the most important first


def error(patches, filters):
    """Mean squared difference of patches and what is drawn from their answers, as a share of their mean square."""
    drawn = patches @ filters.T @ filters
    return ((drawn - patches) ** 2).mean() / (patches**2).mean()


errors = {"random": error(many, start), "learned": error(many, learned.data), "best": error(many, best[:16])}
for name, lost in errors.items():
    print(f"16 filters, {name:<8} {lost:7.2%} of the picture is lost")
assert errors["best"] < errors["learned"] < 0.1 < 0.9 < errors["random"]

# %% [markdown]
# A filter has the shape of a patch. So it is a picture, and we can look at it. 0 is drawn grey. A filter and
# its negative ask the same question, so light and dark may change places.

# %%
figure, axes = plt.subplots(3, 16, figsize=(10, 2.7), dpi=100, layout="constrained")
figure.set_label("filters")
names = "random,\nat the start", "learned,\n200 steps", "best"
for row, filters, name in zip(axes, (start, learned.data, best[:16]), names, strict=True):
    for ax, picture in zip(row, filters.reshape(16, C, P, P).transpose(0, 2, 3, 1), strict=True):
        ax.imshow(0.5 + 0.5 * picture / abs(picture).max())
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
figure.suptitle("Filters of 16 x 16 pixels: noise at first, then colours, edges and waves")
plt.show()

# %% [markdown]
# Out of the noise came colours, light on one side and dark on the other, stripes. Nobody told them. Figure 7,
# left, of Dosovitskiy et al. 2021 is such a picture of a ViT trained on millions of photos: the principal
# components of its filters. They too are colours, edges and waves.
#
# ## How much of the photo is left in D numbers?
#
# Ask your photo's patches the first D of the best questions, and draw them from the answers. 768 questions to
# 768 numbers lose nothing: such a matrix can be undone. This is why a linear map is enough for a beginning.

# %%
sizes = 3, 16, 192, 768
drawings = [patches @ best[:size].T @ best[:size] for size in sizes]  # each (N, I)
lost = [((drawing - patches) ** 2).mean() for drawing in drawings]
assert np.allclose(best @ best.T, np.eye(I), atol=1e-4)  # every filter has length 1 and is orthogonal to the others
assert np.all(np.diff(lost) < 1e-9)  # more questions, less is lost
assert np.allclose(drawings[-1], patches, atol=1e-4)
for size, square in zip(sizes, lost, strict=True):
    print(f"D = {size:<4} {I / size:5.1f} times fewer numbers than pixels, mean squared error {square:.6f}")

# %%
figure, axes = plt.subplots(1, 4, figsize=(10, 3), dpi=100, layout="constrained")
figure.set_label("rebuilt")
for ax, size, drawing in zip(axes, sizes, drawings, strict=True):
    ax.imshow(images.to_image(images.unpatchify(drawing.reshape(N, C, P, P), 224, 224)))
    ax.set(xticks=[], yticks=[], title=f"D = {size}")
figure.suptitle("The photo, drawn from D numbers for each patch of 768")
plt.show()

# %% [markdown]
# ## The gradient in the pixels
#
# Take one answer as the loss: that of `patches[100]` to filter 3. Which pixels does it feel? Only those of
# its own patch. And how? By the derivation, `dpatches = dtokens @ weight`, with one 1 in `dtokens`: that is
# the filter itself. So the gradient in the pixels is a picture of what the model looks for. For a linear
# layer it is the same on every photo.

# %%
learned_embeddings = vit.PatchEmbeddings(224, 16, 3, embed_dim=16)
filters = learned.data.reshape(16, C, P, P)  # (D, C, P, P)
learned_embeddings.load_state_dict({"projection.weight": filters, "projection.bias": np.zeros(16)})
x = Tensor(pixel_values, requires_grad=True)
learned_embeddings(x)[0, 100, 3].backward()
felt = images.patchify(x.grad[0], P)  # (N, C, P, P)
assert np.array_equal(felt[100], filters[3])
assert np.count_nonzero(np.delete(felt, 100, axis=0)) == 0
print("one answer's gradient: the filter in its own patch, exactly 0 in the 195 others")

# %% [markdown]
# Now a loss that uses all answers: half the sum of their squares, the strength of the tokens. Then `dtokens`
# is the tokens, and the gradient in the pixels is `patches @ weight.T @ weight`: the photo, as these filters
# see it. What they do not ask for, the fine hair and the grain, has no gradient. Nobody downstream will ever
# hear of it.

# %%
x = Tensor(pixel_values, requires_grad=True)
tokens = learned_embeddings(x)
loss = (tokens**2).sum() / 2
loss.backward()
assert tokens.shape == (1, 196, 16)
expected = images.unpatchify((patches @ learned.data.T @ learned.data).reshape(N, C, P, P), 224, 224)
assert np.allclose(x.grad[0], expected, atol=1e-4)
print(f"loss {loss.item():.1f}, gradient {x.grad.shape}: the photo through 16 filters")

# %%
figure = plots.pixel_gradient(images.to_image(pixel_values[0]), x.grad)
figure.set_label("pixel_gradient")
figure.suptitle("Gradient of the strength of all tokens: the photo as 16 filters see it")
plt.show()

# %% [markdown]
# ## What you can say now
#
# - A patch embedding is one matrix product: 196 patches of 768 numbers times 768 x 768 weights gives 196 tokens
#   of 768 numbers.
# - A convolution with stride = kernel is the same product, and cuts the patches on the way. That is all that
#   the "convolution" in a Vision Transformer is.
# - Patches of 3 x 3 pixels give 5476 tokens, and 773 times as many pairs for attention.
# - The backward is two matrix products and a sum: `dtokens @ weight`, `dtokens.T @ patches`,
#   `dtokens.sum(0)`.
# - A filter is a picture of what a token looks for, and the gradient in the pixels shows it.
#
# ## Exercises
#
# 1. Let the filters learn with 4, then with 64 filters. How much of the picture is lost? Compare with
#    `best[:4]` and `best[:64]`.
# 2. Make the notebook's layer forget nothing: which `out_channels` does a 3 x 3 patch need at least? Show it,
#    by undoing the matrix product.
# 3. Exercise 02, write the backward of the patch embeddings for a batch: `minivit exercise 02 --out DIR`
#    writes its stub, and `minivit check FILE` grades it.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=2](../explore.html#lesson=2)
