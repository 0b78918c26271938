"""Training one detector, which can be stopped at any time and goes on after its last whole epoch."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..common.checkpoints import read_checkpoint, write_checkpoint
from ..common.evaluation import Detections, Measured, measure, real
from ..common.history import History
from ..common.logs import log_epoch, make_writer, progress_bar
from ..common.watch import GradientWatch, LossClock, now, watched
from .backbones import Backbone
from .data import Data, View
from .features import Features
from .losses import set_loss, total_for_ddp
from .models import channels_of, make_detector
from .processes import Processes

LEARNING_RATES = {"adamw": 1e-3, "sgd": 1e-2}


@dataclass(frozen=True)
class Run:
    """All that decides what a run computes."""

    data: str  # name of the folder
    detector: str = "retinanet"
    loss: str = "alrp-giou-self"
    backbone: str = "efficientnet-lite0"
    weights: str = "imagenet"  # or "none"
    freeze: bool = True
    size: int = 320  # pixels of the long side
    seed: int = 0  # of weights and of the order of images
    optimizer: str = "adamw"
    learning_rate: float = LEARNING_RATES["adamw"]  # the highest
    weight_decay: float = 1e-4
    clip: float = 10.0  # norm of the gradient; 0: any
    epochs: int = 16
    batch: int = 8  # of all processes
    amp: bool = False
    held_out: bool = False  # evaluate on a part of the training images, to choose settings by
    device: str = "cpu"
    processes: int = 1


@dataclass
class Evaluation:
    """The validation images' detections, in their own pixels, and how good they are."""

    detections: Detections
    measured: Measured
    numbers: dict[str, float]


def make_optimizer(run: Run, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if run.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=run.learning_rate, momentum=0.9, weight_decay=run.weight_decay)
    return torch.optim.AdamW(parameters, lr=run.learning_rate, weight_decay=run.weight_decay)


class Trainer:
    """A run's state, and how it is saved."""

    def __init__(self, run: Run, data: Data, folder: Path, processes: Processes, device: torch.device, kept: int) -> None:
        self.run, self.data, self.folder, self.processes, self.device = run, data, folder, processes, device
        each = run.batch // run.processes
        self.iterations = len(data.training) // run.batch  # of an epoch
        self.mine = slice(processes.rank * each, (processes.rank + 1) * each)  # of a batch
        torch.manual_seed(run.seed)
        backbone = Backbone(run.backbone, run.weights == "imagenet", run.freeze, channels_of(run.detector))
        self.model = make_detector(run.detector, backbone, len(data.names), run.size).to(device)
        set_loss(run.loss, self.model, self.iterations, processes.group)
        self.features = Features(backbone, run.size, kept) if run.freeze else None
        self.call: nn.Module = self.model if processes.group is None else DistributedDataParallel(self.model)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(run, self.parameters)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, run.learning_rate, total_steps=run.epochs * self.iterations, pct_start=0.1, cycle_momentum=False
        )
        half = torch.bfloat16 if device.type == "cpu" or torch.cuda.is_bf16_supported() else torch.float16
        self.half = half if run.amp else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.half == torch.float16)
        self.rng = np.random.default_rng([run.seed, 1])  # the same in all processes
        torch.manual_seed(run.seed + 1000 * processes.rank)  # of what a process samples from its own images
        self.history = History(asdict(run))

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Everything that training goes on from. At an epoch's end all processes have the same but for random numbers."""
        of_device = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        random = self.processes.gather([torch.get_rng_state(), *of_device])
        if not self.processes.first:
            return
        state = {
            "model": self.model.state_dict(),  # with the state of self-balancing
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random,
            "order": self.rng.bit_generator.state,
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
        self.scaler.load_state_dict(state["scaler"])
        of_host, *of_device = state["random"][self.processes.rank]
        torch.set_rng_state(of_host)
        for random in of_device:
            torch.cuda.set_rng_state(random, self.device)
        self.rng.bit_generator.state = state["order"]
        self.history = History(**state["history"])
        return len(self.history.evaluations)

    def batches(self) -> Iterator[list[View]]:
        """An epoch's views for this process: every image once, in random order, as it is or mirrored; a rest is left out."""
        order = self.rng.permutation(len(self.data.training))
        mirrored = self.rng.random(len(order)) < 0.5
        views = [View(self.data.training[i], bool(mirrored[i])) for i in order]
        for k in range(self.iterations):
            yield views[k * self.run.batch : (k + 1) * self.run.batch][self.mine]

    def images(self, views: list[View]) -> list[Tensor]:
        """What the model takes. Where the network's features are at hand, which the backbone is given, nothing but the shape."""
        size = self.run.size
        if self.features is None:
            return [view.image(size).to(self.device) for view in views]
        self.features.backbone.given = self.features.batch(views)
        return [torch.zeros((), device=self.device).expand(3, *view.shape(size)) for view in views]

    def precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.half, enabled=self.half is not None)

    def step(self, views: list[View], clock: LossClock, gradients: GradientWatch) -> None:
        targets = [{name: value.to(self.device) for name, value in view.target(self.run.size).items()} for view in views]
        images = self.images(views)
        start = now(self.device)
        with self.precision():
            losses = self.call(images, targets)
        self.optimizer.zero_grad()
        self.scaler.scale(total_for_ddp(self.run.loss, losses, self.processes.group)).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.parameters, self.run.clip or torch.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        seconds = now(self.device) - start
        values = {name: value.item() for name, value in losses.items()}
        self.history.add_step(values, seconds, clock.take(), gradients.take())
        self.schedule.step()

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Each process looks at a part of the images; all of them learn the result."""
        self.model.eval()
        views = [View(picture) for picture in self.data.validation]
        mine = views[self.processes.rank :: self.processes.count]
        found: Detections = []
        for i in range(0, len(mine), 8):
            batch = mine[i : i + 8]
            for view, detected in zip(batch, self.model(self.images(batch)), strict=True):
                cpu = {name: value.cpu() for name, value in real(detected).items()}
                found.append({**cpu, "boxes": cpu["boxes"] / view.scale(self.run.size)})
        parts = self.processes.gather(found)
        detections = [parts[i % len(parts)][i // len(parts)] for i in range(len(views))]
        targets = [picture.target() for picture in self.data.validation]
        measured = measure(detections, targets, [(p.width, p.height) for p in self.data.validation], self.data.names)
        components = {f"oLRP_{name}": getattr(measured.lrp, name).item() for name in ("loc", "fp", "fn")}
        return Evaluation(detections, measured, {**measured.numbers, **components})


def train(
    run: Run, data: Data, folder: Path, console: Console, processes: Processes, device: torch.device, kept: int
) -> tuple[History, Evaluation]:
    """Train and evaluate after each epoch, from where an earlier call was stopped.

    Leaves the weights in model.pt and the history in history.json. ``kept``: bytes for features of a frozen network.

    Returns:
        The history, and the last evaluation.
    """
    if run.batch % run.processes:
        raise ValueError(f"--batch must be a multiple of the number of processes, {run.processes}, got {run.batch}")
    if run.batch > len(data.training):
        raise ValueError(f"--batch must be at most the number of training images, {len(data.training)}, got {run.batch}")
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(run, data, folder, processes, device, kept)
    done = trainer.resume()
    history, iterations = trainer.history, trainer.iterations
    writer = make_writer(folder, done * iterations) if processes.first else None
    with progress_bar(console) as progress, watched(trainer.model, 1 + len(data.names)) as watches:
        bar = progress.add_task(run.loss, total=run.epochs * iterations, completed=done * iterations)
        for epoch in range(done + 1, run.epochs + 1):
            trainer.model.train()
            for views in trainer.batches():
                trainer.step(views, *watches)
                progress.advance(bar)
            evaluation = trainer.evaluate()
            history.evaluations.append(evaluation.numbers)
            if writer is not None:  # before saving: what is logged twice is purged, what is not logged would be lost
                log_epoch(writer, history, (epoch - 1) * iterations)
            trainer.save()
            console.print(history.describe_epoch(iterations), highlight=False, soft_wrap=True)
    if done == run.epochs:  # stopped between the last epoch and what follows it
        evaluation = trainer.evaluate()
    processes.gather(None)  # none is left waiting for a process that fails while it writes
    if processes.first:
        write_checkpoint(trainer.model.state_dict(), folder / "model.pt")
        (folder / "history.json").write_text(json.dumps(asdict(history)))
        trainer.checkpoint.unlink()  # a complete run that is called again, or another one there, starts anew
    return history, evaluation
