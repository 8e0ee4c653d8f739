# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 6b. 24 blocks deep, and what comes back
#
# The question: does it matter where the norm stands? We stack 24 untrained blocks, send
# a gradient in at the top, and look at what arrives at the bottom.
#
# Builds: three stacks of the same parts: pre-norm, post-norm, and one without
# residuals; their gradients block by block, and how alike their tokens become.
#
# New ideas: (1) pre-norm and post-norm as stacks, and a third spelling that is one of
# them; (2) what a residual stream carries back; (3) the part of a gradient that tells
# tokens apart; (4) *rank collapse*; (5) the size of the first weights, and *warm-up*.
#
# Teach: 30 minutes. Run: 3 seconds.
#
# Axes: B batch, P patch side, T tokens, D hidden size, h heads, F MLP size, L blocks

# %%
import matplotlib.pyplot as plt
import numpy as np

from minivit import Tensor, images, lessons, ops, plots, vit

photo = lessons.photo()
rng = np.random.default_rng(0)
L = 24
pixels = images.pixel_values(photo, 96)  # (C, H, W)
patches = images.patchify(pixels, 16).reshape(36, -1)  # (T, 768)
x = patches @ rng.standard_normal((768, 64)) / 10  # (T, D), in place of an embedding
x += 0.3 * rng.standard_normal(x.shape)  # and of positions


def stack(std):
    sizes = dict(hidden_size=64, num_attention_heads=4, intermediate_size=256)
    config = vit.ViTConfig(**sizes, initializer_range=std)
    rng = np.random.default_rng(2)
    return [vit.ViTLayer(config, rng).to(np.float64) for _ in range(L)]


blocks = stack(1 / 8)  # 1 / sqrt(D): a matrix hands on numbers as large as it got
print(f"{L} blocks, {sum(block.num_parameters() for block in blocks)} parameters")

# %% [markdown]
# ## Three ways to lay the roads
#
# The parts of a block are two norms, attention and MLP. Attention and MLP we call f,
# whichever it is. Pre-norm is `x + f(norm(x))`. Post-norm is `norm(x + f(x))`, the
# original Transformer (Vaswani et al. 2017) and BERT (Devlin et al. 2019). And without
# residuals, `f(norm(x))`, everything has to go through the parts.

# %%
def attention(block, x):
    return block.attention(x)[0]  # (B, T, D)


def mlp(block, x):
    return block.output.dense(ops.gelu(block.intermediate.dense(x)))  # (B, T, D)


def pre_norm(block, x):
    x = x + attention(block, block.layernorm_before(x))
    return x + mlp(block, block.layernorm_after(x))


def post_norm(block, x):
    x = block.layernorm_before(x + attention(block, x))
    return block.layernorm_after(x + mlp(block, x))


def no_residual(block, x):
    x = attention(block, block.layernorm_before(x))
    return mlp(block, block.layernorm_after(x))


# %% [markdown]
# ## A fourth, which is one of the three
#
# Some code, that of lesson 12's notebook too, says `n = norm(x)` and then `n + f(n)`:
# the road starts *behind* the norm. It looks like pre-norm, with the norm first. Write
# four parts in a row and set the brackets anew: each sum is followed by the next part's
# norm. So it is post-norm, with one norm more in front and one less at the end. We
# assert that, to the last digit.

# %%
def behind_the_norm(block, x):
    n = block.layernorm_before(x)
    m = block.layernorm_after(n + attention(block, n))
    return m + mlp(block, m)


one = two = Tensor(x[None])  # (B, T, D)
for block in blocks:
    one = behind_the_norm(block, one)
two = blocks[0].layernorm_before(two)  # one norm more in front
for i, block in enumerate(blocks):
    two = block.layernorm_after(two + attention(block, two))
    two = two + mlp(block, two)
    if i + 1 < L:  # one less at the end
        two = blocks[i + 1].layernorm_before(two)
assert (one.data == two.data).all()
print(f"{2 * L} parts, both spellings: largest difference {abs(one - two).data.max()}")

# %% [markdown]
# ## What comes back
#
# Send a random gradient in at the top and measure how large it is at each block's
# entrance. A part of it is the same for all tokens: it tells them all to move alike. We
# take away that mean over the tokens and measure the rest, too: the part that tells a
# single patch what it alone should change.
#
# Going forward we measure how alike the tokens are: the mean cosine of all pairs.

# %%
def walk(blocks, way):
    states = [Tensor(x[None], requires_grad=True)]
    for block in blocks:
        states.append(way(block, states[-1]))
        states[-1].retain_grad()  # keep its gradient, though it is no input
    dy = np.random.default_rng(3).standard_normal(states[-1].shape)
    states[-1].backward(dy)
    gradient = np.concatenate([state.grad for state in states])  # (L + 1, T, D)
    differs = gradient - gradient.mean(1, keepdims=True)  # what tells tokens apart
    sizes = [np.linalg.norm(a, axis=(1, 2)) for a in (gradient, differs)]
    tokens = np.concatenate([state.data for state in states])  # (L + 1, T, D)
    tokens /= np.linalg.norm(tokens, axis=2, keepdims=True)
    cosines = tokens @ tokens.transpose(0, 2, 1)  # (L + 1, T, T)
    return *(size / np.linalg.norm(dy) for size in sizes), cosines


ways = {"pre-norm": pre_norm, "post-norm": post_norm, "no residual": no_residual}
all_of_it, differs, cosines = {}, {}, {}
for name, way in ways.items():
    all_of_it[name], differs[name], cosines[name] = walk(blocks, way)
    print(f"{name:12} by token, after passing 0, 6, 12, 18, 24 blocks:", end=" ")
    print(*(f"{differs[name][L - passed]:.2g}" for passed in (0, 6, 12, 18, 24)))
assert 3 * differs["post-norm"].min() < differs["pre-norm"].min()

# %%
plots.curves(
    dict(lines={name: size[::-1] for name, size in all_of_it.items()}, yscale="log",
         title="all of the gradient", ylim=(0.01, 10), xlabel="blocks passed"),
    dict(lines={name: size[::-1] for name, size in differs.items()}, yscale="log",
         title="what tells tokens apart", ylim=(0.01, 10), xlabel="blocks passed"),
    name="gradient_by_depth", caption="From left to right as the gradient goes: 1 was "
    "sent in at the top, on the right is what arrives at the pixels.",
)
plt.show()

# %% [markdown]
# Pre-norm: what was sent in arrives, and each block adds its own part. That is so in
# these untrained blocks, and no law: a part that answers -x would cancel the road.
# Post-norm: each block adds its part, and then divides by the new size. What all tokens
# share holds out. What tells them apart shrinks to one or two hundredths in the middle,
# and grows again in the lowest blocks: there the tokens still differ, so that what they
# share is turned into differences. Without residuals it is 0 after one block, to the
# last digit, until those lowest blocks.
#
# ## Rank collapse
#
# Why? Look forward. Attention averages, and averages of averages are all the same: the
# matrix of tokens loses its rank, in attention alone doubly exponentially with depth,
# like `0.9 ** (3 ** L)`, and residuals hold it up (Dong et al. 2021, who call it *rank
# collapse*). Equal tokens get equal attention weights, and so attention hands the same
# gradient to each of them.

# %%
alike = {name: table.mean((1, 2)) for name, table in cosines.items()}  # (L + 1,) each
for name, curve in alike.items():
    print(f"{name:12} mean cosine after 0, 6, 12, 24 blocks:", end=" ")
    print(*(f"{curve[depth]:.4f}" for depth in (0, 6, 12, 24)))
assert alike["pre-norm"][-1] < alike["post-norm"][-1] < 1 + 1e-9

# %%
plots.heatmaps(
    [cosines["pre-norm"][0], *(table[-1] for table in cosines.values())],
    ["the photo's tokens", *(f"after 24: {name}" for name in cosines)], columns=4,
    label="cosine of two tokens", xlabel="token", ylabel="token", name="rank_collapse",
    caption="Each square compares all 36 tokens with each other: one colour all over "
    "means that all tokens have become the same.",
)
plt.show()

# %% [markdown]
# ## A start, not a verdict
#
# These blocks are untrained, and their weights are large, 1/8. The usual start is 0.02,
# `initializer_range`. Then attention and MLP add so little that both stacks look alike;
# the difference comes as the weights grow.

# %%
small = stack(0.02)
for name in ("pre-norm", "post-norm"):
    _, differs_small, _ = walk(small, ways[name])
    low, high = differs_small.min(), differs_small.max()
    print(f"weights of 0.02, {name:9}: {low:.2f} to {high:.2f} of what was sent in")

# %% [markdown]
# So both are trained, and differently. Xiong et al. (2020) show that the gradients of
# post-norm are large near its top at the start, so that it wants *warm-up*, small steps
# first (lesson 9), and that pre-norm trains without. Pre-norm, in turn, needs one norm
# more, behind the last block: nothing has normalised the stream (lesson 7).

# %% [markdown]
# ## Your turn
#
# Predict the curve of a pre-norm stack in which only the MLPs have a residual, and of
# one in which only attention has. Which of the two collapses? Write both as functions,
# as above, and `walk` them. (Predict now, run one of them, and the other at home.)

# %% [markdown]
# ## What you can say now
#
# - Pre-norm `x + f(norm(x))` and post-norm `norm(x + f(x))` are two architectures;
#   `n + f(n)` with n = norm(x) is post-norm, spelled from the middle.
# - Through a residual stream the gradient passes every block; a norm on the road
#   divides it, each time.
# - Where tokens become alike, there is nothing left to tell them apart: rank collapse.
# - Small first weights hide the difference, and warm-up carries post-norm past it.
#
# ## Exercises
#
# - How many blocks does post-norm need until the mean cosine is above 0.99? With
#   weights of 1/16? Of 1/4?
# - Change one part so that pre-norm loses its gradient: attention that answers -x.
#
# Sources: Vaswani et al. 2017; Devlin et al. 2019; Xiong et al. 2020; Dong et al. 2021.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=6](../explore.html#lesson=6)
