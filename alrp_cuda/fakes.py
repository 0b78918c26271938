"""What tracers (torch.compile, torch.export) know of the operators' outputs: shapes and dtypes, no values. And vmap's refusal.

P is the number of ``loc_errors`` or what the caller gave; else it is known from the labels alone, and a symbol without a hint.
The size of the state is the backend's own affair: it is always such a symbol.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import SymInt, Tensor


def _unknown() -> SymInt:
    return torch.library.get_ctx().new_dynamic_size()


def _values(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


# Each is given the arguments by the names of the schema (csrc/torch/operators.cpp), and the only logits as `scores`.


def _ranking_loss(call: Any) -> tuple[Tensor, ...]:
    positives: int | SymInt
    if call.loc_errors is not None:
        positives = call.loc_errors.shape[0]
    elif call.sizes:
        positives = sum(call.counts)
    else:
        positives = _unknown() if call.num_positives is None else call.num_positives
    scalar = [len(call.sizes)] if call.sizes else []
    results = [call.scores.new_empty(shape, dtype=_values(call.scores)) for shape in (scalar, scalar, [2, positives])]
    return *results, call.scores.new_empty(_unknown(), dtype=torch.uint8)


def _ranking_gradients(call: Any) -> tuple[list[Tensor], Tensor]:
    errors = call.num_positives if call.grad_loc is not None and not call.continuous else 0
    grad_logits = [] if call.grad_cls is None else [call.scores.new_empty(call.scores.shape)]
    return grad_logits, call.scores.new_empty(errors, dtype=call.errors_dtype)


def _ranking_sums(call: Any) -> tuple[Tensor, ...]:
    positives = _unknown() if call.num_positives is None else call.num_positives
    sums = call.scores.new_empty(4, positives, dtype=torch.float64)
    state = call.scores.new_empty(_unknown(), dtype=torch.uint8)
    return sums, sums.new_empty(positives, dtype=torch.int64), state, sums.new_empty([])


def _drive_errors(call: Any) -> None:
    return None


def _error_driven(call: Any) -> Tensor:
    return torch.empty_like(call.value, dtype=_values(call.scores))


def _pair_product(call: Any) -> Tensor:
    return torch.empty_like(call.weights, memory_format=torch.contiguous_format)


def _count_positives(call: Any) -> Tensor:
    return torch.empty(len(call.sizes), dtype=torch.int64)


_FAKES = (_ranking_loss, _ranking_gradients, _ranking_sums, _drive_errors, _error_driven, _pair_product, _count_positives)


def _by_name(operator: str, fake: Callable[[Any], Any]) -> Callable[..., Any]:
    schema = torch._C._get_schema(operator, "").arguments

    def called(*args: Any, **kwargs: Any) -> Any:
        defaults = {argument.name: argument.default_value for argument in schema[len(args) :]}
        given = {argument.name: value for argument, value in zip(schema, args, strict=False)}
        call = SimpleNamespace(**defaults | given | kwargs)
        call.scores = call.logits[0]
        return fake(call)

    return called


def _refuse(*_: Any) -> Any:
    raise RuntimeError(
        "alrp_cuda's losses have no batching rule for torch.func.vmap: to rank the images of a batch each by itself, pass "
        'scope="image" and image_index'
    )


def register(library: str) -> None:
    """Tell tracers and vmap of the operators of a torch.library."""
    for fake in _FAKES:
        operator = f"{library}::{fake.__name__[1:]}"
        torch.library.register_fake(operator, _by_name(operator, fake))
    for operator in ("ranking_loss", "ranking_sums"):  # with which every loss begins
        torch.library.register_vmap(f"{library}::{operator}", _refuse)
