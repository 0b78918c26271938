"""Matching is COCO's: by hand, and held against faster-coco-eval."""

import json
from collections import Counter

import pytest
import torch
from detections import datasets, evaluated, image
from faster_coco_eval import COCO
from hypothesis import given
from hypothesis import strategies as st

from alrp_cuda.metrics import join, match, match_coco, order_bounds

OBJECT = [0, 0, 10, 10]


def one(preds, target, **options):
    """(scores, ious, positive, number of objects) of one image."""
    matches = match([preds], [target], **options)
    return matches.scores.tolist(), matches.ious.tolist(), matches.positive.tolist(), len(matches.object_labels)


def test_the_higher_score_takes_the_object():
    preds = image([[0, 0, 10, 8], OBJECT], [0.9, 0.5])
    assert one(preds, image([OBJECT])) == ([0.9, 0.5], [0.8, 0.0], [True, False], 1)


def test_the_object_of_highest_overlap_is_taken():
    preds = image([[0, 0, 10, 9], [0, 0, 10, 9]], [0.9, 0.5])
    target = image([[0, 0, 10, 6], OBJECT])
    assert one(preds, target) == ([0.9, 0.5], [0.9, 6 / 9], [True, True], 2)


def test_of_equal_overlaps_the_last_object_is_taken():
    left, right = [0, 0, 10, 10], [4, 0, 14, 10]
    preds = image([[2, 0, 12, 10], [0, 0, 9, 10]], [0.9, 0.8])  # the first overlaps with both by 8 / 12, the second fits the left
    assert one(preds, image([left, right]))[2] == [True, True]
    assert one(preds, image([right, left]))[2] == [True, False]


def test_of_equal_scores_the_first_detections_go_first():
    count = 100  # enough for a sort that is not stable to show
    heights = torch.linspace(6, 10, count).tolist()
    preds = image([[20 * i, 0, 20 * i + 10, height] for i, height in enumerate(heights)], [0.5, 0.25] * (count // 2))
    target = image([[20 * i, 0, 20 * i + 10, 10] for i in range(count)])
    ious = one(preds, target, max_detections=count)[1]
    assert ious == sorted(ious[: count // 2]) + sorted(ious[count // 2 :])


def test_classes_and_images_do_not_meet():
    assert one(image([OBJECT], [0.9], [1]), image([OBJECT], labels=[2]))[2:] == ([False], 1)
    matches = match([image([OBJECT], [0.9]), image([], [])], [image([]), image([OBJECT])])
    assert matches.positive.tolist() == [False]


@pytest.mark.parametrize(("height", "found"), [(5, True), (4.999, False)])
def test_tau_itself_is_enough(height, found):
    assert one(image([[0, 0, 10, height]], [0.9]), image([OBJECT]))[2] == [found]


def test_tau_may_be_chosen():
    assert one(image([[0, 0, 10, 3]], [0.9]), image([OBJECT]), tau=0.3)[1] == [0.3]
    assert one(image([[0, 0, 10, 9]], [0.9]), image([OBJECT]), tau=0.95)[2] == [False]


def test_detections_on_a_crowd_count_for_nothing():
    preds = image([[0, 0, 4, 4], [4, 0, 8, 4], [20, 20, 24, 24]], [0.9, 0.8, 0.7])
    assert one(preds, image([OBJECT], iscrowd=[1])) == ([0.7], [0.0], [False], 0)


def test_an_object_goes_before_a_crowd():
    preds = image([[0, 0, 10, 8]], [0.9])
    assert one(preds, image([[0, 0, 20, 20], OBJECT], iscrowd=[True, False])) == ([0.9], [0.8], [True], 1)


def test_areas_out_of_range_count_for_nothing():
    preds = image([OBJECT, [20, 0, 60, 40], [70, 0, 72, 2]], [0.9, 0.8, 0.7])
    target = image([OBJECT, [20, 0, 60, 30]])
    assert one(preds, target, area_range="small") == ([0.9, 0.7], [1.0, 0.0], [True, False], 1)
    assert one(preds, target, area_range="medium") == ([0.8], [0.75], [True], 1)
    assert one(preds, target, area_range=(0, 50)) == ([0.7], [0.0], [False], 0)
    assert one(preds, target, area_range=(100, 100))[3] == 1
    assert one(preds, target | {"area": torch.tensor([2000, 5])}, area_range="small")[3] == 1


def test_only_the_best_detections_of_a_class_and_image_count():
    preds = image([OBJECT] * 4, [0.1, 0.4, 0.2, 0.3], [1, 1, 2, 1])
    assert one(preds, image([]), max_detections=2)[0] == [0.4, 0.3, 0.2]


def test_boxes_without_an_area_find_nothing():
    assert one(image([[3, 3, 3, 3]], [0.9]), image([[3, 3, 3, 3]]), tau=0.0)[1:3] == ([0.0], [True])
    assert one(image([[3, 3, 3, 3]], [0.9]), image([[3, 3, 3, 3]]))[2] == [False]


def test_empty_tensors_of_any_shape():
    empty = dict.fromkeys(("boxes", "labels", "scores"), torch.tensor([]))
    assert one(empty, empty) == ([], [], [], 0)
    assert match([], []).labels.dtype == torch.int64


def test_box_formats_agree():
    preds, target = image([[1, 2, 11, 9]], [0.9]), image([[1, 2, 11, 12]])
    wide = [d | {"boxes": torch.cat((d["boxes"][:, :2], d["boxes"][:, 2:] - d["boxes"][:, :2]), 1)} for d in (preds, target)]
    assert one(*wide, box_format="xywh") == one(preds, target)


def test_batches_join():
    a, b = (match([image([OBJECT], [s])], [image([OBJECT])]) for s in (0.5, 0.75))
    both = match([image([OBJECT], [0.5]), image([OBJECT], [0.75])], [image([OBJECT])] * 2)
    assert all(torch.equal(x, y) for x, y in zip(join([a, b])[:5], both[:5], strict=True))
    with pytest.raises(ValueError, match=r"parts must be matches with one tau, got \[0.5, 0.7\]"):
        join([a, match([], [], tau=0.7)])
    with pytest.raises(ValueError, match="got no part"):
        join([])


# --- faster-coco-eval ------------------------------------------------------------------------------------------------


@given(datasets(), st.sampled_from([0.3, 0.5, 0.75]), st.sampled_from([1, 3, 100]), st.sampled_from([(0, 1e10), (5, 20)]))
def test_true_positives_are_those_of_coco(data, tau, most, area_range):
    truth, results = data
    crowds = {o["id"] for o in truth["annotations"] if o["iscrowd"]}
    ignored = {o["id"] for o in truth["annotations"] if not area_range[0] <= o["area"] <= area_range[1]} | crowds
    scores = {i: (r["category_id"], r["score"]) for i, r in enumerate(results, 1)}
    pairs = [
        (*map(int, key.split("_")), iou) for key, iou in evaluated(truth, results, (tau,), area_range, most)["matched"].items()
    ]
    want = Counter((*scores[found], iou) for found, found_object, iou in pairs if found_object not in ignored)
    ours = match_coco(truth, results, tau=tau, max_detections=most, area_range=area_range)
    rows = zip(ours.labels.tolist(), ours.scores.tolist(), ours.ious.tolist(), ours.positive.tolist(), strict=True)
    assert Counter(row[:3] for row in rows if row[3]) == want


@given(datasets(), st.sampled_from([1, 3, 100]), st.sampled_from([(0, 1e10), (5, 20)]))
def test_ap50_is_that_of_coco(data, most, area_range):
    truth, results = data
    # Distinct scores: with equal ones, AP depends on the order of images.
    results = [r | {"score": r["score"] / 2 + i / 100} for i, r in enumerate(results)]
    precision = evaluated(truth, results, (0.5,), area_range, most)["precision"][0, :, :, 0, 0]
    want = torch.tensor(precision[:, precision[0] > -1]).mean()  # NaN where no class has an object
    ours = order_bounds(match_coco(truth, results, max_detections=most, area_range=area_range)).actual.ap_by_iou[0]
    torch.testing.assert_close(ours, want, equal_nan=True)


@given(datasets())
def test_every_form_of_the_data_gives_the_same(data):
    truth, results = data
    want = match_coco(truth, results)
    coco = COCO(truth)
    forms = [match_coco(coco, results)]
    if results:
        forms.append(match_coco(coco, coco.loadRes([dict(r) for r in results])))
    preds, target = [], []
    for i in (1, 2, 3):
        rows = [[r for r in group if r["image_id"] == i] for group in (results, truth["annotations"])]
        boxes = [[[x, y, x + w, y + h] for x, y, w, h in (r["bbox"] for r in group)] for group in rows]
        labels = [[r["category_id"] for r in group] for group in rows]
        preds.append(image(boxes[0], [r["score"] for r in rows[0]], labels[0]))
        target.append(image(boxes[1], labels=labels[1]) | {"iscrowd": torch.tensor([bool(r["iscrowd"]) for r in rows[1]])})
    forms.append(match(preds, target))
    assert all(torch.equal(a, b) for form in forms for a, b in zip(form[:5], want[:5], strict=True))


def test_files(tmp_path):
    truth = {"images": [{"id": 1}], "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}]}
    results = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 9], "score": 0.5}]
    for name, value in (("truth", truth), ("results", results)):
        (tmp_path / name).write_text(json.dumps(value))
    assert match_coco(tmp_path / "truth", str(tmp_path / "results")).ious.tolist() == [0.9]


# --- bad input -------------------------------------------------------------------------------------------------------

GOOD = (image([OBJECT], [0.5]), image([OBJECT]))


@pytest.mark.parametrize(
    ("error", "options", "words"),
    [
        (ValueError, {"tau": 1.0}, "tau must be below 1, got 1.0"),
        (TypeError, {"tau": "0.5"}, "tau must be a number, got str"),
        (ValueError, {"max_detections": 0}, "max_detections must be >= 1, got 0"),
        (TypeError, {"max_detections": 1.5}, "max_detections must be an int, got float"),
        (ValueError, {"area_range": "tiny"}, "area_range must be one of 'small', 'medium', 'large', got 'tiny'"),
        (TypeError, {"area_range": (1, 2, 3)}, r"area_range must be None, a name .*, got \(1, 2, 3\)"),
        (ValueError, {"area_range": (3, 2)}, r"area_range must have 0 <= low <= high, got \(3, 2\)"),
        (ValueError, {"box_format": "cxcywh"}, "box_format must be one of 'xyxy', 'xywh', got 'cxcywh'"),
    ],
)
def test_bad_options(error, options, words):
    with pytest.raises(error, match=words):
        match([], [], **options)


@pytest.mark.parametrize(
    ("error", "which", "change", "words"),
    [
        (TypeError, 0, {"boxes": [OBJECT]}, r"preds\[0\]\['boxes'\] must be a torch.Tensor, got list"),
        (ValueError, 0, {"boxes": torch.ones(1, 5)}, r"preds\[0\]\['boxes'\] must have shape \(n, 4\), got \(1, 5\)"),
        (ValueError, 0, {"scores": torch.ones(2)}, r"preds\[0\]\['scores'\] must have one entry a box, shape \(1,\), got \(2,\)"),
        (ValueError, 0, {"scores": torch.tensor([torch.nan])}, r"preds\[0\]\['scores'\] must be numbers, got NaN"),
        (TypeError, 0, {"labels": torch.ones(1)}, r"preds\[0\]\['labels'\] must have one of the dtypes .*, got torch.float32"),
        (TypeError, 1, {"iscrowd": torch.ones(1)}, r"target\[0\]\['iscrowd'\] must have one of the dtypes"),
        (ValueError, 1, {"area": torch.ones(3)}, r"target\[0\]\['area'\] must have one entry a box"),
    ],
)
def test_bad_tensors(error, which, change, words):
    data = [[d | change] if i == which else [d] for i, d in enumerate(GOOD)]
    with pytest.raises(error, match=words):
        match(*data)


@pytest.mark.parametrize(
    ("error", "data", "words"),
    [
        (TypeError, (GOOD[0], [GOOD[1]]), "preds must be a list of dicts, one an image, got dict"),
        (ValueError, ([GOOD[0]], []), "target must have one dict an image as preds has, 1, got 0"),
        (TypeError, ([torch.ones(1)], [GOOD[1]]), r"preds\[0\] must be a dict, got Tensor"),
        (ValueError, ([GOOD[1]], [GOOD[1]]), r"preds\[0\] must have the key 'scores', got 'boxes', 'labels'"),
    ],
)
def test_bad_lists(error, data, words):
    with pytest.raises(error, match=words):
        match(*data)


@pytest.mark.parametrize(
    ("error", "data", "words"),
    [
        (TypeError, (3, []), "ground_truth must be a COCO dataset or the path of one, got int"),
        (ValueError, ([], []), "ground_truth must be a COCO dataset with 'images' and 'annotations'"),
        (ValueError, ({"images": []}, {"results": []}), "detections must be a list of COCO results"),
        (ValueError, ({"images": [{"id": 1}]}, [{"image_id": 2}]), "detections must be of images .*, got image_id 2"),
        (
            ValueError,
            ({"images": [{"id": 1}]}, [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": float("nan")}]),
            "detections must have numbers for scores, got NaN",
        ),
    ],
)
def test_bad_datasets(error, data, words):
    with pytest.raises(error, match=words):
        match_coco(*data)
