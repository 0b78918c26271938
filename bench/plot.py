"""Times as a picture for a page 900 pixels wide: against N and against P, or case by case."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from .measurement import Measurement
from .report import number, size

# Okabe and Ito's palette, which the colour-blind tell apart; the floor is grey and dashed.
STYLES: dict[str, tuple[str, dict[str, Any]]] = {
    "loop": ("per-positive loop", {"color": "#d55e00", "marker": "s"}),
    "reference": ("reference", {"color": "#cc79a7", "marker": "v"}),
    "tiled": ("ours, tiled", {"color": "#e69f00", "marker": "D", "markersize": 5}),
    "focal": ("Focal Loss", {"color": "#0072b2", "marker": "^"}),
    "compiled focal": ("compiled Focal Loss", {"color": "#56b4e9", "marker": "P"}),
    "ours": ("ours", {"color": "#009e73", "marker": "o", "linewidth": 3, "markersize": 7}),
    "floor": ("memory floor", {"color": "0.5", "marker": ".", "linestyle": "--"}),
}


def draw(axes: Axes, measurements: list[Measurement], positions: Sequence[int], ticks: list[str], **style: str) -> None:
    """Draw every contender's times over the positions of the cases."""
    for name, (label, own) in STYLES.items():
        times = [(x, m.milliseconds(name)) for x, m in zip(positions, measurements, strict=True)]
        points = [(x, time) for x, time in times if time is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **own | style)
    axes.set_yscale("log")
    axes.set_xticks(positions, ticks)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(True, which="major", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def sweep(measurements: list[Measurement], against: str, at: str) -> list[Measurement]:
    """Those cases that differ in ``against`` alone: at the value of ``at`` that most of them share, of such the largest."""
    shared = Counter(getattr(m.case, at) for m in measurements)
    value = max(shared, key=lambda value: (shared[value], value))
    chosen = [m for m in measurements if getattr(m.case, at) == value]
    return sorted(chosen, key=lambda m: int(getattr(m.case, against)))


def draw_sweeps(axes: Sequence[Axes], measurements: list[Measurement]) -> None:
    """Over N in the first panel, over P in the second."""
    letters = {"logits": "N", "positives": "P"}
    for panel, against, at in zip(axes, letters, reversed(letters), strict=True):
        chosen = sweep(measurements, against, at)
        positions = [getattr(m.case, against) for m in chosen]
        panel.set_xscale("log")
        draw(panel, chosen, positions, [number(position) for position in positions])
        panel.set_xlabel(f"{against} {letters[against]}, at {letters[at]} = {number(getattr(chosen[0].case, at))}")


def draw_cases(axes: Axes, measurements: list[Measurement]) -> None:
    """Case by case, where they are not of one kind; lines between them would mean nothing."""
    ticks = [f"{m.regime}\nN = {size(m.case)}\nP = {number(m.case.positives)}" for m in measurements]
    draw(axes, measurements, range(len(measurements)), ticks, linestyle="none")


def save(path: Path, by_loss: dict[str, list[Measurement]], about: str) -> None:
    """Write the picture, a row of panels a loss."""
    kinds = {(m.case.regime, m.case.classes) for measurements in by_loss.values() for m in measurements}
    rows, columns = len(by_loss), 2 if len(kinds) == 1 else 1
    with plt.rc_context({"font.size": 11, "lines.linewidth": 2}):
        figure, grid = plt.subplots(
            rows, columns, figsize=(9, 0.7 + 4.1 * rows), sharey="row", squeeze=False, layout="constrained"
        )
        for axes, (loss, measurements) in zip(grid, by_loss.items(), strict=True):
            if len(kinds) == 1:
                draw_sweeps(axes, measurements)
                axes[0].set_title(f"{loss}: {measurements[0].regime}, {about}", loc="left")
            else:
                draw_cases(axes[0], measurements)
                axes[0].set_title(f"{loss}: {about}", loc="left")
            axes[0].set_ylabel("forward + backward, ms")
        add_legend(figure)
        figure.savefig(path, dpi=200)
        plt.close(figure)


def add_legend(figure: Figure) -> None:
    """One legend for all panels: a slow contender may appear in only one of them."""
    shown = {label: line for ax in figure.axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    labels = [label for label, _ in STYLES.values() if label in shown]
    figure.legend([shown[label] for label in labels], labels, loc="outside lower center", ncols=3, frameon=False)
