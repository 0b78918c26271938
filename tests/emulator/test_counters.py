"""The counters say what a device would do: each against a kernel whose accesses are known."""

from __future__ import annotations

import numpy as np
import pytest

from . import Counters, Module
from .conftest import KERNELS


@pytest.fixture(scope="module")
def module() -> Module:
    return Module.from_cuda(KERNELS / "accesses.cu")


def counted(module: Module, kernel: str, grid: int, block: int, *arguments: object) -> Counters:
    return module.launch(kernel, grid, block, arguments).counters


@pytest.mark.parametrize(("stride", "sectors"), [(1, 4), (2, 8), (4, 16), (8, 32), (32, 32)])
def test_sectors_of_a_warp_show_coalescing(module: Module, stride: int, sectors: int) -> None:
    warps = 2 * 128 // 32
    x, y = np.ones(256 * stride, np.float32), np.zeros(256, np.float32)
    c = counted(module, "copy", 2, 128, x, y, stride)
    assert c.global_sectors_read == warps * sectors
    assert c.global_sectors_written == warps * 4
    assert (c.global_bytes_read, c.global_bytes_written) == (1024, 1024)


def test_wide_loads_use_whole_sectors(module: Module) -> None:
    x, y = np.ones(4 * 64 + 4, np.float32), np.zeros(4 * 64 + 4, np.float32)
    aligned = slice(-x.ctypes.data % 16 // 4, None)
    other = slice(-y.ctypes.data % 16 // 4, None)
    c = counted(module, "copy_wide", 1, 64, x[aligned], y[other])
    assert (c.global_bytes_read, c.global_sectors_read, c.global_sectors_written) == (1024, 32, 32)


@pytest.mark.parametrize("same", [1, 4, 32, 128])
def test_contention_of_global_atomics(module: Module, same: int) -> None:
    sums = np.zeros(256, np.uint32)
    c = counted(module, "add_global", 2, 128, sums, same)
    assert sums[: 256 // same].tolist() == [same] * (256 // same)
    assert c.global_atomics == 256
    assert c.global_atomic_warp_contention == min(same, 32)
    assert c.global_atomic_launch_contention == same


def test_contention_of_shared_atomics_is_counted_by_block(module: Module) -> None:
    c = counted(module, "add_shared", 3, 256, np.zeros(256, np.uint32), 64)
    assert c.shared_atomics == 3 * 256
    assert c.shared_atomic_warp_contention == 32
    assert c.shared_atomic_block_contention == 64
    assert c.global_atomic_launch_contention == 3
    assert c.barriers == 6


# Lanes that read one word meet nowhere; those that add to it follow one another. Of 16 bytes, eight lanes are served at once.
@pytest.mark.parametrize(("stride", "reads", "atomics"), [(0, 0, 31), (1, 0, 0), (2, 1, 1), (5, 0, 0), (8, 7, 7), (32, 31, 31)])
def test_replays_show_lanes_that_meet_in_a_bank(module: Module, stride: int, reads: int, atomics: int) -> None:
    assert counted(module, "meet_in_banks", 3, 64, np.zeros(64, np.float32), stride).shared_replays == 3 * 2 * (reads + atomics)


def test_lanes_meet_again_after_a_loop_of_different_lengths(module: Module) -> None:
    """The load after the inner loop is one warp-instruction a round, although lanes looped 1 to 32 times."""
    rounds = 5
    x, y = np.ones(32 * 32, np.float32), np.zeros(32, np.float32)
    c = counted(module, "triangle", 1, 32, x, y, rounds)
    # Iteration k of the inner loop reads lanes k..31 of row k: the sectors that they lie in.
    inner = sum(len({lane // 8 for lane in range(k, 32)}) for k in range(32))
    assert c.global_sectors_read == rounds * (inner + 4)
    assert 0 < c.divergent_warp_instructions < c.warp_instructions


@pytest.mark.parametrize(("bound", "diverges"), [(64, False), (32, False), (40, True), (1, True)])
def test_divergence_is_counted_where_a_warp_splits(module: Module, bound: int, diverges: bool) -> None:
    c = counted(module, "branch", 1, 64, np.zeros(64, np.float32), bound)
    assert (c.divergent_warp_instructions > 0) == diverges
    assert c.warp_instructions <= c.thread_instructions <= 32 * c.warp_instructions


def test_counters_do_not_depend_on_the_order_of_threads(module: Module) -> None:
    from . import Schedule

    def run(schedule: Schedule) -> Counters:
        x, y = np.ones(32 * 32, np.float32), np.zeros(32, np.float32)
        return module.launch("triangle", 1, 32, [x, y, 7], schedule=schedule).counters

    assert run(Schedule()) == run(Schedule(order="reverse")) == run(Schedule(order="random", seed=5))


@pytest.fixture(scope="module")
def chains() -> Module:
    return Module.from_cuda(KERNELS / "chains.cu")


def ring(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A chain of places that ends nowhere, and room for results."""
    return (np.arange(size, dtype=np.int32) + 7) % size, np.zeros(4 * size, np.int32)


def waits(chains: Module, kernel: str, *arguments: object, grid: int = 1, block: int = 64) -> tuple[int, int]:
    """For global and for shared memory"""
    c = counted(chains, kernel, grid, block, *ring(), *arguments)
    return c.chain_global_waits, c.chain_shared_waits


@pytest.mark.parametrize("steps", [1, 10, 100])
def test_loads_whose_addresses_are_loaded_make_a_chain(chains: Module, steps: int) -> None:
    assert waits(chains, "chase_global", steps) == (steps, 0)
    assert waits(chains, "chase_shared", steps) == (1, steps)
    assert waits(chains, "chase_either", steps, 1) == (1, steps)
    assert waits(chains, "chase_either", steps, 0) == (1 + steps, 0)


def test_loads_that_nothing_keeps_apart_are_waited_for_together(chains: Module) -> None:
    assert waits(chains, "four_at_once", 10) == (10, 0)
    assert waits(chains, "two_branches", 16) == (2, 0)
    assert waits(chains, "load_ahead", 10) == (11, 0)


def test_a_chain_is_that_of_the_longest_warp_between_barriers_and_of_the_longest_block(chains: Module) -> None:
    assert waits(chains, "two_phases", 5, 3) == (8, 0)
    one, many = (counted(chains, "chase_global", grid, 64, *ring(), 10) for grid in (1, 4))
    assert (one.chain_global_waits, one.chain_instructions) == (many.chain_global_waits, many.chain_instructions)
    assert many.warp_instructions == 8 * many.chain_instructions
    assert counted(chains, "two_phases", 1, 64, *ring(), 5, 3).chain_barriers == 1


def test_an_atomic_is_waited_for_where_its_old_value_is_used(chains: Module) -> None:
    assert [waits(chains, "add_in_turn", 10, use) for use in (1, 0)] == [(10, 0), (0, 0)]


def test_chains_of_launches_follow_one_another(chains: Module) -> None:
    both = Counters()
    for steps in (3, 5):
        both.add(counted(chains, "chase_global", 1, 64, *ring(), steps))
    assert both.chain_global_waits == 8


def test_shared_accesses_are_counted_by_warp(chains: Module) -> None:
    c = counted(chains, "chase_shared", 1, 64, *ring(), 10)
    assert c.shared_accesses == 2 * (1 + 10)
