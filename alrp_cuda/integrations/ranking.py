"""The loss of a detector's head: one ranking of the batch for class scores, and a loss of the boxes."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..correlation import correlation_loss
from ..inputs import ORDERS, Tensors, check_choice, check_number
from ..losses import ALRPLoss, APLoss, NDCGLoss, RankSortLoss, apply_balance, make_balance
from .errors import ERRORS, check_tau, paired_iou
from .positive_scores import scores_of_positives
from .rank_sort import rank_sort_by_class

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

PATIENCE = 100  # steps in a row without a positive after which something is wrong
RANKINGS = {"alrp": ALRPLoss, "ap": APLoss, "ndcg": NDCGLoss, "rank_sort": RankSortLoss}


def use_alrp_settings(
    *, loss: str = "alrp", tau: float = 0.5, balance: float | str | None = None, order: str = "smooth", **options: Any
) -> dict[str, Any]:
    """Arguments of :class:`RankingLoss` from those of a ``use_alrp``, where None stands for a default that depends on ``loss``.

    Only "alrp" takes ``order``. "rank_sort" has errors for tau = 0 and, unless told, ``balance="value"``.

    Raises:
        TypeError, ValueError: ``order`` or ``tau`` out of range, also where the loss has no use for it.

    Example:
        >>> use_alrp_settings(loss="rank_sort", delta=None)
        {'loss': 'rank_sort', 'tau': 0.0, 'balance': 'value'}
    """
    check_choice("order", order, ORDERS)
    if loss == "alrp":
        options["order"] = order
    if loss == "rank_sort":
        check_tau("tau", tau)
        tau, balance = 0.0, "value" if balance is None else balance
    given = {name: value for name, value in options.items() if value is not None}
    return {"loss": loss, "tau": tau, "balance": balance, **given}


class RankingLoss(nn.Module):
    """One ranking loss of class scores and boxes, over all images, levels and classes of a batch.

    "alrp" is aLRP Loss, L_cls + L_loc (Eq. 11). The others are losses of class scores, and the boxes have a loss of their
    own. The labels of "rank_sort" are the IoUs of the boxes, unless a call gives others.

    After 100 training steps in a row without a positive, on this process, it warns, once. Compiled code does not count them.

    Args:
        loss: "alrp", "ap", "ndcg" or "rank_sort".
        errors: "giou", E = (1 - GIoU) / 2 / (1 - tau), or "iou", E = (1 - IoU) / (1 - tau).
        tau: the IoU that a true positive needs, in [0, 1).
        loss_weight: what both losses are multiplied by, >= 0.
        balance: what the gradient of the boxes' loss is multiplied by, not its value: a number >= 0; None for 1; "value" for
            (class loss / box loss) of the iteration, as Rank & Sort Loss does; or "self" for self-balancing (sec. 4.2), by the
            submodule ``balance``, an :class:`alrp_cuda.SelfBalance`.
        epoch_length: iterations of an epoch, only with "self"; None: signalled by ``balance.end_epoch()``.
        correlation: the weight in the class loss, >= 0, of :func:`alrp_cuda.correlation_loss`, 1 - rho of positives' scores and
            IoUs, whatever the balance. Published weights are 0.1 to 0.4.
        balance_group: the ranks over which self-balancing adds up losses, only with "self"; None for ``group`` among the options.
        options: ``delta``, ``eps``, ``algorithm``, ``group`` and so on, of the loss: see :class:`alrp_cuda.ALRPLoss`,
            :class:`alrp_cuda.APLoss`, :class:`alrp_cuda.NDCGLoss` and :class:`alrp_cuda.RankSortLoss`.

    Raises:
        TypeError, ValueError: an argument of the wrong type, out of range, or of an unknown name.

    Example:
        >>> import torch
        >>> loss = RankingLoss(errors="iou")
        >>> logits, box = torch.zeros(3, 2), torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        >>> losses = loss(logits, torch.tensor([1, 2, -1]), box, box + 2)  # class 1, background, ignored
        >>> [round(value.item(), 4) for value in losses]
        [0.6, 0.4235]
    """

    _steps_without_positive = 0  # of pickles that are older than the count
    correlation = 0.0  # or than the option

    def __init__(
        self,
        *,
        loss: str = "alrp",
        errors: str = "giou",
        tau: float = 0.5,
        loss_weight: float = 1.0,
        balance: float | str | None = None,
        epoch_length: int | None = None,
        correlation: float = 0.0,
        balance_group: "ProcessGroup | None" = None,
        **options: Any,
    ) -> None:
        super().__init__()
        check_choice("loss", loss, tuple(RANKINGS))
        check_choice("errors", errors, tuple(ERRORS))
        if options.get("scope", "batch") != "batch":
            raise ValueError(f"scope must be 'batch': the images of a batch are ranked together, got {options['scope']!r}")
        if balance_group is not None and balance != "self":
            raise ValueError(f"balance_group must be None unless balance is 'self', got {type(balance_group).__name__}")
        self.loss, self.errors = loss, errors
        self.tau, self.loss_weight = check_tau("tau", tau), check_number("loss_weight", loss_weight)
        self.correlation = check_number("correlation", correlation)
        self.ranking = RANKINGS[loss](**options)
        self.balance = make_balance(balance, epoch_length, self.ranking.group if balance_group is None else balance_group)
        self._steps_without_positive = 0  # goes with copies and pickles, and not with the state_dict

    def forward(
        self,
        logits: Tensors,
        classes: Tensors,
        predicted: Tensor,
        boxes: Tensor,
        own_box_loss: Callable[[], Tensor] | None = None,
        labels: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The losses of a batch, whose anchors come in any order.

        Args:
            logits: (..., C), class scores before the sigmoid, or a list of such tensors.
            classes: (...), integer: 0..C-1 positive, C background, below 0 ignored; a list where the logits are one.
            predicted: (P, 4), the decoded boxes of the positives in their flat order in ``classes``: x1, y1, x2, y2.
            boxes: (P, 4), the boxes of their objects, in the same unit.
            own_box_loss: the framework's box loss, for "ap" and "ndcg"; None for the mean of the errors E.
            labels: (P,), those of "rank_sort", in the same order, floating; None for the IoUs of the boxes.

        Returns:
            (class loss, box loss), scalars, 0 without a positive. With "alrp", the first carries the gradient of the whole loss
            to the logits, and the second reaches the boxes alone.
        """
        if self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self._count_step(len(boxes))

        def mean_error() -> Tensor:
            return ERRORS[self.errors](predicted, boxes, self.tau).sum() / max(1, len(boxes))

        correlation = None
        if self.correlation:
            scores, logits = scores_of_positives(logits, classes, "boxes", len(boxes))
            scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
            correlation = correlation_loss(scores.sigmoid(), paired_iou(predicted.detach(), boxes))
        if self.loss == "alrp":
            cls, box = self.ranking(logits, classes, ERRORS[self.errors](predicted, boxes, self.tau))[:2]
        elif self.loss == "rank_sort":
            if labels is None:
                labels = paired_iou(predicted.detach(), boxes)
            labels = labels.clamp(min=1e-6)  # a positive whose box misses its object is a positive still: labels begin above 0
            options = {name: getattr(self.ranking, name) for name in ("delta", "eps", "algorithm", "group")}
            cls, box = sum(rank_sort_by_class(logits, classes, labels, **options)), mean_error()
        else:
            cls, box = self.ranking(logits, classes, num_positives=len(boxes)), (own_box_loss or mean_error)()
        cls, box = apply_balance(self.balance, cls, box)
        if correlation is not None:
            cls = cls + self.correlation * correlation
        return self.loss_weight * cls, self.loss_weight * box

    def _count_step(self, positives: int) -> None:
        """Count by the length of a tensor, which the host knows: nothing is asked of a device."""
        if self._steps_without_positive == PATIENCE:
            return  # it has warned
        self._steps_without_positive = 0 if positives else self._steps_without_positive + 1
        if self._steps_without_positive == PATIENCE:
            warnings.warn(
                f"no positive in {PATIENCE} training steps in a row, so that there is nothing to learn: look at the labels and "
                f"boxes that reach the model, and at how anchors are matched with objects (docs/troubleshooting.md)",
                stacklevel=2,
            )

    def extra_repr(self) -> str:
        balance = f", balance={self.balance!r}" if "balance" in vars(self) else ""
        correlation = f", correlation={self.correlation}" if self.correlation else ""
        return f"loss={self.loss!r}, errors={self.errors!r}, tau={self.tau}, loss_weight={self.loss_weight}{balance}{correlation}"
