"""Heads with anchor boxes: RetinaNet, ATSS, and the RPN of Faster R-CNN."""

from typing import Any

import torch
from mmdet.models.dense_heads import ATSSHead, RetinaHead, RPNHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from .centerness import WithoutCenterness
from .ranking import DenseRankingHead, sizes


class AnchorRanking(DenseRankingHead):
    """Goes before an ``AnchorHead`` in a class's bases. Targets come from the head's assigner; anchors that it leaves out, and
    those that the sampler leaves out, are ignored."""

    get_anchors: Any
    get_targets: Any
    bbox_coder: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["reg_decoded_bbox"] = True  # so that box targets are the objects' boxes, not codes
        super().__init__(*args, **kwargs)

    def targets(
        self, cls_scores: list[Tensor], instances: list[Any], metas: list[dict[str, Any]], ignored: list[Any] | None
    ) -> tuple[Tensor, ...]:
        anchors, valid = self.get_anchors(sizes(cls_scores), metas, device=cls_scores[0].device)
        levels = anchors[0]  # the same in every image
        found = self.get_targets(anchors, valid, instances, metas, batch_gt_instances_ignore=ignored)
        labels, weights, boxes, _, _ = found[-5:]  # ATSSHead returns the anchors before these
        classes = torch.cat(
            [torch.where(weight > 0, label, -1).reshape(-1) for label, weight in zip(labels, weights, strict=True)]
        )
        return (
            classes,
            torch.cat([level.reshape(-1, 4) for level in boxes]),
            torch.cat([get_box_tensor(level).repeat(len(metas), 1) for level in levels]),
        )

    def boxes(self, codes: Tensor, *targets: Tensor) -> tuple[Tensor, Tensor]:
        boxes, anchors = targets
        return get_box_tensor(self.bbox_coder.decode(anchors, codes)), boxes


@MODELS.register_module()
class ALRPRetinaHead(AnchorRanking, RetinaHead):
    """RetinaNet's head with one ranking loss; arguments of ``RetinaHead``, and ``ranking``, see :class:`RankingLoss`."""


@MODELS.register_module()
class ALRPATSSHead(WithoutCenterness, AnchorRanking, ATSSHead):
    """ATSS's head with one ranking loss and without centre-ness; arguments of ``ATSSHead``, and ``ranking``, see
    :class:`RankingLoss`."""

    centerness_layer = "atss_centerness"


@MODELS.register_module()
class ALRPRPNHead(AnchorRanking, RPNHead):
    """The region proposal network with one ranking loss; arguments of ``RPNHead``, and ``ranking``, see :class:`RankingLoss`.

    Unless ``ranking`` says otherwise, the loss is weighted by 0.2 and tau is 0.7, as in the published code. Set the sampler to
    ``PseudoSampler``: a ranking needs no balance of positives and negatives.
    """

    def __init__(self, *args: Any, ranking: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, ranking={"loss_weight": 0.2, "tau": 0.7, **(ranking or {})}, **kwargs)

    def loss_by_feat(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        losses = super().loss_by_feat(*args, **kwargs)
        return {"loss_rpn_cls": losses["loss_cls"], "loss_rpn_bbox": losses["loss_bbox"]}
