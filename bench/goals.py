"""The cases of the default run, and the ratios that ours is held to on them."""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from .cases import Case


@dataclass(frozen=True)
class Bound:
    """What a ratio of two times may be."""

    kind: Literal["at most", "at least"]
    limit: float

    def is_met(self, ratio: float) -> bool:
        return ratio <= self.limit if self.kind == "at most" else ratio >= self.limit


@dataclass(frozen=True)
class Goal:
    """One case under the name of its regime, and its bounds by ratio: whose time over whose."""

    regime: str
    case: Case
    bounds: dict[tuple[str, str], Bound]


def _goal(regime: str, logits: int, positives: int, *, focal: float, loop: float, scores: str, classes: int = 0) -> Goal:
    bounds = {("ours", "focal"): Bound("at most", focal), ("loop", "ours"): Bound("at least", loop)}
    return Goal(regime, Case(logits, positives, scores, torch.float32, torch.device("cpu"), classes), bounds)


# With class indices: RetinaNet's 9 anchors a place on P3 to P7 of an image of 512 x 512 pixels, and torchvision's 91 classes.
GOALS = (
    _goal("dense", 10**6, 500, focal=0.15, loop=300, scores="dense"),
    _goal("dense", 10**6, 2000, focal=0.18, loop=500, scores="dense"),
    _goal("dense", 49_104 * 91, 172, focal=0.12, loop=600, scores="dense", classes=91),
    _goal("sparse", 10**7, 2000, focal=0.05, loop=60, scores="sparse"),
    _goal("small", 10**4, 50, focal=0.6, loop=30, scores="dense"),
)


def goal_of(case: Case) -> Goal | None:
    """The goal that a case is drawn as, whatever its dtype and device."""
    return next((goal for goal in GOALS if replace(case, dtype=goal.case.dtype, device=goal.case.device) == goal.case), None)


def bounds_of(loss: str, case: Case) -> dict[tuple[str, str], Bound]:
    """The bounds that hold for a loss on a case: for aLRP, on the CPU, at float32."""
    goal = goal_of(case)
    return goal.bounds if goal is not None and goal.case == case and loss == "alrp" else {}
