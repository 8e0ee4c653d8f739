"""What the models share: a config, pruning, and the folder of weights, both ways."""

import inspect
import warnings

import numpy as np

from .. import nn
from ..autograd import Tensor
from ..config import ViTConfig, to_2tuple
from ..errors import MinivitError, ShapeError, check_names
from ..machinery import checks
from ..machinery.random import generator
from ..ops.positions import interpolate_positions
from .folder import read_folder, write_folder
from .hub import find

HEADS = ("classifier.", "decoder.", "pooler.", "embeddings.mask_token")  # parts that serve one task only
KEPT = {"output_attentions", "output_hidden_states", "problem_type"}  # what a config may ask for beside its fields
DTYPES = {None: np.float32, "float32": np.float32, "float64": np.float64}


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
        fields = self.fields() | {"pruned_heads": {}}
        write_folder(folder, fields, self._unpruned(tensors), preprocessor, force)

    def _unpruned(self, tensors):
        """The tensors with zeros in the places of the heads that were cut away: the same model, for any version."""
        whole = dict(tensors)
        for number, pruned in self.config.pruned_heads.items():
            heads, d = self.config.num_attention_heads, self.config.hidden_size // self.config.num_attention_heads
            rows = [head * d + i for head in range(heads) if head not in pruned for i in range(d)]
            for name, array in tensors.items():
                part = name.partition(f"encoder.layer.{number}.attention.")[2]
                if part.startswith("attention."):  # of query, key and value
                    whole[name] = np.zeros((heads * d, *array.shape[1:]), array.dtype)
                    whole[name][rows] = array
                elif part == "output.dense.weight":
                    whole[name] = np.zeros((len(array), heads * d), array.dtype)
                    whole[name][:, rows] = array
        return whole

    def fields(self):
        """The config as config.json holds it: with the model's class and dtype."""
        fields = self.config.to_dict() | {"architectures": [type(self).__name__], "dtype": str(self.dtype)}
        fields.pop("torch_dtype", None)  # what transformers 4 called dtype, and read before it
        return fields

    @classmethod
    def from_pretrained(cls, name, ignore_mismatched_sizes=False, rng=None, *, revision=None, **kwargs):
        """The model in a folder, or on the Hugging Face hub by its name, in float32 and evaluation mode.

        The folder is one that transformers, timm, save_pretrained or `minivit train` wrote. revision: a branch, tag or
        commit on the hub. The rest as from_tensors.
        """
        fields, tensors = read_folder(find(name, revision=revision))
        return cls.from_tensors(fields, tensors, ignore_mismatched_sizes, rng, **kwargs)

    @classmethod
    def from_tensors(
        cls,
        fields,
        tensors,
        ignore_mismatched_sizes=False,
        rng=None,
        *,
        config=None,
        dtype=None,
        torch_dtype=None,
        output_loading_info=False,
        **kwargs,
    ):
        """The model of a config and {hub name: array}, in evaluation mode.

        config: a ViTConfig to be used instead of `fields`. dtype, or torch_dtype: float32 (None) or float64; "auto" is
        that of the tensors, with float16 and bfloat16 as float32. output_loading_info: return (model, info), with the
        names in info["missing_keys"], which were drawn, info["unexpected_keys"], which were left out, and
        info["mismatched_keys"], which were drawn anew: (name, shape found, shape expected).
        kwargs: fields of the config to set anew, num_labels=10 say; with another image_size the position embeddings
        are interpolated. A ViTModel takes add_pooling_layer and use_mask_token, too. What serves another task (the
        head of a classifier in a ViTModel) is left out, and a head that is missing is drawn (with rng), with a warning
        that says so; ignore_mismatched_sizes: one of another size, too. One ShapeError lists all other missing,
        unexpected and mismatched weights.
        """
        where = f"{cls.__name__}.from_pretrained"
        parts = {name: kwargs.pop(name) for name in cls.PARTS if name in kwargs}
        unknown = sorted(kwargs.keys() - inspect.signature(ViTConfig).parameters - KEPT)
        if unknown:
            raise MinivitError(
                where,
                f"unknown options: {', '.join(unknown)}.",
                rule=f"options are fields of ViTConfig, image_size say, and {', '.join(sorted(KEPT))}.",
            )
        if not isinstance(config, (ViTConfig, type(None))):
            raise MinivitError(where, f"config is a {type(config).__name__}.", rule="it is a ViTConfig.")
        dtype = _dtype(where, dtype if torch_dtype is None else torch_dtype, tensors)
        config = ViTConfig.from_dict(fields if config is None else config.to_dict(), **kwargs)
        config.pruned_heads = {n: heads for n, heads in config.pruned_heads.items() if not _whole(n, config, tensors)}
        with nn.meta():
            model = cls._for_tensors(config, tensors, rng, **parts)
        expected = {name: parameter.shape for name, parameter in model.named_parameters()}
        found, left = {}, []
        for name, array in tensors.items():
            bare = name.removeprefix("vit.")
            own = next((n for n in (bare, f"vit.{bare}") if n in expected), name)
            if own in expected or not bare.startswith(HEADS):
                found[own] = array
            else:
                left.append(name)
        _fit_positions(found, fields, config)
        missing = [name for name in expected if name not in found and _serves_one_task(name)]
        other = [(name, x.shape, expected[name]) for name, x in found.items() if expected.get(name, x.shape) != x.shape]
        other = [entry for entry in other if ignore_mismatched_sizes and _serves_one_task(entry[0])]
        _draw_heads(found, expected, [*missing, *(name for name, *_ in other)], config.initializer_range, rng)
        hint = f"build the model from the config that came with the weights{_only_heads(found, expected)}"
        check_names(expected, {name: array.shape for name, array in found.items()}, cls.__name__, hint=hint)
        for name, parameter in model.named_parameters():
            parameter.data = np.array(found[name], dtype, copy=None)
        model.eval()
        info = {"missing_keys": missing, "unexpected_keys": left, "mismatched_keys": other}
        info = {key: sorted(names) for key, names in info.items()} | {"error_msgs": []}
        return (model, info) if output_loading_info else model

    @classmethod
    def _for_tensors(cls, config, tensors, rng, **parts):
        """The model that these tensors, among others, can fill."""
        if "add_pooling_layer" in cls.PARTS:
            parts = {"add_pooling_layer": "pooler.dense.weight" in tensors} | parts
        return cls(config, **parts, rng=rng)


def _dtype(where, asked, tensors):
    """float32 or float64, as asked: by NumPy's type, by its name, or by PyTorch's."""
    name = asked
    if asked == "auto":
        name = "float64" if any(array.dtype == np.float64 for array in tensors.values()) else "float32"
    elif asked is not None:
        name = asked.__name__ if isinstance(asked, type) else str(asked).removeprefix("torch.")
    if name not in DTYPES:
        rule = "minivit computes in float32 and float64; weights in float16 and bfloat16 are read as float32."
        raise MinivitError(where, f"dtype={asked!r}.", rule=rule)
    return DTYPES[name]


def _whole(layer, config, tensors):
    """Whether no head of this layer was cut away: transformers 5 keeps the word of it, and not the deed."""
    name = f"encoder.layer.{layer}.attention.attention.query.weight"
    return any(tensors[key].shape[:1] == (config.hidden_size,) for key in (name, f"vit.{name}") if key in tensors)


def _serves_one_task(name):
    return name.removeprefix("vit.").startswith(HEADS)


def _only_heads(found, expected):
    """The end of a hint: where nothing but a head does not fit, how to have another."""
    wrong = [name for name in expected.keys() | found if name not in found or found[name].shape != expected.get(name)]
    return "; in Python, ignore_mismatched_sizes=True draws a new head." if all(map(_serves_one_task, wrong)) else "."


def _grid(config):
    sides = zip(to_2tuple(config.image_size), to_2tuple(config.patch_size), strict=True)
    return tuple(pixels // patch for pixels, patch in sides)


def _fit_positions(found, fields, config):
    """Interpolate the position embeddings where the file's config and the model's cut an image into other grids."""
    new = _grid(config)
    try:
        old = _grid(ViTConfig(**{name: fields[name] for name in ("image_size", "patch_size") if name in fields}))
    except MinivitError:  # the file's sizes are none, and others were given
        old = new
    for name, array in found.items():
        fits = array.shape == (1, 1 + old[0] * old[1], config.hidden_size)
        if name.endswith("embeddings.position_embeddings") and fits and old != new:
            found[name] = interpolate_positions(nn.Parameter(array), old, new).data


def _draw_heads(found, expected, names, std, rng):
    """Put a new head among the tensors, as when a model is made."""
    rng = generator(rng)
    for name in names:
        shape = expected[name]
        found[name] = nn.normal(shape, std, rng).data if name.endswith("weight") else np.zeros(shape, np.float32)
    if names:
        warnings.warn(f"a new head was drawn ({', '.join(names)}): train it before you use it.", stacklevel=4)
