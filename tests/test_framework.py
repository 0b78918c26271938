"""error_driven_loss: the named losses in its terms, losses of the caller's own, and what it does where there is little to do."""

import math

import naive
import pytest
import torch
from cases import TABLE, Case, Labels, expected, near_eps
from compare import BOUND, assert_balanced, assert_near, assert_same_loss, compute_dtype
from conftest import implementations, make
from dispatched import recorded
from implementations import LOSSES, assert_value_error, evaluate

import alrp_cuda
from alrp_cuda import Errors


def ap(ranks):
    return Errors(ranks.n_fp / ranks.rank)


def interpolated_ap(ranks):
    ascending = ranks.scores.argsort(descending=True, stable=True).flip(0)
    value = torch.empty_like(ranks.n_fp)
    value[ascending] = 1 - (ranks.rank_pos / ranks.rank)[ascending].cummax(0).values
    return Errors(value)


def alrp(ranks):
    return Errors((ranks.n_fp + ranks.extras + ranks.extra_sums) / ranks.rank, ranks.extras / ranks.rank)


def root(ranks):
    """A loss of nobody's: sqrt(N_FP), of which a tenth of rank+ may remain, over a Z of its own."""
    return Errors(ranks.n_fp.sqrt() + 0.1 * ranks.rank_pos, 0.1 * ranks.rank_pos, 1 + ranks.rank.sum())


FORMS = {"ap": ap, "ap_interpolated": interpolated_ap, "alrp": alrp}
framework_cases = pytest.mark.parametrize("case", [*TABLE[::5], Case((1009, 257)), Case((0, 5)), Case((40, 0))], ids=str)


# A skew is for the tiled algorithm.
@pytest.fixture(scope="module", params=[p for p in implementations() if "sorted" not in str(getattr(p, "id", ""))])
def skewing(request):
    """As ``losses``, those that take a skew."""
    return make(request.param)


def run(losses, error_fn, data, *, extras=None, weight=1.0, **options):
    """{"loss", "d_logits", "d_extras"} on the CPU."""
    logits = losses.put(data.logits.detach().clone()).requires_grad_()
    leaves = [logits]
    if extras is not None:
        leaves.append(losses.put(extras.detach().clone()).requires_grad_())
        options["extras"] = leaves[1]
    loss = losses.error_driven_loss(logits, losses.put(data.targets), error_fn, **data.options | options)
    grads = torch.autograd.grad(weight * loss, leaves)
    named = {"loss": loss.detach(), **dict(zip(("d_logits", "d_extras"), grads, strict=False))}
    return {name: value.cpu() for name, value in named.items()}


@framework_cases
@pytest.mark.parametrize("name", FORMS)
def test_named_losses_are_forms_of_the_framework(losses, name, case):
    data = case.build()
    want = expected(case, name)
    got = run(losses, FORMS[name], data, extras=data.loc_errors if name == "alrp" else None)
    bound = BOUND[compute_dtype(case.dtype)]
    if name == "alrp":
        want = {"loss": want["cls"] + want["loc"], "d_logits": want["d_logits"], "d_loc_errors": want["d_loc_errors"]}
        got["d_loc_errors"] = got.pop("d_extras")
    assert_near("loss", got["loss"], want["loss"], bound)
    assert_same_loss(got, want, case.dtype, data.positive)


@pytest.mark.parametrize("labels", [Labels(torch.float32), Labels(torch.int64, 5)], ids=str)
def test_each_image_may_be_ranked_by_itself(losses, labels):
    """As a named loss does: images that come in any order, of which one holds no positive."""
    data = Case((1009, 67), labels).build()
    is_positive = (data.flat == 1).reshape(data.targets.numel(), -1).any(1).reshape(data.targets.shape)
    generator = torch.Generator().manual_seed(2)
    image = losses.put(torch.where(is_positive, 0, 1) + 2 * torch.randint(0, 4, data.targets.shape, generator=generator))
    scoped = {"scope": "image", "image_index": image}
    got = run(losses, alrp, data, extras=data.loc_errors, **scoped)
    want = evaluate(LOSSES["alrp"], losses, data.logits, data.targets, data.loc_errors, **data.options, **scoped)
    assert_near("loss", got["loss"], want["cls"] + want["loc"], BOUND[torch.float32])
    assert_near("extras", got["d_extras"], want["d_loc_errors"], BOUND[torch.float32])
    assert_same_loss({"d_logits": got["d_logits"]}, {"d_logits": want["d_logits"]}, torch.float32, data.positive)
    without = run(losses, ap, data, **scoped)
    want = evaluate(LOSSES["ap"], losses, data.logits, data.targets, data.loc_errors, **data.options, **scoped)
    assert_near("loss", without["loss"], want["loss"], BOUND[torch.float32])


def test_the_images_of_lists_may_be_ranked_by_themselves(losses):
    """Extras go to the images tensor by tensor; the function sees one image after the other."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(3, 4, places, generator=generator).transpose(1, 2) for places in (30, 7)]
    labels = [torch.randint(0, 6, v.shape[:2], generator=generator) for v in maps]  # classes 0 to 3, else background
    labels = [t.clamp(max=4).index_fill(0, torch.tensor(1), 4) for t in labels]
    extras = torch.rand(sum(int((t < 4).sum()) for t in labels), generator=generator).requires_grad_()
    seen = []

    def watched(ranks):
        seen.append(len(ranks.n_fp))
        return alrp(ranks)

    each = [[losses.put(v.clone()).requires_grad_() for v in maps], [losses.put(v.clone()).requires_grad_() for v in maps]]
    put = [losses.put(t) for t in labels]
    of_images = [losses.put(extras.detach().clone()).requires_grad_() for _ in range(2)]
    loss = losses.error_driven_loss(each[0], put, watched, extras=of_images[0], scope="image")
    out = losses.alrp_loss(each[1], put, of_images[1], scope="image")
    assert seen == [sum(int((t[k] < 4).sum()) for t in labels) for k in (0, 2)]
    assert_near("loss", loss.detach(), (out.cls + out.loc).detach(), BOUND[torch.float32])
    got = torch.autograd.grad(loss, [*each[0], of_images[0]])
    for a, b in zip(got, torch.autograd.grad(out.cls + out.loc, [*each[1], of_images[1]]), strict=True):
        assert_near("gradient", a, b, BOUND[torch.float32])


def test_images_that_do_not_fit_are_named(losses):
    logits, targets, image = (losses.put(v) for v in (torch.zeros(6), torch.tensor([1, 0, 1, 0, 0, 0]), torch.arange(6) // 3))
    scoped = {"scope": "image", "image_index": image}
    for words, options in (
        ("extras must be the number of positives, 2|extras .* 2", {"extras": losses.put(torch.ones(3)), **scoped}),
        ("image_index must be given", {"scope": "image"}),
        ("num_positives", {"num_positives": [1, 1], **scoped}),
    ):
        with pytest.raises(ValueError, match=words):
            losses.error_driven_loss(logits, targets, ap, **options)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (4, 0), (0, 4, 3), (2, 0, 3), (2, 4, 0)])
def test_no_logits_of_images_give_a_connected_zero(losses, shape):
    logits = losses.put(torch.zeros(shape)).requires_grad_()
    targets = losses.put(torch.zeros(shape[: max(1, len(shape) - 1)], dtype=torch.int64))
    alone = losses.error_driven_loss(logits, targets, ap, scope="image", image_index=targets)
    listed = losses.error_driven_loss([logits, logits], [targets, targets], ap, scope="image")
    (alone + listed).backward()
    assert alone.item() == listed.item() == 0
    assert logits.grad.shape == shape


@pytest.mark.parametrize("delta", [0.0, 0.5, 1.0])
def test_a_new_loss_pair_by_pair(losses, delta):
    assert_pair_by_pair(losses, delta, 1.0)


@pytest.mark.parametrize("delta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("skew", [2.0, 0.5])
def test_a_new_loss_with_a_skew_pair_by_pair(skewing, delta, skew):
    assert_pair_by_pair(skewing, delta, skew)


def assert_pair_by_pair(losses, delta, skew):
    data = Case((31, 7), delta=delta).build()
    got = run(losses, root, data, skew=skew)
    scores, labels = data.logits.reshape(-1).double().tolist(), data.flat.tolist()
    assert not near_eps(data.logits.reshape(-1), data.flat, delta)
    pos, neg = ([k for k, label in enumerate(labels) if label == side] for side in (1, 0))

    def h(i, j):
        return naive.step(scores[i], scores[j], delta)

    n_fp = {i: sum(h(i, j) for j in neg) for i in pos}
    rank_pos = {i: 1 + sum(h(i, k) for k in pos if k != i) for i in pos}
    z = 1 + sum(n_fp[i] + rank_pos[i] for i in pos)
    want = [0.0] * len(scores)
    for i in pos:
        if n_fp[i] <= 1e-5:
            continue
        norm = sum(h(i, j) ** skew for j in neg if h(i, j))
        for j in neg:
            dx = -math.sqrt(n_fp[i]) * (h(i, j) ** skew if h(i, j) else 0) / norm
            want[i] += dx / z
            want[j] -= dx / z
    assert_near("loss", got["loss"], sum(math.sqrt(n_fp[i]) + 0.1 * rank_pos[i] for i in pos) / z, 1e-6)
    assert_same_loss({"d_logits": got["d_logits"]}, {"d_logits": torch.tensor(want)}, torch.float32, data.positive)


def test_gradient_is_balanced_whatever_the_loss(losses):
    assert_gradient_is_balanced(losses, 1.0)


@pytest.mark.parametrize("skew", [3.0, 16.0])
def test_gradient_is_balanced_whatever_the_loss_and_skew(skewing, skew):
    assert_gradient_is_balanced(skewing, skew)


def assert_gradient_is_balanced(losses, skew):
    for case in (Case((257, 19)), Case((1009, 31), delta=0.0, scale="ties"), Case((257, 3), Labels(torch.int64, 5), delta=0.5)):
        data = case.build()
        got = run(losses, root, data, skew=skew)["d_logits"]
        assert got.count_nonzero()
        assert_balanced(got, data.positive, BOUND[torch.float32])


def test_skew_promotes_the_harder_negative(skewing):
    losses = skewing
    logits, targets = torch.tensor([0.0, 0.5, -0.5]), torch.tensor([1, 0, 0])  # H = 3/4 and 1/4
    for skew, share in ((1.0, 0.75), (2.0, 0.9), (0.5, 3**0.5 / (1 + 3**0.5))):
        mine = losses.put(logits.clone()).requires_grad_()
        loss = losses.error_driven_loss(mine, losses.put(targets), ap, skew=skew)
        (grad,) = torch.autograd.grad(loss, mine)
        assert_near("gradient", grad.cpu(), [-0.5, 0.5 * share, 0.5 * (1 - share)], 1e-6)


def test_few_false_positives_send_no_gradient_whatever_their_powers(skewing):
    """eps is of N_FP, not of the sum of powers that a skew shares the error by."""
    logits = skewing.put(torch.tensor([0.0, -0.998])).requires_grad_()  # H = 0.001
    loss = skewing.error_driven_loss(logits, skewing.put(torch.tensor([1, 0])), ap, skew=2.0)
    want = torch.tensor([-1.0, 1.0]) * 0.001 / 1.001
    assert_near("gradient", torch.autograd.grad(loss, logits)[0].cpu(), want, 1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_derivative_by_several_extras(losses, dtype):
    """K rows of extras, each summed by itself; the derivative against finite differences of the value, which is linear here."""
    data = Case((257, 19), dtype=dtype).build()
    extras = torch.rand(3, 19, generator=torch.Generator().manual_seed(0), dtype=dtype)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def error_fn(ranks):
        assert ranks.extras.shape == ranks.extra_sums.shape == (3, 19)
        w = weights.to(ranks.extras.device)
        return Errors((w @ ranks.extra_sums + (w @ ranks.extras) ** 2) / ranks.rank)

    got = run(losses, error_fn, data, extras=extras, weight=2.0)

    def value(e):
        return run(losses, error_fn, data, extras=e)["loss"].double()

    if dtype == torch.float64:
        for row, k in ((0, 0), (1, 7), (2, 18)):
            moved = [extras.clone() for _ in range(2)]
            for e, change in zip(moved, (1e-5, -1e-5), strict=True):
                e[row, k] += change
            slope = 2 * (value(moved[0]) - value(moved[1])) / 2e-5
            assert_near("derivative", got["d_extras"][row, k], slope, 1e-7)
    assert got["d_extras"].dtype == dtype
    assert got["d_extras"].count_nonzero() == extras.numel()


def test_gradients_scale_with_what_comes_in(losses):
    data = Case((257, 19)).build()
    one, three = (run(losses, alrp, data, extras=data.loc_errors, weight=w) for w in (1.0, 3.0))
    for name in ("d_logits", "d_extras"):
        assert_near(name, three[name], 3 * one[name], 1e-6)


def test_infinite_extras_reach_only_what_ranks_with_them(losses):
    logits, targets = torch.tensor([3.0, 1.0, 0.0]), torch.tensor([1, 0, 1])
    sums = []

    def look(ranks):
        sums.append(ranks.extra_sums.tolist())
        return ap(ranks)

    for extras in ([0.2, math.inf], [math.inf, 0.2]):
        losses.error_driven_loss(
            losses.put(logits), losses.put(targets), look, delta=0.5, extras=losses.put(torch.tensor(extras))
        )
    assert sums[0] == pytest.approx([0, 0.2])
    assert sums[1] == [0, math.inf]


@pytest.mark.parametrize("labels", [[0, 0, -1], [-1, -1, -2]])
def test_no_positives_give_a_connected_zero(losses, labels):
    logits = losses.put(torch.tensor([1.0, 2.0, 3.0])).requires_grad_()
    extras = losses.put(torch.empty(2, 0)).requires_grad_()

    def never(ranks):
        raise AssertionError("called without a positive")

    loss = losses.error_driven_loss(logits, losses.put(torch.tensor(labels)), never, extras=extras)
    loss.backward()
    assert not loss.any()
    assert torch.equal(logits.grad.cpu(), torch.zeros(3))
    assert extras.grad.shape == (2, 0)


def test_nan_score_makes_everything_nan(losses):
    for labels, extras in (([1, 0, 0, -1], [0.5]), ([0, 0, 0, -1], [])):
        logits = losses.put(torch.tensor([0.0, math.nan, 1.0, math.nan])).requires_grad_()
        extras = losses.put(torch.tensor(extras)).requires_grad_()
        loss = losses.error_driven_loss(logits, losses.put(torch.tensor(labels)), alrp, extras=extras)
        loss.backward()
        assert loss.isnan()
        assert logits.grad.isnan().tolist() == [True, True, True, False]
        assert extras.grad.isnan().all()


def test_function_runs_with_gradients_only_where_extras_ask(losses):
    logits, targets = losses.put(torch.zeros(3)).requires_grad_(), losses.put(torch.tensor([1, 0, 1]))
    seen = []

    def look(ranks):
        seen.append(torch.is_grad_enabled())
        assert not ranks.rank.requires_grad
        return ap(ranks)

    extras = losses.put(torch.zeros(2))
    for e in (None, extras, extras.clone().requires_grad_()):
        losses.error_driven_loss(logits, targets, look, extras=e)
    assert seen == [False, False, True]


def test_second_derivative_raises(losses):
    logits = losses.put(torch.zeros(3)).requires_grad_()
    loss = losses.error_driven_loss(logits, losses.put(torch.tensor([1, 0, 1])), ap)
    (grad,) = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


def test_no_wait_for_the_device_where_the_positives_are_known(not_waiting):
    logits, targets = not_waiting.put(torch.zeros(5)).requires_grad_(), not_waiting.put(torch.tensor([1, 0, 1, 0, -1]))
    with recorded() as operators:
        not_waiting.error_driven_loss(logits, targets, root, num_positives=2).backward()
        not_waiting.error_driven_loss(logits, targets, alrp, extras=not_waiting.put(torch.zeros(2))).backward()
    assert not {"aten._local_scalar_dense", "aten.nonzero", "aten.item"} & set(operators)


GOOD = {"logits": torch.zeros(2, 3), "targets": torch.tensor([[1, 0, 0], [0, -1, 1]]), "error_fn": ap}


def call(losses, changes):
    arguments = {k: losses.put(v) if isinstance(v, torch.Tensor) else v for k, v in (GOOD | changes).items()}
    return losses.error_driven_loss(**arguments)


@pytest.mark.parametrize(
    ("error", "changes", "words"),
    [
        (TypeError, {"extras": [0.1, 0.2]}, r"extras must be a torch\.Tensor, got list"),
        (TypeError, {"extras": torch.tensor([1, 2])}, r"extras must have one of the dtypes .*, got torch\.int64"),
        (ValueError, {"extras": torch.zeros(1, 1, 2)}, r"extras must have shape \(P,\) or \(K, P\), .*, got shape \(1, 1, 2\)"),
        (ValueError, {"extras": torch.zeros(3), "num_positives": 2}, "extras must have one value per positive: .* 2, got 3"),
        (ValueError, {"num_positives": -1}, "num_positives must be >= 0, got -1"),
        (ValueError, {"delta": -1.0}, r"delta must be finite and >= 0, got -1\.0"),
        (ValueError, {"skew": 0.0}, r"skew must be > 0 and <= 16, got 0\.0"),
        (ValueError, {"skew": 17}, "skew must be > 0 and <= 16, got 17"),
        (TypeError, {"skew": "2"}, "skew must be a number, got str"),
        (TypeError, {"error_fn": lambda r: r.n_fp}, r"error_fn must return alrp_cuda\.Errors, got Tensor"),
        (TypeError, {"error_fn": lambda r: Errors(1.0)}, r"value of error_fn must be a torch\.Tensor, got float"),
        (
            ValueError,
            {"error_fn": lambda r: Errors(r.n_fp[:1])},
            r"value of error_fn must have shape \(P,\) = \(2,\), got \(1,\)",
        ),
        (ValueError, {"error_fn": lambda r: Errors(r.n_fp, r.n_fp.sum())}, r"target of error_fn must have shape .* got \(\)"),
        (TypeError, {"error_fn": lambda r: Errors(r.n_fp, "0")}, "target of error_fn must be .*, got '0'"),
        (ValueError, {"error_fn": lambda r: Errors(r.n_fp, z=0)}, "z of error_fn must be > 0, got 0"),
        (
            ValueError,
            {"error_fn": lambda r: Errors(r.n_fp, z=r.n_fp)},
            r"z of error_fn must have one element, .* got shape \(2,\)",
        ),
    ],
)
def test_misuse_is_named(losses, error, changes, words):
    with pytest.raises(error, match=words):
        call(losses, changes)


def test_wrong_numbers_of_positives_are_named(losses):
    logits, targets = losses.put(GOOD["logits"]), losses.put(GOOD["targets"])
    for options, words in (
        ({"num_positives": 3}, "num_positives must be the number of positives in targets, 2, got 3"),
        ({"extras": losses.put(torch.zeros(1))}, "extras must have one value per positive: targets hold 2 positives, got 1"),
    ):
        assert_value_error(losses, words, lambda o=options: losses.error_driven_loss(logits, targets, ap, **o))


def test_skew_is_not_for_the_sorted_algorithm():
    with pytest.raises(ValueError, match=r"skew must be 1 for algorithm 'sorted', got 2\.0"):
        alrp_cuda.error_driven_loss(**GOOD, skew=2.0, algorithm="sorted")
    assert alrp_cuda.error_driven_loss(**GOOD, skew=2.0) == alrp_cuda.error_driven_loss(**GOOD, skew=2.0, algorithm="tiled")


@pytest.mark.parametrize("error_fn", [None, 1.0])
def test_an_error_function_can_be_called(error_fn):
    with pytest.raises(TypeError, match=f"error_fn must be callable, got {type(error_fn).__name__}"):
        alrp_cuda.error_driven_loss(torch.zeros(3), torch.zeros(3, dtype=torch.int64), error_fn)
