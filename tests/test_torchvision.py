"""use_alrp on torchvision's detectors: what it computes, what reaches which parameters, and what it leaves alone."""

# ruff: noqa: E402 (torchvision is optional, and what follows imports it)

import copy
import lzma
import math
import pickle
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

torchvision = pytest.importorskip("torchvision")

import detectors
import torch
from detectors import CASES, CLASSES, SIDE, ByHand, batch, calls_of, dense_by_hand, joining, ready, rows_of
from torch import Tensor, nn
from torch.nn.functional import pad, smooth_l1_loss
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.models import detection
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.ssd import SSD

from alrp_cuda import SelfBalance, correlation_loss, head_views, reference, split_targets
from alrp_cuda.integrations.rank_sort import rank_sort_by_class
from alrp_cuda.integrations.torchvision import giou_errors, iou_errors, paired_iou, undo_alrp, use_alrp

LOSSES = ("alrp", "ap", "ndcg", "rank_sort")
DENSE = [name for name in CASES if name != "faster rcnn"]
ONE_EACH = ["retinanet", "fcos", "ssd", "faster rcnn"]
Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


def quick(names: Iterable[str], fast: Collection[str]) -> list:
    """Parameters for all names; but for the fast ones they are run by make test-full."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.full) for name in names]


def owner_of_loss(model: nn.Module) -> nn.Module:
    """Whose ``compute_loss`` gets what the head puts out, and the matches."""
    return model if isinstance(model, SSD) else model.head


def total(losses: dict[str, Tensor]) -> Tensor:
    return sum(losses.values())


def as_joined(outputs: dict[str, Any], first_label: int = 0) -> dict[str, Tensor]:
    """A dense head's outputs as torchvision has them: class scores (N, A, C), of SSD with a column for the background."""
    scores = pad(rows_of(outputs["cls_logits"]), (first_label, 0))
    return {name: value for name, value in outputs.items() if isinstance(value, Tensor)} | {"cls_logits": scores}


def leaves(outputs: dict[str, Any], first_label: int = 0) -> dict[str, Tensor]:
    return {name: value.detach().clone().requires_grad_() for name, value in as_joined(outputs, first_label).items()}


def assert_same_gradients(
    losses: Tensor, outputs: list[Tensor | list[Tensor]], expected: Tensor, leaf: list[Tensor], columns: int = CLASSES
) -> None:
    """Of outputs, among them lists of class maps, and of leaves by hand that stand for them."""
    by_hand = torch.autograd.grad(expected, leaf, retain_graph=True)
    for output, hand in zip(outputs, by_hand, strict=True):
        grads = torch.autograd.grad(losses, output, retain_graph=True)
        if isinstance(output, Tensor):
            (grad,) = grads
        else:
            grad = rows_of(list(grads), columns)
            hand = hand.reshape(*grad.shape[:-1], -1)[..., -columns:]
        assert grad.any()
        torch.testing.assert_close(grad, hand, rtol=2e-4, atol=1e-7)


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", CASES)
def test_training_lowers_the_loss(name, loss):
    model, data = ready(name, 2, 0, 3, loss=loss)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    history = []
    for _ in range(25):
        losses = model(*data)
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
        history.append(total(losses).item())
    assert sum(history[-3:]) < 0.9 * sum(history[:3])


@pytest.mark.parametrize("name", CASES)
def test_losses_keep_their_names_and_reach_every_parameter(name):
    build, _, first_label = CASES[name]
    model, data = ready(name, 2, 3)
    losses = model(*data)
    assert list(losses) == list(build()(*batch(2, 3, first_label=first_label)))
    assert all(loss.isfinite() for loss in losses.values())
    assert all(loss > 0 for key, loss in losses.items() if key != "bbox_ctrness" or "centerness" in name)
    total(losses).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any() or (name == "fcos" and "bbox_ctrness" in key), key


STOCK = {
    "retinanet_resnet50_fpn": {"min_size": SIDE, "max_size": SIDE},
    "retinanet_resnet50_fpn_v2": {"min_size": SIDE, "max_size": SIDE},
    "fcos_resnet50_fpn": {"min_size": SIDE, "max_size": SIDE},
    "ssd300_vgg16": {},
    "ssdlite320_mobilenet_v3_large": {},
    "fasterrcnn_resnet50_fpn": {"min_size": SIDE, "max_size": SIDE, "rpn_post_nms_top_n_train": 20},
    "fasterrcnn_resnet50_fpn_v2": {"min_size": SIDE, "max_size": SIDE, "rpn_post_nms_top_n_train": 20},
    "fasterrcnn_mobilenet_v3_large_320_fpn": {"rpn_post_nms_top_n_train": 20},
}


@pytest.mark.slow
@pytest.mark.parametrize("builder", quick(STOCK, [name for name in STOCK if name != "ssd300_vgg16"]))
def test_stock_models_need_one_line(builder):
    torch.manual_seed(0)
    build = getattr(detection, builder)
    model = build(weights=None, weights_backbone=None, num_classes=CLASSES + 1, **STOCK[builder])
    model = use_alrp(model)
    losses = model(*batch(1, 0, first_label=1))
    assert all(loss.isfinite() for loss in losses.values())
    total(losses).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


# --- the same loss by hand -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"errors": "iou", "tau": 0.3, "delta": 0.25}])
@pytest.mark.parametrize("objects", [(2, 3), (0, 2, 0, 1)])
@pytest.mark.parametrize("name", DENSE)
def test_a_batch_is_one_ranking(name, objects, settings):
    model, data = ready(name, *objects, **settings)
    with calls_of(owner_of_loss(model), "compute_loss") as calls:
        losses = model(*data)
    (call,) = calls
    outputs = call[1]
    if name == "retinanet":
        assert any((m == -2).any() for m in call[3]), "the case should have ignored anchors"
    by_hand = leaves(outputs, CASES[name][2])
    hand = dense_by_hand(model, call, by_hand, CASES[name][2])
    assert len(hand.boxes) > 2
    cls, loc = hand.alrp(settings.get("errors", "giou"), settings.get("tau", 0.5), settings.get("delta", 1.0))
    torch.testing.assert_close(losses["classification"], cls, rtol=2e-5, atol=0)
    torch.testing.assert_close(losses["bbox_regression"], loc, rtol=2e-5, atol=0)
    parts = ["cls_logits", "bbox_regression"]
    found = losses["classification"] + losses["bbox_regression"]
    assert_same_gradients(found, [outputs[p] for p in parts], cls + loc, [by_hand[p] for p in parts])


def faster_rcnn_by_hand(
    model: FasterRCNN, data: Batch
) -> tuple[dict[str, Tensor], list[tuple[Any, Tensor]], ByHand, ByHand, list[tuple[Tensor, Tensor]]]:
    """(losses, outputs of both stages, both by hand, their leaves) of a call of the model."""
    rois: list[tuple] = []
    handle = model.roi_heads.box_predictor.register_forward_hook(lambda module, args, outputs: rois.append(outputs))
    with (
        calls_of(model.rpn, "compute_loss") as rpn_calls,
        calls_of(model.rpn, "assign_targets_to_anchors") as assigned,
        calls_of(model.roi_heads, "select_training_samples") as selected,
    ):
        losses = model(*data)
    handle.remove()
    objectness, codes = rpn_calls[0][:2]
    outputs = [(objectness, codes), rois[0]]
    joined = [(rows_of(objectness, 1).flatten(0, 1), codes), rois[0]]
    leaf = [tuple(t.detach().clone().requires_grad_() for t in pair) for pair in joined]
    targets = data[1]
    first = detectors.rpn_by_hand(model, assigned[0][0], targets, *leaf[0])
    second = detectors.box_head_by_hand(model, selected[0][-1][0], targets, *leaf[1])
    return losses, outputs, first, second, leaf


@pytest.mark.parametrize("settings", [{}, {"errors": "iou", "tau": 0.3, "rpn_tau": 0.2, "rpn_weight": 3.0, "delta": 0.25}])
@pytest.mark.parametrize("objects", [(2, 3), (0, 2, 0, 1)])
def test_both_stages_rank_everything(objects, settings):
    model, data = ready("faster rcnn", *objects, **settings)
    losses, outputs, rpn, heads, leaf = faster_rcnn_by_hand(model, data)
    assert (rpn.labels == -1).any(), "the case should have ignored anchors"
    assert len(rpn.boxes) > 2
    assert len(heads.boxes) > len(data[1]), "positives beside the objects themselves"
    assert len(heads.labels) > 60
    kind, delta, weight = settings.get("errors", "giou"), settings.get("delta", 1.0), settings.get("rpn_weight", 0.2)
    objectness, rpn_box = (weight * v for v in rpn.alrp(kind, settings.get("rpn_tau", 0.7), delta))
    cls, box = heads.alrp(kind, settings.get("tau", 0.5), delta)
    expected = {"loss_classifier": cls, "loss_box_reg": box, "loss_objectness": objectness, "loss_rpn_box_reg": rpn_box}
    for key in losses:
        torch.testing.assert_close(losses[key], expected[key], rtol=2e-5, atol=0)
    flat = [t for pair in outputs for t in pair], [t for pair in leaf for t in pair]
    assert_same_gradients(total(losses), flat[0], total(expected), flat[1], columns=1)
    (grad,) = torch.autograd.grad(losses["loss_box_reg"], outputs[1][1])
    assert len(grad.any(1).nonzero()) == len(heads.boxes), "the boxes' gradient belongs to the positives alone"


def one_hot_of(hand: ByHand, values: Tensor) -> Tensor:
    labels = hand.labels.clone()
    labels[labels == 1] = values
    return labels.flatten()


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("loss", ["ap", "ndcg"])
def test_losses_without_boxes_keep_the_models_box_loss(name, loss):
    model, data = ready(name, 2, 0, 3, loss=loss)
    with calls_of(owner_of_loss(model), "compute_loss") as calls:
        losses = model(*data)
    outputs = calls[0][1]
    by_hand = leaves(outputs, CASES[name][2])
    hand = dense_by_hand(model, calls[0], by_hand, CASES[name][2])
    expected = getattr(reference, f"{loss}_loss")(hand.logits.flatten(), hand.labels.flatten())
    torch.testing.assert_close(losses["classification"], expected, rtol=2e-5, atol=0)
    # torchvision's own loss on the same outputs and matches
    owner = owner_of_loss(model)
    own = type(owner).compute_loss(owner, calls[0][0], by_hand, *calls[0][2:4])["bbox_regression"]
    torch.testing.assert_close(losses["bbox_regression"], own, rtol=1e-5, atol=0)
    found = losses["classification"] + losses["bbox_regression"]
    parts = ["cls_logits", "bbox_regression"]
    assert_same_gradients(found, [outputs[p] for p in parts], expected + own, [by_hand[p] for p in parts])


@pytest.mark.parametrize("loss", ["ap", "ndcg"])
def test_losses_without_boxes_keep_smooth_l1_in_both_stages(loss):
    model, data = ready("faster rcnn", 2, 3, loss=loss)
    losses, outputs, rpn, heads, leaf = faster_rcnn_by_hand(model, data)
    of_ranking = getattr(reference, f"{loss}_loss")
    with calls_of(model.roi_heads, "select_training_samples") as selected:
        again = model(*data)
    torch.testing.assert_close(again, losses, rtol=0, atol=0)
    *_, (_, _, labels, targets) = selected[0]
    label, target = torch.cat(labels), torch.cat(targets)
    positive = label > 0
    codes = leaf[1][1].view(len(label), -1, 4)[positive, label[positive]]
    box = smooth_l1_loss(codes, target[positive], beta=1 / 9, reduction="sum") / positive.sum()
    cls = of_ranking(heads.logits.flatten(), heads.labels.flatten())
    torch.testing.assert_close(losses["loss_classifier"], cls, rtol=2e-5, atol=0)
    torch.testing.assert_close(losses["loss_box_reg"], box, rtol=1e-5, atol=0)
    assert_same_gradients(losses["loss_classifier"] + losses["loss_box_reg"], [*outputs[1]], cls + box, [*leaf[1]])
    objectness = 0.2 * of_ranking(rpn.logits.flatten(), rpn.labels.flatten())
    torch.testing.assert_close(losses["loss_objectness"], objectness, rtol=2e-5, atol=0)
    assert 0 < losses["loss_rpn_box_reg"] < 1


def test_options_reach_the_ranking():
    options = {"delta": 0.5, "eps": 2.0, "interpolate": True}
    model, data = ready("retinanet", 2, 3, loss="ap", loss_weight=0.5, **options)
    with calls_of(model.head, "compute_loss") as calls:
        losses = model(*data)
    outputs = calls[0][1]
    by_hand = leaves(outputs)
    hand = dense_by_hand(model, calls[0], by_hand, 0)
    expected = 0.5 * reference.ap_loss(hand.logits.flatten(), hand.labels.flatten(), **options)
    torch.testing.assert_close(losses["classification"], expected, rtol=2e-5, atol=0)
    assert_same_gradients(losses["classification"], [outputs["cls_logits"]], expected, [by_hand["cls_logits"]])


def correlated(hand: ByHand, weight: float) -> Tensor:
    """Correlation Loss of positives alone, from dense labels."""
    return weight * correlation_loss(hand.logits[hand.labels == 1].sigmoid(), 1 - hand.errors("iou", 0.0))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", DENSE)
def test_correlation_loss_joins_the_class_loss(name, loss):
    model, data = ready(name, 2, 0, 3, loss=loss, correlation=0.3, loss_weight=2.0)
    with calls_of(owner_of_loss(model), "compute_loss") as calls:
        losses = model(*data)
    outputs = calls[0][1]
    by_hand = leaves(outputs, CASES[name][2])
    owner = owner_of_loss(model)
    owner.ranking.correlation = 0.0
    without = owner.compute_loss(*calls[0][:4])
    more = 2 * correlated(dense_by_hand(model, calls[0], by_hand, CASES[name][2]), 0.3)
    assert more > 0.1
    torch.testing.assert_close(losses["classification"], without["classification"] + more, rtol=2e-5, atol=0)
    assert losses["bbox_regression"] == without["bbox_regression"]
    difference = losses["classification"] - without["classification"]
    assert_same_gradients(difference, [outputs["cls_logits"]], more, [by_hand["cls_logits"]])


def test_correlation_loss_is_of_the_box_head_alone():
    model, data = ready("faster rcnn", 2, 3, correlation=0.3)
    losses, _, _, heads, _ = faster_rcnn_by_hand(model, data)
    without, _ = ready("faster rcnn", 2, 3)
    expected = without(*data)
    expected["loss_classifier"] += correlated(heads, 0.3)
    torch.testing.assert_close(losses, expected, rtol=2e-5, atol=0)


@pytest.mark.parametrize("name", ONE_EACH)
def test_loss_weight_is_of_both_losses_but_not_of_the_rpn(name):
    once, twice = (ready(name, 2, 3, loss_weight=weight) for weight in (1.0, 2.0))
    expected = once[0](*once[1])
    for key, loss in twice[0](*twice[1]).items():
        assert loss == expected[key] * (1 if "rpn" in key or key == "loss_objectness" else 2)


@pytest.mark.parametrize("errors", ["giou", "iou"])
@pytest.mark.parametrize("name", DENSE)
def test_rank_and_sort_of_dense_labels(name, errors):
    model, data = ready(name, 2, 0, 3, loss="rank_sort", errors=errors)
    with calls_of(owner_of_loss(model), "compute_loss") as calls:
        losses = model(*data)
    outputs = calls[0][1]
    by_hand = leaves(outputs, CASES[name][2])
    hand = dense_by_hand(model, calls[0], by_hand, CASES[name][2])
    overlap = 1 - hand.errors("iou", 0.0).detach()
    out = reference.rank_sort_loss(hand.logits.flatten(), one_hot_of(hand, overlap.clamp(min=1e-6)))
    box = hand.errors(errors, 0.0).mean()
    cls = out.rank + out.sort
    torch.testing.assert_close(losses["classification"], cls, rtol=2e-5, atol=0)
    torch.testing.assert_close(losses["bbox_regression"], box, rtol=2e-5, atol=0)
    parts = ["cls_logits", "bbox_regression"]
    found = losses["classification"] + losses["bbox_regression"]
    expected = cls + box * (cls / box).detach()
    assert_same_gradients(found, [outputs[p] for p in parts], expected, [by_hand[p] for p in parts])


@pytest.mark.parametrize("delta", [0.0, 0.5, 2.0])
def test_rank_and_sort_by_class_is_that_of_dense_labels(delta):
    torch.manual_seed(1)
    logits, classes = torch.randn(40, 3, dtype=torch.float64), torch.full((40,), 3)
    classes[:9], classes[9:12], labels = torch.randint(3, (9,)), -1, torch.rand(9)
    dense = torch.zeros(40, 3)
    dense[torch.arange(9), classes[:9]] = labels
    dense[9:12] = -1
    a, b = (logits.clone().requires_grad_() for _ in range(2))
    out, expected = rank_sort_by_class(a, classes, labels, delta=delta), reference.rank_sort_loss(b, dense, delta=delta)
    torch.testing.assert_close(out.rank, expected.rank)
    torch.testing.assert_close(out.sort, expected.sort, rtol=1e-6, atol=0)
    (2 * out.rank + out.sort).backward()
    (2 * expected.rank + expected.sort).backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-12)


def test_rank_and_sort_by_class_makes_no_tensor_of_the_logits_size_but_gradients():
    torch.manual_seed(0)
    maps = [torch.randn(2, 6, side, side, requires_grad=True) for side in (7, 4)]
    targets = [torch.randint(6, (2, side, side, 2)).clamp(max=3) for side in (7, 4)]
    labels = torch.rand(sum(int((t < 3).sum()) for t in targets))
    out = rank_sort_by_class(head_views(maps, 3), targets, labels)
    with Made({m.numel() for m in maps}) as made:
        gradients = torch.autograd.grad(out.rank + out.sort, maps)
    assert made.seen == Counter({"alrp_cuda.ranking_gradients": len(maps)})
    joined = [m.detach().requires_grad_() for m in maps]
    rows = torch.cat([v.reshape(-1, 3) for v in head_views(joined, 3)])
    dense = torch.zeros_like(rows)
    classes = torch.cat([t.flatten() for t in targets])
    row = (classes < 3).nonzero()[:, 0]
    dense[row, classes[row]] = labels
    want = reference.rank_sort_loss(rows, dense, delta=0.5)
    for got, expected in zip(gradients, torch.autograd.grad(want.rank + want.sort, joined), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.rand(2), "labels must be the number|labels must"),
        (torch.rand(3, 1), r"labels must have shape \(P,\), got \(3, 1\)"),
        ([0.5] * 3, r"labels must be a torch\.Tensor, got list"),
        (torch.ones(3, dtype=torch.int64), "labels must have one of the dtypes"),
    ],
)
def test_labels_of_rank_and_sort_that_do_not_fit_are_named(labels, words):
    with pytest.raises((TypeError, ValueError), match=words):
        rank_sort_by_class(torch.randn(4, 2), torch.tensor([0, 1, 1, 2]), labels)


@pytest.mark.parametrize("name", [*DENSE, "faster rcnn"])
@pytest.mark.parametrize("wrong", [-1, 99])
def test_a_label_of_no_class_is_named(name, wrong):
    model, (images, targets) = ready(name, 2, 3)
    for target in targets:
        target["labels"] = torch.full_like(target["labels"], wrong)
    with pytest.raises(ValueError, match=f'"labels" must be . to ., got {wrong} to {wrong}'):
        model(images, targets)


def test_centre_ness_is_trained_as_torchvision_does():
    model, data = ready("fcos centerness", 2, 0, 3)
    with calls_of(model.head, "compute_loss") as calls:
        losses = model(*data)
    targets, outputs, *rest, _ = calls[0]
    own = type(model.head).compute_loss(model.head, targets, as_joined(outputs), *rest)
    torch.testing.assert_close(losses["bbox_ctrness"], own["bbox_ctrness"], rtol=1e-5, atol=0)
    codes = model.head.regression_head.bbox_ctrness.weight
    assert_same_gradients(losses["bbox_ctrness"], [codes], own["bbox_ctrness"], [codes])


def test_errors_of_known_boxes():
    predicted = torch.tensor([[0.0, 0.0, 10.0, 10.0]] * 3)
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [10.0, 10.0, 20.0, 20.0]])
    # IoU 1, 1/2 and 0; GIoU 1, 1/2 and 0 - (400 - 200) / 400
    torch.testing.assert_close(paired_iou(predicted, boxes), torch.tensor([1.0, 0.5, 0.0]))
    torch.testing.assert_close(giou_errors(predicted, boxes), torch.tensor([0.0, 0.5, 1.5]))
    torch.testing.assert_close(iou_errors(predicted, boxes, 0.6), torch.tensor([0.0, 1.25, 2.5]))

    shifted = (predicted[:2] + torch.rand(2, 4)).double().requires_grad_()
    for errors in (giou_errors, iou_errors):
        torch.autograd.gradcheck(lambda p, errors=errors: errors(p, boxes[:2].double()), shifted)


@pytest.mark.parametrize("errors", [iou_errors, giou_errors])
def test_boxes_that_do_not_fit_are_named(errors):
    boxes = torch.rand(4, 4)
    for other in (boxes[:1], boxes[0], boxes[:, :2]):
        with pytest.raises(ValueError, match=r"predicted and boxes must both have shape \(P, 4\), got"):
            errors(boxes, other)
    with pytest.raises(TypeError, match=r"boxes must be a torch\.Tensor, got list"):
        errors(boxes, boxes.tolist())
    for tau in (1, 2.0, -0.1):
        with pytest.raises(ValueError, match="tau must be"):
            errors(boxes, boxes, tau)


# --- balance ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE_EACH)
def test_balance_weighs_the_gradient_of_boxes_alone(name):
    grads = []
    for balance in (1.0, 50.0):
        model, data = ready(name, 2, 3, balance=balance)
        losses = model(*data)
        boxes = [loss for key, loss in losses.items() if key in ("bbox_regression", "loss_box_reg", "loss_rpn_box_reg")]
        others = [loss for key, loss in losses.items() if not any(loss is box for box in boxes)]
        parameters = list(model.parameters())
        of_boxes = torch.autograd.grad(sum(boxes), parameters, retain_graph=True, allow_unused=True)
        of_others = torch.autograd.grad(sum(others), parameters, allow_unused=True)
        grads.append((of_boxes, of_others, list(losses.values())))
    torch.testing.assert_close(grads[1][2], grads[0][2], rtol=0, atol=0)
    for once, often in zip(grads[0][0], grads[1][0], strict=True):
        assert (once is None) == (often is None)
        if once is not None:
            torch.testing.assert_close(often, 50 * once, rtol=1e-4, atol=1e-6)
    for once, often in zip(grads[0][1], grads[1][1], strict=True):
        assert once is often is None or torch.equal(once, often)


@pytest.mark.parametrize("name", ONE_EACH)
def test_self_balancing_is_saved_with_the_model(name):
    build, own, _ = CASES[name]
    model, data = ready(name, 2, 3, balance="self", epoch_length=2)
    balances = [m for m in model.modules() if isinstance(m, SelfBalance)]
    assert len(balances) == (2 if name == "faster rcnn" else 1)
    assert set(build().state_dict()) <= set(model.state_dict())
    for _ in range(3):
        losses = model(*data)
    assert all(b.weight != 50 and b.iteration == 1 for b in balances)
    keys = ["classification", "bbox_regression"] if name != "faster rcnn" else ["loss_classifier", "loss_box_reg"]
    cls, box = (losses[key].item() for key in keys)
    assert balances[-1].weight.item() == pytest.approx((cls + box) / box, rel=1e-6), "no step was taken"

    resumed = use_alrp(build(), **own, balance="self", epoch_length=2)
    resumed.load_state_dict(model.state_dict())
    found = [b for b in resumed.modules() if isinstance(b, SelfBalance)]
    assert [(b.weight, b.iteration) for b in found] == [(b.weight, b.iteration) for b in balances]
    model.eval()(data[0])
    assert all(b.iteration == 1 for b in balances), "evaluation does not count"


def test_epochs_may_be_signalled():
    model, data = ready("fcos", 2, balance="self")
    model(*data)
    for module in model.modules():
        if isinstance(module, SelfBalance):
            module.end_epoch()
    assert model.head.ranking.balance.weight < 50


# --- class maps where they lie ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", CASES)
def test_maps_train_as_joined_scores_do(name, loss):
    """The loss reads the maps, and every parameter gets the gradient that it gets where they are permuted and joined before."""
    (model, data), (other, _) = (ready(name, 2, 0, 3, loss=loss) for _ in range(2))
    joining(other)
    losses, expected = model(*data), other(*data)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=0)
    total(losses).backward()
    total(expected).backward()
    for (key, parameter), joined in zip(model.named_parameters(), other.parameters(), strict=True):
        scale = float(joined.grad.abs().max())
        torch.testing.assert_close(parameter.grad, joined.grad, rtol=1e-3, atol=1e-5 * scale, msg=lambda m, k=key: f"{k}: {m}")


class Made(TorchDispatchMode):
    """The operators that make tensors of one of these numbers of elements, in memory of their own, and how many."""

    def __init__(self, sizes: set[int]) -> None:
        super().__init__()
        self.sizes, self.seen = sizes, Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and made.numel() in self.sizes and made.untyped_storage().data_ptr() not in given:
                self.seen[str(func.overloadpacket)] += 1
        return result


class Copies(TorchDispatchMode):
    """The operators that copy a tensor of one of these numbers of elements, and how often."""

    def __init__(self, sizes: set[int]) -> None:
        super().__init__()
        self.sizes, self.seen = sizes, Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        name = str(func.overloadpacket)
        if name in ("aten.cat", "aten.clone", "aten.copy_", "aten._to_copy") and result.numel() in self.sizes:
            self.seen[name] += 1
        return result


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("correlation", [0.0, 0.2])
def test_no_class_map_is_copied(name, correlation):
    """In a whole step, forward and backward."""
    model, data = ready(name, 2, 3, correlation=correlation)
    with calls_of(owner_of_loss(model), "compute_loss") as calls:
        model(*data)
    _, outputs, *_ = calls[0]
    levels = [level.numel() for level in outputs["cls_logits"]]
    columns = CLASSES + CASES[name][2]  # that torchvision joins, of SSD with the background's
    joined = sum(levels) // CLASSES * columns

    def copies(of: set[int]) -> Counter:
        with Copies(of) as copied:
            torch.autograd.grad(total(model(*data)), list(model.parameters()), allow_unused=True)
        return copied.seen

    assert not copies({*levels, sum(levels)})
    of_boxes = outputs["bbox_regression"].numel() == joined
    joining(model)
    assert copies({joined})["aten.cat"] == 1 + of_boxes, "a head that joins its maps is noticed"


def test_the_rpn_learns_from_its_maps():
    """Proposals are chosen by joined scores, through which no gradient flows."""
    model, data = ready("faster rcnn", 2, 3)
    with calls_of(model.rpn, "compute_loss") as calls, calls_of(model.rpn, "filter_proposals") as chosen:
        losses = model(*data)
    assert [tuple(level.shape[:2]) for level in calls[0][0]] == [(2, 4), (2, 4)]
    assert not chosen[0][1].requires_grad
    assert all(g.any() for g in torch.autograd.grad(losses["loss_objectness"], calls[0][0]))


class OwnScores(type(detectors.tiny_retinanet().head.classification_head)):
    """A class head that joins its maps itself."""

    def forward(self, x: list[Tensor]) -> Tensor:
        return super().forward(x)


class OwnLevels(type(detectors.tiny_ssd().head.classification_head)):
    def forward(self, x: list[Tensor]) -> Tensor:
        return super().forward(x)


class OwnProposals(type(detectors.tiny_faster_rcnn().rpn)):
    def forward(self, *arguments: Any) -> Any:
        return super().forward(*arguments)


class OwnModel(type(detectors.tiny_fcos())):
    def compute_loss(self, *arguments: Any) -> dict[str, Tensor]:
        return super().compute_loss(*arguments)


PARTS = {
    "retinanet": ("head.classification_head", OwnScores),
    "fcos": ("", OwnModel),
    "ssd": ("head.classification_head", OwnLevels),
    "faster rcnn": ("rpn", OwnProposals),
}


@pytest.mark.parametrize("name", PARTS)
def test_what_is_not_torchvisions_keeps_its_own_way_and_says_so(name):
    build, _, first_label = CASES[name]
    data = batch(2, 3, first_label=first_label)
    own, stock = build(), use_alrp(build())
    path, kind = PARTS[name]
    own.get_submodule(path).__class__ = kind
    with pytest.warns(
        UserWarning, match=rf"{type(own).__name__}: .* class scores in its own way, .* permuted and joined"
    ) as said:
        use_alrp(own)
    assert len(said) == 1
    assert said[0].filename == __file__
    losses, expected = own(*data), stock(*data)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=0)
    total(losses).backward()
    undo_alrp(own)
    assert "forward" not in vars(own.get_submodule(path))


def test_a_last_layer_of_another_kind_keeps_the_ssds_own_way():
    model = detectors.tiny_ssd()
    levels = model.head.classification_head.module_list
    levels[0] = nn.Sequential(levels[0], nn.Identity())
    with pytest.warns(UserWarning, match="SSD: .* class scores in its own way"):
        use_alrp(model)
    assert all(value.isfinite() for value in model(*batch(2, 3, first_label=1)).values())


# --- special batches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", CASES)
def test_no_object_in_the_batch_gives_zero_connected_losses(name, loss):
    model, data = ready(name, 0, 0, loss=loss)
    losses = model(*data)
    assert all(value == 0 for value in losses.values())
    total(losses).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert not parameter.grad.any(), key


@pytest.mark.parametrize("name", [name for name in DENSE if name != "fcos"])  # where a few negatives rank with positives
def test_an_image_without_objects_adds_negatives_only(name):
    model, (images, targets) = ready(name, 2, 0)
    alone, together = model(images[:1], targets[:1]), model(images, targets)
    assert together["classification"] > alone["classification"]
    assert together["bbox_regression"] < alone["bbox_regression"], "more negatives above, same errors"


def test_anchors_between_thresholds_take_no_part():
    model, data = ready("retinanet", 2, 3)
    with calls_of(model.head, "compute_loss") as calls:
        before = model(*data)
    targets, outputs, anchors, matched_idxs, _ = calls[0]
    ignored = torch.stack(matched_idxs) == -2
    assert ignored.any()
    maps = [level.detach().clone() for level in outputs["cls_logits"]]
    for view, rows in zip(head_views(maps, CLASSES), split_targets(ignored, maps, CLASSES), strict=True):
        view[rows] = 9.0
    changed = {**outputs, "cls_logits": [level.requires_grad_() for level in maps]}
    after = model.head.compute_loss(targets, changed, anchors, matched_idxs)
    for name in before:
        assert torch.equal(before[name], after[name])
    grads = torch.autograd.grad(after["classification"], maps)
    assert not rows_of(list(grads))[ignored].any()


def test_proposals_between_thresholds_take_no_part():
    model, data = ready("faster rcnn", 2, 3)
    outcomes = []
    for low in (0.5, 0.1):
        model.roi_heads.proposal_matcher.low_threshold = low
        with calls_of(model.roi_heads, "subsample") as calls:
            losses = model(*data)
        outcomes.append((sum(len(image) for image in calls[0][-1]), losses["loss_classifier"]))
    (every, before), (fewer, after) = outcomes
    assert fewer < every
    assert after < before, "fewer negatives, the same positives"


@pytest.mark.parametrize("name", ONE_EACH)
def test_label_outside_the_classes_is_an_error(name):
    model, (images, targets) = ready(name, 2)
    targets[0]["labels"][0] = CLASSES + CASES[name][2]
    with pytest.raises((ValueError, IndexError), match=r"targets|loc_errors|out of bounds"):
        model(images, targets)


# --- frameworks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["alrp", "ap", "rank_sort"])
@pytest.mark.parametrize("name", CASES)
def test_trains_in_mixed_precision(name, loss):
    model, data = ready(name, 2, 0, 3, loss=loss)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(*data)
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    total(losses).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", ["retinanet", "fcos", "ssd"])
def test_mixed_precision_outputs_are_decoded_in_float32(name):
    model, data = ready(name, 2, 3)
    owner = owner_of_loss(model)
    with calls_of(owner, "compute_loss") as calls:
        model(*data)
    targets, outputs, anchors, matched_idxs, _ = calls[0]
    half = {key: cast(value, torch.bfloat16) for key, value in outputs.items()}
    full = {key: cast(value, torch.float32) for key, value in half.items()}
    losses, expected = (owner.compute_loss(targets, o, anchors, matched_idxs) for o in (half, full))
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=0, check_dtype=False)
    total(losses).backward()
    assert {leaf.grad.dtype for leaf in (*half["cls_logits"], half["bbox_regression"])} == {torch.bfloat16}


def cast(value: Any, dtype: torch.dtype) -> Any:
    """An output of a head as a leaf, or as many."""
    return value.detach().to(dtype).requires_grad_() if isinstance(value, Tensor) else [cast(level, dtype) for level in value]


@pytest.mark.slow
@pytest.mark.parametrize("name", quick(CASES, ["retinanet atss"]))
def test_compiles(name):
    model, data = ready(name, 2, 0, 3)
    compiled = torch.compile(copy.deepcopy(model), backend="eager")
    losses, expected = compiled(*data), model(*data)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-7)
    total(losses).backward()
    assert all(p.grad is not None for p in compiled.parameters())


# --- evaluation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_evaluation_gives_detections(name):
    model, (images, _) = ready(name, 1, 2)
    (model.roi_heads if name == "faster rcnn" else model).score_thresh = 0.0
    for found in model.eval()(images):
        boxes, scores, labels = found["boxes"], found["scores"], found["labels"]
        assert len(boxes) == len(scores) == len(labels) > 0
        assert (boxes[:, 2:] >= boxes[:, :2]).all()
        assert ((boxes >= 0) & (boxes <= SIDE)).all()
        assert ((scores >= 0) & (scores <= 1)).all()
        assert (scores.diff() <= 0).all()
        first_label = CASES[name][2]
        assert ((labels >= first_label) & (labels < CLASSES + first_label)).all()


@pytest.mark.parametrize("name", ["retinanet", "retinanet v2", "retinanet atss", "fcos centerness"])
def test_evaluation_stays(name):
    plain = CASES[name][0]()
    model, (images, _) = ready(name, 1, 2)
    plain.score_thresh = model.score_thresh = 0.005
    for found, expected in zip(model.eval()(images), plain.eval()(images), strict=True):
        assert len(found["boxes"])
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_evaluation_without_centre_ness_scores_by_class():
    model, (images, _) = ready("fcos", 1)
    model.eval().nms_thresh = 1.0
    model.score_thresh, model.detections_per_img = 0.1, 10**6
    outputs = []
    handle = model.head.register_forward_hook(lambda module, args, output: outputs.append(output))
    (found,) = model(images)
    handle.remove()
    scores = outputs[0]["cls_logits"].sigmoid().sqrt().flatten()
    expected = scores[scores > 0.1].sort(descending=True).values
    assert 0 < len(expected) < len(scores)
    torch.testing.assert_close(found["scores"], expected)


def sigmoid_detections(logits: Tensor, boxes: Tensor, threshold: float, nms: float, limit: int) -> list[tuple[float, int, list]]:
    """(score, label, box) of one image, one class at a time; logits (A, C), boxes (A, C, 4) or (A, 1, 4)."""
    found = []
    for c in range(logits.shape[1]):
        scores, own = logits[:, c].sigmoid(), boxes[:, min(c, boxes.shape[1] - 1)].clamp(0, SIDE)
        keep = scores > threshold
        kept = torchvision.ops.nms(own[keep], scores[keep], nms)
        found += [(scores[keep][k].item(), c + 1, own[keep][k].tolist()) for k in kept]
    return sorted(found, reverse=True)[:limit]


def assert_detects(found: dict[str, Tensor], expected: list[tuple[float, int, list]]) -> None:
    assert len(found["scores"]) == len(expected) > 5
    assert len(set(found["labels"].tolist())) > 1
    torch.testing.assert_close(found["scores"], torch.tensor([e[0] for e in expected]))
    assert found["labels"].tolist() == [e[1] for e in expected]
    torch.testing.assert_close(found["boxes"], torch.tensor([e[2] for e in expected]), rtol=1e-4, atol=1e-3)


def test_ssd_scores_by_sigmoid():
    model, (images, _) = ready("ssd", 1, 2, prior_probability=None)
    model.eval().score_thresh = 0.6
    outputs = []
    model.head.register_forward_hook(lambda module, args, output: outputs.append(output))
    with calls_of(model, "postprocess_detections") as calls:
        found = model(images)
    for image, detections in enumerate(found):
        logits, codes = outputs[0]["cls_logits"][image, :, 1:], outputs[0]["bbox_regression"][image]
        boxes = model.box_coder.decode_single(codes, calls[0][1][image])
        assert_detects(detections, sigmoid_detections(logits, boxes[:, None], 0.6, model.nms_thresh, 200))


def test_box_head_scores_by_sigmoid():
    model, (images, _) = ready("faster rcnn", 1, 2, prior_probability=None)
    model.eval().roi_heads.score_thresh = 0.3
    with calls_of(model.roi_heads, "postprocess_detections") as calls:
        found = model(images)
    logits, codes, proposals, *_ = calls[0]
    start = 0
    for detections, own in zip(found, proposals, strict=True):
        rows = slice(start, start := start + len(own))
        boxes = model.roi_heads.box_coder.decode(codes[rows], [own])[:, 1:]
        assert_detects(detections, sigmoid_detections(logits[rows, 1:], boxes, 0.3, 0.5, 100))


def test_the_background_column_takes_no_part():
    for name in ("ssd", "faster rcnn"):
        model, data = ready(name, 2, 3)
        layer = model.head.classification_head.module_list[0] if name == "ssd" else model.roi_heads.box_predictor.cls_score
        outputs = []
        for _ in range(2):
            outputs.append((model.train()(*data), model.eval()(data[0])))
            with torch.no_grad():
                layer.bias.view(-1, CLASSES + 1)[:, 0] += 5.0
        torch.testing.assert_close(outputs[0][0], outputs[1][0], rtol=0, atol=0)
        assert all(torch.equal(a[key], b[key]) for a, b in zip(outputs[0][1], outputs[1][1], strict=True) for key in a)


# --- the bias that class logits begin with ------------------------------------------------------------------------------


def ssdlite() -> SSD:
    torch.manual_seed(0)
    return detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES + 1)


# Detectors whose class bias is as torchvision's initialisers leave it, the range of these, and the columns of an anchor.
HEADS = {
    "retinanet": (detectors.tiny_retinanet, -math.log(99), 0.0, CLASSES),
    "fcos": (detectors.tiny_fcos, -math.log(99), 0.0, CLASSES),
    "ssd": (detectors.tiny_ssd, 0.0, 0.0, CLASSES + 1),
    "ssdlite": (ssdlite, 0.0, 0.0, CLASSES + 1),
    "faster rcnn": (detectors.tiny_faster_rcnn, 0.0, 1 / 4, CLASSES + 1),  # of 16 features
}


def class_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that put out the class logits, one a level where each has its own."""
    if isinstance(model, FasterRCNN):
        return [model.roi_heads.box_predictor.cls_score]
    if isinstance(model, SSD):
        return [list(level.modules())[-1] for level in model.head.classification_head.module_list]
    return [model.head.classification_head.cls_logits]


def class_biases(model: nn.Module) -> list[Tensor]:
    return [layer.bias.detach().clone() for layer in class_layers(model)]


def is_same(some: list[Tensor], others: list[Tensor]) -> bool:
    """Bit by bit."""
    return len(some) == len(others) and all(map(torch.equal, some, others))


@pytest.mark.slow
@pytest.mark.parametrize("builder", quick(["fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large"], STOCK))
def test_few_scores_pass_the_threshold_at_first(builder):
    passing = {}
    for prior in (None, 0.01):
        torch.manual_seed(0)
        model = getattr(detection, builder)(weights=None, weights_backbone=None, num_classes=CLASSES + 1)
        model = use_alrp(model, prior_probability=prior).eval()
        with calls_of(owner_of_detections(model), "postprocess_detections") as calls:
            model(batch(1, 1)[0])
        outputs = calls[0][0]
        logits = outputs["cls_logits"] if isinstance(outputs, dict) else outputs
        passing[prior] = (logits[..., 1:].sigmoid() > 0.05).float().mean()  # Faster R-CNN's threshold
    assert passing == {None: 1, 0.01: 0}


def owner_of_detections(model: nn.Module) -> nn.Module:
    return model.roi_heads if isinstance(model, FasterRCNN) else model


@pytest.mark.parametrize("prior", [None, 0.01, 0.2])
@pytest.mark.parametrize("name", HEADS)
def test_only_the_ranked_class_bias_begins_at_the_prior(name, prior):
    build, start, width, columns = HEADS[name]
    before = build().state_dict()
    model = build()
    biases = {id(p): p for p in (layer.bias for layer in class_layers(model))}
    use_alrp(model, **({} if prior == 0.01 else {"prior_probability": prior}))
    assert [id(layer.bias) for layer in class_layers(model)] == list(biases), "an optimizer may hold them"
    for key, parameter in model.named_parameters():
        expected = before[key].clone()
        if id(parameter) in biases:
            assert ((expected - start).abs() <= width).all()
            if prior is not None:
                expected.view(-1, columns)[:, columns - CLASSES :] = -math.log((1 - prior) / prior)
        assert torch.equal(parameter, expected), key


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", HEADS)
def test_frozen_bias_of_any_dtype_begins_at_the_prior(name, dtype):
    build, *_, columns = HEADS[name]
    model = build().to(dtype).requires_grad_(False)
    use_alrp(model, prior_probability=0.2)
    for bias in class_biases(model):
        ranked = bias.view(-1, columns)[:, columns - CLASSES :]
        assert torch.equal(ranked, torch.full_like(ranked, -math.log(4)))
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", HEADS)
def test_trained_bias_stays(name):
    build, start, width, _ = HEADS[name]
    model = build()
    with torch.no_grad():
        class_layers(model)[-1].bias[-1] = start - width - 1e-3  # one has left the initialiser's range
    before = class_biases(model)
    assert is_same(class_biases(use_alrp(model, prior_probability=0.2)), before)
    assert is_same(class_biases(undo_alrp(model)), before)


@pytest.mark.parametrize("prior", [None, 0.01])
@pytest.mark.parametrize("name", HEADS)
def test_second_call_leaves_the_bias(name, prior):
    build = HEADS[name][0]
    model = use_alrp(build(), prior_probability=prior)
    model.load_state_dict(build().state_dict())  # in the initialiser's range
    before = class_biases(model)
    assert is_same(class_biases(use_alrp(model, loss="ap", prior_probability=0.2)), before)
    after_undo = use_alrp(undo_alrp(model), prior_probability=0.2)
    assert not is_same(class_biases(after_undo), before), "the first call again"


def twice(model: nn.Module) -> nn.Module:
    return use_alrp(model, loss="ap", prior_probability=0.3)


@pytest.mark.parametrize("between", [nn.Module.train, twice, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("name", HEADS)
def test_undo_restores_the_bias(name, between):
    build = HEADS[name][0]
    model = between(use_alrp(build(), prior_probability=0.2))
    before = class_biases(build())
    assert not is_same(class_biases(model), before)
    assert is_same(class_biases(undo_alrp(model)), before)
    assert vars(model).keys() == vars(build()).keys(), "nothing is left behind"


def test_undo_restores_the_bias_in_the_models_dtype():
    model = use_alrp(detectors.tiny_faster_rcnn()).bfloat16()
    assert is_same(class_biases(undo_alrp(model)), class_biases(detectors.tiny_faster_rcnn().bfloat16()))


def test_undo_restores_a_layer_that_levels_share():
    model = detectors.tiny_ssd()
    levels = model.head.classification_head.module_list
    levels[1] = levels[0]
    before = class_biases(model)
    assert is_same(class_biases(undo_alrp(use_alrp(model))), before)


def trained(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    total(model(*batch(2, 3, first_label=1 if isinstance(model, FasterRCNN | SSD) else 0))).backward()
    optimizer.step()


def loaded(model: nn.Module) -> None:
    model.load_state_dict({key: value + 1 for key, value in model.state_dict().items()})


@pytest.mark.parametrize("change", [trained, loaded])
@pytest.mark.parametrize("name", ONE_EACH)
def test_undo_keeps_a_bias_that_has_changed_since(name, change):
    model = use_alrp(CASES[name][0]())
    began = class_biases(model)
    change(model)
    before = class_biases(model)
    assert not is_same(before, began)
    assert is_same(class_biases(undo_alrp(model)), before)


class OwnPredictor(nn.Module):
    """A box predictor that torchvision does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.classes, self.boxes = nn.Linear(16, CLASSES + 1), nn.Linear(16, 4 * (CLASSES + 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.classes(x), self.boxes(x)


def test_heads_without_a_known_bias_stay():
    own = detectors.tiny_faster_rcnn()
    own.roi_heads.box_predictor = OwnPredictor()
    without = detectors.tiny_ssd()
    without.head.classification_head.module_list[0].bias = None
    replaced = detectors.tiny_fcos()
    replaced.head.classification_head = nn.Identity()
    headless = detectors.tiny_ssd()
    headless.head = nn.Identity()
    for model in (own, without, replaced, headless):
        before = copy.deepcopy(model.state_dict())
        expected = (
            pytest.warns(UserWarning, match="class scores in its own way") if model in (replaced, headless) else nullcontext()
        )
        with expected:
            use_alrp(model, prior_probability=0.2)
        after = undo_alrp(model).state_dict()
        assert all(torch.equal(after[key], before[key]) for key in before)
    with torch.device("meta"):
        assert use_alrp(detectors.tiny_ssd()).head.classification_head.module_list[0].bias.is_meta


# --- what stays, and what can be undone ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_state_dict_stays(name):
    build, own, _ = CASES[name]
    plain, changed = build(), build(seed=1)
    assert use_alrp(changed, **own) is changed
    assert list(plain.state_dict()) == list(changed.state_dict())
    changed.load_state_dict(plain.state_dict())


@pytest.mark.parametrize("name", CASES)
def test_other_models_keep_their_losses_and_this_one_gets_them_back(name):
    build, own, first_label = CASES[name]
    data = batch(2, 1, first_label=first_label)

    def outcome(model: nn.Module) -> tuple:
        torch.manual_seed(0)  # of torchvision's samples
        return model.train()(*data), model.eval()(data[0])

    before = outcome(build())
    changed = use_alrp(build(), **own, balance="self")
    assert outcome(changed)[0] != before[0]
    torch.testing.assert_close(outcome(build()), before, rtol=0, atol=0)
    assert undo_alrp(changed) is changed
    torch.testing.assert_close(outcome(changed), before, rtol=0, atol=0)
    assert list(changed.state_dict()) == list(build().state_dict())
    torch.testing.assert_close(outcome(undo_alrp(changed)), before, rtol=0, atol=0)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("name", CASES)
def test_copies_train_alike_and_apart(name, duplicate):
    model, data = ready(name, 2, 1, balance="self", epoch_length=2)
    model(*data)
    twin = duplicate(model)
    torch.testing.assert_close(twin(*data), model(*data), rtol=0, atol=0)
    own = {id(m) for m in model.modules()}
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.5)
    assert not any(id(m) in own for m in twin.modules())
    changed, expected = twin(*data), model(*data)
    assert all(value != expected[key] for key, value in changed.items() if value != 0)
    undo_alrp(twin)
    torch.testing.assert_close(model(*data), expected, rtol=0, atol=0)


# What the pickles are of, by commit 01433d8; their parameters are 0.
SAVED = {
    "retinanet": {"order": "hard", "delta": 0.5, "assign": "atss", "errors": "iou", "tau": 0.3},
    "fcos": {"loss": "ndcg", "algorithm": "tiled", "balance": 2.0},
    "ssd": {"loss": "rank_sort"},
    "faster rcnn": {"balance": "self", "epoch_length": 2, "rpn_weight": 0.3},
}


@pytest.mark.parametrize("name", SAVED)
def test_pickles_of_version_0_1_train_on(name):
    path = Path(__file__).parent / "saved_by_0.1" / "torchvision.pkl.xz"
    old = pickle.loads(lzma.decompress(path.read_bytes()))[name]
    model, data = ready(name, 2, 0, 3, **SAVED[name])
    joining(model)  # as version 0.1 did
    old.load_state_dict(model.state_dict())
    for _ in range(3):  # until self-balancing has begun another epoch
        losses, expected = old(*data), model(*data)
        torch.testing.assert_close(losses, expected, rtol=0, atol=0)
    total(losses).backward()
    total(expected).backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(old.parameters(), model.parameters(), strict=True))
    assert list(undo_alrp(old).state_dict()) == list(CASES[name][0]().state_dict())


def test_settings_can_be_replaced():
    model, data = ready("retinanet", 2, loss="ap", tau=0.2, assign="atss", balance="self")
    plain = ready("retinanet", 2)[0]
    again = use_alrp(model)
    torch.testing.assert_close(again(*data), plain(*data), rtol=0, atol=0)
    assert list(again.state_dict()) == list(plain.state_dict())


# --- arguments -------------------------------------------------------------------------------------------------------


def test_wrong_models_are_named():
    with pytest.raises(TypeError, match="model must be a torchvision RetinaNet, FCOS, SSD or FasterRCNN, got DataParallel"):
        use_alrp(nn.DataParallel(detectors.tiny_retinanet()))
    for build, expected in ((detectors.tiny_retinanet, "RetinaNetHead"), (detectors.tiny_fcos, "FCOSHead")):
        headless = build()
        headless.head = nn.Identity()
        with pytest.raises(TypeError, match=rf"model\.head must be a torchvision {expected}, got Identity"):
            use_alrp(headless)


@pytest.mark.parametrize(
    ("error", "name", "arguments", "words"),
    [
        (ValueError, "fcos", {"loss": "focal"}, "loss must be one of 'alrp', 'ap', 'ndcg', 'rank_sort', got 'focal'"),
        (ValueError, "fcos", {"errors": "diou"}, "errors must be one of 'giou', 'iou', got 'diou'"),
        (ValueError, "fcos", {"tau": 1.0}, "tau must be below 1, got 1.0"),
        (TypeError, "fcos", {"tau": "0.5"}, "tau must be a number, got str"),
        (TypeError, "fcos", {"balance": [2]}, "balance must be a number, got list"),
        (ValueError, "fcos", {"balance": -1.0}, "balance must be finite and >= 0, got -1.0"),
        (ValueError, "fcos", {"balance": "auto"}, "balance must be one of 'self', 'value', got 'auto'"),
        (ValueError, "fcos", {"epoch_length": 9}, "epoch_length must be None unless balance is 'self', got 9"),
        (ValueError, "fcos", {"balance_group": "world"}, "balance_group must be None unless balance is 'self', got str"),
        (TypeError, "fcos", {"balance": "self", "balance_group": "world"}, "group must be a torch.distributed.ProcessGroup or"),
        (ValueError, "fcos", {"balance": "self", "epoch_length": 0}, "epoch_length must be >= 1, got 0"),
        (ValueError, "fcos", {"delta": float("inf")}, "delta must be finite and >= 0, got inf"),
        (ValueError, "fcos", {"order": "soft"}, "order must be one of 'smooth', 'hard', got 'soft'"),
        (ValueError, "fcos", {"algorithm": "fast"}, "algorithm must be one of 'auto'"),
        (ValueError, "fcos", {"loss_weight": -1.0}, "loss_weight must be finite and >= 0, got -1.0"),
        (ValueError, "fcos", {"eps": -1.0}, "eps must be finite and >= 0, got -1.0"),
        (TypeError, "fcos", {"interpolate": True}, "unexpected keyword argument 'interpolate'"),
        (TypeError, "fcos", {"group": "world"}, "group must be a torch.distributed.ProcessGroup or"),
        (TypeError, "fcos", {"backend": "cpu"}, "unexpected keyword argument 'backend'"),
        (ValueError, "ssd", {"prior_probability": 0}, "prior_probability must lie between 0 and 1, got 0"),
        (ValueError, "fcos", {"prior_probability": 1.0}, "prior_probability must lie between 0 and 1, got 1"),
        (ValueError, "ssd", {"prior_probability": -0.1}, "prior_probability must be finite and >= 0, got -0.1"),
        (TypeError, "ssd", {"prior_probability": "0.01"}, "prior_probability must be a number, got str"),
        (TypeError, "fcos", {"centerness": 1}, "centerness must be a bool, got int"),
        (ValueError, "fcos", {"assign": "atss"}, "assign must be left out for a FCOS, got 'atss'"),
        (ValueError, "retinanet", {"assign": "max_iou"}, "assign must be one of 'atss', got 'max_iou'"),
        (ValueError, "retinanet", {"centerness": True}, "centerness must be left out for a RetinaNet, got True"),
        (ValueError, "ssd", {"rpn_tau": 0.7}, "rpn_tau must be left out for a SSD, got 0.7"),
        (ValueError, "ssd", {"rpn_weight": 0.2}, "rpn_weight must be left out for a SSD, got 0.2"),
        (ValueError, "faster rcnn", {"rpn_tau": 1.5}, "rpn_tau must be below 1, got 1.5"),
        (ValueError, "faster rcnn", {"rpn_weight": -1}, "rpn_weight must be finite and >= 0, got -1"),
        (ValueError, "faster rcnn", {"assign": "atss"}, "assign must be left out for a FasterRCNN, got 'atss'"),
    ],
)
def test_wrong_arguments_are_named(error, name, arguments, words):
    model = CASES[name][0]()
    with pytest.raises(error, match=words):
        use_alrp(model, **arguments)
    assert not hasattr(model, "_alrp_replaced"), "nothing is half done"
