"""A time from counts: what a GPU would need at least if each kernel were held up by memory or by issue alone."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from .counting import SECTOR, Figures, Passes
from .inputs import Case

SCHEDULERS = 4  # of an SM, from Turing to Hopper; each issues one warp-instruction a clock


@dataclass(frozen=True)
class GPU:
    """Published figures of a device: GB/s (1e9 bytes) of its DRAM, streaming multiprocessors, boost clock in GHz."""

    name: str
    bandwidth: float
    sms: int
    clock: float

    @property
    def issue_rate(self) -> float:
        """Warp-instructions a second, in 1e9."""
        return self.sms * SCHEDULERS * self.clock

    def microseconds(self, traffic: int, warp_instructions: int) -> float:
        return max(traffic / self.bandwidth, warp_instructions / self.issue_rate) / 1e3


# From NVIDIA's data sheets. The clock is the boost clock behind the published peak of float32 (8.1, 19.5, 82.6 and 67
# TFLOPS): peak / (2 x float32 units).
GPUS = (
    GPU("T4", bandwidth=320, sms=40, clock=1.59),  # 16 GB GDDR6
    GPU("A100", bandwidth=1555, sms=108, clock=1.41),  # SXM4, 40 GB HBM2
    GPU("RTX 4090", bandwidth=1008, sms=128, clock=2.52),  # 24 GB GDDR6X
    GPU("H100", bandwidth=3350, sms=132, clock=1.98),  # SXM5, 80 GB HBM3
)

# Of which there are measured times: latency.py models it. 141 GB HBM3e, SXM5.
H200 = GPU("H200", bandwidth=4800, sms=132, clock=1.98)

FORMULA = f"""\
a kernel: max(traffic / DRAM bandwidth, warp-instructions / (SMs x {SCHEDULERS} schedulers x clock)); all: the sum over kernels.
traffic: {SECTOR} bytes for each sector a warp-instruction reads or writes, twice that for atomics: no cache is assumed.
floor: each logit read once by forward and once by backward, each gradient written once, each label read once, at DRAM bandwidth.
Not in it: caches, latency, launches (a few us each), idle SMs of small grids, arithmetic units narrower than a warp (doubles
run at 1/32 of float32's rate on T4, 1/64 on RTX 4090), and what ptxas makes of the PTX instructions that are counted."""


def traffic_read(figures: Figures) -> int:
    return SECTOR * (figures.get("global_sectors_read", 0) + figures.get("global_sectors_atomic", 0))


def traffic_written(figures: Figures) -> int:
    return SECTOR * (figures.get("global_sectors_written", 0) + figures.get("global_sectors_atomic", 0))


def modelled(kernels: Iterable[Figures]) -> list[float]:
    """Microseconds on each of GPUS for kernels that run one after another."""
    rows = [(traffic_read(figures) + traffic_written(figures), figures.get("warp_instructions", 0)) for figures in kernels]
    return [sum(gpu.microseconds(*row) for row in rows) for gpu in GPUS]


def times(passes: Passes) -> list[float]:
    """Microseconds on each of GPUS for all kernels of some passes."""
    return modelled(figures for one in passes.values() for figures in one.kernels.values())


def floor(case: Case, names: Collection[str]) -> Figures:
    """Bytes that passes must read and write at least: labels once, since the first to read them can list the positives."""
    labels = case.label_bytes if {"count_positives", "forward"} & {*names} else 0
    logits = case.logit_bytes * len({"forward", "backward"} & {*names})
    return {"read": labels + logits, "written": case.logit_bytes if "backward" in names else 0}


def floor_microseconds(case: Case, passes: Passes) -> list[float]:
    """The floor of several passes on each of GPUS."""
    traffic = sum(floor(case, passes).values())
    return [gpu.microseconds(traffic, 0) for gpu in GPUS]
