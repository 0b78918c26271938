"""Rankings of one image each: which logits and positives each image of a batch holds, and in which order."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .distributed.agreement import Arguments, exchange
from .distributed.channel import Channel, uncompiled
from .inputs import Labelled, Layout, bad_label, check_images, check_positives, check_positives_of_images
from .levels import moved, transposed

_FEW = 1024  # images that a device is waited for once; for more, twice


class Images(NamedTuple):
    """The images of a batch, one after the other."""

    sizes: list[int]  # logits of each
    counts: list[int]  # positives of each
    rows: Tensor | None = None  # the order of rows that puts them so; None if they are, or are shares of a list's tensors
    positives: Tensor | None = None  # and that of the positives
    poison: Tensor | None = None  # NaN where the caller told otherwise than it is, else 1; None if that would have raised


def _is_awaited(tensor: Tensor) -> bool:
    """Whether the host waits for a device when it looks at values."""
    return not tensor.is_cpu


def kinds_of_labels(targets: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Which labels are a positive's, and which none that may be."""
    labels = targets.reshape(-1)
    if not labels.is_floating_point():  # torch compares few of the unsigned dtypes
        labels = labels.to(torch.int64)
    if layout.classes:
        positive = (labels >= 0) & (labels < layout.classes) & (labels != layout.background)
        return positive, ~(positive | (labels < 0) | (labels == layout.background))
    positive = (labels > 0) & labels.isfinite() if layout.continuous else labels == 1
    return positive, ~(positive | (labels <= 0))


def _find_images(index: Tensor, logits: Tensor, targets: Tensor, layout: Layout) -> Images:
    """Which logits and how many positives each image holds, ascending by index; of a device that the host waits for once.

    Args:
        index: (rows,) int64, the image of each row of logits.
    """
    rows: Tensor | None = None
    ascends = (index[1:] >= index[:-1]).all()
    if _is_awaited(index) or not bool(ascends):  # to sort in vain takes a device less than to be waited for twice
        rows = index.argsort(stable=True)
    sorted_index = index if rows is None else index[rows]
    image = (sorted_index.diff(prepend=sorted_index[:1]) != 0).cumsum(0)
    positive, invalid = kinds_of_labels(targets, layout)
    of_rows = positive.reshape(index.numel(), -1).sum(1)
    table = index.new_zeros(2, index.numel())
    table[0].index_add_(0, image, torch.ones_like(index))
    table[1].index_add_(0, image, of_rows if rows is None else of_rows[rows])
    k, is_invalid, is_sorted, *few = torch.cat(
        [image[-1:] + 1, invalid.any()[None], ascends[None], table[:, :_FEW].flatten()]
    ).tolist()
    if is_invalid:
        raise bad_label(layout)
    half = len(few) // 2
    lengths, counts = (few[:k], few[half : half + k]) if k <= half else table[:, :k].tolist()
    sizes = [logits.numel() // index.numel() * length for length in lengths]
    if rows is None or is_sorted:
        return Images(sizes, counts)
    begin = of_rows.cumsum(0) - of_rows
    return Images(sizes, counts, rows, moved(of_rows[rows], begin[rows], sum(counts)))


def _told_images(index: Tensor, logits: Tensor, counts: list[int]) -> Images:
    """Images that follow one another with so many positives: of a device that is not waited for.

    Raises:
        ValueError: rows on the device that do not divide into as many images; an index on the CPU that does not ascend or has
            another number of images.
    """
    if not _is_awaited(index):
        images, lengths = torch.unique_consecutive(index, return_counts=True)
        check_images(counts, len(images), ascend=bool((images[1:] > images[:-1]).all()))
        return Images([logits.numel() // index.numel() * length for length in lengths.tolist()], counts)
    if not counts or index.numel() % len(counts):
        raise ValueError(
            f"num_positives must have one number an image, all of as many rows unless image_index is on the CPU, got "
            f"{len(counts)} numbers for {index.numel()} rows"
        )
    each = index.reshape(len(counts), -1)
    as_told = (each == each[:, :1]).all() & (each[1:, 0] > each[:-1, 0]).all()
    return Images([logits.numel() // len(counts)] * len(counts), counts, poison=torch.where(as_told, 1.0, math.nan))


def images_of(image_index: Tensor | None, given: Labelled, num_positives: int | list[int] | None) -> Images:
    """The images of a batch. ValueError for another number of positives, unless each was told and the host would have to wait."""
    if given.size == 0:
        told = sum(num_positives) if isinstance(num_positives, list) else num_positives
        check_positives("num_positives", told, 0)
        return Images([], [])
    if image_index is None:
        return _shared_images(given, num_positives)
    [logits], targets, layout, _ = given
    index = image_index.reshape(-1).to(torch.int64)
    if isinstance(num_positives, list) and _is_awaited(logits):
        return _told_images(index, logits, num_positives)
    images = _find_images(index, logits, targets, layout)
    check_positives_of_images(num_positives, images.counts, ascend=images.rows is None)
    return images


def _shared_images(given: Labelled, num_positives: int | list[int] | None) -> Images:
    """The images of lists, each a share of every tensor along the first dimension; a device is waited for as above."""
    n = len(given.logits[0])
    positive, invalid = kinds_of_labels(given.targets, given.layout)
    shares = [
        tensor.reshape(n, rows // n).sum(1)
        for tensor, rows in zip(positive.split_with_sizes(given.rows), given.rows, strict=True)
    ]
    found = torch.stack(shares)  # (tensors, n)
    if isinstance(num_positives, list) and _is_awaited(given.targets):
        counts = num_positives
    else:
        is_invalid, *counts = torch.cat([invalid.any()[None], found.sum(0)]).tolist()
        if is_invalid:
            raise bad_label(given.layout)
        check_positives_of_images(num_positives, counts, ascend=True)
    sizes = [given.size // n] * n
    if len(given.logits) == 1:
        return Images(sizes, counts)
    return Images(sizes, counts, positives=transposed(found, sum(counts)))  # from tensor by tensor to image by image


def reordered(tensor: Tensor, rows: Tensor | None) -> Tensor:
    """A tensor with its rows, which are as many as ``rows``, in that order."""
    if rows is None:
        return tensor.contiguous()
    if tensor.dtype in (torch.uint16, torch.uint32, torch.uint64):  # torch indexes few of the unsigned dtypes
        signed = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.dtype.itemsize]
        return reordered(tensor.view(signed), rows).view(tensor.dtype)
    return tensor.reshape(rows.numel(), -1)[rows]


def by_image(given: Labelled) -> Labelled:
    """Tensors whose images lie one after the other in memory, each dense, as in most they do, and the labels image by image."""
    n = len(given.logits[0])

    def ordered(v: Tensor) -> Tensor:
        each = 1 + sum((size - 1) * stride for size, stride in zip(v.shape[1:], v.stride()[1:], strict=True))
        return v if n == 1 or (each == v.stride(0) and n * each == v.numel()) else v.contiguous()

    logits = tuple(map(ordered, given.logits))
    flat = given.targets.reshape(-1).split_with_sizes(given.rows)
    labels = [t.reshape(n, rows // n) for t, rows in zip(flat, given.rows, strict=True)]
    return given._replace(logits=logits, targets=torch.cat(labels, dim=1))


def agreed_images(
    channel: Channel | None,
    arguments: Arguments,
    image_index: Tensor | None,
    given: Labelled,
    num_positives: int | list[int] | None,
    values: tuple[str, int] | None,
) -> tuple[Images, int]:
    """The images of a batch, and how many of all ranks' hold a positive.

    Args:
        values: the argument that has one value a positive, and how many it has.

    Raises:
        ValueError: as :func:`images_of`; another number of values; on every rank, what one of them raises.
    """
    failure, images = None, Images([], [])
    try:
        images = images_of(image_index, given, num_positives)
        if values is not None:
            check_positives(*values, sum(images.counts))
    except ValueError as error:
        failure = error
    with_positives = sum(count > 0 for count in images.counts)
    if channel is not None:
        numbers = uncompiled(exchange)(channel, arguments, (with_positives,), failure, given.logits[0].device)
        with_positives = sum(n for n, *_ in numbers)
    elif failure is not None:
        raise failure
    return images, with_positives
