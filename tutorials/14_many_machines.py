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
# add them up, by hand, with lists; a model of what it costs, fitted to a measurement
# and drawn up to 1,000 machines; and the ledger of what each machine must hold.
#
# Teach: 40 minutes. Run: 5 seconds.
#
# Axes: B batch, C channels, H W pixels, N machines, P parameters.

# %%
import json
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np

from minivit import images, lessons, nn, optim, vit
from minivit.errors import MinivitError
from minivit.machinery import communication

photo = images.open_image(lessons.photo())
rng = np.random.default_rng(0)
corners = rng.random((10, 2)) * (photo.width - 64, photo.height - 64)
crops = [photo.crop((x, y, x + 64, y + 64)) for x, y in corners.astype(int)]
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
    """The gradient of the mean loss of these rows, as one long vector (P,)."""
    model.zero_grad()
    model(x[rows], labels=labels[rows]).loss.backward()
    return np.concatenate([p.grad.ravel() for p in model.parameters()])


def apart(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


whole = gradient(slice(0, 10))
halves = [gradient(slice(0, 5)), gradient(slice(5, 10))]
print(f"one half alone, from the whole: {apart(halves[0], whole):.2f}")
print(f"the mean of both:               {apart(np.mean(halves, axis=0), whole):.0e}")
assert apart(halves[0], whole) > 0.01 and apart(np.mean(halves, axis=0), whole) < 1e-13

# %% [markdown]
# Ten examples and three machines: shares of 4, 4 and 2. Now the plain mean is wrong:
# the last machine's two examples would count double. Each gradient is weighted by its
# rows. (A batch norm would break even that: there an example sees the others.)

# %%
shares = [slice(0, 4), slice(4, 8), slice(8, 10)]
rows = np.array([4, 4, 2])
each = np.stack([gradient(share) for share in shares])  # (N, P)
plain, weighted = each.mean(0), (rows / rows.sum()) @ each
print(f"the plain mean {apart(plain, whole):.0e}, by rows {apart(weighted, whole):.0e}")
assert apart(plain, whole) > 1e-3 and apart(weighted, whole) < 1e-13

# %% [markdown]
# So after the backward pass each machine needs one sum of N vectors: an *all-reduce*.
# Then all of them take the same step, and their weights stay equal without being sent.
#
# ## A ring
#
# The simple way: all send their vector to the first machine, which adds and sends the
# sum back. It works, and the first machine receives N - 1 vectors, and sends as many.
#
# The *ring* (Patarasu and Yuan 2009) loads all alike. Cut each vector into N parts. In
# each step every machine sends one part to its right neighbour, all at once:
#
# - *reduce-scatter*, N - 1 steps: who gets a part adds its own to it and passes the sum
#   on. In the end each machine has one part whole.
# - *all-gather*, N - 1 steps: the whole parts go once around.


# %%
def ring(vectors, watch=lambda machines: None):
    """All-reduce by hand: the sum on each machine, numbers sent by each, and steps."""
    N = len(vectors)
    machines = [np.array_split(np.array(vector), N) for vector in vectors]
    sent, steps = [0] * N, 0
    for adding in (True, False):
        for step in range(N - 1):
            parts = [(m - step + (not adding)) % N for m in range(N)]
            parcels = [machines[m][parts[m]].copy() for m in range(N)]
            for m, part, parcel in zip(range(N), parts, parcels, strict=True):
                right = machines[(m + 1) % N]
                right[part] = right[part] + parcel if adding else parcel
                sent[m] += len(parcel)
            steps += 1
            watch(machines)
    return [np.concatenate(parts) for parts in machines], sent, steps


sums, sent, steps = ring((rows / 10)[:, None] * each)
N, P = each.shape
print(f"{steps} steps; each of {N} sent {max(sent):,} numbers, a vector has {P:,}")
assert all(np.array_equal(sums[0], other) for other in sums)  # the very same bits
assert apart(sums[0], whole) < 1e-13
assert steps == 2 * (N - 1) and abs(max(sent) - 2 * (N - 1) / N * P) < 2 * N

# %% [markdown]
# Each sends 2 (N - 1) / N vectors: less than two, *however many machines there are*.
# What grows with N is the number of steps. Watch five machines with one number in each
# part, 1: the number tells how many machines are in the sum.

# %%
moments = []
ring([np.ones(5)] * 5, lambda machines: moments.append(np.array(machines)[..., 0]))
assert [len(moments), moments[3].max(), moments[-1].min()] == [8, 5, 5]
figure, axes = plt.subplots(2, 4, figsize=(10, 5.2), layout="constrained")
figure.set_label("ring")
for step, (ax, held) in enumerate(zip(axes.ravel(), moments, strict=True)):
    ax.imshow(held, "viridis", vmin=1, vmax=5)
    for (machine, part), count in np.ndenumerate(held):
        ink = {"color": "black" if count > 3 else "white", "ha": "center"}
        ax.text(part, machine, f"{count:.0f}", va="center", **ink)
    ax.set(xticks=[], yticks=[], xlabel="part", ylabel="machine")
    kind = "add" if step < 4 else "pass on"
    ax.set_title(f"{kind}, step {step % 4 + 1}", fontsize=10)
figure.suptitle("How many machines are in each sum: reduce-scatter, then all-gather")
plt.show()

# %% [markdown]
# ## What a message costs
#
# Two numbers describe a wire well: *latency*, a, seconds before the first byte arrives,
# and *bandwidth*, here its inverse b, seconds a byte. A ring of N takes, for n bytes,
#
# t(N, n) = 2 (N - 1) a + 2 (N - 1) / N n b.
#
# Let us measure two processes of this machine, through mpi4py if it is there, and fit
# both numbers: least squares of the *relative* errors, so that small messages count.

# %%
PROGRAM = """
import json, time
import numpy as np
from mpi4py import MPI
comm, found = MPI.COMM_WORLD, []
for size in (1, 10_000, 100_000, 1_000_000, 4_000_000):
    array, times = np.ones(size, np.float32), []
    for _ in range(20):
        comm.Barrier()
        start = time.perf_counter()
        comm.Allreduce(MPI.IN_PLACE, array)
        times.append(time.perf_counter() - start)
    found.append((4 * size, min(times)))
if comm.rank == 0:
    print(json.dumps(found))
"""
RECORDED = [[4, 4e-6], [4e4, 4.0e-5], [4e5, 2.5e-4], [4e6, 1.0e-3], [16e6, 6.9e-3]]

try:
    command = [communication.mpiexec(), "-n", "2", sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    measured, where = json.loads(done.stdout), "measured now"
except (MinivitError, OSError, ValueError, subprocess.SubprocessError):
    measured, where = RECORDED, "from a table (no mpi4py): two Xeon cores, MPICH"
n, t = np.array(measured).T  # bytes, seconds
a, b = np.linalg.lstsq(np.stack([2 / t, n / t], 1), np.ones(len(t)), rcond=None)[0]
print(f"{where}\n  bytes  milliseconds  the model's")
for size, seconds in zip(n, t, strict=True):
    print(f"{size:10,.0f}  {1e3 * seconds:8.3f}  {1e3 * (2 * a + size * b):8.3f}")
print(f"latency {1e6 * a:.1f} us, bandwidth {1e-9 / b:.1f} GB/s")
assert a > 0 and b > 0 and n[-1] * b > 2 * a  # of a long message the bytes count

# %% [markdown]
# ## Up to 1,000 machines
#
# A ViT-B/16 with minivit on two cores takes about 1 s a picture, forward and backward,
# and its gradient is 346 MB. Three wires between machines: as fast as what we measured
# inside this one, a lab's gigabit Ethernet, and the 100 Gbit/s of a computing centre.
#
# - *Weak scaling*: each machine keeps 8 pictures, the batch grows with N. Efficiency is
#   the time of one machine over the time of N.
# - *Strong scaling*: 1,024 pictures in all, shared out. Speed-up is the same quotient.

# %%
PICTURE = 1.0  # seconds: 0.8 to 1.3, by the machine
with nn.meta():  # shapes without memory
    base = vit.ViTForImageClassification(vit.ViTConfig.base(num_labels=1000))
bytes_of_gradient = 4 * base.num_parameters()
wires = {
    "as measured": (a, b),
    "gigabit Ethernet": (50e-6, 1 / 117e6),
    "100 Gbit/s": (2e-6, 1 / 12.5e9),
}
machines = np.unique(np.geomspace(1, 1000, 200).astype(int))  # N, many of them


def ring_seconds(N, latency, per_byte):
    return 2 * (N - 1) * (latency + bytes_of_gradient / N * per_byte)


weak, strong = {}, {}
for name, wire in wires.items():
    talk = ring_seconds(machines, *wire)
    weak[name] = 8 * PICTURE / (8 * PICTURE + talk)
    most = np.ceil(1024 / machines) * PICTURE  # the machine with most pictures
    strong[name] = 1024 * PICTURE / (most + talk)
    half = machines[strong[name] >= machines / 2].max()
    print(f"{name:16}  1,000 machines: weak {weak[name][-1]:4.0%},", end=" ")
    print(f"strong {strong[name][-1]:3.0f} times; half of N up to {half}")
slow = strong["gigabit Ethernet"]
assert weak["gigabit Ethernet"][-1] > 0.5  # for 1,000 times the batch
assert slow[-1] < 200 < strong["100 Gbit/s"][-1]  # for the same batch

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
figure.set_label("scaling")
for name in wires:
    left.plot(machines, weak[name], label=name)
    right.plot(machines, strong[name], label=name)
right.plot(machines, machines, ":", color="0.5", label="N")
left.set(xscale="log", ylim=(0, 1.05), xlabel="machines", ylabel="efficiency")
left.set_title("weak: 8 pictures on each")
right.set(xscale="log", yscale="log", xlabel="machines", ylabel="times as fast")
right.set_title("strong: 1,024 pictures in all")
for ax in (left, right):
    ax.grid(alpha=0.3)
    ax.legend()
plt.show()

# %% [markdown]
# Weak scaling is kind: the wire is busy for two gradients however many we are. Strong
# scaling ends where the wire takes longer than a machine's few pictures.
#
# But weak scaling buys a batch of 8,000. Goyal et al. 2017 ("Accurate, Large Minibatch
# SGD") learned ImageNet with up to 8,192 pictures a step, as well as with 256: the
# learning rate grows with the batch, after a warm-up. Beyond that it got worse. For the
# noise of a mean of B gradients falls as 1 / sqrt(B) only, and with little of it left
# a larger batch makes the same step at a higher price.
#
# ## The ledger
#
# The other end is memory. Data parallel keeps, on *each* machine, the weights, their
# gradients, and AdamW's two averages: 4 + 4 + 4 + 4 bytes a parameter in float32. More
# machines do not make that less. First our own count, then four published models: Base,
# Large, Huge (Dosovitskiy et al. 2021) and the 22B of Dehghani et al. 2023.

# %%
small = vit.ViTForImageClassification(config, rng=0)
adam = optim.AdamW(small.parameters())
small(x.astype(np.float32), labels=labels).loss.backward()
held = [y for p in small.parameters() for y in (p.data, p.grad)]
held += [y for name, y in adam.state_dict().items() if name != "step"]
assert sum(y.nbytes for y in held) == 16 * small.num_parameters()

of_22b = vit.ViTConfig(6144, 48, 48, 24576, patch_size=14)
configs = [vit.ViTConfig.base(), vit.ViTConfig.large(), vit.ViTConfig.huge(), of_22b]
counts = {}
for name, published in zip(("Base", "Large", "Huge", "22B"), configs, strict=True):
    with nn.meta():
        made = vit.ViTModel(published, add_pooling_layer=False)
    counts[name] = made.num_parameters()
    one, shared = 16e-9 * counts[name], 16e-9 * counts[name] / 64
    print(f"{name:5} {counts[name] / 1e6:7,.0f} million parameters,", end=" ")
    print(f"{one:6.1f} GB each; shared by 64: {shared:5.2f} GB")
assert 16e-9 * counts["Large"] < 16 < 16e-9 * counts["22B"] / 10  # a PC's memory, in GB
assert abs(counts["22B"] / 21.7e9 - 1) < 0.01  # as the paper counts

# %% [markdown]
# (Activations come on top, and they shrink with a machine's share of the batch.)
#
# So 22B is not trained that way. What people do is in the ring already. After the
# *first half*, each machine has one part of the gradient whole. Let it keep only that
# part of AdamW's averages, change only that part of the weights, and let the *second
# half* bring round the new weights, not the gradient. The bytes are the same.

# %%
N, P = 4, small.num_parameters()
flat = {"grad": np.concatenate([p.grad.ravel() for p in small.parameters()])}
flat["data"] = np.concatenate([p.data.ravel() for p in small.parameters()])
optim.AdamW(small.parameters(), lr=0.01, weight_decay=0).step()
alone = np.concatenate([p.data.ravel() for p in small.parameters()])

parts, state = [], 0
quarters = (np.array_split(flat[key], N) for key in ("data", "grad"))
for data, grad in zip(*quarters, strict=True):
    mine = nn.Parameter(data.copy())  # what one machine keeps: a quarter
    mine.grad = grad
    adam = optim.AdamW([mine], lr=0.01, weight_decay=0)
    adam.step()
    parts.append(mine.data)
    state = max(state, sum(y.nbytes for y in adam.state_dict().values()))
print(f"AdamW on each of {N} machines: {state:,} bytes; on one: {8 * P:,}")
assert np.array_equal(np.concatenate(parts), alone)  # bit for bit
assert state < 8 * P / N + 32

# %% [markdown]
# That is ZeRO (Rajbhandari et al. 2020), first stage. The second keeps a part of the
# gradient only, and the third a part of the weights: before each block its weights come
# together by an all-gather, are used, and are let go. Bytes on the wire: one and a half
# times as many. Memory for all of it: 16 bytes / N, and one block whole. PyTorch calls
# it FSDP, *fully sharded data parallel* (Zhao et al. 2023).
#
# minivit stops before that. It goes on in PyTorch, from the folder that `minivit export
# runs/mine hf_mine` writes. Started by `torchrun --nproc-per-node 8`:
#
# ```
# model = transformers.ViTForImageClassification.from_pretrained("hf_mine")
# for block in model.vit.layers:  # in transformers 4 model.vit.encoder.layer
#     torch.distributed.fsdp.fully_shard(block)
# torch.distributed.fsdp.fully_shard(model)
# ```
#
# And up to there, `minivit train digits --out runs/two --processes 2` does what this
# lesson did by hand (with the extra `mpi`); `mpiexec -n N minivit train ...` does it on
# many machines. Its result is that of one process, but for rounding.
#
# ## What you can say now
#
# - The gradient of a batch is the mean of the gradients of its shares, weighted by
#   rows; so machines need one sum a step, an all-reduce.
# - A ring adds N vectors in 2 (N - 1) steps, and each machine sends less than two
#   vectors: reduce-scatter, then all-gather.
# - A message costs latency and bytes over bandwidth. Of long vectors the bytes count.
# - Weak scaling makes the batch larger, until that helps no more; strong scaling ends
#   where talking takes as long as computing.
# - Data parallel holds 16 bytes a parameter on every machine. To share these, too, is
#   ZeRO, or FSDP.
#
# ## Exercises
#
# - Exercise 14: a linear layer whose weight is kept in parts by N machines. Write its
#   backward. `minivit exercise 14 --out DIR` writes the stub, `minivit check FILE`
#   grades it.
# - Write the simple way, with its counts: which machine sends and receives most? Draw
#   both over N.
# - Your lab has 20 PCs on gigabit Ethernet, and your ViT has 5.7 million parameters and
#   takes 60 ms a picture. How many pictures must each PC have, that talking takes less
#   than a tenth of the time?
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=14](../explore.html#lesson=14)
