"""Kernels for alrp_cuda.ops that run on the emulated device: what csrc/torch/native.cpp does, on registered CPU tensors."""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from emulator import EmulatorError, Library, Schedule, Session
from torch import Tensor

from alrp_cuda import _C, ops

from .structures import DTYPES, Array, Drive, Gradients, Input, Labels, Output, Spec, Sums, Tables, declare

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
SOURCES = (*sorted((CSRC / "cuda").glob("*.cu")), CSRC / "ranking.cpp", Path(__file__).with_name("c_api.cpp"))
MAIN_TARGET = "compute_80"
STREAM = 0x57EA0  # any but the default stream: nobody follows it
TARGETS = ("compute_75", MAIN_TARGET, "compute_90")

# Blocks of these kernels of CUB wait for flags that earlier blocks set, in the workspace. The flags are read and written by
# volatile or relaxed instructions, which do not race; the emulated device takes those of different blocks for a race. Nothing
# but these instructions is ignored, and nothing of our own kernels.
LOOK_BACK = (
    r"^cub::.*(DeviceSelectSweepKernel|DeviceRadixSortOnesweepKernel).*possible race in global memory .* of 'workspace: .*"
    r" `(ld|st)\.(relaxed\.gpu|volatile\.global)\."
)


@cache
def library(target: str = MAIN_TARGET, sources: tuple[Path, ...] = SOURCES) -> Library:
    """csrc/cuda for one virtual architecture, linked to the emulated runtime."""
    lib = Library.build(sources, [CSRC], target, ["-std=c++20"])
    declare(lib.dll)
    return lib


def poisoned(size: int | tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory as an allocator returns it: what a kernel does not write shows."""
    return poison(torch.empty(size, dtype=dtype))


def poison(tensor: Tensor) -> Tensor:
    """The tensor, overwritten; of a huge one, only the pages that a kernel writes should take memory."""
    if tensor.nbytes < 1 << 30:
        tensor.view(-1).view(torch.uint8).fill_(0xA5)
    return tensor


class EmulatedKernels(_C.Kernels):
    """The methods of Kernels in csrc/torch/kernels.h.

    Every call is a session of its own: a race, an access out of bounds, a read of memory never written or a failed launch
    raises emulator.EmulatorError. `sessions` keeps what each call counted, `calls` its method. For
    `only_blocks` see Library.session.
    """

    def __init__(
        self,
        target: str = MAIN_TARGET,
        schedule: Schedule | None = None,
        *,
        sources: Sequence[Path] = SOURCES,
        only_blocks: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        super().__init__(is_asynchronous=True)
        self.target = target
        self.sources = tuple(sources)
        self.schedule = schedule or Schedule(races="shared", count_warps=False)
        self.only_blocks = only_blocks
        self.sessions: list[Session] = []
        self.calls: list[str] = []

    @property
    def library(self) -> Library:
        """Built when it is first needed: collecting tests must not wait for nvcc."""
        return library(self.target, self.sources)

    @contextmanager
    def _session(self, call: str) -> Iterator[Session]:
        session = self.library.session(self.schedule, [LOOK_BACK], self.only_blocks)
        self.sessions.append(session)
        self.calls.append(call)
        with session:
            yield session
        if session.streams - {STREAM}:
            raise EmulatorError("something was put on another stream than the caller's")

    def _check(self, message: bytes | None) -> None:
        if message is not None:
            raise RuntimeError(message.decode())

    def _input(self, s: Session, problem: _C.Problem, p: int) -> Input:
        logits, targets, layout = problem.logits, problem.targets, problem.layout
        s.register(logits, writable=False, name="logits")
        s.register(targets, writable=False, name="targets")
        labels = Labels.of(targets, (layout.classes, layout.background), continuous=layout.continuous)
        options = problem.delta, problem.algorithm, problem.skew, problem.others
        return Input(Array.of(logits), logits.numel(), labels, p, *options)

    def _workspace(self, s: Session, call: Input) -> Tensor:
        size = ctypes.c_size_t()
        self._check(self.library.dll.alrp_workspace_bytes(call, size))
        workspace = poisoned(size.value, torch.uint8)
        s.register(workspace, name="workspace")
        return workspace

    def _device_size(self, call: Input) -> int:
        size = ctypes.c_size_t()
        self._check(self.library.dll.alrp_table_bytes(call, size))
        return -(-size.value // 8)

    def forward(
        self,
        problem: _C.Problem,
        num_positives: int,
        loss: int,
        loc_errors: Tensor | None,
        want_error_gradient: bool,
        eps: float,
    ) -> tuple[Tensor, ...]:
        p = num_positives
        values = torch.float64 if problem.logits.dtype == torch.float64 else torch.float32
        cls, loc, rank, precision = (poisoned(size, values) for size in ((), (), p, p))
        index = poisoned(p, torch.int64)
        status = poisoned(3, torch.int64)
        with self._session("forward") as s:
            call = self._input(s, problem, p)
            device = self._device_size(call)
            tables = poisoned(device + (4 if want_error_gradient else 3) * p + 1, torch.float64)
            outputs = {"cls": cls, "loc": loc, "rank": rank, "precision": precision, "index": index, "tables": tables}
            for name, tensor in (outputs | {"status": status}).items():
                s.register(tensor, name=name)
            if loc_errors is not None:
                s.register(loc_errors, writable=False, name="loc_errors")
            workspace = self._workspace(s, call)
            output = Output(
                DTYPES.index(values),
                *(t.data_ptr() for t in (cls, loc, rank, precision)),
                Tables.of(index, tables, device),
                status.data_ptr(),
            )
            spec = Spec(loss, eps, Array.of(loc_errors), Array.of(problem.targets if problem.layout.continuous else None))
            self._check(self.library.dll.alrp_forward(call, spec, output, workspace.data_ptr(), STREAM))
        return cls, loc, rank, precision, index, tables, status

    def backward(
        self,
        problem: _C.Problem,
        index: Tensor,
        tables: Tensor,
        grad_cls: Tensor | None,
        grad_loc: Tensor | None,
        grad_logits: Tensor | None,
        grad_loc_errors: Tensor | None,
    ) -> None:
        continuous = problem.layout.continuous
        incoming = grad_cls if grad_cls is not None else grad_loc
        with self._session("backward") as s:
            call = self._input(s, problem, index.numel())
            read = {"index": index, "tables": tables, "grad_cls": grad_cls, "grad_loc": grad_loc}
            for name, tensor in read.items():
                if tensor is not None:
                    s.register(tensor, writable=False, name=name)
            for name, tensor in {"grad of logits": grad_logits, "grad of loc_errors": grad_loc_errors}.items():
                if tensor is not None:
                    s.register(poison(tensor), name=name)
            second = None if grad_loc is None else grad_loc.data_ptr()
            gradients = Gradients(
                Array.of(grad_logits),
                None if grad_cls is None else grad_cls.data_ptr(),
                Array.of(grad_loc_errors),
                None if continuous else second,
                second if continuous else None,
                0 if incoming is None else DTYPES.index(incoming.dtype),
            )
            own = Tables.of(index, tables, self._device_size(call))
            self._check(self.library.dll.alrp_backward(call, own, gradients, STREAM))

    def sums(self, problem: _C.Problem, num_positives: int) -> tuple[Tensor, ...]:
        p = num_positives
        place, index, status = (poisoned(size, torch.int64) for size in (p, p, 3))
        sums, unused = poisoned((3 if problem.skew == 1 else 4, p), torch.float64), poisoned(2 * p + 2, torch.float64)
        with self._session("sums") as s:
            call = self._input(s, problem, p)
            device = self._device_size(call)
            tables = poisoned(device + 3 * p + 1, torch.float64)
            outputs = {"place": place, "sums": sums, "index": index, "tables": tables, "status": status, "unused": unused}
            for name, tensor in outputs.items():
                s.register(tensor, name=name)
            workspace = self._workspace(s, call)
            spare = [unused.data_ptr() + 8 * offset for offset in (0, 1, 2, 2 + p)]
            output = Output(DTYPES.index(torch.float64), *spare, Tables.of(index, tables, device), status.data_ptr())
            self._check(self.library.dll.alrp_sums(call, Sums.of(place, sums), output, workspace.data_ptr(), STREAM))
        sums[0] = tables[device : device + p]
        return sums, place, index, tables, status

    def drive(
        self,
        problem: _C.Problem,
        index: Tensor,
        tables: Tensor,
        place: Tensor,
        sums: Tensor,
        errors: Tensor,
        z: Tensor,
        eps: float,
    ) -> None:
        with self._session("drive") as s:
            call = self._input(s, problem, index.numel())
            for name, tensor in {"place": place, "sums": sums, "errors": errors, "z": z}.items():
                s.register(tensor, writable=False, name=name)
            s.register(tables, name="tables")
            drive = Drive(*(t.data_ptr() for t in (place, sums[2], sums[-1], errors, z)), eps)
            own = Tables.of(index, tables, self._device_size(call))
            self._check(self.library.dll.alrp_drive(call, drive, own, STREAM))

    def pair_product(
        self,
        problem: _C.Problem,
        index: Tensor,
        tables: Tensor,
        place: Tensor,
        weights: Tensor,
        transposed: bool,
    ) -> Tensor:
        out = poisoned(index.numel(), torch.float64)
        with self._session("pair_product") as s:
            call = self._input(s, problem, index.numel())
            for name, tensor in {"tables": tables, "place": place, "weights": weights}.items():
                s.register(tensor, writable=False, name=name)
            s.register(out, name="out")
            own = Tables.of(index, tables, self._device_size(call))
            arguments = place.data_ptr(), weights.data_ptr(), transposed, out.data_ptr(), STREAM
            self._check(self.library.dll.alrp_pair_product(call, own, *arguments))
        return out

    def find_positives(self, problem: _C.Problem, num_positives: int) -> tuple[Tensor, ...]:
        p = num_positives
        place, index, status = (poisoned(size, torch.int64) for size in (p, p, 3))
        score = poisoned(p, torch.float64)
        with self._session("find_positives") as s:
            call = self._input(s, problem, p)
            call.algorithm = ops.ALGORITHMS.index("tiled")
            for name, tensor in {"place": place, "score": score, "index": index, "status": status}.items():
                s.register(tensor, name=name)
            workspace = self._workspace(s, call)
            own = Tables(index.data_ptr(), score.data_ptr(), None, None, None, None, None)
            arguments = place.data_ptr(), status.data_ptr(), workspace.data_ptr(), STREAM
            self._check(self.library.dll.alrp_find_positives(call, own, *arguments))
        return place, score, index, status

    def count_part(
        self, problem: _C.Problem, want_error_gradient: bool, index: Tensor, score: Tensor, status: Tensor
    ) -> tuple[Tensor, Tensor]:
        p = index.numel()
        with self._session("count_part") as s:
            call = self._input(s, problem, p)
            device = self._device_size(call)
            tables = poisoned(device + (4 if want_error_gradient else 3) * p + 1, torch.float64)
            tables[device : device + p] = score
            size = ctypes.c_int64()
            self._check(self.library.dll.alrp_part_size(call, size))
            is_sorted = problem.algorithm == ops.ALGORITHMS.index("sorted") and p > 0
            part = poisoned(size.value, torch.int64 if is_sorted else torch.float64)
            s.register(index, writable=False, name="index")
            for name, tensor in {"tables": tables, "part": part, "status": status}.items():
                s.register(tensor, name=name)
            workspace = self._workspace(s, call)
            arguments = status.data_ptr(), part.data_ptr(), workspace.data_ptr(), STREAM
            self._check(self.library.dll.alrp_count_part(call, Tables.of(index, tables, device), *arguments))
        return tables, part

    def forward_from_parts(
        self,
        problem: _C.Problem,
        loss: int,
        values: Tensor | None,
        eps: float,
        place: Tensor,
        index: Tensor,
        tables: Tensor,
        sum: Tensor,
        status: Tensor,
    ) -> tuple[Tensor, ...]:
        p = index.numel()
        dtype = torch.float64 if problem.logits.dtype == torch.float64 else torch.float32
        outputs = [poisoned(size, dtype) for size in ((), (), p, p)]
        with self._session("forward_from_parts") as s:
            call = self._input(s, problem, p)
            for name, tensor in zip(("cls", "loc", "rank", "precision"), outputs, strict=True):
                s.register(tensor, name=name)
            for name, tensor in {"tables": tables, "status": status}.items():
                s.register(tensor, name=name)
            for name, tensor in {"place": place, "index": index, "sum": sum, "values": values}.items():
                if tensor is not None:
                    s.register(tensor, writable=False, name=name)
            workspace = self._workspace(s, call)
            own = Tables.of(index, tables, self._device_size(call))
            output = Output(DTYPES.index(dtype), *(t.data_ptr() for t in outputs), own, status.data_ptr())
            given = (None, values) if problem.layout.continuous else (values, None)
            spec = Spec(loss, eps, *(Array.of(v) for v in given))
            arguments = place.data_ptr(), sum.data_ptr(), output, workspace.data_ptr(), STREAM
            self._check(self.library.dll.alrp_forward_from_parts(call, spec, *arguments))
        return tuple(outputs)

    def sums_from_parts(
        self, problem: _C.Problem, place: Tensor, index: Tensor, tables: Tensor, sum: Tensor, status: Tensor
    ) -> Tensor:
        p = index.numel()
        sums, unused = poisoned((3 if problem.skew == 1 else 4, p), torch.float64), poisoned(2 * p + 2, torch.float64)
        with self._session("sums_from_parts") as s:
            call = self._input(s, problem, p)
            device = self._device_size(call)
            for name, tensor in {"sums": sums, "tables": tables, "status": status, "unused": unused}.items():
                s.register(tensor, name=name)
            for name, tensor in {"place": place, "index": index, "sum": sum}.items():
                s.register(tensor, writable=False, name=name)
            spare = [unused.data_ptr() + 8 * offset for offset in (0, 1, 2, 2 + p)]
            output = Output(DTYPES.index(torch.float64), *spare, Tables.of(index, tables, device), status.data_ptr())
            self._check(self.library.dll.alrp_sums_from_parts(call, Sums.of(place, sums), sum.data_ptr(), output, STREAM))
        sums[0] = tables[device : device + p]
        return sums

    def count_positives(self, problem: _C.Problem) -> Tensor:
        status = poisoned(3, torch.int64)
        with self._session("count_positives") as s:
            call = self._input(s, problem, 0)
            s.register(status, name="status")
            workspace = self._workspace(s, call)
            self._check(self.library.dll.alrp_count_positives(call, status.data_ptr(), workspace.data_ptr(), STREAM))
        return status


def register(name: str, kernels: EmulatedKernels) -> None:
    """Make ``backend=name`` run on the emulated device, with CPU tensors."""
    ops.register_backend(name, kernels, "cpu")


@contextmanager
def registered(kernels: EmulatedKernels, name: str = "emulated otherwise") -> Iterator[str]:
    """A backend for some calls, under a name that is free again afterwards."""
    register(name, kernels)
    try:
        yield name
    finally:
        del ops._device_types[name]
