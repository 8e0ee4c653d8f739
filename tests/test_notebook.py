"""The notebook's Vision Transformer: PyTorch's numbers for both einsums, its sizes on a photo, and its refusals."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from minivit import gradcheck, images
from minivit.autograd import Tensor
from minivit.errors import ShapeError
from minivit.notebook import CORRECTED, PUBLISHED, Embedding, EncoderBlock, MultiheadSelfAttention, PatchEmbeddings, Vit

IMAGE = np.zeros((3, 12, 9), np.float32)


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden" / "notebook.npz") as file:
        return dict(file)


def close(x, expected):
    np.testing.assert_allclose(np.asarray(x), expected, rtol=1e-9, atol=1e-12 * abs(expected).max())


def spelled(name):
    """The golden name of a parameter. There the patches stand beside the embedding, here inside it."""
    return name.removeprefix("patch_embeddings.")


def load(module, golden):
    """Golden weights into a float64 module: exactly its names, as the notebook spells them."""
    names = [name for name, _ in module.named_parameters()]
    module.to(np.float64).eval().load_state_dict({name: golden[spelled(name)] for name in names})
    return module


def golden_model(golden, value_einsum):
    return load(Embedding(golden["image"], 12), golden), load(Vit(12, 12, 3, 2, value_einsum), golden)


# ---- the cells of the notebook, as they are typed


def test_the_cells_that_make_tokens():
    """At the sizes of the notebook: a photo of 224 x 224 pixels."""
    x = images.pixel_values(images.photo("cat.jpg"), 224)  # (3, 224, 224)
    assert PatchEmbeddings(x, out_channels=10, kernel_size=3)().shape == (5476, 10)
    assert Embedding(x, out_channels=10, kernel_size=3)().shape == (5477, 10)
    assert Embedding(x, out_channels=512, kernel_size=3)().shape == (5477, 512)


def test_the_cells_that_make_tokens_talk():
    x = images.pixel_values(images.photo("cat.jpg"), 24)  # 24 pixels a side, or four encoders take seconds
    embed_out = Embedding(x, out_channels=512, kernel_size=3)()
    sat = MultiheadSelfAttention(512, 8)
    assert sat(embed_out, embed_out, embed_out).shape == (65, 512)
    assert EncoderBlock(input_dim=512, embed_dim=512, heads=8)(embed_out).shape == (65, 512)
    vit = Vit(input_dim=512, embed_dim=512, heads=8, num_encoders=4)
    assert vit(embed_out).shape == (65, 512)
    assert not any("projection" in name for name in vit.state_dict())
    embed_out = Embedding(x, out_channels=10, kernel_size=3)()
    with pytest.raises(ShapeError, match=r"tokens have shape \(65, 10\)(.|\n)*Embedding\(image, out_channels=512, "):
        sat(embed_out, embed_out, embed_out)
    with pytest.raises(ShapeError, match=r"EncoderBlock: the tokens have shape \(65, 10\)(.|\n)*\(tokens, 512\)"):
        vit(embed_out)


# ---- golden values


def test_golden_names(golden):
    found = {spelled(name) for module in golden_model(golden, CORRECTED) for name in module.state_dict()}
    others = ("image", "tokens", "embedding", "cotangent", "published.", "corrected.")
    assert found == {name for name in golden if not name.startswith(others)}


@pytest.mark.parametrize(
    "kind, value_einsum", [("published", PUBLISHED), ("corrected", CORRECTED), ("corrected", "nhm,mhd->nhd")]
)
def test_golden(golden, kind, value_einsum):
    """The third case goes step by step where the second is fused: their values and gradients are the same."""
    embedding, vit = golden_model(golden, value_einsum)
    close(embedding.patch_embeddings(), golden["tokens"])
    x = embedding()
    close(x, golden["embedding"])
    for i, block in enumerate(vit.encoder_blocks):
        x = block(x)
        close(x, golden[f"{kind}.block.{i}"])
    x.backward(golden["cotangent"])
    found = {spelled(name): p.grad for module in (embedding, vit) for name, p in module.named_parameters()}
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
    context, scores = block.attn_layer(n, n, n, output_scores=True)
    close(scores, golden[f"{kind}.scores.0"])
    close(context, block.attn_layer(n, n, n).data)


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
    embedding = Embedding(np.random.default_rng(0).standard_normal((3, 6, 6)), 5, rng=3)
    tokens = embedding.patch_embeddings().data  # (4, 5)
    x = embedding().data
    np.testing.assert_array_equal(x[0], embedding.cls_token.data[0])
    weight, bias = embedding.linear.weight.data[:, 0], embedding.linear.bias.data
    np.testing.assert_allclose(x[1:] - tokens, [n * weight + bias for n in (1, 2, 3, 4)], atol=1e-6)


def test_cls_starts_as_a_standard_normal_vector():
    cls = Embedding(IMAGE, 10_000, rng=0).cls_token.data
    assert cls.shape == (1, 10_000)
    np.testing.assert_allclose([cls.mean(), cls.std()], [0, 1], atol=0.04)  # four standard errors of a mean


@pytest.mark.parametrize("value_einsum, reads_others", [(PUBLISHED, False), (CORRECTED, True)])
def test_who_reads_whom(value_einsum, reads_others):
    """The context of a token is a multiple of its own value with the notebook's einsum, and not with the right one."""
    attention = MultiheadSelfAttention(6, 2, value_einsum).to(np.float64)
    x = np.random.default_rng(1).standard_normal((4, 6))
    ratio = attention(x, x, x).data.reshape(4, 2, 3) / attention.wv(x.reshape(4, 2, 3)).data  # (T, h, d)
    assert np.allclose(ratio, ratio[..., :1], rtol=1e-12) != reads_others


@pytest.mark.parametrize("value_einsum", [CORRECTED, "nhm,mhd->nhd"])
def test_values_keys_and_queries_come_in_this_order(value_einsum):
    """By hand, head by head and query by query; there are fewer queries than keys."""
    attention = MultiheadSelfAttention(6, 2, value_einsum).to(np.float64)
    values, keys, queries = np.random.default_rng(3).standard_normal((3, 5, 6))
    queries = queries[:4]
    found = attention(values, keys, queries).data
    assert found.shape == (4, 6)
    for place in (slice(0, 3), slice(3, 6)):
        v, k, q = (
            x[:, place] @ layer.weight.data.T + layer.bias.data
            for x, layer in ((values, attention.wv), (keys, attention.wk), (queries, attention.wq))
        )
        for i in range(4):
            share = np.exp(k @ q[i] / 3**0.5)
            np.testing.assert_allclose(found[i, place], share @ v / share.sum(), rtol=1e-12)
    by_name = attention(queries=queries, keys=keys, values=values).data
    np.testing.assert_array_equal(by_name, found)


def test_heads_share_their_maps():
    """The same slice in both heads gives the same context in both."""
    x = np.random.default_rng(2).standard_normal((5, 3)).astype(np.float32)
    twice = np.concatenate([x, x], 1)
    context = MultiheadSelfAttention(6, 2)(twice, twice, twice).data
    np.testing.assert_allclose(context[:, :3], context[:, 3:], rtol=1e-6)


def test_scores_are_probabilities_over_the_keys():
    x = np.eye(5, 8, dtype=np.float32)
    context, scores = MultiheadSelfAttention(8, 2)(x, x, x, output_scores=True)
    assert context.shape == (5, 8) and scores.shape == (5, 2, 5)
    np.testing.assert_allclose(scores.data.sum(-1), 1, rtol=1e-6)


def test_dropout_only_in_training_and_from_rng():
    x = np.random.default_rng(4).standard_normal((7, 20)).astype(np.float32)
    first, same, other = (EncoderBlock(20, 20, 4, rng=seed) for seed in (5, 5, 6))
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
    assert gradcheck(lambda x, *_: attention(x, x, x), x, *attention.parameters())


@pytest.mark.parametrize("value_einsum", [CORRECTED, "qhm,mhd->qhd"])
def test_gradients_of_values_keys_and_queries(value_einsum):
    """Three kinds of tokens, and fewer queries than keys."""
    attention = MultiheadSelfAttention(6, 3, value_einsum)
    values, keys, queries = np.random.default_rng(7).standard_normal((3, 5, 6))
    assert gradcheck(lambda v, k, q, *_: attention(v, k, q), values, keys, queries[:4], *attention.parameters())


@pytest.mark.parametrize("value_einsum", [PUBLISHED, CORRECTED])
def test_gradients_of_the_whole_model(value_einsum):
    """From the last block to the pixels: every parameter, and the layer from 5 channels to 6."""
    image = Tensor(np.random.default_rng(8).standard_normal((3, 7, 5)))
    embedding, vit = Embedding(image, 5, 2), Vit(5, 6, 2, 2, value_einsum).eval()
    parameters = [*embedding.parameters(), *vit.parameters()]
    assert len(parameters) == 5 + 2 + 2 * 14
    assert gradcheck(lambda *_: vit(embedding()), image, *parameters, directions=4)


# ---- sizes


@pytest.mark.parametrize("value_einsum", [PUBLISHED, CORRECTED])
def test_four_encoders_on_a_small_image(value_einsum):
    image = Tensor(np.random.default_rng(9).random((3, 22, 17), np.float32), requires_grad=True)
    embedding, vit = Embedding(image, 10), Vit(10, 24, 8, 4, value_einsum)
    y = vit(embedding())
    assert (y.shape, y.dtype) == ((36, 24), np.float32)
    y.backward(np.ones_like(y.data))
    for tensor in (image, *embedding.parameters(), *vit.parameters()):
        assert tensor.grad.dtype == np.float32 and np.isfinite(tensor.grad).all() and tensor.grad.any()


def test_sizes_of_the_notebook_and_its_memory():
    """224 x 224 pixels are 5476 tokens, and the 960 MB of scores of 8 heads are never held, forward or backward."""
    image = np.random.default_rng(10).random((3, 224, 224), np.float32)
    tracemalloc.start()
    embedding = Embedding(image, 10, kernel_size=3)
    x = embedding()
    y = Vit(10, 512, 8, 1)(x)
    assert (x.shape, y.shape) == ((5477, 10), (5477, 512))
    y.backward(np.ones_like(y.data))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert embedding.cls_token.grad.any()
    assert peak < 350e6


def test_the_plain_way_keeps_one_array_of_scores_for_backward():
    """The query is divided by sqrt(d): divided scores would be a second array that waits."""
    attention, x = MultiheadSelfAttention(64, 8, "qhm,mhd->qhd"), np.ones((400, 64), np.float32)
    tracemalloc.start()
    context = attention(x, x, x)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert context.shape == (400, 64) and 1 < kept / (4 * 8 * 400 * 400) < 1.5


def test_only_the_first_block_brings_the_tokens_to_the_width_of_the_rest():
    vit = Vit(5, 6, 2, 3).eval()
    x = Tensor(np.random.default_rng(11).random((4, 5), np.float32))
    assert [block.projection is None for block in vit.encoder_blocks] == [False, True, True]
    first, wide = vit.encoder_blocks[0], EncoderBlock(6, 6, 2).eval()
    wide.load_state_dict({name: a for name, a in first.state_dict().items() if "projection" not in name})
    np.testing.assert_array_equal(first(x).data, wide(first.projection(x)).data)


def test_another_image_goes_through_the_same_layers():
    image, other = np.random.default_rng(12).random((2, 3, 9, 6), np.float32)
    embedding, twin = Embedding(image, 4, rng=0), Embedding(other, 4, rng=0)
    np.testing.assert_array_equal(embedding(other).data, twin().data)
    assert not np.array_equal(embedding().data, twin().data)


def test_arrays_take_the_dtype_of_the_weights():
    image = np.full((3, 6, 6), 7, np.uint8)
    patches = PatchEmbeddings(image, 4)
    assert patches().dtype == np.float32
    np.testing.assert_array_equal(patches().data, patches(image.astype(np.float64)).data)
    assert patches.to(np.float64)().dtype == np.float64


# ---- refusals

TOKENS = np.ones((4, 6), np.float32)


def attend(values, keys=None, queries=None):
    return MultiheadSelfAttention(6, 3)(*(values if x is None else x for x in (values, keys, queries)))


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
        (lambda: attend(np.zeros((2, 6, 6))), r"MultiheadSelf.*shape \(2, 6, 6\)(.|\n)*no batch"),
        (lambda: attend(np.zeros((4, 9))), r"shape \(4, 9\)(.|\n)*\(tokens, 6\)"),
        (lambda: attend(Embedding(IMAGE, 6)), r"the tokens are of type Embedding\.(.|\n)*mind the last brackets"),
        (lambda: Vit(6, 6, 2, 1)(Embedding(IMAGE, 6)), r"EncoderBlock: the tokens are of type Embedding\."),
        (lambda: attend(TOKENS, TOKENS[:3]), r"attention: .*do not fit"),
        (lambda: attend(TOKENS, TOKENS[:, :3]), r"the tokens have shape \(4, 3\)"),
        (lambda: Embedding(IMAGE[None], 4), r"shape \(1, 3, 12, 9\)(.|\n)*one image \(C, W, H\): no batch"),
        (lambda: Embedding(IMAGE + np.inf, 4), r"NaN"),
        (lambda: EncoderBlock(10, 10, 8), r"input_dim=10.*heads=8"),
        (lambda: MultiheadSelfAttention(6, 3, "qhk,khd->hqd"), r'"qhk,khd->hqd" does not give(.|\n)*use "qhk,khd->q'),
        (lambda: MultiheadSelfAttention(6, 3, "qhk,khd"), r'"qhk,khd" does not give'),
        (lambda: MultiheadSelfAttention(6, 3, "qh,khd->qhd"), r"one letter for each of its axes"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ShapeError, match=message):
        call()
