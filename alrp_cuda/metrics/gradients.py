"""Do positives and negatives pull equally? The ratio of their gradients, watched while training."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..inputs import FLOATING, Layout, check_targets, check_tensor


def parts_of(targets: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Which logits are positive and which negative, bool of the logits' shape; what is neither is ignored. Nothing is checked."""
    labels = targets if targets.is_floating_point() else targets.long()  # torch compares few of the unsigned dtypes
    if not layout.classes:
        return labels > 0, labels == 0
    labels = labels[..., None]
    positive = (labels == torch.arange(layout.classes, device=labels.device)) & (labels != layout.background)
    return positive, ~positive & (labels >= 0)


class GradientBalance:
    """Sum of absolute gradients of positives' logits over that of negatives' (Fig. 4 of the aLRP paper); 1 is balance.

    Ranking losses keep it at 1 (Theorem 2), Focal Loss and others do not. A light monitor: an update is a few reductions
    on the gradient's device, without a host synchronisation, and a step whose gradient is not finite is left out.

    Example:
        >>> import torch, alrp_cuda
        >>> from alrp_cuda.metrics import GradientBalance
        >>> balance = GradientBalance()
        >>> logits, targets = torch.zeros(4, requires_grad=True), torch.tensor([1, 0, 0, -1])
        >>> handle = logits.register_hook(balance.hook(targets))
        >>> alrp_cuda.ap_loss(logits, targets).backward()
        >>> balance.compute()
        tensor(1., dtype=torch.float64)
    """

    def __init__(self) -> None:
        self._sums: Tensor | None = None

    def update(self, grad: Tensor, targets: Tensor, *, background: int | None = None) -> None:
        """Add the gradient of one iteration.

        Args:
            grad: gradient of the logits, any shape, of a floating dtype; may be scaled by anything.
            targets: of the gradient's shape: > 0 positive, 0 negative, < 0 ignored; or class indices of that shape without its
                last dimension, as in :func:`alrp_cuda.alrp_loss`. Values are not checked: that would need a synchronisation.
            background: class index that means background, default C; only with class indices.

        Raises:
            TypeError, ValueError: types, dtypes, shapes or devices that do not fit.
        """
        check_tensor("grad", grad, FLOATING)
        layout = check_targets(grad, targets, background)
        size = grad.detach().abs()
        # Entries that take no part may hold NaN: chosen away, not multiplied by 0.
        sums = torch.stack([torch.where(part, size, 0).sum(dtype=torch.float64) for part in parts_of(targets, layout)])
        sums = torch.where(sums.isfinite().all(), sums, 0)
        self._sums = sums if self._sums is None else self._sums.to(sums.device) + sums

    def hook(self, targets: Tensor, *, background: int | None = None) -> Callable[[Tensor], None]:
        """What ``logits.register_hook`` takes to ``update`` by the gradient of each backward pass, which it leaves as it is."""

        def watch(grad: Tensor) -> None:
            self.update(grad, targets, background=background)

        return watch

    def compute(self) -> Tensor:
        """The ratio over all updates: float64 scalar >= 0 on the gradients' device; NaN without a gradient."""
        if self._sums is None:
            return torch.tensor(math.nan, dtype=torch.float64)
        return self._sums[0] / self._sums[1]

    def reset(self) -> None:
        """Forget all updates."""
        self._sums = None
