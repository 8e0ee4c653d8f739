"""manual_seed and rng=None: layers that differ, runs that repeat, and a Dropout whose generator is its own."""

import concurrent.futures
import copy
import itertools
import signal
import subprocess
import sys

import numpy as np
import pytest

import minivit
from minivit import nn, notebook, optim, training, vit
from minivit.datasets import Dataset
from minivit.errors import MinivitError
from minivit.machinery.random import Share, SharedGenerator, generator_at, shared_out

CONFIG = vit.ViTConfig(
    hidden_size=6,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=5,
    image_size=6,
    patch_size=3,
    num_channels=2,
    hidden_dropout_prob=0.3,
    attention_probs_dropout_prob=0.2,
)
IMAGE = np.ones((3, 6, 6), np.float32)
MAKERS = {
    "normal": lambda **rng: nn.normal((3,), 1, **rng),
    "uniform": lambda **rng: nn.uniform((3,), 1, **rng),
    "Linear": lambda **rng: nn.Linear(4, 4, **rng),
    "Linear with std": lambda **rng: nn.Linear(4, 4, std=0.02, **rng),
    "Conv2d": lambda **rng: nn.Conv2d(2, 3, 2, **rng),
    "PatchEmbeddings": lambda **rng: vit.PatchEmbeddings(6, 3, 2, 5, **rng),
    **{
        part.__name__: lambda part=part, **rng: part(CONFIG, **rng)
        for part in (
            vit.ViTEmbeddings,
            vit.ViTSelfAttention,
            vit.ViTSelfOutput,
            vit.ViTAttention,
            vit.ViTIntermediate,
            vit.ViTOutput,
            vit.ViTLayer,
            vit.ViTEncoder,
            vit.ViTPooler,
            vit.ViTModel,
            vit.ViTForImageClassification,
            vit.ViTForMaskedImageModeling,
        )
    },
    "notebook.PatchEmbeddings": lambda **rng: notebook.PatchEmbeddings(IMAGE, 4, **rng),
    "notebook.Embedding": lambda **rng: notebook.Embedding(IMAGE, 4, **rng),
    "MultiheadSelfAttention": lambda **rng: notebook.MultiheadSelfAttention(6, 3, **rng),
    "EncoderBlock": lambda **rng: notebook.EncoderBlock(6, 6, 3, **rng),
    "Vit": lambda **rng: notebook.Vit(4, 6, 3, 2, **rng),
}


def numbers(made):
    """Every number that was drawn, in one array."""
    parameters = made.parameters() if isinstance(made, nn.Module) else [made]
    return np.concatenate([parameter.data.ravel() for parameter in parameters])


def masks(layer, count=3):
    """What a Dropout drops in its next calls."""
    return np.stack([layer(np.ones(50, np.float32)).data == 0 for _ in range(count)])


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_two_made_one_after_the_other_differ_and_a_run_repeats(make):
    first, second = numbers(make()), numbers(make())
    drawn = first != numbers(make())  # not the biases that begin at 0, nor the scales that begin at 1
    assert drawn.any() and (first[drawn] != second[drawn]).all()
    minivit.manual_seed(0)
    np.testing.assert_array_equal(numbers(make()), first)
    np.testing.assert_array_equal(numbers(make()), second)
    minivit.manual_seed(1)
    assert (numbers(make())[drawn] != first[drawn]).all()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_seed_or_a_generator_of_ones_own_does_not_touch_that_of_the_package(make):
    expected = numbers(nn.Linear(3, 3))
    minivit.manual_seed(0)
    seeded = numbers(make(rng=4))
    np.testing.assert_array_equal(numbers(make(rng=np.random.default_rng(4))), seeded)
    np.testing.assert_array_equal(numbers(make(rng=4)), seeded)
    np.testing.assert_array_equal(numbers(nn.Linear(3, 3)), expected)


def test_dropouts_differ_and_repeat():
    first, second = nn.Dropout(), nn.Dropout()
    dropped = masks(first), masks(second)
    assert (dropped[0] != dropped[1]).any() and (dropped[0][0] != dropped[0][1]).any()
    minivit.manual_seed(0)
    first, second = nn.Dropout(), nn.Dropout()
    np.testing.assert_array_equal(masks(second), dropped[1])  # whoever is called first
    np.testing.assert_array_equal(masks(first), dropped[0])


def test_what_is_made_while_a_dropout_draws_changes_nothing():
    """Its generator is its own: no layer made between two passes moves it on, and it moves nobody on."""
    layer = nn.Dropout()
    first = masks(layer)
    after = numbers(nn.Linear(3, 3))
    minivit.manual_seed(0)
    layer = nn.Dropout()
    np.testing.assert_array_equal(numbers(nn.Linear(3, 3)), after)
    np.testing.assert_array_equal(masks(layer), first)
    np.testing.assert_array_equal(masks(copy.deepcopy(layer)), masks(layer))


def test_a_model_repeats_with_what_it_drops():
    x = np.random.default_rng(0).standard_normal((2, 2, 6, 6)).astype(np.float32)

    def passes():
        model = vit.ViTForImageClassification(CONFIG)
        return np.stack([model(x).logits.data for _ in range(2)])

    first = passes()
    assert (first[0] != first[1]).any() and (passes() != first).any()
    minivit.manual_seed(0)
    np.testing.assert_array_equal(passes(), first)


def test_import_is_manual_seed_0():
    made = numbers(vit.ViTForImageClassification(CONFIG))
    code = (
        "import sys, numpy as np; from minivit import vit\n"
        f"config = vit.ViTConfig.from_json_string({CONFIG.to_json_string()!r})\n"
        "model = vit.ViTForImageClassification(config)\n"
        "sys.stdout.buffer.write(np.concatenate([p.data.ravel() for p in model.parameters()]).tobytes())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    np.testing.assert_array_equal(np.frombuffer(printed, np.float32), made)


def test_streams_are_independent():
    """No two of a thousand layers share a number, and all together are still evenly spread."""
    drawn = np.stack([numbers(nn.uniform((4,), 1)) for _ in range(1000)])
    assert len(np.unique(drawn)) > 3990
    assert abs(drawn.mean()) < 0.05 and abs(np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]) < 0.07


def test_threads_that_make_layers_get_different_ones():
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: numbers(nn.Linear(4, 4)).tobytes(), range(200)))
    minivit.manual_seed(0)
    alone = [numbers(nn.Linear(4, 4)).tobytes() for _ in range(200)]
    assert len(set(made)) == 200 and set(made) == set(alone)


@pytest.mark.parametrize("seed", [-1, 1.0, "0", None, True, 2**64, [1, 2]], ids=repr)
def test_a_seed_is_a_whole_number(seed):
    before = numbers(nn.Linear(3, 3))
    with pytest.raises(MinivitError, match=r"manual_seed: seed=.*\n  rule: seed is a whole number, 0 to 1844674"):
        minivit.manual_seed(seed)
    minivit.manual_seed(0)
    np.testing.assert_array_equal(numbers(nn.Linear(3, 3)), before)


@pytest.mark.parametrize("seed", [0, 7, np.int64(7), 2**64 - 1])
def test_seeds_that_are_taken(seed):
    minivit.manual_seed(seed)
    made = numbers(nn.Linear(3, 3))
    minivit.manual_seed(int(seed))
    np.testing.assert_array_equal(numbers(nn.Linear(3, 3)), made)


def test_a_head_that_is_drawn_follows_manual_seed(tmp_path):
    vit.ViTForImageClassification(CONFIG).save_pretrained(tmp_path)

    def head():
        with pytest.warns(UserWarning, match="a new head was drawn"):
            model = vit.ViTForImageClassification.from_pretrained(tmp_path, ignore_mismatched_sizes=True, num_labels=9)
        return model.classifier.weight.data

    minivit.manual_seed(5)
    first, second = head(), head()
    assert (first != second).all()
    minivit.manual_seed(5)
    np.testing.assert_array_equal(head(), first)


def test_saving_draws_nothing(tmp_path):
    model = vit.ViTForImageClassification(CONFIG)
    expected = numbers(nn.Linear(3, 3))
    minivit.manual_seed(0)
    model = vit.ViTForImageClassification(CONFIG)
    model.save_pretrained(tmp_path)
    np.testing.assert_array_equal(numbers(nn.Linear(3, 3)), expected)


class Net(nn.Module):
    """A class as a student writes it: nothing is said of chance."""

    def __init__(self):
        self.layers = nn.Sequential(nn.Linear(16, 7), nn.GELU(), nn.Dropout(0.3), nn.Dropout(0.2), nn.Linear(7, 3))

    def forward(self, x):
        return self.layers(x.reshape(len(x), 16))


@pytest.mark.parametrize("make", [Net, lambda: vit.ViTForImageClassification(DIGITS)], ids=["Net", "ViT"])
def test_a_training_is_resumed_with_dropouts_that_were_given_no_generator(make, tmp_path):
    rng = np.random.default_rng(0)
    data = Dataset(rng.integers(0, 255, (12, 1, 4, 4), dtype=np.uint8), rng.integers(0, 3, 12), ["a", "b", "c"])
    path = tmp_path / "training.npz"

    def fit(model, augment=None, **kwargs):
        adamw = optim.AdamW(model.parameters(), lr=0.02)
        training.fit(model, data, epochs=2, batch_size=4, optimizer=adamw, augment=augment, verbose=False, **kwargs)
        return numbers(model)

    def press(x, rng):
        press.steps += 1
        if press.steps == 2:
            signal.raise_signal(signal.SIGINT)
        return x

    press.steps = 0
    minivit.manual_seed(3)
    whole = fit(make(), augment=lambda x, rng: x)
    minivit.manual_seed(3)
    with pytest.raises(training.Interrupted):
        fit(make(), augment=press, checkpoint=path)
    minivit.manual_seed(99)  # another start, other dropout: all of it comes from the file
    np.testing.assert_array_equal(fit(make(), augment=lambda x, rng: x, checkpoint=path, resume=True), whole)
    after = numbers(nn.Linear(3, 3))
    minivit.manual_seed(99)
    make()
    np.testing.assert_array_equal(numbers(nn.Linear(3, 3)), after)  # the package's generator was left alone


DIGITS = vit.ViTConfig(
    hidden_size=6,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=5,
    image_size=4,
    patch_size=2,
    num_channels=1,
    num_labels=3,
    hidden_dropout_prob=0.2,
    attention_probs_dropout_prob=0.2,
)


def batch_of_draws(rng, rows):
    """What a training may draw for so many rows, in an order that leaves halves of 64 bits over."""
    return [
        rng.random((rows, 3), dtype=np.float32),
        rng.random((rows, 1)),
        rng.random((rows, 3, 1), np.float32),
        rng.uniform(-1, 1, rows),
        rng.integers(0, 9, rows),
        rng.integers(0, 9, size=(rows, 3)),
        rng.random(rows, dtype=np.float32),
        rng.standard_normal((rows, 2), dtype=np.float32),
        np.full(rows, rng.random()),
        rng.random((rows, 5)),
        rng.normal(size=(rows, 2)),
        rng.exponential(2, rows),
        rng.beta(2, 2, (rows, 1)),
    ]


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.MT19937])
@pytest.mark.parametrize("ends", [(0, 5, 11), (0, 1, 4, 11), (0, 10, 11), (0, 11)])
def test_a_share_of_a_batch_draws_its_rows_and_moves_on_past_the_others(kind, ends):
    one = np.random.Generator(kind(3))
    whole = [batch_of_draws(one, 11) for _ in range(2)]
    after, parts = one.random(3, np.float32), []
    for start, stop in itertools.pairwise(ends):
        rng = SharedGenerator(kind(3), Share(start, stop, 11))
        parts.append([batch_of_draws(rng, stop - start) for _ in range(2)])
        np.testing.assert_array_equal(np.random.Generator(rng.bit_generator).random(3, np.float32), after)
    for turn in (0, 1):
        for number, expected in enumerate(whole[turn]):
            found = np.concatenate([part[turn][number] for part in parts])
            np.testing.assert_array_equal(found, expected, strict=True)


def test_shared_out_modules_have_their_own_generators_again():
    model = nn.Sequential(nn.Dropout(0.5, np.random.default_rng(0)), nn.Dropout(0.5))
    model[1].rng = model[0].rng
    before = model[0].rng
    with shared_out(model.modules(), Share(0, 1, 2)):
        assert isinstance(model[0].rng, SharedGenerator) and model[1].rng is model[0].rng
        assert model[0].rng.bit_generator is before.bit_generator
    assert model[0].rng is model[1].rng is before


@pytest.mark.parametrize("place", [0, 1, 2, 7])
def test_generator_at_is_that_many_numbers_on(place):
    expected = np.random.default_rng(5).random(place + 4, dtype=np.float32)[place:]
    np.testing.assert_array_equal(generator_at(5, place).random(4, dtype=np.float32), expected)
