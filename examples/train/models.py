"""Torchvision's detectors with small heads, for images padded to a square."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.ops import MultiScaleRoIAlign

from ..common.assignment import assign_by_atss
from ..common.losses import Detector
from .backbones import Backbone
from .features import pad

STRIDES = (8, 16, 32, 64)
CHANNELS = 48  # of the pyramid and the heads
FCOS_CHANNELS = 64  # torchvision's head normalises in 32 groups
CONVOLUTIONS = 2  # before the last ones, where torchvision has 4
SIZES = (2.0, 2.83)  # of anchors, in strides, half an octave apart: photographs this small have small objects
RATIOS = (0.5, 1.0, 2.0)
# AP is of ranked detections, and a ranking loss fixes the order of scores, not their level: keep the best ones.
DENSE = {"score_thresh": 0.0, "topk_candidates": 300, "detections_per_img": 100}


class Padding(nn.Module):
    """In the place of a detector's transform: images of at most size x size pixels are padded, and nothing else happens."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[ImageList, list[dict[str, Tensor]] | None]:
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        return ImageList(torch.stack([pad(image, self.size) for image in images]), sizes), targets

    def postprocess(
        self, result: list[dict[str, Tensor]], image_shapes: list[tuple[int, int]], original: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        return result


def anchors(sizes_in_strides: tuple[float, ...], ratios: tuple[float, ...]) -> AnchorGenerator:
    sizes = tuple(tuple(stride * size for size in sizes_in_strides) for stride in STRIDES)
    return AnchorGenerator(sizes=sizes, aspect_ratios=(ratios,) * len(STRIDES))


def retinanet(backbone: Backbone, classes: int, generator: AnchorGenerator) -> RetinaNet:
    (each, *_) = generator.num_anchors_per_location()
    head = RetinaNetHead(CHANNELS, each, classes, norm_layer=partial(nn.GroupNorm, 8))
    for part in (head.classification_head, head.regression_head):
        part.conv = part.conv[:CONVOLUTIONS]
    return RetinaNet(backbone, classes, anchor_generator=generator, head=head, **DENSE)


def make_retinanet(backbone: Backbone, classes: int, size: int) -> RetinaNet:
    return retinanet(backbone, classes, anchors(SIZES, RATIOS))


def make_retinanet_with_atss(backbone: Backbone, classes: int, size: int) -> RetinaNet:
    """With one square anchor a location, as ATSS was published."""
    model = retinanet(backbone, classes, anchors((3.0,), (1.0,)))
    return assign_by_atss(model, [(size // stride) ** 2 for stride in STRIDES])


def make_fcos(backbone: Backbone, classes: int, size: int) -> FCOS:
    head = FCOSHead(FCOS_CHANNELS, 1, classes, num_convs=CONVOLUTIONS)
    return FCOS(backbone, classes, anchor_generator=anchors((1.0,), (1.0,)), head=head, **DENSE)


def make_faster_rcnn(backbone: Backbone, classes: int, size: int) -> FasterRCNN:
    generator = anchors((3.0,), RATIOS)
    pool = MultiScaleRoIAlign([f"stride {stride}" for stride in STRIDES[:3]], output_size=5, sampling_ratio=2)
    return FasterRCNN(
        backbone,
        rpn_anchor_generator=generator,
        rpn_head=RPNHead(CHANNELS, len(RATIOS)),
        rpn_pre_nms_top_n_train=500,  # of each level
        rpn_pre_nms_top_n_test=500,
        rpn_post_nms_top_n_train=200,
        rpn_post_nms_top_n_test=200,
        box_roi_pool=pool,
        box_head=TwoMLPHead(CHANNELS * 5 * 5, 128),
        box_predictor=FastRCNNPredictor(128, classes),
        box_score_thresh=0.0,
    )


def make_ssd(backbone: Backbone, classes: int, size: int) -> SSD:
    scales = [2.0 * stride / size for stride in (*STRIDES, 2 * STRIDES[-1])]
    generator = DefaultBoxGenerator([[2]] * len(STRIDES), scales=scales, steps=list(STRIDES))
    head = SSDHead([CHANNELS] * len(STRIDES), generator.num_anchors_per_location(), classes)
    return SSD(backbone, generator, (size, size), classes, head=head, nms_thresh=0.5, **DENSE)


DETECTORS: dict[str, Callable[[Backbone, int, int], Detector]] = {
    "retinanet": make_retinanet,
    "retinanet-atss": make_retinanet_with_atss,
    "fcos": make_fcos,
    "faster-rcnn": make_faster_rcnn,
    "ssd": make_ssd,
}


def channels_of(name: str) -> int:
    """Those of the pyramid that a detector takes."""
    return FCOS_CHANNELS if name == "fcos" else CHANNELS


def make_detector(name: str, backbone: Backbone, objects: int, size: int) -> Detector:
    """A detector of the classes 1, 2, ... ``objects``; 0 is background, as torchvision counts."""
    model = DETECTORS[name](backbone, 1 + objects, size)
    model.transform = Padding(size)
    return model
