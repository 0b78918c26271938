"""Rank & Sort Loss of class indices: what detectors have in place of one continuous label for every logit."""

from typing import Any

from torch import Tensor

from ..framework import error_driven_loss
from ..functional import rank_sort_loss
from ..outputs import RankSortOutput
from ..ranks import Errors, Ranks


def rank_sort_by_class(
    logits: Tensor,
    classes: Tensor,
    labels: Tensor,
    *,
    delta: float = 0.5,
    eps: float = 1e-10,
    algorithm: str = "auto",
    backend: str = "auto",
) -> RankSortOutput:
    """:func:`alrp_cuda.rank_sort_loss` from class indices and one continuous label for each positive.

    The two parts of the loss ask for different things: ranking for which logits are positive, sorting for the positives'
    labels. So nothing of the logits' size is made but their gradient.

    Args:
        logits: (..., C), class scores before the sigmoid.
        classes: (...), integers: 0..C-1 positive for that class, C background, below 0 ignored.
        labels: (P,), the positives' labels in the order of their flat index, above 0 and finite, floating; as a rule the IoU
            of their boxes.
        delta, eps, algorithm, backend: as in :func:`alrp_cuda.rank_sort_loss`.

    Returns:
        RankSortOutput(rank, sort), equal to those of :func:`alrp_cuda.rank_sort_loss`.

    Raises:
        TypeError, ValueError: as :func:`alrp_cuda.rank_sort_loss`; ``labels`` of another number than P.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 1.0], [1.0, 0.0]])
        >>> out = rank_sort_by_class(logits, torch.tensor([0, 1]), torch.tensor([0.5, 1.0]))
        >>> [round(v.item(), 4) for v in out]
        [0.2857, 0.1667]
    """
    tie = 0.5 if delta > 0 else 1.0  # H(0): r+(i) counts i itself, rank+(i) counts 1 for it

    def rank_error(ranks: Ranks) -> Errors:
        return Errors(ranks.n_fp / (ranks.rank - 1 + tie))

    options: dict[str, Any] = {"delta": delta, "eps": eps, "algorithm": algorithm, "backend": backend}
    rank = error_driven_loss(logits, classes, rank_error, num_positives=len(labels), **options)
    positive = (classes >= 0) & (classes < logits.shape[-1])
    scores = logits[positive].gather(1, classes[positive][:, None])[:, 0]
    sort = rank_sort_loss(scores, labels.to(scores.device), num_positives=len(labels), **options).sort
    return RankSortOutput(rank, sort)
