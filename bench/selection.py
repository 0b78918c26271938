"""Which cases a run measures."""

from argparse import Namespace
from dataclasses import replace

import torch

from .cases import DTYPES, Case
from .goals import GOALS

# N and P of the cases that show how the cost grows: over N at one P, then over P at one N.
SCALING = (
    *((logits, 1000) for logits in (10**4, 10**5, 10**6, 10**7, 10**8)),
    *((10**7, positives) for positives in (1, 10, 100, 10**4, 10**5)),
)


def selected(options: Namespace) -> list[Case]:
    """The cases of ``--scaling``, of the grid that was asked for (or ``--detector``'s), or of the default run."""
    dtype, device = DTYPES[options.dtype], torch.device(options.device)
    if options.scaling:
        return [Case(logits, positives, options.regime, dtype, device) for logits, positives in SCALING]
    if not options.own_cases:
        return [replace(goal.case, dtype=dtype, device=device) for goal in GOALS]
    grid = [
        Case(logits, positives, options.regime, dtype, device, options.classes)
        for logits in options.logits
        for positives in options.positives
    ]
    return [case for case in grid if case.positives <= case.labels]
