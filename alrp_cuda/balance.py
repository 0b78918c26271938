"""The weight of the boxes that finds itself (sec. 4.2 of the aLRP paper)."""

import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .distributed.channel import check_group, uncompiled
from .inputs import FLOATING, check_number, check_tensor
from .scale import scale_gradient

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class SelfBalance(nn.Module):
    """Self-balancing of aLRP Loss: the boxes' gradient weighs (mean L_cls + mean L_loc) / mean L_loc of the previous epoch.

    In the first epoch the weight is ``initial``, and it stays as it is after an epoch whose mean L_loc is not above 0. The
    logged value of L_loc does not change. Sec. 4.2 of Oksuz et al., NeurIPS 2020.

    Iterations count in train mode with gradients enabled, so that evaluation does not. One whose losses are not finite (a
    step that a gradient scaler skips) is left out of the means; one without positives adds 0 to both, which changes nothing.

    An iteration makes no host synchronisation. All state is in buffers, so a ``state_dict`` resumes exactly, also in
    mid-epoch. Under torch.distributed each rank adds up its own losses and the sums are reduced over ``group`` at the end of an
    epoch, so that every rank has the same weight: then every rank must end its epochs together, and save its own state in
    mid-epoch. Buffers are written in place, so that a captured CUDA graph sees the new weight on replay; see docs/cuda-graphs.md.
    Keep the module out of DistributedDataParallel, or set ``broadcast_buffers=False``: it would replace the other ranks' sums by
    those of rank 0.

    Args:
        epoch_length: iterations of an epoch, >= 1; None: you call :meth:`end_epoch`.
        initial: the weight in the first epoch; finite, >= 0.
        group: the :class:`torch.distributed.ProcessGroup` of the ranks that train; None: all ranks, if there are several.

    Attributes:
        weight: scalar float64 buffer, the weight of this epoch.
        sums: (2,) float64 buffer, sums of L_cls and L_loc in this epoch so far, of this rank.
        iteration: scalar int64 buffer, iterations in this epoch so far.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range, or a group that this rank cannot use.

    Example:
        >>> import torch, alrp_cuda
        >>> balance = alrp_cuda.SelfBalance(epoch_length=2)
        >>> errors = torch.tensor(0.25, requires_grad=True)
        >>> for _ in range(3):
        ...     cls, loc = balance(torch.tensor(0.5), errors * 1)
        ...     errors.grad = None
        ...     loc.backward()
        ...     print(loc.item(), errors.grad.item())
        0.25 50.0
        0.25 50.0
        0.25 3.0
    """

    group: "ProcessGroup | None" = None  # which pickles of version 0.1 lack
    weight: Tensor
    sums: Tensor
    iteration: Tensor

    def __init__(self, epoch_length: int | None = None, *, initial: float = 50.0, group: "ProcessGroup | None" = None) -> None:
        super().__init__()
        if epoch_length is not None:
            if isinstance(epoch_length, bool) or not isinstance(epoch_length, numbers.Integral):
                raise TypeError(f"epoch_length must be an int or None, got {type(epoch_length).__name__}")
            if epoch_length < 1:
                raise ValueError(f"epoch_length must be >= 1, got {epoch_length}")
        self.epoch_length = None if epoch_length is None else int(epoch_length)
        self.initial = check_number("initial", initial)
        check_group(group)
        self.group = group
        self.register_buffer("weight", torch.tensor(self.initial, dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("iteration", torch.zeros((), dtype=torch.int64))
        # `iteration` as the host knows it, which has to enter a collective at the epoch's end; None: to be read once.
        self._host_iteration: int | None = None

    def forward(self, cls: Tensor, loc: Tensor) -> tuple[Tensor, Tensor]:
        """Balance one iteration, and count it.

        Args:
            cls: scalar, L_cls; floating, on the device of the module.
            loc: scalar, L_loc; floating, on the device of the module.

        Returns:
            ``cls`` as it is, and a tensor of the value of ``loc`` whose gradient is multiplied by the weight of this epoch.

        Raises:
            TypeError: not tensors of a floating dtype.
            ValueError: no scalars, or on another device than the module.
        """
        for name, value in (("cls", cls), ("loc", loc)):
            check_tensor(name, value, FLOATING)
            if value.dim() != 0:
                raise ValueError(f"{name} must be a scalar, got shape {tuple(value.shape)}")
            if value.device != self.weight.device:
                raise ValueError(f"{name} must be on the device of the module, {self.weight.device}, got {value.device}")
        # The weight of this iteration is kept for its backward pass: the buffer may change before. It lies in one tensor with
        # what is returned, for torch.compile makes a copy that only the backward pass reads there, from the buffer.
        value, weight = torch.stack((loc, self.weight.to(loc.dtype))).unbind()
        balanced = scale_gradient(value, weight.detach())
        if self.training and torch.is_grad_enabled():
            self._count(cls.detach(), loc.detach())
        return cls, balanced

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Take the weight of the next epoch from this one, and begin anew; to be called on every rank of ``group``.

        With ``epoch_length`` it ends an epoch early. After an epoch without iterations the weight stays.
        """
        if _is_distributed(self.group):
            dist.all_reduce(self.sums, group=self.group)
        self._turn(torch.ones_like(self.iteration, dtype=torch.bool))
        self._host_iteration = None

    @torch.no_grad()
    def _count(self, cls: Tensor, loc: Tensor) -> None:
        losses = torch.stack((cls, loc)).double()
        self.sums += torch.where(losses.isfinite().all(), losses, 0)
        self.iteration += 1
        if self.epoch_length is None:
            return
        if _is_distributed(self.group):
            uncompiled(self._count_on_host)()  # a graph would hold for one value of the host's count
        else:
            self._turn(self.iteration >= self.epoch_length)

    def _count_on_host(self) -> None:
        """End the epoch, by the host's count: all ranks enter the collective together, and none asks its device each time."""
        if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():  # type: ignore[no-untyped-call]
            raise ValueError(
                "epoch_length must be None where a step of several ranks is captured in a CUDA graph, which the host does not "
                f"count (call end_epoch() between replays), got {self.epoch_length}"
            )
        if self._host_iteration is None:
            self._host_iteration = int(self.iteration) - 1
        self._host_iteration += 1
        if self.epoch_length is not None and self._host_iteration >= self.epoch_length:
            self.end_epoch()
            self._host_iteration = 0

    def _turn(self, ends: Tensor) -> None:
        """Begin the next epoch where ``ends``, a scalar bool tensor, is true."""
        cls, loc = self.sums.unbind()
        # In place: a captured CUDA graph reads the weight where it lay. By assignment: Dynamo of torch 2.13 drops a method whose
        # result nobody uses from its graph, though the method writes.
        self.weight[...] = torch.where(ends & (loc > 0), (cls + loc) / loc, self.weight)
        self.sums[...] = torch.where(ends, 0, self.sums)
        self.iteration[...] = torch.where(ends, 0, self.iteration)

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        super()._load_from_state_dict(*arguments, **options)
        self._host_iteration = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SelfBalance":
        """Move to devices, but keep dtypes: a model in half precision must not round these sums."""

        def move(buffer: Tensor) -> Tensor:
            moved = fn(buffer)
            return moved if moved.dtype == buffer.dtype else buffer.to(moved.device)

        super()._apply(move, recurse)  # type: ignore[no-untyped-call]
        return self

    def extra_repr(self) -> str:
        group = "" if self.group is None else f", group={self.group!r}"
        return f"epoch_length={self.epoch_length}, initial={self.initial}{group}"


def _is_distributed(group: "ProcessGroup | None") -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1
