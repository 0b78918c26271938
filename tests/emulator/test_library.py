"""Host code with launches: memory, errors, streams and targets."""

# ruff: noqa: PT012, SIM117 - leaving the session is what raises
from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch

from . import EmulatorError, Geometry, Library, Schedule, Session
from .conftest import KERNELS

SUCCESS, INVALID_VALUE, INVALID_CONFIGURATION, LAUNCH_FAILURE = 0, 1, 9, 719


@pytest.fixture(scope="module", params=["compute_80", pytest.param("compute_90", marks=pytest.mark.full)])
def library(request: pytest.FixtureRequest) -> Library:
    return Library.build([KERNELS / "host.cu"], target=request.param)


def pointer(x: torch.Tensor | np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr() if isinstance(x, torch.Tensor) else x.ctypes.data)


def add_offset(s: Session, x: torch.Tensor, y: torch.Tensor, n: int) -> int:
    return s.library.dll.add_offset_float(pointer(x), pointer(y), n, None)


def test_every_kernel_can_be_translated(library: Library) -> None:
    assert library.check_all() == {}


def test_kernel_works_on_tensors(library: Library) -> None:
    x, y = torch.arange(1000.0), torch.zeros(1000)
    with library.session(Schedule(order="random", races="all")) as s:
        s.register(x, writable=False, name="x")
        s.register(y, name="y")
        assert add_offset(s, x, y, 1000) == SUCCESS
    assert torch.equal(y, 2 * x + 3)
    assert list(s.kernel_counters) == ["(anonymous namespace)::add_offset<float>"]
    assert s.counters.launches == 1
    assert s.counters.host_syncs == 0


@pytest.mark.parametrize(("device", "multiprocessors"), [(0, 4), (1, 132)])
def test_a_session_has_one_of_two_devices(library: Library, device: int, multiprocessors: int) -> None:
    with library.session(device=device):
        assert library.dll.multiprocessors() == multiprocessors


def test_kernel_works_on_arrays(library: Library) -> None:
    x, y = np.arange(10.0), np.zeros(10)
    with library.session() as s:
        s.register(x)
        s.register(y)
        assert library.dll.add_offset_double(pointer(x), pointer(y), 10, None) == SUCCESS
    assert (y == 2 * x + 3).all()


@pytest.mark.parametrize("short", ["x", "y"])
def test_one_element_past_a_tensor_is_reported(library: Library, short: str) -> None:
    """Also within larger storage: the bounds are those of the registered tensor."""
    x, y = torch.zeros(200), torch.zeros(200)
    with pytest.raises(EmulatorError, match=f"0 bytes past the end of '{short}: float32\\[100\\]'") as error:
        with library.session() as s:
            s.register(x[:100] if short == "x" else x, name="x")
            s.register(y[:100] if short == "y" else y, name="y")
            assert add_offset(s, x, y, 101) == LAUNCH_FAILURE
    assert "add_offset<float>" in str(error.value)
    assert "thread (100, 0, 0)" in str(error.value)
    assert ("read" if short == "x" else "write") in str(error.value)


def test_one_byte_before_or_after_is_reported(library: Library) -> None:
    buffer = torch.zeros(64, dtype=torch.uint8)
    y = torch.zeros(4)
    for start, stop in ((1, 16), (0, 15)):
        with pytest.raises(EmulatorError, match="out-of-bounds read of 4 bytes"):
            with library.session() as s:
                s.register(buffer[start:stop], name="x")
                s.register(y, name="y")
                library.dll.add_offset_float(pointer(buffer), pointer(y), 4, None)


def test_writing_a_read_only_tensor_is_reported(library: Library) -> None:
    x, y = torch.zeros(10), torch.zeros(10)
    with pytest.raises(EmulatorError, match="'y: float32\\[10\\]', which is read-only"):
        with library.session() as s:
            s.register(x)
            s.register(y, writable=False, name="y")
            add_offset(s, x, y, 10)


def test_unregistered_memory_is_out_of_bounds(library: Library) -> None:
    x, y = torch.zeros(10), torch.zeros(10)
    with pytest.raises(EmulatorError, match="out-of-bounds write"), library.session() as s:
        s.register(x)
        add_offset(s, x, y, 10)


def test_a_failure_sticks_until_the_session_ends(library: Library) -> None:
    x, y = torch.zeros(10), torch.zeros(10)
    with pytest.raises(EmulatorError), library.session() as s:
        s.register(x)
        s.register(y)
        assert add_offset(s, x, y, 11) == LAUNCH_FAILURE
        assert add_offset(s, x, y, 10) == LAUNCH_FAILURE
    assert s.counters.launches == 1
    with library.session() as s:
        s.register(x)
        s.register(y)
        assert add_offset(s, x, y, 10) == SUCCESS


def test_only_chosen_blocks_run(library: Library) -> None:
    for order in ("forward", "reverse", "random"):
        x, y = torch.arange(1000.0), torch.zeros(1000)
        with library.session(Schedule(order=order, resident=2), only_blocks={"add_offset": [7, 2]}) as s:
            s.register(x)
            s.register(y)
            assert add_offset(s, x, y, 1000) == SUCCESS
        ran = torch.arange(1000) // 128
        assert torch.equal(y, torch.where((ran == 2) | (ran == 7), 2 * x + 3, 0))


def test_a_block_outside_the_grid_cannot_be_chosen(library: Library) -> None:
    x = torch.zeros(10)
    with pytest.raises(EmulatorError, match=r"blocks \[0, 1\] of a grid \(1, 1, 1\)"):
        with library.session(only_blocks={"add_offset<float>": [0, 1]}) as s:
            s.register(x)
            assert add_offset(s, x, x, 10) == LAUNCH_FAILURE


def test_shapes_of_launches_are_known_without_running_them(library: Library) -> None:
    nowhere = ctypes.c_void_p(1 << 40)
    with library.session(only_blocks={".": ()}) as s:
        assert library.dll.add_offset_float(nowhere, nowhere, 2**31 - 200, None) == SUCCESS
    assert s.launches == [("(anonymous namespace)::add_offset<float>", Geometry((2**24 - 1, 1, 1), (128, 1, 1)))]
    assert s.counters.launches == 0


def test_streams_are_told(library: Library) -> None:
    x, y, stream = torch.zeros(10), torch.zeros(10), 0x1230
    with library.session() as s:
        s.register(x)
        s.register(y)
        library.dll.add_offset_float(pointer(x), pointer(y), 10, ctypes.c_void_p(stream))
    assert s.streams == {stream}
    with library.session() as s:
        s.register(x)
        library.dll.round_trip(pointer(x), pointer(y), 10, ctypes.c_void_p(stream))
    assert s.streams == {0, stream}  # cudaMemcpy runs on the default stream


def test_launch_without_a_session_fails(library: Library) -> None:
    x = torch.zeros(10)
    assert library.dll.add_offset_float(pointer(x), pointer(x), 10, None) == 3  # cudaErrorInitializationError


def test_block_too_large_is_reported(library: Library) -> None:
    with pytest.raises(EmulatorError, match="at most 1024 threads"), library.session():
        assert library.dll.launch_too_large() == INVALID_CONFIGURATION


def test_large_dynamic_shared_memory_must_be_asked_for(library: Library) -> None:
    x = torch.arange(20_000, dtype=torch.int32)
    expected = x.flip(0)
    with pytest.raises(EmulatorError, match="80000 bytes of dynamic shared memory, 49152 are allowed"):
        with library.session() as s:
            s.register(x)
            assert library.dll.reverse_numbers(pointer(x), 20_000, False) == INVALID_VALUE
    with library.session(Schedule(races="shared")) as s:
        s.register(x)
        assert library.dll.reverse_numbers(pointer(x), 20_000, True) == SUCCESS
        assert library.dll.reverse_numbers(pointer(x), 100_000, True) == INVALID_VALUE  # more than any device has
    assert torch.equal(x, expected)


def test_calls_that_synchronise_the_host_are_counted(library: Library) -> None:
    x, y = torch.ones(500), torch.zeros(500)
    with library.session() as s:
        s.register(x)
        assert library.dll.round_trip(pointer(x), pointer(y), 500, None) == SUCCESS
    assert torch.equal(y, torch.full((500,), 5.0))
    c = s.counters
    assert (c.host_syncs, c.copies, c.copied_bytes, c.memsets, c.memset_bytes, c.allocations) == (
        3, 1, 2000, 1, 2000, 1,
    )  # fmt: skip


def test_device_variable_is_the_librarys_own() -> None:
    """Two targets in one process: each has its own variables, kernels and capability."""
    libraries = [Library.build([KERNELS / "host.cu"], target=t) for t in ("compute_75", "compute_80")]
    x, y = torch.zeros(1), torch.zeros(1)
    seen = []
    with libraries[0].session():
        assert libraries[0].dll.set_offset(7) == SUCCESS
    for library in libraries:
        with library.session() as s:
            s.register(x)
            s.register(y)
            assert add_offset(s, x, y, 1) == SUCCESS
            seen.append((library.dll.capability(), y.item()))
    with libraries[0].session():
        libraries[0].dll.set_offset(3)
    assert seen == [(75, 7.0), (80, 3.0)]


def test_building_again_gives_the_same_library(library: Library) -> None:
    assert Library.build([KERNELS / "host.cu"], target=library.target) is library


def test_sources_of_the_host_are_linked_too() -> None:
    library = Library.build([KERNELS / "host.cu", KERNELS / "host_only.cpp"])
    with library.session() as s:
        assert library.dll.synchronize(None) == SUCCESS
    assert s.counters.host_syncs == 2


def test_unsupported_instruction_is_named_when_its_kernel_is_launched(tmp_path: Path) -> None:
    source = tmp_path / "tensor_core.cu"
    source.write_text(
        """
        __global__ void supported(int* x) { *x = 1; }
        __global__ void unsupported(int* x) { asm volatile("vadd.s32.s32.s32 %0, %0, %0;" : "+r"(*x)); }
        extern "C" int run(int* x, bool wrong) {
          if (wrong) unsupported<<<1, 1>>>(x);
          else supported<<<1, 1>>>(x);
          return cudaGetLastError();
        }
        """
    )
    library = Library.build([source])
    assert list(library.check_all()) == ["unsupported"]
    x = torch.zeros(1, dtype=torch.int32)
    with library.session() as s:
        s.register(x)
        assert library.dll.run(pointer(x), False) == SUCCESS
    assert x.item() == 1
    with pytest.raises(EmulatorError, match=r"unsupported: .*line \d+: `vadd.s32.s32.s32"):
        with library.session() as s:
            s.register(x)
            assert library.dll.run(pointer(x), True) == LAUNCH_FAILURE


def test_known_warnings_can_be_ignored(tmp_path: Path) -> None:
    source = tmp_path / "uninitialised.cu"
    source.write_text(
        """
        __global__ void copy(int* x) { __shared__ volatile int s[32]; x[threadIdx.x] = s[threadIdx.x]; }
        extern "C" void run(int* x) { copy<<<1, 32>>>(x); }
        """
    )
    library = Library.build([source])
    x = torch.zeros(32, dtype=torch.int32)
    with pytest.raises(EmulatorError, match="copy: uninitialised shared memory"):
        with library.session(Schedule(races="shared")) as s:
            s.register(x)
            library.dll.run(pointer(x))
    with library.session(Schedule(races="shared"), ignore=["^copy: uninitialised"]) as s:
        s.register(x)
        library.dll.run(pointer(x))
    assert (x != 0).all(), "shared memory starts with garbage"


def test_missing_source_is_named() -> None:
    with pytest.raises(EmulatorError, match=r"no such source file: .*absent\.cu"):
        Library.build([KERNELS / "absent.cu"])


def test_error_of_the_compiler_is_shown(tmp_path: Path) -> None:
    source = tmp_path / "wrong.cu"
    source.write_text("__global__ void k() { undeclared = 1; }")
    with pytest.raises(EmulatorError, match="undeclared"):
        Library.build([source])


def test_changed_header_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "value.h").write_text("#define VALUE 1")
    source = tmp_path / "source.cu"
    source.write_text('#include "value.h"\nextern "C" int value() { return VALUE; }')
    assert Library.build([source]).dll.value() == 1
    (tmp_path / "value.h").write_text("#define VALUE 2")
    assert Library.build([source]).dll.value() == 2


def test_noncontiguous_tensor_is_refused(library: Library) -> None:
    with library.session() as s, pytest.raises(EmulatorError, match="expected a contiguous tensor"):
        s.register(torch.zeros(4, 4).t())
