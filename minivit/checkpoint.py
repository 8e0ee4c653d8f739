"""Weights that travel: the folder that Hugging Face writes, both ways, and the state of a training.

This room knows names and what belongs together. Which names and shapes a model wants is the model's business
(vit.py), how a file looks inside files.py's, and the hub is hub.py's.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np

from .errors import FileError, MinivitError
from .files import check_weights, json_text, read_json, read_npz, read_safetensors, replacing, safetensors_package
from .hub import check_folder

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
STATE = "training.npz"
META = "meta.json"

# what every picture goes through; resample 2 is Pillow's bilinear
_PROCESSING = {"do_resize": True, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255}
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


def read_folder(folder):
    """Read a Hugging Face folder, or one of a training. Returns (config, tensors): the dict of config.json and
    {hub name: array}, from model.safetensors, else its shards, else training.npz (see state_weights).

    The arrays are writable and their own; float16 and bfloat16 come as float32, float64 stays. Peak memory is the
    size of the weights. Raises FileError that names the file: missing, damaged, not a ViT, not float, NaN or inf.
    """
    folder = Path(folder)
    check_folder(folder)
    config = read_json(folder / CONFIG)
    if config.get("model_type") != "vit":
        raise FileError(
            folder / CONFIG,
            f"model_type is {config.get('model_type')!a}.",
            rule='minivit reads the model_type "vit" only; DeiT, BEiT, Swin and others have other layers.',
        )
    tensors = {}
    for path, read in _weight_files(folder):
        for name, array in read(path).items():
            if hub_name(name) in tensors:
                raise FileError(path, f"holds {hub_name(name)} a second time, spelled {name}.")
            tensors[hub_name(name)] = array
    return config, tensors


def _weight_files(folder):
    """The one file, or the shards that model.safetensors.index.json names, each with its reader."""
    if (folder / WEIGHTS).exists():
        return [(folder / WEIGHTS, read_safetensors)]
    if (folder / INDEX).exists():
        files = read_json(folder / INDEX).get("weight_map")
        files = list(files.values()) if isinstance(files, dict) else []
        # a shard lies in the folder itself: an index from elsewhere must not reach other files
        if not files or not all(isinstance(file, str) and Path(file).name == file for file in files):
            raise FileError(folder / INDEX, 'has no "weight_map" that gives each tensor a file of this folder.')
        return [(folder / file, read_safetensors) for file in sorted(set(files))]
    if (folder / STATE).exists():
        return [(folder / STATE, _read_state_weights)]
    raise FileError(
        folder,
        f"has no {WEIGHTS}.",
        rule=f"weights come as {WEIGHTS}, which holds numbers only. pytorch_model.bin is refused: it is a pickle, and "
        "loading a pickle runs whatever code its author put in.",
        hint="if you trust the author, convert it where transformers is installed: "
        "ViTForImageClassification.from_pretrained(folder).save_pretrained(new_folder)",
    )


def _read_state_weights(path):
    tensors = read_npz(path, state_weights)
    check_weights(path, tensors)
    return tensors


def write_folder(folder, config, tensors, preprocessor=None):
    """Write config.json and model.safetensors, so that transformers can load them; folder is made if need be.

    config: a dict that JSON can hold.  tensors: {hub name: array}, each written with its own dtype.
    preprocessor: written as preprocessor_config.json, see preprocessor(); None leaves one that is there.
    Killed or out of disk at any moment, each file is whole, the old or the new (see replacing). Raises FileError.
    """
    package = safetensors_package()
    folder = Path(folder)
    texts = {PREPROCESSOR: preprocessor, CONFIG: config}
    texts = {name: json_text(folder / name, value) for name, value in texts.items() if value is not None}
    # save_file writes an array's memory as it lies, so that a transposed view would come back scrambled
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    # the weights last: letting go of a large old file takes time, in which the files would not belong together
    with replacing(*(folder / name for name in [*texts, WEIGHTS])) as (*paths, weights_path):
        for path, text in zip(paths, texts.values(), strict=True):
            path.write_text(text, encoding="utf-8", newline="\n")
        try:
            package.numpy.save_file(tensors, weights_path, metadata={"format": "pt"})
        except package.SafetensorError as error:
            raise OSError(str(error)) from error
        shutil.copymode(paths[-1], weights_path)  # save_file lets nobody but the owner read


def preprocessor(image_size, mean, std, num_channels):
    """How a picture becomes pixel_values: as transformers' ViTImageProcessor writes it and images.pixel_values does it.

    image_size: one side or (height, width), in pixels.  mean, std: of values 0..1, a number or one per channel.
    """
    height, width = np.broadcast_to(image_size, 2).tolist()
    mean, std = (np.broadcast_to(value, num_channels).tolist() for value in (mean, std))
    return _PROCESSING | {
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": height, "width": width},
    }


def read_preprocessor(folder):
    """The preprocessor_config.json of a folder, in the form that preprocessor() gives; None if there is none.

    Old forms are understood, and what is not given has ViTImageProcessor's default. FileError lists all that
    images.pixel_values cannot do.
    """
    path = Path(folder) / PREPROCESSOR
    if not path.exists():
        return None
    found = {key: value for key, value in read_json(path).items() if value is not None}
    must = _PROCESSING | {"do_center_crop": False, "do_pad": False}
    wrong = [key for key, value in must.items() if found.get(key, value) != value]
    size = found.get("size", 224)  # one number in old files
    sides = [size.get("height"), size.get("width")] if isinstance(size, dict) else [size, size]
    if not all(isinstance(side, int) and 0 < side < 2**20 for side in sides):
        wrong.append("size")
    mean, std = (found.get(key, 0.5) for key in ("image_mean", "image_std"))
    mean, std = (value if isinstance(value, list) else [value] * 3 for value in (mean, std))
    numbers = all(isinstance(value, (int, float)) and abs(value) < 1e6 for value in mean + std)
    if not (numbers and min(std, default=0) > 0 and len(mean) == len(std)):
        wrong += [key for key in ("image_mean", "image_std") if key in found]
    if wrong:
        raise FileError(
            path,
            "\n    ".join(["asks for what minivit does not do:", *(f"{key}: {found[key]!a}" for key in wrong)]),
            rule="a picture is resized to size {height, width} with resample 2 (bilinear), times 1/255, minus "
            "image_mean, over image_std (above 0); nothing is cropped or padded.",
            hint="where a small difference does not matter, change these entries of the file.",
        )
    channels = len(mean)
    if not found.get("do_normalize", True):
        mean, std = 0.0, 1.0
    return preprocessor(sides, mean, std, channels)


def write_state(path, arrays, meta):
    """Write a training state: named arrays and a dict that JSON can hold, as NumPy's own .npz. Raises FileError.

    Killed or out of disk at any moment, the file is whole, the old or the new (see replacing).
    """
    path = Path(path)
    text = json_text(path, meta)
    with replacing(path) as (temporary,), temporary.open("wb") as file:
        np.savez(file, **arrays, **{META: text})


def read_state(path):
    """Read a training state. Returns (arrays, meta); FileError: missing, damaged, not a state, or NaN in weights."""
    path = Path(path)
    arrays = read_npz(path)
    try:
        meta = json.loads(str(arrays.pop(META)))
    except (KeyError, ValueError) as error:
        raise FileError(path, f"is not a training state: its {META} is missing or damaged.") from error
    check_weights(path, {k: x for k, x in arrays.items() if k.startswith(("model/", "average/average."))})
    return arrays, meta


def state_weights(arrays):
    """{hub name: array} of a training state: its averaged weights where it has them, or else the model's own.

    optim.ExponentialMovingAverage numbers its arrays in the order of the model's.
    """
    own = [name for name in arrays if name.startswith("model/")]
    average = [f"average/average.{number}" for number in range(len(own))]
    averaged = {name for name in arrays if name.startswith("average/average.")}
    if not own or averaged not in (set(), set(average)):
        raise MinivitError(
            "state_weights",
            f"there are {len(own)} weights of a model and {len(averaged)} averages.",
            rule="a training state has one weight or more, and of all of them an average or of none.",
        )
    chosen = average if averaged else own
    return {name.removeprefix("model/"): arrays[key] for name, key in zip(own, chosen, strict=True)}
