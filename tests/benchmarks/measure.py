"""Measuring peers side by side, and what is made of the samples: quartiles, ratios, exponents."""

import math
import statistics
import time
import zipfile
from pathlib import Path

import numpy as np

from .worker import WorkerError, memory_file

SAMPLE = 0.05  # seconds: a sample is as many steps as take this long, so that the clock and a hiccup weigh little
PAUSE = 0.05  # seconds before a sample: where no peer can be stopped, threads of the one before spin for up to 30 ms
LONG = 8.0  # seconds: a step that takes longer is warm after its results; loops are compiled in less
TOLERANCE = 1e-4  # how far results may lie apart, of their largest number, to be the same work in float32


def quartiles(samples):
    """(first quartile, median, third quartile)."""
    return tuple(float(value) for value in np.quantile(samples, (0.25, 0.5, 0.75)))


def ratio(mine, theirs):
    """The median of mine / theirs, round by round: what slows the machine for a while slows both of a pair."""
    return statistics.median(a / b for a, b in zip(mine, theirs, strict=True))


def exponent(sizes, seconds):
    """p of the law seconds ~ size^p that fits best: least squares on the logarithms."""
    x, y = np.log(sizes), np.log(seconds)
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / (x @ x))


def difference(mine, theirs):
    """How far two files of results lie apart: the largest |a - b| / max |a| of all arrays. ValueError: other arrays."""
    with np.load(mine) as a, np.load(theirs) as b:
        forms = [{name: file[name].shape for name in file.files} for file in (a, b)]
        if forms[0] != forms[1]:
            name = next(name for name in forms[0] | forms[1] if forms[0].get(name) != forms[1].get(name))
            raise ValueError(f"{name}: {forms[0].get(name)} and {forms[1].get(name)}")
        # a NaN must not hide behind max(): it compares as false with everything
        apart = [float(np.abs(a[name] - b[name]).max() / max(np.abs(a[name]).max(), 1e-30)) for name in a.files]
    return math.inf if any(map(math.isnan, apart)) else max(apart)


def turns(rounds, least, budget):
    """The numbers of the rounds: at most `rounds`, and after `budget` seconds no new one, once the `least` are made."""
    start = time.monotonic()
    for number in range(rounds):
        if number >= least and time.monotonic() - start > budget:
            return
        yield number


def compare(workers, task, rounds, least, budget, folder):
    """Let peers take turns at one task: A B C A B C ... {peer: {"seconds": [one a round], ...}}.

    workers: {peer: Worker}; the first one alive is what the others' results are compared with, before anything is
    timed. rounds, least, budget: see turns.
    A peer that fails or computes something else has "error": why, and no seconds; the others go on.
    """
    found = {peer: {} for peer in workers}
    alive = dict(workers)

    def ask(peer, do, **fields):
        try:
            return alive[peer].ask(do, **fields)
        except WorkerError as error:
            found[peer] = {"error": str(error)}
            del alive[peer]
            return None

    reference, first = None, {}
    for number, peer in enumerate(workers):
        path = str(Path(folder, f"{number}.npz"))
        answer = ask(peer, "build", task=task, results=path)
        if answer is None:
            continue
        first[peer] = answer["seconds"]
        reference = reference or path
        try:
            apart = difference(reference, path)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            apart, other = math.inf, f"other results: {error}"
        else:
            other = f"other results: they differ by {apart:.1e} of the largest number"
        if apart > TOLERANCE:
            found[peer] = {"error": other}
            del alive[peer]
        elif path != reference:
            found[peer]["differs"] = apart
    for peer in list(alive):  # warm up: results() took a step or two, this is one more and says how many are a sample
        answer = ask(peer, "step", steps=1) if first[peer] < LONG else {"seconds": first[peer]}
        if answer:
            found[peer] |= {"steps": max(1, math.ceil(SAMPLE / answer["seconds"])), "seconds": []}
            ask(peer, "step", steps=found[peer]["steps"]) if found[peer]["steps"] > 1 else None
    for _ in turns(rounds, least, budget):
        for peer in list(alive):
            time.sleep(PAUSE)
            steps = found[peer]["steps"]
            answer = ask(peer, "step", steps=steps)
            if answer:
                found[peer]["seconds"].append(answer["seconds"] / steps)
    for peer in list(alive):
        answer = ask(peer, "memory")
        if answer:
            hello = alive[peer].hello
            found[peer] |= {"baseline_bytes": hello["baseline"], "peak_bytes": answer["peak"]}
            found[peer]["threads"] = hello["threads"]
    return found


def alone(start, task, rounds, least, budget, folder):
    """A task that a new process does once, in each round. rounds, least, budget: see turns.

    start(): a Worker, whose build does nothing of the task yet; the task gets a folder to work in. Returns {"seconds":
    [one a round], "whole": [the same from the start of the process on], "peak_bytes": the most}, or {"error": why}.
    """
    seconds, whole, peaks = [], [], []
    for _ in turns(rounds, least, budget):
        try:
            began = time.perf_counter()
            with start() as worker:
                worker.ask("build", task=task | {"folder": str(folder)}, results=str(Path(folder, "alone.npz")))
                seconds.append(worker.ask("step", steps=1)["seconds"])
                whole.append(time.perf_counter() - began)
                peaks.append(worker.ask("memory")["peak"])
        except WorkerError as error:
            return {"error": str(error)}
    return {"seconds": seconds, "whole": whole, "peak_bytes": None if None in peaks else max(peaks)}


def free_memory():
    """Bytes that programs may still take; None where that is not known."""
    return memory_file("/proc/meminfo", "MemAvailable")
