"""Which detection finds which object: the rules of COCO evaluation, the only copy of them.

COCO evaluators keep this to themselves (faster-coco-eval returns the pairs, but not which detections count as false
positives, and which as neither, for a crowd, an area or their number), so it is written here and held against theirs in tests.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .inputs import Floats, Found, Options, Truth, check_options, from_coco, from_tensors


class ClassMatches(NamedTuple):
    """The matches of one class, in descending order of scores (stable).

    Attributes:
        label: the class.
        scores: (D,) float64.
        ious: (D,) float64, 0 for false positives.
        positive: (D,) bool.
        objects: number of objects to find.
    """

    label: int
    scores: Tensor
    ious: Tensor
    positive: Tensor
    objects: int


class Matches(NamedTuple):
    """The matches of D detections and G objects; made by :func:`match` and :func:`match_coco`, on the CPU.

    Detections that count for nothing (on a crowd, outside the area range, beyond the number an image may have) and objects
    that need not be found are not in it.

    Attributes:
        labels: (D,) int64, classes of the detections.
        scores: (D,) float64.
        ious: (D,) float64, IoU in [tau, 1] of a true positive with its object, 0 for false positives.
        positive: (D,) bool, whether a true positive.
        object_labels: (G,) int64, classes of the objects.
        tau: IoU from which a detection may match.

    Example:
        >>> import torch
        >>> from alrp_cuda.metrics import match
        >>> box = torch.tensor([[0.0, 0.0, 10.0, 8.0]])
        >>> found = {"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([3])}
        >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]]), "labels": torch.tensor([3])}
        >>> matches = match([found], [truth])
        >>> matches.labels.tolist(), matches.positive.tolist(), matches.object_labels.tolist(), matches.tau
        ([3], [True], [3], 0.5)
    """

    labels: Tensor
    scores: Tensor
    ious: Tensor
    positive: Tensor
    object_labels: Tensor
    tau: float

    def classes(self) -> Tensor:
        """(K,) int64, the classes of detections and objects in ascending order."""
        classes: Tensor = torch.cat((self.labels, self.object_labels)).unique()  # type: ignore[no-untyped-call]
        return classes

    def by_class(self) -> Iterator[ClassMatches]:
        """The matches of every class, in the order of :meth:`classes`."""
        for label in self.classes().tolist():
            of_class = self.labels == label
            scores, order = self.scores[of_class].sort(descending=True, stable=True)
            ious, positive = self.ious[of_class][order], self.positive[of_class][order]
            yield ClassMatches(label, scores, ious, positive, int((self.object_labels == label).sum()))


def match(
    preds: Sequence[dict[str, Tensor]],
    target: Sequence[dict[str, Tensor]],
    *,
    tau: float = 0.5,
    max_detections: int = 100,
    area_range: str | tuple[float, float] | None = None,
    box_format: str = "xyxy",
) -> Matches:
    """Match detections to objects as COCO evaluation does, in tensors as torchmetrics and torchvision have them.

    In each image and class, in descending order of scores, a detection takes the object of highest IoU >= tau that none has
    taken. One that finds only an ignored object (a crowd, or an area out of range) counts for nothing; a crowd may be
    found by many, and its IoU is intersection over the detection's area.

    Args:
        preds: one dict an image: "boxes" (D, 4), "scores" (D,) floating, "labels" (D,) integer; any device.
        target: one dict an image: "boxes" (G, 4), "labels" (G,) integer; optionally "iscrowd" (G,) bool or integer, and
            "area" (G,) in square pixels, by default that of the box.
        tau: IoU from which a detection may match; in [0, 1).
        max_detections: the detections of an image and class that count, those of highest scores; >= 1.
        area_range: (low, high) in square pixels, or COCO's "small", "medium", "large"; None: all.
        box_format: "xyxy" (left, top, right, bottom) or "xywh" (left, top, width, height), in pixels.

    Returns:
        Matches, on the CPU.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: shapes that do not fit, a missing key, a NaN score, a number out of range.

    Example:
        >>> import torch
        >>> from alrp_cuda.metrics import match
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 8.0], [0.0, 0.0, 10.0, 10.0]])
        >>> found = {"boxes": boxes, "scores": torch.tensor([0.9, 0.5]), "labels": torch.tensor([3, 3])}
        >>> matches = match([found], [{"boxes": boxes[1:], "labels": torch.tensor([3])}])
        >>> matches.positive.tolist(), matches.ious.tolist()
        ([True, False], [0.8, 0.0])
    """
    options = check_options(tau, max_detections, area_range, box_format)
    return _match_images(from_tensors(preds, target, box_format), options)


def match_coco(
    ground_truth: dict[str, Any] | str | Path,
    detections: list[dict[str, Any]] | str | Path,
    *,
    tau: float = 0.5,
    max_detections: int = 100,
    area_range: str | tuple[float, float] | None = None,
) -> Matches:
    """:func:`match` for COCO's format: boxes as x, y, width, height.

    Args:
        ground_truth: a dataset ("images", "annotations" with "image_id", "category_id", "bbox", "iscrowd", "area"), the path
            of its JSON file, or the COCO object of pycocotools or faster-coco-eval.
        detections: a list of results ("image_id", "category_id", "bbox", "score"), the path of its JSON file, or what
            ``loadRes`` made of it.
        tau, max_detections, area_range: as in :func:`match`.

    Returns:
        Matches, on the CPU; images in ascending order of their ids.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: no dataset, a detection of an unknown image, a NaN score, a number out of range.
        KeyError: an annotation or a result without one of the keys above.

    Example:
        >>> from alrp_cuda.metrics import match_coco
        >>> truth = {"image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}
        >>> found = {"image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 8], "score": 0.9}
        >>> match_coco({"images": [{"id": 7}], "annotations": [truth]}, [found]).ious.tolist()
        [0.8]
    """
    options = check_options(tau, max_detections, area_range)
    return _match_images(from_coco(ground_truth, detections), options)


def join(parts: Sequence[Matches]) -> Matches:
    """The matches of several batches or processes as one.

    Args:
        parts: at least one, all with the same tau.

    Returns:
        Matches, in the order of the parts.

    Raises:
        ValueError: no part, or parts with different tau.

    Example:
        >>> from alrp_cuda.metrics import join, match
        >>> join([match([], []), match([], [])]).scores.shape
        torch.Size([0])
    """
    taus = {part.tau for part in parts}
    if len(taus) != 1:
        raise ValueError(f"parts must be matches with one tau, got {sorted(taus) or 'no part'}")
    labels, scores, ious, positive, objects = (torch.cat(column) for column in zip(*(part[:5] for part in parts), strict=True))
    return Matches(labels, scores, ious, positive, objects, taus.pop())


def _match_images(images: list[tuple[Found, Truth]], options: Options) -> Matches:
    no_boxes, no_numbers, no_labels = np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
    # An image with nothing in it, so that there is something to concatenate without an image.
    nothing = Found(no_boxes, no_numbers, no_labels), Truth(no_boxes, no_labels, np.zeros(0, bool), no_numbers)
    rows = [_match_image(*image, options) for image in [nothing, *images]]
    labels, scores, ious, positive, objects = (torch.from_numpy(np.concatenate(column)) for column in zip(*rows, strict=True))
    return Matches(labels, scores, ious, positive, objects, options.tau)


def _match_image(found: Found, truth: Truth, options: Options) -> tuple[NDArray[Any], ...]:
    """The columns of Matches for one image."""
    order = np.argsort(-found.scores, kind="stable")
    order = order[_rank_in_class(found.labels[order]) < options.max_detections]
    boxes, scores, labels = found.boxes[order], found.scores[order], found.labels[order]
    low, high = options.area_range
    ignored = truth.crowd | (truth.areas < low) | (truth.areas > high)

    iou = _overlaps(boxes, truth.boxes, truth.crowd)
    fits = (labels[:, None] == truth.labels) & (iou >= options.tau)
    partner = np.full(len(boxes), -1)
    free = np.ones(len(truth.boxes), bool)
    for i in np.flatnonzero(fits.any(1)):
        possible = fits[i] & (free | truth.crowd)
        if (possible & ~ignored).any():
            possible &= ~ignored
        candidates = np.flatnonzero(possible)[::-1]  # of equal IoU, COCO takes the last
        if len(candidates):
            partner[i] = candidates[iou[i, candidates].argmax()]
            free[partner[i]] = False

    matched = partner >= 0
    on_ignored = np.zeros(len(boxes), bool)
    on_ignored[matched] = ignored[partner[matched]]
    areas = boxes[:, 2] * boxes[:, 3]
    counts = ~on_ignored & (matched | ((areas >= low) & (areas <= high)))
    positive = matched & counts
    ious = np.zeros(len(boxes))
    ious[positive] = iou[positive, partner[positive]]
    return labels[counts], scores[counts], ious[counts], positive[counts], truth.labels[~ignored]


def _rank_in_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many entries with the same label stand before each."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    return rank


def _overlaps(found: Floats, truth: Floats, crowd: NDArray[np.bool_]) -> Floats:
    """(D, G) IoU of boxes as x, y, width, height; on a crowd, intersection over the detection's area."""
    low = np.maximum(found[:, None, :2], truth[:, :2])
    high = np.minimum(found[:, None, :2] + found[:, None, 2:], truth[:, :2] + truth[:, 2:])
    sides = np.maximum(high - low, 0)
    intersection = sides[..., 0] * sides[..., 1]
    area = (found[:, 2] * found[:, 3])[:, None]
    union = np.where(crowd, area, area + truth[:, 2] * truth[:, 3] - intersection)
    iou = np.zeros_like(union)
    np.divide(intersection, union, out=iou, where=intersection > 0)  # a box without an area overlaps with nothing
    return iou
