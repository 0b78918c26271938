"""``python -m bench.overhead``: what a call costs where there is next to nothing to compute."""

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from .cases import Case
from .contenders import LOSSES, Step, training_step
from .machine import heading
from .report import print_heading
from .timing import Timing, interleaved

CASE = Case(1000, 10, "dense", torch.float32, torch.device("cpu"))
ROUNDS = 101
BCE = "binary cross entropy"


def measure(rounds: int = ROUNDS) -> dict[str, Timing]:
    """Forward + backward of every loss and of PyTorch's binary cross entropy with logits, on one thread."""
    problem = CASE.draw()
    one_hot = (problem.targets > 0).to(problem.logits.dtype)

    def bce() -> object:
        return torch.autograd.grad(F.binary_cross_entropy_with_logits(problem.logits, one_hot), problem.logits)

    steps: dict[str, Step] = {BCE: bce}
    for loss in LOSSES.values():
        steps[loss.title] = training_step(loss, loss.ours, loss.labelled(problem))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return interleaved(steps, rounds, CASE.device)
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    """Measure and print."""
    out = Console()
    print_heading(out, heading(CASE.device, "float32", "python -m bench.overhead"))
    timings = measure()
    table = Table(title=f"N = {CASE.logits:,}, P = {CASE.positives}, forward + backward, one thread, median of {ROUNDS}")
    for column in ("", "us", "/ binary cross entropy"):
        table.add_column(column, justify="right" if column else "left")
    for name, timing in timings.items():
        table.add_row(name, f"{timing.median * 1e6:.0f}", f"{timing.median / timings[BCE].median:.2f}")
    out.print(table)


if __name__ == "__main__":
    main()
