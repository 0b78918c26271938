"""Ranks as processes of their own, joined by gloo: one pool of them for many tests, for they take seconds to start."""

import contextlib
import os
import tempfile
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

TIMEOUT = timedelta(seconds=60)


def initialise(rank, size, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size, timeout=TIMEOUT)


def _serve(rank, size, folder, pipe):
    """Call what comes, with the group it is for."""
    initialise(rank, size, folder)
    groups = {n: dist.new_group(range(n), timeout=TIMEOUT) for n in range(2, size)} | {size: dist.group.WORLD}
    while (call := pipe.recv()) is not None:
        function, count, arguments = call
        try:
            result = function(rank, groups[count], *arguments)
        except Exception as error:
            result = error
        pipe.send(result)
    dist.destroy_process_group()


class Pool:
    """``size`` processes, of which a call takes the first few."""

    def __init__(self, size):
        self.folder = tempfile.TemporaryDirectory()
        context = mp.get_context("spawn")
        pipes = [context.Pipe() for _ in range(size)]
        self.pipes = [mine for mine, _ in pipes]
        self.processes = [
            context.Process(target=_serve, args=(rank, size, self.folder.name, theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pipes)
        ]
        for process in self.processes:
            process.start()

    def run(self, count, function, *arguments):
        """[function(rank, group, *arguments)] of ``count`` ranks; an exception of the function is its result."""
        for pipe in self.pipes[:count]:
            pipe.send((function, count, arguments))
        results = []
        for rank, pipe in enumerate(self.pipes[:count]):
            assert pipe.poll(TIMEOUT.total_seconds() + 30), f"rank {rank} does not answer"
            results.append(pipe.recv())
        return results

    def close(self):
        for pipe in self.pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in self.processes:
            process.join(30)
            if process.is_alive():
                process.kill()
        self.folder.cleanup()


def _once(rank, size, function, folder, *arguments):
    initialise(rank, size, folder)
    try:
        result = function(rank, *arguments)
    except Exception as error:
        result = error
    torch.save(result, Path(folder) / f"{rank}.partial")
    os.rename(Path(folder) / f"{rank}.partial", Path(folder) / f"{rank}")
    os._exit(0)  # a group that has lost a rank cannot be ended


def run_once(size, function, folder, *arguments):
    """The same with processes for one call, which may end before it returns; None is the result of those that do."""
    context = mp.get_context("spawn")
    processes = [context.Process(target=_once, args=(rank, size, function, folder, *arguments)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert not process.is_alive(), "a rank hangs"
    files = [Path(folder) / f"{rank}" for rank in range(size)]
    return [torch.load(file, weights_only=False) if file.exists() else None for file in files]
