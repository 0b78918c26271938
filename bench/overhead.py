"""``python -m bench.overhead``: what a call costs where there is next to nothing to compute; on a CUDA device, of the host."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from rich.console import Console

from .cases import Case
from .contenders import LOSSES, Step, training_step
from .machine import heading
from .report import print_columns, print_heading
from .timing import Timing, enqueued, interleaved

CASE = Case(1000, 10, "dense", torch.float32, torch.device("cpu"))
ROUNDS = 101
BCE = "binary cross entropy"


def measure(rounds: int = ROUNDS, device: torch.device = CASE.device) -> dict[str, Timing]:
    """Forward + backward of every loss and of PyTorch's binary cross entropy with logits, on one thread: of a CUDA device the
    time in which the host asks for it, without what the device then takes."""
    problem = replace(CASE, device=device).draw()
    one_hot = (problem.targets > 0).to(problem.logits.dtype)

    def bce() -> object:
        return torch.autograd.grad(F.binary_cross_entropy_with_logits(problem.logits, one_hot), problem.logits)

    steps: dict[str, Step] = {BCE: bce}
    for loss in LOSSES.values():
        steps[loss.title] = training_step(loss, loss.ours, loss.labelled(problem), **loss.told(problem))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return interleaved(steps, rounds, device, enqueued)
    finally:
        torch.set_num_threads(threads)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    device = torch.device(parser.parse_args(argv).device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device")
    out = Console()
    print_heading(out, heading(device, "float32", f"python -m bench.overhead --device {device}"))
    timings = measure(ROUNDS, device)
    columns: dict[str, Callable[[str], str]] = {
        "loss": str,
        "us": lambda name: f"{timings[name].median * 1e6:.0f}",
        "/ binary cross entropy": lambda name: f"{timings[name].median / timings[BCE].median:.2f}",
    }
    what = "forward + backward" if device.type == "cpu" else "the host's part of forward + backward"
    title = f"N = {CASE.logits:,}, P = {CASE.positives}: {what}, one thread, median of {ROUNDS}"
    print_columns(out, title, columns, list(timings))


if __name__ == "__main__":
    main()
