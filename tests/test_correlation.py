"""Correlation of score and IoU, as a metric and as a loss, and what ordering one against the other is worth."""

import numpy as np
import pytest
import torch
from detections import datasets, evaluated, image
from dispatched import recorded
from hypothesis import given
from hypothesis import strategies as st

from alrp_cuda import correlation_loss
from alrp_cuda.correlation import COEFFICIENTS
from alrp_cuda.metrics import (
    OrderBounds,
    ScoreIoUCorrelation,
    correlation,
    match,
    match_coco,
    order_bounds,
    score_iou_correlation,
)

GRID = [[30 * i, 0, 30 * i + 10, 10] for i in range(4)]


def boxes(*ious):
    return [[x, y, right, 10 * iou] for (x, y, right, _), iou in zip(GRID, ious, strict=False)]


@given(st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 2), min_size=2, max_size=20))
def test_rho_is_that_of_numpy(pairs):
    scores, ious = torch.tensor(pairs).double().unbind(1)
    rho = score_iou_correlation(scores, ious)
    if scores.std() < 1e-6 or ious.std() < 1e-6:
        return
    torch.testing.assert_close(float(rho), float(np.corrcoef(scores, ious)[0, 1]))


def pairs(count, dtype=torch.float64):
    torch.manual_seed(count)
    return torch.rand(count, dtype=dtype).requires_grad_(), torch.rand(count, dtype=dtype)


@pytest.mark.parametrize("count", [2, 3, 200])
def test_losses_are_those_of_numpy(count):
    scores, ious = pairs(count)
    s, u = scores.detach().numpy(), ious.numpy()
    concordance = 2 * np.cov(s, u, bias=True)[0, 1] / (s.var() + u.var() + (s.mean() - u.mean()) ** 2)
    for coefficient, rho in (("pearson", np.corrcoef(s, u)[0, 1]), ("concordance", concordance)):
        assert correlation_loss(scores, ious, coefficient=coefficient).item() == pytest.approx(1 - rho, rel=1e-12)


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
def test_the_loss_is_differentiated_by_scores_alone(coefficient):
    scores, ious = pairs(6)
    assert torch.autograd.gradcheck(lambda s: correlation_loss(s, ious, coefficient=coefficient), scores)
    ious.requires_grad_()
    assert not correlation_loss(scores.detach(), ious, coefficient=coefficient).requires_grad
    assert correlation_loss(ious, ious, coefficient=coefficient).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
@pytest.mark.parametrize("count", [0, 1, 3, 7])  # 0.1 seven times has a mean that rounds
def test_the_loss_is_0_where_nothing_varies(coefficient, count):
    varying, constant = torch.linspace(0, 1, count), torch.full((count,), 0.1)
    for scores, ious in ((varying, constant), (constant, varying)):
        scores.requires_grad_()
        loss = correlation_loss(scores, ious, coefficient=coefficient)
        loss.backward()
        assert loss.item() == 0
        assert not scores.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_loss_of_any_dtype_makes_no_synchronisation(dtype):
    scores, ious = (v.detach() for v in pairs(20, dtype))
    with recorded() as operators:
        loss = correlation_loss(scores, ious)
    assert "aten._local_scalar_dense" not in operators
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), correlation_loss(scores.double(), ious.double()))


@pytest.mark.parametrize("count", [0, 1, 3, 7])  # 0.1 seven times has a mean that rounds
def test_rho_needs_something_that_varies(count):
    scores, ious = torch.linspace(0, 1, count), torch.full((count,), 0.1, dtype=torch.float64)
    assert score_iou_correlation(scores, ious).isnan()
    assert score_iou_correlation(ious, scores).isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rho_of_anchors_in_any_dtype_without_a_synchronisation(dtype):
    with recorded() as operators:
        rho = score_iou_correlation(torch.tensor([0.25, 0.5, 1], dtype=dtype, requires_grad=True), torch.tensor([0.5, 0.25, 0]))
    assert "aten._local_scalar_dense" not in operators
    assert rho.dtype == torch.float64
    assert not rho.requires_grad
    torch.testing.assert_close(float(rho), -((27 / 28) ** 0.5))


def test_correlation_in_all_and_by_class():
    metric = ScoreIoUCorrelation()
    # The false positive of class 1 takes no part.
    metric.update([image([*boxes(0.6, 0.8), [200, 0, 210, 10]], [0.1, 0.2, 0.9])], [image(GRID[:2])])
    metric.update([image(boxes(1.0, 0.9), [0.3, 0.5], [2, 2])], [image(GRID[:2], labels=[2, 2])])
    out = metric.compute()
    assert out.classes.tolist() == [1, 2]
    torch.testing.assert_close(out.class_rho.tolist(), [1.0, -1.0])
    torch.testing.assert_close(float(out.rho), float(np.corrcoef([0.1, 0.2, 0.3, 0.5], [0.6, 0.8, 1, 0.9])[0, 1]))


def test_correlation_of_nothing():
    out = ScoreIoUCorrelation().compute()
    assert out.rho.isnan()
    assert len(out.classes) == len(out.class_rho) == 0


@pytest.mark.parametrize(
    ("error", "pair", "words"),
    [
        (TypeError, ([0.5], torch.ones(1)), "scores must be a torch.Tensor, got list"),
        (TypeError, (torch.ones(1), torch.ones(1, dtype=torch.int64)), "ious must have one of the dtypes .*, got torch.int64"),
        (ValueError, (torch.ones(2, 1), torch.ones(2)), r"scores must have shape \(P,\), got \(2, 1\)"),
        (ValueError, (torch.ones(2), torch.ones(3)), r"ious must have the shape of scores, \(2,\), got \(3,\)"),
        (ValueError, (torch.ones(2), torch.ones(2, device="meta")), "ious must be on the device of scores, cpu, got meta"),
    ],
)
def test_bad_pairs(error, pair, words):
    for function in (score_iou_correlation, correlation_loss):
        with pytest.raises(error, match=words):
            function(*pair)


def test_a_coefficient_of_no_name():
    with pytest.raises(ValueError, match=r"coefficient must be one of .*, got 'spearman'"):
        correlation_loss(torch.ones(2), torch.ones(2), coefficient="spearman")


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_bounds_by_hand():
    metric = OrderBounds()
    metric.update([image(boxes(0.6, 1.0, 0.8), [0.9, 0.8, 0.7])], [image(GRID[:3])])
    lower, actual, upper = metric.compute()
    # At IoU 0.95 one of three is found: third, second, or first of the ranking; its 34 recall points have that precision.
    for quality, precision in ((lower, 1 / 3), (actual, 1 / 2), (upper, 1)):
        torch.testing.assert_close(float(quality.ap_by_iou[9]), 34 / 101 * precision)
        assert quality.ap_by_iou[0] == 1
        torch.testing.assert_close(quality.ap, quality.ap_by_iou.mean())
        torch.testing.assert_close(float(quality.lrp), (0.8 + 0 + 0.4) / 3)  # all boxes kept: their order has no part


def test_bounds_deal_within_classes():
    labels = [1, 2, 2]
    matches = match([image(boxes(0.6, 0.7, 1.0), [0.9, 0.8, 0.7], labels)], [image(GRID[:3], labels=labels)])
    # Only class 2 has a box of IoU 1; it becomes the better one of its two, and not that of class 1, which scores most.
    torch.testing.assert_close(float(order_bounds(matches).upper.ap_by_iou[9]), 51 / 101 / 2)


@given(datasets())
def test_bounds_bound(data):
    lower, actual, upper = order_bounds(match_coco(*data))
    if not data[0]["annotations"] or all(o["iscrowd"] for o in data[0]["annotations"]):
        assert actual.ap.isnan()
        assert actual.lrp.isnan()
        return
    tiny = 1e-12
    assert (lower.ap_by_iou <= actual.ap_by_iou + tiny).all()
    assert (actual.ap_by_iou <= upper.ap_by_iou + tiny).all()
    assert upper.lrp - tiny <= actual.lrp <= lower.lrp + tiny
    assert upper.ap_by_iou[0] == actual.ap_by_iou[0] == lower.ap_by_iou[0]


@given(datasets(crowds=False))
def test_the_actual_ap_is_that_of_coco_where_matching_is_plain(data):
    truth, results = data
    # One object and one result a class and image: nothing to match anew at a higher threshold.
    objects = {(o["image_id"], o["category_id"]): o for o in truth["annotations"]}
    results = {(r["image_id"], r["category_id"]): r | {"score": r["score"] / 2 + i / 100} for i, r in enumerate(results)}
    truth, results = truth | {"annotations": list(objects.values())}, list(results.values())
    precision = evaluated(truth, results, np.linspace(0.5, 0.95, 10))["precision"][:, :, :, 0, 0]
    want = torch.tensor(precision[:, :, precision[0, 0] > -1]).mean((1, 2))
    torch.testing.assert_close(order_bounds(match_coco(truth, results)).actual.ap_by_iou, want, equal_nan=True)


def test_bounds_of_nothing():
    for quality in OrderBounds().compute():
        assert quality.ap.isnan()
        assert quality.ap_by_iou.shape == (10,)


def test_bad_matches():
    for function in (correlation, order_bounds):
        with pytest.raises(TypeError, match=r"matches must be alrp_cuda\.metrics\.Matches, got list"):
            function([])
    with pytest.raises(ValueError, match=r"matches must have tau <= 0.5, where AP begins, got 0.6"):
        order_bounds(match([], [], tau=0.6))
