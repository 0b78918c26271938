"""Adaptive training sample selection: which anchors are positive, by statistics of each object's overlaps.

Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample Selection", CVPR 2020,
Algorithm 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou


def atss(anchors: Tensor, level_sizes: Sequence[int], boxes: Tensor, candidates: int = 9) -> Tensor:
    """Match the anchors of one image with its objects.

    An object's candidates are the ``candidates`` anchors of each level whose centres are closest to its own. Those become
    positive whose IoU with it is at least mean + standard deviation of the candidates' and whose centre lies inside it. An
    anchor that is positive for several objects goes to the one with the highest IoU. An object may get none.

    Args:
        anchors: (A, 4) as x1, y1, x2, y2, level after level.
        level_sizes: the number of anchors of each level, A in all.
        boxes: (M, 4), the objects, M >= 0.
        candidates: of each level, >= 1; a smaller level gives all it has.

    Returns:
        (A,) int64, the index of the anchor's object or -1.

    Raises:
        ValueError: ``level_sizes`` do not add up to A.

    Example:
        >>> import torch
        >>> anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0], [0.0, 0.0, 16.0, 16.0]])
        >>> atss(anchors, [2, 1], torch.tensor([[1.0, 0.0, 9.0, 8.0]]))
        tensor([ 0, -1, -1])
    """
    if sum(level_sizes) != len(anchors):
        raise ValueError(f"level_sizes must add up to the number of anchors, {len(anchors)}, got {sum(level_sizes)}")
    if len(boxes) == 0:
        return torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    anchors = anchors.to(boxes.dtype)  # features of a half type make anchors of one
    centers, middles = (anchors[:, :2] + anchors[:, 2:]) / 2, (boxes[:, :2] + boxes[:, 2:]) / 2
    closest, start = [], 0
    distance = torch.cdist(middles, centers, compute_mode="donot_use_mm_for_euclid_dist")  # (M, A)
    for size in level_sizes:
        _, nearest = distance[:, start : start + size].topk(min(candidates, size), dim=1, largest=False)
        closest.append(nearest + start)
        start += size
    chosen = torch.cat(closest, 1)  # (M, K)
    overlaps = box_iou(boxes, anchors)  # (M, A)
    overlap = overlaps.gather(1, chosen)
    std = overlap.std(1, keepdim=True) if chosen.shape[1] > 1 else 0  # of a sample: by K - 1
    center = centers[chosen]  # (M, K, 2)
    inside = ((center > boxes[:, None, :2]) & (center < boxes[:, None, 2:])).all(-1)
    positive = inside & (overlap >= overlap.mean(1, keepdim=True) + std)
    # By object and anchor, so that each anchor can look for its best object.
    quality = torch.full_like(overlaps, -1).scatter_(1, chosen, torch.where(positive, overlap, -1))
    best, matched = quality.max(0)
    return torch.where(best >= 0, matched, -1)
