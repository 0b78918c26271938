"""One ranking over the logits of all ranks of a group: what is P-sized is exchanged, negatives are counted where they lie."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..inputs import Layout, bad_label, check_positives
from ..native import _C
from ..ops import LOSSES, choose_algorithm
from .agreement import Arguments, exchange
from .channel import Channel


def _failure(status: list[int], layout: Layout, told: tuple[str, int] | None) -> ValueError | None:
    """What is wrong with the labels of this rank, if anything."""
    found, invalid, _ = status
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
    status: Tensor  # (3) as the kernels have it; nan is that of this rank, and travels with the counts
    own: slice  # this rank's, in flat order
    others: int  # logits of the other ranks

    @classmethod
    def gather(
        cls,
        channel: Channel,
        arguments: Arguments,
        logits: Tensor,
        targets: Tensor,
        layout: Layout,
        backend: str,
        told: tuple[str, int] | None,
        rows: Tensor | None,
    ) -> "Positives":
        """Find this rank's positives and exchange them; ``rows`` (K, P) belong to them, None: their continuous labels, if any.

        The host waits for the device: it has to know how many there are. So what is wrong with labels raises on every device.
        """
        problem = _C.Problem(logits, targets, _C.TargetLayout(*layout), arguments.delta, 0)  # the algorithm is not read
        count = told[1] if told else int(_C.count_positives(backend, problem)[0])
        place, score, index, status = _C.find_positives(backend, problem, count)
        found = status.tolist()
        failure = _failure(found, layout, told)
        numbers = exchange(channel, arguments, (count, logits.numel()), failure, logits.device)
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
        flat_index = torch.full((total,), -1, dtype=torch.int64, device=logits.device)
        flat_index[own] = index
        # Ties descend by place: a stable sort of the reversed order.
        ascending, order = whole[0].flip(0).sort(stable=True)
        places = total - 1 - order
        return cls(
            places,
            ascending,
            flat_index[places],
            whole[1:].contiguous(),
            torch.tensor([total, 0, found[2]], device=logits.device),
            own,
            sum(n for _, n in numbers) - logits.numel(),
        )

    def problem(self, logits: Tensor, targets: Tensor, layout: Layout, arguments: Arguments) -> _C.Problem:
        """This rank's logits in the ranking of all."""
        delta = arguments.delta
        algorithm = _C.choose_algorithm(choose_algorithm(arguments.algorithm), logits.dtype, delta, self.index.numel())
        return _C.Problem(logits, targets, _C.TargetLayout(*layout), delta, algorithm, arguments.skew, self.others)


def _incoming(
    grad_cls: Tensor | None, grad_loc: Tensor | None, layout: Layout, needs_logits: bool, needs_errors: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients that came in for the two outputs, as the operator takes them: None for what is not wanted."""
    if layout.continuous:  # Rank & Sort: both outputs send their gradients to the logits
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
        logits: Tensor,
        loc_errors: Tensor | None,
        targets: Tensor,
        layout: Layout,
        backend: str,
        channel: Channel,
        arguments: Arguments,
        told: tuple[str, int] | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        original = logits
        logits, targets = logits.contiguous(), targets.contiguous()
        rows = None if loc_errors is None else loc_errors.to(torch.float64)[None]
        positives = Positives.gather(channel, arguments, logits, targets, layout, backend, told, rows)
        problem = positives.problem(logits, targets, layout, arguments)
        index, status = positives.index, positives.status
        wanted = ctx.needs_input_grad[0 if layout.continuous else 1]
        tables, part = _C.count_part(backend, problem, wanted, index, positives.score, status)
        channel.add(part)
        values = positives.rows[0] if len(positives.rows) else None
        cls, loc, rank, precision = _C.forward_from_parts(
            backend,
            problem,
            LOSSES.index(arguments.loss),
            values,
            arguments.eps,
            positives.place,
            index,
            tables,
            part,
            status,
        )
        ctx.save_for_backward(original, loc_errors, targets, index, tables)
        ctx.call = layout, problem.delta, problem.algorithm, backend, positives.own, problem.others
        ctx.set_materialize_grads(False)
        rank, precision = rank[positives.own].clone(), precision[positives.own].clone()
        ctx.mark_non_differentiable(rank, precision)
        return cls, loc, rank, precision

    @staticmethod
    def backward(ctx: Any, grad_cls: Tensor | None, grad_loc: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        logits, loc_errors, targets, index, tables = ctx.saved_tensors
        layout, delta, algorithm, backend, own, others = ctx.call
        needs_logits, needs_errors = ctx.needs_input_grad[:2]
        grad_cls, grad_loc = _incoming(grad_cls, grad_loc, layout, needs_logits, needs_errors)
        dtype = torch.float32 if loc_errors is None else loc_errors.dtype
        grad_logits, grad_errors = torch.ops.alrp_cuda.ranking_gradients.default(
            logits,
            targets,
            *layout,
            delta,
            algorithm,
            backend,
            1.0,
            [],
            [],
            index,
            [tables],
            grad_cls,
            grad_loc,
            dtype,
            others,
        )
        # As the operator: a zero gradient, never None.
        if grad_cls is None:
            grad_logits = torch.zeros_like(logits) if needs_logits else None
        if grad_loc is None or layout.continuous:
            grad_errors = torch.zeros_like(loc_errors) if needs_errors else None
        else:
            grad_errors = grad_errors[own].clone()
        return grad_logits, grad_errors, *[None] * 6


def union_loss(
    channel: Channel,
    logits: Tensor,
    loc_errors: Tensor | None,
    targets: Tensor,
    layout: Layout,
    *,
    backend: str,
    algorithm: str,
    loss: str,
    delta: float,
    eps: float,
    told: tuple[str, int] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(cls, loc, rank, precision) as :func:`alrp_cuda.ops.ranking_loss` gives them, over the logits of all ranks; the latter two
    of this rank's positives."""
    choose_algorithm(algorithm)  # raises before ranks wait for one another
    arguments = Arguments(loss, "batch", logits.dtype, logits.device.type, algorithm, delta, eps)
    result: tuple[Tensor, Tensor, Tensor, Tensor] = _Union.apply(
        logits, loc_errors, targets, layout, backend, channel, arguments, told
    )
    return result


_Sums = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def union_sums(
    channel: Channel,
    logits: Tensor,
    targets: Tensor,
    layout: Layout,
    extras: Tensor | None,
    *,
    backend: str,
    algorithm: str,
    delta: float,
    eps: float,
    skew: float,
    told: tuple[str, int] | None,
) -> tuple[_Sums, Tensor | None, int]:
    """(ranking, extras, logits of the other ranks) for a loss of the caller's own over the positives of all ranks. The ranking is
    what the operator ranking_sums gives; the extras those of all, (P,) or (K, P) float64, differentiable in this rank's."""
    shape = "none" if extras is None else str(tuple(extras.shape[:-1]))
    arguments = Arguments("error_driven", "batch", logits.dtype, logits.device.type, algorithm, delta, eps, skew, shape)
    rows = None if extras is None else extras.detach().to(torch.float64)
    if rows is not None and rows.dim() == 1:
        rows = rows[None]
    logits, targets = logits.contiguous(), targets.contiguous()
    positives = Positives.gather(channel, arguments, logits, targets, layout, backend, told, rows)
    problem = positives.problem(logits, targets, layout, arguments)
    place, index, status = positives.place, positives.index, positives.status
    tables, part = _C.count_part(backend, problem, False, index, positives.score, status)
    channel.add(part)
    sums = _C.sums_from_parts(backend, problem, place, index, tables, part, status)
    if extras is not None:
        own, values = positives.own, positives.rows.reshape(*extras.shape[:-1], index.numel())
        extras = torch.cat((values[..., : own.start], extras.to(torch.float64), values[..., own.stop :]), dim=-1)
    return (sums, place, index, tables, tables[-1].clone()), extras, problem.others
