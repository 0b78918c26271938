"""The digits example runs end to end from its command line, a seed repeats it, a stop loses nothing, every cell trains."""

import json
import os
import signal
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

import alrp_cuda

pytest.importorskip("torchvision")  # not there for every torch

from examples.common import logs
from examples.common.watch import LossClock, watched
from examples.digits import exhibit, training
from examples.digits.__main__ import main
from examples.digits.data import CLASSES, make_batch, split_digits
from examples.digits.losses import LOSSES
from examples.digits.models import ANCHORS_OF_LEVELS, DETECTORS
from examples.digits.report import write_report
from examples.digits.training import History, Run, Trainer, train

ROOT = Path(__file__).parents[1]
ITERATIONS = 3
TINY = ["--epochs", "1", "--iterations", str(ITERATIONS), "--canvases", "8", "--seed", "7"]
TINY_RUN = Run(epochs=2, iterations=ITERATIONS, canvases=8, seed=7)
NUMBERS = {"AP", "AP50", "AP75", "AP90", "oLRP", "rho"}
REPEATS = ("losses", "gradient_balance", "evaluations")  # of a history; times do not


@pytest.fixture(autouse=True)
def one_thread_and_own_seed():
    """As the programs run, so that results compare bit by bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        yield
    torch.set_num_threads(threads)


def environment() -> dict[str, str]:
    """For programs: the alrp_cuda that the tests import, one thread."""
    paths = str(Path(alrp_cuda.__file__).parents[1]), os.environ.get("PYTHONPATH", "")
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"}


def read(folder: Path) -> dict:
    return json.loads((folder / "history.json").read_text())


def comparable(history: dict) -> str:
    """What must repeat, as text: two NaN are alike in it."""
    return json.dumps({name: history[name] for name in REPEATS})


@pytest.fixture(scope="module")
def first_run(tmp_path_factory) -> tuple[Path, dict, str]:
    """(folder, history.json, standard output) of the example as a program."""
    out = tmp_path_factory.mktemp("digits")
    command = [sys.executable, "-m", "examples.digits", *TINY, "--out", out]
    run = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return out, read(out), run.stdout


@pytest.mark.slow
def test_run_leaves_pictures_and_numbers(first_run):
    out, history, printed = first_run
    for picture in ("detections.png", "curves.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    assert set(history["losses"]) == {"classification", "bbox_regression"}
    for losses in history["losses"].values():
        assert len(losses) == ITERATIONS
        assert all(0 < loss < 100 for loss in losses)
    (numbers,) = history["evaluations"]
    assert set(numbers) == NUMBERS
    assert all(0 <= numbers[name] <= 1 for name in ("AP", "AP50", "AP75", "AP90", "oLRP"))
    for taken, step in zip(history["loss_seconds"], history["seconds"], strict=True):
        assert 0 < taken < step
    assert "AP50" in printed
    assert "s / step" in printed
    assert "\x1b" not in printed, "plain text when piped"


@pytest.mark.slow
def test_seed_repeats_a_run(first_run, tmp_path):
    _, history, _ = first_run
    main([*TINY, "--out", str(tmp_path)])
    assert comparable(read(tmp_path)) == comparable(history)


@pytest.mark.parametrize(("detector", "loss"), exhibit.GRID)
def test_every_cell_trains(detector, loss, tmp_path, capsys):
    run = replace(TINY_RUN, detector=detector, loss=loss, epochs=1)
    history, evaluation = train(run, tmp_path, Console())
    assert set(history.evaluations[0]) == NUMBERS
    assert len(history.seconds) == ITERATIONS
    for values in history.losses.values():
        assert torch.tensor(values).isfinite().all()
    assert any(value > 0 for values in history.losses.values() for value in values)
    for taken, step in zip(history.loss_seconds, history.seconds, strict=True):
        assert 0 < taken < step
    assert len(evaluation.detections) == run.canvases
    assert all((found["labels"] > 0).all() and (found["labels"] < CLASSES).all() for found in evaluation.detections)
    if detector != "faster-rcnn":
        balance = torch.tensor(history.gradient_balance)
        assert len(balance) == ITERATIONS
        if loss.startswith(("alrp", "ap")):  # Theorem 2
            torch.testing.assert_close(balance, torch.ones(ITERATIONS), rtol=1e-4, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("detector", DETECTORS)
def test_every_loss_starts_from_the_same_weights(detector, loss):
    model = DETECTORS[detector]()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    LOSSES[loss](model, ITERATIONS)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.slow
@pytest.mark.parametrize("detector", DETECTORS)
def test_training_lowers_the_loss(detector):
    """On the same few canvases again and again."""
    batch = make_batch(split_digits(held_out=False)[0], 4, training.np.random.default_rng(3))
    trainer = Trainer(replace(TINY_RUN, detector=detector, epochs=1, iterations=25), Path())
    with watched(trainer.model, CLASSES) as watches:
        for _ in range(25):
            trainer.step(batch, *watches)
    total = torch.tensor(list(trainer.history.losses.values())).sum(0)
    assert total[-3:].mean() < 0.95 * total[:3].mean()


def stop_after(saves: int, run: Run, folder: Path, monkeypatch) -> None:
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
            train(run, folder, Console())
    assert not (folder / "history.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("detector", "loss"), [("retinanet", "alrp-giou-self"), ("faster-rcnn", "own")])
@pytest.mark.parametrize("saves", [1, 2])
def test_a_stopped_run_goes_on_where_it_was(detector, loss, saves, tmp_path, monkeypatch, capsys):
    run = replace(TINY_RUN, detector=detector, loss=loss)
    whole, _ = train(run, tmp_path / "whole", Console())

    stop_after(saves, run, tmp_path / "stopped", monkeypatch)
    if loss != "own":
        assert any("balance" in name for name in torch.load(tmp_path / "stopped" / "checkpoint.pt")["model"])
    torch.manual_seed(99)  # another process has another state
    resumed, evaluation = train(run, tmp_path / "stopped", Console())
    assert len(resumed.seconds) == 2 * ITERATIONS
    assert comparable(vars(resumed)) == comparable(vars(whole))
    assert repr(evaluation.numbers) == repr(whole.evaluations[-1])


def test_a_complete_run_starts_anew_and_makes_room_for_others(tmp_path, capsys):
    run = replace(TINY_RUN, epochs=1)
    first, _ = train(run, tmp_path, Console())
    second, _ = train(run, tmp_path, Console())
    assert second.seconds != first.seconds
    assert comparable(vars(second)) == comparable(vars(first))
    train(replace(run, loss="own"), tmp_path, Console())
    assert read(tmp_path)["run"]["loss"] == "own"


def test_a_checkpoint_of_another_run_is_refused(tmp_path, monkeypatch, capsys):
    stop_after(1, TINY_RUN, tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=r"checkpoint\.pt must be of .*'seed': 8"):
        train(replace(TINY_RUN, seed=8), tmp_path, Console())


def test_tensorboard_gets_losses_and_numbers(tmp_path, monkeypatch, capsys):
    """Also after a stop: from the first iteration that follows on."""
    written, purged = [], []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            purged.append(purge_step)

        def add_scalar(self, name, value, iteration):
            written.append((name, iteration))

        def flush(self):
            pass

    monkeypatch.setattr(logs.importlib.util, "find_spec", lambda name: types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    stop_after(1, TINY_RUN, tmp_path, monkeypatch)
    train(TINY_RUN, tmp_path, Console())
    names = ["training/classification", "training/bbox_regression", "training/gradient_balance"]
    assert sorted(x for x in written if x[0] in names) == sorted((name, i) for name in names for i in range(2 * ITERATIONS))
    ends = {i for name, i in written if name.startswith("validation/")}
    assert ends == {ITERATIONS, 2 * ITERATIONS}
    assert purged == [0, ITERATIONS]


def test_clock_counts_the_loss_alone():
    """A slow network and a slow loss: only the second is counted, forward and backward."""

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, seconds):
            ctx.seconds = seconds
            time.sleep(seconds)
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            time.sleep(ctx.seconds)
            return grad, None

    clock = LossClock()
    loss = clock.watch(lambda outputs, other: (Slow.apply(outputs["logits"], 0.05).sum(), outputs["boxes"].sum()))
    x = torch.ones(3, requires_grad=True)
    outputs = {"logits": Slow.apply(x, 0.2), "boxes": x * 2}
    sum(loss(outputs, None)).backward()
    assert x.grad.tolist() == [3, 3, 3]
    assert 0.1 <= clock.take() < 0.2
    assert clock.take() == 0


def test_watching_changes_nothing_and_ends():
    batch = make_batch(split_digits(held_out=False)[0], 2, training.np.random.default_rng(3))
    for detector in DETECTORS:
        for loss in ("alrp-giou-self", "own"):
            torch.manual_seed(0)
            model = DETECTORS[detector]()
            LOSSES[loss](model, 10)
            before = {name: set(vars(module)) for name, module in model.named_modules()}
            torch.manual_seed(1)
            plain = {name: value.item() for name, value in model(*batch).items()}
            with watched(model, CLASSES):
                torch.manual_seed(1)
                assert {name: value.item() for name, value in model(*batch).items()} == plain
            assert {name: set(vars(module)) for name, module in model.named_modules()} == before


def test_splits_are_disjoint_and_held_out_digits_are_not_those_of_validation():
    training_digits, validation = split_digits(held_out=False)
    fewer, held_out = split_digits(held_out=True)
    assert (len(training_digits), len(validation), len(fewer), len(held_out)) == (1437, 360, 1137, 300)

    def images(digits):
        return sorted(digit.image.numpy().tobytes() for digit in digits)

    assert images([*fewer, *held_out]) == images(training_digits)


def test_anchors_of_levels():
    from torchvision.models.detection.image_list import ImageList

    images, _ = make_batch(split_digits(held_out=False)[0], 1, training.np.random.default_rng(3))
    model = DETECTORS["retinanet-atss"]()
    features = list(model.backbone(images[0][None]).values())
    (anchors,) = model.anchor_generator(ImageList(images[0][None], [(64, 64)]), features)
    assert len(anchors) == sum(ANCHORS_OF_LEVELS)
    assert [f.shape[-1] ** 2 * 3 for f in features] == ANCHORS_OF_LEVELS


@pytest.fixture
def small_exhibit(monkeypatch):
    """The exhibit with two losses and two learning rates."""
    monkeypatch.setattr(exhibit, "GRID", [("retinanet", "alrp-giou-self"), ("retinanet", "own"), ("fcos", "own")])
    monkeypatch.setattr(exhibit, "LOSSES", ["alrp-giou-self", "own"])
    monkeypatch.setattr(exhibit, "LEARNING_RATES", (1e-3, 4e-3))
    monkeypatch.setattr(os, "environ", environment())


@pytest.mark.slow
def test_exhibit_searches_runs_and_reports(small_exhibit, tmp_path, capsys):
    command = ["--seeds", "2", "--epochs", "1", "--iterations", "3", "--canvases", "4", "--jobs", "2", "--out", str(tmp_path)]
    exhibit.main(command)
    rates = json.loads((tmp_path / "learning-rates.json").read_text())
    for loss in ("alrp-giou-self", "own"):
        assert rates["AP"][loss][f"{rates['found'][loss]:g}"] == max(rates["AP"][loss].values())
        assert read(tmp_path / "search" / f"{loss}-0.001")["run"]["held_out"]
    rows = (tmp_path / "table.md").read_text().splitlines()
    assert [row.split(" | ")[:2] for row in rows[2:]] == [
        ["| retinanet", "alrp-giou-self"],
        ["| retinanet", "own"],
        ["| fcos", "own"],
    ]
    run = read(tmp_path / "grid" / "fcos-own-1")["run"]
    assert (run["seed"], run["learning_rate"], run["held_out"]) == (1, rates["found"]["own"], False)
    for picture in ("components.png", "gradients.png", "ap.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")

    done = (tmp_path / "grid" / "fcos-own-1" / "history.json").stat().st_mtime_ns
    (tmp_path / "table.md").unlink()
    exhibit.main(command)
    assert (tmp_path / "table.md").read_text().splitlines() == rows
    assert (tmp_path / "grid" / "fcos-own-1" / "history.json").stat().st_mtime_ns == done, "complete runs are not repeated"


@pytest.mark.slow
def test_a_failing_run_says_why(small_exhibit, tmp_path, capsys):
    run = replace(TINY_RUN, learning_rate=-1.0)
    with pytest.raises(RuntimeError, match="Invalid learning rate"):
        exhibit.do_runs([(run, tmp_path / "bad")], "grid", 1, Console())


@pytest.mark.slow
def test_ctrl_c_ends_the_exhibit(tmp_path):
    """Its runs end with it, and what they saved stays."""
    # A shell's background job, and what it starts, is born ignoring SIGINT.
    program = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from examples.digits.exhibit import main
main(["--jobs", "2", "--out", {str(tmp_path)!r}])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("search/*/log.txt")) and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(2)  # the runs are starting, wherever they are
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in printed
    assert len(list(tmp_path.glob("search/*"))) <= 2, "no other run began"


def test_table_says_means_and_spread(tmp_path):
    def history(ap: float) -> History:
        numbers = dict.fromkeys(("AP", "AP50", "AP75", "AP90", "oLRP", "rho"), ap)
        losses = {"classification": [0.9, 0.8], "bbox_regression": [0.5, 0.4]}
        return History({"learning_rate": 0.002}, losses, [1.0, 1.0], [0.1, 0.2], [0.01, 0.01], [numbers, numbers])

    cells = [exhibit.Cell(detector, "alrp-giou", [history(0.5), history(0.7)]) for detector in ("retinanet", "fcos")]
    write_report(cells, tmp_path)
    row = (tmp_path / "table.md").read_text().splitlines()[2]
    assert row == ("| retinanet | alrp-giou | 0.002 | " + "0.600 ± 0.141 | " * 6 + "0.1500 | 7.5% |")
