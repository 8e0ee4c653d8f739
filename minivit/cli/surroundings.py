"""What a shell hands a command: where its output goes, and the backend of matplotlib. Neither may stop its work."""

import os
import sys
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress


class _Stream:
    """A stream that goes nowhere as soon as it cannot be written to: its reader has left, say, or its disk is full."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text):
        """The number of characters, written or not."""
        try:
            self._stream.write(text)
        except OSError:
            self._give_up()
        return len(text)

    def flush(self):
        """All that was written goes out, or nowhere."""
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self):
        # below the stream, so that Python has nothing to complain of when it flushes it at its end
        with suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())  # a notebook's stream has no number, and stays as it is

    def __getattr__(self, name):
        return getattr(self._stream, name)


@contextmanager
def output():
    """Inside, whatever is printed is printed as far as that can be, and nothing is raised where it cannot."""
    with ExitStack() as stack:
        for stream, redirect in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
            if stream is None:  # closed before Python started: the next file would have its number
                stream = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            if hasattr(stream, "reconfigure"):  # a console that lacks a letter of a file's name shows its number
                stream.reconfigure(errors="backslashreplace")
            stack.enter_context(redirect(_Stream(stream)))
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()


@contextmanager
def silence():
    """Inside, nothing is printed."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def matplotlib(windows=False):
    """The package, with the backend Agg, which opens no window; with `windows` the backend that the user has, if there
    is one that can open a window here.
    """
    wanted = os.environ.pop("MPLBACKEND", None)  # where it names nothing that is installed, the import is refused
    try:
        import matplotlib as package
    finally:
        if wanted is not None:
            os.environ["MPLBACKEND"] = wanted
    if not windows or "inline" in (wanted or ""):  # a notebook's, for its own process
        package.use("Agg")
    elif wanted:
        from matplotlib import pyplot

        try:
            pyplot.switch_backend(wanted)
        except Exception:  # any package may be a backend
            package.use("Agg")
    return package
