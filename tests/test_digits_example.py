"""The digits example runs end to end from its command line, and a seed repeats it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import alrp_cuda

for package in ("torchvision", "sklearn", "matplotlib", "rich", "faster_coco_eval"):
    pytest.importorskip(package)

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits.py"
ITERATIONS = 3


def run_example(out: Path, *arguments: str) -> tuple[dict, str]:
    """(history.json, standard output) of a run of a few iterations, with the alrp_cuda that the tests import."""
    paths = str(Path(alrp_cuda.__file__).parents[1]), os.environ.get("PYTHONPATH", "")
    command = [sys.executable, EXAMPLE, "--epochs", "1", "--iterations", str(ITERATIONS), "--out", out, *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUTF8": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads((out / "history.json").read_text()), run.stdout


@pytest.fixture(scope="module")
def first_run(tmp_path_factory) -> tuple[Path, dict, str]:
    out = tmp_path_factory.mktemp("digits")
    return out, *run_example(out, "--seed", "7")


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


def test_seed_repeats_a_run(first_run, tmp_path):
    _, history, _ = first_run
    again, _ = run_example(tmp_path, "--seed", "7")
    for name in ("classification", "bbox_regression", "evaluations"):
        assert again[name] == history[name]


def test_focal_loss_runs_on_the_same_canvases(first_run, tmp_path):
    _, history, _ = first_run
    focal, _ = run_example(tmp_path, "--seed", "7", "--loss", "focal")
    assert focal["loss"] == "focal"
    assert focal["classification"] != history["classification"]
