"""``python -m bench.kernels``: how long each kernel of a step takes on a CUDA device, as docs/kernels.md has it."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from rich.console import Console
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from .cases import Case
from .contenders import LOSSES, Step, training_step
from .machine import heading
from .report import number, print_columns, print_heading

WARM_UP, STEPS = 3, 10
SIZES = ((10**4, 50), (10**6, 500), (10**6, 2000), (10**6, 8000), (10**6, 20000), (10**8, 2000))
DTYPE = "float32"

# The beginnings of kernels' names: of the sorted form, in the order of a step. Of more positives than are
# ranked by counting, find is CUB's selection and sort.
COLUMNS = {
    "find": ("find_labels", "find_rows", "make_keys", "unpack_keys", "Device"),
    "rank_positives": ("rank_positives",),
    "build_tables": ("build_tables",),
    "count": ("count_sorted",),
    "compute_losses": ("compute_losses",),
    "spread": ("spread_sorted",),
    "scatter": ("scatter_gradients",),
    "memset": ("Memset",),
}
OTHERS = "torch's"
TOTAL = "all"


@dataclass(frozen=True)
class Profile:
    """Microseconds a step of each column."""

    case: Case
    microseconds: Mapping[str, float]


def base_name(kernel: str) -> str:
    """A kernel's name without its return type, namespaces and arguments."""
    plain = kernel.replace("(anonymous namespace)::", "").replace("<unnamed>::", "")
    for opening in "<(":
        plain = plain.partition(opening)[0]
    return plain.rsplit("::", 1)[-1].split()[-1]


def column(kernel: str) -> str:
    """Where a kernel's time belongs; one of ours that no column knows has its own."""
    name, ours = base_name(kernel), "alrp::" in kernel
    for title, beginnings in COLUMNS.items():
        if name.startswith(beginnings):
            return title
    return name if ours else OTHERS


def summed(events: Iterable[tuple[str, float]], steps: int) -> dict[str, float]:
    """Microseconds a step by column, from the kernels of ``steps`` steps and what each took."""
    sums: dict[str, float] = {}
    for kernel, microseconds in events:
        for title in (column(kernel), TOTAL):
            sums[title] = sums.get(title, 0.0) + microseconds / steps
    return sums


def profiled(step: Step, device: torch.device) -> dict[str, float]:
    """Microseconds a step by column, means of STEPS steps."""
    for _ in range(WARM_UP):
        step()
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(STEPS):
            step()
        torch.cuda.synchronize(device)
    kernels = [event for event in profiler.events() or () if event.device_type == DeviceType.CUDA]
    return summed(((event.name, event.time_range.elapsed_us()) for event in kernels), STEPS)


def cases(device: torch.device) -> list[Case]:
    """Those of the table, the largest in both regimes."""
    dense = [Case(logits, positives, "dense", torch.float32, device) for logits, positives in SIZES]
    return [*dense, Case(*SIZES[-1], "sparse", torch.float32, device)]


def cell(title: str, one: Profile) -> str:
    """The time in a column, as the table writes it."""
    time = one.microseconds.get(title)
    return "-" if time is None else f"{time:.1f}" if time < 100 else f"{time:.0f}"


def print_table(console: Console, profiles: Sequence[Profile]) -> None:
    """One row a case, and a column for each kernel that took time."""
    found = {title for one in profiles for title in one.microseconds}
    titles = [*COLUMNS, *sorted(found - {*COLUMNS, OTHERS, TOTAL}), OTHERS, TOTAL]
    columns: dict[str, Callable[[Profile], str]] = {
        "N, P": lambda one: f"{number(one.case.logits)}, {one.case.positives} {one.case.regime}",
        **{title: partial(cell, title) for title in titles},
    }
    print_columns(console, f"microseconds of each kernel, means of {STEPS} steps (aLRP, {DTYPE})", columns, profiles)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.kernels", description=__doc__)
    parser.parse_args(argv)
    if not torch.cuda.is_available():
        parser.error("torch sees no CUDA device")
    device, out = torch.device("cuda"), Console()
    print_heading(out, heading(device, DTYPE, "python -m bench.kernels"))
    loss = LOSSES["alrp"]
    profiles = []
    for case in cases(device):
        step = training_step(loss, loss.ours, case.draw(), algorithm="sorted")
        profiles.append(Profile(case, profiled(step, device)))
    print_table(out, profiles)


if __name__ == "__main__":
    main()
