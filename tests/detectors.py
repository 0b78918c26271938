"""Tiny detectors as torchvision puts them together, batches for them, and their aLRP Loss by hand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssd import SSD

from alrp_cuda import reference
from alrp_cuda.integrations.torchvision import use_alrp

CLASSES = 3
SIDE = 64


class TwoLevels(nn.Module):
    """Feature maps at strides 8 and 16."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.out_channels = channels
        self.fine, self.coarse = nn.Conv2d(3, channels, 8, 8), nn.Conv2d(channels, channels, 2, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.fine(x).relu()
        return {"fine": fine, "coarse": self.coarse(fine).relu()}


def spread(head: nn.Module) -> None:
    """Outputs that differ from anchor to anchor, as after some training."""
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)


def tiny_retinanet(build: str = "v1", seed: int = 0) -> RetinaNet:
    """RetinaNet in torchvision's two builds."""
    torch.manual_seed(seed)
    anchors = AnchorGenerator(((16, 24), (32, 44)), ((0.7, 1.4),) * 2)
    norm = None if build == "v1" else (lambda channels: nn.GroupNorm(4, channels))
    head = RetinaNetHead(8, anchors.num_anchors_per_location()[0], CLASSES, norm)
    if build == "v2":
        head.regression_head._loss_type = "giou"
    model = RetinaNet(TwoLevels(), CLASSES, SIDE, SIDE, anchor_generator=anchors, head=head)
    spread(head)
    return model


def tiny_fcos(seed: int = 0) -> FCOS:
    torch.manual_seed(seed)
    # Of these sizes a location of the first level is for sides up to 24 pixels away, and of the second for others.
    anchors = AnchorGenerator(((2,), (3,)), ((1.0,),) * 2)
    model = FCOS(TwoLevels(32), CLASSES, SIDE, SIDE, anchor_generator=anchors, center_sampling_radius=5)
    spread(model.head)
    with torch.no_grad():
        model.head.regression_head.bbox_reg.bias += 3.0  # sides above 0, where a ReLU lets the gradient through
    return model


def tiny_ssd(seed: int = 0) -> SSD:
    torch.manual_seed(seed)
    backbone = TwoLevels()
    backbone.out_channels = [8, 8]
    boxes = DefaultBoxGenerator([[2], [2]], scales=[0.25, 0.45, 0.6])
    model = SSD(backbone, boxes, (SIDE, SIDE), CLASSES + 1, iou_thresh=0.4)
    spread(model.head)
    return model


def tiny_faster_rcnn(seed: int = 0, build: type[FasterRCNN] = FasterRCNN, **heads: Any) -> FasterRCNN:
    torch.manual_seed(seed)
    model = build(
        TwoLevels(),
        min_size=SIDE,
        max_size=SIDE,
        rpn_anchor_generator=AnchorGenerator(((16, 24), (32, 44)), ((0.7, 1.4),) * 2),
        box_roi_pool=torchvision.ops.MultiScaleRoIAlign(["fine", "coarse"], 3, 2),
        box_head=TwoMLPHead(8 * 9, 16),
        box_predictor=FastRCNNPredictor(16, CLASSES + 1),
        rpn_fg_iou_thresh=0.6,
        rpn_post_nms_top_n_train=60,
        **heads,
    )
    spread(model.roi_heads)
    spread(model.rpn.head)
    with torch.no_grad():
        model.rpn.head.bbox_pred.weight *= 0.1  # proposals close enough to their anchors to find an object
    return model


# A detector, its settings of use_alrp beside the defaults, and the label of its first class.
Case = tuple[Callable[[], nn.Module], dict[str, Any], int]
CASES: dict[str, Case] = {
    "retinanet": (tiny_retinanet, {}, 0),
    "retinanet v2": (partial(tiny_retinanet, "v2"), {}, 0),
    "retinanet atss": (tiny_retinanet, {"assign": "atss"}, 0),
    "fcos": (tiny_fcos, {}, 0),
    "fcos centerness": (tiny_fcos, {"centerness": True}, 0),
    "ssd": (tiny_ssd, {}, 1),
    "faster rcnn": (tiny_faster_rcnn, {}, 1),
}


def batch(*objects: int, seed: int = 0, first_label: int = 0) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """One image for each number of objects in it."""
    rng = torch.Generator().manual_seed(seed)
    images = [torch.rand(3, SIDE, SIDE, generator=rng) for _ in objects]
    targets = []
    for count in objects:
        corner = torch.rand(count, 2, generator=rng) * 30
        size = 12 + torch.rand(count, 2, generator=rng) * 20
        labels = torch.randint(CLASSES, (count,), generator=rng) + first_label
        targets.append({"boxes": torch.cat((corner, corner + size), 1), "labels": labels})
    return images, targets


def ready(name: str, *objects: int, **settings: Any) -> tuple[nn.Module, tuple[list[Tensor], list[dict[str, Tensor]]]]:
    """(a detector of CASES with its ranking loss, a batch for it)."""
    build, own, first_label = CASES[name]
    return use_alrp(build(), **own, **settings), batch(*objects, first_label=first_label)


def joining(model: nn.Module) -> None:
    """Let a model permute and join its class maps before the loss, as a head of unknown type does."""
    for module in (model.rpn,) if isinstance(model, FasterRCNN) else (model.head.classification_head,):
        del module.forward


@contextmanager
def calls_of(owner: nn.Module, name: str) -> Iterator[list[tuple[Any, ...]]]:
    """The arguments of every call of a method, or of what stands in its place, and its result last."""
    before, calls = getattr(owner, name), []

    def spy(*arguments: Any) -> Any:
        result = before(*arguments)
        calls.append((*arguments, result))
        return result

    replaced = vars(owner).get(name)
    setattr(owner, name, spy)
    yield calls
    delattr(owner, name)
    if replaced is not None:
        setattr(owner, name, replaced)


def rows_of(maps: Tensor | list[Tensor], columns: int = CLASSES) -> Tensor:
    """(N, A, columns) of all levels, as torchvision joins them, of each level's (N, A * columns, H, W)."""
    if isinstance(maps, Tensor):
        return maps
    return torch.cat([m.unflatten(1, (-1, columns)).permute(0, 3, 4, 1, 2).flatten(1, 3) for m in maps], 1)


# --- by hand ---------------------------------------------------------------------------------------------------------


def area(x1: Tensor, y1: Tensor, x2: Tensor, y2: Tensor) -> Tensor:
    return (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)


def error_by_hand(kind: str, a: Tensor, b: Tensor, tau: float) -> Tensor:
    """E of one box by the definitions of IoU and Generalised IoU."""
    inner = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    union = area(*a) + area(*b) - inner
    if kind == "iou":
        return (1 - inner / union) / (1 - tau)
    hull = area(min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
    return (1 - inner / union + (hull - union) / hull) / 2 / (1 - tau)


def decode_by_hand(code: Tensor, anchor: Tensor, weights: tuple[float, ...]) -> Tensor:
    """The box of one code: centre and size against the anchor's, sizes as logarithms."""
    x, y, w, h = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2, anchor[2] - anchor[0], anchor[3] - anchor[1]
    dx, dy, dw, dh = (c / weight for c, weight in zip(code, weights, strict=True))
    x, y, w, h = x + dx * w, y + dy * h, w * dw.exp(), h * dh.exp()
    return torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2))


def distances_by_hand(code: Tensor, point: Tensor) -> Tensor:
    """FCOS's box of one code: distances from the point to the four sides, in units of its anchor's size."""
    x, y, size = (point[0] + point[2]) / 2, (point[1] + point[3]) / 2, point[2] - point[0]
    left, top, right, bottom = code * size
    return torch.stack((x - left, y - top, x + right, y + bottom))


class ByHand:
    """What one head's ranking is made of, gathered one anchor at a time; ``labels`` are as targets of the logits' shape."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits  # (A, C)
        self.labels = torch.zeros(logits.shape)
        self.predicted: list[Tensor] = []
        self.boxes: list[Tensor] = []

    def positive(self, anchor: int, label: int, predicted: Tensor, box: Tensor) -> None:
        self.labels[anchor, label] = 1
        self.predicted.append(predicted)
        self.boxes.append(box)

    def ignored(self, anchor: int) -> None:
        self.labels[anchor] = -1

    def errors(self, kind: str, tau: float) -> Tensor:
        pairs = zip(self.predicted, self.boxes, strict=True)
        return torch.stack([error_by_hand(kind, p, b, tau) for p, b in pairs]) if self.boxes else torch.zeros(0)

    def alrp(self, kind: str = "giou", tau: float = 0.5, delta: float = 1.0) -> tuple[Tensor, Tensor]:
        out = reference.alrp_loss(self.logits.flatten(), self.labels.flatten(), self.errors(kind, tau), delta=delta)
        return out.cls, out.loc


def dense_by_hand(model: nn.Module, call: tuple[Any, ...], outputs: dict[str, Tensor], first_label: int) -> ByHand:
    """Of the arguments of a dense head's ``compute_loss`` and its outputs as leaves."""
    targets, _, anchors, matched_idxs, *_ = call
    codes = outputs["bbox_regression"]
    hand = ByHand(outputs["cls_logits"][..., first_label:].flatten(0, 1))
    for image, matched in enumerate(matched_idxs):
        for anchor, index in enumerate(matched.tolist()):
            row = image * len(matched) + anchor
            if index == -2:
                hand.ignored(row)
            if index < 0:
                continue
            code, base = codes[image, anchor], anchors[image][anchor]
            box = (
                distances_by_hand(code, base) if isinstance(model, FCOS) else decode_by_hand(code, base, model.box_coder.weights)
            )
            target = targets[image]
            hand.positive(row, int(target["labels"][index]) - first_label, box, target["boxes"][index])
    return hand


def rpn_by_hand(
    model: FasterRCNN, anchors: list[Tensor], targets: list[dict[str, Tensor]], logits: Tensor, codes: Tensor
) -> ByHand:
    """Of all anchors of a batch: objectness (A, 1) and codes (A, 4) as leaves."""
    hand, row = ByHand(logits), 0
    for own, target in zip(anchors, targets, strict=True):
        matched = [-1] * len(own)
        if len(target["boxes"]):
            matched = model.rpn.proposal_matcher(torchvision.ops.box_iou(target["boxes"], own)).tolist()
        for anchor, index in zip(own, matched, strict=True):
            if index == -2:
                hand.ignored(row)
            if index >= 0:
                box = decode_by_hand(codes[row], anchor, model.rpn.box_coder.weights)
                hand.positive(row, 0, box, target["boxes"][index])
            row += 1
    return hand


def box_head_by_hand(
    model: FasterRCNN, proposals: list[Tensor], targets: list[dict[str, Tensor]], logits: Tensor, codes: Tensor
) -> ByHand:
    """Of all proposals of a batch: class logits (R, 1 + C) and codes (R, 4 (1 + C)) as leaves."""
    hand, row = ByHand(logits[:, 1:]), 0
    for own, target in zip(proposals, targets, strict=True):
        overlaps = torchvision.ops.box_iou(own, target["boxes"])
        for proposal, overlap in zip(own, overlaps, strict=True):
            if len(overlap) and overlap.max() >= 0.5:
                index = int(overlap.argmax())
                label = int(target["labels"][index])
                box = decode_by_hand(codes[row, 4 * label : 4 * label + 4], proposal, model.roi_heads.box_coder.weights)
                hand.positive(row, label - 1, box, target["boxes"][index])
            row += 1
    return hand
