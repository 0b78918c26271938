"""What a diagnosis holds, and how it reads."""

import math
import textwrap
from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnosis:
    """Result of :func:`alrp_cuda.diagnose`; ``print`` shows it in a few lines. A number that the batch does not have is NaN.

    Attributes:
        positives, negatives, ignored: logits of each kind, >= 0.
        images: images of the batch, and
        images_without_objects: those of them without a positive; None without ``image_index``.
        loss_cls: L_cls of Eq. 11, in [0, 1]; it is AP Loss.
        rank_median, rank_worst: of rank(i), >= 1, over the positives (Eq. 3).
        n_fp_median, n_fp_worst: of N_FP(i), >= 0, the negatives that rank above a positive.
        outranked: median of N_FP(i) / N in [0, 1]; by chance it is a half.
        negatives_above: share of the negatives, in [0, 1], that score above the lowest positive; with ``scope="image"`` of the
            same image, in images with objects.
        delta: half width of the step function H, in logits.
        pairs_in_ramp: share of the pairs of a positive and a negative of the batch, in [0, 1], whose logits differ by less
            than delta.
        spread: standard deviation of the logits that take part, in logits.
        score_threshold: in [0, 1], as given.
        score_lowest, score_median, score_highest: of the positives' scores, the sigmoid of their logits, in [0, 1].
        score_negative: the highest score of a negative, in [0, 1].
        positives_passing, negatives_passing: how many score at least ``score_threshold``.
        gradient_positives, gradient_negatives: sums of the absolute gradients of logits, in the logits' dtype, of L_cls + L_loc.
        gradient_balance: the first over the second, 1 by Theorem 2.
        loss_loc: L_loc of Eq. 11; this and what follows is None without ``loc_errors``.
        error_mean, error_max: of the localisation errors E.
        loc_gradient: sum over the positives of dL_loc/dE, in [0, 1]: the mean precision.
        box_weight: what the gradient of L_loc is multiplied by, >= 0.
        findings: what is odd, and what to do about it, a sentence or some each; empty if nothing is.

    Example:
        >>> import torch, alrp_cuda
        >>> _ = torch.manual_seed(0)
        >>> logits, targets = torch.randn(1000) - 4.6, torch.arange(1000) < 20
        >>> found = alrp_cuda.diagnose(logits + 5 * targets, targets)
        >>> found.findings
        ()
        >>> print(found)
        20 positives, 980 negatives, 0 ignored
        ranking: L_cls 0.0589, ranks 9.16 (median) to 29.8 (worst), N_FP 0 to 10.3, 0.714% of negatives above the worst
        delta 1: 0.454% of pairs inside the ramp; logits spread by 1.23
        scores: positives 0.152 to 0.837 (median 0.538), negatives up to 0.378; 20 positives and 56 negatives reach 0.05
        gradient: 0.0589 on positives, 0.0589 on negatives (balance 1)
        nothing is odd
    """

    positives: int
    negatives: int
    ignored: int
    images: int | None
    images_without_objects: int | None
    loss_cls: float
    rank_median: float
    rank_worst: float
    n_fp_median: float
    n_fp_worst: float
    outranked: float
    negatives_above: float
    delta: float
    pairs_in_ramp: float
    spread: float
    score_threshold: float
    score_lowest: float
    score_median: float
    score_highest: float
    score_negative: float
    positives_passing: int
    negatives_passing: int
    gradient_positives: float
    gradient_negatives: float
    loss_loc: float | None
    error_mean: float | None
    error_max: float | None
    loc_gradient: float | None
    box_weight: float | None
    findings: tuple[str, ...] = ()

    @property
    def gradient_balance(self) -> float:
        """``gradient_positives`` over ``gradient_negatives``, NaN where neither is there."""
        if self.gradient_negatives == 0:
            return math.inf if self.gradient_positives > 0 else math.nan
        return self.gradient_positives / self.gradient_negatives

    def __str__(self) -> str:
        images = "" if self.images is None else f"; {self.images_without_objects} of {self.images} images without objects"
        lines = [f"{self.positives} positives, {self.negatives} negatives, {self.ignored} ignored{images}"]
        if self.positives:
            lines += [
                f"ranking: L_cls {self.loss_cls:.3g}, ranks {brief(self.rank_median)} (median) to {brief(self.rank_worst)} "
                f"(worst), N_FP {brief(self.n_fp_median)} to {brief(self.n_fp_worst)}, "
                f"{percent(self.negatives_above)} of negatives above the worst",
                f"delta {self.delta:g}: {percent(self.pairs_in_ramp)} of pairs inside the ramp; "
                f"logits spread by {self.spread:.3g}",
                f"scores: positives {self.score_lowest:.3g} to {self.score_highest:.3g} (median {self.score_median:.3g}), "
                f"negatives up to {self.score_negative:.3g}; {self.positives_passing} positives and {self.negatives_passing} "
                f"negatives reach {self.score_threshold:g}",
                f"gradient: {self.gradient_positives:.3g} on positives, {self.gradient_negatives:.3g} on negatives "
                f"(balance {self.gradient_balance:.3g})",
            ]
        if self.positives and self.loss_loc is not None:
            lines.append(
                f"boxes: E {self.error_mean:.3g} (mean) to {self.error_max:.3g} (worst), L_loc {self.loss_loc:.3g}, "
                f"sum of dL_loc/dE {self.loc_gradient:.3g}, weight {self.box_weight:.3g}"
            )
        advice = [textwrap.fill(f"- {finding}", 110, subsequent_indent="  ") for finding in self.findings]
        return "\n".join([*lines, *(advice or ["nothing is odd"])])


def brief(number: float) -> str:
    """A number in three digits, or more of a large one."""
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.3g}%"
