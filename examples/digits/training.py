"""Training one detector, which can be stopped at any time and goes on after its last whole epoch."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import nn

from ..common.checkpoints import read_checkpoint, write_checkpoint
from ..common.history import History
from ..common.logs import log_epoch, make_writer, progress_bar
from ..common.losses import Detector
from ..common.watch import GradientWatch, LossClock, watched
from .data import CLASSES, Batch, make_batch, split_digits
from .evaluation import Evaluation, evaluate
from .losses import LOSSES
from .models import DETECTORS

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
        """Everything that training goes on from."""
        state = {
            "model": self.model.state_dict(),  # with the state of self-balancing
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "torch": torch.get_rng_state(),
            "canvases": self.rng.bit_generator.state,
            "history": asdict(self.history),
        }
        write_checkpoint(state, self.checkpoint)

    def resume(self) -> int:
        """Load what was saved, if anything was by the same run; returns the number of epochs that are done."""
        state = read_checkpoint(self.checkpoint, self.history.run)
        if state is None:
            return 0
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
        seconds = time.perf_counter() - start
        values = {name: value.item() for name, value in losses.items()}
        self.history.add_step(values, seconds, clock.take(), gradients.take())
        self.schedule.step()


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
    with progress_bar(console) as progress, watched(trainer.model, CLASSES) as watches:
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
            console.print(history.describe_epoch(run.iterations), highlight=False, soft_wrap=True)
    if done == run.epochs:  # stopped between the last epoch and what follows it
        evaluation = evaluate(trainer.model, canvases)
    (folder / "history.json").write_text(json.dumps(asdict(history)))
    trainer.checkpoint.unlink()  # a complete run that is called again, or another one there, starts anew
    return history, evaluation
