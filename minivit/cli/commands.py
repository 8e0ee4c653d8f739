"""What the commands on data do: train, finetune, evaluate, predict, export and import.

A training folder holds config.json, preprocessor_config.json, training.npz, history.csv and pictures. Every function
prints what it found and raises a MinivitError for a mistake in its input.
"""

import contextlib
import dataclasses
import json
import math
import warnings
from pathlib import Path

import numpy as np

from .. import datasets, images, ops, training, weights
from ..autograd import no_grad
from ..config import ViTConfig, to_2tuple
from ..errors import FileError, MinivitError, shortened, shown
from ..machinery.communication import world
from ..machinery.files import read_json, write_json
from ..vit import ViTForImageClassification, ViTForMaskedImageModeling, ViTModel
from ..weights import find
from . import probe, surroundings
from .folders import notes, place_of_picture, writing
from .recipes import PHOTO_SIZE, recipe

MODEL_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "patch_size",
    "image_size",
)
FEW = 16  # photos that are read before the first of them is answered: a thousand would not fit
FEW_PHOTOS = 2000  # fewer than these teach a Vision Transformer little from scratch
MISTAKES = 12  # test pictures that are drawn: those whose right class got the least chance
MASKED = 0.5  # share of the patches that are hidden when a model is pretrained without labels


def train(
    data, out, *, seed=0, fast=False, resume=False, masked=False, strict=False, force=False, model=None, **changes
):
    """Train a model from scratch on a data set and keep it in the folder `out`.

    data: as datasets.load takes it; model: fields of ViTConfig, changes: fields of the Recipe, to set anew.
    masked: without labels, by painting hidden patches; fast: a sixth of the epochs; force: into a folder with other
    files, too.
    """
    chosen = _chosen(data, fast, changes)
    fields = chosen.model | (model or {})
    _check_outside(data, out)
    train_set, test_set = _data(data, {"size": fields.pop("image_size", None)}, strict)
    if len(train_set) < FEW_PHOTOS and not masked and Path(data).is_dir():
        print(
            f"note: {len(train_set)} photos are few to learn from scratch. One that has seen many learns from few:\n"
            f"      minivit finetune dinov2-small {shown(data)} --out DIR"
        )
    fields |= {"image_size": train_set.image_size, "num_channels": train_set.num_channels}
    fields["id2label"] = dict(enumerate(train_set.class_names))
    fields["encoder_stride"] = to_2tuple(fields["patch_size"])[0]
    kind = ViTForMaskedImageModeling if masked else ViTForImageClassification
    with _unwarned():
        _fit(kind(ViTConfig(**fields), rng=seed), chosen, train_set, test_set, out, seed, resume, force)


def finetune(
    source,
    data,
    out,
    *,
    freeze=None,
    image_size=None,
    seed=0,
    fast=False,
    resume=False,
    strict=False,
    force=False,
    **changes,
):
    """Go on from the model in `source` on other data; a new head where the classes differ.

    freeze: leave the body as it is, look at each picture once, and compute a linear head; None does so for
    dinov2-small. fast: a sixth of the epochs. image_size: in pixels; with another than the model's, its position
    embeddings are interpolated and the pictures resized. force: into a folder with other files, too.
    """
    _check_outside(data, out)
    found = find(source)
    freeze = found == weights.box_folder("dinov2-small") if freeze is None else freeze
    if freeze and (changes or fast):
        raise MinivitError(
            "finetune",
            f"{', '.join(changes or ['fast'])} given, and the body is frozen.",
            rule="with a frozen body the head is computed at once, by one formula, and not by steps.",
            hint="leave it out; or --no-freeze, to learn the whole model by steps.",
        )
    fields, tensors = weights.read_folder(found)
    before = ViTConfig.from_dict(fields)
    fields["problem_type"] = None  # a folder of a class, or a digit, gives class numbers
    preprocessor = weights.preprocessor_of(found, before)
    size = image_size or _last_size(preprocessor) or before.image_size
    if size != _last_size(preprocessor):
        preprocessor = weights.at_size(preprocessor, to_2tuple(size))
    train_set, test_set = _data(data, weights.picture_options(preprocessor, before.num_channels), strict)
    _check_channels("finetune", before, train_set)
    names = dict(enumerate(train_set.class_names))
    if names != before.id2label:  # the old head, even one of the same size, speaks of other classes
        tensors = {name: array for name, array in tensors.items() if not name.startswith("classifier.")}
    with warnings.catch_warnings(action="ignore") if freeze else notes():  # a head that was drawn is computed below
        model = ViTForImageClassification.from_tensors(
            fields, tensors, ignore_mismatched_sizes=True, rng=seed, id2label=names, image_size=to_2tuple(size)
        )
    if freeze:
        return _fit_head(model, train_set, test_set, out, resume, force, preprocessor)
    chosen = _chosen(data, fast, {"lr": recipe(data).lr / 2} | changes)  # gently: the body has learned already
    with _unwarned():
        _fit(model, chosen, train_set, test_set, out, seed, resume, force, preprocessor)


def _fit_head(model, train_set, test_set, out, resume, force, preprocessor):
    """Compute a linear head for what the frozen body sees, and write all that a training folder holds."""
    out, K = Path(out), model.config.num_labels
    options = weights.picture_options(preprocessor, model.config.num_channels)
    train_set, test_set = _scaled(train_set, options), _scaled(test_set, options)
    hint = "choose another folder; or fit the head anew to what is known of the pictures by --resume."
    with contextlib.ExitStack() as stack:
        if world().is_first:
            lock = stack.enter_context(writing(out, force=force, resume=resume, hint=hint))
            if resume:
                _check_same(out, model.fields())
            _describe(out, model.fields(), preprocessor)
        count, size = len(train_set) + len(test_set), model.vit.num_parameters()
        print(f"{count} pictures are looked at by a body of {size:,} parameters, which stay as they are")
        with _unwarned():
            features, unseen = probe.look(model.vit, [train_set, test_set], out)
        if not all(np.isfinite(x).all() for x in (features, unseen)):
            raise _not_finite("what it sees in the pictures is not finite", out)
        if not world().is_first:
            return
        head = probe.fit_head(features, train_set.labels, K)
        model.classifier.weight.data, model.classifier.bias.data = head.weight, head.bias
        lock.check()
        arrays = {f"model/{name}": parameter.data for name, parameter in model.named_parameters()}
        weights.write_state(out / weights.STATE, arrays, {})
        if math.isnan(head.accuracy):
            print("note: each class has one picture: how well it is learned cannot be told.")
        else:
            print(f"each picture by a head that learned from all others: {head.accuracy:.2%} right")
        if not len(test_set):
            print(f"{shown(out)}: there were no test pictures.")
            return
        p = ops.softmax(unseen @ head.weight.T + head.bias).data  # (N, K)
        right = int((p.argmax(1) == test_set.labels).sum())
        low, high = probe.interval(right, len(test_set))
        told = f"{right / len(test_set):.2%} ({right} of {len(test_set)}; 95 % interval {low:.0%} to {high:.0%})"
        print(f"{shown(out)}: test accuracy {told}")
        worst = np.argsort(p[np.arange(len(p)), test_set.labels], kind="stable")[:MISTAKES]
        _draw(out / "mistakes.png", "answers", test_set.subset(worst), p[worst])


def evaluate(source, data, out=None, *, strict=False, force=False):
    """Measure the model in `source` on the test part of a data set: accuracy, a table by class, a confusion picture.

    out: folder for the picture; None takes `source`, if it is a folder that minivit wrote. force: write into a folder
    with other files, too.
    """
    model, options = _load(source)
    path = place_of_picture(source, out, "confusion.png", force) if world().is_first else None
    _, test_set = _data(data, options, strict)
    _check_channels("evaluate", model.config, test_set)
    own = model.config.class_names
    if own != test_set.class_names and own != [f"LABEL_{k}" for k in range(len(test_set.class_names))]:
        raise MinivitError(
            "evaluate",
            f"the model knows {', '.join(shortened(own))}; the data are {', '.join(shortened(test_set.class_names))}.",
            rule="the model and the data have the same classes, in the same order.",
            hint=f"finetune it first: minivit finetune {source} {data} --out DIR",
        )
    if not len(test_set):
        raise MinivitError("evaluate", f"{data} has no test pictures.", hint="give each class two photos or more.")
    with _unwarned():
        measured = training.evaluate(model, _scaled(test_set, options))
    if not np.isfinite(measured.loss):
        raise _not_finite(f"the loss on {len(test_set)} pictures of {data} is {measured.loss}", source)
    print(f"accuracy {measured.accuracy:.2%} on {len(test_set)} pictures, loss {measured.loss:.4f}\n")
    _print_classes(measured.confusion, test_set.class_names)
    if path is None:
        print(f"\nnote: {shown(source)} is no folder that minivit wrote; --out DIR draws the confusion picture there.")
    else:
        _draw(path, "confusion", measured.confusion, test_set.class_names)


def predict(source, photos, *, top=3, invert=False):
    """Print the most likely classes of each photo, with their probabilities; of a regression, its numbers.

    invert: turn black and white around first, for ink on paper before a model that learned white on black.
    """
    model, options = _load(source)
    names, task = model.config.class_names, model.config.task
    chances = ops.sigmoid if task == "multi_label_classification" else ops.softmax
    for start in range(0, len(photos), FEW):
        few = photos[start : start + FEW]
        batch = [_pixel_values(photo, model.config, options, invert) for photo in few]
        for photo, pixel_values in zip(few, batch, strict=True):
            with no_grad(), _unwarned():
                logits = model(pixel_values[None], interpolate_pos_encoding=True).logits  # (1, K)
            if not np.isfinite(logits.data).all():
                raise _not_finite(f"the scores of {photo} are not finite", source)
            numbers = logits.data[0] if task == "regression" else chances(logits).data[0]  # (K,)
            print(shown(photo))
            for k in range(len(numbers)) if task == "regression" else np.argsort(-numbers, kind="stable")[:top]:
                number = f"{numbers[k]:7.4f}" if task == "regression" else f"{numbers[k]:7.2%}"
                print(f"  {number}  {shown(names[k])}")


def export(source, out, *, force=False):
    """Write the model in `source` as a Hugging Face folder, which transformers loads."""
    found = find(source)
    with writing(out, force=force) as lock:
        model = _model(*weights.read_folder(found))
        model.save_pretrained(lock.folder, weights.read_preprocessor(found), force)
        written = sorted(path.name for path in lock.folder.iterdir() if path != lock.path)
    print(f"{shown(out)} holds {', '.join(shortened(written))}")


def import_(source, out, *, force=False):
    """Bring a model from a Hugging Face folder, or from the hub by its name, into a training folder."""
    found = find(source)
    with writing(out, force=force) as lock:
        model = _model(*weights.read_folder(found))
        preprocessor = weights.read_preprocessor(found)
        if preprocessor is None:
            print(f"note: there is no {weights.PREPROCESSOR}; pictures will be scaled with mean 0.5 and deviation 0.5.")
        _describe(lock.folder, model.fields(), preprocessor)
        arrays = {f"model/{name}": parameter.data for name, parameter in model.named_parameters()}
        weights.write_state(lock.folder / weights.STATE, arrays, {})
    print(f"{shown(out)} holds a {type(model).__name__} of {model.num_parameters():,} parameters.")


def _model(fields, tensors):
    """The model that these tensors fill: one with a head where they have one."""
    heads = {"classifier.weight": ViTForImageClassification, "decoder.0.weight": ViTForMaskedImageModeling}
    kind = next((kind for name, kind in heads.items() if name in tensors), ViTModel)
    return kind.from_tensors(fields, tensors)


def _data(name, options, strict):
    """(train, test), their pictures by these options of pixel_values, or as they are; a note of what was skipped."""
    options = {key: options.get(key) for key in ("size", "resample", "shortest_edge", "crop") if options.get(key)}
    with notes():
        pair = datasets.load(name, size=options.get("crop") or options.get("size") or PHOTO_SIZE, strict=strict)
    return [dataset.resized(**{"size": None} | options) for dataset in pair] if options else pair


def _scaled(dataset, options):
    return dataset.scaled(options["mean"], options["std"], options["rescale_factor"])


def named_size(name):
    """The fields in which ViTConfig.tiny(), small() or base() differ from one another."""
    config = getattr(ViTConfig, name)()
    return {field: getattr(config, field) for field in MODEL_FIELDS[:4]}


def _chosen(data, fast, changes):
    chosen = dataclasses.replace(recipe(data), **changes)
    return dataclasses.replace(chosen, epochs=-(-chosen.epochs // 6)) if fast else chosen


def _fit(model, chosen, train_set, test_set, out, seed, resume, force, preprocessor=None):
    """Train, and write all that a training folder holds."""
    out, config = Path(out), model.config
    preprocessor = preprocessor or weights.preprocessor(config.image_size, 0.5, 0.5, config.num_channels)
    options = weights.picture_options(preprocessor, config.num_channels)
    train_set, test_set = _scaled(train_set, options), _scaled(test_set, options)
    painting = isinstance(model, ViTForMaskedImageModeling)
    hint = "choose another folder; or go on with a training by --resume."
    with contextlib.ExitStack() as stack:
        if world().is_first:
            lock = stack.enter_context(writing(out, force=force, resume=resume, hint=hint))
            if resume:
                _check_same(out, model.fields())
            else:
                _describe(out, model.fields(), preprocessor)
                training.write_history(out / training.HISTORY, [])
        kind = type(model).__name__
        print(f"{kind} of {model.num_parameters():,} parameters, {len(train_set)} pictures to learn from")
        history = chosen.fit(
            model,
            train_set,
            None if painting else test_set,
            rng=seed,
            loss=paint if painting else None,
            checkpoint=out / weights.STATE,
            resume=resume,
        )
        if not world().is_first:
            return
        lock.check()
        if not (out / weights.CONFIG).exists():
            print(f"note: {shown(out / weights.CONFIG)} was deleted meanwhile, and is written again.")
            _describe(out, model.fields(), preprocessor)
        _check_same(out, model.fields())
        _draw(out / "curves.png", "training_curves", history)
    if "test_accuracy" not in history[-1] and not painting:
        print(f"{shown(out)}: there were no test pictures.")
    elif painting:
        error = history[-1]["train_loss"]
        print(f"{shown(out)}: mean error of a hidden pixel {error:.4f}, from -1 (black) to 1 (white)")
    else:
        right, count = history[-1]["test_accuracy"], len(test_set)
        print(f"{shown(out)}: test accuracy {right:.2%} ({round(right * count)} of {count})")


def paint(model, pixel_values, labels, rng):
    """A loss for fit: that of painting hidden patches, a random half of each picture's. Nothing counts as correct."""
    B, N = len(pixel_values), model.vit.embeddings.patch_embeddings.num_patches
    if N < 2:
        raise MinivitError("paint", "one patch is the whole picture.", hint="use a smaller patch_size.")
    hidden = rng.random((B, N)).argsort(1) < round(MASKED * N)  # (B, N)
    return model(pixel_values, hidden).loss, None


def _describe(out, fields, preprocessor):
    """Write what a training folder says about its model: config.json and preprocessor_config.json."""
    weights.write_config(out, fields)
    if preprocessor is not None:
        write_json(out / weights.PREPROCESSOR, preprocessor)


def _load(source):
    """The classifier in a folder, for pictures of the size that it gets, and the options of pixel_values for them."""
    found = find(source)
    fields, tensors = weights.read_folder(found)
    if not any(name.startswith("classifier.") for name in tensors):
        raise FileError(
            source,
            "holds a model without a classifier.",
            rule="only a classifier has classes to tell.",
            hint=f"finetune it first: minivit finetune {source} DATA --out DIR",
        )
    config = ViTConfig.from_dict(fields)
    preprocessor = weights.preprocessor_of(found, config)
    size = _last_size(preprocessor)
    fits = size and all(side % p == 0 for side, p in zip(size, to_2tuple(config.patch_size), strict=True))
    model = ViTForImageClassification.from_tensors(fields, tensors, image_size=size if fits else config.image_size)
    return model, weights.picture_options(preprocessor, config.num_channels)


def _last_size(preprocessor):
    """(height, width) of every picture in the end; None where each keeps its own."""
    options = weights.picture_options(preprocessor, len(preprocessor["image_mean"]))
    return options["crop"] or options["size"]


def _pixel_values(photo, config, options, invert):
    """A photo as the model of this config wants it: (C, H, W)."""
    with notes():
        picture = images.open_image(photo).convert("L" if config.num_channels == 1 else "RGB")
    picture = 255 - np.asarray(picture) if invert else np.asarray(picture)
    if config.num_channels == 1 and _dark_on_light(picture):
        advice = "without" if invert else "with"
        print(
            f"note: {shortened([str(photo)])[0]}: dark on light{' after --invert' if invert else ''}. "
            f"A model that learned light on dark, as digits are, wants it {advice} --invert."
        )
    return images.pixel_values(picture, **options)


def _dark_on_light(grey):
    """Whether a grey picture (H, W) goes further below the brightness of its edge than above."""
    ground = np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]))
    darkest, lightest = np.percentile(grey, (0.5, 99.5))  # a pixel or two may be noise
    return ground - darkest > lightest - ground


def _check_outside(data, out):
    """Refuse to write among the photos, where the pictures of a training would be one class more."""
    if data != "digits" and Path(data).is_dir() and Path(out).resolve().is_relative_to(Path(data).resolve()):
        raise FileError(out, f"lies inside the data, {data}.", hint="choose a folder outside.")


def _check_same(out, fields):
    """Refuse to go on with the training of another model, before anything is changed."""
    if not (out / weights.STATE).is_file():
        raise FileError(out / weights.STATE, "there is no training to go on with.", hint="leave out --resume.")
    before, now = read_json(out / weights.CONFIG), json.loads(json.dumps(fields))
    differ = [f"{key}: {before.get(key)} then, {now.get(key)} now" for key in now if before.get(key) != now[key]]
    if differ:
        raise FileError(
            out,
            "\n    ".join(["holds the training of another model:", *shortened(differ)]),
            hint="give the options of the first run, or choose another folder.",
        )


def _check_channels(where, config, data):
    if data.num_channels != config.num_channels:
        raise MinivitError(
            where,
            f"the pictures have {data.num_channels} channels, the model {config.num_channels}.",
            rule="a model goes on with pictures of the kind that it was trained on: 1 channel is grey, 3 are colour.",
        )


def _unwarned():
    """`with _unwarned():` no warnings of NumPy's: what overflows shows in the result, which is looked at."""
    return warnings.catch_warnings(action="ignore", category=RuntimeWarning)


def _not_finite(what, source):
    return MinivitError(
        source,
        f"{what}.",
        rule="a model's results are finite numbers.",
        hint="its weights are damaged or were spoiled in training: take an earlier copy, or train it anew.",
    )


def _print_classes(confusion, names):
    """A line for each class: how many, how many of them were found, and how many of the finds are right."""
    names = [shown(name, 60) for name in names]
    width = max(len("class"), *map(len, names))
    print(f"{'class':{width}}  pictures  found   right")
    for name, row, column, hits in zip(names, confusion, confusion.T, confusion.diagonal(), strict=True):
        found = f"{hits / row.sum():6.1%}" if row.sum() else "     -"
        right = f"{hits / column.sum():6.1%}" if column.sum() else "     -"
        print(f"{name:{width}}  {row.sum():8d}  {found}  {right}")


def _draw(path, name, *numbers):
    """Write a figure of plots, by its name. Only now is pyplot imported: a backend that fails could stop no work."""
    surroundings.matplotlib()
    from matplotlib import pyplot

    from .. import plots

    figure = getattr(plots, name)(*numbers)
    try:
        plots.save(figure, path)
    finally:
        pyplot.close(figure)
