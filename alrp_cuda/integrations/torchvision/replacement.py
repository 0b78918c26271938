"""Putting losses into a model and taking them out: attributes of the instance, which hide the methods of its class."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ...balance import SelfBalance
from .ranking import RankingLoss

MakeLoss = Callable[..., RankingLoss]  # by the settings of use_alrp; a keyword replaces one of them


class Replacement(NamedTuple):
    """``value`` as the attribute ``name`` of ``module``."""

    module: nn.Module
    name: str
    value: Any


_DONE = "_alrp_replaced"  # on the model: what was set, (module, name) each
_DDP = "_ddp_params_and_buffers_to_ignore"


def apply_replacements(model: nn.Module, replacements: list[Replacement]) -> None:
    """Apply these in the place of earlier ones."""
    restore(model)
    for module, name, value in replacements:
        setattr(module, name, value)
    setattr(model, _DONE, [(module, name) for module, name, _ in replacements])
    # Self-balancing reduces its sums itself, at the end of an epoch; a broadcast of rank 0's would lose the others'.
    own = [
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, SelfBalance)
        for name, _ in module.named_buffers()
    ]
    if own:
        ignored = list({*getattr(model, _DDP, ()), *own})
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ignored)  # type: ignore[no-untyped-call]


def is_replaced(model: nn.Module) -> bool:
    """Whether :func:`apply_replacements` was the last to be called."""
    return _DONE in vars(model)


def restore(model: nn.Module) -> None:
    """Take out what :func:`apply_replacements` put in, if anything."""
    for module, name in model.__dict__.pop(_DONE, []):
        delattr(module, name)
