"""``group=``: one ranking over the logits of several ranks is that of one process over the concatenated batch."""

import inspect
import os
import time
from datetime import timedelta

import cases
import pytest
import torch
import torch.distributed as dist
from compare import BOUND, assert_near, compute_dtype
from conftest import backends
from implementations import LOSSES, Fast, evaluate, outputs_of
from process_ranks import Pool, run_once
from thread_ranks import run_ranks
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import alrp_cuda
from alrp_cuda import native
from alrp_cuda.distributed import scale_for_ddp, traffic
from alrp_cuda.inputs import ALGORITHMS

every_loss = pytest.mark.parametrize("name", LOSSES)
every_algorithm = pytest.mark.parametrize("algorithm", ["tiled", "sorted"])
every_size = pytest.mark.parametrize("size", [2, 4])

SCALARS = ("cls", "loc", "loss", "rank_error", "sort_error")
SOME = [case for case in cases.TABLE if sum(case.size) < 5000][::9]
SOME.append(cases.Case((2000, 50), cases.Labels(torch.int64)))  # so many logits that tables go by their number
FEW = [  # every dtype, either kind of positions, both forms of targets
    cases.Case((257, 3), cases.Labels(torch.int8)),
    cases.Case((127, 40), cases.Labels(torch.int64, 5), 0.5, "sparse", torch.bfloat16),
    cases.Case((64, 30), cases.Labels(torch.float32), 0.0, "ties", torch.float64),
    cases.Case((33, 16), cases.Labels(torch.int32, 5, 3), 1e-3, "infinite", torch.float16, torch.float64),
    cases.Case((40, 0), cases.Labels(torch.bool)),
    cases.Case((0, 5), cases.Labels(torch.uint16), 10.0),
    cases.Case((0, 0)),
]


@pytest.fixture(scope="module")
def pool():
    ranks = Pool(4)
    yield ranks
    ranks.close()


# --- a batch, whole and in parts -------------------------------------------------------------------------------------


def flattened(data):
    """Logits and targets with one dimension for what is dealt out to the ranks: rows, or logits with a label each."""
    if data.options.get("background") is not None or data.targets.shape != data.logits.shape:
        return data.logits, data.targets
    return data.logits.reshape(-1), data.targets.reshape(-1)


def dealt(data, size, how):
    """(whole, parts): logits, targets, loc_errors of the batch and of each rank.

    "uneven" leaves the last rank without logits; "apart" puts all positives on the first rank, of flat labels those alone.
    """
    logits, targets = flattened(data)
    rows = len(targets)
    positive = data.positive.reshape(rows, -1).any(1) if rows else torch.zeros(0, dtype=torch.bool)
    order = torch.arange(rows)
    cuts = [0, rows // 5, *[rows * (k + 2) // (size + 1) for k in range(1, size - 2)], rows, rows]
    if how == "apart":
        order = positive.logical_not().to(torch.int8).argsort(stable=True)  # errors keep their order: one a row
        first = int(positive.sum())
        cuts = [first + (rows - first) * k // (size - 1) for k in range(size)]
        cuts = [0, *cuts]
    if targets.dtype in (torch.uint16, torch.uint32, torch.uint64):
        signed = {2: torch.int16, 4: torch.int32, 8: torch.int64}[targets.dtype.itemsize]
        ordered = targets.view(signed)[order].view(targets.dtype)
    else:
        ordered = targets[order]
    logits, counts = logits[order], positive[order].to(torch.int64).cumsum(0)
    cuts = cuts[: size + 1]
    assert cuts[-1] == rows
    ends = [int(counts[cut - 1]) if cut else 0 for cut in cuts]
    parts = [
        (logits[a:b].clone(), ordered[a:b].clone(), data.loc_errors[i:j].clone())
        for a, b, i, j in zip(cuts, cuts[1:], ends, ends[1:], strict=False)
    ]
    return (logits, ordered, data.loc_errors), parts


def evaluate_parts(rank, group, name, backend, algorithm, problems):
    """Outputs and gradients of one rank, of many problems."""
    losses = Fast(backend, algorithm)
    return [evaluate(LOSSES[name], losses, *parts[rank], group=group, weights=(1.5, 0.5), **o) for parts, o in problems]


def joined(results):
    """What the ranks found, as one process would return it; scalars must be the same on every rank."""
    named = {}
    for key in results[0]:
        values = [result[key] for result in results]
        if key in SCALARS:
            for value in values:
                assert same(value, values[0]), f"{key} differs between ranks"
            named[key] = values[0]
        else:
            named[key] = torch.cat(values)
    return named


def same(a, b):
    """Bit by bit, but for the kind of NaN."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(nan=-7.5), b.nan_to_num(nan=-7.5))


def raised(results):
    """The ranks' exceptions are the test's."""
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def assert_same(got, want, algorithm, logits, what):
    assert got.keys() == want.keys()
    for key in want:
        if algorithm == "sorted":
            assert same(got[key], want[key]), f"{what}: {key}: {got[key]}, of one process {want[key]}"
        else:
            bound = BOUND[compute_dtype(logits.dtype)]
            rounded = logits.dtype if key == "d_logits" else None
            assert_near(f"{what}: {key}", got[key], want[key], bound, rounded)


def check(run, size, name, backend, algorithm, chosen):
    problems, wanted = [], []
    for case in chosen:
        data = case.build()
        for how in ("uneven", "apart"):
            whole, parts = dealt(data, size, how)
            problems.append((parts, data.options))
            options = data.options | {"weights": (1.5, 0.5)}
            wanted.append((f"{case} {how}", whole[0], evaluate(LOSSES[name], Fast(backend, algorithm), *whole, **options)))
    results = raised(run(size, problems))
    for k, (what, logits, want) in enumerate(wanted):
        assert_same(joined([result[k] for result in results]), want, algorithm, logits, what)


@every_loss
@every_algorithm
@every_size
def test_ranks_find_what_one_process_finds(pool, size, algorithm, name):
    def run(size, problems):
        return pool.run(size, evaluate_parts, name, "cpu", algorithm, problems)

    check(run, size, name, "cpu", algorithm, SOME)


@every_loss
@every_algorithm
@pytest.mark.parametrize("backend", [backend for backend in backends() if getattr(backend, "values", backend) != ("emulated",)])
def test_processes_share_one_device(pool, backend, algorithm, name):
    """Of a GPU, whose tensors gloo takes; processes have no emulated device in common."""

    def run(size, problems):
        return pool.run(size, evaluate_parts, name, backend, algorithm, problems)

    check(run, 2, name, backend, algorithm, FEW)


@every_loss
@every_algorithm
@pytest.mark.parametrize("backend", backends())
def test_every_backend_counts_in_parts(backend, algorithm, name):
    def run(size, problems):
        return run_ranks(size, lambda rank, group: evaluate_parts(rank, group, name, backend, algorithm, problems))

    check(run, 3, name, backend, algorithm, FEW)


@pytest.mark.full
@every_loss
@every_algorithm
@every_size
def test_ranks_find_what_one_process_finds_in_every_case(pool, size, algorithm, name):
    def run(size, problems):
        return pool.run(size, evaluate_parts, name, "cpu", algorithm, problems)

    check(run, size, name, "cpu", algorithm, cases.TABLE + cases.LARGE)


@pytest.mark.parametrize("backend", backends())
def test_positions_go_by_the_logits_of_all_ranks(backend):
    """Sums of 2^31 positions fit only where these are coarser by 2^3 than those of 2^28."""
    losses = Fast(backend, "sorted")
    logits, targets, _ = (losses.put(t) for t in dealt(FEW[0].build(), 2, "uneven")[0])
    call = 0, 0, False, 1.0, ALGORITHMS.index("sorted"), 1.0
    with losses.running():
        extension = native._C
        _, score, index, status = extension.find_positives([logits], targets, extension.Call(*call), 3)
        calls = [extension.Call(*call, others) for others in (0, (1 << 31) - len(logits))]
        parts = [extension.count_part([logits], targets, call, index, score, status)[1] for call in calls]
    few, many = (part[:-1].view(-1, 4) for part in parts)
    assert torch.equal(few[:, 3], many[:, 3])
    inner = few[2:6].double() @ torch.tensor([1.0, 2.0**48, 0, 0], dtype=torch.float64).to(few.device)
    coarser = many[2:6].double() @ torch.tensor([8.0, 2.0**51, 0, 0], dtype=torch.float64).to(few.device)
    assert inner.min() >= 0
    assert inner.max() > 0
    assert torch.allclose(inner, coarser, rtol=1e-6)


@pytest.mark.parametrize(
    ("algorithm", "skew", "positives", "dtype", "words"),
    [
        ("sorted", 1.0, 3, torch.int64, 7 * 4 + 1),
        ("sorted", 1.0, 1, torch.int64, 3 * 4 + 1),
        ("sorted", 1.0, 0, torch.float64, 1),
        ("tiled", 1.0, 3, torch.float64, 3 + 1),
        ("tiled", 2.0, 3, torch.float64, 2 * 3 + 1),
    ],
)
def test_what_ranks_add_up_is_as_long_as_the_positives(algorithm, skew, positives, dtype, words):
    """2 P + 1 bins of integers, or a sum or two each; and whether a score is NaN."""
    logits, targets = torch.zeros(5), torch.zeros(5, dtype=torch.int64)
    targets[:positives] = 1
    call = native._C.Call(0, 0, False, 1.0, ALGORITHMS.index(algorithm), skew)
    _, score, index, status = native._C.find_positives([logits], targets, call, positives)
    _, part = native._C.count_part([logits], targets, call, index, score, status)
    assert (part.dtype, part.shape) == (dtype, (words,))


# --- NaN and errors --------------------------------------------------------------------------------------------------


@every_loss
@every_algorithm
@pytest.mark.parametrize("where", ["a positive", "a negative", "a negative, no positives"])
def test_nan_on_one_rank_poisons_every_rank(pool, where, algorithm, name):
    data = cases.Case((64, 0 if "no" in where else 9), cases.Labels(torch.int64)).build()
    (logits, targets, errors), parts = dealt(data, 2, "uneven")
    chosen = int((targets == (1 if where == "a positive" else 0)).nonzero()[-1 if where != "a positive" else 0])
    for tensors in ((logits,), [part[0] for part in parts]):
        begin = 0
        for tensor in tensors:
            if begin <= chosen < begin + len(tensor):
                tensor[chosen - begin] = torch.nan
            begin += len(tensor)
    want = evaluate(LOSSES[name], Fast("cpu", algorithm), logits, targets, errors, weights=(1.5, 0.5))
    assert all(want[key].isnan() for key in SCALARS if key in want)
    assert want["d_logits"][targets >= 0].isnan().all()
    results = raised(pool.run(2, evaluate_parts, name, "cpu", algorithm, [(parts, {})]))
    got = joined([result[0] for result in results])
    for key in want:
        assert same(got[key], want[key]), key


def call_parts(rank, group, name, parts, each):
    """The loss of a rank's part, with options of its own."""
    return outputs_of(LOSSES[name](Fast("cpu", "auto"), *parts[rank], group=group, **each[rank])) and None


def parts_of(size):
    return dealt(cases.Case((64, 9), cases.Labels(torch.int64)).build(), size, "uneven")[1]


@pytest.mark.parametrize("scope", ["batch", "image"])
def test_a_bad_label_raises_on_every_rank(pool, scope):
    parts = parts_of(3)
    parts[1][1][0] = 2
    options = [{}] * 3
    if scope == "image":
        options = [{"scope": "image", "image_index": torch.zeros(len(t), dtype=torch.int64)} for _, t, _ in parts]
    results = pool.run(3, call_parts, "ap", parts, options)
    words = "targets must be 1 (positive), 0 (negative) or negative (ignored), got another value"
    assert [type(result) for result in results] == [ValueError] * 3
    assert [str(r) for r in results] == [f"on rank 1 of group: {words}", words, f"on rank 1 of group: {words}"]


@pytest.mark.parametrize("name", ["alrp", "ap"])
def test_a_wrong_number_of_positives_raises_on_every_rank(pool, name):
    parts, options = parts_of(2), [{}, {}]
    if name == "alrp":
        found = len(parts[0][2])
        parts[0] = (*parts[0][:2], torch.ones(found + 2))
        words = f"loc_errors must have one error per positive: targets hold {found} positives, got {found + 2} errors"
    else:
        options = [{"num_positives": len(parts[0][2]) + 1}, {"num_positives": len(parts[1][2])}]
        words = f"num_positives must be the number of positives in targets, {len(parts[0][2])}, got {len(parts[0][2]) + 1}"
    results = pool.run(2, call_parts, name, parts, options)
    assert [str(result) for result in results] == [words, f"on rank 0 of group: {words}"]


def test_ranks_need_not_all_tell_the_number_of_positives(pool):
    parts = parts_of(2)
    assert pool.run(2, call_parts, "ap", parts, [{"num_positives": len(parts[0][2])}, {}]) == [None, None]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delta": 0.5}, "delta must be the same on every rank of group, got 1.0 on rank 0 and 0.5 on rank 1"),
        ({"eps": 0.0}, "eps must be the same on every rank of group, got 1e-05 on rank 0 and 0.0 on rank 1"),
        ({"order": "hard"}, "loss must be the same on every rank of group, got alrp on rank 0 and alrp_hard on rank 1"),
        ({"dtype": torch.float64}, "dtype of logits must be the same on every rank of group, got torch.float32 on rank 0 and"),
        ({"algorithm": "tiled"}, "algorithm must be the same on every rank of group, got auto on rank 0 and tiled on rank 1"),
        ({"scope": "image"}, "scope must be the same on every rank of group, got batch on rank 0 and image on rank 1"),
        ({"extras": 2}, "extras must be the same on every rank of group, got none on rank 0 and (2,) on rank 1"),
        ({"skew": 2.0}, "skew must be the same on every rank of group, got 1.0 on rank 0 and 2.0 on rank 1"),
    ],
)
def test_arguments_that_differ_raise_on_every_rank(pool, options, words):
    results = pool.run(2, call_differently, parts_of(2), options)
    assert [type(result) for result in results] == [ValueError] * 2
    assert str(results[0]).startswith(words)
    assert "on rank 1 and" in str(results[1])


def call_differently(rank, group, parts, options):
    logits, targets, errors = parts[rank]
    mine = dict(options) if rank else {}
    if "extras" in options or "skew" in options:
        mine |= {"extras": torch.ones(2, len(errors))} if "extras" in mine else {}
        return alrp_cuda.error_driven_loss(logits, targets, ap, group=group, algorithm="tiled", **mine)
    if mine.get("scope"):
        mine["image_index"] = torch.zeros(len(logits), dtype=torch.int64)
    return alrp_cuda.alrp_loss(logits.to(mine.pop("dtype", logits.dtype)), targets, errors, group=group, **mine)


def test_a_group_that_cannot_be_used_raises():
    tensors = torch.zeros(3), torch.tensor([1, 0, 0])
    calls = [
        lambda group: alrp_cuda.ap_loss(*tensors, group=group),
        lambda group: alrp_cuda.error_driven_loss(*tensors, ap, group=group),
        lambda group: alrp_cuda.APLoss(group=group),
        lambda group: scale_for_ddp(tensors[0], group),
        lambda group: alrp_cuda.SelfBalance(group=group),
        lambda group: alrp_cuda.metrics.LRP().sync(group),
    ]
    ended = dist.ProcessGroup(dist.HashStore(), 0, 1)
    for call in calls:
        with pytest.raises(
            ValueError, match=r"group must be None unless torch\.distributed is initialised .*, got a ProcessGroup$"
        ):
            call(ended)
        with pytest.raises(TypeError, match=r"group must be a torch\.distributed\.ProcessGroup or None, got str"):
            call("world")


def test_without_torch_distributed_a_group_raises(monkeypatch):
    monkeypatch.setattr(dist, "is_available", lambda: False)
    assert alrp_cuda.ap_loss(torch.zeros(2), torch.tensor([1, 0])) == 0.5 / 1.5
    with pytest.raises(ValueError, match=r"group must be None where torch is built without torch\.distributed, got str"):
        alrp_cuda.APLoss(group="world")


def use_a_group_of_others(rank, group):
    made = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    tensors = torch.zeros(3), torch.tensor([1, 0, 0])
    own = float(alrp_cuda.ap_loss(*tensors, group=made[rank // 2]))
    try:
        alrp_cuda.ap_loss(*tensors, group=made[1 - rank // 2])
    except ValueError as error:
        return own, str(error)
    return own, None


def test_a_group_of_other_ranks_raises(pool):
    words = "group must be one that this rank is in, got one that it is not in"
    assert pool.run(4, use_a_group_of_others) == [(pytest.approx(4 / 7), words)] * 4


PATIENCE = timedelta(seconds=3)


def leave_early(rank, how):
    """Rank 1 does not come to the second call."""
    group = dist.new_group(timeout=PATIENCE)  # not that of all: starting may take longer
    logits, targets = torch.zeros(8), torch.tensor([1, 0, 0, 0, 0, 0, 0, 1])
    alrp_cuda.ap_loss(logits, targets, group=group)
    if rank == 1:
        if how == "killed":
            os._exit(1)
        time.sleep(3 * PATIENCE.total_seconds())
        os._exit(1)
    began = time.monotonic()
    try:
        alrp_cuda.ap_loss(logits, targets, group=group)
    except RuntimeError as error:
        return time.monotonic() - began, str(error)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "late"])
def test_a_rank_that_does_not_come_raises_within_the_timeout(how, tmp_path):
    first, second = run_once(2, leave_early, tmp_path, how)
    assert second is None
    seconds, words = first
    assert seconds < 2 * PATIENCE.total_seconds()
    assert words


# --- other ways to call ----------------------------------------------------------------------------------------------


def call_per_image(rank, group, name, parts, images):
    logits, targets, errors = parts[rank]
    options = {"scope": "image", "image_index": images[rank]}
    return evaluate(LOSSES[name], Fast("cpu", "sorted"), logits, targets, errors, group=group, weights=(1.5, 0.5), **options)


@every_loss
def test_images_of_all_ranks_are_averaged(pool, name):
    data = cases.Case((400, 30), cases.Labels(torch.int64, 5)).build()
    whole, parts = dealt(data, 4, "uneven")
    begin, images = 0, []
    for _, targets, _ in parts:  # of two or three images each, and an image without positives
        images.append(torch.arange(len(targets)) * 3 // max(1, len(targets)) + begin)
        begin += 10
    index = torch.cat(images)
    want = evaluate(LOSSES[name], Fast("cpu", "sorted"), *whole, scope="image", image_index=index, weights=(1.5, 0.5))
    got = joined(raised(pool.run(4, call_per_image, name, parts, images)))
    for key in want:
        if key in SCALARS:  # the sum over the images is in float64
            assert_near(key, got[key], want[key], 1e-6)
        else:
            assert same(got[key], want[key]), key


def test_without_positives_on_any_rank_images_give_zero(pool):
    parts = dealt(cases.Case((40, 0), cases.Labels(torch.int64)).build(), 2, "uneven")[1]
    images = [torch.zeros(len(targets), dtype=torch.int64) for _, targets, _ in parts]
    got = joined(raised(pool.run(2, call_per_image, "alrp", parts, images)))
    assert got["cls"] == got["loc"] == 0
    assert not got["d_logits"].any()


def ap(ranks):
    return alrp_cuda.Errors(ranks.n_fp / ranks.rank)


def with_extras(ranks):
    first, second = ranks.extras
    return alrp_cuda.Errors((ranks.n_fp + first + ranks.extra_sums[0]) / ranks.rank + second, second / ranks.rank)


def drive_per_image(rank, group, parts, images):
    """AP Loss by its name, and as a loss of the caller's own."""
    logits, targets, _ = parts[rank]
    options = {"scope": "image", "image_index": images[rank], "group": group, "algorithm": "sorted"}
    out = []
    for loss in (alrp_cuda.ap_loss, lambda *tensors, **options: alrp_cuda.error_driven_loss(*tensors, ap, **options)):
        leaf = logits.clone().requires_grad_()
        value = loss(leaf, targets, **options)
        out += [value.detach(), *torch.autograd.grad(value, leaf)]
    return out


def test_images_of_all_ranks_are_averaged_in_losses_of_the_callers_own(pool):
    data = cases.Case((400, 30), cases.Labels(torch.int64, 5)).build()
    parts = dealt(data, 4, "uneven")[1]
    images = [torch.arange(len(targets)) * 3 // max(1, len(targets)) for _, targets, _ in parts]
    for named, d_named, own, d_own in raised(pool.run(4, drive_per_image, parts, images)):
        assert_near("loss", own, named, BOUND[torch.float32])
        assert_near("gradient", d_own, d_named, BOUND[torch.float32])


def drive(rank, group, parts, skew, algorithm, background=None):
    logits, targets, errors = (t.clone() for t in parts[rank])
    extras = torch.stack((errors, errors * errors)).requires_grad_()
    plain = alrp_cuda.error_driven_loss(logits.requires_grad_(), targets, ap, skew=skew, algorithm=algorithm, group=group)
    loss = alrp_cuda.error_driven_loss(logits, targets, with_extras, skew=skew, algorithm=algorithm, extras=extras, group=group)
    d_plain = torch.autograd.grad(plain, logits)[0]
    d_logits, d_extras = torch.autograd.grad(loss * 1.5, (logits, extras))
    return {"loss": loss.detach(), "cls": plain.detach(), "d_plain": d_plain, "d_logits": d_logits, "d_extras": d_extras.T}


@pytest.mark.parametrize(("skew", "algorithm"), [(1.0, "sorted"), (1.0, "tiled"), (2.0, "tiled")])
@pytest.mark.parametrize("how", ["uneven", "apart"])
def test_losses_of_the_callers_own(pool, how, skew, algorithm):
    for case in (cases.Case((300, 40), cases.Labels(torch.int64, 5)), cases.Case((40, 0)), FEW[2]):
        whole, parts = dealt(case.build(), 4, how)
        want = drive(0, None, [whole], skew, algorithm)
        got = joined(raised(pool.run(4, drive, parts, skew, algorithm)))
        assert_same(got, want, algorithm, whole[0], f"{case}")


@pytest.mark.parametrize(("skew", "algorithm"), [(1.0, "sorted"), (2.0, "tiled")])
@pytest.mark.parametrize("backend", backends())
def test_every_backend_sums_in_parts(backend, skew, algorithm):
    if backend == "cuda":
        pytest.skip("threads of one process share its stream")
    whole, parts = dealt(FEW[1].build(), 3, "uneven")

    def call(rank, group, parts):
        logits, targets, _ = parts[rank]
        logits = logits.clone().requires_grad_()
        loss = Fast(backend, algorithm).error_driven_loss(logits, targets, ap, skew=skew, group=group)
        return {"loss": loss.detach(), "d_logits": torch.autograd.grad(loss, logits)[0]}

    got = joined(raised(run_ranks(3, lambda rank, group: call(rank, group, parts))))
    assert_same(got, call(0, None, [whole]), algorithm, whole[0], backend)


def use_modules(rank, group, parts):
    logits, targets, errors = parts[rank]
    flat = torch.where(targets == 1, 0.5, targets.float())
    pairs = [
        (alrp_cuda.ALRPLoss(group=group)(logits, targets, errors), alrp_cuda.alrp_loss(logits, targets, errors, group=group)),
        (alrp_cuda.APLoss(group=group)(logits, targets), alrp_cuda.ap_loss(logits, targets, group=group)),
        (alrp_cuda.NDCGLoss(group=group)(logits, targets), alrp_cuda.ndcg_loss(logits, targets, group=group)),
        (alrp_cuda.RankSortLoss(group=group)(logits, flat), alrp_cuda.rank_sort_loss(logits, flat, group=group)),
    ]
    alone = [alrp_cuda.ap_loss(logits, targets), alrp_cuda.ndcg_loss(logits, targets)]
    values = [[v for pair in pairs for v in outputs_of(pair[k]).values()] for k in (0, 1)]
    return all(torch.equal(a, b) for a, b in zip(*values, strict=True)), [float(x) for x in alone], float(pairs[1][0])


def test_modules_take_a_group(pool):
    results = raised(pool.run(2, use_modules, parts_of(2)))
    assert all(equal for equal, _, _ in results)
    assert results[0][2] == results[1][2]
    assert results[0][1][0] != results[0][2]  # the group is passed on


def test_every_loss_takes_a_group():
    functions = [
        alrp_cuda.alrp_loss,
        alrp_cuda.ap_loss,
        alrp_cuda.ndcg_loss,
        alrp_cuda.rank_sort_loss,
        alrp_cuda.error_driven_loss,
    ]
    for function in (*functions, alrp_cuda.ALRPLoss, alrp_cuda.APLoss, alrp_cuda.NDCGLoss, alrp_cuda.RankSortLoss):
        assert inspect.signature(function).parameters["group"].default is None


# --- gradients and traffic -------------------------------------------------------------------------------------------


def second_derivative(rank, group, parts):
    logits, targets, errors = parts[rank]
    loss = alrp_cuda.alrp_loss(logits.requires_grad_(), targets, errors, group=group).cls
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    gradient.square().sum().backward()


def test_a_second_derivative_raises(pool):
    for result in pool.run(2, second_derivative, parts_of(2)):
        assert isinstance(result, RuntimeError)
        assert "second derivative" in str(result)


def measure_traffic(rank, group, n, p):
    targets = torch.zeros(n, dtype=torch.int8)
    targets[:p] = 1
    logits = torch.randn(n, generator=torch.Generator().manual_seed(rank)).requires_grad_()
    with traffic() as sent:
        out = alrp_cuda.alrp_loss(logits, targets, torch.rand(p), group=group)
    with traffic() as later:
        (out.cls + out.loc).backward()
    assert (later.bytes, later.collectives) == (0, 0)
    return sent


def test_traffic_grows_with_positives_alone(pool):
    def sent(n, p):
        first, second = raised(pool.run(2, measure_traffic, n, p))
        assert first == second
        assert first.collectives == 3
        return first.bytes

    small = sent(1000, 10)
    assert small == sent(100_000, 10)
    # A score and an error of each own positive; four words for each of 2P + 1 bins, where P are those of both ranks.
    assert sent(1000, 500) - small == 490 * 2 * 8 + 2 * 980 * 4 * 8


# --- training --------------------------------------------------------------------------------------------------------


class Detector(nn.Module):
    """Class scores and an error for each anchor, from features."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
        self.scores, self.errors = nn.Linear(8, 3), nn.Linear(8, 1)

    def forward(self, features):
        body = self.body(features)
        return self.scores(body), self.errors(body).sigmoid()[:, 0]


def batches(steps):
    """(features, targets) of each step; the positives lie unevenly."""
    random = torch.Generator().manual_seed(5)
    for _ in range(steps):
        targets = torch.full((60,), 3)
        targets[torch.randperm(40, generator=random)[:9]] = torch.randint(3, (9,), generator=random)
        targets[-5:] = -1
        yield torch.randn(60, 6, generator=random, dtype=torch.float64), targets


def train(rank, group, cuts, name, steps=5):
    """Parameters after some steps, and the losses."""
    torch.manual_seed(1)
    model = Detector().double()
    parallel = model if group is None else DistributedDataParallel(model, process_group=group)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    losses = []
    for features, targets in batches(steps):
        own = slice(cuts[rank], cuts[rank + 1])
        logits, errors = parallel(features[own])
        targets = targets[own]
        if name == "alrp":
            out = alrp_cuda.alrp_loss(logits, targets, errors[(targets >= 0) & (targets < 3)], group=group)
            loss = out.cls + 2 * out.loc
        else:
            loss = alrp_cuda.ndcg_loss(logits, targets, group=group) + 0 * errors.sum()
        optimiser.zero_grad()
        scale_for_ddp(loss, group).backward()
        optimiser.step()
        losses.append(loss.item())
    return losses, [p.detach().clone() for p in model.parameters()]


@every_size
@pytest.mark.parametrize("name", ["alrp", "ndcg"])
def test_ddp_trains_as_one_process(pool, size, name):
    losses, parameters = train(0, None, [0, 60], name)
    cuts = [0, 7, 41, 50, 60] if size == 4 else [0, 43, 60]  # the last ranks have few positives or none
    for got_losses, got in raised(pool.run(size, train, cuts, name)):
        assert got_losses == pytest.approx(losses, rel=1e-10)
        for one, other in zip(got, parameters, strict=True):
            assert_near("parameter", one, other, 1e-10)


def compiled(rank, group, parts, dynamic):
    logits, targets, errors = parts[rank]

    def step(logits, targets, errors, delta):
        out = alrp_cuda.alrp_loss(logits * 2, targets, errors, delta=delta, group=group)
        return out.cls + out.loc + alrp_cuda.error_driven_loss(logits * 2, targets, ap, delta=delta, group=group)

    results = []
    fast = torch.compile(step, backend="eager", dynamic=dynamic)
    for delta in (0.7, 0.25):
        for function in (step, fast):
            leaf = logits.clone().requires_grad_()
            loss = function(leaf, targets, errors, delta)
            results.append((float(loss.detach()), *torch.autograd.grad(loss, leaf)))
    return results


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [None, True], ids="dynamic={}".format)
def test_compiled_code_calls_the_loss_as_it_is(pool, dynamic):
    for results in raised(pool.run(2, compiled, parts_of(2), dynamic)):
        assert results[0][0] != results[2][0]
        for eager, fast in zip(results[::2], results[1::2], strict=True):
            assert eager[0] == fast[0]
            assert torch.equal(eager[1], fast[1])


# --- a group of some ranks: the others are not waited for ---------------------------------------------------------------


def balance_two(rank, group):
    """Weights of self-balancing, signalled and counted, by losses that the rank alone has; and through ALRPLoss."""
    signalled, counted = alrp_cuda.SelfBalance(group=group), alrp_cuda.SelfBalance(2, group=group)
    for cls, loc in ((0.5, 0.25), (0.25 + rank, 0.5)):
        for balance in (signalled, counted):
            balance(torch.tensor(cls), torch.tensor(loc))
    signalled.end_epoch()
    (logits, targets, errors), sums = parts_of(2)[rank], torch.zeros(2, dtype=torch.float64)
    loss = alrp_cuda.ALRPLoss(balance="self", epoch_length=2, group=group)
    for _ in range(2):
        out = loss(logits, targets, errors)
        sums += torch.stack((out.cls, out.loc))
    return float(signalled.weight), float(counted.weight), float(loss.balance.weight), float(sums.sum() / sums[1])


def test_self_balancing_is_among_the_ranks_of_its_group(pool):
    weights = raised(pool.run(2, balance_two))  # of four
    assert weights[0] == weights[1]
    signalled, counted, of_loss, expected = weights[0]
    assert signalled == counted == (0.5 + 0.25 + 0.5 + 1.25 + 1.5) / 1.5
    assert of_loss == pytest.approx(expected, rel=1e-12)


def measure_two(rank, group):
    box, labels = torch.tensor([[0.0, 0.0, 4.0, 4.0 + rank]]), torch.tensor([rank])
    metric = alrp_cuda.metrics.LRP()
    metric.update([{"boxes": box, "scores": torch.tensor([0.5]), "labels": labels}], [{"boxes": box, "labels": labels}])
    metric.sync(group)
    return metric.compute().per_class.classes.tolist()


def test_metrics_are_joined_among_the_ranks_of_a_group(pool):
    assert raised(pool.run(2, measure_two)) == [[0, 1]] * 2  # of four
