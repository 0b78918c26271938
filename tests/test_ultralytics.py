"""Ultralytics' detectors with a ranking loss: what it computes, and that they train, save, resume and evaluate."""

import copy
import csv
import json
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ultralytics_offline  # noqa: F401 (before the framework)

pytest.importorskip("ultralytics", reason="Ultralytics is not installed: make test-integrations NAME=ultralytics")

import cv2
import numpy as np
import torch
import ultralytics_ranks as ranks
from torch import Tensor, nn
from ultralytics import RTDETR, YOLO
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import E2ELoss
from ultralytics.utils.torch_utils import unwrap_model

from alrp_cuda import correlation_loss, reference
from alrp_cuda.integrations.errors import ERRORS, paired_iou
from alrp_cuda.integrations.ultralytics import OLDEST, undo_alrp, use_alrp
from alrp_cuda.integrations.version import check_version

CLASSES = 3
SIDE = 64
MODELS = ["yolov8n", "yolo11n", "yolov10n", "yolo26n"]  # of the latter two each has two heads; the last one's boxes have no bins
EVENTS = ["on_pretrain_routine_end", "on_train_epoch_end", "on_model_save"]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """An address that is looked up is a failure; workers of a test meet at this machine's own."""
    look_up = socket.getaddrinfo

    def local(host, *arguments, **options):
        assert host in ("localhost", "127.0.0.1", socket.gethostname()), f"{host} was looked up"
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", local)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Coloured squares on noise, in YOLO's format; every third image has none."""
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
            lines = []
            for _ in range(number % 3):
                label, size = int(rng.integers(CLASSES)), int(rng.integers(16, 30))
                x, y = rng.integers(0, SIDE - size, 2)
                image[y : y + size, x : x + size] = [220 if channel == label else 90 for channel in range(3)]
                lines.append(f"{label} {(x + size / 2) / SIDE} {(y + size / 2) / SIDE} {size / SIDE} {size / SIDE}")
            cv2.imwrite(str(folder / "images" / split / f"{number}.png"), image)
            (folder / "labels" / split / f"{number}.txt").write_text("\n".join(lines))
    names = "".join(f"  {label}: class{label}\n" for label in range(CLASSES))
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return folder / "data.yaml"


def arguments(data: Path, folder: Path, **others: Any) -> dict[str, Any]:
    """Of ``YOLO.train``, for the quickest run that there is."""
    quick = {"epochs": 2, "imgsz": SIDE, "batch": 4, "device": "cpu", "workers": 0, "plots": False, "verbose": False}
    return {"data": str(data), "project": str(folder), "name": "run", "optimizer": "SGD", "lr0": 0.01, **quick, **others}


def rows(folder: Path) -> list[dict[str, float]]:
    with (folder / "run" / "results.csv").open() as file:
        return [{name.strip(): float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def build(name: str, **hyperparameters: Any) -> DetectionModel:
    """A model as the trainer makes it, with random weights."""
    torch.manual_seed(0)
    model = DetectionModel(f"{name}.yaml", nc=CLASSES, verbose=False)
    model.args = get_cfg(overrides={"epochs": 5, **hyperparameters})
    return model.train()


def ready(model: nn.Module, world_size: int = 0, **settings: Any) -> SimpleNamespace:
    """What a trainer is when its model is ready, after the callbacks of ``use_alrp``."""
    inner = unwrap_model(model)
    yolo = use_alrp(YOLO("yolov8n.yaml"), **settings)
    trainer = SimpleNamespace(
        model=model,
        ema=SimpleNamespace(ema=copy.deepcopy(inner).eval()),
        device=torch.device("cpu"),
        world_size=world_size,
        resume=False,
        args=inner.args,
        wdir=None,
    )
    for callback in yolo.callbacks["on_pretrain_routine_end"]:
        callback(trainer)
    return trainer


def objects() -> dict[str, Tensor]:
    """Those of three images, of which the second has none."""
    boxes = torch.tensor([[0.3, 0.3, 0.4, 0.4], [0.7, 0.6, 0.3, 0.5], [0.5, 0.5, 0.6, 0.3], [0.2, 0.8, 0.2, 0.2]])
    return {"batch_idx": torch.tensor([0.0, 0, 2, 2]), "cls": torch.tensor([[0.0], [2], [1], [1]]), "bboxes": boxes}


def outputs(model: DetectionModel, seed: int = 0) -> dict[str, Any]:
    """A head's outputs for three images, as leaves: scores and boxes that differ from place to place, as after some training."""
    rng = torch.Generator().manual_seed(seed)
    feats = [torch.zeros(3, 1, SIDE // stride, SIDE // stride) for stride in (8, 16, 32)]
    places, bins = sum(f.shape[2] * f.shape[3] for f in feats), model.model[-1].reg_max
    scores = torch.randn(3, CLASSES, places, generator=rng) * 1.5 - 2
    if bins > 1:
        near = torch.linspace(2, -2, bins).repeat(4)[None, :, None]
        boxes = torch.randn(3, 4 * bins, places, generator=rng) + near * 2
    else:
        boxes = torch.rand(3, 4, places, generator=rng) * 3
    return {"scores": scores.requires_grad_(), "boxes": boxes.requires_grad_(), "feats": feats}


def direct(criterion: Any, preds: dict[str, Any], batch: dict[str, Tensor], **settings: Any) -> dict[str, Tensor]:
    """The same losses by the reference, in float64 and with a label for each logit, of what one stock criterion assigns."""
    seen = []
    hook = criterion.assigner.register_forward_hook(lambda module, inputs, found: seen.append(found))
    (foreground, _, boxes, points, strides), own, _ = criterion.get_assigned_targets_and_loss(preds, batch)
    hook.remove()
    classes, scores = seen[0][0], seen[0][2]
    gains = torch.tensor([criterion.hyp.box, criterion.hyp.cls, criterion.hyp.dfl])
    own = own / gains
    decoded = criterion.bbox_decode(points, preds["boxes"].permute(0, 2, 1)) * strides  # pixels
    predicted, boxes = decoded[foreground].double(), boxes[foreground].double()
    logits = preds["scores"].permute(0, 2, 1).double()
    labels = torch.zeros(logits.shape, dtype=torch.float64)
    image, place = foreground.nonzero(as_tuple=True)
    loss, kind, tau = settings.get("loss", "alrp"), settings.get("errors", "giou"), settings.get("tau", 0.5)
    options = {"delta": settings["delta"]} if "delta" in settings else {}
    values = torch.ones(len(image), dtype=torch.float64)
    if loss == "rank_sort":
        values = scores[image, place, classes[image, place]].double() if settings.get("labels") else paired_iou(predicted, boxes)
        values = values.detach().clamp(min=1e-6)
    labels[image, place, classes[image, place]] = values
    if loss == "alrp":
        out = reference.alrp_loss(logits, labels, ERRORS[kind](predicted, boxes, tau), **options)
        cls, box = out.cls, out.loc
    elif loss == "rank_sort":
        out = reference.rank_sort_loss(logits, labels, **{"delta": 0.5, **options})
        cls, box = out.rank + out.sort, ERRORS[kind](predicted, boxes, 0.0).mean()
        box = box * (cls / box).detach() + (box - box * (cls / box)).detach()  # its gradient alone is weighed
    else:
        cls, box = getattr(reference, f"{loss}_loss")(logits, labels, **options), own[0]
    box = box + (settings.get("balance", 1.0) - 1) * (box - box.detach())
    own_scores = logits[image, place, classes[image, place]].sigmoid()
    cls = cls + settings.get("correlation", 0.0) * correlation_loss(own_scores, paired_iou(predicted, boxes))
    return {"box": box, "cls": cls, "dfl": settings.get("dfl_weight", 0.2) * own[2]}


def same(found: Tensor, expected: dict[str, Tensor], leaves: list[Tensor]) -> None:
    """Equal values, and equal gradients of each loss at the outputs of the head."""
    for value, wanted in zip(found, expected.values(), strict=True):
        assert wanted > 0, "the case should have positives"
        torch.testing.assert_close(value.double(), wanted.double(), rtol=1e-4, atol=0)
        options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
        pairs = zip(*(torch.autograd.grad(each, leaves, **options) for each in (value, wanted)), strict=True)
        for got, want in pairs:
            torch.testing.assert_close(got, want, rtol=2e-3, atol=1e-6 * float(want.abs().max() + 1e-30))


SETTINGS = [
    {},
    {"errors": "iou", "tau": 0.3, "delta": 0.5, "balance": 3.0, "dfl_weight": 1.5},
    {"loss": "ap"},
    {"loss": "ndcg", "balance": 0.5, "correlation": 0.4},
    {"loss": "rank_sort"},
    {"loss": "rank_sort", "labels": "assigner", "errors": "iou", "delta": 0.7},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(map(str, s.values())) or "default")
@pytest.mark.parametrize("name", ["yolov8n", "yolo26n"])
def test_losses_and_gradients_are_those_of_a_direct_computation(name, settings):
    """Whatever the gains, and with a batch of three, by which the framework multiplies."""
    model = build(name, box=3.0, cls=9.0, dfl=0.7)
    stock = model.init_criterion()
    criterion = ready(model, **settings).model.criterion
    if name == "yolo26n":
        pairs = [(criterion.one2many, stock.one2many), (criterion.one2one, stock.one2one)]
    else:
        pairs = [(criterion, stock)]
    for branch, own in pairs:
        preds, batch = outputs(model), objects()
        losses, items = branch.loss(preds, batch)
        assert list(items) == list(own.loss_names)
        same(losses, direct(own, preds, batch, **settings), [preds["scores"], preds["boxes"]])
        torch.testing.assert_close(torch.stack(list(items.values())), losses.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["yolov3-tiny", "yolov5n", "yolov6n", "yolov9t", "yolo12n"])
def test_other_generations_train_by_the_same_criterion(name):
    """From the image on: every parameter that gets a gradient from the framework's own loss gets one."""
    torch.manual_seed(0)
    batch = {"img": torch.rand(3, 3, SIDE, SIDE), **objects()}

    def reached(model):
        losses, _ = model.loss(batch)
        losses.sum().backward()
        return losses, {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}

    _, expected = reached(build(name))
    losses, found = reached(ready(build(name)).model)
    assert all(0 < loss < 3 for loss in losses.tolist())
    assert found == expected


@pytest.mark.parametrize("name", ["yolov10n", "yolo26n"])
def test_two_heads_have_a_ranking_each_and_the_framework_s_weights(name):
    model = build(name)
    trainer = ready(model)
    criterion = trainer.model.criterion
    assert isinstance(criterion, E2ELoss)
    preds = {"one2many": outputs(model, 1), "one2one": outputs(model, 2)}
    criterion.update()
    losses, items = criterion(preds, objects())
    many, _ = criterion.one2many.loss(preds["one2many"], objects())
    one, one_items = criterion.one2one.loss(preds["one2one"], objects())
    assert 0 < criterion.o2o < 1
    torch.testing.assert_close(losses, criterion.o2m * many + criterion.o2o * one)
    assert items == one_items
    assert criterion.one2many.loss.ranking is not criterion.one2one.loss.ranking


def test_a_step_ranks_once():
    model = build("yolov8n")
    criterion = ready(model).model.criterion
    calls = []
    criterion.loss.ranking.ranking.register_forward_hook(lambda *_: calls.append(1))
    preds = outputs(model)
    criterion(preds, objects())[0].sum().backward()
    assert calls == [1]
    assert preds["scores"].grad.any()
    assert preds["boxes"].grad.any()


def test_an_anchor_with_an_object_is_positive_even_where_its_target_score_is_0():
    model = build("yolov8n")
    stock = model.init_criterion()
    preds = outputs(model)
    preds["boxes"] = (preds["boxes"] * 0 + torch.linspace(20, -20, 16).repeat(4)[None, :, None]).detach()  # empty boxes
    seen = []
    stock.assigner.register_forward_hook(lambda module, inputs, found: seen.append(found))
    stock.get_assigned_targets_and_loss(preds, objects())
    _, _, scores, foreground, _ = seen[0]
    unscored = foreground & (scores.sum(-1) < 1e-6)
    assert unscored.any()
    for settings in ({}, {"loss": "rank_sort", "labels": "assigner"}):
        preds["scores"].grad = None
        criterion = ready(build("yolov8n"), **settings).model.criterion
        (_, cls, _), _ = criterion(preds, objects())
        cls.backward()
        raised = (preds["scores"].grad.permute(0, 2, 1) < 0).any(-1)
        assert torch.equal(raised, foreground)


def test_a_batch_without_objects_costs_nothing_and_reaches_everything():
    model = build("yolov8n")
    criterion = ready(model).model.criterion
    preds = outputs(model)
    batch = {"batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}
    losses, _ = criterion(preds, batch)
    assert losses.tolist() == [0, 0, 0]
    losses.sum().backward()
    for name in ("scores", "boxes"):
        assert preds[name].grad is not None
        assert not preds[name].grad.any()


def test_half_types_are_decoded_in_float32():
    model = build("yolov8n")
    stock = model.init_criterion()
    criterion = ready(model).model.criterion
    preds = outputs(model)
    half = {**preds, **{k: preds[k].detach().bfloat16().requires_grad_() for k in ("scores", "boxes")}}
    with torch.autocast("cpu", torch.bfloat16):
        losses, _ = criterion(half, objects())
    assert losses.dtype == torch.float32
    rounded = {**half, "scores": half["scores"].float(), "boxes": half["boxes"].float()}
    expected = direct(stock, rounded, objects())
    torch.testing.assert_close(losses[:2].double(), torch.stack((expected["box"], expected["cls"])), rtol=1e-5, atol=0)


def test_the_number_of_processes_is_undone(monkeypatch):
    model = build("yolov8n")
    alone, items = ready(model).model.criterion(outputs(model), objects())
    monkeypatch.setattr("alrp_cuda.integrations.ultralytics.callbacks.RANK", 0)
    model = build("yolov8n")
    shared, shared_items = ready(model, world_size=4).model.criterion(outputs(model), objects())
    torch.testing.assert_close(shared * 4, alone)
    assert items == shared_items


def test_a_compiled_model_s_criterion_is_the_inner_model_s():
    model = build("yolov8n")
    trainer = ready(torch.compile(model))
    assert trainer.model.criterion is model.criterion
    assert model.criterion is trainer.ema.ema.criterion
    losses, _ = model.loss(objects(), outputs(model))
    assert losses.sum() > 0
    averaged = copy.deepcopy(model)  # as the trainer does after a loss that is not finite
    assert averaged.criterion.loss.criterion is averaged.criterion
    torch.testing.assert_close(averaged.loss(objects(), outputs(model))[0], losses)


def test_evaluation_and_the_state_stay_as_they_are():
    model = build("yolov8n").eval()
    image = torch.rand(1, 3, SIDE, SIDE)
    keys, before = list(model.state_dict()), model(image)[0]
    ready(model, prior_probability=None, balance="self")
    assert list(model.state_dict()) == keys
    assert torch.equal(model(image)[0], before)


def test_exports_what_it_computes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yolo = YOLO("yolov8n.yaml")
    ready(yolo.model)
    image = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = yolo.model.eval()(image)[0]
        exported = torch.jit.load(yolo.export(format="torchscript", imgsz=SIDE, device="cpu", verbose=False))
        torch.testing.assert_close(exported(image), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_untrained_scores_begin_at_the_prior(name):
    trainer = ready(build(name).eval(), prior_probability=0.02)
    for model in (trainer.model, trainer.ema.ema):
        with torch.no_grad():
            scores = model(torch.zeros(1, 3, SIDE, SIDE))[1]
        for branch in scores.values() if "one2one" in scores else [scores]:
            assert float(branch["scores"].sigmoid().median()) == pytest.approx(0.02, rel=0.02)


def test_trained_scores_keep_their_bias():
    model = build("yolov8n")
    with torch.no_grad():
        model.model[-1].cv3[1][-1].bias[2] += 0.1
    before = [level[-1].bias.clone() for level in model.model[-1].cv3]
    ready(model)
    assert all(torch.equal(level[-1].bias, bias) for level, bias in zip(model.model[-1].cv3, before, strict=True))


@pytest.mark.parametrize("name", [pytest.param(m, marks=[pytest.mark.slow] if "1" in m else []) for m in MODELS])
def test_trains_saves_and_evaluates(name, data, tmp_path):
    yolo = use_alrp(YOLO(f"{name}.yaml"), balance="self")
    seen = []

    def look(trainer):
        criterion = trainer.model.criterion
        branch = criterion.one2one if isinstance(criterion, E2ELoss) else criterion
        seen.append((branch.loss.ranking.loss, float(branch.loss.ranking.balance.weight)))

    yolo.add_callback("on_train_epoch_start", look)
    yolo.train(**arguments(data, tmp_path))
    assert [loss for loss, _ in seen] == ["alrp", "alrp"]
    assert seen[0][1] == 50 != seen[1][1]  # of self-balancing, whose first epoch has ended
    for row in rows(tmp_path):
        for split in ("train", "val"):  # sums of gains and batch sizes would be far above 1
            assert 0 < row[f"{split}/cls_loss"] <= 1
            assert 0 < row[f"{split}/box_loss"] <= 2
    assert yolo.val(data=str(data), imgsz=SIDE, device="cpu", plots=False, verbose=False, project=str(tmp_path)).box.map >= 0
    found = yolo.predict(np.zeros((SIDE, SIDE, 3), np.uint8), imgsz=SIDE, conf=1e-4, device="cpu", verbose=False)
    assert len(found) == 1
    weights = tmp_path / "run" / "weights"
    for file in (weights / "last.pt", weights / "best.pt"):
        assert b"alrp" not in file.read_bytes()
    assert YOLO(weights / "last.pt").model.criterion is None


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("name", ["yolov8n", "yolo26n"])
def test_resumes(name, data, tmp_path):
    states = []

    def look(trainer):
        criterion = trainer.model.criterion
        branches = [criterion.one2many, criterion.one2one] if isinstance(criterion, E2ELoss) else [criterion]
        states.append([float(b.loss.ranking.balance.weight) for b in branches] + [getattr(criterion, "o2m", None)])

    def interrupt(trainer):
        if trainer.epoch == 1:
            look(trainer)
            raise Interrupted

    yolo = use_alrp(YOLO(f"{name}.yaml"), balance="self")
    yolo.add_callback("on_fit_epoch_end", interrupt)
    with pytest.raises(Interrupted):
        yolo.train(**arguments(data, tmp_path, epochs=4))
    last = tmp_path / "run" / "weights" / "last.pt"
    assert b"alrp" not in last.read_bytes()
    resumed = use_alrp(YOLO(last), balance="self")
    resumed.add_callback("on_train_start", look)
    resumed.train(resume=True)
    assert states[1] == states[0] != [50, None]
    assert [row["epoch"] for row in rows(tmp_path)] == [1, 2, 3, 4]
    assert all(0 < row["train/cls_loss"] <= 1 for row in rows(tmp_path))


@pytest.mark.slow
def test_processes_train_together(data, tmp_path, monkeypatch):
    """By the framework's own launcher, which pickles the callbacks and starts two workers."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    yolo = use_alrp(YOLO("yolov8n.yaml"), balance="self")
    diary = ranks.Diary(tmp_path)
    yolo.add_callback("on_train_batch_end", diary.after_batch)
    yolo.add_callback("on_train_epoch_end", diary.after_epoch)
    yolo.add_callback("on_fit_epoch_end", diary.at_the_end)
    yolo.train(trainer=ranks.GlooTrainer, **arguments(data, tmp_path))
    pages = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(ranks.RANKS)]
    assert pages[0]["steps"] != pages[1]["steps"]  # each ranks its own images
    assert pages[0]["parameters"] == pages[1]["parameters"]
    for page in pages:
        for step in page["steps"]:  # the trainer's loss is multiplied by the number of processes, which was undone
            assert step["loss"] == pytest.approx(step["box_loss"] + step["cls_loss"] + step["dfl_loss"], rel=1e-5)
    first_epoch = [step for page in pages for step in page["steps"][: len(page["steps"]) // 2]]
    cls, box = (sum(step[name] for step in first_epoch) for name in ("cls_loss", "box_loss"))
    for page in pages:
        assert page["weights"][0] == pytest.approx((cls + box) / box, rel=1e-5)
    assert yolo.val(data=str(data), imgsz=SIDE, device="cpu", plots=False, verbose=False, project=str(tmp_path)).box.map >= 0


def test_calling_it_again_replaces_the_settings_and_undoing_leaves_other_callbacks():
    yolo = YOLO("yolov8n.yaml")

    def other(trainer):
        pass

    yolo.add_callback("on_train_epoch_end", other)
    before = {event: list(callbacks) for event, callbacks in yolo.callbacks.items()}
    assert use_alrp(use_alrp(yolo), loss="ap") is yolo
    for event in EVENTS:
        assert len(yolo.callbacks[event]) == len(before[event]) + 1
        assert yolo.callbacks[event][-1].__self__.ranking["loss"] == "ap"
    assert undo_alrp(yolo) is yolo
    assert dict(yolo.callbacks) == before


@pytest.mark.parametrize("name", ["yolov8n-seg", "yolov8n-pose", "yolov8n-obb", "yolov8n-cls", "yolov8s-world", "yoloe-v8s"])
def test_other_models_are_refused(name):
    with pytest.raises(TypeError, match=r"yolo\.model must be a DetectionModel .*, got \w+Model$"):
        use_alrp(YOLO(f"{name}.yaml"))


def test_what_is_no_yolo_is_refused():
    with pytest.raises(TypeError, match=r"yolo\.model must be .*, got RTDETRDetectionModel"):
        use_alrp(RTDETR("rtdetr-l.yaml"))
    with pytest.raises(TypeError, match=r"yolo must be an ultralytics\.YOLO, got DetectionModel"):
        use_alrp(build("yolov8n"))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"loss": "focal"}, ValueError, "loss"),
        ({"errors": "ciou"}, ValueError, "errors"),
        ({"tau": 1.0}, ValueError, "tau"),
        ({"labels": "assigner"}, ValueError, "labels must be None unless loss is 'rank_sort', got 'assigner'"),
        ({"labels": "scores", "loss": "rank_sort"}, ValueError, "labels"),
        ({"dfl_weight": -1.0}, ValueError, "dfl_weight"),
        ({"dfl_weight": "1"}, TypeError, "dfl_weight"),
        ({"correlation": -0.1}, ValueError, "correlation"),
        ({"prior_probability": 1.0}, ValueError, "prior_probability"),
        ({"balance": "none"}, ValueError, "balance"),
        ({"order": "soft"}, ValueError, "order"),
        ({"interpolate": True}, TypeError, "interpolate"),
    ],
)
def test_bad_arguments_are_told_at_once(settings, error, message):
    yolo = YOLO("yolov8n.yaml")
    before = {event: list(callbacks) for event, callbacks in yolo.callbacks.items()}
    with pytest.raises(error, match=message):
        use_alrp(yolo, **settings)
    assert dict(yolo.callbacks) == before


def test_class_weights_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match=r"cls_pw must be 0: .* got 0\.5"):
        use_alrp(YOLO("yolov8n.yaml")).train(**arguments(data, tmp_path, cls_pw=0.5))


def test_a_criterion_of_the_user_s_own_is_refused():
    model = build("yolov8n")
    model.criterion = nn.MSELoss()
    with pytest.raises(TypeError, match=r"criterion must be a v8DetectionLoss .* got MSELoss"):
        ready(model)


def test_the_package_does_not_import_the_framework():
    code = (
        "import sys, alrp_cuda, alrp_cuda.integrations, alrp_cuda.integrations.ranking; assert 'ultralytics' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_older_versions_are_refused():
    for version in ("8.4.190", "8.4.1000", "8.5.0", "9.0.0", "main"):
        check_version("ultralytics", version, OLDEST)
    for version in ("8.4.189", "8.3.999", "8.4"):
        with pytest.raises(ImportError, match=f"takes ultralytics 8.4.190 or newer, got {version}"):
            check_version("ultralytics", version, OLDEST)
