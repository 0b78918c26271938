"""aLRP Loss and its relatives in the detectors of Transformers that come from DETR.

Example:
    >>> import torch
    >>> from transformers import AutoModelForObjectDetection, RTDetrConfig
    >>> from alrp_cuda.integrations.transformers import use_alrp
    >>> config = RTDetrConfig(num_labels=3, num_queries=30, decoder_layers=2)
    >>> model = use_alrp(AutoModelForObjectDetection.from_config(config))
    >>> labels = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.6]])}]
    >>> losses = model.train()(torch.rand(1, 3, 64, 64), labels=labels).loss_dict
    >>> [name for name in losses if "aux" not in name and "dn" not in name]
    ['loss_cls', 'loss_loc', 'loss_bbox']
"""

from typing import Any, TypeVar

from transformers import PreTrainedModel, __version__

from ..prior import check_prior
from ..queries import QueryRanking
from ..version import check_version
from .criteria import CRITERIA
from .function import RankedLossFunction
from .prior import set_prior

OLDEST = "5.24.0"  # what is tested; earlier ones know fewer of these models, and rank denoising queries among the others
check_version("transformers", __version__, OLDEST)

__all__ = ["undo_alrp", "use_alrp"]

M = TypeVar("M", bound=PreTrainedModel)


def use_alrp(
    model: M,
    *,
    loss: str = "alrp",
    errors: str = "giou",
    tau: float = 0.5,
    loss_weight: float = 1.0,
    balance: float | str | None = None,
    correlation: float = 0.0,
    prior_probability: float | None = 0.01,
    delta: float | None = None,
    eps: float | None = None,
    order: str = "smooth",
    interpolate: bool | None = None,
    algorithm: str = "auto",
) -> M:
    """Make a detector of Transformers train with a ranking loss in the place of its class loss.

    The class logits of all queries, images and classes of a batch are one ranking, whose positives are the queries that the
    model's own matcher gives to objects. With "alrp" it takes the place of the GIoU loss, too:

        L = L_cls + w L_loc,   L_cls = 1/P sum N_FP(i) / rank(i),   L_loc = 1/P sum (E_i + S_i) / rank(i)    (Eq. 11)

    of Oksuz et al., NeurIPS 2020, beside the model's L1 loss of boxes, its distribution losses (D-FINE, DEIMv2), and the weights
    that its configuration gives to these. Those of class and GIoU losses do not act on L_cls and L_loc.

    The final output and each auxiliary one are a ranking each. Denoising queries keep all their losses, and so does the encoder,
    whose scores select queries from among places that no ranking sees. Of groups of queries (LW-DETR) all are ranked together.
    ``loss_dict`` has L_cls and L_loc as "loss_cls" and "loss_loc".

    It is ``model.loss_function`` that changes: nothing is saved of it, nor loaded, so call this again after
    ``from_pretrained``. Evaluation and post-processing stay as they are.

    Args:
        model: an object detector whose loss function is that of RT-DETR (v1 and v2), D-FINE, DEIMv2, LW-DETR, Deformable DETR
            or Conditional DETR.
        loss: "alrp"; "ap" or "ndcg", beside the model's own box losses; or "rank_sort", Rank & Sort Loss, whose labels are the
            IoUs of the boxes, and with the mean of ``errors`` for tau = 0 in the place of the GIoU loss.
        errors: "giou": E = (1 - GIoU) / 2 / (1 - tau), or "iou": E = (1 - IoU) / (1 - tau); not with "ap" and "ndcg".
        tau: the IoU that a true positive needs, in [0, 1); only with "alrp".
        loss_weight: what both losses are multiplied by, >= 0; not the L1 loss, nor others that stay.
        balance: w, what the gradient of L_loc is multiplied by, not its value: a number >= 0; "value" for (class loss / box
            loss) of the output; None for "value" with "rank_sort" and 1 otherwise. There is no "self": the L1 loss, which
            stays, keeps boxes learning when L_loc becomes small. Not with "ap" and "ndcg".
        prior_probability: the score, between 0 and 1, that every class begins with where all class biases are 0, as in
            untrained Deformable and Conditional DETR; the other models have a prior of their own. None: they stay.
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
        TypeError: ``model`` is none of the above, or has a loss function of the user's; or an argument is of the wrong type.
        ValueError: an argument is out of range, of an unknown name, or of another loss.

    Example:
        >>> from transformers import AutoModelForObjectDetection, RTDetrConfig
        >>> model = AutoModelForObjectDetection.from_config(RTDetrConfig(num_labels=3, decoder_layers=2))
        >>> model = use_alrp(model, loss="rank_sort", errors="iou")  # then train it as ever
        >>> model.loss_function.own.__name__
        'RTDetrForObjectDetectionLoss'
    """
    own = _own_loss_function(model)
    if own not in CRITERIA:
        raise TypeError(
            f"model must be a detector of Transformers with the loss function of RT-DETR, D-FINE, DEIMv2, LW-DETR, Deformable "
            f"DETR or Conditional DETR, got {type(model).__name__} with {getattr(own, '__name__', own)}"
        )
    if prior_probability is not None:
        prior_probability = check_prior("prior_probability", prior_probability)
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
    if prior_probability is not None:
        set_prior(model, prior_probability)
    model.loss_function = RankedLossFunction(own, ranking)
    return model


def undo_alrp(model: M) -> M:
    """Bring back the loss function that a model had before :func:`use_alrp`. A bias that this set stays.

    Args:
        model: what was given to :func:`use_alrp`, or a copy of it. Any other model stays as it is.

    Returns:
        ``model`` itself.

    Example:
        >>> from transformers import AutoModelForObjectDetection, RTDetrConfig
        >>> model = AutoModelForObjectDetection.from_config(RTDetrConfig(num_labels=3, decoder_layers=2))
        >>> undo_alrp(use_alrp(model)).loss_function.__name__
        'RTDetrForObjectDetectionLoss'
    """
    if isinstance(model.loss_function, RankedLossFunction):
        model.loss_function = model.loss_function.own
    return model


def _own_loss_function(model: object) -> Any:
    """That of Transformers, also where :func:`use_alrp` has put another in its place. None for what is no model."""
    function = model.loss_function if isinstance(model, PreTrainedModel) else None
    return function.own if isinstance(function, RankedLossFunction) else function
