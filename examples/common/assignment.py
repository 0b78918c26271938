"""ATSS assignment for a RetinaNet, whatever its losses are."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torchvision.models.detection import RetinaNet

from alrp_cuda.integrations.torchvision import atss


def atss_losses(
    model: RetinaNet,
    level_sizes: Sequence[int],
    targets: list[dict[str, Tensor]],
    head_outputs: dict[str, Any],
    anchors: list[Tensor],
) -> dict[str, Tensor]:
    """The head's losses, whatever they are, of anchors matched by adaptive training sample selection."""
    matched = [atss(a, level_sizes, target["boxes"]) for a, target in zip(anchors, targets, strict=True)]
    losses: dict[str, Tensor] = model.head.compute_loss(targets, head_outputs, anchors, matched)
    return losses


def assign_by_atss(model: RetinaNet, level_sizes: Sequence[int]) -> RetinaNet:
    """``model``, whose images all have as many anchors of each level as ``level_sizes`` say."""
    model.compute_loss = partial(atss_losses, model, level_sizes)
    return model
