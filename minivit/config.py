"""The config: every size and switch of a Vision Transformer, checked when it is made."""

import copy
import difflib
import inspect
import json
import reprlib
from pathlib import Path

import numpy as np

from .errors import FileError, MinivitError, ShapeError, check_whole
from .machinery.files import json_text, parsed, read_json, read_regular, write_json
from .nn import ACTIVATIONS
from .weights.folder import CONFIG
from .weights.hub import find

# what others call a field; what is only misspelled is found by its likeness
SYNONYMS = {
    "hidden_size": "d_model dim emb_dim embed_dim embedding_dim hidden_dim n_embd",
    "num_hidden_layers": "depth layers n_layer n_layers num_blocks num_encoder_layers num_layers",
    "num_attention_heads": "heads n_head n_heads nhead num_head num_heads",
    "intermediate_size": "d_ff dim_feedforward ffn_dim mlp_dim mlp_ratio mlp_size",
    "hidden_act": "act_layer activation activation_function",
    "hidden_dropout_prob": "drop_rate dropout dropout_p dropout_prob dropout_rate hidden_dropout",
    "attention_probs_dropout_prob": "attention_dropout attn_drop attn_drop_rate attn_dropout",
    "layer_norm_eps": "eps layer_norm_epsilon norm_eps",
    "image_size": "image_resolution img_size input_size resolution",
    "patch_size": "patch",
    "num_channels": "channels in_chans in_channels input_channels",
    "num_labels": "n_classes num_classes",
    "initializer_range": "init_std",
}

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


def to_2tuple(x):
    """(x, x) for a number; a pair (height, width) stays as it is."""
    if not (isinstance(x, (tuple, list)) or np.ndim(x)):
        return (x, x)
    if len(x) != 2:
        raise ShapeError("to_2tuple", f"{x!r} is neither a number nor a pair (height, width).")
    return tuple(x)


class ViTConfig:
    """Every size and switch of a Vision Transformer, with the defaults of ViT-Base/16.

    image_size and patch_size are numbers or pairs (height, width), in pixels. The classes are given by their names,
    id2label {0: "cat", ...}, else label2id {"cat": 0, ...}, or only counted by num_labels; the first that is given
    rules, and the others follow from it. problem_type says what labels are: "single_label_classification" (None too,
    with two classes or more), "multi_label_classification" or "regression" (None too, with num_labels=1).
    pruned_heads {layer: [heads]} are left out of the model. Unknown keys are kept as attributes and written back, so
    that a config from the hub loses nothing. MinivitError when a field holds what it cannot, or an unknown key
    is a field misspelled.
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
        pruned_heads=None,
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
        self.pruned_heads = pruned_heads or {}
        self._name_labels(num_labels, id2label, label2id)
        if kwargs.pop("model_type", self.model_type) != self.model_type:
            raise MinivitError("ViTConfig", "these are the fields of another model.", rule='model_type is "vit".')
        _check_spelling(kwargs)
        taken = [key for key in kwargs if hasattr(type(self), key)]
        if taken:
            raise MinivitError("ViTConfig", f"cannot keep the unknown keys {', '.join(taken)}: they name parts of it.")
        self.__dict__.update(kwargs)
        self._validate()
        self._plain()

    @property
    def num_labels(self):
        """K, the number of classes. Setting it gives them new names, LABEL_0 and on."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, count):
        check_whole("ViTConfig", "num_labels", count)
        self.id2label = {number: f"LABEL_{number}" for number in range(count)}
        self.label2id = {name: number for number, name in self.id2label.items()}

    def _name_labels(self, num_labels, id2label, label2id):
        """Set id2label and label2id from the first of id2label, label2id and num_labels that says how many there are.

        What transformers writes need not agree: a new id2label leaves the old label2id in the file, for one.
        """
        if id2label is None and label2id is not None:
            id2label = _turned(label2id)
            if num_labels is not None and (id2label is None or len(id2label) != num_labels):
                id2label = label2id = None
        if id2label is None and label2id is None:
            self.num_labels = 2 if num_labels is None else num_labels
            return
        try:
            # in JSON the numbers are text
            self.id2label = dict(sorted((int(str(number)), _name(name)) for number, name in id2label.items()))
            wrong = not self.id2label or min(self.id2label) < 0
        except (AttributeError, TypeError, ValueError):
            wrong = True
        if wrong:
            came = {"id2label": id2label} if label2id is None else {"id2label": id2label, "label2id": label2id}
            raise MinivitError(
                "ViTConfig",
                "the classes do not agree: " + ", ".join(f"{name}={reprlib.repr(x)}" for name, x in came.items()) + ".",
                rule='id2label is {0: "cat", 1: "dog", ...}, label2id its inverse; num_labels only counts them.',
                hint="give id2label alone; the other two follow from it.",
            )
        self.label2id = _inverse(self.id2label, label2id)

    @property
    def class_names(self):
        """The K names in the order of the logits; LABEL_3 where id2label has no name for logit 3."""
        return [self.id2label.get(number, f"LABEL_{number}") for number in range(self.num_labels)]

    @property
    def task(self):
        """problem_type, or what transformers takes None for: "regression" with num_labels=1, else single labels."""
        return getattr(self, "problem_type", None) or PROBLEM_TYPES[2 if self.num_labels == 1 else 0]

    def _validate(self):
        check_heads("ViTConfig", self.hidden_size, self.num_attention_heads)
        for name in ("intermediate_size", "num_channels", "pooler_output_size", "encoder_stride"):
            check_whole("ViTConfig", name, getattr(self, name))
        check_whole("ViTConfig", "num_hidden_layers", self.num_hidden_layers, least=0, most=2**12)
        check_patches("ViTConfig", self.image_size, self.patch_size)
        for name in ("hidden_act", "pooler_act"):
            if not (isinstance(getattr(self, name), str) and getattr(self, name) in ACTIVATIONS):
                known = ", ".join(ACTIVATIONS)
                raise MinivitError("ViTConfig", f"{name}={getattr(self, name)!r} is not known.", rule=f"one of {known}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            _check_number(name, getattr(self, name), 1, "a probability, 0 to 1")
        for name in ("initializer_range", "layer_norm_eps"):
            _check_number(name, getattr(self, name), np.finfo(np.float32).max, "a finite number, not negative")
        if self.task not in PROBLEM_TYPES:
            rule = f"None, {', '.join(PROBLEM_TYPES)}"
            raise MinivitError("ViTConfig", f"problem_type={self.problem_type!r} is not known.", rule=rule)
        d = self.hidden_size // self.num_attention_heads
        if getattr(self, "head_dim", None) not in (None, d):
            rule = f"a head has hidden_size / num_attention_heads = {d} numbers here."
            raise MinivitError("ViTConfig", f"head_dim={self.head_dim!r}.", rule=rule)
        for name in ("is_encoder_decoder", "qkv_bias"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise MinivitError("ViTConfig", f"{name}={getattr(self, name)!r}.", rule=f"{name} is True or False.")

    def _plain(self):
        """Python's own numbers and tuples in place of NumPy's numbers, lists and JSON's text keys."""
        for name, value in vars(self).items():
            if isinstance(value, np.generic):
                setattr(self, name, value.item())
        for name in ("image_size", "patch_size"):
            if np.ndim(getattr(self, name)):
                setattr(self, name, tuple(int(pixels) for pixels in getattr(self, name)))
        try:
            pruned = {int(layer): sorted(int(head) for head in heads) for layer, heads in self.pruned_heads.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise MinivitError(
                "ViTConfig", f"pruned_heads={self.pruned_heads!r}.", rule="{layer: [heads]}, all of them numbers."
            ) from error
        self.pruned_heads = pruned

    @classmethod
    def tiny(cls, **kwargs):
        """ViT-Tiny/16 (Touvron et al. 2021): 5.7 million parameters with 1000 classes."""
        return cls(**{"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768} | kwargs)

    @classmethod
    def small(cls, **kwargs):
        """ViT-Small/16 (Touvron et al. 2021): 22 million parameters with 1000 classes."""
        return cls(**{"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536} | kwargs)

    @classmethod
    def base(cls, **kwargs):
        """ViT-Base/16 (Dosovitskiy et al. 2021, table 1): 86.6 million parameters with 1000 classes."""
        return cls(**kwargs)

    @classmethod
    def large(cls, **kwargs):
        """ViT-Large/16 (Dosovitskiy et al. 2021, table 1): 304 million parameters with 1000 classes."""
        sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
        return cls(**sizes | kwargs)

    @classmethod
    def huge(cls, **kwargs):
        """ViT-Huge/14 (Dosovitskiy et al. 2021, table 1): 632 million parameters with 1000 classes."""
        sizes = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "intermediate_size": 5120}
        return cls(**sizes | {"patch_size": 14} | kwargs)

    def to_dict(self):
        """A copy of every field and every kept key, ready for JSON."""
        try:
            fields = {"model_type": self.model_type} | copy.deepcopy(vars(self))
        except RecursionError as error:
            raise MinivitError("ViTConfig", "a kept key is nested too deeply.") from error
        return fields | {"label2id": _inverse(self.id2label, self.label2id)}  # id2label may have been set since

    @classmethod
    def from_dict(cls, fields, **kwargs):
        """The config of to_dict(), with the fields in kwargs set anew.

        One that transformers wrote (it says its version) keeps every key, as there, whatever it is called.
        """
        if not isinstance(fields, dict) or "self" in fields:
            raise MinivitError("ViTConfig", f"a config is a dict of fields, not a {type(fields).__name__} with self.")
        labels = {"num_labels", "id2label", "label2id"}
        if labels & kwargs.keys() and not _only_counts(kwargs, fields):  # the names of other classes do not hold
            fields = {key: value for key, value in fields.items() if key not in labels}
        kept = {key: fields[key] for key in fields if "transformers_version" in fields and _meant(key)}
        config = cls(**{key: value for key, value in fields.items() if key not in kept} | kwargs)
        vars(config).update(copy.deepcopy(kept))
        return config

    @classmethod
    def from_pretrained(cls, name, **kwargs):
        """The config in a folder, or of a model on the Hugging Face hub by its name, with the fields in kwargs anew.

        FileError where there is none, MinivitError for another model's.
        """
        return cls.from_dict(read_json(find(name, [CONFIG]) / CONFIG), **kwargs)

    def save_pretrained(self, folder):
        """Write config.json into a folder, made if missing. FileError if that cannot be."""
        write_json(Path(folder) / CONFIG, self.to_dict())

    def to_json_string(self):
        """The config as JSON text. FileError for a kept key that JSON cannot hold."""
        return json_text("ViTConfig", self.to_dict())

    @classmethod
    def from_json_string(cls, text):
        """The config that to_json_string() wrote."""
        try:
            fields = parsed(text)
        except (TypeError, ValueError) as error:
            raise MinivitError("ViTConfig", f"this text cannot be read as JSON: {error}") from error
        return cls.from_dict(fields)

    def to_json_file(self, path):
        """Write the config to a JSON file. FileError if that cannot be."""
        text = self.to_json_string()
        try:
            Path(path).write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise FileError(path, f"cannot be written: {error}") from error

    @classmethod
    def from_json_file(cls, path):
        """Read the config of a JSON file. FileError if it is missing or not text, MinivitError if it is no config."""
        try:
            text = read_regular(path).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(path, f"cannot be read: {error}") from error
        try:
            return cls.from_json_string(text)
        except MinivitError as error:
            raise FileError(path, f"holds no config. {error}") from error

    def __eq__(self, other):
        return isinstance(other, ViTConfig) and self.to_dict() == other.to_dict()

    __hash__ = None

    def __repr__(self):
        return f"ViTConfig {json.dumps(self.to_dict(), indent=2, sort_keys=True, default=repr)}"


def _meant(key):
    """The field that an unknown key is a synonym or a misspelling of, or None."""
    fields = inspect.signature(ViTConfig).parameters.keys() - {"kwargs"}
    if key in fields:
        return None
    named = [field for field, synonyms in SYNONYMS.items() if key.lower() in synonyms.split()]
    # 0.85 lets other models' fields pass, decoder_num_attention_heads say; transformers 4 has a tie_encoder_decoder
    likely = sorted(fields - {"is_encoder_decoder"})
    return next(iter(named or difflib.get_close_matches(key.lower(), likely, 1, 0.85)), None)


def _check_spelling(unknown):
    """Refuse unknown keys that are meant to be fields, all at once: kept under their names, they would do nothing."""
    meant = {key: field for key in unknown if (field := _meant(key))}
    if meant:
        raise MinivitError(
            "ViTConfig",
            "no such field: " + ", ".join(f"{key}={unknown[key]!r}" for key in meant) + ".",
            rule="the fields are called as in transformers; a key that is no field changes nothing.",
            hint="write " + ", ".join(f"{field} for {key}" for key, field in meant.items()) + ".",
        )


def _name(name):
    """A class's name as text: whoever has numbers for names means their digits."""
    if not isinstance(name, (str, int, np.integer)) or isinstance(name, bool):
        raise TypeError("name")
    return str(name)


def _turned(names):
    """{value: key}, or None where that is not one for one."""
    try:
        turned = {value: key for key, value in names.items()}
    except (AttributeError, TypeError):
        return None
    return turned if len(turned) == len(names) else None


def _inverse(id2label, label2id):
    """{name: number}: label2id where it agrees with id2label, since ImageNet has two kinds of crane, or else anew."""
    try:
        given = {name: int(str(number)) for name, number in label2id.items()}
        agree = given.keys() == set(id2label.values()) and all(id2label.get(k) == name for name, k in given.items())
    except (AttributeError, TypeError, ValueError):
        agree = False
    return given if agree else {name: number for number, name in id2label.items()}


def _only_counts(given, fields):
    """Whether the labels in `given` are a num_labels alone, and the number that these fields have."""
    names = fields.get("id2label") or fields.get("label2id")
    count = len(names) if isinstance(names, dict) else fields.get("num_labels", 2)
    return "id2label" not in given and "label2id" not in given and given["num_labels"] == count


def _check_number(name, value, most, rule):
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not (number and 0 <= value <= most):
        raise MinivitError("ViTConfig", f"{name}={value!r}.", rule=f"{name} is {rule}.")


def check_heads(where, hidden_size, heads):
    """Refuse a hidden size that the heads do not share evenly."""
    check_whole(where, "hidden_size", hidden_size)
    check_whole(where, "num_attention_heads", heads)
    left = hidden_size % heads
    if left:
        sizes = " or ".join(str(size) for size in (hidden_size - left, hidden_size - left + heads) if size)
        divisors = ", ".join(str(n) for n in range(1, min(hidden_size, 100) + 1) if hidden_size % n == 0)
        raise ShapeError(
            where,
            f"hidden_size={hidden_size} cannot be split over num_attention_heads={heads}.",
            rule=f"hidden_size % num_attention_heads == 0, but {hidden_size} % {heads} = {left}",
            hint=f"use hidden_size {sizes}, or {' or '.join(divisors.rsplit(', ', 1))} heads.",
        )


def check_patches(where, image_size, patch_size):
    """Refuse patches that do not fill the image."""
    for side, pixels, patch in zip(("height", "width"), to_2tuple(image_size), to_2tuple(patch_size), strict=True):
        check_whole(where, "patch_size", patch)
        check_whole(where, "image_size", pixels)
        left = pixels % patch
        if left:
            sizes = " or ".join(str(size) for size in (pixels - left, pixels - left + patch) if size)
            raise ShapeError(
                where,
                f"an image {side} of {pixels} pixels cannot be cut into patches of {patch}.",
                rule=f"image_size % patch_size == 0, but {pixels} % {patch} = {left}",
                hint=f"use a {side} of {sizes}, or another patch_size.",
            )
