"""preprocessor_config.json: how a picture becomes pixel_values, as transformers and timm write it down."""

import math
from pathlib import Path

import numpy as np

from ..errors import FileError, MinivitError
from ..machinery.files import read_json

PREPROCESSOR = "preprocessor_config.json"
RESAMPLE = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
MOST_PIXELS = 2**12  # a side: as of --image-size, and a picture of 0.2 GB

# what every picture goes through unless a file says otherwise
_PROCESSING = {"do_resize": True, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255}
_COMMON = _PROCESSING | {"do_normalize": True, "do_center_crop": False, "crop_size": None, "default_to_square": True}
# transformers' processors differ only in what they do where the file is silent
_DEFAULTS = {
    "ViTImageProcessor": _COMMON | {"size": 224, "image_mean": 0.5, "image_std": 0.5},
    "DeiTImageProcessor": _COMMON
    | {"resample": 3, "size": 256, "do_center_crop": True, "crop_size": 224, "image_mean": 0.5, "image_std": 0.5},
    "BitImageProcessor": _COMMON
    | {"resample": 3, "size": 224, "default_to_square": False, "do_center_crop": True, "crop_size": 224}
    | {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]},
}
# keys that change no number here: RGB is what open_image gives, and only what do_pad pads has a pad_size
_WITHOUT_EFFECT = (
    "image_processor_type feature_extractor_type processor_class auto_map _auto_class _valid_processor_keys "
    "return_tensors input_data_format device disable_grouping image_seq_length do_convert_rgb pad_size "
    "transformers_version"
).split()


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

    With resample, rescale_factor, crop_size and size {"shortest_edge"} of its own, where it has them, and do_resize
    False where a picture keeps its size. Old forms are understood, and what is not given is as in transformers'
    ViTImageProcessor, BitImageProcessor or DeiTImageProcessor. A timm folder has it in its config.json.
    FileError lists all that images.pixel_values cannot do.
    """
    path = Path(folder) / PREPROCESSOR
    if path.exists():
        found = read_json(path)
    else:
        path = Path(folder) / "config.json"
        found = _timm(path) if path.exists() else None
    if found is None:
        return None
    name = str(found.get("image_processor_type") or found.get("feature_extractor_type") or "ViT")
    stem = name.removesuffix("FeatureExtractor").removesuffix("Fast").removesuffix("Pil").removesuffix("ImageProcessor")
    name = f"{stem}ImageProcessor"
    given = _DEFAULTS.get(name, _DEFAULTS["ViTImageProcessor"]) | found
    resize, crop, rescale, normalize = (
        bool(given[f"do_{step}"]) for step in ("resize", "center_crop", "rescale", "normalize")
    )
    square = given["default_to_square"]
    size, mean, std = _size(given["size"], square), given["image_mean"], given["image_std"]
    crop_size = _size(given["crop_size"], True)
    mean, std = (value if isinstance(value, list) else [value] * 3 for value in (mean, std))
    wrong = set() if name in _DEFAULTS else {"image_processor_type", "feature_extractor_type"} & found.keys()
    wrong |= {key for key in found if key not in given.keys() & {*_COMMON, "size", "image_mean", "image_std"}}
    wrong -= {key for key in wrong if key in _WITHOUT_EFFECT and name in _DEFAULTS} | {
        key for key in wrong if not found[key]  # None, and what is not done
    }
    wrong -= {"data_format"} if found.get("data_format") == "channels_first" else set()
    wrong |= {key for key in given if key.startswith("do_") and given[key] not in (True, False, None)}
    wrong |= {"default_to_square"} if not isinstance(square, (bool, type(None))) else set()
    if resize:
        wrong |= {"size"} if size is None else set()
        wrong |= {"resample"} if not (_number(given["resample"]) and given["resample"] in RESAMPLE) else set()
    if crop and (crop_size is None or "height" not in crop_size):
        wrong.add("crop_size")
    if rescale and not (_number(given["rescale_factor"]) and given["rescale_factor"] > 0):
        wrong.add("rescale_factor")
    if normalize and not (all(map(_number, mean + std)) and min(std, default=0) > 0 and len(mean) == len(std)):
        wrong |= {"image_mean", "image_std"} & found.keys() or {"image_mean"}
    if wrong:
        lines = (f"{key}: {given.get(key)!a}" for key in sorted(wrong))
        raise FileError(
            path,
            "\n    ".join(["asks for what minivit does not do:", *lines]),
            rule='a picture is resized to size {height, width} or {"shortest_edge"}, up to 4096, with resample 2 '
            "(bilinear) or 3 (bicubic), cropped to crop_size, times rescale_factor, minus image_mean, over image_std "
            "(above 0), and nothing else.",
            hint="where a small difference does not matter, change these entries of the file.",
        )
    channels = len(mean)
    if not normalize:
        mean, std = 0.0, 1.0
    made = preprocessor(1, mean, std, channels) | {"image_processor_type": name}
    made |= {"do_resize": resize, "size": size or {"height": 224, "width": 224}}
    made |= {"resample": given["resample"], "rescale_factor": given["rescale_factor"] if rescale else 1.0}
    if crop:
        return made | {"do_center_crop": True, "crop_size": crop_size}
    # the other two crop where nothing is said
    return made if name == "ViTImageProcessor" else made | {"do_center_crop": False}


def preprocessor_of(folder, config):
    """How a folder says that a picture becomes pixel_values; where it says nothing, -1 to 1 at the model's size."""
    return read_preprocessor(folder) or preprocessor(config.image_size, 0.5, 0.5, config.num_channels)


def picture_options(described, num_channels):
    """The options of images.pixel_values for a preprocessor of read_preprocessor. MinivitError for other channels."""
    pair = described["image_mean"], described["image_std"]
    pair = [values[0] if len(set(values)) == 1 else values for values in pair]  # the same for all channels
    for values in pair:
        if np.ndim(values) and len(values) != num_channels:
            raise MinivitError(
                PREPROCESSOR,
                f"{len(values)} means or deviations, and a model of {num_channels} channels.",
                rule="image_mean and image_std have one number for each channel.",
            )
    size, crop = described["size"], described.get("crop_size")
    return {
        "size": (size["height"], size["width"]) if described["do_resize"] and "height" in size else None,
        "shortest_edge": size.get("shortest_edge") if described["do_resize"] else None,
        "do_resize": described["do_resize"],
        "crop": crop and (crop["height"], crop["width"]),
        "resample": RESAMPLE.get(described["resample"], "bilinear"),
        "rescale_factor": described["rescale_factor"],
        "mean": pair[0],
        "std": pair[1],
    }


def at_size(described, size):
    """The same preprocessor for pictures of another size (height, width); one that crops does so in proportion."""
    height, width = size
    pixels = {"height": height, "width": width}
    crop, before = described.get("crop_size"), described["size"]
    if not crop:
        return described | {"do_resize": True, "size": pixels}
    ratio = max(height / crop["height"], width / crop["width"])
    return described | {"crop_size": pixels, "size": {key: math.ceil(side * ratio) for key, side in before.items()}}


def _number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e6


def _size(size, square):
    """{"height", "width"} or {"shortest_edge"} of a size in any of its forms; None where it is none of them."""
    if isinstance(size, int) and not isinstance(size, bool):  # one number in old files
        size = {"height": size, "width": size} if square else {"shortest_edge": size}
    elif isinstance(size, list) and len(size) == 2:
        size = {"height": size[0], "width": size[1]}
    size = {key: side for key, side in size.items() if side is not None} if isinstance(size, dict) else {}
    sides = [side for side in size.values() if isinstance(side, int) and 0 < side <= MOST_PIXELS]
    return size if len(sides) == len(size) and size.keys() in ({"height", "width"}, {"shortest_edge"}) else None


def _timm(path):
    """What timm's config.json says of pictures, in the words of transformers; None where it says nothing."""
    config = read_json(path)
    found = config.get("pretrained_cfg")
    if "architecture" not in config or not isinstance(found, dict):
        return None
    pixels = found.get("input_size") or [3, 224, 224]
    height, width = pixels[-2:] if isinstance(pixels, list) and len(pixels) > 1 else (None, None)
    share = found.get("crop_pct") or 1.0
    wrong = {} if _number(share) and 0.001 <= share <= 1 else {"crop_pct": share}
    numbers = {"bilinear": 2, "bicubic": 3}
    if found.get("crop_mode", "center") != "center":
        wrong["crop_mode"] = found["crop_mode"]
    return {
        "size": {"shortest_edge": int(height / share)} if _number(height) and "crop_pct" not in wrong else None,
        "crop_size": {"height": height, "width": width},
        "resample": numbers.get(str(found.get("interpolation")), found.get("interpolation")),
        "image_mean": found.get("mean") or 0.5,
        "image_std": found.get("std") or 0.5,
        "image_processor_type": "BitImageProcessor",
    } | wrong
