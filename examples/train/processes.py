"""One process, or those of torchrun."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Processes:
    rank: int = 0
    count: int = 1
    group: Any = None  # a torch.distributed.ProcessGroup of several

    def gather(self, value: Any) -> list[Any]:
        """Of every process, by rank; waits for all."""
        if self.group is None:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, self.group)
        return values

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, torch.device]]:
    """The processes that torchrun started, else this one; and the device of this one."""
    if "RANK" not in os.environ:
        yield Processes(), torch.device(device)
        return
    of_this = torch.device(device, int(os.environ["LOCAL_RANK"])) if device == "cuda" else torch.device(device)
    if of_this.type == "cuda":
        torch.cuda.set_device(of_this)
    dist.init_process_group("nccl" if of_this.type == "cuda" else "gloo")
    try:
        count = dist.get_world_size()
        yield Processes(dist.get_rank(), count, dist.group.WORLD if count > 1 else None), of_this
    finally:
        dist.destroy_process_group()
