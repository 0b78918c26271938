"""Rankings of matched queries, apart from the frameworks that have them."""

import pytest

pytest.importorskip("torchvision")

import torch
from torch import Tensor
from torchvision.ops import box_convert

from alrp_cuda import correlation_loss, reference
from alrp_cuda.integrations.errors import giou_errors, paired_iou
from alrp_cuda.integrations.queries import BOX_LOSS, CLASS_LOSS, QueryRanking

IMAGES, QUERIES, CLASSES = 2, 6, 3


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What a matcher may answer: queries of an image in no order, and the last image first."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(IMAGES, QUERIES, CLASSES, generator=rng).requires_grad_()
    predicted = (torch.rand(IMAGES, QUERIES, 4, generator=rng) * 0.4 + 0.2).requires_grad_()
    image, query, labels = torch.tensor([1, 0, 0, 1]), torch.tensor([4, 5, 0, 2]), torch.tensor([2, 0, 1, 2])
    return logits, predicted, image, query, labels, torch.rand(4, 4, generator=rng) * 0.4 + 0.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_matches_come_in_any_order(dtype):
    logits, predicted, image, query, labels, boxes = batch()
    losses = QueryRanking().losses(logits.to(dtype), predicted, image, query, labels, boxes)
    targets = torch.zeros(logits.shape)
    targets[image, query, labels] = 1
    order = [2, 1, 3, 0]  # by image and query
    corners = (box_convert(each[order], "cxcywh", "xyxy") for each in (predicted[image, query], boxes))
    expected = reference.alrp_loss(logits.to(dtype).double(), targets, giou_errors(*corners).double())
    torch.testing.assert_close(losses[CLASS_LOSS].double(), expected.cls, rtol=1e-6, atol=0)
    torch.testing.assert_close(losses[BOX_LOSS].double(), expected.loc, rtol=1e-6, atol=0)
    got, wanted = (torch.autograd.grad(cls + loc, (logits, predicted)) for cls, loc in (losses.values(), expected[:2]))
    for each, want in zip(got, wanted, strict=True):
        torch.testing.assert_close(each, want, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-7)


@pytest.mark.parametrize(("loss", "names"), [("ap", [CLASS_LOSS]), ("ndcg", [CLASS_LOSS]), ("rank_sort", [CLASS_LOSS, BOX_LOSS])])
def test_a_loss_that_leaves_boxes_alone_has_one_name(loss, names):
    assert list(QueryRanking(loss=loss).losses(*batch())) == names


def test_it_does_not_warn_of_steps_without_a_match(recwarn):
    logits, predicted, *others = batch()
    ranking = QueryRanking().train()
    for _ in range(101):
        ranking.losses(logits, predicted, *(each[:0] for each in others))
    assert not recwarn.list


def test_correlation_is_of_scores_and_overlaps():
    logits, predicted, image, query, labels, boxes = batch()
    matched = image, query, labels, boxes
    with_it, without = (QueryRanking(correlation=each).losses(logits, predicted, *matched) for each in (0.5, 0.0))
    ious = paired_iou(*(box_convert(each, "cxcywh", "xyxy") for each in (predicted[image, query], boxes)))
    expected = 0.5 * correlation_loss(logits[image, query, labels].sigmoid(), ious)
    torch.testing.assert_close(with_it[CLASS_LOSS] - without[CLASS_LOSS], expected)
    assert with_it[BOX_LOSS] == without[BOX_LOSS]
