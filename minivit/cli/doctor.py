"""minivit doctor: what is installed and what works here, a line each, and what to do about what does not.

A check returns findings; whatever it raises is its own line, so that one that fails hides no other.
"""

import importlib.metadata
import importlib.util
import os
import platform
import re
import statistics
import sys
import textwrap
import time
import webbrowser
from pathlib import Path
from typing import NamedTuple

from ..errors import shown
from ..machinery.communication import find_mpiexec
from . import surroundings

OK, NOTE, WRONG = "ok", "note", "WRONG"  # NOTE: nothing needs it, or it is slow
WIDTH = 100
STEP = 31.9  # milliseconds, of the digits in README's table
_WINDOWLESS = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")


class Finding(NamedTuple):
    """A line: OK, NOTE or WRONG, what it is about, what was found, and what to do, if anything."""

    state: str
    about: str
    found: str
    advice: str = ""


def doctor():
    """Print every finding. Returns whether nothing that is needed is wrong."""
    good = True
    for check in (_python, *map(_needed, ("numpy", "pillow", "matplotlib", "threadpoolctl")), *CHECKS):
        for finding in _guarded(check):
            _print(finding)
            good = good and finding.state != WRONG
    print("\nAll that is needed is here." if good else "\nSomething that is needed is wrong: see WRONG above.")
    return good


def _guarded(check):
    try:
        return check()
    except Exception as error:  # a broken package may raise anything
        about = check.__name__.strip("_").replace("_", " ")
        return [Finding(NOTE, about, f"cannot be told: {type(error).__name__}: {shown(error)}")]


def _print(finding):
    start = f"{finding.state:6} {finding.about:14} "
    found = shown(finding.found, 2 * WIDTH).encode("ascii", "backslashreplace").decode()
    advice = f"-> {finding.advice}" if finding.advice else ""
    for first, text in ((start, found), (" " * len(start), advice)):
        for line in textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(start)):
            print(line, flush=True)


def _python():
    bits = "64" if sys.maxsize > 2**32 else "32"
    least = re.search(r"[\d.]+", importlib.metadata.metadata("minivit")["Requires-Python"])[0]
    found = f"{platform.python_version()}, {bits} bit, {platform.system()} {platform.release()} {platform.machine()}"
    old = _numbers(platform.python_version()) < _numbers(least)
    return [
        _of_version("Python", found, old, least, f"install Python {least} or newer from python.org"),
        Finding(OK, "", sys.executable),
        Finding(OK, "minivit", f"{importlib.metadata.version('minivit')} in {Path(__file__).parents[1]}"),
    ]


def _needed(name):
    """The check of a package that minivit needs."""

    def check():
        least = next(found[1] for line in _requirements() if (found := re.match(rf"{name}>=([\d.]+)$", line)))
        install = f'python -m pip install "{name}>={least}"'
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return [Finding(WRONG, name, f"not installed; {least} or newer is needed", install)]
        try:
            if name == "matplotlib":
                surroundings.matplotlib(windows=True)
            else:
                importlib.import_module({"pillow": "PIL.Image"}.get(name, name))
        except Exception as error:  # a package of another Python, say
            found = f"{version}, which cannot be imported: {type(error).__name__}: {shown(error)}"
            return [Finding(WRONG, name, found, f"python -m pip install --force-reinstall {name}")]
        return [_of_version(name, version, _numbers(version) < _numbers(least), least, install)]

    check.__name__ = name
    return check


def _of_version(about, found, old, least, advice):
    if old:
        return Finding(WRONG, about, f"{found}: {least} or newer is needed", advice)
    return Finding(OK, about, f"{found} ({least} or newer is needed)")


def _numbers(version):
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _requirements():
    return [line.replace(" ", "") for line in importlib.metadata.requires("minivit") or ()]


def _extra(name):
    """How to install a package that an extra of minivit brings; nothing where none does."""
    for line in _requirements():
        found = re.match(rf"{name}\b.*;.*extra==['\"](\w+)['\"]", line)
        if found:
            return f'python -m pip install "minivit[{found[1]}]"'
    return ""


def _blas():
    import threadpoolctl

    from ..machinery.threads import get_num_threads

    threads, cores = get_num_threads(), _cores()
    found = [library for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]
    names = [f"{one['internal_api']} {one['version']} {one.get('architecture') or ''}".strip() for one in found]
    text = f"{', '.join(names) or 'none that threadpoolctl knows'}; minivit uses {threads} threads on {cores} cores"
    if not found:
        return [Finding(NOTE, "BLAS", text, "set VECLIB_MAXIMUM_THREADS=1 on a Mac if steps are slow")]
    if threads < cores:
        return [Finding(NOTE, "BLAS", text, "unset OPENBLAS_NUM_THREADS, OMP_NUM_THREADS and MKL_NUM_THREADS")]
    return [Finding(OK, "BLAS", text)]


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _optional(about, name, what):
    """The finding of a package that nothing needs."""
    if importlib.util.find_spec(name) is None:
        return Finding(NOTE, about, f"not installed: {what}", _extra(name))
    return Finding(OK, about, f"{name} {importlib.metadata.version(name)}")


def _numba():
    return [_optional("numba", "numba", "loops are not compiled, and nothing needs that")]


def _mpi():
    finding = _optional("MPI", "mpi4py", "training stays in one process, and nothing needs more")
    if finding.state != OK:
        return [finding]
    starter = find_mpiexec()
    if starter is None:
        advice = "install an MPI: pip install mpich, impi-rt on Windows; or put its mpiexec on the PATH"
        return [Finding(NOTE, "MPI", f"{finding.found}, but no mpiexec", advice)]
    return [finding._replace(found=f"{finding.found}, started by {starter}")]


def _jupyter():
    names = [name for name in ("jupyterlab", "notebook", "jupytext") if importlib.util.find_spec(name)]
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    if "jupytext" in names and len(names) > 1:
        return [Finding(OK, "Jupyter", found)]
    if names == ["jupytext"]:
        found += ", without jupyterlab; VS Code and PyCharm open the lessons, too"
    elif names:
        found += ", without jupytext, which opens a lesson as a notebook"
    return [Finding(NOTE, "Jupyter", found or "not installed", _extra("jupytext"))]


def _book():
    return [_optional("book", "sphinx", "minivit book binds its pages by it")]


def _browser():
    try:
        found = webbrowser.get()
    except webbrowser.Error:
        return [Finding(NOTE, "browser", "none is found", "open minivit's pages by hand, on another machine say")]
    return [Finding(OK, "browser", getattr(found, "name", None) or type(found).__name__)]


def _window():
    package = surroundings.matplotlib(windows=True)
    backend = package.get_backend()
    if backend.lower() not in _WINDOWLESS:
        return [Finding(OK, "window", f"matplotlib opens figures by {backend}")]
    advice = "--out DIR saves figures; where there is a screen: python -m pip install PySide6"
    if "MPLBACKEND" in os.environ:
        advice = f"unset MPLBACKEND, which says {os.environ['MPLBACKEND']}; or --out DIR saves figures"
    return [Finding(NOTE, "window", f"matplotlib can open none here ({backend})", advice)]


def _memory():
    free = _free_memory() / 1e9
    if free < 1.5:
        return [Finding(NOTE, "memory", f"{free:.1f} GB are free", "close other programs: minivit tour takes 1.4 GB")]
    return [Finding(OK, "memory", f"{free:.1f} GB are free")]


def _free_memory():
    """Bytes that programs may still take."""
    if os.name == "nt":
        import ctypes

        class Status(ctypes.Structure):
            """MEMORYSTATUSEX"""

            _fields_ = (
                ("length", ctypes.c_ulong),
                ("load", ctypes.c_ulong),
                *((name, ctypes.c_ulonglong) for name in ("total", "free", "a", "b", "c", "d", "e")),
            )

        status = Status(length=ctypes.sizeof(Status))
        if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            raise OSError("the system does not tell it.")
        return status.free
    if sys.platform == "linux":
        return 1024 * int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1])
    raise OSError("this system does not tell it in a simple way.")


def _step():
    milliseconds = 1000 * step()
    text = f"{milliseconds:.1f} ms a training step on digits; {STEP} on the machine of README's table"
    if milliseconds > 3 * STEP:
        return [Finding(NOTE, "speed", text, "close other programs, plug a laptop in, and see BLAS above")]
    return [Finding(OK, "speed", text)]


def step(rounds=15):
    """Seconds of a training step: the digits row of the benchmark, the median of some after a few to warm up."""
    import numpy as np

    from .. import optim, vit

    config = vit.ViTConfig(64, 4, 4, 128, image_size=8, patch_size=2, num_channels=1, num_labels=10)
    model = vit.ViTForImageClassification(config, rng=0).train()
    optimizer = optim.AdamW(model.parameters(), lr=1e-5)
    pixels, labels = np.random.default_rng(0).random((64, 1, 8, 8), np.float32), np.arange(64) % 10
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        model.zero_grad()
        model(pixels, labels=labels).loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return statistics.median(times[rounds // 3 :])


CHECKS = (_blas, _step, _memory, _window, _browser, _numba, _mpi, _jupyter, _book)
