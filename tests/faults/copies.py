"""Copies of the repository with faults in csrc, and the tests that run in them."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .planting import planted
from .rules import Fault
from .trials import NONE, PAGE

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# Which tests try the faults, those that take long after the others, and what is in their names.
QUICK = "equivalence", "edges", "sorted", "framework", "errors", "tensors", "lists", "scope", "memory", "sort_errors"
EMULATED, CPU = "emulated", "not emulated and not reference"
STAGES = {
    EMULATED: (("every_kernel", *QUICK), ("schedules", "launches", "distributed")),
    CPU: (QUICK, ("library", "vector_forms", "cpu_levels", "distributed", "threads")),
}
PLACE = r"\S*/csrc/([\w/.]+?)(?::(\d+)[:,]|\((\d+)\): error)"
# Errors, and what asks for the template or, for the compiler's own functions, the constant that one is in.
ERROR = re.compile(rf"^{PLACE}(?! note: (?!.*required from))|^In function .*,\n    inlined from .* at {PLACE}", re.MULTILINE)

# Compiles what tests would, and prints what does not compile.
EMULATE = """
import sys

sys.path.insert(0, "tests")
from emulated.device import CSRC, MAIN_TARGET, SOURCES, library
from emulated.extension import extension
from emulator import EmulatorError, compiler

def attempt(make):
    try:
        make()
    except (EmulatorError, RuntimeError) as error:
        print(error, file=sys.stderr)

for source in SOURCES:
    attempt(lambda: compiler.compile_source(source, MAIN_TARGET, [CSRC], ["-std=c++20"] if source.suffix == ".cu" else []))
attempt(library)
attempt(extension)
"""

SHORT = 0.5  # seconds: such tests are worth trying before others, if they have noticed faults of the same file


class Copy:
    """A copy to plant faults in: those of the kernels or those of the CPU's code."""

    def __init__(self, folder: Path, device: str) -> None:
        self.root, self.device = folder, device
        self.switched: set[int] = set()  # which of the faults that were planted compile
        ignored = shutil.ignore_patterns("__pycache__", ".*", "build", "runs", "dist", "docs", "examples", "*.so")
        shutil.copytree(ROOT, folder, ignore=ignored, dirs_exist_ok=True)
        if (cache := ROOT / ".cache" / "emulator").exists():  # linked: what is compiled anew gets another name
            shutil.copytree(cache, folder / ".cache" / "emulator", copy_function=os.link)
        (folder / "page").write_bytes(NONE.to_bytes(4, sys.byteorder) + bytes(PAGE - 4))
        self.environment = os.environ | {
            "PYTHONPATH": str(folder),
            "FAULT_PAGE": str(folder / "page"),
            "OMP_NUM_THREADS": "1",
            "ALRP_CUDA": "0",
            "CFLAGS": "-O1 -w",
            "EMULATOR_CACHE": str(folder / ".cache" / "emulator"),
        }

    def plant(self, faults: dict[int, Fault]) -> None:
        """Those that do not compile, or that what runs before the program asks for, are left out."""
        self._files = {fault.file for fault in faults.values()}
        unfit: set[int] = set()
        while True:
            self._write(faults, unfit)
            if not (lines := self._build()):
                return
            there = {n for n in self.switched if (faults[n].file, faults[n].line) in lines}
            if not there:
                raise RuntimeError(f"with nothing planted the extension cannot be built: {sorted(lines)}")
            exchanged = {
                (faults[n].file, faults[n].line): n for n in there if faults[n].rule == "arguments"
            }  # rarely of one type
            unfit |= {n for n in there if (faults[n].file, faults[n].line) not in exchanged} | set(exchanged.values())

    def plant_alone(self, fault: Fault) -> bool:
        """One that no switch can plant, and no other; whether it compiles."""
        for file in self._files:
            shutil.copyfile(ROOT / "csrc" / file, self.root / "csrc" / file)
        path = self.root / "csrc" / fault.file
        lines = path.read_text().splitlines(keepends=True)
        lines[fault.line - 1] = fault.new + "\n"
        path.write_text("".join(lines))
        return not self._build()

    def _write(self, faults: dict[int, Fault], unfit: set[int]) -> None:
        self.switched = set()
        for file in self._files:
            fit = {n: f for n, f in faults.items() if f.file == file and n not in unfit}
            text, switched = planted((ROOT / "csrc" / file).read_text(), fit)
            self.switched |= switched
            path = self.root / "csrc" / file
            text = f'#include "{HERE / "fault.h"}"\n#line 1\n{text}'
            if path.read_text() != text:
                path.write_text(text)

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False)

    def _build(self) -> set[tuple[str, int]]:
        """The lines of csrc that do not compile."""
        if self.device == EMULATED:
            return _erroneous(self._run(sys.executable, "-c", EMULATE).stderr)
        code = self._run(sys.executable, "setup.py", "--quiet", "build_ext", "--inplace")
        if code.returncode == 0:
            return set()
        (ninja,) = self.root.glob("build/**/build.ninja")
        output = self._run("ninja", "-k", "0", "-C", str(ninja.parent)).stdout
        return _erroneous(output)

    @contextmanager
    def tests(self, files: Iterable[str], cases: str) -> Iterator["Tests"]:
        options = [
            "-p",
            "no:cacheprovider",
            "-p",
            "no:terminal",
            "-p",
            "no:faulthandler",
            "--cases",
            cases,
            "-m",
            "not slow and not full and not gpu",
            "-k",
            self.device,
        ]
        command = [
            sys.executable,
            "-m",
            "tests.faults.trials",
            *options,
            *(f"tests/test_{name}.py" for name in files),
        ]
        with subprocess.Popen(
            command, cwd=self.root, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            yield Tests(process)

    def failed(self, files: Iterable[str], cases: str) -> str | None:
        """The first test that fails with what is planted alone."""
        with self.tests(files, cases) as tests:
            return tests.failed


class Tests:
    """The process that runs them; see trials.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        first = self._answer()
        self.failed: str | None = first.get("failed")  # with no fault tried
        self.at_import = set(first.get("import", ()))  # faults that are reached before any test
        self._seconds = {name: took for name, (took, _) in first.get("tests", ())}
        cases: Counter[str] = Counter()  # of each test, the quicker ones
        turns = {}
        for name in sorted(self._seconds, key=self._seconds.__getitem__):
            test = name.partition("[")[0]
            turns[name] = cases[test], self._seconds[name]
            cases[test] += 1
        # By fault: one case of each test, the quickest first, then another of each.
        self._reaching: dict[int, list[str]] = defaultdict(list)
        for name, (_, reached) in sorted(first.get("tests", ()), key=lambda test: turns[test[0]]):
            for fault in reached:
                self._reaching[fault].append(name)
        self._noticed: dict[str, list[str]] = defaultdict(list)  # by file, the last test that noticed one first

    def _answer(self) -> Any:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())

    def noticed(self, number: int, file: str) -> str | None:
        """The test that notices the fault, of those that reach it."""
        lately = [name for name in self._noticed[file] if name in self._reaching[number]][:20]
        names = [*lately, *(name for name in self._reaching[number] if name not in lately)]
        if not names:
            return None
        print(json.dumps([number, names]), file=self._process.stdin, flush=True)
        name = self._answer()
        if name and self._seconds[name] < SHORT:
            self._noticed[file] = [name, *(other for other in self._noticed[file] if other != name)]
        return name


def _erroneous(output: str) -> set[tuple[str, int]]:
    """Files and lines that a compiler complains of."""
    found = (tuple(filter(None, match.groups())) for match in ERROR.finditer(output))
    return {(os.path.normpath(file), int(line)) for file, line in found}
