"""The Vision Transformer of the notes, bottom-up, with the names that Hugging Face transformers gives its parts.

Shapes: B batch, C channels, H W pixels, P patch side, N patches, T = N + 1 tokens, D hidden size, h heads,
d = D / h head size, F MLP size, K classes; q and k index query and key tokens.
Sources: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words"; the classes follow transformers' modeling_vit.py.
"""

import copy
from dataclasses import dataclass

import numpy as np

from . import nn, ops
from .autograd import Tensor
from .config import ViTConfig, check_heads, check_patches, to_2tuple
from .errors import MinivitError, ShapeError, check_whole
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


class PatchEmbeddings(nn.Module):
    """Image to tokens: cut into patches, one linear map for all of them. (B, C, H, W) -> (B, N, D).

    A convolution whose stride is its kernel does both (section 3.1 of the paper). image_size and patch_size: numbers
    or pairs, in pixels; num_patches: N = (H / P) * (W / P).
    """

    def __init__(self, image_size=224, patch_size=16, num_channels=3, embed_dim=768, std=None, rng=0):
        check_patches("PatchEmbeddings", image_size, patch_size)
        check_whole("PatchEmbeddings", "num_channels", num_channels)
        check_whole("PatchEmbeddings", "embed_dim", embed_dim)
        self.image_size, self.patch_size = to_2tuple(image_size), to_2tuple(patch_size)
        self.num_channels = num_channels
        self.grid = tuple(size // patch for size, patch in zip(self.image_size, self.patch_size, strict=True))
        self.num_patches = self.grid[0] * self.grid[1]
        self.projection = nn.Conv2d(num_channels, embed_dim, self.patch_size, self.patch_size, std=std, rng=rng)

    def forward(self, pixel_values, interpolate_pos_encoding=False):
        x = self._check(pixel_values, interpolate_pos_encoding)
        x = self.projection(x)  # (B, D, H / P, W / P)
        B, D, *_ = x.shape
        return x.reshape(B, D, -1).transpose(0, 2, 1)  # (B, N, D)

    def _check(self, pixel_values, any_size):
        """The pixels as they are, or an array of them in the dtype of the weights; refused with the reason."""
        dtype = self.projection.weight.dtype
        if not isinstance(pixel_values, Tensor):
            pixel_values = Tensor(pixel_values).data
        where = type(self).__name__
        if pixel_values.ndim != 4 or not len(pixel_values):
            raise ShapeError(
                where,
                f"pixel_values have shape {pixel_values.shape}.",
                rule="pixel_values are (B, C, H, W): a batch of one image or more, channels first.",
                hint="images.pixel_values(photo)[None] makes a batch of one photo.",
            )
        _, C, height, width = pixel_values.shape
        if C != self.num_channels:
            raise ShapeError(
                where,
                f"pixel_values {pixel_values.shape} have {C} channels, the model {self.num_channels}.",
                rule="pixel_values are (B, C, H, W), channels first.",
                hint="x.transpose(0, 3, 1, 2) brings the channels of (B, H, W, C) to the front."
                if width == self.num_channels
                else f"a model for such pictures has ViTConfig(num_channels={C}, ...).",
            )
        if not any_size and (height, width) != self.image_size:
            raise ShapeError(
                where,
                f"Input image size ({height}*{width}) doesn't match model ({self.image_size[0]}*{self.image_size[1]}).",
                rule="each position embedding belongs to one patch of the configured image_size.",
                hint="resize with images.pixel_values(photo, size=...), or pass interpolate_pos_encoding=True.",
            )
        if pixel_values.dtype.kind != "f" or (isinstance(pixel_values, Tensor) and pixel_values.dtype != dtype):
            raise ShapeError(
                where,
                f"pixel_values are {pixel_values.dtype}, the weights {dtype}.",
                rule="pixel_values are floating-point numbers, about -1 to 1; a Tensor has the dtype of the weights.",
                hint="images.pixel_values(photo) scales a photo; model.to(np.float64) converts the weights.",
            )
        if not isinstance(pixel_values, Tensor):
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, refused below
                pixel_values = pixel_values.astype(dtype, copy=False)
        if not np.isfinite(np.asarray(pixel_values)).all():
            raise ShapeError(where, "pixel_values hold NaN or infinity.", hint="look at the photo and its scaling.")
        return pixel_values


class ViTEmbeddings(nn.Module):
    """The encoder's input: [CLS, patch 1, ..., patch N] + positions. (B, C, H, W) -> (B, T, D).

    use_mask_token: learn one token more, that stands for every patch where forward's bool_masked_pos (B, N) is True.
    """

    def __init__(self, config, use_mask_token=False, rng=0):
        rng = np.random.default_rng(rng)
        std, D = config.initializer_range, config.hidden_size
        self.cls_token = nn.normal((1, 1, D), std, rng)
        self.mask_token = nn.constant((1, 1, D), 0) if use_mask_token else None
        patch_embeddings = PatchEmbeddings(config.image_size, config.patch_size, config.num_channels, D, std, rng)
        self.position_embeddings = nn.normal((1, patch_embeddings.num_patches + 1, D), std, rng)
        self.patch_embeddings = patch_embeddings
        self.dropout = nn.Dropout(config.hidden_dropout_prob, rng)

    def forward(self, pixel_values, interpolate_pos_encoding=False, bool_masked_pos=None):
        patches = self.patch_embeddings(pixel_values, interpolate_pos_encoding)  # (B, N, D)
        if bool_masked_pos is not None:
            masked = self._check_mask(bool_masked_pos, patches.shape[:2])[..., None]  # (B, N, 1)
            patches = patches * ~masked + self.mask_token * masked
        cls = self.cls_token.expand(patches.shape[0], -1, -1)  # (B, 1, D)
        tokens = ops.concatenate([cls, patches], axis=1)  # (B, T, D)
        positions = self.position_embeddings
        H, W = np.shape(pixel_values)[2:]
        if (H, W) != self.patch_embeddings.image_size:
            P = self.patch_embeddings.patch_size
            new_grid = (H // P[0], W // P[1])
            positions = interpolate_positions(positions, self.patch_embeddings.grid, new_grid)
        return self.dropout(tokens + positions)

    def _check_mask(self, bool_masked_pos, shape):
        masked = np.asarray(bool_masked_pos)
        if self.mask_token is None or masked.shape != shape or masked.dtype != bool:
            raise ShapeError(
                "ViTEmbeddings",
                f"bool_masked_pos is {masked.dtype} {masked.shape}.",
                rule=f"True or False for each patch, (B, N) = {shape}, and a model with a mask token.",
                hint="ViTForMaskedImageModeling has one.",
            )
        return masked


class ViTSelfAttention(nn.Module):
    """h heads, each a softmax(q k^T / sqrt(d)) v of its own; their contexts side by side. (B, T, D) -> (B, T, D).

    forward returns (context, probabilities); the probabilities (B, h, q, k) are None unless output_attentions.
    """

    def __init__(self, config, rng=0):
        check_heads("ViTSelfAttention", config.hidden_size, config.num_attention_heads)
        rng = np.random.default_rng(rng)
        self.num_attention_heads = config.num_attention_heads
        self.attention_head_size = config.hidden_size // config.num_attention_heads
        sizes = config.hidden_size, config.hidden_size, config.qkv_bias, config.initializer_range
        self.query = nn.Linear(*sizes, rng)
        self.key = nn.Linear(*sizes, rng)
        self.value = nn.Linear(*sizes, rng)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob, rng)

    def transpose_for_scores(self, x):
        """Split the heads: (B, T, h * d) -> (B, h, T, d)."""
        x = x.reshape(*x.shape[:2], self.num_attention_heads, self.attention_head_size)  # (B, T, h, d)
        return x.transpose(0, 2, 1, 3)  # (B, h, T, d)

    def forward(self, hidden_states, head_mask=None, output_attentions=False):
        if hidden_states.ndim != 3:
            raise ShapeError(
                "ViTSelfAttention",
                f"hidden_states have the shape {hidden_states.shape}.",
                rule="(B, T, D), the tokens of B images.",
                hint="one image is a batch of one: hidden_states[None].",
            )
        B, T, _ = hidden_states.shape
        q, k, v = (self.transpose_for_scores(layer(hidden_states)) for layer in (self.query, self.key, self.value))
        p = self.dropout.p if self.training else 0.0
        if output_attentions or head_mask is not None:
            context, probabilities = ops.attention(q, k, v, p, self.dropout.rng, head_mask)
        else:  # the same context, without ever holding the probabilities of all heads
            context, probabilities = ops.scaled_dot_product_attention(q, k, v, p, self.dropout.rng), None
        context = context.transpose(0, 2, 1, 3)  # (B, T, h, d)
        context = context.reshape(B, T, len(self.value.weight))  # (B, T, h * d)
        return context, probabilities if output_attentions else None


class ViTSelfOutput(nn.Module):
    """The output matrix that mixes the heads. (B, T, D) -> (B, T, D); the residual is added in ViTLayer."""

    def __init__(self, config, rng=0):
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, std=config.initializer_range, rng=rng)
        self.dropout = nn.Dropout(config.hidden_dropout_prob, rng)

    def forward(self, hidden_states):
        return self.dropout(self.dense(hidden_states))


class ViTAttention(nn.Module):
    """Self-attention and its output matrix, with heads that can be cut away. (B, T, D) -> (B, T, D).

    forward returns (output, probabilities), the probabilities as in ViTSelfAttention.
    """

    def __init__(self, config, rng=0):
        rng = np.random.default_rng(rng)
        self.attention = ViTSelfAttention(config, rng)
        self.output = ViTSelfOutput(config, rng)
        self.pruned_heads = set()
        self._all_heads = range(config.num_attention_heads)

    def known_heads(self, heads):
        """The set of these heads; MinivitError if they are no numbers of heads of the unpruned model."""
        unknown = [head for head in heads if head not in self._all_heads] if np.iterable(heads) else [heads]
        if unknown:
            raise MinivitError(
                "prune_heads",
                f"there is no head {unknown[0]!r}." if np.iterable(heads) else f"heads={heads!r} is not a list.",
                rule=f"a list of heads, which are numbered 0 to {len(self._all_heads) - 1}.",
            )
        return {int(head) for head in heads}

    def prune_heads(self, heads):
        """Cut heads away for good: their rows of query, key and value, their columns of the output matrix.

        heads: numbers as in the unpruned model; those already cut are passed over.
        """
        heads = self.known_heads(heads)
        if not heads:
            return
        here = [head for head in self._all_heads if head not in self.pruned_heads]
        kept = [place for place, head in enumerate(here) if head not in heads]
        d = self.attention.attention_head_size
        rows = [place * d + i for place in kept for i in range(d)]
        for layer in (self.attention.query, self.attention.key, self.attention.value):
            for parameter in (layer.weight, layer.bias):
                if parameter is not None:
                    parameter.data, parameter.grad = parameter.data[rows], None
        weight = self.output.dense.weight
        weight.data, weight.grad = weight.data[:, rows], None
        self.attention.num_attention_heads = len(kept)
        self.pruned_heads |= heads

    def forward(self, hidden_states, head_mask=None, output_attentions=False):
        context, probabilities = self.attention(hidden_states, head_mask, output_attentions)
        return self.output(context), probabilities


class ViTIntermediate(nn.Module):
    """First half of the MLP. (B, T, D) -> (B, T, F)."""

    def __init__(self, config, rng=0):
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size, std=config.initializer_range, rng=rng)
        self.hidden_act = config.hidden_act

    def forward(self, hidden_states):
        return nn.ACTIVATIONS[self.hidden_act](self.dense(hidden_states))


class ViTOutput(nn.Module):
    """Second half of the MLP, and the residual. (B, T, F), (B, T, D) -> (B, T, D)."""

    def __init__(self, config, rng=0):
        self.dense = nn.Linear(config.intermediate_size, config.hidden_size, std=config.initializer_range, rng=rng)
        self.dropout = nn.Dropout(config.hidden_dropout_prob, rng)

    def forward(self, hidden_states, input_tensor):
        return self.dropout(self.dense(hidden_states)) + input_tensor


class ViTLayer(nn.Module):
    """One encoder block, norm first: x + attention(norm(x)), then x + mlp(norm(x)). (B, T, D) -> (B, T, D).

    forward returns (hidden_states, probabilities), the probabilities as in ViTSelfAttention.
    """

    def __init__(self, config, rng=0):
        rng = np.random.default_rng(rng)
        self.attention = ViTAttention(config, rng)
        self.intermediate = ViTIntermediate(config, rng)
        self.output = ViTOutput(config, rng)
        self.layernorm_before = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, hidden_states, head_mask=None, output_attentions=False):
        attended, probabilities = self.attention(self.layernorm_before(hidden_states), head_mask, output_attentions)
        hidden_states = attended + hidden_states
        return self.output(self.intermediate(self.layernorm_after(hidden_states)), hidden_states), probabilities


@dataclass
class ViTModelOutput:
    """What ViTModel and ViTEncoder give.

    last_hidden_state: (B, T, D), of ViTModel after the final norm. pooler_output: (B, D) or None. hidden_states: L + 1
    Tensors (B, T, D), the embeddings and each layer's output, all before the final norm, or None. attentions: L
    Tensors (B, h, q, k), or None.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple | None = None
    attentions: tuple | None = None


@dataclass
class ImageClassifierOutput:
    """What ViTForImageClassification gives: loss, a number, or None without labels; logits (B, K); and see above."""

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple | None = None
    attentions: tuple | None = None


@dataclass
class MaskedImageModelingOutput:
    """What ViTForMaskedImageModeling gives: loss, a number, or None without a mask; reconstruction (B, C, H, W)."""

    loss: Tensor | None
    reconstruction: Tensor
    hidden_states: tuple | None = None
    attentions: tuple | None = None


class ViTEncoder(nn.Module):
    """L blocks one after the other. (B, T, D) -> ViTModelOutput.

    head_mask: None or one entry for each layer, None or an array that broadcasts against (B, h, q, k).
    """

    def __init__(self, config, rng=0):
        rng = np.random.default_rng(rng)
        self.layer = nn.ModuleList([ViTLayer(config, rng) for _ in range(config.num_hidden_layers)])

    def forward(self, hidden_states, head_mask=None, output_attentions=False, output_hidden_states=False):
        states, attentions = [hidden_states], []
        for i, layer in enumerate(self.layer):
            mask = None if head_mask is None else head_mask[i]
            hidden_states, probabilities = layer(hidden_states, mask, output_attentions)
            states.append(hidden_states)
            attentions.append(probabilities)
        return ViTModelOutput(
            hidden_states,
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )


class ViTPooler(nn.Module):
    """The CLS token through a linear map and tanh. (B, T, D) -> (B, D)."""

    def __init__(self, config, rng=0):
        sizes = config.hidden_size, config.pooler_output_size
        self.dense = nn.Linear(*sizes, std=config.initializer_range, rng=rng)
        self.pooler_act = config.pooler_act

    def forward(self, hidden_states):
        return nn.ACTIVATIONS[self.pooler_act](self.dense(hidden_states[:, 0]))


class ViTModel(PreTrainedModel):
    """Image to tokens: embeddings, encoder, final norm, and the pooled CLS token. (B, C, H, W) -> ViTModelOutput.

    forward's head_mask: (h,) for all layers or (L, h), 1 to keep a head and 0 to silence it; bool_masked_pos: (B, N),
    True where the mask token stands for the patch (with use_mask_token). output_attentions and output_hidden_states of
    the config, where it has them, hold for every call.
    """

    PARTS = ("add_pooling_layer", "use_mask_token")

    def __init__(self, config, add_pooling_layer=True, use_mask_token=False, rng=0):
        if not isinstance(config, ViTConfig):
            raise MinivitError(
                type(self).__name__,
                f"config is a {type(config).__name__}.",
                rule="it is a ViTConfig.",
                hint="ViTConfig(hidden_size=64, ...), ViTConfig.tiny(), or ViTConfig.from_dict(fields).",
            )
        rng = np.random.default_rng(rng)
        self.config = copy.deepcopy(config)  # prune_heads writes to it
        self.embeddings = ViTEmbeddings(config, use_mask_token, rng)
        self.encoder = ViTEncoder(config, rng)
        self.layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.pooler = ViTPooler(config, rng) if add_pooling_layer else None
        self.prune_heads(config.pruned_heads)

    @classmethod
    def _for_tensors(cls, config, tensors, rng, **parts):
        return cls(config, **{"add_pooling_layer": "pooler.dense.weight" in tensors} | parts, rng=rng)

    def _head_mask(self, head_mask):
        """One mask (h, 1, 1) for each layer."""
        if head_mask is None:
            return None
        L = len(self.encoder.layer)
        mask = head_mask if isinstance(head_mask, Tensor) else Tensor(head_mask)
        shape = mask.shape
        heads = [layer.attention.attention.num_attention_heads for layer in self.encoder.layer]
        if len(shape) not in (1, 2) or (len(shape) == 2 and shape[0] != L) or any(shape[-1] != h for h in heads):
            raise ShapeError(
                "ViTModel",
                f"head_mask has shape {shape}.",
                rule=f"(h,) or (L, h), for L = {L} layers with h = {', '.join(map(str, sorted(set(heads))))} heads.",
            )
        if not mask.requires_grad:
            mask = mask.data.astype(self.dtype)
        elif mask.dtype != self.dtype:
            raise ShapeError("ViTModel", f"head_mask is {mask.dtype}.", rule=f"it has the weights' {self.dtype}.")
        rows = [mask] * L if len(shape) == 1 else [mask[i] for i in range(L)]
        return [row.reshape(-1, 1, 1) for row in rows]

    def forward(
        self,
        pixel_values,
        head_mask=None,
        output_attentions=False,
        output_hidden_states=False,
        interpolate_pos_encoding=False,
        bool_masked_pos=None,
    ):
        embeddings = self.embeddings(pixel_values, interpolate_pos_encoding, bool_masked_pos)  # (B, T, D)
        output_attentions = output_attentions or getattr(self.config, "output_attentions", False)
        output_hidden_states = output_hidden_states or getattr(self.config, "output_hidden_states", False)
        output = self.encoder(embeddings, self._head_mask(head_mask), output_attentions, output_hidden_states)
        output.last_hidden_state = self.layernorm(output.last_hidden_state)
        if self.pooler is not None:
            output.pooler_output = self.pooler(output.last_hidden_state)  # (B, D)
        return output


class ViTForImageClassification(PreTrainedModel):
    """ViTModel and one linear map from the final CLS token to the class scores. (B, C, H, W) -> ImageClassifierOutput.

    forward's labels: (B,) class numbers, which give the mean cross-entropy, or floats (B, K) where the config's
    problem_type is another; see ops.binary_cross_entropy and ops.mean_squared_error.
    """

    def __init__(self, config, rng=0):
        rng = np.random.default_rng(rng)
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
    ):
        output = self.vit(pixel_values, head_mask, output_attentions, output_hidden_states, interpolate_pos_encoding)
        logits = self.classifier(output.last_hidden_state[:, 0])  # (B, K)
        loss = None if labels is None else LOSSES[self.config.task](logits, labels)
        return ImageClassifierOutput(loss, logits, output.hidden_states, output.attentions)


class ViTForMaskedImageModeling(PreTrainedModel):
    """Some patches are hidden, and the model paints them: learning without labels. (B, C, H, W) -> (B, C, H, W).

    A decoder makes the pixels of each patch from its final token: one linear map, then pixel shuffle. forward's
    bool_masked_pos: (B, N), True where a patch is hidden; it gives the loss, the mean absolute error over the pixels
    of the hidden patches. encoder_stride, pixels a side that a token is decoded to, must then be the patch size.
    Source: Xie et al. 2022, "SimMIM", as transformers' class of the same name.
    """

    def __init__(self, config, rng=0):
        rng = np.random.default_rng(rng)
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
    ):
        patch, stride = to_2tuple(self.config.patch_size), self.config.encoder_stride
        if bool_masked_pos is not None and patch != (stride, stride):
            raise ShapeError(
                "ViTForMaskedImageModeling",
                f"patch_size={self.config.patch_size} and encoder_stride={stride}.",
                rule="with bool_masked_pos they are equal, so that the pixels are as many as came in.",
                hint=f"ViTConfig(..., encoder_stride={patch[0]}).",
            )
        switches = head_mask, output_attentions, output_hidden_states, interpolate_pos_encoding, bool_masked_pos
        output = self.vit(pixel_values, *switches)
        H, W = np.shape(pixel_values)[2:]
        B, _, D = output.last_hidden_state.shape
        tokens = output.last_hidden_state[:, 1:].transpose(0, 2, 1)  # (B, D, N)
        painted = self.decoder(tokens.reshape(B, D, H // patch[0], W // patch[1]))  # (B, C, H, W)
        loss = None
        if bool_masked_pos is not None:
            if H % stride or W % stride:
                raise ShapeError(
                    "ViTForMaskedImageModeling",
                    f"an image of {H} x {W} pixels.",
                    rule=f"with bool_masked_pos every pixel is in a patch: both sides are multiples of {stride}.",
                    hint="resize or crop the image.",
                )
            hidden = np.asarray(bool_masked_pos).reshape(B, 1, H // stride, W // stride)
            hidden = hidden.repeat(stride, 2).repeat(stride, 3)  # (B, 1, H, W)
            error = ops.abs(painted - pixel_values) * hidden
            loss = error.sum() / ((hidden.sum() + 1e-5) * self.config.num_channels)  # 1e-5: where nothing is hidden
        return MaskedImageModelingOutput(loss, painted, output.hidden_states, output.attentions)
