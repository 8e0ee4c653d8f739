"""A peer in a process of its own, or several: so it has its own threads, its own peak memory, and may die alone.

`python -m tests.benchmarks.worker PEER KIND THREADS` reads requests, one JSON object a line, and answers each so.
Worker is the other side: it starts such a process and asks it. Outside of its turn a peer is stopped where the system
can do that: threads that spin and processes that wait for each other would take a core from the one that is measured.
"""

import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .groups import GROUPS, One, mpiexec

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Peer:
    """module: the file beside this one; variant: what its build() is told; needs: what must be installed.

    environment: variables of its processes; group: how several of them talk, one of groups.GROUPS.
    """

    module: str
    variant: str | None = None
    needs: tuple = ()
    environment: dict = field(default_factory=dict)
    group: str | None = None


SLOW, FAST = {"MINIVIT_FAST": "0"}, {"MINIVIT_FAST": "1"}  # without and with compiled loops
PEERS = {  # N in a name stands for a number of processes, which share each batch
    "minivit": Peer("with_minivit", environment=SLOW),
    "minivit fast": Peer("with_minivit", needs=("numba",), environment=FAST),
    "minivit xN": Peer("with_minivit", needs=("mpi4py", "mpiexec"), environment=SLOW, group="mpi"),
    "minivit fast xN": Peer("with_minivit", needs=("numba", "mpi4py", "mpiexec"), environment=FAST, group="mpi"),
    "torch": Peer("with_torch", "sdpa", ("torch",)),
    "torch eager": Peer("with_torch", "eager", ("torch", "transformers")),
    "torch sdpa": Peer("with_torch", "sdpa", ("torch", "transformers")),
    "torch DDP xN": Peer("with_torch", "sdpa", ("torch", "transformers"), group="gloo"),
    "onnxruntime": Peer("with_onnxruntime", needs=("onnx", "onnxruntime")),
    "HIPS autograd": Peer("with_autograd", needs=("autograd",)),
}


def peer_of(name):
    """The Peer of a name such as "torch DDP x2", and how many processes it has."""
    processes = re.search(r"(?<= x)\d+$", name)
    return (PEERS[f"{name[: processes.start()]}N"], int(processes[0])) if processes else (PEERS[name], 1)


def missing(name):
    """Names of what a peer needs and that is not installed."""
    return [need for need in peer_of(name)[0].needs if not (mpiexec() if need == "mpiexec" else find_spec(need))]


def usable_cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_file(path, field):
    """A field of a file in /proc such as "VmHWM:   1628 kB", in bytes; None where there is no such file."""
    with contextlib.suppress(OSError):
        for line in Path(path).read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None


def peak_memory():
    """The most bytes of memory that this process has held so far; None on Windows, where it is not measured."""
    peak = memory_file("/proc/self/status", "VmHWM")  # getrusage's number may be that of the process that started us
    if peak is None and sys.platform == "darwin":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak


class WorkerError(Exception):
    """A worker could not do what it was asked, and says why in one line."""


class Worker:
    """The parent's side: start the process of a peer for tasks of one kind, ask it, end it.

    threads: how many the library may use, None for its own choice; several processes share them out, or all cores.
    .hello is what it said when it was ready: its baseline, the peak memory after all imports, in bytes, and the threads
    of a process, each a number or None, and the ids of its processes.
    """

    def __init__(self, name, kind, threads=None):
        peer, processes = peer_of(name)
        if processes > 1:
            threads = max(1, (threads or usable_cores()) // processes)
        self.log = tempfile.TemporaryFile()
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
        limits = {} if threads is None else dict.fromkeys(names, str(threads))
        start = [mpiexec(), "-n", str(processes)] if peer.group == "mpi" else []
        self.process = subprocess.Popen(
            [*start, sys.executable, "-m", "tests.benchmarks.worker", name, kind, str(threads or 0)],
            cwd=ROOT,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"} | peer.environment | limits,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            encoding="utf-8",
            process_group=0,  # a terminal's Ctrl-C is for the parent alone, which ends them
        )
        self._hello, self._pids = None, []

    @property
    def hello(self):
        if self._hello is None:
            self._hello = self._answer()
            self._pids = self._hello["pids"]
            self._signal("SIGSTOP")
        return self._hello

    def ask(self, do, **fields):
        """The answer to one request, a dict. WorkerError if there is none."""
        self.hello  # noqa: B018  its line comes first
        self._signal("SIGCONT")
        try:
            self.process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise WorkerError(self._death()) from None
        answer = self._answer()
        self._signal("SIGSTOP")
        return answer

    def _signal(self, name):
        """Send a signal to all processes of the peer, on systems that have it."""
        for pid in self._pids if hasattr(signal, name) else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, getattr(signal, name))

    def _answer(self):
        line = self.process.stdout.readline()
        if not line.endswith("\n"):
            raise WorkerError(self._death())
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _death(self):
        code = self.process.wait()
        if code == -9:
            return "the worker was killed (signal 9), as a system does that runs out of memory"
        self.log.seek(0)
        lines = self.log.read().decode("utf-8", "replace").strip().splitlines()
        errors = [line for line in lines if re.match(r"\w+(Error|Exception)\b", line)]  # mpiexec has more to say
        return f"the worker ended with code {code}" + "".join(f": {line[:200]}" for line in (errors or lines)[-1:])

    def close(self):
        """End the process, whatever it is doing."""
        self._signal("SIGKILL")
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):  # a request that was never read
            self.process.stdin.close()
        self.process.stdout.close()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def requests(group):
    """What the parent asks, in all processes of the peer, to the end of its questions."""
    while True:
        line = sys.stdin.readline() if group.rank == 0 else ""
        request = group.share(json.loads(line) if line else None)
        if request is None:
            return
        yield request


def total(parts):
    """The sum of numbers; None where one of them is not known."""
    return None if None in parts else sum(parts)


def main(name, kind, threads):
    """The process's side. threads: "0" for the library's own choice."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes on Windows: the parent ends this one
    with contextlib.suppress(OSError):  # where memory runs out, Linux shall end a worker and nobody else's program
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints goes to the log

    def answer(**fields):
        if group.rank == 0:
            answers.write(json.dumps(fields) + "\n")
            answers.flush()

    peer, processes = peer_of(name)
    library = importlib.import_module(f".{peer.module}", __package__)
    group = GROUPS[peer.group](processes) if peer.group else One()
    threads = library.prepare(kind, int(threads))
    answer(threads=threads, baseline=total(group.gather(peak_memory())), pids=group.gather(os.getpid()))
    step = None
    for request in requests(group):
        try:
            if request["do"] == "build":
                step = None  # the last task's memory is free before the next task takes its own
                step, results = library.build(request["task"], peer.variant, group)
                start = time.perf_counter()
                found = results()
                seconds = time.perf_counter() - start
                if group.rank == 0:
                    np.savez(request["results"], **found)
                del results, found
                answer(seconds=seconds)
            elif request["do"] == "step":
                start = time.perf_counter()
                for _ in range(request["steps"]):
                    step()
                answer(seconds=max(group.gather(time.perf_counter() - start)))
            else:
                answer(peak=total(group.gather(peak_memory())))
        except Exception as error:
            first = str(error).strip().splitlines()[:1]
            text = ": ".join([type(error).__name__, *first])[:300]
            print(text, file=sys.stderr, flush=True)
            answer(error=text)
            group.abort()


if __name__ == "__main__":
    main(*sys.argv[1:])
