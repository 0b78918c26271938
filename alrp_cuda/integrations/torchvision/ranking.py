"""The loss of every head here: one ranking of the batch, and the boxes beside it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...balance import SelfBalance
from ...functional import alrp_loss, ap_loss, ndcg_loss
from ...inputs import ORDERS, check_choice, check_number
from ...ops import ALGORITHMS, backends
from ...scale import scale_gradient
from ..errors import ERRORS, check_tau, paired_iou
from ..rank_sort import rank_sort_by_class

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

LOSSES = ("alrp", "ap", "ndcg", "rank_sort")


class RankingLoss(nn.Module):
    """The class and the box loss of one head; :func:`use_alrp` documents the arguments.

    Attributes:
        balance: what the boxes' gradient is multiplied by: a number, "value", or an :class:`alrp_cuda.SelfBalance`, whose
            buffers are the only state.

    Raises:
        TypeError, ValueError: an argument of the wrong type, out of range, or of an unknown name.
    """

    balance: SelfBalance | float | str

    def __init__(
        self,
        *,
        loss: str = "alrp",
        errors: str = "giou",
        tau: float = 0.5,
        balance: float | str | None = None,
        epoch_length: int | None = None,
        balance_group: "ProcessGroup | None" = None,
        delta: float | None = None,
        order: str = "smooth",
        algorithm: str = "auto",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_choice("loss", loss, LOSSES)
        check_choice("errors", errors, tuple(ERRORS))
        check_choice("order", order, ORDERS)
        check_choice("algorithm", algorithm, ("auto", *ALGORITHMS))
        check_choice("backend", backend, ("auto", *backends()))
        self.loss, self.errors, self.order = loss, errors, order
        self.tau = check_tau("tau", tau)
        self.options: dict[str, Any] = {"algorithm": algorithm, "backend": backend}
        if delta is not None:
            self.options["delta"] = check_number("delta", delta)
        if balance is None:
            balance = "value" if loss == "rank_sort" else 1.0
        if epoch_length is not None and balance != "self":
            raise ValueError(f"epoch_length must be None unless balance is 'self', got {epoch_length}")
        if balance_group is not None and balance != "self":
            raise ValueError(f"balance_group must be None unless balance is 'self', got {type(balance_group).__name__}")
        if isinstance(balance, str):
            check_choice("balance", balance, ("self", "value"))
            self.balance = SelfBalance(epoch_length, group=balance_group) if balance == "self" else balance
        else:
            self.balance = check_number("balance", balance)

    def forward(
        self, logits: Tensor, classes: Tensor, predicted: Tensor, boxes: Tensor, own_box_loss: Callable[[], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The losses of a batch, all of whose logits are ranked together.

        Args:
            logits: (..., C), of every image and level.
            classes: (...), int64: 0..C-1, C for background, below 0 ignored.
            predicted: (P, 4), decoded boxes of the positives in flat order, at least float32.
            boxes: (P, 4), the objects they are matched to.
            own_box_loss: the framework's box loss, for "ap" and "ndcg", which say nothing about boxes.

        Returns:
            (class loss, box loss), scalars; the gradient of the second is balanced, not its value.
        """
        cls, box = self._losses(logits, classes, predicted, boxes.to(predicted.dtype), own_box_loss)
        if isinstance(self.balance, SelfBalance):
            return self.balance(cls, box)  # type: ignore[no-any-return]
        weight = torch.where(box > 0, cls / box, 1).detach() if isinstance(self.balance, str) else self.balance
        return cls, scale_gradient(box, weight)

    def _losses(
        self, logits: Tensor, classes: Tensor, predicted: Tensor, boxes: Tensor, own_box_loss: Callable[[], Tensor]
    ) -> tuple[Tensor, Tensor]:
        if self.loss == "alrp":
            out = alrp_loss(logits, classes, ERRORS[self.errors](predicted, boxes, self.tau), order=self.order, **self.options)
            return out.cls, out.loc
        if self.loss == "rank_sort":
            # A positive whose box misses its object is a positive still: labels begin above 0.
            labels = paired_iou(predicted, boxes).detach().clamp(min=1e-6)
            rank, sort = rank_sort_by_class(logits, classes, labels, **self.options)
            return rank + sort, ERRORS[self.errors](predicted, boxes, 0.0).sum() / max(1, len(boxes))
        loss = ap_loss if self.loss == "ap" else ndcg_loss
        return loss(logits, classes, num_positives=len(boxes), **self.options), own_box_loss()

    def extra_repr(self) -> str:
        return f"loss={self.loss!r}, errors={self.errors!r}, tau={self.tau}, balance={self.balance!r}, {self.options}"
