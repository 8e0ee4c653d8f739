"""How fast minivit is, beside PyTorch and others: `python -m tests.benchmark [--quick] [--json FILE]`.

Not a test: it takes a quarter of an hour. The peers come with `pip install -e '.[bench,fast,mpi]'`; what is not
installed is left out. The files are in tests/benchmarks/: rows.py says what is measured, with_*.py how each peer
computes it, worker.py runs a peer in processes of its own, which talk as groups.py says, measure.py takes the times,
report.py prints and draws.
"""

import argparse
import contextlib
import functools
import json
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np

from minivit import weights

from .benchmarks import report
from .benchmarks.measure import alone, compare, free_memory
from .benchmarks.rows import ALONE, QUICK, ROWS, SCALED, TOY_ROW, flops, growth, images, layers, needed_memory, scaling
from .benchmarks.worker import PEERS, Worker, WorkerError, missing

PARTS = [row.name for row in [*ROWS, *ALONE]] + ["scaling", "layers", "growth"]


def arguments(argv):
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, and only what takes seconds")
    parser.add_argument("--rows", metavar="NAMES", help=f"some of {','.join([*PARTS, TOY_ROW.name])}")
    parser.add_argument("--peers", metavar="NAMES", help=f"some of {','.join(PEERS)}")
    parser.add_argument("--rounds", type=int, metavar="N", help="at most N rounds for each row")
    parser.add_argument("--threads", type=int, metavar="N", help="threads for each peer, not its library's choice")
    parser.add_argument("--processes", type=int, metavar="N", default=2, help="for the peers that share a batch: 2")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all samples; a figure is saved beside it")
    parser.add_argument("--figure", metavar="FILE", type=Path, help="draw the ratios to this PNG file")
    options = parser.parse_args(argv)
    peers = [with_processes(peer, options.processes) for peer in PEERS]
    for name, known in (("rows", [*PARTS, TOY_ROW.name]), ("peers", peers)):
        chosen = getattr(options, name)
        chosen = None if chosen is None else [part.strip() for part in chosen.split(",")]
        unknown = [part for part in chosen or () if part not in known]
        if unknown:
            parser.error(f"--{name}: {unknown[0]!r} is not known; choose from {', '.join(known)}")
        setattr(options, name, chosen)
    for name, least in (("rounds", 1), ("threads", 1), ("processes", 2)):
        if getattr(options, name) is not None and getattr(options, name) < least:
            parser.error(f"--{name} is a whole number from {least} on")
    options.rows = options.rows or (list(QUICK) if options.quick else PARTS)
    options.peers = options.peers or peers
    if options.json and not options.figure:
        options.figure = options.json.with_suffix(".png")
    return options


def with_processes(peer, N):
    """The name of a peer, with the number of processes in the place of N."""
    return peer.replace("xN", f"x{N}")


class Bench:
    """One run: its options, the machine's peak, and what was found so far, which goes to the JSON file."""

    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        settings = {key: value for key, value in vars(options).items() if key not in ("json", "figure")}
        self.found = {"machine": report.machine(), "settings": settings}
        self.found |= {"rows": {}, "scaling": [], "alone": {}, "layers": [], "growth": {}}

    def limits(self, rounds, budget, least=5):
        """What measure.turns takes, in this run: at most so many rounds, and about so many seconds."""
        rounds, least, budget = (5, 3, 3) if self.options.quick else (rounds, least, budget)
        return self.options.rounds or rounds, least, budget

    def compare(self, workers, task, *limits):
        """measure.compare with the rounds of this run."""
        return compare(workers, task, *self.limits(*limits), self.folder)

    def chosen(self, peers):
        """The names of those of the peers that are chosen and installed."""
        names = [with_processes(peer, self.options.processes) for peer in peers]
        return [peer for peer in names if peer in self.options.peers and not missing(peer)]

    @contextlib.contextmanager
    def workers(self, kind, peers, threads=None):
        """{peer: Worker} of self.chosen(peers), started together; ended when the block ends."""
        threads = threads or self.options.threads
        with contextlib.ExitStack() as stack:
            started = {peer: stack.enter_context(Worker(peer, kind, threads)) for peer in self.chosen(peers)}
            for worker in started.values():
                with contextlib.suppress(WorkerError):  # it is said where the worker is first asked
                    worker.hello  # noqa: B018  all imports are done before anything is timed
            yield started

    def peak(self):
        """The most FLOP/s of any of NumPy's float32 matrix products n by n: they take 2 n^3."""
        sizes = (512, 1024, 2048) if self.options.quick else (512, 1024, 2048, 4096)
        rates = {}
        with Worker("minivit", "product", self.options.threads) as worker:
            for n in sizes:
                found = compare({"minivit": worker}, {"kind": "product", "n": n}, 7, 3, 5, self.folder)["minivit"]
                if "error" in found:
                    raise SystemExit(f"NumPy's matrix products {n} x {n} cannot be measured: {found['error']}")
                rates[n] = 2 * n**3 / min(found["seconds"])
        self.found["matrix_product_flops"] = rates
        n = max(rates, key=rates.get)
        print(f"matrix products: {rates[n] / 1e9:.0f} GFLOP/s, NumPy, float32, {n} x {n}\n", flush=True)
        return rates[n]

    def row(self, row, peak):
        """Measure and print one row."""
        with self.workers(row.task["kind"], row.peers) as workers:
            free, skipped = free_memory(), {}
            for peer in list(workers):
                needed = needed_memory(row.task, peer)
                if free is not None and needed > free:
                    del workers[peer]
                    why = f"it needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
                    skipped[peer] = {"error": why}
            task = row.task | ({"weights": self.trained()} if row.task["kind"] == "dinov2" else {})
            peers = self.compare(workers, task, 21, 40, row.least) | skipped
        work, count = flops(row.task), images(row.task)
        found = {"title": row.title, "task": row.task, "images": count, "flops": work, "peers": peers}
        self.found["rows"][row.name] = found
        print(f"## {row.title}\n\n{work / 1e9:.3g} GFLOP in matrix products\n")
        self.show(report.row_lines(peers, count, work, peak))

    def scaling(self):
        """Measure and print what a second process adds, and the third, ...: each has one thread."""
        N = self.options.processes
        pairs = [names for pair in SCALED if len(names := self.chosen(pair)) == 2]
        if not pairs:
            return
        with self.workers("vit", [peer for pair in pairs for peer in pair], threads=1) as workers:
            for name, kind, task in scaling():
                peers = self.compare(workers, task, 7, 10, 3)
                counts = [images(task), images(task, N)]
                found = {"row": name, "kind": kind, "images": counts, "pairs": pairs, "peers": peers}
                self.found["scaling"].append(found)
        print(f"## Scaling: a training step in 1 process and in {N}, one thread each, in images per second\n")
        self.show(report.scaling_lines(self.found["scaling"]))

    def trained(self):
        """A file of the numbers of the network in the box {name: float32 array}, for peers that cannot read the box."""
        path = Path(self.folder, "dinov2.npz")
        if not path.exists():
            _, tensors = weights.read_folder(weights.find("dinov2-small"))
            np.savez(path, **tensors)
        return str(path)

    def alone(self, chosen):
        """Measure and print what minivit does alone."""
        for row in chosen:
            start = functools.partial(Worker, "minivit", row.task["kind"], self.options.threads)
            found = alone(start, row.task, *self.limits(7, 20, 3), self.folder)
            self.found["alone"][row.name] = {"title": row.title, "found": found}
        print("## minivit alone\n")
        self.show(report.alone_lines(self.found["alone"]))

    def layers(self):
        """Measure and print each layer beside PyTorch's."""
        tasks = layers(("digits",) if self.options.quick else ("digits", "Ti/16"))
        with self.workers("layer", ("minivit", "minivit fast", "torch")) as workers:
            for title, mode, task in tasks:
                peers = self.compare(workers, task, 9, 2)
                self.found["layers"].append({"title": title, "mode": mode, "peers": peers})
        print("## Layer by layer\n")
        self.show(report.layer_lines(self.found["layers"]))

    def growth(self):
        """Measure and print how a training step's time grows with one size."""
        with self.workers("vit", ("minivit", "torch sdpa")) as workers:
            for axis, points in growth(self.options.quick).items():
                self.found["growth"][axis] = []
                for size, task in points:
                    peers = self.compare(workers, task, 5, 10)
                    self.found["growth"][axis].append({"size": size, "peers": peers})
        print("## Growth: a training step of two blocks, in which one size grows\n")
        self.show(report.growth_lines(self.found["growth"]))

    def show(self, lines):
        """Print lines, and keep in the JSON file what there is so far."""
        print("\n".join([*lines, ""]), flush=True)
        if self.options.json:
            self.options.json.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8", newline="\n")

    def run(self):
        """All that was chosen."""
        print("# minivit, measured\n")
        print("\n".join(report.table(("machine", ""), list(self.found["machine"].items()), left=2)), flush=True)
        absent = [f"{peer} ({', '.join(missing(peer))})" for peer in self.options.peers if missing(peer)]
        if absent:
            print(f"\nleft out, since what they need is not installed: {', '.join(absent)}")
        print(f"\n{report.NOTE}\n")
        peak = self.peak()
        for row in [*ROWS, TOY_ROW]:
            if row.name in self.options.rows:
                self.row(row, peak)
        if "scaling" in self.options.rows:
            self.scaling()
        chosen = [row for row in ALONE if row.name in self.options.rows and "minivit" in self.options.peers]
        if chosen:
            self.alone(chosen)
        if "layers" in self.options.rows:
            self.layers()
        if "growth" in self.options.rows:
            self.growth()


def main(argv=None):
    """Returns the exit code."""
    options = arguments(argv)
    stopped = False
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, folder)
        try:
            bench.run()
        except KeyboardInterrupt:
            stopped = True
            print("\nstopped: what was measured so far\n")
    if bench.found["rows"]:
        print("## All rows: time of minivit, and its ratio to each peer\n")
        bench.show(report.summary(bench.found["rows"]))
        print("## All rows: time of minivit's fastest configuration, and its ratio to each peer\n")
        bench.show(report.best_lines(bench.found["rows"]))
        if options.figure:
            report.draw(bench.found["rows"], options.figure)
            print(f"figure: {options.figure}")
    return 130 if stopped else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended from outside, as by Ctrl-C: no worker stays
    sys.exit(main())
