"""What the sorted form costs on a device, by the emulated device's counters: launches, synchronisations, traffic, instructions.

Cost per logit is measured at two sizes and told apart from cost per call: the streaming kernels do the same for every logit,
whatever their number, and the rest depends on the positives alone. So the line through both sizes gives the cost at 1e6.
"""

from functools import cache

import pytest
import torch
from emulated import EmulatedDevice
from emulator import Schedule, missing_requirement
from implementations import Fast, continuous

from bench.costs.inputs import Case

pytestmark = pytest.mark.skipif(bool(missing_requirement()), reason=f"emulated device: {missing_requirement()}")

SMALL, LARGE, TARGET = 131_072, 262_144, 1_000_000  # each fills the emulated device


@cache
def device():
    return EmulatedDevice(schedule=Schedule())


def problem(regime, n, p):
    """Of the benchmark's regimes, or "crowded": an untrained network's scores, all between the same two knots."""
    drawn = Case(n, p, "dense" if regime == "crowded" else regime).draw()
    scores = drawn.logits.detach()
    if regime == "crowded":
        scores = 0.1 * torch.randn(n, generator=torch.Generator().manual_seed(0)) - 4.6
    return scores, drawn.targets, drawn.loc_errors.detach()


@cache
def passes(regime, n, p):
    """The sessions of forward and backward."""
    device().sessions.clear()
    scores, labels, errors = problem(regime, n, p)
    output = Fast(device(), "sorted").alrp_loss(scores.requires_grad_(), labels, errors.requires_grad_())
    (output.cls + output.loc).backward()
    forward, backward = device().sessions
    return forward, backward


def test_rank_and_sort_waits_for_nothing():
    device().sessions.clear()
    scores, labels, errors = problem("dense", 16_384, 500)
    targets = continuous(scores, labels, errors)
    out = Fast(device(), "auto").rank_sort_loss(scores.requires_grad_(), targets, num_positives=500)
    (out.rank + out.sort).backward()
    forward, backward = device().sessions
    assert forward.counters.launches + forward.counters.memsets <= 9
    assert backward.counters.launches + backward.counters.memsets <= 2
    for session in (forward, backward):
        assert session.counters.host_syncs == session.counters.allocations == session.counters.copies == 0


def test_limits_of_kernels_are_set_once_whatever_the_number_of_positives():
    # Set before every launch to what it needs, another thread could lower them in between.
    first = [passes("dense", 16_384, p) for p in (1, 500)]
    later = [passes("dense", 16_384, p) for p in (100, 2000)]
    assert all(session.counters.limits_set == 0 for both in later for session in both), first


# Beyond a block's positives CUB selects and sorts, and asks once for each.
@pytest.mark.parametrize(("p", "by_cub"), [(500, 0), pytest.param(8200, 2, marks=pytest.mark.slow)])
def test_the_device_is_asked_nothing_after_the_first_call(p, by_cub):
    passes("dense", 15_000, p)
    forward, backward = passes("dense", 16_000, p)  # of the same power of two
    assert (forward.counters.queries, backward.counters.queries) == (by_cub, 0)


def at_target(regime, p, count):
    """``count(session)`` of both passes together, per logit, at TARGET logits."""
    small, large = (sum(map(count, passes(regime, n, p))) for n in (SMALL, LARGE))
    slope = (large - small) / (LARGE - SMALL)
    return slope + (large - slope * LARGE) / TARGET


@pytest.mark.parametrize("p", [1, 500, pytest.param(8192, marks=pytest.mark.full)])
def test_a_step_takes_few_launches_and_no_synchronisation(p):
    forward, backward = passes("dense", 16_384, p)
    assert forward.counters.launches + forward.counters.memsets <= 6
    assert backward.counters.launches + backward.counters.memsets <= 2
    for session in (forward, backward):
        assert session.counters.host_syncs == session.counters.allocations == session.counters.copies == 0


ON_POSITIVES = "rank_positives", "build_tables", "compute_losses", "scatter_gradients"


def instructions(session, *, on_positives):
    """Of the kernels that visit positives alone, or of those that visit logits."""
    kernels = session.kernel_counters.items()
    return sum(c.thread_instructions for name, c in kernels if name.endswith(ON_POSITIVES) == on_positives)


@pytest.mark.parametrize(("regime", "most"), [("dense", 48), ("sparse", 11.5)])
def test_a_logit_takes_few_instructions(regime, most):
    assert at_target(regime, 500, lambda session: instructions(session, on_positives=False)) <= most


@pytest.mark.parametrize(("p", "most"), [(500, 12_000), (2000, 22_500)])
def test_a_positive_takes_few_instructions(p, most):
    """Those that compare it with all others among them, seven each."""
    assert sum(instructions(session, on_positives=True) for session in passes("dense", SMALL, p)) <= most * p


def test_a_load_of_a_positive_serves_four_comparisons():
    """16 bytes for four pairs, and what does not grow with pairs. They come from caches: the list has 16 bytes a positive."""
    forward, _ = passes("dense", SMALL, 2000)
    (ranked,) = (counters for name, counters in forward.kernel_counters.items() if name.endswith("rank_positives"))
    assert 32 * ranked.global_sectors_read <= 4.1 * 2000**2


@pytest.mark.parametrize("regime", ["dense", "sparse"])
def test_memory_traffic_is_near_the_floor(regime):
    def traffic(session):
        return 32 * (session.counters.global_sectors_read + session.counters.global_sectors_written)

    # Logits twice, gradient once, and labels of one byte once a pass. Without ignored labels the streams read none.
    assert at_target(regime, 500, traffic) <= 1.15 * (4 + 4 + 4 + 2)


# Sizes are n and 2 n: with few logits, blocks leave some of their bins empty, and the line through both is too steep.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "classes", "ignored_rows", "n", "most"),
    [
        ("float32", 80, 0, 1_500_000, 12.8),
        ("float32", 80, 0.1, 1_500_000, 13.8),
        ("float32", 0, 0, 262_144, 14.2),
        ("bfloat16", 80, 0, 524_288, 6.8),
        ("bfloat16", 0, 0, 262_144, 8.2),
    ],
)
def test_streams_read_no_labels(dtype, classes, ignored_rows, n, most):
    def traffic(n):
        """Of a step on about n logits, those of atomics both ways; rank_positives apart, which reads its list alone."""
        problem = Case(n, 2000, "dense", dtype, classes=classes).draw()
        logits, targets, errors = problem.logits.detach(), problem.targets, problem.loc_errors.detach()
        if ignored_rows:
            targets[(torch.arange(len(targets)) % round(1 / ignored_rows) == 0) & (targets == classes)] = -1
        device().sessions.clear()
        output = Fast(device(), "sorted").alrp_loss(logits.requires_grad_(), targets, errors.requires_grad_())
        (output.cls + output.loc).backward()
        kernels = (kernel for session in device().sessions for kernel in session.kernel_counters.items())
        each = [counters for name, counters in kernels if not name.endswith("rank_positives")]
        return sum(32 * (c.global_sectors_read + c.global_sectors_written + 2 * c.global_sectors_atomic) for c in each)

    small, large = traffic(n), traffic(2 * n)
    slope = (large - small) / n
    assert slope + (large - slope * 2 * n) / 10**7 <= most


def test_maps_are_streamed_at_once_as_they_lie():
    """Two launches more than one tensor takes, which write the tables of maps; nearly its traffic and its instructions."""
    sides, images, anchors, classes = (64, 32, 16, 8, 4), 4, 3, 16
    rows = images * anchors * sum(side * side for side in sides)
    drawn = Case(rows * classes, 200, "dense", "float32", classes=classes).draw()
    counts = [images * side * side * anchors for side in sides]

    def levels(tensor):
        parts = zip(tensor.split_with_sizes(counts), sides, strict=True)
        return [part.reshape(images, side, side, anchors, *part.shape[1:]) for part, side in parts]

    maps = [part.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2) for part in levels(drawn.logits.detach())]

    def step(logits, targets, leaves):
        device().sessions.clear()
        errors = drawn.loc_errors.detach().requires_grad_()
        output = Fast(device(), "sorted").alrp_loss(logits, targets, errors)
        torch.autograd.grad(output.cls + output.loc, [*leaves, errors])
        return [session.counters for session in device().sessions]

    whole = drawn.logits.detach().requires_grad_()
    alone = step(whole, drawn.targets, [whole])
    views = [level.requires_grad_() for level in maps]
    listed = step(views, levels(drawn.targets), views)
    for one, many in zip(alone, listed, strict=True):
        assert many.launches == one.launches + 1
        assert many.host_syncs == many.copies == 0
        assert many.global_sectors_read + many.global_sectors_written <= 1.05 * (
            one.global_sectors_read + one.global_sectors_written
        )
        assert many.thread_instructions <= 1.1 * one.thread_instructions


def test_adding_up_seldom_collides():
    forward, _ = passes("dense", LARGE, 500)
    assert forward.counters.shared_atomic_warp_contention <= 16


def test_lanes_meet_in_few_banks():
    # Of both streams, where each logit is looked up twice a pass and added up by three atomics.
    assert at_target("dense", 500, lambda session: session.counters.shared_replays) <= 0.75


def test_negatives_that_crowd_in_one_segment_do_not_wait_for_one_another():
    forward, _ = passes("crowded", LARGE, 500)
    assert forward.counters.shared_atomics <= LARGE / 32
    assert forward.counters.shared_atomic_warp_contention <= 4
