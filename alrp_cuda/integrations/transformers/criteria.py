"""Transformers' criteria with rankings in the place of their class losses and, where these have one, of their GIoU losses."""

from typing import Any

import torch
from torch import Tensor
from transformers.loss.loss_d_fine import DFineForObjectDetectionLoss, DFineLoss
from transformers.loss.loss_deformable_detr import DeformableDetrForObjectDetectionLoss, DeformableDetrImageLoss
from transformers.loss.loss_deimv2 import Deimv2ForObjectDetectionLoss, Deimv2Loss
from transformers.loss.loss_lw_detr import LwDetrForObjectDetectionLoss, LwDetrImageLoss
from transformers.loss.loss_rt_detr import RTDetrForObjectDetectionLoss, RTDetrLoss

from ..queries import BOX_LOSS, CLASS_LOSS, QueryRanking

CLASS_LOSSES = ("vfl", "mal", "labels")  # what criteria call theirs
Losses = dict[str, Tensor]


class Ranked:
    """Mixed into a criterion, which matches as ever: each output of the decoder has a ranking, of its matched queries.

    Denoising queries keep their losses, and so does the encoder's output. That one has the places that were selected by their
    scores, and no others, so a ranking would tell nothing of the scores of the others, from among which it selects.

    Args:
        ranking: the losses of an output.
        others: those of the criterion.
    """

    # Whether it multiplies losses by ``weight_dict`` itself, and the last of its auxiliary outputs is the encoder's.
    like_rt_detr = False
    weight_dict: dict[str, float]

    def __init__(self, ranking: QueryRanking, *arguments: Any, **others: Any) -> None:
        super().__init__(*arguments, **others)
        self.ranking = ranking
        self.unranked: list[Any] = []
        if self.like_rt_detr:
            self.weight_dict = {**self.weight_dict, CLASS_LOSS: 1.0, BOX_LOSS: 1.0}

    def forward(self, outputs: dict[str, Any], targets: list[Losses]) -> Losses:
        encoder = outputs.get("auxiliary_outputs", [])[-1:] if self.like_rt_detr else [outputs.get("enc_outputs")]
        self.unranked = [*encoder, *outputs.get("dn_auxiliary_outputs", [])]
        losses: Losses = super().forward(outputs, targets)  # type: ignore[misc]
        return losses

    def get_loss(
        self, loss: str, outputs: dict[str, Any], targets: list[Losses], indices: list[tuple[Tensor, Tensor]], num_boxes: float
    ) -> Losses:
        ranked = all(outputs is not each for each in self.unranked)
        if ranked and loss in CLASS_LOSSES:
            return self.ranking.losses(
                outputs["logits"],
                outputs["pred_boxes"],
                torch.cat([torch.full_like(query, image) for image, (query, _) in enumerate(indices)]),
                torch.cat([query for query, _ in indices]),
                torch.cat([target["class_labels"][found] for target, (_, found) in zip(targets, indices, strict=True)]),
                torch.cat([target["boxes"][found] for target, (_, found) in zip(targets, indices, strict=True)]),
            )
        losses: Losses = super().get_loss(loss, outputs, targets, indices, num_boxes)  # type: ignore[misc]
        if ranked and self.ranking.has_box_loss:
            losses.pop("loss_giou", None)
        return losses


class RankedRTDetrLoss(Ranked, RTDetrLoss):
    like_rt_detr = True


class RankedDFineLoss(Ranked, DFineLoss):
    like_rt_detr = True


class RankedDeimv2Loss(Ranked, Deimv2Loss):
    like_rt_detr = True


class RankedLwDetrLoss(Ranked, LwDetrImageLoss):
    pass


class RankedDeformableDetrLoss(Ranked, DeformableDetrImageLoss):
    pass


# By the loss function that makes the criterion, under the name of the criterion's own class.
CRITERIA: dict[Any, tuple[str, Any]] = {
    RTDetrForObjectDetectionLoss: ("RTDetrLoss", RankedRTDetrLoss),
    DFineForObjectDetectionLoss: ("DFineLoss", RankedDFineLoss),
    Deimv2ForObjectDetectionLoss: ("Deimv2Loss", RankedDeimv2Loss),
    LwDetrForObjectDetectionLoss: ("LwDetrImageLoss", RankedLwDetrLoss),
    DeformableDetrForObjectDetectionLoss: ("DeformableDetrImageLoss", RankedDeformableDetrLoss),
}
