"""Which loss trains a detector best, on handwritten digits: the grid of detectors and losses, three seeds each.

python -m examples.digits.exhibit

First a learning rate for each loss: the one with the highest AP of RetinaNet on digits held out of training, at a third of the
steps. Then every cell of the grid with the rate of its loss. Runs are processes of one thread each, as many at a time as --jobs;
one that is complete is not repeated, and one that was stopped goes on, so Ctrl-C and the same command again lose little.
Writes into --out: learning-rates.json, table.md, pictures, and a folder for each run.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from ..common.history import History
from ..common.logs import progress_bar
from .losses import LOSSES
from .models import DETECTORS
from .report import Cell, write_report
from .training import Run

LEARNING_RATES = (1e-3, 2e-3, 4e-3, 8e-3)
GRID = [("retinanet", loss) for loss in LOSSES] + [
    (detector, loss) for detector in DETECTORS if detector != "retinanet" for loss in ("alrp-giou-self", "own")
]
ROOT = Path(__file__).parents[2]


def load_history(folder: Path) -> History:
    return History(**json.loads((folder / "history.json").read_text()))


def complete(run: Run, folder: Path) -> bool:
    return (folder / "history.json").exists() and load_history(folder).run == asdict(run)


def start(run: Run, folder: Path) -> None:
    """Do a run in a process of its own.

    Raises:
        RuntimeError: it failed; with what it printed.
    """
    if complete(run, folder):
        return
    command = [sys.executable, "-m", "examples.digits", "--out", str(folder.resolve())]
    for name, value in asdict(run).items():
        flag = f"--{name.replace('_', '-')}"
        command += [flag] * value if isinstance(value, bool) else [flag, str(value)]
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    log = folder / "log.txt"
    with log.open("a") as output:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{log.read_text()[-2000:]}")


def do_runs(runs: Sequence[tuple[Run, Path]], title: str, jobs: int, console: Console) -> None:
    with progress_bar(console) as progress, ThreadPoolExecutor(jobs) as pool:
        bar = progress.add_task(title, total=len(runs))
        futures = {pool.submit(start, run, folder): folder for run, folder in runs}
        try:
            for future in as_completed(futures):
                future.result()
                folder = futures[future]
                numbers = load_history(folder).evaluations[-1]
                console.print(f"{folder.name}  AP {numbers['AP']:.3f}", highlight=False)
                progress.advance(bar)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def search(base: Run, out: Path, jobs: int, console: Console) -> dict[str, float]:
    """For each loss the learning rate with the highest AP on held-out digits."""
    # A third of the steps: half the epochs, two thirds as long.
    short = replace(base, epochs=max(1, base.epochs // 2), iterations=max(1, base.iterations * 2 // 3), held_out=True)
    runs = {
        (loss, rate): (replace(short, loss=loss, learning_rate=rate), out / "search" / f"{loss}-{rate:g}")
        for loss in LOSSES
        for rate in LEARNING_RATES
    }
    do_runs(list(runs.values()), "learning rates", jobs, console)
    ap = {key: load_history(folder).evaluations[-1]["AP"] for key, (_, folder) in runs.items()}
    found = {loss: max(LEARNING_RATES, key=lambda rate: ap[loss, rate]) for loss in LOSSES}
    tried = {loss: {f"{rate:g}": ap[loss, rate] for rate in LEARNING_RATES} for loss in LOSSES}
    (out / "learning-rates.json").write_text(json.dumps({"found": found, "AP": tried}, indent=1) + "\n")
    return found


def grid_runs(
    base: Run, rates: dict[str, float], seeds: Iterable[int], out: Path
) -> dict[tuple[str, str, int], tuple[Run, Path]]:
    """Seed after seed, so that a grid that was stopped has something of every cell."""
    return {
        (detector, loss, seed): (
            replace(base, detector=detector, loss=loss, seed=seed, learning_rate=rates[loss]),
            out / "grid" / f"{detector}-{loss}-{seed}",
        )
        for seed in seeds
        for detector, loss in GRID
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m examples.digits.exhibit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Run()
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=default.epochs, help="default: %(default)s")
    parser.add_argument("--iterations", type=int, default=default.iterations, help="of an epoch; default: %(default)s")
    parser.add_argument("--canvases", type=int, default=default.canvases, help="to evaluate on; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("runs/exhibit"), help="folder; default: %(default)s")
    options = parser.parse_args(arguments)
    begun = time.perf_counter()
    console = Console()
    base = Run(epochs=options.epochs, iterations=options.iterations, canvases=options.canvases)
    rates = search(base, options.out, options.jobs, console)
    runs = grid_runs(base, rates, range(options.seeds), options.out)
    do_runs(list(runs.values()), "grid", options.jobs, console)
    cells = [
        Cell(detector, loss, [load_history(runs[detector, loss, seed][1]) for seed in range(options.seeds)])
        for detector, loss in GRID
    ]
    write_report(cells, options.out)
    minutes = (time.perf_counter() - begun) / 60
    console.print(f"table.md and pictures in {options.out}; {minutes:.1f} minutes in all", highlight=False)


if __name__ == "__main__":
    main()
