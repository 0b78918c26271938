"""The backend "emulated": csrc/cuda, its kernels and its host code, on the emulated device, behind the losses' own Python."""

from .backend import CSRC, MAIN_TARGET, SOURCES, TARGETS, EmulatedKernels, library, register, registered

__all__ = ["CSRC", "MAIN_TARGET", "SOURCES", "TARGETS", "EmulatedKernels", "library", "register", "registered"]
