"""A run's result in a table."""

import numpy as np
from rich import box
from rich.table import Table

from .history import History

NUMBERS = ("AP", "AP50", "AP75", "AP90", "oLRP", "rho")


def result_table(history: History, batch: str, total: float, decimals: int) -> Table:
    """The last evaluation and times: of a step, with so many decimals, and of the whole run. ``batch``: how much of what."""
    run = history.run
    title = f"{run['detector']}, {run['loss']}, seed {run['seed']}, {len(history.seconds)} iterations of {batch}"
    table = Table(title=title, box=box.SIMPLE_HEAD)
    numbers = {name: f"{history.evaluations[-1][name]:.3f}" for name in NUMBERS}
    numbers["s / step"] = f"{np.median(history.seconds):.{decimals}f}"
    numbers["loss"] = f"{np.sum(history.loss_seconds) / np.sum(history.seconds):.1%}"
    numbers["all"] = f"{total:.0f} s"
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(*numbers.values())
    return table
