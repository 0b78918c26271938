"""Host memory that kernels may touch, with exact bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import EmulatorError


@dataclass(frozen=True)
class MemoryRange:
    address: int
    length: int  # bytes
    writable: bool
    name: str  # in messages
    constant: bool = False  # __constant__ memory


def registration(array: Any, writable: bool, name: str) -> MemoryRange:
    """The memory of a numpy array or a torch CPU tensor, which must be contiguous"""
    if isinstance(array, np.ndarray):
        if not array.flags.c_contiguous:
            raise EmulatorError(f"{name}: expected a contiguous array, got strides {array.strides}")
        described = f"{name}: {array.dtype}{list(array.shape)}"
        return MemoryRange(array.ctypes.data, array.nbytes, writable and array.flags.writeable, described)
    if hasattr(array, "data_ptr"):
        if array.device.type != "cpu":
            raise EmulatorError(f"{name}: expected a tensor on the CPU, got one on {array.device}")
        if not array.is_contiguous():
            raise EmulatorError(f"{name}: expected a contiguous tensor, got strides {array.stride()}")
        dtype = str(array.dtype).removeprefix("torch.")
        described = f"{name}: {dtype}{list(array.shape)}"
        return MemoryRange(array.data_ptr(), array.numel() * array.element_size(), writable, described)
    raise EmulatorError(f"{name}: expected a numpy array or a torch tensor, got a {type(array).__name__}")
