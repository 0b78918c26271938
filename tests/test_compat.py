"""The published call forms give what the published loops over the positives give, and the published flow goes through them."""

import pytest
import torch
from cases import Case
from compare import BOUND, assert_near

import alrp_cuda
from alrp_cuda import compat
from bench import per_positive_loop

CASES = [Case((257, 19)), Case((64, 255), delta=0.5), Case((1009, 31), scale="sparse"), Case((33, 16), dtype=torch.float64)]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def tensors(case):
    data = case.build()
    return data.logits.clone().requires_grad_(), data.targets, data.loc_errors.to(case.dtype, copy=True).requires_grad_()


def grads(loss, *leaves):
    return torch.autograd.grad(loss, leaves, retain_graph=True)


@every_case
def test_alrp_is_the_published_one(case):
    logits, targets, errors = tensors(case)
    cls, rank, order = compat.aLRPLoss.apply(logits, targets, errors, case.delta, 1e-5)
    want = per_positive_loop.alrp_loss(logits, targets, errors, delta=case.delta)
    bound = 1e-5 if case.dtype == torch.float32 else 1e-12  # the loop sums in the logits' precision
    assert_near("cls", cls.detach(), want.cls.detach(), bound)
    assert_near("rank", rank, want.rank, bound)
    assert_near("gradient", *grads(cls, logits), *grads(want.cls, logits), bound)
    positives = logits.detach()[targets == 1]
    assert torch.equal(positives[order], positives.sort().values)
    assert not rank.requires_grad
    assert not errors.grad_fn
    assert torch.autograd.grad(cls, errors, allow_unused=True) == (None,)


@every_case
def test_published_head_makes_the_hard_order(case):
    """The localisation part as the published head takes it from rank and order, and its gradient to the boxes."""
    logits, targets, errors = tensors(case)
    cls, rank, order = compat.aLRPLoss.apply(logits, targets, errors, case.delta)
    ordered = errors[order.detach()].flip(dims=[0])
    loc = (torch.cumsum(ordered, dim=0) / rank[order.detach()].detach().flip(dims=[0])).mean()
    want = alrp_cuda.alrp_loss(logits, targets, errors, delta=case.delta, order="hard")
    bound = BOUND[case.dtype]
    assert_near("loc", loc.detach(), want.loc.detach(), bound)
    for got, truth in zip(grads(cls + 2 * loc, logits, errors), grads(want.cls + 2 * want.loc, logits, errors), strict=True):
        assert_near("gradient", got, truth, bound)


def test_ties_keep_the_order_of_their_index():
    logits, targets = torch.tensor([1.0, 0.0, 1.0, 0.5, 1.0]), torch.tensor([1, 1, 1, 0, 1])
    _, _, order = compat.aLRPLoss.apply(logits, targets, torch.zeros(4))
    assert order.tolist() == [1, 3, 2, 0]  # read backwards: 0, 2, 3, 1


@every_case
def test_ap_is_the_published_one(case):
    logits, targets, _ = tensors(case)
    got = compat.APLoss.apply(logits, targets, case.delta)
    want = per_positive_loop.ap_loss(logits, targets, delta=case.delta, interpolate=True, eps=0.0)
    bound = 1e-5 if case.dtype == torch.float32 else 1e-12
    assert_near("loss", got.detach(), want.detach(), bound)
    assert_near("gradient", *grads(got, logits), *grads(want, logits), bound)


@pytest.mark.parametrize("labels", [[0, 0, 0], [-1, 0, -1]])
def test_no_positives_do_not_crash(labels):
    logits, targets = torch.randn(3, requires_grad=True), torch.tensor(labels)
    cls, rank, order = compat.aLRPLoss.apply(logits, targets, torch.empty(0))
    assert rank.shape == order.shape == (0,)
    for loss in (cls, compat.APLoss.apply(logits, targets)):
        assert not loss.any()
        assert torch.equal(*grads(loss, logits), torch.zeros(3))


def test_defaults_are_the_published_ones():
    logits, targets, errors = tensors(CASES[0])
    assert compat.aLRPLoss.apply(logits, targets, errors)[0] == compat.aLRPLoss.apply(logits, targets, errors, 1.0, 1e-5)[0]
    assert compat.APLoss.apply(logits, targets) == compat.APLoss.apply(logits, targets, 1.0)


def test_class_indices_are_not_published():
    for call in (lambda *t: compat.aLRPLoss.apply(*t, torch.zeros(1)), compat.APLoss.apply):
        with pytest.raises(ValueError, match=r"targets must have the logits' shape \(2, 3\), got \(2,\)"):
            call(torch.zeros(2, 3), torch.tensor([1, 3]))


def published_rank_sort(logits, labels, delta, eps):
    """(rank loss, sort loss, gradient of their sum), one positive after the other."""
    positive, negative = labels > 0, labels == 0
    scores, negatives, y = logits[positive], logits[negative], labels[positive]
    rank, sort = torch.zeros_like(scores), torch.zeros_like(scores)
    up, down = torch.zeros_like(scores), torch.zeros_like(negatives)
    for i in scores.argsort():
        over = ((scores - scores[i]) / (2 * delta) + 0.5).clamp(0, 1)
        above = ((negatives - scores[i]) / (2 * delta) + 0.5).clamp(0, 1)
        n_fp, better = above.sum(), y >= y[i]
        rank[i] = n_fp / (over.sum() + n_fp)
        sort[i] = (over * (1 - y)).sum() / over.sum() - (over * (1 - y))[better].sum() / over[better].sum()
        if n_fp > eps:
            up[i] -= rank[i]
            down += above * rank[i] / n_fp
        worse = over * ~better
        if worse.sum() > eps:
            up[i] -= sort[i]
            up += worse * sort[i] / worse.sum()
    gradient = torch.zeros_like(logits)
    gradient[positive], gradient[negative] = up / len(y), down / len(y)
    return rank.mean(), sort.mean(), gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rank_sort_is_the_published_one(dtype):
    data = Case((257, 19), dtype=dtype).build()
    labels = data.flat.to(dtype)
    labels[data.flat == 1] = data.loc_errors.to(dtype) / 1.8
    logits = data.logits.reshape(-1).clone().requires_grad_()
    rank, sort = compat.RankSort.apply(logits, labels)
    want = published_rank_sort(logits.detach(), labels, 0.5, 1e-10)
    bound = 1e-5 if dtype == torch.float32 else 1e-12
    assert_near("rank", rank.detach(), want[0], bound)
    assert_near("sort", sort.detach(), want[1], bound)
    assert_near("gradient", *grads(rank + sort, logits), want[2], bound)


def test_rank_sort_without_positives():
    logits = torch.randn(3, requires_grad=True)
    rank, sort = compat.RankSort.apply(logits, torch.tensor([0, -1, 0]))
    assert not rank.any()
    assert not sort.any()
    assert torch.equal(*grads(rank + sort, logits), torch.zeros(3))
