"""What the parts are made of: one command a step."""

import os
import re
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec

from .source import ROOT

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# Told from the exit statuses of pytest, which are below 10.
SANITIZER_STATUS = 99
# What makes a test run on every backend, or on a GPU alone.
RUNS_ON_A_GPU = re.compile(
    r"mark\.gpu|\b(?:backends|implementations)\(\)|def test_\w+\([^)]*\b(?:backend|fast|losses|values|not_waiting)\b"
)
PYTEST = ("pytest", "hypothesis")
BENCH = ("rich", "torchvision")


@dataclass(frozen=True)
class Step:
    """One command; ``environment`` goes on top of our own.

    ``modules`` are the Python packages beside torch and numpy without which it is left out, ``seconds`` what it takes at least:
    it is not begun with less. A step that ``records`` is a run of pytest that ends in time by itself and goes on where it was;
    the report shows all that a ``table`` says, and the last lines of others.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    seconds: float = 30
    records: bool = False
    table: bool = False

    @property
    def missing(self) -> list[str]:
        return [name for name in self.modules if find_spec(name) is None]


def gpu_files() -> list[str]:
    """The files of tests that run on a GPU; others may import what is missing there."""
    files = sorted((ROOT / "tests").glob("test_*.py"))
    return [f"tests/{path.name}" for path in files if RUNS_ON_A_GPU.search(path.read_text())]


def tests() -> list[Step]:
    workers = ("-n", str(min(16, os.cpu_count() or 1))) if find_spec("xdist") else ()
    # A file that cannot be imported fails the step, and does not stop the others.
    pytest = (sys.executable, "-m", "pytest", "-q", "-rs", "--continue-on-collection-errors")
    command = (*pytest, "-m", "gpu and not full", *workers, *gpu_files())
    return [Step("gpu tests", command, {"OMP_NUM_THREADS": "1"}, PYTEST, records=True)]


def sanitizer(path: str) -> list[Step]:
    """Every kernel on small tensors, under each tool: they make kernels 10 to 100 times as slow."""
    tests = (sys.executable, "-m", "pytest", "-q", "-rs", "-m", "gpu", "tests/test_every_kernel.py")
    checked = (path, "--error-exitcode", str(SANITIZER_STATUS), "--target-processes", "all", "--tool")
    # Without the caching allocator every tensor has bounds of its own, which is what memcheck and initcheck watch.
    exact = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return [Step(tool, (*checked, tool, *tests), exact, PYTEST, records=True) for tool in TOOLS]


def benchmark(device: str = "cuda") -> list[Step]:
    """The whole range of sizes, a step a process: what one measured is not measured again. The loop and the tiled form could take
    minutes, and are left out where they would take more than a second."""
    command = (sys.executable, "-m", "bench", "--device", device, "--call-seconds", "1")
    many = ("50", "500", "2000", "8000", "20000")
    runs: dict[str, tuple[tuple[str, ...], float]] = {
        "bench, default cases": ((), 60),
        "bench, N = 1e4": (("--logits", "1e4", "--positives", *many[:4]), 60),
        "bench, N = 1e6": (("--logits", "1e6", "--positives", *many), 90),
        "bench, N = 1e7": (("--logits", "1e7", "--positives", *many), 120),
        "bench, N = 1e8": (("--logits", "1e8", "--positives", *many[:3]), 120),
        "bench, N = 1e8, many positives": (("--logits", "1e8", "--positives", *many[3:]), 120),
        "bench, class indices": (("--logits", "1e6", "1e8", "--classes", "91", "--positives", "500", "2000"), 90),
        "bench, bfloat16": (("--logits", "1e6", "1e8", "--dtype", "bfloat16", "--positives", "500", "2000"), 90),
    }
    return [Step(name, (*command, *options), {}, BENCH, seconds, table=True) for name, (options, seconds) in runs.items()]


def profile() -> list[Step]:
    """Each kernel's time, and the host's."""
    return [
        Step("kernels", (sys.executable, "-m", "bench.kernels"), {}, BENCH, 90, table=True),
        Step("host", (sys.executable, "-m", "bench.overhead", "--device", "cuda"), {}, BENCH, table=True),
    ]


def parts(sanitizer_path: str) -> dict[str, list[Step]]:
    """All that is run, in order."""
    return {"tests": tests(), "sanitizer": sanitizer(sanitizer_path), "bench": benchmark(), "profile": profile()}
