"""The maps of a head as the losses take them, one tensor a level, and what a framework made over the joined levels.

A head computes one map a level, (N, A * C, H, W): N images, A anchors a place, C classes. Frameworks match anchors with objects
image by image, over the anchors of all levels in a row: level by level, row by row, place by place, A at each.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .inputs import check_tensor


def _anchors(maps: Sequence[Tensor], classes: int) -> list[tuple[int, int, int]]:
    """(H, W, A) of each map, checked."""
    if not isinstance(maps, (list, tuple)):
        raise TypeError(f"maps must be a list of tensors, got {type(maps).__name__}")
    if isinstance(classes, bool) or not isinstance(classes, int):
        raise TypeError(f"classes must be an int, got {type(classes).__name__}")
    if classes < 1:
        raise ValueError(f"classes must be >= 1, got {classes}")
    for k, level in enumerate(maps):
        if not isinstance(level, Tensor):
            raise TypeError(f"maps[{k}] must be a torch.Tensor, got {type(level).__name__}")
        if level.dim() != 4 or level.shape[1] % classes or level.shape[0] != maps[0].shape[0]:
            raise ValueError(
                f"maps[{k}] must have shape (N, A * C, H, W) with C = {classes} and the N of maps[0], got {tuple(level.shape)}"
            )
    return [(level.shape[2], level.shape[3], level.shape[1] // classes) for level in maps]


def _split(name: str, joined: Tensor | Sequence[Tensor], maps: Sequence[Tensor], classes: int) -> list[Tensor]:
    """(N, anchors, ...), or a list of N, as (N, H, W, A, ...) of each level."""
    sizes = _anchors(maps, classes)
    images = maps[0].shape[0] if maps else 0
    counts = [height * width * each for height, width, each in sizes]
    if isinstance(joined, (list, tuple)):
        for n, tensor in enumerate(joined):
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name}[{n}] must be a torch.Tensor, got {type(tensor).__name__}")
            if tuple(tensor.shape[:1]) != (sum(counts),):
                raise ValueError(f"{name}[{n}] must have shape (anchors,) = ({sum(counts)},), got {tuple(tensor.shape)}")
            if tensor.shape != joined[0].shape:
                shapes = f"{tuple(joined[0].shape)}, got {tuple(tensor.shape)}"
                raise ValueError(f"{name}[{n}] must have the shape of {name}[0], {shapes}")
            if tensor.dtype != joined[0].dtype:
                raise TypeError(f"{name}[{n}] must have the dtype of {name}[0], {joined[0].dtype}, got {tensor.dtype}")
        if not joined:
            raise ValueError(f"{name} must have one tensor an image, got an empty list")
        joined = torch.stack(list(joined))
    if not isinstance(joined, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor or a list of them, got {type(joined).__name__}")
    if joined.dim() < 2 or tuple(joined.shape[:2]) != (images, sum(counts)):
        raise ValueError(f"{name} must have shape (N, anchors) = {(images, sum(counts))}, got {tuple(joined.shape)}")
    if tuple(joined.shape[2:]) not in ((), (classes,)):
        raise ValueError(
            f"{name} must have shape (N, anchors) or, with a label a logit, (N, anchors, {classes}), got {tuple(joined.shape)}"
        )
    parts = joined.split_with_sizes(counts, dim=1)
    return [part.view(images, *size, *joined.shape[2:]) for part, size in zip(parts, sizes, strict=True)]


def head_views(maps: Sequence[Tensor], classes: int) -> list[Tensor]:
    """Maps of class scores as lists for the losses, without a copy; gradients come back in the maps' own layout.

    Args:
        maps: (N, A * C, H, W) each, a level's; channels first or last, A and the size may differ from level to level.
        classes: C.

    Returns:
        (N, H, W, A, C) each, views.

    Raises:
        TypeError, ValueError: no list of tensors of these shapes; ``classes`` no integer >= 1.

    Example:
        >>> import torch, alrp_cuda
        >>> maps = [torch.zeros(2, 6, 4, 4, requires_grad=True), torch.zeros(2, 6, 2, 2, requires_grad=True)]
        >>> views = alrp_cuda.head_views(maps, 3)
        >>> [tuple(view.shape) for view in views]
        [(2, 4, 4, 2, 3), (2, 2, 2, 2, 3)]
        >>> targets = [torch.full(view.shape[:-1], 3) for view in views]  # background everywhere
        >>> targets[1][0, 1, 1, 0] = 2  # but for one anchor
        >>> alrp_cuda.ap_loss(views, targets).backward()
        >>> maps[0].grad.shape
        torch.Size([2, 6, 4, 4])
    """
    sizes = _anchors(maps, classes)
    return [
        level.view(len(level), each, classes, height, width).permute(0, 3, 4, 1, 2)
        for level, (height, width, each) in zip(maps, sizes, strict=True)
    ]


def split_targets(targets: Tensor | Sequence[Tensor], maps: Sequence[Tensor], classes: int) -> list[Tensor]:
    """Targets that were made over the anchors of all levels in a row, image by image, in the shapes of :func:`head_views`.

    Args:
        targets: (N, anchors), or one (anchors,) an image: class indices; or (N, anchors, C) with a label a logit. Any dtype.
        maps: (N, A * C, H, W) each, a level's; only their shapes count.
        classes: C.

    Returns:
        (N, H, W, A) each, or (N, H, W, A, C); views of a single tensor.

    Raises:
        TypeError, ValueError: as :func:`head_views`; targets of other shapes.

    Example:
        >>> import torch, alrp_cuda
        >>> maps = [torch.zeros(2, 6, 4, 4), torch.zeros(2, 6, 2, 2)]
        >>> matched = torch.full((2, 40), -1)  # of 2 * (4 * 4 + 2 * 2) anchors an image
        >>> [tuple(level.shape) for level in alrp_cuda.split_targets(matched, maps, 3)]
        [(2, 4, 4, 2), (2, 2, 2, 2)]
    """
    return _split("targets", targets, maps, classes)


def order_by_level(values: Tensor, positive: Tensor | Sequence[Tensor], maps: Sequence[Tensor], classes: int) -> Tensor:
    """What belongs to the positives, as ``loc_errors``, from a framework's order into that of lists.

    Indexing with a mask (N, anchors) gives the positives image by image; a list of levels has them level by level, and within
    one image by image. It is a function beside :func:`split_targets` since boxes, labels and errors of positives all need it,
    and the mask of positives is what an assigner knows, whichever of the targets' forms follows from it. The work on
    ``values`` grows with P, and the host waits for no device: P is the length of ``values``. A wrong P is left to the loss.

    Args:
        values: (P, ...), any dtype; gradients reach them.
        positive: (N, anchors) or one (anchors,) an image, or (N, anchors, C) with a label a logit; bool: which are positive.
        maps: (N, A * C, H, W) each, a level's; only their shapes count.
        classes: C.

    Returns:
        (P, ...), the rows of ``values`` in the order of the positives' flat index in the list.

    Raises:
        TypeError, ValueError: as :func:`split_targets`; a mask that is not bool; ``values`` that are no tensor of rows.

    Example:
        >>> import torch, alrp_cuda
        >>> maps = [torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 1, 1)]  # one anchor a place: 4 + 1 in each image
        >>> positive = torch.tensor([[True, False, False, False, True], [False, True, False, False, True]])
        >>> alrp_cuda.order_by_level(torch.tensor([0.1, 0.2, 0.3, 0.4]), positive, maps, 3)
        tensor([0.1000, 0.3000, 0.2000, 0.4000])
    """
    if not isinstance(values, Tensor):
        raise TypeError(f"values must be a torch.Tensor, got {type(values).__name__}")
    if values.dim() == 0:
        raise ValueError("values must have shape (P, ...), got ()")
    levels = _split("positive", positive, maps, classes)
    for level in levels:
        check_tensor("positive", level, (torch.bool,))
    if not levels:
        return values
    counts = torch.stack([level.flatten(1).sum(1) for level in levels], dim=1)  # (N, levels)
    return values[transposed(counts, len(values))]


def transposed(counts: Tensor, total: int) -> Tensor:
    """The order of items, of which there are ``counts`` (rows, columns) in row-major order, that makes it column-major."""
    begin = (counts.flatten().cumsum(0) - counts.flatten()).reshape(counts.shape)
    return moved(counts.t().flatten(), begin.t().flatten(), total)


def moved(counts: Tensor, begin: Tensor, total: int) -> Tensor:
    """The order of items that puts groups of them one after the other, where these have ``counts`` and begin at ``begin`` now.

    No host waits for it, and it is within bounds whatever the counts are: ``total`` may have been told wrongly.
    """
    ends = counts.cumsum(0)
    new = torch.arange(total, device=counts.device)
    group = torch.searchsorted(ends, new, right=True).clamp_(max=len(counts) - 1)
    return (new + (begin - ends + counts)[group]).clamp_(0, max(0, total - 1))
