"""Simple faults at every line of csrc: which of them do the tests notice?

``python -m tests.faults [FILE ...] [--cases C] [--count N] [--seed S]`` compiles two copies of the repository, one for the
CPU's code and one for the kernels, with all faults in them, each behind a switch; tries one after another by the tests that reach
it; and prints the share that was noticed. It names the others. Those of tests/data/faults_unnoticed.txt, where the reason why
nothing notices one stands before it, count as unnoticed and are not tried. Ends with 1 if nothing notices another in a file of
tests/data/faults_held.txt.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

import torch

from .copies import CPU, EMULATED, STAGES, Copy
from .planting import is_switched
from .rules import CSRC, SUFFIXES, Fault, faults_of, listed


def devices_of(file: str) -> tuple[str, ...]:
    """Whose tests run the file. Those of the second try what those of the first do not notice."""
    if file.startswith("cuda/"):
        return (EMULATED,)
    return (CPU,) if file.startswith("cpu/") else (CPU, EMULATED)


def is_run_here(path: Path) -> bool:
    """Whether this CPU has what the file's loops are made of."""
    capability = torch.backends.cpu.get_cpu_capability()
    levels = {"loops_avx2.cpp": ("AVX2", "AVX512"), "loops_avx512.cpp": ("AVX512",), "loops_neon.cpp": ()}
    return path.name not in levels or capability in levels[path.name]


def judged(faults: dict[int, Fault], device: str, cases: str, *, apart: bool) -> Iterator[tuple[Fault, str | None]]:
    """The faults, and what noticed each. Those that no switch can plant, which want a build each, only if `apart`."""
    if not faults:
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder), device)
        copy.plant(faults)
        remaining = {n: fault for n, fault in faults.items() if n in copy.switched}
        for files in STAGES[device]:
            with copy.tests(files, cases) as tests:
                if tests.failed:
                    raise RuntimeError(f"with no fault tried {tests.failed} fails")
                for number in remaining.keys() & tests.at_import:
                    del remaining[number]
                    copy.switched.remove(number)
                for number, fault in list(remaining.items()):
                    if by := tests.noticed(number, fault.file):
                        yield remaining.pop(number), by
        yield from ((fault, None) for fault in remaining.values())
        for number in faults.keys() - copy.switched if apart else ():
            if copy.plant_alone(faults[number]):
                yield faults[number], next(filter(None, map(partial(copy.failed, cases=cases), STAGES[device])), None)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="under csrc, or a folder: cuda/count.cu, cpu; by default all")
    parser.add_argument("--cases", default="few", help="which cases run: few, pairs or all; see selection.py")
    parser.add_argument("--count", type=int, help="how many are tried, but for those that want a build each; by default all")
    parser.add_argument("--seed", default="0", help="of their order; such as a commit's name")
    options = parser.parse_args(argv)
    chosen = [CSRC / name for name in options.files or [""]]
    files = sorted(path for name in chosen for path in [name, *name.rglob("*")] if path.suffix in SUFFIXES and is_run_here(path))
    faults = list(enumerate(fault for path in files for fault in faults_of(path)))
    random.Random(options.seed).shuffle(faults)
    faults = faults[: options.count]
    explained, held = listed("faults_unnoticed"), listed("faults_held")

    by: dict[Fault, str | None] = {fault: None for _, fault in faults if fault.key in explained}  # what is no fault is not in it

    def judge(device: str, turn: int) -> list[tuple[Fault, str | None]]:
        found = []
        there = {
            number: fault
            for number, fault in faults
            if fault.key not in explained
            and devices_of(fault.file)[turn : turn + 1] == (device,)
            and (turn == 0 or (fault in by and by[fault] is None))
        }
        for fault, test in judged(there, device, options.cases, apart=options.count is None):
            print(f"{test or 'UNNOTICED'}  {fault}", flush=True)
            found.append((fault, test))
        return found

    with ThreadPoolExecutor() as pool:
        by.update(chain.from_iterable(pool.map(judge, (EMULATED, CPU), (0, 0))))
    by.update(judge(EMULATED, 1))
    unnoticed = [fault for fault, test in by.items() if test is None]
    print(f"{len(by) - len(unnoticed)} of {len(by)} faults noticed, {len(unnoticed)} not", flush=True)
    wrong = False
    for fault in unnoticed:
        if fault.key not in explained:
            wrong |= (is_held := fault.file in held and is_switched(fault))
            print(f"nothing notices {fault}{' in a file that is held' * is_held}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
