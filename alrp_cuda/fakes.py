"""What tracers (torch.compile, torch.export) know of the operators' outputs: shapes and dtypes, no values. And vmap's refusal.

P is the number of ``loc_errors`` or what the caller gave; else it is known from the labels alone, and a symbol without a hint.
The size of the state is the backend's own affair: it is always such a symbol.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import SymInt, Tensor

Int = int | SymInt


def _values(logits: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if logits[0].dtype == torch.float64 else torch.float32


def _state(logits: Sequence[Tensor]) -> Tensor:
    return logits[0].new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.uint8)


def _ranking_loss(
    logits: Sequence[Tensor],
    targets: Sequence[Tensor],
    loc_errors: Tensor | None,
    classes: int,
    background: int,
    continuous: bool,
    delta: float,
    algorithm: int,
    loss: int,
    eps: float,
    num_positives: Int | None,
    sizes: Sequence[Int],
    counts: Sequence[Int],
    want_error_gradient: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    positives: Int
    if loc_errors is not None:
        positives = loc_errors.shape[0]
    elif sizes:
        positives = sum(counts)
    elif num_positives is not None:
        positives = num_positives
    else:
        positives = torch.library.get_ctx().new_dynamic_size()
    shapes = [[len(sizes)] if sizes else []] * 2 + [[2, positives]]
    cls, loc, ranks = (logits[0].new_empty(shape, dtype=_values(logits)) for shape in shapes)
    return cls, loc, ranks, _state(logits)


def _ranking_gradients(
    logits: Sequence[Tensor],
    targets: Sequence[Tensor],
    classes: int,
    background: int,
    continuous: bool,
    delta: float,
    algorithm: int,
    skew: float,
    sizes: Sequence[Int],
    counts: Sequence[Int],
    num_positives: Int,
    state: Tensor,
    has_error_gradient: bool,
    grad_cls: Tensor | None,
    grad_loc: Tensor | None,
    errors_dtype: torch.dtype,
    others: Int = 0,
) -> tuple[list[Tensor], Tensor]:
    wants_errors = grad_loc is not None and not continuous
    grad_logits = [] if grad_cls is None else [each.new_empty(each.shape) for each in logits]
    return grad_logits, state.new_empty(num_positives if wants_errors else 0, dtype=errors_dtype)


def _ranking_sums(
    logits: Sequence[Tensor],
    targets: Sequence[Tensor],
    classes: int,
    background: int,
    delta: float,
    algorithm: int,
    skew: float,
    num_positives: Int | None,
    argument: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    positives = torch.library.get_ctx().new_dynamic_size() if num_positives is None else num_positives
    sums = logits[0].new_empty(4, positives, dtype=torch.float64)
    return sums, sums.new_empty(positives, dtype=torch.int64), _state(logits), sums.new_empty([])


def _drive_errors(
    logits: Sequence[Tensor],
    targets: Sequence[Tensor],
    classes: int,
    background: int,
    delta: float,
    algorithm: int,
    skew: float,
    state: Tensor,
    place: Tensor,
    sums: Tensor,
    errors: Tensor,
    z: Tensor,
    eps: float,
) -> None:
    return None


def _error_driven(
    logits: Sequence[Tensor],
    value: Tensor,
    targets: Sequence[Tensor],
    classes: int,
    background: int,
    delta: float,
    algorithm: int,
    skew: float,
    num_positives: Int,
    state: Tensor,
    others: Int = 0,
) -> Tensor:
    return torch.empty_like(value, dtype=_values(logits))


def _pair_product(
    logits: Sequence[Tensor],
    targets: Sequence[Tensor],
    classes: int,
    background: int,
    delta: float,
    algorithm: int,
    state: Tensor,
    place: Tensor,
    weights: Tensor,
    transposed: bool,
    others: Int = 0,
) -> Tensor:
    return torch.empty_like(weights, memory_format=torch.contiguous_format)


def _count_positives(
    logits: Sequence[Tensor],
    targets: Sequence[Tensor],
    classes: int,
    background: int,
    continuous: bool,
    sizes: Sequence[Int],
) -> Tensor:
    return torch.empty(len(sizes), dtype=torch.int64)


_FAKES = (
    _ranking_loss,
    _ranking_gradients,
    _ranking_sums,
    _drive_errors,
    _error_driven,
    _pair_product,
    _count_positives,
)


def _refuse(*_: Any) -> Any:
    raise RuntimeError(
        "alrp_cuda's losses have no batching rule for torch.func.vmap: to rank the images of a batch each by itself, pass "
        'scope="image" and image_index'
    )


def register(library: str) -> None:
    """Tell tracers and vmap of the operators of a torch.library."""
    for fake in _FAKES:
        torch.library.register_fake(f"{library}::{fake.__name__[1:]}", fake)
    for operator in ("ranking_loss", "ranking_sums"):  # with which every loss begins
        torch.library.register_vmap(f"{library}::{operator}", _refuse)
