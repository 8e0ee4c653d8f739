# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 1. An image is a sequence of patches
#
# The question: a Transformer reads a sentence. How does a photo become one? And is a
# convolution necessary, or will Pillow's `Image.crop` do?
#
# Builds: the cut from a photo to 196 patches, four times over, and the way back. Then
# four arrays of the right shape, three of which are not the photo.
#
# New ideas: (1) a photo is an array, and its axes have an order; (2) patches, a
# sequence of N; (3) reshape names axes, transpose moves them; (4) einsum; (5) a
# convolution whose stride is its kernel; (6) a sequence has an order, but no width;
# (7) silent errors: the right shape and the wrong picture.
#
# Teach: 40 minutes. Run: 2 seconds.
#
# Axes: C channels, H W pixels, Y X rows and columns of patches, N = Y * X patches, P
# patch side, p q a pixel's row and column inside its patch, 0 .. P - 1.

# %%
import timeit

import matplotlib.pyplot as plt
import numpy as np

from minivit import images, lessons, ops, plots

# %% [markdown]
# ## A photo is an array
#
# A Transformer reads words, one after the other. A photo has none. So we cut it into
# small squares, the *patches*, and read them row by row, as we read a page (Dosovitskiy
# et al. 2021, "An Image is Worth 16x16 Words"). Our photo gets 224 x 224 pixels. Its
# axes are height, width, channels: red, green, blue. How many patches has it?

# %%
picture = images.to_image(images.pixel_values(lessons.photo(), size=224))  # 224 x 224
rgb = np.asarray(picture)  # (H, W, C)
H, W, C = rgb.shape
pixels = rgb.transpose(2, 0, 1)  # (C, H, W): new axis 0 is old axis 2
P = 16
Y, X = H // P, W // P
N = Y * X
print(f"photo {rgb.shape} {rgb.dtype}: {rgb.size:,} numbers")
print(f"{Y} rows of {X}: N = {N} patches, each {P} * {P} * {C} = {P * P * C} numbers")
assert N * P * P * C == rgb.size, "P must divide 224"  # no pixel is left over

# %%
plots.patch_grid(
    picture, P, name="patch_grid",
    caption="Patches count row by row, as we read, from 0 at the top left; the nine "
    "with the most contrast have their number, and stand larger on the right.",
)
plt.show()

# %% [markdown]
# ## First way: `Image.crop` in a loop
#
# A box is left, top, right, bottom. Two loops, one crop a patch; channels go in front.

# %%
def crop_loop(picture):
    patches = []
    for top in range(0, H, P):
        for left in range(0, W, P):
            patch = picture.crop((left, top, left + P, top + P))
            patches.append(np.asarray(patch).transpose(2, 0, 1))  # (C, P, P)
    return np.stack(patches)  # (N, C, P, P)


cropped = crop_loop(picture)

# %% [markdown]
# ## Your turn
#
# Pencil and paper. We count from 0. Take the pixel in row 37, column 200: in which row
# and column of the grid does its patch stand? Which patch is that, n = 0 .. 195? Where
# in the patch does the pixel lie? Write it down, find the patch in the figure, and run.

# %%
(row, p), (column, q) = divmod(37, P), divmod(200, P)
n = row * X + column
print(f"patch (row {row}, column {column}) is patch {n}; inside it row {p}, column {q}")
assert np.array_equal(cropped[n, :, p, q], rgb[37, 200])

# %% [markdown]
# ## Second way: reshape and transpose
#
# You have just divided with a remainder: 37 = 2 * 16 + 5. So one axis of 224 is really
# two. `reshape` splits it, the slow one first (14: which patch; then 16: where in it),
# and moves nothing. `transpose` brings the two axes that count patches to the front.

# %%
def reshape_transpose(pixels):
    grid = pixels.reshape(C, Y, P, X, P)  # (C, Y, p, X, q)
    return grid.transpose(1, 3, 0, 2, 4).reshape(N, C, P, P)  # (Y, X, C, p, q) first


assert np.array_equal(reshape_transpose(pixels), cropped)
print(f"reshape and transpose == crop loop, all {cropped.size:,} numbers")

# %% [markdown]
# ## Third way: einsum
#
# The same thought, but the axes are called by their names. Left of the arrow what we
# have, right of it what we want. No letter disappears, so nothing is summed: an
# *einsum* without a sum is a transpose that you can read.

# %%
def by_einsum(pixels):
    grid = pixels.reshape(C, Y, P, X, P)  # (C, Y, p, X, q)
    return np.einsum("CYpXq->YXCpq", grid).reshape(N, C, P, P)


assert np.array_equal(by_einsum(pixels), cropped)
print("einsum == crop loop")

# %% [markdown]
# ## Fourth way: a convolution that jumps
#
# A *convolution* lays a filter, its *kernel*, on a window of the photo, multiplies
# number by number, adds up, and moves on by its *stride*. Usually that is one pixel,
# and windows overlap. Let it move by a whole patch, and the windows are the patches.
#
# And the filters? We want the numbers back as they are. So filter 0 is 1 at number 0 of
# the patch and 0 elsewhere, filter 1 is 1 at number 1, and so on. A patch has 768
# numbers: that makes 768 filters. Side by side they are the identity matrix.

# %%
pick_one = np.eye(C * P * P, dtype=np.float32).reshape(C * P * P, C, P, P)


def by_convolution(pixels):
    y = ops.conv2d(pixels[None].astype(np.float32), pick_one, stride=P).data
    return y.reshape(C * P * P, N).T.reshape(N, C, P, P)  # y: (1, C * P * P, Y, X)


assert np.array_equal(by_convolution(pixels), cropped)
print(f"convolution, {len(pick_one)} filters, stride {P} == crop loop")

# %% [markdown]
# Four ways, one result, to the last bit. Which is fast? The best of five runs:

# %%
ways = {
    "crop loop": lambda: crop_loop(picture),
    "reshape, transpose": lambda: reshape_transpose(pixels),
    "einsum": lambda: by_einsum(pixels),
    "convolution": lambda: by_convolution(pixels),
}
for name, way in ways.items():
    print(f"{name:<20}{1000 * min(timeit.repeat(way, number=1, repeat=5)):6.2f} ms")
print(f"the convolution multiplied {N * (C * P * P) ** 2:,} times, by 0 or by 1")

# %% [markdown]
# ## So, is the convolution necessary?
#
# For cutting: no. Reshape and einsum give the same patches, faster, without arithmetic.
# But the model's next step multiplies every patch by a matrix that is learned (lesson
# 2). Put D learned filters where the ones and zeros were, and the convolution cuts
# *and* multiplies, in one call; with D = 768 for just what we paid above. timm
# (`timm/layers/patch_embed.py`) and transformers (`modeling_vit.py`) write it so. It is
# a convolution, and still not a CNN: lesson 1b.
#
# And it lost nothing, because each of the 768 numbers has a filter of its own. Fewer
# filters than numbers must lose something: ViT-Tiny has 192. Lesson 2b measures it.
#
# ## Putting the photo back
#
# Cutting only moved numbers: it is a *permutation*, and that can be undone. Ask for
# each old axis, C Y p X q, where it now stands in Y X C p q: at 2, 0, 3, 1, 4.

# %%
def put_back(patches, columns):
    rows = len(patches) // columns
    grid = patches.reshape(rows, columns, C, P, P)  # (Y, X, C, p, q)
    return grid.transpose(2, 0, 3, 1, 4).reshape(C, rows * P, columns * P)


assert np.array_equal(put_back(cropped, columns=X), pixels)
fewer = put_back(cropped[: (X - 1) ** 2], columns=X - 1)  # 13 rows of 13
print(f"{X} to a row {pixels.shape}: the photo. {X - 1} to a row {fewer.shape}: what?")

# %%
plots.pictures(
    [pixels.transpose(1, 2, 0), fewer.transpose(1, 2, 0)],
    [f"{X} patches to a row", f"!{X - 1} patches to a row"], name="put_back",
    caption=f"Right: the first {(X - 1) ** 2} patches in the same order: where a row "
    "ends, the sequence does not say, but the eye sees at once that it is wrong.",
)
plt.show()

# %% [markdown]
# `put_back` had to be told how wide the photo was. The sequence has an *order*, and no
# width. That patch 14 lies below patch 0, the model must be told as well: lesson 4.
#
# ## Silent errors: four arrays, one of them the photo
#
# The model wants (3, 224, 224), and here are four arrays of that shape. The first is
# right. The second, as a notebook has it (lesson 12), reverses all axes, height and
# width, too. OpenCV's `imread` gives blue, green, red: BGR. And `reshape` moves
# nothing, it breaks the long line of numbers at other places. Would a program notice?

# %%
arrays = {
    "transpose(2, 0, 1)": rgb.transpose(2, 0, 1),
    "!transpose(2, 1, 0)": rgb.transpose(2, 1, 0),  # "!": the title will be pink
    "!BGR read as RGB": rgb[..., ::-1].transpose(2, 0, 1),
    "!reshape(3, 224, 224)": rgb.reshape(3, 224, 224),
}
for name, array in arrays.items():
    numbers = f"mean {array.mean():6.2f}, standard deviation {array.std():6.2f}"
    print(f"{name.strip('!'):<21} {array.shape}, {numbers}")
    assert np.array_equal(np.sort(array, axis=None), np.sort(rgb, axis=None))
print("the same numbers at other places: it would not")

# %%
plots.pictures(
    [array.transpose(1, 2, 0) for array in arrays.values()], list(arrays), name="traps",
    caption="Four arrays of one shape and mean: the three named in pink are made "
    "wrongly, and nothing but the eye can find out.",
)
plt.show()

# %% [markdown]
# ## What you can say now
#
# - A 224 x 224 photo is a sequence of 196 patches of 16 x 16 x 3 = 768 numbers.
# - Crop loop, reshape and transpose, einsum, and a convolution whose stride is its
#   kernel cut the same patches. The convolution can multiply in the same go.
# - Cutting is a permutation and can be undone; the sequence has an order, and no width.
# - Right shape, right mean, wrong picture: a silent error. Look at the input.
#
# ## Exercises
#
# 1. Exercise 01, the way back for a batch: `minivit exercise 01` writes a stub,
#    `minivit check 01` grades it. Each number that returns to a patch must go to the
#    pixel that was cut: the *backward* of cutting. Lesson 2 needs it.
# 2. Which of our patches is patch 1 of `transpose(2, 1, 0)`? Mirror filters along their
#    diagonal: the same numbers, in a mirrored grid. When is mirroring a mistake?
#
# Sources: Dosovitskiy et al. 2021.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=1](../explore.html#lesson=1)
