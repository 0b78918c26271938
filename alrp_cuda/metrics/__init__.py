"""Measuring detectors as the aLRP paper does: LRP, score-IoU correlation, bounds of the order, gradient balance.

Every metric has ``update``, ``compute`` and ``reset`` as torchmetrics has them, and most a functional form; they need torch and
numpy alone.

Example:
    >>> import torch
    >>> from alrp_cuda.metrics import LRP
    >>> found = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 9.0]]), "scores": torch.tensor([0.8]), "labels": torch.tensor([1])}
    >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]]), "labels": torch.tensor([1])}
    >>> metric = LRP()
    >>> metric.update([found], [truth])
    >>> round(float(metric.compute().lrp), 4)  # (1 - 0.9) / (1 - 0.5)
    0.2
"""

from .bounds import OrderBounds, OrderBoundsOutput, OrderQuality, order_bounds
from .correlation import CorrelationOutput, ScoreIoUCorrelation, correlation, score_iou_correlation
from .gradients import GradientBalance
from .lrp import LRP, ClassLRP, LRPOutput, lrp
from .matching import Matches, join, match, match_coco

__all__ = [
    "LRP",
    "ClassLRP",
    "CorrelationOutput",
    "GradientBalance",
    "LRPOutput",
    "Matches",
    "OrderBounds",
    "OrderBoundsOutput",
    "OrderQuality",
    "ScoreIoUCorrelation",
    "correlation",
    "join",
    "lrp",
    "match",
    "match_coco",
    "order_bounds",
    "score_iou_correlation",
]
