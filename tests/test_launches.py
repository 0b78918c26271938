"""The launches of csrc/cuda at sizes that no emulator runs through: their grids, and what lies beyond 2^31 elements."""

import math
import mmap
import struct
from pathlib import Path

import pytest
import torch
from emulated import SOURCES, EmulatedDevice, empty_state, extension, state_views
from emulated.device import EmulatedCall
from emulator import Schedule, missing_requirement
from mutations import Mutation
from torch import Tensor

import alrp_cuda
from alrp_cuda import native

pytestmark = pytest.mark.skipif(bool(missing_requirement()), reason=f"emulated device: {missing_requirement()}")

THREADS = 256
GREATEST_GRID = 2**31 - 1
MAP_NORESERVE = 0x4000  # which Python 3.11 does not name
SCHEDULE = Schedule(races="shared", count_warps=False)
TILED, SORTED = 0, 1
ALRP, AP = 0, 2
DELTA = 1.0
FLAT = 0, 0, False, DELTA  # one label a logit


# ---- kernels


@pytest.mark.parametrize(("delta", "algorithm"), [(0.0, "tiled"), (1.0, "sorted")])
def test_auto_chooses_by_delta_on_the_emulated_device(delta, algorithm):
    """Bits do not tell: with delta = 0 counts are whole numbers in either form."""

    def kernels(algorithm):
        device = EmulatedDevice(schedule=SCHEDULE)
        with device:
            alrp_cuda.ap_loss(torch.randn(500), torch.arange(500) < 30, delta=delta, algorithm=algorithm)
        return {name for session in device.sessions for name in session.kernel_counters}

    assert kernels("auto") == kernels(algorithm)
    assert kernels("tiled") != kernels("sorted")


# ---- shapes


@pytest.fixture
def sources() -> tuple[Path, ...]:
    """What the tests run; test_kernel_mutations.py calls them with others."""
    return SOURCES


def shapes(n: int, p: int, sources: tuple[Path, ...] = SOURCES) -> dict[str, tuple[int, int, int]]:
    """The grids of our own kernels in both passes of the smooth aLRP Loss; none of their blocks runs."""
    device = EmulatedDevice(schedule=SCHEDULE, sources=sources, only_blocks={".": ()})
    logits, targets = (memory(n, dtype) for dtype in (torch.float16, torch.uint8))
    with device:
        loss = native.operators.ranking_loss
        cls, loc, _, state = loss([logits], [targets], memory(p, torch.float32), *FLAT, TILED, ALRP, 1e-5, None, [], [], True)
        backward = native.operators.ranking_gradients
        backward([logits], [targets], *FLAT, TILED, 1.0, [], [], p, state, True, cls, loc, torch.float32)
    launches = [launch for session in device.sessions for launch in session.launches]
    return {name.rsplit("::", 1)[-1].partition("<")[0]: g.grid for name, g in launches if name.startswith("alrp::")}


def memory(size: int, dtype: torch.dtype) -> Tensor:
    """Zeros that take memory only where they are touched."""
    if size == 0:
        return torch.zeros(0, dtype=dtype)
    mapped = mmap.mmap(-1, size * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    return torch.frombuffer(mapped, dtype=dtype)


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
LABELS = [torch.int8, torch.uint16, torch.float32, torch.int64]


def step(x: Tensor) -> Tensor:
    return (x.double() / (2 * DELTA) + 0.5).clamp(0, 1)


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
    share, gradient = 0.25, -0.75
    first, last = FAR // THREADS, (N - 1) // THREADS
    device = EmulatedDevice(schedule=SCHEDULE, sources=sources, only_blocks={"spread_tiled": [0, first, first + 1, last]})
    call = classes, classes, False, DELTA, TILED
    grad = backward(device, logits, targets, call, state_of(where, share, gradient))
    want = 2 * share * step(logits[FAR:].double() - 0.1)
    want[where - FAR] = 2 * gradient
    want = want.to(dtype)
    for part in (slice(0, 2 * THREADS), slice(THREADS * last - FAR, N - FAR)):
        assert torch.equal(grad[FAR:][part], want[part])
    assert torch.equal(grad[:THREADS], torch.full((THREADS,), 2 * share * 0.45, dtype=dtype))


def state_of(index: int, share: float, gradient: float) -> Tensor:
    """The state of a pass with one positive, whose score is 0.1."""
    state = empty_state(1)
    views = state_views(state, 1)
    views["index"][0], views["score"][0], views["share"][0], views["gradient"][0] = index, 0.1, share, gradient
    return state


def backward(device: EmulatedDevice, logits: Tensor, targets: Tensor, call: tuple, state: Tensor) -> Tensor:
    """The gradient of the logits for an incoming one of 2."""
    with device:
        gradients = native.operators.ranking_gradients
        two = torch.tensor(2.0)
        (grad,), _ = gradients([logits], [targets], *call, 1.0, [], [], 1, state, False, two, None, torch.float32)
    return grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("targets_dtype", LABELS, ids=str)
def test_count_beyond_two_to_the_31(sources, dtype, targets_dtype):
    # The kernel alone: the parts of the launch code are so large that one of them takes too long.
    logits, targets = far_scores(dtype), memory(N, targets_dtype)
    targets[FAR + 5] = 1
    scores = torch.tensor([0.1, 0.3], dtype=torch.float64)
    part_size, part = 1 << 23, FAR >> 23
    partial, status = torch.full((part + 1, 2), -1.0, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    device = EmulatedDevice(sources=sources)
    with device:
        called = extension().device.input_bytes(logits, targets, 2)
    positives = struct.pack("Qqdd", scores.data_ptr(), 2, DELTA, 0.5 / DELTA)  # csrc/cuda/pairs.cuh
    parts = struct.pack("qqQ", part + 1, part_size, partial.data_ptr())  # csrc/cuda/tiled.cu
    module, kernel = next(
        (m, k)
        for m in device.library.modules.values()
        for k in m.kernels
        if "count_tiledILb0E" in k  # without a skew
    )

    def launch():
        touched = [logits, targets, scores, partial]
        arguments = [called, positives, parts, status]
        module.launch(kernel, (1, part + 1), THREADS, arguments, schedule=SCHEDULE, extra=touched, blocks=[part])

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
    device = EmulatedDevice(schedule=SCHEDULE, sources=sources, only_blocks={"count_tiled": ()})
    left = forward(device, logits, targets, (classes, classes, False, DELTA, TILED), 2)
    assert left["index"].tolist() == [FAR + 5, 7]
    assert left["score"].tolist() == [-1.5, 0.25]
    assert left["status"][:3].tolist() == [2, 0, 0]  # found, invalid, nan


def forward(device: EmulatedDevice, logits: Tensor, targets: Tensor, call: tuple, p: int) -> dict[str, Tensor]:
    """What AP Loss leaves."""
    with device:
        *_, state = native.operators.ranking_loss([logits], [targets], None, *call, AP, 1e-5, p, [], [])
    return state_views(state, p)


def test_scores_ascend_where_fewer_positives_are_found_than_given(sources):
    logits, targets = torch.tensor([3.0, -1.0, 2.0]), torch.tensor([1, 0, 1])
    device = EmulatedDevice(schedule=SCHEDULE, sources=sources)
    left = forward(device, logits, targets, (*FLAT, SORTED), 4)
    assert left["status"][:3].tolist() == [2, 0, 0]  # found, invalid, nan
    assert left["index"].tolist() == [2, 0, -1, -1]
    assert left["score"].tolist() == [2, 3, math.inf, math.inf]


@pytest.mark.slow
def test_labels_beyond_two_to_the_31_are_refused_where_cub_counts_in_32_bits():
    mutation = Mutation("cuda/positives.cu", "CCCL_VERSION >= 2008000", "false")
    with pytest.raises(RuntimeError, match=f"{FAR} labels take a build with CUDA 12.9 or newer"):
        shapes(FAR, 1, mutation.sources())


def test_beyond_the_end_is_noticed(monkeypatch):
    """The control of the tests above: memory of so many elements has exact bounds too."""
    register = EmulatedCall.register

    def shortened(call, address, length, writable, name):
        register(call, address, FAR + 5 if name == "targets" else length, writable, name)

    logits, targets = far_scores(torch.float16), memory(N, torch.int8)
    device = EmulatedDevice(schedule=SCHEDULE, only_blocks={"spread_tiled": [FAR // THREADS]})
    monkeypatch.setattr(EmulatedCall, "register", shortened)
    with pytest.raises(RuntimeError, match=r"out-of-bounds read of 1 bytes .* past the end of 'targets"):
        backward(device, logits, targets, (*FLAT, TILED), state_of(3, 0.0, 0.0))
