"""make gpu-check, with a stand-in for the machine and for what it runs."""

import sys

import gpu_check
import pytest
import torch
from gpu_check import Outcome, Step

import alrp_cuda


@pytest.fixture
def gpu(monkeypatch):
    """A machine that seems to have a GPU."""
    monkeypatch.setattr(gpu_check, "no_gpu", lambda: None)
    monkeypatch.setattr(gpu_check, "machine", lambda sanitizer: {"device": "Some GPU, compute capability 9.0", "driver": "580.1"})


def check(tmp_path, answers):
    """(exit status, steps that were run, report), where ``answers`` gives outcomes by name of the step; the rest pass."""
    ran, report = [], tmp_path / "runs" / "report.md"

    def runner(step):
        ran.append(step)
        return answers.get(step.name, Outcome(0, f"{step.name} is fine\n", 1.6))

    status = gpu_check.main(["--report", str(report), "--sanitizer", "/opt/compute-sanitizer"], runner)
    return status, ran, report.read_text()


def test_everything_is_run_in_order(gpu, tmp_path):
    status, ran, _ = check(tmp_path, {})
    assert status == 0
    assert [step.name for step in ran] == ["gpu tests", "memcheck", "racecheck", "initcheck", "synccheck", "benchmark"]
    assert ran[0].command == (sys.executable, "-m", "pytest", "-q", "-rs", "-m", "gpu")
    assert ran[-1].command == (sys.executable, "-m", "bench", "--device", "cuda")
    for step in ran[1:-1]:
        head, tests = step.command[:7], step.command[7:]
        wanted = ("/opt/compute-sanitizer", "--error-exitcode", "99", "--target-processes", "all", "--tool", step.name)
        assert head == wanted
        assert tests[:3] == (sys.executable, "-m", "pytest")
        assert "gpu and not full" in tests
        assert step.environment == {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def test_the_report_names_the_device_and_every_outcome(gpu, tmp_path):
    answers = {
        "racecheck": Outcome(99, "".join(f"line {i}\n" for i in range(100)), 61.2),
        "benchmark": Outcome(1, "a disagreement", 2),
    }
    status, ran, report = check(tmp_path, answers)
    assert status == 1
    assert len(ran) == 6, "a failure does not stop the rest"
    assert "- device: Some GPU, compute capability 9.0" in report
    assert "- driver: 580.1" in report
    assert "| memcheck | passed | 2 |" in report
    assert "| racecheck | **failed**: the tool reported errors | 61 |" in report
    assert "| benchmark | **failed**: exit status 1 | 2 |" in report
    assert "    PYTORCH_NO_CUDA_MEMORY_CACHING=1 /opt/compute-sanitizer" in report
    assert "line 99" in report
    assert "line 75" in report
    assert "line 74" not in report


@pytest.mark.parametrize(
    "outcome", [Outcome(None, "no such file"), Outcome(99, ""), Outcome(5, "no tests ran"), Outcome(-11, "")]
)
@pytest.mark.parametrize("name", ["gpu tests", "initcheck", "benchmark"])
def test_any_failure_fails_the_check(gpu, tmp_path, name, outcome):
    status, _, report = check(tmp_path, {name: outcome})
    assert status == 1
    assert report.count("passed |") == 5


def test_an_interrupted_run_leaves_what_it_found(gpu, tmp_path):
    def runner(step):
        if step.name == "racecheck":
            raise KeyboardInterrupt
        return Outcome(0, "")

    with pytest.raises(KeyboardInterrupt):
        gpu_check.main(["--report", str(tmp_path / "report.md")], runner)
    assert "| memcheck | passed |" in (tmp_path / "report.md").read_text()


def test_without_a_gpu_nothing_is_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    report = tmp_path / "report.md"
    assert gpu_check.main(["--report", str(report)], lambda step: pytest.fail(f"ran {step}")) == 2
    assert "gpu-check needs a machine with a GPU: torch sees no CUDA device" in capsys.readouterr().err
    assert not report.exists()


def test_a_gpu_is_not_enough_without_the_backend(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(alrp_cuda, "backends", lambda: ("cpu",))
    assert gpu_check.main([], lambda step: pytest.fail(f"ran {step}")) == 2
    assert "built without its CUDA backend" in capsys.readouterr().err


def test_commands_are_run_with_their_environment_and_their_words_kept(capsys):
    program = "import os, sys; print(os.environ['WORD']); print('told', file=sys.stderr); sys.exit(3)"
    outcome = gpu_check.run(Step("any", (sys.executable, "-c", program), {"WORD": "hello"}))
    assert outcome.status == 3
    assert sorted(outcome.output.split()) == ["hello", "told"]
    assert "hello" in capsys.readouterr().out
    assert gpu_check.run(Step("missing", ("/no/such/program",))).status is None
    assert gpu_check.said("/no/such/program") == "unknown"
