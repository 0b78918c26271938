"""What is odd about a batch, and what to do: one function for each place where training goes wrong.

Comparisons are written so that NaN, which stands for a number that the batch does not have, finds nothing.
"""

import math
from collections.abc import Iterator

import torch

from ..balance import SelfBalance
from ..functional import ap_loss
from ..images import kinds_of_labels
from .measure import Batch
from .report import Diagnosis, brief, percent

HALF = (torch.float16, torch.bfloat16)
NEAR_ONE = 0.9  # L_cls that counts as stuck
LITTLE = 0.1  # the share of the loss below which boxes learn slowly
LARGEST_ERROR = 10.0  # 1 / (1 - tau) for tau = 0.9, more than detectors ask for
LONG_EPOCH = 10_000  # iterations after which the end of an epoch may well have been forgotten
WIDE = 25  # deltas of spread; a trained detector's logits have a few


def findings_of(batch: Batch, found: Diagnosis) -> tuple[str, ...]:
    """What is odd, causes before what follows from them."""
    rules = [not_finite, labels]
    if found.positives:
        rules += [ranking, ramp, score_level, logit_gradient, box_errors, box_weight]
    return tuple(sentence for rule in rules for sentence in rule(batch, found))


def not_finite(batch: Batch, found: Diagnosis) -> Iterator[str]:
    """NaN and infinities that take part."""
    scores = batch.both
    nans, infinite = int(scores.isnan().sum()), int(scores.isinf().sum())
    if nans:
        yield (
            f"{nans} of {len(scores)} logits are NaN, and so are the losses and every gradient. Find the first step that has "
            f"one (torch.autograd.set_detect_anomaly names the operation), and lower the learning rate or clip gradients there."
        )
    if infinite:
        yield (
            f"{infinite} of {len(scores)} logits are infinite: they rank above or below all others. float16 ends at 65504, so "
            f"compute the last layer in float32 or bfloat16; in float32, training has diverged."
        )
    if batch.loc_errors is not None:
        bad = int((~batch.loc_errors.isfinite()).sum())
        if bad:
            yield (
                f"{bad} of {found.positives} loc_errors are NaN or infinite, and the losses with them. Decode boxes in "
                f"float32, limit the exponents of their sizes, and look for objects without an area."
            )


def labels(batch: Batch, found: Diagnosis) -> Iterator[str]:
    """Which anchors are what."""
    values = batch.targets.reshape(-1)
    values = values if values.is_floating_point() else values.long()  # torch compares few of the unsigned dtypes
    what, total, ignored = "anchors" if batch.layout.classes else "logits", len(values), int((values < 0).sum())
    positive = int(kinds_of_labels(batch.targets, batch.layout)[0].sum())
    if 0 < total == ignored:
        yield (
            f"All {total} {what} are ignored, so that the losses are 0 and this batch teaches nothing. A target below 0 means "
            f"ignored, not background: {_background(batch)}."
        )
        return
    if positive == 0:
        yield (
            "No target is positive, so that the losses are 0 and this batch teaches nothing. That is right for a batch without "
            "objects; where most batches are so, look at the labels, at the boxes after augmentation, and at the thresholds by "
            "which anchors are matched with objects."
        )
        return
    if 2 * ignored >= total:
        yield (
            f"{ignored} of {total} {what} are ignored. A target below 0 means ignored, not background, and what is ignored is "
            f"never ranked below a positive: {_background(batch)}."
        )
    elif 2 * positive > total - ignored:
        common = int(values[values >= 0].long().mode().values)
        advice = f"; if {common}, the most frequent target, is it, pass background={common}" if batch.layout.classes else ""
        yield (
            f"{positive} of {total - ignored} {what} are positive, more than detectors "
            f"have{'' if found.negatives else ', and L_cls is 0'}. Is the background taken for an object? "
            f"{_background(batch)[0].upper()}{_background(batch)[1:]}{advice}."
        )
    if batch.scope == "image" and found.images_without_objects:
        yield (
            f"{found.images_without_objects} of {found.images} images have no object: with scope='image' their negatives are "
            f"ranked against nothing and learn nothing. scope='batch' ranks them below the positives of other images."
        )


def _background(batch: Batch) -> str:
    if not batch.layout.classes:
        return "with targets of the logits' shape negatives are 0"
    return f"the background's class index is {batch.layout.background} here"


def ranking(batch: Batch, found: Diagnosis) -> Iterator[str]:
    """How positives rank among the negatives."""
    if not found.negatives or math.isnan(found.loss_cls) or found.spread == 0:
        return
    if _are_scores(batch):
        yield (
            f"All logits lie between 0 and 1, as scores do after a sigmoid or a softmax. Give the loss the logits before it: "
            f"between 0 and 1, delta = {found.delta:g} hardly tells one from another."
        )
    elif found.loss_cls == 0:
        yield (
            "L_cls is 0: every positive ranks above every negative by delta or more, and no logit gets a gradient. That is "
            "right for a batch that is learnt by heart; elsewhere look whether targets have reached the model's input."
        )
    elif shift := _better_shift(batch, found):
        step, loss = shift
        yield (
            f"L_cls would be {loss:.3g} instead of {found.loss_cls:.3g} if every class index were one "
            f"{'higher' if step > 0 else 'lower'}. Classes count from 0 to {batch.layout.classes - 1} here; labels of COCO and "
            f"torchvision begin at 1."
        )
    elif found.pairs_in_ramp > 0.5:
        return  # what :func:`ramp` says
    elif found.outranked > 0.5:
        yield (
            f"The median positive ranks below {percent(found.outranked)} of the negatives, worse than by chance. Unless "
            f"training has just begun, targets and logits do not belong together: compare how both are flattened (images, "
            f"levels, places, anchors, classes), and see whether the loss falls if you train on this batch alone."
        )
    elif found.loss_cls > NEAR_ONE:
        yield (
            f"L_cls is {found.loss_cls:.3g}, though the median positive ranks above {percent(1 - found.outranked)} of the "
            f"negatives: with N_FP = {brief(found.n_fp_median)} there, false positives outnumber the positives that rank as "
            f"high. The loss leaves 1 late. Watch N_FP, train on, and raise the learning rate if N_FP does not fall."
        )


def _are_scores(batch: Batch) -> bool:
    """Whether the logits look like what a sigmoid or a softmax returns."""
    low, high = batch.both.aminmax()
    return bool(0 <= low < high <= 1)


def _better_shift(batch: Batch, found: Diagnosis) -> tuple[int, float] | None:
    """By how much class indices are off, and L_cls with that put right, if that lowers it by more than chance does."""
    classes, background, _ = batch.layout
    if classes < 2 or background < classes or not found.loss_cls > 0.5:
        return None
    positive = kinds_of_labels(batch.targets, batch.layout)[0].reshape(batch.targets.shape)
    index = batch.targets.long()
    for step in (-1, 1):
        shifted = torch.where(positive, (index + step) % classes, index)
        loss = float(ap_loss(batch.logits.detach(), shifted, **batch.options()))  # type: ignore[arg-type]
        if loss < 0.75 * found.loss_cls:
            return step, loss
    return None


def ramp(batch: Batch, found: Diagnosis) -> Iterator[str]:
    """Delta against the spread of the logits and the steps of their dtype."""
    if found.negatives and found.spread == 0:
        yield (
            "All logits are equal, so that nothing ranks above anything else. Look whether the last layer's weights are 0, and "
            "whether gradients reach it."
        )
    elif found.pairs_in_ramp > 0.5 and not _are_scores(batch):
        yield (
            f"{percent(found.pairs_in_ramp)} of the pairs of a positive and a negative differ by less than delta = "
            f"{found.delta:g}, and H tells little between them: the logits spread by {found.spread:.3g} only. So training "
            f"begins; if it stays so, raise the learning rate, or lower delta below the spread."
        )
    elif 0 < WIDE * found.delta < found.spread < math.inf:
        yield (
            f"The logits spread by {found.spread:.3g}, {found.spread / found.delta:.3g} times delta = {found.delta:g}, so that "
            f"positives are asked for hardly any margin. delta is in logits, 1 in the paper (0.5 for Rank & Sort Loss); if it "
            f"is that, the logits have grown too large: lower the learning rate, or add weight decay."
        )
    positives, _ = batch.scores
    size = float(positives.abs().median())
    if batch.logits.dtype in HALF and 0 < size < math.inf:
        step = torch.finfo(batch.logits.dtype).eps * 2.0 ** math.floor(math.log2(size))
        if step > found.delta / 2:
            yield (
                f"{_name(batch.logits.dtype)} logits come in steps of {step:.3g} at the positives, coarse against delta = "
                f"{found.delta:g}, so that many tie. Compute the last layer in float32, outside of autocast."
            )


def score_level(batch: Batch, found: Diagnosis) -> Iterator[str]:
    """Scores against the threshold from which a detector keeps detections."""
    # Of positives that rank low, others' findings come first: no threshold would let them pass without the negatives.
    if found.loss_cls <= NEAR_ONE and 2 * found.positives_passing < found.positives:
        positives, negatives = (logits.double().sigmoid() for logits in batch.scores)
        lowest = float(positives.kthvalue(1 + len(positives) // 10).values)
        threshold = float(f"{0.995 * lowest:.3g}")  # a hair below it, as it is printed
        yield (
            f"{found.positives_passing} of {found.positives} positives reach the score threshold of {found.score_threshold:g}; "
            f"their median score is {found.score_median:.3g}. The others go undetected, however well they rank: a ranking "
            f"fixes the order of scores, and the initial bias their level. Set the threshold by the scores that you see: "
            f"{threshold:g} lets nine of ten positives pass, and {int((negatives >= threshold).sum())} negatives."
        )
    if 2 * found.negatives_passing > found.negatives:
        yield (
            f"{percent(found.negatives_passing / found.negatives)} of the negatives reach the score threshold of "
            f"{found.score_threshold:g}: non-maximum suppression gets nearly everything, and limits on the number of "
            f"detections cut what is good. A ranking leaves scores where the initial bias put them: begin at -log(99), a score "
            f"of 0.01, or raise the threshold."
        )


def logit_gradient(batch: Batch, found: Diagnosis) -> Iterator[str]:
    """Whether the gradient reaches the model, and in equal parts."""
    if batch.loc_errors is not None and batch.loc_errors.requires_grad and not batch.needs_grad:
        yield (
            "loc_errors carry a gradient and the logits none: class scores do not learn. Look for detach(), .data or no_grad "
            "between the class head and the loss, and for frozen layers."
        )
    if batch.logits.dtype in HALF and abs(found.gradient_balance - 1) > 0.05:
        yield (
            f"Positives get {found.gradient_balance:.3g} times the gradient of the negatives, and should get as much (Theorem "
            f"2): what reaches one negative is too small for {_name(batch.logits.dtype)}. Scale the loss by "
            f"torch.amp.GradScaler, if you do not yet, or use bfloat16."
        )


def box_errors(batch: Batch, found: Diagnosis) -> Iterator[str]:
    """Localisation errors that no box learns from."""
    errors = batch.loc_errors
    if errors is None or not bool(errors.isfinite().all()):
        return
    if batch.needs_grad and not errors.requires_grad:
        yield (
            "loc_errors carry no gradient: boxes do not learn. Compute them from the decoded boxes, without detach(), .item(), "
            "no_grad or NumPy on the way."
        )
    elif errors.requires_grad and errors.is_leaf and not batch.are_leaves:
        yield (
            "loc_errors are a leaf, where the gradient ends: boxes do not learn. torch.tensor(...) and detach() cut errors off "
            "from the boxes that they were computed from."
        )
    if errors.dtype in HALF:
        yield (
            f"loc_errors are {_name(errors.dtype)}, in which coordinates of a large image are off by pixels: decode boxes and "
            f"compute their errors in float32, from codes.float()."
        )
    lowest, highest = (float(bound) for bound in errors.detach().aminmax())
    if lowest < 0:
        yield (
            f"loc_errors are as low as {lowest:.3g}, which rewards a low rank. They are errors, (1 - IoU) / (1 - tau), >= 0: "
            f"not GIoU itself, nor its negative."
        )
    if highest > LARGEST_ERROR:
        yield (
            f"loc_errors are as high as {highest:.3g}. (1 - IoU) / (1 - tau) is at most 1 / (1 - tau), 2 for tau = 0.5: divide "
            f"errors in pixels or sums over coordinates, or they drown L_cls in the gradient of the logits."
        )
    if lowest == highest == 0:
        yield "All loc_errors are 0: boxes do not learn. Are the objects' boxes compared with themselves?"
    elif found.positives > 1 and 2 * (same := int((errors == highest).sum())) > found.positives:
        yield (
            f"{same} of {found.positives} loc_errors are {highest:.3g}, the highest, to the last bit. Of boxes that do not "
            f"touch their objects the IoU is 0 and has no gradient: use GIoU, and look whether boxes and objects are in one "
            f"unit and one order."
        )


def box_weight(batch: Batch, found: Diagnosis) -> Iterator[str]:
    """How much of the loss the boxes are."""
    balance = batch.balance
    if isinstance(balance, SelfBalance):
        iterations = int(balance.iteration)
        if balance.epoch_length is None and iterations >= LONG_EPOCH and float(balance.weight) == balance.initial:
            yield (
                f"Self-balancing still has its first weight, {balance.initial:g}, after {iterations} iterations: call its "
                f"end_epoch() where an epoch ends, or give it epoch_length."
            )
    elif found.loss_loc is not None and found.box_weight is not None and found.error_max:
        part, whole = found.box_weight * found.loss_loc, found.loss_cls + found.loss_loc
        if 0 < part < LITTLE * whole:
            why = ", for the positives rank low" if found.loss_cls > NEAR_ONE else ""
            yield (
                f"The box part, {found.box_weight:.3g} * {found.loss_loc:.3g}, is {percent(part / whole)} of the loss{why}, "
                f"and the sum of its gradient over loc_errors {found.loc_gradient:.3g}: boxes learn slowly. Weigh it by "
                f"self-balancing, ALRPLoss(balance='self', epoch_length=...)."
            )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
