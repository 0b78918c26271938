"""Cases of lists of tensors: a case of cases.py, cut into levels that lie in memory in many ways."""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from cases import DTYPES, SCALES, Case, Labels, pairwise
from fuzzing import put
from implementations import continuous, outputs_of

CLASSES = Labels(torch.int64, 5)
LEVELS = ["several", "empty", "one", "tiny"]
LAYOUTS = ["channels first", "channels last", "transposed", "slices", "expanded", "mixed"]


@dataclass(frozen=True)
class Listed:
    """A case in levels."""

    size: tuple[int, int]
    labels: Labels = CLASSES
    delta: float = 1.0
    scale: str = "dense"
    dtype: torch.dtype = torch.float32
    levels: str = "several"
    layout: str = "mixed"

    def __str__(self):
        case = Case(self.size, self.labels, self.delta, self.scale, self.dtype)
        return f"{case}-{self.levels}-{self.layout}".replace(" ", "-")

    def build(self):
        return build(self)


@dataclass(frozen=True)
class Problem:
    """The arguments of a call with lists; positives by the mask of :class:`cases.Data`."""

    logits: list[torch.Tensor]
    targets: list[torch.Tensor]
    loc_errors: torch.Tensor
    options: dict
    positive: torch.Tensor

    def joined(self, tensors):
        """Tensors of the list in one: rows of classes, rows with class indices, or flat."""
        form = (-1,) if self.logits[0].shape == self.targets[0].shape or tensors is self.targets else (-1, self.classes)
        return torch.cat([tensor.reshape(form) for tensor in tensors])

    @property
    def classes(self):
        return self.logits[0].shape[-1]

    def continuous(self):
        """The same with continuous labels, which have the logits' shapes."""
        flat = continuous(
            self.joined(self.logits).detach(), self.joined(self.targets), self.loc_errors, self.options.get("background")
        )
        parts = flat.reshape(-1).split([v.numel() for v in self.logits])
        targets = [part.reshape(v.shape) for part, v in zip(parts, self.logits, strict=True)]
        options = {name: value for name, value in self.options.items() if name != "background"}
        return Problem(self.logits, targets, self.loc_errors, options, self.positive)


def cut(rows, levels):
    """How many rows each level has."""
    if levels == "one":
        return [rows]
    if levels == "tiny":
        ends = np.sort(np.random.default_rng(rows).integers(0, rows + 1, 299))
        return np.diff([0, *ends, rows]).tolist()
    half, sixth = rows // 2 // 4 * 4, rows // 6
    parts = [half, sixth, rows - half - sixth]
    return [0, parts[0], 0, 0, *parts[1:], 0] if levels == "empty" else parts


def shaped(tensor):
    """Rows as (N, H, W, A), whatever N, W and A divide their number."""
    rows, shape = len(tensor), []
    for most in (2, 3, 4):  # N, A, W
        shape.append(math.gcd(rows, most) if rows else most)
        rows //= shape[-1]
    images, anchors, width = shape
    return tensor.reshape(images, rows, width, anchors, *tensor.shape[1:])


def laid(tensor, layout):
    """(N, H, W, ...) with the same values, as it lies in memory; "expanded": each image is the first one."""
    if tensor.dtype in (torch.uint16, torch.uint32, torch.uint64):  # torch copies few of the unsigned dtypes
        return tensor
    if layout == "channels first":
        return tensor.movedim((1, 2), (-2, -1)).contiguous().movedim((-2, -1), (1, 2))
    if layout == "transposed":
        return tensor.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "slices":
        return torch.cat((tensor[:, :, :1], tensor, tensor[:, :, :1]), 2)[:, :, 1:-1]
    if layout == "expanded":
        return tensor[:1].nan_to_num(3.0).expand(tensor.shape)
    return tensor.contiguous()


@functools.cache
def build(case):
    data = Case(case.size, case.labels, case.delta, case.scale, case.dtype).build()
    rows = data.logits.reshape(-1, case.labels.classes) if case.labels.classes else data.logits.reshape(-1)
    counts = cut(len(rows), case.levels)
    layouts = LAYOUTS[:4] if case.layout == "mixed" else [case.layout]
    logits = [laid(shaped(part), layouts[k % len(layouts)]) for k, part in enumerate(rows.split(counts))]
    targets = [
        laid(shaped(part), "channels first" if k % 2 else "") for k, part in enumerate(data.targets.reshape(-1).split(counts))
    ]
    return Problem(logits, targets, data.loc_errors, data.options, data.positive)


CASES = [
    Listed(**row)
    for row in pairwise(
        size=[(127, 40), (257, 3), (64, 255), (40, 0), (0, 5), (0, 0)],
        labels=[
            CLASSES,
            Labels(torch.int8),
            Labels(torch.uint8, 3),
            Labels(torch.int32, 8, 0),
            Labels(torch.float32),
            Labels(torch.uint16),
            Labels(torch.int64, 1),
        ],
        delta=[1.0, 0.0, 0.5, 1e-3, 100.0],
        scale=SCALES,
        dtype=DTYPES,
        levels=LEVELS,
        layout=LAYOUTS,
    )
]


# More than a tile of the streaming kernels in some levels, in and out of the order of their labels; more levels than a kernel
# writes at once are in "tiny".
LARGE = [
    Listed((30_032, 40), Labels(torch.int8)),
    Listed((30_000, 40), Labels(torch.int8), layout="channels last"),
    Listed((30_000, 200), CLASSES, dtype=torch.bfloat16),
    Listed((30_000, 5), CLASSES, delta=10.0, layout="channels first"),
]


def evaluate(loss, losses, problem, *, joined=False, weights=(1.5, 0.5), **options):
    """Outputs by name and "d_loc_errors", and the gradient of each of the list's tensors, by a call with the list or with one
    tensor in its place."""
    if loss.kind == "rank_sort":
        problem = problem.continuous()
    logits = [put(v, losses.device).detach().requires_grad_() for v in problem.logits]
    views = [v.view_as(v) for v in logits]  # gradients of tensors that may be expanded
    targets = [losses.put(t) for t in problem.targets]
    errors = losses.put(problem.loc_errors).detach().requires_grad_()
    if joined:
        placed = Problem(views, targets, errors, problem.options, problem.positive)
        tensors = [placed.joined(views), placed.joined(targets)]
    else:
        tensors = [views, targets]
    if loss.kind == "alrp":
        tensors.append(errors)
    outputs = outputs_of(getattr(losses, f"{loss.kind}_loss")(*tensors, **dict(loss.options), **problem.options, **options))
    scalars = [value for value in outputs.values() if value.requires_grad]
    total = sum(w * s for w, s in zip(weights, scalars, strict=False))
    grads = torch.autograd.grad(total, [*views, errors], allow_unused=True)
    assert [g.shape for g in grads[:-1]] == [v.shape for v in views]
    named = {f"d_logits[{k}]": g for k, g in enumerate(grads[:-1])}
    if loss.kind == "alrp":
        named["d_loc_errors"] = grads[-1]
    return {name: value.detach().cpu() for name, value in (outputs | named).items()}
