"""The paper's equations in plain PyTorch: the oracle that everything fast is compared with.

Oksuz, Cam, Akbas, Kalkan, "A Ranking-based, Balanced Loss Function Unifying Classification and Localisation in Object
Detection", NeurIPS 2020. Section and equation numbers are its. O(P * N) time, in chunks of bounded memory; any device,
float32 or float64 (half types are computed in float32). Nothing here uses the kernels.

Notation: P positives with scores s_i, N negatives with scores s_j, x_ij = s_j - s_i, E_i the localisation errors.
A pair with H(x_ij) = 0 contributes nothing, whatever it would be multiplied by: an infinite or NaN error reaches exactly
the samples that rank together with it.

Example:
    >>> import torch
    >>> from alrp_cuda import reference
    >>> out = reference.alrp_loss(torch.zeros(4), torch.tensor([1, 0, 0, -1]), torch.tensor([0.5]))
    >>> out.cls.item(), out.loc.item()
    (0.5, 0.25)
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from .framework import ErrorFunction, Ranks, ask, check_extras, check_skew, given_positives
from .inputs import (
    ORDERS,
    Labelled,
    Layout,
    Tensors,
    bad_label,
    check_choice,
    check_continuously_labelled,
    check_flag,
    check_labelled,
    check_loc_errors,
    check_num_positives,
    check_number,
    check_positives,
    check_positives_of_images,
    check_scope,
)
from .outputs import ALRPOutput, RankSortOutput

# Pairs held in memory at once (a few temporaries of this many elements).
CHUNK_PAIRS = 1 << 21


def step(x: Tensor, delta: float) -> Tensor:
    """H(x), sec. 2.1: clamp(x / (2 delta) + 1/2, 0, 1); the unit step with H(0) = 1 for delta = 0."""
    if delta == 0:
        return (x >= 0).to(x.dtype)
    scale = min(1 / (2 * delta), torch.finfo(x.dtype).max)  # finite, so that a tie (x = 0) is 1/2 for every delta
    return (x * scale + 0.5).clamp(0, 1)


def differences(rows: Tensor, columns: Tensor) -> Tensor:
    """x_ij = s_j - s_i for every row i and column j; infinities of equal sign tie."""
    s_i, s_j = rows[:, None], columns[None, :]
    return torch.where(s_j == s_i, 0, s_j - s_i)


def step_chunks(rows: Tensor, columns: Tensor, delta: float, *, skip_self: bool) -> Iterator[tuple[slice, slice, Tensor]]:
    """H(s_j - s_i) in blocks of rows i and columns j; with skip_self, where rows and columns are the same scores, k = i is 0."""
    width = max(1, min(columns.numel(), CHUNK_PAIRS))
    height = max(1, CHUNK_PAIRS // width)
    for i in range(0, rows.numel(), height):
        for j in range(0, columns.numel(), width):
            block = slice(i, i + height), slice(j, j + width)
            h = step(differences(rows[block[0]], columns[block[1]]), delta)
            if skip_self:
                same = torch.arange(i, i + h.shape[0], device=h.device)[:, None] == torch.arange(
                    j, j + h.shape[1], device=h.device
                )
                h = h.masked_fill(same, 0)
            yield *block, h


def times(h: Tensor, weights: Tensor) -> Tensor:
    """h * weights, where a pair with h = 0 contributes nothing even to an infinite weight."""
    return torch.where(h > 0, h * weights, 0)


def sum_over_columns(rows: Tensor, columns: Tensor, weights: Tensor | None, delta: float, *, skip_self: bool = False) -> Tensor:
    """For each row i: sum over j of w_j H(s_j - s_i), the product H @ w; w = 1 where it is None."""
    out = torch.zeros_like(rows)
    for i, j, h in step_chunks(rows, columns, delta, skip_self=skip_self):
        out[i] += (h if weights is None else times(h, weights[None, j])).sum(1)
    return out


def sum_over_rows(rows: Tensor, columns: Tensor, weights: Tensor, delta: float, *, skip_self: bool = False) -> Tensor:
    """For each column j: sum over i of w_i H(s_j - s_i), the product H^T @ w."""
    out = torch.zeros_like(columns)
    for i, j, h in step_chunks(rows, columns, delta, skip_self=skip_self):
        out[j] += times(h, weights[i, None]).sum(0)
    return out


def split(targets: Tensor, layout: Layout, size: int) -> tuple[Tensor, Tensor]:
    """(flat indices of the positives, mask of the negatives over the flat logits); raises for a value that is no label."""
    labels = targets.reshape(-1)
    if labels.dtype in (torch.uint16, torch.uint32, torch.uint64):  # torch compares few of the unsigned dtypes
        labels = labels.to(torch.int64)
        labels = labels.where(labels >= 0, torch.iinfo(torch.int64).max)  # 2^63 and above have wrapped
    if layout.classes == 0:
        if size == 0:
            labels = labels[:0]
        positive = (labels > 0) & labels.isfinite() if layout.continuous else labels == 1
        negative, ignored = labels == 0, labels < 0
        if not bool((positive | negative | ignored).all()):
            raise bad_label(layout)
        return positive.nonzero()[:, 0], negative
    classes, background, _ = layout
    labels = labels.to(torch.int64)
    if bool(((labels >= classes) & (labels != background)).any()):
        raise bad_label(layout)
    anchors = ((labels >= 0) & (labels < classes) & (labels != background)).nonzero()[:, 0]
    positives = anchors * classes + labels[anchors]
    negative = (labels >= 0).repeat_interleave(classes)
    negative[positives] = False
    return positives, negative


def poison_of(scores: Tensor, negatives: Tensor) -> Tensor:
    """0, or NaN if there is one among the scores that take part."""
    return torch.where(torch.cat((scores, negatives)).isnan().any(), torch.nan, 0.0).to(scores)


class Terms(NamedTuple):
    """What makes a loss: values l_cls(i) and l_loc(i), whose sums over the positives are divided by Z, the error
    e(i) = l(i) - l*(i), Z dL_loc/dE, and Z, by default the number of positives.
    """

    cls: Tensor
    loc: Tensor
    error: Tensor
    grad_loc: Tensor
    z: float | None = None


Errors = Callable[[Tensor, Tensor, Tensor, Tensor], Terms]


class RankingLoss(torch.autograd.Function):
    """Error-driven optimisation (sec. 3, Algorithm 1) with p(j|i) = H(x_ij) / N_FP(i).

    ``errors(scores, n_fp, rank_pos, loc_errors)`` gives the Terms of a loss.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        loc_errors: Tensor,
        targets: Tensor,
        layout: Layout,
        delta: float,
        eps: float,
        given: Any,
        errors: Errors,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        flat = logits.detach().reshape(-1).to(dtype)
        index, negative = split(targets, layout, flat.numel())
        if given is not None:
            check_positives(given[0], given[1], index.numel())
        scores, negatives = flat[index], flat[negative]

        n_fp = sum_over_columns(scores, negatives, None, delta)  # N_FP(i) = sum_{j in N} H(x_ij)
        rank_pos = 1 + sum_over_columns(scores, scores, None, delta, skip_self=True)  # rank+(i)
        rank = rank_pos + n_fp  # Eq. 3
        l_cls, l_loc, error, grad_loc, z = errors(scores, n_fp, rank_pos, loc_errors.detach().to(dtype))
        z = z or max(index.numel(), 1)

        # dL/ds_i = -e(i)/Z and dL/ds_j = 1/Z sum_i e(i) H(x_ij)/N_FP(i), over the i with N_FP(i) > eps (Theorem 2's sums).
        active = n_fp > eps
        grad = torch.zeros_like(flat)
        grad[index] = torch.where(active, -error / z, 0)
        share = torch.where(active, error / (z * n_fp), 0)
        grad[negative] = sum_over_rows(scores, negatives, share, delta)

        # A NaN among the scores that take part makes every loss and every gradient of theirs NaN.
        poison = poison_of(scores, negatives)
        grad[index] += poison
        grad[negative] += poison
        ctx.save_for_backward(grad.reshape(logits.shape), grad_loc / z + poison, logits, loc_errors)
        rank, precision = rank + poison, rank_pos / rank + poison
        ctx.mark_non_differentiable(rank, precision)
        return l_cls.sum() / z + poison, l_loc.sum() / z + poison, rank, precision

    @staticmethod
    def backward(ctx: Any, grad_cls: Tensor, grad_loc: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        grad, grad_errors, logits, loc_errors = ctx.saved_tensors
        grads = (grad * grad_cls).to(logits.dtype), (grad_errors * grad_loc).to(loc_errors.dtype)
        return *_first_order_only(grads, (logits, loc_errors)), *[None] * 6


def descending(scores: Tensor) -> Tensor:
    """The hard order: descending by score, stable, so that ties keep the order of their flat index."""
    return torch.sort(scores, descending=True, stable=True).indices


class Image(NamedTuple):
    """One image of a batch: its part of the tensors, and which of the batch's positives are its."""

    logits: Tensor
    targets: Tensor
    positives: Tensor


def images_of(image_index: Tensor | None, given: Labelled, num_positives: int | list[int] | None) -> Iterator[Image]:
    """The images, ascending by index, for ``scope="image"``; those of a list by the first dimension of its tensors."""
    logits, targets = given.joined()
    index, _ = split(targets, given.layout, given.size)
    if image_index is None:
        image_index = given.image_index()
    image_index = image_index.reshape(-1).to(torch.int64)
    count = max(1, image_index.numel())
    image_of_positive = image_index[index // max(1, given.size // count)]
    images = torch.unique(image_index) if given.size else image_index[:0]
    found = [int((image_of_positive == image).sum()) for image in images]
    if given.size == 0 and isinstance(num_positives, list):
        found = [0] * len(num_positives)
    ascend = given.is_list or bool((image_index.diff() >= 0).all())
    check_positives_of_images(num_positives, found, ascend=ascend)
    form = (count,) if given.layout.classes else (count, -1)
    for image in images:
        rows = image_index == image
        yield Image(logits.reshape(count, -1)[rows], targets.reshape(form)[rows], image_of_positive == image)


def mean_over_images(losses: list[Tensor], images: list[Image], logits: Tensor) -> Tensor:
    """The mean over the images that hold a positive; the others count for 0, or NaN where a score of theirs is NaN."""
    count = max(1, sum(bool(image.positives.any()) for image in images))
    nothing = logits.reshape(-1)[:0].sum(dtype=torch.promote_types(logits.dtype, torch.float32))
    return sum(losses, nothing) / count


def alrp_loss(
    logits: Tensors,
    targets: Tensors,
    loc_errors: Tensor,
    *,
    delta: float = 1.0,
    order: str = "smooth",
    eps: float = 1e-5,
    background: int | None = None,
    num_positives: int | Sequence[int] | None = None,
    scope: str = "batch",
    image_index: Tensor | None = None,
) -> ALRPOutput:
    """aLRP Loss (Eq. 9-14) by the equations; arguments and result as in :func:`alrp_cuda.alrp_loss`.

    Example:
        >>> import torch
        >>> out = alrp_loss(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1, 0, 1]), torch.tensor([0.2, 0.4]), delta=0.0)
        >>> [round(v.item(), 4) for v in (out.cls, out.loc)]
        [0.1667, 0.2]
    """
    given = check_labelled(logits, targets, background)
    check_loc_errors(given.logits[0], loc_errors)
    check_choice("order", order, ORDERS)
    counts = check_num_positives(num_positives, scope)
    if isinstance(counts, int):
        check_positives("num_positives", counts, loc_errors.numel())
    check_scope(scope, image_index, given, counts)
    delta, eps = check_number("delta", delta), check_number("eps", eps)
    expected = ("loc_errors", loc_errors.numel())
    whole, labels = given.joined()
    if scope == "image":
        images = list(images_of(image_index, given, counts))
        check_positives(*expected, sum(int(image.positives.sum()) for image in images))
        options: dict[str, Any] = {"delta": delta, "order": order, "eps": eps, "background": background}
        each = [alrp_loss(image.logits, image.targets, loc_errors[image.positives], **options) for image in images]
        cls, loc = (mean_over_images([out[k] for out in each], images, whole) for k in (0, 1))
        rank, precision = torch.zeros_like(loc_errors, dtype=cls.dtype), torch.zeros_like(loc_errors, dtype=cls.dtype)
        for image, out in zip(images, each, strict=True):
            rank[image.positives], precision[image.positives] = out.rank, out.precision
        return ALRPOutput(cls, loc + loc_errors[:0].sum(), rank, precision)

    def errors(scores: Tensor, n_fp: Tensor, rank_pos: Tensor, e: Tensor) -> Terms:
        rank = rank_pos + n_fp
        s = sum_over_columns(scores, scores, e, delta, skip_self=True)  # S_i = sum_{k in P, k != i} E_k H(x_ik)
        if order == "smooth":
            l_loc = (e + s) / rank  # Eq. 11
            # dL_loc/dE_k = 1/P (1/rank(k) + sum_{i != k} H(x_ik)/rank(i)), ranks held constant
            grad_loc = 1 / rank + sum_over_rows(scores, scores, 1 / rank, delta, skip_self=True)
        else:  # the published code: errors summed over the hard order of scores
            by_score = descending(scores)
            l_loc, grad_loc = torch.empty_like(e), torch.empty_like(e)
            l_loc[by_score] = e[by_score].cumsum(0) / rank[by_score]
            grad_loc[by_score] = (1 / rank[by_score]).flip(0).cumsum(0).flip(0)
        # l(i) = (N_FP + E_i + S_i)/rank, l*(i) = E_i/rank (Eq. 12-13), so e(i) = (N_FP + S_i)/rank
        return Terms(n_fp / rank, l_loc, (n_fp + s) / rank, grad_loc)

    return ALRPOutput(*RankingLoss.apply(whole, loc_errors, labels, given.layout, delta, eps, expected, errors))


def ap_loss(
    logits: Tensors,
    targets: Tensors,
    *,
    delta: float = 1.0,
    interpolate: bool = False,
    eps: float = 1e-5,
    background: int | None = None,
    num_positives: int | Sequence[int] | None = None,
    scope: str = "batch",
    image_index: Tensor | None = None,
) -> Tensor:
    """AP Loss (Eq. 2, 4) by the equations; arguments and result as in :func:`alrp_cuda.ap_loss`.

    Example:
        >>> import torch
        >>> round(float(ap_loss(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1, 0, 1]), delta=0.0)), 4)
        0.1667
    """
    given = check_labelled(logits, targets, background)
    check_flag("interpolate", interpolate)
    counts = check_num_positives(num_positives, scope)
    check_scope(scope, image_index, given, counts)
    delta, eps = check_number("delta", delta), check_number("eps", eps)
    expected = None if counts is None else ("num_positives", counts)
    whole, labels = given.joined()
    if scope == "image":
        images = list(images_of(image_index, given, counts))
        options: dict[str, Any] = {"delta": delta, "interpolate": interpolate, "eps": eps, "background": background}
        return mean_over_images([ap_loss(image.logits, image.targets, **options) for image in images], images, whole)

    def errors(scores: Tensor, n_fp: Tensor, rank_pos: Tensor, e: Tensor) -> Terms:
        rank = rank_pos + n_fp
        loss = n_fp / rank  # l(i) = 1 - precision(i), Eq. 2; l*(i) = 0
        if interpolate:  # 1 - the best precision among all positives scored at or below i
            ascending = descending(scores).flip(0)
            loss = torch.empty_like(n_fp)
            if n_fp.numel():
                loss[ascending] = 1 - (rank_pos / rank)[ascending].cummax(0).values
        return Terms(loss, torch.zeros_like(loss), loss, e)

    nothing = whole.new_empty(0)
    loss: Tensor = RankingLoss.apply(whole, nothing, labels, given.layout, delta, eps, expected, errors)[0]
    return loss


def gain(rank: Tensor) -> Tensor:
    """g(r) = 1 / log2(1 + r)."""
    return 1 / torch.log2(1 + rank)


def ndcg_loss(
    logits: Tensors,
    targets: Tensors,
    *,
    delta: float = 1.0,
    eps: float = 1e-5,
    background: int | None = None,
    num_positives: int | Sequence[int] | None = None,
    scope: str = "batch",
    image_index: Tensor | None = None,
) -> Tensor:
    """NDCG Loss by the equations; arguments and result as in :func:`alrp_cuda.ndcg_loss`.

    Example:
        >>> import torch
        >>> round(float(ndcg_loss(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1, 0, 1]), delta=0.0)), 4)
        0.0803
    """
    given = check_labelled(logits, targets, background)
    counts = check_num_positives(num_positives, scope)
    check_scope(scope, image_index, given, counts)
    delta, eps = check_number("delta", delta), check_number("eps", eps)
    expected = None if counts is None else ("num_positives", counts)
    whole, labels = given.joined()
    if scope == "image":
        images = list(images_of(image_index, given, counts))
        options: dict[str, Any] = {"delta": delta, "eps": eps, "background": background}
        return mean_over_images([ndcg_loss(image.logits, image.targets, **options) for image in images], images, whole)

    def errors(scores: Tensor, n_fp: Tensor, rank_pos: Tensor, e: Tensor) -> Terms:
        loss = gain(rank_pos) - gain(rank_pos + n_fp)  # l(i); l*(i) = 0
        first = torch.arange(1, len(scores) + 1, dtype=torch.float64, device=scores.device)  # the ranks of the best order
        return Terms(loss, torch.zeros_like(loss), loss, e, float(gain(first).sum()))

    nothing = whole.new_empty(0)
    loss: Tensor = RankingLoss.apply(whole, nothing, labels, given.layout, delta, eps, expected, errors)[0]
    return loss


class SortLoss(torch.autograd.Function):
    """The sort part of Rank & Sort Loss (Oksuz, Cam, Akbas, Kalkan, ICCV 2021): error-driven, among the positives alone."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, layout: Layout, delta: float, eps: float) -> Tensor:
        flat = logits.detach().reshape(-1)
        index, negative = split(targets, layout, flat.numel())
        scores = flat[index]
        y = targets.reshape(-1)[index].to(torch.promote_types(flat.dtype, targets.dtype))
        z = max(index.numel(), 1)

        # Sums of H(x_ik) and H(x_ik)(1 - y_k) over the positives k, i among them; and over those with y_k >= y_i.
        every, every_error, above, above_error, below = (torch.zeros_like(y) for _ in range(5))
        for i, k, h in step_chunks(scores, scores, delta, skip_self=False):
            is_above = y[None, k] >= y[i, None]
            every[i] += h.sum(1)
            every_error[i] += (h * (1 - y[None, k])).sum(1)
            above[i] += (h * is_above).sum(1)
            above_error[i] += (h * is_above * (1 - y[None, k])).sum(1)
            below[i] += (h * ~is_above).sum(1)
        error = every_error / every - above_error / above  # l_S(i): current less target

        # -l_S(i) on i, and l_S(i) H(x_ik) / sum of H(x_ik) on every k with y_k < y_i.
        active = below > eps
        grad_scores = torch.where(active, -error / z, 0)
        share = torch.where(active, error / (z * below), 0)
        for i, k, h in step_chunks(scores, scores, delta, skip_self=False):
            grad_scores[k] += (share[i, None] * h * (y[None, k] < y[i, None])).sum(0)

        poison = poison_of(scores, flat[negative])
        grad = torch.zeros_like(flat)
        grad[index] = grad_scores.to(flat) + poison
        grad[negative] = poison
        ctx.save_for_backward(grad.reshape(logits.shape), logits)
        return (error.sum() / z).to(flat) + poison

    @staticmethod
    def backward(ctx: Any, grad_sort: Tensor) -> tuple[Tensor | None, ...]:
        grad, logits = ctx.saved_tensors
        return *_first_order_only((grad * grad_sort,), (logits,)), *[None] * 4


def rank_sort_loss(
    logits: Tensors,
    targets: Tensors,
    *,
    delta: float = 0.5,
    eps: float = 1e-10,
    num_positives: int | Sequence[int] | None = None,
    scope: str = "batch",
    image_index: Tensor | None = None,
) -> RankSortOutput:
    """Rank & Sort Loss by the equations; arguments and result as in :func:`alrp_cuda.rank_sort_loss`.

    Example:
        >>> import torch
        >>> out = rank_sort_loss(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([0.5, 0.0, 1.0]))
        >>> [round(v.item(), 4) for v in out]
        [0.2, 0.1667]
    """
    given = check_continuously_labelled(logits, targets)
    counts = check_num_positives(num_positives, scope)
    check_scope(scope, image_index, given, counts)
    delta, eps = check_number("delta", delta), check_number("eps", eps)
    expected = None if counts is None else ("num_positives", counts)
    whole, labels = given.joined()
    if scope == "image":
        images = list(images_of(image_index, given, counts))
        each = [rank_sort_loss(image.logits, image.targets, delta=delta, eps=eps) for image in images]
        return RankSortOutput(*(mean_over_images([out[k] for out in each], images, whole) for k in (0, 1)))
    if whole.dtype != torch.float64:
        whole = whole.float()  # the sum of the two gradients is rounded once

    def errors(scores: Tensor, n_fp: Tensor, rank_pos: Tensor, e: Tensor) -> Terms:
        tie = step(scores.new_zeros(()), delta)  # rank+ counts i itself by H(0)
        loss = n_fp / (rank_pos - 1 + tie + n_fp)
        return Terms(loss, torch.zeros_like(loss), loss, e)

    nothing = whole.new_empty(0)
    rank: Tensor = RankingLoss.apply(whole, nothing, labels, given.layout, delta, eps, expected, errors)[0]
    sort: Tensor = SortLoss.apply(whole, labels, given.layout, delta, eps)
    return RankSortOutput(rank, sort)


class _GivenGradient(torch.autograd.Function):
    """The value as it is; its gradient for the logits is the one given."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor, gradient: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(logits, gradient)
        ctx.dtype = value.dtype
        return value.to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, gradient = ctx.saved_tensors
        grad_logits = (gradient * grad).to(logits.dtype)
        return *_first_order_only((grad_logits,), (logits,)), grad.to(ctx.dtype), None, None


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
) -> Tensor:
    """Any ranking loss (sec. 3, Algorithm 1) in float64; arguments and result as in :func:`alrp_cuda.error_driven_loss`.

    Example:
        >>> import torch, alrp_cuda
        >>> ap = lambda ranks: alrp_cuda.Errors(ranks.n_fp / ranks.rank)
        >>> round(float(error_driven_loss(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1, 0, 1]), ap, delta=0.0)), 4)
        0.1667
    """
    given = check_labelled(logits, targets, background)
    check_extras(given.logits[0], extras)
    counts = check_num_positives(num_positives, scope)
    check_scope(scope, image_index, given, counts)
    delta, eps, skew = check_number("delta", delta), check_number("eps", eps), check_skew(skew)
    whole, labels = given.joined()
    if scope == "image":
        images = list(images_of(image_index, given, counts))
        options: dict[str, Any] = {"delta": delta, "eps": eps, "skew": skew, "background": background}
        if extras is None:
            losses = [error_driven_loss(image.logits, image.targets, error_fn, **options) for image in images]
            return mean_over_images(losses, images, whole)
        check_positives("extras", extras.shape[-1], sum(int(image.positives.sum()) for image in images))
        losses = [
            error_driven_loss(image.logits, image.targets, error_fn, extras=extras[..., image.positives], **options)
            for image in images
        ]
        return mean_over_images(losses, images, whole) + extras[..., :0].sum()
    expected = given_positives(extras, cast(int | None, counts))
    flat = whole.detach().reshape(-1).double()
    index, negative = split(labels, given.layout, flat.numel())
    if expected is not None:
        check_positives(expected[0], expected[1], index.numel())
    scores, negatives = flat[index], flat[negative]
    poison = torch.where(torch.cat((scores, negatives)).isnan().any(), torch.nan, 0.0).to(flat)

    own = None if extras is None else extras.double()
    value = poison.clone() if own is None else own[..., :0].sum() + poison
    grad = torch.zeros_like(flat)
    if index.numel():
        n_fp = sum_over_columns(scores, negatives, None, delta)
        rank_pos = 1 + sum_over_columns(scores, scores, None, delta, skip_self=True)
        above = None
        if own is not None:
            matrix = step(differences(scores, scores), delta).fill_diagonal_(0)  # P x P at once: autograd goes through it
            above = times(matrix, own[..., None, :]).sum(-1)  # sum over k != i of extras_k H(x_ik)
        ranks = Ranks(n_fp + poison, rank_pos + poison, rank_pos + n_fp + poison, own, above, scores)
        loss, error, z = ask(error_fn, ranks)
        value = loss + poison
        active = n_fp > eps
        grad[index] = torch.where(active, -error / z, 0)
        norm, shared = torch.zeros_like(n_fp), torch.zeros_like(negatives)
        for i, _, h in step_chunks(scores, negatives, delta, skip_self=False):
            norm[i] += (h**skew).sum(1)
        share = torch.where(active, error / (z * norm), 0)
        for i, j, h in step_chunks(scores, negatives, delta, skip_self=False):  # p(j|i) = H^skew / sum_j H^skew
            shared[j] += times(h**skew, share[i, None]).sum(0)
        grad[negative] = shared
    grad[index] += poison
    grad[negative] += poison
    dtype = torch.float64 if whole.dtype == torch.float64 else torch.float32
    result: Tensor = _GivenGradient.apply(whole, value, grad.reshape(whole.shape), dtype)
    return result


# Gradients that are no derivative: differentiating them again raises, and is never silently zero.


def _first_order_only(gradients: tuple[Tensor | None, ...], inputs: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """``gradients``, tied to the ``inputs`` they belong to, so that a second derivative by any of these raises.

    ``torch.autograd.function.once_differentiable`` does so only where the incoming gradient itself has a graph: without one, a
    penalty on the gradient (``create_graph=True``) would train as if it were not there.
    """
    if not torch.is_grad_enabled():  # no create_graph: nobody can differentiate again
        return gradients
    return _FirstOrderOnly.apply(len(gradients), *gradients, *inputs)  # type: ignore[no-any-return]


class _FirstOrderOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(None if t is None else t.view_as(t) for t in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError("a ranking loss has no second derivative: its gradient is error-driven, no derivative of its value")
