"""What the detectors train with."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD

from alrp_cuda.integrations.torchvision import use_alrp

Detector: TypeAlias = RetinaNet | FCOS | FasterRCNN | SSD


def self_balanced(model: Detector, epoch_length: int, errors: str, **options: Any) -> None:
    use_alrp(model, errors=errors, balance="self", epoch_length=epoch_length, **options)


def weighed_equally(model: Detector, epoch_length: int, errors: str, **options: Any) -> None:
    use_alrp(model, errors=errors, **options)


def ap_and_smooth_l1(model: Detector, epoch_length: int, **options: Any) -> None:
    if isinstance(model, RetinaNet):
        model.head.regression_head._loss_type = "smooth_l1"  # torchvision has no argument for it
    use_alrp(model, loss="ap", **options)


def rank_and_sort(model: Detector, epoch_length: int, **options: Any) -> None:
    use_alrp(model, loss="rank_sort", **options)


def own(model: Detector, epoch_length: int, **options: Any) -> None:
    """RetinaNet: Focal Loss and L1. FCOS: Focal Loss, GIoU and centre-ness. Faster R-CNN and SSD: cross entropy and smooth L1."""


# Each takes a detector as torchvision has it, the iterations of an epoch and more options of use_alrp, and changes the detector.
LOSSES: dict[str, Callable[..., None]] = {
    "alrp-giou-self": partial(self_balanced, errors="giou"),
    "alrp-iou-self": partial(self_balanced, errors="iou"),
    "alrp-giou": partial(weighed_equally, errors="giou"),
    "alrp-iou": partial(weighed_equally, errors="iou"),
    "ap": ap_and_smooth_l1,
    "rank-sort": rank_and_sort,
    "own": own,
}
