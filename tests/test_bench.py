"""The benchmark: its baseline computes the right thing, and it tells a wrong loss from a right one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import alrp_cuda
from alrp_cuda import reference
from bench import per_positive_loop
from bench.__main__ import main
from bench.agreement import allowed
from bench.cases import Case
from bench.memory import peak_bytes
from bench.report import figure, number

CPU = torch.device("cpu")
TINY = ["--logits", "300", "1e3", "--positives", "3", "20", "--repeat", "2"]

# (shape, positives, ignored): the usual, one positive, only positives, none, nothing at all.
SHAPES = [
    ((200,), 20, 0),
    ((6, 50), 31, 40),
    ((90,), 1, 3),
    ((25,), 25, 0),
    ((40,), 0, 0),
    ((40,), 0, 40),
    ((0,), 0, 0),
]


def draw(shape, positives, ignored, *, ties=False, dtype=torch.float64):
    generator = torch.Generator().manual_seed(positives)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * 2
    if ties:
        logits = logits.round()
    targets = torch.zeros(logits.numel(), dtype=torch.int8)
    order = torch.randperm(logits.numel(), generator=generator)
    targets[order[:positives]] = 1
    targets[order[positives : positives + ignored]] = -1
    loc_errors = torch.rand(positives, generator=generator, dtype=torch.float64) * 1.5
    return logits.to(dtype).requires_grad_(), targets.view(shape), loc_errors.requires_grad_()


def assert_close(found, expected, bound=1e-12):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert (found - expected).norm() <= bound * expected.norm() + 1e-12


@pytest.mark.parametrize(("shape", "positives", "ignored"), SHAPES)
@pytest.mark.parametrize("delta", [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("order", ["smooth", "hard"])
@pytest.mark.parametrize("ties", [False, True])
def test_loop_agrees_with_the_reference_on_alrp(shape, positives, ignored, delta, order, ties):
    logits, targets, loc_errors = draw(shape, positives, ignored, ties=ties)
    loop = per_positive_loop.alrp_loss(logits, targets, loc_errors, delta=delta, order=order)
    truth = reference.alrp_loss(logits, targets, loc_errors, delta=delta, order=order)
    for found, expected in zip(loop, truth, strict=True):
        assert_close(found, expected)
    gradients = [torch.autograd.grad(out.cls + 3 * out.loc, (logits, loc_errors)) for out in (loop, truth)]
    for found, expected in zip(*gradients, strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize(("shape", "positives", "ignored"), SHAPES)
@pytest.mark.parametrize("delta", [0.0, 1.0])
@pytest.mark.parametrize("interpolate", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_loop_agrees_with_the_reference_on_ap(shape, positives, ignored, delta, interpolate, ties):
    logits, targets, _ = draw(shape, positives, ignored, ties=ties)
    loop = per_positive_loop.ap_loss(logits, targets, delta=delta, interpolate=interpolate)
    truth = reference.ap_loss(logits, targets, delta=delta, interpolate=interpolate)
    assert_close(loop, truth)
    assert_close(*(torch.autograd.grad(out, logits)[0] for out in (loop, truth)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_loop_keeps_the_dtypes_of_its_inputs(dtype):
    logits, targets, loc_errors = draw((500,), 30, 10, dtype=dtype)
    loc_errors = loc_errors.detach().float().requires_grad_()
    loop = per_positive_loop.alrp_loss(logits, targets, loc_errors)
    truth = reference.alrp_loss(logits, targets, loc_errors)
    bound = allowed(dtype, "gradient of logits")
    for found, expected in zip(loop, truth, strict=True):
        assert_close(found, expected, bound=1e-6)
    gradients = [torch.autograd.grad(out.cls + out.loc, (logits, loc_errors)) for out in (loop, truth)]
    for found, expected in zip(*gradients, strict=True):
        assert_close(found, expected, bound=2 * bound)


def test_thinner_cases_stay_within_their_pairs_and_keep_positives_while_they_can():
    case = Case(10**6, 500, "dense", torch.float32, CPU)
    assert case.thinner(10**9) == case
    assert (case.thinner(10**7).logits, case.thinner(10**7).positives) == (20_000, 500)
    huge = Case(10**8, 10**5, "dense", torch.float32, CPU).thinner(10**8)
    assert huge.pairs <= 10**8
    assert huge.logits >= 4 * huge.positives


def test_fewer_positives_keep_what_is_within_reach():
    problem = Case(5000, 100, "sparse", torch.float32, CPU).draw()
    fewer = problem.with_fewer_positives(8)
    assert 7 <= fewer.positives <= 8
    kept = per_positive_loop.take_sides(fewer.logits, fewer.targets, 1.0)
    every = per_positive_loop.take_sides(problem.logits, problem.targets, 1.0)
    assert torch.equal(kept.negative_index, every.negative_index)


def test_peak_memory_counts_what_is_held_at_once():
    def step():
        for _ in range(3):
            torch.empty(1000, dtype=torch.float32)
        return torch.empty(500, dtype=torch.float32), torch.empty(250, dtype=torch.float32)

    assert peak_bytes(step, CPU) == 4000
    assert peak_bytes(lambda: [torch.empty(1000, dtype=torch.float32) for _ in range(3)], CPU) == 12_000


@pytest.mark.parametrize(
    ("count", "text"), [(50, "50"), (2000, "2000"), (10**4, "1e4"), (4_470_000, "4.47e6"), (4_468_464, "4468464")]
)
def test_counts_read_as_they_are_typed(count, text):
    assert number(count) == text
    assert int(float(text)) == count


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0, "0"), (0.002361, "0.00236"), (12.06, "12.1"), (1208.3, "1208")])
def test_figures_have_three_digits(value, text):
    assert figure(value) == text


@pytest.mark.parametrize("loss", ["alrp", "ap"])
def test_run_writes_figures_and_picture(loss, tmp_path, capsys):
    results, picture = tmp_path / "out.json", tmp_path / "out.png"
    assert main([*TINY, "--loss", loss, "--json", str(results), "--plot", str(picture)]) == 0
    cells = json.loads(results.read_text())["cells"]
    assert [(cell["logits"], cell["positives"]) for cell in cells] == [(300, 3), (300, 20), (1000, 3), (1000, 20)]
    for cell in cells:
        assert all(cell["median_ms"][name] > 0 for name in ("ours", "focal", "loop", "reference", "copy"))
        assert all(1 <= len(samples) <= 2 for samples in cell["samples_ms"].values())
        assert cell["peak_bytes"]["ours"] >= 4 * cell["logits"]  # the gradient
        assert {error["against"] for error in cell["relative_l2_error"]} == {"reference", "loop"}
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_piped_output_is_plain_and_has_every_column():
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "bench", *TINY, "--dtype", "bfloat16", "--regime", "sparse"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout
    tables = [line for line in done.stdout.splitlines() if line.startswith("|") and " N " in line]
    columns = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables]
    assert columns == [
        ["N", "P", "ours", "focal", "loop", "reference", "copy", "ours/focal", "loop/ours", "ours/copy"],
        ["N", "P", "ours", "focal", "loop", "reference", "the logits"],
        ["N", "P", "reference", "loop"],
    ]
    for heading in ("machine", "date", "versions", "backends", "command", "bfloat16", "sparse"):
        assert heading in done.stdout


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("field", ["cls", "loc", "rank", "precision"])
def test_a_planted_disagreement_is_told(dtype, field, monkeypatch, capsys):
    def off(*args, algorithm, **options):
        out = reference.alrp_loss(*args, **options)
        return out._replace(**{field: getattr(out, field) * 1.001})

    monkeypatch.setattr(alrp_cuda, "alrp_loss", off)
    assert main([*TINY, "--dtype", dtype]) == 1
    told = capsys.readouterr()
    assert f"N = 300, P = 3: {field} is off the reference's by 0.001" in told.err
    assert f"{field} is off the loop's by 0.001" in told.err
    assert "Time" not in told.out


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_a_planted_wrong_gradient_is_told(dtype, monkeypatch, capsys):
    def off(logits, *args, algorithm, **options):
        wrong = logits * 1.01  # the same order to a hair, and a gradient 1% too long
        return reference.ap_loss(wrong - 0.01 * logits.detach(), *args, **options)

    monkeypatch.setattr(alrp_cuda, "ap_loss", off)
    assert main([*TINY, "--loss", "ap", "--dtype", dtype]) == 1
    assert "gradient of logits is off the reference's by 0.01" in capsys.readouterr().err


def test_nan_is_a_disagreement(monkeypatch, capsys):
    monkeypatch.setattr(alrp_cuda, "ap_loss", lambda logits, *args, **options: (logits * float("nan")).sum())
    assert main([*TINY, "--loss", "ap"]) == 1
    assert "loss is off the reference's by nan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--logits", "0"], "whole number"),
        (["--positives", "1.5"], "whole number"),
        (["--logits", "10", "--positives", "20"], "larger than"),
        (["--json", "no/such/folder/x.json"], "does not exist"),
        (["--loss", "focal"], "invalid choice"),
    ],
)
def test_nonsense_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_run_on_a_gpu(capsys):
    assert main([*TINY, "--device", "cuda"]) == 0
    assert "CUDA" in capsys.readouterr().out
