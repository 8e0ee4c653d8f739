"""A room without network: minivit's wheel and those that it needs, for the computers that stand there."""

import base64
import hashlib
import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

from ... import __version__
from ...errors import MinivitError, shown
from ...machinery.files import travelling

NAMES = {"windows": "win_amd64", "macos": "macosx_11_0_arm64", "linux": "manylinux_2_28_x86_64"}
_TAG = r"win(32|_amd64|_arm64)|macosx_\d+_\d+_(arm64|x86_64)|manylinux(_2_\d+|2014)_(x86_64|aarch64)"
_TRAVELS = (".jpg", ".npz", ".md", ".py", ".svg")  # of images/ and tutorials/: as in machinery/wheel.py
_SYSTEMS = (  # name, how its tags begin, its Python of a version, where a venv has its commands
    ("Windows", "win", "py -{}", "venv\\Scripts\\"),
    ("macOS", "macosx", "python{}", "venv/bin/"),
    ("Linux", "manylinux", "python{}", "venv/bin/"),
)
_WHEEL = "Wheel-Version: 1.0\nGenerator: minivit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


class Platform(NamedTuple):
    """What wheels are for: a tag, "win_amd64", and a Python, "3.12"."""

    tag: str
    python: str

    def tags(self):
        """The tag and those of older systems, whose wheels run there, too; pip adds them for macOS by itself."""
        found = re.fullmatch(r"manylinux_2_(\d+)_(\w+)", self.tag)
        if not found:
            return [self.tag]
        older = [f"manylinux_2_{minor}_{found[2]}" for minor in range(int(found[1]), 16, -1)]
        return [*older, f"manylinux2014_{found[2]}"]


def parsed(platforms):
    """[Platform] of words such as "win_amd64:3.12" or "windows"; without a Python, that of this process."""
    return list(dict.fromkeys(map(_platform, platforms)))


def _platform(text):
    name, _, python = text.partition(":")
    tag, python = NAMES.get(name.lower(), name), python or f"{sys.version_info.major}.{sys.version_info.minor}"
    least = re.search(r"3\.(\d+)", importlib.metadata.metadata("minivit")["Requires-Python"])
    version = re.fullmatch(r"3\.(\d{1,2})", python)
    if not (re.fullmatch(_TAG, tag) and version and int(version[1]) >= int(least[1])):
        raise MinivitError(
            "book",
            f"--wheels {shown(text, 60)} is no platform.",
            rule=f"windows, macos or linux, or a wheel's tag; then, behind a colon, Python {least[0]} or newer.",
            hint="windows:3.12 is win_amd64:3.12, macos:3.12 macosx_11_0_arm64:3.12 (a Mac before 2020: "
            "macosx_10_13_x86_64:3.12), linux:3.11 manylinux_2_28_x86_64:3.11.",
        )
    return Platform(tag, python)


def pack(folder, platforms):
    """Put the wheel of this minivit into a new folder, and what it needs on each Platform, from where pip gets it.

    Prints a line for each. MinivitError with pip's own words where it finds no wheel or no network.
    """
    folder.mkdir()
    own = write_wheel(folder)
    for platform in platforms:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", "download", "--quiet"]
        command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", platform.python]
        command += [word for tag in platform.tags() for word in ("--platform", tag)]
        before = set(folder.iterdir())
        done = subprocess.run(
            [*command, "--dest", str(folder), str(own)], capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            told = [line for line in done.stderr.splitlines() if line.startswith(("ERROR:", sys.executable))]
            raise MinivitError(
                f"wheels for {platform.tag}, Python {platform.python}",
                "pip cannot get them: " + shown(told[-1] if told else done.stderr.strip() or "it says nothing.", 400),
                rule="they come from the Python Package Index: --wheels needs a network, and wheels for the platform.",
                hint='"python -m pip download numpy" shows whether pip works here.',
            )
        new = set(folder.iterdir()) - before
        print(f"{platform.tag}, Python {platform.python}: {len(new)} wheels more, {_megabytes(new):.0f} MB", flush=True)


def _megabytes(paths):
    return sum(path.stat().st_size for path in paths) / 1e6


def write_wheel(folder):
    """Write minivit's wheel, of the files of this installation, be it a clone or a wheel, to a folder. -> its path."""
    about, package = importlib.metadata.distribution("minivit"), Path(__file__).parents[2]
    info = f"minivit-{__version__}.dist-info"
    files = _files(package, "minivit")
    for name in ("images", "tutorials"):  # a clone has them beside the package
        found = _files(travelling(name), f"minivit/_{name}")
        files |= {name: path for name, path in found.items() if path.suffix in _TRAVELS}
    texts = {name: path.read_bytes() for name, path in sorted(files.items())}
    texts[f"{info}/METADATA"] = (about.read_text("METADATA") or about.read_text("PKG-INFO")).encode()
    texts[f"{info}/entry_points.txt"] = about.read_text("entry_points.txt").encode()
    licence = next(about.locate_file(path) for path in about.files if path.name == "LICENSE")
    texts[f"{info}/licenses/LICENSE"] = licence.read_bytes()
    texts[f"{info}/WHEEL"] = _WHEEL.encode()
    record = "".join(f"{name},{_digest(text)},{len(text)}\n" for name, text in texts.items())
    texts[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    wheel = folder / f"minivit-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in texts.items():
            file.writestr(name, text)
    return wheel


def _files(folder, name):
    """{name in the wheel: path} of every file in a folder, but for what Python and editors leave there."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.relative_to(folder): path for path in paths}
    own = {inside: path for inside, path in names.items() if not any(part[0] == "." for part in inside.parts)}
    return {f"{name}/{inside.as_posix()}": path for inside, path in own.items() if "__pycache__" not in inside.parts}


def _digest(text):
    digest = base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b"=")
    return f"sha256={digest.decode('ascii')}"


def page(platforms):
    """How to install from the folder, as Markdown that is read as plain text, too."""
    packed = "\n".join(f"- {platform.tag}, Python {platform.python}" for platform in platforms)
    commands = ""
    for system, tag, python, scripts in _SYSTEMS:
        versions = [platform.python for platform in platforms if platform.tag.startswith(tag)]
        if versions:
            newest = max(versions, key=lambda version: int(version.partition(".")[2]))
            commands += f"## {system}\n\n    {python.format(newest)} -m venv venv\n"
            commands += f"    {scripts}python -m pip install --no-index --find-links wheels minivit\n"
            commands += f"    {scripts}minivit tour\n\n"
    return f"""\
# Install minivit without a network

Copy this folder from the stick to your disk, and open a terminal in it: Windows has "Open in Terminal" in the menu of
the right mouse button, macOS "New Terminal at Folder" under Services. Then type three commands.

{commands}\
The first makes a Python environment in the folder venv, the second installs minivit from the folder wheels, and the
third walks a photo through a trained network. Instead of tour, `minivit doctor` says what works on this computer,
`minivit list` lists the lessons, and `minivit run 05 --out figures` runs one.

## What is in the folder wheels

{packed}

Python itself is not: it comes from python.org, in one of these versions. With another version, or on another kind of
computer, the second command finds no wheel that fits, and says so.
"""
