"""Heads without anchors: FCOS and FoveaBox. Their boxes are distances from a point."""

from typing import Any

import torch
from mmdet.models.dense_heads import FCOSHead, FoveaHead
from mmdet.registry import MODELS
from torch import Tensor

from .centerness import WithoutCenterness
from .ranking import DenseRankingHead, sizes


class PointRanking(DenseRankingHead):
    """Goes before a head of distances to the left, top, right and bottom in a class's bases.

    Boxes are compared with the point at the origin, in the unit that the head learns in: overlaps stay the same.
    """

    prior_generator: Any
    get_targets: Any

    def points(self, cls_scores: list[Tensor]) -> list[Tensor]:
        """Each level's points (H * W, 2) in pixels."""
        return self.prior_generator.grid_priors(  # type: ignore[no-any-return]
            sizes(cls_scores), dtype=torch.float32, device=cls_scores[0].device
        )

    def boxes(self, codes: Tensor, *targets: Tensor) -> tuple[Tensor, Tensor]:
        return around_origin(codes), around_origin(targets[0])


def around_origin(distances: Tensor) -> Tensor:
    """Boxes (P, 4) that reach as far from the origin as ``distances`` (P, 4) say: left, top, right, bottom."""
    return torch.cat((-distances[:, :2], distances[:, 2:]), 1)


@MODELS.register_module()
class ALRPFCOSHead(WithoutCenterness, PointRanking, FCOSHead):
    """FCOS's head with one ranking loss and without centre-ness; arguments of ``FCOSHead``, and ``ranking``, see
    :class:`RankingLoss`."""

    centerness_layer = "conv_centerness"

    def targets(
        self, cls_scores: list[Tensor], instances: list[Any], metas: list[dict[str, Any]], ignored: list[Any] | None
    ) -> tuple[Tensor, ...]:
        labels, distances = self.get_targets(self.points(cls_scores), instances)
        return torch.cat(labels), torch.cat(distances)


@MODELS.register_module()
class ALRPFoveaHead(PointRanking, FoveaHead):
    """FoveaBox's head with one ranking loss; arguments of ``FoveaHead``, and ``ranking``, see :class:`RankingLoss`."""

    def targets(
        self, cls_scores: list[Tensor], instances: list[Any], metas: list[dict[str, Any]], ignored: list[Any] | None
    ) -> tuple[Tensor, ...]:
        classes, log_distances = self.get_targets(instances, sizes(cls_scores), self.points(cls_scores))
        return classes, log_distances

    def boxes(self, codes: Tensor, *targets: Tensor) -> tuple[Tensor, Tensor]:
        return super().boxes(codes.exp(), targets[0].exp())
