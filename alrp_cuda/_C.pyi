from collections.abc import Sequence

import torch
from torch import Tensor

library: str  # the name of the operators' torch.library
built_backends: tuple[str, ...]
cuda_architectures: str
cpu_capability: str  # default, avx2 or avx512: the level that the CPU has, or ALRP_CPU_CAPABILITY caps

def set_debug(enabled: bool) -> None: ...
def label_message(classes: int, background: int, continuous: bool) -> str: ...
def positives_message(argument: str, given: int, found: int) -> str: ...
def choose_algorithm(algorithm: int, dtype: torch.dtype, delta: float, positives: int) -> int: ...
def ranking_loss(
    logits: Tensor,
    targets: Tensor,
    loc_errors: Tensor | None,
    classes: int,
    background: int,
    continuous: bool,
    delta: float,
    algorithm: int,
    loss: int,
    eps: float,
    num_positives: int | None,
    sizes: Sequence[int],
    counts: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...

class Call:
    algorithm: int
    def __init__(
        self,
        classes: int,
        background: int,
        continuous: bool,
        delta: float,
        algorithm: int = 0,
        skew: float = 1.0,
        others: int = 0,
        wants_error_gradient: bool = False,
    ) -> None: ...

def find_positives(logits: Tensor, targets: Tensor, call: Call, num_positives: int) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...
def count_part(
    logits: Tensor, targets: Tensor, call: Call, index: Tensor, score: Tensor, status: Tensor
) -> tuple[Tensor, Tensor]: ...
def loss_from_parts(
    logits: Tensor,
    targets: Tensor,
    call: Call,
    loss: int,
    eps: float,
    values: Tensor | None,
    place: Tensor,
    state: Tensor,
    sum: Tensor,
) -> tuple[Tensor, Tensor, Tensor]: ...
def sums_from_parts(
    logits: Tensor, targets: Tensor, call: Call, place: Tensor, state: Tensor, sum: Tensor
) -> tuple[Tensor, Tensor]: ...
