"""The folder that Hugging Face writes, both ways: config.json beside model.safetensors or its shards.

This room knows folders, names and arrays. Which names and shapes a model wants is the model's business (vit.py).
The safetensors package is an optional extra, so it is imported only where a file is read or written.
"""

import json
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .errors import FileError, MinivitError, shortened

CONFIG = "config.json"
WEIGHTS = "model.safetensors"

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
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
    """Read a Hugging Face folder. Returns (config, tensors): the dict of config.json and {hub name: array}.

    The arrays are writable and their own; float16 and bfloat16 come as float32, float64 stays. Peak memory is the
    size of the weights. Raises FileError that names the file: missing, damaged, not a ViT, not float, NaN or inf.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        what = "this is a file, not a folder." if os.path.exists(folder) else "there is no such folder."
        raise FileError(folder, what, hint=f"give the folder that holds {CONFIG} and {WEIGHTS}.")
    config = _read_json(folder / CONFIG)
    if config.get("model_type") != "vit":
        raise FileError(
            folder / CONFIG,
            f"model_type is {config.get('model_type')!a}.",
            rule='minivit reads the model_type "vit" only; DeiT, BEiT, Swin and others have other layers.',
        )
    tensors = {}
    for path in _weight_files(folder):
        for name, array in _read_tensors(path).items():
            if hub_name(name) in tensors:
                raise FileError(path, f"holds {hub_name(name)} a second time, spelled {name}.")
            tensors[hub_name(name)] = array
    return config, tensors


def write_folder(folder, config, tensors):
    """Write config.json and model.safetensors, so that transformers can load them; folder is made if need be.

    config: a dict that JSON can hold.  tensors: {hub name: array}, each written with its own dtype.
    Killed or out of disk at any moment, each file is whole, the old or the new (see replacing). Raises FileError.
    """
    package = _safetensors()
    folder = Path(folder)
    try:
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    except (TypeError, ValueError) as error:
        raise FileError(folder / CONFIG, f"the config cannot be written as JSON: {error}.") from error
    # save_file writes an array's memory as it lies, so that a transposed view would come back scrambled
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # the weights last: letting go of a large old file takes time, in which the two would not belong together
        with replacing(folder / CONFIG, folder / WEIGHTS) as (config_path, weights_path):
            config_path.write_text(text, encoding="utf-8", newline="\n")
            package.numpy.save_file(tensors, weights_path, metadata={"format": "pt"})
            shutil.copymode(config_path, weights_path)  # save_file lets nobody but the owner read
    except (OSError, package.SafetensorError) as error:
        hint = "choose a folder that you can write to, on a disk with room. What was saved there before is still whole."
        raise FileError(folder, f"cannot be written: {error}", hint=hint) from error


@contextmanager
def replacing(*paths):
    """Gives a temporary name beside each path. After the block the files written there are synced and take the paths'
    names, in the order given; if the block fails they are removed, and what was at the paths before is untouched.
    """
    temporary = [path.with_name(path.name + ".tmp") for path in paths]
    try:
        yield temporary
        for path in temporary:
            with path.open("r+b") as file:
                os.fsync(file.fileno())
        for path, target in zip(temporary, paths, strict=True):
            os.replace(path, target)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)


def _safetensors():
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MinivitError(
            WEIGHTS, "the package safetensors is not installed.", hint='pip install "minivit[hub]"'
        ) from error
    return safetensors


def _read_json(path):
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(path, f"cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise FileError(path, f"holds a {type(value).__name__}, not a JSON object {{...}}.")
    return value


def _weight_files(folder):
    """The one file, or the shards that model.safetensors.index.json names."""
    index = folder / f"{WEIGHTS}.index.json"
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if index.exists():
        files = _read_json(index).get("weight_map")
        files = list(files.values()) if isinstance(files, dict) else []
        # a shard lies in the folder itself: an index from elsewhere must not reach other files
        if not files or not all(isinstance(file, str) and Path(file).name == file for file in files):
            raise FileError(index, 'has no "weight_map" that gives each tensor a file of this folder.')
        return [folder / file for file in sorted(set(files))]
    if (folder / "pytorch_model.bin").exists():
        raise FileError(
            folder / "pytorch_model.bin",
            "refused: it is a pickle, and loading a pickle runs whatever code its author put in.",
            rule=f"weights come as {WEIGHTS}, which holds numbers only.",
            hint="if you trust the author, convert it where transformers is installed: "
            "ViTForImageClassification.from_pretrained(folder).save_pretrained(new_folder)",
        )
    raise FileError(folder, f"has no {WEIGHTS}.", hint="download it from the same page as config.json.")


def _read_tensors(path):
    """{name: array} of one safetensors file. The package checks the header (lengths, shapes and offsets fit the file);
    the bytes go straight into the arrays. Its get_tensor would map the file beside them, twice the memory, and knows
    no bfloat16.
    """
    package = _safetensors()
    tensors, refused = {}, []
    try:
        with path.open("rb") as file, package.safe_open(path, "numpy"):
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            for name, entry in header.items():
                if entry["dtype"] not in _DTYPES:
                    refused.append(f"{name} ({entry['dtype']})")
                    continue
                file.seek(8 + length + entry["data_offsets"][0])
                tensors[name] = _read_tensor(file, entry["shape"], entry["dtype"])
                if not np.isfinite(tensors[name]).all():
                    refused.append(f"{name} (NaN or inf)")
    except (OSError, ValueError, package.SafetensorError) as error:
        hint = "the file is missing, cut off or damaged: copy or download it again (with git, run git lfs pull)."
        raise FileError(path, f"cannot be read: {error}", hint=hint) from error
    if refused:
        raise FileError(
            path,
            "\n    ".join([f"{len(refused)} of {len(header)} tensors cannot be weights:", *shortened(refused)]),
            rule=f"weights are finite numbers of dtype {', '.join(_DTYPES)}.",
        )
    return tensors


def _read_tensor(file, shape, dtype):
    array = np.empty(shape, _DTYPES[dtype])
    file.readinto(array)
    if dtype == "BF16":  # the upper half of a float32
        bits, array = array, np.empty(shape, np.float32)
        np.left_shift(bits, 16, out=array.view(np.uint32), dtype=np.uint32)
    return array.astype(np.float64 if dtype == "F64" else np.float32, copy=False)
