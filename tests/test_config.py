"""ViTConfig: the notes' fields and defaults, refused when they cannot be, and nothing lost through JSON."""

import json
from pathlib import Path

import numpy as np
import pytest

from minivit import vit
from minivit.config import ViTConfig, to_2tuple
from minivit.errors import FileError, MinivitError, ShapeError
from minivit.nn import ACTIVATIONS

GOLDEN = Path(__file__).parent / "golden" / "hf_tiny" / "config.json"

DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "is_encoder_decoder": False,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
    "pooler_act": "tanh",
    "pooler_output_size": 768,
    "encoder_stride": 16,
    "pruned_heads": {},
    "id2label": {0: "LABEL_0", 1: "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
}
OTHERS = {
    "hidden_size": 30,
    "num_hidden_layers": 0,
    "num_attention_heads": 5,
    "intermediate_size": 37,
    "hidden_act": "relu",
    "hidden_dropout_prob": 0.25,
    "attention_probs_dropout_prob": 1,
    "initializer_range": 0,
    "layer_norm_eps": 1e-6,
    "is_encoder_decoder": True,
    "image_size": (35, 21),
    "patch_size": (5, 3),
    "num_channels": 1,
    "qkv_bias": False,
    "pooler_act": "relu",
    "pooler_output_size": 11,
    "encoder_stride": 8,
    "pruned_heads": {0: [1, 4], 3: [2]},
    "id2label": {0: "cat", 1: "dog", 2: "cow"},
    "label2id": {"cat": 0, "dog": 1, "cow": 2},
}


# ---- fields


def test_defaults():
    config = ViTConfig()
    assert vars(config) == DEFAULTS
    assert config.to_dict() == {"model_type": "vit"} | DEFAULTS
    assert config.num_labels == 2


def test_every_field_is_kept():
    assert vars(ViTConfig(**OTHERS)) == OTHERS


def test_order_of_the_fields_is_that_of_the_notes():
    assert vars(ViTConfig(30, 1, 5, 37, "relu", 0.1, 0.2, 0.3, 0.4, True, 35, 7, 1)) == DEFAULTS | {
        "hidden_size": 30,
        "num_hidden_layers": 1,
        "num_attention_heads": 5,
        "intermediate_size": 37,
        "hidden_act": "relu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.2,
        "initializer_range": 0.3,
        "layer_norm_eps": 0.4,
        "is_encoder_decoder": True,
        "image_size": 35,
        "patch_size": 7,
        "num_channels": 1,
        "pooler_output_size": 30,
    }


def test_unknown_keys_are_kept():
    config = ViTConfig(architectures=["ViTModel"], problem_type=None, teacher={"name": "big"})
    assert config.teacher == {"name": "big"}
    assert ViTConfig.from_json_string(config.to_json_string()) == config
    assert config.to_dict() == {
        "model_type": "vit",
        **DEFAULTS,
        "architectures": ["ViTModel"],
        "problem_type": None,
        "teacher": {"name": "big"},
    }


def test_it_is_the_config_of_vit():
    assert vit.ViTConfig is ViTConfig
    assert vit.to_2tuple is to_2tuple


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("tiny", (192, 12, 3, 768, 16)),
        ("small", (384, 12, 6, 1536, 16)),
        ("base", (768, 12, 12, 3072, 16)),
        ("large", (1024, 24, 16, 4096, 16)),
        ("huge", (1280, 32, 16, 5120, 14)),
    ],
)
def test_named_sizes(name, sizes):
    config = getattr(ViTConfig, name)()
    fields = "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size"
    assert tuple(getattr(config, field) for field in fields) == sizes
    assert config.pooler_output_size == sizes[0]
    other = getattr(ViTConfig, name)(hidden_size=48, num_labels=7, image_size=28, patch_size=7)
    assert (other.hidden_size, other.num_labels, other.image_size, other.patch_size) == (48, 7, 28, 7)
    assert other.intermediate_size == sizes[3]


@pytest.mark.parametrize("pair", [(5, 3), [5, 3], np.array([5, 3])])
def test_to_2tuple(pair):
    assert to_2tuple(pair) == (5, 3)
    assert isinstance(to_2tuple(pair), tuple)
    assert to_2tuple(7) == (7, 7)


@pytest.mark.parametrize("wrong", [(1,), (1, 2, 3), [], np.ones(4), [[1], [2, 3], 4]])
def test_to_2tuple_refuses_what_is_no_pair(wrong):
    with pytest.raises(ShapeError, match="neither a number nor a pair"):
        to_2tuple(wrong)


# ---- validation

NOT_WHOLE = ["12", 12.0, None, True, -12, [12], np.float32(12), float("nan"), 2**40, {"height": 12}, 1j]
WHOLE = "hidden_size num_attention_heads intermediate_size num_channels patch_size image_size encoder_stride".split()


@pytest.mark.parametrize("value", NOT_WHOLE, ids=repr)
@pytest.mark.parametrize("name", [*WHOLE, "num_hidden_layers", "num_labels", "pooler_output_size"])
def test_what_is_no_whole_number_is_refused(name, value):
    if value is None and name in ("num_labels", "pooler_output_size"):
        assert ViTConfig(**{name: None}) == ViTConfig()
        return
    with pytest.raises(MinivitError, match=f"{name}=|neither a number nor a pair"):
        ViTConfig(**{name: value})


@pytest.mark.parametrize("name", [*WHOLE, "num_labels"])
def test_zero_is_refused(name):
    with pytest.raises(MinivitError, match=rf"{name}=0\.\n  rule: {name} is a whole number, 1 to 1048576\.$"):
        ViTConfig(**{name: 0})


@pytest.mark.parametrize("value", ["0.1", None, False, [0.1], 1j, -0.1, float("nan"), float("inf")], ids=repr)
@pytest.mark.parametrize(
    "name", ["hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps"]
)
def test_what_is_no_number_is_refused(name, value):
    with pytest.raises(MinivitError, match=f"ViTConfig: {name}="):
        ViTConfig(**{name: value})


@pytest.mark.parametrize("name", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_probabilities_end_at_1(name):
    with pytest.raises(MinivitError, match=rf"{name}=1\.01\.\n  rule: {name} is a probability, 0 to 1\."):
        ViTConfig(**{name: 1.01})


@pytest.mark.parametrize("value", ["mish", None, 3, ["gelu"], np.array(["gelu", "tanh"])], ids=repr)
@pytest.mark.parametrize("name", ["hidden_act", "pooler_act"])
def test_unknown_activations_are_refused(name, value):
    with pytest.raises(MinivitError, match=f"{name}=.* is not known.\n  rule: one of {', '.join(ACTIVATIONS)}$"):
        ViTConfig(**{name: value})


@pytest.mark.parametrize("value", ["no", None, 1, 0.0, []], ids=repr)
@pytest.mark.parametrize("name", ["qkv_bias", "is_encoder_decoder"])
def test_switches_are_true_or_false(name, value):
    with pytest.raises(MinivitError, match=f"ViTConfig: {name}=.*\n  rule: {name} is True or False."):
        ViTConfig(**{name: value})


def test_heads_that_do_not_divide_get_the_whole_explanation():
    with pytest.raises(ShapeError) as raised:
        ViTConfig(hidden_size=10, num_attention_heads=3)
    assert str(raised.value) == (
        "ViTConfig: hidden_size=10 cannot be split over num_attention_heads=3.\n"
        "  rule: hidden_size % num_attention_heads == 0, but 10 % 3 = 1\n"
        "  hint: use hidden_size 9 or 12, or 1, 2, 5 or 10 heads."
    )


@pytest.mark.parametrize(
    ("hidden", "heads", "hint"),
    [
        (1, 2, "use hidden_size 2, or 1 heads."),
        (7, 3, "use hidden_size 6 or 9, or 1 or 7 heads."),
        (10**6 + 3, 12, "use hidden_size 999996 or 1000008, or 1 heads."),
    ],
)
def test_the_hint_is_a_sentence_for_every_size(hidden, heads, hint):
    with pytest.raises(ShapeError, match=f"hint: {hint}$"):
        ViTConfig(hidden_size=hidden, num_attention_heads=heads)


def test_patches_that_do_not_divide_are_refused():
    with pytest.raises(ShapeError) as raised:
        ViTConfig(image_size=(32, 20), patch_size=(16, 8))
    assert str(raised.value) == (
        "ViTConfig: an image width of 20 pixels cannot be cut into patches of 8.\n"
        "  rule: image_size % patch_size == 0, but 20 % 8 = 4\n"
        "  hint: use a width of 16 or 24, or another patch_size."
    )
    with pytest.raises(ShapeError, match=r"an image height of 12 .*\n.*\n  hint: use a height of 16, or another"):
        ViTConfig(image_size=12)


@pytest.mark.parametrize("size", [(32, "16"), (32, 16, 3), [[32], [16, 16]], (32, None), (32, 16.0), (0, 16)], ids=repr)
def test_pairs_of_the_wrong_things_are_refused(size):
    with pytest.raises(MinivitError):
        ViTConfig(image_size=size)
    with pytest.raises(MinivitError):
        ViTConfig(patch_size=size)


@pytest.mark.parametrize("pruned", [[1], {"a": [1]}, {0: 1}, {0: ["x"]}, {None: [1]}, "0"], ids=repr)
def test_pruned_heads_are_numbers(pruned):
    with pytest.raises(MinivitError, match="ViTConfig: pruned_heads="):
        ViTConfig(pruned_heads=pruned)


def test_the_fields_of_another_model_are_refused():
    with pytest.raises(MinivitError, match='model_type is "vit"'):
        ViTConfig.from_dict({"model_type": "deit", "hidden_size": 24})


# ---- classes


def test_classes_come_by_any_of_their_three_fields():
    names = {0: "cat", 1: "dog", 2: "cow"}
    inverse = {"cat": 0, "dog": 1, "cow": 2}
    assert ViTConfig(num_labels=3).id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    for config in (
        ViTConfig(id2label=names),
        ViTConfig(label2id=inverse),
        ViTConfig(id2label=names, label2id=inverse, num_labels=3),
        ViTConfig(id2label={"2": "cow", "0": "cat", "1": "dog"}, label2id={"cat": "0", "dog": "1", "cow": "2"}),
    ):
        assert (config.id2label, config.label2id, config.num_labels) == (names, inverse, 3)
        assert list(config.id2label) == [0, 1, 2]


def test_two_classes_may_share_a_name():
    config = ViTConfig(id2label={0: "crane", 1: "dog", 2: "crane"}, label2id={"crane": 0, "dog": 1})
    assert config.label2id == {"crane": 0, "dog": 1}
    assert ViTConfig(id2label={0: "crane", 1: "dog", 2: "crane"}).label2id == {"crane": 2, "dog": 1}


@pytest.mark.parametrize(
    "fields",
    [
        {"id2label": {-1: "cat", 0: "dog"}},
        {"id2label": {0.5: "cat", 1: "dog"}},
        {"id2label": {"a": "cat"}},
        {"id2label": {None: "cat"}},
        {"id2label": {0: None}},
        {"id2label": {0: ["cat"]}},
        {"id2label": {0: True}},
        {"id2label": {}},
        {"id2label": ["cat", "dog"]},
        {"id2label": "cat"},
        {"id2label": 2},
        {"label2id": {}},
        {"label2id": ["cat"]},
        {"label2id": {"cat": 0, "dog": [1]}},
        {"label2id": {"cat": 0, "dog": 0}},
    ],
    ids=repr,
)
def test_classes_that_do_not_agree_are_refused(fields):
    with pytest.raises(MinivitError, match="ViTConfig: the classes do not agree"):
        ViTConfig(**fields)


def test_one_field_rules_and_the_others_follow():
    """id2label, then label2id, then num_labels: whatever transformers left in the rest of the file."""
    names = {0: "cat", 1: "dog", 2: "bird"}
    for others in (
        {"label2id": {"LABEL_0": 0, "LABEL_1": 1}},
        {"label2id": {"cat": 1, "dog": 0, "bird": 2}},
        {"label2id": ["cat"], "num_labels": 7},
        {"label2id": {"cat": 0}, "num_labels": "3"},
    ):
        config = ViTConfig(id2label=names, **others)
        assert (config.id2label, config.num_labels) == (names, 3)
        assert config.label2id == {"cat": 0, "dog": 1, "bird": 2}
        assert ViTConfig.from_dict(json.loads(json.dumps({"id2label": names} | others))) == config
    assert ViTConfig(label2id={"cat": 0, "dog": 1}, num_labels=2).id2label == {0: "cat", 1: "dog"}
    assert ViTConfig(label2id={"cat": 0, "dog": 1}, num_labels=3).id2label == ViTConfig(num_labels=3).id2label
    assert ViTConfig(label2id={"cat": 0, "dog": 0}, num_labels=3).label2id == ViTConfig(num_labels=3).label2id
    assert ViTConfig(id2label={0: 3, "1": 7}).label2id == {"3": 0, "7": 1}


def test_numbers_from_one_name_the_logits_that_they_say():
    config = ViTConfig(id2label={"1": "cat", "2": "dog", "3": "bird"})
    assert config.num_labels == 3 and config.id2label == {1: "cat", 2: "dog", 3: "bird"}
    assert config.class_names == ["LABEL_0", "cat", "dog"]
    assert ViTConfig(id2label={0: "cat", 1: "dog"}).class_names == ["cat", "dog"]


def test_names_set_by_hand_go_out_with_their_inverse():
    config = ViTConfig(num_labels=3)
    config.id2label = {0: "cat", 1: "dog", 2: "bird"}
    fields = json.loads(config.to_json_string())
    assert fields["label2id"] == {"cat": 0, "dog": 1, "bird": 2}
    assert ViTConfig.from_dict(fields).id2label == config.id2label


def test_keywords_come_before_the_file_is_judged():
    """What the keywords replace may be anything."""
    broken = {"hidden_size": 24, "num_attention_heads": 5, "id2label": "none", "hidden_act": "nothing"}
    with pytest.raises(MinivitError):
        ViTConfig.from_dict(broken)
    config = ViTConfig.from_dict(broken, num_attention_heads=3, num_labels=4, hidden_act="relu")
    assert config == ViTConfig(hidden_size=24, num_attention_heads=3, num_labels=4, hidden_act="relu")
    config = ViTConfig.from_dict({"id2label": [], "label2id": 3}, id2label={0: "yes"})
    assert config.label2id == {"yes": 0}


@pytest.mark.parametrize(
    ("fields", "task"),
    [
        ({}, "single_label_classification"),
        ({"problem_type": None, "num_labels": 1}, "regression"),
        ({"problem_type": "regression"}, "regression"),
        ({"problem_type": "multi_label_classification", "num_labels": 1}, "multi_label_classification"),
        ({"problem_type": "single_label_classification"}, "single_label_classification"),
    ],
)
def test_the_task_is_the_problem_type_or_what_transformers_takes_none_for(fields, task):
    assert ViTConfig(**fields).task == task


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"problem_type": "multilabel"}, "problem_type='multilabel' is not known"),
        ({"problem_type": 3}, "problem_type=3 is not known"),
        ({"head_dim": 32}, r"head_dim=32\.\n  rule: .* = 64 numbers"),
    ],
)
def test_keys_that_are_not_obeyed_are_refused_by_name(fields, message):
    with pytest.raises(MinivitError, match=message):
        ViTConfig(**fields)
    assert ViTConfig(head_dim=64).head_dim == 64


def test_the_message_does_not_list_a_thousand_classes():
    with pytest.raises(MinivitError) as raised:
        ViTConfig(id2label={i - 1: f"class {i}" for i in range(1000)})
    assert len(str(raised.value)) < 500


def test_setting_num_labels_names_the_classes_anew():
    config = ViTConfig(id2label={0: "cat", 1: "dog"})
    config.num_labels = 3
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    with pytest.raises(MinivitError, match="num_labels='4'"):
        config.num_labels = "4"


# ---- misspelled fields


@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("num_heads", "num_attention_heads"),
        ("heads", "num_attention_heads"),
        ("num_atention_heads", "num_attention_heads"),
        ("depth", "num_hidden_layers"),
        ("num_layers", "num_hidden_layers"),
        ("num_hidden_layer", "num_hidden_layers"),
        ("embed_dim", "hidden_size"),
        ("hidden_sise", "hidden_size"),
        ("hiddenSize", "hidden_size"),
        ("mlp_dim", "intermediate_size"),
        ("dropout", "hidden_dropout_prob"),
        ("hidden_dropout", "hidden_dropout_prob"),
        ("attention_probs_dropout", "attention_probs_dropout_prob"),
        ("num_classes", "num_labels"),
        ("num_label", "num_labels"),
        ("id2labels", "id2label"),
        ("img_size", "image_size"),
        ("patch_sizes", "patch_size"),
        ("in_channels", "num_channels"),
        ("in_chans", "num_channels"),
        ("eps", "layer_norm_eps"),
        ("layer_norm_epsilon", "layer_norm_eps"),
        ("activation", "hidden_act"),
        ("qkv_biases", "qkv_bias"),
        ("prune_heads", "pruned_heads"),
    ],
)
def test_a_misspelled_field_is_refused_by_its_name(key, field):
    for make in (ViTConfig, ViTConfig.tiny, lambda **kwargs: ViTConfig.from_dict(ViTConfig().to_dict(), **kwargs)):
        with pytest.raises(MinivitError, match=f"no such field: {key}=4\\.(?s:.*)write {field} for {key}\\.$"):
            make(**{key: 4})


def test_all_misspelled_fields_come_in_one_message():
    with pytest.raises(MinivitError, match=r"num_heads=4, depth=2\.(?s:.*)num_heads, num_hidden_layers for"):
        ViTConfig(num_heads=4, depth=2, teacher="big")


# what transformers writes beside the fields, of all its versions, and what people have put into a ViT's config
KEPT = """
    _attn_implementation _commit_hash _name_or_path add_cross_attention architectures attn_implementation auto_map
    bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward classifier_dropout_prob
    cross_attention_hidden_size decoder_hidden_size decoder_intermediate_size decoder_num_attention_heads
    decoder_num_hidden_layers decoder_start_token_id diversity_penalty do_sample drop_path_rate dtype early_stopping
    encoder_no_repeat_ngram_size eos_token_id finetuning_task forced_bos_token_id gradient_checkpointing is_decoder
    interpolate_mode label_smoothing layer_scale_init_value length_penalty loss_type mask_ratio max_length min_length
    no_repeat_ngram_size norm_pix_loss num_beam_groups num_beams num_image_tokens num_patches num_register_tokens
    num_return_sequences output_attentions output_hidden_states output_scores pad_token_id pooling prefix
    quantization_config remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id
    suppress_tokens task_specific_params temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings
    tokenizer_class top_k top_p torch_dtype torchscript transformers.js_config transformers_version typical_p
    use_bfloat16 use_cache use_mask_token use_mean_pooling vocab_size
""".split()


def test_keys_that_name_no_field_are_kept():
    extra = {key: f"of {key}" for key in KEPT}
    config = ViTConfig(**extra)
    assert config.to_dict() == {"model_type": "vit"} | DEFAULTS | extra
    assert ViTConfig.from_json_string(config.to_json_string()) == config
    del extra["transformers_version"]
    assert ViTConfig.from_dict(extra).to_dict() == {"model_type": "vit"} | DEFAULTS | extra


def test_a_config_that_transformers_wrote_keeps_every_key():
    fields = json.loads(GOLDEN.read_text(encoding="utf-8")) | {"num_classes": 5, "dropout": 0.1, "hidden_sizes": [24]}
    config = ViTConfig.from_dict(fields, image_size=24)
    assert (config.num_classes, config.dropout, config.hidden_sizes, config.image_size) == (5, 0.1, [24], 24)
    assert ViTConfig.from_json_string(config.to_json_string()) == config
    config.hidden_sizes.append(1)
    assert fields["hidden_sizes"] == [24]
    del fields["transformers_version"]
    with pytest.raises(MinivitError, match="write num_labels for num_classes, hidden_dropout_prob for dropout"):
        ViTConfig.from_dict(fields)


# ---- dict and JSON


def test_dict_both_ways():
    config = ViTConfig(**OTHERS)
    assert ViTConfig.from_dict(config.to_dict()) == config
    assert ViTConfig.from_dict(config.to_dict(), hidden_size=20, extra=1).to_dict() == config.to_dict() | {
        "hidden_size": 20,
        "extra": 1,
    }


def test_to_dict_is_a_copy():
    config = ViTConfig(teacher={"name": "big"})
    fields = config.to_dict()
    fields["id2label"][0] = "changed"
    fields["teacher"]["name"] = "changed"
    assert config == ViTConfig(teacher={"name": "big"})


def test_json_both_ways(tmp_path):
    config = ViTConfig(**OTHERS, architectures=["ViTModel"])
    again = ViTConfig.from_json_string(config.to_json_string())
    assert again == config
    assert again.image_size == (35, 21) and again.pruned_heads == {0: [1, 4], 3: [2]}
    config.to_json_file(tmp_path / "config.json")
    assert ViTConfig.from_json_file(tmp_path / "config.json") == config
    assert (tmp_path / "config.json").read_bytes() == config.to_json_string().encode()


def test_many_labels_keep_their_order_through_json():
    names = [f"{word} {i}" for i, word in enumerate(["zebra", "ant", "mole"] * 5)]
    config = ViTConfig(id2label=dict(enumerate(names)))
    text = config.to_json_string()
    assert list(json.loads(text)["id2label"].values()) == names
    again = ViTConfig.from_json_string(text)
    assert list(again.id2label.items()) == list(enumerate(names))


def test_numpy_numbers_become_plain_ones():
    config = ViTConfig(
        hidden_size=np.int64(24),
        num_attention_heads=np.int32(3),
        layer_norm_eps=np.float32(0.5),
        image_size=np.array([32, 48]),
        qkv_bias=np.bool_(False),
        num_labels=np.int64(3),
        pruned_heads={np.int64(1): np.array([2, 0])},
    )
    assert config == ViTConfig(
        hidden_size=24,
        num_attention_heads=3,
        layer_norm_eps=0.5,
        image_size=(32, 48),
        qkv_bias=False,
        num_labels=3,
        pruned_heads={1: [0, 2]},
    )
    assert ViTConfig.from_json_string(config.to_json_string()) == config
    assert type(config.hidden_size) is int and type(config.image_size[0]) is int


def test_the_hub_config_loses_nothing(tmp_path):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    config = ViTConfig.from_json_file(GOLDEN)
    assert (config.hidden_size, config.num_attention_heads, config.num_labels) == (24, 3, 5)
    config.to_json_file(tmp_path / "config.json")
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert golden.items() <= written.items()
    assert set(written) - set(golden) == {"is_encoder_decoder", "pruned_heads"}


def test_new_labels_replace_those_of_the_file():
    config = ViTConfig(hidden_size=24, id2label={0: "cat", 1: "dog", 2: "cow"})
    fields = config.to_dict()
    assert ViTConfig.from_dict(fields, num_labels=7).id2label == ViTConfig(num_labels=7).id2label
    assert ViTConfig.from_dict(fields, num_labels=3) == config
    assert ViTConfig.from_dict(fields, id2label={0: "yes", 1: "no"}).label2id == {"yes": 0, "no": 1}
    assert ViTConfig.from_dict(fields, label2id={"yes": 0, "no": 1}).id2label == {0: "yes", 1: "no"}
    assert ViTConfig.from_dict(fields, hidden_size=36).id2label == config.id2label
    assert fields == config.to_dict()


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "null", '{"hidden_size": 10, "num_attention_heads": 3}', None])
def test_broken_json_is_refused(tmp_path, text):
    with pytest.raises(MinivitError, match=r"^ViTConfig: "):
        ViTConfig.from_json_string(text)
    if text is not None:
        path = tmp_path / "broken.json"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(FileError, match=r"broken\.json: holds no config\."):
            ViTConfig.from_json_file(path)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"missing\.json: cannot be read"):
        ViTConfig.from_json_file(tmp_path / "missing.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(FileError, match=r"binary\.json: cannot be read"):
        ViTConfig.from_json_file(tmp_path / "binary.json")
    with pytest.raises(FileError, match="cannot be read"):
        ViTConfig.from_json_file(tmp_path)


def test_files_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(FileError, match="cannot be written"):
        ViTConfig().to_json_file(tmp_path / "no" / "such" / "folder.json")
    with pytest.raises(MinivitError, match="cannot be written as JSON"):
        ViTConfig(teacher=object()).to_json_file(tmp_path / "config.json")
    assert not (tmp_path / "config.json").exists()


def test_the_config_of_a_folder(tmp_path):
    config = ViTConfig(**OTHERS, architectures=["ViTModel"])
    config.save_pretrained(tmp_path / "new" / "folder")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["config.json"]
    assert ViTConfig.from_pretrained(tmp_path / "new" / "folder") == config
    assert json.loads((tmp_path / "new" / "folder" / "config.json").read_bytes()) == json.loads(config.to_json_string())
    golden = ViTConfig.from_pretrained(str(GOLDEN.parent), num_labels=7, image_size=16)
    assert golden == ViTConfig.from_dict(json.loads(GOLDEN.read_bytes()), num_labels=7, image_size=16)
    with pytest.raises(MinivitError, match="write num_attention_heads for num_heads"):
        ViTConfig.from_pretrained(GOLDEN.parent, num_heads=2)


def test_folders_that_hold_no_config_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"config\.json: cannot be read as JSON"):
        ViTConfig.from_pretrained(tmp_path)
    with pytest.raises(FileError, match="there is no such folder"):
        ViTConfig.from_pretrained(tmp_path / "none")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(MinivitError, match="the fields of another model"):
        ViTConfig.from_pretrained(tmp_path)
    with pytest.raises(FileError, match="cannot be written"):
        ViTConfig().save_pretrained(tmp_path / "config.json")


# ---- equality and repr


def test_equality():
    assert ViTConfig() == ViTConfig(hidden_size=768)
    assert ViTConfig() != ViTConfig(qkv_bias=False)
    assert ViTConfig() != ViTConfig(extra=1)
    assert ViTConfig() != ViTConfig().to_dict()
    assert ViTConfig(image_size=[32, 48]) == ViTConfig(image_size=(32, 48))
    with pytest.raises(TypeError, match="unhashable"):
        hash(ViTConfig())


def test_repr_shows_every_field_in_ascii():
    text = repr(ViTConfig(id2label={0: "K\u00e4tzchen"}, teacher=object()))
    assert text.startswith("ViTConfig {\n") and text.endswith("}")
    assert text.isascii()
    assert all(f'"{name}": ' in text for name in [*DEFAULTS, "model_type", "teacher"])


def test_a_private_key_that_names_nothing_is_kept():  # transformers 4 wrote it into many a config.json
    config = ViTConfig.from_dict({"model_type": "vit", "_name_or_path": "google/vit", "hidden_size": 12 * 16})
    assert config.to_dict()["_name_or_path"] == "google/vit"


@pytest.mark.parametrize("key", ["to_dict", "_validate", "num_parameters", "tiny"])
def test_unknown_keys_do_not_take_the_place_of_methods(key):
    if hasattr(ViTConfig, key):
        with pytest.raises(MinivitError, match=f"cannot keep the unknown keys {key}"):
            ViTConfig.from_dict({key: 1})
    else:
        assert ViTConfig.from_dict({key: 1}).to_dict()[key] == 1


def test_a_key_called_self_is_refused():
    with pytest.raises(MinivitError, match="with self"):
        ViTConfig.from_dict({"self": 1})
