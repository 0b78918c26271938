"""Training one detector, which can be stopped at any time and goes on after its last whole epoch."""

import importlib.util
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from .data import Batch, make_batch, split_digits
from .evaluation import Evaluation, evaluate
from .losses import LOSSES
from .models import DETECTORS, Detector
from .watch import GradientWatch, LossClock, watched

BATCH = 8


@dataclass(frozen=True)
class Run:
    """All that decides what a run computes."""

    detector: str = "retinanet"
    loss: str = "alrp-giou-self"
    seed: int = 0  # of canvases and weights
    learning_rate: float = 1e-3  # the highest; what the exhibit finds for this loss
    epochs: int = 8
    iterations: int = 100  # of an epoch
    canvases: int = 200  # to evaluate on
    held_out: bool = False  # evaluate on digits held out of training, to choose settings by


@dataclass
class History:
    """How a run went; written to history.json when it is complete."""

    run: dict[str, Any]
    losses: dict[str, list[float]] = field(default_factory=dict)  # by their names, one an iteration
    gradient_balance: list[float] = field(default_factory=list)  # one an iteration, of dense heads' class logits
    seconds: list[float] = field(default_factory=list)  # of an iteration: forward, backward and the optimiser's step
    loss_seconds: list[float] = field(default_factory=list)  # of these, in the losses
    evaluations: list[dict[str, float]] = field(default_factory=list)  # one an epoch


class Trainer:
    """A run's state, and how it is saved."""

    def __init__(self, run: Run, folder: Path) -> None:
        self.run, self.folder = run, folder
        torch.manual_seed(run.seed)
        self.model: Detector = DETECTORS[run.detector]()
        LOSSES[run.loss](self.model, run.iterations)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=run.learning_rate, weight_decay=1e-4)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, run.learning_rate, total_steps=run.epochs * run.iterations, pct_start=0.25
        )
        self.rng = np.random.default_rng([run.seed, 1])
        self.history = History(asdict(run))

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Everything that training goes on from; a stop while writing leaves the last one as it was."""
        state = {
            "model": self.model.state_dict(),  # with the state of self-balancing
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "torch": torch.get_rng_state(),
            "canvases": self.rng.bit_generator.state,
            "history": asdict(self.history),
        }
        new = self.checkpoint.with_suffix(".new")
        torch.save(state, new)
        os.replace(new, self.checkpoint)

    def resume(self) -> int:
        """Load what was saved, if anything was by the same run; returns the number of epochs that are done."""
        if not self.checkpoint.exists():
            return 0
        state = torch.load(self.checkpoint, weights_only=True)
        if state["history"]["run"] != self.history.run:
            raise ValueError(f"{self.checkpoint} must be of {self.history.run}, got {state['history']['run']}")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["torch"])
        self.rng.bit_generator.state = state["canvases"]
        self.history = History(**state["history"])
        return len(self.history.evaluations)

    def step(self, batch: Batch, clock: LossClock, gradients: GradientWatch) -> None:
        start = time.perf_counter()
        losses = self.model(*batch)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimizer.step()
        history = self.history
        history.seconds.append(time.perf_counter() - start)
        history.loss_seconds.append(clock.take())
        balance = gradients.take()
        if balance is not None:
            history.gradient_balance.append(balance)
        for name, value in losses.items():
            history.losses.setdefault(name, []).append(value.item())
        self.schedule.step()


def make_writer(folder: Path, iteration: int) -> Any:
    """Where TensorBoard will look, from this iteration on; None where it is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=iteration)


def log_epoch(writer: Any, history: History, first: int) -> None:
    """Give TensorBoard the iterations from ``first`` on and the evaluation that ended them."""
    for name, values in (*history.losses.items(), ("gradient_balance", history.gradient_balance)):
        for iteration, value in enumerate(values[first:], first):
            writer.add_scalar(f"training/{name}", value, iteration)
    for name, value in history.evaluations[-1].items():
        writer.add_scalar(f"validation/{name}", value, len(history.seconds))
    writer.flush()


def train(run: Run, folder: Path, console: Console) -> tuple[History, Evaluation]:
    """Train on fresh canvases and evaluate after each epoch on fixed ones, from where an earlier call was stopped.

    Returns:
        The history, and the last evaluation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training, others = split_digits(run.held_out)
    canvases = make_batch(others, run.canvases, np.random.default_rng(0))
    trainer = Trainer(run, folder)
    done = trainer.resume()
    history = trainer.history
    writer = make_writer(folder, done * run.iterations)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        watched(trainer.model) as watches,
    ):
        bar = progress.add_task(run.loss, total=run.epochs * run.iterations, completed=done * run.iterations)
        for epoch in range(done + 1, run.epochs + 1):
            trainer.model.train()
            for _ in range(run.iterations):
                trainer.step(make_batch(training, BATCH, trainer.rng), *watches)
                progress.advance(bar)
            evaluation = evaluate(trainer.model, canvases)
            history.evaluations.append(evaluation.numbers)
            if writer is not None:  # before saving: what is logged twice is purged, what is not logged would be lost
                log_epoch(writer, history, (epoch - 1) * run.iterations)
            trainer.save()
            recent = {name: float(np.mean(values[-run.iterations :])) for name, values in history.losses.items()}
            numbers = {**recent, **evaluation.numbers}
            shown = "  ".join(f"{name} {value:.3f}" for name, value in numbers.items())
            console.print(f"epoch {epoch:2d}  {shown}", highlight=False, soft_wrap=True)
    if done == run.epochs:  # stopped between the last epoch and what follows it
        evaluation = evaluate(trainer.model, canvases)
    (folder / "history.json").write_text(json.dumps(asdict(history)))
    trainer.checkpoint.unlink()  # a complete run that is called again, or another one there, starts anew
    return history, evaluation
