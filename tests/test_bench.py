"""The benchmark: its baseline computes the right thing, and it tells a wrong loss from a right one."""

import json
import os
import platform
import re
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._inductor.utils import run_and_get_code
from torch.profiler import ProfilerActivity, profile

import alrp_cuda
from alrp_cuda import ops, reference
from bench import (
    agreement,
    contenders,
    goals,
    levels,
    limits,
    measurement,
    per_positive_loop,
    plot,
    report,
    selection,
    timing,
    world,
)
from bench.__main__ import main
from bench.agreement import allowed, check
from bench.cases import Case, Problem
from bench.contenders import CONTENDERS, LOSSES, WAITING_FOR_NOTHING, make_steps
from bench.costs.inputs import Case as CostsCase
from bench.focal_loss import compiled_focal_loss, focal_loss, no_compiler
from bench.goals import GOALS, bounds_of, goal_of
from bench.limits import affordable
from bench.measurement import Measurement
from bench.memory import peak_bytes
from bench.options import parse
from bench.report import figure, number
from bench.selection import selected
from bench.timing import Timing

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


def draw_continuous(shape, positives, ignored, *, ties=False, dtype=torch.float64):
    """The same with continuous labels, tied ones among them where scores are."""
    logits, targets, loc_errors = draw(shape, positives, ignored, ties=ties, dtype=dtype)
    labels = targets.double()
    quality = 1 - loc_errors.detach() / 2
    labels[targets == 1] = (quality * 4).ceil() / 4 if ties else quality
    return logits, labels


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


@pytest.mark.parametrize(("shape", "positives", "ignored"), SHAPES)
@pytest.mark.parametrize("delta", [0.0, 1.0])
@pytest.mark.parametrize("ties", [False, True])
def test_loop_agrees_with_the_reference_on_ndcg(shape, positives, ignored, delta, ties):
    logits, targets, _ = draw(shape, positives, ignored, ties=ties)
    loop, truth = (module.ndcg_loss(logits, targets, delta=delta) for module in (per_positive_loop, reference))
    assert_close(loop, truth)
    assert_close(*(torch.autograd.grad(out, logits)[0] for out in (loop, truth)))


@pytest.mark.parametrize(("shape", "positives", "ignored"), SHAPES)
@pytest.mark.parametrize("delta", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weights", [(1, 3), (1, 0), (0, 1)])
def test_loop_agrees_with_the_reference_on_rank_sort(shape, positives, ignored, delta, ties, weights):
    logits, labels = draw_continuous(shape, positives, ignored, ties=ties)
    loop, truth = (module.rank_sort_loss(logits, labels, delta=delta) for module in (per_positive_loop, reference))
    for found, expected in zip(loop, truth, strict=True):
        assert_close(found, expected)
    totals = [weights[0] * out.rank + weights[1] * out.sort for out in (loop, truth)]
    assert_close(*(torch.autograd.grad(total, logits)[0] for total in totals))


@pytest.mark.parametrize("name", ["ndcg_loss", "rank_sort_loss"])
def test_loop_sends_no_gradient_up_to_eps(name):
    logits, labels = draw_continuous((60,), 20, 0)
    targets = labels if name == "rank_sort_loss" else labels.sign()
    gradients = []
    for module, eps in ((per_positive_loop, 3.0), (reference, 3.0), (reference, 0.0)):
        out = getattr(module, name)(logits, targets, eps=eps)
        gradients += torch.autograd.grad(out.sort if name == "rank_sort_loss" else out, logits)
    loop, truth, without = gradients
    assert_close(loop, truth)
    assert not torch.allclose(truth, without)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["ndcg_loss", "rank_sort_loss"])
def test_loop_of_logits_alone_keeps_their_dtype(name, dtype):
    logits, labels = draw_continuous((500,), 30, 10, dtype=dtype)
    targets = labels.float() if name == "rank_sort_loss" else labels.sign()
    outputs = [getattr(module, name)(logits, targets) for module in (per_positive_loop, reference)]
    loop, truth = (out if isinstance(out, tuple) else (out,) for out in outputs)
    for found, expected in zip(loop, truth, strict=True):
        assert_close(found, expected, bound=1e-6)
    gradients = [torch.autograd.grad(sum(out), logits)[0] for out in (loop, truth)]
    assert_close(*gradients, bound=2 * allowed(dtype, "gradient of logits"))


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


@pytest.mark.parametrize("classes", [1, 7])
def test_class_indices_label_an_anchor_at_most_once(classes):
    case = Case(1000, 30, "dense", torch.float32, CPU, classes)
    problem = case.draw()
    assert case.labels == 1000 // classes
    assert problem.logits.shape == (case.labels, classes)
    assert problem.targets.shape == (case.labels,)
    assert problem.targets.unique().tolist() == list(range(classes + 1))
    flat = problem.with_flat_labels()
    assert flat.with_flat_labels() is flat
    assert flat.targets.sum() == (problem.targets < classes).sum() == problem.positives == 30
    assert torch.equal(flat.targets.argmax(1)[problem.targets < classes], problem.targets[problem.targets < classes])
    outputs = [reference.alrp_loss(p.logits, p.targets, p.loc_errors) for p in (problem, flat)]
    assert all(torch.equal(*pair) for pair in zip(*outputs, strict=True))


def test_class_index_cases_are_made_of_whole_rows_and_stay_so_when_thinned():
    assert Case(1000, 30, "dense", torch.float32, CPU, 7).logits == 994
    thin = Case(10**7, 10**5, "dense", torch.float32, CPU, 91).thinner(10**8)
    assert thin.pairs <= 10**8
    assert thin.logits % 91 == 0
    assert thin.labels >= thin.positives


def test_fewer_positives_of_class_indices_keep_their_shape():
    problem = Case(5000, 100, "sparse", torch.float32, CPU, 10).draw().with_flat_labels()
    fewer = problem.with_fewer_positives(1)
    assert fewer.targets.shape == problem.targets.shape == (500, 10)
    assert (fewer.targets == 1).sum() == fewer.positives == 1
    assert (fewer.targets == -1).sum() == 99


@pytest.mark.parametrize("classes", [0, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_continuous_labels_are_the_overlaps_of_the_positives(classes, dtype):
    problem = Case(1001, 30, "dense", dtype, CPU, classes).draw()
    continuous = LOSSES["rank_sort"].labelled(problem)
    labels, flat = continuous.targets, problem.with_flat_labels().targets
    assert labels.dtype == torch.promote_types(dtype, torch.float32)
    assert labels.shape == problem.logits.shape
    assert not labels.requires_grad
    assert torch.equal(labels > 0, flat == 1)
    assert torch.equal(labels[flat == 1], 1 - problem.loc_errors.detach() / 2)
    assert (labels[flat == 0] == 0).all()
    assert LOSSES["alrp"].labelled(problem) is problem


def test_fewer_positives_of_continuous_labels_are_ignored_with_their_errors():
    problem = Case(1000, 30, "dense", torch.float32, CPU).draw().with_continuous_labels()
    fewer = problem.with_fewer_positives(8)
    kept = fewer.targets > 0
    assert int(kept.sum()) == fewer.positives
    assert torch.equal(fewer.targets[kept], 1 - fewer.loc_errors.detach() / 2)
    assert int((fewer.targets == -1).sum()) == 30 - fewer.positives


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("classes", [0, 7])
def test_emulated_cases_know_the_bytes_of_their_labels(loss, dtype, classes):
    case = CostsCase(700, 20, loss=loss, dtype=dtype, classes=classes)
    targets = LOSSES[loss].labelled(case.draw()).targets
    assert case.label_bytes == targets.numel() * targets.itemsize
    assert ("continuous labels" in str(case)) == targets.is_floating_point()


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


def cells_of(arguments, tmp_path):
    """What a run writes as JSON, after it has ended well."""
    results = tmp_path / "out.json"
    assert main([*arguments, "--json", str(results)]) == 0
    return json.loads(results.read_text())["cells"]


@pytest.fixture
def tiny_goals(monkeypatch):
    """The default run with a thousandth of its logits and a tenth of its positives."""

    def tiny(goal):
        case = goal.case
        logits = max(case.logits // 1000, 20 * (case.classes or 10))
        return replace(goal, case=replace(case, logits=logits, positives=case.positives // 10))

    found = tuple(map(tiny, GOALS))
    for module in (goals, selection):
        monkeypatch.setattr(module, "GOALS", found)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["alrp", "rank_sort"])
def test_run_writes_figures_and_picture(loss, tmp_path, capsys):
    picture = tmp_path / "out.png"
    cells = cells_of([*TINY, "--loss", loss, "--plot", str(picture)], tmp_path)
    assert [(cell["logits"], cell["positives"]) for cell in cells] == [(300, 3), (300, 20), (1000, 3), (1000, 20)]
    for cell in cells:
        assert (cell["loss"], cell["regime"], cell["bounds"]) == (loss, "dense", {})
        assert all(cell["median_ms"][name] > 0 for name in CONTENDERS)
        labels = {"alrp": 1, "rank_sort": 4}[loss]
        assert cell["floor_bytes"] == (12 + labels) * cell["logits"]
        assert cell["median_ms"]["floor"] == pytest.approx((12 + labels) / 8 * cell["median_ms"]["copy"])
        assert all(1 <= len(samples) <= 2 for samples in cell["samples_ms"].values())
        assert cell["peak_bytes"]["ours"] >= 4 * cell["logits"]  # the gradient
        assert {error["against"] for error in cell["relative_l2_error"]} == {"reference", "loop"}
    assert picture.read_bytes().startswith(b"\x89PNG")


def columns_of(output):
    """The column heads of every table that a run prints where its output is piped."""
    tables = [line for line in output.splitlines() if line.startswith("|") and " N " in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in tables]


@pytest.mark.slow
def test_a_batch_is_dealt_out_to_processes(capsys):
    arguments = ["--world", "2", "--logits", "2e4", "--positives", "50", "--repeat", "1", "--loss", "alrp"]
    assert main(arguments) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "2e4" in line and "dense" in line)
    cells = [cell.strip() for cell in line.strip("| ").split("|")]
    assert cells[:4] == ["alrp", "dense", "2e4", "50"]
    assert float(cells[6]) < 5 < float(cells[8])  # KiB handed to collectives, and of the logits
    assert cells[7:10:2] == ["3", "0.0e+00"]


@pytest.mark.parametrize("classes", [0, 4])
@pytest.mark.parametrize("name", ["alrp", "rank_sort"])
def test_parts_of_a_batch_are_the_whole(name, classes):
    problem = LOSSES[name].labelled(Case(1000, 20, "dense", torch.float32, CPU, classes).draw())
    parts = [world.part(problem, rank, 3) for rank in range(3)]
    for field in ("logits", "targets", "loc_errors"):
        assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(problem, field))
    assert [part.positives for part in parts] == [int((p.with_flat_labels().targets > 0).sum()) for p in parts]


@pytest.fixture
def small_levels(monkeypatch):
    for name, value in {"SIDES": (6, 3), "ANCHORS": 2, "CLASSES": 4, "POSITIVES": 5}.items():
        monkeypatch.setattr(levels, name, value)


@pytest.mark.parametrize("algorithm", ["sorted", "tiled"])
def test_levels_are_measured_by_list_and_joined(small_levels, algorithm, capsys):
    assert main(["--levels", "--repeat", "1", "--loss", "all", "--algorithm", algorithm]) == 0
    times, peaks = columns_of(capsys.readouterr().out)
    assert times == [
        *("loss", "images", "N", "loss alone, ms", "list of maps, ms", "permuted and joined, ms"),
        *("list / alone", "at most 1.15", "joined / alone"),
    ]
    assert peaks == ["loss", "images", "N", "loss alone", "list of maps", "permuted and joined", "the logits"]


def test_levels_hold_the_logits_of_the_case(small_levels):
    steps = levels.forms(LOSSES["alrp"], 2, torch.float32, CPU, "sorted")
    alone, listed = steps["alone"](), steps["list"]()
    assert torch.equal(alone[0], listed[0])
    rows = [view.reshape(-1, 4) for view in alrp_cuda.head_views(listed[1:3], 4)]
    assert torch.equal(torch.cat(rows), alone[1])
    assert torch.equal(listed[3], alone[2])


def test_a_list_that_disagrees_is_told(small_levels, monkeypatch, capsys):
    right = alrp_cuda.alrp_loss

    def wrong(logits, *arguments, **options):
        out = right(logits, *arguments, **options)
        return out._replace(cls=1.001 * out.cls) if isinstance(logits, list) else out

    monkeypatch.setattr(alrp_cuda, "alrp_loss", wrong)
    assert main(["--levels", "--repeat", "1"]) == 1
    assert "disagreement: alrp, 360: the list and the joined maps" in capsys.readouterr().out


@pytest.mark.slow
def test_piped_output_is_plain_and_has_every_column():
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "bench", *TINY, "--dtype", "bfloat16", "--regime", "sparse"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout
    assert done.stderr == ""  # progress is for a terminal
    case = ["regime", "N", "P"]
    assert columns_of(done.stdout) == [
        [*case, "ours", "tiled", "focal", "compiled focal", "loop", "reference", "copy", "floor"],
        [*case, "ours/focal", "ours/compiled focal", "ours/floor", "ours, ns a logit"],
        [*case, "ours", "tiled", "focal", "compiled focal", "loop", "reference", "the logits"],
        [*case, "reference", "loop"],
    ]
    for heading in ("machine", "date", "versions", "backends", "command", "bfloat16", "sparse"):
        assert heading in done.stdout


@pytest.mark.slow
def test_default_run_measures_the_goals_and_says_which_are_met(tiny_goals, tmp_path, capsys):
    picture = tmp_path / "out.png"
    cells = cells_of(["--repeat", "1", "--plot", str(picture)], tmp_path)
    printed = capsys.readouterr().out
    assert [cell["regime"] for cell in cells] == ["dense", "dense", "dense", "sparse", "small"]
    assert [(cell["logits"], cell["positives"]) for cell in cells] == [(g.case.logits, g.case.positives) for g in tiny_goals]
    assert [cell["classes"] for cell in cells] == [0, 0, 91, 0, 0]
    for cell, goal in zip(cells, tiny_goals, strict=True):
        assert all(cell["ratios"].values())
        assert set(cell["bounds"]) == {"ours/focal", "ours/compiled focal"}
        for name, bound in cell["bounds"].items():
            assert bound["at most"] == goal.bounds[tuple(name.split("/"))]
            assert bound["met"] == (cell["ratios"][name] <= bound["at most"])
    ratios = columns_of(printed)[1]
    assert ratios[3:7] == ["ours/focal", "ours/focal at most", "ours/compiled focal", "ours/compiled focal at most"]
    verdicts = [bound["met"] for cell in cells for bound in cell["bounds"].values()]
    assert printed.count(", met ") == verdicts.count(True)
    assert printed.count(", MISSED ") == verdicts.count(False)
    assert "| 49 x 91 |" in printed
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--dtype", "float64"], ["--loss", "rank_sort"]])
def test_no_bounds_but_for_alrp_at_float32(arguments, tiny_goals, tmp_path, capsys):
    cells = cells_of(["--repeat", "1", *arguments], tmp_path)
    assert [cell["regime"] for cell in cells] == ["dense", "dense", "dense", "sparse", "small"]
    assert all(cell["bounds"] == {} for cell in cells)
    assert not any("at most" in column for column in columns_of(capsys.readouterr().out)[1])


def test_goals_are_known_by_what_is_drawn():
    dense, *_, small = GOALS
    assert goal_of(dense.case) is dense
    assert goal_of(replace(small.case, dtype=torch.float16, device=torch.device("cuda"))) is small
    assert goal_of(replace(dense.case, positives=501)) is None
    assert bounds_of("alrp", dense.case) == dense.bounds
    assert bounds_of("alrp", replace(dense.case, device=torch.device("cuda"))) == {}
    assert all(bounds_of(name, dense.case) == {} for name in LOSSES if name != "alrp")


@pytest.mark.parametrize(("ours", "met"), [(0.5, True), (0.75, True), (0.76, False)])
def test_bounds_hold_up_to_their_limit(ours, met, monkeypatch):
    monkeypatch.setattr(measurement, "bounds_of", lambda loss, case: {("ours", "focal"): 0.75})
    assert measured(1000, 10, ours=ours, focal=1.0).is_met("ours", "focal") == met


def sizes(arguments):
    return [(case.logits, case.positives, case.regime, case.classes) for case in selected(parse(arguments))]


def test_cases_are_those_asked_for():
    assert sizes([]) == [(g.case.logits, g.case.positives, g.case.regime, g.case.classes) for g in GOALS]
    assert {case.dtype for case in selected(parse(["--dtype", "float16"]))} == {torch.float16}
    assert sizes(["--logits", "100", "1e3", "--positives", "10", "200"]) == [
        (100, 10, "dense", 0),
        (1000, 10, "dense", 0),
        (1000, 200, "dense", 0),
    ]
    assert sizes(["--logits", "100", "--positives", "10", "20", "--classes", "7"]) == [(98, 10, "dense", 7)]
    assert sizes(["--detector"]) == [(134_400 * 80, positives, "dense", 80) for positives in (5000, 20_000)]
    assert sizes(["--detector", "--positives", "10", "--regime", "sparse"]) == [(134_400 * 80, 10, "sparse", 80)]
    assert {regime for _, _, regime, _ in sizes(["--regime", "sparse"])} == {"sparse"}
    assert len(sizes(["--regime", "sparse"])) == 6


def test_scaling_goes_over_both_sizes_once():
    found = sizes(["--scaling", "--regime", "sparse"])
    assert len(set(found)) == len(found)
    assert {regime for _, _, regime, _ in found} == {"sparse"}
    assert sorted(n for n, p, *_ in found if p == 1000) == [10**4, 10**5, 10**6, 10**7, 10**8]
    assert sorted(p for n, p, *_ in found if n == 10**7) == [1, 10, 100, 10**3, 10**4, 10**5]
    assert all(10 * p <= n for n, p, *_ in found)


@pytest.mark.slow
def test_scaling_writes_figures_and_picture(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(selection, "SCALING", ((100, 10), (1000, 10), (1000, 1), (1000, 100)))
    picture = tmp_path / "out.png"
    cells = cells_of(["--scaling", "--repeat", "1", "--plot", str(picture)], tmp_path)
    assert [(cell["logits"], cell["positives"]) for cell in cells] == [(100, 10), (1000, 10), (1000, 1), (1000, 100)]
    assert "ours, ns a logit" in columns_of(capsys.readouterr().out)[1]
    assert picture.read_bytes().startswith(b"\x89PNG")


def measured(logits, positives, **times):
    timings = {name: Timing([time], 1) for name, time in times.items()}
    return Measurement("alrp", Case(logits, positives, "dense", torch.float32, CPU), 13 * logits, [], timings, {})


def test_picture_goes_over_one_size_at_a_time():
    cells = [measured(n, p) for n, p in ((10, 5), (1000, 5), (100, 5), (100, 50), (100, 1))]
    assert [m.case.logits for m in plot.sweep(cells, "logits", "positives")] == [10, 100, 1000]
    assert [m.case.positives for m in plot.sweep(cells, "positives", "logits")] == [1, 5, 50]
    grid = [measured(n, p) for n in (10, 100) for p in (1, 5)]
    assert {m.case.positives for m in plot.sweep(grid, "logits", "positives")} == {5}
    assert {m.case.logits for m in plot.sweep(grid, "positives", "logits")} == {100}


@pytest.mark.parametrize(("loss", "classes", "labels"), [("alrp", 0, 1), ("rank_sort", 0, 4), ("alrp", 10, 0.8)])
@pytest.mark.parametrize(("dtype", "logits"), [(torch.float32, 12), (torch.bfloat16, 6), (torch.float64, 24)])
def test_floor_is_two_reads_and_a_write_of_logits_and_a_read_of_labels(loss, classes, labels, dtype, logits):
    problem = LOSSES[loss].labelled(Case(1000, 10, "dense", dtype, CPU, classes).draw())
    if loss == "rank_sort":
        labels = problem.targets.itemsize
    assert problem.floor_bytes == 1000 * (logits + labels)


def test_floor_moves_its_bytes_as_fast_as_the_copy_does():
    cell = measured(1000, 10, ours=13e-6, copy=8e-6)  # which moves 8 bytes a logit
    assert cell.milliseconds("floor") == pytest.approx(13e-3)
    assert cell.ratio("ours", "floor") == pytest.approx(1)
    assert cell.nanoseconds_a_logit == pytest.approx(13)
    assert cell.ratio("ours", "focal") is None
    alone = replace(cell, replays={"ours": Timing([26e-6], 1), "copy": Timing([4e-6], 1)})
    assert alone.milliseconds("floor", alone=True) == pytest.approx(6.5e-3)
    assert alone.ratio("ours", "floor", alone=True) == pytest.approx(4)


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_contender_takes_class_indices(name, loss):
    case = Case(600, 20, "dense", torch.float32, CPU, 6)
    steps = make_steps([name], LOSSES[loss], LOSSES[loss].labelled(case.draw()), "auto")
    result = steps[name]()
    assert (result if name == "copy" else result[0]).shape == (100, 6)


def compiled_step(problem):
    return contenders.make_step("compiled focal", LOSSES["alrp"], problem, "auto")


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
        ),
    ],
)
@pytest.mark.parametrize("loss", ["alrp", "rank_sort"])
@pytest.mark.parametrize("classes", [0, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_compiled_focal_loss_is_the_eager_one(dtype, classes, loss, device):
    """Of labels as the case has them, with no larger error than the eager one makes in the logits' dtype, but for a rounding."""
    problem = LOSSES[loss].labelled(Case(600, 20, "dense", dtype, torch.device(device), classes).draw())
    one_hot = (problem.with_flat_labels().targets > 0).to(dtype)
    wide = problem.in_float64()
    truth = focal_loss(wide.logits, one_hot.double(), 20)
    eager = focal_loss(problem.logits, one_hot, 20)
    compiled = compiled_focal_loss()(problem.logits, problem.targets, torch.tensor(20.0, device=device))
    gradients = [torch.autograd.grad(*pair)[0] for pair in ((truth, wide.logits), (eager, problem.logits))]
    (gradient,) = compiled_step(problem)()
    assert gradient.dtype == dtype
    for expected, of_eager, found in ((truth, eager, compiled), (*gradients, gradient)):
        errors = [float(((value.double() - expected).norm() / expected.norm()).detach()) for value in (of_eager, found)]
        assert errors[1] <= errors[0] + allowed(dtype, agreement.LOGITS_GRADIENT)


def operators_of(step):
    """The names of what PyTorch runs in a step."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    return {event.key for event in profiler.key_averages()}


@pytest.mark.slow
@pytest.mark.parametrize("classes", [0, 6])
def test_compiled_focal_loss_is_two_kernels_that_keep_nothing_but_the_gradient(classes):
    problem = Case(6000, 20, "dense", torch.float32, CPU, classes).draw()
    arithmetic = {"aten::sigmoid", "aten::binary_cross_entropy_with_logits", "aten::pow", "aten::mul", "aten::sum"}
    assert arithmetic <= operators_of(contenders.focal_step(problem))
    step = compiled_step(problem)
    assert not arithmetic & operators_of(step)
    assert peak_bytes(step, CPU) == pytest.approx(24_000, rel=0.01)


def test_compiled_focal_loss_uses_as_many_threads_as_pytorch_and_no_others():
    problem = Case(10**5, 20, "dense", torch.float32, CPU).draw()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        step, passes = run_and_get_code(compiled_step, problem)
        assert ["num_threads(3)" in code for code in passes] == [True, True]
        torch.set_num_threads(2)
        with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError, match="num_threads"):
            step()
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [0, 6])
def test_compiled_focal_loss_is_compiled_anew_for_a_size_and_for_nothing_else(classes):
    with torch._dynamo.config.patch(recompile_limit=1):  # a run has more sizes than dynamo compiles one function for
        for logits in (600, 606, 612):
            problem = Case(logits, 20, "dense", torch.float32, CPU, classes).draw()
            compiled_step(problem)
            function = contenders.compiled_focal_loss()
            function(problem.logits, problem.targets, torch.tensor(20.0))
            with torch.compiler.set_stance("fail_on_recompile"):
                function(problem.logits, problem.targets, torch.tensor(7.0))


def test_nothing_is_compiled_while_it_is_timed(monkeypatch, capsys):
    compiled_focal_step = contenders.compiled_focal_step

    def forgetful(problem):
        step = compiled_focal_step(problem)

        def again():
            torch.compiler.reset()
            return step()

        return again

    monkeypatch.setattr(contenders, "compiled_focal_step", forgetful)
    with pytest.raises(RuntimeError, match="recompile"):
        main(TINY)


@pytest.mark.slow
@pytest.mark.parametrize("lacking", [{"CXX": "/nonexistent/g++"}, {"TORCH_COMPILE_DISABLE": "1"}])
def test_a_missing_compiler_is_told_in_its_column(lacking):
    command = [sys.executable, "-m", "bench", "--logits", "300", "--positives", "3", "--repeat", "1"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=os.environ | lacking, capture_output=True, text=True, check=True)
    rows = [line.split("|")[4:-1] for line in done.stdout.splitlines() if re.match(r"\| +dense ", line)]
    told = [[cell.strip() for cell in row].index("no compiler") for row in rows[:3]]
    assert told == [3, 1, 3]  # times, ratios, memory
    assert done.stdout.count("no compiler") == 3
    assert done.stderr.startswith("no compiler: ")
    assert done.stderr.count("\n") == 1


def test_a_bound_on_what_no_compiler_made_is_neither_met_nor_missed():
    cell = replace(measured(1, 1, ours=1.0, focal=8.0), case=GOALS[0].case)
    columns = report.ratio_columns([cell])
    assert columns["ours/focal at most"](cell) == "0.15, met"
    assert columns["ours/compiled focal"](cell) == "no compiler"
    assert columns["ours/compiled focal at most"](cell) == "0.35, not measured"


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classes", [0, 6])
@pytest.mark.parametrize("algorithm", ["tiled", "sorted"])
def test_every_loss_agrees_with_its_opponents(loss, dtype, classes, algorithm):
    case = Case(600, 20, "sparse", dtype, CPU, classes)
    problem = LOSSES[loss].labelled(case.draw())
    comparisons = check(LOSSES[loss], case, problem, algorithm, loop=True)
    assert [comparison.opponent for comparison in comparisons] == ["reference", "loop"]
    for comparison in comparisons:
        assert comparison.disagreements == []
        assert set(comparison.errors) >= {*LOSSES[loss].trained, "gradient of logits"}


def test_every_loss_is_compared_on_a_thinner_case(monkeypatch):
    monkeypatch.setattr(agreement, "REFERENCE_PAIRS", 2000)
    case = Case(600, 20, "dense", torch.float32, CPU, 6)
    for loss in LOSSES.values():
        comparisons = check(loss, case, loss.labelled(case.draw()), "auto", loop=False)
        assert [(comparison.case.pairs <= 2000, comparison.disagreements) for comparison in comparisons] == [(True, [])] * 2


def test_options_tell_apart_the_losses_of_one_function():
    problem = Problem(*draw((200,), 20, 0))

    def gradients(name):
        loss = LOSSES[name]
        return torch.cat(torch.autograd.grad(loss.call(loss.loop, problem).total, loss.inputs(problem)))

    for plain, other in (("alrp", "alrp_hard"), ("ap", "ap_interpolated")):
        assert (gradients(plain) - gradients(other)).norm() > 1e-3 * gradients(plain).norm()


def test_the_losses_are_those_of_the_library():
    assert list(LOSSES) == list(ops.LOSSES)


@pytest.mark.slow
def test_all_losses_get_their_tables(tmp_path, capsys):
    picture = tmp_path / "out.png"
    arguments = ["--logits", "300", "--positives", "3", "--classes", "6", "--repeat", "1"]
    cells = cells_of([*arguments, "--loss", "all", "--plot", str(picture)], tmp_path)
    assert [cell["loss"] for cell in cells] == list(LOSSES)
    printed = capsys.readouterr().out
    for loss in LOSSES.values():
        assert printed.count(f"{loss.title}: ") == 4
    assert picture.read_bytes().startswith(b"\x89PNG")


PAGE_FAULTS = """
import resource, torch
from bench.allocator import warm_up

def faults(mib):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(mib << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
young = faults(4)
warm_up()
print(young, faults(4), faults(4))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the thresholds are those of glibc's malloc")
def test_after_the_warm_up_freed_memory_is_kept():
    ran = subprocess.run([sys.executable, "-c", PAGE_FAULTS], capture_output=True, text=True, check=True)
    young, *warm = map(int, ran.stdout.split())
    assert young > 900  # 4 MiB are 1024 pages; huge pages are not asked for
    assert max(warm) < 10


def test_a_slow_step_is_called_once_and_a_quick_one_in_every_round():
    called = []

    def clock(step, calls, device):
        step()
        return 3.0 if step is slow else 0.1

    def slow():
        called.append("slow")

    def quick():
        called.append("quick")

    timings = timing.interleaved({"slow": slow, "quick": quick}, 4, CPU, clock)
    assert timings["slow"].samples == [3.0]
    assert timings["quick"].samples == [0.1] * 4
    assert called == ["slow", *["quick"] * 6]


class Probed:
    """Stands for the clock: a call takes a second, and ten more for each positive."""

    def __init__(self, monkeypatch):
        self.positives = []
        monkeypatch.setattr(limits, "make_step", self.make_step)
        monkeypatch.setattr(limits, "seconds", lambda step, calls, device: step())

    def make_step(self, name, loss, problem, algorithm):
        self.positives.append(problem.positives)
        return lambda: 1.0 + 10.0 * problem.positives


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize(("allowance", "fits"), [(1011, True), (991, False)])
def test_slow_contenders_are_told_from_a_few_positives(classes, allowance, fits, monkeypatch):
    probed = Probed(monkeypatch)
    case = Case(10_000, 100, "dense", torch.float32, CPU, classes)
    names = affordable(LOSSES["alrp"], case, case.draw(), allowance * 1.01)  # 100 positives see each other: 1% more
    assert ("loop" in names) == ("tiled" in names) == fits
    assert {"ours", "focal", "compiled focal", "reference", "copy"} <= set(names)
    assert probed.positives[::2] == [1, 1]
    assert probed.positives[1] in (64, 65)  # the lowest positive may be among the first
    assert probed.positives[3] in (4, 5)


def test_focal_loss_stays_out_where_it_would_take_too_much_memory(monkeypatch):
    case = Case(1000, 10, "dense", torch.float32, CPU)
    problem = case.draw()
    step = make_steps(["focal"], LOSSES["alrp"], problem, "auto")["focal"]
    assert peak_bytes(step, CPU) == pytest.approx(limits.FOCAL_TENSORS * 4000, rel=0.01)
    assert "focal" in affordable(LOSSES["alrp"], case, problem)
    monkeypatch.setattr(limits, "FOCAL_BYTES", 39_000)
    assert "focal" not in affordable(LOSSES["alrp"], case, problem)


def test_goals_leave_out_none_of_their_ratios(tiny_goals):
    case = tiny_goals[0].case
    assert affordable(LOSSES["alrp"], case, case.draw(), 0.0) == ["ours", "focal", "compiled focal", "reference", "copy"]
    assert all(goal.case.logits * 4 * limits.FOCAL_TENSORS <= limits.FOCAL_BYTES for goal in GOALS)


def test_slow_contenders_may_be_left_out_by_an_option(tmp_path):
    path = tmp_path / "cells.json"
    assert main([*TINY, "--call-seconds", "1e-9", "--json", str(path)]) == 0
    for cell in json.loads(path.read_text())["cells"]:
        times = cell["median_ms"]
        assert times["loop"] is times["tiled"] is None
        assert None not in (times["ours"], times["focal"], times["copy"])


def test_tensors_of_a_case_are_gone_before_the_next_is_drawn(monkeypatch, capsys):
    drawn = []
    draw_case = Case.draw

    def watched(case):
        assert not any(logits() is not None for logits in drawn)
        problem = draw_case(case)
        drawn.append(weakref.ref(problem.logits))
        return problem

    monkeypatch.setattr(Case, "draw", watched)
    assert main(TINY) == 0
    assert len(drawn) == 4


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("field", ["cls", "loc", "rank", "precision"])
def test_a_planted_disagreement_is_told(dtype, field, monkeypatch, capsys):
    def off(*args, algorithm, **options):
        out = reference.alrp_loss(*args, **options)
        return out._replace(**{field: getattr(out, field) * 1.001})

    monkeypatch.setattr(alrp_cuda, "alrp_loss", off)
    assert main([*TINY, "--dtype", dtype]) == 1
    told = capsys.readouterr()
    assert f"aLRP Loss, dense, N = 300, P = 3: {field} is off the reference's by 0.001" in told.err
    assert f"{field} is off the loop's by 0.001" in told.err
    assert "Time" not in told.out


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_a_planted_wrong_gradient_is_told(dtype, monkeypatch, capsys):
    def off(logits, *args, algorithm, **options):
        wrong = logits * 1.01  # the same order to a hair, and a gradient 1% too long
        return reference.ap_loss(wrong - 0.01 * logits.detach(), *args, **options)

    monkeypatch.setattr(alrp_cuda, "ap_loss", off)
    assert main([*TINY, "--loss", "ap", "--dtype", dtype]) == 1
    told = re.search(r"gradient of logits is off the reference's by (\S+) ", capsys.readouterr().err)
    assert told
    assert float(told[1]) == pytest.approx(0.01, rel=0.2)  # a half type rounds


@pytest.mark.slow
@pytest.mark.parametrize("field", ["rank", "sort"])
def test_a_planted_disagreement_of_rank_and_sort_is_told(field, monkeypatch, capsys):
    def off(*args, algorithm, **options):
        out = reference.rank_sort_loss(*args, **options)
        return out._replace(**{field: getattr(out, field) * 1.001})

    monkeypatch.setattr(alrp_cuda, "rank_sort_loss", off)
    assert main([*TINY, "--loss", "all"]) == 1
    told = capsys.readouterr()
    assert f"Rank & Sort Loss, dense, N = 300, P = 3: {field} is off the reference's by 0.001" in told.err
    assert f"{field} is off the loop's by 0.001" in told.err


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
        (["--logits", "100", "--positives", "20", "--classes", "10"], "larger than every number of rows"),
        (["--scaling", "--logits", "1e4"], "--scaling has its own"),
        (["--scaling", "--classes", "5"], "--scaling has its own"),
        (["--scaling", "--device", "emulated"], "too large"),
        (["--write-costs"], "needs --device emulated"),
        (["--world", "2", "--device", "emulated"], "--world is for --device cpu"),
        (["--world", "2", "--scaling"], "--world prints one table"),
        (["--levels", "--device", "emulated"], "--levels measures times"),
        (["--levels", "--classes", "5"], "--levels has its own cases"),
        (["--levels", "--world", "2"], "--levels has its own cases"),
    ],
)
def test_nonsense_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("name", "loss"), LOSSES.items())
def test_no_device_is_waited_for_to_count_positives(name, loss):
    problem = Case(100, 7, "dense", torch.float32, CPU).draw()
    assert loss.told(problem) == {}
    on_a_device = SimpleNamespace(logits=SimpleNamespace(is_cuda=True), positives=7)
    assert loss.told(on_a_device) == ({} if name.startswith("alrp") else {"num_positives": 7})
    loss.call(loss.ours, loss.labelled(problem), **loss.told(on_a_device))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_run_on_a_gpu(tmp_path, capsys):
    cells = cells_of([*TINY, "--device", "cuda"], tmp_path)
    said = capsys.readouterr().out
    assert "CUDA" in said
    assert "replayed from CUDA graphs" in said
    without = {"compiled focal"} if no_compiler("cuda") else set()
    for cell in cells:
        assert all(cell["replayed_median_ms"][name] > 0 for name in {*WAITING_FOR_NOTHING, "floor"} - without)
