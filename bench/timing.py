"""How long a step takes, in the company of the others."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch

from .contenders import Step

# A step that is shorter than a sample is called several times for one sample.
SAMPLE_SECONDS = 0.005
# A step that has used up as much sits out the remaining rounds, so that a slow one does not set the length of the run.
BUDGET_SECONDS = 2.0

# Seconds a call: of some calls in a row, on a device.
Clock = Callable[[Step, int, torch.device], float]


@dataclass(frozen=True)
class Timing:
    """Seconds a call in each round; every sample is the mean of ``calls`` calls in a row."""

    samples: list[float]
    calls: int

    @property
    def median(self) -> float:
        return median(self.samples)


def seconds(step: Step, calls: int, device: torch.device) -> float:
    """Seconds a call: by events on a CUDA device, since the CPU only queues the work there, else by the CPU's clock."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        start.record()
        for _ in range(calls):
            step()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / calls
    begin = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - begin) / calls


def enqueued(step: Step, calls: int, device: torch.device) -> float:
    """Seconds a call until the host has asked for it: it does not wait for the device, whose queue is empty before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - begin) / calls


def replayed(step: Step, device: torch.device) -> Step:
    """The step captured in a CUDA graph: what it makes the device do, without the time that the host takes to ask for it."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):  # once outside the graph: PyTorch asks for it
        step()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def interleaved(steps: Mapping[str, Step], repeat: int, device: torch.device, clock: Clock = seconds) -> dict[str, Timing]:
    """Time the steps in turn, ``repeat`` rounds, so that whatever else the machine does meets them all alike."""
    timings = {name: _first_samples(step, device, clock) for name, step in steps.items()}
    for _ in range(repeat):
        for name, step in steps.items():
            samples, calls = timings[name].samples, timings[name].calls
            if sum(samples) * calls < BUDGET_SECONDS:
                samples.append(clock(step, calls, device))
    return timings


def _first_samples(step: Step, device: torch.device, clock: Clock) -> Timing:
    """Warm up and tell how many calls make a sample; a warm-up that has used up the budget is the one sample itself."""
    first = clock(step, 1, device)
    if first >= BUDGET_SECONDS:
        return Timing([first], 1)
    return Timing([], max(1, round(SAMPLE_SECONDS / max(clock(step, 1, device), 1e-9))))
