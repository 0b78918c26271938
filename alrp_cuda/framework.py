"""Ranking losses of the caller's own (sec. 3, Algorithm 1): counted and spread by the kernels of the named ones."""

import numbers
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from . import native
from .distributed.channel import connect, uncompiled
from .distributed.images import means
from .distributed.union import error_driven_arguments, union_sums
from .images import Images, agreed_images, reordered
from .inputs import (
    ALGORITHMS,
    FLOATING,
    Labelled,
    Tensors,
    check_choice,
    check_device,
    check_labelled,
    check_num_positives,
    check_number,
    check_scope,
    check_tensor,
    choose_algorithm,
    is_finite,
)

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Ranks(NamedTuple):
    """What a ranking loss is made of: one number for each of P positives, in the order of their flat index; float64.

    Attributes:
        n_fp: (P,), N_FP(i), the negatives that rank above i.
        rank_pos: (P,), rank+(i) >= 1, the rank among the positives.
        rank: (P,), rank+(i) + N_FP(i), Eq. 3.
        extras: what the caller gave, (P,) or (K, P); None if nothing.
        extra_sums: of the same shape, sum over positives k != i of extras_k H(x_ik); None without extras.
        scores: (P,), the scores s_i themselves, for losses that need the order.

    Example:
        >>> import torch, alrp_cuda
        >>> def watched(ranks):
        ...     print(ranks.n_fp.tolist(), ranks.rank_pos.tolist(), ranks.rank.tolist())
        ...     return alrp_cuda.Errors(ranks.n_fp / ranks.rank)
        >>> loss = alrp_cuda.error_driven_loss(torch.tensor([3.0, 1.0, 5.0]), torch.tensor([1, 1, 0]), watched, delta=0.0)
        [1.0, 1.0] [1.0, 2.0] [2.0, 3.0]
    """

    n_fp: Tensor
    rank_pos: Tensor
    rank: Tensor
    extras: Tensor | None
    extra_sums: Tensor | None
    scores: Tensor


class Errors(NamedTuple):
    """A ranking loss L = 1/Z sum_i l(i): its terms, what these should be, and Z.

    Attributes:
        value: (P,), l(i).
        target: (P,) or a number, l*(i), the least that l(i) can be by ranking alone.
        z: Z, a number or a tensor with one element, > 0; None: P.

    Example:
        >>> import torch, alrp_cuda
        >>> def inverse_rank(ranks):  # 1/rank+ - 1/rank: what the negatives cost
        ...     return alrp_cuda.Errors(1 / ranks.rank_pos - 1 / ranks.rank)
        >>> alrp_cuda.error_driven_loss(torch.zeros(2), torch.tensor([1, 0]), inverse_rank, delta=0.0).item()
        0.5
    """

    value: Tensor
    target: Tensor | float = 0.0
    z: Tensor | float | None = None


ErrorFunction = Callable[[Ranks], Errors]


def check_extras(logits: Tensor, extras: Tensor | None) -> None:
    """Check that extras is None or a floating (P,) or (K, P) tensor beside the logits."""
    if extras is None:
        return
    check_tensor("extras", extras, FLOATING)
    if extras.device != logits.device:
        raise ValueError(f"extras must be on the device of logits, {logits.device}, got {extras.device}")
    if extras.dim() not in (1, 2):
        raise ValueError(f"extras must have shape (P,) or (K, P), one value per positive, got shape {tuple(extras.shape)}")


def given_positives(extras: Tensor | None, num_positives: int | None) -> tuple[str, int] | None:
    """The argument that gives P, and P; None where the labels have to be counted."""
    if num_positives is not None:
        if extras is not None and extras.shape[-1] != num_positives:
            raise ValueError(
                f"extras must have one value per positive: num_positives is {num_positives}, got {extras.shape[-1]} values"
            )
        return "num_positives", int(num_positives)
    return None if extras is None else ("extras", extras.shape[-1])


def check_skew(skew: object) -> float:
    """Raise unless ``skew`` is a number in (0, 16]; return it as a float."""
    number = check_number("skew", skew)
    if not 0 < number <= 16:
        raise ValueError(f"skew must be > 0 and <= 16, got {skew}")
    return number


def _vector(name: str, value: Tensor, like: Tensor) -> Tensor:
    check_tensor(name, value, FLOATING)
    if value.device != like.device:
        raise ValueError(f"{name} must be on the device of logits, {like.device}, got {value.device}")
    if value.shape != like.shape:
        raise ValueError(f"{name} must have shape (P,) = {tuple(like.shape)}, got {tuple(value.shape)}")
    return value.to(torch.float64)


def _scalar(z: Any, like: Tensor) -> Tensor:
    if isinstance(z, Tensor):
        check_tensor("z of error_fn", z, FLOATING)
        if z.numel() != 1 or z.device != like.device:
            raise ValueError(f"z of error_fn must have one element, on {like.device}, got shape {tuple(z.shape)} on {z.device}")
        return z.reshape(()).to(torch.float64)
    if z is None:
        return torch.full((), like.numel(), dtype=torch.float64, device=like.device).clamp_(min=1)
    number = check_number("z of error_fn", z)
    if number == 0:
        raise ValueError("z of error_fn must be > 0, got 0")
    return torch.full((), number, dtype=torch.float64, device=like.device)


def ask(error_fn: ErrorFunction, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """(value sum(l)/Z, errors e = l - l*, Z) by the caller's function, float64; the latter two detached.

    The function runs without gradients but where ``ranks.extras`` carry one.
    """
    differentiable = ranks.extras is not None and ranks.extras.requires_grad
    with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
        result = error_fn(ranks)
        if not isinstance(result, Errors):
            raise TypeError(f"error_fn must return alrp_cuda.Errors, got {type(result).__name__}")
        value = _vector("value of error_fn", result.value, ranks.n_fp)
        z = _scalar(result.z, ranks.n_fp)
        loss = value.sum() / z
    target: Any = result.target
    if isinstance(target, Tensor):
        target = _vector("target of error_fn", target, ranks.n_fp).detach()
    elif isinstance(target, bool) or not isinstance(target, numbers.Real) or not is_finite(float(target)):
        raise TypeError(f"target of error_fn must be a (P,) tensor or a finite number, got {target!r}")
    errors: Tensor = value.detach() - target
    return loss, errors, z.detach()


def error_driven_loss(
    logits: Tensors,
    targets: Tensors,
    error_fn: ErrorFunction,
    *,
    delta: float = 1.0,
    eps: float = 1e-5,
    extras: Tensor | None = None,
    skew: float = 1.0,
    background: int | None = None,
    num_positives: int | Sequence[int] | None = None,
    scope: str = "batch",
    image_index: Tensor | None = None,
    algorithm: str = "auto",
    group: "ProcessGroup | None" = None,
) -> Tensor:
    r"""Any ranking loss L = 1/Z sum_i l(i) with the gradient of error-driven optimisation (sec. 3, Algorithm 1).

    ``error_fn`` is the loss, in plain PyTorch on tensors of P numbers: from the :class:`alrp_cuda.Ranks` of the
    positives to the :class:`alrp_cuda.Errors` l(i), l*(i) and Z. The package counts before it and spreads after it:
    with e(i) = l(i) - l*(i), over the positives i with N_FP(i) > eps,

        dL/ds_i = -e(i) / Z,    dL/ds_j = 1/Z sum_i e(i) p(j|i),    p(j|i) = H(x_ij)^skew / sum_j' H(x_ij')^skew

    so that the gradients of positives and of negatives balance (Theorem 2) whatever the loss.

    Args:
        logits, targets, delta, eps, background, algorithm: as in :func:`alrp_cuda.alrp_loss`.
        scope, image_index: as in :func:`alrp_cuda.alrp_loss`. "image" ranks each image by itself, by operators and a call of
            ``error_fn`` of its own, ascending by ``image_index``, and averages over the images that hold a positive.
        error_fn: called once, if there is a positive (in compiled code always). It runs without gradients, unless
            ``extras`` require one: then l(i) and Z may depend differentiably on ``ranks.extras`` and
            ``ranks.extra_sums``, and the returned loss carries the derivative dL/dextras, ranks held constant. Whatever
            else it reads counts as constant for the logits.
        extras: (P,) or (K, P), values of the positives in the order of their flat index (of a list, that of its concatenation),
            which ``error_fn`` gets together with their sums over higher-ranked positives; any floating dtype.
        skew: how an error is shared among the negatives. 1 is the paper's uniform choice, p(j|i) = H(x_ij) / N_FP(i); more
            promotes harder examples, less spreads wider; 0 < skew <= 16. Other than 1 only with ``algorithm`` "tiled",
            which "auto" then is.
        num_positives: P, if the caller knows it (``extras`` give it too), or with ``scope="image"`` a sequence, the positives
            of each image: on a CUDA device the call then makes no host synchronisation.
        group: as in :func:`alrp_cuda.alrp_loss`. ``error_fn`` is called on every rank with the positives of all ranks, rank by
            rank, and has to return the same on each; ``extras`` and ``num_positives`` are those of this rank. With
            ``scope="image"`` it is called with those of one image, on the rank that has it.

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
    if not callable(error_fn):
        raise TypeError(f"error_fn must be callable, got {type(error_fn).__name__}")
    labelled = check_labelled(logits, targets, background)
    first = labelled.logits[0]
    check_extras(first, extras)
    told = check_num_positives(num_positives, scope)
    check_scope(scope, image_index, labelled, told)
    delta, eps, skew = check_number("delta", delta), check_number("eps", eps), check_skew(skew)
    check_choice("algorithm", algorithm, ("auto", *ALGORITHMS))
    if skew != 1:
        if algorithm == "sorted":
            raise ValueError(f"skew must be 1 for algorithm 'sorted', got {skew}; algorithm 'tiled' takes any")
        algorithm = "tiled"
    check_device(first)
    channel = connect(group)
    if scope == "image":
        choose_algorithm(algorithm)  # raises before ranks wait for one another
        options: dict[str, Any] = {"delta": delta, "eps": eps, "skew": skew, "algorithm": algorithm}
        values = None if extras is None else ("extras", extras.shape[-1])
        agreed = error_driven_arguments(scope, first, extras, **options)
        images, with_positives = agreed_images(channel, agreed, image_index, labelled, told, values)
        options["background"] = background if labelled.layout.classes else None
        # Without logits there are no rows to divide.
        calls = _each_image(labelled, extras, images) if images.sizes else [((logits, targets), extras, 0)]
        losses = torch.stack(
            [error_driven_loss(*call, error_fn, extras=own, num_positives=count, **options) for call, own, count in calls]
        )
        if images.poison is not None:
            losses = losses * images.poison
        if channel is not None:
            return uncompiled(means)(channel, (losses, losses[:0]), max(1, with_positives))[0]
        return losses.sum() / max(1, with_positives)
    operators = native.operators
    given = given_positives(extras, cast(int | None, told))
    classes, background_class, _ = labelled.layout
    scores, labels = tuple(v.detach() for v in labelled.logits), [labelled.targets]
    call = classes, background_class, delta, choose_algorithm(algorithm)
    others = 0
    if channel is None:
        argument, count = given or ("", None)
        ranking = operators.ranking_sums.default(scores, labels, *call, skew, count, argument)
    else:
        ranking, extras, others = uncompiled(union_sums)(
            channel,
            labelled._replace(logits=scores),
            extras,
            algorithm=algorithm,
            delta=delta,
            eps=eps,
            skew=skew,
            told=given,
        )
    sums, place, state, poison = ranking
    positives = place.shape[0]

    own = None if extras is None else extras.to(torch.float64)
    value = poison.clone() if own is None else own.sum() + poison  # without positives
    if torch.compiler.is_compiling() or positives:  # compiled code cannot branch on P
        # In the order of the flat index; NaN where every output is.
        by_index = (torch.empty_like(row).scatter_(0, place, row) + poison for row in sums[:3])
        each, rank_pos, n_fp = by_index
        above = None
        if own is not None:
            above = operators.pair_product.default(scores, labels, *call, state, place, own, False, others)
        asked, errors, z = ask(error_fn, Ranks(n_fp, rank_pos, rank_pos + n_fp, own, above, each))
        operators.drive_errors.default(scores, labels, *call, skew, state, place, sums, errors, z, eps)
        value = torch.where(torch.full_like(poison, positives) == 0, value, asked + poison)
    loss: Tensor = operators.error_driven.default(labelled.logits, value, labels, *call, skew, positives, state, others)
    return loss


def _each_image(
    labelled: Labelled, extras: Tensor | None, images: Images
) -> Iterator[tuple[tuple[Tensors, Tensors], Tensor | None, int]]:
    """The logits and targets of each image, its extras and the number of its positives."""
    calls: Iterator[tuple[Tensors, Tensors]]
    width = max(1, labelled.layout.classes)
    if labelled.is_list:
        labels = labelled.targets.reshape(-1).split_with_sizes(labelled.rows)
        shapes = [v.shape[:-1] if labelled.layout.classes else v.shape for v in labelled.logits]
        ones = [1] * len(images.counts)
        of_images = (t.view(shape).split_with_sizes(ones) for t, shape in zip(labels, shapes, strict=True))
        logits = (v.split_with_sizes(ones) for v in labelled.logits)
        calls = zip(zip(*logits, strict=True), zip(*of_images, strict=True), strict=True)
    else:
        form = (-1, width) if labelled.layout.classes else (-1,)
        rows = [size // width for size in images.sizes]
        ordered = reordered(labelled.logits[0], images.rows).view(form), reordered(labelled.targets, images.rows).view(-1)
        calls = zip(*(tensor.split_with_sizes(rows) for tensor in ordered), strict=True)
    if extras is None:
        own: Sequence[Tensor | None] = [None] * len(images.counts)
    else:
        own = (extras if images.positives is None else extras[..., images.positives]).split_with_sizes(images.counts, -1)
    return zip(calls, own, images.counts, strict=True)
