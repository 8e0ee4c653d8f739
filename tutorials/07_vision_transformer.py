# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 7. The whole model
#
# The question: what does a Vision Transformer do, from the first pixel to the last
# logit, and what does it cost?
#
# Builds: the whole forward pass on one page of NumPy; the heads of pretraining and of
# finetuning; a ledger of every shape, parameter and multiply-add. (7b goes inside.)
#
# New ideas: (1) a model is arrays by name, its *state dict*; (2) the *residual stream*
# and the *hidden states* along it; (3) the heads of *pretraining* and *finetuning*;
# (4) a head that starts at zero; (5) *multiply-adds*, and *FLOPs*, twice as many; (6) a
# token costs as many multiply-adds as there are parameters, nearly.
#
# Teach: 45 minutes. Run: 3 seconds.
#
# Axes: C channels, H W pixels, P patch side, N patches, T = N + 1 tokens, D hidden
# size, h heads, d = D / h head size, F MLP size, K classes, L blocks; q k query and key
# tokens

# %%
import math

import matplotlib.pyplot as plt
import numpy as np

from minivit import images, lessons, nn, ops, plots, vit

# %% [markdown]
# ## Five steps
#
# 1. Cut an image into patches of a fixed size. (lesson 1)
# 2. Embed each patch by one linear map. (2)
# 3. Put a CLS token in front, add position embeddings. (3, 4)
# 4. Feed the sequence to L encoder blocks, and take the final norm. (5, 6)
# 5. Read the classes off CLS, with a head.
#
# We take the smallest of the known sizes, ViT-Tiny/16, with random weights, in float64,
# so that "equal" can mean twelve digits. All it knows are arrays, each by its name.

# %%
config = vit.ViTConfig.tiny(num_labels=1000)
model = vit.ViTForImageClassification(config, rng=0).to(np.float64).eval()
w = model.state_dict()  # every parameter by its name, as NumPy arrays
pixels = images.pixel_values(lessons.photo(), 224).astype(np.float64)  # (C, H, W)
print(f"{len(w)} arrays, {model.num_parameters():,} numbers. One of block 0:")
name = "vit.encoder.layer.0.attention.attention.query.weight"
print(name, w[name].shape)

# %% [markdown]
# ## Steps 1 to 3: from the photo to the first hidden state

# %%
P, D, L = config.patch_size, config.hidden_size, config.num_hidden_layers
h, F = config.num_attention_heads, config.intermediate_size
d = D // h
patches = images.patchify(pixels, P).reshape(-1, 3 * P * P)  # (N, C P P)
projection = "vit.embeddings.patch_embeddings.projection"
kernel = w[projection + ".weight"].reshape(D, -1)  # (D, C P P)
embedded = patches @ kernel.T + w[projection + ".bias"]  # (N, D)
x = np.concatenate([w["vit.embeddings.cls_token"][0], embedded])  # (T, D)
x = x + w["vit.embeddings.position_embeddings"][0]
T = len(x)
print("patches", pixels.shape, "->", patches.shape, "-> embedded", embedded.shape)
print("CLS in front, positions added ->", x.shape)
assert x.shape == (197, 192)

# %% [markdown]
# ## Step 4: the encoder, on one page
#
# Four small functions. Each takes the name of a layer and looks its numbers up in `w`.
# Mind the lines `x = x + ...`: what runs along them from the first to the last block is
# the *residual stream*. A block reads it through a norm, and only adds to it.

# %%
def linear(x, name):
    return x @ w[name + ".weight"].T + w[name + ".bias"]

def norm(x, name):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + config.layer_norm_eps)
    return x * w[name + ".weight"] + w[name + ".bias"]

def attention(x, name):
    parts = (name + ".attention." + part for part in ("query", "key", "value"))
    query, key, value = (linear(x, part).reshape(T, h, d) for part in parts)
    s = np.einsum("qhd,khd->hqk", query, key) / math.sqrt(d)
    p = ops.softmax(s).data  # (h, q, k), the attention weights
    y = np.einsum("hqk,khd->qhd", p, value).reshape(T, D)
    return linear(y, name + ".output.dense"), p

def block(x, name):
    y, p = attention(norm(x, name + ".layernorm_before"), name + ".attention")
    x = x + y
    y = linear(norm(x, name + ".layernorm_after"), name + ".intermediate.dense")
    return x + linear(ops.gelu(y).data, name + ".output.dense"), p  # y: (T, F)

hidden_states, attentions = [x], []
for i in range(L):
    x, p = block(x, f"vit.encoder.layer.{i}")
    hidden_states.append(x)
    attentions.append(p)
logits = linear(norm(x, "vit.layernorm")[0], "classifier")  # CLS alone: (K,)
print(f"{L} blocks: {x.shape} -> {x.shape}, CLS -> logits {logits.shape}")

# %% [markdown]
# That was the model. Does minivit's class say the same? We ask it for all that it saw
# on the way: L + 1 hidden states, the stream before block 0 and after each block, all
# of them *before* the final norm; and L arrays of attention weights.

# %%
out = model(pixels[None], output_hidden_states=True, output_attentions=True)
seen = [out.logits, *out.hidden_states, *out.attentions]
ours = [logits, *hidden_states, *attentions]
apart = max(abs(a - b.data[0]).max() for a, b in zip(ours, seen, strict=True))
print(f"logits, {L + 1} hidden states, {L} attentions: largest difference {apart:.0e}")
assert apart < 1e-12

# %% [markdown]
# ## Step 5: which head does it wear?
#
# Figures of the model show an "MLP head". Is it an MLP? The paper says (section 3.1):
# while *pretraining*, on a large data set, an MLP with one hidden layer; while
# *finetuning*, on your own, one linear layer.
#
# - Pretraining: CLS -> linear -> tanh -> linear. The first half is called the *pooler*.
# - Finetuning: pooler and old linear layer are thrown away. CLS -> a new linear layer.
#
# Seven classes of our own, say. The body is copied, two names have nowhere to go, two
# are new. The paper starts the new layer at zero (section 3.2). Why zero?

# %%
pretrained = vit.ViTModel(config, add_pooling_layer=True, rng=1).to(np.float64)
tuned = vit.ViTForImageClassification(vit.ViTConfig.tiny(num_labels=7)).to(np.float64)
body = {"vit." + name: array for name, array in pretrained.state_dict().items()}
new, dropped = tuned.load_state_dict(body, strict=False)
tuned.classifier.weight.data[:] = 0
print("thrown away:", *dropped)
print("new:        ", *new)
loss = tuned(pixels[None], labels=[3]).loss
loss.backward()
head = abs(tuned.classifier.weight.grad).max()
rest = max(abs(x.grad).max() for x in tuned.vit.parameters())
print(f"loss {loss.item():.6f}, ln 7 = {math.log(7):.6f}")
print(f"largest gradient: head {head:.3f}, body {rest:.3f}")
assert math.isclose(loss.item(), math.log(7)) and head > 0 and rest == 0

# %% [markdown]
# A head of zeros gives every class the same logit, so the loss is exactly ln K: no
# opinion. And the gradient reaches the body through the head's weights, which are zero:
# for one step the head learns alone, and the body, which was expensive, is not shaken.
#
# ## The ledger
#
# What does it cost? We count *multiply-adds*: every product of two numbers *in a matrix
# product*. (m, k) @ (k, n) takes m * k * n. Softmax, GELU, norms, biases and sums are
# not counted: all they write is under 2 % of that. A *FLOP* is one multiplication or
# one addition, so a multiply-add is two FLOPs. Many papers write FLOPs and mean
# multiply-adds: for DeiT-B, this very shape, table 1 of Liu et al. 2021 says 17.5 G.

# %%
def ledger(c, side=224):
    """{stage: (shape, parameters, multiply-adds of one image of side x side pixels)}"""
    D, F, K = c.hidden_size, c.intermediate_size, c.num_labels
    h, L = c.num_attention_heads, c.num_hidden_layers
    N, inputs = (side // c.patch_size) ** 2, c.num_channels * c.patch_size**2
    T = N + 1
    return {
        "patch embeddings": ((N, D), inputs * D + D, N * inputs * D),
        "CLS, positions": ((T, D), D + T * D, 0),
        "query, key, value": ((3, T, D), L * 3 * (D * D + D), L * 3 * T * D * D),
        "scores": ((h, T, T), 0, L * T * T * D),
        "weights x values": ((T, D), 0, L * T * T * D),
        "output matrix": ((T, D), L * (D * D + D), L * T * D * D),
        "MLP": ((T, F), L * (2 * D * F + F + D), L * 2 * T * D * F),
        "layer norms": ((T, D), (2 * L + 1) * 2 * D, 0),
        "head": ((K,), D * K + K, D * K),
    }

# %% [markdown]
# Is it right? The parameters can be checked against the model itself. Base has 86
# million; we only want to count: inside `nn.meta()` parameters have a shape, no memory.

# %%
with nn.meta():
    base = vit.ViTForImageClassification(vit.ViTConfig.base(num_labels=1000))
rows = ledger(base.config)
print(f"{'ViT-Base/16':20}{'shape':>16}{'parameters':>14}{'multiply-adds':>17}")
for stage, (shape, parameters, products) in rows.items():
    print(f"{stage:20}{shape!s:>16}{parameters:14,}{products:17,}")
parameters, products = (sum(row[i] for row in rows.values()) for i in (1, 2))
print(f"{'all':36}{parameters:14,}{products:17,}")
print(f"{products / 1e9:.2f} billion multiply-adds, {2 * products / 1e9:.1f} GFLOPs")
print(f"197 tokens x all parameters = {197 * parameters / 1e9:.2f} billion")
assert parameters == base.num_parameters() == 86_567_656
shares = {
    "parameters": {stage: row[1] / parameters for stage, row in rows.items()},
    "multiply-adds": {stage: row[2] / products for stage, row in rows.items()},
}

# %%
plots.bars(
    shares,
    ylabel="share of all",
    name="ledger",
    caption="Bars of a colour add up to 1: nearly two thirds of each are in the MLPs.",
)
plt.show()

# %% [markdown]
# Each token goes through each matrix once: so the multiply-adds are nearly tokens times
# parameters. The two products of attention, 4 %, come on top.
#
# ## Your turn
#
# Predict first, on paper: ViT-Base/32 has patches of twice the side, so a quarter of
# them. Has it a quarter of the parameters? Of the multiply-adds? Then run the cell of
# the ledger again with `vit.ViTConfig.base(patch_size=32, num_labels=1000)`.
#
# ## What you can say now
#
# - A Vision Transformer is one page: cut, a linear map, CLS and positions, L blocks, a
#   norm, a linear map of CLS.
# - Along the residual stream lie L + 1 hidden states, all before the final norm.
# - Its "MLP head" is linear, tanh, linear while pretraining; when finetuning it is one
#   linear layer, which starts at zero.
# - Base/16 has 86,567,656 parameters and takes 17.56 billion multiply-adds, or 35
#   GFLOPs, for 224 x 224 pixels. Nearly two thirds of both are in the MLPs.
#
# ## Exercises
#
# - `minivit exercise 07 --out DIR`: the backward of the pretraining head, on CLS alone.
#   `minivit check 07` grades it.
# - Which line of the page do you have to change for a batch, x (B, T, D)? Change it.
#
# Sources: Dosovitskiy et al. 2021, Touvron et al. 2021, Liu et al. 2021.
#
# In the explorer, a page that `minivit explore PHOTO` writes:
# [explore.html#lesson=7](../explore.html#lesson=7)
