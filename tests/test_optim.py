"""Optimisers against PyTorch's numbers, the schedule, clipping and averaging, and what is refused."""

import inspect
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from minivit import Tensor, nn
from minivit.errors import GraphError, MinivitError, ShapeError
from minivit.machinery import blocks, threads
from minivit.nn import Parameter
from minivit.optim import SGD, AdamW, ExponentialMovingAverage, clip_grad_norm, warmup_cosine
from minivit.vit import ViTConfig, ViTForImageClassification

STEPS, LR = 20, 0.03
CLOSE = {np.float64: 1e-12, np.float32: 1e-5}


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden" / "adamw.npz") as file:
        return dict(file)


def start(golden, dtype=np.float64):
    return [Parameter(golden[f"start.{k}"].astype(dtype)) for k in range(5)]


def set_gradients(parameters, golden, step):
    """The golden gradients of a step; the last parameter has none in some steps."""
    for k, parameter in enumerate(parameters):
        present = golden["present"][step, k]
        parameter.grad = golden[f"grad.{k}"][step].astype(parameter.dtype) if present else None


def make_adamw(parameters):
    return AdamW(parameters, LR, betas=(0.8, 0.97), eps=1e-6, weight_decay=0.05)


def make_momentum(parameters):
    return SGD(parameters, LR, momentum=0.9)


MAKERS = [pytest.param(make_adamw, "adamw", id="adamw"), pytest.param(make_momentum, "sgd", id="sgd")]


def parameter(*shape, dtype=np.float64, seed=0):
    """A parameter of random numbers that has a random gradient."""
    rng = np.random.default_rng(seed)
    made = Parameter(rng.standard_normal(shape).astype(dtype))
    made.grad = rng.standard_normal(shape).astype(dtype)
    return made


class TestGolden:
    @pytest.mark.parametrize("block", [2, 7, blocks.BLOCK])
    @pytest.mark.parametrize("dtype", CLOSE)
    @pytest.mark.parametrize(("make", "name"), MAKERS)
    def test_twenty_steps(self, golden, make, name, dtype, block, monkeypatch):
        monkeypatch.setattr(blocks, "BLOCK", block)
        parameters = start(golden, dtype)
        optimizer = make(parameters)
        schedule = warmup_cosine(STEPS, warmup_steps=4, final=0.1)
        for step in range(STEPS):
            set_gradients(parameters, golden, step)
            optimizer.lr = LR * schedule(step)
            optimizer.step()
            for k, p in enumerate(parameters):
                expected = golden[f"{name}.{k}"][step]
                np.testing.assert_allclose(p.data, expected, rtol=CLOSE[dtype], atol=CLOSE[dtype] / 100)
                assert p.dtype == dtype

    def test_sgd_without_momentum(self):
        p = parameter(3, 5)
        expected = p.data - 0.2 * p.grad
        SGD([p], 0.2).step()
        np.testing.assert_array_equal(p.data, expected)

    @pytest.mark.parametrize("dtype", CLOSE)
    @pytest.mark.parametrize("max_norm", [0.7, 1000.0])
    def test_clip_grad_norm(self, golden, max_norm, dtype):
        parameters = start(golden, dtype)
        set_gradients(parameters, golden, 1)
        before = [p.grad.copy() for p in parameters]
        norm = clip_grad_norm(parameters, max_norm)
        assert type(norm) is float
        assert norm == pytest.approx(golden[f"norm.{max_norm}"], rel=CLOSE[dtype] / 10)
        for k, p in enumerate(parameters):
            np.testing.assert_allclose(p.grad, golden[f"clipped.{max_norm}.{k}"], rtol=CLOSE[dtype])
            assert p.grad.dtype == dtype
            assert np.array_equal(p.grad, before[k]) == (max_norm == 1000)

    def test_a_norm_just_below_the_largest_is_left_alone(self, golden):
        parameters = start(golden, np.float64)
        set_gradients(parameters, golden, 1)
        before = [p.grad.copy() for p in parameters]
        clip_grad_norm(parameters, 1.5 * clip_grad_norm(parameters, math.inf))
        assert all(np.array_equal(p.grad, old) for p, old in zip(parameters, before, strict=True))

    def test_schedule(self, golden):
        schedule = warmup_cosine(STEPS, 4, 0.1)
        np.testing.assert_allclose([LR * schedule(step) for step in range(STEPS)], golden["lr"], rtol=1e-13)


class TestStep:
    def test_defaults_are_pytorchs(self):
        defaults = {name: p.default for name, p in inspect.signature(AdamW).parameters.items()}
        del defaults["parameters"]
        assert defaults == {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
        assert inspect.signature(SGD).parameters["momentum"].default == 0

    @pytest.mark.parametrize(("make", "name"), MAKERS)
    def test_numpy_learning_rate_keeps_float32(self, make, name):
        p, q = parameter(13, 5, dtype=np.float32), parameter(13, 5, dtype=np.float32)
        for one, lr in ((p, 0.01), (q, np.float64(0.01))):
            optimizer = make([one])
            optimizer.lr = lr
            optimizer.step()
            assert one.dtype == np.float32
            assert {array.dtype for key, array in optimizer.state_dict().items() if key != "step"} == {np.dtype("f4")}
        np.testing.assert_array_equal(p.data, q.data)  # the arithmetic, too, was in float32

    @pytest.mark.parametrize("arrange", [np.asfortranarray, lambda x: np.repeat(x, 2, axis=0)[::2]])
    @pytest.mark.parametrize(("make", "name"), MAKERS)
    def test_any_memory_layout_in_place(self, make, name, arrange, monkeypatch):
        monkeypatch.setattr(blocks, "BLOCK", 8)
        p, q = parameter(7, 5), parameter(7, 5)
        q.data = array = arrange(q.data)
        for one in (p, q):
            optimizer = make([one])
            optimizer.step()
            optimizer.step()
        assert q.data is array
        np.testing.assert_array_equal(p.data, array)

    @pytest.mark.parametrize(("make", "name"), MAKERS)
    def test_scalar_and_empty(self, make, name):
        scalar, vector, empty = parameter(), parameter(1), parameter(0, 3)
        optimizer = make([scalar, vector, empty])
        before = float(scalar)
        optimizer.step()
        assert scalar.shape == ()
        assert float(scalar) == float(vector) != before

    @pytest.mark.parametrize(("make", "name"), MAKERS)
    def test_a_scalar_set_to_a_number_learns_on(self, make, name):
        scalar, same = parameter(), parameter()
        optimizer = make([scalar, same])
        scalar.data = scalar.data * 0.5  # NumPy makes a number of it, which cannot be written to
        same.data = np.array(same.data * 0.5)
        make([scalar])
        optimizer.step()
        assert isinstance(scalar.data, np.ndarray) and scalar.data == same.data

    @pytest.mark.parametrize(("make", "name"), MAKERS)
    def test_a_step_between_forward_and_backward_is_refused(self, make, name):
        w, above = parameter(3), parameter(3)
        optimizer = make([w])
        early, late = (w * w).sum(), (w * 2 * above).sum()
        early.backward()
        optimizer.step()
        before = above.grad
        for _ in range(2):  # nothing was done by halves
            with pytest.raises(
                GraphError, match=r"multiply: a parameter was changed(?s:.*)forward, backward, then step"
            ):
                late.backward()
            assert above.grad is before
        (w * 2).sum().backward()  # after the step, all is well

    @pytest.mark.parametrize(("make", "name"), MAKERS)
    def test_temporaries_are_small(self, make, name):
        p = parameter(4000, 1000, dtype=np.float32)
        optimizer = make([p])
        ema = ExponentialMovingAverage([p])
        before = threads.get_num_threads()
        threads.set_num_threads(2)
        tracemalloc.start()
        optimizer.step()
        ema.update()
        clip_grad_norm([p], 0.1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        threads.set_num_threads(before)
        three_blocks_a_thread = 2 * 3 * blocks.BLOCK * p.data.itemsize
        assert peak < three_blocks_a_thread < p.data.nbytes / 2

    @pytest.mark.parametrize(("make", "name"), MAKERS)
    def test_without_gradient_nothing_changes(self, make, name):
        p, q = parameter(3, 5), parameter(3, 5)
        optimizer = make([p, q])
        q.grad = None
        before, state = q.data.copy(), optimizer.state_dict()
        optimizer.step()
        after = optimizer.state_dict()
        np.testing.assert_array_equal(q.data, before)
        assert all(np.array_equal(state[key], after[key]) for key in state if key.endswith(".1"))
        if name == "adamw":
            assert after["step"].tolist() == [1, 0]

    @pytest.mark.parametrize("dtype", CLOSE)
    @pytest.mark.parametrize(
        ("gradients", "betas", "eps", "expected"),  # p after the steps, from torch.optim.AdamW, lr=0.01, p = 1 at first
        [
            ([1.0, 1.0], (0.0, 0.0), 1e-8, 0.9800000002),
            ([1e8, 0.01], (0.0, 0.0), 1e-8, 0.98000000999999),
            ([1e10, 1.0], (0.0, 0.0), 1e-8, 0.9800000001),
            ([1e8, 0.01], (0.0, 0.0), 0.0, 0.98),
            ([1e4, 1.0], (0.0, 0.999), 1e-8, 0.9899985854325917),
            ([1e8, 0.01, -3.0], (0.9, 0.0), 1e-8, -47468003.69181994),
            ([1e8, 0.01, 5.0], (1e-3, 1e-3), 1e-4, 0.9896734354481246),
            ([1e12, 1e-3, 2.0], (0.5, 0.1), 0.0, 0.9638936500993814),
        ],
        ids=str,
    )
    def test_betas_near_0_forget_a_large_gradient(self, gradients, betas, eps, expected, dtype):
        p = Parameter(np.ones(1, dtype))
        optimizer = AdamW([p], 0.01, betas, eps, weight_decay=0)
        for gradient in gradients:
            p.grad = np.array([gradient], dtype)
            optimizer.step()
        assert p.data[0] == pytest.approx(expected, rel=CLOSE[dtype])

    @pytest.mark.parametrize(("make", "name"), MAKERS)
    def test_zero_grad(self, make, name):
        p, q = parameter(3), parameter(5)
        make([p, q]).zero_grad()
        assert p.grad is None and q.grad is None

    def test_learns(self):
        """Least squares, from the layer to the loss and back: the true weights are found."""
        rng = np.random.default_rng(0)
        x, truth = rng.standard_normal((40, 3)), rng.standard_normal((2, 3))
        layer = nn.Linear(3, 2).to(np.float64)
        optimizer = AdamW(layer.parameters(), lr=0.1, weight_decay=0)
        schedule = warmup_cosine(300, 10)
        for step in range(300):
            optimizer.lr = 0.1 * schedule(step)
            optimizer.zero_grad()
            ((layer(x) - x @ truth.T) ** 2).mean().backward()
            optimizer.step()
        np.testing.assert_allclose(layer.weight.data, truth, atol=1e-3)


class TestDecay:
    @pytest.mark.parametrize("rank", range(5))
    def test_by_rank(self, rank):
        p = parameter(*range(2, 2 + rank))
        p.grad[...] = 0
        before = p.data.copy()
        AdamW([p], lr=0.1, weight_decay=0.5).step()
        np.testing.assert_array_equal(p.data, before * (0.95 if rank in (2, 4) else 1))

    def test_of_a_model(self):
        config = ViTConfig(
            hidden_size=6, num_hidden_layers=1, num_attention_heads=2, intermediate_size=5, image_size=4, patch_size=2
        )
        model = ViTForImageClassification(config)
        before = model.state_dict()
        for p in model.parameters():
            p.data += 1  # zeros, too, should show a decay
            p.grad = np.zeros_like(p.data)
        AdamW(model.parameters(), lr=0.1, weight_decay=0.5).step()
        kept = {name for name, p in model.named_parameters() if np.array_equal(p.data, before[name] + 1)}
        ends = ("bias", "cls_token", "position_embeddings")
        expected = {name for name in before if name.endswith(ends) or "layernorm" in name}
        assert kept == expected
        assert 0 < len(kept) < len(before)


class TestState:
    @pytest.mark.parametrize("stop", [1, 9])
    @pytest.mark.parametrize("dtype", CLOSE)
    @pytest.mark.parametrize(("make", "name"), MAKERS)
    def test_resume_is_bit_identical(self, golden, make, name, dtype, stop, tmp_path):
        def run(parameters, learners, steps):
            for step in steps:
                set_gradients(parameters, golden, step)
                for learner in learners:
                    learner.step() if isinstance(learner, (SGD, AdamW)) else learner.update()

        whole = start(golden, dtype)
        ema = ExponentialMovingAverage(whole)
        run(whole, [make(whole), ema], range(STEPS))

        first = start(golden, dtype)
        learners = [make(first), ExponentialMovingAverage(first)]
        run(first, learners, range(stop))
        for number, learner in enumerate(learners):
            np.savez(tmp_path / f"{number}.npz", **learner.state_dict())

        second = [Parameter(p.data.copy()) for p in first]
        learners = [make(second), ExponentialMovingAverage(second)]
        for number, learner in enumerate(learners):
            with np.load(tmp_path / f"{number}.npz") as file:
                learner.load_state_dict(file)
        run(second, learners, range(stop, STEPS))
        for p, q in zip(whole, second, strict=True):
            np.testing.assert_array_equal(p.data, q.data)
        for key, array in learners[1].state_dict().items():
            np.testing.assert_array_equal(array, ema.state_dict()[key])

    def test_names(self):
        parameters = [parameter(3), parameter(2, 5)]
        assert list(AdamW(parameters).state_dict()) == [
            "step", "exp_avg.0", "exp_avg.1", "exp_avg_sq.0", "exp_avg_sq.1"
        ]  # fmt: skip
        assert list(SGD(parameters, 0.1, 0.5).state_dict()) == ["momentum_buffer.0", "momentum_buffer.1"]
        assert SGD(parameters, 0.1).state_dict() == {}
        assert list(ExponentialMovingAverage(parameters).state_dict()) == ["updates", "average.0", "average.1"]

    @pytest.mark.parametrize("make", [make_adamw, make_momentum, ExponentialMovingAverage])
    def test_copies_both_ways(self, make):
        p = parameter(3, 5)
        learner = make([p])
        state = learner.state_dict()
        kept = {key: array.copy() for key, array in state.items()}
        learner.load_state_dict(state)
        for array in state.values():
            array += 9
        for key, array in learner.state_dict().items():
            np.testing.assert_array_equal(array, kept[key])

    def test_refused_with_all_reasons(self):
        optimizer = AdamW([parameter(3), parameter(2, 5), parameter(4)])
        optimizer.step()
        before = optimizer.state_dict()
        state = optimizer.state_dict() | {
            "step": np.zeros(3),
            "exp_avg.1": np.zeros((5, 2)),
            "exp_avg.2": np.array(["a"] * 4),
            "exp_avg.3": np.zeros(2, np.float32),
            "exp_avg_sq.0": np.zeros(()),
        }
        del state["exp_avg_sq.2"]
        with pytest.raises(ShapeError) as caught:
            optimizer.load_state_dict(state)
        message = str(caught.value)
        for part in (
            "AdamW.load_state_dict: 6 entries",
            "step: expected (3,) int, found (3,) float",
            "exp_avg.1: expected (2, 5) float, found (5, 2) float",
            "exp_avg.2: expected (4,) float, found (4,) str",
            "exp_avg.3: expected None, found (2,) float",
            "exp_avg_sq.0: expected (3,) float, found () float",
            "exp_avg_sq.2: expected (4,) float, found None",
        ):
            assert part in message
        for key, array in optimizer.state_dict().items():
            np.testing.assert_array_equal(array, before[key])

    def test_other_precision_is_converted(self):
        source, target = AdamW([parameter(3, 5)]), AdamW([parameter(3, 5, dtype=np.float32)])
        source.step()
        target.load_state_dict(source.state_dict())
        state = target.state_dict()
        assert state["exp_avg.0"].dtype == np.float32
        np.testing.assert_allclose(state["exp_avg.0"], source.state_dict()["exp_avg.0"], rtol=1e-6)


class TestSchedule:
    def test_corners(self):
        schedule = warmup_cosine(total_steps=11, warmup_steps=3, final=0.2)
        assert [schedule(step) for step in range(4)] == [0.25, 0.5, 0.75, 1]
        assert schedule(7) == pytest.approx(0.6)  # the middle of the cosine
        assert schedule(10) > 0.2
        assert schedule(11) == schedule(500) == pytest.approx(0.2)

    def test_without_warmup(self):
        schedule = warmup_cosine(4)
        expected = [(1 + math.cos(math.pi * step / 4)) / 2 for step in range(5)]
        assert [schedule(step) for step in range(5)] == pytest.approx(expected)
        assert schedule(0) == 1 and schedule(4) == 0

    def test_one_step(self):
        assert warmup_cosine(1)(0) == 1

    def test_falls_and_stays_within_0_and_1(self):
        factors = [warmup_cosine(37, 5)(step) for step in range(37)]
        assert np.all(np.diff(factors[:6]) > 0) and np.all(np.diff(factors[5:]) < 0)
        assert 0 < min(factors) and max(factors) == 1


class TestClip:
    def test_norm_of_all_together(self):
        p, q, r = parameter(1), parameter(1, 1), parameter(2)
        p.grad[...], q.grad[...], r.grad = 3, 4, None
        assert clip_grad_norm([p, q, r], 2) == 5
        assert (p.grad.item(), q.grad.item()) == pytest.approx((1.2, 1.6), rel=1e-6)
        assert r.grad is None

    def test_in_place(self):
        p = parameter(3, 5)
        gradient = p.grad
        clip_grad_norm([p], 0.1)
        assert p.grad is gradient
        assert np.linalg.norm(gradient) == pytest.approx(0.1, rel=1e-5)

    def test_float64_sum_of_large_float32(self):
        p = parameter(2, dtype=np.float32)
        p.grad[...] = 3e30, 4e30  # their squares are beyond float32
        assert clip_grad_norm([p], math.inf) == pytest.approx(5e30)
        np.testing.assert_array_equal(p.grad, np.float32([3e30, 4e30]))

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_bad_norm_is_returned_and_nothing_scaled(self, bad):
        p = parameter(3)
        p.grad[...] = 1, bad, 5
        norm = clip_grad_norm([p], 1.0)
        assert math.isnan(norm) if math.isnan(bad) else norm == math.inf
        np.testing.assert_array_equal(p.grad, [1, bad, 5])

    def test_no_gradients(self):
        assert clip_grad_norm([Parameter(np.ones(3))], 1.0) == 0


class TestAverage:
    @pytest.mark.parametrize("block", [2, blocks.BLOCK])
    @pytest.mark.parametrize("decay", [0.999, 0.3])
    def test_formula(self, decay, block, monkeypatch):
        monkeypatch.setattr(blocks, "BLOCK", block)
        rng = np.random.default_rng(0)
        p = parameter(3, 5)
        average = p.data.copy()
        ema = ExponentialMovingAverage([p], decay)
        for t in range(12):
            p.data += rng.standard_normal(p.shape)
            ema.update()
            d = min(decay, (1 + t) / (10 + t))
            average = d * average + (1 - d) * p.data
        with ema.applied():
            np.testing.assert_allclose(p.data, average, rtol=1e-12)

    def test_without_decay_it_is_what_the_weights_are(self):
        p = Parameter(np.array([1e8]))
        ema = ExponentialMovingAverage([p], decay=0)
        p.data[:] = 1e-9
        ema.update()
        assert ema.state_dict()["average.0"] == [1e-9]

    def test_first_update_takes_nine_tenths(self):
        p = Parameter(np.zeros(1, np.float32))
        ema = ExponentialMovingAverage([p])
        p.data += 1
        ema.update()
        state = ema.state_dict()
        assert state["average.0"].item() == pytest.approx(0.9)
        assert state["average.0"].dtype == np.float32
        assert state["updates"] == 1

    def test_applied_and_restored(self):
        p, q = parameter(3, 5), parameter(2)
        ema = ExponentialMovingAverage([p, q])
        trained, averages = [p.data, q.data], [p.data.copy(), q.data.copy()]
        p.data += 1
        q.data += 1
        for stop in (False, True):
            with pytest.raises(KeyboardInterrupt) if stop else ema.applied():
                with ema.applied():  # alone, and inside itself
                    np.testing.assert_array_equal(p.data, averages[0])
                    np.testing.assert_array_equal(q.data, averages[1])
                    if stop:
                        raise KeyboardInterrupt
        assert p.data is trained[0] and q.data is trained[1]
        assert not np.array_equal(p.data, averages[0])

    def test_no_step_spoils_the_averages(self):
        p = parameter(3, 5)
        optimizer, ema = AdamW([p]), ExponentialMovingAverage([p])
        before = ema.state_dict()["average.0"]
        with ema.applied(), pytest.raises(ValueError, match="read-only"):
            optimizer.step()
        np.testing.assert_array_equal(ema.state_dict()["average.0"], before)

    def test_follows_a_model(self):
        """The average counts where the model looks: in its forward pass and its state dict."""
        layer = nn.Linear(3, 2)
        x = np.ones((4, 3), np.float32)
        first = layer(x).data
        ema = ExponentialMovingAverage(layer.parameters())
        layer.weight.data += 1
        with ema.applied():
            np.testing.assert_array_equal(layer(x).data, first)
            state = layer.state_dict()
        assert not np.array_equal(layer.weight.data, state["weight"])


class TestErrors:
    @pytest.mark.parametrize(
        ("make", "part"),
        [
            (lambda p: SGD(p, -0.1), "SGD: lr is -0.1."),
            (lambda p: SGD(p, math.nan), "0 <= lr < inf"),
            (lambda p: SGD(p, math.inf), "lr is inf"),
            (lambda p: SGD(p, "0.1"), "lr is '0.1'"),
            (lambda p: SGD(p, 0.1, momentum=1), "0 <= momentum < 1"),
            (lambda p: AdamW(p, lr=None), "AdamW: lr is None"),
            (lambda p: AdamW(p, betas=0.9), "betas is a pair"),
            (lambda p: AdamW(p, betas=(0.9, 0.99, 0.999)), "betas is a pair"),
            (lambda p: AdamW(p, betas=(0.9, 1.0)), "betas[1] is 1.0"),
            (lambda p: AdamW(p, betas=(-0.1, 0.9)), "betas[0] is -0.1"),
            (lambda p: AdamW(p, eps=-1e-8), "eps is -1e-08"),
            (lambda p: AdamW(p, weight_decay=-1), "weight_decay is -1"),
            (lambda p: ExponentialMovingAverage(p, 1.0), "ExponentialMovingAverage: decay is 1.0"),
            (lambda p: clip_grad_norm(p, -1.0), "clip_grad_norm: max_norm is -1.0"),
            (lambda p: clip_grad_norm(p, math.nan), "max_norm is nan"),
            (lambda p: warmup_cosine(0), "warmup_cosine: total_steps is 0"),
            (lambda p: warmup_cosine(10, 10), "0 <= warmup_steps < 10"),
            (lambda p: warmup_cosine(10, -1), "warmup_steps is -1"),
            (lambda p: warmup_cosine(10, final=1.0), "final is 1.0"),
        ],
    )
    def test_numbers(self, make, part):
        with pytest.raises(MinivitError) as caught:
            make([parameter(3)])
        assert part in str(caught.value)

    @pytest.mark.parametrize(
        ("make", "name", "value", "part"),
        [
            (make_adamw, "lr", math.nan, "AdamW: lr is nan"),
            (make_momentum, "lr", -1, "SGD: lr is -1"),
            (make_momentum, "lr", math.inf, "lr is inf"),
            (make_adamw, "lr", "0.1", "lr is '0.1'"),
            (make_momentum, "momentum", math.nan, "momentum is nan"),
            (make_adamw, "betas", (0.9, math.nan), "betas[1] is nan"),
            (make_adamw, "betas", None, "betas is a pair"),
            (make_adamw, "eps", -1, "eps is -1"),
            (make_adamw, "weight_decay", math.nan, "weight_decay is nan"),
            (ExponentialMovingAverage, "decay", math.nan, "decay is nan"),
        ],
    )
    def test_numbers_that_were_set_later_are_refused_before_anything_is_changed(self, make, name, value, part):
        p = parameter(2, 2)
        learner = make([p])
        before, state = p.data.copy(), learner.state_dict()
        setattr(learner, name, value)
        with pytest.raises(MinivitError) as caught:
            learner.update() if isinstance(learner, ExponentialMovingAverage) else learner.step()
        assert part in str(caught.value)
        np.testing.assert_array_equal(p.data, before)
        assert all(np.array_equal(array, state[key]) for key, array in learner.state_dict().items())

    @pytest.mark.parametrize(("make", "name"), MAKERS)
    @pytest.mark.parametrize(
        ("gradient", "came"),
        [
            (np.ones((1, 2)), "(1, 2) float64"),
            (np.ones(2), "(2,) float64"),
            (np.ones((3, 3)), "(3, 3) float64"),
            (np.float64(1), "() float64"),
            (np.ones((2, 2), np.float32), "(2, 2) float32"),
            (np.ones((2, 2), np.int64), "(2, 2) int64"),
            ([[1.0, 1.0], [1.0, 1.0]], "a list"),
            (Tensor(np.ones((2, 2))), "a Tensor"),
        ],
        ids=lambda x: x if isinstance(x, str) else "",
    )
    def test_gradients_that_do_not_fit_are_refused_before_anything_is_changed(self, make, name, gradient, came):
        p, q = parameter(3), parameter(2, 2)
        optimizer = make([p, q])
        before, state = [p.data.copy(), q.data.copy()], optimizer.state_dict()
        q.grad = gradient
        with pytest.raises(ShapeError) as caught:
            optimizer.step()
        message = f"1 of 2 gradients do not fit:\n    number 1: the parameter is (2, 2) float64, its gradient {came}."
        assert message in str(caught.value)
        np.testing.assert_array_equal(p.data, before[0])
        np.testing.assert_array_equal(q.data, before[1])
        assert all(np.array_equal(array, state[key]) for key, array in optimizer.state_dict().items())

    def test_a_gradient_of_rank_0_may_be_a_number_of_numpy(self):
        p = parameter()
        before, p.grad = float(p), p.grad * np.float64(1)
        SGD([p], 0.5).step()
        assert float(p) == before - 0.5 * float(p.grad)

    @pytest.mark.parametrize(
        "make", [lambda p: SGD(p, 0.1), AdamW, ExponentialMovingAverage, lambda p: clip_grad_norm(p, 1.0)]
    )
    def test_parameters(self, make):
        p = parameter(3)
        with nn.meta():
            meta = nn.Linear(4, 5).weight
        with pytest.raises(MinivitError) as caught:
            make([p, ("name", p), np.ones(3), p.exp(), p, parameter(2), meta])
        message = str(caught.value)
        for part in (
            "5 of 7 parameters cannot be learned",
            "number 1 is a tuple, not a Tensor",
            "number 2 is a ndarray",
            "number 3 (3,) was computed by exp",
            "number 4 (3,) is in the list twice",
            "number 6 (5, 4) is read-only",
            "model.parameters()",
        ):
            assert part in message
        with pytest.raises(MinivitError, match="no parameters"):
            make([])
        with pytest.raises(MinivitError, match="number 0 is a Linear, not a Tensor"):
            make(nn.Linear(3, 2))

    def test_a_generator_and_frozen_parameters_are_fine(self):
        p, frozen = parameter(3), Tensor(np.ones(2))
        before = p.data.copy()
        AdamW(x for x in (p, frozen)).step()
        assert not np.array_equal(p.data, before)
        np.testing.assert_array_equal(frozen.data, 1)


def test_an_optimiser_shows_its_numbers():
    p = Tensor(np.ones(2), requires_grad=True)
    assert repr(AdamW([p], lr=0.01)) == "AdamW(lr=0.01, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01)"
    assert repr(SGD([p], 1, momentum=0.5)) == "SGD(lr=1.0, momentum=0.5)"
    assert repr(ExponentialMovingAverage([p])) == "ExponentialMovingAverage(decay=0.999)"
