# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 13. A trained eye
#
# The question: what does a Vision Transformer see in your photo that never saw a label?
#
# Builds: the loss it learned from, in numbers; and five looks at your photo. Heads,
# principal components, a search in another photo, the worth of each head, and ten
# photos a class.
#
# Teach: 45 minutes. Run: 15 seconds.
#
# Axes: B batch, N patches, T = N + 1 tokens with CLS first, D hidden size, h heads, L
# layers, K classes or answers, n photos that a linear head learns from.

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
# This network is DINOv2's smallest: Oquab et al. 2023, "DINOv2: Learning Robust Visual
# Features without Supervision". Its idea is DINO's, *self-distillation with no labels*:
# Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers".
#
# - Two networks of one shape, *student* and *teacher*, each with an MLP behind CLS that
#   gives K scores (65536 in the first paper). What the K answers mean, nobody says.
# - *Multi-crop*: two large crops of one photo and several small ones. The teacher sees
#   the large ones, the student all. It shall give the teacher's answer of another crop:
#   the loss is the cross-entropy, - sum over K of p_teacher log p_student.
# - Only the student has a gradient. The teacher is its *exponential moving average*:
#   teacher = m teacher + (1 - m) student after each step, m from 0.996 up to 1.
# - One bad way out is open: the same answer for every photo. Two things bar it
#   together. *Centring* takes a running mean off the teacher's scores; *sharpening*
#   divides them by a small temperature (0.04 to 0.07; the student's is 0.1).
#
# DINOv2 adds iBOT's loss (Zhou et al. 2022): some patches are masked for the student
# alone, and at their places it shall give the teacher's answers for these patches.
# Sinkhorn-Knopp steps take the place of centring, and KoLeo (Sablayrolles et al. 2019)
# pushes each photo's CLS away from its nearest neighbour in the batch.
#
# So learned a ViT-g of 1.1 billion parameters, from 142 million photos: curated sets
# and what lies near them among 1.2 billion of the web (LVD-142M). No label was a
# target, but people had chosen the sets. Our small network was *distilled* from it: a
# frozen ViT-g is the teacher, nothing is masked, the student's moving average is kept.
#
# Why both centring and sharpening? A teacher's scores for 64 photos, one answer the
# loudest for all of them. Among how many answers does it waver (exp of the entropy)?

# %%
rng = np.random.default_rng(0)
scores = rng.standard_normal((64, 16))  # (B, K)
scores[:, 3] += 5


def entropy(p):
    return -(p * np.log(p + 1e-30)).sum(-1)


spread = {}
for centre in (0, scores.mean(0)):
    for temperature in (1, 0.07):
        p = ops.softmax((scores - centre) / temperature).data  # (B, K)
        of_one, of_all = np.exp(entropy(p).mean()), np.exp(entropy(p.mean(0)))
        spread[np.ndim(centre) == 1, temperature < 1] = of_one, of_all
        what = "centred" * np.ndim(centre), "sharp" * (temperature < 1)
        print(f"{what[0]:8}{what[1]:6} answers: each {of_one:4.1f}, all {of_all:4.1f}")
assert spread[False, True][1] < 1.5  # sharp alone: one answer for all
assert spread[True, False][0] > 6  # centred alone: each a bit of everything
assert spread[True, True][0] < 2 and spread[True, True][1] > 10  # sure, and different

# %% [markdown]
# ## Heads look at parts
#
# One look with all that is seen on the way. For the heads of the last block: which
# share of its attention does CLS give each patch? Two heads differ by the share that
# one would have to move to become the other.


# %%
def pixels(picture):
    return images.pixel_values(picture, picture.size[::-1], **images.IMAGENET)


def look(model, picture, **asked):
    with no_grad():
        return model(pixels(picture)[None], interpolate_pos_encoding=True, **asked)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def darkened(picture):
    return picture.convert("L").point(lambda value: value * 0.6).convert("RGB")


rows, tokens, apart = {}, {}, {}
for name, model in models.items():
    out = look(model, picture, output_attentions=True)
    tokens[name] = out.last_hidden_state.data[0]  # (T, D)
    rows[name] = out.attentions[-1].data[0, :, 0]  # (h, T)
    shares = rows[name][:, 1:]  # (h, N)
    shares = shares / shares.sum(1, keepdims=True)
    moved = abs(shares[:, None] - shares).sum(2) / 2  # (h, h)
    h = len(shares)
    apart[name] = moved.sum() / (h * (h - 1))
    print(f"{name:9}: two heads differ by {apart[name]:.2f}")
assert apart["trained"] > 2 * apart["untrained"]
figure = plots.attention_over_photo(picture, rows["trained"], grid, query=0)
figure.suptitle("Where CLS looks in the last block, head by head")
figure.set_label("heads")
plt.show()

# %% [markdown]
# The untrained heads all look everywhere. Of the trained ones, each has its own parts,
# and nobody told them what a part is (Caron et al. 2021, figure 3).
#
# ## Three numbers of 384
#
# In which directions do the patches' tokens differ most? The *principal components* are
# the eigenvectors of their covariance. Three of them make a colour.

# %%
centred = tokens["trained"][1:] - tokens["trained"][1:].mean(0)  # (N, D)
variances, directions = np.linalg.eigh(centred.T @ centred)  # the smallest first
found = lens.principal_components(tokens["trained"][1:], 3)
shares = variances[::-1][:3] / variances.sum()
print("shares of the variance:", *(f"{share:.0%}" for share in shares))
assert np.allclose(shares, found.shares, atol=1e-3) and shares.sum() > 0.45

# %% [markdown]
# Do the colours belong to the things in the photo, or to its pixels? We mirror the
# photo, take its colour and 40 % of its light away, and colour it by the axes *of the
# photo*. And we ask each patch how like it is to its image there (cosine, each photo
# without its mean token), and to its image in a faded negative.

# %%
dark = ImageOps.mirror(darkened(picture))
negative = dark.point(lambda value: 200 - value)
mirror = np.arange(N).reshape(grid)[:, ::-1].ravel()  # patch n lies there at mirror[n]
plain = {"layout": "constrained", "subplot_kw": {"xticks": [], "yticks": []}}
figure, axes = plt.subplots(2, 3, figsize=(10, 5.6), **plain)
figure.set_label("components")
for ax, shown in zip(axes[:, 0], (picture, dark), strict=True):
    ax.imshow(shown)
changed, same = {}, {}
for column, (name, model) in zip(axes.T[1:], models.items(), strict=True):
    changed[name] = look(model, dark).last_hidden_state.data[0]  # (T, D)
    before, after = tokens[name][1:], changed[name][1:]
    found = lens.principal_components(before, 3)
    low, high = np.quantile(found.coordinates, [0.01, 0.99], axis=0)
    for ax, x in zip(column, (before, after), strict=True):
        along = (x - x.mean(0)) @ found.axes.T  # (N, 3)
        colours = (along - low) / np.maximum(high - low, 1e-12)
        ax.imshow(colours.clip(0, 1).reshape(*grid, 3))
        ax.set_title(name, fontsize=10)
    of_negative = look(model, negative).last_hidden_state.data[0, 1:]
    for kind, x in (("dark", after), ("negative", of_negative)):
        pair = unit(before - before.mean(0)) * unit(x[mirror] - x.mean(0))
        same[name, kind] = pair.sum(-1).mean()
        print(f"{name:9}: a patch and its image, {kind:8} {same[name, kind]:+.2f}")
figure.suptitle("Both rows on the axes of the upper one: do things keep their colours?")
plt.show()
assert same["trained", "negative"] > 0.1 > same["untrained", "negative"]

# %% [markdown]
# Dark stays darker than light, so the untrained network keeps something, too. In the
# negative each patch is its opposite to it, or a stranger. The trained one knows it.
#
# ## A search
#
# Tokens that tell things apart can be searched. First among photos: yours, dark and
# mirrored, lies among the two of the box that are least like yours. Which is nearest?

# %%
box = [images.photo(name) for name in ("cat.jpg", "coffee.jpg", "pagoda.jpg")]
box = {path: images.fit_patches(path, 14, patches=256) for path in box}
there = {path: look(eye, box[path]).last_hidden_state.data[0] for path in box}
mine = tokens["trained"]
near = {path: unit(mine[0]) @ unit(x[0]) for path, x in there.items()}
further, other = sorted(near, key=near.get)[:2]
to_changed = unit(mine[0]) @ unit(changed["trained"][0])
print(f"yours, changed {to_changed:.2f}, others {near[other]:.2f} {near[further]:.2f}")
assert to_changed > near[other] >= near[further]

# %% [markdown]
# Then among patches. Each principal component has two ends: six patches that differ
# much. We search the changed photo and the other one for their like. One matrix product
# gives the cosine similarity of all pairs. The nearest may still be far: read it.

# %%
along = lens.principal_components(mine[1:], 3).coordinates  # (N, 3)
ends = [*along.argmax(0), *along.argmin(0)]
places = {"yours": (picture, ends)}
gallery = (dark, changed["trained"]), (box[other], there[other])
for title, (shown, x) in zip(("changed", other.name), gallery, strict=True):
    cosines = unit(mine[1:]) @ unit(x[1:]).T  # (N, N')
    by_lens = lens.similarity(mine, int(ends[0]) + 1, among=x)[1:]  # (N',)
    assert np.allclose(cosines[ends[0]], by_lens, atol=1e-5)
    best = cosines[ends].argmax(1)  # (6,)
    places[title] = shown, best
    print(f"{title:10} cosines:", *(f"{s:.2f}" for s in cosines[ends, best]))

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 3), **plain)
figure.set_label("search")
for ax, (title, (shown, patches)) in zip(axes, places.items(), strict=True):
    ax.imshow(shown)
    ax.set_title(title)
    for number, patch in enumerate(patches, start=1):
        y, x = divmod(int(patch), shown.width // 14)
        spot = {"boxstyle": "circle,pad=0.15", "facecolor": f"C{number}"}
        at = {"ha": "center", "va": "center", "color": "white", "fontsize": 9}
        ax.text(x * 14 + 7, y * 14 + 7, number, bbox=spot, **at)
figure.suptitle("Six patches of yours, and the patch most like each")
plt.show()

# %% [markdown]
# ## Ten photos a class
#
# Three classes: your photo, and those two of the box. Ten crops of the left half of
# each to learn from, ten of its right half to be judged on: no pixel is in both. We
# judge twice, as they are and grey and dark: that takes away the easiest clues.
#
# The eye stays as it is, *frozen*. One matrix learns, from CLS beside the mean patch.
# *Ridge regression* asks for the w that makes |x w - y|^2 + strength |w|^2 smallest.
# Set its gradient to zero, 2 x^T (x w - y) + 2 strength w = 0, and there is the answer,
# in closed form: w = (x^T x + strength I)^-1 x^T y.


# %%
def crops(shown, half):
    """Ten crops of the left half of a photo, 0, or of the right one, 1."""
    W, H = shown.width // 2, shown.height
    for relative, right, down in np.random.default_rng(half).random((10, 3)):
        side = (0.7 + 0.3 * relative) * min(W, H)
        x, y = half * W + right * (W - side), down * (H - side)
        yield shown.resize((112, 112), box=(x, y, x + side, y + side))


def features(model, made):
    with no_grad():
        x = np.stack([pixels(crop) for crop in made])
        x = model(x, interpolate_pos_encoding=True).last_hidden_state.data  # (n, T, D)
    return np.concatenate([x[:, 0], x[:, 1:].mean(1)], axis=1).astype(float)  # (n, 2 D)


photos = [images.open_image(path) for path in (lessons.photo(), other, further)]
learn, test = ([c for shown in photos for c in crops(shown, half)] for half in (0, 1))
dim = [darkened(crop) for crop in test]
labels = np.repeat(np.arange(3), 10)
y, strength, right = np.eye(3)[labels] - 1 / 3, 0.1, {}  # y: (n, K)
for name, model in models.items():
    x = features(model, learn)  # (n, 2 D)
    mean = x.mean(0)
    x = unit(x - mean)
    w = np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)  # (2 D, K)
    assert np.allclose(x.T @ (x @ w - y) + strength * w, 0, atol=1e-9)  # the slope
    for kind, made in (("colour", test), ("dark", dim)):
        said = (unit(features(model, made) - mean) @ w).argmax(1)  # (n,)
        right[name, kind] = (said == labels).mean()
    print(f"{name:9}: {right[name, 'colour']:.0%} right in colour,", end=" ")
    print(f"{right[name, 'dark']:.0%} grey and dark; by chance 33%")
assert right["trained", "dark"] > max(0.45, right["untrained", "dark"] + 0.1)

# %% [markdown]
# An untrained network learns the colours, and guesses without them. (30 test crops are
# few: 1 is 3 %. And the other half of a photo is easier than another photo.)
#
# ## Which heads matter?
#
# If there is time. *Ablation*: knock out one head, and look how far CLS turns, 1 -
# cosine. A small copy of the photo will do. One head by hand with `head_mask`, then all
# L x h of them.

# %%
small = pixels(images.fit_patches(picture, 14, patches=64))[None]  # (B, C, H, W)
answers = lens.knock_out(eye, small)
whole = unit(answers[None].cls[0])  # (D,)
turned = np.zeros((len(eye.encoder.layer), h))  # (L, h)
for head in np.ndindex(turned.shape):
    turned[head] = 1 - whole @ unit(answers[head].cls[0])


def without(heads):
    mask = np.ones(turned.shape)
    mask[heads] = 0
    with no_grad():
        out = eye(small, interpolate_pos_encoding=True, head_mask=mask)
    return 1 - whole @ unit(out.last_hidden_state.data[0, 0])


last, together = turned[-1].sum(), without((-1, slice(None)))
most = np.unravel_index(turned.argmax(), turned.shape)
assert np.isclose(without(most), turned[most], atol=1e-4)
print(f"dearest: block {most[0] + 1}, head {most[1] + 1}, {turned[most]:.3f};", end=" ")
print(f"median {np.median(turned):.3f}")
print(f"last block: one by one {last:.2f} in all, together {together:.2f}")
assert turned.max() > 4 * np.median(turned) and together > last
assert turned[6:].sum() > turned[:6].sum()

# %%
figure, ax = plt.subplots(figsize=(10, 4), dpi=100, layout="constrained")
figure.set_label("knocked_out")
drawn = ax.imshow(turned, "viridis", vmin=0, aspect="auto")
ax.set(xticks=range(h), xticklabels=range(1, h + 1), xlabel="head")
ax.set(yticks=range(len(turned)), yticklabels=range(1, len(turned) + 1), ylabel="block")
ax.set_title("How far CLS turns without this head")
figure.colorbar(drawn, ax=ax, label="1 - cosine")
plt.show()

# %% [markdown]
# Most heads can go, and a few cannot. More of those are in the upper half, where CLS
# gathers its answer. As in lesson 11, all heads of the last block at once are missed
# more than one by one.
#
# ## What you can say now
#
# - Self-distillation: the student gives, for one crop, the teacher's answer for
#   another; the teacher is the student's moving average. Centring and sharpening
#   together bar collapse.
# - Its heads look at different parts; its tokens tell things, not brightness: they
#   know a patch again in the dark, and in the negative.
# - Three principal components hold half or more of what tells the patches of a photo
#   apart.
# - To search is a matrix product of unit vectors.
# - Most heads can be knocked out one at a time; those that matter are more often in the
#   upper blocks.
# - A linear head on frozen features has a closed form, and ten photos a class can be
#   enough.
#
# ## Exercises
#
# - Exercise 13: write the backward of ridge regression. `minivit exercise 13 --out DIR`
#   writes the stub, `minivit check FILE` grades it.
# - Take one photo a class, then two, five, ten. Draw the curve, with five draws of
#   each.
# - Give strength the values 0.001 to 100. Where does it fail, and on which side? How
#   would you choose it without looking at the test crops?
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=13](../explore.html#lesson=13)
