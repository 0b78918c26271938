"""Kernels for alrp_cuda.ops that run on the emulated device: what csrc/torch/glue.cpp does, on registered CPU tensors."""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from emulator import EmulatorError, Library, Schedule, Session
from torch import Tensor

from alrp_cuda import ops

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
    tensor = torch.empty(size, dtype=dtype)
    if tensor.nbytes < 1 << 30:
        tensor.view(-1).view(torch.uint8).fill_(0xA5)
    return tensor  # of a huge tensor, only the pages that a kernel writes should take memory


def slices(
    logits: Tensor, targets: Tensor, sizes: list[int], counts: list[int], algorithms: list[int]
) -> Iterator[tuple[Tensor, Tensor, tuple[int, int], int]]:
    """(logits, targets, range of the positives, algorithm) of each slice."""
    ends = accumulate(counts)
    rows = [size * targets.numel() // max(1, logits.numel()) for size in sizes]
    parts = zip(logits.view(-1).split(sizes), targets.view(-1).split(rows), ends, counts, algorithms, strict=True)
    for own, labels, end, count, algorithm in parts:
        yield own, labels, (end - count, end), algorithm


class EmulatedKernels:
    """forward, backward and count_positives as alrp_cuda._C has them.

    Every call is a session of its own: a race, an access out of bounds, a read of memory never written or a failed launch
    raises emulator.EmulatorError. `sessions` keeps what each call counted. For `only_blocks` see Library.session.
    """

    def __init__(
        self,
        target: str = MAIN_TARGET,
        schedule: Schedule | None = None,
        *,
        sources: Sequence[Path] = SOURCES,
        only_blocks: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.target = target
        self.sources = tuple(sources)
        self.schedule = schedule or Schedule(races="shared", count_warps=False)
        self.only_blocks = only_blocks
        self.sessions: list[Session] = []

    @property
    def library(self) -> Library:
        """Built when it is first needed: collecting tests must not wait for nvcc."""
        return library(self.target, self.sources)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        session = self.library.session(self.schedule, [LOOK_BACK], self.only_blocks)
        self.sessions.append(session)
        with session:
            yield session
        if session.streams - {STREAM}:
            raise EmulatorError("something was put on another stream than the caller's")

    def _check(self, message: bytes | None) -> None:
        if message is not None:
            raise RuntimeError(message.decode())

    def _input(
        self,
        s: Session,
        logits: Tensor,
        targets: Tensor,
        layout: Any,
        p: int,
        delta: float,
        algorithm: int,
        skew: float = 1.0,
        others: int = 0,
    ) -> Input:
        s.register(logits, writable=False, name="logits")
        s.register(targets, writable=False, name="targets")
        labels = Labels.of(targets, (layout.classes, layout.background), continuous=layout.continuous)
        return Input(Array.of(logits), logits.numel(), labels, p, delta, algorithm, skew, others)

    def _workspace(self, s: Session, problem: Input) -> Tensor:
        size = ctypes.c_size_t()
        self._check(self.library.dll.alrp_workspace_bytes(problem, size))
        workspace = poisoned(size.value, torch.uint8)
        s.register(workspace, name="workspace")
        return workspace

    def _device_size(self, problem: Input) -> int:
        size = ctypes.c_size_t()
        self._check(self.library.dll.alrp_table_bytes(problem, size))
        return -(-size.value // 8)

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        layout: Any,
        num_positives: int,
        loss: int,
        loc_errors: Tensor | None,
        want_error_gradient: bool,
        delta: float,
        eps: float,
        algorithm: int,
    ) -> tuple[Tensor, ...]:
        p = num_positives
        values = torch.float64 if logits.dtype == torch.float64 else torch.float32
        cls, loc, rank, precision = (poisoned(size, values) for size in ((), (), p, p))
        index = poisoned(p, torch.int64)
        status = poisoned(3, torch.int64)
        with self._session() as s:
            problem = self._input(s, logits, targets, layout, p, delta, algorithm)
            device = self._device_size(problem)
            tables = poisoned(device + (4 if want_error_gradient else 3) * p + 1, torch.float64)
            outputs = {"cls": cls, "loc": loc, "rank": rank, "precision": precision, "index": index, "tables": tables}
            for name, tensor in (outputs | {"status": status}).items():
                s.register(tensor, name=name)
            if loc_errors is not None:
                s.register(loc_errors, writable=False, name="loc_errors")
            workspace = self._workspace(s, problem)
            output = Output(
                DTYPES.index(values),
                *(t.data_ptr() for t in (cls, loc, rank, precision)),
                Tables.of(index, tables, device),
                status.data_ptr(),
            )
            spec = Spec(loss, eps, Array.of(loc_errors), Array.of(targets if layout.continuous else None))
            self._check(self.library.dll.alrp_forward(problem, spec, output, workspace.data_ptr(), STREAM))
        return cls, loc, rank, precision, index, tables, status

    def backward(
        self,
        logits: Tensor,
        targets: Tensor,
        layout: Any,
        delta: float,
        algorithm: int,
        index: Tensor,
        tables: Tensor,
        grad_cls: Tensor | None,
        grad_loc: Tensor | None,
        loc_errors_dtype: torch.dtype,
        skew: float = 1.0,
        others: int = 0,
    ) -> tuple[Tensor | None, Tensor | None]:
        p = index.numel()
        grad_logits = None if grad_cls is None else poisoned(tuple(logits.shape), logits.dtype)
        grad_loc_errors = None if grad_loc is None or layout.continuous else poisoned(p, loc_errors_dtype)
        incoming = grad_cls if grad_cls is not None else grad_loc
        with self._session() as s:
            problem = self._input(s, logits, targets, layout, p, delta, algorithm, skew, others)
            s.register(index, writable=False, name="index")
            s.register(tables, writable=False, name="tables")
            for name, tensor in {"grad_cls": grad_cls, "grad_loc": grad_loc}.items():
                if tensor is not None:
                    s.register(tensor, writable=False, name=name)
            for name, tensor in {"grad of logits": grad_logits, "grad of loc_errors": grad_loc_errors}.items():
                if tensor is not None:
                    s.register(tensor, name=name)
            workspace = self._workspace(s, problem)
            second = None if grad_loc is None else grad_loc.data_ptr()
            gradients = Gradients(
                Array.of(grad_logits),
                None if grad_cls is None else grad_cls.data_ptr(),
                Array.of(grad_loc_errors),
                None if layout.continuous else second,
                second if layout.continuous else None,
                0 if incoming is None else DTYPES.index(incoming.dtype),
            )
            own = Tables.of(index, tables, self._device_size(problem))
            self._check(self.library.dll.alrp_backward(problem, own, gradients, workspace.data_ptr(), STREAM))
        return grad_logits, grad_loc_errors

    def sums(
        self, logits: Tensor, targets: Tensor, layout: Any, num_positives: int, delta: float, algorithm: int, skew: float
    ) -> tuple[Tensor, ...]:
        p = num_positives
        place, index, status = (poisoned(size, torch.int64) for size in (p, p, 3))
        rank_pos, n_fp, unused = (poisoned(size, torch.float64) for size in (p, p, 2 * p + 2))
        norm = n_fp if skew == 1 else poisoned(p, torch.float64)
        with self._session() as s:
            problem = self._input(s, logits, targets, layout, p, delta, algorithm, skew)
            device = self._device_size(problem)
            tables = poisoned(device + 3 * p + 1, torch.float64)
            outputs = {"place": place, "rank_pos": rank_pos, "n_fp": n_fp, "index": index, "tables": tables, "status": status}
            if skew != 1:
                outputs["norm"] = norm
            for name, tensor in (outputs | {"unused": unused}).items():
                s.register(tensor, name=name)
            workspace = self._workspace(s, problem)
            spare = [unused.data_ptr() + 8 * offset for offset in (0, 1, 2, 2 + p)]
            output = Output(DTYPES.index(torch.float64), *spare, Tables.of(index, tables, device), status.data_ptr())
            own = Sums(place.data_ptr(), rank_pos.data_ptr(), n_fp.data_ptr(), None)
            self._check(self.library.dll.alrp_sums(problem, own, norm.data_ptr(), output, workspace.data_ptr(), STREAM))
        return place, rank_pos, n_fp, norm, tables[device : device + p], index, tables, status

    def drive(
        self,
        logits: Tensor,
        targets: Tensor,
        layout: Any,
        delta: float,
        algorithm: int,
        skew: float,
        index: Tensor,
        tables: Tensor,
        place: Tensor,
        n_fp: Tensor,
        norm: Tensor,
        errors: Tensor,
        z: Tensor,
        eps: float,
    ) -> None:
        read = {"place": place, "n_fp": n_fp, "errors": errors, "z": z}
        if norm is not n_fp and norm.data_ptr() != n_fp.data_ptr():
            read["norm"] = norm
        with self._session() as s:
            problem = self._input(s, logits, targets, layout, index.numel(), delta, algorithm, skew)
            for name, tensor in read.items():
                s.register(tensor, writable=False, name=name)
            s.register(tables, name="tables")
            drive = Drive(*(t.data_ptr() for t in (place, n_fp, norm, errors, z)), eps)
            own = Tables.of(index, tables, self._device_size(problem))
            self._check(self.library.dll.alrp_drive(problem, drive, own, STREAM))

    def pair_product(
        self,
        logits: Tensor,
        targets: Tensor,
        layout: Any,
        delta: float,
        algorithm: int,
        index: Tensor,
        tables: Tensor,
        place: Tensor,
        weights: Tensor,
        transposed: bool,
        others: int = 0,
    ) -> Tensor:
        out = poisoned(index.numel(), torch.float64)
        with self._session() as s:
            problem = self._input(s, logits, targets, layout, index.numel(), delta, algorithm, 1.0, others)
            for name, tensor in {"tables": tables, "place": place, "weights": weights}.items():
                s.register(tensor, writable=False, name=name)
            s.register(out, name="out")
            own = Tables.of(index, tables, self._device_size(problem))
            arguments = place.data_ptr(), weights.data_ptr(), transposed, out.data_ptr(), STREAM
            self._check(self.library.dll.alrp_pair_product(problem, own, *arguments))
        return out

    def find_positives(self, logits: Tensor, targets: Tensor, layout: Any, num_positives: int) -> tuple[Tensor, ...]:
        p = num_positives
        place, index, status = (poisoned(size, torch.int64) for size in (p, p, 3))
        score = poisoned(p, torch.float64)
        with self._session() as s:
            problem = self._input(s, logits, targets, layout, p, 1.0, ops.ALGORITHMS.index("tiled"))
            for name, tensor in {"place": place, "score": score, "index": index, "status": status}.items():
                s.register(tensor, name=name)
            workspace = self._workspace(s, problem)
            own = Tables(index.data_ptr(), score.data_ptr(), None, None, None, None, None)
            arguments = place.data_ptr(), status.data_ptr(), workspace.data_ptr(), STREAM
            self._check(self.library.dll.alrp_find_positives(problem, own, *arguments))
        return place, score, index, status

    def count_part(
        self,
        logits: Tensor,
        targets: Tensor,
        layout: Any,
        others: int,
        delta: float,
        algorithm: int,
        skew: float,
        want_error_gradient: bool,
        index: Tensor,
        score: Tensor,
        status: Tensor,
    ) -> tuple[Tensor, Tensor]:
        p = index.numel()
        with self._session() as s:
            problem = self._input(s, logits, targets, layout, p, delta, algorithm, skew, others)
            device = self._device_size(problem)
            tables = poisoned(device + (4 if want_error_gradient else 3) * p + 1, torch.float64)
            tables[device : device + p] = score
            size = ctypes.c_int64()
            self._check(self.library.dll.alrp_part_size(problem, size))
            is_sorted = algorithm == ops.ALGORITHMS.index("sorted") and p > 0
            part = poisoned(size.value, torch.int64 if is_sorted else torch.float64)
            s.register(index, writable=False, name="index")
            for name, tensor in {"tables": tables, "part": part, "status": status}.items():
                s.register(tensor, name=name)
            workspace = self._workspace(s, problem)
            arguments = status.data_ptr(), part.data_ptr(), workspace.data_ptr(), STREAM
            self._check(self.library.dll.alrp_count_part(problem, Tables.of(index, tables, device), *arguments))
        return tables, part

    def forward_from_parts(
        self,
        logits: Tensor,
        targets: Tensor,
        layout: Any,
        others: int,
        loss: int,
        values: Tensor | None,
        delta: float,
        eps: float,
        algorithm: int,
        place: Tensor,
        index: Tensor,
        tables: Tensor,
        sum: Tensor,
        status: Tensor,
    ) -> tuple[Tensor, ...]:
        p = index.numel()
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        outputs = [poisoned(size, dtype) for size in ((), (), p, p)]
        with self._session() as s:
            problem = self._input(s, logits, targets, layout, p, delta, algorithm, 1.0, others)
            for name, tensor in zip(("cls", "loc", "rank", "precision"), outputs, strict=True):
                s.register(tensor, name=name)
            for name, tensor in {"tables": tables, "status": status}.items():
                s.register(tensor, name=name)
            for name, tensor in {"place": place, "index": index, "sum": sum, "values": values}.items():
                if tensor is not None:
                    s.register(tensor, writable=False, name=name)
            workspace = self._workspace(s, problem)
            own = Tables.of(index, tables, self._device_size(problem))
            output = Output(DTYPES.index(dtype), *(t.data_ptr() for t in outputs), own, status.data_ptr())
            spec = Spec(loss, eps, *(Array.of(v) for v in ((None, values) if layout.continuous else (values, None))))
            arguments = place.data_ptr(), sum.data_ptr(), output, workspace.data_ptr(), STREAM
            self._check(self.library.dll.alrp_forward_from_parts(problem, spec, *arguments))
        return tuple(outputs)

    def sums_from_parts(
        self,
        logits: Tensor,
        targets: Tensor,
        layout: Any,
        others: int,
        delta: float,
        algorithm: int,
        skew: float,
        place: Tensor,
        index: Tensor,
        tables: Tensor,
        sum: Tensor,
        status: Tensor,
    ) -> tuple[Tensor, ...]:
        p = index.numel()
        rank_pos, n_fp, unused = (poisoned(size, torch.float64) for size in (p, p, 2 * p + 2))
        with self._session() as s:
            problem = self._input(s, logits, targets, layout, p, delta, algorithm, skew, others)
            written = {"rank_pos": rank_pos, "n_fp": n_fp, "tables": tables, "status": status, "unused": unused}
            for name, tensor in written.items():
                s.register(tensor, name=name)
            for name, tensor in {"place": place, "index": index, "sum": sum}.items():
                s.register(tensor, writable=False, name=name)
            spare = [unused.data_ptr() + 8 * offset for offset in (0, 1, 2, 2 + p)]
            tables_of = Tables.of(index, tables, self._device_size(problem))
            output = Output(DTYPES.index(torch.float64), *spare, tables_of, status.data_ptr())
            own = Sums(place.data_ptr(), rank_pos.data_ptr(), n_fp.data_ptr(), None)
            self._check(self.library.dll.alrp_sums_from_parts(problem, own, sum.data_ptr(), output, STREAM))
        return rank_pos, n_fp, n_fp if skew == 1 else sum[p : 2 * p].clone()

    def forward_slices(
        self,
        logits: Tensor,
        targets: Tensor,
        layout: Any,
        sizes: list[int],
        counts: list[int],
        algorithms: list[int],
        loss: int,
        loc_errors: Tensor | None,
        want_error_gradient: bool,
        delta: float,
        eps: float,
    ) -> tuple[Any, ...]:
        results = []
        for own, labels, (begin, end), algorithm in slices(logits, targets, sizes, counts, algorithms):
            errors = None if loc_errors is None else loc_errors[begin:end]
            count = end - begin
            results.append(self.forward(own, labels, layout, count, loss, errors, want_error_gradient, delta, eps, algorithm))
        columns = list(zip(*results, strict=True)) or [[torch.empty(0)]] * 7
        values = torch.float64 if logits.dtype == torch.float64 else torch.float32
        cls, loc, rank, precision = (torch.cat([t.reshape(-1) for t in c]).to(values) for c in columns[:4])
        return cls, loc, rank, precision, torch.cat(list(columns[4])).to(torch.int64), list(columns[5])

    def backward_slices(
        self,
        logits: Tensor,
        targets: Tensor,
        layout: Any,
        sizes: list[int],
        counts: list[int],
        algorithms: list[int],
        delta: float,
        index: Tensor,
        tables: list[Tensor],
        grad_cls: Tensor | None,
        grad_loc: Tensor | None,
        loc_errors_dtype: torch.dtype,
    ) -> tuple[Tensor | None, Tensor | None]:
        grad_logits, grad_errors = [torch.empty(0, dtype=logits.dtype)], [torch.empty(0, dtype=loc_errors_dtype)]
        each = slices(logits, targets, sizes, counts, algorithms)
        for s, (own, labels, (begin, end), algorithm) in enumerate(each):
            incoming = (None if g is None else g[s].clone() for g in (grad_cls, grad_loc))
            chosen = delta, algorithm, index[begin:end].clone(), tables[s]
            one, two = self.backward(own, labels, layout, *chosen, *incoming, loc_errors_dtype)
            grad_logits += [] if one is None else [one]
            grad_errors += [] if two is None else [two]
        return (
            None if grad_cls is None else torch.cat(grad_logits).reshape(logits.shape),
            None if grad_loc is None or layout.continuous else torch.cat(grad_errors),
        )

    def count_slices(self, logits: Tensor, targets: Tensor, layout: Any, sizes: list[int]) -> Tensor:
        each = slices(logits, targets, sizes, [0] * len(sizes), [0] * len(sizes))
        return torch.stack([self.count_positives(own, labels, layout) for own, labels, *_ in each])

    def count_positives(self, logits: Tensor, targets: Tensor, layout: Any) -> Tensor:
        status = poisoned(3, torch.int64)
        with self._session() as s:
            problem = self._input(s, logits, targets, layout, 0, 1.0, 0)
            s.register(status, name="status")
            workspace = self._workspace(s, problem)
            self._check(self.library.dll.alrp_count_positives(problem, status.data_ptr(), workspace.data_ptr(), STREAM))
        return status


def register(name: str, kernels: EmulatedKernels) -> None:
    """Make ``backend=name`` run on the emulated device, with CPU tensors."""
    ops.register_backend(name, ops.Backend(kernels, "cpu", is_asynchronous=True))


@contextmanager
def registered(kernels: EmulatedKernels, name: str = "emulated otherwise") -> Iterator[str]:
    """A backend for some calls, under a name that is free again afterwards."""
    register(name, kernels)
    try:
        yield name
    finally:
        del ops._backends[name]
