"""One loss, forward and backward, on the emulated device: what each kernel did."""

import re
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..contenders import LOSSES
from .inputs import Case

TESTS = Path(__file__).parents[2] / "tests"
# Both stand beside the kernels as rows of their own: a device works through them as through kernels.
MEMSET, COPY = "(memset)", "(copy)"
SECTOR = 32

Figures = dict[str, int]


@dataclass(frozen=True)
class Pass:
    """What one call of the native code did, by kernel; ``runtime``: the calls of the CUDA runtime."""

    kernels: dict[str, Figures]
    runtime: Figures

    @property
    def total(self) -> Figures:
        """Of contention the greatest, of all else the sum."""
        total = dict(self.runtime)
        for figures in self.kernels.values():
            for name, value in figures.items():
                total[name] = max(total.get(name, 0), value) if name.endswith("_contention") else total.get(name, 0) + value
        return total


Passes = dict[str, Pass]


class MissingRequirement(RuntimeError):
    """The emulated device cannot run here."""


@cache
def _emulated() -> Any:
    """The tests' emulated device; no other part of the benchmark needs the tests, nvcc or a host compiler."""
    if not (TESTS / "emulated").is_dir():
        raise MissingRequirement(f"the emulated device is part of the tests, and there is no {TESTS}: run in a clone")
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    import emulated
    import emulator

    if lacking := emulator.missing_requirement():
        raise MissingRequirement(f"the emulated device runs what nvcc compiles: {lacking}")
    return emulated, emulator


@cache
def _counting() -> Any:
    """The emulated device of the shape of an H200, counting."""
    emulated, emulator = _emulated()
    return emulated.EmulatedDevice(schedule=emulator.Schedule(), device=1)


def toolchain() -> dict[str, str]:
    """What the counts depend on beside the source: nvcc, whose PTX and whose CUB it is, and the virtual architecture."""
    emulated, emulator = _emulated()
    version = re.search(r"\bV(\d+(?:\.\d+)+)", emulator.compiler.tool_versions())
    return {"nvcc": version[1] if version else "unknown", "target": emulated.MAIN_TARGET}


def count(case: Case) -> Passes:
    """Run a case forward and backward."""
    loss, device = LOSSES[case.loss], _counting()
    problem = loss.labelled(case.draw())
    device.sessions.clear()
    device.calls.clear()
    with device:
        outputs = loss.call(loss.ours, problem, algorithm=case.algorithm)
    torch.autograd.grad(outputs.total, loss.inputs(problem))
    passes: dict[str, list[Any]] = {}
    for name, session in zip(device.calls, device.sessions, strict=True):
        passes.setdefault(name, []).append(session)
    counted = {name: _pass(sessions) for name, sessions in passes.items()}
    if counting := counted.get("count_positives"):
        # P is not told: the host waits for the count, by a copy of torch's that the emulated runtime does not see.
        counting.runtime["host_syncs"] = counting.runtime.get("host_syncs", 0) + 1
    return counted


def _pass(sessions: list[Any]) -> Pass:
    kernels: dict[str, Any] = {}
    runtime: dict[str, int] = {}
    for session in sessions:
        for name, counters in session.kernel_counters.items():
            short = short_name(name)
            kernels.setdefault(short, type(counters)()).add(counters)
        figures = asdict(session.counters)
        for name in ("host_syncs", "allocations", "memsets", "memset_bytes", "copies", "copied_bytes"):
            runtime[name] = runtime.get(name, 0) + figures[name]
    # How many blocks were resident is the emulator's choice, not the kernel's.
    found = {
        name: {key: value for key, value in asdict(counters).items() if value and key != "resident_blocks"}
        for name, counters in kernels.items()
    }
    memset_sectors, copied_sectors = (-(-runtime.pop(key) // SECTOR) for key in ("memset_bytes", "copied_bytes"))
    if memsets := runtime.pop("memsets"):
        found[MEMSET] = {"launches": memsets, "global_sectors_written": memset_sectors}
    if copies := runtime.pop("copies"):
        found[COPY] = {"launches": copies, "global_sectors_read": copied_sectors, "global_sectors_written": copied_sectors}
    return Pass(found, {key: value for key, value in runtime.items() if value})


def short_name(kernel: str) -> str:
    """Without namespaces; of other people's kernels, whose template arguments fill lines, also without these."""
    plain = kernel.replace("(anonymous namespace)::", "")
    head, _, arguments = plain.partition("<")
    name = head.rsplit("::", 1)[-1]
    if head.startswith("alrp::") and arguments:
        return name + "<" + re.sub(r"\b\w+::", "", arguments)
    return name
