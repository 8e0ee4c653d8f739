"""preprocessor_config.json: how a picture becomes pixel_values, as transformers writes it down."""

from pathlib import Path

import numpy as np

from ..errors import FileError
from ..machinery.files import read_json

PREPROCESSOR = "preprocessor_config.json"

# what every picture goes through; resample 2 is Pillow's bilinear
_PROCESSING = {"do_resize": True, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255}


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
