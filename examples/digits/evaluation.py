"""How good detections are: COCO AP, optimal LRP, correlation of score and IoU."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from torch import Tensor, nn

from alrp_cuda.metrics import correlation, lrp, match

from .data import CANVAS, CLASSES, Batch


@dataclass
class Evaluation:
    """Numbers of a model on a batch of canvases, with what they were computed from."""

    canvases: Batch
    detections: list[dict[str, Tensor]]
    numbers: dict[str, float]  # AP, AP50, AP75, AP90, oLRP and rho
    thresholds: Tensor  # (CLASSES,), for each class the score with the best F1 at IoU 0.5


def coco_ground_truth(targets: list[dict[str, Tensor]]) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for image, target in enumerate(targets):
        for (x1, y1, x2, y2), label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    images = [{"id": image, "width": CANVAS, "height": CANVAS} for image in range(len(targets))]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": label, "name": str(label - 1)} for label in range(1, CLASSES)],
    }


def coco_results(detections: list[dict[str, Tensor]]) -> np.ndarray:
    """Rows of image, x, y, width, height, score, class."""
    rows = []
    for image, found in enumerate(detections):
        x1, y1, x2, y2 = found["boxes"].double().unbind(1)
        rows.append(torch.stack((torch.full_like(x1, image), x1, y1, x2 - x1, y2 - y1, found["scores"], found["labels"]), 1))
    return torch.cat(rows).numpy()


def real(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without detections of class 0, whose logits dense heads have and no object."""
    keep = found["labels"] > 0
    return {name: value[keep] for name, value in found.items()}


@torch.no_grad()
def evaluate(model: nn.Module, canvases: Batch) -> Evaluation:
    model.eval()
    images, targets = canvases
    detections = [real(found) for i in range(0, len(images), 50) for found in model(images[i : i + 50])]
    truth = COCO(coco_ground_truth(targets))
    coco = COCOeval_faster(truth, truth.loadRes(coco_results(detections)), "bbox")
    coco.evaluate()
    coco.accumulate()
    coco.summarize()
    # (IoU threshold, recall threshold, class, area range, number of detections)
    precisions, scores = (torch.as_tensor(coco.eval[name][:, :, :, 0, -1]) for name in ("precision", "scores"))
    precision, at_90 = precisions[0], precisions[np.isclose(coco.params.iouThrs, 0.9)]
    recall = torch.as_tensor(coco.params.recThrs)[:, None]
    best = (precision * recall / (precision + recall).clamp(min=1e-9)).argmax(0, keepdim=True)
    # The class without objects would never be drawn.
    thresholds = torch.cat((torch.tensor([torch.inf]), scores[0].gather(0, best)[0]))
    matches = match(detections, targets)
    numbers = dict(zip(("AP", "AP50", "AP75"), map(float, coco.stats[:3]), strict=True))
    numbers["AP90"] = float(at_90[at_90 >= 0].mean())  # -1: a class without objects
    numbers["oLRP"] = lrp(matches).lrp.item()
    numbers["rho"] = correlation(matches).rho.item()
    return Evaluation(canvases, detections, numbers, thresholds)
