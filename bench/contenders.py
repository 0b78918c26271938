"""Who is measured: for each loss our form, the reference and the loop; and for all of them Focal Loss and a copy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

import alrp_cuda
import alrp_cuda.reference

from . import per_positive_loop
from .cases import Problem
from .focal_loss import focal_loss


class Outputs(NamedTuple):
    """What a loss says: the scalar that one trains on, and everything that is compared."""

    total: Tensor
    values: dict[str, Tensor]


Compute = Callable[..., Any]


@dataclass(frozen=True)
class Loss:
    """One loss in its three forms. ``call(function, problem, **options)`` hands a form its arguments."""

    title: str
    ours: Compute
    reference: Compute
    loop: Compute
    call: Callable[..., Outputs]
    inputs: Callable[[Problem], tuple[Tensor, ...]]


def _call_alrp(function: Compute, problem: Problem, **options: str) -> Outputs:
    out = function(problem.logits, problem.targets, problem.loc_errors, **options)
    return Outputs(out.cls + out.loc, out._asdict())


def _call_ap(function: Compute, problem: Problem, **options: str) -> Outputs:
    loss = function(problem.logits, problem.targets, **options)
    return Outputs(loss, {"loss": loss})


# `ours` is looked up in alrp_cuda on each call, so that a test can put another function in its place.
LOSSES = {
    "alrp": Loss(
        "aLRP Loss",
        ours=lambda *args, **options: alrp_cuda.alrp_loss(*args, **options),
        reference=alrp_cuda.reference.alrp_loss,
        loop=per_positive_loop.alrp_loss,
        call=_call_alrp,
        inputs=lambda problem: (problem.logits, problem.loc_errors),
    ),
    "ap": Loss(
        "AP Loss",
        ours=lambda *args, **options: alrp_cuda.ap_loss(*args, **options),
        reference=alrp_cuda.reference.ap_loss,
        loop=per_positive_loop.ap_loss,
        call=_call_ap,
        inputs=lambda problem: (problem.logits,),
    ),
}

Step = Callable[[], object]


def training_step(loss: Loss, function: Compute, problem: Problem, **options: str) -> Step:
    """Forward and backward of one form; gradients are returned, not accumulated, so that calls leave nothing behind."""
    inputs = loss.inputs(problem)
    return lambda: torch.autograd.grad(loss.call(function, problem, **options).total, inputs)


def focal_step(problem: Problem) -> Step:
    """Forward and backward of Focal Loss; its one-hot targets are made here, outside what is timed."""
    one_hot = (problem.targets == 1).to(problem.logits.dtype)
    return lambda: torch.autograd.grad(focal_loss(problem.logits, one_hot, problem.positives), problem.logits)


def copy_step(problem: Problem) -> Step:
    """One read and one write of the logits, into memory that is there already."""
    source = problem.logits.detach()
    out = torch.empty_like(source)
    return lambda: out.copy_(source)


def steps(loss: Loss, problem: Problem, algorithm: str, *, reference: bool, loop: bool) -> dict[str, Step]:
    """Everyone to be measured on a problem, under the names of the table's columns."""
    named = {
        "ours": training_step(loss, loss.ours, problem, algorithm=algorithm),
        "focal": focal_step(problem),
    }
    if loop:
        named["loop"] = training_step(loss, loss.loop, problem)
    if reference:
        named["reference"] = training_step(loss, loss.reference, problem)
    return named | {"copy": copy_step(problem)}
