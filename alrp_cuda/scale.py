"""Weights between the tasks that act on gradients alone."""

from typing import Any

import torch
from torch import Tensor


def scale_gradient(value: Tensor, weight: Tensor | float) -> Tensor:
    """``value``, whose gradient is multiplied by ``weight``.

    Args:
        value: any shape, floating dtype.
        weight: a number, or a scalar tensor on the device of ``value``; is no longer changed once it is given here.

    Example:
        >>> import torch
        >>> from alrp_cuda.scale import scale_gradient
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> y = scale_gradient(x, 2.0)
        >>> y.backward()
        >>> y.item(), x.grad.item()
        (3.0, 2.0)
    """
    return _ScaleGradient.apply(value, torch.as_tensor(weight, dtype=value.dtype))  # type: ignore[no-any-return]


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return grad * weight, None
