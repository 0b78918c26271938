"""What a step's losses take, forward and backward, and how their gradients balance, without a change to the losses."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN, roi_heads

from alrp_cuda.metrics import GradientBalance

from .models import Detector


class _Mark(torch.autograd.Function):
    """The identity, which writes down when the gradient passes."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, times: list[float]) -> Tensor:
        ctx.times = times
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.times.append(time.perf_counter())
        return grad, None


def mark(value: Any, times: list[float]) -> Any:
    """``value``, all of whose tensors pass through a mark; tuples and dicts are looked into."""
    if isinstance(value, Tensor):
        return _Mark.apply(value, times) if value.requires_grad else value
    if isinstance(value, tuple):
        return tuple(mark(v, times) for v in value)
    if isinstance(value, dict):
        return {name: mark(v, times) for name, v in value.items()}
    return value


@dataclass
class LossClock:
    """Seconds of loss functions: of their calls, and of their part of the backward pass.

    Autograd runs what was recorded last first, so between the gradients of a loss's results and those of its arguments nothing
    runs but that loss.
    """

    forward: float = 0.0
    _backward: list[tuple[list[float], list[float]]] = field(default_factory=list)  # when each began and ended

    def watch(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            begun: list[float] = []
            ended: list[float] = []
            self._backward.append((begun, ended))
            marked = mark(arguments, ended)
            start = time.perf_counter()
            result = loss(*marked)
            self.forward += time.perf_counter() - start
            return mark(result, begun)

        return watched

    def take(self) -> float:
        """Seconds since the last call."""
        seconds = self.forward + sum(max(ended) - min(begun) for begun, ended in self._backward if begun and ended)
        self.forward = 0.0
        self._backward.clear()
        return seconds


@dataclass
class GradientWatch:
    """The balance of the gradient of a dense head's class logits, iteration by iteration."""

    _seen: list[Tensor] = field(default_factory=list)  # of one iteration: classes, gradient

    def watch(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """``loss``, a head's ``compute_loss``."""

        def watched(
            targets: list[dict[str, Tensor]], head_outputs: dict[str, Tensor], anchors: list[Tensor], matched: list[Tensor]
        ) -> Any:
            logits = head_outputs["cls_logits"]
            # Matches are -1 for background and -2 for what takes no part: the last of these labels, and the one before.
            last = torch.tensor([-1, logits.shape[-1]])
            classes = [torch.cat((t["labels"], last))[m] for t, m in zip(targets, matched, strict=True)]
            self._seen = [torch.stack(classes)]
            logits.register_hook(self._seen.append)  # type: ignore[no-untyped-call]
            return loss(targets, head_outputs, anchors, matched)

        return watched

    def take(self) -> float | None:
        """Positives' over negatives' gradient in the last iteration; None for a detector that was not watched."""
        if not self._seen:
            return None
        (classes, grad), self._seen = self._seen, []
        balance = GradientBalance()
        balance.update(grad, classes)
        return balance.compute().item()


@contextmanager
def watched(model: Detector) -> Iterator[tuple[LossClock, GradientWatch]]:
    """Watch the model's losses, torchvision's or those of ``use_alrp``, until the end of the context."""
    clock, gradients = LossClock(), GradientWatch()
    with ExitStack() as stack:

        def put(owner: Any, name: str, *watches: Callable[..., Any]) -> None:
            loss = getattr(owner, name)
            for watch in watches:
                loss = watch(loss)
            stack.enter_context(patch.object(owner, name, loss))

        if isinstance(model, FasterRCNN):
            put(model.rpn, "compute_loss", clock.watch)
            ours = getattr(model.roi_heads, "ranking", None)
            put(*((ours, "forward") if ours is not None else (roi_heads, "fastrcnn_loss")), clock.watch)
        else:
            put(model.head, "compute_loss", clock.watch, gradients.watch)
        yield clock, gradients
