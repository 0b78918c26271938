"""SSD and SSDlite: all default boxes in one ranking, without hard negative mining."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor
from torchvision.models.detection.ssd import SSD, SSDScoringHead

from .positives import code_loss, gather_positives
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
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        logits, codes = head_outputs["cls_logits"][..., 1:], head_outputs["bbox_regression"]  # (N, A, C), (N, A, 4)
        positives = gather_positives(targets, codes, anchors, matched_idxs, logits.shape[-1], first_label=1)
        coder = self.model.box_coder
        predicted = coder.decode_single(positives.codes, positives.anchors)
        own = partial(code_loss, positives.codes, coder.encode_single(positives.boxes, positives.anchors), beta=1.0)
        cls, box = self.ranking(logits, positives.classes, predicted, positives.boxes, own)
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
    layers = [list(level.modules())[-1] for level in head.module_list]
    return ClassBias(layers, 0.0, 0.0, head.num_columns, background=1)


def replacements(model: SSD, make_loss: MakeLoss) -> list[Replacement]:
    """What makes an SSD train by ranking."""
    ranking = make_loss()
    return [
        Replacement(model, "ranking", ranking),
        Replacement(model, "compute_loss", SSDLoss(model, ranking)),
        Replacement(model, "postprocess_detections", SSDDetections(model)),
    ]
