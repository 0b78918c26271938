"""``python -m bench``: check, measure, print."""

import json
import shlex
import sys

import torch
from rich.console import Console
from rich.live import Live

from .agreement import check
from .cases import DTYPES, Case
from .contenders import LOSSES
from .machine import heading
from .measurement import measure
from .options import parse
from .report import print_heading, print_tables


def main(argv: list[str]) -> int:
    """Run the benchmark; returns the exit status."""
    options = parse(argv)
    command = shlex.join(["python", "-m", "bench", *argv])
    if options.device == "emulated":
        from .costs.command import run  # the only part that knows of the tests

        return run(options, command)
    loss, device = LOSSES[options.loss], torch.device(options.device)
    cases = [
        Case(logits, positives, options.regime, DTYPES[options.dtype], device)
        for logits in options.logits
        for positives in options.positives
        if positives <= logits
    ]
    out, progress = Console(), Console(stderr=True)
    about = heading(loss.title, device, options.dtype, options.regime, command)
    print_heading(out, about)

    # Refreshed by hand: a spinner's thread would take part in the timings.
    with Live(console=progress, auto_refresh=False, transient=True) as live:
        comparisons = []
        for case in cases:
            live.update(f"checking {case}", refresh=True)
            comparisons.append(check(loss, case, options.algorithm))
        disagreements = [line for cell in comparisons for comparison in cell for line in comparison.disagreements]
        if disagreements:
            for line in disagreements:
                progress.print(f"disagreement: {line}", style="red", soft_wrap=True, highlight=False)
            return 1
        measurements = []
        for case, compared in zip(cases, comparisons, strict=True):
            live.update(f"measuring {case}", refresh=True)
            measurements.append(measure(loss, case, compared, options.algorithm, options.repeat))

    print_tables(out, measurements, options.repeat)
    if options.json:
        cells = [measurement.as_json() for measurement in measurements]
        options.json.write_text(json.dumps({"heading": about, "cells": cells}, indent=1) + "\n")
    if options.plot:
        from .plot import save  # matplotlib is slow to import and only needed here

        save(options.plot, measurements, f"{loss.title}: {options.regime} scores, {options.dtype}, {options.device}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
