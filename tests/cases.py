"""The table of cases that every backend and algorithm is held to, chosen so that every two settings meet in some case."""

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from implementations import LOSSES, Reference, evaluate

from alrp_cuda import reference

EPS = 1e-5

# (negatives, positives): empty, one, vector tails, primes, and more positives than a tile of 256.
SIZES = [
    (0, 0),
    (0, 1),
    (0, 5),
    (1, 0),
    (40, 0),
    (1, 1),
    (3, 2),
    (17, 1),
    (31, 7),
    (33, 16),
    (257, 3),
    (64, 255),
    (127, 256),
    (1009, 257),
    (4099, 67),
]
LARGE_SIZES = [(8191, 1623), (20011, 701)]  # with more knots than a block sums in one run, and fewer
DELTAS = [0.0, 1e-3, 0.5, 1.0, 10.0, 100.0]
SCALES = ["dense", "sparse", "equal", "ties", "near", "far", "infinite", "subnormal", "extreme"]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@dataclass(frozen=True)
class Labels:
    """A form of targets: one label a logit (``classes`` 0), or class indices over ``classes`` with or without a background."""

    dtype: torch.dtype
    classes: int = 0
    background: int | None = None

    def __str__(self):
        form = f"c{self.classes}b{self.background}-" if self.classes else ""
        return form.replace("bNone", "") + str(self.dtype).removeprefix("torch.")

    @property
    def signed(self):
        return self.dtype in (torch.int8, torch.int16, torch.int32, torch.int64) or self.dtype.is_floating_point


LABELS = [
    *map(Labels, (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.bool)),
    *map(Labels, (torch.float32, torch.float64, torch.float16, torch.bfloat16)),
    Labels(torch.int64, 5),
    Labels(torch.int64, 1),
    Labels(torch.int32, 91),
    Labels(torch.int16, 2),
    Labels(torch.int8, 7),
    Labels(torch.uint8, 3),
    Labels(torch.int64, 8, background=0),
    Labels(torch.int32, 5, background=3),
    Labels(torch.int64, 4, background=9),
]


@dataclass(frozen=True)
class Data:
    """The tensors of a case, the options that go with them, and the mask of the positives over the flat logits."""

    logits: torch.Tensor
    targets: torch.Tensor
    loc_errors: torch.Tensor
    options: dict
    flat: torch.Tensor

    @property
    def positive(self):
        return self.flat == 1


@dataclass(frozen=True)
class Case:
    size: tuple[int, int]
    labels: Labels = Labels(torch.int64)
    delta: float = 1.0
    scale: str = "dense"
    dtype: torch.dtype = torch.float32
    errors_dtype: torch.dtype = torch.float32

    def __str__(self):
        short = [str(d).removeprefix("torch.") for d in (self.dtype, self.errors_dtype)]
        return f"N{self.size[0]}-P{self.size[1]}-{self.labels}-delta{self.delta:g}-{self.scale}-{short[0]}-E{short[1]}"

    def build(self) -> Data:
        return build(self)


def scores_of(scale, positive, dtype, rng):
    """Scores of ``dtype`` for the elements, where ``positive`` is a mask."""
    n = len(positive)
    dense = np.where(positive, rng.normal(-2, 1.5, n), rng.normal(-4.6, 1, n))
    info = torch.finfo(dtype)
    values = {
        "dense": lambda: dense,
        "sparse": lambda: np.where(positive, dense, dense - 4.4),
        "equal": lambda: np.full(n, 0.25),
        "ties": lambda: torch.tensor(dense).bfloat16().double().numpy(),
        "near": lambda: 1 + 1e-6 * rng.integers(-40, 40, n),
        "far": lambda: 1e6 * rng.integers(-20, 20, n) + dense,
        "infinite": lambda: np.where(rng.random(n) < 0.3, rng.choice([-np.inf, np.inf], n), dense),
        "subnormal": lambda: info.smallest_normal * info.eps * rng.integers(-9, 9, n),
        "extreme": lambda: info.max * rng.uniform(-1, 1, n),
    }[scale]()
    return torch.tensor(values).to(dtype)


def labels_of(labels, negatives, positives, rng):
    """(targets, the same as flat labels of 1, 0 and -1) in random order with some ignored."""
    ignored = (negatives + positives) // 7 if labels.signed else 0
    if not labels.classes:
        flat = rng.permutation(np.repeat([1, 0, -1], [positives, negatives, ignored]))
        values = np.where(flat < 0, rng.choice([-1, -2, -7], len(flat)), flat)
        return torch.tensor(values).to(labels.dtype), torch.tensor(flat)
    c = labels.classes
    background = c if labels.background is None else labels.background
    foreground = np.array([k for k in range(c) if k != background])
    anchors = max(positives, math.ceil((negatives + positives) / c))
    index = np.concatenate((rng.choice(foreground, positives), np.full(anchors - positives, background)))
    index = rng.permutation(np.concatenate((index, np.full(ignored // c, -1))))
    flat = np.where(index[:, None] < 0, -1, np.arange(c) == np.where(index == background, -1, index)[:, None])
    return torch.tensor(index).to(labels.dtype), torch.tensor(flat.reshape(-1))


def near_eps(scores, flat, delta):
    """Whether some N_FP lies where the gradient jumps: within 1e-3 of eps, but for an N_FP of 0."""
    n_fp = reference.sum_over_columns(scores[flat == 1].double(), scores[flat == 0].double(), None, delta)
    return bool(((n_fp > 0) & ((n_fp - EPS).abs() <= 1e-3)).any())


@functools.cache
def build(case) -> Data:
    """The tensors of a case: the first seed that keeps clear of the jump at eps."""
    for seed in itertools.count():
        rng = np.random.default_rng([seed, *case.size])
        targets, flat = labels_of(case.labels, *case.size, rng)
        scores = scores_of(case.scale, flat.numpy() == 1, case.dtype, rng)
        if not near_eps(scores, flat, case.delta):
            break
    harmful = torch.tensor(rng.choice([np.nan, np.inf, 3.0], len(flat))).to(case.dtype)
    alike = torch.tensor(rng.random(len(flat)) < 0.5)  # as a score that takes part
    scores = torch.where((flat < 0) & ~alike, harmful, scores)
    loc_errors = torch.tensor(rng.uniform(0, 1.8, int((flat == 1).sum()))).to(case.errors_dtype)
    if case.labels.classes:
        scores = scores.reshape(*targets.shape, case.labels.classes)
    elif scores.numel() % 3 == 0:
        scores, targets = scores.reshape(3, -1), targets.reshape(3, -1)
    options = {"delta": case.delta}
    if case.labels.background is not None:
        options["background"] = case.labels.background
    return Data(scores, targets, loc_errors, options, flat)


@functools.cache
def expected(case, name):
    """Outputs and gradients of the loss ``name`` by the reference in float64."""
    data = case.build()
    return evaluate(LOSSES[name], Reference(), data.logits.double(), data.targets, data.loc_errors.double(), **data.options)


def pairwise(**factors):
    """Few combinations of the factors' settings in which every two settings of two factors meet."""
    names = list(factors)
    pairs = {(a, x, b, y) for a, b in itertools.combinations(names, 2) for x in factors[a] for y in factors[b]}
    ordered = sorted(pairs, key=str)
    chosen = []
    while pairs:
        a, x, b, y = next(pair for pair in ordered if pair in pairs)
        row = {a: x, b: y}
        for name in names:
            if name not in row:
                row[name] = max(factors[name], key=lambda value: sum(p in pairs for p in pairs_of(row | {name: value}, names)))
        pairs -= set(pairs_of(row, names))
        chosen.append(row)
    return chosen


def pairs_of(row, names):
    """The pairs of settings that meet in a (possibly partial) combination."""
    return [(a, row[a], b, row[b]) for a, b in itertools.combinations(names, 2) if a in row and b in row]


TABLE = [
    Case(**row) for row in pairwise(size=SIZES, labels=LABELS, delta=DELTAS, scale=SCALES, dtype=DTYPES, errors_dtype=DTYPES)
]
LARGE = [
    Case(size, LABELS[k % len(LABELS)], DELTAS[k % len(DELTAS)], scale, DTYPES[k % len(DTYPES)])
    for k, (size, scale) in enumerate(itertools.product(LARGE_SIZES, ("dense", "sparse", "ties", "far")))
]
