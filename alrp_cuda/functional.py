"""The losses as functions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from .inputs import (
    ORDERS,
    Tensors,
    check_choice,
    check_continuously_labelled,
    check_flag,
    check_labelled,
    check_loc_errors,
    check_num_positives,
    check_number,
    check_positives,
)
from .ops import scoped_loss
from .outputs import ALRPOutput, RankSortOutput

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


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
    algorithm: str = "auto",
    group: "ProcessGroup | None" = None,
) -> ALRPOutput:
    r"""Average Localisation Recall Precision Loss: one ranking loss for class scores and boxes.

    L = L_cls + L_loc = 1/P sum_i N_FP(i) / rank(i) + 1/P sum_i (E_i + S_i) / rank(i), Eq. 9-14 of Oksuz et al., NeurIPS 2020.
    The positives and negatives of all images, levels and classes of a batch are ranked together, unless ``scope`` says otherwise.

    Args:
        logits: class scores before the sigmoid, any shape; float32, float64, float16 or bfloat16. Or a list of tensors, which
            are ranked as their concatenation would be, and are not copied where they are permuted views of dense memory: see
            :func:`alrp_cuda.head_views`.
        targets: either of the logits' shape: 1 positive, 0 negative, below 0 ignored (bool, integer or floating dtype);
            or of the logits' shape (..., C) without its last dimension, integer class indices: 0..C-1 positive for that class
            and negative for the others, ``background`` negative for all, below 0 an ignored anchor. A list where ``logits`` is
            one, tensor by tensor.
        loc_errors: (P,), localisation error E_i of each positive in the order of the positives' flat index in ``logits`` (of a
            list, that of its concatenation); (1 - IoU) / (1 - tau) with tau = 0.5 in the paper. Any floating dtype, any values;
            nothing is clamped.
        delta: half width of the step function H, in logits; finite, >= 0. 0 ranks by hard comparison.
        order: "smooth" takes S_i by H; "hard" sums errors over the hard order of scores as the published code does
            (in L_loc only; the gradient of scores uses the smooth S_i).
        eps: a positive with N_FP(i) <= eps sends no gradient; finite, >= 0.
        background: class index that means background, default C; only with class indices.
        num_positives: P, which the number of ``loc_errors`` tells as well; or with ``scope="image"`` a sequence, the positives of
            each image, ascending by ``image_index``: see there.
        scope: "batch" ranks everything together; "image" ranks each image by itself and averages ``cls`` and ``loc`` over the
            images that hold at least one positive.
        image_index: the image of each anchor (the logits' shape without its last dimension) or, with targets of the logits'
            shape, of each logit (that shape); integers of any value in any order. Only with ``scope="image"``, which needs it
            but for lists: there the first dimension of every tensor is the image.
            On a CUDA device the host waits for the device once, to tell the images and their positives apart. It does not where
            ``num_positives`` is a sequence: then ``image_index``, if any, must ascend, and either all images have as many
            anchors, or it lies on the CPU.
        algorithm: "sorted" takes O((P + N) log P) time, "tiled" compares pair by pair, O(P N); "auto" is the faster one. Both
            are exact.
        group: a :class:`torch.distributed.ProcessGroup`: the logits of all its ranks are ranked together, or with
            ``scope="image"`` averaged over the images of all; every rank has to call. The values returned are the same on every
            rank, ``rank`` and ``precision`` are those of this rank's positives, and gradients are parts of one gradient, whose
            sum over the ranks is meant: see :func:`alrp_cuda.distributed.scale_for_ddp`. None: no communication.

    Returns:
        ALRPOutput(cls, loc, rank, precision), float64 for float64 logits, else float32. Call ``backward`` on
        ``cls + loc``, or on ``cls + w * loc`` to weigh the boxes: ``cls`` carries the gradient of the whole loss to the
        logits (Eq. 14), ``loc`` reaches ``loc_errors`` alone. Without positives, both are 0 and connected to the graph.
        The gradient is error-driven, not the derivative of the value; a second derivative raises.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: shapes, devices, ranges, names or lists that do not fit; a target that is none of the above; a number of
            ``loc_errors`` other than P. On CUDA devices the last two give NaN instead, see :func:`alrp_cuda.set_debug`, but
            raise with ``group`` and with ``scope="image"``, unless ``num_positives`` is a sequence. With ``group``, on every
            rank: one of these two on some rank, or arguments that differ between ranks.
        RuntimeError: a rank that does not come within the timeout of ``group``; raised by torch.distributed.

    Example:
        >>> import torch, alrp_cuda
        >>> logits = torch.tensor([[2.0, -1.0], [0.5, 1.0], [-3.0, 0.0]], requires_grad=True)  # 3 anchors, 2 classes
        >>> targets = torch.tensor([0, 2, 1])  # class 0, background, class 1
        >>> loc_errors = torch.tensor([0.3, 0.8], requires_grad=True)
        >>> out = alrp_cuda.alrp_loss(logits, targets, loc_errors)
        >>> (out.cls + out.loc).backward()
        >>> [round(v.item(), 4) for v in (out.cls, out.loc)]
        [0.2333, 0.2967]
    """
    given = check_labelled(logits, targets, background)
    check_loc_errors(given.logits[0], loc_errors)
    check_choice("order", order, ORDERS)
    counts = check_num_positives(num_positives, scope)
    if isinstance(counts, int):
        check_positives("num_positives", counts, loc_errors.numel())
    cls, loc, ranks = scoped_loss(
        scope,
        image_index,
        given,
        loc_errors,
        algorithm=algorithm,
        loss="alrp" if order == "smooth" else "alrp_hard",
        delta=check_number("delta", delta),
        eps=check_number("eps", eps),
        num_positives=counts,
        group=group,
    )
    return ALRPOutput(cls, loc, *ranks.unbind())


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
    algorithm: str = "auto",
    group: "ProcessGroup | None" = None,
) -> Tensor:
    """Average Precision Loss: L = 1/P sum_i N_FP(i) / rank(i), Eq. 2 and 4 of the aLRP paper; Chen et al., CVPR 2019.

    Args:
        logits, targets, delta, eps, background, scope, image_index, algorithm, group: as in :func:`alrp_cuda.alrp_loss`.
        interpolate: let a positive count as precise as the best positive scored at or below it, as the published code does.
        num_positives: P, or with ``scope="image"`` a sequence of the positives of each image, if the caller knows: on a CUDA
            device the call then makes no host synchronisation.

    Returns:
        The loss, a scalar in [0, 1]; float64 for float64 logits, else float32. Without positives 0, connected to the graph.

    Raises:
        TypeError, ValueError: as :func:`alrp_cuda.alrp_loss`; ``num_positives`` other than P.

    Example:
        >>> import torch, alrp_cuda
        >>> logits = torch.tensor([2.0, 1.0, 0.0], requires_grad=True)
        >>> loss = alrp_cuda.ap_loss(logits, torch.tensor([1, 0, 1]), delta=0.0)
        >>> loss.backward()
        >>> round(float(loss.detach()), 4), logits.grad.tolist()[1:]
        (0.1667, [0.1666666716337204, -0.1666666716337204])
    """
    given = check_labelled(logits, targets, background)
    check_flag("interpolate", interpolate)
    return scoped_loss(
        scope,
        image_index,
        given,
        None,
        algorithm=algorithm,
        loss="ap_interpolated" if interpolate else "ap",
        delta=check_number("delta", delta),
        eps=check_number("eps", eps),
        num_positives=check_num_positives(num_positives, scope),
        group=group,
    )[0]


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
    algorithm: str = "auto",
    group: "ProcessGroup | None" = None,
) -> Tensor:
    """Normalised Discounted Cumulative Gain Loss: L = 1/Z sum_i g(rank+(i)) - g(rank(i)), with g(r) = 1 / log2(1 + r) and
    Z = sum_{r=1..P} g(r), error-driven as sec. 3 of the aLRP paper says. For delta = 0 without ties it is 1 - NDCG.

    Args:
        logits, targets, delta, eps, background, scope, image_index, algorithm, group: as in :func:`alrp_cuda.alrp_loss`.
        num_positives: P, or with ``scope="image"`` a sequence of the positives of each image, if the caller knows: on a CUDA
            device the call then makes no host synchronisation.

    Returns:
        The loss, a scalar >= 0, below 1 for delta = 0 without ties; float64 for float64 logits, else float32. Without
        positives 0, connected to the graph.

    Raises:
        TypeError, ValueError: as :func:`alrp_cuda.alrp_loss`; ``num_positives`` other than P.

    Example:
        >>> import torch, alrp_cuda
        >>> logits = torch.tensor([2.0, 1.0, 0.0], requires_grad=True)
        >>> loss = alrp_cuda.ndcg_loss(logits, torch.tensor([1, 0, 1]), delta=0.0)
        >>> loss.backward()
        >>> round(float(loss.detach()), 4), [round(g, 4) for g in logits.grad.tolist()]
        (0.0803, [0.0, 0.0803, -0.0803])
    """
    given = check_labelled(logits, targets, background)
    return scoped_loss(
        scope,
        image_index,
        given,
        None,
        algorithm=algorithm,
        loss="ndcg",
        delta=check_number("delta", delta),
        eps=check_number("eps", eps),
        num_positives=check_num_positives(num_positives, scope),
        group=group,
    )[0]


def rank_sort_loss(
    logits: Tensors,
    targets: Tensors,
    *,
    delta: float = 0.5,
    eps: float = 1e-10,
    num_positives: int | Sequence[int] | None = None,
    scope: str = "batch",
    image_index: Tensor | None = None,
    algorithm: str = "auto",
    group: "ProcessGroup | None" = None,
) -> RankSortOutput:
    """Rank & Sort Loss: ranks positives above negatives, and sorts positives by their continuous labels, as a rule the IoU of
    their boxes. Oksuz, Cam, Akbas, Kalkan, "Rank & Sort Loss for Object Detection and Instance Segmentation", ICCV 2021.

    With r+(i) = sum_k H(x_ik) over all positives k, i among them: rank = 1/P sum_i N_FP(i) / (r+(i) + N_FP(i)), and
    sort = 1/P sum_i l_S(i), where l_S(i) is the mean of 1 - y_k by H(x_ik), less the same over the k with y_k >= y_i.

    Args:
        logits: class scores before the sigmoid, any shape; float32, float64, float16 or bfloat16. Or a list, as in
            :func:`alrp_cuda.alrp_loss`.
        targets: labels y of the logits' shape, any floating dtype: above 0 and finite (as a rule at most 1) positive, 0
            negative, below 0 ignored.
        delta: half width of the step function H, in logits; finite, >= 0. 0 ranks by hard comparison.
        eps: a positive with N_FP(i) <= eps sends no gradient of ``rank``, one above no positive of a lower label, up to a sum
            of eps, none of ``sort``; finite, >= 0.
        num_positives: P, or with ``scope="image"`` a sequence of the positives of each image, if the caller knows: on a CUDA
            device the call then makes no host synchronisation.
        scope, image_index: as in :func:`alrp_cuda.alrp_loss`.
        algorithm, group: as in :func:`alrp_cuda.alrp_loss`; by either algorithm the sorting takes O(P log P) time
            on the CPU and O(P^2) on a CUDA device.

    Returns:
        RankSortOutput(rank, sort), scalars, float64 for float64 logits, else float32; rank in [0, 1], sort in [0, 1) for labels
        up to 1. Both reach the logits, each with its own incoming gradient. Without positives, both are 0 and connected to
        the graph. The gradient is error-driven, not the derivative of the value; a second derivative raises.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: shapes, devices, ranges or names that do not fit; a target that is NaN or infinity; ``num_positives`` other
            than P. On CUDA devices the last two give NaN instead, see :func:`alrp_cuda.set_debug`.

    Example:
        >>> import torch, alrp_cuda
        >>> logits = torch.tensor([2.0, 1.0, 0.0], requires_grad=True)
        >>> out = alrp_cuda.rank_sort_loss(logits, torch.tensor([0.5, 0.0, 1.0]))  # the better box scores below the other
        >>> (out.rank + out.sort).backward()
        >>> [round(v.item(), 4) for v in out], [round(g, 4) for g in logits.grad.tolist()]
        ([0.2, 0.1667], [0.1667, 0.2, -0.3667])
    """
    given = check_continuously_labelled(logits, targets)
    return RankSortOutput(
        *scoped_loss(
            scope,
            image_index,
            given,
            None,
            algorithm=algorithm,
            loss="rank_sort",
            delta=check_number("delta", delta),
            eps=check_number("eps", eps),
            num_positives=check_num_positives(num_positives, scope),
            group=group,
        )[:2]
    )
