"""Transformers' detectors with a ranking loss: what it computes, and that they train, save, load and evaluate."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before the framework, which reads it
pytest.importorskip("transformers", reason="Transformers is not installed: make test-integrations NAME=transformers")

import torch
import transformers as hf
import transformers_models as models
from accelerate import Accelerator
from torch import Tensor, nn
from torchvision.ops import box_convert
from transformers.loss.loss_deformable_detr import DeformableDetrHungarianMatcher
from transformers.loss.loss_lw_detr import LwDetrHungarianMatcher
from transformers.loss.loss_rt_detr import RTDetrHungarianMatcher
from transformers_models import CLASSES, SIDE, build

from alrp_cuda import correlation_loss, reference
from alrp_cuda.integrations.errors import ERRORS, paired_iou
from alrp_cuda.integrations.transformers import OLDEST, undo_alrp, use_alrp
from alrp_cuda.integrations.transformers.function import RankedLossFunction
from alrp_cuda.integrations.version import check_version

DENOISED = ["rt_detr", "rt_detr_v2", "d_fine", "deimv2"]
FOCAL = ["lw_detr", "deformable_detr", "conditional_detr"]
MATCHERS = [DeformableDetrHungarianMatcher, LwDetrHungarianMatcher, RTDetrHungarianMatcher]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refused(host, *arguments, **options):
        raise AssertionError(f"{host} was looked up")

    monkeypatch.setattr("socket.getaddrinfo", refused)


def objects() -> list[dict[str, Tensor]]:
    """Those of three images, of which the second has none."""
    boxes = torch.tensor([[0.3, 0.3, 0.4, 0.4], [0.7, 0.6, 0.3, 0.5], [0.5, 0.5, 0.6, 0.3], [0.2, 0.8, 0.2, 0.2]])
    labels = torch.tensor([0, 2, 1, 1])
    return [{"class_labels": labels[part], "boxes": boxes[part]} for part in (slice(0, 2), slice(0, 0), slice(2, 4))]


def images() -> Tensor:
    return torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


class Seen:
    """A model's outputs, as leaves, and what its matcher answers for each: taken from one stock step."""

    def __init__(self, model: Any) -> None:
        self.function = model.loss_function
        model.loss_function = self._call
        torch.manual_seed(2)  # noise of denoising queries
        model(images(), labels=objects())
        model.loss_function = self.function

    def _call(self, *arguments: Any, **others: Any) -> Any:
        self.arguments = [self._leaf(each) for each in arguments]
        self.others = {name: self._leaf(each) for name, each in others.items()}
        return self.function(*arguments, **others)

    @staticmethod
    def _leaf(value: Any) -> Any:
        """Scores and boxes that differ from query to query, as after some training."""
        if not isinstance(value, Tensor) or not value.requires_grad:
            return value
        rng = torch.Generator().manual_seed(value.shape[-1])
        value = value.detach()
        if value.shape[-1] == 4 and value.min() >= 0 and value.max() <= 1:
            value = torch.rand(value.shape, generator=rng) * 0.4 + 0.2
        else:
            value = value + torch.randn(value.shape, generator=rng) * 1.5
        return value.requires_grad_()

    @property
    def leaves(self) -> list[Tensor]:
        values = [*self.arguments, *self.others.values()]
        return [each for each in values if isinstance(each, Tensor) and each.requires_grad]

    def losses(self, function: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, losses, _ = function(*self.arguments, **self.others)
        return loss, losses


def direct(seen: Seen, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The same by the reference, in float64 and with a label for each logit, in the place of each output's loss, one by one."""
    loss, kind, tau = settings.get("loss", "alrp"), settings.get("errors", "giou"), settings.get("tau", 0.5)
    options = {"delta": settings["delta"]} if "delta" in settings else {}
    found = []

    def watched(forward):
        def matched(self, outputs, targets, *arguments, **others):
            matches = forward(self, outputs, targets, *arguments, **others)
            found.append((outputs["logits"], outputs["pred_boxes"], targets, matches))
            return matches

        return matched

    for matcher in MATCHERS:
        monkeypatch.setattr(matcher, "forward", watched(matcher.forward))
    total, losses = seen.losses(seen.function)
    monkeypatch.undo()
    names = [name for name in losses if name.startswith(("loss_vfl", "loss_mal", "loss_ce")) and "_dn_" not in name]
    assert len(names) == len(found)
    config = seen.arguments[4]
    for name, (logits, predicted, targets, matches) in zip(names, found, strict=True):
        if name.endswith("_enc") or (not name.startswith("loss_ce") and name == names[-1]):
            continue  # the encoder's
        labels = torch.zeros(logits.shape, dtype=torch.float64)
        rows = []
        for image, (target, (queries, which)) in enumerate(zip(targets, matches, strict=True)):
            pairs = zip(queries, which, strict=True)
            rows += [(image, int(query), int(target["class_labels"][j]), target["boxes"][j]) for query, j in pairs]
        rows.sort(key=lambda row: row[:2])
        corners = box_convert(torch.stack([predicted[image, query] for image, query, *_ in rows]).double(), "cxcywh", "xyxy")
        truth = box_convert(torch.stack([box for *_, box in rows]).double(), "cxcywh", "xyxy")
        values = torch.ones(len(rows), dtype=torch.float64)
        if loss == "rank_sort":
            values = paired_iou(corners, truth).detach().clamp(min=1e-6)
        for (image, query, label, _), value in zip(rows, values, strict=True):
            labels[image, query, label] = value
        errors = ERRORS[kind](corners, truth, 0.0 if loss == "rank_sort" else tau)
        if loss == "alrp":
            out = reference.alrp_loss(logits.double(), labels, errors, **options)
            cls, box = out.cls, out.loc
        elif loss == "rank_sort":
            out = reference.rank_sort_loss(logits.double(), labels, **{"delta": 0.5, **options})
            cls, box = out.rank + out.sort, errors.mean()
            box = box * (cls / box).detach() + (box - box * (cls / box)).detach()  # its gradient alone is weighed
        else:
            cls, box = getattr(reference, f"{loss}_loss")(logits.double(), labels, **options), None
        correlation = correlation_loss(logits.double()[labels > 0].sigmoid(), paired_iou(corners, truth))
        cls = cls + settings.get("correlation", 0.0) * correlation
        weights = dict(zip(("class", "giou"), own_weights(name, config), strict=True))
        total = total - weights["class"] * losses.pop(name) + settings.get("loss_weight", 1.0) * cls
        suffix = name.removeprefix("_".join(name.split("_")[:2]))
        losses[f"loss_cls{suffix}"] = settings.get("loss_weight", 1.0) * cls
        if box is not None:
            box = box + (settings.get("balance", 1.0) - 1) * (box - box.detach())
            total = total - weights["giou"] * losses.pop(f"loss_giou{suffix}") + settings.get("loss_weight", 1.0) * box
            losses[f"loss_loc{suffix}"] = settings.get("loss_weight", 1.0) * box
    return total, losses


def own_weights(name: str, config: Any) -> tuple[float, float]:
    """What the framework multiplies a class loss and a GIoU loss by, after it has put them among its losses."""
    if not name.startswith("loss_ce"):
        return 1.0, 1.0  # it does so before
    return getattr(config, "class_loss_coefficient", 1.0), config.giou_loss_coefficient


SETTINGS = [
    {},
    {"errors": "iou", "tau": 0.3, "delta": 0.5, "balance": 3.0, "loss_weight": 2.0},
    {"loss": "ap", "loss_weight": 0.5},
    {"loss": "ndcg", "correlation": 0.4},
    {"loss": "rank_sort", "errors": "iou"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(map(str, s.values())) or "default")
@pytest.mark.parametrize("name", [*DENOISED, *FOCAL])
def test_losses_and_gradients_are_those_of_a_direct_computation(name, settings, monkeypatch):
    """For each output of a decoder by itself, whatever the weights of its own; encoder and denoising queries keep theirs."""
    weights = {"weight_loss_vfl": 3.0, "weight_loss_giou": 4.0} if name in DENOISED else {"giou_loss_coefficient": 4}
    weights |= {"weight_loss_mal": 5.0} if name == "deimv2" else {"class_loss_coefficient": 5.0} if name == "lw_detr" else {}
    model = build(name, **weights)
    seen = Seen(model)
    total, losses = seen.losses(use_alrp(model, **settings).loss_function)
    wanted, expected = direct(seen, monkeypatch, **settings)
    assert set(losses) == set(expected)
    assert any("_dn_" in key for key in losses) == (name in DENOISED)
    for key, value in losses.items():
        torch.testing.assert_close(value.double(), expected[key].double(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(total.double(), wanted.double(), rtol=1e-5, atol=0)
    gradients = [torch.autograd.grad(each, seen.leaves, allow_unused=True, materialize_grads=True) for each in (total, wanted)]
    for got, want in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=2e-3, atol=1e-5 * float(want.abs().max() + 1e-30))


def step(model: Any, labels: list[dict[str, Tensor]]) -> tuple[Any, set[str]]:
    """A training step from the image on, and the parameters that got a gradient."""
    torch.manual_seed(2)
    out = model.train()(images(), labels=labels)
    model.zero_grad()
    out.loss.backward()
    return out, {name for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("name", [*DENOISED, *FOCAL])
def test_a_step_reaches_what_the_own_loss_reaches(name):
    model = build(name)
    _, expected = step(model, objects())
    out, found = step(use_alrp(model), objects())
    assert found == expected
    assert 0 < out.loss_dict["loss_cls"] < 1
    assert 0 < out.loss_dict["loss_loc"] < 2


@pytest.mark.parametrize("name", ["rt_detr", "deimv2", "lw_detr", "deformable_detr"])
def test_a_batch_without_objects_costs_nothing(name):
    nothing = [{"class_labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}] * 3
    model = build(name)
    _, expected = step(model, nothing)
    out, found = step(use_alrp(model), nothing)
    assert found == expected
    assert all(value == 0 for key, value in out.loss_dict.items() if key.startswith(("loss_cls", "loss_loc")))
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_rankings_of_half_types_are_computed_in_float32():
    model = use_alrp(build("rt_detr", num_denoising=0))
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(2)
        out = model(images(), labels=objects())
    assert out.logits.dtype == torch.bfloat16
    assert out.loss_dict["loss_cls"].dtype == out.loss_dict["loss_loc"].dtype == torch.float32
    out.loss.backward()


def test_evaluation_and_the_state_stay_as_they_are():
    model = build("rt_detr").eval()
    keys, before = list(model.state_dict()), model(images())
    use_alrp(model)
    after = model(images())
    assert list(model.state_dict()) == keys
    assert after.loss is None
    assert torch.equal(after.logits, before.logits)


def test_calling_it_again_replaces_the_settings_and_undo_brings_the_own_loss_back():
    model = build("rt_detr")
    expected = step(model, objects())[0].loss
    assert use_alrp(use_alrp(model), loss="ap") is model
    assert model.loss_function.ranking.loss == "ap"
    assert "loss_giou" in step(copy.deepcopy(model), objects())[0].loss_dict
    assert undo_alrp(model) is model
    assert undo_alrp(model).loss_function is hf.loss.loss_rt_detr.RTDetrForObjectDetectionLoss
    assert torch.equal(step(build("rt_detr"), objects())[0].loss, expected)


@pytest.mark.parametrize(("name", "start"), [("rt_detr", 0.25), ("lw_detr", 0.01), ("deformable_detr", 0.02)])
def test_class_scores_without_a_prior_begin_at_it(name, start):
    model = use_alrp(build(name), prior_probability=0.02).eval()
    with torch.no_grad():
        scores = model(images()).logits.sigmoid()
    assert float(scores.median()) == pytest.approx(start, rel=0.5)


def test_trained_class_scores_keep_their_bias():
    model = build("conditional_detr")
    with torch.no_grad():
        model.class_labels_classifier.bias[1] = 0.1
    assert use_alrp(model).class_labels_classifier.bias.tolist() == pytest.approx([0, 0.1, 0])
    with torch.no_grad():
        model.class_labels_classifier.bias[1] = 0
    assert not use_alrp(model, prior_probability=None).class_labels_classifier.bias.any()


class Squares(torch.utils.data.Dataset):
    """Coloured squares on noise; every third image has none."""

    def __init__(self, count: int, seed: int = 0) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.items = [self._item(number % 3, rng) for number in range(count)]

    @staticmethod
    def _item(number: int, rng: torch.Generator) -> dict[str, Any]:
        image = torch.rand(3, SIDE, SIDE, generator=rng) * 0.2
        labels, boxes = [], []
        for _ in range(number):
            label, size = int(torch.randint(CLASSES, (), generator=rng)), int(torch.randint(16, 30, (), generator=rng))
            x, y = torch.randint(0, SIDE - size, (2,), generator=rng).tolist()
            image[:, y : y + size, x : x + size] = 0.3
            image[label, y : y + size, x : x + size] = 0.9
            labels.append(label)
            boxes.append([(x + size / 2) / SIDE, (y + size / 2) / SIDE, size / SIDE, size / SIDE])
        target = {"class_labels": torch.tensor(labels, dtype=torch.long), "boxes": torch.tensor(boxes).reshape(-1, 4)}
        return {"pixel_values": image, "labels": target}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.items[index]


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"pixel_values": torch.stack([each["pixel_values"] for each in items]), "labels": [each["labels"] for each in items]}


def trainer(model: Any, folder: Path, **others: Any) -> hf.Trainer:
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "save_strategy": "epoch"}
    arguments = hf.TrainingArguments(
        output_dir=str(folder),
        report_to=[],
        logging_steps=1,
        remove_unused_columns=False,
        eval_strategy="epoch",
        prediction_loss_only=True,
        disable_tqdm=True,
        use_cpu=True,
        **{**settings, **others},
    )
    return hf.Trainer(model, arguments, train_dataset=Squares(8), eval_dataset=Squares(4, 1), data_collator=collate)


@pytest.mark.parametrize("name", ["rt_detr", pytest.param("lw_detr", marks=pytest.mark.slow)])
def test_trains_saves_resumes_and_evaluates_with_trainer(name, tmp_path):
    model = use_alrp(build(name))
    own = trainer(model, tmp_path)
    own.train()
    losses = [entry["loss"] for entry in own.state.log_history if "loss" in entry]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    checkpoint = tmp_path / "checkpoint-4"
    assert not any(b"alrp" in file.read_bytes() for file in checkpoint.iterdir())
    loaded = hf.AutoModelForObjectDetection.from_pretrained(checkpoint)
    assert not isinstance(loaded.loss_function, RankedLossFunction)
    outs = [each.eval()(images()) for each in (model, loaded)]
    assert torch.equal(outs[0].logits, outs[1].logits)
    found = hf.RTDetrImageProcessor().post_process_object_detection(outs[1], threshold=0.0, target_sizes=[(SIDE, SIDE)] * 3)
    assert all(len(each["boxes"]) == model.config.num_queries for each in found)
    resumed = trainer(use_alrp(build(name)), tmp_path, num_train_epochs=3)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert [entry["eval_loss"] for entry in resumed.state.log_history if "eval_loss" in entry][:2] == pytest.approx(
        [entry["eval_loss"] for entry in own.state.log_history if "eval_loss" in entry]
    )
    assert resumed.state.global_step == 6


def test_trains_with_accelerate_and_goes_on_where_it_was(tmp_path):
    def prepared():
        accelerator = Accelerator(cpu=True)
        model = use_alrp(build("d_fine"))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        loader = torch.utils.data.DataLoader(Squares(8), batch_size=4, collate_fn=collate)
        return accelerator, *accelerator.prepare(model, optimizer, loader)

    def epoch(accelerator, model, optimizer, loader):
        torch.manual_seed(3)
        losses = []
        for batch in loader:
            loss = model(**batch).loss
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            losses.append(loss.item())
        return losses

    first = prepared()
    before = epoch(*first)
    first[0].save_state(str(tmp_path))
    after = epoch(*first)
    assert sum(after) < sum(before)
    second = prepared()
    second[0].load_state(str(tmp_path))
    assert epoch(*second) == pytest.approx(after)


class OwnLoss:
    def __call__(self, *arguments, **others):
        raise NotImplementedError


@pytest.mark.parametrize("kind", ["detr", "yolos", "other", "own", "module"])
def test_other_models_are_refused(kind):
    if kind == "detr":
        model = hf.DetrForObjectDetection(hf.DetrConfig(backbone_config=models.resnet(), **models.ENCODER, d_model=32))
    elif kind == "yolos":
        model = hf.YolosForObjectDetection(hf.YolosConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2))
    elif kind == "other":
        model = hf.BertForSequenceClassification(
            hf.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
        )
    elif kind == "own":
        model = build("rt_detr")
        model.loss_function = OwnLoss()
    else:
        model = nn.Linear(2, 2)
    with pytest.raises(TypeError, match=rf"model must be .* RT-DETR, D-FINE, .*, got {type(model).__name__} with "):
        use_alrp(model)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"loss": "focal"}, ValueError, "loss"),
        ({"errors": "ciou"}, ValueError, "errors"),
        ({"tau": 1.0}, ValueError, "tau"),
        ({"loss_weight": -1.0}, ValueError, "loss_weight"),
        ({"balance": "self"}, ValueError, "balance must be a number, 'value' or None, got 'self'"),
        ({"balance": "none"}, ValueError, "balance"),
        ({"balance": 2.0, "loss": "ap"}, ValueError, r"balance must be None with 'ap', .* got 2\.0"),
        ({"prior_probability": 1.0}, ValueError, "prior_probability"),
        ({"prior_probability": "1"}, TypeError, "prior_probability"),
        ({"order": "soft"}, ValueError, "order"),
        ({"interpolate": True}, TypeError, "interpolate"),
    ],
)
def test_bad_arguments_are_told_at_once(settings, error, message):
    model = build("deformable_detr")
    with pytest.raises(error, match=message):
        use_alrp(model, **settings)
    assert not isinstance(model.loss_function, RankedLossFunction)
    assert not model.class_embed[0].bias.any()


def test_the_package_does_not_import_the_framework():
    code = "import sys, alrp_cuda, alrp_cuda.integrations.queries; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_older_versions_are_refused():
    for version in ("5.24.0", "5.24.1.dev0", "5.30.0", "main"):
        check_version("transformers", version, OLDEST)
    with pytest.raises(ImportError, match=r"takes transformers 5\.24\.0 or newer, got 5\.23\.1"):
        check_version("transformers", "5.23.1", OLDEST)
