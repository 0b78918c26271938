"""What is ranked together: the whole batch, or each image by itself."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _C
from .distributed.agreement import Arguments, exchange
from .distributed.channel import connect, uncompiled
from .distributed.images import means
from .distributed.union import union_loss
from .first_order import first_order_only
from .inputs import Layout, bad_label, check_choice, check_positives, check_scope
from .ops import ALGORITHMS, LOSSES, Backend, choose_algorithm, choose_backend, incoming, ranking_loss


class _Images(NamedTuple):
    """The images of a batch, one after the other."""

    sizes: list[int]  # logits of each
    counts: list[int]  # positives of each
    rows: Tensor | None  # the order of rows that puts them so; None if they are
    positives: Tensor | None  # and that of the positives


def _positive_rows(targets: Tensor, layout: Layout, rows: int) -> Tensor:
    """The row of each positive, in flat order; all labels are possible ones."""
    labels = targets.reshape(-1)
    if layout.classes:
        labels = labels.to(torch.int64)
        return ((labels >= 0) & (labels < layout.classes) & (labels != layout.background)).nonzero()[:, 0]
    positive = labels > 0 if layout.continuous else labels.to(torch.int64) == 1
    return positive.nonzero()[:, 0] // (labels.numel() // max(1, rows))


def _find_images(image_index: Tensor, logits: Tensor, targets: Tensor, layout: Layout, backend: Backend) -> _Images:
    """Which logits and how many positives each image holds, ascending by index. The host waits for the device."""
    index = image_index.reshape(-1).to(torch.int64)
    if logits.numel() == 0:
        return _Images([], [], None, None)
    rows = None
    if bool((index[1:] < index[:-1]).any()):
        rows = index.argsort(stable=True)
    _, lengths = torch.unique_consecutive(index if rows is None else index[rows], return_counts=True)
    width = logits.numel() // index.numel()
    sizes = [width * length for length in lengths.tolist()]
    labels = _reordered(targets, rows)
    status = backend.kernels.count_slices(logits.contiguous(), labels, _C.TargetLayout(*layout), sizes).tolist()
    if any(invalid for _, invalid, _ in status):
        raise bad_label(layout)
    positives = None if rows is None else index[_positive_rows(targets, layout, index.numel())].argsort(stable=True)
    return _Images(sizes, [found for found, _, _ in status], rows, positives)


def _reordered(tensor: Tensor, rows: Tensor | None) -> Tensor:
    """A tensor with its rows, which are as many as ``rows``, in that order."""
    if rows is None:
        return tensor.contiguous()
    if tensor.dtype in (torch.uint16, torch.uint32, torch.uint64):  # torch indexes few of the unsigned dtypes
        signed = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.dtype.itemsize]
        return _reordered(tensor.view(signed), rows).view(tensor.dtype)
    return tensor.reshape(rows.numel(), -1)[rows]


class _PerImage(torch.autograd.Function):
    """One ranking an image: cls and loc with a value each; see ops for one ranking alone."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        loc_errors: Tensor | None,
        targets: Tensor,
        layout: Layout,
        backend: Backend,
        images: _Images,
        loss: int,
        algorithm: str,
        delta: float,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        inputs = logits, loc_errors
        algorithms = [choose_algorithm(algorithm, logits.dtype, count, delta) for count in images.counts]
        slices = _C.TargetLayout(*layout), images.sizes, images.counts, algorithms
        logits, loc_errors = logits.contiguous(), None if loc_errors is None else loc_errors.contiguous()
        cls, loc, rank, precision, index, tables = backend.kernels.forward_slices(
            logits, targets, *slices, loss, loc_errors, ctx.needs_input_grad[0 if layout.continuous else 1], delta, eps
        )
        ctx.save_for_backward(logits, targets, index, *inputs, *tables)
        ctx.call = backend.kernels, slices, delta
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(rank, precision)
        return cls, loc, rank, precision

    @staticmethod
    def backward(ctx: Any, grad_cls: Tensor | None, grad_loc: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        logits, targets, index, original, loc_errors, *tables = ctx.saved_tensors
        kernels, slices, delta = ctx.call
        needs_logits, needs_errors = ctx.needs_input_grad[:2]
        grad_cls, grad_loc = incoming(grad_cls, grad_loc, slices[0], needs_logits, needs_errors)
        grad_logits, grad_errors = kernels.backward_slices(
            logits,
            targets,
            *slices,
            delta,
            index,
            tables,
            grad_cls,
            grad_loc,
            torch.float32 if loc_errors is None else loc_errors.dtype,
        )
        # As in ops: a zero gradient, never None.
        if needs_logits and grad_logits is None:
            grad_logits = torch.zeros_like(logits)
        if needs_errors and grad_errors is None:
            grad_errors = torch.zeros_like(loc_errors)
        return *first_order_only((grad_logits, grad_errors), (original, loc_errors)), *[None] * 8


def scoped_loss(
    scope: str,
    image_index: Tensor | None,
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
    group: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(cls, loc, rank, precision) as :func:`alrp_cuda.ops.ranking_loss` gives them, over what ``scope`` and ``group`` say.

    "image": cls and loc are the means over the images that hold a positive. What depends on values is raised on every
    device, for the host has to look at the labels anyway.
    """
    check_scope(scope, image_index, logits, targets, layout)
    channel = connect(group)
    if image_index is None:
        options: dict[str, Any] = {"algorithm": algorithm, "loss": loss, "delta": delta, "eps": eps, "told": told}
        if channel is None:
            return ranking_loss(logits, loc_errors, targets, layout, backend=backend, **options)
        return uncompiled(union_loss)(
            channel, logits, loc_errors, targets, layout, backend=choose_backend(backend, logits), **options
        )
    check_choice("algorithm", algorithm, ("auto", *ALGORITHMS))
    chosen = choose_backend(backend, logits)
    failure = None
    images = _Images([], [], None, None)
    try:
        images = _find_images(image_index, logits.detach(), targets, layout, chosen)
        if told is not None:
            check_positives(*told, sum(images.counts))
    except ValueError as error:
        failure = error
    with_positives = sum(count > 0 for count in images.counts)
    if channel is not None:
        arguments = Arguments(loss, scope, logits.dtype, logits.device.type, algorithm, delta, eps)
        with_positives = sum(n for n, *_ in uncompiled(exchange)(channel, arguments, (with_positives,), failure, logits.device))
    elif failure is not None:
        raise failure
    if images.positives is not None and loc_errors is not None:
        loc_errors = loc_errors[images.positives]
    cls, loc, rank, precision = _PerImage.apply(
        _reordered(logits, images.rows),
        loc_errors,
        _reordered(targets, images.rows),
        layout,
        chosen,
        images,
        LOSSES.index(loss),
        algorithm,
        delta,
        eps,
    )
    if images.positives is not None:
        rank, precision = (torch.empty_like(x).scatter_(0, images.positives, x) for x in (rank, precision))
    if channel is not None:
        return *uncompiled(means)(channel, (cls, loc), max(1, with_positives)), rank, precision
    # An image without positives adds 0, or NaN where a score of it is NaN.
    return cls.sum() / max(1, with_positives), loc.sum() / max(1, with_positives), rank, precision
