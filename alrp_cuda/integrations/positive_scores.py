"""The positives' own logits, beside a loss of all logits."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..inputs import Tensors, check_labelled, check_positives


def scores_of_positives(logits: Tensors, classes: Tensors, name: str, count: int) -> tuple[Tensor, Tensors]:
    """The logits of positives for their own class, and the logits once more, for a loss of all.

    Where both come from here, the only tensors of the logits' size are their gradients.

    Args:
        logits: (..., C), class scores before the sigmoid, or a list of such tensors.
        classes: (...), integers: 0..C-1 positive for that class, others not; a list where the logits are one.
        name, count: the argument that has one value a positive, and how many it has; not looked at in compiled code.

    Returns:
        (P,), in the order of their flat index, and ``logits`` as they were given.

    Raises:
        TypeError, ValueError: as :func:`alrp_cuda.alrp_loss`; ``classes`` that are no class indices; ``count`` other than P.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 1.0], [1.0, 0.0]])
        >>> scores_of_positives(logits, torch.tensor([0, 2]), "labels", 1)[0]
        tensor([2.])
    """
    given = check_labelled(logits, classes, None)
    if not given.layout.classes:
        raise ValueError(
            f"classes must be class indices, one for each row of logits, got the logits' shape {tuple(given.targets.shape)}"
        )
    where = [
        _positives_in(own, v) for own, v in zip(given.targets.reshape(-1).split_with_sizes(given.rows), given.logits, strict=True)
    ]
    if torch.compiler.is_compiling():  # which puts gradients together by itself, and knows no number of positives
        return _scores_of(where, given.logits), logits
    check_positives(name, count, sum(len(index[0]) for index in where))
    scores, *views = _Scores.apply(where, *given.logits)
    return scores, views if given.is_list else views[0]


Index = tuple[Tensor, ...]


def _positives_in(classes: Tensor, logits: Tensor) -> Index:
    """Where the positives' logits of their classes are in ``logits``, from flat class indices."""
    row = ((classes >= 0) & (classes < logits.shape[-1])).nonzero()[:, 0]
    return *torch.unravel_index(row, logits.shape[:-1]), classes[row].long()


def _scores_of(where: Sequence[Index], logits: Sequence[Tensor]) -> Tensor:
    return torch.cat([v[index] for v, index in zip(logits, where, strict=True)])


class _Scores(torch.autograd.Function):
    """The logits of positives, and all logits once more. The gradient of the former is added to that of the latter, which is
    nobody else's, in place: by indexing alone it would be a tensor of the logits' size, and the sum another."""

    @staticmethod
    def forward(ctx: Any, where: Sequence[Index], *logits: Tensor) -> tuple[Tensor, ...]:
        ctx.where = where
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*logits)
        return _scores_of(where, logits), *(v.view_as(v) for v in logits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_scores: Tensor | None, *of_logits: Tensor | None) -> tuple[Tensor | None, ...]:
        if of_scores is None:
            return None, *of_logits
        gradients = [torch.zeros_like(v) if g is None else g for v, g in zip(ctx.saved_tensors, of_logits, strict=True)]
        parts = of_scores.split_with_sizes([len(index[0]) for index in ctx.where])
        for gradient, index, part in zip(gradients, ctx.where, parts, strict=True):
            if len(part):
                gradient[index] += part  # each place is there once
        return None, *gradients
