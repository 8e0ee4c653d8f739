"""What lessons 7 and 8 build, beyond their own asserts: the ledger, the engine, and five mistakes, each as told."""

import math
import re
import runpy

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from minivit import lessons, nn, vit

matplotlib.use("Agg")


def run(number):
    """The names of a lesson, and its cells."""
    (lesson,) = [lesson for lesson in lessons.lessons() if lesson.number == number]
    cells = re.split(r"^# %%", lesson.path.read_text(encoding="utf-8"), flags=re.M)
    names = runpy.run_path(str(lesson.path))
    plt.close("all")
    return {**names, "cells": cells}


@pytest.fixture(scope="module")
def whole():
    return run("07")


@pytest.fixture(scope="module")
def engine():
    return run("08")


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large", "huge"])
def test_the_ledger_has_the_parameters_of_every_stage_of_every_size(whole, size):
    with nn.meta():
        model = vit.ViTForImageClassification(getattr(vit.ViTConfig, size)(num_labels=1000))
    embeddings, (block, *more) = model.vit.embeddings, model.vit.encoder.layer
    L, patches = 1 + len(more), embeddings.patch_embeddings.num_parameters()
    norms = block.layernorm_before.num_parameters() + block.layernorm_after.num_parameters()
    rows = whole["ledger"](model.config)
    assert {stage: parameters for stage, (_, parameters, _) in rows.items()} == {
        "patch embeddings": patches,
        "CLS, positions": embeddings.num_parameters() - patches,
        "query, key, value": L * block.attention.attention.num_parameters(),
        "scores": 0,
        "weights x values": 0,
        "output matrix": L * block.attention.output.num_parameters(),
        "MLP": L * (block.intermediate.num_parameters() + block.output.num_parameters()),
        "layer norms": L * norms + model.vit.layernorm.num_parameters(),
        "head": model.classifier.num_parameters(),
    }
    assert sum(row[1] for row in rows.values()) == model.num_parameters()


def test_the_multiply_adds_of_the_ledger_are_those_of_the_ops(whole):
    assert sum(row[2] for row in whole["ledger"](whole["config"]).values()) == walked(whole["out"].logits)[0]


def test_all_but_matrix_products_write_under_two_per_cent(whole):
    products, others = walked(whole["out"].logits)
    assert 0 < others < 0.02 * products


def walked(logits):
    """Multiply-adds of the matrix products that made these logits, and how many numbers all other ops wrote."""
    products, others, seen, to_do = 0, 0, set(), [logits._node]
    while to_do:
        node = to_do.pop()
        if node in seen:
            continue
        seen.add(node)
        to_do += [parent for parent in node.parents if hasattr(parent, "op")]
        if node.op in ("linear", "conv2d"):
            products += math.prod(node.shape) * math.prod(node.parents[1].shape[1:])
        elif node.op in ("einsum", "matmul"):  # scores, weights x values: summed over the last axis of the first
            products += math.prod(node.shape) * node.parents[0].shape[-1]
        else:
            others += math.prod(node.shape)
    return products, others


@pytest.mark.parametrize(
    "fn, value, slope",
    [
        (lambda x: 5.0 * x, 15, 5),
        (lambda x: x * 5.0, 15, 5),
        (lambda x: x * 5, 15, 5),
        (lambda x: np.float64(5) * x, 15, 5),
        (lambda x: 2 - x, -1, -1),
        (lambda x: x - 2, 1, 1),
        (lambda x: 2 + x, 5, 1),
        (lambda x: x + 2, 5, 1),
        (lambda x: 6 / x, 2, -6 / 9),
        (lambda x: x / 4, 3 / 4, 1 / 4),
        (lambda x: x * x * x, 27, 27),
        (lambda x: x / x, 1, 0),
        (lambda x: (x * x).log(), np.log(9), 2 / 3),
        (lambda x: (0.5 * x).exp(), np.exp(1.5), 0.5 * np.exp(1.5)),
    ],
)
def test_a_number_on_either_side_has_the_right_slope(engine, fn, value, slope):
    x = engine["Tensor"](3.0)
    y = fn(x)
    engine["backward"](y)
    assert y.data == pytest.approx(value) and x.grad == pytest.approx(slope)


@pytest.mark.parametrize("name, slopes", [("add", (1, 1)), ("subtract", (1, -1)), ("multiply", (3, 5))])
def test_an_op_called_by_name_gives_each_input_its_own_gradient(engine, name, slopes):
    five, x = engine["Tensor"](5.0), engine["Tensor"](3.0)
    for inputs in ((five, x), (5.0, x), (five, 3.0)):
        five.grad = x.grad = 0.0
        engine["backward"](engine[name](*inputs))
        assert [five.grad, x.grad] == [
            slope if tensor in inputs else 0 for tensor, slope in zip((five, x), slopes, strict=True)
        ]


@pytest.mark.parametrize("shapes", [((3, 1, 1), (3, 5, 4)), ((4,), (2, 3, 4)), ((), (2, 5)), ((1, 5), (3, 1))])
@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide"])
def test_a_broadcast_input_gets_a_gradient_of_its_own_shape(engine, rng, name, shapes):
    x, y = (rng.uniform(1, 2, shape) for shape in shapes)
    tensors = engine["Tensor"](x), engine["Tensor"](y)
    z = engine[name](*tensors)
    v = rng.standard_normal(z.data.shape)
    engine["backward"](z * v)
    fn = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide}[name]
    for tensor, array in zip(tensors, (x, y), strict=True):
        assert tensor.grad.shape == array.shape
        numeric = np.empty_like(array)
        for index in np.ndindex(array.shape):
            before, losses = array[index], []
            for step in (1e-6, -1e-6):
                array[index] = before + step
                losses.append((fn(x, y) * v).sum())
            array[index], numeric[index] = before, (losses[0] - losses[1]) / 2e-6
        np.testing.assert_allclose(tensor.grad, numeric, rtol=1e-6, atol=1e-8)


def test_arrays_on_the_left_are_left_to_the_engine(engine, rng):
    weight, x = rng.standard_normal((2, 3)), rng.standard_normal((3, 4))
    tensor = engine["Tensor"](x)
    z = weight @ tensor
    engine["backward"](z)
    np.testing.assert_allclose(z.data, weight @ x)
    np.testing.assert_allclose(tensor.grad, weight.T @ np.ones((2, 4)))
    assert isinstance(np.ones((3, 4)) * tensor, engine["Tensor"])


def test_the_engine_is_as_long_as_the_title_says(engine):
    title, count = engine["cells"][1], 0
    parts = "class Tensor:", "def op(", "def unbroadcast(", "def tape(", "def hand_on(", "def backward("
    for cell in engine["cells"]:
        for block in re.split(r"\n\n", cell):
            lines = [line for line in block.splitlines()[cell.startswith(block) :] if line.strip()]
            if lines and lines[0].startswith((*parts, "add = op(")):
                count += len(lines)
    assert f"in {count} lines" in title


def test_the_five_wrong_backwards_are_wrong_as_lesson_8b_says(capsys):
    found, said = run("08b")["found"], capsys.readouterr().out
    backward, numeric = ({name: getattr(one, part) for name, one in found.items()} for part in ("backward", "numeric"))
    for name, expected in (
        ("mean_of_patches", 5 * numeric["mean_of_patches"]),  # of 5 patches
        ("difference", -numeric["difference"]),
        ("project", numeric["project"].T),
        ("centre", numeric["centre"] + np.mean(backward["centre"])),
        ("lazy_softmax", np.zeros((4, 3))),
    ):
        np.testing.assert_allclose(backward[name], expected, atol=1e-6)
        assert not np.allclose(backward[name], numeric[name], atol=1e-3)
    assert (found["difference"].argument, found["project"].argument) == ("y", "weight")
    assert 1e-4 < abs(backward["nearly_gelu"] - numeric["nearly_gelu"]).max() < 1e-3
    for hint in ("zero everywhere", "factor 5.000", "sign is turned", "transposed one", "off by the same amount"):
        assert hint in said


def test_lesson_12b_shows_the_unsafe_softmax_on_a_dark_photo_too(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 12, (102, 102), dtype=np.uint8)).save(tmp_path / "dark.png")
    (lesson,) = [lesson for lesson in lessons.lessons() if lesson.number == "12b"]
    before, found, _ = lesson.path.read_text(encoding="utf-8").partition("\ntops = ")  # the maxima are a picture
    monkeypatch.setattr("sys.argv", [str(lesson.path), str(tmp_path / "dark.png")])
    exec(compile(before, str(lesson.path), "exec"), {})
    printed = capsys.readouterr().out
    assert found and re.search(r"without a maximum \d+% of the answers are NaN", printed)
