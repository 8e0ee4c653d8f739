"""The live page's walk, tape, drawing and switches, in a browser, beside the numbers of minivit."""

import itertools
import re

import numpy as np
import pytest

from minivit import Tensor, images, lens, ops
from minivit.explorer.page import explore
from minivit.vit import ViTConfig, ViTForImageClassification

PATCH, LAYER, HEAD = 6, 1, 3
NUMBER = r"-?\d[\d.]*(?:e-?\d+)?"


@pytest.fixture(scope="module")
def model():
    return ViTForImageClassification.from_pretrained("digits")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return explore(model="digits", out=tmp_path_factory.mktemp("walk") / "live.html")


@pytest.fixture
def tab(browser, page):
    """The page in a tab of its own; in the end it has told no error."""
    told = []
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    tab = context.new_page()
    tab.on("console", lambda message: told.append(message.text))
    tab.on("pageerror", lambda error: told.append(str(error)))
    tab.goto(f"{page.as_uri()}#patch={PATCH}&layer={LAYER}&head={HEAD}")
    tab.wait_for_selector("body[data-ready]")
    yield tab
    context.close()
    assert told == []


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A photo page of a small model with random weights."""
    folder = tmp_path_factory.mktemp("photo")
    config = ViTConfig(16, 3, 2, 24, image_size=(24, 20), patch_size=(8, 5), initializer_range=0.4, num_labels=4)
    ViTForImageClassification(config, rng=1).save_pretrained(folder / "model")
    return explore([images.photo("cat.jpg")], folder / "model", folder / "photo.html")


@pytest.fixture
def photo_tab(browser, photo):
    told = []
    tab = browser.new_page()
    tab.on("pageerror", lambda error: told.append(str(error)))
    tab.goto(photo.as_uri())
    tab.wait_for_selector("body[data-ready]")
    yield tab
    tab.close()
    assert told == []


def steps_of(tab):
    """{title: text} of all steps of the walk, minus signs as in Python."""
    tab.evaluate("minivit.app.set({mode: 'walk', step: 0})")
    texts = {}
    for _ in range(tab.evaluate("minivit.app.modes.walk.steps.length")):
        text = tab.locator("#walk .step-words").inner_text()
        texts[tab.locator("#walk h2").inner_text()] = text.replace("\u2212", "-")
        tab.keyboard.press("ArrowRight")
    return texts


def table(text, caption):
    """{row: its numbers} of the table below a caption."""
    lines = text.split("\n" + caption, 1)[1].split("\n")[2:]
    rows = [line.split("\t") for line in itertools.takewhile(lambda line: "\t" in line, lines)]
    return {name: [float(x.rstrip(" %")) for x in cells if re.fullmatch(NUMBER + "( %)?", x)] for name, *cells in rows}


def reckoned(text):
    """What is left and right of the last "=" in each line of arithmetic: numbers, as written."""
    for line in text.splitlines():
        _, *sides = re.sub(r"sqrt\(var \+ eps\)", "", line).split(" = ")
        if len(sides) == 0 or not re.fullmatch(NUMBER + "(, the natural logarithm)?", sides[-1]):
            continue
        left = sides[0] if len(sides) > 1 else line.rsplit(" = ", 1)[0].rsplit(": ", 1)[-1]
        if re.fullmatch(r"[-\d.e+*/() ]*[*/][-\d.e+*/() ]*", left):
            yield left, sides[-1].split(",")[0]


def traced(tab, model):
    """What minivit makes of the page's picture, from the loss back."""
    pixels = np.array(tab.evaluate("Array.from(minivit.app.whole.pixels)"), np.float32).reshape(1, 1, 8, 8)
    label = tab.evaluate("minivit.app.whole.label")
    return label, lens.trace(model, pixels, lambda stages: ops.cross_entropy(stages["logits"], np.array([label])))


def row(text, name):
    """The numbers of the table's row of that name."""
    line = next(line for line in text.splitlines() if line.split("\t")[0] == name)
    return [float(cell.rstrip(" %")) for cell in line.split("\t")[1:] if re.fullmatch(r"-?[\d.]+(e-?\d+)?( %)?", cell)]


def test_every_step_has_two_sentences_and_the_shapes_of_this_model(tab):
    P, C, D, h, F, N, K = 2, 1, 64, 8, 128, 16, 10
    T = N + 1
    sizes = {"B": 1, "C": C, "H": 8, "W": 8, "P": P, "D": D, "h": h, "d": D // h, "F": F, "N": N, "T": T, "K": K}
    sizes |= {"q": T, "k": T}
    found = 0
    for title, text in steps_of(tab).items():
        sentences = text.split("\n\n")[1]
        assert len(re.findall(r"[.](?= |$)", sentences)) == 2, title
        for letters, numbers in re.findall(r"\(([A-Za-z, ]+)\) = \(([\d, ]+)\)", text):
            expected = [np.prod([sizes[letter] for letter in axis.split()]) for axis in letters.split(",")]
            assert expected == [int(number) for number in numbers.split(",") if number.strip()], title
            found += 1
    assert found > 40


def test_the_arithmetic_that_is_written_out_is_the_models(tab, model):
    texts = steps_of(tab)
    label, stages = traced(tab, model)
    value, gradient = ({name: stage[i][0] for name, stage in stages.items()} for i in (0, 1))
    here = f"layer.{LAYER}."
    q, k, p = (value[here + name][HEAD] for name in ("query", "key", "probabilities"))
    key = next(t for t in np.argsort(-p[PATCH]) if t not in (0, PATCH))  # the other patch that is listened to most
    text = texts["Scores: does the offer fit?"]
    name = f"token {key}"
    assert f"Token {key} is the other token, CLS aside, that token {PATCH} attends to most." in text
    products = np.array([row(text, str(j)) for j in range(8)])
    np.testing.assert_allclose(products, np.stack([q[PATCH], k[key], q[PATCH] * k[key]], 1), rtol=1e-4, atol=1e-4)
    s = value[here + "scores"][HEAD, PATCH, key]
    written = [float(x) for x in re.search(r"s = (\S+) / \S8 = (\S+)", text).groups()]
    np.testing.assert_allclose(written, [s * np.sqrt(8), s], rtol=1e-3)
    shares = row(texts["Softmax: scores become shares"], name)
    largest = value[here + "scores"][HEAD, PATCH].max()
    np.testing.assert_allclose(shares[:3], [s, s - largest, np.exp(s - largest)], rtol=1e-3, atol=1e-4)
    assert shares[3] == pytest.approx(100 * p[PATCH, key], abs=0.06)
    text = texts["Context: listening"]
    np.testing.assert_allclose(row(text, "sum: y"), value[here + "context"][HEAD, PATCH, :4], rtol=0.01, atol=1e-3)
    np.testing.assert_allclose(row(texts["Logits"], str(label)), value["logits"][label], rtol=0.01)
    loss = -np.log(ops.softmax(value["logits"]).data[label])
    assert f"= {loss:.4g}" in texts["The loss"]
    dlogits = [row(texts["Turning round: the first gradient"], str(k))[2] for k in range(10)]
    np.testing.assert_allclose(dlogits, gradient["logits"], rtol=0.02, atol=1e-4)
    dp, ds = (gradient[here + stage][HEAD, PATCH] for stage in ("probabilities", "scores"))
    expected = [p[PATCH, key], dp[key], dp[key] - dp @ p[PATCH], ds[key]]
    text = texts["Softmax, backwards"]
    unit = unit_of(text)
    expected = np.array(expected) / [1, unit, unit, unit]
    np.testing.assert_allclose(row(text, name), expected, rtol=0.02, atol=2e-4)
    for title, name, stage in [
        ("The MLP, backwards", "du, 128 numbers", "mlp_pre_activation"),
        ("Three roads meet", "dy, after the norm", "layernorm_before"),
    ]:
        dx = gradient[here + stage][PATCH]
        np.testing.assert_allclose(row(texts[title], name), [np.linalg.norm(dx), *dx[:4]], rtol=0.06, atol=1e-6)
    for title, above, below in [
        ("Layer norm, backwards", here + "output", here + "attention_sum"),
        ("Three roads meet", here + "attention_sum", f"layer.{LAYER - 1}.output"),
    ]:
        road, dx = gradient[above][PATCH, :4], gradient[below][PATCH, :4]
        names = {"dx, before the norm": dx - road, "+ residual road": road, "= sum": dx}
        found = {name: np.array(row(texts[title], name)) * unit_of(texts[title]) for name in names}
        for name, expected in names.items():
            np.testing.assert_allclose(found[name], expected, atol=2e-3 * max(abs(road)), err_msg=f"{title}: {name}")


def unit_of(text):
    found = re.search(r"in units of (1e-?\d+)", text)
    return float(found[1]) if found else 1.0


SUMS = {  # how the caption begins of each table whose last row is the sum of the others
    "Where the patch lies": "First numbers of",
    "Scores: does the offer fit?": "Head",
    "Softmax: scores become shares": "Softmax over",
    "Context: listening": "Share times value",
    "Added, not replaced": "First numbers of",
    "Narrow again, and added": "First numbers of",
    "Probabilities": "Softmax over",
    "Layer norm, backwards": "First numbers of the gradients",
    "Three roads meet": "First numbers of the gradients",
}


def check_sums(texts):
    """Of all tables and lines of arithmetic; returns how many lines there are."""
    for title, caption in SUMS.items():
        *parts, total = table(texts[title], caption).values()
        parts = np.array([cells[-len(total) :] for cells in parts])
        decimals = min(4, *[len(str(x).partition(".")[2]) for x in total], 4)
        np.testing.assert_allclose(parts.sum(0), total, rtol=0, atol=1e-6 + 0.5 * 10.0**-decimals, err_msg=title)
    lines = [(title, *sides) for title, text in texts.items() for sides in reckoned(text)]
    for title, left, right in lines:
        digits, _, power = right.partition("e")
        last = 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))
        value = eval(left)
        assert value == pytest.approx(float(right), rel=0, abs=1.01 * last), (title, left, right)
    return len(lines)


def test_every_sum_is_the_sum_of_the_numbers_that_are_shown(tab):
    """To the last digit, and so in each line of arithmetic: what is right of "=" is what is left of it."""
    for layer, patch, head in [(1, 6, 3), (0, 11, 5), (2, 0, 7)]:
        tab.evaluate(f"minivit.app.set({{layer: {layer}, patch: {patch}, head: {head}}})")
        assert check_sums(steps_of(tab)) >= 8


def test_every_sum_on_a_photo_page_too(photo_tab):
    """What it keeps rounded is said to be; there is one set of numbers on each step."""
    photo_tab.evaluate("minivit.app.set({layer: 1, patch: 5, head: 1, mode: 'walk'})")
    texts = steps_of(photo_tab)
    assert check_sums(texts) >= 6
    rounded = [title for title, text in texts.items() if "in 256 steps" in text]
    assert rounded == ["Layer norm", "Scores: does the offer fit?", "Context: listening", "Softmax, backwards"]
    assert "Of dp this page keeps the first 3 keys, and the mean over all." in texts["Softmax, backwards"]


def test_a_photo_walk_says_what_the_twin_and_a_knocked_head_change(photo_tab):
    photo_tab.evaluate("minivit.app.set({twin: true, mode: 'walk'})")
    assert all("The walk shows the trained model" in text for text in steps_of(photo_tab).values())
    photo_tab.evaluate("minivit.app.set({twin: false, knocked: '1.0'})")
    told = [title for title, text in steps_of(photo_tab).items() if "Knocked out is layer 1, head 0" in text]
    assert "Logits" in told and "A picture is numbers" not in told


@pytest.mark.parametrize(
    ("switch", "touched", "name"),
    [
        ("switched: 'positions'", ["Where the patch lies", "Down to the embedding"], "Switched off is positions"),
        ("switched: 'residual'", ["Added, not replaced", "Three roads meet"], "Switched off is the residual road"),
        (
            "switched: 'scale'",
            ["Scores: does the offer fit?", "To query and key"],
            "Switched off is the scale 1/\u221ad",
        ),
        ("switched: 'published'", ["Context: listening"], 'Switched on is the einsum "nhn,nhd->nhd"'),
        ("knocked: '1.3'", ["Context: listening"], "Switched off is layer 1, head 3"),
        ("switched: 'attention.1'", ["Added, not replaced"], "Switched off is attention of layer 1"),
        ("switched: 'mlp.1'", ["Narrow again, and added"], "Switched off is MLP of layer 1"),
    ],
)
def test_a_switch_is_named_at_the_steps_that_it_touches(switch, touched, name, tab):
    """And there the sums are right with it."""
    tab.evaluate(f"minivit.app.set({{{switch}}})")
    texts = steps_of(tab)
    named = [title for title, text in texts.items() if "Switched o" in text]
    assert set(touched) <= set(named) and len(named) <= 6
    assert all(name in texts[title] for title in named)
    for title in set(touched) & set(SUMS) - {"Scores: does the offer fit?"}:
        *parts, total = table(texts[title], SUMS[title]).values()
        stage = {"Where the patch lies": "embeddings.output", "Context: listening": f"layer.{LAYER}.context"}
        stage |= {"Added, not replaced": f"layer.{LAYER}.attention_sum"}
        stage |= {"Narrow again, and added": f"layer.{LAYER}.output"}
        np.testing.assert_allclose(np.sum(parts, 0), total, atol=1e-6)
        if title in stage:
            options = f"{{token: {PATCH}, head: {HEAD}}}"
            true = tab.evaluate(f"Array.from(minivit.source.stage('{stage[title]}', {options}).first.slice(0, 4))")
            np.testing.assert_allclose(total, true, atol=4e-3)


def test_what_is_off_or_not_said_does_not_stand_there_as_if_it_were(tab):
    tab.evaluate("minivit.app.set({switched: 'attention.1,positions', label: -1})")
    texts = steps_of(tab)
    tab.evaluate(f"minivit.app.set({{step: {list(texts).index('Added, not replaced')}}})")
    assert tab.locator("#walk canvas[aria-label*='what attention would add']").count() == 1
    assert "dpositions = 0" in texts["Down to the embedding"]
    assert "Nobody has said what is right" in texts["The loss"]


def test_the_walk_opens_the_first_block_and_look_keeps_its_layer(tab):
    tab.evaluate("minivit.app.set({layer: 2})")  # the last layer is what the page opens with
    tab.evaluate("history.replaceState(null, '', '#')")
    tab.evaluate("minivit.app.setMode('walk')")
    assert tab.evaluate("minivit.state.layer") == 0
    tab.keyboard.press("l")
    assert tab.evaluate("[minivit.state.mode, minivit.state.layer]") == ["look", 2]
    tab.evaluate("minivit.app.setMode('walk')")
    tab.evaluate("minivit.app.set({layer: 2, step: 30})")
    assert tab.evaluate("minivit.state.layer") == 2


def test_a_link_to_the_walk_opens_the_block_that_it_names(tab):
    for link, layer in [("#mode=walk&step=26&layer=2", 2), ("#mode=walk&step=26", 0), ("#lesson=7", 0)]:
        tab.evaluate(f"location.hash = '{link}'")
        tab.wait_for_selector("body[data-mode=walk]")
        assert tab.evaluate("minivit.state.layer") == layer, link
        tab.keyboard.press("l")
        tab.wait_for_selector("body[data-mode=look]")


def test_the_letters_have_this_models_numbers(tab):
    tab.evaluate("minivit.app.setMode('walk')")
    tab.get_by_text("Letters", exact=True).click()
    names = tab.locator(".letters dt").all_inner_texts()
    expected = ["B = 1", "C = 1", "H = 8, W = 8", "P = 2", "N = 16", "T = 17", "D = 64", "h = 8", "d = 8", "F = 128"]
    assert names[:12] == [*expected, "L = 3", "K = 10"]


def test_the_tape_goes_from_the_loss_to_the_pixels(tab, model):
    """Node by node with one key; on the last card is the gradient of the pixels."""
    tab.evaluate("minivit.app.set({mode: 'tape', step: 0})")
    nodes = tab.evaluate("minivit.source.tape.length")
    assert "cross_entropy: loss" in tab.locator("#tape h2").inner_text()
    for _ in range(nodes - 1):
        tab.keyboard.press("ArrowRight")
    assert "patches" in tab.locator("#tape h2").inner_text()
    assert tab.get_by_role("button", name="next, backwards").is_disabled()
    _, stages = traced(tab, model)
    dx = stages["pixel_values"].gradient
    text = tab.locator(".card").last.inner_text().replace("\u2212", "-")
    low, high, length = (float(x) for x in re.search(r"(\S+) to (\S+), length (\S+)", text).groups())
    np.testing.assert_allclose([low, high, length], [dx.min(), dx.max(), np.linalg.norm(dx)], rtol=0.06)
    tab.locator(".nodes [aria-selected=true]").focus()
    tab.keyboard.press("ArrowUp")
    assert tab.evaluate("minivit.state.step") == nodes - 2
    assert tab.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"


def test_keys_alone_draw_take_back_and_measure(tab, model):
    tab.get_by_role("button", name="clear").click()
    tab.locator(".drawing-canvas").focus()
    for key in ["ArrowDown", "ArrowRight", "Space", "Space", "Space", "Shift+Space", "ArrowDown", "Space"]:
        tab.keyboard.press(key)
    drawn = np.zeros((8, 8))
    drawn[1, 1], drawn[2, 1] = 8, 4  # of 16

    def greys():
        return np.rint(16 * np.array(tab.evaluate("Array.from(minivit.app.whole.brightness())"))).reshape(8, 8)

    np.testing.assert_array_equal(greys(), drawn)
    tab.keyboard.press("Backspace")
    drawn[2, 1] = 0
    np.testing.assert_array_equal(greys(), drawn)
    tab.get_by_role("button", name="measure").click()
    tab.locator(".drawing-canvas").focus()
    tab.keyboard.press("ArrowUp")
    backward, difference = (float(x.replace("\u2212", "-")) for x in tab.locator(".measured dd").all_inner_texts()[:2])
    _, stages = traced(tab, model)
    assert backward == pytest.approx(stages["pixel_values"].gradient[0, 0, 1, 1], rel=1e-3)
    assert difference == pytest.approx(backward, rel=1e-5)


def test_switches_are_reached_by_keys_and_change_the_answer(tab, model):
    """One stop of Tab, then arrows; the logits are those of head_mask, and "all back" brings the first ones again."""
    before = np.array(tab.evaluate("Array.from(minivit.source.logits())"))
    tab.locator(".switches button").first.focus()
    for key in ["ArrowDown", "ArrowRight", "Space"]:
        tab.keyboard.press(key)
    assert tab.evaluate("minivit.state.knocked") == "1.1"
    mask = np.ones((3, 8))
    mask[1, 1] = 0
    pixels = np.array(tab.evaluate("Array.from(minivit.app.whole.pixels)"), np.float32).reshape(1, 1, 8, 8)
    expected = model(Tensor(pixels), head_mask=mask).logits.data[0]
    np.testing.assert_allclose(tab.evaluate("Array.from(minivit.source.logits())"), expected, atol=1e-5)
    tab.get_by_label("einsum nhn,nhd->nhd").check()
    assert "With everything in" in tab.locator(".effect").inner_text()
    tab.get_by_role("button", name="all back").click()
    np.testing.assert_array_equal(tab.evaluate("Array.from(minivit.source.logits())"), before)
