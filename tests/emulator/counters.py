"""What a launch did."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass
class Counters:
    """Of one launch, of all launches of a kernel, or of a session.

    Warp-instructions: lanes execute an instruction together if they reach it in the same iteration of every
    loop around it. Divergent are those which not all threads of the warp take part in.
    Sectors: 32 bytes of global memory, counted once for each warp-instruction that touches them. With 4 bytes
    a lane, 4 sectors for each 128 bytes are coalesced, 32 are not.
    Contention: the most atomics on one address, of one warp-instruction, of one launch (global memory), or of
    one block (shared memory).
    Replays: how many more times warp-instructions asked shared memory than without lanes that met in one of its
    32 banks: of reads and writes those of different words, of atomics all.
    Chains: what cannot be done at once. Of each kind, the most that one warp of a block does between two barriers, summed over
    the block; of the blocks of a launch the most, and the sum over launches, which follow one another. Waits are for loads:
    see translate/waits.py.
    The counters of warps are 0 where the schedule has count_warps=False.
    """

    launches: int = 0
    blocks: int = 0
    thread_instructions: int = 0
    warp_instructions: int = 0
    divergent_warp_instructions: int = 0
    global_bytes_read: int = 0
    global_bytes_written: int = 0
    global_sectors_read: int = 0
    global_sectors_written: int = 0
    global_sectors_atomic: int = 0
    global_atomics: int = 0
    shared_atomics: int = 0
    global_atomic_warp_contention: int = 0
    global_atomic_launch_contention: int = 0
    shared_atomic_warp_contention: int = 0
    shared_atomic_block_contention: int = 0
    shared_accesses: int = 0
    shared_replays: int = 0
    barriers: int = 0
    warp_collectives: int = 0
    resident_blocks: int = 0
    chain_instructions: int = 0
    chain_global_waits: int = 0
    chain_shared_waits: int = 0
    chain_barriers: int = 0
    # Calls of the runtime library; only in the counters of a session as a whole.
    host_syncs: int = 0
    copies: int = 0
    copied_bytes: int = 0
    memsets: int = 0
    memset_bytes: int = 0
    allocations: int = 0
    queries: int = 0  # of attributes of the device and of kernels, and of occupancy
    limits_set: int = 0  # on what kernels may take

    def add(self, other: Counters) -> None:
        """Sums; of contention and residency the greatest."""
        for field in fields(self):
            a, b = getattr(self, field.name), getattr(other, field.name)
            setattr(self, field.name, max(a, b) if field.name in _GREATEST else a + b)


_GREATEST = frozenset(f.name for f in fields(Counters) if f.name.endswith("_contention") or f.name == "resident_blocks")
