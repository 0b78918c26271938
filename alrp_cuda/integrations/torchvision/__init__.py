"""aLRP Loss and its relatives in torchvision's detectors: RetinaNet, FCOS, SSD, SSDlite; Faster, Mask and Keypoint R-CNN.

Example:
    >>> import torch, torchvision
    >>> from alrp_cuda.integrations.torchvision import use_alrp
    >>> build = torchvision.models.detection.retinanet_resnet50_fpn
    >>> model = use_alrp(build(weights_backbone=None, num_classes=3, min_size=64, max_size=64))
    >>> target = {"boxes": torch.tensor([[10.0, 20.0, 90.0, 80.0]]), "labels": torch.tensor([1])}
    >>> losses = model([torch.rand(3, 100, 120)], [target])
    >>> sorted(losses)
    ['bbox_regression', 'classification']
    >>> sum(losses.values()).backward()
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD

from ...inputs import check_choice, check_flag, check_number
from ..errors import check_tau, giou_errors, iou_errors, paired_iou
from ..prior import check_prior
from . import faster_rcnn, fcos, retinanet, ssd
from .assign import atss
from .prior import focal_class_bias, restore_bias, set_prior
from .ranking import RankingLoss
from .replacement import apply_replacements, is_replaced, restore

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["atss", "giou_errors", "iou_errors", "paired_iou", "undo_alrp", "use_alrp"]

M = TypeVar("M", bound=nn.Module)


def use_alrp(
    model: M,
    *,
    loss: str = "alrp",
    errors: str = "giou",
    tau: float = 0.5,
    loss_weight: float = 1.0,
    balance: float | str | None = None,
    epoch_length: int | None = None,
    balance_group: "ProcessGroup | None" = None,
    correlation: float = 0.0,
    assign: str | None = None,
    centerness: bool = False,
    rpn_tau: float | None = None,
    rpn_weight: float | None = None,
    prior_probability: float | None = 0.01,
    delta: float | None = None,
    eps: float | None = None,
    order: str = "smooth",
    interpolate: bool | None = None,
    algorithm: str = "auto",
    group: "ProcessGroup | None" = None,
) -> M:
    """Make a torchvision detector train with a ranking loss in the place of its own losses.

    The class logits of all images, levels and anchors of a batch are one ranking. With "alrp" the loss is

        L = L_cls + w L_loc,   L_cls = 1/P sum N_FP(i) / rank(i),   L_loc = 1/P sum (E_i + S_i) / rank(i)    (Eq. 11)

    where E is computed from the decoded boxes. Only this instance changes: parameters (but an untrained bias, see below), the
    names of the losses, copying and pickling stay as they were, and so do the keys of its state_dict, except with
    ``balance="self"``. Calling it again replaces the settings; :func:`undo_alrp` brings torchvision's losses back. Pass the model
    before it is wrapped, as by DistributedDataParallel.

    In training, class maps go from the head to the loss as they lie in memory, neither permuted nor joined. A model or head with
    a ``forward`` of its own keeps its way, and a warning says so.

    What is ranked, and how evaluation scores:

    - **RetinaNet** (v1 and v2): all anchors but those that overlap an object by an IoU between the matcher's thresholds.
      Evaluation is torchvision's.
    - **FCOS**: all locations. A ranking needs no centre-ness: unless ``centerness`` is true, "bbox_ctrness" is 0 and
      evaluation scores by sqrt(sigmoid(logit)), torchvision's formula with a centre-ness of 1.
    - **SSD, SSDlite**: all default boxes; no negatives are mined.
    - **Faster R-CNN**: the RPN ranks all anchors, its losses weighted by ``rpn_weight``; the box head ranks all proposals with
      all classes. Neither samples, so the box head sees all that the RPN proposes (and the objects themselves, as usual in
      torchvision): ``rpn_post_nms_top_n_train``, 2000 in torchvision, limits memory and time. Mask R-CNN and Keypoint R-CNN
      likewise; their masks and keypoints keep torchvision's losses, of as many positives as it samples.

    The heads of SSD and Faster R-CNN are made for a softmax over 1 + C logits. A ranking compares logits of different anchors,
    which a softmax leaves open up to a constant for each anchor. So, as in the paper, they are read as one binary classifier per
    class: columns 1..C are ranked, and the background's column 0 takes no part in training nor in evaluation, which scores by
    sigmoid. Weights that were trained with a softmax need training before their scores mean anything again.

    A ranking fixes the order of scores, not their level: no score needs to pass the model's ``score_thresh`` for the loss to be
    small. Lower it where detections are missing, and raise it where too many pass: torchvision's is 0.05 for RetinaNet and
    Faster R-CNN, but 0.01 for SSD and 0.001 for SSDlite.

    The level stays about where the bias of the class logits begins. RetinaNet and FCOS begin at scores of 0.01; heads made for
    a softmax would begin at 0.5, where every score passes the threshold. So ``prior_probability`` p sets their bias to
    -log((1 - p) / p), for the ranked columns alone, if it is untrained. The RPN's stays, since its proposals are the
    best by order.

    - *Weights loaded before* this call: a trained bias has left the range of torchvision's initialiser and stays. That range is
      0 for SSD and SSDlite, +-1/sqrt(features) for Faster R-CNN, -log(99) for RetinaNet and FCOS. One logit outside it is enough.
    - *Weights loaded afterwards* replace the bias like any parameter, trained or not.
    - *Calling it again* never sets the bias. :func:`undo_alrp` ends that.
    - Class heads of other types keep their bias. Change a head before this call.

    A head warns, once, where 100 training steps in a row had no positive. docs/troubleshooting.md: how to see what a head ranks.

    Args:
        model: a RetinaNet, FCOS, SSD or FasterRCNN of ``torchvision.models.detection``, with any backbone.
        loss: "alrp"; "ap" or "ndcg", beside the model's own box loss; or "rank_sort", Rank & Sort Loss, whose labels are the IoUs
            of the decoded boxes, beside the mean of ``errors`` for tau = 0. The model's own box loss is torchvision's for
            RetinaNet; for others it is the same function (smooth L1 of codes, GIoU for FCOS) averaged over the positives.
        errors: "giou": E = (1 - GIoU) / 2 / (1 - tau), or "iou": E = (1 - IoU) / (1 - tau); not with "ap" and "ndcg".
        tau: the IoU that a true positive needs, in [0, 1); only with "alrp".
        loss_weight: what both losses are multiplied by, >= 0; of Faster R-CNN, those of the box head.
        balance: w, what the gradient of the box loss is multiplied by, not its value: a number >= 0; "self" for self-balancing
            (sec. 4.2); "value" for (class loss / box loss) of the iteration, as Rank & Sort Loss does; None for "value" with
            "rank_sort" and 1 otherwise. The gradient of the logits does not depend on it.
        epoch_length: iterations of an epoch, only with "self"; None: signalled by calling ``end_epoch()`` of every
            :class:`alrp_cuda.SelfBalance` among ``model.modules()``. Their buffers are saved and loaded with the model.
        balance_group: the :class:`torch.distributed.ProcessGroup` of the ranks that train, over which self-balancing adds up
            losses; only with "self". None: those of ``group``, else all. A model with a group can be neither copied nor pickled
            as a whole.
        correlation: the weight in the class loss, >= 0, of :func:`alrp_cuda.correlation_loss`, 1 - rho of positives' scores and
            IoUs; of Faster R-CNN, in that of the box head. Published weights are 0.1 to 0.4.
        assign: "atss" assigns anchors of a RetinaNet by adaptive training sample selection; None by the model's matcher.
        centerness: train and use the centre-ness of FCOS as torchvision does.
        rpn_tau: tau of Faster R-CNN's RPN; None for 0.7, as in the published code.
        rpn_weight: what both losses of Faster R-CNN's RPN are multiplied by, >= 0; None for 0.20, as in the paper.
        prior_probability: the score, between 0 and 1, that each class begins with if its bias is untrained; None leaves it alone.
        delta: half the width of the step function's ramp, in logits, >= 0; None for 1 or, with "rank_sort", 0.5.
        eps: see the loss, as :func:`alrp_cuda.alrp_loss`; None for its default.
        order: "smooth" or "hard", see :func:`alrp_cuda.alrp_loss`; only with "alrp".
        interpolate: see :func:`alrp_cuda.ap_loss`; only with "ap".
        algorithm: see :func:`alrp_cuda.alrp_loss`.
        group: the ranks whose logits are ranked together, see :func:`alrp_cuda.alrp_loss`. Under DistributedDataParallel, class
            losses and the box losses of "alrp" then need :func:`alrp_cuda.distributed.scale_for_ddp`.

    Returns:
        ``model`` itself.

    Raises:
        TypeError: ``model`` or its head is none of the above, or an argument of the wrong type.
        ValueError: a number outside its range, an unknown name, or an argument that is not for this model.

    Example:
        >>> import torchvision
        >>> model = torchvision.models.detection.fcos_resnet50_fpn(weights_backbone=None, num_classes=3)
        >>> model = use_alrp(model, balance="self", epoch_length=1000)
        >>> [name for name in model.state_dict() if "balance" in name]
        ['head.ranking.balance.weight', 'head.ranking.balance.sums', 'head.ranking.balance.iteration']
        >>> model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights_backbone=None, num_classes=3)
        >>> use_alrp(model, prior_probability=0.02).head.classification_head.module_list[0][1].bias.view(-1, 3)[0].sigmoid()
        tensor([0.5000, 0.0200, 0.0200], grad_fn=<SigmoidBackward0>)
    """
    balancing: dict[str, Any] = {"balance": balance, "epoch_length": epoch_length, "balance_group": balance_group}
    options = {"delta": delta, "eps": eps, "order": order, "interpolate": interpolate, "algorithm": algorithm, "group": group}
    weights = {"loss_weight": loss_weight, "correlation": correlation}
    make = partial(_make_loss, model, loss=loss, errors=errors, tau=tau, **weights, **balancing, **options)
    if prior_probability is not None:
        prior_probability = check_prior("prior_probability", prior_probability)
    check_flag("centerness", centerness)
    if assign is not None:
        check_choice("assign", assign, ("atss",))
    others = {"assign": assign, "centerness": centerness or None, "rpn_tau": rpn_tau, "rpn_weight": rpn_weight}
    if isinstance(model, RetinaNet):
        _refuse(model, others, "assign")
        replaced, bias = retinanet.replacements(model, make, assign), focal_class_bias(model)
    elif isinstance(model, FCOS):
        _refuse(model, others, "centerness")
        replaced, bias = fcos.replacements(model, make, centerness), focal_class_bias(model)
    elif isinstance(model, SSD):
        _refuse(model, others)
        replaced, bias = ssd.replacements(model, make), ssd.class_bias(model)
    elif isinstance(model, FasterRCNN):
        _refuse(model, others, "rpn_tau", "rpn_weight")
        rpn_tau = faster_rcnn.RPN_TAU if rpn_tau is None else check_tau("rpn_tau", rpn_tau)
        rpn_weight = faster_rcnn.RPN_WEIGHT if rpn_weight is None else check_number("rpn_weight", rpn_weight)
        replaced, bias = faster_rcnn.replacements(model, make, rpn_tau, rpn_weight), faster_rcnn.class_bias(model)
    else:
        raise TypeError(f"model must be a torchvision RetinaNet, FCOS, SSD or FasterRCNN, got {type(model).__name__}")
    if prior_probability is not None and not is_replaced(model):
        set_prior(model, bias, prior_probability)
    apply_replacements(model, replaced)
    return model


def undo_alrp(model: M) -> M:
    """Bring back the losses, the evaluation and the untrained class bias that the model had before :func:`use_alrp`.

    The bias comes back bit by bit, but only if it is as :func:`use_alrp` left it: what was trained or loaded since then stays.

    Args:
        model: what was given to :func:`use_alrp`, or a copy of it. Any other model stays as it is.

    Returns:
        ``model`` itself.

    Example:
        >>> import torchvision
        >>> model = torchvision.models.detection.fcos_resnet50_fpn(weights_backbone=None, num_classes=3)
        >>> "compute_loss" in vars(use_alrp(model).head), "compute_loss" in vars(undo_alrp(model).head)
        (True, False)
    """
    restore(model)
    restore_bias(model)
    return model


def _make_loss(model: nn.Module, **settings: Any) -> RankingLoss:
    """The loss of a head, where the model is."""
    loss = RankingLoss(**settings)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return loss.to(device).train(model.training)


def _refuse(model: nn.Module, others: Mapping[str, object], *taken: str) -> None:
    """Raise ValueError where an argument is given that only other models take."""
    for name, value in others.items():
        if value is not None and name not in taken:
            raise ValueError(f"{name} must be left out for a {type(model).__name__}, got {value!r}")
