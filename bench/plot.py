"""Time against N and against P, as a picture for a page 900 pixels wide."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from .measurement import Measurement
from .report import number

# Okabe and Ito's palette, which the colour-blind tell apart; the floor is grey and dashed.
STYLES: dict[str, tuple[str, dict[str, Any]]] = {
    "reference": ("reference", {"color": "#cc79a7", "marker": "v"}),
    "loop": ("per-positive loop", {"color": "#d55e00", "marker": "s"}),
    "focal": ("Focal Loss", {"color": "#0072b2", "marker": "^"}),
    "ours": ("ours", {"color": "#009e73", "marker": "o", "linewidth": 3, "markersize": 7}),
    "copy": ("copy of the logits", {"color": "0.5", "marker": ".", "linestyle": "--"}),
}


def panel(axes: Axes, measurements: list[Measurement], against: str, title: str) -> None:
    """Draw every contender's time over ``against``, an attribute of the case."""
    for name, (label, style) in STYLES.items():
        points = [(getattr(m.case, against), m.milliseconds(name)) for m in measurements if name in m.timings]
        if points:
            axes.plot(*zip(*sorted(points), strict=True), label=label, **style)
    axes.set(xscale="log", yscale="log", title=title)
    ticks = sorted({getattr(m.case, against) for m in measurements})
    axes.set_xticks(ticks, [number(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(True, which="major", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def save(path: Path, measurements: list[Measurement], title: str) -> None:
    """Write the picture: over N at the largest P, and over P at the largest N where there are several."""
    most_logits = max(m.case.logits for m in measurements)
    at_most_logits = [m for m in measurements if m.case.logits == most_logits]
    most_positives = max(m.case.positives for m in at_most_logits)
    at_most_positives = [m for m in measurements if m.case.positives == most_positives]

    panels = [(at_most_positives, "logits", f"P = {number(most_positives)} positives", "logits N")]
    if len(at_most_logits) > 1:
        panels.append((at_most_logits, "positives", f"N = {number(most_logits)} logits", "positives P"))
    with plt.rc_context({"font.size": 11, "lines.linewidth": 2}):
        figure, axes = plt.subplots(1, len(panels), figsize=(9, 4.6), sharey=True, squeeze=False, layout="constrained")
        for ax, (chosen, against, subtitle, label) in zip(axes[0], panels, strict=True):
            panel(ax, chosen, against, subtitle)
            ax.set_xlabel(label)
        axes[0, 0].set_ylabel("forward + backward, ms")
        figure.suptitle(title)
        # One legend for both panels: a slow contender may appear in only one of them.
        shown = {label: line for ax in axes[0] for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        labels = [label for label, _ in STYLES.values() if label in shown]
        handles = [shown[label] for label in labels]
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        figure.savefig(path, dpi=200)
        plt.close(figure)
