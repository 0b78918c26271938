"""Every kind of tensor that autograd and indexing make: strides, shapes, offsets, and which of them asks for a gradient."""

import math

import pytest
import torch
from cases import Case, Labels
from implementations import LOSSES, evaluate, every_loss, outputs_of


def strided(t):
    return torch.stack((t, t + t), -1)[..., 0]


def transposed(t):
    return t.t().contiguous().t()


def shifted(t):
    """The same values one element off every alignment."""
    return torch.cat((t.new_zeros(1), t.reshape(-1)))[1:].view(t.shape)


def in_columns(t):
    return torch.cat((t, t), -1)[..., : t.shape[-1]]


views = pytest.mark.parametrize("view", [strided, transposed, shifted, in_columns])


@views
@every_loss
@pytest.mark.parametrize("labels", [Labels(torch.int8), Labels(torch.int64, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_strides_and_offsets_do_not_matter(losses, view, loss, labels, dtype):
    data = Case((301, 20), labels, dtype=dtype).build()
    logits = losses.put(data.logits.nan_to_num(0)).reshape(-1, 3)
    targets = losses.put(data.targets) if labels.classes else losses.put(data.targets).reshape(-1, 3)
    errors = losses.put(data.loc_errors)
    want = evaluate(loss, losses, logits, targets, errors)
    moved_targets = shifted(targets) if targets.dim() == 1 else view(targets)
    got = evaluate(loss, losses, view(logits), moved_targets, strided(errors))
    for name in want:
        assert torch.equal(got[name], want[name]), name


@every_loss
def test_expanded_tensors_count_each_element(losses, loss):
    logits = losses.put(torch.tensor([[0.5], [-1.0]])).expand(2, 3)
    targets = losses.put(torch.tensor([1, 0, -1])).expand(2, 3)
    errors = losses.put(torch.tensor([0.4])).expand(2)
    want = evaluate(loss, losses, logits.contiguous(), targets.contiguous(), errors.contiguous())
    got = evaluate(loss, losses, logits, targets, errors)
    for name in want:
        assert torch.equal(got[name], want[name]), name


@every_loss
def test_gradient_reaches_through_views(losses, loss):
    base = losses.put(torch.arange(12.0).reshape(3, 4) / 4).requires_grad_()
    targets = losses.put(torch.tensor([[1, 0, 0], [0, -1, 1], [0, 0, 0], [1, 0, 0]]))
    errors = losses.put(torch.tensor([0.1, 0.2, 0.3]))
    out = loss(losses, base.t(), targets, errors)
    sum(value for value in outputs_of(out).values() if value.requires_grad).backward()
    want = evaluate(loss, losses, base.detach().t().contiguous(), targets, errors)
    assert torch.equal(base.grad.cpu(), want["d_logits"].t())


@every_loss
@pytest.mark.parametrize("shape", [(60,), (60, 1), (1, 60), (4, 15), (2, 3, 10), (2, 3, 2, 5)], ids=str)
def test_shape_of_the_logits_does_not_matter(losses, loss, shape):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(60, generator=generator)
    labels = torch.randint(-1, 2, (60,), generator=generator)
    errors = torch.rand(int((labels == 1).sum()), generator=generator)
    want = evaluate(loss, losses, logits, labels, errors)
    got = evaluate(loss, losses, logits.reshape(shape), labels.reshape(shape), errors)
    assert got["d_logits"].shape == shape
    for name in want:
        assert torch.equal(got[name].reshape(-1), want[name].reshape(-1)), name


@every_loss
def test_class_indices_of_images_and_anchors(losses, loss):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    targets = torch.randint(-1, 6, (2, 3, 4), generator=generator)
    errors = torch.rand(int(((targets >= 0) & (targets < 5)).sum()), generator=generator)
    want = evaluate(loss, losses, logits.reshape(-1, 5), targets.reshape(-1), errors)
    got = evaluate(loss, losses, logits, targets, errors)
    for name in want:
        assert torch.equal(got[name].reshape(-1), want[name].reshape(-1)), name


@pytest.mark.parametrize("label", [1, 0, -1])
def test_single_score_without_dimensions(losses, label):
    errors = torch.tensor([0.6] * (label == 1))
    got = evaluate(LOSSES["alrp"], losses, torch.tensor(0.3), torch.tensor(label), errors)
    assert got["d_logits"].shape == ()
    assert float(got["cls"]) == float(got["d_logits"]) == 0
    assert torch.equal(got["loc"].reshape(1), errors if label == 1 else torch.zeros(1))


def test_single_anchor_without_dimensions(losses):
    logits, errors = torch.tensor([0.5, -1.0, 0.0]), torch.tensor([0.6])
    got = evaluate(LOSSES["alrp"], losses, logits, torch.tensor(1), errors)
    want = evaluate(LOSSES["alrp"], losses, logits, torch.tensor([0, 1, 0]), errors)
    for name in want:
        assert torch.equal(got[name], want[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("errors_dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_dtypes_of_outputs_and_gradients(losses, dtype, errors_dtype):
    logits, targets, errors = torch.zeros(4, dtype=dtype), torch.tensor([1, 0, 0, -1]), torch.tensor([0.5], dtype=errors_dtype)
    got = evaluate(LOSSES["alrp"], losses, logits, targets, errors)
    assert got.pop("d_logits").dtype == dtype
    assert got.pop("d_loc_errors").dtype == errors_dtype
    assert {value.dtype for value in got.values()} == {torch.float64 if dtype == torch.float64 else torch.float32}


@pytest.mark.parametrize("mine", [(False, False), (True, False), (False, True), (True, True)], ids=str)
def test_gradient_goes_to_those_who_ask(losses, mine):
    data = Case((31, 7)).build()
    logits = losses.put(data.logits.clone()).requires_grad_(mine[0])
    errors = losses.put(data.loc_errors.clone()).requires_grad_(mine[1])
    out = losses.alrp_loss(logits, losses.put(data.targets), errors)
    want = losses.alrp_loss(logits.detach(), losses.put(data.targets), errors.detach())
    assert all(torch.equal(a, b) for a, b in zip(out, want, strict=True))
    assert not out.rank.requires_grad
    assert not out.precision.requires_grad
    assert (out.cls + out.loc).requires_grad == any(mine)
    if any(mine):
        (out.cls + out.loc).backward()
        full = evaluate(LOSSES["alrp"], losses, data.logits, data.targets, data.loc_errors)
        for tensor, asks, name in ((logits, mine[0], "d_logits"), (errors, mine[1], "d_loc_errors")):
            assert torch.equal(tensor.grad.cpu(), full[name]) if asks else tensor.grad is None


@pytest.mark.parametrize("score", [0.0, float("nan")])
def test_a_part_that_is_not_asked_for_sends_zero(fast, score):
    logits, errors = fast.put(torch.tensor([score, 0.5])).requires_grad_(), fast.put(torch.tensor([0.25])).requires_grad_()
    out = fast.alrp_loss(logits, fast.put(torch.tensor([1, 0])), errors)
    for part, other, own in ((out.cls, errors, logits), (out.loc, logits, errors)):
        zero, gradient = torch.autograd.grad(part, (other, own), retain_graph=True)
        assert torch.equal(zero, torch.zeros_like(other))
        assert gradient.isnan().any() == math.isnan(score)


@every_loss
def test_a_graph_changes_no_gradient(losses, loss):
    def gradients(graph):
        logits = losses.put(torch.tensor([0.5, -0.5, 0.25, 0.0])).requires_grad_()
        errors = losses.put(torch.tensor([0.3, 0.6])).requires_grad_()
        out = outputs_of(loss(losses, logits, losses.put(torch.tensor([1, 0, 0, 1])), errors))
        value = sum(value for value in out.values() if value.requires_grad)
        return torch.autograd.grad(value, (logits, errors), create_graph=graph, materialize_grads=True)

    assert all(torch.equal(got, want) for got, want in zip(gradients(True), gradients(False), strict=True))


@every_loss
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_values_are_the_same_without_a_graph(losses, loss, mode):
    data = Case((31, 7)).build()
    logits, targets, errors = (losses.put(t.clone()) for t in (data.logits, data.targets, data.loc_errors))
    logits.requires_grad_()
    with_graph = loss(losses, logits, targets, errors)
    with mode():
        without = loss(losses, logits, targets, errors)
    for a, b in zip(*((x if isinstance(x, tuple) else (x,)) for x in (with_graph, without)), strict=True):
        assert torch.equal(a, b)
        assert not b.requires_grad


def test_no_positives_keep_a_network_connected(losses):
    weight = losses.put(torch.ones(3, 2)).requires_grad_()
    features = losses.put(torch.randn(5, 3))
    out = losses.alrp_loss(features @ weight, losses.put(torch.full((5,), 2)), losses.put(torch.empty(0)))
    (out.cls + out.loc).backward()
    assert torch.equal(weight.grad, torch.zeros_like(weight))
