"""Where there is next to nothing to compute, a loss costs little more than PyTorch's own."""

import pytest
import torch

from bench import overhead
from bench.contenders import LOSSES
from bench.timing import enqueued


def test_a_small_call_costs_at_most_four_times_bce():
    timings = overhead.measure(rounds=31)
    bce = timings.pop(overhead.BCE).median
    assert len(timings) == len(overhead.LOSSES)
    for name, timing in timings.items():
        assert timing.median <= 4 * bce, f"{name}: {timing.median * 1e6:.0f} us, binary cross entropy {bce * 1e6:.0f} us"


def test_the_hosts_part_of_a_step_does_not_wait_for_the_device(monkeypatch):
    done = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append("waited"))
    enqueued(lambda: done.append("asked"), 3, torch.device("cuda"))
    assert done == ["waited", "asked", "asked", "asked"]


def test_the_table_has_every_loss(capsys, monkeypatch):
    monkeypatch.setattr(overhead, "ROUNDS", 1)
    overhead.main(["--device", "cpu"])
    said = capsys.readouterr().out
    assert "python -m bench.overhead --device cpu" in said
    for name in (overhead.BCE, *(loss.title for loss in LOSSES.values())):
        assert f" {name} |" in said


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        overhead.main(["--device", "cuda"])
    assert stop.value.code == 2
    assert "torch sees no CUDA device" in capsys.readouterr().err
