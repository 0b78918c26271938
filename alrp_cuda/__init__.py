"""Ranking-based detection losses, exact and cheap, on the CPU and on CUDA devices.

Example:
    >>> import torch, alrp_cuda
    >>> logits = torch.zeros(4, requires_grad=True)
    >>> out = alrp_cuda.alrp_loss(logits, torch.tensor([1, 0, 0, -1]), torch.tensor([0.5]))
    >>> (out.cls + out.loc).backward()
    >>> logits.grad.tolist()
    [-0.5, 0.25, 0.25, 0.0]
"""

from . import metrics, reference
from .balance import SelfBalance
from .correlation import correlation_loss
from .diagnosis import Diagnosis, diagnose
from .framework import Errors, Ranks, error_driven_loss
from .functional import alrp_loss, ap_loss, ndcg_loss, rank_sort_loss
from .levels import head_views, order_by_level, split_targets
from .losses import ALRPLoss, APLoss, NDCGLoss, RankSortLoss
from .native import backends, set_debug
from .outputs import ALRPOutput, RankSortOutput
from .version import __version__

__all__ = [
    "ALRPLoss",
    "ALRPOutput",
    "APLoss",
    "Diagnosis",
    "Errors",
    "NDCGLoss",
    "RankSortLoss",
    "RankSortOutput",
    "Ranks",
    "SelfBalance",
    "__version__",
    "alrp_loss",
    "ap_loss",
    "backends",
    "correlation_loss",
    "diagnose",
    "error_driven_loss",
    "head_views",
    "metrics",
    "ndcg_loss",
    "order_by_level",
    "rank_sort_loss",
    "reference",
    "set_debug",
    "split_targets",
]
