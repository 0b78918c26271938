"""FCOS, whose locations are points: the head's losses in one ranking, with or without centre-ness."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.models.detection import FCOS
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead
from torchvision.ops import generalized_box_iou_loss

from .class_maps import ClassMaps, as_maps, is_stock
from .positives import Positives, at_least_float32, beside, gather_positives
from .ranking import RankingLoss
from .replacement import MakeLoss, Replacement


def own_box_loss(predicted: Tensor, boxes: Tensor) -> Tensor:
    """FCOS's own: 1 - GIoU, mean over the positives."""
    total: Tensor = generalized_box_iou_loss(predicted, boxes, reduction="sum")
    return total / max(1, len(boxes))


@dataclass
class FCOSLoss:
    """In the place of ``FCOSHead.compute_loss``."""

    head: FCOSHead
    ranking: RankingLoss
    centerness: bool

    def __call__(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Any],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        scores, codes = head_outputs["cls_logits"], head_outputs["bbox_regression"]  # of all levels, or maps; (N, A, 4)
        count = scores.shape[-1] if isinstance(scores, Tensor) else self.head.classification_head.num_classes
        found = gather_positives(targets, codes, anchors, matched_idxs, count)
        logits, classes, positives = beside(scores, found, count)
        predicted = self.head.box_coder.decode(positives.codes, positives.anchors)
        own = partial(own_box_loss, predicted, positives.boxes)
        cls, box = self.ranking(logits, classes, predicted, positives.boxes, own)
        centerness = at_least_float32(head_outputs["bbox_ctrness"][..., 0])  # (N, A)
        # Without it 0, but connected: DDP waits for a gradient of the branch's parameters.
        loss = self.centerness_loss(centerness, positives) if self.centerness else centerness[:0].sum()
        return {"classification": cls, "bbox_regression": box, "bbox_ctrness": loss}

    def centerness_loss(self, centerness: Tensor, positives: Positives) -> Tensor:
        """Cross entropy against sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)), mean over the positives."""
        sides = self.head.box_coder.encode(positives.anchors, positives.boxes)  # left, top, right, bottom
        across, down = sides[:, 0::2], sides[:, 1::2]
        target = (across.amin(1) / across.amax(1) * down.amin(1) / down.amax(1)).sqrt()
        total = binary_cross_entropy_with_logits(centerness[positives.where], target.to(centerness.dtype), reduction="sum")
        return total / max(1, len(target))


@dataclass
class DetectionsWithoutCenterness:
    """In the place of ``FCOS.postprocess_detections``: scores by the class alone, sqrt(sigmoid(logit)).

    It is the model's own formula, sqrt(class score * centre-ness), with a centre-ness of 1, so that ``score_thresh`` keeps its
    meaning.
    """

    model: FCOS

    def __call__(
        self, head_outputs: dict[str, list[Tensor]], anchors: list[list[Tensor]], image_shapes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        certain = [torch.full_like(level, torch.inf) for level in head_outputs["bbox_ctrness"]]
        outputs = {**head_outputs, "bbox_ctrness": certain}
        detections: list[dict[str, Tensor]] = type(self.model).postprocess_detections(self.model, outputs, anchors, image_shapes)
        return detections


def replacements(model: FCOS, make_loss: MakeLoss, centerness: bool) -> list[Replacement]:
    """What makes an FCOS train by ranking."""
    head = model.head
    if not isinstance(head, FCOSHead):
        raise TypeError(f"model.head must be a torchvision FCOSHead, got {type(head).__name__}")
    ranking = make_loss()
    replaced = [
        Replacement(head, "ranking", ranking),
        Replacement(head, "compute_loss", FCOSLoss(head, ranking, centerness)),
    ]
    if not centerness:
        replaced.append(Replacement(model, "postprocess_detections", DetectionsWithoutCenterness(model)))
    scoring = head.classification_head
    known = is_stock(model, FCOS.forward, FCOS.compute_loss) and is_stock(head, FCOSHead.forward)
    known = known and is_stock(scoring, FCOSClassificationHead.forward)
    return replaced + as_maps(model, known, Replacement(scoring, "forward", ClassMaps(model, scoring)))
