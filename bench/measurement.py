"""One cell of the grid: everyone's time and memory on one case."""

from dataclasses import dataclass
from typing import Any

from .agreement import Comparison
from .cases import Case
from .contenders import Loss, steps
from .limits import loop_is_affordable, reference_is_affordable
from .memory import peak_bytes
from .timing import Timing, interleaved

CONTENDERS = ("ours", "focal", "loop", "reference", "copy")
RATIOS = (("ours", "focal"), ("loop", "ours"), ("ours", "copy"))


@dataclass(frozen=True)
class Measurement:
    """Times and peaks by contender; who was too slow is missing from both."""

    case: Case
    comparisons: list[Comparison]
    timings: dict[str, Timing]
    peaks: dict[str, int]

    def milliseconds(self, name: str) -> float | None:
        return self.timings[name].median * 1e3 if name in self.timings else None

    def ratio(self, over: str, under: str) -> float | None:
        if over not in self.timings or under not in self.timings:
            return None
        return self.timings[over].median / self.timings[under].median

    def as_json(self) -> dict[str, Any]:
        return {
            "logits": self.case.logits,
            "positives": self.case.positives,
            "median_ms": {name: self.milliseconds(name) for name in CONTENDERS},
            "ratios": {f"{over}/{under}": self.ratio(over, under) for over, under in RATIOS},
            "peak_bytes": {name: self.peaks.get(name) for name in CONTENDERS},
            "samples_ms": {name: [s * 1e3 for s in timing.samples] for name, timing in self.timings.items()},
            "calls_per_sample": {name: timing.calls for name, timing in self.timings.items()},
            "relative_l2_error": [
                {"against": c.opponent, "logits": c.case.logits, "positives": c.case.positives, **c.errors}
                for c in self.comparisons
            ],
        }


def measure(loss: Loss, case: Case, comparisons: list[Comparison], algorithm: str, repeat: int) -> Measurement:
    """Measure everyone who is fast enough."""
    problem = case.draw()
    contenders = steps(
        loss,
        problem,
        algorithm,
        reference=reference_is_affordable(case),
        loop=loop_is_affordable(loss, case, problem),
    )
    peaks = {name: peak_bytes(step, case.device) for name, step in contenders.items()}
    return Measurement(case, comparisons, interleaved(contenders, repeat, case.device), peaks)
