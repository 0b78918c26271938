"""The loss of a detector's head: one ranking of the batch for class scores, and a loss of the boxes."""

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..framework import Errors, Ranks, error_driven_loss
from ..functional import rank_sort_loss
from ..inputs import FLOATING, ORDERS, Tensors, check_choice, check_labelled, check_number, check_positives, check_tensor
from ..losses import ALRPLoss, APLoss, NDCGLoss, RankSortLoss, apply_balance, make_balance
from ..outputs import RankSortOutput
from .errors import ERRORS, check_tau, paired_iou

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

    def __init__(
        self,
        *,
        loss: str = "alrp",
        errors: str = "giou",
        tau: float = 0.5,
        loss_weight: float = 1.0,
        balance: float | str | None = None,
        epoch_length: int | None = None,
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
        return f"loss={self.loss!r}, errors={self.errors!r}, tau={self.tau}, loss_weight={self.loss_weight}{balance}"


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
    given = check_labelled(logits, classes, None)
    if not given.layout.classes:
        raise ValueError(
            f"classes must be class indices, one for each row of logits, got the logits' shape {tuple(given.targets.shape)}"
        )
    where = [
        _positives_in(own, v) for own, v in zip(given.targets.reshape(-1).split_with_sizes(given.rows), given.logits, strict=True)
    ]
    if torch.compiler.is_compiling():  # which puts gradients together by itself, and knows no number of positives
        scores, views = _scores_of(where, given.logits), given.logits
    else:
        check_positives("labels", len(labels), sum(len(index[0]) for index in where))
        scores, *views = _Scores.apply(where, *given.logits)
    tie = 0.5 if delta > 0 else 1.0  # H(0): r+(i) counts i itself, rank+(i) counts 1 for it

    def rank_error(ranks: Ranks) -> Errors:
        return Errors(ranks.n_fp / (ranks.rank - 1 + tie))

    options: dict[str, Any] = {"delta": delta, "eps": eps, "algorithm": algorithm, "group": group, "num_positives": len(labels)}
    rank = error_driven_loss(list(views) if given.is_list else views[0], classes, rank_error, **options)
    return RankSortOutput(rank, rank_sort_loss(scores, labels.to(scores.device), **options).sort)


Index = tuple[Tensor, ...]


def _positives_in(classes: Tensor, logits: Tensor) -> Index:
    """Where the positives' logits of their classes are in ``logits``, from flat class indices."""
    row = ((classes >= 0) & (classes < logits.shape[-1])).nonzero()[:, 0]
    return *torch.unravel_index(row, logits.shape[:-1]), classes[row].long()


def _scores_of(where: Sequence[Index], logits: Sequence[Tensor]) -> Tensor:
    return torch.cat([v[index] for v, index in zip(logits, where, strict=True)])


class _Scores(torch.autograd.Function):
    """The logits of positives, and all logits once more. The gradient of the former is added to that of the latter, which is
    nobody else's, in place: by indexing alone it would be a tensor of the logits' size, and the sum another."""

    @staticmethod
    def forward(ctx: Any, where: Sequence[Index], *logits: Tensor) -> tuple[Tensor, ...]:
        ctx.where = where
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*logits)
        return _scores_of(where, logits), *(v.view_as(v) for v in logits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_scores: Tensor | None, *of_logits: Tensor | None) -> tuple[Tensor | None, ...]:
        if of_scores is None:
            return None, *of_logits
        gradients = [torch.zeros_like(v) if g is None else g for v, g in zip(ctx.saved_tensors, of_logits, strict=True)]
        parts = of_scores.split_with_sizes([len(index[0]) for index in ctx.where])
        for gradient, index, part in zip(gradients, ctx.where, parts, strict=True):
            if len(part):
                gradient[index] += part  # each place is there once
        return None, *gradients
