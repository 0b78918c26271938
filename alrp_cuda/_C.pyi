from collections.abc import Sequence

import torch
from torch import Tensor

built_backends: tuple[str, ...]
cuda_architectures: str
cpu_capability: str  # default, avx2 or avx512: the level that the CPU has, or ALRP_CPU_CAPABILITY caps

class TargetLayout:
    def __init__(self, classes: int, background: int, continuous: bool = False) -> None: ...
    @property
    def classes(self) -> int: ...
    @property
    def background(self) -> int: ...
    @property
    def continuous(self) -> bool: ...

class Problem:
    def __init__(
        self,
        logits: Tensor,
        targets: Tensor,
        layout: TargetLayout,
        delta: float,
        algorithm: int,
        skew: float = 1.0,
        others: int = 0,
    ) -> None: ...
    @property
    def logits(self) -> Tensor: ...
    @property
    def targets(self) -> Tensor: ...
    @property
    def layout(self) -> TargetLayout: ...
    @property
    def delta(self) -> float: ...
    @property
    def algorithm(self) -> int: ...
    @property
    def skew(self) -> float: ...
    @property
    def others(self) -> int: ...

class Kernels:
    def __init__(self, is_asynchronous: bool) -> None: ...

class NativeKernels(Kernels):
    def __init__(self, is_asynchronous: bool) -> None: ...

def ranking_loss(
    logits: Tensor,
    targets: Tensor,
    loc_errors: Tensor | None,
    classes: int,
    background: int,
    continuous: bool,
    delta: float,
    algorithm: int,
    backend: str,
    loss: int,
    eps: float,
    num_positives: int | None,
    sizes: Sequence[int],
    counts: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...
def register_kernels(backend: str, kernels: Kernels) -> None: ...
def set_debug(enabled: bool) -> None: ...
def label_message(layout: TargetLayout) -> str: ...
def positives_message(argument: str, told: int, found: int) -> str: ...
def choose_algorithm(algorithm: int, dtype: torch.dtype, delta: float, positives: int) -> int: ...
def count_positives(backend: str, problem: Problem) -> Tensor: ...
def find_positives(backend: str, problem: Problem, num_positives: int) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...
def count_part(
    backend: str, problem: Problem, want_error_gradient: bool, index: Tensor, score: Tensor, status: Tensor
) -> tuple[Tensor, Tensor]: ...
def forward_from_parts(
    backend: str,
    problem: Problem,
    loss: int,
    values: Tensor | None,
    eps: float,
    place: Tensor,
    index: Tensor,
    tables: Tensor,
    sum: Tensor,
    status: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...
def sums_from_parts(
    backend: str, problem: Problem, place: Tensor, index: Tensor, tables: Tensor, sum: Tensor, status: Tensor
) -> Tensor: ...
