"""The loops that csrc/cpu has for each level of CPU: the same bits, and what positions.h says that streaming ones must give."""

import ctypes
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from emulator.compiler import cached, digest

ROOT = Path(__file__).parents[1]
CPU = ROOT / "csrc" / "cpu"
SOURCES = [CPU / "level.cpp", CPU / "cells.cpp", *sorted(CPU.glob("loops*.cpp"))]
NATIVE = ROOT / "tests" / "native"
COMPILER = shutil.which("c++") or shutil.which("g++")


def built(name, *options):
    """The loops with the sources of tests/native that `options` name, kept by the contents of all that they may be made of."""
    command = [COMPILER, "-std=c++20", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", f"-I{ROOT / 'csrc'}", f"-I{CPU}"]
    command += ["-isystem", str(Path(torch.__file__).parent / "include"), *map(str, SOURCES), *options, "-o"]
    files = [*SOURCES, *NATIVE.glob("*.cpp"), *CPU.parent.glob("*.h"), *CPU.glob("*.h")]
    name += f"-{digest(*command, *(path.read_bytes() for path in sorted(files)))}"
    return str(cached(name, lambda path: subprocess.run([*command, str(path)], check=True)))


@pytest.fixture(scope="module")
def library():
    return ctypes.CDLL(built("forms", str(NATIVE / "vector_forms.cpp"), "-shared", "-fPIC"))


@pytest.fixture(scope="module")
def forms(library):
    """A form for each level that this CPU has, the portable one first."""
    return [partial(library.run_block, level) for level in range(library.highest_level() + 1)]


def array(values, dtype):
    return np.ascontiguousarray(values, dtype)


def run(form, positives, shares, delta, scores, in_place):
    """(bins' counts, bins' sums, gradient, how many scores are NaN) of one block."""
    counts, sums = (np.zeros(2 * len(positives) + 1, np.uint64) for _ in range(2))
    gradient = np.full(len(scores), np.nan, np.float32)
    inputs = [array(positives, np.float64), array(shares, np.float64), array(scores, np.float32)]
    pointer = [a.ctypes.data_as(ctypes.c_void_p) for a in (*inputs, counts, sums, gradient)]
    nan = form(*pointer[:2], len(positives), ctypes.c_double(delta), pointer[2], len(scores), int(in_place), *pointer[3:])
    return counts, sums, gradient, nan


def expected_gradient(positives, shares, delta, scores):
    x = scores.astype(np.float64)[:, None] - np.asarray(positives)
    h = np.clip(x / (2 * delta) + 0.5, 0, 1)
    return h @ shares


CASES = {
    "apart": lambda rng, n: (rng.normal(-2, 1.5, 40), rng.normal(-4.6, 1, n)),
    "sparse": lambda rng, n: (rng.normal(-2, 1.5, 40), rng.normal(-9, 1, n)),
    "crowded cells": lambda rng, n: (np.concatenate([rng.normal(0, 1e-5, 300), [50]]), rng.normal(0, 2, n)),
    "ties": lambda rng, n: (rng.integers(-8, 8, 30) / 4, rng.integers(-20, 20, n) / 4),
    "on the ends": lambda rng, n: (np.linspace(-3, 3, 25), np.linspace(-4, 4, 33)[rng.integers(0, 33, n)]),
    "one positive": lambda rng, n: (np.array([0.25]), rng.normal(0, 1, n)),
    "near 0": lambda rng, n: (rng.normal(0, 1, 50) * 1e-3, rng.normal(0, 1, n) * 10.0 ** rng.integers(-30, 1, n)),
    "infinite": lambda rng, n: (rng.normal(0, 1, 9), np.where(rng.random(n) < 0.3, rng.choice([np.inf, -np.inf], n), 0.5)),
}


@pytest.mark.parametrize("delta", [1.0, 1e-3, 30.0])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 15, 16, 17, 1000, 1023, 1024])
@pytest.mark.parametrize("case", CASES)
def test_all_forms_give_the_same_bits_and_the_right_gradient(library, forms, case, size, delta):
    rng = np.random.default_rng(size)
    assert size <= library.block_size()
    positives, scores = CASES[case](rng, size)
    positives = np.sort(positives.astype(np.float32)).astype(np.float64)
    scores = scores.astype(np.float32)
    shares = rng.random(len(positives))
    results = [run(form, positives, shares, delta, scores, in_place) for form in forms for in_place in (False, True)]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0][2], other[2])
        assert not other[3]
        assert not results[0][3]
        np.testing.assert_array_equal(results[0][0], other[0])
        np.testing.assert_array_equal(results[0][1], other[1])
    expected = expected_gradient(positives, shares, delta, scores)
    np.testing.assert_allclose(results[0][2], expected, rtol=3e-6, atol=1e-7 * shares.sum())
    error = np.linalg.norm(results[0][2] - expected)
    assert error <= 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("in_place", [False, True])
def test_every_nan_is_counted(forms, in_place):
    scores = np.arange(1000, dtype=np.float32) / 100
    scores[[0, 7, 8, 500, 991, 992, 999]] = np.nan
    for form in forms:
        assert run(form, [0.5], [1.0], 1.0, scores, in_place)[3] == 7


def test_every_loop_gives_the_same_bits_by_every_level():
    program = built("digests", str(NATIVE / "vector_forms.cpp"), str(NATIVE / "loop_digests.cpp"))
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loops = {line.split()[0] for line in done.stdout.splitlines()}
    assert loops == {"stream", "count_rows", "sum_rows", "sum_columns", "marks", "float16", "bfloat16", "float"}
