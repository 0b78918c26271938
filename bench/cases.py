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

# The least IoU that a positive's box has, from which its localisation error is (1 - IoU) / (1 - tau).
TAU = 0.5


@dataclass(frozen=True)
class Problem:
    """Tensors that a loss takes. ``targets`` label each logit (a positive's label is 1, or its IoU where labels are continuous),
    or each row of logits by the index of its class (background: the number of classes); ``loc_errors`` follow the positives'
    flat index."""

    logits: Tensor
    targets: Tensor
    loc_errors: Tensor

    @property
    def positives(self) -> int:
        return self.loc_errors.numel()

    @property
    def floor_bytes(self) -> int:
        """What both passes move at least: each logit is read twice, its gradient written once, and each label read once."""
        return 3 * self.logits.nbytes + self.targets.nbytes

    def in_float64(self) -> "Problem":
        """The same numbers, wide enough to compute the truth from."""
        logits, loc_errors = (t.detach().double().requires_grad_() for t in (self.logits, self.loc_errors))
        return Problem(logits, self.targets, loc_errors)

    def with_flat_labels(self) -> "Problem":
        """The same problem with a label for each logit, for those who do not know class indices."""
        if self.targets.shape == self.logits.shape:
            return self
        labels = torch.zeros(self.logits.shape, dtype=torch.int8, device=self.logits.device)
        rows = (self.targets < self.logits.shape[-1]).nonzero()[:, 0]
        labels[rows, self.targets[rows]] = 1
        return replace(self, targets=labels)

    def with_continuous_labels(self) -> "Problem":
        """The same problem with the positives' IoUs as their labels, for those who sort by them; of the logits' shape."""
        flat = self.with_flat_labels().targets
        loc_errors = self.loc_errors.detach()
        labels = flat.to(loc_errors.dtype)
        labels[flat > 0] = 1 - (1 - TAU) * loc_errors
        return replace(self, targets=labels)

    def with_fewer_positives(self, count: int) -> "Problem":
        """Keep the lowest positive, which says what negatives are within reach, and the first others.

        The rest become ignored. For labels of the logits' shape.
        """
        targets = self.targets.flatten().clone()
        index = (targets > 0).nonzero()[:, 0]
        lowest = self.logits.detach().flatten()[index].argmin()
        keep = torch.zeros_like(index, dtype=torch.bool)
        keep[: count - 1] = True
        keep[lowest] = True
        targets[index[~keep]] = -1
        return Problem(self.logits, targets.view(self.targets.shape), self.loc_errors.detach()[keep].requires_grad_())


@dataclass(frozen=True)
class Case:
    """N logits in all, P of them positive, drawn for one regime. ``classes`` 0: a label for each logit; C: class indices over
    rows of C logits (the anchors), where N is cut to whole rows."""

    logits: int
    positives: int
    regime: str
    dtype: torch.dtype
    device: torch.device
    classes: int = 0

    def __post_init__(self) -> None:
        if self.classes:
            object.__setattr__(self, "logits", self.logits // self.classes * self.classes)

    def __str__(self) -> str:
        size = f"{self.labels} x {self.classes}" if self.classes else self.logits
        return f"{self.regime}, N = {size}, P = {self.positives}"

    @property
    def labels(self) -> int:
        """How many labels there are, and so how many positives there can be."""
        return self.logits // (self.classes or 1)

    @property
    def pairs(self) -> int:
        return self.logits * self.positives

    def thinner(self, pairs: int) -> "Case":
        """A case of the same kind with at most ``pairs`` pairs, fewer logits before fewer positives."""
        if self.pairs <= pairs:
            return self
        positives = min(self.positives, isqrt(pairs // (4 * (self.classes or 1))))
        return replace(self, logits=pairs // positives, positives=positives)

    def draw(self) -> Problem:
        """The same numbers on every call and every device: drawn on the CPU from a fixed seed."""
        generator = torch.Generator().manual_seed(20)
        wide = torch.promote_types(self.dtype, torch.float32)
        logits = torch.randn(self.logits, generator=generator, dtype=wide) + REGIMES[self.regime]
        labelled = torch.randperm(self.labels, generator=generator)[: self.positives].sort().values
        if self.classes:
            targets = torch.full((self.labels,), self.classes)
            targets[labelled] = torch.randint(self.classes, (self.positives,), generator=generator)
            index = labelled * self.classes + targets[labelled]
        else:
            targets = torch.zeros(self.labels, dtype=torch.int8)
            targets[labelled] = 1
            index = labelled
        logits[index] = torch.randn(self.positives, generator=generator, dtype=wide) * 1.5 - 2
        if self.classes:
            logits = logits.view(self.labels, self.classes)
        # (1 - IoU) / (1 - tau) for an IoU between tau and 1; models in half types compute boxes in float32 too.
        loc_errors = torch.rand(self.positives, generator=generator, dtype=wide)
        return Problem(
            logits.to(self.device, self.dtype).requires_grad_(),
            targets.to(self.device),
            loc_errors.to(self.device).requires_grad_(),
        )
