"""The tables: boxes and colours on a terminal, Markdown where the output is piped."""

import math
from collections.abc import Callable

from rich import box
from rich.console import Console
from rich.measure import Measurement as Width
from rich.table import Table

from .agreement import Comparison
from .measurement import CONTENDERS, RATIOS, Measurement

MIB = 1 << 20


def number(count: int) -> str:
    """A count as one would type it: 500, 1e6, 4.47e6, 4468464."""
    digits = str(count)
    mantissa = digits.rstrip("0")
    if len(digits) < 5 or len(mantissa) > 3:
        return digits
    return (mantissa[0] + "." + mantissa[1:]).rstrip(".") + f"e{len(digits) - 1}"


def figure(value: float | None) -> str:
    """Three significant digits without an exponent; "-" where nothing was measured."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def agreement_figure(measurement: Measurement, comparison: Comparison) -> str:
    """The worst error of what it may be, and the case it was found on where that is a thinner one."""
    case = comparison.case
    where = "" if case == measurement.case else f" at {number(case.logits)}, {number(case.positives)}"
    error, bound = comparison.worst()
    return f"{error:.1e} of {bound:.1e}{where}"


Column = Callable[[Measurement], str]
Columns = dict[str, Column]


def table(console: Console, columns: Columns, measurements: list[Measurement]) -> Table:
    """One table with a line a case; the columns N and P come first."""
    columns = {
        "N": lambda m: number(m.case.logits),
        "P": lambda m: number(m.case.positives),
    } | columns
    out = Table(box=box.ROUNDED if console.is_terminal else box.MARKDOWN)
    for name in columns:
        style = "bold green" if name.startswith("ours") else None
        out.add_column(name, justify="right", no_wrap=True, style=style)
    for measurement in measurements:
        out.add_row(*(value(measurement) for value in columns.values()))
    return out


def time(name: str) -> Column:
    return lambda measurement: figure(measurement.milliseconds(name))


def ratio(over: str, under: str) -> Column:
    return lambda measurement: figure(measurement.ratio(over, under))


def peak(name: str) -> Column:
    return lambda measurement: figure(measurement.peaks[name] / MIB if name in measurement.peaks else None)


TIMES = {name: time(name) for name in CONTENDERS} | {f"{over}/{under}": ratio(over, under) for over, under in RATIOS}
PEAKS: Columns = {
    **{name: peak(name) for name in CONTENDERS if name != "copy"},
    "the logits": lambda measurement: figure(measurement.case.logits * measurement.case.dtype.itemsize / MIB),
}
ERRORS: Columns = {
    "reference": lambda measurement: agreement_figure(measurement, measurement.comparisons[0]),
    "loop": lambda measurement: agreement_figure(measurement, measurement.comparisons[1]),
}


def print_heading(console: Console, heading: dict[str, str]) -> None:
    width = max(map(len, heading))
    for name, value in heading.items():
        console.print(f"{name:<{width}}  {value}", highlight=False, markup=False, soft_wrap=True)


def print_tables(console: Console, measurements: list[Measurement], repeat: int) -> None:
    """Print times, memory and agreement, no column ever cut: a pipe has no width, and a terminal can wrap."""
    tables = {
        f"Time, ms: medians of up to {repeat} interleaved samples": TIMES,
        "Peak memory beyond the inputs, MiB, with the gradient of the logits": PEAKS,
        "Relative L2 error of ours against float64, of what it may be": ERRORS,
    }
    for title, columns in tables.items():
        rendered = table(console, columns, measurements)
        needed = Width.get(console, console.options.update(width=1000), rendered).maximum
        console.width = max(console.width, needed)
        console.print()
        console.print(title, style="bold", highlight=False, soft_wrap=True)
        console.print(rendered)
