"""The Vision Transformer of the notebook of lesson 12: one image, no batch, small enough to print every step.

Shapes: C channels, W H pixels, N patches, T = N + 1 tokens, D token width, h heads, d = D / h head size; q and k
index query and key tokens.

What it does differently from vit.py:
- The image is (C, W, H), a photo's `transpose(2, 1, 0)`: the patches run down the photo's columns, not along its rows.
- Positions are the numbers 1..N through a linear layer 1 -> D, so a late patch is mostly its position. CLS gets none.
- All heads share one d x d map for each of query, key and value, and no output matrix mixes the heads.
- The residual goes around the normalised input, norm(x) + f(norm(x)). Stacked, that is post-norm, norm(x + f(x)), the
  order of the first Transformer (Vaswani et al. 2017), with one norm more in front and one less behind.
- The MLP is two linear layers with dropout and no activation between: without dropout, one linear map.
- There is no final norm and no classifier.

The notebook makes the context with "nhn,nhd->nhd", here PUBLISHED. A letter twice in one operand takes the diagonal, so
the context of token n is scores[n, h, n] * v[n, h]: its own value times one number, and nothing of any other token's
value. Attention sums over the keys, each with its own value: "qhk,khd->qhd".

The cells run as they are typed, on an image x: embed_out = Embedding(x, out_channels=512, kernel_size=3)(), then
MultiheadSelfAttention(512, 8)(embed_out, embed_out, embed_out) or Vit(512, 512, heads=8, num_encoders=4)(embed_out).
"""

import math

import numpy as np

from . import nn, ops
from .autograd import Tensor
from .machinery import checks
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
        vars(self)["image"] = self._checked(image, kernel_size)  # it may want a gradient, and is not learned
        self.Conv = nn.Conv2d(len(self.image), out_channels, kernel_size, stride=kernel_size, rng=rng)

    def _checked(self, image, kernel_size):
        return checks.image(image if isinstance(image, Tensor) else Tensor(image).data, kernel_size)

    def forward(self, image=None):
        x = self.image if image is None else self._checked(image, self.Conv.stride)
        if not isinstance(x, Tensor):
            x = x.astype(self.Conv.weight.dtype, copy=False)
        x = self.Conv(x[None])  # (1, out_channels, W / kernel_size, H / kernel_size)
        return x.reshape(x.shape[1], -1).T  # (N, out_channels)


class Embedding(nn.Module):
    """One image's patches, plus their positions 1..N through a linear layer; then CLS in front: (C, W, H) -> (T, D).

    D = out_channels. The patches are those of PatchEmbeddings, made of the same arguments and called in the same way.
    """

    def __init__(self, image, out_channels, kernel_size=3, rng=None):
        rng = generator(rng)
        self.patch_embeddings = PatchEmbeddings(image, out_channels, kernel_size, rng)
        self.linear = nn.Linear(1, out_channels, rng=rng)
        self.cls_token = nn.normal((1, out_channels), 1, rng)

    def forward(self, image=None):
        patches = self.patch_embeddings(image)  # (N, D)
        positions = np.arange(1, len(patches) + 1, dtype=patches.dtype)[:, None]  # (N, 1)
        return ops.concatenate([self.cls_token, patches + self.linear(positions)])  # (T, D)


class MultiheadSelfAttention(nn.Module):
    """Attention whose heads share their maps: softmax(q k^T / sqrt(d)) v in each head. (T, D) three times -> (T, D).

    input_dim: D, which the heads divide. value_einsum: how scores (q, h, k) and values (k, h, d) make the context;
    CORRECTED never holds all the scores. PUBLISHED and any other equation that gives (T, h, d) do: 4 T^2 h bytes in
    float32, 960 MB for 5477 tokens and 8 heads, wait for backward, and while it runs there are three and a half times
    as many.
    forward(values, keys, queries): the tokens that are read, those by which they are found, and those that ask. In
    self-attention all three are the same. A value belongs to the key at its place; queries may be more or fewer, and
    there is one output token for each. With output_scores=True it returns (context, scores): (T, D) and the softmaxed
    scores (q, h, k).
    """

    def __init__(self, input_dim, heads, value_einsum=CORRECTED, rng=None):
        checks.input_dim(input_dim, heads)
        context = ops.einsum(value_einsum, np.zeros((2, 3, 2)), np.zeros((2, 3, 5)))  # T = 2, h = 3, d = 5
        checks.value_einsum(value_einsum, context.shape, (2, 3, 5))
        rng = generator(rng)
        self.heads, self.value_einsum = heads, value_einsum
        d = input_dim // heads
        self.wq, self.wk, self.wv = (nn.Linear(d, d, rng=rng) for _ in range(3))

    def forward(self, values, keys, queries, output_scores=False):
        q, k, v = self._heads(self.wq, queries), self._heads(self.wk, keys), self._heads(self.wv, values)
        if self.value_einsum == CORRECTED and not output_scores:
            q, k, v = (x.transpose(1, 0, 2) for x in (q, k, v))  # (h, T, d)
            context = ops.scaled_dot_product_attention(q, k, v).transpose(1, 0, 2)  # (T, h, d)
            return context.reshape(len(queries), -1)  # (T, D)
        scores = ops.softmax(ops.einsum("qhd,khd->qhk", q / math.sqrt(q.shape[2]), k))  # (q, h, k)
        context = ops.einsum(self.value_einsum, scores, v).reshape(len(queries), -1)  # (T, D)
        return (context, scores) if output_scores else context

    def _heads(self, layer, tokens):
        """The tokens cut into heads, each through the same map: (T, D) -> (T, h, d)."""
        d = len(layer.weight)
        checks.tokens("MultiheadSelfAttention", tokens, self.heads * d)
        return layer(tokens.reshape(len(tokens), self.heads, d))


class EncoderBlock(nn.Module):
    """n = norm1(x), m = norm2(n + attention(n)), m + mlp(m): (T, input_dim) -> (T, embed_dim).

    Where input_dim is not embed_dim, a linear layer brings the tokens to embed_dim first: 10 channels do not split
    over 8 heads, 512 do. Options as in the attention.
    """

    def __init__(self, input_dim, embed_dim, heads, value_einsum=CORRECTED, rng=None):
        rng = generator(rng)
        self.input_dim = input_dim
        self.projection = nn.Linear(input_dim, embed_dim, rng=rng) if input_dim != embed_dim else None
        self.norm1 = nn.LayerNorm(embed_dim)
        self.attn_layer = MultiheadSelfAttention(embed_dim, heads, value_einsum, rng)
        self.norm2 = nn.LayerNorm(embed_dim)
        first, second = (nn.Linear(embed_dim, embed_dim, rng=rng) for _ in range(2))
        self.mlp = nn.Sequential(first, nn.Dropout(0.2, rng), second)

    def forward(self, x):
        checks.tokens("EncoderBlock", x, self.input_dim)
        if self.projection is not None:
            x = self.projection(x)  # (T, embed_dim)
        x = self.norm1(x)
        x = self.norm2(self.attn_layer(x, x, x) + x)
        return self.mlp(x) + x


class Vit(nn.Module):
    """Encoder blocks one after the other, on the output of Embedding: (T, input_dim) -> (T, embed_dim).

    The first block brings the tokens from input_dim to embed_dim. Options as in the attention.
    """

    def __init__(self, input_dim, embed_dim, heads, num_encoders, value_einsum=CORRECTED, rng=None):
        rng = generator(rng)
        widths = [input_dim, *[embed_dim] * num_encoders]
        self.encoder_blocks = nn.ModuleList(
            [EncoderBlock(widths[i], embed_dim, heads, value_einsum, rng) for i in range(num_encoders)]
        )

    def forward(self, x):
        for block in self.encoder_blocks:
            x = block(x)
        return x
