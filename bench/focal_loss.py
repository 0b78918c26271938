"""Sigmoid Focal Loss, the score-based loss that a detector would use instead: torchvision's, by autograd, eager and compiled."""

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

# Compiling for the CPU looks for nvcc too, and warns where there is no GPU beside it.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def focal_loss(logits: Tensor, one_hot: Tensor, positives: int | Tensor) -> Tensor:
    """Focal Loss (alpha 0.25, gamma 2, BCE with logits), summed and divided by the number of positives as usual."""
    loss: Tensor = sigmoid_focal_loss(logits, one_hot, reduction="sum")
    return loss / positives


def focal_loss_of_labels(logits: Tensor, targets: Tensor, positives: Tensor) -> Tensor:
    """The same from labels as a training step has them: of each logit, or class indices, which never become one-hot in memory."""
    assert torch.compiler.is_compiling()  # what is not compiled is never timed under this name
    if targets.dim() < logits.dim():
        positive = targets.unsqueeze(-1) == torch.arange(logits.shape[-1], device=logits.device)
    else:
        positive = targets > 0
    return focal_loss(logits, positive.to(logits.dtype), positives)


def compiled_focal_loss() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """``focal_loss_of_labels`` by torch.compile: for the shapes it is first called with, and as many threads as PyTorch uses now.

    What an earlier call returned has to be compiled again: dynamo keeps a few shapes of a function alone.
    """
    torch.compiler.reset()
    # Threads are an option because kernels are cached on disk by options, in early versions whatever their threads.
    threads = torch.get_num_threads()
    return torch.compile(focal_loss_of_labels, fullgraph=True, dynamic=False, options={"cpp.threads": threads})


@cache
def no_compiler(device: str) -> str | None:
    """Why torch.compile cannot be used on a kind of device, or None."""
    try:
        done = torch.compile(_probe, fullgraph=True)(torch.zeros(1, device=device))
    except (RuntimeError, ImportError) as error:
        return str(error).splitlines()[0]
    return None if done is not None else "torch.compile is switched off"


def _probe(x: Tensor) -> Tensor | None:
    return x + 1 if torch.compiler.is_compiling() else None
