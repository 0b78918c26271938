"""``python -m bench``: check, measure, print."""

import json
import shlex
import sys
from argparse import Namespace

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from . import levels
from .allocator import warm_up
from .cases import Case
from .contenders import LOSSES
from .focal_loss import no_compiler
from .machine import heading
from .measurement import Disagreement, Measurement, measure
from .options import parse
from .report import print_heading, print_tables
from .selection import selected


def main(argv: list[str]) -> int:
    """Run the benchmark; returns the exit status."""
    options = parse(argv)
    command = shlex.join(["python", "-m", "bench", *argv])
    if options.device == "emulated":
        from .costs.command import run  # the only part that knows of the tests

        return run(options, command)
    out, err = Console(), Console(stderr=True)
    about = heading(torch.device(options.device), options.dtype, command)
    print_heading(out, about)
    if options.world is not None:
        from . import world  # torch.distributed is slow to import and only needed here

        return world.run(options, out)
    if options.levels:
        return levels.run(options, out)
    warm_up()
    if reason := no_compiler(options.device):
        err.print(f"no compiler: {reason}", style="red", soft_wrap=True, highlight=False, markup=False)
    try:
        measurements = measure_all(options, err)
    except Disagreement as error:
        for line in error.lines:
            err.print(f"disagreement: {line}", style="red", soft_wrap=True, highlight=False)
        return 1

    by_loss = {LOSSES[name].title: [m for m in measurements if m.loss == name] for name in options.losses}
    for title, rows in by_loss.items():
        print_tables(out, title, rows, options.repeat)
    if options.json:
        cells = [measurement.as_json() for measurement in measurements]
        options.json.write_text(json.dumps({"heading": about, "cells": cells}, indent=1) + "\n")
    if options.plot:
        from .plot import save  # matplotlib is slow to import and only needed here

        save(options.plot, by_loss, f"{options.dtype}, {options.device}")
    return 0


def measure_all(options: Namespace, console: Console) -> list[Measurement]:
    """Every loss on every case, with a progress bar where the console is a terminal."""
    cases = selected(options)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    # Refreshed by hand: the bar's thread would take part in the timings.
    quiet = not console.is_terminal
    with Progress(*columns, console=console, auto_refresh=False, transient=True, disable=quiet) as progress:
        bar = progress.add_task("", total=len(cases) * len(options.losses))
        return [measurement for case in cases for measurement in measure_case(options, case, progress, bar)]


def measure_case(options: Namespace, case: Case, progress: Progress, bar: TaskID) -> list[Measurement]:
    """Every loss on one case, whose tensors are gone when it returns."""

    def tell(what: str) -> None:
        progress.update(bar, description=f"{what}: {case}")
        progress.refresh()

    tell("drawing")
    problem = case.draw()
    measurements = []
    for name in options.losses:
        how = options.algorithm, options.repeat, tell, options.call_seconds
        measurements.append(measure(name, case, problem, *how))
        progress.advance(bar)
    return measurements


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
