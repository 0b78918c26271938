"""The cases of the default run, and what ours may take on them of an opponent's time."""

from dataclasses import dataclass, replace

import torch

from .cases import Case

Bounds = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Goal:
    """One case under the name of its regime, and what ratios of two times, whose over whose, may be at most."""

    regime: str
    case: Case
    bounds: Bounds


def _goal(regime: str, logits: int, positives: int, *, eager: float, compiled: float, scores: str, classes: int = 0) -> Goal:
    bounds = {("ours", "focal"): eager, ("ours", "compiled focal"): compiled}
    return Goal(regime, Case(logits, positives, scores, torch.float32, torch.device("cpu"), classes), bounds)


# With class indices: RetinaNet's 9 anchors a place on P3 to P7 of an image of 512 x 512 pixels, and torchvision's 91 classes.
GOALS = (
    _goal("dense", 10**6, 500, eager=0.15, compiled=0.35, scores="dense"),
    _goal("dense", 10**6, 2000, eager=0.18, compiled=0.40, scores="dense"),
    _goal("dense", 49_104 * 91, 172, eager=0.09, compiled=0.30, scores="dense", classes=91),
    _goal("sparse", 10**7, 2000, eager=0.05, compiled=0.12, scores="sparse"),
    _goal("small", 10**4, 50, eager=0.55, compiled=0.85, scores="dense"),
)


def goal_of(case: Case) -> Goal | None:
    """The goal that a case is drawn as, whatever its dtype and device."""
    return next((goal for goal in GOALS if replace(case, dtype=goal.case.dtype, device=goal.case.device) == goal.case), None)


def bounds_of(loss: str, case: Case) -> Bounds:
    """The bounds that hold for a loss on a case: for aLRP, on the CPU, at float32."""
    goal = goal_of(case)
    return goal.bounds if goal is not None and goal.case == case and loss == "alrp" else {}
