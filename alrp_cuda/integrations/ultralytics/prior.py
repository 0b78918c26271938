"""The initial bias of a model's class logits."""

import copy
from typing import Any

import torch
from ultralytics.nn.tasks import DetectionModel

from ..prior import prior_logit


def set_prior(model: DetectionModel, probability: float) -> None:
    """Let all class logits begin at log(p / (1 - p)), in place, unless they have been trained.

    Args:
        model: its class bias is untrained if it is, in every level and class, what its head's ``bias_init`` sets.
        probability: p, between 0 and 1.
    """
    head: Any = model.model[-1]
    untrained = copy.deepcopy(head)
    untrained.bias_init()
    layers = _class_layers(head)
    if all(torch.equal(layer.bias, fresh.bias) for layer, fresh in zip(layers, _class_layers(untrained), strict=True)):
        with torch.no_grad():
            for layer in layers:
                layer.bias.fill_(prior_logit(probability))


def _class_layers(head: Any) -> list[Any]:
    """The last layer of each level's class scores, of both heads of an end-to-end model."""
    end_to_end = getattr(head, "one2one_cv2", None) is not None
    heads = [head.one2many, head.one2one] if end_to_end else [head.one2many]
    return [level[-1] for each in heads for level in each["cls_head"]]
