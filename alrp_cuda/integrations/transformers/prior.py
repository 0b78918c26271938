"""The initial bias of a model's class logits."""

from typing import Any

import torch
from torch import nn

from ..prior import prior_logit

HEADS = {"class_embed", "class_labels_classifier", "enc_score_head"}  # what models call them; of some, lists of layers


def set_prior(model: Any, probability: float) -> None:
    """Let all class logits begin at log(p / (1 - p)), in place, if every one begins at 0: most models have a prior of their own.

    Args:
        model: a detector of Transformers.
        probability: p, between 0 and 1.
    """
    layers = [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer.out_features == model.config.num_labels and HEADS & {*name.split(".")}
    ]
    if not any(layer.bias.any() for layer in layers):
        with torch.no_grad():
            for layer in layers:
                layer.bias.fill_(prior_logit(probability))
