"""``python -m bench.costs.calibration``: what latency.py says of the kernels that were timed on an H200, beside the times.

The counts are of commit 8214c42, which is the one that was timed, by the emulated device of today in the shape of an H200
(``device=1`` of tests/emulator). With N = 1e8 those of find, count and spread are extrapolated from N = 1e6 and 1e7: chains by
the tiles of a block, all else by N. ``--fit`` prints the constants that fit best.
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ..report import print_columns
from .counting import Figures
from .latency import LATENCIES, Latencies, busiest, chain, microseconds
from .roofline import H200

FILE = Path(__file__).with_name("timed_h200.json")
FACTOR = 1.5  # within which a modelled time is to be
# Another form of it was timed, which no commit has: it searched for each cell.
NOT_FITTED = "build_tables"
# What the model does not know, by column and case.
MISSES = {
    ("spread", "1e6, 8000 dense"): "tables in global memory are read from caches, not from DRAM",
    ("spread", "1e6, 20000 dense"): "the same",
    ("sort_positives", "1e6, 20000 dense"): "one multiprocessor writes 1.4 MB, at a rate of its own",
}


@dataclass(frozen=True)
class Cell:
    """One number of the table, and what its kernels were counted to do."""

    case: str
    column: str
    measured: float
    counted: Sequence[Figures]

    def modelled(self, of: Latencies = LATENCIES) -> float:
        """Microseconds of all its kernels."""
        return sum(microseconds(figures, of) for figures in self.counted)

    @property
    def ratio(self) -> float:
        """Modelled over measured."""
        return self.modelled() / self.measured

    @property
    def is_near(self) -> bool:
        """Within FACTOR."""
        return 1 / FACTOR <= self.ratio <= FACTOR


def cells() -> list[Cell]:
    """Of the whole table, row by row."""
    rows: list[dict[str, Any]] = json.loads(FILE.read_text())["rows"]
    return [
        Cell(row["case"], column, kernel["measured"], [*kernel["counted"].values()])
        for row in rows
        for column, kernel in row["kernels"].items()
    ]


def fit() -> Latencies:
    """Those with the least squares of log(modelled / measured)."""
    fitted = [cell for cell in cells() if cell.column != NOT_FITTED]
    counts = torch.tensor([[sum(column) for column in zip(*map(chain, cell.counted), strict=True)] for cell in fitted]).double()
    rest = torch.tensor([sum(map(busiest, cell.counted)) for cell in fitted]).double()
    measured = torch.tensor([cell.measured for cell in fitted]).double()
    units = torch.tensor([1.0] + [1 / (1e3 * H200.clock)] * 4).double()
    logs = torch.tensor(astuple(LATENCIES)).double().log().requires_grad_()
    optimizer = torch.optim.LBFGS([logs], max_iter=500, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = ((counts @ (logs.exp() * units) + rest) / measured).log().square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(step)  # type: ignore[no-untyped-call]
    return Latencies(*logs.detach().exp().tolist())


def _rows() -> Iterator[list[Cell]]:
    by_case: dict[str, list[Cell]] = {}
    for cell in cells():
        by_case.setdefault(cell.case, []).append(cell)
    yield from by_case.values()


def _text(cell: Cell) -> str:
    mark = "" if cell.is_near else " (not that form)" if cell.column == NOT_FITTED else " (!)"
    return f"{cell.modelled():.3g} / {cell.measured:.3g}{mark}"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, and the constants."""
    parser = argparse.ArgumentParser(prog="python -m bench.costs.calibration", description=__doc__)
    parser.add_argument("--fit", action="store_true", help="fit the constants anew")
    options = parser.parse_args(argv)
    out = Console()
    rows = list(_rows())
    titles = [cell.column for cell in rows[0]]
    columns = {"N, P": lambda row: row[0].case} | {
        title: (lambda row, place=place: _text(row[place])) for place, title in enumerate(titles)
    }
    print_columns(out, "microseconds on an H200, modelled / measured", columns, rows)
    counted = [cell for cell in cells() if cell.column != NOT_FITTED]
    spread = math.exp(math.sqrt(sum(math.log(cell.ratio) ** 2 for cell in counted) / len(counted)))
    near = sum(cell.is_near for cell in counted)
    out.print(
        f"within a factor of {FACTOR}: {near} of {len(counted)}; root mean square: a factor of {spread:.2f}", highlight=False
    )
    for (column, case), reason in MISSES.items():
        out.print(f"(!) {column}, {case}: {reason}", highlight=False)
    out.print(fit() if options.fit else LATENCIES, highlight=False)


if __name__ == "__main__":
    main()
