"""Errors of boxes against the objects that they are matched to."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss
from torchvision.ops import generalized_box_iou_loss


def paired_iou(predicted: Tensor, boxes: Tensor) -> Tensor:
    """IoU of each predicted box with the box of the same row.

    Args:
        predicted: (P, 4) as x1, y1, x2, y2, floating.
        boxes: (P, 4), the objects; of areas above 0.

    Returns:
        (P,), in [0, 1].

    Example:
        >>> import torch
        >>> paired_iou(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 5.0]]))
        tensor([0.5000])
    """
    corner = torch.maximum(predicted[:, :2], boxes[:, :2])
    inner = (torch.minimum(predicted[:, 2:], boxes[:, 2:]) - corner).clamp(min=0).prod(1)
    areas = (predicted[:, 2:] - predicted[:, :2]).prod(1) + (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return inner / (areas - inner)


def iou_errors(predicted: Tensor, boxes: Tensor, tau: float = 0.5) -> Tensor:
    """Localisation errors E = (1 - IoU) / (1 - tau), differentiable in ``predicted``.

    E is 0 for a perfect box and 1 where IoU is tau; nothing is clamped. A box that does not touch its object gets no gradient.

    Args:
        predicted: (P, 4), the positives' decoded boxes as x1, y1, x2, y2, floating.
        boxes: (P, 4), the objects they are matched to; of areas above 0.
        tau: the IoU that a true positive needs, in [0, 1).

    Returns:
        (P,), in [0, 1 / (1 - tau)].

    Example:
        >>> import torch
        >>> iou_errors(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 5.0]]))
        tensor([1.])
    """
    return (1 - paired_iou(predicted, boxes)) / (1 - tau)


def giou_errors(predicted: Tensor, boxes: Tensor, tau: float = 0.5) -> Tensor:
    """Localisation errors E = (1 - GIoU) / 2 / (1 - tau), differentiable in ``predicted``.

    E is 0 for a perfect box, 1 where GIoU is 2 tau - 1, and below 1 / (1 - tau); nothing is clamped.

    Args:
        predicted, boxes, tau: as in :func:`iou_errors`.

    Returns:
        (P,), in [0, 1 / (1 - tau)).

    Example:
        >>> import torch
        >>> giou_errors(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 5.0]]))
        tensor([0.5000])
    """
    loss: Tensor = generalized_box_iou_loss(predicted, boxes)  # 1 - GIoU
    return loss / 2 / (1 - tau)


# What ``errors`` of use_alrp names.
ERRORS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"giou": giou_errors, "iou": iou_errors}


def code_loss(codes: Tensor, targets: Tensor, beta: float) -> Tensor:
    """Smooth L1 of box codes (P, 4) against what they should be, summed over the four numbers, mean over the positives."""
    return smooth_l1_loss(codes, targets, beta=beta, reduction="sum") / max(1, len(codes))
