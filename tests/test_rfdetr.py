"""RF-DETR with a ranking loss: what it computes, and that it trains, saves, resumes and evaluates."""

import copy
import csv
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before what reads it
pytest.importorskip("rfdetr", reason="RF-DETR is not installed: make test-integrations NAME=rfdetr")

import numpy as np
import rfdetr_data as data
import torch
from rfdetr import RFDETRKeypointPreview, RFDETRNano, training
from rfdetr.config import RFDETRNanoConfig, RFDETRSegNanoConfig, TrainConfig
from rfdetr.models.backbone import dinov2
from rfdetr.models.criterion import SetCriterion
from rfdetr.training import RFDETRModelModule
from rfdetr.utilities.tensors import nested_tensor_from_tensor_list
from rfdetr_data import CLASSES, SIDE, SMALL
from torch import Tensor, nn
from torchvision.ops import box_convert

from alrp_cuda import correlation_loss, reference
from alrp_cuda.integrations.errors import ERRORS, paired_iou
from alrp_cuda.integrations.rfdetr import OLDEST, undo_alrp, use_alrp
from alrp_cuda.integrations.rfdetr.criterion import RankedCriterion
from alrp_cuda.integrations.version import check_version

GROUPS, QUERIES = 13, SMALL["num_queries"]


@pytest.fixture(scope="module", autouse=True)
def _small_encoder():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dinov2, "get_config", data.get_config)
        yield


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refused(host, *arguments, **options):
        raise AssertionError(f"{host} was looked up")

    monkeypatch.setattr("socket.getaddrinfo", refused)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return data.write(tmp_path_factory.mktemp("squares"))


def module(**others: Any) -> RFDETRModelModule:
    """As ``train`` makes it, with random weights."""
    torch.manual_seed(0)
    return RFDETRModelModule(RFDETRNanoConfig(**SMALL), TrainConfig(dataset_dir=".", output_dir=".", **others)).train()


@pytest.fixture(scope="module")
def criterion() -> SetCriterion:
    """With weights that differ, to be copied."""
    return module(cls_loss_coef=3.0).criterion


def objects() -> list[dict[str, Tensor]]:
    """Those of three images, of which the second has none."""
    boxes = torch.tensor([[0.3, 0.3, 0.4, 0.4], [0.7, 0.6, 0.3, 0.5], [0.5, 0.5, 0.6, 0.3], [0.2, 0.8, 0.2, 0.2]])
    labels = torch.tensor([0, 2, 1, 1])
    return [{"labels": labels[part], "boxes": boxes[part]} for part in (slice(0, 2), slice(0, 0), slice(2, 4))]


def padded(rows: int) -> list[dict[str, Tensor]]:
    """The same objects, of a fixed number an image, as RF-DETR fills them up."""
    found = []
    for target in objects():
        missing = rows - len(target["labels"])
        found.append(
            {
                "labels": torch.cat((target["labels"], torch.zeros(missing, dtype=torch.long))),
                "boxes": torch.cat((target["boxes"], torch.tensor([[0.5, 0.5, 0.1, 0.1]]).repeat(missing, 1))),
                "valid": torch.arange(rows) < len(target["labels"]),
            }
        )
    return found


def outputs(groups: int = GROUPS) -> dict[str, Any]:
    """A detector's, as leaves: scores and boxes that differ from query to query."""
    rng = torch.Generator().manual_seed(0)

    def output() -> dict[str, Tensor]:
        logits = torch.randn(3, groups * QUERIES, CLASSES + 1, generator=rng) * 1.5 - 2
        boxes = torch.rand(3, groups * QUERIES, 4, generator=rng) * 0.4 + 0.2
        return {"pred_logits": logits.requires_grad_(), "pred_boxes": boxes.requires_grad_()}

    return {**output(), "aux_outputs": [output()], "enc_outputs": output()}


def leaves(out: dict[str, Any]) -> list[Tensor]:
    return [each[name] for each in (out, *out["aux_outputs"], out["enc_outputs"]) for name in ("pred_logits", "pred_boxes")]


def total(criterion: SetCriterion, losses: dict[str, Tensor]) -> Tensor:
    """As the framework adds them up."""
    return torch.stack([losses[name] * weight for name, weight in criterion.weight_dict.items() if name in losses]).sum()


def direct(criterion: SetCriterion, out: dict[str, Any], targets: list[dict[str, Tensor]], **settings: Any) -> dict[str, Tensor]:
    """The losses that count, weighted, by the reference, in float64 and with a label for each logit, output by output."""
    loss, kind, tau = settings.get("loss", "alrp"), settings.get("errors", "giou"), settings.get("tau", 0.5)
    options = {"delta": settings["delta"]} if "delta" in settings else {}
    own = criterion(out, targets)
    own = {name: own[name].double() * weight for name, weight in criterion.weight_dict.items()}
    weight = settings.get("loss_weight", 1.0)
    for suffix, each in (("", out), ("_0", out["aux_outputs"][0])):  # the encoder keeps its losses
        logits = each["pred_logits"].double()
        matches = criterion.matcher(each, targets, group_detr=GROUPS if criterion.training else 1)
        rows = []
        for image, (target, (queries, found)) in enumerate(zip(targets, matches, strict=True)):
            rows += [
                (image, int(query), int(target["labels"][j]), target["boxes"][j])
                for query, j in zip(queries, found, strict=True)
                if "valid" not in target or target["valid"][j]
            ]
        rows.sort(key=lambda row: row[:2])
        assert len(rows) == 4 * (GROUPS if criterion.training else 1)
        corners = torch.stack([each["pred_boxes"][image, query] for image, query, *_ in rows]).double()
        corners = box_convert(corners, "cxcywh", "xyxy")
        truth = box_convert(torch.stack([box for *_, box in rows]).double(), "cxcywh", "xyxy")
        values = torch.ones(len(rows), dtype=torch.float64)
        if loss == "rank_sort":
            values = paired_iou(corners, truth).detach().clamp(min=1e-6)
        labels = torch.zeros_like(logits)
        for (image, query, label, _), value in zip(rows, values, strict=True):
            labels[image, query, label] = value
        errors = ERRORS[kind](corners, truth, 0.0 if loss == "rank_sort" else tau)
        if loss == "alrp":
            found = reference.alrp_loss(logits, labels, errors, **options)
            cls, box = found.cls, found.loc
        elif loss == "rank_sort":
            found = reference.rank_sort_loss(logits, labels, **{"delta": 0.5, **options})
            cls, box = found.rank + found.sort, errors.mean()
            box = box * (cls / box).detach() + (box - box * (cls / box)).detach()  # its gradient alone is weighed
        else:
            cls, box = getattr(reference, f"{loss}_loss")(logits, labels, **options), None
        correlation = correlation_loss(logits[labels > 0].sigmoid(), paired_iou(corners, truth))
        cls = cls + settings.get("correlation", 0.0) * correlation
        del own[f"loss_ce{suffix}"]
        own[f"loss_cls{suffix}"] = weight * cls
        if box is not None:
            del own[f"loss_giou{suffix}"]
            own[f"loss_loc{suffix}"] = weight * (box + (settings.get("balance", 1.0) - 1) * (box - box.detach()))
    return own


SETTINGS = [
    {},
    {"errors": "iou", "tau": 0.3, "delta": 0.5, "balance": 3.0, "loss_weight": 2.0},
    {"loss": "ap", "loss_weight": 0.5},
    {"loss": "ndcg", "correlation": 0.4},
    {"loss": "rank_sort", "errors": "iou"},
]


@pytest.mark.parametrize("targets", [objects(), padded(4)], ids=["own", "padded"])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(map(str, s.values())) or "default")
def test_losses_and_gradients_are_those_of_a_direct_computation(settings, targets, criterion):
    """For each output of the decoder by itself, over thirteen groups, whatever the weights of its own; padding is no positive."""
    stock, ranked = copy.deepcopy(criterion), use_alrp(copy.deepcopy(criterion), **settings)
    out = outputs()
    losses = ranked(out, targets)
    wanted = direct(stock, out, targets, **settings)
    assert {name for name in ranked.weight_dict if name in losses} == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(losses[name].double() * ranked.weight_dict[name], value, rtol=1e-4, atol=1e-6)
    pairs = [torch.autograd.grad(each, leaves(out)) for each in (total(ranked, losses), torch.stack(list(wanted.values())).sum())]
    for got, want in zip(*pairs, strict=True):
        torch.testing.assert_close(got, want, rtol=2e-3, atol=1e-5 * float(want.abs().max()))
    others = {"class_error", "cardinality_error"}
    own = stock(out, targets)
    assert all(torch.equal(losses[name], own[name]) for name in others)


def test_evaluation_has_one_group(criterion):
    stock, ranked = copy.deepcopy(criterion).eval(), use_alrp(copy.deepcopy(criterion)).eval()
    out = outputs(groups=1)
    with torch.inference_mode():
        losses = ranked(out, objects())
    for name, value in direct(stock, out, objects()).items():
        torch.testing.assert_close(losses[name].double() * ranked.weight_dict[name], value, rtol=1e-4, atol=1e-6)


def test_padding_changes_nothing(criterion):
    ranked = use_alrp(copy.deepcopy(criterion))
    out = outputs()
    losses, others = ranked(out, objects()), ranked(out, padded(2))
    for name in ("loss_cls", "loss_loc", "loss_cls_0"):
        torch.testing.assert_close(losses[name], others[name])


def test_number_of_boxes_does_not_act_on_a_ranking(criterion):
    ranked = use_alrp(copy.deepcopy(criterion))
    out = outputs()
    losses, others = ranked(out, objects()), ranked(out, objects(), num_boxes=1.0)
    assert torch.equal(losses["loss_cls"], others["loss_cls"])
    assert losses["loss_bbox"] < others["loss_bbox"]


def test_a_batch_without_objects_costs_nothing_and_reaches_everything(criterion):
    ranked = use_alrp(copy.deepcopy(criterion))
    out = outputs()
    losses = ranked(out, [{"labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}] * 3)
    assert all(losses[name] == 0 for name in ("loss_cls", "loss_loc", "loss_cls_0", "loss_loc_0"))
    total(ranked, losses).backward()
    decoder, encoder = leaves(out)[:4], leaves(out)[4]
    assert not any(leaf.grad.any() for leaf in decoder)
    assert encoder.grad.any()  # by the class loss that it keeps


def test_rankings_of_half_types_are_computed_in_float32(criterion):
    ranked = use_alrp(copy.deepcopy(criterion))
    out = outputs()
    for each in (out, *out["aux_outputs"], out["enc_outputs"]):
        each["pred_logits"] = each["pred_logits"].detach().bfloat16().requires_grad_()
    losses = ranked(out, objects())
    assert losses["loss_cls"].dtype == losses["loss_loc"].dtype == torch.float32
    wanted = direct(criterion, out, objects())
    for name in ("loss_cls", "loss_loc"):
        torch.testing.assert_close(losses[name].double(), wanted[name], rtol=1e-5, atol=0)


def test_the_compiled_path_is_not_taken(criterion):
    ranked = use_alrp(copy.deepcopy(criterion))
    ranked.enable_compiled_detection_losses()
    ranked._get_batched_detection_losses = None
    assert "loss_cls" in ranked(outputs(), objects())


def test_a_module_trains_segmentation_beside_it():
    sizes = {**SMALL, "resolution": 48, "positional_encoding_size": 4}
    model = use_alrp(RFDETRModelModule(RFDETRSegNanoConfig(**sizes), TrainConfig(dataset_dir=".", output_dir="."))).train()
    image = nested_tensor_from_tensor_list([torch.rand(3, 48, 48) for _ in range(3)])
    targets = [{**each, "masks": torch.ones(len(each["labels"]), 48, 48, dtype=torch.bool)} for each in objects()]
    losses = model.criterion(model.model(image, targets), targets)
    assert {"loss_mask_ce", "loss_mask_dice", "loss_cls", "loss_loc", "loss_bbox", "loss_mask_ce_0"} <= set(losses)
    total(model.criterion, losses).backward()


def test_calling_it_again_replaces_the_settings_and_undo_brings_the_own_loss_back(criterion):
    stock, model = copy.deepcopy(criterion), SimpleNamespace(criterion=copy.deepcopy(criterion))
    weights = dict(stock.weight_dict)
    assert use_alrp(use_alrp(model, balance=2.0), loss="ap") is model
    assert model.criterion.ranking.loss == "ap"
    assert pickle.loads(pickle.dumps(model.criterion)).ranking.loss == "ap"
    assert undo_alrp(model) is model
    assert type(undo_alrp(model).criterion) is SetCriterion
    assert model.criterion.weight_dict == weights
    assert set(vars(model.criterion)) == set(vars(stock))
    out = outputs()
    assert torch.equal(total(model.criterion, model.criterion(out, objects())), total(stock, stock(out, objects())))


def train(model: RFDETRNano, folder: Path, out: Path, **others: Any) -> list[dict[str, str]]:
    """Two epochs of two batches, and what the framework has logged."""
    quick = {"epochs": 2, "batch_size": 4, "num_workers": 0, "use_ema": False, "multi_scale": False, "checkpoint_interval": 1}
    own = {"tensorboard": False, "eval_backend": "faster_coco_eval", "device": "cpu", "compute_val_loss": True}
    model.train(dataset_dir=str(folder), output_dir=str(out), **{**quick, **own, **others})
    with (out / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_trains_saves_resumes_and_evaluates(folder, tmp_path):
    torch.manual_seed(0)
    model = use_alrp(RFDETRNano(**SMALL))
    rows = train(model, folder, tmp_path)
    for split in ("train", "val"):
        losses = [float(row[f"{split}/loss_cls"]) for row in rows if row.get(f"{split}/loss_cls")]
        assert losses
        assert all(0 < loss < 1 for loss in losses)
    assert "train/loss_giou" not in rows[0]
    assert any(row.get("val/mAP_50_95") for row in rows)
    assert len(model.predict(np.zeros((SIDE, SIDE, 3), np.uint8), threshold=0.0)) == QUERIES
    assert training.RFDETRModelModule is RFDETRModelModule
    files = sorted(tmp_path.glob("*.pth")) + sorted(tmp_path.glob("*.ckpt"))
    assert files
    assert not any(b"alrp" in file.read_bytes() for file in files)
    again = RFDETRNano(**{**SMALL, "pretrain_weights": str(tmp_path / "checkpoint_best_total.pth")})
    assert len(again.predict(np.zeros((SIDE, SIDE, 3), np.uint8), threshold=0.0)) == QUERIES
    model = use_alrp(RFDETRNano(**SMALL))
    resumed = train(model, folder, tmp_path / "more", resume=str(tmp_path / "checkpoint_1.ckpt"), epochs=3)
    assert [row["epoch"] for row in resumed if row.get("train/loss_cls")] == ["2"]


def test_undone_it_trains_with_its_own_loss(folder, tmp_path):
    rows = train(undo_alrp(use_alrp(RFDETRNano(**SMALL))), folder, tmp_path, epochs=1)
    assert "train/loss_ce" in rows[0]
    assert "train/loss_cls" not in rows[0]


def test_a_failed_training_leaves_the_framework_as_it_was(tmp_path):
    model = use_alrp(RFDETRNano(**SMALL))
    with pytest.raises(Exception, match="nowhere"):
        train(model, tmp_path / "nowhere", tmp_path)
    assert training.RFDETRModelModule is RFDETRModelModule


class Own(SetCriterion):
    pass


def test_other_models_are_refused(criterion):
    own = copy.deepcopy(criterion)
    own.__class__ = Own
    for model, got in ((nn.Linear(2, 2), "Linear"), (own, "Own"), (SimpleNamespace(criterion=own), "SimpleNamespace with Own")):
        with pytest.raises(TypeError, match=f"model must be an RFDETR, an RFDETRModelModule or a SetCriterion, got {got}"):
            use_alrp(model)
    points = copy.deepcopy(criterion)
    points.losses = [*points.losses, "keypoints"]
    with pytest.raises(TypeError, match="model must detect boxes or masks, got SetCriterion with keypoints"):
        use_alrp(points)
    small = {name: SMALL[name] for name in ("num_queries", "num_select", "pretrain_weights", "device", "out_feature_indexes")}
    with pytest.raises(TypeError, match="got RFDETRKeypointPreview with keypoints"):
        use_alrp(RFDETRKeypointPreview(resolution=48, positional_encoding_size=4, **small))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"loss": "focal"}, ValueError, "loss"),
        ({"errors": "ciou"}, ValueError, "errors"),
        ({"tau": 1.0}, ValueError, "tau"),
        ({"balance": "self"}, ValueError, "balance must be a number, 'value' or None, got 'self'"),
        ({"balance": 2.0, "loss": "ap"}, ValueError, r"balance must be None with 'ap', .* got 2\.0"),
        ({"order": "soft"}, ValueError, "order"),
        ({"interpolate": True}, TypeError, "interpolate"),
    ],
)
def test_bad_arguments_are_told_at_once(settings, error, message, criterion):
    with pytest.raises(error, match=message):
        use_alrp(criterion, **settings)
    assert not isinstance(criterion, RankedCriterion)


def test_each_import_brings_what_it_needs():
    """Nothing of RF-DETR comes with the package, and Lightning with training alone."""
    code = (
        "import sys, alrp_cuda, alrp_cuda.integrations.queries; assert 'rfdetr' not in sys.modules; "
        "import alrp_cuda.integrations.rfdetr; assert 'pytorch_lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_older_versions_are_refused():
    check_version("rfdetr", "1.12.0", OLDEST)
    with pytest.raises(ImportError, match=r"takes rfdetr 1\.11\.2 or newer, got 1\.11\.1"):
        check_version("rfdetr", "1.11.1", OLDEST)
