# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 1. An image is a sequence of patches
#
# The question: is a convolution necessary, or will `Image.crop` do?
#
# Builds: the cut from a photo to 196 patches, four times over, and the way back to the photo. Then the traps
# in which a photo is silently turned over, and the answer to "why not a CNN?".
#
# Teach: 25 minutes. Run: 5 seconds.
#
# Axes: C channels, H W pixels, P patch side (P Q in an einsum: down and across), Y X rows and columns of
# patches, N = Y * X patches, B batch, D hidden size, T tokens.

# %%
import timeit
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

from minivit import Tensor, datasets, images, lessons, nn, ops, optim, plots, training, vit

photo = lessons.photo()

# %% [markdown]
# ## A photo is an array
#
# A Transformer reads a sequence: words, one after the other. A photo has no words. So we cut it into small
# squares, call each of them a word, and read them row by row, as we read a page.
#
# We bring the photo to 224 x 224 pixels. Pillow gives height, width, channels: the last axis is red, green,
# blue.

# %%
picture = images.to_image(images.pixel_values(photo, size=224))
rgb = np.asarray(picture)  # (H, W, C)
H, W, C = rgb.shape
P = 16
Y, X = H // P, W // P
N = Y * X
print(f"photo {rgb.shape} {rgb.dtype}: {rgb.size:,} numbers from {rgb.min()} to {rgb.max()}")
print(f"{Y} rows of {X} patches: N = {N} patches of {P} x {P} pixels, each {P * P * C} numbers")
assert N == 196 and N * P * P * C == rgb.size  # no pixel is left over, none is used twice

# %%
figure = plots.patch_grid(picture, P)
figure.set_label("patch_grid")
plt.show()

# %% [markdown]
# ## First way: `Image.crop` in a loop
#
# A box is left, top, right, bottom. Two loops, one crop for each patch. Anybody can read this.
#
# From here on the channels come first, (C, H, W), as the model wants them.

# %%
def crop_loop(picture):
    patches = []
    for top in range(0, H, P):
        for left in range(0, W, P):
            patch = picture.crop((left, top, left + P, top + P))
            patches.append(np.asarray(patch).transpose(2, 0, 1))  # (C, P, P)
    return np.stack(patches)  # (N, C, P, P)


cropped = crop_loop(picture)
print(f"cropped {cropped.shape}")
assert cropped.shape == (N, C, P, P)

# %% [markdown]
# ## Second way: reshape and transpose
#
# Count from 0. The pixel in row 37 lies in row 2 of the patches, and there in line 5, because 37 = 2 * 16 +
# 5. So one axis of 224 is really two axes, 14 and 16. `reshape` gives them their names, and moves nothing.
# `transpose` then brings the two axes that count patches to the front.

# %%
def reshape_transpose(pixels):
    grid = pixels.reshape(C, Y, P, X, P)  # (C, Y, P, X, P)
    grid = grid.transpose(1, 3, 0, 2, 4)  # (Y, X, C, P, P)
    return grid.reshape(N, C, P, P)  # (N, C, P, P)


assert divmod(37, P) == (2, 5)
pixels = rgb.transpose(2, 0, 1)  # (C, H, W)
assert np.array_equal(pixels.reshape(C, Y, P, X, P)[:, 2, 5], pixels[:, 37].reshape(C, X, P))
assert np.array_equal(reshape_transpose(pixels), cropped)
print("reshape and transpose == crop loop, all", cropped.size, "numbers")

# %% [markdown]
# ## Third way: einsum
#
# The same thought, but the axes are called by their names. Left of the arrow: what we have. Right: what we
# want. No letter disappears, so nothing is summed. An einsum without a sum is a transpose that you can read.

# %%
def by_einsum(pixels):
    grid = pixels.reshape(C, Y, P, X, P)  # (C, Y, P, X, Q)
    return np.einsum("CYPXQ->YXCPQ", grid).reshape(N, C, P, P)  # (N, C, P, P)


assert np.array_equal(by_einsum(pixels), cropped)
print("einsum == crop loop")

# %% [markdown]
# ## Fourth way: a convolution that jumps
#
# A convolution lays a filter on a window, multiplies, sums, and moves on by its stride. Usually it moves by
# one pixel and the windows overlap. Let it move by a whole patch, and its windows are the patches.
#
# And the filters? We want the numbers back, as they are. So filter i is 0 everywhere and 1 at number i.
# With 768 numbers in a patch we need 768 filters. Side by side they are the identity matrix.

# %%
pick_one_pixel = np.eye(C * P * P, dtype=np.float32).reshape(C * P * P, C, P, P)
floats = pixels.astype(np.float32)


def by_convolution(floats):
    y = ops.conv2d(floats[None], pick_one_pixel, stride=P).data  # (1, CPP, Y, X)
    return y.reshape(C * P * P, N).T.reshape(N, C, P, P)  # (N, C, P, P)


assert np.array_equal(by_convolution(floats), cropped)
print(f"convolution with {pick_one_pixel.shape} filters, stride {P} == crop loop")

# %% [markdown]
# Four ways, one result, equal to the last bit. The library has the first as `images.crop_patches` and the
# second as `images.patchify`.

# %%
assert np.array_equal(images.crop_patches(picture, P).transpose(0, 3, 1, 2), cropped)
assert np.array_equal(images.patchify(pixels, P), cropped)

# %% [markdown]
# ## Which one is fast?
#
# We take the best of five runs each.

# %%
ways = {
    "crop loop": lambda: crop_loop(picture),
    "reshape, transpose": lambda: reshape_transpose(pixels),
    "einsum": lambda: by_einsum(pixels),
    "convolution": lambda: by_convolution(floats),
}
multiplications = dict.fromkeys(ways, 0) | {"convolution": N * (C * P * P) ** 2}
times = {name: min(timeit.repeat(way, number=1, repeat=5)) for name, way in ways.items()}
print(f"{'way':<20} {'time':>9} {'multiplications':>17}")
for name, seconds in times.items():
    print(f"{name:<20} {1000 * seconds:6.2f} ms {multiplications[name]:>17,}")
assert multiplications["convolution"] == 115_605_504

# %% [markdown]
# ## So, is the convolution necessary?
#
# For cutting: no. `Image.crop` gives the same patches, and the reshape gives them without any arithmetic. The
# convolution multiplied 115 million times, by 0 or by 1, only to move pixels about.
#
# But the model does not stop at cutting. Its next step multiplies every patch by a matrix that is learned.
# Put that matrix where the ones and zeros were, and the convolution cuts *and* multiplies, in one call, for
# the same 115 million. That is why the code of most Vision Transformers begins with a convolution, and why it
# is still not a CNN.
#
# There is one thing that `Image.crop` cannot do. Learning sends a number back to each pixel, its gradient: how
# much the error of the model grows when this pixel grows a little. `Image.crop` makes pictures, and no gradient
# travels back through a picture. A reshape and a transpose can be undone, so a gradient goes back the way the
# pixels came. We send a random number back for each patch pixel. It must arrive at the pixel it was cut from.

# %%
x = Tensor(floats, requires_grad=True)
grid = x.reshape(C, Y, P, X, P).transpose(1, 3, 0, 2, 4)  # (Y, X, C, P, P)
patches = grid.reshape(N, C, P, P)  # (N, C, P, P)
sent_back = np.random.default_rng(0).standard_normal(patches.shape, dtype=np.float32)
patches.backward(sent_back)
assert np.array_equal(images.patchify(x.grad, P), sent_back)
assert np.array_equal(x.grad, images.unpatchify(sent_back, H, W))
print(f"gradient {x.grad.shape}: each patch's gradient is where the patch was; backward of cutting is gluing")

# %% [markdown]
# ## Putting the image back
#
# Read the transpose backwards: the axes return to their places. Nothing was lost on the way, so the photo is
# exactly the photo.
#
# A sequence has an order, and the order is all that holds the picture together. Shuffle the patches, and it
# is the same *set* of patches. You no longer see what it is. Neither will the model, until lesson 4 gives it
# positions.

# %%
def put_back(patches):
    grid = patches.reshape(Y, X, C, P, P)  # (Y, X, C, P, P)
    return grid.transpose(2, 0, 3, 1, 4).reshape(C, H, W)  # (C, H, W)


assert np.array_equal(put_back(cropped), pixels)
assert np.array_equal(put_back(cropped), images.unpatchify(cropped, H, W))
order = np.random.default_rng(0).permutation(N)
shuffled = put_back(cropped[order])
assert np.array_equal(np.sort(shuffled, axis=None), np.sort(pixels, axis=None))  # the same numbers, elsewhere
assert np.array_equal(put_back(images.patchify(shuffled, P)[np.argsort(order)]), pixels)  # and they can be sorted back
print("put back: the photo, exactly; shuffled: the same numbers in another order")

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 5.4), dpi=100, layout="constrained")
figure.set_label("put_back")
axes[0].imshow(put_back(cropped).transpose(1, 2, 0))
axes[0].set_title(f"{N} patches, put back in order")
axes[1].imshow(shuffled.transpose(1, 2, 0))
axes[1].set_title("the same patches, in a random order")
for ax in axes:
    ax.set(xticks=[], yticks=[])
    ax.vlines(np.arange(P, W, P) - 0.5, -0.5, H - 0.5, "white", linewidth=0.5)
    ax.hlines(np.arange(P, H, P) - 0.5, -0.5, W - 0.5, "white", linewidth=0.5)
plt.show()

# %% [markdown]
# ## Traps: three photos that are not the photo
#
# The model wants (3, 224, 224). Here are four arrays of that shape. Only the first is right.
#
# - `transpose(2, 0, 1)`: the channels go to the front. Right.
# - `transpose(2, 1, 0)`: the published notebook. All axes are reversed, so height and width change places,
#   too.
# - OpenCV's `imread` gives blue, green, red. Read it as red, green, blue, and two channels are swapped.
# - `reshape(3, 224, 224)`: has the right shape, but a reshape does not move anything. It only cuts the row of
#   numbers at other places.

# %%
bgr = rgb[..., ::-1]  # what cv2.imread would have given
seen = {
    "transpose(2, 0, 1)": rgb.transpose(2, 0, 1),
    "transpose(2, 1, 0)": rgb.transpose(2, 1, 0),
    "BGR read as RGB": bgr.transpose(2, 0, 1),
    "reshape(3, 224, 224)": rgb.reshape(3, 224, 224),
}
print(f"{'what was done':<22} {'shape':<15} {'mean':>7} {'std':>6}  {'means of the three channels'}")
for name, array in seen.items():
    channels = " ".join(f"{mean:6.1f}" for mean in array.mean((1, 2)))
    print(f"{name:<22} {array.shape!s:<15} {array.mean():7.2f} {array.std():6.2f}  {channels}")
    assert array.shape == (3, 224, 224)
    assert np.array_equal(np.sort(array, axis=None), np.sort(pixels, axis=None))

# %% [markdown]
# The same shape, the same mean, the same spread. The means of the three channels differ at most, and who
# knows them beforehand? The eye finds it at once. So look at what goes into the model, always. (And not at a
# grey photo: there BGR is RGB.)

# %%
figure, axes = plt.subplots(1, 4, figsize=(10, 3), dpi=100, layout="constrained")
figure.set_label("traps")
for ax, (name, array) in zip(axes, seen.items(), strict=True):
    ax.imshow(array.transpose(1, 2, 0))
    right = name == "transpose(2, 0, 1)"
    ax.set_title(f"{name}\n{'right' if right else 'wrong'}", fontsize=10, color="darkgreen" if right else "firebrick")
    ax.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# What does the notebook's transpose do to the sequence? The photo is mirrored along its diagonal. Its patches
# then run down the columns, and each patch is mirrored in itself.
#
# Number the patches from 1. The notebook's patch 2 is our patch 15, the one *below* the first.

# %%
notebook = images.patchify(seen["transpose(2, 1, 0)"], P)
mirrored = cropped.reshape(Y, X, C, P, P).transpose(1, 0, 2, 4, 3)  # (X, Y, C, P, P)
assert np.array_equal(notebook, mirrored.reshape(N, C, P, P))
assert np.array_equal(notebook[2 - 1], cropped[15 - 1].transpose(0, 2, 1))
print("the notebook's patch 2 == our patch 15, mirrored along its diagonal")

# %% [markdown]
# Is that a mistake? A model trained from scratch on mirrored photos is as good as any: mirror its filters and
# it gives the same vectors. It only becomes a mistake when the two are mixed: weights that were trained on
# upright photos, or an attention map drawn over the upright photo. For BGR it is the same, with the channels
# of the filters turned round.

# %%
filters = np.random.default_rng(0).standard_normal((5, C, P, P)).astype(np.float32)
vectors = ops.conv2d(floats[None], filters, stride=P).data  # (1, 5, Y, X)
upset = ops.conv2d(floats[None].transpose(0, 1, 3, 2), filters.transpose(0, 1, 3, 2), stride=P).data  # (1, 5, X, Y)
swapped = ops.conv2d(floats[None, ::-1], filters[:, ::-1], stride=P).data  # (1, 5, Y, X)
scale = abs(vectors).max()
assert np.allclose(upset.transpose(0, 1, 3, 2), vectors, rtol=0, atol=1e-5 * scale)
assert np.allclose(swapped, vectors, rtol=0, atol=1e-5 * scale)
print("mirrored photo with mirrored filters, BGR photo with BGR filters: the same vectors")

# %% [markdown]
# ## Why not a CNN for the patches?
#
# A CNN would put a stack of small convolutions in front, each with overlapping windows. Such a stack is called
# a stem. We build one: four convolutions of 3 x 3 with stride 2, and after each a bend, the GELU of lesson 6.
# They too make 14 x 14 vectors. What can one of those vectors see? We ask for the gradient of the vector in the
# middle, at every pixel. Where it is 0, the vector does not see the photo.

# %%
rng = np.random.default_rng(0)
widths = [C, 8, 16, 24, 32]
small_filters = [
    rng.standard_normal((after, before, 3, 3), dtype=np.float32) / np.float32(3 * before**0.5)
    for before, after in pairwise(widths)
]


def cnn(x):
    for weight in small_filters:
        x = ops.gelu(ops.conv2d(x, weight, stride=2))
    return x


def one_patch_filter(x):
    return ops.conv2d(x, filters, stride=P)


# %%
def seen_by_the_middle(network, border):
    """How much the vector in the middle feels each pixel: (H, W), 0 where it feels nothing."""
    padded = np.pad(images.pixel_values(picture), ((0, 0), border, border))  # (C, H + ..., W + ...)
    x = Tensor(padded[None], requires_grad=True)  # (1, C, H + ..., W + ...)
    y = network(x)
    assert y.shape[2:] == (Y, X)
    y[:, :, Y // 2, X // 2].sum().backward()
    inside = slice(border[0], border[0] + 224)
    return np.linalg.norm(x.grad[0], axis=0)[inside, inside]  # (H, W)


of_a_patch = seen_by_the_middle(one_patch_filter, (0, 0))
of_a_cnn = seen_by_the_middle(cnn, (7, 8))  # zeros around the photo, so that the windows fit 14 times
for name, feels in (("patch", of_a_patch), ("CNN", of_a_cnn)):
    rows, columns = np.flatnonzero(feels.any(1)), np.flatnonzero(feels.any(0))
    print(f"{name:>5}: rows {rows[0]} to {rows[-1]}, columns {columns[0]} to {columns[-1]}")
assert np.count_nonzero(of_a_patch) == 16 * 16 and np.all(of_a_patch[112:128, 112:128] > 0)
assert np.count_nonzero(of_a_cnn) == 31 * 31 and np.all(of_a_cnn[105:136, 105:136] > 0)

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 4.9), dpi=100, layout="constrained")
figure.set_label("what_a_vector_sees")
axes[0].imshow(picture)
axes[0].set_title("the middle of the photo,\n5 x 5 patches")
for ax, feels, name in ((axes[1], of_a_patch, "a patch:\n16 x 16"), (axes[2], of_a_cnn, "a small CNN:\n31 x 31")):
    shown = ax.imshow(feels / feels.max(), "viridis", vmin=0, vmax=1)
    ax.set_title(f"seen by one vector of {name} pixels")
low, high = 80 - 0.5, 160 - 0.5  # imshow draws pixel 80 from 79.5 to 80.5
for ax, color in zip(axes, ("white", "0.6", "0.6"), strict=True):
    ax.set(xlim=(low, high), ylim=(high, low), xticks=[], yticks=[])
    ax.vlines(np.arange(low, high + 1, P), low, high, color, linewidth=0.8)
    ax.hlines(np.arange(low, high + 1, P), low, high, color, linewidth=0.8)
figure.colorbar(shown, ax=list(axes), location="bottom", shrink=0.7, label="length of the gradient, largest = 1")
plt.show()

# %% [markdown]
# The patch's vector sees its patch and nothing else. The CNN's vector sees about half of each neighbour as well.
# But in the very first encoder block (lessons 5 and 6), every patch may look at *every* other. So the neighbours
# are coming anyway, and the model learns for itself which ones matter. The CNN decides beforehand that it is
# the nearest.
#
# And it has its price. Let both make vectors of 768 numbers, as ViT-Base does, and count multiplications.

# %%
patch_embedding = N * 768 * (C * P * P)
sides, widths = [112, 56, 28, 14], [C, 96, 192, 384, 768]
stem = sum(side**2 * after * before * 3 * 3 for side, (before, after) in zip(sides, pairwise(widths), strict=True))
T, D = N + 1, 768
block = T * (4 * D * D + 2 * D * 4 * D) + 2 * T * T * D  # q, k, v, output; MLP; scores and context
print(f"patches      {patch_embedding / 1e9:5.2f} billion multiplications")
print(f"small CNN    {stem / 1e9:5.2f} billion: {stem / patch_embedding:.1f} times as many")
print(f"one encoder block {block / 1e9:.2f} billion")
assert 13 < stem / patch_embedding < 14 and 1.0 < stem / block < 1.2

# %% [markdown]
# A small CNN adds the cost of a whole encoder block. Is it worth it? We measure it on a small scale: handwritten
# digits of 8 x 8 pixels, cut into four patches of 4 x 4, and one encoder block. (How a model is trained, lesson 9
# tells.) Its rival gets a stem of two convolutions, which also makes four vectors and sees 7 x 7 pixels with each.
# A stem has more parameters. So its encoder block pays for them, with a narrower MLP.

# %%
class Stem(nn.Module):
    """Two small convolutions in place of the patch embedding. (B, 1, 8, 8) -> (B, N, D), N = 4 and D = 32."""

    image_size = 8, 8

    def __init__(self, rng):
        self.first = nn.Conv2d(1, 8, kernel_size=3, stride=2, rng=rng)
        self.second = nn.Conv2d(8, 32, kernel_size=3, stride=2, rng=rng)

    def forward(self, x, *_):
        x = np.pad(x, ((0, 0), (0, 0), (1, 2), (1, 2)), constant_values=-1)  # (B, 1, 11, 11), -1 is empty
        x = self.second(ops.gelu(self.first(x)))  # (B, D, 2, 2)
        return x.reshape(len(x), 32, 4).transpose(0, 2, 1)  # (B, N, D)


def model_with(name, seed):
    config = vit.ViTConfig(
        image_size=8, patch_size=4, num_channels=1, num_labels=10, hidden_size=32, num_hidden_layers=1,
        num_attention_heads=4, intermediate_size=64 if name == "patches" else 36, initializer_range=0.1,
    )
    rng = np.random.default_rng(seed)
    model = vit.ViTForImageClassification(config, rng=rng)
    if name == "stem":
        model.vit.embeddings.patch_embeddings = Stem(rng)
    return model


# %%
digits, test = datasets.digits()
right = {}
print("training eight small models: patches or stem, 50 or 898 digits to learn from, two starts each")
for name in ("patches", "stem"):
    for count, epochs in ((50, 30), (898, 4)):
        shares = []
        for seed in (0, 1):
            train, model = digits.few(5, seed) if count == 50 else digits, model_with(name, seed)
            assert len(train) == count
            steps = -(-count // 50)  # in one epoch
            adam, schedule = optim.AdamW(model.parameters(), 0.01), optim.warmup_cosine(epochs * steps, steps)
            training.fit(
                model, train, epochs=epochs, batch_size=50, optimizer=adam, schedule=schedule, rng=seed, verbose=False
            )
            shares.append(training.evaluate(model, test).accuracy)
        right[name, count] = np.mean(shares)
        print(f"{name:<8} {model.num_parameters():,} parameters, {count:>3} digits: {right[name, count]:.1%} right")

for count in (50, 898):
    assert abs(right["stem", count] - right["patches", count]) < 0.09  # a draw
for name in ("patches", "stem"):
    assert right[name, 898] - right[name, 50] > 0.1  # more digits, and both are far better

# %% [markdown]
# A draw. What is left between the two is the luck of the start: with other seeds the other one is ahead. More
# digits to learn from are worth far more than the choice of the stem.
#
# That is a toy, and one patch size. With tiny patches of 2 x 2 pixels the stem does win: measure it in exercise
# 2. On millions of photos others have measured:
#
# - Dosovitskiy et al. 2021, section 4.4, put a ResNet in front of the Transformer. The hybrid is slightly
#   better as long as the budget for training is small. For larger models the difference vanishes.
# - Xiao et al. 2021, "Early Convolutions Help Transformers See Better", take a stack like ours and leave out
#   one encoder block to pay for it. Training becomes faster and steadier, and ImageNet 1 to 2 points better.
#
# So the honest answer: you may, and it can help. It is not needed for the model to work. And nothing is *lost*
# without it: our fourth way gave back every pixel of the photo from the convolution's output.

# %% [markdown]
# ## What you can say now
#
# - A 224 x 224 photo is a sequence of 196 patches of 16 x 16 x 3 = 768 numbers.
# - Crop loop, reshape and transpose, einsum and a convolution with stride = kernel cut the same patches. For
#   cutting alone the reshape is enough; the convolution cuts and multiplies in one go.
# - The backward of cutting is gluing: each gradient goes back to the pixel it came from.
# - A wrong transpose and BGR change no shape and no mean. Look at the picture.
# - A CNN in front is allowed and costs as much as an encoder block. On our digits it is a draw unless
#   patches are tiny; on ImageNet it makes training steadier and gains a little.
#
# ## Exercises
#
# 1. Cut with a stride of 8 instead of 16, by `ops.conv2d` and `pick_one_pixel`. How many patches are there
#    now, and how many patches hold the pixel in the middle of the photo? What would putting back have to do?
# 2. Measure patches against stem with `patch_size=2`: give `Stem.first` the stride 1, and reshape to 16 vectors.
#    A patch has only 4 pixels now, and no patch shows a stroke. By how much does the stem win, with few digits and
#    with many? Does it still, with another `initializer_range`?
# 3. Exercise 01, write the backward of cutting: `minivit exercise 01 --out DIR` writes its stub, and `minivit
#    check FILE` grades it.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=1](../explore.html#lesson=1)
