"""Means over the images of all ranks of a group, for rankings of one image each."""

from typing import Any

import torch
from torch import Tensor

from .channel import Channel


class _Mean(torch.autograd.Function):
    """A mean that is known, with the derivative by some of its terms."""

    @staticmethod
    def forward(ctx: Any, terms: Tensor, mean: Tensor, count: int) -> Tensor:
        ctx.call = terms.shape, count
        return mean.to(terms.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        shape, count = ctx.call
        return (grad / count).expand(shape), None, None


def means(channel: Channel, terms: tuple[Tensor, Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Sums of this rank's terms and all other ranks', each divided by ``count``; the same on every rank."""
    sums = torch.stack([own.detach().to(torch.float64).sum() for own in terms])
    channel.add(sums)
    first, second = (_Mean.apply(own, total / count, count) for own, total in zip(terms, sums.unbind(), strict=True))
    return first, second
