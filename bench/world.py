"""One batch dealt out to several processes: what a step with ``group=`` takes, and what it sends."""

import os
import pickle
import tempfile
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from torch.multiprocessing.spawn import spawn

from alrp_cuda.distributed import Traffic, traffic

from .cases import Case, Problem
from .contenders import LOSSES, Loss
from .report import figure, number, print_columns, size
from .selection import selected


@dataclass(frozen=True)
class Cell:
    """One loss on one case: seconds of a step, of one rank alone on the whole batch and of all together; what each sends."""

    loss: str
    case: Case
    alone: float
    together: float
    sent: Traffic
    difference: float  # of the values that one process and the ranks find


def part(problem: Problem, rank: int, size: int) -> Problem:
    """The rank's share of the labels, and what belongs to them."""
    rows = problem.targets.shape[0]
    begin, end = rows * rank // size, rows * (rank + 1) // size
    classes = problem.logits.shape[-1] if problem.logits.dim() > problem.targets.dim() else 0
    positive = problem.targets < classes if classes else problem.targets > 0
    first, last = int(positive[:begin].sum()), int(positive[:end].sum())
    own = problem.logits[begin:end], problem.loc_errors[first:last]
    logits, loc_errors = (tensor.detach().clone().requires_grad_() for tensor in own)
    return Problem(logits, problem.targets[begin:end].clone(), loc_errors)


def step(loss: Loss, problem: Problem, algorithm: str, group: Any) -> float:
    """Forward and backward; the value."""
    total = loss.call(loss.ours, problem, algorithm=algorithm, group=group).total
    torch.autograd.grad(total, loss.inputs(problem))
    return float(total.detach())


def timed(loss: Loss, problem: Problem, options: Namespace, group: Any) -> tuple[float, float, Traffic]:
    """(median seconds, value, what one step sends)"""
    step(loss, problem, options.algorithm, group)
    with traffic() as sent:
        value = step(loss, problem, options.algorithm, group)
    samples = []
    for _ in range(options.repeat):
        if group is not None:
            dist.barrier(group)
        begin = time.perf_counter()
        step(loss, problem, options.algorithm, group)
        samples.append(time.perf_counter() - begin)
    return median(samples), value, sent


def threads_of_a_rank(world: int) -> int:
    return max(1, (os.cpu_count() or 1) // world)


def serve(rank: int, options: Namespace, folder: str) -> None:
    """What one rank does; the first leaves the cells in the folder."""
    world = options.world
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    group = dist.group.WORLD
    torch.set_num_threads(threads_of_a_rank(world))
    cells = []
    for case in selected(options):
        whole = case.draw()
        for name in options.losses:
            loss = LOSSES[name]
            problem = loss.labelled(whole)
            alone, value = 0.0, 0.0
            if rank == 0:  # the others wait
                alone, value, _ = timed(loss, problem, options, None)
            dist.barrier(group)
            seconds, found, sent = timed(loss, part(problem, rank, world), options, group)
            if rank == 0:
                cells.append(Cell(name, case, alone, seconds, sent, abs(found - value)))
    if rank == 0:
        (Path(folder) / "cells").write_bytes(pickle.dumps(cells))
    dist.barrier(group)
    dist.destroy_process_group()


def measure(options: Namespace) -> list[Cell]:
    """Every loss on every case."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(serve, (options, folder), nprocs=options.world)  # type: ignore[no-untyped-call]
        cells: list[Cell] = pickle.loads((Path(folder) / "cells").read_bytes())
    return cells


def run(options: Namespace, out: Console) -> int:
    """Measure and print; returns the exit status."""
    cells = measure(options)
    share = 1 / options.world
    columns = {
        "loss": lambda cell: cell.loss,
        "regime": lambda cell: cell.case.regime,
        "N": lambda cell: size(cell.case),
        "P": lambda cell: number(cell.case.positives),
        "one rank, ms": lambda cell: figure(1e3 * cell.alone),
        f"{options.world} ranks, ms": lambda cell: figure(1e3 * cell.together),
        "sent, KiB": lambda cell: figure(cell.sent.bytes / 1024),
        "collectives": lambda cell: str(cell.sent.collectives),
        "logits of a rank, KiB": lambda cell: figure(cell.case.logits * share * cell.case.dtype.itemsize / 1024),
        "difference": lambda cell: f"{cell.difference:.1e}",
    }
    title = f"{options.world} ranks of {threads_of_a_rank(options.world)} threads: a step, and what a rank hands to collectives"
    print_columns(out, title, columns, cells)
    wrong = [cell for cell in cells if cell.difference > 1e-6]
    for cell in wrong:
        out.print(f"disagreement: {cell.loss}, {cell.case}: {cell.difference:.1e} of 1e-06", style="red")
    return 1 if wrong else 0
