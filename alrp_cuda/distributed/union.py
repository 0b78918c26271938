"""One ranking over the logits of all ranks of a group: positives are exchanged, negatives are counted where they lie."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import native
from ..inputs import LOSSES, Labelled, Layout, bad_label, check_positives, choose_algorithm
from .agreement import Arguments, exchange
from .channel import Channel


def _failure(status: list[int], layout: Layout, told: tuple[str, int] | None) -> ValueError | None:
    """What is wrong with the labels of this rank, if anything."""
    found, invalid, *_ = status
    if invalid:
        return bad_label(layout)
    try:
        check_positives("", None, found) if told is None else check_positives(*told, found)
    except ValueError as error:
        return error
    return None


@dataclass(frozen=True)
class Positives:
    """The positives of all ranks. Their flat order goes rank by rank, and by the flat index within a rank."""

    place: Tensor  # (P) position in flat order; this and the next two ascend by score, ties descend by place
    score: Tensor  # (P) float64
    index: Tensor  # (P) flat index in this rank's logits, -1 for the positives of others
    rows: Tensor  # (K, P) what came with them, float64 in flat order
    status: Tensor  # (4) as the kernels have it; nan and ignored are those of this rank, and nan travels with the counts
    own: slice  # this rank's, in flat order
    others: int  # logits of the other ranks

    @classmethod
    def gather(
        cls,
        channel: Channel,
        arguments: Arguments,
        given: Labelled,
        told: tuple[str, int] | None,
        rows: Tensor | None,
    ) -> "Positives":
        """Find this rank's positives and exchange them; ``rows`` (K, P) belong to them, None: their continuous labels, if any.

        The host waits for the device: it has to know how many there are. So what is wrong with labels raises on every device.
        """
        logits, targets, layout, _ = given
        device = logits[0].device
        problem = logits, targets, native._C.Call(*layout, arguments.delta)
        count = told[1] if told else int(native._C.find_positives(*problem, 0)[-1][0])
        place, score, index, status = native._C.find_positives(*problem, count)
        found = status.tolist()
        failure = _failure(found, layout, told)
        numbers = exchange(channel, arguments, (count, given.size), failure, device)
        counts = [p for p, _ in numbers]

        score, index = (torch.empty_like(x).scatter_(0, place, x) for x in (score, index))  # in flat order
        if rows is None:
            rows = targets.reshape(-1)[index][None] if layout.continuous else score.new_empty(0, count)
        sent = score.new_zeros(1 + rows.shape[0], max(counts))
        sent[:, :count] = torch.cat((score[None], rows))
        if max(counts):
            parts = channel.gather(sent)
            whole = torch.cat([part[:, :p] for part, p in zip(parts, counts, strict=True)], dim=1)
        else:
            whole = sent
        total, begin = whole.shape[1], sum(counts[: channel.rank])
        own = slice(begin, begin + count)
        flat_index = torch.full((total,), -1, dtype=torch.int64, device=device)
        flat_index[own] = index
        # Ties descend by place: a stable sort of the reversed order.
        ascending, order = whole[0].flip(0).sort(stable=True)
        places = total - 1 - order
        return cls(
            places,
            ascending,
            flat_index[places],
            whole[1:].contiguous(),
            torch.tensor([total, 0, *found[2:]], device=device),
            own,
            sum(n for _, n in numbers) - given.size,
        )

    def call(self, given: Labelled, arguments: Arguments, wants_error_gradient: bool = False) -> Any:
        """The ranking of all, as this rank goes on with it."""
        logits, layout = given.logits[0], given.layout
        algorithm = choose_algorithm(arguments.algorithm)
        algorithm = native._C.choose_algorithm(algorithm, logits.dtype, arguments.delta, self.index.numel())
        return native._C.Call(*layout, arguments.delta, algorithm, arguments.skew, self.others, wants_error_gradient)


def _incoming(
    grad_cls: Tensor | None, grad_loc: Tensor | None, continuous: bool, needs_logits: bool, needs_errors: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients that came in for the two outputs, as the operator takes them: None for what is not wanted."""
    if continuous:  # Rank & Sort: both outputs send their gradients to the logits
        given = grad_loc if grad_cls is None else grad_cls
        if given is not None:
            grad_cls, grad_loc = (torch.zeros_like(given) if g is None else g for g in (grad_cls, grad_loc))
        needs_errors = needs_logits
    return grad_cls if needs_logits else None, grad_loc if needs_errors else None


class _Union(torch.autograd.Function):
    """As the operator ranking_loss for one process, with the forward pass in two halves. Backward is each rank's own: no
    communication."""

    @staticmethod
    def forward(
        ctx: Any,
        loc_errors: Tensor | None,
        targets: Tensor,
        layout: Layout,
        channel: Channel,
        arguments: Arguments,
        told: tuple[str, int] | None,
        *logits: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        given = Labelled(logits, targets, layout, True)
        rows = None if loc_errors is None else loc_errors.to(torch.float64)[None]
        positives = Positives.gather(channel, arguments, given, told, rows)
        needs_errors, _, _, _, _, _, *needs_logits = ctx.needs_input_grad
        wanted = any(needs_logits) if layout.continuous else needs_errors
        call, place, own = positives.call(given, arguments, wanted), positives.place, positives.own
        state, part = native._C.count_part(logits, targets, call, positives.index, positives.score, positives.status)
        channel.add(part)
        loss, values = LOSSES.index(arguments.loss), positives.rows[0] if len(positives.rows) else None
        cls, loc, ranks = native._C.loss_from_parts(logits, targets, call, loss, arguments.eps, values, place, state, part)
        ctx.save_for_backward(loc_errors, targets, state, *logits)
        ctx.operators, ctx.own = native.operators, own
        ctx.call = *layout, arguments.delta, call.algorithm, 1.0, [], [], place.numel()
        ctx.wanted, ctx.others = wanted, positives.others
        ctx.set_materialize_grads(False)
        ranks = ranks[:, own].clone()
        ctx.mark_non_differentiable(ranks)
        return cls, loc, ranks

    @staticmethod
    def backward(ctx: Any, grad_cls: Tensor | None, grad_loc: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        loc_errors, targets, state, *logits = ctx.saved_tensors
        _, _, continuous, *_ = ctx.call
        needs_errors, needs_logits = ctx.needs_input_grad[0], any(ctx.needs_input_grad[6:])
        grad_cls, grad_loc = _incoming(grad_cls, grad_loc, continuous, needs_logits, needs_errors)
        dtype = torch.float32 if loc_errors is None else loc_errors.dtype
        of_logits, grad_errors = ctx.operators.ranking_gradients.default(
            logits, [targets], *ctx.call, state, ctx.wanted, grad_cls, grad_loc, dtype, ctx.others
        )
        # As the operator: a zero gradient, never None.
        grad_logits = of_logits or [torch.zeros_like(each) if needs_logits else None for each in logits]
        if grad_loc is None or continuous:
            grad_errors = torch.zeros_like(loc_errors) if needs_errors else None
        else:
            grad_errors = grad_errors[ctx.own].clone()
        return grad_errors, *[None] * 5, *grad_logits


def union_loss(
    channel: Channel,
    given: Labelled,
    loc_errors: Tensor | None,
    *,
    algorithm: str,
    loss: str,
    delta: float,
    eps: float,
    told: tuple[str, int] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(cls, loc, ranks) over the logits of all ranks; the last (2, P) of this rank's positives."""
    logits, targets, layout, _ = given
    choose_algorithm(algorithm)  # raises before ranks wait for one another
    arguments = Arguments(loss, "batch", logits[0].dtype, logits[0].device.type, algorithm, delta, eps)
    result: tuple[Tensor, Tensor, Tensor] = _Union.apply(
        loc_errors, targets.contiguous(), layout, channel, arguments, told, *logits
    )
    return result


_Sums = tuple[Tensor, Tensor, Tensor, Tensor]


def error_driven_arguments(scope: str, logits: Tensor, extras: Tensor | None, **options: Any) -> Arguments:
    """What ranks must agree on in a loss of the caller's own."""
    shape = "none" if extras is None else str(tuple(extras.shape[:-1]))
    return Arguments("error_driven", scope, logits.dtype, logits.device.type, extras=shape, **options)


def union_sums(
    channel: Channel,
    given: Labelled,
    extras: Tensor | None,
    *,
    algorithm: str,
    delta: float,
    eps: float,
    skew: float,
    told: tuple[str, int] | None,
) -> tuple[_Sums, Tensor | None, int]:
    """(ranking, extras, logits of the other ranks) for a loss of the caller's own over the positives of all ranks. The ranking is
    what the operator ranking_sums gives; the extras those of all, (P,) or (K, P) float64, differentiable in this rank's."""
    first = given.logits[0]
    arguments = error_driven_arguments("batch", first, extras, algorithm=algorithm, delta=delta, eps=eps, skew=skew)
    rows = None if extras is None else extras.detach().to(torch.float64)
    if rows is not None and rows.dim() == 1:
        rows = rows[None]
    given = given._replace(targets=given.targets.contiguous())
    positives = Positives.gather(channel, arguments, given, told, rows)
    problem = given.logits, given.targets, positives.call(given, arguments)
    state, part = native._C.count_part(*problem, positives.index, positives.score, positives.status)
    channel.add(part)
    sums, poison = native._C.sums_from_parts(*problem, positives.place, state, part)
    if extras is not None:
        own, values = positives.own, positives.rows.reshape(*extras.shape[:-1], positives.place.numel())
        extras = torch.cat((values[..., : own.start], extras.to(torch.float64), values[..., own.stop :]), dim=-1)
    return (sums, positives.place, state, poison), extras, positives.others
