"""The published call forms of aLRP Loss, AP Loss and Rank & Sort Loss: a training code that imports those changes one line.

docs/compat.md shows the line and lists every known difference. New code is better served by :func:`alrp_cuda.alrp_loss`,
:func:`alrp_cuda.ap_loss` and their relatives, which say more and check more.
"""

import torch
from torch import Tensor

from .functional import alrp_loss, ap_loss, rank_sort_loss
from .inputs import check_targets


def _check_shape(logits: Tensor, targets: Tensor) -> None:
    """The published forms have one label a logit and no class indices."""
    check_targets(logits, targets, None)
    if targets.shape != logits.shape:
        raise ValueError(f"targets must have the logits' shape {tuple(logits.shape)}, got {tuple(targets.shape)}")


class aLRPLoss:
    """aLRP Loss (Eq. 9-14) as the authors' training code calls it; the caller makes the localisation part from the result.

    Example:
        >>> import torch
        >>> from alrp_cuda.compat import aLRPLoss
        >>> logits = torch.tensor([0.5, 2.0, -1.0, 0.0], requires_grad=True)
        >>> boxes = torch.tensor([0.8, 0.2], requires_grad=True)
        >>> cls, rank, order = aLRPLoss.apply(logits, torch.tensor([1, 1, 0, 0]), boxes)
        >>> loc = (boxes[order].flip(0).cumsum(0) / rank[order].flip(0)).mean()
        >>> (cls + loc).backward()
        >>> [round(v.item(), 4) for v in (cls, loc)], order.tolist()
        ([0.0556, 0.3222], [0, 1])
    """

    @staticmethod
    def apply(
        logits: Tensor, targets: Tensor, regression_losses: Tensor, delta: float = 1.0, eps: float = 1e-5
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Classification loss, ranks, and the order of the positives.

        Args:
            logits: scores, any shape, float32, float64, float16 or bfloat16.
            targets: of the logits' shape; 1 positive, 0 negative, below 0 ignored.
            regression_losses: (P,), localisation error of each positive in flat order. They enter the gradient of the
                scores; no gradient flows to them from here.
            delta: half width of the step function, finite, >= 0.
            eps: a positive with N_FP <= eps sends no gradient; finite, >= 0.

        Returns:
            (cls_loss, rank, order): a scalar that carries the gradient of the whole aLRP Loss to the logits (Eq. 14); (P,)
            ranks in flat order (Eq. 3); (P,) int64, which positive comes where, ascending by score. The latter two are
            detached. Without positives, 0 connected to the graph, and two empty tensors.

        Raises:
            TypeError, ValueError: as :func:`alrp_cuda.alrp_loss`; class-index targets.
        """
        _check_shape(logits, targets)
        out = alrp_loss(logits, targets, regression_losses.detach(), delta=delta, eps=eps)
        scores = logits.detach()[targets == 1]
        hard = torch.sort(scores, descending=True, stable=True).indices  # read backwards, so that ties go by flat index
        return out.cls, out.rank, hard.flip(0)


class APLoss:
    """AP Loss, interpolated (Chen et al., CVPR 2019), as the authors of aLRP Loss published it.

    Example:
        >>> import torch
        >>> from alrp_cuda.compat import APLoss
        >>> logits = torch.tensor([0.5, 2.0, -1.0, 0.0], requires_grad=True)
        >>> loss = APLoss.apply(logits, torch.tensor([1, 0, 1, 0]), 0.5)
        >>> loss.backward()
        >>> round(loss.item(), 4)
        0.5
    """

    @staticmethod
    def apply(logits: Tensor, targets: Tensor, delta: float = 1.0) -> Tensor:
        """The loss, a scalar; arguments as for :meth:`aLRPLoss.apply`. Without positives 0, connected to the graph.

        Raises:
            TypeError, ValueError: as :func:`alrp_cuda.ap_loss`; class-index targets.
        """
        _check_shape(logits, targets)
        return ap_loss(logits, targets, delta=delta, interpolate=True, eps=0.0)


class RankSort:
    """Rank & Sort Loss (Oksuz et al., ICCV 2021), as its authors published it.

    Example:
        >>> import torch
        >>> from alrp_cuda.compat import RankSort
        >>> logits = torch.tensor([2.0, 1.0, 0.0], requires_grad=True)
        >>> rank, sort = RankSort.apply(logits, torch.tensor([0.5, 0.0, 1.0]))
        >>> (rank + sort).backward()
        >>> [round(v.item(), 4) for v in (rank, sort)]
        [0.2, 0.1667]
    """

    @staticmethod
    def apply(logits: Tensor, targets: Tensor, delta_RS: float = 0.50, eps: float = 1e-10) -> tuple[Tensor, Tensor]:
        """(rank_loss, sort_loss), scalars, each with its own gradient; without positives 0, connected to the graph.

        Args:
            logits: scores, any shape, float32, float64, float16 or bfloat16.
            targets: of the logits' shape; above 0 the continuous label of a positive, 0 negative, below 0 ignored.
            delta_RS: half width of the step function, finite, >= 0.
            eps: a positive with N_FP, or with less missorted above it, <= eps sends no gradient of that part.

        Raises:
            TypeError, ValueError: as :func:`alrp_cuda.rank_sort_loss`.
        """
        labels = targets if targets.is_floating_point() else targets.to(torch.float32)
        rank, sort = rank_sort_loss(logits, labels, delta=delta_RS, eps=eps)
        return rank, sort
