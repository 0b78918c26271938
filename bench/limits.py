"""Who is too slow, or too large, to be measured on a case."""

from .cases import Case, Problem
from .contenders import CONTENDERS, Loss, make_step
from .goals import goal_of
from .timing import seconds

# The reference holds every pair in several temporaries, a chunk at a time: about 5 ns a pair and core.
REFERENCE_PAIRS = 2 * 10**8
# Autograd keeps this many tensors of the logits' size for torchvision's Focal Loss at its peak.
FOCAL_TENSORS = 10
FOCAL_BYTES = 8 * 10**9
# What a call may take of a contender that visits every pair.
CALL_SECONDS = 20.0
# With how many positives such a call is tried, beside one. The tiled kernels take positives in blocks.
PROBE_POSITIVES = {"tiled": 65, "loop": 5}


def affordable(loss: Loss, case: Case, problem: Problem) -> list[str]:
    """The contenders to measure. On the cases of the default run that is everyone who has a part in its ratios."""
    held = goal_of(case) is not None
    left_out = {
        "focal": not held and case.logits * case.dtype.itemsize * FOCAL_TENSORS > FOCAL_BYTES,
        "reference": case.pairs > REFERENCE_PAIRS,
        "tiled": not held and not _ends_in_time("tiled", loss, case, problem),
        "loop": not held and not _ends_in_time("loop", loss, case, problem),
    }
    return [name for name in CONTENDERS if not left_out.get(name)]


def _ends_in_time(name: str, loss: Loss, case: Case, problem: Problem) -> bool:
    """Whether a call would, told from one and from a few positives over the same negatives."""
    flat = problem.with_flat_labels()
    one, few = (flat.with_fewer_positives(count) for count in (1, PROBE_POSITIVES[name]))
    one_step, few_step = (make_step(name, loss, probe, "auto") for probe in (one, few))
    one_step()
    alone, together = seconds(one_step, 1, case.device), seconds(few_step, 1, case.device)
    each = max(0.0, together - alone) / max(1, few.positives - one.positives)
    # A positive is compared with the other positives too.
    return alone + each * case.positives * (1 + case.positives / case.logits) <= CALL_SECONDS
