"""The folder that Hugging Face writes, both ways: config.json, and model.safetensors or its shards.

This room knows files and what belongs together. Which names and shapes a model wants is the model's business (vit.py).
"""

import shutil
from pathlib import Path

import numpy as np

from ..errors import FileError
from ..machinery.files import json_text, read_json, read_safetensors, replacing, safetensors_package, write_json
from ..machinery.lock import locked
from .box import CHECKSUMS, PACKED, box_folder, read_packed
from .hub import check_folder
from .preprocessor import PREPROCESSOR
from .spellings import check_known, hub_name, translate
from .state import STATE, read_state_weights

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
_OWN = {"written_by": "minivit"}  # in every config.json from here, so that no other program's is replaced unasked


def read_folder(folder):
    """Read a Hugging Face folder, or one of a training. Returns (config, tensors): the dict of config.json and
    {hub name: array}, from model.safetensors, else its shards, else training.npz (see state_weights). Of DINOv2, DeiT
    and timm's ViT they are those of the same "vit" (see spellings.py).

    The arrays are writable and their own; float16 and bfloat16 come as float32, float64 stays. Peak memory is the
    size of the weights. Raises FileError that names the file: missing, damaged, not a ViT, not float, NaN or inf.
    """
    folder = Path(folder)
    check_folder(folder)
    config = {key: value for key, value in read_json(folder / CONFIG).items() if key not in _OWN}
    check_known(folder / CONFIG, config)
    tensors, names = {}, set()
    for path, read in _weight_files(folder):
        for name, array in read(path).items():
            if hub_name(name) in names:
                raise FileError(path, f"holds {hub_name(name)} a second time, spelled {name}.")
            names.add(hub_name(name))
            tensors[name] = array
    return translate(folder / CONFIG, config, tensors)


def _weight_files(folder):
    """The one file, or the shards that model.safetensors.index.json names, each with its reader."""
    if folder in map(box_folder, CHECKSUMS):
        return [(folder / PACKED, read_packed)]
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
        return [(folder / STATE, read_state_weights)]
    raise FileError(
        folder,
        f"has no {WEIGHTS}.",
        rule=f"weights come as {WEIGHTS}, which holds numbers only. pytorch_model.bin is refused: it is a pickle, and "
        "loading a pickle runs whatever code its author put in.",
        hint="if you trust the author, convert it where transformers is installed: "
        "ViTForImageClassification.from_pretrained(folder).save_pretrained(new_folder)",
    )


def is_own(folder):
    """Whether the config.json of a folder is there and was written by minivit."""
    try:
        return read_json(Path(folder) / CONFIG).items() >= _OWN.items()
    except FileError:
        return False


def write_config(folder, config):
    """Write the dict of a model's config into a folder that has no weights yet. Raises FileError."""
    write_json(Path(folder) / CONFIG, config | _OWN)


def write_folder(folder, config, tensors, preprocessor=None, force=False):
    """Write config.json and model.safetensors, so that transformers can load them; folder is made if need be.

    config: a dict that JSON can hold.  tensors: {hub name: array}, each written with its own dtype.
    preprocessor: written as preprocessor_config.json, see preprocessor(); None leaves one that is there.
    A config.json that another program wrote is replaced only with the weights that it describes, or by force.
    Killed or out of disk at any moment, each file is whole, the old or the new (see replacing). Raises FileError.
    """
    package = safetensors_package()
    folder = Path(folder)
    if (folder / CONFIG).exists() and not (force or is_own(folder) or (folder / WEIGHTS).exists()):
        raise FileError(
            folder / CONFIG,
            f"was written by another program, and there is no {WEIGHTS} beside it: other weights need it.",
            hint="choose another folder.",
        )
    texts = {PREPROCESSOR: preprocessor, CONFIG: config | _OWN}
    texts = {name: json_text(folder / name, value) for name, value in texts.items() if value is not None}
    # save_file writes an array's memory as it lies, so that a transposed view would come back scrambled
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    # the weights last: letting go of a large old file takes time, in which the files would not belong together
    with locked(folder), replacing(*(folder / name for name in [*texts, WEIGHTS])) as (*paths, weights_path):
        for path, text in zip(paths, texts.values(), strict=True):
            path.write_text(text, encoding="utf-8", newline="\n")
        try:
            package.numpy.save_file(tensors, weights_path, metadata={"format": "pt"})
        except package.SafetensorError as error:
            raise OSError(str(error)) from error
        shutil.copymode(paths[-1], weights_path)  # save_file lets nobody but the owner read
