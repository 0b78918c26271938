"""What is too slow to be measured."""

from .cases import Case, Problem
from .contenders import Loss, training_step
from .timing import seconds

# The reference holds every pair in several temporaries, a chunk at a time: about 5 ns a pair and core.
REFERENCE_PAIRS = 2 * 10**8
LOOP_SECONDS = 20.0
# Turns of the loop from which its whole time is told.
PROBE_TURNS = 16


def reference_is_affordable(case: Case) -> bool:
    return case.pairs <= REFERENCE_PAIRS


def loop_is_affordable(loss: Loss, case: Case, problem: Problem) -> bool:
    """Whether the loop would end in time, told from a few turns over the same negatives."""
    turns = min(case.positives, PROBE_TURNS)
    step = training_step(loss, loss.loop, problem.with_fewer_positives(turns))
    step()
    a_turn = seconds(step, 1, case.device) / turns
    return a_turn * case.positives * (1 + case.positives / case.logits) <= LOOP_SECONDS
