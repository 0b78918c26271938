"""RetinaNet: the head's losses in one ranking, and ATSS in the place of the matcher."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead

from .assign import atss
from .positives import gather_positives
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
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        logits, codes = head_outputs["cls_logits"], head_outputs["bbox_regression"]  # (N, A, C), (N, A, 4)
        positives = gather_positives(targets, codes, anchors, matched_idxs, logits.shape[-1])
        head = self.head.regression_head
        predicted = head.box_coder.decode_single(positives.codes, positives.anchors)
        own = partial(head.compute_loss, targets, head_outputs, anchors, matched_idxs)
        cls, box = self.ranking(logits, positives.classes, predicted, positives.boxes, own)
        return {"classification": cls, "bbox_regression": box}


@dataclass
class HeadWithLocations:
    """In the place of ``RetinaNetHead.forward``: adds how many locations each level has, which only the features show."""

    head: RetinaNetHead

    def __call__(self, features: list[Tensor]) -> dict[str, Tensor | list[int]]:
        outputs: dict[str, Tensor | list[int]] = type(self.head).forward(self.head, features)
        if self.head.training:  # evaluation splits every output by levels
            outputs[LOCATIONS] = [f.shape[-2] * f.shape[-1] for f in features]
        return outputs


@dataclass
class ATSSMatches:
    """In the place of ``RetinaNet.compute_loss``."""

    head: RetinaNetHead

    def __call__(
        self, targets: list[dict[str, Tensor]], head_outputs: dict[str, Tensor], anchors: list[Tensor]
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
    return replaced
