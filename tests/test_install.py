"""Installed is installed: from any folder, the one above the clone too, `minivit` is the package."""

import configparser
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_clone_called_minivit_does_not_hide_the_package_from_the_folder_above_it(tmp_path):
    """Python would take the clone's folder, which is no package, for one, if it found the package by no path."""
    (tmp_path / "minivit" / "minivit").mkdir(parents=True)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "minivit.pth").write_text(f"{ROOT}\n", encoding="utf-8")  # what pip install -e leaves
    others = [path for path in sys.path if path and Path(path).resolve() != ROOT]
    code = f"import site, sys; site.addsitedir({str(tmp_path / 'site')!r}); sys.path += {others!r}\n"
    code += "from minivit import Tensor, images\nprint(Tensor([1.0]).shape, images.photo())"
    run = [sys.executable, "-S", "-c", code]  # -S: without the install that the tests run in
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == f"(1,) {ROOT / 'images' / 'cat.jpg'}", done.stderr


def test_an_editable_install_is_a_path_since_no_package_is_mapped_to_another_folder():
    """For a mapped package setuptools installs an import hook, which Python asks after it has looked into all paths."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["options"]["package_dir"].split() == ["=", "."]
    assert "package-dir" not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
