"""The losses of a box head's neighbours, masks and keypoints: torchvision's own."""

from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads, keypointrcnn_loss, maskrcnn_loss


def losses_of_neighbours(
    heads: RoIHeads,
    features: dict[str, Tensor],
    proposals: list[Tensor],
    matched: list[Tensor],
    labels: list[Tensor],
    image_shapes: list[tuple[int, int]],
    targets: list[dict[str, Tensor]],
) -> dict[str, Tensor]:
    """ "loss_mask" and "loss_keypoint" where the model has such heads, of positive proposals.

    A ranking takes every proposal; these take at most as many as torchvision's sampler leaves, a quarter of
    ``box_batch_size_per_image`` an image, for each costs a map.

    Args:
        proposals, matched, labels: of each image the boxes (R, 4), the indices of their objects and the labels, 0 for background.
        targets: of each image the objects.
    """
    if not (heads.has_mask() or heads.has_keypoint()):
        return {}
    kept = [chosen.nonzero()[:, 0] for chosen in heads.fg_bg_sampler(labels)[0]]
    boxes = [own[rows] for own, rows in zip(proposals, kept, strict=True)]
    objects = [own[rows] for own, rows in zip(matched, kept, strict=True)]
    losses = {}
    if heads.has_mask():
        logits = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(features, boxes, image_shapes)))
        of_objects = [t["masks"] for t in targets], [t["labels"] for t in targets]
        losses["loss_mask"] = maskrcnn_loss(logits, boxes, *of_objects, objects)
    if heads.has_keypoint():
        logits = heads.keypoint_predictor(heads.keypoint_head(heads.keypoint_roi_pool(features, boxes, image_shapes)))
        losses["loss_keypoint"] = keypointrcnn_loss(logits, boxes, [t["keypoints"] for t in targets], objects)
    return losses
