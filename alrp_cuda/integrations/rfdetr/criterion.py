"""RF-DETR's criterion with a ranking in the place of its class loss and, where this has one, of its GIoU loss."""

from typing import Any

import torch
from rfdetr.models.criterion import SetCriterion
from torch import Tensor

from ..queries import BOX_LOSS, CLASS_LOSS, QueryRanking

Losses = dict[str, Tensor]
Matches = list[tuple[Tensor, Tensor]]


class RankedCriterion(SetCriterion):
    """Matches as ever, and ranks the decoder's outputs. The encoder's has the places that were selected by their scores, and no
    others, so a ranking would tell nothing of the scores of the others, from among which it selects: it keeps its losses.

    It is a subclass since the framework compiles the losses of ``SetCriterion`` itself, past its methods.
    """

    ranking: QueryRanking
    own_weights: dict[str, float]
    encoder: Losses | None = None  # its output, during a call

    def forward(self, outputs: dict[str, Any], *arguments: Any, **others: Any) -> Losses:
        self.encoder = outputs.get("enc_outputs")
        try:
            losses: Losses = super().forward(outputs, *arguments, **others)
        finally:
            self.encoder = None  # holds a graph
        return losses

    def loss_labels(self, outputs: Losses, targets: list[Losses], indices: Matches, num_boxes: Tensor, **others: Any) -> Losses:
        """The ranking of one output: of all images, classes and groups of queries. What a padded match has is a negative."""
        losses: Losses = {}
        if outputs is self.encoder:
            losses = super().loss_labels(outputs, targets, indices, num_boxes, **others)
            return losses
        if others.get("log", True):  # its metrics, of the final output alone
            with torch.no_grad():
                losses = super().loss_labels(outputs, targets, indices, num_boxes, **others)
            del losses["loss_ce"]
        image, query = self._get_src_permutation_idx(indices)
        labels = torch.cat([target["labels"][found] for target, (_, found) in zip(targets, indices, strict=True)])
        boxes = torch.cat([target["boxes"][found] for target, (_, found) in zip(targets, indices, strict=True)])
        valid = self._matched_valid_mask(targets, indices)
        if valid is not None:
            real = valid.bool()
            image, query, labels, boxes = (each[real.to(each.device)] for each in (image, query, labels, boxes))
        ranked = self.ranking.losses(outputs["pred_logits"], outputs["pred_boxes"], image, query, labels, boxes)
        return {**losses, **ranked}

    def loss_boxes(self, outputs: Losses, targets: list[Losses], indices: Matches, num_boxes: Tensor, **others: Any) -> Losses:
        """The L1 loss, and GIoU loss unless a ranking stands for it."""
        losses: Losses = super().loss_boxes(outputs, targets, indices, num_boxes, **others)
        if self.ranking.has_box_loss and outputs is not self.encoder:
            del losses["loss_giou"]
        return losses


def rank(criterion: SetCriterion, ranking: QueryRanking) -> None:
    """Let a criterion rank from now on, in place: who holds it need not be told."""
    unrank(criterion)
    weights = criterion.weight_dict  # which say what is a loss to train on
    suffixes = [name.removeprefix("loss_ce") for name in weights if name.startswith("loss_ce") and not name.endswith("_enc")]
    criterion.__class__ = RankedCriterion
    criterion.ranking, criterion.own_weights = ranking, weights
    criterion.weight_dict = {**weights, **{name + suffix: 1.0 for suffix in suffixes for name in (CLASS_LOSS, BOX_LOSS)}}


def unrank(criterion: SetCriterion) -> None:
    """Make a criterion what it was before :func:`rank`, if it has been called."""
    if isinstance(criterion, RankedCriterion):
        criterion.weight_dict = criterion.own_weights
        del criterion.ranking, criterion.own_weights
        criterion.__class__ = SetCriterion
