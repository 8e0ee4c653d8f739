"""The maps that the explorer's page derives from a source's numbers, beside minivit's lens, in a browser."""

import numpy as np
import pytest

from minivit import datasets, lens
from minivit.explorer.page import explore
from minivit.vit import ViTForImageClassification


@pytest.fixture(scope="module")
def model():
    return ViTForImageClassification.from_pretrained("digits")


@pytest.fixture(scope="module")
def picture():
    """The digit that the page is opened with: the first one to pick, (1, 1, 8, 8)."""
    _, test = datasets.digits()
    return np.asarray(test[int(np.flatnonzero(test.labels == 0)[0])][0], np.float32)[None]


@pytest.fixture(scope="module")
def page(browser, picture, tmp_path_factory):
    """The live page, on that digit."""
    path = explore(model="digits", out=tmp_path_factory.mktemp("views") / "live.html")
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(path.as_uri())
    tab.wait_for_selector("body[data-ready]")
    tab.evaluate("pixels => minivit.app.whole.setPixels(pixels)", picture.ravel().tolist())
    tab.evaluate("minivit.app.whole.setLabel(0)")
    yield tab
    context.close()


@pytest.fixture
def seen(page):
    """seen(hash, name): what the map of a view has under that name, a NumPy array."""

    def seen_(hash_, name="values"):
        page.evaluate("hash => minivit.set(hash)", hash_)
        found = page.evaluate("name => { const found = minivit.map[name]; return found && Array.from(found); }", name)
        return np.array(found)

    return seen_


@pytest.fixture(scope="module")
def output(model, picture):
    return model(picture, output_attentions=True, output_hidden_states=True)


def test_attention_from_a_token_and_to_it(seen, output):
    attention = output.attentions[1].data[0]  # (h, T, T)
    where = "#layer=1&head=5&patch=7"
    np.testing.assert_allclose(seen(where + "&view=attention"), attention[5, 7, 1:], atol=1e-6)
    np.testing.assert_allclose(seen(where + "&view=attended"), attention[5, 1:, 7], atol=1e-6)
    np.testing.assert_allclose(seen(where + "&view=mean"), attention[:, 7, 1:].mean(0), atol=1e-6)
    np.testing.assert_allclose(seen("#layer=1&patch=0&view=mean"), attention[:, 0, 1:].mean(0), atol=1e-6)


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("token", [0, 9])
def test_rollout_is_the_lens_rollout_of_the_layers_so_far(seen, output, layer, token):
    expected = lens.attention_rollout([a.data for a in output.attentions[: layer + 1]])[0, token, 1:]
    np.testing.assert_allclose(seen(f"#view=rollout&layer={layer}&patch={token}"), expected, atol=1e-6)


def test_heads_that_are_knocked_out_count_in_no_view(page, seen, model, picture):
    mask = np.ones((3, 8))
    mask[1, [0, 4]] = mask[2] = 0
    knocked = ",".join(f"{i}.{head}" for i, head in np.argwhere(mask == 0))
    attentions = [a.data for a in model(picture, head_mask=mask, output_attentions=True).attentions]
    expected = lens.attention_rollout(attentions)[0, 9, 1:]
    np.testing.assert_allclose(seen(f"#view=rollout&layer=2&patch=9&knocked={knocked}"), expected, atol=1e-6)
    expected = attentions[1][0, mask[1] == 1].mean(0)
    np.testing.assert_allclose(seen("#view=mean&layer=1&patch=7"), expected[7, 1:], atol=1e-6)
    np.testing.assert_allclose(seen("#view=mean&layer=1&patch=0"), expected[0, 1:], atol=1e-6)
    page.evaluate("minivit.set('#knocked=')")


@pytest.mark.parametrize("layer", [-1, 2])
def test_similarity_and_length_of_the_tokens_before_and_after_all_layers(seen, output, layer):
    tokens = output.hidden_states[layer + 1].data[0]
    expected = lens.similarity(tokens, 4)[1:]
    np.testing.assert_allclose(seen(f"#view=similarity&layer={layer}&patch=4"), expected, atol=1e-5)
    expected = np.linalg.norm(tokens[1:], axis=1)
    np.testing.assert_allclose(seen(f"#view=norms&layer={layer}"), expected, rtol=1e-5)


@pytest.mark.parametrize("layer", [-1, 0, 2])
def test_principal_components_are_the_lens_components_with_their_signs(seen, output, layer):
    found = lens.principal_components(output.hidden_states[layer + 1].data[0, 1:])
    where = f"#view=components&layer={layer}"
    np.testing.assert_allclose(seen(where, "coordinates").reshape(-1, 3), found.coordinates, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(seen(where, "shares"), found.shares, atol=1e-5)


def test_colours_go_from_0_to_255_but_for_the_hundredth_at_either_end(seen):
    coordinates = seen("#view=components&layer=1", "coordinates").reshape(-1, 3)
    low, high = np.quantile(coordinates, [0.01, 0.99], axis=0)
    expected = np.clip(255 * (coordinates - low) / (high - low), 0, 255)
    np.testing.assert_allclose(seen("#view=components&layer=1", "colours").reshape(-1, 3), expected, atol=0.5001)


def test_occlusion_is_the_fall_of_the_logit(seen, model, picture):
    expected = lens.occlusion(model, picture, 0).ravel()
    np.testing.assert_allclose(seen("#view=occlusion"), expected, atol=1e-5)
