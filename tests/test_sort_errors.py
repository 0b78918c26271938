"""The sort part of Rank & Sort Loss, which no backend sums in the order of the pairs, against all pairs."""

import numpy as np
import pytest
import torch
from implementations import Fast

DELTAS = (0.0, 1e-3, 0.5, 50.0)
P = 700  # some levels of the tree of csrc/cpu/sort_errors.cpp
SCORES = {
    "apart": lambda rng: rng.normal(size=P),
    "ties": lambda rng: rng.integers(-4, 4, P) / 4,
    "infinite": lambda rng: np.where(rng.random(P) < 0.1, np.inf * rng.choice([-1, 1], P), rng.normal(size=P)),
}
LABELS = {
    "apart": lambda rng: rng.uniform(0.01, 1, P),
    "few": lambda rng: rng.integers(1, 6, P) / 5,
    "one": lambda rng: np.full(P, 0.5),
    "near one another": lambda rng: 0.5 + 1e-9 * rng.integers(0, 1000, P),
    "of any size": lambda rng: 10.0 ** -rng.uniform(0, 6, P),
}


def by_pairs(scores, labels, delta):
    """The mean sort error of distances from each label, and its gradient (csrc/losses.h)."""
    with np.errstate(invalid="ignore"):
        x = np.where(scores == scores[:, None], 0, scores - scores[:, None])  # [i, k]: s_k - s_i
    h = np.clip(x / (2 * delta) + 0.5, 0, 1) if delta else (x >= 0).astype(float)
    distance = labels - labels[:, None]
    above, below = (h * (distance >= 0)).sum(1), (h * (distance < 0)).sum(1)
    above_distance, below_distance = (h * np.maximum(distance, 0)).sum(1), (h * np.maximum(-distance, 0)).sum(1)
    error = (below_distance + below / above * above_distance) / (above + below)
    moves = below > 1e-10
    share = np.divide(error, below, out=np.zeros(P), where=moves)
    return error.mean(), ((share[:, None] * h * (distance < 0)).sum(0) - error * moves) / P


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("labels", LABELS)
def test_is_as_by_pairs(backend, labels, scores, delta):
    rng = np.random.default_rng(len(labels) + len(scores))
    s, y = SCORES[scores](rng), LABELS[labels](rng)
    want, want_gradient = by_pairs(s, y, delta)
    fast = Fast(backend, "sorted")
    logits = fast.put(torch.from_numpy(s)).requires_grad_()
    sort = fast.rank_sort_loss(logits, fast.put(torch.from_numpy(y)), delta=delta)[1]
    (gradient,) = torch.autograd.grad(sort, logits)
    assert sort.item() >= 0
    assert sort.item() == pytest.approx(want, rel=1e-12, abs=0)
    assert gradient.cpu().numpy() == pytest.approx(want_gradient, rel=1e-12, abs=1e-12 * np.abs(want_gradient).max())
