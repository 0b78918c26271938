"""What the framework shows to a loss of the caller's own and what it takes from it; shared with the reference."""

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .inputs import FLOATING, check_number, check_tensor, is_finite


class Ranks(NamedTuple):
    """What a ranking loss is made of: one number for each of P positives, in the order of their flat index; float64.

    Attributes:
        n_fp: (P,), N_FP(i), the negatives that rank above i.
        rank_pos: (P,), rank+(i) >= 1, the rank among the positives.
        rank: (P,), rank+(i) + N_FP(i), Eq. 3.
        extras: what the caller gave, (P,) or (K, P); None if nothing.
        extra_sums: of the same shape, sum over positives k != i of extras_k H(x_ik); None without extras.
        scores: (P,), the scores s_i themselves, for losses that need the order.

    Example:
        >>> import torch, alrp_cuda
        >>> def watched(ranks):
        ...     print(ranks.n_fp.tolist(), ranks.rank_pos.tolist(), ranks.rank.tolist())
        ...     return alrp_cuda.Errors(ranks.n_fp / ranks.rank)
        >>> loss = alrp_cuda.error_driven_loss(torch.tensor([3.0, 1.0, 5.0]), torch.tensor([1, 1, 0]), watched, delta=0.0)
        [1.0, 1.0] [1.0, 2.0] [2.0, 3.0]
    """

    n_fp: Tensor
    rank_pos: Tensor
    rank: Tensor
    extras: Tensor | None
    extra_sums: Tensor | None
    scores: Tensor


class Errors(NamedTuple):
    """A ranking loss L = 1/Z sum_i l(i): its terms, what these should be, and Z.

    Attributes:
        value: (P,), l(i).
        target: (P,) or a number, l*(i), the least that l(i) can be by ranking alone.
        z: Z, a number or a tensor with one element, > 0; None: P.

    Example:
        >>> import torch, alrp_cuda
        >>> def inverse_rank(ranks):  # 1/rank+ - 1/rank: what the negatives cost
        ...     return alrp_cuda.Errors(1 / ranks.rank_pos - 1 / ranks.rank)
        >>> alrp_cuda.error_driven_loss(torch.zeros(2), torch.tensor([1, 0]), inverse_rank, delta=0.0).item()
        0.5
    """

    value: Tensor
    target: Tensor | float = 0.0
    z: Tensor | float | None = None


ErrorFunction = Callable[[Ranks], Errors]


def check_extras(logits: Tensor, extras: Tensor | None) -> None:
    """Check that extras is None or a floating (P,) or (K, P) tensor beside the logits."""
    if extras is None:
        return
    check_tensor("extras", extras, FLOATING)
    if extras.device != logits.device:
        raise ValueError(f"extras must be on the device of logits, {logits.device}, got {extras.device}")
    if extras.dim() not in (1, 2):
        raise ValueError(f"extras must have shape (P,) or (K, P), one value per positive, got shape {tuple(extras.shape)}")


def told_positives(extras: Tensor | None, num_positives: int | None) -> tuple[str, int] | None:
    """The argument that tells P, and P; None where the labels have to be counted."""
    if num_positives is not None:
        if extras is not None and extras.shape[-1] != num_positives:
            raise ValueError(
                f"extras must have one value per positive: num_positives is {num_positives}, got {extras.shape[-1]} values"
            )
        return "num_positives", int(num_positives)
    return None if extras is None else ("extras", extras.shape[-1])


def check_skew(skew: object) -> float:
    """Raise unless ``skew`` is a number in (0, 16]; return it as a float."""
    number = check_number("skew", skew)
    if not 0 < number <= 16:
        raise ValueError(f"skew must be > 0 and <= 16, got {skew}")
    return number


def _vector(name: str, value: Tensor, like: Tensor) -> Tensor:
    check_tensor(name, value, FLOATING)
    if value.device != like.device:
        raise ValueError(f"{name} must be on the device of logits, {like.device}, got {value.device}")
    if value.shape != like.shape:
        raise ValueError(f"{name} must have shape (P,) = {tuple(like.shape)}, got {tuple(value.shape)}")
    return value.to(torch.float64)


def _scalar(z: Any, like: Tensor) -> Tensor:
    if isinstance(z, Tensor):
        check_tensor("z of error_fn", z, FLOATING)
        if z.numel() != 1 or z.device != like.device:
            raise ValueError(f"z of error_fn must have one element, on {like.device}, got shape {tuple(z.shape)} on {z.device}")
        return z.reshape(()).to(torch.float64)
    if z is None:
        return torch.full((), like.numel(), dtype=torch.float64, device=like.device).clamp_(min=1)
    number = check_number("z of error_fn", z)
    if number == 0:
        raise ValueError("z of error_fn must be > 0, got 0")
    return torch.full((), number, dtype=torch.float64, device=like.device)


def ask(error_fn: ErrorFunction, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """(value sum(l)/Z, errors e = l - l*, Z) by the caller's function, float64; the latter two detached.

    The function runs without gradients but where ``ranks.extras`` carry one.
    """
    differentiable = ranks.extras is not None and ranks.extras.requires_grad
    with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
        result = error_fn(ranks)
        if not isinstance(result, Errors):
            raise TypeError(f"error_fn must return alrp_cuda.Errors, got {type(result).__name__}")
        value = _vector("value of error_fn", result.value, ranks.n_fp)
        z = _scalar(result.z, ranks.n_fp)
        loss = value.sum() / z
    target: Any = result.target
    if isinstance(target, Tensor):
        target = _vector("target of error_fn", target, ranks.n_fp).detach()
    elif isinstance(target, bool) or not isinstance(target, numbers.Real) or not is_finite(float(target)):
        raise TypeError(f"target of error_fn must be a (P,) tensor or a finite number, got {target!r}")
    errors: Tensor = value.detach() - target
    return loss, errors, z.detach()
