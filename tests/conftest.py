"""Which backends and algorithms the tests run on, and the count of cases by backend after the run."""

import ctypes
import itertools
import os
from collections import Counter, defaultdict

import pytest
import selection
import torch
from emulator import missing_requirement
from hypothesis import settings
from implementations import NOT_WAITING, Fast, Reference
from selection import CHOICES, choose

import alrp_cuda

ALGORITHMS = ("tiled", "sorted")

# Inductor keeps traced backward graphs from run to run, and does not ask whether an operator's schema is still the same.
os.environ["TORCHINDUCTOR_AUTOGRAD_CACHE"] = "0"

# The generated cases are the same on every run, so that a change is judged by itself; make test-full looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
settings.register_profile("few", settings.get_profile("repeatable"), max_examples=15)
settings.register_profile("long", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("repeatable")


def backends() -> list:
    """One pytest parameter a backend: the CPU, csrc/cuda on the emulated device, and on a GPU where there is one."""
    built = alrp_cuda.backends()
    lacking = missing_requirement()
    emulated = pytest.param("emulated", marks=pytest.mark.skipif(bool(lacking), reason=f"emulated device: {lacking}"))
    reason = "alrp_cuda is built without CUDA" if "cuda" not in built else "torch sees no CUDA device"
    missing = "cuda" not in built or not torch.cuda.is_available()
    return ["cpu", emulated, pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(missing, reason=reason)])]


def implementations() -> list:
    """Every backend with every algorithm, and the reference: what the paper and the API promise holds for all of them."""
    params = ["reference"]
    for backend, algorithm in itertools.product(backends(), ALGORITHMS):
        marks = getattr(backend, "marks", ())
        name = backend.values[0] if marks else backend
        params.append(pytest.param((name, algorithm), marks=marks, id=f"{name}-{algorithm}"))
    return params


@pytest.fixture(scope="session", params=backends())
def backend(request):
    return request.param


@pytest.fixture(scope="session", params=ALGORITHMS)
def algorithm(request):
    return request.param


@pytest.fixture(scope="session")
def fast(backend, algorithm):
    """The losses on one backend by one algorithm."""
    return Fast(backend, algorithm)


def not_waiting_implementations() -> list:
    """Those that do not wait for their device to look at a value: on every machine, the CPU's kernels stand in for one."""
    devices = [p for p in implementations()[1:] if not p.id.startswith("cpu-")]
    return [*(pytest.param((NOT_WAITING, a), id=f"{NOT_WAITING}-{a}") for a in ALGORITHMS), *devices]


def make(param):
    """The implementation that a parameter names."""
    if param == "reference":
        return Reference()
    return Fast(*param)


@pytest.fixture(scope="session", params=implementations())
def losses(request):
    """The losses as any implementation computes them, the reference among them."""
    return make(request.param)


@pytest.fixture(scope="session", params=not_waiting_implementations())
def not_waiting(request):
    """The losses where what depends on values in the tensors gives NaN instead of an error."""
    return make(request.param)


@pytest.fixture(scope="session", params=[*implementations(), *not_waiting_implementations()[: len(ALGORITHMS)]])
def values(request):
    """As ``losses``, and a stand-in for a device that is not waited for."""
    return make(request.param)


def pytest_runtest_teardown(item, nextitem):
    """Give memory back after each file: glibc keeps what was freed, and the greatest tests of all files would add up."""
    if nextitem is None or nextitem.path != item.path:
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)


def pytest_addoption(parser):
    parser.addoption("--cases", choices=CHOICES, default="all", help=selection.__doc__)


def pytest_collection_modifyitems(config, items):
    if together := CHOICES[config.getoption("cases")]:
        tests = defaultdict(list)
        for item in items:
            tests[item.nodeid.partition("[")[0]].append(item)
        chosen = set().union(*(choose(cases, together) for cases in tests.values()))
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = [item for item in items if item in chosen]
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        name = next((params[key] for key in ("backend", "losses", "values", "not_waiting") if key in params), None)
        if name:
            item.user_properties.append(("backend", name if isinstance(name, str) else name[0]))


def pytest_terminal_summary(terminalreporter):
    counts = Counter()
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.getreports(outcome):
            for key, value in getattr(report, "user_properties", ()):
                if key == "backend":
                    counts[value, outcome] += 1
    if not counts:
        return
    terminalreporter.section("cases by backend")
    for name in sorted({name for name, _ in counts}):
        parts = [f"{counts[name, outcome]} {outcome}" for outcome in ("passed", "failed", "skipped") if counts[name, outcome]]
        terminalreporter.write_line(f"{name}: {', '.join(parts)}")
