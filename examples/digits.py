"""Train a small RetinaNet from scratch on pictures of handwritten digits, with aLRP Loss or Focal Loss, on the CPU.

    python examples/digits.py                 # aLRP Loss
    python examples/digits.py --loss focal    # torchvision's own losses, everything else the same

The digits are scikit-learn's 1,797 scanned ones, 8 x 8 pixels each, pasted on canvases at 10 to 24 pixels' height.
Digits of the validation canvases are never trained on. Writes two pictures and history.json into --out.
"""

import argparse
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork, box_iou

from alrp_cuda.integrations.torchvision import use_alrp

CANVAS = 64  # pixels
DIGITS = 10
VALIDATION_DIGITS = 360  # a fifth of the 1,797
VALIDATION_CANVASES = 200
BATCH = 8
LEARNING_RATE = 4e-3
RIGHT, WRONG = "#35d07f", "#ff5252"

# What a run may train with: each takes torchvision's RetinaNet and returns the model to train.
LOSSES: dict[str, Callable[[RetinaNet], RetinaNet]] = {
    "alrp": partial(use_alrp, balance=5.0),
    "focal": lambda model: model,
}

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


# --- data ------------------------------------------------------------------------------------------------------------


@dataclass
class Digit:
    """One scanned digit, cropped to its ink: an image (h, w) in 0..1 and what it shows."""

    image: Tensor
    label: int


def crop_to_ink(image: np.ndarray, label: int) -> Digit:
    ink = image >= 4
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    crop = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Digit(torch.tensor(crop / 16, dtype=torch.float32), int(label))


def split_digits(seed: int) -> tuple[list[Digit], list[Digit]]:
    """(training, validation) digits, disjoint."""
    data = load_digits()
    digits = [crop_to_ink(image, label) for image, label in zip(data.images, data.target, strict=True)]
    order = np.random.default_rng(seed).permutation(len(digits))
    return [digits[i] for i in order[VALIDATION_DIGITS:]], [digits[i] for i in order[:VALIDATION_DIGITS]]


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


# --- model -----------------------------------------------------------------------------------------------------------


def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels, step in ((inputs, stride), (outputs, 1)):
        layers += [nn.Conv2d(channels, outputs, 3, step, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class Backbone(nn.Module):
    """Feature maps (N, 48, H, W) at strides 4 and 8 of images (N, 1, H, W)."""

    out_channels = 48

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([block(1, 16, 2), block(16, 32, 2), block(32, 64, 2)])
        self.pyramid = FeaturePyramidNetwork([32, 64], self.out_channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for name, stage in zip(("stride 2", "stride 4", "stride 8"), self.stages, strict=True):
            x = maps[name] = stage(x)
        del maps["stride 2"]
        levels: dict[str, Tensor] = self.pyramid(maps)
        return levels


def make_model(loss: str) -> RetinaNet:
    """A small RetinaNet that trains with ``loss``, a key of LOSSES."""
    backbone = Backbone()
    # Square roots of areas at strides 4 and 8; a digit cropped to its ink is about 1.4 times as high as wide.
    anchors = AnchorGenerator(sizes=((7, 9, 11), (13, 16, 20)), aspect_ratios=((1.4,),) * 2)
    model = RetinaNet(
        backbone,
        DIGITS,
        min_size=CANVAS,
        max_size=CANVAS,
        image_mean=[0.3],
        image_std=[0.25],
        anchor_generator=anchors,
        head=RetinaNetHead(backbone.out_channels, 3, DIGITS, norm_layer=partial(nn.GroupNorm, 8)),
        # AP is of ranked detections, and a ranking loss fixes the order of scores, not their level: keep the best ones.
        score_thresh=0.0,
        topk_candidates=200,
        detections_per_img=50,
    )
    return LOSSES[loss](model)


# --- training --------------------------------------------------------------------------------------------------------


@dataclass
class History:
    """What a run was and how it went; written to history.json."""

    loss: str
    seed: int
    classification: list[float] = field(default_factory=list)  # one an iteration
    bbox_regression: list[float] = field(default_factory=list)  # one an iteration
    seconds: list[float] = field(default_factory=list)  # of an iteration: forward, backward and the optimiser's step
    evaluations: list[dict[str, float]] = field(default_factory=list)  # one an epoch: AP, AP50, AP75


def train_step(model: RetinaNet, batch: Batch, optimizer: torch.optim.Optimizer, history: History) -> None:
    start = time.perf_counter()
    losses = model(*batch)
    optimizer.zero_grad()
    sum(losses.values()).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    history.seconds.append(time.perf_counter() - start)
    history.classification.append(losses["classification"].item())
    history.bbox_regression.append(losses["bbox_regression"].item())


def train(model: RetinaNet, history: History, epochs: int, iterations: int, console: Console) -> "Evaluation":
    """Train on fresh canvases, evaluate after each epoch on fixed ones; returns the last evaluation."""
    training, validation = split_digits(history.seed)
    canvases = make_batch(validation, VALIDATION_CANVASES, np.random.default_rng([history.seed, 0]))
    rng = np.random.default_rng([history.seed, 1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * iterations, pct_start=0.25)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(history.loss, total=epochs * iterations)
        for epoch in range(1, epochs + 1):
            model.train()
            for _ in range(iterations):
                train_step(model, make_batch(training, BATCH, rng), optimizer, history)
                schedule.step()
                progress.advance(bar)
            evaluation = evaluate(model, canvases)
            history.evaluations.append(evaluation.ap)
            recent = np.mean(history.classification[-iterations:]), np.mean(history.bbox_regression[-iterations:])
            console.print(
                f"epoch {epoch:2d}  classification {recent[0]:.4f}  boxes {recent[1]:.4f}  "
                + "  ".join(f"{name} {value:.3f}" for name, value in evaluation.ap.items()),
                highlight=False,
            )
    return evaluation


# --- evaluation ------------------------------------------------------------------------------------------------------


@dataclass
class Evaluation:
    """COCO AP of a model on a batch of canvases, with what it was computed from."""

    canvases: Batch
    detections: list[dict[str, Tensor]]
    ap: dict[str, float]
    thresholds: Tensor  # (DIGITS,), for each class the score with the best F1 at IoU 0.5


def coco_ground_truth(targets: list[dict[str, Tensor]]) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for image, target in enumerate(targets):
        for (x1, y1, x2, y2), label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    images = [{"id": image, "width": CANVAS, "height": CANVAS} for image in range(len(targets))]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in range(DIGITS)],
    }


def coco_results(detections: list[dict[str, Tensor]]) -> np.ndarray:
    """Rows of image, x, y, width, height, score, class."""
    rows = []
    for image, found in enumerate(detections):
        x1, y1, x2, y2 = found["boxes"].double().unbind(1)
        rows.append(torch.stack((torch.full_like(x1, image), x1, y1, x2 - x1, y2 - y1, found["scores"], found["labels"]), 1))
    return torch.cat(rows).numpy()


@torch.no_grad()
def evaluate(model: RetinaNet, canvases: Batch) -> Evaluation:
    model.eval()
    images, targets = canvases
    detections = [found for i in range(0, len(images), 50) for found in model(images[i : i + 50])]
    truth = COCO(coco_ground_truth(targets))
    coco = COCOeval_faster(truth, truth.loadRes(coco_results(detections)), "bbox")
    coco.evaluate()
    coco.accumulate()
    coco.summarize()
    # precision and scores: (IoU threshold, recall threshold, class, area range, number of detections)
    precision, scores = (torch.as_tensor(coco.eval[name][0, :, :, 0, -1]) for name in ("precision", "scores"))
    recall = torch.as_tensor(coco.params.recThrs)[:, None]
    best = (precision * recall / (precision + recall).clamp(min=1e-9)).argmax(0, keepdim=True)
    ap = dict(zip(("AP", "AP50", "AP75"), map(float, coco.stats[:3]), strict=True))
    return Evaluation(canvases, detections, ap, scores.gather(0, best)[0])


# --- pictures --------------------------------------------------------------------------------------------------------


def draw_box(axes: Axes, box: list[float], colour: str, style: str) -> None:
    x1, y1, x2, y2 = box
    axes.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, ec=colour, ls=style, lw=1.4))


def draw_canvas(axes: Axes, image: Tensor, target: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    axes.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    for box in target["boxes"].tolist():
        draw_box(axes, box, "white", ":")
    overlaps = box_iou(found["boxes"], target["boxes"]) >= 0.5
    right = (overlaps & (found["labels"][:, None] == target["labels"])).any(1)
    for box, label, is_right in zip(found["boxes"].tolist(), found["labels"].tolist(), right.tolist(), strict=True):
        colour = RIGHT if is_right else WRONG
        draw_box(axes, box, colour, "-")
        above = box[1] > 8  # else there is no room for the label, and it goes below the box
        place = {"y": box[1] - 1, "va": "bottom"} if above else {"y": box[3], "va": "top"}
        axes.text(box[0] - 0.5, s=str(label), color=colour, size=10, weight="bold", **place)


def draw_detections(evaluation: Evaluation, path: Path, rows: int = 2, columns: int = 6) -> None:
    """The first canvases with the true boxes and those predicted above the score of each class's best F1."""
    legend = 0.35  # inches
    width, height = columns * 1.92, rows * 1.92 + legend
    figure, grid = plt.subplots(rows, columns, figsize=(width, height))
    canvases = zip(*evaluation.canvases, evaluation.detections, strict=True)
    for axes, (image, target, found) in zip(grid.flat, canvases, strict=False):
        keep = found["scores"] >= evaluation.thresholds[found["labels"]]
        draw_canvas(axes, image, target, {name: value[keep] for name, value in found.items()})
    handles = [
        Line2D([], [], color="black", ls=":", label="true box (white)"),
        Line2D([], [], color=RIGHT, label="predicted, right class, IoU ≥ 0.5"),
        Line2D([], [], color=WRONG, label="predicted, wrong"),
    ]
    figure.legend(handles=handles, loc="lower center", ncols=3, frameon=False)
    figure.subplots_adjust(0, legend / height, 1, 1, 0.02, 0.02)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_curves(history: History, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for name, values in (("classification", history.classification), ("boxes", history.bbox_regression)):
        width = min(len(values), 20)
        mean = np.convolve(values, np.ones(width) / width, mode="valid")
        (line,) = left.plot(np.arange(width, len(values) + 1), mean, label=f"{name}, mean of {width}")
        left.plot(np.arange(1, len(values) + 1), values, color=line.get_color(), alpha=0.2, lw=0.7)
    left.set(title=f"{history.loss} loss, training", xlabel="iteration", ylabel="loss", ylim=(0, None))
    epochs = np.arange(1, len(history.evaluations) + 1)
    for name in history.evaluations[0]:
        right.plot(epochs, [ap[name] for ap in history.evaluations], marker="o", label=name)
    right.set(title="COCO AP, validation", xlabel="epoch", ylim=(0, 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


# --- command line ----------------------------------------------------------------------------------------------------


def result_table(history: History, total: float) -> Table:
    table = Table(title=f"{history.loss}, seed {history.seed}, {len(history.seconds)} iterations of {BATCH} canvases")
    row = [f"{value:.3f}" for value in history.evaluations[-1].values()]
    for name in (*history.evaluations[-1], "seconds per iteration", "seconds in all"):
        table.add_column(name, justify="right")
    table.add_row(*row, f"{np.median(history.seconds):.4f}", f"{total:.0f}")
    return table


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loss", choices=LOSSES, default="alrp", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of digits, canvases and weights; default: %(default)s")
    parser.add_argument("--epochs", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--iterations", type=int, default=100, help="of an epoch; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("runs/digits"), help="folder; default: %(default)s")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    console = Console()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    history = History(options.loss, options.seed)
    evaluation = train(make_model(options.loss), history, options.epochs, options.iterations, console)
    draw_detections(evaluation, options.out / "detections.png")
    draw_curves(history, options.out / "curves.png")
    (options.out / "history.json").write_text(json.dumps(asdict(history)))
    console.print(result_table(history, time.perf_counter() - start))
    console.print(f"pictures and history.json in {options.out}", highlight=False)


if __name__ == "__main__":
    main()
