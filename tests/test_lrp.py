"""LRP and optimal LRP: by hand, and what Eq. 6 says of every data set."""

import math

import pytest
import torch
from detections import datasets, image
from hypothesis import given
from hypothesis import strategies as st

from alrp_cuda.metrics import LRP, lrp, match, match_coco

NAN = math.nan


def strips(*ious):
    """(boxes, objects): each box lies on its object with one of these IoUs, apart from the others; 0: a box alone."""
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(len(ious))]
    found = [[x, y, right, 10 * (iou or 1)] for (x, y, right, _), iou in zip(boxes, ious, strict=True)]
    return found, [box for box, iou in zip(boxes, ious, strict=True) if iou]


def of(ious, scores, missed=0, **options):
    """[LRP, loc, fp, fn, threshold] of such boxes, with some objects that no box lies on."""
    found, objects = strips(*ious)
    objects = objects + [[20 * i, 50, 20 * i + 10, 60] for i in range(missed)]
    out = lrp(match([image(found, scores)], [image(objects)]), **options)
    return [*(pytest.approx(float(v)) for v in out[:4]), float(out.per_class.threshold)]


def test_perfect():
    assert of([1, 1], [0.9, 0.2]) == [0, 0, 0, 0, 0.2]


def test_by_hand():
    # With both boxes (0.9, 0.6), and with the false positive too: (0.2 + 0.8 + 1) / 3 and (0.2 + 0.8 + 1 + 1) / 4.
    assert of([0.9, 0.6, 0], [0.8, 0.7, 0.6], missed=1) == [2 / 3, 0.25, 0, 1 / 3, 0.7]
    assert of([0.9, 0.6, 0], [0.8, 0.7, 0.6], missed=1, score_threshold=0.6) == [3 / 4, 0.25, 1 / 3, 1 / 3, 0.6]
    # With the better box alone: (0.2 + 2) / 3.
    assert of([0.9, 0.6, 0], [0.8, 0.7, 0.6], missed=1, score_threshold=0.75) == [2.2 / 3, 0.1, 0, 2 / 3, 0.75]


def test_a_false_positive_may_be_worth_what_follows():
    # After the false positive: (1 + 1) / 3, then (1 + 0) / 3; keeping nothing: 1.
    assert of([0, 1, 1], [0.9, 0.8, 0.7]) == [1 / 3, 0, 1 / 3, 0, 0.7]


def test_keeping_nothing_may_be_best():
    out = lrp(match([image(strips(0)[0], [0.9])], [image([[0, 50, 10, 60]])]))
    assert (out.lrp, out.fn, out.per_class.threshold) == (1, 1, math.inf)
    assert out.loc.isnan()
    assert out.fp.isnan()


def test_equal_scores_stay_together():
    # Of the three, 0.5 keeps all: (0 + 1) / 2; one of the two alone cannot be kept.
    assert of([1, 0], [0.5, 0.5]) == [0.5, 0, 0.5, 0, 0.5]
    assert of([0, 1], [0.5, 0.5]) == [0.5, 0, 0.5, 0, 0.5]


def test_of_equally_good_thresholds_the_highest():
    # A box of IoU 0.5 costs as much as its miss.
    assert of([1, 0.5], [0.9, 0.8])[4] == 0.9


def test_means_leave_out_classes_without_objects():
    found, objects = strips(1, 0.75, 0)
    metric = LRP()
    metric.update([image(found, [0.9, 0.8, 0.7], [1, 2, 3])], [image(objects, labels=[1, 2])])
    out = metric.compute()
    assert out.per_class.classes.tolist() == [1, 2, 3]
    assert out.per_class.lrp.tolist()[:2] == [0, 0.5]
    assert all(column[2].isnan() for column in out.per_class[1:])
    assert (out.lrp, out.loc, out.fp, out.fn) == (0.25, 0.125, 0, 0)


def test_nothing_to_find():
    for metric in (LRP(), LRP(score_threshold=0.5)):
        assert all(value.isnan() for value in metric.compute()[:4])
        metric.update([image([], [])], [image([])])
        assert all(value.isnan() for value in metric.compute()[:4])


def test_update_and_reset():
    metric = LRP(tau=0.4, box_format="xywh")
    for _ in range(2):
        metric.update([image([[0, 0, 10, 10]], [0.9])], [image([[0, 0, 10, 10]])])
        metric.update([image([], [])], [image([[0, 0, 10, 10]])])
        assert metric.compute().lrp == 0.5
        assert len(metric.matches.object_labels) == 2
        metric.reset()
    assert metric.compute().lrp.isnan()


def test_update_coco_is_match_coco():
    box = {"image_id": 1, "category_id": 5, "bbox": [5, 5, 10, 10]}
    metric = LRP(area_range="small", max_detections=1)
    metric.update_coco({"images": [{"id": 1}], "annotations": [box]}, [box | {"score": 0.5}, box | {"score": 0.4}])
    assert metric.compute().lrp == 0
    assert len(metric.matches.scores) == 1


@given(datasets(), st.sampled_from([0.5, 0.75]), st.integers(0, 9).map(lambda n: n / 8))
def test_the_equation_holds_and_the_optimum_is_the_least(data, tau, threshold):
    matches = match_coco(*data, tau=tau)
    fixed, best = lrp(matches, score_threshold=threshold), lrp(matches)
    for k, part in enumerate(matches.by_class()):
        if not part.objects:
            continue
        kept = part.scores >= threshold
        true, false = int((kept & part.positive).sum()), int((kept & ~part.positive).sum())
        missed = part.objects - true
        misfit = float((1 - part.ious[kept & part.positive]).sum()) / (1 - tau)
        _, value, loc, fp, fn, _ = (column[k] for column in fixed.per_class)
        torch.testing.assert_close(float(value), (false + missed + misfit) / (false + missed + true))
        # The components, weighed as the LRP paper weighs them, are the whole.
        weighed = [(true / (1 - tau), loc), (true + false, fp), (part.objects, fn)]
        whole = sum(w * float(c) for w, c in weighed if w) / (false + missed + true)
        torch.testing.assert_close(float(value), whole)
        thresholds = [*part.scores.tolist(), math.inf]
        every = [float(lrp(matches, score_threshold=s).per_class.lrp[k]) for s in thresholds]
        assert float(best.per_class.lrp[k]) == min(every)
        assert float(best.per_class.threshold[k]) == max(s for s, v in zip(thresholds, every, strict=True) if v == min(every))


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"matches must be alrp_cuda\.metrics\.Matches, got list"):
        lrp([])
    for make in (lambda s: LRP(score_threshold=s), lambda s: lrp(match([], []), score_threshold=s)):
        with pytest.raises(TypeError, match="score_threshold must be a number or None, got str"):
            make("0.5")
        with pytest.raises(ValueError, match="score_threshold must be a number, got nan"):
            make(NAN)
    with pytest.raises(ValueError, match="tau must be below 1"):
        LRP(tau=2)
