"""The explorer's page in a browser, opened by its file as a reader opens it: what it shows, and for everybody.

What vit.js computes is compared with minivit in test_explorer_engine.py, what a page holds in test_explorer.py.
"""

import contextlib

import numpy as np
import pytest

from minivit import Tensor, datasets, images, lessons, ops
from minivit.explorer.page import explore
from minivit.vit import ViTForImageClassification

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
SIZES = {"projector": (1280, 720), "150 % zoom": (853, 480), "phone": (390, 844)}
MODES = {"photo": ("look", "walk"), "live": ("look", "walk", "tape")}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """{kind: path} of a page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    photo = explore([images.photo("cat.jpg")], out=folder / "photo.html")
    return {"photo": photo, "live": explore(model="digits", out=folder / "live.html")}


@pytest.fixture
def opened(browser, pages):
    """opened(kind, hash, **options) is a tab on the page; in the end it asked for no other file, and told no error."""
    asked, told = [], []
    with contextlib.ExitStack() as stack:

        def open_(kind, hash_="", size=(1280, 720), **options):
            width, height = size
            context = browser.new_context(viewport={"width": width, "height": height}, **options)
            stack.callback(context.close)
            tab = context.new_page()
            tab.on("request", lambda request: asked.append(request.url))
            tab.on("console", lambda message: told.append(message.text))
            tab.on("pageerror", lambda error: told.append(str(error)))
            tab.goto(pages[kind].as_uri() + hash_)
            tab.wait_for_selector("body[data-ready]")
            return tab

        yield open_
        assert told == []
    # the photo in it is a data: URI, which is no request
    ours = {path.as_uri() for path in pages.values()}
    assert {url.partition("#")[0] for url in asked if not url.startswith("data:")} <= ours


def from_page(tab, script):
    """What a JavaScript expression gives, typed arrays as arrays; `source` and `state` are the page's."""
    found = tab.evaluate(
        f"""() => {{
            const {{ source, state, app }} = window.minivit;
            const found = {script};
            return ArrayBuffer.isView(found) ? Array.from(found) : found;
        }}"""
    )
    return np.array(found) if isinstance(found, list) else found


@pytest.fixture(scope="module")
def digits():
    """The model of the live page, and the first test digits as it sees them: (n, 1, 8, 8)."""
    model = ViTForImageClassification.from_pretrained("digits")
    _, test = datasets.digits()
    return model, test


def test_keys_lead_everywhere(opened):
    tab = opened("photo", "#patch=5&layer=2&head=1")
    columns = from_page(tab, "source.config.grid")[1]
    for key, name, value in [
        ("ArrowRight", "patch", 6),
        ("ArrowDown", "patch", 6 + columns),
        ("]", "layer", 3),
        (".", "head", 2),
        ("0", "patch", 0),
        ("v", "view", "attended"),
        ("u", "twin", True),
        ("w", "mode", "walk"),
        ("ArrowRight", "step", 1),
        ("Escape", "mode", "look"),
    ]:
        tab.keyboard.press(key)
        assert from_page(tab, f"state.{name}") == value, key
    tab.keyboard.press("?")
    assert tab.locator("dialog#keys").is_visible()


def test_a_link_opens_the_view_it_was_copied_from(opened):
    tab = opened("photo", "#lesson=5&layer=3&head=2&patch=7")
    assert from_page(tab, "[state.view, state.layer, state.head, state.patch]").tolist() == ["attention", "3", "2", "7"]
    tab.keyboard.press("ArrowRight")
    tab.wait_for_url("**/photo.html#*patch=8*")
    tab.reload()
    tab.wait_for_selector("body[data-ready]")
    assert from_page(tab, "state.patch") == 8
    assert from_page(tab, "state.layer") == 3


def test_a_link_holds_the_drawing_its_label_and_the_switches(opened):
    tab = opened("live")
    tab.get_by_role("button", name="clear").click()
    tab.locator(".drawing-canvas").focus()
    for key in ["ArrowDown", "ArrowRight", "Space", "ArrowRight", "Space", "Space"]:
        tab.keyboard.press(key)
    tab.locator("#drawing select").select_option("5")
    tab.get_by_label("positions").uncheck()
    tab.get_by_role("button", name="layer 0, MLP").click()
    tab.get_by_role("button", name="layer 2, head 7").click()
    grey = np.zeros((8, 8))
    grey[1, 1:3] = 4, 8  # of 16
    here = "[...source.pixels, source.label, ...source.logits(), source.loss]"
    expected = from_page(tab, here)
    np.testing.assert_array_equal(expected[:64], (np.rint(grey * 255 / 16) / 255 - 0.5).ravel() / 0.5)
    tab.wait_for_url(lambda url: "knocked" in url)
    other = opened("live", tab.evaluate("location.hash"))
    np.testing.assert_array_equal(from_page(other, here), expected)
    assert other.evaluate("[minivit.state.switched, minivit.state.knocked]") == ["mlp.0,positions", "2.7"]
    assert other.get_by_role("button", name="layer 0, MLP").get_attribute("aria-pressed") == "false"


def test_a_link_to_a_digit_or_to_no_drawing(opened):
    tab = opened("live", "#drawing=digit12&label=99&switched=cls,attention.9,x")
    assert tab.evaluate("[minivit.state.drawing, minivit.state.label, minivit.state.switched]") == ["digit12", 9, "cls"]
    for drawing in ("digit9999999", "0g", "z" * 64):
        tab.evaluate("drawing => minivit.set(`#drawing=${drawing}`)", drawing)
        assert tab.evaluate("minivit.state.drawing") == "digit0"


def test_the_loss_is_of_the_likeliest_answer_until_a_label_is_chosen(opened):
    tab = opened("live")
    tab.get_by_role("button", name="clear").click()
    logits, label = from_page(tab, "source.logits()"), from_page(tab, "source.label")
    assert label == logits.argmax()
    assert from_page(tab, "source.loss") == pytest.approx(-np.log(ops.softmax(logits).data.max()), rel=1e-9)
    assert f'loss for "{label}"' in tab.locator(".effect").inner_text()
    assert "Nothing is drawn" in tab.locator("#answers-note").inner_text()
    tab.locator("#drawing select").select_option(str((label + 1) % 10))
    assert from_page(tab, "source.label") == (label + 1) % 10
    tab.keyboard.press("Escape")
    tab.locator("#map").focus()
    tab.keyboard.press("n")  # the next test digit, which has a label
    assert from_page(tab, "[state.drawing, state.label]").tolist() == ["digit1", "1"]
    assert tab.locator("#answers-note").inner_text() == ""


def test_an_untrained_twin_answers_for_drawings_and_not_for_photos(opened):
    tab = opened("photo", "#knocked=11.0&twin=1")
    assert tab.locator("#bars tr").count() == 0
    assert "trained or not" in tab.locator("#answers-note").inner_text()
    assert "Without" not in tab.locator("#said").inner_text()
    tab.keyboard.press("k")
    assert from_page(tab, "state.knocked") == "11.0"
    tab = opened("live", "#twin=1")
    best = tab.locator("#bars tr.best").inner_text().split()
    assert f"Everything is in: {best[0]}, {best[1]} %" in tab.locator(".effect").inner_text()


def test_a_photo_page_says_which_numbers_are_without_the_head(opened):
    tab = opened("photo", "#knocked=11.0&layer=3")
    assert "without layer 11, head 0, one head at a time" in tab.locator("#pair-out").inner_text()
    assert "Without layer 11, head 0:" in tab.locator("#said").inner_text()


def test_look_keeps_its_layer_while_the_walk_is_in_block_0(opened):
    tab = opened("photo")
    for key, layer in [("w", 0), ("Escape", 11), ("w", 11), ("[", 10), ("l", 10)]:
        tab.keyboard.press(key)
        assert from_page(tab, "state.layer") == layer, key


@pytest.mark.parametrize(("kind", "others"), [("photo", {"t", "n"}), ("live", set())])
def test_the_list_of_keys_has_those_of_the_page(opened, kind, others):
    tab = opened(kind)
    tab.keyboard.press("?")
    shown = {key for text in tab.locator("#keys dt:visible").all_inner_texts() for key in text.split()}
    assert {"k", "u", "w", "g", "?"} <= shown
    assert shown & {"t", "n"} == {"t", "n"} - others


def test_who_opens_the_page_by_itself_is_led_to_the_walk(opened):
    assert not opened("photo", "#patch=5").locator("#welcome").is_visible()
    tab = opened("live")
    tab.get_by_role("button", name="Start with Walk").click()
    assert from_page(tab, "[state.mode, String(state.step)]").tolist() == ["walk", "0"]
    assert not tab.locator("#welcome").is_visible()


def test_switches_stay_under_the_pointer_and_say_what_they_do(opened):
    tab = opened("live")
    switch = tab.get_by_role("button", name="layer 1, attention")
    before = switch.bounding_box()
    switch.click()
    assert switch.bounding_box() == before
    assert "not added to the tokens" in tab.locator("#switch-words").inner_text()


def test_on_a_telephone_the_answers_follow_the_drawing(opened):
    tab = opened("live", size=SIZES["phone"])
    top = {name: tab.locator(f"#{name}").bounding_box()["y"] for name in ("drawing", "answers", "knobs", "map")}
    assert top["drawing"] < top["answers"] < min(844, top["knobs"], top["map"])


def test_occlusion_waits_until_the_pen_rests(opened):
    tab = opened("live", "#view=occlusion")
    tab.get_by_text("White is 0").wait_for()
    note = "() => [minivit.source.occluded, document.getElementById('legend-note').textContent]"
    found = tab.evaluate(f"() => {{ minivit.app.set({{ drawing: 'digit3' }}); return ({note})(); }}")
    assert found == [False, "..."]
    tab.get_by_text("White is 0").wait_for()
    assert tab.evaluate("minivit.source.occluded")


def test_a_number_has_one_colour_over_dark_and_bright_pixels(opened):
    tab = opened("live", "#patch=11&key=10&view=attention")
    colours = tab.evaluate(
        """() => {
            const map = document.getElementById('map'), side = map.width / 8;
            const { data } = map.getContext('2d').getImageData(0, 0, map.width, map.height);
            const at = (pixel) => pixel.map((x) => Math.floor((x + 0.5) * side));
            const start = ([row, column]) => 4 * (row * map.width + column);
            const colour = (pixel) => Array.from(data.slice(start(at(pixel)), start(at(pixel)) + 4));
            return [[0, 4], [0, 5], [1, 4], [1, 5]].map(colour);
        }"""
    )
    assert np.unique(from_page(tab, "source.pixels").reshape(8, 8)[:2, 4:6]).size == 4
    assert np.unique(colours, axis=0).shape[0] == 1


def test_the_link_of_each_lesson_opens_another_view(opened):
    tab = opened("live")
    views = []
    for lesson in (one for one in lessons.lessons() if one.number.isdecimal()):
        tab.evaluate("number => minivit.set(`#lesson=${number}`)", int(lesson.number))
        views.append(tuple(from_page(tab, "[state.mode, state.view, String(state.step)]")))
    assert views[7][0] == "tape" and views[4][:2] == ("look", "attention") and views[6][0] == "walk"
    assert len(set(views)) >= len(views) - 2


@pytest.mark.parametrize("hash_", ["#patch=9999&layer=-7&head=x", "#view=nothing&mode=tape&knocked=99.99,a", "#%"])
def test_a_link_to_what_is_not_there_opens_what_is_near(opened, hash_):
    tab = opened("photo", hash_)
    assert from_page(tab, "state.layer") in range(-1, 12)
    assert from_page(tab, "state.patch") in range(from_page(tab, "source.config.T"))


def test_what_is_drawn_by_hand_is_what_minivit_reads(opened, digits):
    model, _ = digits
    tab = opened("live")
    tab.get_by_role("button", name="clear").click()
    box = tab.locator("canvas.drawing-canvas").bounding_box()
    x, y, side = box["x"], box["y"], box["width"]
    tab.mouse.move(x + 0.5 * side, y + 0.15 * side)
    tab.mouse.down()
    for step in range(1, 8):
        tab.mouse.move(x + 0.5 * side, y + (0.15 + 0.1 * step) * side)
    tab.mouse.up()
    drawn = from_page(tab, "app.whole.pixels").reshape(1, 1, 8, 8)
    grey = (drawn[0, 0] + 1) / 2  # of a mean and a deviation of 0.5
    assert grey[:, 3:5].max() > 0.5 and grey[:, 0].max() < 0.01  # a stroke in the middle
    logits = model(drawn.astype(np.float32)).logits.data[0]
    np.testing.assert_allclose(from_page(tab, "source.logits()"), logits, atol=1e-5)
    shown = tab.locator("#bars tr").nth(int(logits.argmax())).inner_text()
    assert f"{logits.max():.3f}" in shown.replace("\u2212", "-")


def test_any_drawing_with_any_heads_out_is_as_in_minivit(opened, digits, rng):
    """30 pictures, each without some heads: logits, attention and pixel gradient, in float32."""
    model, test = digits
    tab = opened("live", "#mode=look")
    L, h = 3, 8
    for number in range(30):
        mask = (rng.random((L, h)) > 0.2).astype(np.float32)
        pixels = test[number][0] if number % 2 else rng.uniform(-1, 1, (1, 8, 8)).astype(np.float32)
        knocked = ",".join(f"{i}.{head}" for i, head in np.argwhere(mask == 0))
        label = int(test.labels[number])
        tab.evaluate(
            """([pixels, label, knocked]) => {
                minivit.app.whole.setPixels(pixels);
                minivit.app.whole.setLabel(label);
                minivit.set(`#mode=look&knocked=${knocked}`);
            }""",
            [pixels.ravel().tolist(), label, knocked],
        )
        x = np.asarray(pixels, np.float32)[None]
        output = model(x, labels=[label], head_mask=mask, output_attentions=True)
        np.testing.assert_allclose(from_page(tab, "source.logits()"), output.logits.data[0], atol=1e-5)
        i, head = rng.integers(L), rng.integers(h)
        attention = from_page(tab, f"source.attention({i}, {head})").reshape(17, 17)
        np.testing.assert_allclose(attention * mask[i, head], output.attentions[i].data[0, head], atol=1e-5)
        gradient = from_page(tab, "source.pixelGradient().data").reshape(8, 8)
        np.testing.assert_allclose(gradient, pixel_gradient(model, x, label, mask), atol=1e-5)


def pixel_gradient(model, pixel_values, label, mask):
    pixels = Tensor(pixel_values, requires_grad=True)
    model(pixels, labels=[label], head_mask=mask).loss.backward()
    return pixels.grad[0, 0]


def test_the_photo_page_shows_the_numbers_of_the_eye(opened):
    """Attention of the trained eye, from its rounded queries and keys, and the answers, as recorded."""
    tab = opened("photo")
    attention = from_page(tab, "source.attention(11, 2)")
    T = from_page(tab, "source.config.T")
    np.testing.assert_allclose(attention.reshape(T, T).sum(1), 1, atol=1e-9)
    before = from_page(tab, "source.logits()")
    tab.keyboard.press("k")
    assert (from_page(tab, "source.logits()") != before).any()
    tab.keyboard.press("k")
    np.testing.assert_array_equal(from_page(tab, "source.logits()"), before)


def test_the_products_that_are_written_out_make_the_attention_that_is_shown(opened):
    tab = opened("photo", "#patch=9&layer=4&head=3&key=12")
    q, k = (from_page(tab, f"source.{name}") for name in ("query(4, 3, 9)", "key(4, 3, 12)"))
    keys = np.stack([from_page(tab, f"source.key(4, 3, {t})") for t in range(from_page(tab, "source.config.T"))])
    p = ops.softmax(keys @ q / np.sqrt(len(q))).data[12]
    text = tab.locator("#pair").inner_text().replace("\u2212", "-")
    assert f"{q @ k:.4g}" in text and f"{p:.4g}" in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["photo", "live"])
def test_axe_finds_nothing(opened, kind, scheme):
    """Of WCAG 2.0 to 2.2, levels A and AA."""
    from axe_playwright_python.sync_playwright import Axe

    tab = opened(kind, color_scheme=scheme, reduced_motion="reduce")
    for mode in [*MODES[kind], "keys", "words", "twin"]:
        tab.evaluate("mode => minivit.set(`#mode=${mode}&twin=${Number(mode === 'twin')}`)", mode)
        if mode in ("keys", "words"):
            tab.keyboard.press("?" if mode == "keys" else "g")
        found = Axe().run(tab, options={"runOnly": {"type": "tag", "values": WCAG}})
        if mode in ("keys", "words"):
            tab.keyboard.press("Escape")
        faults = [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found.response["violations"]]
        assert faults == [], (mode, len(found.response["passes"]))
        assert len(found.response["passes"]) > 10, mode  # it did look


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["photo", "live"])
def test_nothing_is_cut_off_at_the_side(opened, kind, size):
    tab = opened(kind, size=SIZES[size])
    for mode in MODES[kind]:
        tab.evaluate("mode => minivit.set(`#mode=${mode}`)", mode)
        width, window = tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width <= window, mode


def test_every_control_is_reached_by_tab_and_shows_it(opened):
    """What Tab reaches is visible, has a name, and an outline; the wall of heads is one stop and not 72."""
    tab = opened("photo")
    reached = []
    tab.evaluate("document.body.focus()")
    for _ in range(60):
        tab.keyboard.press("Tab")
        found = tab.evaluate(
            """() => {
                const one = document.activeElement, style = getComputedStyle(one);
                const outline = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
                return [one.id || one.className || one.tagName, outline || style.boxShadow !== 'none'];
            }"""
        )
        if found[0] == "BODY" or (reached and found == reached[0]):
            break
        reached.append(found)
    names = [name for name, _ in reached]
    assert {"mode-walk", "twin", "help", "view", "map", "cls", "layer", "head", "knock"} <= set(names)
    assert len(reached) < 40
    assert all(outline for _, outline in reached), [name for name, outline in reached if not outline]


def test_the_reading_voice_is_told_the_value(opened):
    tab = opened("photo", "#patch=3&layer=1&head=0&key=4")
    said = tab.locator("#said").inner_text()
    row = from_page(tab, "source.attention(1, 0)").reshape([from_page(tab, "source.config.T")] * 2)[3]
    assert "token 3" in said and f"{row[4]:.4g}" in said


def test_the_difference_beside_the_gradient_of_a_pixel(opened):
    tab = opened("live")
    numeric, analytic = from_page(tab, "Object.values(app.whole.finiteDifference(27))")[:2]
    assert abs(float(numeric) - float(analytic)) <= 1e-7 * max(1, abs(float(analytic)))


def test_the_selftest_prints_its_worst_error(opened):
    tab = opened("live", "#selftest")
    tab.wait_for_function("window.minivit.selftest")
    worst = tab.evaluate("minivit.selftest.worst")
    assert 0 < worst < 1e-5  # of float64 differences, as gradcheck allows
    assert tab.get_by_text("finite differences").count() >= 1


@pytest.mark.parametrize(("kind", "credit"), [("photo", "Photo: Stefan van der Walt, CC0"), ("live", "Digits: E.")])
def test_the_picture_has_its_credit(opened, kind, credit):
    assert opened(kind).locator("#credit").inner_text().startswith(credit)


def test_without_javascript_the_page_says_what_it_needs(browser, pages):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(pages["photo"].as_uri())
    assert "switch JavaScript on" in tab.inner_text("body")
    context.close()


def test_the_walk_goes_there_and_back(opened):
    """Every step has its title, formula, shapes, and a lesson; it begins with pixels and ends with their gradient."""
    for kind in ("photo", "live"):
        tab = opened(kind, "#mode=walk")
        steps = from_page(tab, "app.modes.walk.steps.length")
        assert 20 <= steps <= 40
        texts = []
        for _ in range(steps):
            texts.append(tab.locator("#walk").inner_text())
            tab.keyboard.press("ArrowRight")
        assert len(set(texts)) == steps
        assert all("esson" in text for text in texts)
        for name in ("softmax", "layer norm", "gradient"):
            assert any(name in text.lower() for text in texts), name
