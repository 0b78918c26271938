"""The reference and the sorted truth against plain loops over pairs, the paper's Figure 1, and numbers worked by hand."""

from fractions import Fraction

import naive
import numpy as np
import pytest
import torch
import truth
from compare import assert_near
from implementations import LOSSES, Reference, evaluate, every_loss

DELTAS = [0.0, 1e-3, 0.5, 1.0, 10.0]
ORDINARY = ["normal", "ties", "equal"]


def small_case(scale, seed):
    """Scores, labels and errors of a few elements, some ignored."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 24))
    labels = rng.choice([1, 0, -1], n, p=[0.35, 0.5, 0.15])
    scores = {
        "normal": lambda: rng.normal(0, 1, n),
        "ties": lambda: rng.integers(-3, 3, n) / 2,
        "equal": lambda: np.full(n, -1.5),
        "infinite": lambda: rng.choice([-np.inf, np.inf, 0.0, 0.4], n),
    }[scale]()
    return scores, labels, rng.uniform(0, 1.8, int((labels == 1).sum()))


def assert_same(got, want):
    assert got.keys() == want.keys()
    for name in want:
        assert_near(name, got[name], want[name], 1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [*ORDINARY, "infinite"])
@pytest.mark.parametrize("delta", DELTAS)
def test_reference_is_the_sum_over_pairs(name, scale, delta):
    for seed in range(12):
        scores, labels, errors = small_case(scale, seed)
        got = evaluate(LOSSES[name], Reference(), *map(torch.tensor, (scores, labels, errors)), delta=delta)
        assert_same(got, naive.evaluate(name, scores.tolist(), labels.tolist(), errors.tolist(), delta))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", ORDINARY)
@pytest.mark.parametrize("delta", DELTAS)
def test_sorted_truth_is_the_sum_over_pairs(name, scale, delta):
    for seed in range(12):
        scores, labels, errors = small_case(scale, seed)
        got = truth.evaluate(name, scores, labels, errors, delta)
        assert_same(got, naive.evaluate(name, scores.tolist(), labels.tolist(), errors.tolist(), delta))


@every_loss
def test_chunks_of_the_reference_join_without_a_seam(loss, monkeypatch):
    scores, labels, errors = (torch.tensor(x) for x in small_case("normal", 3))
    whole = evaluate(loss, Reference(), scores, labels, errors)
    for pairs in (1, 5, 17):
        monkeypatch.setattr("alrp_cuda.reference.CHUNK_PAIRS", pairs)
        assert_same(evaluate(loss, Reference(), scores, labels, errors), whole)


IOUS = {0.53: (0.95, 0.80, 0.65, 0.50), 0.69: (0.80, 0.65, 0.50, 0.95), 0.89: (0.50, 0.65, 0.80, 0.95)}


@pytest.mark.parametrize("value", IOUS)
def test_figure_1_of_the_paper(losses, value):
    scores = losses.put(torch.arange(10, 0, -1) / 10)
    targets = losses.put(torch.tensor([1, 0, 1, 0, 0, 1, 0, 0, 0, 1]))
    errors = losses.put((1 - torch.tensor(IOUS[value])) / 0.5)
    out = losses.alrp_loss(scores, targets, errors, delta=0.0)
    assert round(float(out.cls + out.loc), 2) == value
    assert round(float(losses.ap_loss(scores, targets, delta=0.0)), 2) == 0.36


def test_two_positives_and_a_negative_worked_by_hand(losses):
    # s = 0, 1 (E = 1/5, 2/5) and a negative at 1/2, delta = 1: H is 3/4 and 1/4 on the negative, 1 and 0 between the two.
    # N_FP = 3/4, 1/4; rank+ = 2, 1; rank = 11/4, 5/4; S = 2/5, 0; e = (3/4 + 2/5) / (11/4), (1/4) / (5/4).
    scores, targets, errors = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1, 0, 1]), torch.tensor([0.2, 0.4])
    want = {
        "cls": [Fraction(13, 55)],
        "loc": [Fraction(74, 275)],
        "rank": [Fraction(11, 4), Fraction(5, 4)],
        "precision": [Fraction(8, 11), Fraction(4, 5)],
        "d_logits": [Fraction(-23, 110), Fraction(17, 55), Fraction(-1, 10)],
        "d_loc_errors": [Fraction(2, 11), Fraction(32, 55)],
    }
    got = evaluate(LOSSES["alrp"], losses, scores, targets, errors)
    assert got.keys() == want.keys()
    for name, values in want.items():
        assert_near(name, got[name], [float(v) for v in values], 2e-7)


def test_interpolated_precision_worked_by_hand(losses):
    # Descending: 0 1 1 0 1. N_FP = 1, 1, 2 and precision 1/2, 2/3, 3/5: the first positive takes the second's precision.
    scores, targets = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]), torch.tensor([0, 1, 1, 0, 1])
    got = evaluate(LOSSES["ap_interpolated"], losses, scores, targets, torch.empty(0), delta=0.0)
    e = [1 / 3, 1 / 3, 2 / 5]
    assert_near("loss", got["loss"], sum(e) / 3, 2e-7)
    d_negatives = [e[0] / 3 + e[1] / 3 + e[2] / 6, e[2] / 6]
    assert_near("d_logits", got["d_logits"], [d_negatives[0], -e[0] / 3, -e[1] / 3, d_negatives[1], -e[2] / 3], 2e-7)


def test_gains_of_ndcg_worked_by_hand(losses):
    # Descending: 0 1 0 1. rank+ = 1, 2 and rank = 2, 4; Z = 1 + g(2).
    scores, targets = torch.tensor([5.0, 4.0, 3.0, 2.0]), torch.tensor([0, 1, 0, 1])
    got = evaluate(LOSSES["ndcg"], losses, scores, targets, torch.empty(0), delta=0.0)
    g = [0, 1, 0.6309297535714575, 0.5, 0.43067655807339306]  # of ranks 1 to 4
    z, e = g[1] + g[2], [g[1] - g[2], g[2] - g[4]]
    assert_near("loss", got["loss"], sum(e) / z, 2e-7)
    assert_near("1 - NDCG", got["loss"], 1 - (g[2] + g[4]) / z, 2e-7)
    assert_near("d_logits", got["d_logits"], [(e[0] + e[1] / 2) / z, -e[0] / z, e[1] / 2 / z, -e[1] / z], 2e-7)


def test_rank_and_sort_worked_by_hand(losses):
    # s = 0, 1/4 with y = 1, 1/2 and a negative at 0, delta = 1/2: H is 3/4 and 1/4 between the positives, 1/2 of either on
    # itself. N_FP = 1/2, 1/4; r+ = 5/4, 3/4; rank errors 2/7, 1/4. Current errors of labels 3/10, 1/3; targets 0 (of y = 1
    # alone) and 1/3 (of both): sort errors 3/10, 0, and all of the first goes to the second.
    leaf = losses.put(torch.tensor([0.0, 0.25, 0.0])).requires_grad_()
    out = losses.rank_sort_loss(leaf, losses.put(torch.tensor([1.0, 0.5, 0.0])))
    assert_near("rank", out.rank.detach(), (2 / 7 + 1 / 4) / 2, 2e-7)
    assert_near("sort", out.sort.detach(), 0.15, 2e-7)
    d_rank, d_sort = (torch.autograd.grad(part, leaf, retain_graph=True)[0] for part in out)
    assert_near("gradient of rank", d_rank, [-1 / 7, -1 / 8, 1 / 7 + 1 / 8], 2e-7)
    assert_near("gradient of sort", d_sort, [-0.15, 0.15, 0], 2e-7)


def test_sort_error_of_hard_ranks_worked_by_hand(losses):
    # Descending: y = 1/2, 1, 1/4, 1/2. Of the third all rank above and are at least as good: no error. Of the fourth, the
    # current error is 7/16, the target that of 1/2, 1, 1/2, 1/3, and the difference, 5/48, goes to the third.
    leaf = losses.put(torch.tensor([4.0, 3.0, 2.0, 1.0, 0.5])).requires_grad_()
    out = losses.rank_sort_loss(leaf, losses.put(torch.tensor([0.5, 1.0, 0.25, 0.5, 0.0])), delta=0.0)
    assert_near("sort", out.sort.detach(), (1 / 4 + 5 / 48) / 4, 2e-7)
    (gradient,) = torch.autograd.grad(out.sort, leaf)
    assert_near("gradient", gradient, [1 / 16, -1 / 16, 5 / 192, -5 / 192, 0], 2e-7)
