"""Faults planted in copies of csrc/cpu: the sanitizers of ``make sanitize`` report each."""

import os

import pytest
import sanitize

pytestmark = pytest.mark.unsanitized

CALL = """
import torch, alrp_cuda
torch.set_num_threads(3)
logits = torch.randn(200_000, requires_grad=True)
for algorithm in ("sorted", "tiled"):
    alrp_cuda.ap_loss(logits, (torch.arange(200_000) % 997 == 0).long(), algorithm=algorithm).backward()
"""
# name: (build, file, what stands there, what is planted, words of the report)
FAULTS = {
    "a race": (
        "thread",
        "bins.h",
        "    const std::lock_guard lock(mutex);",
        "    // ",
        "data race",
    ),
    "out of bounds": (
        "address",
        "cells.cpp",
        "new T[cells.count + kSetAtOnce]",
        "new T[cells.count - 1]",
        "heap-buffer-overflow",
    ),
    "an overflow": (
        "address",
        "sorted.cpp",
        "    const int64_t p = input_.p;\n    if (!sums.s) {",
        "    const int64_t p = input_.p;\n    volatile int64_t most = INT64_MAX;\n    most = most + p;\n    if (!sums.s) {",
        "signed integer overflow",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_has_its_place(name):
    _, file, there, _, _ = FAULTS[name]
    assert (sanitize.ROOT / "csrc" / "cpu" / file).read_text().count(there) == 1


@pytest.mark.full
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_reported(tmp_path, name):
    kind_name, file, there, planted, words = FAULTS[name]
    kind = sanitize.KINDS[kind_name]
    source = tmp_path / "source"
    source.mkdir()
    sanitize.copy_sources(source)
    path = source / "csrc" / "cpu" / file
    path.write_text(path.read_text().replace(there, planted))
    done = sanitize.run(kind, sanitize.build(kind, source, tmp_path / "build"), ["-c", CALL], capture_output=True)
    assert done.returncode != 0
    assert words in done.stderr
    assert f"csrc/cpu/{file}" in done.stderr


@pytest.mark.full
@pytest.mark.parametrize("kind", sanitize.KINDS.values(), ids=sanitize.KINDS)
def test_nothing_is_reported_where_nothing_is_planted(kind):
    done = sanitize.run(kind, sanitize.build(kind), ["-c", CALL], capture_output=True)
    assert (done.returncode, done.stderr) == (0, ""), f"{os.linesep}{done.stderr}"
