"""The other process: it runs a learner's file, and answers what apart.py asks until it is killed."""

import contextlib
import os
import sys
from pathlib import Path

import numpy as np

from ...errors import MinivitError
from ...machinery.threads import hold_blas, set_num_threads
from .apart import MEMORY, receive, send
from .judge import Case
from .work import Work

# what no exercise needs, so that a mistake, or a joke, costs the teacher no file and no process
_REFUSED = ("os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.startfile", "os.kill", "subprocess.")
_REFUSED += ("os.remove", "os.rename", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod")
_REFUSED += ("shutil.", "socket.", "winreg.", "pty.", "signal.pthread_kill")


def main():
    """Say that it has begun, take a file, and answer."""
    questions, answers = (os.fdopen(os.dup(number), mode) for number, mode in ((0, "rb"), (1, "wb")))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what the learner's code prints goes where it is only shown
    set_num_threads(1)
    hold_blas()  # now: a library is opened for that
    send(answers, [])
    [source], words = receive(questions)
    name, before = words["name"], _functions()
    _limit(words["seconds"])
    try:
        work = Work(name, source.tobytes(), Path(words["path"]))
        send(answers, [])
        while True:
            arrays, words = receive(questions)
            first, second = words["counts"]
            case = Case(arrays[:first], arrays[first : first + second], words["options"])
            y, gradients = work.ask(words["op"], case, *arrays[first + second :])
            _check_unchanged(name, before)
            there = np.array([gradient is not None for gradient in gradients])
            send(answers, [there, y, *(gradient for gradient in gradients if gradient is not None)])
    except MinivitError as error:
        send(answers, [], error=str(error))


def _functions():
    """{(module or class, name): function or class} of Python's builtins, NumPy and minivit."""
    rooms = [room for name, room in sys.modules.items() if name.partition(".")[0] in ("builtins", "numpy", "minivit")]
    rooms += [kind for room in rooms for kind in vars(room).values() if isinstance(kind, type)]
    return {(room, name): value for room in rooms for name, value in vars(room).items() if callable(value)}


def _check_unchanged(name, before):
    """A kindness to the learner, who would not know why it is wrong elsewhere; the judge sees none of these changes."""
    for (room, word), value in before.items():
        if vars(room).get(word) is not value:
            hint = "leave Python, NumPy and minivit as they are; a name of your own may be anything."
            raise MinivitError(name, f"the file changes {room.__name__}.{word}.", hint=hint)


def _limit(seconds):
    """Take from this process what no exercise needs, as far as the system has a word for it."""
    with contextlib.suppress(ImportError):  # Windows
        import resource

        # of the processor's time: where nobody is left who would end this process
        for kind, most in (("AS", MEMORY), ("CPU", int(seconds) + 10), ("FSIZE", 0), ("CORE", 0)):
            with contextlib.suppress(AttributeError, ValueError, OSError):
                resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (most, most))
    sys.addaudithook(_refuse)


def _refuse(event, arguments):
    if event.startswith(_REFUSED):
        raise PermissionError(f"an exercise needs no {event}.")
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        raise PermissionError("an exercise writes no file.")
