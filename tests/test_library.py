"""The operators as torch.library sees them, and the losses under torch.compile, torch.export, autocast and torch.func."""

import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters
from torch.overrides import TorchFunctionMode
from torch.utils import cpp_extension

import alrp_cuda
from alrp_cuda import ALRPLoss, Errors

OPS = torch.ops.alrp_cuda
ROOT = Path(__file__).parents[1]


def draw(n=60, p=9, seed=0, dtype=torch.float32, classes=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, generator=generator).to(dtype)
    targets = torch.zeros(n, dtype=torch.int64)
    targets[torch.randperm(n, generator=generator)[:p]] = 1
    errors = torch.rand(p, generator=generator).to(dtype)
    return logits.requires_grad_(), targets, errors.requires_grad_()


# ---- opcheck


def call_of_loss(dtype, loss, *, told):
    logits, targets, errors = draw(dtype=dtype)
    continuous = loss == 5
    given = errors if loss == 0 else None
    labels = targets.to(dtype) if continuous else targets
    return [logits], [labels], given, 0, 0, continuous, 1.0, -1, loss, 1e-5, 9 if told else None, [], []


def detached(values):
    return torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, list(values))


def call_of_gradients(logits, targets, errors):
    *_, state = OPS.ranking_loss([logits], [targets], errors, 0, 0, False, 1.0, 1, 0, 1e-5, None, [], [], True)
    one = torch.ones((), requires_grad=True)
    return [logits], [targets], 0, 0, False, 1.0, 1, 1.0, [], [], 9, state, True, one, one, torch.float32


class TestOpcheck:
    @pytest.mark.parametrize("loss", [0, 2, 4, 5])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("told", [True, False], ids=["told", "counted"])
    def test_ranking_loss(self, dtype, loss, told):
        torch.library.opcheck(OPS.ranking_loss.default, call_of_loss(dtype, loss, told=told))

    def test_ranking_loss_of_slices(self):
        logits, targets, errors = draw()
        sizes, counts = [20, 0, 40], [int(targets[:20].sum()), 0, int(targets[20:].sum())]
        rest = 0, 0, False, 1.0, 1, 0, 1e-5, None, sizes, counts
        torch.library.opcheck(OPS.ranking_loss.default, ([logits], [targets], errors, *rest))

    @pytest.mark.parametrize("loss", [0, 5])
    def test_lists_of_views(self, loss):
        """In, out of and without the order of memory; each gradient lies as its logits do."""
        logits, targets, errors = draw(n=96)
        channels_first, strided = logits[:48].view(2, 4, 6), torch.cat((logits[48:], logits[:48])).view(2, 48)[:, ::2]
        views = [channels_first.transpose(1, 2), strided, logits[:48]]
        labels = [torch.cat([targets[:48], targets[48:], targets[:48]]).to(torch.float32 if loss == 5 else torch.int64)]
        positives = int(labels[0].sum())
        errors = torch.rand(positives, requires_grad=True) if loss == 0 else None
        call = views, labels, errors, 0, 0, loss == 5, 1.0, 1, loss, 1e-5, positives, [], []
        torch.library.opcheck(OPS.ranking_loss.default, call)
        *_, state = OPS.ranking_loss(*call, True)
        one = torch.ones(())
        call = views, labels, 0, 0, loss == 5, 1.0, 1, 1.0, [], [], positives, state, True, one, one, torch.float32
        torch.library.opcheck(OPS.ranking_gradients.default, detached(call))
        gradients, _ = OPS.ranking_gradients(*detached(call))
        assert [g.stride() for g in gradients] == [torch.empty_like(v).stride() for v in views]
        assert gradients[0].stride() == views[0].stride()

    def test_ranking_gradients(self):
        call = call_of_gradients(*draw())
        first_order = "test_schema", "test_autograd_registration", "test_faketensor"
        torch.library.opcheck(OPS.ranking_gradients.default, call, test_utils=first_order)
        for others in ((), (40,)):
            torch.library.opcheck(OPS.ranking_gradients.default, (*detached(call), *others))

    def test_incoming_gradients_of_two_dtypes_are_refused(self):
        *call, grad_cls, grad_loc, dtype = detached(call_of_gradients(*draw()))
        with pytest.raises(TypeError, match="grad_cls and grad_loc must have one dtype, got Float and Double"):
            OPS.ranking_gradients(*call, grad_cls, grad_loc.double(), dtype)

    def test_operators_of_one_signature_are_told_apart(self):
        command = [cpp_extension.get_cxx_compiler(), "-std=c++20", "-fsyntax-only", f"-I{ROOT / 'csrc'}"]
        command += [f"-isystem{path}" for path in cpp_extension.include_paths()]
        subprocess.run([*command, str(ROOT / "tests" / "native" / "one_signature.cpp")], check=True)

    @pytest.mark.parametrize("told", [9, None])
    @pytest.mark.parametrize("skew", [1.0, 2.0])
    def test_operators_of_the_framework(self, skew, told):
        logits, targets, _ = draw()
        problem = [logits.detach()], [targets], 0, 0, 1.0, 0
        torch.library.opcheck(OPS.ranking_sums.default, (*problem, skew, told, "num_positives"))
        sums, place, state, _ = OPS.ranking_sums(*problem, skew, told, "num_positives")
        errors, z = torch.rand(9, dtype=torch.float64), torch.tensor(9.0, dtype=torch.float64)
        torch.library.opcheck(OPS.drive_errors.default, (*problem, skew, state, place, sums, errors, z, 1e-5))
        weights = torch.rand(2, 9, dtype=torch.float64, requires_grad=True)
        for rest in ((False, 0), (True, 0), (False, 40)):
            torch.library.opcheck(OPS.pair_product.default, (*problem, state, place, weights, *rest))
        value = torch.rand((), dtype=torch.float64, requires_grad=True)
        call = [logits.clone().requires_grad_()], value, *problem[1:], skew, 9, state
        for others in (0, 40):
            torch.library.opcheck(OPS.error_driven.default, (*call, others))

    @pytest.mark.parametrize(
        ("logits", "targets", "slices", "words"),
        [
            ([60, 60], [60, 60], ([], []), "targets must be a list of one tensor, got 2"),
            ([], [60], ([], []), "logits must hold at least one tensor"),
            ([60, 60], [60], ([], []), "targets do not fit logits"),
            ([60, 40], [100], ([50, 40], [9, 0]), "sizes must add up to the 100 logits"),
            ([60, 40], [100], ([60, 40], [9, 0]), "slices must be equal shares of the first dimension of each tensor"),
            ([61, 39], [100], ([50, 50], [9, 0]), "logits must have 2 slices"),
        ],
    )
    def test_lists_that_do_not_fit(self, logits, targets, slices, words):
        tensors = [torch.zeros(size) for size in logits], [torch.zeros(size, dtype=torch.int64) for size in targets]
        with pytest.raises(ValueError, match=words):
            OPS.ranking_loss(*tensors, torch.zeros(9), 0, 0, False, 1.0, 1, 0, 1e-5, None, *slices)

    def test_every_operator_is_checked(self):
        registered = {name.removeprefix("alrp_cuda::") for name in torch._C._dispatch_get_all_op_names() if "alrp_cuda::" in name}
        assert registered == {
            "ranking_loss",
            "ranking_gradients",
            "ranking_sums",
            "drive_errors",
            "pair_product",
            "error_driven",
        }


# ---- compiled


def alrp(logits, targets, errors, **options):
    out = alrp_cuda.alrp_loss(logits, targets, errors, **options)
    return out.cls + 2 * out.loc


def rank_sort(logits, targets, errors, **options):
    out = alrp_cuda.rank_sort_loss(logits, targets.to(logits.dtype), **options)
    return out.rank + 2 * out.sort


def told_ap(logits, targets, errors, **options):
    return alrp_cuda.ap_loss(logits, targets, num_positives=errors.shape[0], **options)


def framework(logits, targets, errors, **options):
    return alrp_cuda.error_driven_loss(logits, targets, lambda ranks: Errors(ranks.n_fp / ranks.rank), **options)


def framework_with_extras(logits, targets, errors, **options):
    def error_fn(ranks):
        return Errors((ranks.n_fp + ranks.extras + ranks.extra_sums) / ranks.rank)

    return alrp_cuda.error_driven_loss(logits, targets, error_fn, extras=errors, **options)


def rows(logits, targets, errors, **options):
    """Class indices; the positives are the first class."""
    classes = torch.where(targets == 1, 0, 1)
    table = torch.stack([logits, logits - 1], 1)
    return alrp(table, classes, errors, background=1, **options)


FUNCTIONS = {
    "alrp": alrp,
    "alrp_hard": lambda *a, **o: alrp(*a, order="hard", **o),
    "alrp_tiled": lambda *a, **o: alrp(*a, algorithm="tiled", **o),
    "alrp_rows": rows,
    "ap": lambda logits, targets, errors, **o: alrp_cuda.ap_loss(logits, targets, **o),
    "ap_interpolated": lambda logits, targets, errors, **o: alrp_cuda.ap_loss(logits, targets, interpolate=True, **o),
    "ap_told": told_ap,
    "ndcg": lambda logits, targets, errors, **o: alrp_cuda.ndcg_loss(logits, targets, **o),
    "rank_sort": rank_sort,
    "framework": framework,
    "framework_with_extras": framework_with_extras,
}
# Those that are not told P by the length of a tensor, on which dynamo specialises where it is 0 or 1.
NOT_TOLD = ("ap", "ap_interpolated", "ndcg", "rank_sort", "framework")


def compiled(function, **options):
    torch._dynamo.reset()
    counters.clear()
    return torch.compile(function, fullgraph=True, **options)


def graphs():
    return counters["stats"]["unique_graphs"]


def outputs(function, n, p, dtype=torch.float32):
    logits, targets, errors = draw(n, p, seed=n + p, dtype=dtype)
    value = function(logits, targets, errors)
    grads = torch.autograd.grad(value, (logits, errors), allow_unused=True)
    return [value.detach(), *(g for g in grads if g is not None)]


def assert_same(fast, eager, *sizes, **options):
    for n, p in sizes:
        got, want = outputs(fast, n, p, **options), outputs(eager, n, p, **options)
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            assert torch.equal(g, w), (n, p)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled_gives_the_numbers_of_eager(name):
    """aot_eager traces forward and backward as every compiler does."""
    fast = compiled(FUNCTIONS[name], backend="aot_eager")
    assert_same(fast, FUNCTIONS[name], (60, 9), (60, 7), (60, 12))
    assert graphs() <= (1 if name in NOT_TOLD else 2)  # P as a number, then as a symbol
    assert_same(fast, FUNCTIONS[name], (60, 0), (60, 1))
    assert graphs() <= (1 if name in NOT_TOLD else 4)
    assert_same(fast, FUNCTIONS[name], (80, 9), (200, 30))
    assert graphs() <= (2 if name in NOT_TOLD else 5)


SIZES = ((60, 9), (60, 7), (80, 9), (70, 12))
every_dynamic = pytest.mark.parametrize("dynamic", [None, True, False], ids="dynamic={}".format)


def assert_compiles(function, dynamic, told):
    """That it gives the numbers of eager for several sizes, by so many graphs.

    dynamic=True: one. None: one for the first size, for any P where a length tells it, for any N. False: one for each size.
    """
    fast = compiled(function, backend="aot_eager", dynamic=dynamic)
    sizes = SIZES[::2] if dynamic is False else SIZES
    assert_same(fast, function, *sizes)
    assert graphs() == {True: 1, None: 2 + told, False: len(sizes)}[dynamic]


@every_dynamic
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_loss_compiles_for_many_sizes(name, dynamic):
    """Options given and left out. With dynamic=True, what is left out is a symbol too: a default is read from the function."""

    def both(*tensors):
        return FUNCTIONS[name](*tensors) + FUNCTIONS[name](*tensors, delta=0.7, eps=0.5)

    assert_compiles(both, dynamic, name not in NOT_TOLD)


MODULES = {
    "alrp": ALRPLoss,
    "alrp weighed": partial(ALRPLoss, balance=3.0),
    "ap": alrp_cuda.APLoss,
    "ndcg": alrp_cuda.NDCGLoss,
    "rank_sort": alrp_cuda.RankSortLoss,
}


@every_dynamic
@pytest.mark.parametrize("name", MODULES)
def test_every_module_compiles_for_many_sizes(name, dynamic):
    losses = MODULES[name](), MODULES[name](delta=0.7)
    told = name.startswith("alrp")

    def both(logits, targets, errors):
        labels = targets.to(logits.dtype) if name == "rank_sort" else targets
        first, second = (loss(logits, labels, errors) if told else loss(logits, labels) for loss in losses)
        return first + second if isinstance(first, torch.Tensor) else first[0] + 2 * first[1] + second[0] + 2 * second[1]

    assert_compiles(both, dynamic, told)


@pytest.mark.parametrize("dynamic", [None, True], ids="dynamic={}".format)
@pytest.mark.parametrize("argument", ["delta", "eps"])
@pytest.mark.parametrize("name", ["alrp", "rank_sort", "framework"])
def test_a_number_may_be_an_argument_of_compiled_code(name, argument, dynamic):
    """Even as a symbol it is never that of another call. The operators take a number: there is a graph for each value."""

    def function(number):
        return lambda *tensors: FUNCTIONS[name](*tensors, **{argument: number})

    def step(logits, targets, errors, number):
        return FUNCTIONS[name](logits, targets, errors, **{argument: number})

    fast = compiled(step, backend="aot_eager", dynamic=dynamic)
    values = 0.7, 0.25, 2
    for _ in range(2):
        for number in values:
            assert_same(lambda *tensors, number=number: fast(*tensors, number), function(number), (60, 9))
        assert graphs() == len(values)
    if dynamic:  # nor does a value ask for a graph of its own for each size
        for number in values:
            assert_same(lambda *tensors, number=number: fast(*tensors, number), function(number), *SIZES)
        assert graphs() == len(values)


def test_the_target_and_z_of_a_callers_loss_may_be_symbols():
    def step(logits, targets, errors, number):
        def error_fn(ranks):
            return Errors(ranks.n_fp / ranks.rank, target=-number / 100, z=number)

        return alrp_cuda.error_driven_loss(logits, targets, error_fn)

    fast = compiled(step, backend="aot_eager", dynamic=True)
    for number in (0.7, 3.0):
        assert_same(lambda *a, number=number: fast(*a, number), lambda *a, number=number: step(*a, number), (60, 9), (80, 7))


@pytest.mark.parametrize("number", [-1.0, float("inf"), float("nan")])
def test_a_number_out_of_range_raises_in_compiled_code(number):
    torch._dynamo.reset()
    fast = torch.compile(alrp_cuda.ap_loss, backend="aot_eager", dynamic=True)
    logits, targets, _ = draw()
    fast(logits, targets, delta=0.7)
    with pytest.raises(ValueError, match=f"delta must be finite and >= 0, got {number}"):
        fast(logits, targets, delta=number)


def test_numbers_of_classes_and_positives_may_be_symbols():
    """Of these the operators take the number of positives as a symbol, and there is a graph for each number of classes."""

    def step(table, classes, background, count):
        return alrp_cuda.ap_loss(table, classes, background=background, num_positives=count)

    fast = compiled(step, backend="aot_eager", dynamic=True)
    for n, p in ((60, 9), (80, 12), (80, 9)):
        for width in (3, 4):
            table = torch.randn(n, width, generator=torch.Generator().manual_seed(n), requires_grad=True)
            classes = torch.full((n,), width - 1)
            classes[:p] = 1
            fast_value, value = (function(table, classes, width - 1, p) for function in (fast, step))
            assert torch.equal(fast_value, value)
            assert torch.equal(*(torch.autograd.grad(v, table)[0] for v in (fast_value, value)))
        assert graphs() == 2


@pytest.mark.parametrize(("name", "dynamic"), [("alrp", None), ("alrp", True), ("framework", None)])
def test_inductor(name, dynamic):
    function = FUNCTIONS[name]

    def doubled(logits, *rest):  # exactly, by whatever code
        return function(2 * logits, *rest)

    assert_same(compiled(doubled, dynamic=dynamic), doubled, (60, 9), (60, 7))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_compiled_dtypes(dtype):
    assert_same(compiled(alrp, backend="aot_eager"), alrp, (60, 9), dtype=dtype)


def test_compiled_module_with_self_balance():
    def steps(wrap):
        loss = ALRPLoss(balance="self")

        def total(logits, targets, errors):
            out = loss(logits, targets, errors)
            return out.cls + out.loc

        function, values = wrap(total), []
        for seed in range(4):
            logits, targets, errors = draw(seed=seed)
            value = function(logits, targets, errors)
            values += [value.detach(), *torch.autograd.grad(value, (logits, errors))]
            if seed == 1:
                loss.balance.end_epoch()
        return values

    want = steps(lambda f: f)
    for g, w in zip(steps(lambda f: compiled(f, backend="aot_eager")), want, strict=True):
        assert torch.equal(g, w)


def test_compiled_code_raises_for_values_as_eager():
    fast = compiled(alrp, backend="aot_eager")
    logits, targets, errors = draw()
    with pytest.raises(ValueError, match="targets must be 1"):
        fast(logits, targets * 2, errors)
    with pytest.raises(ValueError, match="targets hold 9 positives, got 8 errors"):
        fast(logits, targets, errors[:8])


def test_compiled_without_gradients():
    logits, targets, errors = draw()
    with torch.no_grad():
        assert torch.equal(compiled(alrp, backend="aot_eager")(logits, targets, errors), alrp(logits, targets, errors))
    with torch.inference_mode():
        assert torch.equal(alrp(logits, targets, errors), alrp(logits, targets, errors).clone())


class Model(torch.nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.loss = loss
        self.scale = torch.nn.Parameter(torch.tensor(1.5))

    def forward(self, logits, targets, errors):
        return self.loss(self.scale * logits, targets, errors)


@pytest.mark.parametrize("name", ["alrp", "ap", "rank_sort", "framework"])
def test_export(name):
    model = Model(FUNCTIONS[name])
    dynamic = {"logits": (auto := {0: torch.export.Dim.AUTO}), "targets": auto, "errors": auto}
    with torch.no_grad():
        exported = torch.export.export(model, draw(), dynamic_shapes=dynamic).module()
        for n, p in ((60, 9), (80, 5)):
            assert torch.equal(exported(*draw(n, p)), model(*draw(n, p)))


# ---- autocast, other transforms


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_changes_nothing(dtype):
    for kept in (torch.float32, dtype):
        logits, targets, errors = draw(dtype=kept)
        with torch.autocast("cpu", dtype=dtype):
            out = alrp_cuda.alrp_loss(logits, targets, errors)
        assert out.cls.dtype == torch.float32
        assert torch.equal(out.cls + 2 * out.loc, alrp(logits, targets, errors))
        gradient = torch.autograd.grad(out.cls, logits)[0]
        assert gradient.dtype == kept


def test_a_scaled_half_gradient_does_not_overflow_on_the_way(fast):
    scale = 2.0**14  # the largest half is 65504
    logits, targets, errors = draw(n=3000, p=9, dtype=torch.float16)

    def gradients(logits, errors):
        out = fast.alrp_loss(fast.put(logits), fast.put(targets), fast.put(errors))
        return torch.autograd.grad(scale * (out.cls + out.loc), (logits, errors))

    exact = [w / scale for w in gradients(*(t.detach().double().requires_grad_() for t in (logits, errors)))]
    for got, want in zip(gradients(logits, errors), exact, strict=True):
        assert got.dtype == torch.float16
        # The least number that a half holds is 2^-24: unscaled, most gradients of negatives would be 0.
        assert torch.allclose(got.double() / scale, want, rtol=1e-3, atol=2**-24 / scale)


def test_grad_scaler_trains_half_logits():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    weight = torch.zeros(60, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.5)
    _, targets, errors = draw()
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = told_ap(weight.half(), targets, errors)
        losses.append(float(loss.detach()))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert losses[-1] < losses[0] / 2
    assert scaler.get_scale() == 2.0**16  # no step was skipped for an overflow


def test_vmap_is_refused_in_words():
    logits, targets, errors = (torch.stack([t.detach(), t.detach()]) for t in draw())
    for name in ("alrp", "ap", "framework"):
        with pytest.raises(RuntimeError, match=r"no batching rule for torch.func.vmap: .* scope=\"image\""):
            torch.func.vmap(FUNCTIONS[name])(logits, targets, errors)


@pytest.mark.parametrize(
    "transform", [torch.func.grad, lambda f: lambda *a: torch.func.jvp(lambda x: f(x, *a[1:]), a[:1], a[:1])]
)
def test_other_transforms_are_refused(transform):
    with pytest.raises(RuntimeError, match="functorch transforms"):
        transform(alrp)(*(t.detach() for t in draw()))


def test_forward_mode_is_refused():
    logits, targets, errors = draw()
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="jvp is not implemented"):
        alrp(torch.autograd.forward_ad.make_dual(logits.detach(), torch.ones(60)), targets, errors.detach())


def test_modes_of_torch_function_see_the_operator():
    seen = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    arguments = [t.detach() for t in draw()]
    expected = alrp(*arguments)
    with Watch():
        got = alrp(*arguments)
    assert OPS.ranking_loss.default in seen
    assert torch.equal(got, expected)
