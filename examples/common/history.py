"""How a run went."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class History:
    """How a run went; written to history.json when it is complete."""

    run: dict[str, Any]
    losses: dict[str, list[float]] = field(default_factory=dict)  # by their names, one an iteration
    gradient_balance: list[float] = field(default_factory=list)  # one an iteration, of dense heads' class logits
    seconds: list[float] = field(default_factory=list)  # of an iteration: forward, backward and the optimiser's step
    loss_seconds: list[float] = field(default_factory=list)  # of these, in the losses
    evaluations: list[dict[str, float]] = field(default_factory=list)  # one an epoch

    def add_step(self, losses: dict[str, float], seconds: float, loss_seconds: float, balance: float | None) -> None:
        self.seconds.append(seconds)
        self.loss_seconds.append(loss_seconds)
        if balance is not None:
            self.gradient_balance.append(balance)
        for name, value in losses.items():
            self.losses.setdefault(name, []).append(value)

    def describe_epoch(self, iterations: int) -> str:
        """The last epoch in a line: means of its losses, and its evaluation."""
        recent = {name: float(np.mean(values[-iterations:])) for name, values in self.losses.items()}
        numbers = {**recent, **self.evaluations[-1]}
        shown = "  ".join(f"{name} {value:.3f}" for name, value in numbers.items())
        return f"epoch {len(self.evaluations):2d}  {shown}"
