"""SSD and SSDlite: all default boxes in one ranking, without hard negative mining."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.ssd import SSD, SSDHead, SSDScoringHead
from torchvision.models.detection.ssdlite import SSDLiteHead

from .class_maps import ForegroundMaps, as_maps, is_stock, last_of
from .positives import beside, code_loss, gather_positives
from .prior import ClassBias
from .ranking import RankingLoss
from .replacement import MakeLoss, Replacement
from .scores import postprocess, sigmoid_as_softmax


@dataclass
class SSDLoss:
    """In the place of ``SSD.compute_loss``."""

    model: SSD
    ranking: RankingLoss

    def __call__(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Any],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        scores, codes = head_outputs["cls_logits"], head_outputs["bbox_regression"]  # of all levels, or maps; (N, A, 4)
        if isinstance(scores, Tensor):
            scores = scores[..., 1:]
            count = scores.shape[-1]
        else:
            count = self.model.head.classification_head.num_columns - 1
        found = gather_positives(targets, codes, anchors, matched_idxs, count, first_label=1)
        logits, classes, positives = beside(scores, found, count)
        coder = self.model.box_coder
        predicted = coder.decode_single(positives.codes, positives.anchors)
        own = partial(code_loss, positives.codes, coder.encode_single(positives.boxes, positives.anchors), beta=1.0)
        cls, box = self.ranking(logits, classes, predicted, positives.boxes, own)
        return {"bbox_regression": box, "classification": cls}


@dataclass
class SSDDetections:
    """In the place of ``SSD.postprocess_detections``: scores by sigmoid."""

    model: SSD

    def __call__(
        self, head_outputs: dict[str, Tensor], image_anchors: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        logits = head_outputs["cls_logits"]
        classes = logits.shape[-1] - 1
        outputs = {**head_outputs, "cls_logits": sigmoid_as_softmax(logits)}
        detections: list[dict[str, Tensor]] = postprocess(self.model, classes, outputs, image_anchors, image_shapes)
        return [{**detected, "scores": detected["scores"] * classes} for detected in detections]


def class_bias(model: SSD) -> ClassBias | None:
    """A level ends in a convolution, alone or, in SSDlite, in a sequence. None for a head of another type."""
    head = getattr(model.head, "classification_head", None)
    if not isinstance(head, SSDScoringHead):
        return None
    layers = [last_of(level)[1] for level in head.module_list]
    return ClassBias(layers, 0.0, 0.0, head.num_columns, background=1)


def is_known(model: SSD) -> bool:
    """Whether the levels' modules are called as torchvision does, and end in ordinary convolutions."""
    head = model.head
    scoring = getattr(head, "classification_head", None)
    if not isinstance(scoring, SSDScoringHead):
        return False
    layers = [last_of(level)[1] for level in scoring.module_list]
    return (
        is_stock(model, SSD.forward)
        and (is_stock(head, SSDHead.forward) or is_stock(head, SSDLiteHead.forward))
        and is_stock(scoring, SSDScoringHead.forward, SSDScoringHead._get_result_from_module_list)
        and all(type(layer) is nn.Conv2d and layer.groups == 1 for layer in layers)
    )


def replacements(model: SSD, make_loss: MakeLoss) -> list[Replacement]:
    """What makes an SSD train by ranking."""
    ranking = make_loss()
    replaced = [
        Replacement(model, "ranking", ranking),
        Replacement(model, "compute_loss", SSDLoss(model, ranking)),
        Replacement(model, "postprocess_detections", SSDDetections(model)),
    ]
    known = is_known(model)
    scoring = model.head.classification_head if known else model.head
    return replaced + as_maps(model, known, Replacement(scoring, "forward", ForegroundMaps(model, scoring)))
