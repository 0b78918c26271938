"""ATSS against the algorithm as the paper writes it, one object and one anchor at a time."""

# ruff: noqa: E402 (torchvision is optional, and what follows imports it)

import math

import pytest

torchvision = pytest.importorskip("torchvision")

import torch
from detectors import batch, calls_of, ready, tiny_retinanet
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from alrp_cuda.integrations.torchvision import atss, use_alrp

Box = list[float]


def iou(a: Box, b: Box) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    inner = width * height
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)


def center(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def atss_by_hand(levels: list[list[Box]], objects: list[Box], k: int) -> list[int]:
    """Algorithm 1 of the paper; its line numbers at the right."""
    anchors = [anchor for level in levels for anchor in level]
    best: dict[int, tuple[float, int]] = {}  # of an anchor: the highest IoU, and whose
    for g, box in enumerate(objects):  # 1
        candidates: list[int] = []  # 2
        start = 0
        for level in levels:  # 3
            by_distance = sorted(range(len(level)), key=lambda a, level=level: math.dist(center(level[a]), center(box)))
            candidates += [start + a for a in by_distance[:k]]  # 4, 5
            start += len(level)
        overlaps = [iou(anchors[a], box) for a in candidates]  # 7
        mean = sum(overlaps) / len(overlaps)  # 8
        deviation = math.sqrt(sum((o - mean) ** 2 for o in overlaps) / max(1, len(overlaps) - 1))  # 9
        for a, overlap in zip(candidates, overlaps, strict=True):  # 11
            x, y = center(anchors[a])
            inside = box[0] < x < box[2] and box[1] < y < box[3]
            if overlap >= mean + deviation and inside and overlap > best.get(a, (-1.0, -1))[0]:  # 12, and sec. 3.2
                best[a] = overlap, g  # 13
    return [best.get(a, (0.0, -1))[1] for a in range(len(anchors))]


def random_boxes(count: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    middle = torch.rand(count, 2, generator=rng, dtype=torch.float64) * 64
    size = low + torch.rand(count, 2, generator=rng, dtype=torch.float64) * (high - low)
    return torch.cat((middle - size / 2, middle + size / 2), 1)


@pytest.mark.parametrize("sizes", [[60, 20, 5], [30], [9, 8, 1], [1]])
@pytest.mark.parametrize("k", [1, 3, 9])
def test_matches_as_the_paper_says(sizes, k):
    several = 0
    for seed in range(15):
        rng = torch.Generator().manual_seed(seed)
        levels = [random_boxes(n, 8.0 * 2**i, 12.0 * 2**i, rng) for i, n in enumerate(sizes)]
        objects = random_boxes(seed % 6, 10, 40, rng)
        found = atss(torch.cat(levels), sizes, objects, candidates=k).tolist()
        assert found == atss_by_hand([level.tolist() for level in levels], objects.tolist(), k)
        several += len({a for a in found if a >= 0}) > 1
    assert several or sum(sizes) < 30


def test_matches_of_a_grid_of_anchors():
    """As a detector with one anchor a location has them; objects off the points where centres are equally far."""
    generator = AnchorGenerator(((12,), (24,), (48,)), ((1.0,),) * 3)
    features = [torch.zeros(1, 8, 64 // stride, 64 // stride) for stride in (4, 8, 16)]
    (anchors,) = generator(ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)]), features)
    sizes = [256, 64, 16]
    objects = torch.tensor([[5.3, 7.1, 20.9, 30.2], [8.2, 9.7, 19.1, 27.4], [30.6, 20.3, 62.1, 63.8], [1.2, 2.3, 4.1, 4.9]])
    found = atss(anchors, sizes, objects)
    by_hand = atss_by_hand([level.tolist() for level in anchors.split(sizes)], objects.tolist(), 9)
    assert found.tolist() == by_hand
    assert {0, 1, 2} <= set(by_hand)


def test_an_anchor_goes_to_the_object_that_it_overlaps_most():
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], *[[40.0, 40.0, 50.0, 50.0]] * 3])
    objects = torch.tensor([[0.0, 0.0, 10.0, 14.0], [0.0, 0.0, 10.0, 11.0], [1.0, 0.0, 13.0, 12.0]])
    assert all(atss(anchors, [4], box[None]).tolist() == [0, -1, -1, -1] for box in objects)
    assert atss(anchors, [4], objects).tolist() == [1, -1, -1, -1]


def test_no_object_matches_nothing():
    matched = atss(torch.rand(5, 4), [3, 2], torch.zeros(0, 4))
    assert matched.dtype == torch.int64
    assert matched.tolist() == [-1] * 5


def test_half_anchors_are_compared_in_full():
    rng = torch.Generator().manual_seed(0)
    anchors, objects = random_boxes(50, 8, 16, rng).to(torch.bfloat16), random_boxes(4, 10, 20, rng).float()
    assert torch.equal(atss(anchors, [50], objects), atss(anchors.float(), [50], objects))


def test_levels_have_to_add_up():
    with pytest.raises(ValueError, match="level_sizes must add up to the number of anchors, 5, got 4"):
        atss(torch.rand(5, 4), [3, 1], torch.zeros(0, 4))


def test_retinanet_trains_with_the_matches_of_its_levels():
    model, data = ready("retinanet atss", 2, 0, 3)
    with calls_of(model.head, "compute_loss") as calls:
        model(*data)
    targets, _, anchors, matched_idxs, _ = calls[0]
    sizes = [8 * 8 * 4, 4 * 4 * 4]  # strides 8 and 16 of 64 pixels, 4 anchors each
    assert [len(a) for a in anchors] == [sum(sizes)] * 3
    for matched, own, target in zip(matched_idxs, anchors, targets, strict=True):
        assert torch.equal(matched, atss(own, sizes, target["boxes"]))
    assert sum(int((m >= 0).sum()) for m in matched_idxs) > 3
    assert "locations" not in model.eval().head([torch.zeros(1, 8, 4, 4)])


def test_the_matcher_comes_back():
    data = batch(2, 0, 3)
    model = use_alrp(use_alrp(tiny_retinanet(), assign="atss"))
    torch.testing.assert_close(model(*data), use_alrp(tiny_retinanet())(*data), rtol=0, atol=0)
