"""One writer a folder: a lock that the operating system takes from a process that ends, however it ends."""

import errno
import os
import threading
import warnings
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from ..errors import FileError
from .files import folder_made, folder_written, sweep

LOCK = ".minivit.lock"
_held = threading.local()  # .locks: {folder: Lock} of this thread
_NO_LOCKS = {getattr(errno, name, None) for name in ("ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL")}


class Lock:
    """A folder that is this process's to write into, until close()."""

    def __init__(self, folder):
        self.folder, self.path = folder, folder / LOCK
        self._open()
        while not self.holds():  # its owner before us removed the file while we waited for it
            os.close(self.number)
            self._open()

    def _open(self):
        self.number = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            _lock(self.number)
        except OSError as fault:
            if fault.errno in _NO_LOCKS:
                text = f"{self.folder}: this disk knows no locks; see to it that one training at a time writes here."
                warnings.warn(text, stacklevel=6)
                return
            os.close(self.number)
            raise FileError(
                self.folder,
                "another process is writing into this folder.",
                rule="one training at a time in a folder.",
                hint="wait until it is done, or choose another folder.",
            ) from fault

    def holds(self):
        """Whether the locked file is still the one at its path. Windows keeps it there while it is open."""
        try:
            return os.path.samestat(os.fstat(self.number), os.stat(self.path)) or os.name == "nt"
        except OSError:
            return False

    def check(self):
        """FileError where the folder is not the one any more that was locked."""
        if not self.holds():
            raise FileError(
                self.folder,
                f"this folder was deleted, moved or replaced while it was written to: its {LOCK} is gone.",
                hint="what was saved last is where the folder is now; --resume goes on from there.",
            )

    def close(self):
        """Give the folder back. The file goes, unless there is something in it, which is not ours."""
        removed = self.holds() and not os.fstat(self.number).st_size
        if os.name == "nt":  # which removes no open file: where the next process has it open by now, it stays
            os.close(self.number)
        with suppress(OSError):
            if removed:
                self.path.unlink()
        if os.name != "nt":
            os.close(self.number)


@contextmanager
def locked(folder):
    """`with locked(folder) as lock:` no other process or thread that asks for the lock writes there. The folder is made
    if missing, and removed again if the block fails and leaves it empty; what killed processes left in it is removed.

    A thread that has the lock may ask for it again. FileError: another has it, or the folder cannot be written to. A
    disk that knows no locks is warned of.
    """
    folder = Path(folder)
    mine = _held.__dict__.setdefault("locks", {})
    key = os.path.realpath(folder)
    if key in mine:
        yield mine[key]
        return
    with ExitStack() as stack:
        with folder_written(folder):
            stack.enter_context(folder_made(folder))
            mine[key] = stack.enter_context(closing(Lock(folder)))
        stack.callback(mine.pop, key)
        sweep(folder)
        yield mine[key]


if os.name == "nt":
    import msvcrt

    def _lock(number):
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(number):
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
