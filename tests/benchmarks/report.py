"""What is printed and drawn: the machine, tables in Markdown, the figure."""

import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path

import numpy as np

import minivit

from .measure import exponent, quartiles, ratio
from .worker import usable_cores

NOTE = """Times are medians over rounds in which the peers take turns, each in a process of its own; in brackets the
quartiles. Outside of its turn a peer is stopped, where the system can do that. A ratio is the median of the rounds'
ratios: below 1, minivit is faster. Peak is the most memory the process held, of which it held what is in brackets
after its imports. Before anything was timed, the peers had given the same results from the same weights: "apart" is
the largest difference, relative to the largest number. "minivit" uses NumPy alone, "fast" loops that numba compiled;
"x2" is two processes that share each batch and average their gradients, through MPI, or torch DDP's (whose attention
is sdpa) through gloo, with their share of the cores each; their memory is added up. The notebook's "torch eager" is
naive attention in einsum; dropout is 0 everywhere; all is float32. Beside other programs, times of a few milliseconds
are noise: a forward pass may seem longer than forward and backward. DINOv2 is the trained network in the box, its
positions interpolated to the picture, which onnxruntime does once and the others each time; they are handed the same
numbers in float32. What minivit does alone is done once by a new process in each round, whose time is told, too, from
the start of Python on."""
OTHERS = ("torch eager", "torch sdpa", "HIPS autograd")  # whom the table and the figure of all rows have


def machine():
    """What the numbers depend on: {label: text}."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        flags = next((line for line in lines if line.startswith("flags")), "")
        cpu += ", with AVX-512" if "avx512f" in flags else ", without AVX-512"
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    found = {
        "CPU": f"{cpu}, {usable_cores()} cores to use of {os.cpu_count()}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "minivit": minivit.__version__,
        "NumPy": f"{np.__version__}, BLAS {blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
    }
    for package in ("numba", "mpi4py", "torch", "transformers", "onnxruntime", "autograd"):
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


def per_second(images, seconds):
    """Images per second, to three digits."""
    rate = images / seconds
    return f"{rate:,.{0 if rate >= 100 else 1 if rate >= 10 else 2}f}"


def timed(found):
    """{peer: seconds} of the peers that were measured to the end."""
    return {peer: result["seconds"] for peer, result in found.items() if result.get("seconds")}


def is_minivit(peer):
    """Whether a peer is a configuration of minivit."""
    return peer.split()[0] == "minivit"


def fastest(found, among):
    """The fastest of the peers of which among(peer) holds, or None."""
    medians = {peer: quartiles(seconds)[1] for peer, seconds in timed(found).items() if among(peer)}
    return min(medians, key=medians.get, default=None)


def best(found):
    """The fastest configuration of minivit, or None."""
    return fastest(found, is_minivit)


def best_peer(found):
    """The fastest peer beside minivit, or None."""
    return fastest(found, lambda peer: not is_minivit(peer))


def against(found, peer, mine="minivit"):
    """The ratio mine / peer as text, "-" where one of them is missing."""
    seconds = timed(found)
    return f"{ratio(seconds[mine], seconds[peer]):.2f}" if {mine, peer} <= seconds.keys() else "-"


def row_lines(found, images, flops, peak):
    """The table of one row; images, flops: of one step; peak: FLOP/s of the machine. Then what was not measured."""
    lines = []
    for peer, seconds in timed(found).items():
        result, (low, middle, high) = found[peer], quartiles(seconds)
        lines.append(
            (
                peer,
                duration(middle),
                f"({duration(low)} to {duration(high)})",
                "" if peer == "minivit" else against(found, peer),
                per_second(images, middle),
                f"{flops / middle / 1e9:.0f}",
                f"{flops / middle / peak:.0%}",
                f"{megabytes(result['peak_bytes'])} ({megabytes(result['baseline_bytes'])})",
                f"{result['differs']:.0e}" if "differs" in result else "",
            )
        )
    head = ("peer", "median", "quartiles", "minivit / it", "images/s", "GFLOP/s", "of peak", "peak MB", "apart")
    return [*(table(head, lines) if lines else []), *left_out(found)]


def left_out(found):
    """One line for each peer without numbers: why."""
    return [f"{peer} is left out: {result['error']}." for peer, result in found.items() if "error" in result]


def summary(rows):
    """All rows in one table: minivit against each peer. rows: {name: {"title", "images", "peers"}}."""
    lines = []
    for row in rows.values():
        found = row["peers"]
        mine = timed(found).get("minivit")
        peer = best_peer(found)
        to_best = f"{against(found, peer)} ({peer.removeprefix('torch ')})" if peer else "-"
        against_all = [against(found, other) for other in OTHERS]
        lines.append((row["title"], duration(quartiles(mine)[1]) if mine else "-", *against_all, to_best))
    return table(("row", "minivit", "/ eager", "/ sdpa", "/ autograd", "/ best peer"), lines)


def best_lines(rows):
    """All rows in one table: the fastest configuration of minivit against each peer, with the quartiles to eager."""
    lines = []
    for name, row in rows.items():
        found = row["peers"]
        seconds, mine = timed(found), best(found)
        if mine is None:
            continue
        middle = quartiles(seconds[mine])[1]
        eager = against(found, "torch eager", mine)
        if "torch eager" in seconds:
            low, _, high = quartiles(np.divide(seconds[mine], seconds["torch eager"]))
            eager += f" ({low:.2f} to {high:.2f})"
        ddp = next((peer for peer in seconds if peer.startswith("torch DDP")), "")
        against_all = [against(found, peer, mine) for peer in ("torch sdpa", ddp, "onnxruntime", "HIPS autograd")]
        short = mine.removeprefix("minivit ")
        lines.append((name, short, duration(middle), per_second(row["images"], middle), eager, *against_all))
    head = ("row", "best", "median", "images/s", "/ eager (quartiles)", "/ sdpa", "/ DDP", "/ onnx", "/ autograd")
    return table(head, lines, left=2)


def scaling_lines(results):
    """Strong and weak scaling. results: [{"row", "kind", "images", "pairs", "peers"}].

    images: in a step of one process, and of N; pairs: the peers of one process and of N. "faster" is by how much more
    images a second N processes do, and efficiency that divided by N.
    """
    lines, faults = [], []
    for result in results:
        seconds, images = timed(result["peers"]), result["images"]
        for pair in result["pairs"]:
            if set(pair) <= seconds.keys():
                one, many = (seconds[peer] for peer in pair)
                rates = [per_second(n, quartiles(s)[1]) for n, s in zip(images, (one, many), strict=True)]
                faster = images[1] / images[0] * ratio(one, many)
                N = int(pair[1].rpartition("x")[2])
                lines.append((result["row"], result["kind"], pair[1], *rates, f"{faster:.2f}", f"{faster / N:.0%}"))
        faults += [f"{result['row']}, {result['kind']}: {line}" for line in left_out(result["peers"])]
    head = ("row", "scaling", "peer", "1 process", "N processes", "faster", "efficiency")
    return [*(table(head, lines, left=3) if lines else []), *faults]


def layer_lines(results):
    """Layer by layer. results: [{"title", "mode", "peers"}]."""
    peers = ("minivit", "minivit fast", "torch")
    lines, faults = [], []
    for result in results:
        found = result["peers"]
        seconds = timed(found)
        medians = [duration(quartiles(seconds[peer])[1]) if peer in seconds else "-" for peer in peers]
        ratios = [against(found, "torch", mine) for mine in peers[:2]]
        lines.append((result["title"], result["mode"], *medians, *ratios))
        faults += [f"{result['title']}, {result['mode']}: {line}" for line in left_out(found)]
    head = ("layer", "pass", "minivit", "fast", "torch", "minivit / torch", "fast / torch")
    return [*table(head, lines, left=2), *faults]


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

    rows = {name: row for name, row in rows.items() if best(row["peers"]) and best_peer(row["peers"])}
    figure, axes = plt.subplots(figsize=(9, 1 + 0.9 * max(1, len(rows))), dpi=120, layout="constrained")
    for number, peer in enumerate(OTHERS):
        at, middles, errors = [], [], [[], []]
        for place, row in enumerate(rows.values()):
            seconds = timed(row["peers"])
            if peer in seconds:
                low, middle, high = quartiles(np.divide(seconds[best(row["peers"])], seconds[peer]))
                at.append(place + 0.27 * (number - 1))
                middles.append(middle)
                errors[0].append(middle - low)
                errors[1].append(high - middle)
        if at:
            bars = axes.barh(at, middles, 0.25, xerr=errors, label=f"minivit / {peer}", error_kw={"ecolor": "0.3"})
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # so that the line at 1 crosses no number
            axes.bar_label(bars, [f"{middle:.2f}" for middle in middles], padding=5, fontsize=8, bbox=box)
    axes.axvline(1, color="0.3", linestyle="--", linewidth=1)
    titles = [f"{row['title']}\n{best(row['peers'])}".replace(": ", ":\n", 1) for row in rows.values()]
    axes.set_yticks(range(len(rows)), titles, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="time of minivit's best / time of the peer: left of the line, minivit is faster")
    axes.margins(x=0.12)
    if rows:
        axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)  # above: a bar may be anywhere
    figure.savefig(path)
    plt.close(figure)
