# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 11b. A wrong map looks right, and what a head is worth
#
# The question: a map of attention can be wrong and look as good. What finds the fault?
# And which heads could go without anybody noticing?
#
# Builds: rollout with three faults, one of them from a much used repository; the checks
# that find each; then every head of a reader of digits, silenced, alone and together.
#
# New ideas: (1) a *row-stochastic* matrix: none of it below 0, each row sums to 1;
# (2) a fault that sleeps until its input changes; (3) a case by hand that tells two
# orders apart; (4) *ablation* and *head importance*; (5) *redundancy*: the sum of the
# losses is not the loss of the sum.
#
# Teach: 35 minutes. Run: 3 seconds.
#
# Axes: B batch, N patches, T = N + 1 tokens with CLS at 0, h heads, L blocks; q k query
# and key tokens.

# %%
import matplotlib.pyplot as plt
import numpy as np

from minivit import datasets, images, lens, lessons, no_grad, plots, vit, weights

picture = images.fit_patches(lessons.photo(), 14, patches=96)
x = images.pixel_values(picture, picture.size[::-1], **images.IMAGENET)  # (C, H, W)
grid = picture.height // 14, picture.width // 14
eye = weights.dinov2_small()
with no_grad():
    out = eye(x[None], output_attentions=True, interpolate_pos_encoding=True)
layers = [a.data[0].mean(0).astype(float) for a in out.attentions]  # L of (q, k)
T = len(layers[0])

# %% [markdown]
# ## Your turn
#
# Two tokens, two blocks, no residual. In block 0 both tokens take all from token 0. In
# block 1 both take all from token 1. Where does what they hold in the end come from?
# (a) token 0, (b) token 1, (c) half and half. Draw the arrows on paper, then run.

# %%
from_0, from_1 = np.array([[1.0, 0], [1, 0]]), np.array([[0.0, 1], [0, 1]])
print("block 1 @ block 0:", (from_1 @ from_0).tolist())
print("block 0 @ block 1:", (from_0 @ from_1).tolist())
by_lens = lens.attention_rollout([from_0[None, None], from_1[None, None]], residual=0)
assert np.array_equal(by_lens[0], from_0)

# %% [markdown]
# (a): after block 0 token 1 *is* token 0. The last block stands leftmost. The other
# order has rows that sum to 1 as well: no check of sums finds it. A case by hand does.
#
# ## Three ways to divide
#
# A row of attention weights is a whole: none is below 0, and they sum to 1. The matrix
# is *row-stochastic*, and so is a product of such matrices. Where rows do not sum to 1,
# as when small weights are dropped to make a picture cleaner, one divides by the sum of
# each row. Here is that, and two slips of the pen.


# %%
def by_rows(a):
    return a / a.sum(axis=-1, keepdims=True)


def by_columns(a):
    return a / a.sum(axis=-2, keepdims=True)


def keepdims_forgotten(a):
    return a / a.sum(axis=-1)  # the sum of row j divides *column* j


def rollout(layers, divided):
    arrived = np.eye(T)
    for a in layers:
        arrived = divided((a + np.eye(T)) / 2) @ arrived  # (q, k)
    return arrived


def dropped(a, share=0.9):
    """Without the smaller 90 % of all weights; that of CLS for itself stays."""
    small = np.argsort(a.ravel())[: int(share * a.size)]
    return np.where(np.isin(np.arange(a.size), small[small > 0]).reshape(T, T), 0, a)


given = {"all weights": layers, "90 % dropped": [dropped(a) for a in layers]}
sums, maps = {}, {}
for name, each in given.items():
    for way in (by_rows, by_columns, keepdims_forgotten):
        flow = rollout(each, way)
        sums[way, name] = flow.sum(1)
        maps[way, name] = flow[0, 1:].reshape(grid)
        low, high = sums[way, name].min(), sums[way, name].max()
        print(f"{name:12} {way.__name__:<18} rows sum to {low:.2f} ... {high:.2f}")
asleep, awake = (np.ptp(sums[keepdims_forgotten, name]) for name in given)
assert asleep < 1e-4 < 0.01 < awake

# %% [markdown]
# The third way is `a = a / a.sum(dim=-1)` in vit_rollout.py of vit-explain (Gildenblat
# 2020), whose issue 16 (2022) asks for `keepdim=True`. While all rows sum to 1 it
# divides by 1: the fault sleeps. It wakes when weights are dropped, and that code drops
# 90 % unless it is told otherwise. How far is the picture off?

# %%
ways = by_rows, by_columns, keepdims_forgotten
right, columns, wrong = (maps[way, "90 % dropped"] for way in ways)
right, columns, wrong = (m / m.max() for m in (right, columns, wrong))
for way, m in zip(ways[1:], (columns, wrong), strict=True):
    alike = np.corrcoef(right.ravel(), m.ravel())[0, 1]
    print(f"{way.__name__:<18} correlation with the right map {alike:.3f}")

# %%
plots.heatmaps(
    [right, columns, wrong],
    ["by rows: right", "by columns: wrong", "keepdims forgotten: wrong"],
    label="what CLS has of a patch, as a share of the largest",
    name="wrong_maps",
    caption="Rollout with 90 % of the weights dropped, divided in three ways; without "
    "the sums nobody would know which is right.",
)
plt.show()

# %% [markdown]
# Where the correlation is near 1 nobody would see the fault, and so it lives long: all
# rows have lost about as much. The map by columns is another one, and it may look
# *better*: more like the thing in the photo. It is still not what CLS has of a patch.
# A map that pleases is no evidence.
#
# ## What is a head worth?
#
# *Ablation*: take a part out, and see what is missed. `head_mask` multiplies a head's
# weights: 1 keeps it, 0 silences it. (The name comes from transformers 4; version 5 has
# no such argument, pull request 41076.) A head's *importance* is the rise of the loss
# without it (Michel et al. 2019), here of the reader of digits from the box, on 200
# digits that it has not learned from.

# %%
reader = vit.ViTForImageClassification.from_pretrained("digits").eval()
x, labels = datasets.digits()[1].batch(np.arange(200))  # (B, C, H, W), (B,)
worth = lens.head_importance(reader, x, labels)  # (L, h)


def loss(mask):
    with no_grad():
        return reader(x, labels, head_mask=mask).loss.item()


whole, one_out = loss(np.ones(worth.shape)), np.ones(worth.shape)
one_out[0, 2] = 0
print(f"loss {whole:.3f}; the dearest head costs {worth.max():+.3f},", end=" ")
print(f"the cheapest {worth.min():+.3f}")
assert np.isclose(loss(one_out) - whole, worth[0, 2], atol=1e-5)

# %%
plots.heatmaps(
    [worth],
    signed=True,
    numbers="+.2f",
    label="rise of the loss, in nats",
    xlabel="head",
    ylabel="block",
    name="head_worth",
    caption="How much the loss rises without this head: red heads are missed, blue "
    "ones were in the way.",
)
plt.show()

# %% [markdown]
# If each head of a block costs so much, what does the whole block's attention cost? Add
# them up, or take all out at once.

# %%
together = np.zeros(len(worth))
for block in range(len(worth)):
    mask = np.ones(worth.shape)
    mask[block] = 0
    together[block] = loss(mask) - whole
    each = worth[block].sum()
    print(f"block {block}: one by one {each:+.2f}, together {together[block]:+.2f}")
assert together.max() > 1.3 * worth[together.argmax()].sum()

# %% [markdown]
# Alone, most heads are little missed, of block 0 more: others do part of the work, they
# are *redundant*. Nobody stands in for all of them. So the sum of the small losses is
# not the loss of the sum, and a map of importances is not a budget: measure anew after
# each cut.
#
# ## What you can say now
#
# - Rows of attention weights sum to 1. Check that before you look at a picture.
# - A fault can sleep: test with inputs that wake it.
# - Sums find a wrong axis. A case by hand finds a wrong order.
# - Importance by ablation depends on which other parts are there.
#
# ## Exercises
#
# - Silence heads one after the other, the cheapest first, measuring anew each time. How
#   many can go before the reader gets 5 % fewer right?
# - Take the maximum over the heads instead of the mean, as vit-explain can. Does
#   keepdims_forgotten sleep then?
#
# Sources: Abnar and Zuidema 2020, Michel et al. 2019, Gildenblat 2020
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=11](../explore.html#lesson=11)
