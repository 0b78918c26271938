"""How good detections on canvases are."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..common.evaluation import Detections, measure, real
from .data import CANVAS, NAMES, Batch


@dataclass
class Evaluation:
    """Numbers of a model on a batch of canvases, with what they were computed from."""

    canvases: Batch
    detections: Detections
    numbers: dict[str, float]  # AP, AP50, AP75, AP90, oLRP and rho
    thresholds: Tensor  # (CLASSES,), for each class the score with the best F1 at IoU 0.5


@torch.no_grad()
def evaluate(model: nn.Module, canvases: Batch) -> Evaluation:
    model.eval()
    images, targets = canvases
    detections = [real(found) for i in range(0, len(images), 50) for found in model(images[i : i + 50])]
    measured = measure(detections, targets, [(CANVAS, CANVAS)] * len(images), NAMES)
    return Evaluation(canvases, detections, measured.numbers, measured.thresholds)
