"""RetinaNet: the head's losses in one ranking, and ATSS in the place of the matcher."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.retinanet import RetinaNetClassificationHead, RetinaNetHead

from .assign import atss
from .class_maps import ClassMaps, as_maps, is_stock
from .positives import beside, gather_positives
from .ranking import RankingLoss
from .replacement import MakeLoss, Replacement

LOCATIONS = "locations"  # of each level, beside the head's outputs in training


@dataclass
class RetinaNetLoss:
    """In the place of ``RetinaNetHead.compute_loss``."""

    head: RetinaNetHead
    ranking: RankingLoss

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
        head = self.head.regression_head
        predicted = head.box_coder.decode_single(positives.codes, positives.anchors)
        own = partial(head.compute_loss, targets, head_outputs, anchors, matched_idxs)
        cls, box = self.ranking(logits, classes, predicted, positives.boxes, own)
        return {"classification": cls, "bbox_regression": box}


@dataclass
class HeadWithLocations:
    """In the place of ``RetinaNetHead.forward``: adds how many locations each level has, which only the features show."""

    head: RetinaNetHead

    def __call__(self, features: list[Tensor]) -> dict[str, Any]:
        outputs: dict[str, Any] = type(self.head).forward(self.head, features)
        if self.head.training:  # evaluation splits every output by levels
            outputs[LOCATIONS] = [f.shape[-2] * f.shape[-1] for f in features]
        return outputs


@dataclass
class ATSSMatches:
    """In the place of ``RetinaNet.compute_loss``."""

    head: RetinaNetHead

    def __call__(
        self, targets: list[dict[str, Tensor]], head_outputs: dict[str, Any], anchors: list[Tensor]
    ) -> dict[str, Tensor]:
        locations = head_outputs[LOCATIONS]
        each = len(anchors[0]) // sum(locations)
        sizes = [each * n for n in locations]
        matched_idxs = [atss(a, sizes, t["boxes"]) for a, t in zip(anchors, targets, strict=True)]
        losses: dict[str, Tensor] = self.head.compute_loss(targets, head_outputs, anchors, matched_idxs)
        return losses


def replacements(model: RetinaNet, make_loss: MakeLoss, assign: str | None) -> list[Replacement]:
    """What makes a RetinaNet train by ranking."""
    head = model.head
    if not isinstance(head, RetinaNetHead):
        raise TypeError(f"model.head must be a torchvision RetinaNetHead, got {type(head).__name__}")
    ranking = make_loss()
    replaced = [Replacement(head, "ranking", ranking), Replacement(head, "compute_loss", RetinaNetLoss(head, ranking))]
    if assign == "atss":
        replaced += [Replacement(head, "forward", HeadWithLocations(head)), Replacement(model, "compute_loss", ATSSMatches(head))]
    scoring = head.classification_head
    known = is_stock(model, RetinaNet.forward, RetinaNet.compute_loss) and is_stock(head, RetinaNetHead.forward)
    known = known and is_stock(scoring, RetinaNetClassificationHead.forward)
    return replaced + as_maps(model, known, Replacement(scoring, "forward", ClassMaps(model, scoring)))
