"""Heads made for a softmax, read as one binary classifier for each class."""

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.ssd import SSD


def sigmoid_as_softmax(logits: Tensor) -> Tensor:
    """Logits whose softmax is sigmoid(logit) / C, which lets code that calls softmax score by sigmoid.

    Args:
        logits: (..., 1 + C), the background's first, which is not read.

    Returns:
        (..., 1 + C), at least float32.

    Example:
        >>> import torch
        >>> logits = torch.tensor([0.3, -2.0, 0.0, 2.0])
        >>> torch.allclose(3 * sigmoid_as_softmax(logits).softmax(-1)[1:], logits[1:].sigmoid())
        True
    """
    scores = logsigmoid(logits[..., 1:].to(torch.promote_types(logits.dtype, torch.float32)))
    rest = (scores.shape[-1] - scores.exp().sum(-1, keepdim=True)).clamp(min=0)
    return torch.cat((rest.log(), scores), -1)  # their exponentials add up to C


def postprocess(module: SSD | RoIHeads, classes: int, *arguments: Any) -> Any:
    """``module.postprocess_detections`` as its class has it, for scores that are divided by ``classes``."""
    view = copy.copy(module)  # shares everything but the threshold
    view.score_thresh = module.score_thresh / classes
    return type(module).postprocess_detections(view, *arguments)
