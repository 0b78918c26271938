"""Many scores: accuracy against a truth by sorting, and the same bits whoever computes them."""

import numpy as np
import pytest
import torch
import truth
from cases import Case, Labels, labels_of, scores_of
from compare import assert_same_loss
from implementations import LOSSES, evaluate, every_loss


def large(negatives, positives, dtype, scale="dense"):
    """Flat logits, int8 labels and errors, built without the table's search for a seed."""
    rng = np.random.default_rng(negatives + positives)
    labels, flat = labels_of(Labels(torch.int8), negatives, positives, rng)
    return scores_of(scale, flat.numpy() == 1, dtype, rng), labels, torch.tensor(rng.uniform(0, 1.8, positives))


def assert_as_the_truth(fast, name, dtype, delta, negatives, positives, scale="dense"):
    logits, labels, errors = large(negatives, positives, dtype, scale)
    want = truth.evaluate(name, logits.double().numpy(), labels.numpy(), errors.numpy(), delta)
    got = evaluate(LOSSES[name], fast, logits, labels, errors, delta=delta)
    assert_same_loss(got, want, dtype, labels == 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "delta"), [("alrp", 0.0), *((name, 1.0) for name in LOSSES if name != "alrp_hard"), ("alrp_hard", 0.0)]
)
def test_a_million_scores_lose_no_precision(fast, name, delta):
    assert_as_the_truth(fast, name, torch.float32, delta, 1_000_000, 5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_million_scores_of_other_dtypes(fast, dtype):
    assert_as_the_truth(fast, "alrp", dtype, 1.0, 1_000_000, 5)


@pytest.mark.full
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("delta", "scale", "dtype"),
    [
        (1.0, "dense", torch.float32),
        (0.0, "ties", torch.float32),
        (1e-3, "dense", torch.float64),
        (100.0, "sparse", torch.bfloat16),
        (0.5, "sparse", torch.float16),
    ],
    ids=str,
)
def test_ten_million_scores_lose_no_precision(fast, name, delta, scale, dtype):
    assert_as_the_truth(fast, name, dtype, delta, 10_000_000, 11, scale)


@pytest.mark.slow
@every_loss
@pytest.mark.parametrize("labels", [Labels(torch.int8), Labels(torch.int64, 7)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_result_does_not_depend_on_run_or_thread_count(fast, loss, labels, dtype):
    """What runs on a device is run twice: threads of the host do nothing there."""
    data = Case((150_001, 37), labels, dtype=dtype).build()
    tensors = data.logits, data.targets, data.loc_errors
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 1, 2, 3) if fast.backend == "cpu" else (1, 1):
            torch.set_num_threads(count)
            results.append(evaluate(loss, fast, *tensors, **data.options))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for name, value in results[0].items():
            assert torch.equal(value, other[name]), name


@pytest.mark.slow
@every_loss
def test_result_does_not_depend_on_the_order_of_negatives(fast, loss):
    logits, labels, errors = large(150_001, 37, torch.float32)
    want = evaluate(loss, fast, logits, labels, errors)
    order = torch.arange(len(logits))
    others = order[labels != 1]
    order[labels != 1] = others[torch.randperm(len(others), generator=torch.Generator().manual_seed(0))]
    got = evaluate(loss, fast, logits[order], labels[order], errors)
    assert torch.equal(got.pop("d_logits"), want["d_logits"][order])
    for name, value in got.items():
        assert torch.equal(value, want[name]), name
