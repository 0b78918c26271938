"""use_alrp on torchvision's RetinaNet: what it computes, what reaches which parameters, and what it leaves alone."""

# ruff: noqa: E402 (torchvision is optional, and what follows imports it)

import copy
import pickle

import pytest

torchvision = pytest.importorskip("torchvision")

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet, fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead

from alrp_cuda import reference
from alrp_cuda.integrations.torchvision import giou_errors, use_alrp

CLASSES = 3
SIDE = 64
BUILDS = ("v1", "v2")


class TwoLevels(nn.Module):
    """Feature maps at strides 8 and 16."""

    out_channels = 8

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 8, 2, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.fine(x).relu()
        return {"fine": fine, "coarse": self.coarse(fine).relu()}


def tiny_retinanet(build: str = "v1", seed: int = 0) -> RetinaNet:
    """RetinaNet as torchvision's two builds put it together, on a backbone of two layers."""
    torch.manual_seed(seed)
    anchors = AnchorGenerator(((16, 24), (32, 44)), ((0.7, 1.4),) * 2)
    norm = None if build == "v1" else (lambda channels: nn.GroupNorm(4, channels))
    head = RetinaNetHead(8, anchors.num_anchors_per_location()[0], CLASSES, norm)
    if build == "v2":
        head.regression_head._loss_type = "giou"
    model = RetinaNet(TwoLevels(), CLASSES, SIDE, SIDE, anchor_generator=anchors, head=head)
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)  # outputs that differ from anchor to anchor, as after some training
    return model


def batch(*objects: int, seed: int = 0) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """One image for each number of objects in it."""
    rng = torch.Generator().manual_seed(seed)
    images = [torch.rand(3, SIDE, SIDE, generator=rng) for _ in objects]
    targets = []
    for count in objects:
        corner = torch.rand(count, 2, generator=rng) * 30
        size = 12 + torch.rand(count, 2, generator=rng) * 20
        labels = torch.randint(CLASSES, (count,), generator=rng)
        targets.append({"boxes": torch.cat((corner, corner + size), 1), "labels": labels})
    return images, targets


def head_outputs(model: RetinaNet, images: list[Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
    """(outputs of the head as leaves of the graph, anchors) for a batch."""
    transformed, _ = model.transform(images, None)
    features = list(model.backbone(transformed.tensors).values())
    outputs = {name: value.detach().requires_grad_() for name, value in model.head(features).items()}
    return outputs, model.anchor_generator(transformed, features)


def matched(model: RetinaNet, anchors: list[Tensor], targets: list[dict[str, Tensor]]) -> list[Tensor]:
    return [
        model.proposal_matcher(torchvision.ops.box_iou(t["boxes"], a)) if len(t["boxes"]) else torch.full((len(a),), -1)
        for a, t in zip(anchors, targets, strict=True)
    ]


def giou(a: list[float], b: list[float]) -> float:
    """Generalised IoU of two boxes by its definition."""

    def area(box: list[float]) -> float:
        return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)

    inner = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    hull = area([min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])])
    union = area(a) + area(b) - inner
    return inner / union - (hull - union) / hull


def by_hand(
    model: RetinaNet,
    outputs: dict[str, Tensor],
    anchors: list[Tensor],
    targets: list[dict[str, Tensor]],
    matched_idxs: list[Tensor],
    *,
    tau: float = 0.5,
    delta: float = 1.0,
) -> tuple[dict[str, Tensor], Tensor]:
    """aLRP of the batch by the reference: one-hot labels and one box error at a time; also the (leaf) errors."""
    labels, errors = [], []
    for image, indices in enumerate(matched_idxs):
        one_hot = torch.zeros(len(indices), CLASSES, dtype=torch.int64)
        for anchor, index in enumerate(indices.tolist()):
            if index == -2:
                one_hot[anchor] = -1
            if index < 0:
                continue
            one_hot[anchor, targets[image]["labels"][index]] = 1
            code, base = outputs["bbox_regression"][image, anchor], anchors[image][anchor]
            box = model.head.regression_head.box_coder.decode(code[None], [base[None]])[0, 0]
            errors.append((1 - giou(box.tolist(), targets[image]["boxes"][index].tolist())) / 2 / (1 - tau))
        labels.append(one_hot)
    leaf = torch.tensor(errors, requires_grad=True)
    out = reference.alrp_loss(outputs["cls_logits"].flatten(), torch.stack(labels).flatten(), leaf, delta=delta)
    return {"classification": out.cls, "bbox_regression": out.loc}, leaf


@pytest.mark.parametrize("build", BUILDS)
def test_losses_reach_every_head_parameter(build):
    model = use_alrp(tiny_retinanet(build))
    losses = model(*batch(2, 3))
    assert set(losses) == {"classification", "bbox_regression"}
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("builder", ["retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2"])
def test_stock_models_train(builder):
    torch.manual_seed(0)
    build = getattr(torchvision.models.detection, builder)
    model = use_alrp(build(weights=None, weights_backbone=None, num_classes=CLASSES, min_size=SIDE, max_size=SIDE))
    losses = model(*batch(1, 0))
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.head.parameters())


@pytest.mark.parametrize("objects", [(2, 3), (0, 2, 0, 1), (1,)])
@pytest.mark.parametrize("settings", [{}, {"tau": 0.3, "delta": 0.25}])
def test_the_batch_is_one_ranking(objects, settings):
    model = use_alrp(tiny_retinanet(), **settings)
    images, targets = batch(*objects)
    outputs, anchors = head_outputs(model, images)
    matched_idxs = matched(model, anchors, targets)
    assert any((m == -2).any() for m in matched_idxs), "the case should have ignored anchors"
    losses = model.head.compute_loss(targets, outputs, anchors, matched_idxs)
    expected, _ = by_hand(model, outputs, anchors, targets, matched_idxs, **settings)
    for name in losses:
        torch.testing.assert_close(losses[name], expected[name], rtol=2e-5, atol=0)
    (grad,) = torch.autograd.grad(sum(losses.values()), outputs["cls_logits"], retain_graph=True)
    (expected_grad,) = torch.autograd.grad(sum(expected.values()), outputs["cls_logits"])
    torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-8)
    # It is what the model computes from images, too.
    from_images = model(images, targets)
    for name in losses:
        torch.testing.assert_close(from_images[name], losses[name], rtol=1e-5, atol=0)


def test_box_gradient_is_that_of_the_errors():
    model = use_alrp(tiny_retinanet(), box_weight=3.0)
    images, targets = batch(2, 0, 3)
    outputs, anchors = head_outputs(model, images)
    matched_idxs = matched(model, anchors, targets)
    codes = outputs["bbox_regression"]
    losses = model.head.compute_loss(targets, outputs, anchors, matched_idxs)
    (grad,) = torch.autograd.grad(losses["bbox_regression"], codes)

    expected, errors = by_hand(model, outputs, anchors, targets, matched_idxs)
    torch.testing.assert_close(losses["bbox_regression"], 3 * expected["bbox_regression"], rtol=2e-5, atol=0)
    (grad_errors,) = torch.autograd.grad(3 * expected["bbox_regression"], errors)
    every, where = [], []
    for image, indices in enumerate(matched_idxs):
        for anchor in (indices >= 0).nonzero()[:, 0].tolist():
            box = targets[image]["boxes"][indices[anchor], None]
            coder = model.head.regression_head.box_coder
            every.append(giou_errors(codes[image, anchor, None], anchors[image][anchor, None], box, coder))
            where.append((image, anchor))
    (expected_grad,) = torch.autograd.grad(torch.cat(every) @ grad_errors, codes)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-8)
    touched = grad.any(-1).nonzero().tolist()
    assert touched == [list(w) for w in where], "the boxes' gradient belongs to the positives alone"


def test_box_weight_leaves_the_gradient_of_the_scores():
    grads = []
    for weight in (1.0, 50.0):
        model = use_alrp(tiny_retinanet(), box_weight=weight)
        images, targets = batch(2)
        outputs, anchors = head_outputs(model, images)
        losses = model.head.compute_loss(targets, outputs, anchors, matched(model, anchors, targets))
        grads.append(torch.autograd.grad(sum(losses.values()), outputs["cls_logits"])[0])
    assert torch.equal(*grads)


def test_giou_errors_of_known_boxes():
    coder = tiny_retinanet().head.regression_head.box_coder
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]] * 3)
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [10.0, 10.0, 20.0, 20.0]])
    # GIoU 1, 1/2 and 0 - (400 - 200)/400
    errors = giou_errors(torch.zeros(3, 4), anchors, boxes, coder)
    torch.testing.assert_close(errors, torch.tensor([0.0, 0.5, 1.5]))
    assert giou_errors(torch.zeros(3, 4, dtype=torch.float16), anchors, boxes, coder).dtype == torch.float32
    codes = torch.full((3, 4), 0.1, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda c: giou_errors(c, anchors, boxes, coder), codes)


def test_no_object_in_the_batch_gives_zero_connected_losses():
    model = use_alrp(tiny_retinanet())
    losses = model(*batch(0, 0))
    assert all(loss == 0 for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.head.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


def test_an_image_without_objects_adds_negatives_only():
    model = use_alrp(tiny_retinanet())
    images, targets = batch(2, 0)
    alone, together = model(images[:1], targets[:1]), model(images, targets)
    assert together["classification"] > alone["classification"]
    assert together["bbox_regression"] < alone["bbox_regression"], "more negatives above, same errors"


def test_anchors_between_thresholds_take_no_part():
    model = use_alrp(tiny_retinanet())
    images, targets = batch(2, 3)
    outputs, anchors = head_outputs(model, images)
    matched_idxs = matched(model, anchors, targets)
    before = model.head.compute_loss(targets, outputs, anchors, matched_idxs)
    ignored = torch.stack(matched_idxs) == -2
    assert ignored.any()
    changed = {name: value.detach().clone() for name, value in outputs.items()}
    changed["cls_logits"][ignored] = 9.0
    changed["cls_logits"].requires_grad_()
    after = model.head.compute_loss(targets, changed, anchors, matched_idxs)
    for name in before:
        assert torch.equal(before[name], after[name])
    (grad,) = torch.autograd.grad(after["classification"], changed["cls_logits"])
    assert not grad[ignored].any()


def test_mixed_precision_outputs_are_decoded_in_float32():
    model = use_alrp(tiny_retinanet())
    images, targets = batch(2, 3)
    outputs, anchors = head_outputs(model, images)
    matched_idxs = matched(model, anchors, targets)
    half = {name: value.detach().to(torch.bfloat16).requires_grad_() for name, value in outputs.items()}
    full = {name: value.detach().float().requires_grad_() for name, value in half.items()}
    losses, expected = (model.head.compute_loss(targets, o, anchors, matched_idxs) for o in (half, full))
    for name in losses:
        assert losses[name].dtype == torch.float32
        torch.testing.assert_close(losses[name], expected[name], rtol=1e-5, atol=0)
    sum(losses.values()).backward()
    assert all(value.grad.dtype == torch.bfloat16 for value in half.values())


@pytest.mark.parametrize("build", BUILDS)
def test_evaluation_and_state_dict_stay(build):
    plain, changed = tiny_retinanet(build), tiny_retinanet(build)
    assert use_alrp(changed) is changed
    assert list(plain.state_dict()) == list(changed.state_dict())
    changed.load_state_dict(plain.state_dict())
    images, _ = batch(1, 2)
    for found, expected in zip(changed.eval()(images), plain.eval()(images), strict=True):
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_other_models_keep_their_losses():
    images, targets = batch(2, 1)
    before = tiny_retinanet()(images, targets)
    changed = use_alrp(tiny_retinanet())
    after = tiny_retinanet()(images, targets)
    assert all(torch.equal(before[name], after[name]) for name in before)
    del changed.head.compute_loss
    undone = changed(images, targets)
    assert all(torch.equal(before[name], undone[name]) for name in before)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_train_alike_and_apart(duplicate):
    model = use_alrp(tiny_retinanet(), box_weight=2.0)
    twin = duplicate(model)
    images, targets = batch(2, 1)
    losses, expected = twin(images, targets), model(images, targets)
    assert all(torch.equal(losses[name], expected[name]) for name in expected)
    twin.head.compute_loss.box_weight = 4.0
    torch.testing.assert_close(twin(images, targets)["bbox_regression"], 2 * expected["bbox_regression"], rtol=1e-5, atol=0)
    assert torch.equal(model(images, targets)["bbox_regression"], expected["bbox_regression"])


def test_settings_can_be_replaced():
    model = use_alrp(use_alrp(tiny_retinanet(), box_weight=5.0))
    images, targets = batch(2)
    assert torch.equal(model(images, targets)["bbox_regression"], use_alrp(tiny_retinanet())(images, targets)["bbox_regression"])


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match=r"model must be a torchvision\.models\.detection\.RetinaNet, got FasterRCNN"):
        use_alrp(fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None))
    with pytest.raises(TypeError, match=r"model must be .*, got DataParallel"):
        use_alrp(nn.DataParallel(tiny_retinanet()))
    headless = tiny_retinanet()
    headless.head = nn.Identity()
    with pytest.raises(TypeError, match=r"model\.head must be .*, got Identity"):
        use_alrp(headless)
    for name, value, error in [
        ("box_weight", "2", TypeError),
        ("box_weight", -1.0, ValueError),
        ("tau", 1.0, ValueError),
        ("delta", float("inf"), ValueError),
        ("order", "soft", ValueError),
    ]:
        with pytest.raises(error, match=name):
            use_alrp(tiny_retinanet(), **{name: value})


def test_label_outside_the_classes_is_an_error():
    model = use_alrp(tiny_retinanet())
    images, targets = batch(2)
    targets[0]["labels"][0] = CLASSES
    with pytest.raises(ValueError, match=r"targets|loc_errors"):
        model(images, targets)
