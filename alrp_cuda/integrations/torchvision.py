"""aLRP Loss in torchvision's RetinaNet.

Example:
    >>> import torch, torchvision
    >>> from alrp_cuda.integrations.torchvision import use_alrp
    >>> model = use_alrp(torchvision.models.detection.retinanet_resnet50_fpn(weights_backbone=None, num_classes=3))
    >>> target = {"boxes": torch.tensor([[10.0, 20.0, 90.0, 80.0]]), "labels": torch.tensor([1])}
    >>> losses = model([torch.rand(3, 100, 120)], [target])
    >>> sorted(losses)
    ['bbox_regression', 'classification']
    >>> sum(losses.values()).backward()
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import generalized_box_iou_loss

from ..functional import alrp_loss
from ..inputs import ORDERS, check_choice, check_number


def giou_errors(codes: Tensor, anchors: Tensor, boxes: Tensor, box_coder: BoxCoder, tau: float = 0.5) -> Tensor:
    """Localisation errors E = (1 - GIoU) / 2 / (1 - tau) of decoded boxes, differentiable in ``codes``.

    E is 0 for a perfect box, 1 where GIoU is 2 tau - 1, and below 1 / (1 - tau); nothing is clamped.

    Args:
        codes: (P, 4), the regression head's output at the positives. Half types are decoded in float32.
        anchors: (P, 4), their anchors as x1, y1, x2, y2.
        boxes: (P, 4), the objects they are matched to, as x1, y1, x2, y2.
        box_coder: what the codes mean; the regression head's.
        tau: the IoU that a true positive needs, in [0, 1).

    Returns:
        (P,), of the dtype of the decoded boxes.

    Raises:
        RuntimeError: shapes that do not fit, from torch.

    Example:
        >>> import torch
        >>> from torchvision.models.detection._utils import BoxCoder
        >>> anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        >>> codes = torch.zeros(1, 4)  # the anchor itself
        >>> errors = giou_errors(codes, anchors, torch.tensor([[0.0, 0.0, 10.0, 5.0]]), BoxCoder((1.0, 1.0, 1.0, 1.0)))
        >>> round(errors.item(), 4)  # (1 - 0.5) / 2 / (1 - 0.5)
        0.5
    """
    codes = codes.to(torch.promote_types(codes.dtype, torch.float32))
    decoded = box_coder.decode_single(codes, anchors)
    loss: Tensor = generalized_box_iou_loss(decoded, boxes.to(decoded.dtype))  # 1 - GIoU
    return loss / 2 / (1 - tau)


@dataclass
class RetinaNetALRP:
    """What :func:`use_alrp` puts in the place of ``model.head.compute_loss``; its fields may be set between iterations.

    Attributes:
        box_coder: decodes the regression head's output.
        box_weight: w in ``L_cls + w L_loc``.
        tau: the IoU that a true positive needs.
        delta: half the width of the step function's ramp, in logits.
        order: "smooth" or "hard", see :func:`alrp_cuda.alrp_loss`.
        algorithm: the algorithm of :func:`alrp_cuda.alrp_loss`.
        backend: the backend of :func:`alrp_cuda.alrp_loss`.

    Example:
        >>> import torchvision
        >>> model = torchvision.models.detection.retinanet_resnet50_fpn(weights_backbone=None, num_classes=3)
        >>> model = use_alrp(model)
        >>> model.head.compute_loss.box_weight = 2.0
        >>> type(model.head.compute_loss).__name__
        'RetinaNetALRP'
    """

    box_coder: BoxCoder
    box_weight: float = 1.0
    tau: float = 0.5
    delta: float = 1.0
    order: str = "smooth"
    algorithm: str = "auto"
    backend: str = "auto"

    def __call__(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        """The two losses of a batch of N images with A anchors each, all ranked together.

        Args:
            targets: an image's "boxes" (M, 4) and "labels" (M,), M >= 0.
            head_outputs: "cls_logits" (N, A, C) and "bbox_regression" (N, A, 4).
            anchors: N tensors (A, 4).
            matched_idxs: N tensors (A,): the index of the anchor's object, -1 for background, -2 (ignored) for an
                anchor whose overlap lies between the matcher's thresholds.

        Returns:
            "classification", L_cls of Eq. 11, whose backward carries the gradient of the whole aLRP to the logits, and
            "bbox_regression", w L_loc, whose backward reaches the box codes only. Both are 0 without a positive.

        Raises:
            ValueError: a label outside 0..C-1; on CUDA devices the losses are NaN instead, see
                :func:`alrp_cuda.set_debug`.
        """
        logits, codes = head_outputs["cls_logits"], head_outputs["bbox_regression"]
        matched = torch.stack(matched_idxs)
        image, anchor = (matched >= 0).nonzero(as_tuple=True)  # the positives, in flat order

        # The positives' objects, as indices into all images' objects joined: one gather, whatever the number of images.
        count = torch.tensor([len(t["labels"]) for t in targets], device=matched.device)
        matched_object = matched[image, anchor] + (count.cumsum(0) - count)[image]
        labels = torch.cat([t["labels"] for t in targets])[matched_object]
        boxes = torch.cat([t["boxes"] for t in targets])[matched_object]

        classes = torch.where(matched == Matcher.BETWEEN_THRESHOLDS, -1, logits.shape[-1])  # else background, C
        classes[image, anchor] = labels.to(classes.dtype)
        errors = giou_errors(codes[image, anchor], torch.stack(anchors)[image, anchor], boxes, self.box_coder, self.tau)
        out = alrp_loss(
            logits,
            classes,
            errors,
            delta=self.delta,
            order=self.order,
            algorithm=self.algorithm,
            backend=self.backend,
        )
        return {"classification": out.cls, "bbox_regression": self.box_weight * out.loc}


def use_alrp(
    model: RetinaNet,
    *,
    box_weight: float = 1.0,
    tau: float = 0.5,
    delta: float = 1.0,
    order: str = "smooth",
    algorithm: str = "auto",
    backend: str = "auto",
) -> RetinaNet:
    """Make a torchvision RetinaNet train with aLRP Loss in the place of Focal Loss and its box loss.

    With every anchor's class logits in one ranking over the levels, images and classes of the batch, the loss is

        L = L_cls + w L_loc,   L_cls = 1/P sum N_FP(i) / rank(i),   L_loc = 1/P sum (E_i + S_i) / rank(i)    (Eq. 11)

    where E = (1 - GIoU) / 2 / (1 - tau) of the decoded boxes. Anchors that overlap an object by an IoU between the
    matcher's thresholds take no part. Only this instance changes: parameters, the keys of its state_dict, the losses'
    names, evaluation, copying and pickling stay as they were. Calling it again replaces the settings;
    ``del model.head.compute_loss`` brings torchvision's losses back.

    A ranking fixes the order of scores, not their level: no score needs to pass the model's ``score_thresh`` (0.05 by
    default) for the loss to be small. Lower it where detections are missing.

    Args:
        model: a ``torchvision.models.detection.RetinaNet``, such as ``retinanet_resnet50_fpn`` and its ``_v2`` build.
        box_weight: w >= 0, scales the gradient of the boxes; the gradient of the logits does not depend on it.
        tau: the IoU that a true positive needs, in [0, 1).
        delta: half the width of the step function's ramp, in logits, >= 0.
        order: "smooth" or "hard", see :func:`alrp_cuda.alrp_loss`.
        algorithm: the algorithm of :func:`alrp_cuda.alrp_loss`.
        backend: the backend of :func:`alrp_cuda.alrp_loss`.

    Returns:
        ``model`` itself.

    Raises:
        TypeError: ``model`` is no RetinaNet or its head no RetinaNetHead, or a number is none.
        ValueError: a number outside its range, or an unknown ``order``. An unknown ``algorithm`` or ``backend`` raises
            at the first batch.

    Example:
        >>> import torch, torchvision
        >>> build = torchvision.models.detection.retinanet_resnet50_fpn_v2
        >>> model = use_alrp(build(weights_backbone=None, num_classes=91, min_size=128, max_size=128))
        >>> target = {"boxes": torch.tensor([[10.0, 20.0, 90.0, 80.0]]), "labels": torch.tensor([1])}
        >>> losses = model([torch.rand(3, 128, 128)], [target])  # {"classification": ..., "bbox_regression": ...}
        >>> sum(losses.values()).backward()
    """
    if not isinstance(model, RetinaNet):
        raise TypeError(f"model must be a torchvision.models.detection.RetinaNet, got {type(model).__name__}")
    if not isinstance(model.head, RetinaNetHead):
        raise TypeError(f"model.head must be a torchvision RetinaNetHead, got {type(model.head).__name__}")
    box_weight, tau = check_number("box_weight", box_weight), check_number("tau", tau)
    if tau >= 1:
        raise ValueError(f"tau must be below 1, got {tau}")
    check_choice("order", order, ORDERS)
    model.head.compute_loss = RetinaNetALRP(
        model.head.regression_head.box_coder,
        box_weight=box_weight,
        tau=tau,
        delta=check_number("delta", delta),
        order=order,
        algorithm=algorithm,
        backend=backend,
    )
    return model
