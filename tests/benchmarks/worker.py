"""A peer in a process of its own: so it has its own threads, its own peak memory, and may die alone.

`python -m tests.benchmarks.worker PEER KIND THREADS` reads requests, one JSON object a line, and answers each so.
Worker is the other side: it starts such a process and asks it.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]

# peer: the module beside this one, its variant, and what must be installed
PEERS = {
    "minivit": ("with_minivit", None, ()),
    "torch": ("with_torch", "sdpa", ("torch",)),
    "torch eager": ("with_torch", "eager", ("torch", "transformers")),
    "torch sdpa": ("with_torch", "sdpa", ("torch", "transformers")),
    "HIPS autograd": ("with_autograd", None, ("autograd",)),
}


def missing(peer):
    """Names of the packages that a peer needs and that are not installed."""
    return [package for package in PEERS[peer][2] if importlib.util.find_spec(package) is None]


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

    threads: how many each library may use, None for its own choice. .hello is what it said when it was ready:
    its baseline, the peak memory after all imports, in bytes, and its threads, each a number or None.
    """

    def __init__(self, peer, kind, threads=None):
        self.log = tempfile.TemporaryFile()
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
        limits = {} if threads is None else dict.fromkeys(names, str(threads))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.worker", peer, kind, str(threads or 0)],
            cwd=ROOT,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"} | limits,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            encoding="utf-8",
        )
        self._hello = None

    @property
    def hello(self):
        if self._hello is None:
            self._hello = self._answer()
        return self._hello

    def ask(self, do, **fields):
        """The answer to one request, a dict. WorkerError if there is none."""
        self.hello  # noqa: B018  its line comes first
        try:
            self.process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise WorkerError(self._death()) from None
        return self._answer()

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
        last = self.log.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        return f"the worker ended with code {code}" + (f": {last[0][:200]}" if last else "")

    def close(self):
        """End the process, whatever it is doing."""
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


def main(peer, kind, threads):
    """The process's side. threads: "0" for the library's own choice."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes: the parent ends this one
    with contextlib.suppress(OSError):  # where memory runs out, Linux shall end a worker and nobody else's program
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints goes to the log

    def answer(**fields):
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    module, variant, _ = PEERS[peer]
    library = importlib.import_module(f".{module}", __package__)
    answer(threads=library.prepare(kind, int(threads)), baseline=peak_memory())
    step = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "build":
                step = None  # the last task's memory is free before the next task takes its own
                step, results = library.build(request["task"], variant)
                np.savez(request["results"], **results())
                del results
                answer()
            elif request["do"] == "step":
                start = time.perf_counter()
                for _ in range(request["steps"]):
                    step()
                answer(seconds=time.perf_counter() - start)
            else:
                answer(peak=peak_memory())
        except Exception as error:
            first = str(error).strip().splitlines()[:1]
            answer(error=": ".join([type(error).__name__, *first])[:300])


if __name__ == "__main__":
    main(*sys.argv[1:])
