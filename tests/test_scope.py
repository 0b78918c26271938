"""scope="image" ranks each image by itself: the mean of separate calls, values and gradients, in one call."""

import math

import pytest
import torch
from cases import Case, Labels
from compare import BOUND, assert_near, assert_same_loss, compute_dtype
from implementations import LOSSES, evaluate, every_loss
from torch.utils._python_dispatch import TorchDispatchMode

import alrp_cuda
from alrp_cuda import images, reference

FORMS = [Labels(torch.int64), Labels(torch.float32), Labels(torch.int64, 5), Labels(torch.uint16, 3), Labels(torch.int32, 8, 0)]


def images_of(targets, kind):
    """An image for each of the targets, in no order: seven of them, of which the last two hold no positive of ``kind``."""
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 5, targets.shape, generator=generator)
    other = torch.randint(0, 7, targets.shape, generator=generator)
    return torch.where(kind, image, other) * 3 - 4


def separately(loss, losses, data, image, options):
    """The mean over the images that hold a positive, by one call an image; results in the order of the whole."""
    logits, targets, flat = data.logits.reshape(-1), data.targets.reshape(-1), data.flat
    width = data.logits.numel() // image.numel()
    per_logit = image.reshape(-1).repeat_interleave(width)
    classes = data.logits.numel() // targets.numel()
    per_positive = per_logit[flat == 1]
    want = {"d_logits": torch.zeros_like(logits), "d_loc_errors": torch.zeros_like(data.loc_errors)}
    count = max(1, len(per_positive.unique()))
    for k in image.unique():
        mine, rows = per_logit == k, (per_logit.reshape(-1, classes) == k).all(1)
        one = logits[mine], targets[rows], data.loc_errors[per_positive == k]
        if targets.numel() != logits.numel():
            one = one[0].reshape(-1, classes), *one[1:]
        for name, value in evaluate(loss, losses, *one, **options).items():
            where = {"d_logits": mine}.get(name, per_positive == k)
            if value.dim() == 0:
                want[name] = want.get(name, 0) + value.double() / count
            elif name in ("rank", "precision"):
                want.setdefault(name, torch.zeros(len(per_positive), dtype=value.dtype))[where] = value
            else:
                want[name][where] = value.reshape(-1) / count
    if loss.kind != "alrp":
        del want["d_loc_errors"]
    return want | {"d_logits": want["d_logits"].reshape(data.logits.shape)}


def shared(losses, image):
    return {"scope": "image", "image_index": losses.put(image)}


@every_loss
@pytest.mark.parametrize("labels", FORMS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_mean_of_separate_calls(losses, loss, labels, dtype):
    data = Case((1009, 67), labels, dtype=dtype, errors_dtype=dtype).build()
    rows = data.targets if labels.classes else data.flat.reshape(data.logits.shape)
    kind = (data.flat == 1).reshape(data.targets.numel(), -1).any(1).reshape(data.targets.shape)
    image = images_of(rows, kind)
    got = evaluate(loss, losses, data.logits, data.targets, data.loc_errors, **data.options, **shared(losses, image))
    assert_same_loss(got, separately(loss, losses, data, image, data.options), dtype, data.positive)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_values_of_positives_may_have_a_dtype_of_their_own(fast, dtype):
    logits, image = fast.put(torch.tensor([[0.0, 0.5, 1.0], [0.25, 0.75, -0.5]])), fast.put(torch.tensor([[0] * 3, [1] * 3]))
    targets, errors = fast.put(torch.tensor([[1, 0, 1], [0, 1, 1]])), fast.put(torch.tensor([0.5, 0.25, 0.125, 0.75]))
    given = errors.to(dtype).requires_grad_(), errors.requires_grad_()
    got, want = (fast.alrp_loss(logits, targets, each, **shared(fast, image)).loc for each in given)
    assert torch.equal(got, want)
    gradients = torch.autograd.grad(got, given[0])[0], torch.autograd.grad(want, given[1])[0]
    assert torch.equal(gradients[0], gradients[1].to(dtype))
    labels = torch.where(targets == 1, fast.put(torch.tensor([[0.5, 0, 0.25], [0, 0.125, 0.75]])), 0)
    got, want = (fast.rank_sort_loss(logits, each, **shared(fast, image)) for each in (labels.to(dtype), labels))
    assert got == want


@every_loss
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64], ids=str)
def test_flat_targets_take_an_index_of_anchors(losses, loss, dtype):
    data = Case((300, 23)).build()
    data.logits.shape[0] == 3 or pytest.fail("the case is to have three rows")
    image = torch.tensor([5, 1, 5]).to(dtype)
    got = evaluate(loss, losses, data.logits, data.targets, data.loc_errors, **shared(losses, image))
    want = evaluate(
        loss, losses, data.logits, data.targets, data.loc_errors, **shared(losses, image[:, None].expand(data.logits.shape))
    )
    for name, value in want.items():
        assert torch.equal(got[name], value), name
    assert_same_loss(got, separately(loss, losses, data, image, {}), torch.float32, data.positive)


@every_loss
def test_one_image_is_the_batch(losses, loss):
    data = Case((257, 19), Labels(torch.int64, 5)).build()
    tensors = data.logits, data.targets, data.loc_errors
    want = evaluate(loss, losses, *tensors)
    got = evaluate(loss, losses, *tensors, **shared(losses, torch.full(data.targets.shape, 7)))
    assert_same_loss(got, want, torch.float32, data.positive)


@every_loss
def test_order_of_images_does_not_matter(losses, loss):
    data = Case((400, 30), Labels(torch.int64, 5)).build()
    image = torch.arange(len(data.targets)) // 20
    want = evaluate(loss, losses, data.logits, data.targets, data.loc_errors, **shared(losses, image))
    shuffled = torch.randperm(int(image.max()) + 1, generator=torch.Generator().manual_seed(0))[image]
    got = evaluate(loss, losses, data.logits, data.targets, data.loc_errors, **shared(losses, shuffled))
    assert_same_loss(got, want, torch.float32, data.positive)


@every_loss
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [-1, 0, -1, 0]], ids=str)
def test_no_positives_anywhere_give_connected_zeros(losses, loss, labels):
    image = torch.tensor([1, 0, 1, 2])
    got = evaluate(loss, losses, torch.zeros(4), torch.tensor(labels), torch.empty(0), **shared(losses, image))
    assert all(not value.any() for value in got.values())
    assert got["d_logits"].shape == (4,)


@every_loss
@pytest.mark.parametrize("shape", [(0,), (0, 3), (4, 0)])
def test_no_logits_give_connected_zeros(losses, loss, shape):
    targets = torch.zeros(shape, dtype=torch.int64)
    got = evaluate(loss, losses, torch.empty(shape), targets, torch.empty(0), **shared(losses, targets))
    assert got["d_logits"].shape == shape
    assert all(not value.any() for value in got.values())


@every_loss
def test_nan_score_shows_in_the_loss_and_in_its_image(losses, loss):
    for labels, errors in (([1, 0, 0, 0], [0.5]), ([0, 0, 1, 0], [0.5])):
        logits = torch.tensor([0.0, 1.0, math.nan, 2.0])
        image = torch.tensor([0, 0, 1, 1])
        got = evaluate(loss, losses, logits, torch.tensor(labels), torch.tensor(errors), **shared(losses, image))
        assert got["d_logits"].isnan().tolist() == [False, False, True, True]
        assert all(got[name].isnan() for name in ("cls", "loc", "loss", "rank_error", "sort_error") if name in got)


def told(data, image):
    """The number of positives of each image of an index of anchors that ascends."""
    positive = (data.flat == 1).reshape(image.numel(), -1).sum(1)
    return [int(positive[image == k].sum()) for k in image.unique()]


@pytest.fixture
def waiting(monkeypatch):
    """As on a device whose values the host waits for: lists of the operators and reads that do so."""
    waits = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            tags = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & {*func.tags}
            masks = (
                [i for i in args[1] if i is not None and i.dtype == torch.bool] if func is torch.ops.aten.index.Tensor else [0]
            )
            if tags and masks and not (kwargs or {}).get("output_size"):
                waits.append(str(func))
            return func(*args, **kwargs or {})

    read = torch.Tensor.tolist
    monkeypatch.setattr(images, "_is_awaited", lambda tensor: True)
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: waits.append("tolist") or read(tensor))
    with Seen():
        yield waits


@every_loss
@pytest.mark.parametrize("labels", [Labels(torch.float32), Labels(torch.int64, 5), Labels(torch.uint16, 3)], ids=str)
def test_told_positives_change_nothing(losses, loss, labels):
    data = Case((1009, 67), labels).build()
    image = (torch.arange(data.logits.numel() // (labels.classes or 1)).sqrt() / 5).long().reshape(data.targets.shape)
    tensors = data.logits, data.targets, data.loc_errors
    want = evaluate(loss, losses, *tensors, **data.options, **shared(losses, image))
    counts = told(data, image)
    got = evaluate(loss, losses, *tensors, **data.options, **shared(losses, image), num_positives=counts)
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], value) for name, value in want.items())
    assert len({*counts}) > 1 < len(image.unique(return_counts=True)[1].unique())


@every_loss
def test_told_positives_take_no_wait(fast, waiting, loss):
    data = Case((600, 30), Labels(torch.int64, 5)).build()
    image = torch.arange(len(data.targets)) // (len(data.targets) // 6)
    tensors = data.logits, data.targets, data.loc_errors
    want = evaluate(loss, fast, *tensors, **shared(fast, image))
    counts = told(data, image)
    waiting.clear()
    got = evaluate(loss, fast, *tensors, **shared(fast, image), num_positives=counts)
    assert waiting == []
    assert all(torch.equal(got[name], value) for name, value in want.items())
    for wrong in (image.flip(0), image.clamp(min=1), torch.arange(len(image)) // 7):  # not ascending, five images, of 7 anchors
        got = evaluate(loss, fast, *tensors, **shared(fast, wrong), num_positives=counts)
        assert all(value.isnan().any() for value in got.values())
    with pytest.raises(ValueError, match=r"num_positives must have one number an image, .* got 7 numbers for 144 rows"):
        fast.ap_loss(*tensors[:2], **shared(fast, image), num_positives=[*counts, 0])


def test_an_index_on_the_cpu_tells_images_of_any_size(fast, monkeypatch):
    monkeypatch.setattr(images, "_is_awaited", lambda tensor: tensor.is_floating_point())  # the logits, not the index
    data = Case((600, 30), Labels(torch.int64, 5)).build()
    image = torch.arange(len(data.targets)) ** 2 // 1000
    tensors, counts = (data.logits, data.targets, data.loc_errors), told(data, image)
    want = evaluate(LOSSES["alrp"], fast, *tensors, **shared(fast, image))
    got = evaluate(LOSSES["alrp"], fast, *tensors, scope="image", image_index=image, num_positives=counts)
    assert all(torch.equal(got[name], value) for name, value in want.items())
    with pytest.raises(ValueError, match="image_index must ascend"):
        fast.ap_loss(*tensors[:2], scope="image", image_index=image.flip(0), num_positives=counts)
    with pytest.raises(ValueError, match=f"num_positives must have one number for each of the {len(counts)} images, got 1"):
        fast.ap_loss(*tensors[:2], scope="image", image_index=image, num_positives=[sum(counts)])


@every_loss
@pytest.mark.parametrize("order", ["ascending", "any"])
def test_images_are_waited_for_once(fast, waiting, loss, order):
    data = Case((600, 30), Labels(torch.int64, 5)).build()
    image = (torch.arange(len(data.targets)) ** 2 // 1000) if order == "ascending" else images_of(data.targets, data.targets < 5)
    tensors = data.logits, data.targets, data.loc_errors
    waiting.clear()
    got = evaluate(loss, fast, *tensors, **shared(fast, image))
    assert waiting == ["tolist"]
    assert_same_loss(got, separately(loss, fast, data, image, {}), torch.float32, data.positive)


def test_wide_and_narrow_images_meet(fast):
    """Images that choose their algorithm apart, under "auto"."""
    data = Case((4099, 67)).build()
    image = (torch.arange(data.logits.numel()) > 3000).long().reshape(data.logits.shape)
    for name, loss in LOSSES.items():
        got = evaluate(loss, fast, data.logits, data.targets, data.loc_errors, **shared(fast, image))
        auto = type(fast)(fast.backend, "auto")
        near = evaluate(loss, auto, data.logits, data.targets, data.loc_errors, **shared(fast, image))
        for key, value in near.items():
            assert_near(f"{name} {key}", value, got[key], BOUND[compute_dtype(torch.float32)])


def test_each_image_takes_the_algorithm_that_it_would_take_alone():
    """To the bit: 100 positives in float64 are ranked pair by pair, 200 are not."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1000, dtype=torch.float64, generator=generator)
    targets = (torch.arange(1000) < 100).long().expand(2, 1000)

    def ranks(logits, targets, positives, *slices, algorithm=-1):
        call = 0, 0, False, 1.0, algorithm, alrp_cuda.inputs.LOSSES.index("ap"), 1e-5, positives
        return torch.ops.alrp_cuda.ranking_loss([logits], [targets], None, *call, *slices)[2]

    got = ranks(logits, targets, None, [1000, 1000], [100, 100])
    assert torch.equal(got, torch.cat([ranks(logits[n], targets[n], 100, [], []) for n in (0, 1)], 1))
    assert not torch.equal(got, ranks(logits, targets, None, [1000, 1000], [100, 100], algorithm=1))


def test_modules_take_images(algorithm):
    data = Case((257, 19), Labels(torch.int64, 5)).build()
    logits, targets, errors = data.logits, data.targets, data.loc_errors
    image = torch.arange(targets.numel()) % 3
    options = {"algorithm": algorithm, "scope": "image"}
    one = alrp_cuda.ALRPLoss(**options)(logits, targets, errors, image_index=image)
    two = alrp_cuda.alrp_loss(logits, targets, errors, image_index=image, **options)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    three = alrp_cuda.APLoss(**options)(logits, targets, image_index=image)
    assert torch.equal(three, alrp_cuda.ap_loss(logits, targets, image_index=image, **options))
    four = alrp_cuda.NDCGLoss(**options)(logits, targets, image_index=image)
    assert torch.equal(four, alrp_cuda.ndcg_loss(logits, targets, image_index=image, **options))
    labels = torch.nn.functional.one_hot(targets.clamp(0, 5), 6)[:, :5] * 0.5
    labels[targets < 0] = -1
    five = alrp_cuda.RankSortLoss(**options)(logits, labels, image_index=image)
    six = alrp_cuda.rank_sort_loss(logits, labels, image_index=image, **options)
    assert all(torch.equal(a, b) for a, b in zip(five, six, strict=True))


@pytest.mark.parametrize(
    ("error", "options", "words"),
    [
        (ValueError, {"scope": "level"}, "scope must be one of 'batch', 'image', got 'level'"),
        (ValueError, {"scope": "image"}, "image_index must be given for scope 'image', got None"),
        (ValueError, {"image_index": torch.zeros(2, 3)}, "image_index must be None for scope 'batch', got a tensor"),
        (TypeError, {"scope": "image", "image_index": [0, 1]}, r"image_index must be a torch\.Tensor, got list"),
        (TypeError, {"scope": "image", "image_index": torch.zeros(2)}, r"image_index must have one of the dtypes .*float32"),
        (
            ValueError,
            {"scope": "image", "image_index": torch.zeros(3, dtype=torch.int64)},
            r"image_index must have shape \(2, 3\) or \(2,\), one index per anchor, got \(3,\)",
        ),
    ],
)
def test_misuse_is_named(losses, error, options, words):
    options = {k: losses.put(v) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    with pytest.raises(error, match=words):
        losses.ap_loss(losses.put(torch.zeros(2, 3)), losses.put(torch.tensor([[1, 0, 0], [0, -1, 1]])), **options)


@pytest.mark.parametrize(
    ("error", "index", "counts", "words"),
    [
        (ValueError, [0, 0, 1], [1, 2], r"num_positives\[1\] must be the number of positives in targets, 1, got 2"),
        (ValueError, [0, 0, 1], [2], "num_positives must have one number for each of the 2 images, got 1"),
        (ValueError, [0, 0, 1], [1, 1, 0], "num_positives must have one number for each of the 2 images, got 3"),
        (ValueError, [0, 1, 0], [1, 1], "image_index must ascend where num_positives has one number an image, got another order"),
        (ValueError, [0, 0, 1], [1, -1], r"num_positives\[1\] must be >= 0, got -1"),
        (TypeError, [0, 0, 1], [1, None], r"num_positives\[1\] must be an int, got NoneType"),
        (TypeError, [0, 0, 1], "11", "num_positives must be an int, a sequence of them, one an image, or None, got str"),
        (TypeError, None, [1, 1], "num_positives must be an int or None, got list"),
    ],
)
@pytest.mark.parametrize("module", [alrp_cuda, reference], ids=["fast", "reference"])
def test_wrong_positives_of_images_are_named(module, error, index, counts, words):
    options = {} if index is None else {"scope": "image", "image_index": torch.tensor(index)}
    with pytest.raises(error, match=words):
        module.ap_loss(torch.zeros(3, 2), torch.tensor([1, 2, 0]), num_positives=counts, **options)
    with pytest.raises(error, match=words):
        module.alrp_loss(torch.zeros(3, 2), torch.tensor([1, 2, 0]), torch.zeros(2), num_positives=counts, **options)


def test_class_indices_take_an_index_of_anchors_alone(losses):
    options = {"scope": "image", "image_index": losses.put(torch.zeros(2, 3, dtype=torch.int64))}
    with pytest.raises(ValueError, match=r"image_index must have shape \(2,\), one index per anchor, got \(2, 3\)"):
        losses.ap_loss(losses.put(torch.zeros(2, 3)), losses.put(torch.tensor([1, 3])), **options)


def test_what_depends_on_values_raises_on_every_device(losses):
    logits, image = losses.put(torch.zeros(4)), losses.put(torch.tensor([1, 0, 1, 0]))
    options = {"scope": "image", "image_index": image}
    with pytest.raises(ValueError, match="targets must be 1 "):
        losses.ap_loss(logits, losses.put(torch.tensor([1, 2, 0, 0])), **options)
    with pytest.raises(ValueError, match="num_positives must be the number of positives in targets, 2, got 3"):
        losses.ap_loss(logits, losses.put(torch.tensor([1, 1, 0, 0])), num_positives=3, **options)
    with pytest.raises(ValueError, match="targets hold 2 positives, got 1 errors"):
        losses.alrp_loss(logits, losses.put(torch.tensor([1, 1, 0, 0])), losses.put(torch.zeros(1)), **options)


def test_bad_scope_raises_when_a_module_is_made():
    for module in (alrp_cuda.ALRPLoss, alrp_cuda.APLoss, alrp_cuda.NDCGLoss, alrp_cuda.RankSortLoss):
        with pytest.raises(ValueError, match="scope must be one of 'batch', 'image', got 'level'"):
            module(scope="level")
