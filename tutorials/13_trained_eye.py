# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 13. A trained eye
#
# The question: what does a Vision Transformer see in your photo that never saw a label?
#
# Builds: its loss in numbers; principal components of its tokens; a search for a patch
# in another photo; a classifier from ten pictures a class.
#
# New ideas: (1) *self-supervised* learning by self-distillation; (2) a teacher that is
# the student's moving average; (3) *collapse*, and what bars it; (4) principal
# components of tokens; (5) search by cosine similarity; (6) a *linear probe* on frozen
# features, by ridge regression.
#
# Teach: 45 minutes. Run: 12 seconds.
#
# Axes: B pictures, N patches, T = N + 1 tokens with CLS at 0, D hidden size, K classes
# or answers.

# %%
import matplotlib.pyplot as plt
import numpy as np
from PIL import ImageOps

from minivit import images, lens, lessons, no_grad, ops, plots, vit, weights

picture = images.fit_patches(lessons.photo(), 14, patches=384)  # at its own ratio
grid = picture.height // 14, picture.width // 14
N = grid[0] * grid[1]
eye = weights.dinov2_small()
fresh = vit.ViTModel(eye.config, add_pooling_layer=False, rng=0).eval()
models = {"trained": eye, "untrained": fresh}
print(f"{eye.num_parameters():,} parameters; {grid[0]} x {grid[1]} = {N} patches")

# %% [markdown]
# ## How does one learn without labels?
#
# This network is DINOv2's smallest (Oquab et al. 2023). Its idea is DINO's: to *distil*
# is to learn a teacher's answers, and *self-distillation* has no other teacher than the
# network itself (Caron et al. 2021).
#
# - Two networks of one shape, *student* and *teacher*, each with an MLP behind CLS that
#   gives K scores (65536 in the first paper). What the K answers mean, nobody says.
# - *Multi-crop*: the teacher sees two large crops of a photo, the student also small
#   ones, and shall give the teacher's answer of another crop. The loss is the
#   cross-entropy, - sum over K of p_teacher log p_student.
# - Only the student has a gradient. The teacher is its *exponential moving average*:
#   teacher = m teacher + (1 - m) student after each step, m from 0.996 up to 1.
# - One bad way out is open, *collapse*: the same answer for every photo. *Centring*
#   takes a running mean off the teacher's scores, *sharpening* divides them by a small
#   temperature (0.04 to 0.07; the student's is 0.1). Why both?
#
# (DINOv2 adds masked patches, iBOT's loss: Zhou et al. 2022. So learned a ViT-g from
# 142 million photos. No label was a target, but people had chosen the sets. Our small
# network was distilled from that one, frozen.)
#
# A teacher's scores for 64 photos, one answer the loudest for all of them. Among how
# many answers does it waver (exp of the entropy)?

# %%
rng = np.random.default_rng(0)
scores = rng.standard_normal((64, 16))  # (B, K)
scores[:, 3] += 5
spread = {}
for centre in (0, scores.mean(0)):
    for temperature in (1, 0.07):
        p = ops.softmax((scores - centre) / temperature).data  # (B, K)
        what = "centred " * np.ndim(centre) + "sharp" * (temperature < 1)
        entropies = [-(q * np.log(q + 1e-30)).sum(-1).mean() for q in (p, p.mean(0))]
        spread[what] = np.exp(entropies)
        print("{:13} answers: each {:4.1f}, all {:4.1f}".format(what, *spread[what]))
assert spread["centred sharp"][0] < 2 and spread["centred sharp"][1] > 10

# %% [markdown]
# Sharp alone: all give one answer. Centred alone: each photo says a bit of everything.
# Both: each photo is sure, and together they use 14 answers.
#
# ## Three numbers of 384
#
# In which directions do the patches' tokens differ most? The *principal components* are
# the eigenvectors of their covariance. Three of them make a colour.


# %%
def pixels(picture):
    return images.pixel_values(picture, picture.size[::-1], **images.IMAGENET)


def look(model, *made):
    """The final tokens (B, T, D) of pictures of one size."""
    x = np.stack([pixels(shown) for shown in made])  # (B, C, H, W)
    with no_grad():
        return model(x, interpolate_pos_encoding=True).last_hidden_state.data


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


tokens = {name: look(model, picture)[0] for name, model in models.items()}  # (T, D)
centred = tokens["trained"][1:] - tokens["trained"][1:].mean(0)  # (N, D)
variances, _ = np.linalg.eigh(centred.T @ centred)  # the smallest first
found = lens.principal_components(tokens["trained"][1:], 3)
shares = variances[::-1][:3] / variances.sum()
print("shares of the variance:", *(f"{share:.0%}" for share in shares))
assert np.allclose(shares, found.shares, atol=1e-3)

# %% [markdown]
# Three numbers of 384 hold most of what tells the patches apart, of the photos in the
# box four fifths. Do they belong to the things in the photo, or to its pixels?
#
# ## Your turn
#
# We mirror the photo, take its colour and 40 % of its light away, and make a faded
# negative of that. How like is each patch to its own image there (cosine, without the
# mean token)? Predict, before you run: trained and untrained, dark and negative. Four
# numbers from -1 (opposite) over 0 (a stranger) to 1 (the same), and why.

# %%
dark = ImageOps.mirror(picture).convert("L").point(lambda v: v * 0.6).convert("RGB")
negative = dark.point(lambda value: 200 - value)
mirror = np.arange(N).reshape(grid)[:, ::-1].ravel()  # patch n lies there at mirror[n]
changed, same = {}, {}
for name, model in models.items():
    changed[name], of_negative = look(model, dark, negative)  # (T, D) each
    before = tokens[name][1:] - tokens[name][1:].mean(0)  # (N, D)
    for kind, x in (("dark", changed[name]), ("negative", of_negative)):
        after = x[1:][mirror] - x[1:].mean(0)
        same[name, kind] = (unit(before) * unit(after)).sum(-1).mean()
        print(f"{name:9}: a patch and its image, {kind:8} {same[name, kind]:+.2f}")
assert same["trained", "negative"] > same["untrained", "negative"]

# %% [markdown]
# Dark stays darker than light, so the untrained network keeps something, too. In the
# negative each patch is its opposite to it, or a stranger. The trained one knows it.
# The same as colours, on the axes of the photo as it is:

# %%
upper, lower, titles = [picture], [dark], ["yours", *models, "changed", *models]
for name in models:
    found = lens.principal_components(tokens[name][1:], 3)
    low, high = np.quantile(found.coordinates, [0.01, 0.99], axis=0)
    for row, x in ((upper, tokens[name]), (lower, changed[name])):
        along = (x[1:] - x[1:].mean(0)) @ found.axes.T  # (N, 3)
        colours = (along - low) / np.maximum(high - low, 1e-12)
        row.append(colours.reshape(*grid, 3))

# %%
plots.pictures(
    [*upper, *lower], titles, columns=3, name="components",
    caption="What is coloured below as it is above was known again in the dark.",
)
plt.show()

# %% [markdown]
# ## A search
#
# Each principal component has two ends: six patches of yours that differ much. We look
# for their like in the changed photo, and in a photo of the box whose CLS is unlike
# yours. One matrix product gives the *cosine similarity* of all pairs. The nearest may
# still be far: read it.

# %%
box = [images.photo(name) for name in ("cat.jpg", "coffee.jpg", "pagoda.jpg")]
box = [images.fit_patches(path, 14, patches=256) for path in box]
mine, there = tokens["trained"], [look(eye, shown)[0] for shown in box]  # (T, D)
near = np.array([unit(mine[0]) @ unit(x[0]) for x in there])
further, other = near.argsort()[:2]  # of the box, those least like yours
along = lens.principal_components(mine[1:], 3).coordinates  # (N, 3)
places = [np.array([*along.argmax(0), *along.argmin(0)])]  # six patches of yours
for x in (changed["trained"], there[other]):
    cosines = (unit(mine[1:]) @ unit(x[1:]).T)[places[0]]  # (6, N')
    places.append(cosines.argmax(1))  # (6,)
    print("cosine of the nearest:", *(f"{cosine:.2f}" for cosine in cosines.max(1)))

# %%
plots.found_patches(
    [picture, dark, box[other]], places, 14, ["yours", "changed", "another"],
    name="search", caption="The same number lies on patches that are most alike "
    "(if there is a pagoda: danielbuechele, CC BY 2.0).",
)
plt.show()

# %% [markdown]
# ## Ten pictures a class
#
# Three classes: your photo, and two of the box. Ten crops of the left half of each to
# learn from, ten of the right half to be judged on, as they are, and grey and dark. The
# eye stays as it is, *frozen*; one matrix is learned, a *linear probe*. *Ridge
# regression* asks for the w that makes |x w - y|^2 + strength |w|^2 smallest: set its
# gradient to zero, 2 x^T (x w - y) + 2 strength w = 0, and solve for w.


# %%
def crops(shown, half, count=10):
    """Crops of the left half of a photo, 0, or of the right one, 1."""
    W, H = shown.width // 2, shown.height
    for relative, right, down in np.random.default_rng(half).random((count, 3)):
        side = (0.7 + 0.3 * relative) * min(W, H)
        x, y = half * W + right * (W - side), down * (H - side)
        yield shown.resize((112, 112), box=(x, y, x + side, y + side))


def features(model, made):
    x = look(model, *made)  # (B, T, D)
    return np.concatenate([x[:, 0], x[:, 1:].mean(1)], axis=1).astype(float)  # (B, 2 D)


photos = [picture, box[other], box[further]]
learn, test = ([c for shown in photos for c in crops(shown, half)] for half in (0, 1))
dim = [c.convert("L").point(lambda v: v * 0.6).convert("RGB") for c in test]
labels = np.repeat(np.arange(3), 10)
y, strength = np.eye(3)[labels] - 1 / 3, 0.1  # y: (B, K)
for name, model in models.items():
    x = features(model, learn)  # (B, 2 D)
    mean = x.mean(0)
    x = unit(x - mean)
    w = np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)  # (2 D, K)
    for kind, made in (("in colour", test), ("grey and dark", dim)):
        said = (unit(features(model, made) - mean) @ w).argmax(1)  # (B,)
        print(f"{name:9}: {(said == labels).mean():4.0%} right {kind}")
assert np.allclose(x.T @ (x @ w - y) + strength * w, 0, atol=1e-9)  # its gradient

# %% [markdown]
# By chance it would be 33 %. An untrained network learns the colours, and guesses
# without them. (30 crops are few, 1 is 3 %; the other half of a photo is easier than
# another photo.) Which heads matter? See lesson 13b.
#
# ## What you can say now
#
# - Self-distillation: the student gives, for one crop, the teacher's answer for
#   another; the teacher is its moving average. Centring and sharpening bar collapse.
# - Three principal components hold most of what tells a photo's patches apart.
# - The tokens know a patch again in the dark; to search is one matrix product.
# - A linear probe on frozen features has a closed form: ten pictures can be enough.
#
# ## Exercises
#
# - Write the backward of ridge regression: `minivit exercise 13`.
# - Take one picture a class, then two, five, ten, with five draws of each. Draw it.
# - Give strength 0.001 to 100. How would you choose it without the test crops?
#
# Sources: Oquab et al. 2023, Caron et al. 2021, Zhou et al. 2022, Pearson 1901.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=13](../explore.html#lesson=13)
