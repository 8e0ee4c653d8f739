"""A learner's file in a process of its own, which may do what it likes with itself: it is asked, and ends in time.

The other process only computes, on inputs that it is sent: no word of it says that anything is right. It holds what a
learner's code could have changed in Python, in NumPy or in minivit; this one judges (judge.py), and runs none of it.
What remains possible: a right answer that was copied, taken from answers.txt, or computed by minivit's own ops. And
the limits are no prison: a file that means harm, and knows how, can do on this machine what its user can.
"""

import contextlib
import io
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from ...errors import MinivitError, shown

MOST = 2**22  # bytes of an answer
MEMORY = 2**30  # bytes of addresses that the other process may have, where the system counts them
KEPT = 300  # letters of what a learner's code prints
_STARTS = 60  # seconds for Python and its imports, before the learner's time begins
_ROOT = Path(__file__).parents[3]
_CHILD = f"import sys; sys.path.append({str(_ROOT)!r}); from minivit.course.exercises import child; child.main()"


class Apart:
    """`with Apart(name, source, path, seconds) as work:` work.ask(...) is that of Work, done elsewhere.

    MinivitError where the file fails, the time is up, or the process ends without an answer.
    """

    def __init__(self, name, source, path, seconds):
        self._name, self._file, self._seconds = name, (name, source, path), seconds
        self._answers, self._printed = queue.SimpleQueue(), ""

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-P", "-u", "-c", _CHILD],
            cwd=self._folder.name,  # nothing of the learner's is found by an import
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for this process alone, and what the other one starts ends with it
        )
        self._ears = [threading.Thread(target=work, daemon=True) for work in (self._listen, self._overhear)]
        for ear in self._ears:
            ear.start()
        try:
            self._answer(_STARTS)  # it has begun
            name, source, path = self._file
            self._until = time.monotonic() + self._seconds
            self._send([np.frombuffer(source, np.uint8)], name=name, path=str(path.absolute()), seconds=self._seconds)
            self._answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._end()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()

    def _end(self):
        """End the process, and what it started, and hear the last of it."""
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):  # not on Windows
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        for ear in self._ears:
            ear.join(1)  # not for ever: whoever has left the group may hold the pipes

    def ask(self, op, case, dy=None):
        """As Work.ask."""
        arrays = [*case.inputs, *case.constants, *([] if dy is None else [dy])]
        counts = len(case.inputs), len(case.constants)
        self._send(arrays, op=op, counts=counts, options=case.options)
        answer = self._answer()
        try:
            came, y, *gradients = answer
            gradients = iter(gradients)
            return y, [next(gradients, None) if there else None for there, _ in zip(came, case.inputs, strict=True)]
        except (ValueError, TypeError) as error:  # written by the learner's code, and not by child.py
            raise self._failed("its answer cannot be read.", "leave the process's files alone.") from error

    def _send(self, arrays, **words):
        try:
            send(self._process.stdin, arrays, **words)
        except OSError:  # it has ended: that is said where its answer is missing
            pass

    def _answer(self, seconds=None):
        """The arrays of the next answer."""
        try:
            wait = self._until - time.monotonic() if seconds is None else seconds
            answer = self._answers.get(timeout=max(0, wait))
        except queue.Empty:
            hint = "is there a loop without an end? minivit check FILE runs it for as long as it takes."
            raise self._failed(f"the time is up: {self._seconds:g} seconds.", hint) from None
        if answer is None:
            hint = "an exercise returns its gradients, and neither ends Python nor takes much memory."
            raise self._failed("the process ended without an answer.", hint)
        arrays, words = answer
        if "error" in words:
            raise _told(self._with_print(str(words["error"])[:2000]))
        return arrays

    def _failed(self, what, hint):
        return _told(self._with_print(str(MinivitError(self._name, what, hint=hint))))

    def _with_print(self, text):
        self._end()
        printed = " ".join(self._printed.split())
        return f"{text}\n  it printed: {shown(printed)}" if printed else text

    def _listen(self):
        """Put the answers into the queue, and None in the end: of the process, or of what can be understood."""
        with contextlib.suppress(Exception), self._process.stdout as stream:
            while True:
                self._answers.put(receive(stream))
        self._answers.put(None)

    def _overhear(self):
        """Read what the learner's code prints, so that it never waits for that; the beginning is kept."""
        with contextlib.suppress(Exception), self._process.stderr as stream:
            while some := stream.read1(2**16):
                if len(self._printed) < KEPT:
                    self._printed += some.decode("utf-8", errors="replace")[:KEPT]


def _told(text):
    """The MinivitError of this text."""
    where, _, what = text.partition(": ")
    return MinivitError(where, what)


def send(stream, arrays, **words):
    """Write a message: words as JSON and arrays as NumPy's npy, after the number of bytes of each of the two."""
    data = io.BytesIO()
    for array in arrays:
        np.lib.format.write_array(data, array, allow_pickle=False)
    text = json.dumps({"arrays": len(arrays), **words}).encode()
    stream.write(len(text).to_bytes(8, "little") + data.tell().to_bytes(8, "little") + text + data.getvalue())
    stream.flush()


def receive(stream):
    """(arrays, words) of the next message. An Exception for one that is cut off, too large or no message."""
    sizes = stream.read(16)
    text, data = (int.from_bytes(sizes[i : i + 8], "little") for i in (0, 8))
    if len(sizes) < 16 or max(text, data) > MOST:
        raise EOFError
    words, data = json.loads(stream.read(text)), io.BytesIO(stream.read(data))
    arrays = [np.lib.format.read_array(data, allow_pickle=False) for _ in range(words.pop("arrays"))]
    return arrays, words
