"""Gradients that are no derivative: differentiating them again raises, and is never silently zero."""

from typing import Any

import torch
from torch import Tensor


def first_order_only(gradients: tuple[Tensor | None, ...], inputs: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """``gradients``, tied to the ``inputs`` they belong to, so that a second derivative by any of these raises.

    ``torch.autograd.function.once_differentiable`` does so only where the incoming gradient itself has a graph: without one, a
    penalty on the gradient (``create_graph=True``) would train as if it were not there.
    """
    if not torch.is_grad_enabled():  # no create_graph: nobody can differentiate again
        return gradients
    return _FirstOrderOnly.apply(len(gradients), *gradients, *inputs)  # type: ignore[no-any-return]


class _FirstOrderOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(None if t is None else t.view_as(t) for t in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError("a ranking loss has no second derivative: its gradient is error-driven, no derivative of its value")
