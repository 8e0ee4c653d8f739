"""Photos: a file becomes pixel_values, pixel_values become a picture, and pictures are cut into patches.

C channels, H W pixels, P patch side (ph, pw where the two differ), N patches, row by row from the top left.
Pictures are uint8 (H, W, C) as Pillow has them; pixel_values are float32 (C, H, W) as the model wants them.
"""

import contextlib
import numbers
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import FileError, ShapeError
from .machinery.files import travelling

RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def photo(name="cat.jpg"):
    """Path of a file that travels with the package: cat.jpg, coffee.jpg, pagoda.jpg or digits.npz.

    FileError for any other name. Credits and licences are in README.md beside the files.
    """
    folder = travelling("images")
    names = sorted(path.name for path in folder.glob("*") if path.suffix in (".jpg", ".npz"))
    if name not in names:
        raise FileError("photo", f"there is no {str(name)!r} in the package.", hint=f"choose from {', '.join(names)}.")
    return folder / name


def open_image(path):
    """Open a picture file as an upright 8-bit RGB image (PIL.Image.Image), the first frame of an animation.

    Grey, 1-bit, palette, CMYK and 16-bit files are turned to RGB; 16-bit grey is scaled, 65535 to 255; float grey is
    scaled from 0..1 or taken as 0..255. The turn that a camera notes in EXIF is applied. Alpha is dropped, not blended
    with a background, as `Image.convert("RGB")` and so transformers' `load_image` do.
    FileError for what is missing, unreadable, damaged, too large (a decompression bomb) or not a picture.
    """
    path = Path(path)
    with explained(path):
        if path.exists() and not path.is_file() and not path.is_dir():  # opening a pipe would wait for its writer
            raise OSError("this is not a regular file.")
        if path.is_dir():  # asked first: Windows reports the opening of a folder as a lack of permission
            raise IsADirectoryError
        with Image.open(path) as image:
            return _upright_rgb(image)


def pixel_values(
    image,
    size=224,
    mean=0.5,
    std=0.5,
    *,
    resample="bilinear",
    shortest_edge=None,
    crop=None,
    do_resize=True,
    rescale_factor=1 / 255,
):
    """Turn a picture into the model's input: resize, crop, 1/255, (x - mean) / std.

    image: a path, a PIL image (both give RGB, C = 3) or a uint8 array (H, W), (H, W, 1) (C = 1) or (H, W, 3) (C = 3).
    size: one side, or (height, width), in pixels; do_resize=False keeps the picture's. resample: "bilinear" or
    "bicubic". shortest_edge: pixels of the shorter side, in place of size: the picture keeps its shape. crop: one side,
    or (height, width), of the middle that is kept; black is added to a smaller picture. mean, std: of values 0..1 (of
    those that rescale_factor makes), a number or one per channel.
    Returns (C, H, W) float32, in -1..1 for the default mean and std. A picture of that size already is not changed.
    FileError as open_image; ShapeError for a wrong size, dtype, rank or number of channels, and for an empty image.
    To the last bit what transformers' ViTImageProcessor, BitImageProcessor and DeiTImageProcessor do with Pillow; their
    torchvision variants, which transformers 5 takes where torchvision is installed, are up to a grey level off.
    """
    size = as_size("pixel_values", "size", size) if do_resize and shortest_edge is None else None
    shortest_edge = shortest_edge if do_resize else None
    picture = resized("pixel_values", as_picture("pixel_values", image), size, resample, shortest_edge, crop)
    pixels = np.asarray(picture).reshape(picture.height, picture.width, -1)  # (H, W, C)
    pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))  # (C, H, W)
    mean, std = _mean_and_std("pixel_values", mean, std, len(pixels))
    # Rounded to float32 once before and once after the mean: transformers' order, equal to the last bit.
    return (shares(rescale_factor)[pixels] - mean) / std


def shares(rescale_factor=1 / 255):
    """(256,) float32: what pixel_values makes of each byte before the mean."""
    return (np.arange(256) * rescale_factor).astype(np.float32)


def resized(where, picture, size, resample="bilinear", shortest_edge=None, crop=None):
    """An 8-bit PIL image, resized and cropped as pixel_values has it; size None keeps its own."""
    if resample not in RESAMPLE:
        raise ShapeError(where, f"resample={resample!r}.", rule=f"one of {', '.join(RESAMPLE)}")
    width, height = picture.size
    if shortest_edge is not None:
        edge, _ = as_size(where, "shortest_edge", shortest_edge)
        longest = int(edge * max(width, height) / min(width, height))
        size = (edge, longest) if height < width else (longest, edge)
        if edge * longest > Image.MAX_IMAGE_PIXELS:
            raise ShapeError(
                where,
                f"a picture of {height}x{width} has {edge}x{longest} pixels with shortest_edge={edge}.",
                rule=f"H * W <= {Image.MAX_IMAGE_PIXELS} pixels",
                hint="cut the picture first.",
            )
    if size is not None:
        height, width = as_size(where, "size", size)
        picture = picture.resize((width, height), RESAMPLE[resample])
    if crop is not None:
        rows, columns = as_size(where, "crop", crop)
        top, left = (height - rows) // 2, (width - columns) // 2
        picture = picture.crop((left, top, left + columns, top + rows))
    return picture


def to_image(pixel_values, mean=0.5, std=0.5):
    """Turn pixel_values back into a picture: the inverse of pixel_values (but for the resize), clipped to 0..255.

    pixel_values: floats (C, H, W), C = 1 (gives a grey PIL image) or 3 (RGB). mean, std: as they went in.
    ShapeError for another rank, dtype or number of channels, for NaN or infinity, and for an empty array.
    """
    pixels = np.asarray(pixel_values)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or pixels.size == 0:
        hints = {2: "add the channel axis: pixel_values[None].", 4: "take one picture of the batch: pixel_values[0]."}
        raise ShapeError(
            "to_image",
            f"pixel_values has the shape {pixels.shape}.",
            rule="(C, H, W) with C = 1 or 3, not empty",
            hint=hints.get(pixels.ndim),
        )
    if pixels.dtype.kind != "f":
        raise ShapeError(
            "to_image",
            f"pixel_values has the dtype {pixels.dtype}.",
            rule="floats",
            hint="PIL.Image.fromarray shows a uint8 (H, W, C) picture as it is.",
        )
    wrong = int(np.count_nonzero(~np.isfinite(pixels)))
    if wrong:
        raise ShapeError(
            "to_image",
            f"{wrong} of {pixels.size} pixel values are NaN or infinite.",
            rule="every value is a finite number",
        )
    mean, std = _mean_and_std("to_image", mean, std, len(pixels))
    pixels = np.rint((pixels * std + mean) * 255).clip(0, 255).astype(np.uint8)
    pixels = pixels.transpose(1, 2, 0)  # (H, W, C)
    return Image.fromarray(pixels if len(mean) == 3 else pixels[..., 0])


def crop_patches(image, patch_size):
    """Cut a picture with Image.crop, one box at a time: what a patch is, without a convolution.

    image: as for pixel_values. patch_size: P or (ph, pw). Returns (N, P, P, C) uint8.
    ShapeError for a patch that does not divide the picture.
    """
    picture = as_picture("crop_patches", image)
    ph, pw = as_size("crop_patches", "patch_size", patch_size)
    width, height = picture.size
    _check_divides("crop_patches", (height, width), (ph, pw))
    boxes = [(x, y, x + pw, y + ph) for y in range(0, height, ph) for x in range(0, width, pw)]
    patches = np.stack([np.asarray(picture.crop(box)) for box in boxes])  # (N, P, P, 3), or (N, P, P) of a grey one
    return patches.reshape(len(boxes), ph, pw, -1)  # (N, P, P, C)


def patchify(pixels, patch_size):
    """Cut an array as crop_patches cuts a picture, all patches at once: one reshape and one transpose.

    pixels: (C, H, W) of any dtype. patch_size: P or (ph, pw). Returns (N, C, P, P).
    ShapeError for another rank, an empty array, or a patch that does not divide H x W.
    """
    pixels = _ranked("patchify", "pixels", pixels, "(C, H, W)")
    ph, pw = as_size("patchify", "patch_size", patch_size)
    channels, height, width = pixels.shape
    _check_divides("patchify", (height, width), (ph, pw))
    grid = pixels.reshape(channels, height // ph, ph, width // pw, pw)  # (C, H/P, P, W/P, P)
    return grid.transpose(1, 3, 0, 2, 4).reshape(-1, channels, ph, pw)  # (N, C, P, P)


def unpatchify(patches, height, width):
    """Put the patches of a height x width picture together again: the inverse of patchify.

    patches: (N, C, P, P). Returns (C, H, W). ShapeError for another rank or when N patches do not fill the picture.
    """
    patches = _ranked("unpatchify", "patches", patches, "(N, C, P, P)")
    height, width = as_size("unpatchify", "(height, width)", (height, width))
    count, channels, ph, pw = patches.shape
    _check_divides("unpatchify", (height, width), (ph, pw))
    rows, columns = height // ph, width // pw
    if count != rows * columns:
        raise ShapeError(
            "unpatchify",
            f"{count} patches of {ph}x{pw} do not fill a picture of {height}x{width}.",
            rule=f"N == (H / ph) * (W / pw), but {count} != {rows} * {columns} = {rows * columns}",
        )
    grid = patches.reshape(rows, columns, channels, ph, pw)  # (H/P, W/P, C, P, P)
    return grid.transpose(2, 0, 3, 1, 4).reshape(channels, height, width)  # (C, H, W)


@contextlib.contextmanager
def explained(where):
    """Inside, whatever Pillow raises becomes one FileError, and what it warns of is silent (but for the bomb)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as fault:
            hint = f"check the spelling; the folder looked in is {Path(where).absolute().parent}."
            raise FileError(where, "there is no such file.", hint=hint) from fault
        except IsADirectoryError as fault:
            raise FileError(where, "this is a folder, not a picture.", hint="name one file in it.") from fault
        except PermissionError as fault:
            raise FileError(where, "this user may not read the file.", hint="change its permissions.") from fault
        except UnidentifiedImageError as fault:
            empty = Path(where).is_file() and Path(where).stat().st_size == 0
            raise FileError(
                where,
                "the file is empty (0 bytes)." if empty else "this is not a picture that Pillow can read.",
                hint="give a JPEG, PNG, WebP, TIFF, GIF or BMP file (a phone's HEIC: save it as JPEG first).",
            ) from fault
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as fault:
            count = str(fault).partition(" exceeds")[0]
            raise FileError(
                where,
                f"the picture is too large, perhaps a decompression bomb: {count}.",
                rule=f"H * W <= {Image.MAX_IMAGE_PIXELS} pixels (Pillow's Image.MAX_IMAGE_PIXELS)",
                hint="if the file can be trusted, make a smaller copy of it first.",
            ) from fault
        except Exception as fault:  # each of Pillow's decoders has its own types for damaged data
            reason = str(fault) or type(fault).__name__
            raise FileError(
                where,
                f"it cannot be read as a picture: {reason}",
                hint="get the file again, or save it anew as PNG or JPEG.",
            ) from fault


def _upright_rgb(image):
    """An 8-bit RGB copy of a PIL image of any mode, turned as its EXIF says; ValueError if that cannot be."""
    image.load()
    with contextlib.suppress(SyntaxError):  # raised for damaged EXIF; the pixels are loaded by now, and good
        image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        grey = np.asarray(image)  # (H, W); convert() would clip it at 255, and a 16-bit scan come out white
        low, high = grey.min(), grey.max()
        white = 65535
        if image.mode == "F":
            white = 255 if high > 1 else 1
        if not (low >= 0 and high <= white):
            raise ValueError(f"grey values from {low} to {high}, outside 0 (black) to {white} (white).")
        image = Image.fromarray(np.rint(grey * (255 / white)).astype(np.uint8))
    return image.convert("RGB")


def as_picture(where, image):
    """A path, PIL image or uint8 array as an 8-bit PIL image, RGB or (of a one-channel array) grey."""
    if isinstance(image, str | os.PathLike):
        return open_image(image)
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise ShapeError(where, f"the image is empty: {image.height}x{image.width}.", rule="at least one pixel")
        with explained(where):
            return _upright_rgb(image)
    rule = "a path, a PIL image, or a uint8 array (H, W), (H, W, 1) or (H, W, 3)"
    if not hasattr(image, "__array__"):
        raise ShapeError(where, f"image is a {type(image).__name__}.", rule=rule)
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        hint = "bring the values to 0..255 and use .astype(np.uint8)."
        if pixels.dtype.kind == "f":
            hint = "values 0..1: np.rint(image * 255).astype(np.uint8). Normalised values go straight to the model."
        raise ShapeError(where, f"image is an array of {pixels.dtype}.", rule=rule, hint=hint)
    shape, hint = pixels.shape, None
    if pixels.ndim == 4:
        hint = "one picture at a time: image[0]."
    elif pixels.ndim == 3 and shape[2] == 4:
        hint = "drop the alpha channel: image[..., :3]."
    elif pixels.ndim == 3 and shape[0] in (1, 3):
        hint = "put the channels last: image.transpose(1, 2, 0)."
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and shape[2] not in (1, 3)) or pixels.size == 0:
        raise ShapeError(where, f"image is an array of the shape {shape}.", rule=f"{rule}, not empty", hint=hint)
    return Image.fromarray(pixels[..., 0] if shape[2:] == (1,) else pixels)


def as_size(where, name, value):
    """An int or a pair of ints as (height, width), both above 0."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2 or not all(isinstance(side, numbers.Integral) and side > 0 for side in pair):
        raise ShapeError(
            where, f"{name}={value!r} is no size.", rule="a whole number of pixels above 0, or two: (height, width)"
        )
    return pair


def _mean_and_std(where, mean, std, channels):
    """mean and std, each a number or one per channel, as (C, 1, 1) float32."""
    pair = [np.asarray(value, dtype=np.float32) for value in (mean, std)]
    fit = all(value.shape in ((), (1,), (channels,)) and np.isfinite(value).all() for value in pair)
    if not (fit and (pair[1] > 0).all()):
        raise ShapeError(
            where,
            f"mean={mean}, std={std}, for {channels} channel(s).",
            rule="each is a finite number or one per channel, and std > 0",
        )
    return [np.broadcast_to(value, channels).reshape(channels, 1, 1) for value in pair]  # (C, 1, 1)


def _ranked(where, name, array, axes):
    """The array, refused when it is empty or has not one axis for each letter in axes."""
    array = np.asarray(array)
    if array.ndim != axes.count(",") + 1 or array.size == 0:
        raise ShapeError(where, f"{name} has the shape {array.shape}.", rule=f"{axes}, not empty")
    return array


def _check_divides(where, sides, patch):
    """Refuse a patch (ph, pw) that leaves a rest of a picture's sides (H, W); the hint has the nearest sizes."""
    wrong = [(axis, side, p) for axis, side, p in zip("HW", sides, patch, strict=True) if side % p]
    if wrong:
        fits = [f"{axis} = " + " or ".join(str(n) for n in (s // p * p, s // p * p + p) if n) for axis, s, p in wrong]
        raise ShapeError(
            where,
            "a picture of {}x{} cannot be cut into patches of {}x{}.".format(*sides, *patch),
            rule=", and ".join(f"{axis} % p == 0, but {s} % {p} = {s % p}" for axis, s, p in wrong),
            hint=f"resize or crop the picture to {' and '.join(fits)}, or use a patch that divides it.",
        )
