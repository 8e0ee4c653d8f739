"""The Vision Transformer of a published notebook: one image, no batch, small enough to print every step.

Shapes: C channels, W H pixels, N patches, T = N + 1 tokens, D token width, h heads, d = D / h head size; q and k
index query and key tokens.

What it does differently from vit.py:
- The image is (C, W, H), a photo's `transpose(2, 1, 0)`: the patches run down the photo's columns, not along its rows.
- Positions are the numbers 1..N through a linear layer 1 -> D, so a late patch is mostly its position. CLS gets none.
- All heads share one d x d map for each of query, key and value, and no output matrix mixes the heads.
- The residual goes around the normalised input, norm(x) + f(norm(x)): no road leads past the norms.
- The MLP is two linear layers with dropout and no activation between: without dropout, one linear map.
- There is no final norm and no classifier.

The published notebook made the context with "nhn,nhd->nhd". A letter twice in one operand takes the diagonal, so the
context of token n is scores[n, h, n] * v[n, h]: its own value times one number, and nothing of any other token's
value. Attention sums over the keys, each with its own value: "qhk,khd->qhd".
"""

import math

import numpy as np

from . import nn, ops
from .autograd import Tensor
from .errors import ShapeError
from .machinery.random import generator

PUBLISHED = "nhn,nhd->nhd"
CORRECTED = "qhk,khd->qhd"


class PatchEmbeddings(nn.Module):
    """The patches of one image, each through the same linear map: (C, W, H) -> (N, out_channels).

    image: an array or Tensor, an array is taken in the dtype of the weights; kernel_size: the patch side in pixels,
    and the stride, so N = (W // kernel_size) * (H // kernel_size), and pixels that fill no patch are not read.
    forward() takes the image of the constructor, forward(image) another one.
    """

    def __init__(self, image, out_channels, kernel_size=3, rng=None):
        self.image = _check_image(image, kernel_size)
        self.Conv = nn.Conv2d(len(self.image), out_channels, kernel_size, stride=kernel_size, rng=rng)

    def forward(self, image=None):
        x = self.image if image is None else _check_image(image, self.Conv.stride)
        if not isinstance(x, Tensor):
            x = x.astype(self.Conv.weight.dtype, copy=False)
        x = self.Conv(x[None])  # (1, out_channels, W / kernel_size, H / kernel_size)
        return x.reshape(x.shape[1], -1).T  # (N, out_channels)


class Embedding(nn.Module):
    """Positions 1..N through a linear layer, added to the tokens; then CLS in front. (N, D) -> (T, D)."""

    def __init__(self, embed_dim, rng=None):
        rng = generator(rng)
        self.linear = nn.Linear(1, embed_dim, rng=rng)
        self.cls_token = nn.normal((1, embed_dim), 1, rng)

    def forward(self, tokens):
        _check_tokens("Embedding", tokens, self.cls_token.size)
        positions = np.arange(1, len(tokens) + 1, dtype=self.linear.weight.dtype)[:, None]  # (N, 1)
        return ops.concatenate([self.cls_token, tokens + self.linear(positions)])


class MultiheadSelfAttention(nn.Module):
    """Self-attention whose heads share their maps: softmax(q k^T / sqrt(d)) v in each head. (T, D) -> (T, D).

    input_dim: D, which the heads divide. value_einsum: how scores (q, h, k) and values (k, h, d) make the context;
    CORRECTED never holds all the scores. PUBLISHED and any other equation that gives (T, h, d) do: 4 T^2 h bytes in
    float32, 960 MB for 5477 tokens and 8 heads, and about four times that forward and backward.
    forward(x, output_scores=True) returns (context, scores): (T, D) and the softmaxed scores (q, h, k).
    """

    def __init__(self, input_dim, heads, value_einsum=CORRECTED, rng=None):
        if heads < 1 or input_dim % heads:
            raise ShapeError(
                "MultiheadSelfAttention",
                f"input_dim={input_dim} cannot be split over heads={heads}.",
                rule="input_dim % heads == 0" + (f", but {input_dim} % {heads} = {input_dim % heads}" if heads else ""),
                hint=f"heads may be {', '.join(str(n) for n in range(1, input_dim + 1) if input_dim % n == 0)}.",
            )
        context = ops.einsum(value_einsum, np.zeros((2, 3, 2)), np.zeros((2, 3, 5)))  # T = 2, h = 3, d = 5
        if context.shape != (2, 3, 5):
            raise ShapeError(
                "MultiheadSelfAttention",
                f'value_einsum="{value_einsum}" does not give the context (q, h, d).',
                rule="it takes scores (q, h, k) and values (k, h, d), in this order.",
                hint=f'use "{CORRECTED}", or "{PUBLISHED}" for the published numbers.',
            )
        rng = generator(rng)
        self.heads, self.value_einsum = heads, value_einsum
        d = input_dim // heads
        self.wq, self.wk, self.wv = (nn.Linear(d, d, rng=rng) for _ in range(3))

    def forward(self, x, output_scores=False):
        d = len(self.wq.weight)
        _check_tokens("MultiheadSelfAttention", x, self.heads * d)
        x = x.reshape(len(x), self.heads, d)  # (T, h, d)
        q, k, v = self.wq(x), self.wk(x), self.wv(x)
        if self.value_einsum == CORRECTED and not output_scores:
            q, k, v = (x.transpose(1, 0, 2) for x in (q, k, v))  # (h, T, d)
            context = ops.scaled_dot_product_attention(q, k, v).transpose(1, 0, 2)  # (T, h, d)
            return context.reshape(len(x), -1)  # (T, D)
        scores = ops.softmax(ops.einsum("qhd,khd->qhk", q, k) / math.sqrt(d))  # (T, h, T)
        context = ops.einsum(self.value_einsum, scores, v).reshape(len(x), -1)  # (T, D)
        return (context, scores) if output_scores else context


class EncoderBlock(nn.Module):
    """n = norm1(x), m = norm2(n + attention(n)), m + mlp(m): (T, D) -> (T, D). Options as in the attention."""

    def __init__(self, input_dim, heads, value_einsum=CORRECTED, rng=None):
        rng = generator(rng)
        self.norm1 = nn.LayerNorm(input_dim)
        self.attn_layer = MultiheadSelfAttention(input_dim, heads, value_einsum, rng)
        self.norm2 = nn.LayerNorm(input_dim)
        first, second = (nn.Linear(input_dim, input_dim, rng=rng) for _ in range(2))
        self.mlp = nn.Sequential(first, nn.Dropout(0.2, rng), second)

    def forward(self, x):
        x = self.norm1(x)
        x = self.norm2(self.attn_layer(x) + x)
        return self.mlp(x) + x


class Vit(nn.Module):
    """Encoder blocks one after the other, on the output of Embedding: (T, input_dim) -> (T, embed_dim).

    Where input_dim is not embed_dim, a linear layer brings the tokens to embed_dim first: 10 channels do not split
    over 8 heads, 512 do. Options as in the attention.
    """

    def __init__(self, input_dim, embed_dim, heads, num_encoders, value_einsum=CORRECTED, rng=None):
        rng = generator(rng)
        self.projection = nn.Linear(input_dim, embed_dim, rng=rng) if input_dim != embed_dim else None
        self.encoder_blocks = nn.ModuleList(
            [EncoderBlock(embed_dim, heads, value_einsum, rng) for _ in range(num_encoders)]
        )

    def forward(self, x):
        if self.projection is not None:
            x = self.projection(x)  # (T, embed_dim)
        for block in self.encoder_blocks:
            x = block(x)
        return x


def _check_image(image, kernel_size):
    """The image, as a Tensor if it came as one, else as an array of numbers; refused with the reason."""
    data = image.data if isinstance(image, Tensor) else Tensor(image).data
    if data.ndim != 3 or (len(data) > 4 and data.shape[2] in (1, 3, 4)):
        raise ShapeError(
            "PatchEmbeddings",
            f"the image has shape {data.shape}.",
            rule="one image (C, W, H): no batch, channels first.",
            hint="photo.transpose(2, 1, 0) turns (H, W, C) into (C, W, H); batch[0] is one image of a batch.",
        )
    if not 1 <= kernel_size <= min(data.shape[1:]):
        raise ShapeError(
            "PatchEmbeddings",
            f"kernel_size={kernel_size} on an image of {data.shape[1]} x {data.shape[2]} pixels (W x H).",
            rule="the kernel is at least 1 pixel and fits into the image.",
        )
    if not np.isfinite(data).all():
        raise ShapeError("PatchEmbeddings", "the image holds NaN or infinity.", hint="look at the photo.")
    return image if isinstance(image, Tensor) else data


def _check_tokens(where, x, width):
    if x.ndim != 2 or x.shape[1] != width:
        raise ShapeError(where, f"the tokens have shape {x.shape}.", rule=f"(tokens, {width}): one image, no batch.")
