# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 11. What it learned
#
# The question: a model gives an answer. What did it look at, and how would we know?
#
# Builds: looks into a trained eye and a reader of digits: rollout, attention distance,
# the answer block by block, the patch that made it; and a test of the looks themselves.
#
# New ideas: (1) the *control*, an untrained twin; (2) *attention rollout*;
# (3) *attention distance*, local and global heads; (4) the *logit lens* on the
# *residual stream*; (5) *saliency*, a gradient as a map, and where it *saturates*;
# (6) *occlusion*, an *intervention*; (7) is a map *faithful*? The *deletion test*.
#
# Teach: 45 minutes. Run: 8 seconds.
#
# Axes: B batch, C channels, H W pixels, P patch side, N patches, T = N + 1 tokens, CLS
# at 0, D hidden size, h heads, L blocks, K classes; q k query and key tokens.

# %%
import matplotlib.pyplot as plt
import numpy as np

from minivit import Tensor, datasets, images, lens, lessons, no_grad, plots, vit
from minivit.ops import softmax
from minivit.weights import dinov2_small

P, photo = 14, lessons.photo()
eye = dinov2_small()  # it learned from photos without labels: lesson 13
blank = vit.ViTModel(eye.config, add_pooling_layer=False, rng=0).eval()  # its twin
models = {"untrained": blank, "trained": eye}
asked = {"output_attentions": True, "interpolate_pos_encoding": True}


def seen(picture):
    return images.pixel_values(picture, picture.size[::-1], **images.IMAGENET)[None]


# %% [markdown]
# ## Attention rollout
#
# A row of attention weights says how much a token took of each other. But in block 5
# the others are mixtures already, of all that blocks 0 to 4 had brought. *Rollout*
# follows it down to the patches (Abnar and Zuidema 2020). In each block take the mean
# of the heads; count half of a token as its old self, past on the residual (an
# assumption!), so mix with the identity; then multiply, the last block leftmost.
#
# We do it twice. The twin of the same shape has learned nothing: the *control*. A map
# that is the same for both says nothing about learning (Adebayo et al. 2018).

# %%
picture = images.fit_patches(photo, P, patches=384)  # at its own ratio
grid = picture.height // P, picture.width // P
weights_of, rows = {}, {}
for name, model in models.items():
    with no_grad():
        out = model(seen(picture), **asked)
    weights_of[name] = out.attentions  # L of (B, h, T, T)
    flow = identity = np.eye(1 + grid[0] * grid[1])
    for attention in out.attentions:  # block 0 first
        flow = (0.5 * identity + 0.5 * attention.data[0].mean(0)) @ flow  # (q, k)
    rows[name] = flow[0]  # what CLS has of each token at the start
    even = flow[0, 1:] * len(flow)
    print(f"{name:>9}: of each patch {even.min():.2f} to {even.max():.1f} even shares")
assert np.allclose(flow, lens.attention_rollout(out.attentions)[0], atol=1e-4)

# %%
plots.attention_over_photo(
    picture,
    np.stack([*rows.values()]),
    grid,
    query=0,
    names=[*rows],
    name="rollout",
    caption="Rollout: yellow patches are those that CLS has most of in the end; both "
    "maps have one scale, so the control is one colour.",
)
plt.show()

# %% [markdown]
# On a scale of its own the control would show a pattern, too: read the numbers. And
# rollout sees attention weights alone, no values, no MLPs, no question that you ask.
#
# ## How far does a head look?
#
# For each patch that asks: the distance to each patch, weighted by its attention
# weight, in patches. Heads that look at neighbours are *local*, the others *global*.
# Dosovitskiy et al. (2021, figure 7) and Raghu et al. (2021) found, after much data,
# both kinds in low blocks and only global heads in high ones. In your photo?

# %%
place = np.stack(np.divmod(np.arange(grid[0] * grid[1]), grid[1]), axis=1)  # (N, 2)
apart = np.linalg.norm(place[:, None] - place, axis=2)  # (N, N)
far = {}
for name, attentions in weights_of.items():
    among = np.stack([a.data[0, :, 1:, 1:] for a in attentions])  # without CLS
    among /= among.sum(-1, keepdims=True)  # (L, h, N, N)
    far[name] = (among * apart).sum(-1).mean(-1)  # (L, h)
    low, high = far[name][:6].min(), far[name][6:].min()
    print(f"{name:>9}: nearest head {low:.1f} in blocks 0 to 5, {high:.1f} in 6 to 11")
assert far["trained"][:6].min() < 0.8 * far["trained"][6:].min()
dots = {name: (np.repeat(np.arange(12), 6), y.ravel()) for name, y in far.items()}

# %%
plots.curves(
    {"marks": dots, "xlabel": "block", "ylabel": "mean distance in patches"},
    name="attention_distance",
    caption="Each mark is one head: low marks look at their neighbours, high ones at "
    "the whole photo; the untrained heads all lie on one line.",
)
plt.show()

# %% [markdown]
# ## The answer, block by block
#
# A block only *adds* to a token: what runs past all blocks is the *residual stream*. So
# we can stop after any block and ask the classifier at once: last norm, classifier.
# This is the *logit lens* (nostalgebraist 2020). Our eye has no classes. The reader of
# digits that came with minivit has ten; it has 3 blocks, and never saw these digits.

# %%
reader = vit.ViTForImageClassification.from_pretrained("digits").eval()
x, labels = datasets.digits()[1].batch(np.arange(200))  # (B, C, H, W), (B,)
with no_grad():
    out = reader(x, output_hidden_states=True)
    cls = [reader.vit.layernorm(y[:, 0]) for y in out.hidden_states]  # L + 1 of (B, D)
    by_block = np.stack([reader.classifier(y).data for y in cls])  # (L + 1, B, K)
right = (by_block.argmax(-1) == labels).mean(1)  # (L + 1,)
sure = softmax(by_block).data[:, np.arange(200), labels].mean(1)
for n, (share, p) in enumerate(zip(right, sure, strict=True)):
    print(f"after {n} blocks {share:6.1%} right, the right digit gets {p:.2f}")
assert np.allclose(by_block[-1], out.logits.data, atol=1e-4)

# %%
plots.curves(
    {"lines": {"right": right, "given to the right digit": sure}, "xlabel": "blocks"},
    name="logit_lens",
    caption="If the reader had to answer after so many blocks: the share of digits it "
    "gets right, and the probability that it gives to the right one.",
)
plt.show()

# %% [markdown]
# After 0 blocks CLS has seen nothing: one answer for all. (Of your photo it makes a
# digit, too, and not always the one of lesson 9's model: both know nothing else.)
#
# ## Which patch made the answer?
#
# We need one number to explain. Ours: how far CLS points to your photo, and away from
# two others of the box: score = w CLS. Two ways to ask the pixels:
#
# - *Saliency* (Simonyan et al. 2014): the gradient of the score at the pixels. How
#   would the score change if a pixel changed *a little*?
# - *Occlusion* (Zeiler and Fergus 2014): cover 3 x 3 patches with grey. How far does
#   the score fall? It is an *intervention*: something is changed.


# %%
def cls_of(pictures):
    parts = [pictures[i : i + 16] for i in range(0, len(pictures), 16)]
    with no_grad():
        outs = [eye(part, interpolate_pos_encoding=True) for part in parts]
    return np.concatenate([out.last_hidden_state.data[:, 0] for out in outs])


names = photo, *map(images.photo, ("cat.jpg", "coffee.jpg", "pagoda.jpg"))
shown = [images.fit_patches(name, P, patches=96) for name in names]
mine, *box = (cls_of(seen(each))[0] for each in shown)
box = sorted((y / np.linalg.norm(y) for y in box), key=lambda y: y @ mine)
w = mine / np.linalg.norm(mine) - (box[0] + box[1]) / 2  # away from the least alike
w /= np.linalg.norm(w)  # (D,)

x = Tensor(seen(shown[0]), requires_grad=True)
rows, columns = shown[0].height // P, shown[0].width // P
out = eye(x, **asked)
score = out.last_hidden_state[0, 0] @ Tensor(w)
score.backward()
covered = np.repeat(x.data, rows * columns, axis=0)  # (N, C, H, W)
for n, (row, column) in enumerate(np.ndindex(rows, columns)):
    down, right = (slice(max(0, i - 1) * P, (i + 2) * P) for i in (row, column))
    covered[n, :, down, right] = 0  # the mean colour
falls = score.item() - cls_of(covered) @ w  # (N,)
step = covered[falls.argmax()] - x.data[0]  # (C, H, W), to the cover that costs most
for part in (0.01, 0.1, 1):
    fall = score.item() - (cls_of(x.data + part * step) @ w).item()
    told = -(x.grad[0] * part * step).sum()
    print(f"{part:4.0%} covered: falls by {fall:6.3f}, the gradient says {told:6.3f}")

# %% [markdown]
# For a small change the gradient is right. For a whole cover it is far off: the curve
# bends. The cat's is nearly flat here (*saturated*), and steep further off. A saliency
# map answers a smaller question than it seems to.

# %%
steep = (x.grad[0] ** 2).reshape(-1, rows, P, columns, P).sum((0, 2, 4)) ** 0.5
rolled = lens.attention_rollout(out.attentions)[0, 0, 1:].reshape(rows, columns)
maps = {"occlusion": falls.reshape(steep.shape), "saliency": steep, "rollout": rolled}

# %%
plots.heatmaps(
    [*maps.values()],
    [*maps],
    share=False,
    name="three_answers",
    caption="Three answers to one question, patch by patch, yellow is most: how far "
    "the score falls, how steep it is, and what CLS has of the patch.",
)
plt.show()

# %% [markdown]
# ## Your turn
#
# Three maps, and they do not agree. Which is *faithful*, that is, names the patches
# that the answer hangs on? A *deletion test* (Petsiuk et al. 2018): cover the fifth of
# the patches that a map likes best. The better the map, the deeper the fall. And the
# control: a fifth by lot. Write down your order of the four, then run.

# %%
rng = np.random.default_rng(0)
maps |= {f"by lot, {i}": rng.random((rows, columns)) for i in range(3)}
for name, values in maps.items():
    hidden = values >= np.sort(values.ravel())[-rows * columns // 5]  # (rows, columns)
    y = np.where(np.kron(hidden, np.ones((P, P))), 0, x.data)
    print(f"{name:>9}: from {score.item():.1f} to {(cls_of(y) @ w).item():.1f}")

# %% [markdown]
# ## What you can say now
#
# - A map means something beside its control, on one scale.
# - Rollout follows attention weights down the blocks. It knows no question.
# - In this eye local heads lie in low blocks; with less data they may not come (Raghu).
# - Each block adds to the residual stream: ask any of them for the answer.
# - A gradient speaks of small changes, occlusion of yours; test if a map is faithful.
#
# ## Exercises
#
# - Exercise 11: the backward of one step of rollout. `minivit exercise 11 --out DIR`
#   writes the stub, `minivit check 11` grades it.
# - Cover with black, not grey: "covered" is a choice. Which patches change their worth?
#
# Sources: Abnar and Zuidema 2020, Adebayo et al. 2018, Dosovitskiy et al. 2021, Raghu
# et al. 2021, nostalgebraist 2020, Simonyan et al. 2014, Zeiler and Fergus 2014,
# Petsiuk et al. 2018
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=11](../explore.html#lesson=11)
