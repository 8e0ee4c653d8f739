# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 12b. Softmax, a tile at a time
#
# The question: the attention weights of 5477 tokens are a gigabyte a block, and softmax
# wants a whole row. Can we have the answer without ever holding a row?
#
# Builds: what waits for backward, measured; the *online softmax* and its backward; what
# travels between memory and processor; then the notebook's four encoders.
#
# New ideas: (1) what backward needs must wait, all else need not; (2) *online softmax*
# with a *running maximum*; (3) *recomputation* from one number a query; (4) *IO-aware*:
# count what is moved, not only what is computed.
#
# Teach: 40 minutes. Run: 14 seconds.
#
# Axes: T tokens, D hidden size, h heads, d = D / h head size, q k tokens that ask and
# that are asked; M numbers fit into the fast memory.

# %%
import tracemalloc

import matplotlib.pyplot as plt
import numpy as np

from minivit import Tensor, images, lessons, nn, notebook, ops, plots
from minivit.machinery.blocks import by_queries

D, h = 512, 8
x = images.pixel_values(lessons.photo(), 224).transpose(0, 2, 1)  # (C, W, H)
tokens = notebook.PatchEmbeddings(x, D, kernel_size=8, rng=1)()  # (T, D), T = N
T, d = len(tokens), D // h
sat = notebook.MultiheadSelfAttention(D, h, rng=2)
slices = nn.LayerNorm(D)(tokens).reshape(T, h, d)
query, key, value = (m(slices).data for m in (sat.wq, sat.wk, sat.wv))  # (T, h, d)

# %% [markdown]
# ## What waits for backward?
#
# Three ways to one answer, on 784 patches of the photo: divide the scores by sqrt(d);
# divide the query instead; and minivit's fused attention. How many arrays of scores,
# (q, h, k), are still held when forward is done?


# %%
def divided(q, k, v):
    p = ops.softmax(ops.einsum("qhd,khd->qhk", q, k) / d**0.5)
    return ops.einsum("qhk,khd->qhd", p, v)


def scaled(q, k, v):
    p = ops.softmax(ops.einsum("qhd,khd->qhk", q / d**0.5, k))
    return ops.einsum("qhk,khd->qhd", p, v)


def fused(q, k, v):
    q, k, v = (x.transpose(1, 0, 2) for x in (q, k, v))  # (h, T, d)
    return ops.scaled_dot_product_attention(q, k, v).transpose(1, 0, 2)


held = []
for way in (divided, scaled, fused):
    given = [Tensor(x, requires_grad=True) for x in (query, key, value)]
    tracemalloc.start()
    y = way(*given)
    held.append(tracemalloc.get_traced_memory()[0] / (4 * h * T * T))
    tracemalloc.stop()
    print(f"{way.__name__}: {held[-1]:.2f} arrays of scores wait for backward")
assert [round(arrays) for arrays in held] == [2, 1, 0]

# %% [markdown]
# Softmax's backward needs its output, the attention weights: one array. The second is
# an accident: a division keeps its result for the gradient of the *divisor*, and nobody
# wants the gradient of sqrt(64). The third way keeps none. How?
#
# ## Your turn
#
# One query, and keys that arrive in two tiles: the scores 1 and 3, then 5. Softmax
# subtracts the largest (lesson 5), and after the first tile that is 3. On paper, keep
# the *running maximum* m and the sum of exp(s - m). When 5 arrives, by which factor
# must the old sum shrink, as if m had been 5 all the time? (exp(-2) = 0.135)

# %%
total = np.exp(1 - 3) + np.exp(3 - 3)
print(f"after 1, 3: m = 3, sum {total:.4f}")
total = total * np.exp(3 - 5) + np.exp(5 - 5)
print(f"after 5:    m = 5, sum {total:.4f}")
assert np.isclose(total, np.exp(np.array([1, 3, 5]) - 5).sum())

# %% [markdown]
# ## The online softmax
#
# The sum shrinks by exp(old m - new m), and so does the weighted sum of the values. In
# the end one is divided by the other. Nothing is approximated: this is softmax, exactly
# (Milakov and Gimelshein 2018). Without m it is as exact and not *safe*: exp(100)
# is too much for float32. We give it scores up to 300.


# %%
def online(query, key, value, tile, running=True):
    """softmax(q k^T) v of one head, and log(sum(exp(s))): (q, d), (q, 1)."""
    m, total, y = np.full_like(query[:, :1], -np.inf if running else 0), 0, 0
    for i in range(0, len(key), tile):
        s = query @ key[i : i + tile].T  # (q, tile)
        new = np.maximum(m, s.max(1, keepdims=True)) if running else m
        shrink, p = np.exp(m - new), np.exp(s - new)
        total = total * shrink + p.sum(1, keepdims=True)  # (q, 1)
        y = y * shrink + p @ value[i : i + tile]  # (q, d)
        m = new
        path.append((m[::160, 0], (y / total)[::160]))
    return y / total, m + np.log(total)


q, k, v = query[:, 0], key[:, 0], value[:, 0]  # (T, d), head 0
loud, path = q * 300 / abs(q @ k.T).max(), []
with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
    unsafe, _ = online(loud, k, v, 32, running=False)
print(f"without a maximum {np.isnan(unsafe).any(1).mean():.0%} of the answers are NaN")
path.clear()
y, _ = online(loud, k, v, 32)
whole = ops.softmax(loud @ k.T).data @ v
print(f"with it at most {abs(y - whole).max():.0e} apart from softmax in one piece")
assert np.allclose(y, whole, atol=1e-3)
tops = np.array([m for m, _ in path]).T  # (5, tiles)
off = np.linalg.norm([so_far - y[::160] for _, so_far in path], axis=2).T  # (5, tiles)

# %%
plots.curves(
    {"lines": dict(enumerate(tops)), "title": "running maximum, tile by tile"},
    {"lines": dict(enumerate(off)), "title": "distance to the last answer"},
    name="running_maximum",
    caption="Five queries: the running maximum only rises, and the answer so far comes "
    "to rest when the largest score has been met.",
)
plt.show()

# %% [markdown]
# ## Backward makes them again
#
# log_sum is one number a query. With it p = exp(s - log_sum) comes back, tile by tile;
# and the sum over the keys in softmax's backward is dy y. *Recomputation* costs one
# matrix product more, and saves the gigabytes (Rabe and Staats 2021; Dao et al. 2022).

# %%
q, k, v = (t.astype(np.float64) for t in (q / d**0.5, k, v))
dy = np.random.default_rng(0).standard_normal(q.shape)
y, log_sum = online(q, k, v, 32)
dq, dk, dv = np.zeros((3, T, d))
for i in range(0, T, 32):
    tile = slice(i, i + 32)
    p = np.exp(q @ k[tile].T - log_sum)  # (q, tile)
    ds = p * (dy @ v[tile].T - (dy * y).sum(1, keepdims=True))
    dv[tile], dk[tile] = p.T @ dy, ds.T @ q
    dq += ds @ k[tile]
given = [Tensor(t[None], requires_grad=True) for t in (q * d**0.5, k, v)]
ops.scaled_dot_product_attention(*given).backward(dy[None])
pairs = zip((dq / d**0.5, dk, dv), (t.grad[0] for t in given), strict=True)
apart = [abs(ours - theirs).max() for ours, theirs in pairs]
print("dq, dk, dv apart:", *(f"{difference:.0e}" for difference in apart))
assert max(apart) < 1e-9

# %% [markdown]
# ## Why it is fast: what is moved
#
# On a graphics card the large memory (HBM) gives 1.5 TB a second, the small one on the
# chip (SRAM) 19 (Dao et al. 2022, figure 1). Plain attention writes all scores, reads
# them, writes the weights, reads them. FlashAttention keeps a tile in SRAM: it reads k
# and v once, and q and the sums once for each tile of keys, M / 4d keys at a time. It
# computes *more*, and is faster: that is *IO-aware*, and the point of that paper.

# %%
T_all, M = 5477, 48 * 1024  # tokens; numbers in 192 KB, SRAM of an A100's core
plain = 4 * T_all**2 + 4 * T_all * d  # numbers moved, one head, forward
passes = -(-T_all // (M // (4 * d)))
flash = 2 * T_all * d + passes * 3 * T_all * d
print(f"a head moves {plain / 1e6:.0f} million numbers, tiled {flash / 1e6:.0f}")

# %% [markdown]
# ## Does minivit need the running maximum?
#
# Its tiles come from `by_queries`. We hand it a formula that writes down what it gets.

# %%
pieces, every = [], np.zeros((1, h, T_all, 1), np.float32)


def formula(place, q, k):
    pieces.append((len(q) * q.shape[2], k.shape[2]))  # first it is tried on nothing
    return (q,), (k,)


by_queries(formula, (every,), (every,))
print(f"{len(pieces) - 1} pieces, of at most {max(pieces)[0]} queries")
assert {keys for _, keys in pieces} == {T_all}

# %% [markdown]
# No: each piece has *all* the keys of its queries, softmax finds its maximum in it, and
# minivit needs recomputation alone. The price: a piece grows with T, 189 queries x 5477
# keys are 4 MB. FlashAttention's tile does not. Now the notebook's four encoders.

# %%
embedding = notebook.Embedding(x, D, rng=1)
model = notebook.Vit(D, D, h, num_encoders=4, rng=2).eval()
tracemalloc.start()
y = model(embedding())  # (T, D)
waiting = tracemalloc.get_traced_memory()[0]
y.backward(np.ones_like(y.data))
peak = tracemalloc.get_traced_memory()[1]
tracemalloc.stop()
print(f"{waiting / 1e6:.0f} MB wait for backward, {peak / 1e6:.0f} MB at the highest")
one = 4 * h * len(y) ** 2  # bytes
print(f"plain: 4 x {one / 1e6:.0f} MB of weights wait: {4 * one / peak:.0f} times that")
heights = {"plain, computed": 4 * one, "1 block of it": one, "tiled, measured": peak}
heights = {name: size / 1e9 for name, size in heights.items()}
assert peak < one

# %%
plots.bars(
    {"4 blocks": heights},
    ylabel="GB",
    name="memory",
    caption="5477 tokens, 8 heads: what the attention weights alone would take, and "
    "what four whole blocks took at the highest, forward and backward.",
)
plt.show()

# %% [markdown]
# ## What you can say now
#
# - Plain attention keeps one array of weights a block for backward, 4 h T^2 bytes. A
#   second one is an accident of writing.
# - Online softmax: a running maximum, and old sums shrink by exp(old - new). Exact.
# - One number a query brings all weights back in backward.
# - FlashAttention computes more and moves less. minivit tiles the queries only, and so
#   needs no running maximum.
#
# ## Exercises
#
# - Two machines have half of the keys each: (m, total, y) and (m', total', y'). Write
#   down what the two together answer, and check it.
#
# Sources: Milakov and Gimelshein 2018, Rabe and Staats 2021, Dao et al. 2022
#
# In the explorer, on a page of `minivit explore --model digits --out digits.html`:
# [digits.html#lesson=12](../digits.html#lesson=12)
