"""Recipes: what they hand to training.fit, and the numbers that README's accuracies were measured with."""

import dataclasses

import numpy as np
import pytest

from minivit import augment, datasets, nn, training
from minivit.cli.recipes import Recipe, recipe


@pytest.fixture
def given(monkeypatch):
    """What training.fit was called with: given.args and given by name."""

    class Given(dict):
        args = ()

    given = Given()

    def fit(*args, **kwargs):
        given.args = args
        given.update(kwargs)

    monkeypatch.setattr(training, "fit", fit)
    return given


def data(count):
    return datasets.Dataset(np.zeros((count, 1, 8, 8), np.uint8), np.zeros(count, int), ["a"])


def test_all_of_a_recipe_reaches_fit(given):
    chosen = Recipe(4, 10, 0.3, weight_decay=0.7, label_smoothing=0.2, max_norm=5.0, decay=0.8)
    model, train, test, loss = nn.Linear(2, 3), data(95), data(5), object()
    model.bias.requires_grad = False
    chosen.fit(model, train, test, rng=6, loss=loss, checkpoint="path", resume=True, verbose=False)
    assert given.args == (model, train, test)
    optimizer, average, schedule = (given.pop(name) for name in ("optimizer", "average", "schedule"))
    assert given == {
        "epochs": 4,
        "batch_size": 10,
        "augment": chosen.augment,
        "label_smoothing": 0.2,
        "rng": 6,
        "checkpoint": "path",
        "resume": True,
        "loss": loss,
        "max_norm": 5.0,
        "verbose": False,
    }
    assert type(optimizer).__name__ == "AdamW" and (optimizer.lr, optimizer.weight_decay) == (0.3, 0.7)
    assert optimizer.parameters == [model.weight]  # the bias is frozen
    assert average.decay == 0.8 and average.parameters == model.parameters()
    # 40 steps, 4 of them to warm up, then half a cosine
    assert [schedule(step) for step in (0, 3, 4)] == pytest.approx([0.2, 0.8, 1.0])
    assert schedule(22) == pytest.approx(0.5) and schedule(40) == pytest.approx(0)


def test_the_warm_up_is_a_hundred_steps_at_most(given):
    Recipe(100, 10, 0.3).fit(nn.Linear(2, 3), data(500))
    assert [given["schedule"](step) < 1 for step in (99, 100)] == [True, False]


def test_the_augmentation_is_what_the_recipe_says():
    x = np.random.default_rng(0).standard_normal((6, 1, 8, 8)).astype(np.float32)
    affine = {"degrees": 10, "shift": 1, "scale": 0.1}
    rng, same = np.random.default_rng(1), np.random.default_rng(1)
    changed = Recipe(1, 1, 1, affine=affine, crop=2, flip=True).augment(x, rng)
    expected = augment.random_affine(x, same, **affine)
    expected = augment.random_flip(augment.random_crop(expected, 2, same), same)
    np.testing.assert_array_equal(changed, expected)
    assert (changed != x).any() and Recipe(1, 1, 1).augment(x, rng) is x


def test_only_photos_are_mirrored():
    assert {name: recipe(name).flip for name in ("digits", "mnist:x", "cifar10:x", "my/photos")} == {
        "digits": False,
        "mnist:x": False,
        "cifar10:x": True,
        "my/photos": True,
    }


def test_the_recipe_of_the_digits_is_the_one_that_was_measured():
    """README's accuracies come from these numbers: who changes one measures them anew."""
    assert dataclasses.asdict(recipe("digits")) == {
        "epochs": 120,
        "batch_size": 32,
        "lr": 2e-3,
        "model": {
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 8,
            "intermediate_size": 128,
            "patch_size": 4,
            "initializer_range": 0.15,
            "hidden_dropout_prob": 0.1,
        },
        "affine": {"degrees": 10, "shift": 0.5, "scale": 0.1, "shear": 10},
        "crop": 0,
        "flip": False,
        "weight_decay": 0.1,
        "label_smoothing": 0.1,
        "max_norm": 1.0,
        "decay": 0.999,
    }
