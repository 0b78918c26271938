"""Canvases with scanned digits, made as they are needed.

The digits are scikit-learn's 1,797 scanned ones, 8 x 8 pixels each, pasted on canvases at 10 to 24 pixels' height.
"""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

CANVAS = 64  # pixels
CLASSES = 11  # as torchvision counts: labels are 1..10, for the digits 0..9, and 0 is background
NAMES = [str(digit) for digit in range(10)]  # of the labels 1..10
VALIDATION_DIGITS = 360  # a fifth of the 1,797
HELD_OUT_DIGITS = 300  # of the others, to choose a learning rate by

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


@dataclass
class Digit:
    """One scanned digit, cropped to its ink: an image (h, w) in 0..1 and its label, 1..10."""

    image: Tensor
    label: int


def crop_to_ink(image: np.ndarray, label: int) -> Digit:
    ink = image >= 4
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    crop = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Digit(torch.tensor(crop / 16, dtype=torch.float32), label)


def split_digits(held_out: bool) -> tuple[list[Digit], list[Digit]]:
    """(digits to train on, digits to evaluate on), disjoint and the same in every run.

    With ``held_out`` both are parts of what is trained on without, so that a choice made by them has not seen the validation
    digits.
    """
    data = load_digits()
    digits = [crop_to_ink(image, int(digit) + 1) for image, digit in zip(data.images, data.target, strict=True)]
    order = np.random.default_rng(0).permutation(len(digits))
    validation, held, training = np.split(order, np.cumsum([VALIDATION_DIGITS, HELD_OUT_DIGITS]))
    if held_out:
        return [digits[i] for i in training], [digits[i] for i in held]
    return [digits[i] for i in (*held, *training)], [digits[i] for i in validation]


def make_canvas(digits: list[Digit], rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """A grey, noisy canvas (1, CANVAS, CANVAS) in 0..1 with up to six digits that do not overlap, and its target."""
    x, y = np.meshgrid(np.linspace(-1, 1, CANVAS), np.linspace(-1, 1, CANVAS))
    a, b = rng.uniform(-0.1, 0.1, 2)
    background = rng.uniform(0.1, 0.25) + a * x + b * y + rng.normal(0, 0.04, x.shape)
    canvas = torch.tensor(background, dtype=torch.float32)
    boxes: list[list[int]] = []
    labels = []
    for _ in range(rng.integers(2, 7)):
        digit = digits[rng.integers(len(digits))]
        height = int(rng.integers(10, 25))
        width = max(3, round(height * digit.image.shape[1] / digit.image.shape[0]))
        ink = F.interpolate(digit.image[None, None], (height, width), mode="bicubic").clamp(0, 1)[0, 0]
        for _ in range(20):  # places tried
            left, top = (int(rng.integers(CANVAS - size + 1)) for size in (width, height))
            box = [left, top, left + width, top + height]
            if all(box[0] >= o[2] or o[0] >= box[2] or box[1] >= o[3] or o[1] >= box[3] for o in boxes):
                place = canvas[top : top + height, left : left + width]
                place += (1 - place) * ink * float(rng.uniform(0.6, 1))
                boxes.append(box)
                labels.append(digit.label)
                break
    target = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }
    return canvas.clamp(0, 1)[None], target


def make_batch(digits: list[Digit], size: int, rng: np.random.Generator) -> Batch:
    canvases = [make_canvas(digits, rng) for _ in range(size)]
    return [image for image, _ in canvases], [target for _, target in canvases]
