"""The ratio of positives' and negatives' gradients."""

import math

import pytest
import torch
from dispatched import recorded

import alrp_cuda
from alrp_cuda.metrics import GradientBalance


def ratio(grad, targets, **options):
    balance = GradientBalance()
    balance.update(torch.as_tensor(grad), torch.as_tensor(targets), **options)
    return float(balance.compute())


def test_flat_targets():
    assert ratio([-3.0, 1, -1, 2, 100], [1, 0, 0, 0, -1]) == 0.75
    assert ratio([[-3.0, 1], [2, -9]], [[0.4, 0.0], [0.0, -1.0]]) == 1  # continuous labels, as Rank & Sort has


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8])
def test_class_indices(dtype):
    grad = [[-3.0, 1], [1, -2], [2, 2]]
    assert ratio(grad, torch.tensor([0, 1, 2], dtype=dtype)) == 5 / 6  # the third anchor is background
    assert ratio(grad, torch.tensor([2, 1, 0], dtype=dtype), background=0) == 2 / 9


def test_ignored_anchors_take_no_part():
    assert ratio([[-3.0, 1], [torch.nan, -2]], [0, -1]) == 3
    assert ratio([-3.0, 1, torch.nan], [1, 0, -1]) == 3


def test_updates_add_up_until_reset():
    balance = GradientBalance()
    for _ in range(2):
        assert balance.compute().isnan()
        balance.update(torch.tensor([1.0, 1.0]), torch.tensor([1, 0]))
        balance.update(torch.tensor([2.0, 5.0]), torch.tensor([1, 0]))
        assert balance.compute() == 0.5
        balance.reset()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_steps_that_are_not_finite_are_left_out(bad):
    balance = GradientBalance()
    balance.update(torch.tensor([1.0, 2.0]), torch.tensor([1, 0]))
    balance.update(torch.tensor([bad, 7.0]), torch.tensor([1, 0]))
    assert balance.compute() == 0.5


def test_one_sided_gradients():
    assert ratio([1.0, 0], [1, 0]) == torch.inf
    assert ratio([0.0, 1], [1, 0]) == 0
    assert ratio([0.1, 0.3], [0, 0]) == 0
    assert math.isnan(ratio([0.0, 0], [1, 0]))
    assert math.isnan(ratio(torch.rand(0, 3), torch.zeros(0, dtype=torch.int64)))


def test_ranking_losses_balance_through_a_hook():
    torch.manual_seed(0)
    logits = torch.randn(50, 4, requires_grad=True)
    targets = torch.randint(-1, 5, (50,))
    balance = GradientBalance()
    logits.register_hook(balance.hook(targets))
    alrp_cuda.ap_loss(logits, targets).backward()
    expected = logits.grad.clone()
    torch.testing.assert_close(float(balance.compute()), 1.0, rtol=1e-5, atol=0)
    logits.grad = None
    alrp_cuda.ap_loss(logits.detach().requires_grad_(), targets).backward()
    alrp_cuda.ap_loss(logits, targets).backward()
    assert torch.equal(logits.grad, expected)  # the hook changes nothing


def test_an_update_does_not_wait_for_the_device():
    with recorded() as operators:
        balance = GradientBalance()
        balance.update(torch.ones(5, 3), torch.tensor([0, 1, 2, 3, -1]))
        balance.update(torch.ones(5), torch.tensor([0, 1, 1, 0, -1]))
        balance.compute()
    assert "aten.sum" in operators
    assert "aten._local_scalar_dense" not in operators


def test_half_precision_does_not_overflow():
    assert ratio(torch.full((4,), 60000.0, dtype=torch.float16), [1, 1, 0, 0]) == 1


@pytest.mark.parametrize(
    ("error", "arguments", "words"),
    [
        (TypeError, ([1.0], torch.ones(1)), "grad must be a torch.Tensor, got list"),
        (ValueError, (torch.ones(2), torch.ones(3)), r"targets must have the .* shape \(2,\)"),
    ],
)
def test_bad_input(error, arguments, words):
    with pytest.raises(error, match=words):
        GradientBalance().update(*arguments)
