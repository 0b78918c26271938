"""Inputs that are the same bits on every machine: integer arithmetic, and sums that doubles hold exactly.

torch.randn is not: its logarithm depends on the vector instructions at hand, and one logit that moves by one unit in
its last place may take another branch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..cases import DTYPES, REGIMES, Problem
from ..contenders import LOSSES


@dataclass(frozen=True)
class Case:
    """One loss on N logits, P of them positive. ``classes`` 0: an int8 label for each logit; C: class indices, int64, over
    rows of C logits, where N is cut to whole rows. A loss of continuous labels gets these made of either."""

    logits: int
    positives: int
    regime: str = "dense"
    dtype: str = "float32"
    loss: str = "alrp"
    algorithm: str = "auto"
    classes: int = 0

    def __post_init__(self) -> None:
        if self.classes:
            object.__setattr__(self, "logits", self.logits // self.classes * self.classes)
        if self.positives > self.labels:
            raise ValueError(f"{self.positives} positives need as many labels, there are {self.labels}")

    def __str__(self) -> str:
        labels = f"{self.classes} classes" if self.classes else "flat labels"
        if LOSSES[self.loss].continuous:
            labels = "continuous labels"
        sizes = f"N = {self.logits}, P = {self.positives}"
        return f"{self.loss} {self.algorithm}, {self.regime}, {self.dtype}, {labels}, {sizes}"

    @property
    def labels(self) -> int:
        return self.logits // (self.classes or 1)

    @property
    def label_bytes(self) -> int:
        if LOSSES[self.loss].continuous:
            return self.logits * self._loc_error_dtype.itemsize
        return self.labels * (8 if self.classes else 1)

    @property
    def _loc_error_dtype(self) -> torch.dtype:
        return torch.promote_types(DTYPES[self.dtype], torch.float32)

    @property
    def logit_bytes(self) -> int:
        return self.logits * DTYPES[self.dtype].itemsize

    def draw(self) -> Problem:
        """The tensors; the positives are spread over the labels without order."""
        order = _uniform(self.labels, 0).argsort(stable=True)[: self.positives].sort().values
        if self.classes:
            targets = torch.full((self.labels,), self.classes, dtype=torch.int64)
            targets[order] = _integers(self.positives, 1) % self.classes
            index = order * self.classes + targets[order]
        else:
            targets = torch.zeros(self.labels, dtype=torch.int8)
            targets[order] = 1
            index = order
        logits = _normal(self.logits, 2) + REGIMES[self.regime]
        logits[index] = _normal(self.positives, 3) * 1.5 - 2
        if self.classes:
            logits = logits.view(-1, self.classes)
        loc_errors = _uniform(self.positives, 4).to(self._loc_error_dtype)
        return Problem(logits.to(DTYPES[self.dtype]).requires_grad_(), targets, loc_errors.requires_grad_())


def _integers(count: int, stream: int) -> Tensor:
    """Integers below 2^24: the high bits of a hash (splitmix64) of 0, 1, 2, ...; int64 wraps."""
    x = (torch.arange(count, dtype=torch.int64) + (stream << 40) + 1) * -0x61C8864680B583EB
    x = (x ^ _shifted(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shifted(x, 27)) * -0x6B2FB644ECCEEE15
    return _shifted(x ^ _shifted(x, 31), 40)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _uniform(count: int, stream: int) -> Tensor:
    """In [0, 1), a multiple of 2^-24."""
    return _integers(count, stream) * 2.0**-24


def _normal(count: int, stream: int) -> Tensor:
    """Nearly N(0, 1): the sum of 12 uniforms less 6, a multiple of 2^-24. Float64."""
    return _integers(12 * count, stream).view(12, count).sum(0) * 2.0**-24 - 6
