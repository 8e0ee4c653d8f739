"""Processes that share each batch: mpiexec starts them, and they talk through MPI (mpi4py, the extra `mpi`).

A process that was started alone is a world of size 1, in which all of this is free and mpi4py is not imported. Of N,
each has the same program, data and numbers, and does its rows of every batch. They meet in agree() after each step, and
there it shows if one of them has failed: then all of them stop, at the same step.

Source: MPI Forum 2025, "MPI: A Message-Passing Interface Standard, version 5.0", chapter 6; mpi4py's words.
"""

import functools
import os
import shutil
import signal
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..errors import MinivitError, shown_lines
from .threads import get_num_threads, set_num_threads

# how many there are, as those say who start them: start(); MPICH's, Intel's and Microsoft's mpiexec; Open MPI's; Slurm
_COUNTS = ("MINIVIT_PROCESSES", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_INSTALL = "pip install 'minivit[mpi]', or pip install -e '.[mpi]' in a clone."
_NUMBERS = 4  # in an agreement: whether one has failed, and three to be added up


class OtherProcess(MinivitError):
    """Another of the processes that share a batch has failed; the text is its message."""


class World:
    """The processes that were started together: `rank` of `size`, from 0. mpi: mpi4py's module, None for one alone."""

    def __init__(self, mpi=None):
        self.mpi, self.comm = mpi, mpi and mpi.COMM_WORLD
        self.rank, self.size = (self.comm.rank, self.comm.size) if mpi else (0, 1)

    @property
    def is_first(self):
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def rows(self, count):
        """This process's part of range(count), as a slice; empty where there are fewer than processes."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def all_reduce(self, array):
        """The sum of the processes' arrays, in the place of each. Returns it. To be called after they have agreed."""
        if self.size > 1:
            self.comm.Allreduce(self.mpi.IN_PLACE, array)
        return array

    def broadcast(self, value):
        """What the first process gives, in all of them, when they have agreed."""
        self.agree()
        return value if self.size == 1 else self.comm.bcast(value)

    def gather(self, value):
        """A list of what each process gives, in all of them, when they have agreed."""
        self.agree()
        return [value] if self.size == 1 else self.comm.allgather(value)

    def agree(self, *numbers):
        """The sums of up to three numbers over all processes, (3,). OtherProcess, in each, where one has failed."""
        mine = np.zeros(_NUMBERS)
        mine[1 : 1 + len(numbers)] = numbers
        failed, *sums = self.all_reduce(mine)
        if failed:
            self._tell(None)
        return np.array(sums)

    @contextmanager
    def together(self):
        """What is raised inside, in any of the processes, is raised in all of them, when they next agree."""
        try:
            yield
        except Exception as error:
            if self.size > 1 and not getattr(error, "agreed", False):
                error.agreed = True
                self.all_reduce(np.array([1.0, *[0.0] * (_NUMBERS - 1)]))
                self._tell(error)
            raise
        except KeyboardInterrupt as error:
            if self.size > 1 and not getattr(error, "agreed", False):  # at any moment: there is nobody to agree with
                print(shown_lines(error), file=sys.stderr, flush=True)
                self.comm.Abort(128 + signal.SIGINT)
            raise

    def _tell(self, error):
        """Hear what happened where, after an agreement that said that something did. Who has no error gets one."""
        kind = "" if error is None or isinstance(error, MinivitError) else f"{type(error).__name__}: "
        told = self.comm.allgather(None if error is None else f"{kind}{error}")
        if error is None:
            rank, text = next((rank, text) for rank, text in enumerate(told) if text is not None)
            raised = OtherProcess(f"process {rank + 1} of {self.size}", text)
            raised.agreed = True
            raise raised


@functools.cache
def world():
    """The World that this process is in. Of several on one machine each uses its share of the cores.

    MinivitError: it was started as one of several, and mpi4py is not there, or is another MPI's.
    """
    count = max(int(os.environ.get(name) or 1) for name in _COUNTS)
    if count == 1:
        return World()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        what = f"this is one of {count} processes, and mpi4py cannot be used: {error}."
        raise MinivitError("mpiexec", what, hint=_INSTALL) from error
    if MPI.COMM_WORLD.size == 1:
        raise MinivitError(
            "mpiexec",
            f"this is one of {count} processes, and mpi4py knows of no other.",
            rule="mpiexec and the MPI that mpi4py finds are the same.",
            hint="take the mpiexec of this Python's environment, as --processes does; of Slurm, srun --mpi=pmi2.",
        )
    here = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set().union(*here.allgather(own))  # whether mpiexec has given each its own or not
    set_num_threads(min(get_num_threads(), max(1, len(cores) // here.size)))
    return World(MPI)


def find_mpiexec():
    """The path of the mpiexec of this Python's environment, or else of the system; None where there is none."""
    # the second place: Intel's, on Windows
    places = str(Path(sys.executable).parent), str(Path(sys.prefix, "Library", "bin")), None
    return next((path for place in places if (path := shutil.which("mpiexec", path=place))), None)


def mpiexec():
    """The path of mpiexec, where mpi4py is there, too. MinivitError: see start."""
    found = find_mpiexec()
    missing = [name for name, there in (("mpi4py", find_spec("mpi4py")), ("mpiexec", found)) if not there]
    if missing:
        raise MinivitError("--processes", f"{' and '.join(missing)} cannot be found.", hint=_INSTALL)
    return found


def start(count, arguments):
    """Run `minivit` with these arguments in so many processes on this machine. Returns the exit code.

    Ctrl-C, and the other signals that end a process, go to all of them, which answer as one does; a second one ends
    them at once. MinivitError: there is no mpi4py, or no mpiexec.
    """
    import subprocess  # which nobody else needs

    dev = ["-X", "dev"] if sys.flags.dev_mode else []
    command = [mpiexec(), "-n", str(count), sys.executable, *dev, "-m", "minivit", *arguments]
    environment = os.environ | {_COUNTS[0]: str(count)}  # so that none of them starts others, whatever mpiexec this is
    if count > (os.cpu_count() or 1):  # MPICH: who waits sleeps, and does not keep a core that another could use
        environment.setdefault("MPIR_CVAR_ENABLE_HEAVY_YIELD", "1")
    # a session of its own: a terminal's Ctrl-C comes here, and not to mpiexec, which would print a notice of its own
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
    asked = []

    def handler(number, frame):
        asked.append(number)
        if len(asked) > 1:
            process.kill()
        elif os.name != "nt":  # there the console has told them itself
            process.terminate()

    before = {
        number: signal.signal(number, handler)
        for name in ("SIGINT", "SIGTERM", "SIGHUP")
        if (number := getattr(signal, name, None)) and (name == "SIGINT" or signal.getsignal(number) != signal.SIG_IGN)
    }
    try:
        code = process.wait()
    finally:
        for number, old in before.items():
            signal.signal(number, old)
    return 128 + asked[0] if asked and code else 128 - code if code < 0 else code


