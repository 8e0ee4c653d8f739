"""How the processes of one peer talk: the benchmark asks the first of them, rank 0, which tells the others.

rank of size; share(value): what the first gives, in all of them; gather(value): a list of what each gives, in all of
them; abort(): one has failed, and the others may wait for it, so all end.
"""

import os
import subprocess
import sys


class One:
    """A peer of one process."""

    rank, size = 0, 1

    def share(self, value):
        return value

    def gather(self, value):
        return [value]

    def abort(self):
        """Nobody waits: the process may be asked again."""


class Mpi:
    """The processes that mpiexec started."""

    def __init__(self, size):
        from mpi4py import MPI

        self.comm = MPI.COMM_WORLD
        self.rank, self.size = self.comm.rank, self.comm.size
        self.share, self.gather = self.comm.bcast, self.comm.allgather

    def abort(self):
        self.comm.Abort(1)


class Gloo:
    """Processes of torch.distributed, whose way of talking between CPUs is gloo. The first one starts the others."""

    def __init__(self, size):
        from torch import distributed

        rank, port = (int(os.environ.get(name, 0)) for name in ("MINIVIT_BENCHMARK_RANK", "MINIVIT_BENCHMARK_PORT"))
        store = distributed.TCPStore("127.0.0.1", port, size, is_master=rank == 0, wait_for_workers=False)
        for other in range(1, size) if rank == 0 else ():
            own = {"MINIVIT_BENCHMARK_RANK": str(other), "MINIVIT_BENCHMARK_PORT": str(store.port)}
            command = [sys.executable, *sys.orig_argv[1:]]
            subprocess.Popen(command, env=os.environ | own, stdin=subprocess.DEVNULL)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=size)
        self.distributed, self.rank, self.size = distributed, rank, size

    def share(self, value):
        box = [value]
        self.distributed.broadcast_object_list(box)
        return box[0]

    def gather(self, value):
        found = [None] * self.size
        self.distributed.all_gather_object(found, value)
        return found

    def abort(self):
        os._exit(1)  # the others' connections break


GROUPS = {"mpi": Mpi, "gloo": Gloo}


def mpiexec():
    """The path of mpiexec; None where there is none. Asked by the benchmark itself: no peer shall import minivit."""
    from minivit.machinery.communication import find_mpiexec

    return find_mpiexec()
