"""The Vision Transformer: transformers' numbers, finite differences, pruning, folders and what it refuses."""

import json
import re
import shutil
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from minivit import Tensor, gradcheck, nn, no_grad, ops, weights
from minivit.errors import FileError, MinivitError, ShapeError
from minivit.vit import (
    ImageClassifierOutput,
    PatchEmbeddings,
    ViTAttention,
    ViTConfig,
    ViTEmbeddings,
    ViTEncoder,
    ViTForImageClassification,
    ViTIntermediate,
    ViTLayer,
    ViTModel,
    ViTModelOutput,
    ViTOutput,
    ViTPooler,
    ViTSelfAttention,
    ViTSelfOutput,
    interpolate_positions,
)

GOLDEN = Path(__file__).parent / "golden" / "hf_tiny"
REFERENCE = dict(np.load(GOLDEN / "reference.npz"))
EXTRA = dict(np.load(GOLDEN / "extra.npz"))
PARAMETERS = [name.removeprefix("grad.") for name in REFERENCE if name.startswith("grad.") and "pixel" not in name]
PIXELS, LABELS = REFERENCE["pixel_values"], REFERENCE["labels"]


def small(**fields):
    """A config of odd, unequal sizes: 2 x 3 patches of 3 x 2 pixels, T = 7."""
    sizes = {
        "hidden_size": 6,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 5,
        "image_size": (6, 6),
        "patch_size": (3, 2),
        "num_channels": 2,
        "num_labels": 4,
    }
    return ViTConfig(**sizes | fields)


def lively(model, dtype=np.float64, seed=1):
    """The model in evaluation mode with large random parameters: at the small first ones attention is nearly even."""
    rng = np.random.default_rng(seed)
    for name, parameter in model.to(dtype).named_parameters():
        parameter.data = (0.6 * rng.standard_normal(parameter.shape) + ("norm" in name)).astype(dtype)
    return model.eval()


def pixels(*shape, seed=2, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.fixture(scope="module")
def golden():
    """The golden classifier in float64. Tests leave it as it is."""
    return ViTForImageClassification.from_pretrained(GOLDEN).to(np.float64)


@pytest.fixture
def folder(tmp_path):
    """A copy of the golden folder that a test may change."""
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(GOLDEN / name, tmp_path / name)
    return tmp_path


def same_state(a, b):
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(x.dtype == b[name].dtype and np.array_equal(x, b[name]) for name, x in a.items())


# ---- golden values


def close(found, expected):
    """To 1e-6 of each number, and of what is below a millionth of the largest, to 1e-12 of that."""
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12 * abs(expected).max())


@pytest.mark.parametrize("output_attentions", [False, True], ids=["fused", "composed"])
def test_golden_forward(golden, output_attentions):
    output = golden(PIXELS, labels=LABELS, output_hidden_states=True, output_attentions=output_attentions)
    assert output.logits.dtype == np.float64
    close(output.logits.data, REFERENCE["logits"])
    close(output.loss.item(), REFERENCE["loss"])
    assert len(output.hidden_states) == 3
    for i, hidden_state in enumerate(output.hidden_states):
        close(hidden_state.data, REFERENCE[f"hidden_states.{i}"])
    close(golden.vit(PIXELS, None, output_attentions).last_hidden_state.data, REFERENCE["last_hidden_state"])


def test_golden_attentions(golden):
    attentions = golden(PIXELS, output_attentions=True).attentions
    assert len(attentions) == 2
    for i, attention in enumerate(attentions):
        close(attention.data, REFERENCE[f"attentions.{i}"])


@pytest.mark.parametrize("output_attentions", [False, True], ids=["fused", "composed"])
def test_golden_gradients(golden, output_attentions):
    golden.zero_grad()
    x = Tensor(PIXELS.astype(np.float64), requires_grad=True)
    golden(x, labels=LABELS, output_attentions=output_attentions).loss.backward()
    parameters = dict(golden.named_parameters())
    assert set(parameters) == set(PARAMETERS)
    # a key's bias adds the same number to all scores of a query, so its gradient is 0 but for rounding
    largest = {name: abs(REFERENCE[f"grad.{name.replace('key.bias', 'query.bias')}"]).max() for name in PARAMETERS}
    for name, parameter in parameters.items():
        expected = REFERENCE[f"grad.{name}"]
        np.testing.assert_allclose(parameter.grad, expected, rtol=1e-6, atol=1e-10 * largest[name], err_msg=name)
    close(x.grad, REFERENCE["grad.pixel_values"])


def test_golden_float32():
    model = ViTForImageClassification.from_pretrained(GOLDEN)
    output = model(PIXELS.astype(np.float32), labels=LABELS, output_attentions=True, output_hidden_states=True)
    for tensor in (output.logits, output.loss, *output.hidden_states, *output.attentions):
        assert tensor.dtype == np.float32
    np.testing.assert_allclose(output.logits.data, REFERENCE["logits"], atol=1e-5, rtol=0)
    fused = model(PIXELS, labels=LABELS)
    assert fused.logits.dtype == fused.loss.dtype == np.float32
    np.testing.assert_allclose(fused.logits.data, REFERENCE["logits"], atol=1e-5, rtol=0)
    fused.loss.backward()
    assert all(parameter.grad.dtype == np.float32 for parameter in model.parameters())


def test_golden_interpolation(golden):
    logits = golden(REFERENCE["interpolated.pixel_values"], interpolate_pos_encoding=True).logits
    close(logits.data, REFERENCE["interpolated.logits"])
    for size in ("8x8", "4x36", "28x16"):
        close(golden(EXTRA[f"pixel_values.{size}"], interpolate_pos_encoding=True).logits.data, EXTRA[f"logits.{size}"])
    for x in (PIXELS, PIXELS.tolist()):
        close(golden(x, interpolate_pos_encoding=True).logits.data, REFERENCE["logits"])
    model = ViTForImageClassification.from_pretrained(GOLDEN)
    logits = model(REFERENCE["interpolated.pixel_values"], interpolate_pos_encoding=True).logits
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits.data, REFERENCE["interpolated.logits"], atol=1e-5, rtol=0)


def test_golden_pooler(golden):
    model = ViTModel(golden.config).to(np.float64)
    pooler = {name: x for name, x in EXTRA.items() if name.startswith("pooler.")}
    model.load_state_dict(golden.vit.state_dict() | pooler)
    output = model(PIXELS)
    close(output.pooler_output.data, EXTRA["pooler_output"])
    close(output.last_hidden_state.data, REFERENCE["last_hidden_state"])


# ---- names and sizes


def test_the_names_are_those_of_the_hub():
    tensors = safetensors.numpy.load_file(GOLDEN / "model.safetensors")
    with nn.meta():
        model = ViTForImageClassification(ViTConfig.from_json_file(GOLDEN / "config.json"))
    assert {name: p.shape for name, p in model.named_parameters()} == {name: x.shape for name, x in tensors.items()}


def test_order_and_names_of_the_parameters():
    names = [name for name, _ in ViTModel(small(num_hidden_layers=1)).named_parameters()]
    parts = [
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
        "layernorm_before",
        "layernorm_after",
    ]
    assert names == [
        "embeddings.cls_token",
        "embeddings.position_embeddings",
        "embeddings.patch_embeddings.projection.weight",
        "embeddings.patch_embeddings.projection.bias",
        *(f"encoder.layer.0.{part}.{kind}" for part in parts for kind in ("weight", "bias")),
        "layernorm.weight",
        "layernorm.bias",
        "pooler.dense.weight",
        "pooler.dense.bias",
    ]
    assert not any("bias" in n for n, _ in ViTSelfAttention(small(qkv_bias=False)).named_parameters())


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("tiny", 5_717_416),
        ("small", 22_050_664),
        ("base", 86_567_656),
        ("large", 304_326_632),
        ("huge", 632_045_800),
    ],
)
def test_parameter_counts(size, count):
    tracemalloc.start()
    with nn.meta():
        model = ViTForImageClassification(getattr(ViTConfig, size)(num_labels=1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert model.num_parameters() == count
    assert peak < 2_000_000


def test_shapes_of_the_notes():
    x = pixels(2, 3, 224, 224, dtype=np.float32)
    with no_grad():
        embeddings = PatchEmbeddings()
        assert embeddings.num_patches == 196
        assert embeddings(x).shape == (2, 196, 768)
        assert ViTEmbeddings(ViTConfig())(x).shape == (2, 197, 768)


def test_shapes_of_every_part():
    config = small()
    x = pixels(5, 7, 6, dtype=np.float32)
    assert ViTEmbeddings(config)(pixels(5, 2, 6, 6)).shape == (5, 7, 6)
    for part in (ViTSelfAttention, ViTAttention, ViTLayer):
        (y,) = part(config)(x)
        assert y.shape == (5, 7, 6)
        y, probabilities = part(config)(x, output_attentions=True)
        assert y.shape == (5, 7, 6) and probabilities.shape == (5, 3, 7, 7)
    assert ViTSelfOutput(config)(x, x).shape == (5, 7, 6)
    assert ViTIntermediate(config)(x).shape == (5, 7, 5)
    assert ViTOutput(config)(pixels(5, 7, 5, dtype=np.float32), x).shape == (5, 7, 6)
    assert ViTEncoder(config)(x).last_hidden_state.shape == (5, 7, 6)
    assert ViTPooler(config)(x).shape == (5, 6)
    assert ViTPooler(small(pooler_output_size=11))(x).shape == (5, 11)
    assert ViTModel(config)(pixels(5, 2, 6, 6)).last_hidden_state.shape == (5, 7, 6)
    assert ViTForImageClassification(config)(pixels(5, 2, 6, 6)).logits.shape == (5, 4)


def test_each_part_computes_its_formula():
    config = small(num_hidden_layers=1, hidden_act="relu", pooler_act="relu")
    x = Tensor(pixels(2, 7, 6))
    layer = lively(ViTLayer(config))
    (attended,) = layer.attention(layer.layernorm_before(x))
    middle = attended.data + x.data
    hidden = layer.intermediate(layer.layernorm_after(middle))
    np.testing.assert_allclose(layer(x)[0].data, layer.output.dense(hidden).data + middle, rtol=1e-12)
    np.testing.assert_array_equal(hidden.data, np.maximum(hidden.data, 0))
    pooler = lively(ViTPooler(config))
    expected = np.maximum(x.data[:, 0] @ pooler.dense.weight.data.T + pooler.dense.bias.data, 0)
    np.testing.assert_allclose(pooler(x).data, expected, rtol=1e-12)


def test_patches_run_along_the_rows():
    embeddings = lively(PatchEmbeddings((6, 6), (3, 2), 2, 5))
    x = pixels(2, 2, 6, 6)
    assert embeddings.num_patches == 6
    y = embeddings(x)
    assert y.shape == (2, 6, 5)
    weight, bias = embeddings.projection.weight.data, embeddings.projection.bias.data
    for n, (row, column) in enumerate((row, column) for row in range(2) for column in range(3)):
        patch = x[1, :, 3 * row : 3 * row + 3, 2 * column : 2 * column + 2]
        np.testing.assert_allclose(y.data[1, n], (weight * patch).sum((1, 2, 3)) + bias, rtol=1e-12)


def test_images_and_patches_need_not_be_square():
    model = ViTForImageClassification(small(image_size=(9, 4), patch_size=(3, 2)))
    assert model.vit.embeddings.patch_embeddings.grid == (3, 2)
    assert model(pixels(2, 2, 9, 4)).logits.shape == (2, 4)
    with pytest.raises(ShapeError, match=re.escape("Input image size (4*9) doesn't match model (9*4)")):
        model(pixels(2, 2, 4, 9))
    larger = model(pixels(2, 2, 12, 10), interpolate_pos_encoding=True, output_hidden_states=True)
    assert larger.hidden_states[0].shape == (2, 1 + 4 * 5, 6)


def test_interpolation_mixes_rows_with_rows_and_columns_with_columns():
    rows, columns = np.indices((4, 5))
    grid = np.stack([rows**2, columns + 3, np.full((4, 5), 2.5)], -1)  # (rows, columns, D)
    positions = Tensor(np.concatenate([[[7.0, 8.0, 9.0]], grid.reshape(20, 3)])[None])
    new = interpolate_positions(positions, (4, 5), (12, 7)).data
    assert new.shape == (1, 1 + 12 * 7, 3)
    assert new[0, 0].tolist() == [7.0, 8.0, 9.0]
    new = new[0, 1:].reshape(12, 7, 3)
    assert np.ptp(new[..., 0], axis=1).max() < 1e-12 and (np.diff(new[..., 0], axis=0) > 0).any()
    assert np.ptp(new[..., 1], axis=0).max() < 1e-12 and (np.diff(new[..., 1], axis=1) > 0).all()
    np.testing.assert_allclose(new[..., 2], 2.5, rtol=1e-12)
    np.testing.assert_allclose(new[:, 3, 1], 5, rtol=1e-12)  # the middle stays in the middle
    same = interpolate_positions(positions, (4, 5), (4, 5)).data
    np.testing.assert_allclose(same, positions.data, rtol=1e-12, atol=1e-12)


# ---- gradients


def test_every_parameter_and_pixel_agrees_with_finite_differences():
    model = lively(ViTForImageClassification(small()))
    x, labels = pixels(2, 2, 6, 6), np.array([3, 0])
    gradcheck(lambda x, *_: model(x, labels=labels).loss, x, *model.parameters(), rtol=1e-6)


def test_pooler_and_interpolation_agree_with_finite_differences():
    model = lively(ViTModel(small(num_hidden_layers=1)))

    def outputs(x, *_):
        return ops.concatenate(
            [model(x, interpolate_pos_encoding=True).pooler_output, model(x[:, :, :6, :6]).pooler_output], axis=0
        )

    parameters = [model.embeddings.position_embeddings, *model.pooler.parameters()]
    gradcheck(outputs, pixels(1, 2, 9, 8), *parameters, rtol=1e-6)


@pytest.mark.parametrize("output_attentions", [False, True], ids=["fused", "composed"])
def test_a_larger_model_agrees_along_random_directions(output_attentions):
    config = small(hidden_size=36, num_hidden_layers=3, num_attention_heads=4, intermediate_size=37, image_size=(15, 8))
    model = lively(ViTForImageClassification(config))

    def loss(*_):
        return model(x, labels=[1, 3, 2], output_attentions=output_attentions).loss

    x = Tensor(pixels(3, 2, 15, 8), requires_grad=True)
    gradcheck(loss, x, *model.parameters(), directions=3, rtol=1e-6)


def test_gradients_flow_from_every_output():
    model = lively(ViTForImageClassification(small()))
    x = pixels(2, 2, 6, 6)

    def outputs(x, *_):
        output = model(x, output_attentions=True, output_hidden_states=True)
        every = [output.logits, *output.hidden_states, *output.attentions]
        return ops.concatenate([tensor.reshape(-1) for tensor in every])

    gradcheck(outputs, x, *model.parameters(), directions=2, rtol=1e-6)


@pytest.mark.parametrize("field", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_gradcheck_refuses_a_model_that_drops(field):
    model = lively(ViTForImageClassification(small(**{field: 0.3})))
    x = pixels(2, 2, 6, 6)
    assert gradcheck(lambda *_: model(x).logits, *model.parameters(), directions=1)
    model.train()
    with pytest.raises(MinivitError, match=r"fn gave another output for the same input\.\n.*\n.*model\.eval\(\)"):
        gradcheck(lambda *_: model(x).logits, *model.parameters(), directions=1)


# ---- the parts, called as transformers calls them


def states(i):
    return Tensor(REFERENCE[f"hidden_states.{i}"])


def test_a_layer_gives_a_tuple(golden):
    for i, layer in enumerate(golden.vit.encoder.layer):
        layer_outputs = layer(states(i), None, False)
        assert isinstance(layer_outputs, tuple) and len(layer_outputs) == 1
        close(layer_outputs[0].data, REFERENCE[f"hidden_states.{i + 1}"])
        hidden_states, attentions = layer(states(i), head_mask=None, output_attentions=True)
        close(hidden_states.data, REFERENCE[f"hidden_states.{i + 1}"])
        close(attentions.data, REFERENCE[f"attentions.{i}"])


def test_attention_gives_a_tuple(golden):
    layer = golden.vit.encoder.layer[0]
    normed = layer.layernorm_before(states(0))
    for part in (layer.attention, layer.attention.attention):
        outputs = part(normed)
        assert isinstance(outputs, tuple) and len(outputs) == 1
        context, attention_probs = part(normed, None, True)
        close(attention_probs.data, REFERENCE["attentions.0"])
        np.testing.assert_allclose(context.data, outputs[0].data, rtol=1e-12)
    (context,) = layer.attention.attention(normed)
    np.testing.assert_array_equal(layer.attention(normed)[0].data, layer.attention.output(context, states(0)).data)


def test_one_residual_is_added_in_the_layer_and_one_in_the_output():
    config = small()
    x, hidden, residual = (Tensor(pixels(2, 7, width, seed=i)) for i, width in enumerate((6, 5, 6)))
    self_output, output = lively(ViTSelfOutput(config)), lively(ViTOutput(config))
    np.testing.assert_array_equal(self_output(x, input_tensor=residual).data, self_output.dense(x).data)
    np.testing.assert_array_equal(output(hidden, residual).data, output.dense(hidden).data + residual.data)


def test_a_head_mask_of_the_parts_broadcasts_against_the_probabilities():
    layer = lively(ViTLayer(small()))
    x, mask = Tensor(pixels(2, 7, 6)), np.array([1.0, 0.0, 0.5]).reshape(1, 3, 1, 1)
    _, full = layer(x, None, True)
    for part in (layer.attention, layer.attention.attention):
        _, masked = part(layer.layernorm_before(x), mask, True)
        np.testing.assert_allclose(masked.data, full.data * mask, rtol=1e-12)
    np.testing.assert_allclose(layer(x, mask)[0].data, layer(x, mask, True)[0].data, rtol=1e-12)


def test_the_sizes_and_functions_of_the_parts_have_their_names():
    attention = ViTSelfAttention(small())
    sizes = attention.num_attention_heads, attention.attention_head_size, attention.all_head_size
    assert sizes == (3, 2, 6)
    assert attention.transpose_for_scores(Tensor(pixels(2, 7, 6))).shape == (2, 3, 7, 2)
    assert ViTIntermediate(small(hidden_act="relu")).intermediate_act_fn is ops.relu
    assert ViTPooler(small()).activation is ops.tanh


def test_positions_of_another_size():
    embeddings = lively(ViTEmbeddings(small()))
    x = pixels(2, 2, 12, 8)
    tokens = embeddings(x, interpolate_pos_encoding=True)
    positions = embeddings.interpolate_pos_encoding(tokens, 12, 8)
    assert positions.shape == (1, 1 + 4 * 4, 6)
    patches = embeddings.patch_embeddings(x, interpolate_pos_encoding=True)
    np.testing.assert_allclose(tokens.data[:, 1:] - positions.data[:, 1:], patches.data, atol=1e-12)
    assert embeddings.interpolate_pos_encoding(tokens, 6, 6) is embeddings.position_embeddings


@pytest.mark.parametrize("switch", [True, False])
def test_return_dict_false_gives_the_tuple_of_what_is_not_none(golden, switch):
    kwargs = {"output_attentions": switch, "output_hidden_states": switch, "return_dict": False}
    outputs = golden(PIXELS, labels=LABELS, **kwargs)
    assert type(outputs) is tuple and len(outputs) == (4 if switch else 2)
    close(outputs[0].item(), REFERENCE["loss"])
    close(outputs[1].data, REFERENCE["logits"])
    (logits, *rest) = golden(PIXELS, **kwargs)
    close(logits.data, REFERENCE["logits"])
    (last, *rest) = golden.vit(PIXELS, **kwargs)
    close(last.data, REFERENCE["last_hidden_state"])
    (before_norm, *states_and_attentions) = golden.vit.encoder(states(0), **kwargs)
    close(before_norm.data, REFERENCE["hidden_states.2"])
    for found in (rest, states_and_attentions):
        assert [len(x) for x in found] == ([3, 2] if switch else [])
    body = ViTModel(small())(pixels(2, 2, 6, 6), return_dict=False)
    assert [x.shape for x in body] == [(2, 7, 6), (2, 6)]


# ---- outputs


def test_an_output_unpacks_and_indexes(golden):
    loss, logits = golden(PIXELS, labels=LABELS)
    close(loss.item(), REFERENCE["loss"])
    close(logits.data, REFERENCE["logits"])
    output = golden(PIXELS, labels=LABELS)
    assert output["loss"] is output[0] is output.loss and output["logits"] is output[1] is output[-1] is output.logits
    assert output[:2] == output.to_tuple() == tuple(output) == (output.loss, output.logits)
    assert len(output) == 2 and output.keys() == ["loss", "logits"] and dict(output) == dict(output.items())
    assert "loss" in output and "attentions" not in output
    (logits,) = golden(PIXELS)
    close(logits.data, REFERENCE["logits"])
    output = golden(PIXELS, output_attentions=True)
    assert output[0] is output.logits and output[1] is output.attentions and "loss" not in output
    body = golden.vit(PIXELS, output_hidden_states=True)
    assert body.keys() == ["last_hidden_state", "hidden_states"] and body[1] is body.hidden_states


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("loss", r'loss is None\.\n  rule: it holds "logits" \[0\]\.\n  hint: model\(x, labels=labels\)'),
        ("attentions", r"attentions is None\.(.|\n)*output_attentions=True"),
        ("hidden_states", r"hidden_states is None\.(.|\n)*output_hidden_states=True"),
        ("logit", r"there is no entry 'logit'\."),
        ("keys", r"there is no entry 'keys'\."),
        (1, r"there is no entry 1\."),
        (-2, r"there is no entry -2\."),
    ],
)
def test_an_entry_that_is_not_there_is_explained(key, message):
    output = ViTForImageClassification(small())(pixels(1, 2, 6, 6))
    for kind in (KeyError, IndexError, MinivitError):
        with pytest.raises(kind, match=f"^ImageClassifierOutput: {message}"):
            output[key]


def test_a_model_without_a_pooler_says_so():
    with pytest.raises(KeyError, match=r"pooler_output is None\.(.|\n)*add_pooling_layer=True"):
        ViTModel(small(), add_pooling_layer=False)(pixels(1, 2, 6, 6))["pooler_output"]


def test_outputs_that_were_not_asked_for_are_none():
    model = ViTForImageClassification(small())
    output = model(pixels(2, 2, 6, 6))
    assert isinstance(output, ImageClassifierOutput)
    assert (output.loss, output.hidden_states, output.attentions) == (None, None, None)
    body = model.vit(pixels(2, 2, 6, 6))
    assert isinstance(body, ViTModelOutput)
    assert (body.pooler_output, body.hidden_states, body.attentions) == (None, None, None)


def test_hidden_states_and_attentions():
    model = lively(ViTModel(small(num_hidden_layers=3)))
    x = pixels(2, 2, 6, 6)
    output = model(x, output_hidden_states=True, output_attentions=True)
    assert [state.shape for state in output.hidden_states] == [(2, 7, 6)] * 4
    assert [attention.shape for attention in output.attentions] == [(2, 3, 7, 7)] * 3
    for attention in output.attentions:
        np.testing.assert_allclose(attention.data.sum(-1), 1, rtol=1e-12)
        assert (attention.data > 0).all() and np.ptp(attention.data) > 0.1
    np.testing.assert_array_equal(output.hidden_states[0].data, model.embeddings(x).data)
    last = model.layernorm(output.hidden_states[-1])
    np.testing.assert_array_equal(output.last_hidden_state.data, last.data)
    np.testing.assert_allclose(model(x).last_hidden_state.data, last.data, rtol=1e-10)


def test_no_layers_and_one_head():
    model = ViTModel(small(num_hidden_layers=0))
    output = model(pixels(2, 2, 6, 6), output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == 1 and output.attentions == ()
    assert ViTModel(small(num_attention_heads=1))(pixels(1, 2, 6, 6)).last_hidden_state.shape == (1, 7, 6)


def test_labels_may_be_lists_arrays_and_tensors():
    model = ViTForImageClassification(small())
    x = pixels(3, 2, 6, 6)
    losses = [
        model(x, labels=labels).loss.item()
        for labels in ([3, 0, 2], (3, 0, 2), np.array([3, 0, 2], np.uint8), Tensor([3, 0, 2]))
    ]
    assert len(set(losses)) == 1
    assert losses[0] == ops.cross_entropy(model(x).logits, np.array([3, 0, 2])).item()


# ---- chance


def test_the_seed_decides():
    config = small(num_hidden_layers=1)
    for make in (ViTForImageClassification, ViTModel):
        assert same_state(make(config, rng=3), make(config, rng=np.random.default_rng(3)))
        assert not same_state(make(config, rng=3), make(config, rng=4))
    rng = np.random.default_rng(3)
    assert not same_state(ViTModel(config, rng=rng), ViTModel(config, rng=rng))
    for part in (ViTEmbeddings, ViTSelfAttention, ViTSelfOutput, ViTIntermediate, ViTOutput, ViTLayer, ViTPooler):
        assert same_state(part(config, rng=3), part(config, rng=np.random.default_rng(3)))
        assert not same_state(part(config, rng=3), part(config, rng=4))


def test_first_values():
    config = ViTConfig.tiny(num_hidden_layers=2, initializer_range=0.05, image_size=64)
    model = ViTForImageClassification(config, rng=0)
    state = model.state_dict()
    for name, array in state.items():
        if "layernorm" in name:
            assert (array == (name.endswith("weight"))).all(), name
        elif name.endswith("bias"):
            assert not array.any(), name
        else:
            assert abs(array.std() / 0.05 - 1) < (0.2 if array.size < 1000 else 0.05), name
            assert abs(array.mean()) < 0.02, name
    matrices = [array.ravel()[:50].tobytes() for name, array in state.items() if array.any() and array.std() > 0]
    assert len(set(matrices)) == len(matrices) == 2 * 6 + 4  # no two drawn from the same numbers


def test_dropout_of_hidden_states_comes_after_embeddings_attention_and_mlp():
    model = lively(ViTModel(small(hidden_dropout_prob=1.0)))
    x = pixels(2, 2, 6, 6)
    assert all(state.data.all() for state in model(x, output_hidden_states=True).hidden_states)
    output = model.train()(x, output_hidden_states=True)
    assert not any(state.data.any() for state in output.hidden_states)
    for dropout in (model.embeddings.dropout, model.encoder.layer[1].output.dropout):
        dropout.p = 0.0
        assert model(x).last_hidden_state.data.std() > 0.1
        dropout.p = 1.0
    model.encoder.layer[1].attention.output.dropout.p = 0.0
    assert model(x, output_hidden_states=True).hidden_states[2].data.any()


@pytest.mark.parametrize("output_attentions", [False, True], ids=["fused", "composed"])
def test_dropout_of_attention(output_attentions):
    model = lively(ViTModel(small(attention_probs_dropout_prob=1.0)))
    x = pixels(2, 2, 6, 6)
    silent = model(x, head_mask=np.zeros(3)).last_hidden_state.data
    assert abs(model(x, None, output_attentions).last_hidden_state.data - silent).max() > 0.01
    np.testing.assert_allclose(model.train()(x, None, output_attentions).last_hidden_state.data, silent, rtol=1e-12)


@pytest.mark.parametrize("field", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
@pytest.mark.parametrize("output_attentions", [False, True], ids=["fused", "composed"])
def test_dropout_is_off_in_evaluation_and_follows_the_seed(field, output_attentions):
    x = pixels(2, 2, 6, 6, dtype=np.float32)
    model, same = (ViTForImageClassification(small(**{field: 0.4}), rng=5) for _ in range(2))

    def logits(model):
        return model(x, output_attentions=output_attentions).logits.data

    first, second = logits(model), logits(model)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, logits(same)) and np.array_equal(second, logits(same))
    assert np.array_equal(logits(model.eval()), logits(model))
    without = ViTForImageClassification(small())
    without.load_state_dict(model.state_dict())
    assert np.array_equal(logits(model), logits(without))


def test_dropout_of_embeddings_follows_the_seed():
    x = pixels(2, 2, 6, 6, dtype=np.float32)
    first, same, other = (ViTEmbeddings(small(hidden_dropout_prob=0.5), rng=seed)(x).data == 0 for seed in (5, 5, 6))
    assert np.array_equal(first, same) and not np.array_equal(first, other)


# ---- head masks and pruning


def test_head_mask_multiplies_the_probabilities():
    model = lively(ViTForImageClassification(small()))
    x = pixels(2, 2, 6, 6)
    full = model(x, output_attentions=True)
    mask = np.array([[1, 0, 0.5], [0, 1, 1]])
    masked = model(x, head_mask=mask, output_attentions=True)
    np.testing.assert_allclose(masked.attentions[0].data, full.attentions[0].data * mask[0][:, None, None], rtol=1e-12)
    assert not masked.attentions[1].data[:, 0].any() and masked.attentions[1].data[:, 1:].all()
    assert abs(masked.logits.data - full.logits.data).max() > 1e-3
    np.testing.assert_allclose(model(x, head_mask=mask).logits.data, masked.logits.data, rtol=1e-12)
    np.testing.assert_allclose(model(x, head_mask=np.ones(3)).logits.data, full.logits.data, rtol=1e-12)
    one_row = model(x, head_mask=[1, 0, 1]).logits.data
    np.testing.assert_array_equal(one_row, model(x, head_mask=[[1, 0, 1], [1, 0, 1]]).logits.data)
    np.testing.assert_array_equal(one_row, model(x, head_mask=Tensor([True, False, True])).logits.data)


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_the_gradient_of_a_head_mask(shape):
    model = lively(ViTForImageClassification(small()))
    x = pixels(2, 2, 6, 6)
    gradcheck(lambda mask: model(x, labels=[1, 2], head_mask=mask).loss, pixels(*shape, seed=4), rtol=1e-6)
    mask = Tensor(np.ones(shape), requires_grad=True)
    model(x, labels=[1, 2], head_mask=mask).loss.backward()
    assert mask.grad.shape == shape and mask.grad.all()


def test_float32_stays_float32_under_any_mask():
    model = ViTForImageClassification(small())
    x = pixels(2, 2, 6, 6)
    for mask in ([1, 0, 1], np.ones(3), Tensor(np.ones((2, 3))), Tensor([1, 0, 1])):
        assert model(x, head_mask=mask).logits.dtype == np.float32
    with pytest.raises(ShapeError, match=r"head_mask is float64\.\n  rule: it has the weights' float32\."):
        model(x, head_mask=Tensor(np.ones(3), requires_grad=True))


@pytest.mark.parametrize(
    "mask", [1.0, [1, 0], np.ones((3, 3)), np.ones((2, 4)), np.ones((1, 2, 3)), [], np.ones((2, 1))], ids=repr
)
def test_masks_of_the_wrong_shape_are_refused(mask):
    with pytest.raises(ShapeError, match=r"head_mask has shape .*\n  rule: \(h,\) or \(L, h\), for L = 2 .* h = 3"):
        ViTForImageClassification(small())(pixels(2, 2, 6, 6), head_mask=mask)


@pytest.mark.parametrize("mask", [["a", "b", "c"], [[1], [1, 2]], [None, 1, 1]], ids=repr)
def test_masks_of_no_numbers_are_refused(mask):
    with pytest.raises(ShapeError, match="Tensor: "):
        ViTModel(small())(pixels(2, 2, 6, 6), head_mask=mask)


@pytest.mark.parametrize(
    "pruned", [{0: [1]}, {0: [2, 0], 1: [1]}, {1: [0, 1, 2]}, {0: [0, 1, 2], 1: [2, 1, 0]}], ids=str
)
@pytest.mark.parametrize("output_attentions", [False, True], ids=["fused", "composed"])
def test_pruning_equals_masking(pruned, output_attentions):
    model = lively(ViTForImageClassification(small()))
    x = pixels(2, 2, 6, 6)
    mask = np.ones((2, 3))
    for layer, heads in pruned.items():
        mask[layer, heads] = 0
    masked = model(x, labels=[1, 2], head_mask=mask, output_attentions=True)
    masked.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    before = model.num_parameters()
    model.zero_grad()
    model.prune_heads(pruned)
    output = model(x, labels=[1, 2], output_attentions=output_attentions)
    np.testing.assert_allclose(output.logits.data, masked.logits.data, rtol=1e-12, atol=1e-12)
    for layer in range(2 if output_attentions else 0):
        kept = [head for head in range(3) if mask[layer, head]]
        np.testing.assert_allclose(
            output.attentions[layer].data, masked.attentions[layer].data[:, kept], rtol=1e-12, atol=1e-12
        )
    output.loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and parameter.shape == gradients[name].shape:
            np.testing.assert_allclose(parameter.grad, gradients[name], rtol=1e-9, atol=1e-12, err_msg=name)
    d, D = 2, 6
    assert before - model.num_parameters() == (mask == 0).sum() * d * (4 * D + 3)


def test_pruning_twice_keeps_the_first_numbers():
    twice, once = (lively(ViTForImageClassification(small(num_attention_heads=6))) for _ in range(2))
    twice.prune_heads({0: [1, 4]})
    twice.prune_heads({0: [4, 2], 1: (5,)})
    once.prune_heads({0: {1, 2, 4}, 1: np.array([5])})
    assert same_state(twice, once)
    attention = twice.vit.encoder.layer[0].attention
    assert attention.pruned_heads == {1, 2, 4}
    assert attention.attention.num_attention_heads == 3 and attention.attention.all_head_size == 3
    assert twice.config.pruned_heads == {0: [1, 2, 4], 1: [5]}
    before = twice.state_dict()
    twice.prune_heads({0: [1], 1: []})
    assert all(np.array_equal(x, before[name]) for name, x in twice.state_dict().items())


def test_a_pruned_model_is_saved_and_read(tmp_path):
    model = lively(ViTForImageClassification(small()), np.float32)
    model.prune_heads({0: [0, 2], 1: [0, 1, 2]})
    model.save_pretrained(tmp_path)
    again = ViTForImageClassification.from_pretrained(tmp_path)  # whole matrices, with zeros for the pruned heads
    assert again.config.pruned_heads == {} == json.loads((tmp_path / "config.json").read_text())["pruned_heads"]
    x = pixels(2, 2, 6, 6)
    np.testing.assert_allclose(again(x).logits.data, model(x).logits.data, rtol=0, atol=1e-6)
    attention = again.vit.encoder.layer[0].attention
    for layer in (attention.attention.query, attention.attention.key, attention.attention.value):
        assert (layer.weight.data.any(1) == [False, False, True, True, False, False]).all()  # 3 heads of 2 rows
        assert (layer.bias.data != 0).tolist() == [False, False, True, True, False, False]
    assert (attention.output.dense.weight.data.any(0) == [False, False, True, True, False, False]).all()
    again.prune_heads(model.config.pruned_heads)
    assert same_state(model, again)


def test_a_folder_of_pruned_matrices_is_read_as_transformers_4_wrote_it(tmp_path):
    model = lively(ViTForImageClassification(small()), np.float32)
    model.prune_heads({0: [0, 2], 1: [0, 1, 2]})
    weights.write_folder(tmp_path, model.fields(), model.state_dict())
    again = ViTForImageClassification.from_pretrained(tmp_path)
    assert same_state(model, again) and again.config.pruned_heads == {0: [0, 2], 1: [0, 1, 2]}
    assert ViTModel.from_pretrained(tmp_path).encoder.layer[0].attention.pruned_heads == {0, 2}


def test_pruning_one_model_leaves_others_of_its_config_alone(tmp_path):
    config = small()
    pruned, whole = ViTForImageClassification(config), ViTForImageClassification(config)
    pruned.vit.prune_heads({1: [0]})
    assert pruned.config.pruned_heads == {1: [0]} == pruned.vit.config.pruned_heads
    assert config == small()
    whole.save_pretrained(tmp_path)
    assert same_state(ViTForImageClassification.from_pretrained(tmp_path), whole)
    copy = ViTForImageClassification(pruned.config)
    copy.load_state_dict(pruned.state_dict())


@pytest.mark.parametrize(
    ("pruned", "message"),
    [
        ({0: [1], 2: [0]}, r"there is no layer 2\.\n  rule: layers are numbered 0 to 1\."),
        ({0: [1], -1: [0]}, r"there is no layer -1\."),
        ({0: [1], "x": [0]}, r"there is no layer 'x'\."),
        ({0: [1], 1: [3]}, r"there is no head 3\.\n  rule: a list of heads, which are numbered 0 to 2\."),
        ({0: [1], 1: [-1]}, r"there is no head -1\."),
        ({0: [1], 1: ["0"]}, r"there is no head '0'\."),
        ({0: [1], 1: 2}, r"heads=2 is not a list\."),
    ],
    ids=str,
)
def test_heads_that_are_not_there_are_refused_before_any_is_cut(pruned, message):
    model = ViTForImageClassification(small())
    before = model.state_dict()
    with pytest.raises(MinivitError, match=f"^prune_heads: {message}"):
        model.prune_heads(pruned)
    assert [x.shape for x in model.state_dict().values()] == [x.shape for x in before.values()]
    assert model.config.pruned_heads == {}


def test_pruned_heads_of_a_config_are_checked():
    with pytest.raises(MinivitError, match="there is no layer 2"):
        ViTModel(small(pruned_heads={2: [0]}))
    assert ViTModel(small(pruned_heads={"1": [2]})).encoder.layer[1].attention.pruned_heads == {2}


# ---- folders


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, dtype):
    config = small(id2label=dict(enumerate("one two three four".split())), extra=[1, {"a": None}])
    model = lively(ViTForImageClassification(config), dtype)
    model.save_pretrained(tmp_path / "new" / "folder")
    again = ViTForImageClassification.from_pretrained(tmp_path / "new" / "folder")
    assert same_state(again, model.to(np.float32))
    assert not again.training
    fields = again.config.to_dict()
    assert fields.pop("architectures") == ["ViTForImageClassification"]
    assert fields.pop("dtype") == np.dtype(dtype).name
    assert fields == config.to_dict()
    x = pixels(2, 2, 6, 6)
    assert np.array_equal(again(x).logits.data, model(x).logits.data)
    assert all(parameter.data.flags.writeable for parameter in again.parameters())


def test_the_hub_folder_is_written_as_it_was_read(tmp_path):
    ViTForImageClassification.from_pretrained(str(GOLDEN)).save_pretrained(str(tmp_path))
    before, after = (safetensors.numpy.load_file(f / "model.safetensors") for f in (GOLDEN, tmp_path))
    assert before.keys() == after.keys()
    assert all(after[name].dtype == x.dtype and np.array_equal(after[name], x) for name, x in before.items())
    before, after = (json.loads((f / "config.json").read_text(encoding="utf-8")) for f in (GOLDEN, tmp_path))
    assert before.items() <= after.items()


def test_both_spellings_are_read(folder):
    new = {
        "encoder.layer.": "layers.",
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    tensors = {}
    for name, array in safetensors.numpy.load_file(folder / "model.safetensors").items():
        for hub, transformers5 in new.items():
            name = name.replace(hub, transformers5)
        tensors[name] = array
    assert "vit.layers.1.mlp.fc2.bias" in tensors and "vit.layers.0.attention.o_proj.weight" in tensors
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    for cls in (ViTForImageClassification, ViTModel):
        assert same_state(cls.from_pretrained(folder), cls.from_pretrained(GOLDEN))


def test_the_body_of_a_classifier(golden):
    model = ViTModel.from_pretrained(GOLDEN)
    assert model.pooler is None and not model.training
    assert not any("pooler" in name or "classifier" in name for name in model.state_dict())
    close(model.to(np.float64)(PIXELS).last_hidden_state.data, REFERENCE["last_hidden_state"])


@pytest.mark.parametrize("add_pooling_layer", [True, False])
def test_a_body_comes_back_with_the_pooler_that_it_had(tmp_path, add_pooling_layer):
    model = lively(ViTModel(small(pooler_output_size=11), add_pooling_layer), np.float32)
    model.save_pretrained(tmp_path)
    again = ViTModel.from_pretrained(tmp_path)
    assert same_state(again, model)
    assert (again.pooler is None) != add_pooling_layer
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["architectures"] == ["ViTModel"]


def test_a_classifier_on_a_saved_body(tmp_path):
    body = lively(ViTModel(small()), np.float32)
    body.save_pretrained(tmp_path)
    with pytest.warns(
        UserWarning, match=r"^a new head was drawn \(classifier.weight, classifier.bias\): train it"
    ) as warned:
        model, info = ViTForImageClassification.from_pretrained(
            tmp_path, num_labels=3, initializer_range=0.5, rng=9, output_loading_info=True
        )
    assert info == {
        "missing_keys": ["classifier.bias", "classifier.weight"],
        "unexpected_keys": ["pooler.dense.bias", "pooler.dense.weight"],
        "mismatched_keys": [],
        "error_msgs": [],
    }
    assert warned[0].filename == __file__
    assert model.classifier.weight.shape == (3, 6)
    assert 0.3 < model.classifier.weight.data.std() < 0.7 and not model.classifier.bias.data.any()
    assert all(np.array_equal(x, body.state_dict()[name]) for name, x in model.vit.state_dict().items())
    with pytest.warns(UserWarning):
        other = ViTForImageClassification.from_pretrained(tmp_path, num_labels=3, rng=8)
    assert not np.array_equal(other.classifier.weight.data, model.classifier.weight.data)


def test_another_number_of_classes():
    with pytest.raises(ShapeError) as raised:
        ViTForImageClassification.from_pretrained(GOLDEN, num_labels=7)
    assert "0 missing, 0 unexpected, 2 mismatched" in str(raised.value)
    assert "classifier.weight: expected (7, 24), found (5, 24)" in str(raised.value)
    assert str(raised.value).endswith("; in Python, ignore_mismatched_sizes=True draws a new head.")
    with pytest.warns(UserWarning, match="a new head was drawn"):
        model, info = ViTForImageClassification.from_pretrained(
            GOLDEN, ignore_mismatched_sizes=True, num_labels=7, output_loading_info=True
        )
    assert info["mismatched_keys"] == [("classifier.bias", (5,), (7,)), ("classifier.weight", (5, 24), (7, 24))]
    assert model.config.id2label[6] == "LABEL_6"
    assert model(PIXELS, labels=[6, 0, 5]).logits.shape == (3, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = ViTForImageClassification.from_pretrained(GOLDEN, ignore_mismatched_sizes=True, num_labels=5)
    assert same_state(same, ViTForImageClassification.from_pretrained(GOLDEN))


def test_fields_may_be_set_anew():
    model = ViTForImageClassification.from_pretrained(GOLDEN, hidden_dropout_prob=0.5, layer_norm_eps=1e-6)
    assert model.config.hidden_dropout_prob == 0.5
    assert model.vit.embeddings.dropout.p == 0.5 and model.vit.layernorm.eps == 1e-6


def test_another_image_size_interpolates_the_positions(rng):
    """At the new size the model gives what the old one gives with interpolate_pos_encoding."""
    x = rng.standard_normal((2, 3, 20, 12), dtype=np.float32)
    before = ViTForImageClassification.from_pretrained(GOLDEN)
    after = ViTForImageClassification.from_pretrained(GOLDEN, image_size=(20, 12))
    assert after.vit.embeddings.position_embeddings.shape == (1, 16, 24)
    np.testing.assert_allclose(
        after(x).logits.data, before(x, interpolate_pos_encoding=True).logits.data, rtol=1e-5, atol=1e-6
    )


def test_one_report_lists_all_that_does_not_fit(folder):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors["vit.layernorm.weight"] = np.ones(25, np.float32)
    tensors["vit.embeddings.register_token"] = np.ones((1, 1, 24), np.float32)
    del tensors["vit.encoder.layer.1.output.dense.bias"]
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    for ignore in (False, True):
        with pytest.raises(ShapeError) as raised:
            ViTForImageClassification.from_pretrained(folder, ignore_mismatched_sizes=ignore)
        message = str(raised.value)
        assert "ViTForImageClassification: the weights do not fit the model: 1 missing, 1 unexpected, 1 mis" in message
        assert "missing: vit.encoder.layer.1.output.dense.bias" in message
        assert "unexpected: vit.embeddings.register_token" in message
        assert "mismatched: vit.layernorm.weight: expected (24,), found (25,)" in message


def test_damaged_folders_are_refused(folder, tmp_path):
    data = (folder / "model.safetensors").read_bytes()
    for damaged in (data[:-100], data[:50], b"", (2**60).to_bytes(8, "little") + data[8:], b"\xff" * 3000):
        (folder / "model.safetensors").write_bytes(damaged)
        for cls in (ViTForImageClassification, ViTModel):
            with pytest.raises(FileError, match=r"model\.safetensors"):
                cls.from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(data)
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(FileError, match=r"config\.json: cannot be read as JSON"):
        ViTModel.from_pretrained(folder)
    with pytest.raises(FileError, match="there is no such folder"):
        ViTModel.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("field", [{"hidden_size": 25}, {"num_hidden_layers": 10**9}, {"image_size": "12"}], ids=str)
def test_a_config_that_cannot_be_is_refused_before_the_model_is_built(folder, field):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | field
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(MinivitError, match=f"ViTConfig: {next(iter(field))}="):
        ViTModel.from_pretrained(folder)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("here", encoding="utf-8")
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(FileError, match="a file is in the way of this folder"):
            ViTModel(small()).save_pretrained(path)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "here"


# ---- what is refused


@pytest.mark.parametrize("image_size", [(6, 7), (5, 6), 2, 0])
def test_patches_that_do_not_divide_are_refused_at_construction(image_size):
    for make in (
        lambda: PatchEmbeddings(image_size, (3, 2)),
        lambda: small(image_size=image_size),
    ):
        with pytest.raises(MinivitError, match=r"image_size(=0| % patch_size == 0, but \d % \d = \d)"):
            make()
    with pytest.raises(ShapeError, match=r"^PatchEmbeddings: an image height of 224 pixels"):
        PatchEmbeddings(224, 15)


@pytest.mark.parametrize("value", [0, -3, 2.0, "3", None, True])
def test_sizes_of_patch_embeddings_are_whole_numbers(value):
    for name in ("image_size", "patch_size", "num_channels", "embed_dim"):
        with pytest.raises(MinivitError, match=f"^PatchEmbeddings: {name}={value!r}"):
            PatchEmbeddings(**{name: value})


def test_a_config_that_was_changed_is_refused_by_the_attention():
    config = small()
    config.num_attention_heads = 4
    with pytest.raises(ShapeError) as raised:
        ViTSelfAttention(config)
    assert str(raised.value) == (
        "ViTSelfAttention: hidden_size=6 cannot be split over num_attention_heads=4.\n"
        "  rule: hidden_size % num_attention_heads == 0, but 6 % 4 = 2\n"
        "  hint: use hidden_size 4 or 8, or 1, 2, 3 or 6 heads."
    )
    config.hidden_size, config.num_attention_heads = 10, 3
    with pytest.raises(ShapeError, match=r"or 12, or 1, 2, 5 or 10 heads\.$"):
        ViTSelfAttention(config)
    config.num_attention_heads = 0
    with pytest.raises(MinivitError, match="ViTSelfAttention: num_attention_heads=0"):
        ViTSelfAttention(config)


X = pixels(2, 2, 6, 6)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[0], r"pixel_values have shape \(2, 6, 6\)\.\n  rule: .*\n  hint: images.pixel_values\(photo\)\[None\]"),
        (X[None], r"pixel_values have shape \(1, 2, 2, 6, 6\)\."),
        (1.5, r"pixel_values have shape \(\)\."),
        (X[:0], r"pixel_values have shape \(0, 2, 6, 6\)\.\n  rule: .* a batch of one image or more"),
        (X.transpose(0, 2, 3, 1), r"have 6 channels, the model 2\.\n.*\n  hint: x\.transpose\(0, 3, 1, 2\)"),
        (X[:, :1], r"have 1 channels, the model 2\."),
        (X[:, :, :3], r"Input image size \(3\*6\) doesn't match model \(6\*6\)\.\n.*\n.*interpolate_pos_encoding=True"),
        (pixels(2, 2, 8, 6), r"Input image size \(8\*6\) doesn't match model \(6\*6\)\."),
        (X.astype(np.uint8), r"pixel_values are uint8, the weights float32\.\n.*\n  hint: images\.pixel_values"),
        (X > 0, r"pixel_values are bool, the weights float32\."),
        (Tensor(X), r"pixel_values are float64, the weights float32\."),
        (Tensor(X.astype(int)), r"pixel_values are int64, the weights float32\."),
        (X.astype(complex), r"cannot hold data of dtype complex128"),
        (X.astype(str), r"cannot hold data of dtype <U"),
        (X.astype(object), r"cannot hold data of dtype object"),
        ("cat.jpg", r"cannot hold data of dtype <U"),
        (None, r"cannot hold data of dtype object"),
        ([[1.0], [2.0, 3.0]], r"these numbers do not form an array"),
        (np.where(X > 2, np.nan, X), r"pixel_values hold NaN or infinity"),
        (np.where(X > 2, np.inf, X), r"pixel_values hold NaN or infinity"),
        (X * 1e300, r"pixel_values hold NaN or infinity"),
        (Tensor(np.full((1, 2, 6, 6), np.nan, np.float32)), r"pixel_values hold NaN or infinity"),
    ],
)
def test_pixels_that_cannot_be_are_refused(x, message):
    model = ViTForImageClassification(small())
    with pytest.raises(ShapeError, match=f"^(PatchEmbeddings|Tensor): .*{message}"):
        model(x)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [(0, 0, 0, 0), (1, 1, 5, 5), (1, 0, 2, 3)])
@pytest.mark.parametrize("training", [True, False])
def test_one_pixel_that_is_not_finite_is_found_in_every_mode(value, where, training):
    model, x = ViTForImageClassification(small()).train(training), X.astype(np.float32)
    x[where] = value
    x[where[0], 1 - where[1], where[2], where[3]] = -value  # in the same patch: they may cancel to NaN
    for call in (lambda: model(x), lambda: model(Tensor(x)), lambda: model.vit.embeddings.patch_embeddings(x)):
        with pytest.raises(ShapeError, match=r"^PatchEmbeddings: pixel_values hold NaN or infinity"):
            call()
        with no_grad(), pytest.raises(ShapeError, match="NaN or infinity"):
            call()


def test_pixels_are_not_scanned_one_by_one_as_long_as_all_is_well(monkeypatch):
    looked_at, isfinite = [], np.isfinite
    monkeypatch.setattr(np, "isfinite", lambda x: looked_at.append(np.size(x)) or isfinite(x))
    ViTForImageClassification(small())(X)
    assert looked_at == [2 * 6]  # one number for each patch of both images


def test_interpolation_passes_over_pixels_that_fill_no_patch(rng):
    """As transformers does: the convolution does not read them, and no position belongs to them."""
    model = ViTModel(small()).eval()
    x = rng.standard_normal((1, 2, 7, 9), dtype=np.float32)
    larger, cut = (model(y, interpolate_pos_encoding=True).last_hidden_state for y in (x, x[:, :, :6, :8]))
    np.testing.assert_array_equal(larger, cut)


@pytest.mark.parametrize(("height", "width"), [(0, 6), (2, 6), (6, 1)])
def test_interpolation_needs_one_whole_patch(height, width):
    with pytest.raises(ShapeError, match=r"^conv2d: kernel .* on an image of"):
        ViTModel(small())(pixels(1, 2, height, width), interpolate_pos_encoding=True)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 4], r"labels\[1\] = 4 is no class.*\n  rule: 0 <= label < K, and the logits have K = 4 classes"),
        ([-1, 0], r"labels\[0\] = -1 is no class"),
        ([1], r"logits \(2, 4\) and labels \(1,\) do not fit"),
        ([[1, 0]], r"logits \(2, 4\) and labels \(1, 2\) do not fit"),
        (1, r"logits \(2, 4\) and labels \(\) do not fit"),
        ([1.0, 0.0], r"labels are float64"),
        (np.eye(4)[:2], r"labels \(2, 4\) do not fit"),
        ([True, False], r"labels are bool"),
        (["cat", "dog"], r"labels are <U3"),
        ([1, None], r"labels are object"),
        ([1, [0]], r"inhomogeneous"),
    ],
    ids=str,
)
def test_labels_that_cannot_be_are_refused(labels, message):
    model = ViTForImageClassification(small())
    with pytest.raises(ShapeError, match=f"^cross_entropy: .*{message}"):
        model(X, labels=labels)


def test_repr_is_a_tree_in_ascii():
    text = repr(ViTForImageClassification(small()))
    assert text.isascii()
    assert "  (vit): ViTModel(\n    (embeddings): ViTEmbeddings(\n      (patch_embeddings): PatchEmbeddings(\n" in text
    assert "(projection): Conv2d(2, 6, kernel_size=(3, 2), stride=(3, 2))" in text
    assert "(layer): ModuleList(\n        (0): ViTLayer(\n          (attention): ViTAttention(\n" in text
    assert "(query): Linear(in_features=6, out_features=6, bias=True)" in text
    assert text.endswith("  (classifier): Linear(in_features=6, out_features=4, bias=True)\n)")


@pytest.mark.parametrize("fields", [{"num_labels": 1}, {"problem_type": "multi_label_classification"}])
def test_class_numbers_are_no_labels_of_scores(fields):
    with pytest.raises(MinivitError, match=r"labels are int64[\s\S]*num_labels=1, labels are floats"):
        ViTForImageClassification(small(**fields))(pixels(1, 2, 6, 6), labels=[0])


def test_the_loss_is_that_of_the_problem_type():
    """By hand: the mean squared error, and -t log p - (1 - t) log (1 - p) with p = sigmoid(logit)."""
    x = pixels(2, 2, 6, 6)
    model = ViTForImageClassification(small(num_labels=1)).eval()
    logits = model(x).logits.data[:, 0]
    for labels in ([0.5, -3.0], [[0.5], [-3.0]]):
        assert model(x, labels=labels).loss.item() == pytest.approx(np.mean((logits - [0.5, -3.0]) ** 2), rel=1e-6)
    t = np.array([[1.0, 0.0, 0.25], [1.0, 1.0, 0.0]])
    model = ViTForImageClassification(small(num_labels=3, problem_type="multi_label_classification")).eval()
    p = 1 / (1 + np.exp(-model(x).logits.data))
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    assert model(x, labels=t).loss.item() == pytest.approx(expected, rel=1e-6)
    model = ViTForImageClassification(small(num_labels=3, problem_type="regression")).eval()
    assert model(x, labels=t).loss.item() == pytest.approx(((model(x).logits.data - t) ** 2).mean(), rel=1e-6)


def test_from_pretrained_takes_no_option_that_it_does_not_know():
    for option in ({"device_map": "auto"}, {"num_label": 7}, {"add_pooling_layer": False}):
        with pytest.raises(MinivitError, match=f"from_pretrained: unknown options: {next(iter(option))}"):
            ViTForImageClassification.from_pretrained(GOLDEN, **option)
    with pytest.raises(MinivitError, match=r"config is a dict\.\n  rule: it is a ViTConfig"):
        ViTModel.from_pretrained(GOLDEN, config={})
    with pytest.raises(MinivitError, match=r"revision='main'\.\n  rule: .*a folder has none"):
        ViTModel.from_pretrained(GOLDEN, revision="main")


@pytest.mark.parametrize(
    "labels",
    [
        {"id2label": {"0": "cat", "1": "dog", "2": "cow", "3": "hen", "4": "pig"}, "label2id": {"LABEL_0": 0}},
        {"id2label": {"0": "cat", "1": "dog", "2": "cow", "3": "hen", "4": "pig"}},
        {"id2label": None, "num_labels": 5, "label2id": {"cat": 0, "dog": 1}},
        {"id2label": {str(i): i * i for i in range(5)}},
        {"id2label": {str(i + 1): "abcde"[i] for i in range(5)}},
    ],
    ids=str,
)
def test_a_folder_loads_whatever_transformers_left_of_its_labels(labels, tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "tiny")
    fields = json.loads((GOLDEN / "config.json").read_text())
    fields = {key: value for key, value in fields.items() if "label" not in key} | labels
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(fields))
    model = ViTForImageClassification.from_pretrained(tmp_path / "tiny")
    assert model.config.num_labels == 5 and len(model.config.class_names) == 5
    names = ViTForImageClassification.from_pretrained(tmp_path / "tiny", id2label=dict(enumerate("vwxyz"))).config
    assert names.label2id == {"v": 0, "w": 1, "x": 2, "y": 3, "z": 4}
    model.config.id2label = dict(enumerate("fghij"))
    model.save_pretrained(tmp_path / "again")
    assert ViTForImageClassification.from_pretrained(tmp_path / "again").config.class_names == list("fghij")


def test_from_pretrained_takes_the_dtype_that_is_asked_for(tmp_path):
    for option in (np.float64, "float64", np.dtype(np.float64), "torch.float64"):
        for name in ("dtype", "torch_dtype"):
            model = ViTModel.from_pretrained(GOLDEN, **{name: option})
            assert {p.dtype for p in model.parameters()} == {np.dtype(np.float64)} and not model.training
    for option in (np.float32, "float32", "auto", None):
        assert ViTModel.from_pretrained(GOLDEN, dtype=option).dtype == np.float32
    third = np.float64(1) / 3
    model = ViTModel(small()).to(np.float64)
    model.embeddings.cls_token.data[:] = third
    model.save_pretrained(tmp_path)
    assert (ViTModel.from_pretrained(tmp_path, dtype="auto").embeddings.cls_token.data == third).all()
    assert ViTModel.from_pretrained(tmp_path).dtype == np.float32
    for option in ("float16", np.float16, "bfloat16", "double", 7):
        with pytest.raises(MinivitError, match=r"dtype=.*\n  rule: minivit computes in float32 and float64"):
            ViTModel.from_pretrained(GOLDEN, dtype=option)


def test_a_config_may_be_given_in_place_of_the_files():
    config = ViTConfig.from_json_file(GOLDEN / "config.json")
    config.id2label = dict(enumerate("abcde"))
    config.image_size = (20, 12)
    model = ViTForImageClassification.from_pretrained(GOLDEN, config=config, hidden_dropout_prob=0.5)
    assert model.config.label2id["e"] == 4 and model.config.hidden_dropout_prob == 0.5
    other = ViTForImageClassification.from_pretrained(GOLDEN, image_size=(20, 12))
    assert same_state(model, other)


def test_a_word_of_pruned_heads_beside_whole_matrices_is_passed_over(tmp_path):
    """transformers 5 keeps pruned_heads in config.json and prunes nothing."""
    whole = ViTModel(small())
    whole.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text()) | {"pruned_heads": {"0": [1]}}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert same_state(ViTModel.from_pretrained(tmp_path), whole)


def test_from_pretrained_with_and_without_the_parts_that_serve_one_task(tmp_path):
    whole = ViTModel(small(), use_mask_token=True)
    whole.save_pretrained(tmp_path)
    plain = ViTModel.from_pretrained(tmp_path, add_pooling_layer=False)
    assert plain.pooler is None and plain.embeddings.mask_token is None
    assert same_state(ViTModel.from_pretrained(tmp_path, use_mask_token=True), whole)


def test_the_config_may_ask_for_hidden_states_and_attentions():
    model = ViTForImageClassification(small(output_hidden_states=True, output_attentions=True))
    output = model(pixels(1, 2, 6, 6))
    assert len(output.hidden_states) == 3 and len(output.attentions) == 2
    output = ViTForImageClassification.from_pretrained(GOLDEN, output_attentions=True)(PIXELS.astype(np.float32))
    assert output.attentions is not None and output.hidden_states is None


def test_a_config_is_a_config():
    for wrong in ({"hidden_size": 6}, "tiny"):
        with pytest.raises(MinivitError, match=r"config is a (dict|str)\.\n  rule: it is a ViTConfig"):
            ViTForImageClassification(wrong)


def test_tokens_of_no_batch_are_refused():
    with pytest.raises(ShapeError, match=r"hidden_states have the shape \(3, 6\)(?s:.*)hidden_states\[None\]"):
        ViTLayer(small())(Tensor(np.ones((3, 6), np.float32)))


def test_heads_to_prune_are_a_dict():
    with pytest.raises(MinivitError, match=r"prune_heads: \[0\]\.\n  rule: \{layer: \[heads\]\}"):
        ViTModel(small()).prune_heads([0])


def test_a_model_that_its_config_does_not_describe_is_not_saved(tmp_path):
    model = ViTForImageClassification(small())
    model.classifier = nn.Linear(6, 9)
    with pytest.raises(ShapeError, match=r"classifier\.weight is \(9, 6\), and the config describes \(4, 6\)"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_other_channels_get_the_hint_that_helps():
    for shape, hint in (((1, 1, 6, 6), "ViTConfig\\(num_channels=1"), ((1, 6, 6, 2), "transpose\\(0, 3, 1, 2\\)")):
        with pytest.raises(ShapeError, match=f"channels, the model 2(?s:.*)hint: .*{hint}"):
            ViTModel(small())(np.zeros(shape, np.float32))


def test_pruning_forgets_the_gradients_of_the_old_shape():
    attention = ViTAttention(small())
    attention(Tensor(np.ones((1, 3, 6), np.float32)))[0].sum().backward()
    attention.prune_heads([0])
    assert all(p.grad is None or p.grad.shape == p.shape for p in attention.parameters())
