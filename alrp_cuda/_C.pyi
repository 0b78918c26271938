import torch
from torch import Tensor

built_backends: tuple[str, ...]
cuda_architectures: str

class TargetLayout:
    classes: int
    background: int
    continuous: bool
    def __init__(self, classes: int, background: int, continuous: bool = False) -> None: ...

def forward(
    logits: Tensor,
    targets: Tensor,
    layout: TargetLayout,
    num_positives: int,
    loss: int,
    loc_errors: Tensor | None,
    want_error_gradient: bool,
    delta: float,
    eps: float,
    algorithm: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]: ...
def backward(
    logits: Tensor,
    targets: Tensor,
    layout: TargetLayout,
    delta: float,
    algorithm: int,
    index: Tensor,
    tables: Tensor,
    grad_cls: Tensor | None,
    grad_loc: Tensor | None,
    loc_errors_dtype: torch.dtype,
    skew: float = 1.0,
    others: int = 0,
) -> tuple[Tensor | None, Tensor | None]: ...
def sums(
    logits: Tensor, targets: Tensor, layout: TargetLayout, num_positives: int, delta: float, algorithm: int, skew: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]: ...
def drive(
    logits: Tensor,
    targets: Tensor,
    layout: TargetLayout,
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
) -> None: ...
def pair_product(
    logits: Tensor,
    targets: Tensor,
    layout: TargetLayout,
    delta: float,
    algorithm: int,
    index: Tensor,
    tables: Tensor,
    place: Tensor,
    weights: Tensor,
    transposed: bool,
    others: int = 0,
) -> Tensor: ...
def forward_slices(
    logits: Tensor,
    targets: Tensor,
    layout: TargetLayout,
    sizes: list[int],
    counts: list[int],
    algorithms: list[int],
    loss: int,
    loc_errors: Tensor | None,
    want_error_gradient: bool,
    delta: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, list[Tensor]]: ...
def backward_slices(
    logits: Tensor,
    targets: Tensor,
    layout: TargetLayout,
    sizes: list[int],
    counts: list[int],
    algorithms: list[int],
    delta: float,
    index: Tensor,
    tables: list[Tensor],
    grad_cls: Tensor | None,
    grad_loc: Tensor | None,
    loc_errors_dtype: torch.dtype,
) -> tuple[Tensor | None, Tensor | None]: ...
def count_slices(logits: Tensor, targets: Tensor, layout: TargetLayout, sizes: list[int]) -> Tensor: ...
def find_positives(
    logits: Tensor, targets: Tensor, layout: TargetLayout, num_positives: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...
def count_part(
    logits: Tensor,
    targets: Tensor,
    layout: TargetLayout,
    others: int,
    delta: float,
    algorithm: int,
    skew: float,
    want_error_gradient: bool,
    index: Tensor,
    score: Tensor,
    status: Tensor,
) -> tuple[Tensor, Tensor]: ...
def forward_from_parts(
    logits: Tensor,
    targets: Tensor,
    layout: TargetLayout,
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...
def sums_from_parts(
    logits: Tensor,
    targets: Tensor,
    layout: TargetLayout,
    others: int,
    delta: float,
    algorithm: int,
    skew: float,
    place: Tensor,
    index: Tensor,
    tables: Tensor,
    sum: Tensor,
    status: Tensor,
) -> tuple[Tensor, Tensor, Tensor]: ...
def count_positives(logits: Tensor, targets: Tensor, layout: TargetLayout) -> Tensor: ...
