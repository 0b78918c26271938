"""Rank & Sort Loss where classes are indices and each positive has one continuous label."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..framework import Errors, Ranks, error_driven_loss
from ..functional import rank_sort_loss
from ..inputs import FLOATING, Tensors, check_tensor
from ..outputs import RankSortOutput
from .positive_scores import scores_of_positives

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def rank_sort_by_class(
    logits: Tensors,
    classes: Tensors,
    labels: Tensor,
    *,
    delta: float = 0.5,
    eps: float = 1e-10,
    algorithm: str = "auto",
    group: "ProcessGroup | None" = None,
) -> RankSortOutput:
    """:func:`alrp_cuda.rank_sort_loss` from class indices and one continuous label for each positive.

    Ranking takes which logits are positive, and sorting takes the positives and their labels. So the only tensors of the logits'
    size are their gradients.

    Args:
        logits: (..., C), class scores before the sigmoid, or a list of such tensors.
        classes: (...), integers: 0..C-1 positive for that class, C background, below 0 ignored; a list where the logits are one.
        labels: (P,), the positives' labels in the order of their flat index, above 0 and finite, floating; as a rule the IoU
            of their boxes.
        delta, eps, algorithm, group: as in :func:`alrp_cuda.rank_sort_loss`.

    Returns:
        RankSortOutput(rank, sort), those of :func:`alrp_cuda.rank_sort_loss` but for rounding.

    Raises:
        TypeError, ValueError: as :func:`alrp_cuda.rank_sort_loss`; ``labels`` of another number than P.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 1.0], [1.0, 0.0]])
        >>> out = rank_sort_by_class(logits, torch.tensor([0, 1]), torch.tensor([0.5, 1.0]))
        >>> [round(v.item(), 4) for v in out]
        [0.2857, 0.1667]
    """
    check_tensor("labels", labels, FLOATING)
    if labels.dim() != 1:
        raise ValueError(f"labels must have shape (P,), got {tuple(labels.shape)}")
    scores, views = scores_of_positives(logits, classes, "labels", len(labels))
    tie = 0.5 if delta > 0 else 1.0  # H(0): r+(i) counts i itself, rank+(i) counts 1 for it

    def rank_error(ranks: Ranks) -> Errors:
        return Errors(ranks.n_fp / (ranks.rank - 1 + tie))

    options: dict[str, Any] = {"delta": delta, "eps": eps, "algorithm": algorithm, "group": group, "num_positives": len(labels)}
    rank = error_driven_loss(views, classes, rank_error, **options)
    return RankSortOutput(rank, rank_sort_loss(scores, labels.to(scores.device), **options).sort)
