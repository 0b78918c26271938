"""Gradients that are no derivative: differentiating them again raises, and is never silently zero."""

from typing import Any

import torch
from torch import Tensor


class FirstOrderOnly(torch.autograd.Function):
    """Passes ``gradients`` on and ties them to the ``inputs`` they belong to, so that a second derivative by any of these raises.

    ``torch.autograd.function.once_differentiable`` does so only where the incoming gradient itself has a graph: without one, a
    penalty on the gradient (``create_graph=True``) would train as if it were not there.
    """

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        """The first ``count`` of ``tensors`` are the gradients; the rest are the inputs."""
        return tuple(None if t is None else t.view_as(t) for t in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError("a ranking loss has no second derivative: its gradient is error-driven, no derivative of its value")
