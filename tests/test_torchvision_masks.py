"""Mask R-CNN and Keypoint R-CNN: boxes and classes by ranking, masks and keypoints as torchvision trains them."""

import copy

import detectors
import pytest
import torch
from detectors import CLASSES, SIDE
from torch import nn
from torchvision.models.detection import KeypointRCNN, MaskRCNN
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from alrp_cuda.integrations.torchvision import undo_alrp, use_alrp

POINTS = 2


def pool(size):
    return MultiScaleRoIAlign(["fine", "coarse"], size, 2)


BUILDS = {
    "mask": lambda: detectors.tiny_faster_rcnn(
        build=MaskRCNN,
        mask_roi_pool=pool(4),
        mask_head=MaskRCNNHeads(8, (8,), 1),
        mask_predictor=MaskRCNNPredictor(8, 8, CLASSES + 1),
    ),
    "keypoint": lambda: detectors.tiny_faster_rcnn(
        build=KeypointRCNN,
        keypoint_roi_pool=pool(4),
        keypoint_head=KeypointRCNNHeads(8, (8,)),
        keypoint_predictor=KeypointRCNNPredictor(8, POINTS),
    ),
}
every_kind = pytest.mark.parametrize("kind", BUILDS)


def batch(*objects):
    """Objects that fill their boxes, with a point in two corners."""
    images, targets = detectors.batch(*objects, first_label=1)
    for target in targets:
        boxes = target["boxes"]
        y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        inside = [(x >= x1) & (x < x2) & (y >= y1) & (y < y2) for x1, y1, x2, y2 in boxes]
        target["masks"] = torch.stack(inside).to(torch.uint8) if inside else torch.zeros(0, SIDE, SIDE, dtype=torch.uint8)
        corners = boxes.view(-1, POINTS, 2) * 0.9 + boxes.view(-1, POINTS, 2).mean(1, keepdim=True) * 0.1
        target["keypoints"] = torch.cat((corners, torch.ones(len(boxes), POINTS, 1)), 2)
    return images, targets


@every_kind
@pytest.mark.parametrize("objects", [(2, 0, 3), (0, 0)])
def test_boxes_are_ranked_and_the_rest_is_torchvisions(kind, objects):
    model, data = use_alrp(BUILDS[kind]()), batch(*objects)
    plain = use_alrp(detectors.tiny_faster_rcnn())
    plain.load_state_dict(model.state_dict(), strict=False)
    torch.manual_seed(0)
    losses = model(*data)
    ranked = plain(*data)
    own = losses.pop(f"loss_{kind}")
    assert losses == ranked
    # torchvision's own head, given the same proposals: all of them, which its sampler has room for here
    stock = undo_alrp(copy.deepcopy(model))
    stock.rpn, stock.roi_heads.subsample = model.rpn, model.roi_heads.subsample
    expected = stock(*data)[f"loss_{kind}"]
    assert (own > 0) == any(objects)
    torch.testing.assert_close(own, expected)
    parameters = [p for name, p in model.named_parameters() if kind in name]
    reached = torch.autograd.grad(own, parameters)
    assert all(gradient.any() == any(objects) for gradient in reached)


@every_kind
def test_as_many_positives_as_the_sampler_leaves_have_maps(kind):
    model, data = use_alrp(BUILDS[kind]()), batch(3, 2)
    model.roi_heads.fg_bg_sampler.batch_size_per_image = 8  # a quarter of them positive
    seen = []
    getattr(model.roi_heads, f"{kind}_predictor").register_forward_hook(lambda module, inputs, maps: seen.append(len(maps)))
    model(*data)
    assert seen == [4]


@every_kind
def test_training_and_evaluation_go_on_as_ever(kind):
    model, data = use_alrp(BUILDS[kind]()), batch(2, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    history = []
    for _ in range(30):
        loss = sum(model(*data).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.8 * history[0]
    model.roi_heads.score_thresh = 0.0
    found = model.eval()(data[0])[0]
    assert len(found["boxes"]) == len(found[f"{kind}s"]) > 0
    again = copy.deepcopy(model)(data[0])[0]
    torch.testing.assert_close(again, found, rtol=0, atol=0)


@every_kind
def test_undoing_brings_torchvisions_losses_back(kind):
    model, data = BUILDS[kind](), batch(2, 3)
    torch.manual_seed(0)
    before = model(*data)
    undone = undo_alrp(use_alrp(model))
    torch.manual_seed(0)
    torch.testing.assert_close(undone(*data), before, rtol=0, atol=0)
    assert not any("forward" in vars(module) for module in undone.modules() if isinstance(module, nn.Module))
