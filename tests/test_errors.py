"""Every misuse is an error that names the argument, says what was expected and shows what came."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from implementations import assert_value_error, evaluate, every_loss, outputs_of

import alrp_cuda
from alrp_cuda import reference

FLAT = torch.tensor([[1, 0, 0], [0, -1, 1]])
CLASSES = torch.tensor([0, 2])


def movable(value):
    return isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.layout == torch.strided


def arguments(losses, **changes):
    """Good arguments with some changed."""
    good = {"logits": torch.zeros(2, 3), "targets": FLAT, "loc_errors": torch.tensor([0.1, 0.2])} | changes
    return {k: losses.put(v) if movable(v) else v for k, v in good.items()}


def call_alrp(losses, changes):
    return losses.alrp_loss(**arguments(losses, **changes))


def call_ap(losses, changes):
    good = arguments(losses, **changes)
    del good["loc_errors"]
    return losses.ap_loss(**good)


def call_ndcg(losses, changes):
    good = arguments(losses, **changes)
    del good["loc_errors"]
    return losses.ndcg_loss(**good)


def call_rank_sort(losses, changes):
    good = {"logits": torch.zeros(2, 3), "targets": torch.tensor([[0.5, 0.0, 0.0], [-0.0, -1.0, 1.0]])} | changes
    return losses.rank_sort_loss(**{k: losses.put(v) if movable(v) else v for k, v in good.items()})


calls = pytest.mark.parametrize("call", [call_alrp, call_ap, call_ndcg])
every_call = pytest.mark.parametrize("call", [call_alrp, call_ap, call_ndcg, call_rank_sort])

NUMBERS = [
    (TypeError, "1", "must be a number, got str"),
    (TypeError, None, "must be a number, got NoneType"),
    (TypeError, True, "must be a number, got bool"),
    (TypeError, torch.tensor(1.0), "must be a number, got Tensor"),
    (TypeError, 1j, "must be a number, got complex"),
    (ValueError, -1.0, "must be finite and >= 0, got -1.0"),
    (ValueError, -1e-300, "must be finite and >= 0, got -1e-300"),
    (ValueError, math.nan, "must be finite and >= 0, got nan"),
    (ValueError, math.inf, "must be finite and >= 0, got inf"),
    (ValueError, -math.inf, "must be finite and >= 0, got -inf"),
]

MISUSES = [
    (TypeError, {"logits": [0.0, 1.0]}, r"targets must be a list of tensors, as logits is, got Tensor"),
    (
        TypeError,
        {"logits": torch.zeros(2, 3, dtype=torch.int64)},
        r"logits must have one of the dtypes float32, .*, got torch\.int64",
    ),
    (
        TypeError,
        {"logits": torch.zeros(2, 3, dtype=torch.complex64)},
        r"logits must have one of the dtypes .*, got torch\.complex64",
    ),
    (TypeError, {"logits": torch.eye(3).to_sparse()}, r"logits must be a dense \(strided\) tensor, got layout torch\.sparse_coo"),
    (TypeError, {"targets": [[1, 0, 0], [0, -1, 1]]}, r"targets must be a torch\.Tensor, got list"),
    (TypeError, {"targets": FLAT.to(torch.complex64)}, r"targets must have one of the dtypes .*, got torch\.complex64"),
    (TypeError, {"targets": FLAT.to_sparse()}, r"targets must be a dense \(strided\) tensor, got layout torch\.sparse_coo"),
    (ValueError, {"targets": FLAT.t()}, r"targets must have the logits' shape \(2, 3\), .* got \(3, 2\)"),
    (ValueError, {"targets": FLAT[..., None]}, r"targets must have the logits' shape \(2, 3\), .* got \(2, 3, 1\)"),
    (ValueError, {"targets": torch.tensor(1)}, r"targets must have the logits' shape \(2, 3\), .* got \(\)"),
    (ValueError, {"targets": torch.zeros(3, dtype=torch.int64)}, r"targets must have the logits' shape \(2, 3\), .* got \(3,\)"),
    (ValueError, {"targets": FLAT.to("meta")}, r"targets must be on the device of logits, \w+(:\d+)?, got meta"),
    (TypeError, {"targets": CLASSES.float()}, r"class indices must have one of the dtypes int8, .*, got torch\.float32"),
    (TypeError, {"targets": CLASSES.bool()}, r"class indices must have one of the dtypes int8, .*, got torch\.bool"),
    (ValueError, {"background": 0}, r"background must be None for targets of the logits' shape \(2, 3\).* got 0"),
    (ValueError, {"targets": CLASSES, "background": -1}, r"background must be a class index >= 0 .*, got -1"),
    (TypeError, {"targets": CLASSES, "background": 1.0}, r"background must be an int or None, got float"),
    (TypeError, {"targets": CLASSES, "background": "0"}, r"background must be an int or None, got str"),
    (TypeError, {"targets": CLASSES, "background": True}, r"background must be an int or None, got bool"),
]

ALRP_MISUSES = [
    (TypeError, {"loc_errors": None}, r"loc_errors must be a torch\.Tensor, got NoneType"),
    (TypeError, {"loc_errors": [0.1, 0.2]}, r"loc_errors must be a torch\.Tensor, got list"),
    (TypeError, {"loc_errors": torch.tensor([0, 1])}, r"loc_errors must have one of the dtypes float32, .*, got torch\.int64"),
    (ValueError, {"loc_errors": torch.tensor([[0.1, 0.2]])}, r"loc_errors must have shape \(P,\), .*, got shape \(1, 2\)"),
    (ValueError, {"loc_errors": torch.tensor(0.1)}, r"loc_errors must have shape \(P,\), .*, got shape \(\)"),
    (
        ValueError,
        {"loc_errors": torch.zeros(2, device="meta")},
        r"loc_errors must be on the device of logits, \w+(:\d+)?, got meta",
    ),
    (ValueError, {"order": "rough"}, r"order must be one of 'smooth', 'hard', got 'rough'"),
    (ValueError, {"order": None}, r"order must be one of 'smooth', 'hard', got None"),
]

RANK_SORT_MISUSES = [
    (TypeError, {"logits": [0.0, 1.0]}, r"targets must be a list of tensors, as logits is, got Tensor"),
    (TypeError, {"logits": FLAT}, r"logits must have one of the dtypes float32, .*, got torch\.int64"),
    (TypeError, {"targets": FLAT}, r"targets must have one of the dtypes float32, .*, got torch\.int64"),
    (TypeError, {"targets": FLAT == 1}, r"targets must have one of the dtypes float32, .*, got torch\.bool"),
    (TypeError, {"targets": None}, r"targets must be a torch\.Tensor, got NoneType"),
    (
        TypeError,
        {"targets": torch.eye(3).to_sparse()},
        r"targets must be a dense \(strided\) tensor, got layout torch\.sparse_coo",
    ),
    (ValueError, {"targets": torch.zeros(3, 2)}, r"targets must have the logits' shape \(2, 3\), got \(3, 2\)"),
    (ValueError, {"targets": torch.zeros(2)}, r"targets must have the logits' shape \(2, 3\), got \(2,\)"),
    (
        ValueError,
        {"targets": torch.zeros(2, 3, device="meta")},
        r"targets must be on the device of logits, \w+(:\d+)?, got meta",
    ),
    (TypeError, {"background": 1}, r"background"),
]

AP_MISUSES = [
    (TypeError, {"interpolate": 1}, r"interpolate must be a bool, got int"),
    (TypeError, {"interpolate": "yes"}, r"interpolate must be a bool, got str"),
]

COUNTS = [
    (TypeError, {"num_positives": 2.0}, r"num_positives must be an int or None, got float"),
    (TypeError, {"num_positives": True}, r"num_positives must be an int or None, got bool"),
    (ValueError, {"num_positives": -1}, r"num_positives must be >= 0, got -1"),
]


@calls
@pytest.mark.parametrize(("error", "changes", "words"), MISUSES)
def test_misuse_is_named(losses, call, error, changes, words):
    with pytest.raises(error, match=words):
        call(losses, changes)


@pytest.mark.parametrize(("error", "changes", "words"), ALRP_MISUSES)
def test_misuse_of_alrp_is_named(losses, error, changes, words):
    with pytest.raises(error, match=words):
        call_alrp(losses, changes)


@pytest.mark.parametrize(("error", "changes", "words"), AP_MISUSES)
def test_misuse_of_ap_is_named(losses, error, changes, words):
    with pytest.raises(error, match=words):
        call_ap(losses, changes)


@pytest.mark.parametrize(("error", "changes", "words"), RANK_SORT_MISUSES)
def test_misuse_of_rank_and_sort_is_named(losses, error, changes, words):
    with pytest.raises(error, match=words):
        call_rank_sort(losses, changes)


@pytest.mark.parametrize("call", [call_ap, call_ndcg, call_rank_sort])
@pytest.mark.parametrize(("error", "changes", "words"), COUNTS)
def test_impossible_numbers_of_positives_are_named(losses, call, error, changes, words):
    with pytest.raises(error, match=words):
        call(losses, changes)


@every_call
@pytest.mark.parametrize("name", ["delta", "eps"])
@pytest.mark.parametrize(("error", "value", "words"), NUMBERS)
def test_numbers_out_of_range_are_named(losses, call, name, error, value, words):
    with pytest.raises(error, match=f"{name} {words}"):
        call(losses, {name: value})


def test_delta_is_given_by_name_only(losses):
    good = arguments(losses)
    with pytest.raises(TypeError, match="positional argument"):
        losses.alrp_loss(good["logits"], good["targets"], good["loc_errors"], 1.0)
    with pytest.raises(TypeError, match="positional argument"):
        losses.ap_loss(good["logits"], good["targets"], 1.0)
    with pytest.raises(TypeError, match="positional argument"):
        losses.ndcg_loss(good["logits"], good["targets"], 1.0)
    with pytest.raises(TypeError, match="positional argument"):
        losses.rank_sort_loss(good["logits"], good["targets"].float(), 0.5)


@pytest.mark.parametrize("call", [alrp_cuda.alrp_loss, alrp_cuda.ap_loss, alrp_cuda.ndcg_loss])
@pytest.mark.parametrize("value", ["fastest", "", None, 0])
def test_unknown_choices_are_named(call, value):
    tensors = (torch.zeros(2, 3), FLAT, torch.zeros(2))[: 3 if call is alrp_cuda.alrp_loss else 2]
    with pytest.raises(ValueError, match=f"algorithm must be one of 'auto', .*, got {value!r}"):
        call(*tensors, algorithm=value)


def test_device_without_a_backend_is_named():
    with pytest.raises(ValueError, match=r"logits .*got meta"):
        alrp_cuda.ap_loss(torch.zeros(2, 3, device="meta"), FLAT.to("meta"))


# What follows depends on values in the tensors.
def told(changes):
    return changes | {"num_positives": 2}


IMPOSSIBLE = [
    (torch.int64, 2),
    (torch.int8, 127),
    (torch.int64, 2**32 + 1),
    (torch.int64, 2**63 - 1),
    (torch.int32, 2**31 - 1),
    (torch.int16, 257),
    (torch.uint8, 255),
    (torch.uint16, 65535),
    (torch.uint32, 2**32 - 1),
    (torch.uint64, 2**63),
    (torch.float32, 0.5),
    (torch.float32, 1 + 2**-23),
    (torch.float64, 1 + 2**-52),
    (torch.float64, 1e-300),
    (torch.float32, math.nan),
    (torch.float32, math.inf),
    (torch.float16, 2.0),
    (torch.bfloat16, math.nan),
]


def full(dtype, values):
    """A tensor of any dtype (few operations know the wide unsigned ones)."""
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize(("dtype", "label"), IMPOSSIBLE, ids=str)
def test_impossible_labels_are_named(values, dtype, label):
    changes = {"targets": full(dtype, [[1, 0, 0], [label, 0, 1]])}
    words = r"targets must be 1 \(positive\), 0 \(negative\) or negative \(ignored\)"
    assert_value_error(values, words, lambda: call_alrp(values, changes))
    assert_value_error(values, words, lambda: call_ap(values, told(changes)))


CONTINUOUS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("label", [math.nan, -math.nan, math.inf])
@pytest.mark.parametrize("dtype", CONTINUOUS, ids=str)
def test_impossible_continuous_labels_are_named(values, dtype, label):
    targets = full(dtype, [[0.5, 0, 0], [label, 0, 1]])
    words = r"targets must be above 0 and finite \(positive\), 0 \(negative\) or negative \(ignored\)"
    assert_value_error(values, words, lambda: call_rank_sort(values, told({"targets": targets})))
    with pytest.raises(ValueError, match=words):  # counting positives waits for the device anyway
        call_rank_sort(values, {"targets": targets})


@pytest.mark.parametrize("dtype", CONTINUOUS, ids=str)
def test_any_finite_number_above_zero_is_a_label(losses, dtype):
    info = torch.finfo(dtype)
    labels = [info.smallest_normal * info.eps, info.smallest_normal, info.eps, 0.5, 1.0, 2.0, 30000.0]
    for ignored in (-info.smallest_normal * info.eps, -1.0, -math.inf):
        targets = full(dtype, [*labels, 0.0, -0.0, ignored])
        got = losses.rank_sort_loss(losses.put(torch.zeros(10)), losses.put(targets), num_positives=len(labels))
        assert abs(float(got.rank) - 1 / (len(labels) / 2 + 1)) <= 1e-6
        want = reference.rank_sort_loss(torch.zeros(10, dtype=torch.float64), targets.double())
        assert abs(float(got.sort) - float(want.sort)) <= 1e-6 * float(want.sort)


@pytest.mark.parametrize("dtype", CONTINUOUS, ids=str)
def test_the_greatest_number_is_a_label(losses, dtype):
    targets = full(dtype, [torch.finfo(dtype).max, 0.0])
    assert float(losses.rank_sort_loss(losses.put(torch.zeros(2)), losses.put(targets), num_positives=1).rank) == 0.5


@pytest.mark.parametrize("background", [None, 0, 7])
@pytest.mark.parametrize(
    ("dtype", "label"),
    [
        (torch.int64, 4),
        (torch.int64, 8),
        (torch.int64, 2**32),
        (torch.int64, 2**63 - 1),
        (torch.int8, 127),
        (torch.int16, 256),
        (torch.int32, 2**31 - 1),
        (torch.uint8, 255),
        (torch.uint16, 65535),
        (torch.uint32, 2**32 - 1),
        (torch.uint64, 2**64 - 1),
    ],
    ids=str,
)
def test_impossible_classes_are_named(values, dtype, label, background):
    changes = {"logits": torch.zeros(3, 3), "targets": full(dtype, [1, label, 2]), "background": background}
    words = rf"targets must be class indices 0\.\.2, {3 if background is None else background} \(background\) or negative"
    assert_value_error(values, words, lambda: call_alrp(values, changes))
    assert_value_error(values, words, lambda: call_ap(values, told(changes)))


@pytest.mark.parametrize("background", [0, 7])
def test_default_background_is_no_class_where_another_is_given(values, background):
    changes = {"logits": torch.zeros(3, 3), "targets": torch.tensor([1, 3, 2]), "background": background}
    assert_value_error(values, "targets must be class indices", lambda: call_alrp(values, changes))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 1000])
@pytest.mark.parametrize("targets", [FLAT, torch.tensor([0, 2])], ids=["flat", "classes"])
def test_wrong_number_of_positives_is_named(values, targets, count):
    changes = {"targets": targets, "loc_errors": torch.zeros(count)}
    words = rf"loc_errors must have one error per positive: targets hold 2 positives, got {count} errors"
    assert_value_error(values, words, lambda: call_alrp(values, changes))
    words = rf"num_positives must be the number of positives in targets, 2, got {count}"
    assert_value_error(values, words, lambda: call_ap(values, {"targets": targets, "num_positives": count}))
    if targets.dim() == 2:
        assert_value_error(values, words, lambda: call_rank_sort(values, {"targets": targets.double(), "num_positives": count}))


@pytest.mark.parametrize("delta", [0.0, 1e-6, 1.0])
@pytest.mark.parametrize("score", [-7.0, 2.5e-4, 7.0, math.inf])
def test_wrong_number_of_positives_is_named_whatever_their_scores(values, score, delta):
    logits = torch.full((600,), score)
    targets = (torch.arange(600) % 2).to(torch.float32)
    for count in (301, 600, 1100):
        changes = {"logits": logits, "targets": targets, "delta": delta}
        words = rf"targets hold 300 positives, got {count} errors"
        assert_value_error(values, words, lambda: call_alrp(values, changes | {"loc_errors": torch.zeros(count)}))  # noqa: B023
        words = rf"num_positives must be the number of positives in targets, 300, got {count}"
        assert_value_error(values, words, lambda: call_rank_sort(values, changes | {"num_positives": count}))  # noqa: B023


def test_impossible_label_is_named_where_positives_are_counted(values):
    # Counting them waits for the device anyway.
    with pytest.raises(ValueError, match="targets must be 1"):
        call_ap(values, {"targets": FLAT * 2})


@every_loss
def test_impossible_label_makes_gradients_nan_where_it_cannot_raise(not_waiting, loss):
    logits, targets = torch.zeros(2, 3), torch.tensor([[1, 0, 0], [0, 2, 1]])
    options = {} if loss.kind == "alrp" else {"num_positives": 2}
    got = evaluate(loss, not_waiting, logits, targets, torch.zeros(2), **options)
    assert got["d_logits"][targets < 2].isnan().all()


SCRIPT = """
import torch, alrp_cuda
from emulated import CpuNotWaiting
with CpuNotWaiting():
    print(alrp_cuda.alrp_loss(torch.zeros(2), torch.tensor([1, 2]), torch.zeros(1)).cls)
"""


@pytest.mark.unsanitized  # compiles the tests' own extension where it is not
@pytest.mark.parametrize("switch", ["0", "1"])
def test_debugging_may_be_switched_on_in_the_environment(switch):
    paths = Path(alrp_cuda.__file__).parents[1], Path(__file__).parent
    environment = os.environ | {"ALRP_CUDA_DEBUG": switch, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert ("ValueError: targets must be" in done.stderr) == (switch == "1"), done.stderr
    assert ("nan" in done.stdout) == (switch == "0"), done.stdout


NEGATIVE = [
    (torch.int8, -128),
    (torch.int16, -256),
    (torch.int32, -(2**31)),
    (torch.int64, -(2**32)),
    (torch.int64, -(2**63)),
    (torch.float32, -1e-45),
    (torch.float64, -1e-300),
    (torch.float32, -math.inf),
    (torch.bfloat16, -0.5),
]


@pytest.mark.parametrize(("dtype", "label"), NEGATIVE, ids=str)
def test_any_negative_label_is_ignored(losses, dtype, label):
    got = call_ap(losses, {"targets": full(dtype, [[1, 0, 0], [label, label, 1]])})
    assert torch.equal(got, call_ap(losses, {"targets": torch.tensor([[1, 0, 0], [-1, -1, 1]])}))
    if dtype.is_floating_point:
        return
    changes = {"logits": torch.zeros(3, 3), "targets": full(dtype, [1, label, 2])}
    assert torch.equal(call_ap(losses, changes), call_ap(losses, changes | {"targets": torch.tensor([1, -1, 2])}))


def test_negative_zero_is_a_negative(losses):
    got = call_ap(losses, {"targets": torch.tensor([[1.0, -0.0, -0.0], [-0.0, -1, 1]])})
    assert torch.equal(got, call_ap(losses, {"targets": FLAT}))


def test_impossible_numbers_of_no_scores_are_named(values):
    empty, words = torch.zeros(0), "num_positives must be the number of positives in targets, 0, got 3"
    assert_value_error(values, words, lambda: call_rank_sort(values, {"logits": empty, "targets": empty, "num_positives": 3}))


def make_graph(losses, loss):
    logits = losses.put(torch.tensor([0.5, -0.5, 0.25, 0.0])).requires_grad_()
    errors = losses.put(torch.tensor([0.3, 0.6])).requires_grad_()
    out = loss(losses, logits * 1, losses.put(torch.tensor([1, 0, 0, 1])), errors * 1)
    return sum(value for value in outputs_of(out).values() if value.requires_grad), logits


@every_loss
def test_second_derivative_raises(losses, loss):
    value, logits = make_graph(losses, loss)
    with pytest.raises(RuntimeError, match=r"twice|second derivative"):
        torch.autograd.grad(torch.autograd.grad(value, logits, create_graph=True)[0].sum(), logits)


@every_loss
def test_gradient_penalty_is_never_silently_zero(losses, loss):
    value, logits = make_graph(losses, loss)
    with pytest.raises(RuntimeError, match=r"twice|second derivative"):
        (value + torch.autograd.grad(value, logits, create_graph=True)[0].square().sum()).backward()
