"""What only a GPU can tell, in one command and one report: ``make gpu-check``.

Runs the gpu tests, a selection of them under each tool of compute-sanitizer, and the benchmark; goes on after a failure.
Ends with 0 if all went well, 1 if something failed, 2 where there is no GPU to check on.
"""

import argparse
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import torch

import alrp_cuda

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "runs" / "gpu-check.md"
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# Told from the exit statuses of pytest, which are below 10.
SANITIZER_STATUS = 99
# Every kernel, on small tensors: the tools make kernels 10 to 100 times as slow.
SELECTION = (
    "-m",
    "gpu and not full",
    "tests/test_equivalence.py",
    "-k",
    "test_table_of_cases and (delta1- or (delta0- and ties))",
)
CLOSING_LINES = 25


@dataclass(frozen=True)
class Step:
    """One command; ``environment`` goes on top of our own."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a command ended; ``status`` None: it could not be started."""

    status: int | None
    output: str
    seconds: float = 0.0


Runner = Callable[[Step], Outcome]


def steps(sanitizer: str, python: str = sys.executable) -> list[Step]:
    """All that is run, in order."""
    tests = (python, "-m", "pytest", "-q", "-rs")
    # Without the caching allocator every tensor has bounds of its own, which is what memcheck and initcheck watch.
    exact = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    checked = (sanitizer, "--error-exitcode", str(SANITIZER_STATUS), "--target-processes", "all", "--tool")
    return [
        Step("gpu tests", (*tests, "-m", "gpu")),
        *(Step(tool, (*checked, tool, *tests, *SELECTION), exact) for tool in TOOLS),
        Step("benchmark", (python, "-m", "bench", "--device", "cuda")),
    ]


def run(step: Step) -> Outcome:
    """Run a command in the repository; what it says is shown and kept."""
    begin = time.monotonic()
    try:
        process = subprocess.Popen(
            step.command,
            cwd=ROOT,
            env=os.environ | step.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        return Outcome(None, str(error))
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    return Outcome(process.wait(), "".join(lines), time.monotonic() - begin)


def verdict(outcome: Outcome) -> str:
    if outcome.status is None:
        return "**could not be started**"
    if outcome.status == 0:
        return "passed"
    reason = "the tool reported errors" if outcome.status == SANITIZER_STATUS else f"exit status {outcome.status}"
    return f"**failed**: {reason}"


def no_gpu() -> str | None:
    """Why nothing can be checked here, or None"""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if "cuda" not in alrp_cuda.backends():
        return "alrp_cuda was built without its CUDA backend"
    return None


def said(*command: str) -> str:
    """What a command that describes the machine prints, on one line."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return "; ".join(line.strip() for line in done.stdout.splitlines() if line.strip())


def machine(sanitizer: str) -> dict[str, str]:
    """The lines that head the report, by name."""
    major, minor = torch.cuda.get_device_capability()
    return {
        "device": f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}",
        "driver": said("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"),
        "versions": f"alrp_cuda {alrp_cuda.__version__}, torch {torch.__version__} (CUDA {torch.version.cuda}), "
        f"Python {platform.python_version()}",
        "compute-sanitizer": said(sanitizer, "--version"),
        "commit": said("git", "describe", "--always", "--dirty"),
        "date": datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
    }


def markdown(about: dict[str, str], done: list[tuple[Step, Outcome]]) -> str:
    """The report."""
    lines = ["# GPU check", "", *(f"- {name}: {value}" for name, value in about.items()), ""]
    lines += ["| step | outcome | seconds |", "|---|---|---|"]
    lines += [f"| {step.name} | {verdict(outcome)} | {outcome.seconds:.0f} |" for step, outcome in done]
    for step, outcome in done:
        variables = [f"{name}={value}" for name, value in step.environment.items()]
        closing = outcome.output.rstrip().splitlines()[-CLOSING_LINES:]
        lines += ["", f"## {step.name}", "", f"    {shlex.join([*variables, *step.command])}", ""]
        lines += [f"    {line}".rstrip() for line in closing]
    return "\n".join(lines) + "\n"


def main(argv: list[str], runner: Runner = run) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, default=REPORT, metavar="FILE.md")
    parser.add_argument("--sanitizer", default="compute-sanitizer", metavar="PATH", help="of the CUDA toolkit")
    options = parser.parse_args(argv)
    if reason := no_gpu():
        print(f"gpu-check needs a machine with a GPU: {reason}", file=sys.stderr)
        return 2
    about = machine(options.sanitizer)
    done: list[tuple[Step, Outcome]] = []
    options.report.parent.mkdir(parents=True, exist_ok=True)
    for step in steps(options.sanitizer):
        print(f"==== {step.name}: {shlex.join(step.command)}", flush=True)
        done.append((step, runner(step)))
        options.report.write_text(markdown(about, done))  # after each step: an interrupted run leaves what it found
    print("\n".join(f"{step.name}: {verdict(outcome).replace('*', '')}" for step, outcome in done))
    print(f"report: {options.report}")
    return 0 if all(outcome.status == 0 for _, outcome in done) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
