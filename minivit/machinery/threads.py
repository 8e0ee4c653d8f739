"""Threads: the one place that knows how many cores there are.

NumPy works an array off on one core, and lets other threads go on while it computes. So `run` takes work in parts and
shares them out to all cores; blocks.py and products.py cut it. NumPy's own library for matrix products (OpenBLAS) is
held at one thread from the first op on, since two that want all cores stand in each other's way. A product outside of
minivit then runs on one thread, too.

How the work is cut depends on the work alone, never on the number of threads. So every sum adds its numbers in the same
order, and the results are the same bits with any number of threads.
"""

import collections
import contextlib
import contextvars
import ctypes
import functools
import os
import queue
import sys
import threading

from ..errors import check_whole

_threads = None  # how many, once somebody asked or said
_tasks = queue.SimpleQueue()  # what idle workers wait for
_workers = 0
_lock = threading.Lock()
_local = threading.local()  # whether BLAS is held in this thread: some builds of it count their threads for each


def set_num_threads(n):
    """Let the ops use n threads from now on, in the whole process; 1 switches threads off. As torch.set_num_threads.

    Without this call they are as many as NumPy's matrix products would use: one a core, or what OPENBLAS_NUM_THREADS
    or OMP_NUM_THREADS said when Python started. The results are the same bits with any number.
    """
    global _threads
    check_whole("set_num_threads", "n", n)
    _threads = int(n)


def get_num_threads():
    """How many threads the ops use."""
    with _lock:  # so that nobody asks BLAS when another thread holds it
        if _threads is None:
            set_num_threads(max((library.num_threads for library in _blas()), default=os.cpu_count() or 1))
        return _threads


def cut(n, parts):
    """Cut range(n) into `parts` slices of about equal length, fewer where n is less."""
    parts = max(1, min(n, parts))
    return [slice(n * i // parts, n * (i + 1) // parts) for i in range(parts)]


def run(work, parts):
    """Call work(part) for every part, in any order and several at a time; return when all are done.

    work writes its results where no other part writes. An exception in it is raised here, and parts may be left undone.
    """
    helpers = min(get_num_threads(), len(parts)) - 1
    hold_blas()
    if helpers < 1:
        for part in parts:
            work(part)
        return
    _start_workers(helpers)
    todo, ended = collections.deque(parts), queue.SimpleQueue()
    for _ in range(helpers):
        _tasks.put((contextvars.copy_context(), work, todo, ended))
    _share(work, todo, ended)
    # a helper that has not woken up by now finds nothing to do, and nobody waits for it
    errors = [error for error in (ended.get() for _ in parts) if error is not None]
    if errors:
        raise errors[0]


def _share(work, todo, ended):
    """Do parts until none is left. Each part gives `ended` one message: None, or the error after which none is done."""
    error = None
    while True:
        try:
            part = todo.popleft()
        except IndexError:
            return
        try:
            if error is None:
                work(part)
        except BaseException as raised:
            error = raised
        ended.put(error)


def _worker():
    hold_blas()
    while True:
        context, *job = _tasks.get()
        context.run(_share, *job)  # np.errstate and the like hold in all threads
        del context, job  # let go of the arrays while waiting


def _start_workers(count):
    global _workers
    with _lock:
        while _workers < count:
            threading.Thread(target=_worker, name=f"minivit-{_workers + 1}", daemon=True).start()
            _workers += 1


def _forked():
    """A forked process has no threads but the one that forked it."""
    global _tasks, _workers, _lock
    _tasks, _workers, _lock = queue.SimpleQueue(), 0, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _keep_freed_memory():
    """Let glibc keep up to 1 GB that was freed, for the arrays of the next step.

    Otherwise it gives each large array back to the system, and gets it again in pages of zeros, which took a third of
    the time of a training step on digits. Elsewhere than on Linux nothing is changed.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a C library without mallopt
            c = ctypes.CDLL(None)
            c.mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: the largest that it takes
            c.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD


_keep_freed_memory()


@functools.cache
def _blas():
    """The libraries of matrix products in this process, as threadpoolctl controls them; none that it does not know."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas").lib_controllers


def hold_blas():
    """Let matrix products run on one thread each, if they do not yet."""
    if not getattr(_local, "held", False):
        get_num_threads()  # which asks BLAS, before it is held
        for library in _blas():
            library.set_num_threads(1)
        _local.held = True
