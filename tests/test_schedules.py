"""csrc/cuda on the emulated device under many schedules: whatever the order of blocks and threads, whichever blocks are
resident, and for the PTX of every target, the kernels race with nobody and give the same bits."""

import functools
import itertools
from dataclasses import dataclass

import pytest
import torch
from cases import Case, Labels, expected, pairwise
from compare import assert_same_loss
from emulated import MAIN_TARGET, TARGETS, EmulatedDevice
from emulator import Schedule, missing_requirement
from implementations import LOSSES, Fast, evaluate

pytestmark = pytest.mark.skipif(bool(missing_requirement()), reason=f"emulated device: {missing_requirement()}")

UINT8, INT8, INT16, INT32, INT64 = map(Labels, (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64))
FLOAT, DOUBLE, HALF, BFLOAT = torch.float32, torch.float64, torch.float16, torch.bfloat16

# (negatives, positives). Unsigned labels have none ignored, so that N is their sum: around a
# block of 256, one part of the negatives and several (8192 make two), and tails of all of them; P around a tile.
CASES = [
    Case((0, 0), INT64, dtype=FLOAT),
    Case((0, 1), UINT8, dtype=HALF),
    Case((1, 0), UINT8, dtype=FLOAT),
    Case((40, 0), INT16, dtype=DOUBLE),
    Case((31, 7), INT64, dtype=FLOAT, scale="infinite"),
    Case((248, 7), Labels(torch.uint8, 5), dtype=BFLOAT, delta=0.0),  # N = 255
    Case((247, 9), UINT8, dtype=DOUBLE, errors_dtype=DOUBLE),  # 256
    Case((253, 4), Labels(torch.bool), dtype=HALF, errors_dtype=BFLOAT),  # 257
    Case((257, 255), INT32, dtype=HALF, scale="ties"),
    Case((127, 256), INT64, dtype=DOUBLE, delta=0.0, scale="equal"),
    Case((1009, 257), Labels(torch.int64, 8, background=0), dtype=FLOAT, scale="ties"),
    Case((600, 513), Labels(torch.float16), dtype=BFLOAT, delta=0.5, scale="sparse"),
    Case((8125, 67), UINT8, dtype=FLOAT),  # 8192
    Case((8190, 3), Labels(torch.uint8, 3), dtype=HALF, scale="near"),  # 8193
    Case((12280, 9), Labels(torch.uint16), dtype=DOUBLE, delta=0.5, scale="far"),  # 12289
]
# More positives than one block of CUB sorts, on any target: 2048 by the small sort, 4608 by the large one.
MANY_POSITIVES = [Case((5, 4801), INT8, dtype=FLOAT, scale="ties"), Case((300, 2049), INT64, dtype=DOUBLE, delta=0.0)]

ORDERS = [("forward", 0), ("reverse", 0), *(("random", seed) for seed in range(1, 5))]


@dataclass(frozen=True)
class Run:
    """A case under one schedule. `shifted`: its tensors begin one element off every alignment."""

    case: Case
    loss: str
    target: str
    order: tuple[str, int]
    resident: int
    races: str
    shifted: bool

    def __str__(self) -> str:
        order = self.order[0] + (str(self.order[1]) if self.order[1] else "")
        where = "shifted" if self.shifted else "aligned"
        return f"{self.case}-{self.loss}-{self.target}-{order}-resident{self.resident}-{self.races}-{where}"

    @property
    def schedule(self) -> Schedule:
        order, seed = self.order
        return Schedule(order=order, seed=seed, resident=self.resident, races=self.races, count_warps=False)


SETTINGS = {
    "loss": list(LOSSES),
    "target": [MAIN_TARGET, *(t for t in TARGETS if t != MAIN_TARGET)],
    "order": ORDERS,
    "resident": [1, 2, 64],
    "races": ["shared", "all"],
    "shifted": [False, True],
}
# Code for the oldest of the targets is another in places; that for the newest differs in what CUB does alone, and is compiled for
# the product.
OFTEN = [MAIN_TARGET, "compute_75"]
CHOSEN = [Run(**row) for row in pairwise(case=CASES, **(SETTINGS | {"target": OFTEN}))]
CHOSEN += [Run(MANY_POSITIVES[0], "ap", target, ORDERS[k], 2, "shared", True) for k, target in enumerate(OFTEN)]
PRODUCT = [Run(*row) for row in itertools.product(CASES, *(SETTINGS | {"order": ORDERS[:4], "resident": [1, 16]}).values())]
# What the order of blocks can change is in the sort, which is the same for every loss: two losses, three orders.
PRODUCT += [
    Run(case, *row, False)
    for case in MANY_POSITIVES
    for row in itertools.product(("alrp", "ap"), TARGETS, ORDERS[:3], [2], ["all"])
]


def shifted(tensor: torch.Tensor) -> torch.Tensor:
    """The same values one element into their memory."""
    storage = tensor.new_zeros(tensor.numel() + 1)
    storage[1:] = tensor.reshape(-1)
    return storage[1:].view(tensor.shape)


def results(backend: str | EmulatedDevice, case: Case, loss: str, *, move=lambda tensor: tensor) -> dict[str, torch.Tensor]:
    data = case.build()
    tensors = (move(t) for t in (data.logits, data.targets, data.loc_errors))
    return evaluate(LOSSES[loss], Fast(backend, "tiled"), *tensors, **data.options)


@functools.cache
def of_the_main_schedule(case: Case, loss: str) -> dict[str, torch.Tensor]:
    """What every schedule is to give: held to the reference, and to the CPU's kernels."""
    got = results(EmulatedDevice(), case, loss)
    assert_same_loss(got, expected(case, loss), case.dtype, case.build().positive)
    assert_as_on_the_cpu(got, case, loss)
    return got


def assert_as_on_the_cpu(got: dict[str, torch.Tensor], case: Case, loss: str) -> None:
    """The same bits where sums do not round: steps of 0 or 1, or of scores with few digits. (In float32 and narrower, the
    sums in double that these cases need round alike in any order.)"""
    want = results("cpu", case, loss)
    if case.dtype == torch.float64:
        exact = case.delta == 0 or case.scale in ("ties", "equal")
        want = {name: want[name] for name in ("rank", "precision") if exact and name in want}
    assert_same_bits(got, want, "the CPU's")


def assert_same_bits(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor], whose: str) -> None:
    for name, value in want.items():
        # Not torch.equal: NaN equals NaN, and zeros have signs.
        assert got[name].dtype == value.dtype, name
        assert bits(got[name]) == bits(value), f"{name} differs from {whose}: {got[name]} for {value}"


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_schedule_does_not_matter(run: Run) -> None:
    device = EmulatedDevice(run.target, run.schedule)
    got = results(device, run.case, run.loss, move=shifted if run.shifted else lambda tensor: tensor)
    assert device.sessions
    assert_same_bits(got, of_the_main_schedule(run.case, run.loss), "the main schedule's")


@pytest.mark.slow
@pytest.mark.parametrize("run", CHOSEN, ids=str)
def test_every_two_settings_meet(run):
    assert_schedule_does_not_matter(run)


@pytest.mark.full
@pytest.mark.parametrize("case", [*CASES, *MANY_POSITIVES], ids=str)
def test_every_combination(case):
    for run in PRODUCT:
        if run.case == case:
            print(run)  # where one fails, pytest shows which
            assert_schedule_does_not_matter(run)
