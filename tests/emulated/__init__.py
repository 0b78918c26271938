"""csrc/cuda, its kernels and its host code, on the emulated device, behind the losses' own operators and Python."""

from .device import CSRC, MAIN_TARGET, SOURCES, TARGETS, CpuNotWaiting, EmulatedDevice, empty_state, library, state_views
from .extension import extension

__all__ = [
    "CSRC",
    "MAIN_TARGET",
    "SOURCES",
    "TARGETS",
    "CpuNotWaiting",
    "EmulatedDevice",
    "empty_state",
    "extension",
    "library",
    "state_views",
]
