"""The config: every size and switch of a Vision Transformer, checked when it is made."""

import json
from pathlib import Path

import numpy as np

from .errors import MinivitError, ShapeError
from .nn import ACTIVATIONS


def to_2tuple(x):
    """(x, x) for a number; a pair (height, width) stays as it is."""
    if np.ndim(x) == 0:
        return (x, x)
    if len(x) != 2:
        raise ShapeError("to_2tuple", f"{x!r} is neither a number nor a pair (height, width).")
    return tuple(x)


class ViTConfig:
    """Every size and switch of a Vision Transformer, with the defaults of ViT-Base/16.

    image_size and patch_size are numbers or pairs (height, width), in pixels. The classes are given by their names,
    id2label {0: "cat", ...} (label2id is its inverse), or only counted by num_labels. Unknown keys are kept as
    attributes and written back, so that a config from the hub loses nothing.
    Source: transformers' ViTConfig.
    """

    model_type = "vit"

    def __init__(
        self,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        hidden_act="gelu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.02,
        layer_norm_eps=1e-12,
        is_encoder_decoder=False,
        image_size=224,
        patch_size=16,
        num_channels=3,
        qkv_bias=True,
        num_labels=None,
        id2label=None,
        label2id=None,
        pooler_act="tanh",
        pooler_output_size=None,
        encoder_stride=16,
        **kwargs,
    ):
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.is_encoder_decoder = is_encoder_decoder
        self.image_size = image_size
        self.patch_size = patch_size
        self.num_channels = num_channels
        self.qkv_bias = qkv_bias
        self.pooler_act = pooler_act
        self.pooler_output_size = hidden_size if pooler_output_size is None else pooler_output_size
        self.encoder_stride = encoder_stride
        if id2label is None:
            self.num_labels = 2 if num_labels is None else num_labels
        else:
            self.id2label = {int(number): name for number, name in id2label.items()}
            self.label2id = label2id or {name: number for number, name in self.id2label.items()}
        kwargs.pop("model_type", None)
        self.__dict__.update(kwargs)
        self._validate(num_labels)

    @property
    def num_labels(self):
        """K, the number of classes. Setting it gives them new names, LABEL_0 and on."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, count):
        _check_whole("num_labels", count)
        self.id2label = {number: f"LABEL_{number}" for number in range(count)}
        self.label2id = {name: number for number, name in self.id2label.items()}

    def _validate(self, num_labels):
        for name in ("hidden_size", "num_attention_heads", "intermediate_size", "num_channels", "pooler_output_size"):
            _check_whole(name, getattr(self, name))
        _check_whole("num_hidden_layers", self.num_hidden_layers, least=0)
        check_heads("ViTConfig", self.hidden_size, self.num_attention_heads)
        check_patches("ViTConfig", self.image_size, self.patch_size)
        for name in ("hidden_act", "pooler_act"):
            if getattr(self, name) not in ACTIVATIONS:
                known = ", ".join(ACTIVATIONS)
                raise MinivitError("ViTConfig", f"{name}={getattr(self, name)!r} is not known.", rule=f"one of {known}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise MinivitError("ViTConfig", f"{name}={getattr(self, name)} is no probability.", rule="0 to 1")
        for name in ("initializer_range", "layer_norm_eps"):
            if not getattr(self, name) >= 0:
                raise MinivitError("ViTConfig", f"{name}={getattr(self, name)}.", rule="it is not negative.")
        if sorted(self.id2label) != list(range(len(self.id2label))) or num_labels not in (None, self.num_labels):
            raise MinivitError(
                "ViTConfig",
                f"id2label numbers its classes {sorted(self.id2label)}, and num_labels={num_labels}.",
                rule="classes are numbered 0, 1, ... num_labels - 1.",
                hint="give id2label alone; num_labels follows from it.",
            )

    @classmethod
    def tiny(cls, **kwargs):
        """ViT-Tiny/16 (Touvron et al. 2021): 5.7 million parameters."""
        return cls(**{"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768} | kwargs)

    @classmethod
    def small(cls, **kwargs):
        """ViT-Small/16 (Touvron et al. 2021): 22 million parameters."""
        return cls(**{"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536} | kwargs)

    @classmethod
    def base(cls, **kwargs):
        """ViT-Base/16 (Dosovitskiy et al. 2021, table 1): 86.6 million parameters."""
        return cls(**kwargs)

    @classmethod
    def large(cls, **kwargs):
        """ViT-Large/16 (Dosovitskiy et al. 2021, table 1): 304 million parameters."""
        sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
        return cls(**sizes | kwargs)

    @classmethod
    def huge(cls, **kwargs):
        """ViT-Huge/14 (Dosovitskiy et al. 2021, table 1): 632 million parameters."""
        sizes = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "intermediate_size": 5120}
        return cls(**sizes | {"patch_size": 14} | kwargs)

    def to_dict(self):
        """Every field and every kept key, ready for JSON."""
        return {"model_type": self.model_type} | vars(self)

    @classmethod
    def from_dict(cls, fields, **kwargs):
        """The config of to_dict(), with the fields in kwargs set anew."""
        if "num_labels" in kwargs or "id2label" in kwargs:  # the names of other classes do not hold any longer
            fields = {key: value for key, value in fields.items() if key not in ("id2label", "label2id", "num_labels")}
        return cls(**fields | kwargs)

    def to_json_string(self):
        """The config as JSON text."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json_string(cls, text):
        """The config that to_json_string() wrote."""
        return cls.from_dict(json.loads(text))

    def to_json_file(self, path):
        """Write the config to a JSON file."""
        Path(path).write_text(self.to_json_string(), encoding="utf-8")

    @classmethod
    def from_json_file(cls, path):
        """Read the config of a JSON file."""
        return cls.from_json_string(Path(path).read_text(encoding="utf-8"))

    def __eq__(self, other):
        return isinstance(other, ViTConfig) and self.to_dict() == other.to_dict()

    __hash__ = None

    def __repr__(self):
        return f"ViTConfig {self.to_json_string()}"


def _check_whole(name, value, least=1):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise MinivitError("ViTConfig", f"{name}={value!r}.", rule=f"{name} is a whole number, {least} or more.")


def check_heads(where, hidden_size, heads):
    """Refuse a hidden size that the heads do not share evenly."""
    left = hidden_size % heads
    if left:
        sizes = " or ".join(str(size) for size in (hidden_size - left, hidden_size - left + heads) if size)
        *divisors, last = [n for n in range(1, hidden_size + 1) if hidden_size % n == 0]
        raise ShapeError(
            where,
            f"hidden_size={hidden_size} cannot be split over num_attention_heads={heads}.",
            rule=f"hidden_size % num_attention_heads == 0, but {hidden_size} % {heads} = {left}",
            hint=f"use hidden_size {sizes}, or {', '.join(map(str, divisors))} or {last} heads.",
        )


def check_patches(where, image_size, patch_size):
    """Refuse patches that do not fill the image."""
    for side, pixels, patch in zip(
        ("height", "width"), to_2tuple(image_size), to_2tuple(patch_size), strict=True
    ):
        _check_whole("patch_size", patch)
        _check_whole("image_size", pixels)
        left = pixels % patch
        if left:
            sizes = " or ".join(str(size) for size in (pixels - left, pixels - left + patch) if size)
            raise ShapeError(
                where,
                f"an image {side} of {pixels} pixels cannot be cut into patches of {patch}.",
                rule=f"image_size % patch_size == 0, but {pixels} % {patch} = {left}",
                hint=f"use a {side} of {sizes}, or another patch_size.",
            )
