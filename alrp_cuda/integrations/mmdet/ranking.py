"""What all heads share: the loss of classes and boxes, and how it replaces the two losses of a head."""

from typing import Any

import torch
from torch import Tensor, nn

from ...inputs import Tensors
from ...levels import head_views
from .. import ranking as core


class RankingLoss(core.RankingLoss):
    """One ranking loss of class scores and boxes: :class:`alrp_cuda.integrations.ranking.RankingLoss` as a config builds it.

    With "ap", "ndcg" and "rank_sort" the box loss is the mean of the errors E.

    Args:
        overlap: ``errors`` by its name in older configs.
        use_sigmoid: True, which the framework's heads ask their losses for.
        options: those of :class:`alrp_cuda.integrations.ranking.RankingLoss`. Without ``epoch_length``, ``SelfBalanceHook`` ends
            the epochs of self-balancing.

    Raises:
        TypeError, ValueError: an argument of the wrong type, out of range, or of an unknown name.

    Example:
        >>> import torch
        >>> loss = RankingLoss(errors="iou")
        >>> logits, box = torch.zeros(3, 2), torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        >>> losses = loss(logits, torch.tensor([1, 2, -1]), box, box + 2)  # class 1, background, ignored
        >>> {name: round(value.item(), 4) for name, value in losses.items()}
        {'loss_cls': 0.6, 'loss_bbox': 0.4235}
    """

    def __init__(self, *, overlap: str | None = None, use_sigmoid: bool = True, **options: Any) -> None:
        if use_sigmoid is not True:
            raise ValueError(f"use_sigmoid must be True: a ranking has no use for a softmax, got {use_sigmoid!r}")
        if overlap is not None:
            if "errors" in options:
                raise TypeError(f"overlap is an earlier name of errors: one of them must be left out, got {overlap!r} too")
            options = dict(errors=overlap, **options)
        super().__init__(**options)

    def forward(  # type: ignore[override]
        self, logits: Tensors, classes: Tensors, predicted: Tensor, boxes: Tensor
    ) -> dict[str, Tensor]:
        """The losses by the framework's names."""
        cls, box = super().forward(logits, classes, predicted, boxes)
        return {"loss_cls": cls, "loss_bbox": box}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "overlap" in state:  # of version 0.1
            state["errors"] = state.pop("overlap")
        super().__setstate__(state)  # type: ignore[no-untyped-call]


def positives_of(classes: Tensor, num_classes: int) -> Tensor:
    """(P,) indices of those of ``classes`` that are neither background nor ignored."""
    return ((classes >= 0) & (classes < num_classes)).nonzero()[:, 0]


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
    """A dense head's ``loss_by_feat``; subclasses add their targets and the meaning of their box codes."""

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
        views = head_views(cls_scores, self.num_classes)
        parts = classes.split_with_sizes([view.shape[:-1].numel() for view in views])
        of_levels = [part.view(view.shape[:-1]) for part, view in zip(parts, views, strict=True)]
        return self.loss_cls(views, of_levels, predicted, boxes)  # type: ignore[no-any-return]


def flatten(maps: list[Tensor], channels: int) -> Tensor:
    """Each level's (N, A * channels, H, W) joined to (anchors, channels), by level, image, place and anchor at the place."""
    return torch.cat([level.permute(0, 2, 3, 1).reshape(-1, channels) for level in maps])


def sizes(maps: list[Tensor]) -> list[torch.Size]:
    """Height and width of each level."""
    return [level.shape[-2:] for level in maps]
