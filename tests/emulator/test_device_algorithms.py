"""CUB's device-wide algorithms: workspace queries, decoupled look-back, tiles of several sizes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
import torch

from . import Library, Schedule, Session
from .conftest import KERNELS

pytestmark = pytest.mark.full

TARGETS = ("compute_75", "compute_80", "compute_90")
# Look-back waits for blocks that start earlier, so an order of blocks that is not the device's is a test too.
SCHEDULES = (
    Schedule(races="shared"),
    Schedule(order="reverse", races="shared"),
    Schedule(order="random", seed=3, resident=3),
)
# SerialMerge reads one key past the tile and does not use it.
KNOWN = (r"DeviceMergeSort.*uninitialised shared memory",)

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.order)


@pytest.fixture(scope="module", params=TARGETS)
def library(request: pytest.FixtureRequest) -> Library:
    return Library.build([KERNELS / "device_algorithms.cu"], target=request.param)


def pointer(x: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


def with_workspace(s: Session, function: Callable[..., int], *arguments: object) -> None:
    size = ctypes.c_size_t()
    assert function(None, ctypes.byref(size), *arguments) == 0
    workspace = torch.empty(size.value, dtype=torch.uint8)
    s.register(workspace, name="workspace")
    assert function(pointer(workspace), ctypes.byref(size), *arguments) == 0


@every_schedule
@pytest.mark.parametrize("n", [1, 1000, 20_000])
def test_select(library: Library, schedule: Schedule, n: int) -> None:
    torch.manual_seed(0)
    labels, scores = torch.randint(0, 3, (n,)), torch.randn(n)
    expected = (labels == 1).nonzero()[:, 0]
    found = torch.full((len(expected),), float("nan"))
    indices = torch.full((len(expected),), -1, dtype=torch.int64)
    count = torch.full((1,), -1, dtype=torch.int64)
    with library.session(schedule) as s:
        for x in (labels, scores):
            s.register(x, writable=False)
        for x in (found, indices, count):
            s.register(x)
        inputs = [pointer(x) for x in (labels, scores, found, indices, count)]
        with_workspace(s, library.dll.select_positives, *inputs, ctypes.c_int64(n), None)
    assert count.item() == len(expected)
    assert torch.equal(indices, expected)
    assert torch.equal(found, scores[expected])


@every_schedule
@pytest.mark.parametrize("n", [1, 500, 20_000])
def test_radix_sort(library: Library, schedule: Schedule, n: int) -> None:
    torch.manual_seed(0)
    keys = torch.randint(0, 2**40, (n,)) >> torch.randint(0, 39, (n,))
    values = torch.arange(n, dtype=torch.int32)
    sorted_keys, sorted_values = torch.zeros_like(keys), torch.zeros_like(values)
    with library.session(schedule) as s:
        for x in (keys, values, sorted_keys, sorted_values):
            s.register(x)
        arrays = [pointer(x) for x in (keys, sorted_keys, values, sorted_values)]
        with_workspace(s, library.dll.sort_pairs, *arrays, n, None)
    expected = torch.sort(keys, stable=True)
    assert torch.equal(sorted_keys, expected.values)
    assert torch.equal(sorted_values.long(), expected.indices)


@every_schedule
@pytest.mark.parametrize("n", [1, 20_000])
def test_scan(library: Library, schedule: Schedule, n: int) -> None:
    x = torch.arange(n, dtype=torch.float64)
    sums = torch.zeros(n, dtype=torch.float64)
    with library.session(schedule) as s:
        s.register(x, writable=False)
        s.register(sums)
        with_workspace(s, library.dll.scan, pointer(x), pointer(sums), n, None)
    assert torch.equal(sums, x.cumsum(0))


@every_schedule
def test_merge_sort(library: Library, schedule: Schedule) -> None:
    x = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    expected = x.sort().values
    with library.session(schedule, ignore=KNOWN) as s:
        s.register(x)
        with_workspace(s, library.dll.merge_sort, pointer(x), 5000, None)
    assert torch.equal(x, expected)
