"""A trainer of two processes without a GPU, and what they write of themselves; a module of its own, which workers import."""

import json
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from ultralytics.cfg import DEFAULT_CFG
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import LOCAL_RANK, RANK
from ultralytics.utils.torch_utils import unwrap_model

RANKS = 2


class GlooTrainer(DetectionTrainer):
    """Starts workers as for GPUs, and joins them by gloo."""

    def __init__(self, cfg=DEFAULT_CFG, overrides=None, _callbacks=None):
        super().__init__(cfg, overrides, _callbacks)
        self.world_size = RANKS  # which the framework counts as 0 on a CPU
        self.ddp = LOCAL_RANK == -1

    def _setup_ddp(self):
        dist.init_process_group("gloo", rank=RANK, world_size=RANKS)
        plain = nn.parallel.DistributedDataParallel
        nn.parallel.DistributedDataParallel = lambda module, device_ids, **options: plain(module, **options)

    def final_eval(self):
        """Left out: it asks for each process's GPU."""


class Diary:
    """Callbacks that write what a process saw, for the test to read."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.steps, self.weights = folder, [], []

    def after_batch(self, trainer):
        items = {name: float(value) for name, value in trainer.loss_items.items()}
        self.steps.append({"loss": float(trainer.loss), **items})

    def after_epoch(self, trainer):
        self.weights.append(float(unwrap_model(trainer.model).criterion.loss.ranking.balance.weight))

    def at_the_end(self, trainer):
        parameters = torch.cat([p.detach().double().flatten() for p in trainer.model.parameters()])
        page = {"steps": self.steps, "weights": self.weights, "parameters": [float(parameters.sum()), float(parameters.norm())]}
        (self.folder / f"rank{RANK}.json").write_text(json.dumps(page))
