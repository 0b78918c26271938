"""From checked tensors to the operators: over the whole batch, each image by itself, or the ranks of a group."""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import has_torch_function

from . import native, registration
from .distributed.agreement import Arguments
from .distributed.channel import connect, uncompiled
from .distributed.images import means
from .distributed.union import union_loss
from .images import agreed_images, by_image, reordered
from .inputs import LOSSES, Labelled, check_device, check_scope, choose_algorithm

registration.register(native._C.library)


def _ranking_loss(
    given: Labelled,
    loc_errors: Tensor | None,
    *,
    algorithm: str,
    loss: str,
    delta: float,
    eps: float,
    num_positives: int | None,
    sizes: Sequence[int] = (),
    counts: Sequence[int] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """(cls, loc, ranks) of one of LOSSES, (rank part, sort part, ...) of Rank & Sort. ``ranks`` (2, P): rank and precision.

    ``sizes`` and ``counts``: the logits and the positives of slices that are ranked each by itself, with a cls and a loc each:
    one after the other in a single tensor, and shares along the first dimension of several.
    """
    logits, targets, layout, _ = given
    arguments = loc_errors, *layout, delta, choose_algorithm(algorithm), LOSSES.index(loss), eps, num_positives, sizes, counts
    if torch.compiler.is_compiling() or has_torch_function((*logits, targets, loc_errors)):
        cls, loc, ranks, _ = native.operators.ranking_loss.default(logits, [targets], *arguments)
        return cls, loc, ranks
    # The same operator, without a look at the arguments by its schema: in a training step, whose activations have driven
    # all else out of the caches, that takes some 45 us more (docs/cpu.md), of 1700 for a million logits.
    result: tuple[Tensor, Tensor, Tensor] = native._C.ranking_loss(logits, targets, *arguments)
    return result


def scoped_loss(
    scope: str,
    image_index: Tensor | None,
    given: Labelled,
    loc_errors: Tensor | None,
    *,
    algorithm: str,
    loss: str,
    delta: float,
    eps: float,
    num_positives: int | list[int] | None,
    group: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """(cls, loc, ranks) of one of LOSSES, over what ``scope`` and ``group`` say.

    "image": cls and loc are the means over the images that hold a positive. What depends on values is raised on every
    device, for the host has to look at the labels anyway, unless ``num_positives`` tells it of each image.
    """
    check_scope(scope, image_index, given, num_positives)
    channel = connect(group)
    first = given.logits[0]
    check_device(first)
    options: dict[str, Any] = {"algorithm": algorithm, "loss": loss, "delta": delta, "eps": eps}
    if scope == "batch":
        told = cast(int | None, num_positives)
        if channel is None:
            return _ranking_loss(given, loc_errors, num_positives=told, **options)
        argument = None if told is None else ("num_positives", told)
        if loc_errors is not None:
            argument = "loc_errors", loc_errors.numel()
        union = uncompiled(union_loss)
        return union(channel, given, loc_errors, told=argument, **options)
    choose_algorithm(algorithm)  # raises before ranks wait for one another
    arguments = Arguments(loss, scope, first.dtype, first.device.type, algorithm, delta, eps)
    values = None if loc_errors is None else ("loc_errors", loc_errors.numel())
    images, with_positives = agreed_images(channel, arguments, image_index, given, num_positives, values)
    if images.positives is not None and loc_errors is not None:
        loc_errors = loc_errors[images.positives]
    if given.is_list and images.sizes:
        given = by_image(given)
    elif not given.is_list:
        ordered = reordered(first, images.rows), reordered(given.targets, images.rows)
        given = given._replace(logits=ordered[:1], targets=ordered[1])
    slices: dict[str, Any] = {"sizes": images.sizes, "counts": images.counts}
    cls, loc, ranks = _ranking_loss(given, loc_errors, num_positives=None, **slices, **options)
    if images.positives is not None:
        ranks = torch.full_like(ranks, math.nan).index_copy_(1, images.positives, ranks)
    if images.poison is not None:
        cls, loc, ranks = (x * images.poison for x in (cls, loc, ranks))
    if channel is not None:
        return *uncompiled(means)(channel, (cls, loc), max(1, with_positives)), ranks
    # An image without positives adds 0, or NaN where a score of it is NaN.
    return cls.sum() / max(1, with_positives), loc.sum() / max(1, with_positives), ranks
