"""The benchmark's arithmetic and form. Nothing is timed, and no peer needs to be installed."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minivit import nn, vit, weights
from tests import benchmark
from tests.benchmarks import measure, report, rows, with_minivit, worker
from tests.benchmarks.groups import One
from tests.benchmarks.worker import Worker, WorkerError


def found(**samples):
    """What measure.compare gives, with these seconds."""
    more = {"steps": 1, "baseline_bytes": 40e6, "peak_bytes": 90e6, "differs": 1e-6}
    return {peer.replace("_", " "): {"seconds": seconds, **more} for peer, seconds in samples.items()}


def test_flops_of_base():
    assert f"{rows.flops(rows.vit_task(rows.BASE, 1, train=False)) / 2e9:.2f}" == "17.56"  # GMAC, as in lesson 07


@pytest.mark.parametrize("batch", [1, 8])
def test_flops_of_a_step(batch):
    forward, step = (rows.flops(rows.vit_task(rows.TINY, batch, train)) for train in (False, True))
    to_pixels = 2 * batch * 196 * 3 * 16 * 16 * 192  # the one product of backward that nobody needs
    assert step == 3 * forward - to_pixels


def test_flops_of_the_trained_network_are_those_of_the_picture():
    """257 tokens where its own size has 1370; and no classes."""
    patches, maps, mlp, scores = 256 * 588 * 384, 4 * 257 * 384**2, 2 * 257 * 384 * 1536, 2 * 257**2 * 384
    assert rows.flops(rows.dinov2_task(224)) == 2 * (patches + 12 * (maps + mlp + scores))


def test_flops_of_the_notebook():
    task = {"kind": "notebook", "tokens": 5, "width": 8, "heads": 2, "encoders": 3}
    maps, scores, mlp = 3 * (5 * 2) * 4 * 4, 2 * 2 * 5 * 5 * 4, 2 * 5 * 8 * 8
    assert rows.flops(task) == 3 * 3 * 2 * (maps + scores + mlp)


def test_needed_memory():
    """Eight arrays of 960 MB, and nothing for what is not naive."""
    assert rows.needed_memory(rows.NOTEBOOK, "torch eager") == 8 * 4 * 8 * 5477**2
    assert rows.needed_memory(rows.NOTEBOOK, "torch sdpa") == 0
    assert rows.needed_memory(rows.vit_task(rows.BASE, 1), "torch eager") == 0


def test_weights_depend_on_their_names_alone():
    first, again = (rows.weight("a.weight", (4, 100)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32 and 0.08 < first.std() < 0.12
    assert abs(first - rows.weight("b.weight", (4, 100))).max() > 0.1
    assert abs(rows.weight("x.layernorm_after.weight", (1000,)).mean() - 1) < 0.01
    assert abs(rows.weight("x.layernorm_after.bias", (1000,)).mean()) < 0.01


def test_peers_are_measured_without_minivit_in_their_process():
    """It tells glibc to keep freed memory: a peer that gets that, too, is not what its users have."""
    code = "import sys; from tests.benchmarks import rows, worker; sys.exit('minivit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=worker.ROOT).returncode == 0
    for module in {peer.module for peer in worker.PEERS.values()} - {"with_minivit"}:
        text = Path(worker.__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import|from) minivit", text, re.M)


def test_parameter_shapes_are_the_models():
    with nn.meta():
        model = vit.ViTForImageClassification(vit.ViTConfig(**rows.DIGITS))
    assert rows.parameter_shapes(rows.DIGITS) == {name: p.shape for name, p in model.named_parameters()}


def test_the_trained_network_has_the_sizes_that_its_peers_are_made_of():
    config, tensors = weights.read_folder(weights.find("dinov2-small"))
    assert {name: config.get(name, 0) for name in rows.DINOV2} == rows.DINOV2  # num_labels 0: it has no head
    assert tensors.keys() == {
        name.removeprefix("vit.") for name in rows.parameter_shapes(rows.DINOV2) if not name.startswith("classifier")
    }


def test_the_numbers_that_peers_are_handed_are_those_of_the_model(tmp_path):
    bench = benchmark.Bench(benchmark.arguments([]), tmp_path)
    with np.load(bench.trained()) as file:
        named = dict(weights.dinov2_small().named_parameters())
        assert set(file.files) == named.keys()
        for name in file.files:
            np.testing.assert_array_equal(file[name], named[name].data)


def test_a_forward_pass_of_the_trained_network():
    """On a picture of 2 x 2 patches, whose positions are interpolated."""
    task = rows.dinov2_task(28)
    step, results = with_minivit.build(task, None, One())
    tokens = results()["tokens"]
    pixels = rows.numbers("pixels", (1, 3, 28, 28))
    expected = weights.dinov2_small()(pixels, interpolate_pos_encoding=True).last_hidden_state.data
    assert tokens.shape == (1, 5, 384)
    np.testing.assert_array_equal(tokens, expected)
    np.testing.assert_array_equal(step()["tokens"], tokens)


def test_layers():
    tasks = rows.layers(["digits", "Ti/16"])
    assert len(tasks) == 2 * (2 * 8 + 1)
    softmax = next(task for title, _, task in tasks if title == "Ti/16 softmax")
    assert softmax["shapes"] == {"x": (8, 3, 197, 197)}


def test_growth():
    for axis, points in rows.growth().items():
        sizes = [size for size, _ in points]
        assert sizes == sorted(sizes) and len(sizes) >= 4
        for size, task in points:
            tokens = (task["config"]["image_size"] // task["config"]["patch_size"]) ** 2 + 1
            assert size == {"batch": task["batch"], "tokens": tokens, "width": task["config"]["hidden_size"]}[axis]


@pytest.mark.parametrize("power", [0.0, 1.0, 1.7])
def test_exponent(power):
    sizes = np.array([2, 4, 8, 32])
    assert measure.exponent(sizes, 0.3 * sizes**power) == pytest.approx(power)


def test_quartiles():
    assert measure.quartiles([5, 1, 3, 2, 4]) == (2, 3, 4)


def test_ratio_is_taken_round_by_round():
    """A machine that is slow for a while does not change it: 2, whatever the rounds took."""
    assert measure.ratio([2, 20, 2, 200], [1, 10, 1, 100]) == 2


def test_difference(tmp_path):
    files = [str(tmp_path / f"{number}.npz") for number in range(5)]
    np.savez(files[0], a=np.array([1.0, -4.0]), b=np.float32(0.5))
    np.savez(files[1], a=np.array([1.0, -4.2]), b=np.float32(0.5))
    np.savez(files[2], a=np.array([1.0, np.nan]), b=np.float32(0.5))
    np.savez(files[3], a=np.array([1.0, -4.0]), c=np.float32(0.5))
    np.savez(files[4], a=np.array([[1.0, -4.0]]), b=np.float32(0.5))
    assert measure.difference(files[0], files[0]) == 0
    assert measure.difference(files[0], files[1]) == pytest.approx(0.05)
    assert measure.difference(files[0], files[2]) == np.inf
    for other in files[3:]:
        with pytest.raises(ValueError, match=r"[ab]: "):
            measure.difference(files[0], other)


@pytest.mark.parametrize(
    "seconds, text",
    [(13.82, "13.8 s"), (1.5, "1.50 s"), (0.1234, "123 ms"), (0.00234, "2.34 ms"), (4.5e-5, "45.0 us")],
)
def test_duration(seconds, text):
    assert report.duration(seconds) == text


def check_form(lines):
    """A Markdown table: ASCII, as wide in each line, under 120 columns; the second line rules."""
    assert len({len(line) for line in lines}) == 1 and len(lines[0]) < 120
    assert all(line.isascii() and line.startswith("| ") and line.endswith(" |") for line in lines)
    assert re.fullmatch(r"\|( -+:? \|)+", lines[1])
    assert len({line.count("|") for line in lines}) == 1


def test_tables():
    check_form(report.table(("name", "a number"), [("x", "1"), ("longer", "22")]))
    result = found(minivit=[1, 2, 3], torch_eager=[2, 4, 6], torch_sdpa=[4, 4, 4], HIPS_autograd=[10, 20, 30])
    lines = report.row_lines(result, images=64, flops=1e9, peak=1e9)
    check_form(lines)
    assert [line.split("|")[4].strip() for line in lines[2:]] == ["", "0.50", "0.50", "0.10"]
    assert lines[2].split("|")[5].strip() == "32.0"  # 64 images in 2 s
    assert lines[2].split("|")[7].strip() == "50%"  # 1e9 FLOP in 2 s, of 1e9 a second
    assert lines[2].split("|")[8].strip() == "90 (40)"
    result |= found(minivit_fast_x12=[0.1, 0.2, 0.3], torch_DDP_x12=[1, 1, 1])
    titles = {row.name: {"title": row.title, "images": 64, "peers": result} for row in rows.ROWS}
    check_form(report.summary(titles))
    check_form(report.best_lines(titles))
    layer = found(minivit=[1e-4], torch=[2e-4])
    layers = [{"title": t, "mode": m, "peers": layer} for t, m, _ in rows.layers(["digits", "Ti/16"])]
    check_form(report.layer_lines(layers))


def test_table_of_what_is_alone():
    results = {
        "a": {"title": "a", "found": {"seconds": [1, 3, 2], "whole": [2, 5, 4], "peak_bytes": 155e6}},
        "b": {"title": "b", "found": {"error": "no memory"}},
        "c": {"title": "c", "found": {"seconds": [1], "whole": [2], "peak_bytes": None}},
    }
    *lines, fault = report.alone_lines(results)
    check_form(lines)
    assert lines[2].split("|")[1:-1] == [" a    ", " 2.00 s ", " (1.50 s to 2.50 s) ", "        4.00 s ", "     155 "]
    assert lines[3].split("|")[5].strip() == "?"
    assert fault == "b is left out: no memory."
    assert report.alone_lines({"b": results["b"]}) == [fault]


def test_growth_table():
    points = [{"size": n, "peers": found(minivit=[n**1.5], torch_sdpa=[n**1.0])} for n in (1, 2, 4)]
    lines = report.growth_lines({"batch": points})
    check_form(lines[:5])
    check_form(lines[6:])
    assert lines[-1].split() == "| batch, 1 to 4 | 1.50 | 1.00 |".split()


def test_best():
    result = found(minivit=[3], minivit_fast=[1], torch_eager=[3], torch_sdpa=[2])
    assert report.best(result) == "minivit fast" and report.best_peer(result) == "torch sdpa"
    assert report.best_peer(found(minivit=[1])) is None and report.best(found(torch_eager=[1])) is None


def test_the_best_configuration_beside_each_peer():
    """The fastest by its median, here with two processes; its ratios are taken round by round."""
    result = found(minivit=[4, 4, 4], minivit_x2=[1, 3, 2], minivit_fast=[3, 3, 3], torch_eager=[2, 3, 8])
    result |= found(torch_DDP_x2=[4, 4, 4], HIPS_autograd=[20, 20, 20]) | {"torch sdpa": {"error": "no memory"}}
    lines = report.best_lines({"a": {"images": 50, "peers": result}, "b": {"images": 1, "peers": {}}})
    check_form(lines)
    cells = ["a", "x2", "2.00 s", "25.0", "0.50 (0.38 to 0.75)", "-", "0.50", "-", "0.10"]
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == cells and len(lines) == 3


@pytest.mark.parametrize("seconds, text", [(0.01, "6,400"), (0.64, "100"), (2, "32.0"), (25.6, "2.50")])
def test_images_per_second(seconds, text):
    assert report.per_second(64, seconds) == text


def test_scaling_table():
    """Strong: half of the batch each, in 0.6 of the time; weak: twice the images, in 1.25 of the time."""
    pairs = [("minivit", "minivit x2"), ("torch sdpa", "torch DDP x2")]
    strong = found(minivit=[1, 2, 4], minivit_x2=[0.6, 1.2, 2.4], torch_sdpa=[1]) | {"torch DDP x2": {"error": "none"}}
    weak = found(minivit=[2, 2, 2], minivit_x2=[2.5, 2.5, 2.5])
    results = [
        {"row": "a, B 8", "kind": "strong", "images": [8, 8], "pairs": pairs, "peers": strong},
        {"row": "a, B 8 each", "kind": "weak", "images": [8, 16], "pairs": pairs, "peers": weak},
    ]
    *lines, fault = report.scaling_lines(results)
    check_form(lines)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert cells[0] == ["a, B 8", "strong", "minivit x2", "4.00", "6.67", "1.67", "83%"]
    assert cells[1] == ["a, B 8 each", "weak", "minivit x2", "4.00", "6.40", "1.60", "80%"]
    assert len(cells) == 2 and fault == "a, B 8, strong: torch DDP x2 is left out: none."
    assert [rows.images(task, 2) for _, _, task in rows.scaling()] == [50, 100, 8, 16]
    assert rows.images(rows.NOTEBOOK) == 1


def test_a_peer_that_failed_is_said():
    result = found(minivit=[1.0, 1.0]) | {"torch eager": {"error": "no memory"}}
    assert report.row_lines(result, 1, 1, 1)[-1] == "torch eager is left out: no memory."
    assert report.summary({"x": {"title": "x", "peers": result}})[-1].split("|")[3].strip() == "-"
    assert report.row_lines({"minivit": {"error": "no"}}, 1, 1, 1) == ["minivit is left out: no."]


def test_figure(tmp_path):
    result = found(minivit=[1, 2, 3], torch_eager=[2, 4, 6]) | {"torch sdpa": {"error": "no memory"}}
    report.draw({"a": {"title": "a: step", "peers": result}, "b": {"title": "b", "peers": {}}}, tmp_path / "bars.png")
    report.draw({}, tmp_path / "none.png")
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("bars.png", "none.png"))


def test_machine():
    text = report.machine()
    assert {"CPU", "NumPy", "torch"} <= text.keys() and all(value.isascii() for value in text.values())


class Failing:
    """A worker whose memory runs out when it builds, or computes something else, or ends in round 2."""

    hello: dict = {"baseline": 1, "threads": None}  # noqa: RUF012

    def __init__(self, fault=None, seconds=1.0):
        self.fault, self.seconds, self.steps = fault, seconds, 0

    def ask(self, do, **fields):
        if do == "build":
            if self.fault == "build":
                raise WorkerError("MemoryError")
            np.savez(fields["results"], y=np.full(3, 2.0 if self.fault == "other" else 1.0))
        self.steps += do == "step"
        if self.fault == "step" and self.steps == 3:
            raise WorkerError("killed")
        return {"seconds": self.seconds, "peak": 2}


def test_a_worker_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "PAUSE", 0)
    workers = {fault or "well": Failing(fault) for fault in ("build", None, "step", "other")}
    result = measure.compare(workers, {}, rounds=4, least=2, budget=9, folder=tmp_path)
    assert result["build"] == {"error": "MemoryError"} and result["step"] == {"error": "killed"}
    assert result["other"]["error"].startswith("other results: they differ by 1.0e+00")
    assert result["well"]["seconds"] == [1.0] * 4 and result["well"]["peak_bytes"] == 2


@pytest.mark.parametrize("seconds, asked", [(10.0, 0), (1.0, 1), (0.01, 2)])
def test_what_warms_a_peer_up(seconds, asked, tmp_path, monkeypatch):
    """A step and then a whole sample, which often is one step; of a long step, that of the results is enough."""
    monkeypatch.setattr(measure, "PAUSE", 0)
    peer = Failing(seconds=seconds)
    found = measure.compare({"minivit": peer}, {}, 2, 2, 9, tmp_path)["minivit"]
    assert len(found["seconds"]) == 2 and peer.steps == asked + 2


def test_the_budget_ends_the_rounds(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "PAUSE", 0)
    result = measure.compare({"minivit": Failing()}, {}, rounds=99, least=5, budget=-1, folder=tmp_path)
    assert len(result["minivit"]["seconds"]) == 5


def test_alone_a_new_process_does_the_task_once_in_each_round(tmp_path):
    started = []

    def start(fault=None):
        started.append(Failing(fault))
        return contextlib.nullcontext(started[-1])

    found = measure.alone(start, {}, 4, 2, 9, tmp_path)
    assert found["seconds"] == [1.0] * 4 and len(found["whole"]) == 4 and found["peak_bytes"] == 2
    assert [worker.steps for worker in started] == [1] * 4
    assert measure.alone(lambda: start("build"), {}, 4, 2, 9, tmp_path) == {"error": "MemoryError"}


def test_a_command_runs_in_the_folder_it_gets(tmp_path):
    task = {"kind": "command", "argv": ["exercise", "05"], "folder": str(tmp_path)}
    step, results = with_minivit.build(task, None, One())
    assert results() == {} and not any(tmp_path.iterdir())  # nothing is done before it is timed
    step()
    assert [path.name for path in tmp_path.iterdir()] == ["exercise_05.py"]
    step, _ = with_minivit.build(task | {"argv": ["tour", "nothing.jpg"]}, None, One())
    with pytest.raises(RuntimeError, match=r"^minivit tour nothing\.jpg ended with exit code 2$"):
        step()


def test_a_worker_that_ends_is_explained():
    with Worker("minivit", "vit") as running:
        assert running.hello["baseline"] is None or running.hello["baseline"] > 1e7
        with pytest.raises(WorkerError, match="KeyError"):
            running.ask("build", task={"kind": "no such task"}, results="")
        running.process.kill()
        with pytest.raises(WorkerError, match="the worker"):
            running.ask("memory")


def test_a_worker_that_cannot_start_says_why():
    with Worker("minivit", "vit", "many") as running, pytest.raises(WorkerError, match="code 1: ValueError: invalid"):
        running.ask("memory")


def test_command(tmp_path, capsys):
    """A tiny row, minivit alone; its numbers are in the file and its figure beside it."""
    path = tmp_path / "numbers.json"
    options = ["--quick", "--rounds", "3", "--rows", "toy", "--peers", "minivit", "--json", str(path)]
    assert benchmark.main(options) == 0
    printed = capsys.readouterr().out
    assert "## 4x4 p2 D8 L1 h2 F16, B 2: training step" in printed
    assert printed.replace(str(tmp_path), "").isascii()
    assert all(len(line) < 120 for line in printed.splitlines())
    numbers = json.loads(path.read_text(encoding="utf-8"))
    assert len(numbers["rows"]["toy"]["peers"]["minivit"]["seconds"]) == 3
    assert (tmp_path / "numbers.png").exists()


def test_command_of_what_is_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark.Bench, "peak", lambda self: 1e9)
    path = tmp_path / "numbers.json"
    options = ["--quick", "--rounds", "1", "--rows", "dinov2-load", "--json", str(path)]
    assert benchmark.main([*options, "--peers", "torch"]) == 0 and "alone\n" not in capsys.readouterr().out
    assert benchmark.main(options) == 0
    assert "\n## minivit alone\n\n| what                   | " in capsys.readouterr().out
    found = json.loads(path.read_text(encoding="utf-8"))["alone"]["dinov2-load"]["found"]
    assert len(found["seconds"]) == 1
    assert found["peak_bytes"] is None or found["peak_bytes"] > 88e6  # 22 million numbers in float32


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--rows", "digits,huge"], "--rows: 'huge' is not known; choose from digits, cifar, "),
        (["--peers", "jax"], "--peers: 'jax' is not known; choose from minivit, minivit fast, "),
        (["--rounds", "0"], "--rounds is a whole number from 1 on"),
        (["--processes", "1"], "--processes is a whole number from 2 on"),
        (["--peers", "minivit x3"], "--peers: 'minivit x3' is not known; choose from minivit, "),
    ],
)
def test_an_option_that_does_not_hold(argv, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(argv)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_ctrl_c_keeps_what_was_measured(monkeypatch, capsys):
    monkeypatch.setattr(benchmark.Bench, "peak", lambda self: 1e9)

    def row(self, row, peak):
        if row.name == "cifar":
            raise KeyboardInterrupt
        self.found["rows"][row.name] = {"title": row.title, "images": 1, "peers": found(minivit=[1.0])}

    monkeypatch.setattr(benchmark.Bench, "row", row)
    assert benchmark.main([]) == 130
    printed = capsys.readouterr().out
    assert "stopped" in printed and rows.ROWS[0].title in printed and rows.ROWS[1].title not in printed


class Part:
    """A process of several; gather() is told what they would give."""

    def __init__(self, rank, size, given=None):
        self.rank, self.size, self.given = rank, size, given

    def gather(self, value):
        return self.given


def test_processes_share_a_batch():
    """Seven examples by three: each is somebody's, and their losses weigh as they are many."""
    task = rows.vit_task(rows.TOY, 7)
    pixels, labels = rows.batch(task, One())
    parts = [rows.batch(task, Part(rank, 3)) for rank in range(3)]
    assert [len(labels) for _, labels in parts] == [2, 2, 3]
    np.testing.assert_array_equal(np.concatenate([part for part, _ in parts]), pixels)
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), labels)
    given = [(np.full((n, 10), n), n * loss) for n, loss in ((2, 1.0), (2, 4.0), (3, 5.0))]
    found = rows.gathered(task, Part(0, 3, given), given[0][0], 1.0)
    assert found["logits"].shape == (7, 10) and found["loss"] == pytest.approx(25 / 7)


def test_in_a_weak_step_each_process_takes_the_whole_batch():
    task = rows.vit_task(rows.TOY, 7) | {"each": True}
    pixels, labels = rows.batch(task, Part(1, 3))
    assert len(pixels) == len(labels) == 7
    given = [(np.zeros((7, 10)), 14.0)] * 3
    found = rows.gathered(task, Part(0, 3, given), given[0][0], 2.0)
    assert found["logits"].shape == (7, 10) and found["loss"] == 2


def test_peers_of_several_processes():
    assert worker.peer_of("minivit fast x12") == (worker.PEERS["minivit fast xN"], 12)
    assert worker.peer_of("torch") == (worker.PEERS["torch"], 1)
    options = benchmark.arguments(["--processes", "3"])
    assert "torch DDP x3" in options.peers and not any(peer.endswith("x2") for peer in options.peers)
    assert all(peer in worker.PEERS for row in rows.ROWS for peer in row.peers)
    assert all(peer in worker.PEERS for pair in rows.SCALED for peer in pair)


def test_all_peers_that_are_installed_compute_the_same(tmp_path):
    """Whatever of them is there: with and without compiled loops, in one and in two processes, of uneven parts."""
    toy = rows.TOY | {"num_hidden_layers": 2}
    peers = [benchmark.with_processes(peer, 2) for peer in rows.BATCH]
    tasks = [rows.vit_task(toy, 3), rows.vit_task(toy, 3) | {"each": True}]
    check_same(peers, "vit", tasks, tmp_path)


def test_the_trained_network_is_the_same_in_all_peers_that_are_installed(tmp_path):
    task = rows.dinov2_task(28) | {"weights": benchmark.Bench(benchmark.arguments([]), tmp_path).trained()}
    check_same(["minivit", "minivit fast", "onnxruntime"], "dinov2", [task], tmp_path)


def check_same(peers, kind, tasks, folder):
    """Those of the peers that are installed are asked as the benchmark does, and give the same results."""
    with contextlib.ExitStack() as stack:
        started = {peer: stack.enter_context(Worker(peer, kind, 1)) for peer in peers if not worker.missing(peer)}
        for task in tasks:
            result = measure.compare(started, task, 1, 1, 0, folder)
            assert [found.get("error") for found in result.values()] == [None] * len(started)
            assert all(found["differs"] < 1e-5 for peer, found in result.items() if peer != "minivit")


def test_plain_minivit_has_no_compiled_loops():
    """Installed numba does not change what it measures."""
    code = "import sys, numpy; from minivit import ops; ops.gelu(numpy.ones(3)); sys.exit('numba' in sys.modules)"
    environment = os.environ | worker.PEERS["minivit"].environment
    assert subprocess.run([sys.executable, "-c", code], cwd=worker.ROOT, env=environment).returncode == 0


@pytest.mark.parametrize("peer", ["minivit", "minivit x2", "torch DDP x2"])
def test_a_peer_is_stopped_outside_of_its_turn(peer, tmp_path):
    """All its processes, so that none that waits or spins takes a core from another peer."""
    if not worker.missing(peer) and sys.platform == "linux":
        with Worker(peer, "vit", 1) as running:
            assert len(running.hello["pids"]) == worker.peer_of(peer)[1]
            check_stopped(running)
            running.ask("build", task=rows.vit_task(rows.TOY, 2), results=str(tmp_path / "found.npz"))
            check_stopped(running)
            running.ask("step", steps=2)
            check_stopped(running)


def check_stopped(running):
    """In /proc, T is the state of a process that was stopped."""
    states = set()
    for _ in range(100):  # a signal takes a moment to arrive
        stats = [Path(f"/proc/{pid}/stat").read_text(encoding="utf-8") for pid in running.hello["pids"]]
        states = {stat.rpartition(")")[2].split()[0] for stat in stats}
        if states == {"T"}:
            return
        time.sleep(0.05)
    raise AssertionError(f"states {states}")


@pytest.mark.parametrize("peer", ["minivit x2", "torch DDP x2"])
def test_a_process_that_fails_does_not_leave_the_others_waiting(peer, tmp_path):
    """Of one example the first of two processes has none, and the other waits for its gradients."""
    if not worker.missing(peer):
        with Worker(peer, "vit", 1) as running:
            with pytest.raises(WorkerError):
                running.ask("build", task=rows.vit_task(rows.TOY, 1), results=str(tmp_path / "found.npz"))
            with pytest.raises(WorkerError, match="the worker ended"):
                running.ask("memory")


def test_missing_peers():
    assert worker.missing("minivit") == []
