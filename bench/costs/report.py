"""The table of one case: what each kernel did, the whole, and the floor."""

from rich import box
from rich.console import Console
from rich.measure import Measurement as Width
from rich.table import Table

from .counting import Figures, Passes
from .inputs import Case
from .latency import FORMULA as LATENCY_FORMULA
from .latency import microseconds
from .roofline import FORMULA, GPUS, floor, floor_microseconds, modelled, times, traffic_read, traffic_written

CHAINS = {
    "blocks": "blocks",
    "instructions": "chain_instructions",
    "global waits": "chain_global_waits",
    "shared waits": "chain_shared_waits",
    "barriers": "chain_barriers",
    "same address": "global_atomic_launch_contention",
}
COLUMNS = ("launches", "syncs", "read, B", "written, B", "instructions", "atomics", "divergent")


def print_model(console: Console) -> None:
    """What the modelled times are made of."""
    console.print()
    console.print("Modelled, not measured", style="bold", highlight=False)
    console.print(FORMULA, highlight=False, markup=False, soft_wrap=True)
    table = Table(box=box.ROUNDED if console.is_terminal else box.MARKDOWN)
    for name in ("GPU", "GB/s", "SMs", "GHz", "1e9 warp-instructions/s"):
        table.add_column(name, justify="left" if name == "GPU" else "right", no_wrap=True)
    for gpu in GPUS:
        table.add_row(gpu.name, *(f"{value:g}" for value in (gpu.bandwidth, gpu.sms, gpu.clock)), f"{gpu.issue_rate:.0f}")
    _print(console, table)
    console.print(LATENCY_FORMULA, highlight=False, markup=False, soft_wrap=True)


def print_costs(console: Console, case: Case, passes: Passes) -> None:
    """Counts a logit, launches and modelled times: of each kernel, of each pass, of all, and the least they could be."""
    table = Table(box=box.ROUNDED if console.is_terminal else box.MARKDOWN)
    table.add_column("pass", no_wrap=True)
    table.add_column("kernel", no_wrap=True)
    for name in (*COLUMNS, *(f"{gpu.name}, us" for gpu in GPUS)):
        table.add_column(name, justify="right", no_wrap=True)
    for name, one in passes.items():
        for kernel, figures in one.kernels.items():
            table.add_row(name, kernel, *_counts(case, figures), *_times(modelled([figures])))
        rows = _counts(case, one.total)
        rows[1] = str(one.total.get("host_syncs", 0))
        table.add_row(name, "all", *rows, *_times(times({name: one})), style="bold")
        table.add_row(name, "floor", *_floor(case, [name]), *_times(floor_microseconds(case, {name: one})), style="dim")
        table.add_section()
    whole: Figures = {}
    for one in passes.values():
        for key, value in one.total.items():
            whole[key] = whole.get(key, 0) + value
    rows = _counts(case, whole)
    rows[1] = str(whole.get("host_syncs", 0))
    table.add_row("loss", "all", *rows, *_times(times(passes)), style="bold green")
    table.add_row("loss", "floor", *_floor(case, list(passes)), *_times(floor_microseconds(case, passes)), style="dim")
    console.print()
    title = f"{case}: launches and host synchronisations; bytes, thread-instructions and atomics for each logit; modelled times"
    console.print(title, style="bold", highlight=False, soft_wrap=True)
    _print(console, table)


def print_chains(console: Console, case: Case, passes: Passes) -> None:
    """What of each kernel cannot be done at once, and how long that lets it take on an H200."""
    table = Table(box=box.ROUNDED if console.is_terminal else box.MARKDOWN)
    table.add_column("kernel", no_wrap=True)
    for name in ("launches", *CHAINS, "H200, us"):
        table.add_column(name, justify="right", no_wrap=True)
    kernels = [(name, figures) for one in passes.values() for name, figures in one.kernels.items()]
    for kernel, figures in kernels:
        counts = (str(figures.get(name, 0)) for name in ("launches", *CHAINS.values()))
        table.add_row(kernel, *counts, f"{microseconds(figures):.1f}")
    total = sum(microseconds(figures) for _, figures in kernels)
    table.add_row("all", *[""] * (1 + len(CHAINS)), f"{total:.1f}", style="bold")
    console.print()
    console.print(f"{case}: the longest chains, and times modelled with them", style="bold", highlight=False, soft_wrap=True)
    _print(console, table)


def _print(console: Console, table: Table) -> None:
    """No column ever cut: a pipe has no width, and a terminal can wrap."""
    console.width = max(console.width, Width.get(console, console.options.update(width=1000), table).maximum)
    console.print(table)


def _counts(case: Case, figures: Figures) -> list[str]:
    warps = figures.get("warp_instructions", 0)
    return [
        str(figures.get("launches", 0)),
        "",
        *(_hundredths(value / case.logits) for value in (traffic_read(figures), traffic_written(figures))),
        _hundredths(figures.get("thread_instructions", 0) / case.logits),
        _hundredths((figures.get("global_atomics", 0) + figures.get("shared_atomics", 0)) / case.logits),
        f"{100 * figures.get('divergent_warp_instructions', 0) / warps:.1f}%" if warps else "",
    ]


def _floor(case: Case, names: list[str]) -> list[str]:
    read, written = (least / case.logits for least in floor(case, names).values())
    return ["", "", _hundredths(read), _hundredths(written), "", "", ""]


def _times(microseconds: list[float]) -> list[str]:
    return [_hundredths(value) for value in microseconds]


def _hundredths(value: float) -> str:
    return "0" if value == 0 else "<0.01" if value < 0.005 else f"{value:.2f}" if value < 100 else f"{value:.0f}"
