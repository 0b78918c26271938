"""What is odd about a batch, in words and numbers: :func:`alrp_cuda.diagnose`."""

from dataclasses import replace

from torch import Tensor

from ..balance import SelfBalance
from ..images import kinds_of_labels
from ..inputs import (
    SCOPES,
    Tensors,
    bad_label,
    check_choice,
    check_labelled,
    check_loc_errors,
    check_number,
    check_positives,
    check_scope,
)
from .findings import findings_of
from .measure import Batch, measure
from .report import Diagnosis

__all__ = ["Diagnosis", "diagnose"]


def diagnose(
    logits: Tensors,
    targets: Tensors,
    loc_errors: Tensor | None = None,
    *,
    delta: float = 1.0,
    background: int | None = None,
    scope: str = "batch",
    image_index: Tensor | None = None,
    score_threshold: float = 0.05,
    balance: SelfBalance | float | str | None = None,
) -> Diagnosis:
    """Say of one batch how it is ranked, what is odd about it, and what to do about that.

    For people who look for why training fails: it computes aLRP Loss and its gradients (AP Loss without ``loc_errors``), waits
    for the device many times, and takes much longer than the loss, seconds for millions of logits on a CPU. It changes nothing:
    gradients, graphs and modules stay as they are. Give it what the loss gets, gradients attached. See docs/troubleshooting.md.

    Args:
        logits, targets, delta, background, scope: as in :func:`alrp_cuda.alrp_loss`. For Rank & Sort Loss give the signs of its
            labels, ``targets.sign()``, and its delta, 0.5 by default.
        loc_errors: (P,), as in :func:`alrp_cuda.alrp_loss`; None for losses of class scores alone.
        image_index: as in :func:`alrp_cuda.alrp_loss`, but with ``scope="batch"``, too: to count images without objects. None
            with lists.
        score_threshold: the score, in [0, 1], from which the detector keeps a detection.
        balance: what weighs the gradient of the boxes: an :class:`alrp_cuda.SelfBalance`, a number >= 0, or "value", as the
            attribute ``balance`` of :class:`alrp_cuda.ALRPLoss` holds it; None for 1. Only with ``loc_errors``.

    Returns:
        Diagnosis: numbers, and ``findings``, a tuple of sentences; ``print`` shows both. It knows one batch, not the history of
        training: what is normal in the first steps is said to be so.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: shapes, devices, ranges or names that do not fit; on every device also a target that is no label, and a
            number of ``loc_errors`` other than P.

    Example:
        >>> import torch, alrp_cuda
        >>> targets = torch.full((100,), 3)  # 3 classes: all anchors are background
        >>> found = alrp_cuda.diagnose(torch.randn(100, 3), targets)
        >>> found.positives, found.negatives
        (0, 300)
        >>> found.findings[0].partition(",")[0]
        'No target is positive'
    """
    given = check_labelled(logits, targets, background)
    layout = given.layout
    if loc_errors is not None:
        check_loc_errors(given.logits[0], loc_errors)
    delta, score_threshold = check_number("delta", delta), check_number("score_threshold", score_threshold)
    if score_threshold > 1:
        raise ValueError(f"score_threshold must be at most 1, got {score_threshold}")
    check_choice("scope", scope, SCOPES)
    if scope == "image" or image_index is not None:
        check_scope("image", image_index, given)
    if scope == "image" and given.is_list:
        image_index = given.image_index()
    if isinstance(balance, str):
        check_choice("balance", balance, ("value",))
    elif not isinstance(balance, SelfBalance):
        balance = None if balance is None else check_number("balance", balance)
    if balance is not None and loc_errors is None:
        raise ValueError(f"balance must be None without loc_errors, got {balance}")
    needs_grad, are_leaves = any(v.requires_grad for v in given.logits), all(v.is_leaf for v in given.logits)
    logits, targets = given.joined()
    positive, invalid = kinds_of_labels(targets, layout)
    if bool(invalid.any()):
        raise bad_label(layout)
    if loc_errors is not None:
        check_positives("loc_errors", loc_errors.numel(), int(positive.sum()))
    batch = Batch(
        logits, targets, loc_errors, layout, delta, scope, image_index, score_threshold, balance, needs_grad, are_leaves
    )
    numbers = measure(batch)
    return replace(numbers, findings=findings_of(batch, numbers))
