"""The trained weights in the box: folders like those of the hub, with 8 bits a number, in weights/trained/."""

import hashlib
import io
from pathlib import Path

import numpy as np

from ..errors import FileError

FOLDERS = Path(__file__).parent / "trained"
PACKED = "weights.npz"
CHECKSUMS = {  # SHA-256 of the packed weights, by name
    "dinov2-small": "61d44aeaf064940c837fe18b70d6c622332b69a4bc19dbb1da3b99987e88ea14",
    "digits": "2216895f06dbe2538a5c2fe2dd16f8736c21af9dc9724256f74e24568fa79489",
}


def dinov2_small():
    """The trained eye: DINOv2's ViT-S/14, a ViTModel in float32 and evaluation mode, without a pooler.

    22 million numbers that learned from photographs without labels; hidden size 384, 12 layers, 6 heads, patches of 14
    pixels. It takes photos of any sides that 14 divides, with interpolate_pos_encoding=True, as images.pixel_values
    makes them with mean and std of preprocessor_config.json. FileError where its file is missing or changed.
    Source: Oquab et al. 2023, "DINOv2"; credit, licences and changes in weights/trained/dinov2-small/README.md.
    """
    from ..vit import ViTModel  # models know weights/, so that here it is asked for only when it is called

    return ViTModel.from_pretrained("dinov2-small", add_pooling_layer=False)


def box_folder(name):
    """The folder of a model in the box, by its name."""
    return FOLDERS / name


def read_packed(path):
    """{hub name: float32 array} of a file in the box. Raises FileError if it is not, to the bit, what was put there.

    Arrays with a NAME.scale are int8 there, and it is a float16 for each row; all else is float16.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _broken(path, f"cannot be read: {error}") from error
    if hashlib.sha256(data).hexdigest() != CHECKSUMS[path.parent.name]:
        raise _broken(path, f"is not the file that minivit came with ({len(data)} bytes, another SHA-256).")
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: array.astype(np.float32) for name, array in archive.items()}
    for name in [name for name in arrays if name.endswith(".scale")]:
        whole, scale = arrays[name.removesuffix(".scale")], arrays.pop(name)
        lead = (1,) * (whole.ndim > 2 and len(whole) == 1)  # positions are (1, T, D): a row for each
        whole *= scale.reshape(*lead, -1, *[1] * (whole.ndim - 1 - len(lead)))
    return arrays


def _broken(path, what):
    return FileError(path, what, hint="install minivit anew: pip install --force-reinstall --no-deps minivit.")
