"""The losses as modules: the arguments of the functions, checked once."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from .balance import SelfBalance
from .distributed.channel import check_group
from .functional import alrp_loss, ap_loss, ndcg_loss, rank_sort_loss
from .inputs import ORDERS, SCOPES, check_background, check_choice, check_flag, check_number
from .ops import ALGORITHMS, backends
from .outputs import ALRPOutput, RankSortOutput
from .scale import scale_gradient

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class _RankingLoss(nn.Module):
    """Keeps what all losses take and shows it."""

    def __init__(self, delta: float, eps: float, scope: str, algorithm: str, backend: str, group: "ProcessGroup | None") -> None:
        super().__init__()
        check_choice("scope", scope, SCOPES)
        self.scope = scope
        self.delta = check_number("delta", delta)
        self.eps = check_number("eps", eps)
        check_choice("algorithm", algorithm, ("auto", *ALGORITHMS))
        check_choice("backend", backend, ("auto", *backends()))
        self.algorithm = algorithm
        self.backend = backend
        check_group(group)
        self.group = group

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if name[0] != "_" and name != "training")


class ALRPLoss(_RankingLoss):
    """Module form of :func:`alrp_cuda.alrp_loss`, which documents the arguments; L_cls and L_loc of Eq. 11.

    Args:
        balance: what the gradient of ``loc`` is multiplied by, not its value: a number >= 0, None for 1, or "self" for
            self-balancing (sec. 4.2), which is then the submodule ``balance``, an :class:`alrp_cuda.SelfBalance`.
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

    balance: SelfBalance | float | None

    def __init__(
        self,
        *,
        delta: float = 1.0,
        order: str = "smooth",
        eps: float = 1e-5,
        background: int | None = None,
        scope: str = "batch",
        algorithm: str = "auto",
        backend: str = "auto",
        group: "ProcessGroup | None" = None,
        balance: float | str | None = None,
        epoch_length: int | None = None,
    ) -> None:
        super().__init__(delta, eps, scope, algorithm, backend, group)
        check_background(background)
        self.background = background
        check_choice("order", order, ORDERS)
        self.order = order
        if isinstance(balance, str):
            check_choice("balance", balance, ("self",))
            self.balance = SelfBalance(epoch_length, group=group)
            return
        if epoch_length is not None:
            raise ValueError(f"epoch_length must be None unless balance is 'self', got {epoch_length}")
        self.balance = None if balance is None else check_number("balance", balance)

    def forward(self, logits: Tensor, targets: Tensor, loc_errors: Tensor, *, image_index: Tensor | None = None) -> ALRPOutput:
        """Shapes and result as in :func:`alrp_cuda.alrp_loss`; the gradient of ``loc`` is balanced."""
        out = alrp_loss(
            logits,
            targets,
            loc_errors,
            delta=self.delta,
            order=self.order,
            eps=self.eps,
            background=self.background,
            scope=self.scope,
            image_index=image_index,
            algorithm=self.algorithm,
            backend=self.backend,
            group=self.group,
        )
        if self.balance is None:
            return out
        if isinstance(self.balance, SelfBalance):
            return out._replace(loc=self.balance(out.cls, out.loc)[1])
        return out._replace(loc=scale_gradient(out.loc, self.balance))


class APLoss(_RankingLoss):
    """Module form of :func:`alrp_cuda.ap_loss`, which documents the arguments; Eq. 2 and 4.

    Raises:
        TypeError, ValueError: an argument of the wrong type, out of range, or of an unknown name.

    Example:
        >>> import torch, alrp_cuda
        >>> float(alrp_cuda.APLoss()(torch.zeros(4), torch.tensor([1, 0, 0, -1])))
        0.5
    """

    def __init__(
        self,
        *,
        delta: float = 1.0,
        interpolate: bool = False,
        eps: float = 1e-5,
        background: int | None = None,
        scope: str = "batch",
        algorithm: str = "auto",
        backend: str = "auto",
        group: "ProcessGroup | None" = None,
    ) -> None:
        super().__init__(delta, eps, scope, algorithm, backend, group)
        check_background(background)
        self.background = background
        check_flag("interpolate", interpolate)
        self.interpolate = interpolate

    def forward(
        self, logits: Tensor, targets: Tensor, *, num_positives: int | None = None, image_index: Tensor | None = None
    ) -> Tensor:
        """Shapes and result as in :func:`alrp_cuda.ap_loss`."""
        return ap_loss(
            logits,
            targets,
            delta=self.delta,
            interpolate=self.interpolate,
            eps=self.eps,
            background=self.background,
            scope=self.scope,
            image_index=image_index,
            num_positives=num_positives,
            algorithm=self.algorithm,
            backend=self.backend,
            group=self.group,
        )


class NDCGLoss(_RankingLoss):
    """Module form of :func:`alrp_cuda.ndcg_loss`, which documents the arguments; sec. 3 with the gain of a rank.

    Raises:
        TypeError, ValueError: an argument of the wrong type, out of range, or of an unknown name.

    Example:
        >>> import torch, alrp_cuda
        >>> round(float(alrp_cuda.NDCGLoss()(torch.zeros(4), torch.tensor([1, 0, 0, -1]))), 4)
        0.3691
    """

    def __init__(
        self,
        *,
        delta: float = 1.0,
        eps: float = 1e-5,
        background: int | None = None,
        scope: str = "batch",
        algorithm: str = "auto",
        backend: str = "auto",
        group: "ProcessGroup | None" = None,
    ) -> None:
        super().__init__(delta, eps, scope, algorithm, backend, group)
        check_background(background)
        self.background = background

    def forward(
        self, logits: Tensor, targets: Tensor, *, num_positives: int | None = None, image_index: Tensor | None = None
    ) -> Tensor:
        """Shapes and result as in :func:`alrp_cuda.ndcg_loss`."""
        return ndcg_loss(
            logits,
            targets,
            delta=self.delta,
            eps=self.eps,
            background=self.background,
            scope=self.scope,
            image_index=image_index,
            num_positives=num_positives,
            algorithm=self.algorithm,
            backend=self.backend,
            group=self.group,
        )


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
        backend: str = "auto",
        group: "ProcessGroup | None" = None,
    ) -> None:
        super().__init__(delta, eps, scope, algorithm, backend, group)

    def forward(
        self, logits: Tensor, targets: Tensor, *, num_positives: int | None = None, image_index: Tensor | None = None
    ) -> RankSortOutput:
        """Shapes and result as in :func:`alrp_cuda.rank_sort_loss`."""
        return rank_sort_loss(
            logits,
            targets,
            delta=self.delta,
            eps=self.eps,
            scope=self.scope,
            image_index=image_index,
            num_positives=num_positives,
            algorithm=self.algorithm,
            backend=self.backend,
            group=self.group,
        )
