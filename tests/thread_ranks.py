"""Ranks of one process: threads that take turns, so that the losses' own code runs on several ranks of any backend."""

import threading
from contextlib import contextmanager

import torch

from alrp_cuda import framework, ops
from alrp_cuda.distributed.channel import record


class _Meeting:
    """What the ranks bring to a collective. One thread runs at a time: the emulated device serves one call at a time."""

    def __init__(self, size):
        self.turn = threading.Condition()
        self.size = size
        self.brought = {}
        self.failed = False

    def meet(self, rank, number, tensor):
        """The tensors of all ranks, once all have come to their collective of this number."""
        self.brought[number, rank] = tensor.clone()
        self.turn.notify_all()

        def complete():
            return self.failed or all((number, other) in self.brought for other in range(self.size))

        assert self.turn.wait_for(complete, timeout=60), f"rank {rank} waits in vain"
        if not all((number, other) in self.brought for other in range(self.size)):
            raise RuntimeError("another rank has ended")
        return [self.brought[number, other] for other in range(self.size)]


class ThreadChannel:
    """A Channel between threads."""

    def __init__(self, meeting, rank):
        self.meeting, self.rank, self.size, self.number = meeting, rank, meeting.size, 0

    def _meet(self, tensor):
        record(tensor)
        self.number += 1
        parts = self.meeting.meet(self.rank, self.number, tensor)
        assert len({(part.shape, part.dtype) for part in parts}) == 1
        return parts

    def gather(self, tensor):
        return [part.clone() for part in self._meet(tensor)]

    def add(self, tensor):
        tensor.copy_(torch.stack(self._meet(tensor)).sum(0))


@contextmanager
def thread_groups():
    """Makes group= take a ThreadChannel."""
    was = framework.connect, ops.connect
    framework.connect = ops.connect = lambda group: group
    try:
        yield
    finally:
        framework.connect, ops.connect = was


def run_ranks(size, function):
    """[function(rank, group)] of every rank; an exception of the function is its result."""
    meeting, results = _Meeting(size), [None] * size

    def run(rank):
        with meeting.turn:
            try:
                results[rank] = function(rank, ThreadChannel(meeting, rank))
            except Exception as error:
                results[rank] = error
                meeting.failed = True
                meeting.turn.notify_all()

    with thread_groups():
        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return results
