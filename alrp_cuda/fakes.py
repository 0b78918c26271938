"""What tracers (torch.compile, torch.export) know of the operators' outputs: shapes and dtypes, no values. And vmap's refusal.

P is the number of ``loc_errors`` or what the caller told; else it is known from the labels alone, and a symbol without a
hint. The size of the tables is the backend's own affair: it is always such a symbol.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import SymInt, Tensor

Int = int | SymInt


def _values(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _tables(logits: Tensor) -> Tensor:
    return logits.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.float64)


def _ranking_loss(
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
    num_positives: Int | None,
    sizes: Sequence[Int],
    counts: Sequence[Int],
    want_error_gradient: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    positives: Int
    if loc_errors is not None:
        positives = loc_errors.shape[0]
    elif sizes:
        positives = sum(counts)
    elif num_positives is not None:
        positives = num_positives
    else:
        positives = torch.library.get_ctx().new_dynamic_size()
    dtype = _values(logits)
    scalars = [len(sizes)] if sizes else []
    cls, loc = (logits.new_empty(scalars, dtype=dtype) for _ in range(2))
    rank, precision = (logits.new_empty(positives, dtype=dtype) for _ in range(2))
    index = logits.new_empty(positives, dtype=torch.int64)
    return cls, loc, rank, precision, index, [_tables(logits) for _ in sizes or (None,)]


def _ranking_gradients(
    logits: Tensor,
    targets: Tensor,
    classes: int,
    background: int,
    continuous: bool,
    delta: float,
    algorithm: int,
    backend: str,
    skew: float,
    sizes: Sequence[Int],
    counts: Sequence[Int],
    index: Tensor,
    tables: list[Tensor],
    grad_cls: Tensor | None,
    grad_loc: Tensor | None,
    errors_dtype: torch.dtype,
    others: Int = 0,
) -> tuple[Tensor, Tensor]:
    wants_errors = grad_loc is not None and not continuous
    grad_logits = logits.new_empty(0 if grad_cls is None else logits.shape)
    return grad_logits, logits.new_empty(index.shape if wants_errors else 0, dtype=errors_dtype)


def _ranking_sums(
    logits: Tensor,
    targets: Tensor,
    classes: int,
    background: int,
    delta: float,
    algorithm: int,
    backend: str,
    skew: float,
    num_positives: Int | None,
    told_by: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    positives = torch.library.get_ctx().new_dynamic_size() if num_positives is None else num_positives
    sums = logits.new_empty(3 if skew == 1 else 4, positives, dtype=torch.float64)
    place, index = (logits.new_empty(positives, dtype=torch.int64) for _ in range(2))
    return sums, place, index, _tables(logits), logits.new_empty([], dtype=torch.float64)


def _drive_errors(
    logits: Tensor,
    targets: Tensor,
    classes: int,
    background: int,
    delta: float,
    algorithm: int,
    backend: str,
    skew: float,
    index: Tensor,
    tables: Tensor,
    place: Tensor,
    sums: Tensor,
    errors: Tensor,
    z: Tensor,
    eps: float,
) -> None:
    return None


def _error_driven(
    logits: Tensor,
    value: Tensor,
    targets: Tensor,
    classes: int,
    background: int,
    delta: float,
    algorithm: int,
    backend: str,
    skew: float,
    index: Tensor,
    tables: Tensor,
    others: Int = 0,
) -> Tensor:
    return torch.empty_like(value, dtype=_values(logits))


def _pair_product(
    logits: Tensor,
    targets: Tensor,
    classes: int,
    background: int,
    delta: float,
    algorithm: int,
    backend: str,
    index: Tensor,
    tables: Tensor,
    place: Tensor,
    weights: Tensor,
    transposed: bool,
    others: Int = 0,
) -> Tensor:
    return torch.empty_like(weights, memory_format=torch.contiguous_format)


def _count_positives(
    logits: Tensor,
    targets: Tensor,
    classes: int,
    background: int,
    continuous: bool,
    backend: str,
    sizes: Sequence[Int],
) -> Tensor:
    return torch.empty(len(sizes), dtype=torch.int64)


for _fake in (
    _ranking_loss,
    _ranking_gradients,
    _ranking_sums,
    _drive_errors,
    _error_driven,
    _pair_product,
    _count_positives,
):
    torch.library.register_fake(f"alrp_cuda::{_fake.__name__[1:]}", _fake)


def _refuse(*_: Any) -> Any:
    raise RuntimeError(
        "alrp_cuda's losses have no batching rule for torch.func.vmap: to rank the images of a batch each by itself, pass "
        'scope="image" and image_index'
    )


for _operator in ("ranking_loss", "ranking_sums"):  # with which every loss begins
    torch.library.register_vmap(f"alrp_cuda::{_operator}", _refuse)
