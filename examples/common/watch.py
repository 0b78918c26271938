"""What a step's losses take, forward and backward, and how their gradients balance, without a change to the losses."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN, roi_heads
from torchvision.models.detection.ssd import SSD

from alrp_cuda import head_views
from alrp_cuda.metrics import GradientBalance

from .losses import Detector


def now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class _Mark(torch.autograd.Function):
    """The identity, which writes down when the gradient passes."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, times: list[float]) -> Tensor:
        ctx.times = times
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.times.append(now(grad.device))
        return grad, None


def mark(value: Any, times: list[float]) -> Any:
    """``value``, all of whose tensors pass through a mark; tuples, lists and dicts are looked into."""
    if isinstance(value, Tensor):
        return _Mark.apply(value, times) if value.requires_grad else value
    if isinstance(value, tuple):
        return tuple(mark(v, times) for v in value)
    if isinstance(value, list):
        return [mark(v, times) for v in value]
    if isinstance(value, dict):
        return {name: mark(v, times) for name, v in value.items()}
    return value


@dataclass
class LossClock:
    """Seconds of loss functions: of their calls, and of their part of the backward pass.

    Autograd runs what was recorded last first, so between the gradients of a loss's results and those of its arguments nothing
    runs but that loss.
    """

    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)
    forward: float = 0.0
    _backward: list[tuple[list[float], list[float]]] = field(default_factory=list)  # when each began and ended

    def watch(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            begun: list[float] = []
            ended: list[float] = []
            self._backward.append((begun, ended))
            marked = mark(arguments, ended)
            start = now(self.device)
            result = loss(*marked)
            self.forward += now(self.device) - start
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

    classes: int  # of the head's logits
    _classes: Tensor | None = None  # of one iteration
    _grads: dict[int, Tensor] = field(default_factory=dict)  # of the scores, or of each level's map of them

    def watch(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """``loss``, a head's ``compute_loss``."""

        def watched(
            targets: list[dict[str, Tensor]], head_outputs: dict[str, Any], anchors: list[Tensor], matched: list[Tensor]
        ) -> Any:
            scores = head_outputs["cls_logits"]
            # Matches are -1 for background and -2 for what takes no part: the last of these labels, and the one before.
            last = torch.tensor([-1, self.classes], device=matched[0].device)
            self._classes = torch.stack([torch.cat((t["labels"], last))[m] for t, m in zip(targets, matched, strict=True)])
            self._grads.clear()
            for k, tensor in enumerate([scores] if isinstance(scores, Tensor) else scores):
                tensor.register_hook(partial(self._grads.__setitem__, k))
            return loss(targets, head_outputs, anchors, matched)

        return watched

    def take(self) -> float | None:
        """Positives' over negatives' gradient in the last iteration; None for a detector that was not watched."""
        if self._classes is None:
            return None
        grads = [self._grads[k] for k in sorted(self._grads)]
        if grads[0].dim() == 4:  # maps, as use_alrp has them
            grads = [torch.cat([view.flatten(1, 3) for view in head_views(grads, self.classes)], 1)]
        balance = GradientBalance()
        balance.update(grads[0], self._classes)
        self._classes = None
        return balance.compute().item()


@contextmanager
def watched(model: Detector, classes: int) -> Iterator[tuple[LossClock, GradientWatch]]:
    """Watch the losses of a model whose dense head has so many classes, torchvision's or those of ``use_alrp``, until the end of
    the context. Of an SSD, whose own losses are of a softmax, the gradients' balance is not watched."""
    clock, gradients = LossClock(next(model.parameters()).device), GradientWatch(classes)
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
        elif isinstance(model, SSD):
            put(model, "compute_loss", clock.watch)
        else:
            put(model.head, "compute_loss", clock.watch, gradients.watch)
        yield clock, gradients
