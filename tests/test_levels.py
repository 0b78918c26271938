"""Views of a head's maps, and what a framework made over the joined levels brought into their shapes."""

import pytest
import torch
from dispatched import recorded

import alrp_cuda
from alrp_cuda import head_views, order_by_level, split_targets

CLASSES = 3
SIZES = [(2, 5, 4), (3, 0, 2), (1, 3, 3), (2, 1, 1)]  # anchors a place, height, width


def maps(images=2, memory=torch.contiguous_format, sizes=SIZES):
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(images, a * CLASSES, h, w, generator=generator) for a, h, w in sizes]
    return [level.contiguous(memory_format=memory) for level in drawn]


def joined(levels):
    """As frameworks do: (N, anchors, C)."""
    rows = [m.unflatten(1, (a, CLASSES)).permute(0, 3, 4, 1, 2).flatten(1, 3) for m, (a, _, _) in zip(levels, SIZES, strict=True)]
    return torch.cat(rows, 1)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
def test_views_are_the_maps_where_they_lie(memory):
    levels = maps(memory=memory)
    views = head_views(levels, CLASSES)
    assert [tuple(v.shape) for v in views] == [(2, h, w, a, CLASSES) for a, h, w in SIZES]
    assert all(v.untyped_storage().data_ptr() == m.untyped_storage().data_ptr() for v, m in zip(views, levels, strict=True))
    assert torch.equal(torch.cat([v.flatten(1, 3) for v in views], 1), joined(levels))


@pytest.mark.parametrize("trailing", [(), (CLASSES,)], ids=["anchors", "logits"])
@pytest.mark.parametrize("form", [torch.Tensor, list], ids=["tensor", "list"])
def test_targets_come_into_the_shapes_of_the_views(trailing, form):
    levels = maps()
    anchors = joined(levels).shape[1]
    targets = torch.arange(2 * anchors * max(1, sum(trailing))).reshape(2, anchors, *trailing)
    parts = split_targets(targets if form is torch.Tensor else [*targets], levels, CLASSES)
    assert [tuple(p.shape) for p in parts] == [(2, h, w, a, *trailing) for a, h, w in SIZES]
    assert torch.equal(torch.cat([p.flatten(1, 3) for p in parts], 1), targets)


@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("trailing", [(), (CLASSES,)], ids=["anchors", "logits"])
def test_values_of_positives_come_into_the_order_of_lists(images, share, trailing):
    """What is positive keeps its own value."""
    levels = maps(images)
    anchors = joined(levels).shape[1]
    positive = torch.rand(images, anchors, *trailing, generator=torch.Generator().manual_seed(1)) < share
    values = torch.rand(positive.shape, dtype=torch.float64)
    want = torch.cat([v[p] for v, p in zip(*(split_targets(t, levels, CLASSES) for t in (values, positive)), strict=True)])
    assert torch.equal(order_by_level(values[positive], positive, levels, CLASSES), want)
    pairs = torch.stack((values, -values), -1)[positive]
    assert torch.equal(order_by_level(pairs, [*positive], levels, CLASSES), torch.stack((want, -want), -1))


def test_ordering_takes_no_wait_and_lets_gradients_through():
    levels = maps()
    positive = torch.rand(2, joined(levels).shape[1], generator=torch.Generator().manual_seed(1)) < 0.3
    values = torch.rand(int(positive.sum()), requires_grad=True)
    with recorded() as operators:
        ordered = order_by_level(values, positive, levels, CLASSES)
    assert not {"aten._local_scalar_dense", "aten.nonzero"} & {*operators}
    weights = torch.arange(len(values), dtype=torch.float32)
    (ordered * weights).sum().backward()
    back = torch.empty_like(weights)
    back[order_by_level(torch.arange(len(values)), positive, levels, CLASSES)] = weights
    assert torch.equal(values.grad, back)


@pytest.mark.parametrize("change", [-3, 5])
def test_another_number_of_values_stays_within_bounds(change):
    levels = maps()
    positive = torch.rand(2, joined(levels).shape[1], generator=torch.Generator().manual_seed(1)) < 0.3
    values = torch.rand(int(positive.sum()) + change)
    ordered = order_by_level(values, positive, levels, CLASSES)
    assert ordered.shape == values.shape
    assert torch.isin(ordered, values).all()


def test_a_loss_of_lists_is_that_of_the_frameworks_order():
    levels = [level.requires_grad_() for level in maps()]
    anchors = joined(levels).shape[1]
    generator = torch.Generator().manual_seed(2)
    targets = torch.randint(-1, CLASSES, (2, anchors), generator=generator)
    targets = torch.where(torch.rand(2, anchors, generator=generator) < 0.7, CLASSES, targets)
    positive = (targets >= 0) & (targets < CLASSES)
    errors = torch.rand(int(positive.sum()), generator=generator)
    want = alrp_cuda.alrp_loss(joined(levels), targets, errors)
    ordered = order_by_level(errors, positive, levels, CLASSES)
    got = alrp_cuda.alrp_loss(head_views(levels, CLASSES), split_targets(targets, levels, CLASSES), ordered)
    for g, w in zip(got[:2], want[:2], strict=True):
        assert torch.allclose(g, w, rtol=1e-6)
    for name in ("rank", "precision"):
        back = order_by_level(getattr(want, name), positive, levels, CLASSES)
        assert torch.allclose(getattr(got, name), back, rtol=1e-6)
    for g, w in zip(*(torch.autograd.grad(out.cls, levels) for out in (got, want)), strict=True):
        assert torch.allclose(g, w, rtol=1e-5, atol=1e-8)


GOOD = [torch.zeros(2, 6, 2, 2), torch.zeros(2, 3, 1, 1)]
TARGETS = torch.zeros(2, 9, dtype=torch.int64)


@pytest.mark.parametrize(
    ("error", "levels", "classes", "words"),
    [
        (TypeError, GOOD[0], 3, "maps must be a list of tensors, got Tensor"),
        (TypeError, [*GOOD, None], 3, r"maps\[2\] must be a torch\.Tensor, got NoneType"),
        (ValueError, [GOOD[0], GOOD[1][0]], 3, r"maps\[1\] must have shape \(N, A \* C, H, W\) .*, got \(3, 1, 1\)"),
        (ValueError, [GOOD[0], GOOD[1][:1]], 3, r"maps\[1\] must have shape .* the N of maps\[0\], got \(1, 3, 1, 1\)"),
        (ValueError, GOOD, 4, r"maps\[0\] must have shape \(N, A \* C, H, W\) with C = 4"),
        (ValueError, GOOD, 0, "classes must be >= 1, got 0"),
        (TypeError, GOOD, 3.0, "classes must be an int, got float"),
        (TypeError, GOOD, True, "classes must be an int, got bool"),
    ],
)
def test_misuse_of_maps_is_named(error, levels, classes, words):
    for call in (head_views, lambda *a: split_targets(TARGETS, *a), lambda *a: order_by_level(torch.ones(0), TARGETS > 0, *a)):
        with pytest.raises(error, match=words):
            call(levels, classes)


@pytest.mark.parametrize(
    ("error", "targets", "words"),
    [
        (TypeError, None, r"must be a torch\.Tensor or a list of them, got NoneType"),
        (ValueError, TARGETS[:, :8], r"must have shape \(N, anchors\) = \(2, 9\), got \(2, 8\)"),
        (ValueError, TARGETS[:1], r"must have shape \(N, anchors\) = \(2, 9\), got \(1, 9\)"),
        (ValueError, TARGETS[0], r"must have shape \(N, anchors\) = \(2, 9\), got \(9,\)"),
        (ValueError, [], "must have one tensor an image, got an empty list"),
        (TypeError, [TARGETS[0], 1], r"\[1\] must be a torch\.Tensor, got int"),
        (ValueError, [TARGETS[0], TARGETS[0, :8]], r"\[1\] must have shape \(anchors,\) = \(9,\), got \(8,\)"),
        (ValueError, [TARGETS[0, :8], TARGETS[0]], r"\[0\] must have shape \(anchors,\) = \(9,\), got \(8,\)"),
        (ValueError, [TARGETS[0], TARGETS[0, :, None]], r"\[1\] must have the shape of [a-z]*\[0\], \(9,\), got \(9, 1\)"),
        (
            TypeError,
            [TARGETS[0], TARGETS[0].float()],
            r"\[1\] must have the dtype of [a-z]*\[0\], torch\.int64, got torch\.float32",
        ),
        (
            ValueError,
            TARGETS[..., None].expand(2, 9, 7),
            r"must have shape .* with a label a logit, \(N, anchors, 3\), got \(2, 9, 7\)",
        ),
    ],
)
def test_misuse_of_targets_is_named(error, targets, words):
    with pytest.raises(error, match="targets" + words if words[0] == "\\" else "targets " + words):
        split_targets(targets, GOOD, 3)
    with pytest.raises(error, match="positive" + words if words[0] == "\\" else "positive " + words):
        order_by_level(torch.ones(0), targets, GOOD, 3)


@pytest.mark.parametrize(
    ("error", "given", "words"),
    [
        (TypeError, [0.5], r"must be a torch\.Tensor, got list"),
        (ValueError, torch.tensor(0.5), r"must have shape \(P, \.\.\.\), got \(\)"),
    ],
)
def test_misuse_of_values_is_named(error, given, words):
    with pytest.raises(error, match="values " + words):
        order_by_level(given, TARGETS > 0, GOOD, 3)


def test_a_mask_is_bool():
    with pytest.raises(TypeError, match=r"positive must have one of the dtypes bool, got torch\.int64"):
        order_by_level(torch.ones(0), TARGETS, GOOD, 3)
