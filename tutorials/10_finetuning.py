# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 10. Pretrain, then finetune
#
# The question: here are ten views each of twelve places. Must a model that shall tell
# the places apart start from nothing?
#
# Builds: a trained body with a new head that learns alone (linear probe), then with the
# last block (finetuning), against a model from scratch; rates chosen on validation.
#
# New ideas: (1) pretraining and transfer; (2) a new head on a frozen body; (3) linear
# probe; (4) finetuning, gently; (5) a learning rate for each way; (6) spread of draws.
#
# Teach: 45 minutes. Run: 40 seconds.
#
# Axes: B batch of views, N patches, T = N + 1 tokens, D hidden size, K classes.

# %%
import copy
import dataclasses
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import ImageOps

from minivit import datasets, images, lessons, nn, no_grad, ops, optim, plots, weights
from minivit.cli.recipes import recipe
from minivit.training import evaluate
from minivit.vit import ViTConfig, ViTForImageClassification

# %% [markdown]
# ## Twelve places
#
# From scratch, on few pictures, a ViT overfits (lesson 9b). So take a body that learned
# to see elsewhere, without our labels (*pretraining*), and ask what it is worth here
# (*transfer*). Here: your photo and two of the box, in quarters, are twelve places. A
# view is a piece of a place, perhaps mirrored, perhaps grey, in more or less light.
# Which place is it? (Two views may share pixels: it is to be known *again*.)

# %%
K, SIDE = 12, 56
box = ("cat.jpg", "coffee.jpg", "pagoda.jpg")
others = [images.photo(name) for name in box if name != Path(lessons.photo()).name]
photos = [images.open_image(path) for path in (lessons.photo(), *others[:2])]


def view(photo, quarter, rng):
    W, H = photo.width // 2, photo.height // 2
    side = rng.uniform(0.5, 0.8) * min(W, H)
    x, y = rng.random(2) * (W - side, H - side) + (quarter % 2 * W, quarter // 2 * H)
    piece = photo.resize((SIDE, SIDE), box=(x, y, x + side, y + side))
    piece = ImageOps.mirror(piece) if rng.random() < 0.5 else piece
    piece = piece.convert("L").convert("RGB") if rng.random() < 0.5 else piece
    return (np.asarray(piece) * rng.uniform(0.3, 1)).astype(np.uint8).transpose(2, 0, 1)


def views(count, seed):
    rng, labels = np.random.default_rng(seed), np.repeat(np.arange(K), count)
    made = [view(photos[place // 4], place % 4, rng) for place in labels]
    return datasets.Dataset(np.array(made), labels, range(K)).scaled(**images.IMAGENET)


pool, validation, test = views(15, 0), views(10, 1), views(15, 2)
print("to draw from", len(pool), "validation", len(validation), "test", len(test))

# %%
plots.pictures(
    list(pool.images[::15].transpose(0, 2, 3, 1)),
    columns=6, name="places",
    caption="One view of each place, 0 to 11; four after each other are of one photo "
    "(if there is a pagoda: danielbuechele, CC BY 2.0).",
)
plt.show()

# %% [markdown]
# ## A frozen body: look once
#
# The body is DINOv2's smallest, ViT-S/14 (Oquab et al. 2023; lesson 13 tells how it
# learned). It is *frozen*: its numbers do not learn. So we look at each view once, and
# keep what goes into the last block, and the final CLS. Behind CLS comes a *new head*,
# one linear map for our K places. It learns alone: a *linear probe*, which asks whether
# the places are apart already. Its gradient is (softmax - target)^T cls / B.


# %%
eye = weights.dinov2_small()


def look(data):
    tokens, cls = [], []
    for x, _ in data.batches(30):
        with no_grad():
            out = eye(x, interpolate_pos_encoding=True, output_hidden_states=True)
        tokens.append(out.hidden_states[-2].data)
        cls.append(out.last_hidden_state.data[:, 0])
    return np.concatenate(tokens), np.concatenate(cls)  # (B, T, D), (B, D)


tokens, cls = {}, {}
for data in (pool, validation, test):
    tokens[data], cls[data] = look(data)
head = nn.Linear(384, K, std=0.02, rng=0)
logits = head(cls[pool])  # (B, K)
ops.cross_entropy(logits, pool.labels).backward()
wrong = ops.softmax(logits.data).data - np.eye(K)[pool.labels]  # softmax - target
apart = abs(wrong.T @ cls[pool] / len(pool) - head.weight.grad).max()
print(f"{head.num_parameters():,} numbers learn; gradient by hand to {apart:.0e}")
assert apart < 1e-5

# %% [markdown]
# ## Three ways to learn
#
# - **linear probe**: 100 steps for the head alone;
# - **finetuning**: then 12 steps for head *and* last block, 1.8 million numbers. (First
#   the head: a random one sends random gradients into the body, Kumar et al. 2022.)
# - **from scratch**: a small ViT, 200 steps, the views mirrored and shifted at random.


# %%
class Top(nn.Module):
    def __init__(self, head):
        self.block, self.norm = copy.deepcopy((eye.encoder.layer[-1], eye.layernorm))
        self.head = head

    def forward(self, x):  # (B, T, D) -> (B, K)
        return self.head(self.norm(self.block(x)[0][:, 0]))


def descend(model, x, labels, steps, lr, rng):
    optimizer = optim.AdamW(model.parameters(), lr=lr)
    for _ in range(steps):
        batch = rng.permutation(len(labels))[:24]
        loss = ops.cross_entropy(model(x[batch]), labels[batch])
        model.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def right(model, x, data):
    return (model(x[data]).data.argmax(1) == data.labels).mean()


def draw(count, seed):
    rng = np.random.default_rng(seed)
    rows = [15 * place + rng.permutation(15)[:count] for place in range(K)]
    return np.concatenate(rows), rng


def probe(count, seed, lr):
    rows, rng = draw(count, seed)
    head = nn.Linear(384, K, std=0.02, rng=rng)
    return descend(head, cls[pool][rows], pool.labels[rows], 100, lr, rng)


def linear_probe(count, seed, lr, data):
    return right(probe(count, seed, lr), cls, data)


def finetuning(count, seed, lr, data):
    rows, rng = draw(count, seed)
    top = Top(probe(count, seed, chosen[linear_probe]))
    descend(top, tokens[pool][rows], pool.labels[rows], 12, lr, rng)
    return right(top, tokens, data)


def from_scratch(count, seed, lr, data):
    rows, rng = draw(count, seed)
    sizes = {"patch_size": 14, "image_size": SIDE, "num_labels": K}
    config = ViTConfig(**recipe("photos").model | sizes | {"num_hidden_layers": 2})
    model = ViTForImageClassification(config, rng=rng)
    epochs = 200 // -(-len(rows) // 24)  # 200 steps
    changes = {"epochs": epochs, "batch_size": 24, "lr": lr, "affine": {}, "crop": 4}
    plan = dataclasses.replace(recipe("photos"), **changes)
    plan.fit(model, pool[rows], rng=rng, verbose=False)
    return evaluate(model, data).accuracy


# %% [markdown]
# ## A learning rate for each way
#
# At one rate for all it would be a race of learning rates. So each way gets its own,
# the best on the validation views, with ten views a place.

# %%
rates = {
    linear_probe: [1e-3, 1e-2, 1e-1],
    finetuning: [1e-5, 1e-4, 1e-2],
    from_scratch: [5e-4, 2e-3, 8e-3],
}
chosen = {}
for way, candidates in rates.items():
    found = [way(10, 0, lr, validation) for lr in candidates]
    chosen[way] = candidates[np.argmax(found)]
    print(f"{way.__name__:12}", *(f"{x:.2f}" for x in found), "best:", chosen[way])
    assert way is not finetuning or max(found) > found[-1]

# %% [markdown]
# Finetuning: a small rate keeps what the body knew and may add a little; at 1e-2 most
# of it is forgotten after twelve steps. *Gently* is the word.
#
# ## Your turn
#
# Which way will be first with one view a place, which with ten, and by how much? Write
# it down. Then open the test views, once.

# %%
counts, race = [1, 3, 10], {}
for way, lr in chosen.items():
    table = [[way(count, seed, lr, test) for count in counts] for seed in range(3)]
    spread = [f(table, axis=0) for f in (np.mean, np.min, np.max)]  # (counts,) each
    race[way.__name__] = counts, *spread
    told = (f"{x:.2f} ({a:.2f}-{b:.2f})" for x, a, b in zip(*spread, strict=True))
    print(f"{way.__name__:12}", *told)
assert race["linear_probe"][1][-1] > race["from_scratch"][1][-1]

# %%
plots.curves(
    {"lines": race, "xscale": "log", "xticks": counts, "xlabel": "views a place"},
    name="transfer",
    caption="Accuracy on the test views; a band spans three draws of the views.",
)
plt.show()

# %% [markdown]
# The probe knows more places again than the model from scratch: that is *transfer*. (A
# part is patience: with 400 or 800 steps the cat's scratch had 0.62 and 0.63 on the
# validation views, the probe 0.80.) Finetuning is hardly ahead: the bands overlap.
#
# ## What you can say now
#
# - With few pictures, most of what is needed can be learned elsewhere: transfer.
# - A linear probe is one matrix on frozen features: it asks what is apart already.
# - Finetuning lets the body learn, too, gently: at a large rate it forgets.
# - I compare ways at a learning rate of their own, by validation, over several draws.
#
# ## Exercises
#
# 1. `minivit exercise 10`: the backward of positions on another grid (lesson 10b).
# 2. Give `from_scratch` 100 steps, then 400. How much of the gap is only patience?
#
# Sources: Kumar et al. 2022, Oquab et al. 2023
#
# In the explorer, a page of `minivit explore --model digits --out digits.html`:
# [digits.html#lesson=10](../digits.html#lesson=10)
