"""Data sets: the digits in the box, MNIST and CIFAR-10 from files the user has, and folders of photos.

Each comes as (train, test), two Datasets. Names, headers, sizes and labels are checked at once; the pixels are read
when first needed. N pictures, B of them in a batch, C channels, H W pixels, K classes. Every fault of a file is a
FileError that names it.
"""

import copy
import gzip
import os
import warnings
import zlib
from collections import Counter
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import FileError, MinivitError, RangeError, ShapeError, check_whole, shortened
from .images import as_size, formats, photo, read_image, resized, shares
from .machinery.files import read_regular, regular

UNREAD_SUFFIXES = (".avif", ".heic", ".heif", ".jxl")  # photos that not every Pillow opens by itself
_SPLITS = (("train", "training"), ("test", "testing", "val", "valid", "validation"))  # the first that is there
_HIDDEN = ("desktop.ini", "thumbs.db")
_DIGITS = [str(digit) for digit in range(10)]
_MOST = 2**30  # bytes in one file of a data set, unpacked; MNIST's largest has 47 million, EMNIST's 547 million
_RECORD = 1 + 3 * 32 * 32  # CIFAR-10: a label, then red, green and blue


class Dataset:
    """The pictures of one split, their labels and the names of the classes.

    images: (N, C, H, W) uint8 or Photos; or a function without arguments that returns them, to be called when they are
    first needed, and then image_shape is (C, H, W). labels: (N,) whole numbers 0..K-1. class_names: K names.
    `labels`, `class_names`, `num_channels` and `image_size` (H, W) are there without reading a picture. ShapeError when
    images, labels and class names do not fit together.

    dataset[3] is the example (pixel_values (C, H, W), label), and a loop over the dataset gives all of them in order;
    dataset[:100], a list of numbers or a mask (N,) gives the Dataset of these examples. batches() is for training.
    """

    mean, std, rescale_factor = 0.5, 0.5, 1 / 255  # see scaled

    def __init__(self, images, labels, class_names, image_shape=None):
        labels, self.class_names = np.asarray(labels), [str(name) for name in class_names]
        shape, dtype = ((*labels.shape, *image_shape), np.uint8) if image_shape else (images.shape, images.dtype)
        if len(shape) != 4 or shape[:1] != labels.shape or dtype != np.uint8 or labels.dtype.kind not in "iu":
            raise ShapeError(
                "Dataset",
                f"images {shape} {dtype} and labels {labels.shape} {labels.dtype}.",
                rule="images (N, C, H, W) uint8 and labels (N,) of whole numbers",
            )
        if labels.size and not 0 <= labels.min() <= labels.max() < len(self.class_names):
            raise ShapeError(
                "Dataset",
                f"labels from {labels.min()} to {labels.max()}.",
                rule=f"0 <= label < K = {len(self.class_names)}, the number of class names",
            )
        self.labels = labels.astype(np.int64)
        self.num_channels, self.image_size = shape[1], tuple(shape[2:])
        self._images = images

    def __len__(self):
        return len(self.labels)

    def __repr__(self):
        count, K, shape = len(self), len(self.class_names), (self.num_channels, *self.image_size)
        names = [*map(repr, self.class_names[:10]), *["..."] * (K > 10)]
        return f"Dataset: {_counted(count, 'picture')} {shape}, {_counted(K, 'class', 'es')} {' '.join(names)}"

    def __getitem__(self, index):
        try:
            rows = np.arange(len(self))[index]
        except IndexError as error:
            rule = f"{-len(self)} <= index < {len(self)}; or a slice, a list of such numbers, or a mask ({len(self)},)"
            raise RangeError("Dataset", f"{error}.", rule=rule) from error
        if rows.ndim:
            return self.subset(rows)
        pixel_values, labels = self.batch([rows])
        return pixel_values[0], int(labels[0])

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    @property
    def images(self):
        """(N, C, H, W) uint8, read when first needed and kept; of a folder of photos not an array but its Photos."""
        if callable(self._images):
            self._images = self._images()
        return self._images

    def batch(self, indices):
        """(pixel_values (B, C, H, W) float32, scaled as images.pixel_values does, labels (B,) int64).

        indices: (B,) whole numbers, a boolean mask (N,) or a slice.
        """
        pixels = shares(self.rescale_factor)[self.images[indices]]  # (B, C, H, W)
        pixels -= self.mean
        pixels /= self.std
        return pixels, self.labels[indices]

    def batches(self, batch_size, rng=None):
        """For a loop that is one epoch: every example once, as (pixel_values (B, C, H, W), labels (B,)), as from batch.

        batch_size: B, the last batch taking what is left; len() is how many there are.
        rng: None goes in order; a Generator shuffles, and moves on, so that the next epoch has another order; a seed
        shuffles in the same order each time: for several epochs, make one rng = np.random.default_rng(0) before them.
        training.fit draws its orders so, too.
        """
        check_whole("batches", "batch_size", batch_size, most=2**31)
        return Batches(self, batch_size, rng)

    def scaled(self, mean, std, rescale_factor=1 / 255):
        """The same pictures, scaled by another mean and std (of values 0..1): numbers, or one for each channel."""
        new = copy.copy(self)
        new._images = lambda: self.images  # read once for both
        new.mean, new.std = (np.asarray(x, np.float32).reshape(-1, 1, 1) for x in (mean, std))  # (C, 1, 1)
        new.rescale_factor = rescale_factor
        return new

    def resized(self, size, *, resample="bilinear", shortest_edge=None, crop=None):
        """The same pictures at another size, a side or (height, width) in pixels; the options as of pixel_values."""
        last = size if crop is None else crop
        if last is None or (crop is None and shortest_edge is not None):
            raise ShapeError(
                "resized",
                "the pictures would keep sizes of their own.",
                rule="all pictures of a data set have one size.",
                hint="give a size, or a crop; of a model's folder, do_center_crop and crop_size.",
            )
        last = as_size("resized", "size", last)
        if last == self.image_size and (resample, shortest_edge, crop) == ("bilinear", None, None):
            return self
        options = {"size": size, "resample": resample, "shortest_edge": shortest_edge, "crop": crop}

        def resize():
            if isinstance(self.images, Photos):
                return Photos(self.images.paths, last, options)
            planes = map(Image.fromarray, self.images.reshape(-1, *self.image_size))  # N * C of (H, W)
            planes = [np.asarray(resized("resized", plane, **options)) for plane in planes]
            return np.stack(planes).reshape(len(self), self.num_channels, *last)

        new = Dataset(resize, self.labels, self.class_names, (self.num_channels, *last))
        new.mean, new.std, new.rescale_factor = self.mean, self.std, self.rescale_factor
        return new

    def subset(self, indices):
        """The Dataset of these examples in this order. indices: as for batch. Reads nothing yet."""
        return self._taken(np.arange(len(self))[indices], self.labels[indices], self.class_names)

    def only(self, classes):
        """The examples of these classes, relabelled: only([7, 5]) makes the 7s class 0 and the 5s class 1."""
        classes, known = list(classes), len(self.class_names)
        if not classes or len({*classes} & {*range(known)}) < len(classes):
            raise MinivitError("only", f"classes={classes}.", rule=f"whole numbers from 0 to {known - 1}, none twice")
        new_label = np.full(known, -1)  # (K,)
        new_label[classes] = np.arange(len(classes))
        rows = np.flatnonzero(new_label[self.labels] >= 0)
        return self._taken(rows, new_label[self.labels[rows]], [self.class_names[label] for label in classes])

    def few(self, per_class, rng):
        """That many examples of each class, drawn without replacement, class by class. rng: a Generator or a seed."""
        rng = np.random.default_rng(rng)
        counts = np.bincount(self.labels, minlength=len(self.class_names))  # (K,)
        if not 1 <= per_class <= counts.min():
            smallest = self.class_names[counts.argmin()]
            raise MinivitError(
                "few",
                f"{per_class} examples of each class cannot be drawn.",
                rule=f"1 <= per_class <= {counts.min()}, the size of the smallest class {smallest!r}",
            )
        members = [np.flatnonzero(self.labels == label) for label in range(len(counts))]
        return self.subset(np.concatenate([rng.choice(rows, per_class, replace=False) for rows in members]))

    def _taken(self, rows, labels, class_names):
        shape = (self.num_channels, *self.image_size)
        new = Dataset(lambda: self.images.take(rows, axis=0), labels, class_names, shape)
        new.mean, new.std, new.rescale_factor = self.mean, self.std, self.rescale_factor
        return new


class Batches:
    """What Dataset.batches gives: each loop over it is an epoch."""

    def __init__(self, dataset, batch_size, rng):
        self.dataset, self.batch_size, self.rng = dataset, batch_size, rng

    def __len__(self):
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self):
        N = len(self.dataset)
        order = np.arange(N) if self.rng is None else np.random.default_rng(self.rng).permutation(N)  # (N,)
        for start in range(0, N, self.batch_size):
            yield self.dataset.batch(order[start : start + self.batch_size])


class Photos:
    """Photos on the disk that index like an array (N, 3, H, W) uint8 and are opened anew each time, never kept.

    paths: N files; size: (H, W), to which each is resized as images.pixel_values does it, with the options of
    images.resized. Indexing raises a FileError that names the photo which cannot be read.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, paths, size, options=None):
        self.paths, self.shape = list(paths), (len(paths), 3, *size)
        self.options = options or {"size": size}

    def __getitem__(self, indices):
        rows = np.arange(len(self.paths))[indices]
        pictures = np.empty((*rows.shape, *self.shape[1:]), self.dtype)  # (B, 3, H, W), or (3, H, W) of one
        for place, row in np.ndenumerate(rows):
            picture = resized(self.paths[row], read_image(self.paths[row])[0], **self.options)
            pictures[place] = np.asarray(picture).transpose(2, 0, 1)  # (3, H, W)
        return pictures

    def take(self, rows, axis=0):
        """The Photos of these rows, in the words of ndarray.take; nothing is opened."""
        return Photos([self.paths[row] for row in rows], self.shape[2:], self.options)


def load(name, size=224, test_fraction=0.2, seed=0, strict=False):
    """(train, test) by name: "digits", "mnist:FOLDER", "cifar10:FOLDER" or the path of a folder of photos.

    The other arguments are image_folder's. A folder that is really called digits goes by "./digits".
    """
    kind, _, folder = str(name).partition(":")  # C:\photos has a colon too, but no such kind before it
    if folder and kind in ("mnist", "cifar10"):
        return {"mnist": mnist, "cifar10": cifar10}[kind](os.path.expanduser(folder))
    if name == "digits":
        return digits()
    if not os.path.exists(name):
        raise FileError(
            "load",
            f"there is no data set and no folder {str(name)!r}.",
            hint="give digits, mnist:FOLDER, cifar10:FOLDER, or a folder of photos with one sub-folder a class.",
        )
    return image_folder(name, size, test_fraction, seed, strict)


def digits():
    """The 1797 handwritten digits in the box: (N, 1, 8, 8), grey, 0 empty, 255 full (the file's 16).

    The documented split: the first 898 rows train, the last 899 test, in the file's order. Credits: images/README.md.
    """
    with np.load(photo("digits.npz"), allow_pickle=False) as file:
        images, labels = np.rint(file["images"] * (255 / 16)).astype(np.uint8)[:, None], file["labels"]  # (N, 1, 8, 8)
    return Dataset(images[:898], labels[:898], _DIGITS), Dataset(images[898:], labels[898:], _DIGITS)


def mnist(folder):
    """MNIST, or a set in its format with ten classes such as Fashion-MNIST, from its four IDX files: (N, 1, 28, 28).

    train-images-idx3-ubyte, train-labels-idx1-ubyte and the same with t10k, each gzipped (.gz) or not, also spelled
    train-images.idx3-ubyte. The classes are called "0" to "9": the files name none.
    """
    names = [
        [f"{split}-{what}{dot}{kind}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
        for split in ("train", "t10k")
        for what, kind in (("images", "idx3"), ("labels", "idx1"))
    ]
    paths = _found(_folder(folder), names, "MNIST and Fashion-MNIST have four files; each may end in .gz.")
    splits = []
    for images, labels in (paths[:2], paths[2:]):
        (count, *size), values = _idx(images, 3, read=False)[0], _idx(labels, 1)[1]
        if len(values) != count:
            raise FileError(labels, f"holds {len(values)} labels for the {count} pictures of {images.name}.")
        _check_labels(labels, values)
        splits.append(Dataset(lambda path=images: _idx(path, 3)[1][:, None], values, _DIGITS, (1, *size)))
    sizes = [split.image_size for split in splits]
    if sizes[0] != sizes[1]:
        raise FileError(paths[2], f"its pictures are {sizes[1]}, those of {paths[0].name} {sizes[0]} pixels (H, W).")
    return tuple(splits)


def cifar10(folder):
    """CIFAR-10 from its binary version in folder, or in cifar-10-batches-bin in it: (N, 3, 32, 32), RGB.

    data_batch_1.bin to data_batch_5.bin (train) and test_batch.bin; the class names are those of batches.meta.txt, or
    "0" to "9" without it. FileError also for the version made for Python, whose files are pickles.
    """
    folder = _folder(folder)
    if (folder / "cifar-10-batches-bin").is_dir():
        folder = folder / "cifar-10-batches-bin"
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    hint = 'get the "CIFAR-10 binary version (suitable for C programs)", cifar-10-binary.tar.gz, and unpack it.'
    for pickled in (folder / "data_batch_1", folder / "cifar-10-batches-py"):
        if pickled.exists() and not (folder / names[0]).exists():
            raise FileError(
                pickled,
                "refused: this is CIFAR-10 as a pickle, and loading a pickle runs whatever code its author put in.",
                hint=hint,
            )
    paths, meta = _found(folder, [[name] for name in names], hint), folder / "batches.meta.txt"
    with _reading(meta):
        class_names = read_regular(meta).decode("utf-8").split() if meta.exists() else _DIGITS
    if len(class_names) != 10 or len(set(class_names)) != 10:
        raise FileError(meta, f"has the names {' '.join(class_names)!a}.", rule="10 different ones, one a line")

    def split(paths):
        labels = np.concatenate([_cifar_records(path)[0] for path in paths])
        return Dataset(
            lambda: np.concatenate([_cifar_records(path)[1] for path in paths]), labels, class_names, (3, 32, 32)
        )

    return split(paths[:5]), split(paths[5:])


def image_folder(path, size=224, test_fraction=0.2, seed=0, strict=False):
    """A person's own photos: path has one sub-folder a class, with the class's name, and the photos are in these.

    Every file is a photo that images.open_image reads, whatever its name: each is decoded once now, to know. It is
    turned to RGB and resized to size, one side or (height, width) in pixels, whenever a batch wants it: (N, 3, H, W).
    Of each class that share, drawn by seed, is for the test: at least one photo, but one always stays in train.
    Where path has a train (training) and a test (testing, val, valid, validation) folder with the classes in them, that
    is the split, and test_fraction and seed are not used.

    A UserWarning names and counts each kind of thing that is left out: photos that cannot be read, which strict refuses
    instead; other files; photos a level deeper, or beside the class folders. Hidden files are ignored.
    A class folder whose name is not UTF-8 has the bytes as escapes in its class's name.
    """
    path, size = _folder(path), as_size("image_folder", "size", size)
    if not 0 <= test_fraction < 1:
        raise MinivitError("image_folder", f"test_fraction={test_fraction} is no share.", rule="0 <= test_fraction < 1")
    left, halves = _LeftOut(path), _halves(path)
    train_folder = halves[0] if halves else path
    folders = _class_folders(train_folder, left)
    names, rng = [_class_name(folder) for folder in folders], np.random.default_rng(seed)
    files, labels, in_test = [], [], []
    for label, folder in enumerate(folders):
        good = left.sort(folder)
        if not good:
            raise _no_photo(folder, left)
        count = 0 if halves else min(max(round(len(good) * test_fraction), int(test_fraction > 0)), len(good) - 1)
        files += good
        labels += [label] * len(good)
        in_test += [place < count for place in rng.permutation(len(good))]
    for folder in _class_folders(halves[1], left, least=1) if halves else ():
        if _class_name(folder) not in names:
            known = ", ".join(shortened(names))
            raise FileError(folder, "is a class of the test only.", rule=f"those of the training are {known}.")
        good = left.sort(folder)
        files += good
        labels += [names.index(_class_name(folder))] * len(good)
        in_test += [True] * len(good)
    if halves:
        left.beside(path, halves)
    left.report(len(files), strict)
    everything, in_test = Dataset(Photos(files, size), labels, names), np.array(in_test)  # (N,) bool
    return everything.subset(~in_test), everything.subset(in_test)


class _LeftOut:
    """What image_folder finds beside the photos, by kind; report() tells it."""

    def __init__(self, path):
        self.path, self.suffixes = path, (*_photo_suffixes(), *UNREAD_SUFFIXES)
        self.faults, self.dim = [], []  # lines
        self.others, self.elsewhere = Counter(), Counter()  # {(class folder, suffix): files}, {folder: photos}

    def sort(self, folder):
        """The photos in a class folder; the rest is noted."""
        good = []
        for file in _visible(folder):
            if file.is_dir():
                self.elsewhere[file] += self.count_photos(file)
                continue
            try:
                note = read_image(file)[1]
            except FileError as fault:
                suffix = file.suffix.lower()
                if suffix not in self.suffixes:
                    self.others[folder, suffix or "without suffix"] += 1
                elif suffix in UNREAD_SUFFIXES:
                    self.faults.append(f"{file}: save it as JPEG first.")
                else:
                    self.faults.append(f"{file}: {str(fault).removeprefix(f'{file}: ').splitlines()[0]}")
            else:
                good.append(file)
                self.dim += [note] if note else []
        return good

    def count_photos(self, folder):
        """How many files in folder, and in the folders in it, are photos by their suffix."""
        inside = (name for _, _, names in os.walk(folder) for name in names)
        return sum(name[0] != "." and name.lower().endswith(self.suffixes) for name in inside)

    def beside(self, path, halves):
        """Note the photos in the folders that are no part of a split."""
        for folder in _folders(path):
            if folder not in halves:
                self.elsewhere[folder] += self.count_photos(folder)

    def report(self, count, strict):
        """Warn once of each kind; FileError for photos that cannot be read, if strict. count: photos that can be."""
        path, stack = shortened([str(self.path)])[0], 3
        for line in shortened(self.dim, width=500):
            warnings.warn(line, stacklevel=stack)
        elsewhere = {folder: number for folder, number in self.elsewhere.items() if number}
        if elsewhere:
            number = _counted(sum(elsewhere.values()), "photo")
            lines = [f"{folder}: {_counted(n, 'photo')}" for folder, n in elsewhere.items()]
            text = f"{path}: {number} not directly in a class folder, left out:"
            warnings.warn("\n    ".join([text, *shortened(lines)]), stacklevel=stack)
        if self.others:
            warnings.warn(f"{path}: {_listed(self.others)}, left out.", stacklevel=stack)
        if self.faults:
            what = f"{len(self.faults)} of {len(self.faults) + count} photos cannot be read"
            lines = "".join(f"\n    {line}" for line in shortened(self.faults))
            if strict:
                hint = "repair them or put them elsewhere; without strict they are skipped."
                raise FileError(self.path, f"{what}:{lines}", hint=hint)
            warnings.warn(f"{path}: {what} and are skipped:{lines}", stacklevel=stack)


def _listed(others):
    """How many files are no photos, as text. others: {(class folder, suffix): files}."""
    kinds = Counter()
    for (_, suffix), number in others.items():
        kinds[suffix] += number
    lines = shortened([f"{number} {suffix}" for suffix, number in sorted(kinds.items())])
    return f"{_counted(kinds.total(), 'file')} of no format that is opened ({', '.join(lines)})"


def _photo_suffixes():
    """The suffixes of the formats that are opened, in small letters."""
    opened, known = formats(), Image.registered_extensions().items()
    return [suffix for suffix, name in known if name in opened and suffix[:1] == "."]  # saving SPIDER may register ""


def _folders(path):
    return [folder for folder in _visible(path) if folder.is_dir()]


def _halves(path):
    """(train, test), the folders of a split that somebody has made already, or None."""
    known = {folder.name.lower(): folder for folder in _folders(path) if _holds_classes(folder)}
    found = [next((known[name] for name in names if name in known), None) for names in _SPLITS]
    return found if all(found) else None


def _holds_classes(folder):
    """Whether there are folders in it, and no photo beside them: then it is no class itself."""
    suffixes, inside = (*_photo_suffixes(), *UNREAD_SUFFIXES), _visible(folder)
    return any(p.is_dir() for p in inside) and not any(
        p.name.lower().endswith(suffixes) for p in inside if not p.is_dir()
    )


def _class_folders(path, left, least=2):
    """The class folders in path; photos beside them are noted in left."""
    folders = _folders(path)
    loose = sum(file.name.lower().endswith(left.suffixes) for file in _visible(path) if not file.is_dir())
    if len(folders) < least:
        what = f"has one class only, {_class_name(folders[0])!r}." if folders else "has no sub-folders."
        inner = [folder for folder in folders if _holds_classes(folder)]
        hint = f"give {inner[0]}, which holds folders." if inner else None
        if loose and not inner:
            hint = f"if {path.name} is one of the classes, give the folder that holds it."
        raise FileError(
            path,
            f"{what} {_counted(loose, 'photo')} in no class." if loose else what,
            rule="one sub-folder a class, two or more: photos/cat/1.jpg, photos/dog/2.jpg",
            hint=hint,
        )
    left.elsewhere[path] += loose
    return folders


def _class_name(folder):
    """The name of a class folder as text that every file and screen takes, though Linux names may be any bytes."""
    return folder.name.encode("utf-8", "backslashreplace").decode("utf-8")


def _no_photo(folder, left):
    """The FileError for a class without a photo; left has sorted it."""
    lines = [line for line in left.faults if line.startswith(f"{folder}{os.sep}")]
    deeper = {inner: n for inner, n in left.elsewhere.items() if n and inner.parent == folder}
    lines += [f"{inner}: {_counted(n, 'photo')}, a level deeper." for inner, n in deeper.items()]
    others = {key: n for key, n in left.others.items() if key[0] == folder}
    lines += [f"{_listed(others)}."] if others else []
    hint = "put photos in."
    if len(deeper) > 1:
        hint = f"give {folder}, if the classes are in it; else move the photos up."
    elif deeper:
        hint = f"move the photos up into {folder.name}."
    return FileError(
        folder,
        "\n    ".join(["has no photo that can be read.", *shortened(lines)]),
        rule=f"each folder in {folder.parent} is a class and holds photos: JPEG, PNG, WebP, TIFF, GIF, BMP, say.",
        hint=hint,
    )


def _counted(count, name, plural="s"):
    return f"{count} {name}{'' if count == 1 else plural}"


def _folder(path):
    if not os.path.isdir(path):
        raise FileError(
            path,
            "this is a file, not a folder." if os.path.exists(path) else "there is no such folder.",
            hint="give the folder that holds the data.",
        )
    return Path(path)


def _found(folder, choices, hint):
    """The first of each choice of names that is no folder; one FileError lists every choice that folder has none of."""
    there = ([path for name in names if (path := folder / name).exists() and not path.is_dir()] for names in choices)
    paths = [next(iter(found), None) for found in there]
    missing = [names[0] for names, path in zip(choices, paths, strict=True) if path is None]
    if missing:
        raise FileError(folder, f"has no {', '.join(missing)}.", hint=hint)
    return paths


def _visible(folder):
    """What is in folder, sorted by name.

    Hidden files stay out: macOS writes ._1.jpg, Jupyter .ipynb_checkpoints, Windows desktop.ini and Thumbs.db.
    """
    with _reading(folder):
        paths = [path for path in folder.iterdir() if path.name[0] != "." and path.name.lower() not in _HIDDEN]
        return sorted(paths, key=lambda path: path.name)


@contextmanager
def _reading(path):
    """Inside, what the system, gzip or UTF-8 raises becomes a FileError."""
    try:
        yield
    except FileError:
        raise
    except (OSError, EOFError, UnicodeError, zlib.error) as fault:
        raise FileError(path, f"cannot be read: {fault}", hint="if damaged, copy or download it again.") from fault


def _check_labels(path, labels):
    wrong = np.flatnonzero(labels > 9)
    if len(wrong):
        raise FileError(
            path,
            f"label {labels[wrong[0]]} at row {wrong[0]}, {len(wrong)} wrong of {len(labels)}.",
            rule="0 <= label <= 9",
        )


def _idx(path, rank, read=True):
    """(sizes, uint8 array of these sizes) of an IDX file; without read, None for the array.

    The format (http://yann.lecun.com/exdb/mnist): the bytes 0 0 8 rank, `rank` big-endian sizes of 4 bytes, the data.
    gzip is known by its first bytes, whatever the name. Memory grows with what the file holds, not what it promises.
    """
    with _reading(path), open(regular(path, _MOST), "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if packed else file
        header = stream.read(4 + 4 * rank)
        if header[:4] != bytes([0, 0, 8, rank]):
            raise FileError(
                path,
                f"begins with the bytes {header[:4].hex(' ') or '(none)'}.",
                rule=f"{'labels' if rank == 1 else 'pictures'} as IDX begin with 00 00 08 {rank:02x}",
                hint="it is another file than its name says, perhaps a saved web page: download it again.",
            )
        sizes = [int.from_bytes(header[at : at + 4], "big") for at in range(4, 4 + 4 * rank, 4)]
        if 0 in sizes:  # and so when the header is cut off
            raise FileError(path, f"has the header {header.hex(' ')}.", rule=f"4 bytes, {rank} sizes of 4, none is 0")
        data = bytearray()
        while read and len(data) <= min(prod(sizes), _MOST) and (chunk := stream.read(1 << 20)):
            data += chunk
    length = len(data) if read else prod(sizes) if packed else os.path.getsize(path) - len(header)
    if length != prod(sizes):
        raise FileError(
            path,
            f"is too {'short' if length < prod(sizes) else 'long'}.",
            rule=f"its header promises {' * '.join(map(str, sizes))} = {prod(sizes)} bytes, not {length}",
        )
    return sizes, np.frombuffer(data, np.uint8).reshape(sizes) if read else None


def _cifar_records(path):
    """(labels (N,), images (N, 3, 32, 32)) of one file: https://www.cs.toronto.edu/~kriz/cifar.html, binary version."""
    with _reading(path):
        data = np.frombuffer(read_regular(path, _MOST), np.uint8)
    if data.size == 0 or data.size % _RECORD:
        raise FileError(
            path,
            f"has {data.size} bytes.",
            rule=f"one or more records of {_RECORD} bytes",
            hint="it is cut off or another file: download it again.",
        )
    records = data.reshape(-1, _RECORD)  # (N, 3073)
    labels = records[:, 0].copy()  # not a view: it would keep the pixels in memory
    _check_labels(path, labels)
    return labels, records[:, 1:].reshape(-1, 3, 32, 32)  # (N,), (N, C, H, W)
