"""Calls of the whole public surface made at random, each held against the reference: what test_fuzz.py and ``make fuzz`` run.

A call gives the numbers of the reference or raises its error, without a warning. ``python tests/fuzzing.py`` goes on
with new calls until its time is up, or stops at the first that is wrong and prints it, as small as it can be made.
"""

import argparse
import faulthandler
import functools
import os
import secrets
import sys
import threading
import time
import traceback
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from cases import DTYPES
from compare import assert_same_loss
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st
from implementations import LOSSES, Fast, Reference, outputs_of

import alrp_cuda
from alrp_cuda import Errors

SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)
UNSIGNED = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)
SIZES = [0, 1, 2, 3, 5, 13, 16, 31, 64, 127, 257, 600, 1024, 1025, 2503, 4099]
PATTERNS = ["normal", "apart", "grid", "equal", "powers", "infinite", "nan"]
STRIDES = ["contiguous", "transposed", "steps", "inner", "expanded"]
WEIGHTS = [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (-2.0, 3.5), (None, 1.0), (1.0, None)]
SECONDS_A_CALL = 120
MOST_PAIRS = 4e6  # for the reference's sake
# The call under way: what a crash leaves.
LAST = Path(__file__).parents[1] / "runs" / "fuzz-last.txt"


@dataclass(frozen=True)
class Call:
    """One call. Tensors follow from ``seed`` and the rest; what a loss does not take is not used."""

    loss: str  # of LOSSES, or "own": error_driven_loss
    backend: str
    algorithm: str
    anchors: int
    positives: float  # their share
    ignored: float
    classes: int  # 0: targets of the logits' shape
    background: int | None
    dtype: torch.dtype
    errors_dtype: torch.dtype
    targets_dtype: torch.dtype
    pattern: str
    exponent: int  # scores are about 10 to this
    delta: float  # as a multiple of that
    eps: float | None
    errors: str
    images: int  # 0: scope "batch"
    strides: str
    tensors: int  # of a list; 0: one tensor, no list
    weights: tuple[float | None, float | None]
    wrong: str  # what is wrong with it
    module: bool
    skew: float
    seed: int


def calls(backend, sizes):
    """A strategy for calls; the simplest first, which is what failures shrink to."""
    return st.builds(
        Call,
        loss=st.sampled_from([*LOSSES, "own"]),
        backend=st.just(backend),
        algorithm=st.sampled_from(["auto", "sorted", "tiled"]),
        anchors=st.sampled_from(sizes),
        positives=st.sampled_from([0.1, 0.0, 0.01, 0.5, 0.97, 1.0]),
        ignored=st.sampled_from([0.0, 0.1, 0.9]),
        classes=st.sampled_from([0, 0, 1, 2, 7, 91]),
        background=st.sampled_from([None, 0, 1, 100]),
        dtype=st.sampled_from(DTYPES),
        errors_dtype=st.sampled_from(DTYPES),
        targets_dtype=st.sampled_from([torch.int64, *SIGNED, *UNSIGNED, torch.bool, *DTYPES]),
        pattern=st.sampled_from(PATTERNS),
        exponent=st.sampled_from([0, 0, -3, 3, -30, 30, -41, -300, 300]),
        delta=st.sampled_from([1.0, 0.0, 0.5, 1e-3, 1e-9, 30.0, 1e9]),
        eps=st.sampled_from([None, None, 0.0, 0.3]),
        errors=st.sampled_from(["ordinary", "ordinary", "large", "infinite", "nan", "zero"]),
        images=st.sampled_from([0, 0, 1, 3, 50]),
        strides=st.sampled_from(STRIDES),
        tensors=st.sampled_from([0, 0, 1, 2, 5, 40]),
        weights=st.sampled_from(WEIGHTS),
        wrong=st.sampled_from(["", "", "", "", "", "", "label", "count", "shape", "dtype", "option"]),
        module=st.booleans(),
        skew=st.sampled_from([1.0, 1.0, 2.0, 0.5, 16.0]),
        seed=st.integers(0, 2**32 - 1),
    )


def scores_of(call, shape, rng):
    """Scores of any kind that fit the dtype, or overflow to infinity in it."""
    unit = rng.normal(0, 3, shape)
    values = {
        "normal": unit,
        "apart": unit + 1e5 * rng.integers(-9, 9, shape),
        "grid": rng.integers(-16, 16, shape) / 8,
        "equal": np.full(shape, 0.25),
        "powers": rng.choice([-1.0, 1.0], shape) * 10.0 ** rng.integers(-45, 38, shape),
        "infinite": np.where(rng.random(shape) < 0.2, rng.choice([-np.inf, np.inf], shape), unit),
        "nan": np.where(rng.random(shape) < 0.01, np.nan, unit),
    }[call.pattern]
    with np.errstate(over="ignore"):
        return torch.tensor(values * 10.0**call.exponent).to(call.dtype)


def labels_of(call, rng):
    """(targets, mask of the positives) for this many anchors."""
    kind = rng.random(call.anchors)
    positive = kind < call.positives
    ignored = (kind > 1 - call.ignored) & ~positive
    dtype = call.targets_dtype
    if call.loss == "rank_sort":
        labels = np.where(positive, rng.integers(1, 9, call.anchors) / 8, 0.0) - ignored
        return torch.tensor(labels).to(dtype if dtype.is_floating_point else torch.float32), torch.tensor(positive)
    if dtype in UNSIGNED or dtype == torch.bool:
        ignored[:] = False
    if not call.classes:
        return torch.tensor(positive.astype(np.int64) - 2 * ignored).to(dtype), torch.tensor(positive)
    background = call.classes if call.background is None else call.background
    foreground = [c for c in range(call.classes) if c != background]
    positive &= bool(foreground)
    index = np.where(positive, rng.choice(foreground or [0], call.anchors), background)
    index = np.where(ignored, -3, index)
    mask = positive[:, None] & (index[:, None] == np.arange(call.classes))
    return torch.tensor(index).to(dtype if dtype in (*SIGNED, *UNSIGNED) else torch.int64), torch.tensor(mask)


def laid_out(tensor, strides):
    """A tensor of the same values that lies in memory as ``strides`` says; "expanded": its rows are one, where it has some."""
    if tensor.dim() == 0 or tensor.dtype in UNSIGNED[1:]:  # torch copies few of the unsigned dtypes
        return tensor
    if strides == "transposed":
        return tensor.movedim(0, -1).contiguous().movedim(-1, 0)
    if strides == "steps":
        return torch.stack((tensor, tensor, tensor), -1)[..., 1]
    if strides == "inner":
        return torch.cat((tensor[:1], tensor, tensor[:1]))[min(1, len(tensor)) :][: len(tensor)]
    if strides == "expanded" and len(tensor):
        return tensor[:1].expand(tensor.shape)
    return tensor


def own_error(ranks):
    """A loss that uses all that the framework gives."""
    return Errors(torch.sqrt(ranks.n_fp) + ranks.extra_sums / ranks.rank, ranks.extra_sums / ranks.rank, 1 + ranks.rank.sum())


@dataclass(frozen=True)
class Made:
    """The arguments of a call, logits and targets in lists, and the mask of its positives."""

    logits: list
    targets: list
    errors: torch.Tensor
    options: dict
    positive: torch.Tensor


def make(call):
    """The tensors and options of a call."""
    rng = np.random.default_rng(call.seed)
    width = max(1, call.classes)
    while call.anchors * call.positives * call.anchors * width > MOST_PAIRS:
        call = replace(call, anchors=call.anchors // 2 + 1)
    if call.loss == "rank_sort" or call.loss == "own":
        call = replace(call, classes=0 if call.loss == "rank_sort" else call.classes, images=call.images * (call.loss != "own"))
    targets, positive = labels_of(call, rng)
    logits = scores_of(call, (call.anchors, *([call.classes] if call.classes else [])), rng)
    options = {"delta": call.delta * 10.0**call.exponent}
    if not np.isfinite(options["delta"]):
        options["delta"] = 1e300
    if call.eps is not None:
        options["eps"] = call.eps
    if call.classes and call.background is not None:
        options["background"] = call.background
    if call.images and not call.tensors:
        options |= {"scope": "image", "image_index": torch.tensor(rng.integers(-1, call.images, call.anchors))}
    if call.loss == "own" and call.skew != 1 and call.algorithm != "sorted":
        options["skew"] = call.skew
    if call.tensors:
        parts, counts = in_parts(call, (logits, targets, positive), rng)
        logits, targets, positive = ([laid_out(t, call.strides) for t in tensors] for tensors in parts)
        if call.images:
            options["scope"] = "image"
            if call.seed % 3 == 0 and not call.wrong:
                options["num_positives"] = counts
    else:
        if not call.classes and call.anchors % 2 == 0 and call.anchors:
            logits, targets, positive = (t.reshape(2, -1) for t in (logits, targets, positive))
            if "image_index" in options:
                options["image_index"] = options["image_index"].reshape(2, -1)
        logits, targets, positive = ([laid_out(t, call.strides)] for t in (logits, targets, positive))
    positive = torch.cat([mask.reshape(-1) for mask in positive])
    count = int(positive.sum())
    values = {
        "ordinary": rng.uniform(0, 2, count),
        "large": 10.0 ** rng.uniform(-6, 4, count),
        "infinite": np.where(rng.random(count) < 0.1, np.inf, 0.5),
        "nan": np.where(rng.random(count) < 0.1, np.nan, 0.5),
        "zero": np.zeros(count),
    }[call.errors]
    errors = laid_out(torch.tensor(values).to(call.errors_dtype), "steps" if call.strides != "contiguous" else "contiguous")
    if call.loss != "alrp" and call.loss != "alrp_hard" and call.loss != "own" and call.seed % 2:
        options.setdefault("num_positives", count)
    made = Made(logits, targets, errors, options, positive)
    return spoiled(call, made) if call.wrong else made


def in_parts(call, tensors, rng):
    """(the tensors in parts of images, the first dimension; the positives of each image). Rows that do not go round are left."""
    images = max(1, call.images)
    ends = np.sort(rng.integers(0, call.anchors + 1, call.tensors - 1))
    begins, counts = [0, *ends], np.diff([0, *ends, call.anchors]) // images
    parts = [
        [t[a : a + n * images].reshape(images, n, *t.shape[1:]) for a, n in zip(begins, counts, strict=True)] for t in tensors
    ]
    return parts, sum(mask.flatten(1).sum(1) for mask in parts[-1]).tolist()


def spoiled(call, made):
    """The call with something wrong, which both have to find."""
    place = call.seed % len(made.targets)
    one = made.targets[place]

    def instead(targets):
        return replace(made, targets=[*made.targets[:place], targets, *made.targets[place + 1 :]])

    if call.wrong == "label" and one.numel():
        targets = one.contiguous().clone()
        bad = float("nan") if call.loss == "rank_sort" else 101
        assume(targets.dtype != torch.bool)
        targets.view(-1)[call.seed % targets.numel()] = bad
        return instead(targets)
    if call.wrong == "count":
        options = dict(made.options)
        if "num_positives" in options:
            options["num_positives"] += 1 + call.seed % 3
        return replace(made, errors=torch.zeros(len(made.errors) + 1 + call.seed % 3, dtype=made.errors.dtype), options=options)
    if call.wrong == "shape":
        return instead(one[..., None, None])  # one more may be right: with one class, labels of logits
    if call.wrong == "dtype":
        return instead(torch.zeros(one.shape, dtype=torch.complex64))
    if call.wrong == "option":
        return replace(made, options=made.options | {("eps", "delta")[call.seed % 2]: (-1.0, float("nan"), None)[call.seed % 3]})
    return made


MODULES = {
    "alrp": (alrp_cuda.ALRPLoss, {}),
    "alrp_hard": (alrp_cuda.ALRPLoss, {"order": "hard"}),
    "ap": (alrp_cuda.APLoss, {}),
    "ap_interpolated": (alrp_cuda.APLoss, {"interpolate": True}),
    "ndcg": (alrp_cuda.NDCGLoss, {}),
    "rank_sort": (alrp_cuda.RankSortLoss, {}),
}
OF_A_CALL = ("image_index", "num_positives")


def loss_of(call, implementation, made, logits, errors, options):
    """What the loss returns."""
    targets = made.targets
    if not call.tensors:
        [logits], [targets] = logits, targets
    if call.loss == "own":
        return implementation.error_driven_loss(logits, targets, own_error, extras=errors, **options)
    kind, form = LOSSES[call.loss].kind, dict(LOSSES[call.loss].options)
    tensors = (logits, targets, errors) if kind == "alrp" else (logits, targets)
    if call.module and isinstance(implementation, Fast):
        build, fixed = MODULES[call.loss]
        fixed = fixed | {k: v for k, v in options.items() if k not in OF_A_CALL} | implementation.choice
        return build(**fixed)(*tensors, **{k: v for k, v in options.items() if k in OF_A_CALL})
    function = {"alrp": "alrp_loss", "ap": "ap_loss", "ndcg": "ndcg_loss", "rank_sort": "rank_sort_loss"}[kind]
    return getattr(implementation, function)(*tensors, **form, **options)


def run(call, implementation, made, logits, errors, **changes):
    """Outputs and gradients by name, or the error that was raised."""
    *logits, errors = (t.detach().clone().requires_grad_() if t.is_contiguous() else view_of(t) for t in (*logits, errors))
    try:
        outputs = outputs_of(loss_of(call, implementation, made, logits, errors, made.options | changes))
    except (TypeError, ValueError) as error:
        return error
    scalars = [value for value in outputs.values() if value.requires_grad]
    # The reference sends zeros for an output that took no part, and 0 times infinity is NaN; the kernels send nothing.
    finite = call.errors in ("ordinary", "large", "zero") and call.pattern != "nan"
    weights = call.weights if finite else (1.0, -0.5)
    parts = [w * s for w, s in zip(weights, scalars, strict=False) if w is not None]
    leaves = [*logits] + ([errors] if call.loss in ("alrp", "alrp_hard", "own") else [])
    if parts:
        grads = torch.autograd.grad(sum(parts), leaves, allow_unused=True)
        # An output that took no part sends zeros or nothing.
        grads = [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, grads, strict=True)]
        outputs["d_logits"] = torch.cat([grad.reshape(-1) for grad in grads[: len(logits)]])
        outputs |= dict(zip(["d_loc_errors"], grads[len(logits) :], strict=False))
    return {name: value.detach().cpu() for name, value in outputs.items()}


def view_of(tensor):
    """The tensor as it lies in memory, part of a graph: its gradient has one element for each of its own."""
    return tensor.detach().requires_grad_() if 0 not in tensor.stride() else tensor.detach().requires_grad_().expand(tensor.shape)


def put(tensor, device):
    """The tensor on a device, where it lies in memory as it does here."""
    if tensor.device == device:
        return tensor
    storage = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
    return storage.to(device).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def made_on(device, made):
    """The same arguments on a device."""
    tensors = {name: [put(t, device) for t in getattr(made, name)] for name in ("logits", "targets")}
    options = {k: put(v, device) if isinstance(v, torch.Tensor) else v for k, v in made.options.items()}
    return replace(made, **tensors, errors=put(made.errors, device), options=options)


def check(call):
    """Raise unless the call does what the reference does."""
    made = make(call)
    fast, reference = Fast(call.backend, call.algorithm), Reference()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = made_on(fast.device, made)
        got = run(call, fast, own, own.logits, own.errors)
    precise, dtype = ([v.double() for v in made.logits], made.errors.double()), made.logits[0].dtype
    want = run(call, reference, made, *precise)
    if isinstance(want, Exception) or isinstance(got, Exception):
        if not fast.raises_for_values and isinstance(got, dict) and call.wrong in ("label", "count"):
            poisoned = {k: v for k, v in got.items() if k not in ("d_logits", "d_loc_errors")}
            assert all(v.isnan().all() for v in poisoned.values()), f"no error and no NaN: {poisoned}"
            return
        assert type(got) is type(want), f"got {got!r}, the reference {want!r}"
        assert str(got) == str(want).replace("torch.float64", str(dtype)), f"got {got!r}, the reference {want!r}"
        return
    assert got.keys() == want.keys()
    if call.loss == "own" and bool(want["loss"].isnan()):
        del got["d_loc_errors"]  # the value's own derivative, where the value is NaN: which elements are is left open
    compare = functools.partial(assert_same_loss, dtype=dtype, positive=made.positive)
    try:
        compare(got, want)
    except AssertionError:
        # Where some N_FP is near eps, the gradient jumps, and rounding decides.
        eps = made.options.get("eps", 1e-10 if call.loss == "rank_sort" else 1e-5)
        near = [run(call, reference, made, *precise, eps=max(0.0, eps + change)) for change in (-1e-3, 1e-3)]
        if all(same(near[0][name], near[1][name]) for name in near[0]):
            raise
        compare(got, want, gradients=False)


def same(a, b):
    return torch.equal(a.nan_to_num(7), b.nan_to_num(7))


def progress(done, begin, end):
    if sys.stdout.isatty() or done % 500 == 0:
        print(f"\r{done} calls in {time.monotonic() - begin:.0f} s of {end - begin:.0f} s", end="", flush=True)
    if not sys.stdout.isatty() and done % 500 == 0:
        print(flush=True)


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to go on (default: 10)")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="repeat a run's calls")
    parser.add_argument("--backend", default="cpu", choices=["cpu", "emulated", "cuda"])
    options = parser.parse_args(argv)
    begin, done = time.monotonic(), 0
    end = begin + 60 * options.minutes
    print(f"fuzzing {options.backend} for {options.minutes:g} minutes, --seed {options.seed}", flush=True)
    LAST.parent.mkdir(exist_ok=True)
    faulthandler.enable()

    def checked(call):
        nonlocal done
        if time.monotonic() > end:
            return

        def hangs():
            print(f"\nno end after {SECONDS_A_CALL} s: {call!r}", flush=True)
            faulthandler.dump_traceback()
            os._exit(1)

        LAST.write_text(f"{call!r}\n")
        watch = threading.Timer(SECONDS_A_CALL, hangs)
        watch.daemon = True
        watch.start()
        try:
            check(call)
        finally:
            watch.cancel()
        done += 1
        progress(done, begin, end)

    sizes = SIZES if options.backend == "cpu" else [size for size in SIZES if size <= 600]
    rounds = 0
    try:
        while time.monotonic() < end:
            quiet = settings(
                max_examples=500,
                deadline=None,
                database=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate, Phase.shrink],
            )
            seed(options.seed + rounds)(quiet(given(call=calls(options.backend, sizes))(checked)))()
            rounds += 1
    except Exception:
        print(f"\nfailed after {done} calls; --seed {options.seed} repeats them", flush=True)
        traceback.print_exc()
        return 1
    print(f"\n{done} calls, none wrong", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
