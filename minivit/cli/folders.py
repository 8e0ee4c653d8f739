"""Where a command may write: not over other programs' files, not beside another training, and nothing for nothing."""

import contextlib
import warnings
from pathlib import Path

from .. import training, weights
from ..errors import FileError, shortened, shown_lines
from ..machinery.files import is_leftover, is_own_figure, writable_folder
from ..machinery.lock import LOCK, locked
from .probe import FEATURES, is_own_features

MODELS = (weights.STATE, weights.WEIGHTS, weights.INDEX)
_DESCRIBING = (weights.CONFIG, weights.PREPROCESSOR, training.HISTORY)  # what may be written before a model is
_LITTER = (".DS_Store", "Thumbs.db", "desktop.ini", LOCK)  # what systems leave where somebody looked


@contextlib.contextmanager
def writing(out, *, force=False, resume=False, hint="choose another folder."):
    """`with writing(out) as lock:` the folder lock.folder is this command's; if the block fails before a model is in
    it, it is as it was before.

    FileError: it holds a model already (but for resume), other files than minivit's (but for force), or it cannot be
    written to.
    """
    with contextlib.ExitStack() as stack:
        with notes():
            lock = stack.enter_context(locked(out))
        folder = lock.folder
        if not resume:
            for name in MODELS:
                if (folder / name).exists():
                    raise FileError(folder, f"holds a model already ({name}).", hint=hint)
            _check_own(folder, force)
        before = {path: path.read_bytes() for name in _DESCRIBING if (path := folder / name).is_file()}
        try:
            yield lock
        except BaseException:
            if not any((folder / name).exists() for name in MODELS) and lock.holds():
                for path in (folder / name for name in _DESCRIBING):
                    with contextlib.suppress(OSError):
                        path.write_bytes(before[path]) if path in before else path.unlink(missing_ok=True)
            raise


def place_of_picture(source, out, name, force):
    """The path at which a picture about the model in `source` may be drawn, in `out` or else beside the model; None
    where that is a name on the hub, or a folder of another program. FileError as writing(), and for a picture of the
    same name that minivit did not draw.
    """
    folder = Path(source if out is None else out)
    own = weights.is_own(folder) or (folder / weights.STATE).is_file()
    if out is None and not own:
        return None
    if folder.exists():  # it is tried now, since there is long work before anything is written
        writable_folder(folder)
        if not own:
            _check_own(folder, force)
    if (folder / name).exists() and not (force or is_own_figure(folder / name)):
        raise FileError(folder / name, "was not drawn by minivit.", hint="give another --out; --force replaces it.")
    return folder / name


def _check_own(folder, force):
    """Refuse a folder with files that minivit did not write."""
    described = weights.is_own(folder)
    foreign = sorted(path.name for path in folder.iterdir() if not _is_own(path, described))
    if foreign and not force:
        raise FileError(
            folder,
            "\n    ".join(["holds files that minivit did not write:", *shortened(foreign, 5)]),
            hint="choose another folder; --force writes into this one, and replaces what has the names of a model's "
            f"files: {', '.join(_DESCRIBING)}, ...",
        )


def _is_own(path, described):
    """Whether minivit, or a system, wrote this file. described: the folder's config.json is minivit's."""
    if path.name in (weights.CONFIG, weights.PREPROCESSOR):
        return described
    if path.name == training.HISTORY:
        return training.is_history(path)
    if path.name == FEATURES:
        return is_own_features(path)
    return is_own_figure(path) or path.name in _LITTER or is_leftover(path.name)


@contextlib.contextmanager
def notes():
    """What is only warned of in a program is a note to somebody who typed a command."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        print(f"note: {shown_lines(warning.message)}")
