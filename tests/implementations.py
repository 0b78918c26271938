"""The implementations under test behind one face, and one way to evaluate a loss with its gradients on any of them."""

import contextlib
import functools
from dataclasses import dataclass

import pytest
import torch

import alrp_cuda
from alrp_cuda import RankSortOutput, reference

NOT_WAITING = "cpu not waiting"


@functools.cache
def device_of(backend):
    """What stands for a backend of the tests' own; None for those of the installation."""
    import emulated

    return {"emulated": emulated.EmulatedDevice, NOT_WAITING: emulated.CpuNotWaiting}.get(backend, lambda: None)()


class Fast:
    """alrp_cuda's losses on one backend, a name or a device of the tests, by one algorithm."""

    def __init__(self, backend, algorithm):
        self.choice = {"algorithm": algorithm}
        self.backend = backend
        self.device = torch.device("cuda" if backend == "cuda" else "cpu")
        # Where kernels read the labels on a device, what depends on their values cannot be raised without a synchronisation.
        self.raises_for_values = backend == "cpu"

    def running(self):
        """Within this context, alrp_cuda runs on the backend."""
        device = device_of(self.backend) if isinstance(self.backend, str) else self.backend
        return contextlib.nullcontext() if device is None else device

    def put(self, tensor):
        return tensor.to(self.device)

    def __getattr__(self, name):
        function = getattr(alrp_cuda, name)

        def call(*args, **options):
            with self.running():
                return function(*args, **self.choice, **options)

        return call


class Reference:
    """The same face on the reference."""

    device = torch.device("cpu")
    raises_for_values = True

    def put(self, tensor):
        return tensor

    def __getattr__(self, name):
        return getattr(reference, name)


@contextlib.contextmanager
def debugging():
    """set_debug(True) of every extension that is in use, and off again."""
    import emulated

    extensions = [alrp_cuda, *([emulated.extension()._C] if emulated.extension.cache_info().currsize else [])]
    for extension in extensions:
        extension.set_debug(True)
    try:
        yield
    finally:
        for extension in extensions:
            extension.set_debug(False)


def assert_value_error(losses, words, call):
    """``call()`` meets values in a tensor that it cannot accept: a ValueError that says ``words``.

    On a device the error becomes NaN in every output, and is raised only while debugging.
    """
    if losses.raises_for_values:
        with pytest.raises(ValueError, match=words):
            call()
        return
    for output in outputs_of(call()).values():
        assert output.isnan().all()
    with debugging(), pytest.raises(ValueError, match=words):
        call()


def label_of(errors):
    """Labels that stand for localisation errors of 0 to 1.8: multiples of 1/8 up to 1, so that many are equal, in any dtype."""
    return (8 - 4 * errors).round().clamp(min=1) / 8


def continuous(logits, targets, errors, background=None):
    """Targets with the positives' labels, for targets of any form that hold the positives of these errors."""
    if targets.shape != logits.shape:
        classes = logits.shape[-1]
        columns = torch.arange(classes, device=targets.device)
        index = targets.to(torch.int64)
        hit = (index[..., None] == columns) & (index != (classes if background is None else background))[..., None]
        targets = torch.where(index[..., None] < 0, -1, hit.to(torch.int64))
    dtype = targets.dtype if targets.is_floating_point() else errors.dtype
    positive, flat = targets == 1, targets.to(dtype)
    flat = torch.where((flat > 0) & ~positive, torch.nan, flat)  # impossible labels stay so
    return flat.masked_scatter(positive, label_of(errors.double()).to(dtype))


@dataclass(frozen=True)
class Loss:
    """One of the losses: ``kind`` names the function, ``options`` its form."""

    kind: str
    options: tuple

    def __call__(self, losses, logits, targets, loc_errors, **options):
        options = dict(self.options) | options
        tensors = logits, targets
        if self.kind == "alrp":
            tensors = logits, targets, loc_errors
        if self.kind == "rank_sort":
            tensors = logits, continuous(logits.detach(), targets, loc_errors.detach(), options.pop("background", None))
        return getattr(losses, f"{self.kind}_loss")(*tensors, **options)


LOSSES = {
    "alrp": Loss("alrp", ()),
    "alrp_hard": Loss("alrp", (("order", "hard"),)),
    "ap": Loss("ap", ()),
    "ap_interpolated": Loss("ap", (("interpolate", True),)),
    "ndcg": Loss("ndcg", ()),
    "rank_sort": Loss("rank_sort", ()),  # errors stand for labels, see label_of
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
# Those whose updates go between positives and negatives alone.
RANKING = {name: loss for name, loss in LOSSES.items() if name != "rank_sort"}
every_ranking_loss = pytest.mark.parametrize("loss", RANKING.values(), ids=RANKING.keys())


def outputs_of(result):
    """The outputs of a loss by name; "rank" are the ranks of Eq. 3 in any loss."""
    if isinstance(result, RankSortOutput):
        return {"rank_error": result.rank, "sort_error": result.sort}
    return result._asdict() if isinstance(result, tuple) else {"loss": result}


def evaluate(loss, losses, logits, targets, loc_errors, *, weights=(1.0, 1.0), **options):
    """Outputs and gradients by name, on the CPU: outputs by name, or "loss", "d_logits" and, for aLRP, "d_loc_errors".

    ``weights`` are the gradients that come in for the first (or only) and the second output.
    """
    logits, targets, loc_errors = (losses.put(t.detach()) for t in (logits, targets, loc_errors))
    leaves = [logits.requires_grad_()]
    if loss.kind == "alrp":
        leaves.append(loc_errors.requires_grad_())
    outputs = outputs_of(loss(losses, logits, targets, loc_errors, **options))
    scalars = [value for value in outputs.values() if value.requires_grad]
    total = sum(w * s for w, s in zip(weights, scalars, strict=False))
    grads = torch.autograd.grad(total, leaves)
    named = dict(zip(("d_logits", "d_loc_errors"), grads, strict=False))
    return {name: value.detach().cpu() for name, value in (outputs | named).items()}
