"""csrc/cuda compiled for real devices, as strictly as nvcc can, and what each of our kernels takes of one.

``python tests/compilation.py --write`` writes tests/data/kernel_resources.txt anew.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

from emulator import EmulatorError, compiler

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
TABLE = ROOT / "tests" / "data" / "kernel_resources.txt"
COMMAND = "python tests/compilation.py --write"

OLDEST = 75
# As setup.py compiles, but for the warnings. -v makes ptxas report resources.
FLAGS = ["-O3", "-std=c++20", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror", "-Xptxas", "-v"]


class CompilationError(RuntimeError):
    """What nvcc said."""


@dataclass(frozen=True)
class Resources:
    """Registers of a thread; bytes of its stack and spills; bytes of a block's shared memory, dynamic memory not counted."""

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int


@dataclass(frozen=True, order=True)
class Key:
    """A kernel for one architecture."""

    source: str
    kernel: str
    architecture: int


Table = dict[Key, Resources]


def missing_requirement() -> str | None:
    """Why nothing can be compiled here, or None"""
    try:
        compiler.nvcc()
    except EmulatorError as error:
        return str(error)
    return None


def nvcc_version() -> str:
    """As in 13.0.88"""
    found = re.search(r"\bV(\d+(?:\.\d+)+)", compiler.tool_versions())
    return found[1] if found else "unknown"


def architectures() -> list[int]:
    """The numbers of all sm_XX from the oldest supported on that this nvcc compiles for."""
    listed = subprocess.run([compiler.nvcc(), "--list-gpu-code"], capture_output=True, text=True, check=True).stdout
    return sorted(number for number in map(int, re.findall(r"\bsm_(\d+)\b", listed)) if number >= OLDEST)


def report(source: Path, targets: Iterable[int]) -> str:
    """What ptxas reports while nvcc compiles a source for real architectures.

    Raises:
        CompilationError: an error or a warning, of nvcc, ptxas or the host's compiler.
    """
    code = [word for n in targets for word in ("-gencode", f"arch=compute_{n},code=sm_{n}")]
    with tempfile.TemporaryDirectory() as scratch:
        command = [compiler.nvcc(), "-c", *FLAGS, "--threads", "0", *code, str(source), "-o", str(Path(scratch) / "code.o")]
        done = subprocess.run(command, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode or re.search(r"\bwarning\b", said):
        told = "\n".join(line for line in said.splitlines() if not line.startswith(("ptxas info", "    ")))
        raise CompilationError(f"{' '.join(command)}\n{told}")
    return said


def parse(source: str, said: str) -> Table:
    """Resources of our own kernels in a report: CUB's belong to the toolkit."""
    blocks = re.findall(
        r"Compiling entry function '(\w+)' for 'sm_(\d+)\w?'.*?"
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)",
        said,
        re.S,
    )
    names = demangled([block[0] for block in blocks])
    table = {}
    for (_, number, stack, stores, loads, registers, rest), name in zip(blocks, names, strict=True):
        if name.removeprefix("void ").startswith("alrp::"):
            shared = re.search(r"(\d+) bytes smem", rest)
            sizes = (int(registers), int(stack), int(stores), int(loads), int(shared[1]) if shared else 0)
            table[Key(source, short(name), int(number))] = Resources(*sizes)
    return table


def demangled(names: list[str]) -> list[str]:
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[: len(names)]


def short(name: str) -> str:
    """`alrp::cuda::(anonymous namespace)::f<float>(int)` -> `f<float>`: no namespaces, no parameters"""
    plain = re.sub(r"\b\w+::", "", name.replace("(anonymous namespace)::", "").removeprefix("void "))
    depth = 0
    for i, c in enumerate(plain):
        if c == "(" and depth == 0:
            return plain[:i].replace(" ", "")
        depth += {"<": 1, ">": -1}.get(c, 0)
    return plain.replace(" ", "")


def resources(targets: list[int]) -> Table:
    """Of every kernel for some architectures; compiled once for each content of the sources."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reports = pool.map(lambda source: cached_report(source, targets), SOURCES)
        return {
            key: found for source, said in zip(SOURCES, reports, strict=True) for key, found in parse(source.name, said).items()
        }


def cached_report(source: Path, targets: list[int]) -> str:
    """report(), kept by content beside what the emulated device keeps."""
    contents = [text for path in included(source) for text in (str(path.relative_to(ROOT)), path.read_bytes())]
    key = compiler.digest(compiler.tool_versions(), " ".join(FLAGS), " ".join(map(str, targets)), *contents)
    path = compiler.cached(f"resources-{key}.txt", lambda fresh: fresh.write_text(report(source, targets)))
    return path.read_text()


def included(source: Path) -> list[Path]:
    """A source and what it includes in quotes, and what that includes: all but the toolkit's and the system's headers."""
    found, waiting = set(), [source.resolve()]
    while waiting:
        path = waiting.pop()
        found.add(path)
        names = re.findall(r'^\s*#\s*include\s*"([^"]+)"', path.read_text(), re.M)
        waiting += {(path.parent / name).resolve() for name in names} - found
    return sorted(found)


# ---- the committed table

COLUMNS = ("source", "kernel", "sm", *(field.name for field in fields(Resources)))


def write(table: Table) -> None:
    rows = [COLUMNS, *((key.source, key.kernel, key.architecture, *vars(found).values()) for key, found in sorted(table.items()))]
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(COLUMNS))]
    lines = ["  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(f"# nvcc {nvcc_version()}; written by: {COMMAND}\n" + "\n".join(lines) + "\n")


def committed() -> tuple[str, Table]:
    """(the version of nvcc it was written with, the table)"""
    heading, columns, *lines = TABLE.read_text().splitlines()
    version = re.match(r"# nvcc ([\d.]+);", heading)
    assert version, heading
    assert tuple(columns.split()) == COLUMNS, columns
    rows = [line.split() for line in lines]
    return version[1], {Key(row[0], row[1], int(row[2])): Resources(*map(int, row[3:])) for row in rows}


def differences(was: Table, now: Table) -> list[str]:
    """Every figure that changed: was and is."""
    lines = []
    for key in sorted({*was, *now}):
        name = f"{key.source}, {key.kernel}, sm_{key.architecture}"
        if key not in was or key not in now:
            lines.append(f"{name}: {'is gone' if key in was else 'is new'}")
            continue
        pairs = ((field.name, getattr(was[key], field.name), getattr(now[key], field.name)) for field in fields(Resources))
        lines += [f"{name}: {field} was {old}, is {new}" for field, old, new in pairs if old != new]
    return lines


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Compile csrc/cuda for every architecture that nvcc knows.")
    parser.add_argument("--write", action="store_true", required=True, help=f"write {TABLE.name}")
    parser.parse_args(argv)
    write(resources(architectures()))
    print(f"wrote {TABLE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
