"""Files that are whole or refused: JSON, safetensors and NumPy's .npz. Formats only; what they hold is weights/'s.

The safetensors package is an optional extra, so it is imported only where such a file is read or written.
"""

import io
import json
import math
import os
import re
import secrets
import stat
import time
import zipfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from ..errors import FileError, MinivitError, shortened

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
AGAIN = 20 if os.name == "nt" else 0  # a virus scanner on Windows may hold a new file for a moment: 2 seconds of tries
# Far above what is right: the config of ImageNet-21k's classes has 2 MB, the state of a ViT-Huge 0.3 MB of names. What
# is longer could take eighty times its length of memory before anything else refuses it.
MOST_JSON = 2**22  # bytes of a JSON file
MOST_LISTED = 2**23  # bytes of a list of tensors, and letters of text among arrays
_DEEPEST = 50  # levels of lists and dicts: to copy them and to write them as JSON is recursive
_DAMAGED = "the file is missing, cut off or damaged: copy or download it again (with git, run git lfs pull)."


def travelling(name):
    """The folder images/ or tutorials/: a wheel holds it as minivit/_images, a checkout beside minivit/."""
    package = Path(__file__).parents[1]
    inside = package / f"_{name}"
    return inside if inside.is_dir() else package.parent / name


@contextmanager
def replacing(*paths):
    """Gives a new empty file beside each path, in folders that are made if need be. After the block what was written
    there is synced and takes the paths' names, in the order given; if the block fails it is removed, and what was
    at the paths before is untouched. Raises FileError for what the operating system refuses: no right, no room, ...
    """
    temporary = []
    try:
        with ExitStack() as stack:
            for path in paths:
                stack.enter_context(folder_made(path.parent))
            try:
                for path in paths:
                    sweep(path.parent, 3600)
                    temporary.append(_new_file(path.parent))
                yield temporary
                for path in temporary:
                    with path.open("r+b") as file:
                        os.fsync(file.fileno())
                _rename(temporary, paths)
            finally:
                for path in temporary:
                    path.unlink(missing_ok=True)
    except FileError:
        raise
    except OSError as error:
        where = paths[0] if len(paths) == 1 else paths[0].parent
        hint = "choose a folder that you can write to, on a disk with room, and close what has the file open. "
        hint += "What was saved there before is still whole."
        raise FileError(where, f"cannot be written: {error}", hint=hint) from error


@contextmanager
def folder_made(folder):
    """Inside, the folder is there; if the block fails, what was made for it and is empty is removed again."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        raise


def _new_file(folder):
    """A new empty file in the folder: nobody else has its name, and a killed process's is known by it (see sweep)."""
    path = folder / f".minivit-{secrets.token_hex(16)}.tmp"
    path.touch(exist_ok=False)
    return path


def is_leftover(name):
    """Whether a file has a name that only replacing() gives."""
    return re.fullmatch(r"\.minivit-[0-9a-f]{32}\.tmp", name) is not None


def is_own_figure(path):
    """Whether a file is a picture that plots.save wrote."""
    try:
        with open(regular(path), "rb") as file:
            return b"tEXtSoftware\0minivit" in file.read(1000)
    except OSError:
        return False


def sweep(folder, seconds=0):
    """Remove what killed processes left unfinished in a folder, where nothing was written to it for so many seconds."""
    for path in folder.glob(".minivit-*.tmp"):
        with suppress(OSError):
            if is_leftover(path.name) and time.time() - path.lstat().st_mtime >= seconds:
                path.unlink()


def _rename(temporary, paths):
    """Give the temporary files their names; if one cannot have it, the (small) files before it get their old text."""
    before = [path.read_bytes() if path.is_file() else None for path in paths[:-1]]
    for number, (path, target) in enumerate(zip(temporary, paths, strict=True)):
        try:
            _replace(path, target)
        except OSError:
            for done, text in zip(paths[:number], before, strict=False):
                done.unlink() if text is None else done.write_bytes(text)
            raise


def _replace(path, target):
    for _ in range(AGAIN):
        with suppress(PermissionError):
            return os.replace(path, target)
        time.sleep(0.1)
    os.replace(path, target)


@contextmanager
def folder_written(path):
    """FileError for what the operating system refuses inside the block, where a folder is made or written to."""
    try:
        yield
    except FileError:
        raise
    except (FileExistsError, NotADirectoryError) as fault:
        raise FileError(path, "a file is in the way of this folder.", hint="name another folder.") from fault
    except OSError as fault:
        reason = fault.strerror or fault
        raise FileError(path, f"this folder cannot be written to: {reason}.", hint="name another folder.") from fault


def writable_folder(path):
    """The folder as a Path, made if missing; FileError if no file can be made in it."""
    path = Path(path)
    with folder_written(path), folder_made(path):
        _new_file(path).unlink()
    return path


def regular(path, most=None):
    """The path, to be opened; OSError for what is no regular file, and for one of more than `most` bytes.

    To open a pipe would wait for its writer, and a device never ends.
    """
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError("this is a folder.")
    if not stat.S_ISREG(found.st_mode):
        raise OSError("this is not a regular file.")
    if most is not None and found.st_size > most:
        raise OSError(f"it has {found.st_size:,} bytes, more than {most:,}.")
    return path


def read_regular(path, most=MOST_JSON):
    """The bytes of a regular file, see regular(). OSError also if there are more or less than its size says."""
    with open(regular(path, most), "rb") as file:
        size = os.path.getsize(path)
        data = file.read(size + 1)
    if len(data) != size:
        raise OSError("it has not the size that the system tells: it is being written, or no regular file.")
    return data


def parsed(text):
    """What JSON text says. ValueError for what is no JSON, or nested too deeply to be copied and written again."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply.") from None
    level = [value]
    for _ in range(_DEEPEST + 1):
        inner = (x.values() if isinstance(x, dict) else x for x in level if isinstance(x, (dict, list)))
        level = [y for x in inner for y in x]
    if level:
        raise ValueError(f"it is nested more than {_DEEPEST} levels deep.")
    return value


def read_json(path):
    """The dict in a JSON file. Raises FileError."""
    try:
        value = parsed(read_regular(path))
    except (OSError, ValueError) as error:
        raise FileError(path, f"cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise FileError(path, f"holds a {type(value).__name__}, not a JSON object {{...}}.")
    return value


def json_text(path, value):
    """A dict as the text of the JSON file at path. Raises FileError for what JSON cannot hold."""
    try:
        return json.dumps(value, indent=2, sort_keys=True) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise FileError(path, f"cannot be written as JSON: {error}.") from error


def write_json(path, value):
    """Write a dict as a JSON file; killed or out of disk, the file is whole, the old or the new. Raises FileError."""
    text = json_text(path, value)
    with replacing(path) as (temporary,):
        temporary.write_text(text, encoding="utf-8", newline="\n")


def safetensors_package():
    """The package safetensors. MinivitError if it is not installed."""
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MinivitError(
            "model.safetensors",
            "the package safetensors is not installed.",
            hint='pip install "minivit[hub]"; without it: np.savez("weights.npz", **model.state_dict())',
        ) from error
    return safetensors


def read_safetensors(path):
    """{name: array} of one safetensors file. The package checks the header (lengths, shapes and offsets fit the file);
    the bytes go straight into the arrays. Its get_tensor would map the file beside them, twice the memory, and knows
    no bfloat16. Raises FileError.
    """
    package = safetensors_package()
    tensors, refused = {}, []
    try:
        with open(regular(path), "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MOST_LISTED:
                raise ValueError(f"its header has {length:,} bytes, more than {MOST_LISTED:,}.")
            with package.safe_open(path, "numpy"):  # it checks the header
                header = parsed(file.read(length))
            header.pop("__metadata__", None)
            for name, entry in header.items():
                if entry["dtype"] not in _DTYPES:
                    refused.append(f"{name} ({entry['dtype']})")
                    continue
                file.seek(8 + length + entry["data_offsets"][0])
                tensors[name] = _read_tensor(file, entry["shape"], entry["dtype"])
    except (OSError, ValueError, package.SafetensorError) as error:
        raise FileError(path, f"cannot be read: {error}", hint=_DAMAGED) from error
    check_weights(path, tensors, refused)
    return tensors


def _read_tensor(file, shape, dtype):
    array = np.empty(shape, _DTYPES[dtype])
    file.readinto(array)
    if dtype == "BF16":  # the upper half of a float32
        bits, array = array, np.empty(shape, np.float32)
        np.left_shift(bits, 16, out=array.view(np.uint32), dtype=np.uint32)
    return array.astype(np.float64 if dtype == "F64" else np.float32, copy=False)


class _Archive(io.BufferedReader):
    """A file that zipfile reads in pieces: only the list of members is asked for at once, however many there are."""

    def read(self, size=-1, /):
        if size > MOST_LISTED:
            raise ValueError(f"its list of arrays has {size:,} bytes, more than {MOST_LISTED:,}.")
        return super().read(size)


def read_npz(path, choose=dict):
    """{name: array} of an .npz file, numbers and text only. Raises FileError.

    choose: picks and renames, {name: name} of all -> {new name: name}; the others are not read.
    """
    try:
        with _Archive(io.FileIO(regular(path))) as file, zipfile.ZipFile(file) as archive:
            # whatever a damaged or hostile file promises, it is given no more memory than it has bytes
            if sum(member.file_size for member in archive.infolist()) > os.path.getsize(path):
                raise ValueError("it promises more than it holds.")
            names = [member.removesuffix(".npy") for member in archive.namelist()]
            if len(set(names)) < len(names):
                raise ValueError("two of its members have one name.")
            if any(member.flag_bits & 1 for member in archive.infolist()):
                raise ValueError("one of its members is encrypted.")
            chosen = choose(dict(zip(names, names, strict=True)))
            return {new: _read_npy(archive, f"{name}.npy") for new, name in chosen.items()}
    except Exception as error:  # zipfile, zlib and NumPy's parser of headers have a dozen types for damaged bytes
        raise FileError(path, f"cannot be read: {error}", hint=_DAMAGED) from error


def _read_npy(archive, member):
    with archive.open(member) as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        size = file.tell() + math.prod(shape) * dtype.itemsize
    if dtype.kind == "U" and size > 4 * MOST_LISTED:  # NumPy's text has four bytes for each letter
        raise ValueError(f"{member} has {size:,} bytes of text, more than {4 * MOST_LISTED:,}.")
    if dtype.kind not in "biufU" or size != archive.getinfo(member).file_size:
        raise ValueError(f"{member} says that it is {dtype} {shape}, but not numbers or text of that size follow.")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def check_weights(path, arrays, refused=()):
    """Raise a FileError that lists what cannot be weights: names refused already, no floats, NaN or infinity."""
    bad = list(refused)
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            bad.append(f"{name} ({array.dtype})")
        elif not np.isfinite(array).all():
            bad.append(f"{name} (NaN or inf)")
    if bad:
        raise FileError(
            path,
            "\n    ".join([f"{len(bad)} of {len(arrays) + len(refused)} tensors cannot be weights:", *shortened(bad)]),
            rule=f"weights are finite numbers of dtype {', '.join(_DTYPES)}.",
        )
