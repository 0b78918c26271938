"""Class maps as a head computes them: in training they go to the loss as they are, neither permuted nor joined."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from .replacement import Replacement


@dataclass
class ClassMaps:
    """In the place of the ``forward`` of RetinaNet's and FCOS's classification heads: in training each level's map,
    (N, A * C, H, W). Evaluation is the head's own."""

    model: nn.Module  # whose mode decides, as in its own forward
    head: Any

    def __call__(self, features: list[Tensor]) -> Tensor | list[Tensor]:
        if not self.model.training:
            return type(self.head).forward(self.head, features)  # type: ignore[no-any-return]
        return [self.head.cls_logits(self.head.conv(level)) for level in features]


@dataclass
class ForegroundMaps:
    """The same for the classification heads of SSD and SSDlite, without the background's column: a layer with the parameters of
    the others computes maps that are dense in memory, as a slice would not be."""

    model: nn.Module
    head: Any

    def __call__(self, features: list[Tensor]) -> Tensor | list[Tensor]:
        if not self.model.training:
            return type(self.head).forward(self.head, features)  # type: ignore[no-any-return]
        levels = zip(self.head.module_list, features, strict=True)
        return [foreground(module, level, self.head.num_columns) for module, level in levels]


def foreground(module: nn.Module, features: Tensor, columns: int) -> Tensor:
    """(N, A * C, H, W), what a module that ends in a convolution puts out without the first of each anchor's 1 + C columns."""
    name, last = last_of(module)
    prefix = f"{name}." if name else ""
    kept = {prefix + key: p.view(-1, columns, *p.shape[1:])[:, 1:].flatten(0, 1) for key, p in last.named_parameters()}
    maps: Tensor = functional_call(module, kept, (features,))
    return maps


def last_of(module: nn.Module) -> tuple[str, nn.Module]:
    """The layer that a level's module ends in, and its name."""
    name, last = list(module.named_modules())[-1]
    return name, last


def is_stock(module: object, *methods: Callable[..., Any]) -> bool:
    """Whether a module has these methods from torchvision."""
    return all(getattr(type(module), method.__name__, None) is method for method in methods)


def as_maps(model: nn.Module, known: bool, replacement: Replacement) -> list[Replacement]:
    """What makes the class maps go to the loss as they are, where the model's parts are ``known``; else none, and a warning."""
    if known:
        return [replacement]
    warnings.warn(
        f"{type(model).__name__}: the model or its head computes class scores in its own way, so they are permuted and joined "
        "before the loss",
        stacklevel=4,  # the caller of use_alrp
    )
    return []
