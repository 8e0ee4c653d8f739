"""Photos: a file becomes pixel_values, pixel_values become a picture, and pictures are cut into patches.

C channels, H W pixels, P patch side (ph, pw where the two differ), N patches, row by row from the top left.
Pictures are uint8 (H, W, C) as Pillow has them; pixel_values are float32 (C, H, W) as the model wants them.
"""

import contextlib
import io
import math
import numbers
import os
import re
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from .errors import FileError, ShapeError, shortened
from .machinery.files import travelling

# EPS and PostScript go to Ghostscript, WMF and EMF to Windows, and an IPTC file may hold any of them.
_NEVER = ("EPS", "WMF", "IPTC")
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ONE_INK = 64  # grey levels, of 255, within which a drawing is of one brightness
RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # of its photos, as most networks take them


def photo(name="cat.jpg"):
    """Path of a file that travels with the package: cat.jpg, coffee.jpg, pagoda.jpg or digits.npz.

    FileError for any other name. Credits and licences are in README.md beside the files.
    """
    folder = travelling("images")
    names = sorted(path.name for path in folder.glob("*") if path.suffix in (".jpg", ".npz"))
    if name not in names:
        raise FileError("photo", f"there is no {str(name)!r} in the package.", hint=f"choose from {', '.join(names)}.")
    return folder / name


def formats():
    """Pillow's names of the formats that are opened: all that the installed Pillow, with its plugins, decodes itself.

    JPEG, PNG, WebP, TIFF, GIF, BMP, JPEG 2000, PPM, PGM and PBM, TGA, ICO and about thirty more; AVIF from Pillow 11.3
    on. Never EPS, PostScript, WMF and EMF, whatever the file is called: other programs would be asked to draw them.
    """
    Image.init()
    return [name for name in Image.ID if name not in _NEVER]


def open_image(path):
    """Open a picture file as an upright 8-bit RGB image (PIL.Image.Image), the first frame of an animation.

    path: a file in one of formats(), known by what it holds and not by its name. The turn that a camera notes in EXIF
    is applied; other metadata are not read, so that damage to them costs nothing.
    Grey, 1-bit, palette, CMYK and 16-bit files are turned to RGB. 16-bit grey is scaled, 65535 to 255; 32-bit grey is
    taken as 0..255 where no value is larger, else scaled as 16-bit; float grey is scaled from 0..1 or taken as 0..255.
    A UserWarning says when the brightest of 16 bits is below 16384, as of a camera's 12-bit data.
    Alpha is dropped, not blended with a background, as `Image.convert("RGB")` and so transformers' `load_image` do. But
    a drawing on nothing, whose ink has one brightness (within 64 of 255), would be lost so: it is laid on paper, dark
    ink on white, light ink on black.
    FileError for what is missing, unreadable, damaged, too large (a decompression bomb) or not a picture.
    """
    picture, note = read_image(path)
    if note:
        warnings.warn(note, stacklevel=2)
    return picture


def read_image(path):
    """(picture, note): what open_image gives, and what it would warn of or None."""
    path = Path(path)
    with explained(path):
        if path.exists() and not path.is_file() and not path.is_dir():  # opening a pipe would wait for its writer
            raise OSError("this is not a regular file.")
        if path.is_dir():  # asked first: Windows reports the opening of a folder as a lack of permission
            raise IsADirectoryError
        with open(path, "rb") as file, _opened(file) as image:
            return _upright_rgb(path, image)


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
        _check_pixels(where, (height, width), size, f"shortest_edge={edge}", "cut the picture first.")
    if size is not None:
        _check_pixels(where, (height, width), as_size(where, "size", size), f"size={size}")
        height, width = as_size(where, "size", size)
        picture = picture.resize((width, height), RESAMPLE[resample])
    if crop is not None:
        rows, columns = as_size(where, "crop", crop)
        _check_pixels(where, (height, width), (rows, columns), f"crop={crop}")
        top, left = (height - rows) // 2, (width - columns) // 2
        picture = picture.crop((left, top, left + columns, top + rows))
    return picture


def _check_pixels(where, before, after, option, hint=None):
    """Refuse to make more pixels of a picture than a file may have. before, after: (height, width)."""
    if math.prod(after) > Image.MAX_IMAGE_PIXELS:
        raise ShapeError(
            where,
            "a picture of {}x{} has {}x{} pixels with {}.".format(*before, *after, option),
            rule=f"H * W <= {Image.MAX_IMAGE_PIXELS} pixels",
            hint=hint,
        )


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


def fit_patches(image, patch_size, patches):
    """A picture at the size that about so many patches fill, its ratio kept: bicubic, then cut to whole patches.

    image: as for pixel_values. patch_size: P or (ph, pw), patches: their number, about. Returns a PIL image. Less
    than a patch is cut away on each axis, half of it at either end; of a picture so long and thin that it has one row
    of patches, the middle is taken.
    """
    picture = as_picture("fit_patches", image)
    ph, pw = as_size("fit_patches", "patch_size", patch_size)
    width, height = picture.size
    scale = max(math.sqrt(patches * ph * pw / (width * height)), ph / height, pw / width)
    most = patches * pw / scale, patches * ph / scale  # (width, height) of what is looked at
    picture = _middle(picture, min(width, math.ceil(most[0])), min(height, math.ceil(most[1])))
    sides = [max(P, round(side * scale)) for side, P in zip(picture.size, (pw, ph), strict=True)]
    picture = picture.resize(sides, Image.Resampling.BICUBIC)
    return _middle(picture, picture.width // pw * pw, picture.height // ph * ph)


def _middle(picture, width, height):
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


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
            with open(where, "rb") as file:
                head = file.read(4)
            what = "this is not a picture that Pillow can read." if head else "the file is empty (0 bytes)."
            if head in (b"%!PS", b"\xc5\xd0\xd3\xc6"):  # bare, or with a preview for the screen
                what = "this is PostScript, a program that another program would have to run: it is never opened."
            raise FileError(
                where,
                what,
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


def _opened(file):
    """The picture in a file, loaded by Pillow; a JPEG or PNG also where Pillow fails at what is no pixel of it."""
    try:
        image = Image.open(file, formats=formats())
        image.load()
        return image
    except Exception:  # each of Pillow's decoders has its own types
        file.seek(0)
        data = file.read(4)
        kind = {b"\xff\xd8": "JPEG", b"\x89P": "PNG"}.get(data[:2])
        if kind is None:
            raise
        data += file.read()
        bare, exif = _bare_jpeg(data) if kind == "JPEG" else _bare_png(data)
        image = Image.open(io.BytesIO(bare), formats=[kind])
        if exif:
            image.info["exif"] = exif
        return image


def _bare_jpeg(data):
    """(a JPEG whose EXIF, index of pictures and colour profile nobody looks for, its EXIF or None)."""
    bare = re.sub(rb"(\xff[\xe1\xe2]..)(?=Exif\0|MPF\0|ICC_PROFILE\0)...", rb"\1...", data, flags=re.DOTALL)
    exif = re.search(rb"Exif\0\0.{,65527}", data, re.DOTALL)
    return bare, exif and exif[0]


def _bare_png(data):
    """(a PNG with those chunks only that make its pixels, its EXIF or None): to Pillow a text of 1 MB is a fault."""
    kept, exif, start = [data[:8]], None, 8
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        name = data[start + 4 : start + 8]
        if name[:1].isupper() or name == b"tRNS":
            kept.append(data[start:end])
        elif name == b"eXIf":
            exif = data[start + 8 : end - 4]
        start = end
    return b"".join(kept), exif


def _load(image):
    """Read the pixels, and not as Pillow reads a TIFF whose bytes it maps into memory: by the sides after its turn."""
    name = getattr(image, "filename", None)
    if image.format != "TIFF" or not name:
        image.load()
        return
    image.filename = ""  # then nothing is mapped
    try:
        image.load()
    finally:
        image.filename = name


def _orientation(image):
    """The EXIF orientation of a loaded picture, or None."""
    with contextlib.suppress(Exception):  # damaged EXIF has many types of error; the pixels are loaded by now, and good
        if found := image.getexif().get(_ORIENTATION):
            return found
    with contextlib.suppress(Exception):  # to Pillow a tag that points outside may hide those behind it
        exif = image.info["exif"].removeprefix(b"Exif\0\0")
        order = {b"II*\0": "<", b"MM\0*": ">"}[exif[:4]]
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for row in range(start + 2, start + 2 + 12 * count, 12):
            if struct.unpack_from(f"{order}HHI", exif, row) == (_ORIENTATION, 3, 1):  # one number of 16 bits
                return struct.unpack_from(f"{order}H", exif, row + 8)[0]
    return None


def _upright_rgb(where, image):
    """(picture, note): an 8-bit RGB copy of a PIL image of any mode, turned as its EXIF says, and a warning or None.

    ValueError if that cannot be.
    """
    if image.format in _NEVER:
        raise ValueError(f"{image.format} is never opened, since another program would have to draw it.")
    _load(image)
    note, turn = None, _TURNS.get(_orientation(image))
    upright = image if turn is None else image.transpose(turn)
    if upright.mode == "F" or upright.mode.startswith("I"):
        grey = np.asarray(upright)  # (H, W); convert() would clip it at 255, and a 16-bit scan come out white
        low, high = grey.min(), grey.max()
        white = 65535
        if upright.mode == "F":
            white = 255 if high > 1 else 1
        elif upright.mode == "I" and image.format not in ("PNG", "PPM"):  # of which older Pillows give 16 bits so
            white = 255 if high <= 255 else 65535
        if not (low >= 0 and high <= white):
            raise ValueError(f"grey values from {low} to {high}, outside 0 (black) to {white} (white).")
        if white == 65535 and 0 < high < 2**14:
            bits = next(bits for bits in (8, 10, 12, 14) if high < 2**bits)
            note = (
                f"{shortened([str(where)])[0]}: the brightest grey is {high} of 65535. If these are {bits}-bit data, "
                f"the picture is too dark: multiply its values by {2 ** (16 - bits)} first."
            )
        upright = Image.fromarray(np.rint(grey * (255 / white)).astype(np.uint8))
    picture = _on_paper(upright).convert("RGB")
    picture.info = {}  # else it would be turned once more where it comes by again
    return picture, note


def _on_paper(image):
    """A drawing on nothing, which is in the alpha alone, on white or black paper; any other picture as it is."""
    if not image.has_transparency_data:
        return image
    drawing, grey = image.convert("RGBA"), np.asarray(image.convert("RGB").convert("L"))  # (H, W)
    alpha = np.asarray(drawing)[..., 3]  # (H, W)
    ink = grey[alpha >= max(1, alpha.max() // 2)]
    if alpha.min() > 0 or not len(ink) or ink.max() - ink.min() > _ONE_INK:
        return image
    paper = Image.new("RGBA", image.size, "white" if ink.mean() < 128 else "black")
    return Image.alpha_composite(paper, drawing)


def as_picture(where, image):
    """A path, PIL image or uint8 array as an 8-bit PIL image, RGB or (of a one-channel array) grey."""
    if isinstance(image, str | os.PathLike):
        return open_image(image)
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise ShapeError(where, f"the image is empty: {image.height}x{image.width}.", rule="at least one pixel")
        with explained(where):
            picture, note = _upright_rgb(where, image)
        if note:
            warnings.warn(note, stacklevel=3)
        return picture
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
