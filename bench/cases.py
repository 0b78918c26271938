"""What is measured: how many logits, how they are spread, and the tensors drawn from that."""

from dataclasses import dataclass, replace
from math import isqrt

import torch
from torch import Tensor

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

# Mean of the negatives' logits (standard deviation 1); the positives are N(-2, 1.5) in both. Dense: the usual prior of
# 0.01 at the start of training, nearly every negative within reach of a positive. Sparse: about one in eight is.
REGIMES = {"dense": -4.6, "sparse": -9.0}


@dataclass(frozen=True)
class Problem:
    """Tensors that a loss takes. ``targets`` are flat labels; ``loc_errors`` follow the positives' flat index."""

    logits: Tensor
    targets: Tensor
    loc_errors: Tensor

    @property
    def positives(self) -> int:
        return self.loc_errors.numel()

    def in_float64(self) -> "Problem":
        """The same numbers, wide enough to compute the truth from."""
        logits, loc_errors = (t.detach().double().requires_grad_() for t in (self.logits, self.loc_errors))
        return Problem(logits, self.targets, loc_errors)

    def with_fewer_positives(self, count: int) -> "Problem":
        """Keep the lowest positive, which says what negatives are within reach, and the first others.

        The rest become ignored.
        """
        index = (self.targets == 1).nonzero()[:, 0]
        lowest = self.logits.detach()[index].argmin()
        keep = torch.zeros_like(index, dtype=torch.bool)
        keep[: count - 1] = True
        keep[lowest] = True
        targets = self.targets.clone()
        targets[index[~keep]] = -1
        return Problem(self.logits, targets, self.loc_errors.detach()[keep].requires_grad_())


@dataclass(frozen=True)
class Case:
    """N logits in all, P of them positive, drawn for one regime."""

    logits: int
    positives: int
    regime: str
    dtype: torch.dtype
    device: torch.device

    def __str__(self) -> str:
        return f"N = {self.logits}, P = {self.positives}"

    @property
    def pairs(self) -> int:
        return self.logits * self.positives

    def thinner(self, pairs: int) -> "Case":
        """A case of the same kind with at most ``pairs`` pairs, fewer logits before fewer positives."""
        if self.pairs <= pairs:
            return self
        positives = min(self.positives, isqrt(pairs // 4))
        return replace(self, logits=pairs // positives, positives=positives)

    def draw(self) -> Problem:
        """The same numbers on every call and every device: drawn on the CPU from a fixed seed."""
        generator = torch.Generator().manual_seed(20)
        wide = torch.promote_types(self.dtype, torch.float32)
        logits = torch.randn(self.logits, generator=generator, dtype=wide) + REGIMES[self.regime]
        index = torch.randperm(self.logits, generator=generator)[: self.positives].sort().values
        logits[index] = torch.randn(self.positives, generator=generator, dtype=wide) * 1.5 - 2
        targets = torch.zeros(self.logits, dtype=torch.int8)
        targets[index] = 1
        # (1 - IoU) / (1 - tau) for an IoU between tau = 0.5 and 1; models in half types compute boxes in float32 too.
        loc_errors = torch.rand(self.positives, generator=generator, dtype=wide)
        return Problem(
            logits.to(self.device, self.dtype).requires_grad_(),
            targets.to(self.device),
            loc_errors.to(self.device).requires_grad_(),
        )
