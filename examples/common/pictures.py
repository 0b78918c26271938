"""A run's pictures: what it detects, and how its losses and its AP went."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor
from torchvision.ops import box_iou

from .evaluation import Detections
from .history import History

RIGHT, WRONG = "#35d07f", "#ff5252"


def draw_box(axes: Axes, box: list[float], colour: str, style: str) -> None:
    x1, y1, x2, y2 = box
    axes.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, ec=colour, ls=style, lw=1.4))


def draw_image(
    axes: Axes, image: Tensor, target: dict[str, Tensor], found: dict[str, Tensor], names: Sequence[str], size: int
) -> None:
    axes.imshow(image.permute(1, 2, 0).squeeze(2).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    for box in target["boxes"].tolist():
        draw_box(axes, box, "white", ":")
    overlaps = box_iou(found["boxes"], target["boxes"]) >= 0.5
    right = (overlaps & (found["labels"][:, None] == target["labels"])).any(1)
    for box, label, is_right in zip(found["boxes"].tolist(), found["labels"].tolist(), right.tolist(), strict=True):
        colour = RIGHT if is_right else WRONG
        draw_box(axes, box, colour, "-")
        above = box[1] > image.shape[1] / 8  # else there is no room for the name, and it goes below the box
        place = {"y": box[1] - 1, "va": "bottom"} if above else {"y": box[3], "va": "top"}
        axes.text(box[0] - 0.5, s=names[label - 1], color=colour, size=size, weight="bold", **place)


def draw_detections(
    images: Sequence[Tensor],
    targets: Sequence[dict[str, Tensor]],
    detections: Detections,
    thresholds: Tensor,
    names: Sequence[str],
    path: Path,
    *,
    rows: int = 2,
    columns: int = 6,
    inches: float = 1.92,
    text: int = 10,
) -> None:
    """The first images (1 or 3, H, W) in 0..1 with the true boxes and those predicted above the score of each class's best F1."""
    legend = 0.35  # inches
    width, height = columns * inches, rows * inches + legend
    figure, grid = plt.subplots(rows, columns, figsize=(width, height))
    shown = zip(images, targets, detections, strict=True)
    for axes, (image, target, found) in zip(grid.flat, shown, strict=False):
        keep = found["scores"] >= thresholds[found["labels"]]
        draw_image(axes, image, target, {name: value[keep] for name, value in found.items()}, names, text)
    handles = [
        Line2D([], [], color="black", ls=":", label="true box (white)"),
        Line2D([], [], color=RIGHT, label="predicted, right class, IoU ≥ 0.5"),
        Line2D([], [], color=WRONG, label="predicted, wrong"),
    ]
    figure.legend(handles=handles, loc="lower center", ncols=3, frameon=False)
    figure.subplots_adjust(0, legend / height, 1, 1, 0.02, 0.02)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def smooth(values: list[float], width: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """(iterations, means of the last ``width`` values there)."""
    width = min(len(values), width)
    return np.arange(width, len(values) + 1), np.convolve(values, np.ones(width) / width, mode="valid")


def draw_curves(history: History, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for name, values in history.losses.items():
        (line,) = left.plot(*smooth(values), label=name)
        left.plot(np.arange(1, len(values) + 1), values, color=line.get_color(), alpha=0.2, lw=0.7)
    title = f"{history.run['detector']}, {history.run['loss']}"
    left.set(title=f"{title}: losses, mean of 20", xlabel="iteration", ylabel="loss", ylim=(0, None))
    epochs = np.arange(1, len(history.evaluations) + 1)
    for name in ("AP", "AP50", "AP75", "AP90"):
        right.plot(epochs, [numbers[name] for numbers in history.evaluations], marker="o", label=name)
    right.set(title="COCO AP, validation", xlabel="epoch", ylim=(0, 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
