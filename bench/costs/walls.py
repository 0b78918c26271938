"""The committed costs: what every kernel did when they were last written, and how a change is told.

Counts are of PTX instructions, and some kernels are CUB's: they belong to the nvcc that the file names.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alrp_cuda.inputs import ALGORITHMS

from .counting import Figures, Pass, Passes, count, toolchain
from .inputs import Case

FILE = Path(__file__).parents[2] / "tests" / "data" / "kernel_costs.json"
COMMAND = "python -m bench --device emulated --write-costs"
RUNTIME = "runtime calls"

N, P, CLASSES = 10**5, 50, 91
LARGE = 20_000, 6000  # logits, positives: sorted by several kernels of CUB's, not by one block

Table = dict[str, dict[str, Figures]]


def cases() -> list[Case]:
    """What is held: every algorithm on both regimes and both forms of labels, and what takes other branches or kernels."""
    return [
        case
        for algorithm in ALGORITHMS
        for case in (
            *(
                Case(N, P, regime, algorithm=algorithm, classes=classes)
                for regime, classes in itertools.product(("dense", "sparse"), (0, CLASSES))
            ),
            Case(N, P, dtype="bfloat16", algorithm=algorithm),
            Case(N, P, loss="ap", algorithm=algorithm),
            Case(*LARGE, algorithm=algorithm),
        )
    ]


def as_table(passes: Passes) -> Table:
    """By pass and kernel, as the file has it."""
    return {name: {RUNTIME: one.runtime} | one.kernels for name, one in passes.items()}


def write() -> None:
    """Count every case and write the file: one line a kernel, so that a diff shows which."""
    costs = {str(case): as_table(count(case)) for case in cases()}
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(_text({**toolchain(), "written by": COMMAND, "costs": costs}) + "\n")


def committed() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content


def passes_of(table: Table) -> Passes:
    """The inverse of as_table."""
    return {
        name: Pass({kernel: figures for kernel, figures in rows.items() if kernel != RUNTIME}, rows[RUNTIME])
        for name, rows in table.items()
    }


def differences(was: Table, now: Table) -> list[str]:
    """Every counter that changed, with its kernel: was and is."""
    lines = []
    for name, kernel in _union(was, now):
        before, after = was.get(name, {}), now.get(name, {})
        if kernel not in after or kernel not in before:
            lines.append(f"{name}, {kernel}: {'is not launched any more' if kernel in before else 'is new'}")
            continue
        for counter in dict.fromkeys((*before[kernel], *after[kernel])):
            old, new = before[kernel].get(counter, 0), after[kernel].get(counter, 0)
            if old != new:
                share = f" ({100 * (new - old) / old:+.2f}%)" if old else ""
                lines.append(f"{name}, {kernel}: {counter} was {old}, is {new}{share}")
    return lines


def _union(was: Table, now: Table) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys((*was, *now)):
        for kernel in dict.fromkeys((*was.get(name, {}), *now.get(name, {}))):
            yield name, kernel


def _text(value: Any, indent: str = "") -> str:
    """JSON; objects that hold no objects stand on one line."""
    if not isinstance(value, dict) or (indent and not any(isinstance(inner, dict) for inner in value.values())):
        return json.dumps(value)
    deeper = indent + " "
    rows = (f"{deeper}{json.dumps(key)}: {_text(inner, deeper)}" for key, inner in value.items())
    return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
