"""MMCV's compiled operators as far as the tests need them, from torchvision's, where MMCV was installed without any."""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
import torchvision
from torch import Tensor


def nms(boxes: Tensor, scores: Tensor, *, iou_threshold: float, offset: int) -> Tensor:
    assert offset == 0
    return torchvision.ops.nms(boxes, scores, iou_threshold)


def roi_align(features: Tensor, rois: Tensor, how: dict[str, Any]) -> Tensor:
    """In float32: torchvision has no kernel for half types on the CPU."""
    assert how["pool_mode"] == 1, "only the mean"
    size = how["aligned_height"], how["aligned_width"]
    return torchvision.ops.roi_align(
        features.float(), rois.float(), size, how["spatial_scale"], how["sampling_ratio"], how["aligned"]
    )


def roi_align_forward(features: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, **how: Any) -> None:
    output.copy_(roi_align(features, rois, how))


def roi_align_backward(grad: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_features: Tensor, **how: Any) -> None:
    with torch.enable_grad():
        features = torch.zeros_like(grad_features, requires_grad=True)  # its values do not matter: the mean is linear
        pooled = roi_align(features, rois, how)
    grad_features.copy_(torch.autograd.grad(pooled, features, grad.float())[0])


class Operators(ModuleType):
    """Has every name, since MMCV looks for all of them when it is imported; those not written here raise when called."""

    nms = staticmethod(nms)
    roi_align_forward = staticmethod(roi_align_forward)
    roi_align_backward = staticmethod(roi_align_backward)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*arguments: Any, **options: Any) -> None:
            raise NotImplementedError(
                f"mmcv._ext.{name}: MMCV was installed without operators, and the tests have none of this name"
            )

        return missing


def provide() -> None:
    """Stand in for ``mmcv._ext``, unless it is there."""
    if importlib.util.find_spec("mmcv._ext") is None:
        module = Operators("mmcv._ext")
        module.__spec__ = ModuleSpec("mmcv._ext", None)  # MMEngine asks whether it can be found
        sys.modules["mmcv._ext"] = module
