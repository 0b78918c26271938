"""The backend "emulated": csrc/cuda, its kernels and its host code, on the emulated device, behind the losses' own Python."""

from .backend import EmulatedKernels, library, register

__all__ = ["EmulatedKernels", "library", "register"]
