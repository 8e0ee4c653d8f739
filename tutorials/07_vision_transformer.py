# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 7. The whole model
#
# The question: what does a Vision Transformer do, from the first pixel to the last logit, and what does it
# cost?
#
# Builds: the whole forward pass on one page of NumPy; the two heads, for pretraining and for finetuning; a
# ledger of every shape, parameter and multiply-add; hidden states and attentions of a photo, untrained and
# trained; and a model with a head cut off.
#
# Teach: 45 minutes. Run: 6 seconds.
#
# Axes: B batch, C channels, H W pixels, P patch side, N patches, T = N + 1 tokens, D hidden size, h heads, d
# = D / h head size, F MLP size, K classes, L blocks

# %%
import copy
import math
import re

import matplotlib.pyplot as plt
import numpy as np

from minivit import images, lessons, nn, no_grad, ops, plots, vit, weights

photo = lessons.photo()

# %% [markdown]
# ## The five steps of the notes
#
# 1. Split an image into patches of a fixed size.
# 2. Embed each patch by one linear map.
# 3. Add position embeddings, and a CLS token in front.
# 4. Feed the sequence to a transformer encoder.
# 5. Pretrain the model with image labels, on a large dataset. Then finetune it on your own.
#
# Lessons 1 to 6 built the parts. Now they are put together. We take the smallest of the known sizes,
# ViT-Tiny/16, with random weights, in float64, so that "equal" can mean twelve digits.

# %%
config = vit.ViTConfig.tiny(num_labels=1000)
model = vit.ViTForImageClassification(config, rng=0).to(np.float64).eval()
w = model.state_dict()  # every parameter by its name, as NumPy arrays
pixels = images.pixel_values(photo, 224).astype(np.float64)  # (C, H, W)
print(f"{len(w)} arrays, {model.num_parameters():,} numbers. The first ones, and one of block 1:")
for name in [*list(w)[:4], "vit.encoder.layer.0.attention.attention.query.weight"]:
    print(f"  {name:53} {w[name].shape}")

# %% [markdown]
# ## Steps 1 to 3: from the photo to the first hidden state

# %%
P, D, h, L = config.patch_size, config.hidden_size, config.num_attention_heads, config.num_hidden_layers
d = D // h
patches = images.patchify(pixels, P).reshape(-1, 3 * P * P)  # (N, C * P * P)
kernel = w["vit.embeddings.patch_embeddings.projection.weight"].reshape(D, -1)  # (D, C * P * P)
embedded = patches @ kernel.T + w["vit.embeddings.patch_embeddings.projection.bias"]  # (N, D)
tokens = np.concatenate([w["vit.embeddings.cls_token"][0], embedded])  # (T, D)
x = tokens + w["vit.embeddings.position_embeddings"][0]
T = len(x)
print("1. patches ", pixels.shape, "->", patches.shape)
print("2. embedded", patches.shape, "->", embedded.shape)
print("3. CLS, positions     ->", x.shape)
assert x.shape == (197, 192)

# %% [markdown]
# ## Step 4: the encoder, on one page
#
# Four small functions. Each takes the name of a layer and looks its numbers up in `w`.

# %%
def linear(x, name):
    return x @ w[name + ".weight"].T + w[name + ".bias"]


def norm(x, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.layer_norm_eps)
    return scaled * w[name + ".weight"] + w[name + ".bias"]


def attention(x, name):
    q, k, v = (linear(x, f"{name}.attention.{part}").reshape(T, h, d) for part in ("query", "key", "value"))
    p = ops.softmax(np.einsum("qhd,khd->hqk", q, k) / math.sqrt(d)).data  # (h, q, k)
    context = np.einsum("hqk,khd->qhd", p, v).reshape(T, D)  # (T, D)
    return linear(context, name + ".output.dense"), p


def block(x, name):
    attended, p = attention(norm(x, name + ".layernorm_before"), name + ".attention")
    x = x + attended
    hidden = ops.gelu(linear(norm(x, name + ".layernorm_after"), name + ".intermediate.dense")).data  # (T, F)
    return x + linear(hidden, name + ".output.dense"), p

# %%
states, attentions = [x], []
for i in range(L):
    x, p = block(x, f"vit.encoder.layer.{i}")
    states.append(x)
    attentions.append(p)
final = norm(x, "vit.layernorm")
logits = linear(final[0], "classifier")  # (K,)
print(f"4. {L} blocks {states[0].shape} -> {x.shape}, final norm -> {final.shape}")
print(f"   CLS alone {final[0].shape} -> logits {logits.shape}")

# %% [markdown]
# That was the model. Does minivit's class say the same? Ask it for everything it saw on the way.

# %%
out = model(pixels[None], output_hidden_states=True, output_attentions=True)
assert np.allclose(logits, out.logits.data[0], rtol=1e-10, atol=1e-12)
assert len(out.hidden_states) == L + 1 and len(out.attentions) == L
for ours, theirs in zip(states + attentions, out.hidden_states + out.attentions, strict=True):
    assert np.allclose(ours, theirs.data[0], rtol=1e-9, atol=1e-12)
print("by hand == ViTForImageClassification:", f"logits, {L + 1} hidden states, {L} attentions")
print(f"largest difference of a logit: {abs(logits - out.logits.data[0]).max():.0e}")

# %% [markdown]
# ## Step 5: which head does it wear?
#
# The notes draw an "MLP head" on top of the encoder. Is it an MLP? Yes and no, at different times. The paper
# says (section 3.1): while *pretraining*, an MLP with one hidden layer; while *finetuning*, a single linear
# layer.
#
# - Pretraining: CLS -> linear -> tanh -> linear. The first half is called the pooler, `ViTPooler`.
# - Finetuning: the pooler *and* the old linear layer are thrown away. CLS -> one new linear layer. That is
#   `ViTForImageClassification`, the model that we have just walked through.

# %%
class ViTForPretraining(nn.Module):
    def __init__(self, config, rng=0):
        self.vit = vit.ViTModel(config, add_pooling_layer=True, rng=rng)
        self.classifier = nn.Linear(config.pooler_output_size, config.num_labels, std=0.02, rng=rng)

    def forward(self, pixel_values):
        return self.classifier(self.vit(pixel_values).pooler_output)  # (B, K)


small = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
pretrained = ViTForPretraining(vit.ViTConfig(**small, num_labels=50)).to(np.float64).eval()
body = pretrained.vit(pixels[None])
dense = pretrained.vit.pooler.dense
hidden = np.tanh(body.last_hidden_state.data[:, 0] @ dense.weight.data.T + dense.bias.data)  # (B, D)
by_hand = hidden @ pretrained.classifier.weight.data.T + pretrained.classifier.bias.data  # (B, K)
assert np.allclose(by_hand, pretrained(pixels[None]).data, rtol=1e-10, atol=1e-12)
print("pretraining head: CLS -> linear -> tanh -> linear", hidden.shape, "->", by_hand.shape)

# %% [markdown]
# Now the change of heads. Seven classes of our own, say. The body is copied. Two names have nowhere to go:
# the pooler's. Two are new: the classifier's. The paper starts the new layer at zero (section 3.2), and so do
# we.

# %%
finetuned = vit.ViTForImageClassification(vit.ViTConfig(**small, num_labels=7)).to(np.float64).eval()
of_body = {name: a for name, a in pretrained.state_dict().items() if not name.startswith("classifier.")}
new, dropped = finetuned.load_state_dict(of_body, strict=False)
finetuned.classifier.weight.data[:] = 0
print("thrown away:", *dropped, " (and the old classifier)")
print("new:        ", *new)
assert set(dropped) == {"vit.pooler.dense.weight", "vit.pooler.dense.bias"}
assert np.array_equal(finetuned.vit(pixels[None]).last_hidden_state.data, body.last_hidden_state.data)

# %% [markdown]
# Why zero? A head of zeros gives every class the same logit. So the loss is exactly ln K: the model starts
# without an opinion. And look at the gradient of the first step: what comes down to the body passes through
# the head's weights, and those are zero. For one step the head learns alone, and the body, which was expensive,
# is not shaken by a head that knows nothing. From the second step on it learns with it.

# %%
loss = finetuned(pixels[None], labels=[3]).loss
loss.backward()
to_head = abs(finetuned.classifier.weight.grad).max()
to_body = max(abs(p.grad).max() for p in finetuned.vit.parameters())
print(f"loss {loss.item():.6f}, ln 7 = {math.log(7):.6f}; largest gradient: head {to_head:.3f}, body {to_body:.3f}")
assert math.isclose(loss.item(), math.log(7)) and to_head > 0 and to_body == 0

# %% [markdown]
# ## The ledger
#
# What does it cost? For each stage: the shape it makes, its parameters, and its multiply-adds.
#
# What we count as multiply-adds: every product of a number with a number *in a matrix product*. That is each
# linear map, the patches' convolution, and the two products of attention: queries with keys, shares with
# values. A product (m, k) @ (k, n) takes m * k * n. Not counted: softmax, GELU, norms, biases and sums. We
# shall see how little they are.

# %%
def ledger(config, side=224):
    """Stage, shape, which parameters (a pattern for their names), how many, multiply-adds for one image."""
    P, C, K, L = config.patch_size, config.num_channels, config.num_labels, config.num_hidden_layers
    D, F, h = config.hidden_size, config.intermediate_size, config.num_attention_heads
    N, p = (side // P) ** 2, C * P * P
    T = N + 1
    return [
        ("patch embeddings", (N, D), "patch_embeddings", p * D + D, N * p * D),
        ("CLS and positions", (T, D), "cls_token|position_emb", D + T * D, 0),
        (f"{L} x q, k, v", (3, h, T, D // h), "query|key|value", L * 3 * (D * D + D), L * 3 * T * D * D),
        (f"{L} x scores", (h, T, T), None, 0, L * T * D * T),
        (f"{L} x shares x values", (h, T, D // h), None, 0, L * T * T * D),
        (f"{L} x output matrix", (T, D), "attention.output", L * (D * D + D), L * T * D * D),
        (f"{L} x MLP", (T, F), r"intermediate|\d.output", L * (2 * D * F + F + D), L * 2 * T * D * F),
        ("all layer norms", (T, D), "layernorm", (2 * L + 1) * 2 * D, 0),
        ("head", (K,), "classifier", D * K + K, D * K),
    ]

# %% [markdown]
# The parameters are checked stage by stage against the model itself. Base has 86 million, and Huge 632
# million: 2.5 GB. We only want to count. Inside `with nn.meta():` parameters have a shape and no memory.

# %%
with nn.meta():
    base = vit.ViTForImageClassification(vit.ViTConfig.base(num_labels=1000))
rows = ledger(base.config)
print(f"{'ViT-Base/16':24}{'shape':>18}{'parameters':>14}{'multiply-adds':>17}")
for stage, shape, pattern, parameters, macs in rows:
    print(f"{stage:24}{shape!s:>18}{parameters:14,}{macs:17,}")
    named = [p.size for name, p in base.named_parameters() if pattern and re.search(pattern, name)]
    assert sum(named) == parameters, stage
total, macs = (sum(row[i] for row in rows) for i in (3, 4))
print(f"{'all':24}{'':18}{total:14,}{macs:17,}  = {macs / 1e9:.2f} GMAC")
assert total == base.num_parameters() == 86_567_656
assert f"{macs / 1e9:.2f}" == "17.56"

# %%
share = {row[0]: (row[3] / total, row[4] / macs) for row in rows}
of_products = share["12 x scores"][1] + share["12 x shares x values"][1]
print(f"in the MLPs: {share['12 x MLP'][0]:.1%} of the parameters, {share['12 x MLP'][1]:.1%} of the multiply-adds")
print(f"attention's own two products: {of_products:.1%} of the multiply-adds")
assert all(0.6 < s < 0.7 for s in share["12 x MLP"]) and 0.035 < of_products < 0.045

# %% [markdown]
# ## Do the multiply-adds really happen?
#
# A formula can forget something. The model cannot: each Tensor remembers the op that made it (lesson 8 builds
# that memory). We walk back from the logits of our Tiny model and add up what the ops really did.

# %%
def walked(logits):
    """Multiply-adds of the matrix products that made these logits, and how many numbers all other ops wrote."""
    products, others, seen, to_do = 0, 0, set(), [logits._node]
    while to_do:
        node = to_do.pop()
        if node in seen:
            continue
        seen.add(node)
        to_do += [parent for parent in node.parents if hasattr(parent, "op")]
        if node.op in ("linear", "conv2d"):
            products += math.prod(node.shape) * math.prod(node.parents[1].shape[1:])
        elif node.op in ("einsum", "matmul"):  # scores, shares x values: summed over the last axis of the first
            products += math.prod(node.shape) * node.parents[0].shape[-1]
        else:
            others += math.prod(node.shape)
    return products, others


tiny, others = walked(out.logits)
print(f"ViT-Tiny/16: ledger {sum(row[4] for row in ledger(config)):,}, walked {tiny:,} multiply-adds")
print(f"everything else wrote {others:,} numbers, {others / tiny:.1%} of that")
assert tiny == sum(row[4] for row in ledger(config)) and others < 0.02 * tiny

# %%
published = {"tiny": 5_717_416, "small": 22_050_664, "base": 86_567_656, "large": 304_326_632, "huge": 632_045_800}
print("size    P     D   L   h    F      parameters    GMAC")
for size, count in published.items():
    with nn.meta():
        c = getattr(vit.ViTConfig, size)(num_labels=1000)
        assert vit.ViTForImageClassification(c).num_parameters() == count == sum(row[3] for row in ledger(c))
    gmac = sum(row[4] for row in ledger(c)) / 1e9
    print(f"{size:5}{c.patch_size:4}{c.hidden_size:6}{c.num_hidden_layers:4}{c.num_attention_heads:4}", end="")
    print(f"{c.intermediate_size:6}{count:15,} {gmac:7.2f}")

# %% [markdown]
# And the head of pretraining? On ImageNet-21k there were 21,843 classes. Of 103 million parameters, 17
# million were in the head, and those are thrown away.

# %%
with nn.meta():
    large_head = ViTForPretraining(vit.ViTConfig.base(num_labels=21_843))
head = large_head.classifier.num_parameters() + large_head.vit.pooler.num_parameters()
print(f"pretraining Base/16 on 21,843 classes: {large_head.num_parameters():,} parameters, {head:,} in the head")
assert large_head.num_parameters() - head == base.num_parameters() - base.classifier.num_parameters() == 85_798_656

# %% [markdown]
# ## Where does a larger photo hurt?
#
# At 224 pixels the scores are a small thing: the MLP is most of the work. But the linear maps grow with T,
# and the scores with T * T. When do they meet? For each token, the maps cost 4 D D + 2 D F, attention costs 2
# T D. They are equal at T = 2 D + F. For Base that is 4608 tokens: a photo of 1086 pixels a side.

# %%
c = base.config
meeting = 2 * c.hidden_size + c.intermediate_size
sides = np.arange(224, 1537, 32)
maps, scores = [], []
for side in sides:
    cost = {stage: macs / 1e9 for stage, _, _, _, macs in ledger(c, int(side))}
    scores.append(cost["12 x scores"] + cost["12 x shares x values"])
    maps.append(cost["12 x q, k, v"] + cost["12 x output matrix"] + cost["12 x MLP"])
maps, scores = np.array(maps), np.array(scores)
first = sides[np.argmax(scores > maps)]
print(f"T = 2 D + F = {meeting} tokens, {16 * math.sqrt(meeting - 1):.0f} pixels a side;", end=" ")
print(f"in the ledger the scores cost more from {first} pixels on")
assert meeting == 4608 and first - 32 <= 16 * math.sqrt(meeting - 1) <= first

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), dpi=100, layout="constrained")
figure.set_label("ledger")
at = np.arange(len(rows))
for column, unit, of, color, shift in (
    (3, "parameters", f"{total / 1e6:.1f} million", "tab:blue", -0.2),
    (4, "multiply-adds", f"{sum(row[4] for row in rows) / 1e9:.2f} billion", "tab:orange", 0.2),
):
    numbers = np.array([row[column] for row in rows])
    drawn = left.barh(at + shift, numbers / numbers.sum(), 0.4, color=color, label=f"{unit}: {of}")
    left.bar_label(drawn, [f"{share:.1%}" for share in numbers / numbers.sum()], padding=3, fontsize=8)
left.set_yticks(at, [row[0] for row in rows])
left.invert_yaxis()
left.set(title="ViT-Base/16: who has them?", xlabel="share", xlim=(0, 0.78))
left.legend(loc="lower right")
right.plot(sides, maps, color="tab:blue", label="linear maps of the blocks: grow with T")
right.plot(sides, scores, color="tab:red", label="scores and values: grow with T * T")
right.axvline(16 * math.sqrt(meeting - 1), color="0.5", linestyle="--", label=f"T = 2 D + F = {meeting}")
right.set(title="ViT-Base/16 on a larger photo", xlabel="photo side, pixels", ylabel="GMAC")
right.grid(alpha=0.3)
right.legend()
plt.show()

# %% [markdown]
# ## Hidden states of the photo
#
# `output_hidden_states=True` gives L + 1 of them: what went into block 1, and what came out of each block.
# All of them are *before* the final norm. So the last one is not `last_hidden_state`; one norm lies between.

# %%
last = model.vit(pixels[None]).last_hidden_state
assert np.allclose(model.vit.layernorm(out.hidden_states[-1]).data, last.data, rtol=1e-10, atol=1e-12)
assert not np.allclose(out.hidden_states[-1].data, last.data)
print("hidden_states[-1]", out.hidden_states[-1].shape, "-> final norm -> last_hidden_state", last.shape)

# %% [markdown]
# What do the blocks make of a photo? Random weights cannot tell. So we ask a trained model as well: DINOv2's
# smallest, which learned from photos without labels (lesson 13). It is this same model: other sizes, other
# numbers.
#
# Two lists of tokens are alike if they hold the same patches for alike. *Linear CKA* measures that, from 0 to 1
# (Kornblith et al. 2019): with both centred, |X^T Y|^2 / (|X^T X| |Y^T Y|). We compare the tokens before block
# 1 with those after each block.

# %%
def cka(x, y):
    x, y = x - x.mean(0), y - y.mean(0)  # (N, D)
    return np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


eye = weights.dinov2_small()
picture = images.fit_patches(photo, 14, patches=384)  # at its own ratio, cut to whole patches
grid = picture.height // 14, picture.width // 14
with no_grad():
    trained = eye(
        images.pixel_values(picture, picture.size[::-1], **images.IMAGENET)[None],
        output_hidden_states=True,
        output_attentions=True,
        interpolate_pos_encoding=True,
    )
kept = {}
for name, model_out in (("untrained", out), ("trained", trained)):
    first, *later = (state.data[0, 1:] for state in model_out.hidden_states)  # (N, D) each
    kept[name] = [cka(first, state) for state in later]
    print(f"{name:9}: as before block 1, after blocks 1, 4, 8, 12:", *(f"{kept[name][i]:.2f}" for i in (0, 3, 7, 11)))
assert kept["untrained"][-1] > 0.7 and kept["trained"][-1] < kept["untrained"][-1] - 0.03

# %% [markdown]
# Random weights keep the patches as they came: what looked alike is alike. The trained blocks arrange them anew.
# We look: the three directions in which the tokens differ most, as red, green and blue. (Within one map equal
# colours are like tokens. Each block has colours of its own.)

# %%
shown = (1, 4, 8, 12)
states_shown = [trained.hidden_states[i].data[0] for i in shown]
figure = plots.token_colours(picture, states_shown, grid, [f"after block {i}" for i in shown])
figure.set_label("hidden_states")
plt.show()

# %% [markdown]
# Random weights know nothing, and twelve blocks of them stir the tokens twelve times. And yet the photo
# arrives. It travels along the residual road: each block only *adds* to what is there. Is that so? Close the
# road. The same blocks with the same weights now hand on nothing but what attention and MLP made. How much of
# the tokens still tells one patch from another?

# %%
def differing(state):
    """What is left of the patches' tokens without their mean, as a share of all: 0 when all are the same."""
    return np.linalg.norm(state[1:] - state[1:].mean(0)) / np.linalg.norm(state[1:])


x = states[0]
for i in range(L):
    name = f"vit.encoder.layer.{i}"
    x, _ = attention(norm(x, name + ".layernorm_before"), name + ".attention")
    x = ops.gelu(linear(norm(x, name + ".layernorm_after"), name + ".intermediate.dense")).data  # (T, F)
    x = linear(x, name + ".output.dense")  # (T, D)
    if i in (0, 1, 11):
        print(f"after block {i + 1:2}: with the roads {differing(states[i + 1]):.2f} of the tokens differs,", end=" ")
        print(f"without {differing(x):.0e}")
assert differing(x) < 1e-6 and differing(states[-1]) > 0.01

# %% [markdown]
# Without the road all patches of this untrained model are the same after two or three blocks. With it, the
# photo is still there.
#
# ## Attentions of the photo
#
# `output_attentions=True` gives one array (B, h, q, k) for each block. Each row sums to 1. We take the row of
# CLS, once more from both models. How far from even is it? We count the share that one would have to move.

# %%
moved = {}
for name, model_out in (("untrained", out), ("trained", trained)):
    p = np.stack([attention.data[0, :, 0] for attention in model_out.attentions])  # (L, h, k)
    assert np.allclose(p.sum(-1), 1, atol=1e-4)
    moved[name] = abs(p - 1 / p.shape[-1]).sum(-1) / 2  # (L, h)
    print(f"{name:9}: CLS in block {L}, to make it even move", *(f"{m:.2f}" for m in moved[name][-1]))
assert moved["trained"][-1].mean() > 2 * moved["untrained"][-1].mean()

# %%
rows_shown = np.stack([trained.attentions[i - 1].data[0, :, 0].mean(0) for i in shown])  # (4, k)
names = [f"block {i}, mean of heads" for i in shown]
figure = plots.attention_over_photo(picture, rows_shown, grid, 0, names)
figure.suptitle("What CLS asks for, in a trained model")
figure.set_label("attentions")
plt.show()

# %% [markdown]
# ## A head less
#
# What does one head do for the result? Silence it and look. There are three ways, from the gentlest to the
# hardest:
#
# - `head_mask`: its shares are multiplied by 0. For one question, nothing in the model changes.
# - By hand: the output matrix reads the head through d of its columns. Make those zero.
# - `prune_heads`: cut its rows out of query, key and value, and its columns out of the output matrix. For
#   good.

# %%
layer, cut = 2, 1  # block 3, head 2: both are counted from 0 here
mask = np.ones((L, h))
mask[layer, cut] = 0
masked = model(pixels[None], head_mask=mask).logits.data

zeroed = copy.deepcopy(model)
columns = slice(cut * d, (cut + 1) * d)
zeroed.vit.encoder.layer[layer].attention.output.dense.weight.data[:, columns] = 0

pruned = copy.deepcopy(model)
pruned.vit.prune_heads({layer: [cut]})

# %%
ways = {"head_mask": masked, "columns of zeros": zeroed(pixels[None]).logits.data}
pruned_out = pruned(pixels[None], output_attentions=True)
ways["prune_heads"] = pruned_out.logits.data
for name, result in ways.items():
    print(f"{name:17} differs from the whole model by {abs(result - out.logits.data).max():.1e}", end=", ")
    print(f"from head_mask by {abs(result - masked).max():.0e}")
    assert np.allclose(result, masked, rtol=1e-10, atol=1e-12)
    assert not np.allclose(result, out.logits.data, rtol=1e-10, atol=1e-12)

# %% [markdown]
# Equal results. But only pruning saves anything: memory and time for the head are gone.

# %%
fewer = model.num_parameters() - pruned.num_parameters()
cheaper = tiny - walked(pruned_out.logits)[0]
print(f"pruned: {fewer:,} parameters and {cheaper:,} multiply-adds fewer;", end=" ")
print("attentions of that block", pruned_out.attentions[layer].shape)
assert fewer == 4 * D * d + 3 * d
assert cheaper == 4 * T * D * d + 2 * T * T * d
assert pruned_out.attentions[layer].shape == (1, h - 1, T, T)

# %% [markdown]
# ## What you can say now
#
# - A Vision Transformer is one page: cut, one linear map, CLS and positions, L blocks, a norm, a linear map
#   of CLS.
# - Its "MLP head" is linear, tanh, linear while pretraining, and one linear layer, started at zero, when
#   finetuning.
# - Base/16 has 86,567,656 parameters and takes 17.56 billion multiply-adds for a photo of 224 pixels; about
#   two thirds of both are in the MLPs.
# - Attention's own products cost 4 % at 197 tokens. They overtake all linear maps at T = 2 D + F tokens.
# - `hidden_states` are L + 1, before the final norm; `attentions` are L, each row sums to 1.
# - The photo reaches the last block along the residual road. Without it all patches of an untrained model become
#   the same.
# - Trained blocks arrange the patches anew; random ones leave them as they came.
# - A masked head and a pruned head give the same logits. Only the pruned one is cheaper.
#
# ## Exercises
#
# - Exercise 07: write the backward of the pretraining head, linear, tanh, linear, on CLS alone.
#   `minivit exercise 07 --out DIR` writes the stub, `minivit check FILE` grades it.
# - Write the ledger of ViT-Base/32. A quarter of the patches: is it a quarter of the parameters, of the
#   multiply-adds?
# - Silence all heads of all blocks: `head_mask=np.zeros((L, h))`. Compare the logits of two different photos.
#   What do you see, and why?
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=7](../explore.html#lesson=7)
