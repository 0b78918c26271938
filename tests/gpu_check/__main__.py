"""What only a GPU can tell, in parts that each end in minutes: ``make gpu-check``, docs/gpu.md.

Builds the extension for the device alone, unless the folder of the results holds it, and runs a part: the gpu tests, a selection
of them under each tool of compute-sanitizer, the benchmark, or profiles; without a part, all of them, one after the other. A
part ends in time and says what is left; run again, it goes on there: what has passed is not run again, what failed comes last.
Nothing is fetched. Ends with 0 if all went well, 1 if something failed, 2 where there is no GPU, 3 if something is left to run.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import build, machine, report
from .outcomes import Outcome, Results
from .running import CLOSING_SECONDS, run
from .source import CHECKED, ROOT, digest
from .steps import Step, parts

FOLDER = ROOT / "runs" / "gpu-check"
Runner = Callable[[Step, str, float], Outcome]


def prepare(step: Step, key: str, results: Results, limit: float, runner: Runner) -> bool:
    """Put the extension for this device in place: the one that lies in the folder, or one that is built."""
    if results.build == key and build.restore(results.folder):
        return True
    print(f"==== {step.name}: {shlex.join(step.command)}", flush=True)
    if not results.end(step, runner(step, str(results.record), limit)).has_passed:
        return False
    build.keep(results.folder)
    results.build = key
    results.save()
    return True


def in_order(steps: list[Step], results: Results) -> list[Step]:
    """What has not passed: first what has not ended, then what failed."""
    last = {step.name: results.ended(step) for step in steps}
    left = [step for step in steps if not step.missing and not ((ended := last[step.name]) and ended.has_passed)]
    return sorted(left, key=lambda step: bool((ended := last[step.name]) and ended.failure))


def run_part(steps: list[Step], results: Results, until: float, runner: Runner, tell: Callable[[], None]) -> None:
    """Run what has not passed, until the clock says so; those that can go on later share the time."""
    order = in_order(steps, results)
    for k, step in enumerate(order):
        rest = until - time.monotonic()
        limit = rest / (len(order) - k) if step.records else rest
        if limit < step.seconds + (CLOSING_SECONDS if step.records else 0):
            print(f"==== no time left for {step.name}", flush=True)
            continue
        print(f"==== {step.name}, {limit:.0f} s at most", flush=True)
        results.begin(step)
        results.end(step, runner(step, str(results.record), limit))
        tell()


def main(argv: list[str], runner: Runner = run) -> int:
    begin = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", choices=("tests", "sanitizer", "bench", "profile"))
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the results, for now and for the next run")
    parser.add_argument("--report", type=Path, metavar="FILE.md", help="default: gpu-check.md in the folder")
    parser.add_argument("--minutes", type=float, default=8.0, help="for each part; default: 8")
    parser.add_argument("--commit", help="where git cannot tell it")
    parser.add_argument("--sanitizer", metavar="PATH", help="default: of PATH or of the CUDA toolkit")
    options = parser.parse_args(argv)
    if reason := machine.no_gpu():
        print(f"gpu-check needs a machine with a GPU: {reason}", file=sys.stderr)
        return 2
    sanitizer = options.sanitizer or machine.sanitizer()
    about = machine.about(sanitizer, options.commit)
    results = Results(options.folder.resolve(), f"{digest(CHECKED)} {about['device']} {about['versions']}")
    if results.are_new:
        print("==== other sources, or another machine: what lies here is run anew", flush=True)
    arch = build.architecture(machine.capability())
    building = build.step(arch)
    every = parts(sanitizer)
    chosen = {options.part: every[options.part]} if options.part else every
    path = options.report or results.folder / "gpu-check.md"

    def tell() -> None:
        path.write_text(report.markdown(about, {"build": [building], **every}, results))

    if not prepare(building, build.key(machine.torch_version(), arch), results, 60 * options.minutes, runner):
        tell()
        print(f"the extension could not be built: {path}", file=sys.stderr)
        return 1
    for steps in chosen.values():
        run_part(steps, results, begin + 60 * options.minutes, runner, tell)
        begin = time.monotonic()
    tell()
    ended = [(step, results.ended(step)) for steps in chosen.values() for step in steps]
    for step, how in ended:
        print(f"{step.name}: {report.verdict(step, how).replace('*', '')}")
    print(f"report: {path}")
    if any(how and how.failure for _, how in ended):
        return 1
    return 3 if any(not how or not how.has_passed for _, how in ended) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
