"""A folder in COCO's format, read and checked: what is wrong is named and left out."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

# Of each list's entries, what must be there; an annotation that lacks something is left out.
NEEDED: dict[str, set[str]] = {
    "images": {"id", "file_name", "width", "height"},
    "annotations": set(),
    "categories": {"id", "name"},
}
SAID = {"annotation": "id", "image": "image_id", "category": "category_id", "box": "bbox"}


@dataclass
class Picture:
    """An image and its objects, boxes as x1, y1, x2, y2 in its own pixels, labels 1, 2, ..."""

    file: Path
    width: int
    height: int
    group: str  # images of one group are never split
    boxes: list[list[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    crowds: list[bool] = field(default_factory=list)

    def target(self) -> dict[str, Tensor]:
        """All of them, also crowds, as evaluation takes them."""
        return {
            "boxes": torch.tensor(self.boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(self.labels, dtype=torch.int64),
            "iscrowd": torch.tensor(self.crowds, dtype=torch.bool),
        }


@dataclass
class Part:
    """The images of one file of annotations, and what was wrong in it."""

    file: Path
    pictures: list[Picture]
    names: dict[int, str]  # of the classes, by their ids in the file; their order is that of the labels 1, 2, ...
    faults: dict[str, list[str]]  # kind: what has it

    def report(self, most: int | None = None) -> Iterator[str]:
        """A line for each fault; of each kind at most so many."""
        for kind, things in self.faults.items():
            yield f"{self.file.name}: {len(things)} {kind}"
            yield from (f"    {thing}" for thing in things[:most])
            if most is not None and len(things) > most:
                yield f"    and {len(things) - most} more"


def read_json(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        wanted = "images/, instances_train.json and instances_val.json"
        raise ValueError(f"{file.parent} must have {wanted}, got no {file.name}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} must be JSON, got: {error}") from None
    for key, needed in NEEDED.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f'{file} must have a list "{key}" of objects, as COCO\'s format has')
        for entry in entries:
            if missing := needed - entry.keys():
                raise ValueError(f'{file}: each of its "{key}" must have {sorted(needed)}, one lacks {sorted(missing)}: {entry}')
    return content  # type: ignore[no-any-return]


def fault_of_image(file: Path, width: int, height: int) -> str | None:
    try:
        with Image.open(file) as image:
            size = image.size
    except FileNotFoundError:
        return "images without a file"
    except (UnidentifiedImageError, OSError):
        return "images that cannot be read"
    return None if size == (width, height) else "images of another size than the file of annotations says"


def cut(box: Any, width: int, height: int) -> tuple[list[float] | None, str | None]:
    """(x1, y1, x2, y2 of what of x, y, width, height lies in the image or None, what is wrong with it or None)."""
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) and math.isfinite(v) for v in box)
    if not numbers:
        return None, "boxes that are not four finite numbers"
    x, y, w, h = map(float, box)
    if w <= 0 or h <= 0:
        return None, "boxes of no size"
    inside = [max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)]
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        return None, "boxes outside of their image"
    # Rounding, or a frame of one pixel, is nobody's fault.
    reaches_out = max(-x, -y, x + w - width, y + h - height) > 1
    return inside, "boxes that reach out of their image (cut off there, not left out)" if reaches_out else None


def read_part(folder: Path, name: str) -> Part:
    """Read and check ``folder/instances_NAME.json``.

    Images that are missing, unreadable or of another size than the file says are left out, and so are annotations of unknown
    images or categories and those whose box has no size or lies outside. Crowds stay: evaluation ignores what is found on them,
    training does not see them.

    Raises:
        ValueError: no such file, or not of COCO's format.
    """
    file = folder / f"instances_{name}.json"
    content = read_json(file)
    faults: dict[str, list[str]] = defaultdict(list)
    names = {entry["id"]: str(entry["name"]) for entry in sorted(content["categories"], key=lambda entry: entry["id"])}
    label_of = {category: label for label, category in enumerate(names, 1)}
    pictures: dict[Any, Picture] = {}
    left_out = set()
    for entry in content["images"]:
        path, width, height = folder / "images" / str(entry["file_name"]), entry["width"], entry["height"]
        fault = "images with the id of another" if entry["id"] in pictures else fault_of_image(path, width, height)
        if fault is not None:
            faults[fault].append(f"image {entry['id']}, {entry['file_name']}")
            left_out.add(entry["id"])
        else:
            pictures[entry["id"]] = Picture(path, width, height, str(entry.get("group", entry["id"])))
    for entry in content["annotations"]:
        said = ", ".join(f"{name} {entry.get(key)}" for name, key in SAID.items())
        picture, label = pictures.get(entry.get("image_id")), label_of.get(entry.get("category_id"))
        if picture is None:
            if entry.get("image_id") not in left_out:
                faults["annotations of an unknown image"].append(said)
            continue
        if label is None:
            faults["annotations of an unknown category"].append(said)
            continue
        box, fault = cut(entry.get("bbox"), picture.width, picture.height)
        if fault is not None:
            faults[fault].append(said)
        if box is None:
            continue
        crowd = bool(entry.get("iscrowd", 0))
        if crowd:
            faults["crowds (ignored, not trained on)"].append(said)
        picture.boxes.append(box)
        picture.labels.append(label)
        picture.crowds.append(crowd)
    if not pictures:
        raise ValueError(f"{file} must have an image that can be read, got none of {len(content['images'])}")
    return Part(file, list(pictures.values()), names, dict(faults))
