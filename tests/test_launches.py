"""The launches of csrc/cuda at sizes that no emulator runs through: their grids, and what lies beyond 2^31 elements."""

import ctypes
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from emulated import SOURCES, EmulatedKernels, library
from emulated.structures import Array, Gradients, Input, Labels, Output, Spec, Tables
from emulator import EmulatorError, Module, Schedule, missing_requirement
from mutations import Mutation
from torch import Tensor

from alrp_cuda import _C

pytestmark = pytest.mark.skipif(bool(missing_requirement()), reason=f"emulated device: {missing_requirement()}")

THREADS = 256
GREATEST_GRID = 2**31 - 1
SCHEDULE = Schedule(races="shared", count_warps=False)
NOWHERE = 1 << 40  # an address that nobody may touch


# ---- shapes


@pytest.fixture
def sources() -> tuple[Path, ...]:
    """What the tests run; test_kernel_mutations.py calls them with others."""
    return SOURCES


def shapes(n: int, p: int, sources: tuple[Path, ...] = SOURCES) -> dict[str, tuple[int, int, int]]:
    """The grids of our own kernels in both passes of the smooth aLRP Loss; none of their blocks runs."""
    lib = library(sources=sources)
    status, workspace_bytes = torch.zeros(3, dtype=torch.int64), ctypes.c_size_t()
    array, tables = Array(NOWHERE, 0), Tables(*[NOWHERE] * 6)
    labels = Labels(NOWHERE, 1, 1, 1)
    problem = Input(array, n, labels, p, 1.0, 0, 1.0)
    with lib.session(SCHEDULE, only_blocks={".": ()}) as s:
        s.register(status)
        problems = [lib.dll.alrp_workspace_bytes(problem, workspace_bytes)]
        workspace = memory(workspace_bytes.value, torch.uint8)  # CUB's sort clears a part of it
        s.register(workspace)
        output = Output(0, NOWHERE, NOWHERE, NOWHERE, NOWHERE, tables, status.data_ptr())
        gradients = Gradients(array, NOWHERE, array, NOWHERE)
        problems.append(lib.dll.alrp_forward(problem, Spec(0, 1e-5, array), output, workspace.data_ptr(), 1))
        problems.append(lib.dll.alrp_backward(problem, tables, gradients, 1))
    for problem in filter(None, problems):
        raise RuntimeError(problem.decode())
    return {name.rsplit("::", 1)[-1].partition("<")[0]: g.grid for name, g in s.launches if name.startswith("alrp::")}


def memory(size: int, dtype: torch.dtype) -> Tensor:
    """Zeros that take memory only where they are touched."""
    storage = np.zeros(size * dtype.itemsize, np.uint8)
    return torch.from_numpy(storage).view(dtype)


LENGTHS = [1, 255, 256, 257, 8191, 8192, 8193, 2**31 - 1, 2**31 + 5, 2**32 + 1, 2**35, GREATEST_GRID * THREADS]


@pytest.mark.parametrize(("n", "p"), [(n, p) for n in LENGTHS for p in (0, 1, 256, 257, 4097, 2**20 + 1, 2**24) if p <= n])
def test_every_element_has_a_thread(n, p):
    grids = shapes(n, p)
    tiles = -(-p // THREADS)
    assert grids["spread_tiled"] == (-(-n // THREADS), 1, 1)
    x, parts, z = grids["count_tiled"]
    assert (x, z) == (max(1, tiles), 1)
    assert parts <= 65535
    assert parts * p * 8 <= max(8 << 20, 64 * p)  # partial sums stay small beside the logits
    for kernel in ("make_keys", "unpack_keys", "sum_parts", "sum_pairs", "spread_errors", "scatter_gradients"):
        assert grids.get(kernel) == ((tiles, 1, 1) if p else None), kernel
    assert grids["terms_kernel"] == (1, 1, 1)


@pytest.mark.parametrize("n", [GREATEST_GRID * THREADS + 1, 2**40, 2**40 + THREADS])
def test_more_than_a_grid_holds_is_refused(sources, n):
    with pytest.raises(RuntimeError, match=f"{n} elements are more than a grid holds"):
        shapes(n, 1, sources)


# ---- beyond 2^31 elements

FAR = 2**31
N = FAR + 1000
DELTA = 1.0
LABELS = [torch.int8, torch.uint16, torch.float32, torch.int64]


def step(x: Tensor) -> Tensor:
    return (x.double() / (2 * DELTA) + 0.5).clamp(0, 1)


def layout(classes: int = 0, background: int = 0) -> _C.TargetLayout:
    return _C.TargetLayout(classes, background)


def far_scores(dtype: torch.dtype) -> Tensor:
    logits = memory(N, dtype)
    logits[FAR:] = torch.linspace(-2, 2, N - FAR)
    return logits


@pytest.mark.parametrize(
    ("dtype", "targets_dtype", "classes"),
    [(torch.float16, dtype, 0) for dtype in LABELS] + [(torch.bfloat16, torch.int32, 8), (torch.float64, torch.int8, 0)],
    ids=str,
)
def test_gradients_beyond_two_to_the_31(sources, dtype, targets_dtype, classes):
    logits = far_scores(dtype)
    targets = memory(N // max(1, classes), targets_dtype)  # all negative, but for
    where = FAR + 5
    if classes:
        targets[:100] = targets[FAR // classes :] = classes
        targets[FAR // classes] = 5
    else:
        targets[where] = 1
    index, share, gradient, poison = torch.tensor([where]), 0.25, -0.75, 0.0
    tables = torch.tensor([0.1, share, gradient, poison], dtype=torch.float64)
    first, last = FAR // THREADS, (N - 1) // THREADS
    kernels = EmulatedKernels(schedule=SCHEDULE, sources=sources, only_blocks={"spread_tiled": [0, first, first + 1, last]})
    grad = memory(N, dtype)
    problem = _C.Problem(logits, targets, layout(classes, classes), DELTA, 0)
    kernels.backward(problem, index, tables, torch.tensor(2.0), None, grad, None)
    want = 2 * share * step(logits[FAR:].double() - 0.1)
    want[where - FAR] = 2 * gradient
    want = want.to(dtype)
    for part in (slice(0, 2 * THREADS), slice(THREADS * last - FAR, N - FAR)):
        assert torch.equal(grad[FAR:][part], want[part])
    assert torch.equal(grad[:THREADS], torch.full((THREADS,), 2 * share * 0.45, dtype=dtype))


def count_tiled(sources: tuple[Path, ...]) -> tuple[Module, str]:
    for module in library(sources=sources).modules.values():
        for kernel in module.kernels:
            if "count_tiledILb0E" in kernel:  # without a skew
                return module, kernel
    raise AssertionError("csrc/cuda has no kernel count_tiled")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("targets_dtype", LABELS, ids=str)
def test_count_beyond_two_to_the_31(sources, dtype, targets_dtype):
    # The kernel alone: the parts of the launch code are so large that one of them takes too long.
    logits, targets = far_scores(dtype), memory(N, targets_dtype)
    targets[FAR + 5] = 1
    scores = torch.tensor([0.1, 0.3], dtype=torch.float64)
    part_size, part = 1 << 23, FAR >> 23
    partial, status = torch.full((part + 1, 2), -1.0, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    module, kernel = count_tiled(sources)

    def launch():
        labels = Labels.of(targets, (0, 0))
        arguments = [bytes(Array.of(logits)), bytes(labels), N, scores, 2, np.array([DELTA, 0.5 / DELTA]).tobytes()]
        arguments += [1.0, part_size, partial, status]
        module.launch(kernel, (1, part + 1), THREADS, arguments, schedule=SCHEDULE, extra=[logits, targets], blocks=[part])

    launch()
    negatives = torch.cat((logits[FAR : FAR + 5], logits[FAR + 6 :])).double()
    want = torch.stack([step(negatives - s).sum() for s in scores])
    assert torch.allclose(partial[part], want, rtol=1e-12)
    assert (partial[:part] == -1).all()
    assert not status.any()
    logits[FAR + 6] = float("nan")
    launch()
    assert status.tolist() == [0, 0, 1]


def test_positives_beyond_two_to_the_31(sources):
    # Rows of 2^20 classes: few labels to search, and flat indices as far as one likes.
    classes, rows = 1 << 20, 2**11 + 1
    logits = memory(rows * classes, torch.float16).view(rows, classes)
    logits[0, 7], logits[-1, 5], logits[-1, 4] = 0.25, -1.5, 9.0
    targets = torch.full((rows,), classes, dtype=torch.int32)
    targets[0], targets[-1] = 7, 5
    kernels = EmulatedKernels(schedule=SCHEDULE, sources=sources, only_blocks={"count_tiled": ()})
    problem = _C.Problem(logits, targets, layout(classes, classes), DELTA, 0)
    *_, index, tables, status = kernels.forward(problem, 2, 2, None, False, 1e-5)
    assert index.tolist() == [FAR + 5, 7]
    assert tables[:2].tolist() == [-1.5, 0.25]
    assert status.tolist() == [2, 0, 0]


def test_scores_ascend_where_fewer_positives_are_found_than_told(sources):
    logits, targets = torch.tensor([3.0, -1.0, 2.0]), torch.tensor([1, 0, 1])
    kernels = EmulatedKernels(schedule=SCHEDULE, sources=sources)
    *_, index, tables, status = kernels.forward(_C.Problem(logits, targets, layout(), DELTA, 1), 4, 2, None, False, 1e-5)
    score = tables[-1 - 3 * 4 :][:4]
    assert status.tolist() == [2, 0, 0]
    assert index.tolist() == [2, 0, -1, -1]
    assert score.tolist() == [2, 3, math.inf, math.inf]


def test_labels_beyond_two_to_the_31_are_refused_where_cub_counts_in_32_bits():
    mutation = Mutation("cuda/positives.cu", "CCCL_VERSION >= 2008000", "false")
    with pytest.raises(RuntimeError, match=f"{FAR} labels take a build with CUDA 12.9 or newer"):
        shapes(FAR, 1, mutation.sources())


def test_beyond_the_end_is_noticed():
    """The control of the tests above: memory of so many elements has exact bounds too."""
    logits, targets = far_scores(torch.float16), memory(N, torch.int8)
    kernels = EmulatedKernels(schedule=SCHEDULE, only_blocks={"spread_tiled": [FAR // THREADS]})
    tables = torch.zeros(4, dtype=torch.float64)
    problem = _C.Problem(logits, targets[: FAR + 5], layout(), DELTA, 0)
    with pytest.raises(EmulatorError, match=r"out-of-bounds read of 1 bytes .* past the end of 'targets"):
        kernels.backward(problem, torch.tensor([3]), tables, torch.tensor(1.0), None, memory(N, torch.float16), None)
