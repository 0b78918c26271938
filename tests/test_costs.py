"""What the kernels cost on the emulated device is held against tests/data/kernel_costs.json, and is the same on every run."""

import json
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import emulator
import pytest
import torch

from bench.__main__ import main
from bench.contenders import LOSSES
from bench.costs import calibration, counting, walls
from bench.costs.counting import Pass, count, short_name, toolchain
from bench.costs.inputs import Case
from bench.costs.latency import LATENCIES, microseconds
from bench.costs.roofline import GPUS, floor, floor_microseconds, modelled, times, traffic_read, traffic_written

ROOT = Path(__file__).parents[1]
LACKING = emulator.missing_requirement()
emulated = pytest.mark.skipif(bool(LACKING), reason=f"emulated device: {LACKING}")
SMALL = Case(3000, 20, algorithm="tiled")


def without_what_nvcc_decides(table):
    """Launches and calls of the runtime library: all that is compared under another nvcc than the file's."""
    return {
        name: {walls.RUNTIME: rows[walls.RUNTIME] | {"launches": sum(figures.get("launches", 0) for figures in rows.values())}}
        for name, rows in table.items()
    }


@pytest.mark.slow
@emulated
@pytest.mark.parametrize("case", walls.cases(), ids=str)
def test_kernels_cost_what_is_committed(case):
    content = walls.committed()
    was, now = content["costs"].get(str(case), {}), walls.as_table(count(case))
    if any(content[name] != tool for name, tool in toolchain().items()):
        was, now = without_what_nvcc_decides(was), without_what_nvcc_decides(now)
    changed = walls.differences(was, now)
    assert not changed, "\n".join([f"{case}:", *changed, f"if that is meant: {walls.COMMAND}, and say why in the commit"])


def test_every_committed_case_is_counted():
    assert list(walls.committed()["costs"]) == [str(case) for case in walls.cases()], f"to write the file anew: {walls.COMMAND}"


@emulated
@pytest.mark.parametrize("classes", [0, 7])
def test_counts_depend_neither_on_addresses_nor_on_a_seed(classes):
    case = Case(SMALL.logits, SMALL.positives, algorithm="tiled", classes=classes)
    tables, held = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        held += [torch.rand(1 + 997 * seed), case.draw()]
        tables.append(walls.as_table(count(case)))
    assert walls.differences(tables[0], tables[1]) == walls.differences(tables[0], tables[2]) == []


@pytest.mark.slow
@emulated
def test_counts_are_the_same_in_another_process(tmp_path):
    results = tmp_path / "costs.json"
    options = ["--logits", str(SMALL.logits), "--positives", str(SMALL.positives), "--algorithm", SMALL.algorithm]
    command = [sys.executable, "-m", "bench", "--device", "emulated", *options, "--json", str(results)]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    there = json.loads(results.read_text())["cells"][0]["passes"]
    assert walls.differences(walls.as_table(count(SMALL)), there) == []


@emulated
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("classes", [0, 7])
def test_no_pass_does_less_than_the_floor(dtype, classes):
    case = Case(SMALL.logits, SMALL.positives, dtype=dtype, classes=classes, loss="ap")
    passes = count(case)
    assert set(passes) == {"count_positives", "forward", "backward"}
    for name, one in passes.items():
        assert traffic_read(one.total) >= floor(case, [name])["read"]
        assert traffic_written(one.total) >= floor(case, [name])["written"]
    assert all(time > least for time, least in zip(times(passes), floor_microseconds(case, passes), strict=True))


@pytest.mark.parametrize("loss", ["alrp", "ap", "rank_sort"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("classes", [0, 7])
def test_the_floor_of_a_step_is_the_one_that_times_are_compared_with(loss, dtype, classes):
    case = Case(3000, 20, loss=loss, dtype=dtype, classes=classes)
    of_passes = floor(case, ["count_positives", "forward", "backward"])
    assert sum(of_passes.values()) == LOSSES[loss].labelled(case.draw()).floor_bytes


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_committed_kernels_move_no_less_than_the_floor(name):
    """Where N is large, too: the sorted form's backward pass reads no labels."""
    committed = walls.committed()["costs"]
    for case in walls.cases():
        moved, least = walls.passes_of(committed[str(case)])[name].total, floor(case, [name])
        assert traffic_read(moved) >= least["read"], case
        assert traffic_written(moved) >= least["written"], case


@emulated
def test_the_host_waits_only_where_the_number_of_positives_is_not_told():
    syncs = {
        loss: {name: one.total.get("host_syncs", 0) for name, one in count(Case(3000, 20, loss=loss)).items()}
        for loss in ("alrp", "ap")
    }
    assert syncs == {"alrp": {"forward": 0, "backward": 0}, "ap": {"count_positives": 1, "forward": 0, "backward": 0}}


@pytest.mark.parametrize("classes", [0, 7])
@pytest.mark.parametrize(("regime", "mean"), [("dense", -4.6), ("sparse", -9.0)])
def test_inputs_are_spread_as_the_regime_says(classes, regime, mean):
    case = Case(70_000, 500, regime, classes=classes)
    problem = case.draw()
    logits, targets = problem.logits.detach().view(-1), problem.targets
    positive = (targets[:, None] == torch.arange(classes)).view(-1) if classes else targets == 1
    assert int(positive.sum()) == case.positives
    assert logits[~positive].mean().item() == pytest.approx(mean, abs=0.02)
    assert logits[~positive].std().item() == pytest.approx(1, abs=0.02)
    assert logits[positive].mean().item() == pytest.approx(-2, abs=0.2)
    assert logits[positive].std().item() == pytest.approx(1.5, abs=0.15)
    assert logits[:4].tolist() == case.draw().logits.view(-1)[:4].tolist()


def test_a_change_is_told_by_kernel_and_counter():
    was = {"forward": {"count": {"launches": 1, "thread_instructions": 200}, "gone": {"launches": 1}}}
    now = {"forward": {"count": {"launches": 1, "thread_instructions": 210, "barriers": 4}, "fresh": {"launches": 1}}}
    assert walls.differences(was, was) == []
    assert walls.differences(was, now) == [
        "forward, count: thread_instructions was 200, is 210 (+5.00%)",
        "forward, count: barriers was 0, is 4",
        "forward, gone: is not launched any more",
        "forward, fresh: is new",
    ]


def test_the_roofline_is_the_higher_of_memory_and_issue():
    t4 = GPUS[0]
    memory, issue = {"global_sectors_read": 10**7}, {"warp_instructions": 10**9}
    assert t4.name == "T4"
    assert modelled([memory])[0] == pytest.approx(1e3)  # 320 MB at 320 GB/s
    assert modelled([issue])[0] == pytest.approx(1e9 / (40 * 4 * 1.59e3))
    assert modelled([memory, issue])[0] == pytest.approx(modelled([memory])[0] + modelled([issue])[0])
    assert modelled([memory | issue])[0] == pytest.approx(max(modelled([memory])[0], modelled([issue])[0]))
    assert modelled([{"global_sectors_atomic": 5 * 10**6}])[0] == pytest.approx(1e3)


def test_the_model_with_latency_is_near_what_was_measured():
    cells = [cell for cell in calibration.cells() if cell.column != calibration.NOT_FITTED]
    assert len(cells) == 42
    assert {(cell.column, cell.case) for cell in cells if not cell.is_near} == {*calibration.MISSES}


def test_the_constants_of_latency_are_those_that_fit_best():
    assert astuple(LATENCIES) == pytest.approx(astuple(calibration.fit()), rel=0.02)


def test_a_kernel_that_waits_takes_longer_on_a_device_however_large():
    nothing = {"launches": 1, "blocks": 1}
    assert microseconds(nothing) == LATENCIES.launch
    waits = microseconds(nothing | {"chain_global_waits": 1980}) - microseconds(nothing)
    assert waits == pytest.approx(LATENCIES.global_wait)  # at 1.98 GHz
    work = nothing | {"warp_instructions": 10**6}
    issue = [microseconds(work | {"blocks": blocks}) - LATENCIES.launch for blocks in (1, 132, 500)]
    assert issue[0] == pytest.approx(132 * issue[1])
    assert issue[1] == issue[2]


def test_the_calibration_is_printed_with_what_it_misses(capsys):
    calibration.main([])
    out = capsys.readouterr().out
    for text in ("modelled / measured", "39 of 42", *(column for column, _ in calibration.MISSES), *calibration.MISSES.values()):
        assert text in out


def test_contention_is_not_summed_over_kernels():
    kernels = {name: {"launches": 1, "shared_atomic_warp_contention": most} for name, most in (("a", 3), ("b", 32))}
    assert Pass(kernels, {}).total == {"launches": 2, "shared_atomic_warp_contention": 32}


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        ("alrp::cuda::(anonymous namespace)::count_tiled", "count_tiled"),
        ("alrp::cuda::(anonymous namespace)::count<float, (alrp::Form)1>", "count<float, (Form)1>"),
        ("cub::CUB_300001_SM_800::detail::scan::InitKernel<cub::TileState<int, true>, long*>", "InitKernel"),
    ],
)
def test_kernels_have_short_names(kernel, name):
    assert short_name(kernel) == name


@emulated
def test_the_table_is_headed_as_modelled_and_gives_its_formula(capsys):
    assert main(["--device", "emulated", "--logits", "3e3", "--positives", "20", "--loss", "ap"]) == 0
    out = capsys.readouterr().out
    assert out.index("Modelled, not measured") < out.index("max(traffic / DRAM bandwidth") < out.index("N = 3000, P = 20")
    tables = "count_positives", "forward", "backward", "floor", "longest chains", "H200, us"
    for heading in ("nvcc", *tables, *(gpu.name for gpu in GPUS)):
        assert heading in out


def test_what_is_missing_is_told(monkeypatch, capsys):
    counting._emulated.cache_clear()
    monkeypatch.setattr(emulator, "missing_requirement", lambda: "nvcc is needed and not found")
    assert main(["--device", "emulated"]) == 1
    assert "nvcc is needed and not found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--write-costs"], "needs --device emulated"),
        (["--device", "emulated", "--plot", "x.png"], "measured times"),
        (["--device", "emulated", "--logits", "100", "--positives", "20", "--classes", "10"], "number of rows"),
    ],
)
def test_nonsense_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
