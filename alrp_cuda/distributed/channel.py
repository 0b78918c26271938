"""A process group as the losses use it: two collectives, checked and counted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Result = TypeVar("Result")


@dataclass
class Traffic:
    """What this process handed to collectives.

    Attributes:
        bytes: bytes of the tensors: what a gather brings of this rank, and what a reduction adds up of it. What goes over a
            wire is that times what the collective's algorithm makes of it, at most 2 for each other rank.
        collectives: how many there were.

    Example:
        >>> from alrp_cuda.distributed import Traffic
        >>> Traffic(bytes=1024, collectives=2).bytes / 2**10  # KiB
        1.0
    """

    bytes: int = 0
    collectives: int = 0


_recorders: list[Traffic] = []


@contextmanager
def traffic() -> Iterator[Traffic]:
    """Count what the losses of this process hand to collectives.

    Example:
        >>> import torch, alrp_cuda
        >>> from alrp_cuda.distributed import traffic
        >>> with traffic() as sent:
        ...     loss = alrp_cuda.ap_loss(torch.zeros(3), torch.tensor([1, 0, 0]))  # without group=
        >>> sent
        Traffic(bytes=0, collectives=0)
    """
    recorder = Traffic()
    _recorders.append(recorder)
    try:
        yield recorder
    finally:
        _recorders[:] = [other for other in _recorders if other is not recorder]


def record(tensor: Tensor) -> None:
    """Count a tensor that is handed to a collective."""
    for recorder in _recorders:
        recorder.bytes += tensor.nbytes
        recorder.collectives += 1


class Channel:
    """Collectives over the ranks of a group. Ranks are counted within the group."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self.size: int = dist.get_world_size(group)
        self.rank: int = dist.get_rank(group)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, which have one shape."""
        record(tensor)
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor, group=self._group)
        return parts

    def add(self, tensor: Tensor) -> None:
        """The sum of the tensors of all ranks, in place of this one."""
        record(tensor)
        dist.all_reduce(tensor, group=self._group)


def uncompiled(function: Callable[..., Result]) -> Callable[..., Result]:
    """``function``, which torch.compile leaves as it is: what it exchanges decides on sizes, and on what it raises."""
    # Not as a decorator: that imports the compiler, which takes as long as all of torch.
    return torch.compiler.disable(function) if torch.compiler.is_compiling() else function  # type: ignore[no-untyped-call]


def check_group(group: object) -> None:
    """Raise unless ``group`` is None or a process group that this rank can use.

    Raises:
        TypeError: no process group.
        ValueError: torch.distributed is not initialised, or this rank is not in the group.
    """
    if group is None:
        return
    if not dist.is_available():
        raise ValueError(f"group must be None where torch is built without torch.distributed, got {type(group).__name__}")
    if group is dist.GroupMember.NON_GROUP_MEMBER:
        raise ValueError("group must be one that this rank is in, got one that it is not in")
    if not isinstance(group, dist.ProcessGroup):
        raise TypeError(f"group must be a torch.distributed.ProcessGroup or None, got {type(group).__name__}")
    if not dist.is_initialized():
        raise ValueError("group must be None unless torch.distributed is initialised (init_process_group), got a ProcessGroup")
    try:
        inside = dist.get_rank(group) >= 0
    except ValueError:  # of a torch.distributed that has ended
        inside = False
    if not inside:
        raise ValueError("group must be one that this rank is in, got one that it is not in")


def connect(group: object) -> Channel | None:
    """The collectives of ``group``; None for None: no communication."""
    check_group(group)
    return None if group is None else Channel(group)
