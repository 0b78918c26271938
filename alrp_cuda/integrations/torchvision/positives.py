"""From torchvision's matches of anchors and objects to class indices and the positives' boxes, and the loss of their codes."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss
from torchvision.models.detection._utils import Matcher

from ...inputs import Tensors
from ...levels import head_views, order_by_level, split_targets


class Positives(NamedTuple):
    """What a ranking needs of a batch of N images with A anchors each, P of them positive.

    Attributes:
        classes: (N, A), int64: the class index, C for background, -1 for an anchor that takes no part.
        codes: (P, 4), the positives' box codes in flat order, at least float32.
        anchors: (P, 4), their anchors.
        boxes: (P, 4), the objects they are matched to.
        where: the positives' images and anchors, (P,) each.
    """

    classes: Tensor
    codes: Tensor
    anchors: Tensor
    boxes: Tensor
    where: tuple[Tensor, ...]


def at_least_float32(codes: Tensor) -> Tensor:
    """Box codes as they can be decoded: exponentials and pixels do not fit half types."""
    return codes.to(torch.promote_types(codes.dtype, torch.float32))


def code_loss(codes: Tensor, targets: Tensor, beta: float) -> Tensor:
    """Smooth L1 of box codes (P, 4) against what they should be, summed over the four numbers, mean over the positives."""
    return smooth_l1_loss(codes, targets, beta=beta, reduction="sum") / max(1, len(codes))


def gather_positives(
    targets: list[dict[str, Tensor]],
    codes: Tensor,
    anchors: list[Tensor],
    matched_idxs: list[Tensor],
    classes: int,
    first_label: int = 0,
) -> Positives:
    """The positives of a batch.

    Args:
        targets: an image's "boxes" (M, 4) and "labels" (M,), M >= 0.
        codes: (N, A, 4), the regression head's output.
        anchors: N tensors (A, 4).
        matched_idxs: N tensors (A,): the index of the anchor's object, -1 for background, -2 for an anchor that takes no
            part, as one whose overlap lies between the matcher's thresholds.
        classes: C.
        first_label: the label of class 0.

    Raises:
        ValueError: a label of no class, where the host need not wait to see it; on other devices the loss is NaN.
    """
    matched = torch.stack(matched_idxs)
    where = (matched >= 0).nonzero(as_tuple=True)  # in flat order
    # The positives' objects, as indices into all images' objects joined: one gather, whatever the number of images.
    count = torch.tensor([len(t["labels"]) for t in targets], device=matched.device)
    matched_object = matched[where] + (count.cumsum(0) - count)[where[0]]
    labels = torch.cat([t["labels"] for t in targets])[matched_object]
    boxes = torch.cat([t["boxes"] for t in targets])[matched_object]
    own_codes = at_least_float32(codes[where])
    indices = torch.where(matched == Matcher.BETWEEN_THRESHOLDS, -1, classes)
    check_labels(labels, first_label, classes)
    indices[where] = labels.to(indices.dtype) - first_label
    return Positives(indices, own_codes, torch.stack(anchors)[where], boxes.to(own_codes.dtype), where)


def check_labels(labels: Tensor, first: int, classes: int) -> None:
    """Raise ValueError for a label of no class, where the host need not wait to see it."""
    if torch.compiler.is_compiling() or not labels.is_cpu or labels.numel() == 0:
        return
    low, high = (int(bound) for bound in labels.aminmax())
    if low < first or high >= first + classes:
        raise ValueError(f'targets\' "labels" must be {first} to {first + classes - 1}, got {low} to {high}')


def beside(scores: Tensors, positives: Positives, classes: int) -> tuple[Tensors, Tensors, Positives]:
    """(logits, class indices, positives) as the loss takes them, for class scores (N, A, C) or maps (N, A * C, H, W)."""
    if isinstance(scores, Tensor):
        return scores, positives.classes, positives
    is_positive = (positives.classes >= 0) & (positives.classes < classes)
    order = order_by_level(torch.arange(len(positives.boxes), device=is_positive.device), is_positive, scores, classes)
    rows = (rows[order] for rows in (positives.codes, positives.anchors, positives.boxes, *positives.where))
    codes, anchors, boxes, *where = rows
    ordered = Positives(positives.classes, codes, anchors, boxes, tuple(where))
    return head_views(scores, classes), split_targets(positives.classes, scores, classes), ordered
