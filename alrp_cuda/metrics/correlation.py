"""Do the boxes that score high fit well? Pearson's correlation of score and IoU."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..correlation import check_scores_and_ious
from .matching import Matches
from .metric import MatchingMetric


def score_iou_correlation(scores: Tensor, ious: Tensor) -> Tensor:
    """Pearson's correlation coefficient rho of the scores of positives with their IoU (Table 2 of the aLRP paper).

    Args:
        scores: (P,) floating, of true positives or of positive anchors.
        ious: (P,) floating, of their boxes with the objects they are matched to; on the device of ``scores``.

    Returns:
        Scalar float64 in [-1, 1]; NaN where P < 2 or one of the two does not vary. No host synchronisation.

    Raises:
        TypeError: not tensors of a floating dtype.
        ValueError: shapes or devices that do not fit.

    Example:
        >>> import torch
        >>> from alrp_cuda.metrics import score_iou_correlation
        >>> round(float(score_iou_correlation(torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.8, 0.9, 0.6]))), 4)
        0.6547
    """
    check_scores_and_ious(scores, ious)
    pair = torch.stack((scores.detach().double(), ious.detach().double()))
    if pair.shape[1] < 2:
        return pair.new_full((), math.nan)
    varies = (pair.amax(1) > pair.amin(1)).all()  # else the mean's rounding would be all that varies
    return torch.where(varies, torch.corrcoef(pair)[0, 1], math.nan)


class CorrelationOutput(NamedTuple):
    """Result of :func:`correlation`; NaN where there are fewer than two true positives or one quantity does not vary.

    Attributes:
        rho: scalar float64 in [-1, 1], over the true positives of all classes.
        classes: (K,) int64, the classes of detections and objects, ascending.
        class_rho: (K,) float64, over the true positives of each class.

    Example:
        >>> import torch
        >>> from alrp_cuda.metrics import correlation, match
        >>> box = torch.tensor([[0.0, 0.0, 10.0, 8.0]])
        >>> found = {"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([3])}
        >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]]), "labels": torch.tensor([3])}
        >>> out = correlation(match([found], [truth]))
        >>> out.classes.tolist(), out.rho.item()  # one true positive does not vary
        ([3], nan)
    """

    rho: Tensor
    classes: Tensor
    class_rho: Tensor


def correlation(matches: Matches) -> CorrelationOutput:
    """:func:`score_iou_correlation` of the true positives among matched detections, in all and for each class.

    Args:
        matches: from :func:`match` or :func:`match_coco`.

    Raises:
        TypeError: matches that are none.

    Example:
        >>> import torch
        >>> from alrp_cuda.metrics import correlation, match
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 8.0], [30.0, 0.0, 40.0, 9.0], [60.0, 0.0, 70.0, 10.0]])
        >>> truth = boxes.index_fill(1, torch.tensor(3), 10.0)  # IoU 0.8, 0.9, 1.0
        >>> labels = torch.tensor([1, 1, 1])
        >>> found = {"boxes": boxes, "scores": torch.tensor([0.1, 0.2, 0.3]), "labels": labels}
        >>> round(float(correlation(match([found], [{"boxes": truth, "labels": labels}])).rho), 6)
        1.0
    """
    if not isinstance(matches, Matches):
        raise TypeError(f"matches must be alrp_cuda.metrics.Matches, got {type(matches).__name__}")
    rho = score_iou_correlation(matches.scores[matches.positive], matches.ious[matches.positive])
    class_rho = [score_iou_correlation(part.scores[part.positive], part.ious[part.positive]) for part in matches.by_class()]
    return CorrelationOutput(rho, matches.classes(), torch.stack([rho, *class_rho])[1:])


class ScoreIoUCorrelation(MatchingMetric):
    """:func:`correlation` over many batches, with torchmetrics' ``update``, ``compute`` and ``reset``.

    Args:
        tau, max_detections, area_range, box_format: as in :func:`match`.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range.

    Example:
        >>> from alrp_cuda.metrics import ScoreIoUCorrelation
        >>> ScoreIoUCorrelation().compute().rho  # nothing seen
        tensor(nan, dtype=torch.float64)
    """

    def compute(self) -> CorrelationOutput:
        """:func:`correlation` of all images so far."""
        return correlation(self.matches)
