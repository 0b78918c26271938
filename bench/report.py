"""The tables: boxes and colours on a terminal, Markdown where the output is piped."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement as Width
from rich.table import Table

from .agreement import Comparison
from .cases import Case
from .contenders import CONTENDERS, WAITING_FOR_NOTHING
from .goals import bounds_of
from .measurement import RATIOS, Measurement

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


def size(case: Case) -> str:
    """N, or anchors x classes."""
    return f"{case.labels} x {case.classes}" if case.classes else number(case.logits)


def agreement_figure(measurement: Measurement, comparison: Comparison) -> str:
    """The worst error of what it may be, and the case it was found on where that is a thinner one."""
    case = comparison.case
    where = "" if case == measurement.case else f" at {size(case)}, {number(case.positives)}"
    error, bound = comparison.worst()
    return f"{error:.1e} of {bound:.1e}{where}"


Column = Callable[[Measurement], str]
Columns = dict[str, Column]

CASE: Columns = {
    "regime": lambda measurement: measurement.regime,
    "N": lambda measurement: size(measurement.case),
    "P": lambda measurement: number(measurement.case.positives),
}


def table(console: Console, columns: Mapping[str, Callable[[Any], str]], rows: Sequence[object]) -> Table:
    """One table: of every row what each column makes of it."""
    out = Table(box=box.ROUNDED if console.is_terminal else box.MARKDOWN)
    for name in columns:
        style = "bold green" if name.startswith("ours") else None
        out.add_column(name, justify="right", no_wrap=True, style=style)
    for row in rows:
        out.add_row(*(value(row) for value in columns.values()))
    return out


def cell(value: float | None, *names: str) -> str:
    """The figure of one contender, or of one over another; nothing but a missing compiler leaves compiled Focal Loss out."""
    return "no compiler" if value is None and "compiled focal" in names else figure(value)


def time(name: str, *, alone: bool = False) -> Column:
    return lambda measurement: cell(measurement.milliseconds(name, alone=alone), name)


def ratio(over: str, under: str, *, alone: bool = False) -> Column:
    return lambda measurement: cell(measurement.ratio(over, under, alone=alone), over, under)


def verdict(over: str, under: str) -> Column:
    """What a ratio may be at most, and whether it is."""

    def text(measurement: Measurement) -> str:
        bound, met = bounds_of(measurement.loss, measurement.case).get((over, under)), measurement.is_met(over, under)
        return "-" if bound is None else f"{bound:g}, {'not measured' if met is None else 'met' if met else 'MISSED'}"

    return text


def peak(name: str) -> Column:
    return lambda measurement: cell(measurement.peaks[name] / MIB if name in measurement.peaks else None, name)


def ratio_columns(measurements: list[Measurement]) -> Columns:
    """Every ratio, with its bound beside it where some case has one."""
    columns: Columns = {}
    for pair in RATIOS:
        name = "/".join(pair)
        columns[name] = ratio(*pair)
        if any(pair in bounds_of(m.loss, m.case) for m in measurements):
            columns[f"{name} at most"] = verdict(*pair)
    return columns | {"ours, ns a logit": lambda measurement: figure(measurement.nanoseconds_a_logit)}


TIMES = {name: time(name) for name in (*CONTENDERS, "floor")}
REPLAYS: Columns = {
    **{name: time(name, alone=True) for name in (*WAITING_FOR_NOTHING, "floor")},
    **{"/".join(pair): ratio(*pair, alone=True) for pair in RATIOS},
}
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


def print_tables(console: Console, loss: str, measurements: list[Measurement], repeat: int) -> None:
    """Print times, ratios, memory and agreement, with the columns that name the case first."""
    tables = {
        f"time, ms: medians of up to {repeat} interleaved samples": TIMES,
        "ratios of times": ratio_columns(measurements),
        "time of the device alone, ms: replayed from CUDA graphs": REPLAYS if any(m.replays for m in measurements) else {},
        "peak memory beyond the inputs, MiB, with the gradient of the logits": PEAKS,
        "relative L2 error of ours against float64, of what it may be": ERRORS,
    }
    for title, columns in tables.items():
        if columns:
            print_columns(console, f"{loss}: {title}", CASE | columns, measurements)


def print_columns(console: Console, title: str, columns: Mapping[str, Callable[[Any], str]], rows: Sequence[object]) -> None:
    """Print a table under its title, no column ever cut: a pipe has no width, and a terminal can wrap."""
    rendered = table(console, columns, rows)
    needed = Width.get(console, console.options.update(width=1000), rendered).maximum
    console.width = max(console.width, needed)
    console.print()
    console.print(title, style="bold", highlight=False, soft_wrap=True)
    console.print(rendered)
