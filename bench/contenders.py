"""Who is measured: for each loss our forms, the reference and the loop; and for all of them Focal Loss, eager and compiled, and
a copy."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import alrp_cuda
import alrp_cuda.reference

from . import per_positive_loop
from .cases import Problem
from .focal_loss import compiled_focal_loss, focal_loss


class Outputs(NamedTuple):
    """What a loss says: the scalar that one trains on, and everything that is compared."""

    total: Tensor
    values: dict[str, Tensor]


Compute = Callable[..., Any]


@dataclass(frozen=True)
class Loss:
    """One loss: its function has the same name in ``alrp_cuda``, in the reference and in the loop.

    ``arguments`` are the fields of a :class:`Problem` that it takes, in its order. ``trained`` are the outputs whose sum one
    trains on; a loss that returns a tensor has the one output "loss". ``options`` are what every form is called with, and
    ``continuous`` says that the labels it takes are.
    """

    title: str
    function: str
    arguments: tuple[str, ...]
    trained: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    continuous: bool = False

    @property
    def ours(self) -> Compute:
        return self._of(alrp_cuda)

    @property
    def reference(self) -> Compute:
        return self._of(alrp_cuda.reference)

    @property
    def loop(self) -> Compute:
        return self._of(per_positive_loop)

    def _of(self, module: object) -> Compute:
        function: Compute = getattr(module, self.function)
        return function

    def labelled(self, problem: Problem) -> Problem:
        """The problem with labels that the loss takes, to be made outside of what is timed."""
        return problem.with_continuous_labels() if self.continuous else problem

    def _given(self, problem: Problem) -> list[Tensor]:
        return [getattr(problem, name) for name in self.arguments]

    def inputs(self, problem: Problem) -> list[Tensor]:
        """Those of the arguments that get a gradient."""
        return [tensor for tensor in self._given(problem) if tensor.requires_grad]

    def told(self, problem: Problem) -> dict[str, int]:
        """The number of positives, where a device would be waited for that counts them: a CUDA graph cannot hold that. Errors
        tell it too."""
        return {"num_positives": problem.positives} if problem.logits.is_cuda and "loc_errors" not in self.arguments else {}

    def bind(self, function: Compute, problem: Problem, **options: Any) -> Callable[[], Any]:
        """One form of the loss with its arguments, to be called as a user would."""
        return partial(function, *self._given(problem), **self.options, **options)

    def total(self, out: Any) -> Tensor:
        """The scalar that one trains on, of what a form returned."""
        if isinstance(out, Tensor):
            return out
        first, *others = self.trained
        total: Tensor = getattr(out, first)
        for name in others:
            total = total + getattr(out, name)
        return total

    def call(self, function: Compute, problem: Problem, **options: Any) -> Outputs:
        """What one form returns, by name."""
        out = self.bind(function, problem, **options)()
        return Outputs(self.total(out), {"loss": out} if isinstance(out, Tensor) else out._asdict())


ARGUMENTS = ("logits", "targets")
ALRP_ARGUMENTS = (*ARGUMENTS, "loc_errors")
LOSSES = {
    "alrp": Loss("aLRP Loss", "alrp_loss", ALRP_ARGUMENTS, ("cls", "loc")),
    "alrp_hard": Loss("aLRP Loss, hard order", "alrp_loss", ALRP_ARGUMENTS, ("cls", "loc"), {"order": "hard"}),
    "ap": Loss("AP Loss", "ap_loss", ARGUMENTS, ("loss",)),
    "ap_interpolated": Loss("AP Loss, interpolated", "ap_loss", ARGUMENTS, ("loss",), {"interpolate": True}),
    "ndcg": Loss("NDCG Loss", "ndcg_loss", ARGUMENTS, ("loss",)),
    "rank_sort": Loss("Rank & Sort Loss", "rank_sort_loss", ARGUMENTS, ("rank", "sort"), continuous=True),
}

Step = Callable[[], object]


def training_step(loss: Loss, function: Compute, problem: Problem, **options: str | int) -> Step:
    """Forward and backward of one form; gradients are returned, not accumulated, so that calls leave nothing behind."""
    inputs, forward = loss.inputs(problem), loss.bind(function, problem, **options)
    return lambda: torch.autograd.grad(loss.total(forward()), inputs)


def focal_step(problem: Problem) -> Step:
    """Forward and backward of Focal Loss; its one-hot targets are made here, outside what is timed."""
    one_hot = (problem.with_flat_labels().targets > 0).to(problem.logits.dtype)
    return lambda: torch.autograd.grad(focal_loss(problem.logits, one_hot, problem.positives), problem.logits)


def compiled_focal_step(problem: Problem) -> Step:
    """The same by torch.compile, from the labels as they are; both passes are compiled here, outside what is timed."""
    # A tensor: as a number it would be compiled in, anew for each.
    positives = torch.tensor(float(problem.positives), device=problem.logits.device)
    function = compiled_focal_loss()

    def step() -> object:
        return torch.autograd.grad(function(problem.logits, problem.targets, positives), problem.logits)

    step()
    return step


def copy_step(problem: Problem) -> Step:
    """One read and one write of the logits, into memory that is there already."""
    source = problem.logits.detach()
    out = torch.empty_like(source)
    return lambda: out.copy_(source)


# In the order of the tables' columns.
CONTENDERS = ("ours", "tiled", "focal", "compiled focal", "loop", "reference", "copy")
# Those that make no host wait for a device: a CUDA graph can hold them.
WAITING_FOR_NOTHING = ("ours", "tiled", "focal", "compiled focal", "copy")


def make_step(name: str, loss: Loss, problem: Problem, algorithm: str) -> Step:
    """What one contender is timed at; "ours" is the form that ``algorithm`` names. The problem is labelled for the loss;
    flat labels are made outside of the step."""
    match name:
        case "ours":
            return training_step(loss, loss.ours, problem, algorithm=algorithm, **loss.told(problem))
        case "tiled":
            return training_step(loss, loss.ours, problem, algorithm="tiled", **loss.told(problem))
        case "focal":
            return focal_step(problem)
        case "compiled focal":
            return compiled_focal_step(problem)
        case "loop":
            return training_step(loss, loss.loop, problem.with_flat_labels())
        case "reference":
            return training_step(loss, loss.reference, problem)
        case "copy":
            return copy_step(problem)
    raise ValueError(f"name must be one of {', '.join(CONTENDERS)}, got {name!r}")


def make_steps(names: Collection[str], loss: Loss, problem: Problem, algorithm: str) -> dict[str, Step]:
    """The steps of some contenders on one problem, in the order of the tables."""
    return {name: make_step(name, loss, problem, algorithm) for name in CONTENDERS if name in names}
