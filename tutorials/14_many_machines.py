# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 14. Many machines
#
# The question: N machines share one training. What must they tell one another, what
# does that cost, and where does it end?
#
# Builds: one gradient out of the gradients of several machines; the ring in which they
# add them up, by hand, with lists; and the ledger of what each machine must hold.
#
# New ideas: (1) *data parallel*; (2) the mean of shares, weighted by rows;
# (3) *all-reduce*; (4) the ring: *reduce-scatter*, then *all-gather*; (5) 16 bytes a
# parameter; (6) *sharding* what is held, ZeRO and FSDP.
#
# Teach: 40 minutes. Run: 3 seconds.
#
# Axes: B batch, C channels, H W pixels; M machines, counted from 0, and G numbers in a
# gradient.

# %%
import matplotlib.pyplot as plt
import numpy as np

from minivit import images, lessons, nn, optim, plots, vit

photo = images.open_image(lessons.photo()).resize((224, 224))
rng = np.random.default_rng(0)
corners = rng.integers(160, size=(10, 2))
crops = [photo.crop((x, y, x + 64, y + 64)) for x, y in corners]
x = np.stack([images.pixel_values(crop, 32) for crop in crops]).astype(float)
labels = np.arange(10) % 3  # (B,), any labels will do: we look at gradients
config = vit.ViTConfig(32, 2, 4, 64, image_size=32, patch_size=8, num_labels=3)
model = vit.ViTForImageClassification(config, rng=0).to(np.float64)
print(f"a batch {x.shape} of your photo, {model.num_parameters():,} parameters")

# %% [markdown]
# ## The gradient of the mean
#
# *Data parallel*: each machine has the whole model and a share of the batch. The loss
# is a mean over the examples, a derivative of a sum is the sum of the derivatives, and
# in a ViT no example sees another. So the gradient of the batch is the mean of the
# gradients of two halves. In float64 only the last digits can differ.


# %%
def gradient(rows):
    """The gradient of the mean loss of these rows, as one long vector (G,)."""
    model.zero_grad()
    model(x[rows], labels=labels[rows]).loss.backward()
    return np.concatenate([p.grad.ravel() for p in model.parameters()])


def apart(given, wanted):
    return np.linalg.norm(given - wanted) / np.linalg.norm(wanted)


whole = gradient(slice(0, 10))
halves = [gradient(slice(0, 5)), gradient(slice(5, 10))]
print(f"one half alone, from the whole: {apart(halves[0], whole):.2f}")
print(f"the mean of both:               {apart(np.mean(halves, axis=0), whole):.0e}")
assert apart(np.mean(halves, axis=0), whole) < 1e-13

# %% [markdown]
# ## Your turn
#
# Ten examples and three machines: shares of 4, 4 and 2. Before you run: by how much is
# the plain mean of the three gradients wrong, and what must each be multiplied with?
# Write down three numbers that sum to 1. (A batch norm would break even that: there an
# example sees the others.)

# %%
shares = [slice(0, 4), slice(4, 8), slice(8, 10)]
rows = np.array([4, 4, 2])
each = np.stack([gradient(share) for share in shares])  # (M, G)
plain, weighted = each.mean(0), (rows / rows.sum()) @ each
print(f"the plain mean {apart(plain, whole):.0e}, by rows {apart(weighted, whole):.0e}")
assert apart(weighted, whole) < 1e-13 < apart(plain, whole)

# %% [markdown]
# The last machine's two examples had counted double. So after the backward pass each
# machine needs one sum of M vectors: an *all-reduce*. Then all of them take the same
# step, and their weights stay equal without being sent.
#
# ## A ring
#
# The simple way: all send their vector to machine 0, which adds and sends the sum back.
# It works, and machine 0 receives M - 1 vectors, and sends as many.
#
# The *ring* (Patarasuk and Yuan 2009) loads all alike. Cut each vector into M parts. In
# each step every machine sends one part to its right neighbour, all at once:
#
# - *reduce-scatter*, M - 1 steps: who gets a part adds its own to it and passes the sum
#   on. In the end each machine has one part whole.
# - *all-gather*, M - 1 steps: the whole parts go once around.


# %%
def ring(vectors, watch=lambda machines: None):
    """All-reduce by hand: the sum on each machine, numbers sent by each, and steps."""
    M = len(vectors)
    machines = [np.array_split(np.array(vector), M) for vector in vectors]
    sent, steps = [0] * M, 0
    for adding in (True, False):
        for step in range(M - 1):
            parts = [(m - step + (not adding)) % M for m in range(M)]
            parcels = [machines[m][parts[m]].copy() for m in range(M)]
            for m in range(M):
                right = machines[(m + 1) % M]
                right[parts[m]] = adding * right[parts[m]] + parcels[m]
                sent[m] += len(parcels[m])
            steps += 1
            watch(machines)
    return [np.concatenate(parts) for parts in machines], sent, steps


sums, sent, steps = ring((rows / 10)[:, None] * each)
M, G = each.shape
same = all(np.array_equal(sums[0], other) for other in sums)  # the very same bits
print(f"{steps} steps; each of {M} sent {max(sent):,} numbers, a vector has {G:,}")
print(f"from the whole {apart(sums[0], whole):.0e}; on all machines alike: {same}")
assert same and apart(sums[0], whole) < 1e-13

# %% [markdown]
# Each sends 2 (M - 1) / M vectors: less than two, *however many machines there are*.
# What grows with M is the number of steps, 2 (M - 1), each with its delay (lesson 14b
# measures it). Watch five machines with one number in each part, 1: the number tells
# how many machines are in the sum.

# %%
moments = []
ring([np.ones(5)] * 5, lambda machines: moments.append(np.array(machines)[..., 0]))
titles = [f"{kind}, step {step}" for kind in ("add", "pass on") for step in range(4)]
assert [len(moments), moments[3].max(), moments[-1].min()] == [8, 5, 5]

# %%
plots.heatmaps(
    moments, titles, columns=4, numbers=".0f", label="machines in the sum", name="ring",
    caption="A row is a machine, a column a part of its vector: after four steps each "
    "machine holds one part whole, a 5, and after four more all parts.",
)
plt.show()

# %% [markdown]
# ## The ledger
#
# Where does it end? At the wire (lesson 14b), and at memory. Data parallel keeps, on
# *each* machine, the weights, their gradients, and AdamW's two averages (lesson 9):
# 4 + 4 + 4 + 4 bytes a parameter in float32. More machines do not make that less.
# First our own count:

# %%
small = vit.ViTForImageClassification(config, rng=0)
adam = optim.AdamW(small.parameters())
small(x.astype(np.float32), labels=labels).loss.backward()
held = [y for p in small.parameters() for y in (p.data, p.grad)]
held += [y for name, y in adam.state_dict().items() if name != "step"]
print(f"{small.num_parameters():,} parameters,", end=" ")
print(f"{sum(y.nbytes for y in held):,} bytes held")
assert sum(y.nbytes for y in held) == 16 * small.num_parameters()

# %% [markdown]
# Then published models: Base, Large, Huge (Dosovitskiy et al. 2021) and the 22B of
# Dehghani et al. 2023. `nn.meta()` makes shapes without memory.

# %%
of_22b = vit.ViTConfig(6144, 48, 48, 24576, patch_size=14)
configs = [vit.ViTConfig.base(), vit.ViTConfig.large(), vit.ViTConfig.huge(), of_22b]
bars = {"on each machine": {}, "shared by 64": {}}
for name, published in zip(("Base", "Large", "Huge", "22B"), configs, strict=True):
    with nn.meta():
        made = vit.ViTModel(published, add_pooling_layer=False)
    gigabytes = 16e-9 * made.num_parameters()
    bars["on each machine"][name] = gigabytes
    bars["shared by 64"][name] = gigabytes / 64
    print(f"{name:5} {made.num_parameters() / 1e6:7,.0f} million parameters,", end=" ")
    print(f"{gigabytes:6.1f} GB each; shared by 64: {gigabytes / 64:5.2f} GB")
assert abs(made.num_parameters() / 21.7e9 - 1) < 0.01  # 22B, as the paper counts

# %%
plots.bars(
    bars, ylabel="GB", log=True, name="ledger_of_machines",
    caption="Compare with your computer's memory: weights, gradients and AdamW's "
    "averages, whole or shared out.",
)
plt.show()

# %% [markdown]
# So 22B is not trained that way (and activations come on top). What people do is in the
# ring already. After the *first half*, each machine has one part of the gradient whole.
# Let it keep only that part of AdamW's averages, change only that part of the weights,
# and let the *second half* bring round the new weights, not the gradient.

# %%
M, G = 4, small.num_parameters()
flat = {"grad": np.concatenate([p.grad.ravel() for p in small.parameters()])}
flat["data"] = np.concatenate([p.data.ravel() for p in small.parameters()])
optim.AdamW(small.parameters(), lr=0.01, weight_decay=0).step()
alone = np.concatenate([p.data.ravel() for p in small.parameters()])

parts, state = [], 0
quarters = (np.array_split(flat[key], M) for key in ("data", "grad"))
for data, grad in zip(*quarters, strict=True):
    mine = nn.Parameter(data.copy())  # what one machine keeps: a quarter
    mine.grad = grad
    adam = optim.AdamW([mine], lr=0.01, weight_decay=0)
    adam.step()
    parts.append(mine.data)
    state = max(state, sum(y.nbytes for y in adam.state_dict().values()))
print(f"AdamW on each of {M} machines: {state:,} bytes; on one: {8 * G:,}")
assert np.array_equal(np.concatenate(parts), alone)  # bit for bit

# %% [markdown]
# That is ZeRO (Rajbhandari et al. 2020), first stage. The second keeps a part of the
# gradient only, and the third a part of the weights: before each block its weights come
# together by an all-gather, are used, and are let go. Bytes on the wire: one and a half
# times as many. Memory for all of it: 16 bytes / M, and one block whole. PyTorch calls
# it FSDP, *fully sharded data parallel* (Zhao et al. 2023).
#
# minivit stops before that; `minivit export` writes a folder with which PyTorch can go
# on. `minivit train digits --out runs/two --processes 2` does what this lesson did by
# hand (extra `mpi`). Its result is that of one process, but for rounding.
#
# ## What you can say now
#
# - The gradient of a batch is the mean of the gradients of its shares, weighted by
#   rows; so machines need one sum a step, an all-reduce.
# - A ring adds M vectors in 2 (M - 1) steps, and each machine sends less than two
#   vectors: reduce-scatter, then all-gather.
# - Data parallel holds 16 bytes a parameter on every machine. To share these, too, is
#   ZeRO, or FSDP.
#
# ## Exercises
#
# - A linear layer whose weight is kept in parts by the machines. Write its backward:
#   `minivit exercise 14`.
# - Write the simple way, by machine 0, with its counts: who sends and receives most?
#   Draw both over M.
#
# Sources: Patarasuk and Yuan 2009, Rajbhandari et al. 2020, Zhao et al. 2023,
# Dosovitskiy et al. 2021, Dehghani et al. 2023.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=14](../explore.html#lesson=14)
