"""diagnose: its numbers against the reference, and each thing that may be odd about a batch by its sentence, alone."""

import copy
import dataclasses
import re

import pytest
import torch
from implementations import Fast

import alrp_cuda
from alrp_cuda import SelfBalance, diagnose, reference

ANCHORS, CLASSES, POSITIVES = 2000, 8, 40


def healthy(dtype=torch.float32, seed=0, lift=4.0, level=-4.6):
    """A batch in the middle of training, as a model hands it over: (logits, targets, loc_errors)."""
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(ANCHORS, CLASSES, generator=random)
    targets = torch.full((ANCHORS,), CLASSES)
    targets[: 25 * POSITIVES : 25] = torch.arange(POSITIVES) % CLASSES
    targets[1:200:25] = -1
    positive = torch.nn.functional.one_hot(targets.clamp(min=0), CLASSES + 1)[:, :CLASSES] * (targets >= 0)[:, None]
    weight = torch.tensor([1.2, lift, level], requires_grad=True)
    logits = weight[0] * noise + weight[1] * positive + weight[2]
    errors = (0.2 + 0.8 * torch.rand(POSITIVES, generator=random)) * weight[0]
    return logits.to(dtype), targets, errors


def flat(targets):
    """The same labels, one a logit."""
    classes = torch.arange(CLASSES)
    return torch.where(targets[:, None] < 0, -1, (targets[:, None] == classes).long())


def test_a_healthy_batch_has_no_finding():
    for seed in range(5):
        found = diagnose(*healthy(seed=seed))
        assert found.findings == ()
        assert str(found).endswith("\nnothing is odd")
        assert len(str(found).splitlines()) == 7
    logits, targets, _ = healthy()
    assert diagnose(logits, targets).findings == ()
    assert diagnose(*healthy(torch.bfloat16)).findings == ()
    assert diagnose(*healthy(torch.float64)).findings == ()


@pytest.mark.parametrize("form", ["classes", "flat", "background 0"])
@pytest.mark.parametrize("scope", ["batch", "image"])
def test_numbers_are_those_of_the_paper(form, scope):
    logits, targets, errors = healthy(torch.float64)
    labels, background = flat(targets), None
    image = torch.arange(4).repeat_interleave(ANCHORS // 4)
    if form == "flat":
        targets = labels
    if form == "background 0":  # class k is class k + 1 of nine, the first of which nobody is
        targets = torch.where(targets == CLASSES, 0, torch.where(targets < 0, -1, targets + 1))
        logits = torch.cat((torch.full((ANCHORS, 1), -9.0, dtype=logits.dtype), logits), 1)
        labels, background = torch.cat((labels[:, :1].clamp(max=0), labels), 1), 0
    options = {"delta": 0.7, "background": background}
    found = diagnose(logits, targets, errors, scope=scope, image_index=image, **options)
    ranked = {"scope": scope, "image_index": image} if scope == "image" else {}
    scores = logits.detach().requires_grad_()
    given = errors.detach().double().requires_grad_()
    out = reference.alrp_loss(scores, targets, given, **options, **ranked)
    gradient, by_errors = torch.autograd.grad(out.cls + out.loc, (scores, given))

    positives, negatives = scores.detach()[labels == 1], scores.detach()[labels == 0]
    own_image = image[:, None].expand(labels.shape)
    together = own_image[labels == 1][:, None] == own_image[labels == 0] if scope == "image" else torch.tensor(True)
    gaps = negatives - positives[:, None]
    n_fp = ((gaps / 1.4 + 0.5).clamp(0, 1) * together).sum(1)
    compared = together.expand_as(gaps)
    competing = compared.any(0)
    lowest = torch.where(compared, positives[:, None], torch.inf).amin(0)
    expected = {
        "positives": POSITIVES,
        "negatives": len(negatives),
        "ignored": int((labels < 0).sum()),
        "images": 4,
        "images_without_objects": 2,
        "loss_cls": out.cls,
        "loss_loc": out.loc,
        "rank_median": out.rank.median(),
        "rank_worst": out.rank.max(),
        "n_fp_median": n_fp.median(),
        "n_fp_worst": n_fp.max(),
        "outranked": (n_fp / compared.sum(1)).median(),
        "negatives_above": (negatives > lowest)[competing].double().mean(),
        "pairs_in_ramp": (gaps.abs() < 0.7).double().mean(),
        "spread": scores.detach()[labels >= 0].std(correction=0),
        "score_lowest": positives.sigmoid().min(),
        "score_median": positives.sigmoid().median(),
        "score_highest": positives.sigmoid().max(),
        "score_negative": negatives.sigmoid().max(),
        "positives_passing": int((positives.sigmoid() >= 0.05).sum()),
        "negatives_passing": int((negatives.sigmoid() >= 0.05).sum()),
        "gradient_positives": gradient[labels == 1].abs().sum(),
        "gradient_negatives": gradient[labels == 0].abs().sum(),
        "gradient_balance": 1.0,
        "error_mean": errors.mean(),
        "error_max": errors.max(),
        "loc_gradient": by_errors.sum(),
        "box_weight": 1.0,
        "delta": 0.7,
        "score_threshold": 0.05,
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(float(torch.as_tensor(value).detach()), rel=2e-6, abs=0), name
    assert {field.name for field in dataclasses.fields(found)} == {*expected, "findings"} - {"gradient_balance"}


def test_it_runs_on_every_backend(backend):
    fast = Fast(backend, "auto")
    batch = [tensor[:60] for tensor in healthy()]
    batch[2] = batch[2][:3]  # the errors of its positives
    with fast.running():
        found = dataclasses.asdict(diagnose(*(fast.put(tensor) for tensor in batch)))
    expected = dataclasses.asdict(diagnose(*batch))
    assert found.pop("findings") == expected.pop("findings")
    for name, value in expected.items():
        assert found[name] == (value if value is None else pytest.approx(value, rel=1e-5)), name


def test_labels_of_rank_and_sort_by_their_signs():
    logits, targets, _ = healthy()
    labels = flat(targets).float() * torch.rand(ANCHORS, CLASSES, generator=torch.Generator().manual_seed(0)).clamp(min=0.1)
    found = diagnose(logits, labels.sign(), delta=0.5)
    assert found == diagnose(logits, targets, delta=0.5)
    assert found.positives == POSITIVES


# --- what is odd -----------------------------------------------------------------------------------------------------


def findings(found, *words):
    """The findings are those that begin so, in this order, and the report shows them."""
    assert len(found.findings) == len(words), found.findings
    for sentence, pattern in zip(found.findings, words, strict=True):
        assert re.match(pattern, sentence), sentence
        assert f" - {sentence}" in " ".join(str(found).split())  # of lines that are wrapped
    assert "nothing is odd" not in str(found)


def test_no_positive():
    logits, targets, _ = healthy()
    background = torch.full_like(targets, CLASSES)
    findings(diagnose(logits, background), "No target is positive, so that the losses are 0")
    findings(diagnose(logits, background, torch.zeros(0)), "No target is positive")
    findings(
        diagnose(logits, torch.full_like(targets, -1)), "All 2000 anchors are ignored.*the background's class index is 8 here"
    )
    findings(diagnose(logits, torch.full_like(logits, -1)), "All 16000 logits are ignored.*negatives are 0")
    empty = diagnose(torch.zeros(0, CLASSES), torch.zeros(0, dtype=torch.int64))
    assert (empty.positives, empty.negatives, empty.ignored) == (0, 0, 0)
    findings(empty, "No target is positive")


def test_background_given_as_ignored():
    logits, targets, errors = healthy()
    findings(
        diagnose(logits, torch.where(targets == CLASSES, -1, targets), errors),
        "1960 of 2000 anchors are ignored. A target below 0",
    )
    labels = flat(targets)
    found = diagnose(logits, torch.where(labels == 0, -1, labels), errors)
    findings(found, "15960 of 16000 logits are ignored")
    assert found.loss_cls == 0


def test_background_given_as_a_class():
    logits, targets, _ = healthy()
    wrong = torch.where(targets == CLASSES, 0, targets)
    words = "1992 of 1992 anchors are positive.*class index is 8 here; if 0, the most frequent target, is it, pass background=0"
    found = diagnose(logits, wrong)
    assert re.match(words, found.findings[0])
    found = diagnose(logits[:, 1], torch.ones(ANCHORS), score_threshold=0.0)
    findings(found, "2000 of 2000 logits are positive, more than detectors have, and L_cls is 0. .*negatives are 0")


def test_classes_shifted_by_one():
    logits, targets, errors = healthy()
    for step, words in ((1, "lower"), (-1, "higher")):
        shifted = torch.where((targets >= 0) & (targets < CLASSES), (targets + step) % CLASSES, targets)
        found = diagnose(logits, shifted, errors, balance=50.0)
        assert re.match(
            rf"L_cls would be 0\.\d+ instead of 0\.9\d+ if every class index were one {words}. Classes count from 0 to 7",
            found.findings[0],
        )


def test_targets_of_other_logits():
    logits, targets, _ = healthy(lift=-4.0)
    words = r"The median positive ranks below 99\.\d% of the negatives, worse than by chance.*how both are flattened"
    findings(diagnose(logits, targets), words)


def test_on_the_way():
    logits, targets, _ = healthy(lift=1.7)
    found = diagnose(logits, targets, score_threshold=0.01)
    findings(found, r"L_cls is 0\.9\d+, though the median positive ranks above 8\d\.\d% of the negatives: with N_FP = \d+ there")


def test_scores_in_place_of_logits():
    logits, targets, _ = healthy()
    findings(diagnose(logits.sigmoid(), targets), "All logits lie between 0 and 1", "100% of the negatives reach")


def test_learnt_by_heart():
    logits, targets, errors = healthy(lift=20.0)
    findings(diagnose(logits, targets, errors), "L_cls is 0: every positive ranks above every negative by delta or more")


def test_the_first_step_and_a_delta_that_is_too_large():
    logits, targets, errors = healthy()
    start = -4.6 + 0.01 * torch.randn(ANCHORS, CLASSES, generator=torch.Generator().manual_seed(1))
    words = r"100% of the pairs .* less than delta = 1, .* the logits spread by 0\.01 only"
    findings(diagnose(start, targets), words)
    findings(diagnose(logits, targets, errors, delta=20.0), "100% of the pairs .* less than delta = 20", "The box part")
    findings(diagnose(torch.zeros(ANCHORS, CLASSES), targets), "All logits are equal", "100% of the negatives reach")


def test_a_delta_that_is_too_small():
    logits, targets, errors = healthy()
    findings(diagnose(logits, targets, errors, delta=0.01), r"The logits spread by 1\.\d+, 12\d times delta = 0\.01")
    found = diagnose(100 * logits, targets, errors)
    assert re.match(r"The logits spread by 12\d, 12\d times delta = 1,", found.findings[0])
    assert diagnose(logits, targets, errors, delta=0.0).findings == ()  # which asks for no margin


def test_nothing_would_be_detected():
    found = diagnose(*healthy(level=-9.0))
    threshold = re.search(r"([\d.]+) lets nine of ten positives pass, and (\d+) negatives", found.findings[0])
    findings(found, r"\d of 40 positives reach the score threshold of 0.05; their median score is 0.00\d+")
    again = diagnose(*healthy(level=-9.0), score_threshold=float(threshold[1]))
    assert again.findings == ()
    assert again.positives_passing >= 36
    assert again.negatives_passing == int(threshold[2])


def test_everything_would_be_detected():
    findings(diagnose(*healthy(level=0.0)), r"99\.\d% of the negatives reach the score threshold of 0\.05.*begin at -log\(99\)")


def test_not_finite():
    logits, targets, errors = healthy()
    bad, infinite = logits.detach().clone(), logits.detach().clone()
    bad[5, :3], infinite[7, 2] = torch.nan, torch.inf
    bad[1] = torch.nan  # ignored: nobody's concern
    found = diagnose(bad, targets, errors.detach())
    findings(found, "3 of 15936 logits are NaN")
    assert found.loss_cls != found.loss_cls
    findings(diagnose(infinite, targets, errors.detach()), "1 of 15936 logits are infinite")
    findings(diagnose(logits, targets, errors / 0), "40 of 40 loc_errors are NaN or infinite")
    with torch.no_grad():
        ignored = logits.clone()
        ignored[1] = torch.nan
    assert diagnose(ignored, targets, errors.detach()).findings == ()
    findings(diagnose(bad, torch.full_like(targets, CLASSES)), "11 of 16000 logits are NaN", "No target is positive")


def test_half_precision():
    logits, targets, errors = healthy(torch.bfloat16)
    words = r"bfloat16 logits come in steps of 0\.0312 at the positives.*delta = 0\.06, "
    findings(diagnose(*healthy(torch.bfloat16, level=-9.0), delta=0.06, score_threshold=0.002), words)
    found = diagnose(logits, targets, errors.to(torch.bfloat16))
    findings(found, "loc_errors are bfloat16, in which coordinates .* decode boxes and compute their errors in float32")
    many = torch.zeros(3_060_000, dtype=torch.float16)  # 1 / 3.06e6 is 5.48 steps of float16 there, and 5 are kept
    targets = torch.zeros(len(many))
    many[0], targets[0] = -10, 1
    found = diagnose(many, targets)
    assert any(re.match(r"Positives get 1\.1 times the gradient.*too small for float16.*GradScaler", s) for s in found.findings)
    assert diagnose(many.float(), targets).gradient_balance == pytest.approx(1, rel=1e-5)


def test_gradients_that_end_early():
    logits, targets, errors = healthy()
    findings(diagnose(logits, targets, errors.detach()), "loc_errors carry no gradient")
    findings(diagnose(logits.detach(), targets, errors), "loc_errors carry a gradient and the logits none")
    findings(diagnose(logits, targets, errors.detach().requires_grad_()), "loc_errors are a leaf")
    assert diagnose(logits.detach(), targets, errors.detach()).findings == ()  # looked at without a graph
    toys = logits.detach().requires_grad_(), targets, errors.detach().requires_grad_()  # of no model
    assert diagnose(*toys).findings == ()
    with torch.no_grad():
        assert diagnose(*(tensor.detach() for tensor in (logits, targets, errors))).findings == ()


def test_lists_are_looked_at_before_they_are_joined():
    logits, targets, errors = healthy()
    toys = logits.detach().requires_grad_(), targets, errors.detach().requires_grad_()
    assert diagnose([toys[0]], [toys[1]], toys[2]).findings == ()
    with torch.no_grad():
        assert diagnose([logits], [targets], errors).findings == ()
    findings(diagnose([logits], [targets], errors.detach().requires_grad_()), "loc_errors are a leaf")


def test_an_empty_batch_has_no_image():
    found = diagnose(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), image_index=torch.zeros(0, dtype=torch.int64))
    assert (found.images, found.images_without_objects) == (0, 0)


def test_errors_that_are_no_errors():
    logits, targets, errors = healthy()
    findings(diagnose(logits, targets, -errors), r"loc_errors are as low as -1\.")
    findings(diagnose(logits, targets, 100 * errors), r"loc_errors are as high as 1\d\d\.")
    findings(diagnose(logits, targets, 0 * errors), "All loc_errors are 0")
    findings(
        diagnose(logits, targets, errors.where(torch.arange(POSITIVES) < 9, 2.0)), "31 of 40 loc_errors are 2, the highest.*GIoU"
    )


def test_boxes_that_weigh_little():
    logits, targets, errors = healthy()
    small = errors / 20
    found = diagnose(logits, targets, small)
    findings(found, r"The box part, 1 \* 0\.0\d+, is \d\.\d+% of the loss, and")
    assert diagnose(logits, targets, small, balance=20.0).findings == ()
    assert diagnose(logits, targets, small, balance=SelfBalance(100)).findings == ()
    assert diagnose(logits, targets, small, balance="value").findings == ()
    logits, targets, errors = healthy(lift=0.0)
    assert (
        "for the positives rank low, and the sum of its gradient over loc_errors 0.0"
        in diagnose(logits, targets, errors).findings[-1]
    )


def test_the_weight_of_the_boxes():
    batch = healthy()
    balance = SelfBalance()
    balance(torch.tensor(0.3), torch.tensor(0.1))
    balance.end_epoch()
    assert diagnose(*batch, balance=balance).box_weight == pytest.approx(4)
    assert diagnose(*batch, balance=3).box_weight == 3
    by_value = diagnose(*batch, balance="value")
    assert by_value.box_weight == by_value.loss_cls / by_value.loss_loc
    assert diagnose(*batch, balance=alrp_cuda.ALRPLoss(balance="self").balance).box_weight == 50


def test_self_balancing_whose_epochs_never_end():
    balance = SelfBalance()
    balance.iteration += 10_000
    findings(
        diagnose(*healthy(), balance=balance), "Self-balancing still has its first weight, 50, after 10000 iterations: call its"
    )
    assert diagnose(*healthy(), balance=SelfBalance(20_000)).findings == ()
    balance.end_epoch()
    assert diagnose(*healthy(), balance=balance).findings == ()


def test_images_that_learn_nothing():
    image = torch.arange(4).repeat_interleave(ANCHORS // 4)
    by_image = diagnose(*healthy(), scope="image", image_index=image)
    findings(by_image, "2 of 4 images have no object: with scope='image' their negatives")
    by_batch = diagnose(*healthy(), image_index=image)
    assert by_batch.findings == ()
    assert str(by_batch).startswith("40 positives, 15896 negatives, 64 ignored; 2 of 4 images without objects\n")


def test_lists_are_diagnosed_as_their_concatenation():
    logits, targets, errors = healthy()
    half = ANCHORS // 2
    whole = diagnose(logits, targets, errors)
    assert diagnose(list(logits.split(half)), list(targets.split(half)), errors) == whole
    image = torch.arange(4).repeat_interleave(ANCHORS // 4)
    by_image = diagnose(logits, targets, errors, scope="image", image_index=image)
    assert diagnose([logits.view(4, -1, CLASSES)], [targets.view(4, -1)], errors, scope="image") == by_image


# --- arguments, and what stays ---------------------------------------------------------------------------------------


def test_nothing_changes():
    logits, targets, errors = healthy()
    balance = SelfBalance(1)
    before = copy.deepcopy(balance.state_dict())
    diagnose(logits, targets, errors, balance=balance)
    assert all(torch.equal(value, before[name]) for name, value in balance.state_dict().items())
    expected = torch.autograd.grad(sum(alrp_cuda.alrp_loss(logits, targets, errors)[:2]), (logits, errors), retain_graph=True)
    diagnose(logits, targets, errors)
    again = torch.autograd.grad(sum(alrp_cuda.alrp_loss(logits, targets, errors)[:2]), (logits, errors))
    assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))


def test_a_diagnosis_holds_plain_values_and_does_not_change():
    found = diagnose(*healthy())
    assert all(type(value) in (int, float, tuple, type(None)) for value in dataclasses.asdict(found).values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.positives = 3


def test_inference_mode():
    with torch.inference_mode():
        logits, targets, errors = healthy()
        found = diagnose(logits, targets, errors)
    assert found == diagnose(*(tensor.detach() for tensor in healthy()))


LOGITS, TARGETS = torch.zeros(3, 2), torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("error", "arguments", "options", "words"),
    [
        (TypeError, (0.0, TARGETS), {}, "logits must be a torch.Tensor, got float"),
        (ValueError, (LOGITS, TARGETS[:2]), {}, r"targets must have the logits' shape \(3, 2\)"),
        (ValueError, (LOGITS, TARGETS + 1), {}, "targets .* got"),
        (ValueError, (LOGITS, torch.full((3, 2), 0.7)), {}, "targets "),
        (TypeError, (LOGITS, TARGETS, 0.5), {}, "loc_errors must be a torch.Tensor, got float"),
        (ValueError, (LOGITS, TARGETS, torch.zeros(3)), {}, "loc_errors .* 2.* 3|loc_errors .* 3.* 2"),
        (TypeError, (LOGITS, TARGETS, torch.zeros(2), 0.5), {}, "positional argument"),
        (ValueError, (LOGITS, TARGETS), {"delta": -1}, "delta must be finite and >= 0, got -1"),
        (ValueError, (LOGITS, TARGETS), {"background": -1}, "background must be a class index >= 0"),
        (ValueError, (LOGITS, TARGETS), {"scope": "level"}, "scope must be one of 'batch', 'image', got 'level'"),
        (ValueError, (LOGITS, TARGETS), {"scope": "image"}, "image_index must be given for scope 'image', got None"),
        (ValueError, (LOGITS, TARGETS), {"image_index": TARGETS[:2]}, r"image_index must have shape \(3,\)"),
        (TypeError, (LOGITS, TARGETS), {"score_threshold": "low"}, "score_threshold must be a number, got str"),
        (ValueError, (LOGITS, TARGETS), {"score_threshold": 5}, "score_threshold must be at most 1, got 5"),
        (TypeError, (LOGITS, TARGETS, torch.zeros(2)), {"balance": [2]}, "balance must be a number, got list"),
        (ValueError, (LOGITS, TARGETS, torch.zeros(2)), {"balance": "self"}, "balance must be one of 'value', got 'self'"),
        (ValueError, (LOGITS, TARGETS), {"balance": 2.0}, "balance must be None without loc_errors, got 2.0"),
    ],
)
def test_wrong_arguments_are_named(error, arguments, options, words):
    with pytest.raises(error, match=words):
        diagnose(*arguments, **options)


def test_values_of_labels_are_checked_on_devices_that_nobody_waits_for(not_waiting):
    logits = not_waiting.put(LOGITS)
    with not_waiting.running():
        with pytest.raises(ValueError, match="targets"):
            diagnose(logits, not_waiting.put(TARGETS + 1))
        with pytest.raises(ValueError, match="loc_errors"):
            diagnose(logits, not_waiting.put(TARGETS), not_waiting.put(torch.zeros(3)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int32])
def test_every_dtype_of_labels(dtype):
    logits, targets, errors = healthy()
    targets = torch.where(targets < 0, CLASSES, targets)  # unsigned ones cannot ignore
    assert diagnose(logits, targets.to(dtype), errors) == diagnose(logits, targets, errors)
    labels = flat(targets)
    assert diagnose(logits, labels.to(dtype), errors) == diagnose(logits, labels, errors)
