"""The numbers of training, measured: `python -m tests.benchmark_training [digits] [finetuning] [few] [checkpoint]`.

Not a test: it takes minutes, and asserts nothing. Accuracies depend on the machine by a few answers at most, through
the last bits of its matrix products; times do wholly: they are medians, with the smallest and largest.
"""

import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from minivit import datasets, images, training, vit
from minivit.cli import commands, probe
from minivit.cli.recipes import recipe
from minivit.config import ViTConfig
from minivit.vit import ViTForImageClassification, ViTForMaskedImageModeling

SVM = 0.9689  # SVC(gamma=0.001) on the same split, in scikit-learn's own example
SEEDS = range(5)
DRAWS = range(5, 10)  # draws 0 to 4 chose the settings of finetuning


def spread(values, form="{:.2%}"):
    """Mean, smallest and largest."""
    mean, low, high = (form.format(f(values)) for f in (statistics.mean, min, max))
    return f"mean {mean} ({low} to {high})"


def config(chosen, data, **fields):
    """The ViTConfig of a recipe for a data set."""
    fields = {"id2label": dict(enumerate(data.class_names)), "encoder_stride": chosen.model["patch_size"], **fields}
    return ViTConfig(**chosen.model, image_size=data.image_size, num_channels=data.num_channels, **fields)


def accuracy(model, test):
    """Of a model on a data set."""
    return training.evaluate(model, test).accuracy


def digits():
    """`minivit train digits` for five seeds; seed 0 is the command's own."""
    train, test = datasets.digits()
    chosen = recipe("digits")
    accuracies, seconds = [], []
    for seed in SEEDS:
        model = ViTForImageClassification(config(chosen, train), rng=seed)
        start = time.perf_counter()
        chosen.fit(model, train, rng=seed)
        seconds.append(time.perf_counter() - start)
        accuracies.append(accuracy(model, test))
        print(f"digits, seed {seed}: test accuracy {accuracies[-1]:.4f} in {seconds[-1]:.1f} s", flush=True)
    print(f"digits: {spread(accuracies)}; seed 0 {accuracies[0]:.4f}, the support vector machine {SVM}")
    print(f"digits: seconds median {statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})")


def finetuning():
    """Pretrained on 0-4, then 10 examples each of 5-9; from scratch; and pretrained masked on all training digits.

    Five draws of the examples, and three budgets: the same epochs and learning rate for all. What was pretrained on
    0-4 was trained briefly and with strong weight decay, which a sweep over draws 0 to 4 had shown to travel better.
    """
    train, test = datasets.digits()
    chosen = recipe("digits")
    before = train.only(range(5))
    pretrained = ViTForImageClassification(config(chosen, before), rng=0)
    dataclasses.replace(chosen, epochs=30, weight_decay=1.0).fit(pretrained, before, rng=0)
    painter = ViTForMaskedImageModeling(config(chosen, train), rng=0)
    chosen.fit(painter, train, rng=0, loss=commands.paint)

    after, unseen = train.only(range(5, 10)), test.only(range(5, 10))
    starts = {"from scratch": None, "pretrained on 0-4": pretrained, "pretrained masked": painter}
    for epochs, lr in ((10, chosen.lr / 2), (20, chosen.lr / 2), (120, chosen.lr)):
        found = {name: [] for name in starts}
        for draw in DRAWS:
            shown = after.few(10, rng=draw)
            for name, start in starts.items():
                model = ViTForImageClassification(config(chosen, after), rng=draw)
                if start is not None:
                    model.vit.load_state_dict(start.vit.state_dict(), strict=False)
                dataclasses.replace(chosen, batch_size=10, epochs=epochs, lr=lr).fit(model, shown, rng=draw)
                found[name].append(accuracy(model, unseen))
        print(f"10 images each of 5-9, {epochs} epochs, lr {lr:g}")
        for name, accuracies in found.items():
            print(f"  {name}: {spread(accuracies)}")
        points = [100 * (a - b) for a, b in zip(found["pretrained on 0-4"], found["from scratch"], strict=True)]
        print(f"  pretrained on 0-4 above from scratch, in points: {spread(points, '{:+.1f}')}", flush=True)


def photographs():
    """Ten free photos by name, uint8 (H, W, 3): those of the box, and scikit-image's, which its package brings."""
    from skimage import data

    found = {name: np.asarray(images.open_image(images.photo(f"{name}.jpg"))) for name in ("cat", "coffee", "pagoda")}
    for name in ("astronaut", "rocket", "camera", "coins", "brick", "grass", "gravel"):
        picture = getattr(data, name)()
        found[name] = np.stack([picture] * 3, -1) if picture.ndim == 2 else picture[..., :3]
    return found


def crops(photos, half, count, rng):
    """A Dataset with so many crops of each photo, from its left half (0) or its right one (1), 224 x 224 pixels."""
    pictures = []
    for picture in photos.values():
        middle = picture.shape[1] // 2
        part = picture[:, middle:] if half else picture[:, :middle]
        side = int(min(part.shape[:2]) * 0.8)
        for _ in range(count):
            top, left = (rng.integers(size - side + 1) for size in part.shape[:2])
            crop = Image.fromarray(part[top : top + side, left : left + side])
            pictures.append(np.asarray(crop.resize((224, 224), Image.Resampling.BICUBIC)).transpose(2, 0, 1))
    return datasets.Dataset(np.stack(pictures), np.repeat(np.arange(len(photos)), count), list(photos))


def few():
    """Ten crops each of ten photos' left halves, judged on crops of the right halves; mean of five draws.

    A linear head on the trained eye's frozen features, as `minivit finetune dinov2-small` computes it, and the recipe
    of `minivit train PHOTOS`, from scratch on the same crops.
    """
    eye = vit.ViTModel.from_pretrained("dinov2-small", add_pooling_layer=False, image_size=224)
    photos, chosen = photographs(), recipe("photos")
    found = {"linear head on frozen features": [], "from scratch": []}
    for draw in SEEDS:
        rng = np.random.default_rng(draw)
        train, test = crops(photos, 0, 10, rng), crops(photos, 1, 10, rng)
        with tempfile.TemporaryDirectory() as folder:
            seen = [data.scaled(**images.IMAGENET) for data in (train, test)]
            features, unseen = probe.look(eye, seen, Path(folder))
        head = probe.fit_head(features, train.labels, len(photos))
        right = (unseen @ head.weight.T + head.bias).argmax(1) == test.labels
        found["linear head on frozen features"].append(float(right.mean()))
        small = [data.resized(64) for data in (train, test)]
        model = ViTForImageClassification(config(chosen, small[0]), rng=draw)
        chosen.fit(model, small[0], rng=draw, verbose=False)
        found["from scratch"].append(accuracy(model, small[1]))
        print(f"draw {draw}: {', '.join(f'{name} {values[-1]:.2%}' for name, values in found.items())}", flush=True)
    for name, values in found.items():
        print(f"ten crops a class, {name}: {spread(values)}")


MEASURE = """
import sys, time
from minivit import vit
from tests.benchmarks.worker import peak_memory
start = time.perf_counter()
model = vit.ViTForImageClassification.from_pretrained(sys.argv[1])
loaded = time.perf_counter() - start
peak = peak_memory()
start = time.perf_counter()
model.save_pretrained(sys.argv[2])
saved = time.perf_counter() - start
print(loaded, peak or "nan", saved, peak_memory() or "nan")
"""


def checkpoint():
    """Base/16, 346 MB: seconds to load and save, and the peak memory of a process that does it (NaN on Windows)."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = str(Path(folder, "first")), str(Path(folder, "second"))
        ViTForImageClassification(ViTConfig.base(num_labels=1000)).save_pretrained(first)
        size = Path(first, "model.safetensors").stat().st_size
        runs = []
        for _ in range(5):
            run = subprocess.run([sys.executable, "-c", MEASURE, first, second], capture_output=True, check=True)
            runs.append([float(number) for number in run.stdout.split()])
        loaded, load_peak, saved, save_peak = np.median(runs, axis=0)
    print(f"Base/16, {size / 1e6:.0f} MB: loads in {loaded:.2f} s, peak {load_peak / size:.2f} x its size;", end=" ")
    print(f"saves in {saved:.2f} s, peak {save_peak / size:.2f} x")


if __name__ == "__main__":
    parts = {part.__name__: part for part in (digits, finetuning, few, checkpoint)}
    for name in sys.argv[1:] or parts:
        parts[name]()
