"""Threads: the same bits with any number of threads, and every kind of trouble in one of them."""

import os
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

import minivit
from minivit import Tensor, notebook, ops, optim, vit
from minivit.errors import MinivitError
from minivit.machinery import products, threads


@pytest.fixture
def four_threads():
    before = threads.get_num_threads()
    threads.set_num_threads(4)
    yield
    threads.set_num_threads(before)


def blas_threads():
    return [library.num_threads for library in threads._blas()]


def test_cuts_are_about_equal_and_leave_nothing_out():
    assert threads.cut(10, 3) == [slice(0, 3), slice(3, 6), slice(6, 10)]
    assert threads.cut(2, 5) == [slice(0, 1), slice(1, 2)]
    assert threads.cut(0, 4) == [slice(0, 0)]


def test_every_part_is_done_once(number):
    done = np.zeros(1000, int)

    def work(part):
        done[part] += 1

    threads.run(work, threads.cut(1000, 37))
    assert (done == 1).all()
    threads.run(work, [])


@pytest.mark.parametrize("parts", [2, 3])
def test_several_threads_work_at_the_same_time(parts, four_threads):
    threads.set_num_threads(parts)
    together = threading.Barrier(parts)  # nobody passes it before all are there
    threads.run(lambda part: together.wait(timeout=30), range(parts))
    assert not together.broken


def test_one_thread_is_the_one_that_calls():
    before = threads.get_num_threads()
    threads.set_num_threads(1)
    used = []
    threads.run(lambda part: used.append(threading.current_thread()), range(20))
    threads.set_num_threads(before)
    assert set(used) == {threading.current_thread()}


@pytest.mark.parametrize("failing", [0, 7, 19])
def test_an_error_in_one_part_is_raised_and_ends_the_others(number, failing):
    def work(part):
        if part == failing:
            raise ZeroDivisionError("part")

    with pytest.raises(ZeroDivisionError, match="part"):
        threads.run(work, range(20))
    threads.run(lambda part: None, range(20))  # and the threads go on working


def test_a_thread_that_failed_does_no_more_parts(number):
    tried = []

    def work(part):
        tried.append(part)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        threads.run(work, range(50))
    assert len(tried) <= number


def test_a_run_inside_a_run(number):
    total = np.zeros((6, 6), int)

    def outer(i):
        def inner(j):
            total[i, j] += 1

        threads.run(inner, range(6))

    threads.run(outer, range(6))
    assert (total == 1).all()


def test_runs_from_several_threads_at_once(four_threads):
    x, results = np.arange(300.0), []
    y = x[:, None] * np.ones((300, 400))

    def caller():
        results.append([products.product(y, y.T) for _ in range(5)])

    callers = [threading.Thread(target=caller) for _ in range(4)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert len(results) == 4
    for five in results:
        for product in five:
            np.testing.assert_allclose(product, y @ y.T, rtol=1e-12)


def test_blas_is_held_at_one_thread_in_every_thread(number):
    seen = []
    threads.run(lambda part: seen.extend(blas_threads()), range(8))
    assert set(seen) <= {1} and set(blas_threads()) <= {1}


def test_what_numpy_should_do_about_overflow_holds_in_all_threads(four_threads):
    x = np.full(100_000, 200.0, np.float32)

    def work(part):
        time.sleep(0.001)  # so that all threads take some
        np.exp(x[part])

    with np.errstate(over="ignore"):
        threads.run(work, threads.cut(len(x), 20))
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        threads.run(work, threads.cut(len(x), 20))


def test_a_worker_keeps_no_array_alive(four_threads):
    class Held:
        pass

    held = Held()
    alive = weakref.ref(held)
    threads.run(lambda part, held=held: time.sleep(0.001), range(8))
    del held
    deadline = time.perf_counter() + 10
    while alive() is not None and time.perf_counter() < deadline:
        time.sleep(0.01)
    assert alive() is None


@pytest.mark.parametrize("n", [0, -1, 2.5, "2", True, None])
def test_what_is_no_number_of_threads(n):
    with pytest.raises(MinivitError, match=r"set_num_threads: n=.*(?s:.*)n is a whole number, 1 to"):
        minivit.set_num_threads(n)


def test_threads_are_as_many_as_blas_was_told_to_take():
    environment = os.environ | dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-c", "import minivit; print(minivit.get_num_threads())"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "1" or not threads._blas()


def test_a_first_op_that_needs_one_thread_does_not_make_it_the_number_for_all():
    code = """
from minivit.machinery import products, threads
blas = max((library.num_threads for library in threads._blas()), default=None)
threads.run(lambda part: None, [0])
assert blas is None or threads.get_num_threads() == blas, (blas, threads.get_num_threads())
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes fork")
def test_a_forked_process_has_threads_of_its_own():
    code = """
import os, numpy as np
from minivit.machinery import products, threads
threads.set_num_threads(3)
x = np.ones((2000, 300))
products.product(x, x.T)
child = os.fork()
if child == 0:
    os._exit(0 if (products.product(x, x.T) == 300).all() and threads._workers == 2 else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    warnings = "-Wignore::DeprecationWarning"  # Python 3.12 warns of every fork of a process with threads
    assert subprocess.run([sys.executable, warnings, "-c", code], timeout=60).returncode == 0


def trained(n):
    """Every number that three steps of training and an inference give with n threads."""
    threads.set_num_threads(n)
    config = vit.ViTConfig(
        image_size=32, patch_size=4, hidden_size=96, num_hidden_layers=2, num_attention_heads=4, intermediate_size=200,
        num_labels=10, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
    )  # fmt: skip
    model = vit.ViTForImageClassification(config, rng=0)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((24, 3, 32, 32)).astype(np.float32), rng.integers(10, size=24)
    optimizer, losses = optim.AdamW(model.parameters(), lr=1e-3), []
    for _ in range(3):
        model.zero_grad()
        loss = model(x, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.data)
    learned = model.parameters()
    return [*losses, model.eval()(x).logits.data, *(p.data for p in learned), *(p.grad for p in learned)]


def test_training_gives_the_same_bits_with_any_number_of_threads():
    before = threads.get_num_threads()
    alone, *others = [trained(n) for n in (1, 2, 3)]
    threads.set_num_threads(before)
    for other in others:
        for one, same in zip(alone, other, strict=True):
            np.testing.assert_array_equal(one, same)


def test_the_notebooks_encoders_give_the_same_bits_with_any_number_of_threads():
    before, results = threads.get_num_threads(), []
    for n in (1, 2):
        threads.set_num_threads(n)
        model = notebook.Vit(10, 64, 2, 2, rng=0).eval()
        x = Tensor(np.random.default_rng(0).standard_normal((1500, 10)).astype(np.float32), requires_grad=True)
        y = model(x)
        y.backward(np.random.default_rng(1).standard_normal(y.shape).astype(np.float32))
        results.append([y.data, x.grad, *(p.grad for p in model.parameters())])
    threads.set_num_threads(before)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("op", ["gelu", "layer_norm", "linear", "scaled_dot_product_attention"])
def test_large_arrays_are_as_small_ones(op, number, rng):
    """What is cut into blocks equals, row for row, what is small enough to be one block."""
    x = rng.standard_normal((6, 500, 64))
    rest = {"layer_norm": rng.standard_normal((2, 64)), "linear": [rng.standard_normal((70, 64)), np.arange(70.0)]}
    rest |= {"gelu": [], "scaled_dot_product_attention": []}
    call = getattr(ops, op)

    def forward_and_backward(x):
        arrays = [x] * 3 if op.startswith("scaled") else [x]
        tensors = [Tensor(array, requires_grad=True) for array in arrays]
        y = call(*tensors, *rest[op])
        y.backward(np.cos(np.arange(y.size)).reshape(-1, y.shape[-1])[: y.shape[-2]] + np.zeros(y.shape))
        return y.data, *(tensor.grad for tensor in tensors)

    whole = forward_and_backward(x)
    for i in range(len(x)):
        for all_of_it, alone in zip(whole, forward_and_backward(x[i]), strict=True):
            np.testing.assert_allclose(all_of_it[i], alone, rtol=1e-10, atol=1e-12)


def test_products_do_not_depend_on_what_was_computed_before():
    code = """
import numpy as np, minivit
from minivit import Tensor, ops
from minivit.machinery import products, threads
minivit.set_num_threads(1)
rng = np.random.default_rng(0)
a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((301, 907), (907, 403)))
calls = {
    "matmul": lambda a, b: ops.matmul(a, b),
    "batch": lambda a, b: ops.matmul(a[None], b[None]),
    "einsum": lambda a, b: ops.einsum("ij,jk->ik", a, b),
}
def results():
    for call in calls.values():
        x, y = Tensor(a, requires_grad=True), Tensor(b, requires_grad=True)
        z = call(x, y)
        z.backward(np.ones_like(z.data))
        yield from (z.data, x.grad, y.grad)
before = list(results())
ops.linear(a, b.T)
assert all(np.array_equal(x, y) for x, y in zip(before, results(), strict=True))
"""
    for call in ("matmul", "batch", "einsum"):  # each of them first, in a process of its own
        first = code.replace("calls.values()", f"[calls['{call}'], *calls.values()]")
        assert subprocess.run([sys.executable, "-c", first], timeout=60).returncode == 0


def test_first_ops_in_several_threads_do_not_make_one_thread_the_number_for_all():
    code = """
import threading
from minivit.machinery import products, threads

class Library:
    num_threads = 7
    def set_num_threads(self, n):
        self.num_threads = n

def slow(blas=Library()):
    # all begin before the first has asked, and the others ask when it has long held BLAS at one
    threading.Event().wait(0.1 if threading.current_thread() is first[0] else 0.5)
    return [blas]

threads._blas = slow
first = [threading.Thread(target=threads.run, args=(lambda part: None, [0])) for _ in range(4)]
for thread in first:
    thread.start()
for thread in first:
    thread.join()
assert threads.get_num_threads() == 7, threads.get_num_threads()
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_no_more_threads_are_started_than_there_are_parts():
    code = """
from minivit.machinery import products, threads
threads.set_num_threads(1000)
threads.run(lambda part: None, [0, 1, 2])
assert threads._workers == 2, threads._workers
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
