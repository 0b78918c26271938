"""How long a kernel takes on an H200, by what the emulated device counted: a model that knows latency.

A kernel is launched, then its longest warp goes through its chain, and beside it the device does the work of all warps, at the
rate of what is busiest: DRAM, the issue of instructions, or shared memory. That the chain and this work add up is a choice: of
one block both are long, and neither hides the other; the greater of the two alone missed more of the times.

The constants are fitted (calibration.py) to the times that docs/kernels.md has, and frozen: kernels are designed by them until
a GPU is at hand again.
"""

from dataclasses import dataclass

from .counting import Figures
from .roofline import H200, SCHEDULERS, traffic_read, traffic_written


@dataclass(frozen=True)
class Latencies:
    """Of a launch in microseconds, of all else in clocks."""

    launch: float  # of a kernel that does nothing, on the device: no gap between kernels
    instruction: float  # of one warp, until it issues the next
    global_wait: float  # for loads from L1, L2 or DRAM, whichever it was
    shared_wait: float
    same_address: float  # an atomic on a global address that the one before has


# Barriers take next to nothing: that warps wait for the longest one is in the chain.
LATENCIES = Latencies(launch=1.4, instruction=3.9, global_wait=270, shared_wait=16, same_address=1.3)

FORMULA = f"""\
with latency, on an H200: {LATENCIES.launch:g} us a launch
+ clocks of the longest chain: {LATENCIES.instruction:g} an instruction, {LATENCIES.global_wait:g} a wait for global memory,
  {LATENCIES.shared_wait:g} for shared memory, {LATENCIES.same_address:g} an atomic on the address that has most
+ the most of traffic, issue and accesses of shared memory, on the multiprocessors in use.
Fitted to measured times: python -m bench.costs.calibration."""


def chain(figures: Figures) -> tuple[int, ...]:
    """How often a kernel has each of the Latencies, one after the other."""
    names = ("launches", "chain_instructions", "chain_global_waits", "chain_shared_waits", "global_atomic_launch_contention")
    return tuple(figures.get(name, 0) for name in names)


def busiest(figures: Figures) -> float:
    """Microseconds that the work of all warps takes, on the multiprocessors that have a block."""
    multiprocessors = min(figures.get("blocks", 0) / max(1, figures["launches"]), H200.sms) or H200.sms
    issued = figures.get("warp_instructions", 0) / SCHEDULERS
    served = figures.get("shared_accesses", 0) + figures.get("shared_replays", 0)
    traffic = traffic_read(figures) + traffic_written(figures)
    return max(traffic / H200.bandwidth, max(issued, served) / multiprocessors / H200.clock) / 1e3


def microseconds(figures: Figures, of: Latencies = LATENCIES) -> float:
    """Of all launches of a kernel on an H200."""
    launches, *clocks = chain(figures)
    each = of.instruction, of.global_wait, of.shared_wait, of.same_address
    waited = sum(count * length for count, length in zip(clocks, each, strict=True))
    return launches * of.launch + waited / H200.clock / 1e3 + busiest(figures)
