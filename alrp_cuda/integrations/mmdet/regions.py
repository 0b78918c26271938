"""The box head of Faster R-CNN."""

from typing import Any

import torch
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from .ranking import RankingHead, RankingLoss, positives_of


class RegionRankingLoss(RankingLoss):
    """What a box head asks its classification loss for: scores are C sigmoids, not a softmax with a background class."""

    custom_cls_channels = True

    def get_cls_channels(self, num_classes: int) -> int:
        return num_classes

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """(R, C) logits to (R, C + 1) scores: the framework drops the last, the background's, which is 0."""
        return torch.nn.functional.pad(cls_score.sigmoid(), (0, 1))


class RoIRanking(RankingHead):
    """Goes before a ``BBoxHead`` in a class's bases. All regions of the batch are ranked together; one logit for each class, none
    for the background. Unless ``init_cfg`` says otherwise, scores begin at 0.01: a ranking moves only scores that compete, and
    the others should stay below the ``score_thr`` of a test.
    """

    criterion = RegionRankingLoss
    bbox_coder: Any
    init_cfg: Any
    reg_class_agnostic: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["reg_decoded_bbox"] = True  # so that box targets are the objects' boxes, not codes
        super().__init__(*args, **kwargs)
        if kwargs.get("init_cfg") is None:
            self.init_cfg.append({"type": "Normal", "std": 0.01, "bias_prob": 0.01, "override": {"name": "fc_cls"}})

    def loss(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        rois: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        bbox_weights: Tensor,
        reduction_override: str | None = None,
    ) -> dict[str, Tensor]:
        """As the framework's: (R, C) class scores and (R, 4 or 4 * C) box codes of R regions to the losses of the batch.
        Weights only select the regions that take part; ``reduction_override`` must be None."""
        if reduction_override is not None:
            raise ValueError(f"reduction_override must be None: a ranking is one number, got {reduction_override!r}")
        classes = torch.where(label_weights > 0, labels, -1)
        positive = positives_of(classes, self.num_classes)
        codes = bbox_pred.reshape(len(bbox_pred), bbox_pred.shape[1] // 4, 4)
        codes = codes[positive, 0 if self.reg_class_agnostic else classes[positive]].float()
        predicted = get_box_tensor(self.bbox_coder.decode(rois[positive, 1:], codes))
        return self.loss_cls(cls_score, classes, predicted, bbox_targets[positive])  # type: ignore[no-any-return]


@MODELS.register_module()
class ALRPShared2FCBBoxHead(RoIRanking, Shared2FCBBoxHead):
    """Faster R-CNN's box head with one ranking loss; arguments of ``Shared2FCBBoxHead``, and ``ranking``, see
    :class:`RankingLoss`. Set the sampler to ``PseudoSampler``: a ranking needs no balance of positives and negatives."""
