"""The per-positive loop: how published code computes ranking losses, and the baseline to beat.

Positives are visited one by one in ascending order of score. Each turn takes the differences to all the positives and
to those negatives that score at least (lowest positive - delta), the others being out of reach of every positive;
clamps them to the step function; sums both; and adds the turn's share to the gradients. O(P * (P + N)) work in some
thirty small PyTorch calls a turn. Any device; half types are computed in float32, since a half cannot count ranks.

The results are those of :mod:`alrp_cuda.reference` for finite scores and errors: infinities and NaN are not treated.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from alrp_cuda.outputs import ALRPOutput, RankSortOutput


class Sides(NamedTuple):
    """The two sides of the ranking, and where in the flat logits they came from."""

    positive_index: Tensor
    negative_index: Tensor
    positives: Tensor
    negatives: Tensor


class Turn(NamedTuple):
    """What one positive sees of the others; ``active`` where its N_FP is large enough to send a gradient."""

    i: int
    over_positives: Tensor
    over_negatives: Tensor
    n_fp: Tensor
    rank_pos: Tensor
    rank: Tensor
    active: Tensor


def take_sides(logits: Tensor, targets: Tensor, delta: float) -> Sides:
    """Split the logits by flat labels above 0, 0 and below; only negatives within reach of some positive are kept."""
    flat = logits.detach().reshape(-1)
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    labels = targets.reshape(-1)
    positive_index = (labels > 0).nonzero()[:, 0]
    positives = flat[positive_index]
    reach = labels == 0
    if positives.numel():
        reach &= flat >= positives.min() - delta
    negative_index = reach.nonzero()[:, 0]
    return Sides(positive_index, negative_index, positives, flat[negative_index])


def step(x: Tensor, delta: float) -> Tensor:
    """H(x): 0 below -delta, 1 above delta, linear between."""
    if delta == 0:
        return (x >= 0).to(x.dtype)
    return torch.clamp(x / (2 * delta) + 0.5, 0, 1)


def turns(sides: Sides, delta: float, eps: float) -> Iterator[Turn]:
    """Visit the positives in ascending order of score (of equal scores the later one first)."""
    ascending = torch.sort(sides.positives, descending=True, stable=True).indices.flip(0)
    for i in ascending.tolist():
        score = sides.positives[i]
        over_positives = step(sides.positives - score, delta)
        over_positives[i] = 0
        over_negatives = step(sides.negatives - score, delta)
        n_fp = over_negatives.sum()
        rank_pos = 1 + over_positives.sum()
        yield Turn(i, over_positives, over_negatives, n_fp, rank_pos, rank_pos + n_fp, n_fp > eps)


class ScoreGradient:
    """Collects dL/ds over the turns: -e(i)/Z on a positive, e(i) H(x_ij) / (Z N_FP(i)) on the negatives above it."""

    def __init__(self, sides: Sides) -> None:
        self.sides = sides
        self.positives = torch.zeros_like(sides.positives)
        self.negatives = torch.zeros_like(sides.negatives)

    def add(self, turn: Turn, error: Tensor) -> None:
        error = torch.where(turn.active, error, 0)
        self.positives[turn.i] = -error
        self.negatives += turn.over_negatives * torch.where(turn.active, error / turn.n_fp, 0)

    def scatter(self, logits: Tensor, z: float | Tensor) -> Tensor:
        gradient = torch.zeros(logits.shape, dtype=self.positives.dtype, device=logits.device)
        flat = gradient.view(-1)
        flat[self.sides.positive_index] = self.positives / z
        flat[self.sides.negative_index] = self.negatives / z
        return gradient


class _ALRPLoop(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, loc_errors: Tensor, delta: float, order: str, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sides = take_sides(logits, targets, delta)
        positives = sides.positives
        z = max(positives.numel(), 1)
        errors = loc_errors.detach().to(positives.dtype)
        gradient = ScoreGradient(sides)
        grad_errors = torch.zeros_like(errors)
        cls, loc = positives.new_zeros(()), positives.new_zeros(())
        rank, precision = torch.zeros_like(positives), torch.zeros_like(positives)
        for turn in turns(sides, delta, eps):
            i = turn.i
            rank[i] = turn.rank
            precision[i] = turn.rank_pos / turn.rank
            cls += turn.n_fp / turn.rank
            errors_above = (turn.over_positives * errors).sum()
            gradient.add(turn, (turn.n_fp + errors_above) / turn.rank)
            if order == "smooth":
                loc += (errors[i] + errors_above) / turn.rank
                grad_errors += turn.over_positives / turn.rank
                grad_errors[i] += 1 / turn.rank
        if order == "hard":
            descending = torch.sort(positives, descending=True, stable=True).indices
            loc = (errors[descending].cumsum(0) / rank[descending]).sum()
            grad_errors[descending] = (1 / rank[descending]).flip(0).cumsum(0).flip(0)
        ctx.save_for_backward(gradient.scatter(logits, z), grad_errors / z)
        ctx.dtypes = logits.dtype, loc_errors.dtype
        ctx.mark_non_differentiable(rank, precision)
        return cls / z, loc / z, rank, precision

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_cls: Tensor, grad_loc: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradient, grad_errors = ctx.saved_tensors
        logits_dtype, errors_dtype = ctx.dtypes
        return (gradient * grad_cls).to(logits_dtype), None, (grad_errors * grad_loc).to(errors_dtype), None, None, None


class _APLoop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, delta: float, interpolate: bool, eps: float) -> Tensor:
        sides = take_sides(logits, targets, delta)
        z = max(sides.positives.numel(), 1)
        gradient = ScoreGradient(sides)
        loss, best = sides.positives.new_zeros(()), sides.positives.new_zeros(())
        for turn in turns(sides, delta, eps):
            error = turn.n_fp / turn.rank
            if interpolate:
                best = torch.maximum(best, turn.rank_pos / turn.rank)
                error = 1 - best
            loss += error
            gradient.add(turn, error)
        ctx.save_for_backward(gradient.scatter(logits, z))
        ctx.dtype = logits.dtype
        return loss / z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_loss).to(ctx.dtype), None, None, None, None


def gain(rank: Tensor) -> Tensor:
    """What NDCG counts a positive of that rank for."""
    return 1 / torch.log2(1 + rank)


class _NDCGLoop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, delta: float, eps: float) -> Tensor:
        sides = take_sides(logits, targets, delta)
        best_ranks = torch.arange(1, sides.positives.numel() + 1, dtype=sides.positives.dtype, device=logits.device)
        z = gain(best_ranks).sum().clamp(min=1)
        gradient = ScoreGradient(sides)
        loss = sides.positives.new_zeros(())
        for turn in turns(sides, delta, eps):
            error = gain(turn.rank_pos) - gain(turn.rank)
            loss += error
            gradient.add(turn, error)
        ctx.save_for_backward(gradient.scatter(logits, z))
        ctx.dtype = logits.dtype
        return loss / z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_loss).to(ctx.dtype), None, None, None


class _RankSortLoop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, delta: float, eps: float) -> tuple[Tensor, Tensor]:
        sides = take_sides(logits, targets, delta)
        positives, index = sides.positives, sides.positive_index
        z = max(positives.numel(), 1)
        labels = targets.reshape(-1)[index].to(positives.dtype)
        tie = step(positives.new_zeros(()), delta)
        ranking, sorting = ScoreGradient(sides), torch.zeros_like(positives)
        rank, sort = positives.new_zeros(()), positives.new_zeros(())
        for turn in turns(sides, delta, eps):
            i, over = turn.i, turn.over_positives
            over[i] = tie  # a positive counts itself, by H(0)
            rank_pos = over.sum()
            rank_error = turn.n_fp / (rank_pos + turn.n_fp)
            rank += rank_error
            ranking.add(turn, rank_error)

            in_order = labels >= labels[i]
            above, below = over * in_order, over * ~in_order
            target = (above * (1 - labels)).sum() / above.sum()
            sort_error = (over * (1 - labels)).sum() / rank_pos - target
            sort += sort_error
            n_below = below.sum()
            active = n_below > eps
            sorting[i] -= torch.where(active, sort_error, 0)
            sorting += below * torch.where(active, sort_error / n_below, 0)
        ctx.save_for_backward(ranking.scatter(logits, z), sorting / z, index)
        ctx.dtype = logits.dtype
        return rank / z, sort / z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rank: Tensor, grad_sort: Tensor) -> tuple[Tensor | None, ...]:
        ranking, sorting, index = ctx.saved_tensors
        gradient = ranking * grad_rank
        gradient.view(-1)[index] += sorting * grad_sort
        return gradient.to(ctx.dtype), None, None, None


def alrp_loss(
    logits: Tensor, targets: Tensor, loc_errors: Tensor, *, delta: float = 1.0, order: str = "smooth", eps: float = 1e-5
) -> ALRPOutput:
    """aLRP Loss by the loop; flat targets only, otherwise as :func:`alrp_cuda.alrp_loss`."""
    return ALRPOutput(*_ALRPLoop.apply(logits, targets, loc_errors, delta, order, eps))


def ap_loss(logits: Tensor, targets: Tensor, *, delta: float = 1.0, interpolate: bool = False, eps: float = 1e-5) -> Tensor:
    """AP Loss by the loop; flat targets only, otherwise as :func:`alrp_cuda.ap_loss`."""
    loss: Tensor = _APLoop.apply(logits, targets, delta, interpolate, eps)
    return loss


def ndcg_loss(logits: Tensor, targets: Tensor, *, delta: float = 1.0, eps: float = 1e-5) -> Tensor:
    """NDCG Loss by the loop; flat targets only, otherwise as :func:`alrp_cuda.ndcg_loss`."""
    loss: Tensor = _NDCGLoop.apply(logits, targets, delta, eps)
    return loss


def rank_sort_loss(logits: Tensor, targets: Tensor, *, delta: float = 0.5, eps: float = 1e-10) -> RankSortOutput:
    """Rank & Sort Loss by the loop, otherwise as :func:`alrp_cuda.rank_sort_loss`."""
    return RankSortOutput(*_RankSortLoop.apply(logits, targets, delta, eps))
