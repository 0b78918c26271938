"""aLRP Loss and its relatives in Ultralytics' detectors.

Example:
    >>> from ultralytics import YOLO
    >>> from alrp_cuda.integrations.ultralytics import use_alrp
    >>> yolo = use_alrp(YOLO("yolo11n.yaml"), balance="self")  # then yolo.train(data=...), as always
"""

from typing import TypeVar

from ultralytics import __version__
from ultralytics.engine.model import Model

from ...inputs import check_choice, check_number
from ..prior import check_prior
from ..ranking import RankingLoss, use_alrp_settings
from ..version import check_version
from .callbacks import Callbacks
from .criterion import check_model

OLDEST = "8.4.190"  # earlier ones compute no box loss for a batch without objects, or name the losses elsewhere
check_version("ultralytics", __version__, OLDEST)

__all__ = ["undo_alrp", "use_alrp"]

Y = TypeVar("Y", bound=Model)


def use_alrp(
    yolo: Y,
    *,
    loss: str = "alrp",
    errors: str = "giou",
    tau: float = 0.5,
    loss_weight: float = 1.0,
    balance: float | str | None = None,
    correlation: float = 0.0,
    labels: str | None = None,
    dfl_weight: float = 0.2,
    prior_probability: float | None = 0.01,
    delta: float | None = None,
    eps: float | None = None,
    order: str = "smooth",
    interpolate: bool | None = None,
    algorithm: str = "auto",
) -> Y:
    """Make an Ultralytics detector train with a ranking loss in the place of its losses of boxes and classes.

    The class logits of all images, levels and classes of a batch are one ranking, whose positives are those of the model's own
    assigner. With "alrp" the loss is

        L = L_cls + w L_loc + d L_dfl,   L_cls = 1/P sum N_FP(i) / rank(i),   L_loc = 1/P sum (E_i + S_i) / rank(i)    (Eq. 11)

    of Oksuz et al., NeurIPS 2020, where E is computed from the decoded boxes, and L_dfl is Ultralytics' distribution focal loss
    of their bins (L1, where a model has none). The gains ``box``, ``cls`` and ``dfl``, divisions by the sum of target scores
    and multiplications by the batch size do not act on L_cls and L_loc. Two heads of an end-to-end model, as YOLOv10 and
    YOLO26, have a ranking each, and are weighted as ever.

    ``yolo.train`` makes a new model each time, so what is set here are callbacks of ``yolo``, which give that model its
    criterion when it is ready, also in the processes of a parallel training. Checkpoints have nothing of it; call this again
    before resuming one. Evaluation, prediction and export stay as they are.

    A ranking fixes the order of scores, not their level: that stays about where the bias of the class logits begins, which
    these models do at scores of 1e-5 to 2e-4 with 80 classes, below every threshold. So ``prior_probability`` p sets the bias
    of all levels to log(p / (1 - p)), if it is untrained.

    Args:
        yolo: a ``YOLO`` whose model is a ``DetectionModel``. Models of segments, poses, rotated boxes or prompts, and RT-DETR,
            have other criteria.
        loss: "alrp"; "ap" or "ndcg", beside Ultralytics' box loss (CIoU); or "rank_sort", Rank & Sort Loss, beside the mean of
            ``errors`` for tau = 0.
        errors: "giou": E = (1 - GIoU) / 2 / (1 - tau), or "iou": E = (1 - IoU) / (1 - tau); not with "ap" and "ndcg".
        tau: the IoU that a true positive needs, in [0, 1); only with "alrp".
        loss_weight: what both losses are multiplied by, >= 0; not the distribution focal loss.
        balance: w, what the gradient of the box loss is multiplied by, not its value: a number >= 0; "self" for self-balancing
            (sec. 4.2), whose epochs are the trainer's; "value" for (class loss / box loss) of the iteration; None for "value"
            with "rank_sort" and 1 otherwise.
        correlation: the weight in the class loss, >= 0, of :func:`alrp_cuda.correlation_loss`, 1 - rho of positives' scores and
            IoUs. Published weights are 0.1 to 0.4.
        labels: of Rank & Sort Loss: "iou", the IoUs of the decoded boxes, as None, or "assigner", the assigner's target
            scores; both at least 1e-6. Only with "rank_sort".
        dfl_weight: d, >= 0. 0.2 is the ratio to the box loss that Ultralytics' gains have.
        prior_probability: p, between 0 and 1, the score that every class begins with if its bias is untrained; None: it stays.
        delta: half the width of the step function's ramp, in logits, >= 0; None for 1 or, with "rank_sort", 0.5.
        eps: see the loss, as :func:`alrp_cuda.alrp_loss`; None for its default.
        order: "smooth" or "hard", see :func:`alrp_cuda.alrp_loss`; only with "alrp".
        interpolate: see :func:`alrp_cuda.ap_loss`; only with "ap".
        algorithm: see :func:`alrp_cuda.alrp_loss`.

    Returns:
        ``yolo`` itself. Calling this again replaces the settings; :func:`undo_alrp` takes them out.

    Raises:
        TypeError: ``yolo`` is no ``YOLO`` of a supported model, or an argument is of the wrong type.
        ValueError: an argument is out of range, of an unknown name, or of another loss. ``yolo.train`` raises it for ``cls_pw``
            above 0: a ranking weighs no classes.

    Example:
        >>> from ultralytics import YOLO
        >>> yolo = use_alrp(YOLO("yolo26n.yaml"), loss="rank_sort", labels="assigner")
        >>> [len(yolo.callbacks[event]) for event in ("on_pretrain_routine_end", "on_train_epoch_end")]
        [2, 2]
    """
    if not isinstance(yolo, Model):
        raise TypeError(f"yolo must be an ultralytics.YOLO, got {type(yolo).__name__}")
    check_model("yolo.model", yolo.model)
    if labels is not None:
        check_choice("labels", labels, ("iou", "assigner"))
        if loss != "rank_sort":
            raise ValueError(f"labels must be None unless loss is 'rank_sort', got {labels!r}")
    dfl_weight = check_number("dfl_weight", dfl_weight)
    if prior_probability is not None:
        prior_probability = check_prior("prior_probability", prior_probability)
    ranking = use_alrp_settings(
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
    RankingLoss(**ranking)  # raises here, not in training
    undo_alrp(yolo)
    for event, callback in Callbacks(ranking, labels or "iou", dfl_weight, prior_probability).by_event.items():
        yolo.add_callback(event, callback)
    return yolo


def undo_alrp(yolo: Y) -> Y:
    """Let a detector train with its own losses again.

    Args:
        yolo: what was given to :func:`use_alrp`. Any other stays as it is.

    Returns:
        ``yolo`` itself.

    Example:
        >>> from ultralytics import YOLO
        >>> yolo = YOLO("yolov8n.yaml")
        >>> before = dict(yolo.callbacks)
        >>> undo_alrp(use_alrp(yolo)).callbacks == before
        True
    """
    for event, callbacks in yolo.callbacks.items():
        yolo.callbacks[event] = [each for each in callbacks if not isinstance(getattr(each, "__self__", None), Callbacks)]
    return yolo
