"""Detectors with a ranking loss under DistributedDataParallel, on two of three processes."""

# ruff: noqa: E402 (torchvision is optional, and what follows imports it)

import pytest

torchvision = pytest.importorskip("torchvision")

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectors import CASES, batch, ready
from torch.nn.parallel import DistributedDataParallel

from alrp_cuda import SelfBalance
from alrp_cuda.integrations.torchvision import use_alrp

RANKS = 2
EPOCH = 2


def mine(rank: int, first_label: int):
    """What a rank trains on; the second has an image without objects, then nothing else."""
    return [batch(2, 3, seed=rank, first_label=first_label), batch(*((1,) if rank == 0 else (0, 0)), first_label=first_label)]


def averaged(name: str) -> dict[str, torch.Tensor]:
    """The mean over the ranks of the first batches' gradients, in one process."""
    sums: dict[str, torch.Tensor] = {}
    for rank in range(RANKS):
        model, _ = ready(name, 0, balance="self")
        for images, targets in mine(rank, CASES[name][2]):
            sum(model(images, targets).values()).backward()
        for key, parameter in model.named_parameters():
            sums[key] = sums.get(key, 0) + parameter.grad / RANKS
    return sums


def train(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS + 1)
    group = dist.new_group(range(RANKS))
    if rank == RANKS:  # has other things to do
        return
    for name in ("retinanet atss", "fcos", "ssd", "faster rcnn"):
        build, own, first_label = CASES[name]
        model = use_alrp(build(), **own, balance="self", epoch_length=EPOCH, balance_group=group)
        wrapped = DistributedDataParallel(model, process_group=group)  # with buffers broadcast, as is the default
        sums = {key: torch.zeros(2) for key, m in model.named_modules() if isinstance(m, SelfBalance)}
        for images, targets in mine(rank, first_label):
            losses = wrapped(images, targets)
            sum(losses.values()).backward()
            values = [float(v.detach()) for v in losses.values()]
            if len(sums) == 1:
                cls, box = (float(losses[key].detach()) for key in ("classification", "bbox_regression"))
                sums["head.ranking.balance" if name != "ssd" else "ranking.balance"] += torch.tensor([cls, box])
            else:
                sums["roi_heads.ranking.balance"] += torch.tensor(values[:2])
                sums["rpn.ranking.balance"] += torch.tensor(values[2:]) / 0.2
        expected = averaged(name)
        for key, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-4, atol=1e-5)
        # Each rank counted its own losses, and the end of the epoch added them up.
        for key, total in sums.items():
            dist.all_reduce(total, group=group)
            weight = model.get_submodule(key).weight
            torch.testing.assert_close(weight, (total.sum() / total[1]).double(), rtol=1e-5, atol=0)
    # One ranking over the ranks: the losses are those of one process with all images.
    for loss in ("alrp", "rank_sort"):
        parts = [batch(2, 3, seed=k) for k in range(RANKS)]
        alone, _ = ready("retinanet", 0, loss=loss)
        expected = alone(*(first + second for first, second in zip(*parts, strict=True)))
        together, _ = ready("retinanet", 0, loss=loss, group=group)
        found = together(*parts[rank])
        torch.testing.assert_close(found["classification"], expected["classification"], rtol=1e-5, atol=0)
        if loss == "alrp":
            torch.testing.assert_close(found["bbox_regression"], expected["bbox_regression"], rtol=1e-5, atol=0)
    dist.destroy_process_group()


@pytest.mark.slow
def test_ranks_train_together(tmp_path):
    mp.spawn(train, (str(tmp_path / "store"),), nprocs=RANKS + 1)
