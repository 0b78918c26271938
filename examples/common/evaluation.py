"""How good detections are: COCO AP, optimal LRP, correlation of score and IoU."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from torch import Tensor

from alrp_cuda.metrics import LRPOutput, correlation, lrp, match

Detections = list[dict[str, Tensor]]


@dataclass
class Measured:
    """Numbers of detections on some images."""

    numbers: dict[str, float]  # AP, AP50, AP75, AP90, oLRP and rho
    thresholds: Tensor  # (1 + classes,), for each class the score with the best F1 at IoU 0.5
    lrp: LRPOutput


def coco_ground_truth(targets: list[dict[str, Tensor]], sizes: Sequence[tuple[int, int]], names: Sequence[str]) -> dict[str, Any]:
    """COCO's dataset of images 0, 1, ... with these (width, height) and of categories 1, 2, ... with these names."""
    annotations: list[dict[str, Any]] = []
    for image, target in enumerate(targets):
        crowds = target["iscrowd"].tolist() if "iscrowd" in target else [0] * len(target["labels"])
        for (x1, y1, x2, y2), label, crowd in zip(target["boxes"].tolist(), target["labels"].tolist(), crowds, strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(crowd),
                }
            )
    images = [{"id": image, "width": width, "height": height} for image, (width, height) in enumerate(sizes)]
    categories = [{"id": label, "name": name} for label, name in enumerate(names, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_results(detections: Detections) -> np.ndarray:
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


def measure(
    detections: Detections, targets: list[dict[str, Tensor]], sizes: Sequence[tuple[int, int]], names: Sequence[str]
) -> Measured:
    """Measure detections of classes 1, 2, ... on images with these objects, (width, height) and names of classes."""
    truth = COCO(coco_ground_truth(targets, sizes, names))
    coco = COCOeval_faster(truth, truth.loadRes(coco_results(detections)), "bbox")
    coco.evaluate()
    coco.accumulate()
    coco.summarize()
    # (IoU threshold, recall threshold, class, area range, number of detections)
    precisions, scores = (torch.as_tensor(coco.eval[name][:, :, :, 0, -1]) for name in ("precision", "scores"))
    precision, at_90 = precisions[0], precisions[np.isclose(coco.params.iouThrs, 0.9)]
    recall = torch.as_tensor(coco.params.recThrs)[:, None]
    best = (precision * recall / (precision + recall).clamp(min=1e-9)).argmax(0, keepdim=True)
    # Background, and a class without objects (-1), would never be drawn.
    thresholds = scores[0].gather(0, best)[0].where(precision[0] >= 0, torch.inf)
    matches = match(detections, targets)
    components = lrp(matches)
    numbers = dict(zip(("AP", "AP50", "AP75"), map(float, coco.stats[:3]), strict=True))
    numbers["AP90"] = float(at_90[at_90 >= 0].mean())
    numbers["oLRP"] = components.lrp.item()
    numbers["rho"] = correlation(matches).rho.item()
    return Measured(numbers, torch.cat((torch.tensor([torch.inf]), thresholds)), components)
