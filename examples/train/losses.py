"""What the detectors train with: the losses of all examples, and one that tells boxes from ranking."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torchvision.models.detection import RetinaNet

from alrp_cuda.distributed import scale_for_ddp

from ..common.losses import LOSSES as SHARED
from ..common.losses import Detector

CLASS_LOSSES = ("classification", "loss_classifier", "loss_objectness")


def own_with_giou(model: Detector, epoch_length: int, **options: Any) -> None:
    """Focal Loss and GIoU."""
    if not isinstance(model, RetinaNet):
        raise ValueError(f"--loss own-giou must have a RetinaNet, got {type(model).__name__}")
    model.head.regression_head._loss_type = "giou"  # torchvision has no argument for it


LOSSES: dict[str, Callable[..., None]] = {**SHARED, "own-giou": own_with_giou}


def set_loss(name: str, model: Detector, epoch_length: int, group: Any) -> None:
    """Make a detector train with a loss of LOSSES, which ranks the images of all processes of ``group`` together."""
    LOSSES[name](model, epoch_length, group=group)


def total_for_ddp(name: str, losses: dict[str, Tensor], group: Any) -> Tensor:
    """The sum to be differentiated where DistributedDataParallel takes means of gradients over the processes.

    What is of all processes' images is scaled: class losses of a ranking, and aLRP's boxes. Means over a process's own images,
    as torchvision's losses and the boxes beside AP and Rank & Sort Loss, are meant to be averaged.
    """
    if name.startswith("own"):
        return sum(losses.values())  # type: ignore[return-value]
    global_losses = losses if name.startswith("alrp") else CLASS_LOSSES
    return sum(scale_for_ddp(v, group) if key in global_losses else v for key, v in losses.items())  # type: ignore[return-value]
