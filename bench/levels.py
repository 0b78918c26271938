"""``python -m bench --levels``: from a head's maps to their gradients, by a list and by permuting and joining them first."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from torch import Tensor

import alrp_cuda

from .allocator import warm_up
from .cases import DTYPES, Case
from .contenders import LOSSES, Loss
from .memory import peak_bytes
from .report import MIB, figure, number, print_columns
from .timing import Timing, interleaved

# The levels of a RetinaNet on images of 512 pixels: 49104 anchors, 4.47e6 logits of one image, 1.79e7 of four.
SIDES = (64, 32, 16, 8, 4)
ANCHORS, CLASSES, POSITIVES = 9, 91, 172
IMAGES = (1, 4)
AT_MOST = 1.15  # what a list may take, in times of the loss alone


@dataclass(frozen=True)
class Cell:
    """One loss of so many images: times and peaks of its forms, and whether their values and gradients are the same."""

    loss: str
    images: int
    logits: int
    timings: dict[str, Timing]
    peaks: dict[str, int]
    same: bool

    def ratio(self, form: str) -> float:
        return self.timings[form].median / self.timings["alone"].median


def forms(
    loss: Loss, images: int, dtype: torch.dtype, device: torch.device, algorithm: str
) -> dict[str, Callable[[], list[Tensor]]]:
    """The steps: each returns the value and the gradient of the logits, level by level with classes last."""
    rows = images * ANCHORS * sum(side * side for side in SIDES)
    case = Case(rows * CLASSES, images * POSITIVES, "dense", dtype, device, CLASSES)
    problem = loss.labelled(case.draw())
    shapes = [(images, side, side, ANCHORS) for side in SIDES]
    counts = [images * side * side * ANCHORS for side in SIDES]

    def split(tensor: Tensor) -> list[Tensor]:
        parts = tensor.split_with_sizes(counts)
        return [part.reshape(*shape, *part.shape[1:]) for part, shape in zip(parts, shapes, strict=True)]

    maps = [level.permute(0, 3, 4, 1, 2).flatten(1, 2).contiguous().requires_grad_() for level in split(problem.logits.detach())]
    targets = split(problem.targets)
    errors = [problem.loc_errors] if "loc_errors" in loss.arguments else []
    options = {**loss.options, **loss.told(problem), "algorithm": algorithm}

    def step(logits: Tensor | list[Tensor], labels: Tensor | list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
        value = loss.total(loss.ours(logits, labels, *errors, **options))
        return [value, *torch.autograd.grad(value, [*leaves, *errors])]

    def joined() -> list[Tensor]:
        rows = torch.cat([view.reshape(-1, CLASSES) for view in alrp_cuda.head_views(maps, CLASSES)])
        return step(rows, problem.targets, maps)

    return {
        "alone": lambda: step(problem.logits, problem.targets, [problem.logits]),
        "list": lambda: step(alrp_cuda.head_views(maps, CLASSES), targets, maps),
        "joined": joined,
    }


def is_same(steps: dict[str, Callable[[], list[Tensor]]]) -> bool:
    """Whether the list gives what the joined maps give, but for rounding."""
    pairs = zip(steps["list"](), steps["joined"](), strict=True)
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-8) for a, b in pairs)


def measure(options: Namespace) -> list[Cell]:
    """Every loss on every number of images."""
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    warm_up()
    cells = []
    for images in IMAGES:
        for name in options.losses:
            steps = forms(LOSSES[name], images, dtype, device, options.algorithm)
            same = is_same(steps)
            timings = interleaved(steps, options.repeat, device)
            peaks = {form: peak_bytes(step, device) for form, step in steps.items()}
            logits = images * ANCHORS * CLASSES * sum(side * side for side in SIDES)
            cells.append(Cell(name, images, logits, timings, peaks, same))
    return cells


def run(options: Namespace, out: Console) -> int:
    """Measure and print; returns the exit status."""
    cells = measure(options)

    def milliseconds(form: str) -> Callable[[Cell], str]:
        return lambda cell: figure(1e3 * cell.timings[form].median)

    case: dict[str, Callable[[Cell], str]] = {
        "loss": lambda cell: cell.loss,
        "images": lambda cell: str(cell.images),
        "N": lambda cell: number(cell.logits),
    }
    names = {"alone": "loss alone", "list": "list of maps", "joined": "permuted and joined"}
    times = {f"{title}, ms": milliseconds(form) for form, title in names.items()}
    ratios: dict[str, Callable[[Cell], str]] = {
        "list / alone": lambda cell: figure(cell.ratio("list")),
        f"at most {AT_MOST}": lambda cell: "met" if cell.ratio("list") <= AT_MOST else "MISSED",
        "joined / alone": lambda cell: figure(cell.ratio("joined")),
    }
    title = (
        f"maps of {len(SIDES)} levels, channels first, to their gradients: medians of up to {options.repeat} interleaved samples"
    )
    print_columns(out, title, case | times | ratios, cells)

    def peak(form: str) -> Callable[[Cell], str]:
        return lambda cell: figure(cell.peaks[form] / MIB)

    itemsize = DTYPES[options.dtype].itemsize
    peaks = {title: peak(form) for form, title in names.items()}
    peaks["the logits"] = lambda cell: figure(cell.logits * itemsize / MIB)
    print_columns(out, "peak memory beyond the inputs, MiB, with the gradients", case | peaks, cells)
    wrong = [cell for cell in cells if not cell.same]
    for cell in wrong:
        out.print(f"disagreement: {cell.loss}, {number(cell.logits)}: the list and the joined maps", style="red")
    return 1 if wrong else 0
