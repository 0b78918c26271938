"""Every backend and algorithm against the reference in float64 on the same inputs: outputs, ranks and gradients."""

import cases
import numpy as np
import pytest
import torch
from cases import LARGE, TABLE, expected
from compare import BOUND, assert_balanced, assert_same_loss
from hypothesis import example, given
from hypothesis import strategies as st
from implementations import LOSSES, Reference, evaluate


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("case", TABLE, ids=str)
def test_table_of_cases(fast, case, name):
    data = case.build()
    got = evaluate(LOSSES[name], fast, data.logits, data.targets, data.loc_errors, **data.options)
    assert_same_loss(got, expected(case, name), case.dtype, data.positive)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.full] if c in LARGE[1::2] else []) for c in LARGE], ids=map(str, LARGE)
)
def test_many_samples(fast, case, name):
    data = case.build()
    got = evaluate(LOSSES[name], fast, data.logits, data.targets, data.loc_errors, **data.options)
    assert_same_loss(got, expected(case, name), case.dtype, data.positive)


# Multiples of 1/8 tie and land on the knots; any number rounds.
grid = st.integers(-40, 40).map(lambda k: k / 8)
elements = st.lists(
    st.tuples(st.one_of(grid, st.floats(-20, 20, width=32)), st.sampled_from([1, 0, 0, -1]), st.floats(0, 2, width=32)),
    max_size=40,
)
deltas = st.one_of(st.sampled_from([0.0, 0.125, 0.5, 1.0]), st.floats(1e-3, 100))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@given(elements=elements, delta=deltas)
@example(elements=[(0.0, 1, 0.5), (-0.999985, 0, 0.0)], delta=1.0)  # N_FP = 7.5e-6 < eps
@example(elements=[(0.0, 1, 0.5), (-0.99997, 0, 0.0)], delta=1.0)  # N_FP = 1.5e-5 > eps
def test_generated_cases(fast, name, dtype, elements, delta):
    columns = [np.array(column) for column in zip(*elements, strict=True)] or [np.zeros(0)] * 3
    scores, targets, errors = (
        torch.tensor(columns[0], dtype=dtype),
        torch.tensor(columns[1]),
        torch.tensor(columns[2], dtype=dtype),
    )
    positive = targets == 1
    errors = errors[positive]
    got = evaluate(LOSSES[name], fast, scores, targets, errors, delta=delta)
    assert_balanced(got["d_logits"], positive, BOUND[dtype], signed=name == "rank_sort")
    if not cases.near_eps(scores, targets, delta):
        want = evaluate(LOSSES[name], Reference(), scores.double(), targets, errors.double(), delta=delta)
        assert_same_loss(got, want, dtype, positive)
