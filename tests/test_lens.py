"""What a model looks at: small cases by hand, and models whose answer is known."""

import numpy as np
import pytest

from minivit import Tensor, lens, no_grad, ops, vit, weights
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


VARIANTS = {
    "as it is": {},
    "no bias of q, k, v": {"qkv_bias": False, "hidden_act": "relu"},
    "pruned": {"pruned_heads": {0: [1], 1: [0, 2]}, "hidden_act": "gelu_new"},
    "no head left": {"pruned_heads": {0: [0, 1, 2]}, "layer_norm_eps": 0.1},
}


def altered(model, dtype=np.float64, **changes):
    """A model as the fixture's, with some fields of its config changed, and biases and norms that are not 0 and 1."""
    other = vit.ViTForImageClassification(vit.ViTConfig.from_dict(model.config.to_dict() | changes)).train()
    rng = np.random.default_rng(5)
    for parameter in other.parameters():
        parameter.data = parameter.data + 0.1 * rng.standard_normal(parameter.shape)
    return other.to(dtype)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("size", [(8, 6), (12, 4)])
def test_trace_is_what_the_model_computes(model, rng, changes, size):
    model = altered(model, **changes)
    pixels = rng.standard_normal((3, 2, *size))
    stages = lens.trace(model, pixels)
    assert model.training
    with no_grad():
        output = model.eval()(pixels, output_attentions=True, output_hidden_states=True, interpolate_pos_encoding=True)
        body = model.vit(pixels, interpolate_pos_encoding=True)
    own = {"embeddings.output": output.hidden_states[0], "logits": output.logits}
    own["last_hidden_state"] = body.last_hidden_state
    own |= {f"layer.{i}.output": states for i, states in enumerate(output.hidden_states[1:])}
    own |= {f"layer.{i}.probabilities": attention for i, attention in enumerate(output.attentions)}
    for name, expected in own.items():
        np.testing.assert_allclose(stages[name].value, expected.data, rtol=1e-11, atol=1e-11, err_msg=name)
        assert stages[name].gradient is None
    assert next(iter(stages)) == "pixel_values" and list(stages)[-1] == "logits"
    assert "pooler_output" not in stages and len(stages) == 5 + 14 * 2 + 2


def test_the_stages_between_by_hand(model, pixels):
    stages = {name: stage.value for name, stage in lens.trace(model, pixels).items()}
    parameters = {name: parameter.data for name, parameter in model.named_parameters()}
    within = {
        name.removeprefix("layer.1."): value.astype(np.float64)
        for name, value in stages.items()
        if name.startswith("layer.1.")
    }

    def dense(name, x):
        weight, bias = (parameters[f"vit.encoder.layer.1.{name}.{part}"] for part in ("weight", "bias"))
        return x @ weight.T + bias

    def normed(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + model.config.layer_norm_eps)

    expected = {"layernorm_before": normed(stages["layer.0.output"])}
    for name in ("query", "key", "value"):
        whole = dense(f"attention.attention.{name}", within["layernorm_before"])  # (B, T, D)
        expected[name] = np.stack(np.split(whole, 3, axis=-1), axis=1)  # (B, h, T, d)
    expected["scores"] = within["query"] @ within["key"].transpose(0, 1, 3, 2) / 2  # sqrt(d) = 2
    powers = np.exp(within["scores"])
    expected["probabilities"] = powers / powers.sum(-1, keepdims=True)
    expected["context"] = within["probabilities"] @ within["value"]
    expected["attention_output"] = dense(
        "attention.output.dense", np.concatenate(list(within["context"].swapaxes(0, 1)), -1)
    )
    expected["attention_sum"] = within["attention_output"] + stages["layer.0.output"]
    expected["layernorm_after"] = normed(within["attention_sum"])
    expected["mlp_pre_activation"] = dense("intermediate.dense", within["layernorm_after"])
    expected["mlp_activation"] = ops.gelu(within["mlp_pre_activation"]).data
    expected["mlp_output"] = dense("output.dense", within["mlp_activation"])
    expected["output"] = within["mlp_output"] + within["attention_sum"]
    assert list(expected) == list(within)
    for name, value in expected.items():
        np.testing.assert_allclose(within[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    tokens = np.concatenate([np.tile(stages["embeddings.cls"], (4, 1, 1)), stages["embeddings.patches"]], axis=1)
    np.testing.assert_allclose(tokens + stages["embeddings.positions"], stages["embeddings.output"], atol=1e-6)
    kernel = parameters["vit.embeddings.patch_embeddings.projection.weight"]  # its bias is 0
    patch = (pixels[2, :, 4:8, 2:4] * kernel).sum((1, 2, 3))  # row 1, column 1
    np.testing.assert_allclose(stages["embeddings.patches"][2, 4], patch, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_the_gradients_of_a_trace_are_those_of_the_model(model, pixels, changes):
    model, labels = altered(model, **changes), np.array([0, 4, 1, 1])
    stages = lens.trace(model, pixels, lambda stages: ops.cross_entropy(stages["logits"], labels))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    x = Tensor(pixels.astype(np.float64), requires_grad=True)
    output = model.eval()(x, labels, output_attentions=True, output_hidden_states=True)
    kept = {"embeddings.output": output.hidden_states[0], "layer.0.output": output.hidden_states[1]}
    kept |= {f"layer.{i}.probabilities": attention for i, attention in enumerate(output.attentions)}
    for tensor in [*kept.values(), output.logits]:
        tensor.retain_grad()
    output.loss.backward()
    own = {name: tensor.grad for name, tensor in kept.items()} | {"pixel_values": x.grad, "logits": output.logits.grad}
    own["embeddings.cls"] = model.vit.embeddings.cls_token.grad
    own["embeddings.positions"] = model.vit.embeddings.position_embeddings.grad
    for name, expected in own.items():
        np.testing.assert_allclose(stages[name].gradient, expected, rtol=1e-9, atol=1e-12, err_msg=name)
    for i, layer in enumerate(model.vit.encoder.layer):  # a bias is added to every token: its gradient is their sum
        attention = layer.attention.attention
        for name, module in {
            "layernorm_before": layer.layernorm_before,
            "query": attention.query,
            "key": attention.key,
            "value": attention.value,
            "attention_output": layer.attention.output.dense,
            "layernorm_after": layer.layernorm_after,
            "mlp_pre_activation": layer.intermediate.dense,
            "mlp_output": layer.output.dense,
        }.items():
            if module.bias is not None:
                gradient = stages[f"layer.{i}.{name}"].gradient  # (B, T, n) or (B, h, T, d)
                gradient = gradient.sum((0, -2)).reshape(-1)
                np.testing.assert_allclose(gradient, module.bias.grad, rtol=1e-9, atol=1e-12, err_msg=name)


def test_the_gradients_between_by_formula(model, pixels):
    model = altered(model)
    stages = lens.trace(model, pixels, gradient_of=3)
    at = {name.removeprefix("layer.1."): stage for name, stage in stages.items() if name.startswith("layer.1.")}
    p, dp = at["probabilities"]
    np.testing.assert_allclose(at["scores"].gradient, p * (dp - (dp * p).sum(-1, keepdims=True)), rtol=1e-9, atol=1e-15)
    dx = at["attention_output"].gradient @ model.vit.encoder.layer[1].attention.output.dense.weight.data  # (B, T, D)
    np.testing.assert_allclose(
        at["context"].gradient, np.stack(np.split(dx, 3, axis=-1), axis=1), rtol=1e-9, atol=1e-15
    )
    dx = at["mlp_output"].gradient @ model.vit.encoder.layer[1].output.dense.weight.data  # (B, T, F)
    np.testing.assert_allclose(at["mlp_activation"].gradient, dx, rtol=1e-9, atol=1e-15)
    np.testing.assert_array_equal(at["attention_sum"].gradient, at["attention_output"].gradient)
    np.testing.assert_array_equal(at["output"].gradient, at["mlp_output"].gradient)
    np.testing.assert_allclose(stages["logits"].gradient, np.eye(5)[[3] * 4])
    assert not stages["last_hidden_state"].gradient[:, 1:].any()  # the classifier reads CLS only
    kernel = model.vit.embeddings.patch_embeddings.projection.weight.data
    dx = np.tensordot(stages["embeddings.patches"].gradient[2, 4], kernel, 1)
    np.testing.assert_allclose(stages["pixel_values"].gradient[2, :, 4:8, 2:4], dx, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("size", [(8, 6), (12, 4)])
def test_the_gradient_of_any_number_by_finite_differences(model, rng, size):
    body = altered(model).vit
    body.pooler = vit.ViTPooler(body.config).to(np.float64)
    pixels = rng.standard_normal((2, 2, *size))

    def number(stages):
        return (stages["layer.0.context"][1, 2, 3] ** 2).sum() + stages["pooler_output"][0, 7]

    stages = lens.trace(body, pixels, gradient_of=number)
    assert not stages["layer.1.mlp_output"].gradient[1].any()  # the number does not depend on it
    for place in [(0, 1, 3, 2), (1, 0, 7, 3)]:
        moved = [pixels.copy() for _ in range(2)]
        moved[0][place] += 1e-6
        moved[1][place] -= 1e-6
        up, down = (
            (trace["layer.0.context"].value[1, 2, 3] ** 2).sum() + trace["pooler_output"].value[0, 7]
            for trace in (lens.trace(body, x) for x in moved)
        )
        assert abs(up - down) > 1e-9
        assert np.isclose(stages["pixel_values"].gradient[place], (up - down) / 2e-6, rtol=1e-6, atol=1e-9)


def test_a_trace_leaves_the_model_as_it_was(model, pixels):
    weight = model.vit.layernorm.weight
    weight.requires_grad = False  # frozen by the user
    model.classifier.bias.grad = np.ones(5, np.float32)
    model.vit.encoder.layer[0].eval()
    x = Tensor(pixels, requires_grad=True)
    with pytest.raises(ShapeError, match="index 5 is out of bounds"):
        lens.trace(model, x, gradient_of=5)
    stages = lens.trace(model, x, gradient_of=0)
    assert [p.requires_grad for p in model.parameters()] == [p is not weight for p in model.parameters()]
    assert np.array_equal(model.classifier.bias.grad, np.ones(5)) and model.classifier.weight.grad is None
    assert x.grad is None and stages["pixel_values"].gradient.any()
    assert model.training and not model.vit.encoder.layer[0].training
    assert all(stage.value.shape == stage.gradient.shape for stage in stages.values())
    assert {stage.gradient.dtype for stage in stages.values()} == {np.dtype(np.float32)}
    again = lens.trace(model, pixels.astype(np.float64), gradient_of=0)  # to the dtype of the weights
    assert all(np.array_equal(stages[name].gradient, again[name].gradient) for name in stages)


def test_trace_refuses(model, pixels):
    with pytest.raises(MinivitError, match=r"gradient_of=2 is a class, and ViTModel has no classifier\.\n  hint: "):
        lens.trace(model.vit, pixels, gradient_of=2)
    with pytest.raises(ShapeError, match="pixel_values are int64, the weights float32"):
        lens.trace(model, pixels.astype(np.int64))
    with pytest.raises(ShapeError, match="pixel_values have shape"):
        lens.trace(model, pixels[0])


def test_the_trained_eye_traced():
    eye = weights.dinov2_small()
    x = np.random.default_rng(0).standard_normal((1, 3, 42, 70)).astype(np.float32)
    stages = lens.trace(eye, x)
    with no_grad():
        output = eye(x, interpolate_pos_encoding=True, output_attentions=True)
    assert np.allclose(stages["last_hidden_state"].value, output.last_hidden_state.data, atol=1e-4)
    assert np.allclose(stages["layer.11.probabilities"].value, output.attentions[11].data, atol=1e-5)


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


def test_principal_components_are_the_eigenvectors_of_the_covariance(rng):
    tokens = (rng.standard_normal((50, 6)) * [1, 5, 2, 0.1, 3, 0.5] @ rng.standard_normal((6, 6)) + 7).astype(
        np.float32
    )
    coordinates, axes, mean, shares = lens.principal_components(tokens[None], n=4)
    centred = tokens.astype(np.float64) - tokens.astype(np.float64).mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    assert np.allclose(shares, (values / values.sum())[::-1][:4])
    for axis, vector in zip(axes, vectors.T[::-1], strict=False):
        assert axis[abs(axis).argmax()] > 0
        assert np.isclose(abs(axis @ vector), 1) and np.isclose(axis @ axis, 1)
    assert np.allclose(coordinates, centred @ axes.T) and np.allclose(mean, tokens.mean(0), atol=1e-5)
    order = rng.permutation(50)
    assert np.allclose(lens.principal_components(Tensor(tokens[order]), n=4).coordinates, coordinates[order])
    whole = lens.principal_components(tokens, n=6)
    assert np.allclose(whole.coordinates @ whole.axes + whole.mean, tokens, atol=1e-5)
    assert np.isclose(whole.shares.sum(), 1)


def test_principal_components_of_equal_tokens_are_zero():
    found = lens.principal_components(np.ones((4, 5)))
    assert not found.coordinates.any() and not found.shares.any()


@pytest.mark.parametrize(("shape", "n"), [((4, 5), 0), ((4, 5), 5), ((0, 5), 1), ((5,), 1), ((2, 4, 5), 1)])
def test_principal_components_refuses(shape, n):
    with pytest.raises(MinivitError, match=r"principal_components: (n=|tokens have the shape)"):
        lens.principal_components(np.ones(shape), n)


def test_similarity_by_hand():
    tokens = np.array([[3, 4], [1, 0], [-2, 0], [0, 1e-5], [0, 0]])
    assert np.allclose(lens.similarity(tokens, 1), [0.6, 1, -1, 0, 0])
    assert np.allclose(lens.similarity(Tensor(tokens[None]), 0), [1, 0.6, -0.6, 0.8, 0])
    assert np.allclose(lens.similarity(tokens, 0, among=np.array([[8, 6], [4, -3]])), [0.96, 0])


def test_similarity_refuses():
    for patch in (-1, 5):
        with pytest.raises(ShapeError, match=f"there is no patch {patch}.\n  rule: 1 to 4, or 0 for CLS"):
            lens.similarity(np.ones((5, 2)), patch)
    with pytest.raises(ShapeError, match="tokens have the shape"):
        lens.similarity(np.ones((2, 5, 2)), 1)


def test_position_similarity_by_hand(rng):
    positions = rng.standard_normal((1, 7, 4))
    alike = lens.position_similarity(positions, (2, 3))
    assert alike.shape == (2, 3, 2, 3)
    one, other = positions[0, 1 + 2], positions[0, 1 + 3]  # (0, 2) and (1, 0)
    assert np.isclose(alike[0, 2, 1, 0], one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    assert np.array_equal(alike, lens.position_similarity(positions[0, 1:], (2, 3)))


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


def test_occlusion_of_a_body_on_a_picture_of_another_size(model, rng):
    pixels = rng.standard_normal((1, 2, 12, 4)).astype(np.float32)  # 3 x 2 patches, where the model has 2 x 3
    falls = [
        lens.occlusion(model, pixels, 3),
        lens.occlusion(model.vit, pixels, lambda cls: model.classifier(cls)[:, 3]),  # (B,)
        lens.occlusion(model.vit, pixels, lambda cls: model.classifier(cls).data[:, 3]),
    ]
    hidden = pixels.copy()
    hidden[:, :, 8:12, 0:2] = 0  # row 2, column 0
    model.eval()
    whole, without = (model(x, interpolate_pos_encoding=True).logits.data[0, 3] for x in (pixels, hidden))
    for fall in falls:
        assert fall.shape == (3, 2) and np.isclose(fall[2, 0], whole - without, atol=1e-5)
        assert np.array_equal(fall, falls[0])
    assert abs(whole - without) > 1e-3


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


@pytest.mark.parametrize("size", [(8, 6), (12, 4)])
def test_knock_out_is_what_a_head_mask_gives(model, rng, size):
    pixels = rng.standard_normal((4, 2, *size)).astype(np.float32)
    answers = lens.knock_out(model, pixels)
    assert list(answers) == [None, *np.ndindex(2, 3)] and model.training
    model.eval()
    for head, (cls, logits, _) in answers.items():
        mask = np.ones((2, 3))
        if head is not None:
            mask[head] = 0
        with no_grad():
            expected = model(pixels, head_mask=mask, interpolate_pos_encoding=True).logits.data
            states = model.vit(pixels, head_mask=mask, interpolate_pos_encoding=True).last_hidden_state.data
        np.testing.assert_allclose(logits, expected, atol=1e-5)
        np.testing.assert_allclose(cls, states[:, 0], atol=1e-5)
    for head in np.ndindex(2, 3):
        assert abs(answers[head].logits - answers[None].logits).max() > 1e-3


def test_knock_out_of_some_heads_of_a_body(model, pixels, monkeypatch):
    calls, forward = [], vit.ViTLayer.forward
    monkeypatch.setattr(
        vit.ViTLayer, "forward", lambda self, *args, **kw: calls.append(self) or forward(self, *args, **kw)
    )
    answers = lens.knock_out(model.vit, Tensor(pixels), heads=[[1, 2], (np.int64(0), 1), (1, 0)])
    layers = list(model.vit.encoder.layer)
    assert list(answers) == [None, (1, 2), (0, 1), (1, 0)] and answers[1, 2].logits is None
    assert [layers.index(layer) for layer in calls] == [0, 1, 1, 0, 1, 1]  # what comes before a head is not done again
    for head, answer in lens.knock_out(model, pixels, heads=list(answers)[1:]).items():
        assert np.array_equal(answer.cls, answers[head].cls)


def test_knock_out_tells_what_cls_attends_to_from_there_on(model, pixels):
    answers = lens.knock_out(model, pixels, output_attentions=True)
    assert lens.knock_out(model, pixels)[0, 1].looks is None
    model.eval()
    for head, answer in answers.items():
        mask = np.ones((2, 3))
        if head is not None:
            mask[head] = 0
        with no_grad():
            attentions = model(pixels, head_mask=mask, output_attentions=True).attentions
        assert list(answer.looks) == list(range(0 if head is None else head[0], 2))
        for i, row in answer.looks.items():
            np.testing.assert_allclose(row, attentions[i].data[:, :, 0], atol=1e-6)  # (B, h, T)
        if head is not None:
            assert not answer.looks[head[0]][:, head[1]].any()
    assert abs(answers[0, 0].looks[1] - answers[None].looks[1]).max() > 1e-3


def test_knock_out_counts_the_heads_that_are_left(model, pixels):
    model.vit.encoder.layer[0].attention.prune_heads([0])
    answers = lens.knock_out(model, pixels)
    assert list(answers) == [None, (0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    model.vit.encoder.layer[0].attention.prune_heads([2])
    assert np.allclose(answers[0, 1].logits, model.eval()(pixels).logits.data, atol=1e-5)


@pytest.mark.parametrize("heads", [[(2, 0)], [(0, 3)], [(0, -1)], [1], [(0, 1, 2)]])
def test_knock_out_refuses(model, pixels, heads):
    with pytest.raises(MinivitError, match=r"there is no head \(.*\n  rule: .* layers 0 to 1 of 3 heads"):
        lens.knock_out(model, pixels, heads)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_stays_and_dropout_is_off(model, pixels, training):
    model.train(training)
    calls = (
        lambda: lens.occlusion(model, pixels[0], 0),
        lambda: lens.head_importance(model, pixels, np.zeros(4, int)),
        lambda: lens.logit_lens(model, [np.ones((1, 7, 12), np.float32)] * 3),
        lambda: lens.trace(model, pixels)["logits"].value,
        lambda: lens.knock_out(model, pixels, [(0, 0)])[0, 0].logits,
    )
    for call in calls:
        assert np.array_equal(call(), call())
        assert model.training is training
