# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 14b. What talking costs
#
# The question: a thousand machines, a thousand times as fast?
#
# Builds: a model of what a message costs, fitted to a measurement on this computer, and
# drawn up to 1,000 machines.
#
# New ideas: (1) *latency* and *bandwidth*; (2) *weak scaling*; (3) *strong scaling*;
# (4) why a batch cannot grow for ever, and the linear scaling rule.
#
# Teach: 25 minutes. Run: 4 seconds.
#
# Axes: B batch; M machines, counted from 0; a, b, seconds a message and seconds a byte.

# %%
import json
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np

from minivit import nn, plots, vit
from minivit.errors import MinivitError
from minivit.machinery import communication

with nn.meta():  # shapes without memory
    base = vit.ViTForImageClassification(vit.ViTConfig.base(num_labels=1000))
gradient = 4 * base.num_parameters()  # bytes
print(f"the gradient of ViT-B/16: {gradient / 1e6:.0f} MB")

# %% [markdown]
# ## What a message costs
#
# Two numbers describe a wire roughly, to about a factor of two: its *latency* a,
# seconds before the first byte arrives, and its *bandwidth*, here the inverse b,
# seconds a byte. The ring of lesson 14 has 2 (M - 1) steps of 1 / M of the vector each,
# so for S bytes it takes
#
# t = 2 (M - 1) (a + S / M b).
#
# Let us measure two processes of this computer, through mpi4py if it is there. Every
# size 20 times, of which the quickest counts: all that can disturb makes it slower.

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
S, t = np.array(measured).T  # bytes, seconds
print(where)

# %% [markdown]
# For M = 2 the formula is t = 2 a + S b. We fit both numbers by least squares of the
# *relative* errors, so that small messages count as much as large ones: divide each
# equation by its t.

# %%
a, b = np.linalg.lstsq(np.stack([2 / t, S / t], 1), np.ones(len(t)), rcond=None)[0]
print("     bytes  milliseconds  the model's")
for size, seconds in zip(S, t, strict=True):
    print(f"{size:10,.0f}  {1e3 * seconds:12.3f}  {1e3 * (2 * a + size * b):11.3f}")
print(f"latency {1e6 * a:.1f} us, bandwidth {1e-9 / b:.1f} GB/s")
assert a > 0 and S[-1] * b > 2 * a  # of a long message the bytes count

# %% [markdown]
# ## Your turn
#
# ViT-B/16 takes about 1 s a picture here, forward and backward, and its gradient has
# 346 MB. Gigabit Ethernet brings 117 MB a second. Two ways to use M machines:
#
# - *Weak scaling*: each machine keeps 8 pictures, the batch grows with M. Efficiency is
#   the time of one machine over the time of M.
# - *Strong scaling*: 1,024 pictures in all, shared out. Speed-up is the same quotient.
#
# Predict with a pencil, for 1,000 machines on that Ethernet: how many seconds do they
# talk? What is the efficiency, what the speed-up?

# %%
PICTURE = 1.0  # seconds: 0.8 to 1.3, by the machine
wires = {
    "as measured": (a, b),
    "gigabit Ethernet": (50e-6, 1 / 117e6),
    "100 Gbit/s": (2e-6, 1 / 12.5e9),
}
machines = np.unique(np.geomspace(1, 1000, 40).astype(int))  # M, many of them
weak, strong = {}, {}
for name, (latency, per_byte) in wires.items():
    talk = 2 * (machines - 1) * (latency + gradient / machines * per_byte)
    weak[name] = machines, 8 * PICTURE / (8 * PICTURE + talk)
    most = np.ceil(1024 / machines) * PICTURE  # the machine with most pictures
    strong[name] = machines, 1024 * PICTURE / (most + talk)
    print(f"{name:16} 1,000 machines talk {talk[-1]:4.1f} s:", end=" ")
    print(f"weak {weak[name][1][-1]:4.0%}, strong {strong[name][1][-1]:3.0f} times")
slow, fast = strong["gigabit Ethernet"][1], strong["100 Gbit/s"][1]
assert weak["gigabit Ethernet"][1][-1] > 0.5 and slow[-1] < 200 < fast[-1]

# %%
plots.curves(
    dict(
        lines=weak, title="weak: 8 pictures on each", xscale="log", ylim=(0, 1.05),
        xlabel="machines", ylabel="efficiency",
    ),
    dict(
        lines=strong | {"M times": (machines, machines)}, xscale="log", yscale="log",
        title="strong: 1,024 in all", xlabel="machines", ylabel="times as fast",
    ),
    name="scaling",
    caption="Where a line leaves 1 (left) or the M times (right), machines wait.",
)
plt.show()

# %% [markdown]
# Weak scaling is kind: the wire is busy for two gradients however many we are. Strong
# scaling ends where the wire takes longer than a machine's few pictures.
#
# But weak scaling buys a batch of 8,000. Goyal et al. 2017 learned ImageNet with up to
# 8,192 pictures a step, as well as with 256: the learning rate grows with the batch,
# the *linear scaling rule*, after a warm-up. Beyond that it got worse. One reason: the
# noise of a mean of B gradients falls as 1 / sqrt(B) only. Try it:

# %%
rng = np.random.default_rng(0)
noise = {B: rng.standard_normal((1000, B)).mean(1).std() for B in (1, 4, 16, 64, 256)}
print("noise of a mean of B,", *(f"{B}: {x:.3f}" for B, x in noise.items()))
assert abs(noise[256] * 16 - 1) < 0.1

# %% [markdown]
# Four times the work for half the noise; and once little of it is left, a larger batch
# makes the same step at a higher price.
#
# ## What you can say now
#
# - A message costs latency and bytes over bandwidth. Of long vectors the bytes count.
# - Weak scaling makes the batch larger, until that helps no more; strong scaling ends
#   where talking takes as long as computing.
# - The learning rate grows with the batch, for a while, after a warm-up.
#
# ## Exercises
#
# - Your lab has 20 PCs on gigabit Ethernet, and your ViT has 5.7 million parameters and
#   takes 60 ms a picture. How many pictures must each PC have, that talking takes less
#   than a tenth of the time?
# - Send the gradient in half precision, 2 bytes a number: which of the six numbers
#   above change, and by how much?
#
# Sources: Patarasuk and Yuan 2009, Goyal et al. 2017.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=14](../explore.html#lesson=14)
