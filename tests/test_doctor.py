"""minivit doctor: one screen, which no broken part can break."""

import configparser
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest

from minivit import get_num_threads
from minivit.__main__ import main
from minivit.cli import doctor, surroundings

ROOT = Path(__file__).parents[1]
VERSION = importlib.metadata.version


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """No test waits for a step, but for the one about it, and none changes matplotlib's backend."""
    monkeypatch.setattr(doctor, "step", lambda: 0.04)
    package = type("Package", (), {"get_backend": lambda: "TkAgg"})
    monkeypatch.setattr(surroundings, "matplotlib", lambda windows: package)


@pytest.fixture
def report(capsys):
    """report(): (exit code, {what it is about: (state, text)}), checked to fit a screen."""

    def report():
        code = main(["doctor"])
        out, err = capsys.readouterr()
        lines = out.splitlines()
        assert not err and out.isascii() and max(map(len, lines)) <= 100 and len(lines) <= 35
        found, about = {}, None
        for line in lines[:-2]:
            state, name, text = line[:7].strip(), line[7:22].strip(), line[22:]
            about = name or about
            state, before = (state, "") if name else found[about]
            found[about] = (state, f"{before} {text}".strip())
        assert (code == 0) == (lines[-1] == "All that is needed is here.")
        return code, found

    return report


def test_the_screen_tells_all_of_it():
    """In a process of its own, with the matplotlib and the step that there are."""
    run = [sys.executable, "-m", "minivit", "doctor"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr
    lines = done.stdout.splitlines()
    assert done.stdout.isascii() and max(map(len, lines)) <= 100 and len(lines) <= 35
    needed = ["Python", "minivit", "numpy", "pillow", "matplotlib", "threadpoolctl"]
    optional = ["BLAS", "speed", "memory", "window", "browser", "numba", "MPI", "Jupyter", "book"]
    assert [line[7:22].strip() for line in lines[:-2] if line[7:22].strip()] == needed + optional
    assert {line[:7].strip() for line in lines[:-2]} <= {"ok", "note", ""}
    assert re.search(r"\d+\.\d ms a training step on digits; 31\.9 on the machine of README's table", done.stdout)


def test_what_is_needed_is_what_setup_says(report):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    code, found = report()
    assert code == 0
    for name, least in re.findall(r"^(\w+)>=([\d.]+)$", setup["options"]["install_requires"], re.M):
        assert found[name] == ("ok", f"{VERSION(name)} ({least} or newer is needed)")
    assert "(3.11 or newer is needed)" in found["Python"][1] and sys.executable[:60] in found["Python"][1]
    assert str(ROOT / "minivit")[:40] in found["minivit"][1]


def test_the_time_of_the_table_is_readmes():
    row = re.search(r"\| digits 8x8, batch 64 \| ([\d.]+) ms \|", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert float(row[1]) == doctor.STEP


def test_the_step_is_the_benchmarks(monkeypatch):
    from tests.benchmarks.rows import DIGITS, LR, ROWS

    made = {}
    monkeypatch.undo()
    from minivit import optim, vit

    model = vit.ViTForImageClassification

    class Seen(model):
        def __init__(self, config, **options):
            made["config"] = config
            super().__init__(config, **options)

        def forward(self, pixels, labels):
            made["shape"] = pixels.shape
            return super().forward(pixels, labels=labels)

    adam = optim.AdamW
    monkeypatch.setattr(vit, "ViTForImageClassification", Seen)
    monkeypatch.setattr(optim, "AdamW", lambda parameters, lr: made.update(lr=lr) or adam(parameters, lr=lr))
    assert 0 < doctor.step(rounds=3) < 60
    config = made["config"]
    assert made["shape"] == (64, 1, 8, 8) and made["lr"] == LR and ROWS[0].task["batch"] == 64
    for name, value in DIGITS.items():
        found = getattr(config, name, None) if name != "num_labels" else len(config.class_names)
        assert found in (value, (value, value)), name


@pytest.mark.parametrize("version, state", [("1.26.4", "WRONG"), ("2.0.0", "ok"), ("2.10.1rc1", "ok")])
def test_an_old_package_is_wrong_and_says_how_to_get_a_newer_one(version, state, report, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version if name == "numpy" else VERSION(name))
    code, found = report()
    assert found["numpy"][0] == state and version in found["numpy"][1] and code == (state == "WRONG")
    assert ('-> python -m pip install "numpy>=2.0"' in found["numpy"][1]) == (state == "WRONG")


def test_a_missing_package_and_one_that_cannot_be_imported(report, monkeypatch):
    def missing(name):
        if name == "threadpoolctl":
            raise importlib.metadata.PackageNotFoundError(name)
        return VERSION(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)  # as if its import failed
    code, found = report()
    assert code == 1 and found["threadpoolctl"][0] == found["pillow"][0] == "WRONG"
    text = 'not installed; 3.5 or newer is needed -> python -m pip install "threadpoolctl>=3.5"'
    assert text == found["threadpoolctl"][1]
    assert "which cannot be imported: ModuleNotFoundError" in found["pillow"][1]
    assert found["numpy"][0] == "ok"


def test_a_check_that_fails_is_one_line(report, monkeypatch):
    def broken(*_):
        raise RuntimeError("broken \x1b[31m\u0117")

    for where, name in ((doctor, "step"), (doctor, "_free_memory"), (webbrowser, "get"), (importlib.util, "find_spec")):
        monkeypatch.setattr(where, name, broken)
    monkeypatch.setattr(importlib.metadata, "requires", broken)
    code, found = report()
    assert code == 0
    for name in ("step", "memory", "browser", "numba", "mpi", "jupyter", "numpy"):
        assert found[name] == ("note", r"cannot be told: RuntimeError: broken \x1b[31m\u0117")
    assert found["BLAS"][0] == "ok"


def test_not_installed_at_all_as_in_a_clone_on_the_path(report, monkeypatch):
    def unknown(name):
        raise importlib.metadata.PackageNotFoundError(name)

    for name in ("requires", "metadata"):
        monkeypatch.setattr(importlib.metadata, name, unknown)
    code, found = report()
    assert code == 0 and found["python"][0] == found["numpy"][0] == "note"


def test_blas_and_the_threads(report, monkeypatch):
    _, found = report()
    assert f"minivit uses {get_num_threads()} threads on" in found["BLAS"][1]
    monkeypatch.setattr(doctor, "_cores", lambda: get_num_threads() + 1)
    assert "-> unset OPENBLAS_NUM_THREADS" in report()[1]["BLAS"][1]


def test_what_is_slow_or_short_says_what_to_do(report, monkeypatch):
    monkeypatch.setattr(doctor, "step", lambda: 0.2)
    monkeypatch.setattr(doctor, "_free_memory", lambda: 0.9e9)
    code, found = report()
    assert code == 0 and found["speed"] == (
        "note",
        "200.0 ms a training step on digits; 31.9 on the machine of README's table "
        "-> close other programs, plug a laptop in, and see BLAS above",
    )
    assert found["memory"] == ("note", "0.9 GB are free -> close other programs: minivit tour takes 1.4 GB")


@pytest.mark.skipif(sys.platform not in ("linux", "win32"), reason="only there is it asked")
def test_free_memory_is_some_of_what_there_is():
    assert 10**7 < doctor._free_memory() < 10**14


def test_a_window(report, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)
    assert report()[1]["window"] == ("ok", "matplotlib opens figures by TkAgg")
    package = type("Package", (), {"get_backend": lambda: "agg"})
    monkeypatch.setattr(surroundings, "matplotlib", lambda windows: package)
    state, text = report()[1]["window"]
    assert state == "note" and "can open none here (agg) -> --out DIR saves figures" in text
    monkeypatch.setenv("MPLBACKEND", "svg")
    assert "unset MPLBACKEND, which says svg" in report()[1]["window"][1]


def test_a_browser(report, monkeypatch):
    def none():
        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(webbrowser, "get", lambda: webbrowser.GenericBrowser("firefox"))
    assert report()[1]["browser"] == ("ok", "firefox")
    monkeypatch.setattr(webbrowser, "get", none)
    assert report()[1]["browser"][0] == "note"


def test_what_nothing_needs(report, monkeypatch):
    there = set()
    versions = {"mpi4py": "4.0", "numba": "0.60", "jupytext": "1.16", "jupyterlab": "4.2", "sphinx": "8.0"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in there or None)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: versions.get(name) or VERSION(name))
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    requires = importlib.metadata.requires("minivit")
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: [*requires, 'numba>=0.60; extra == "fast"'])
    found = report()[1]
    assert {found[name][0] for name in ("numba", "MPI", "Jupyter", "book")} == {"note"}
    assert '-> python -m pip install "minivit[notebook]"' in found["Jupyter"][1] and "[notebook]" in found["book"][1]
    assert '-> python -m pip install "minivit[fast]"' in found["numba"][1]
    there |= {"mpi4py", "numba", "jupytext"}
    found = report()[1]
    assert found["numba"] == ("ok", "numba 0.60")
    assert found["MPI"][0] == "note" and "mpi4py 4.0, but no mpiexec -> " in found["MPI"][1]
    assert "without jupyterlab" in found["Jupyter"][1] and "[notebook]" in found["Jupyter"][1]
    there |= {"jupyterlab", "sphinx"}
    monkeypatch.setattr(shutil, "which", lambda name, path: f"{path.split(os.pathsep)[0]}/{name}")
    found = report()[1]
    assert found["MPI"][0] == "ok" and f"started by {Path(sys.executable).parent}/mpiexec"[:60] in found["MPI"][1]
    assert found["Jupyter"] == ("ok", "jupyterlab 4.2, jupytext 1.16") and found["book"] == ("ok", "sphinx 8.0")
