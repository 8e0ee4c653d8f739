# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 2b. How much of a patch fits into D numbers?
#
# The question: a patch has 768 numbers, a token has D. What is lost, who decides it,
# and what can a trained Vision Transformer not see at all?
#
# Builds: the best filters that there are, without learning; what is lost with D of
# them; your photo drawn from D numbers a patch, and without what a trained eye never
# asks.
#
# New ideas: (1) rank and null space; (2) principal components, the D best filters;
# (3) the same answers, read well or badly; (4) what learned filters leave out.
#
# Teach: 25 minutes. Run: 4 seconds.
#
# Axes: P patch side, N patches, I = 3 * P * P numbers in a patch, D hidden size, C H W
# as ever.

# %%
import matplotlib.pyplot as plt
import numpy as np

from minivit import images, lessons, plots, weights

P, I = 16, 3 * 16 * 16
pixels = images.pixel_values(lessons.photo(), size=224)  # (C, H, W)
patches = images.patchify(pixels, P).reshape(-1, I)  # (N, I)
box = [lessons.photo(), *map(images.photo, ("cat.jpg", "coffee.jpg", "pagoda.jpg"))]
many = [images.patchify(images.pixel_values(photo, size=448), P) for photo in box]
many = np.concatenate(many).reshape(-1, I).astype(np.float64)  # (3136, I)

# %% [markdown]
# ## Your turn
#
# ViT-Base asks each patch 768 questions, ViT-Small 384, ViT-Tiny 192. Which of them
# could give the patch back from the answers? Decide first, then read the *rank* of
# each: the number of answers that are not made of the others.

# %%
rng = np.random.default_rng(0)
for name, D in (("Base", 768), ("Small", 384), ("Tiny", 192)):
    weight = 0.02 * rng.standard_normal((D, I))
    rank = np.linalg.matrix_rank(weight)
    print(f"ViT-{name:<6} D = {D}: rank {rank}, {I - rank} directions have no answer")
    assert rank == min(D, I)

# %% [markdown]
# Only Base could: its matrix can be undone. To the others whole directions of patches,
# the *null space* of the matrix, give the answer 0. Change a patch along one of them,
# and the token stays as it was. Lesson 1 said "it lost nothing": that needs D of 768 or
# more.
#
# So which directions should one not ask for? Those in which patches hardly differ. The
# *principal components* are the directions ordered by how large the patches are along
# them (here without taking the mean away; lesson 13 does). No other D filters can lose
# less (Eckart and Young 1936).

# %%
_, directions = np.linalg.eigh(many.T @ many)
best = directions[:, ::-1].T  # (I, I), one filter a row, the most important first


def redrawn(patches, filters, brushes):
    return patches @ filters.T @ brushes.T  # (N, I)


def lost(patches, filters, brushes):
    difference = redrawn(patches, filters, brushes) - patches
    return (difference**2).sum() / (patches**2).sum()


sizes = np.array([1, 3, 16, 64, 192, 384, 700])
best_lost = np.array([lost(many, best[:D], best[:D].T) for D in sizes])
for D, share in zip(sizes, best_lost, strict=True):
    print(f"D = {D:>3}: {share:.3%} of the patches is lost")
assert np.all(np.diff(best_lost) < 0)

# %% [markdown]
# And lesson 2's sixteen, which gradient descent had found in 300 steps? They learned on
# normalised patches, which are harder: there is no brightness to score with. The best
# sixteen for those:

# %%
pattern = many.reshape(-1, 3, P * P)
pattern = (pattern - pattern.mean(2, keepdims=True)).reshape(-1, I)
unit = pattern / np.maximum(np.linalg.norm(pattern, axis=1, keepdims=True), 1e-3)
first = np.linalg.eigh(unit.T @ unit)[1][:, :-17:-1].T  # (16, I)
print(f"the best 16 lose {lost(unit, first, first.T):.0%}; what did lesson 2 print?")

# %% [markdown]
# So 300 steps came near the best. And 192 questions of the right kind lose less than
# one percent. Would random filters do as well? It depends on who reads the answers. We
# draw with the filters themselves, then with the brushes that fit best (*least
# squares*):

# %%
second = many.T @ many  # (I, I), which numbers of a patch go together
plain_lost, fitted_lost = [], []
for D in sizes:
    filters = np.linalg.qr(rng.standard_normal((I, D)))[0].T  # D orthogonal ones
    fitted = np.linalg.solve(filters @ second @ filters.T, filters @ second).T  # (I, D)
    plain_lost.append(lost(many, filters, filters.T))
    fitted_lost.append(lost(many, filters, fitted))
print(f"192 random filters lose {plain_lost[4]:.0%}, well read {fitted_lost[4]:.1%}")
assert np.all(fitted_lost >= best_lost)

# %%
plots.curves(
    dict(lines={"random filters, drawn with themselves": (sizes, plain_lost),
                "random filters, fitted brushes": (sizes, fitted_lost),
                "principal components": (sizes, best_lost)},
         xscale="log", yscale="log", xticks=sizes, xlabel="D, filters",
         ylabel="share of the patches that is lost"), name="lost_by_filters",
    caption="Lower is better, and nothing lies below the principal components: random "
    "questions say nearly as much, if whoever reads the answers knows patches.",
)
plt.show()

# %% [markdown]
# So a linear map is enough for a beginning. Numbers of one patch go together, so few
# answers tell much, and the layers behind learn to read them. Your photo, from the
# first D answers:

# %%
sizes = 3, 16, 192, 768
drawings = [redrawn(patches, best[:D], best[:D].T).reshape(-1, 3, P, P) for D in sizes]
drawings = [images.to_image(images.unpatchify(y, 224, 224)) for y in drawings]

# %%
plots.pictures(
    drawings, [f"D = {D}" for D in sizes], name="rebuilt",
    caption="The photo drawn from the first D answers of each patch: three give its "
    "colour, 16 its edges, and from 192 on you have to look hard.",
)
plt.show()

# %% [markdown]
# ## What a trained eye does not ask
#
# In the box lies DINOv2's smallest network (Oquab et al. 2023; lesson 13). It has
# learned 384 filters for patches of 14 x 14, that is 588 numbers. So 204 directions
# have no answer. Which ones did it give up? We take them out of your photo and ask
# again.

# %%
eye = weights.dinov2_small().embeddings.patch_embeddings.projection.weight.data
_, _, axes = np.linalg.svd(eye.reshape(384, 588).astype(np.float64))
unseen = axes[384:]  # (204, 588): the null space
sharp = images.pixel_values(lessons.photo(), size=448, **images.IMAGENET)  # as it wants
cut = images.patchify(sharp, 14).reshape(-1, 588)  # (1024, 588)
hidden = redrawn(cut, unseen, unseen.T)  # what gives no answer
grey = (unseen.reshape(204, 3, 196).mean(1) ** 2).sum() * 3 / 204
share = (hidden**2).sum() / (cut**2).sum()
print(f"{204 / 588:.0%} of the directions, only {grey:.0%} of it grey")
print(f"{share:.1%} of your photo")
answers, again = cut @ eye.reshape(384, 588).T, (cut - hidden) @ eye.reshape(384, 588).T
never = images.unpatchify(hidden.reshape(-1, 3, 14, 14), 448, 448)
shown = [images.to_image(x, **images.IMAGENET) for x in (sharp, sharp - never)]
shown.append(0.5 + 2 * never.transpose(1, 2, 0))
assert np.allclose(answers, again, atol=1e-4 * abs(answers).max())

# %%
plots.pictures(
    shown, ["the photo", "without what it never asks", "what it never asks, enlarged"],
    name="unseen", caption="To the trained eye the left and the middle photo are the "
    "same: it gives up fine colour, which the right picture shows around grey.",
)
plt.show()

# %% [markdown]
# A third of the directions holds about one hundredth of a photo, nearly all of it
# colour. Nobody asked for that. It was learned.
#
# ## What you can say now
#
# - D filters on I numbers have rank D at most: with D < I something is lost for good.
# - The principal components lose the least; 192 of 768 keep more than 99 % of patches.
# - Random filters keep nearly as much, for a reader that knows what patches are like.
# - A trained network gives up directions in which photos hardly differ.
#
# ## Exercises
#
# 1. Fit `best` to the cat alone, and draw the coffee with 16 of its filters. What is
#    lost, compared with filters fitted to the coffee?
# 2. Find two photos that differ to your eye and give the trained eye the same tokens:
#    add noise along `unseen`, as much as you like.
#
# Sources: Eckart and Young 1936, Oquab et al. 2023.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=2](../explore.html#lesson=2)
