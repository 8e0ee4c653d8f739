"""Data sets: what is in the files comes out, is read only when needed, and each bad file is named in one message."""

import contextlib
import gzip
import io
import os
import re
import tracemalloc
import warnings
from math import prod

import numpy as np
import pytest
from PIL import Image

from minivit import datasets
from minivit.datasets import Dataset, Photos, cifar10, digits, image_folder, load, mnist
from minivit.errors import FileError, MinivitError, ShapeError
from minivit.images import open_image, photo, pixel_values

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (11, 3, 5, 7), dtype=np.uint8)  # (N, C, H, W)
LABELS = np.array([2, 0, 1, 1, 2, 0, 2, 2, 1, 0, 2])
NAMES = ["ant", "bee", "cat"]


def arrays():
    return Dataset(PIXELS, LABELS, NAMES)


def deferred():
    """The same, and a list that grows with each reading."""
    calls = []

    def read():
        calls.append("read")
        return PIXELS

    return Dataset(read, LABELS, NAMES, PIXELS.shape[1:]), calls


# ---- Dataset


def test_dataset_tells_what_it_is():
    data = arrays()
    assert (len(data), data.num_channels, data.image_size, data.class_names) == (11, 3, (5, 7), NAMES)
    np.testing.assert_array_equal(data.images, PIXELS)
    assert Dataset(PIXELS, LABELS.astype(np.uint8), NAMES).labels.dtype == np.int64


def test_repr_says_what_it_holds_without_reading_it():
    data, calls = deferred()
    assert repr(data) == "Dataset: 11 pictures (3, 5, 7), 3 classes 'ant' 'bee' 'cat'"
    assert repr(data.subset([0]).only([2])) == "Dataset: 1 picture (3, 5, 7), 1 class 'cat'" and calls == []
    many = Dataset(PIXELS, LABELS, range(11))
    assert repr(many).endswith(" 11 classes '0' '1' '2' '3' '4' '5' '6' '7' '8' '9' ...")


@pytest.mark.parametrize("index", [0, 3, 10, -1, -11, np.int64(4), np.array(2)], ids=repr)
def test_one_example_is_its_pixels_and_its_label(index):
    data = arrays().scaled(0.25, 0.5)
    pixels, label = data[index]
    np.testing.assert_array_equal(pixels, data.batch([index])[0][0])
    assert pixels.shape == (3, 5, 7) and pixels.dtype == np.float32
    assert label == LABELS[index] and type(label) is int


@pytest.mark.parametrize("index", [slice(2, 5), slice(None, None, -1), [7, 2, 2], LABELS == 1, []], ids=str)
def test_a_slice_a_list_and_a_mask_give_a_dataset(index):
    data, calls = deferred()
    some = data[index]
    assert isinstance(some, Dataset) and len(some) == len(LABELS[index]) and calls == []
    np.testing.assert_array_equal(some.images, PIXELS[index])
    np.testing.assert_array_equal(some.labels, LABELS[index])
    assert some.class_names == NAMES


@pytest.mark.parametrize(
    "index, what",
    [
        (11, "index 11 is out of bounds"),
        (-12, "index -12 is out of bounds"),
        ([0, 11], "index 11 is out of bounds"),
        ("cat", "only integers, slices"),
        (1.5, "only integers, slices"),
        ((0, 1), "too many indices"),
        (np.array([True, False]), "boolean index did not match"),
    ],
    ids=str,
)
def test_an_index_at_which_there_is_nothing_is_explained(index, what):
    with pytest.raises(IndexError, match=rf"^Dataset: {what}.*\n  rule: -11 <= index < 11; or a slice, ") as caught:
        arrays()[index]
    assert isinstance(caught.value, MinivitError)


def test_a_loop_over_a_dataset_gives_every_example_in_order():
    data = arrays()
    pixels, labels = zip(*data, strict=True)
    np.testing.assert_array_equal(np.stack(pixels), data.batch(slice(None))[0])
    assert list(labels) == LABELS.tolist()
    assert [label for _, label in data] == list(labels)  # and again


# ---- batches


def epoch(batches):
    """The rows of PIXELS in the order in which a loop over batches gives them, each with its label checked."""
    found = []
    for pixels, labels in batches:
        rows = [np.flatnonzero((np.rint((x + 1) * 127.5) == PIXELS).all((1, 2, 3))).item() for x in pixels]
        np.testing.assert_array_equal(labels, LABELS[rows])
        found.append(rows)
    return found


def test_batches_go_in_order_and_the_last_takes_what_is_left():
    batches = arrays().batches(4)
    assert len(batches) == 3
    assert epoch(batches) == epoch(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert [len(arrays().batches(size)) for size in (1, 10, 11, 12)] == [11, 2, 1, 1]
    assert epoch(arrays().batches(50)) == [list(range(11))]
    assert list(arrays().subset([]).batches(4)) == [] and len(arrays().subset([]).batches(4)) == 0


def test_a_seed_shuffles_every_epoch_alike_and_a_generator_each_anew():
    order = np.random.default_rng(5).permutation(11).tolist()
    assert sorted(order) == list(range(11)) != order
    seeded = arrays().batches(4, rng=5)
    assert epoch(seeded) == epoch(seeded) == epoch(arrays().batches(4, 5)) == [order[:4], order[4:8], order[8:]]
    moving, expected = arrays().batches(11, np.random.default_rng(5)), np.random.default_rng(5)
    first, second = epoch(moving), epoch(moving)
    assert [first[0], second[0]] == [expected.permutation(11).tolist() for _ in range(2)]


def test_batches_are_those_of_batch_and_read_nothing_before():
    data, calls = deferred()
    batches = data.scaled(0.25, 0.5).batches(3, rng=1)
    assert len(batches) == 4 and calls == []
    order = np.random.default_rng(1).permutation(11)
    for at, (pixels, labels) in enumerate(batches):
        expected = arrays().scaled(0.25, 0.5).batch(order[3 * at : 3 * at + 3])
        np.testing.assert_array_equal(pixels, expected[0])
        np.testing.assert_array_equal(labels, expected[1])
    labels[:] = 99  # they are the loop's own
    assert data.labels.max() == 2


@pytest.mark.parametrize("size", [0, -1, 2.5, "4", None, True])
def test_batches_refuses_what_is_no_size(size):
    with pytest.raises(MinivitError, match=r"^batches: batch_size=.*\n  rule: batch_size is a whole number"):
        arrays().batches(size)


@pytest.mark.parametrize("channels", [1, 3])
def test_batch_scales_as_pixel_values_does_to_the_last_bit(channels):
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(channels, axis=1)  # (1, C, 16, 16)
    pixels, labels = Dataset(every, [0], ["a"]).batch([0])
    expected = pixel_values(every[0].transpose(1, 2, 0), size=16)
    assert pixels.dtype == np.float32 and labels.tolist() == [0]
    assert (pixels.min(), pixels.max()) == (-1, 1)
    np.testing.assert_array_equal(pixels[0], expected)


@pytest.mark.parametrize("indices", [[7, 2, 2], np.array([-1]), slice(3, 9, 2), LABELS == 1, []], ids=str)
def test_batch_and_subset_take_the_same_rows(indices):
    pixels, labels = arrays().batch(indices)
    subset = arrays().subset(indices)
    np.testing.assert_array_equal(labels, LABELS[indices])
    np.testing.assert_array_equal(np.rint((pixels + 1) * 127.5), PIXELS[indices])
    np.testing.assert_array_equal(subset.images, PIXELS[indices])
    np.testing.assert_array_equal(subset.labels, LABELS[indices])
    assert subset.class_names == NAMES


def test_images_are_read_when_first_needed_and_once():
    data, calls = deferred()
    chosen = data.subset([4, 1]).only([0, 2])
    assert (len(chosen), chosen.image_size, chosen.num_channels, calls) == (2, (5, 7), 3, [])
    np.testing.assert_array_equal(chosen.images, PIXELS[[4, 1]])
    chosen.batch([0])
    data.batch([0])
    assert calls == ["read"]


def test_only_relabels_in_the_order_given():
    chosen = arrays().only([2, 0])
    rows = np.flatnonzero(LABELS != 1)
    np.testing.assert_array_equal(chosen.images, PIXELS[rows])
    assert chosen.labels.tolist() == [{2: 0, 0: 1}[label] for label in LABELS[rows]]
    assert chosen.class_names == ["cat", "ant"]


@pytest.mark.parametrize("classes", [[], [0, 3], [-1], [1, 1], ["ant"]], ids=str)
def test_only_refuses_what_is_no_class(classes):
    with pytest.raises(MinivitError, match=r"only: classes=.*\n  rule: whole numbers from 0 to 2, none twice"):
        arrays().only(classes)


def test_few_draws_so_many_of_each_class_without_replacement():
    drawn = arrays().few(3, np.random.default_rng(1))
    assert drawn.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    rows = [
        [np.flatnonzero((PIXELS == image).all((1, 2, 3))).item() for image in arrays().few(2, seed).images]
        for seed in range(20)
    ]
    for chosen in rows:
        assert len(set(chosen)) == 6 and LABELS[chosen].tolist() == [0, 0, 1, 1, 2, 2]
    assert {row for chosen in rows for row in chosen} == set(range(11))  # every example has its chance


def test_few_follows_the_generator():
    rng = np.random.default_rng(5)
    first, second = arrays().few(2, rng), arrays().few(2, rng)
    np.testing.assert_array_equal(first.images, arrays().few(2, 5).images)
    assert (first.images != second.images).any()


@pytest.mark.parametrize("per_class", [0, 4])
def test_few_names_the_smallest_class(per_class):
    with pytest.raises(MinivitError, match=r"few: \d examples.*\n  rule: 1 <= per_class <= 3, .* class 'ant'"):
        arrays().few(per_class, 0)


@pytest.mark.parametrize(
    "images, labels, message",
    [
        (PIXELS.astype(np.float32), LABELS, "images .* float32"),
        (PIXELS[0], LABELS[:3], r"images \(3, 5, 7\)"),
        (PIXELS, LABELS[:-1], r"images .* and labels \(10,\)"),
        (PIXELS, LABELS * 1.0, "images .* and labels .* float64"),
        (PIXELS, LABELS + 1, "labels from 1 to 3"),
        (PIXELS, LABELS - 1, "labels from -1 to 1"),
    ],
)
def test_dataset_refuses_what_does_not_fit_together(images, labels, message):
    with pytest.raises(ShapeError, match=f"Dataset: {message}"):
        Dataset(images, labels, NAMES)


# ---- digits


def test_digits_are_the_documented_split_in_grey():
    train, test = digits()
    with np.load(photo("digits.npz"), allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    assert (len(train), len(test), train.image_size, train.num_channels) == (898, 899, (8, 8), 1)
    assert train.class_names == test.class_names == list("0123456789")
    both = np.concatenate([train.images, test.images])[:, 0]  # (N, 8, 8)
    assert both.dtype == np.uint8
    grey = [round(value * 255 / 16) for value in range(17)]
    assert (grey[0], grey[16]) == (0, 255)
    np.testing.assert_array_equal(both, np.array(grey)[images])
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), labels)


# ---- MNIST

TRAIN, TEST = PIXELS[:7, 0], PIXELS[7:, 1]  # (7, 5, 7), (4, 5, 7)
IMAGES = "train-images-idx3-ubyte"


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def write_mnist(folder, dot="-", gz=False, **changed):
    """The four files; changed: the bytes of some, by train_images, t10k_labels ... before they are packed."""
    contents = {
        "train_images": idx(TRAIN),
        "train_labels": idx(LABELS[:7]),
        "t10k_images": idx(TEST),
        "t10k_labels": idx(LABELS[7:]),
    } | changed
    for name, data in contents.items():
        name = name.replace("_", "-") + dot + ("idx3" if "images" in name else "idx1") + "-ubyte"
        (folder / (name + ".gz" * gz)).write_bytes(gzip.compress(data) if gz else data)
    return folder


def read_mnist(folder):
    return [split.images for split in mnist(folder)]


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("dot", "-.")
def test_mnist_reads_every_spelling(tmp_path, dot, gz):
    (tmp_path / IMAGES).mkdir()  # some unpack each file into a folder of the same name
    folder = write_mnist(tmp_path, dot=".", gz=gz) if dot == "." else write_mnist(tmp_path / IMAGES, gz=gz)
    train, test = mnist(folder)
    assert (len(train), len(test), train.image_size, train.num_channels) == (7, 4, (5, 7), 1)
    np.testing.assert_array_equal(train.images[:, 0], TRAIN)
    np.testing.assert_array_equal(test.images[:, 0], TEST)
    assert train.labels.tolist() + test.labels.tolist() == LABELS.tolist()
    assert train.class_names == list("0123456789")


def test_mnist_unpacks_by_content_not_by_name(tmp_path):
    """Browsers unpack a download and leave its name."""
    for file in write_mnist(tmp_path).iterdir():
        file.rename(f"{file}.gz")
    np.testing.assert_array_equal(read_mnist(tmp_path)[1][:, 0], TEST)


def test_mnist_reads_pixels_when_first_needed(tmp_path):
    train, test = mnist(write_mnist(tmp_path))
    kept = train.images
    for file in tmp_path.iterdir():
        file.unlink()
    assert train.images is kept
    with pytest.raises(FileError, match=r"t10k-images-idx3-ubyte: cannot be read: .*No such file"):
        test.batch([0])


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize(
    "changed, message",
    [
        ({"train_images": b""}, r"train-images\S*: begins with the bytes \(none\)"),
        ({"train_images": b"<!DOCTYPE html>"}, r"train-images\S*: begins with the bytes 3c 21 44 4f(.|\n)*web page"),
        ({"t10k_images": idx(LABELS)}, r"t10k-images\S*: begins .* 00 00 08 01.\n.*pictures .* with 00 00 08 03"),
        ({"t10k_labels": idx(TEST)}, r"t10k-labels\S*: begins .* 00 00 08 03.\n.*labels .* with 00 00 08 01"),
        ({"train_images": idx(TRAIN)[:15]}, r"train-images\S*: has the header 00 00 08 03 .* 00 00\.\n.*3 sizes"),
        ({"train_images": idx(TRAIN[:0]), "train_labels": idx(LABELS[:0])}, r"train-images\S*: has the header"),
        ({"train_images": idx(TRAIN)[:-1]}, r"train-images\S*: is too short.\n.*7 \* 5 \* 7 = 245 bytes, not 244"),
        ({"t10k_images": idx(TEST) + b"!"}, r"t10k-images\S*: is too long.\n.*4 \* 5 \* 7 = 140 bytes, not 141"),
        ({"t10k_labels": idx(LABELS[7:])[:-2]}, r"t10k-labels\S*: is too short.\n.*4 = 4 bytes, not 2"),
        ({"train_labels": idx(LABELS[:6])}, r"train-labels\S*: holds 6 labels for the 7 pictures of train-images"),
        ({"t10k_labels": idx(LABELS[7:] * 9)}, r"t10k-labels\S*: label 18 at row 0, 2 wrong of 4.\n  rule: 0 <= lab"),
        ({"t10k_images": idx(TEST[:, :, 1:])}, r"t10k-images\S*: its pictures are \(5, 6\), those of .* \(5, 7\)"),
    ],
)
def test_mnist_names_the_damaged_file(tmp_path, changed, message, gz):
    with pytest.raises(FileError, match=f"^{re.escape(str(tmp_path))}.{message}"):
        read_mnist(write_mnist(tmp_path, gz=gz, **changed))


def test_mnist_reads_a_gzip_to_its_end(tmp_path):
    """Also where the pixels end with a chunk of the reading, 1 MiB: what follows may be more, or a wrong checksum."""
    mega = np.zeros((1, 1024, 1024), np.uint8)
    write_mnist(
        tmp_path,
        gz=True,
        train_images=idx(mega) + b"!",
        t10k_images=idx(mega),
        train_labels=idx(LABELS[:1]),
        t10k_labels=idx(LABELS[:1]),
    )
    train, test = mnist(tmp_path)
    assert test.images.shape == (1, 1, 1024, 1024)
    with pytest.raises(FileError, match="too long"):
        train.images  # noqa: B018


def test_mnist_knows_a_plain_file_of_another_length_before_it_is_read(tmp_path):
    with pytest.raises(FileError, match="too short"):
        mnist(write_mnist(tmp_path, train_images=idx(TRAIN)[:-1]))


@pytest.mark.parametrize("name", [f"{IMAGES}.gz", "t10k-labels-idx1-ubyte.gz"])
@pytest.mark.parametrize("damage", ["short", "header", "crc", "body", "tail"])
def test_mnist_names_the_damaged_gzip(tmp_path, name, damage):
    path = write_mnist(tmp_path, gz=True) / name
    data = bytearray(path.read_bytes())
    if damage == "crc":
        data[-8] ^= 1
    elif damage == "body":
        data[12:16] = b"\xff" * 4
    data = {"short": data[:-9], "header": data[:5], "tail": data + b"rubbish"}.get(damage, data)
    path.write_bytes(data)
    with pytest.raises(FileError, match=f"{re.escape(name)}: cannot be read: .+\n  hint: .*download it again"):
        read_mnist(tmp_path)


@pytest.mark.parametrize("gz", [False, True])
def test_mnist_does_not_allocate_what_a_header_promises(tmp_path, gz):
    huge = [idx(array)[:8] + b"\xff" * 8 + array.tobytes() for array in (TRAIN, TEST)]  # N * (2^32 - 1)^2 bytes
    write_mnist(tmp_path, gz=gz, train_images=huge[0], t10k_images=huge[1])
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=f"is too short(.|\n)*= {prod((7, 2**32 - 1, 2**32 - 1))} bytes, not 245"):
            read_mnist(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_mnist_lists_every_missing_file(tmp_path):
    write_mnist(tmp_path)
    for name in (IMAGES, "t10k-labels-idx1-ubyte"):
        (tmp_path / name).unlink()
    with pytest.raises(FileError, match=f"has no {IMAGES}, t10k-labels-idx1-ubyte.\n  hint: .*Fashion-MNIST"):
        mnist(tmp_path)


# ---- CIFAR-10

COLOURS = RNG.integers(0, 256, (13, 3, 32, 32), dtype=np.uint8)
BATCHES = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
ROWS = np.array_split(np.arange(13), 6)  # 3, 2, 2, 2, 2, 2 records
CIFAR_LABELS = np.arange(13) % 10


def records(rows):
    return b"".join(bytes([CIFAR_LABELS[row]]) + COLOURS[row].tobytes() for row in rows)


def write_cifar10(folder, meta=None, **changed):
    """The six files; changed: the bytes of some, by name without .bin."""
    folder.mkdir(exist_ok=True)
    for name, rows in zip(BATCHES, ROWS, strict=True):
        (folder / name).write_bytes(changed.get(name[:-4], records(rows)))
    if meta is not None:
        (folder / "batches.meta.txt").write_bytes(meta)
    return folder


@pytest.mark.parametrize("sub", ["", "cifar-10-batches-bin"])
def test_cifar10_reads_the_binary_version(tmp_path, sub):
    names = [f"thing{number}" for number in range(10)]
    write_cifar10(tmp_path / sub, "\r\n".join([*names, "", ""]).encode())
    train, test = cifar10(tmp_path)
    assert (len(train), len(test), train.image_size, train.num_channels) == (11, 2, (32, 32), 3)
    np.testing.assert_array_equal(train.images, COLOURS[:11])
    np.testing.assert_array_equal(test.images, COLOURS[11:])
    assert train.labels.tolist() + test.labels.tolist() == CIFAR_LABELS.tolist()
    assert train.class_names == test.class_names == names


def test_cifar10_without_names_counts_its_classes(tmp_path):
    assert cifar10(write_cifar10(tmp_path))[0].class_names == list("0123456789")


def test_cifar10_reads_pixels_when_first_needed(tmp_path):
    train, _ = cifar10(write_cifar10(tmp_path))
    (tmp_path / BATCHES[3]).unlink()
    with pytest.raises(FileError, match=r"data_batch_4\.bin: cannot be read: .*No such file"):
        train.batch([0])


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"data_batch_2": records([0, 1])[:-1]}, r"data_batch_2\.bin: has 6145 bytes.\n  rule: .* of 3073 bytes"),
        ({"test_batch": records([0, 1]) + b"!"}, r"test_batch\.bin: has 6147 bytes"),
        ({"test_batch": b""}, r"test_batch\.bin: has 0 bytes.\n  rule: one or more records"),
        ({"data_batch_5": records([3]) + b"\x0a" + bytes(3072)}, r"data_batch_5\.bin: label 10 at row 1, 1 wrong of 2"),
        ({"meta": b"a b c"}, r"batches\.meta\.txt: has the names 'a b c'.\n  rule: 10 different"),
        ({"meta": b"a b c d e f g h i i"}, r"batches\.meta\.txt: has the names"),
        ({"meta": b"\xff\xfe"}, r"batches\.meta\.txt: cannot be read: .*utf-8"),
    ],
)
def test_cifar10_names_the_damaged_file(tmp_path, changed, message):
    with pytest.raises(FileError, match=message):
        cifar10(write_cifar10(tmp_path, **changed))


def test_cifar10_lists_every_missing_file(tmp_path):
    write_cifar10(tmp_path)
    for number in (1, 3):
        (tmp_path / f"data_batch_{number}.bin").unlink()
    with pytest.raises(FileError, match=r"has no data_batch_1\.bin, data_batch_3\.bin.\n  hint: .*binary version"):
        cifar10(tmp_path)


@pytest.mark.parametrize("inside", [False, True])
def test_cifar10_refuses_pickles_with_the_reason(tmp_path, inside):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"\x80\x02}")
    reason = r'loading a pickle runs .*code(.|\n)*"CIFAR-10 binary version \(suitable for C programs\)"'
    with pytest.raises(FileError, match=reason):
        cifar10(folder if inside else tmp_path)
    write_cifar10(tmp_path)  # both versions side by side: the binary one is read
    assert len(cifar10(tmp_path)[1]) == 2


@pytest.mark.parametrize("read", [mnist, cifar10, image_folder])
def test_a_folder_must_be_one(tmp_path, read):
    (tmp_path / "a file").write_text("hello")
    with pytest.raises(FileError, match="a file: this is a file, not a folder"):
        read(tmp_path / "a file")
    with pytest.raises(FileError, match="nothing: there is no such folder"):
        read(tmp_path / "nothing")


# ---- a folder of photos

COUNTS = {"ant": 9, "Bee": 1, "cat": 2, "dog": 17}


def picture(seed=0, size=(11, 9)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path):
    """Sub-folders with as many photos as COUNTS says, each another picture, and things that are to be ignored."""
    for seed, (name, count) in enumerate(COUNTS.items()):
        (tmp_path / name).mkdir()
        for number in range(count):
            picture(100 * seed + number).save(tmp_path / name / f"{number}.{'PNG' if number % 2 else 'bmp'}")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "cat" / "Thumbs.db").write_text("hello")
    (tmp_path / "cat" / "._0.png").write_bytes(b"hello")
    (tmp_path / "cat" / "older.png").mkdir()
    return tmp_path


def by_class(split):
    return {
        name: [path.name for path, label in zip(split.images.paths, split.labels, strict=True) if label == number]
        for number, name in enumerate(split.class_names)
    }


def test_a_suffix_of_no_letters_makes_no_photo_of_every_file(folder, monkeypatch):
    before = [by_class(part) for part in image_folder(folder)]
    monkeypatch.setitem(Image.EXTENSION, "", "SPIDER")  # as older Pillows have it after a SPIDER file was written
    assert [by_class(part) for part in image_folder(folder)] == before  # readme.txt is no photo, nor warned of


def test_image_folder_splits_each_class(folder):
    train, test = image_folder(folder)
    assert train.class_names == test.class_names == ["Bee", "ant", "cat", "dog"]
    ours, theirs = by_class(train), by_class(test)
    assert {name: len(files) for name, files in theirs.items()} == {"Bee": 0, "ant": 2, "cat": 1, "dog": 3}
    for name, count in COUNTS.items():
        assert len({*ours[name], *theirs[name]}) == len(ours[name] + theirs[name]) == count
    assert by_class(image_folder(str(folder))[1]) == theirs
    assert by_class(image_folder(folder, seed=1)[1]) != theirs


@pytest.mark.parametrize("fraction, counts", [(0, [0, 0, 0, 0]), (0.5, [0, 4, 1, 8]), (0.99, [0, 8, 1, 16])])
def test_image_folder_keeps_one_photo_of_each_class_to_train(folder, fraction, counts):
    train, test = image_folder(folder, test_fraction=fraction)
    assert np.bincount(test.labels, minlength=4).tolist() == counts
    assert len(train) + len(test) == 29
    assert test.batch(slice(None))[0].shape == (sum(counts), 3, 224, 224)


def test_image_folder_gives_pixel_values_of_each_photo(folder):
    train, _ = image_folder(folder, size=(6, 13))
    rows = [20, 0, 5]
    pixels, labels = train.batch(rows)
    assert (pixels.shape, pixels.dtype, train.image_size) == ((3, 3, 6, 13), np.float32, (6, 13))
    for row, image, label in zip(rows, pixels, labels, strict=True):
        path = train.images.paths[row]
        assert path.parent.name == train.class_names[label]
        np.testing.assert_array_equal(image, pixel_values(path, size=(6, 13)))


def test_photos_index_like_an_array_and_are_never_kept(folder, monkeypatch):
    opened = []
    real = datasets.read_image
    monkeypatch.setattr(datasets, "read_image", lambda path: opened.append(path) or real(path))
    train = image_folder(folder, size=4)[0].only([3, 1]).subset(slice(0, 9))
    photos = train.images
    assert isinstance(photos, Photos) and photos.shape == (9, 3, 4, 4) and len({*opened}) == len(opened) == 29
    opened.clear()
    before = photos[2]
    assert before.shape == (3, 4, 4) and before.dtype == np.uint8
    picture(999).save(photos.paths[2])
    np.testing.assert_array_equal(photos[[2]][0], photos[2])
    assert (photos[2] != before).any()
    assert opened == [photos.paths[2]] * 4


def damaged(folder):
    """Four photos that cannot be read, two of them cut off."""
    cut = folder / "dog" / "cut.jpg"
    picture().save(cut, comment=b"\xff\xd9", quality=100)  # an end mark in the header, as a thumbnail has
    assert image_folder(folder)[0].class_names  # whole, it is read without a warning
    cut.write_bytes(cut.read_bytes()[:-60])
    (folder / "dog" / "empty.jpg").write_bytes(b"")
    (folder / "ant" / "text.png").write_text("hello")
    whole = (folder / "ant" / "1.PNG").read_bytes()
    (folder / "ant" / "short.png").write_bytes(whole[: len(whole) // 2])
    return [folder / "ant" / "short.png", folder / "ant" / "text.png", cut, folder / "dog" / "empty.jpg"]


def test_image_folder_skips_what_cannot_be_read_and_names_it(folder):
    paths = damaged(folder)
    with pytest.warns(UserWarning) as warned:
        train, test = image_folder(folder)
    assert len(warned) == 1 and warned[0].filename == __file__
    lines = str(warned[0].message).splitlines()
    assert lines[0] == f"{folder}: 4 of 33 photos cannot be read and are skipped:"
    assert [line.strip().startswith(f"{path}: ") for line, path in zip(lines[1:], paths, strict=True)] == [True] * 4
    assert "truncated" in lines[3] and "empty" in lines[4]
    assert len(train) + len(test) == 29 and not {*paths} & {*train.images.paths, *test.images.paths}


def test_photos_that_pillow_does_not_open_are_named(folder):
    (folder / "ant" / "phone.HEIC").write_bytes(b"hello")
    picture().save(folder / "ant" / "edge.jfif", "JPEG")
    with pytest.warns(UserWarning, match=r"1 of 31 photos cannot be read(?s:.*)phone\.HEIC: save it as JPEG first"):
        train, test = image_folder(folder)
    assert len(train) + len(test) == 30


def awkward(folder):
    """Files of every kind in one folder, whole and damaged."""
    folder.mkdir()
    whole = io.BytesIO()
    picture(size=(40, 30)).save(whole, "JPEG")
    whole = whole.getvalue()
    files = {
        "end mark lost.jpg": whole[:-2] + bytes(100),
        "end mark cut.jpg": whole[:-2],
        "cut.jpg": whole[:-60],
        "cut in the header.jpg": whole[:300],
        "more behind.jpg": whole + b"hello",
        "without suffix": whole,
        "really a jpeg.png": whole,
        "really a jpeg.HEIC": whole,
        "copy.jpg~": whole,
        "name\nin lines.jpg" if os.name == "posix" else "name.jpg": whole[:99],
        "eps.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
        "empty.gif": b"",
    }
    for kind in ("png", "gif", "bmp", "tiff", "webp", "ppm", "pgm", "jp2", "jpe", "tga", "ico"):
        data = io.BytesIO()
        picture().save(data, Image.registered_extensions()[f".{kind}"])
        files |= {f"whole.{kind}": data.getvalue(), f"half.{kind}": data.getvalue()[: len(data.getvalue()) // 2]}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    scan = np.full((4, 4), 300, np.float32)
    Image.fromarray(scan).save(folder / "grey out of range.tiff")
    return sorted(folder.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_image_folder_counts_what_open_image_reads(folder):
    paths, read = awkward(folder / "eel"), []
    for path in paths:
        with contextlib.suppress(FileError):
            open_image(path)
            read.append(path)
    train, test = image_folder(folder)
    counted = [path for path in train.images.paths + test.images.paths if path.parent.name == "eel"]
    assert sorted(counted) == read and len(counted) >= 16 and folder / "eel" / "end mark lost.jpg" in counted
    assert folder / "eel" / "eps.jpg" not in counted and folder / "eel" / "cut.jpg" not in counted


def notes(*args, **options):
    """What image_folder warns of, each as its lines."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image_folder(*args, **options)
    return [str(warning.message).splitlines() for warning in caught]


def test_what_is_left_out_is_named_with_its_count(folder):
    for name in ("notes.txt", "a.eps", "b.EPS", "film.mov", "README"):
        (folder / "cat" / name).write_text("%!PS-Adobe-3.0 EPSF-3.0\n")
    assert notes(folder) == [
        [f"{folder}: 5 files of no format that is opened (2 .eps, 1 .mov, 1 .txt, 1 without suffix), left out."]
    ]
    assert sum(map(len, quiet(folder, strict=True))) == 29  # no photo among them is damaged


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return image_folder(*args, **options)


def test_photos_deeper_or_beside_the_classes_are_counted_and_named(folder):
    for name, count in (("cat/2023", 2), ("cat/2023/may", 1), ("dog/old", 1), ("dog/none", 0), (".", 3)):
        (folder / name).mkdir(exist_ok=True)
        for number in range(count):
            picture().save(folder / name / f"{number}.png")
    (folder / "dog" / "none" / "notes.txt").write_text("hello")
    assert notes(folder) == [
        [
            f"{folder}: 7 photos not directly in a class folder, left out:",
            f"    {folder}: 3 photos",
            f"    {folder / 'cat' / '2023'}: 3 photos",
            f"    {folder / 'dog' / 'old'}: 1 photo",
        ]
    ]


def test_12_bits_in_16_are_a_note_of_the_folder_and_not_of_each_batch(folder):
    Image.fromarray(np.full((4, 4), 4000, np.uint16)).save(folder / "ant" / "scan.png")
    (note,) = notes(folder)
    assert "scan.png: the brightest grey is 4000 of 65535" in note[0]
    train, test = quiet(folder, size=4)
    for split in (train, test):
        split.batch(slice(None))


def split(root, *names, classes="ab", count=2):
    """root/NAME/CLASS/0.png ... for each of the names."""
    for name in names:
        for label in classes:
            (root / name / label).mkdir(parents=True)
            for number in range(count):
                picture().save(root / name / label / f"{number}.png")


@pytest.mark.parametrize(
    "names", [("train", "val"), ("train", "test"), ("Training", "Validation"), ("train", "valid"), ("training", "TEST")]
)
def test_a_split_that_lies_in_folders_is_used(tmp_path, names):
    split(tmp_path, names[0], classes="abc", count=3)
    split(tmp_path, names[1], classes="ac")
    for options in ({}, {"test_fraction": 0.5, "seed": 3}):
        train, test = image_folder(tmp_path, **options)
        assert train.class_names == test.class_names == ["a", "b", "c"]
        assert train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 and test.labels.tolist() == [0, 0, 2, 2]
        for part, name in zip((train, test), names, strict=True):
            assert {path.parent.parent for path in part.images.paths} == {tmp_path / name}


def test_beside_train_and_test_the_validation_is_named(tmp_path):
    split(tmp_path, "train", "val", "test", "raw")
    _, test = quiet(tmp_path)
    assert {path.parent.parent.name for path in test.images.paths} == {"test"}
    assert notes(tmp_path) == [
        [
            f"{tmp_path}: 8 photos not directly in a class folder, left out:",
            f"    {tmp_path / 'raw'}: 4 photos",
            f"    {tmp_path / 'val'}: 4 photos",
        ]
    ]


def test_a_class_of_the_test_only_is_refused(tmp_path):
    split(tmp_path, "train")
    split(tmp_path, "val", classes="az")
    with pytest.raises(FileError, match=r"z: is a class of the test only.\n  rule: those of the training are a, b."):
        image_folder(tmp_path)


def test_a_class_folder_whose_name_is_not_utf_8_has_a_name_that_can_be_written(folder):
    for name in (b"\xff\xfe", b"caf\xe9"):
        try:
            os.mkdir(os.path.join(os.fsencode(folder), name))
        except (OSError, UnicodeError):  # macOS and Windows know no such names
            return
        picture().save(folder / os.fsdecode(name) / os.fsdecode(b"\xff.png"))
    train, _ = image_folder(folder)
    assert train.class_names[-2:] == ["dog", "\\udcff\\udcfe"] and "caf\\udce9" in train.class_names
    assert all(name.encode() for name in train.class_names) and len({*train.class_names}) == 6
    assert train.batch([len(train) - 1])[0].shape == (1, 3, 224, 224)


def test_classes_may_be_called_train_and_test(tmp_path):
    split(tmp_path, ".", classes=("train", "test", "bus"))
    assert image_folder(tmp_path)[0].class_names == ["bus", "test", "train"]


@pytest.mark.parametrize(
    "names, hint",
    [
        (["train"], "hint: give {0}/train, which holds folders."),
        (["photos"], "hint: give {0}/photos, which holds folders."),
        (["train", "zoo"], "2 photos, a level deeper.(?s:.*)hint: give {0}/train, if the classes are in it; else move"),
    ],
)
def test_the_folder_above_is_recognised_and_no_hint_removes_a_folder(tmp_path, names, hint):
    split(tmp_path, *names)
    with pytest.raises(FileError) as caught:
        image_folder(tmp_path)
    message = str(caught.value).replace(os.sep, "/")
    assert re.search(hint.format(re.escape(tmp_path.as_posix())), message), message
    assert "remove" not in message


def test_photos_of_one_class_all_a_level_deeper_are_counted(folder):
    (folder / "eel" / "2023").mkdir(parents=True)
    picture().save(folder / "eel" / "2023" / "a.png")
    (folder / "eel" / "drawing.eps").write_bytes(b"%!PS")
    with pytest.raises(FileError, match=r"2023: 1 photo, a level deeper.(?s:.*)move the photos up into eel") as caught:
        image_folder(folder)
    assert "1 file of no format that is opened (1 .eps)" in str(caught.value)


def test_image_folder_strict_refuses_what_cannot_be_read(folder):
    paths = damaged(folder)
    with pytest.raises(FileError, match="4 of 33 photos cannot be read:") as caught:
        image_folder(folder, strict=True)
    assert all(str(path) in str(caught.value) for path in paths)


def test_a_photo_that_fails_in_a_batch_is_named(folder):
    train, _ = image_folder(folder, size=8)
    bad = next(row for row, path in enumerate(train.images.paths) if path.suffix == ".bmp")
    path = train.images.paths[bad]
    path.write_bytes(path.read_bytes()[:-99])
    with pytest.raises(FileError, match=f"{re.escape(str(path))}: it cannot be read as a picture: .*truncated"):
        train.batch([bad])


def test_image_folder_needs_photos_in_each_class(folder):
    (folder / "eel").mkdir()
    (folder / "eel" / "photo.heic").write_bytes(b"hello")
    with pytest.raises(
        FileError, match=r"eel: has no photo that can be read.(.|\n)*heic: save it as JPEG first.\n  rule: .*PNG"
    ):
        image_folder(folder)
    (folder / "eel" / "photo.jpg").write_bytes(b"hello")
    with pytest.raises(FileError, match=r"eel: has no photo that can be read.\n(.|\n)*photo\.jpg: this is not a pic"):
        image_folder(folder)


def test_image_folder_needs_two_classes(folder):
    with pytest.raises(FileError, match=r"cat: has one class only, 'older\.png'. 2 photos in no class.\n  rule: one"):
        image_folder(folder / "cat")
    with pytest.raises(FileError, match=r"ant: has no sub-folders. 9 photos in no class.(?s:.*)folder that holds it"):
        image_folder(folder / "ant")


@pytest.mark.parametrize("fraction", [-0.1, 1, float("nan")])
def test_image_folder_refuses_a_share_outside_0_to_1(folder, fraction):
    with pytest.raises(MinivitError, match=r"test_fraction=.* is no share"):
        image_folder(folder, test_fraction=fraction)


def test_image_folder_refuses_a_size_of_0(folder):
    with pytest.raises(ShapeError, match="size=0 is no size"):
        image_folder(folder, size=0)


# ---- load


def test_load_finds_each_kind_by_name(tmp_path, folder, monkeypatch):
    (tmp_path / "m").mkdir()
    write_mnist(tmp_path / "m")
    write_cifar10(tmp_path / "c")
    assert [len(split) for split in load("digits")] == [898, 899]
    assert [len(split) for split in load(f"mnist:{tmp_path / 'm'}")] == [7, 4]
    assert [len(split) for split in load(f"cifar10:{tmp_path / 'c'}")] == [11, 2]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert [len(split) for split in load("mnist:~/m")] == [7, 4]


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_load_reads_a_folder_of_photos_with_its_options(folder, kind):
    train, test = load(kind(folder), size=5, test_fraction=0.5, seed=3)
    expected = image_folder(folder, size=5, test_fraction=0.5, seed=3)
    assert train.image_size == (5, 5)
    assert [by_class(train), by_class(test)] == [by_class(split) for split in expected]
    damaged(folder)
    with pytest.raises(FileError, match="4 of 33"):
        load(kind(folder), strict=True)


@pytest.mark.parametrize("name", ["cifar", "mnist", "mnist:", "C:\\photos", "imagenet:x", ""])
def test_load_of_another_name_lists_what_there_is(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    listing = r"\n  hint: give digits, mnist:FOLDER, cifar10:FOLDER, or a folder of photos"
    with pytest.raises(FileError, match=f"no data set and no folder {re.escape(repr(name))}.{listing}"):
        load(name)


def test_load_takes_a_drive_letter_for_no_kind(monkeypatch):
    monkeypatch.setattr(datasets.os.path, "exists", lambda path: True)
    monkeypatch.setattr(datasets, "image_folder", lambda path, *options: path)
    assert load("C:\\photos") == "C:\\photos"


def test_resized_is_bilinear_height_first():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, 6, 8), dtype=np.uint8)
    for before, after in zip(pictures, Dataset(pictures, [0, 1], "ab").resized((3, 4)).images, strict=True):
        expected = Image.fromarray(before.transpose(1, 2, 0)).resize((4, 3), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(after.transpose(1, 2, 0), expected)


def test_what_is_taken_stays_scaled():
    dataset = Dataset(np.zeros((2, 1, 4, 4), np.uint8), [0, 1], "ab").scaled(0.0, 1.0)
    for taken in (dataset.subset([1]), dataset.resized(2), dataset.only([1]), dataset.few(1, 0)):
        assert (taken.batch([0])[0] == 0).all()


def test_scaled_shares_the_pixels():
    dataset = Dataset(np.zeros((2, 1, 4, 4), np.uint8), [0, 1], "ab")
    assert dataset.scaled(0.0, 1.0).images is dataset.images


def test_photos_can_be_resized(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    dataset = Dataset(Photos([tmp_path / "a.png"], (4, 4)), [0], "a").resized((2, 3))
    assert dataset.images.shape == dataset.images[[0]].shape == (1, 3, 2, 3)
