"""Detections and objects to measure: as tensors, in COCO's format, and as faster-coco-eval matches them."""

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from hypothesis import strategies as st

SIDE = 6  # boxes on a small grid, so that many overlap and equal IoUs occur


def image(boxes, scores=None, labels=None, **more):
    """One dict of preds (with scores) or target (without): boxes as left, top, right, bottom."""
    labels = [1] * len(boxes) if labels is None else labels
    out = {"boxes": torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64)}
    if scores is not None:
        out["scores"] = torch.tensor(scores, dtype=torch.float64)
    return out | {name: torch.tensor(value) for name, value in more.items()}


@st.composite
def datasets(draw, crowds=True):
    """(ground truth, results) in COCO's format: up to 3 images, 2 classes, crowds, and equal scores."""
    side = st.integers(0, SIDE)
    box = st.tuples(side, side, st.integers(1, SIDE), st.integers(1, SIDE)).map(list)
    place = {"image_id": st.integers(1, 3), "category_id": st.integers(1, 2), "bbox": box}
    objects = draw(st.lists(st.fixed_dictionaries(place | {"iscrowd": st.integers(0, 1 if crowds else 0)}), max_size=10))
    results = draw(st.lists(st.fixed_dictionaries(place | {"score": st.integers(0, 8).map(lambda n: n / 8)}), max_size=16))
    truth = {
        "images": [{"id": i, "width": 20, "height": 20} for i in (1, 2, 3)],
        "categories": [{"id": i, "name": str(i)} for i in (1, 2)],
        "annotations": [o | {"id": i, "area": o["bbox"][2] * o["bbox"][3]} for i, o in enumerate(objects, 1)],
    }
    return truth, results


def evaluated(truth, results, thresholds=(0.5,), area_range=(0, 1e10), max_detections=100):
    """faster-coco-eval's result; its "matched" maps "result_object" ids to IoU."""
    coco = COCO(truth)
    # Without a result, loadRes cannot tell what it loads.
    found = coco.loadRes([dict(r) for r in results]) if results else COCO(truth | {"annotations": []})
    evaluation = COCOeval_faster(coco, found, "bbox", print_function=lambda *_: None)
    evaluation.params.iouThrs = np.array(thresholds)
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [list(area_range)], ["all"]
    evaluation.params.maxDets = [max_detections]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval
