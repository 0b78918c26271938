"""The losses in O((P + N) log(P + N)) by sorting and prefix sums in numpy's widest float: the truth where pairs are too many.

Written apart from the package, for finite scores up to about 1e4 times delta (prefix sums of scores cancel beyond that).
"""

import numpy as np
import torch
from implementations import label_of


def step_product(rows, columns, weights, delta):
    """For each row i: sum over j of w_j H(s_j - s_i).

    In ascending order the columns fall into three runs: H = 0, the ramp, H = 1. Prefix sums of w and w s give the last two.
    """
    order = np.argsort(columns, kind="stable")
    s, w = columns[order], np.broadcast_to(weights, columns.shape)[order].astype(np.longdouble)
    sum_w = np.concatenate(([0], np.cumsum(w)))
    below, above = np.searchsorted(s, rows, "left"), np.searchsorted(s, rows, "right")
    if delta == 0:
        return (sum_w[-1] - sum_w[below]).astype(np.float64)
    sum_ws = np.concatenate(([0], np.cumsum(w * s)))
    # Equal scores belong to the ramp however the knots round.
    first = np.minimum(np.searchsorted(s, rows - delta, "right"), below)
    last = np.maximum(np.searchsorted(s, rows + delta, "left"), above)
    in_ramp = sum_w[last] - sum_w[first]
    ramp = (sum_ws[last] - sum_ws[first] - rows * in_ramp) / (2 * delta) + in_ramp / 2
    return (ramp + sum_w[-1] - sum_w[last]).astype(np.float64)


def transposed_product(rows, columns, weights, delta):
    """For each column j: sum over i of w_i H(s_j - s_i); the same product with rows and columns swapped and mirrored."""
    return step_product(-columns, -rows, weights, delta)


def gain(rank):
    """1 / log2(1 + r) in numpy's widest float."""
    return 1 / np.log2(1 + np.asarray(rank, np.longdouble))


def sort_errors(s, y, delta, eps=1e-10, rows=256):
    """(l_S, gradient of their sum) of Rank & Sort Loss for positives of these scores and labels, in O(P^2)."""
    error, gradient = np.zeros(len(s)), np.zeros(len(s))
    for i in range(0, len(s), rows):
        part = slice(i, i + rows)
        with np.errstate(invalid="ignore", over="ignore"):
            x = np.where(s == s[part, None], 0, s - s[part, None])
        h = (x >= 0) * 1.0 if delta == 0 else np.clip(x / (2 * delta) + 0.5, 0, 1)
        above = h * (y >= y[part, None])
        lower = h - above
        below = lower.sum(1)
        error[part] = h @ (1 - y) / h.sum(1) - above @ (1 - y) / above.sum(1)
        sent = np.where(below > eps, error[part], 0)
        gradient[part] -= sent
        gradient += (sent / np.where(below > eps, below, 1)) @ lower
    return error, gradient


def evaluate(name, scores, labels, errors, delta, eps=1e-5):
    """Outputs and gradients of the loss ``name`` (see implementations.LOSSES) as numbers and float64 arrays."""
    assert name in ("alrp", "alrp_hard", "ap", "ap_interpolated", "ndcg", "rank_sort")
    positive, negative = labels == 1, labels == 0
    s, negatives = scores[positive].astype(np.float64), scores[negative].astype(np.float64)
    errors = errors.astype(np.float64)
    z, tie = max(len(s), 1), 1.0 if delta == 0 else 0.5

    n_fp = step_product(s, negatives, 1.0, delta)
    rank_pos = 1 + step_product(s, s, 1.0, delta) - tie
    rank = rank_pos + n_fp
    others = step_product(s, s, errors, delta) - tie * errors

    descending = np.argsort(-s, kind="stable")
    error = (n_fp + others) / rank if name.startswith("alrp") else n_fp / rank
    if name == "ap_interpolated":
        error[descending[::-1]] = 1 - np.maximum.accumulate((rank_pos / rank)[descending[::-1]])

    if name == "rank_sort":
        error = n_fp / (rank - 1 + tie)
        eps = 1e-10
    if name == "ndcg":
        error = gain(rank_pos) - gain(rank)
        z = max(gain(1.0 + np.arange(len(s))).sum(), 1)

    active = n_fp > eps
    d_logits = np.zeros(len(scores))
    d_logits[positive] = np.where(active, -error / z, 0)
    share = np.divide(error, z * n_fp, out=np.zeros_like(error), where=active)
    d_logits[negative] = transposed_product(s, negatives, share, delta)
    if name == "rank_sort":
        sort_error, gradient = sort_errors(s, label_of(torch.tensor(errors)).numpy(), delta)
        d_logits[positive] += gradient / z
        return {"rank_error": error.sum() / z, "sort_error": sort_error.sum() / z, "d_logits": d_logits}
    if not name.startswith("alrp"):
        return {"loss": error.sum() / z, "d_logits": d_logits}

    if name == "alrp":
        loc, d_errors = (errors + others) / rank, 1 / rank + transposed_product(s, s, 1 / rank, delta) - tie / rank
    else:
        loc, d_errors = np.empty_like(s), np.empty_like(s)
        loc[descending] = np.cumsum(errors[descending]) / rank[descending]
        d_errors[descending] = np.cumsum((1 / rank[descending])[::-1])[::-1]
    return {
        "cls": (n_fp / rank).sum() / z,
        "loc": loc.sum() / z,
        "rank": rank,
        "precision": rank_pos / rank,
        "d_logits": d_logits,
        "d_loc_errors": d_errors / z,
    }
