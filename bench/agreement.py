"""Whether our loss says what the reference and the loop say, asked before anything is timed.

Both opponents compute in float64 from the very numbers that our form gets in its own dtype. Compared are every output
and every gradient, by the L2 norm of the difference relative to the opponent's.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .cases import Case, Problem
from .contenders import Compute, Loss
from .limits import REFERENCE_PAIRS

ABSOLUTE = 1e-12
LOGITS_GRADIENT = "gradient of logits"


@dataclass(frozen=True)
class Comparison:
    """Relative errors of our form, by quantity, on one case: a thinner one where the opponent is too slow."""

    opponent: str
    case: Case
    errors: dict[str, float]
    disagreements: list[str]

    def worst(self) -> tuple[float, float]:
        """The error that comes nearest to what it may be, and what it may be."""
        bounds = [(error, allowed(self.case.dtype, name)) for name, error in self.errors.items()]
        return max(bounds, key=lambda pair: pair[0] / pair[1])


def allowed(dtype: torch.dtype, quantity: str) -> float:
    """The relative L2 error that our form may have.

    Half types are read as they are and everything is accumulated as for float32, so outputs are held to float32's
    bound. Only the gradient of the logits is rounded to their dtype at the end, by at most the unit roundoff in each
    element and so in the norm: eps / 2 is 2^-8 for bfloat16 and 2^-11 for float16 (``loss_scale`` prevents underflow).
    """
    if dtype == torch.float64:
        return 1e-12
    rounding = torch.finfo(dtype).eps / 2 if dtype != torch.float32 and quantity == LOGITS_GRADIENT else 0.0
    return 1e-6 + rounding


def loss_scale(dtype: torch.dtype, gradient: Tensor) -> float:
    """What to multiply the loss by before backward, as a gradient scaler does for float16: a negative's gradient, about
    1 / N, would underflow. The power of two that takes the largest gradient of the logits just below 2^14."""
    largest = float(gradient.abs().max())
    if dtype != torch.float16 or largest == 0:
        return 1.0
    return 2.0 ** (13 - math.floor(math.log2(largest)))


def evaluate(loss: Loss, function: Compute, problem: Problem, scale: float = 1.0, **options: str) -> dict[str, Tensor]:
    """Every output and gradient of one form, in float64."""
    outputs = loss.call(function, problem, **options)
    inputs = loss.inputs(problem)
    gradients = torch.autograd.grad(outputs.total, inputs, torch.full_like(outputs.total, scale))
    found = {name: value.detach().double() for name, value in outputs.values.items()}
    for name, gradient in zip((LOGITS_GRADIENT, "gradient of loc_errors"), gradients, strict=False):
        found[name] = gradient.double() / scale
    return found


def compare(loss: Loss, opponent: str, case: Case, problem: Problem, algorithm: str) -> Comparison:
    """Our form in the problem's dtype against ``opponent`` ("reference" or "loop") in float64."""
    given = problem.with_flat_labels() if opponent == "loop" else problem
    truth = evaluate(loss, getattr(loss, opponent), given.in_float64())
    scale = loss_scale(case.dtype, truth[LOGITS_GRADIENT])
    ours = evaluate(loss, loss.ours, problem, scale, algorithm=algorithm)
    errors, disagreements = {}, []
    for name, expected in truth.items():
        found, bound = ours[name], allowed(case.dtype, name)
        if found.shape != expected.shape:
            errors[name] = math.inf
            disagreements.append(f"{case}: {name} has shape {tuple(found.shape)}, {opponent} {tuple(expected.shape)}")
            continue
        difference, size = float((found - expected).norm()), float(expected.norm())
        errors[name] = difference / size if size else difference
        if not difference <= bound * size + ABSOLUTE:  # also where it is NaN
            disagreements.append(f"{case}: {name} is off the {opponent}'s by {errors[name]:.2g} relative L2, allowed {bound:.2g}")
    return Comparison(opponent, case, errors, disagreements)


def check(loss: Loss, case: Case, problem: Problem, algorithm: str, *, loop: bool) -> list[Comparison]:
    """Compare with the reference and with the loop, each on a thinner case where it is too slow for this one.

    ``problem`` is labelled for the loss; ``loop`` says whether the loop is fast enough.
    """
    thin = case.thinner(REFERENCE_PAIRS)
    thin_problem = problem if thin == case else loss.labelled(thin.draw())
    on = (case, problem) if loop else (thin, thin_problem)
    return [compare(loss, "reference", thin, thin_problem, algorithm), compare(loss, "loop", *on, algorithm)]
