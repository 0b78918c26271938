"""Simple faults at every line of csrc, planted one at a time: which of them do the tests notice?

``python -m tests.faults [FILE ...] [--cases C] [--minutes M] [--seed S]`` plants them in two copies of the repository at once,
runs the tests that should notice, and prints the share that was noticed. It names the others but for those of
tests/data/faults_unnoticed.txt, where the reason why nothing notices one stands before it. To look at, not to fail by: no program
tells a fault that changes nothing from one that no test notices.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"
SUFFIXES = (".h", ".cpp", ".cu", ".cuh")
KNOWN = ROOT / "tests" / "data" / "faults_unnoticed.txt"
LONGEST = 1800  # seconds; a fault that makes a loop endless is noticed by that. With nothing planted it takes a third

Exchange = dict[str, str]
SHIFTED: Exchange = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "&&": "||", "||": "&&"}
SIGNS: Exchange = {"+": "-", "-": "+", "+=": "-=", "-=": "+="}

# What stands in a line, and what takes its place. Spaces around an operator tell a comparison from a template's brackets.
RULES: list[tuple[str, str, object]] = [
    ("comparison", r"(?<= )(<=|>=|<|>|==|!=|&&|\|\|)(?= [^t])", lambda m: SHIFTED[m[0]]),
    ("sign", r"(?<= )(\+=|-=|\+|-)(?= )", lambda m: SIGNS[m[0]]),
    ("constant", r"(?<![\w.'\"])(\d+)(?![\w.'\"])", lambda m: str(int(m[0]) + 1)),
    ("arguments", r"(?<=\()(\w+), (\w+)(?=\))", lambda m: f"{m[2]}, {m[1]}"),
    ("atomic", r"\batomic(?:Add|Or)\((.+?), (.+)\)(?=;)", lambda m: f"*({m[1]}) += {m[2]}"),
]
# A whole line that is a statement. A declaration has a type before its name.
ASSIGNMENT, INCREMENT = r"[\w.:>\[\]()*-]+ [-+*|&^/]?=(?!=) .*", r"(?:\+\+|--)[\w.>-]+"
CALL, JUMP = r"[\w.:>-]+(?:<[^;]*>)?\(.*\)", "return|continue|break"
STATEMENT = re.compile(rf"^\s+(?:{ASSIGNMENT}|{INCREMENT}|{CALL}|{JUMP});(?: *//.*)?$")
NO_CODE = re.compile(r"^\s*(//|#|static_assert|template|using |asm|__launch_bounds__|TORCH_CHECK|m\.def|m\.doc|struct |class )")


@dataclass(frozen=True)
class Fault:
    """A line of a file under csrc that stands for another."""

    file: str
    line: int
    rule: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} ({self.rule}): {self.old.strip()}  ->  {self.new.strip() or '(left out)'}"

    @property
    def key(self) -> str:
        """Without the number, which changes with every line above."""
        return f"{self.file} | {self.old.strip()} | {self.new.strip()}"


def faults_of(path: Path) -> Iterator[Fault]:
    """All faults of a source file, in order."""
    name = str(path.relative_to(CSRC))
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if NO_CODE.match(line):
            continue
        code = line.partition("//")[0]
        for rule, pattern, change in RULES:
            for match in re.finditer(pattern, code):
                yield Fault(name, number, rule, line, line[: match.start()] + change(match) + line[match.end() :])  # type: ignore[operator]
        if STATEMENT.match(line):
            yield Fault(name, number, "statement", line, "")


def is_of_kernels(file: str) -> bool:
    """Whether the emulated device runs the file, compiled for it, rather than the extension."""
    return file.startswith("cuda/") or file.endswith(("labels.h", "losses.h", "keys.h", "step.h", "positions.h"))


# In the order in which faults are soonest noticed.
EVERYWHERE = "every_kernel", "equivalence", "edges", "sorted", "framework", "errors", "tensors", "scope", "distributed"
EMULATED, CPU = "emulated", "not emulated and not reference and not waiting"
TESTS = {  # by what their names have
    EMULATED: (*EVERYWHERE, "schedules", "launches"),
    CPU: (*EVERYWHERE, "threads", "size", "memory", "cpu_levels", "vector_forms"),
}


def is_run_here(path: Path) -> bool:
    """Whether this CPU has what the file's loops are made of."""
    capability = torch.backends.cpu.get_cpu_capability()
    levels = {"loops_avx2.cpp": ("AVX2", "AVX512"), "loops_avx512.cpp": ("AVX512",)}
    return path.name not in levels or capability in levels[path.name]


class Copy:
    """A copy of the repository to plant faults in, one at a time: those of the kernels or those of the CPU's code."""

    def __init__(self, folder: Path, names: str, cases: str) -> None:
        self.root, self.names, self.cases = folder, names, cases
        ignored = shutil.ignore_patterns("__pycache__", ".*", "build", "runs", "dist", "docs", "examples")
        shutil.copytree(ROOT, folder, ignore=ignored, dirs_exist_ok=True)
        for name in ("build/emulated", ".cache/emulator"):  # linked: what is compiled anew gets another name or another file
            if (ROOT / name).exists():
                shutil.copytree(ROOT / name, folder / name, copy_function=os.link)
        self.environment = os.environ | {
            "PYTHONPATH": str(folder),
            "EMULATOR_CACHE": str(folder / ".cache" / "emulator"),
            "OMP_NUM_THREADS": "1",
            "ALRP_CUDA": "0",
            "MAX_JOBS": "1",
        }
        if not self.build():
            raise RuntimeError("with nothing planted the extension cannot be built")

    def _run(self, *command: str, end: float = float("inf")) -> tuple[int, str]:
        """Exit code and output; TimeoutError when it is not done by LONGEST, or by the end."""
        arguments = [sys.executable, *command]
        with subprocess.Popen(
            arguments, cwd=self.root, env=self.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            try:
                output, _ = process.communicate(timeout=min(LONGEST, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # compilers and ranks, too
                raise TimeoutError from None
            return process.returncode, output

    def build(self, end: float = float("inf")) -> bool:
        """The emulated device compiles kernels when they are first asked for."""
        return self.names == EMULATED or self._run("setup.py", "--quiet", "build_ext", "--inplace", end=end)[0] == 0

    def noticed(self, fault: Fault, end: float) -> str | None:
        """What noticed the fault, "compiler" where it makes no sense; None if nothing did. TimeoutError at the end."""
        path = self.root / "csrc" / fault.file
        original = path.read_text()
        lines = original.splitlines(keepends=True)
        assert lines[fault.line - 1] == fault.old + "\n"
        lines[fault.line - 1] = fault.new + "\n"
        path.write_text("".join(lines))
        try:
            return self.failed_test((f"test_{name}.py" for name in TESTS[self.names]), end) if self.build(end) else "compiler"
        except TimeoutError:
            if time.monotonic() >= end:
                raise
            return "time"
        finally:
            path.write_text(original)

    def failed_test(self, tests: Iterable[str], end: float = float("inf")) -> str | None:
        """The first test that fails, of those whose names have something."""
        options = ["-q", "-x", "--no-header", "--tb=line", "-p", "no:cacheprovider", "--cases", self.cases]
        chosen = ["-m", "not full and not gpu", "-k", self.names, *(f"tests/{test}" for test in tests)]
        code, output = self._run("-m", "pytest", *options, *chosen, end=end)
        if code == 0:
            return None
        if re.search(r"(nvcc|g\+\+|link) failed|Error building extension", output):
            return "compiler"
        failed = re.search(r"^(?:FAILED|ERROR) tests/(.+?)(?: - |$)", output, re.MULTILINE)
        return failed[1] if failed else f"exit code {code}"


def known() -> set[str]:
    """The keys of the list of faults that nothing notices; lines that begin with # say why."""
    return {line for line in KNOWN.read_text().splitlines() if line and not line.startswith("#")}


def judged(faults: list[Fault], names: str, cases: str, end: float) -> list[tuple[Fault, str | None]]:
    """The faults that were tried until the end, and what noticed each."""
    found: list[tuple[Fault, str | None]] = []
    if not faults:
        return found
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder), names, cases)
        for fault in faults:
            begin = time.monotonic()
            try:
                by = copy.noticed(fault, end)
            except TimeoutError:
                break
            print(f"{time.monotonic() - begin:4.0f} s  {by or 'UNNOTICED'}  {fault}", flush=True)
            if by != "compiler":
                found.append((fault, by))
        tests = sorted({by for _, by in found if by and "::" in by})
        copy.build()
        if tests and (failed := copy.failed_test(tests)):
            raise RuntimeError(f"with nothing planted a test fails, too: {failed}")
    return found


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="under csrc, such as cuda/count.cu; by default all")
    parser.add_argument("--cases", default="few", help="which cases run: few, pairs or all; see selection.py")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="a fault that is tried then is not judged")
    parser.add_argument("--seed", default="0", help="of their order; such as a commit's name")
    options = parser.parse_args(argv)
    files = [CSRC / name for name in options.files] or sorted(path for s in SUFFIXES for path in CSRC.rglob(f"*{s}"))
    faults = [fault for path in files if is_run_here(path) for fault in faults_of(path)]
    random.Random(options.seed).shuffle(faults)
    end = time.monotonic() + 60 * options.minutes
    passed_over = known()

    def judge(names: str) -> list[tuple[Fault, str | None]]:
        chosen = [fault for fault in faults if is_of_kernels(fault.file) is (names == EMULATED)]
        return judged(chosen, names, options.cases, end)

    with ThreadPoolExecutor() as pool:
        tried = [pair for pairs in pool.map(judge, TESTS) for pair in pairs]
    unnoticed = [fault for fault, by in tried if by is None]
    print(f"{len(tried) - len(unnoticed)} of {len(tried)} faults noticed, {len(unnoticed)} not", flush=True)
    for fault in unnoticed:
        if fault.key not in passed_over:
            print(f"nothing notices {fault}")


if __name__ == "__main__":
    main(sys.argv[1:])
