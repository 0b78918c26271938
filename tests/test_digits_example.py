"""The digits example runs end to end from its command line, and a seed repeats it."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import alrp_cuda

for package in ("torchvision", "sklearn", "matplotlib", "rich", "faster_coco_eval"):
    pytest.importorskip(package)

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits.py"
ITERATIONS = 3
TINY = ["--epochs", "1", "--iterations", str(ITERATIONS), "--seed", "7"]


@pytest.fixture(scope="module")
def first_run(tmp_path_factory) -> tuple[Path, dict, str]:
    """(folder, history.json, standard output) of the example as a program, with the alrp_cuda that the tests import."""
    out = tmp_path_factory.mktemp("digits")
    paths = str(Path(alrp_cuda.__file__).parents[1]), os.environ.get("PYTHONPATH", "")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, EXAMPLE, *TINY, "--out", out]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return out, json.loads((out / "history.json").read_text()), run.stdout


@pytest.fixture
def run_again(tmp_path, monkeypatch):
    """The example's history.json with more arguments, run in this process and on one thread like the first."""

    def run(*arguments: str) -> dict:
        importlib.import_module("digits").main([*TINY, "--out", str(tmp_path), *arguments])
        return json.loads((tmp_path / "history.json").read_text())

    monkeypatch.syspath_prepend(EXAMPLE.parent)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        yield run
    torch.set_num_threads(threads)


def test_run_leaves_pictures_and_numbers(first_run):
    out, history, printed = first_run
    for picture in ("detections.png", "curves.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    for losses in (history["classification"], history["bbox_regression"]):
        assert len(losses) == ITERATIONS
        assert all(0 < loss < 100 for loss in losses)
    (ap,) = history["evaluations"]
    assert set(ap) == {"AP", "AP50", "AP75"}
    assert all(0 <= value <= 1 for value in ap.values())
    assert "AP50" in printed
    assert "seconds per iteration" in printed
    assert "\x1b" not in printed, "plain text when piped"


def test_seed_repeats_a_run(first_run, run_again):
    _, history, _ = first_run
    again = run_again()
    for name in ("classification", "bbox_regression", "evaluations"):
        assert again[name] == history[name]


def test_focal_loss_runs_too(first_run, run_again):
    _, history, _ = first_run
    focal = run_again("--loss", "focal")
    assert focal["loss"] == "focal"
    assert focal["classification"] != history["classification"]
