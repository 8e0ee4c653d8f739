"""The data of a live page: a model of digits, its untrained twin, and test digits to begin a drawing with."""

import numpy as np

from .. import datasets, training
from ..config import ViTConfig, to_2tuple
from .pack import pack, pack_steps

EACH = 10  # test digits of each class
WRONG = 20  # at most, of those that the model gets wrong


def reads_digits(config):
    """Whether a classifier of this config can run on a drawn digit: grey pictures, and the classes "0" to "9"."""
    digits = [str(k) for k in range(10)]
    return config.num_channels == 1 and config.class_names == digits and config.task == "single_label_classification"


def live_data(model, options):
    """What the live page of a ViTForImageClassification that reads digits has beside its config, ready for JSON.

    options: of images.pixel_values for its pictures, see weights.picture_options. The weights are
    float32, as the model's. The twin is the same config with rng=0; its matrices come in 8 bits, which change nothing
    about numbers that nobody chose.
    """
    return {
        "kind": "live",
        "answers": model.config.class_names,
        "answers_are": "classes",
        "weights": {name: pack(x) for name, x in _whole(model).items()},
        "twin": {name: _in_8_bits(x) for name, x in _whole(_untrained(model)).items()},
        "digits": _digits(model, options),
    }


def _whole(model):
    """{hub name: array}, with zeros in the places of heads that were pruned: the page has h heads in each layer."""
    return model._unpruned({name: parameter.data for name, parameter in model.named_parameters()})


def _untrained(model):
    return type(model)(ViTConfig.from_dict(model.config.to_dict() | {"pruned_heads": {}}), rng=0)


def _in_8_bits(x):
    return pack_steps(x, int(np.argmax(x.shape))) if x.ndim > 1 else pack(x)


def _digits(model, options):
    """Test digits (n, H, W), EACH of every class and then some that the model gets wrong, and what scales them."""
    _, test = datasets.digits()
    test = test.resized(to_2tuple(model.config.image_size), resample=options["resample"])
    scales = {"rescale_factor": options["rescale_factor"]}
    scales |= {key: np.ravel(options[key]).tolist() for key in ("mean", "std")}
    said = training.evaluate(model, test.scaled(**scales)).predictions
    few = np.stack([np.flatnonzero(test.labels == k)[:EACH] for k in range(len(test.class_names))], axis=1).ravel()
    wrong = np.setdiff1d(np.flatnonzero(said != test.labels), few)[:WRONG]
    rows = np.concatenate([few, wrong])
    return {"pictures": pack(test.images[rows, 0], "uint8"), "labels": pack(test.labels[rows], "uint8")} | scales
