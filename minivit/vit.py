"""The Vision Transformer of the notes, bottom-up, with the names that Hugging Face transformers gives its parts.

Shapes: B batch, C channels, H W pixels, P patch side, N patches, T = N + 1 tokens, D hidden size, h heads,
d = D / h head size, F MLP size, K classes; q and k index query and key tokens.
Sources: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words"; the classes follow transformers' modeling_vit.py.
"""

import copy
import warnings
from dataclasses import dataclass

import numpy as np

from . import checkpoint, nn, ops
from .autograd import Tensor
from .config import ViTConfig, check_heads, check_patches, check_whole, to_2tuple
from .errors import MinivitError, ShapeError


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
                hint="x.transpose(0, 3, 1, 2) brings the channels of (B, H, W, C) to the front.",
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


def interpolate_positions(positions, old_grid, new_grid):
    """The position embeddings of another grid of patches: bicubic, CLS's row unchanged.

    positions: (1, 1 + rows * columns, D), old_grid and new_grid: (rows, columns).  Returns a Tensor (1, T, D).
    Source: as torch.nn.functional.interpolate(mode="bicubic", align_corners=False) does it.
    """
    (rows, columns), D = old_grid, positions.shape[-1]
    down, across = (_bicubic(old, new).astype(positions.dtype) for old, new in zip(old_grid, new_grid, strict=True))
    grid = positions[0, 1:].reshape(rows, columns, D)
    grid = ops.einsum("xc,ycd->yxd", across, ops.einsum("yr,rcd->ycd", down, grid))  # (rows', columns', D)
    return ops.concatenate([positions[:, :1], grid.reshape(1, -1, D)], axis=1)  # (1, T, D)


def _bicubic(old, new):
    """The (new, old) matrix that resamples `old` numbers on a line to `new`: Keys' cubic with a = -0.75."""
    a = -0.75
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centre).astype(int) - 1
    matrix = np.zeros((new, old))
    for tap in range(4):
        distance = abs(centre - (first + tap))
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = a * (((distance - 5) * distance + 8) * distance - 4)
        edge = np.clip(first + tap, 0, old - 1)
        np.add.at(matrix, (np.arange(new), edge), np.where(distance <= 1, near, far))
    return matrix


class ViTEmbeddings(nn.Module):
    """The encoder's input: [CLS, patch 1, ..., patch N] + positions. (B, C, H, W) -> (B, T, D)."""

    def __init__(self, config, rng=0):
        rng = np.random.default_rng(rng)
        std, D = config.initializer_range, config.hidden_size
        self.cls_token = nn.normal((1, 1, D), std, rng)
        patch_embeddings = PatchEmbeddings(config.image_size, config.patch_size, config.num_channels, D, std, rng)
        self.position_embeddings = nn.normal((1, patch_embeddings.num_patches + 1, D), std, rng)
        self.patch_embeddings = patch_embeddings
        self.dropout = nn.Dropout(config.hidden_dropout_prob, rng)

    def forward(self, pixel_values, interpolate_pos_encoding=False):
        patches = self.patch_embeddings(pixel_values, interpolate_pos_encoding)  # (B, N, D)
        cls = self.cls_token.expand(patches.shape[0], -1, -1)  # (B, 1, D)
        tokens = ops.concatenate([cls, patches], axis=1)  # (B, T, D)
        positions = self.position_embeddings
        H, W = np.shape(pixel_values)[2:]
        if (H, W) != self.patch_embeddings.image_size:
            P = self.patch_embeddings.patch_size
            new_grid = (H // P[0], W // P[1])
            positions = interpolate_positions(positions, self.patch_embeddings.grid, new_grid)
        return self.dropout(tokens + positions)


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
    """Self-attention and its output matrix, with heads that can be cut away. (B, T, D) -> (B, T, D)."""

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
    """One encoder block, norm first: x + attention(norm(x)), then x + mlp(norm(x)). (B, T, D) -> (B, T, D)."""

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


class PreTrainedModel(nn.Module):
    """What the models share: a config, pruning, and Hugging Face's folder both ways."""

    def prune_heads(self, heads_to_prune):
        """Cut heads away for good: {layer: [heads]}, numbered as in the unpruned model."""
        layers = dict(enumerate(getattr(self, "vit", self).encoder.layer))
        for number, heads in heads_to_prune.items():  # all refused before any is cut
            if number not in layers:
                raise MinivitError(
                    "prune_heads", f"there is no layer {number!r}.", rule=f"layers are numbered 0 to {len(layers) - 1}."
                )
            layers[number].attention.known_heads(heads)
        for number, heads in heads_to_prune.items():
            layers[number].attention.prune_heads(heads)
        pruned = {i: sorted(layer.attention.pruned_heads) for i, layer in layers.items()}
        self.config.pruned_heads = {i: heads for i, heads in pruned.items() if heads}

    def save_pretrained(self, folder):
        """Write config.json and model.safetensors, as transformers reads them, into a folder (made if missing)."""
        config = self.config.to_dict() | {"architectures": [type(self).__name__], "dtype": str(self.dtype)}
        checkpoint.write_folder(folder, config, {name: p.data for name, p in self.named_parameters()})

    @property
    def dtype(self):
        """The dtype of the parameters."""
        return self.parameters()[0].dtype

    @classmethod
    def from_pretrained(cls, folder, ignore_mismatched_sizes=False, rng=0, **kwargs):
        """The model in a folder that transformers or save_pretrained wrote, in float32 and evaluation mode.

        kwargs: fields of the config to set anew, num_labels=10 say. One ShapeError lists all missing, unexpected and
        mismatched weights. ignore_mismatched_sizes: draw the classifier anew (with rng) where it is missing or of
        another size, with a warning that says so. A ViTModel takes the body of a classifier and leaves its head.
        """
        fields, tensors = checkpoint.read_folder(folder)
        config = ViTConfig.from_dict(fields, **kwargs)
        tensors, options = cls._fit_names(tensors)
        with nn.meta():
            model = cls(config, rng=rng, **options)
        if ignore_mismatched_sizes:
            model._draw_head(tensors, rng)
        model.load_state_dict(tensors, assign=True)
        return model.eval()


class ViTModel(PreTrainedModel):
    """Image to tokens: embeddings, encoder, final norm, and the pooled CLS token. (B, C, H, W) -> ViTModelOutput.

    forward's head_mask: (h,) for all layers or (L, h), 1 to keep a head and 0 to silence it.
    """

    def __init__(self, config, add_pooling_layer=True, rng=0):
        rng = np.random.default_rng(rng)
        self.config = copy.deepcopy(config)  # prune_heads writes to it
        self.embeddings = ViTEmbeddings(config, rng)
        self.encoder = ViTEncoder(config, rng)
        self.layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.pooler = ViTPooler(config, rng) if add_pooling_layer else None
        self.prune_heads(config.pruned_heads)

    @staticmethod
    def _fit_names(tensors):
        body = {name.removeprefix("vit."): x for name, x in tensors.items() if not name.startswith("classifier.")}
        return body, {"add_pooling_layer": "pooler.dense.weight" in body}

    def _draw_head(self, tensors, rng):
        """A ViTModel has no head."""

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
    ):
        embeddings = self.embeddings(pixel_values, interpolate_pos_encoding)  # (B, T, D)
        output = self.encoder(embeddings, self._head_mask(head_mask), output_attentions, output_hidden_states)
        output.last_hidden_state = self.layernorm(output.last_hidden_state)
        if self.pooler is not None:
            output.pooler_output = self.pooler(output.last_hidden_state)  # (B, D)
        return output


class ViTForImageClassification(PreTrainedModel):
    """ViTModel and one linear map from the final CLS token to the class scores. (B, C, H, W) -> ImageClassifierOutput.

    forward's labels: (B,) class numbers; they give the loss, the mean cross-entropy.
    """

    def __init__(self, config, rng=0):
        rng = np.random.default_rng(rng)
        self.vit = ViTModel(config, add_pooling_layer=False, rng=rng)
        self.config = self.vit.config
        self.classifier = nn.Linear(config.hidden_size, config.num_labels, std=config.initializer_range, rng=rng)

    @staticmethod
    def _fit_names(tensors):
        if any(name.startswith("vit.") for name in tensors):
            return tensors, {}
        return {f"vit.{name}": x for name, x in tensors.items() if not name.startswith("pooler.")}, {}

    def _draw_head(self, tensors, rng):
        """Put a new classifier among the tensors where theirs is missing or of another size."""
        expected = {f"classifier.{name}": parameter.shape for name, parameter in self.classifier.named_parameters()}
        if any(name not in tensors or tensors[name].shape != shape for name, shape in expected.items()):
            K, D = self.classifier.weight.shape
            warnings.warn(f"a new classifier for {K} classes was drawn: train it before you use it.", stacklevel=3)
            head = nn.Linear(D, K, std=self.config.initializer_range, rng=rng)
            tensors |= {f"classifier.{name}": array for name, array in head.state_dict().items()}

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
        if labels is not None and self.config.num_labels == 1:
            raise MinivitError("ViTForImageClassification", "labels, but num_labels=1.", rule="two classes or more")
        loss = None if labels is None else ops.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss, logits, output.hidden_states, output.attentions)
