"""The notebook's Vision Transformer: PyTorch's numbers for both einsums, its sizes on a photo, and its refusals."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from minivit import gradcheck
from minivit.autograd import Tensor, no_grad
from minivit.errors import ShapeError
from minivit.notebook import CORRECTED, PUBLISHED, Embedding, EncoderBlock, MultiheadSelfAttention, PatchEmbeddings, Vit


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden" / "notebook.npz") as file:
        return dict(file)


def close(x, expected):
    np.testing.assert_allclose(np.asarray(x), expected, rtol=1e-9, atol=1e-12 * abs(expected).max())


def load(module, golden):
    """Golden weights into a float64 module: exactly its names, as the notebook spells them."""
    names = [name for name, _ in module.named_parameters()]
    module.to(np.float64).eval().load_state_dict({name: golden[name] for name in names})
    return module


def golden_model(golden, value_einsum):
    patches = load(PatchEmbeddings(golden["image"], 12), golden)
    return patches, load(Embedding(12), golden), load(Vit(12, 12, 3, 2, value_einsum), golden)


# ---- golden values


def test_golden_names(golden):
    found = {name for module in golden_model(golden, CORRECTED) for name in module.state_dict()}
    others = ("image", "tokens", "embedding", "cotangent", "published.", "corrected.")
    assert found == {name for name in golden if not name.startswith(others)}


@pytest.mark.parametrize(
    "kind, value_einsum", [("published", PUBLISHED), ("corrected", CORRECTED), ("corrected", "nhm,mhd->nhd")]
)
def test_golden(golden, kind, value_einsum):
    """The third case goes step by step where the second is fused: their values and gradients are the same."""
    patches, embedding, vit = golden_model(golden, value_einsum)
    tokens = patches()
    close(tokens, golden["tokens"])
    x = embedding(tokens)
    close(x, golden["embedding"])
    for i, block in enumerate(vit.encoder_blocks):
        x = block(x)
        close(x, golden[f"{kind}.block.{i}"])
    x.backward(golden["cotangent"])
    found = {name: p.grad for module in (patches, embedding, vit) for name, p in module.named_parameters()}
    expected = {name.removeprefix(f"{kind}.grad."): g for name, g in golden.items() if f"{kind}.grad." in name}
    assert len(expected) == 31
    for name, gradient in expected.items():
        # a shift of all keys changes no probability: wk's bias has gradient 0, and rounding errors are all of it
        np.testing.assert_allclose(found[name], gradient, rtol=1e-9, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("kind, value_einsum", [("published", PUBLISHED), ("corrected", CORRECTED)])
def test_golden_scores(golden, kind, value_einsum):
    *_, vit = golden_model(golden, value_einsum)
    block = vit.encoder_blocks[0]
    n = block.norm1(golden["embedding"])
    context, scores = block.attn_layer(n, output_scores=True)
    close(scores, golden[f"{kind}.scores.0"])
    close(context, block.attn_layer(n).data)


# ---- what each layer does


def test_patches_run_down_the_columns_and_leave_the_rest_unread():
    photo = np.zeros((8, 11, 3), np.float32)  # (H, W, C): 2 rows and 3 columns of patches, 2 pixels over
    patches = PatchEmbeddings(photo.transpose(2, 1, 0), 5)
    plain = patches().data
    assert plain.shape == (6, 5)
    for (y, x), changed in {(4, 2): {1}, (1, 3): {2}, (5, 8): {5}, (6, 0): set(), (0, 9): set()}.items():
        other = photo.copy()
        other[y, x] = 1
        tokens = patches(other.transpose(2, 1, 0)).data
        assert set(np.flatnonzero((tokens != plain).any(1))) == changed


def test_positions_count_from_1_and_cls_has_none():
    embedding = Embedding(5, rng=3)
    tokens = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    x = embedding(tokens).data
    np.testing.assert_array_equal(x[0], embedding.cls_token.data[0])
    weight, bias = embedding.linear.weight.data[:, 0], embedding.linear.bias.data
    np.testing.assert_allclose(x[1:] - tokens, [n * weight + bias for n in (1, 2, 3, 4)], atol=1e-6)


def test_cls_starts_as_a_standard_normal_vector():
    cls = Embedding(10_000).cls_token.data
    assert cls.shape == (1, 10_000)
    np.testing.assert_allclose([cls.mean(), cls.std()], [0, 1], atol=0.04)  # four standard errors of a mean


@pytest.mark.parametrize("value_einsum, reads_others", [(PUBLISHED, False), (CORRECTED, True)])
def test_who_reads_whom(value_einsum, reads_others):
    """The context of a token is a multiple of its own value in the published notebook, and not in the right one."""
    attention = MultiheadSelfAttention(6, 2, value_einsum).to(np.float64)
    x = np.random.default_rng(1).standard_normal((4, 6))
    ratio = attention(x).data.reshape(4, 2, 3) / attention.wv(x.reshape(4, 2, 3)).data  # (T, h, d)
    assert np.allclose(ratio, ratio[..., :1], rtol=1e-12) != reads_others


def test_heads_share_their_maps():
    """The same slice in both heads gives the same context in both."""
    x = np.random.default_rng(2).standard_normal((5, 3)).astype(np.float32)
    context = MultiheadSelfAttention(6, 2)(np.concatenate([x, x], 1)).data
    np.testing.assert_allclose(context[:, :3], context[:, 3:], rtol=1e-6)


def test_scores_are_probabilities_over_the_keys():
    context, scores = MultiheadSelfAttention(8, 2)(np.eye(5, 8, dtype=np.float32), output_scores=True)
    assert context.shape == (5, 8) and scores.shape == (5, 2, 5)
    np.testing.assert_allclose(scores.data.sum(-1), 1, rtol=1e-6)


def test_dropout_only_in_training_and_from_rng():
    x = np.random.default_rng(4).standard_normal((7, 20)).astype(np.float32)
    first, same, other = (EncoderBlock(20, 4, rng=seed) for seed in (5, 5, 6))
    y = first(x).data
    np.testing.assert_array_equal(y, same(x).data)
    assert not np.allclose(y, other(x).data)
    assert not np.allclose(y, first(x).data), "a second pass drops other numbers"
    assert first.mlp[1].p == 0.2
    np.testing.assert_array_equal(first.eval()(x).data, same.eval()(x).data)


# ---- gradients


@pytest.mark.parametrize("value_einsum", [PUBLISHED, CORRECTED, "nhm,mhd->nhd"])
def test_gradients_of_attention(value_einsum):
    attention = MultiheadSelfAttention(6, 3, value_einsum)
    x = np.random.default_rng(7).standard_normal((5, 6))
    assert gradcheck(lambda x, *_: attention(x), x, *attention.parameters())


@pytest.mark.parametrize("value_einsum", [PUBLISHED, CORRECTED])
def test_gradients_of_the_whole_model(value_einsum):
    """From the last block to the pixels: every parameter, and the layer from 5 channels to 6."""
    image = Tensor(np.random.default_rng(8).standard_normal((3, 7, 5)))
    patches, embedding, vit = PatchEmbeddings(image, 5, 2), Embedding(5), Vit(5, 6, 2, 2, value_einsum).eval()
    parameters = [p for module in (patches, embedding, vit) for p in module.parameters()]
    assert len(parameters) == 5 + 2 + 2 * 14
    assert gradcheck(lambda *_: vit(embedding(patches())), image, *parameters, directions=4)


# ---- sizes


@pytest.mark.parametrize("value_einsum", [PUBLISHED, CORRECTED])
def test_four_encoders_on_a_small_image(value_einsum):
    image = Tensor(np.random.default_rng(9).random((3, 22, 17), np.float32), requires_grad=True)
    patches, embedding, vit = PatchEmbeddings(image, 10), Embedding(10), Vit(10, 24, 8, 4, value_einsum)
    y = vit(embedding(patches()))
    assert (y.shape, y.dtype) == ((36, 24), np.float32)
    y.backward(np.ones_like(y.data))
    for tensor in (image, *patches.parameters(), *embedding.parameters(), *vit.parameters()):
        assert tensor.grad.dtype == np.float32 and np.isfinite(tensor.grad).all() and tensor.grad.any()


def test_sizes_of_the_notebook_and_its_memory():
    """224 x 224 pixels are 5476 tokens, and the 960 MB of scores of 8 heads are never held, forward or backward."""
    image = np.random.default_rng(10).random((3, 224, 224), np.float32)
    tracemalloc.start()
    tokens = PatchEmbeddings(image, 10, kernel_size=3)()
    embedding = Embedding(10)
    x = embedding(tokens)
    y = Vit(10, 512, 8, 1)(x)
    assert (tokens.shape, x.shape, y.shape) == ((5476, 10), (5477, 10), (5477, 512))
    y.backward(np.ones_like(y.data))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert embedding.cls_token.grad.any()
    assert peak < 350e6


def test_wide_tokens_need_no_projection():
    image = np.random.default_rng(11).random((3, 9, 9), np.float32)
    with no_grad():
        x = Embedding(512)(PatchEmbeddings(image, 512)())
        vit = Vit(512, 512, 8, 1)
        assert vit(x).shape == (10, 512)
    assert all(name.startswith("encoder_blocks.0.") for name in vit.state_dict())


def test_arrays_take_the_dtype_of_the_weights():
    image = np.full((3, 6, 6), 7, np.uint8)
    patches = PatchEmbeddings(image, 4)
    assert patches().dtype == np.float32
    np.testing.assert_array_equal(patches().data, patches(image.astype(np.float64)).data)
    assert patches.to(np.float64)().dtype == np.float64


# ---- refusals

IMAGE = np.zeros((3, 12, 9), np.float32)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: PatchEmbeddings(IMAGE[None], 4), r"shape \(1, 3, 12, 9\)(.|\n)*one image \(C, W, H\): no batch"),
        (lambda: PatchEmbeddings(IMAGE[0], 4), r"shape \(12, 9\)"),
        (lambda: PatchEmbeddings(np.zeros((20, 30, 3)), 4), r"transpose\(2, 1, 0\)"),
        (lambda: PatchEmbeddings(IMAGE, 4)(IMAGE[None]), r"shape \(1, 3, 12, 9\)"),
        (lambda: PatchEmbeddings(IMAGE, 4)(IMAGE[:1]), r"\(1, 1, 12, 9\) and weight \(4, 3, 3, 3\)"),
        (lambda: PatchEmbeddings(IMAGE, 4, kernel_size=10), r"kernel_size=10 on an image of 12 x 9 pixels"),
        (lambda: PatchEmbeddings(IMAGE, 4, kernel_size=0), r"at least 1 pixel"),
        (lambda: PatchEmbeddings(IMAGE, 4, 5)(IMAGE[:, :, :4]), r"kernel_size=5 on an image of 12 x 4 pixels"),
        (lambda: PatchEmbeddings(IMAGE * np.nan, 4), r"NaN"),
        (lambda: PatchEmbeddings("cat.jpg", 4), r"use numbers"),
        (lambda: PatchEmbeddings([[[1], [2, 3]]], 4), r"do not form an array"),
        (lambda: MultiheadSelfAttention(10, 3), r"input_dim=10.*heads=3(.|\n)*10 % 3 = 1(.|\n)*1, 2, 5, 10"),
        (lambda: Vit(10, 10, 8, 4), r"input_dim=10.*heads=8"),
        (lambda: MultiheadSelfAttention(10, 0), r"heads=0"),
        (lambda: MultiheadSelfAttention(6, 3)(np.zeros((2, 6, 6))), r"MultiheadSelf.*shape \(2, 6, 6\)(.|\n)*no batch"),
        (lambda: MultiheadSelfAttention(6, 3)(np.zeros((4, 9))), r"shape \(4, 9\)(.|\n)*\(tokens, 6\)"),
        (lambda: Embedding(6)(np.zeros((4, 5))), r"Embedding.*\(4, 5\)(.|\n)*\(tokens, 6\)"),
        (lambda: MultiheadSelfAttention(6, 3, "qhk,khd->hqd"), r'"qhk,khd->hqd" does not give(.|\n)*use "qhk,khd->q'),
        (lambda: MultiheadSelfAttention(6, 3, "qhk,khd"), r'"qhk,khd" does not give'),
        (lambda: MultiheadSelfAttention(6, 3, "qh,khd->qhd"), r"one letter for each of its axes"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ShapeError, match=message):
        call()


def test_a_block_needs_no_seed():
    assert EncoderBlock(4, 2)(Tensor(np.ones((3, 4), np.float32))).shape == (3, 4)
