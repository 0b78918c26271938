"""Localisation Recall Precision: how far a detector is from perfect, in boxes, false positives and false negatives."""

import math
import numbers
from typing import NamedTuple

import torch
from torch import Tensor

from .matching import ClassMatches, Matches
from .metric import MatchingMetric


class ClassLRP(NamedTuple):
    """LRP of each of K classes; NaN for a class without an object to find.

    Attributes:
        classes: (K,) int64, the classes of detections and objects, ascending.
        lrp, loc, fp, fn: (K,) float64, as in :class:`LRPOutput`.
        threshold: (K,) float64, the score from which detections are kept; infinity where it is best to keep none.

    Example:
        >>> import torch
        >>> from alrp_cuda.metrics import lrp, match
        >>> box = torch.tensor([[0.0, 0.0, 10.0, 8.0]])
        >>> found = {"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([3])}
        >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]]), "labels": torch.tensor([3])}
        >>> each = lrp(match([found], [truth])).per_class
        >>> each.classes.tolist(), [round(v, 4) for v in each.lrp.tolist()]
        ([3], [0.4])
    """

    classes: Tensor
    lrp: Tensor
    loc: Tensor
    fp: Tensor
    fn: Tensor
    threshold: Tensor


class LRPOutput(NamedTuple):
    """Result of :func:`lrp`: float64 scalars, the means over the classes that have the number; NaN where none has.

    Attributes:
        lrp: LRP in [0, 1], 0 is perfect; by default optimal LRP.
        loc: mean 1 - IoU of true positives, in [0, 1 - tau]; a class without one has none.
        fp: 1 - precision, in [0, 1]; a class of which no detection is kept has none.
        fn: 1 - recall, in [0, 1].
        per_class: the same for each class.

    Example:
        >>> import torch
        >>> from alrp_cuda.metrics import lrp, match
        >>> box = torch.tensor([[0.0, 0.0, 10.0, 8.0]])
        >>> found = {"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([3])}
        >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]]), "labels": torch.tensor([3])}
        >>> out = lrp(match([found], [truth]))
        >>> [round(float(v), 4) for v in out[:4]]  # lrp, loc, fp, fn
        [0.4, 0.2, 0.0, 0.0]
    """

    lrp: Tensor
    loc: Tensor
    fp: Tensor
    fn: Tensor
    per_class: ClassLRP


def lrp(matches: Matches, *, score_threshold: float | None = None) -> LRPOutput:
    """LRP and optimal LRP (Eq. 6 of the aLRP paper; Oksuz et al., ECCV 2018) of matched detections.

    LRP(s) = (N_FP + N_FN + sum over true positives of (1 - IoU) / (1 - tau)) / (N_FP + N_FN + N_TP), of the detections that
    score at least s. Optimal LRP is its minimum over s, for each class by itself: over every score that occurs, and over
    keeping nothing. Of several best thresholds it takes the highest.

    Args:
        matches: from :func:`match` or :func:`match_coco`; tau is theirs.
        score_threshold: LRP at this threshold instead of the optimal one.

    Returns:
        LRPOutput. A class without an object is left out of the means.

    Raises:
        TypeError: a threshold that is no number, or matches that are none.
        ValueError: a NaN threshold.

    Example:
        >>> import torch
        >>> from alrp_cuda.metrics import lrp, match
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 8.0], [30.0, 0.0, 40.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> found = {"boxes": boxes[:2], "scores": torch.tensor([0.9, 0.5]), "labels": torch.tensor([1, 1])}
        >>> matches = match([found], [{"boxes": boxes[2:], "labels": torch.tensor([1])}])
        >>> out = lrp(matches)  # without the false positive that scores 0.5
        >>> [round(float(v), 4) for v in (out.lrp, out.loc, out.fp, out.fn, out.per_class.threshold)]
        [0.4, 0.2, 0.0, 0.0, 0.9]
        >>> round(float(lrp(matches, score_threshold=0.5).lrp), 4)  # (1 + 0.4) / 2
        0.7
    """
    if not isinstance(matches, Matches):
        raise TypeError(f"matches must be alrp_cuda.metrics.Matches, got {type(matches).__name__}")
    check_threshold(score_threshold)
    rows = [_class_lrp(part, matches.tau, score_threshold) for part in matches.by_class()]
    columns = torch.tensor(rows, dtype=torch.float64).reshape(-1, 5).unbind(1)
    value, loc, fp, fn = (column.nanmean() for column in columns[:4])
    return LRPOutput(value, loc, fp, fn, ClassLRP(matches.classes(), *columns))


def check_threshold(score_threshold: object) -> None:
    """Raise unless it is None or a number."""
    if score_threshold is None:
        return
    if isinstance(score_threshold, bool) or not isinstance(score_threshold, numbers.Real):
        raise TypeError(f"score_threshold must be a number or None, got {type(score_threshold).__name__}")
    if math.isnan(score_threshold):
        raise ValueError("score_threshold must be a number, got nan")


def _class_lrp(part: ClassMatches, tau: float, score_threshold: float | None) -> list[float]:
    """[LRP, loc, fp, fn, threshold] of one class."""
    if not part.objects:
        return [math.nan] * 5
    # Entry k of each: for the k detections of highest scores.
    zero = torch.zeros(1, dtype=torch.float64)
    true = torch.cat((zero, part.positive.cumsum(0)))
    false = torch.cat((zero, (~part.positive).cumsum(0)))
    misfit = torch.cat((zero, ((1 - part.ious) * part.positive).cumsum(0)))
    value = (false + (part.objects - true) + misfit / (1 - tau)) / (false + part.objects)
    if score_threshold is None:
        # A threshold keeps all detections of equal score, or none of them.
        splits_a_tie = torch.cat((part.scores[1:] == part.scores[:-1], torch.zeros(min(1, len(part.scores)), dtype=torch.bool)))
        k = int(value.masked_fill(torch.cat((zero.bool(), splits_a_tie)), math.inf).argmin())
        threshold = float(part.scores[k - 1]) if k else math.inf
    else:
        k, threshold = int((part.scores >= score_threshold).sum()), score_threshold
    return [
        float(value[k]),
        float(misfit[k] / true[k]),  # 0 / 0 is NaN: nothing to average
        float(false[k] / k) if k else math.nan,
        float(1 - true[k] / part.objects),
        threshold,
    ]


class LRP(MatchingMetric):
    """LRP or optimal LRP of a detector over many batches, with torchmetrics' ``update``, ``compute`` and ``reset``.

    Args:
        score_threshold: as in :func:`lrp`; None: optimal LRP.
        tau, max_detections, area_range, box_format: as in :func:`match`.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range.

    Example:
        >>> import torch
        >>> from alrp_cuda.metrics import LRP
        >>> box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        >>> found = {"boxes": box, "scores": torch.tensor([0.6]), "labels": torch.tensor([2])}
        >>> metric = LRP()
        >>> metric.update([found], [{"boxes": box, "labels": torch.tensor([2])}])
        >>> metric.update([found], [{"boxes": box, "labels": torch.tensor([3])}])
        >>> out = metric.compute()
        >>> out.per_class.classes.tolist(), out.per_class.lrp.tolist()
        ([2, 3], [0.5, 1.0])
    """

    def __init__(
        self,
        *,
        score_threshold: float | None = None,
        tau: float = 0.5,
        max_detections: int = 100,
        area_range: str | tuple[float, float] | None = None,
        box_format: str = "xyxy",
    ) -> None:
        super().__init__(tau=tau, max_detections=max_detections, area_range=area_range, box_format=box_format)
        check_threshold(score_threshold)
        self.score_threshold = score_threshold

    def compute(self) -> LRPOutput:
        """:func:`lrp` of all images so far."""
        return lrp(self.matches, score_threshold=self.score_threshold)
