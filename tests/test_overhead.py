"""Where there is next to nothing to compute, a loss costs little more than PyTorch's own."""

from bench import overhead


def test_a_small_call_costs_at_most_four_times_bce():
    timings = overhead.measure(rounds=31)
    bce = timings.pop(overhead.BCE).median
    assert len(timings) == len(overhead.LOSSES)
    for name, timing in timings.items():
        assert timing.median <= 4 * bce, f"{name}: {timing.median * 1e6:.0f} us, binary cross entropy {bce * 1e6:.0f} us"
