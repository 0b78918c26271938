"""The modules are the functions with their arguments kept."""

import copy
import pickle

import pytest
import torch
from cases import Case, Labels
from implementations import continuous, debugging

import alrp_cuda

DATA = Case((400, 23), Labels(torch.int64, 5, background=0)).build()
LABELLED = continuous(DATA.logits, DATA.targets, DATA.loc_errors, background=0)
ALRP = {"delta": 0.5, "order": "hard", "eps": 0.25, "background": 0}
NDCG = {"delta": 0.5, "eps": 0.25, "background": 0}
RANK_SORT = {"delta": 1.0, "eps": 0.75}
AP = {"delta": 0.5, "interpolate": True, "eps": 0.25, "background": 0}


def modules(choice):
    return [
        (alrp_cuda.ALRPLoss, ALRP | choice, alrp_cuda.alrp_loss, (DATA.logits, DATA.targets, DATA.loc_errors)),
        (alrp_cuda.APLoss, AP | choice, alrp_cuda.ap_loss, (DATA.logits, DATA.targets)),
        (alrp_cuda.NDCGLoss, NDCG | choice, alrp_cuda.ndcg_loss, (DATA.logits, DATA.targets)),
        (alrp_cuda.RankSortLoss, RANK_SORT | choice, alrp_cuda.rank_sort_loss, (DATA.logits, LABELLED)),
    ]


def run(function, tensors):
    """Outputs and gradient of the logits."""
    logits = tensors[0].clone().requires_grad_()
    out = function(logits, *tensors[1:])
    out = out if isinstance(out, tuple) else (out,)
    out[0].backward()
    return [*(t.detach() for t in out), logits.grad]


def test_modules_give_the_numbers_of_the_functions(fast):
    for module, options, function, tensors in modules(fast.choice):
        tensors = [fast.put(t) for t in tensors]
        want = run(lambda *t, f=function, o=options: f(*t, **o), tensors)
        made = module(**options)
        for form in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made)), made.eval()):
            assert all(torch.equal(a, b) for a, b in zip(run(form, tensors), want, strict=True))


@pytest.mark.parametrize("name", ["delta", "eps", "background", "order", "interpolate"])
def test_every_argument_of_a_module_matters(fast, name):
    other = {"delta": 2.0, "eps": 3.0, "background": 7, "order": "smooth", "interpolate": False}[name]
    for module, options, _, tensors in modules(fast.choice):
        if name not in options:
            continue
        tensors = [fast.put(t) for t in tensors]
        # Other scores, so that interpolation shows; no anchor of class 0, which is a positive under another background.
        tensors[0] = tensors[0].nan_to_num(0).flip(-1).contiguous()
        if name == "background":
            tensors[1] = torch.where(tensors[1] == 0, 7, tensors[1])
            with debugging(), pytest.raises(ValueError, match="targets must be class indices"):
                module(**options)(*tensors)
            module(**options | {name: other})(*tensors)
            continue
        one, two = run(module(**options), tensors), run(module(**options | {name: other}), tensors)
        assert not all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_defaults_of_modules_are_those_of_the_functions(fast):
    logits, targets, errors = (fast.put(t) for t in (DATA.logits, DATA.flat.view_as(DATA.logits), DATA.loc_errors))
    assert torch.equal(alrp_cuda.ALRPLoss()(logits, targets, errors).loc, alrp_cuda.alrp_loss(logits, targets, errors).loc)
    assert torch.equal(alrp_cuda.APLoss()(logits, targets), alrp_cuda.ap_loss(logits, targets))
    assert torch.equal(alrp_cuda.NDCGLoss()(logits, targets), alrp_cuda.ndcg_loss(logits, targets))
    labelled = fast.put(LABELLED)
    got, want = alrp_cuda.RankSortLoss()(logits, labelled), alrp_cuda.rank_sort_loss(logits, labelled)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("form", [alrp_cuda.APLoss, alrp_cuda.NDCGLoss])
def test_modules_take_the_number_of_positives(fast, form):
    logits, targets = fast.put(DATA.logits), fast.put(DATA.targets)
    module = form(background=0, **fast.choice)
    count = len(DATA.loc_errors)
    assert torch.equal(module(logits, targets, num_positives=count), module(logits, targets))


def test_rank_sort_module_takes_the_number_of_positives(fast):
    logits, targets = fast.put(DATA.logits), fast.put(LABELLED)
    module = alrp_cuda.RankSortLoss(**fast.choice)
    told = module(logits, targets, num_positives=len(DATA.loc_errors))
    assert all(torch.equal(a, b) for a, b in zip(told, module(logits, targets), strict=True))


def test_repr_shows_the_arguments():
    for module, options, *_ in modules({"algorithm": "tiled", "backend": "cpu"}):
        text = repr(module(**options))
        assert text.startswith(module.__name__)
        for name, value in options.items():
            assert f"{name}={value!r}" in text


def test_modules_have_nothing_to_learn_or_save():
    for module, options, *_ in modules({}):
        assert not list(module(**options).parameters())
        assert not module(**options).state_dict()


@pytest.mark.parametrize("module", [alrp_cuda.ALRPLoss, alrp_cuda.APLoss, alrp_cuda.NDCGLoss, alrp_cuda.RankSortLoss])
@pytest.mark.parametrize(
    ("error", "options", "words"),
    [
        (ValueError, {"delta": -1.0}, "delta must be finite and >= 0, got -1.0"),
        (TypeError, {"delta": "1"}, "delta must be a number, got str"),
        (ValueError, {"eps": float("nan")}, "eps must be finite and >= 0, got nan"),
        (TypeError, {"eps": None}, "eps must be a number, got NoneType"),
        (ValueError, {"algorithm": "fastest"}, "algorithm must be one of 'auto', .*, got 'fastest'"),
        (ValueError, {"backend": "tpu"}, "backend must be one of 'auto', .*, got 'tpu'"),
        (TypeError, {"gamma": 2.0}, "gamma"),
    ],
)
def test_bad_arguments_raise_when_a_module_is_made(module, error, options, words):
    with pytest.raises(error, match=words):
        module(**options)


@pytest.mark.parametrize("module", [alrp_cuda.ALRPLoss, alrp_cuda.APLoss, alrp_cuda.NDCGLoss])
def test_bad_background_raises_when_a_module_is_made(module):
    with pytest.raises(TypeError, match="background must be an int or None, got str"):
        module(background="0")
    with pytest.raises(ValueError, match="background must be a class index >= 0"):
        module(background=-1)


def test_bad_forms_raise_when_a_module_is_made():
    with pytest.raises(ValueError, match="order must be one of 'smooth', 'hard', got 'rough'"):
        alrp_cuda.ALRPLoss(order="rough")
    with pytest.raises(TypeError, match="interpolate must be a bool, got int"):
        alrp_cuda.APLoss(interpolate=1)
    with pytest.raises(TypeError, match="positional argument"):
        alrp_cuda.ALRPLoss(1.0)
