"""Ranking losses of the caller's own (sec. 3, Algorithm 1): counted and spread by the kernels of the named ones."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import _C
from .distributed.channel import Channel, connect, uncompiled
from .distributed.union import union_sums
from .first_order import first_order_only
from .inputs import Layout, check_choice, check_count, check_number, check_targets
from .ops import ALGORITHMS, Backend, check_status, choose_algorithm, choose_backend, count_positives
from .ranks import ErrorFunction, Ranks, ask, check_extras, check_skew, told_positives

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class _Sums:
    """What ``sums`` of a backend's kernels left, and the call that it belongs to."""

    kernels: Any
    arguments: tuple[Any, ...]  # logits, targets, layout, delta, algorithm
    skew: float
    place: Tensor  # (P) position in flat order of each positive; those below ascend by score
    rank_pos: Tensor
    n_fp: Tensor
    norm: Tensor
    score: Tensor
    index: Tensor
    tables: Tensor
    others: int = 0  # logits of the other ranks of a group

    def flat(self, values: Tensor) -> Tensor:
        """In the order of the flat index; NaN where every output is."""
        return torch.empty_like(values).scatter_(0, self.place, values) + self.tables[-1]

    def drive(self, errors: Tensor, z: Tensor, eps: float) -> None:
        """Write what the errors make of the gradients into the tables."""
        ranked = self.index, self.tables, self.place, self.n_fp, self.norm
        self.kernels.drive(*self.arguments, self.skew, *ranked, errors.contiguous(), z, eps)

    def pair_product(self, weights: Tensor, transposed: bool) -> Tensor:
        """Each row of the weights, (P,) or (K, P), summed over higher (``transposed``: lower) ranked positives."""
        rows = weights.contiguous().view(-1, weights.shape[-1])
        ranked = self.index, self.tables, self.place
        products = [self.kernels.pair_product(*self.arguments, *ranked, row, transposed, self.others) for row in rows]
        return torch.stack(products).view(weights.shape) if products else torch.zeros_like(weights)


class _PairSums(torch.autograd.Function):
    """sum over k != i of w_k H(x_ik), differentiable in the weights, ranks held constant."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, sums: _Sums, transposed: bool) -> Tensor:
        ctx.call = sums, transposed
        return sums.pair_product(weights, transposed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        sums, transposed = ctx.call
        return _PairSums.apply(grad, sums, not transposed), None, None


class _ErrorDriven(torch.autograd.Function):
    """The value as it is, with the error-driven gradient for the logits beside the value's own."""

    @staticmethod
    def forward(ctx: Any, original: Tensor, value: Tensor, sums: _Sums, dtype: torch.dtype) -> Tensor:
        logits, targets, *_ = sums.arguments
        ctx.save_for_backward(original, logits, targets, sums.index, sums.tables)
        ctx.call = sums.kernels, sums.arguments[2:], sums.skew, sums.others, value.dtype
        return value.to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        original, logits, targets, index, tables = ctx.saved_tensors
        kernels, arguments, skew, others, dtype = ctx.call
        grad_logits = None
        if ctx.needs_input_grad[0]:
            grad_logits, _ = kernels.backward(
                logits, targets, *arguments, index, tables, grad.contiguous(), None, torch.float32, skew, others
            )
            (grad_logits,) = first_order_only((grad_logits,), (original,))
        return grad_logits, grad.to(dtype), None, None


def _sums(
    logits: Tensor,
    targets: Tensor,
    layout: Layout,
    backend: Backend,
    algorithm: str,
    delta: float,
    skew: float,
    told: tuple[str, int] | None,
) -> _Sums:
    native = _C.TargetLayout(*layout)
    logits, targets = logits.detach().contiguous(), targets.contiguous()
    count = told[1] if told else count_positives(backend, logits, targets, layout)
    chosen = choose_algorithm(algorithm, logits.dtype, count, delta)
    *ranked, status = backend.kernels.sums(logits, targets, native, count, delta, chosen, skew)
    check_status(backend, status, layout, told)
    return _Sums(backend.kernels, (logits, targets, native, delta, chosen), skew, *ranked)


def _union_sums(
    channel: Channel, logits: Tensor, targets: Tensor, layout: Layout, extras: Tensor | None, **options: Any
) -> tuple[_Sums, Tensor | None]:
    """The same over the logits of all ranks of a group, and the extras of all."""
    backend, delta, skew = options["backend"], options["delta"], options["skew"]
    logits, targets = logits.detach().contiguous(), targets.contiguous()
    sums, extras, chosen, others = union_sums(channel, logits, targets, layout, extras, **options)
    arguments = logits, targets, _C.TargetLayout(*layout), delta, chosen
    return _Sums(backend.kernels, arguments, skew, *sums, others=others), extras


def error_driven_loss(
    logits: Tensor,
    targets: Tensor,
    error_fn: ErrorFunction,
    *,
    delta: float = 1.0,
    eps: float = 1e-5,
    extras: Tensor | None = None,
    skew: float = 1.0,
    background: int | None = None,
    num_positives: int | None = None,
    algorithm: str = "auto",
    backend: str = "auto",
    group: "ProcessGroup | None" = None,
) -> Tensor:
    r"""Any ranking loss L = 1/Z sum_i l(i) with the gradient of error-driven optimisation (sec. 3, Algorithm 1).

    ``error_fn`` tells the loss apart, in plain PyTorch on tensors of P numbers: from the :class:`alrp_cuda.Ranks` of the
    positives to the :class:`alrp_cuda.Errors` l(i), l*(i) and Z. The package counts before it and spreads after it:
    with e(i) = l(i) - l*(i), over the positives i with N_FP(i) > eps,

        dL/ds_i = -e(i) / Z,    dL/ds_j = 1/Z sum_i e(i) p(j|i),    p(j|i) = H(x_ij)^skew / sum_j' H(x_ij')^skew

    so that the gradients of positives and of negatives balance (Theorem 2) whatever the loss.

    Args:
        logits, targets, delta, eps, background, algorithm, backend: as in :func:`alrp_cuda.alrp_loss`.
        error_fn: called once, if there is a positive. It runs without gradients, unless ``extras`` require one: then l(i)
            and Z may depend differentiably on ``ranks.extras`` and ``ranks.extra_sums``, and the returned loss carries
            the derivative dL/dextras, ranks held constant. Whatever else it reads counts as constant for the logits.
        extras: (P,) or (K, P), values of the positives in the order of their flat index, which ``error_fn`` gets together
            with their sums over higher-ranked positives; any floating dtype.
        skew: how an error is shared among the negatives. 1 is the paper's uniform choice, p(j|i) = H(x_ij) / N_FP(i); more
            promotes harder examples, less spreads wider; 0 < skew <= 16. Other than 1 only with ``algorithm`` "tiled",
            which "auto" then is.
        num_positives: P, if the caller knows it (``extras`` tell it too): on a CUDA device the call then makes no host
            synchronisation.
        group: as in :func:`alrp_cuda.alrp_loss`. ``error_fn`` is called on every rank with the positives of all ranks, rank by
            rank, and has to return the same on each; ``extras`` and ``num_positives`` are those of this rank.

    Returns:
        The loss, a scalar; float64 for float64 logits, else float32. Without positives 0, connected to the graph. A second
        derivative by the logits raises.

    Raises:
        TypeError: an argument, or what ``error_fn`` returns, of the wrong type or dtype.
        ValueError: shapes, devices, ranges or names that do not fit; ``skew`` other than 1 with ``algorithm="sorted"``; an
            impossible target or a wrong number of positives (on CUDA devices NaN instead, see :func:`alrp_cuda.set_debug`).

    Example:
        >>> import torch, alrp_cuda
        >>> def ap(ranks):  # AP Loss, Eq. 2: l(i) = 1 - precision(i), l*(i) = 0, Z = P
        ...     return alrp_cuda.Errors(ranks.n_fp / ranks.rank)
        >>> logits = torch.tensor([2.0, 1.0, 0.0], requires_grad=True)
        >>> loss = alrp_cuda.error_driven_loss(logits, torch.tensor([1, 0, 1]), ap, delta=0.0)
        >>> loss.backward()
        >>> round(float(loss.detach()), 4), logits.grad.tolist()[1:]
        (0.1667, [0.1666666716337204, -0.1666666716337204])
    """
    layout = check_targets(logits, targets, background)
    check_extras(logits, extras)
    check_count("num_positives", num_positives)
    delta, eps, skew = check_number("delta", delta), check_number("eps", eps), check_skew(skew)
    check_choice("algorithm", algorithm, ("auto", *ALGORITHMS))
    if skew != 1:
        if algorithm == "sorted":
            raise ValueError(f"skew must be 1 for algorithm 'sorted', got {skew}; algorithm 'tiled' takes any")
        algorithm = "tiled"
    chosen, told = choose_backend(backend, logits), told_positives(extras, num_positives)
    channel = connect(group)
    if channel is None:
        sums = _sums(logits, targets, layout, chosen, algorithm, delta, skew, told)
    else:
        options: dict[str, Any] = {"backend": chosen, "algorithm": algorithm, "delta": delta, "eps": eps, "skew": skew}
        sums, extras = uncompiled(_union_sums)(channel, logits, targets, layout, extras, told=told, **options)

    own = None if extras is None else extras.to(torch.float64)
    poison = sums.tables[-1]
    if sums.index.numel():
        n_fp, rank_pos = sums.flat(sums.n_fp), sums.flat(sums.rank_pos)
        above = None if own is None else _PairSums.apply(own, sums, False)
        ranks = Ranks(n_fp, rank_pos, rank_pos + n_fp, own, above, sums.flat(sums.score))
        value, errors, z = ask(error_fn, ranks)
        sums.drive(errors, z, eps)
        value = value + poison
    else:
        value = poison.clone() if own is None else own.sum() + poison
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    loss: Tensor = _ErrorDriven.apply(logits, value, sums, dtype)
    return loss
