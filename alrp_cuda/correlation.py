"""Correlation Loss: scores of positives that go with how well their boxes fit."""

import torch
from torch import Tensor

from .inputs import FLOATING, check_choice, check_tensor

COEFFICIENTS = ("concordance", "pearson")


def check_scores_and_ious(scores: Tensor, ious: Tensor) -> None:
    """Raise TypeError or ValueError unless both are floating (P,) tensors of one device."""
    for name, value in (("scores", scores), ("ious", ious)):
        check_tensor(name, value, FLOATING)
        if value.dim() != 1:
            raise ValueError(f"{name} must have shape (P,), got {tuple(value.shape)}")
    if ious.shape != scores.shape:
        raise ValueError(f"ious must have the shape of scores, {tuple(scores.shape)}, got {tuple(ious.shape)}")
    if ious.device != scores.device:
        raise ValueError(f"ious must be on the device of scores, {scores.device}, got {ious.device}")


def correlation_loss(scores: Tensor, ious: Tensor, *, coefficient: str = "concordance") -> Tensor:
    r"""1 - rho of positives' scores and IoUs: Correlation Loss of Kahraman et al., AAAI 2023, beside a detector's losses.

    With means m, variances v and the covariance c over the positives of a batch, rho is

        c / sqrt(v_s v_u)    (Pearson)    or    2 c / (v_s + v_u + (m_s - m_u)^2)    (concordance),

    the latter of which also asks for scores at the level of the IoUs. Gradients reach the scores alone: boxes would
    correlate more easily by fitting worse. Unlike ranking losses this one is differentiated, and second derivatives exist.

    Args:
        scores: (P,) floating, those of positives for their own class, in [0, 1]: sigmoids of logits.
        ious: (P,) floating, of their boxes with their objects, in the same order and on the same device.
        coefficient: "concordance" or "pearson". The paper's third, Spearman's, wants a differentiable sort of its own.

    Returns:
        Scalar in [0, 2], computed in float64; float64 for float64 scores, else float32. 0, with a gradient of 0, where P < 2 or
        one of the two does not vary. No host synchronisation.

    Raises:
        TypeError, ValueError: no floating tensors of one shape (P,) and one device; an unknown coefficient.

    Example:
        >>> import torch, alrp_cuda
        >>> logits, ious = torch.tensor([2.0, 0.0, -2.0]), torch.tensor([0.9, 0.7, 0.8])
        >>> round(float(alrp_cuda.correlation_loss(logits.sigmoid(), ious, coefficient="pearson")), 4)
        0.5
    """
    check_scores_and_ious(scores, ious)
    check_choice("coefficient", coefficient, COEFFICIENTS)
    pair, dtype = torch.stack((scores.double(), ious.detach().double())), torch.promote_types(scores.dtype, torch.float32)
    if not pair.numel():
        return pair.sum().to(dtype)
    varies = (pair.amax(1) > pair.amin(1)).all()  # else the mean's rounding would be all that varies
    mean = pair.mean(1)
    centred = pair - mean[:, None]
    variance, covariance = centred.square().mean(1), centred.prod(0).mean()
    if coefficient == "pearson":
        numerator, square = covariance, variance.prod()
        denominator = torch.where(varies, square, 1).sqrt()  # before the root, whose gradient at 0 is none
    else:
        numerator = 2 * covariance
        denominator = torch.where(varies, variance.sum() + (mean[0] - mean[1]).square(), 1)
    loss = torch.where(varies, 1 - numerator / denominator, 0 * covariance)
    return loss.to(dtype)
