"""From checked tensors to the operators ``torch.ops.alrp_cuda``, which compute on the kernels of a backend.

The extension registers the operators with their autograd; :mod:`alrp_cuda.fakes` tells tracers of their outputs. It serves
"cpu" and, where it was built so, "cuda"; tests register an emulated device.
"""

import os
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.overrides import has_torch_function

from . import fakes as fakes  # registers what tracers and vmap ask for
from .inputs import Layout, check_choice
from .native import _C

# In the order of the enumerations in csrc/ranking.h.
LOSSES = ("alrp", "alrp_hard", "ap", "ap_interpolated", "ndcg", "rank_sort")
ALGORITHMS = ("tiled", "sorted")

_device_types: dict[str, str] = {name: name for name in _C.built_backends}  # of each backend's tensors
_registered: dict[str, _C.Kernels] = {}  # kept alive
_C.set_debug(os.environ.get("ALRP_CUDA_DEBUG", "0") not in ("", "0"))


def backends() -> tuple[str, ...]:
    """Names of the backends that this installation can use.

    Example:
        >>> import alrp_cuda
        >>> "cpu" in alrp_cuda.backends()
        True
    """
    return tuple(_device_types)


def register_backend(name: str, kernels: _C.Kernels, device_type: str) -> None:
    """Add a backend for tensors of a type of device; ``backend="auto"`` never chooses it."""
    _C.register_kernels(name, kernels)
    _registered[name], _device_types[name] = kernels, device_type


def set_debug(enabled: bool) -> None:
    """Make asynchronous devices raise for what depends on values, as the CPU does, at the price of a synchronisation a call.

    On a CUDA device an impossible label, or a number of positives other than was told, cannot raise without making the
    host wait. It makes losses and gradients NaN instead; under this switch, or with ``ALRP_CUDA_DEBUG=1`` in the
    environment when the package is imported, it raises the ValueError that the CPU raises.

    Args:
        enabled: whether to check.

    Example:
        >>> import alrp_cuda
        >>> alrp_cuda.set_debug(True)
        >>> alrp_cuda.set_debug(False)
    """
    _C.set_debug(bool(enabled))


def choose_backend(name: str, logits: Tensor) -> str:
    """``name``, or for "auto" the backend of the logits' device.

    Raises:
        ValueError: an unknown name, or logits on a device that the backend does not serve.
    """
    if name == "auto" and logits.is_cpu:  # without the name of the device, for which torch makes and looks up a string
        return "cpu"
    device = logits.device.type
    if name == "auto":
        if device not in _C.built_backends:
            raise ValueError(
                f"logits must be on a device with a backend ({', '.join(_device_types)}), got {logits.device}; "
                f"alrp_cuda.reference works on any device"
            )
        return device
    check_choice("backend", name, ("auto", *_device_types))
    if device != _device_types[name]:
        raise ValueError(f"backend {name!r} needs logits on device type {_device_types[name]!r}, got {logits.device}")
    return name


def choose_algorithm(name: str) -> int:
    """The operators' number for an algorithm; -1 for "auto"."""
    check_choice("algorithm", name, ("auto", *ALGORITHMS))
    return -1 if name == "auto" else ALGORITHMS.index(name)


def ranking_loss(
    logits: Tensor,
    loc_errors: Tensor | None,
    targets: Tensor,
    layout: Layout,
    *,
    backend: str,
    algorithm: str,
    loss: str,
    delta: float,
    eps: float,
    num_positives: int | None,
    sizes: Sequence[int] = (),
    counts: Sequence[int] = (),
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(cls, loc, rank, precision) of one of LOSSES, (rank part, sort part, ...) of Rank & Sort, on a chosen backend.

    ``sizes`` and ``counts``: the logits and the positives of slices that are ranked each by itself, with a cls and a loc each.
    """
    number, tensors = choose_algorithm(algorithm), (logits, targets, loc_errors)
    arguments = *tensors, *layout, delta, number, backend, LOSSES.index(loss), eps, num_positives, sizes, counts
    if torch.compiler.is_compiling() or has_torch_function(tensors):
        cls, loc, rank, precision, _, _ = torch.ops.alrp_cuda.ranking_loss.default(*arguments)
        return cls, loc, rank, precision
    # The same operator, without a look at the arguments by its schema: in a training step, whose activations have driven all
    # else out of the caches, that takes some 45 us more (docs/cpu.md), of 1700 for a million logits.
    return _C.ranking_loss(*arguments)
