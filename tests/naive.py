"""The losses pair by pair in plain Python, written from the paper alone: what the reference itself is held against.

It shares nothing with alrp_cuda: Algorithm 1 is run as printed, from primary terms L_ij and targets L*_ij to pairwise updates.
"""

import math

import torch
from implementations import label_of


def step(s_i, s_j, delta):
    """H(s_j - s_i), sec. 2.1."""
    x = 0.0 if s_j == s_i else s_j - s_i
    if delta == 0:
        return 1.0 if x >= 0 else 0.0
    return min(max(x / (2 * delta) + 0.5, 0.0), 1.0)


def gain(rank):
    """What a positive at that rank gains, discounted."""
    return 1 / math.log2(1 + rank)


def evaluate(name, scores, labels, errors, delta, eps=1e-5):
    """Outputs and gradients of the loss ``name`` (see implementations.LOSSES) as numbers and lists."""
    pos = [k for k, label in enumerate(labels) if label == 1]
    neg = [k for k, label in enumerate(labels) if label == 0]
    error = dict(zip(pos, errors, strict=True))
    z = max(len(pos), 1)

    def h(i, j):
        return step(scores[i], scores[j], delta)

    n_fp = {i: sum(h(i, j) for j in neg) for i in pos}
    rank_pos = {i: 1 + sum(h(i, k) for k in pos if k != i) for i in pos}
    rank = {i: rank_pos[i] + n_fp[i] for i in pos}

    if name == "ndcg" and pos:
        z = sum(gain(k + 1) for k in range(len(pos)))

    def l_loc(e):
        """L_loc of the errors e: Eq. 11, or the published code's sum over the hard order."""
        total = 0.0
        for i in pos:
            if name == "alrp_hard":
                before = [k for k in pos if scores[k] > scores[i] or (scores[k] == scores[i] and k <= i)]
                total += sum(e[k] for k in before) / rank[i]
            else:
                total += (e[i] + sum(e[k] * h(i, k) for k in pos if k != i)) / rank[i]
        return total / z

    loss, target = {}, {}
    for i in pos:
        if name.startswith("alrp"):
            s_i = sum(error[k] * h(i, k) for k in pos if k != i)
            loss[i] = (n_fp[i] + error[i] + s_i) / rank[i]  # Eq. 9-10
            target[i] = error[i] / rank[i]  # Eq. 12
        elif name == "ndcg":
            loss[i], target[i] = gain(rank_pos[i]) - gain(rank[i]), 0.0
        elif name in ("ap", "ap_interpolated", "rank_sort"):
            loss[i], target[i] = n_fp[i] / rank[i], 0.0  # Eq. 2
        else:
            raise NotImplementedError(name)
    if name == "ap_interpolated":
        loss = {i: 1 - max(rank_pos[k] / rank[k] for k in pos if scores[k] <= scores[i]) for i in pos}

    d_logits = [0.0] * len(scores)
    for i in pos:
        if n_fp[i] <= eps:
            continue
        for j in neg:
            p_ij = h(i, j) / n_fp[i]
            dx_ij = target[i] * p_ij - loss[i] * p_ij  # the update L*_ij - L_ij
            d_logits[i] += dx_ij / z
            d_logits[j] -= dx_ij / z

    if name == "rank_sort":
        return rank_and_sort(scores, neg, {i: float(label_of(torch.tensor(e))) for i, e in error.items()}, h)
    if not name.startswith("alrp"):
        return {"loss": math.fsum(loss.values()) / z, "d_logits": d_logits}
    return {
        "cls": math.fsum(n_fp[i] / rank[i] for i in pos) / z,
        "loc": l_loc(error),
        "rank": [rank[i] for i in pos],
        "precision": [rank_pos[i] / rank[i] for i in pos],
        "d_logits": d_logits,
        # L_loc is linear in the errors, so that its derivative is its value for a unit error.
        "d_loc_errors": [l_loc({i: float(i == k) for i in pos}) for k in pos],
    }


def rank_and_sort(scores, neg, label, h, eps=1e-10):
    """Rank & Sort Loss of labelled positives, as Oksuz et al. (ICCV 2021) have it: errors, targets and pairwise updates."""
    z, d_logits = max(len(label), 1), [0.0] * len(scores)
    rank_error, sort_error = 0.0, 0.0
    for i in label:
        rank_pos, n_fp = sum(h(i, k) for k in label), sum(h(i, j) for j in neg)
        rank = n_fp / (rank_pos + n_fp)
        above, lower = [k for k in label if label[k] >= label[i]], [k for k in label if label[k] < label[i]]
        current = sum(h(i, k) * (1 - label[k]) for k in label) / rank_pos
        target = sum(h(i, k) * (1 - label[k]) for k in above) / sum(h(i, k) for k in above)
        rank_error, sort_error = rank_error + rank / z, sort_error + (current - target) / z
        for error, others in ((rank, neg), (current - target, lower)):
            total = sum(h(i, j) for j in others)
            for j in others if total > eps else ():
                d_logits[i] -= error * h(i, j) / total / z
                d_logits[j] += error * h(i, j) / total / z
    return {"rank_error": rank_error, "sort_error": sort_error, "d_logits": d_logits}
