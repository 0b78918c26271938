"""What metrics of matched detections share: their options, their state and how it grows."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch import Tensor

from ..distributed.channel import check_group
from .inputs import check_options
from .matching import Matches, join, match, match_coco

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class MatchingMetric:
    """Keeps the matches of all images seen since the last ``reset``.

    Args:
        tau, max_detections, area_range, box_format: as in :func:`alrp_cuda.metrics.match`.
    """

    def __init__(
        self,
        *,
        tau: float = 0.5,
        max_detections: int = 100,
        area_range: str | tuple[float, float] | None = None,
        box_format: str = "xyxy",
    ) -> None:
        self._options = check_options(tau, max_detections, area_range, box_format)
        # Matches without images give every column its dtype, also where nothing follows.
        self._nothing = match([], [], tau=self._options.tau)
        self._parts = [self._nothing]

    @property
    def matches(self) -> Matches:
        """All matches so far; other metrics can be computed from them by their functional forms."""
        self._parts = [join(self._parts)]
        return self._parts[0]

    def update(self, preds: Sequence[dict[str, Tensor]], target: Sequence[dict[str, Tensor]]) -> None:
        """Take in a batch of images; shapes, dtypes and what it raises as :func:`alrp_cuda.metrics.match`."""
        self._parts.append(match(preds, target, **self._options._asdict()))

    def update_coco(self, ground_truth: dict[str, Any] | str | Path, detections: list[dict[str, Any]] | str | Path) -> None:
        """Take in images in COCO's format, whatever ``box_format`` is; as :func:`alrp_cuda.metrics.match_coco`."""
        options = self._options
        self._parts.append(
            match_coco(
                ground_truth,
                detections,
                tau=options.tau,
                max_detections=options.max_detections,
                area_range=options.area_range,
            )
        )

    def sync(self, group: "ProcessGroup | None" = None) -> None:
        """Take in what the other ranks saw; to be called on every rank of the group, once, before ``compute``.

        Each rank must have seen other images. Does nothing unless torch.distributed is initialised.

        Args:
            group: a :class:`torch.distributed.ProcessGroup`; None: all ranks.

        Raises:
            TypeError, ValueError: no process group that this rank can use.
        """
        check_group(group)
        if not (dist.is_available() and dist.is_initialized()):
            return
        parts: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(parts, self.matches, group=group)
        self._parts = parts

    def reset(self) -> None:
        """Forget all images."""
        self._parts = [self._nothing]
