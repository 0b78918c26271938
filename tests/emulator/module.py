"""PTX modules: their variables, their kernels, and launches of these."""

from __future__ import annotations

import ctypes
import math
import re
import struct
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from . import compiler
from .counters import Counters
from .errors import EmulatorError, UnsupportedPTX
from .memory import MemoryRange, registration
from .parser import WIDTH, Function, Source, Variable, parse, split_operands
from .schedule import Schedule
from .translate.unit import UnitTranslator, module_variables, shared_variables

MAX_SHARED_BYTES = 227 << 10
_LAUNCHING = threading.Lock()  # the runtime runs one launch at a time


# ---- the structures of runtime/state.h


class _Range(ctypes.Structure):
    _fields_ = [
        ("low", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("writable", ctypes.c_uint32),
        ("space", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
    ]


class _Options(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("order", "seed", "resident", "poison", "races", "count_warps")),
        ("loop_limit", ctypes.c_uint64),
    ]


class _Request(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("dynamic_shared", ctypes.c_uint32),
        ("range_count", ctypes.c_uint32),
        ("parameters", ctypes.c_char_p),
        ("parameter_bytes", ctypes.c_uint64),
        ("ranges", ctypes.POINTER(_Range)),
        ("block_count", ctypes.c_uint64),
        ("blocks", ctypes.POINTER(ctypes.c_uint64)),
        ("options", _Options),
    ]


class _Counters(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "thread_instructions",
            "warp_instructions",
            "divergent_warp_instructions",
            "global_bytes_read",
            "global_bytes_written",
            "global_sectors_read",
            "global_sectors_written",
            "global_sectors_atomic",
            "global_atomics",
            "shared_atomics",
            "global_atomic_warp_contention",
            "global_atomic_launch_contention",
            "shared_atomic_warp_contention",
            "shared_atomic_block_contention",
            "shared_accesses",
            "shared_replays",
            "barriers",
            "warp_collectives",
            "resident_blocks",
            "chain_instructions",
            "chain_global_waits",
            "chain_shared_waits",
            "chain_barriers",
        )
    ]


@cache
def _runtime() -> ctypes.CDLL:
    library = ctypes.CDLL(str(compiler.runtime_library()))
    library.emulator_error.restype = ctypes.c_char_p
    library.emulator_warnings.restype = ctypes.c_char_p
    return library


# ---- names


def without_file_ids(text: str) -> str:
    """nvcc puts hashes of the file into names of anonymous namespaces: without them, a kernel that does not change with
    its file is found in the cache."""
    return re.sub(r"(_GLOBAL__N__)[0-9a-f]{8}(_\w+?_cu_)[0-9a-f]{8}", r"\1\2", text)


@cache
def readable_name(mangled: str) -> str:
    """`_Z5countIfEvPKf` -> `count<float>`: demangled, without return type and parameters"""
    full = subprocess.run(["c++filt", mangled], capture_output=True, text=True).stdout.strip() or mangled
    depth, end = 0, len(full)
    for i, c in enumerate(full):
        if c == "(" and depth == 0 and not full.startswith("(anonymous namespace)", i):
            end = i
            break
        depth += {"<": 1, "(": 1, ">": -1, ")": -1}.get(c, 0)
    name, depth, start = full[:end], 0, 0
    for i, c in enumerate(name):  # what stands before the last space outside brackets is the return type
        depth += {"<": 1, "(": 1, ">": -1, ")": -1}.get(c, 0)
        if c == " " and depth == 0 and not name[:i].endswith("(anonymous"):
            start = i + 1
    return name[start:]


# ---- modules


@dataclass
class Geometry:
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    dynamic_shared: int = 0

    @classmethod
    def of(cls, grid: int | Sequence[int], block: int | Sequence[int], dynamic_shared: int = 0) -> Geometry:
        return cls(_three(grid), _three(block), dynamic_shared)


def _three(size: int | Sequence[int]) -> tuple[int, int, int]:
    sizes = [size] if isinstance(size, int) else [int(x) for x in size]
    if not 1 <= len(sizes) <= 3:
        raise EmulatorError(f"expected one to three sizes, got {size!r}")
    x, y, z = ([*sizes, 1, 1])[:3]
    return x, y, z


@dataclass
class LaunchResult:
    counters: Counters
    warnings: str
    error: str | None


class Module:
    """A PTX module. Kernels are translated and compiled together, or each when it is first launched."""

    def __init__(self, ptx: str, lazy: bool = False):
        self.ptx = ptx  # messages give its lines
        self._source: Source = parse(ptx)
        self.kernels: dict[str, Function] = {f.name: f for f in self._source.kernels()}
        self.unsupported: dict[str, str] = {}  # kernel -> why it cannot run
        self._units: dict[str, ctypes.CDLL] = {}
        self._entries: dict[str, int] = {}  # kernel -> address of its description in its unit
        self._static_shared: dict[str, int] = {}
        self._variables = _ModuleVariables(self._source)
        if not lazy:
            self._compile(list(self.kernels))

    @classmethod
    def from_cuda(
        cls,
        path: str | Path,
        target: str = "compute_80",
        include_dirs: Sequence[str | Path] = (),
        flags: Sequence[str] = (),
    ) -> Module:
        compiled = compiler.compile_source(Path(path), target, [Path(d) for d in include_dirs], list(flags))
        assert compiled.ptx is not None, "a .cu file gives PTX"
        return cls(compiled.ptx)

    # ---- kernels

    def find_kernel(self, name: str) -> str:
        """The mangled name of the kernel that `name` means: that may be a readable one, or part of one"""
        if name in self.kernels:
            return name
        found = [k for k in self.kernels if name == readable_name(k)]
        found = found or [k for k in self.kernels if name in readable_name(k)]
        if len(found) != 1:
            known = ", ".join(readable_name(k) for k in self.kernels)
            raise EmulatorError(f"{len(found)} kernels match {name!r}; there are: {known}")
        return found[0]

    def check_all(self) -> dict[str, str]:
        """Translate every kernel, compile none: {kernel: why it is not supported}"""
        translator = UnitTranslator(self._source, list(self.kernels))
        translator.translate()
        return translator.errors

    def _compile(self, names: list[str]) -> None:
        try:
            translator = UnitTranslator(self._source, names)
            code = without_file_ids(translator.translate())
        except UnsupportedPTX as error:
            self.unsupported.update(dict.fromkeys(names, str(error)))
            return
        self.unsupported.update(translator.errors)
        unit = ctypes.CDLL(str(compiler.compile_unit(code)))
        unit.emulator_kernels.restype = ctypes.POINTER(_KernelRow)
        unit.emulator_variables.restype = ctypes.POINTER(ctypes.c_void_p)
        rows = unit.emulator_kernels()
        for i, name in enumerate(n for n in names if n not in translator.errors):
            self._entries[name] = ctypes.addressof(rows[i])
            self._units[name] = unit

    def _entry(self, kernel: str) -> int:
        if kernel not in self._entries and kernel not in self.unsupported:
            self._compile([kernel])
        if kernel in self.unsupported:
            raise UnsupportedPTX(f"{readable_name(kernel)}: unsupported PTX: {self.unsupported[kernel]}")
        return self._entries[kernel]

    def _bind_variables(self, kernel: str) -> None:
        """Modules with the same PTX share a unit, but not their variables."""
        table = self._units[kernel].emulator_variables()
        for i, address in enumerate(self._variables.addresses):
            table[i] = address

    def static_shared_bytes(self, kernel: str) -> int:
        if kernel not in self._static_shared:  # every launch asks
            self._static_shared[kernel] = self._count_static_shared(kernel)
        return self._static_shared[kernel]

    def _count_static_shared(self, kernel: str) -> int:
        function = self.kernels[kernel]
        text = " ".join(s.text for s in function.body)
        words = set(re.findall(r"[\w$]+", text))
        return sum(v.size for name, v in shared_variables(self._source).items() if name in words)

    def threads_limit(self, kernel: str) -> int:
        """.maxntid or .reqntid, or 1024"""
        m = re.search(r"\.(?:max|req)ntid\s+([\d, ]+)", self.kernels[kernel].directives)
        product = 1
        for x in m[1].split(",") if m else []:
            product *= int(x)
        return min(product, 1024) if m else 1024

    # ---- variables

    def variable(self, name: str, dtype: Any = np.uint8) -> np.ndarray:
        """A __device__ or __constant__ variable, as an array that shares its memory"""
        return self._variables.array(name).view(dtype)

    @property
    def variable_addresses(self) -> dict[str, tuple[int, int]]:
        """name -> (address, bytes)"""
        return self._variables.by_name()

    # ---- launches

    def launch(
        self,
        kernel: str,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        arguments: Sequence[Any],
        *,
        shared: int = 0,
        schedule: Schedule | None = None,
        extra: Sequence[Any] = (),
        blocks: Sequence[int] | None = None,
        check: bool = True,
    ) -> LaunchResult:
        """Run a kernel. Raises on errors, and if `check` on warnings.

        arguments   arrays and tensors are passed as pointers and used in place (read-only ones may not be
                    written); None is a null pointer; int, float and numpy scalars have the parameter's size;
                    bytes are a struct
        shared      bytes of dynamic shared memory
        extra       arrays that the kernel reaches through pointers in memory or in structs
        blocks      numbers of the only blocks to run (x + y * grid.x + ...), for a grid that would take too long
        """
        name = self.find_kernel(kernel)
        parameters, ranges = self._pack(name, arguments)
        ranges += [registration(e, True, f"extra {i}") for i, e in enumerate(extra)]
        result = self.launch_packed(name, Geometry.of(grid, block, shared), parameters, ranges, schedule or Schedule(), blocks)
        if result.error is not None:
            raise EmulatorError(result.error + (f"\n{result.warnings}" if result.warnings else ""))
        if check and result.warnings:
            raise EmulatorError(result.warnings)
        return result

    def _pack(self, kernel: str, arguments: Sequence[Any]) -> tuple[bytes, list[MemoryRange]]:
        function = self.kernels[kernel]
        if len(arguments) != len(function.parameters):
            raise EmulatorError(f"{readable_name(kernel)} takes {len(function.parameters)} arguments, got {len(arguments)}")
        block = bytearray(function.parameter_bytes)
        ranges = []
        for i, (argument, parameter) in enumerate(zip(arguments, function.parameters, strict=True)):
            if isinstance(argument, np.ndarray) or hasattr(argument, "data_ptr"):
                memory = registration(argument, True, f"argument {i}")
                ranges.append(memory)
                data = struct.pack("<Q", memory.address)
            else:
                data = _scalar(argument, parameter.size)
            if len(data) != parameter.size:
                raise EmulatorError(f"{readable_name(kernel)}: argument {i} has {len(data)} bytes, expected {parameter.size}")
            block[parameter.offset : parameter.offset + parameter.size] = data
        return bytes(block), ranges

    def launch_packed(
        self,
        kernel: str,
        geometry: Geometry,
        parameters: bytes,
        ranges: Sequence[MemoryRange],
        schedule: Schedule,
        blocks: Sequence[int] | None = None,
    ) -> LaunchResult:
        """The launch itself: `kernel` is mangled, `parameters` laid out. Nothing is raised for its errors."""
        readable = readable_name(kernel)
        problem = self.problem_of(kernel, geometry)
        if problem is None and blocks is not None and any(not 0 <= b < math.prod(geometry.grid) for b in blocks):
            problem = f"blocks {list(blocks)} of a grid {geometry.grid}"
        if problem:
            return LaunchResult(Counters(), "", f"{readable}: {problem}")
        if blocks is not None and not len(blocks):
            return LaunchResult(Counters(), "", None)
        try:
            entry = self._entry(kernel)
        except EmulatorError as problem_of_build:
            return LaunchResult(Counters(), "", str(problem_of_build))
        rows = [*ranges, *self._variables.ranges()]
        table = (_Range * max(1, len(rows)))(
            *(_Range(r.address, r.length, r.writable, r.constant, r.name.encode()) for r in rows)
        )
        options = _Options(
            order=("forward", "reverse", "random").index(schedule.order),
            seed=schedule.seed & 0xFFFFFFFF,
            resident=schedule.resident,
            poison=schedule.poison,
            races=(None, "shared", "all").index(schedule.races),
            count_warps=schedule.count_warps,
            loop_limit=schedule.loop_limit,
        )
        request = _Request(
            (ctypes.c_uint32 * 3)(*geometry.grid),
            (ctypes.c_uint32 * 3)(*geometry.block),
            geometry.dynamic_shared,
            len(rows),
            parameters,
            len(parameters),
            table,
            0 if blocks is None else len(blocks),
            None if blocks is None else (ctypes.c_uint64 * max(1, len(blocks)))(*blocks),
            options,
        )
        raw = _Counters()
        with _LAUNCHING:
            self._bind_variables(kernel)
            runtime = _runtime()
            failed = runtime.emulator_launch(ctypes.c_void_p(entry), ctypes.byref(request), ctypes.byref(raw))
            error = runtime.emulator_error().decode(errors="replace") if failed else None
            warnings = runtime.emulator_warnings().decode(errors="replace")
        ran = math.prod(geometry.grid) if blocks is None else len(blocks)
        counters = Counters(launches=1, blocks=ran, **{field[0]: getattr(raw, field[0]) for field in _Counters._fields_})
        in_kernel = "".join(f"{readable}: {line}\n" for line in warnings.splitlines())
        return LaunchResult(counters, in_kernel, None if error is None else f"{readable}: {error}")

    def problem_of(self, kernel: str, g: Geometry) -> str | None:
        """Why the device would refuse the launch"""
        x, y, z = g.block
        limit = self.threads_limit(kernel)
        if min(g.block) < 1 or x > 1024 or y > 1024 or z > 64 or x * y * z > 1024:
            return f"block {g.block}: at most 1024 threads, (1024, 1024, 64) at most, none 0"
        if x * y * z > limit:
            return f"block {g.block} has {x * y * z} threads, the kernel's launch bounds allow {limit}"
        required = re.search(r"\.reqntid\s+([\d, ]+)", self.kernels[kernel].directives)
        if required and _three([int(v) for v in required[1].split(",")]) != g.block:
            return f"block {g.block}: the kernel requires {required[1].strip()}"
        if min(g.grid) < 1 or g.grid[0] >= 1 << 31 or max(g.grid[1:]) > 65535:
            return f"grid {g.grid}: at most (2147483647, 65535, 65535), none 0"
        total = self.static_shared_bytes(kernel) + g.dynamic_shared
        if total > MAX_SHARED_BYTES:
            return f"{total} bytes of shared memory: at most {MAX_SHARED_BYTES}"
        return None


class _KernelRow(ctypes.Structure):
    """struct Kernel of runtime.h"""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("run", ctypes.c_void_p),
        ("shared", ctypes.c_void_p),
        ("shared_count", ctypes.c_uint32),
        ("dynamic_start", ctypes.c_uint32),
        ("race_grain", ctypes.c_uint32),
        ("stack_bytes", ctypes.c_uint64),
        ("sites", ctypes.c_void_p),
        ("site_count", ctypes.c_uint32),
    ]


def _scalar(argument: Any, size: int) -> bytes:
    if argument is None:
        return bytes(size)
    if isinstance(argument, bytes):
        return argument
    if isinstance(argument, np.generic):
        return argument.tobytes()
    if isinstance(argument, int):
        return (argument & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    if isinstance(argument, float):
        return struct.pack("<f" if size == 4 else "<d", argument)
    raise TypeError(f"a kernel argument cannot be a {type(argument).__name__}")


class _ModuleVariables:
    """Memory of the module's __device__ and __constant__ variables"""

    def __init__(self, source: Source):
        self._declared = module_variables(source)
        self._arrays = [_aligned(max(v.size, 1), max(v.alignment, 16)) for v in self._declared]
        self._index = {v.name: i for i, v in enumerate(self._declared)}
        for variable, array in zip(self._declared, self._arrays, strict=True):
            if variable.initializer:
                content = self._content(variable)
                array[: len(content)] = np.frombuffer(content, np.uint8)

    @property
    def addresses(self) -> list[int]:
        return [a.ctypes.data for a in self._arrays]

    def array(self, name: str) -> np.ndarray:
        if name not in self._index:
            raise EmulatorError(f"no variable {name!r}; there are: {', '.join(self._index)}")
        return self._arrays[self._index[name]]

    def by_name(self) -> dict[str, tuple[int, int]]:
        return {v.name: (a.ctypes.data, a.nbytes) for v, a in zip(self._declared, self._arrays, strict=True)}

    def ranges(self) -> list[MemoryRange]:
        return [
            MemoryRange(a.ctypes.data, a.nbytes, v.space != "const", readable_name(v.name), v.space == "const")
            for v, a in zip(self._declared, self._arrays, strict=True)
        ]

    def _content(self, variable: Variable) -> bytes:
        text = (variable.initializer or "").strip()
        values = split_operands(text[1:-1].replace("{", "").replace("}", "")) if text.startswith("{") else [text]
        size = WIDTH[variable.type]
        return b"".join((self._element(v, variable) & (1 << 8 * size) - 1).to_bytes(size, "little") for v in values)

    def _element(self, text: str, variable: Variable) -> int:
        if m := re.fullmatch(r"0[fF]([0-9a-fA-F]{8})|0[dD]([0-9a-fA-F]{16})", text):
            return int(m[1] or m[2], 16)
        if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", text):
            return int(text.rstrip("U"), 0)
        m = re.fullmatch(r"(?:generic\()?([\w$]+)\)?(?:\s*\+\s*(\d+))?", text)
        if m and m[1] in self._index:  # the address of another variable
            return self._arrays[self._index[m[1]]].ctypes.data + int(m[2] or 0)
        raise UnsupportedPTX(f"initializer `{text}` of {variable.name}")


def _aligned(size: int, alignment: int) -> np.ndarray:
    storage = np.zeros(size + alignment, np.uint8)
    skip = -storage.ctypes.data % alignment
    return storage[skip : skip + size]
