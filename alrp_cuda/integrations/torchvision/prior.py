"""The initial bias of class logits: that of a prior probability, as for Focal Loss, also in heads made for a softmax."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet

from ..prior import prior_logit

_BIASES = "_alrp_biases"  # on the model: (layer, its bias before, its bias as set) each


class ClassBias(NamedTuple):
    """The bias of the layers that compute class logits: one layer for each level, or one for all.

    Attributes:
        layers: modules whose ``bias`` is (anchors * columns,), if they have one.
        low, high: what the layers' initialiser draws from.
        columns: logits of an anchor.
        background: the first columns, which are not ranked.
    """

    layers: list[Any]
    low: float
    high: float
    columns: int = 1
    background: int = 0

    def is_untrained(self) -> bool:
        """Whether all of it lies in the initialiser's range, as far as it can be read."""
        for layer in self.layers:
            bias = getattr(layer, "bias", None)
            if not isinstance(bias, Tensor) or bias.is_meta:
                return False
            low, high = bias.new_tensor([self.low, self.high]).float()  # rounded as the bias is, or was before it became float64
            value = bias.float()
            if not ((value >= low) & (value <= high)).all():
                return False
        return True


def focal_class_bias(model: FCOS | RetinaNet) -> ClassBias | None:
    """That of a head made for Focal Loss, which begins at a prior of 0.01 by itself. None for a head of another type."""
    layer = getattr(model.head.classification_head, "cls_logits", None)
    start = prior_logit(0.01)
    return ClassBias([layer], start, start) if isinstance(layer, nn.Conv2d) else None


def set_prior(model: nn.Module, bias: ClassBias | None, prior: float) -> None:
    """Let untrained class logits begin at -log((1 - prior) / prior), in place; :func:`restore_bias` undoes it."""
    if bias is None or not bias.is_untrained():
        return
    before = [layer.bias.detach().clone() for layer in bias.layers]
    with torch.no_grad():
        for layer in bias.layers:
            layer.bias.view(-1, bias.columns)[:, bias.background :] = prior_logit(prior)
    setattr(model, _BIASES, [(layer, b, layer.bias.detach().clone()) for layer, b in zip(bias.layers, before, strict=True)])


def restore_bias(model: nn.Module) -> None:
    """Bring back what :func:`set_prior` replaced, unless training or loaded weights have changed it since."""
    biases = model.__dict__.pop(_BIASES, [])
    if all(torch.equal(layer.bias, as_set.to(layer.bias)) for layer, _, as_set in biases):
        with torch.no_grad():
            for layer, before, _ in biases:
                layer.bias.copy_(before)
