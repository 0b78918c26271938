"""Sigmoid Focal Loss, the score-based loss that a detector would use instead: torchvision's, by autograd."""

from torch import Tensor
from torchvision.ops import sigmoid_focal_loss


def focal_loss(logits: Tensor, one_hot: Tensor, positives: int) -> Tensor:
    """Focal Loss (alpha 0.25, gamma 2, BCE with logits), summed and divided by the number of positives as usual."""
    loss: Tensor = sigmoid_focal_loss(logits, one_hot, reduction="sum")
    return loss / max(positives, 1)
