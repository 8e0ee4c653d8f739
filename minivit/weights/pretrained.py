"""What the models share: a config, pruning, and the folder of weights, both ways."""

import inspect
import warnings

import numpy as np

from .. import nn
from ..autograd import Tensor
from ..config import ViTConfig, to_2tuple
from ..errors import MinivitError, ShapeError
from ..machinery import checks
from ..machinery.random import generator
from ..ops.positions import interpolate_positions
from .folder import read_folder, write_folder
from .hub import find

HEADS = ("classifier.", "decoder.", "pooler.", "embeddings.mask_token")  # parts that serve one task only
OUTPUTS = {"output_attentions", "output_hidden_states"}  # what a config may ask for beside its fields


class PreTrainedModel(nn.Module):
    """A model with a config. Its body's parameters begin with "vit.", but for ViTModel, which is the body."""

    PARTS = ()  # what the constructor takes beside the config and rng

    def prune_heads(self, heads_to_prune):
        """Cut heads away for good: {layer: [heads]}, numbered as in the unpruned model."""
        layers = dict(enumerate(layer.attention for layer in getattr(self, "vit", self).encoder.layer))
        counts = [layer.attention.num_attention_heads + len(layer.pruned_heads) for layer in layers.values()]
        checks.heads_to_prune(heads_to_prune, counts)  # all refused before any is cut
        for number, heads in heads_to_prune.items():
            layers[number].prune_heads(heads)
        pruned = {i: sorted(layer.pruned_heads) for i, layer in layers.items()}
        self.config.pruned_heads = {i: heads for i, heads in pruned.items() if heads}

    def get_head_mask(self, head_mask, num_hidden_layers):
        """One mask (h, 1, 1) for each layer, of a mask (h,) for all of them or (L, h); None where there is none."""
        if head_mask is None:
            return [None] * num_hidden_layers
        mask = head_mask if isinstance(head_mask, Tensor) else Tensor(head_mask)
        layers = getattr(self, "vit", self).encoder.layer
        checks.head_mask(mask, [layer.attention.attention.num_attention_heads for layer in layers], self.dtype)
        if not mask.requires_grad:
            mask = mask.data.astype(self.dtype)
        rows = [mask] * num_hidden_layers if mask.ndim == 1 else [mask[i] for i in range(num_hidden_layers)]
        return [row.reshape(-1, 1, 1) for row in rows]

    @property
    def dtype(self):
        """The dtype of the parameters."""
        return self.parameters()[0].dtype

    def save_pretrained(self, folder, preprocessor=None, force=False):
        """Write config.json and model.safetensors, as transformers reads them, into a folder (made if missing).

        preprocessor: written as preprocessor_config.json too, see weights.preprocessor; it tells transformers how
        a picture becomes pixel_values. force: replace a config.json that belongs to another program's weights.
        """
        tensors = {name: parameter.data for name, parameter in self.named_parameters()}
        with nn.meta():
            described = dict(type(self)._for_tensors(self.config, tensors, 0).named_parameters())
        for name, parameter in described.items():  # a head put in by hand, say: it could be written, and not read
            if name in tensors and tensors[name].shape != parameter.shape:
                raise ShapeError(
                    "save_pretrained",
                    f"{name} is {tensors[name].shape}, and the config describes {parameter.shape}.",
                    rule="a folder that is saved can be loaded: the model is the one of its config.",
                    hint="for other classes: from_pretrained(name, num_labels=7, ignore_mismatched_sizes=True).",
                )
        write_folder(folder, self.fields(), tensors, preprocessor, force)

    def fields(self):
        """The config as config.json holds it: with the model's class and dtype."""
        return self.config.to_dict() | {"architectures": [type(self).__name__], "dtype": str(self.dtype)}

    @classmethod
    def from_pretrained(cls, name, ignore_mismatched_sizes=False, rng=None, **kwargs):
        """The model in a folder, or on the Hugging Face hub by its name, in float32 and evaluation mode.

        The folder is one that transformers, save_pretrained or `minivit train` wrote. The rest as from_tensors.
        """
        fields, tensors = read_folder(find(name))
        return cls.from_tensors(fields, tensors, ignore_mismatched_sizes, rng, **kwargs)

    @classmethod
    def from_tensors(cls, fields, tensors, ignore_mismatched_sizes=False, rng=None, **kwargs):
        """The model of a config and {hub name: array}, in float32 and evaluation mode.

        kwargs: fields of the config to set anew, num_labels=10 say; with another image_size the position embeddings
        are interpolated. A ViTModel takes add_pooling_layer and use_mask_token, too. What serves another task (the
        head of a classifier in a ViTModel) is left out. One ShapeError lists all missing, unexpected and mismatched
        weights. ignore_mismatched_sizes: draw a head (with rng) where it is missing or of another size, with a warning
        that says so.
        """
        parts = {name: kwargs.pop(name) for name in cls.PARTS if name in kwargs}
        unknown = sorted(kwargs.keys() - inspect.signature(ViTConfig).parameters - OUTPUTS)
        if unknown:
            raise MinivitError(
                f"{cls.__name__}.from_pretrained",
                f"unknown options: {', '.join(unknown)}.",
                rule=f"options are fields of ViTConfig, image_size say, and {', '.join(sorted(OUTPUTS))}.",
                hint="model.to(np.float64) sets the dtype." if {"dtype", "torch_dtype"} & set(unknown) else None,
            )
        config = ViTConfig.from_dict(fields, **kwargs)
        with nn.meta():
            model = cls._for_tensors(config, tensors, rng, **parts)
        expected = dict(model.named_parameters())
        found = {}
        for name, array in tensors.items():
            bare = name.removeprefix("vit.")
            own = next((n for n in (bare, f"vit.{bare}") if n in expected), name)
            if own in expected or not bare.startswith(HEADS):
                found[own] = array
        _fit_positions(found, ViTConfig.from_dict(fields), config)
        if ignore_mismatched_sizes:
            _draw_heads(found, expected, config.initializer_range, rng)
        model.load_state_dict(found, assign=True)
        return model.eval()

    @classmethod
    def _for_tensors(cls, config, tensors, rng, **parts):
        """The model that these tensors, among others, can fill."""
        if "add_pooling_layer" in cls.PARTS:
            parts = {"add_pooling_layer": "pooler.dense.weight" in tensors} | parts
        return cls(config, **parts, rng=rng)


def _grid(config):
    sides = zip(to_2tuple(config.image_size), to_2tuple(config.patch_size), strict=True)
    return tuple(pixels // patch for pixels, patch in sides)


def _fit_positions(found, before, after):
    """Interpolate the position embeddings where the two configs cut an image into different grids."""
    old, new = _grid(before), _grid(after)
    for name, array in found.items():
        fits = array.shape == (1, 1 + old[0] * old[1], after.hidden_size)
        if name.endswith("embeddings.position_embeddings") and fits and old != new:
            found[name] = interpolate_positions(nn.Parameter(array), old, new).data


def _draw_heads(found, expected, std, rng):
    """Put a new head among the tensors where it is missing or of another size: as when a model is made."""
    rng = generator(rng)
    drawn = [
        name
        for name, parameter in expected.items()
        if name.removeprefix("vit.").startswith(HEADS) and (name not in found or found[name].shape != parameter.shape)
    ]
    for name in drawn:
        shape = expected[name].shape
        found[name] = nn.normal(shape, std, rng).data if name.endswith("weight") else np.zeros(shape, np.float32)
    if drawn:
        warnings.warn(f"a new head was drawn ({', '.join(drawn)}): train it before you use it.", stacklevel=4)
