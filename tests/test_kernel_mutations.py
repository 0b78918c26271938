"""Faults planted in copies of the kernels: a quick selection of the suite reports each, and nothing where none is planted."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import test_edges
import test_errors
import test_framework
import test_launches
import test_lists
import test_schedules
import torch
from cases import Case, Labels, expected
from compare import assert_same_loss
from emulated import CSRC, SOURCES, EmulatedDevice
from emulator import Schedule, missing_requirement
from implementations import LOSSES, RANKING, Fast, evaluate
from listed import LARGE, Listed
from mutations import MUTATIONS

pytestmark = pytest.mark.skipif(bool(missing_requirement()), reason=f"emulated device: {missing_requirement()}")

# A fault may make a loop endless: few back edges are enough for these sizes.
SCHEDULES = [
    Schedule(order="reverse", races="all", count_warps=False, loop_limit=1 << 20),
    Schedule(order="random", seed=1, resident=4, races="shared", count_warps=False, loop_limit=1 << 20),
]

CASES = [
    Case((257, 30), Labels(torch.int32, 5), dtype=torch.float16),
    Case((300, 257), Labels(torch.int8), dtype=torch.float64, errors_dtype=torch.float64, scale="ties"),
    Case((17000, 5), Labels(torch.uint8), delta=0.0),
    Case((290, 31), Labels(torch.int64), scale="infinite"),
    Case((40, 1600), Labels(torch.int16)),  # more knots than a block sums in one run
    # Clusters of several scores, and of ties, over several warps and blocks.
    Case((200, 900), Labels(torch.int32), delta=1e-3, dtype=torch.float64),
    Case((200, 900), Labels(torch.int32), delta=0.0, scale="ties"),
    # More than a tile of logits: with ignored ones, without any, most between the same two knots, and above all knots.
    Case((9000, 40), Labels(torch.int8)),
    Case((9000, 40), Labels(torch.uint8), dtype=torch.bfloat16),
    Case((9000, 5), Labels(torch.int64, 8), delta=10.0),
    Case((9000, 300), Labels(torch.int64, 5)),  # rows that one block adds and another takes out
    Case((9000, 3), Labels(torch.uint8), delta=1000.0, scale="far"),
]


def numbers(losses: Fast, case: Case, name: str) -> None:
    data = case.build()
    got = evaluate(LOSSES[name], losses, data.logits, data.targets, data.loc_errors, **data.options)
    assert_same_loss(got, expected(case, name), case.dtype, data.positive)
    if losses.choice["algorithm"] == "tiled":  # the sorted form rounds its P-sized sums in other orders on the two
        test_schedules.assert_as_on_the_cpu(got, case, name)


def levels(losses: Fast, case: Listed) -> None:
    test_lists.assert_as_joined(LOSSES["alrp"], losses, case.build())


def zeros_of_both_signs(losses: Fast) -> None:
    """They tie, so that the hard order goes by index."""
    logits, labels, errors = (
        torch.tensor([-0.0, 0.0, 0.0, -0.0, 1.0]),
        torch.tensor([1, 1, 0, 1, 0]),
        torch.tensor([0.1, 0.4, 0.8]),
    )
    got = evaluate(LOSSES["alrp_hard"], losses, logits, labels, errors, delta=0.0)
    want = evaluate(LOSSES["alrp_hard"], losses, logits.abs(), labels, errors, delta=0.0)
    test_schedules.assert_same_bits(got, want, "that of zeros of one sign")


def nan_everywhere(losses: Fast) -> None:
    """Many threads report it."""
    logits, labels = torch.full((600,), float("nan")), torch.zeros(600, dtype=torch.int64)
    labels[3] = 1
    got = evaluate(LOSSES["ap"], losses, logits, labels, torch.zeros(1))
    assert all(value.isnan().all() for value in got.values())


def many_more_positives_than_told(losses: Fast) -> None:
    labels = torch.ones(9000, dtype=torch.uint8)
    got = losses.alrp_loss(torch.zeros(9000), labels, torch.zeros(1))
    assert got.cls.isnan()


def positives_told_of_which_none_are(losses: Fast) -> None:
    logits = torch.zeros(5, requires_grad=True)
    loss = losses.ap_loss(logits, torch.zeros(5, dtype=torch.int64), num_positives=300)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isnan()
    assert gradient.isnan().all()


def skewed(losses: Fast) -> None:
    if losses.choice["algorithm"] == "tiled":
        test_framework.assert_pair_by_pair(losses, delta=1.0, skew=2.0)


def continuous_labels_told_of_which_none_are(losses: Fast) -> None:
    logits = torch.zeros(5, requires_grad=True)
    out = losses.rank_sort_loss(logits, torch.zeros(5), num_positives=300)
    (gradient,) = torch.autograd.grad(out.rank + out.sort, logits)
    assert out.rank.isnan()
    assert out.sort.isnan()
    assert gradient.isnan().all()


part = functools.partial
nan = part(test_edges.test_nan_score_makes_everything_nan, loss=LOSSES["alrp"], delta=1.0, dtype=torch.float32)
CHECKS: list[Callable[[Fast], None]] = [
    *(part(numbers, case=case, name=name) for case in CASES for name in LOSSES),
    *(part(levels, case=case) for case in (*LARGE, Listed((900, 60), levels="tiny"))),
    *(part(nan, where=k) for k in (0, 1)),
    part(nan, where=1, dtype=torch.float64),
    *(part(test_edges.test_few_false_positives_send_no_gradient, loss=loss) for loss in RANKING.values()),
    *(part(test_edges.test_infinite_error_reaches_only_what_ranks_with_it, name=name) for name in ("alrp", "alrp_hard")),
    part(test_edges.test_infinite_scores_rank_as_infinite_and_tie_with_their_like, delta=1.0),
    test_edges.test_hard_order_breaks_ties_by_flat_index,
    *(part(test_framework.test_named_losses_are_forms_of_the_framework, name="alrp", case=case) for case in CASES),
    skewed,
    test_edges.test_few_false_positives_and_few_lower_positives_send_no_gradient,
    part(test_edges.test_nan_score_makes_everything_nan, loss=LOSSES["rank_sort"], delta=1.0, dtype=torch.float32, where=0),
    continuous_labels_told_of_which_none_are,
    zeros_of_both_signs,
    nan_everywhere,
    many_more_positives_than_told,
    positives_told_of_which_none_are,
    *(part(test_errors.test_wrong_number_of_positives_is_named, targets=test_errors.FLAT, count=count) for count in (1, 3, 1000)),
    test_errors.test_impossible_label_is_named_where_positives_are_counted,
    part(test_errors.test_impossible_label_makes_gradients_nan_where_it_cannot_raise, loss=LOSSES["ap"]),
]
FAR_CHECKS: list[Callable[..., None]] = [
    part(test_launches.test_gradients_beyond_two_to_the_31, dtype=torch.float16, targets_dtype=torch.int8, classes=0),
    part(test_launches.test_gradients_beyond_two_to_the_31, dtype=torch.bfloat16, targets_dtype=torch.int32, classes=8),
    part(test_launches.test_count_beyond_two_to_the_31, dtype=torch.float16, targets_dtype=torch.int8),
    test_launches.test_positives_beyond_two_to_the_31,
    part(test_launches.test_more_than_a_grid_holds_is_refused, n=2**40 + 256),
]


def selection(sources: Sequence[Path], algorithm: str) -> int:
    """Raises at the first thing that is wrong; returns how many checks have passed."""
    passed = 0
    for schedule in SCHEDULES:
        losses = Fast(EmulatedDevice(schedule=schedule, sources=sources), algorithm)
        for check in CHECKS:
            check(losses)
            passed += 1
    for check in FAR_CHECKS if algorithm == "tiled" else ():
        check(sources=sources)
        passed += 1
    return passed


# A few of every kind, that compile quickly: CUB's kernels are in positives.cu.
QUICK = {
    "no barrier after a tile is stored",
    "no barrier before the next tile",
    "one positive too many is written",
    "shared memory of a tile is one short",
    "logits are counted in 32 bits",
    "shares are sent at eps",
    "status is raised without an atomic",
    "the default stream",
    "sorted: no barrier before the tables are read",
    "sorted: the positive's own weight is forgotten",
}
assert MUTATIONS.keys() >= QUICK


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["tiled", "sorted"])
def test_nothing_is_reported_where_no_fault_is_planted(algorithm):
    expected_checks = len(SCHEDULES) * len(CHECKS) + (len(FAR_CHECKS) if algorithm == "tiled" else 0)
    assert selection(SOURCES, algorithm) == expected_checks


@pytest.mark.parametrize("name", MUTATIONS)
def test_fault_has_its_place(name):
    mutation = MUTATIONS[name]
    assert (CSRC / mutation.file).read_text().count(mutation.old) == 1
    assert mutation.old != mutation.new


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.full]) for n in MUTATIONS])
def test_fault_is_reported(name):
    # Wrong numbers, a broken rule of the device, a call that fails: all that the suite would stop at.
    with pytest.raises((AssertionError, RuntimeError, ValueError, pytest.fail.Exception)) as report:
        selection(MUTATIONS[name].sources(), MUTATIONS[name].algorithm)
    # The compiler refuses a fault that makes no sense: nothing would have been planted.
    assert not any(tool in str(report.value) for tool in ("nvcc failed", "g++ failed", "link failed")), report.value
    print(f"{name}: {type(report.value).__name__}: {str(report.value)[:300]}")
