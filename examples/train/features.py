"""What a frozen network computes of each image, kept in memory."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .backbones import Backbone
from .data import View

Key = tuple[str, bool]


def pad(image: Tensor, size: int) -> Tensor:
    """(3, size, size), the image at the upper left and 0 beside it."""
    return F.pad(image, (0, size - image.shape[2], 0, size - image.shape[1]))


class Features:
    """Maps of views in half precision, computed when they are first asked for and kept while ``limit`` bytes are not full.

    Each view is computed by itself and rounded, kept or not, so that they are the same bits whenever they are computed.
    """

    def __init__(self, backbone: Backbone, size: int, limit: int) -> None:
        self.backbone, self.size, self.limit = backbone, size, limit
        self.kept: dict[Key, list[Tensor]] = {}
        self.bytes = 0

    @torch.no_grad()
    def of(self, view: View) -> list[Tensor]:
        key = str(view.picture.file), view.mirrored
        if key in self.kept:
            return self.kept[key]
        image = pad(view.image(self.size), self.size).to(self.backbone.mean.device)
        maps = [level[0].half().cpu() for level in self.backbone.features(image[None])]
        size = sum(level.nbytes for level in maps)
        if self.bytes + size <= self.limit:
            self.kept[key] = maps
            self.bytes += size
        return maps

    def batch(self, views: list[View]) -> list[Tensor]:
        """Float maps (N, C, H, W) on the device of the backbone."""
        device = self.backbone.mean.device
        return [torch.stack(level).to(device).float() for level in zip(*map(self.of, views), strict=True)]
