"""Host code with its kernels, linked to the stand-in runtime: <<<>>> launches run on the emulated device."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from . import compiler
from .counters import Counters
from .errors import EmulatorError
from .memory import MemoryRange, registration
from .module import Geometry, Module, readable_name
from .schedule import Schedule

# cudaError_t
_SUCCESS = 0
_INVALID_VALUE = 1
_INVALID_CONFIGURATION = 9
_LAUNCH_FAILURE = 719


# ---- the structures of runtime/cudart.cc


class _LaunchCall(ctypes.Structure):
    _fields_ = [
        ("module", ctypes.c_uint64),
        ("kernel", ctypes.c_char_p),
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("dynamic_shared", ctypes.c_uint64),
        ("dynamic_shared_limit", ctypes.c_uint64),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
    ]


class _MemoryRow(ctypes.Structure):
    _fields_ = [
        ("address", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("writable", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
    ]


_API_COUNTERS = ("host_syncs", "copies", "copied_bytes", "memsets", "memset_bytes", "allocations", "queries", "limits_set")


class _ApiCounters(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in _API_COUNTERS]


_LaunchHandler = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_LaunchCall))


class Library:
    """A shared library of CUDA sources. `dll` has its extern "C" functions; call them inside a session."""

    _loaded: ClassVar[dict[Path, Library]] = {}

    def __init__(self, path: Path, target: str, modules: dict[int, Module]):
        self.path = path
        self.target = target
        self.modules = modules  # by the hash of the fat binary
        self.dll = ctypes.CDLL(str(path))
        self.dll.emulated_memory.restype = self.dll.emulated_streams.restype = ctypes.c_uint64
        self._session: Session | None = None
        for identity, module in modules.items():
            for name in module.kernels:
                self.dll.emulated_kernel(
                    ctypes.c_uint64(identity),
                    name.encode(),
                    module.static_shared_bytes(name),
                    module.threads_limit(name),
                )
            for name, (address, size) in module.variable_addresses.items():
                self.dll.emulated_variable(
                    ctypes.c_uint64(identity), name.encode(), ctypes.c_void_p(address), ctypes.c_uint64(size)
                )

    @classmethod
    def build(
        cls,
        sources: Sequence[str | Path],
        include_dirs: Sequence[str | Path] = (),
        target: str = "compute_80",
        flags: Sequence[str] = (),
        host_flags: Sequence[str] = (),
    ) -> Library:
        """Compile .cu files for one virtual architecture, with `flags` for nvcc, and .cpp files, with
        `host_flags` for g++."""
        includes = [Path(d).resolve() for d in include_dirs]
        objects = []
        for source in map(Path, sources):
            chosen = flags if source.suffix == ".cu" else host_flags
            objects.append(compiler.compile_source(source, target, includes, list(chosen)))
        path = compiler.link_library(objects)
        if path not in cls._loaded:  # the loader would return the same library, with the same state
            modules = {o.fat_binary_hash: Module(ptx, lazy=True) for o in objects if (ptx := o.ptx) is not None}
            cls._loaded[path] = cls(path, target, modules)
        return cls._loaded[path]

    @property
    def compute_capability(self) -> int:
        return int(re.sub(r"\D", "", self.target))

    def check_all(self) -> dict[str, str]:
        """Translate every kernel, run none: {readable name: why it is not supported}"""
        return {readable_name(k): e for m in self.modules.values() for k, e in m.check_all().items()}

    def session(
        self,
        schedule: Schedule | None = None,
        ignore: Sequence[str] = (),
        only_blocks: Mapping[str, Sequence[int]] | None = None,
        stream: int = 0,
        device: int = 0,
    ) -> Session:
        """`ignore`: regular expressions of warnings that are known, and not of our code. `stream`: the only one that may be used.
        `device`: 0 is small, 1 has the multiprocessors, threads and shared memory of an H200.

        `only_blocks`: {regular expression of kernels: numbers of the only blocks to run}, for grids that would take too
        long, and for the shapes of launches alone ({".": ()}). Of expressions that match, the first counts.
        """
        return Session(self, schedule or Schedule(), ignore, only_blocks or {}, stream, device)


class Session:
    """Registered memory, counters and failures of some calls into a library.

    A launch that gives rise to a warning fails: cudaGetErrorString says why. Leaving the session raises EmulatorError then, too.
    """

    def __init__(
        self,
        library: Library,
        schedule: Schedule,
        ignore: Sequence[str],
        only_blocks: Mapping[str, Sequence[int]],
        stream: int,
        device: int,
    ):
        self.library = library
        self.schedule = schedule
        self.counters = Counters()  # of the session as a whole
        self.kernel_counters: dict[str, Counters] = {}  # by readable name
        self.problems: list[str] = []  # failed launches and warnings
        self.launches: list[tuple[str, Geometry]] = []  # readable names and shapes, in order
        self.streams: set[int] = set()  # on which the host code put launches, copies and memsets
        self._only_blocks = only_blocks
        self._stream = ctypes.c_uint64(stream)
        self._device = device
        self._ignored = [re.compile(pattern) for pattern in ignore]
        self._registered: list[Any] = []  # keeps the arrays alive
        self._handler = _LaunchHandler(self._handle)

    # ---- memory

    def register(self, array: Any, writable: bool = True, name: str | None = None) -> int:
        """Make a contiguous numpy array or torch CPU tensor device memory; returns its address."""
        memory = registration(array, writable, name or f"memory {len(self._registered)}")
        self._registered.append(array)
        self.register_memory(memory.address, memory.length, memory.writable, memory.name)
        return memory.address

    def register_memory(self, address: int, length: int, writable: bool, name: str) -> None:
        """Make memory, which its owner keeps alive, device memory."""
        self.library.dll.emulated_register(ctypes.c_uint64(address), ctypes.c_uint64(length), int(writable), name.encode())

    def _memory(self) -> list[MemoryRange]:
        dll = self.library.dll
        count = dll.emulated_memory(None, ctypes.c_uint64(0))
        rows = (_MemoryRow * max(1, count))()
        dll.emulated_memory(rows, ctypes.c_uint64(count))
        return [MemoryRange(r.address, r.length, bool(r.writable), r.name.decode()) for r in rows[:count]]

    # ---- the life of a session

    def __enter__(self) -> Session:
        if self.library._session:
            raise EmulatorError("the library has an open session already")
        self.library._session = self
        self.library.dll.emulated_configure(self._handler, self.library.compute_capability, self._stream, self._device)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._count_runtime_calls()
        self.library.dll.emulated_forget_registered()
        self.library.dll.emulated_configure(None, self.library.compute_capability, self._stream, self._device)
        self.library._session = None
        self._registered.clear()
        if self.problems:
            raise EmulatorError("\n".join(self.problems)) from error

    def _count_runtime_calls(self) -> None:
        raw = _ApiCounters()
        self.library.dll.emulated_counters(ctypes.byref(raw))
        for name in _API_COUNTERS:
            setattr(self.counters, name, getattr(raw, name))
        dll = self.library.dll
        streams = (ctypes.c_uint64 * dll.emulated_streams(None, ctypes.c_uint64(0)))()
        dll.emulated_streams(streams, ctypes.c_uint64(len(streams)))
        self.streams = set(streams)

    # ---- launches

    def _blocks_of(self, kernel: str) -> Sequence[int] | None:
        name = readable_name(kernel)
        return next((blocks for pattern, blocks in self._only_blocks.items() if re.search(pattern, name)), None)

    def _handle(self, call: Any) -> int:
        """A launch by the host code. No exception may pass through its C++ frames."""
        known, code = len(self.problems), _LAUNCH_FAILURE
        try:
            code = self._launch(call.contents)
        except Exception as error:
            self.problems.append(f"{type(error).__name__}: {error}")
        if len(self.problems) == known:
            return code
        self.library.dll.emulated_problem("\n".join(self.problems[known:]).encode())
        return code or _LAUNCH_FAILURE  # a warning, too

    def _launch(self, call: _LaunchCall) -> int:
        module = self.library.modules.get(call.module)
        kernel = call.kernel.decode()
        if module is None or kernel not in module.kernels:
            raise EmulatorError(f"no PTX for kernel {readable_name(kernel)}: compiled by other means?")
        if call.dynamic_shared > call.dynamic_shared_limit:
            self.problems.append(
                f"{readable_name(kernel)}: {call.dynamic_shared} bytes of dynamic shared memory, "
                f"{call.dynamic_shared_limit} are allowed (see cudaFuncSetAttribute)"
            )
            return _INVALID_VALUE
        geometry = Geometry(tuple(call.grid), tuple(call.block), call.dynamic_shared)
        self.launches.append((readable_name(kernel), geometry))
        problem = module.problem_of(kernel, geometry)
        if problem:
            self.problems.append(f"{readable_name(kernel)}: {problem}")
            return _INVALID_CONFIGURATION
        function = module.kernels[kernel]
        parameters = bytearray(function.parameter_bytes)
        for i, p in enumerate(function.parameters):
            parameters[p.offset : p.offset + p.size] = ctypes.string_at(call.arguments[i], p.size)
        result = module.launch_packed(kernel, geometry, bytes(parameters), self._memory(), self.schedule, self._blocks_of(kernel))
        self.counters.add(result.counters)
        self.kernel_counters.setdefault(readable_name(kernel), Counters()).add(result.counters)
        for warning in result.warnings.splitlines():
            if not any(pattern.search(warning) for pattern in self._ignored):
                self.problems.append(warning)
        if result.error is not None:
            self.problems.append(result.error)
        return _SUCCESS
