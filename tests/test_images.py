"""Photos: every kind of file in, the numbers of ViTImageProcessor out, and one clear message for each bad input."""

import contextlib
import io
import os
import re
import struct
import subprocess
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from minivit.errors import FileError, MinivitError, ShapeError
from minivit.images import (
    crop_patches,
    fit_patches,
    formats,
    open_image,
    patchify,
    photo,
    pixel_values,
    to_image,
    unpatchify,
)

GOLDEN = np.load(Path(__file__).parent / "golden" / "images.npz")
PICTURE = GOLDEN["crop"][:15, :9]  # (15, 9, 3) uint8
SIXTEEN_BIT = (np.arange(15 * 9).reshape(15, 9) * 489).astype(np.uint16)  # 0..65526
SIXTEEN_AS_RGB = np.rint(SIXTEEN_BIT / 257).astype(np.uint8)[..., None].repeat(3, axis=2)  # 65535 / 257 = 255


def saved(path, array, mode=None, **options):
    """Write an array as a picture file, by way of a Pillow mode if one is named; returns the path."""
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


# --- photo -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, size", [("cat.jpg", (451, 300)), ("coffee.jpg", (600, 400)), ("pagoda.jpg", (640, 427))]
)
def test_photos_travel_with_the_package(name, size):
    assert open_image(photo(name)).size == size
    assert name in (photo(name).parent / "README.md").read_text(encoding="utf-8")  # its credit stands beside it


def test_photo_knows_the_default_and_the_digits():
    assert photo() == photo("cat.jpg")
    with np.load(photo("digits.npz"), allow_pickle=False) as digits:
        assert digits["images"].shape == (1797, 8, 8)


@pytest.mark.parametrize("name", ["dog.jpg", "", "../setup.cfg", "README.md"])
def test_photo_of_another_name_lists_what_there_is(name):
    with pytest.raises(FileError, match=r"choose from cat\.jpg, coffee\.jpg, digits\.npz, pagoda\.jpg"):
        photo(name)


@pytest.mark.parametrize("folder", ["minivit/_images", "images"], ids=["wheel", "checkout"])
def test_photo_finds_the_folder_of_a_wheel_and_of_a_checkout(tmp_path, monkeypatch, folder):
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "cat.jpg").write_bytes(b"")
    monkeypatch.setattr("minivit.machinery.files.__file__", str(tmp_path / "minivit" / "machinery" / "files.py"))
    assert photo() == tmp_path / folder / "cat.jpg"


# --- open_image --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "ppm", "tga"])
def test_open_rgb_exactly(tmp_path, kind):
    image = open_image(saved(tmp_path / f"picture.{kind}", PICTURE))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), PICTURE)


def test_open_jpeg_closely(tmp_path):
    image = open_image(saved(tmp_path / "picture.jpg", PICTURE, quality=100, subsampling=0))
    assert image.mode == "RGB"
    np.testing.assert_allclose(np.asarray(image).astype(int), PICTURE, atol=4)


def test_open_takes_the_path_as_text_too(tmp_path):
    path = saved(tmp_path / "picture.png", PICTURE)
    np.testing.assert_array_equal(np.asarray(open_image(str(path))), PICTURE)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA"])
def test_open_modes_that_png_keeps(tmp_path, mode):
    path = saved(tmp_path / "picture.png", PICTURE, mode)
    with Image.open(path) as stored:
        assert stored.mode == mode
        expected = np.asarray(stored.convert("RGB"))
    image = open_image(path)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), expected)
    assert np.asarray(image).max() > 100  # 1-bit white is 255, not 1; a palette gives its colours, not its indices


def test_open_grey_repeats_the_channel(tmp_path):
    image = np.asarray(open_image(saved(tmp_path / "picture.png", PICTURE[..., 1])))
    np.testing.assert_array_equal(image, PICTURE[..., 1:2].repeat(3, axis=2))


def test_open_drops_alpha_without_blending(tmp_path):
    alpha = np.arange(15 * 9, dtype=np.uint8).reshape(15, 9, 1)
    path = saved(tmp_path / "picture.png", np.concatenate([PICTURE, alpha], axis=2))
    np.testing.assert_array_equal(np.asarray(open_image(path)), PICTURE)


def test_open_palette_with_transparency_says_nothing(tmp_path):
    """Pillow warns of this one; here warnings are errors, so a leak fails."""
    path = saved(tmp_path / "picture.png", PICTURE, "P", transparency=bytes(range(256)))
    with Image.open(path) as stored, warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        expected = np.asarray(stored.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(open_image(path)), expected)


@pytest.mark.parametrize("kind", ["tiff", "jpg"])
def test_open_cmyk(tmp_path, kind):
    flat = np.full((15, 9, 3), (200, 90, 40), dtype=np.uint8)  # one colour, so that JPEG keeps it
    path = saved(tmp_path / f"picture.{kind}", flat, "CMYK")
    with Image.open(path) as stored:
        assert stored.mode == "CMYK"
    np.testing.assert_allclose(np.asarray(open_image(path)).astype(int), flat, atol=3)


def test_open_first_frame_of_an_animation(tmp_path):
    dark, light = (Image.new("L", (9, 15), grey) for grey in (40, 220))
    dark.save(tmp_path / "moving.gif", save_all=True, append_images=[light])
    assert np.unique(np.asarray(open_image(tmp_path / "moving.gif"))).tolist() == [40]


@pytest.mark.parametrize("kind, dtype", [("png", "<u2"), ("tiff", "<u2"), ("tiff", ">u2")])
def test_open_16_bit_grey_is_scaled_and_not_clipped(tmp_path, kind, dtype):
    mode = "I;16" if dtype == "<u2" else "I;16B"
    Image.frombytes(mode, (9, 15), SIXTEEN_BIT.astype(dtype).tobytes()).save(tmp_path / f"scan.{kind}")
    image = open_image(tmp_path / f"scan.{kind}")
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), SIXTEEN_AS_RGB)


def test_open_mode_i_is_16_bit_grey_too(tmp_path):
    path = saved(tmp_path / "scan.tiff", SIXTEEN_BIT.astype(np.int32))
    np.testing.assert_array_equal(np.asarray(open_image(path)), SIXTEEN_AS_RGB)


@pytest.mark.parametrize("white", [1, 255])
def test_open_float_grey(tmp_path, white):
    path = saved(tmp_path / "scan.tiff", (SIXTEEN_BIT / 65535 * white).astype(np.float32))
    np.testing.assert_array_equal(np.asarray(open_image(path)), SIXTEEN_AS_RGB)


def upright(array, orientation):
    """What the EXIF orientation asks for, in NumPy: undo how the camera stored the picture."""
    turned = [
        array,
        array[:, ::-1],
        array[::-1, ::-1],
        array[::-1],
        array.swapaxes(0, 1),
        np.rot90(array, -1),
        array[::-1, ::-1].swapaxes(0, 1),
        np.rot90(array),
    ]
    return turned[orientation - 1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_open_turns_the_picture_as_exif_says(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = open_image(saved(tmp_path / "picture.png", PICTURE, exif=exif))
    np.testing.assert_array_equal(np.asarray(image), upright(PICTURE, orientation))
    again = to_image(pixel_values(image, size=(image.height, image.width)))  # an image that is upright is not turned
    np.testing.assert_array_equal(np.asarray(again), np.asarray(image))


def test_open_turns_jpeg_and_16_bit_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_image(saved(tmp_path / "picture.jpg", PICTURE, exif=exif)).size == (15, 9)
    scan = open_image(saved(tmp_path / "scan.png", SIXTEEN_BIT, exif=exif))
    np.testing.assert_array_equal(np.asarray(scan), upright(SIXTEEN_AS_RGB, 6))


def chunk(name, data, right=True):
    """A chunk of a PNG: its length, name and data, and their checksum, if it is to be right."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) ^ (not right))


TURNED = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)  # EXIF of nothing but Orientation 6


@pytest.mark.parametrize(
    "metadata",
    [
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(2_000_000))),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2_000_000))),
        b"".join(chunk(b"zTXt", b"%d\0\0" % n + zlib.compress(bytes(1_000_000))) for n in range(70)),
        chunk(b"iCCP", b"printer\0\0" + zlib.compress(bytes(2_000_000))),
        chunk(b"iCCP", b"printer\0\1garbage"),
        chunk(b"tEXt", b"Title\0a cat", right=False),
        chunk(b"pHYs", b"\0\0"),
        chunk(b"gAMA", b"\0"),
        chunk(b"acTL", b"\0"),
    ],
    ids=["text", "XMP", "70 texts", "profile", "method", "checksum", "pixels a metre", "gamma", "animation"],
)
@pytest.mark.parametrize("place", ["before the pixels", "behind the pixels"])
def test_metadata_of_a_png_cost_no_pixel(tmp_path, metadata, place):
    data = saved(tmp_path / "picture.png", PICTURE).read_bytes()
    where = 33 if place == "before the pixels" else len(data) - 12
    for exif, turn in ((b"", 1), (chunk(b"eXIf", TURNED), 6), (chunk(b"eXIf", TURNED, right=False), 6)):
        (tmp_path / "other.png").write_bytes(data[:33] + exif + data[33:where] + metadata + data[where:])
        np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "other.png")), upright(PICTURE, turn))


def test_a_png_whose_pixels_are_cut_off_is_refused_and_one_of_a_palette_keeps_its_transparency(tmp_path):
    text = chunk(b"tEXt", b"Title\0a cat", right=False)
    data = saved(tmp_path / "picture.png", PICTURE).read_bytes()
    (tmp_path / "cut.png").write_bytes(data[:33] + text + data[33:-40])
    with pytest.raises(FileError, match="cannot be read as a picture"):
        open_image(tmp_path / "cut.png")
    drawing = Image.new("P", (9, 15), 1)
    drawing.putpalette([0, 0, 0, 0, 0, 0])
    drawing.putpixel((4, 5), 0)
    drawing.save(tmp_path / "drawing.png", transparency=1)
    data = (tmp_path / "drawing.png").read_bytes()
    (tmp_path / "drawing.png").write_bytes(data[:33] + text + data[33:])
    picture = open_image(tmp_path / "drawing.png")  # a black dot on nothing is laid on white
    assert picture.getpixel((4, 5)) == (0, 0, 0) and picture.getpixel((0, 0)) == (255, 255, 255)


def test_a_colour_profile_that_is_cut_off_costs_no_pixel_of_a_jpeg(tmp_path):
    data = saved(tmp_path / "photo.jpg", PICTURE).read_bytes()
    expected = np.asarray(open_image(tmp_path / "photo.jpg"))
    (tmp_path / "photo.jpg").write_bytes(data[:2] + b"\xff\xe2\0\x0eICC_PROFILE\0" + data[2:])
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "photo.jpg")), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBX", "CMYK", "I;16"])
def test_an_uncompressed_tiff_is_turned_from_its_path_and_from_an_image(tmp_path, mode, orientation):
    """Pillow maps such a file into memory by the sides after its turn, where its rows are not."""
    exif, stored = Image.Exif(), Image.fromarray(SIXTEEN_BIT)
    exif[0x0112] = orientation
    if mode != "I;16":
        stored = Image.fromarray(PICTURE).convert("RGB" if mode == "RGBX" else mode)
    expected = SIXTEEN_AS_RGB if mode == "I;16" else np.asarray(stored.convert("RGB"))
    stored = stored.convert(mode)
    stored.save(tmp_path / "scan.tif", exif=exif)
    picture = open_image(tmp_path / "scan.tif")
    np.testing.assert_array_equal(np.asarray(picture), upright(expected, orientation))
    with Image.open(tmp_path / "scan.tif") as image:
        x = pixel_values(image, size=(picture.height, picture.width))
        assert str(image.filename) == str(tmp_path / "scan.tif")
    np.testing.assert_array_equal(x, pixel_values(picture, size=(picture.height, picture.width)))


def test_open_takes_a_picture_with_damaged_exif_as_it_is_stored(tmp_path):
    image = open_image(saved(tmp_path / "picture.png", PICTURE, exif=b"Exif\0\0garbage"))
    np.testing.assert_array_equal(np.asarray(image), PICTURE)


LITTLE = b"Exif\0\0II*\0" + struct.pack("<I", 8)  # EXIF, little-endian, its first directory right behind the header


def directory(*entries, after=b""):
    """EXIF of one directory: entries (tag, type, count, 4 bytes), and what they point to."""
    rows = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return LITTLE + struct.pack("<H", len(entries)) + rows + bytes(4) + after


TURN = (0x0112, 3, 1, struct.pack("<HH", 6, 0))
BEHIND = struct.pack("<I", 8 + 2 + 2 * 12 + 4)  # where the data of a directory of two entries are
METADATA = {
    "XResolution -1/0": directory(TURN, (0x011A, 10, 1, BEHIND), after=struct.pack("<ii", -1, 0)),
    "XResolution of 0/0": directory(TURN, (0x011A, 5, 1, BEHIND), after=bytes(8)),
    "a number where text belongs": directory((0x010F, 4, 1, bytes(4)), TURN),
    "text where a number belongs": directory(TURN, (0x0128, 2, 4, b"inch")),
    "an unknown type": directory(TURN, (0x0131, 99, 7, b"\xff" * 4)),
    "a value far behind the end": directory((0x010E, 2, 1000, b"\xff\xff\xff\x7f"), TURN),
    "a value behind any end": directory((0x010F, 2, 6, b"\xff\xff\xff\xff"), TURN),
    "GPS that points nowhere": directory(TURN, (0x8825, 4, 1, b"\xf0\xff\xff\xff")),
    "GPS that is text": directory(TURN, (0x8825, 2, 4, b"here")),
    "a directory that holds itself": directory(TURN, (0x8769, 4, 1, struct.pack("<I", 8))),
    "a directory that follows itself": directory(TURN)[:-4] + struct.pack("<I", 8),
    "two turns": directory((0x0112, 3, 2, struct.pack("<HH", 6, 6))),
    "more entries than there are": LITTLE + struct.pack("<H", 9000) + struct.pack("<HHI", *TURN[:3]) + TURN[3],
}
UNREADABLE = {
    "no header": b"Exif\0\0garbage",
    "nothing": b"Exif\0\0",
    "a cut header": LITTLE[:9],
    "a directory far behind the end": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "a turn of 9": directory((0x0112, 3, 1, struct.pack("<HH", 9, 0))),
    "a turn in words": directory((0x0112, 2, 4, b"left")),
}


@pytest.mark.parametrize("kind, options", [("jpg", {}), ("png", {}), ("webp", {"lossless": True})])
@pytest.mark.parametrize("name", [*METADATA, *UNREADABLE])
def test_damaged_metadata_cost_neither_the_picture_nor_its_turn(tmp_path, kind, options, name):
    path = saved(tmp_path / f"picture.{kind}", PICTURE, exif=(METADATA | UNREADABLE)[name], **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as stored:
            pixels = np.asarray(stored.convert("RGB"))
    assert pixels.shape == (15, 9, 3)
    np.testing.assert_array_equal(np.asarray(open_image(path)), upright(pixels, 6 if name in METADATA else 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(path)
    with image:  # and of an image that somebody else has opened
        values = pixel_values(image, size=(9, 15) if name in METADATA else (15, 9))
    np.testing.assert_array_equal(np.asarray(to_image(values)), np.asarray(open_image(path)))


@pytest.mark.parametrize(
    "kind, options", [("JPEG", {}), ("MPO", {"save_all": True, "append_images": [Image.new("RGB", (9, 15))]})]
)
def test_a_jpeg_whose_metadata_pillow_cannot_take_is_read(tmp_path, monkeypatch, kind, options):
    """Such a file is rare: here Pillow fails at any EXIF or index."""
    path = saved(tmp_path / "picture.jpg", PICTURE, format=kind, exif=METADATA["GPS that is text"], **options)
    expected, real = np.asarray(open_image(path)), Image.open

    def failing(file, formats):
        data = file.read() if isinstance(file, io.BytesIO) else Path(file).read_bytes()
        if b"Exif\0" in data or b"MPF\0" in data:
            raise UnidentifiedImageError
        return real(io.BytesIO(data), formats=formats)

    monkeypatch.setattr(Image, "open", failing)
    np.testing.assert_array_equal(np.asarray(open_image(path)), expected)
    assert expected.shape == (9, 15, 3)


@pytest.mark.parametrize("key", ["exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif", "dpi"])
def test_a_text_in_the_place_of_metadata_costs_nothing(tmp_path, key):
    text = PngImagePlugin.PngInfo()
    text.add_text(key, "6")
    path = saved(tmp_path / "picture.png", PICTURE, pnginfo=text)
    np.testing.assert_array_equal(np.asarray(open_image(path)), PICTURE)


def test_a_turned_tiff_is_turned_once(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    np.testing.assert_array_equal(
        np.asarray(open_image(saved(tmp_path / "scan.tiff", PICTURE, exif=exif))), upright(PICTURE, 6)
    )


def test_a_jpeg_without_its_end_mark_is_read(tmp_path):
    path = saved(tmp_path / "picture.jpg", PICTURE)
    whole, expected = path.read_bytes(), np.asarray(open_image(path))
    assert whole[-2:] == b"\xff\xd9"
    path.write_bytes(whole[:-2] + bytes(100))
    np.testing.assert_array_equal(np.asarray(open_image(path)), expected)


@pytest.mark.parametrize("kind", ["avif", "jp2", "ppm", "jpe", "qoi", "ico", "pcx", "sgi", "dib", "pnm", "apng"])
def test_formats_are_those_of_the_installed_pillow(tmp_path, kind):
    Image.init()
    name = Image.registered_extensions().get(f".{kind}")
    if name not in Image.SAVE:  # AVIF came with Pillow 11.3
        assert name is None or (name in formats()) == (name in Image.OPEN)
        return
    flat = np.full((16, 16, 3), (200, 90, 40), np.uint8)
    path = saved(tmp_path / f"picture.{kind}", flat)
    np.testing.assert_allclose(np.asarray(open_image(path)).astype(int), flat, atol=3)
    path = path.rename(tmp_path / "no suffix")
    np.testing.assert_allclose(np.asarray(open_image(path)).astype(int), flat, atol=3)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%Page: 1 1\nshowpage\n%%EOF\n"
PREVIEW = b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 30, len(EPS)) + bytes(18) + EPS  # for Windows, with its header


def record(dataset, data):
    return bytes([0x1C, *dataset]) + struct.pack(">H", len(data)) + data


IPTC = (
    record((3, 60), b"\x01\x00")
    + record((3, 20), struct.pack(">H", 8))
    + record((3, 30), struct.pack(">H", 8))
    + record((3, 120), b"\x01")
    + record((8, 10), EPS)
)


@pytest.mark.parametrize("name", ["eps.jpg", "drawing.eps", "drawing.ps", "photo"])
@pytest.mark.parametrize("data", [EPS, PREVIEW, EPS.replace(b"EPSF-3.0", b""), IPTC], ids=["EPS", "DOS", "PS", "IPTC"])
def test_postscript_is_never_given_to_another_program(tmp_path, monkeypatch, name, data):
    def started(*args, **kwargs):
        raise AssertionError(f"a program was started: {args}")

    for call in ("Popen", "call", "check_call", "run"):
        monkeypatch.setattr(subprocess, call, started)
    (tmp_path / name).write_bytes(data)
    message = refused(tmp_path / name)
    assert ("this is PostScript" if data != IPTC else "not a picture that Pillow can read") in message
    with contextlib.suppress(OSError), Image.open(io.BytesIO(data)) as image:
        with pytest.raises(FileError, match="is never opened"):
            pixel_values(image)


@pytest.mark.parametrize(
    "image, grey",
    [
        (Image.new("L", (8, 8), 128).convert("I"), 128),
        (Image.fromarray(np.full((8, 8), 255, np.int32)), 255),
        (Image.fromarray(np.full((8, 8), 32896, np.int32)), 128),  # 128 * 257
        (Image.fromarray(np.full((8, 8), 128, np.float32)), 128),
        (Image.new("L", (8, 8), 0).convert("I"), 0),
    ],
)
def test_32_bit_grey_is_8_bit_where_no_value_is_larger(tmp_path, image, grey):
    image.save(tmp_path / "scan.tiff")
    for picture in (image, tmp_path / "scan.tiff"):
        values = pixel_values(picture, size=8)
        assert values.shape == (3, 8, 8)
        assert (values == (np.float32(grey / 255) - np.float32(0.5)) / np.float32(0.5)).all()


@pytest.mark.parametrize("bits, brightest", [(8, 255), (10, 1023), (12, 3000), (12, 4095), (14, 16383)])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_a_camera_s_12_bits_in_16_get_a_word_of_warning(tmp_path, bits, brightest, kind):
    path = saved(tmp_path / f"scan.{kind}", np.array([[0, brightest]], np.uint16))
    factor = 2 ** (16 - bits)
    said = f"scan.{kind}: the brightest grey is {brightest} of 65535(.*){bits}-bit data(.*)by {factor} first"
    with pytest.warns(UserWarning, match=said) as warned:
        image = open_image(path)
    assert len(warned) == 1 and warned[0].filename == __file__
    assert np.asarray(image)[0, :, 0].tolist() == [0, round(brightest / 257)]
    with Image.open(path) as image, pytest.warns(UserWarning, match="pixel_values: the brightest grey"):
        pixel_values(image)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("ink, paper", [(0, 255), (60, 255), (255, 0)])
def test_a_drawing_on_nothing_is_laid_on_paper(tmp_path, mode, ink, paper):
    alpha = np.zeros((8, 8), np.uint8)
    alpha[2:6, 3] = 255
    drawing = np.stack([np.full_like(alpha, ink)] * 3 + [alpha], axis=2)
    image, path = Image.fromarray(drawing), tmp_path / "drawing.png"
    if mode == "P":
        indices = Image.fromarray((alpha > 0).astype(np.uint8))
        indices.putpalette([ink] * 6)
        indices.save(path, transparency=0)
    else:
        image.convert(mode).save(path)
    values = np.asarray(to_image(pixel_values(path, size=8)))[..., 0]
    np.testing.assert_array_equal(values, np.where(alpha > 0, ink, paper))


def test_soft_edges_of_a_drawing_on_nothing_blend_with_the_paper():
    drawing = np.zeros((1, 5, 4), np.uint8)
    drawing[0, :, 3] = [0, 51, 102, 204, 255]  # black with more and more alpha
    assert np.asarray(to_image(pixel_values(Image.fromarray(drawing), (1, 5))))[0, :, 0].tolist() == [
        255,
        204,
        153,
        51,
        0,
    ]


def test_what_is_no_drawing_on_nothing_keeps_its_pixels_as_in_transformers():
    photograph = np.concatenate([PICTURE, np.full((15, 9, 1), 255, np.uint8)], axis=2)
    cut_out = photograph.copy()
    cut_out[:4, :, 3] = 0
    flat = np.full((6, 6, 4), (10, 20, 30, 128), np.uint8)  # one colour, and nothing hidden
    empty = np.full((6, 6, 4), (10, 20, 30, 0), np.uint8)
    for pixels in (photograph, cut_out, flat, empty):
        image = Image.fromarray(pixels)
        values = pixel_values(image, size=pixels.shape[:2])
        np.testing.assert_array_equal(np.asarray(to_image(values)), pixels[..., :3])


def refused(path):
    """The message of the one FileError; it names the file."""
    with pytest.raises(FileError) as caught:
        open_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_open_missing_file(tmp_path):
    message = refused(tmp_path / "missing.jpg")
    assert "there is no such file" in message and str(tmp_path) in message.splitlines()[1]


def test_open_below_a_file_is_missing_too(tmp_path):
    assert "no such file" in refused(saved(tmp_path / "picture.png", PICTURE) / "deeper.png")


def test_open_without_permission(tmp_path, monkeypatch):
    def locked(path, mode):  # not chmod: an administrator may read everything, and Windows has other rights
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("minivit.images.open", locked, raising=False)
    (tmp_path / "picture.png").touch()
    assert "may not read" in refused(tmp_path / "picture.png")
    assert "this is a folder" in refused(tmp_path)  # so Windows answers for a folder too


def test_open_folder(tmp_path):
    assert "this is a folder" in refused(tmp_path)


def test_open_empty_file(tmp_path):
    (tmp_path / "picture.jpg").touch()
    assert "empty (0 bytes)" in refused(tmp_path / "picture.jpg")


def test_open_text_file(tmp_path):
    (tmp_path / "picture.jpg").write_text("not a picture\n", encoding="utf-8")
    assert "not a picture that Pillow can read" in refused(tmp_path / "picture.jpg")


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "bmp", "tiff", "webp", "ppm"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.8])
def test_open_truncated(tmp_path, kind, part):
    path = saved(tmp_path / f"picture.{kind}", GOLDEN["crop"])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    assert re.search("cannot be read as a picture|not a picture that Pillow can read", refused(path))


@pytest.mark.parametrize("limit", [15 * 9 - 1, 15 * 9 // 2 - 1], ids=["Pillow warns", "Pillow raises"])
def test_open_decompression_bomb(tmp_path, monkeypatch, limit):
    path = saved(tmp_path / "picture.png", PICTURE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    message = refused(path)
    assert "decompression bomb" in message and "135 pixels" in message and f"H * W <= {limit} pixels" in message


def test_open_file_without_pixels(tmp_path):
    (tmp_path / "picture.pgm").write_bytes(b"P5\n0 3\n255\n")
    assert "not a picture" in refused(tmp_path / "picture.pgm")


@pytest.mark.parametrize("values", [[-1, 5], [0, 65536], [0.5, np.nan], [-0.5, 0.5], [1.0, 300.0]])
def test_open_grey_of_an_unknown_range(tmp_path, values):
    values = np.array([values], dtype=np.int32 if isinstance(values[0], int) else np.float32)
    assert re.search(r"grey values from \S+ to \S+, outside 0", refused(saved(tmp_path / "scan.tiff", values)))


# --- pixel_values and back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda a: a, Image.fromarray], ids=["array", "PIL"])
def test_pixel_values_equal_transformers_to_the_last_bit(make):
    image = make(GOLDEN["crop"])
    np.testing.assert_array_equal(pixel_values(image, size=(37, 53)), GOLDEN["crop_37x53"])
    np.testing.assert_array_equal(pixel_values(image)[:, ::5, ::5], GOLDEN["crop_224_every_5th"])
    imagenet = pixel_values(image, (19, 23), mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    np.testing.assert_array_equal(imagenet, GOLDEN["crop_19x23_imagenet"])


def test_pixel_values_of_the_cat_equal_transformers():
    values = pixel_values(photo())
    assert values.shape == (3, 224, 224) and values.dtype == np.float32 and values.flags.c_contiguous
    # Another JPEG decoder may differ by one step of 256: 2 / 255 = 0.0078.
    np.testing.assert_allclose(values[:, ::5, ::5], GOLDEN["cat_224_every_5th"], rtol=0, atol=0.008)


def test_pixel_values_of_path_and_image_are_the_same(tmp_path):
    path = saved(tmp_path / "scan.png", SIXTEEN_BIT)
    values = pixel_values(path, size=(15, 9))
    assert values.shape == (3, 15, 9)
    np.testing.assert_array_equal(pixel_values(str(path), size=(15, 9)), values)
    with Image.open(path) as image:
        np.testing.assert_array_equal(pixel_values(image, size=(15, 9)), values)


@pytest.mark.parametrize("mean, std", [(0.5, 0.5), (0.1, 0.7), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
def test_round_trip_is_exact(mean, std):
    every = np.arange(256, dtype=np.uint8).reshape(8, 32)
    picture = np.stack([every, every[::-1], every[:, ::-1]], axis=2)  # (8, 32, 3)
    image = to_image(pixel_values(picture, size=(8, 32), mean=mean, std=std), mean=mean, std=std)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), picture)


@pytest.mark.parametrize("grey", [PICTURE[..., 0], PICTURE[..., :1]], ids=["(H, W)", "(H, W, 1)"])
def test_one_channel_stays_one_channel(grey):
    values = pixel_values(grey, size=(15, 9))
    assert values.shape == (1, 15, 9)
    image = to_image(values)
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), PICTURE[..., 0])


def test_to_image_clips_and_rounds():
    values = np.array([[[-7.0, -1.0, 0.0, 0.999, 1.0, 7.0]]])
    assert np.asarray(to_image(values)).tolist() == [[0, 0, 128, 255, 255, 255]]


def test_inputs_are_left_as_they_are():
    picture, values = GOLDEN["crop"], GOLDEN["crop_37x53"]
    before = picture.copy(), values.copy()
    pixel_values(picture)
    to_image(values)
    np.testing.assert_array_equal(picture, before[0])
    np.testing.assert_array_equal(values, before[1])


@pytest.mark.parametrize("cut", [pixel_values, lambda image: crop_patches(image, 1)], ids=["pixel_values", "crop"])
@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((15, 9, 4), np.uint8), r"shape \(15, 9, 4\)(?s:.*)image\[\.\.\., :3\]"),
        (np.zeros((15, 9, 2), np.uint8), r"shape \(15, 9, 2\)"),
        (np.zeros((3, 15, 9), np.uint8), r"shape \(3, 15, 9\)(?s:.*)transpose\(1, 2, 0\)"),
        (np.zeros((2, 15, 9, 3), np.uint8), r"shape \(2, 15, 9, 3\)(?s:.*)image\[0\]"),
        (np.zeros(15, np.uint8), r"shape \(15,\)"),
        (np.zeros((15, 9, 3), np.float32), r"float32(?s:.*)np\.rint\(image \* 255\)\.astype\(np\.uint8\)"),
        (np.zeros((15, 9, 3), np.int64), r"int64(?s:.*)astype\(np\.uint8\)"),
        (np.zeros((0, 9, 3), np.uint8), r"shape \(0, 9, 3\)(?s:.*)not empty"),
        (Image.new("RGB", (0, 5)), "empty: 5x0"),
        ([[1, 2], [3]], "image is a list"),
        (None, "image is a NoneType"),
    ],
)
def test_wrong_pictures_are_refused(cut, image, message):
    with pytest.raises(ShapeError, match=message):
        cut(image)


def test_image_that_pillow_cannot_finish_is_refused(tmp_path):
    path = saved(tmp_path / "picture.png", GOLDEN["crop"])
    path.write_bytes(path.read_bytes()[:900])
    with Image.open(path) as image, pytest.raises(FileError, match="pixel_values: it cannot be read as a picture"):
        pixel_values(image)


@pytest.mark.parametrize("size", [0, -3, 2.5, "224", None, (15,), (15, 0), (15, 9, 3), (15, 9.5)])
def test_wrong_sizes_are_refused(size):
    with pytest.raises(ShapeError, match=r"size=(?s:.*)whole number of pixels above 0"):
        pixel_values(PICTURE, size=size)
    with pytest.raises(ShapeError, match="patch_size="):
        crop_patches(PICTURE, size)


@pytest.mark.parametrize("mean, std", [([0.5, 0.5], 0.5), (0.5, [[0.5] * 3]), (0.5, 0.0), (0.5, [0.5, -1, 0.5])])
def test_wrong_mean_and_std_are_refused(mean, std):
    with pytest.raises(ShapeError, match="for 3 channel"):
        pixel_values(PICTURE, mean=mean, std=std)
    with pytest.raises(ShapeError, match="for 3 channel"):
        to_image(GOLDEN["crop_37x53"], mean=mean, std=std)


@pytest.mark.parametrize(
    "values, message",
    [
        (np.zeros((1, 3, 15, 9)), r"shape \(1, 3, 15, 9\)(?s:.*)pixel_values\[0\]"),
        (np.zeros((15, 9)), r"shape \(15, 9\)(?s:.*)pixel_values\[None\]"),
        (np.zeros((2, 15, 9)), r"C = 1 or 3"),
        (np.zeros((3, 0, 9)), "not empty"),
        (np.zeros((3, 15, 9), np.uint8), "uint8"),
        (np.array([[[0.0, np.nan, np.inf]]]), "2 of 3 pixel values are NaN or infinite"),
    ],
)
def test_wrong_pixel_values_are_refused(values, message):
    with pytest.raises(ShapeError, match=message):
        to_image(values)


# --- patches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch_size, count", [(3, 15), ((5, 3), 9), ((15, 9), 1), (1, 135), ((1, 9), 15)])
@pytest.mark.parametrize("channels", [1, 3])
def test_crop_and_reshape_cut_the_same_patches(patch_size, count, channels):
    picture = PICTURE[..., :channels]
    ph, pw = patch_size if isinstance(patch_size, tuple) else (patch_size, patch_size)
    cropped = crop_patches(picture, patch_size)  # (N, P, P, C)
    assert cropped.shape == (count, ph, pw, channels) and cropped.dtype == np.uint8
    cut = patchify(picture.transpose(2, 0, 1), patch_size)  # (N, C, P, P)
    np.testing.assert_array_equal(cut, cropped.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(unpatchify(cut, 15, 9).transpose(1, 2, 0), picture)


def test_patches_run_row_by_row():
    numbers = np.arange(4 * 6).reshape(1, 4, 6)
    patches = patchify(numbers, (2, 3))
    assert patches[0, 0].tolist() == [[0, 1, 2], [6, 7, 8]]
    assert patches[1, 0].tolist() == [[3, 4, 5], [9, 10, 11]]
    assert patches[2, 0].tolist() == [[12, 13, 14], [18, 19, 20]]


def test_patches_of_a_photo_from_its_path_and_from_an_image():
    image = open_image(photo("coffee.jpg"))
    patches = crop_patches(photo("coffee.jpg"), (80, 120))
    np.testing.assert_array_equal(patches, crop_patches(image, (80, 120)))
    np.testing.assert_array_equal(patches[7], np.asarray(image)[80:160, 240:360])  # row 1, column 2 of 5 x 5


def test_patchify_keeps_the_dtype():
    assert patchify(GOLDEN["crop_37x53"], (37, 1)).dtype == np.float32


@pytest.mark.parametrize(
    "cut",
    [
        lambda patch: crop_patches(PICTURE, patch),
        lambda patch: patchify(PICTURE.transpose(2, 0, 1), patch),
        lambda patch: unpatchify(np.zeros((4, 3, *patch)), 15, 9),
    ],
    ids=["crop_patches", "patchify", "unpatchify"],
)
def test_patch_that_does_not_divide_is_refused(cut):
    with pytest.raises(ShapeError) as caught:
        cut((4, 16))
    assert str(caught.value).splitlines()[0].endswith(": a picture of 15x9 cannot be cut into patches of 4x16.")
    assert "  rule: H % p == 0, but 15 % 4 = 3, and W % p == 0, but 9 % 16 = 9" in str(caught.value)
    assert "  hint: resize or crop the picture to H = 12 or 16 and W = 16, or use" in str(caught.value)


@pytest.mark.parametrize("shape", [(15, 9), (2, 3, 15, 9), (0, 15, 9), (3, 15, 0)])
def test_patchify_refuses_another_rank_and_the_empty_array(shape):
    with pytest.raises(ShapeError, match=r"pixels has the shape \((?s:.*)\(C, H, W\), not empty"):
        patchify(np.zeros(shape), 3)


def test_unpatchify_refuses_what_does_not_fill_the_picture():
    with pytest.raises(ShapeError, match=r"14 patches of 3x3 do not fill(?s:.*)14 != 5 \* 3 = 15"):
        unpatchify(np.zeros((14, 3, 3, 3)), 15, 9)
    with pytest.raises(ShapeError, match=r"patches has the shape(?s:.*)\(N, C, P, P\)"):
        unpatchify(np.zeros((15, 3, 3)), 15, 9)
    with pytest.raises(ShapeError, match="whole number of pixels above 0"):
        unpatchify(np.zeros((15, 3, 3, 3)), 15, -9)


def test_float_grey_up_to_one(tmp_path):
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "grey.tiff")
    assert np.asarray(open_image(tmp_path / "grey.tiff"))[0, :, 0].tolist() == [0, 128, 255]


def test_what_is_no_file_is_not_opened():  # a pipe would be waited for
    with pytest.raises(MinivitError, match="not a regular file"):
        open_image(os.devnull)


def test_options_of_pixel_values_that_cannot_be_are_refused(rng):
    picture = rng.integers(0, 256, (5, 9, 3), dtype=np.uint8)
    for options, message in (
        ({"resample": "lanczos"}, "resample='lanczos'.\n  rule: one of bilinear, bicubic"),
        ({"shortest_edge": 0}, "shortest_edge=0 is no size"),
        ({"shortest_edge": 2.5}, "shortest_edge=2.5 is no size"),
        ({"crop": (3, -1)}, r"crop=\(3, -1\) is no size"),
        ({"shortest_edge": 10_000}, "has 10000x18000 pixels with shortest_edge=10000"),
        ({"size": 20_000}, r"a picture of 5x9 has 20000x20000 pixels with size=\(20000, 20000\)"),
        ({"crop": (30_000, 4_000)}, r"has 30000x4000 pixels with crop=\(30000, 4000\)"),
    ):
        with pytest.raises(ShapeError, match=f"^pixel_values: .*{message}"):
            pixel_values(picture, **options)


def test_a_picture_may_keep_its_size_and_its_shape(rng):
    picture = rng.integers(0, 256, (5, 9, 3), dtype=np.uint8)
    kept = pixel_values(picture, do_resize=False, mean=0, std=1, rescale_factor=1)
    np.testing.assert_array_equal(kept, picture.transpose(2, 0, 1))
    assert pixel_values(picture, shortest_edge=10).shape == (3, 10, 18)
    assert pixel_values(picture.transpose(1, 0, 2), shortest_edge=4).shape == (3, 7, 4)
    middle = pixel_values(picture, do_resize=False, crop=(3, 4), mean=0, std=1, rescale_factor=1)
    np.testing.assert_array_equal(middle, picture[1:4, 2:6].transpose(2, 0, 1))
    larger = pixel_values(picture, do_resize=False, crop=(8, 9), mean=0, std=1, rescale_factor=1)
    np.testing.assert_array_equal(larger[:, 2:7], picture.transpose(2, 0, 1))  # the odd row of black above
    assert not larger[:, :2].any() and not larger[:, 7:].any()


@pytest.mark.parametrize(
    ("size", "patch", "count", "expected"),
    [
        ((451, 300), 14, 384, (336, 224)),  # 337 x 224, cut
        ((100, 100), 10, 25, (50, 50)),
        ((100, 50), (5, 10), 32, (50, 25)),  # 57 x 28, cut
        ((3, 5), 14, 100, (98, 168)),
        ((1, 10000), 14, 100, (14, 1400)),  # one column: 100 patches of its middle
        ((10000, 1), 14, 100, (1400, 14)),
    ],
)
def test_fit_patches(size, patch, count, expected):
    fitted = fit_patches(Image.new("RGB", size), patch, count)
    assert fitted.size == expected


def test_fit_patches_keeps_the_middle_and_the_ratio():
    """A square in the middle of a picture stays one, in the middle."""
    picture = Image.new("L", (400, 200))
    picture.paste(255, (150, 50, 250, 150))
    fitted = np.asarray(fit_patches(picture, 14, 200).convert("L")) > 127
    rows, columns = np.flatnonzero(fitted.any(1)), np.flatnonzero(fitted.any(0))
    assert abs(len(rows) - len(columns)) <= 1 and abs(len(rows) - 70) <= 1
    assert abs(rows.mean() - (fitted.shape[0] - 1) / 2) <= 1 and abs(columns.mean() - (fitted.shape[1] - 1) / 2) <= 1
