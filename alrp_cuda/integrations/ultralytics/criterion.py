"""One ranking in the place of the three losses of a detection criterion, which still decodes and assigns."""

from typing import Any

import torch
from torch import Tensor
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import E2ELoss, v8DetectionLoss

from ..ranking import RankingLoss


class RankedLoss:
    """In the place of ``loss`` of one ``v8DetectionLoss``.

    The criterion computes boxes and assigns objects as ever, and hands the results to its ``bce`` and its ``bbox_loss``. Both
    only keep here what they are given, so that what the criterion divides and multiplies afterwards (the sum of target
    scores, gains, batch size) never meets a loss of ours.

    Args:
        criterion: the criterion, which is changed.
        ranking: the loss of scores and boxes.
        labels: "iou" or "assigner", the labels of Rank & Sort Loss.
        dfl_weight: what distribution focal loss (L1, where boxes have no bins) is multiplied by.
        world_size: how many processes the trainer adds gradients up over, instead of averaging them.
    """

    def __init__(
        self, criterion: v8DetectionLoss, ranking: RankingLoss, *, labels: str, dfl_weight: float, world_size: int
    ) -> None:
        self.criterion, self.ranking = criterion, ranking
        self.labels, self.dfl_weight, self.world_size = labels, dfl_weight, world_size
        self.own_box_loss = criterion.bbox_loss
        self.seen: dict[str, Any] = {}
        criterion.assigner.register_forward_hook(self._see_assigned)
        criterion.bce, criterion.bbox_loss = self._see_scores, self._see_boxes
        criterion.loss = self

    def __call__(self, preds: dict[str, Tensor], batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses of a batch, as the criterion's own ``loss`` returns them.

        Args:
            preds: "scores" (N, C, anchors), logits; "boxes" (N, 4 * bins, anchors); "feats", the feature maps.
            batch: the objects: "batch_idx" (M,), "cls" (M,) and "bboxes" (M, 4).

        Returns:
            (3,), the losses of boxes, classes and bins, whose sum is trained on; and their values by name.
        """
        # A half type is too coarse for boxes. The logits stay as they are.
        with torch.autocast(preds["scores"].device.type, enabled=False):
            self.criterion.get_assigned_targets_and_loss({**preds, "boxes": preds["boxes"].float()}, batch)
            losses = self._rank(**self.seen)
        self.seen = {}  # holds a graph
        return losses / self.world_size, dict(zip(self.criterion.loss_names, losses.detach(), strict=True))

    def _rank(self, assigned: Tensor, logits: Tensor, arguments: tuple[Tensor, ...]) -> Tensor:
        _, predicted, _, boxes, target_scores, _, foreground, *_ = arguments
        classes = torch.where(foreground, assigned, logits.shape[-1]).long()
        own, dfl = self.own_box_loss(*arguments)
        labels = target_scores[foreground].sum(-1).float() if self.labels == "assigner" else None
        cls, box = self.ranking(logits, classes, predicted[foreground], boxes[foreground], lambda: own, labels)
        return torch.stack((box, cls, self.dfl_weight * dfl))

    def _see_assigned(self, module: torch.nn.Module, inputs: Any, outputs: tuple[Tensor, ...]) -> None:
        self.seen["assigned"] = outputs[0]  # the classes; the scores of a foreground anchor may all be 0

    def _see_scores(self, logits: Tensor, target_scores: Tensor) -> Tensor:
        self.seen["logits"] = logits
        return logits.new_zeros(())

    def _see_boxes(self, *arguments: Tensor) -> tuple[float, float]:
        self.seen["arguments"] = arguments
        return 0.0, 0.0


def check_model(name: str, model: object) -> None:
    """Raise TypeError unless ``model`` is a detector whose criterion is known here."""
    if type(model) is not DetectionModel:  # a subclass has another criterion
        expected = "a DetectionModel (YOLOv3 to YOLO26; no segments, poses, rotated boxes, prompts or distillation)"
        raise TypeError(f"{name} must be {expected}, got {type(model).__name__}")


def branches(criterion: object) -> list[v8DetectionLoss]:
    """The criteria of the heads: two of an end-to-end model, else one."""
    found = [criterion.one2many, criterion.one2one] if isinstance(criterion, E2ELoss) else [criterion]
    for branch in found:
        if type(branch) is not v8DetectionLoss:
            raise TypeError(f"criterion must be a v8DetectionLoss or an E2ELoss of two, got {type(branch).__name__}")
    return found
