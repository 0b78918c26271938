"""A list of tensors in the place of logits: the numbers are those of one call with the tensors' concatenation."""

import math
from dataclasses import replace

import pytest
import torch
from compare import BOUND, assert_near, compute_dtype
from implementations import LOSSES, every_loss
from listed import CASES, LARGE, Listed, Problem, evaluate
from test_scope import waiting  # noqa: F401
from thread_ranks import run_ranks
from torch._dynamo.utils import counters

import alrp_cuda
from alrp_cuda import Errors, reference


def assert_same(got, want, algorithm, dtype, what=""):
    """Bit by bit, but for the kind of NaN, by the sorted form and the reference; else near."""
    assert got.keys() == want.keys()
    for name, value in want.items():
        if algorithm == "tiled":
            rounded = dtype if name.startswith("d_") else None
            assert_near(f"{what} {name}", got[name], value, BOUND[compute_dtype(dtype)], rounded)
            continue
        assert got[name].dtype == value.dtype
        assert torch.equal(got[name].nan_to_num(7), value.nan_to_num(7)), f"{what} {name}"


def algorithm_of(losses):
    return getattr(losses, "choice", {}).get("algorithm")


def assert_as_joined(loss, losses, problem, **options):
    got = evaluate(loss, losses, problem, **options)
    want = evaluate(loss, losses, problem, joined=True, **options)
    assert_same(got, want, algorithm_of(losses), problem.logits[0].dtype)
    return got


@every_loss
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_list_is_its_concatenation(losses, loss, case):
    assert_as_joined(loss, losses, case.build())


@pytest.mark.parametrize("name", ["alrp", "rank_sort"])
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_levels_of_more_than_a_tile(losses, name, case):
    assert_as_joined(LOSSES[name], losses, case.build())


SMALL = Listed((900, 60), scale="ties")


@every_loss
@pytest.mark.parametrize("kind", ["positive", "negative", "ignored"])
def test_nan_in_a_level(losses, loss, kind):
    problem = SMALL.build()
    classes = [t.reshape(-1) for t in problem.targets]
    level = 1
    wanted = {"positive": classes[level] < 5, "negative": classes[level] == 5, "ignored": classes[level] < 0}[kind]
    if kind == "positive":
        wanted &= classes[level] >= 0
    logits = [v.clone() for v in problem.logits]
    row = int(wanted.nonzero()[0])
    logits[level] = logits[level].reshape(-1, 5).index_fill(0, torch.tensor([row]), math.nan).reshape(logits[level].shape)
    got = assert_as_joined(loss, losses, replace(problem, logits=logits))
    assert all(value.isnan().any() == (kind != "ignored") for name, value in got.items() if value.dim() == 0)


@every_loss
def test_a_list_of_one_is_its_tensor(losses, loss):
    problem = replace(SMALL, levels="one").build()
    listed = evaluate(loss, losses, problem)
    for tuples in (tuple, list):
        again = evaluate(loss, losses, replace(problem, logits=tuples(problem.logits), targets=tuples(problem.targets)))
        assert_same(again, listed, "sorted", torch.float32)
    assert_as_joined(loss, losses, problem)


def test_only_tensors_that_want_a_gradient_get_one(fast):
    problem = SMALL.build()
    logits = [fast.put(v).detach().requires_grad_(k == 1) for k, v in enumerate(problem.logits)]
    want = evaluate(LOSSES["ap"], fast, problem, weights=(1.0,))["d_logits[1]"]
    fast.ap_loss(logits, [fast.put(t) for t in problem.targets]).backward()
    assert [v.grad is None for v in logits] == [True, False, True]
    assert torch.equal(logits[1].grad.cpu(), want)


def test_maps_of_a_head_get_their_gradients(fast):
    """Channels first and last, by views of the maps."""
    torch.manual_seed(0)
    for memory in (torch.contiguous_format, torch.channels_last):
        maps = [torch.randn(2, 6, side, side).contiguous(memory_format=memory) for side in (5, 3, 1)]
        maps = [fast.put(level).requires_grad_() for level in maps]
        targets = [fast.put(torch.randint(4, (2, side, side, 2))) for side in (5, 3, 1)]
        loss = fast.ap_loss(alrp_cuda.head_views(maps, 3), targets)
        got = torch.autograd.grad(loss, maps)
        rows = [m.unflatten(1, (2, 3)).permute(0, 3, 4, 1, 2).reshape(-1, 3) for m in maps]
        loss = fast.ap_loss(torch.cat(rows), torch.cat([t.reshape(-1) for t in targets]))
        for g, w in zip(got, torch.autograd.grad(loss, maps), strict=True):
            assert_near("gradient", g, w, 1e-6)
            assert g.shape == w.shape


# ---- scope="image"


def images_of(case, *, empty=True):
    """A case whose tensors share their first dimension, three images, of which the last may have no positive."""
    data = case.build()
    logits, targets = [], []
    for v, t in zip(data.logits, data.targets, strict=True):
        rows, labels = v.reshape(-1, 5), t.reshape(-1)
        each = len(labels) // 3
        logits.append(rows[: 3 * each].reshape(3, each, 5).transpose(1, 2).contiguous().transpose(1, 2))
        targets.append(labels[: 3 * each].reshape(3, each))
        if empty:
            targets[-1] = torch.cat((targets[-1][:2], targets[-1][2:].where(targets[-1][2:] < 0, 5)))
    positive = torch.cat([((t >= 0) & (t < 5)).reshape(-1) for t in targets])
    return Problem(logits, targets, data.loc_errors[: int(positive.sum())], data.options, positive)


def index_of(problem):
    return torch.cat([torch.arange(3).repeat_interleave(t.numel() // 3) for t in problem.targets])


def counts_of(problem):
    return [sum(int(((t[n] >= 0) & (t[n] < 5)).sum()) for t in problem.targets) for n in range(3)]


@every_loss
@pytest.mark.parametrize("levels", ["several", "empty", "one", "tiny"])
def test_each_image_by_itself(losses, loss, levels):
    """The same numbers as by an index of images, whose rows are then put in the order of images."""
    problem = images_of(replace(SMALL, levels=levels))
    counts = counts_of(problem)
    assert counts[2] == 0 < min(counts[:2])
    index = index_of(problem)
    if loss.kind == "rank_sort":
        index = index.repeat_interleave(5)
    want = evaluate(loss, losses, problem, joined=True, scope="image", image_index=losses.put(index))
    for told in (None, sum(counts), counts):
        if told is None or told is counts or loss.kind != "alrp":
            got = evaluate(loss, losses, problem, scope="image", num_positives=told)
            assert_same(got, want, algorithm_of(losses), torch.float32)


@pytest.mark.parametrize("images", [1, 2, 3])
def test_any_number_of_images(fast, images):
    generator = torch.Generator().manual_seed(images)
    maps = [fast.put(torch.randn(images, 2, side, generator=generator)).requires_grad_() for side in (5, 3)]
    targets = [fast.put(torch.arange(images * side).reshape(images, side) % 3) for side in (5, 3)]
    views = [m.transpose(1, 2) for m in maps]
    got = fast.ap_loss(views, targets, scope="image")
    each = [fast.ap_loss([v[n] for v in views], [t[n] for t in targets]) for n in range(images)]
    want = torch.stack(each).mean()
    assert_near("loss", got.detach(), want.detach(), 1e-6)
    for g, w in zip(torch.autograd.grad(got, maps), torch.autograd.grad(want, maps), strict=True):
        assert_near("gradient", g, w, 1e-6)


@every_loss
def test_told_positives_of_images_take_no_wait(fast, waiting, loss):  # noqa: F811
    problem = images_of(SMALL)
    if loss.kind == "rank_sort":  # whose labels the tests make by a mask
        problem, loss = problem.continuous(), LOSSES["ap"]
        problem = replace(problem, targets=[torch.where(t > 0, 1, t) for t in problem.targets])
    counts = counts_of(images_of(SMALL))
    want = evaluate(loss, fast, problem, scope="image")
    waiting.clear()
    got = evaluate(loss, fast, problem, scope="image", num_positives=counts)
    assert waiting == []
    assert_same(got, want, "sorted", torch.float32)
    waiting.clear()
    evaluate(loss, fast, problem, scope="image")
    assert waiting == ["tolist"]


@every_loss
def test_images_that_are_not_outermost_in_memory(losses, loss):
    """(queries, N, C) as some heads have it, and slices whose strides look like those of dense memory."""
    torch.manual_seed(0)
    drawn, wide = torch.randn(4, 3, 2), torch.randn(3, 3, 4)[..., :2]
    targets = torch.tensor([[0, 2, 1, -1], [2, 2, 0, 1], [2, 2, 2, 2]])
    errors, nowhere = torch.rand(10), torch.zeros(0, dtype=torch.bool)
    for levels in ([drawn], [drawn, drawn[1:]], [wide], [wide] * 2):
        views = [v.transpose(0, 1) for v in levels]
        labels = [targets[:, : v.shape[1]] for v in views]
        positives = sum(int(((t >= 0) & (t < 2)).sum()) for t in labels)
        problem = Problem(views, labels, errors[:positives], {}, nowhere)
        ordered = replace(problem, logits=[v.contiguous() for v in views])
        got, want = (evaluate(loss, losses, each, scope="image") for each in (problem, ordered))
        assert_same(got, want, algorithm_of(losses), torch.float32)


def test_wrongly_told_positives_of_images_give_nan_on_a_device(not_waiting, monkeypatch):
    monkeypatch.setattr("alrp_cuda.images._is_awaited", lambda tensor: True)
    problem = images_of(SMALL)
    first, second, _ = counts_of(problem)
    for wrong in ([first + 1, second - 1, 0], [0, 0, first + second], [second, first, 0]):
        if wrong != [first, second, 0]:
            got = evaluate(LOSSES["alrp"], not_waiting, problem, scope="image", num_positives=wrong)
            assert got["cls"].isnan()
            assert got["loc"].isnan()


@every_loss
@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3), (2, 4, 0)])
def test_no_logits_of_images_give_connected_zeros(losses, loss, shape):
    targets = torch.zeros(shape, dtype=torch.int64)
    problem = Problem([torch.empty(shape)] * 2, [targets] * 2, torch.empty(0), {}, torch.zeros(0, dtype=torch.bool))
    for value in evaluate(loss, losses, problem, scope="image").values():
        assert not value.any()


def test_class_indices_of_one_class(losses):
    """0 is the class, 1 the background."""
    logits = [losses.put(torch.tensor(scores)) for scores in ([0.5, -1.0, 3.0], [0.25, 2.0])]
    targets = [losses.put(torch.tensor(labels)) for labels in ([1, 0, -1], [1, -1])]
    want = losses.ap_loss(logits, targets)
    indices = [torch.where(label < 0, -1, 1 - label) for label in targets]
    assert torch.equal(losses.ap_loss([score[:, None] for score in logits], indices), want)


def test_scores_without_dimensions(losses):
    scores = [losses.put(torch.tensor(score)) for score in (0.5, -1.0, 0.5)]
    got = losses.ap_loss(scores, [losses.put(torch.tensor(label)) for label in (1, 0, 0)])
    assert abs(float(got) - 1 / 3) <= 1e-6


def ascending(dims):
    """Logits of so many dimensions, none of which follows another in memory, and targets."""
    logits = torch.randn((2,) * dims).permute(*reversed(range(dims)))
    return logits, (torch.arange(2**dims) % 5 == 0).long().reshape(logits.shape)


def test_many_dimensions_in_another_order(fast):
    logits, targets = ascending(8)
    problem = Problem([logits], [targets], torch.rand(52), {}, targets.bool())
    assert_as_joined(LOSSES["alrp"], fast, problem)


def test_more_dimensions_in_another_order_are_refused(fast):
    logits, targets = ascending(9)
    words = r"logits must have at most 8 dimensions in another order than memory, got strides \[1, 2, 4, 8"
    with pytest.raises(ValueError, match=words):
        fast.ap_loss([fast.put(logits)], [fast.put(targets)])


# ---- where else a loss is called


def own_error(ranks):
    return Errors(ranks.n_fp / ranks.rank + ranks.extra_sums / ranks.rank, ranks.extra_sums / ranks.rank)


@pytest.mark.parametrize("case", CASES[::7], ids=str)
def test_framework(losses, case):
    problem = case.build()
    skew = {"skew": 2.0} if algorithm_of(losses) == "tiled" else {}

    def results(joined):
        logits = [v.detach().requires_grad_() for v in map(losses.put, problem.logits)]
        views = [v.view_as(v) for v in logits]
        targets = [losses.put(t) for t in problem.targets]
        placed = replace(problem, logits=views, targets=targets)
        tensors = (placed.joined(views), placed.joined(targets)) if joined else (views, targets)
        extras = losses.put(problem.loc_errors).detach().requires_grad_()
        loss = losses.error_driven_loss(*tensors, own_error, extras=extras, **skew, **problem.options)
        grads = torch.autograd.grad(loss, [*views, extras])
        named = {"loss": loss} | {f"d_{k}": g for k, g in enumerate(grads)}
        return {name: value.detach().cpu() for name, value in named.items()}

    assert_same(results(False), results(True), algorithm_of(losses), case.dtype)


def test_modules():
    problem = SMALL.build()
    tensors = problem.logits, problem.targets
    continuous = problem.continuous().targets
    calls = [
        (alrp_cuda.ALRPLoss()(*tensors, problem.loc_errors), alrp_cuda.alrp_loss(*tensors, problem.loc_errors)),
        ([alrp_cuda.APLoss()(*tensors)], [alrp_cuda.ap_loss(*tensors)]),
        ([alrp_cuda.NDCGLoss()(*tensors)], [alrp_cuda.ndcg_loss(*tensors)]),
        (alrp_cuda.RankSortLoss()(tensors[0], continuous), alrp_cuda.rank_sort_loss(tensors[0], continuous)),
    ]
    for got, want in calls:
        assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


@every_loss
@pytest.mark.parametrize("scope", ["batch", "image"])
def test_ranks_of_a_group(fast, loss, scope):
    """Each rank has a list of its own length, and what it gets is what it gets for the list's concatenation."""
    problems = [images_of(replace(SMALL, size=(300, 30), levels=levels)) for levels in ("several", "one", "empty")]

    def call(joined):
        def run(rank, group):
            options = {"group": group, "scope": scope}
            if joined and scope == "image":
                index = index_of(problems[rank])
                options["image_index"] = fast.put(index.repeat_interleave(5) if loss.kind == "rank_sort" else index)
            return evaluate(loss, fast, problems[rank], joined=joined, **options)

        results = run_ranks(len(problems), run)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return results

    for got, want in zip(call(False), call(True), strict=True):
        assert_same(got, want, algorithm_of(fast), torch.float32)


# ---- tracing and other transforms


def total(logits, targets, errors):
    return sum(alrp_cuda.alrp_loss(logits, targets, errors)[:2])


def framework(logits, targets, errors):
    return alrp_cuda.error_driven_loss(logits, targets, lambda ranks: Errors(ranks.n_fp / ranks.rank), extras=errors)


def draw(*sides, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(sides))
    maps = [torch.randn(2, 6, side, side, generator=generator).to(dtype).requires_grad_() for side in sides]
    targets = [torch.randint(6, (2, side, side, 2), generator=generator).clamp(max=3) for side in sides]
    count = sum(int((t < 3).sum()) for t in targets)
    return maps, targets, torch.rand(count, generator=generator).requires_grad_()


def step(function):
    return lambda maps, targets, errors: function(alrp_cuda.head_views(maps, 3), targets, errors)


def rows(*sides):
    """The same as one row an anchor."""
    maps, targets, errors = draw(*sides)
    logits = [m.detach().permute(0, 2, 3, 1).reshape(-1, 3).clone().requires_grad_() for m in maps]
    return logits, [t.flatten().clone() for t in targets], errors


@pytest.mark.parametrize("function", [total, framework], ids=["alrp", "framework"])
@pytest.mark.parametrize("dynamic", [None, True], ids="dynamic={}".format)
def test_compiled_code_takes_lists_of_many_sizes(function, dynamic):
    """Views of maps, or rows: of maps, whose sizes are products, symbols alone take torch long."""
    torch._dynamo.reset()
    counters.clear()
    eager, make = (function, rows) if dynamic else (step(function), draw)
    fast = torch.compile(eager, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for sides in ((6, 3), (7, 2), (5, 4)):
        logits, targets, errors = make(*sides)
        got, want = (f(logits, targets, errors) for f in (fast, eager))
        assert torch.equal(got, want)
        for g, w in zip(*(torch.autograd.grad(value, logits) for value in (got, want)), strict=True):
            assert torch.equal(g, w)
    assert counters["stats"]["unique_graphs"] == (1 if dynamic else 2)  # one for the first size, one for all


class Model(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = step(function)

    def forward(self, maps, targets, errors):
        return self.function(maps, targets, errors)


@pytest.mark.parametrize("function", [total, framework], ids=["alrp", "framework"])
def test_exported_code_takes_lists(function):
    tensors = draw(6, 4)
    with torch.no_grad():
        exported = torch.export.export(Model(function), tensors).module()
        assert torch.equal(exported(*tensors), Model(function)(*tensors))


def test_autocast_changes_nothing():
    tensors = draw(5, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        value = step(total)(*tensors)
    assert value.dtype == torch.float32
    assert torch.equal(value, step(total)(*tensors))


def test_vmap_is_refused_in_words():
    maps, targets, errors = draw(5, 3)
    pairs = [torch.stack([v, v]) for v in alrp_cuda.head_views([m.detach() for m in maps], 3)]
    with pytest.raises(RuntimeError, match=r"no batching rule for torch.func.vmap"):
        torch.func.vmap(lambda *views: total([*views], targets, errors))(*pairs)


# ---- misuse

A, B = torch.zeros(2, 3), torch.zeros(4, 3)
ROWS = [torch.tensor([0, 3]), torch.tensor([3, 1, -1, 3])]
FLAT = [torch.tensor([[1, 0, 0], [0, 0, 1]]), torch.zeros(4, 3, dtype=torch.int64)]

MISUSES = [
    (TypeError, [A, B], ROWS[0], r"targets must be a list of tensors, as logits is, got Tensor"),
    (TypeError, A, ROWS, r"targets must be a torch\.Tensor, got list"),
    (TypeError, "AB", ROWS, r"logits must be a torch\.Tensor, got str"),
    (ValueError, [], [], "logits must be a tensor or a list of at least one, got an empty list"),
    (ValueError, [A, B], ROWS[:1], "targets must be a list of 2 tensors, as logits is, got 1"),
    (TypeError, [A, 1.0], ROWS, r"logits\[1\] must be a torch\.Tensor, got float"),
    (TypeError, [A, B], [ROWS[0], None], r"targets\[1\] must be a torch\.Tensor, got NoneType"),
    (TypeError, [A, B.long()], ROWS, r"logits\[1\] must have one of the dtypes float32, .*, got torch\.int64"),
    (TypeError, [A, B.half()], ROWS, r"logits\[1\] must have the dtype of logits\[0\], torch\.float32, got torch\.float16"),
    (TypeError, [A, B], [ROWS[0], ROWS[1].int()], r"targets\[1\] must have the dtype of targets\[0\], torch\.int64, got .*32"),
    (TypeError, [A, B], [ROWS[0].float(), ROWS[1]], r"targets\[0\] that are class indices must have one of the dtypes int8"),
    (ValueError, [A, B], [*ROWS[::-1]], r"targets\[0\] must have the logits' shape \(2, 3\), .* got \(4,\)"),
    (ValueError, [A, B], [ROWS[0], ROWS[1].to("meta")], r"targets\[1\] must be on the device of logits\[1\], cpu, got meta"),
    (
        ValueError,
        [A, B.to("meta")],
        [ROWS[0], ROWS[1].to("meta")],
        r"logits\[1\] must be on the device of logits\[0\], cpu, got meta",
    ),
    (
        ValueError,
        [A, torch.zeros(4, 2)],
        ROWS,
        r"logits\[1\] must have as many classes as logits\[0\], 3, got shape \(4, 2\)",
    ),
    (ValueError, [A, B], [ROWS[0], FLAT[1]], r"targets\[1\] must be class indices, as targets\[0\], got one label a logit"),
    (ValueError, [A, B], [FLAT[0], ROWS[1]], r"targets\[1\] must be one label a logit, as targets\[0\], got class indices"),
]


@pytest.mark.parametrize("module", [alrp_cuda, reference], ids=["fast", "reference"])
@pytest.mark.parametrize(("error", "logits", "targets", "words"), MISUSES)
def test_misuse_is_named(module, error, logits, targets, words):
    for call in (
        lambda: module.ap_loss(logits, targets),
        lambda: module.alrp_loss(logits, targets, torch.zeros(2)),
        lambda: module.error_driven_loss(logits, targets, own_error),
    ):
        with pytest.raises(error, match=words):
            call()


@pytest.mark.parametrize("module", [alrp_cuda, reference], ids=["fast", "reference"])
@pytest.mark.parametrize(
    ("logits", "targets", "options", "words"),
    [
        ([A, B], ROWS, {"image_index": ROWS[0]}, "image_index must be None for lists, where the first dimension .* is the image"),
        ([A, B], ROWS, {}, r"logits\[1\] must have the images as first dimension .* got shapes \(4, 3\) and \(2, 3\)"),
        ([A[0]], [torch.tensor(1)], {}, r"logits\[0\] must have the images as first dimension"),
        ([A, A], [ROWS[0]] * 2, {"num_positives": [2]}, "num_positives must have one number for each of the 2 images, got 1"),
        ([A, A], [ROWS[0]] * 2, {"num_positives": [1, 1]}, r"num_positives\[0\] must be the number of positives .*, 2, got 1"),
        ([A, A], [ROWS[0]] * 2, {"num_positives": 3}, "num_positives must be the number of positives in targets, 2, got 3"),
        ([A, A], [ROWS[0], ROWS[0] + 4], {}, "targets must be class indices"),
    ],
)
def test_misuse_of_images_is_named(module, logits, targets, options, words):
    with pytest.raises(ValueError, match=words):
        module.ap_loss(logits, targets, scope="image", **options)


def test_continuous_labels_are_named_by_their_entry():
    with pytest.raises(ValueError, match=r"targets\[1\] must have the logits' shape \(4, 3\), got \(4,\)"):
        alrp_cuda.rank_sort_loss([A, B], [A, torch.zeros(4)])


# ---- what the operators refuse: a caller of the functions never gets there


def raw_loss(logits, targets, classes, sizes=(), counts=()):
    numbers = (classes, classes, False, 1.0, 1, alrp_cuda.inputs.LOSSES.index("ap"), 1e-7, None, sizes, counts)
    return torch.ops.alrp_cuda.ranking_loss(logits, [targets], None, *numbers)


def test_a_tensor_holds_whole_rows():
    with pytest.raises(
        ValueError, match=r"logits must have the classes of a row last, 3, got shape \[6, 2\] and strides \[1, 6\]"
    ):
        raw_loss([torch.randn(2, 6).t()], torch.tensor([0, 3, 3, -1]), 3)


def test_a_list_has_one_dtype():
    with pytest.raises(TypeError, match="logits must have one dtype, got Float and Double"):
        raw_loss([torch.zeros(2), torch.zeros(2, dtype=torch.float64)], torch.tensor([1, 0, 0, 0]), 0)


def test_errors_of_images_are_as_many_as_their_positives():
    logits, targets = torch.zeros(4, 3), torch.tensor([0, 3, 1, -1])
    numbers = 3, 3, False, 1.0, 1, alrp_cuda.inputs.LOSSES.index("alrp"), 1e-7, None, [6, 6], [1, 1]
    with pytest.raises(ValueError, match="one error per positive: counts add up to 2, got 3 errors"):
        torch.ops.alrp_cuda.ranking_loss([logits], [targets], torch.zeros(3), *numbers)


@pytest.mark.parametrize(
    ("grads", "p", "words"),
    [(1, 2, "must have one element a slice, 2, got 1"), (2, 3, "num_positives must be 2, as counts add up to, got 3")],
)
def test_backward_checks_what_forward_does(grads, p, words):
    logits, targets, slices = [torch.randn(4, 3)], torch.tensor([0, 3, 1, -1]), ([6, 6], [1, 1])
    state = raw_loss(logits, targets, 3, *slices)[-1]
    numbers = (3, 3, False, 1.0, 1, 1.0, *slices, p, state, False, torch.ones(grads), None, torch.float32)
    with pytest.raises(ValueError, match=words):
        torch.ops.alrp_cuda.ranking_gradients(logits, [targets], *numbers)
