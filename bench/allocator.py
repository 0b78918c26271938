"""The state in which training has malloc from its first step on."""

import torch

# glibc: what is smaller is kept when it is freed, once a chunk of about this size was; what is larger never is.
LARGEST_KEPT_BYTES = 31 << 20


def warm_up() -> None:
    """Let every case find the CPU's allocator alike.

    glibc's malloc takes chunks from 128 KiB on from the system and returns them when they are freed, so that each
    use costs page faults, until a freed one raises that size to its own: to 32 MiB at most. A model's activations
    and gradients do so before the first loss is computed; in a benchmark the first case alone would pay.
    """
    for _ in range(2):  # the second lies in memory that is kept from now on
        torch.ones(LARGEST_KEPT_BYTES, dtype=torch.uint8)
