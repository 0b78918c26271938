"""Simple faults at every line of csrc, planted one at a time: which of them do the tests notice?

``python -m tests.faults [FILE ...] [--every N] [--seed S] [--minutes M] [--jobs J]`` plants them in copies of the
repository, runs the tests that should notice, and prints the share that was noticed. It ends with 1 where one was not that is not
in tests/data/faults_unnoticed.txt, where the reason why nothing notices it stands before it.
"""

import argparse
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"
SUFFIXES = (".h", ".cpp", ".cu", ".cuh")
KNOWN = ROOT / "tests" / "data" / "faults_unnoticed.txt"
LONGEST = 600  # seconds; a fault that makes a loop endless is noticed by that

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
CPU = "not emulated and not reference and not waiting"
TESTS = {  # by what their names have
    "emulated": (*EVERYWHERE, "schedules", "launches"),
    CPU: (*EVERYWHERE, "threads", "size", "memory", "cpu_levels", "vector_forms"),
}


class Copy:
    """A copy of the repository to plant faults in, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.sound: set[str] = set()  # tests that have passed here with nothing planted
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

    def _run(self, *command: str, longest: int | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=longest
        )

    def build(self) -> bool:
        return self._run("setup.py", "--quiet", "build_ext", "--inplace").returncode == 0

    def prepare(self, names: str) -> None:
        """Build, and run the tests with nothing planted, once: where they fail by themselves they would notice everything."""
        if names in self.sound:
            return
        if names == CPU and not self.build():
            raise RuntimeError("with nothing planted the extension cannot be built")
        if failed := self.failed_test(names, "few", longest=None):
            raise RuntimeError(f"with nothing planted a test fails: {failed}")
        self.sound.add(names)

    def noticed(self, fault: Fault) -> str | None:
        """What noticed the fault, "compiler" where it makes no sense; None if nothing did."""
        names = "emulated" if is_of_kernels(fault.file) else CPU
        self.prepare(names)
        path = self.root / "csrc" / fault.file
        original = path.read_text()
        lines = original.splitlines(keepends=True)
        assert lines[fault.line - 1] == fault.old + "\n"
        lines[fault.line - 1] = fault.new + "\n"
        path.write_text("".join(lines))
        try:
            if names == CPU and not self.build():
                return "compiler"
            by = None
            for cases in ("few", "pairs"):
                by = by or self.failed_test(names, cases)
            return by
        except subprocess.TimeoutExpired:
            return "time"
        finally:
            path.write_text(original)

    def failed_test(self, names: str, cases: str, longest: int | None = LONGEST) -> str | None:
        """The first test that fails, of those of TESTS whose names have something."""
        tests = [f"tests/test_{name}.py" for name in TESTS[names]]
        options = ["-q", "-x", "--no-header", "--tb=line", "-p", "no:cacheprovider", "--cases", cases]
        done = self._run("-m", "pytest", *options, "-m", "not full and not gpu", "-k", names, *tests, longest=longest)
        if done.returncode == 0:
            return None
        if re.search(r"(nvcc|g\+\+|link) failed|Error building extension", done.stdout):
            return "compiler"
        failed = re.search(r"^(?:FAILED|ERROR) \S*?(\w+\.py\S*)", done.stdout, re.MULTILINE)
        return failed[1] if failed else f"exit code {done.returncode}"


def known() -> set[str]:
    """The keys of the list of faults that nothing notices; lines that begin with # say why."""
    return {line for line in KNOWN.read_text().splitlines() if line and not line.startswith("#")}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="under csrc, such as cuda/count.cu; by default all")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="one fault in N, chosen at random")
    parser.add_argument("--most", type=int, metavar="N", help="at most N faults")
    parser.add_argument("--seed", default="0", help="of the choice; such as a commit's name")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="copies that are tested at once")
    parser.add_argument("--minutes", type=float, help="begin no other fault after that")
    options = parser.parse_args(argv)
    files = [CSRC / name for name in options.files] or sorted(path for s in SUFFIXES for path in CSRC.rglob(f"*{s}"))
    chosen = [fault for path in files for fault in faults_of(path)]
    choice = random.Random(options.seed)
    choice.shuffle(chosen)
    chosen = chosen[:: options.every][: options.most]
    end = time.monotonic() + 60 * options.minutes if options.minutes else None
    passed_over = known()

    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(options.jobs) as pool:
        copies: queue.Queue[Copy] = queue.Queue()
        for number in range(options.jobs):
            copies.put(Copy(Path(scratch) / str(number)))

        def judge(fault: Fault) -> str | None:
            if end and time.monotonic() > end:
                return "not tried"
            copy = copies.get()
            begin = time.monotonic()
            try:
                by = copy.noticed(fault)
            finally:
                copies.put(copy)
            print(f"{time.monotonic() - begin:4.0f} s  {by or 'UNNOTICED'}  {fault}", flush=True)
            return by

        found = list(zip(chosen, pool.map(judge, chosen), strict=True))
    tried = [(fault, by) for fault, by in found if by not in ("compiler", "not tried")]
    unnoticed = [fault for fault, by in tried if by is None]
    print(f"{len(tried) - len(unnoticed)} of {len(tried)} faults noticed, {len(unnoticed)} not", flush=True)
    new = [fault for fault in unnoticed if fault.key not in passed_over]
    for fault in new:
        print(f"nothing notices {fault}")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
