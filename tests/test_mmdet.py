"""The heads for MMDetection: what they compute, what reaches which parameters, and that each config trains."""

# ruff: noqa: E402 (MMDetection is optional, and what follows imports it)

import copy
import lzma
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed: pip install --no-deps -r requirements-mmdet.txt")

import mmcv_operators

mmcv_operators.provide()

import torch
from mmdet.models.dense_heads import ATSSHead, FCOSHead, FoveaHead, RetinaHead, RPNHead
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import box_iou, generalized_box_iou

from alrp_cuda import SelfBalance, losses, reference
from alrp_cuda.integrations import mmdet as integration
from alrp_cuda.integrations.errors import ERRORS, paired_iou
from alrp_cuda.integrations.mmdet import RankingLoss
from alrp_cuda.integrations.mmdet.ranking import flatten

ROOT = Path(__file__).parents[1]
CONFIGS = {path.name.split("_")[0]: path for path in sorted((ROOT / "examples" / "mmdet").glob("*.py"))}
DENSE = {"retinanet": RetinaHead, "atss": ATSSHead, "fcos": FCOSHead, "fovea": FoveaHead}
CLASSES = 3
SIDE = 96
CHANNELS = 32  # the configs' group norm has 32 groups

NARROW = {
    "backbone": {"depth": 18, "base_channels": 8, "init_cfg": None},
    "neck": {"in_channels": [8, 16, 32, 64], "out_channels": CHANNELS},
}
NARROW_DENSE = {"bbox_head": {"num_classes": CLASSES, "in_channels": CHANNELS, "feat_channels": CHANNELS, "stacked_convs": 1}}
TWO_STAGES = [name for name in CONFIGS if name.endswith("rcnn")]


@pytest.fixture(autouse=True, scope="module")
def _framework() -> None:
    """MMDetection as its own tools set it up."""
    register_all_modules()
    MMLogger.get_current_instance().setLevel("WARNING")  # init_weights tells of each parameter


def narrow_stages(model: Any) -> list[Any]:
    """A model of two stages or more, with few channels and proposals; its heads of boxes."""
    stages = model.roi_head.bbox_head if isinstance(model.roi_head.bbox_head, list) else [model.roi_head.bbox_head]
    model.rpn_head.update(in_channels=CHANNELS, feat_channels=CHANNELS)
    model.train_cfg.rpn_proposal.max_per_img = 100
    for stage in stages:
        stage.update(num_classes=CLASSES, in_channels=CHANNELS, fc_out_channels=64)
    model.roi_head.bbox_roi_extractor.out_channels = CHANNELS
    if "mask_head" in model.roi_head:
        model.roi_head.mask_roi_extractor.out_channels = CHANNELS
        model.roi_head.mask_head.update(num_classes=CLASSES, in_channels=CHANNELS, conv_out_channels=CHANNELS, num_convs=1)
    return [model.rpn_head, *stages]


def tiny(name: str, ranking: dict[str, Any] | None = None, seed: int = 0, **head: Any) -> nn.Module:
    """The detector of a config with random weights and few channels."""
    config = Config.fromfile(CONFIGS[name])
    config.merge_from_dict({"model": NARROW})
    if name in TWO_STAGES:
        heads = narrow_stages(config.model)
    else:
        config.merge_from_dict({"model": NARROW_DENSE})
        heads = [config.model.bbox_head]
    for each in heads:
        each.ranking = {} if ranking is None else ranking
        each.update(head)
    torch.manual_seed(seed)
    model = MODELS.build(config.model)
    model.init_weights()
    return model.train()


def canvases(*objects: int, seed: int = 0) -> dict[str, list[Any]]:
    """One image for each number of objects in it: scanned digits 0, 1 and 2 on a noisy ground, in a grid of places."""
    rng = np.random.default_rng(seed)
    data = load_digits(n_class=CLASSES)
    images, samples = [], []
    for count in objects:
        image = torch.tensor(rng.integers(20, 60, (3, SIDE, SIDE)), dtype=torch.uint8)
        boxes, labels = [], []
        for place in rng.permutation(4)[:count]:
            height, width = (int(size) for size in rng.integers(24, 45, 2))
            left, top = 48 * int(place % 2) + int(rng.integers(4)), 48 * int(place // 2) + int(rng.integers(4))
            height, width = min(height, SIDE - top), min(width, SIDE - left)
            which = rng.integers(len(data.target))
            digit = torch.tensor(data.images[which], dtype=torch.float32)[None, None] * 12 + 60
            image[:, top : top + height, left : left + width] = nn.functional.interpolate(digit, (height, width))[0].to(
                torch.uint8
            )
            boxes.append([left, top, left + width, top + height])
            labels.append(data.target[which])
        shape = (SIDE, SIDE)
        sample = DetDataSample(metainfo={"img_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0), "img_id": 0})
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels=torch.tensor(labels, dtype=torch.int64)
        )
        inside = np.zeros((count, SIDE, SIDE), dtype=np.uint8)
        for mask, (left, top, right, bottom) in zip(inside, boxes, strict=True):
            mask[top:bottom, left:right] = 1
        sample.gt_instances.masks = BitmapMasks(inside, SIDE, SIDE)
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
        images.append(image)
        samples.append(sample)
    return {"inputs": images, "data_samples": samples}


def losses_of(model: nn.Module, data: dict[str, list[Any]]) -> dict[str, Tensor]:
    return model(**model.data_preprocessor(copy.deepcopy(data), training=True), mode="loss")


def gradients(model: nn.Module, data: dict[str, list[Any]]) -> dict[str, Tensor | None]:
    model.zero_grad()
    sum(losses_of(model, data).values()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


class Recorder(nn.Module):
    """Stands where a head has a loss, and keeps what the framework hands it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, ...]] = []

    def forward(self, *tensors: Tensor, **options: Any) -> Tensor:
        self.calls.append(tensors)
        return torch.zeros(())

    def joined(self, argument: int) -> Tensor:
        return torch.cat([call[argument] for call in self.calls])


def recording(head: nn.Module) -> Any:
    head = copy.deepcopy(head)
    head.loss_cls, head.loss_bbox, head.loss_centerness = Recorder(), Recorder(), Recorder()
    return head


def expected_losses(head: Any, fovea: bool = False, **settings: Any) -> dict[str, Tensor]:
    """aLRP Loss by the reference, in float64 and with a label for each logit, of what the framework handed its own losses."""
    logits, labels = head.loss_cls.joined(0).double(), head.loss_cls.joined(1)
    weights = head.loss_cls.joined(2) if len(head.loss_cls.calls[0]) > 2 else torch.ones(len(labels))
    dense = torch.zeros(logits.shape, dtype=torch.int64)
    positive = (labels < logits.shape[1]).nonzero()[:, 0]
    dense[positive, labels[positive]] = 1
    dense[weights == 0] = -1
    predicted, boxes = head.loss_bbox.joined(0).double(), head.loss_bbox.joined(1).double()
    if len(predicted) != len(positive):  # a loss over all anchors, of which the background weighs 0
        predicted, boxes = predicted[positive], boxes[positive]
    if fovea:
        sign = torch.tensor([-1, -1, 1, 1])
        predicted, boxes = predicted.exp() * sign, boxes.exp() * sign
    errors = (1 - generalized_box_iou(predicted, boxes).diagonal()) / 2 / (1 - settings.pop("tau", 0.5))
    out = reference.alrp_loss(logits, dense, errors, **settings)
    return {"loss_cls": out.cls, "loss_bbox": out.loc}


def assert_same_losses(found: dict[str, Tensor], expected: dict[str, Tensor], outputs: list[Tensor]) -> None:
    """Equal values, and equal gradients at a head's outputs."""
    assert list(found) == list(expected)
    for name in expected:
        assert expected[name] > 0, "the case should have positives"
        torch.testing.assert_close(found[name].double(), expected[name], rtol=1e-4, atol=0)
    for name in expected:
        got = torch.autograd.grad(found[name], outputs, retain_graph=True, allow_unused=True, materialize_grads=True)
        wanted = torch.autograd.grad(expected[name], outputs, retain_graph=True, allow_unused=True, materialize_grads=True)
        assert any(w.any() for w in wanted)
        for g, w in zip(got, wanted, strict=True):
            torch.testing.assert_close(g, w, rtol=2e-3, atol=1e-6 * float(w.abs().max() + 1e-30))


def dense_inputs(
    model: nn.Module, head: nn.Module, data: dict[str, list[Any]]
) -> tuple[tuple[list[Tensor], ...], tuple[Any, ...]]:
    """A dense head's outputs, as leaves, and what else ``loss_by_feat`` takes."""
    ready = model.data_preprocessor(copy.deepcopy(data), training=True)
    with torch.no_grad():
        outputs = head(model.extract_feat(ready["inputs"]))
    # Scores and boxes that differ from place to place, as after some training.
    rng = torch.Generator().manual_seed(1)
    leaves = tuple([(m + 0.3 * torch.randn(m.shape, generator=rng)).requires_grad_() for m in maps] for maps in outputs)
    samples = ready["data_samples"]
    return leaves, ([s.gt_instances for s in samples], [s.metainfo for s in samples])


@pytest.mark.parametrize("name", DENSE)
def test_targets_and_boxes_are_those_that_the_framework_hands_its_own_losses(name):
    model = tiny(name, {"delta": 0.5})
    head = model.bbox_head
    (cls_scores, bbox_preds), rest = dense_inputs(model, head, canvases(3, 0, 2))
    plain = recording(head)
    centerness = [[torch.zeros(len(m), 1, *m.shape[2:]) for m in cls_scores]] if name in ("atss", "fcos") else []
    DENSE[name].loss_by_feat(plain, cls_scores, bbox_preds, *centerness, *rest)
    assert_same_losses(
        head.loss_by_feat(cls_scores, bbox_preds, *rest),
        expected_losses(plain, fovea=name == "fovea", delta=0.5),
        [*cls_scores, *bbox_preds],
    )


def test_fcos_learns_the_same_errors_in_units_of_the_stride():
    model = tiny("fcos", norm_on_bbox=True, center_sampling=True)
    (cls_scores, bbox_preds), rest = dense_inputs(model, model.bbox_head, canvases(3, 2))
    bbox_preds = [m.detach().abs().requires_grad_() for m in bbox_preds]
    plain = recording(model.bbox_head)
    FCOSHead.loss_by_feat(plain, cls_scores, bbox_preds, [m[:, :1] for m in cls_scores], *rest)
    found = model.bbox_head.loss_by_feat(cls_scores, bbox_preds, *rest)
    assert_same_losses(found, expected_losses(plain), [*cls_scores, *bbox_preds])


def test_rpn_is_weighted_and_has_a_tau_of_its_own():
    model = tiny("faster-rcnn")
    head = model.rpn_head
    data = canvases(3, 1)
    for sample in data["data_samples"]:
        sample.gt_instances.labels.zero_()
    (cls_scores, bbox_preds), rest = dense_inputs(model, head, data)
    plain = recording(head)
    super(RPNHead, plain).loss_by_feat(cls_scores, bbox_preds, *rest)
    expected = {name.replace("_", "_rpn_"): 0.2 * value for name, value in expected_losses(plain, tau=0.7).items()}
    assert_same_losses(head.loss_by_feat(cls_scores, bbox_preds, *rest), expected, [*cls_scores, *bbox_preds])


@pytest.mark.parametrize("agnostic", [False, True])
def test_box_head_ranks_all_regions(agnostic):
    model = tiny("faster-rcnn")
    head = model.roi_head.bbox_head
    head.reg_class_agnostic = agnostic
    rng = torch.Generator().manual_seed(0)
    regions = 40
    corners = torch.rand(regions, 2, generator=rng) * 50
    rois = torch.cat((torch.zeros(regions, 1), corners, corners + 10 + 30 * torch.rand(regions, 2, generator=rng)), 1)
    boxes = rois[:, 1:] + torch.randn(regions, 4, generator=rng)
    labels = torch.randint(CLASSES + 1, (regions,), generator=rng)
    weights = (torch.rand(regions, generator=rng) > 0.1).float()
    labels[weights == 0] = CLASSES  # as the framework labels what it leaves out
    logits = torch.randn(regions, CLASSES, generator=rng).requires_grad_()
    codes = torch.randn(regions, 4 * (1 if agnostic else CLASSES), generator=rng).requires_grad_()
    plain = recording(head)
    Shared2FCBBoxHead.loss(plain, logits, codes, rois, labels, weights, boxes, torch.ones(regions, 4))
    found = head.loss(logits, codes, rois, labels, weights, boxes, torch.ones(regions, 4))
    assert_same_losses(found, expected_losses(plain), [logits, codes])
    # Half outputs are decoded in float32.
    half = logits.bfloat16(), codes.bfloat16()
    found, expected = (
        head.loss(*outputs, rois, labels, weights, boxes, torch.ones(regions, 4)) for outputs in (half, [h.float() for h in half])
    )
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_are_those_of_the_reference_in_the_same_place(name, monkeypatch):
    model, data = tiny(name), canvases(2, 3)
    found = gradients(model, data)

    def by_reference(*tensors: Tensor, algorithm: str, group: None, **settings: Any) -> Any:
        logits, targets, errors = tensors
        precise = logits.double() if isinstance(logits, Tensor) else [level.double() for level in logits]
        return reference.alrp_loss(precise, targets, errors.double(), **settings)

    monkeypatch.setattr(losses, "alrp_loss", by_reference)
    wanted = gradients(model, data)
    scale = max(float(expected.abs().max()) for expected in wanted.values())
    for parameter, expected in wanted.items():
        # The least levels have one place, where group norm leaves rounding errors only.
        torch.testing.assert_close(
            found[parameter], expected, rtol=1e-3, atol=1e-7 * scale, msg=lambda m, p=parameter: f"{p}: {m}"
        )


@pytest.mark.parametrize("name", CONFIGS)
def test_a_few_steps_lower_the_loss(name):
    model, data = tiny(name), canvases(3, 2, 4)
    wrapper = OptimWrapper(torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=2e-3))
    totals = [model.train_step(copy.deepcopy(data), wrapper)["loss"].item() for _ in range(30)]
    assert np.isfinite(totals).all()
    assert np.mean(totals[-3:]) < 0.8 * np.mean(totals[:3]), totals


@pytest.mark.parametrize("name", CONFIGS)
def test_loss_names_and_parameters(name):
    model = tiny(name)
    rpn = ["loss_rpn_cls", "loss_rpn_bbox"] if name in TWO_STAGES else []
    own = [f"s{stage}.loss_{part}" for stage in range(3) for part in ("cls", "bbox")]
    own = own if name == "cascade-rcnn" else ["loss_cls", "loss_bbox"]
    mask = ["loss_mask"] if name == "mask-rcnn" else []
    assert [key for key in losses_of(model, canvases(2, 3)) if "loss" in key] == [*rpn, *own, *mask]
    for parameter, grad in gradients(model, canvases(2, 3)).items():
        assert grad is not None, f"{parameter} has no part in the loss: DistributedDataParallel refuses that"


@pytest.fixture
def process_group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", CONFIGS)
def test_distributed_training(name, process_group):
    model = MMDistributedDataParallel(tiny(name, {"balance": "self"}), broadcast_buffers=False)  # as the framework's Runner
    wrapper = OptimWrapper(torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3))
    for data in (canvases(2, 3), canvases(0, 0), canvases(1, 0)):  # a parameter without a gradient fails the next step
        logged = model.train_step(data, wrapper)
    assert logged["loss"] > 0


def test_a_group_is_that_of_self_balancing_too(process_group):
    group = torch.distributed.new_group([0])
    loss = RankingLoss(balance="self", group=group)
    assert loss.ranking.group is loss.balance.group is group
    assert RankingLoss(balance="self").balance.group is None


@pytest.mark.parametrize("name", CONFIGS)
def test_images_without_objects(name):
    model = tiny(name)
    mixed = losses_of(model, canvases(0, 3))
    later = {f"s{stage}.loss_{part}" for stage in (1, 2) for part in ("cls", "bbox")}  # whose proposals may not fit yet
    assert all(value.isfinite() and (value > 0 or key in later) for key, value in mixed.items())
    empty = canvases(0, 0)
    assert all(value == 0 for key, value in losses_of(model, empty).items() if "loss" in key)
    for parameter, grad in gradients(model, empty).items():
        assert grad is not None, parameter
        assert not grad.any(), parameter


def test_box_head_without_regions():
    head = tiny("faster-rcnn").roi_head.bbox_head
    none = torch.zeros(0)
    logits, codes = torch.zeros(0, CLASSES, requires_grad=True), torch.zeros(0, 4 * CLASSES, requires_grad=True)
    found = head.loss(logits, codes, torch.zeros(0, 5), none.long(), none, torch.zeros(0, 4), torch.zeros(0, 4))
    assert all(value == 0 for value in found.values())
    sum(found.values()).backward()


@pytest.mark.parametrize("name", CONFIGS)
def test_prediction(name):
    model = tiny(name).eval()
    ready = model.data_preprocessor(canvases(2, 0), training=False)
    for config in (model.test_cfg, model.test_cfg.get("rcnn")):
        if config is not None and "score_thr" in config:
            config.score_thr = 0.0
    with torch.no_grad():
        for sample in model(**ready, mode="predict"):
            found = sample.pred_instances
            assert len(found) > 0
            assert ((found.scores > 0) & (found.scores < 0.1)).all(), "scores begin at 0.01, as those of Focal Loss"
            assert ((found.labels >= 0) & (found.labels < CLASSES)).all()
            assert found.bboxes.shape == (len(found), 4)


def test_scores_of_the_box_head_are_sigmoids():
    head = tiny("faster-rcnn").roi_head.bbox_head
    assert head.fc_cls.out_features == CLASSES
    logits = torch.tensor([[0.0, 2.0, -1.0]])
    scores = head.loss_cls.get_activation(logits)
    assert scores.shape == (1, CLASSES + 1)
    torch.testing.assert_close(scores[:, :-1], logits.sigmoid())
    assert scores[0, -1] == 0


@pytest.mark.parametrize("name", DENSE)
def test_the_loss_reads_the_maps_where_they_lie(name):
    model = tiny(name)
    head = model.bbox_head
    (cls_scores, bbox_preds), rest = dense_inputs(model, head, canvases(3, 2))
    given = []
    head.loss_cls.register_forward_pre_hook(lambda module, arguments: given.append(arguments[0]))
    head.loss_by_feat(cls_scores, bbox_preds, *rest)
    assert [v.data_ptr() for v in given[0]] == [m.data_ptr() for m in cls_scores]
    assert [v.numel() for v in given[0]] == [m.numel() for m in cls_scores]


def test_ignored_anchors_take_no_part():
    model = tiny("retinanet")
    head = model.bbox_head
    (cls_scores, bbox_preds), rest = dense_inputs(model, head, canvases(4, 3))
    classes = head.targets(cls_scores, *rest, None)[0]
    ignored = classes < 0
    assert ignored.any()
    before = head.loss_by_feat(cls_scores, bbox_preds, *rest)
    changed, first = [], 0
    for level in cls_scores:
        rows = flatten([level.detach()], CLASSES)
        rows[ignored[first : first + len(rows)]] = 9.0
        first += len(rows)
        images, _, height, width = level.shape
        changed.append(rows.reshape(images, height, width, -1).permute(0, 3, 1, 2).requires_grad_())
    after = head.loss_by_feat(changed, bbox_preds, *rest)
    assert all(torch.equal(before[name], after[name]) for name in before)
    grads = flatten(list(torch.autograd.grad(after["loss_cls"], changed)), CLASSES)
    assert not grads[ignored].any()
    assert grads[~ignored].any()


class Largest(TorchDispatchMode):
    """Sees the size of every tensor that is made, by dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[torch.dtype, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(value, Tensor):
                self.sizes[value.dtype] = max(self.sizes.get(value.dtype, 0), value.numel())
        return out


@pytest.mark.parametrize("loss", ["alrp", "rank_sort"])
def test_no_label_is_made_for_each_logit(loss):
    classes = 40
    model = tiny("atss", {"loss": loss}, num_classes=classes)
    (cls_scores, bbox_preds), rest = dense_inputs(model, model.bbox_head, canvases(4, 3))
    cls_scores = [m.detach().half().requires_grad_() for m in cls_scores]  # so that a copy of them is known by its dtype
    logits = sum(m.numel() for m in cls_scores)
    with Largest() as largest:
        model.bbox_head.loss_by_feat(cls_scores, bbox_preds, *rest)
    assert largest.sizes.pop(torch.float16) == max(m.numel() for m in cls_scores)  # no copy of them all
    assert max(largest.sizes.values()) < logits / 2, largest.sizes


@pytest.mark.parametrize("name", DENSE)
def test_half_outputs_are_decoded_in_float32(name):
    model = tiny(name)
    outputs, rest = dense_inputs(model, model.bbox_head, canvases(3, 2))
    half = [[m.detach().bfloat16().requires_grad_() for m in maps] for maps in outputs]
    full = [[m.detach().float().requires_grad_() for m in maps] for maps in half]
    found, expected = (model.bbox_head.loss_by_feat(*maps, *rest) for maps in (half, full))
    for name in expected:
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=0)
    sum(found.values()).backward()
    assert all(m.grad.dtype == torch.bfloat16 for maps in half for m in maps)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "mask-rcnn"])  # the framework makes NumPy's of proposals
def test_autocast(name):
    model = tiny(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses_of(model, canvases(3, 2))
    assert all(value.dtype == torch.float32 and value.isfinite() and value > 0 for value in found.values())
    sum(found.values()).backward()


# --- RankingLoss -----------------------------------------------------------------------------------------------------


def some_rows() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    classes = torch.randint(-1, CLASSES + 1, (60,), generator=rng)
    count = int(((classes >= 0) & (classes < CLASSES)).sum())
    corners = torch.rand(count, 2, generator=rng) * 9
    boxes = torch.cat((corners, corners + 5 + 5 * torch.rand(count, 2, generator=rng)), 1)
    predicted = (boxes + torch.randn(count, 4, generator=rng)).requires_grad_()
    return torch.randn(60, CLASSES, generator=rng).requires_grad_(), classes, predicted, boxes


@pytest.mark.parametrize(("overlap", "tau"), [("iou", 0.5), ("giou", 0.5), ("iou", 0.7)])
def test_errors_are_those_of_the_paper(overlap, tau):
    _, _, predicted, boxes = some_rows()
    pairs = box_iou if overlap == "iou" else generalized_box_iou
    expected = (1 - pairs(predicted, boxes).diagonal()) / (1 - tau) / (1 if overlap == "iou" else 2)
    found = ERRORS[overlap](predicted, boxes, tau)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.autograd.gradcheck(lambda p: ERRORS[overlap](p, boxes.double(), tau), predicted.detach().double().requires_grad_())
    assert ERRORS[overlap](predicted.half(), boxes.half(), tau).dtype == torch.float32


def test_empty_boxes_have_no_overlap():
    point = torch.zeros(1, 4, requires_grad=True)
    iou = paired_iou(point, torch.zeros(1, 4))
    iou.sum().backward()
    assert iou.tolist() == [0.0]
    assert point.grad.isfinite().all()


@pytest.mark.parametrize("balance", [None, 3.0, "value"])
@pytest.mark.parametrize("loss", ["ap", "ndcg"])
def test_losses_without_boxes_have_the_mean_error_of_the_boxes(loss, balance):
    logits, classes, predicted, boxes = some_rows()
    found = RankingLoss(loss=loss, errors="iou", balance=balance, loss_weight=0.5)(logits, classes, predicted, boxes)
    cls, box = getattr(reference, f"{loss}_loss")(logits, classes), 2 * (1 - box_iou(predicted, boxes).diagonal()).mean()
    torch.testing.assert_close(found["loss_cls"], 0.5 * cls, rtol=1e-5, atol=0)
    torch.testing.assert_close(found["loss_bbox"], 0.5 * box, rtol=1e-5, atol=0)
    (grad,) = torch.autograd.grad(found["loss_bbox"], predicted)
    (expected,) = torch.autograd.grad(0.5 * box, predicted)
    weight = (cls / box).detach() if balance == "value" else balance or 1
    torch.testing.assert_close(grad, weight * expected, rtol=1e-4, atol=1e-6)


def test_rank_and_sort_labels_are_overlaps():
    logits, classes, predicted, boxes = some_rows()
    found = RankingLoss(loss="rank_sort", delta=0.4)(logits, classes, predicted, boxes)
    labels = torch.zeros(logits.shape)
    labels[classes < 0] = -1
    positive = ((classes >= 0) & (classes < CLASSES)).nonzero()[:, 0]
    labels[positive, classes[positive]] = box_iou(predicted, boxes).diagonal().detach()
    out = reference.rank_sort_loss(logits, labels, delta=0.4)
    torch.testing.assert_close(found["loss_cls"], out.rank + out.sort, rtol=1e-5, atol=0)
    (grad,) = torch.autograd.grad(found["loss_cls"], logits)
    (expected,) = torch.autograd.grad(out.rank + out.sort, logits)
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("loss", ["ap", "ndcg", "rank_sort"])
def test_other_losses_train_a_detector(loss):
    model = tiny("retinanet", {"loss": loss})
    assert all(value.isfinite() and value > 0 for value in losses_of(model, canvases(2, 0)).values())
    assert all(grad is not None for grad in gradients(model, canvases(2, 0)).values())
    assert all(value == 0 for value in losses_of(model, canvases(0)).values())


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"loss": "focal"}, ValueError, "loss"),
        ({"errors": "diou"}, ValueError, "errors must be one of 'giou', 'iou', got 'diou'"),
        ({"overlap": "diou"}, ValueError, "errors must be one of 'giou', 'iou', got 'diou'"),
        ({"overlap": "iou", "errors": "iou"}, TypeError, "errors"),
        ({"backend": "auto"}, TypeError, "unexpected keyword argument 'backend'"),
        ({"scope": "image"}, ValueError, "scope must be 'batch'"),
        ({"tau": 1.0}, ValueError, "tau"),
        ({"loss_weight": "2"}, TypeError, "loss_weight"),
        ({"balance": "other"}, ValueError, "balance"),
        ({"epoch_length": 5}, ValueError, "epoch_length"),
        ({"use_sigmoid": False}, ValueError, "use_sigmoid"),
        ({"delta": -1.0}, ValueError, "delta"),
        ({"gamma": 2.0}, TypeError, "gamma"),
    ],
)
def test_wrong_arguments_are_named(settings, error, match):
    with pytest.raises(error, match=match):
        RankingLoss(**settings)


def test_pickles_of_version_0_1_train_on():
    path = Path(__file__).parent / "saved_by_0.1" / "mmdet.pkl.xz"  # by commit 01433d8
    saved = pickle.loads(lzma.decompress(path.read_bytes()))
    settings = [
        {"delta": 0.5, "overlap": "iou", "tau": 0.3, "loss_weight": 0.5},
        {"loss": "ap", "balance": 2.0},
        {"loss": "rank_sort", "balance": "self", "epoch_length": 2},
        {"order": "hard"},
    ]
    for old, each in zip(saved, settings, strict=True):
        rows, new = some_rows(), type(old)(**each)
        for _ in range(3):  # until self-balancing has begun another epoch
            found = [loss(*rows) for loss in (old, new)]
        assert found[0] == found[1]
        assert repr(old).splitlines()[0] == repr(new).splitlines()[0]
        sum(found[0].values()).backward()


def test_a_reduction_is_refused():
    head = tiny("faster-rcnn").roi_head.bbox_head
    with pytest.raises(ValueError, match="reduction_override"):
        head.loss(*[torch.zeros(0)] * 7, reduction_override="none")


# --- the training loop -----------------------------------------------------------------------------------------------


class Canvases(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Any]:
        one = canvases(2, seed=index)
        return {name: values[0] for name, values in one.items()}


def runner(work_dir: Path, epochs: int, **options: Any) -> Runner:
    config = Config.fromfile(CONFIGS["retinanet"])
    config.merge_from_dict({"model": {**NARROW, **NARROW_DENSE}})
    return Runner(
        model=config.model,
        work_dir=str(work_dir),
        train_dataloader=torch.utils.data.DataLoader(Canvases(), batch_size=2, collate_fn=pseudo_collate),
        train_cfg={"type": "EpochBasedTrainLoop", "max_epochs": epochs},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 1e-3}},
        custom_hooks=config.custom_hooks,
        default_scope="mmdet",
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1}},
        log_level="WARNING",
        experiment_name=f"{work_dir.name}-{epochs}",
        randomness={"seed": 0},
        **options,
    )


def test_self_balancing_goes_by_the_epochs_of_the_runner_and_resumes(tmp_path):
    first = runner(tmp_path, 1)
    (balance,) = (m for m in first.model.modules() if isinstance(m, SelfBalance))
    assert balance.weight == 50
    first.train()
    after_one = balance.weight.clone()
    cls, loc = (first.message_hub.get_scalar(f"train/loss_{part}").data[0].mean() for part in ("cls", "bbox"))
    assert float(after_one) == pytest.approx((cls + loc) / loc, rel=1e-4)
    assert not balance.sums.any()
    second = runner(tmp_path, 2, load_from=str(tmp_path / "epoch_1.pth"), resume=True)
    (resumed,) = (m for m in second.model.modules() if isinstance(m, SelfBalance))
    second.load_or_resume()
    assert resumed.weight == after_one
    second.train()
    assert resumed.weight != after_one


def test_configs_of_the_page(tmp_path):
    page = (ROOT / "docs" / "mmdetection.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    for number, block in enumerate(blocks):
        path = tmp_path / f"config_{number}.py"
        path.write_text(block)
        config = Config.fromfile(path)
        head = MODELS.build({**config.model.bbox_head, "train_cfg": config.model.train_cfg, "test_cfg": config.model.test_cfg})
        assert isinstance(head.loss_cls, RankingLoss)


def test_every_head_of_the_page_is_registered():
    page = (ROOT / "docs" / "mmdetection.md").read_text()
    heads = re.findall(r"^\| `(\w+Head)` \|", page, re.MULTILINE)
    assert sorted(heads) == sorted(name for name in integration.__all__ if name.endswith("Head"))
    assert all(head in MODELS for head in heads)
