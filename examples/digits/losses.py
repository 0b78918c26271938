"""What the detectors train with."""

from collections.abc import Callable
from functools import partial

from torchvision.models.detection import RetinaNet

from alrp_cuda.integrations.torchvision import use_alrp

from .models import Detector

# No score needs to pass a threshold here (models.py), and the results in docs/exhibit.md are of torchvision's own class bias.
rank = partial(use_alrp, prior_probability=None)


def self_balanced(model: Detector, epoch_length: int, errors: str) -> None:
    rank(model, errors=errors, balance="self", epoch_length=epoch_length)


def weighed_equally(model: Detector, epoch_length: int, errors: str) -> None:
    rank(model, errors=errors)


def ap_and_smooth_l1(model: Detector, epoch_length: int) -> None:
    if isinstance(model, RetinaNet):
        model.head.regression_head._loss_type = "smooth_l1"  # torchvision has no argument for it
    rank(model, loss="ap")


def rank_and_sort(model: Detector, epoch_length: int) -> None:
    rank(model, loss="rank_sort")


def own(model: Detector, epoch_length: int) -> None:
    """RetinaNet: Focal Loss and L1. FCOS: Focal Loss, GIoU and centre-ness. Faster R-CNN: cross entropy and smooth L1."""


# Each takes a detector as torchvision has it and the iterations of an epoch, and changes the detector.
LOSSES: dict[str, Callable[[Detector, int], None]] = {
    "alrp-giou-self": partial(self_balanced, errors="giou"),
    "alrp-iou-self": partial(self_balanced, errors="iou"),
    "alrp-giou": partial(weighed_equally, errors="giou"),
    "alrp-iou": partial(weighed_equally, errors="iou"),
    "ap": ap_and_smooth_l1,
    "rank-sort": rank_and_sort,
    "own": own,
}
