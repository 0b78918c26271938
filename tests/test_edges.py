"""Edge cases: what the losses give where there is little to rank, and scores or errors are not numbers."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from cases import Case, Labels
from compare import assert_near, assert_same_loss
from implementations import LOSSES, Reference, evaluate, every_loss, every_ranking_loss

INF, NAN = math.inf, math.nan
NONE = torch.empty(0)
TINY = torch.tensor([0.5, -1.0, 0.25, 2.0, 1.0])
every_delta = pytest.mark.parametrize("delta", [0.0, 1.0])


@every_loss
@every_delta
@pytest.mark.parametrize("labels", [[0] * 5, [-1] * 5, [0, -1, 0, 0, -2]], ids=str)
def test_no_positives_give_zeros_that_stay_connected(losses, loss, delta, labels):
    got = evaluate(loss, losses, TINY, torch.tensor(labels), NONE, delta=delta)
    assert torch.equal(got.pop("d_logits"), torch.zeros(5))
    for name, value in got.items():
        assert value.shape == ((0,) if name in ("rank", "precision", "d_loc_errors") else ()), name
        assert not value.any(), name


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("shape", "labels"), [((0,), (0,)), ((0, 3), (0, 3)), ((0, 3), (0,)), ((4, 0), (4, 0)), ((4, 0), (4,)), ((2, 0, 3), (2, 0))]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_zero_sized_input_gives_zeros(losses, name, shape, labels, dtype):
    got = evaluate(LOSSES[name], losses, torch.empty(shape, dtype=dtype), torch.zeros(labels, dtype=torch.int64), NONE.to(dtype))
    assert got["d_logits"].shape == shape
    assert got["d_logits"].dtype == dtype
    assert all(not value.any() for value in got.values())


@every_delta
def test_no_negatives_cost_nothing_but_boxes(losses, delta):
    errors = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    got = evaluate(LOSSES["alrp"], losses, TINY, torch.ones(5, dtype=torch.int64), errors, delta=delta)
    assert float(got["cls"]) == 0
    assert float(got["loc"]) > 0
    assert not got["d_logits"].any()
    assert torch.equal(got["precision"], torch.ones(5))
    assert_near("sum of ranks", got["rank"].sum(), 15, 1e-6)  # H(x) + H(-x) = 1
    for name in ("ap", "ap_interpolated", "ndcg"):
        got = evaluate(LOSSES[name], losses, TINY, torch.ones(5, dtype=torch.int64), NONE, delta=delta)
        assert not got["loss"].any()
        assert not got["d_logits"].any()
    got = evaluate(LOSSES["rank_sort"], losses, TINY, torch.ones(5, dtype=torch.int64), errors, delta=delta)
    assert float(got["rank_error"]) == 0
    assert abs(float(got["d_logits"].sum())) <= 1e-7


def test_one_positive(losses):
    got = evaluate(LOSSES["alrp"], losses, torch.tensor([0.0, 0.5, -3.0]), torch.tensor([1, 0, 0]), torch.tensor([0.7]))
    assert_near("cls", got["cls"], 3 / 7, 2e-7)
    assert_near("loc", got["loc"], 0.4, 2e-7)
    assert_near("d_logits", got["d_logits"], [-3 / 7, 3 / 7, 0], 2e-7)
    assert_near("d_loc_errors", got["d_loc_errors"], [4 / 7], 2e-7)


@pytest.mark.parametrize("score", [0.0, -7.25, 1e30, INF, -INF, 1e-42])
def test_all_scores_tie(losses, score):
    labels, errors = torch.tensor([1, 0, 0, 1, 0, 1, -1]), torch.tensor([0.2, 0.4, 0.6])
    logits = torch.full((7,), score)
    smooth = evaluate(LOSSES["alrp"], losses, logits, labels, errors, delta=0.5)
    assert_near("rank", smooth["rank"], [3.5] * 3, 2e-7)
    assert_near("precision", smooth["precision"], [4 / 7] * 3, 2e-7)
    hard = evaluate(LOSSES["alrp"], losses, logits, labels, errors, delta=0.0)
    assert_near("rank", hard["rank"], [6] * 3, 2e-7)
    assert_near("precision", hard["precision"], [0.5] * 3, 2e-7)
    assert_near("loc", hard["loc"], 0.2, 2e-7)
    # Every negative shares alike.
    for got in (smooth, hard):
        assert_near("d_logits", got["d_logits"][labels == 0], [float(-got["d_logits"][labels == 1].sum()) / 3] * 3, 1e-6)


@every_ranking_loss
def test_few_false_positives_send_no_gradient(losses, loss):
    # N_FP = 1/2 for the first positive and 1 for the second.
    logits, labels, errors = torch.tensor([0.0, -9.0, 0.0]), torch.tensor([1, 1, 0]), torch.tensor([0.3, 0.6])
    at, below = (evaluate(loss, losses, logits, labels, errors, eps=eps) for eps in (0.5, 0.49))
    assert at["d_logits"][0] == 0
    assert below["d_logits"][0] < 0
    assert at["d_logits"][1] == below["d_logits"][1] < 0
    assert_near("the negative's", at["d_logits"][2], -float(at["d_logits"][1]), 2e-7)
    for name in at.keys() - {"d_logits"}:
        assert torch.equal(at[name], below[name]), name
    assert not evaluate(loss, losses, logits, labels, errors, eps=1.0)["d_logits"].any()


def test_few_false_positives_and_few_lower_positives_send_no_gradient(losses):
    # Of the first positive, N_FP = 1/2 and the lower positive at 0.25 counts 3/4; of the second, N_FP = 1/4.
    logits, targets = torch.tensor([0.0, 0.25, 0.0]), torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)

    def gradients(eps):
        leaf = losses.put(logits).requires_grad_()
        out = losses.rank_sort_loss(leaf, losses.put(targets), eps=eps)
        return [torch.autograd.grad(part, leaf, retain_graph=True)[0].tolist() for part in out]

    rank, sort = gradients(0.74)
    assert rank == [0, 0, 0]
    assert_near("sort", sort, [-0.15, 0.15, 0], 2e-7)  # r+ = 5/4 and l_S = 3/4 / 2 / (5/4)
    assert gradients(0.75) == [[0, 0, 0], [0, 0, 0]]
    rank, _ = gradients(0.25)
    assert_near("rank", rank, [-1 / 7, 0, 1 / 7], 2e-7)


@every_ranking_loss
def test_the_gradient_jumps_at_the_default_eps(losses, loss):
    for gap, active in ((2**-16, False), (2**-15, True)):  # N_FP = gap / 2
        got = evaluate(loss, losses, torch.tensor([0.0, gap - 1.0]), torch.tensor([1, 0]), torch.tensor([0.5]))
        assert bool(got["d_logits"].any()) == active
        assert_near("the two", got["d_logits"].sum(), 0, 1e-6)


@every_delta
def test_infinite_scores_rank_as_infinite_and_tie_with_their_like(losses, delta):
    tie = 0.5 if delta else 1.0
    logits = torch.tensor([INF, 0.0, -INF, INF, 0.0, -INF])
    labels = torch.tensor([1, 1, 1, 0, 0, 0])
    got = evaluate(LOSSES["alrp"], losses, logits, labels, torch.zeros(3), delta=delta)
    n_fp = torch.tensor([tie, 1 + tie, 2 + tie])
    rank_pos = torch.tensor([1.0, 2.0, 3.0])
    assert_near("rank", got["rank"], rank_pos + n_fp, 2e-7)
    assert_near("precision", got["precision"], rank_pos / (rank_pos + n_fp), 2e-7)
    assert got["d_logits"].isfinite().all()


@every_loss
@every_delta
@pytest.mark.parametrize("where", [0, 1, 4], ids=["negative", "positive", "last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_nan_score_makes_everything_nan(losses, loss, delta, where, dtype):
    logits, labels = TINY.to(dtype, copy=True), torch.tensor([0, 1, -1, 1, 0])
    logits[where] = NAN
    got = evaluate(loss, losses, logits, labels, torch.tensor([0.1, 0.2]), delta=delta)
    assert torch.equal(got["d_logits"].isnan(), labels >= 0)
    assert got.pop("d_logits")[2] == 0
    assert all(value.isnan().all() for value in got.values())


@every_loss
@pytest.mark.parametrize("labels", [Labels(torch.int64), Labels(torch.uint8)], ids=["some ignored", "none ignored"])
def test_nan_score_among_many_is_found(losses, loss, labels):
    data = Case((9000, 67), labels).build()  # more than a tile of 8192, and a rest
    counted = (data.flat >= 0).nonzero()[:, 0]
    for where in (counted[0], counted[len(counted) // 2], counted[-1]):
        logits = data.logits.reshape(-1).clone()
        logits[where] = NAN
        got = evaluate(loss, losses, logits, data.flat, data.loc_errors)
        assert torch.equal(got["d_logits"].isnan(), data.flat >= 0)


@every_loss
def test_nan_score_shows_without_positives(losses, loss):
    labels = torch.tensor([0, 0, -1, 0, 0])
    got = evaluate(loss, losses, torch.tensor([1.0, NAN, 0.0, 0.0, 2.0]), labels, NONE)
    assert torch.equal(got["d_logits"].isnan(), labels >= 0)
    assert all(got[name].isnan() for name in ("cls", "loc", "loss", "rank_error", "sort_error") if name in got)


@every_loss
def test_nan_score_shows_with_class_indices(losses, loss):
    logits = torch.zeros(4, 3)
    logits[2, 1] = NAN
    got = evaluate(loss, losses, logits, torch.tensor([0, -1, 3, 2]), torch.tensor([0.1, 0.2]))
    assert torch.equal(got["d_logits"].isnan(), torch.tensor([True, False, True, True])[:, None].expand(4, 3))


@every_delta
def test_infinite_scores_are_sorted(losses, delta):
    # Equal infinities tie; labels stand against the scores.
    logits, targets = torch.tensor([INF, INF, 0.0, -INF]), torch.tensor([0.25, 0.5, 0.75, 1.0])
    leaf = losses.put(logits).requires_grad_()
    out = losses.rank_sort_loss(leaf, losses.put(targets), delta=delta)
    tie = 0.5 if delta else 1.0
    current = [(0.75 + 0.5) / 2, (0.75 + 0.5) / 2, (0.75 + 0.5 + 0.25 * tie) / (2 + tie), 1.5 / (3 + tie)]
    target = [(0.75 + 0.5) / 2, 0.5, 0.25, 0.0]
    assert_near("sort", out.sort.detach(), sum(c - t for c, t in zip(current, target, strict=True)) / 4, 2e-7)
    (gradient,) = torch.autograd.grad(out.sort, leaf)
    assert gradient.isfinite().all()
    assert abs(float(gradient.sum())) <= 1e-7
    assert float(gradient[3]) < 0 < float(gradient[0])


@every_loss
def test_ignored_scores_may_be_nan(losses, loss):
    labels, errors = torch.tensor([0, 1, -1, 1, -3]), torch.tensor([0.1, 0.2])
    want = evaluate(loss, losses, TINY, labels, errors)
    got = evaluate(loss, losses, torch.where(labels < 0, NAN, TINY), labels, errors)
    for name in want:
        assert torch.equal(got[name], want[name]), name
    assert not got["d_logits"][labels < 0].any()


@every_loss
def test_ignored_anchors_may_be_nan(losses, loss):
    logits = torch.arange(12.0).reshape(4, 3) / 8
    targets, errors = torch.tensor([2, -1, 3, 0]), torch.tensor([0.1, 0.2])
    want = evaluate(loss, losses, logits, targets, errors)
    logits[1] = NAN
    got = evaluate(loss, losses, logits, targets, errors)
    for name in want:
        assert torch.equal(got[name], want[name]), name
    assert not got["d_logits"][1].any()


@pytest.mark.parametrize("name", ["alrp", "alrp_hard"])
def test_infinite_error_reaches_only_what_ranks_with_it(losses, name):
    logits, labels = torch.tensor([3.0, 1.0, 0.0]), torch.tensor([1, 0, 1])
    low = evaluate(LOSSES[name], losses, logits, labels, torch.tensor([0.2, INF]), delta=0.5)
    assert float(low["loc"]) == INF
    assert_near("cls", low["cls"], 1 / 6, 2e-7)
    assert_near("d_logits", low["d_logits"], [0, 0.2, -0.2], 2e-7)  # e = (1 + 0.2) / 3
    top = evaluate(LOSSES[name], losses, logits, labels, torch.tensor([NAN, 0.2]), delta=0.5)
    assert math.isnan(top["loc"])
    assert_near("cls", top["cls"], 1 / 6, 2e-7)
    assert top["d_logits"][0] == 0
    assert top["d_logits"][1:].isnan().all()
    assert_near("d_loc_errors", top["d_loc_errors"], [2 / 3, 1 / 6], 2e-7)


@pytest.mark.parametrize("name", ["alrp", "alrp_hard"])
@every_delta
@pytest.mark.parametrize("value", [INF, -INF, NAN, -3.0], ids=str)
def test_any_error_flows_by_the_formulas(losses, name, delta, value):
    case = Case((257, 19), delta=delta, dtype=torch.float64, errors_dtype=torch.float64)
    data = case.build()
    for where in (0, 9, 18):
        errors = data.loc_errors.clone()
        errors[where] = value
        got = evaluate(LOSSES[name], losses, data.logits, data.targets, errors, **data.options)
        want = evaluate(LOSSES[name], Reference(), data.logits, data.targets, errors, **data.options)
        assert_same_loss(got, want, case.dtype, data.positive)


def test_hard_order_breaks_ties_by_flat_index(losses):
    logits, labels = torch.tensor([1.0, 1.0, 0.0, 1.0]), torch.tensor([1, 1, 0, 1])
    got = evaluate(LOSSES["alrp_hard"], losses, logits, labels, torch.tensor([0.1, 0.4, 0.8]), delta=0.0)
    assert_near("loc", got["loc"], (0.1 + 0.5 + 1.3) / 9, 2e-7)
    assert_near("d_loc_errors", got["d_loc_errors"], [3 / 9, 2 / 9, 1 / 9], 2e-7)


@every_loss
@pytest.mark.parametrize("delta", [1e-30, 1e-6, 1e4, 1e30])
def test_delta_of_any_size(losses, loss, delta):
    data = Case((257, 19), scale="ties").build()
    got = evaluate(loss, losses, data.logits, data.targets, data.loc_errors, delta=delta)
    want = evaluate(loss, Reference(), data.logits.double(), data.targets, data.loc_errors.double(), delta=delta)
    assert_same_loss(got, want, torch.float32, data.positive)


@pytest.mark.parametrize("delta", [0, 1, np.float32(0.5), Fraction(1, 2)], ids=repr)
def test_delta_may_be_any_real_number(losses, delta):
    logits, targets = losses.put(TINY), losses.put(torch.tensor([0, 1, 0, 1, 0]))
    assert torch.equal(losses.ap_loss(logits, targets, delta=delta), losses.ap_loss(logits, targets, delta=float(delta)))
