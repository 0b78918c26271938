"""What the order of localisation among scores is worth: the worst and the best order of the same boxes."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .lrp import lrp
from .matching import ClassMatches, Matches
from .metric import MatchingMetric

# COCO's, to the last bit: torch.linspace rounds otherwise.
IOU_THRESHOLDS = torch.from_numpy(np.linspace(0.5, 0.95, 10))
RECALLS = torch.from_numpy(np.linspace(0, 1, 101))


class OrderQuality(NamedTuple):
    """How good detections are under one order; float64, NaN without an object.

    Attributes:
        ap: scalar in [0, 1], mean of ``ap_by_iou``.
        ap_by_iou: (10,), AP at IoU 0.5, 0.55, ..., 0.95: COCO's 101 points, mean over the classes with objects.
        lrp: scalar in [0, 1], mean optimal LRP, 0 is perfect.

    Example:
        >>> import torch
        >>> from alrp_cuda.metrics import match, order_bounds
        >>> box = torch.tensor([[0.0, 0.0, 10.0, 8.0]])
        >>> found = {"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([3])}
        >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]]), "labels": torch.tensor([3])}
        >>> quality = order_bounds(match([found], [truth])).actual
        >>> [round(v, 2) for v in quality.ap_by_iou.tolist()]  # the IoU is 0.8
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    """

    ap: Tensor
    ap_by_iou: Tensor
    lrp: Tensor


class OrderBoundsOutput(NamedTuple):
    """Result of :func:`order_bounds`.

    Attributes:
        lower: with the IoUs of each class's true positives in the opposite order of their scores.
        actual: as they are.
        upper: with the IoUs in the order of the scores.

    Example:
        >>> import torch
        >>> from alrp_cuda.metrics import match, order_bounds
        >>> box = torch.tensor([[0.0, 0.0, 10.0, 8.0]])
        >>> found = {"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([3])}
        >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]]), "labels": torch.tensor([3])}
        >>> out = order_bounds(match([found], [truth]))
        >>> bool(out.lower.ap == out.actual.ap == out.upper.ap)  # one box has one order
        True
    """

    lower: OrderQuality
    actual: OrderQuality
    upper: OrderQuality


def order_bounds(matches: Matches) -> OrderBoundsOutput:
    """Lower and upper bound of what ordering localisation against scores can do (Table 5 of the aLRP paper).

    Scores, and which detections are true positives at tau, stay. The IoUs of the true positives of a class are dealt out
    anew among them: the same set, in the order of the scores for the upper bound, in the opposite order for the lower one.
    A true positive counts at a higher IoU threshold if the IoU dealt to it reaches that. The actual AP is computed alike, and
    differs from COCO's in that detections are matched once, at tau, not anew at each threshold (with tau = 0.5, COCO's AP50
    is ``ap_by_iou[0]``).

    Args:
        matches: from :func:`match` or :func:`match_coco`, with tau <= 0.5.

    Returns:
        OrderBoundsOutput; lower.ap <= actual.ap <= upper.ap and lower.lrp >= actual.lrp >= upper.lrp.

    Raises:
        TypeError: matches that are none.
        ValueError: matches with tau > 0.5.

    Example:
        >>> import torch
        >>> from alrp_cuda.metrics import match, order_bounds
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 6.0], [30.0, 0.0, 40.0, 10.0]])
        >>> truth = boxes.index_fill(1, torch.tensor(3), 10.0)  # IoU 0.6 and 1.0
        >>> labels = torch.tensor([1, 1])
        >>> found = {"boxes": boxes, "scores": torch.tensor([0.9, 0.8]), "labels": labels}
        >>> out = order_bounds(match([found], [{"boxes": truth, "labels": labels}]))
        >>> [round(float(quality.ap_by_iou[-1]), 4) for quality in out]  # at IoU 0.95 only one box is found
        [0.2525, 0.2525, 0.505]
    """
    if not isinstance(matches, Matches):
        raise TypeError(f"matches must be alrp_cuda.metrics.Matches, got {type(matches).__name__}")
    if matches.tau > IOU_THRESHOLDS[0]:
        raise ValueError(f"matches must have tau <= {IOU_THRESHOLDS[0]:g}, where AP begins, got {matches.tau}")
    return OrderBoundsOutput(_quality(_deal(matches, False)), _quality(matches), _quality(_deal(matches, True)))


def _deal(matches: Matches, descending: bool) -> Matches:
    """The matches with the IoUs of each class's true positives sorted along falling scores."""
    ious = matches.ious.clone()
    by_score = matches.scores.argsort(descending=True, stable=True)
    for label in matches.classes():
        places = by_score[(matches.positive & (matches.labels == label))[by_score]]
        ious[places] = ious[places].sort(descending=descending).values
    return matches._replace(ious=ious)


def _quality(matches: Matches) -> OrderQuality:
    # One row of NaN, which means leave out, so that there is something to average without a class.
    left_out = torch.full_like(IOU_THRESHOLDS, torch.nan)
    rows = [_average_precision(part) for part in matches.by_class() if part.objects]
    ap_by_iou = torch.stack([left_out, *rows]).nanmean(0)
    return OrderQuality(ap_by_iou.mean(), ap_by_iou, lrp(matches).lrp)


def _average_precision(part: ClassMatches) -> Tensor:
    """(T,) COCO's AP of one class at every IoU threshold, matched once."""
    true = (part.positive & (part.ious >= IOU_THRESHOLDS[:, None])).cumsum(1).double()
    recall = true / part.objects
    precision = true / torch.arange(1, 1 + len(part.scores))
    best_from_here = torch.cat((precision.flip(1).cummax(1).values.flip(1), torch.zeros(len(true), 1)), 1)
    first = torch.searchsorted(recall, RECALLS.expand(len(true), -1).contiguous())
    return best_from_here.gather(1, first).mean(1)


class OrderBounds(MatchingMetric):
    """:func:`order_bounds` over many batches, with torchmetrics' ``update``, ``compute`` and ``reset``.

    Args:
        tau, max_detections, area_range, box_format: as in :func:`match`; tau <= 0.5.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range.

    Example:
        >>> from alrp_cuda.metrics import OrderBounds
        >>> OrderBounds().compute().actual.ap  # nothing seen
        tensor(nan, dtype=torch.float64)
    """

    def compute(self) -> OrderBoundsOutput:
        """:func:`order_bounds` of all images so far."""
        return order_bounds(self.matches)
