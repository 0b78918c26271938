"""One ranking over the global batch: ``group=`` of every loss, and what goes with it.

With ``group=``, a :class:`torch.distributed.ProcessGroup`, a loss ranks the logits of all its ranks together. Every rank gets the
same loss and, for its own logits, the gradient that one process would get from the concatenated batch. What is exchanged grows
with the number of positives alone. See docs/distributed.md.
"""

from typing import Any

import torch.distributed as dist
from torch import Tensor

from ..scale import scale_gradient
from .channel import Traffic, check_group, traffic

__all__ = ["Traffic", "scale_for_ddp", "traffic"]


def scale_for_ddp(loss: Tensor, group: Any) -> Tensor:
    """``loss``, whose gradient is multiplied by the size of ``group``: what DistributedDataParallel needs of a loss over the
    global batch.

    Each rank's gradients are parts of one gradient, which is their sum. DistributedDataParallel takes the mean over the ranks
    instead, and would train with 1 / size of it. Losses that are means over a rank's own batch must not be scaled.

    Args:
        loss: any shape, floating dtype; of a loss with that ``group``.
        group: the group of the loss and of DistributedDataParallel; None leaves the gradient as it is.

    Raises:
        TypeError, ValueError: no process group that this rank can use.

    Example:
        >>> import torch, alrp_cuda
        >>> from alrp_cuda.distributed import scale_for_ddp
        >>> group = None  # or torch.distributed.group.WORLD
        >>> logits = torch.tensor([2.0, 1.0, 0.0], requires_grad=True)
        >>> loss = alrp_cuda.ap_loss(logits, torch.tensor([1, 0, 1]), delta=0.0, group=group)
        >>> scale_for_ddp(loss, group).backward()
        >>> logits.grad.tolist()[1:]
        [0.1666666716337204, -0.1666666716337204]
    """
    check_group(group)
    return loss if group is None else scale_gradient(loss, float(dist.get_world_size(group)))
