"""What Python tells torch of the operators.

Tracers (torch.compile, torch.export) ask for the shapes and dtypes of outputs, autograd for the gradients of the two operators of
``error_driven_loss`` (csrc/torch/autograd.cpp has those of the losses), and vmap is refused.

P is the number of ``loc_errors`` or what the caller gave; else it is known from the labels alone, and a symbol without a hint.
The size of the state is the backend's own affair: it is always such a symbol.
"""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import SymInt, Tensor

# ---- shapes and dtypes


def _unknown() -> SymInt:
    return torch.library.get_ctx().new_dynamic_size()


def _values(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


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
    grad_logits = [] if call.grad_cls is None else [torch.empty_like(each) for each in call.logits]  # in memory alike
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


_FAKES = (_ranking_loss, _ranking_gradients, _ranking_sums, _drive_errors, _error_driven, _pair_product)


def _by_name(operator: str, fake: Callable[[Any], Any]) -> Callable[..., Any]:
    """``fake`` of the arguments by the names of the schema (csrc/torch/operators.cpp), and the first logits as ``scores``."""
    schema = torch._C._get_schema(operator, "").arguments

    def called(*args: Any, **kwargs: Any) -> Any:
        defaults = {argument.name: argument.default_value for argument in schema[len(args) :]}
        given = {argument.name: value for argument, value in zip(schema, args, strict=False)}
        call = SimpleNamespace(**defaults | given | kwargs)
        call.scores = call.logits[0]
        return fake(call)

    return called


# ---- gradients. The schemas have no defaults: torch 2.13 keeps an argument that equals its default from setup_context.


def _keep_error_driven(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, value, [targets], *ctx.numbers, state, ctx.others = inputs
    ctx.save_for_backward(targets, state, *logits)
    ctx.value_dtype = value.dtype


def _error_driven_backward(operators: Any, ctx: Any, incoming: Tensor) -> tuple[Any, ...]:
    targets, state, *logits = ctx.saved_tensors
    classes, background, delta, algorithm, skew, positives = ctx.numbers
    grad_logits: list[Tensor | None] = [None] * len(logits)
    if any(ctx.needs_input_grad[0]):
        problem: Any = logits, [targets], classes, background, False, delta, algorithm, skew, [], [], positives, state
        grad_logits, _ = operators.ranking_gradients.default(*problem, False, incoming, None, torch.float32, ctx.others)
    return grad_logits, incoming.to(ctx.value_dtype), [None], *[None] * 8


def _keep_pair_product(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, [targets], *ctx.numbers, state, place, _, ctx.transposed, ctx.others = inputs
    ctx.save_for_backward(targets, state, place, *logits)


def _pair_product_backward(operators: Any, ctx: Any, incoming: Tensor) -> tuple[Any, ...]:
    """Linear in the weights; the ranks are constants."""
    targets, state, place, *logits = ctx.saved_tensors
    rest = state, place, incoming, not ctx.transposed, ctx.others
    grad = operators.pair_product.default(logits, [targets], *ctx.numbers, *rest)
    return [None] * len(logits), [None], *[None] * 6, grad, None, None


_GRADIENTS = {
    "error_driven": (_keep_error_driven, _error_driven_backward),
    "pair_product": (_keep_pair_product, _pair_product_backward),
}


# ---- vmap


def _refuse(*_: Any) -> Any:
    raise RuntimeError(
        "alrp_cuda's losses have no batching rule for torch.func.vmap: to rank the images of a batch each by itself, pass "
        'scope="image" and image_index (of lists scope alone)'
    )


def register(library: str) -> None:
    """Do so for a torch.library."""
    for fake in _FAKES:
        operator = f"{library}::{fake.__name__[1:]}"
        torch.library.register_fake(operator, _by_name(operator, fake))
    for name, (keep, backward) in _GRADIENTS.items():
        own = partial(backward, getattr(torch.ops, library))
        torch.library.register_autograd(f"{library}::{name}", own, setup_context=keep)
    for operator in ("ranking_loss", "ranking_sums"):  # with which every loss begins
        torch.library.register_vmap(f"{library}::{operator}", _refuse)
