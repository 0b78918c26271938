"""What the losses return."""

from typing import NamedTuple

from torch import Tensor


class ALRPOutput(NamedTuple):
    """Result of :func:`alrp_cuda.alrp_loss`; add ``cls + loc`` (or ``cls + w * loc``) and call ``backward``.

    Attributes:
        cls: scalar, L_cls of Eq. 11. Its backward carries the gradient of the *whole* aLRP Loss to the logits (Eq. 14).
        loc: scalar, L_loc of Eq. 11. Its backward reaches ``loc_errors`` only.
        rank: (P,), rank(i) of Eq. 3 in the order of the positives' flat index; detached.
        precision: (P,), rank+(i) / rank(i) in the same order; detached.

    Example:
        >>> import torch, alrp_cuda
        >>> out = alrp_cuda.alrp_loss(torch.zeros(3), torch.tensor([1, 0, 0]), torch.tensor([0.5]))
        >>> out.rank.tolist(), out.precision.tolist()
        ([2.0], [0.5])
    """

    cls: Tensor
    loc: Tensor
    rank: Tensor
    precision: Tensor


class RankSortOutput(NamedTuple):
    """Result of :func:`alrp_cuda.rank_sort_loss`; add ``rank + sort`` (or weigh them) and call ``backward``.

    Attributes:
        rank: scalar, mean error of ranking the positives above the negatives. Its backward reaches both.
        sort: scalar, mean error of sorting the positives by their labels. Its backward reaches the positives only.

    Example:
        >>> import torch, alrp_cuda
        >>> out = alrp_cuda.rank_sort_loss(torch.tensor([2.0, 0.0]), torch.tensor([0.5, 0.0]))
        >>> out.rank.item(), out.sort.item()
        (0.0, 0.0)
    """

    rank: Tensor
    sort: Tensor
