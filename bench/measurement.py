"""One loss on one case: whether it is right, and everyone's time and memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from .agreement import Comparison, check
from .cases import Case, Problem
from .contenders import CONTENDERS, LOSSES, WAITING_FOR_NOTHING, make_steps
from .goals import bounds_of, goal_of
from .limits import CALL_SECONDS, affordable
from .memory import peak_bytes
from .timing import Timing, interleaved, replayed

RATIOS = (("ours", "focal"), ("ours", "compiled focal"), ("ours", "floor"))


class Disagreement(Exception):
    """Ours is not what the reference or the loop says: nothing to be timed."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True)
class Measurement:
    """Times and peaks by contender; who was left out is missing from both. ``loss`` is a key of LOSSES. ``floor_bytes`` are
    those of the problem. ``replays``: times of a CUDA device alone, by contender, empty on other devices."""

    loss: str
    case: Case
    floor_bytes: int
    comparisons: list[Comparison]
    timings: dict[str, Timing]
    peaks: dict[str, int]
    replays: dict[str, Timing] = field(default_factory=dict)

    @property
    def regime(self) -> str:
        """The regime as the tables name it."""
        goal = goal_of(self.case)
        return goal.regime if goal else self.case.regime

    def milliseconds(self, name: str, *, alone: bool = False) -> float | None:
        """A contender's median, or the "floor": its bytes at the rate of the copy, which reads and writes the logits;
        ``alone``: of the device alone."""
        timings = self.replays if alone else self.timings
        if name == "floor" and "copy" in timings:
            copied = 2 * self.case.logits * self.case.dtype.itemsize
            return timings["copy"].median * 1e3 * self.floor_bytes / copied
        return timings[name].median * 1e3 if name in timings else None

    @property
    def nanoseconds_a_logit(self) -> float:
        return self.timings["ours"].median * 1e9 / self.case.logits

    def ratio(self, over: str, under: str, *, alone: bool = False) -> float | None:
        above, below = (self.milliseconds(name, alone=alone) for name in (over, under))
        return None if above is None or below is None else above / below

    def is_met(self, over: str, under: str) -> bool | None:
        """Whether a ratio is within its bound; None where it has none."""
        bound, ratio = bounds_of(self.loss, self.case).get((over, under)), self.ratio(over, under)
        return None if bound is None or ratio is None else ratio <= bound

    def as_json(self) -> dict[str, Any]:
        return {
            "loss": self.loss,
            "regime": self.regime,
            "logits": self.case.logits,
            "positives": self.case.positives,
            "classes": self.case.classes,
            "floor_bytes": self.floor_bytes,
            "median_ms": {name: self.milliseconds(name) for name in (*CONTENDERS, "floor")},
            "ratios": {f"{over}/{under}": self.ratio(over, under) for over, under in RATIOS},
            "bounds": {
                f"{over}/{under}": {"at most": bound, "met": self.is_met(over, under)}
                for (over, under), bound in bounds_of(self.loss, self.case).items()
            },
            "replayed_median_ms": {name: self.milliseconds(name, alone=True) for name in (*WAITING_FOR_NOTHING, "floor")},
            "peak_bytes": {name: self.peaks.get(name) for name in CONTENDERS},
            "samples_ms": {name: [s * 1e3 for s in timing.samples] for name, timing in self.timings.items()},
            "calls_per_sample": {name: timing.calls for name, timing in self.timings.items()},
            "relative_l2_error": [
                {"against": c.opponent, "logits": c.case.logits, "positives": c.case.positives, **c.errors}
                for c in self.comparisons
            ],
        }


def measure(
    name: str,
    case: Case,
    problem: Problem,
    algorithm: str,
    repeat: int,
    tell: Callable[[str], None],
    call_seconds: float = CALL_SECONDS,
) -> Measurement:
    """Check the loss of that name, then measure everyone who can be; ``tell`` hears of each stage.

    Raises:
        Disagreement: the check failed.
    """
    loss = LOSSES[name]
    problem = loss.labelled(problem)
    tell("checking")
    contenders = affordable(loss, case, problem, call_seconds)
    comparisons = check(loss, case, problem, algorithm, loop="loop" in contenders)
    disagreements = [f"{loss.title}, {line}" for comparison in comparisons for line in comparison.disagreements]
    if disagreements:
        raise Disagreement(disagreements)
    tell("compiling")
    steps = make_steps(contenders, loss, problem, algorithm)
    tell("weighing")
    peaks = {name: peak_bytes(step, case.device) for name, step in steps.items()}
    tell("timing")
    replays = {}
    with torch.compiler.set_stance("fail_on_recompile"):  # nothing is compiled while the clock runs
        timings = interleaved(steps, repeat, case.device)
        if case.device.type == "cuda":
            graphs = {name: replayed(step, case.device) for name, step in steps.items() if name in WAITING_FOR_NOTHING}
            replays = interleaved(graphs, repeat, case.device)
    return Measurement(name, case, problem.floor_bytes, comparisons, timings, peaks, replays)
