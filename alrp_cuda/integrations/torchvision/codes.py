"""The codes of boxes."""

from torch import Tensor
from torch.nn.functional import smooth_l1_loss


def code_loss(codes: Tensor, targets: Tensor, beta: float) -> Tensor:
    """Smooth L1 of box codes (P, 4) against what they should be, summed over the four numbers, mean over the positives."""
    return smooth_l1_loss(codes, targets, beta=beta, reduction="sum") / max(1, len(codes))
