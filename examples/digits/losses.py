"""What the detectors train with."""

from functools import partial

from ..common.losses import LOSSES as SHARED

# No score needs to pass a threshold here (models.py), and the results in docs/exhibit.md are of torchvision's own class bias.
LOSSES = {name: partial(loss, prior_probability=None) for name, loss in SHARED.items()}
