"""Few calls that meet every kernel of csrc/cuda: what make gpu-check runs under each tool of compute-sanitizer."""

from dataclasses import dataclass
from typing import ClassVar

import listed
import pytest
import torch
from cases import Case, Labels, expected
from compare import BOUND, assert_near, assert_same_loss
from conftest import backends
from emulated import EmulatedDevice, library
from emulator import missing_requirement
from emulator.library import readable_name
from implementations import LOSSES, Fast, Reference, evaluate
from listed import Listed
from thread_ranks import run_ranks

from alrp_cuda import Errors

UINT8, INT8, INT16 = map(Labels, (torch.uint8, torch.int8, torch.int16))
FLOAT, DOUBLE, HALF, BFLOAT = torch.float32, torch.float64, torch.float16, torch.bfloat16
# More than any device has shared memory for, and more than one block sorts; few of the losses take the pairs of positives.
MANY, MORE = 6000, 8200
SMALL = Case((2000, 60), INT8)


@dataclass(frozen=True)
class Named:
    """A loss, and that it is the reference's."""

    algorithm: str
    name: str
    case: Case
    launches_depend_on_values: ClassVar[bool] = False

    def __str__(self):
        return f"{self.algorithm}-{self.name}-{self.case}"

    def run(self, backend):
        data = self.case.build()
        told = {} if self.name.startswith("alrp") else {"num_positives": self.case.size[1]}
        tensors = data.logits, data.targets, data.loc_errors
        return evaluate(LOSSES[self.name], Fast(backend, self.algorithm), *tensors, **data.options, **told)

    def check(self, got):
        assert_same_loss(got, expected(self.case, self.name), self.case.dtype, self.case.build().positive)


def root(ranks):
    """A loss of nobody's, with a derivative in its extras."""
    return Errors((ranks.n_fp + ranks.extra_sums).sqrt() + ranks.extras, ranks.extras, 1 + ranks.rank.sum())


@dataclass(frozen=True)
class Own:
    """A loss of the caller's own, and that it is the reference's."""

    algorithm: str
    skew: float
    case: Case = SMALL
    launches_depend_on_values: ClassVar[bool] = True  # Python indexes by what the kernels wrote

    def __str__(self):
        return f"{self.algorithm}-own-skew{self.skew:g}"

    def of(self, losses):
        data = self.case.build()
        logits, extras = (losses.put(t.detach().clone()).requires_grad_() for t in (data.logits, data.loc_errors))
        options = data.options | {"extras": extras, "skew": self.skew, "num_positives": len(extras)}
        loss = losses.error_driven_loss(logits, losses.put(data.targets), root, **options)
        gradients = torch.autograd.grad(loss, (logits, extras))
        return dict(zip(("loss", "d_logits", "d_extras"), (loss.detach(), *gradients), strict=True))

    def run(self, backend):
        return self.of(Fast(backend, self.algorithm))

    def check(self, got):
        for name, want in self.of(Reference()).items():
            assert_near(name, got[name], want, BOUND[FLOAT])


@dataclass(frozen=True)
class Levels:
    """A list of tensors, and that it is the reference's concatenation."""

    algorithm: str
    case: Listed
    launches_depend_on_values: ClassVar[bool] = False

    def __str__(self):
        return f"{self.algorithm}-list-{self.case}"

    def run(self, backend):
        return listed.evaluate(LOSSES["alrp"], Fast(backend, self.algorithm), self.case.build())

    def check(self, got):
        want = listed.evaluate(LOSSES["alrp"], Reference(), self.case.build(), joined=True)
        for name, value in got.items():
            assert_near(name, value, want[name], BOUND[FLOAT])


@dataclass(frozen=True)
class Grouped:
    """aLRP Loss on two ranks, and that together they find the reference's."""

    algorithm: str
    case: Case = SMALL
    launches_depend_on_values: ClassVar[bool] = True  # ranks tell one another how many positives they found

    def __str__(self):
        return f"{self.algorithm}-group"

    def run(self, backend):
        data = self.case.build()
        half = data.logits.numel() // 2
        first = int(data.positive[:half].sum())
        whole = data.logits.reshape(-1), data.targets.reshape(-1)
        parts = [(*(t[:half] for t in whole), data.loc_errors[:first]), (*(t[half:] for t in whole), data.loc_errors[first:])]

        def rank(number, group):
            return evaluate(LOSSES["alrp"], Fast(backend, self.algorithm), *parts[number], group=group)

        results = run_ranks(2, rank)
        joined = {name: torch.cat([result[name] for result in results]) for name in ("d_logits", "d_loc_errors")}
        return joined | {name: results[0][name] for name in ("cls", "loc")}

    def check(self, got):
        for name, value in got.items():
            assert_near(name, value, expected(self.case, "alrp")[name], BOUND[FLOAT])


# Streams read unsigned labels once, for none can be ignored; their tiles are of 8192 logits.
CALLS = [
    Named("sorted", "alrp", Case((20_000, 50), UINT8)),
    Named("sorted", "alrp", Case((9000, 300), INT8, 0.5, "ties")),
    Named("sorted", "alrp_hard", Case((9000, 40), INT16, dtype=BFLOAT, errors_dtype=HALF)),
    Named("sorted", "ap_interpolated", Case((9000, 20), Labels(FLOAT), dtype=HALF)),
    Named("sorted", "ndcg", Case((3000, 33), dtype=DOUBLE)),
    Named("sorted", "rank_sort", Case((2000, 300), INT8)),
    Named("sorted", "ap", Case((20_000, 70), Labels(torch.int64, 91))),
    Named("sorted", "alrp", Case((3000, 100), INT8, 0.0, "ties")),
    Named("sorted", "alrp", Case((3000, 100), INT8, scale="far")),
    Named("sorted", "alrp", Case((3000, 100), INT8, scale="infinite")),
    *(Named("sorted", "ap", Case((300, MANY), UINT8, dtype=dtype)) for dtype in (FLOAT, DOUBLE, HALF, BFLOAT)),
    Named("sorted", "ap", Case((300, MORE), UINT8)),
    Named("sorted", "ap", Case((40, 0), INT8)),
    Named("tiled", "alrp", Case((1009, 257), INT8)),
    Named("tiled", "rank_sort", Case((257, 40), Labels(torch.float64), dtype=DOUBLE)),
    Named("tiled", "ap", Case((300, 40), Labels(torch.int64, 7), dtype=BFLOAT)),
    *(Own(algorithm, skew) for algorithm, skew in (("sorted", 1), ("tiled", 1), ("tiled", 2))),
    Levels("sorted", Listed((9000, 40), INT8)),
    *(Grouped(algorithm) for algorithm in ("sorted", "tiled")),
]


@pytest.mark.parametrize("call", CALLS, ids=str)
@pytest.mark.parametrize("backend", backends())
def test_numbers_are_right(backend, call):
    call.check(call.run(backend))


@pytest.mark.skipif(bool(missing_requirement()), reason=f"emulated device: {missing_requirement()}")
def test_these_calls_meet_every_kernel():
    """By the launches: where these do not depend on values, no block runs."""
    device = EmulatedDevice()
    for call in CALLS:
        device.only_blocks = None if call.launches_depend_on_values else {".": ()}
        call.run(device)
    met = {name for session in device.sessions for name, _ in session.launches}
    every = {readable_name(name) for module in library().modules.values() for name in module.kernels}
    assert {name for name in every if name.startswith("alrp::")} <= met
