"""What a model looks at: small cases by hand, and models whose answer is known."""

import numpy as np
import pytest

from minivit import Tensor, lens, vit
from minivit.errors import MinivitError, ShapeError


@pytest.fixture
def model():
    """Two layers of three heads, in training mode with dropout; 2 x 3 patches of 4 x 2 pixels; 5 classes."""
    config = vit.ViTConfig(
        image_size=(8, 6),
        patch_size=(4, 2),
        num_channels=2,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        num_labels=5,
        initializer_range=0.3,
        hidden_dropout_prob=0.2,
    )
    return vit.ViTForImageClassification(config).train()


@pytest.fixture
def pixels(rng):
    return rng.standard_normal((4, 2, 8, 6)).astype(np.float32)  # (B, C, H, W)


def test_rollout_by_hand():
    first = np.array([[[[1, 0], [1, 0]], [[0, 1], [1, 0]]]], float)  # (1, 2, 2, 2); the mean is [[.5, .5], [1, 0]]
    second = np.array([[[[0, 1], [0, 1]]]], float)  # (1, 1, 2, 2)
    # mixed with the identity: [[.75, .25], [.5, .5]], then [[.5, .5], [0, 1]]
    assert np.allclose(lens.attention_rollout([first, second]), [[[0.625, 0.375], [0.5, 0.5]]], atol=1e-15)
    assert np.array_equal(lens.attention_rollout([first, second], residual=0), [[[1, 0], [1, 0]]])
    assert np.array_equal(lens.attention_rollout([first, second], residual=1), [np.eye(2)])


def test_rollout_renormalises_each_row():
    dropped = np.array([[[[0, 0], [2, 1]]]], float)  # as dropout leaves it: mixed it is [[.5, 0], [1, 1]]
    assert np.allclose(lens.attention_rollout([dropped]), [[[1, 0], [0.5, 0.5]]], atol=1e-15)


def test_rollout_of_a_model(model, pixels):
    attentions = model.eval()(pixels, output_attentions=True).attentions
    rollout = lens.attention_rollout(attentions)
    assert rollout.shape == (4, 7, 7) and rollout.dtype == np.float32
    assert np.allclose(rollout.sum(-1), 1, atol=1e-6) and not np.allclose(rollout.sum(-2), 1, atol=1e-2)


@pytest.mark.parametrize("shapes", [[], [(2, 3, 4, 5)], [(3, 4, 4)], [(2, 3, 4, 4), (2, 3, 5, 5)], [(4, 4)]])
def test_rollout_refuses(shapes):
    with pytest.raises(ShapeError, match="attention_rollout: attentions have the shapes"):
        lens.attention_rollout([np.ones(shape) for shape in shapes])
    with pytest.raises(ShapeError, match=r"hint: model\(pixel_values, output_attentions=True\)"):
        lens.attention_rollout(None)  # the model's .attentions without it
    with pytest.raises(MinivitError, match="residual=2"):
        lens.attention_rollout([np.ones((1, 1, 2, 2))], residual=2)


def test_distance_by_hand():
    N = 6  # 2 x 3: patches 0 1 2 above 3 4 5
    itself, corner, even = np.eye(N), np.zeros((N, N)), np.full((N, N), 1 / N)
    corner[:, 0] = 1
    attention = np.stack([itself, corner, even])[None]  # (1, 3, N, N)
    to_corner = (0 + 1 + 2 + 1 + 2**0.5 + 5**0.5) / 6
    every_pair = 2 * (4 * 1 + 2 * 2 + 3 * 1 + 4 * 2**0.5 + 2 * 5**0.5) / 36
    assert np.allclose(lens.attention_distance(attention, (2, 3)), [0, to_corner, every_pair])
    corner[:] = np.eye(N)[2]  # the end of the first row; in a grid of 3 x 2 the start of the second
    attention = corner[None, None]  # (1, 1, N, N)
    assert np.allclose(lens.attention_distance(attention, (2, 3)), to_corner)
    assert np.allclose(lens.attention_distance(attention, (3, 2)), (1 + 2**0.5 + 0 + 1 + 1 + 2**0.5) / 6)


def test_distance_leaves_cls_out(rng):
    patches = rng.random((2, 3, 6, 6))
    with_cls = rng.random((2, 3, 7, 7))
    with_cls[:, :, 1:, 1:] = patches
    expected = lens.attention_distance(patches / patches.sum(-1, keepdims=True), (2, 3))
    assert expected.shape == (3,)
    assert np.allclose(lens.attention_distance(Tensor(with_cls), (2, 3)), expected)


@pytest.mark.parametrize("shape", [(3, 6, 6), (1, 3, 5, 5), (1, 3, 7, 6)])
def test_distance_refuses(shape):
    with pytest.raises(ShapeError, match=r"attention_distance.*\n  rule: .*2 \* 3 = 6, or 7 with CLS"):
        lens.attention_distance(np.ones(shape), (2, 3))


def test_logit_lens(model, pixels):
    output = model.eval()(pixels, output_hidden_states=True)
    by_layer = lens.logit_lens(model, output.hidden_states)
    assert by_layer.shape == (3, 4, 5)
    assert np.allclose(by_layer[-1], output.logits.data, atol=1e-6)
    assert np.ptp(by_layer[0], axis=0).max() == 0  # CLS has seen no picture yet
    assert np.ptp(by_layer[1], axis=0).max() > 0.01
    x = output.hidden_states[1].data[:, 0]
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + model.config.layer_norm_eps)
    assert np.allclose(by_layer[1], x @ model.classifier.weight.data.T, atol=1e-5)


def test_occlusion(model, pixels, monkeypatch):
    monkeypatch.setattr(lens, "BATCH", 4)  # 7 pictures in two parts
    fall = lens.occlusion(model, pixels[1], label=3, grey=0.5)
    assert fall.shape == (2, 3)
    hidden = pixels[1:2].copy()
    hidden[:, :, 4:8, 2:4] = 0.5  # row 1, column 1
    model.eval()
    assert np.isclose(fall[1, 1], (model(pixels[1:2]).logits.data - model(hidden).logits.data)[0, 3], atol=1e-5)
    assert abs(fall[1, 1]) > 1e-3
    grey = np.zeros((1, 2, 8, 6), np.float32)
    assert np.allclose(lens.occlusion(model, grey, label=0), 0, atol=1e-6)


def test_occlusion_refuses(model, pixels):
    with pytest.raises(ShapeError, match="occlusion: pixel_values have the shape"):
        lens.occlusion(model, pixels, label=0)
    with pytest.raises(MinivitError, match=r"there is no class 5\.\n  rule: .* 0 to 4"):
        lens.occlusion(model, pixels[0], label=5)


def test_head_importance(model, pixels):
    labels = np.array([0, 4, 1, 1])
    d = 4
    model.vit.encoder.layer[1].attention.output.dense.weight.data[:, d : 2 * d] = 0  # nobody hears head 1 of layer 1
    rise = lens.head_importance(model, pixels, labels)
    assert rise.shape == (2, 3)
    assert rise[1, 1] == 0 and np.count_nonzero(abs(rise) > 1e-4) == 5
    before = model.eval()(pixels, labels).loss.item()
    model.vit.encoder.layer[0].attention.prune_heads([2])  # cut for good: the same as silenced
    assert np.isclose(model(pixels, labels).loss.item() - before, rise[0, 2], atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_stays_and_dropout_is_off(model, pixels, training):
    model.train(training)
    calls = (
        lambda: lens.occlusion(model, pixels[0], 0),
        lambda: lens.head_importance(model, pixels, np.zeros(4, int)),
        lambda: lens.logit_lens(model, [np.ones((1, 7, 12), np.float32)] * 3),
    )
    for call in calls:
        assert np.array_equal(call(), call())
        assert model.training is training
