"""Devices that alrp_cuda runs on within a `with`: csrc/cuda on the emulated device, or the CPU as if it were not waited for."""

import ctypes
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import ClassVar

import torch
from emulator import Library, Schedule, Session

from alrp_cuda import native

from .extension import CSRC, HERE, extension

SOURCES = (*sorted((CSRC / "cuda").glob("*.cu")), CSRC / "ranking.cpp", HERE / "backend.cpp")
MAIN_TARGET = "compute_80"
STREAM = 0x57EA0  # any but the default stream: nobody follows it
TARGETS = ("compute_75", MAIN_TARGET, "compute_90")

# Blocks of these kernels of CUB wait for flags that earlier blocks set, in the workspace. The flags are read and written by
# volatile or relaxed instructions, which do not race; the emulated device takes those of different blocks for a race. Nothing
# but these instructions is ignored, and nothing of our own kernels.
LOOK_BACK = (
    r"^cub::.*(DeviceSelectSweepKernel|DeviceRadixSortOnesweepKernel).*possible race in global memory .* of 'workspace .*"
    r" `(ld|st)\.(relaxed\.gpu|volatile\.global)\."
)


@cache
def library(target: str = MAIN_TARGET, sources: tuple[Path, ...] = SOURCES) -> Library:
    """csrc/cuda for one virtual architecture, linked to the emulated runtime."""
    lib = Library.build(sources, [CSRC], target, ["-std=c++20"])
    lib.dll.alrp_backend.restype = ctypes.c_void_p
    return lib


class _Device(AbstractContextManager["_Device"]):
    """Within a `with`, alrp_cuda's calls run on this device; their backward passes do so afterwards, too, until another is used.

    Entered again, also by another thread, it does not change; a second device cannot be entered meanwhile.
    """

    _entered: ClassVar[list["_Device"]] = []

    def __enter__(self) -> "_Device":
        if any(other is not self for other in self._entered):
            raise RuntimeError("another device is in use")
        if not self._entered:
            self._ordinary = native._C, native.operators
            native._C, native.operators = extension()._C, extension().operators
            extension().device.use(self)
        self._entered.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._entered.pop()
        if not self._entered:
            native._C, native.operators = self._ordinary


class _CpuCall:
    backend = 0

    def register(self, *_: object) -> None:
        pass

    def end(self) -> None:
        pass


class CpuNotWaiting(_Device):
    """The CPU's kernels. What depends on values in tensors gives NaN, as on a device that is not waited for."""

    def begin(self, call: str) -> _CpuCall:
        return _CpuCall()


class EmulatedCall:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.backend: int = session.library.dll.alrp_backend(ctypes.c_void_p(STREAM))
        session.__enter__()

    def register(self, address: int, length: int, writable: bool, name: str) -> None:
        self.session.register_memory(address, length, writable, name)

    def end(self) -> None:
        self.session.__exit__(None, None, None)


class EmulatedDevice(_Device):
    """csrc/cuda on the emulated device, on the memory of CPU tensors.

    Every call of an operator is a session of its own: a race, an access out of bounds, a read of memory never written, another
    stream than the caller's or a failed launch raises RuntimeError. `sessions` keeps what each call counted, `calls` its name.
    For `only_blocks` and `device` see Library.session.
    """

    def __init__(
        self,
        target: str = MAIN_TARGET,
        schedule: Schedule | None = None,
        *,
        sources: Sequence[Path] = SOURCES,
        only_blocks: Mapping[str, Sequence[int]] | None = None,
        device: int = 0,
    ) -> None:
        self.target = target
        self.sources = tuple(sources)
        self.schedule = schedule or Schedule(races="shared", count_warps=False)
        self.only_blocks = only_blocks
        self.device = device
        self.sessions: list[Session] = []
        self.calls: list[str] = []

    @property
    def library(self) -> Library:
        """Built when it is first needed: collecting tests must not wait for nvcc."""
        return library(self.target, self.sources)

    def begin(self, call: str) -> EmulatedCall:
        session = self.library.session(self.schedule, [LOOK_BACK], self.only_blocks, STREAM, self.device)
        self.sessions.append(session)
        self.calls.append(call)
        return EmulatedCall(session)


def empty_state(p: int) -> torch.Tensor:
    """Room for the state of p positives by the tiled algorithm."""
    return torch.zeros(extension().device.tiled_state(p)[-1][0] + 256, dtype=torch.uint8)


def state_views(state: torch.Tensor, p: int) -> dict[str, torch.Tensor]:
    """The arrays of a state of p positives but for the backend's own tables, which come first."""
    names = ("status", "index", "score", "share", "gradient", "poison")
    places = extension().device.tiled_state(p)[1:]  # after the backend's own tables
    dtypes = [torch.int64] * 2 + [torch.float64] * 4
    state = state[len(state) - len(empty_state(p)) :]
    return {
        name: state[offset : offset + length].view(dtype)
        for name, (offset, length), dtype in zip(names, places, dtypes, strict=True)
    }
