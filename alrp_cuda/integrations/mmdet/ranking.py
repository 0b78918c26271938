"""What all heads share: the loss of classes and boxes together, and how it takes the place of a head's two losses."""

from typing import Any

import torch
from torch import Tensor, nn

from ...balance import SelfBalance
from ...inputs import check_choice, check_number
from ...losses import ALRPLoss, APLoss, RankSortLoss
from ...scale import scale_gradient
from ..errors import ERRORS, check_tau, paired_iou

RANKINGS = {"alrp": ALRPLoss, "ap": APLoss, "rank_sort": RankSortLoss}


class RankingLoss(nn.Module):
    """One ranking loss of class scores and boxes, over all images, levels and classes of a batch.

    "alrp" is aLRP Loss, L_cls + L_loc (Eq. 11). With "ap" and "rank_sort" the boxes have a loss of their own, the mean of their
    errors E, and the labels of "rank_sort" are the IoU of the boxes: it alone makes a tensor of labels as large as the logits.

    Args:
        loss: "alrp", "ap" or "rank_sort".
        overlap: "iou", E = (1 - IoU) / (1 - tau), or "giou", E = (1 - GIoU) / 2 / (1 - tau).
        tau: the IoU that a true positive needs, in [0, 1).
        loss_weight: what both losses are multiplied by, >= 0.
        balance: what the gradient of the boxes' loss is multiplied by, not its value: a number >= 0, None for 1, or "self" for
            self-balancing, see :class:`alrp_cuda.SelfBalance`, whose state is then part of the model's.
        epoch_length: iterations of an epoch, only with "self"; None: ``SelfBalanceHook`` tells the end of an epoch.
        use_sigmoid: True, which the framework's heads ask their losses for.
        options: ``delta``, ``eps``, ``algorithm`` and so on, of :class:`alrp_cuda.ALRPLoss`, :class:`alrp_cuda.APLoss` or
            :class:`alrp_cuda.RankSortLoss`. A ``group`` among them is that of self-balancing, too.

    Raises:
        TypeError, ValueError: an argument of the wrong type, out of range, or of an unknown name.

    Example:
        >>> import torch
        >>> loss = RankingLoss(overlap="iou")
        >>> logits, box = torch.zeros(3, 2), torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        >>> losses = loss(logits, torch.tensor([1, 2, -1]), box, box + 2)  # class 1, background, ignored
        >>> {name: round(value.item(), 4) for name, value in losses.items()}
        {'loss_cls': 0.6, 'loss_bbox': 0.4235}
    """

    def __init__(
        self,
        *,
        loss: str = "alrp",
        overlap: str = "giou",
        tau: float = 0.5,
        loss_weight: float = 1.0,
        balance: float | str | None = None,
        epoch_length: int | None = None,
        use_sigmoid: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        check_choice("loss", loss, tuple(RANKINGS))
        check_choice("overlap", overlap, tuple(ERRORS))
        if use_sigmoid is not True:
            raise ValueError(f"use_sigmoid must be True: a ranking has no use for a softmax, got {use_sigmoid!r}")
        self.loss = loss
        self.overlap = overlap
        self.tau = check_tau("tau", tau)
        self.loss_weight = check_number("loss_weight", loss_weight)
        self.ranking = RANKINGS[loss](**options)
        self.balance: SelfBalance | float | None
        if isinstance(balance, str):
            check_choice("balance", balance, ("self",))
            self.balance = SelfBalance(epoch_length, group=self.ranking.group)
        elif epoch_length is not None:
            raise ValueError(f"epoch_length must be None unless balance is 'self', got {epoch_length}")
        else:
            self.balance = None if balance is None else check_number("balance", balance)

    def forward(self, logits: Tensor, classes: Tensor, predicted: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        """The losses of a batch whose anchors have been joined, in any order.

        Args:
            logits: (A, C), class scores before the sigmoid.
            classes: (A,), integer: 0..C-1 positive, C background, below 0 ignored.
            predicted: (P, 4), the decoded boxes of the positives in their order in ``classes``: x1, y1, x2, y2.
            boxes: (P, 4), the boxes of their objects, in the same unit.

        Returns:
            "loss_cls" and "loss_bbox", scalars, 0 without a positive. With "alrp", the first carries the gradient of the whole
            loss to the logits, and the second reaches the boxes alone.
        """
        errors = ERRORS[self.overlap](predicted, boxes, self.tau)
        if self.loss == "alrp":
            cls, loc = self.ranking(logits, classes, errors)[:2]
        else:
            loc = errors.sum() / max(1, len(errors))
            if self.loss == "ap":
                cls = self.ranking(logits, classes, num_positives=len(errors))
            else:
                labels = continuous_labels(logits, classes, paired_iou(predicted.detach(), boxes))
                cls = sum(self.ranking(logits, labels, num_positives=len(errors)))
        if isinstance(self.balance, SelfBalance):
            cls, loc = self.balance(cls, loc)
        elif self.balance is not None:
            loc = scale_gradient(loc, self.balance)
        return {"loss_cls": self.loss_weight * cls, "loss_bbox": self.loss_weight * loc}

    def extra_repr(self) -> str:
        return f"loss={self.loss!r}, overlap={self.overlap!r}, tau={self.tau}, loss_weight={self.loss_weight}"


def positives_of(classes: Tensor, num_classes: int) -> Tensor:
    """(P,) indices of those of ``classes`` that are neither background nor ignored."""
    return ((classes >= 0) & (classes < num_classes)).nonzero()[:, 0]


def continuous_labels(logits: Tensor, classes: Tensor, iou: Tensor) -> Tensor:
    """Labels of Rank & Sort Loss, of the shape of ``logits``: each positive's is its IoU, those of an ignored anchor are -1."""
    labels = logits.new_zeros(logits.shape, dtype=torch.float32)
    labels[classes < 0] = -1
    positive = positives_of(classes, logits.shape[1])
    labels[positive, classes[positive]] = iou.clamp(min=1e-6).float()  # 0 would be a negative
    return labels


class RankingHead:
    """Goes before a head of the framework in a class's bases: one ranking loss takes the place of its two losses.

    Args:
        ranking: arguments of :class:`RankingLoss`. ``loss_cls`` and ``loss_bbox``, which a config may inherit, are not used.
    """

    criterion: type[RankingLoss] = RankingLoss
    loss_cls: RankingLoss
    loss_bbox: nn.Module
    num_classes: int

    def __init__(self, *args: Any, ranking: dict[str, Any] | None = None, **kwargs: Any) -> None:
        kwargs["loss_cls"] = {"type": self.criterion, "use_sigmoid": True, **(ranking or {})}
        super().__init__(*args, **kwargs)
        del self.loss_bbox


class DenseRankingHead(RankingHead):
    """A dense head's ``loss_by_feat``; what is left to a kind of head is its targets and what its box codes mean."""

    def targets(
        self, cls_scores: list[Tensor], instances: list[Any], metas: list[dict[str, Any]], ignored: list[Any] | None
    ) -> tuple[Tensor, ...]:
        """Class indices (A,), C for background and -1 for ignored anchors, and more tensors of A rows for :meth:`boxes`; all
        by level, then image, then place."""
        raise NotImplementedError

    def boxes(self, codes: Tensor, *targets: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted boxes (P, 4) and those of the objects, from the head's box codes and :meth:`targets` at the positives."""
        raise NotImplementedError

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: list[Any],
        batch_img_metas: list[dict[str, Any]],
        batch_gt_instances_ignore: list[Any] | None = None,
    ) -> dict[str, Tensor]:
        """As the framework's: from each level's (N, A * C, H, W) and (N, A * 4, H, W) to the losses of the batch."""
        classes, *targets = self.targets(cls_scores, batch_gt_instances, batch_img_metas, batch_gt_instances_ignore)
        positive = positives_of(classes, self.num_classes)
        codes = flatten(bbox_preds, 4)[positive].float()
        predicted, boxes = self.boxes(codes, *(rows[positive] for rows in targets))
        return self.loss_cls(flatten(cls_scores, self.num_classes), classes, predicted, boxes)  # type: ignore[no-any-return]


def flatten(maps: list[Tensor], channels: int) -> Tensor:
    """Each level's (N, A * channels, H, W) joined to (anchors, channels), by level, image, place and anchor at the place."""
    return torch.cat([level.permute(0, 2, 3, 1).reshape(-1, channels) for level in maps])


def sizes(maps: list[Tensor]) -> list[torch.Size]:
    """Height and width of each level."""
    return [level.shape[-2:] for level in maps]
