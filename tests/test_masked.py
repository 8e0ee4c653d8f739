"""ViTForMaskedImageModeling: transformers' golden numbers, gradients, and heads that come and go."""

from pathlib import Path

import numpy as np
import pytest

from minivit import Tensor, gradcheck, nn
from minivit.errors import ShapeError
from minivit.vit import ViTConfig, ViTForImageClassification, ViTForMaskedImageModeling, ViTModel

GOLDEN = Path(__file__).parent / "golden" / "hf_masked"
REFERENCE = dict(np.load(GOLDEN / "reference.npz"))
MASK = REFERENCE["bool_masked_pos"]


def small(**fields):
    """2 x 3 patches of 2 x 2 pixels."""
    sizes = {"hidden_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 5}
    return ViTConfig(**sizes | {"image_size": (4, 6), "patch_size": 2, "encoder_stride": 2, "num_channels": 2} | fields)


@pytest.fixture(scope="module")
def golden():
    """The golden model in float64, its output and its gradients."""
    model = ViTForMaskedImageModeling.from_pretrained(GOLDEN).to(np.float64)
    pixels = Tensor(REFERENCE["pixel_values"].astype(np.float64), requires_grad=True)
    output = model(pixels, MASK)
    output.loss.backward()
    return model, pixels, output


def test_the_mask_token_starts_at_zero():
    assert not ViTForMaskedImageModeling(small()).vit.embeddings.mask_token.data.any()


def test_golden_loss_and_reconstruction(golden):
    model, pixels, output = golden
    # transformers adds 1e-5 to the number of hidden pixels in float32, which rounds it in the eighth digit
    np.testing.assert_allclose(output.loss.item(), REFERENCE["loss"], rtol=1e-6)
    np.testing.assert_allclose(output.reconstruction.data, REFERENCE["reconstruction"], rtol=1e-12, atol=1e-12)
    loss, reconstruction = model(pixels, bool_masked_pos=MASK, return_dict=False)
    np.testing.assert_allclose(loss.item(), output.loss.item(), rtol=1e-12)
    np.testing.assert_allclose(reconstruction.data, output["reconstruction"].data, rtol=1e-12)
    plain = model(pixels)
    assert plain.loss is None and len(plain) == 1
    np.testing.assert_allclose(plain.reconstruction.data, REFERENCE["reconstruction_unmasked"], rtol=1e-12, atol=1e-12)


def test_golden_gradients(golden):
    model, pixels, _ = golden
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()} | {"pixel_values": pixels.grad}
    assert {f"grad.{name}" for name in gradients} == {name for name in REFERENCE if name.startswith("grad.")}
    for name, gradient in gradients.items():
        expected = REFERENCE[f"grad.{name}"]
        np.testing.assert_allclose(
            gradient, expected, rtol=1e-6, atol=1e-6 * max(1e-3, abs(expected).max()), err_msg=name
        )


def test_every_parameter_agrees_with_finite_differences(rng):
    model = ViTForMaskedImageModeling(small(initializer_range=0.5), rng=1).eval()
    pixels, mask = rng.standard_normal((2, 2, 4, 6)) * 3, rng.random((2, 6)) < 0.5
    assert gradcheck(lambda x, *_: model(x, mask).loss, pixels, *model.parameters(), rtol=1e-6)


def test_pixel_shuffle_puts_channels_where_patches_were(rng):
    x = rng.standard_normal((2, 3 * 4, 5, 7))  # C = 3, r = 2
    y = nn.PixelShuffle(2)(Tensor(x)).data
    assert y.shape == (2, 3, 10, 14)
    for c, i, j, row, column in [(0, 0, 0, 0, 0), (1, 0, 1, 2, 3), (2, 1, 0, 4, 6), (2, 1, 1, 4, 6)]:
        np.testing.assert_array_equal(y[:, c, 2 * row + i, 2 * column + j], x[:, c * 4 + i * 2 + j, row, column])
    with pytest.raises(ShapeError, match=r"12 channels(.|\n)*12 % 9 = 3"):
        nn.PixelShuffle(3)(Tensor(x))


def test_only_hidden_patches_count_in_the_loss(rng):
    """What is hidden is not seen: another picture there changes the loss by its own error only."""
    model = ViTForMaskedImageModeling(small(), rng=1).eval()
    x, mask = rng.standard_normal((1, 2, 4, 6), dtype=np.float32), np.array([[True] + [False] * 5])
    before = model(x, mask)
    x[:, :, :2, :2] += 1
    np.testing.assert_array_equal(model(x, mask).reconstruction.data, before.reconstruction.data)
    error = abs(before.reconstruction.data - x)[:, :, :2, :2].mean()
    np.testing.assert_allclose(model(x, mask).loss.item(), error, rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "mask", "message"),
    [
        (small(), np.zeros((1, 5), bool), r"bool_masked_pos is bool \(1, 5\)"),
        (small(), np.zeros((1, 6)), "bool_masked_pos is float64"),
        (small(encoder_stride=4), np.zeros((1, 6), bool), "patch_size=2 and encoder_stride=4"),
        (small(patch_size=(2, 3)), np.zeros((1, 4), bool), r"patch_size=\(2, 3\) and encoder_stride=2"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(config, mask, message):
    with pytest.raises(ShapeError, match=message):
        ViTForMaskedImageModeling(config)(np.zeros((1, 2, 4, 6), np.float32), mask)


def test_a_model_without_a_mask_token_takes_no_mask():
    with pytest.raises(ShapeError, match="a model with a mask token"):
        ViTModel(small())(np.zeros((1, 2, 4, 6), np.float32), bool_masked_pos=np.zeros((1, 6), bool))


def test_the_body_goes_on_as_a_classifier_and_back(tmp_path):
    with pytest.warns(UserWarning, match=r"a new head was drawn \(classifier.weight, classifier.bias\)"):
        classifier = ViTForImageClassification.from_pretrained(GOLDEN, ignore_mismatched_sizes=True, num_labels=3)
    masked = ViTForMaskedImageModeling.from_pretrained(GOLDEN)
    for name, parameter in classifier.vit.named_parameters():
        np.testing.assert_array_equal(parameter.data, masked.state_dict()[f"vit.{name}"])
    classifier.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"vit.embeddings.mask_token, decoder.0.weight, decoder.0.bias"):
        back = ViTForMaskedImageModeling.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    assert back(np.zeros((1, 3, 12, 12), np.float32), np.ones((1, 9), bool)).loss.item() > 0


def test_every_pixel_is_in_a_patch_that_may_be_painted(rng):
    model, mask = ViTForMaskedImageModeling(small()), np.zeros((1, 6), bool)
    pixels = rng.standard_normal((1, 2, 5, 6)).astype(np.float32)
    assert model(pixels, interpolate_pos_encoding=True).loss is None
    with pytest.raises(ShapeError, match=r"5 x 6 pixels\.\n  rule: .* multiples of 2"):
        model(pixels, mask, interpolate_pos_encoding=True)
