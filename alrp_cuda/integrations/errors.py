"""Localisation errors of boxes, whatever framework they come from."""

import torch
from torch import Tensor
from torchvision.ops import box_area, generalized_box_iou_loss

from ..inputs import check_choice, check_number

OVERLAPS = ("iou", "giou")


def paired_iou(predicted: Tensor, boxes: Tensor) -> Tensor:
    """IoU of each box with the one in the same row of the other tensor, differentiable.

    Args:
        predicted, boxes: (P, 4), x1, y1, x2, y2 in one unit; floating. Half types are computed in float32.

    Returns:
        (P,) in [0, 1]; 0 where both boxes are empty.

    Example:
        >>> import torch
        >>> paired_iou(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 5.0]])).tolist()
        [0.5]
    """
    dtype = torch.promote_types(torch.promote_types(predicted.dtype, boxes.dtype), torch.float32)
    predicted, boxes = predicted.to(dtype), boxes.to(dtype)
    sides = torch.min(predicted[:, 2:], boxes[:, 2:]) - torch.max(predicted[:, :2], boxes[:, :2])
    overlap = sides.clamp(min=0).prod(1)
    union: Tensor = box_area(predicted) + box_area(boxes) - overlap
    return overlap / union.clamp(min=torch.finfo(dtype).tiny)


def box_errors(predicted: Tensor, boxes: Tensor, *, overlap: str = "giou", tau: float = 0.5) -> Tensor:
    """Localisation errors E of boxes, each against the one in the same row of the other tensor.

    "iou": E = (1 - IoU) / (1 - tau), 1 at IoU = tau, as in the aLRP paper, sec. 4. "giou": E = (1 - GIoU) / 2 / (1 - tau),
    which has a gradient for boxes that do not meet, too. Both are 0 for a perfect box; nothing is clamped.

    Args:
        predicted: (P, 4), x1, y1, x2, y2; gradients reach them. Half types are computed in float32.
        boxes: (P, 4), the objects' boxes in the same unit.
        overlap: "iou" or "giou".
        tau: the IoU that a true positive needs, in [0, 1).

    Returns:
        (P,), float64 for float64 boxes, else float32.

    Raises:
        TypeError, ValueError: ``tau`` is no number or outside its range; an unknown ``overlap``.

    Example:
        >>> import torch
        >>> predicted, box = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 5.0]])
        >>> box_errors(predicted, box, overlap="iou").tolist(), box_errors(predicted, box).tolist()
        ([1.0], [0.5])
    """
    check_choice("overlap", overlap, OVERLAPS)
    allowed = 1 - check_tau(tau)
    if overlap == "iou":
        return (1 - paired_iou(predicted, boxes)) / allowed
    dtype = torch.promote_types(torch.promote_types(predicted.dtype, boxes.dtype), torch.float32)
    loss: Tensor = generalized_box_iou_loss(predicted.to(dtype), boxes.to(dtype))  # 1 - GIoU
    return loss / 2 / allowed


def check_tau(tau: object) -> float:
    """``tau`` as a float; raises unless it is a number in [0, 1)."""
    value = check_number("tau", tau)
    if value >= 1:
        raise ValueError(f"tau must be below 1, got {value}")
    return value
