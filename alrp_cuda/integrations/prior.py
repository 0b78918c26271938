"""The bias with which class logits begin: that of a prior probability, as for Focal Loss."""

import math

from ..inputs import check_number


def prior_logit(probability: float) -> float:
    """log(p / (1 - p)), whose sigmoid is p."""
    return -math.log((1 - probability) / probability)


def check_prior(name: str, prior: object) -> float:
    """``prior`` as a float; raises unless it is a number between 0 and 1."""
    value = check_number(name, prior)
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")
    return value
