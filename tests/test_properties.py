"""What must hold of the losses whatever their numbers: balance, invariances, and how gradients answer to what comes in."""

import math

import pytest
import torch
from cases import Case, Labels
from compare import BOUND, assert_balanced, assert_near, assert_same_loss
from implementations import LOSSES, continuous, evaluate, every_loss, every_ranking_loss, outputs_of

from alrp_cuda import reference

ORDINARY = Case((257, 19))
balance_cases = pytest.mark.parametrize(
    "case",
    [
        Case((31, 7), delta=0.0),
        Case((257, 3), Labels(torch.int64, 5), delta=0.5),
        Case((127, 256), delta=1e-3, scale="near"),
        Case((1009, 257), scale="infinite"),
        Case((1009, 31), Labels(torch.int32, 8, background=0), delta=10.0, scale="ties", dtype=torch.float64),
        Case((1009, 1), delta=100.0, scale="equal", dtype=torch.float64),
    ],
    ids=str,
)


def flat_tensors(case):
    """(logits, labels, errors) of a case, flat."""
    data = case.build()
    return data.logits.reshape(-1), data.flat, data.loc_errors


@every_loss
@balance_cases
def test_gradient_is_balanced(losses, case, loss):
    data = case.build()
    got = evaluate(loss, losses, data.logits, data.targets, data.loc_errors, **data.options)
    assert got["d_logits"].count_nonzero() > 0
    assert_balanced(got["d_logits"], data.positive, BOUND[case.dtype], signed=loss.kind == "rank_sort")


@balance_cases
def test_sorting_moves_positives_against_one_another(losses, case):
    data = case.build()
    got = evaluate(LOSSES["rank_sort"], losses, data.logits, data.targets, data.loc_errors, weights=(0, 1), **data.options)
    d_positives = got["d_logits"].reshape(-1)[data.positive].double()
    assert (d_positives.count_nonzero() > 0) == (len(d_positives) > 1)
    assert abs(float(d_positives.sum())) <= BOUND[case.dtype] * float(d_positives.abs().sum()) + 1e-12
    assert not got["d_logits"].reshape(-1)[~data.positive].any()
    assert got["sort_error"] >= 0


@every_ranking_loss
@balance_cases
def test_positives_rise_and_negatives_fall(losses, case, loss):
    data = case.build()
    got = evaluate(loss, losses, data.logits, data.targets, data.loc_errors, **data.options)["d_logits"].reshape(-1)
    assert (got[data.positive] <= 0).all()
    assert (got[~data.positive] >= 0).all()


@pytest.mark.parametrize("name", ["alrp", "alrp_hard"])
def test_negative_errors_are_legal_and_balance_with_signs(losses, name):
    logits, labels, errors = flat_tensors(ORDINARY)
    errors = errors - 0.9
    got = evaluate(LOSSES[name], losses, logits, labels, errors)
    positive = evaluate(LOSSES[name], losses, logits, labels, errors.abs())
    assert not torch.equal(got["d_logits"], positive["d_logits"])
    assert abs(float(got["d_logits"].double().sum())) <= 1e-6 * float(got["d_logits"].double().abs().sum())


@every_loss
def test_order_of_elements_does_not_matter(losses, loss):
    logits, labels, errors = flat_tensors(ORDINARY)
    spread = torch.zeros_like(logits).masked_scatter(labels == 1, errors)
    place = torch.zeros_like(labels).masked_scatter(labels == 1, torch.arange(len(errors)))
    want = evaluate(loss, losses, logits, labels, errors)
    for seed in range(3):
        order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))
        positive = labels[order] == 1
        moved = place[order][positive]
        got = evaluate(loss, losses, logits[order], labels[order], spread[order][positive])
        per_positive = {name: want[name][moved] for name in ("rank", "precision", "d_loc_errors") if name in want}
        assert_same_loss(got, want | per_positive | {"d_logits": want["d_logits"][order]}, logits.dtype, positive)


@every_loss
@pytest.mark.parametrize("filler", [float("nan"), float("inf"), 0.0], ids=str)
def test_ignored_elements_anywhere_change_nothing(losses, loss, filler):
    logits, labels, errors = flat_tensors(ORDINARY)
    logits, labels = logits[labels >= 0], labels[labels >= 0]
    want = evaluate(loss, losses, logits, labels, errors)
    generator = torch.Generator().manual_seed(1)
    for extra in (1, 5, 300):
        kept = torch.randperm(len(logits) + extra, generator=generator).ge(extra)
        padded = torch.full(kept.shape, filler).masked_scatter(kept, logits)
        padded_labels = torch.full(kept.shape, -1).masked_scatter(kept, labels)
        got = evaluate(loss, losses, padded, padded_labels, errors)
        assert (got["d_logits"][~kept] == 0).all()
        assert_same_loss(got | {"d_logits": got["d_logits"][kept]}, want, logits.dtype, labels == 1)


@every_loss
@pytest.mark.parametrize("background", [None, 0, 2, 11])
def test_class_indices_and_flat_labels_say_the_same(losses, loss, background):
    case = Case((400, 23), Labels(torch.int64, 5, background))
    data = case.build()
    got = evaluate(loss, losses, data.logits, data.targets, data.loc_errors, **data.options)
    want = evaluate(loss, losses, data.logits.reshape(-1), data.flat, data.loc_errors, delta=case.delta)
    assert got["d_logits"].shape == data.logits.shape
    assert_same_loss(got, want, case.dtype, data.positive)


@every_loss
def test_scores_and_delta_share_one_unit(losses, loss):
    # Powers of two are exact, so that the results are the same bits.
    logits, labels, errors = flat_tensors(ORDINARY)
    want = evaluate(loss, losses, logits, labels, errors, delta=1.0)
    for unit in (0.125, 64.0):
        got = evaluate(loss, losses, logits * unit, labels, errors, delta=unit)
        for name in want:
            assert torch.equal(got[name], want[name]), name


@pytest.mark.parametrize("order", ["smooth", "hard"])
@pytest.mark.parametrize("delta", [0.0, 1.0])
def test_loc_has_the_gradient_that_differences_show(losses, order, delta):
    data = Case((33, 16), delta=delta, dtype=torch.float64, errors_dtype=torch.float64).build()
    logits, targets, errors = (losses.put(t) for t in (data.logits, data.targets, data.loc_errors))
    assert torch.autograd.gradcheck(
        lambda e: losses.alrp_loss(logits, targets, e, delta=delta, order=order).loc, errors.requires_grad_()
    )


@every_ranking_loss
def test_gradient_scales_with_what_comes_in(losses, loss):
    data = ORDINARY.build()
    tensors = data.logits, data.targets, data.loc_errors
    one = evaluate(loss, losses, *tensors)
    for cls, loc in ((4.0, 0.5), (-1.0, 2.0), (0.0, 1.0), (1.0, 0.0)):
        got = evaluate(loss, losses, *tensors, weights=(cls, loc))
        assert torch.equal(got["d_logits"], one["d_logits"] * cls)
        if loss.kind == "alrp":
            assert torch.equal(got["d_loc_errors"], one["d_loc_errors"] * loc)


def test_ranking_and_sorting_are_weighed_apart(losses):
    data = ORDINARY.build()
    tensors = data.logits, data.targets, data.loc_errors
    rank, sort = (evaluate(LOSSES["rank_sort"], losses, *tensors, weights=w)["d_logits"] for w in ((1, 0), (0, 1)))
    assert rank.any()
    assert sort.any()
    for a, b in ((1.0, 1.0), (4.0, 0.5), (-1.0, 2.0)):
        got = evaluate(LOSSES["rank_sort"], losses, *tensors, weights=(a, b))
        assert_near("d_logits", got["d_logits"], a * rank + b * sort, 1e-6)


@pytest.mark.parametrize("name", ["rank", "sort"])
def test_either_part_of_rank_and_sort_may_be_left_out(losses, name):
    data = ORDINARY.build()
    logits = losses.put(data.logits.clone()).requires_grad_()
    targets = losses.put(continuous(data.logits, data.targets, data.loc_errors))
    part = getattr(losses.rank_sort_loss(logits, targets, delta=1.0), name)
    want = evaluate(
        LOSSES["rank_sort"],
        losses,
        data.logits,
        data.targets,
        data.loc_errors,
        weights=(name == "rank", name == "sort"),
        delta=1.0,
    )
    assert torch.equal(torch.autograd.grad(part, logits)[0].cpu(), want["d_logits"])


def test_sorted_positives_have_no_sort_error(losses):
    # Labels fall with scores that are further apart than the ramp; equal labels may stand in any order.
    logits, targets = torch.arange(6.0).flip(0) * 2, torch.tensor([1.0, 1.0, 0.75, 0.5, 0.5, 0.25])
    for order in ([0, 1, 2, 3, 4, 5], [1, 0, 2, 4, 3, 5]):
        leaf = losses.put(logits[order]).requires_grad_()
        out = losses.rank_sort_loss(leaf, losses.put(targets))
        assert float(out.sort.detach()) == float(out.rank.detach()) == 0
        assert not torch.autograd.grad(out.rank + out.sort, leaf)[0].any()


@pytest.mark.parametrize("label", [1.0, 0.3, 1e-30, 7.0])
def test_equal_labels_have_no_sort_error(losses, label):
    logits = torch.tensor([0.3, 0.1, -0.2, 0.0, 0.0])
    targets = torch.tensor([label, label, label, label, 0.0])
    leaf = losses.put(logits).requires_grad_()
    out = losses.rank_sort_loss(leaf, losses.put(targets))
    assert abs(float(out.sort.detach())) <= 1e-7
    (gradient,) = torch.autograd.grad(out.sort, leaf)
    assert float(gradient.abs().max()) <= 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_labels_of_any_floating_dtype_say_the_same(losses, dtype):
    data = ORDINARY.build()
    targets = continuous(data.logits, data.targets, data.loc_errors)
    want = losses.rank_sort_loss(losses.put(data.logits), losses.put(targets))
    got = losses.rank_sort_loss(losses.put(data.logits), losses.put(targets.to(dtype)))
    for a, b in zip(got, want, strict=True):
        assert_near("value", a, b, 1e-6)


def test_close_labels_are_told_apart(fast):
    # Two positives tie; their labels differ by 2^-50, and so, over 4, do the errors.
    targets = torch.tensor([0.5, 0.5 + 2**-50, 0.0], dtype=torch.float64)
    leaf = fast.put(torch.zeros(3, dtype=torch.float64)).requires_grad_()
    out = fast.rank_sort_loss(leaf, fast.put(targets))
    assert float(out.sort.detach()) == 2**-52
    assert torch.autograd.grad(out.sort, leaf)[0].tolist() == [2**-52, -(2**-52), 0]


@every_ranking_loss
@pytest.mark.parametrize("weight", [3.3, 1e-3, float("nan"), float("inf")])
def test_any_incoming_gradient_passes_through(losses, loss, weight):
    data = Case((31, 7), Labels(torch.bool)).build()
    tensors = data.logits, data.targets, data.loc_errors
    one = evaluate(loss, losses, *tensors)
    got = evaluate(loss, losses, *tensors, weights=(weight, weight))
    assert_near("d_logits", got["d_logits"], one["d_logits"] * weight, 1e-6)


def test_each_output_reaches_its_own_input(losses):
    data = ORDINARY.build()
    for name in ("cls", "loc"):
        logits = losses.put(data.logits.clone()).requires_grad_()
        errors = losses.put(data.loc_errors.clone()).requires_grad_()
        out = losses.alrp_loss(logits, losses.put(data.targets), errors)
        getattr(out, name).backward()
        assert logits.grad is not None
        assert errors.grad is not None
        assert bool(logits.grad.any()) == (name == "cls")
        assert bool(errors.grad.any()) == (name == "loc")


def test_cls_carries_the_gradient_of_the_whole_loss(losses):
    # Errors above N_FP = 0 do not move L_cls, but they do move what its backward sends.
    logits, targets = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1, 0, 1])
    errors = torch.tensor([[0.1, 0.1], [0.9, 0.1]])
    small, large = (evaluate(LOSSES["alrp"], losses, logits, targets, e, weights=(1.0, 0.0), delta=0.0) for e in errors)
    assert float(small["cls"]) == float(large["cls"])
    assert float(large["d_logits"][2]) < float(small["d_logits"][2]) < 0


def test_backward_repeats_on_a_kept_graph(losses):
    data = ORDINARY.build()
    logits = losses.put(data.logits.clone()).requires_grad_()
    loss = losses.ap_loss(logits, losses.put(data.targets))
    first, second = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_inputs_stay_as_they_were(losses):
    data = Case((257, 19), Labels(torch.int64, 5), scale="infinite").build()
    tensors = [losses.put(t.clone()) for t in (data.logits, data.targets, data.loc_errors)]
    copies = [t.clone() for t in tensors]
    evaluate(LOSSES["alrp"], losses, *tensors)
    for tensor, copy in zip(tensors, copies, strict=True):
        assert torch.equal(tensor.nan_to_num(7), copy.nan_to_num(7)) if tensor.is_floating_point() else torch.equal(tensor, copy)


def test_logits_changed_in_place_never_give_another_gradient(losses):
    data = ORDINARY.build()
    leaf = losses.put(data.logits.clone()).requires_grad_()
    want = torch.autograd.grad(losses.ap_loss(leaf, losses.put(data.targets)), leaf)[0]
    logits = leaf * 1
    loss = losses.ap_loss(logits, losses.put(data.targets))
    with torch.no_grad():
        logits.mul_(-1)
    try:
        got = torch.autograd.grad(loss, leaf)[0]
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)  # noqa: PT017 (either is right)
    else:
        assert torch.equal(got, want)


def test_interpolation_lowers_the_loss_where_precision_rises_downwards(losses):
    data = Case((257, 19), scale="near").build()
    logits, targets = losses.put(data.logits), losses.put(data.targets)
    assert losses.ap_loss(logits, targets, interpolate=True, delta=0.0) < losses.ap_loss(logits, targets, delta=0.0)


def test_alrp_cls_is_the_value_of_ap(losses):
    data = ORDINARY.build()
    logits, targets, errors = (losses.put(t) for t in (data.logits, data.targets, data.loc_errors))
    assert torch.equal(losses.alrp_loss(logits, targets, errors).cls, losses.ap_loss(logits, targets))


def test_ndcg_of_a_few_false_positives_among_many_positives_keeps_its_digits(fast):
    # 500 positives tie and a negative is just on the ramp of all of them: N_FP is 1e-12 of the rank.
    logits = torch.zeros(501, dtype=torch.float64)
    logits[500] = 2.0**-20 - 1.0
    got = evaluate(LOSSES["ndcg"], fast, logits, torch.tensor([1] * 500 + [0]), torch.empty(0), eps=1e-9)
    n_fp, rank_pos = 2.0**-21, 1 + 499 / 2
    per_unit = math.log(2) / (math.log1p(rank_pos) ** 2 * (1 + rank_pos))  # -g'(rank+)
    z = sum(1 / math.log2(1 + r) for r in range(1, 501))
    assert_near("loss", got["loss"] / (500 * n_fp * per_unit / z), 1.0, 1e-8)
    assert_near("d_logits", got["d_logits"][:500] / (-n_fp * per_unit / z), torch.ones(500), 1e-8)


@pytest.mark.parametrize("name", ["ap", "ndcg", "rank_sort"])
def test_number_of_positives_may_be_told(losses, name):
    data = ORDINARY.build()
    logits, targets = losses.put(data.logits), losses.put(data.targets)
    errors = losses.put(data.loc_errors)
    want = outputs_of(LOSSES[name](losses, logits, targets, errors))
    got = outputs_of(LOSSES[name](losses, logits, targets, errors, num_positives=len(errors)))
    assert all(torch.equal(got[key], want[key]) for key in want)


def test_defaults_are_the_published_ones(losses):
    data = ORDINARY.build()
    tensors = data.logits, data.targets, data.loc_errors
    got = evaluate(LOSSES["alrp"], losses, *tensors)
    want = evaluate(LOSSES["alrp"], losses, *tensors, delta=1.0, order="smooth", eps=1e-5, background=None)
    assert all(torch.equal(got[name], want[name]) for name in want)
    got = evaluate(LOSSES["ap"], losses, *tensors)
    want = evaluate(LOSSES["ap"], losses, *tensors, delta=1.0, interpolate=False, eps=1e-5, background=None, num_positives=None)
    assert all(torch.equal(got[name], want[name]) for name in want)
    got = evaluate(LOSSES["ndcg"], losses, *tensors)
    want = evaluate(LOSSES["ndcg"], losses, *tensors, delta=1.0, eps=1e-5, background=None, num_positives=None)
    assert all(torch.equal(got[name], want[name]) for name in want)
    got = evaluate(LOSSES["rank_sort"], losses, *tensors)
    want = evaluate(LOSSES["rank_sort"], losses, *tensors, delta=0.5, eps=1e-10, num_positives=None)
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_step_function_is_that_of_the_paper():
    x = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    assert reference.step(x, 1.0).tolist() == [0, 0, 0.25, 0.5, 0.75, 1, 1]
    assert reference.step(x, 0.0).tolist() == [0, 0, 0, 1, 1, 1, 1]
