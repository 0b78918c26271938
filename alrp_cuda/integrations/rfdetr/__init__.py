"""aLRP Loss and its relatives in RF-DETR.

Example:
    >>> from rfdetr import RFDETRNano
    >>> from alrp_cuda.integrations.rfdetr import use_alrp
    >>> small = {"resolution": 64, "positional_encoding_size": 4, "num_queries": 10, "num_select": 10, "pretrain_weights": None}
    >>> model = use_alrp(RFDETRNano(**small))  # then model.train(dataset_dir=...), as always
"""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from rfdetr import RFDETR
from rfdetr.models.criterion import SetCriterion

from ..queries import QueryRanking
from ..version import check_version
from .criterion import RankedCriterion, rank, unrank
from .training import rank_training, unrank_training

OLDEST = "1.11.2"  # what is tested; earlier ones hand other arguments to the losses of a criterion
with suppress(PackageNotFoundError):  # on the path, but not installed
    check_version("rfdetr", version("rfdetr"), OLDEST)

__all__ = ["undo_alrp", "use_alrp"]

T = TypeVar("T")


def use_alrp(
    model: T,
    *,
    loss: str = "alrp",
    errors: str = "giou",
    tau: float = 0.5,
    loss_weight: float = 1.0,
    balance: float | str | None = None,
    correlation: float = 0.0,
    delta: float | None = None,
    eps: float | None = None,
    order: str = "smooth",
    interpolate: bool | None = None,
    algorithm: str = "auto",
) -> T:
    """Make an RF-DETR train with a ranking loss in the place of its class loss.

    The class logits of all queries, images and classes of a batch are one ranking, whose positives are the queries that RF-DETR's
    own matcher gives to objects: one in each of its (thirteen) groups. With "alrp" it takes the place of the GIoU loss, too:

        L = L_cls + w L_loc,   L_cls = 1/P sum N_FP(i) / rank(i),   L_loc = 1/P sum (E_i + S_i) / rank(i)    (Eq. 11)

    of Oksuz et al., NeurIPS 2020, beside RF-DETR's L1 loss of boxes and its losses of masks, with their weights. Those of class
    and GIoU loss, the number of boxes and ``sum_group_losses`` do not act on L_cls and L_loc.

    The final output and each auxiliary one are a ranking each. The encoder keeps all its losses: its scores select queries from
    among places that no ranking sees. Of targets that are padded to a fixed number the
    padding is no positive. Logs have L_cls and L_loc as "loss_cls" and "loss_loc".

    Checkpoints have nothing of it; call this again before training goes on. Evaluation, prediction and export stay as they are.

    Args:
        model: an ``RFDETR`` for detection or segmentation, whose ``train`` then makes a module that ranks; or such a module, an
            ``RFDETRModelModule``, or any object with a ``criterion``; or a ``SetCriterion`` itself. Models of keypoints divide
            their losses by the number of boxes again, and are refused.
        loss: "alrp"; "ap" or "ndcg", beside RF-DETR's own box losses; or "rank_sort", Rank & Sort Loss, whose labels are the IoUs
            of the boxes, and with the mean of ``errors`` for tau = 0 in the place of the GIoU loss.
        errors: "giou": E = (1 - GIoU) / 2 / (1 - tau), or "iou": E = (1 - IoU) / (1 - tau); not with "ap" and "ndcg".
        tau: the IoU that a true positive needs, in [0, 1); only with "alrp".
        loss_weight: what both losses are multiplied by, >= 0; not the L1 loss, nor others that stay.
        balance: w, what the gradient of L_loc is multiplied by, not its value: a number >= 0; "value" for (class loss / box
            loss) of the output; None for "value" with "rank_sort" and 1 otherwise. There is no "self": the L1 loss, which
            stays, keeps boxes learning when L_loc becomes small. Not with "ap" and "ndcg".
        correlation: the weight in the class loss, >= 0, of :func:`alrp_cuda.correlation_loss`, 1 - rho of positives' scores and
            IoUs. Published weights are 0.1 to 0.4.
        delta: half the width of the step function's ramp, in logits, >= 0; None for 1 or, with "rank_sort", 0.5.
        eps: see the loss, as :func:`alrp_cuda.alrp_loss`; None for its default.
        order: "smooth" or "hard", see :func:`alrp_cuda.alrp_loss`; only with "alrp".
        interpolate: see :func:`alrp_cuda.ap_loss`; only with "ap".
        algorithm: see :func:`alrp_cuda.alrp_loss`.

    Returns:
        ``model`` itself. Calling this again replaces the settings; :func:`undo_alrp` takes them out.

    Raises:
        TypeError: ``model`` is none of the above, or an argument is of the wrong type.
        ValueError: an argument is out of range, of an unknown name, or of another loss.

    Example:
        >>> from rfdetr.models.criterion import SetCriterion
        >>> weights = {"loss_ce": 2.0, "loss_bbox": 5.0, "loss_giou": 2.0}
        >>> criterion = SetCriterion(3, matcher=None, weight_dict=weights, focal_alpha=0.25, losses=["labels", "boxes"])
        >>> [name for name in use_alrp(criterion).weight_dict if name not in weights]
        ['loss_cls', 'loss_loc']
    """
    target = _target(model)
    ranking = QueryRanking(
        loss=loss,
        errors=errors,
        tau=tau,
        loss_weight=loss_weight,
        balance=balance,
        correlation=correlation,
        delta=delta,
        eps=eps,
        order=order,
        interpolate=interpolate,
        algorithm=algorithm,
    )
    if isinstance(target, RFDETR):
        rank_training(target, ranking)
    else:
        rank(target, ranking)
    return model


def undo_alrp(model: T) -> T:
    """Let what was given to :func:`use_alrp` train with RF-DETR's losses again.

    Args:
        model: that, or a copy of it; what never was given to it stays as it is.

    Returns:
        ``model`` itself.

    Raises:
        TypeError: ``model`` is of a kind that :func:`use_alrp` does not take.

    Example:
        >>> from rfdetr.models.criterion import SetCriterion
        >>> criterion = SetCriterion(3, matcher=None, weight_dict={"loss_ce": 1.0}, focal_alpha=0.25, losses=["labels"])
        >>> type(undo_alrp(use_alrp(criterion))).__name__, criterion.weight_dict
        ('SetCriterion', {'loss_ce': 1.0})
    """
    target = _target(model)
    if isinstance(target, RFDETR):
        unrank_training(target)
    else:
        unrank(target)
    return model


def _target(model: object) -> Any:
    """What there is to change. Raises TypeError unless its losses are known here."""
    found: Any = model if isinstance(model, RFDETR | SetCriterion) else getattr(model, "criterion", None)
    if isinstance(found, RFDETR):
        keypoints = found.model_config.use_grouppose_keypoints
    elif type(found) in (SetCriterion, RankedCriterion):
        keypoints = "keypoints" in found.losses
    else:
        raise TypeError(
            f"model must be an RFDETR, an RFDETRModelModule or a SetCriterion, got {type(model).__name__}"
            + ("" if found is None else f" with {type(found).__name__}")
        )
    if keypoints:
        raise TypeError(f"model must detect boxes or masks, got {type(model).__name__} with keypoints")
    return found
