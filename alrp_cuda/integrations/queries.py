"""Rankings of queries that a matcher has paired with objects, as in the detectors that come from DETR."""

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert

from .ranking import RankingLoss, use_alrp_settings

CLASS_LOSS, BOX_LOSS = "loss_cls", "loss_loc"  # as such a detector's dictionaries of losses name them


class QueryRanking(RankingLoss):
    """A :class:`RankingLoss` of matched queries. "alrp" and "rank_sort" have a box loss, "ap" and "ndcg" leave the detector's.

    Args:
        balance: a number >= 0 or "value", for "alrp" and "rank_sort"; None for 1 or, with "rank_sort", "value". "self" is for
            detectors whose boxes learn by this loss alone, and whose iterations have one ranking.
        others: ``loss``, ``errors``, ``tau``, ``loss_weight``, ``correlation`` and the loss's own, as
            of :func:`use_alrp_settings`.

    Raises:
        TypeError, ValueError: an argument of the wrong type, out of range, of an unknown name, or of another loss.

    Example:
        >>> QueryRanking(loss="ap").has_box_loss, QueryRanking().has_box_loss
        (False, True)
    """

    def __init__(self, *, balance: float | str | None = None, **others: Any) -> None:
        settings = use_alrp_settings(balance=balance, **others)
        super().__init__(**settings)
        self.has_box_loss = self.loss in ("alrp", "rank_sort")
        if balance == "self":
            raise ValueError("balance must be a number, 'value' or None, got 'self'")
        if balance is not None and not self.has_box_loss:
            raise ValueError(f"balance must be None with {self.loss!r}, which leaves box losses as they are, got {balance!r}")

    def _count_step(self, positives: int) -> None:
        """Nothing to count, nor to warn of: a matcher finds a query for each object."""

    def losses(
        self, logits: Tensor, predicted: Tensor, image: Tensor, query: Tensor, labels: Tensor, boxes: Tensor
    ) -> dict[str, Tensor]:
        """The losses of one output of a detector, whose queries are one ranking: of all images and classes.

        Args:
            logits: (N, Q, C), class scores before the sigmoid.
            predicted: (N, Q, 4), boxes: centre and size, in units of the image. Half types are computed in float32.
            image, query: (P,), integer, the places of the matched queries, on any device and in any order.
            labels: (P,), integer, the classes of their objects.
            boxes: (P, 4), the boxes of their objects, as ``predicted``.

        Returns:
            ``CLASS_LOSS`` and, if there is one, ``BOX_LOSS``: scalars, 0 without a match.

        Example:
            >>> import torch
            >>> place, boxes = torch.tensor([0]), torch.tensor([[0.5, 0.5, 0.2, 0.2]])
            >>> out = QueryRanking().losses(torch.zeros(1, 2, 1), boxes.expand(1, 2, 4), place, place + 1, place, boxes)
            >>> {name: round(value.item(), 4) for name, value in out.items()}
            {'loss_cls': 0.3333, 'loss_loc': 0.0}
        """
        order = (image * logits.shape[1] + query).argsort()  # of errors: that of the flat index
        image, query, labels, boxes = (each[order.to(each.device)].to(logits.device) for each in (image, query, labels, boxes))
        classes = torch.full(logits.shape[:2], logits.shape[-1], device=logits.device)
        classes[image, query] = labels
        corners = [box_convert(each.float(), "cxcywh", "xyxy") for each in (predicted[image, query], boxes)]
        cls, box = self(logits, classes, *corners, lambda: logits.new_zeros(()))
        return {CLASS_LOSS: cls, BOX_LOSS: box} if self.has_box_loss else {CLASS_LOSS: cls}
