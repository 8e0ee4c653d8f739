"""What others call a Vision Transformer: DINOv2, DeiT and timm's are read as the "vit" that they are, or refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from minivit.__main__ import main
from minivit.errors import FileError, ShapeError
from minivit.vit import ViTForImageClassification, ViTModel
from minivit.weights import read_folder

GOLDEN = Path(__file__).parent / "golden" / "spellings"
WITH_HEAD = ("deit", "timm_vit", "timm_deit", "timm_deit3")


@pytest.fixture(scope="module")
def reference():
    with np.load(GOLDEN / "reference.npz") as file:
        return dict(file)


@pytest.fixture
def changed(tmp_path):
    """A function: a copy of a golden folder with other fields in config.json, and other tensors (None: without)."""

    def copy(name, fields=(), tensors=()):
        shutil.copytree(GOLDEN / name, tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text()) | dict(fields)
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        arrays = safetensors.numpy.load_file(tmp_path / name / "model.safetensors") | dict(tensors)
        arrays = {key: array for key, array in arrays.items() if array is not None}
        safetensors.numpy.save_file(arrays, tmp_path / name / "model.safetensors")
        return tmp_path / name

    return copy


def close(a, b):
    np.testing.assert_allclose(a.data, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["dinov2", "timm_dinov2", *WITH_HEAD])
def test_tokens_and_logits_are_the_originals(name, reference):
    x = reference["pixel_values"]
    close(ViTModel.from_pretrained(GOLDEN / name)(x).last_hidden_state, reference[f"{name}.tokens"])
    if name in WITH_HEAD:
        close(ViTForImageClassification.from_pretrained(GOLDEN / name)(x).logits, reference[f"{name}.logits"])


def test_dinov2_has_its_mask_token_its_attention_and_its_interpolation(reference):
    model = ViTModel.from_pretrained(GOLDEN / "dinov2", use_mask_token=True)
    x = reference["pixel_values"]
    masked = model(x, bool_masked_pos=reference["bool_masked_pos"])
    close(masked.last_hidden_state, reference["dinov2.masked"])
    close(model(x, output_attentions=True).attentions[1], reference["dinov2.attention_1"])
    larger = model(reference["larger.pixel_values"], interpolate_pos_encoding=True)
    close(larger.last_hidden_state, reference["dinov2.larger"])
    assert model.config.intermediate_size == 48 and model.config.layer_norm_eps == 1e-6


@pytest.mark.parametrize("name", ["dinov2", "timm_dinov2", *WITH_HEAD])
def test_what_was_read_goes_out_as_a_vit(name, tmp_path, reference):
    """model_type "vit", with the scales in the matrices: transformers' ViT gives the same tokens (see hf_tiny)."""
    assert main(["import", str(GOLDEN / name), str(tmp_path / "in")]) == 0
    assert main(["export", str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    config, tensors = read_folder(tmp_path / "out")
    assert config["model_type"] == "vit" and not {"mlp_ratio", "layerscale_value", "model_args"} & config.keys()
    assert all(name.startswith(("vit.", "classifier.", "embeddings.", "encoder.", "layernorm.")) for name in tensors)
    close(
        ViTModel.from_pretrained(tmp_path / "out")(reference["pixel_values"]).last_hidden_state,
        reference[f"{name}.tokens"],
    )


def test_a_layer_scale_is_multiplied_into_the_rows_before_it():
    raw = safetensors.numpy.load_file(GOLDEN / "timm_dinov2" / "model.safetensors")
    _, tensors = read_folder(GOLDEN / "timm_dinov2")
    gamma, weight = raw["blocks.1.ls2.gamma"], raw["blocks.1.mlp.fc2.weight"]
    np.testing.assert_array_equal(tensors["encoder.layer.1.output.dense.weight"], gamma[:, None] * weight)
    np.testing.assert_array_equal(tensors["encoder.layer.1.output.dense.bias"], gamma * raw["blocks.1.mlp.fc2.bias"])
    for place, part in enumerate(("query", "key", "value")):
        rows = raw["blocks.0.attn.qkv.weight"][24 * place : 24 * place + 24]
        np.testing.assert_array_equal(tensors[f"encoder.layer.0.attention.attention.{part}.weight"], rows)


def test_transformers_5s_names_in_memory_are_read_too(changed, reference):
    raw = safetensors.numpy.load_file(GOLDEN / "dinov2" / "model.safetensors")
    new = {}
    for name, array in raw.items():
        for hub, part in (("attention.query", "q_proj"), ("attention.key", "k_proj"), ("attention.value", "v_proj")):
            name = name.replace(hub, part)
        new[f"dinov2.{name.replace('encoder.layer', 'layers').replace('output.dense', 'o_proj')}"] = array
    assert "dinov2.layers.0.attention.q_proj.weight" in new and "dinov2.layers.1.attention.o_proj.bias" in new
    folder = changed("dinov2", tensors=dict.fromkeys(raw) | new)
    close(ViTModel.from_pretrained(folder)(reference["pixel_values"]).last_hidden_state, reference["dinov2.tokens"])


def test_timms_hub_says_the_heads_by_the_networks_name_and_the_classes_by_theirs(changed):
    size = {"model_args": None, "pretrained_cfg": {"input_size": [3, 12, 12]}, "label_names": list("abcde")}
    for name, heads in (("tiny", 3), ("small", 6), ("base", 12)):
        folder = changed("timm_vit", size | {"architecture": f"vit_{name}_patch16_224"})
        config = ViTForImageClassification.from_pretrained(folder).config
        assert config.num_attention_heads == heads and config.hidden_size == 24
        assert config.id2label[4] == "e" and to_pair(config.image_size) == (12, 12)
        shutil.rmtree(folder)


def to_pair(size):
    return size if isinstance(size, tuple) else (size, size)


ROW, TOKEN = np.zeros(24, np.float32), np.zeros((1, 1, 24), np.float32)


@pytest.mark.parametrize(
    ("name", "fields", "tensors", "message"),
    [
        ("dinov2", {"use_swiglu_ffn": True}, {}, "use_swiglu_ffn: True"),
        ("dinov2", {"num_register_tokens": 4}, {}, "num_register_tokens: 4"),
        ("dinov2", {}, {"embeddings.register_tokens": TOKEN}, "register tokens: embeddings.register_tokens"),
        ("dinov2", {"mlp_ratio": "4"}, {}, "mlp_ratio '4'"),
        ("deit", {}, {"deit.embeddings.distillation_token": TOKEN}, "a distillation token and its head: deit.emb"),
        ("timm_vit", {}, {"reg_token": TOKEN}, "register tokens: reg_token"),
        ("timm_vit", {}, {"fc_norm.weight": ROW, "fc_norm.bias": ROW}, "a norm after the mean of the tokens"),
        ("timm_vit", {}, {"attn_pool.latent": TOKEN}, "pooling by attention, as SigLIP has it: attn_pool.latent"),
        ("timm_vit", {}, {"norm_pre.weight": ROW}, "a norm before the layers"),
        ("timm_vit", {}, {"blocks.0.attn.q_norm.weight": ROW[:8]}, "norms of queries and keys: blocks.0.attn.q_norm"),
        ("timm_vit", {"global_pool": "avg"}, {}, "global_pool: 'avg', where minivit takes the class token"),
        ("timm_vit", {"architecture": "swin_tiny_patch4_window7_224"}, {}, "architecture: 'swin_tiny"),
        ("timm_vit", {"model_args": {"qk_norm": True}}, {}, "model_args: qk_norm=True"),
        ("timm_vit", {"model_args": [3]}, {}, r"model_args is \[3\]"),
        ("timm_vit", {}, {"cls_token": None}, "no cls_token"),
        ("timm_vit", {}, {"pos_embed": np.zeros((1, 12, 24), np.float32)}, "12 positions, and an image of"),
        ("timm_vit", {}, {"blocks.0.mlp.fc2.weight": np.zeros((24, 48), np.float32)}, "a gated MLP"),
    ],
)
def test_what_is_another_network_is_refused_by_name(name, fields, tensors, message, changed):
    with pytest.raises(FileError, match=rf"config.json: describes a network that minivit has not:\n    .*{message}"):
        read_folder(changed(name, fields, tensors))


def test_all_that_differs_comes_in_one_list(changed):
    folder = changed("timm_vit", {"global_pool": "map"}, {"reg_token": TOKEN, "attn_pool.latent": TOKEN})
    with pytest.raises(FileError, match=r"register tokens: .*\n    pooling by attention.*\n    global_pool: 'map'"):
        read_folder(folder)


@pytest.mark.parametrize("kind", ["beit", "swin", "dinov3_vit", None])
def test_other_model_types_are_refused(kind, changed):
    with pytest.raises(
        FileError, match=f"model_type is {kind!a}.\n  rule: minivit reads .* vit, dinov2, deit, and"
    ):
        read_folder(changed("dinov2", {"model_type": kind}))


def test_a_dinov2_classifier_of_two_tokens_is_refused_and_its_body_is_read(changed, reference):
    """transformers' Dinov2ForImageClassification looks at the mean of the patches, too: its head has 2 D columns."""
    head = {"classifier.weight": np.zeros((2, 48), np.float32), "classifier.bias": np.zeros(2, np.float32)}
    folder = changed("dinov2", tensors=head)
    close(ViTModel.from_pretrained(folder)(reference["pixel_values"]).last_hidden_state, reference["dinov2.tokens"])
    with pytest.raises(ShapeError, match=r"classifier.weight: expected \(2, 24\), found \(2, 48\)"):
        ViTForImageClassification.from_pretrained(folder)
