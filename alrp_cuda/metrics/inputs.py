"""What a caller may pass to the metrics, checked and brought to one form: an image's detections and objects as numpy arrays."""

import json
import math
import numbers
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..inputs import FLOATING, INTEGER, check_choice, check_number, check_tensor

Floats = NDArray[np.float64]
BOX_FORMATS = ("xyxy", "xywh")
AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, math.inf)}  # square pixels, as COCO


class Found(NamedTuple):
    """The detections of an image: (D, 4) boxes as x, y, width, height; (D,) scores; (D,) class indices."""

    boxes: Floats
    scores: Floats
    labels: NDArray[np.int64]


class Truth(NamedTuple):
    """The objects of an image: (G, 4) boxes as x, y, width, height; (G,) classes, whether a crowd, areas."""

    boxes: Floats
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: Floats


class Options(NamedTuple):
    """How detections are matched; made by :func:`check_options`."""

    tau: float
    max_detections: int
    area_range: tuple[float, float]
    box_format: str


def check_options(tau: object, max_detections: object, area_range: object, box_format: str = "xyxy") -> Options:
    """Check the options of matching and give the area range its numbers."""
    threshold = check_number("tau", tau)
    if threshold >= 1:
        raise ValueError(f"tau must be below 1, got {tau}")
    if isinstance(max_detections, bool) or not isinstance(max_detections, numbers.Integral):
        raise TypeError(f"max_detections must be an int, got {type(max_detections).__name__}")
    if max_detections < 1:
        raise ValueError(f"max_detections must be >= 1, got {max_detections}")
    check_choice("box_format", box_format, BOX_FORMATS)
    return Options(threshold, int(max_detections), _area_range(area_range), box_format)


def _area_range(value: object) -> tuple[float, float]:
    if value is None:
        return 0.0, math.inf
    if isinstance(value, str):
        check_choice("area_range", value, tuple(AREAS))
        return AREAS[value]
    if not isinstance(value, Sequence) or len(value) != 2 or not all(isinstance(v, numbers.Real) for v in value):
        raise TypeError(f"area_range must be None, a name of {', '.join(AREAS)}, or (low, high), got {value!r}")
    low, high = map(float, value)
    if not 0 <= low <= high:
        raise ValueError(f"area_range must have 0 <= low <= high, got {value!r}")
    return low, high


# --- tensors ---------------------------------------------------------------------------------------------------------


def from_tensors(preds: object, target: object, box_format: str) -> list[tuple[Found, Truth]]:
    """Images as torchmetrics' mean average precision takes them: a list of dicts of tensors each."""
    images: list[Sequence[Any]] = []
    for name, value in (("preds", preds), ("target", target)):
        if not isinstance(value, Sequence):
            raise TypeError(f"{name} must be a list of dicts, one an image, got {type(value).__name__}")
        images.append(value)
    if len(images[0]) != len(images[1]):
        raise ValueError(f"target must have one dict an image as preds has, {len(images[0])}, got {len(images[1])}")
    return [
        (_found(f"preds[{i}]", found, box_format), _truth(f"target[{i}]", truth, box_format))
        for i, (found, truth) in enumerate(zip(*images, strict=True))
    ]


def _found(name: str, value: Any, box_format: str) -> Found:
    boxes = _boxes(name, value, box_format)
    scores = _column(f"{name}['scores']", _entry(name, value, "scores"), FLOATING, len(boxes))
    if np.isnan(scores).any():
        raise ValueError(f"{name}['scores'] must be numbers, got NaN")
    return Found(boxes, scores, _labels(name, value, len(boxes)))


def _truth(name: str, value: Any, box_format: str) -> Truth:
    boxes = _boxes(name, value, box_format)
    crowd, areas = np.zeros(len(boxes), bool), boxes[:, 2] * boxes[:, 3]
    if "iscrowd" in value:
        crowd = _column(f"{name}['iscrowd']", value["iscrowd"], (torch.bool, *INTEGER), len(boxes)) != 0
    if "area" in value:
        areas = _column(f"{name}['area']", value["area"], (*INTEGER, *FLOATING), len(boxes))
    return Truth(boxes, _labels(name, value, len(boxes)), crowd, areas)


def _entry(name: str, value: Any, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict, got {type(value).__name__}")
    if key not in value:
        raise ValueError(f"{name} must have the key {key!r}, got {', '.join(map(repr, value))}")
    return value[key]


def _boxes(name: str, value: Any, box_format: str) -> Floats:
    boxes = _entry(name, value, "boxes")
    check_tensor(f"{name}['boxes']", boxes, (*INTEGER, *FLOATING))
    if boxes.numel() == 0:
        return np.zeros((0, 4))
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name}['boxes'] must have shape (n, 4), got {tuple(boxes.shape)}")
    array = _array(boxes)
    # Width and height, not corners, are what COCO computes with: its results come out to the last bit.
    return array if box_format == "xywh" else np.concatenate((array[:, :2], array[:, 2:] - array[:, :2]), 1)


def _labels(name: str, value: Any, count: int) -> NDArray[np.int64]:
    return _column(f"{name}['labels']", _entry(name, value, "labels"), INTEGER, count).astype(np.int64)


def _column(name: str, value: Any, dtypes: tuple[torch.dtype, ...], count: int) -> Floats:
    if isinstance(value, Tensor) and value.numel() == count == 0:
        return np.zeros(0)  # torch.tensor([]) is floating whatever it is meant to hold
    check_tensor(name, value, dtypes)
    if value.numel() != count or value.dim() != 1:
        raise ValueError(f"{name} must have one entry a box, shape ({count},), got {tuple(value.shape)}")
    return _array(value)


def _array(value: Tensor) -> Floats:
    return value.detach().to("cpu", torch.float64).numpy()


# --- COCO format -----------------------------------------------------------------------------------------------------


def from_coco(ground_truth: object, detections: object) -> list[tuple[Found, Truth]]:
    """Images in ascending order of their ids, of a ground truth and a list of results in COCO format."""
    truth = _load("ground_truth", ground_truth)
    if not isinstance(truth, Mapping) or "images" not in truth:
        raise ValueError("ground_truth must be a COCO dataset with 'images' and 'annotations', got something else")
    results = _load("detections", detections)
    if isinstance(results, Mapping):
        results = results.get("annotations")
    if not isinstance(results, Sequence):
        raise ValueError("detections must be a list of COCO results, got something else")
    found: dict[Any, list[Any]] = defaultdict(list)
    objects: dict[Any, list[Any]] = defaultdict(list)
    for groups, rows in ((found, results), (objects, truth.get("annotations", []))):
        for row in rows:
            groups[row["image_id"]].append(row)
    images = sorted({image["id"] for image in truth["images"]})
    if unknown := found.keys() - set(images):
        raise ValueError(f"detections must be of images that ground_truth lists, got image_id {sorted(unknown)[0]!r}")
    return [(_coco_found(found[i]), _coco_truth(objects[i])) for i in images]


def _load(name: str, value: object) -> Any:
    """A dataset from a file, from the COCO object of pycocotools or faster-coco-eval, or as it is."""
    if isinstance(value, (str, Path)):
        return json.loads(Path(value).read_text())
    value = getattr(value, "dataset", value)
    if not isinstance(value, (Mapping, Sequence)):
        raise TypeError(f"{name} must be a COCO dataset or the path of one, got {type(value).__name__}")
    return value


def _coco_boxes(rows: list[Any]) -> Floats:
    return np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)


def _coco_found(rows: list[Any]) -> Found:
    scores = np.array([row["score"] for row in rows], np.float64)
    if np.isnan(scores).any():
        raise ValueError("detections must have numbers for scores, got NaN")
    return Found(_coco_boxes(rows), scores, _coco_labels(rows))


def _coco_truth(rows: list[Any]) -> Truth:
    boxes = _coco_boxes(rows)
    crowd = np.array([bool(row.get("iscrowd", 0)) for row in rows], bool)
    areas = np.array([row.get("area", w * h) for row, (w, h) in zip(rows, boxes[:, 2:], strict=True)], np.float64)
    return Truth(boxes, _coco_labels(rows), crowd, areas)


def _coco_labels(rows: list[Any]) -> NDArray[np.int64]:
    return np.array([row["category_id"] for row in rows], np.int64)
