"""Heads without their centre-ness branch."""

from typing import Any

from torch import Tensor, nn


class WithoutCenterness:
    """Goes first in a class's bases. Centre-ness lowers the scores of badly placed boxes when a detector predicts; aLRP Loss
    ranks them lower when it trains. Kept without a loss, the layer would be refused by DistributedDataParallel."""

    centerness_layer: str
    loss_centerness: nn.Module

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        setattr(self, self.centerness_layer, nn.Identity())  # the head's forward_single calls it
        del self.loss_centerness

    def forward(self, x: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        """Each level's class scores and box codes; the framework then predicts without a factor of scores."""
        cls_scores, bbox_preds, _ = super().forward(x)  # type: ignore[misc]
        return cls_scores, bbox_preds
