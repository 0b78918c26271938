"""Who is too slow, or too large, to be measured on a case."""

from .cases import Case, Problem
from .contenders import CONTENDERS, Loss, make_step
from .focal_loss import no_compiler
from .timing import seconds

# The reference holds every pair in several temporaries, a chunk at a time: about 5 ns a pair and core.
REFERENCE_PAIRS = 2 * 10**8
# Autograd keeps this many tensors of the logits' size for torchvision's Focal Loss at its peak.
FOCAL_TENSORS = 10
FOCAL_BYTES = 8 * 10**9
# What a call may take of a contender that visits every pair, unless told otherwise.
CALL_SECONDS = 20.0
# With how many positives such a call is tried, beside one. The tiled kernels take positives in blocks.
PROBE_POSITIVES = {"tiled": 65, "loop": 5}


def affordable(loss: Loss, case: Case, problem: Problem, call_seconds: float = CALL_SECONDS) -> list[str]:
    """The contenders to measure."""
    left_out = {
        "focal": case.logits * case.dtype.itemsize * FOCAL_TENSORS > FOCAL_BYTES,
        "compiled focal": no_compiler(case.device.type) is not None,
        "reference": case.pairs > REFERENCE_PAIRS,
        **{name: _expected_seconds(name, loss, case, problem) > call_seconds for name in PROBE_POSITIVES},
    }
    return [name for name in CONTENDERS if not left_out.get(name)]


def _expected_seconds(name: str, loss: Loss, case: Case, problem: Problem) -> float:
    """What a call would take, told from one and from a few positives over the same negatives."""
    flat = problem.with_flat_labels()
    one, few = (flat.with_fewer_positives(count) for count in (1, PROBE_POSITIVES[name]))
    one_step, few_step = (make_step(name, loss, probe, "auto") for probe in (one, few))
    one_step()
    alone, together = seconds(one_step, 1, case.device), seconds(few_step, 1, case.device)
    each = max(0.0, together - alone) / max(1, few.positives - one.positives)
    # A positive is compared with the other positives too.
    return alone + each * case.positives * (1 + case.positives / case.logits)
