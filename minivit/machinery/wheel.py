"""Used by setuptools alone, when a wheel is made: the folders images/ and tutorials/ travel inside the package.

A mapping of the folders (package_dir) would do that too, but then `pip install -e` installs an import hook in the place
of a path, and a folder named minivit, which is what a clone is, hides the package from whoever stands beside it.
"""

from pathlib import Path

from setuptools.command.build_py import build_py

FOLDERS = {"images": ("*.jpg", "*.npz", "*.md"), "tutorials": ("*.py", "*.md", "*.svg", "*/*.md")}


class BuildPy(build_py):
    """Copies the folders to minivit/_images and minivit/_tutorials; an editable install reads them where they are."""

    def _travelling(self):
        """{file in the checkout: its place in the wheel}"""
        target = Path(self.build_lib, "minivit")
        kinds = [(name, kind) for name, suffixes in FOLDERS.items() for kind in suffixes]
        paths = [path for name, kind in kinds for path in sorted(Path(name).glob(kind))]
        return {str(path): str(target / f"_{path.as_posix()}") for path in paths}

    def run(self):
        super().run()
        if not self.editable_mode:
            for path, place in self._travelling().items():
                self.mkpath(str(Path(place).parent))
                self.copy_file(path, place)

    def get_outputs(self, include_bytecode=True):
        return super().get_outputs(include_bytecode) + list(self._travelling().values())

    def get_output_mapping(self):
        return super().get_output_mapping() | {place: path for path, place in self._travelling().items()}
