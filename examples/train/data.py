"""Images and targets of a size, as the detectors take them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .annotations import Part, Picture, read_part

HELD_OUT = 0.2  # of the groups of training images


@dataclass
class Data:
    """What a run trains and evaluates on."""

    training: list[Picture]
    validation: list[Picture]
    names: list[str]  # of the classes 1, 2, ...
    parts: list[Part]  # the files that were read, with their faults


def split(pictures: list[Picture]) -> tuple[list[Picture], list[Picture]]:
    """(to train on, held out): the same in every run, and by groups, each of one image unless the file says otherwise."""
    groups = list(dict.fromkeys(picture.group for picture in pictures))
    order = np.random.default_rng(0).permutation(len(groups))
    held = {groups[i] for i in order[: max(1, round(HELD_OUT * len(groups)))]}
    return [p for p in pictures if p.group not in held], [p for p in pictures if p.group in held]


def read_data(folder: Path, held_out: bool, strict: bool) -> Data:
    """Read a folder with images/, instances_train.json and instances_val.json.

    With ``held_out`` both parts come from the training images, so that a choice made by them has not seen the validation images.

    Raises:
        ValueError: not such a folder; two files with different categories; or, if ``strict``, anything wrong in them.
    """
    parts = [read_part(folder, "train")] if held_out else [read_part(folder, "train"), read_part(folder, "val")]
    faults = [line for part in parts for line in part.report(most=5)]
    if strict and faults:
        raise ValueError("the annotations must have no faults (--strict), got:\n" + "\n".join(faults))
    if parts[0].names != parts[-1].names:
        raise ValueError(f"{parts[1].file} must have the categories {parts[0].names}, got {parts[1].names}")
    training, validation = split(parts[0].pictures) if held_out else (parts[0].pictures, parts[1].pictures)
    if not training or not any(p.boxes for p in validation):
        raise ValueError(f"{folder} must have images to train on and boxes to evaluate on, got {len(training)} images and none")
    return Data(training, validation, list(parts[0].names.values()), parts)


@dataclass(frozen=True)
class View:
    """An image of the training or validation part as it is shown, or its mirror image."""

    picture: Picture
    mirrored: bool = False

    def scale(self, size: int) -> float:
        """What the long side is multiplied by to be ``size``."""
        return size / max(self.picture.width, self.picture.height)

    def shape(self, size: int) -> tuple[int, int]:
        """(height, width) there."""
        scale = self.scale(size)
        return max(1, round(self.picture.height * scale)), max(1, round(self.picture.width * scale))

    def image(self, size: int) -> Tensor:
        """(3, height, width) in 0..1."""
        height, width = self.shape(size)
        with Image.open(self.picture.file) as opened:
            image = opened.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
        return pixels.flip(2) if self.mirrored else pixels

    def target(self, size: int) -> dict[str, Tensor]:
        """What to train on: boxes in the pixels of :meth:`image`, without crowds."""
        target = self.picture.target()
        keep = ~target["iscrowd"]
        height, width = self.shape(size)
        boxes = target["boxes"][keep] * self.scale(size)
        boxes = torch.minimum(boxes, boxes.new_tensor([width, height, width, height]))
        if self.mirrored:
            boxes = torch.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), 1)
        return {"boxes": boxes, "labels": target["labels"][keep]}
