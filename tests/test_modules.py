"""The modules are the functions with their options kept."""

import copy
import lzma
import pickle
from pathlib import Path

import pytest
import torch
from cases import Case, Labels
from implementations import continuous

import alrp_cuda

DATA = Case((400, 23), Labels(torch.int64, 5, background=0)).build()
LABELLED = continuous(DATA.logits, DATA.targets, DATA.loc_errors, background=0)
ALRP = {"delta": 0.5, "order": "hard", "eps": 0.25, "background": 0}
NDCG = {"delta": 0.5, "eps": 0.25, "background": 0}
RANK_SORT = {"delta": 1.0, "eps": 0.75}
AP = {"delta": 0.5, "interpolate": True, "eps": 0.25, "background": 0}
MODULES = [alrp_cuda.ALRPLoss, alrp_cuda.APLoss, alrp_cuda.NDCGLoss, alrp_cuda.RankSortLoss]


def modules(**choice):
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


def is_same(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_modules_give_the_numbers_of_the_functions(algorithm):
    for module, options, function, tensors in modules(algorithm=algorithm):
        want = run(lambda *t, f=function, o=options: f(*t, **o), tensors)
        made = module(**options)
        for form in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made)), made.eval()):
            assert is_same(run(form, tensors), want)


@pytest.mark.parametrize("name", ["delta", "eps", "background", "order", "interpolate"])
def test_every_option_of_a_module_matters_and_can_be_set(algorithm, name):
    other = {"delta": 2.0, "eps": 3.0, "background": 7, "order": "smooth", "interpolate": False}[name]
    for module, options, _, tensors in modules(algorithm=algorithm):
        if name not in options:
            continue
        # Other scores, so that interpolation shows; no anchor of class 0, which is a positive under another background.
        tensors = [tensors[0].nan_to_num(0).flip(-1).contiguous(), *tensors[1:]]
        made = module(**options)
        assert getattr(made, name) == options[name]
        if name == "background":
            tensors[1] = torch.where(tensors[1] == 0, 7, tensors[1])
            with pytest.raises(ValueError, match="targets must be class indices"):
                made(*tensors)
        else:
            before = run(made, tensors)
        setattr(made, name, other)
        after = run(made, tensors)
        assert is_same(after, run(module(**options | {name: other}), tensors))
        assert name == "background" or not is_same(after, before)


def test_defaults_of_modules_are_those_of_the_functions():
    targets = DATA.flat.view_as(DATA.logits)
    for module, _, function, (logits, *_) in modules():
        rest = {"ALRPLoss": (targets, DATA.loc_errors), "RankSortLoss": (LABELLED,)}.get(module.__name__, (targets,))
        assert is_same(run(module(), (logits, *rest)), run(function, (logits, *rest)))


def test_modules_take_the_number_of_positives():
    for module, options, _, tensors in modules()[1:]:
        with pytest.raises(ValueError, match="num_positives"):
            module(**options)(*tensors, num_positives=len(DATA.loc_errors) + 1)
        module(**options)(*tensors, num_positives=len(DATA.loc_errors))


def test_the_gradient_of_boxes_can_be_weighed_by_the_value():
    out = alrp_cuda.ALRPLoss(**ALRP)(DATA.logits, DATA.targets, DATA.loc_errors)
    errors = DATA.loc_errors.clone().requires_grad_()
    plain = alrp_cuda.ALRPLoss(**ALRP)(DATA.logits, DATA.targets, errors)
    weighed = alrp_cuda.ALRPLoss(**ALRP, balance="value")(DATA.logits, DATA.targets, errors)
    assert torch.equal(weighed.loc, plain.loc)
    grads = [torch.autograd.grad(form.loc, errors)[0] for form in (plain, weighed)]
    torch.testing.assert_close(grads[1], grads[0] * (out.cls / out.loc))


def test_repr_shows_the_options():
    assert [repr(module(**options)) for module, options, *_ in modules(algorithm="tiled")] == [
        "ALRPLoss(scope='batch', delta=0.5, eps=0.25, algorithm='tiled', group=None, background=0, order='hard', balance=None)",
        "APLoss(scope='batch', delta=0.5, eps=0.25, algorithm='tiled', group=None, background=0, interpolate=True)",
        "NDCGLoss(scope='batch', delta=0.5, eps=0.25, algorithm='tiled', group=None, background=0)",
        "RankSortLoss(scope='batch', delta=1.0, eps=0.75, algorithm='tiled', group=None)",
    ]


def test_modules_have_nothing_to_learn_or_save():
    for module, options, *_ in modules():
        assert not list(module(**options).parameters())
        assert not module(**options).state_dict()


def test_pickles_of_version_0_1_load():
    path = Path(__file__).parent / "saved_by_0.1" / "losses.pkl.xz"  # by commit 01433d8, with ``backend`` among the options
    hard, weighed, balanced, *others = pickle.loads(lzma.decompress(path.read_bytes()))
    cases = modules()
    for old, (module, options, function, tensors) in zip((hard, *others), [cases[0], *cases[1:]], strict=True):
        if old is hard:
            options = options | {"algorithm": "tiled"}
        assert repr(old) == repr(module(**options))
        assert is_same(run(old, tensors), run(lambda *t, f=function, o=options: f(*t, **o), tensors))
    errors = DATA.loc_errors.clone().requires_grad_()
    grads = []
    for old in (weighed, balanced, balanced, balanced):
        out = old(DATA.logits, DATA.targets, errors)
        grads.append(torch.autograd.grad(out.loc, errors)[0])
    plain = grads[0] / 2
    for grad, weight in zip(grads[1:], (50, 50, (out.cls + out.loc) / out.loc), strict=True):
        torch.testing.assert_close(grad, plain * weight)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    ("error", "options", "words"),
    [
        (ValueError, {"delta": -1.0}, "delta must be finite and >= 0, got -1.0"),
        (TypeError, {"delta": "1"}, "delta must be a number, got str"),
        (ValueError, {"eps": float("nan")}, "eps must be finite and >= 0, got nan"),
        (TypeError, {"eps": None}, "eps must be a number, got NoneType"),
        (ValueError, {"algorithm": "fastest"}, "algorithm must be one of 'auto', .*, got 'fastest'"),
        (TypeError, {"backend": "cpu"}, "unexpected keyword argument 'backend'"),
    ],
)
def test_bad_options_raise_when_a_module_is_made(module, error, options, words):
    with pytest.raises(error, match=words):
        module(**options)


@pytest.mark.parametrize("module", MODULES[:3])
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
