"""What all tests share."""

import shutil

import numpy as np
import pytest

from minivit import Tensor, manual_seed
from minivit.machinery import threads


def pytest_terminal_summary(terminalreporter):
    """How long each lesson took."""
    reports = [report for report in terminalreporter.stats.get("passed", []) if "test_a_lesson_runs" in report.nodeid]
    if reports:
        terminalreporter.section("seconds a lesson")
    for report in sorted(reports, key=lambda report: report.nodeid):
        terminalreporter.line(f"{report.duration:6.1f}  {report.nodeid.rpartition('::')[2]}")


@pytest.fixture(params=[1, 2, 5])
def number(request):
    """The number of threads that the ops use in this test."""
    before = threads.get_num_threads()
    threads.set_num_threads(request.param)
    yield request.param
    threads.set_num_threads(before)
@pytest.fixture(autouse=True)
def _same_layers_in_any_order_of_the_tests():
    manual_seed(0)


@pytest.fixture(scope="session")
def browser():
    """A Chromium for playwright; tests that need one are skipped where it or playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="there is no browser: pip install playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"there is no browser: none of {', '.join(names)} is on the PATH")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def assert_same():
    """assert_same(fused, composed, *arrays): both functions give the same value and the same gradients, in float64."""

    def check(fused, composed, *arrays, tolerance=1e-12):
        results = []
        for fn in (fused, composed):
            tensors = [Tensor(np.array(x, dtype=np.float64), requires_grad=True) for x in arrays]
            value = fn(*tensors)
            value.backward(np.random.default_rng(1).standard_normal(value.shape))
            results.append([value.data, *(t.grad for t in tensors)])
        for one, other in zip(*results, strict=True):
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * max(1, abs(other).max()))

    return check
