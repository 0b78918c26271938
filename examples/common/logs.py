"""What one sees of a run while it goes on: a bar with the expected end, and TensorBoard where it is installed."""

import importlib.util
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .history import History


def progress_bar(console: Console) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, disable=not console.is_terminal)


def make_writer(folder: Path, iteration: int) -> Any:
    """Where TensorBoard will look, from this iteration on; None where it is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=iteration)


def log_epoch(writer: Any, history: History, first: int) -> None:
    """Give TensorBoard the iterations from ``first`` on and the evaluation that ended them."""
    for name, values in (*history.losses.items(), ("gradient_balance", history.gradient_balance)):
        for iteration, value in enumerate(values[first:], first):
            writer.add_scalar(f"training/{name}", value, iteration)
    for name, value in history.evaluations[-1].items():
        writer.add_scalar(f"validation/{name}", value, len(history.seconds))
    writer.flush()
