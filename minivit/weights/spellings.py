"""The names of weights: how others spell what minivit calls as the Hugging Face hub does."""

import re

_HUB_PARTS = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def hub_name(name):
    """The hub's spelling of a tensor's name; a name that has it already, or that is not a layer's, stays as it is.

    transformers 5 calls vit.encoder.layer.0.attention.attention.query.weight in memory
    vit.layers.0.attention.q_proj.weight; a bare ViTModel has both without "vit.".
    """
    match = re.fullmatch(r"(vit\.)?layers\.([0-9]+)\.(.+)\.(weight|bias)", name)
    if not match:
        return name
    prefix, index, part, kind = match.groups(default="")
    return f"{prefix}encoder.layer.{index}.{_HUB_PARTS.get(part, part)}.{kind}"
