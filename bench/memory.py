"""The most memory that a step holds at once, beyond its inputs.

On a CUDA device the caching allocator keeps count. On the CPU torch's profiler writes down every allocation and release
that goes through torch's allocator, to the byte; their running sum has the peak. Sampling the process's resident set
would see whole pages only, and not what malloc takes from memory it never gave back. What is no tensor (the
interpreter, a kernel's scratch outside torch's allocator) is not counted. The gradient that the step returns is.
"""

import json
import os
import tempfile
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from .contenders import Step

# The profiler announces each of its starts and stops on stderr; it reads this before the first of them.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


def peak_bytes(step: Step, device: torch.device) -> int:
    """Run the step once and return its peak."""
    return _peak_cuda(step, device) if device.type == "cuda" else _peak_cpu(step)


def _peak_cuda(step: Step, device: torch.device) -> int:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_cpu(step: Step) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = sorted(((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]"), key=lambda change: change[0])
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak
