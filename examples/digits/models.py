"""Torchvision's detectors, made small enough for two CPU cores."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from ..common.assignment import assign_by_atss
from ..common.losses import Detector
from .data import CANVAS, CLASSES

STRIDES = (4, 8)
CHANNELS = 48
# Square roots of areas at both strides; a digit cropped to its ink is about 1.4 times as high as wide.
ANCHOR_SIZES = ((7, 9, 11), (13, 16, 20))
ANCHORS_OF_LEVELS = [len(sizes) * (CANVAS // stride) ** 2 for sizes, stride in zip(ANCHOR_SIZES, STRIDES, strict=True)]
INPUT = {"min_size": CANVAS, "max_size": CANVAS, "image_mean": [0.3], "image_std": [0.25]}
# AP is of ranked detections, and a ranking loss fixes the order of scores, not their level: keep the best ones.
DENSE = {"score_thresh": 0.0, "topk_candidates": 200, "detections_per_img": 50}


def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels, step in ((inputs, stride), (outputs, 1)):
        layers += [nn.Conv2d(channels, outputs, 3, step, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class Backbone(nn.Module):
    """Feature maps (N, channels, H, W) at strides 4 and 8 of images (N, 1, H, W)."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.out_channels = channels  # torchvision reads it
        self.stages = nn.ModuleList([block(1, 16, 2), block(16, 32, 2), block(32, 64, 2)])
        self.pyramid = FeaturePyramidNetwork([32, 64], channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for name, stage in zip(("stride 2", "stride 4", "stride 8"), self.stages, strict=True):
            x = maps[name] = stage(x)
        del maps["stride 2"]
        levels: dict[str, Tensor] = self.pyramid(maps)
        return levels


def make_anchors() -> AnchorGenerator:
    return AnchorGenerator(sizes=ANCHOR_SIZES, aspect_ratios=((1.4,),) * len(ANCHOR_SIZES))


def make_retinanet() -> RetinaNet:
    head = RetinaNetHead(CHANNELS, len(ANCHOR_SIZES[0]), CLASSES, norm_layer=partial(nn.GroupNorm, 8))
    return RetinaNet(Backbone(), CLASSES, anchor_generator=make_anchors(), head=head, **INPUT, **DENSE)


def make_retinanet_with_atss() -> RetinaNet:
    return assign_by_atss(make_retinanet(), ANCHORS_OF_LEVELS)


def make_fcos() -> FCOS:
    channels = 64  # torchvision's head normalises in 32 groups; with half its layers it costs as much as RetinaNet's here
    anchors = AnchorGenerator(sizes=tuple((stride,) for stride in STRIDES), aspect_ratios=((1.0,),) * len(STRIDES))
    head = FCOSHead(channels, 1, CLASSES, num_convs=2)
    return FCOS(Backbone(channels), CLASSES, anchor_generator=anchors, head=head, **INPUT, **DENSE)


def make_faster_rcnn() -> FasterRCNN:
    pool = MultiScaleRoIAlign([f"stride {stride}" for stride in STRIDES], output_size=5, sampling_ratio=2)
    return FasterRCNN(
        Backbone(),
        rpn_anchor_generator=make_anchors(),
        rpn_pre_nms_top_n_train=200,  # of each level
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_train=100,
        rpn_post_nms_top_n_test=100,
        box_roi_pool=pool,
        box_head=TwoMLPHead(CHANNELS * 5 * 5, 128),
        box_predictor=FastRCNNPredictor(128, CLASSES),
        box_score_thresh=0.0,
        box_detections_per_img=50,
        **INPUT,
    )


DETECTORS: dict[str, Callable[[], Detector]] = {
    "retinanet": make_retinanet,
    "retinanet-atss": make_retinanet_with_atss,
    "fcos": make_fcos,
    "faster-rcnn": make_faster_rcnn,
}
