"""What is printed and drawn: the machine, tables in Markdown, the figure."""

import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path

import numpy as np

import minivit

from .measure import exponent, quartiles, ratio

NOTE = """Times are medians over rounds in which the peers take turns, each in a process of its own; in brackets the
quartiles. A ratio is the median of the rounds' ratios: below 1, minivit is faster. Peak is the most memory the
process held, of which it held the baseline after its imports. Before anything was timed, the peers had given the
same results from the same weights: "apart" is the largest difference, relative to the largest number. The notebook's
"torch eager" is naive attention in einsum; dropout is 0 everywhere; all is float32. Beside other programs, times of a
few milliseconds are noise: a forward pass may seem longer than forward and backward. DINOv2 is the trained network in
the box, its positions interpolated to the picture; PyTorch is handed the same numbers in float32. What minivit does
alone is done once by a new process in each round, whose time is told, too, from the start of Python on."""


def machine():
    """What the numbers depend on: {label: text}."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    found = {
        "CPU": f"{cpu}, {usable} cores to use of {os.cpu_count()}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "minivit": minivit.__version__,
        "NumPy": f"{np.__version__}, BLAS {blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
    }
    for package in ("torch", "transformers", "autograd"):
        here = importlib.util.find_spec(package) is not None
        found[package] = importlib.metadata.version(package) if here else "not installed: its peers are left out"
    if hasattr(os, "getloadavg"):
        found["load at the start"] = f"{os.getloadavg()[0]:.1f} (other programs at work make all numbers noisy)"
    return found


def table(head, lines, left=1):
    """A Markdown table as a list of lines: `left` columns are aligned to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (head, *lines)) for i in range(len(head))]

    def line(row):
        cells = [
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return [line(head), line(rule), *(line(row) for row in lines)]


def duration(seconds):
    """1.234 s as "1.23 s", 0.01234 s as "12.3 ms": three digits."""
    units = ((1, "s"), (1e-3, "ms"), (1e-6, "us"))
    size, unit = next((size, unit) for size, unit in units if seconds >= size or unit == "us")
    value = seconds / size
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def megabytes(count):
    """Bytes as a number of MB; "?" where it was not measured."""
    return "?" if count is None else f"{count / 1e6:,.0f}"


def timed(found):
    """{peer: seconds} of the peers that were measured to the end."""
    return {peer: result["seconds"] for peer, result in found.items() if result.get("seconds")}


def best(found):
    """The fastest peer beside minivit, or None."""
    medians = {peer: quartiles(s)[1] for peer, s in timed(found).items() if peer != "minivit"}
    return min(medians, key=medians.get) if medians else None


def against(found, peer):
    """The ratio minivit / peer as text, "-" where one of them is missing."""
    seconds = timed(found)
    return f"{ratio(seconds['minivit'], seconds[peer]):.2f}" if {"minivit", peer} <= seconds.keys() else "-"


def row_lines(found, flops, peak):
    """The table of one row; flops: of one step; peak: FLOP/s of the machine. Then what could not be measured."""
    lines = []
    for peer, seconds in timed(found).items():
        result, (low, middle, high) = found[peer], quartiles(seconds)
        lines.append(
            (
                peer,
                duration(middle),
                f"({duration(low)} to {duration(high)})",
                "" if peer == "minivit" else against(found, peer),
                f"{flops / middle / 1e9:.0f}",
                f"{flops / middle / peak:.0%}",
                megabytes(result["peak_bytes"]),
                megabytes(result["baseline_bytes"]),
                f"{result['differs']:.0e}" if "differs" in result else "",
            )
        )
    head = ("peer", "median", "quartiles", "minivit / it", "GFLOP/s", "of peak", "peak MB", "baseline MB", "apart")
    return [*(table(head, lines) if lines else []), *left_out(found)]


def left_out(found):
    """One line for each peer without numbers: why."""
    return [f"{peer} is left out: {result['error']}." for peer, result in found.items() if "error" in result]


def summary(rows):
    """All rows in one table: minivit against each peer. rows: {name: {"title", "peers"}}."""
    lines = []
    for row in rows.values():
        found = row["peers"]
        mine = timed(found).get("minivit")
        against_all = [against(found, peer) for peer in ("torch eager", "torch sdpa", "HIPS autograd")]
        fastest = best(found)
        to_best = f"{against(found, fastest)} ({fastest.split()[-1]})" if fastest else "-"
        lines.append((row["title"], duration(quartiles(mine)[1]) if mine else "-", *against_all, to_best))
    return table(("row", "minivit", "/ eager", "/ sdpa", "/ autograd", "/ best peer"), lines)


def layer_lines(results):
    """Layer by layer. results: [{"title", "mode", "peers"}]."""
    lines, faults = [], []
    for result in results:
        seconds = timed(result["peers"])
        medians = [duration(quartiles(seconds[peer])[1]) if peer in seconds else "-" for peer in ("minivit", "torch")]
        lines.append((result["title"], result["mode"], *medians, against(result["peers"], "torch")))
        faults += [f"{result['title']}, {result['mode']}: {line}" for line in left_out(result["peers"])]
    return [*table(("layer", "pass", "minivit", "torch", "ratio"), lines, left=2), *faults]


def alone_lines(results):
    """What minivit does alone. results: {name: {"title", "found"}}."""
    lines, faults = [], []
    for result in results.values():
        found = result["found"]
        if "error" in found:
            faults.append(f"{result['title']} is left out: {found['error']}.")
        else:
            low, middle, high = map(duration, quartiles(found["seconds"]))
            whole = duration(quartiles(found["whole"])[1])
            lines.append((result["title"], middle, f"({low} to {high})", whole, megabytes(found["peak_bytes"])))
    return [*(table(("what", "median", "quartiles", "whole process", "peak MB"), lines) if lines else []), *faults]


def growth_lines(results):
    """Growth. results: {axis: [{"size", "peers"}]}: the times, then the fitted exponents."""
    peers, lines, faults, fits = ("minivit", "torch sdpa"), [], [], []
    for axis, points in results.items():
        for point in points:
            seconds = timed(point["peers"])
            medians = [duration(quartiles(seconds[peer])[1]) if peer in seconds else "-" for peer in peers]
            lines.append((f"{axis} {point['size']}", *medians, against(point["peers"], "torch sdpa")))
            faults += [f"{axis} {point['size']}: {line}" for line in left_out(point["peers"])]
        fits.append((f"{axis}, {points[0]['size']} to {points[-1]['size']}", *(fitted(points, peer) for peer in peers)))
    return [*table(("size", *peers, "ratio"), lines), "", *table(("time ~ size^p: p", *peers), fits), *faults]


def fitted(points, peer):
    """The exponent of one peer as text, "-" with fewer than two points."""
    known = [
        (point["size"], quartiles(timed(point["peers"])[peer])[1]) for point in points if peer in timed(point["peers"])
    ]
    return f"{exponent(*zip(*known, strict=True)):.2f}" if len(known) > 1 else "-"


def draw(rows, path):
    """A figure of the ratios, one group of bars a row, into a PNG file; the middle half of the rounds as a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    peers = ("torch eager", "torch sdpa", "HIPS autograd")
    rows = {name: row for name, row in rows.items() if "minivit" in timed(row["peers"]) and best(row["peers"])}
    figure, axes = plt.subplots(figsize=(9, 1 + 0.9 * max(1, len(rows))), dpi=120, layout="constrained")
    for number, peer in enumerate(peers):
        at, middles, errors = [], [], [[], []]
        for place, row in enumerate(rows.values()):
            seconds = timed(row["peers"])
            if peer in seconds:
                low, middle, high = quartiles(np.divide(seconds["minivit"], seconds[peer]))
                at.append(place + 0.27 * (number - 1))
                middles.append(middle)
                errors[0].append(middle - low)
                errors[1].append(high - middle)
        if at:
            bars = axes.barh(at, middles, 0.25, xerr=errors, label=f"minivit / {peer}", error_kw={"ecolor": "0.3"})
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # so that the line at 1 crosses no number
            axes.bar_label(bars, [f"{middle:.2f}" for middle in middles], padding=5, fontsize=8, bbox=box)
    axes.axvline(1, color="0.3", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)), [row["title"].replace(": ", ":\n", 1) for row in rows.values()], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="time of minivit / time of the peer: left of the line, minivit is faster")
    axes.margins(x=0.12)
    if rows:
        axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)  # above: a bar may be anywhere
    figure.savefig(path)
    plt.close(figure)
