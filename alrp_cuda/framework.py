"""Ranking losses of the caller's own (sec. 3, Algorithm 1): counted and spread by the kernels of the named ones."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .distributed.channel import connect, uncompiled
from .distributed.union import union_sums
from .inputs import check_choice, check_count, check_number, check_targets
from .ops import ALGORITHMS, choose_algorithm, choose_backend
from .ranks import ErrorFunction, Ranks, ask, check_extras, check_skew, told_positives

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


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
        error_fn: called once, if there is a positive (in compiled code always). It runs without gradients, unless
            ``extras`` require one: then l(i) and Z may depend differentiably on ``ranks.extras`` and
            ``ranks.extra_sums``, and the returned loss carries the derivative dL/dextras, ranks held constant. Whatever
            else it reads counts as constant for the logits.
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
    channel = connect(group)
    ops = torch.ops.alrp_cuda
    told = told_positives(extras, num_positives)
    classes, background_class, _ = layout
    chosen = choose_backend(backend, logits)
    problem = targets, classes, background_class, delta, choose_algorithm(algorithm), chosen
    others = 0
    if channel is None:
        told_by, count = told or ("", None)
        ranking = ops.ranking_sums.default(logits.detach(), *problem, skew, count, told_by)
    else:
        ranking, extras, others = uncompiled(union_sums)(
            channel,
            logits.detach(),
            targets,
            layout,
            extras,
            backend=chosen,
            algorithm=algorithm,
            delta=delta,
            eps=eps,
            skew=skew,
            told=told,
        )
    sums, place, index, tables, poison = ranking

    own = None if extras is None else extras.to(torch.float64)
    value = poison.clone() if own is None else own.sum() + poison  # without positives
    if torch.compiler.is_compiling() or index.numel():  # compiled code cannot branch on P
        # In the order of the flat index; NaN where every output is.
        scores, rank_pos, n_fp = (torch.empty_like(row).scatter_(0, place, row) + poison for row in sums[:3])
        above = None
        if own is not None:
            above = ops.pair_product.default(logits.detach(), *problem, index, tables, place, own, False, others)
        asked, errors, z = ask(error_fn, Ranks(n_fp, rank_pos, rank_pos + n_fp, own, above, scores))
        ops.drive_errors.default(logits.detach(), *problem, skew, index, tables, place, sums, errors, z, eps)
        value = torch.where(torch.full_like(poison, index.numel()) == 0, value, asked + poison)
    loss: Tensor = ops.error_driven.default(logits, value, *problem, skew, index, tables, others)
    return loss
