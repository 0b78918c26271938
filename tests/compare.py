"""How near an implementation must come to the truth."""

import torch

BOUND = {torch.float64: 1e-12, torch.float32: 1e-6}


def compute_dtype(dtype):
    """The dtype that a loss of ``dtype`` logits is computed and returned in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def assert_near(what, got, want, bound, rounded_to=None):
    """Relative L2 error at most ``bound`` (and 1e-12 absolute), beyond the rounding to a narrower dtype; NaN and inf in place."""
    got, want = (torch.as_tensor(x, dtype=torch.float64).reshape(-1).cpu() for x in (got, want))
    assert got.shape == want.shape, f"{what}: {got.numel()} elements, expected {want.numel()}"
    finite = want.isfinite()
    assert torch.equal(got[~finite].nan_to_num(7), want[~finite].nan_to_num(7)), f"{what}: NaN and inf differ"
    got, want = got[finite], want[finite]
    error = (got - want).abs()
    if rounded_to is not None:
        info = torch.finfo(rounded_to)
        error = (error - want.abs() * info.eps / 2 - info.smallest_normal * info.eps / 2).clamp(min=0)
    allowed = bound * float(want.norm()) + 1e-12
    assert float(error.norm()) <= allowed, (
        f"{what}: error {float(error.norm()):.3g}, allowed {allowed:.3g}, relative {float(error.norm() / want.norm()):.3g}, "
        f"worst at {int(error.argmax())}: {float(got[error.argmax()])!r} for {float(want[error.argmax()])!r}"
    )


def assert_same_loss(got, want, dtype, positive, *, gradients=True):
    """Outputs and gradients ``got`` for ``dtype`` logits against ``want``; positives and negatives are each held to the bound.

    ``positive`` is the mask of the positives over the logits. Without ``gradients`` only the ranks and precisions count.
    """
    bound = BOUND[compute_dtype(dtype)]
    for name, value in got.items():
        if name == "d_logits" and gradients:
            assert value.dtype == dtype
            rounded = dtype if dtype.itemsize < 4 else None
            value, truth = value.reshape(-1), torch.as_tensor(want[name]).reshape(-1)
            assert_near("gradient of the positives", value[positive], truth[positive], bound, rounded)
            assert_near("gradient of the others", value[~positive], truth[~positive], bound, rounded)
        elif name == "d_loc_errors" and gradients:
            narrower = value.dtype.itemsize < compute_dtype(dtype).itemsize
            assert_near(name, value, want[name], bound, value.dtype if narrower else None)
        elif name in ("rank", "precision") or gradients:
            assert value.dtype == compute_dtype(dtype), name
            assert_near(name, value, want[name], bound)


def assert_balanced(d_logits, positive, bound, *, signed=False):
    """Theorem 2: the gradients of positives and negatives weigh the same; of Rank & Sort, whose positives also push one
    another, with their signs."""
    d_logits = d_logits.double().reshape(-1)
    weight = float(d_logits[positive].abs().sum())
    up, down = float(d_logits[positive].sum().neg() if signed else weight), float(d_logits[~positive].abs().sum())
    assert abs(up - down) <= bound * weight + 1e-12, f"positives {up!r}, negatives {down!r}"
