"""Damaged files, drawn by hypothesis: a reader gives the right result or one MinivitError, a command an exit code."""

import contextlib
import copy
import io
import json
import math
import re
import shutil
import signal
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from minivit import images, nn, optim, training, weights
from minivit.__main__ import main
from minivit.config import ViTConfig
from minivit.datasets import Dataset
from minivit.errors import MinivitError
from minivit.vit import ViTForImageClassification, ViTModel

GOLDEN = Path(__file__).parent / "golden"
CAT = np.asarray(images.open_image(images.photo()).resize((12, 12)))  # (12, 12, 3) uint8
FOLDERS = {path.parent.name: path.parent for path in sorted(GOLDEN.glob("**/config.json"))}
PREPROCESSORS = (
    weights.preprocessor(12, 0.5, 0.5, 3),
    {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 14},
        "crop_size": {"height": 12, "width": 12},
        "default_to_square": False,
        "do_convert_rgb": True,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        **dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize"), True),
    },
)


def examples(count):
    """The same examples in every run, as many as a moment is enough for."""
    allowed = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=allowed)


# ---- damage


def nested(depth):
    value = 1
    for number in range(depth):
        value = {"a": value} if number % 2 else [value]
    return value


ODD = st.one_of(
    st.sampled_from([None, True, False, 0, -1, 1, 2, 3, 4, 12, 24, 2**20, 2**31, 2**63, -(2**63), 10**30, 10**400]),
    st.sampled_from([0.0, -0.0, 0.5, 1.5, 1e-300, 1e300, math.inf, -math.inf, math.nan, nested(40), nested(60)]),
    st.sampled_from(["", "0", "12", "cat", "\x1b]0;pwn\x07", "\ud800", "a" * 10_000, [], {}, [[]], [{}], {"": None}]),
    st.integers(-3, 40),
    st.lists(st.sampled_from([None, True, 0, 1, -1, 4, 12, 0.5, "a", [], 2**40]), max_size=4),
    st.dictionaries(st.sampled_from(["0", "1", "-1", "x", "height", "width", "shortest_edge"]), st.integers(-1, 20)),
)


@st.composite
def documents(draw, document, extra=()):
    """A copy of a JSON document with one to three entries replaced, left out, renamed or added, at any depth."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(document)
        inside, key = draw(st.sampled_from(places)) if places else (document, "x")
        what = draw(st.sampled_from(["replace", "replace", "leave out", "rename", "add"]))
        if what == "replace":
            inside[key] = copy.deepcopy(draw(ODD))
        elif what == "leave out":
            del inside[key]
        elif what == "rename" and isinstance(inside, dict):
            inside[draw(st.sampled_from([f"{key}s", str(key).upper(), f"_{key}", "", "self", "kwargs", "0"]))] = (
                inside.pop(key)
            )
        else:
            names = st.sampled_from([*extra, "x"])
            document[draw(names)] = copy.deepcopy(draw(ODD))
    return document


def _places(value):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    items = list(items)
    return [(value, key) for key, _ in items] + [place for _, inner in items for place in _places(inner)]


@st.composite
def damaged(draw, data, head=None):
    """Bytes with one to four of: bits flipped, a number put in, a piece cut out, doubled, moved, or the end cut off.

    head: half of the damage falls into so many bytes at the beginning.
    """
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        length = len(data) if head is None or draw(st.booleans()) else min(head, len(data))
        at = draw(st.integers(0, max(length - 1, 0)))
        size = draw(st.sampled_from([1, 2, 4, 8, 16, 100, 1000]))
        piece = data[at : at + size]
        what = draw(st.sampled_from(["flip", "flip", "number", "cut", "double", "move", "end"]))
        if what == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "number":
            number = draw(st.sampled_from([0, 1, 0xFF, 0xFFFF, 0xFFFFFFFF, 2**63, 2**64 - 1]))
            data[at : at + 8] = number.to_bytes(8, draw(st.sampled_from(["big", "little"])))[: len(data) - at]
        elif what == "double":
            data[at:at] = piece
        elif what in ("cut", "move"):
            del data[at : at + size]
            if what == "move":
                place = draw(st.integers(0, len(data)))
                data[place:place] = piece
        elif what == "end":
            del data[at:]
    return bytes(data)


def given_or_refused(read, *args, **options):
    """What the reader gives, or None after one MinivitError whose text is short enough to be read."""
    try:
        return read(*args, **options)
    except MinivitError as error:
        text = str(error)
        assert text.replace("\n", "").isprintable() and len(text) < 20_000
        return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An empty folder for all examples of a test."""
    return tmp_path_factory.mktemp("damaged")


def fill(folder, name, **files):
    """The golden folder of this name, in an empty `folder`; files: JSON or bytes in place of its own, None for none."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in FOLDERS[name].iterdir():
        if path.name in ("config.json", "model.safetensors"):
            shutil.copyfile(path, folder / path.name)
    for path, data in files.items():
        if data is None:
            (folder / path.replace("__", ".")).unlink()
            continue
        data = data if isinstance(data, bytes) else json.dumps(data).encode("utf-8", "surrogatepass")
        (folder / path.replace("__", ".")).write_bytes(data)
    return folder


# ---- config.json


def check_config(folder, name, fields):
    fill(folder, name, config__json=fields)
    config = given_or_refused(ViTConfig.from_pretrained, folder)
    if config is not None:
        again = ViTConfig.from_json_string(config.to_json_string())
        assert again.to_json_string() == config.to_json_string()
        assert config.hidden_size % config.num_attention_heads == 0 and config.num_labels == len(config.class_names)
        for key in ("hidden_size", "num_hidden_layers", "patch_size", "layer_norm_eps", "hidden_act", "qkv_bias"):
            if key in fields:
                value = getattr(config, key)
                assert (list(value) if isinstance(value, tuple) else value) == fields[key], key
    model = given_or_refused(ViTForImageClassification.from_pretrained, folder)
    if model is not None:
        with np.errstate(all="ignore"):
            x = np.zeros((1, model.config.num_channels, *model.vit.embeddings.patch_embeddings.image_size), np.float32)
            assert model(x).logits.shape == (1, model.config.num_labels)


def quiet(check, *args):
    """check(*args), and what is only warned of (a head that was drawn) is not looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        check(*args)


EXTRA = ("num_labels", "problem_type", "head_dim", "pruned_heads", "torch_dtype", "dtype", "mlp_ratio", "architecture")
CONFIGS = st.sampled_from(sorted(FOLDERS)).flatmap(
    lambda name: st.tuples(st.just(name), documents(json.loads((FOLDERS[name] / "config.json").read_text()), EXTRA))
)


@examples(100)
@given(case=CONFIGS)
def test_a_damaged_config_is_obeyed_or_refused(case, folder):
    quiet(check_config, folder / "model", *case)


# ---- model.safetensors


def raw(path):
    """{name: array} of a safetensors file, by its format alone, or None."""
    data = path.read_bytes()
    try:
        end = 8 + struct.unpack_from("<Q", data)[0]
        header = json.loads(data[8:end])
        header.pop("__metadata__", None)
        kinds = {"F32": "<f4", "F64": "<f8", "F16": "<f2"}
        return {
            name: np.frombuffer(data[end + x["data_offsets"][0] : end + x["data_offsets"][1]], kinds[x["dtype"]])
            .reshape(x["shape"])
            .astype(np.float32 if x["dtype"] != "F64" else np.float64)
            for name, x in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError):
        return None


def check_weights(folder, name, data):
    fill(folder, name, model__safetensors=data)
    with np.errstate(all="ignore"):
        found = given_or_refused(weights.read_folder, folder)
        if found is None:
            return
        arrays = raw(folder / "model.safetensors")
        assert arrays is not None and all(np.isfinite(x).all() for x in arrays.values())
        if json.loads((folder / "config.json").read_text()).get("model_type") == "vit":
            assert {n.removeprefix("x") for n in found[1]} == {weights.hub_name(n).removeprefix("x") for n in arrays}
            for tensor, array in arrays.items():
                np.testing.assert_array_equal(found[1][weights.hub_name(tensor)], array)
        model = given_or_refused(ViTModel.from_pretrained, folder)
        if model is not None:
            assert {p.dtype for p in model.parameters()} == {np.dtype(np.float32)}
            model(np.zeros((1, 3, 12, 12), np.float32))


def headed(data):
    """The number of bytes of a safetensors file that come before its numbers."""
    return 8 + struct.unpack_from("<Q", data)[0]


SAFETENSORS = st.sampled_from(sorted(FOLDERS)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        (lambda data: damaged(data, headed(data)))((FOLDERS[name] / "model.safetensors").read_bytes()),
    )
)


@examples(150)
@given(case=SAFETENSORS)
def test_damaged_weights_are_the_file_s_numbers_or_refused(case, folder):
    quiet(check_weights, folder / "model", *case)


def header_of(data):
    return json.loads(data[8 : headed(data)])


def with_header(data, header):
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data[headed(data) :]


HEADERS = st.sampled_from(sorted(FOLDERS)).flatmap(
    lambda name: (
        lambda data: st.tuples(st.just(name), documents(header_of(data)).map(lambda header: with_header(data, header)))
    )((FOLDERS[name] / "model.safetensors").read_bytes())
)


@examples(100)
@given(case=HEADERS)
def test_weights_with_a_damaged_header_are_the_file_s_numbers_or_refused(case, folder):
    quiet(check_weights, folder / "model", *case)


# ---- preprocessor_config.json


def seen(described, picture):
    """(C, H, W): a picture (H, W, C) as transformers' processors with Pillow show it to a model; see their source."""
    other = described.get("image_processor_type") == "BitImageProcessor"
    default = {"do_resize": True, "do_center_crop": other, "do_rescale": True, "do_normalize": True, "size": 224}
    default |= {"crop_size": 224, "resample": 3 if other else 2, "default_to_square": not other, "image_mean": 0.5}
    default |= {"image_std": 0.5, "rescale_factor": 1 / 255}
    if other:
        default["image_mean"] = [0.48145466, 0.4578275, 0.40821073]
        default["image_std"] = [0.26862954, 0.26130258, 0.27577711]
    given = default | described
    image = Image.fromarray(picture)
    if given["do_resize"]:
        size = given["size"]
        if isinstance(size, int):
            size = {"height": size, "width": size} if given["default_to_square"] else {"shortest_edge": size}
        size = [*size] if isinstance(size, list) else [size.get("height"), size.get("width"), size.get("shortest_edge")]
        if len(size) == 3 and size[0] is None:
            short, long = sorted(image.size)
            sides = size[2], int(size[2] * long / short)
            size = sides if image.width >= image.height else sides[::-1]
        image = image.resize((size[1], size[0]), given["resample"])
    if given["do_center_crop"]:
        rows, columns = _pair(given["crop_size"])
        padded = np.zeros((max(rows, image.height), max(columns, image.width), 3), np.uint8)
        top, left = -((image.height - len(padded)) // 2), -((image.width - padded.shape[1]) // 2)
        padded[top : top + image.height, left : left + image.width] = np.asarray(image)
        top, left = (len(padded) - rows) // 2, (padded.shape[1] - columns) // 2
        image = Image.fromarray(padded[top : top + rows, left : left + columns])
    x = np.asarray(image).transpose(2, 0, 1)
    x = (x.astype(np.float64) * given["rescale_factor"]).astype(np.float32) if given["do_rescale"] else np.float32(x)
    if given["do_normalize"]:
        # one number for all channels may be written for any number of them
        pair = [np.float32(given[key]).reshape(-1, 1, 1) for key in ("image_mean", "image_std")]
        mean, std = (x[:1] if (x == x[:1]).all() else x for x in pair)
        x = (x - mean) / std
    return x


def _pair(size):
    if isinstance(size, dict):
        return size["height"], size["width"]
    return size if isinstance(size, list) else (size, size)


def check_preprocessor(folder, described):
    fill(folder, "hf_tiny", preprocessor_config__json=described)
    found = given_or_refused(weights.read_preprocessor, folder)
    options = None if found is None else given_or_refused(weights.picture_options, found, 3)
    sides = [options[name] or 0 for name in ("size", "crop", "shortest_edge")] if options else [1000]
    if np.max(np.concatenate([np.ravel(side) for side in sides])) < 1000:  # no more than a moment
        with np.errstate(all="ignore"):
            found = given_or_refused(images.pixel_values, CAT[:9], **options)
            if found is not None:
                np.testing.assert_array_equal(found, seen(described, CAT[:9]))


EXTRA_KEYS = ("do_pad", "do_flip", "crop_pct", "do_convert_rgb", "default_to_square", "crop_size", "size", "resample")
DESCRIBED = st.sampled_from(PREPROCESSORS).flatmap(lambda document: st.tuples(documents(document, EXTRA_KEYS)))


@examples(200)
@given(case=DESCRIBED)
def test_a_damaged_preprocessor_is_obeyed_or_refused(case, folder):
    quiet(check_preprocessor, folder / "model", *case)


# ---- training.npz


class Brightest(nn.Module):
    """A small classifier of pictures (B, 1, 4, 4)."""

    def __init__(self, rng=0):
        rng = np.random.default_rng(rng)
        self.dropout = nn.Dropout(0.2, rng)
        self.head = nn.Linear(16, 3, rng=rng)

    def forward(self, x):
        return self.head(self.dropout(x.reshape(len(x), 16)))


def fit(path, epochs=3, rng=0, resume=False, steps=math.inf):
    """Train, or go on. Returns (model, history); after so many steps it is stopped, as by Ctrl-C."""
    pixels = np.random.default_rng(0).integers(0, 255, (11, 1, 4, 4), dtype=np.uint8)
    data, model, count = Dataset(pixels, np.arange(11) % 3, ["a", "b", "c"]), Brightest(rng), [0]

    def pressing(x, rng):
        count[0] += 1
        if count[0] == steps:
            signal.raise_signal(signal.SIGINT)
        return x

    optimizer = optim.AdamW(model.parameters(), lr=0.02)
    average = optim.ExponentialMovingAverage(model.parameters())
    options = {"epochs": epochs, "batch_size": 4, "optimizer": optimizer, "average": average, "augment": pressing}
    try:
        history = training.fit(model, data, data, **options, checkpoint=path, resume=resume, verbose=False)
    except training.Interrupted:
        return model, None
    except MinivitError:
        for parameter, before in zip(model.parameters(), Brightest(rng).parameters(), strict=True):
            np.testing.assert_array_equal(parameter.data, before.data)  # nothing was taken from what is refused
        raise
    return model, history


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A training stopped in the middle of its second epoch: (path, weights that it ends with)."""
    folder = tmp_path_factory.mktemp("state")
    whole, _ = fit(folder / "whole" / "training.npz")
    fit(folder / "stopped" / "training.npz", steps=5)
    return folder / "stopped" / "training.npz", [parameter.data for parameter in whole.parameters()]


def npz(arrays, meta):
    file = io.BytesIO()
    np.savez(file, **arrays, **{"meta.json": json.dumps(meta)})
    return file.getvalue()


def check_state(path, data, expected=None):
    """A state is read as NumPy reads it; a training goes on from it as if it had not been touched, or is refused."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    found = given_or_refused(weights.read_state, path)
    if found is not None:
        with np.lib.npyio.NpzFile(path) as archive:  # np.load looks at the first bytes only
            assert {*archive.files} == {*found[0], "meta.json"}
            for name, array in found[0].items():
                np.testing.assert_array_equal(array, archive[name])
    going_on = given_or_refused(fit, path, rng=1, resume=True)
    if going_on is not None:
        model, history = going_on
        assert [row["epoch"] for row in history] == [1, 2, 3]
        assert all(math.isfinite(row["train_loss"]) for row in history)
        for number, parameter in enumerate(model.parameters()):
            assert np.isfinite(parameter.data).all()
            if expected is not None:
                np.testing.assert_array_equal(parameter.data, expected[number])


@examples(60)
@given(data=st.data())
def test_a_training_goes_on_from_damaged_bytes_as_from_whole_ones_or_refuses_them(data, state, folder):
    path, expected = state
    check_state(folder / "training.npz", data.draw(damaged(path.read_bytes())), expected)


@examples(80)
@given(data=st.data())
def test_a_training_goes_on_from_other_meta_data_or_refuses_them(data, state, folder):
    path, _ = state
    arrays, meta = weights.read_state(path)
    check_state(folder / "training.npz", npz(arrays, data.draw(documents(meta))))


@st.composite
def states(draw, arrays):
    """Named arrays with one to three left out, swapped, or of another shape, dtype or value."""
    arrays = {name: array.copy() for name, array in arrays.items()}
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(arrays)))
        array = arrays.pop(name)
        what = draw(st.sampled_from(["leave out", "rename", "swap", "shape", "dtype", "value", "size"]))
        if what == "rename":
            arrays[f"{name}{draw(st.sampled_from(['.0', 'x', '/', '/../x']))}"] = array
        elif what == "swap" and arrays:
            other = draw(st.sampled_from(sorted(arrays)))
            arrays[name], arrays[other] = arrays[other], array
        elif what == "shape":
            arrays[name] = draw(st.sampled_from([array[None], array.reshape(-1), array.ravel()[:0], array.T]))
        elif what == "dtype":
            kinds = ["f2", "f4", "f8", "i1", "i8", "u1", "?", "U3", ">f4", "c16", "M8[s]", "S3", "V4"]
            with contextlib.suppress(TypeError, ValueError), np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                arrays[name] = array.astype(draw(st.sampled_from(kinds)))
        elif what == "value":
            with np.errstate(all="ignore"):
                value = draw(st.sampled_from([np.nan, np.inf, -1, 1e30, 10**9, 0]))
                array = np.atleast_1d(array).copy()
                array.flat[draw(st.integers(0, 200)) % array.size] = np.float64(value).astype(array.dtype)
                arrays[name] = array
        elif what == "size":
            arrays[name] = np.zeros((10**6,), np.float32)
    return arrays


@examples(80)
@given(data=st.data())
def test_a_training_goes_on_from_other_arrays_or_refuses_them(data, state, folder):
    path, _ = state
    arrays, meta = weights.read_state(path)
    check_state(folder / "training.npz", npz(data.draw(states(arrays)), meta))


# ---- photos

MODES = ("L", "RGB", "RGBA", "LA", "P", "1", "CMYK", "I", "I;16", "F", "YCbCr", "LAB", "HSV", "PA")


def pictures(modes=MODES):
    """[(format and mode, bytes)]: a small picture in every format that Pillow writes, in every mode that it has."""
    Image.init()
    made = []
    for mode in modes:
        picture = Image.fromarray(np.rint(CAT[..., 1] / 3).astype(np.float32)) if mode == "F" else Image.fromarray(CAT)
        for name in sorted(Image.SAVE):
            if name in ("EPS", "PDF", "PALM", "MPO", "IPTC", "XPM"):
                continue
            file = io.BytesIO()
            exif = Image.Exif()
            exif[0x0112] = 6
            exif[0x010F] = "minivit"
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                picture.convert(mode).crop((0, 0, 12, 9)).save(file, name, exif=exif)
                made.append((f"{name} {mode}", file.getvalue()))
    return made


def by_pillow(path):
    """[pictures, any of which is right] by Pillow alone; "grey" of more than 8 bits, whose range is judged; or None."""
    try:
        # of an open file, Pillow maps no TIFF into memory: by its path, one that is to be turned comes out scrambled
        with warnings.catch_warnings(action="ignore"), path.open("rb") as file, Image.open(file) as image:
            if image.format in ("EPS", "WMF", "IPTC"):
                return None
            image.load()
            if image.mode == "F" or image.mode.startswith("I"):
                return "grey"
            if image.has_transparency_data:
                return "drawing"
            plain = image.convert("RGB")
            try:
                turned = [ImageOps.exif_transpose(image).convert("RGB")]
            except Exception:  # of damaged metadata, no turn is the right one for sure
                turned = [plain, *map(plain.transpose, Image.Transpose)]
            return [np.asarray(picture) for picture in turned]
    except Exception:
        return None


def check_photo(path, name, data):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    picture = given_or_refused(images.open_image, path)
    expected = by_pillow(path)
    if picture is None:
        assert expected in (None, "grey") or expected == "drawing" or len(expected[0]) > 10**4, "Pillow reads it"
        return
    assert picture.mode == "RGB" and expected is not None
    if not isinstance(expected, str):
        assert any(x.shape == np.asarray(picture).shape and (x == np.asarray(picture)).all() for x in expected)


PICTURES = pictures()
PHOTOS = st.sampled_from(PICTURES).flatmap(lambda made: st.tuples(st.just(made[0]), damaged(made[1], 300)))


@pytest.mark.parametrize(("name", "data"), PICTURES, ids=[name for name, _ in PICTURES])
def test_every_picture_that_pillow_writes_is_read_as_pillow_reads_it(name, data, folder):
    quiet(check_photo, folder / "photo.jpg", name, data)


@examples(250)
@given(case=PHOTOS)
def test_a_damaged_photo_is_read_as_pillow_reads_it_or_refused(case, folder):
    quiet(check_photo, folder / "photo.jpg", *case)


# ---- the command line


def run(*args):
    """`minivit ARGS` ends with exit code 0 or 2, and shows no fault of the program. Returns (code, what it printed)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(arg) for arg in args])
    out, err = out.getvalue(), err.getvalue()
    assert code in (0, 2) and "Traceback" not in out + err and (code == 2) == bool(err.strip()), err
    assert (out + err).replace("\n", "").isprintable() and not re.search(r"\b(nan|inf)\b", out), out + err
    return code, out


def check_commands(folder, name, files, photo):
    """Each command answers or refuses; what was exported or imported answers as the model that it came from."""
    model, cat = fill(folder, name, **files), folder.with_name("photo")
    cat.write_bytes(photo)
    code, answer = run("predict", model, cat)
    for command in ("export", "import"):
        out = folder.with_name(command)
        shutil.rmtree(out, ignore_errors=True)
        done, _ = run(command, model, out)
        assert out.exists() == (done == 0)
        if done == 0 and code == 0:
            assert run("predict", out, cat) == (0, answer)
    data = folder.with_name("data")
    shutil.rmtree(data, ignore_errors=True)
    for number in range(5):
        (data / f"LABEL_{number}").mkdir(parents=True)
        for other in range(2):
            Image.fromarray(CAT).save(data / f"LABEL_{number}" / f"{other}.png")
    (data / "LABEL_0" / "2.jpg").write_bytes(photo)
    run("evaluate", model, data, *["--strict"] * (len(photo) % 2))


def packed(folder):
    """The bytes of a training.npz with the weights of a golden folder and no training to go on with."""
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    return npz({f"model/{name}": array for name, array in arrays.items()}, {})


@st.composite
def folders(draw):
    """(name, files, photo): a golden folder, one of its files damaged, or the photo that it is asked about."""
    kinds = ["config", "preprocessor", "weights", "header", "state", "photo", "bytes"]
    kind, (name, photo) = draw(st.sampled_from(kinds)), draw(st.sampled_from(PICTURES))
    name, files = draw(st.sampled_from([name for name in sorted(FOLDERS) if name != "hf_masked"])), {}
    whole = (FOLDERS[name] / "model.safetensors").read_bytes()
    config = json.loads((FOLDERS[name] / "config.json").read_text())
    if kind == "config":
        files["config__json"] = draw(documents(config, EXTRA))
    elif kind == "preprocessor":
        files["preprocessor_config__json"] = draw(documents(draw(st.sampled_from(PREPROCESSORS)), EXTRA_KEYS))
    elif kind == "weights":
        files["model__safetensors"] = draw(damaged(whole, headed(whole)))
    elif kind == "header":
        files["model__safetensors"] = with_header(whole, draw(documents(header_of(whole))))
    elif kind == "state":
        name = "hf_tiny"
        files |= {"model__safetensors": None, "training__npz": draw(damaged(packed(FOLDERS[name])))}
    elif kind == "photo":
        photo = draw(damaged(photo, 300))
    else:
        texts = {"config__json": config, "preprocessor_config__json": PREPROCESSORS[0]}
        file = draw(st.sampled_from(sorted(texts)))
        files[file] = draw(damaged(json.dumps(texts[file]).encode()))
    return name, files, photo


@examples(40)
@given(case=folders())
def test_commands_answer_or_refuse(case, folder):
    quiet(check_commands, folder / "model", *case)
