"""The exhibit's table and pictures, from the histories of its runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from ..common.history import History
from ..common.pictures import smooth
from ..common.tables import NUMBERS


@dataclass
class Cell:
    """A detector with a loss: the histories of its seeds."""

    detector: str
    loss: str
    histories: Sequence[History]

    def last(self, name: str) -> np.ndarray:
        """(seeds,), a number of the last evaluation."""
        return np.array([history.evaluations[-1][name] for history in self.histories])


def table_row(cell: Cell) -> list[str]:
    spread = {name: cell.last(name) for name in NUMBERS}
    seconds = np.concatenate([history.seconds for history in cell.histories])
    in_losses = np.concatenate([history.loss_seconds for history in cell.histories])
    return [
        cell.detector,
        cell.loss,
        f"{cell.histories[0].run['learning_rate']:g}",
        *(f"{v.mean():.3f} ± {v.std(ddof=1):.3f}" if len(v) > 1 else f"{v[0]:.3f}" for v in spread.values()),
        f"{np.median(seconds):.4f}",
        f"{np.median(in_losses / seconds):.1%}",
    ]


def write_table(cells: Sequence[Cell], path: Path) -> None:
    """Means over the seeds with the standard deviation of a sample; medians of times over all iterations."""
    header = ["detector", "loss", "learning rate", *NUMBERS, "s / iteration", "in losses"]
    rows = [header, ["---"] * len(header), *map(table_row, cells)]
    path.write_text("".join(f"| {' | '.join(row)} |\n" for row in rows))


def draw_components(cells: Sequence[Cell], path: Path) -> None:
    """Both parts of aLRP Loss and their sum, as Fig. 3 of the paper: RetinaNet, the first seed."""
    shown = [cell for cell in cells if cell.detector == "retinanet" and cell.loss.startswith("alrp")]
    figure, grid = plt.subplots(1, len(shown), figsize=(3.4 * len(shown), 3.2), sharey=True, squeeze=False, layout="constrained")
    for axes, cell in zip(grid[0], shown, strict=True):
        losses = cell.histories[0].losses
        total = np.add(losses["classification"], losses["bbox_regression"]).tolist()
        for name, values in (("aLRP", total), ("classification", losses["classification"]), ("boxes", losses["bbox_regression"])):
            axes.plot(*smooth(values), label=name)
        axes.set(title=cell.loss, xlabel="iteration", ylim=(0, 1.05))
        axes.grid(alpha=0.3)
    grid[0, 0].set_ylabel("loss, mean of 20 iterations")
    grid[0, -1].legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_gradients(cells: Sequence[Cell], path: Path) -> None:
    """Sum of absolute gradients of the positives' logits over that of the negatives', as Fig. 4 of the paper: RetinaNet."""
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for cell in cells:
        if cell.detector == "retinanet":
            label = {"own": "own (Focal Loss)"}.get(cell.loss, cell.loss)
            axes.plot(*smooth(cell.histories[0].gradient_balance), label=label)
    axes.axhline(1, color="black", lw=0.6, ls=":")
    axes.set(
        yscale="log", xlabel="iteration", ylabel="positives / negatives, mean of 20", title="RetinaNet: balance of gradients"
    )
    axes.grid(alpha=0.3)
    axes.legend(ncols=2)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_ap(cells: Sequence[Cell], path: Path) -> None:
    """AP over the epochs: the mean of the seeds, and their range."""
    detectors = list(dict.fromkeys(cell.detector for cell in cells))
    colours = {loss: f"C{i}" for i, loss in enumerate(dict.fromkeys(cell.loss for cell in cells))}
    figure, grid = plt.subplots(
        1, len(detectors), figsize=(3.6 * len(detectors), 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, detector in zip(grid[0], detectors, strict=True):
        for cell in (cell for cell in cells if cell.detector == detector):
            ap = np.array([[numbers["AP"] for numbers in history.evaluations] for history in cell.histories])
            epochs = np.arange(1, ap.shape[1] + 1)
            axes.plot(epochs, ap.mean(0), color=colours[cell.loss], label=cell.loss)
            axes.fill_between(epochs, ap.min(0), ap.max(0), color=colours[cell.loss], alpha=0.15, lw=0)
        axes.set(title=detector, xlabel="epoch", ylim=(0, 1))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    grid[0, 0].set_ylabel("COCO AP, validation")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def write_report(cells: Sequence[Cell], out: Path) -> None:
    write_table(cells, out / "table.md")
    draw_components(cells, out / "components.png")
    draw_gradients(cells, out / "gradients.png")
    draw_ap(cells, out / "ap.png")
