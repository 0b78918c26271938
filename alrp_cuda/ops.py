"""From checked tensors to kernels: the choice of backend, and autograd around one forward and one backward pass.

A backend is an object with ``forward``, ``backward`` and ``count_positives`` as :mod:`alrp_cuda._C` has them, on tensors
of one device type. The extension serves "cpu" and, where it was built so, "cuda"; tests register an emulated device.
"""

import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

try:
    from . import _C
except ImportError as error:
    raise ImportError(
        "alrp_cuda's kernels could not be imported: build them with `pip install --no-build-isolation .` in the source tree, "
        f"with the torch you run ({torch.__version__}); {error}"
    ) from error
from .first_order import first_order_only
from .inputs import Layout, bad_label, check_choice, check_positives

# In the order of the enumerations in csrc/ranking.h.
LOSSES = ("alrp", "alrp_hard", "ap", "ap_interpolated", "ndcg", "rank_sort")
ALGORITHMS = ("tiled", "sorted")


class Backend(NamedTuple):
    """Kernels, the type of device whose memory they read, and whether a look at a value makes the host wait for them."""

    kernels: Any
    device_type: str
    is_asynchronous: bool


_backends: dict[str, Backend] = {name: Backend(_C, name, is_asynchronous=name != "cpu") for name in _C.built_backends}
_debug = os.environ.get("ALRP_CUDA_DEBUG", "0") not in ("", "0")


def backends() -> tuple[str, ...]:
    """Names of the backends that this installation can use.

    Example:
        >>> import alrp_cuda
        >>> "cpu" in alrp_cuda.backends()
        True
    """
    return tuple(_backends)


def register_backend(name: str, backend: Backend) -> None:
    """Add a backend; ``backend="auto"`` never chooses it."""
    _backends[name] = backend


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
    global _debug
    _debug = bool(enabled)


def choose_backend(name: str, logits: Tensor) -> Backend:
    """The backend of that name, or for "auto" that of the logits' device.

    Raises:
        ValueError: an unknown name, or logits on a device that the backend does not serve.
    """
    device = logits.device.type
    check_choice("backend", name, ("auto", *_backends))
    if name == "auto":
        if device not in _backends:
            raise ValueError(
                f"logits must be on a device with a backend ({', '.join(_backends)}), got {logits.device}; "
                f"alrp_cuda.reference works on any device"
            )
        return _backends[device]
    if device != _backends[name].device_type:
        raise ValueError(f"backend {name!r} needs logits on device type {_backends[name].device_type!r}, got {logits.device}")
    return _backends[name]


def choose_algorithm(name: str, dtype: torch.dtype, positives: int, delta: float) -> int:
    """Index of the algorithm of that name; "auto" is the faster one for this many positives.

    Where the sorted form needs its wide positions (csrc/positions.h), it costs as much as the tiled one with some hundred
    positives; else it is the faster one with any number.
    """
    if name == "auto":
        wide = dtype == torch.float64 or delta == 0
        name = "tiled" if wide and positives <= 160 else "sorted"
    return ALGORITHMS.index(name)


def _raise_for(status: list[int], layout: Layout, told: tuple[str, int] | None) -> None:
    found, invalid, _ = status
    if invalid:
        raise bad_label(layout)
    if told is not None:
        check_positives(told[0], told[1], found)


def check_status(backend: Backend, status: Tensor, layout: Layout, told: tuple[str, int] | None) -> None:
    """Raise for what the kernels found in the values, unless looking would make the host wait (see :func:`set_debug`)."""
    if not backend.is_asynchronous or _debug:
        _raise_for(status.tolist(), layout, told)


def count_positives(backend: Backend, logits: Tensor, targets: Tensor, layout: Layout) -> int:
    """P, by a look at the labels that the host waits for."""
    status: list[int] = backend.kernels.count_positives(logits, targets, _C.TargetLayout(*layout)).tolist()
    _raise_for(status, layout, None)
    return status[0]


def incoming(
    grad_cls: Tensor | None, grad_loc: Tensor | None, layout: Any, needs_logits: bool, needs_errors: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients that came in for the two outputs, as kernels take them: None for what is not wanted."""
    if layout.continuous:  # Rank & Sort: both outputs send their gradients to the logits
        given = grad_loc if grad_cls is None else grad_cls
        if given is not None:
            grad_cls, grad_loc = (torch.zeros_like(given) if g is None else g for g in (grad_cls, grad_loc))
        needs_errors = needs_logits
    return (
        grad_cls.contiguous() if needs_logits and grad_cls is not None else None,
        grad_loc.contiguous() if needs_errors and grad_loc is not None else None,
    )


class _Ranking(torch.autograd.Function):
    """Forward streams the logits once and keeps P-sized tables; backward streams them once more."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        loc_errors: Tensor | None,
        targets: Tensor,
        layout: Layout,
        backend: Backend,
        loss: int,
        algorithm_name: str,
        delta: float,
        eps: float,
        told: tuple[str, int] | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        kernels = backend.kernels
        native = _C.TargetLayout(*layout)
        inputs = logits, loc_errors
        logits, targets = logits.contiguous(), targets.contiguous()
        count = told[1] if told else count_positives(backend, logits, targets, layout)
        algorithm = choose_algorithm(algorithm_name, logits.dtype, count, delta)
        if loc_errors is not None:
            loc_errors = loc_errors.contiguous()
        want_error_gradient = ctx.needs_input_grad[0 if layout.continuous else 1]
        cls, loc, rank, precision, index, tables, status = kernels.forward(
            logits, targets, native, count, loss, loc_errors, want_error_gradient, delta, eps, algorithm
        )
        check_status(backend, status, layout, told)
        ctx.save_for_backward(logits, targets, index, tables, *inputs)
        ctx.call = kernels, native, delta, algorithm, None if loc_errors is None else loc_errors.dtype
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(rank, precision)
        return cls, loc, rank, precision

    @staticmethod
    def backward(ctx: Any, grad_cls: Tensor | None, grad_loc: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        logits, targets, index, tables, *inputs = ctx.saved_tensors
        kernels, native, delta, algorithm, errors_dtype = ctx.call
        needs_logits, needs_errors = ctx.needs_input_grad[:2]
        grad_cls, grad_loc = incoming(grad_cls, grad_loc, native, needs_logits, needs_errors)
        grad_logits, grad_errors = kernels.backward(
            logits,
            targets,
            native,
            delta,
            algorithm,
            index,
            tables,
            grad_cls,
            grad_loc,
            errors_dtype or torch.float32,
        )
        # An output that took no part in the loss sends a zero gradient, never None: parameters stay connected.
        if needs_logits and grad_logits is None:
            grad_logits = torch.zeros_like(logits)
        if needs_errors and grad_errors is None:
            grad_errors = torch.zeros(index.shape, dtype=errors_dtype, device=logits.device)
        return *first_order_only((grad_logits, grad_errors), tuple(inputs)), *[None] * 8


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
    told: tuple[str, int] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(cls, loc, rank, precision) of one of LOSSES, (rank part, sort part, ...) of Rank & Sort.

    ``told``: the argument that gave P, and P.
    """
    check_choice("algorithm", algorithm, ("auto", *ALGORITHMS))
    chosen = choose_backend(backend, logits)
    result: tuple[Tensor, Tensor, Tensor, Tensor] = _Ranking.apply(
        logits, loc_errors, targets, layout, chosen, LOSSES.index(loss), algorithm, delta, eps, told
    )
    return result
