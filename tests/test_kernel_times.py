"""python -m bench.kernels, from made-up profiles: which time goes where, and the table that docs/kernels.md takes."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch.autograd import DeviceType

from bench import kernels
from bench.kernels import COLUMNS, OTHERS, TOTAL, Profile, base_name, cases, column, print_table, profiled, summed

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
CUB = "void cub::_V_300001_SM_900::detail::"
NAMES = {
    "void alrp::cuda::(anonymous namespace)::find_labels<1>(alrp::Labels, long, long*, long, alrp::Status*)": "find",
    "alrp::cuda::(anonymous namespace)::find_rows(alrp::Labels, long, long*, long, alrp::Status*)": "find",
    CUB + "select::DeviceSelectSweepKernel<cub::policy_hub<long>, alrp::cuda::(anonymous namespace)::IsPositive>(long)": "find",
    CUB + "radix_sort::DeviceRadixSortOnesweepKernel<cub::policy_hub<unsigned long, long>, false>(int*)": "find",
    "alrp::cuda::<unnamed>::unpack_keys(unsigned long const*, long const*)": "find",
    "alrp::cuda::sorted::(anonymous namespace)::rank_positives(alrp::Array, long, double)": "rank_positives",
    "alrp::cuda::(anonymous namespace)::build_tables(double, bool)": "build_tables",
    "void alrp::cuda::(anonymous namespace)::count_sorted<__half, true>(alrp::Array, alrp::Labels)": "count",
    "alrp::cuda::(anonymous namespace)::compute_losses(alrp::cuda::SortedTables, double)": "compute_losses",
    "void alrp::cuda::(anonymous namespace)::spread_sorted<float, false>(alrp::Array, alrp::Labels)": "spread",
    "alrp::cuda::(anonymous namespace)::scatter_gradients(alrp::Tables, alrp::Gradients, long)": "scatter",
    "Memset (Device)": "memset",
    "alrp::cuda::(anonymous namespace)::fresh(int)": "fresh",
    "Memcpy DtoD (Device -> Device)": OTHERS,
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>, std::array<char*, 3>>(int)": OTHERS,
}


@pytest.mark.parametrize(("kernel", "where"), NAMES.items(), ids=map(base_name, NAMES))
def test_each_kernel_has_its_column(kernel, where):
    assert column(kernel) == where


def test_columns_are_of_kernels_that_there_are():
    code = "".join(path.read_text() for path in (ROOT / "csrc" / "cuda").glob("*.cu"))
    there = set(re.findall(r"__global__ void (?:__launch_bounds__\([^)]*\)\s*)?(\w+)\(", code))
    assert "scatter_gradients" in there
    named = {beginning for beginnings in COLUMNS.values() for beginning in beginnings}
    assert named - there == {"Device", "Memset"}  # CUB's, and the driver's


def test_times_are_means_over_the_steps_and_nothing_is_lost():
    events = [*((name, 3.0) for name in NAMES), ("Memset (Device)", 6.0)]
    sums = summed(events, 2)
    assert sums["memset"] == 4.5
    assert sums["find"] == 5 * 1.5
    assert sums["fresh"] == 1.5
    assert sums[OTHERS] == 3.0
    assert sums[TOTAL] == pytest.approx((3.0 * len(NAMES) + 6) / 2)
    assert sum(time for title, time in sums.items() if title != TOTAL) == pytest.approx(sums[TOTAL])


def test_the_profile_is_of_the_device_and_of_warm_steps(monkeypatch):
    calls = []
    made_up = [("Memset (Device)", DeviceType.CUDA, 20.0), ("aten::add", DeviceType.CPU, 500.0)]

    class MadeUp:
        def __init__(self, activities):
            self.before = None

        def __enter__(self):
            self.before = len(calls)
            return self

        def __exit__(self, *_):
            assert self.before == kernels.WARM_UP
            assert len(calls) - self.before == kernels.STEPS

        def events(self):
            return [
                SimpleNamespace(name=name, device_type=where, time_range=SimpleNamespace(elapsed_us=lambda time=time: time))
                for name, where, time in made_up
            ]

    monkeypatch.setattr(kernels, "profile", MadeUp)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    assert profiled(lambda: calls.append(1), CPU) == {"memset": 20.0 / kernels.STEPS, TOTAL: 20.0 / kernels.STEPS}


def printed(capsys, profiles):
    print_table(Console(width=40), profiles)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines() if "|" in line]
    return rows[0], rows[2:]


def test_the_table_is_that_of_the_page(capsys):
    profiles = [Profile(case, dict.fromkeys((*COLUMNS, TOTAL), 1.25) | {"find": 112.4}) for case in cases(CPU)]
    heading, rows = printed(capsys, profiles)
    page = (ROOT / "docs" / "kernels.md").read_text().splitlines()
    (there,) = ([cell.strip() for cell in line.split("|")[1:-1]] for line in page if line.startswith("| N, P |"))
    assert heading[: len(there)] == there
    assert heading[len(there) :] == ["memset", OTHERS, TOTAL]
    assert [row[0] for row in rows] == [
        line.split("|")[1].strip() for line in page if re.match(r"\| 1e\d, \d+ (dense|sparse) \|", line)
    ]
    assert rows[0][1:] == ["112", *["1.2"] * 7, "-", "1.2"]


def test_a_kernel_that_is_new_has_a_column_of_its_own(capsys):
    heading, ((_, *cells),) = printed(capsys, [Profile(cases(CPU)[0], {"fresh": 2.0, OTHERS: 3.0, TOTAL: 5.0})])
    assert heading[-3:] == ["fresh", OTHERS, TOTAL]
    assert cells[-3:] == ["2.0", "3.0", "5.0"]


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        kernels.main([])
    assert stop.value.code == 2
    assert "torch sees no CUDA device" in capsys.readouterr().err
