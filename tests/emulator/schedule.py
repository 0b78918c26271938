"""In which order threads run, and what is watched meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """A device may run threads in any order. Kernels should give the same result in each of these.

    order         of blocks, and of the threads in a block, between the points where they wait
    seed          of the random order
    resident      blocks that run at the same time; more are admitted where these wait for others
    poison        fill shared memory with garbage when a block starts, not with zeros
    races         "shared": report races in shared memory, and reads of shared memory never written;
                  "all": also races in global memory, where blocks that communicate give false alarms
    count_warps   keep the counters that need to know what the lanes of a warp do together
    loop_limit    back edges that a thread may take: more are an endless loop
    """

    order: Literal["forward", "reverse", "random"] = "forward"
    seed: int = 0
    resident: int = 1
    poison: bool = True
    races: Literal["shared", "all"] | None = None
    count_warps: bool = True
    loop_limit: int = 1 << 28

    def __post_init__(self) -> None:
        if self.order not in ("forward", "reverse", "random"):
            raise ValueError(f"order: expected 'forward', 'reverse' or 'random', got {self.order!r}")
        if self.races not in (None, "shared", "all"):
            raise ValueError(f"races: expected None, 'shared' or 'all', got {self.races!r}")
        if self.resident < 1:
            raise ValueError(f"resident: expected at least 1, got {self.resident}")
