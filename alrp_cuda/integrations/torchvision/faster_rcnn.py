"""Faster R-CNN, also with masks or keypoints: one ranking of all anchors in the RPN, and one of all proposals in the box head."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from ...inputs import Tensors
from ...levels import head_views, order_by_level, split_targets
from .class_maps import as_maps, is_stock
from .positives import at_least_float32, check_labels, code_loss
from .prior import ClassBias
from .ranking import RankingLoss
from .replacement import MakeLoss, Replacement
from .roi_losses import losses_of_neighbours
from .scores import postprocess, sigmoid_as_softmax

BETA = 1 / 9  # of torchvision's smooth L1, in both stages
RPN_TAU = 0.7
RPN_WEIGHT = 0.2

Detections = tuple[list[Tensor], list[Tensor], list[Tensor]]


def losses_of_codes(
    ranking: RankingLoss, coder: BoxCoder, logits: Tensors, classes: Tensors, codes: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """(class loss, box loss) where torchvision hands on codes (P, 4) of the positives' objects, but not their anchors.

    Overlaps of two boxes do not change when an axis is moved or scaled, so that any anchor will do for decoding both. This one
    has the size of boxes in pixels, beside which the constant that keeps GIoU from dividing by 0 is nothing.
    """
    codes = at_least_float32(codes)
    anchors = codes.new_tensor([0.0, 0.0, 100.0, 100.0]).expand(len(codes), 4)
    predicted, boxes = (coder.decode_single(c, anchors) for c in (codes, targets.to(codes.dtype)))
    own = partial(code_loss, codes, targets, BETA)
    return ranking(logits, classes, predicted, boxes, own)  # type: ignore[no-any-return]


@dataclass
class RPNLoss:
    """In the place of ``RegionProposalNetwork.compute_loss``: of all anchors, not of a sample."""

    rpn: RegionProposalNetwork
    ranking: RankingLoss

    def __setstate__(self, state: dict[str, Any]) -> None:
        weight = state.pop("weight", None)
        vars(self).update(state)
        if weight is not None:  # version 0.1 kept it here
            self.ranking.loss_weight = weight

    def __call__(
        self, objectness: Tensors, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        label = torch.stack(labels)  # (N, A): 1, 0 or -1, which takes no part
        positive = label > 0
        where = positive.flatten().nonzero()[:, 0]
        indices = torch.where(label < 0, -1, 1 - label).long()  # the one class is 0, so background is 1
        logits: Tensors
        classes: Tensors
        if isinstance(objectness, Tensor):
            logits, classes = objectness.reshape(-1, 1), indices.flatten()
        else:  # each level's map
            where = order_by_level(where, positive, objectness, 1)
            logits, classes = head_views(objectness, 1), split_targets(indices, objectness, 1)
        codes, targets = pred_bbox_deltas[where], torch.cat(regression_targets)[where]
        return losses_of_codes(self.ranking, self.rpn.box_coder, logits, classes, codes, targets)


@dataclass
class RPNForward:
    """In the place of ``RegionProposalNetwork.forward``, which joins objectness before the loss. In training the loss gets the
    maps; proposals are chosen by the joined scores, which no gradient flows through."""

    rpn: RegionProposalNetwork

    def __call__(
        self, images: ImageList, features: dict[str, Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        rpn = self.rpn
        if not rpn.training:
            return type(rpn).forward(rpn, images, features, targets)  # type: ignore[no-any-return]
        levels = list(features.values())
        maps, codes = rpn.head(levels)
        anchors = rpn.anchor_generator(images, levels)
        deltas = torch.cat([view.flatten(1, 3) for view in head_views(codes, 4)], 1)  # (N, A, 4)
        scores = torch.cat([view.flatten(1) for view in head_views([level.detach() for level in maps], 1)], 1)  # (N, A)
        proposals = rpn.box_coder.decode(deltas.detach().flatten(0, 1), anchors).view(deltas.shape)
        sizes = [level[0].numel() for level in maps]
        boxes, _ = rpn.filter_proposals(proposals, scores, images.image_sizes, sizes)
        labels, matched = rpn.assign_targets_to_anchors(anchors, targets)
        wanted = rpn.box_coder.encode(matched, anchors)
        cls, box = rpn.compute_loss(maps, deltas.flatten(0, 1), labels, wanted)
        return boxes, {"loss_objectness": cls, "loss_rpn_box_reg": box}


@dataclass
class BoxHeadForward:
    """In the place of ``RoIHeads.forward``, whose losses are no method."""

    heads: RoIHeads
    ranking: RankingLoss

    def __call__(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        heads = self.heads
        if not heads.training:
            return type(heads).forward(heads, features, proposals, image_shapes, targets)  # type: ignore[no-any-return]
        proposals, matched, labels, regression_targets = heads.select_training_samples(proposals, targets)
        class_logits, codes = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, proposals, image_shapes)))
        logits = class_logits[:, 1:]  # (R, C)
        label = torch.cat(labels)  # 1..C, or 0 for background
        objects = targets or []
        check_labels(torch.cat([t["labels"] for t in objects]), 1, logits.shape[-1])
        positive = (label > 0).nonzero()[:, 0]
        classes = torch.where(label > 0, label - 1, logits.shape[-1])
        of_label = codes.view(len(codes), -1, 4)[positive, label[positive]]
        cls, box = losses_of_codes(
            self.ranking, heads.box_coder, logits, classes, of_label, torch.cat(regression_targets)[positive]
        )
        others = losses_of_neighbours(heads, features, proposals, matched, labels, image_shapes, objects)
        return [], {"loss_classifier": cls, "loss_box_reg": box, **others}


def all_proposals(labels: list[Tensor]) -> list[Tensor]:
    """In the place of ``RoIHeads.subsample``: every proposal but those between the matcher's thresholds."""
    return [(label >= 0).nonzero()[:, 0] for label in labels]


@dataclass
class BoxHeadDetections:
    """In the place of ``RoIHeads.postprocess_detections``: scores by sigmoid."""

    heads: RoIHeads

    def __call__(
        self, class_logits: Tensor, box_regression: Tensor, proposals: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Detections:
        classes = class_logits.shape[-1] - 1
        logits = sigmoid_as_softmax(class_logits)
        boxes, scores, labels = postprocess(self.heads, classes, logits, box_regression, proposals, image_shapes)
        return boxes, [score * classes for score in scores], labels


def class_bias(model: FasterRCNN) -> ClassBias | None:
    """That of the box head. None for a predictor of another type.

    The RPN's stays: its proposals are the best by order, and some builds drop those with an objectness below 0.05.
    """
    layer = getattr(model.roi_heads.box_predictor, "cls_score", None)
    if not isinstance(layer, nn.Linear):
        return None
    reach = 1 / math.sqrt(layer.in_features)  # of nn.Linear's own initialiser
    return ClassBias([layer], -reach, reach, layer.out_features, background=1)


def replacements(model: FasterRCNN, make_loss: MakeLoss, rpn_tau: float, rpn_weight: float) -> list[Replacement]:
    """What makes a Faster R-CNN train by ranking."""
    rpn, heads = model.rpn, model.roi_heads
    first, second = make_loss(tau=rpn_tau, loss_weight=rpn_weight, correlation=0.0), make_loss()
    replaced = [
        Replacement(rpn, "ranking", first),
        Replacement(rpn, "compute_loss", RPNLoss(rpn, first)),
        Replacement(heads, "ranking", second),
        Replacement(heads, "forward", BoxHeadForward(heads, second)),
        Replacement(heads, "subsample", all_proposals),
        Replacement(heads, "postprocess_detections", BoxHeadDetections(heads)),
    ]
    known = is_stock(rpn, RegionProposalNetwork.forward)
    return replaced + as_maps(model, known, Replacement(rpn, "forward", RPNForward(rpn)))
