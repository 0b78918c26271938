"""One CSV of many runs: a line each, with settings and results."""

import csv
import io
from pathlib import Path

import numpy as np
import torch

from ..common.history import History

NUMBERS = ("AP", "AP50", "AP75", "AP90", "oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn", "rho")


def result_row(history: History) -> dict[str, object]:
    numbers = {name: f"{history.evaluations[-1][name]:.5f}" for name in NUMBERS}
    seconds, in_losses = np.array(history.seconds), np.array(history.loss_seconds)
    times = {"seconds_step": f"{np.median(seconds):.4f}", "share_of_loss": f"{np.median(in_losses / seconds):.4f}"}
    return {**history.run, **numbers, **times, "torch": torch.__version__}


def line(values: list[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def check_results(file: Path, run: dict[str, object]) -> None:
    """Raise ValueError if a line of this run would not fit the file's header: better before the run than after."""
    if not file.exists() or not file.stat().st_size:
        return
    with file.open() as opened:
        header = opened.readline()
    columns = [*run, *NUMBERS, "seconds_step", "share_of_loss", "torch"]
    if header != line(list(columns)):
        raise ValueError(f"{file} must have the columns {', '.join(columns)}, got {header.strip()}")


def append_result(history: History, file: Path) -> None:
    """Add a line, after a header in a new file. Other runs may do so meanwhile: each writes once."""
    row = result_row(history)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("x") as opened:
            opened.write(line(list(row)))
    except FileExistsError:
        pass
    check_results(file, history.run)
    with file.open("a") as opened:
        opened.write(line(list(row.values())))
