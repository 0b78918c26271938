"""Localisation errors of boxes."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import box_area, generalized_box_iou_loss

from ..inputs import FLOATING, check_number, check_tensor


def paired_iou(predicted: Tensor, boxes: Tensor) -> Tensor:
    """IoU of each box with the one in the same row of the other tensor, differentiable.

    Args:
        predicted, boxes: (P, 4), x1, y1, x2, y2 in one unit; floating. Half types are computed in float32.

    Returns:
        (P,) in [0, 1]; 0 where both boxes are empty.

    Raises:
        TypeError, ValueError: no floating tensors, or not of one shape (P, 4).

    Example:
        >>> import torch
        >>> paired_iou(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 5.0]])).tolist()
        [0.5]
    """
    dtype = _computed_in(predicted, boxes)
    predicted, boxes = predicted.to(dtype), boxes.to(dtype)
    sides = torch.min(predicted[:, 2:], boxes[:, 2:]) - torch.max(predicted[:, :2], boxes[:, :2])
    overlap = sides.clamp(min=0).prod(1)
    union: Tensor = box_area(predicted) + box_area(boxes) - overlap
    return overlap / union.clamp(min=torch.finfo(dtype).tiny)


def iou_errors(predicted: Tensor, boxes: Tensor, tau: float = 0.5) -> Tensor:
    """Localisation errors E = (1 - IoU) / (1 - tau) of boxes against the objects that they are matched to; aLRP paper, sec. 4.

    E is 0 for a perfect box and 1 where IoU is tau; nothing is clamped. A box that does not touch its object gets no gradient.

    Args:
        predicted: (P, 4), decoded boxes as x1, y1, x2, y2; gradients reach them. Half types are computed in float32.
        boxes: (P, 4), the objects, in the same unit.
        tau: the IoU that a true positive needs, in [0, 1).

    Returns:
        (P,), in [0, 1 / (1 - tau)]; float64 for float64 boxes, else float32.

    Raises:
        TypeError, ValueError: as :func:`paired_iou`; ``tau`` out of range.

    Example:
        >>> import torch
        >>> iou_errors(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 5.0]]))
        tensor([1.])
    """
    return (1 - paired_iou(predicted, boxes)) / (1 - check_tau("tau", tau))


def giou_errors(predicted: Tensor, boxes: Tensor, tau: float = 0.5) -> Tensor:
    """Localisation errors E = (1 - GIoU) / 2 / (1 - tau), which also have a gradient for boxes that do not touch.

    E is 0 for a perfect box, 1 where GIoU is 2 tau - 1, and below 1 / (1 - tau); nothing is clamped.

    Args:
        predicted, boxes, tau: as in :func:`iou_errors`.

    Returns:
        (P,), in [0, 1 / (1 - tau)); float64 for float64 boxes, else float32.

    Raises:
        TypeError, ValueError: as :func:`iou_errors`.

    Example:
        >>> import torch
        >>> giou_errors(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 5.0]]))
        tensor([0.5000])
    """
    dtype = _computed_in(predicted, boxes)
    loss: Tensor = generalized_box_iou_loss(predicted.to(dtype), boxes.to(dtype))  # 1 - GIoU
    return loss / 2 / (1 - check_tau("tau", tau))


# By the overlap that they are computed from.
ERRORS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"giou": giou_errors, "iou": iou_errors}


def check_tau(name: str, tau: object) -> float:
    """``tau`` as a float; raises unless it is a number in [0, 1)."""
    value = check_number(name, tau)
    if value >= 1:
        raise ValueError(f"{name} must be below 1, got {value}")
    return value


def _computed_in(predicted: Tensor, boxes: Tensor) -> torch.dtype:
    """At least float32; raises unless both are boxes, row by row."""
    for name, value in (("predicted", predicted), ("boxes", boxes)):
        check_tensor(name, value, FLOATING)
    if predicted.dim() != 2 or predicted.shape[1] != 4 or predicted.shape != boxes.shape:
        raise ValueError(
            f"predicted and boxes must both have shape (P, 4), got {tuple(predicted.shape)} and {tuple(boxes.shape)}"
        )
    return torch.promote_types(torch.promote_types(predicted.dtype, boxes.dtype), torch.float32)
