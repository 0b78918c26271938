"""The numbers of a diagnosis, by the package's own losses."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..balance import SelfBalance
from ..functional import alrp_loss
from ..inputs import Layout
from ..metrics.gradients import parts_of
from .report import Diagnosis


@dataclass(frozen=True)
class Batch:
    """The arguments of :func:`alrp_cuda.diagnose`, checked."""

    logits: Tensor
    targets: Tensor
    loc_errors: Tensor | None
    layout: Layout
    delta: float
    scope: str
    image_index: Tensor | None
    score_threshold: float
    balance: SelfBalance | float | str | None
    needs_grad: bool  # of the logits as they were given: a list's are joined here
    are_leaves: bool

    def options(self) -> dict[str, object]:
        """What the losses take besides tensors."""
        return {
            "delta": self.delta,
            "background": self.layout.background if self.layout.classes else None,
            "scope": self.scope,
            "image_index": self.image_index if self.scope == "image" else None,
        }

    @cached_property
    def parts(self) -> tuple[Tensor, Tensor]:
        """Which logits are positive and which negative, bool of the logits' shape."""
        return parts_of(self.targets, self.layout)

    @cached_property
    def scores(self) -> tuple[Tensor, Tensor]:
        """The logits of the positives and of the negatives, flat; at least float32."""
        logits = self.logits.detach().to(torch.promote_types(self.logits.dtype, torch.float32))
        positive, negative = self.parts
        return logits[positive], logits[negative]

    @cached_property
    def both(self) -> Tensor:
        """The logits that take part, flat; at least float32."""
        return torch.cat(self.scores)


def measure(batch: Batch) -> Diagnosis:
    """A diagnosis without findings."""
    positive, negative = batch.parts
    positives, negatives = batch.scores
    count, others = len(positives), len(negatives)
    # Tensors of inference mode take no part in gradients; copies outside of it do.
    with torch.inference_mode(False), torch.enable_grad():
        logits = batch.logits.detach().clone().requires_grad_()
        given = torch.zeros_like(positives) if batch.loc_errors is None else batch.loc_errors.detach().clone()
        errors = given.requires_grad_()
        out = alrp_loss(logits, batch.targets.clone(), errors, **batch.options())  # type: ignore[arg-type]
        gradient, loc_gradient = torch.autograd.grad(out.cls + out.loc, (logits, errors))
    rank, n_fp = out.rank, out.rank * (1 - out.precision)
    images, image = _images(batch)
    ranking = image if batch.scope == "image" else torch.zeros_like(image)  # which ranking each logit is in
    rankings = images if batch.scope == "image" else 1
    with_objects = ranking[positive].bincount(minlength=rankings) > 0
    competitors = ranking[negative].bincount(minlength=rankings)
    is_number = not bool(batch.both.isnan().any())
    scores = positives.double().sigmoid()
    loss_cls, loss_loc = float(out.cls.detach()), float(out.loc.detach())
    boxes = batch.loc_errors is not None
    return Diagnosis(
        positives=count,
        negatives=others,
        ignored=batch.logits.numel() - count - others,
        images=None if batch.image_index is None else images,
        images_without_objects=(
            None if batch.image_index is None else images - int((image[positive].bincount(minlength=images) > 0).sum())
        ),
        loss_cls=loss_cls,
        rank_median=_median(rank),
        rank_worst=_highest(rank),
        n_fp_median=_median(n_fp),
        n_fp_worst=_highest(n_fp),
        outranked=_median(n_fp / competitors[ranking[positive]]),
        negatives_above=_share_above(positives, negatives, ranking[positive], ranking[negative], with_objects)
        if is_number
        else math.nan,
        delta=batch.delta,
        pairs_in_ramp=_share_in_ramp(positives, negatives, batch.delta) if is_number else math.nan,
        spread=float(batch.both.double().std(correction=0)) if count + others else math.nan,
        score_threshold=batch.score_threshold,
        score_lowest=-_highest(-scores),
        score_median=_median(scores),
        score_highest=_highest(scores),
        score_negative=_highest(negatives.double().sigmoid()),
        positives_passing=int((scores >= batch.score_threshold).sum()),
        negatives_passing=int((negatives.double().sigmoid() >= batch.score_threshold).sum()),
        gradient_positives=float(gradient[positive].double().abs().sum()),
        gradient_negatives=float(gradient[negative].double().abs().sum()),
        loss_loc=loss_loc if boxes else None,
        error_mean=float(given.detach().double().mean()) if boxes else None,
        error_max=_highest(given.detach()) if boxes else None,
        loc_gradient=float(loc_gradient.double().sum()) if boxes else None,
        box_weight=_weight(batch.balance, loss_cls, loss_loc) if boxes else None,
    )


def _images(batch: Batch) -> tuple[int, Tensor]:
    """How many images there are, and the number of that of each logit, of the logits' shape."""
    logits = batch.logits
    if batch.image_index is None or logits.numel() == 0:
        return int(batch.image_index is None), torch.zeros(logits.shape, dtype=torch.int64, device=logits.device)
    images, number = torch.unique(batch.image_index.to(torch.int64), return_inverse=True)
    return len(images), number.reshape(-1, 1).expand(-1, logits.numel() // number.numel()).reshape(logits.shape)


def _median(values: Tensor) -> float:
    return float(values.double().median()) if len(values) else math.nan


def _highest(values: Tensor) -> float:
    return float(values.max()) if len(values) else math.nan


def _share_above(positives: Tensor, negatives: Tensor, of_positives: Tensor, of_negatives: Tensor, with_objects: Tensor) -> float:
    """The share of negatives above the lowest positive of their ranking, in rankings that have one."""
    lowest = positives.new_full(with_objects.shape, math.inf).scatter_reduce(0, of_positives, positives, "amin")
    above = (negatives > lowest[of_negatives])[with_objects[of_negatives]]
    return float(above.double().mean())


def _share_in_ramp(positives: Tensor, negatives: Tensor, delta: float) -> float:
    """The share of pairs whose scores differ by less than delta; of none NaN."""
    ordered, pairs = positives.sort().values, len(positives) * len(negatives)
    inside = torch.searchsorted(ordered, negatives + delta) - torch.searchsorted(ordered, negatives - delta, right=True)
    return float(inside.clamp(min=0).sum()) / pairs if pairs else math.nan


def _weight(balance: SelfBalance | float | str | None, cls: float, loc: float) -> float:
    """What :class:`alrp_cuda.ALRPLoss` multiplies the gradient of L_loc by."""
    if isinstance(balance, SelfBalance):
        return float(balance.weight)
    if isinstance(balance, str):
        return cls / loc if loc > 0 else 1.0
    return 1.0 if balance is None else balance
