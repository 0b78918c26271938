"""The losses as modules: the options of the functions, checked once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .balance import SelfBalance
from .distributed.channel import check_group
from .functional import alrp_loss, ap_loss, ndcg_loss, rank_sort_loss
from .inputs import ALGORITHMS, ORDERS, SCOPES, Tensors, check_background, check_choice, check_flag, check_number
from .outputs import ALRPOutput, RankSortOutput
from .scale import scale_gradient

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Balance = SelfBalance | float | str | None


def make_balance(balance: float | str | None, epoch_length: int | None, group: "ProcessGroup | None") -> Balance:
    """The weight that a user asks for, checked; ``epoch_length`` and ``group`` are those of :class:`alrp_cuda.SelfBalance`."""
    if epoch_length is not None and balance != "self":
        raise ValueError(f"epoch_length must be None unless balance is 'self', got {epoch_length}")
    if not isinstance(balance, str):
        return None if balance is None else check_number("balance", balance)
    check_choice("balance", balance, ("self", "value"))
    return SelfBalance(epoch_length, group=group) if balance == "self" else balance


def apply_balance(balance: Balance, cls: Tensor, loc: Tensor) -> tuple[Tensor, Tensor]:
    """``cls`` and ``loc``, the gradient of the second weighed by what :func:`make_balance` made."""
    if balance is None:
        return cls, loc
    if isinstance(balance, SelfBalance):
        return balance(cls, loc)  # type: ignore[no-any-return]
    weight = torch.where(loc > 0, cls / loc, 1).detach() if isinstance(balance, str) else balance
    return cls, scale_gradient(loc, weight)


class _RankingLoss(nn.Module):
    """Keeps the options of a loss as attributes, which can be set, hands them on and shows them."""

    _names: tuple[str, ...] = ("scope", "delta", "eps", "algorithm", "group")

    def __init__(self, delta: float, eps: float, scope: str, algorithm: str, group: "ProcessGroup | None") -> None:
        super().__init__()
        check_choice("scope", scope, SCOPES)
        check_choice("algorithm", algorithm, ("auto", *ALGORITHMS))
        check_group(group)
        self.scope, self.algorithm, self.group = scope, algorithm, group
        self.delta, self.eps = check_number("delta", delta), check_number("eps", eps)

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._names}

    def extra_repr(self) -> str:
        shown = (name for name in (*self._names, "balance") if name in vars(self))
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)


class ALRPLoss(_RankingLoss):
    """Module form of :func:`alrp_cuda.alrp_loss`, which documents the arguments; L_cls and L_loc of Eq. 11.

    Args:
        balance: what the gradient of ``loc`` is multiplied by, not its value: a number >= 0, None for 1, "value" for cls / loc of
            the iteration, or "self" for self-balancing (sec. 4.2), which is then the submodule ``balance``, an
            :class:`alrp_cuda.SelfBalance`.
        epoch_length: iterations of an epoch, only with "self"; None: signalled by ``loss.balance.end_epoch()``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, out of range, or of an unknown name.

    Example:
        >>> import torch, alrp_cuda
        >>> loss = alrp_cuda.ALRPLoss(delta=1.0)
        >>> out = loss(torch.zeros(4), torch.tensor([1, 0, 0, -1]), torch.tensor([0.5]))
        >>> float(out.cls), float(out.loc)
        (0.5, 0.25)
    """

    _names = (*_RankingLoss._names, "background", "order")
    balance: Balance

    def __init__(
        self,
        *,
        delta: float = 1.0,
        order: str = "smooth",
        eps: float = 1e-5,
        background: int | None = None,
        scope: str = "batch",
        algorithm: str = "auto",
        group: "ProcessGroup | None" = None,
        balance: float | str | None = None,
        epoch_length: int | None = None,
    ) -> None:
        super().__init__(delta, eps, scope, algorithm, group)
        check_background(background)
        self.background = background
        check_choice("order", order, ORDERS)
        self.order = order
        self.balance = make_balance(balance, epoch_length, group)

    def forward(
        self,
        logits: Tensors,
        targets: Tensors,
        loc_errors: Tensor,
        *,
        num_positives: int | Sequence[int] | None = None,
        image_index: Tensor | None = None,
    ) -> ALRPOutput:
        """Shapes and result as in :func:`alrp_cuda.alrp_loss`; the gradient of ``loc`` is balanced."""
        out = alrp_loss(logits, targets, loc_errors, num_positives=num_positives, image_index=image_index, **self._options())
        cls, loc = apply_balance(self.balance, out.cls, out.loc)
        return out._replace(cls=cls, loc=loc)


class APLoss(_RankingLoss):
    """Module form of :func:`alrp_cuda.ap_loss`, which documents the arguments; Eq. 2 and 4.

    Raises:
        TypeError, ValueError: an argument of the wrong type, out of range, or of an unknown name.

    Example:
        >>> import torch, alrp_cuda
        >>> float(alrp_cuda.APLoss()(torch.zeros(4), torch.tensor([1, 0, 0, -1])))
        0.5
    """

    _names = (*_RankingLoss._names, "background", "interpolate")

    def __init__(
        self,
        *,
        delta: float = 1.0,
        interpolate: bool = False,
        eps: float = 1e-5,
        background: int | None = None,
        scope: str = "batch",
        algorithm: str = "auto",
        group: "ProcessGroup | None" = None,
    ) -> None:
        super().__init__(delta, eps, scope, algorithm, group)
        check_background(background)
        self.background = background
        check_flag("interpolate", interpolate)
        self.interpolate = interpolate

    def forward(
        self,
        logits: Tensors,
        targets: Tensors,
        *,
        num_positives: int | Sequence[int] | None = None,
        image_index: Tensor | None = None,
    ) -> Tensor:
        """Shapes and result as in :func:`alrp_cuda.ap_loss`."""
        return ap_loss(logits, targets, num_positives=num_positives, image_index=image_index, **self._options())


class NDCGLoss(_RankingLoss):
    """Module form of :func:`alrp_cuda.ndcg_loss`, which documents the arguments; sec. 3 with the gain of a rank.

    Raises:
        TypeError, ValueError: an argument of the wrong type, out of range, or of an unknown name.

    Example:
        >>> import torch, alrp_cuda
        >>> round(float(alrp_cuda.NDCGLoss()(torch.zeros(4), torch.tensor([1, 0, 0, -1]))), 4)
        0.3691
    """

    _names = (*_RankingLoss._names, "background")

    def __init__(
        self,
        *,
        delta: float = 1.0,
        eps: float = 1e-5,
        background: int | None = None,
        scope: str = "batch",
        algorithm: str = "auto",
        group: "ProcessGroup | None" = None,
    ) -> None:
        super().__init__(delta, eps, scope, algorithm, group)
        check_background(background)
        self.background = background

    def forward(
        self,
        logits: Tensors,
        targets: Tensors,
        *,
        num_positives: int | Sequence[int] | None = None,
        image_index: Tensor | None = None,
    ) -> Tensor:
        """Shapes and result as in :func:`alrp_cuda.ndcg_loss`."""
        return ndcg_loss(logits, targets, num_positives=num_positives, image_index=image_index, **self._options())


class RankSortLoss(_RankingLoss):
    """Module form of :func:`alrp_cuda.rank_sort_loss`, which documents the arguments; Rank & Sort Loss, ICCV 2021.

    Raises:
        TypeError, ValueError: an argument of the wrong type, out of range, or of an unknown name.

    Example:
        >>> import torch, alrp_cuda
        >>> out = alrp_cuda.RankSortLoss()(torch.zeros(4), torch.tensor([0.9, 0.5, 0.0, -1.0]))
        >>> round(float(out.rank), 4), round(float(out.sort), 4)
        (0.3333, 0.1)
    """

    def __init__(
        self,
        *,
        delta: float = 0.5,
        eps: float = 1e-10,
        scope: str = "batch",
        algorithm: str = "auto",
        group: "ProcessGroup | None" = None,
    ) -> None:
        super().__init__(delta, eps, scope, algorithm, group)

    def forward(
        self,
        logits: Tensors,
        targets: Tensors,
        *,
        num_positives: int | Sequence[int] | None = None,
        image_index: Tensor | None = None,
    ) -> RankSortOutput:
        """Shapes and result as in :func:`alrp_cuda.rank_sort_loss`."""
        return rank_sort_loss(logits, targets, num_positives=num_positives, image_index=image_index, **self._options())
