"""The model in the explorer's JavaScript, run in a browser: every number on the way beside minivit's."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from minivit import datasets, lens, nn, notebook, ops, weights
from minivit.autograd import Tensor
from minivit.explorer import live, pack, page
from minivit.machinery.normal import normal
from minivit.vit import ViTConfig, ViTForImageClassification

ROOM = Path(page.__file__).parent
CONFIGS = {
    "digits": {"image_size": 8, "patch_size": 2, "num_channels": 1, "layer_norm_eps": 1e-12},
    "one head, colour": {"num_attention_heads": 1, "hidden_size": 6, "image_size": 6, "patch_size": 3},
    "12 layers": {"num_hidden_layers": 12, "hidden_size": 12, "num_attention_heads": 3, "hidden_act": "quick_gelu"},
    "no bias, not square": {"qkv_bias": False, "image_size": (4, 9), "patch_size": (2, 3), "hidden_act": "gelu_new"},
    "other eps": {"layer_norm_eps": 0.01, "hidden_act": "silu", "num_labels": 2},
    "one layer": {"num_hidden_layers": 1, "hidden_act": "relu", "num_channels": 2},
}
# what the browser keeps to itself, told to the tests
TOLD = """
window.engine = { Live, selfTest, ACTIVATIONS, Tensor, allKnobs };
window.engine.run = (config, weights, pixels, label, knobs) => {
  if (knobs.heads) knobs.heads = Float64Array.from(knobs.heads);
  const model = new Model(config, weights);
  const { stages, tape } = forward(model, Float64Array.from(pixels), label, { ...allKnobs(config), ...knobs });
  backward(tape);
  return Object.entries(stages).map(([name, x]) => [name, x.shape, Array.from(x.data), Array.from(x.grad ?? [])]);
};
"""


@pytest.fixture(scope="module")
def engine(browser):
    """A blank page with the engine's scripts; engine(script, *arguments) is what the JavaScript function returns."""
    tab = browser.new_page()
    yield loaded(tab)
    tab.close()


def loaded(tab, change=lambda script: script):
    scripts = [(ROOM / f"{name}.js").read_text(encoding="utf-8") for name in ("data", "vit", "live", "selftest")]
    tab.add_script_tag(content=change("\n".join(["(() => {", '"use strict";', *scripts, TOLD, "})();"])))
    return lambda script, *arguments: tab.evaluate(f"async (given) => ({script})(...given)", list(arguments))


def random_model(rng, **changes):
    """A float64 model whose every parameter is random, biases and norms too."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 11}
    config = ViTConfig(**sizes | {"image_size": 8, "patch_size": 4, "num_labels": 5} | changes)
    model = ViTForImageClassification(config, rng=0).to("float64")
    for parameter in model.parameters():
        parameter.data = rng.standard_normal(parameter.shape) / 3
    return model


def random_picture(rng, config):
    size = np.broadcast_to(config.image_size, 2)
    return rng.standard_normal((1, config.num_channels, *size))


def in_browser(engine, model, picture, label, **knobs):
    """{name: (value, gradient)} of the same model in the browser, the gradients of its loss."""
    named = {name: {"shape": list(x.shape), "data": x.data.ravel().tolist()} for name, x in model.named_parameters()}
    config = page.described(model.config, "")["config"]
    found = engine("engine.run", config, named, picture.ravel().tolist(), label, knobs)
    values = {name: np.reshape(value, shape) for name, shape, value, _ in found}
    return {name: (values[name], np.reshape(dx or np.zeros_like(values[name]), shape)) for name, shape, _, dx in found}


def composed(model, picture, label, **knobs):
    """{name: (value, gradient)}, composed of minivit's ops, with knobs as vit.js has them."""
    knobs = {"positions": True, "cls": True, "residual": True, "scale": True, "published": False} | knobs
    stages, vit = {}, model.vit

    def keep(name, x):
        x.retain_grad()
        stages[name] = x
        return x

    def leaf(name, parameter):
        stages[name] = Tensor(parameter.data, requires_grad=True)
        return stages[name]

    pixels = leaf("pixel_values", Tensor(picture))
    patches = keep("embeddings.patches", vit.embeddings.patch_embeddings(pixels))
    cls = leaf("embeddings.cls", vit.embeddings.cls_token)
    positions = leaf("embeddings.positions", vit.embeddings.position_embeddings)
    x = ops.concatenate([cls * float(knobs["cls"]), patches], axis=1) + positions * float(knobs["positions"])
    x = keep("embeddings.output", x)
    for i, layer in enumerate(vit.encoder.layer):
        on = {name: float(knobs.get(name, [True] * 99)[i]) for name in ("attention", "mlp")}
        road = float(knobs["residual"])
        normed = keep(f"layer.{i}.layernorm_before", layer.layernorm_before(x))
        context = composed_attention(layer.attention.attention, normed, i, knobs, keep)
        mixed = keep(f"layer.{i}.attention_output", layer.attention.output.dense(context))
        x = keep(f"layer.{i}.attention_sum", x * road + mixed * on["attention"])
        normed = keep(f"layer.{i}.layernorm_after", layer.layernorm_after(x))
        wide = keep(f"layer.{i}.mlp_pre_activation", layer.intermediate.dense(normed))
        active = keep(f"layer.{i}.mlp_activation", nn.ACTIVATIONS[model.config.hidden_act](wide))
        narrow = keep(f"layer.{i}.mlp_output", layer.output.dense(active))
        x = keep(f"layer.{i}.output", x * road + narrow * on["mlp"])
    x = keep("last_hidden_state", vit.layernorm(x))
    logits = keep("logits", model.classifier(x[:, 0]))
    keep("loss", ops.cross_entropy(logits, np.array([label]))).backward()
    gradients = {name: np.zeros_like(x.data) if x.grad is None else x.grad for name, x in stages.items()}
    return {name: (x.data, gradients[name]) for name, x in stages.items()}


def composed_attention(attention, normed, i, knobs, keep):
    """(1, T, D) -> (1, T, D), of one layer."""
    _, T, D = normed.shape
    h = attention.num_attention_heads
    q, k, v = (
        keep(f"layer.{i}.{name}", getattr(attention, name)(normed).reshape(1, T, h, D // h).transpose(0, 2, 1, 3))
        for name in ("query", "key", "value")
    )
    scores = keep(f"layer.{i}.scores", q @ k.transpose(0, 1, 3, 2) / (math.sqrt(D // h) if knobs["scale"] else 1.0))
    p = keep(f"layer.{i}.probabilities", ops.softmax(scores))
    if "heads" in knobs:
        p = p * np.reshape(knobs["heads"], (-1, h, 1, 1))[i].astype(p.dtype)
    if knobs["published"]:
        context = ops.einsum(notebook.PUBLISHED, p[0].transpose(1, 0, 2), v[0].transpose(1, 0, 2))  # (T, h, d)
        context = context.transpose(1, 0, 2).reshape(1, h, T, D // h)
    else:
        context = p @ v
    return keep(f"layer.{i}.context", context).transpose(0, 2, 1, 3).reshape(1, T, D)


def assert_equal(found, expected, tolerance=1e-9):
    """The same stages in the same order, without B; values and gradients relative to the largest of their stage."""
    assert list(found) == list(expected)
    for name in found:
        for what, one, other in zip(("value", "gradient"), found[name], expected[name], strict=True):
            other = other[0] if other.ndim else other
            assert one.shape == other.shape, name
            np.testing.assert_allclose(one, other, 0, tolerance * max(abs(other).max(), 1e-6), err_msg=f"{name} {what}")


@pytest.mark.parametrize("name", CONFIGS)
def test_every_stage_and_its_gradient_are_those_of_trace(engine, rng, name):
    model = random_model(rng, **CONFIGS[name])
    picture = random_picture(rng, model.config)
    traced = lens.trace(model, picture, lambda stages: ops.cross_entropy(stages["logits"], np.array([1])))
    found = in_browser(engine, model, picture, 1)
    loss, _ = found.pop("loss")
    assert_equal(found, traced)
    assert loss == pytest.approx(model(picture, labels=np.array([1])).loss.item(), rel=1e-12)


@pytest.mark.parametrize("activation", nn.ACTIVATIONS)
def test_every_activation(engine, rng, activation):
    model = random_model(rng, hidden_act=activation)
    picture = random_picture(rng, model.config)
    assert_equal(in_browser(engine, model, picture, 0), composed(model, picture, 0))


def test_the_activations_are_minivits(engine):
    assert engine("() => Object.keys(engine.ACTIVATIONS)") == list(nn.ACTIVATIONS)


def test_gelu_far_out_and_near_0(engine):
    x = np.concatenate([np.linspace(-39, 39, 2001), [0, -1e-300, 1e-8, -1e-8]])
    script = "(x) => Array.from(engine.ACTIVATIONS.gelu(new engine.Tensor(Float64Array.from(x), [x.length])).data)"
    expected = [number * math.erfc(-number / math.sqrt(2)) / 2 for number in x]
    np.testing.assert_allclose(engine(script, x.tolist()), expected, rtol=3e-13, atol=1e-300)
    np.testing.assert_allclose(engine(script, x.tolist()), x * normal(x)[0], rtol=1e-14, atol=1e-300)


def test_30_random_masks_and_pictures(engine, rng):
    for number in range(30):
        model = random_model(rng, **list(CONFIGS.values())[number % len(CONFIGS)])
        L, h = model.config.num_hidden_layers, model.config.num_attention_heads
        picture, heads, label = random_picture(rng, model.config), rng.integers(0, 2, (L, h)), int(rng.integers(2))
        found = in_browser(engine, model, picture, label, heads=heads.ravel().tolist())
        assert_equal(found, composed(model, picture, label, heads=heads))
        masked = model(picture, head_mask=heads).logits.data[0]
        np.testing.assert_allclose(found["logits"][0], masked, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "knobs",
    [
        {"attention": [True, False]},
        {"mlp": [False, True]},
        {"positions": False},
        {"cls": False},
        {"residual": False},
        {"scale": False},
        {"published": True},
        {"published": True, "scale": False, "heads": [1, 0, 1, 1, 0, 1, 1, 1], "positions": False},
        {"residual": False, "attention": [False, True]},
    ],
    ids=lambda knobs: ", ".join(knobs),
)
def test_a_knob_does_what_its_name_says(engine, rng, knobs):
    model = random_model(rng, layer_norm_eps=1e-3)
    picture = random_picture(rng, model.config)
    found = in_browser(engine, model, picture, 2, **knobs)
    assert_equal(found, composed(model, picture, 2, **knobs))
    assert abs(found["logits"][0] - in_browser(engine, model, picture, 2)["logits"][0]).max() > 1e-3


# ---- The live page's source of numbers, on the digits model of the box ----


@pytest.fixture(scope="module")
def digits():
    """The digits model of the box in float32, and what scales its pictures."""
    folder = weights.find("digits")
    options = weights.picture_options(weights.read_preprocessor(folder), 1)
    return ViTForImageClassification.from_pretrained("digits"), options


@pytest.fixture(scope="module")
def data(digits):
    model, options = digits
    return page.described(model.config, "digits") | live.live_data(model, options)


@pytest.fixture(scope="module")
def opened(engine, data):
    engine("async (data) => { window.source = await engine.Live.open(data); }", data)
    return engine


@pytest.fixture
def source(opened):
    """source(script, *arguments): with the Live of the page as `source`, and nothing of it switched off."""
    opened("() => source.setKnobs(engine.allKnobs(source.model.config))")
    return opened


def test_the_live_source_is_minivit_in_float32_within_1e_5(source, digits, rng):
    model, _ = digits
    script = """(pixels, label, heads) => {
        source.setPixels(pixels);
        source.setLabel(label);
        source.setKnobs({ heads: Float64Array.from(heads) });
        const every = [...Array(8).keys()];
        const attention = [0, 1, 2].map((i) => every.map((head) => [...source.attention(i, head)]));
        return [[...source.logits()], [...source.pixelGradient().data], attention, [...source.knocked]];
    }"""
    _, test = datasets.digits()
    for number in range(30):
        x, label = rng.uniform(-1, 1, (1, 1, 8, 8)).astype(np.float32), int(rng.integers(10))
        if number % 2:  # a test digit, and not noise
            x[0] = test.batch([number])[0][0]
        heads = rng.integers(0, 4, (3, 8)).clip(0, 1)
        logits, gradient, attention, knocked = source(script, x.ravel().tolist(), label, heads.ravel().tolist())
        pixels = Tensor(x, requires_grad=True)
        output = model(pixels, labels=np.array([label]), head_mask=heads, output_attentions=True)
        output.loss.backward()
        assert sorted(knocked) == sorted(f"{i}.{head}" for i, head in np.argwhere(heads == 0))
        np.testing.assert_allclose(logits, output.logits.data[0], rtol=0, atol=1e-5)
        np.testing.assert_allclose(gradient, pixels.grad.ravel(), rtol=0, atol=1e-5)
        for i, head in np.argwhere(heads):  # a head that is knocked out shows what it would look at
            seen = output.attentions[i].data[0, head].ravel()
            np.testing.assert_allclose(attention[i][head], seen, rtol=0, atol=1e-5)


def test_its_first_picture_is_a_test_digit_as_evaluate_sees_it(source, digits):
    _, options = digits
    _, test = datasets.digits()
    pixels, label = source("() => { source.pick(0); return [[...source.pixels], source.label]; }")
    first = int(np.flatnonzero(test.labels == 0)[0])
    scales = {key: options[key] for key in ("mean", "std", "rescale_factor")}
    expected, labels = test.scaled(**scales).batch([first])
    assert label == labels[0] == 0
    np.testing.assert_allclose(pixels, expected.ravel(), atol=1e-7)


def test_a_picture_from_brightness_and_back(source, rng):
    brightness = rng.random(64)
    script = """(brightness) => {
        source.setPixels(source.fromBrightness(brightness));
        return [[...source.pixels], [...source.brightness()]];
    }"""
    pixels, back = source(script, brightness.tolist())
    np.testing.assert_allclose(pixels, brightness * 2 - 1, atol=1e-12)
    np.testing.assert_allclose(back, brightness, atol=1e-12)


def test_the_last_digits_to_pick_are_those_that_the_model_gets_wrong(source):
    script = """(i) => {
        source.pick(i);
        return [source.logits().indexOf(Math.max(...source.logits())), source.label];
    }"""
    said = np.array([source(script, 10 * live.EACH + i) for i in range(live.WRONG)])
    assert source("() => source.digits.count") == 10 * live.EACH + live.WRONG
    assert (said[:, 0] != said[:, 1]).all()


def test_the_rows_of_a_token_at_each_stage(source, digits, rng):
    model, _ = digits
    x = rng.uniform(-1, 1, (1, 1, 8, 8)).astype(np.float32)
    script = """(pixels) => {
        source.setPixels(pixels);
        source.setLabel(4);
        return source.stages.map((name) => [name, source.stage(name, { token: 6, head: 5 })]);
    }"""
    traced = lens.trace(model, x, lambda stages: ops.cross_entropy(stages["logits"], np.array([4])))
    found = dict(source(script, x.ravel().tolist()))
    patch = (0, 0, slice(2, 4), slice(2, 4))  # patch 6 of 4 x 4: the second row, the second column
    for name, stage in traced.items():
        value, gradient = stage
        places = {
            "pixel_values": patch,
            "embeddings.patches": (0, 5),
            "embeddings.cls": (0, slice(1, 1)),
            "logits": (0,),
        }
        place = places.get(name, (0, 5, 6) if value.ndim == 4 else (0, 6))
        assert found[name]["shape"] == list(value.shape[1:]) and found[name]["whole"]
        assert found[name]["count"] == value[place].size == len(found[name]["first"])
        np.testing.assert_allclose(found[name]["first"], value[place].ravel(), atol=1e-5)
        np.testing.assert_allclose(found[name]["gradient"], gradient[place].ravel(), atol=1e-5)
        assert found[name]["norm"] == pytest.approx(np.linalg.norm(value[place]), abs=1e-5)
        assert found[name]["gradientNorm"] == pytest.approx(np.linalg.norm(gradient[place]), abs=1e-5)
    assert found["loss"]["first"][0] == pytest.approx(model(x, labels=np.array([4])).loss.item(), abs=1e-5)


def test_hidden_states_queries_keys_and_scores(source, digits, rng):
    model, _ = digits
    x = rng.uniform(-1, 1, (1, 1, 8, 8)).astype(np.float32)
    traced = lens.trace(model, x, lambda stages: ops.cross_entropy(stages["logits"], np.array([7])))
    script = """(pixels) => {
        source.setPixels(pixels);
        source.setLabel(7);
        const states = [0, 1, 2, 3].map((n) => [[...source.tokens(n)], [...source.tokenGradients(n)]]);
        return [states, [...source.query(1, 3, 16)], [...source.key(2, 7, 0)], [...source.scores(1, 3)]];
    }"""
    states, query, key, scores = source(script, x.ravel().tolist())
    names = ["embeddings.output", *(f"layer.{i}.output" for i in range(3))]
    for name, (tokens, gradients) in zip(names, states, strict=True):
        np.testing.assert_allclose(tokens, traced[name].value.ravel(), atol=1e-5)
        np.testing.assert_allclose(gradients, traced[name].gradient.ravel(), atol=1e-5)
    np.testing.assert_allclose(query, traced["layer.1.query"].value[0, 3, 16], atol=1e-5)
    np.testing.assert_allclose(key, traced["layer.2.key"].value[0, 7, 0], atol=1e-5)
    np.testing.assert_allclose(scores, traced["layer.1.scores"].value[0, 3].ravel(), atol=1e-5)


def test_occlusion_is_that_of_lens(source, digits):
    model, _ = digits
    x, labels = datasets.digits()[1].batch([3])
    script = "(pixels, label) => { source.setPixels(pixels); source.setLabel(label); return [...source.occlusion()]; }"
    found = source(script, x.ravel().tolist(), int(labels[0]))
    np.testing.assert_allclose(found, lens.occlusion(model, x, labels[0]).ravel(), atol=1e-5)


def test_the_row_of_cls_is_the_mean_of_the_heads_that_are_left(source, digits, rng):
    model, _ = digits
    x = rng.uniform(-1, 1, (1, 1, 8, 8)).astype(np.float32)
    heads = np.ones((3, 8))
    heads[1, :5] = heads[2] = 0
    script = """(pixels, heads) => {
        source.setPixels(pixels);
        source.setKnobs({ heads: Float64Array.from(heads) });
        return [0, 1, 2].map((i) => [...source.clsRow(i)]);
    }"""
    rows = source(script, x.ravel().tolist(), heads.ravel().tolist())
    seen = [layer.data[0, :, 0] for layer in model(x, head_mask=heads, output_attentions=True).attentions]  # (h, T)
    np.testing.assert_allclose(rows[0], seen[0].mean(0), atol=1e-5)
    np.testing.assert_allclose(rows[1], seen[1][5:].mean(0), atol=1e-5)
    assert sum(rows[2]) == pytest.approx(1)  # all heads are out: what they would look at


def test_a_head_is_knocked_out_and_put_back(source):
    script = """() => {
        source.pick(3);
        const whole = source.loss;
        source.knock(2, 5);
        const without = [source.loss, [...source.knocked]];
        source.knock(2, 5);
        return [whole, ...without, source.loss, [...source.knocked]];
    }"""
    whole, without, knocked, again, none = source(script)
    assert knocked == ["2.5"] and none == [] and whole == again and abs(whole - without) > 1e-6


def test_finite_differences_of_every_pixel(source):
    found = source("() => { source.pick(8); return [...source.pixels.keys()].map((i) => source.finiteDifference(i)); }")
    numeric, analytic = ([pair[name] for pair in found] for name in ("numeric", "analytic"))
    np.testing.assert_allclose(numeric, analytic, rtol=1e-5, atol=1e-9)
    assert np.abs(analytic).max() > 1e-4


def test_the_twin_is_the_untrained_model_on_the_same_picture(source, digits, data):
    model, _ = digits
    untrained = ViTForImageClassification(model.config, rng=0).eval()
    for name, parameter in untrained.named_parameters():
        packed = pack.unpack(data["twin"][name]).astype(np.float32)
        assert abs(packed - parameter.data).max() < 0.01  # of 0.15, the deviation that they were drawn with
        parameter.data = packed
    x = datasets.digits()[1].batch([5])[0]
    heads = np.ones((3, 8))
    heads[0, 2] = 0
    script = """(pixels, heads) => {
        source.setPixels(pixels);
        source.setKnobs({ heads: Float64Array.from(heads) });
        return [[...source.twin.logits()], source.twin.twin, source.can.twin, source.twin.can.twin];
    }"""
    logits, *others = source(script, x.ravel().tolist(), heads.ravel().tolist())
    assert others == [None, True, False]
    np.testing.assert_allclose(logits, untrained(x, head_mask=heads).logits.data[0], atol=1e-5)


def test_a_second_backward_adds_nothing_to_the_first(source):
    script = """() => {
        const gradient = () => [...source.model.parameters["classifier.weight"].grad];
        source.pick(1);
        source.run();
        const once = gradient();
        source.changed();
        source.run();
        return [once, gradient()];
    }"""
    once, twice = source(script)
    assert once == twice and np.abs(once).max() > 0


def test_the_self_test_finds_every_gradient_right(source):
    found = source("() => { source.pick(0); return engine.selfTest(source); }")
    named = {row["where"] for row in found["rows"]}
    assert {"this model: pixel_values", "this model: layer.2.scores", "silu: classifier.weight"} <= named
    assert {"no residual: loss", "as published: layer.1.context", "heads knocked out: layer.0.query"} <= named
    assert 0 < found["worst"] < 1e-5


def test_the_self_test_of_a_photo_page_takes_small_models(engine):
    found = engine('() => engine.selfTest({ kind: "photo" })')
    assert found["worst"] < 1e-5 and not any(row["where"].startswith("this model") for row in found["rows"])




@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(dn[i] - mean[t] - n[i]", "(dn[i] - n[i]"),  # the gradient through the mean, cut
        ("(x, s) => s + x * density(x)", "(x, s) => s"),
        ("(dy) => [dy, dy]", "(dy) => [dy, dy.map((g) => 1.0001 * g)]"),
    ],
)
def test_the_self_test_finds_a_wrong_gradient(browser, right, wrong):
    tab = browser.new_page()
    broken = loaded(tab, lambda script: script.replace(right, wrong))
    assert broken('() => engine.selfTest({ kind: "photo" }).worst') > 5e-5
    tab.close()


def test_a_live_page_opened_with_selftest_says_its_worst_error(browser, tmp_path, data):
    path = tmp_path / "page.html"
    page.write(path, data, "digits")
    assert path.stat().st_size < 1_000_000
    tab = browser.new_page()
    tab.goto(f"{path.as_uri()}#selftest")
    title = tab.locator("#selftest h2").inner_text(timeout=120_000)
    found = tab.evaluate("window.minivit.selftest")
    assert found["worst"] < 1e-5 and len(found["rows"]) > 1000
    worst = f"{found['worst']:.1e}".replace("e-0", "e-")  # as JavaScript writes it
    assert title.startswith(f"Self test: {len(found['rows'])} gradients") and title.endswith(f"error {worst}")
    assert len(tab.locator("#selftest pre").inner_text().splitlines()) == 1 + len(found["rows"])
    tab.close()


def test_numbers_that_are_drawn_by_hand_go_with_models_of_digits_only():
    assert live.reads_digits(ViTForImageClassification.from_pretrained("digits").config)
    names = dict(enumerate("0123456789"))
    for changes in ({"num_channels": 3}, {"num_labels": 3, "id2label": None}, {"problem_type": "regression"}):
        fields = {"image_size": 8, "patch_size": 2, "num_channels": 1, "id2label": names} | changes
        assert not live.reads_digits(ViTConfig(**fields))


def test_no_name_is_defined_twice_in_the_scripts():
    """They are one script in the page: a function would replace another of its name without a word."""
    names = [
        name
        for path in sorted(ROOM.glob("*.js"))
        for name in re.findall(r"^(?:async )?(?:function\*?|class|const|let) +(\w+)", path.read_text("utf-8"), re.M)
    ]
    assert sorted(names) == sorted(set(names))
