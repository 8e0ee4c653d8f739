"""The spellings: how others write down the Vision Transformer that minivit and the Hugging Face hub call "vit".

The tables are data. To read one more, add its names here: what each tensor is called, what becomes of it, what is
another network and so refused. Read are transformers' ViT (as on the hub, and as in the memory of version 5), its
DINOv2 and DeiT, and timm's ViT. A LayerScale's numbers, one for each row of the matrix before it, are multiplied into
that matrix (Touvron et al. 2021, "Going deeper with Image Transformers", section 2).
"""

import inspect
import math
import re

import numpy as np

from ..errors import FileError, shortened

# what stands before the names of a body with a head on it, and before the number of a layer
BODIES = ("vit.", "deit.", "dinov2.", "timm_model.")
LAYERS = ("encoder.layer.", "layers.", "blocks.")

# what a layer's matrices and norms are called elsewhere; three names: the rows of one matrix for each
QUERY_KEY_VALUE = tuple(f"attention.attention.{part}" for part in ("query", "key", "value"))
LAYER_PARTS = {
    "attention.q_proj": QUERY_KEY_VALUE[:1],
    "attention.k_proj": QUERY_KEY_VALUE[1:2],
    "attention.v_proj": QUERY_KEY_VALUE[2:],
    "attention.o_proj": ("attention.output.dense",),
    "norm1": ("layernorm_before",),
    "attn.qkv": QUERY_KEY_VALUE,
    "attn.proj": ("attention.output.dense",),
    "norm2": ("layernorm_after",),
    "mlp.fc1": ("intermediate.dense",),
    "mlp.fc2": ("output.dense",),
}
# a LayerScale, and the matrix whose rows it scales
LAYER_SCALES = {
    "ls1.gamma": "attention.output.dense",
    "ls2.gamma": "output.dense",
    "layer_scale1.lambda1": "attention.output.dense",
    "layer_scale2.lambda1": "output.dense",
}
# what stands outside of the layers
OTHERS = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
    "head.weight": "classifier.weight",
    "head.bias": "classifier.bias",
}
# tensors of another network, by a part of their names
OTHER_NETWORKS = {
    r"reg_token|register_tokens": "register tokens",
    r"dist_token|distillation|head_dist|cls_classifier": "a distillation token and its head",
    r"fc_norm": "a norm after the mean of the tokens (fc_norm)",
    r"attn_pool": "pooling by attention, as SigLIP has it",
    r"norm_pre": "a norm before the layers (norm_pre), as CLIP has it",
    r"q_norm|k_norm": "norms of queries and keys",
    r"gate_proj|up_proj|weights_in|fc1_g|fc1_x": "a gated MLP (SwiGLU)",
    r"rel_pos|rope": "relative positions",
}
# timm names its networks and leaves the number of heads to their names
TIMM_NETWORKS = r"(?:vit|deit3?)_(tiny|small|base|large|huge)_patch\d+_.*"
TIMM_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16}
TIMM_ARGUMENTS = (  # of a network of timm's, those that the shapes of its tensors or `_timm` tell
    "img_size patch_size in_chans num_classes embed_dim depth num_heads mlp_ratio qkv_bias init_values global_pool "
    "class_token no_embed_class dynamic_img_size drop_rate pos_drop_rate patch_drop_rate proj_drop_rate attn_drop_rate "
    "drop_path_rate"
).split()
# a config of the same fields with other defaults
DEFAULTS = {"dinov2": {"patch_size": 14, "layer_norm_eps": 1e-6}, "deit": {}}


def hub_name(name):
    """The hub's spelling of a tensor's name; a name that has it already, or that is not a layer's, stays as it is.

    transformers 5 calls vit.encoder.layer.0.attention.attention.query.weight in memory
    vit.layers.0.attention.q_proj.weight; a bare ViTModel has both without "vit.".
    """
    prefix, index, part, kind = _parts(name)
    if index is None:
        return name
    return f"{prefix}encoder.layer.{index}.{LAYER_PARTS.get(part, (part,))[0]}.{kind}"


def check_known(path, config):
    """Refuse a config of none of the kinds that are read. FileError."""
    if "architecture" not in config and config.get("model_type") not in ("vit", *DEFAULTS):
        kinds = ", ".join(["vit", *DEFAULTS])
        raise FileError(
            path,
            f"model_type is {config.get('model_type')!a}.",
            rule=f"minivit reads the model_type {kinds}, and timm's ViT; BEiT, Swin and others have other layers.",
        )


def translate(path, config, tensors):
    """(fields, tensors) of a "vit" from the dict of another's config.json and its {name: array}.

    path: of the config, for the FileError that lists all that minivit has not.
    """
    kind = "timm" if "architecture" in config else config["model_type"]
    if kind == "vit":
        return config, {hub_name(name): array for name, array in tensors.items()}
    wrong = [f"{what}: {name}" for name, what in _foreign(tensors)]
    tensors = {name.removeprefix("timm_model."): array for name, array in tensors.items()}
    fields = _timm(config, tensors, wrong) if kind == "timm" else _fields(config, wrong)
    if wrong:
        raise FileError(
            path,
            "\n    ".join(["describes a network that minivit has not:", *shortened(wrong)]),
            rule="a Vision Transformer with a class token, learned positions and norms before attention and MLP; "
            "LayerScale is folded into the matrices.",
            hint="take another of its kind, as facebook/dinov2-small or timm/vit_tiny_patch16_224.augreg_in21k.",
        )
    return fields, _renamed(tensors)


def _parts(name):
    """("vit." or another, number, part of the layer, weight or bias) of a layer's tensor, or number None."""
    bodies, layers = ("|".join(map(re.escape, names)) for names in (BODIES, LAYERS))
    match = re.fullmatch(rf"({bodies})?(?:{layers})([0-9]+)\.(.+)\.(\w+)", name)
    return match.groups(default="") if match else (name, None, None, None)


def _renamed(tensors):
    """The tensors by the hub's names: cut, scaled and shaped as there."""
    body = "vit." if any("." in name and f"{name.partition('.')[0]}." in BODIES for name in tensors) else ""
    renamed, scales = {}, {}
    for name, array in tensors.items():
        _, index, part, kind = _parts(name)
        layer = f"{body}encoder.layer.{index}"
        if index is None:
            bare = re.sub("^(?:" + "|".join(map(re.escape, BODIES)) + ")", "", name)
            bare = OTHERS.get(bare, bare)
            renamed[bare if bare.startswith(("classifier.", "decoder.")) else body + bare] = array
        elif f"{part}.{kind}" in LAYER_SCALES:
            scales[f"{layer}.{LAYER_SCALES[f'{part}.{kind}']}"] = array
        else:
            news = LAYER_PARTS.get(part, (part,))
            pieces = np.split(array, len(news)) if len(array) % len(news) == 0 else [array] * len(news)
            renamed |= {f"{layer}.{new}.{kind}": piece for new, piece in zip(news, pieces, strict=True)}
    for name, scale in scales.items():
        for kind in ("weight", "bias"):
            array = renamed.get(f"{name}.{kind}")
            if array is not None and array.shape[:1] == scale.shape:
                renamed[f"{name}.{kind}"] = array * scale.reshape(-1, *[1] * (array.ndim - 1))
    for name, array in renamed.items():
        if name.endswith("embeddings.mask_token"):
            renamed[name] = array.reshape(1, 1, -1)
    return renamed


def _foreign(tensors):
    """(name, of what) for the first tensor of each kind that another network has."""
    kinds = ((next((name for name in tensors if re.search(key, name)), None), key) for key in OTHER_NETWORKS)
    return [(name, OTHER_NETWORKS[key]) for name, key in kinds if name]


def _fields(config, wrong):
    """The fields of a ViT from those of transformers' DINOv2 or DeiT."""
    kind = config["model_type"]
    from ..config import ViTConfig  # config.py knows this room

    known = {*inspect.signature(ViTConfig).parameters, "problem_type", "torch_dtype", "dtype", "transformers_version"}
    fields = DEFAULTS[kind] | {key: value for key, value in config.items() if key in known} | {"model_type": "vit"}
    if kind == "dinov2":
        ratio, hidden = config.get("mlp_ratio", 4), config.get("hidden_size", 768)
        if all(isinstance(number, (int, float)) and 0 < number < 2**20 for number in (ratio, hidden)):
            fields["intermediate_size"] = int(hidden * ratio)
        else:
            wrong.append(f"hidden_size {hidden!a} and mlp_ratio {ratio!a}")
        wrong += [f"{key}: {config[key]!a}" for key in ("use_swiglu_ffn", "num_register_tokens") if config.get(key)]
    return fields


def _timm(config, tensors, wrong):
    """The fields of a ViT from timm's config.json, which says little, and from the shapes of the tensors."""
    shapes = {name: array.shape for name, array in tensors.items()}
    described = {key: config.get(key) or {} for key in ("model_args", "pretrained_cfg")}
    wrong += [f"{key} is {x!a}" for key, x in described.items() if not isinstance(x, dict)]
    arguments, pretrained = (x if isinstance(x, dict) else {} for x in described.values())
    size = re.fullmatch(TIMM_NETWORKS, str(config["architecture"]))
    if not size:
        wrong.append(f"architecture: {config['architecture']!a}")
    if config.get("global_pool", "token") not in ("token", ""):
        wrong.append(f"global_pool: {config['global_pool']!a}, where minivit takes the class token")
    wrong += [f"model_args: {key}={value!a}" for key, value in arguments.items() if key not in TIMM_ARGUMENTS]
    layers = {int(index) for _, index, _, _ in map(_parts, tensors) if index is not None}
    patches, positions = shapes.get("patch_embed.proj.weight", ()), shapes.get("pos_embed", ())
    mlp = shapes.get("blocks.0.mlp.fc1.weight", ()), shapes.get("blocks.0.mlp.fc2.weight", ())
    need = {"cls_token": 3, "pos_embed": 3, "patch_embed.proj.weight": 4, "blocks.0.mlp.fc1.weight": 2}
    missing = [name for name, rank in need.items() if len(shapes.get(name, ())) != rank or 0 in shapes[name]]
    if missing:
        wrong.append(f"no {', '.join(missing)}")
    elif mlp[1] != mlp[0][::-1]:
        wrong.append("a gated MLP (SwiGLU): mlp.fc2 takes half of what mlp.fc1 gives")
    if wrong:
        return {}
    _, channels, *patch = patches
    pixels = arguments.get("img_size") or pretrained.get("input_size") or []
    sides = list(pixels)[-2:] if isinstance(pixels, list) else [pixels, pixels]
    try:
        count = math.prod(side // p for side, p in zip(sides, patch, strict=True))
    except (TypeError, ValueError):
        count = None
    if positions[1] not in (count, None if count is None else count + 1):
        wrong.append(f"{positions[1]} positions, and an image of {pixels!a} in patches of {patch}")
        return {}
    if positions[1] == count:  # positions of the patches only: that of the class token is 0
        tensors["pos_embed"] = np.concatenate([np.zeros_like(tensors["pos_embed"][:, :1]), tensors["pos_embed"]], 1)
    fields = {
        "model_type": "vit",
        "hidden_size": positions[2],
        "num_hidden_layers": len(layers),
        "num_attention_heads": arguments.get("num_heads", TIMM_HEADS[size[1]]),
        "intermediate_size": mlp[0][0],
        "image_size": sides,
        "patch_size": patch,
        "num_channels": channels,
        "layer_norm_eps": 1e-6,
        "qkv_bias": "blocks.0.attn.qkv.bias" in shapes,
    }
    K, names = shapes.get("head.weight", (0,))[0], config.get("label_names") or pretrained.get("label_names")
    if isinstance(names, list) and len(names) == K:
        fields["id2label"] = dict(enumerate(names))
    elif K:
        fields["num_labels"] = K
    return fields
