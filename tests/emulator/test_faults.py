"""Broken kernels must be noticed: by a wrong result, a warning or an error. Sound ones must not be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from . import EmulatorError, Module, Schedule
from .conftest import KERNELS

SCHEDULES = (
    Schedule(order="forward"),
    Schedule(order="reverse"),
    Schedule(order="random", seed=1, resident=4),
    Schedule(order="random", seed=2, races="all"),
)
N = 5037


def histogram(module: Module, schedule: Schedule) -> bool:
    rng = np.random.default_rng(0)
    bins = 64
    x = rng.normal(size=N).astype(np.float32)
    edges = np.sort(rng.normal(size=bins + 1).astype(np.float32))
    expected, _ = np.histogram(x[x < edges[-1]], edges)
    counts, sums, total = np.zeros(bins, np.uint32), np.zeros(bins, np.float32), np.zeros(1)
    x.flags.writeable = edges.flags.writeable = False
    arguments = [x, N, edges, bins, counts, sums, total]
    module.launch("hist_bsearch", 7, 256, arguments, shared=4 * (3 * bins + 1), schedule=schedule)
    return bool((counts == expected).all())


def block_scan(module: Module, schedule: Schedule) -> bool:
    x = np.random.default_rng(0).normal(size=N).astype(np.float32)
    blocks = -(-N // 256)
    scanned, sums = np.zeros(N, np.float32), np.zeros(blocks)
    negative, reduced = np.zeros(1, np.int32), np.zeros(-(-N // 32), np.uint32)
    module.launch("block_scan", blocks, 256, [x, scanned, sums, negative, reduced, N], schedule=schedule)
    padded = np.zeros(blocks * 256)
    padded[:N] = x
    return np.allclose(scanned, np.cumsum(padded.reshape(blocks, 256), 1).ravel()[:N], atol=2e-5)


KERNEL_CHECKS = {"histogram": histogram, "block_scan": block_scan}

# name: (kernel, what is replaced, by what, which occurrence)
FAULTS = {
    "no barrier after the initialisation": ("histogram", "__syncthreads();", "", 0),
    "no barrier before the results are read": ("histogram", "__syncthreads();", "", 1),
    "shared count without an atomic": ("histogram", "atomicAdd(&sc[lo], 1u);", "sc[lo] += 1u;", 0),
    "one element too many is read": ("histogram", "i < n; i += gridDim", "i <= n; i += gridDim", 0),
    "shared memory not initialised": ("histogram", "ss[i] = 0.f;", "", 0),
    "shared array overrun": ("histogram", "i < nb; i += blockDim.x", "i <= nb; i += blockDim.x", 1),
    "global count without an atomic": (
        "histogram",
        "atomicAdd(&gcount[i], sc[i]);",
        "gcount[i] += sc[i];",
        0,
    ),
    "no barrier between the warps' totals": ("block_scan", "__syncthreads();", "", 0),
    "no barrier after the totals' scan": ("block_scan", "__syncthreads();", "", 1),
    "barrier in a branch": (
        "block_scan",
        "if (w > 0) s += wtot[w - 1];",
        "if (w > 0) { s += wtot[w - 1]; __syncthreads(); }",
        0,
    ),
    "exit before a shuffle of all lanes": (
        "block_scan",
        "float v = i < n ? x[i] : 0.f;",
        "if (i >= n) return; float v = x[i];",
        0,
    ),
    "shuffle of all lanes by half of them": (
        "block_scan",
        "float s = warp_incl(v);",
        "float s = v; if (lane < 16) s = warp_incl(v);",
        0,
    ),
    "shared array too small": ("block_scan", "__shared__ float wtot[32];", "__shared__ float wtot[8];", 0),
}
QUICK = (
    "no barrier before the results are read",
    "one element too many is read",
    "global count without an atomic",
    "shuffle of all lanes by half of them",
)


@pytest.mark.parametrize("kernel", KERNEL_CHECKS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.order}-{s.races}")
def test_sound_kernel_passes(kernel: str, schedule: Schedule) -> None:
    assert KERNEL_CHECKS[kernel](Module.from_cuda(KERNELS / f"{kernel}.cu", "compute_75"), schedule)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.full) for n in FAULTS])
def test_fault_is_noticed(name: str, tmp_path: Path) -> None:
    kernel, old, new, occurrence = FAULTS[name]
    parts = (KERNELS / f"{kernel}.cu").read_text().split(old)
    assert len(parts) > occurrence + 1, f"{kernel}.cu no longer contains `{old}`"
    broken = tmp_path / f"{kernel}.cu"
    broken.write_text(old.join(parts[: occurrence + 1]) + new + old.join(parts[occurrence + 1 :]))
    module = Module.from_cuda(broken, "compute_75")

    def noticed(schedule: Schedule) -> bool:
        try:
            return not KERNEL_CHECKS[kernel](module, schedule)
        except EmulatorError:
            return True

    assert any(noticed(s) for s in SCHEDULES)
