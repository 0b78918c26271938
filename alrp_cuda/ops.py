"""From checked tensors to the operators: over the whole batch, each image by itself, or the ranks of a group."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import has_torch_function

from . import native, registration
from .distributed.agreement import Arguments, exchange
from .distributed.channel import connect, uncompiled
from .distributed.images import means
from .distributed.union import union_loss
from .inputs import LOSSES, Layout, check_device, check_positives, check_scope, choose_algorithm

registration.register(native._C.library)


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


def _find_images(image_index: Tensor, logits: Tensor, targets: Tensor, layout: Layout) -> _Images:
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
    counts = native.operators.count_positives.default([logits], [_reordered(targets, rows)], *layout, sizes).tolist()
    positives = None if rows is None else index[_positive_rows(targets, layout, index.numel())].argsort(stable=True)
    return _Images(sizes, counts, rows, positives)


def _reordered(tensor: Tensor, rows: Tensor | None) -> Tensor:
    """A tensor with its rows, which are as many as ``rows``, in that order."""
    if rows is None:
        return tensor.contiguous()
    if tensor.dtype in (torch.uint16, torch.uint32, torch.uint64):  # torch indexes few of the unsigned dtypes
        signed = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.dtype.itemsize]
        return _reordered(tensor.view(signed), rows).view(tensor.dtype)
    return tensor.reshape(rows.numel(), -1)[rows]


def _ranking_loss(
    logits: Tensor,
    loc_errors: Tensor | None,
    targets: Tensor,
    layout: Layout,
    *,
    algorithm: str,
    loss: str,
    delta: float,
    eps: float,
    num_positives: int | None,
    sizes: Sequence[int] = (),
    counts: Sequence[int] = (),
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(cls, loc, rank, precision) of one of LOSSES, (rank part, sort part, ...) of Rank & Sort.

    ``sizes`` and ``counts``: the logits and the positives of slices that are ranked each by itself, with a cls and a loc each.
    """
    arguments = loc_errors, *layout, delta, choose_algorithm(algorithm), LOSSES.index(loss), eps, num_positives, sizes, counts
    if torch.compiler.is_compiling() or has_torch_function((logits, targets, loc_errors)):
        cls, loc, ranks, _ = native.operators.ranking_loss.default([logits], [targets], *arguments)
        return cls, loc, *ranks.unbind()
    # The same operator, without a look at the arguments by its schema: in a training step, whose activations have driven
    # all else out of the caches, that takes some 45 us more (docs/cpu.md), of 1700 for a million logits.
    result: tuple[Tensor, Tensor, Tensor, Tensor] = native._C.ranking_loss(logits, targets, *arguments)
    return result


def scoped_loss(
    scope: str,
    image_index: Tensor | None,
    logits: Tensor,
    loc_errors: Tensor | None,
    targets: Tensor,
    layout: Layout,
    *,
    algorithm: str,
    loss: str,
    delta: float,
    eps: float,
    num_positives: int | None,
    group: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(cls, loc, rank, precision) of one of LOSSES, over what ``scope`` and ``group`` say.

    "image": cls and loc are the means over the images that hold a positive. What depends on values is raised on every
    device, for the host has to look at the labels anyway.
    """
    check_scope(scope, image_index, logits, targets, layout)
    channel = connect(group)
    check_device(logits)
    options: dict[str, Any] = {"algorithm": algorithm, "loss": loss, "delta": delta, "eps": eps}
    if image_index is None:
        if channel is None:
            return _ranking_loss(logits, loc_errors, targets, layout, num_positives=num_positives, **options)
        given = None if num_positives is None else ("num_positives", num_positives)
        if loc_errors is not None:
            given = "loc_errors", loc_errors.numel()
        return uncompiled(union_loss)(channel, logits, loc_errors, targets, layout, given=given, **options)
    choose_algorithm(algorithm)  # raises before ranks wait for one another
    failure = None
    images = _Images([], [], None, None)
    try:
        images = _find_images(image_index, logits.detach(), targets, layout)
        if loc_errors is not None:
            check_positives("loc_errors", loc_errors.numel(), sum(images.counts))
        check_positives("num_positives", num_positives, sum(images.counts))
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
    logits, targets = _reordered(logits, images.rows), _reordered(targets, images.rows)
    slices: dict[str, Any] = {"sizes": images.sizes, "counts": images.counts}
    cls, loc, rank, precision = _ranking_loss(logits, loc_errors, targets, layout, num_positives=None, **slices, **options)
    if images.positives is not None:
        rank, precision = (torch.empty_like(x).scatter_(0, images.positives, x) for x in (rank, precision))
    if channel is not None:
        return *uncompiled(means)(channel, (cls, loc), max(1, with_positives)), rank, precision
    # An image without positives adds 0, or NaN where a score of it is NaN.
    return cls.sum() / max(1, with_positives), loc.sum() / max(1, with_positives), rank, precision
