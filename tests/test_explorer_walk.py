"""The live page's walk, tape, drawing and switches, in a browser, beside the numbers of minivit."""

import re

import numpy as np
import pytest

from minivit import Tensor, lens, ops
from minivit.explorer.page import explore
from minivit.vit import ViTForImageClassification

PATCH, LAYER, HEAD = 6, 1, 3


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


def steps_of(tab):
    """{title: text} of all steps of the walk, minus signs as in Python."""
    tab.evaluate("minivit.app.set({mode: 'walk', step: 0})")
    texts = {}
    for _ in range(tab.evaluate("minivit.app.modes.walk.steps.length")):
        text = tab.locator("#walk .step-words").inner_text()
        texts[tab.locator("#walk h2").inner_text()] = text.replace("\u2212", "-")
        tab.keyboard.press("ArrowRight")
    return texts


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
    key = next(t for t in np.argsort(-p[PATCH]) if t != PATCH)  # the one that is listened to most
    text = texts["Scores: does the offer fit?"]
    np.testing.assert_allclose(row(text, "q * k"), q[PATCH] * k[key], rtol=0.01, atol=1e-3)
    s = value[here + "scores"][HEAD, PATCH, key]
    written = [float(x) for x in re.search(r"s = (\S+) / \S8 = (\S+)", text).groups()]
    np.testing.assert_allclose(written, [s * np.sqrt(8), s], rtol=1e-3)
    name = f"patch {key}" if key else "CLS"
    shares = row(texts["Softmax: scores become shares"], name)
    largest = value[here + "scores"][HEAD, PATCH].max()
    np.testing.assert_allclose(shares[:3], [s, s - largest, np.exp(s - largest)], rtol=1e-3)
    assert shares[3] == pytest.approx(100 * p[PATCH, key], abs=0.06)
    text = texts["Context: listening"]
    assert row(text, "sum") == row(text, "context")
    np.testing.assert_allclose(row(text, "context"), value[here + "context"][HEAD, PATCH, :4], rtol=0.01, atol=1e-3)
    np.testing.assert_allclose(row(texts["Logits"], str(label)), value["logits"][label], rtol=0.01)
    loss = -np.log(ops.softmax(value["logits"]).data[label])
    assert f"= {loss:.4g}" in texts["The loss"]
    dlogits = [row(texts["Turning round: the first gradient"], str(k))[2] for k in range(10)]
    np.testing.assert_allclose(dlogits, gradient["logits"], rtol=0.02, atol=1e-4)
    dp, ds = (gradient[here + stage][HEAD, PATCH] for stage in ("probabilities", "scores"))
    expected = [p[PATCH, key], dp[key], dp[key] - dp @ p[PATCH], ds[key]]
    np.testing.assert_allclose(row(texts["Softmax, backwards"], name), expected, rtol=0.02, atol=1e-6)
    for title, name, stage in [
        ("The MLP, backwards", "du", "mlp_pre_activation"),
        ("Three roads meet", "dy, behind the norm", "layernorm_before"),
    ]:
        dx = gradient[here + stage][PATCH]
        np.testing.assert_allclose(row(texts[title], name), [np.linalg.norm(dx), *dx[:6]], rtol=0.06, atol=1e-6)


def test_the_walk_opens_the_first_block_unless_a_link_says_otherwise(tab):
    tab.evaluate("minivit.app.set({layer: 2, mode: 'walk'})")  # the last layer is what the page opens with
    assert tab.evaluate("minivit.state.layer") == 0
    tab.evaluate("minivit.app.set({layer: 2, step: 30})")
    assert tab.evaluate("minivit.state.layer") == 2


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
    tab.get_by_label("published einsum").check()
    assert "With everything in" in tab.locator(".effect").inner_text()
    tab.get_by_role("button", name="all back").click()
    np.testing.assert_array_equal(tab.evaluate("Array.from(minivit.source.logits())"), before)
