"""``python -m bench --device emulated``."""

import argparse
import json

from rich.console import Console
from rich.live import Live

from ..report import print_heading
from . import walls
from .counting import MissingRequirement, count, toolchain
from .inputs import Case
from .latency import microseconds
from .report import print_chains, print_costs, print_model
from .roofline import GPUS, floor_microseconds, times

WAIT = "the first run after a change of csrc/cuda compiles its kernels: about 2 minutes"


def run(options: argparse.Namespace, command: str) -> int:
    """Count, print; returns the exit status."""
    out, progress = Console(), Console(stderr=True)
    try:
        tools = toolchain()
    except MissingRequirement as error:
        progress.print(f"--device emulated: {error}", style="red", soft_wrap=True, highlight=False)
        return 1
    with Live(console=progress, auto_refresh=False, transient=True) as live:
        if options.write_costs:
            live.update(f"counting the cases of {walls.FILE.name} ({WAIT})", refresh=True)
            walls.write()
            progress.print(f"wrote {walls.FILE}", highlight=False)
            return 0
        cases = [
            Case(logits, positives, options.regime, options.dtype, loss, options.algorithm, options.classes)
            for loss in options.losses
            for logits in options.logits
            for positives in options.positives
            if positives <= logits // (options.classes or 1)
        ]
        counted = []
        for case in cases:
            live.update(f"counting {case} ({WAIT})", refresh=True)
            counted.append((case, count(case)))
    about = {
        "counted": f"csrc/cuda as compiled by nvcc {tools['nvcc']} for {tools['target']}, run on the emulated device",
        "command": command,
    }
    print_heading(out, about)
    print_model(out)
    for case, passes in counted:
        print_costs(out, case, passes)
        print_chains(out, case, passes)
    if options.json:
        names = [gpu.name for gpu in GPUS]
        cells = [
            {
                **vars(case),
                "passes": walls.as_table(passes),
                "modelled_us": dict(zip(names, times(passes), strict=True)),
                "h200_us": sum(microseconds(figures) for one in passes.values() for figures in one.kernels.values()),
                "floor_us": dict(zip(names, floor_microseconds(case, passes), strict=True)),
            }
            for case, passes in counted
        ]
        options.json.write_text(json.dumps({"heading": about, "cells": cells}, indent=1) + "\n")
    return 0
