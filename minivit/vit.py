"""The Vision Transformer, bottom-up, with the names that Hugging Face transformers gives its parts.

Shapes: B batch, C channels, H W pixels, P patch side, N patches, T = N + 1 tokens, D hidden size, h heads,
d = D / h head size, F MLP size, K classes; q and k index query and key tokens.
Every part is made of a ViTConfig and `rng` (see nn.py), and called as in transformers.
Sources: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words"; the classes follow transformers' modeling_vit.py.
"""

import copy
import sys
from dataclasses import dataclass

import numpy as np

from . import nn, ops
from .autograd import Tensor
from .config import ViTConfig, check_heads, check_patches, to_2tuple
from .machinery import checks
from .machinery.outputs import ModelOutput
from .machinery.random import generator
from .machinery.vocabulary import MODELS, unknown
from .ops.cross_entropy import LOSSES
from .ops.positions import interpolate_positions
from .weights.pretrained import PreTrainedModel

__all__ = [
    "ImageClassifierOutput",
    "MaskedImageModelingOutput",
    "PatchEmbeddings",
    "ViTAttention",
    "ViTConfig",
    "ViTEmbeddings",
    "ViTEncoder",
    "ViTForImageClassification",
    "ViTForMaskedImageModeling",
    "ViTIntermediate",
    "ViTLayer",
    "ViTModel",
    "ViTModelOutput",
    "ViTOutput",
    "ViTPooler",
    "ViTSelfAttention",
    "ViTSelfOutput",
    "to_2tuple",
]


def __getattr__(name):
    raise unknown(sys.modules[__name__], "vit", name, MODELS)


class PatchEmbeddings(nn.Module):
    """Image to tokens: cut into patches, one linear map for all of them. (B, C, H, W) -> (B, N, D).

    A convolution whose stride is its kernel does both (section 3.1 of the paper). image_size and patch_size: numbers
    or pairs, in pixels; num_patches: N = (H / P) * (W / P).
    """

    def __init__(self, image_size=224, patch_size=16, num_channels=3, embed_dim=768, std=None, rng=None):
        check_patches("PatchEmbeddings", image_size, patch_size)
        checks.whole_numbers("PatchEmbeddings", num_channels=num_channels, embed_dim=embed_dim)
        self.image_size, self.patch_size = to_2tuple(image_size), to_2tuple(patch_size)
        self.num_channels = num_channels
        self.grid = tuple(size // patch for size, patch in zip(self.image_size, self.patch_size, strict=True))
        self.num_patches = self.grid[0] * self.grid[1]
        self.projection = nn.Conv2d(num_channels, embed_dim, self.patch_size, self.patch_size, std=std, rng=rng)

    @np.errstate(invalid="ignore")  # of an infinite pixel, which is refused with its reason
    def forward(self, pixel_values, interpolate_pos_encoding=False):
        pixels = pixel_values if isinstance(pixel_values, Tensor) else Tensor(pixel_values).data
        pixels = checks.pixel_values(pixels, self, interpolate_pos_encoding)
        tokens = self.projection(pixels)  # (B, D, H / P, W / P)
        checks.finite_pixels("PatchEmbeddings", pixels, tokens)
        return tokens.reshape(*tokens.shape[:2], -1).transpose(0, 2, 1)  # (B, N, D)


class ViTEmbeddings(nn.Module):
    """The encoder's input: [CLS, patch 0, ..., patch N - 1] + positions. (B, C, H, W) -> (B, T, D).

    use_mask_token: learn one token more, that stands for every patch where forward's bool_masked_pos (B, N) is True.
    """

    def __init__(self, config, use_mask_token=False, rng=None):
        rng = generator(rng)
        std, D = config.initializer_range, config.hidden_size
        self.cls_token = nn.normal((1, 1, D), std, rng)
        self.mask_token = nn.constant((1, 1, D), 0) if use_mask_token else None
        patch_embeddings = PatchEmbeddings(config.image_size, config.patch_size, config.num_channels, D, std, rng)
        self.position_embeddings = nn.normal((1, patch_embeddings.num_patches + 1, D), std, rng)
        self.patch_embeddings = patch_embeddings
        self.dropout = nn.Dropout(config.hidden_dropout_prob, rng)

    def interpolate_pos_encoding(self, embeddings, height, width):
        """The positions (1, T, D) of the embeddings (B, T, D) of an image: as learned, or interpolated to its grid."""
        patches = self.patch_embeddings
        if (height, width) == patches.image_size:
            return self.position_embeddings
        grid = height // patches.patch_size[0], width // patches.patch_size[1]
        return interpolate_positions(self.position_embeddings, patches.grid, grid)

    def forward(self, pixel_values, interpolate_pos_encoding=False, bool_masked_pos=None):
        embeddings = self.patch_embeddings(pixel_values, interpolate_pos_encoding)  # (B, N, D)
        B, N, _ = embeddings.shape
        if bool_masked_pos is not None:
            mask = checks.bool_masked_pos(bool_masked_pos, (B, N), self.mask_token is not None)[..., None]  # (B, N, 1)
            embeddings = embeddings * ~mask + self.mask_token * mask
        cls_tokens = self.cls_token.expand(B, -1, -1)  # (B, 1, D)
        embeddings = ops.concatenate([cls_tokens, embeddings], axis=1)  # (B, T, D)
        return self.dropout(embeddings + self.interpolate_pos_encoding(embeddings, *np.shape(pixel_values)[2:]))


class ViTSelfAttention(nn.Module):
    """h heads, each a softmax(q k^T / sqrt(d)) v of its own; their contexts side by side. (B, T, D) -> (B, T, D).

    forward returns (context,), or (context, probabilities (B, h, q, k)) where output_attentions asks for them.
    all_head_size: h * d, which is D until heads are pruned.
    """

    def __init__(self, config, rng=None):
        check_heads("ViTSelfAttention", config.hidden_size, config.num_attention_heads)
        rng = generator(rng)
        self.num_attention_heads = config.num_attention_heads
        self.attention_head_size = config.hidden_size // config.num_attention_heads
        self.all_head_size = self.num_attention_heads * self.attention_head_size
        sizes = config.hidden_size, self.all_head_size, config.qkv_bias, config.initializer_range
        self.query = nn.Linear(*sizes, rng)
        self.key = nn.Linear(*sizes, rng)
        self.value = nn.Linear(*sizes, rng)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob, rng)

    def transpose_for_scores(self, x):
        """Split the heads: (B, T, h * d) -> (B, h, T, d)."""
        x = x.reshape(*x.shape[:2], self.num_attention_heads, self.attention_head_size)  # (B, T, h, d)
        return x.transpose(0, 2, 1, 3)  # (B, h, T, d)

    def forward(self, hidden_states, head_mask=None, output_attentions=False):
        checks.hidden_states(hidden_states)
        q, k, v = (self.transpose_for_scores(layer(hidden_states)) for layer in (self.query, self.key, self.value))
        p, rng = self.dropout.p if self.training else 0.0, self.dropout.rng
        if output_attentions or head_mask is not None:
            context, probabilities = ops.attention(q, k, v, p, rng, head_mask)  # (B, h, T, d), (B, h, q, k)
        else:  # the same context, without ever holding the probabilities of all heads
            context = ops.scaled_dot_product_attention(q, k, v, p, rng)  # (B, h, T, d)
        context = context.transpose(0, 2, 1, 3)  # (B, T, h, d)
        context = context.reshape(*context.shape[:2], self.all_head_size)  # (B, T, h * d)
        return (context, probabilities) if output_attentions else (context,)


class ViTSelfOutput(nn.Module):
    """The output matrix that mixes the heads. (B, T, D) -> (B, T, D).

    input_tensor is taken and not added: a norm stands before each block, so the residual is added in ViTLayer.
    """

    def __init__(self, config, rng=None):
        rng = generator(rng)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, std=config.initializer_range, rng=rng)
        self.dropout = nn.Dropout(config.hidden_dropout_prob, rng)

    def forward(self, hidden_states, input_tensor):
        return self.dropout(self.dense(hidden_states))


class ViTAttention(nn.Module):
    """Self-attention and its output matrix, with heads that can be cut away. (B, T, D) -> (B, T, D).

    forward returns (output,) or (output, probabilities), as ViTSelfAttention.
    """

    def __init__(self, config, rng=None):
        rng = generator(rng)
        self.attention = ViTSelfAttention(config, rng)
        self.output = ViTSelfOutput(config, rng)
        self.pruned_heads = set()

    def prune_heads(self, heads):
        """Cut heads away for good: their rows of query, key and value, their columns of the output matrix.

        heads: numbers as in the unpruned model; those already cut are passed over.
        """
        attention, cut = self.attention, self.pruned_heads
        count = attention.num_attention_heads + len(cut)
        heads = checks.heads(heads, count) - cut
        if not heads:
            return
        kept = [head not in heads for head in range(count) if head not in cut]  # (h,)
        rows = np.repeat(kept, attention.attention_head_size)  # (h * d,), True for the rows that stay
        for layer in (attention.query, attention.key, attention.value):
            for parameter in layer.parameters():
                parameter.data, parameter.grad = parameter.data[rows], None
        weight = self.output.dense.weight
        weight.data, weight.grad = weight.data[:, rows], None
        attention.num_attention_heads = sum(kept)
        attention.all_head_size = sum(kept) * attention.attention_head_size
        self.pruned_heads = cut | heads

    def forward(self, hidden_states, head_mask=None, output_attentions=False):
        context, *probabilities = self.attention(hidden_states, head_mask, output_attentions)
        return self.output(context, hidden_states), *probabilities


class ViTIntermediate(nn.Module):
    """First half of the MLP. (B, T, D) -> (B, T, F)."""

    def __init__(self, config, rng=None):
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size, std=config.initializer_range, rng=rng)
        self.intermediate_act_fn = nn.ACTIVATIONS[config.hidden_act]

    def forward(self, hidden_states):
        return self.intermediate_act_fn(self.dense(hidden_states))


class ViTOutput(nn.Module):
    """Second half of the MLP, and the residual. (B, T, F), (B, T, D) -> (B, T, D)."""

    def __init__(self, config, rng=None):
        rng = generator(rng)
        self.dense = nn.Linear(config.intermediate_size, config.hidden_size, std=config.initializer_range, rng=rng)
        self.dropout = nn.Dropout(config.hidden_dropout_prob, rng)

    def forward(self, hidden_states, input_tensor):
        return self.dropout(self.dense(hidden_states)) + input_tensor


class ViTLayer(nn.Module):
    """One encoder block, norm first: x + attention(norm(x)), then x + mlp(norm(x)). (B, T, D) -> (B, T, D).

    forward returns (hidden_states,) or (hidden_states, probabilities), as ViTSelfAttention.
    """

    def __init__(self, config, rng=None):
        rng = generator(rng)
        self.attention = ViTAttention(config, rng)
        self.intermediate = ViTIntermediate(config, rng)
        self.output = ViTOutput(config, rng)
        self.layernorm_before = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, hidden_states, head_mask=None, output_attentions=False):
        normed = self.layernorm_before(hidden_states)
        attention_output, *probabilities = self.attention(normed, head_mask, output_attentions)
        hidden_states = attention_output + hidden_states
        intermediate = self.intermediate(self.layernorm_after(hidden_states))  # (B, T, F)
        return self.output(intermediate, hidden_states), *probabilities  # (B, T, D)


class ViTEncoder(nn.Module):
    """L blocks one after the other. (B, T, D) -> ViTModelOutput, or its tuple with return_dict=False.

    head_mask: None or one entry for each layer, None or an array that broadcasts against (B, h, q, k).
    """

    def __init__(self, config, rng=None):
        rng = generator(rng)
        self.layer = nn.ModuleList([ViTLayer(config, rng) for _ in range(config.num_hidden_layers)])

    def forward(
        self, hidden_states, head_mask=None, output_attentions=False, output_hidden_states=False, return_dict=True
    ):
        states, attentions = [hidden_states], []
        for i, layer in enumerate(self.layer):
            mask = None if head_mask is None else head_mask[i]
            hidden_states, *probabilities = layer(hidden_states, mask, output_attentions)
            states.append(hidden_states)
            attentions += probabilities
        output = ViTModelOutput(
            hidden_states,
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )
        return output if return_dict else output.to_tuple()


class ViTPooler(nn.Module):
    """The CLS token through a linear map and tanh. (B, T, D) -> (B, D)."""

    def __init__(self, config, rng=None):
        sizes = config.hidden_size, config.pooler_output_size
        self.dense = nn.Linear(*sizes, std=config.initializer_range, rng=rng)
        self.activation = nn.ACTIVATIONS[config.pooler_act]

    def forward(self, hidden_states):
        return self.activation(self.dense(hidden_states[:, 0]))


class ViTModel(PreTrainedModel):
    """Image to tokens: embeddings, encoder, final norm, and the pooled CLS token. (B, C, H, W) -> ViTModelOutput.

    forward's head_mask: (h,) for all layers or (L, h), 1 to keep a head and 0 to silence it; bool_masked_pos: (B, N),
    True where the mask token stands for the patch (with use_mask_token). output_attentions and output_hidden_states of
    the config, where it has them, hold for every call. return_dict=False: the tuple of what is not None, of this
    model and of those below.
    """

    PARTS = ("add_pooling_layer", "use_mask_token")

    def __init__(self, config, add_pooling_layer=True, use_mask_token=False, rng=None):
        checks.config(type(self).__name__, config, ViTConfig)
        rng = generator(rng)
        self.config = copy.deepcopy(config)  # prune_heads writes to it
        self.embeddings = ViTEmbeddings(config, use_mask_token, rng)
        self.encoder = ViTEncoder(config, rng)
        self.layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.pooler = ViTPooler(config, rng) if add_pooling_layer else None
        self.prune_heads(config.pruned_heads)

    def forward(
        self,
        pixel_values,
        head_mask=None,
        output_attentions=False,
        output_hidden_states=False,
        interpolate_pos_encoding=False,
        bool_masked_pos=None,
        return_dict=True,
    ):
        embeddings = self.embeddings(pixel_values, interpolate_pos_encoding, bool_masked_pos)  # (B, T, D)
        output_attentions = output_attentions or getattr(self.config, "output_attentions", False)
        output_hidden_states = output_hidden_states or getattr(self.config, "output_hidden_states", False)
        head_mask = self.get_head_mask(head_mask, self.config.num_hidden_layers)
        output = self.encoder(embeddings, head_mask, output_attentions, output_hidden_states)
        output.last_hidden_state = self.layernorm(output.last_hidden_state)
        if self.pooler is not None:
            output.pooler_output = self.pooler(output.last_hidden_state)  # (B, D)
        return output if return_dict else output.to_tuple()


class ViTForImageClassification(PreTrainedModel):
    """ViTModel and one linear map from the final CLS token to the class scores. (B, C, H, W) -> ImageClassifierOutput.

    forward's labels: (B,) class numbers, which give the mean cross-entropy, or floats (B, K) where the config's
    problem_type is another; see ops.binary_cross_entropy and ops.mean_squared_error.
    """

    def __init__(self, config, rng=None):
        rng = generator(rng)
        self.vit = ViTModel(config, add_pooling_layer=False, rng=rng)
        self.config = self.vit.config
        self.classifier = nn.Linear(config.hidden_size, config.num_labels, std=config.initializer_range, rng=rng)

    def forward(
        self,
        pixel_values,
        labels=None,
        head_mask=None,
        output_attentions=False,
        output_hidden_states=False,
        interpolate_pos_encoding=False,
        return_dict=True,
    ):
        output = self.vit(pixel_values, head_mask, output_attentions, output_hidden_states, interpolate_pos_encoding)
        logits = self.classifier(output.last_hidden_state[:, 0])  # (B, K)
        loss = None if labels is None else LOSSES[self.config.task](logits, labels)
        output = ImageClassifierOutput(loss, logits, output.hidden_states, output.attentions)
        return output if return_dict else output.to_tuple()


class ViTForMaskedImageModeling(PreTrainedModel):
    """Some patches are hidden, and the model paints them: learning without labels. (B, C, H, W) -> (B, C, H, W).

    A decoder makes the pixels of each patch from its final token: one linear map, then pixel shuffle. forward's
    bool_masked_pos: (B, N), True where a patch is hidden; it gives the loss, the mean absolute error over the pixels
    of the hidden patches. encoder_stride, pixels a side that a token is decoded to, must then be the patch size.
    Source: Xie et al. 2022, "SimMIM", as transformers' class of the same name.
    """

    def __init__(self, config, rng=None):
        rng = generator(rng)
        self.vit = ViTModel(config, add_pooling_layer=False, use_mask_token=True, rng=rng)
        self.config = self.vit.config
        stride, std = config.encoder_stride, config.initializer_range
        pixels = nn.Conv2d(config.hidden_size, stride**2 * config.num_channels, 1, std=std, rng=rng)
        self.decoder = nn.Sequential(pixels, nn.PixelShuffle(stride))

    def forward(
        self,
        pixel_values,
        bool_masked_pos=None,
        head_mask=None,
        output_attentions=False,
        output_hidden_states=False,
        interpolate_pos_encoding=False,
        return_dict=True,
    ):
        switches = head_mask, output_attentions, output_hidden_states, interpolate_pos_encoding, bool_masked_pos
        output = self.vit(pixel_values, *switches)
        (H, W), P, stride = np.shape(pixel_values)[2:], to_2tuple(self.config.patch_size), self.config.encoder_stride
        B, _, D = output.last_hidden_state.shape
        tokens = output.last_hidden_state[:, 1:].transpose(0, 2, 1)  # (B, D, N)
        reconstruction = self.decoder(tokens.reshape(B, D, H // P[0], W // P[1]))  # (B, C, H, W)
        loss = None
        if bool_masked_pos is not None:
            checks.painted((H, W), P, stride)
            mask = np.asarray(bool_masked_pos).reshape(B, 1, H // stride, W // stride)
            mask = mask.repeat(stride, 2).repeat(stride, 3)  # (B, 1, H, W)
            error = ops.abs(reconstruction - pixel_values) * mask
            loss = error.sum() / ((mask.sum() + 1e-5) * self.config.num_channels)  # 1e-5: where nothing is hidden
        output = MaskedImageModelingOutput(loss, reconstruction, output.hidden_states, output.attentions)
        return output if return_dict else output.to_tuple()


@dataclass
class ViTModelOutput(ModelOutput):
    """What ViTModel and ViTEncoder give; of an output, what is None is not in its tuple.

    last_hidden_state: (B, T, D), of ViTModel after the final norm. pooler_output: (B, D) or None. hidden_states: L + 1
    Tensors (B, T, D), the embeddings and each layer's output, all before the final norm, or None. attentions: L
    Tensors (B, h, q, k), or None.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple | None = None
    attentions: tuple | None = None


@dataclass
class ImageClassifierOutput(ModelOutput):
    """What ViTForImageClassification gives: loss, a number, or None without labels; logits (B, K); and see above."""

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple | None = None
    attentions: tuple | None = None


@dataclass
class MaskedImageModelingOutput(ModelOutput):
    """What ViTForMaskedImageModeling gives: loss, a number, or None without a mask; reconstruction (B, C, H, W)."""

    loss: Tensor | None
    reconstruction: Tensor
    hidden_states: tuple | None = None
    attentions: tuple | None = None
