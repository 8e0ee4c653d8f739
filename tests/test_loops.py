"""A compiled loop says what its formula says: every op that has one and the whole model, with and without.

With numba installed (the extra `fast`), as in a step of .ci/run. The gradient checks, the golden numbers and the tests
of the ops run there with the loops, too.
"""

import contextlib
import importlib.util
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from minivit import Tensor, no_grad, ops, vit
from minivit.machinery import blocks, fast, threads

with_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None or os.environ.get("MINIVIT_FAST") == "0",
    reason="the loops are for the extra `fast`; a step of .ci/run installs it",
)
LAYOUTS = {
    "one after the other": np.copy,
    "Fortran's order": np.asfortranarray,
    "every other number": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "backwards": lambda x: x[::-1].copy()[::-1],
    "read-only": lambda x: np.broadcast_to(x, x.shape),
    "one row for all": lambda x: np.broadcast_to(x[:1], x.shape),
}


@contextlib.contextmanager
def without_loops():
    found, fast.loops = fast.loops, lambda: None
    try:
        yield
    finally:
        fast.loops = found


def value_and_gradients(op, arrays):
    """The value of an op of arrays, and the gradient of each."""
    tensors = [Tensor(x, requires_grad=True) for x in arrays]
    with np.errstate(all="ignore"):
        y = op(*tensors)
        y.backward(np.cos(np.arange(y.size)).reshape(y.shape).astype(y.dtype))
    return [y.data, *(tensor.grad for tensor in tensors)]


def assert_both(op, *arrays):
    """The op gives the same with loops and without, to some units in the last place of the largest number beside it.

    The loops round a product and a sum once where NumPy rounds twice, and exp of float32 is another polynomial than
    NumPy's. What is no number is the same exactly.
    """
    found = value_and_gradients(op, arrays)
    with without_loops():
        wanted = value_and_gradients(op, arrays)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        finite = np.isfinite(other)
        np.testing.assert_array_equal(one[~finite], other[~finite])
        near = 8 * np.finfo(other.dtype).eps
        largest = abs(other[finite]).max(initial=0)
        np.testing.assert_allclose(one[finite], other[finite], rtol=4 * near, atol=near * largest)


@pytest.fixture
def used(monkeypatch):
    """The names of the loops that were called."""
    names = []

    def watching(*args):
        loop = fast.loop_of(*args)
        if loop is not None:
            names.append(loop.__name__)
        return loop

    monkeypatch.setattr(blocks, "loop_of", watching)
    return names


def step(dtype):
    """The numbers of a training step of a small model, and of an inference."""
    sizes = {"image_size": 16, "patch_size": 4, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    rates = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    config = vit.ViTConfig(**sizes, **rates, intermediate_size=40, num_labels=5)
    model = vit.ViTForImageClassification(config, rng=0).to(dtype)
    x = np.random.default_rng(0).standard_normal((13, 3, 16, 16)).astype(dtype)
    loss = model(x, labels=np.arange(13) % 5).loss
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    with no_grad():
        logits = model.eval()(x).logits.data
    return {"loss": loss.data, "logits": logits} | gradients


@with_numba
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_model_with_every_loop_learns_the_same(dtype, used):
    found = step(dtype)
    assert set(used) == set(fast.LOOPS.values())  # which fails, too, where numba is there and its loops are not used
    with without_loops():
        wanted = step(dtype)
    assert found.keys() == wanted.keys()
    for name in wanted:
        scale = abs(wanted[name]).max()
        tolerance = 100 * np.finfo(dtype).eps * max(scale, 1e-3)  # of a key's bias it is 0 but for rounding
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=tolerance, err_msg=name)


@with_numba
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (5,), (1, 7), (0, 7), (3, 0), (3, 1), (2, 3, 65), (700, 400)])
def test_gelu(shape, dtype, rng):
    """The last shape is more than one block."""
    assert_both(ops.gelu, np.asarray(3 * rng.standard_normal(shape), dtype))


@with_numba
@pytest.mark.parametrize("arrange", LAYOUTS.values(), ids=LAYOUTS)
def test_gelu_of_any_layout_and_none_is_compiled_anew(arrange, rng):
    x = rng.standard_normal((4, 6, 5)).astype(np.float32)
    assert_both(ops.gelu, x)
    before = len(fast.loops().gelu.signatures)
    assert_both(ops.gelu, arrange(x))
    assert len(fast.loops().gelu.signatures) == before


@with_numba
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e19, 1e-30, 1e-44, 0.0, -0.0, 13.2, -13.3])
def test_gelu_of_special_values(special, dtype):
    x = np.array([[special, 1, -2], [0.5, special, special], [3, 4, 5]], dtype)
    assert_both(ops.gelu, x)
    y = ops.gelu(x).data
    assert np.signbit(y[0, 0]) == np.signbit(special) or special != 0


@with_numba
@pytest.mark.parametrize("dtype", ["e", "g"])
def test_other_dtypes_take_the_formula(dtype, used):
    x = np.arange(6).reshape(2, 3).astype(dtype) / 6
    assert ops.gelu(x).dtype == x.dtype and used == []
    assert ops.gelu(x.astype(np.float32)).shape == (2, 3) and used == ["gelu"]


@with_numba
@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-15), (np.float32, 5e-7)])
def test_the_error_of_gelu(dtype, bound, used):
    """Beside x Phi(x) by math.erfc, absolute, where gelu is at most 8."""
    x = np.linspace(-8, 8, 40_001).astype(dtype)
    exact = [t * math.erfc(-t / math.sqrt(2)) / 2 for t in x.tolist()]
    assert abs(ops.gelu(x).data - exact).max() <= bound and used == ["gelu"]


@with_numba
def test_the_exponential_of_float32():
    x = np.concatenate([np.linspace(-87, 88, 20_001), [0, -1e-9, 1e-9, -87.2]]).astype(np.float32)
    exact = np.array([math.exp(t) for t in x.tolist()])
    found = np.array([fast.loops().exp_float32(t) for t in x])
    assert abs(found / exact - 1).max() <= 3e-7
    special = np.array([0, -0.0, np.nan, -np.inf, -1000, -3e38], np.float32)
    np.testing.assert_array_equal([fast.loops().exp_float32(t) for t in special], [1, 1, np.nan, 0, 0, 0])


@with_numba
def test_the_same_bits_with_any_number_of_threads(rng):
    x = (3 * rng.standard_normal((700, 400))).astype(np.float32)
    before, results = threads.get_num_threads(), []
    for n in (1, 2, 5):
        threads.set_num_threads(n)
        results.append(value_and_gradients(ops.gelu, [x]))
    threads.set_num_threads(before)
    for other in results[1:]:
        assert all(map(np.array_equal, results[0], other))


IMPORT = "import sys, minivit; from minivit.machinery import fast; assert 'numba' not in sys.modules; "
GELU = "y = minivit.ops.gelu(minivit.Tensor([0.7])).item(); "


def run(code, **environment):
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@with_numba
def test_numba_is_imported_by_the_first_formula_that_has_a_loop():
    assert run(IMPORT + GELU + "print('numba' in sys.modules)").strip() == "True"


def test_a_variable_of_the_environment_switches_the_loops_off():
    assert run(IMPORT + GELU + "print('numba' in sys.modules)", MINIVIT_FAST="0").strip() == "False"


def test_without_numba_the_formulas_are_used():
    hidden = "sys.modules['numba'] = None; "  # what import finds where there is no numba
    printed = run(IMPORT + hidden + GELU + "assert fast.loops() is None; print(y)")
    assert float(printed) == pytest.approx(0.7 * 0.758036, rel=1e-5)


@with_numba
def test_where_nothing_can_be_written_the_loops_are_compiled_for_this_process():
    nowhere = "import numba.core.caching as c; c.CacheImpl._locator_classes = []; "
    printed = run(IMPORT + nowhere + GELU + "assert fast.loops().gelu.signatures; print(y)")
    assert float(printed) == pytest.approx(0.7 * 0.758036, rel=1e-5)
