"""What the sorted form promises beyond the suite that both forms pass: many positives, many scores, little memory."""

import functools
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
import truth
from cases import Case, Labels
from implementations import LOSSES, RANKING, Fast, evaluate
from test_size import assert_as_the_truth, large

import alrp_cuda
from bench import per_positive_loop


@pytest.fixture(scope="module")
def sorted_form():
    return Fast("cpu", "sorted")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in RANKING else [pytest.mark.full]) for n in LOSSES])
@pytest.mark.parametrize(
    ("delta", "dtype", "scale"),
    [
        (1.0, torch.float32, "dense"),
        (0.0, torch.float32, "ties"),
        (1e-3, torch.float32, "sparse"),
        (0.5, torch.float64, "dense"),
        (100.0, torch.bfloat16, "dense"),
    ],
    ids=str,
)
def test_many_positives_lose_no_precision(sorted_form, name, delta, dtype, scale):
    assert_as_the_truth(sorted_form, name, dtype, delta, 100_000, 20_000, scale)


@pytest.mark.full
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_hundred_thousand_positives(sorted_form, dtype):
    assert_as_the_truth(sorted_form, "alrp", dtype, 1.0, 2_000_000, 100_000)


@pytest.mark.full
def test_a_hundred_million_scores(sorted_form):
    assert_as_the_truth(sorted_form, "alrp", torch.float32, 1.0, 100_000_000, 2000)


@pytest.mark.parametrize("seed", range(4))
def test_steps_are_exact_far_from_where_a_chain_of_positives_begins(backend, seed):
    """Positions in a chain of float64 scores are counted from its lowest one; that difference needs more than a double."""
    generator = torch.Generator().manual_seed(seed)
    uniform = functools.partial(torch.rand, dtype=torch.float64, generator=generator)
    positives = 3.9 * (torch.arange(1000) - 500) + 0.05 * uniform(1000)  # 2 delta reach from one to the next, but for a little
    highest = positives[-1:]
    negative = highest + 2 * uniform(1) - 1
    found = []

    def error_fn(ranks):
        found.extend(ranks.n_fp.tolist())
        return alrp_cuda.Errors(ranks.n_fp / ranks.rank)

    Fast(backend, "sorted").error_driven_loss(torch.cat([positives, negative]), torch.arange(1001) < 1000, error_fn, delta=1.0)
    assert found[:-1] == [1.0] * 999
    assert found[-1] == float((Fraction(negative.item()) - Fraction(highest.item())) / 2 + Fraction(1, 2))


@pytest.mark.parametrize("scale", ["apart", "ties", "of any size", "infinite"])
def test_a_jump_ranks_floats_as_doubles(backend, scale):
    """With delta = 0 floats have a form of their own on the CPU."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(5000, generator=generator)
    if scale == "ties":
        scores = (4 * scores).round() / 4  # 0.0 and -0.0 among them
    elif scale == "of any size":
        scores = scores.sign() * 10 ** (20 * scores.abs() - 44)
    elif scale == "infinite":
        scores[::7] = scores[::7] * torch.inf
    targets = torch.arange(5000) % 25 == 0
    fast = Fast(backend, "sorted")

    def loss_and_gradient(dtype):
        logits = fast.put(scores.to(dtype)).requires_grad_()
        loss = fast.ap_loss(logits, fast.put(targets), delta=0.0)
        return loss.float(), torch.autograd.grad(loss, logits)[0].float()

    for a, b in zip(loss_and_gradient(torch.float32), loss_and_gradient(torch.float64), strict=True):
        assert torch.equal(a, b)


class Loop:
    """The per-positive loop of the benchmark behind the face of the other implementations."""

    alrp_loss = staticmethod(per_positive_loop.alrp_loss)
    ap_loss = staticmethod(per_positive_loop.ap_loss)

    def put(self, tensor):
        return tensor.clone()


@pytest.mark.parametrize("name", ["alrp", "alrp_hard", "ap", "ap_interpolated"])  # what has a published loop
@pytest.mark.parametrize("scale", ["dense", "sparse", "ties"])
@pytest.mark.parametrize("delta", [0.0, 1e-3, 1.0, 100.0])
def test_errs_no_more_than_the_loop_in_float32(sorted_form, name, scale, delta):
    logits, labels, errors = large(20_000, 200, torch.float32, scale)
    errors = errors.float()
    want = truth.evaluate(name, logits.double().numpy(), labels.numpy(), errors.double().numpy(), delta)
    ours, loop = (evaluate(LOSSES[name], losses, logits, labels, errors, delta=delta) for losses in (sorted_form, Loop()))
    for key, value in want.items():
        exact = torch.as_tensor(value, dtype=torch.float64)
        error, of_loop = (float((found[key].double() - exact).norm() / exact.norm()) for found in (ours, loop))
        assert error <= of_loop + 2e-7, key


@pytest.mark.parametrize(
    ("dtype", "positives", "delta", "chosen"),
    [
        (torch.float32, 3, 1.0, "sorted"),
        (torch.float32, 30, 1.0, "sorted"),
        (torch.float64, 160, 1.0, "tiled"),
        (torch.float64, 161, 1.0, "sorted"),
    ],
    ids=str,
)
def test_auto_chooses_by_the_number_of_positives(dtype, positives, delta, chosen):
    data = Case((2000, positives), Labels(torch.int8), dtype=dtype).build()

    def gradient(algorithm):
        logits = data.logits.clone().requires_grad_()
        cls, loc = alrp_cuda.alrp_loss(logits, data.targets, data.loc_errors, delta=delta, algorithm=algorithm)[:2]
        return torch.autograd.grad(cls + loc, logits)[0]

    other = {"tiled": "sorted", "sorted": "tiled"}[chosen]
    assert torch.equal(gradient("auto"), gradient(chosen))
    assert not torch.equal(gradient(chosen), gradient(other)), "the gradient does not tell which it was"


# Run in a process of its own: the peak of a process is never given back.
FORWARD = """
import resource, sys, torch, alrp_cuda

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB

def case(anchors, form):
    if form == "flat":
        targets = torch.zeros(anchors * 20, dtype=torch.int8)
        targets[::9973] = 1
        return torch.randn(anchors * 20), targets, torch.rand(int((targets == 1).sum()))
    targets = torch.full((anchors,), 20)
    targets[::499] = 7
    return torch.randn(anchors, 20), targets, torch.rand(int((targets == 7).sum()))

with torch.no_grad():
    alrp_cuda.alrp_loss(*case(5000, sys.argv[1]), algorithm="sorted")  # what is set up once
    arguments = case(2_000_000, sys.argv[1])
    before = peak()
    alrp_cuda.alrp_loss(*arguments, algorithm="sorted")
    print(peak() - before)
"""


@pytest.mark.parametrize("form", ["flat", "classes"])
def test_forward_without_gradients_keeps_nothing_of_the_size_of_the_logits(form):
    done = subprocess.run([sys.executable, "-c", FORWARD, form], capture_output=True, text=True, check=True)
    logits = 2_000_000 * 20 * 4 / 1024
    assert int(done.stdout) < logits / 20
