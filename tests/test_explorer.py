"""The explorer's page: its entries, what it records of a photo, the file that it writes, and what it refuses."""

import base64
import hashlib
import json
import re
import webbrowser
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minivit import images, lens, ops, weights
from minivit.__main__ import main
from minivit.autograd import Tensor, no_grad
from minivit.course import three
from minivit.errors import FileError, MinivitError
from minivit.explorer import page, recording
from minivit.explorer.pack import pack, pack_steps, unpack
from minivit.vit import ViTConfig, ViTForImageClassification, ViTForMaskedImageModeling, ViTModel

SIZES = {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 20}
# other sides than each other, so that none can stand for another
CONFIG = ViTConfig(**SIZES, image_size=(24, 20), patch_size=(8, 5), initializer_range=0.3, num_labels=4)
ARRAYS = {
    "ordinary": lambda rng: rng.standard_normal((3, 5, 4)),
    "tiny": lambda rng: rng.standard_normal((2, 3, 7, 5)) * 1e-9,
    "huge": lambda rng: rng.standard_normal((3, 4, 2)) * 1e6,
    "far from 0": lambda rng: 10 + 1e-2 * rng.standard_normal((2, 50, 3)),
    "of many sizes": lambda rng: rng.standard_normal((2, 30, 6)) * 10.0 ** np.arange(-3, 3),
    "down to a billionth": lambda rng: rng.standard_normal((2, 6, 4)) * 10.0 ** -np.arange(0, 12, 2)[:, None],
    "all 0": lambda rng: np.zeros((2, 3, 2)),
    "all alike": lambda rng: np.full((2, 3, 4), 7.1),
    "empty": lambda rng: np.zeros((2, 3, 0)),
}


def random_model(kind=ViTForImageClassification, config=CONFIG, **changes):
    """A model whose every parameter is random, biases and norms too."""
    model = kind(ViTConfig.from_dict(config.to_dict() | changes), rng=1).eval()
    rng = np.random.default_rng(2)
    for parameter in model.parameters():
        parameter.data = (parameter.data + rng.standard_normal(parameter.shape) / 5).astype(np.float32)
    return model


def eye_of(model):
    config = model.config
    return recording.Eye(model, weights.preprocessor(config.image_size, 0.5, 0.5, config.num_channels))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folder of a saved random model, by its kind and changes."""

    def save(kind=ViTForImageClassification, **changes):
        folder = tmp_path_factory.mktemp("model")
        random_model(kind, **changes).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="module", params=["classes", "three photos"])
def recorded(request):
    """(eye, view, trace, recording) of a small model with classes, and of one without."""
    kind = ViTForImageClassification if request.param == "classes" else ViTModel
    model = random_model(kind)
    if kind is ViTModel:
        model.pooler = None
    eye = eye_of(model)
    view = eye.see(images.photo("coffee.jpg"), "coffee.jpg")
    if kind is ViTModel:  # of a model so small there is room for hundreds of patches
        view = view._replace(pixel_values=view.pixel_values[:, :, :32, :25], grid=(4, 5))
    answers = recording.shown_answers(eye, [view])
    found = recording.record(eye, view, answers)
    label = found["label"]
    trace = lens.trace(model, view.pixel_values, lambda s: eye.answer(s["last_hidden_state"][:, 0])[0, label])
    return eye, view, trace, found


# ---- Entries ----


@pytest.mark.parametrize("name", ARRAYS)
def test_steps_are_off_by_half_a_step_at_most(name, rng):
    x = ARRAYS[name](rng)
    for axis in range(x.ndim):
        for bits in (4, 8):
            if x.size:
                error = abs(unpack(pack_steps(x, axis, bits)) - x)
                step = np.ptp(x, axis=axis, keepdims=True) / (2**bits - 1)
                # offset and scale are float16: a step is a 1,000th wider, and 10 is a multiple of 2^-7
                assert (error <= 0.505 * step + 1e-3 * abs(x).max() / 2**bits).all()


@pytest.mark.parametrize("name", ARRAYS)
def test_halves_keep_three_digits_of_any_size(name, rng):
    x = ARRAYS[name](rng)
    assert abs(unpack(pack(x, "float16")) - x).max(initial=0) <= 2**-11 * abs(x).max(initial=0)
    np.testing.assert_array_equal(unpack(pack(x)), x.astype(np.float32))


def test_whole_numbers_come_back_and_few_kinds_of_them_are_deflated():
    x = np.arange(-128, 128).reshape(2, 128)
    assert unpack(pack(x, "int8")).tolist() == x.tolist() and not pack(x, "int8")["deflate"]
    assert unpack(pack(x % 3, "uint8")).tolist() == (x % 3).tolist() and pack(x % 3, "uint8")["deflate"]


def test_the_page_reads_what_was_packed(browser, rng):
    arrays = [make(rng) for make in ARRAYS.values()]
    entries = [pack(x) for x in arrays] + [pack(x, "float16") for x in arrays]
    entries += [pack_steps(x, axis) for x in arrays[:-1] for axis in range(x.ndim)]
    entries += [pack(np.arange(-9, 9), "int8"), pack(np.arange(256), "uint8")]
    tab = browser.new_page()
    tab.add_script_tag(path=Path(page.__file__).parent / "data.js")
    code = "entries => Promise.all(entries.map(decode)).then(all => all.map(x => [x.shape, Array.from(x.data)]))"
    for entry, (shape, numbers) in zip(entries, tab.evaluate(code, entries), strict=True):
        expected = unpack(entry)
        assert shape == list(expected.shape)
        atol = 1e-7 * abs(expected).max(initial=0) if "axis" in entry else 0
        np.testing.assert_allclose(np.reshape(numbers, shape), expected, rtol=1e-6, atol=atol)
    tab.close()


# ---- What is recorded ----


def half_a_step(entry):
    """Half a step of each channel."""
    return 0.51 * abs(unpack(entry["scale"])) + 1e-6 * abs(unpack(entry)).max()


def test_hidden_states_q_and_k_are_the_models(recorded):
    _, view, trace, found = recorded
    names = ["embeddings.output", "layer.0.output", "layer.1.output", "layer.2.output"]
    T, h, d = 1 + view.grid[0] * view.grid[1], 2, 6
    expected = np.stack([trace[name].value[0] for name in names])
    assert expected.shape == (4, T, 12)
    assert (abs(unpack(found["hidden"]) - expected) <= half_a_step(found["hidden"])).all()
    for key in ("query", "key"):
        expected = np.stack([trace[f"layer.{i}.{key}"].value[0] for i in range(3)])
        assert expected.shape == (3, h, T, d)
        assert (abs(unpack(found[key]) - expected) <= half_a_step(found[key])).all()


def test_the_answers_are_the_models(recorded):
    eye, view, trace, found = recorded
    cls = trace["last_hidden_state"].value[0, 0]
    if eye.classes:
        expected = eye.model(view.pixel_values, interpolate_pos_encoding=True).logits.data[0]
        assert eye.names == CONFIG.class_names
    else:
        mean, rows = eye._ask[eye.model].__closure__[0].cell_contents
        expected = 3 * rows @ ((cls - mean) / np.linalg.norm(cls - mean))
        assert eye.names == list(three.BOX)
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-4, atol=1e-5)
    assert found["label"] == np.argmax(expected)
    np.testing.assert_allclose(found["probabilities"], np.exp(expected) / np.exp(expected).sum(), rtol=1e-4)


def test_what_a_hidden_patch_costs(recorded):
    eye, view, _, found = recorded
    fall = unpack(found["occlusion"])
    assert fall.shape == view.grid
    hidden = view.pixel_values.copy()
    hidden[:, :, 8:16, 15:20] = 0  # row 1, column 3
    with no_grad():
        cls = eye.model(hidden, interpolate_pos_encoding=True)
        cls = (cls if not eye.classes else eye.model.vit(hidden, interpolate_pos_encoding=True)).last_hidden_state
        logit = eye.answer(cls[:, 0]).data[0, found["label"]]
    assert np.isclose(fall[1, 3], found["logits"][found["label"]] - logit, atol=1e-4) and abs(fall[1, 3]) > 1e-4


def test_the_pixel_gradient_sums_the_channels(recorded):
    _, view, trace, found = recorded
    expected = abs(trace["pixel_values"].gradient[0]).sum(0)
    assert expected.shape == view.pixel_values.shape[2:] and expected.max() > 0
    assert (abs(unpack(found["pixel_gradient"]) - expected) <= half_a_step(found["pixel_gradient"])).all()


def test_answers_without_a_head_are_those_of_a_head_mask(recorded):
    eye, view, _, found = recorded
    body = getattr(eye.model, "vit", eye.model)
    logits, chances = (unpack(found["knocked"][name]) for name in ("logits", "probabilities"))
    looks = list(unpack(found["knocked"]["looks"]))
    assert logits.shape == chances.shape == (3, 2, len(found["logits"]))
    for layer, head in np.ndindex(3, 2):
        mask = np.ones((3, 2))
        mask[layer, head] = 0
        with no_grad():
            output = body(view.pixel_values, mask, output_attentions=True, interpolate_pos_encoding=True)
            expected = eye.answer(output.last_hidden_state[:, 0]).data[0]
        np.testing.assert_allclose(logits[layer, head], expected, atol=1e-4)
        np.testing.assert_allclose(chances[layer, head], ops.softmax(Tensor(expected)).data, atol=1e-5)
        assert abs(logits[layer, head] - found["logits"]).max() > 1e-3
        for attention in output.attentions[layer + 1 :]:
            np.testing.assert_allclose(looks.pop(0), attention.data[0, :, 0].mean(0), atol=2e-3)
    assert looks == []


def test_the_twin_is_the_same_config_untrained(recorded):
    eye, view, _, found = recorded
    kind = type(eye.model)
    parts = {} if eye.classes else {"add_pooling_layer": False}
    twin = kind(eye.config, **parts, rng=0).eval()
    trace = lens.trace(twin, view.pixel_values)
    expected = np.stack([trace[f"layer.{i}.query"].value[0] for i in range(3)])
    assert (abs(unpack(found["twin"]["query"]) - expected) <= half_a_step(found["twin"]["query"])).all()
    if eye.classes:
        np.testing.assert_allclose(found["twin"]["logits"], trace["logits"].value[0], atol=1e-4)


# ---- What the page makes of it ----

ASK = """async ([data, heads]) => {
  const whole = await Recorded.open(data, 0);
  const told = (source) => ({
    config: source.config,
    can: source.can,
    logits: Array.from(source.logits()),
    attention: heads.map(([i, head]) => Array.from(source.attention(i, head))),
    tokens: [0, 1, 2, 3].map((n) => Array.from(source.tokens(n))),
    rows: [0, 1, 2].map((i) => Array.from(source.clsRow(i))),
    stages: Object.fromEntries(
      source.stages.map((name) => [name, [0, 7].map((token) => source.stage(name, { token, head: 1 }))]),
    ),
  });
  const all = { whole: told(whole), twin: told(whole.twin), knocked: {} };
  for (const [i, head] of heads) {
    whole.knock(i, head);
    const rows = [0, 1, 2].map((n) => Array.from(whole.clsRow(n)));
    all.knocked[`${i}.${head}`] = [Array.from(whole.logits()), rows, [...whole.knocked]];
  }
  whole.knock(2, 1);
  all.back = Array.from(whole.logits());
  all.occlusion = Array.from(whole.occlusion());
  all.pixels = whole.pixelGradient().shape;
  all.averages = heads.map(([i, head]) => whole.averageGradient(i, head, 7));
  return all;
}"""


@pytest.fixture(scope="module")
def asked(browser, recorded):
    """What class Recorded tells of the recording, in a browser."""
    eye, _, _, found = recorded
    data = page.described(eye.config, "small") | {"answers": eye.names, "photos": [found]}
    data["stages"] = found["stages"]["list"]
    tab = browser.new_page()
    room = Path(page.__file__).parent
    scripts = [(room / f"{name}.js").read_text(encoding="utf-8") for name in ("data", "vit", "recorded")]
    tab.add_script_tag(content="\n".join([*scripts, "window.Recorded = Recorded;"]))
    told = tab.evaluate(ASK, [json.loads(page.json_in_html(data)), [list(head) for head in np.ndindex(3, 2)]])
    tab.close()
    return told


def test_the_page_computes_the_models_attention(asked, recorded):
    _, view, trace, found = recorded
    T = 1 + view.grid[0] * view.grid[1]
    assert asked["whole"]["config"]["T"] == T and asked["whole"]["config"]["grid"] == list(view.grid)
    assert asked["whole"]["config"]["P"] == [8, 5] and asked["whole"]["config"]["W"] == 5 * view.grid[1]
    for (i, head), attention in zip(np.ndindex(3, 2), asked["whole"]["attention"], strict=True):
        np.testing.assert_allclose(
            np.reshape(attention, (T, T)), trace[f"layer.{i}.probabilities"].value[0, head], atol=0.02
        )
    for n, tokens in enumerate(asked["whole"]["tokens"]):
        np.testing.assert_allclose(np.reshape(tokens, (T, 12)), unpack(found["hidden"])[n], atol=1e-5)
    np.testing.assert_allclose(asked["occlusion"], unpack(found["occlusion"]).ravel(), atol=1e-6)
    assert asked["pixels"] == list(view.pixel_values.shape[2:])
    for (i, head), average in zip(np.ndindex(3, 2), asked["averages"], strict=True):
        p, dp = (x[0, head, 7] for x in trace[f"layer.{i}.probabilities"])
        assert average == pytest.approx(p @ dp, rel=2e-3, abs=1e-3 * float(abs(dp).max()))
    assert len(asked["twin"]["attention"]) == 6


def test_the_page_shows_the_answers_without_a_head(asked, recorded):
    _, view, _, found = recorded
    logits, T = unpack(found["knocked"]["logits"]), 1 + view.grid[0] * view.grid[1]
    for layer, head in np.ndindex(3, 2):
        shown, rows, out = asked["knocked"][f"{layer}.{head}"]
        assert out == [f"{layer}.{head}"]
        np.testing.assert_allclose(shown, logits[layer, head], atol=1e-5)
        for i, row in enumerate(rows):
            assert len(row) == T and np.isclose(sum(row), 1, atol=0.02)
            if i == layer:
                expected = asked["whole"]["attention"][2 * i + 1 - head][:T]  # the other of two heads
                np.testing.assert_allclose(row, expected, atol=1e-6)
            elif i < layer:
                assert row == asked["whole"]["rows"][i]
            else:
                assert row != asked["whole"]["rows"][i]
    assert asked["back"] == asked["whole"]["logits"]
    np.testing.assert_allclose(asked["whole"]["logits"], found["logits"])


def test_the_page_shows_each_stage_of_a_token(asked, recorded):
    _, _, trace, found = recorded
    shown = asked["whole"]["stages"]
    assert list(shown) == [*(name for name in trace if name != "logits"), "logits"]
    for name, stage in trace.items():
        if name == "logits":
            continue
        for token, told in zip((0, 7), shown[name], strict=True):
            assert told["shape"] == list(stage.value.shape[1:])
            for x, first, norm in zip(
                stage, (told["first"], told["gradient"]), (told["norm"], told["gradientNorm"]), strict=True
            ):
                if name == "pixel_values":
                    x = images.patchify(x[0], (8, 5)).reshape(1, -1, 3 * 8 * 5)
                rows = {"pixel_values": -1, "embeddings.patches": -1, "embeddings.cls": 0}.get(name, 0) + token
                x = x[0, 1] if x.ndim == 4 else x[0]
                if not 0 <= rows < len(x):
                    assert first == [] and told["count"] == 0
                    continue
                x = x[rows]
                assert told["count"] == len(x) and told["whole"] == (len(told["first"]) == len(x))
                scale = abs(stage[0] if first is told["first"] else stage[1]).max()
                tolerance = 0.02 * max(1, scale) if name.rpartition(".")[2] in recording.COMPUTED else 2e-3 * scale
                np.testing.assert_allclose(first, x[: len(first)], atol=tolerance + 1e-9)
                assert len(first) >= min(3, len(x))
                assert np.isclose(norm, np.linalg.norm(x), rtol=0.02, atol=4 * tolerance + 1e-9)
    gradient = shown["logits"][0]["gradient"]
    assert gradient == [float(k == found["label"]) for k in range(len(gradient))]
    twin = asked["twin"]["stages"]
    assert set(twin) == {f"layer.{i}.{name}" for i in range(3) for name in recording.COMPUTED}
    assert all(
        told["gradient"] is None and len(told["first"]) == told["count"] for each in twin.values() for told in each
    )


# ---- The file ----


class Page(HTMLParser):
    """The scripts, styles and metas of a page."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.styles, self.metas, self.title, self.inside = [], [], [], "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        if tag in ("script", "style"):
            getattr(self, f"{tag}s").append([dict(attrs), ""])
        if tag == "meta":
            self.metas.append(dict(attrs))

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside in ("script", "style"):
            getattr(self, f"{self.inside}s")[-1][1] += data
        if self.inside == "title":
            self.title += data


MEAN = '</script><script>alert("x")</script><!--script--><b>\u2028\u2029 "\'&amp; \xe4\xf6\xfc ' + "x" * 260


def parsed(text):
    found = Page(text)
    assert len(found.scripts) == 2 and len(found.styles) == 1
    (kind, data), (_, script) = found.scripts
    assert kind == {"type": "application/json", "id": "data"}
    return found, json.loads(data), script


def test_names_with_markup_stay_names():
    text = page.filled({"photos": [{"name": MEAN}], "answers": [MEAN, "b"]}, MEAN)
    found, data, script = parsed(text)
    assert data == {"photos": [{"name": MEAN}], "answers": [MEAN, "b"]}
    assert found.title.startswith("</script><script>alert") and "alert" not in script
    text = page.json_in_html({"name": MEAN})
    assert text.isascii() and not set("<>&") & set(text) and json.loads(text) == {"name": MEAN}


def test_a_page_of_names_with_markup_opens_and_shows_them(browser, tmp_path):
    eye = eye_of(random_model(num_labels=3, id2label={0: MEAN, 1: "<img src=x onerror=alert(1)>", 2: "</script>"}))
    data = page.described(eye.config, "<i>model</i>") | page._recorded(eye, [small_photo(tmp_path)])
    data["photos"][0]["name"] = MEAN
    page.write(tmp_path / "a.html", data, MEAN)
    tab, wrong = browser.new_page(), []
    tab.on("dialog", lambda dialog: wrong.append(dialog.message) or dialog.dismiss())
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("request", lambda request: wrong.append(request.url) if request.url[:5] not in ("file:", "data:") else None)
    tab.goto((tmp_path / "a.html").as_uri())
    tab.wait_for_selector("body[data-ready]", timeout=60_000)
    assert tab.evaluate("minivit.source.answers") == eye.names and not tab.query_selector_all(
        "img[onerror], main i, h1 i"
    )
    assert "<i>model</i>" in tab.inner_text("h1") and wrong == []
    tab.close()


def test_the_page_allows_its_own_script_and_style_and_nothing_else():
    found, _, script = parsed(page.filled({"a": 1}, "title"))
    (policy,) = [meta["content"] for meta in found.metas if meta.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    hashed = [base64.b64encode(hashlib.sha256(x.encode()).digest()).decode() for x in (script, found.styles[0][1])]
    assert rules == {
        "default-src": "'none'",
        "script-src": f"'sha256-{hashed[0]}'",
        "style-src": f"'sha256-{hashed[1]}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_every_script_of_the_room_is_in_the_page_once_and_view_is_last():
    _, _, script = parsed(page.filled({}, ""))
    places = [script.index(path.read_text(encoding="utf-8")) for path in sorted(page.ROOM.glob("*.js"))]
    assert len(set(places)) == len(places) >= 11
    assert script.index((page.ROOM / "view.js").read_text(encoding="utf-8")) == max(places)
    assert script.lstrip().startswith('(() => {\n"use strict";') and script.rstrip().endswith("})();")


def small_photo(folder, name="photo.png"):
    with Image.open(images.photo("coffee.jpg")) as photo:
        photo.resize((60, 40)).save(folder / name)
    return folder / name


def explore(folder, tmp_path, name="photo.png", **options):
    path = page.explore([small_photo(tmp_path, name)], folder, tmp_path / "a.html", **options)
    return parsed(path.read_text(encoding="utf-8"))[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"num_attention_heads": 1, "num_hidden_layers": 1},
        {"num_hidden_layers": 12, "qkv_bias": False, "hidden_act": "relu"},
        {"num_channels": 1},
        {"patch_size": 4},
        {"image_size": (24, 60), "problem_type": "multi_label_classification"},
    ],
)
def test_models_of_other_sizes(changes, folders, tmp_path, capsys):
    found = explore(folders(**changes), tmp_path)
    config = ViTConfig.from_dict(CONFIG.to_dict() | changes)
    assert found["kind"] == "photo" and found["answers_are"] == "classes"
    assert found["config"]["patch_size"] == list(np.broadcast_to(config.patch_size, 2))
    (photo,) = found["photos"]
    assert photo["grid"] == [
        n // p for n, p in zip(config.image_size, np.broadcast_to(config.patch_size, 2), strict=True)
    ]
    L, h, T = config.num_hidden_layers, config.num_attention_heads, 1 + photo["grid"][0] * photo["grid"][1]
    assert photo["query"]["shape"] == [L, h, T, 12 // h]
    assert (photo["knocked"]["looks"] is None) == (L == 1)
    if "problem_type" in changes:
        np.testing.assert_allclose(photo["probabilities"], 1 / (1 + np.exp(-np.array(photo["logits"]))), rtol=1e-4)
    assert re.fullmatch(r"photo\.png: \d+ x \d+ patches, \d+\.\d s\n", capsys.readouterr().out)


def test_a_classifier_sees_the_pixels_that_predict_gives_it(folders, tmp_path, capsys):
    folder = folders()
    (photo,) = explore(folder, tmp_path)["photos"]
    assert main(["predict", str(folder), str(tmp_path / "photo.png"), "--top", "1"]) == 0
    share, name = re.search(r"([\d.]+)%  (\S+)", capsys.readouterr().out.partition("photo.png\n")[2]).groups()
    assert name == CONFIG.class_names[photo["label"]]
    assert abs(float(share) / 100 - max(photo["probabilities"])) < 1e-4


def test_of_many_classes_the_likeliest_are_shown(folders, tmp_path, capsys):
    names = {k: f"<{k}>" for k in range(40)}
    found = explore(folders(id2label=names, num_labels=40), tmp_path)
    (photo,) = found["photos"]
    assert len(found["answers"]) == len(photo["logits"]) == 5 and set(found["answers"]) <= set(names.values())
    assert photo["logits"][photo["label"]] == max(photo["logits"]) and sum(photo["probabilities"]) < 1


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (3, 3), (700, 500)])
def test_a_photo_of_any_size(size, tmp_path):
    Image.effect_noise(size, 50).save(tmp_path / "photo.png")
    model = random_model(ViTModel)
    eye = eye_of(model)
    view = eye.see(tmp_path / "photo.png", "photo.png")
    rows, columns = view.grid
    assert 1 <= rows * columns <= eye.patches and view.pixel_values.shape == (1, 3, rows * 8, columns * 5)
    assert view.picture.startswith("data:image/jpeg;base64,")


def test_the_three_photos_where_none_is_given(monkeypatch, tmp_path, folders):
    monkeypatch.setattr(recording, "record", lambda eye, view, _: {"name": view.name, "stages": {"list": []}})
    path = page.explore(model=folders(ViTModel), out=tmp_path / "new" / "a.html")
    _, data, _ = parsed(path.read_text(encoding="utf-8"))
    assert [photo["name"] for photo in data["photos"]] == data["answers"] == list(three.BOX)
    assert len(data["lessons"]) >= 13 and data["lessons"]["05"]


def test_a_page_is_replaced_and_other_files_are_not(folders, tmp_path, capsys):
    folder = folders()
    explore(folder, tmp_path)
    explore(folder, tmp_path)
    (tmp_path / "a.html").write_text("<!doctype html>mine", encoding="utf-8")
    with pytest.raises(FileError, match=r"was not written by minivit explore\.\n  hint: .*--force"):
        explore(folder, tmp_path)
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == "<!doctype html>mine"
    explore(folder, tmp_path, force=True)


# ---- What is refused ----


@pytest.fixture
def no_work(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("work before the input was checked")

    monkeypatch.setattr(recording, "record", refuse)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            ViTForMaskedImageModeling,
            {"image_size": 24, "patch_size": 8, "encoder_stride": 8},
            "it paints hidden patches",
        ),
        (ViTForImageClassification, {"num_channels": 4}, "it takes pictures of 4 channels"),
        (ViTForImageClassification, {"num_labels": 1}, "it answers with numbers"),
        (ViTForImageClassification, {"num_hidden_layers": 0}, "it has no layers"),
    ],
)
def test_a_model_that_cannot_be_explored(kind, changes, message, tmp_path, no_work):
    config = ViTConfig.from_dict(
        {key: value for key, value in CONFIG.to_dict().items() if key not in ("id2label", "label2id")}
        | {"num_labels": 4}
        | changes
    )
    kind(config, rng=0).save_pretrained(tmp_path / "model")
    with pytest.raises(MinivitError, match=rf"model: this model cannot be explored: {message}"):
        explore(tmp_path / "model", tmp_path)
    assert not (tmp_path / "a.html").exists()


def test_a_model_that_is_too_large_is_refused_before_it_is_made():
    fields = ViTConfig.huge().to_dict()
    with pytest.raises(MinivitError, match=r"too large: a page of 4\.7 MB has room for \d+ patches of"):
        recording.eye_of("huge", None, fields, {"classifier.weight": None})
    assert recording.most_patches(ViTConfig.base()) >= 40


def test_pruned_heads_are_refused_and_an_export_of_them_is_not(tmp_path, no_work):
    model = random_model()
    model.prune_heads({1: [0]})
    fields = model.fields()
    with pytest.raises(MinivitError, match="heads were cut away"):
        recording.eye_of("pruned", tmp_path, fields, {name: p.data for name, p in model.named_parameters()})
    model.save_pretrained(tmp_path / "model")
    assert recording.eye_of("whole", tmp_path / "model", *weights.read_folder(tmp_path / "model")).patches


def test_weights_that_overflow(tmp_path, capsys):
    model = random_model()
    model.vit.layernorm.weight.data[:] = 3e38
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(MinivitError, match=r"photo\.png: what the model makes of it.* is not finite"):
        explore(tmp_path / "model", tmp_path)
    assert not (tmp_path / "a.html").exists()


def test_weights_that_are_no_numbers(tmp_path, no_work):
    model = random_model()
    model.vit.layernorm.weight.data[0] = np.nan
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(FileError, match=r"vit\.layernorm\.weight \(NaN or inf\)"):
        explore(tmp_path / "model", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jpg"], "none.jpg: there is no such file"),
        (["broken.png"], "broken.png: "),
        (["photo.png", "--out", "folder"], "folder: this is a folder.\n  hint: name a file in it"),
        (["photo.png", "--out", "mine.html"], "mine.html: was not written by minivit explore."),
        (["photo.png", "--out", "mine.html/a.html"], "mine.html: a file is in the way of this folder."),
        (["photo.png", "--model", "digits"], "digits: reads digits, which are drawn on its page.\n  hint: leave out"),
        (["photo.png", "--model", "nowhere"], "nowhere: there is no such folder"),
        (["photo.png", "--out", " "], "an empty name"),
    ],
)
def test_a_mistake_is_one_message(arguments, message, tmp_path, monkeypatch, capsys, no_work, request):
    monkeypatch.chdir(tmp_path)
    small_photo(tmp_path)
    Path("broken.png").write_bytes(Path("photo.png").read_bytes()[:300])
    Path("mine.html").write_text("mine", encoding="utf-8")
    Path("folder").mkdir()
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(recording, "Eye", lambda *_: None)
    try:
        code = main(["explore", *arguments])
    except SystemExit as stopped:
        code = stopped.code
    out, err = capsys.readouterr()
    assert code == 2 and not out and message in err and err.count("hint:") + err.count("usage:") <= 1
    assert sorted(tmp_path.iterdir()) == before and Path("mine.html").read_text(encoding="utf-8") == "mine"


def test_a_full_disk_leaves_the_page_that_was_there(tmp_path, monkeypatch):
    page.write(tmp_path / "a.html", {"a": 1}, "old")
    monkeypatch.setattr(
        Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(FileError, match=r"cannot be written: .*No space left"):
        page.write(tmp_path / "a.html", {"a": 2}, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    assert "old" in (tmp_path / "a.html").read_bytes().decode()


# ---- The command ----


@pytest.mark.parametrize("opens", [True, False])
def test_the_command_says_what_it_wrote_and_opens_it(opens, folders, tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or opens)
    monkeypatch.chdir(tmp_path)
    small_photo(tmp_path, "caf\xe9 1.png")
    assert main(["explore", "caf\xe9 1.png", "--model", str(folders()), "--out", "my page.html", "--open"]) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"caf. 1\.png: 3 x 4 patches, [\d.]+ s\nmy page\.html: 0\.\d MB, one file .*\n", out)
    assert opened == [(tmp_path / "my page.html").as_uri()] and "my%20page.html" in opened[0]
    assert ("open the file in one yourself" in err) == (not opens)


def test_the_command_without_options(monkeypatch, capsys, tmp_path):
    given = []
    (tmp_path / "explore.html").write_bytes(b"x" * 100)
    monkeypatch.setattr(page, "explore", lambda *args: given.append(args) or tmp_path / "explore.html")
    monkeypatch.setattr(webbrowser, "open", lambda address: given.append(address))
    assert main(["explore"]) == 0
    assert given == [([], "dinov2-small", "explore.html", False)]


def test_digits_make_a_live_page_of_less_than_a_megabyte(tmp_path):
    path = page.explore(model="digits", out=tmp_path / "digits.html")
    _, data, _ = parsed(path.read_text(encoding="utf-8"))
    assert data["kind"] == "live" and data["answers"] == list("0123456789") and data["model"] == "digits"
    assert path.stat().st_size <= 1_000_000


DIGITS = {"num_channels": 1, "image_size": 8, "patch_size": 2, "id2label": {k: str(k) for k in range(10)}}


def test_digits_of_a_model_too_large_to_run_in_the_page_are_photos(tmp_path, folders, monkeypatch):
    monkeypatch.setattr(page, "MOST_LIVE", 1000)
    found = explore(folders(**DIGITS, num_labels=10), tmp_path)
    assert found["kind"] == "photo" and found["photos"][0]["grid"] == [4, 4]
    monkeypatch.undo()
    with pytest.raises(MinivitError, match="reads digits, which are drawn on its page"):
        explore(folders(**DIGITS, num_labels=10), tmp_path)


def test_a_model_that_paints_digits_is_refused(tmp_path, folders):
    with pytest.raises(MinivitError, match="it paints hidden patches, and has no answer"):
        page.explore(model=folders(ViTForMaskedImageModeling, **DIGITS, num_labels=10, encoder_stride=2))


def test_the_trained_eye_on_a_photo(tmp_path, monkeypatch):
    monkeypatch.setattr(lens, "occlusion", lambda *_: np.zeros((9, 14)))  # 127 pictures: half the time of the page
    photo = images.photo("cat.jpg")
    path = page.explore([photo], out=tmp_path / "cat.html")
    _, data, _ = parsed(path.read_text(encoding="utf-8"))
    assert path.stat().st_size <= 5_000_000
    (found,) = data["photos"]
    assert found["grid"] == [9, 14] and data["answers"] == list(three.BOX) and found["label"] == 0
    folder = weights.find("dinov2-small")
    eye = recording.eye_of("dinov2-small", folder, *weights.read_folder(folder))
    trace = lens.trace(eye.model, eye.see(photo, "cat").pixel_values)
    q, k = (unpack(found[name]) for name in ("query", "key"))
    attention = ops.softmax(Tensor(np.einsum("Lhqd,Lhkd->Lhqk", q, k) / 8)).data
    expected = np.stack([trace[f"layer.{i}.probabilities"].value[0] for i in range(12)])
    assert abs(attention - expected).max() < 0.02 and abs(attention - expected).mean() < 1e-4
    scales = dict(zip([stage["name"] for stage in data["stages"]], found["stages"]["scales"], strict=True))
    assert scales["pixel_values"][1] > 1e-3  # the photo is compared with itself, and yet its gradient is not 0


def test_the_box_s_photos_have_their_credit_in_the_page(tmp_path):
    """A licence asks for it beside every use; of a photo of somebody's own nothing is known."""
    assert page.credit(images.photo("pagoda.jpg")) == "danielbuechele (Flickr photo 6061409035), CC BY 2.0"
    assert page.credit(images.photo("digits.npz")).endswith("CC BY 4.0")
    assert page.credit(tmp_path / "cat.jpg") == ""
